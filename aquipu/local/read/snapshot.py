"""Snapshot: what may be seen of a log, and where in its files a record stands. Blocking.

Nothing here touches the writer. A reader learns once which segments there are and up to where
records are acknowledged, and stays within that: what a file holds beyond (a commit under way, zeros
written ahead) is never looked at.

**Times.** They never decrease in a segment, so a time is a place in it; from segment to segment
they may, where the clock was set back. So what lies between two times is one run of each segment.
What is in memory of a segment (`SegmentRef.earliest` and `latest`) mostly says that this is all of
it, or nothing; otherwise its index has the stride, and within that the frames are read. A frame's
time is that of its last record.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import zip_longest
from operator import attrgetter
from typing import NamedTuple

from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES
from aquipu.local.read.segment_reader import SegmentReader, SegmentRef
from aquipu.record import Record


class Snapshot(NamedTuple):
    """Which records a reader may see: acknowledged ones, from ``start`` up to ``stop``."""

    disk: Disk
    segments: tuple[SegmentRef, ...]
    """Segments that hold them, the oldest first."""
    start: int
    stop: int

    def holding(self, sequence: int) -> tuple[SegmentRef, int]:
        """Return the segment that holds the sequence, and where what may be seen of it ends."""
        place = bisect_right(self.segments, sequence, key=attrgetter("first_sequence"))
        if not place:
            raise LookupError(sequence)
        segment = self.segments[place - 1]
        return segment, self.end_of(segment)

    def pieces(self) -> Iterator[tuple[SegmentRef, int, int]]:
        """Yield each segment of which something may be seen: from where on, and up to where."""
        for segment, behind in zip_longest(self.segments, self.segments[1:]):
            start = max(segment.first_sequence, self.start)
            stop = self.stop if behind is None else min(behind.first_sequence, self.stop)
            if start < stop:
                yield segment, start, stop

    def behind(self, segment: SegmentRef) -> SegmentRef | None:
        """Return the segment that follows this one, if there is one yet."""
        place = bisect_right(
            self.segments, segment.first_sequence, key=attrgetter("first_sequence")
        )
        return self.segments[place] if place < len(self.segments) else None

    def end_of(self, segment: SegmentRef) -> int:
        """Return the sequence before which what may be seen of this segment ends."""
        behind = self.behind(segment)
        return self.stop if behind is None else min(self.stop, behind.first_sequence)


def find(view: Snapshot) -> Record:
    """Return the first record of a view.

    Raises CorruptionError, UnsupportedFormatError or StoreUnavailableError.
    """
    sequence = view.start
    segment, _ = view.holding(sequence)
    with translate_os_errors(segment.path, "read"), segment.open(view.disk) as reader:
        frame = reader.frame_holding(sequence, reader.place_before(sequence))
    return frame.record(sequence)


def parts_between(view: Snapshot, since: int, until: int) -> list[Snapshot]:
    """Return the parts of a view whose records were accepted at ``since`` up to ``until``.

    They are in the order of the log. Opens only those segments in which one of the two times may
    lie. Raises as `find`.
    """
    parts: list[Snapshot] = []
    for segment, first, end in view.pieces():
        start, stop = _between(view.disk, segment, first, end, since, until)
        if start < stop and parts and parts[-1].stop == start:
            parts[-1] = parts[-1]._replace(stop=stop)
        elif start < stop:
            parts.append(view._replace(start=start, stop=stop))
    return parts


def _between(
    disk: Disk, segment: SegmentRef, start: int, stop: int, since: int, until: int
) -> tuple[int, int]:
    """Return which of one segment's records, from start up to stop, lie between these times."""
    if until <= segment.earliest or since > segment.latest:
        return start, start
    from_start, to_stop = since <= segment.earliest, until > segment.latest
    if from_start and to_stop:
        return start, stop
    with translate_os_errors(segment.path, "read"), segment.open(disk) as reader:
        # the frame that holds the start or the stop may reach beyond it
        begin = start if from_start else max(_first_since(reader, stop, since), start)
        end = stop if to_stop else min(_first_since(reader, stop, until), stop)
    return begin, end


def _first_since(reader: SegmentReader, end: int, time: int) -> int:
    """Return the sequence of the first record before ``end`` that was accepted so late.

    Returns ``end`` when there is none.
    """
    index = reader.index()
    # entries behind these the writer may be noting just now
    acknowledged = bisect_left(index.sequences, end)
    entry = bisect_left(index.times, time, 0, acknowledged) - 1
    place = (reader.ref.first_sequence, SEGMENT_HEADER_BYTES)
    if entry >= 0:
        place = index.sequences[entry], index.offsets[entry]
    for frame in reader.frames_before(end, place):
        header = frame.header
        if header.time >= time and header.records:
            found = frame.records()
            return header.first_sequence + bisect_left(found, time, key=attrgetter("timestamp"))
    return end
