"""SegmentRef and SegmentReader: one file of the log, read back. Blocking.

`SegmentRef.open` is the one way to the frames of a segment. Nothing here depends on who else reads
or writes the file: what does not check is a CorruptionError that names the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from aquipu.errors import CorruptionError, UnsupportedFormatError
from aquipu.local.disk.disk import Disk
from aquipu.local.format.frame import HEADER_BYTES, Header, header_at
from aquipu.local.format.segment import (
    INDEX_STRIDE,
    SEGMENT_HEADER_BYTES,
    TIME_END,
    Index,
    SegmentHeader,
    SegmentSummary,
    footer_bytes,
    is_sealed,
    plain_bytes_in,
)
from aquipu.local.format.structure import Damage, Unsupported
from aquipu.local.read.frames import TOO_EARLY, Frame, FrameWalk, Place

READ_BYTES = 1024 * 1024
"""Bytes of a file that are read at a time."""
TAIL_BYTES = 4096
"""Bytes of the end of a file that are read first: the whole footer of a segment of 10 MiB."""

Read = Callable[[int, int, int], bytes]
"""How a file is read: `Disk.read`, or what takes its place."""
OnProgress = Callable[[int], None]
"""Called with the number of bytes read, as a long reading goes on."""


class SegmentRef(NamedTuple):
    """One segment as readers see it."""

    first_sequence: int
    path: str
    header: SegmentHeader
    growing: Index | None
    """Index of the segment that is being written; None for a sealed one, whose footer holds it."""
    times: tuple[int, int] | None = None
    """Times of the first and the last commit of a sealed segment; None: must be looked up."""

    def place_in(self, index: Index, sequence: int) -> Place:
        """Return the place of the frame that holds the sequence, or of one shortly before it."""
        return index.place_before(sequence) or (self.first_sequence, SEGMENT_HEADER_BYTES)

    @property
    def earliest(self) -> int:
        """Lower bound of the times of its records, in nanoseconds; 0 when it is not known."""
        if self.times is not None:
            first = self.times[0]
        else:
            first = self.growing.times[0] if self.growing is not None and self.growing.times else 0
        return self.header.earliest(first)

    @property
    def latest(self) -> int:
        """Upper bound of the times of its records, in nanoseconds; `TIME_END` - 1: not known."""
        return TIME_END - 1 if self.times is None else self.times[1]

    def open(self, disk: Disk) -> SegmentReader:
        """Open the file for reading; ``with`` closes it. Raises OSError."""
        return SegmentReader(disk, self, disk.open(self.path))


class NotCached(Exception):
    """What was to be read is not in memory: see `SegmentReader.of_memory`."""


class SegmentReader:
    """An open segment file: its footer, and its frames from any place on.

    Every method raises CorruptionError or UnsupportedFormatError where something does not check,
    and OSError.
    """

    def __init__(
        self, disk: Disk, ref: SegmentRef, descriptor: int, read: Read | None = None
    ) -> None:
        self.ref = ref
        self.descriptor = descriptor
        self.disk = disk
        self._read = disk.read if read is None else read

    def __enter__(self) -> SegmentReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.disk.close(self.descriptor)

    def of_memory(self, size: int) -> SegmentReader:
        """Return one that reads frames from the memory of the system, and waits for no disk.

        Its methods that give frames raise NotCached where they are not there. The file has so many
        bytes.
        """
        read = partial(_read_cached, self.disk, size)
        return SegmentReader(self.disk, self.ref, self.descriptor, read)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self.disk.size(self.descriptor)

    # where frames stand

    def footer(self) -> SegmentSummary:
        """Return what the footer of a sealed segment says."""
        ref = self.ref
        footer = read_footer(self.disk, self.descriptor, ref.path, ref.header.seed)
        if footer is None:
            raise CorruptionError(ref.path, self.size, "the footer of a sealed segment is missing")
        return footer

    @property
    def plain_bytes(self) -> int:
        """Size of this very file before it was compressed; 0 of one that is as it was written.

        It may have been replaced since the reference was made: then its frames stand elsewhere.
        """
        return plain_bytes_in(self.disk.read(self.descriptor, SEGMENT_HEADER_BYTES, 0))

    def index(self) -> Index:
        """Return where frames stand, sparsely."""
        ref = self.ref
        if ref.growing is None:
            return self.footer().index
        if self.plain_bytes == ref.header.plain_bytes:
            return ref.growing
        # it was compressed since; an archive may have no footer of it yet
        footer = read_footer(self.disk, self.descriptor, ref.path, ref.header.seed)
        return Index.empty() if footer is None else footer.index

    def place_before(self, sequence: int) -> Place:
        """Return the place of the frame that holds the sequence, or of one shortly before it."""
        return self.ref.place_in(self.index(), sequence)

    # frames

    def walk(self, place: Place | None = None) -> FrameWalk:
        """Return a walk from this place, or from the first frame on, that has read nothing yet."""
        return FrameWalk(self.ref.path, self.ref.header, place)

    def frames(
        self, walk: FrameWalk, end: int, progress: OnProgress = lambda size: None
    ) -> Iterator[Frame]:
        """Yield the frames up to the offset ``end``, until one does not check (`walk.fault`).

        ``progress`` is called with the bytes read.
        """
        known = walk.offset
        while known < end and walk.fault is None:
            walk.restart()  # a frame that was cut off is read again: cheaper than to join its parts
            size = min(max(READ_BYTES, walk.wanted), end - walk.offset)
            piece = self._read(self.descriptor, size, walk.offset)
            if walk.offset + len(piece) <= known:
                return
            progress(walk.offset + len(piece) - known)
            known = walk.offset + len(piece)
            walk.feed(piece)
            yield from walk.ready()

    def all_frames(
        self, contents: SegmentSummary, progress: OnProgress = lambda size: None
    ) -> Iterator[Frame]:
        """Yield every frame of a sealed segment, and check that it ends as its footer says."""
        walk = self.walk()
        yield from self.frames(walk, contents.end, progress)
        if walk.offset != contents.end:
            raise walk.stopped()
        if (walk.sequence, walk.link) != (contents.next_sequence, contents.link):
            reason = "the footer does not fit the frames"
            raise CorruptionError(walk.path, contents.end, reason)

    def frames_before(self, stop: int, place: Place, size: int | None = None) -> Iterator[Frame]:
        """Yield the frames from a place on until all records before the sequence ``stop`` came.

        They stand in the first ``size`` bytes of the file.
        """
        walk = self.walk(place)
        for frame in self.frames(walk, self.size if size is None else size):
            yield frame
            if walk.sequence >= stop:
                return
        raise walk.stopped()

    def frame_holding(self, sequence: int, place: Place) -> Frame:
        """Return the frame that holds the sequence.

        It is sought from ``place`` on, which is its own or that of one before it. Of the frames in
        between only the headers are read.
        """
        headers = self._headers(place)
        offset, header, piece, at = next(it for it in headers if it[1].next_sequence > sequence)
        body = piece[at : at + header.body_size]
        if len(body) < header.body_size:
            body = self._read(self.descriptor, header.body_size, offset + HEADER_BYTES)
        return Frame.checked(self.ref.path, offset, header, body, self.ref.header.seed)

    def headers(self, place: Place) -> Iterator[tuple[int, Header]]:
        """Yield offsets and headers of the frames from a place on, without end.

        Raises CorruptionError where no header is that fits.
        """
        return ((offset, header) for offset, header, _, _ in self._headers(place))

    def _headers(self, place: Place) -> Iterator[tuple[int, Header, bytes, int]]:
        """Yield, as `headers` does, and a piece of the file, and where in it the body begins."""
        (following, offset), seed = place, self.ref.header.seed
        piece, begin = b"", offset  # of the file, from offset ``begin`` on
        while True:
            if offset + HEADER_BYTES > begin + len(piece):
                piece, begin = self._read(self.descriptor, INDEX_STRIDE, offset), offset
            header = header_at(piece, offset - begin, seed)
            if header is None or header.first_sequence != following:
                reason = _no_header(header, len(piece) + begin - offset, following)
                raise CorruptionError(self.ref.path, offset, reason)
            yield offset, header, piece, offset - begin + HEADER_BYTES
            following, offset = header.next_sequence, offset + header.size


def _read_cached(disk: Disk, end: int, descriptor: int, size: int, offset: int) -> bytes:
    size = min(size, end - offset)
    piece = disk.read_cached(descriptor, size, offset) if size > 0 else None
    if piece is None:
        raise NotCached
    return piece


# of a file that has no `SegmentRef` yet


def read_header(
    disk: Disk, descriptor: int, path: str, store_id: bytes, first_sequence: int
) -> SegmentHeader:
    """Return the header of a segment file; raise CorruptionError or UnsupportedFormatError."""
    data = disk.read(descriptor, SEGMENT_HEADER_BYTES, 0)
    try:
        return SegmentHeader.decode(data, store_id, first_sequence)
    except Damage as damage:
        raise CorruptionError(path, 0, str(damage)) from None
    except Unsupported as unsupported:
        raise UnsupportedFormatError(path, str(unsupported)) from None


def check_follows(path: str, header: SegmentHeader, next_sequence: int, link: int) -> None:
    """Raise CorruptionError unless the segment goes on where the one before it ends.

    ``link`` is the check of the last frame before it.
    """
    first = header.first_sequence
    if next_sequence != first:
        missing = f"sequences {next_sequence} to {first - 1} are missing before this segment"
        raise CorruptionError(path, 0, missing)
    if link != header.link:
        raise CorruptionError(path, 0, "the segment does not follow the one before it")


def is_unwritten(disk: Disk, descriptor: int) -> bool:
    """Return whether a segment file holds nothing but a header and zeros: it never had a frame."""
    offset = SEGMENT_HEADER_BYTES
    while piece := disk.read(descriptor, INDEX_STRIDE, offset):
        if piece.strip(b"\0"):
            return False
        offset += len(piece)
    return True


def read_footer(disk: Disk, descriptor: int, path: str, seed: int) -> SegmentSummary | None:
    """Return what the footer says; None for a file without one.

    Raises CorruptionError for a footer that does not check.
    """
    size = disk.size(descriptor)
    tail = disk.read(descriptor, TAIL_BYTES, max(size - TAIL_BYTES, 0))
    if not is_sealed(tail):
        return None
    whole = min(footer_bytes(tail), size - SEGMENT_HEADER_BYTES)
    offset = size - whole
    footer = tail[-whole:] if whole <= len(tail) else disk.read(descriptor, whole, offset)
    try:
        contents = SegmentSummary.decode_footer(footer, seed)
    except Damage as damage:
        raise CorruptionError(path, offset, str(damage)) from None
    if contents.end != offset:
        raise CorruptionError(
            path, offset, "the footer of the segment stands in another place than it says"
        )
    return contents


def _no_header(header: Header | None, left: int, following: int) -> str:
    if header is not None:
        return f"a frame begins with sequence {header.first_sequence} instead of {following}"
    return "the header of a frame does not check" if left >= HEADER_BYTES else TOO_EARLY
