"""Scan: the records of a view, one after another, while the log goes on.

File chunks come through aiofiles and are decoded frame by frame. Each frame is checked before any of it is given.
"""

from __future__ import annotations

from asyncio import CancelledError, Future, ensure_future, shield
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

from aiofiles.threadpool import wrap

from aquipu.disk import Disk, explained, opened
from aquipu.errors import CorruptionError
from aquipu.frame import Header, Walk, records
from aquipu.handoff import Handoff
from aquipu.journal import Extent
from aquipu.record import Record
from aquipu.segment import what_stopped
from aquipu.view import View, place_before

CHUNK_BYTES = 256 * 1024
"""How much a scan reads at a time: the loop is free between two chunks."""


class Scan:
    """The records of a view, one after another: ``async for record in scan``.

    It is its own iterator and is used once. The file at hand is closed at the end of the records and by `aclose`;
    ``async with scan`` calls that. Raises CorruptionError where a frame does not check (what was given before was sound),
    and StoreUnavailableError when a file cannot be read.
    """

    def __init__(self, view: Callable[[], Awaitable[View]], handoff: Handoff) -> None:
        self._take_view = view
        self._handoff = handoff
        self._view: View | None = None
        self._ready: Iterator[Record] = iter(())
        self._next = 0
        self._part: _Part | None = None
        self._reading: Future[bytes] | None = None
        self._closed = False

    def __aiter__(self) -> Scan:
        return self

    async def __anext__(self) -> Record:
        for record in self._ready:
            return record
        return await self._refill()

    async def __aenter__(self) -> Scan:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the file at hand; the scan has ended. Does nothing the second time."""
        self._closed = True
        self._ready = iter(())
        self._drop()

    def _drop(self) -> None:
        """Close the file at hand: at once (it was only read, so that takes no time), or when a thread has left it."""
        part, self._part = self._part, None
        if part is not None and self._reading is not None:
            self._reading.add_done_callback(part.drop_after)
        elif part is not None:
            part.drop()

    async def _refill(self) -> Record:
        """Read on until there are records, and give the first of them."""
        if self._closed:
            raise StopAsyncIteration
        if self._view is None:
            self._view = await self._take_view()
            self._next = self._view.start
        try:
            while self._next < self._view.stop:
                self._ready = iter(await self._read(self._view))
                for record in self._ready:
                    return record
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def _read(self, view: View) -> list[Record]:
        """What the next chunk of the file holds: perhaps nothing yet, when a frame is larger than a chunk."""
        if self._part is None:
            extent, end = view.holding(self._next)
            self._part = await self._handoff.run(_open, view.disk, extent, self._next, end, undo=_Part.drop)
        part, walk = self._part, self._part.walk
        chunk = await self._chunk(part, max(CHUNK_BYTES, walk.wanted))
        walk.feed(chunk)
        found: list[Record] = []
        while walk.sequence < part.end and (frame := next(walk, None)) is not None:
            _, header, body = frame
            if header.next_sequence > self._next:
                found += _within(header, body, self._next, part.end, part.extent.path, walk)
                self._next = min(header.next_sequence, part.end)
        if self._next >= part.end:
            self._drop()
        elif (walk.fault is not None or not chunk) and not found:  # what is sound is given first
            raise what_stopped(part.extent.path, walk)
        return found

    async def _chunk(self, part: _Part, size: int) -> bytes:
        """The next bytes of the file. Cancelled, the file is closed when the thread has left it, and not before."""
        self._handoff.departed()
        self._reading = ensure_future(part.stream.read(size))
        try:
            with explained(part.extent.path, "read"):
                chunk: bytes = await shield(self._reading)
        except CancelledError:
            self._drop()
            raise
        finally:
            self._reading = None
            self._handoff.arrived()
        return chunk


class _Part(NamedTuple):
    """The segment that a scan is in."""

    extent: Extent
    stream: Any  # aiofiles' file: the type of what wrap gives is not public
    walk: Walk
    end: int
    """The first sequence that is not to be given any more."""

    def drop(self) -> None:
        """Close the file. Nobody may be reading it."""
        self.stream._file.close()

    def drop_after(self, reading: Future[bytes]) -> None:
        """Close the file when a read has ended that nobody waits for any more."""
        if not reading.cancelled():  # else the loop itself has ended, the thread may be in the file, and closes it last
            reading.exception()
            self.drop()


# on a thread


def _open(disk: Disk, extent: Extent, sequence: int, end: int) -> _Part:
    with explained(extent.path, "read"):
        with opened(disk, extent.path) as descriptor:
            following, offset = place_before(disk, descriptor, extent, sequence)
        stream = disk.open_stream(extent.path)
        stream.seek(offset)
    walk = Walk(seed=extent.header.seed, sequence=following, offset=offset, link=None)
    return _Part(extent, wrap(stream), walk, end)


def _within(header: Header, body: bytes, start: int, stop: int, path: str, walk: Walk) -> list[Record]:
    """Those records of a frame that lie from start up to stop."""
    first = header.first_sequence
    try:
        return records(header, body)[max(start - first, 0) : stop - first]
    except ValueError as error:
        raise CorruptionError(path, walk.offset - header.size, str(error)) from None
