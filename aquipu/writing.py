"""What can be written to a log, however it reaches its disk: the face that `Store` and a client of a daemon share.

An append checks its record, takes a place in the commit that is forming, and a future. At the end of the loop's tick, if
no commit is under way, the forming one is launched, so all appends of one tick travel together; what gathers meanwhile
leaves as the next one. When a commit comes back, its callers go on at once, and what they append then leaves right behind
them. The loop thread owns all of this: there is no lock and, on this way, no timer.

Where a commit goes when it is launched is not known here. It comes back to `_arrived` as a `Landing`, or as an error.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from asyncio import AbstractEventLoop, CancelledError, Future, shield
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from threading import get_ident
from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from weakref import WeakSet

import anyio

from aquipu.closing import Closing
from aquipu.commit import Commit, GroupCommit, Landing, Pending
from aquipu.errors import (
    AquipuError,
    BatchTooLargeError,
    BufferFullError,
    ForkedStoreError,
    RecordTooLargeError,
    StoreClosedError,
    StoreFailedError,
    twin,
)
from aquipu.owner import Owned
from aquipu.policy import Stage
from aquipu.record import Receipt, checked_batch, checked_data, checked_relations, labels_size
from aquipu.tally import SECOND, Counters, Latency
from aquipu.waiter import Kept, resume

if TYPE_CHECKING:
    from aquipu.statistics import State, Statistics

T = TypeVar("T")
E = TypeVar("E", bound=AquipuError)

LARGE = 256
"""Records in a commit; below, two half commits take longer than a whole one."""
_NO_RELATIONS: tuple[str, ...] = ()

Data = bytes | bytearray | memoryview
Waiter: TypeAlias = "Future[Receipt] | Future[list[Receipt]] | Future[None]"


class Writable(Owned, Closing):
    """A log that takes records."""

    _told: Callable[[int, Commit[Waiter]], None]
    """Hears of each commit, and of the sequence of its first record, when its callers have been told."""

    def __init__(
        self, path: str, loop: AbstractEventLoop, group: GroupCommit[Waiter], stage: Stage, max_record_bytes: int
    ) -> None:
        """``stage``: what an append waits for that asks for nothing else."""
        super().__init__(path, loop)
        self._thread = get_ident()
        self._group = group
        self._stage = stage
        self._max_record_bytes = max_record_bytes
        self._refusal: AquipuError | None = None  # why nothing more is accepted
        self._failure: StoreFailedError | None = None
        self._scheduled = False  # _depart will run at the end of this tick
        self._tells_later = False  # some callers are told through the queue of the loop: whoever reads, behind them
        self._closed: Future[None] | None = None  # from the beginning of aclose on
        self._ending = False  # everything accepted is written
        self._counters = Counters()

    # where commits go

    @abstractmethod
    def _launch(self, commit: Commit[Waiter], *, at_once: bool) -> None:
        """Have a commit written; `_arrived` must be called with what came of it. ``at_once``: before this thread computes
        on, wait until the disk has it."""

    @abstractmethod
    def _settled(self) -> None:
        """What a commit brought is done, and the next one has not left yet."""

    @abstractmethod
    def _end(self) -> None:
        """Everything accepted has arrived, and nothing more is: let go of the log, and resolve `_closed`."""

    # writing

    async def append(
        self, data: Data, *, relations: Iterable[str] = _NO_RELATIONS, durability: Stage | None = None
    ) -> Receipt:
        """Store one record; returns when it has reached the stage that the policy, or ``durability``, asks for.

        ``data`` is copied (or, as bytes, kept) before anything else happens. ``relations`` are labels such as
        ``"user:7"`` that are stored with the record. ``durability`` asks for more than the policy (``Stage.SYNCED``) or
        for less (``Stage.FLUSHED``) for this record.

        Waits for room when the buffer is full. Cancelled while it waits for room: nothing is written. Cancelled after
        that: the record keeps its place and is written; only its caller stops waiting.

        Raises StoreFullError (no space; nothing kept; try again), StoreFailedError (outcome unknown), StoreClosedError,
        RecordTooLargeError, WrongLoopError, ForkedStoreError; TypeError or ValueError for what is no record or label.
        """
        waiter: Future[Receipt] = Future(loop=self._loop)
        commit = self._group.forming
        if (
            commit is None
            or type(data) is not bytes
            or len(data) > self._max_record_bytes
            or relations is not _NO_RELATIONS
            or durability is not None
            or get_ident() != self._thread
            or self._refusal is not None
            or not self._loop.is_running()
            or not commit.take(data, waiter, time_ns())
        ):
            pending = self._accept(data, relations, durability, waiter)
            if pending is not None:
                self._group.wait(pending)
                return await self._in_line(pending, waiter)
        try:
            return await waiter
        except CancelledError:
            self._counters.cancelled += 1
            raise

    def append_nowait(
        self, data: Data, *, relations: Iterable[str] = _NO_RELATIONS, durability: Stage | None = None
    ) -> Future[Receipt]:
        """As `append`, without waiting: the future resolves when `append` would have returned.

        Raises BufferFullError when there is no room, and at once whatever else `append` raises before it accepts.
        """
        waiter = Kept(loop=self._loop)
        self._tells_later = True
        if self._accept(data, relations, durability, waiter) is not None:
            raise self._refused(BufferFullError(self._path, self._group.buffered_records, self._group.buffered_bytes))
        return waiter

    async def append_many(
        self, data: Iterable[Data], *, relations: Iterable[str] = _NO_RELATIONS, durability: Stage | None = None
    ) -> list[Receipt]:
        """Store several records as one commit: after a crash all of them are there, or none.

        ``relations`` and ``durability`` hold for each of them. An empty collection returns an empty list. Raises what
        `append` raises, and BatchTooLargeError for more than the buffer can hold.
        """
        self._check()
        if isinstance(data, (bytes, bytearray, memoryview, str)):
            raise TypeError(f"append_many takes a collection of records, not {type(data).__name__}; use append")
        payloads: list[bytes] = checked_batch(data)
        labels = checked_relations(relations)
        stage = self._stage if durability is None else _checked_stage(durability)
        if not payloads:
            return []
        of_each = dict.fromkeys(range(len(payloads)), labels) if labels else {}
        return await self._append_batch(payloads, of_each, len(payloads) * labels_size(labels), stage)

    async def flush(self) -> None:
        """Wait until everything accepted so far is FLUSHED: a process crash takes none of it.

        Raises StoreFullError when some of it found no space, StoreFailedError, StoreClosedError.
        """
        await self._barrier(Stage.FLUSHED)

    async def sync(self) -> None:
        """Wait until everything accepted so far is SYNCED: a power cut takes none of it. Raises as `flush`."""
        await self._barrier(Stage.SYNCED)

    # closing

    async def aclose(self) -> None:
        """Accept no more, wait for everything accepted, sync it, and let go of the store; also when it is cancelled itself.

        Callers that still wait for room get StoreClosedError. Raises StoreFailedError when the store has failed; it is
        closed and unlocked all the same. The second call waits for the first.
        """
        self._check_owner()
        if self._closed is None:
            self._begin_closing()
        assert self._closed is not None
        cancelled: CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not self._closed.done():
                try:
                    await shield(self._closed)
                except CancelledError as error:
                    cancelled = error
                except AquipuError:
                    break
        if cancelled is not None:
            raise cancelled
        failure = self._closed.exception()
        if failure is not None:
            raise twin(failure)

    def _begin_closing(self) -> None:
        self._closed = self._loop.create_future()
        closed = StoreClosedError(self._path)
        self._refusal = closed
        self._fail_all(self._group.give_up_waiting(), closed)
        if self._group.under_way is None and not self._scheduled:
            self._depart()

    def _warn(self) -> None:
        warnings.warn(
            f"{self!r} was never closed; use aclose() or `async with`", ResourceWarning, stacklevel=2, source=self
        )

    # what is counted

    @property
    @abstractmethod
    def first_sequence(self) -> int:
        """Of the first record kept."""

    @property
    @abstractmethod
    def next_sequence(self) -> int:
        """One past the last acknowledged record."""

    @property
    @abstractmethod
    def synced_sequence(self) -> int:
        """Everything below is on the disk."""

    def _counted(self, latency: Latency) -> Statistics:
        """What is known here. From any thread."""
        from aquipu.statistics import Statistics

        synced_sequence = self.synced_sequence  # before the other, which it must not pass: the loop may go on
        counters, group, now = self._counters, self._group, monotonic_ns()
        return Statistics(
            records=counters.records,
            bytes=counters.bytes,
            commits=counters.commits,
            syncs=counters.syncs,
            errors=dict(counters.errors),
            cancelled=counters.cancelled,
            append_seconds=counters.append_times.snapshot(),
            commit_records=counters.commit_records.snapshot(),
            sync_seconds=latency.syncs.snapshot(),
            buffered_records=group.buffered_records,
            buffered_bytes=group.buffered_bytes,
            waiting=len(group.waiting),
            unsynced_records=max(group.next_sequence - synced_sequence, 0),
            oldest_unsynced_seconds=max(time_ns() - group.unsynced_since, 0) / SECOND if group.unsynced > 0 else 0.0,
            under_way_seconds=latency.under_way(now) / SECOND,
            slowest_sync_seconds=latency.slowest(now) / SECOND,
            first_sequence=self.first_sequence,
            next_sequence=self.next_sequence,
            synced_sequence=synced_sequence,
            segments=0,
            disk_bytes=0,
            free_bytes=None,
            state=self._state,
        )

    @property
    def _state(self) -> State:
        if self._closed is not None:
            return "closed" if self._closed.done() else "closing"
        if self._failure is not None:
            return "failed"
        return "closed" if isinstance(self._refusal, ForkedStoreError) else "open"

    # accepting

    def _accept(
        self, data: Data, relations: Iterable[str], durability: Stage | None, waiter: Future[Receipt]
    ) -> Pending[Waiter] | None:
        """Check one record and accept it; without room for it, give it back as it would wait."""
        if get_ident() != self._thread or self._refusal is not None or not self._loop.is_running():
            self._check()
        payload = data if type(data) is bytes else checked_data(data)
        size = len(payload)
        if size > self._max_record_bytes:
            raise self._refused(RecordTooLargeError(self._path, size, self._max_record_bytes))
        labels: tuple[str, ...] = ()
        if relations is not _NO_RELATIONS:
            labels = checked_relations(relations)
            size += labels_size(labels)
        stage = self._stage if durability is None else _checked_stage(durability)
        if self._group.add(payload, size, labels, stage, waiter, time_ns()):
            if durability is None:
                self._group.open_to_all()
            if not self._scheduled:
                self._schedule()
            return None
        return Pending((payload,), size, {0: labels} if labels else {}, stage, waiter, False)

    async def _append_batch(
        self,
        payloads: list[bytes],
        labels: Mapping[int, tuple[str, ...]],
        label_bytes: int,
        stage: Stage,
        key: tuple[bytes, int] | None = None,
    ) -> list[Receipt]:
        """Store records as one commit; the labels by the index of their records. With a key it can be found again, and is
        the commit of a client, who has a buffer of its own: it may be larger than the one here, and goes alone then."""
        largest = max(map(len, payloads))
        if largest > self._max_record_bytes:
            raise self._refused(RecordTooLargeError(self._path, largest, self._max_record_bytes))
        size = sum(map(len, payloads)) + label_bytes
        if key is None and not self._group.may_hold(len(payloads), size):
            raise self._refused(BatchTooLargeError(self._path, len(payloads), size))
        waiter: Future[list[Receipt]] = self._loop.create_future()
        batch: Pending[Waiter] = Pending(payloads, size, labels, stage, waiter, True, key)
        if self._group.add_batch(batch, time_ns()):
            self._schedule()
            return await self._wait(waiter)
        self._group.wait(batch)
        return await self._in_line(batch, waiter)

    async def _in_line(self, pending: Pending[Waiter], waiter: Future[T]) -> T:
        """Wait for room, and then as anybody; cancelled before there was room, leave the line."""
        try:
            return await self._wait(waiter)
        except CancelledError:
            self._group.leave_line(pending, time_ns(), _is_done)
            self._schedule()
            raise

    async def _barrier(self, stage: Stage) -> None:
        self._check()
        waiter: Future[None] = self._loop.create_future()
        if self._group.barrier(stage, waiter):
            self._schedule()
            await self._wait(waiter)

    async def _wait(self, waiter: Future[T]) -> T:
        try:
            return await waiter
        except CancelledError:
            self._counters.cancelled += 1
            raise

    def _check(self) -> None:
        """Raise unless the store takes records from here and now."""
        self._check_owner()
        if self._refusal is not None:
            raise self._refused(twin(self._refusal))

    def _refused(self, error: E) -> E:
        """Count what a caller gets instead of a receipt."""
        self._counters.refused(error)
        return error

    def _fail_all(self, waiters: Iterable[Waiter], error: AquipuError) -> None:
        """Give each of them an exception object of its own."""
        waiting = [waiter for waiter in waiters if not waiter.done()]
        self._counters.refused(error, len(waiting))
        for waiter in waiting:
            waiter.set_exception(twin(error))

    def _check_owner(self) -> None:
        if isinstance(self._refusal, ForkedStoreError):
            raise twin(self._refusal)
        super()._check_owner()

    # the way of a commit

    def _schedule(self) -> None:
        """Let the forming commit leave at the end of this tick, unless one is under way: then it leaves after that."""
        if not self._scheduled and self._group.under_way is None:
            self._scheduled = True
            self._loop.call_soon(self._depart)

    def _depart(self, *, at_once: bool = False) -> None:
        """Hand the next commit over; ``at_once``: before this thread computes on, wait until the disk has it."""
        self._scheduled = False
        commit = self._group.depart()
        if commit is not None:
            self._launch(commit, at_once=at_once)
        elif self._closed is not None and self._group.under_way is None and not self._ending:
            self._end()

    def _arrived(self, outcome: Landing | AquipuError) -> None:
        """A commit has come back."""
        self._scheduled = True  # what the callers append now leaves below
        try:
            if isinstance(outcome, Landing):
                self._acknowledge(outcome)
            elif isinstance(outcome, StoreFailedError):
                self._fail(outcome)
            else:
                commit, behind = self._group.refuse()
                self._fail_all([*commit.everyone(), *behind], outcome)
        finally:
            if self._group.waiting:
                self._group.admit(time_ns(), _is_done)
            self._settled()
            self._depart()

    def _acknowledge(self, landing: Landing) -> None:
        """Resolve what waits for the commit that has come back."""
        commit = self._group.arrive(landing)
        first = landing.next_sequence - len(commit)
        self._counters.syncs = landing.syncs
        if commit.payloads:
            self._counters.acknowledged(commit.timestamps, commit.size - commit.label_bytes, time_ns())
        for barrier in commit.barriers:
            _resolve(barrier, None)
        receipts = commit.receipts(first)
        if commit.batches:
            commit.write_receipts(first)
            for index, count in commit.batches.items():
                batch, commit.waiters[index] = commit.waiters[index], None
                _resolve(batch, commit.written[index : index + count])
            receipts = iter(commit.written)
            self._tells_later = True
        try:
            if sum(commit.batches.values()) < len(commit):
                in_turns = commit.sync and len(commit) >= LARGE
                self._resume(zip(commit.waiters, receipts, strict=True), len(commit) // 2 if in_turns else 0)
        except BaseException:
            self._tells_later = True
            raise
        finally:
            if commit.payloads and self._tells_later:
                self._loop.call_soon(self._told, first, commit)
            elif commit.payloads:
                self._told(first, commit)

    def _resume(self, told: Iterator[tuple[Waiter | None, Receipt]], first: int = 0) -> None:
        """Let the callers go on, also those behind one whose task ends the program.

        With ``first``, what that many append leaves before the others go on: callers who compute about as long as the
        disk syncs fall into two halves that take turns, unless they have already.
        """
        try:
            if first:
                if not self._group.is_forming:
                    self._counters.cancelled += resume(islice(told, first))
                self._depart(at_once=True)
            self._counters.cancelled += resume(told)
        except BaseException:
            self._loop.call_soon(self._resume, told)
            raise

    def _fail(self, outcome: StoreFailedError) -> None:
        """The log is poisoned: everyone is told, and nothing more is accepted."""
        self._failure = outcome
        if not isinstance(self._refusal, StoreClosedError):
            self._refusal = outcome
        self._fail_all(self._group.abandon(), outcome)


def refuse_in_child(stores: WeakSet[Any]) -> None:
    """In a forked child: the stores of the parent refuse everything."""
    for store in list(stores):
        store._refusal = ForkedStoreError(store.path)
    stores.clear()


def _checked_stage(durability: object) -> Stage:
    if not isinstance(durability, Stage):
        raise TypeError(f"durability is a Stage or None, not {type(durability).__name__}")
    if durability is Stage.BUFFERED:
        raise ValueError("an append waits at least for Stage.FLUSHED; append_nowait does not wait at all")
    return durability


def _resolve(waiter: Waiter | None, result: object) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(result)  # type: ignore[arg-type]


def _is_done(waiter: Waiter) -> bool:
    return waiter.done()
