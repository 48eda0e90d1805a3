"""Saying on standard error that an object store does not answer, and that it does again."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from aquipu.archive.archive import Archive
from aquipu.archive.bucket import Bucket
from aquipu.archive.uploader import Progress
from aquipu.cli.streams.console import say

_PATIENCE = 1.0
"""Seconds of waiting of which nothing is said."""


class Teller:
    """Says what is in the way of an archive that is carried on, and when it is not any more."""

    def __init__(self) -> None:
        self._before = Progress()

    def __call__(self, progress: Progress) -> None:
        before, self._before = self._before, progress
        if progress.trouble is not None and before.trouble is None:
            _say_away(progress.trouble)
        elif progress.trouble is None and before.trouble is not None:
            _say_back()
        if progress.blocked is not None and before.blocked is None:
            say(f"aquipu: the archive has to wait: {progress.blocked}; it is tried again")
        elif progress.blocked is None and before.blocked is not None:
            say("aquipu: the archive goes on")


class TellingArchive(Archive):
    """An archive of which is said so, after a second, to whoever waits for a command."""

    __slots__ = ()

    def bucket(self) -> Bucket:
        """Reach the object store, as that of any archive."""
        return super().bucket().telling(Waiting())


class Waiting:
    """Says so once somebody has waited for long; called with each answer, None, and without."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._since: float | None = None  # when the first request had no answer
        self._is_said = False

    def __call__(self, reason: str | None) -> None:
        if reason is None:
            self._since = None
            if self._is_said:
                self._is_said = False
                _say_back()
            return
        self._since = self._clock() if self._since is None else self._since
        if not self._is_said and self._clock() - self._since >= _PATIENCE:
            self._is_said = True
            _say_away(reason)


def _say_away(reason: str) -> None:
    say(f"aquipu: the archive does not answer: {reason}; it is asked again")


def _say_back() -> None:
    say("aquipu: the archive answers again")
