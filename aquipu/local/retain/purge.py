"""The sealed segments of a log, and the files of the dropped ones. Blocking; the journal owns it.

A purge has two steps. That the log begins later is written into the manifest, durably: from then on
the segments before are no part of it. Then their files are removed one by one, the oldest first,
and nothing depends on when: what is left of them, after a crash or because a scan reads it, is
ignored, and removed another time.

A scan holds the file of the segment it reads (`Disk.try_hold`), and the removal stops at the first
one that is held: a scan goes from older to newer segments, so all that it may still want stays.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from logging import getLogger

from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import relations_name, segment_name
from aquipu.local.retain.retention import SealedSegment
from aquipu.record import Purged

_log = getLogger(__name__)


class SealedSegments:
    """The sealed segments, and what is left over of the dropped ones before them."""

    def __init__(
        self, disk: Disk, path: str, sealed: Iterable[SealedSegment], left_over: Iterable[int] = ()
    ) -> None:
        self.sealed = list(sealed)
        """Sealed segments, the oldest first."""
        self.bytes = sum(segment.bytes for segment in self.sealed)
        """Size of their files."""
        self._disk = disk
        self._path = path
        self._left_over = deque(
            left_over
        )  # the first sequences of segments whose files are to go, the oldest first
        self._blocked = False  # the oldest of them is held, or could not be removed

    def before(self, first_sequence: int, kept_from: int) -> Purged:
        """Return what a purge drops when a log from ``first_sequence`` begins at ``kept_from``."""
        gone = [segment for segment in self.sealed if segment.next_sequence <= kept_from]
        size = sum(segment.bytes for segment in gone)
        return Purged(first_sequence, kept_from, len(gone), kept_from - first_sequence, size)

    def add(self, segment: SealedSegment) -> None:
        """Add a newly sealed segment; what could not be removed is tried again."""
        self.sealed.append(segment)
        self.bytes += segment.bytes
        self.try_again()

    def resized(self, first_sequence: int, size: int) -> None:
        """Take note of the size of a segment that was compressed, unless it was dropped."""
        for place, segment in enumerate(self.sealed):
            if segment.first_sequence == first_sequence:
                self.sealed[place] = segment._replace(bytes=size)
                self.bytes += size - segment.bytes

    def drop(self, kept_from: int) -> None:
        """Drop the segments before this sequence, with which the log now durably begins.

        Their files are left over.
        """
        self._left_over += (
            segment.first_sequence for segment in self.sealed if segment.next_sequence <= kept_from
        )
        self.sealed = [segment for segment in self.sealed if segment.next_sequence > kept_from]
        self.bytes = sum(segment.bytes for segment in self.sealed)

    @property
    def is_blocked(self) -> bool:
        """Whether there are files that `delete` could not delete."""
        return self._blocked and bool(self._left_over)

    def try_again(self) -> None:
        """Let `delete` try again what could not be removed."""
        self._blocked = False

    def delete(self) -> bool:
        """Delete the files of the oldest segment that is left over.

        False when there is none, or when it cannot be deleted now.
        """
        if self._blocked or not self._left_over:
            return False
        if self._remove(self._left_over[0]):
            self._left_over.popleft()
        else:
            self._blocked = True
        return not self._blocked

    def _remove(self, first_sequence: int) -> bool:
        """Remove a segment and its label index; return whether nothing of them is left."""
        segment, relations = (
            f"{self._path}/{name(first_sequence)}" for name in (segment_name, relations_name)
        )
        try:
            with suppress(FileNotFoundError):
                if not self._disk.try_remove(segment):
                    return False
            with suppress(FileNotFoundError):
                self._disk.remove(relations)
        except OSError as error:
            _log.warning(
                "%s was purged, but cannot be removed: %s; that is tried again later",
                segment,
                error.strerror,
            )
            return False
        return True
