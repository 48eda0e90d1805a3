"""What an archive holds, read and checked: its entries, and what they name of a log. Blocking.

A listing may lag behind, so it says only where to begin: from its last number on, entries are asked
for one by one. The newest entry is never removed, and neither is the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from aquipu.archive.bucket import READS, Bucket, Doubt
from aquipu.archive.errors import ArchiveDamagedError, ArchiveRefusedError, NoArchiveError
from aquipu.archive.format.entry import (
    EntryKind,
    Head,
    Piece,
    Segment,
    decode,
    decode_bookmarks,
    decode_list,
)
from aquipu.archive.format.keys import ENTRIES, ObjectKey, entry_key, entry_number
from aquipu.archive.format.pieces import check_segment, sealed
from aquipu.archive.format.plan import named
from aquipu.errors import (
    AquipuError,
    CorruptionError,
    RecordPurgedError,
    UnsupportedFormatError,
)
from aquipu.local.backup.plan import unlike
from aquipu.local.format.segment import SegmentHeader, SegmentSummary
from aquipu.local.format.structure import Damage, Unsupported


class State(NamedTuple):
    """What an archive holds."""

    head: Head
    segments: list[Segment]
    """In the order of the log."""


class Outdated(Doubt):
    """What was read names an entry whose place others have taken since: read the state anew."""


def read_state(bucket: Bucket, known: State | None = None) -> State:
    """Return what the archive holds now.

    As long as it has the list that is ``known``, that is not read again. Raises NoArchiveError,
    ArchiveDamagedError, UnsupportedFormatError, and what a bucket raises.
    """
    for _ in range(READS):
        head = newest_head(bucket)
        if head is None:
            raise NoArchiveError(bucket.url, "it holds no entry of one")
        try:
            if known is not None and _names_list_of(head, known.head):
                return State(head, known.segments)
            return State(head, _segments(bucket, head))
        except _Gone as gone:  # a writer is at work: others have taken its place
            missing = gone
    raise ArchiveDamagedError(bucket.url, f"{missing} is missing")


def check_there(bucket: Bucket, state: State) -> None:
    """Raise ArchiveDamagedError unless what the newest entry names is there.

    The entries, of which the first never goes, and the last full segment: of a bucket that was lost
    and made anew, nothing is. And what a bucket raises.
    """
    head, segments = state
    listed = set(map(entry_number, bucket.list(ENTRIES)))
    for number in sorted({0, *named(head)} - listed):
        if bucket.get(entry_key(number)) is None:  # else the listing lags
            raise ArchiveDamagedError(bucket.url, f"{entry_key(number)} is missing")
    if segments:
        key = segments[-1].key(head.store_id)
        try:
            bucket.ranges(str(key), [(0, 1)])
        except FileNotFoundError:
            raise ArchiveDamagedError(bucket.url, f"{key} is missing") from None


def read_entry(bucket: Bucket, number: int) -> tuple[Head, bytes]:
    """Return the entry with this number, and its body.

    Raises ArchiveDamagedError, UnsupportedFormatError, and what a bucket raises.
    """
    found = find_entry(bucket, number)
    if found is None:
        raise ArchiveDamagedError(bucket.url, f"{entry_key(number)} is missing")
    return found


def read_object(bucket: Bucket, key: ObjectKey) -> bytes:
    """Return the bytes of an object that a list names.

    Raises RecordPurgedError when it was purged meanwhile, ArchiveDamagedError, and what a bucket
    raises.
    """
    try:
        return bucket.get_object(key)
    except ArchiveDamagedError as damaged:
        raise lost(bucket, key, damaged) from None


def lost(bucket: Bucket, key: ObjectKey, damaged: ArchiveDamagedError) -> AquipuError:
    """Return why an object is not there that a list has named: it was purged, or what was found.

    Raises what `read_state` raises.
    """
    first = read_state(bucket).head.first_sequence
    if key.next_sequence <= first:
        return RecordPurgedError(bucket.url, key.first_sequence, first)
    return damaged


def read_bookmarks(bucket: Bucket, head: Head) -> dict[str, bytes]:
    """Return the holds and cursors that are archived, the bytes of each by its file name.

    Raises ArchiveDamagedError, UnsupportedFormatError, Doubt when a writer has just put others, and
    what a bucket raises.
    """
    if head.marked is None:
        return {}
    found = find_entry(bucket, head.marked)
    if found is None:
        raise Doubt(f"{entry_key(head.marked)} is not there any more")
    with _supported(bucket, head.marked):
        return decode_bookmarks(found[1])


def read_piece(bucket: Bucket, piece: Piece) -> bytes:
    """Return the bytes of a young part.

    Raises Outdated, ArchiveDamagedError when it is named and is not there, UnsupportedFormatError,
    and what a bucket raises.
    """
    found = find_entry(bucket, piece.number)
    if found is None:
        newest = newest_head(bucket)
        gone = f"{entry_key(piece.number)} is missing"
        if newest is None or piece in newest.young:
            raise ArchiveDamagedError(bucket.url, gone)
        raise Outdated(gone)
    head, body = found
    if not head.young or head.young[-1] != piece or len(body) != piece.size:
        raise ArchiveDamagedError(bucket.url, f"{entry_key(piece.number)} is another part")
    return body


def newest_head(bucket: Bucket) -> Head | None:
    """Return the newest entry; None when there is none."""
    numbers = [n for n in map(entry_number, bucket.list(ENTRIES)) if n is not None]
    if not numbers:
        if bucket.get(entry_key(0)) is not None:
            raise Doubt("the listing lags behind: it shows no entry, and there is one")
        return None
    newest, number = None, max(numbers)
    while (found := find_entry(bucket, number)) is not None:
        newest, number = found[0], number + 1
    if newest is None:
        raise Doubt(f"the listing lags behind: {entry_key(number)} is not there any more")
    return newest


def find_entry(bucket: Bucket, number: int) -> tuple[Head, bytes] | None:
    """Return an entry; None when there is none of this number."""
    fault = Damage("")
    for _ in range(READS):
        data = bucket.get(entry_key(number))
        if data is None:
            return None
        try:
            with _supported(bucket, number):
                return decode(data, number)
        except Damage as damage:
            fault = damage
    raise ArchiveDamagedError(bucket.url, f"{entry_key(number)}: {fault}")


def _names_list_of(head: Head, known: Head) -> bool:
    return (head.store_id, head.listed, head.base) == (known.store_id, known.listed, known.base)


def _segments(bucket: Bucket, head: Head) -> list[Segment]:
    if head.listed is None:
        return []
    found = find_entry(bucket, head.listed)
    if found is None:
        raise _Gone(entry_key(head.listed))
    if found[0].kind is not EntryKind.LIST:
        raise ArchiveDamagedError(bucket.url, f"{entry_key(head.listed)} is no list")
    return segments_in(bucket, *found)


def segments_in(bucket: Bucket, head: Head, body: bytes) -> list[Segment]:
    """Return the segments of the entry of a list."""
    with _supported(bucket, head.number):
        return decode_list(body)


@contextmanager
def _supported(bucket: Bucket, number: int) -> Iterator[None]:
    """Name the entry of which something is not known here."""
    try:
        yield
    except Unsupported as unsupported:
        name = f"{bucket.url}/{entry_key(number)}"
        raise UnsupportedFormatError(name, str(unsupported)) from None


class _Gone(Exception):
    """An entry that was named is not there any more; the text is its name."""


def fetch_segment(
    bucket: Bucket, store_id: bytes, segment: Segment
) -> tuple[bytes, SegmentSummary]:
    """Return the bytes of an archived segment, every frame checked, and what its footer says.

    Raises RecordPurgedError when it was purged meanwhile, ArchiveDamagedError,
    UnsupportedFormatError, and what a bucket raises.
    """
    key = segment.key(store_id)
    try:
        data = read_object(bucket, key)
    except ArchiveDamagedError as damaged:
        span = f"sequences {segment.first_sequence} to {segment.next_sequence - 1}"
        reason = f"{damaged.reason}: it is to hold {span}"
        raise ArchiveDamagedError(bucket.url, reason) from None
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
