"""Curves as PNG files: throughput against callers, and latency by percentile."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.report import Curve

_AXES = {"callers": ("callers", "appends/s"), "latency": ("percentile", "milliseconds")}


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
        values = [value for _, value in curve.points]
        if kind == "callers":
            axes.plot([place for place, _ in curve.points], values, marker="o", label=curve.label)
        else:
            axes.plot(
                [f"{place:g}" for place, _ in curve.points], values, marker="o", label=curve.label
            )
    if kind == "callers":
        places = sorted({place for curve in curves for place, _ in curve.points})
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:,.0f}" for place in places])
        axes.set_xticks([], minor=True)
    axes.set_yscale("log")
    axes.set_xlabel(_AXES[kind][0])
    axes.set_ylabel(_AXES[kind][1])
    axes.set_title(plot)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
