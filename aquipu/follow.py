"""Follow: every record as soon as it is acknowledged.

A follower that has come to the end waits. In the process of the writer it is woken with the commit that has just been
acknowledged, and gives the records from memory; nothing is copied. One that is late, or in another process, reads from the
files. So the writer never waits for a follower, and what is kept for them is bounded: a few of the last commits, once for
all followers, and one commit that each of them may still be giving.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from math import inf
from typing import NamedTuple, TypeVar
from weakref import WeakSet

from aquipu.acknowledged import Board
from aquipu.closing import Records
from aquipu.commit import Commit
from aquipu.disk import Disk
from aquipu.errors import StoreFailedError, twin
from aquipu.handoff import Handoff
from aquipu.journal import Journal
from aquipu.record import Record
from aquipu.tail import Tail
from aquipu.view import View

RECENT_BYTES = 1024 * 1024
"""How much of the last commits is kept for followers that are a little late; the very last one always is."""

_record = partial(tuple.__new__, Record)

T = TypeVar("T")


class Recent(NamedTuple):
    """A commit whose callers have been told. The columns are those of the commit itself."""

    first_sequence: int
    payloads: list[bytes]
    timestamps: list[int]
    labels: dict[int, tuple[str, ...]]
    size: int

    @property
    def next_sequence(self) -> int:
        """One past its last record."""
        return self.first_sequence + len(self.payloads)

    def records(self, start: int) -> Iterator[Record]:
        """Its records from ``start`` on, each made when it is asked for."""
        begin = start - self.first_sequence
        payloads, timestamps = self.payloads, self.timestamps
        if begin:
            payloads, timestamps = payloads[begin:], timestamps[begin:]
        relations = map(self.labels.get, range(begin, len(self.payloads)), repeat(())) if self.labels else repeat(())
        return map(_record, zip(range(start, self.next_sequence), timestamps, payloads, relations, strict=False))


class Followed(ABC):
    """What followers need to know of a log."""

    path: str
    disk: Disk
    handoff: Handoff

    @abstractmethod
    def check(self) -> None:
        """Raise unless it may be read from here."""

    @property
    @abstractmethod
    def told(self) -> int:
        """Everything below may be given."""

    @abstractmethod
    def recent(self, sequence: int) -> Recent | None:
        """The commit with this sequence, if it is still in memory."""

    @abstractmethod
    def look(self, indexed: bool) -> View:
        """What may be seen in the files now, perhaps without an index of the last segment. Called on a thread."""

    @abstractmethod
    async def news(self, sequence: int) -> bool:
        """Wait until there may be something from this sequence on; False when there will be nothing more.

        Raises what has ended the log.
        """

    @abstractmethod
    def joined(self, follower: Follow) -> None:
        """One more follower."""

    @abstractmethod
    def left(self, follower: Follow) -> None:
        """One follower less; it may be waiting."""


class Follow(Records):
    """The records of a log from a place on, and every new one as soon as it is acknowledged: ``async for record in ...``.

    It is its own iterator and is used once, by one task at a time. A step that is cancelled has neither lost nor repeated
    a record: the next one goes on. It ends when the store (or the Reader) is closed, after everything that was
    acknowledged. ``async with follow`` closes it at the end, as `aclose` does.

    Raises StoreFailedError when the store has failed, after what may still be read; RecordPurgedError when the next record
    was purged before it was read; CorruptionError where a frame does not check, StoreUnavailableError when a file
    cannot be read.
    """

    def __init__(self, log: Followed, start: int) -> None:
        """Not called by users: `Store.follow` and `Reader.follow` do."""
        self._log = log
        self._next = start  # of what is not yet in hand
        self._ready: Iterator[Record] = iter(())
        self._tail: Tail | None = None
        self._closed = False
        log.joined(self)

    async def aclose(self) -> None:
        """It has ended, and lets go of the file at hand. Does nothing the second time."""
        self._closed = True
        self._ready = iter(())
        self._close_tail()
        self._log.left(self)

    async def _refill(self) -> Record:
        """Wait or read on until there are records, and give the first of them."""
        log = self._log
        while not self._closed:
            log.check()
            recent = log.recent(self._next)
            if recent is not None:
                self._close_tail()
                self._take(recent.records(self._next), recent.next_sequence)
            elif self._next < log.told:
                await self._read()
            elif not await log.news(self._next):
                await self.aclose()
            for record in self._ready:
                return record
        raise StopAsyncIteration

    async def _read(self) -> None:
        """Take the next records from the files. Cancelled, what was read is forgotten, and read again."""
        log = self._log
        tail, self._tail = self._tail or Tail(log.disk, log.path, self._next), None
        found = await log.handoff.run(tail.read, log.look, undo=lambda _: tail.close())
        if self._closed:
            tail.close()
        else:
            self._tail = tail
            self._take(iter(found), tail.sequence)

    def _take(self, records: Iterator[Record], following: int) -> None:
        self._ready = records
        self._next = following

    def _close_tail(self) -> None:
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.close()


class Herald:
    """Tells those who read of each commit whose callers have been told: the followers in this process, for whom it keeps
    the last ones, and through the board the readers in others."""

    def __init__(self, loop: AbstractEventLoop, journal: Journal, board: Board, told: int) -> None:
        self._told = self._telling = told
        self._until = inf  # where a store that has failed may still be read
        self._loop = loop
        self._journal = journal
        self._board = board
        self._followers: WeakSet[Follow] = WeakSet()
        self._waiting: set[Future[None]] = set()
        self._recent: deque[Recent] = deque()
        self._bytes = 0  # of the recent ones
        self._failure: StoreFailedError | None = None
        self._over = False

    @property
    def told(self) -> int:
        """The callers of every record below have been told, and it may be read."""
        return int(min(self._told, self._until))

    # what the store says

    def begin(self, next_sequence: int) -> None:
        """The callers of all records below are about to be told."""
        self._telling = next_sequence
        self.show()

    def announce(self, first_sequence: int, commit: Commit[T]) -> None:
        """The callers of this commit have been told."""
        self._told = first_sequence + len(commit)
        self.show()
        if not self._followers:
            self._forget()  # one that was dropped says nothing
        elif self._failure is None:
            recent = Recent(first_sequence, commit.payloads, commit.timestamps, commit.labels, commit.size)
            self._recent.append(recent)
            self._bytes += recent.size
            while self._bytes > RECENT_BYTES and len(self._recent) > 1:
                self._bytes -= self._recent.popleft().size
            self._wake()

    def show(self) -> None:
        """Let readers in other processes know where the log stands."""
        catalogue = self._journal.catalogue
        telling = int(min(self._telling, self._until))
        self._board.show(self.told, telling, catalogue[-1].first_sequence, catalogue[0].first_sequence)

    def fail(self, failure: StoreFailedError, readable_until: int) -> None:
        """The store has failed: what lies beyond may not be read any more."""
        self._failure = failure
        self._until = readable_until
        self.show()
        self._forget()
        self._wake()

    def end(self) -> None:
        """The store is closed: nothing more will come."""
        self._over = True
        self._board.close()
        self._wake()

    # what followers ask

    def recent(self, sequence: int) -> Recent | None:
        """The commit with this sequence, if it is still in memory."""
        if sequence >= self.told or not self._recent or sequence < self._recent[0].first_sequence:
            return None
        return next(recent for recent in reversed(self._recent) if recent.first_sequence <= sequence)

    async def news(self) -> bool:
        """Wait for the next commit; False at the end. Raises StoreFailedError."""
        if self._failure is not None:
            raise twin(self._failure)
        if self._over:
            return False
        waiter: Future[None] = self._loop.create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)
        return True

    def joined(self, follower: Follow) -> None:
        """There is one more to be told."""
        self._followers.add(follower)

    def left(self, follower: Follow) -> None:
        """There is one less."""
        self._followers.discard(follower)
        self._wake()  # it may be waiting itself

    def _forget(self) -> None:
        self._recent.clear()
        self._bytes = 0

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
