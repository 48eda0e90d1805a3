"""How far the consumers of a log are behind, looked at while it is written.

Cursors are files beside the log that other processes save, so there is no counting: they are read.
That is done when the statistics are asked for, at most once a second, by a thread of its own. So no
append waits for it, and a disk that hangs holds up nothing but the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from threading import Lock, Thread
from time import monotonic_ns, time_ns

from aquipu.errors import AquipuError
from aquipu.local.cursor import lags
from aquipu.local.disk.disk import Disk
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.write.journal import Journal
from aquipu.local.write.publisher import Publisher
from aquipu.record import Lag

_LOOK_EVERY = 1_000_000_000  # nanoseconds, at most


class LagMeter:
    """What was found when it was looked last; from any thread."""

    def __init__(self, disk: Disk, journal: Journal, publisher: Publisher) -> None:
        """Begin with nothing found of the log that these write."""
        self.found: Mapping[str, Lag] = {}
        """How far each cursor was behind when it was looked last."""
        self._disk, self._journal, self._publisher = disk, journal, publisher
        self._look_at = 0
        self._is_looking = Lock()

    def latest(self) -> Mapping[str, Lag]:
        """Return what was found, and have it looked at again if that was not just now."""
        if monotonic_ns() >= self._look_at and self._is_looking.acquire(blocking=False):
            self._look_at = monotonic_ns() + _LOOK_EVERY
            try:
                Thread(target=self._look, name="aquipu-lag", daemon=True).start()
            except RuntimeError:  # no thread can be started, or the program ends
                self._is_looking.release()
        return self.found

    def look(self) -> dict[str, Lag]:
        """Return how far each cursor is behind now. Blocking. Raises StoreUnavailableError."""
        path, until = self._journal.path, self._publisher.acknowledged  # before where it is
        segments = self._journal.segments
        seen = Snapshot(self._disk, segments, segments[0].first_sequence, until)
        return lags(path, segments[-1].header.store_id, seen, time_ns())

    def _look(self) -> None:
        try:
            with suppress(AquipuError):  # what was found before stands
                self.found = self.look()
        finally:
            self._is_looking.release()
