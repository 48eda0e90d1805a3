"""Curves as PNG files: throughput against callers, and latency by percentile."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.report import Curve

_AXES = {
    "callers": ("callers that wait at once", "appends per second"),
    "latency": ("percentile", "milliseconds"),
}
_OURS = {"linewidth": 3.0, "zorder": 3}
"""How the line is drawn that the others are held against."""
_TITLES = {
    "peers by callers": "Appends of 256 bytes that no power cut takes, after each is answered",
    "peers latency at 64 callers": "How long such an append takes, 64 callers",
}


def draw(curves: Iterable[Curve], directory: Path) -> list[Path]:
    """One file for each plot. Without matplotlib there is none: ImportError."""
    import_module("matplotlib").use("Agg")
    pyplot: Any = import_module("matplotlib.pyplot")
    paths = []
    for plot, lines in groupby(
        sorted(curves, key=lambda curve: curve.plot), lambda curve: curve.plot
    ):
        path = directory / f"{plot.replace(' ', '-')}.png"
        _draw(pyplot, plot, list(lines), path)
        paths.append(path)
    return paths


def _draw(pyplot: Any, plot: str, curves: list[Curve], path: Path) -> None:
    kind = next(word for word in _AXES if word in plot)
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for curve in curves:
        places, values = zip(*curve.points, strict=True)
        at = places if kind == "callers" else [f"{place:g}" for place in places]
        drawn = _OURS if curve.label == "aquipu" else {}
        axes.plot(at, values, marker="o", label=curve.label, **drawn)
    if kind == "callers":
        callers = sorted({place for curve in curves for place, _ in curve.points})
        axes.set_xscale("log")
        axes.set_xticks(callers, [f"{place:,.0f}" for place in callers])
        axes.set_xticks([], minor=True)
    axes.set_yscale("log")
    axes.set_xlabel(_AXES[kind][0])
    axes.set_ylabel(_AXES[kind][1])
    axes.set_title(_TITLES.get(plot, plot))
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
