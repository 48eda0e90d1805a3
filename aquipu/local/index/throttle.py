"""Rests in long work on a thread, in which the interpreter lock is free for the loop.

A thread that only computes gives the lock away 5 ms after another asks for it: the loop would wait
so long at each of its steps. It hardly notices a third of a millisecond.
"""

from __future__ import annotations

from collections.abc import Callable
from time import sleep, thread_time

WORK_SECONDS = 0.0003
"""Work after which comes a rest, in seconds."""
_REST_SECONDS_MAX = 0.02  # also after long work: ending it takes no longer


class Throttle:
    """Rests when it is time, ``ratio`` times as long as the work took.

    Call it often, on the thread that made it. What counts is the time of the processor: so on a
    busy machine the work goes on, and takes the same share of it. Each call first calls ``check``,
    which may raise to end the work.
    """

    def __init__(self, ratio: float, check: Callable[[], None]) -> None:
        self._ratio = ratio
        self._check = check
        self._since = thread_time()

    def __call__(self) -> None:
        self._check()
        worked = thread_time() - self._since
        if worked >= WORK_SECONDS:
            sleep(min(self._ratio * worked, _REST_SECONDS_MAX))
            self._since = thread_time()
