"""The commands that read the end of a log: follow and tail.

They change no byte, but for the cursor that follow is told to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from io import FileIO
from time import monotonic
from typing import Annotated, Any, Literal

import anyio
import typer

from aquipu.cli.app import EPILOG, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    AnyOption,
    Filters,
    JsonLinesOption,
    LimitOption,
    LogArgument,
    NulOption,
    OptionsOption,
    RawOption,
    RelationOption,
    opened_for_reading,
    wish_of,
)
from aquipu.cli.forms.exporter import drain
from aquipu.cli.forms.screen import lines_on, taker
from aquipu.cli.forms.stream import Wish
from aquipu.cli.streams.console import let_interrupt_kill, say, standard_output
from aquipu.local.retain.bookmarks import checked_name, hold_of_cursor
from aquipu.reader import Reader
from aquipu.reading import Cursor
from aquipu.remote.store import RemoteStore

_PASSING_SECONDS = 1.0
"""Between two saves of a cursor, while records are passed over."""
_Start = int | Literal["earliest"] | None
"""Where following begins: None is the end."""


@app.command("follow", epilog=EPILOG, rich_help_panel=Purpose.READ)
def follow_command(
    store: LogArgument,
    start: Annotated[
        int | None,
        typer.Option(
            metavar="SEQUENCE", help="From this record on; without: only what is still to come."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From this time on, such as 1h ago; see cat --since."),
    ] = None,
    cursor: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Go on where this cursor is, and save it after each record that is out. A new one"
            " begins with the first record kept, or at --start or --since.",
        ),
    ] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Have nothing purged that the cursor has not passed.")
    ] = False,
    relation: RelationOption = None,
    any_of: AnyOption = False,
    limit: LimitOption = None,
    json_lines: JsonLinesOption = False,
    nul: NulOption = False,
    raw: RawOption = False,
    option: OptionsOption = None,
) -> None:
    """Write each record as soon as it is acknowledged, until Ctrl-C.

    It goes on while a service writes the store, and when the service comes back. The records look
    as those of cat.

    With a cursor, each record is written at least once, however this ends: the place is kept when
    the line is out, so after a crash the last one may be written again. Records without the labels
    of --relation are passed over, and the cursor with them. With --hold as well,
    everything from there on is kept, until `aquipu hold STORE cursor.NAME --release`.
    """
    if cursor is not None:
        with usage("--cursor"):
            hold_of_cursor(checked_name(cursor), hold)
    elif hold:
        raise typer.BadParameter("takes a --cursor", param_hint="--hold")
    if start is not None and since is not None:
        raise typer.BadParameter("only one of them makes sense", param_hint="--start, --since")
    labels = tuple(relation or ())
    filters = Filters(start, since=since, labels=labels, any_of=any_of, limit=limit)
    wish = wish_of(json_lines, nul, raw)

    async def read(reader: Reader | RemoteStore, output: FileIO) -> None:
        with usage("--cursor"):  # an archive keeps none
            place = None if cursor is None else reader.cursor(cursor, hold=hold)
        saved = None if place is None else await place.load()
        if saved is not None and (start is not None or since is not None):
            option = "--start" if since is None else "--since"
            say(f"aquipu: the cursor {cursor} goes on at {saved}; {option} is for a new one")
        first: _Start = await _first(reader, filters) if saved is None else saved
        if place is not None and first is None:
            first = "earliest"
        await _follow(reader, first, filters, wish, output, place)

    _run(store, option, read)


@app.command("tail", epilog=EPILOG, rich_help_panel=Purpose.READ)
def tail_command(
    store: LogArgument,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, metavar="NUMBER", help="How many records.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="And then go on as `aquipu follow`.")
    ] = False,
    relation: RelationOption = None,
    any_of: AnyOption = False,
    json_lines: JsonLinesOption = False,
    nul: NulOption = False,
    raw: RawOption = False,
    option: OptionsOption = None,
) -> None:
    """Write the last records, and with -f those that follow.

    They look as those of cat.
    """
    filters = Filters(labels=tuple(relation or ()), any_of=any_of)
    wish = wish_of(json_lines, nul, raw)

    async def read(reader: Reader | RemoteStore, output: FileIO) -> None:
        following = reader.next_sequence
        start = await _last(reader, filters, following, lines)
        if follow:
            await _follow(reader, start, filters, wish, output)
            return
        asked = filters._replace(start=start, stop=following)
        async with asked.scan(reader) as records:
            await drain(records, taker(output, wish.form(lines_on(output, following))))

    _run(store, option, read)


def _run(
    store: str,
    option: list[str] | None,
    read: Callable[[Reader | RemoteStore, FileIO], Coroutine[Any, Any, None]],
) -> None:
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()

        async def opened() -> None:
            async with opened_for_reading(store, option) as reader:
                await read(reader, output)

        anyio.run(opened)


async def _first(reader: Reader | RemoteStore, filters: Filters) -> int | None:
    """Return where the options begin; None without any of them."""
    if filters.since is None:
        return filters.start
    async with Filters(since=filters.since).scan(reader) as records:
        async for record in records:
            return record.sequence
    return reader.next_sequence


async def _last(reader: Reader | RemoteStore, filters: Filters, following: int, number: int) -> int:
    """Return where the last records before ``following`` that are asked for begin."""
    if not filters.labels:
        return max(following - number, reader.first_sequence)
    start = following
    newest = filters._replace(stop=following, reverse=True)
    async with newest.scan(reader) as records:
        while number and (record := await anext(records, None)) is not None:
            start, number = record.sequence, number - 1
    return start


async def _follow(
    reader: Reader | RemoteStore,
    first: _Start,
    filters: Filters,
    wish: Wish,
    output: FileIO,
    place: Cursor | None = None,
) -> None:
    take = taker(output, wish.form(lines_on(output, reader.next_sequence)))
    with usage("--start"):
        followed = reader.follow(first)
    left, saved_at = filters.limit, monotonic()
    async with followed as records:
        while left != 0:
            record = await anext(records)
            is_wanted = filters.admit(record)
            if is_wanted:
                take([record])  # each at once: the next one may be long in coming
                left = None if left is None else left - 1
            # A record that is passed over is done with as soon as all before it are out. Each save
            # is a sync, so of many in a row only some are kept, and the last one before a pause.
            is_last = record.sequence + 1 >= reader.next_sequence
            is_due = is_wanted or is_last or monotonic() - saved_at >= _PASSING_SECONDS
            if place is not None and is_due:
                await place.save(record.sequence + 1)
                saved_at = monotonic()
