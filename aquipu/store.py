"""Store: the face of the engine.

An append checks its record, takes a place in the commit that is forming, and a future. At the end of the loop's tick, if
the worker is idle, the commit is handed over, so all appends of one tick travel together; what gathers while the disk is
busy leaves as the next one. When a commit comes back, its callers go on at once, and what they append then leaves right
behind them. The loop thread owns all of this: there is no lock and, on this way, no timer.
"""

from __future__ import annotations

import warnings
import weakref
from asyncio import AbstractEventLoop, CancelledError, Future, TimerHandle, get_running_loop, shield
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import islice
from threading import get_ident
from time import time_ns
from typing import NamedTuple, TypeAlias, TypeVar

import anyio

from aquipu.bookmark import checked_name
from aquipu.closing import Closing, Opening
from aquipu.commit import GroupCommit, Landing, Pending
from aquipu.cursor import Cursor
from aquipu.disk import Disk, StrPath, absolute, at_fork
from aquipu.errors import (
    AquipuError,
    BatchTooLargeError,
    BufferFullError,
    ForkedStoreError,
    RecordNotWrittenError,
    RecordTooLargeError,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
    twin,
)
from aquipu.finding import Finder
from aquipu.follow import Follow, Followed, Herald, Recent
from aquipu.handoff import Handoff
from aquipu.indexer import Indexer
from aquipu.journal import Journal
from aquipu.opening import Opened, open_files
from aquipu.options import MIB, Options
from aquipu.policy import EveryN, Stage, SyncPolicy
from aquipu.purge import Purged
from aquipu.reading import Readable, check_sequence, nanoseconds
from aquipu.record import Receipt, checked_batch, checked_data, checked_relations, labels_size
from aquipu.recovery import RecoveryReport
from aquipu.retention import Retention
from aquipu.view import View
from aquipu.waiter import Kept, resume
from aquipu.worker import Worker, before_exit

T = TypeVar("T")

_LARGE = 256  # records in a commit; below, two half commits take longer than a whole one
_NO_RELATIONS: tuple[str, ...] = ()
_BUSY_PAUSE = 0.005  # seconds, while another process sets a hold

Data = bytes | bytearray | memoryview
Waiter: TypeAlias = "Future[Receipt] | Future[list[Receipt]] | Future[None]"


class Statistics(NamedTuple):
    """A snapshot of a store; counts are since its opening."""

    records: int
    """Acknowledged."""
    bytes: int
    """Of their data."""
    commits: int
    """That carried these records to the disk."""
    syncs: int
    """fdatasync calls (or writes that sync by themselves) on the log."""
    buffered_records: int
    """Accepted, not yet acknowledged."""
    buffered_bytes: int
    waiting: int
    """Callers that wait for room in the buffer."""
    unsynced_records: int
    """Acknowledged, but not known to be synced: what a power cut could take now."""
    first_sequence: int
    next_sequence: int
    synced_sequence: int
    segments: int


class Store(Readable, Closing):
    """A durable log. Made by `Store.open`; belongs to the event loop that opened it, and to this process."""

    def __init__(
        self, path: str, options: Options, disk: Disk, loop: AbstractEventLoop, handoff: Handoff, opened: Opened
    ) -> None:
        """Not called by users: `Store.open` does."""
        journal, report, lock, board = opened
        self._path = path
        self._loop = loop
        self._thread = get_ident()
        self._handoff = handoff
        self._disk = disk
        self._journal = journal
        self._report = report
        self._stage = options.sync_policy.stage
        self._within = options.sync_policy.within
        self._max_record_bytes = options.max_record_bytes
        self._group: GroupCommit[Waiter] = GroupCommit(
            options.sync_policy,
            next_sequence=report.next_sequence,
            synced_sequence=report.next_sequence,
            last_time=journal.last_time,
            buffer_records=options.buffer_records,
            buffer_bytes=options.buffer_bytes,
        )
        self._herald = Herald(loop, journal, board, report.next_sequence)
        self._tells_later = False  # some callers are told through the queue of the loop: whoever reads, behind them
        self._refusal: AquipuError | None = None  # why nothing more is accepted
        self._failure: StoreFailedError | None = None
        self._scheduled = False  # _depart will run at the end of this tick
        self._sync_timer: TimerHandle | None = None
        self._closed: Future[None] | None = None  # from the beginning of aclose on
        self._ending = False  # everything accepted is written
        self._over = False  # the worker has been told to finish
        self._records = self._bytes = self._commits = self._syncs = 0
        self._indexer = Indexer(disk, report.next_sequence)
        self._finder = Finder(self._indexer.due)
        self._worker = Worker(journal, lock, loop, handoff)
        self._indexer.look(journal.catalogue)
        _open_stores.add(self)

    @staticmethod
    def open(
        path: StrPath,
        *,
        sync_policy: SyncPolicy = EveryN(64),
        max_segment_bytes: int = 64 * MIB,
        max_record_bytes: int = 16 * MIB,
        buffer_records: int = 65_536,
        buffer_bytes: int = 64 * MIB,
        lock_timeout: float = 20.0,
        retention: Retention | None = None,
        disk: Disk | None = None,
    ) -> Opening[Store]:
        """Open the store in the directory ``path``; await it, or enter it: ``async with Store.open("audit") as store``.

        A missing directory is created, durably. What opening finds after a crash, and does about it, is in
        ``store.recovery``.

        Args:
            sync_policy: when ``append`` returns, and so what a power cut can take: `Always`, `EveryN`, `OsManaged`.
            max_segment_bytes: a segment file that has reached this size is sealed and the next one begun.
            max_record_bytes: the most data that one record may hold; at most ``buffer_bytes``.
            buffer_records, buffer_bytes: how much may be accepted and not yet acknowledged. A process crash takes what is
                in the buffer, none of it acknowledged. When it is full, ``append`` waits and ``append_nowait`` raises.
            lock_timeout: seconds to wait for another process that is still writing the store.
            retention: which old segments are let go of, whenever a new one begins and now; without it, none.
            disk: the door to the operating system; a test may hand in one that fails.

        Raises (when awaited or entered): StoreLockedError, CorruptionError, UnsupportedFormatError, NotAStoreError,
        StoreUnavailableError; nothing was changed. TypeError or ValueError at once for an option that cannot be.
        """
        options = Options(
            sync_policy,
            max_segment_bytes,
            max_record_bytes,
            buffer_records,
            buffer_bytes,
            lock_timeout,
            retention,
        )
        return Opening(partial(_open, absolute(path), options.checked(), Disk() if disk is None else disk))

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
        waiter: Future[Receipt] = self._loop.create_future()
        pending = self._accept(data, relations, durability, waiter)
        if pending is None:
            return await waiter
        self._group.waiting.append(pending)
        return await self._in_line(pending, waiter)

    def append_nowait(
        self, data: Data, *, relations: Iterable[str] = _NO_RELATIONS, durability: Stage | None = None
    ) -> Future[Receipt]:
        """As `append`, without waiting: the future resolves when `append` would have returned.

        Raises BufferFullError when there is no room, and at once whatever else `append` raises before it accepts.
        """
        waiter = Kept(loop=self._loop)
        self._tells_later = True
        if self._accept(data, relations, durability, waiter) is not None:
            raise BufferFullError(self._path, self._group.records, self._group.bytes)
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
        largest = max(map(len, payloads), default=0)
        if largest > self._max_record_bytes:
            raise RecordTooLargeError(self._path, largest, self._max_record_bytes)
        if not payloads:
            return []
        size = sum(map(len, payloads)) + len(payloads) * labels_size(labels)
        if len(payloads) > self._group.buffer_records or size > self._group.buffer_bytes:
            raise BatchTooLargeError(self._path, len(payloads), size)
        waiter: Future[list[Receipt]] = self._loop.create_future()
        pending: Pending[Waiter] = Pending(payloads, size, labels, stage, waiter, True)
        if self._group.add_batch(pending, time_ns()):
            self._schedule()
            return await waiter
        self._group.waiting.append(pending)
        return await self._in_line(pending, waiter)

    async def flush(self) -> None:
        """Wait until everything accepted so far is FLUSHED: a process crash takes none of it.

        Raises StoreFullError when some of it found no space, StoreFailedError, StoreClosedError.
        """
        await self._barrier(Stage.FLUSHED)

    async def sync(self) -> None:
        """Wait until everything accepted so far is SYNCED: a power cut takes none of it. Raises as `flush`."""
        await self._barrier(Stage.SYNCED)

    # keeping and letting go

    async def purge(
        self, *, before: int | None = None, before_time: datetime | int | None = None, dry_run: bool = False
    ) -> Purged:
        """Let go of the oldest records: the whole sealed segments before the sequence ``before``, or those in which every
        record was accepted before ``before_time`` (an aware datetime, or nanoseconds since the epoch).

        The segment that is being written stays, and so does everything from the oldest hold on. When this returns,
        ``first_sequence`` is durably the new one, and the files are removed; those that a reader is at go later. After a
        crash within it, the first sequence is the old one or the new one, and all that it says is kept is there.
        Cancelled, it is done all the same. With ``dry_run`` nothing is done: what it would come to is returned.

        Raises TypeError or ValueError unless there is exactly one of the two and it is a sequence or a time;
        CorruptionError for a hold that does not check (`release` removes it); StoreFullError (nothing was changed),
        StoreFailedError, StoreClosedError, StoreUnavailableError.
        """
        if (before is None) == (before_time is None):
            raise TypeError("purge takes a sequence (before) or a time (before_time), one of the two")
        if before is not None:
            check_sequence(before, "before")
        time = None if before_time is None else nanoseconds(before_time)
        work = partial(Journal.purge, before=before, before_time=time, dry_run=dry_run)
        purged = await self._ask_in_turn(work)
        if not dry_run:
            with suppress(StoreClosedError, StoreFailedError):  # what is left of the files goes at the next opening
                while await self._ask(Journal.sweep):
                    pass
        return purged

    async def hold(self, name: str, sequence: int) -> None:
        """Keep everything from this sequence on, whatever the retention says, until `release`; the name may be set anew.

        A hold is durable when this returns, and holds after a restart. ``sequence`` may be up to ``next_sequence``: keep
        what is to come. A name is 1 to 100 of A-Z a-z 0-9 . _ - and begins with neither a dot nor a dash.

        Raises RecordPurgedError or RecordNotWrittenError for a sequence that is no longer or not yet there, TypeError or
        ValueError for what is no name or sequence, and what `purge` raises.
        """
        checked_name(name)
        check_sequence(sequence, "sequence")
        self._check()
        if sequence > self.next_sequence:
            raise RecordNotWrittenError(self._path, sequence, self.next_sequence)
        await self._ask_in_turn(lambda journal: journal.set_hold(name, sequence))

    async def release(self, name: str) -> bool:
        """Remove a hold, also one that is damaged; False when there was none. Raises as `hold`."""
        checked_name(name)
        return await self._ask(lambda journal: journal.remove_hold(name))

    async def holds(self) -> dict[str, int]:
        """The holds by name, also those that other processes have set. Raises CorruptionError for one that does not check,
        StoreUnavailableError, StoreClosedError."""
        self._check_readable()
        return await self._handoff.run(self._journal.holds)

    def cursor(self, name: str) -> Cursor:
        """The place of a consumer, kept under this name beside the store: see `Cursor`.

        TypeError or ValueError for what is no name.
        """
        store_id = self._journal.catalogue[-1].header.store_id
        return Cursor(self._disk, self._path, store_id, self._handoff, name)

    # reading

    @property
    def first_sequence(self) -> int:
        """Of the first record kept."""
        return self._journal.catalogue[0].first_sequence

    @property
    def next_sequence(self) -> int:
        """One past the last acknowledged record."""
        return self._group.next_sequence

    @property
    def synced_sequence(self) -> int:
        """Everything below is on the disk."""
        return self._group.synced_sequence

    @property
    def path(self) -> str:
        """The directory, absolute."""
        return self._path

    @property
    def recovery(self) -> RecoveryReport:
        """What opening found and did."""
        return self._report

    def statistics(self) -> Statistics:
        """A snapshot; never touches the worker or the disk."""
        group = self._group
        return Statistics(
            records=self._records,
            bytes=self._bytes,
            commits=self._commits,
            syncs=self._syncs,
            buffered_records=group.records,
            buffered_bytes=group.bytes,
            waiting=len(group.waiting),
            unsynced_records=group.unsynced,
            first_sequence=self.first_sequence,
            next_sequence=group.next_sequence,
            synced_sequence=group.synced_sequence,
            segments=len(self._journal.catalogue),
        )

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

    def __del__(self) -> None:
        if hasattr(self, "_worker") and self._leave():
            self._warn()

    def __repr__(self) -> str:
        state = "closed" if self._closed is not None else "failed" if self._failure is not None else "open"
        return f"<Store {self._path!r} {state} next_sequence={self.next_sequence}>"

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
            raise RecordTooLargeError(self._path, size, self._max_record_bytes)
        labels: tuple[str, ...] = ()
        if relations is not _NO_RELATIONS:
            labels = checked_relations(relations)
            size += labels_size(labels)
        stage = self._stage if durability is None else _checked_stage(durability)
        if self._group.add(payload, size, labels, stage, waiter, time_ns()):
            if not self._scheduled:
                self._schedule()
            return None
        return Pending((payload,), size, labels, stage, waiter, False)

    async def _in_line(self, pending: Pending[Waiter], waiter: Future[T]) -> T:
        """Wait for room, and then as anybody; cancelled before there was room, leave the line."""
        try:
            return await waiter
        except CancelledError:
            self._group.leave_line(pending, time_ns(), _is_done)
            self._schedule()
            raise

    async def _barrier(self, stage: Stage) -> None:
        self._check()
        waiter: Future[None] = self._loop.create_future()
        if self._group.barrier(stage, waiter):
            self._schedule()
            await waiter

    def _check(self) -> None:
        """Raise unless the store takes records from here and now."""
        self._check_owner()
        if self._refusal is not None:
            raise twin(self._refusal)

    def _check_owner(self) -> None:
        if isinstance(self._refusal, ForkedStoreError):
            raise twin(self._refusal)
        super()._check_owner()

    # what else the worker does

    async def _ask(self, work: Callable[[Journal], T]) -> T:
        """Have something done with the journal, between two commits; cancelled, it is done all the same."""
        self._check()
        waiter: Future[T] = self._loop.create_future()
        self._worker.ask(work, partial(self._answered, waiter))
        return await waiter

    async def _ask_in_turn(self, work: Callable[[Journal], T | None]) -> T:
        """As `_ask`, and again as long as another process sets a hold at that moment."""
        while True:
            answer = await self._ask(work)
            if answer:
                return answer
            await anyio.sleep(_BUSY_PAUSE)

    def _answered(self, waiter: Future[T], outcome: T | AquipuError) -> None:
        self._handoff.arrived()
        self._herald.show()  # a purge may have moved the first sequence
        if isinstance(outcome, StoreFailedError):
            self._fail(outcome)
        if waiter.done():
            return
        if isinstance(outcome, AquipuError):
            waiter.set_exception(twin(outcome))
        else:
            waiter.set_result(outcome)

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
            if commit.labels:
                self._indexer.labelled(self._group.next_sequence)
            early = len(commit.batches) > 0 and len(commit) >= _LARGE
            self._worker.send(commit, self._arrived, at_once=at_once or early)
            if early:
                commit.write_receipts(self._group.next_sequence)
        elif self._closed is not None and self._group.under_way is None and not self._ending:
            self._end()

    def _arrived(self, outcome: Landing | AquipuError) -> None:
        """A commit has come back from the worker."""
        self._handoff.arrived()
        self._scheduled = True  # what the callers append now leaves below
        try:
            if isinstance(outcome, Landing):
                self._acknowledge(outcome)
            elif isinstance(outcome, StoreFullError):
                commit, behind = self._group.refuse()
                _fail([*commit.everyone(), *behind], outcome)
            else:
                self._fail(outcome)
        finally:
            if self._group.waiting:
                self._group.admit(time_ns(), _is_done)
            self._indexer.look(self._journal.catalogue)
            self._watch_age()
            self._depart()

    def _acknowledge(self, landing: Landing) -> None:
        """Resolve what waits for the commit that has come back."""
        first = self._group.next_sequence
        commit = self._group.arrive(landing)
        self._syncs = landing.syncs
        if commit.payloads:
            self._commits += 1
            self._records += len(commit)
            self._bytes += commit.size - commit.label_bytes
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
                in_turns = commit.sync and len(commit) >= _LARGE
                self._resume(zip(commit.waiters, receipts, strict=True), len(commit) // 2 if in_turns else 0)
        except BaseException:
            self._tells_later = True
            raise
        finally:
            if commit.payloads and self._tells_later:
                self._loop.call_soon(self._herald.announce, first, commit)
            elif commit.payloads:
                self._herald.announce(first, commit)

    def _resume(self, told: Iterator[tuple[Waiter | None, Receipt]], first: int = 0) -> None:
        """Let the callers go on, also those behind one whose task ends the program.

        With ``first``, what that many append leaves before the others go on: callers who compute about as long as the
        disk syncs fall into two halves that take turns, unless they have already.
        """
        try:
            if first:
                if not self._group.is_forming:
                    resume(islice(told, first))
                self._depart(at_once=True)
            resume(told)
        except BaseException:
            self._loop.call_soon(self._resume, told)
            raise

    def _fail(self, outcome: AquipuError) -> None:
        """The journal is poisoned: everyone is told, and nothing more is accepted."""
        assert isinstance(outcome, StoreFailedError)
        self._failure = outcome
        if not isinstance(self._refusal, StoreClosedError):
            self._refusal = outcome
        _fail(self._group.abandon(), outcome)
        self._herald.fail(outcome, self._readable_until)

    def _watch_age(self) -> None:
        """Keep a timer while there are acknowledged records that are not synced, if the policy bounds their age."""
        if not self._group.unsynced or self._failure is not None or self._closed is not None:
            if self._sync_timer is not None:
                self._sync_timer.cancel()
                self._sync_timer = None
        elif self._within is not None and self._sync_timer is None:
            self._sync_timer = self._loop.call_later(self._within / 2, self._sync_aged)

    def _sync_aged(self) -> None:
        self._sync_timer = None
        if self._failure is None and self._group.barrier(Stage.SYNCED, None):
            self._schedule()

    # reading

    @property
    def _readable_until(self) -> int:
        return self.next_sequence if self._failure is None else self.synced_sequence

    def _check_readable(self) -> None:
        self._check_owner()
        if self._closed is not None:
            raise StoreClosedError(self._path)

    async def _seen(self) -> View:
        return View(self._disk, self._journal.catalogue, self.first_sequence, self._readable_until)

    def _followed(self) -> Followed:
        return _Followed(self)

    def _look(self) -> View:
        """As `_seen`, but only what every caller has been told; from any thread, so what is seen is asked before where."""
        until = self._herald.told
        catalogue = self._journal.catalogue
        return View(self._disk, catalogue, catalogue[0].first_sequence, until)

    # closing

    def _begin_closing(self) -> None:
        self._closed = self._loop.create_future()
        closed = StoreClosedError(self._path)
        self._refusal = closed
        _fail(self._group.give_up_waiting(), closed)
        self._indexer.stop()
        self._finder.close(closed)
        if self._sync_timer is not None:
            self._sync_timer.cancel()
            self._sync_timer = None
        if self._group.under_way is None and not self._scheduled:
            self._depart()

    def _end(self) -> None:
        """Have the journal closed, when nothing is being built beside it any more."""
        self._ending = True
        if self._indexer.stop(self._index_ended):
            self._handoff.departed()
        else:
            self._finish()

    def _index_ended(self) -> None:
        """On the thread of the indexer."""
        try:
            self._loop.call_soon_threadsafe(self._index_left)
        except RuntimeError:  # the loop was closed under the store
            self._leave()
        self._handoff.landed()

    def _index_left(self) -> None:
        self._handoff.arrived()
        self._finish()

    def _finish(self) -> None:
        self._over = True
        self._worker.finish(self._finished)

    def _finished(self, outcome: Landing | AquipuError) -> None:
        self._handoff.arrived()
        self._loop.call_soon(self._herald.end)  # behind the last commit that readers hear of
        _open_stores.discard(self)
        assert self._closed is not None
        if isinstance(outcome, Landing):
            self._group.synced_sequence = outcome.synced_sequence
            self._syncs = outcome.syncs
            self._closed.set_result(None)
        else:
            self._closed.set_exception(outcome)
            self._closed.exception()  # aclose raises it; not the garbage collector
            if self._failure is None and isinstance(outcome, StoreFailedError):
                self._herald.fail(outcome, self.synced_sequence)

    def _leave(self) -> bool:
        """The program has let go of the store: if it is still open, have what was accepted written in the background."""
        if self._over or isinstance(self._refusal, ForkedStoreError):
            return False
        self._over = True
        self._indexer.stop()
        self._finder.close(StoreClosedError(self._path))
        self._worker.leave(self._group.remaining())
        return True

    def _warn(self) -> None:
        warnings.warn(
            f"{self!r} was never closed; use aclose() or `async with`", ResourceWarning, stacklevel=2, source=self
        )


class _Followed(Followed):
    """A store as its followers see it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.path, self.disk, self.handoff = store._path, store._disk, store._handoff

    def check(self) -> None:
        self._store._check_owner()

    @property
    def told(self) -> int:
        return self._store._herald.told

    def recent(self, sequence: int) -> Recent | None:
        return self._store._herald.recent(sequence)

    def look(self, indexed: bool) -> View:
        return self._store._look()

    async def news(self, sequence: int) -> bool:
        return await self._store._herald.news()

    def joined(self, follower: Follow) -> None:
        self._store._herald.joined(follower)

    def left(self, follower: Follow) -> None:
        self._store._herald.left(follower)


async def _open(path: str, options: Options, disk: Disk) -> Store:
    loop = get_running_loop()
    handoff = Handoff(loop)
    opened = await open_files(path, options, disk, handoff)
    try:
        return Store(path, options, disk, loop, handoff, opened)
    except BaseException:  # no thread for the worker
        opened.drop()
        raise


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


def _fail(waiters: Iterable[Waiter], error: AquipuError) -> None:
    """Give each of them an exception object of its own."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_exception(twin(error))


_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _leave_all() -> None:
    left = [store for store in list(_open_stores) if store._leave()]
    for store in left:  # when nothing can go wrong any more: the warning may be made an error
        store._warn()


def _stay_with_parent() -> None:
    """In a forked child: the stores of the parent refuse everything."""
    for store in list(_open_stores):
        store._refusal = ForkedStoreError(store.path)
    _open_stores.clear()


before_exit(_leave_all)
at_fork(_stay_with_parent)
