"""The command that writes records as other programs read them: export."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import Annotated

import anyio
import typer

from aquipu.cli.app import EPILOG, SIGNALLED, app, exit_codes, usage
from aquipu.cli.arguments import (
    AnyOption,
    Filters,
    RelationOption,
    ReverseOption,
    SinceOption,
    StartOption,
    StopOption,
    StoreArgument,
    UntilOption,
    absolute,
    opened_for_reading,
)
from aquipu.cli.forms.exporter import Format, drain, exporter
from aquipu.cli.streams.console import (
    bar,
    counted,
    say,
    until_signalled,
)
from aquipu.cli.streams.output import Output, check_outside, to_file, to_standard_output
from aquipu.local.disk.paths import address_in
from aquipu.record import Record

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


def export(path: str, filters: Filters, format: Format, output: Output) -> None:
    """Export the records of a store that pass the filters, as the command does."""
    into = exporter(format, output.write)
    shown = not output.file.isatty()
    stopped_by: list[int] = []

    async def read() -> int:
        async with opened_for_reading(path) as reader, filters.scan(reader) as records:
            return await _drain(records, into.take, shown=shown)

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
    records: AsyncIterable[Record], take: Callable[[list[Record]], None], *, shown: bool
) -> int:
    """Give them all to ``take``, under a bar. How many they were."""
    number = 0
    with bar(None, counts_records=True, shown=shown) as advance:

        def counted_take(piece: list[Record]) -> None:
            nonlocal number
            take(piece)
            number += len(piece)
            advance(sum(len(record.data) for record in piece), len(piece))

        await drain(records, counted_take)
    return number
