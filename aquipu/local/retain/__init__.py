"""What stays and what goes: retention, purges, holds and cursors, the manifest."""
