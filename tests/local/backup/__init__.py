"""Backups: what is decided, what is done, and what is left when it is cut short."""
