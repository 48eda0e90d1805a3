"""What is known of a store at a moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from aquipu.statistics import Statistics


class WriterSeen(NamedTuple):
    """The process that writes a store."""

    pid: int | None
    """None for one that is not seen from here."""
    state: str | None
    """``running``, ``stopped`` or ``gone``; None where the system does not say."""


class Behind(NamedTuple):
    """How far a consumer is behind."""

    records: int
    seconds: float | None
    """Age of the oldest of these records; None when it is not known."""


class Sample(NamedTuple):
    """A store at a moment."""

    at: float
    """Seconds, by a clock that is never turned back."""
    first: int = 0
    """Sequence of the first record kept."""
    acknowledged: int = 0
    """One past the last acknowledged record."""
    synced: int | None = None
    """Everything below is on the disk; None: only the writer knows."""
    statistics: Statistics | None = None
    """What the writer counts; None where it is not asked."""
    writer: WriterSeen | None = None
    """None when nobody writes the store."""
    segments: int | None = None
    disk_bytes: int | None = None
    """Of the segment files."""
    free_bytes: int | None = None
    consumers: Mapping[str, Behind] = MappingProxyType({})
    health: str = "ok"
    """``ok``, ``degraded``, ``failed``, ``closed``, ``stopped``, ``at rest`` or ``away``."""
    reasons: tuple[str, ...] = ()
    """Why it is not well, one sentence each."""
