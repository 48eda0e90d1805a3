"""Scan: the records of a view, one after another, while the log goes on.

In either direction, all of them or those with labels.

File chunks are decoded frame by frame. Each frame is checked before any of it is given. What the
system has in memory is read at once, without waiting for a disk: to wake a thread and to be woken
takes as long as to decode it. Anything else comes through aiofiles. Against the order of the log
the chunks begin at entries of a segment's index, the last one first. Of records that are sought by
their labels, only the frames that hold them are read.

**Purges.** A scan holds the file of the segment it is in (`Disk.try_hold`), and takes hold of the
next one before it drops that one. A purge removes the oldest files first and stops at one that is
held, so what a scan still wants stays. Against the order of the log, it holds the oldest segment
that it will come to, from the beginning on.
"""

from __future__ import annotations

from asyncio import CancelledError, Future, ensure_future, shield, sleep
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from itertools import chain
from typing import Any, BinaryIO, TypeVar

from aquipu.errors import (
    AquipuError,
    CorruptionError,
    RecordPurgedError,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.read.frames import Frame
from aquipu.local.read.held_segment import (
    CHUNK_BYTES,
    HeldSegment,
    Search,
    SegmentSearch,
    hold,
)
from aquipu.local.read.snapshot import Snapshot
from aquipu.reading import Scan
from aquipu.record import Record
from aquipu.runtime.handoff import Handoff

T = TypeVar("T")

Taking = Callable[[], Awaitable[Sequence[Snapshot]]]
Seeing = Callable[[], Awaitable[Snapshot]]


class LocalScan(Scan):
    """A `Scan` that reads the files of a log."""

    def __init__(
        self,
        views: Taking,
        handoff: Handoff,
        *,
        seen: Seeing | None = None,
        reverse: bool = False,
        search: Search | None = None,
    ) -> None:
        """Take the parts of one view in their order, which do not overlap; not called by users.

        ``seen`` returns what may be seen by now; without it nothing is purged.
        """
        self._take_views = views
        self._handoff = handoff
        self._see = seen
        self._reverse = reverse
        self._search = search
        self._view: Snapshot | None = None  # that is being given
        self._start = self._stop = 0  # what of it is still to be given
        self._further: deque[Snapshot] = deque()  # what is given after it
        self._ready: Iterator[Record] = iter(())
        self._held: HeldSegment | None = None
        self._anchor: BinaryIO | None = None  # the oldest segment, held against purges
        self._reading: Future[Any] | None = None
        self._error: AquipuError | None = None  # behind what is ready
        self._closed = False

    async def aclose(self) -> None:
        """Close the files at hand; the scan has ended. Does nothing the second time."""
        self._closed = True
        self._ready = iter(())
        self._drop()

    def _drop(self) -> None:
        """Close the files at hand, at once or when a thread has left them.

        They were only read, so that takes no time.
        """
        held, self._held = self._held, None
        if held is not None and self._reading is not None:
            self._reading.add_done_callback(held.drop_after)
        elif held is not None:
            held.drop()
        anchor, self._anchor = self._anchor, None
        if anchor is not None:
            anchor.close()

    async def _refill(self) -> Record:
        """Read on until there are records, and give the first of them."""
        if self._closed:
            raise StopAsyncIteration
        try:
            if self._error is not None:
                raise self._error
            if self._view is None:
                await self._begin()
            while self._view is not None and (self._start < self._stop or self._go_on()):
                view = self._view
                held = await self._enter(view)
                if held.search is not None:
                    self._ready = await self._read_found(held, held.search)
                elif self._reverse:
                    self._ready = await self._read_back(held)
                else:
                    self._ready = await self._read_on(held)
                for record in self._ready:
                    return record
                if self._error is not None:
                    raise self._error
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    # from segment to segment

    def _go_on(self) -> bool:
        """Turn to the next held of the view; False when there is none."""
        if not self._further:
            return False
        self._view = self._further.pop() if self._reverse else self._further.popleft()
        self._start, self._stop = self._view.start, self._view.stop
        return True

    async def _begin(self) -> None:
        """Take the view, and hold the oldest of its segments. Again, when a purge was quicker."""
        while True:
            self._further = deque(
                view for view in await self._take_views() if view.start < view.stop
            )
            if not self._further:
                return
            view = self._further[0]
            try:
                if self._reverse:
                    oldest, _ = view.holding(view.start)
                    self._anchor = await self._handoff.run(hold, view.disk, oldest, undo=_close)
                else:
                    self._held = await self._open(view, view.start, view.start, view.stop)
                self._go_on()
                return
            except StoreUnavailableError as error:
                if await self._purged_up_to(error, view.start) is None:
                    raise

    async def _enter(self, view: Snapshot) -> HeldSegment:
        """Return the segment that holds the record to be given next.

        The one before is dropped when this one is held.
        """
        sequence = self._stop - 1 if self._reverse else self._start
        held = self._held
        if held is None or not held.start <= sequence < held.end:
            try:
                self._held = await self._open(view, sequence, self._start, self._stop)
            except StoreUnavailableError as error:
                first_sequence = await self._purged_up_to(error, self._start)
                if first_sequence is None:
                    raise
                raise RecordPurgedError(_directory(error.path), sequence, first_sequence) from error
            if held is not None:
                held.drop()
        assert self._held is not None
        return self._held

    async def _open(self, view: Snapshot, sequence: int, start: int, stop: int) -> HeldSegment:
        """Open the segment that holds the sequence, to give what lies from start up to stop."""
        segment, end = view.holding(sequence)
        start, stop = max(start, segment.first_sequence), min(stop, end)
        return await self._handoff.run(
            HeldSegment.open, view, segment, start, stop, self._search, undo=HeldSegment.drop
        )

    async def _purged_up_to(self, error: StoreUnavailableError, start: int) -> int | None:
        """Return the first sequence kept, when a purge has removed the file with the start."""
        if self._see is None or not isinstance(error.__cause__, FileNotFoundError):
            return None
        first_sequence = (await self._see()).start
        return first_sequence if first_sequence > start else None

    # within one

    async def _read_on(self, held: HeldSegment) -> Iterator[Record]:
        """Return what the next chunk holds: nothing yet, when a frame is larger than a chunk."""
        is_end = await self._feed(held)
        return chain.from_iterable(self._until_error(self._frames(held, is_end)))

    def _frames(self, held: HeldSegment, is_end: bool) -> Iterator[Iterator[Record]]:
        """Yield the records of each frame that is whole, which is decoded when they are wanted.

        What is sound is given before an error is raised.
        """
        walk, before = held.walk, self._start
        for frame in walk.ready() if walk.sequence < held.end else ():
            first, behind = frame.header.first_sequence, min(walk.sequence, held.end)
            if behind > self._start:
                records = frame.records_between(self._start - first, behind - first)
                self._start = behind
                yield records
            if walk.sequence >= held.end:
                self._start = held.end
                return
        if (walk.fault is not None or is_end) and self._start == before:
            raise walk.stopped()

    async def _read_back(self, held: HeldSegment) -> Iterator[Record]:
        """Return the records of the strides before, the last one first."""
        start = max(held.step_back(self._stop), self._start)
        found: list[Record] = []
        walk = held.walk
        while walk.sequence < self._stop:
            is_end = await self._feed(held)
            for frame in walk.ready():
                if walk.sequence > start:
                    first = frame.header.first_sequence
                    begin, behind = max(start, first), min(walk.sequence, self._stop)
                    found += frame.records_between(begin - first, behind - first)
                if walk.sequence >= self._stop:
                    break
            if walk.sequence < self._stop and (walk.fault is not None or is_end):
                raise walk.stopped()
        self._stop = start
        return reversed(found)

    async def _read_found(self, held: HeldSegment, search: SegmentSearch) -> Iterator[Record]:
        """Return the sought records in the next frames in which there may be any."""
        frames: list[Frame] = []
        if not search.is_done:
            with translate_os_errors(held.segment.path, "read"):
                cached = search.read_cached(held.of_memory, held.index, self._reverse)
                if cached is None:
                    reading = self._handoff.run(search.read, held.reader, held.index, self._reverse)
                    frames = await self._under_way(reading)
                else:
                    frames = cached
                    await sleep(0)  # the loop is free in between
        if not frames:
            if self._reverse:
                self._stop = held.start
            else:
                self._start = held.end
        return chain.from_iterable(self._until_error(search.records(frames, self._reverse)))

    def _until_error(self, found: Iterator[Iterator[Record]]) -> Iterator[Iterator[Record]]:
        try:
            yield from found
        except (CorruptionError, UnsupportedFormatError) as error:
            self._error = error

    async def _feed(self, held: HeldSegment) -> bool:
        """Read the next bytes; return whether there are no more."""
        walk, known = held.walk, held.walk.pending
        if known:  # to read a frame again that was cut off is cheaper than to join its parts
            walk.restart()
        size = max(CHUNK_BYTES, walk.wanted)
        chunk = held.read_cached(size)
        if chunk is None:
            chunk = await self._read_stream(held, size)
        else:
            await sleep(0)  # the loop is free between two chunks
        walk.feed(chunk)
        return len(chunk) <= known

    async def _read_stream(self, held: HeldSegment, size: int) -> bytes:
        """Read bytes of where the walk is, on a thread."""
        walk = held.walk
        if held.file.tell() != walk.offset:
            held.file.seek(walk.offset)
        self._handoff.begin()
        try:
            with translate_os_errors(walk.path, "read"):
                chunk: bytes = await self._under_way(held.stream.read(size))
        finally:
            self._handoff.end()
        return chunk

    async def _under_way(self, call: Coroutine[Any, Any, T]) -> T:
        """Wait for what a thread does with the file.

        Cancelled, the file is closed when the thread has left it, and not before.
        """
        reading = self._reading = ensure_future(call)
        try:
            return await shield(reading)
        except CancelledError:
            self._drop()
            raise
        finally:
            self._reading = None


def _close(stream: BinaryIO) -> None:
    stream.close()


def _directory(path: str) -> str:
    return path.rpartition("/")[0]
