"""All commands together: each room that has some gives them to `app` when it is imported."""

from __future__ import annotations

from aquipu.cli.app import app

# The help lists the commands in this order.
# isort: off
from aquipu.cli.commands.records import append  # noqa: F401
from aquipu.cli.commands.records import importing  # noqa: F401
from aquipu.cli.commands.records import read  # noqa: F401
from aquipu.cli.commands.records import follow  # noqa: F401
from aquipu.cli.commands.records import listing  # noqa: F401
from aquipu.cli.commands.records import export  # noqa: F401
from aquipu.cli.commands.upkeep import keep  # noqa: F401
from aquipu.cli.commands.upkeep import look  # noqa: F401
from aquipu.cli.commands.upkeep import doctor  # noqa: F401
from aquipu.cli.commands.upkeep import backup  # noqa: F401
from aquipu.cli.commands.upkeep import archive  # noqa: F401
from aquipu.cli.commands.upkeep import archive_check  # noqa: F401
from aquipu.cli.commands.upkeep import archive_purge  # noqa: F401
from aquipu.cli.commands.upkeep import mend  # noqa: F401
from aquipu.cli.commands.upkeep import copying  # noqa: F401
from aquipu.cli.commands.upkeep import database  # noqa: F401
from aquipu.cli.commands.service import serve  # noqa: F401
from aquipu.cli.commands.service import top  # noqa: F401
from aquipu.cli.commands.service import bench  # noqa: F401
from aquipu.cli.commands.service import web  # noqa: F401
# isort: on

__all__ = ["run"]


def run() -> None:
    """Run the command that the arguments name; ends in SystemExit."""
    app(prog_name="aquipu")
