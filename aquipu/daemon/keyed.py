"""Finding a commit by its key: who sent one and got no answer is told what became of it. Blocking.

The log itself is the memory: a key stands in the frame of its commit, is synced with it, and is there after a restart.
Nothing else is kept, so nothing else can be lost or grow. What makes that cheap is that whoever asks knows a sequence below
which the commit cannot be: what was acknowledged before it was sent. Only the frames from there on are read.
"""

from __future__ import annotations

from typing import NamedTuple

from aquipu.disk import explained, opened
from aquipu.errors import CorruptionError
from aquipu.frame import Flag, Header, Key, keys_of
from aquipu.journal import Extent
from aquipu.view import View, frames_from, place_before, record_in


class Found(NamedTuple):
    """A commit that is in the log."""

    first_sequence: int
    time: int
    """Of its records: they were accepted together."""


def find_keyed(view: View, writer: bytes, number: int) -> Found | None:
    """The commit of this writer with this number, if it is in the view. Raises what reading a log raises."""
    for extent in view.extents:
        end = view.end_of(extent)
        start = max(view.start, extent.first_sequence)
        if start < end and (found := _found_in(view, extent, start, end, writer, number)) is not None:
            return found
    return None


def _found_in(view: View, extent: Extent, start: int, end: int, writer: bytes, number: int) -> Found | None:
    with explained(extent.path, "read"), opened(view.disk, extent.path) as descriptor:
        place = place_before(view.disk, descriptor, extent, start)
        for offset, header, body in frames_from(view.disk, descriptor, extent, place, end):
            if header.flags & Flag.KEYED:
                for key in _keys_of(extent, offset, header, body):
                    if (key.writer, key.number) == (writer, number):
                        first = header.first_sequence + key.first
                        return Found(first, record_in(extent, offset, header, body, first).timestamp)
    return None


def _keys_of(extent: Extent, offset: int, header: Header, body: bytes) -> list[Key]:
    try:
        return keys_of(header, body)
    except ValueError as error:
        raise CorruptionError(extent.path, offset, str(error)) from None
