"""How long work on a thread leaves room for the loop: it rests now and then, and meanwhile the interpreter lock is free.

A thread that only computes gives the lock away 5 ms after somebody asks for it: the loop would wait so long at each of its
steps. A third of a millisecond it hardly notices.
"""

from __future__ import annotations

from collections.abc import Callable
from time import sleep, thread_time

WORK_SECONDS = 0.0003
"""After so much work comes a rest."""
_REST_SECONDS_MAX = 0.02  # also after long work: who wants it to end waits no longer


class Rest:
    """To be called often, by the thread that made it. Sleeps when it is time, ``ratio`` times as long as was worked.

    What counts is the time of the processor: so on a busy machine the work goes on, and takes the same share of it. Each
    call first calls ``heed``, which may raise to end the work.
    """

    def __init__(self, ratio: float, heed: Callable[[], None]) -> None:
        self._ratio = ratio
        self._heed = heed
        self._since = thread_time()

    def __call__(self) -> None:
        self._heed()
        worked = thread_time() - self._since
        if worked >= WORK_SECONDS:
            sleep(min(self._ratio * worked, _REST_SECONDS_MAX))
            self._since = thread_time()
