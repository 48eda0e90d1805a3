"""Follow: every record as soon as it is acknowledged.

A follower that has come to the end waits. In the process of the writer it is woken with the commit
that has just been acknowledged, and gives the records from memory; nothing is copied. One that is
late, or in another process, reads from the files. So the writer never waits for a follower, and
what is kept for them is bounded: a few of the last commits, and some of what was last read
(`tail`), once for all followers, and one commit, or one read, that each may still be giving.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from logging import getLogger
from typing import NamedTuple, TypeVar

from aquipu.errors import (
    CorruptionError,
    PositionLostError,
    RecordNotWrittenError,
    RecordPurgedError,
)
from aquipu.local.disk.disk import Disk
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.read.tail import Tail, Window, Windows
from aquipu.options import OnPurged
from aquipu.reading import Follow
from aquipu.record import Position, Record
from aquipu.runtime.handoff import Handoff

_record = partial(tuple.__new__, Record)

T = TypeVar("T")

_log = getLogger(__name__)


class Recent(NamedTuple):
    """An acknowledged commit. The columns are those of the commit itself."""

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
        """Return its records from ``start`` on, each made when it is asked for."""
        begin = start - self.first_sequence
        payloads, timestamps = self.payloads, self.timestamps
        if begin:
            payloads, timestamps = payloads[begin:], timestamps[begin:]
        relations = (
            map(self.labels.get, range(begin, len(self.payloads)), repeat(()))
            if self.labels
            else repeat(())
        )
        return map(
            _record,
            zip(range(start, self.next_sequence), timestamps, payloads, relations, strict=False),
        )


class Followed(ABC):
    """A log as its followers see it."""

    path: str
    disk: Disk
    handoff: Handoff
    windows: Windows
    """What its followers have read last."""

    @abstractmethod
    def check(self) -> None:
        """Raise unless it may be read from here."""

    @property
    @abstractmethod
    def first_sequence(self) -> int:
        """Sequence of the first retained record."""

    @property
    @abstractmethod
    def acknowledged(self) -> int:
        """One past the last record that may be given."""

    @property
    @abstractmethod
    def generation(self) -> bytes:
        """Generation that the log is in, as far as that was seen."""

    @abstractmethod
    async def move(self, generation: bytes, sequence: int) -> bytes:
        """Return the generation in which a reader goes on that has read up to there in another.

        Raises PositionLostError.
        """

    @abstractmethod
    def admits(self, start: int) -> bool:
        """Return whether a follower may begin there; False as long as that is not known.

        Raises RecordNotWrittenError for a start beyond the end of the log.
        """

    @abstractmethod
    def recent(self, sequence: int) -> Recent | None:
        """Return the commit with this sequence, if it is still in memory."""

    @abstractmethod
    def look(self, indexed: bool) -> Snapshot:
        """Return what may be seen in the files now, perhaps without an index of the last segment.

        Called on a thread.
        """

    @abstractmethod
    async def news(self, sequence: int) -> bool:
        """Wait until there may be something from this sequence on; False at the end of the log.

        Raises what has ended the log.
        """

    @abstractmethod
    def joined(self, follower: Follow) -> None:
        """Add a follower."""

    @abstractmethod
    def left(self, follower: Follow) -> None:
        """Drop a follower, which may be waiting."""


class LocalFollow(Follow):
    """A `Follow` that takes records from memory or from files."""

    def __init__(
        self,
        log: Followed,
        start: int | Position,
        *,
        earliest: bool = False,
        on_purged: OnPurged = "raise",
    ) -> None:
        """Begin at a start; not called by users: `Store.follow` and `Reader.follow` do."""
        super().__init__(log.path, earliest=earliest, on_purged=on_purged)
        self._log = log
        self._position = start if isinstance(start, Position) else None  # until it has begun
        self._generation = log.generation
        if isinstance(start, Position):
            self._generation, start = bytes.fromhex(start.generation), start.sequence
        self._begun = False
        self._next = start  # of what is not yet in hand
        self._ready: Iterator[Record] = iter(())
        self._tail: Tail | None = None
        self._closed = False
        log.windows.joined(self)
        log.joined(self)

    async def aclose(self) -> None:
        """End it. Does nothing the second time."""
        self._closed = True
        self._ready = iter(())
        self._tail = None
        self._log.windows.left(self)
        self._log.left(self)

    async def _refill(self) -> Record:
        """Wait or read on until there are records, and give the first of them."""
        log = self._log
        while not self._closed:
            log.check()
            if self._generation != log.generation:
                self._generation = await log.move(self._generation, self._next)
                self._tail = None
            self._begun = self._begun or self._is_admitted()
            recent = log.recent(self._next)
            if recent is not None:
                self._tail = None
                self._take(recent.records(self._next), recent.next_sequence)
            elif self._next < log.acknowledged:
                await self._read()
            elif not await log.news(self._next):
                await self.aclose()
            for record in self._ready:
                self._earliest = False
                return record
        raise StopAsyncIteration

    def _is_admitted(self) -> bool:
        try:
            return self._log.admits(self._next)
        except RecordNotWrittenError as error:
            if self._position is None:
                raise
            raise PositionLostError(self._path, error.sequence, error.bound) from None

    async def _read(self) -> None:
        """Take the next records from the files, or from what another follower has read of them.

        Cancelled, what was read is forgotten, and read again; and so is what was read just when the
        log was opened anew, and may have become another.
        """
        log, start = self._log, self._next
        windows = log.windows
        window = None
        if start >= log.first_sequence:  # what was purged is not given any more
            window = windows.find(self._generation, start)
        if window is not None:
            if self._tail is not None:
                self._tail.go_behind(window)
        elif await windows.others(start):
            return
        else:
            try:
                window = await self._read_files()
            finally:
                windows.done(start)
        if window is not None and not self._closed:
            stop = min(window.next_sequence, log.acknowledged)
            if start < stop:
                self._take(window.records(start, stop), stop)

    async def _read_files(self) -> Window | None:
        log = self._log
        tail, self._tail = self._tail, None
        if tail is None or tail.sequence != self._next:
            tail = Tail(log.disk, log.path, self._next, log.windows)
        try:
            window = await log.handoff.run(tail.read, log.look)
        except RecordPurgedError as error:
            self._next = self._overtaken(error)
            return None
        except CorruptionError:
            if self._generation == log.generation:
                raise
            return None
        if window is None or self._generation != log.generation:
            return None
        if not self._closed:
            self._tail = tail
            log.windows.keep(self._generation, window)
        return window

    def _take(self, records: Iterator[Record], following: int) -> None:
        self._ready = records
        self._next = following
