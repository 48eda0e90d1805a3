"""Tail: the place in the files from which a follower reads on whenever there is more. Blocking.

Nothing is open between two reads, and no lock is taken: a follower that was left keeps no file, and
makes no purge wait. Nothing is read that may not be seen yet but as bytes behind the last frame
that may; those are forgotten, and read again.

**Memory.** What one read gives is decoded, and stays until the follower has given it, which may
take long. So all that read in a process share `_ALL_BYTES`: a single one reads far ahead, and each
of a thousand a little. Of a frame that is larger than its share a follower takes some records at a
time, an eighth at least, and reads it again for the next ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakSet

from aquipu.errors import RecordPurgedError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.frame import Header
from aquipu.local.read.frames import Frame, FrameWalk
from aquipu.local.read.segment_reader import SegmentReader
from aquipu.local.read.snapshot import Snapshot
from aquipu.record import Record

_FIRST_BYTES = 32 * 1024  # of the first read, and of one that came to the end
_MOST_BYTES = 2 * 1024 * 1024  # that one read may give
_LEAST_BYTES = 48 * 1024
_ALL_BYTES = 64 * 1024 * 1024
_RECORD_BYTES = 256  # of a decoded record beside its data
_PARTS = 8  # in which a large frame is given, at most
_TRIES = 5  # to open a segment that a purge may be removing


class Tail:
    """Reads from ``sequence`` on. Only one thread at a time may be in it."""

    def __init__(self, disk: Disk, path: str, sequence: int) -> None:
        self.sequence = sequence
        """Sequence of the record that is read next."""
        self._disk = disk
        self._path = path
        self._place: _Place | None = None
        self._size = _FIRST_BYTES  # of the next read: more as long as there is more
        _tails.add(self)

    def read(self, look: Callable[[bool], Snapshot]) -> list[Record]:
        """Return the next records that may be seen; none when there are none.

        ``look`` returns what may be seen now; with True, also where places in the segment that is
        being written are. Raises RecordPurgedError, CorruptionError, UnsupportedFormatError or
        StoreUnavailableError.
        """
        for tries_left in reversed(range(_TRIES)):
            view = look(self._place is None)
            if self.sequence >= view.stop:
                return []
            if self.sequence < view.start:
                raise RecordPurgedError(self._path, self.sequence, view.start)
            segment, end = view.holding(self.sequence)
            with translate_os_errors(segment.path, "read"):
                try:
                    reader = segment.open(self._disk)
                except FileNotFoundError:  # a purge, most likely
                    self._place = None
                    if tries_left:
                        continue
                    raise
                with reader:
                    return self._read(reader, end)
        raise AssertionError("the last try returns or raises")

    def _read(self, reader: SegmentReader, end: int) -> list[Record]:
        """Return some of the records before ``end``: at least one."""
        walk = self._walk(reader)
        place = walk.sequence, walk.offset
        found: list[Record] = []
        room = min(_MOST_BYTES, max(_ALL_BYTES // len(_tails), _LEAST_BYTES))
        while not found:
            walk.restart()
            size, offset_before = max(min(self._size, room), walk.wanted), walk.offset
            piece = self._disk.read(reader.descriptor, size, walk.offset)
            walk.feed(piece)
            for frame in walk.ready() if walk.sequence < end else ():
                header, place = frame.header, (walk.sequence, walk.offset)
                if header.next_sequence > self.sequence:
                    some = self._some_of(frame, end, room)
                    found += some
                    self.sequence += len(some)
                    room -= len(some) * _decoded_bytes(header)
                    if self.sequence < header.next_sequence:
                        place = header.first_sequence, frame.offset
                        break
                if walk.sequence >= end or room <= 0:
                    break
            ends = walk.offset == offset_before and len(piece) < size
            if not found and (walk.fault is not None or ends):
                raise walk.stopped()
        self._place = _Place(walk.path, *place)
        self._size = _FIRST_BYTES if self.sequence >= end else min(2 * self._size, _MOST_BYTES)
        return found

    def _walk(self, reader: SegmentReader) -> FrameWalk:
        place = self._place
        if place is None or place.path != reader.ref.path:
            return reader.walk(reader.place_before(self.sequence))
        return reader.walk((place.sequence, place.offset))

    def _some_of(self, frame: Frame, end: int, room: int) -> list[Record]:
        """Return the records of a frame from the next one on, as many as fit; one at least."""
        first, count = frame.header.first_sequence, frame.header.records
        begin = max(self.sequence - first, 0)
        many = max(room // _decoded_bytes(frame.header), count // _PARTS, 1)
        return list(frame.records_between(begin, min(begin + many, end - first, count)))


class _Place(NamedTuple):
    """Place of the frame that is read next."""

    path: str
    """Path of its segment."""
    sequence: int
    """Sequence of its first record."""
    offset: int


def _decoded_bytes(header: Header) -> int:
    """Return the bytes that a record of the frame takes in memory, on average."""
    return _RECORD_BYTES + header.body_size // header.records


_tails: WeakSet[Tail] = WeakSet()
"""Tails of this process, which share the memory."""
