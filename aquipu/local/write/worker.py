"""The dedicated thread, and the one way back to the loop.

The thread owns the journal: one commit after another is encoded, written and synced there, and one
wake brings each whole commit back. What else is done with the journal, a purge for example, takes
its turn between two commits; the files of what was purged go one by one, when nothing else is to be
done. Records that no sync has reached in the time that the policy gives them are synced without
being asked: the loop asks in time, unless it is blocked.

The thread is a daemon, so that a program that is asked to stop twice does stop; what a store that
was never closed still holds is written at the exit of the interpreter, for at most `EXIT_SECONDS`.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from logging import getLogger
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Thread
from time import monotonic, monotonic_ns
from typing import Any, NamedTuple, TypeVar

from aquipu.engine import Commit, CommitResult
from aquipu.errors import AquipuError
from aquipu.local.disk.lock import Lock
from aquipu.local.disk.system import at_fork
from aquipu.local.write.journal import Journal
from aquipu.runtime.exit import EXIT_SECONDS, at_exit
from aquipu.runtime.handoff import Handoff

_log = getLogger(__name__)

T = TypeVar("T")
Done = Callable[[CommitResult | AquipuError], None]


class _Job(NamedTuple):
    work: Commit[Any] | Callable[[Journal], object] | None
    """A commit to write, something else to do with the journal, or None: close it and end."""
    done: Callable[[Any], None] | None
    """Called in the loop with the outcome; None when no caller is left."""


class Worker:
    """Runs a journal on a thread of its own.

    `send` and `finish` return at once; jobs are done in their order.
    """

    def __init__(
        self,
        journal: Journal,
        lock: Lock,
        loop: AbstractEventLoop,
        handoff: Handoff,
        patience: float | None = None,
    ) -> None:
        """Start the thread.

        ``patience``: seconds that a record may be unsynced until the thread syncs it by itself.
        """
        self.path = journal.path
        self._journal = journal
        self._lock = lock
        self._loop = loop
        self._handoff = handoff
        self._inbox: SimpleQueue[_Job] = SimpleQueue()
        self._is_woken = False
        self._patience = patience
        self._unsynced_since: float | None = None
        self.outcome: CommitResult | AquipuError | None = None
        """The result of closing the journal, when the thread has ended."""
        self.aged: Callable[[CommitResult | AquipuError], None] | None = None
        """Called in the loop when something was done that was due by itself."""
        self._thread = Thread(target=self._run, name="aquipu", daemon=True)
        self._thread.start()
        lock.is_in_use = True
        _living.add(self)

    def send(self, commit: Commit[Any], done: Done, *, at_once: bool = False) -> None:
        """Have a commit written; ``done`` is called in the loop with its CommitResult or its error.

        The outcome is in the commit itself before that; one that is sent again is written once.
        """
        self._handoff.hand_over(self._inbox.put, _Job(commit, done), at_once=at_once)

    def repeat(self, commit: Commit[Any], done: Done) -> None:
        """Send a commit of which an interrupt has left unknown whether it was sent."""
        self._inbox.put(_Job(commit, done))

    def ask(self, work: Callable[[Journal], T], done: Callable[[T | AquipuError], None]) -> None:
        """Have something else done with the journal, between two commits.

        ``done`` is called in the loop with what it returned, or the error.
        """
        self._handoff.hand_over(self._inbox.put, _Job(work, done))

    def note(self, work: Callable[[Journal], object]) -> None:
        """Have something done with the journal, of which nobody waits to hear; from any thread."""
        self._inbox.put(_Job(work, None))

    def finish(self, done: Done) -> None:
        """Close the journal after all that was sent, release the lock, and end the thread.

        A second call changes nothing.
        """
        self._handoff.hand_over(self._inbox.put, _Job(None, done))

    def expect_end(self) -> None:
        """Note that the store is about to be closed: another opening may wait for that."""
        self._lock.is_in_use = False

    def wake(self) -> None:
        """Have done what is due between two commits, if the thread is idle; from any thread."""
        if not self._is_woken:
            self._is_woken = True
            self._inbox.put(_Job(self._wake, None))

    def leave(self, commits: list[Commit[Any]]) -> None:
        """Write these commits and finish, when the loop is gone; from any thread.

        Nothing is called back.
        """
        self.expect_end()
        for commit in commits:
            self._inbox.put(_Job(commit, None))
        self._inbox.put(_Job(None, None))

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; False when it has not ended in time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        latency = self._journal.latency
        self._maintain(self._journal.retain)
        self._maintain(self._journal.measure)
        while True:
            while self._inbox.empty() and self._maintain(self._journal.delete_dropped):
                pass
            job = self._next()
            latency.since = monotonic_ns()
            if job.work is None:
                break
            if not isinstance(job.work, Commit):
                self._call_back(job.done, self._do(job.work))
            elif not job.work.taken:
                job.work.taken = True
                job.work.outcome = self._write(job.work)
                self._call_back(job.done, job.work.outcome)
            del job  # an idle thread keeps no records
            self._maintain_journal()
            latency.since = 0
        self.outcome = self._close()
        latency.since = 0
        _living.discard(self)
        self._call_back(job.done, self.outcome)

    def _next(self) -> _Job:
        """Wait for a job; what is unsynced does not wait for ever, and what ages does not stay."""
        until_sync, until_aged = self._until_sync(), self._journal.aging.seconds_left
        if until_sync is None and until_aged is None:
            return self._inbox.get()
        left = min(seconds for seconds in (until_sync, until_aged) if seconds is not None)
        try:
            return self._inbox.get(timeout=min(max(left, 0), TIMEOUT_MAX))
        except Empty:
            if until_sync is None or left < until_sync:
                return _Job(Journal.grow_older, self.aged)
            sync: Commit[Any] = Commit()
            sync.sync = True
            return _Job(sync, None)

    def _until_sync(self) -> float | None:
        """Return the seconds until what is unsynced is synced without being asked for."""
        if self._patience is None or not self._journal.is_unsynced:
            self._unsynced_since = None
            return None
        if self._unsynced_since is None:
            self._unsynced_since = monotonic()
        return self._unsynced_since + self._patience - monotonic()

    def _write(self, commit: Commit[Any]) -> CommitResult | AquipuError:
        try:
            prepared = self._journal.prepare(commit)
            self._handoff.entering_syscall()
            return self._journal.write(prepared)
        except AquipuError as error:
            del commit  # which keeps the error, which would keep it by this frame
            return error
        except Exception as error:  # a defect, or no memory: it must leave no caller waiting
            return self._journal.fail("an unexpected error", error)

    def _do(self, work: Callable[[Journal], object]) -> object:
        self._handoff.entering_syscall()
        try:
            return work(self._journal)
        except AquipuError as error:
            return error
        except Exception as error:
            return self._journal.fail("an unexpected error", error)

    def _wake(self, _journal: Journal) -> None:
        self._is_woken = False

    def _maintain_journal(self) -> None:
        """Do what is due between two commits, and tell the loop of a roll: it has synced them."""
        synced_sequence = self._journal.synced_sequence
        self._maintain(self._journal.maintain)
        if self._journal.synced_sequence != synced_sequence:
            self._call_back(self.aged, self._journal.result())

    def _maintain(self, work: Callable[[], T]) -> T | None:
        """Do something between two commits. The journal keeps a failure for the next commit."""
        try:
            return work()
        except AquipuError:
            pass
        except Exception as error:
            self._journal.fail("an unexpected error between two commits", error)
        return None

    def _close(self) -> CommitResult | AquipuError:
        try:
            return self._journal.close()
        except AquipuError as error:
            return error
        except Exception as error:
            return self._journal.fail("an unexpected error while closing", error)
        finally:
            with suppress(OSError):
                self._lock.release()

    def _call_back(self, done: Callable[[Any], None] | None, outcome: object) -> None:
        if done is not None:
            try:  # noqa: SIM105 - once a commit, and `suppress` costs as much as the call
                self._loop.call_soon_threadsafe(done, outcome)
            except RuntimeError:  # the loop was closed under the store
                pass
        self._handoff.done()


_living: set[Worker] = set()


def _wait(deadline: float) -> None:
    for worker in list(_living):
        if not worker.join(max(deadline - monotonic(), 0)):
            _log.error(
                "%s was not closed, and its disk did not take what it held within %s s of the "
                "exit: records that were accepted and not yet acknowledged may be missing; "
                "use aclose() or `async with`",
                worker.path,
                EXIT_SECONDS,
            )


at_exit(_wait)
at_fork(_living.clear)
