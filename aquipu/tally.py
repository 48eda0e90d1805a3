"""What is counted of a store while it works. Pure: every time is handed in.

Counting must cost next to nothing: an append takes a microsecond and a half. So nothing is counted for each append, only
for each commit. How long its records took to be acknowledged is read off the column of their timestamps, which is sorted:
the buckets of the oldest and of the newest are found by arithmetic, for they double, and the bounds in between by
bisection. A commit of a thousand records costs a few microseconds.

Each tally has one thread that adds to it; any other may take a snapshot, which is one copy of a list. So the counts of a
snapshot belong together, and two tallies may be a commit apart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aquipu.statistics import Histogram

SECOND = 1_000_000_000
"""In nanoseconds, the unit of every time that is counted."""

_SAMPLE = 16  # timestamps of a commit that its sum is estimated from
_RECENT = 30 * SECOND


class Tally:
    """A histogram that is being counted: in whole units, the first bucket up to ``first`` of them."""

    def __init__(self, first: int, buckets: int, scale: float = 1.0) -> None:
        """``scale``: of a unit, in the snapshot."""
        self._first = first
        self._scale = scale
        self._last = buckets - 1
        self._counts = [0] * buckets
        self._sum = 0

    def add(self, value: int) -> None:
        """One value."""
        self._counts[0 if value <= self._first else self._bucket(value)] += 1
        self._sum += value

    def add_ages(self, times: Sequence[int], now: int) -> None:
        """The ages of these times, which are sorted, the oldest first, and not empty. What lies ahead is of age 0: a clock
        was turned back."""
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
        """Count those that lie in several buckets, from that of the newest to that of the oldest."""
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
        """As it is now; from any thread."""
        from aquipu.statistics import Histogram  # needed only when somebody asks

        bounds = tuple((self._first << bucket) * self._scale for bucket in range(self._last))
        return Histogram(bounds, tuple(self._counts), self._sum * self._scale)


def durations() -> Tally:
    """For nanoseconds, told in seconds: from 0.1 ms, doubling, to 13 s and more."""
    return Tally(SECOND // 10_000, 19, 1 / SECOND)


def sizes() -> Tally:
    """For numbers: from 1, doubling, to 65,536 and more."""
    return Tally(1, 18)


COUNTED_ERRORS = (
    *("BatchTooLargeError", "BufferFullError", "RecordTooLargeError"),
    *("StoreClosedError", "StoreFailedError", "StoreFullError"),
)
"""Of these there is a count from the beginning, 0; of any other when it comes."""


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
        """A commit has arrived: when its records were accepted, and the bytes of their data."""
        self.records += len(times)
        self.bytes += size
        self.commits += 1
        self.append_times.add_ages(times, now)
        self.commit_records.add(len(times))

    def refused(self, error: Exception, count: int = 1) -> None:
        """So many callers have got this error."""
        self.errors[type(error).__name__] += count


class Latency:
    """How long the disk takes. The worker tells it; any thread may ask. Times are of a clock that is never turned back."""

    def __init__(self) -> None:
        self.syncs = durations()
        self.since = 0
        """When the disk was given what it is at; 0 when it rests."""
        self._slowest = [(0, 0), (0, 0)]  # of this stretch and of the one before: when it began, and how long

    def synced(self, duration: int, now: int) -> None:
        """A sync has taken so long."""
        self.syncs.add(duration)
        (begun, slowest), _ = self._slowest
        if now - begun >= _RECENT:
            self._slowest = [(now, duration), (begun, slowest)]
        elif duration > slowest:
            self._slowest[0] = (begun, duration)

    def under_way(self, now: int) -> int:
        """How long it has been at what it is doing; 0 when it rests."""
        since = self.since
        return max(now - since, 0) if since else 0

    def slowest(self, now: int) -> int:
        """Of the syncs of the last half minute, or of up to a minute."""
        return max((slowest for begun, slowest in self._slowest if now - begun < 2 * _RECENT), default=0)
