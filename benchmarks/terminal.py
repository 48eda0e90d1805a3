"""What is seen while a benchmark runs (on standard error), and when it has run (on standard
output).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

import rich.box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table as RichTable
from rich.text import Text

from benchmarks.measure import Progress
from benchmarks.report import Report, Table, Target, count

_WIDTH_MIN = 132  # of what goes into a file or a pipe; the widest table needs it


class ProgressBar(Progress):
    """One bar for all benchmarks that were asked for. Silent when standard error is no terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=0)
        self._name = ""
        self._expected = 0
        self._begun = 0

    def begin(self, name: str) -> None:
        """The steps that follow are of this benchmark."""
        self._name = name

    def expect(self, steps: int) -> None:
        self._expected += steps
        self._bar.update(self._task, total=self._expected)

    def step(self, doing: str) -> None:
        self._bar.update(self._task, completed=self._begun, description=f"{self._name}: {doing}")
        self._begun += 1

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while something else is written, perhaps to the same terminal."""
        self._bar.stop()
        yield
        self._bar.start()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()


def output() -> Console:
    """Standard output, wide enough for the tables also when it is a file."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDTH_MIN)


def show(report: Report, console: Console) -> None:
    """All that a report says, except what is only for programs."""
    for table in report.tables:
        console.print(Text(table.title, "bold"))
        console.print(_rich(table, console))
    if report.targets:
        console.print(Text(f"{report.name}: targets", "bold"))
        console.print(_rich_targets(report.targets, console))
    for note in report.notes:
        console.print(Text(note))
    console.print()


def _is_wide(console: Console) -> bool:
    """Whether there is room for every name on one line; cutting it off would be worse than breaking
    it.
    """
    return console.width >= _WIDTH_MIN


def _rich(table: Table, console: Console) -> RichTable:
    rich_table = RichTable(box=rich.box.SIMPLE_HEAD)
    for number, column in enumerate(table.columns):
        rich_table.add_column(
            Text(column),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=not number and _is_wide(console),
        )
    for row in table.rows:
        rich_table.add_row(*map(Text, row))
    return rich_table


def _rich_targets(targets: list[Target], console: Console) -> RichTable:
    rich_table = RichTable(box=rich.box.SIMPLE_HEAD)
    for column in ("target", "at least", "at most", "measured", ""):
        rich_table.add_column(
            column, justify="right" if column != "target" else "left", no_wrap=_is_wide(console)
        )
    for target in targets:
        bound = f"{count(target.bound)}{target.unit}"
        bounds = (bound, "") if target.at_least else ("", bound)
        verdict = Text("met", "green") if target.met else Text("not met", "yellow")
        rich_table.add_row(
            Text(target.what), *bounds, f"{count(target.measured)}{target.unit}", verdict
        )
    return rich_table
