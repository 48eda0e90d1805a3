"""The end of a log for all clients that are near it: followed once, each event made once.

The newest events lie in a ring with bounds. A client that is behind it reads the log by itself, and
comes here when it has caught up, so nothing is kept for anybody.
"""

from __future__ import annotations

from asyncio import Event as Signal
from asyncio import Task, TimerHandle, create_task, current_task, get_running_loop, sleep
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, Union
from weakref import WeakKeyDictionary

from aquipu import AquipuError, Record, Store
from aquipu.contrib.streaming.places import Labels, Place, framed
from aquipu.contrib.streaming.shown import event, shown

if TYPE_CHECKING:
    from aquipu import Reader, RemoteStore

AnyLog: TypeAlias = Union[Store, "RemoteStore", "Reader"]
"""A log that can be read: all of them have the same calls for that."""

HEARTBEAT = 15.0
"""Seconds without a record after which a client is told that the stream lives."""
PIECE_BYTES = 32 * 1024
"""How much is sent at once, in bytes of events, unless one alone is larger."""
_RING_BYTES = 1024 * 1024
_RING_RECORDS = 2048
_ALIKE = 64  # pieces
_TAKEN_RECORDS = 256  # between two turns of the loop
_PAUSE_A_CLIENT = 25e-6  # seconds that events gather, so that sending them does not take it all
_PAUSE_MAX = 0.02


class Ready(NamedTuple):
    """The event of one record."""

    labels: tuple[str, ...]
    text: bytes


def ready(record: Record) -> Ready:
    return Ready(record.relations, event(None, record.sequence, shown(record)))


class Piece(NamedTuple):
    """Events that are sent at once."""

    text: bytes
    following: int
    """Sequence behind the last record that they stand for."""
    travelling: bytes
    """As `Place.write` takes it; empty when there is nothing to send."""


class Live:
    """The newest records of a store as events: from ``first`` up to, not including, ``next``."""

    def __init__(self) -> None:
        self.first = self.next = 0
        self.clients = 0
        self.error: AquipuError | None = None
        self.has_ended = False
        self.is_over = False
        """Whether clients are to leave, though there may be more."""
        self._ring: list[Ready] = []
        self._bytes = 0
        self._news = Signal()
        self._begun = Signal()
        self._task: Task[None] | None = None
        self._beat: TimerHandle | None = None
        self._places: dict[Place, None] = {}  # of clients that are written to directly
        self._alike: dict[tuple[int, Labels], Piece] = {}  # what was asked since the last record

    @contextmanager
    def joined(self, store: AnyLog) -> Iterator[None]:
        """Count a client until the end of the block; the first one makes it run."""
        self.clients += 1
        if self._task is None or self._task.done():
            self.has_ended, self.is_over, self.error = False, False, None
            self._begun = Signal()
            self._task = create_task(self._run(store))
            self._heartbeat()
        try:
            yield
        finally:
            self.clients -= 1
            if not self.clients and self._task is not None:
                self._task.cancel()
                self._task = None
                self._forget(0)
            if not self.clients and self._beat is not None:
                self._beat.cancel()

    def end(self) -> None:
        """End the streams of all clients: the service ends."""
        self.is_over = True
        self._begun.set()
        self._tell()

    async def begun(self) -> None:
        """Wait until it is known where the log ends."""
        await self._begun.wait()

    async def news(self, place: Place) -> bool:
        """Wait for what a client has not been sent, or the end; False: none for `HEARTBEAT`.

        Meanwhile it is sent what comes, if it can be written to directly and takes it.
        """
        if self.has_ended or self.is_over:
            return True
        if place.write is None:
            await self._news.wait()
        else:
            self._places[place] = None
            try:
                await place.wait()
            finally:
                del self._places[place]
        is_more = self.next > place.next or self.first > place.next
        return place.written or is_more or self.has_ended or self.is_over

    def after(self, sequence: int, wanted: Labels) -> Piece:
        """Return the events from a sequence on, some at a time."""
        piece = self._alike.get((sequence, wanted))
        if piece is None:
            if len(self._alike) >= _ALIKE:
                self._alike.clear()
            piece = self._alike[sequence, wanted] = self._piece(sequence, wanted)
        return piece

    def _piece(self, sequence: int, wanted: Labels) -> Piece:
        texts: list[bytes] = []
        size, at = 0, sequence
        for labels, text in self._ring[sequence - self.first :]:
            if wanted.fit(labels):
                if texts and size + len(text) > PIECE_BYTES:
                    break
                texts.append(text)
                size += len(text)
            at += 1
        text = b"".join(texts)
        return Piece(text, at, framed(text) if text else b"")

    def _write(self) -> None:
        """Write what has come to the clients that are written to directly."""
        for place in self._places:
            while self.first <= place.next < self.next:
                piece = self.after(place.next, place.wanted)
                if piece.travelling:
                    assert place.write is not None
                    if not place.write(piece.travelling):
                        break
                    place.written = True
                place.next = piece.following
            if place.next != self.next:
                place.wake()

    async def _run(self, store: AnyLog) -> None:
        try:
            self._forget(await end_of(store))
            self._begun.set()
            async with store.follow(self.next, on_purged="skip") as records:
                while batch := await records.batch():
                    for begin in range(0, len(batch), _TAKEN_RECORDS):
                        self._take(batch[begin : begin + _TAKEN_RECORDS])
                        await sleep(min(self.clients * _PAUSE_A_CLIENT, _PAUSE_MAX))
        except AquipuError as error:
            self.error = error
        finally:
            if self._task is current_task():  # else its clients have left, and others have come
                self.has_ended = True
                self._begun.set()
                self._tell()

    def _take(self, records: list[Record]) -> None:
        if records[0].sequence != self.next:  # some were purged
            self._forget(records[0].sequence)
        made = [ready(record) for record in records]
        self._ring += made
        self._bytes += sum(len(one.text) for one in made)
        self.next += len(made)
        if self._bytes > _RING_BYTES or len(self._ring) > _RING_RECORDS:
            self._drop()
        self._alike.clear()
        self._write()
        self._signal()

    def _heartbeat(self) -> None:
        if self._beat is not None:
            self._beat.cancel()
        self._beat = get_running_loop().call_later(HEARTBEAT, self._heartbeat)
        self._tell()

    def _tell(self) -> None:
        """Let all clients go on."""
        self._signal()
        for place in self._places:
            place.wake()

    def _signal(self) -> None:
        self._news.set()
        self._news = Signal()

    def _drop(self) -> None:
        """Keep the newest, up to half of what there may be, and at least one."""
        kept, size = 0, 0
        for one in reversed(self._ring):
            size += len(one.text)
            if kept and (size > _RING_BYTES // 2 or kept == _RING_RECORDS // 2):
                size -= len(one.text)
                break
            kept += 1
        del self._ring[: len(self._ring) - kept]
        self.first, self._bytes = self.next - kept, size

    def _forget(self, sequence: int) -> None:
        self.first = self.next = sequence
        self._ring, self._bytes = [], 0
        self._alike.clear()


_live: WeakKeyDictionary[AnyLog, Live] = WeakKeyDictionary()


def live_of(store: AnyLog) -> Live:
    """Return what the clients of a store share."""
    found = _live.get(store)
    if found is None:
        found = _live[store] = Live()
    return found


async def end_of(store: AnyLog) -> int:
    """Return one past the last record: asked, because a client of a daemon may know an old one."""
    newest = (await store.page(limit=1)).records
    return max(newest[0].sequence + 1 if newest else 0, store.next_sequence)
