"""Which label stands at which records, as the bytes of a table and back. Pure.

A table is derived from one sealed segment and can always be made again. A **position** is a
record's place in its segment (its sequence less the first one of the segment); the **postings** of
a label are its positions, ascending, each once. Labels are sorted as bytes of UTF-8, which is also
their order as text. All numbers are little-endian::

    table
    blocks     one behind another, from 0
    index      u32 × blocks: their sizes
               u32 × blocks: their checks
               the first label of each, a line break between two
    trailer    64 bytes

    a block, before it is compressed (zlib)
    u32               labels in the block
    u32               bytes of text
    text              the labels, a line break between two
    u32 × labels      how many positions each has here; byte by byte: all lowest bytes, then all
                      second ones, and so on
    u32 × positions   of one label after another: its first one, then the steps from each to the
                      next; byte by byte as well

    trailer
    0   8  magic "aquipuRE"                     32  8  labels in the table
    8   4  format version                       40  8  postings in the table
    12  4  flags                                48  8  end of the blocks: offset of the block index
    16  8  next sequence of the segment         56  4  zeros
    24  4  link: check of its last frame        60  4  check of the block index and the above
    28  4  blocks

Every check is a CRC32C that starts from the segment's seed. The one at the end covers the checks of
the blocks, and these cover every other byte, so a table stands or falls as a whole, and yet each
block can be checked by itself. That a label is *not* there is proven by the block in which it would
stand. Next sequence and link say which life of the segment was read.

A block holds about 16 KiB. A label with many positions has blocks of its own, one behind another,
which begin with the same label; every other label stands in one block. Stored byte by byte the
steps are mostly columns of zeros, and zlib needs no more than its quickest level for those: 3
labels a record, 100,000 different ones, take 6 % of the log's size.

Beside the labels there is an entry for each producer of keys in the segment: a NUL, which no label
has, and the 32 hexadecimal digits of its writer (see `frame`). Its positions are those of the first
records of its batches.

A worked example. The label "a" is on the records 1, 2 and 300 of a segment, the label "bc" on
record 2. The block::

    02 00 00 00  04 00 00 00                two labels, 4 bytes of text
    61 0a 62 63                             "a", "bc"
    03 01  00 00  00 00  00 00              3 positions and 1
    01 01 2a 02  00 00 01 00  00 00 00 00  00 00 00 00     1, +1, +298; 2

Downsides, known and accepted: a label with a line break cannot be stored (no store takes one); a
position is a u32, so a segment of more than 2^32 records has no table (OverflowError); to read the
first position of a label, all of them are read.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, islice
from operator import sub
from struct import Struct
from sys import byteorder
from typing import NamedTuple, TypeAlias

from aquipu.local.format.structure import Damage, extend

VERSION = 1
BLOCK_BYTES = 16 * 1024
"""A block is full when it holds this much, before it is compressed."""
RUN_POSITIONS = BLOCK_BYTES // 4
"""A label with more positions than this has blocks of its own, with so many positions each."""

_MAGIC = b"aquipuRE"
_TRAILER = Struct("<8sIIQIIQQQII")
_BLOCK = Struct("<II")
LINE_BREAK = "\n"
"""What no label holds: it stands between two of them."""
TRAILER_BYTES = _TRAILER.size

PackedPositions: TypeAlias = bytes | bytearray
"""The postings of one label in memory: u32s, in the order of this machine."""


class EncodedBlock(NamedTuple):
    """A block ready to be written."""

    data: bytes
    first: str
    """Its first label."""
    labels: int
    """That begin in it: none in the second and later block of one label."""
    postings: int


class BlockBuilder:
    """A block that is being filled."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.held: list[PackedPositions] = []
        self.size = 0

    def add(self, label: str, held: PackedPositions) -> None:
        self.labels.append(label)
        self.held.append(held)
        self.size += len(label) + 5 + len(held)

    def encode(self, *, begins: bool = True) -> EncodedBlock:
        text = LINE_BREAK.join(self.labels).encode()
        counts = array("I", [len(held) // 4 for held in self.held])
        positions = array("I", b"".join(self.held))
        head = _BLOCK.pack(len(counts), len(text))
        raw = b"".join((head, text, *_by_bytes(counts), *_by_bytes(_steps(positions, counts))))
        return EncodedBlock(
            zlib.compress(raw, 1), self.labels[0], len(counts) if begins else 0, len(positions)
        )


def _steps(positions: array[int], counts: array[int]) -> array[int]:
    """Return the steps from position to position.

    That from one label to the next may be negative; the position itself takes its place.
    """
    steps = array("q", map(sub, positions, chain((0,), positions)))
    for start in islice(accumulate(counts), len(counts) - 1):
        steps[start] = positions[start]
    return steps


def encode_blocks(entries: Iterable[tuple[str, PackedPositions]]) -> Iterator[EncodedBlock]:
    """Yield the blocks for these labels, which come in order."""
    builder = BlockBuilder()
    for label, held in entries:
        if len(held) > 4 * RUN_POSITIONS:
            if builder.labels:
                yield builder.encode()
                builder = BlockBuilder()
            yield from _run(label, held)
            continue
        builder.add(label, held)
        if builder.size >= BLOCK_BYTES:
            yield builder.encode()
            builder = BlockBuilder()
    if builder.labels:
        yield builder.encode()


def _run(label: str, held: PackedPositions) -> Iterator[EncodedBlock]:
    """Yield the blocks of one label that has many positions."""
    for start in range(0, len(held), 4 * RUN_POSITIONS):
        builder = BlockBuilder()
        builder.add(label, held[start : start + 4 * RUN_POSITIONS])
        yield builder.encode(begins=start == 0)


class Block:
    """A block that has passed its check.

    Raises Damage when its parts do not fit each other, which no writer here makes.
    """

    def __init__(self, data: bytes) -> None:
        try:
            raw = zlib.decompress(data)
            count, size = _BLOCK.unpack(raw[: _BLOCK.size].ljust(_BLOCK.size, b"\0"))
            at = _BLOCK.size + size
            self.labels = _lines(raw[_BLOCK.size : at])
        except (zlib.error, UnicodeDecodeError):
            raise Damage("a block of the index cannot be read") from None
        if len(self.labels) != count or at + 4 * count > len(raw):
            raise Damage("a block of the index does not hold the labels that it says")
        self.counts = _from_bytes(raw, at, count, 0, count)
        self._raw = raw
        self._at = at + 4 * count
        self._positions = sum(self.counts)
        if self._at + 4 * self._positions != len(raw):
            raise Damage("a block of the index does not hold the positions that it says")

    def positions(self, label: str) -> array[int]:
        """Return where this label stands, as far as this block knows."""
        place = bisect_left(self.labels, label)
        if place == len(self.labels) or self.labels[place] != label:
            return array("I")
        start = sum(self.counts[:place])
        return self._between(start, start + self.counts[place])

    def counted(self, prefix: str) -> tuple[list[str], array[int]]:
        """Return the labels that begin so, and how many positions of each stand in this block."""
        labels = self.labels
        start = bisect_left(labels, prefix)
        behind = bisect_left(labels, True, start, key=lambda label: not label.startswith(prefix))
        return labels[start:behind], self.counts[start:behind]

    def entries(self) -> Iterator[tuple[str, array[int]]]:
        """Yield each label with its positions."""
        for label, end, count in zip(
            self.labels, accumulate(self.counts), self.counts, strict=True
        ):
            yield label, self._between(end - count, end)

    def _between(self, start: int, end: int) -> array[int]:
        try:
            return array(
                "I", accumulate(_from_bytes(self._raw, self._at, self._positions, start, end))
            )
        except OverflowError:
            raise Damage("a block of the index holds a position that cannot be") from None


def _lines(text: bytes) -> list[str]:
    return text.decode().split(LINE_BREAK)


def _by_bytes(column: array[int]) -> list[bytes]:
    """Return the lower four bytes of each number: all lowest, then all second, and so on."""
    data, size = column.tobytes(), column.itemsize
    places = range(4) if byteorder == "little" else range(size - 1, size - 5, -1)
    return [data[place::size] for place in places]


def _from_bytes(data: bytes, at: int, count: int, start: int, end: int) -> array[int]:
    """Return the numbers from start to end of a column of ``count``.

    `_by_bytes` wrote it at the offset ``at``.
    """
    numbers = bytearray(4 * (end - start))
    for place in range(4):
        first = at + place * count
        numbers[place::4] = data[first + start : first + end]
    column = array("I")
    column.frombytes(numbers)
    if byteorder == "big":
        column.byteswap()
    return column


class BlockIndex:
    """What stands where in a table: enough to read the one block in which a label must stand."""

    def __init__(self, next_sequence: int, link: int) -> None:
        self.next_sequence = next_sequence
        """Of the segment."""
        self.link = link
        """The check of its last frame."""
        self.labels = self.postings = 0
        self.firsts: list[str] = []
        """The first label of each block."""
        self.sizes = array("I")
        self.checks = array("I")
        self.offsets = [0]
        """Of each block, and of the end of the last."""

    def note(self, block: EncodedBlock, seed: int) -> None:
        """Add a block at the end."""
        self.labels += block.labels
        self.postings += block.postings
        self.firsts.append(block.first)
        self.sizes.append(len(block.data))
        self.checks.append(extend(seed, block.data))
        self.offsets.append(self.offsets[-1] + len(block.data))

    @property
    def blocks(self) -> int:
        """How many there are."""
        return len(self.firsts)

    def holding(self, label: str) -> range:
        """Return the blocks in which all positions of this label stand, if there are any."""
        first = bisect_left(self.firsts, label)
        behind = bisect_right(self.firsts, label, first)
        return range(first, behind) if behind > first else range(max(first - 1, 0), first)

    def beginning(self, prefix: str) -> range:
        """Return the blocks in which all labels that begin so stand, if there are any."""
        start = bisect_left(self.firsts, prefix)
        return range(
            max(start - 1, 0),
            bisect_left(self.firsts, True, start, key=lambda at: at[: len(prefix)] > prefix),
        )

    def block(self, n: int, data: bytes, seed: int) -> Block:
        """Return the block ``n`` from the bytes that stand at its place. Raises Damage."""
        if extend(seed, data) != self.checks[n]:
            raise Damage(f"the block of the index at offset {self.offsets[n]} does not check")
        block = Block(data)
        first, behind = self.firsts[n], self.firsts[n + 1] if n + 1 < self.blocks else None
        fits = behind is None or block.labels[-1] < behind or block.labels == [behind]
        if block.labels[0] != first or not fits:
            raise Damage(
                f"the block of the index at offset {self.offsets[n]} holds other labels "
                "than it should"
            )
        return block

    def encode(self, seed: int) -> bytes:
        """Return the bytes of the block index and of the trailer."""
        columns = b"".join(
            (_u32s(self.sizes), _u32s(self.checks), LINE_BREAK.join(self.firsts).encode())
        )
        counts = (len(self.firsts), self.labels, self.postings, self.offsets[-1])
        trailer = _TRAILER.pack(_MAGIC, VERSION, 0, self.next_sequence, self.link, *counts, 0, 0)
        data = columns + trailer[:-4]
        return data + extend(seed, data).to_bytes(4, "little")

    @classmethod
    def decode(cls, data: bytes, seed: int) -> BlockIndex:
        """Return the block index from the end of the table's file. Raises Damage.

        `block_index_at` says where it begins.
        """
        if len(data) < TRAILER_BYTES or extend(seed, data[:-4]) != int.from_bytes(
            data[-4:], "little"
        ):
            raise Damage("the end of the index does not check, or belongs to another segment")
        trailer = data[-TRAILER_BYTES:]
        _, version, flags, next_sequence, link, blocks, labels, postings, end, _, _ = (
            _TRAILER.unpack(trailer)
        )
        if version != VERSION or flags:
            raise Damage(
                f"the index is of version {version} with flags {flags:#x}, which are not known here"
            )
        try:
            sizes, checks = (
                _from_u32s(data[: 4 * blocks]),
                _from_u32s(data[4 * blocks : 8 * blocks]),
            )
            firsts = _lines(data[8 * blocks : -TRAILER_BYTES]) if blocks else []
        except ValueError:
            raise Damage("the block index cannot be read") from None
        offsets = list(accumulate(sizes, initial=0))
        if not len(firsts) == len(checks) == blocks or offsets[-1] != end:
            raise Damage("the block index does not fit its blocks")
        block_index = cls(next_sequence, link)
        block_index.labels, block_index.postings = labels, postings
        block_index.firsts, block_index.sizes, block_index.checks, block_index.offsets = (
            firsts,
            sizes,
            checks,
            offsets,
        )
        return block_index


def block_index_at(tail: bytes, size: int) -> int:
    """Return the offset of the block index in a file of this size, from its last 64 bytes.

    Raises Damage.
    """
    if len(tail) != TRAILER_BYTES or not tail.startswith(_MAGIC):
        raise Damage("the index does not end as one")
    end: int = _TRAILER.unpack(tail)[8]
    if end > size - TRAILER_BYTES:
        raise Damage("the index is shorter than it says")
    return end


def _u32s(column: array[int]) -> bytes:
    if byteorder == "big":
        column = array("I", column)
        column.byteswap()
    return column.tobytes()


def _from_u32s(data: bytes) -> array[int]:
    column = array("I")
    column.frombytes(data)
    if byteorder == "big":
        column.byteswap()
    return column
