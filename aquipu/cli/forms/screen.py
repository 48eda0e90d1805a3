"""What a standard output is shown: lines and pages on a terminal, nothing of that elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from io import FileIO

from aquipu.cli.forms.shown import Paint, Style, coloured, escaped, line, page, plain
from aquipu.cli.forms.stream import Form
from aquipu.cli.streams.console import is_coloured, write
from aquipu.record import Record

Shown = Callable[[Record], str] | None
"""What shows a record to people; None where nobody looks."""


def lines_on(output: FileIO, following: int) -> Shown:
    """Return what shows the records before the sequence ``following``, each in a line."""
    if not output.isatty():
        return None
    return partial(line, width=len(str(max(following - 1, 0))), paint=paint_for(output))


def pages_on(output: FileIO) -> Shown:
    """Return what shows all of a record."""
    return partial(page, paint=paint_for(output)) if output.isatty() else None


def table(output: FileIO, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows as lines: below headings on a terminal, else with tabs in between.

    All columns but the last one are numbers.
    """
    if not output.isatty():
        return "\n".join("\t".join(row) for row in rows)
    shown = [headings, *([escaped(field) for field in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)][:-1]
    lines = [
        "  ".join([*(f"{one:>{width}}" for one, width in zip(row, widths, strict=False)), row[-1]])
        for row in shown
    ]
    return "\n".join([paint_for(output)(lines[0], Style.TIME), *lines[1:]])


def taker(output: FileIO, form: Form) -> Callable[[list[Record]], None]:
    """Return what writes records in a form."""

    def take(records: list[Record]) -> None:
        write(output, b"".join(map(form, records)))

    return take


def paint_for(output: FileIO) -> Paint:
    """Return what gives texts a style on this output: in colours where it has them."""
    return coloured if is_coloured(output) else plain
