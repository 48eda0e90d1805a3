"""Records and back: a commit as the arguments of `aquipu.append`, and a row as records. Pure.

A row has up to `BATCH_RECORDS` records and about `BATCH_BYTES` of data: what is read to get at one
of them. Its checksum is made here, before anything is sent, and compared here, whenever a row is
read; so it covers the way to the disk of the server and back.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise, repeat
from typing import Any, NamedTuple
from zlib import crc32

from aquipu.errors import CorruptionError
from aquipu.record import Record

BATCH_RECORDS = 1024
"""The most records of a row."""
BATCH_BYTES = 64 * 1024
"""Bytes of data from which a row takes no more records."""
COLUMNS = (
    "first_sequence, records, floor_time, data, lengths, times, labels, places, checksum, size"
)
"""The columns of a row, as `records_in` takes them."""

_record = partial(tuple.__new__, Record)
_Labels = Mapping[int, tuple[str, ...]]


class Group(NamedTuple):
    """Records that are stored together or not at all: a commit, or one batch that is guarded."""

    payloads: Sequence[bytes]
    times: Sequence[int]
    labels: _Labels
    """By the index of those records that have any."""
    key: tuple[bytes, int] | None = None
    """Producer and number, if it is stored only once."""
    expected: int | None = None
    """Sequence of its first record, if it is stored only there."""


class Rows:
    """Groups as the arguments of `aquipu.append`, from ``p_data`` on."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.data: list[bytes] = []
        self.records: list[int] = []
        self.lengths: list[int] = []
        self.times: list[int] = []
        self.checksums: list[int] = []
        self.labels: list[str] = []
        self.places: list[int] = []
        self.labelled: list[int] = []
        self.group_rows: list[int] = []
        self.producers: list[bytes | None] = []
        self.numbers: list[int | None] = []
        self.expected: list[int | None] = []
        for group in groups:
            self._add(group)

    def _add(self, group: Group) -> None:
        rows = 0
        lengths = list(map(len, group.payloads))
        for start, stop in _cut(lengths):
            self._add_row(group, lengths[start:stop], start, stop)
            rows += 1
        self.group_rows.append(rows)
        producer, number = (None, None) if group.key is None else group.key
        self.producers.append(producer)
        self.numbers.append(number)
        self.expected.append(group.expected)

    def _add_row(self, group: Group, lengths: list[int], start: int, stop: int) -> None:
        data = b"".join(group.payloads[start:stop])
        times = list(group.times[start:stop])
        labels: list[str] = []
        places: list[int] = []
        if group.labels:
            for index in range(start, stop):
                for label in group.labels.get(index, ()):
                    labels.append(label)
                    places.append(index - start)
        self.data.append(data)
        self.records.append(len(lengths))
        self.lengths += lengths
        self.times += times
        self.checksums.append(_checksum(data, lengths, times, labels, places))
        self.labels += labels
        self.places += places
        self.labelled.append(len(labels))

    def arguments(self) -> tuple[Any, ...]:
        """Return them in the order of the function's parameters."""
        return (
            *(self.data, self.records, self.lengths, self.times, self.checksums),
            *(self.labels, self.places, self.labelled),
            *(self.group_rows, self.producers, self.numbers, self.expected),
        )


def _cut(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of the rows that records of these lengths come into."""
    start = size = 0
    for index, length in enumerate(lengths):
        if index > start and (size + length > BATCH_BYTES or index - start == BATCH_RECORDS):
            yield start, index
            start, size = index, 0
        size += length
    yield start, len(lengths)


def _checksum(
    data: bytes,
    lengths: Sequence[int],
    times: Sequence[int],
    labels: Sequence[str],
    places: Sequence[int],
) -> int:
    """Return the CRC-32 of a row; equal times count once, as they are kept."""
    if times[0] == times[-1]:
        times = times[:1]
    checksum = crc32(data)
    checksum = crc32(array("q", lengths).tobytes(), checksum)
    checksum = crc32(array("q", times).tobytes(), checksum)
    if labels:
        checksum = crc32("\0".join(labels).encode(), checksum)
        checksum = crc32(array("q", places).tobytes(), checksum)
    return checksum


def records_in(row: Any, address: str) -> list[Record]:
    """Return the records of a row; CorruptionError when it does not check."""
    first, count, floor, data, lengths, times, labels, places, checksum, size = row
    is_whole = (
        len(lengths) == count
        and len(times) in (1, count)
        and len(labels) == len(places)
        and sum(lengths) == len(data) == size
        and _checksum(data, lengths, times, labels, places) == checksum
    )
    if not is_whole:
        reason = f"the batch of {count} records at sequence {first} does not check"
        raise CorruptionError(address, first, reason)
    if len(times) == 1:
        at: Any = repeat(max(times[0], floor), count)
    else:
        at = times if times[0] >= floor else [max(time, floor) for time in times]
    pieces = [data[begin:end] for begin, end in pairwise(accumulate(lengths, initial=0))]
    carried: Any = repeat(())
    if labels:
        of_each: list[tuple[str, ...]] = [()] * count
        for label, place in zip(labels, places, strict=True):
            of_each[place] = (*of_each[place], label)
        carried = of_each
    return list(map(_record, zip(range(first, first + count), at, pieces, carried, strict=False)))
