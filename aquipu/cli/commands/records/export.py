"""The command that writes records as other programs read them: export."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from functools import partial
from typing import Annotated

import anyio
import typer

from aquipu.cli.app import EPILOG, SIGNALLED, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    AnyOption,
    Filters,
    LimitOption,
    LogArgument,
    OptionsOption,
    RelationOption,
    ReverseOption,
    SinceOption,
    StartOption,
    StopOption,
    UntilOption,
    absolute,
    database_of,
    opened_for_reading,
)
from aquipu.cli.forms.exporter import DataForm, Exporter, Format, Write, drain, exporter
from aquipu.cli.streams.console import (
    bar,
    counted,
    say,
    until_signalled,
)
from aquipu.cli.streams.output import Output, check_outside, to_file, to_standard_output
from aquipu.local.disk.paths import address_in, is_archive
from aquipu.reader import Reader
from aquipu.record import Record
from aquipu.remote.store import RemoteStore
from aquipu.runtime.closing import Opening

_OutputOption = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write to this file, which is there when it is whole; or to a pipe or device.",
    ),
]


# other forms


@app.command("export", epilog=EPILOG, rich_help_panel=Purpose.READ)
def export_command(
    store: LogArgument,
    format: Annotated[Format, typer.Option("--format", help="What to write.")],
    output: _OutputOption = None,
    start: StartOption = None,
    stop: StopOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    relation: RelationOption = None,
    any_of: AnyOption = False,
    reverse: ReverseOption = False,
    limit: LimitOption = None,
    data: Annotated[
        DataForm,
        typer.Option(
            "--data",
            help="As text; or, in ndjson, data that is JSON as the value that it is, with the"
            " encoding json.",
        ),
    ] = DataForm.TEXT,
    safe: Annotated[
        bool,
        typer.Option(
            "--safe/--as-is",
            help="In csv, put an apostrophe before text that a spreadsheet would run as a formula"
            " (it begins with =, +, -, @, a tab or a line end).",
        ),
    ] = True,
    option: OptionsOption = None,
) -> None:
    """Write records as ndjson, csv or parquet, for other programs.

    \b
    Each record has:
      sequence   a number
      time       when it was accepted: ISO 8601 in UTC, nanoseconds
      encoding   utf-8 or base64 (or json: see --data); not in parquet
      data       as text, or base64 when it is no UTF-8; in parquet binary
      relations  a list of labels; in csv the same as JSON
    """
    filters = Filters(start, stop, since, until, tuple(relation or ()), any_of, reverse, limit)
    if data is DataForm.JSON and format is not Format.NDJSON:
        raise typer.BadParameter("json goes with --format ndjson", param_hint="--data")
    make = partial(exporter, format, json_data=data is DataForm.JSON, safe=safe)
    opening = partial(opened_for_reading, store, option)
    with exit_codes():
        if output is None:
            export(opening, filters, make, to_standard_output())
            return
        with usage("--output"):
            if not is_archive(store) and address_in(store) is None and database_of(store) is None:
                check_outside(output, absolute(store))
        with to_file(output) as target:
            export(opening, filters, make, target)


def export(
    opening: Callable[[], Opening[Reader] | Opening[RemoteStore]],
    filters: Filters,
    make: Callable[[Write], Exporter],
    output: Output,
) -> None:
    """Export the records of a store that pass the filters, as the command does."""
    into = make(output.write)
    shown = not output.file.isatty()
    stopped_by: list[int] = []

    async def read() -> int:
        async with opening() as reader, filters.scan(reader) as records:
            return await _drain(records, into.take, filters.limit, shown=shown)

    async def read_until_signalled() -> int:
        with anyio.CancelScope() as scope:

            def stop(number: int) -> None:
                stopped_by.append(number)
                scope.cancel()

            with until_signalled(stop):
                return await read()
        return 0

    try:
        number = anyio.run(read_until_signalled if output.is_put_into_place else read)
    finally:  # what stands before a damage is sound
        into.end()
    if stopped_by:
        raise typer.Exit(SIGNALLED + stopped_by[0])
    say(f"{counted(number, 'record')} exported")


async def _drain(
    records: AsyncIterable[Record],
    take: Callable[[list[Record]], None],
    limit: int | None,
    *,
    shown: bool,
) -> int:
    """Give them all to ``take``, under a bar. How many they were."""
    number = 0
    with bar(None, counts_records=True, shown=shown) as advance:

        def counted_take(piece: list[Record]) -> None:
            nonlocal number
            take(piece)
            number += len(piece)
            advance(sum(len(record.data) for record in piece), len(piece))

        await drain(records, counted_take, limit)
    return number
