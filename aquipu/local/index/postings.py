"""Which label stands at which records, gathered in memory. Pure.

`local.format.postings` says what positions and postings are, and how they are stored. What is
gathered here takes about 140 bytes a label, or 180 from its second position on, and 4 a position. A
builder may be given a limit to what it takes: then it leaves the last labels out
(`PostingsBuilder.ceiling`), for another pass. Positions are gathered in bytearrays, because the
garbage collector walks over lists and arrays: 100,000 of them would hold up the program for 10 ms
now and then.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Sequence
from itertools import islice, repeat
from operator import add
from struct import Struct
from sys import maxsize
from typing import TypeAlias

from aquipu.local.format.frame import Flag, Header, keys_of
from aquipu.local.format.frame import labels as labels_of
from aquipu.local.format.postings import LINE_BREAK, PackedPositions
from aquipu.local.index.meter import Meter, Pause
from aquipu.record import PRODUCERS

Counted: TypeAlias = "tuple[Collection[str], Collection[int]]"
"""Some labels, and how many records carry each."""
PRODUCER_MARK = "\0"
"""How the entries of producers begin in an index: no label of a user does."""
_pack = Struct("=I").pack
_RECORDS_MAX = 2**32
_SHARDS = 256  # a large dict takes milliseconds to grow, many small ones never much at a time
_SHARD = _SHARDS - 1  # the bits of a hash that tell which
_BUCKET = 1000  # labels that are sorted in one go
_SAMPLED = 8  # labels of each shard by which all are divided
_LABEL_BYTES = 128  # that a label takes in memory beside its text, with one position
_GROWING_BYTES = 40  # more, when it has several


def producer_entry(writer: bytes) -> str:
    """Return under which entry the keys of a producer stand: at the first records of batches."""
    return PRODUCER_MARK + writer.hex()


def as_array(held: PackedPositions) -> array[int]:
    """Return the postings as an array."""
    return array("I", held)


class PostingsBuilder:
    """The postings of a segment from its frames, one after another. For one thread at a time.

    Used for building a table, and as the index of a segment that is still being written: it may be
    asked between frames.
    """

    _RECORDS = 256  # taken between two looks at the meter

    def __init__(
        self, first_sequence: int, *, floor: str = "", bytes_max: int | None = None
    ) -> None:
        self.first_sequence = first_sequence
        self.next_sequence = first_sequence
        """That the next frame must begin with."""
        self.ceiling: str | None = None
        """This label and those behind it were left out, because there was no room within
        ``bytes_max``.
        """
        self._floor = floor  # labels before it are left out
        self._bytes_max = bytes_max
        self._bytes = 0  # that the postings take, about
        self._shards: list[dict[str, PackedPositions]] = [{} for _ in range(_SHARDS)]
        self._find = [shard.get for shard in self._shards]

    def take(self, header: Header, body: bytes, meter: Meter | None = None) -> None:
        """Take the next frame.

        ValueError when it is another one, or when its columns do not fit each other. OverflowError
        for a record that is too far behind the first. After any other error, in a pause too, the
        builder may hold a part of the frame, and is of no more use.
        """
        if header.next_sequence - self.first_sequence > _RECORDS_MAX:
            raise OverflowError(f"a segment of more than {_RECORDS_MAX} records cannot be indexed")
        if header.first_sequence != self.next_sequence:
            raise ValueError(
                f"a frame begins with sequence {header.first_sequence} "
                f"instead of {self.next_sequence}"
            )
        meter = meter or Meter()
        if header.flags & Flag.KEYED:
            meter.spend(2 * self._take_keys(header, body))
        if header.flags & Flag.RELATIONS:
            position = header.first_sequence - self.first_sequence
            each = iter(labels_of(header, body))
            meter.spend(2 * header.records)
            while some := list(islice(each, self._RECORDS)):
                meter.spend(2 * self._take(position, some))
                position += len(some)
        self.next_sequence = header.next_sequence
        while self._bytes_max is not None and self._bytes > self._bytes_max and self._narrow(meter):
            pass
        meter.spend(16 + header.size // 2048)

    def _take_keys(self, header: Header, body: bytes) -> int:
        """Take the keys of producers, and return how many keys there are.

        Those of a daemon's clients are looked for without an index: see `local.keyed`.
        """
        keys = keys_of(header, body)
        first = header.first_sequence - self.first_sequence
        for key in keys:
            if key.number & PRODUCERS:
                self._take(first + key.first, [(producer_entry(key.writer),)])
        return len(keys)

    def _take(self, first: int, some: list[tuple[str, ...]]) -> int:
        """Take the labels of some records, from this position on; return how many they are."""
        shards, find = self._shards, self._find
        count = 0
        for packed, of_record in zip(
            map(_pack, range(first, first + len(some))), some, strict=True
        ):
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
        if LINE_BREAK in label:
            raise ValueError("a label holds a line break")
        if label < self._floor or (self.ceiling is not None and label >= self.ceiling):
            self._bytes -= 4
        else:
            self._shards[hash(label) & _SHARD][label] = packed
            self._bytes += _LABEL_BYTES + len(label)

    def size(self, label: str) -> int:
        """Return at how many records this label stands."""
        return len(self._shards[hash(label) & _SHARD].get(label, b"")) // 4

    def positions(self, label: str, pause: Pause = lambda: None) -> array[int]:
        """Return where this label stands."""
        held = self._shards[hash(label) & _SHARD].get(label)
        return array("I") if held is None else as_array(held)

    def counts(self, prefix: str = "", pause: Pause = lambda: None) -> Iterator[tuple[str, int]]:
        """Yield the labels that begin so, in order, and how many records each has.

        No frame may be taken meanwhile.
        """
        for label in self._in_order(prefix, Meter(pause)):
            yield label, len(self._shards[hash(label) & _SHARD][label]) // 4

    def drain(self, meter: Meter) -> Iterator[tuple[str, PackedPositions]]:
        """Yield each label, in order, and where it stands.

        Each is forgotten when it is given: all at once would take long.
        """
        for label in self._in_order("", meter):
            yield label, self._shards[hash(label) & _SHARD].pop(label)

    def _in_order(self, prefix: str, meter: Meter) -> Iterator[str]:
        """Yield the labels that begin so, in order.

        Sorting all of them in one go would take long, so they are divided first.
        """
        sample, count = self._sample(prefix, meter)
        pivots = sample[:: len(sample) * _BUCKET // count + 1] if sample else []
        buckets: list[list[str]] = [[] for _ in range(len(pivots) + 1)]
        for chunk in self._chunks(prefix, meter):
            for start in range(0, len(chunk), _BUCKET):
                some = chunk[start : start + _BUCKET]
                for label, place in zip(some, map(bisect_right, repeat(pivots), some), strict=True):
                    buckets[place].append(label)
                meter.spend(2 * len(some))
        buckets.reverse()
        while buckets:
            bucket = sorted(buckets.pop())
            meter.spend(len(bucket))
            yield from bucket

    def _chunks(self, prefix: str, meter: Meter) -> Iterator[list[str]]:
        """Yield the labels that begin so, in no order.

        Not all in one list: the garbage collector walks over lists, too.
        """
        for shard in self._shards:
            yield [label for label in shard if label.startswith(prefix)] if prefix else list(shard)
            meter.spend(len(shard) // 4)

    def _sample(self, prefix: str, meter: Meter) -> tuple[list[str], int]:
        """Return some of the labels that begin so, in order, and how many all are.

        All of them are divided by these.
        """
        sample: list[str] = []
        count = 0
        for chunk in self._chunks(prefix, meter):
            sample += chunk[:: len(chunk) // _SAMPLED + 1]
            count += len(chunk)
        return sorted(sample), count

    def _narrow(self, meter: Meter) -> bool:
        """Leave out the last half of the labels from now on.

        False when there is but one, which stays.
        """
        sample, count = self._sample("", meter)
        if count < 2:
            return False
        ceiling = self.ceiling = sample[len(sample) // 2]
        self._bytes = 0
        for n, shard in enumerate(self._shards):
            self._shards[n] = {label: held for label, held in shard.items() if label < ceiling}
            self._find[n] = self._shards[n].get
            self._bytes += sum(map(_bytes_of, self._shards[n].items()))
            meter.spend(4 * len(shard))
        return True


def _bytes_of(entry: tuple[str, PackedPositions]) -> int:
    label, held = entry
    return _LABEL_BYTES + len(label) + (_GROWING_BYTES + len(held) if len(held) > 4 else 0)


_WINDOW = 4096  # positions that are compared in one go


def combine(
    columns: Sequence[array[int]], *, every: bool, pause: Pause = lambda: None
) -> array[int]:
    """Return the positions in every one of these columns, or in any; ascending, each once."""
    if len(columns) == 1:
        return columns[0]
    if every and not all(columns):
        return array("I")
    join = set.intersection if every else set.union
    found = array("I")
    window = _WINDOW if sum(map(len, columns)) > _WINDOW else maxsize
    for low in range(0, max((column[-1] for column in columns if column), default=-1) + 1, window):
        parts = [
            set(column[bisect_left(column, low) : bisect_left(column, low + window)])
            for column in columns
        ]
        found.extend(sorted(join(*parts)))
        pause()
    return found


def add_counts(total: dict[str, int], counted: Counted) -> None:
    """Add up how many records carry each of some labels, which are different."""
    labels, counts = counted
    before = map(total.get, labels, repeat(0))  # each is taken when it is added to
    total.update(zip(labels, map(add, before, counts), strict=True))
