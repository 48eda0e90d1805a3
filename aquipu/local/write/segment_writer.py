"""One file of the log: created, appended to, synced, sealed. `segment_reader` reads it back.

Blocking. Only the worker thread touches a `SegmentWriter`. Two kinds of failure leave it: an
OSError says that a write did not go through, and `contents` counts only what was written whole;
`OutcomeUnknown` says that what is on the disk is no longer known.

**Space written ahead.** A sync of a file that grows must also journal the file's new size, which
costs about as much as the data. So for small commits that are synced, zeros are written a stride
ahead and synced along; the frames then replace zeros that are on the disk already. Zeros are never
a frame, so a reader stops there. A large commit gains nothing by it.

**Prepared ahead.** Making a file durable costs several syncs, so the file of the next segment is
made before it is needed (`Spare`): zeros, under a name that recovery removes. What is left for the
roll is its header, its name, and the footer of the segment before, which is written over zeros too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic_ns

from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import OutcomeUnknown, sync, sync_directory
from aquipu.local.disk.os_errors import is_no_space, is_passing
from aquipu.local.format.frame import (
    Encoded,
)
from aquipu.local.format.names import UNNAMED
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader, SegmentSummary

AHEAD_BYTES = 256 * 1024
"""Bytes of zeros that are written ahead at a time."""
_SMALL_BYTES = AHEAD_BYTES // 4


class Spare:
    """A file that has still to become a segment, under a name that recovery removes."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.path = path + UNNAMED
        self.size = 0
        self.dirty = False
        self._disk = disk
        self.descriptor = disk.create(self.path)

    @classmethod
    def prepared(cls, disk: Disk, path: str) -> Spare:
        """Make one with zeros where the header and the first frames will stand.

        After an OSError it is dropped.
        """
        spare = cls(disk, path)
        try:
            spare.write(bytes(SEGMENT_HEADER_BYTES + AHEAD_BYTES))
        except OSError:
            spare.drop()
            raise
        return spare

    def write(self, data: bytes) -> None:
        self.dirty = True
        self._disk.write(self.descriptor, [data], 0)
        self.size = max(self.size, len(data))

    def sync(self) -> None:
        sync(self._disk, self.descriptor)
        self.dirty = False

    def close(self) -> None:
        """Close the file and leave it where it is."""
        with suppress(OSError):
            self._disk.close(self.descriptor)

    def drop(self) -> None:
        """Close and remove the file.

        If it cannot be removed, the next opening does that.
        """
        self.close()
        with suppress(OSError):
            self._disk.remove(self.path)


class SegmentWriter:
    """The segment that is being written.

    ``dirty`` says whether it holds anything that no sync has covered, ``size`` how many bytes the
    file has, and ``sync_time`` how many nanoseconds its last sync took. ``is_syncing``, from any
    thread: a sync is under way, or has failed.
    """

    def __init__(
        self,
        disk: Disk,
        path: str,
        descriptor: int,
        header: SegmentHeader,
        contents: SegmentSummary,
        size: int,
    ) -> None:
        self.path = path
        self.header = header
        self.seed = header.seed
        """Seed of the checksums of its frames."""
        self.contents = contents
        self.dirty = self.is_syncing = False
        self._disk = disk
        self._descriptor = descriptor
        self.size = size  # zeros between the end of the frames and here
        self.sync_time = 0
        self._identity: tuple[int, int] | None = None

    @classmethod
    def create(
        cls, disk: Disk, path: str, header: SegmentHeader, spare: Spare | None = None
    ) -> SegmentWriter:
        """Create a segment whose header and name are durable, from the spare file if there is one.

        After an OSError it has no name any more, if that could be removed; but after a power cut it
        may have.
        """
        file = Spare(disk, path) if spare is None else spare
        try:
            file.write(header.encode())
            file.sync()
            disk.rename(file.path, path)
            sync_directory(disk, path.rpartition("/")[0])
        except OSError:
            file.drop()
            with suppress(OSError):
                disk.remove(path)
            raise
        except OutcomeUnknown:
            file.close()
            raise
        contents = SegmentSummary(header.first_sequence, header.link)
        return cls(disk, path, file.descriptor, header, contents, file.size)

    def append(
        self, frame: Encoded, first_sequence: int, count: int, time: int, *, durable: bool
    ) -> None:
        """Write a frame at the end.

        With ``durable`` it may be synced in the same call; `dirty` says whether it was.
        """
        offset = self.contents.end
        end = offset + frame.size
        if durable and end > self.size and frame.size <= _SMALL_BYTES:
            self._write_ahead(end)
        covers_all = durable and not self.dirty
        if not (covers_all and self._write_synced(frame.buffers, offset)):
            self.dirty = True
            self._disk.write(self._descriptor, frame.buffers, offset)
        self.size = max(self.size, end)
        self.contents.take(first_sequence, count, time, frame.size, frame.check)

    def _write_synced(self, buffers: Sequence[bytes], offset: int) -> bool:
        begun = monotonic_ns()
        self.is_syncing = True
        done = self._disk.write_synced(self._descriptor, buffers, offset)
        self.is_syncing = False
        self.sync_time = monotonic_ns() - begun
        return done

    def _write_ahead(self, end: int) -> None:
        """Lengthen the file with zeros to a stride beyond ``end``.

        Without the space for them it stays as it was.
        """
        ahead = end + AHEAD_BYTES
        self.dirty = True
        try:
            self._disk.write(self._descriptor, [bytes(ahead - self.size)], self.size)
        except OSError as error:
            if not is_no_space(error):
                raise
            self._truncate(self.size)
        else:
            self.size = ahead

    def sync(self) -> None:
        """Make everything written so far durable."""
        begun = monotonic_ns()
        self.is_syncing = True
        sync(self._disk, self._descriptor)
        self.is_syncing = False
        self.sync_time = monotonic_ns() - begun
        self.dirty = False

    def cut_back(self) -> None:
        """Remove whatever is behind the last whole frame, durably.

        Half a commit must not come back after a crash.
        """
        self._truncate(self.contents.end)
        self.sync()

    def _truncate(self, size: int) -> None:
        try:
            self._disk.truncate(self._descriptor, size)
        except OSError as error:
            raise OutcomeUnknown("truncating a segment", error) from error
        self.size = size
        self.dirty = True

    def is_in_place(self) -> bool:
        """Return whether its name still leads to the file that is written.

        Raises OSError when that cannot be seen.
        """
        if self._identity is None:
            self._identity = self._disk.identity(self._descriptor)
        try:
            return self._disk.identity(self.path) == self._identity
        except FileNotFoundError:
            return False

    def is_cut_off(self) -> bool:
        """Return whether the file was seen to be smaller than what was written to it."""
        try:
            return self._disk.seen(self._descriptor)[3] < self.size
        except OSError:
            return False

    def nears(self, size: int) -> bool:
        """Return whether this segment, full at ``size`` bytes, needs its successor prepared.

        A small one needs none.
        """
        return 0 <= size - 2 * AHEAD_BYTES <= self.contents.end

    def trim(self) -> None:
        """Let the zeros end where the footer will: then writing it changes no size to be journaled.

        After an OSError they are still there. Raises OutcomeUnknown.
        """
        size = self.contents.end + self.contents.footer_bytes
        if size < self.size:
            try:
                self._truncate(size)
            except OutcomeUnknown as unknown:
                if is_passing(unknown.error):
                    raise unknown.error from None
                raise

    def seal(self) -> int:
        """Write the footer behind the frames and make the whole segment durable.

        Returns the size of the file in bytes.
        """
        self.trim()
        footer = self.contents.encode_footer(self.seed)
        self._disk.write(self._descriptor, [footer], self.contents.end)
        self.sync()
        return self.contents.end + len(footer)

    def close(self) -> None:
        """Close the file.

        An error says nothing of what is on the disk: what matters was synced before.
        """
        with suppress(OSError):
            self._disk.close(self._descriptor)
