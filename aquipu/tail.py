"""The place in the files where a follower stands: it reads on from there whenever there is more. Blocking.

Between two reads the file at hand stays open, and no lock is taken on it: who follows makes no purge wait. Nothing is read
that may not be seen yet but as bytes behind the last frame that may; those are forgotten, and read again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aquipu.disk import Disk, explained
from aquipu.errors import CorruptionError, RecordPurgedError
from aquipu.frame import Walk, records
from aquipu.journal import Extent
from aquipu.record import Record
from aquipu.segment import what_stopped
from aquipu.view import View, place_before

_LEAST_BYTES = 32 * 1024
_MOST_BYTES = 512 * 1024
_TRIES = 5  # to open a segment that somebody may be removing


class Tail:
    """Reads from ``sequence`` on. Only one thread at a time may be in it; after an error, and at the end, it is closed."""

    def __init__(self, disk: Disk, path: str, sequence: int) -> None:
        self.sequence = sequence
        """The next one to be read."""
        self._disk = disk
        self._path = path
        self._part: _Part | None = None
        self._size = _LEAST_BYTES  # of the next read: more as long as there is more

    def read(self, look: Callable[[bool], View]) -> list[Record]:
        """The next records that may be seen; none when there are none. ``look`` tells what may be seen now; with True, also
        where places in the segment that is being written are.

        Raises RecordPurgedError, CorruptionError, UnsupportedFormatError or StoreUnavailableError.
        """
        try:
            view = look(self._part is None)
            if self.sequence >= view.stop:
                return []
            part, end = self._part_of(view, look)
            with explained(part.extent.path, "read"):
                found = self._read(part, end)
            self._size = _LEAST_BYTES if self.sequence >= end else min(2 * self._size, _MOST_BYTES)
            return found
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        part, self._part = self._part, None
        if part is not None:
            self._disk.close(part.descriptor)

    def _part_of(self, view: View, look: Callable[[bool], View]) -> tuple[_Part, int]:
        """The segment of the next record, open, and where what may be seen of it ends."""
        for tries_left in reversed(range(_TRIES)):
            if self.sequence < view.start:
                raise RecordPurgedError(self._path, self.sequence, view.start)
            extent, end = view.holding(self.sequence)
            part = self._part
            if part is not None and part.extent.path == extent.path and part.walk.sequence == self.sequence:
                return part, end
            self.close()
            try:
                self._part = part = self._open(extent)
                return part, end
            except FileNotFoundError:
                if not tries_left:
                    with explained(extent.path, "read"):
                        raise
            view = look(True)
        raise AssertionError("the last try returns or raises")

    def _open(self, extent: Extent) -> _Part:
        disk = self._disk
        descriptor = disk.open(extent.path)
        try:
            following, offset = place_before(disk, descriptor, extent, self.sequence)
        except BaseException:
            disk.close(descriptor)
            raise
        return _Part(extent, descriptor, Walk(seed=extent.header.seed, sequence=following, offset=offset, link=None))

    def _read(self, part: _Part, end: int) -> list[Record]:
        """Some of the records before ``end``: at least one."""
        walk = part.walk
        found: list[Record] = []
        while not found:
            walk.restart()  # what was read too far may have been written meanwhile
            size, offset_before = max(self._size, walk.wanted), walk.offset
            piece = self._disk.read(part.descriptor, size, walk.offset)
            walk.feed(piece)
            while walk.sequence < end and (frame := next(walk, None)) is not None:
                offset, header, body = frame
                if header.next_sequence > self.sequence:
                    first = header.first_sequence
                    try:
                        found += records(header, body)[self.sequence - first if first < self.sequence else 0 : end - first]
                    except ValueError as error:
                        raise CorruptionError(part.extent.path, offset, str(error)) from None
                    self.sequence = min(header.next_sequence, end)
            ends = walk.offset == offset_before and len(piece) < size
            if not found and (walk.fault is not None or ends):
                raise what_stopped(part.extent.path, walk)
        return found


class _Part(NamedTuple):
    """The segment that is being read."""

    extent: Extent
    descriptor: int
    walk: Walk
