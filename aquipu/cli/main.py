"""All commands together: each room that has some gives them to `app` when it is imported."""

from __future__ import annotations

from aquipu.cli.app import app

# The help lists the commands in this order.
# isort: off
from aquipu.cli.commands import append  # noqa: F401
from aquipu.cli.commands import importing  # noqa: F401
from aquipu.cli.commands import read  # noqa: F401
from aquipu.cli.commands import follow  # noqa: F401
from aquipu.cli.commands import listing  # noqa: F401
from aquipu.cli.commands import export  # noqa: F401
from aquipu.cli.commands import keep  # noqa: F401
from aquipu.cli.commands import look  # noqa: F401
from aquipu.cli.commands import backup  # noqa: F401
from aquipu.cli.commands import mend  # noqa: F401
from aquipu.cli.commands import serve  # noqa: F401
# isort: on

__all__ = ["run"]


def run() -> None:
    """Run the command that the arguments name; ends in SystemExit."""
    app(prog_name="aquipu")
