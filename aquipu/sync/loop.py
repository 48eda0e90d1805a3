"""The thread with the event loop in which a log is open, and calls that are carried out there.

A call is made on the thread of its caller, carried out by a task of the loop, and waited for by a
future. An interrupted caller leaves its task alone, which goes on.

**The end.** The thread ends by itself, when the log was closed, no call is under way, and every
scan and follower is at its end: a follower gives what was acknowledged before its store was closed.
What comes when the loop is ending, or has come and was never begun, gets StoreClosedError. At the
exit of the interpreter logs are closed, and nothing else is waited for.

**A fork.** The child has no such thread: `Thread.is_alive` says so there, in each call. It touches
nothing of the loop, whose descriptors are the parent's.

What is not yet elegant: anyio's blocking portal does most of this. But its thread belongs to a
generator that, collected in a forked child, waits there for the parent's loop; and a call costs a
cancel scope and a task group, which are never used.
"""

from __future__ import annotations

import atexit
import warnings
from asyncio import (
    CancelledError,
    Event,
    Runner,
    Task,
    _get_running_loop,
    current_task,
    new_event_loop,
)
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from inspect import isawaitable
from threading import Thread
from time import monotonic
from typing import Any, Protocol, TypeVar, cast

from aquipu import AquipuError, ForkedStoreError, StoreClosedError
from aquipu.errors import copy_error

EXIT_SECONDS = 4.0
"""Seconds that the exit of the interpreter waits for logs to be closed."""


class Log(Protocol):
    """What is open in the loop: a `Store` or a `Reader`."""

    @property
    def path(self) -> str:
        """The directory."""

    async def aclose(self) -> None:
        """Close it."""


L = TypeVar("L", bound=Log)
T = TypeVar("T")


class LoopThread:
    """An event loop on a thread of its own, in which one log is open."""

    def __init__(self, path: str) -> None:
        """Prepare the thread; ``path`` is what errors and warnings name."""
        self.path = path
        self.loop = new_event_loop()
        self.at_end: Callable[[], None] | None = None
        """Called on the thread when nothing more is carried out."""
        self.warning: str | None = None
        """What is said when the log was never closed; None: nothing."""
        self._thread: Thread | None = None
        self._opening: Task[None] | None = None
        self._log: Log | None = None
        self._over = Event()
        self.is_ending = False
        """Whether nothing new is begun: a task that begins now is perhaps never carried on."""
        self._is_over = False
        self._failure: AquipuError | None = None  # of closing
        self._is_left = False  # the log was closed, or is being closed
        self._is_last = False  # nobody reads on: the program is at its end
        self._outcomes: set[Future[Any]] = set()  # of calls that are under way
        self._tasks: set[Task[None]] = set()
        self._reading: set[object] = set()  # scans and followers that are not at their end

    def open(self, opening: Callable[[], Awaitable[L]]) -> L:
        """Start the thread and open a log in it. Raises what opening raises."""
        opened: Future[L] = Future()
        self._thread = Thread(
            target=self._run, args=(opening, opened), name="aquipu.sync", daemon=True
        )
        _running.add(self)
        self._thread.start()
        try:
            return opened.result()
        except BaseException:
            with suppress(
                RuntimeError
            ):  # perhaps an interrupt: the log may be opened in spite of it
                self.loop.call_soon_threadsafe(self._begin_closing)
            raise

    # on the threads of the callers

    def check(self) -> None:
        """Raise unless calls are carried out, and this thread may wait for one."""
        check_no_loop()
        if self._thread is None or not self._thread.is_alive():
            raise self.refusal

    @property
    def refusal(self) -> StoreClosedError | ForkedStoreError:
        """Why nothing is carried out any more."""
        return StoreClosedError(self.path) if self._is_over else ForkedStoreError(self.path)

    def begin(self, function: Callable[[], Any]) -> Future[Any]:
        """Have a function called in the loop, and awaited if it gives something to be awaited."""
        self.check()
        outcome: Future[Any] = Future()
        self._outcomes.add(outcome)  # before the loop is woken: see `_end`
        self.wake(self._carry_out, function, outcome)
        return outcome

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Carry out a call, and return what comes of it or raise it."""
        return cast("T", self.begin(function).result())

    def do(self, function: Callable[[], T]) -> T:
        """Carry out a call that does not wait."""
        return cast("T", self.begin(function).result())

    def wake(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called in the loop soon. Raises StoreClosedError when that is over."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed, and the thread about to end
            raise StoreClosedError(self.path) from None

    def close(self) -> None:
        """Close the log, and wait for the end of the thread unless somebody still reads.

        Called again, it only raises once more what closing has raised.
        """
        try:
            if self.call(self._close) and self._thread is not None:
                self._thread.join()
        except StoreClosedError:  # it was closed before
            if self._failure is not None:
                raise copy_error(self._failure) from None

    def drop(self, end: Callable[[], Awaitable[object]]) -> None:
        """End what the program has dropped, without waiting. From any thread."""
        if self._thread is not None and self._thread.is_alive():
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(self._begin, end)

    def abandon(self) -> None:
        """Close the log, which the program has dropped, without waiting. From any thread."""
        if self._thread is not None and self._thread.is_alive() and not self._is_left:
            self.drop(self._close)
            self.warn()

    def warn(self) -> None:
        """Say that the log was never closed."""
        if self.warning is not None:
            warnings.warn(self.warning, ResourceWarning, stacklevel=3, source=self)

    def leave(self) -> bool:
        """Begin to close the log and to end the thread; False when there is nothing to end."""
        if self._thread is None or not self._thread.is_alive():
            return False
        was_closed = self._is_left
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._begin_end)
        return not was_closed

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, at most so long."""
        if self._thread is not None:
            self._thread.join(max(seconds, 0.0))

    # on the thread of the loop

    def _run(self, opening: Callable[[], Awaitable[L]], opened: Future[L]) -> None:
        try:
            with suppress(CancelledError), Runner(loop_factory=lambda: self.loop) as runner:
                runner.run(self._live(opening, opened))
        except RuntimeError:  # at the exit no thread can be started, also to end others
            if not _ending:
                raise
        finally:
            self._end()

    async def _live(self, opening: Callable[[], Awaitable[L]], opened: Future[L]) -> None:
        self._opening = current_task()
        try:
            log = await opening()
        except BaseException as error:
            opened.set_exception(error)
            return
        self._log = log
        opened.set_result(log)
        try:
            await self._over.wait()
        except CancelledError:  # nobody has waited for the opening to its end
            await log.aclose()
            raise
        finally:
            self.is_ending = True

    def _carry_out(self, function: Callable[[], Any], outcome: Future[Any]) -> None:
        if not self.is_ending:  # else `_end` refuses it
            self.start(self._carried_out(function, outcome))

    def start(self, coroutine: Any) -> None:
        """Run a coroutine that handles its errors."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def _carried_out(self, function: Callable[[], Any], outcome: Future[Any]) -> None:
        try:
            result = function()
            outcome.set_result(await result if isawaitable(result) else result)
        except CancelledError:  # the loop is at its end
            outcome.set_exception(StoreClosedError(self.path))
        except BaseException as error:
            outcome.set_exception(error)
        finally:
            self._outcomes.discard(outcome)

    def _done(self, task: Task[None]) -> None:
        self._tasks.discard(task)
        self._look()

    def reads(self, records: object) -> None:
        """Stay for a scan or a follower until `has_read`."""
        self._reading.add(records)

    def has_read(self, records: object) -> None:
        """Note that a scan or a follower is at its end."""
        self._reading.discard(records)
        self._look()

    def _look(self) -> None:
        """End the loop if there is nothing left to do."""
        if self._is_left and not self._tasks and (self._is_last or not self._reading):
            self._over.set()

    async def _close(self) -> bool:
        """Close the log; return whether nothing else keeps the thread."""
        self._is_left = True
        assert self._log is not None
        try:
            await self._log.aclose()
        except AquipuError as error:
            self._failure = error
            raise
        return len(self._tasks) == 1 and not self._reading

    def _begin_closing(self) -> None:
        """Close the log in the background, also one that is just being opened."""
        if self._log is None and self._opening is not None:
            self._opening.cancel()
        else:
            self._begin(self._close)

    def _begin_end(self) -> None:
        """Close the log in the background, and stay for nobody who has not read to the end."""
        self._is_last = True
        self._begin_closing()

    def _begin(self, end: Callable[[], Awaitable[object]]) -> None:
        if not self.is_ending:
            self.start(self._ended(end))

    async def _ended(self, end: Callable[[], Awaitable[object]]) -> None:
        with suppress(Exception):  # nobody waits for it
            await end()

    def _end(self) -> None:
        """Refuse what was never begun. The loop is closed, so nothing more comes behind it."""
        self._is_over = True
        _running.discard(self)
        for outcome in list(self._outcomes):
            if not outcome.done():
                outcome.set_exception(StoreClosedError(self.path))
        if self.at_end is not None:
            self.at_end()


def check_no_loop() -> None:
    """Raise RuntimeError in a thread whose event loop would be blocked."""
    if _get_running_loop() is not None:
        raise RuntimeError(
            "aquipu.sync would block the event loop of this thread; this call did nothing; "
            "in an `async def` write `async with Store.open(path) as store` and "
            "`await store.append(data)`, or call on another thread: "
            "`await asyncio.to_thread(store.append, data)`"
        )


_running: set[LoopThread] = set()
_ending: list[bool] = []


@atexit.register  # before aquipu lets go of the stores that are still open: it was imported first
def _close_all() -> None:
    _ending.append(True)
    deadline = monotonic() + EXIT_SECONDS
    left = [thread for thread in list(_running) if thread.leave()]
    for thread in left:
        thread.join(deadline - monotonic())
    for thread in left:  # when nothing can go wrong any more: the warning may be made an error
        thread.warn()
