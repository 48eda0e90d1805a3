"""How the loop thread gives way to the threads that work for it, when it never rests by itself.

A loop that always has something ready calls ``select`` with a zero timeout. Each call drops the interpreter lock and takes
it back before a waiting thread has woken, and restarts that thread's 5 ms timer: beside one task that computes for 0.2 ms
and yields, a thread that needs the lock twice for each commit gets nothing done for seconds. So the loop thread itself
waits a moment, at the two points where a thread needs to come through:

* **landing**: while a job is under way, a probe fires after a millisecond. If the loop thread has been computing
  all the while, it waits for the thread's sign, at most 0.2 ms, and then less and less often.
* **take-off**: once a probe has found the loop saturated, it also waits after handing a job over (at most 1 ms) until the
  thread has entered its system call, so that the disk works while the loop goes on. A job that comes back before any
  probe fired shows that the loop rests again, and ends this.

On a loop that rests, the cost is one timer a job, cancelled before it fires. Without any job under way there is nothing.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, Future, TimerHandle, shield
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Lock
from time import monotonic, thread_time
from typing import Any, TypeVar

T = TypeVar("T")

_PROBE_AFTER = 0.001  # seconds
_PROBE_AFTER_MAX = 0.008
_LANDING_WAIT = 0.0002
_TAKEOFF_WAIT = 0.001
_BUSY = 0.5  # of the time since the hand-over, spent computing


class Handoff:
    """Belongs to one loop thread; `airborne` and `landed` are for the threads."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.saturated = False
        """Whether the last probe found a loop that never rests."""
        self._loop = loop
        self._jobs = 0
        self._takeoff = Lock()
        self._landing = Lock()
        self._timer: TimerHandle | None = None
        self._pause = _PROBE_AFTER
        self._probed = False
        self._since = 0.0
        self._computed = 0.0

    # on the loop thread

    def hand_over(self, give: Callable[[T], None], job: T, *, at_once: bool = False) -> None:
        """Give a job to a thread. On a saturated loop, and with ``at_once``, let the thread take off before going on."""
        if self.saturated or at_once:
            self._takeoff.acquire(blocking=False)
            give(job)
            self._takeoff.acquire(timeout=_TAKEOFF_WAIT)
        else:
            give(job)
        self.departed()

    def departed(self) -> None:
        """A thread has something to do; `arrived` must follow."""
        self._jobs += 1
        if self._timer is None:
            self._pause = _PROBE_AFTER
            self._probed = False
            self._arm()

    def arrived(self) -> None:
        """What was under way has come back to the loop."""
        self._jobs -= 1
        if self._timer is not None and not self._jobs:
            self._timer.cancel()
            self._timer = None
            if not self._probed:
                self.saturated = False

    async def run(self, call: Callable[..., T], *arguments: Any, undo: Callable[[T], object] | None = None) -> T:
        """Run a blocking call on a thread of the loop's own pool.

        The call ends also when its caller is cancelled; ``undo`` is then given what came of it.
        """
        future = self._loop.run_in_executor(None, call, *arguments)
        self.departed()
        try:
            return await shield(future)
        except CancelledError:
            future.add_done_callback(partial(_undo, undo))
            raise
        finally:
            self.arrived()

    def _arm(self) -> None:
        self._since = monotonic()
        self._computed = thread_time()
        self._timer = self._loop.call_later(self._pause, self._probe)

    def _probe(self) -> None:
        computed = thread_time() - self._computed
        if computed >= _BUSY * (monotonic() - self._since):
            self.saturated = self._probed = True
            self._landing.acquire(blocking=False)
            self._landing.acquire(timeout=_LANDING_WAIT)
        self._pause = min(2 * self._pause, _PROBE_AFTER_MAX)
        self._arm()

    # on a thread

    def airborne(self) -> None:
        """The thread is about to enter a system call: the loop may go on."""
        _release(self._takeoff)

    def landed(self) -> None:
        """The thread has told the loop what came of its job."""
        _release(self._landing)


def _undo(undo: Callable[[T], object] | None, future: Future[T]) -> None:
    if not future.cancelled() and future.exception() is None and undo is not None:
        undo(future.result())


def _release(lock: Lock) -> None:
    """Release a lock that may not be held: nobody waits then."""
    with suppress(RuntimeError):
        lock.release()
