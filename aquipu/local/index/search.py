"""The records of one segment that carry the labels which are sought.

What the index knows (`Finder.candidates`) says which frames to read: those behind it are looked
through, every one. A run of them is read in one piece, on a thread, and their records are taken out
when they are wanted, on the loop's.

The log is the truth: a record is given only if it carries what is sought. Where one does not that
the index has named, the index is wrong, and the rest of the segment is looked through.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from aquipu.errors import AquipuError, CorruptionError, UnsupportedFormatError
from aquipu.local.format.columns import Decoder
from aquipu.local.format.frame import Header, decoder
from aquipu.local.format.segment import INDEX_STRIDE, SEGMENT_HEADER_BYTES, Index
from aquipu.local.read.frames import Frame, Place
from aquipu.local.read.segment_reader import NotCached, SegmentReader, SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.options import Wanted
from aquipu.record import Record

if TYPE_CHECKING:
    from aquipu.local.index.finder import Finder

_CACHED_BYTES = 256 * 1024
"""Bytes that are read at a time from memory: the loop's thread is at it meanwhile."""
_FIRST_BYTES = 64 * 1024
_MOST_BYTES = 4 * 1024 * 1024
"""Bytes that are read at a time: few at first, for those who want the first records alone."""


class Candidates(NamedTuple):
    """What an index knows of the sought records of a segment."""

    positions: array[int]
    """Ascending: the sequences less the first one of the segment."""
    sure: Wanted
    """The labels that each of them carries, unless the index is wrong."""
    until: int
    """Sequence from which on it knows nothing."""


class Search:
    """The query of a scan by labels."""

    def __init__(self, finder: Finder, wanted: Wanted) -> None:
        self._finder = finder
        self._wanted = wanted

    def enter(self, view: Snapshot, segment: SegmentRef, start: int, stop: int) -> SegmentSearch:
        """Return the search in a segment, from start up to stop. Blocking."""
        candidates = self._finder.candidates(view, segment, self._wanted)
        return SegmentSearch(self._finder, self._wanted, segment, candidates, start, stop)


class SegmentSearch:
    """The search in one segment. `read` is for a thread, the rest for the loop's, in turns."""

    def __init__(
        self,
        finder: Finder,
        wanted: Wanted,
        segment: SegmentRef,
        candidates: Candidates,
        start: int,
        stop: int,
    ) -> None:
        self._finder = finder
        self._wanted = wanted
        self._segment = segment
        self._candidates = candidates
        self._first, self._behind = start, stop  # of what may be given
        self._start, self._stop = start, stop  # of what is still to be read
        self._room = _FIRST_BYTES
        self._error: AquipuError | None = None  # behind what was read

    @property
    def is_done(self) -> bool:
        """Whether there is nothing more to be read."""
        return self._error is None and not self._may_hold(self._start, self._stop)

    # on a thread

    def read(self, reader: SegmentReader, index: Index, reverse: bool) -> list[Frame]:
        """Return the next frames in which there may be sought records. Blocking.

        What is sound is returned before an error is raised.
        """
        room, self._room = self._room, min(2 * self._room, _MOST_BYTES)
        return self._read(reader, index, reverse, room)

    def read_cached(self, reader: SegmentReader, index: Index, reverse: bool) -> list[Frame] | None:
        """Return the next frames, as `read` does, from memory alone; None where they are not there.

        For the loop's thread: a thread that is woken for it takes longer than all of this.
        """
        before = self._start, self._stop
        try:
            return self._read(reader, index, reverse, _CACHED_BYTES)
        except NotCached:
            self._start, self._stop = before
            return None

    def _read(self, reader: SegmentReader, index: Index, reverse: bool, room: int) -> list[Frame]:
        self._finder.searching()
        if self._error is not None:
            raise self._error
        frames: list[Frame] = []
        while room > 0 and self._may_hold(self._start, self._stop):
            some: list[Frame] = []
            try:
                some.extend(self._run(reader, index, room, reverse))
            except (CorruptionError, UnsupportedFormatError) as error:
                if not frames and (reverse or not some):
                    raise
                self._error = error
                some = [] if reverse else some
                room = 0
            room -= max(sum(frame.header.size for frame in some), INDEX_STRIDE)
            frames += reversed(some) if reverse else some
        return frames

    def _run(
        self, reader: SegmentReader, index: Index, room: int, reverse: bool
    ) -> Iterable[Frame]:
        """Read the next strides in which there may be sought records, one behind another."""
        segment, sequences, offsets = self._segment, index.sequences, index.offsets
        # entries behind these the writer may be noting just now
        count = bisect_left(sequences, self._stop)

        def begin(stride: int) -> Place:
            if stride < 0:
                return segment.first_sequence, SEGMENT_HEADER_BYTES
            return sequences[stride], offsets[stride]

        def end(stride: int) -> int:
            return sequences[stride + 1] if stride + 1 < count else self._stop

        sought = self._last() if reverse else self._next()
        low = high = bisect_right(sequences, sought, 0, count) - 1
        if reverse:
            bound = end(high)
            while low >= 0 and offsets[high] - begin(low - 1)[1] < room:
                if not self._may_hold(begin(low - 1)[0], begin(low)[0]):
                    break
                low -= 1
            self._stop = max(begin(low)[0], self._start)
        else:
            last = begin(low)[1] + room  # offset before which the last stride begins
            while high + 1 < count and offsets[high + 1] < last:
                if not self._may_hold(sequences[high + 1], end(high + 1)):
                    break
                high += 1
            self._start = bound = end(high)
        place = begin(low)
        if low == high and self._is_only(place[0], bound):
            return [reader.frame_holding(sought, place)]  # of those before it the headers will do
        size = offsets[high + 1] if high + 1 < len(offsets) else None
        return reader.frames_before(self._needed(place[0], bound), place, size)

    def _needed(self, start: int, stop: int) -> int:
        """Return the end of what must be read from start up to stop, where something may stand."""
        if stop > self._candidates.until:
            return stop
        last = self._candidates.positions[self._named(start, stop)[-1]]
        return self._segment.first_sequence + last + 1

    def _may_hold(self, start: int, stop: int) -> bool:
        """Return whether sought records may stand from start up to stop."""
        candidates = self._candidates
        if start >= stop or stop > candidates.until:
            return start < stop
        first, positions = self._segment.first_sequence, candidates.positions
        place = bisect_left(positions, start - first)
        return place < len(positions) and positions[place] < stop - first

    def _is_only(self, start: int, stop: int) -> bool:
        return stop <= self._candidates.until and len(self._named(start, stop)) == 1

    def _named(self, start: int, stop: int) -> range:
        """Return the places in the positions of the candidates from start up to stop."""
        first, positions = self._segment.first_sequence, self._candidates.positions
        low = bisect_left(positions, max(start - first, 0))
        return range(low, bisect_left(positions, max(stop - first, 0), low))

    def _next(self) -> int:
        """Return the first sequence that may be sought; there is one."""
        named = self._named(self._start, self._stop)
        if named:
            return self._segment.first_sequence + self._candidates.positions[named[0]]
        return max(self._candidates.until, self._start)

    def _last(self) -> int:
        """Return the last sequence that may be sought; there is one."""
        if self._stop > self._candidates.until:
            return self._stop - 1
        named = self._named(self._start, self._stop)
        return self._segment.first_sequence + self._candidates.positions[named[-1]]

    # on the loop's

    def records(self, frames: Iterable[Frame], reverse: bool) -> Iterator[Iterator[Record]]:
        """Yield the sought records of each frame, which is decoded as far as that takes."""
        for frame in frames:
            header = frame.header
            start = max(header.first_sequence, self._first)
            stop = min(header.next_sequence, self._behind)
            is_known, is_wrong = header.next_sequence <= self._candidates.until, False
            named = self._named(start, stop)
            if start >= stop or (not named and stop <= self._candidates.until):
                continue
            with frame.decoding():
                columns = decoder(header, frame.body)
                found = self._those_named(columns, header, named) if is_known else None
                if found is None:
                    found = self._those_carrying(columns, header, start, stop)
                    is_wrong = is_known
            if is_wrong:
                self._distrust(header, reverse)
            yield reversed(found) if reverse else iter(found)
            if is_wrong:  # the next ones are read again
                return

    def _those_named(self, columns: Decoder, header: Header, named: range) -> list[Record] | None:
        """Return the sought records among the candidates; None: the index is wrong."""
        candidates = self._candidates
        base = header.first_sequence - self._segment.first_sequence
        positions = candidates.positions[named.start : named.stop]
        found = columns.records_at([position - base for position in positions])
        if len(_fitting(candidates.sure, found)) < len(found):
            return None
        return found if candidates.sure == self._wanted else _fitting(self._wanted, found)

    def _those_carrying(
        self, columns: Decoder, header: Header, start: int, stop: int
    ) -> list[Record]:
        """Look through the records of a frame, and return those that are sought."""
        wanted, first = self._wanted, header.first_sequence
        if len(wanted.every) == 1 and not wanted.any_of:
            found = columns.records_carrying(wanted.every[0])
            whole = (start, stop) == (first, header.next_sequence)
            return found if whole else [it for it in found if start <= it.sequence < stop]
        every = [set(columns.carrying(label)) for label in wanted.every]
        if wanted.any_of:
            every.append(set().union(*map(columns.carrying, wanted.any_of)))
        indices = sorted(set.intersection(*every))
        low, high = bisect_left(indices, start - first), bisect_left(indices, stop - first)
        return columns.records_at(indices[low:high]) if low < high else []

    def _distrust(self, header: Header, reverse: bool) -> None:
        """Look through what lies behind this frame, or before it, and was read for its candidates.

        The index has named a record that does not carry what it should.
        """
        self._finder.distrust(self._segment)
        first = self._segment.first_sequence
        self._candidates = Candidates(array("I"), self._wanted, first)
        self._error = None
        if reverse:
            self._behind = max(header.first_sequence, self._first)
        else:
            self._first = min(header.next_sequence, self._behind)
        self._start, self._stop = self._first, self._behind


def _fitting(wanted: Wanted, records: list[Record]) -> list[Record]:
    """Return those records that carry what is wanted."""
    for label in wanted.every:
        records = [record for record in records if label in record.relations]
    if wanted.any_of:
        some = frozenset(wanted.any_of)
        records = [record for record in records if not some.isdisjoint(record.relations)]
    return records
