"""What is said when a package of an extra is not installed."""

from __future__ import annotations


class MissingPackageError(Exception):
    """What was asked for needs a package that is not installed; the text says how to get it."""
