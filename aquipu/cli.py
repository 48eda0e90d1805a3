"""The command line: the commands that read stand in `queries`, those that change a store in `changes`."""

from __future__ import annotations

from aquipu import changes, queries
from aquipu.commands import app

__all__ = ["changes", "queries", "run"]


def run() -> None:
    """Run the command that the arguments name; ends in SystemExit."""
    app(prog_name="aquipu")
