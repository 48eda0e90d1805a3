"""What a store says of itself when it is asked: its statistics, and its health. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from aquipu.options import MIB


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
