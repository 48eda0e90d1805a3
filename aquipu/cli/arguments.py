"""The arguments that several commands have, and what they stand for."""

from __future__ import annotations

from datetime import datetime
from re import ASCII, fullmatch
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from aquipu.archive.archive import Archive
from aquipu.local.disk.paths import absolute as absolute_path
from aquipu.local.disk.paths import address_in, database_in, is_archive
from aquipu.options import check_mode
from aquipu.policy import Always, EveryN, OsManaged, SyncPolicy
from aquipu.reader import Reader
from aquipu.record import Record
from aquipu.remote.store import RemoteStore
from aquipu.runtime.closing import Opening, Records
from aquipu.store import Store

if TYPE_CHECKING:
    pass

from aquipu.cli.app import usage
from aquipu.cli.forms.stream import Wish
from aquipu.cli.telling import TellingArchive
from aquipu.cli.times import moment

StoreArgument = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="The directory of the store, unix:PATH for the one that a daemon has, or"
        " postgresql://HOST/DATABASE?log=NAME for one in a database.",
    ),
]
LogArgument = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="The directory of the store, unix:PATH for the one that a daemon has,"
        " postgresql://HOST/DATABASE?log=NAME for one in a database, or the URL of an archive"
        " (s3://BUCKET/PREFIX, file:///DIRECTORY).",
    ),
]
StoreToWriteArgument = Annotated[
    str,
    typer.Argument(
        metavar="STORE",
        help="The directory of the store, made if it is missing; unix:PATH for the one that"
        " a daemon has; or postgresql://HOST/DATABASE?log=NAME for one in a database.",
    ),
]
SyncPolicyOption = Annotated[
    str | None,
    typer.Option(
        metavar="always|every:N[/SECONDS]|os",
        show_default="every:64",
        help="When records are synced to the disk: each commit; after N records, or SECONDS"
        " ('none': whenever) at the latest; by the operating system. At the end everything is"
        " synced.",
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
    typer.Option(
        metavar="TIME",
        help="Accepted at this time or later: 2026-01-31T12:00:00Z; 2026-01-31 or 2026-01-31T12:00"
        " by the clock here; yesterday, today; 90s, 15m, 1h, 2d or 1w ago.",
    ),
]
UntilOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Accepted before this time; see --since.")
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", metavar="NUMBER", min=0, help="No more than so many.")
]
RelationOption = Annotated[
    list[str] | None,
    typer.Option(
        "--relation", metavar="LABEL", help="Only records with this label; repeated: with all."
    ),
]
AnyOption = Annotated[bool, typer.Option("--any", help="Only one of several labels need be there.")]
NulOption = Annotated[
    bool, typer.Option("-0", help="End each record with a NUL byte in place of a line end.")
]
RawOption = Annotated[
    bool, typer.Option("--raw", help="The bytes of the records alone, with nothing in between.")
]
UrlArgument = Annotated[
    str,
    typer.Argument(
        metavar="URL",
        help="s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///DIRECTORY.",
    ),
]
OptionsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="How the object store is reached, such as endpoint=http://localhost:9000 or"
        " region=eu-central-1. Without, the environment says that (AWS_REGION, ...): credentials"
        " belong there.",
    ),
]
ReverseOption = Annotated[bool, typer.Option("--reverse", help="The newest first.")]


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


def absolute(path: str, hint: str = "STORE") -> str:
    """Return the path of a directory from the root; a usage error for what is none."""
    with usage(hint):
        return absolute_path(path)


def directory(store: str, hint: str = "STORE") -> str:
    """Return the absolute path of a store whose files are needed.

    The address of a daemon is a usage error.
    """
    if database_of(store) is not None:
        raise typer.BadParameter(
            "a log in a database has no files here, and this command works on them: give a "
            "directory",
            param_hint=hint,
        )
    if address_in(store) is not None:
        raise typer.BadParameter(
            f"{store} is a daemon, and this command works on the files of a store: "
            "give its directory",
            param_hint=hint,
        )
    return absolute(store, hint)


def opened_for_reading(
    store: str, options: list[str] | None = None
) -> Opening[Reader] | Opening[RemoteStore]:
    """Return a reader of the directory, database or archive, or a connection to the daemon.

    All have the same calls. A usage error for ``options`` of anything but an archive.
    """
    if is_archive(store):
        return Reader.open(archive_of(store, options, hint="STORE"))
    check_no_options(options)
    if address_in(store) is not None:
        return connecting(store)
    with usage("STORE"):
        return Reader.open(store if database_of(store) is not None else absolute(store))


def database_of(store: str) -> str | None:
    """Return the address of a log in a database; None for any other place of a store.

    A usage error for an archive, and for an address of no known kind.
    """
    if is_archive(store):
        raise typer.BadParameter(
            "this command is not for an archive: cat, find, get, tail, follow, export, relations,"
            " top and web read it, `aquipu archive check URL` says what it has and whether that is"
            " sound, and `aquipu restore URL DIR` makes a store of it",
            param_hint="STORE",
        )
    with usage("STORE"):
        return database_in(store)


def check_no_options(options: list[str] | None) -> None:
    """Refuse options for what is no archive, as a usage error."""
    if options:
        raise typer.BadParameter("only an archive has options", param_hint="--option")


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


def sync_policy_of(text: str) -> SyncPolicy:
    """Return the policy of always, os, every:N, every:N/SECONDS or every:N/none.

    Anything else is a usage error.
    """
    if text in ("always", "os"):
        return Always() if text == "always" else OsManaged()
    match = fullmatch(r"every:([0-9]+)(?:/(none|[0-9]*\.?[0-9]+))?", text)
    try:
        if match is None:
            raise ValueError(f"{text!r} is not one of always, every:N, every:N/SECONDS, os")
        if match[2] is None:
            return EveryN(int(match[1]))
        return EveryN(int(match[1]), within=None if match[2] == "none" else float(match[2]))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sync-policy") from None


def time_of(text: str, hint: str) -> datetime:
    """Return the time that a text means (see `moment`); a usage error for anything else."""
    with usage(hint):
        return moment(text, datetime.now().astimezone())


def sequence_or_time(text: str, hint: str) -> int | datetime:
    """Return a sequence when it is nothing but digits, otherwise a time."""
    if fullmatch("[0-9]{1,20}", text, ASCII):
        return int(text)
    try:
        return moment(text, datetime.now().astimezone())
    except ValueError as error:
        raise typer.BadParameter(f"{error}; or a sequence, such as 1750", param_hint=hint) from None


def wish_of(json: bool, nul: bool, raw: bool) -> Wish:
    """Return the form that the options ask for; a usage error for more than one."""
    if json + nul + raw > 1:
        raise typer.BadParameter("only one of them makes sense", param_hint="--json, -0, --raw")
    return Wish(json, nul, raw)


class Filters(NamedTuple):
    """Which records, as the options say."""

    start: int | None = None
    stop: int | None = None
    since: str | None = None
    until: str | None = None
    labels: tuple[str, ...] = ()
    any_of: bool = False
    reverse: bool = False
    limit: int | None = None

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

    def admit(self, record: Record) -> bool:
        """Return whether a record has the labels."""
        wanted = any if self.any_of else all
        return not self.labels or wanted(label in record.relations for label in self.labels)


def archive_of(
    url: str,
    options: list[str] | None,
    *,
    interval: float = 1.0,
    hint: str = "URL",
    tells: bool = True,
    **flags: bool,
) -> Archive:
    """Return the archive that is meant; a usage error for what is none.

    ``hint`` is what the place is called among the arguments; ``tells`` is whether it says that it
    does not answer, which what carries a store there says by itself.
    """
    given: dict[str, Any] = {}
    for option in options or ():
        name, equals, value = option.partition("=")
        if not (name and equals):
            raise typer.BadParameter("an option is NAME=VALUE", param_hint="--option")
        given[name] = value
    with usage(hint):
        Archive(url)
    with usage(f"{hint}-interval" if hint.startswith("--") else "--interval"):
        Archive(url, interval=interval)
    with usage("--option"):
        kind = TellingArchive if tells else Archive
        return kind(url, interval=interval, **flags, **given)


def archive_meant(
    url: str | None,
    interval: float | None,
    hold: bool,
    compress: bool,
    options: list[str] | None,
) -> Archive | None:
    """Return the archive that `serve` is to carry; a usage error for what is said of none."""
    if url is not None:
        seconds = 1.0 if interval is None else interval
        flags = {"hold": hold, "compress": compress}
        return archive_of(url, options, interval=seconds, hint="--archive", tells=False, **flags)
    for option, given in (
        ("--archive-interval", interval is not None),
        ("--archive-hold", hold),
        ("--archive-compress", compress),
        ("--option", options),
    ):
        if given:
            raise typer.BadParameter("takes an --archive", param_hint=option)
    return None
