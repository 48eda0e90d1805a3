"""The copy of one file of a store: made, and checked frame by frame. Blocking.

A copy has no name of its own until it is whole and durable. What is checked is what stands in the
copy, read back from there: so it makes no difference whether the bytes went through this process,
or the file system has shared its blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EMLINK, EPERM, EXDEV
from time import monotonic
from typing import NamedTuple

from aquipu.errors import BackupRefusedError, CorruptionError
from aquipu.local.backup.pace import Pace
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.durable import sync
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.frame import Header
from aquipu.local.format.segment import SegmentSummary
from aquipu.local.read.frames import SegmentEnd
from aquipu.local.read.segment_reader import SegmentReader, SegmentRef, read_footer

_PIECE_BYTES = 2 * 1024 * 1024  # written and synced in one go
_BUSY_PIECE_BYTES = 256 * 1024  # beside a writer: a long sync would hold up the log's own
_NO_LINK = frozenset({EXDEV, EPERM, EMLINK})


class Moved(NamedTuple):
    """Bytes that a copy has taken."""

    copied: int
    shared: int


class Copier:
    """Makes copies in one directory."""

    def __init__(self, disk: Disk, directory: str, pace: Pace) -> None:
        self._disk = disk
        self._directory = directory
        self._pace = pace

    def copy(self, source: str, made: str, *, share: bool = True) -> Moved:
        """Copy a file durably, or share its blocks. Raises OSError or OutcomeUnknown."""
        disk = self._disk
        with _reading(disk, source) as descriptor:
            size = disk.size(descriptor)
            with _created(disk, made) as copy:
                if share and size and disk.clone(descriptor, copy):
                    sync(disk, copy)
                    return Moved(0, size)
                offset = 0
                while offset < size:
                    began = monotonic()
                    most = _BUSY_PIECE_BYTES if self._pace.is_busy else _PIECE_BYTES
                    with translate_os_errors(source, "read"):
                        piece = disk.read(descriptor, min(most, size - offset), offset)
                    if not piece:
                        break  # cut off meanwhile: the check says so
                    disk.write(copy, [piece], offset)
                    sync(disk, copy)
                    offset += len(piece)
                    self._pace.moved(began)
                return Moved(offset, 0)

    def link(self, source: str, made: str) -> Moved:
        """Give the file itself a second name. Raises BackupRefusedError where that cannot be."""
        with _reading(self._disk, source) as descriptor:
            size = self._disk.size(descriptor)
        with suppress(FileNotFoundError):
            self._disk.remove(made)
        try:
            self._disk.link(source, made)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            reason = f"its files cannot be linked there: {error.strerror}"
            raise BackupRefusedError(self._directory, reason) from error
        return Moved(0, size)

    def check_sealed(self, segment: SegmentRef, made: str) -> None:
        """Check every frame of the copy of a sealed segment, and its footer.

        Raises CorruptionError, which names the segment.
        """
        with opened(self._disk, made) as copy:
            said = read_footer(self._disk, copy, segment.path, segment.header.seed)
            if said is None:
                reason = "the footer of a sealed segment is missing"
                raise CorruptionError(segment.path, self._disk.size(copy), reason)
            reader = SegmentReader(self._disk, segment, copy)
            walk, found = reader.walk(), _nothing_of(segment)
            for frame in reader.frames(walk, said.end):
                self._take(found, frame.header)
            if found.end != said.end:
                raise walk.stopped()
        if found != said:
            raise CorruptionError(segment.path, said.end, "the footer does not fit the frames")

    def cut_and_check(self, segment: SegmentRef, made: str, stop: int) -> None:
        """Let the copy of the last segment end before the sequence ``stop``, and check it so far.

        Raises CorruptionError, which names the segment.
        """
        with opened(self._disk, made, writable=True) as copy:
            found, reader = _nothing_of(segment), SegmentReader(self._disk, segment, copy)
            walk = reader.walk()
            for frame in reader.frames(walk, reader.size):
                if frame.header.records and found.next_sequence >= stop:
                    break
                self._take(found, frame.header)  # also the marks at the end: by them it is sealed
            if found.next_sequence < stop:
                raise walk.stopped()
            self._disk.truncate(copy, found.end)
            sync(self._disk, copy)

    def seal(self, made: str, end: SegmentEnd, seed: int) -> None:
        """Let the copy of a segment of the backup end as in the store, and with its footer."""
        footer = end.contents.encode_footer(seed)
        with opened(self._disk, made, writable=True) as copy:
            self._disk.truncate(copy, end.copied)
            self._disk.write(copy, [end.marks, footer], end.copied)
            sync(self._disk, copy)

    def _take(self, found: SegmentSummary, frame: Header) -> None:
        found.take(frame.first_sequence, frame.records, frame.time, frame.size, frame.check)
        self._pace.computed()


@contextmanager
def _reading(disk: Disk, source: str) -> Iterator[int]:
    with translate_os_errors(source, "read"):
        descriptor = disk.open(source)
    try:
        yield descriptor
    finally:
        disk.close(descriptor)


@contextmanager
def _created(disk: Disk, made: str) -> Iterator[int]:
    descriptor = disk.create(made)
    try:
        yield descriptor
    finally:
        disk.close(descriptor)


def _nothing_of(segment: SegmentRef) -> SegmentSummary:
    return SegmentSummary(segment.first_sequence, segment.header.link)
