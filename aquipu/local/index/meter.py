"""A meter of long work, which pauses it. Pure: what a pause is, the caller says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Pause: TypeAlias = Callable[[], None]


class Meter:
    """Divides long work: it calls ``pause`` each time that about 0.3 ms of work is done.

    What it raises ends the work.
    """

    SLICE = 1200

    def __init__(self, pause: Pause = lambda: None) -> None:
        self._pause = pause
        self._left = self.SLICE

    def spend(self, work: int) -> None:
        """Note that work was done, in quarters of a microsecond."""
        self._left -= work
        if self._left <= 0:
            self._left = self.SLICE
            self._pause()
