"""Clients' commits enter the store together, so that they share its syncs.

Clients that were answered at the same moment tend to come back within a moment, but not at once:
each has to wake, and there are more of them than cores. To begin with the first of them would give
each sync few records. So while a commit is under way the others gather, and when it is done they
enter together, as soon as there are half as many as entered the last two times.

Nobody waits for that longer than `PATIENCE`. When it was in vain, because the clients have other
things to do, it is left out the next times: 1, 3, 7 ... One client alone never waits for others.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, Future, TimerHandle

PATIENCE = 0.001
"""Seconds that are waited for clients that were answered."""
_SKIPPED_MAX = 1023


class Gathering:
    """Where commits of clients wait for each other; ``async with gathering:`` around each."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[Future[None]] = []
        self._under_way = 0
        self._last = self._before = 0  # how many entered the last two times
        self._skip = self._skipped = 0
        self._timer: TimerHandle | None = None
        self._will_look = False

    @property
    def waiting(self) -> int:
        """How many wait to enter."""
        return len(self._waiting)

    async def __aenter__(self) -> None:
        """Wait until it is time to append."""
        waiter: Future[None] = self._loop.create_future()
        self._waiting.append(waiter)
        if not self._will_look and not self._under_way:
            self._will_look = True  # when all that has come in this tick of the loop is here
            self._loop.call_soon(self._look)
        try:
            await waiter
        except CancelledError:
            if not waiter.cancelled():  # it has entered
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        self._under_way -= 1
        if not self._under_way and not self._will_look:
            self._will_look = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._will_look = False
        if not self._waiting:
            return
        if self._skip:
            self._skip -= 1
            self._enter()
        elif 2 * len(self._waiting) >= self._last + self._before:
            if self._timer is not None:  # it was not in vain
                self._skipped = 0
            self._enter()
        elif self._timer is None:
            self._timer = self._loop.call_later(PATIENCE, self._give_up)

    def _give_up(self) -> None:
        self._skip = self._skipped = min(2 * self._skipped + 1, _SKIPPED_MAX)
        self._enter()

    def _enter(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entering = [waiter for waiter in self._waiting if not waiter.done()]
        self._waiting.clear()
        self._under_way += len(entering)
        self._before, self._last = self._last, len(entering)
        for waiter in entering:
            waiter.set_result(None)
