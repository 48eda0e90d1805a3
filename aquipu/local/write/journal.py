"""Journal: takes the commits of a log, one after another, and writes them to its files.

Blocking; one thread owns it. A commit goes in, a `CommitResult` comes out ("so far the log
reaches, so far it is synced"), or an error of the tree. With no space while writing, the commit is
cut back to its start, StoreFullError, and life goes on. After anything else, or a failed sync, the
log is poisoned (`LogFiles`), and its files are never touched again.

What is due between two commits has rooms of its own: `Roller`, `Keeper` and `FreeSpace`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from time import monotonic_ns, time_ns
from typing import Any, NamedTuple

from aquipu.engine import Commit, CommitResult
from aquipu.errors import StoreFailedError, StoreFullError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import OutcomeUnknown
from aquipu.local.disk.lock import Lock
from aquipu.local.disk.os_errors import is_no_space
from aquipu.local.format.frame import Encoded, encode, mark
from aquipu.local.format.manifest import Manifest
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.retain.clock import ClockAlarm, ClockWatch, elapsed_ns
from aquipu.local.retain.purge import SealedSegments
from aquipu.local.retain.retention import Retention, aging
from aquipu.local.retain.space import FreeSpace
from aquipu.local.write.aging import Aging
from aquipu.local.write.generation import Generations
from aquipu.local.write.keeper import Keeper
from aquipu.local.write.log_files import LogFiles
from aquipu.local.write.roller import Roller
from aquipu.local.write.segment_writer import SegmentWriter
from aquipu.record import Purged
from aquipu.runtime.counting import SECOND, Latency
from aquipu.runtime.trouble import Troubles

_LEVELLED_MAX = SECOND
"""Nanoseconds that the system clock may be set back until the log follows it."""


class Prepared(NamedTuple):
    """A commit as bytes, ready for the system calls."""

    frame: Encoded | None
    """The encoded frame; None for a commit without records: only a sync."""
    records: int
    time: int
    sync: bool


class Journal:
    """The log as files. `recovery.recover` makes one; any thread may read `segments`."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        manifest: Manifest,
        sealed: list[SegmentRef],
        active: SegmentWriter,
        *,
        synced_sequence: int,
        max_segment_bytes: int,
        marked: bool,
        sealed_segments: SealedSegments | None = None,
        retention: Retention | None = None,
        lock: Lock | None = None,
    ) -> None:
        contents = active.contents
        self.path = path
        self.next_sequence = contents.next_sequence
        self.synced_sequence = synced_sequence
        self.syncs = 0
        # a segment that follows another, purged or not, was created at the time of the last commit
        # before it
        created = active.header.created if active.header.first_sequence else 0
        self.last_time = contents.last_time or created
        """Time of the last commit, in nanoseconds."""
        self.generations: Generations | None = None
        """History of the store, in which it is noted that the journal was closed."""
        self.latency = Latency()
        self.troubles = Troubles()
        sealed_segments = sealed_segments or SealedSegments(disk, path, [])
        now, elapsed = time_ns(), elapsed_ns()
        sealed_segments.sealed = aging(
            sealed_segments.sealed, (contents.first_time, contents.last_time), now, elapsed
        )
        self._files = LogFiles(disk, path, manifest, sealed, active, sealed_segments, lock)
        self._space = FreeSpace(disk, path)
        watch = ClockWatch(now, elapsed, self.last_time)
        self._clock = ClockAlarm(path, watch, self.troubles)
        self._keeper = Keeper(self._files, retention, self._space, self.troubles, self._clock)
        self._roller = Roller(self._files, self.troubles, self._keeper.make_room)
        self.aging = Aging(self._files, self._keeper, self._roller)
        self._max_segment_bytes = max_segment_bytes
        # the last frame is a mark: its watermark proves all that stands before it
        self._marked = marked
        self._is_refused = False  # the last commit with records, for lack of space

    @property
    def segments(self) -> tuple[SegmentRef, ...]:
        """Segments as readers see them, the oldest first; from any thread."""
        return self._files.segments

    @property
    def failure(self) -> StoreFailedError | None:
        """Failure that has poisoned the journal, if one has."""
        return self._files.failure

    @property
    def is_unsynced(self) -> bool:
        """Whether records wait for a sync, and can still have one."""
        return self.synced_sequence < self.next_sequence and self.failure is None

    @property
    def is_doubtful(self) -> bool:
        """Whether a sync has failed, or may be failing just now: see `LogFiles`."""
        return self._files.is_doubtful

    @property
    def disk_bytes(self) -> int:
        """Bytes of the segment files; from any thread."""
        return self._files.bytes

    @property
    def free_bytes(self) -> int | None:
        """Free bytes on the file system of the store, when last measured; None: not known."""
        return self._space.bytes

    @property
    def is_measured(self) -> bool:
        """Whether the free space was just measured; from any thread."""
        return self._space.is_measured

    # writing

    def prepare(self, commit: Commit[Any]) -> Prepared:
        """Encode a commit: all the work that needs no disk, unless the clock was set back.

        The next `write` must be given what this returns. Raises StoreFailedError.
        """
        if not commit.payloads:
            return Prepared(None, 0, self.last_time, commit.sync)
        self._clock.follow(commit.time, commit.since)
        if commit.timestamps[0] < self.last_time:
            self._go_back(commit)
        time, active = commit.timestamps[-1], self._files.active
        frame = encode(
            commit.payloads,
            commit.timestamps,
            labels=commit.labels,
            keys=commit.keys,
            owes_sync=commit.sync,
            first_sequence=self.next_sequence,
            time=time,
            watermark=self.synced_sequence,
            link=active.contents.link,
            seed=active.seed,
        )
        return Prepared(frame, len(commit.payloads), time, commit.sync)

    def write(self, prepared: Prepared) -> CommitResult:
        """Write a commit, synced if it owes that. Raises StoreFullError or StoreFailedError."""
        self._files.refuse_if_failed()
        if prepared.frame is not None:
            try:
                self._append(prepared.frame, prepared.records, prepared.time, durable=prepared.sync)
            except StoreFullError as full:
                self._append_again(prepared.frame, prepared, full)
            if self._is_refused:
                self._is_refused = False
                self.troubles.end("space")
        if prepared.sync:
            self._sync()
        self._files.check_place()
        return self.result()

    def _go_back(self, commit: Commit[Any]) -> None:
        """Level the times of a commit before which the clock was set back, or roll.

        Within a segment times never decrease: a small step is levelled, and with a large one the
        next segment begins, if that may be now; if not, it is levelled, too, until it may be.
        """
        self._files.refuse_if_failed()
        contents = self._files.active.contents
        is_far = self.last_time - commit.timestamps[0] > _LEVELLED_MAX
        if is_far and not contents.last_time and commit.time < self.last_time:
            # nothing is in the segment, and when it was created does not count
            return
        may_roll = is_far and contents.next_sequence > self._files.active.header.first_sequence
        if may_roll and self._roller.turn(partial(self._roll, commit.timestamps[0])):
            return
        commit.level(self.last_time)

    def _append_again(self, frame: Encoded, prepared: Prepared, full: StoreFullError) -> None:
        """Delete what the retention does not keep, and write once more if that freed some space.

        Called when there was no space.
        """
        try:
            if not self._keeper.make_room():
                raise full
            self._append(frame, prepared.records, prepared.time, durable=prepared.sync)
        except StoreFullError as still:
            self._is_refused = True
            self.troubles.begin("space", f"the last commit was refused: {still.reason}")
            raise

    def mark(self) -> None:
        """Write an empty frame whose watermark proves everything that stands before it.

        Without space for it nothing is lost but the proof. Raises StoreFailedError.
        """
        active = self._files.active
        # 0 before the first record: it is not known what time that will have
        time = active.contents.last_time
        frame = mark(
            first_sequence=self.next_sequence,
            time=time,
            watermark=self.synced_sequence,
            link=active.contents.link,
            seed=active.seed,
        )
        with suppress(StoreFullError):
            self._append(frame, 0, time, durable=False)
            self._marked = True

    def result(self) -> CommitResult:
        return CommitResult(self.next_sequence, self.synced_sequence, self.syncs)

    def _append(self, frame: Encoded, count: int, time: int, *, durable: bool) -> None:
        self._files.check_size()  # what stands behind a hole is not found again
        try:
            self._files.active.append(frame, self.next_sequence, count, time, durable=durable)
        except OSError as error:
            if not is_no_space(error):
                raise self.fail("writing a commit", error) from error
            self._cut_back()
            reason = error.strerror or "no space"
            raise StoreFullError(self.path, self.next_sequence, reason) from error
        except OutcomeUnknown as unknown:
            raise self.fail(unknown.doing, unknown.error) from unknown.error
        self.next_sequence += count
        if count:
            self.aging.written()
        self.last_time = time or self.last_time
        self._marked = False
        if durable and not self._files.active.dirty:
            self._synced(self._files.active)

    def _sync(self) -> None:
        if self._files.active.dirty:
            self._secure(self._files.active.sync)
        self.synced_sequence = self.next_sequence

    def _cut_back(self) -> None:
        self._secure(self._files.active.cut_back)
        self.synced_sequence = self.next_sequence

    def _secure(self, step: Callable[[], None]) -> None:
        try:
            step()
        except OutcomeUnknown as unknown:
            raise self.fail(unknown.doing, unknown.error) from unknown.error
        self._synced(self._files.active)

    def _synced(self, segment: SegmentWriter) -> None:
        self.syncs += 1
        self.latency.synced(segment.sync_time, monotonic_ns())

    # between two commits

    def maintain(self) -> None:
        """Roll when the segment is full, or prepare that soon before. Raise StoreFailedError."""
        if self.failure is None:
            self._roller.attempt(self._follow_up)
        self.retain()
        if self.latency.since >= self._space.measure_at:
            self.measure()

    def _follow_up(self) -> bool:
        """Prepare or begin the next segment, if it is time for that."""
        active, most = self._files.active, self._max_segment_bytes
        contents = active.contents
        is_over = contents.end >= most or self.aging.has_to_roll
        if is_over and contents.next_sequence > active.header.first_sequence:
            return self._roll(self.last_time)
        return active.nears(most) and self._roller.prepare()

    def roll(self) -> bool:
        """Begin the next segment now, unless nothing is in this one.

        Return False when it cannot be made just now: this one grows, and it is tried again later.
        Raises StoreFailedError.
        """
        self._files.refuse_if_failed()
        active = self._files.active
        is_empty = active.contents.next_sequence == active.header.first_sequence
        return is_empty or self._roller.attempt(partial(self._roll, self.last_time))

    def _roll(self, created: int) -> bool:
        """Begin the next segment: see `Roller.roll`."""
        self._synced(self._roller.roll(self.next_sequence, created))
        self.synced_sequence = self.next_sequence
        self.last_time = created
        self._marked = False
        self._keeper.expect()
        return True

    def grow_older(self) -> CommitResult:
        """Do what is due by itself: see `Aging`. Raises StoreFailedError."""
        self.maintain()
        return self.result()

    def measure(self) -> None:
        """Measure the free space, keep the reserves for a full disk, and check the files.

        Raises StoreFailedError.
        """
        if self.failure is None:
            self._space.measure()
            self._files.check_place()
            self._files.check_size()

    def keep_reserves(self) -> None:
        """Reserve the space that purges and holds need when the disk is full: see `FreeSpace`."""
        self._space.keep_reserves()

    def look_at_clock(self) -> None:
        """Update whether the system clock is in doubt; from any thread."""
        self._clock.look()

    # what stays and what goes: see `Keeper`

    def purge(
        self, *, before: int | None = None, before_time: int | None = None, dry_run: bool = False
    ) -> Purged | None:
        """Drop the oldest segments; None when another process sets a hold: try again."""
        return self._keeper.purge(before=before, before_time=before_time, dry_run=dry_run)

    def retain(self) -> None:
        """Drop the segments that the retention no longer keeps. Raises StoreFailedError."""
        self._keeper.retain()

    def delete_dropped(self) -> bool:
        """Delete the files of one dropped segment; False when none can be deleted now."""
        return self._keeper.delete_dropped()

    def set_hold(self, name: str, sequence: int) -> bool:
        """Keep everything from this sequence on; False when another process sets a hold."""
        return self._keeper.set_hold(name, sequence)

    def remove_hold(self, name: str) -> bool:
        """Remove a hold, and return whether there was one."""
        return self._keeper.remove_hold(name)

    def holds(self) -> dict[str, int]:
        """Return all holds by their names; may be called from any thread."""
        return self._keeper.holds()

    def resized(self, first_sequence: int, size: int) -> None:
        """Take note of the size of a segment that was compressed."""
        self._files.sealed.resized(first_sequence, size)

    # the end

    def close(self) -> CommitResult:
        """Sync everything, prove it with a mark, and close the file. Raises StoreFailedError."""
        try:
            self._files.refuse_if_failed()
            self._files.check_place(whole=True)
            self._roller.drop_spare()
            self._sync()
            if not self._marked:
                self.mark()
                self._cut_back()
            self._files.note_end(self.synced_sequence)
            if self.generations is not None:
                self.generations.close(self.next_sequence)
            self._space.renew_reserves()
            return self.result()
        finally:
            self.drop()

    def drop(self) -> None:
        """Close the files and write nothing: for an opening whose caller was cancelled."""
        self._files.active.close()
        self._roller.close()

    def fail(self, doing: str, error: Exception) -> StoreFailedError:
        """Poison the journal; return the error that callers get: see `LogFiles`."""
        return self._files.fail(doing, error)
