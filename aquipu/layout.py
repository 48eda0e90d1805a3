"""The files of a store: their names, the manifest, the header and the footer of a segment. Pure: bytes in, values out.

::

    audit/
    ├── lock                            held by the one process that writes; its pid
    ├── manifest                        which store this is
    ├── acknowledged                    how far the writer has come, for readers: see `acknowledged`
    ├── 00000000000000000000.segment    sealed: header, frames, footer
    ├── 00000000000000000000.relations  index of the sealed segment by its labels: see `postings`
    ├── 00000000000000262144.segment    active: header, frames, and perhaps zeros: space written ahead
    ├── ….unnamed                       being made, the next segment for example: not yet part of the store
    ├── 00000000000000262144.cut-4711   a torn tail that recovery cut off at that offset, kept
    ├── nightly-backup.hold             a bookmark: from its sequence on nothing is purged
    └── billing.cursor                  a bookmark: the sequence at which a consumer goes on

A segment is named by the sequence of its first record in twenty digits, so that a listing is the log in order.
All numbers are little-endian, all checksums CRC32C::

    manifest, 52 bytes                      segment header, 64 bytes
    0   8  magic "aquipuMF"                 0   8  magic "aquipuSG"
    8   4  format version                   8   4  format version
    12  4  flags                            12  4  flags
    16 16  store id                         16 16  store id
    32  8  first sequence kept              32  8  first sequence
    40  8  synced sequence                  40  8  time of creation, ns
    48  4  check of the above               48  4  link: check of the last frame before this segment
                                            52  8  zeros
                                            60  4  check of the above, from the seed

    footer: three columns of u64 × entries (sequence, time, offset of a frame), then 64 bytes that end the file
    0   8  magic "aquipuFT"                 40  8  time of its last commit
    8   4  entries                          48  8  end of its frames: offset of the footer
    12  4  link: check of the last frame    56  4  zeros
    16  8  next sequence                    60  4  check of the columns and the above, from the seed
    24  8  frames
    32  8  time of its first commit

    bookmark, 44 bytes
    0   8  magic "aquipuBM"                 16 16  store id
    8   4  format version                   32  8  sequence
    12  4  flags                            40  4  check of the above, from the seed

The **seed** of a segment is the CRC32C of the store id and the first sequence. Every checksum in it starts from that.
That of a bookmark is the CRC32C of the store id and the file name, so one that was renamed, or that another store left,
does not check. A bookmark is called by 1 to 100 of A-Z a-z 0-9 . _ - of which the first is no dot and no dash.

What the files promise each other (recovery relies on it, and a violation is corruption):

* A segment file gets its name only after its header is on the disk, and its first record is acknowledged only after the
  name is. So a named segment without a sound header is damaged, never unfinished.
* The successor has its name before the footer is written. So a sealed segment without a successor has lost it.
* The footer is on the disk before the successor gets its first frame. So only the last two segments can be unfinished: a
  predecessor without a footer has a successor without a frame: its header, and zeros at most.
* The first segment has its name before the manifest has its own. So a manifest without any segment has lost them all.
* The manifest says durably where the log begins before any segment goes. So the first segment kept begins exactly there,
  and files of segments before it are left over from a purge.
* A clean close writes its last sequence into the manifest, when everything is synced. So a log that ends before it has lost
  its end, also when what is left is sound: an older copy of a segment, for example.

The index has one entry for the first frame that begins in each stride of `INDEX_STRIDE` bytes; it is a help for finding,
never a source of truth. Downside: to find a frame between two entries, the headers in between must be read.
"""

from __future__ import annotations

import re
import sys
from array import array
from bisect import bisect_left, bisect_right
from enum import StrEnum
from struct import Struct
from typing import NamedTuple

from aquipu.checksum import extend

VERSION = 1
LOCK = "lock"
MANIFEST = "manifest"
ACKNOWLEDGED = "acknowledged"
UNNAMED = ".unnamed"
"""The ending of a file that is being made and is not yet part of the store."""
INDEX_STRIDE = 64 * 1024

_MANIFEST_MAGIC = b"aquipuMF"
_SEGMENT_MAGIC = b"aquipuSG"
_FOOTER_MAGIC = b"aquipuFT"
_BOOKMARK_MAGIC = b"aquipuBM"
_MANIFEST = Struct("<8sII16sQQI")
_SEGMENT = Struct("<8sII16sQQIQI")
_FOOTER = Struct("<8sIIQQQQQII")
_BOOKMARK = Struct("<8sII16sQI")
_SEGMENT_NAME = r"([0-9]{20})\.segment"  # patterns as text: compiled when they are first asked for, and kept by `re`
_SEQUENCE_MAX = 2**64 - 1
_RELATIONS_NAME = r"[0-9]{20}\.relations"
BOOKMARK_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
"""What a user may call a bookmark."""
_BOOKMARK_FILE_NAME = rf"({BOOKMARK_NAME})\.(hold|cursor)"
_CUT_NAME = rf"([0-9]{{20}}|{MANIFEST}|{_BOOKMARK_FILE_NAME})\.cut-[0-9]+(-[0-9]+)?"
_BOOKMARK_IN_THE_MAKING = rf"{_BOOKMARK_FILE_NAME}\.[0-9]+-[0-9]+{re.escape(UNNAMED)}"

MANIFEST_BYTES = _MANIFEST.size
SEGMENT_HEADER_BYTES = _SEGMENT.size
FOOTER_BYTES = _FOOTER.size
BOOKMARK_BYTES = _BOOKMARK.size


class Damage(Exception):
    """A structure does not check; the text says which. The rooms that know the path turn it into a CorruptionError."""


class Unsupported(Exception):
    """A structure is sound but from a later version; turned into an UnsupportedFormatError where the path is known."""


def segment_name(first_sequence: int) -> str:
    return f"{first_sequence:020d}.segment"


def relations_name(first_sequence: int) -> str:
    """The file that holds the index of a segment by its labels."""
    return f"{first_sequence:020d}.relations"


def cut_name(first_sequence: int, offset: int, number: int = 1) -> str:
    """The file that keeps a torn tail, or damaged bytes; a second one, cut at the same offset, has the number 2."""
    return whole_cut_name(f"{first_sequence:020d}", number, offset)


def whole_cut_name(name: str, number: int = 1, offset: int = 0) -> str:
    """The file that keeps a damaged manifest or bookmark of this file name."""
    return f"{name}.cut-{offset}" + (f"-{number}" if number > 1 else "")


def first_sequence_of(name: str) -> int | None:
    """The first sequence that a segment's file name tells; None for a name of something else."""
    match = re.fullmatch(_SEGMENT_NAME, name)
    first = int(match[1]) if match else _SEQUENCE_MAX + 1
    return first if first <= _SEQUENCE_MAX else None


def segment_of(name: str) -> int | None:
    """The first sequence of the segment that a file belongs to, the segment itself or its index; None for another file."""
    if re.fullmatch(_RELATIONS_NAME, name):
        name = segment_name(int(name.removesuffix(".relations")))
    return first_sequence_of(name)


class BookmarkKind(StrEnum):
    """What a bookmark is for; the ending of its file name."""

    HOLD = "hold"
    CURSOR = "cursor"


def bookmark_name(kind: BookmarkKind, name: str) -> str:
    return f"{name}.{kind}"


def bookmark_of(name: str) -> tuple[BookmarkKind, str] | None:
    """Which bookmark a file name tells: its kind and what its user calls it; None for a name of something else."""
    match = re.fullmatch(_BOOKMARK_FILE_NAME, name)
    return (BookmarkKind(match[2]), match[1]) if match else None


def bookmark_in_the_making(file_name: str, process: int, number: int) -> str:
    """What the file of a bookmark is called until it is whole: each of several writers has one of its own."""
    return f"{file_name}.{process}-{number}{UNNAMED}"


def is_bookmark_in_the_making(name: str) -> bool:
    """Whether somebody makes a bookmark in a file of this name, or was making one."""
    return re.fullmatch(_BOOKMARK_IN_THE_MAKING, name) is not None


def is_unnamed(name: str) -> bool:
    """Whether the writer was making a file of this name into one of the store, and never got there.

    Not so for a bookmark: other processes write those, without the lock, and may be at it just now.
    """
    made = name.removesuffix(UNNAMED)
    return made != name and is_ours(made) and bookmark_of(made) is None


def is_ours(name: str) -> bool:
    """Whether a store may hold a file of this name."""
    return (
        name in (LOCK, MANIFEST, ACKNOWLEDGED)
        or is_unnamed(name)
        or first_sequence_of(name) is not None
        or re.fullmatch(_RELATIONS_NAME, name) is not None
        or re.fullmatch(_CUT_NAME, name) is not None
        or bookmark_of(name) is not None
        or is_bookmark_in_the_making(name)
    )


def seed_of(store_id: bytes, first_sequence: int) -> int:
    """What every checksum in a segment starts from."""
    return extend(0, store_id + first_sequence.to_bytes(8, "little"))


class Manifest(NamedTuple):
    """Which store this is."""

    store_id: bytes
    """16 random bytes."""
    first_sequence: int
    """The first sequence kept: what lies before was purged."""
    synced_sequence: int
    """Everything below was on the disk when this was written: at the creation, and at each clean close."""

    def encode(self) -> bytes:
        return _checked(_MANIFEST.pack(_MANIFEST_MAGIC, VERSION, 0, *self, 0), 0)

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Raises Damage or Unsupported."""
        if len(data) < 16 or not data.startswith(_MANIFEST_MAGIC):
            raise Damage("the manifest does not begin as one")
        _check_version(int.from_bytes(data[8:12], "little"))
        if len(data) != MANIFEST_BYTES or not _is_sound(data, 0):
            raise Damage("the manifest does not check")
        _, _, flags, *fields, _ = _MANIFEST.unpack(data)
        _check_flags(flags)
        return cls(*fields)


class SegmentHeader(NamedTuple):
    """The first 64 bytes of a segment."""

    store_id: bytes
    first_sequence: int
    created: int
    """Nanoseconds since the epoch."""
    link: int
    """The check of the last frame before this segment; the seed of the first segment stands in where there is none."""

    @property
    def seed(self) -> int:
        return seed_of(self.store_id, self.first_sequence)

    def encode(self) -> bytes:
        return _checked(
            _SEGMENT.pack(_SEGMENT_MAGIC, VERSION, 0, self.store_id, self.first_sequence, self.created, self.link, 0, 0),
            self.seed,
        )

    @classmethod
    def decode(cls, data: bytes, store_id: bytes, first_sequence: int) -> SegmentHeader:
        """The header of the segment of this store that begins with this sequence. Raises Damage or Unsupported."""
        if len(data) < SEGMENT_HEADER_BYTES or not data.startswith(_SEGMENT_MAGIC):
            raise Damage("the segment does not begin with its header")
        _check_version(int.from_bytes(data[8:12], "little"))
        data = data[:SEGMENT_HEADER_BYTES]
        if not _is_sound(data, seed_of(store_id, first_sequence)):
            raise Damage("the header of the segment does not check, or belongs to another store or place")
        _, _, flags, its_store, its_first, created, link, _, _ = _SEGMENT.unpack(data)
        _check_flags(flags)
        if its_store != store_id or its_first != first_sequence:
            raise Damage("the header of the segment belongs to another store or place")
        return cls(its_store, its_first, created, link)


class Bookmark(NamedTuple):
    """A place in the log that somebody named: a hold or a cursor."""

    store_id: bytes
    file_name: str
    """Kind and name. The bytes hold it in their check alone."""
    sequence: int

    @property
    def seed(self) -> int:
        return _bookmark_seed(self.store_id, self.file_name)

    def encode(self) -> bytes:
        return _checked(_BOOKMARK.pack(_BOOKMARK_MAGIC, VERSION, 0, self.store_id, self.sequence, 0), self.seed)

    @classmethod
    def decode(cls, data: bytes, store_id: bytes, file_name: str) -> Bookmark:
        """The bookmark of this store in the file of this name. Raises Damage or Unsupported."""
        if len(data) < 16 or not data.startswith(_BOOKMARK_MAGIC):
            raise Damage("the bookmark does not begin as one")
        _check_version(int.from_bytes(data[8:12], "little"))
        if len(data) != BOOKMARK_BYTES or not _is_sound(data, _bookmark_seed(store_id, file_name)):
            raise Damage("the bookmark does not check, or belongs to another store or name")
        _, _, flags, its_store, sequence, _ = _BOOKMARK.unpack(data)
        _check_flags(flags)
        if its_store != store_id:
            raise Damage("the bookmark belongs to another store")
        return cls(store_id, file_name, sequence)


def _bookmark_seed(store_id: bytes, file_name: str) -> int:
    return extend(0, store_id + file_name.encode())


class Index(NamedTuple):
    """Where frames stand, sparsely: three columns, each ascending."""

    sequences: array[int]
    times: array[int]
    offsets: array[int]

    @classmethod
    def empty(cls) -> Index:
        return cls(array("Q"), array("Q"), array("Q"))

    def note(self, sequence: int, time: int, offset: int) -> None:
        """Take the frame at ``offset`` in, if its stride has no entry yet. Frames come in order."""
        if self.offsets and offset // INDEX_STRIDE == self.offsets[-1] // INDEX_STRIDE:
            return
        self.sequences.append(sequence)
        self.times.append(time)
        self.offsets.append(offset)

    def place_before(self, sequence: int) -> tuple[int, int] | None:
        """Sequence and offset of the last noted frame that begins with this sequence or an earlier one."""
        entry = bisect_right(self.sequences, sequence) - 1
        return (self.sequences[entry], self.offsets[entry]) if entry >= 0 else None


class Contents:
    """What the frames of one segment amount to, so far; sealed, its footer says the same."""

    def __init__(self, next_sequence: int, link: int) -> None:
        self.next_sequence = next_sequence
        self.link = link
        """The check of the last frame; before the first, that of the segment's header."""
        self.end = SEGMENT_HEADER_BYTES
        """Offset of the first byte behind the frames."""
        self.frames = 0
        self.first_time = self.last_time = 0
        """Of the first and the last commit; 0 without any."""
        self.index = Index.empty()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contents) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def take(self, first_sequence: int, count: int, time: int, size: int, check: int) -> None:
        """One more frame stands at the end."""
        self.index.note(first_sequence, time, self.end)
        self.frames += 1
        self.first_time = self.first_time or time
        self.last_time = time
        self.next_sequence = first_sequence + count
        self.end += size
        self.link = check

    def unproven_from(self, watermark: int) -> int:
        """An offset before which the watermark proves every frame to be on the disk, the empty ones too."""
        entry = bisect_left(self.index.sequences, watermark) - 1
        return self.index.offsets[entry] if entry >= 0 else SEGMENT_HEADER_BYTES

    @property
    def footer_bytes(self) -> int:
        """The size of the footer that says all this."""
        return FOOTER_BYTES + 24 * len(self.index.offsets)

    def encode_footer(self, seed: int) -> bytes:
        columns = b"".join(map(_u64s, self.index))
        entries = len(self.index.offsets)
        times = (self.first_time, self.last_time)
        trailer = _FOOTER.pack(_FOOTER_MAGIC, entries, self.link, self.next_sequence, self.frames, *times, self.end, 0, 0)
        return _checked(columns + trailer, seed)

    @classmethod
    def decode_footer(cls, data: bytes, seed: int) -> Contents:
        """From the whole footer, columns and trailer. Raises Damage."""
        if not is_sealed(data) or len(data) != footer_bytes(data) or not _is_sound(data, seed):
            raise Damage("the footer of the segment does not check")
        _, entries, link, next_sequence, frames, first, last, end, _, _ = _FOOTER.unpack(data[-FOOTER_BYTES:])
        columns = _from_u64s(data[:-FOOTER_BYTES])
        index = Index(*(columns[entries * n : entries * (n + 1)] for n in range(3)))
        contents = cls(next_sequence, link)
        contents.end, contents.frames, contents.index = end, frames, index
        contents.first_time, contents.last_time = first, last
        return contents


def is_sealed(tail: bytes) -> bool:
    """Whether the last bytes of a file are those of a footer; says nothing of its soundness."""
    return len(tail) >= FOOTER_BYTES and tail[-FOOTER_BYTES:].startswith(_FOOTER_MAGIC)


def footer_bytes(tail: bytes) -> int:
    """The size of the whole footer, as its last 64 bytes tell."""
    entries: int = _FOOTER.unpack(tail[-FOOTER_BYTES:])[1]
    return FOOTER_BYTES + 24 * entries


def _checked(data: bytes, seed: int) -> bytes:
    """The structure with its last four bytes replaced by the checksum of the others."""
    return data[:-4] + extend(seed, data[:-4]).to_bytes(4, "little")


def _is_sound(data: bytes, seed: int) -> bool:
    return extend(seed, data[:-4]) == int.from_bytes(data[-4:], "little")


def _check_version(version: int) -> None:
    if version != VERSION:
        raise Unsupported(f"format version {version} is not known here (this is version {VERSION})")


def _check_flags(flags: int) -> None:
    if flags:
        raise Unsupported(f"the flags {flags:#x} are not known here")


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
