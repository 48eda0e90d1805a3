"""The results as a picture: appends a second, and how long one takes. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import floor, log10
from typing import Any

from aquipu.cli.bench.plan import CALLERS, POLICIES
from aquipu.cli.bench.results import Results, Run
from aquipu.cli.bench.table import time_of
from aquipu.cli.streams.missing import MissingPackageError

_COLOURS = ("#2b6cb0", "#dd8a1f", "#7a8594")
_WIDTH = 0.26


def check_there() -> None:
    """Raise MissingPackageError when there is nothing that could draw."""
    _figure_class()


def _figure_class() -> Any:
    try:
        figure: Any = __import__("matplotlib.figure")  # it need not be there
    except ModuleNotFoundError as error:
        raise MissingPackageError("a plot needs", error.name, "bench") from None
    return figure.figure.Figure


def picture_of(results: Results) -> bytes:
    """Return the picture as PNG. Raises MissingPackageError."""
    figure = _figure_class()(figsize=(11, 4.8), dpi=150, layout="constrained")
    rates, waits = figure.subplots(1, 2)
    _bars(rates, results.runs, "appends_per_second", "appends per second", 1.0)
    _bars(waits, results.runs, "p99", "99 of 100 appends take at most (ms)", 1e3)
    figure.suptitle(
        f"aquipu bench: {results.record_bytes}-byte records on "
        f"{results.file_system or 'an unknown file system'}, one fdatasync "
        f"{time_of(results.sync.median)} (median)",
        fontsize=11,
    )
    handles, labels = rates.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    output = BytesIO()
    figure.savefig(output, format="png")
    return output.getvalue()


def _bars(axes: Any, runs: Sequence[Run], field: str, title: str, scale: float) -> None:
    values = [getattr(run, field) * scale for run in runs if getattr(run, field) > 0]
    for number, (policy, _) in enumerate(POLICIES):
        its = {run.callers: getattr(run, field) * scale for run in runs if run.policy == policy}
        at = [place + (number - 1) * _WIDTH for place in range(len(CALLERS))]
        heights = [its.get(callers, 0.0) for callers in CALLERS]
        bars = axes.bar(at, heights, _WIDTH * 0.92, label=policy, color=_COLOURS[number])
        axes.bar_label(bars, [short(height) for height in heights], fontsize=7, padding=1)
    if values:
        axes.set_yscale("log")
        # whole powers of ten, so that no bar looks smaller than it is
        axes.set_ylim(10.0 ** floor(log10(min(values) / 1.5)), 2 * max(values))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    axes.set_xticks(range(len(CALLERS)), [str(callers) for callers in CALLERS])
    axes.set_xlabel("callers that append at the same time")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def short(value: float) -> str:
    """Return a number in few characters: 0.21, 6.4, 920, 9.9k, 42k."""
    if value >= 1000:
        return f"{value / 1000:.0f}k" if value >= 10_000 else f"{value / 1000:.1f}k"
    if value >= 10 or value == 0:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"
