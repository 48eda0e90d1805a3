"""The directory of the log: writes commits, rolls from segment to segment, purges, closes. Blocking; one thread owns it.

This is the engine's far side. A commit goes in, a `Landing` comes out ("so far the log reaches, so far it is synced"), or
an error of the tree. Every failure is decided on here:

* no space while writing: the commit is cut back to its start, StoreFullError, and life goes on;
* anything else, or a failed sync: the journal is poisoned and never touches its files again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from logging import getLogger
from time import monotonic_ns, time_ns
from typing import Any, NamedTuple

from aquipu.bookmark import alone, list_bookmarks, remove_bookmark, set_hold
from aquipu.commit import Commit, Landing
from aquipu.disk import Disk, explained, is_no_space
from aquipu.durable import OutcomeUnknown, sync_directory
from aquipu.errors import AquipuError, StoreFailedError, StoreFullError, twin
from aquipu.frame import Encoded, encode
from aquipu.layout import BookmarkKind, Index, Manifest, SegmentHeader, segment_name
from aquipu.manifest import write_manifest
from aquipu.purge import Past, Purged
from aquipu.retention import Retention, Sealed, kept_from, kept_from_sequence, kept_from_time
from aquipu.segment import Segment, Spare
from aquipu.tally import SECOND, Latency

_log = getLogger(__name__)

_MEASURE_EVERY = SECOND  # how much space is left, at most


class Extent(NamedTuple):
    """One segment as readers see it."""

    first_sequence: int
    path: str
    header: SegmentHeader
    growing: Index | None
    """The index of the segment that is being written; None for a sealed one, whose footer holds it."""


class Prepared(NamedTuple):
    """A commit as bytes, ready for the system calls."""

    frame: Encoded | None
    """None for a commit without records: only a sync."""
    records: int
    time: int
    sync: bool


class Journal:
    """The log as files. `recovery.recover` makes one; `catalogue` may be read from any thread."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        manifest: Manifest,
        sealed: list[Extent],
        active: Segment,
        *,
        synced_sequence: int,
        max_segment_bytes: int,
        marked: bool,
        past: Past | None = None,
        retention: Retention | None = None,
    ) -> None:
        self.path = path
        self.next_sequence = active.contents.next_sequence
        self.synced_sequence = synced_sequence
        self.syncs = 0
        # a segment that follows another, purged or not, was created at the time of the last commit before it
        self.last_time = active.contents.last_time or (active.header.created if active.header.first_sequence else 0)
        self.failure: StoreFailedError | None = None
        self.latency = Latency()
        self.free_bytes: int | None = None
        """On the file system of the store, when it was last measured; None where the system does not tell."""
        self.catalogue: tuple[Extent, ...] = (*sealed, _extent(active))
        self._disk = disk
        self._manifest = manifest
        self._active = active
        self._spare: Spare | None = None  # for the segment behind it
        self._max_segment_bytes = max_segment_bytes
        self._marked = marked  # the last frame is a mark: its watermark proves all that stands before it
        self._past = past or Past(disk, path, [])
        self._retention = retention
        self._retention_due = retention is not None
        self._measure_at = 0

    def prepare(self, commit: Commit[Any]) -> Prepared:
        """Encode a commit: all the work that needs no disk. The next `write` must be of what this gave."""
        if not commit.payloads:
            return Prepared(None, 0, self.last_time, commit.sync)
        time = commit.timestamps[-1]
        frame = encode(
            commit.payloads,
            commit.timestamps,
            labels=commit.labels,
            keys=commit.keys,
            owes_sync=commit.sync,
            first_sequence=self.next_sequence,
            time=time,
            watermark=self.synced_sequence,
            link=self._active.contents.link,
            seed=self._active.seed,
        )
        return Prepared(frame, len(commit.payloads), time, commit.sync)

    def write(self, prepared: Prepared) -> Landing:
        """Write a commit, and sync it if it owes that. Raises StoreFullError or StoreFailedError."""
        self._refuse_if_failed()
        if prepared.frame is not None:
            self._append(prepared.frame, prepared.records, prepared.time, durable=prepared.sync)
        if prepared.sync:
            self._sync()
        return self.landing()

    @property
    def is_unsynced(self) -> bool:
        """Whether something waits for a sync, and can still have one."""
        return self.synced_sequence < self.next_sequence and self.failure is None

    def tidy(self) -> None:
        """Between commits: roll when the segment is full, prepare that when it nearly is. Raises StoreFailedError."""
        if self.failure is None:
            try:
                if self._active.contents.end >= self._max_segment_bytes:
                    self._roll()
                elif self._active.nears(self._max_segment_bytes):
                    self._prepare()
            except OSError as error:
                if not is_no_space(error):
                    raise self.fail("rolling to a new segment", error) from error
            except OutcomeUnknown as unknown:
                raise self.fail(unknown.doing, unknown.error) from unknown.error
        self.retain()
        if self.latency.since >= self._measure_at:
            self.measure()

    def measure(self) -> None:
        """See how much space is left."""
        if self.failure is not None:
            return
        self._measure_at = monotonic_ns() + _MEASURE_EVERY
        try:
            self.free_bytes = self._disk.free(self.path)
        except OSError:
            self.free_bytes = None

    @property
    def is_measured(self) -> bool:
        """Whether the space that is left was just measured; from any thread."""
        return monotonic_ns() < self._measure_at

    @property
    def disk_bytes(self) -> int:
        """Of the segment files; from any thread."""
        return self._past.bytes + self._active.size

    def close(self) -> Landing:
        """Sync everything, prove it with a mark, and let go of the file. Raises StoreFailedError."""
        try:
            self._refuse_if_failed()
            self._drop_spare()
            self._sync()
            if not self._marked:
                self.mark()
                self._cut_back()
            self._note_end()
            return self.landing()
        finally:
            self.drop()

    def _note_end(self) -> None:
        """Write into the manifest how far the log reaches. Without space for it, nothing is lost but that proof."""
        if self._manifest.synced_sequence == self.synced_sequence:
            return
        self._manifest = self._manifest._replace(synced_sequence=self.synced_sequence)
        try:
            write_manifest(self._disk, self.path, self._manifest)
        except OutcomeUnknown as unknown:
            raise self.fail(unknown.doing, unknown.error) from unknown.error
        except OSError as error:
            if not is_no_space(error):
                raise self.fail("writing the manifest", error) from error

    def drop(self) -> None:
        """Let go of the files and write nothing: for an opening that nobody waits for any more."""
        self._active.close()
        if self._spare is not None:
            self._spare.close()

    def mark(self) -> None:
        """Write an empty frame whose watermark proves everything that stands before it.

        Without space for it nothing is lost but the proof. Raises StoreFailedError.
        """
        frame = encode(
            (),
            (),
            first_sequence=self.next_sequence,
            time=self.last_time,
            watermark=self.synced_sequence,
            link=self._active.contents.link,
            seed=self._active.seed,
        )
        with suppress(StoreFullError):
            self._append(frame, 0, self.last_time, durable=False)
            self._marked = True

    def landing(self) -> Landing:
        return Landing(self.next_sequence, self.synced_sequence, self.syncs)

    def _append(self, frame: Encoded, count: int, time: int, *, durable: bool) -> None:
        try:
            self._active.append(frame, self.next_sequence, count, time, durable=durable)
        except OSError as error:
            if not is_no_space(error):
                raise self.fail("writing a commit", error) from error
            self._cut_back()
            raise StoreFullError(self.path, self.next_sequence, error.strerror or "no space") from error
        except OutcomeUnknown as unknown:
            raise self.fail(unknown.doing, unknown.error) from unknown.error
        self.next_sequence += count
        self.last_time = time
        self._marked = False
        if durable and not self._active.dirty:
            self._synced()

    def _sync(self) -> None:
        if self._active.dirty:
            try:
                self._active.sync()
            except OutcomeUnknown as unknown:
                raise self.fail(unknown.doing, unknown.error) from unknown.error
            self._synced()
        self.synced_sequence = self.next_sequence

    def _synced(self) -> None:
        self.syncs += 1
        self.latency.synced(self._active.sync_time, monotonic_ns())

    def _cut_back(self) -> None:
        try:
            self._active.cut_back()
        except OutcomeUnknown as unknown:
            raise self.fail(unknown.doing, unknown.error) from unknown.error
        self._synced()
        self.synced_sequence = self.next_sequence

    def _prepare(self) -> None:
        """Make the file of the next segment, one step after a commit: none shall wait for all of them."""
        if self._spare is None:
            self._spare = Spare.prepared(self._disk, self._active.path)
        elif self._spare.dirty:
            self._spare.sync()

    def _drop_spare(self) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            with suppress(OSError):  # it is in nobody's way: the next opening removes it
                spare.drop()

    def _roll(self) -> None:
        """The successor first, durably, then the seal: see the promises in `layout`. Without space for both, later."""
        old = self._active
        old.trim()
        header = SegmentHeader(old.header.store_id, self.next_sequence, self.last_time, old.contents.link)
        spare, self._spare = self._spare, None
        successor = Segment.create(self._disk, f"{self.path}/{segment_name(self.next_sequence)}", header, spare)
        try:
            size = old.seal()
        except OSError as error:
            self._unroll(successor)
            raise error
        except OutcomeUnknown:
            successor.close()
            raise
        self._synced()
        self.synced_sequence = self.next_sequence
        old.close()
        self._active = successor
        self._marked = False
        sealed = self.catalogue[-1]._replace(growing=None)
        self.catalogue = (*self.catalogue[:-1], sealed, _extent(successor))
        self._past.add(Sealed(old.header.first_sequence, self.next_sequence, size, old.contents.last_time))
        self._retention_due = self._retention is not None

    def _unroll(self, successor: Segment) -> None:
        """There was no space to seal: go on in the segment at hand, and have no successor that it would outgrow."""
        try:
            successor.close()
            self._disk.remove(successor.path)
        except OSError as error:
            raise OutcomeUnknown("removing an unused segment", error) from error
        sync_directory(self._disk, self.path)
        self._active.cut_back()

    # letting go of the past

    def purge(self, *, before: int | None = None, before_time: int | None = None, dry_run: bool = False) -> Purged | None:
        """Let go of the whole sealed segments before a sequence, or of which every record is older than a time; their
        files go with `sweep`. None when somebody sets a hold at this moment: try again.

        Raises CorruptionError or UnsupportedFormatError for a hold that does not check, StoreUnavailableError,
        StoreFullError (nothing was changed) or StoreFailedError.
        """
        sealed, active = self._past.sealed, self._active.header.first_sequence
        if before is not None:
            return self._let_go(partial(kept_from_sequence, sealed, active, before), dry_run=dry_run)
        assert before_time is not None, "before a sequence or a time"
        return self._let_go(partial(kept_from_time, sealed, active, before_time), dry_run=dry_run)

    def retain(self) -> None:
        """Let go of what the retention no longer keeps: after opening and after each roll. Raises StoreFailedError."""
        if self._retention is None or not self._retention_due or self.failure is not None:
            return
        active = (self._active.header.first_sequence, self._active.contents.end)
        try:
            purged = self._let_go(partial(kept_from, self._past.sealed, *active, self._retention, time_ns()))
            self._retention_due = purged is None
        except StoreFailedError:
            raise
        except AquipuError as error:
            self._retention_due = False
            _log.warning("%s: the retention keeps everything until the next segment begins: %s", self.path, error)

    def sweep(self) -> bool:
        """Remove the files of one segment that was let go of; False when there is none, or none that can go now."""
        return self.failure is None and self._past.sweep()

    def set_hold(self, name: str, sequence: int) -> bool:
        """Keep everything from this sequence on; False when somebody else sets a hold at this moment: try again.

        Raises RecordPurgedError, StoreUnavailableError, StoreFullError (nothing was changed) or StoreFailedError.
        """
        self._refuse_if_failed()
        with explained(self.path, "set a hold in"), self._changing():
            return set_hold(self._disk, self.path, name, sequence)

    def remove_hold(self, name: str) -> bool:
        """Whether there was one. Raises StoreUnavailableError or StoreFailedError."""
        self._refuse_if_failed()
        with explained(self.path, "remove a hold from"), self._changing():
            return remove_bookmark(self._disk, self.path, BookmarkKind.HOLD, name)

    def holds(self) -> dict[str, int]:
        """All of them; may be called from any thread. Raises CorruptionError or UnsupportedFormatError."""
        with explained(self.path, "read the holds of"):
            return list_bookmarks(self._disk, self.path, self._manifest.store_id, BookmarkKind.HOLD)

    def _let_go(self, decide: Callable[[Iterable[int]], int], *, dry_run: bool = False) -> Purged | None:
        """Decide with the holds at hand, durably; nobody sets one meanwhile. None when somebody is at it."""
        self._refuse_if_failed()
        with explained(self.path, "purge"), alone(self._disk, self.path) as is_alone:
            if not is_alone:
                return None
            purged = self._past.before(self._manifest.first_sequence, decide(self.holds().values()))
            if not dry_run:
                if purged.segments:
                    self._begin_at(purged.first_sequence)
                self._past.try_again()
            return purged

    def _begin_at(self, first_sequence: int) -> None:
        """The manifest first: no file goes before it says so durably."""
        manifest = self._manifest._replace(first_sequence=first_sequence)
        try:
            with self._changing():
                write_manifest(self._disk, self.path, manifest)
        except OSError as error:
            raise self.fail("writing the manifest", error) from error
        self._manifest = manifest
        self.catalogue = tuple(extent for extent in self.catalogue if extent.first_sequence >= first_sequence)
        self._past.let_go(first_sequence)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Replace or remove a small file: what no space and a failed sync mean for that. Any other OSError passes."""
        try:
            yield
        except OSError as error:
            if not is_no_space(error):
                raise
            raise StoreFullError(self.path, None, error.strerror or "no space") from error
        except OutcomeUnknown as unknown:
            raise self.fail(unknown.doing, unknown.error) from unknown.error

    def fail(self, doing: str, error: Exception) -> StoreFailedError:
        """Poison the journal: from here on it refuses everything and touches no file. Gives back what callers are told."""
        if self.failure is None:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self.failure = StoreFailedError(self.path, f"{doing}: {reason}")
            self.failure.__cause__ = error
        return twin(self.failure)

    def _refuse_if_failed(self) -> None:
        if self.failure is not None:
            raise twin(self.failure)


def _extent(segment: Segment) -> Extent:
    return Extent(segment.header.first_sequence, segment.path, segment.header, segment.contents.index)
