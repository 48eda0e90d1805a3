"""What the samples of the last minutes come to: rates, latencies, and how they went. Pure.

A rate is the difference of two samples over the time between them. When a count goes down, the
writer was started anew, and that stretch says nothing. A percentile is read off the difference of
two histograms: it lies within a bucket, whose bounds are a factor of two apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from aquipu.cli.top.samples import Behind, Sample, WriterSeen
from aquipu.statistics import Histogram

WINDOW = 300.0
"""Seconds that the sparklines show."""
COLUMNS = 40
"""Points of a sparkline."""
_NOW = 5.0  # seconds that "now" means
_SILENT = 3.0  # seconds without a commit under way that moves, to be called hanging


@dataclass(frozen=True, slots=True)
class Line:
    """A number now, and how it went: the oldest first."""

    now: float | None
    """None when nothing is known of the last seconds."""
    history: tuple[float | None, ...]
    """A point for each stretch of the window; None where nothing is known."""

    @property
    def highest(self) -> float | None:
        """The highest of them, with what is now."""
        points = (*self.history, self.now)
        return max((point for point in points if point is not None), default=None)


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of a store."""

    health: str
    reasons: tuple[str, ...]
    writer: WriterSeen | None
    appends: Line
    """Acknowledged records a second."""
    records_per_commit: Line
    append_p50: Line
    """Seconds from the acceptance of a record to its acknowledgement; half of them took less."""
    append_p99: Line
    sync_p50: Line
    """Seconds of a single sync."""
    sync_p99: Line
    first: int
    acknowledged: int
    synced: int | None
    at_risk: int | None
    """Acknowledged records that a power cut would take at this instant; None: only the writer
    knows.
    """
    at_risk_seconds: float | None
    """Age of the oldest of these."""
    archived: int | None
    """Everything below is in the archive; None without one, and where only the writer knows."""
    unarchived: int | None
    """Acknowledged records that it does not have yet."""
    archive_seconds: float | None
    """How far it is behind."""
    buffered: int | None
    """Records accepted, and not yet acknowledged."""
    buffered_bytes: int | None
    waiting: int | None
    """Callers that wait for room in the buffer."""
    under_way_seconds: float | None
    """How long the disk has been at what it is doing."""
    segments: int | None
    disk_bytes: int | None
    free_bytes: int | None
    consumers: Mapping[str, Behind]
    measured: bool
    """Whether the writer was asked: without, it is seen from outside."""
    seconds: float
    """How far the samples reach back."""


class History:
    """The samples of the last minutes."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._samples: deque[Sample] = deque()

    def add(self, sample: Sample) -> None:
        """Take the next sample, and forget those that have left the window."""
        self._samples.append(sample)
        while len(self._samples) > 2 and self._samples[1].at < sample.at - self._window:
            self._samples.popleft()

    def view(self) -> View:
        """Return what the samples come to; there must be one."""
        last = self._samples[-1]
        said = last.statistics
        consumers = {
            name: behind if behind.seconds is not None else self._aged(last, behind)
            for name, behind in last.consumers.items()
        }
        return View(
            health=last.health,
            reasons=last.reasons,
            writer=last.writer,
            appends=self._line(_appends),
            records_per_commit=self._line(_records_per_commit),
            append_p50=self._line(_quantile("append_seconds", 0.5)),
            append_p99=self._line(_quantile("append_seconds", 0.99)),
            sync_p50=self._line(_quantile("sync_seconds", 0.5)),
            sync_p99=self._line(_quantile("sync_seconds", 0.99)),
            first=last.first,
            acknowledged=last.acknowledged,
            synced=last.synced,
            at_risk=None if last.synced is None else max(last.acknowledged - last.synced, 0),
            at_risk_seconds=None if said is None else said.oldest_unsynced_seconds,
            archived=None if said is None else said.archived_sequence,
            unarchived=None if said is None else said.unarchived_records,
            archive_seconds=None if said is None else said.archive_lag_seconds,
            buffered=None if said is None else said.buffered_records,
            buffered_bytes=None if said is None else said.buffered_bytes,
            waiting=None if said is None else said.waiting,
            under_way_seconds=None if said is None else said.under_way_seconds,
            segments=last.segments,
            disk_bytes=last.disk_bytes,
            free_bytes=last.free_bytes,
            consumers=consumers,
            measured=said is not None,
            seconds=last.at - self._samples[0].at,
        )

    def _line(self, between: Callable[[Sample, Sample], float | None]) -> Line:
        last = self._samples[-1].at
        recent = [sample for sample in self._samples if sample.at >= last - _NOW]
        now = between(recent[0], recent[-1]) if len(recent) > 1 else None
        step = self._window / COLUMNS
        history: list[float | None] = []
        for column in range(COLUMNS):
            begin = last - self._window + column * step
            history.append(self._between(begin, begin + step, between))
        return Line(now, tuple(history))

    def _between(
        self, begin: float, end: float, between: Callable[[Sample, Sample], float | None]
    ) -> float | None:
        """Return what lies in a stretch of time: from the last sample before it on.

        Where none lies in it, what lies between those around it.
        """
        before: Sample | None = None
        within: list[Sample] = []
        for sample in self._samples:
            if sample.at <= begin:
                before = sample
            elif sample.at <= end or (before is not None and not within):
                within.append(sample)
            else:
                break
        if before is not None:
            within.insert(0, before)
        return between(within[0], within[-1]) if len(within) > 1 else None

    def _aged(self, last: Sample, behind: Behind) -> Behind:
        """Return it with the age of its oldest record, by when it was seen to be acknowledged."""
        if not behind.records:
            return Behind(0, 0.0)
        sequence = last.acknowledged - behind.records
        for before, after in pairwise(self._samples):
            if before.acknowledged <= sequence < after.acknowledged:
                return Behind(behind.records, last.at - after.at)
        return behind


def _appends(before: Sample, after: Sample) -> float | None:
    seconds, records = after.at - before.at, after.acknowledged - before.acknowledged
    return records / seconds if seconds > 0 and records >= 0 else None


def _records_per_commit(before: Sample, after: Sample) -> float | None:
    if before.statistics is None or after.statistics is None:
        return None
    records = after.statistics.records - before.statistics.records
    commits = after.statistics.commits - before.statistics.commits
    return records / commits if commits > 0 and records >= 0 else None


def _quantile(field: str, share: float) -> Callable[[Sample, Sample], float | None]:
    def between(before: Sample, after: Sample) -> float | None:
        if before.statistics is None or after.statistics is None:
            return None
        older: Histogram = getattr(before.statistics, field)
        newer: Histogram = getattr(after.statistics, field)
        if older.bounds != newer.bounds or len(older.counts) != len(newer.counts):
            return None
        counts = [late - early for late, early in zip(newer.counts, older.counts, strict=True)]
        return quantile(newer.bounds, counts, share)

    return between


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """Return the value below which this share of them lies, as far as buckets tell.

    None for no values, and for counts that went down: those of two lives of a writer.
    """
    total = sum(counts)
    if total <= 0 or any(count < 0 for count in counts) or not bounds:
        return None
    wanted, passed = share * total, 0
    for bound, lower, count in zip((*bounds, 2 * bounds[-1]), (0.0, *bounds), counts, strict=False):
        if count and passed + count >= wanted:
            return lower + (bound - lower) * (wanted - passed) / count
        passed += count
    return bounds[-1]


def plain(value: Any) -> Any:
    """Return a view as objects, lists, texts and numbers: for JSON."""
    if isinstance(value, (View, Line)):
        return {name: plain(getattr(value, name)) for name in value.__slots__}
    if isinstance(value, (Behind, WriterSeen)):
        return value._asdict()
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, float):
        return round(value, 6)
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def joined(sentences: Iterable[str]) -> str:
    """Return sentences in a line."""
    return "; ".join(sentences)
