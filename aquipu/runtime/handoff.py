"""How the loop thread gives way to the threads that work for it, when it never rests by itself.

A loop that always has something ready calls ``select`` with a zero timeout. Each call drops the
interpreter lock and takes it back before a waiting thread has woken, and restarts that thread's 5
ms timer: beside one task that computes for 0.2 ms and yields, a thread that needs the lock twice
for each commit gets nothing done for seconds. So the loop thread itself waits a moment, at the two
points where a thread needs to come through:

* **coming back**: while a job is under way, a probe fires after a millisecond. If the loop thread
  has been computing all the while, it waits for the thread's sign, at most 0.2 ms, and then less
  and less often.
* **handing over**: once a probe has found the loop saturated, it also waits after handing a job
  over (at most 1 ms) until the thread has entered its system call, so that the disk works while the
  loop goes on. A job that comes back before any probe fired shows that the loop rests again, and
  ends this.

On a loop that rests, the cost is one timer a job, cancelled before it fires. Without any job under
way there is nothing.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, TimerHandle, shield
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Lock
from time import monotonic, thread_time
from typing import Any, TypeVar

T = TypeVar("T")

_PROBE_AFTER = 0.001  # seconds
_PROBE_AFTER_MAX = 0.008
_DONE_WAIT = 0.0002
_SYSCALL_WAIT = 0.001
_BUSY = 0.5  # of the time since the hand-over, spent computing


class Handoff:
    """Gives way on one loop thread; `entering_syscall` and `done` are for the threads."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.saturated = False
        """Whether the last probe found a loop that never rests."""
        self.meanwhile: Callable[[], None] | None = None
        """Called with each probe: what is due although something is under way or completing."""
        self._loop = loop
        self._jobs = 0
        self._entered = Lock()
        self._done = Lock()
        self._timer: TimerHandle | None = None
        self._pause = _PROBE_AFTER
        self._probed = False
        self._since = 0.0
        self._computed = 0.0

    # on the loop thread

    def hand_over(self, give: Callable[[T], None], job: T, *, at_once: bool = False) -> None:
        """Give a job to a thread.

        On a saturated loop, and with ``at_once``, wait until it has entered its system call.
        """
        if self.saturated or at_once:
            self._entered.acquire(blocking=False)
            give(job)
            self._entered.acquire(timeout=_SYSCALL_WAIT)
        else:
            give(job)
        self.begin()

    def begin(self) -> None:
        """Count a job that a thread has begun; `end` must follow."""
        if not self._jobs:
            self.settled()
        self._jobs += 1
        if self._timer is None:
            self._pause = _PROBE_AFTER
            self._probed = False
            self._arm()

    def end(self) -> None:
        """Count off a job that has come back to the loop."""
        self.result()
        if not self._jobs:
            self.settled()

    def result(self) -> None:
        """Count off a job whose callers are about to go on; `settled` must follow.

        A caller that runs the loop until something else has happened is probed as a thread would
        be: see ``meanwhile``.
        """
        if self._jobs:  # after an interrupt it may not have been counted
            self._jobs -= 1
        if not self._jobs and not self._probed:
            self.saturated = False

    def settled(self) -> None:
        """Stop probing, unless there are jobs: the callers of the last one have gone on."""
        if self._timer is not None and not self._jobs:
            self._timer.cancel()
            self._timer = None

    async def run(
        self, call: Callable[..., T], *arguments: Any, undo: Callable[[T], object] | None = None
    ) -> T:
        """Run a blocking call on a thread of the loop's own pool.

        The call ends also when its caller is cancelled; ``undo`` is then given what came of it.
        """
        future: Future[T] | None = None
        try:
            future = self._loop.run_in_executor(None, call, *arguments)
            self.begin()
            return await shield(future)
        except BaseException:
            # also an error of the call itself, after which there is nothing to undo
            if future is not None:
                future.add_done_callback(partial(_undo, undo))
            raise
        finally:
            self.end()

    def rest(self) -> None:
        """Set the count of jobs to none, whatever an interrupt has left out of it."""
        self._jobs = 0
        self.settled()

    def _arm(self) -> None:
        self._since = monotonic()
        self._computed = thread_time()
        self._timer = self._loop.call_later(self._pause, self._probe)

    def _probe(self) -> None:
        computed = thread_time() - self._computed
        if computed >= _BUSY * (monotonic() - self._since):
            self.saturated = self._probed = True
            self._done.acquire(blocking=False)
            self._done.acquire(timeout=_DONE_WAIT)
        self._pause = min(2 * self._pause, _PROBE_AFTER_MAX)
        self._arm()
        if self.meanwhile is not None:
            self.meanwhile()

    # on a thread

    def entering_syscall(self) -> None:
        """Let the loop go on: the thread is about to enter a system call."""
        _release(self._entered)

    def done(self) -> None:
        """Let the loop go on: the thread has handed back what came of its job."""
        _release(self._done)


def _undo(undo: Callable[[T], object] | None, future: Future[T]) -> None:
    if not future.cancelled() and future.exception() is None and undo is not None:
        undo(future.result())


def _release(lock: Lock) -> None:
    """Release a lock that may not be held: nothing waits then."""
    if lock.locked():
        with suppress(RuntimeError):  # released meanwhile
            lock.release()
