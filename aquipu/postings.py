"""Which label stands at which records: gathered in memory, and as the bytes of a table and back. Pure.

A table is derived from one sealed segment and can always be made again. A **position** is a record's place in its segment
(its sequence less the first one of the segment); the **postings** of a label are its positions, ascending, each once.
Labels are sorted as bytes of UTF-8, which is also their order as text. All numbers are little-endian::

    table                                       a block, before it is compressed (zlib)
    blocks     one behind another, from 0       u32               labels in the block
    outline    u32 × blocks: their sizes        u32               bytes of text
               u32 × blocks: their checks       text              the labels, a line break between two
               the first label of each,         u32 × labels      how many positions each has here       } byte by byte:
               a line break between two         u32 × positions   of one label after another: its first  } all lowest bytes,
    trailer    64 bytes                                           one, then the steps from each to the   } then all second
                                                                  next                                   } ones, and so on
    trailer
    0   8  magic "aquipuRE"                     32  8  labels in the table
    8   4  format version                       40  8  postings in the table
    12  4  flags                                48  8  end of the blocks: offset of the outline
    16  8  next sequence of the segment         56  4  zeros
    24  4  link: check of its last frame        60  4  check of the outline and the above
    28  4  blocks

Every check is a CRC32C that starts from the segment's seed. The one at the end covers the checks of the blocks, and these
cover every other byte, so a table stands or falls as a whole, and yet each block can be checked by itself. That a label is
*not* there is proven by the block in which it would stand. Next sequence and link say which life of the segment was read.

A block holds about 16 KiB. A label with many positions has blocks of its own, one behind another, which begin with the same
label; every other label stands in one block. Stored byte by byte the steps are mostly columns of zeros, and zlib needs no
more than its quickest level for those: 3 labels a record, 100,000 different ones, take 6 % of the log's size.

A worked example. The label "a" is on the records 1, 2 and 300 of a segment, the label "bc" on record 2. The block::

    02 00 00 00  04 00 00 00                two labels, 4 bytes of text
    61 0a 62 63                             "a", "bc"
    03 01  00 00  00 00  00 00              3 positions and 1
    01 01 2a 02  00 00 01 00  00 00 00 00  00 00 00 00     1, +1, +298; 2

Downsides, known and accepted: a label with a line break cannot be stored (no store takes one); a position is a u32, so a
segment of more than 2^32 records has no table (OverflowError); to read the first position of a label, all of them are read.

What is gathered in memory takes about 140 bytes a label, or 180 from its second position on, and 4 a position. A gathering
may be told how much it may take: then it leaves the last labels out (`Gathering.ceiling`), for another pass. Positions are
gathered in bytearrays, because the garbage collector walks over lists and arrays: 100,000 of them would hold up the program
for 10 ms now and then.
"""

from __future__ import annotations

import heapq
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain, groupby, islice, repeat, takewhile
from operator import itemgetter, sub
from struct import Struct
from sys import byteorder, maxsize
from typing import NamedTuple, TypeAlias

from aquipu.checksum import extend
from aquipu.frame import Flag, Header
from aquipu.frame import labels as labels_of
from aquipu.layout import Damage

VERSION = 1
BLOCK_BYTES = 16 * 1024
"""A block is full when it holds this much, before it is compressed."""
RUN_POSITIONS = BLOCK_BYTES // 4
"""A label with more positions than this has blocks of its own, with so many positions each."""

_MAGIC = b"aquipuRE"
_TRAILER = Struct("<8sIIQIIQQQII")
_BLOCK = Struct("<II")
_pack = Struct("=I").pack
_LINE_BREAK = "\n"
_RECORDS_MAX = 2**32
TRAILER_BYTES = _TRAILER.size

_SHARDS = 256  # a large dict takes milliseconds to grow, many small ones never much at a time
_SHARD = _SHARDS - 1  # the bits of a hash that tell which
_BUCKET = 1000  # labels that are sorted in one go
_SAMPLED = 8  # labels of each shard by which all are divided
_LABEL_BYTES = 128  # that a label takes in memory beside its text, with one position
_GROWING_BYTES = 40  # more, when it has several

Pause: TypeAlias = Callable[[], None]

Held: TypeAlias = bytes | bytearray
"""The postings of one label in memory: u32s, in the order of this machine."""


def as_array(held: Held) -> array[int]:
    """The postings as all others know them."""
    return array("I", held)


class Pace:
    """Divides long work: calls ``pause`` each time that about 0.3 ms of work is done. What it raises ends the work."""

    SLICE = 1200

    def __init__(self, pause: Pause = lambda: None) -> None:
        self._pause = pause
        self._left = self.SLICE

    def spend(self, work: int) -> None:
        """So much has been done, in quarters of a microsecond."""
        self._left -= work
        if self._left <= 0:
            self._left = self.SLICE
            self._pause()


# in memory


class Gathering:
    """The postings of a segment from its frames, one after another. For one thread at a time.

    Used for building a table, and as the index of a segment that is still being written: it may be asked between frames.
    """

    _RECORDS = 256  # taken between two looks at the pace

    def __init__(self, first_sequence: int, *, floor: str = "", bytes_max: int | None = None) -> None:
        self.first_sequence = first_sequence
        self.next_sequence = first_sequence
        """That the next frame must begin with."""
        self.ceiling: str | None = None
        """This label and those behind it were left out, because there was no room within ``bytes_max``."""
        self._floor = floor  # labels before it are left out
        self._bytes_max = bytes_max
        self._bytes = 0  # that the postings take, about
        self._shards: list[dict[str, Held]] = [{} for _ in range(_SHARDS)]
        self._find = [shard.get for shard in self._shards]

    def take(self, header: Header, body: bytes, pace: Pace | None = None) -> None:
        """The next frame. ValueError when it is another one, or when its columns do not fit each other.

        OverflowError for a record that is too far behind the first. After any other error, in a pause too, the gathering
        may hold a part of the frame, and is of no more use.
        """
        if header.next_sequence - self.first_sequence > _RECORDS_MAX:
            raise OverflowError(f"a segment of more than {_RECORDS_MAX} records cannot be indexed")
        if header.first_sequence != self.next_sequence:
            raise ValueError(f"a frame begins with sequence {header.first_sequence} instead of {self.next_sequence}")
        pace = pace or Pace()
        if header.flags & Flag.RELATIONS:
            position = header.first_sequence - self.first_sequence
            each = iter(labels_of(header, body))
            pace.spend(2 * header.records)
            while some := list(islice(each, self._RECORDS)):
                pace.spend(2 * self._take(position, some))
                position += len(some)
        self.next_sequence = header.next_sequence
        while self._bytes_max is not None and self._bytes > self._bytes_max and self._narrow(pace):
            pass
        pace.spend(16 + header.size // 2048)

    def _take(self, first: int, some: list[tuple[str, ...]]) -> int:
        """The labels of some records, from this position on; how many they are."""
        shards, find = self._shards, self._find
        count = 0
        for packed, of_record in zip(map(_pack, range(first, first + len(some))), some, strict=True):
            count += len(of_record)
            # a label may be given twice with one record
            for label in of_record if len(set(of_record)) == len(of_record) else set(of_record):
                held = find[hash(label) & _SHARD](label)
                if held is None:
                    self._begin(label, packed)
                elif isinstance(held, bytearray):
                    held += packed
                else:
                    shards[hash(label) & _SHARD][label] = bytearray(held + packed)
                    self._bytes += _GROWING_BYTES
        self._bytes += 4 * count
        return count

    def _begin(self, label: str, packed: bytes) -> None:
        if _LINE_BREAK in label:
            raise ValueError("a label holds a line break")
        if label < self._floor or (self.ceiling is not None and label >= self.ceiling):
            self._bytes -= 4
        else:
            self._shards[hash(label) & _SHARD][label] = packed
            self._bytes += _LABEL_BYTES + len(label)

    def positions(self, label: str) -> array[int]:
        """Where this label stands."""
        held = self._shards[hash(label) & _SHARD].get(label)
        return array("I") if held is None else as_array(held)

    def counts(self, prefix: str = "", pause: Pause = lambda: None) -> Iterator[tuple[str, int]]:
        """The labels that begin so, in order, and how many records each has. No frame may be taken meanwhile."""
        for label in self._in_order(prefix, Pace(pause)):
            yield label, len(self._shards[hash(label) & _SHARD][label]) // 4

    def drain(self, pace: Pace) -> Iterator[tuple[str, Held]]:
        """Each label, in order, and where it stands. Each is forgotten when it is given: all at once would take long."""
        for label in self._in_order("", pace):
            yield label, self._shards[hash(label) & _SHARD].pop(label)

    def _in_order(self, prefix: str, pace: Pace) -> Iterator[str]:
        """The labels that begin so. Sorting all of them in one go would take long, so they are divided first."""
        sample, count = self._sample(prefix, pace)
        pivots = sample[:: len(sample) * _BUCKET // count + 1] if sample else []
        buckets: list[list[str]] = [[] for _ in range(len(pivots) + 1)]
        for chunk in self._chunks(prefix, pace):
            for start in range(0, len(chunk), _BUCKET):
                some = chunk[start : start + _BUCKET]
                for label, place in zip(some, map(bisect_right, repeat(pivots), some), strict=True):
                    buckets[place].append(label)
                pace.spend(2 * len(some))
        buckets.reverse()
        while buckets:
            bucket = sorted(buckets.pop())
            pace.spend(len(bucket))
            yield from bucket

    def _chunks(self, prefix: str, pace: Pace) -> Iterator[list[str]]:
        """The labels that begin so, in no order. Not all in one list: the garbage collector walks over lists, too."""
        for shard in self._shards:
            yield [label for label in shard if label.startswith(prefix)] if prefix else list(shard)
            pace.spend(len(shard) // 4)

    def _sample(self, prefix: str, pace: Pace) -> tuple[list[str], int]:
        """Some of the labels that begin so, in order, to divide all of them by; and how many all are."""
        sample: list[str] = []
        count = 0
        for chunk in self._chunks(prefix, pace):
            sample += chunk[:: len(chunk) // _SAMPLED + 1]
            count += len(chunk)
        return sorted(sample), count

    def _narrow(self, pace: Pace) -> bool:
        """Leave out the last half of the labels from now on. False when there is but one, which stays."""
        sample, count = self._sample("", pace)
        if count < 2:
            return False
        ceiling = self.ceiling = sample[len(sample) // 2]
        self._bytes = 0
        for n, shard in enumerate(self._shards):
            self._shards[n] = {label: held for label, held in shard.items() if label < ceiling}
            self._find[n] = self._shards[n].get
            self._bytes += sum(map(_bytes_of, self._shards[n].items()))
            pace.spend(4 * len(shard))
        return True


def _bytes_of(entry: tuple[str, Held]) -> int:
    label, held = entry
    return _LABEL_BYTES + len(label) + (_GROWING_BYTES + len(held) if len(held) > 4 else 0)


# blocks


class EncodedBlock(NamedTuple):
    """A block ready to be written."""

    data: bytes
    first: str
    """Its first label."""
    labels: int
    """That begin in it: none in the second and later block of one label."""
    postings: int


class _Draft:
    """A block that is being filled."""

    def __init__(self) -> None:
        self.labels: list[str] = []
        self.held: list[Held] = []
        self.size = 0

    def add(self, label: str, held: Held) -> None:
        self.labels.append(label)
        self.held.append(held)
        self.size += len(label) + 5 + len(held)

    def encode(self, *, begins: bool = True) -> EncodedBlock:
        text = _LINE_BREAK.join(self.labels).encode()
        counts = array("I", [len(held) // 4 for held in self.held])
        positions = array("I", b"".join(self.held))
        head = _BLOCK.pack(len(counts), len(text))
        raw = b"".join((head, text, *_by_bytes(counts), *_by_bytes(_steps(positions, counts))))
        return EncodedBlock(zlib.compress(raw, 1), self.labels[0], len(counts) if begins else 0, len(positions))


def _steps(positions: array[int], counts: array[int]) -> array[int]:
    """From position to position. That from one label to the next may be negative; the position itself takes its place."""
    steps = array("q", map(sub, positions, chain((0,), positions)))
    for start in islice(accumulate(counts), len(counts) - 1):
        steps[start] = positions[start]
    return steps


def encode_blocks(entries: Iterable[tuple[str, Held]]) -> Iterator[EncodedBlock]:
    """The blocks for these labels, which come in order."""
    draft = _Draft()
    for label, held in entries:
        if len(held) > 4 * RUN_POSITIONS:
            if draft.labels:
                yield draft.encode()
                draft = _Draft()
            yield from _run(label, held)
            continue
        draft.add(label, held)
        if draft.size >= BLOCK_BYTES:
            yield draft.encode()
            draft = _Draft()
    if draft.labels:
        yield draft.encode()


def _run(label: str, held: Held) -> Iterator[EncodedBlock]:
    """The blocks of one label that has many positions."""
    for start in range(0, len(held), 4 * RUN_POSITIONS):
        draft = _Draft()
        draft.add(label, held[start : start + 4 * RUN_POSITIONS])
        yield draft.encode(begins=start == 0)


class Block:
    """A block that has passed its check. Raises Damage when its parts do not fit each other, which no writer here makes."""

    def __init__(self, data: bytes) -> None:
        try:
            raw = zlib.decompress(data)
            count, size = _BLOCK.unpack(raw[: _BLOCK.size].ljust(_BLOCK.size, b"\0"))
            at = _BLOCK.size + size
            self.labels = _lines(raw[_BLOCK.size : at])
        except (zlib.error, UnicodeDecodeError):
            raise Damage("a block of the index cannot be read") from None
        if len(self.labels) != count or at + 4 * count > len(raw):
            raise Damage("a block of the index does not hold the labels that it tells of")
        self.counts = _from_bytes(raw, at, count, 0, count)
        self._raw = raw
        self._at = at + 4 * count
        self._positions = sum(self.counts)
        if self._at + 4 * self._positions != len(raw):
            raise Damage("a block of the index does not hold the positions that it tells of")

    def positions(self, label: str) -> array[int]:
        """Where this label stands, as far as this block tells."""
        place = bisect_left(self.labels, label)
        if place == len(self.labels) or self.labels[place] != label:
            return array("I")
        start = sum(self.counts[:place])
        return self._between(start, start + self.counts[place])

    def counted(self, prefix: str) -> Iterator[tuple[str, int]]:
        """The labels that begin so, and how many positions of each stand in this block."""
        place = bisect_left(self.labels, prefix)
        return takewhile(
            lambda entry: entry[0].startswith(prefix), zip(self.labels[place:], self.counts[place:], strict=True)
        )

    def entries(self) -> Iterator[tuple[str, array[int]]]:
        """Each label with its positions."""
        for label, end, count in zip(self.labels, accumulate(self.counts), self.counts, strict=True):
            yield label, self._between(end - count, end)

    def _between(self, start: int, end: int) -> array[int]:
        try:
            return array("I", accumulate(_from_bytes(self._raw, self._at, self._positions, start, end)))
        except OverflowError:
            raise Damage("a block of the index holds a position that cannot be") from None


def _lines(text: bytes) -> list[str]:
    return text.decode().split(_LINE_BREAK)


def _by_bytes(column: array[int]) -> list[bytes]:
    """The lower four bytes of each number: all lowest ones, then all second ones, and so on."""
    data, size = column.tobytes(), column.itemsize
    places = range(4) if byteorder == "little" else range(size - 1, size - 5, -1)
    return [data[place::size] for place in places]


def _from_bytes(data: bytes, at: int, count: int, start: int, end: int) -> array[int]:
    """The numbers from start to end of a column of ``count`` that `_by_bytes` wrote at the offset ``at``."""
    numbers = bytearray(4 * (end - start))
    for place in range(4):
        first = at + place * count
        numbers[place::4] = data[first + start : first + end]
    column = array("I")
    column.frombytes(numbers)
    if byteorder == "big":
        column.byteswap()
    return column


# the outline


class Outline:
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
        """One more block stands at the end."""
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
        """The blocks in which all positions of this label stand, if there are any."""
        first = bisect_left(self.firsts, label)
        behind = bisect_right(self.firsts, label, first)
        return range(first, behind) if behind > first else range(max(first - 1, 0), first)

    def beginning(self, prefix: str) -> range:
        """The blocks in which all labels that begin so stand, if there are any."""
        start = bisect_left(self.firsts, prefix)
        return range(max(start - 1, 0), bisect_left(self.firsts, True, start, key=lambda at: at[: len(prefix)] > prefix))

    def block(self, n: int, data: bytes, seed: int) -> Block:
        """The block ``n`` from the bytes that stand at its place. Raises Damage."""
        if extend(seed, data) != self.checks[n]:
            raise Damage(f"the block of the index at offset {self.offsets[n]} does not check")
        block = Block(data)
        first, behind = self.firsts[n], self.firsts[n + 1] if n + 1 < self.blocks else None
        fits = behind is None or block.labels[-1] < behind or block.labels == [behind]
        if block.labels[0] != first or not fits:
            raise Damage(f"the block of the index at offset {self.offsets[n]} holds other labels than it should")
        return block

    def encode(self, seed: int) -> bytes:
        """The outline and the trailer."""
        columns = b"".join((_u32s(self.sizes), _u32s(self.checks), _LINE_BREAK.join(self.firsts).encode()))
        counts = (len(self.firsts), self.labels, self.postings, self.offsets[-1])
        trailer = _TRAILER.pack(_MAGIC, VERSION, 0, self.next_sequence, self.link, *counts, 0, 0)
        data = columns + trailer[:-4]
        return data + extend(seed, data).to_bytes(4, "little")

    @classmethod
    def decode(cls, data: bytes, seed: int) -> Outline:
        """From the end of the table's file, as far as `outline_at` says. Raises Damage."""
        if len(data) < TRAILER_BYTES or extend(seed, data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise Damage("the end of the index does not check, or belongs to another segment")
        trailer = data[-TRAILER_BYTES:]
        _, version, flags, next_sequence, link, blocks, labels, postings, end, _, _ = _TRAILER.unpack(trailer)
        if version != VERSION or flags:
            raise Damage(f"the index is of version {version} with flags {flags:#x}, which are not known here")
        try:
            sizes, checks = _from_u32s(data[: 4 * blocks]), _from_u32s(data[4 * blocks : 8 * blocks])
            firsts = _lines(data[8 * blocks : -TRAILER_BYTES]) if blocks else []
        except ValueError:
            raise Damage("the outline of the index cannot be read") from None
        offsets = list(accumulate(sizes, initial=0))
        if not len(firsts) == len(checks) == blocks or offsets[-1] != end:
            raise Damage("the outline of the index does not fit its blocks")
        outline = cls(next_sequence, link)
        outline.labels, outline.postings = labels, postings
        outline.firsts, outline.sizes, outline.checks, outline.offsets = firsts, sizes, checks, offsets
        return outline


def outline_at(tail: bytes, size: int) -> int:
    """The offset of the outline in a file of this size, as its last 64 bytes tell. Raises Damage."""
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


# several at once

_WINDOW = 4096  # positions that are compared in one go


def combine(columns: Sequence[array[int]], *, every: bool, pause: Pause = lambda: None) -> array[int]:
    """The positions that stand in every one of these columns, or in any of them; ascending, each once."""
    if len(columns) == 1:
        return columns[0]
    if every and not all(columns):
        return array("I")
    join = set.intersection if every else set.union
    found = array("I")
    window = _WINDOW if sum(map(len, columns)) > _WINDOW else maxsize
    for low in range(0, max((column[-1] for column in columns if column), default=-1) + 1, window):
        parts = [set(column[bisect_left(column, low) : bisect_left(column, low + window)]) for column in columns]
        found.extend(sorted(join(*parts)))
        pause()
    return found


def summed(counts: Iterable[Iterable[tuple[str, int]]]) -> Iterator[tuple[str, int]]:
    """Labels with their counts from several segments, each in order, as one: in order, each label once."""
    for label, same in groupby(heapq.merge(*counts), itemgetter(0)):
        yield label, sum(count for _, count in same)
