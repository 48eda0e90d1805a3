"""HeldSegment: the segment that a scan is in, open and held against purges. Blocking."""

from __future__ import annotations

from array import array
from asyncio import Future
from bisect import bisect_left, bisect_right
from errno import ENOENT
from typing import Any, BinaryIO, Protocol

from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.segment import INDEX_STRIDE, SEGMENT_HEADER_BYTES, Index
from aquipu.local.read.segment_reader import SegmentReader, SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.record import Record

CHUNK_BYTES = 256 * 1024
"""Bytes that a scan reads at a time: the loop is free between two chunks."""
_STRIDES_MAX = CHUNK_BYTES // INDEX_STRIDE


class Search(Protocol):
    """Finds which records of a segment are sought, and reads them. Blocking."""

    def found(self, view: Snapshot, segment: SegmentRef, start: int, stop: int) -> array[int]:
        """Return the positions of those from start up to stop, ascending.

        A position is the sequence less the first one of the segment.
        """

    def read(
        self, view: Snapshot, reader: SegmentReader, index: Index, found: array[int]
    ) -> list[Record]:
        """Return the records at these positions, which stand in one stride of the segment."""


class HeldSegment:
    """The segment that a scan is in: its file, and what of it is still to be given."""

    def __init__(
        self, file: BinaryIO, reader: SegmentReader, index: Index, start: int, end: int
    ) -> None:
        # here, because a program that only writes needs none of it
        from aiofiles.threadpool import wrap

        self.segment = reader.ref
        self.file = file
        self.reader = reader
        self.stream: Any = wrap(file)  # the type of what wrap gives is not public
        self.index = index
        self.walk = reader.walk(reader.ref.place_in(index, start))
        self.start = start
        """First sequence that is to be given."""
        self.end = end
        """First sequence that is not to be given any more."""
        self.found = array("I")
        """Positions of the sought records that are still to be read."""
        self.strides = 1
        """Strides that are read at a time, going back: few at first, for the last records alone."""
        file.seek(self.walk.offset)

    @classmethod
    def open(
        cls, view: Snapshot, segment: SegmentRef, start: int, stop: int, search: Search | None
    ) -> HeldSegment:
        """Hold and open a segment of which the records from start up to stop are to be given.

        With ``search``, those of them that are sought.
        """
        file = hold(view.disk, segment)
        reader = SegmentReader(view.disk, segment, file.fileno())
        try:
            with translate_os_errors(segment.path, "read"):
                if search is None:
                    return cls(file, reader, reader.index(), start, stop)
                found = search.found(view, segment, start, stop)
                held = cls(file, reader, reader.index() if found else Index.empty(), start, stop)
                held.found = found
                return held
        except BaseException:
            file.close()
            raise

    def drop(self) -> None:
        """Close the file, which no thread may be reading."""
        self.file.close()

    def drop_after(self, reading: Future[Any]) -> None:
        """Close the file when a read has ended that no caller waits for any more."""
        # else the loop itself has ended, the thread may be in the file, and closes it last
        if not reading.cancelled():
            reading.exception()
            self.drop()

    def step_back(self, stop: int) -> int:
        """Go to where the last strides before this sequence begin; return the sequence there."""
        entry = bisect_left(self.index.sequences, stop) - self.strides
        self.strides = min(2 * self.strides, _STRIDES_MAX)
        place = (self.segment.first_sequence, SEGMENT_HEADER_BYTES)
        if entry >= 0:
            place = self.index.sequences[entry], self.index.offsets[entry]
        self.walk = self.reader.walk(place)
        self.file.seek(place[1])
        return place[0]

    def next_found(self, reverse: bool) -> array[int]:
        """Take those sought records out that stand in the next stride."""
        if not self.found:
            return self.found
        sequences, first = self.index.sequences, self.segment.first_sequence
        entry = bisect_right(sequences, first + self.found[-1 if reverse else 0])
        if reverse:
            place = bisect_left(self.found, sequences[entry - 1] - first) if entry else 0
            some, self.found = self.found[place:], self.found[:place]
            return some
        place = len(self.found)
        if entry < len(sequences):
            place = bisect_left(self.found, sequences[entry] - first)
        some, self.found = self.found[:place], self.found[place:]
        return some


def hold(disk: Disk, segment: SegmentRef) -> BinaryIO:
    """Open the file of a segment, which no purge removes until it is closed."""
    with translate_os_errors(segment.path, "read"):
        stream = disk.open_stream(segment.path)
        try:
            if not disk.try_hold(stream.fileno()) or not disk.exists(segment.path):
                raise FileNotFoundError(ENOENT, "it was purged just now", segment.path)
        except BaseException:
            stream.close()
            raise
        return stream
