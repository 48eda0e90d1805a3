"""What the commands share: the program itself, its exit codes, and the arguments that several of them take.

Every error becomes an exit code in one place, `exit_codes`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from re import ASCII, fullmatch
from signal import SIGINT
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aquipu.cli.console import say
from aquipu.cli.lines import LineTooLongError
from aquipu.durable import OutcomeUnknown
from aquipu.errors import AquipuError, CorruptionError, NoSuchRecordError, NotAStoreError, StoreLockedError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WELL, DAMAGED, USAGE, LOCKED, FAILED = range(5)
SIGNALLED = 128
"""And the number of the signal: what a shell reports."""

EPILOG = """\b
Exit codes:
  0    well (also when whoever read the output has closed it)
  1    damage found in the store
  2    usage: a bad argument, no store there, a line that is too long,
       a sequence that is no longer or not yet there
  3    locked: another process is using the store
  4    an input/output error, or a format that this version does not know
  130  stopped by Ctrl-C; 143 by SIGTERM; 129 by SIGHUP
"""

app = typer.Typer(
    help="A durable log. Data goes to standard output, everything else to standard error.",
    epilog=EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="The directory of the store.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
JsonLinesOption = Annotated[bool, typer.Option("--json", help="One JSON object for each record, in a line; see export.")]
LockTimeoutOption = Annotated[
    float, typer.Option(metavar="SECONDS", help="How long to wait for another process that uses the store.")
]


# errors and exit codes


class MissingPackageError(Exception):
    """What was asked for needs a package that is not installed; the text says how to get it."""


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (CorruptionError, DAMAGED),
    (NotAStoreError, USAGE),
    (NoSuchRecordError, USAGE),
    (LineTooLongError, USAGE),
    (MissingPackageError, USAGE),
    (StoreLockedError, LOCKED),
)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn whatever goes wrong into a line on standard error and an exit code."""
    try:
        yield
    except BrokenPipeError:  # whoever read the output has had enough
        raise typer.Exit(WELL) from None
    except KeyboardInterrupt:
        raise typer.Exit(SIGNALLED + SIGINT) from None
    except OutcomeUnknown as unknown:
        say(f"aquipu: {unknown.doing}: {unknown.error.strerror}; whether it was done is not known")
        raise typer.Exit(FAILED) from None
    except (AquipuError, OSError, LineTooLongError, MissingPackageError) as error:
        say(f"aquipu: {error}")
        raise typer.Exit(next((code for kind, code in _CODES if isinstance(error, kind)), FAILED)) from None


@contextmanager
def usage(hint: str | None = None) -> Iterator[None]:
    """Turn what the package refuses as an argument into a usage error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None


# arguments


def absolute(path: str) -> str:
    return str(Path(path).absolute())


def checked_timeout(seconds: float) -> float:
    if not seconds >= 0:
        raise typer.BadParameter(f"{seconds} is not 0 or more seconds", param_hint="--lock-timeout")
    return seconds


def time_of(text: str, hint: str) -> datetime:
    """A time as ISO 8601 writes it, with its zone; a usage error for anything else."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time such as 2026-01-31T12:00:00Z", param_hint=hint) from None
    if time.utcoffset() is None:
        raise typer.BadParameter(f"{text!r} lacks its time zone, such as Z or +02:00", param_hint=hint)
    return time


def sequence_or_time(text: str, hint: str) -> int | datetime:
    """A sequence when it is nothing but digits, otherwise a time."""
    if fullmatch("[0-9]{1,20}", text, ASCII):
        return int(text)
    return time_of(text, hint)


# answers


def as_json(answer: DataclassInstance | dict[str, Any] | Sequence[Any]) -> str:
    return json.dumps(answer if isinstance(answer, (dict, Sequence)) else asdict(answer), indent=2)
