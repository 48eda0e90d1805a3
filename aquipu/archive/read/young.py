"""The segment that was being written, as far as it is archived, part by part. Blocking.

Each young part is fetched and walked once: a look at an archive costs what is new, however much is
young. A few parts that have been folded into one are read again.
"""

from __future__ import annotations

from typing import NamedTuple

from aquipu.archive.bucket import Bucket
from aquipu.archive.fetch import read_piece
from aquipu.archive.format.entry import Head, Piece
from aquipu.archive.format.pieces import summary_behind
from aquipu.archive.read.files import InParts
from aquipu.local.format.segment import Index, SegmentHeader, SegmentSummary


class _Walked(NamedTuple):
    """A part that was fetched, and what it and those before it hold."""

    piece: Piece
    data: bytes
    summary: SegmentSummary


class YoungParts:
    """The young parts that were fetched last; one look at a time."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._active = b""  # the header of their segment
        self._walked: list[_Walked] = []

    def forget(self) -> None:
        """Let go of what was fetched: there are no young parts."""
        self._walked = []

    def look(self, path: str, head: Head, header: SegmentHeader) -> tuple[InParts, Index]:
        """Return the file of the parts that are alive now, and where frames stand in it.

        Raises CorruptionError, which names ``path``, UnsupportedFormatError, and what `read_piece`
        raises.
        """
        walked = self._known(head)
        self._active, self._walked = head.active, walked
        summary = SegmentSummary(header.first_sequence, header.link)
        if walked:
            summary = walked[-1].summary
        for piece in head.young[len(walked) :]:
            data = read_piece(self._bucket, piece)
            summary = summary_behind(summary, path, header, data)
            walked.append(_Walked(piece, data, summary))
        return InParts.of([head.active, *(part.data for part in walked)]), summary.index

    def _known(self, head: Head) -> list[_Walked]:
        """Return the parts that are known already, up to the first that is another."""
        if head.active != self._active:
            return []
        same = 0
        for part, piece in zip(self._walked, head.young, strict=False):
            if part.piece != piece:
                break
            same += 1
        return self._walked[:same]
