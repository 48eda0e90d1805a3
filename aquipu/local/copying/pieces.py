"""The records of files in pieces of whole frames, with the keys of their commits. Blocking."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.read.snapshot import Snapshot
from aquipu.record import PRODUCERS, Key, Record

Piece = tuple[list[Record], list[Key]]
"""Records, and the keys of their producers by the index of their first records."""

_RECORDS = 1024
_BYTES = 1 << 20


def pieces_of(view: Snapshot, start: int) -> Iterator[Piece]:
    """Yield the records from a sequence on, some whole frames at a time, with their keys.

    Raises CorruptionError, UnsupportedFormatError or StoreUnavailableError.
    """
    records: list[Record] = []
    keys: list[Key] = []
    size = 0
    for more, its in _frames(view, start):
        keys += [key._replace(first=key.first + len(records)) for key in its]
        records += more
        size += sum(len(record.data) for record in more)
        if len(records) >= _RECORDS or size >= _BYTES:
            yield records, keys
            records, keys, size = [], [], 0
    if records:
        yield records, keys


def _frames(view: Snapshot, start: int) -> Iterator[Piece]:
    for segment, begin, end in view.pieces():
        first = max(start, begin)
        if first >= end:
            continue
        with translate_os_errors(segment.path, "read"), segment.open(view.disk) as reader:
            for frame in reader.frames_before(end, reader.place_before(first)):
                records = [record for record in frame.records() if first <= record.sequence < end]
                if not records:
                    continue
                skipped = records[0].sequence - frame.header.first_sequence
                yield (
                    records,
                    [
                        key._replace(first=key.first - skipped)
                        for key in frame.commit_keys()
                        if key.number & PRODUCERS and key.first >= skipped
                    ],
                )


def ascending(records: Sequence[Record], keys: Sequence[Key]) -> Iterator[Piece]:
    """Yield a piece in parts within which times never decrease: the clock was set back between.

    The records of a key have one time, so they stay together.
    """
    begin = 0
    for end in range(1, len(records) + 1):
        if end < len(records) and records[end].timestamp >= records[end - 1].timestamp:
            continue
        yield (
            list(records[begin:end]),
            [key._replace(first=key.first - begin) for key in keys if begin <= key.first < end],
        )
        begin = end
