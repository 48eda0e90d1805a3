"""The past of a log: its sealed segments, and the files of those that were let go of. Blocking; the journal owns it.

A purge has two steps. That the log begins later is written into the manifest, durably: from then on the segments before
are no part of it. Then their files are removed one by one, the oldest first, and nothing depends on when: what is left of
them, after a crash or because somebody reads it, is ignored, and removed another time.

Who reads a segment holds its file (`Disk.try_hold`), and the removal stops at the first one that is held: a scan goes from
older to newer segments, so all that it may still want stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from logging import getLogger
from typing import NamedTuple

from aquipu.disk import Disk
from aquipu.layout import relations_name, segment_name
from aquipu.retention import Sealed

_log = getLogger(__name__)


class Purged(NamedTuple):
    """What a purge let go of, or would let go of."""

    first_sequence_before: int
    first_sequence: int
    """Of the first record kept. The same as before: nothing was let go of."""
    segments: int
    records: int
    bytes: int
    """Of the segment files."""


class Past:
    """The sealed segments, and what is left over of those before them."""

    def __init__(self, disk: Disk, path: str, sealed: Iterable[Sealed], left_over: Iterable[int] = ()) -> None:
        self.sealed = list(sealed)
        """The oldest first."""
        self.bytes = sum(segment.bytes for segment in self.sealed)
        """Of their files."""
        self._disk = disk
        self._path = path
        self._left_over = deque(left_over)  # the first sequences of segments whose files are to go, the oldest first
        self._blocked = False  # somebody holds the oldest of them, or it could not be removed

    def before(self, first_sequence: int, kept_from: int) -> Purged:
        """What it amounts to when a log that began with the one sequence begins with the other."""
        gone = [segment for segment in self.sealed if segment.next_sequence <= kept_from]
        size = sum(segment.bytes for segment in gone)
        return Purged(first_sequence, kept_from, len(gone), kept_from - first_sequence, size)

    def add(self, segment: Sealed) -> None:
        """One more was sealed; and what could not be removed is to be tried again."""
        self.sealed.append(segment)
        self.bytes += segment.bytes
        self.try_again()

    def let_go(self, kept_from: int) -> None:
        """The log begins with this sequence, durably: what lies before is left over."""
        self._left_over += (segment.first_sequence for segment in self.sealed if segment.next_sequence <= kept_from)
        self.sealed = [segment for segment in self.sealed if segment.next_sequence > kept_from]
        self.bytes = sum(segment.bytes for segment in self.sealed)

    def try_again(self) -> None:
        """What could not be removed is to be tried again."""
        self._blocked = False

    def sweep(self) -> bool:
        """Remove the files of the oldest segment that is left over; False when there is none, or not now."""
        if self._blocked or not self._left_over:
            return False
        if self._remove(self._left_over[0]):
            self._left_over.popleft()
        else:
            self._blocked = True
        return not self._blocked

    def _remove(self, first_sequence: int) -> bool:
        """Whether nothing of it is there any more."""
        segment, relations = (f"{self._path}/{name(first_sequence)}" for name in (segment_name, relations_name))
        try:
            with suppress(FileNotFoundError):
                if not self._disk.try_remove(segment):
                    return False
            with suppress(FileNotFoundError):
                self._disk.remove(relations)
        except OSError as error:
            _log.warning("%s was purged, but cannot be removed: %s; that is tried again later", segment, error.strerror)
            return False
        return True
