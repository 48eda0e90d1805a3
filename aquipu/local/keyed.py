"""Finding a commit by its key: what became of one that was sent and not answered. Blocking.

The log itself is the memory: a key stands in the frame of its commit, is synced with it, and is
there after a restart. Nothing else is kept, so nothing else can be lost or grow.

**A client of a daemon** knows a sequence below which its commit cannot be: what was acknowledged
before it was sent. Only the frames from there on are read (`find_keyed`).

**A producer** may ask for any of its numbers, at any time. So the label index has an entry for it,
at the first record of each of its batches (`find_number`). Its numbers ascend with its sequences:
its last one is at the last place of the newest segment that has any, and any other is sought among
the places by halving them. A segment without a table is read as for a label. The frames say which
number it is: what the index says is only where to look.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.frame import Flag
from aquipu.local.read.frames import Frame
from aquipu.local.read.segment_reader import SegmentReader, SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.options import Wanted
from aquipu.record import Key, Known, Located

if TYPE_CHECKING:
    from aquipu.local.index.finder import Finder


class Found(NamedTuple):
    """A commit that is in the log."""

    first_sequence: int
    time: int
    """Of its records: they were accepted together."""


def find_keyed(view: Snapshot, writer: bytes, number: int) -> Found | None:
    """Return the commit of this writer with this number, if it is in the view.

    Raises what reading a log raises.
    """
    for segment in view.segments:
        end = view.end_of(segment)
        start = max(view.start, segment.first_sequence)
        if (
            start < end
            and (found := _found_in(view, segment, start, end, writer, number)) is not None
        ):
            return found
    return None


def _found_in(
    view: Snapshot, segment: SegmentRef, start: int, end: int, writer: bytes, number: int
) -> Found | None:
    with translate_os_errors(segment.path, "read"), segment.open(view.disk) as reader:
        for frame in reader.frames_before(end, reader.place_before(start)):
            if frame.header.flags & Flag.KEYED:
                for key in frame.commit_keys():
                    if (key.writer, key.number) == (writer, number):
                        first = frame.header.first_sequence + key.first
                        return Found(first, frame.record(first).timestamp)
    return None


def find_number(view: Snapshot, finder: Finder, writer: bytes, number: int) -> Known:
    """Return the last number of a producer, and where the records of this one are, if anywhere.

    Raises what reading a log raises.
    """
    from aquipu.local.index.postings import producer_entry  # an import alone needs none of it

    last = -1
    wanted = Wanted((producer_entry(writer),), ())
    for segment in reversed(view.segments):
        found = _in_segment(view, finder, segment, wanted, writer, number)
        if found is None:
            continue
        last = max(last, found.last)
        if number > last or found.located is not None or found.first <= number:
            return Known(last, found.located)
    return Known(last, None)


class _Numbers(NamedTuple):
    """The numbers of a producer in one segment."""

    first: int
    last: int
    located: Located | None
    """Where the number is that is sought."""


def _in_segment(
    view: Snapshot,
    finder: Finder,
    segment: SegmentRef,
    wanted: Wanted,
    writer: bytes,
    number: int,
) -> _Numbers | None:
    """Return what one segment has of a producer; None: nothing."""
    for trusting in (True, False):
        places = finder.positions(view, segment, wanted, trusting=trusting)
        places = places[: bisect_left(places, view.end_of(segment) - segment.first_sequence)]
        if not places:
            return None
        with translate_os_errors(segment.path, "read"), segment.open(view.disk) as reader:
            found = _Places(reader, writer, places).sought(number)
        if found is not None:
            return found
        finder.distrust(segment)
    raise AssertionError("what was read in the segment itself is there")


class _Places:
    """The places of a producer's keys in a segment, read as far as they are looked at."""

    def __init__(self, reader: SegmentReader, writer: bytes, places: array[int]) -> None:
        self._reader = reader
        self._index = reader.index()
        self._writer = writer
        self._places = places

    def sought(self, number: int) -> _Numbers | None:
        """Return the numbers here; None when a place has no key of this producer."""
        low, high = 0, len(self._places) - 1
        first, last = self._at(low), self._at(high)
        if first is None or last is None:
            return None
        located = None
        if first[0].number <= number <= last[0].number:
            while low <= high and located is None:
                middle = (low + high) // 2
                found = self._at(middle)
                if found is None:
                    return None
                key, frame = found
                if key.number == number:
                    sequence = frame.header.first_sequence + key.first
                    located = Located(sequence, key.records, frame.record(sequence).timestamp)
                elif key.number < number:
                    low = middle + 1
                else:
                    high = middle - 1
        return _Numbers(first[0].number, last[0].number, located)

    def _at(self, place: int) -> tuple[Key, Frame] | None:
        ref = self._reader.ref
        sequence = ref.first_sequence + self._places[place]
        frame = self._reader.frame_holding(sequence, ref.place_in(self._index, sequence))
        for key in frame.commit_keys():
            at = frame.header.first_sequence + key.first
            if (key.writer, at) == (self._writer, sequence):
                return key, frame
        return None
