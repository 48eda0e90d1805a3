"""Tail: the place in the files from which a follower reads on whenever there is more. Blocking.

Nothing is open between two reads, and no lock is taken: a follower that was left keeps no file, and
makes no purge wait. Nothing is read that may not be seen yet but as bytes behind the last frame
that may; those are forgotten, and read again.

**Memory.** What one read gives is a `Window`: its data and labels are decoded, and stay until the
last follower has given them, which may take long; each record is made when it is given. So all that
read in a process share `_ALL_BYTES`: a single one reads far ahead, and each of a thousand a little,
`_LEAST_BYTES`. Of a frame that is larger than that a follower takes some records at a time.

**Sharing.** The followers of one log that are close behind each other read once: the windows of the
last reads are kept in `Windows`, up to `_KEPT_BYTES`, as long as there are several followers, and
who comes to a place where another is reading waits for that. With them is kept the last frame of
which only a part was given, up to `_FRAME_BYTES`; without it, it would be read again for each part.
"""

from __future__ import annotations

from array import array
from asyncio import Future, shield
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple
from weakref import WeakSet

from aquipu.errors import RecordPurgedError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.frame import decoder, plain_size
from aquipu.local.read.frames import Frame, FrameWalk
from aquipu.local.read.segment_reader import SegmentReader
from aquipu.local.read.snapshot import Snapshot
from aquipu.record import Record

_FIRST_BYTES = 32 * 1024  # of the first read, and of one that came to the end
_MOST_BYTES = 2 * 1024 * 1024  # that one read may give
_LEAST_BYTES = 48 * 1024
_ALL_BYTES = 64 * 1024 * 1024
_RECORD_BYTES = 256  # of a decoded record beside its data
_KEPT_BYTES = 8 * 1024 * 1024
_FRAME_BYTES = 16 * 1024 * 1024
_TRIES = 5  # to open a segment that a purge may be removing


_record = partial(tuple.__new__, Record)


class Window(NamedTuple):
    """Records one behind another, decoded but for the last step."""

    first_sequence: int
    times: array[int]
    payloads: list[bytes]
    labels: list[tuple[str, ...]]
    size: int
    """Bytes that it takes in memory, about."""
    place: _Place
    """Place from which is read on behind it."""

    @property
    def next_sequence(self) -> int:
        """One past its last record."""
        return self.first_sequence + len(self.payloads)

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """Return its records from start up to stop, each made when it is asked for."""
        begin, end = start - self.first_sequence, stop - self.first_sequence
        columns = (islice(it, begin, end) for it in (self.times, self.payloads, self.labels))
        return map(_record, zip(range(start, stop), *columns, strict=False))


class Windows:
    """What followers of one log have read last, for those close behind them."""

    def __init__(self) -> None:
        self.frame: Frame | None = None
        """The last frame of which only a part was given."""
        self._generation = b""  # that all of it is of
        self._kept: OrderedDict[int, Window] = OrderedDict()  # the last used one at the end
        self._firsts: list[int] = []  # their first sequences, ascending
        self._bytes = 0
        self._reading: dict[int, Future[None]] = {}
        self._followers: WeakSet[object] = WeakSet()

    def joined(self, follower: object) -> None:
        """Add a follower."""
        self._followers.add(follower)

    def left(self, follower: object) -> None:
        """Drop a follower."""
        self._followers.discard(follower)
        if len(self._followers) < 2:
            self._forget()

    def find(self, generation: bytes, sequence: int) -> Window | None:
        """Return a window that holds the record."""
        if generation != self._generation:
            return None
        place = bisect_right(self._firsts, sequence) - 1
        if place < 0 or sequence >= self._kept[self._firsts[place]].next_sequence:
            return None
        self._kept.move_to_end(self._firsts[place])
        return self._kept[self._firsts[place]]

    def keep(self, generation: bytes, window: Window) -> None:
        """Keep a window as long as there is room, if there are others whom it may serve."""
        if generation != self._generation:
            self._forget()
            self._generation = generation
        if len(self._followers) < 2 or window.first_sequence in self._kept:
            return
        self._kept[window.first_sequence] = window
        insort(self._firsts, window.first_sequence)
        self._bytes += window.size
        while self._bytes > _KEPT_BYTES:
            first, oldest = self._kept.popitem(last=False)
            self._firsts.remove(first)
            self._bytes -= oldest.size

    async def others(self, sequence: int) -> bool:
        """Wait for one who reads from there, if there is one; otherwise one does from now on."""
        reading = self._reading.get(sequence)
        if reading is not None:
            await shield(reading)
            return True
        self._reading[sequence] = Future()
        return False

    def done(self, sequence: int) -> None:
        """Wake those who wait for a read from there, however it ended."""
        self._reading.pop(sequence).set_result(None)

    def _forget(self) -> None:
        self.frame = None
        self._kept.clear()
        self._firsts.clear()
        self._bytes = 0


class Tail:
    """Reads from ``sequence`` on. Only one thread at a time may be in it."""

    def __init__(self, disk: Disk, path: str, sequence: int, windows: Windows) -> None:
        self.sequence = sequence
        """Sequence of the record that is read next."""
        self._disk = disk
        self._path = path
        self._windows = windows
        self._place: _Place | None = None
        self._size = _FIRST_BYTES  # of the next read: more as long as there is more
        _tails.add(self)

    def go_behind(self, window: Window) -> None:
        """Go to the end of a window that another has read."""
        self.sequence, self._place = window.next_sequence, window.place

    def read(self, look: Callable[[bool], Snapshot]) -> Window | None:
        """Return the next records that may be seen; None when there are none.

        ``look`` returns what may be seen now; with True, also where places in the segment that is
        being written are. Raises RecordPurgedError, CorruptionError, UnsupportedFormatError or
        StoreUnavailableError.
        """
        for tries_left in reversed(range(_TRIES)):
            view = look(self._place is None)
            if self.sequence >= view.stop:
                return None
            if self.sequence < view.start:
                raise RecordPurgedError(self._path, self.sequence, view.start)
            segment, end = view.holding(self.sequence)
            with translate_os_errors(segment.path, "read"):
                try:
                    reader = segment.open(self._disk)
                except FileNotFoundError:  # a purge, most likely
                    self._place = None
                    if tries_left:
                        continue
                    raise
                with reader:
                    return self._read(reader, end)
        raise AssertionError("the last try returns or raises")

    def _read(self, reader: SegmentReader, end: int) -> Window:
        """Return some of the records before ``end``: at least one."""
        window = _Filling(self.sequence, min(_MOST_BYTES, max(_share(), _LEAST_BYTES)))
        frame, plain_bytes = self._windows.frame, reader.plain_bytes
        if frame is not None and self._place == _place_of(frame, plain_bytes):
            window.take(frame, end)
        else:
            frame = self._read_frames(reader, end, window, plain_bytes)
        place = _place_of(frame, plain_bytes)
        if window.next_sequence < frame.header.next_sequence:
            self._windows.frame = frame if frame.header.size <= _FRAME_BYTES else None
        else:
            behind = frame.offset + frame.header.size
            place = _Place(frame.path, plain_bytes, window.next_sequence, behind)
        self.sequence, self._place = window.next_sequence, place
        self._size = _FIRST_BYTES if self.sequence >= end else min(2 * self._size, _MOST_BYTES)
        return window.made(place)

    def _read_frames(
        self, reader: SegmentReader, end: int, window: _Filling, plain_bytes: int
    ) -> Frame:
        """Take records from the next frames; return the last frame that some were taken of."""
        walk = self._walk(reader, plain_bytes)
        last: Frame | None = None
        while last is None:
            walk.restart()
            size, offset_before = max(min(self._size, window.room), walk.wanted), walk.offset
            piece = self._disk.read(reader.descriptor, size, walk.offset)
            walk.feed(piece)
            for frame in walk.ready() if walk.sequence < end else ():
                if frame.header.next_sequence > window.next_sequence:  # a mark has no records
                    window.take(frame, end)
                    last = frame
                if walk.sequence >= end or window.room <= 0:
                    break
            ends = walk.offset == offset_before and len(piece) < size
            if last is None and (walk.fault is not None or ends):
                raise walk.stopped()
        return last

    def _walk(self, reader: SegmentReader, plain_bytes: int) -> FrameWalk:
        place = self._place
        if place is None or (place.path, place.plain_bytes) != (reader.ref.path, plain_bytes):
            return reader.walk(reader.place_before(self.sequence))
        return reader.walk((place.sequence, place.offset))


class _Filling:
    """A window that is being filled, as long as there is room."""

    def __init__(self, first_sequence: int, room: int) -> None:
        self.room = room
        self.next_sequence = self._first_sequence = first_sequence
        self._bytes = room
        self._times = array("Q")
        self._payloads: list[bytes] = []
        self._labels: list[tuple[str, ...]] = []

    def take(self, frame: Frame, end: int) -> None:
        """Take the records of a frame from the next one on, as many as fit; one at least."""
        first, count = frame.header.first_sequence, frame.header.records
        each = _decoded_bytes(frame)
        begin = self.next_sequence - first
        stop = min(begin + max(self.room // each, 1), end - first, count)
        with frame.decoding():
            columns = decoder(frame.header, frame.body)
            self._payloads += columns.payloads(begin, stop)
            self._labels += columns.labels(begin, stop)
            self._times += columns.times(begin, stop)
        self.next_sequence = first + stop
        # a frame of which something is left is the last one
        self.room = self.room - (stop - begin) * each if stop in (count, end - first) else 0

    def made(self, place: _Place) -> Window:
        size = self._bytes - self.room
        return Window(self._first_sequence, self._times, self._payloads, self._labels, size, place)


class _Place(NamedTuple):
    """Place of the frame that is read next."""

    path: str
    """Path of its segment."""
    plain_bytes: int
    """Of the file in which it stands there: when that is compressed, it stands elsewhere."""
    sequence: int
    """Sequence of its first record."""
    offset: int
    check: int | None = None
    """Its check, when a part of it was given."""


def _place_of(frame: Frame, plain_bytes: int) -> _Place:
    header = frame.header
    return _Place(frame.path, plain_bytes, header.first_sequence, frame.offset, header.check)


def _decoded_bytes(frame: Frame) -> int:
    """Return the bytes that a record of the frame takes in memory, on average."""
    return _RECORD_BYTES + plain_size(frame.header, frame.body) // frame.header.records


def _share() -> int:
    return _ALL_BYTES // max(len(_tails), 1)


_tails: WeakSet[Tail] = WeakSet()
"""Tails of this process, which share the memory."""
