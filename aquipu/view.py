"""What may be seen of a log, and where in its files a record stands: by its sequence, or by its time. Blocking.

Nothing here touches the writer. Whoever reads is told once which segments there are and up to where records are
acknowledged, and stays within that: what a file holds beyond (a commit under way, zeros written ahead) is never looked at.

**Times.** They never decrease in a log, so a time is a place in it. Three steps find it: a segment that follows another was
created at the time of the last commit before it, so the headers, which are in memory, tell the segment; its index tells the
stride; within that the frames are read. A frame's time is that of its last record.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

from aquipu.disk import Disk, explained, opened
from aquipu.errors import CorruptionError
from aquipu.frame import Header, Walk, record_of, records
from aquipu.journal import Extent
from aquipu.layout import SEGMENT_HEADER_BYTES, Index
from aquipu.record import Record
from aquipu.segment import frame_holding, read_footer, walk_frames, what_stopped


class View(NamedTuple):
    """What a reader may see: of these segments the sequences from ``start`` up to ``stop``, all acknowledged."""

    disk: Disk
    extents: tuple[Extent, ...]
    start: int
    stop: int

    def holding(self, sequence: int) -> tuple[Extent, int]:
        """The segment that holds the sequence, and where what may be seen of it ends."""
        place = bisect_right(self.extents, sequence, key=attrgetter("first_sequence"))
        if not place:
            raise LookupError(sequence)
        extent = self.extents[place - 1]
        return extent, self.end_of(extent)

    def behind(self, extent: Extent) -> Extent | None:
        """The segment that follows this one, if there is one yet."""
        place = bisect_right(self.extents, extent.first_sequence, key=attrgetter("first_sequence"))
        return self.extents[place] if place < len(self.extents) else None

    def end_of(self, extent: Extent) -> int:
        """The sequence before which what may be seen of this segment ends."""
        behind = self.behind(extent)
        return self.stop if behind is None else min(self.stop, behind.first_sequence)


def find(view: View) -> Record:
    """The first record of a view. Raises CorruptionError, UnsupportedFormatError or StoreUnavailableError."""
    disk, sequence = view.disk, view.start
    extent, _ = view.holding(sequence)
    with explained(extent.path, "read"), opened(disk, extent.path) as descriptor:
        place = place_before(disk, descriptor, extent, sequence)
        header, body = frame_holding(disk, descriptor, extent.path, extent.header.seed, place, sequence)
    return record_in(extent, place[1], header, body, sequence)


def index_of(disk: Disk, descriptor: int, extent: Extent) -> Index:
    """Where the frames of a segment stand, sparsely. Raises CorruptionError when a sealed one has no sound footer."""
    if extent.growing is not None:
        return extent.growing
    sealed = read_footer(disk, descriptor, extent.path, extent.header.seed)
    if sealed is None:
        raise CorruptionError(extent.path, disk.size(descriptor), "the footer of a sealed segment is missing")
    return sealed.index


def place_in(index: Index, extent: Extent, sequence: int) -> tuple[int, int]:
    """Sequence and offset of the frame that holds the sequence, or of one shortly before it."""
    return index.place_before(sequence) or (extent.first_sequence, SEGMENT_HEADER_BYTES)


def place_before(disk: Disk, descriptor: int, extent: Extent, sequence: int) -> tuple[int, int]:
    """As `place_in`, by the index of the segment."""
    return place_in(index_of(disk, descriptor, extent), extent, sequence)


def sequence_at(view: View, time: int) -> int:
    """The sequence of the first record of a view that was accepted at this time or later; its stop when there is none.

    Opens one segment at most. Raises as `find`.
    """
    if view.start >= view.stop:
        return view.stop
    behind = bisect_left(view.extents, time, lo=1, key=lambda extent: extent.header.created)
    extent = view.extents[behind - 1]  # the first one whose last record may be that late
    end = view.end_of(extent)
    if end <= max(extent.first_sequence, view.start):
        return max(end, view.start)
    with explained(extent.path, "read"), opened(view.disk, extent.path) as descriptor:
        found = _first_since(view.disk, descriptor, extent, end, time)
    return min(max(found, view.start), end)  # the frame that holds the start or the stop may reach beyond it


def _first_since(disk: Disk, descriptor: int, extent: Extent, end: int, time: int) -> int:
    """The sequence of the first record of the segment before ``end`` that was accepted so late; otherwise ``end``."""
    index = index_of(disk, descriptor, extent)
    acknowledged = bisect_left(index.sequences, end)  # entries behind these the writer may be noting just now
    entry = bisect_left(index.times, time, 0, acknowledged) - 1
    place = (extent.first_sequence, SEGMENT_HEADER_BYTES) if entry < 0 else (index.sequences[entry], index.offsets[entry])
    for offset, header, body in frames_from(disk, descriptor, extent, place, end):
        if header.time >= time and header.records:
            found = records_in(extent, offset, header, body)
            return header.first_sequence + bisect_left(found, time, key=attrgetter("timestamp"))
    return end


def frames_from(
    disk: Disk, descriptor: int, extent: Extent, place: tuple[int, int], end: int, size: int | None = None
) -> Iterator[tuple[int, Header, bytes]]:
    """The frames from a place before ``end`` up to that behind which it begins; the file's first ``size`` bytes hold them.

    Raises CorruptionError or UnsupportedFormatError where one does not check.
    """
    walk = Walk(seed=extent.header.seed, sequence=place[0], offset=place[1], link=None)
    for frame in walk_frames(disk, descriptor, walk, disk.size(descriptor) if size is None else size):
        yield frame
        if walk.sequence >= end:
            return
    raise what_stopped(extent.path, walk)


def record_in(extent: Extent, offset: int, header: Header, body: bytes, sequence: int) -> Record:
    """One record of a sound frame that stands at this offset or shortly behind it. Raises as `records_in`."""
    try:
        return record_of(header, body, sequence)
    except ValueError as error:
        raise CorruptionError(extent.path, offset, str(error)) from None


def records_in(extent: Extent, offset: int, header: Header, body: bytes) -> list[Record]:
    """The records of a sound frame that stands at this offset. Raises CorruptionError when its columns do not fit."""
    try:
        return records(header, body)
    except ValueError as error:
        raise CorruptionError(extent.path, offset, str(error)) from None
