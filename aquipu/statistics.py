"""The statistics of a store, and what it says of itself when asked. Pure.

`Statistics` is the one list of what there is: each field has its type, its text and, beside the
type, how monitoring sees it. Where each comes from, `aquipu.runtime.counting.snapshot` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from aquipu.record import Lag


class Histogram(NamedTuple):
    """How often something was how large. Buckets double."""

    bounds: tuple[float, ...]
    """The largest value of each bucket but the last, which has no bound."""
    counts: tuple[int, ...]
    """Of each bucket by itself."""
    sum: float
    """Of all values. Of the latency of appends in commits of more than 16 records it is estimated,
    from at least 8 of them, evenly spaced in the order of their times.
    """

    @property
    def total(self) -> int:
        """How many there were."""
        return sum(self.counts)


State = Literal["open", "failed", "closing", "closed"]


class Metric(NamedTuple):
    """How monitoring sees a field of the `Statistics`, beside whose type it stands."""

    kind: Literal["counter", "histogram", "gauge"]
    name: str
    help: str
    label: str = ""
    """Name of what tells several values apart, if there are several."""
    zero_is_unknown: bool = False
    """Whether 0 says that only the daemon has it."""


_counter, _gauge, _histogram = (
    partial(Metric, "counter"),
    partial(Metric, "gauge"),
    partial(Metric, "histogram"),
)


class Statistics(NamedTuple):
    """A snapshot of a store; what is counted is counted since its opening. Times are in seconds."""

    records: Annotated[int, _counter("aquipu_appends", "Records acknowledged.")]
    """Acknowledged."""
    bytes: Annotated[int, _counter("aquipu_appended_bytes", "Bytes of the data of these records.")]
    """Of their data."""
    commits: Annotated[
        int, _counter("aquipu_commits", "Commits that carried these records to the disk.")
    ]
    """That carried these records to the disk."""
    syncs: Annotated[
        int,
        _counter("aquipu_syncs", "Syncs of the log: fdatasync, or writes that sync by themselves."),
    ]
    """fdatasync calls (or writes that sync by themselves) on the log."""
    errors: Annotated[
        dict[str, int],
        _counter("aquipu_errors", "Callers that got an error, by its name.", label="reason"),
    ]
    """Callers that got an error instead of a receipt, by its name: ``"StoreFullError"``."""
    cancelled: Annotated[
        int,
        _counter("aquipu_cancelled_waiters", "Callers that were cancelled while they waited."),
    ]
    """Callers that were cancelled while they waited.

    What had been accepted was written all the same.
    """
    append_seconds: Annotated[
        Histogram,
        _histogram("aquipu_append_seconds", "From acceptance to acknowledgement of a record."),
    ]
    """From the acceptance of a record, when there is room for it, to its acknowledgement; by the
    clock of its timestamp.
    """
    commit_records: Annotated[
        Histogram, _histogram("aquipu_commit_records", "Records of a commit.")
    ]
    sync_seconds: Annotated[
        Histogram, _histogram("aquipu_sync_seconds", "Single calls that sync the log.")
    ]
    """Of single calls, measured around the call."""
    buffered_records: Annotated[
        int, _gauge("aquipu_buffer_records", "Records accepted, not yet acknowledged.")
    ]
    """Accepted, not yet acknowledged."""
    buffered_bytes: Annotated[
        int, _gauge("aquipu_buffer_bytes", "Bytes of these, with their labels.")
    ]
    waiting: Annotated[
        int, _gauge("aquipu_waiting_callers", "Callers that wait for room in the buffer.")
    ]
    """Callers that wait for room in the buffer."""
    unsynced_records: int
    """Acknowledged, but not known to be synced: what a power cut could take now."""
    oldest_unsynced_seconds: Annotated[
        float,
        _gauge(
            "aquipu_oldest_unsynced_seconds",
            "Age of the oldest record that a power cut could take.",
        ),
    ]
    """How long ago the oldest of these was accepted; 0 without any."""
    under_way_seconds: Annotated[
        float,
        _gauge(
            "aquipu_under_way_seconds",
            "How long the disk has been at what it is doing; 0 when it rests.",
        ),
    ]
    """How long the disk has been at the commit, roll or purge that is under way; 0 when it rests.
    """
    slowest_sync_seconds: float
    """Of the last half minute, or of up to a minute."""
    first_sequence: Annotated[int, _gauge("aquipu_first_sequence", "The first record kept.")]
    next_sequence: Annotated[
        int, _gauge("aquipu_next_sequence", "One past the last acknowledged record.")
    ]
    synced_sequence: Annotated[
        int, _gauge("aquipu_synced_sequence", "Everything below is on the disk.")
    ]
    segments: Annotated[int, _gauge("aquipu_segments", "Files of the log.", zero_is_unknown=True)]
    """At least one; 0 of a store that a daemon writes, for which the daemon has them."""
    disk_bytes: Annotated[
        int, _gauge("aquipu_disk_bytes", "Bytes of these files.", zero_is_unknown=True)
    ]
    """Of the segment files."""
    free_bytes: Annotated[
        int | None, _gauge("aquipu_free_bytes", "Bytes free on their file system.")
    ]
    """That may still be written to the file system of the store. Measured beside commits, at most
    once a second; of an idle store it is what was found after the snapshot before this one. None
    where the system does not say.
    """
    state: Annotated[
        State,
        _gauge("aquipu_state", "1 for the state that the store is in.", label="state"),
    ]
    cursor_records: Annotated[
        dict[str, int],
        _gauge("aquipu_cursor_records", "Records that it has not passed yet.", label="cursor"),
    ]
    """How many records each cursor has not passed yet, by its name. Those of all processes.

    Read beside the appends when the statistics are asked for, at most once a second: it is what was
    found after the snapshot before this one. Nothing of a store that a daemon writes.
    """
    cursor_seconds: Annotated[
        dict[str, float],
        _gauge("aquipu_cursor_seconds", "Age of the oldest of these.", label="cursor"),
    ]
    """Age of the oldest of these records that is kept, by the name of the cursor; 0 without any."""
    archived_sequence: Annotated[
        int | None, _gauge("aquipu_archived_sequence", "Everything below is in the archive.")
    ] = None
    """Everything below is in the archive. None of a store that is opened without one."""
    unarchived_records: Annotated[
        int | None, _gauge("aquipu_unarchived_records", "Records that the archive does not have.")
    ] = None
    """Acknowledged records that the archive does not have yet; None as above."""
    archive_lag_seconds: Annotated[
        float | None,
        _gauge("aquipu_archive_lag_seconds", "How far the archive is behind; 0: it has all."),
    ] = None
    """How far the archive is behind: what was acknowledged so long ago is in it, and what came
    since may not be. 0 when it has all; None as above.
    """


class Health(NamedTuple):
    """What `Store.health` finds."""

    state: Literal["ok", "degraded", "failed", "closed"]
    reasons: tuple[str, ...]
    """One sentence each; none when all is well."""


class Archived(NamedTuple):
    """How far the archive has come."""

    next_sequence: int
    """One past the last archived record."""
    records: int
    """Records that it does not have yet."""
    seconds: float
    """How far it is behind."""


class Measured(NamedTuple):
    """What only the engine knows, when it has the files."""

    segments: int = 0
    disk_bytes: int = 0
    free_bytes: int | None = None
    has_failed: bool = False
    """Whether the log has failed, and no caller has heard of it yet."""
    cursors: Mapping[str, Lag] = MappingProxyType({})
    """How far each consumer is behind, by the name of its cursor."""
    archive: Archived | None = None
    """How far the archive has come, if there is one."""
