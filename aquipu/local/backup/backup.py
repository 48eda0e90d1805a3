"""The making of a backup: what `plan` has decided is done here, in order. Blocking.

`aquipu.local.backup` says why in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event
from typing import BinaryIO, NamedTuple

from aquipu.errors import BackupRefusedError, StoreUnavailableError
from aquipu.local.backup.destination import Destination, check_apart
from aquipu.local.backup.pace import Pace, Stopped
from aquipu.local.backup.plan import (
    Copied,
    Ended,
    Held,
    Plan,
    Refused,
    apart,
    plan,
    unlike,
)
from aquipu.local.backup.segment_copy import Copier, Moved
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import reported, sync_directory
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.frame import HEADER_BYTES, header_at
from aquipu.local.format.names import UNNAMED, relations_name, segment_name
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, seed_of
from aquipu.local.read.frames import SegmentEnd
from aquipu.local.read.held_segment import hold
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.retain.bookmarks import encoded_bookmarks, write_encoded
from aquipu.local.retain.history import read_history
from aquipu.record import Backup


class Overtaken(Exception):
    """A purge was quicker than the backup could hold what it is to copy: look again."""


class Wish(NamedTuple):
    """What was asked for."""

    path: str
    """The directory of the backup, absolute."""
    link: bool
    """Whether sealed segments are linked in place of copied."""
    bookmarks: bool
    """Whether the holds and cursors come along."""


class Making:
    """One backup, on a thread; others may set ``stop``."""

    def __init__(
        self, disk: Disk, store: str, wish: Wish, progress: Callable[[], int], stop: Event
    ) -> None:
        """Prepare it; ``progress`` says from any thread how far the log has come."""
        self._disk = disk
        self._store = store
        self._wish = wish
        self._progress = progress
        self._stop = stop
        self._bookmarks: dict[str, bytes] = {}
        self._moved = Moved(0, 0)

    def prepare(self) -> None:
        """Check the place, and read the holds and cursors.

        That comes before it is known how far the log reaches: so no cursor lies beyond the end of
        the backup.
        """
        check_apart(self._store, self._wish.path)
        disk, store = self._disk, self._store
        if not self._wish.bookmarks:
            return
        with translate_os_errors(store, "read the holds and cursors of"):
            self._bookmarks = encoded_bookmarks(disk, store)

    def carry_out(self, view: Snapshot) -> Backup:
        """Copy what may be seen now, all of it synced.

        Raises Overtaken, Stopped, and what `Store.backup` raises.
        """
        store_id, path = view.segments[0].header.store_id, self._wish.path
        with reported(path, "back up to"):
            to = Destination(self._disk, path, store_id, self._check)
            try:
                return self._carry_out(view, to)
            finally:
                to.close()

    def _carry_out(self, view: Snapshot, to: Destination) -> Backup:
        with _purges_noticed():
            here = {segment.first_sequence: self._held(view, segment) for segment in view.segments}
        decided = self._decided(to, here)
        segments = {segment.first_sequence: segment for segment in view.segments}
        oldest = decided.copied[0].segment.first_sequence
        with _Hold(self._disk, segments[oldest]) as held:
            self._check_needs(to, segments, decided)
            sealed = self._end_of(to, decided.ended)
            self._begin(to, segments, decided)
            if decided.ended is not None and sealed is not None:
                self._seal(to, decided.ended, sealed, segments)
            self._copy_segments(to, segments, decided, held, view.stop)
            self._copy_tables(to, segments)
        write_encoded(self._disk, to.path, self._bookmarks)
        end = max(here[view.segments[-1].first_sequence].next_sequence, view.stop)
        to.finish(end)
        return Backup(to.path, decided.first_sequence, end, len(decided.copied), *self._moved)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    # what is to be done

    def _held(self, view: Snapshot, segment: SegmentRef) -> Held:
        first, link = segment.first_sequence, segment.header.link
        if segment.growing is not None:
            return Held(first, max(view.stop, first), link, 0, is_sealed=False)
        with translate_os_errors(segment.path, "read"), segment.open(self._disk) as reader:
            footer = reader.footer()
        return Held(first, footer.next_sequence, link, footer.link, is_sealed=True)

    def _decided(self, to: Destination, here: dict[int, Held]) -> Plan:
        kept_from = None if to.manifest is None else to.manifest.first_sequence
        try:
            return plan(list(here.values()), to.held(here), kept_from)
        except Refused as refused:
            raise BackupRefusedError(to.path, str(refused)) from None

    def _check_needs(self, to: Destination, segments: dict[int, SegmentRef], decided: Plan) -> None:
        """Refuse unless the store has the last frames that the backup has, where they stand."""
        for one in decided.copied:
            first = one.segment.first_sequence
            if one.needs is not None and not self._stands(to, segments[first], one.needs):
                raise BackupRefusedError(self._wish.path, apart(first))

    def _end_of(self, to: Destination, ended: Ended | None) -> SegmentEnd | None:
        """Return how that ended which is to be sealed in the backup itself, if there is any."""
        end = None if ended is None else to.end_of(ended)
        if ended is not None and end is None:
            raise BackupRefusedError(self._wish.path, unlike(ended.first_sequence))
        return end

    def _stands(self, to: Destination, segment: SegmentRef, needed: Held) -> bool:
        assert needed.last is not None, "that is what is needed"
        offset, check = needed.last
        with (
            to.opened(needed.first_sequence) as ours,
            translate_os_errors(segment.path, "read"),
            segment.open(self._disk) as reader,
        ):
            if reader.plain_bytes or ours.plain_bytes:  # one was compressed: its frames are others
                sequence = needed.next_sequence - 1
                there, here = (
                    one.frame_holding(sequence, (needed.first_sequence, SEGMENT_HEADER_BYTES))
                    for one in (reader, ours)
                )
                return there.record(sequence) == here.record(sequence)
            piece = self._disk.read(reader.descriptor, HEADER_BYTES, offset)
        found = header_at(piece, 0, segment.header.seed)
        return found is not None and found.check == check

    # doing it

    def _begin(self, to: Destination, segments: dict[int, SegmentRef], decided: Plan) -> None:
        some = next(iter(segments.values()))
        with translate_os_errors(self._store, "read the history of"):
            history = read_history(self._disk, self._store, some.header.store_id)
        to.disown(history)
        for number in decided.removed:
            self._disk.remove(f"{to.path}/{segment_name(number)}")
        if to.manifest is None:
            to.begin(segments[decided.first_sequence].header)

    def _seal(
        self,
        to: Destination,
        ended: Ended,
        end: SegmentEnd,
        segments: dict[int, SegmentRef],
    ) -> None:
        """Seal a segment of the backup as the store did, which has purged it since."""
        successor, first = segments[ended.next_sequence].header, ended.first_sequence
        to.name_empty(successor)
        path = f"{to.path}/{segment_name(first)}"
        copier = Copier(self._disk, to.path, Pace(self._progress, self._stop))
        with self._made(path) as made:
            self._count(copier.copy(path, made))
            copier.seal(made, end, seed_of(successor.store_id, first))

    def _copy_segments(
        self,
        to: Destination,
        segments: dict[int, SegmentRef],
        decided: Plan,
        held: _Hold,
        stop: int,
    ) -> None:
        copier = Copier(self._disk, to.path, Pace(self._progress, self._stop))
        for one in reversed(decided.copied) if self._wish.link else decided.copied:
            segment = segments[one.segment.first_sequence]
            if not self._wish.link:
                held.move_to(segment)
                if one.successor is not None:
                    to.name_empty(segments[one.successor].header)
            self._copy(copier, to, one, segment, stop)

    def _copy(
        self, copier: Copier, to: Destination, one: Copied, segment: SegmentRef, stop: int
    ) -> None:
        path = f"{to.path}/{segment_name(segment.first_sequence)}"
        with self._made(path) as made:
            if self._wish.link and one.may_link:
                self._count(copier.link(segment.path, made))
            else:
                share = one.segment.is_sealed
                self._count(copier.copy(segment.path, made, share=share))
            if one.segment.is_sealed:
                copier.check_sealed(segment, made)
            else:
                copier.cut_and_check(segment, made, stop)

    def _copy_tables(self, to: Destination, segments: dict[int, SegmentRef]) -> None:
        """Copy the label indexes that are there; one that is missing is built again."""
        names = set(self._disk.list(self._store)) - to.names()
        copier = Copier(self._disk, to.path, Pace(self._progress, self._stop))
        for first, segment in segments.items():
            name = relations_name(first)
            if name in names and segment.growing is None:
                with (
                    suppress(Overtaken),
                    _purges_noticed(),
                    self._made(f"{to.path}/{name}") as made,
                ):
                    self._count(copier.copy(f"{self._store}/{name}", made))

    @contextmanager
    def _made(self, path: str) -> Iterator[str]:
        """Give the name of a file in the making, which then gets its own, durably."""
        made = path + UNNAMED
        try:
            yield made
            self._disk.rename(made, path)
            sync_directory(self._disk, path.rpartition("/")[0])
        except BaseException:
            with suppress(OSError):  # it would keep the last space that there is
                self._disk.remove(made)
            raise

    def _count(self, moved: Moved) -> None:
        self._moved = Moved(self._moved.copied + moved.copied, self._moved.shared + moved.shared)


class _Hold:
    """Keeps a segment, and all behind it, from being removed by a purge."""

    def __init__(self, disk: Disk, segment: SegmentRef) -> None:
        """Hold this one. Raises Overtaken when it was purged."""
        self._disk = disk
        self._file = self._held(segment)

    def _held(self, segment: SegmentRef) -> BinaryIO:
        with _purges_noticed():
            return hold(self._disk, segment)

    def move_to(self, segment: SegmentRef) -> None:
        """Hold this one, which is newer, in its place."""
        file = self._held(segment)
        self._file.close()
        self._file = file

    def __enter__(self) -> _Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def _purges_noticed() -> Iterator[None]:
    """Turn the error of reading a file that is gone into Overtaken."""
    try:
        yield
    except StoreUnavailableError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        raise Overtaken from None
