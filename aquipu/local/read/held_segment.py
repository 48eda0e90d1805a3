"""HeldSegment: the segment that a scan is in, open and held against purges. Blocking."""

from __future__ import annotations

from asyncio import Future
from bisect import bisect_left
from collections.abc import Iterator
from errno import ENOENT
from typing import Any, BinaryIO, Protocol

from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.segment import INDEX_STRIDE, SEGMENT_HEADER_BYTES, Index
from aquipu.local.read.frames import Frame
from aquipu.local.read.segment_reader import SegmentReader, SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.record import Record

CHUNK_BYTES = 256 * 1024
"""Bytes that a scan reads at a time: the loop is free between two chunks."""
_STRIDES_MAX = CHUNK_BYTES // INDEX_STRIDE


class SegmentSearch(Protocol):
    """Reads the frames of one segment in which sought records may be, and finds those in them."""

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to be read."""

    def read(self, reader: SegmentReader, index: Index, reverse: bool) -> list[Frame]:
        """Return the next of these frames. Blocking."""

    def read_cached(self, reader: SegmentReader, index: Index, reverse: bool) -> list[Frame] | None:
        """Return the next of these frames without waiting; None: they must be `read`."""

    def records(self, frames: list[Frame], reverse: bool) -> Iterator[Iterator[Record]]:
        """Yield the sought records of each frame."""


class Search(Protocol):
    """Says what is sought in a segment."""

    def enter(self, view: Snapshot, segment: SegmentRef, start: int, stop: int) -> SegmentSearch:
        """Return the search among its records from start up to stop. Blocking."""


class HeldSegment:
    """The segment that a scan is in: its file, and what of it is still to be given."""

    def __init__(
        self, file: BinaryIO, reader: SegmentReader, index: Index, start: int, end: int
    ) -> None:
        # here, because a program that only writes needs none of it
        from aiofiles.threadpool import wrap

        self.segment = reader.ref
        self.file = file
        self.disk = reader.disk
        self.reader = reader
        self.size = reader.size
        self.of_memory = reader.of_memory(self.size)
        self.stream: Any = wrap(file)  # the type of what wrap gives is not public
        self.index = index
        self.walk = reader.walk(reader.ref.place_in(index, start))
        self.start = start
        """First sequence that is to be given."""
        self.end = end
        """First sequence that is not to be given any more."""
        self.search: SegmentSearch | None = None
        """Search among what is to be given; None: all of it is."""
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
                entered = search.enter(view, segment, start, stop)
                index = Index.empty() if entered.is_done else reader.index()
                held = cls(file, reader, index, start, stop)
                held.search = entered
                return held
        except BaseException:
            file.close()
            raise

    def read_cached(self, size: int) -> bytes | None:
        """Return so many bytes of where the walk is, fewer only where the file ends.

        None where they are not in memory, or many: a thread reads them.
        """
        offset = self.walk.offset
        size = min(size, self.size - offset)
        if not 0 < size <= CHUNK_BYTES:
            return None
        return self.disk.read_cached(self.file.fileno(), size, offset)

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
