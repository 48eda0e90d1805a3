"""The columns of a frame's records as bytes and back: see `frame`. Pure.

A frame may hold very many records, of which one, or a few, are asked for: with a label, at a place
in a search. So a `Decoder` makes values of those alone. What lies between two of them it passes
over by the sum of its lengths, and it finds a label by its bytes.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO, StringIO
from itertools import accumulate, chain, islice, pairwise, repeat
from struct import Struct
from typing import NamedTuple
from zlib import adler32

from aquipu.record import Record

_U32 = Struct("<I")
_record = partial(tuple.__new__, Record)  # a third of the price of Record(...)
_PAYLOADS_FILL = "the payloads of a frame do not fill its body"
_LABELS_FILL = "the labels of a frame do not fill their columns"
_NO_UTF8 = "a label of a frame is no UTF-8"
_ADLER_BYTES = 256  # of which the sum is surely in an Adler-32
_OFTEN = 10  # of so many records one is sought: then the places of all are made


class Decoder:
    """The columns of a sound frame, of which only what is asked for becomes values.

    An index is that of a record in the frame. Every method raises ValueError when what it looks at
    does not fit, which no writer here makes.
    """

    __slots__ = ("_body", "_first_sequence", "_labels", "_lengths", "_payloads_at", "_times_at")

    def __init__(
        self, first_sequence: int, count: int, body: bytes, at: int, *, labelled: bool
    ) -> None:
        """Take the body of a frame, in which the columns begin at an offset."""
        self._first_sequence, self._body = first_sequence, body
        self._lengths = _numbers("I", body, at, count)
        self._times_at = at + 4 * count
        self._payloads_at = at + 12 * count
        if self._payloads_at > len(body):
            raise ValueError("a frame ends before its columns")
        self._labels: _Labels | None = None
        if labelled:
            self._labels = _Labels(body, self._payloads_at, count)
            self._payloads_at = self._labels.end

    def records(self, begin: int, stop: int) -> Iterator[Record]:
        """Return the records from ``begin`` up to ``stop``, each made when it is asked for.

        What does not fit is found out before.
        """
        first, times = self._first_sequence, self.times(begin, stop)
        payloads, relations = self.payloads(begin, stop), self.labels(begin, stop)
        numbers = range(first + begin, first + stop)
        return map(_record, zip(numbers, times, payloads, relations, strict=False))

    def records_at(self, indices: Sequence[int]) -> list[Record]:
        """Return the records at these indices, which ascend; the others stay bytes."""
        body, lengths, first = self._body, self._lengths, self._first_sequence
        count = len(lengths)
        if 2 * len(indices) > count:  # cheaper then
            every = list(self.records(0, count))
            return every if len(indices) == count else [every[index] for index in indices]
        relations = repeat(()) if self._labels is None else self._labels.at(indices)
        times = self.times(0, count)
        if _OFTEN * len(indices) > count:
            starts = list(accumulate(lengths, initial=self._payloads_at))
            if starts[-1] != len(body):
                raise ValueError(_PAYLOADS_FILL)
            return [
                _record((first + at, times[at], body[starts[at] : starts[at + 1]], carried))
                for at, carried in zip(indices, relations, strict=False)
            ]
        found: list[Record] = []
        begin, passed = self._payloads_at, 0
        for index, carried in zip(indices, relations, strict=False):
            begin += sum(lengths[passed:index])
            data = body[begin : (begin := begin + lengths[index])]
            found.append(_record((first + index, times[index], data, carried)))
            passed = index + 1
        if begin + sum(lengths[passed:]) != len(body):
            raise ValueError(_PAYLOADS_FILL)
        return found

    def times(self, begin: int, stop: int) -> array[int]:
        """Return the times of the records from ``begin`` up to ``stop``."""
        return _numbers("Q", self._body, self._times_at + 8 * begin, stop - begin)

    def payloads(self, begin: int, stop: int) -> Sequence[bytes]:
        """Return the data of the records from ``begin`` up to ``stop``."""
        lengths, body, at = self._lengths, BytesIO(self._body), self._payloads_at
        if at + sum(lengths) != len(self._body):
            raise ValueError(_PAYLOADS_FILL)
        body.seek(at + sum(lengths[:begin]))
        return list(map(body.read, lengths[begin:stop]))

    def labels(self, begin: int, stop: int) -> Iterator[tuple[str, ...]]:
        """Return the labels of the records from ``begin`` up to ``stop``, one after another."""
        if self._labels is None:
            return repeat((), stop - begin)
        return self._labels.between(begin, stop)

    def carrying(self, label: str) -> list[int]:
        """Return the indices of the records that carry a label; no label becomes a text."""
        return [] if self._labels is None else self._labels.carrying(label.encode())

    def records_carrying(self, label: str) -> list[Record]:
        """Return the records that carry a label."""
        count = len(self._lengths)
        if self._labels is None or 5 * self._labels.count(label.encode()) < count:
            return self.records_at(indices) if (indices := self.carrying(label)) else []
        # where many do, it is cheaper to read the labels of all
        numbers = range(self._first_sequence, self._first_sequence + count)
        columns = (self.times(0, count), self.payloads(0, count), self.labels(0, count))
        rows = zip(numbers, *columns, strict=False)
        return [_record(row) for row in rows if label in row[3]]


class _Labels:
    """The label columns of a frame."""

    __slots__ = ("_at", "_body", "_counts", "_each", "_lengths", "_lengths_at", "end")

    def __init__(self, body: bytes, at: int, count: int) -> None:
        if len(body) < at + _U32.size:
            raise ValueError("a frame ends before its labels")
        self.end = at + _U32.size + _U32.unpack_from(body, at)[0]
        at += _U32.size
        self._body = body
        self._counts = counts = body[at : at + count]
        each = counts[0] if counts else 0
        # how many each record has, when all have as many: mostly they do
        self._each = each if counts.count(each) == count else None
        self._lengths = _numbers("H", body, at + count, self._before(count))
        self._lengths_at = at + count
        self._at = at + count + 2 * len(self._lengths)  # of their text
        if not self._at <= self.end <= len(body):
            raise ValueError(_LABELS_FILL)

    def _before(self, index: int) -> int:
        """Return how many labels stand before those of this record."""
        return sum(self._counts[:index]) if self._each is None else self._each * index

    def between(self, begin: int, stop: int) -> Iterator[tuple[str, ...]]:
        """Return the labels of the records from ``begin`` up to ``stop``, one after another."""
        first, behind, lengths = self._before(begin), self._before(stop), self._lengths
        at, end = self._at + sum(lengths[:first]), self.end - sum(lengths[behind:])
        texts = _texts(self._body[at:end], lengths[first:behind])
        if self._each is None:
            ends = accumulate(self._counts[begin:stop], initial=0)
            return iter([tuple(texts[start:end]) for start, end in pairwise(ends)])
        if self._each == 0:
            return repeat((), stop - begin)
        return zip(*[iter(texts)] * self._each, strict=False)

    def at(self, indices: Sequence[int]) -> Iterable[tuple[str, ...]]:
        """Return the labels of the records at these indices, which ascend."""
        lengths, counts, each = self._short_lengths(), self._counts, self._each
        sizes: list[int] = []  # of the texts between two of the records as well
        passed = behind = 0  # of the records, of the labels
        for index in indices:
            first = behind + _sum(counts[passed:index]) if each is None else each * index
            sizes.append(_sum(lengths[behind:first]))
            passed, behind = index + 1, first + counts[index]
            sizes += lengths[first:behind]
        if self._at + sum(sizes) + _sum(lengths[behind:]) != self.end:
            raise ValueError(_LABELS_FILL)
        body = BytesIO(self._body)
        body.seek(self._at)
        pieces = list(map(body.read, sizes))
        try:
            if each:
                columns = [map(bytes.decode, pieces[n :: each + 1]) for n in range(1, each + 1)]
                return list(zip(*columns, strict=True))
            following = iter(pieces)
            return [
                tuple(map(bytes.decode, islice(following, 1, 1 + counts[index])))
                for index in indices
            ]
        except UnicodeDecodeError:
            raise ValueError(_NO_UTF8) from None

    def _short_lengths(self) -> bytes | array[int]:
        """Return the lengths of the labels; as bytes, if none has more than 255."""
        low, high = (
            self._body[at : self._at : 2] for at in (self._lengths_at, self._lengths_at + 1)
        )
        return low if high.count(0) == len(high) else self._lengths

    def count(self, label: bytes) -> int:
        """Return about how many records carry a label: as many as in the first eighth, each."""
        return 8 * self._body.count(label, self._at, self._at + (self.end - self._at) // 8)

    def carrying(self, label: bytes) -> list[int]:
        """Return the indices of the records that carry a label, ascending, each once."""
        body, begin, end = self._body, self._at, self.end
        place = body.find(label, begin, end)
        if place < 0:
            return []
        lengths = self._short_lengths()
        count, numbers = len(lengths), []
        number, start = 0, begin  # of a text that begins before the place, or there
        while place >= 0:
            # as many texts as are so long on average, and then one by one
            some = lengths[number : number + (place - start) * count // (end - begin)]
            number, start = number + len(some), start + _sum(some)
            while start > place:
                number -= 1
                start -= lengths[number]
            while start < place and number < count:
                start += lengths[number]
                number += 1
            if start == place and number < count:
                if lengths[number] == len(label):
                    numbers.append(number)
                start += lengths[number]
                number += 1
            place = body.find(label, max(start, place + 1), end)
        if start + _sum(lengths[number:]) != end:
            raise ValueError(_LABELS_FILL)
        if self._each is not None:
            indices = [number // self._each for number in numbers]
        else:
            ends = list(accumulate(self._counts))
            indices = [bisect_right(ends, number) for number in numbers]
        return list(dict.fromkeys(indices))  # a label may stand twice at one record


def _texts(spelled: bytes, lengths: Sequence[int]) -> list[str]:
    """Return the labels that these bytes spell, which must be filled by them."""
    if sum(lengths) != len(spelled):
        raise ValueError(_LABELS_FILL)
    if spelled.isascii():  # bytes and characters stand at the same places
        return list(map(StringIO(spelled.decode()).read, lengths))
    try:
        return list(map(bytes.decode, map(BytesIO(spelled).read, lengths)))
    except UnicodeDecodeError:
        raise ValueError(_NO_UTF8) from None


def _sum(numbers: bytes | array[int]) -> int:
    """Return the sum of these numbers.

    That of up to 256 bytes is less than 65,521, and Adler-32 (RFC 1950) has it, and one more, in
    its lower half: a tenth of the time.
    """
    if type(numbers) is bytes and len(numbers) <= _ADLER_BYTES:
        return (adler32(numbers) & 0xFFFF) - 1
    return sum(numbers)


class ColumnBytes(NamedTuple):
    """The columns of the records of a frame, as they stand in its body."""

    body: bytes
    at: int
    """Offset at which they begin; they end with the body."""
    records: int
    """How many there are."""
    labelled: bool
    """Whether there are label columns."""


def joined(parts: Sequence[ColumnBytes]) -> bytes:
    """Return the columns of the records of several frames, one behind another, as those of one."""
    lengths, times, counts, sizes, texts, payloads = [], [], [], [], [], list[bytes]()
    for body, at, count, labelled in parts:
        lengths.append(body[at : at + 4 * count])
        times.append(body[at + 4 * count : (at := at + 12 * count)])
        if labelled:
            of_each = body[at + 4 : at + 4 + count]
            end = at + 4 + _U32.unpack_from(body, at)[0]
            counts.append(of_each)
            sizes.append(body[at + 4 + count : (at := at + 4 + count + 2 * sum(of_each))])
            texts.append(body[at : (at := end)])
        else:
            counts.append(bytes(count))
        payloads.append(body[at:])
    labels = []
    if any(part.labelled for part in parts):
        spelled = b"".join((*counts, *sizes, *texts))
        labels = [_U32.pack(len(spelled)), spelled]
    return b"".join((*lengths, *times, *labels, *payloads))


def label_columns(labels: Mapping[int, tuple[str, ...]], count: int) -> bytes:
    of_each = list(map(labels.get, range(count), repeat(())))
    texts = list(chain.from_iterable(of_each))
    together = "".join(texts)
    is_ascii = together.isascii()  # then a text has as many bytes as characters
    lengths = map(len, texts) if is_ascii else map(len, map(str.encode, texts))
    columns = bytes(map(len, of_each)) + column("H", lengths) + together.encode()
    return _U32.pack(len(columns)) + columns


def column(code: str, numbers: Iterable[int]) -> bytes:
    column = array(code, numbers)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _numbers(code: str, body: bytes, at: int, count: int) -> array[int]:
    column: array[int] = array(code)
    end = at + column.itemsize * count
    if end > len(body):
        raise ValueError("a frame ends before its columns")
    column.frombytes(body[at:end])
    if sys.byteorder == "big":
        column.byteswap()
    return column
