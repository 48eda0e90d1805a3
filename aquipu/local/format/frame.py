"""Frames as bytes and back. Pure: bytes in, values out.

One frame is one group commit. All numbers are little-endian::

    header, 52 bytes
    0   4  magic           "\\xaaqF1"
    4   4  flags           see Flag
    8   4  records         in this frame
    12  4  body_size       bytes that follow
    16  8  first_sequence  of its first record
    24  8  time            of the commit, nanoseconds since the epoch
    32  8  watermark       see below
    40  4  link            `check` of the frame before
    44  4  body_check      CRC32C of the body
    48  4  check           CRC32C of the 48 bytes above

    body, `body_size` bytes, in columns
    keys      only with KEYED: u32: how many, and for each
              writer 16 bytes, number u64, first u32, records u32
    lengths   u32 × records
    times     u64 × records, nanoseconds since the epoch
    labels    only with RELATIONS: u32: bytes of the label columns,
              u8 × records: labels of each, u16 × labels: their lengths,
              the labels, UTF-8, joined
    payloads  joined

    the same with COMPRESSED
    u32: bytes of the columns above, u32 that gives the frame its check, the columns as a frame of
    Zstandard (RFC 8878)

Both checksums start from the segment's seed (store id and first sequence: see `segment.seed_of`),
so bytes of another store or segment, earlier ones included, never pass. The first frame of a
segment links to the last of the segment before, through the segment header.

The **watermark** is the sequence below which fdatasync had returned *before* this frame was
written. It lets recovery prove instead of guess: when the frame at sequence s is bad, and any later
frame that checks has a watermark beyond s, then s was on the disk and is damaged now. Without such
a frame it was never acknowledged as synced. A good frame behind a bad one is no proof by itself:
the kernel writes pages back in any order.

A **key** names some of the records of a frame, from the index ``first`` on, as the one commit that
its writer gave this number. A writer that sends a commit again, because the answer was lost, finds
out by the key whether the commit is in the log, also after a restart. The writer of a daemon's
client is random; that of a producer (``append(key=)``) is made of its name, and its numbers have
the highest bit set.

A **compressed** frame holds the records of several that were written one after another (`packed`).
The last one of a segment has the check that the last frame had before: see `segment`.

A worked example. Two records, b"one" and b"three", are sequences 7 and 8 of the store whose segment
seed is 0; sequences below 7 are synced; the frame before has the check 0x11111111. 84 bytes, with
both times 0x0000000000000002::

    aa 71 46 31  00 00 00 00  02 00 00 00  20 00 00 00     magic, no flags, 2 records, body of 32
    07 00 00 00 00 00 00 00   02 00 00 00 00 00 00 00      first sequence 7, committed at 2
    07 00 00 00 00 00 00 00   11 11 11 11                  watermark 7, link
    30 ef 20 21  7a 79 19 1b                               body_check, check
    03 00 00 00  05 00 00 00                               lengths 3 and 5
    02 00 00 00 00 00 00 00   02 00 00 00 00 00 00 00      times
    6f 6e 65 74 68 72 65 65                                "onethree"

Downsides, known and accepted: a record costs 12 bytes beside its data, a commit 52; to read one
record, the whole commit that holds it must be read and checked; a label is spelled out each time it
is given.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from struct import Struct
from types import ModuleType
from typing import NamedTuple

from aquipu.errors import needed
from aquipu.local.format.columns import ColumnBytes, Decoder, column, joined, label_columns
from aquipu.local.format.structure import Unsupported, chosen, extend
from aquipu.record import Key, Record

MAGIC = b"\xaaqF1"
_HEADER = Struct("<4sIIIQQQIII")
_CHECKED = _HEADER.size - 4  # the part of the header that its own checksum covers
HEADER_BYTES = _HEADER.size
_KEY = Struct("<16sQII")
_U32 = Struct("<I")
_PACKED = Struct("<II")
_LEVEL = 3
"""Of Zstandard, the library's own default: further ones gain little with log lines."""

# A payload of this size or more is handed to the disk as it is: joining it into the body would copy
# it once more.
_APART_BYTES = 64 * 1024


class Flag:
    """What is special about a frame, bit by bit. A reader refuses a flag that it does not know."""

    RELATIONS = 1
    """The body holds the label columns."""
    KEYED = 2
    """The body begins with keys."""
    OWES_SYNC = 4
    """Its commits were not acknowledged before fdatasync had returned."""
    COMPRESSED = 8
    """The body is compressed."""


KNOWN_FLAGS = Flag.RELATIONS | Flag.KEYED | Flag.OWES_SYNC | Flag.COMPRESSED


class Header(NamedTuple):
    """A frame header that has passed its checksum. The fields are those of the table above."""

    flags: int
    records: int
    body_size: int
    first_sequence: int
    time: int
    watermark: int
    link: int
    body_check: int
    check: int

    @property
    def size(self) -> int:
        """Size of the whole frame in bytes."""
        return HEADER_BYTES + self.body_size

    @property
    def next_sequence(self) -> int:
        """Sequence one past its last record."""
        return self.first_sequence + self.records


_header = partial(tuple.__new__, Header)  # half the price of Header(...): once for each frame

Columns = tuple["array[int]", Iterator[bytes], Sequence[tuple[str, ...]]]
"""Times, data and labels of the records of a frame."""


class Encoded(NamedTuple):
    """A frame ready to be written: its buffers in order, their total size, the frame's check."""

    buffers: list[bytes]
    size: int
    check: int


def encode(
    payloads: Sequence[bytes],
    timestamps: Sequence[int],
    *,
    labels: Mapping[int, tuple[str, ...]] | None = None,
    keys: Sequence[Key] = (),
    owes_sync: bool = False,
    first_sequence: int,
    time: int,
    watermark: int,
    link: int,
    seed: int,
) -> Encoded:
    """Return one frame for these records; ``labels`` are by the index of the record."""
    flags = Flag.OWES_SYNC if owes_sync else 0
    lengths = list(map(len, payloads))
    columns = [column("I", lengths), column("Q", timestamps)]
    if keys:
        flags |= Flag.KEYED
        columns.insert(0, _key_columns(keys))
    if labels:
        flags |= Flag.RELATIONS
        columns.append(label_columns(labels, len(payloads)))
    if lengths and sum(lengths) >= _APART_BYTES * len(lengths):
        body = [b"".join(columns), *payloads]
    else:
        body = [b"".join((*columns, *payloads))]
    body_check, body_size = seed, 0
    for part in body:
        body_check = extend(body_check, part)
        body_size += len(part)
    head = _HEADER.pack(
        MAGIC, flags, len(payloads), body_size, first_sequence, time, watermark, link, body_check, 0
    )[:_CHECKED]
    check = extend(seed, head)
    return Encoded([head + _U32.pack(check), *body], HEADER_BYTES + body_size, check)


def mark(*, first_sequence: int, time: int, watermark: int, link: int, seed: int) -> Encoded:
    """Return a frame of no records, whose watermark proves what stands before it."""
    return encode(
        (),
        (),
        first_sequence=first_sequence,
        time=time,
        watermark=watermark,
        link=link,
        seed=seed,
    )


def packed(
    frames: Sequence[tuple[Header, bytes]], *, link: int, seed: int, check: int | None = None
) -> Encoded:
    """Return one compressed frame with the records of several sound ones that follow each other.

    ``check``: what its check is to be. Raises ValueError as `decoder`, and Unsupported without the
    package zstandard.
    """
    (first, _), (last, _) = frames[0], frames[-1]
    keys: list[Key] = []
    parts: list[ColumnBytes] = []
    flags, owed, records = int(Flag.COMPRESSED), Flag.OWES_SYNC, 0
    for header, body in frames:
        flags |= header.flags & (Flag.RELATIONS | Flag.KEYED)
        owed &= header.flags
        keys += [key._replace(first=key.first + records) for key in keys_of(header, body)]
        plain = _plain(header, body)
        at = _behind_keys(header, plain)
        parts.append(ColumnBytes(plain, at, header.records, bool(header.flags & Flag.RELATIONS)))
        records += header.records
    columns = (_key_columns(keys) if keys else b"") + joined(parts)
    data: bytes = _zstandard().ZstdCompressor(level=_LEVEL).compress(columns)
    if _unpacked(data, len(columns)) != columns:  # it is about to take the place of the other
        raise ValueError("the columns of a frame were not the same when they were decompressed")
    body_size = _PACKED.size + len(data)

    def head(body_check: int) -> bytes:
        whole: bytes = _HEADER.pack(
            *(MAGIC, flags | owed, records, body_size, first.first_sequence, last.time),
            *(first.watermark, link, body_check, 0),
        )
        return whole[:_CHECKED]

    def packed_with(number: int) -> bytes:
        return b"".join((_PACKED.pack(len(columns), number), data))

    number = 0
    if check is not None:
        body_check = chosen(lambda it: extend(seed, head(it)), check)
        number = chosen(lambda it: extend(seed, packed_with(it)), body_check)
    made = packed_with(number)
    checked = head(extend(seed, made))
    own = extend(seed, checked)
    return Encoded([checked + _U32.pack(own), made], HEADER_BYTES + body_size, own)


def _key_columns(keys: Sequence[Key]) -> bytes:
    return _U32.pack(len(keys)) + b"".join(_KEY.pack(*key) for key in keys)


def plain_size(header: Header, body: bytes) -> int:
    """Return how many bytes the columns of a sound frame take when they are not compressed."""
    is_packed = header.flags & Flag.COMPRESSED and len(body) >= _PACKED.size
    return int(_PACKED.unpack_from(body)[0]) if is_packed else header.body_size


def _plain(header: Header, body: bytes) -> bytes:
    """Return the columns of a sound frame, as they were before they were compressed."""
    if not header.flags & Flag.COMPRESSED:
        return body
    if len(body) < _PACKED.size:
        raise ValueError("a frame ends before its columns")
    size, _ = _PACKED.unpack_from(body)
    return _unpacked(body[_PACKED.size :], size)


def _unpacked(data: bytes, size: int) -> bytes:
    library = _zstandard()
    try:
        plain: bytes = library.ZstdDecompressor().decompress(data, max_output_size=size)
    except library.ZstdError:
        plain = b""
    if len(plain) != size:
        raise ValueError("the columns of a frame cannot be decompressed")
    return plain


def _zstandard() -> ModuleType:
    """Return the library; Unsupported where it is not installed."""
    try:
        import zstandard
    except ModuleNotFoundError:
        raise Unsupported(
            f"its records are compressed, and that needs {needed('zstandard', 'compress')}"
        ) from None
    return zstandard


def header_at(buffer: bytes, offset: int, seed: int) -> Header | None:
    """Return the header that stands whole and sound at ``offset``, or None."""
    if len(buffer) - offset < HEADER_BYTES:
        return None
    magic, *fields = _HEADER.unpack_from(buffer, offset)
    if magic != MAGIC or extend(seed, buffer[offset : offset + _CHECKED]) != fields[-1]:
        return None
    return _header(fields)


def is_sound(header: Header, body: bytes, seed: int) -> bool:
    """Return whether ``body`` is the one that the header was written for."""
    return len(body) == header.body_size and extend(seed, body) == header.body_check


def keys_of(header: Header, body: bytes) -> list[Key]:
    """Return the keys of a sound frame. ValueError and Unsupported as in `decoder`."""
    if not header.flags & Flag.KEYED:
        return []
    body = _plain(header, body)
    end = _behind_keys(header, body)
    keys = list(map(Key._make, _KEY.iter_unpack(body[_U32.size : end])))
    if any(key.first + key.records > header.records for key in keys):
        raise ValueError("a key of a frame names more records than it has")
    return keys


def _behind_keys(header: Header, body: bytes) -> int:
    """Return where the columns of the records begin."""
    if not header.flags & Flag.KEYED:
        return 0
    if len(body) < _U32.size:
        raise ValueError("a frame ends before its keys")
    end = _U32.size + _U32.unpack_from(body)[0] * _KEY.size
    if end > len(body):
        raise ValueError("a frame ends before its keys")
    return int(end)


def decoder(header: Header, body: bytes) -> Decoder:
    """Return what decodes the records of a sound frame.

    ValueError, here or in it, when the columns do not fit each other, which no writer here makes;
    Unsupported for a compressed one without the package zstandard.
    """
    body = _plain(header, body)
    at, labelled = _behind_keys(header, body), bool(header.flags & Flag.RELATIONS)
    return Decoder(header.first_sequence, header.records, body, at, labelled=labelled)


def records(header: Header, body: bytes) -> list[Record]:
    """Return the records of a sound frame. ValueError as in `decoder`."""
    return list(decoder(header, body).records(0, header.records))


def columns(header: Header, body: bytes) -> Columns:
    """Return the times, data and labels of a sound frame's records. ValueError as in `decoder`."""
    found, every = decoder(header, body), (0, header.records)
    return found.times(*every), iter(found.payloads(*every)), list(found.labels(*every))


def labels(header: Header, body: bytes) -> list[tuple[str, ...]]:
    """Return the labels of each record of a sound frame. ValueError as in `decoder`."""
    return list(decoder(header, body).labels(0, header.records))


def record_of(header: Header, body: bytes, sequence: int) -> Record:
    """Return the one record of a sound frame with this sequence, without decoding the others.

    ValueError as in `decoder`.
    """
    (record,) = decoder(header, body).records_at((sequence - header.first_sequence,))
    return record
