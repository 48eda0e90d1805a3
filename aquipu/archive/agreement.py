"""Whether an archive and a log are of the same history, and what is read of the log. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from aquipu.archive.bucket import Bucket
from aquipu.archive.errors import ArchiveRefusedError
from aquipu.archive.fetch import State, fetch_sealed, read_piece
from aquipu.archive.format.entry import EntryKind, Head, Piece
from aquipu.archive.format.pieces import Part, header_in, last_record, part_of
from aquipu.archive.format.plan import (
    PART_BYTES_MAX,
    Local,
    Refused,
    apart,
    fold,
    grown,
    step,
    young_end,
)
from aquipu.errors import CorruptionError
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.frame import HEADER_BYTES, header_at
from aquipu.local.format.segment import INDEX_STRIDE, SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.read.snapshot import Snapshot, find

_READ_BYTES = 256 * 1024  # of the young end: mostly there is less


def sealed_in(view: Snapshot) -> list[Local]:
    """Return the segments of a log, and which of them will stay as they are.

    One that is sealed may still be gone on with, after a crash, while the next holds no record.
    """
    behind = [*(one.first_sequence for one in view.segments[1:]), view.stop]
    return [
        Local(one.first_sequence, one.growing is None and following < view.stop)
        for one, following in zip(view.segments, behind, strict=True)
    ]


def check_same(bucket: Bucket, state: State, view: Snapshot) -> None:
    """Raise ArchiveRefusedError for an archive that is not of this log, as far as it reaches."""
    base = state.head.base
    with _refusing(bucket):
        step(state.head, sealed_in(view), view.stop)
        if view.segments[0].first_sequence > base:
            fetch_sealed(bucket, state.head, view.segments[0].header)
            return
        segment = next(one for one in view.segments if one.first_sequence == base)
        with opened_in(view, segment.path) as file:
            _check_holds(bucket, state, view, file.header(segment.header), file.read)


@contextmanager
def _refusing(bucket: Bucket) -> Iterator[None]:
    try:
        yield
    except Refused as refused:
        raise ArchiveRefusedError(bucket.url, str(refused)) from None


def _check_holds(
    bucket: Bucket,
    state: State,
    view: Snapshot,
    header: SegmentHeader,
    read_at: Callable[[int, int], bytes],
) -> None:
    """Raise Refused unless the last archived record stands in the segment with this header.

    Or, before the first record of it, unless the segment follows the last one that is archived.
    ``read_at`` returns so many of its bytes at an offset.
    """
    if not _holds(bucket, state, view, header, read_at):
        raise Refused(apart(state.head.base))


def _holds(
    bucket: Bucket,
    state: State,
    view: Snapshot,
    header: SegmentHeader,
    read_at: Callable[[int, int], bytes],
) -> bool:
    head = state.head
    if head.last is None:
        return not state.segments or header.link == state.segments[-1].link
    if header.encode() == head.active:
        found = header_at(read_at(head.last.offset, HEADER_BYTES), 0, header.seed)
        if found is not None and found.check == head.last.check:
            return True
    if not (header.plain_bytes or head.header().plain_bytes):
        return False
    # one was compressed, or each by itself: frames are others
    seen = view._replace(start=head.next_sequence - 1, stop=head.next_sequence)
    piece = head.young[-1]
    body, begin = read_piece(bucket, piece), (piece.first_sequence, piece.offset)
    return find(seen) == last_record(bucket.url, head.header(), begin, body)


class OpenFile(NamedTuple):
    """A file of the log that is open: the same one, whatever takes its name meanwhile."""

    disk: Disk
    path: str
    descriptor: int

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Return bytes of it: so many, or all. Raises StoreUnavailableError."""
        with translate_os_errors(self.path, "read"):
            whole = self.disk.size(self.descriptor) if size is None else size
            return self.disk.read(self.descriptor, whole, offset)

    def header(self, like: SegmentHeader) -> SegmentHeader:
        """Return the header of a segment. Raises what `header_in` raises."""
        return header_in(self.path, like, self.read(0, SEGMENT_HEADER_BYTES))


@contextmanager
def opened_in(view: Snapshot, path: str) -> Iterator[OpenFile]:
    """Open a file of the log. Raises StoreUnavailableError."""
    with translate_os_errors(path, "read"), opened(view.disk, path) as descriptor:
        yield OpenFile(view.disk, path, descriptor)


def read(view: Snapshot, path: str) -> bytes:
    """Return the bytes of a file of the log. Raises StoreUnavailableError."""
    with opened_in(view, path) as file:
        return file.read()


def whole_segment(bucket: Bucket, state: State, view: Snapshot) -> tuple[str, SegmentHeader, bytes]:
    """Return the path, the header and the bytes of the segment that is archived next, as a whole.

    Raises ArchiveRefusedError when it does not hold what is archived of it already: another log has
    taken its place. And CorruptionError, UnsupportedFormatError, StoreUnavailableError, and what a
    bucket raises.
    """
    segment, _ = view.holding(state.head.base)
    data = read(view, segment.path)
    header = header_in(segment.path, segment.header, data)
    with _refusing(bucket):
        _check_holds(bucket, state, view, header, lambda at, size: data[at : at + size])
    return segment.path, header, data


def next_young(bucket: Bucket, state: State, view: Snapshot) -> tuple[Head, memoryview]:
    """Return the entry of the next young part, which the head of ``state`` begins, and its bytes.

    All of it is read from one file, which may be replaced by a compressed one meanwhile. Raises as
    `whole_segment`.
    """
    head = state.head
    segment, stop = view.holding(head.base)
    begin, folded = young_end(head), 0
    most: int | None = PART_BYTES_MAX
    with opened_in(view, segment.path) as file:
        header = file.header(segment.header)
        with _refusing(bucket):
            _check_holds(bucket, state, view, header, file.read)
        if head.young and header.encode() != head.active:  # it was compressed: put it anew
            begin, folded, most = (head.base, SEGMENT_HEADER_BYTES), len(head.young), None
        part = part_in(file, segment, header, begin, stop, most)
        if most is not None:
            folded = fold([piece.size for piece in head.young], len(part.data))
        if folded and most is not None:
            begin = head.young[-folded].first_sequence, head.young[-folded].offset
            part = part_in(file, segment, header, begin, part.stop, None)
    piece = Piece(head.number, part.start, part.stop, begin[1], len(part.data))
    said = head._replace(
        kind=EntryKind.YOUNG,
        next_sequence=part.stop,
        young=grown(head, piece, folded),
        active=header.encode(),
        last=part.last or head.last,
    )
    return said, part.data


def part_in(
    file: OpenFile,
    segment: SegmentRef,
    header: SegmentHeader,
    begin: tuple[int, int],
    stop: int,
    most: int | None,
) -> Part:
    """Read the next frames of a segment: at most about so many bytes, or one; None: all.

    Raises CorruptionError, UnsupportedFormatError and StoreUnavailableError.
    """
    size = _READ_BYTES
    if segment.growing is not None:
        _, offset = segment.place_in(segment.growing, stop)
        wanted = offset + INDEX_STRIDE - begin[1]
        size = max(size, wanted if most is None else min(wanted, most))
    while True:
        data = file.read(begin[1], size)
        part = part_of(segment.path, header, begin, data, stop)
        if part.stop >= stop or (part.data and most is not None and size >= most):
            return part
        if len(data) < size:
            end = begin[1] + len(part.data)
            raise CorruptionError(segment.path, end, "the frames end too early")
        size *= 4
