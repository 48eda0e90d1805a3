"""The table of `append` once more, on uvloop."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from importlib.metadata import version

from benchmarks import append
from benchmarks.measure import Progress
from benchmarks.report import Report
from benchmarks.settings import Settings


def run(settings: Settings, progress: Progress) -> Report:
    """Without targets: they are set for plain asyncio."""
    try:
        package = import_module("uvloop")
    except ImportError:
        return Report(
            "uvloop",
            notes=["uvloop left out: uvloop is not installed (pip install -e '.[uvloop]')"],
        )
    measured = append.run(replace(settings, loop_factory=package.new_event_loop), progress)
    return Report(
        "uvloop",
        tables=[
            replace(table, title=f"uvloop {version('uvloop')}: {table.title}")
            for table in measured.tables
        ],
        curves=[replace(curve, plot=f"uvloop {curve.plot}") for curve in measured.curves],
        rounds=measured.rounds,
    )
