"""What a measurement came to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aquipu.local.check.diagnosis.file_systems import warning_about

_IMPLAUSIBLE = 15e-6
"""Seconds in which no sync reaches a disk: the fastest with a battery take more."""


@dataclass(frozen=True, slots=True)
class SyncCost:
    """What one fdatasync costs."""

    count: int
    median: float
    """In seconds, as the others."""
    p99: float


@dataclass(frozen=True, slots=True)
class Run:
    """One policy with one number of callers, each of which waits for its append."""

    policy: str
    callers: int
    records: int
    seconds: float
    appends_per_second: float
    p50: float
    """Of the time that an append takes, in seconds."""
    p90: float
    p99: float
    slowest: float
    risk: int | None
    """Most acknowledged records that a power cut can take, as the policy bounds it; None when only
    the operating system knows.
    """
    risk_seen: int
    """Most that it could have taken at the moments in which that was looked at."""


@dataclass(frozen=True, slots=True)
class Results:
    """All of a measurement."""

    directory: str
    file_system: str | None
    record_bytes: int
    sync: SyncCost
    runs: tuple[Run, ...]
    warnings: tuple[str, ...]
    """What makes these numbers worth less than they seem."""
    advice: str | None
    """Which policy for the rate that was asked for."""


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which this share of the values lies, which are in order."""
    if not ordered:
        return 0.0
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def sync_cost(seconds: Sequence[float]) -> SyncCost:
    """Return what single syncs have cost."""
    ordered = sorted(seconds)
    return SyncCost(len(ordered), percentile(ordered, 0.5), percentile(ordered, 0.99))


def run_of(
    policy: str,
    callers: int,
    records: int,
    seconds: float,
    waits: Sequence[float],
    risk: int | None,
    risk_seen: int,
) -> Run:
    """Return what a run came to; ``waits`` are of some of its appends."""
    ordered = sorted(waits)
    return Run(
        policy,
        callers,
        records,
        seconds,
        records / seconds if seconds > 0 else 0.0,
        percentile(ordered, 0.5),
        percentile(ordered, 0.9),
        percentile(ordered, 0.99),
        ordered[-1] if ordered else 0.0,
        risk,
        risk_seen,
    )


def warnings_about(file_system: str | None, sync: SyncCost) -> tuple[str, ...]:
    """Return what to know before these numbers are believed."""
    about = warning_about(file_system)
    found = [] if about is None else [about]
    if sync.count > 0 and sync.median < _IMPLAUSIBLE:
        found.append(
            f"a sync took {sync.median * 1e6:.0f} us, which no disk can do: what is called synced "
            "here is in memory (a disk or a container that does not flush, or libeatmydata)"
        )
    return tuple(found)
