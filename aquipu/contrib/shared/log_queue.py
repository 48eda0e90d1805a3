"""The queue between the threads that log and the loop that stores. Bounded; never waited for."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

BATCH_RECORDS = 256
"""The most that are appended before the loop may do something else: about a millisecond."""

_FULL = "the queue was full"


class Entry(NamedTuple):
    """A log call, as it will be stored."""

    data: bytes
    relations: tuple[str, ...] = ()


class Gap(NamedTuple):
    """Stands where log calls are missing."""

    dropped: int
    reason: str


class Mark(NamedTuple):
    """Stands behind what somebody waits for."""

    reached: Callable[[], object]
    last: bool
    """Nothing behind it is taken."""


class Outlet(NamedTuple):
    """The loop that takes from the queue, and how to wake its task."""

    loop: asyncio.AbstractEventLoop
    wake: Callable[[], None]


class Queue:
    """What was logged and is not yet taken; from any thread.

    Bounded in entries and bytes; gaps and marks need no room.
    """

    def __init__(self, records: int, bytes: int) -> None:
        self.dropped = 0
        self._records_max = records
        self._bytes_max = bytes
        self.restart()

    def restart(self) -> None:
        """Empty the queue in a forked child, where another thread may hold the lock for ever."""
        # a signal handler that logs, or a finalizer, may come in between
        self._lock = threading.RLock()
        self._items: deque[Entry | Gap | Mark] = deque()
        self._records = self._bytes = 0
        self._unsaid = 0  # dropped, and no gap says so yet
        self._reason = _FULL
        self._refused = False  # by the store, and nothing came since: a gap would be refused too
        self._outlet: Outlet | None = None
        self._awake = False

    def __len__(self) -> int:
        return self._records

    @property
    def outlet(self) -> Outlet | None:
        return self._outlet

    def put(self, entry: Entry) -> None:
        """Take an entry, behind a gap if any were dropped; without room for it, count it."""
        with self._lock:
            size = len(entry.data)
            if self._records >= self._records_max or self._bytes + size > self._bytes_max:
                self._miss(1, _FULL)
                return
            self._say_gap()
            self._refused = False
            self._items.append(entry)
            self._records += 1
            self._bytes += size
        self._wake()

    def put_mark(self, mark: Mark) -> None:
        """Add a mark, reached when all before it is taken; at once when no outlet is open."""
        with self._lock:
            taken = self._outlet is not None
            if taken:
                self._say_gap()
                self._items.append(mark)
        if taken:
            self._wake()
        else:
            mark.reached()

    def drop(self, count: int, reason: str) -> None:
        """Count entries that were not stored: the gap that says so waits for what comes next."""
        with self._lock:
            self._miss(count, reason)
            self._refused = True

    def unsay(self, gap: Gap) -> None:
        """Count a gap that was not stored: the next one includes it."""
        with self._lock:
            self._unsaid += gap.dropped
            self._reason = gap.reason
            self._refused = True

    def open(self, outlet: Outlet) -> bool:
        """Open an outlet for what is here and what comes; return False when one is open."""
        with self._lock:
            if self._outlet is not None and not self._outlet.loop.is_closed():
                return False
            self._outlet = outlet
            self._awake = False
        self._wake()
        return True

    def shut(self) -> None:
        """Close the outlet; what is here stays, up to the bounds."""
        with self._lock:
            self._outlet = None
            marks = [item for item in self._items if isinstance(item, Mark)]
            self._items = deque(item for item in self._items if not isinstance(item, Mark))
        for mark in marks:
            mark.reached()

    def take(self) -> list[Entry | Gap | Mark]:
        """Take the oldest, at most `BATCH_RECORDS`; after none, the next one wakes the outlet."""
        with self._lock:
            if not self._items and not self._refused:
                self._say_gap()
            taken = [self._items.popleft() for _ in range(min(len(self._items), BATCH_RECORDS))]
            entries = [item for item in taken if isinstance(item, Entry)]
            self._records -= len(entries)
            self._bytes -= sum(len(entry.data) for entry in entries)
            self._awake = bool(taken)
        return taken

    def clear(self) -> int:
        """Drop everything; return how many log calls, with those that no gap has reported."""
        with self._lock:
            gaps = sum(item.dropped for item in self._items if isinstance(item, Gap))
            count = self._records + gaps + self._unsaid
            self.dropped += self._records
            self._items.clear()
            self._records = self._bytes = self._unsaid = 0
        return count

    def _miss(self, count: int, reason: str) -> None:
        self.dropped += count
        self._unsaid += count
        self._reason = reason

    def _say_gap(self) -> None:
        if self._unsaid:
            self._items.append(Gap(self._unsaid, self._reason))
            self._unsaid = 0

    def _wake(self) -> None:
        with self._lock:
            outlet = self._outlet
            if outlet is None or self._awake:
                return
            self._awake = True
        try:
            outlet.loop.call_soon_threadsafe(outlet.wake)
        except RuntimeError:  # the loop was closed, and nobody left `into`
            self.shut()
