"""What is counted of a store, and what it says about its health. Pure: every time is handed in.

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
from typing import Literal, NamedTuple

MIB = 1024 * 1024
SECOND = 1_000_000_000
"""In nanoseconds, the unit of every time that is counted."""

_SAMPLE = 16  # timestamps of a commit that its sum is estimated from
_RECENT = 30 * SECOND


class Histogram(NamedTuple):
    """How often something was how large. Buckets double."""

    bounds: tuple[float, ...]
    """The largest value of each bucket but the last, which has no bound."""
    counts: tuple[int, ...]
    """Of each bucket by itself."""
    sum: float
    """Of all values. Of the latency of appends in commits of more than 16 records it is estimated, from at least 8 of them,
    evenly spaced in the order of their times."""

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts)


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


State = Literal["open", "failed", "closing", "closed"]


class Statistics(NamedTuple):
    """A snapshot of a store; what is counted is counted since its opening. Times are in seconds."""

    records: int
    """Acknowledged."""
    bytes: int
    """Of their data."""
    commits: int
    """That carried these records to the disk."""
    syncs: int
    """fdatasync calls (or writes that sync by themselves) on the log."""
    errors: dict[str, int]
    """Callers that got an error instead of a receipt, by its name: ``"StoreFullError"``."""
    cancelled: int
    """Callers that were cancelled while they waited. What had been accepted was written all the same."""
    append_seconds: Histogram
    """From the acceptance of a record, when there is room for it, to its acknowledgement; by the clock of its timestamp."""
    commit_records: Histogram
    sync_seconds: Histogram
    """Of single calls, measured around the call."""
    buffered_records: int
    """Accepted, not yet acknowledged."""
    buffered_bytes: int
    waiting: int
    """Callers that wait for room in the buffer."""
    unsynced_records: int
    """Acknowledged, but not known to be synced: what a power cut could take now."""
    oldest_unsynced_seconds: float
    """How long ago the oldest of these was accepted; 0 without any."""
    under_way_seconds: float
    """How long the disk has been at the commit, roll or purge that is under way; 0 when it rests."""
    slowest_sync_seconds: float
    """Of the last half minute, or of up to a minute."""
    first_sequence: int
    next_sequence: int
    synced_sequence: int
    segments: int
    """At least one; 0 of a store that a daemon writes, for which the daemon has them."""
    disk_bytes: int
    """Of the segment files."""
    free_bytes: int | None
    """That may still be written to the file system of the store. Measured beside commits, at most once a second; of an idle
    store it is what was found after the snapshot before this one. None where the system does not tell."""
    state: State


class Health(NamedTuple):
    """What `Store.health` finds."""

    state: Literal["ok", "degraded", "failed", "closed"]
    reasons: tuple[str, ...]
    """One sentence each; none when all is well."""


def judge(
    seen: Statistics, failure: str | None, *, min_free_bytes: int, max_sync_seconds: float, behind: str = "disk"
) -> Health:
    """What the numbers say; ``failure``: why the store takes nothing more; ``behind``: what it waits for."""
    if failure is not None:
        return Health("failed", (failure,))
    if seen.state != "open":
        return Health("closed", (f"the store is {seen.state}",))
    reasons = []
    if seen.free_bytes is not None and seen.free_bytes < min_free_bytes:
        reasons.append(f"the disk is nearly full: {_mib(seen.free_bytes)} are free, less than {_mib(min_free_bytes)}")
    if seen.under_way_seconds > max_sync_seconds:
        reasons.append(f"the {behind} has not answered for {seen.under_way_seconds:.1f} s")
    if seen.slowest_sync_seconds > max_sync_seconds:
        reasons.append(f"a sync took {seen.slowest_sync_seconds:.1f} s within the last minute")
    return Health("degraded" if reasons else "ok", tuple(reasons))


def _mib(bytes: int) -> str:
    return f"{bytes / MIB:,.0f} MiB"
