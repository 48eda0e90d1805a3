"""What a benchmark has to say: tables for people, figures for programs, targets met or not, curves
to be drawn.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Rounds


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Target:
    """A number that was set beforehand, beside the one that was measured.

    Missing it fails nothing: it is said.
    """

    what: str
    measured: float
    bound: float
    unit: str = ""
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound


@dataclass(frozen=True)
class Curve:
    """One line of a plot."""

    plot: str
    label: str
    points: list[tuple[float, float]]


@dataclass
class Report:
    name: str
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    rounds: Rounds = field(default_factory=lambda: Rounds({}))

    def as_json(self) -> dict[str, Any]:
        """Plain values: every figure with its median and all of its rounds."""
        figures = {
            contender: {
                quantity: _figure([sample[quantity] for sample in samples])
                for quantity in samples[0]
            }
            for contender, samples in self.rounds.samples.items()
        }
        targets = [
            {**asdict(target), "measured": _finite(target.measured), "met": target.met}
            for target in self.targets
        ]
        tables = [asdict(table) for table in self.tables]
        return {
            "name": self.name,
            "figures": figures,
            "targets": targets,
            "notes": self.notes,
            "tables": tables,
        }


def _figure(rounds: list[float]) -> dict[str, Any]:
    return {"median": _finite(median(rounds)), "rounds": [_finite(value) for value in rounds]}


def _finite(value: float) -> float | None:
    """JSON knows no infinity: null where nothing came to an end."""
    return value if isfinite(value) else None


def machine(directory: Path) -> dict[str, Any]:
    """Where the figures come from."""
    load = os.getloadavg()[0]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "aquipu": version("aquipu"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(load, 2),
        "file_system": _file_system(directory),
    }


def _file_system(directory: Path) -> str:
    """Type and options of the mount that holds the directory, as far as the system tells."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    place = directory.resolve()
    holding = [mount for mount in mounts if place.is_relative_to(mount[1])]
    _, _, kind, options, *_ = max(holding, key=lambda mount: len(mount[1]))
    return f"{kind} ({options})"


# how numbers are written


def count(value: float) -> str:
    """Three digits that mean something: 171,000."""
    if not isfinite(value):
        return "none"
    if value < 100:
        return f"{value:.3g}"
    digits = len(str(int(value)))
    return f"{round(value, 3 - digits):,.0f}"


def times(value: float) -> str:
    """A ratio."""
    if not isfinite(value):
        return "-"
    return f"{value:,.0f}×" if value >= 100 else f"{value:.1f}×" if value >= 10 else f"{value:.2f}×"


def milliseconds(seconds: float) -> str:
    if not isfinite(seconds):
        return "none finished"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds * 1e3:,.0f} ms"
