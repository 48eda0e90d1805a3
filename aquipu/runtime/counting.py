"""What is counted of a store while it works. Pure.

Every time is handed in. Counting must cost next to nothing: an append takes a microsecond and a
half. So only commits are counted, and how long their records took to be acknowledged is read off
the column of timestamps. That is sorted: the buckets of the oldest and of the newest are found by
arithmetic, for they double, and the bounds in between by bisection, in a few microseconds.

Each tally has one thread that adds to it; any other may take a snapshot, which is one copy of a
list. So the counts of a snapshot belong together, and two tallies may be a commit apart. What the
loop does is counted in `Counters`, what the thread of the disk does in `Latency`; `snapshot` makes
the `Statistics` of both.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence, Sized
from typing import Protocol

from aquipu.statistics import Histogram, Measured, State, Statistics

SECOND = 1_000_000_000
"""In nanoseconds, the unit of every time that is counted."""
COUNTED_ERRORS = (
    *("BatchTooLargeError", "BufferFullError", "RecordTooLargeError"),
    *("StoreClosedError", "StoreFailedError", "StoreFullError"),
)
"""Of these there is a count from the beginning, 0; of any other when it comes."""

_SAMPLE = 16  # timestamps of a commit that its sum is estimated from
_RECENT = 30 * SECOND


class Tally:
    """A histogram that is being counted, in whole units.

    The first bucket is for values up to ``first``.
    """

    def __init__(self, first: int, buckets: int, scale: float = 1.0) -> None:
        """Begin with nothing counted; ``scale`` is what a unit is in the snapshot."""
        self._first = first
        self._scale = scale
        self._last = buckets - 1
        self._counts = [0] * buckets
        self._sum = 0

    def add(self, value: int) -> None:
        """Count one value."""
        self._counts[0 if value <= self._first else self._bucket(value)] += 1
        self._sum += value

    def add_ages(self, times: Sequence[int], now: int) -> None:
        """Count the ages of these times, which are sorted, the oldest first, and not empty.

        What lies ahead is of age 0: a clock was turned back.
        """
        age, count = now - times[0], len(times)
        if age < 0:
            age, now = 0, times[0]
        if count == 1:
            self.add(age)
            return
        oldest, newest = self._bucket(age), self._bucket(now - times[-1])
        if oldest == newest:
            self._counts[oldest] += count
        else:
            self._spread(times, now, newest, oldest)
        sample = times if count < _SAMPLE else times[:: 1 + count // _SAMPLE]
        self._sum += max(now * len(sample) - sum(sample), 0) * count // len(sample)

    def _spread(self, times: Sequence[int], now: int, newest: int, oldest: int) -> None:
        """Count those that lie in several buckets, from the newest one's to the oldest one's."""
        end = len(times)
        for bucket in range(newest, oldest):
            start = bisect_left(times, now - (self._first << bucket), 0, end)
            self._counts[bucket] += end - start
            end = start
        self._counts[oldest] += end

    def _bucket(self, value: int) -> int:
        if value <= self._first:
            return 0
        bucket = ((value - 1) // self._first).bit_length()
        return bucket if bucket < self._last else self._last

    def snapshot(self) -> Histogram:
        """Return the histogram as it is now; from any thread."""
        bounds = tuple((self._first << bucket) * self._scale for bucket in range(self._last))
        return Histogram(bounds, tuple(self._counts), self._sum * self._scale)


def durations() -> Tally:
    """Return a tally of nanoseconds, shown in seconds: from 0.1 ms, doubling, to 13 s and more."""
    return Tally(SECOND // 10_000, 19, 1 / SECOND)


def sizes() -> Tally:
    """Return a tally of numbers: from 1, doubling, to 65,536 and more."""
    return Tally(1, 18)


class Counters:
    """What the loop thread counts."""

    def __init__(self) -> None:
        self.records = 0
        self.bytes = 0
        self.commits = 0
        self.syncs = 0
        self.cancelled = 0
        self.errors = Counter(dict.fromkeys(COUNTED_ERRORS, 0))
        self.append_times = durations()
        self.commit_records = sizes()

    def acknowledged(self, times: Sequence[int], size: int, now: int) -> None:
        """Count a commit: when its records were accepted, and the bytes of their data."""
        self.records += len(times)
        self.bytes += size
        self.commits += 1
        self.append_times.add_ages(times, now)
        self.commit_records.add(len(times))

    def refused(self, error: Exception, count: int = 1) -> None:
        """Count callers that have got this error."""
        self.errors[type(error).__name__] += count


class Latency:
    """How long the disk takes.

    The worker counts; any thread may ask. Times are of a clock that is never turned back.
    """

    def __init__(self) -> None:
        self.syncs = durations()
        self.since = 0
        """When the disk was given what it is at; 0 when it rests."""
        # of this stretch and of the one before: when it began, and how long
        self._slowest = [(0, 0), (0, 0)]

    def synced(self, duration: int, now: int) -> None:
        """Count a sync that has taken so long."""
        self.syncs.add(duration)
        (begun, slowest), _ = self._slowest
        if now - begun >= _RECENT:
            self._slowest = [(now, duration), (begun, slowest)]
        elif duration > slowest:
            self._slowest[0] = (begun, duration)

    def under_way(self, now: int) -> int:
        """Return how long the disk has been at what it is doing; 0 when it rests."""
        since = self.since
        return max(now - since, 0) if since else 0

    def slowest(self, now: int) -> int:
        """Return the duration of the slowest sync of the last half minute, or of up to a minute."""
        return max(
            (slowest for begun, slowest in self._slowest if now - begun < 2 * _RECENT), default=0
        )


class Buffered(Protocol):
    """What is accepted and not yet acknowledged, or not yet synced: a `GroupCommit`."""

    unsynced_since: int

    @property
    def buffered_records(self) -> int: ...
    @property
    def buffered_bytes(self) -> int: ...
    @property
    def waiting(self) -> Sized: ...
    @property
    def unsynced(self) -> int: ...


def snapshot(
    counters: Counters,
    buffer: Buffered,
    latency: Latency,
    measured: Measured,
    progress: tuple[int, int, int],
    state: State,
    now: int,
) -> Statistics:
    """Return the statistics of a log from what is counted in its parts; from any thread.

    ``progress``: its first, next and synced sequence. ``now``: by the monotonic clock.
    """
    first_sequence, next_sequence, synced_sequence = progress
    archive = measured.archive
    return Statistics(
        records=counters.records,
        bytes=counters.bytes,
        commits=counters.commits,
        syncs=counters.syncs,
        errors=dict(counters.errors),
        cancelled=counters.cancelled,
        append_seconds=counters.append_times.snapshot(),
        commit_records=counters.commit_records.snapshot(),
        sync_seconds=latency.syncs.snapshot(),
        buffered_records=buffer.buffered_records,
        buffered_bytes=buffer.buffered_bytes,
        waiting=len(buffer.waiting),
        unsynced_records=max(next_sequence - synced_sequence, 0),
        oldest_unsynced_seconds=max(now - buffer.unsynced_since, 0) / SECOND
        if buffer.unsynced > 0
        else 0.0,
        under_way_seconds=latency.under_way(now) / SECOND,
        slowest_sync_seconds=latency.slowest(now) / SECOND,
        first_sequence=first_sequence,
        next_sequence=next_sequence,
        synced_sequence=synced_sequence,
        segments=measured.segments,
        disk_bytes=measured.disk_bytes,
        free_bytes=measured.free_bytes,
        state="failed" if state == "open" and measured.has_failed else state,
        cursor_records={name: lag.records for name, lag in measured.cursors.items()},
        cursor_seconds={name: lag.seconds for name, lag in measured.cursors.items()},
        archived_sequence=archive and archive.next_sequence,
        unarchived_records=archive and archive.records,
        archive_lag_seconds=archive and archive.seconds,
    )
