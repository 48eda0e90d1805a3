"""All commands together: each room that has some gives them to `app` when it is imported."""

from __future__ import annotations

from aquipu.cli import changes, check, queries, serve
from aquipu.cli.app import app

__all__ = ["changes", "check", "queries", "run", "serve"]


def run() -> None:
    """Run the command that the arguments name; ends in SystemExit."""
    app(prog_name="aquipu")
