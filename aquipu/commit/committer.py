"""The loop's side of a log: commits form here, are submitted to the engine, and complete.

At the end of the loop's tick, if no commit is under way, the forming one is submitted, so all
appends of one tick share a commit; what gathers meanwhile is submitted as the next one. When a
commit is complete, its callers go on at once, and what they append then is submitted right behind
them. The loop thread owns all of this: there is no lock and, on this way, no timer.

Where a commit goes is the `Engine`'s business. What came of it, a `CommitResult` or an error,
stands in the commit itself before the engine calls back.

**Interrupts, and loops within loops.** A Ctrl-C may come between any two lines, and a caller that
goes on may run the loop itself (nest_asyncio) until a later commit is complete. So there is one
function, `_go_on`, that does whatever is due, by looking at what is there: it may be called at any
time, from within itself, and again after it was cut short. While callers go on, a timer is about to
call it. Closing calls it now and then until it has come to the end, and so also gets over a wake-up
that was lost.
"""

from __future__ import annotations

from abc import abstractmethod
from asyncio import AbstractEventLoop, Future, Task
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from threading import get_ident
from time import monotonic_ns, time_ns
from typing import TypeAlias, TypeVar

from aquipu.commit.group import GroupCommit
from aquipu.commit.resume import resumable, resume
from aquipu.commit.room import Room
from aquipu.engine import Commit, CommitResult, Engine, Limits
from aquipu.errors import (
    AquipuError,
    BatchTooLargeError,
    ConflictError,
    StoreFailedError,
    copy_error,
)
from aquipu.policy import Stage
from aquipu.record import Receipt
from aquipu.runtime.closing import Closing
from aquipu.runtime.counting import Counters, snapshot
from aquipu.runtime.lifecycle import Lifecycle
from aquipu.runtime.owner import Owned
from aquipu.statistics import Statistics

E = TypeVar("E", bound=Exception)

LARGE = 256
"""Records in a commit; below, two half commits take longer than a whole one."""

Waiter: TypeAlias = "Future[Receipt] | Future[list[Receipt]] | Future[None]"


class Committer(Owned, Closing):
    """Forms commits, submits them to an engine, and resolves the futures of their callers."""

    def __init__(self, engine: Engine, loop: AbstractEventLoop) -> None:
        super().__init__(engine.path, loop)
        limits, progress = engine.limits, engine.progress()
        self._engine = engine
        self._thread = get_ident()
        self._group: GroupCommit[Waiter] = GroupCommit(
            engine.policy,
            next_sequence=progress.next_sequence,
            synced_sequence=progress.next_sequence,  # opening syncs what it finds
            buffer_records=limits.buffer_records,
            buffer_bytes=limits.buffer_bytes,
            elapsed=monotonic_ns,
        )
        self._stage = limits.stage  # what an append waits for that asks for nothing else
        self._max_record_bytes = limits.record_bytes
        self._life = Lifecycle(engine.path)
        self._counters = Counters()
        self._scheduled = False  # _tick will run at the end of this tick
        self._is_back = False  # the commit under way may be complete
        self._cut_short = False  # an interrupt may have come between two steps
        self._completing: deque[Commit[Waiter]] = deque()  # complete; their callers are going on
        self._acknowledged: deque[Commit[Waiter]] = deque()  # their callers have; not yet published
        # some callers go on through the queue of the loop: what is published, goes behind them
        self._publishes_later = False
        self._closed: Future[None] | None = None  # from the beginning of aclose on
        self._ending = False  # everything accepted is written
        # what the engine itself decides on: closing waits for it
        self._handed_over: set[Task[list[Receipt]]] = set()
        self._room = Room(loop, self._group)

    # the way of a commit

    def _schedule(self) -> None:
        """Submit the forming commit at the end of this tick, or when none is under way any more."""
        if not self._scheduled:
            under_way = self._group.under_way
            self._is_back = under_way is not None and under_way.outcome is not None
            if under_way is None or self._is_back:
                self._scheduled = True
                self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._scheduled = False
        self._go_on()

    def _completed(self, _: object = None) -> None:
        """Go on: the outcome of the commit under way is there."""
        self._is_back = self._scheduled = True  # what the callers append now is submitted below
        self._go_on()

    def _go_on_meanwhile(self) -> None:
        """Resolve the callers that are left: one that goes on may run the loop, and wait for them.

        To be called now and then.
        """
        if self._completing:
            self._tick()

    def _go_on_soon(self) -> None:
        """Go on in the next tick."""
        self._is_back = True
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._tick)

    def _sync_soon(self) -> None:
        """Have everything synced that is not: the policy bounds its age."""
        if self._life.is_open and self._group.barrier(Stage.SYNCED, None):
            self._schedule()

    def _go_on(self) -> None:
        """Do whatever is due. Only from a callback of the loop: callers go on within."""
        try:
            if self._cut_short:
                self._mend()
            commit = self._group.under_way
            if self._is_back and commit is not None and commit.outcome is not None:
                self._complete(commit)
            if self._completing:
                self._acknowledge()
                self._engine.settle()
            if self._group.waiting:
                self._group.admit(time_ns(), is_done)
            self._scheduled = False
            self._submit()
            self._publish()
        except BaseException:
            self._interrupted()
            raise

    def _interrupted(self) -> None:
        """Make whole what was cut short, perhaps between two steps, and have it go on."""
        if get_ident() == self._thread:
            self._cut_short = True
            self._group.mend()
            with suppress(RuntimeError):  # the loop was closed
                self._loop.call_soon(self._tick)
        self._engine.interrupted()

    def _mend(self) -> None:
        """Make whole what an interrupt may have left in pieces."""
        self._group.mend()
        self._ending = False
        commit = self._group.under_way
        if commit is not None and commit.outcome is None and self._is_left(commit):
            self._engine.submit_again(commit, self._completed)
        self._is_back = True
        self._cut_short = False

    def _complete(self, commit: Commit[Waiter]) -> None:
        """Complete the commit under way by its outcome."""
        self._is_back = False
        self._engine.receive(commit)
        outcome = commit.outcome
        if isinstance(outcome, CommitResult):
            if not (self._completing and self._completing[-1] is commit):
                self._counters.syncs = outcome.syncs
                if commit.payloads:
                    # as if the system clock had not been set meanwhile
                    now = commit.accepted[0] + monotonic_ns() - commit.since
                    self._counters.acknowledged(
                        commit.accepted, commit.size - commit.label_bytes, now
                    )
                self._completing.append(commit)
            self._group.complete(outcome)
        elif isinstance(outcome, StoreFailedError) and self._engine.fails_for_good:
            self._fail(outcome)
            self._engine.settle()
        elif outcome is not None:
            self._fail_all(self._group.refused(), outcome)
            self._group.refuse()
            self._engine.settle()

    def _acknowledge(self) -> None:
        """Let the callers of complete commits go on."""
        while self._completing:
            commit = self._completing[0]
            self._resume(commit)
            # unless one of the callers has run the loop meanwhile
            if self._completing and self._completing[0] is commit:
                self._acknowledged.append(commit)
                self._completing.popleft()

    def _publish(self) -> None:
        """Publish each commit after its callers: the engine is at the next one meanwhile."""
        while self._acknowledged:
            commit = self._acknowledged[0]
            if commit.payloads and self._publishes_later:
                self._loop.call_soon(self._engine.publish, commit)
            elif commit.payloads:
                self._engine.publish(commit)
            self._acknowledged.popleft()

    def _resume(self, commit: Commit[Waiter]) -> None:
        """Resolve what waits for a complete commit and was not resolved before.

        The callers of a large commit that was synced go on in two halves: what the first append is
        submitted before the others go on. Callers that compute about as long as the disk syncs then
        take turns, unless they do already.
        """
        for barrier in commit.barriers:
            _resolve(barrier, None)
        if commit.whole:
            commit.write_receipts()
        for index, count in commit.batches.items():
            of_batch = commit.written[index : index + count] or [next(commit.receipts(index))]
            _resolve(commit.waiters[index], of_batch)
            self._publishes_later = True
        if sum(commit.batches.values()) == len(commit):
            return
        waiters = commit.waiters
        pairs = resumable(waiters, iter(commit.written) if commit.whole else commit.receipts())
        if commit.sync and len(commit) >= LARGE:
            if not self._group.is_forming:
                self._counters.cancelled += resume(waiters, islice(pairs, len(commit) // 2))
            self._submit(at_once=True)
        self._counters.cancelled += resume(waiters, pairs)

    def _submit(self, *, at_once: bool = False) -> None:
        """Submit the next commit, or end a log that is being closed when there is none.

        ``at_once``: before this thread computes on, wait until the disk has it.
        """
        commit = self._group.submit()
        while commit is not None and commit.expected and not self._is_left(commit):
            commit = self._group.submit()
        if commit is not None:
            self._engine.submit(commit, self._completed, urgent=at_once)
        elif (
            self._closed is not None
            and self._group.under_way is None
            and not self._completing
            and not self._ending
            and all(task.done() for task in self._handed_over)
        ):
            self._end()

    def _is_left(self, commit: Commit[Waiter]) -> bool:
        """Return whether anything is left of the commit under way, to be handed to the engine.

        What expects a sequence that it would not get, since something before it was refused, leaves
        it, and its callers get a ConflictError.
        """
        if not commit.expected:  # nothing of it leaves
            return True
        conflicts = self._group.conflicts()
        leaving = sum(commit.batches[first] for first in conflicts)
        for first in conflicts:
            error = ConflictError(
                self._path, commit.expected[first], self._group.upcoming - leaving
            )
            self._fail_all(filter(None, [commit.waiters[first]]), error)
        return self._group.settle(conflicts)

    def _fail(self, failure: StoreFailedError) -> None:
        """Fail everything that waits, and accept nothing more: the log has failed."""
        self._life.fail(failure)
        self._fail_all(self._group.everyone(), failure)
        self._group.abandon()
        self._engine.fail(failure)

    def _fail_all(self, waiters: Iterable[Waiter], error: Exception) -> None:
        """Give each of them an exception object of its own."""
        waiting = [waiter for waiter in waiters if not waiter.done()]
        self._counters.refused(error, len(waiting))
        for waiter in waiting:
            waiter.set_exception(copy_error(error))

    # what may be asked of it

    def _check(self) -> None:
        """Raise unless the store takes records from here and now."""
        self._check_owner()
        if self._life.refusal is not None:
            raise self._refused(copy_error(self._life.refusal))

    def _refused(self, error: E) -> E:
        """Count what a caller gets instead of a receipt."""
        self._counters.refused(error)
        return error

    def _check_owner(self) -> None:
        if self._life.is_forked and self._life.refusal is not None:
            raise copy_error(self._life.refusal)
        super()._check_owner()

    def _counted(self) -> Statistics:
        """Return what is counted; from any thread."""
        engine = self._engine
        progress, measured = engine.progress(), engine.measure()
        state, now = self._life.state_seen, monotonic_ns()
        return snapshot(self._counters, self._group, engine.latency, measured, progress, state, now)

    # what an engine says of itself, by its `Host`

    def _fit(self, limits: Limits) -> None:
        """Keep within these limits from now on.

        A batch that waits for room and will never have it is refused.
        """
        self._stage, self._max_record_bytes = limits.stage, limits.record_bytes
        for pending in self._group.resize(limits.buffer_records, limits.buffer_bytes):
            self._fail_all(
                [pending.waiter],
                BatchTooLargeError(self._path, len(pending.payloads), pending.size),
            )

    def _part(self, refused: dict[int, Exception]) -> None:
        """Take records out of the commit under way that cannot be stored; the others stay in it."""
        for waiter, error in self._group.part(refused):
            self._fail_all([waiter], error)

    def _give_up(self, of_commit: AquipuError | None, error: AquipuError) -> None:
        """Fail everything that waits, and stay open: the engine cannot be reached for now.

        ``of_commit``: what those of the commit under way get instead, if it is another error.
        """
        commit = self._group.under_way
        if commit is not None and commit.outcome is not None:
            self._complete(commit)
        elif commit is not None and of_commit is not None:
            self._fail_all(commit.everyone(), of_commit)
        self._fail_all(self._group.everyone(), error)
        self._group.abandon()
        if not self._scheduled:
            self._submit()

    # the end

    @abstractmethod
    def _end(self) -> None:
        """Let go of the log: everything accepted is complete, and nothing more is accepted."""


def _resolve(waiter: Waiter | None, result: object) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(result)  # type: ignore[arg-type]


def is_done(waiter: Waiter) -> bool:
    """Return whether it is resolved, or its caller was cancelled."""
    return waiter.done()
