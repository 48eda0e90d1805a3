"""LogFiles: the files of a log that is written, and whether they can still be trusted. Blocking.

What writes, rolls and keeps the log shares them. After the first failure that leaves unknown what
is on the disk, or when the path has left the directory (see `directory`), everything is refused:
the log is *poisoned*.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO, ENOENT
from logging import getLogger

from aquipu.errors import StoreFailedError, StoreFullError, copy_error
from aquipu.local.disk.directory import Directory
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import OutcomeUnknown
from aquipu.local.disk.lock import Lock
from aquipu.local.disk.os_errors import is_no_space, is_passing
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import MANIFEST
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.retain.age import SegmentAge
from aquipu.local.retain.clock import elapsed_ns
from aquipu.local.retain.manifest import write_manifest
from aquipu.local.retain.purge import SealedSegments
from aquipu.local.write.segment_writer import SegmentWriter

_FEW = 8  # segments: to look whether they are there takes no time

_log = getLogger(__name__)


class LogFiles:
    """The segments and the manifest of a log. Any thread may read `segments`."""

    def __init__(
        self,
        disk: Disk,
        path: str,
        manifest: Manifest,
        sealed: list[SegmentRef],
        active: SegmentWriter,
        sealed_segments: SealedSegments,
        lock: Lock | None,
    ) -> None:
        self.disk = disk
        self.path = path
        self.manifest = manifest
        self.active = active
        """Writer of the last segment."""
        self.segments: tuple[SegmentRef, ...] = (*sealed, segment_ref(active))
        """Segments as readers see them, the oldest first."""
        self.sealed = sealed_segments
        """Sealed segments as purges and the retention see them."""
        self.age: SegmentAge | None = None
        """Age of the active segment, where that is bounded."""
        self.failure: StoreFailedError | None = None
        self._lock = lock
        self._directory = Directory(disk, path) if lock is None else lock.directory

    @property
    def bytes(self) -> int:
        """Size of the segment files in bytes; from any thread."""
        return self.sealed.bytes + self.active.size

    @property
    def is_doubtful(self) -> bool:
        """Whether a sync has failed, or may be failing just now; from any thread.

        The system tells the first who asks of lost pages, and nobody after that: so while this
        holds, a sync by anyone else proves nothing.
        """
        return self.active.is_syncing or self.failure is not None

    def seal_age(self) -> int:
        """Return when the newest record of the segment that is being sealed was there, at last."""
        now = elapsed_ns()
        return now if self.age is None else self.age.sealed(now)

    def fail(self, doing: str, error: Exception) -> StoreFailedError:
        """Poison the log: from here on it refuses everything and touches no file.

        Returns the error that callers get.
        """
        if self.failure is None:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self.failure = StoreFailedError(self.path, f"{doing}: {reason}")
            self.failure.__cause__ = error
        return copy_error(self.failure)

    def refuse_if_failed(self) -> None:
        """Raise StoreFailedError if the log is poisoned."""
        if self.failure is not None:
            raise copy_error(self.failure)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Translate the errors of replacing or removing a small file: no space, or a failed sync.

        Any other OSError passes.
        """
        try:
            yield
            self.check_place()
        except OSError as error:
            if not is_no_space(error):
                raise
            raise StoreFullError(self.path, None, error.strerror or "no space") from error
        except OutcomeUnknown as unknown:
            raise self.fail(unknown.doing, unknown.error) from unknown.error

    def note_end(self, synced_sequence: int) -> None:
        """Write into the manifest how far the log reaches.

        Where that does not go, nothing is lost but that proof.
        """
        if self.manifest.synced_sequence == synced_sequence:
            return
        self.manifest = self.manifest._replace(synced_sequence=synced_sequence)
        try:
            write_manifest(self.disk, self.path, self.manifest)
        except OutcomeUnknown as unknown:
            if unknown.is_begun:
                raise self.fail(unknown.doing, unknown.error) from unknown.error
        except OSError as error:
            if not (is_no_space(error) or is_passing(error)):
                raise self.fail("writing the manifest", error) from error

    # their place

    def check_place(self, *, whole: bool = False) -> None:
        """Raise StoreFailedError unless the path still leads to the directory of the log.

        Its files must be in it, too. Of a log with many only those that are cheap to look at are
        checked, unless it is the ``whole`` log; then also whether the last segment was cut off.
        """
        wrong = self._directory.wrong(
            self._wrong_files if not whole else lambda _: self._wrong_files(True)
        )
        if wrong is not None:
            raise self.fail("checking its place", FileNotFoundError(ENOENT, wrong, self.path))
        if whole:
            self.check_size()

    def _wrong_files(self, whole: bool) -> str | None:
        """Return what has become of the files, when they are not as they should be.

        What cannot be seen now is checked again later.
        """
        active = self.active
        try:
            if not active.is_in_place():
                return f"the segment that is being written was removed or replaced: {active.path}"
            self.disk.identity(f"{self.path}/{MANIFEST}")
            if whole or len(self.segments) <= _FEW:
                for ref in self.segments:
                    self.disk.identity(ref.path)
            if self._lock is not None and not self._lock.keep():
                return "the lock file was replaced, and another process has it"
        except FileNotFoundError as error:
            return f"a file of the log was removed: {error.filename}"
        except OSError as error:
            _log.debug("%s: cannot look at the files of the log: %s", self.path, error)
        return None

    def check_size(self) -> None:
        """Raise StoreFailedError if the segment that is being written was cut off."""
        active = self.active
        if active.is_cut_off():
            wrong = f"the segment that is being written was cut off by somebody: {active.path}"
            raise self.fail("checking its place", OSError(EIO, wrong, active.path))


def segment_ref(segment: SegmentWriter) -> SegmentRef:
    """Return the segment that is being written as readers see it."""
    return SegmentRef(
        segment.header.first_sequence, segment.path, segment.header, segment.contents.index
    )
