"""Pace: how a backup keeps out of the way of the writer. On the thread of the backup.

Beside a log that is being appended to, it rests several times as long as it has worked: on the
processor, because a thread that computes keeps the interpreter from the loop (`Throttle`), and on
the disk, because a commit waits for what is being written there. Beside a log that stands still it
does not rest at all.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from time import monotonic, thread_time

_REST = 9.0
"""Rest after computing, beside a writer, in times of that: a tenth of the processor is kept."""
_DISK_REST = 19.0
"""The same after work of the disk, of which a twentieth is kept: what was written keeps a disk busy
for a while behind its sync."""
_WORK_SECONDS = 0.0003  # of computing, after which comes a rest: the loop hardly notices it
_REST_SECONDS_MAX = 1.0


class Stopped(Exception):
    """Nobody waits for the backup any more."""


class Pace:
    """Rests when it is time, and ends the work when it is to stop."""

    def __init__(self, progress: Callable[[], int], stop: Event) -> None:
        """Take what says how far the log has come, from any thread, and what ends the work."""
        self._progress = progress
        self._stop = stop
        self._seen = progress()
        self._since = thread_time()
        self.is_busy = True
        """Whether the log was being appended to when that was looked at last."""

    def computed(self) -> None:
        """Rest if it is time; to be called often. Raises Stopped."""
        worked = thread_time() - self._since
        if worked >= _WORK_SECONDS:
            self._rest(_REST * worked)
            self._since = thread_time()

    def moved(self, began: float) -> None:
        """Rest after work of the disk that began then, by the monotonic clock. Raises Stopped."""
        self._rest(_DISK_REST * (monotonic() - began))
        self._since = thread_time()

    def _rest(self, seconds: float) -> None:
        now = self._progress()
        self.is_busy, self._seen = now != self._seen, now
        if self._stop.wait(min(seconds, _REST_SECONDS_MAX) if self.is_busy else 0):
            raise Stopped
