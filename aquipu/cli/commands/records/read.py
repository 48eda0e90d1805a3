"""The commands that read records: cat, get and find.

They go through a `Reader`: they see what is acknowledged, also while a service writes the store,
and change no byte.
"""

from __future__ import annotations

from typing import Annotated

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
    ReverseOption,
    SinceOption,
    StartOption,
    StopOption,
    UntilOption,
    opened_for_reading,
    wish_of,
)
from aquipu.cli.forms.exporter import drain
from aquipu.cli.forms.screen import lines_on, pages_on, taker
from aquipu.cli.forms.stream import Wish
from aquipu.cli.streams.console import let_interrupt_kill, standard_output, write


@app.command("cat", epilog=EPILOG, rich_help_panel=Purpose.READ)
def cat_command(
    store: LogArgument,
    start: StartOption = None,
    stop: StopOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    relation: RelationOption = None,
    any_of: AnyOption = False,
    reverse: ReverseOption = False,
    limit: LimitOption = None,
    json_lines: JsonLinesOption = False,
    nul: NulOption = False,
    raw: RawOption = False,
    option: OptionsOption = None,
) -> None:
    """Write all records, or a part of them, a line each.

    On a terminal that is time, sequence, labels and data, with all that could disturb the terminal
    shown as escapes, and long data cut (get shows all of it). Into a pipe or a file it is the data
    as it was stored, and a line end: see -0, --raw and --json.

    The store may be written meanwhile: what was acknowledged before is written, and nothing that a
    crash has left half written.
    """
    labels = tuple(relation or ())
    filters = Filters(start, stop, since, until, labels, any_of, reverse, limit)
    _write_records(store, option, filters, wish_of(json_lines, nul, raw))


@app.command("get", epilog=EPILOG, rich_help_panel=Purpose.READ)
def get_command(
    store: LogArgument,
    sequence: Annotated[int, typer.Argument(metavar="SEQUENCE", help="The number of the record.")],
    json_lines: JsonLinesOption = False,
    nul: NulOption = False,
    raw: RawOption = False,
    option: OptionsOption = None,
) -> None:
    """Write one record, by its number.

    On a terminal all of it is shown, each field on a line of its own, and JSON folded out. Into a
    pipe or a file it is written as cat does.
    """
    wish = wish_of(json_lines, nul, raw)
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()

        async def read() -> None:
            async with opened_for_reading(store, option) as reader:
                with usage("SEQUENCE"):
                    record = await reader.get(sequence)
                write(output, wish.form(pages_on(output))(record))

        anyio.run(read)


@app.command("find", epilog=EPILOG, rich_help_panel=Purpose.READ)
def find_command(
    store: LogArgument,
    labels: Annotated[
        list[str],
        typer.Argument(metavar="LABEL...", help="Labels that were given with the record."),
    ],
    start: StartOption = None,
    stop: StopOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    any_of: AnyOption = False,
    reverse: ReverseOption = False,
    limit: LimitOption = None,
    json_lines: JsonLinesOption = False,
    nul: NulOption = False,
    raw: RawOption = False,
    option: OptionsOption = None,
) -> None:
    """Write the records that carry all of these labels.

    They look as those of cat.
    """
    filters = Filters(start, stop, since, until, tuple(labels), any_of, reverse, limit)
    _write_records(store, option, filters, wish_of(json_lines, nul, raw))


def _write_records(store: str, option: list[str] | None, filters: Filters, wish: Wish) -> None:
    let_interrupt_kill()  # there is nothing to lose
    with exit_codes():
        output = standard_output()

        async def read() -> None:
            async with opened_for_reading(store, option) as reader, filters.scan(reader) as records:
                form = wish.form(lines_on(output, reader.next_sequence))
                await drain(records, taker(output, form), filters.limit)

        anyio.run(read)
