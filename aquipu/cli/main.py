"""All commands together: each room that has some gives them to `app` when it is imported."""

from __future__ import annotations

from aquipu.cli.app import app
from aquipu.cli.commands import (  # noqa: F401 - each gives its commands to `app`
    append,
    backup,
    export,
    follow,
    keep,
    listing,
    look,
    mend,
    read,
    serve,
)

__all__ = ["run"]


def run() -> None:
    """Run the command that the arguments name; ends in SystemExit."""
    app(prog_name="aquipu")
