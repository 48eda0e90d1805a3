"""What the commands share: the program, its exit codes, and arguments of several commands.

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
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from aquipu.cli.console import readable, say
from aquipu.cli.lines import LineTooLongError
from aquipu.errors import (
    AquipuError,
    BackupRefusedError,
    CorruptionError,
    NoSuchRecordError,
    NotAStoreError,
    StoreLockedError,
)
from aquipu.local.disk.durable import OutcomeUnknown
from aquipu.local.disk.paths import address_in
from aquipu.options import check_mode
from aquipu.reader import Reader
from aquipu.runtime.closing import Opening, Records
from aquipu.store import RemoteStore, Store

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

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
  130  stopped by Ctrl-C; 143 by SIGTERM (serve: 0); 129 by SIGHUP
"""

app = typer.Typer(
    help="A durable log. Data goes to standard output, everything else to standard error.",
    epilog=EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

StoreArgument = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="The directory of the store, or unix:PATH for the one that a daemon has.",
    ),
]
DirectoryArgument = Annotated[
    str, typer.Argument(metavar="STORE", help="The directory of the store.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
JsonLinesOption = Annotated[
    bool, typer.Option("--json", help="One JSON object for each record, in a line; see export.")
]
ModeOption = Annotated[
    str | None,
    typer.Option(
        metavar="OCTAL", help="Rights of the store's files: 640 lets the group read. Without, 600."
    ),
]
LockTimeoutOption = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", help="How long to wait for another process that uses the store."
    ),
]
StartOption = Annotated[int | None, typer.Option(metavar="SEQUENCE", help="From this record on.")]
StopOption = Annotated[
    int | None, typer.Option(metavar="SEQUENCE", help="Up to, not including, this record.")
]
SinceOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Accepted at this time or later: ISO 8601 with a zone."),
]
UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="Accepted before this time.")]
RelationOption = Annotated[
    list[str] | None,
    typer.Option(
        "--relation", metavar="LABEL", help="Only records with this label; repeated: with all."
    ),
]
AnyOption = Annotated[bool, typer.Option("--any", help="Only one of several labels need be there.")]
ReverseOption = Annotated[bool, typer.Option("--reverse", help="The newest first.")]


# errors and exit codes


class MissingPackageError(Exception):
    """What was asked for needs a package that is not installed; the text says how to get it."""


_CODES: tuple[tuple[type[Exception], int], ...] = (
    (CorruptionError, DAMAGED),
    (NotAStoreError, USAGE),
    (BackupRefusedError, USAGE),
    (NoSuchRecordError, USAGE),
    (LineTooLongError, USAGE),
    (MissingPackageError, USAGE),
    (StoreLockedError, LOCKED),
)


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
    except (AquipuError, OSError, LineTooLongError, MissingPackageError) as error:
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


# arguments


def checked_rights(mode: str | None) -> int | None:
    """Return the number; a usage error for what cannot be the rights of a file."""
    with usage("--mode"):
        if mode is None:
            return None
        if not fullmatch("[0-7]{3,4}", mode):
            raise ValueError(f"{mode!r} is not three octal digits, such as 640")
        check_mode(int(mode, 8))
        return int(mode, 8)


def absolute(path: str) -> str:
    return str(Path(path).absolute())


def directory(store: str) -> str:
    """Return the absolute path of a store whose files are needed.

    The address of a daemon is a usage error.
    """
    if address_in(store) is not None:
        raise typer.BadParameter(
            f"{store} is a daemon, and this command works on the files of a store: "
            "give its directory",
            param_hint="STORE",
        )
    return absolute(store)


def opened_for_reading(store: str) -> Opening[Reader] | Opening[RemoteStore]:
    """Return a reader of the directory, or a connection to the daemon; both have the same calls."""
    return Reader.open(absolute(store)) if address_in(store) is None else connecting(store)


async def bounds(path: str) -> tuple[int, int]:
    """Return the first and the next sequence of the store in this directory, which must exist."""
    async with Reader.open(path) as reader:
        return reader.first_sequence, reader.next_sequence


def connecting(address: str, seconds: float = 20.0) -> Opening[RemoteStore]:
    """Return a connection to the daemon at an address; a usage error for one that cannot be."""
    with usage("STORE"):
        return Store.connect(address, timeout=seconds)


def checked_timeout(seconds: float) -> float:
    if not seconds >= 0:
        raise typer.BadParameter(f"{seconds} is not 0 or more seconds", param_hint="--lock-timeout")
    return seconds


def time_of(text: str, hint: str) -> datetime:
    """Return a time that ISO 8601 writes with its zone; a usage error for anything else."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time such as 2026-01-31T12:00:00Z", param_hint=hint
        ) from None
    if time.utcoffset() is None:
        raise typer.BadParameter(
            f"{text!r} lacks its time zone, such as Z or +02:00", param_hint=hint
        )
    return time


def sequence_or_time(text: str, hint: str) -> int | datetime:
    """Return a sequence when it is nothing but digits, otherwise a time."""
    if fullmatch("[0-9]{1,20}", text, ASCII):
        return int(text)
    return time_of(text, hint)


# answers


class Filters(NamedTuple):
    """Which records, as the options say."""

    start: int | None = None
    stop: int | None = None
    since: str | None = None
    until: str | None = None
    labels: tuple[str, ...] = ()
    any_of: bool = False
    reverse: bool = False

    def scan(self, reader: Reader | RemoteStore) -> Records:
        """Return the scan of these records; a usage error for what is no time."""
        since = None if self.since is None else time_of(self.since, "--since")
        until = None if self.until is None else time_of(self.until, "--until")
        labels = self.labels or None
        with usage():
            return reader.scan(
                self.start,
                self.stop,
                since=since,
                until=until,
                relation=None if self.any_of else labels,
                any_of=labels if self.any_of else None,
                reverse=self.reverse,
            )


def as_json(answer: DataclassInstance | dict[str, Any] | Sequence[Any]) -> str:
    """Return it as JSON that every reader of JSON takes, whatever the path of the store is."""
    plain = answer if isinstance(answer, (dict, Sequence)) else asdict(answer)
    return json.dumps(_readable(plain), indent=2)


def _readable(value: Any) -> Any:
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, dict):
        return {_readable(key): _readable(one) for key, one in value.items()}
    return [_readable(one) for one in value] if isinstance(value, (list, tuple)) else value
