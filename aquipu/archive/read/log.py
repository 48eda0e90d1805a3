"""What an archive holds now, as a snapshot of a log. Blocking; several threads may look at once."""

from __future__ import annotations

from threading import Lock

from aquipu.archive.archive import Archive
from aquipu.archive.fetch import State, read_piece, read_state
from aquipu.archive.format.entry import Piece, Segment
from aquipu.archive.format.keys import entry_key
from aquipu.archive.format.pieces import sealed, summary_of
from aquipu.archive.line import KEPT_SECONDS, Moment
from aquipu.archive.read.files import InBucket, ObjectDisk
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
        self._pieces: dict[int, bytes] = {}
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
                    self._state, self.view = self.disk.ask(self._found)
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
                young, data = self._active(self._state)
                return sealed(self.path, young, data, first, header.link) is not None
        ends = (one.link for one in segments if one.next_sequence == first)
        return next(ends, header.link) == header.link

    def _found(self) -> tuple[State, Snapshot]:
        """Read what it holds now; after Outdated, this is to be called again."""
        state = read_state(self.disk.bucket)
        return state, self._view(state)

    def _view(self, state: State) -> Snapshot:
        head, path = state.head, self.path
        files: dict[str, InBucket | bytes] = {}
        refs = [self._named(files, head.store_id, segment) for segment in state.segments]
        header, data = self._active(state)
        name = f"{path}/{segment_name(header.first_sequence)}"
        files[name] = data
        index = Index.empty()
        if head.young:
            index = summary_of(name, header, data).index
        self.disk.files = files  # what is open already stays
        active = SegmentRef(header.first_sequence, name, header, index)
        return Snapshot(self.disk, (*refs, active), head.first_sequence, head.next_sequence)

    def _named(
        self, files: dict[str, InBucket | bytes], store_id: bytes, segment: Segment
    ) -> SegmentRef:
        first = segment.first_sequence
        path = f"{self.path}/{segment_name(first)}"
        files[path] = InBucket(str(segment.key(store_id)), segment.stored)
        table = segment.table_key(store_id)
        if table is not None:
            files[f"{self.path}/{relations_name(first)}"] = InBucket(str(table), segment.table_size)
        times = segment.first_time, segment.last_time
        return SegmentRef(first, path, segment.header(store_id), None, times)

    def _active(self, state: State) -> tuple[SegmentHeader, bytes]:
        """Return the header and the bytes of the segment that was being written."""
        head, segments = state
        if head.young:
            self._pieces = {piece.number: self._piece(piece) for piece in head.young}
            return head.header(), head.active + b"".join(self._pieces.values())
        self._pieces = {}
        if segments:
            header = successor_of(segments[-1], head.store_id)
        else:
            header = SegmentHeader(head.store_id, head.base, 0, 0)
            header = header._replace(link=header.seed)
        return header, header.encode()

    def _piece(self, piece: Piece) -> bytes:
        known = self._pieces.get(piece.number)
        if known is not None:
            return known
        return read_piece(self.disk.bucket, piece)


def opened(archive: Archive) -> ArchivedLog:
    """Open an archive. Raises NoArchiveError, and what `look` raises."""
    return ArchivedLog(ObjectDisk(archive.bucket()))
