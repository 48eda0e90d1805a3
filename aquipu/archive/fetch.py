"""What an archive holds of a log, fetched and checked, frame by frame. Blocking."""

from __future__ import annotations

from aquipu.archive.bucket import Bucket
from aquipu.archive.errors import ArchiveDamagedError, ArchiveRefusedError
from aquipu.archive.format.entry import Head, Segment
from aquipu.archive.format.pieces import check_segment, sealed
from aquipu.archive.line import read_object, read_piece
from aquipu.errors import CorruptionError
from aquipu.local.backup.plan import unlike
from aquipu.local.format.segment import SegmentHeader, SegmentSummary
from aquipu.local.format.structure import Damage


def fetch_segment(
    bucket: Bucket, store_id: bytes, segment: Segment
) -> tuple[bytes, SegmentSummary]:
    """Return the bytes of an archived segment, every frame checked, and what its footer says.

    Raises RecordPurgedError when it was purged meanwhile, ArchiveDamagedError,
    UnsupportedFormatError, and what a bucket raises.
    """
    key = segment.key(store_id)
    data = read_object(bucket, key)
    try:
        summary = check_segment(str(key), segment.header(store_id), data)
    except CorruptionError as error:
        reason = f"{key} does not check at offset {error.offset}: {error.reason}"
        raise ArchiveDamagedError(bucket.url, reason) from None
    if (summary.next_sequence, summary.link) != (segment.next_sequence, segment.link):
        raise ArchiveDamagedError(bucket.url, f"{key} is not what the list says of it")
    return data, summary


def fetch_young(bucket: Bucket, head: Head) -> tuple[SegmentHeader, bytes]:
    """Return the header of the segment that was being written, and all that is archived of it.

    Only with young parts. Raises ArchiveDamagedError, and what a bucket raises.
    """
    try:
        header = head.header()
    except Damage as damage:
        raise ArchiveDamagedError(bucket.url, f"entry {head.number}: {damage}") from None
    data = [head.active]
    for piece in head.young:
        if piece.offset != sum(map(len, data)):
            raise ArchiveDamagedError(bucket.url, f"what is before entry {piece.number} is missing")
        data.append(read_piece(bucket, piece))
    return header, b"".join(data)


def fetch_sealed(
    bucket: Bucket, head: Head, successor: SegmentHeader
) -> tuple[SegmentHeader, bytes]:
    """Return the segment of the young parts, sealed as in the log, which has purged it since.

    All its records are archived; the header of the next segment says with which frame it ended.
    Raises ArchiveRefusedError when that is not archived, and as `fetch_young`.
    """
    header, young = fetch_young(bucket, head)
    try:
        data = sealed(bucket.url, header, young, successor.first_sequence, successor.link)
    except CorruptionError as error:
        raise ArchiveDamagedError(bucket.url, error.reason) from None
    if data is None:
        raise ArchiveRefusedError(bucket.url, unlike(head.base))
    return header, data
