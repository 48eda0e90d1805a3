"""Backups and copies of a store that a process writes at full speed, as a run of its own.

``python -m tests.backups backups`` and ``python -m tests.backups copies``.
"""
