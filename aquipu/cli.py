"""The command line: what reads stands in `queries`, what changes a store in `changes`, the daemon in `serve`."""

from __future__ import annotations

from aquipu import changes, queries, serve
from aquipu.commands import app

__all__ = ["changes", "queries", "run", "serve"]


def run() -> None:
    """Run the command that the arguments name; ends in SystemExit."""
    app(prog_name="aquipu")
