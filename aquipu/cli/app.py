"""The program, and its exit codes.

Every error becomes an exit code in one place, `exit_codes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from signal import SIGINT
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from aquipu.archive.errors import (
    ArchiveDamagedError,
    ArchiveRefusedError,
    NoArchiveError,
    NothingBeforeError,
)
from aquipu.cli.forms.jsonl import BadLineError
from aquipu.cli.streams.console import say, standard_output, write_line
from aquipu.cli.streams.lines import LineTooLongError
from aquipu.cli.streams.missing import MissingPackageError
from aquipu.errors import (
    AquipuError,
    BackupRefusedError,
    CorruptionError,
    NoSuchRecordError,
    NotAStoreError,
    StoreLockedError,
)
from aquipu.local.disk.durable import OutcomeUnknown

if TYPE_CHECKING:
    pass

WELL, DAMAGED, USAGE, LOCKED, FAILED = range(5)
SIGNALLED = 128
"""And the number of the signal: what a shell reports."""

EPILOG = """\b
Exit codes:
  0    well (also when the reader of the output has closed it)
  1    damage found in the store
  2    usage: a bad argument, no store there, a line that is too long,
       a sequence that is no longer or not yet there
  3    locked: another process is using the store
  4    an input/output error, or a format that this version does not know
  130  stopped by Ctrl-C; 143 by SIGTERM (serve, web,
       archive --follow: 0); 129 by SIGHUP
"""


class Purpose(StrEnum):
    """What commands are for: the headings under which the help lists them, in this order."""

    WRITE = "Write"
    READ = "Read"
    KEEP = "Consumers, and what is kept for them"
    CARE = "The store as a whole"
    SERVE = "A service"


class _ByPurpose(TyperGroup):
    """Lists the commands under headings, also where the help is plain text."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        room = formatter.width - 6 - max(map(len, commands))
        for purpose in Purpose:
            with formatter.section(purpose.value):
                formatter.write_dl(
                    [
                        (f"{name:<{max(map(len, commands))}}", command.get_short_help_str(room))
                        for name, command in commands.items()
                        if command is not None
                        and getattr(command, "rich_help_panel", None) == purpose
                    ]
                )


app = typer.Typer(
    cls=_ByPurpose,
    help="A durable log. Data goes to standard output, everything else to standard error.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _say_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("aquipu")
    except PackageNotFoundError:
        found = f"of the checkout {Path(__file__).parents[2]}, not installed"
    with exit_codes():
        write_line(standard_output(), f"aquipu {found}")
    raise typer.Exit(WELL)


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Say which version this is.", callback=_say_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


# errors and exit codes


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (CorruptionError, DAMAGED),
    (ArchiveDamagedError, DAMAGED),
    (ArchiveRefusedError, USAGE),
    (NoArchiveError, USAGE),
    (NothingBeforeError, USAGE),
    (NotAStoreError, USAGE),
    (BackupRefusedError, USAGE),
    (NoSuchRecordError, USAGE),
    (LineTooLongError, USAGE),
    (BadLineError, USAGE),
    (MissingPackageError, USAGE),
    (StoreLockedError, LOCKED),
)


WRITTEN_ALONE = (
    "that process writes it alone: have it open the store with shared=True, or be an aquipu serve "
    "that is asked by its address, and this command goes through it; or end it first"
)
"""What to do when a process has a store for itself, for a command that would go through it."""


EXTRAS = frozenset({"asyncpg"})
"""Packages of extras whose absence the package itself explains."""


@contextmanager
def exit_codes(locked: str | None = None) -> Iterator[None]:
    """Turn whatever goes wrong into a line on standard error and an exit code.

    ``locked`` is what to do when another process has the store for itself.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of the output has had enough
        raise typer.Exit(WELL) from None
    except KeyboardInterrupt:
        raise typer.Exit(SIGNALLED + SIGINT) from None
    except OutcomeUnknown as unknown:
        say(f"aquipu: {unknown.doing}: {unknown.error.strerror}; whether it was done is not known")
        raise typer.Exit(FAILED) from None
    except ImportError as error:
        if error.name not in EXTRAS:
            raise
        say(f"aquipu: {error}")
        raise typer.Exit(USAGE) from None
    except (AquipuError, OSError, LineTooLongError, BadLineError, MissingPackageError) as error:
        if isinstance(error, StoreLockedError) and locked is not None:
            say(f"aquipu: {error.path} is in use by {error.holder}; nothing was changed; {locked}")
        else:
            say(f"aquipu: {error}")
        raise typer.Exit(
            next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)
        ) from None


@contextmanager
def usage(hint: str | None = None) -> Iterator[None]:
    """Turn what the package refuses as an argument into a usage error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None
