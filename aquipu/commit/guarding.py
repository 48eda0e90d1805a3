"""Batches, and appends that are stored under a condition: with a key, or at one sequence only.

**A key** is decided on before its append is accepted: `keys` says what to do. What is under way
under a key belongs to all callers that give it: they wait for one `Shared` outcome, each with a
future of its own, so one that is cancelled disturbs none of the others. It leaves the line only
when nobody waits for it any more.

**An expected sequence** is compared twice: when the append is accepted, and when its commit is
submitted, because something before it may have been refused meanwhile (`Committer._is_left`).

An engine that `decides` is handed such appends as they are, each in a task of its own; closing
waits for these.
"""

from __future__ import annotations

from abc import abstractmethod
from asyncio import AbstractEventLoop, CancelledError, Future, Task, wait
from collections.abc import Mapping, Sequence
from functools import partial
from time import time_ns
from typing import Any, TypeVar

from aquipu.commit.buffer import Pending
from aquipu.commit.closing import Closable
from aquipu.commit.committer import Waiter, is_done
from aquipu.commit.keys import Do, Keys
from aquipu.engine import Engine
from aquipu.errors import (
    BatchTooLargeError,
    BufferFullError,
    ConflictError,
    RecordTooLargeError,
    StaleKeyError,
    copy_error,
)
from aquipu.policy import Stage
from aquipu.record import PRODUCERS, Guarded, Known, Located, Receipt, labels_size

T = TypeVar("T")


class Shared(Future[list[Receipt]]):
    """The outcome of an append with a key, for all that have given it.

    It is what the commit resolves, and resolves its callers: at once, as if they waited themselves.
    """

    def __init__(self, keys: Keys[Shared], key: tuple[bytes, int], loop: AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._keys = keys
        self._key = key
        self._loop_of_callers = loop
        self.pending: Pending[Waiter] | None = None
        """What waits for room, or did."""
        self.callers: list[Future[list[Receipt]]] = []

    def share(self) -> Future[list[Receipt]]:
        """Return a future of one more caller."""
        caller: Future[list[Receipt]] = self._loop_of_callers.create_future()
        self.callers.append(caller)
        return caller

    @property
    def is_wanted(self) -> bool:
        """Whether any caller still waits."""
        return not all(caller.done() for caller in self.callers)

    def drop(self) -> None:
        """Have the number be as it was before: nothing is written."""
        self._keys.drop(*self._key, self)

    # called by the commit, and called again where an interrupt has cut it short

    def set_result(self, receipts: list[Receipt]) -> None:
        first = receipts[0]
        located = Located(first.sequence, len(receipts), first.timestamp)
        self._keys.complete(*self._key, located)
        for caller in self.callers:
            if not caller.done():
                caller.set_result(receipts)
        super().set_result(receipts)

    def set_exception(self, error: BaseException | type[BaseException]) -> None:
        assert isinstance(error, BaseException)
        self.drop()
        for caller in self.callers:
            if not caller.done():
                caller.set_exception(copy_error(error))
        super().set_exception(error)
        self.exception()  # the callers raise it; not the garbage collector


class _Search:
    """A search for a producer in the log, and how many wait for it or have not gone on yet."""

    def __init__(self, task: Task[int | None]) -> None:
        self.task = task
        self.waiting = 0


class Guarding(Closable):
    """A log that takes batches, and decides on those that are guarded."""

    def __init__(self, engine: Engine, loop: AbstractEventLoop) -> None:
        super().__init__(engine, loop)
        self._keys: Keys[Shared] = Keys()
        self._searches: dict[bytes, _Search] = {}  # by writer

    async def append_guarded(self, batch: Guarded) -> list[Receipt]:
        """Store a batch if its key is new, at the sequence that it expects; what is checked.

        Returns the receipts of the first time for a key that is known. Raises ConflictError,
        StaleKeyError, and what `append_many` raises.
        """
        self._check()
        if self._engine.decides:
            self._check_size(batch.payloads, _size_of(batch), alone=False)
            return await self._hand_over(batch)
        if batch.key is None:
            return await self._append_batch(
                batch.payloads, _by_index(batch), batch.stage, expected=batch.expected
            )
        receipts = await self._decide(batch, *batch.key)
        return await self._reached(receipts, batch.stage)

    @abstractmethod
    async def _find_number(self, writer: bytes, number: int) -> Known:
        """Search the log for a number of a producer."""

    # keys

    async def _decide(self, batch: Guarded, writer: bytes, number: int) -> list[Receipt]:
        """Do what is to be done about a key, as often as something else is under way for it."""
        search = self._searches.get(writer)
        if search is not None:  # behind those that wait for what it finds: numbers stay in order
            await self._wait_in_turn(writer, search)
            self._check()
        while True:
            decision = self._keys.decide(writer, number)
            if decision.do is Do.REPEAT and decision.located is not None:
                return self._receipts(decision.located)
            if decision.do is Do.ACCEPT:
                return await self._begin(batch, writer, number)
            shared = decision.shared
            if shared is not None and shared.done():  # nobody was left that waited for it
                shared.drop()
            elif shared is not None and decision.do is Do.SHARE:
                return await self._wait_for(shared, shared.share())
            elif shared is not None:
                await wait([shared])
            elif await self._search(writer, number):
                last = self._keys.last(writer) & ~PRODUCERS
                raise self._refused(StaleKeyError(self._path, number & ~PRODUCERS, last))
            self._check()

    async def _search(self, writer: bytes, number: int) -> bool:
        """Search the log for a producer, one search at a time for all who want to know of it.

        Return whether this number is stale.
        """
        search = self._searches.get(writer)
        if search is None or search.task.done():
            self._keys.seek(writer)
            task = self._loop.create_task(self._learn(writer, number))
            task.add_done_callback(_hear)
            search = self._searches[writer] = _Search(task)
        await self._wait_in_turn(writer, search)
        error = None if search.task.cancelled() else search.task.exception()
        if isinstance(error, Exception):
            raise copy_error(error)
        return error is None and not search.task.cancelled() and search.task.result() == number

    async def _wait_in_turn(self, writer: bytes, search: _Search) -> None:
        search.waiting += 1
        try:
            await wait([search.task])
        finally:
            search.waiting -= 1
            if not search.waiting and self._searches.get(writer) is search:
                del self._searches[writer]

    async def _learn(self, writer: bytes, number: int) -> int | None:
        """Learn what the log has of a producer; return the number if that is stale."""
        known: Known | None = None
        try:
            known = await self._find_number(writer, number)
        finally:
            is_stale = self._keys.learnt(writer, number, known)
        return number if is_stale else None

    async def _begin(self, batch: Guarded, writer: bytes, number: int) -> list[Receipt]:
        """Accept a batch whose key is new."""
        size = _size_of(batch)
        self._check_size(batch.payloads, size, alone=False)
        self._check_expected(batch.expected)
        shared = Shared(self._keys, (writer, number), self._loop)
        caller = shared.share()
        shared.pending = Pending(
            *(batch.payloads, size, _by_index(batch), batch.stage, shared, True),
            *((writer, number), batch.expected),
        )
        try:
            self._keys.begin(writer, number, shared)
            self._accept_batch(shared.pending)
        except BaseException:
            self._interrupted()
            if not self._group.holds(shared) and shared.pending not in self._group.waiting:
                shared.drop()
            raise
        return await self._wait_for(shared, caller)

    async def _wait_for(self, shared: Shared, caller: Future[list[Receipt]]) -> list[Receipt]:
        """Wait as one of its callers; the last one that is cancelled takes it out of the line."""
        try:
            return await self._wait(caller)
        except CancelledError:
            pending = shared.pending
            is_unwanted = not shared.is_wanted and not self._group.holds(shared)
            if pending is not None and pending in self._group.waiting and is_unwanted:
                shared.cancel()  # from here on it is as if it had never been
                self._leave_line(pending)
                shared.drop()
            raise

    def _receipts(self, located: Located) -> list[Receipt]:
        """Return receipts once more; how safe their records are is known anew."""
        first, count, time = located
        is_synced = first + count <= self._engine.progress().synced_sequence
        stage = Stage.SYNCED if is_synced else Stage.FLUSHED
        return [Receipt(sequence, time, stage) for sequence in range(first, first + count)]

    async def _reached(self, receipts: list[Receipt], stage: Stage) -> list[Receipt]:
        """Return receipts when their records have reached this stage, too."""
        if receipts[0].stage >= stage:
            return receipts
        await self._barrier(stage)
        return [receipt._replace(stage=stage) for receipt in receipts]

    # an engine that decides

    async def _hand_over(self, batch: Guarded) -> list[Receipt]:
        """Have the engine decide, in a task of its own: cancelled, it goes on."""
        room = len(batch.payloads), _size_of(batch)
        await self._room.take(*room)
        try:
            self._check()
            accepted = time_ns()
            task = self._loop.create_task(self._engine.append_guarded(batch))
        except BaseException:
            self._room.give(*room)
            raise
        self._handed_over.add(task)
        task.add_done_callback(partial(self._handed_back, room))
        try:
            await wait([task])
        except CancelledError:
            self._counters.cancelled += 1
            raise
        error = task.exception()
        if error is not None:
            raise self._refused(error) if isinstance(error, Exception) else error
        receipts = task.result()
        if receipts[-1].stage is not Stage.SYNCED:
            self._group.is_beside = True
        self._counters.acknowledged([accepted], sum(map(len, batch.payloads)), time_ns())
        return receipts

    def _handed_back(self, room: tuple[int, int], task: Task[list[Receipt]]) -> None:
        self._handed_over.discard(task)
        self._room.give(*room)
        _hear(task)
        if self._closed is not None:
            self._go_on_soon()

    # batches

    async def append_commit(
        self,
        payloads: list[bytes],
        labels: Mapping[int, tuple[str, ...]],
        stage: Stage,
        key: tuple[bytes, int],
        expected: int | None = None,
    ) -> Receipt:
        """Store the commit of a client; return the receipt of its first record.

        The client has a buffer of its own, so it may be larger than the one here, and goes alone
        then. It has checked the records, and `find_commit` finds them by their key: its writer, and
        the number of the commit there. ``labels`` by the index of their records. ``expected``: the
        sequence that it must get. Raises as `append_many`.
        """
        return (await self._append_batch(payloads, labels, stage, key, expected))[0]

    async def _append_batch(
        self,
        payloads: list[bytes],
        labels: Mapping[int, tuple[str, ...]],
        stage: Stage,
        key: tuple[bytes, int] | None = None,
        expected: int | None = None,
        times: Sequence[int] | None = None,
    ) -> list[Receipt]:
        """Store records as one commit; the labels by the index of their records.

        With a key it is the commit of a client, which has a buffer of its own: see `append_commit`.
        With times, which must be right now, it does not wait for room: BufferFullError.
        """
        size = sum(map(len, payloads)) + sum(map(labels_size, labels.values()))
        self._check_size(payloads, size, alone=key is not None)
        self._check_expected(expected)
        waiter: Future[list[Receipt]] = self._loop.create_future()
        batch: Pending[Waiter] = Pending(
            payloads, size, labels, stage, waiter, True, key, expected, times
        )
        try:
            has_room = self._accept_batch(batch)
        except BaseException:
            self._interrupted()
            raise
        return await (self._wait(waiter) if has_room else self._in_line(batch, waiter))

    def _check_size(self, payloads: list[bytes], size: int, *, alone: bool) -> None:
        """Raise RecordTooLargeError or BatchTooLargeError; what goes ``alone`` may be any batch."""
        largest = max(map(len, payloads))
        if largest > self._max_record_bytes:
            raise self._refused(RecordTooLargeError(self._path, largest, self._max_record_bytes))
        if not alone and not self._group.may_hold(len(payloads), size):
            raise self._refused(BatchTooLargeError(self._path, len(payloads), size))

    def _check_expected(self, expected: int | None) -> None:
        """Raise ConflictError unless this is the sequence of what is accepted now."""
        if expected is not None and expected != (upcoming := self._group.upcoming):
            raise self._refused(ConflictError(self._path, expected, upcoming))

    def _accept_batch(self, batch: Pending[Waiter]) -> bool:
        """Accept a batch, or without room for it have it wait; return whether there was room."""
        group = self._group
        has_room = group.add_batch(batch, time_ns())
        if has_room:
            self._schedule()
        elif batch.times is not None:
            full = BufferFullError(self._path, group.buffered_records, group.buffered_bytes)
            raise self._refused(full)
        else:
            group.wait(batch)
        return has_room

    async def _in_line(self, pending: Pending[Waiter], waiter: Future[T]) -> T:
        """Wait for room, and then as anybody; cancelled before there was room, leave the line."""
        try:
            return await self._wait(waiter)
        except CancelledError:
            self._leave_line(pending)
            raise

    def _leave_line(self, pending: Pending[Waiter]) -> None:
        try:
            self._group.leave_line(pending, time_ns(), is_done)
            self._schedule()
        except BaseException:
            self._interrupted()
            raise

    async def _barrier(self, stage: Stage) -> None:
        self._check()
        waiter: Future[None] = self._loop.create_future()
        try:
            must_wait = self._group.barrier(stage, waiter)
            if must_wait:
                self._schedule()
        except BaseException:
            self._interrupted()
            raise
        if must_wait:
            await self._wait(waiter)

    async def _wait(self, waiter: Future[T]) -> T:
        try:
            return await waiter
        except CancelledError:
            self._counters.cancelled += 1
            raise


def _hear(task: Task[Any]) -> None:
    """Have an error be heard of, also when all who waited for it are gone."""
    if not task.cancelled():
        task.exception()


def _size_of(batch: Guarded) -> int:
    return sum(map(len, batch.payloads)) + len(batch.payloads) * labels_size(batch.labels)


def _by_index(batch: Guarded) -> dict[int, tuple[str, ...]]:
    return dict.fromkeys(range(len(batch.payloads)), batch.labels) if batch.labels else {}
