"""What may be seen of a log, and where in its files a record stands. Blocking.

Nothing here touches the writer. Whoever reads is told once which segments there are and up to where records are
acknowledged, and stays within that: what a file holds beyond (a commit under way, zeros written ahead) is never looked at.
"""

from __future__ import annotations

from typing import NamedTuple

from aquipu.disk import Disk, explained, opened
from aquipu.errors import CorruptionError
from aquipu.frame import record_of
from aquipu.journal import Extent
from aquipu.layout import SEGMENT_HEADER_BYTES
from aquipu.record import Record
from aquipu.segment import frame_holding, read_footer


class View(NamedTuple):
    """What a reader may see: of these segments the sequences from ``start`` up to ``stop``, all acknowledged."""

    disk: Disk
    extents: tuple[Extent, ...]
    start: int
    stop: int

    def holding(self, sequence: int) -> tuple[Extent, int]:
        """The segment that holds the sequence, and where what may be seen of it ends."""
        end = self.stop
        for extent in reversed(self.extents):
            if extent.first_sequence <= sequence:
                return extent, end
            end = min(end, extent.first_sequence)
        raise LookupError(sequence)


def find(view: View) -> Record:
    """The first record of a view. Raises CorruptionError, UnsupportedFormatError or StoreUnavailableError."""
    disk, sequence = view.disk, view.start
    extent, _ = view.holding(sequence)
    with explained(extent.path, "read"), opened(disk, extent.path) as descriptor:
        place = place_before(disk, descriptor, extent, sequence)
        header, body = frame_holding(disk, descriptor, extent.path, extent.header.seed, place, sequence)
    try:
        return record_of(header, body, sequence)
    except ValueError as error:
        raise CorruptionError(extent.path, place[1], str(error)) from None


def place_before(disk: Disk, descriptor: int, extent: Extent, sequence: int) -> tuple[int, int]:
    """Sequence and offset of the frame that holds the sequence, or of one shortly before it."""
    index = extent.growing
    if index is None:
        sealed = read_footer(disk, descriptor, extent.path, extent.header.seed)
        if sealed is None:
            raise CorruptionError(extent.path, disk.size(descriptor), "the footer of a sealed segment is missing")
        index = sealed.index
    return index.place_before(sequence) or (extent.first_sequence, SEGMENT_HEADER_BYTES)
