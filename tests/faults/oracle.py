"""What a process had come to when it died: memory that it shares with its server, and that outlives
it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

from aquipu import Receipt, Record
from tests.faults.crashing_disk import CHANGING


class Acknowledgement(NamedTuple):
    """A caller was told this, and had not done anything since."""

    number: int
    """Of the record, counted from the beginning of the run."""
    sequence: int
    timestamp: int
    stage: int


class Account(NamedTuple):
    """What a process had come to when it died."""

    acknowledged: list[Acknowledgement]
    accepted: int
    """Records."""
    opened: int | None
    """How many records the first opening found; None when the run did not get there."""
    read: tuple[int, int] | None
    """How many records the face gave right after that, and their check."""
    trace: list[str]
    """The calls to the disk that change something, by name."""
    child: int = 0
    """The pid of a child that outlives the process; 0 for none."""
    purging: int | None = None
    """Where the last purge that began was to bring the beginning of the log ..."""
    purged: int | None = None
    """... and where the last one has that ended."""
    holding: int | None = None
    """The hold that was last to be set ..."""
    held: int | None = None
    """... and the one that was last set."""
    saving: int | None = None
    """The cursor that was last to be saved ..."""
    saved: int | None = None
    """... and the one that was last saved."""


class Oracle:
    """Keeps the account in a mapping that is shared with the server: it outlives the process."""

    _ENTRIES_MAX = 1 << 15
    _TRACE_MAX = 1 << 10
    _ACKNOWLEDGED, _ACCEPTED, _OPENED, _READ, _READ_CHECK, _CHILD = range(6)
    _PURGING, _PURGED, _HOLDING, _HELD, _SAVING, _SAVED, _TRACED, _TRACE = range(6, 14)
    _ENTRIES = _TRACE + _TRACE_MAX

    def __init__(self, path: str) -> None:
        size = 8 * (self._ENTRIES + 4 * self._ENTRIES_MAX)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(descriptor, size)
        self.path = path
        self._words = memoryview(mmap.mmap(descriptor, size)).cast("Q")
        os.close(descriptor)

    def opened(self, next_sequence: int) -> None:
        self._words[self._OPENED] = self._words[self._OPENED] or next_sequence + 1

    def read(self, found: Sequence[Record]) -> None:
        self._words[self._READ_CHECK] = check(found)
        self._words[self._READ] = len(found) + 1

    def accepted(self, records: int) -> None:
        self._words[self._ACCEPTED] += records

    def acknowledged(self, number: int, receipt: Receipt) -> None:
        index = self._words[self._ACKNOWLEDGED]
        if index < self._ENTRIES_MAX:
            for word, value in enumerate((number, *receipt), self._ENTRIES + 4 * index):
                self._words[word] = value
            self._words[self._ACKNOWLEDGED] = index + 1  # last: half an entry does not count

    def called(self, call: str) -> None:
        index = self._words[self._TRACED]
        self._words[self._TRACE + index] = CHANGING.index(call)
        self._words[self._TRACED] = index + 1

    def left_behind(self, pid: int) -> None:
        self._words[self._CHILD] = pid

    def purging(self, first_sequence: int) -> None:
        self._words[self._PURGING] = first_sequence + 1

    def purged(self, first_sequence: int) -> None:
        self._words[self._PURGED] = first_sequence + 1

    def holding(self, sequence: int) -> None:
        self._words[self._HOLDING] = sequence + 1

    def held(self, sequence: int) -> None:
        self._words[self._HELD] = sequence + 1

    def saving(self, sequence: int) -> None:
        self._words[self._SAVING] = sequence + 1

    def saved(self, sequence: int) -> None:
        self._words[self._SAVED] = sequence + 1

    # for the server

    @property
    def count(self) -> int:
        """Records acknowledged so far."""
        return self._words[self._ACKNOWLEDGED]

    def account(self) -> Account:
        words = self._words
        ends = range(self._ENTRIES + 4, self._ENTRIES + 4 * self.count + 4, 4)
        return Account(
            [Acknowledgement._make(words[end - 4 : end]) for end in ends],
            words[self._ACCEPTED],
            self._noted(self._OPENED),
            (words[self._READ] - 1, words[self._READ_CHECK]) if words[self._READ] else None,
            [CHANGING[call] for call in words[self._TRACE : self._TRACE + words[self._TRACED]]],
            words[self._CHILD],
            *map(self._noted, range(self._PURGING, self._SAVED + 1)),
        )

    def _noted(self, word: int) -> int | None:
        return self._words[word] - 1 if self._words[word] else None

    def forget(self) -> None:
        for word in range(self._TRACE):
            self._words[word] = 0


def check(found: Sequence[Record]) -> int:
    """A checksum of all that the records hold."""
    so_far = 0
    for record in found:
        so_far = crc32(
            record.data,
            crc32(repr((record.sequence, record.timestamp, record.relations)).encode(), so_far),
        )
    return so_far
