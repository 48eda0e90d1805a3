"""The dedicated thread, and the one way back to the loop.

The thread owns the journal: one commit after another is encoded, written and synced there, and one wake brings each whole
commit back. What else is done with the journal, a purge for example, takes its turn between two commits; the files of what
was purged go one by one, when nothing else is to be done. Records that no sync has reached in the time that the policy
gives them are synced without being asked: the loop asks in time, unless it is blocked.

The thread is a daemon, so that a program that is told to stop twice does stop; what a store that was never closed still
holds is written at the exit of the interpreter, for at most `EXIT_SECONDS`.
"""

from __future__ import annotations

import atexit
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from logging import getLogger
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Thread
from time import monotonic, monotonic_ns
from typing import Any, NamedTuple, TypeVar

from aquipu.commit import Commit, Landing
from aquipu.disk import at_fork
from aquipu.errors import AquipuError
from aquipu.handoff import Handoff
from aquipu.journal import Journal
from aquipu.lock import Lock

_log = getLogger(__name__)

EXIT_SECONDS = 4.0
"""How long the exit of the interpreter waits for what was accepted."""

T = TypeVar("T")
Told = Callable[[Landing | AquipuError], None]


class _Job(NamedTuple):
    work: Commit[Any] | Callable[[Journal], object] | None
    """A commit to write, something else to do with the journal, or None: close it and end."""
    told: Callable[[Any], None] | None
    """Called in the loop with the outcome; None when nobody is left to hear of it."""


class Worker:
    """Runs a journal on a thread of its own. `send` and `finish` return at once; jobs are done in their order."""

    def __init__(
        self, journal: Journal, lock: Lock, loop: AbstractEventLoop, handoff: Handoff, patience: float | None = None
    ) -> None:
        """``patience``: seconds that a record may be unsynced until the thread sees to it by itself."""
        self.path = journal.path
        self._journal = journal
        self._lock = lock
        self._loop = loop
        self._handoff = handoff
        self._inbox: SimpleQueue[_Job] = SimpleQueue()
        self._nudged = False
        self._patience = patience
        self._unsynced_since: float | None = None
        self._thread = Thread(target=self._run, name="aquipu", daemon=True)
        self._thread.start()
        _living.add(self)

    def send(self, commit: Commit[Any], told: Told, *, at_once: bool = False) -> None:
        """Have a commit written; ``told`` is called in the loop with a Landing, or an error of the tree."""
        self._handoff.hand_over(self._inbox.put, _Job(commit, told), at_once=at_once)

    def ask(self, work: Callable[[Journal], T], told: Callable[[T | AquipuError], None]) -> None:
        """Have something else done with the journal; ``told`` is called in the loop with what it gave, or the error."""
        self._handoff.hand_over(self._inbox.put, _Job(work, told))

    def finish(self, told: Told) -> None:
        """After all that was sent: close the journal, let go of the lock, end the thread."""
        self._handoff.hand_over(self._inbox.put, _Job(None, told))

    def nudge(self) -> None:
        """From any thread, and without waiting: have done what is due between two commits, if nothing is being done."""
        if not self._nudged:
            self._nudged = True
            self._inbox.put(_Job(self._wake, None))

    def leave(self, commits: list[Commit[Any]]) -> None:
        """From any thread, when the loop is gone: write these, and finish. Nobody is told."""
        for commit in commits:
            self._inbox.put(_Job(commit, None))
        self._inbox.put(_Job(None, None))

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; False when it has not ended in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        latency = self._journal.latency
        self._between(self._journal.retain)
        self._between(self._journal.measure)
        while True:
            while self._inbox.empty() and self._between(self._journal.sweep):
                pass
            job = self._next()
            latency.since = monotonic_ns()
            if job.work is None:
                break
            self._tell(job.told, self._write(job.work) if isinstance(job.work, Commit) else self._do(job.work))
            del job  # an idle thread keeps no records
            self._between(self._journal.tidy)
            latency.since = 0
        outcome = self._close()
        latency.since = 0
        _living.discard(self)
        self._tell(job.told, outcome)

    def _next(self) -> _Job:
        """Wait for a job; what is unsynced does not wait for ever."""
        if self._patience is None or not self._journal.is_unsynced:
            self._unsynced_since = None
            return self._inbox.get()
        if self._unsynced_since is None:
            self._unsynced_since = monotonic()
        left = self._unsynced_since + self._patience - monotonic()
        try:
            return self._inbox.get(timeout=min(max(left, 0), TIMEOUT_MAX))
        except Empty:
            sync: Commit[Any] = Commit()
            sync.sync = True
            return _Job(sync, None)

    def _write(self, commit: Commit[Any]) -> Landing | AquipuError:
        try:
            prepared = self._journal.prepare(commit)
            self._handoff.airborne()
            return self._journal.write(prepared)
        except AquipuError as error:
            return error
        except Exception as error:  # a defect, or no memory: it must not leave anybody waiting
            return self._journal.fail("an unexpected error", error)

    def _do(self, work: Callable[[Journal], object]) -> object:
        self._handoff.airborne()
        try:
            return work(self._journal)
        except AquipuError as error:
            return error
        except Exception as error:
            return self._journal.fail("an unexpected error", error)

    def _wake(self, _journal: Journal) -> None:
        self._nudged = False

    def _between(self, work: Callable[[], T]) -> T | None:
        """Between two commits. A failure is kept by the journal, for the next commit."""
        try:
            return work()
        except AquipuError:
            pass
        except Exception as error:
            self._journal.fail("an unexpected error between two commits", error)
        return None

    def _close(self) -> Landing | AquipuError:
        try:
            return self._journal.close()
        except AquipuError as error:
            return error
        except Exception as error:
            return self._journal.fail("an unexpected error while closing", error)
        finally:
            with suppress(OSError):
                self._lock.release()

    def _tell(self, told: Callable[[Any], None] | None, outcome: object) -> None:
        if told is not None:
            with suppress(RuntimeError):  # the loop was closed under the store
                self._loop.call_soon_threadsafe(told, outcome)
        self._handoff.landed()


_living: set[Worker] = set()
_leaving: list[Callable[[], None]] = []


def before_exit(leave: Callable[[], None]) -> None:
    """Have ``leave`` called at the exit of the interpreter, before its workers are waited for."""
    _leaving.append(leave)


@atexit.register
def _drain() -> None:
    try:
        for leave in _leaving:
            leave()
    finally:
        _wait_for_workers()


def _wait_for_workers() -> None:
    deadline = monotonic() + EXIT_SECONDS
    for worker in list(_living):
        if not worker.join(max(deadline - monotonic(), 0)):
            _log.error(
                "%s was not closed, and its disk did not take what it held within %s s of the exit: "
                "records that were accepted and not yet acknowledged may be missing; use aclose() or `async with`",
                worker.path,
                EXIT_SECONDS,
            )


at_fork(_living.clear)
