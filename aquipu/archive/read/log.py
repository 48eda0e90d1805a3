"""What an archive holds now, as a snapshot of a log. Blocking; several threads may look at once."""

from __future__ import annotations

from threading import Lock
from typing import NamedTuple

from aquipu.archive.archive import Archive
from aquipu.archive.fetch import State, read_state
from aquipu.archive.format.entry import Segment
from aquipu.archive.format.keys import entry_key
from aquipu.archive.format.pieces import sealed
from aquipu.archive.line import KEPT_SECONDS, Moment
from aquipu.archive.read.files import InBucket, InParts, ObjectDisk
from aquipu.archive.read.young import YoungParts
from aquipu.archive.restore import successor_of
from aquipu.local.format.history import History
from aquipu.local.format.names import relations_name, segment_name
from aquipu.local.format.segment import Index, SegmentHeader
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.read.snapshot import Snapshot

LOOK_SECONDS = 1.0
"""Between two looks whether there is more; an archive is about as far behind its log."""


class ArchivedLog:
    """The log that an archive holds."""

    def __init__(self, disk: ObjectDisk) -> None:
        """Look once. Raises what `look` raises."""
        self.disk = disk
        self.path = disk.bucket.url
        self._lock = Lock()
        self._young = YoungParts(disk.bucket)
        self._listed: _Listed | None = None
        self._looked = Moment.now()
        self._state, self.view = disk.ask(self._found)

    @property
    def store_id(self) -> bytes:
        """Which store it is."""
        return self._state.head.store_id

    @property
    def history(self) -> History | None:
        """The generations of the store, as far as they are known."""
        return self._state.head.history()

    def look(self) -> Snapshot:
        """Return what it holds, as it was a second ago at most.

        Raises ArchiveDamagedError, ArchiveUnavailableError, UnsupportedFormatError, CorruptionError
        and StoreClosedError.
        """
        with self._lock:
            if self._looked.seconds_since() >= LOOK_SECONDS:
                began = Moment.now()
                if self._may_be_more():
                    self._state, self.view = self.disk.ask(lambda: self._found(self._state))
                self._looked = began
            return self.view

    def _may_be_more(self) -> bool:
        """Return whether there is a next entry; or there was one, which may be gone by now."""
        if self._looked.seconds_since() > KEPT_SECONDS / 2:
            return True
        following = entry_key(self._state.head.number + 1)
        return self.disk.ask(lambda: self.disk.bucket.get(following)) is not None

    def goes_before(self, header: SegmentHeader) -> bool:
        """Return whether what is archived ends, before a segment of the log, as the log did.

        Also when that was purged meanwhile. Raises CorruptionError.
        """
        first = header.first_sequence
        with self._lock:
            head, segments = self._state
            if head.young and head.next_sequence == first:
                young, data = self.disk.ask(lambda: self._active(self._state))
                whole = data.read(0, data.size)
                return sealed(self.path, young.header, whole, first, header.link) is not None
        ends = (one.link for one in segments if one.next_sequence == first)
        return next(ends, header.link) == header.link

    def _found(self, known: State | None = None) -> tuple[State, Snapshot]:
        """Read what it holds now; after Outdated, this is to be called again."""
        state = read_state(self.disk.bucket, known)
        return state, self._view(state)

    def _view(self, state: State) -> Snapshot:
        listed = self._listed
        if listed is None or listed.segments is not state.segments:
            listed = self._listed = self._named(state)
        active, data = self._active(state)
        self.disk.files = {**listed.files, active.path: data}  # what is open already stays
        head = state.head
        return Snapshot(self.disk, (*listed.refs, active), head.first_sequence, head.next_sequence)

    def _named(self, state: State) -> _Listed:
        listed = _Listed(state.segments, [], {})
        for segment in state.segments:
            listed.take(self.path, state.head.store_id, segment)
        return listed

    def _active(self, state: State) -> tuple[SegmentRef, InParts]:
        """Return the segment that was being written, and its file."""
        head, header = state.head, _header_of_active(state)
        first = header.first_sequence
        path = f"{self.path}/{segment_name(first)}"
        if head.young:
            data, index = self._young.look(path, head, header)
        else:
            self._young.forget()
            data, index = InParts.of([header.encode()]), Index.empty()
        return SegmentRef(first, path, header, index), data


class _Listed(NamedTuple):
    """The segments of a list, as they are read."""

    segments: list[Segment]
    refs: list[SegmentRef]
    files: dict[str, InBucket | InParts]

    def take(self, path: str, store_id: bytes, segment: Segment) -> None:
        """Add the next segment of the archive that has this path."""
        first = segment.first_sequence
        name = f"{path}/{segment_name(first)}"
        self.files[name] = InBucket(str(segment.key(store_id)), segment.stored)
        table = segment.table_key(store_id)
        if table is not None:
            self.files[f"{path}/{relations_name(first)}"] = InBucket(str(table), segment.table_size)
        times = segment.first_time, segment.last_time
        self.refs.append(SegmentRef(first, name, segment.header(store_id), None, times))


def _header_of_active(state: State) -> SegmentHeader:
    head, segments = state
    if head.young:
        return head.header()
    if segments:
        return successor_of(segments[-1], head.store_id)
    header = SegmentHeader(head.store_id, head.base, 0, 0)
    return header._replace(link=header.seed)


def opened(archive: Archive) -> ArchivedLog:
    """Open an archive. Raises NoArchiveError, and what `look` raises."""
    return ArchivedLog(ObjectDisk(archive.bucket()))
