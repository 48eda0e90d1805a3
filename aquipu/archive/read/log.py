"""What an archive holds now, as a snapshot of a log. Blocking; several threads may look at once."""

from __future__ import annotations

from threading import Lock
from time import monotonic

from aquipu.archive.archive import Archive
from aquipu.archive.format.entry import Piece, Segment
from aquipu.archive.format.keys import entry_key
from aquipu.archive.format.pieces import summary_of
from aquipu.archive.line import State, read_piece, read_state
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
        self._looked = 0.0
        self._pieces: dict[int, bytes] = {}
        self._state = disk.ask(lambda: read_state(disk.bucket))
        self.view = self._view(self._state)
        self._looked = monotonic()

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
            if monotonic() - self._looked >= LOOK_SECONDS:
                bucket = self.disk.bucket
                following = entry_key(self._state.head.number + 1)
                if self.disk.ask(lambda: bucket.get(following)) is not None:
                    self._state = self.disk.ask(lambda: read_state(bucket))
                    self.view = self._view(self._state)
                self._looked = monotonic()
            return self.view

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
        return self.disk.ask(lambda: read_piece(self.disk.bucket, piece))


def opened(archive: Archive) -> ArchivedLog:
    """Open an archive. Raises NoArchiveError, and what `look` raises."""
    return ArchivedLog(ObjectDisk(archive.bucket()))
