"""Whether an archive and a log are of the same history, and what is read of the log. Blocking."""

from __future__ import annotations

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
from aquipu.local.disk.disk import opened
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
    try:
        step(state.head, sealed_in(view), view.stop)
        if view.segments[0].first_sequence > base:
            fetch_sealed(bucket, state.head, view.segments[0].header)
            return
        segment = next(one for one in view.segments if one.first_sequence == base)
        if not _is_same(bucket, state, view, segment):
            raise Refused(apart(base))
    except Refused as refused:
        raise ArchiveRefusedError(bucket.url, str(refused)) from None


def _is_same(bucket: Bucket, state: State, view: Snapshot, segment: SegmentRef) -> bool:
    """Return whether the last archived record stands in the log."""
    head, header = state.head, header_of(view, segment)
    if head.last is None:
        return not state.segments or header.link == state.segments[-1].link
    if header.plain_bytes or head.header().plain_bytes:  # one was compressed: its frames are others
        seen = view._replace(start=head.next_sequence - 1, stop=head.next_sequence)
        piece = head.young[-1]
        body, begin = read_piece(bucket, piece), (piece.first_sequence, piece.offset)
        return find(seen) == last_record(bucket.url, head.header(), begin, body)
    frame = read(view, segment.path, head.last.offset, HEADER_BYTES)
    found = header_at(frame, 0, header.seed)
    same = found is not None and found.check == head.last.check
    return same and header.encode() == head.active


def header_of(view: Snapshot, segment: SegmentRef) -> SegmentHeader:
    """Return the header of a segment's file, as it is now. Raises what `header_in` raises."""
    return header_in(
        segment.path, segment.header, read(view, segment.path, 0, SEGMENT_HEADER_BYTES)
    )


def read(view: Snapshot, path: str, offset: int = 0, size: int | None = None) -> bytes:
    """Return bytes of a file of the log: so many, or all. Raises StoreUnavailableError."""
    disk = view.disk
    with translate_os_errors(path, "read"), opened(disk, path) as descriptor:
        return disk.read(descriptor, disk.size(descriptor) if size is None else size, offset)


def next_young(view: Snapshot, head: Head) -> tuple[Head, memoryview] | None:
    """Return the entry of the next young part, of which ``head`` is begun, and its bytes.

    None: the file was replaced meanwhile. Raises as `part_in`.
    """
    segment, stop = view.holding(head.base)
    header = header_of(view, segment)
    begin, folded = young_end(head), 0
    most: int | None = PART_BYTES_MAX
    if head.young and header.encode() != head.active:  # it was compressed: put it anew
        begin, folded, most = (head.base, SEGMENT_HEADER_BYTES), len(head.young), None
    try:
        part = part_in(view, segment, header, begin, stop, most)
    except CorruptionError:
        if header_of(view, segment) == header:
            raise
        return None  # it was replaced just now
    if most is not None:
        folded = fold([piece.size for piece in head.young], len(part.data))
    if folded and most is not None:
        first = head.young[-folded]
        before = read(view, segment.path, first.offset, begin[1] - first.offset)
        part = part._replace(data=memoryview(before + part.data), start=first.first_sequence)
        begin = first.first_sequence, first.offset
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
    view: Snapshot,
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
        data = read(view, segment.path, begin[1], size)
        part = part_of(segment.path, header, begin, data, stop)
        if part.stop >= stop or (part.data and most is not None and size >= most):
            return part
        if len(data) < size:
            end = begin[1] + len(part.data)
            raise CorruptionError(segment.path, end, "the frames end too early")
        size *= 4
