"""Scan: the records of a view, one after another, while the log goes on: in either direction, all or those with labels.

File chunks come through aiofiles and are decoded frame by frame. Each frame is checked before any of it is given. Against
the order of the log the chunks begin at entries of a segment's index, the last one first. Of records that are sought by
their labels, only the frames that hold them are read.

**Purges.** A scan holds the file of the segment it is in (`Disk.try_hold`), and takes hold of the next one before it lets
go of that. A purge removes the oldest files first and stops at one that is held, so what a scan still wants stays. Against
the order of the log, it holds the oldest segment that it will come to, from the beginning on.
"""

from __future__ import annotations

from array import array
from asyncio import CancelledError, Future, ensure_future, shield
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from errno import ENOENT
from typing import Any, BinaryIO, Protocol, TypeVar

from aquipu.closing import Records
from aquipu.disk import Disk, explained
from aquipu.errors import RecordPurgedError, StoreUnavailableError
from aquipu.frame import Walk
from aquipu.handoff import Handoff
from aquipu.journal import Extent
from aquipu.layout import INDEX_STRIDE, SEGMENT_HEADER_BYTES, Index
from aquipu.record import Record
from aquipu.segment import what_stopped
from aquipu.view import View, index_of, place_in, records_in

T = TypeVar("T")

CHUNK_BYTES = 256 * 1024
"""How much a scan reads at a time: the loop is free between two chunks."""
_STRIDES_MAX = CHUNK_BYTES // INDEX_STRIDE

Taking = Callable[[], Awaitable[View]]


class Search(Protocol):
    """Tells which records of a segment are sought, and reads them. Blocking."""

    def found(self, view: View, extent: Extent, start: int, stop: int) -> array[int]:
        """Where they stand, of those from start up to stop: sequences less the segment's first one, ascending."""

    def read(self, view: View, extent: Extent, descriptor: int, index: Index, found: array[int]) -> list[Record]:
        """Those records, which stand in one stride of the segment."""


class Scan(Records):
    """The records of a view, one after another: ``async for record in scan``.

    It is its own iterator and is used once. The files at hand are closed at the end of the records and by `aclose`;
    ``async with scan`` calls that. Raises CorruptionError where a frame does not check (what was given before was sound),
    StoreUnavailableError when a file cannot be read, and RecordPurgedError for records that were purged before the scan
    came to them: only at its first step, unless the writer is in another process.
    """

    def __init__(
        self,
        view: Taking,
        handoff: Handoff,
        *,
        seen: Taking | None = None,
        reverse: bool = False,
        search: Search | None = None,
    ) -> None:
        """Not called by users. ``seen`` tells what may be seen by now; without it nothing is purged."""
        self._take_view = view
        self._handoff = handoff
        self._see = seen
        self._reverse = reverse
        self._search = search
        self._view: View | None = None
        self._start = self._stop = 0  # what is still to be given
        self._ready: Iterator[Record] = iter(())
        self._part: _Part | None = None
        self._anchor: BinaryIO | None = None  # the oldest segment, held against purges
        self._reading: Future[Any] | None = None
        self._closed = False

    async def aclose(self) -> None:
        """Close the files at hand; the scan has ended. Does nothing the second time."""
        self._closed = True
        self._ready = iter(())
        self._drop()

    def _drop(self) -> None:
        """Close the files at hand: at once (they were only read, so that takes no time), or when a thread has left them."""
        part, self._part = self._part, None
        if part is not None and self._reading is not None:
            self._reading.add_done_callback(part.drop_after)
        elif part is not None:
            part.drop()
        anchor, self._anchor = self._anchor, None
        if anchor is not None:
            anchor.close()

    async def _refill(self) -> Record:
        """Read on until there are records, and give the first of them."""
        if self._closed:
            raise StopAsyncIteration
        try:
            view = await self._begin() if self._view is None else self._view
            while self._start < self._stop:
                part = await self._enter(view)
                if self._search is not None:
                    found = await self._read_found(view, part, self._search)
                elif self._reverse:
                    found = await self._read_back(part)
                else:
                    found = await self._read_on(part)
                self._ready = iter(found)
                for record in self._ready:
                    return record
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    # from segment to segment

    async def _begin(self) -> View:
        """Take the view, and hold the oldest of its segments. Again, when a purge was quicker."""
        while True:
            view = self._view = await self._take_view()
            self._start, self._stop = view.start, view.stop
            if self._start >= self._stop:
                return view
            try:
                if self._reverse:
                    oldest, _ = view.holding(self._start)
                    self._anchor = await self._handoff.run(_hold, view.disk, oldest, undo=_close)
                else:
                    self._part = await self._open(view, self._start)
                return view
            except StoreUnavailableError as error:
                if await self._purged_up_to(error) is None:
                    raise

    async def _enter(self, view: View) -> _Part:
        """The segment that holds the record to be given next; that before is let go of when this one is held."""
        sequence = self._stop - 1 if self._reverse else self._start
        part = self._part
        if part is None or not part.first_sequence <= sequence < part.end:
            try:
                self._part = await self._open(view, sequence)
            except StoreUnavailableError as error:
                first_sequence = await self._purged_up_to(error)
                if first_sequence is None:
                    raise
                raise RecordPurgedError(_directory(error.path), sequence, first_sequence) from error
            if part is not None:
                part.drop()
        assert self._part is not None
        return self._part

    async def _open(self, view: View, sequence: int) -> _Part:
        extent, end = view.holding(sequence)
        start, stop = max(self._start, extent.first_sequence), min(self._stop, end)
        return await self._handoff.run(_open, view, extent, start, stop, self._search, undo=_Part.drop)

    async def _purged_up_to(self, error: StoreUnavailableError) -> int | None:
        """The first sequence that is kept, when it is by a purge that the file is gone."""
        if self._see is None or not isinstance(error.__cause__, FileNotFoundError):
            return None
        first_sequence = (await self._see()).start
        return first_sequence if first_sequence > self._start else None

    # within one

    async def _read_on(self, part: _Part) -> list[Record]:
        """What the next chunk holds: perhaps nothing yet, when a frame is larger than a chunk."""
        found = await self._chunk(part, self._start, part.end)
        self._start = part.end if part.walk.sequence >= part.end else max(self._start, part.walk.sequence)
        return found

    async def _read_back(self, part: _Part) -> list[Record]:
        """The records of the strides before, the last one first."""
        place = part.step_back(self._stop)
        start, found = max(place[0], self._start), []
        while part.walk.sequence < self._stop:
            found += await self._chunk(part, start, self._stop)
        self._stop = start
        found.reverse()
        return found

    async def _read_found(self, view: View, part: _Part, search: Search) -> list[Record]:
        """Those of the sought records that stand in the next stride in which there are any."""
        first = part.first_sequence
        some = part.next_found(self._reverse)
        found: list[Record] = []
        if some:
            reading = self._handoff.run(search.read, view, part.extent, part.file.fileno(), part.index, some)
            with explained(part.extent.path, "read"):
                found = await self._under_way(reading)
        if self._reverse:
            self._stop = first + some[0] if part.found else max(first, self._start)
            found.reverse()
        else:
            self._start = first + some[-1] + 1 if part.found else part.end
        return found

    async def _chunk(self, part: _Part, start: int, stop: int) -> list[Record]:
        """Those records from start up to stop that are whole with the next bytes of the file."""
        walk, extent = part.walk, part.extent
        self._handoff.departed()
        try:
            with explained(extent.path, "read"):
                chunk: bytes = await self._under_way(part.stream.read(max(CHUNK_BYTES, walk.wanted)))
        finally:
            self._handoff.arrived()
        walk.feed(chunk)
        found: list[Record] = []
        while walk.sequence < stop and (frame := next(walk, None)) is not None:
            offset, header, body = frame
            if header.next_sequence > start:
                first = header.first_sequence
                found += records_in(extent, offset, header, body)[max(start - first, 0) : stop - first]
        if walk.sequence < stop and (walk.fault is not None or not chunk) and not found:  # what is sound is given first
            raise what_stopped(extent.path, walk)
        return found

    async def _under_way(self, call: Coroutine[Any, Any, T]) -> T:
        """What a thread does with the file. Cancelled, it is closed when the thread has left it, and not before."""
        reading = self._reading = ensure_future(call)
        try:
            return await shield(reading)
        except CancelledError:
            self._drop()
            raise
        finally:
            self._reading = None


class _Part:
    """The segment that a scan is in."""

    def __init__(self, extent: Extent, file: BinaryIO, index: Index, walk: Walk, end: int, found: array[int]) -> None:
        from aiofiles.threadpool import wrap  # here, because a program that only writes needs none of it

        self.extent = extent
        self.file = file
        self.stream: Any = wrap(file)  # the type of what wrap gives is not public
        self.index = index
        self.walk = walk
        self.end = end
        """The first sequence that is not to be given any more."""
        self.found = found
        """Where the sought records stand that are still to be read."""
        self.strides = 1
        """That are read at a time, going back: few at first, for those who want but the last records."""

    @property
    def first_sequence(self) -> int:
        return self.extent.first_sequence

    def drop(self) -> None:
        """Close the file. Nobody may be reading it."""
        self.file.close()

    def drop_after(self, reading: Future[Any]) -> None:
        """Close the file when a read has ended that nobody waits for any more."""
        if not reading.cancelled():  # else the loop itself has ended, the thread may be in the file, and closes it last
            reading.exception()
            self.drop()

    def step_back(self, stop: int) -> tuple[int, int]:
        """Go to where the last strides before this sequence begin."""
        entry = bisect_left(self.index.sequences, stop) - self.strides
        self.strides = min(2 * self.strides, _STRIDES_MAX)
        place = (self.first_sequence, SEGMENT_HEADER_BYTES)
        if entry >= 0:
            place = self.index.sequences[entry], self.index.offsets[entry]
        self.walk = Walk(seed=self.extent.header.seed, sequence=place[0], offset=place[1], link=None)
        self.file.seek(place[1])
        return place

    def next_found(self, reverse: bool) -> array[int]:
        """Take those sought records out that stand in the next stride."""
        if not self.found:
            return self.found
        sequences, first = self.index.sequences, self.first_sequence
        entry = bisect_right(sequences, first + self.found[-1 if reverse else 0])
        if reverse:
            place = bisect_left(self.found, sequences[entry - 1] - first) if entry else 0
            some, self.found = self.found[place:], self.found[:place]
        else:
            place = bisect_left(self.found, sequences[entry] - first) if entry < len(sequences) else len(self.found)
            some, self.found = self.found[:place], self.found[place:]
        return some


# on a thread


def _hold(disk: Disk, extent: Extent) -> BinaryIO:
    """The file of a segment, which no purge removes until it is closed."""
    with explained(extent.path, "read"):
        stream = disk.open_stream(extent.path)
        try:
            if not disk.try_hold(stream.fileno()) or not disk.exists(extent.path):
                raise FileNotFoundError(ENOENT, "it was purged just now", extent.path)
        except BaseException:
            stream.close()
            raise
        return stream


def _close(stream: BinaryIO) -> None:
    stream.close()


def _open(view: View, extent: Extent, start: int, stop: int, search: Search | None) -> _Part:
    stream = _hold(view.disk, extent)
    try:
        with explained(extent.path, "read"):
            found = search.found(view, extent, start, stop) if search is not None else array("I")
            wanted = search is None or len(found) > 0
            index = index_of(view.disk, stream.fileno(), extent) if wanted else Index.empty()
            following, offset = place_in(index, extent, start)
            stream.seek(offset)
    except BaseException:
        stream.close()
        raise
    walk = Walk(seed=extent.header.seed, sequence=following, offset=offset, link=None)
    return _Part(extent, stream, index, walk, stop, found)


def _directory(path: str) -> str:
    return path.rpartition("/")[0]
