"""A segment's header, footer and sparse index as bytes and back. Pure.

All numbers are little-endian, all checksums CRC32C::

    segment header, 64 bytes
    0   8  magic "aquipuSG"
    8   4  format version
    12  4  flags           1: it is compressed
    16 16  store id
    32  8  first sequence
    40  8  time of creation, ns
    48  4  link: check of the last frame before this segment
    52  8  bytes of its file before it was compressed; 0 of one that is as it was written
    60  4  check of the above, from the seed

    footer: three columns of u64 × entries (sequence, time, offset of a frame),
    then 64 bytes that end the file
    0   8  magic "aquipuFT"                 40  8  time of its last commit
    8   4  entries                          48  8  end of its frames: offset of the footer
    12  4  link: check of the last frame    56  4  zeros
    16  8  next sequence                    60  4  check of the columns and the above, from the seed
    24  8  frames
    32  8  time of its first commit

The **seed** of a segment is the CRC32C of the store id and the first sequence. Every checksum in it
starts from that.

What the files promise each other (recovery relies on it, and a violation is corruption):

* A segment file gets its name only after its header is on the disk, and its first record is
  acknowledged only after the name is. So a named segment without a sound header is damaged, never
  unfinished.
* The successor has its name before the footer is written. So a sealed segment without a successor
  has lost it.
* The footer is on the disk before the successor gets its first frame. So only the last two segments
  can be unfinished: a predecessor without a footer has a successor without a frame: its header, and
  zeros at most.
* The first segment has its name before the manifest has its own. So a manifest without any segment
  has lost them all.
* The manifest says durably where the log begins before any segment goes. So the first segment kept
  begins exactly there, and files of segments before it are left over from a purge.
* A clean close writes its last sequence into the manifest, when everything is synced. So a log that
  ends before it has lost its end, also when what is left is sound: an older copy of a segment, for
  example.

**Times.** Within a segment they never decrease, from record to record and from frame to frame; a
frame has the time of its last record. From segment to segment they may: when the clock is set back
by more than a second, the next segment begins. So a segment's own times show whether a record
that is sought by its time may be in it: none of its records is later than its last
commit, and none is earlier than its creation. (That does not hold for the first segment of all, and
for one that was created later than its first commit: then the clock was set back before that came.
And an empty frame that stands before every record has the time 0.) Stores from before this rule,
when each time was raised to the one before, keep it as well. A reader from before it reads all
that is written now, but finds by times only what lies in their order.

**Compressed.** A sealed segment may be replaced by one that holds the same records in fewer bytes
(`compress`). Its frames are others, and each has a compressed body; but the last one is made to end
with the check that the last one had before, so whatever follows it or knows it by that check, the
segment behind it and its label index, fits as before.

The index has one entry for the first frame that begins in each stride of `INDEX_STRIDE` bytes; it
is a help for finding, never a source of truth. Downside: to find a frame between two entries, the
headers in between must be read.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from struct import Struct
from typing import NamedTuple

from aquipu.local.format.structure import (
    VERSION,
    Damage,
    check_flags,
    check_version,
    checked,
    extend,
    is_sound,
)

INDEX_STRIDE = 64 * 1024
TIME_END = 2**64
"""A time after every other, in nanoseconds since the epoch."""

_SEGMENT_MAGIC = b"aquipuSG"
_FOOTER_MAGIC = b"aquipuFT"
_SEGMENT = Struct("<8sII16sQQIQI")
_FOOTER = Struct("<8sIIQQQQQII")
_COMPRESSED = 1
SEGMENT_HEADER_BYTES = _SEGMENT.size
FOOTER_BYTES = _FOOTER.size


def seed_of(store_id: bytes, first_sequence: int) -> int:
    """Return the seed from which every checksum in a segment starts."""
    return extend(0, store_id + first_sequence.to_bytes(8, "little"))


class SegmentHeader(NamedTuple):
    """The first 64 bytes of a segment."""

    store_id: bytes
    first_sequence: int
    created: int
    """Time of the last commit before this segment, in nanoseconds since the epoch.

    Or when it was begun, which is earlier, because the clock was set back.
    """
    link: int
    """Check of the last frame before this segment; its own seed where there is none."""
    plain_bytes: int = 0
    """Size of its file before it was compressed; 0 of one that is as it was written."""

    @property
    def seed(self) -> int:
        return seed_of(self.store_id, self.first_sequence)

    def earliest(self, first_time: int) -> int:
        """Return a time before which no record is, when ``first_time`` is of the first commit.

        0 when none is known: the clock was set back before the first commit, or this is the first
        segment.
        """
        return self.created if self.first_sequence and self.created <= first_time else 0

    def encode(self) -> bytes:
        return checked(
            _SEGMENT.pack(
                _SEGMENT_MAGIC,
                VERSION,
                _COMPRESSED if self.plain_bytes else 0,
                self.store_id,
                self.first_sequence,
                self.created,
                self.link,
                self.plain_bytes,
                0,
            ),
            self.seed,
        )

    @classmethod
    def decode(cls, data: bytes, store_id: bytes, first_sequence: int) -> SegmentHeader:
        """Return the header of the segment of this store that begins with this sequence.

        Raises Damage or Unsupported.
        """
        if len(data) < SEGMENT_HEADER_BYTES or not data.startswith(_SEGMENT_MAGIC):
            raise Damage("the segment does not begin with its header")
        check_version(int.from_bytes(data[8:12], "little"))
        data = data[:SEGMENT_HEADER_BYTES]
        if not is_sound(data, seed_of(store_id, first_sequence)):
            raise Damage(
                "the header of the segment does not check, or belongs to another store or place"
            )
        _, _, flags, its_store, its_first, created, link, plain, _ = _SEGMENT.unpack(data)
        check_flags(flags, _COMPRESSED)
        if its_store != store_id or its_first != first_sequence:
            raise Damage("the header of the segment belongs to another store or place")
        return cls(its_store, its_first, created, link, plain)


class Index(NamedTuple):
    """Where frames stand, sparsely: three columns, each ascending."""

    sequences: array[int]
    times: array[int]
    offsets: array[int]

    @classmethod
    def empty(cls) -> Index:
        return cls(array("Q"), array("Q"), array("Q"))

    def note(self, sequence: int, time: int, offset: int) -> None:
        """Add the frame at ``offset``, if its stride has no entry yet. Frames come in order."""
        if self.offsets and offset // INDEX_STRIDE == self.offsets[-1] // INDEX_STRIDE:
            return
        self.sequences.append(sequence)
        self.times.append(time)
        self.offsets.append(offset)

    def place_before(self, sequence: int) -> tuple[int, int] | None:
        """Return sequence and offset of the last noted frame that begins at or before this one."""
        entry = bisect_right(self.sequences, sequence) - 1
        return (self.sequences[entry], self.offsets[entry]) if entry >= 0 else None


class SegmentSummary:
    """A summary of the frames of one segment, so far; its footer says the same."""

    def __init__(self, next_sequence: int, link: int) -> None:
        self.next_sequence = next_sequence
        self.link = link
        """Check of the last frame; before the first, the link of the segment's header."""
        self.end = SEGMENT_HEADER_BYTES
        """Offset of the first byte behind the frames."""
        self.frames = 0
        self.first_time = self.last_time = 0
        """Times of the first and the last commit, in nanoseconds since the epoch; 0 without any."""
        self.index = Index.empty()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SegmentSummary) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def take(self, first_sequence: int, count: int, time: int, size: int, check: int) -> None:
        """Add one more frame at the end."""
        self.index.note(first_sequence, time, self.end)
        self.frames += 1
        self.first_time = self.first_time or time
        self.last_time = time
        self.next_sequence = first_sequence + count
        self.end += size
        self.link = check

    def copy(self) -> SegmentSummary:
        """Return one that says the same, and goes on by itself."""
        made = SegmentSummary(self.next_sequence, self.link)
        vars(made).update(vars(self))
        made.index = Index(*(column[:] for column in self.index))
        return made

    def unproven_from(self, watermark: int) -> int:
        """Return an offset before which the watermark proves every frame, even empty, synced."""
        entry = bisect_left(self.index.sequences, watermark) - 1
        return self.index.offsets[entry] if entry >= 0 else SEGMENT_HEADER_BYTES

    @property
    def footer_bytes(self) -> int:
        """Size of the footer in bytes."""
        return FOOTER_BYTES + 24 * len(self.index.offsets)

    def encode_footer(self, seed: int) -> bytes:
        columns = b"".join(map(_u64s, self.index))
        entries = len(self.index.offsets)
        times = (self.first_time, self.last_time)
        trailer = _FOOTER.pack(
            _FOOTER_MAGIC,
            entries,
            self.link,
            self.next_sequence,
            self.frames,
            *times,
            self.end,
            0,
            0,
        )
        return checked(columns + trailer, seed)

    @classmethod
    def decode_footer(cls, data: bytes, seed: int) -> SegmentSummary:
        """Return the summary from a whole footer, columns and trailer. Raises Damage."""
        if not is_sealed(data) or len(data) != footer_bytes(data) or not is_sound(data, seed):
            raise Damage("the footer of the segment does not check")
        _, entries, link, next_sequence, frames, first, last, end, _, _ = _FOOTER.unpack(
            data[-FOOTER_BYTES:]
        )
        columns = _from_u64s(data[:-FOOTER_BYTES])
        index = Index(*(columns[entries * n : entries * (n + 1)] for n in range(3)))
        contents = cls(next_sequence, link)
        contents.end, contents.frames, contents.index = end, frames, index
        contents.first_time, contents.last_time = first, last
        return contents


def plain_bytes_in(header: bytes) -> int:
    """Return the size before it was compressed, from the header of a segment, sound or not."""
    return int(_SEGMENT.unpack(header.ljust(SEGMENT_HEADER_BYTES, b"\0"))[-2])


def is_sealed(tail: bytes) -> bool:
    """Return whether the last bytes of a file are those of a footer, sound or not."""
    return len(tail) >= FOOTER_BYTES and tail[-FOOTER_BYTES:].startswith(_FOOTER_MAGIC)


def footer_bytes(tail: bytes) -> int:
    """Return the size of the whole footer, as its last 64 bytes say."""
    entries: int = _FOOTER.unpack(tail[-FOOTER_BYTES:])[1]
    return FOOTER_BYTES + 24 * entries


def _u64s(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column = array("Q", column)
        column.byteswap()
    return column.tobytes()


def _from_u64s(data: bytes) -> array[int]:
    column = array("Q")
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
    return column
