"""The archive: its rules, and runs at full size: ``python -m tests.archive``."""
