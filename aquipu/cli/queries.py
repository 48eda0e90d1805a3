"""The commands that read: cat, tail, follow, find, relations, export, cursors and backup.

They go through a `Reader`: they see what is acknowledged, also while a service writes the store.
None of them changes a byte, but for the cursor that follow is told to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from io import FileIO
from time import time_ns
from typing import Annotated, Literal

import anyio
import typer

from aquipu.cli.app import (
    EPILOG,
    AnyOption,
    Filters,
    JsonLinesOption,
    JsonOption,
    RelationOption,
    ReverseOption,
    SinceOption,
    StartOption,
    StopOption,
    StoreArgument,
    UntilOption,
    absolute,
    app,
    as_json,
    connecting,
    directory,
    exit_codes,
    opened_for_reading,
    usage,
)
from aquipu.cli.console import (
    counted,
    let_interrupt_kill,
    standard_output,
    write,
    write_line,
)
from aquipu.cli.export import Format, drain, export, ndjson
from aquipu.cli.output import check_outside, to_file, to_standard_output
from aquipu.local.check.rights import keep_rights
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.paths import address_in, checked_place
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.cursor import lags
from aquipu.local.retain.bookmarks import checked_name, hold_of_cursor
from aquipu.reader import Reader
from aquipu.record import Backup, Lag, Record
from aquipu.runtime.closing import Records
from aquipu.store import RemoteStore

_OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write to this file, which is there when it is whole; or to a pipe or device.",
    ),
]


# records


@app.command("cat", epilog=EPILOG)
def cat_command(
    store: StoreArgument,
    start: StartOption = None,
    stop: StopOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    relation: RelationOption = None,
    any_of: AnyOption = False,
    reverse: ReverseOption = False,
    json_lines: JsonLinesOption = False,
) -> None:
    """Write records to standard output as they were, one behind another with nothing in between.

    The store may be written meanwhile: what was acknowledged before is written. A torn tail (see
    info) is not part of it.
    """
    filters = Filters(start, stop, since, until, tuple(relation or ()), any_of, reverse)
    _write_records(store, filters.scan, json_lines=json_lines)


@app.command("find", epilog=EPILOG)
def find_command(
    store: StoreArgument,
    labels: Annotated[
        list[str],
        typer.Argument(metavar="LABEL...", help="Labels that were given with the record."),
    ],
    any_of: AnyOption = False,
    reverse: ReverseOption = False,
    json_lines: JsonLinesOption = False,
) -> None:
    """Write the records that carry all of the labels, as `aquipu cat --relation` does."""
    _write_records(
        store,
        Filters(labels=tuple(labels), any_of=any_of, reverse=reverse).scan,
        json_lines=json_lines,
    )


@app.command("follow", epilog=EPILOG)
def follow_command(
    store: StoreArgument,
    start: Annotated[
        int | None,
        typer.Option(
            metavar="SEQUENCE", help="From this record on; without: only what is still to come."
        ),
    ] = None,
    cursor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Go on where this cursor is, and save it after each record that is out. A new one"
            " begins with the first record kept, or at --start.",
        ),
    ] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Have nothing purged that the cursor has not passed.")
    ] = False,
    json_lines: JsonLinesOption = False,
) -> None:
    """Write each record as soon as it is acknowledged, until Ctrl-C.

    It goes on while a service writes the store, and when the service comes back.

    With a cursor, each record is written at least once, however this ends: the place is kept when
    the line is out, so after a crash the last one may be written again. With --hold as well,
    everything from there on is kept, until `aquipu hold STORE cursor.NAME --release`.
    """
    if cursor is not None:
        with usage("--cursor"):
            hold_of_cursor(checked_name(cursor), hold)
    elif hold:
        raise typer.BadParameter("takes a --cursor", param_hint="--hold")
    _follow(store, lambda reader: start, cursor=cursor, hold=hold, json_lines=json_lines)


@app.command("tail", epilog=EPILOG)
def tail_command(
    store: StoreArgument,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, metavar="NUMBER", help="How many records.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="And then go on as `aquipu follow`.")
    ] = False,
    json_lines: JsonLinesOption = False,
) -> None:
    """Write the last records."""

    def start(reader: Reader | RemoteStore) -> int:
        return max(reader.next_sequence - lines, reader.first_sequence)

    if follow:
        _follow(store, start, json_lines=json_lines)
    else:
        _write_records(store, lambda reader: reader.scan(start(reader)), json_lines=json_lines)


def _write_records(
    path: str, scan: Callable[[Reader | RemoteStore], Records], *, json_lines: bool
) -> None:
    let_interrupt_kill()  # there is nothing to lose
    with exit_codes():
        take = _taker(standard_output(), json_lines=json_lines)

        async def read() -> None:
            async with opened_for_reading(path) as reader, scan(reader) as records:
                await drain(records, take)

        anyio.run(read)


def _follow(
    path: str,
    start: Callable[[Reader | RemoteStore], int | None],
    *,
    cursor: str | None = None,
    hold: bool = False,
    json_lines: bool,
) -> None:
    let_interrupt_kill()
    with exit_codes():
        take = _taker(standard_output(), json_lines=json_lines)

        async def read() -> None:
            async with opened_for_reading(path) as reader:
                first: int | Literal["earliest"] | None = start(reader)
                place = None if cursor is None else reader.cursor(cursor, hold=hold)
                if place is not None:
                    saved = await place.load()
                    first = saved if saved is not None else "earliest" if first is None else first
                with usage("--start"):
                    followed = reader.follow(first)
                async with followed as records:
                    async for record in records:  # each at once: the next one may be long in coming
                        take([record])
                        if place is not None:
                            await place.save(record.sequence + 1)

        anyio.run(read)


def _taker(output: FileIO, *, json_lines: bool) -> Callable[[list[Record]], None]:
    def take(records: list[Record]) -> None:
        write(
            output, b"".join([ndjson(record) if json_lines else record.data for record in records])
        )

    return take


# other forms


@app.command("export", epilog=EPILOG)
def export_command(
    store: StoreArgument,
    format: Annotated[Format, typer.Option("--format", help="What to write.")],
    output: _OutputOption = None,
    start: StartOption = None,
    stop: StopOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    relation: RelationOption = None,
    any_of: AnyOption = False,
    reverse: ReverseOption = False,
) -> None:
    """Write records as ndjson, csv or parquet, for other programs.

    \b
    Each record has:
      sequence   a number
      time       when it was accepted: ISO 8601 in UTC, nanoseconds
      encoding   utf-8 or base64; not in parquet
      data       as text, or base64 when it is no UTF-8; in parquet binary
      relations  a list of labels; in csv the same as JSON
    """
    filters = Filters(start, stop, since, until, tuple(relation or ()), any_of, reverse)
    with exit_codes():
        if output is None:
            export(store, filters, format, to_standard_output())
            return
        with usage("--output"):
            if address_in(store) is None:
                check_outside(output, absolute(store))
        with to_file(output) as target:
            export(store, filters, format, target)


@app.command("relations", epilog=EPILOG)
def relations_command(
    store: StoreArgument,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Only labels that begin so.")] = "",
    json_object: JsonOption = False,
) -> None:
    """List the labels, in order, and how many records carry each: number, tab, label.

    With --json, one object: the number by label.
    """
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()

        async def count() -> dict[str, int]:
            async with opened_for_reading(store) as reader:
                return await reader.relations(prefix)

        counts = anyio.run(count)
        if json_object:
            write_line(output, as_json(counts))
        elif counts:
            write_line(output, "\n".join(f"{number}\t{label}" for label, number in counts.items()))


# consumers


@app.command("cursors", epilog=EPILOG)
def cursors_command(store: StoreArgument, json_object: JsonOption = False) -> None:
    """List the cursors, and how far each consumer is behind.

    This works also while a service writes the store.

    Each in a line: records behind, age of the oldest of these in seconds, sequence, name, with tabs
    between. One whose file does not check is left out; follow says what is wrong with it.

    \b
    With --json, one object: by name, an object:
      sequence  that it reads next
      records   that were acknowledged, and that it has not passed yet
      seconds   age of the oldest of these that is kept; 0 without any
    """
    path = store if address_in(store) is not None else directory(store)
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()
        found = _cursors_in(path) if address_in(path) is None else anyio.run(_cursors_of, path)
        if json_object:
            write_line(output, as_json({name: lag._asdict() for name, lag in found.items()}))
        elif found:
            write_line(
                output,
                "\n".join(
                    f"{lag.records}\t{lag.seconds:.3f}\t{lag.sequence}\t{name}"
                    for name, lag in found.items()
                ),
            )


def _cursors_in(path: str) -> dict[str, Lag]:
    with closing(Catalog(Disk(), path)) as catalog:
        return lags(path, catalog.store_id, catalog.look(), time_ns())


async def _cursors_of(address: str) -> dict[str, Lag]:
    async with connecting(address) as store:
        return await store.cursors()


# a copy of all of it


@app.command("backup", epilog=EPILOG)
def backup_command(
    store: StoreArgument,
    place: Annotated[
        str, typer.Argument(metavar="DEST", help="The directory of the backup, made if missing.")
    ],
    link: Annotated[
        bool,
        typer.Option(
            "--link",
            help="Link full segments: that protects from a purge, not from a disk that fails.",
        ),
    ] = False,
    bookmarks: Annotated[
        bool,
        typer.Option("--bookmarks/--no-bookmarks", help="Take holds and cursors along."),
    ] = True,
    json_object: JsonOption = False,
) -> None:
    """Copy a store to another directory, also while a service writes it.

    DEST is a store itself, with everything that was acknowledged when this began, synced, and
    checked frame by frame. Made again, it gets what is new, and keeps what the store has purged
    since. Cut short, it goes on the next time. To restore: aquipu backup DEST STORE.

    \b
    With --json, one object:
      path            the directory of the backup
      first_sequence  of the first record in it
      next_sequence   one past the last record in it
      segments        how many were written this time
      copied_bytes    how many were copied
      shared_bytes    how many the file system keeps once for both
    """
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()
        with usage("DEST"):
            to = checked_place(place)
        done = anyio.run(_backup, store, to, link, bookmarks)
        write_line(output, as_json(done._asdict()) if json_object else _backup_text(done))


async def _backup(store: str, to: str, link: bool, bookmarks: bool) -> Backup:
    if address_in(store) is not None:
        async with connecting(store) as remote:
            return await remote.backup(to, link=link, bookmarks=bookmarks)
    path, disk = absolute(store), Disk()
    async with Reader.open(path, disk=disk) as reader:
        with translate_os_errors(path, "read"):
            keep_rights(disk, path)
        return await reader.backup(to, link=link, bookmarks=bookmarks)


def _backup_text(done: Backup) -> str:
    records = done.next_sequence - done.first_sequence
    which = f", {done.first_sequence} to {done.next_sequence - 1}," if records else ""
    shared = f", {counted(done.shared_bytes, 'byte')} shared" if done.shared_bytes else ""
    return (
        f"{counted(records, 'record')}{which} in {done.path}; {counted(done.segments, 'segment')} "
        f"written, {counted(done.copied_bytes, 'byte')} copied{shared}; no damage"
    )
