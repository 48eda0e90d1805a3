"""The commands that read records: cat, find, follow and tail.

They go through a `Reader`: they see what is acknowledged, also while a service writes the store.
None of them changes a byte, but for the cursor that follow is told to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from io import FileIO
from typing import Annotated, Literal

import anyio
import typer

from aquipu.cli.app import EPILOG, app, exit_codes, usage
from aquipu.cli.arguments import (
    AnyOption,
    Filters,
    JsonLinesOption,
    RelationOption,
    ReverseOption,
    SinceOption,
    StartOption,
    StopOption,
    StoreArgument,
    UntilOption,
    opened_for_reading,
)
from aquipu.cli.forms.exporter import drain, ndjson
from aquipu.cli.streams.console import (
    let_interrupt_kill,
    standard_output,
    write,
)
from aquipu.local.retain.bookmarks import checked_name, hold_of_cursor
from aquipu.reader import Reader
from aquipu.record import Record
from aquipu.runtime.closing import Records
from aquipu.store import RemoteStore

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
