"""Store: a log that this process writes, with its files, its worker, and all that can be asked of it.

Commits form in `writing`; here they are handed to the worker, which owns the journal, and what comes back is made known to
those who read. What else is done with the journal, a purge for example, goes the same way, between two commits.
"""

from __future__ import annotations

import weakref
from asyncio import AbstractEventLoop, Future, TimerHandle, get_running_loop
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio

from aquipu.bookmark import checked_name
from aquipu.closing import Opening
from aquipu.commit import Commit, GroupCommit, Landing
from aquipu.cursor import Cursor
from aquipu.disk import Disk, StrPath, absolute, at_fork
from aquipu.errors import (
    AquipuError,
    ForkedStoreError,
    RecordNotWrittenError,
    StoreClosedError,
    StoreFailedError,
    twin,
)
from aquipu.follow import Follow, Followed, Herald, Recent
from aquipu.handoff import Handoff
from aquipu.indexer import Indexer
from aquipu.journal import Journal
from aquipu.opening import Opened, open_files
from aquipu.options import MIB, Options
from aquipu.policy import EveryN, Stage, SyncPolicy
from aquipu.purge import Purged
from aquipu.reading import Readable, Time, check_sequence, nanoseconds
from aquipu.retention import Retention
from aquipu.view import View
from aquipu.worker import Worker, before_exit
from aquipu.writing import LARGE, Waiter, Writable, refuse_in_child

if TYPE_CHECKING:
    from aquipu.daemon.remote import RemoteStore
    from aquipu.recovery import RecoveryReport
    from aquipu.statistics import Health, State, Statistics

T = TypeVar("T")

_BUSY_PAUSE = 0.005  # seconds, while another process sets a hold


class Store(Readable, Writable):
    """A durable log. Made by `Store.open`; belongs to the event loop that opened it, and to this process."""

    def __init__(
        self, path: str, options: Options, disk: Disk, loop: AbstractEventLoop, handoff: Handoff, opened: Opened
    ) -> None:
        """Not called by users: `Store.open` does."""
        from aquipu.finding import Finder  # here: a program that only imports us needs none of it

        journal, report, lock, board = opened
        policy = options.sync_policy
        group: GroupCommit[Waiter] = GroupCommit(
            policy,
            next_sequence=report.next_sequence,
            synced_sequence=report.next_sequence,
            last_time=journal.last_time,
            buffer_records=options.buffer_records,
            buffer_bytes=options.buffer_bytes,
        )
        Writable.__init__(self, path, loop, group, policy.stage, options.max_record_bytes)
        self._handoff = handoff
        self._disk = disk
        self._journal = journal
        self._report = report
        self._max_segment_bytes = options.max_segment_bytes
        self._within = policy.within
        self._sync_timer: TimerHandle | None = None
        self._over = False  # the worker has been told to finish
        self._herald = Herald(loop, journal, board, report.next_sequence)
        self._told = self._herald.announce
        self._indexer = Indexer(disk, report.next_sequence)
        self._finder = Finder(self._indexer.due)
        patience = None if policy.within is None else 0.75 * policy.within  # the loop has asked at half of it
        self._worker = Worker(journal, lock, loop, handoff, patience)
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

    @staticmethod
    def connect(
        address: str, *, timeout: float = 20.0, buffer_records: int = 65_536, buffer_bytes: int = 64 * MIB
    ) -> Opening[RemoteStore]:
        """The store that a daemon writes (``aquipu serve STORE --socket PATH``), in as many processes as want it; await it,
        or enter it: ``async with Store.connect("unix:/run/audit.sock") as store``. Its calls are those of a Store.

        Args:
            address: ``unix:PATH``.
            timeout: seconds that the daemon may be away, now and later. Whoever waits meanwhile is told after that; what
                was sent and not answered is neither lost nor stored twice when the daemon is back in time. While it is
                closed, a store waits 4 seconds at most for a daemon that is away.
            buffer_records, buffer_bytes: how much may be accepted in this process and not yet acknowledged; the daemon's
                own bounds hold as well.

        Raises (when awaited or entered): StoreUnavailableError when no daemon answers in time, and what it says is wrong.
        TypeError or ValueError at once for an address or option that cannot be.
        """
        from aquipu.daemon.remote import opening  # who never asks for it does not pay for it

        return opening(address, timeout, buffer_records, buffer_bytes)

    # keeping and letting go

    async def purge(self, *, before: int | None = None, before_time: Time | None = None, dry_run: bool = False) -> Purged:
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
    def recovery(self) -> RecoveryReport:
        """What opening found and did."""
        return self._report

    def statistics(self) -> Statistics:
        """A snapshot; never waits for the worker or the disk. From any thread, and also of a closed store."""
        journal = self._journal
        if not journal.is_measured:
            self._worker.nudge()
        seen = self._counted(journal.latency)
        return seen._replace(segments=len(journal.catalogue), disk_bytes=journal.disk_bytes, free_bytes=journal.free_bytes)

    def health(self, *, min_free_bytes: int | None = None, max_sync_seconds: float = 1.0) -> Health:
        """Whether all is well, and if not, why; as `statistics`, from any thread and without waiting.

        * ``ok``;
        * ``degraded``: everything works, but somebody should look: the disk is nearly full, or slow;
        * ``failed``: a sync or a write has failed, and nothing more is accepted until the store is opened again;
        * ``closed``: `aclose` has begun.

        Args:
            min_free_bytes: with less free space the disk is nearly full; without it, room for four more segments
                (``4 * max_segment_bytes``).
            max_sync_seconds: a sync that takes longer is slow: one within the last half minute (up to a minute), or what
                the disk is at now. A disk in good health takes milliseconds; etcd warns from one second on, too.
        """
        from aquipu.statistics import judge

        least = 4 * self._max_segment_bytes if min_free_bytes is None else min_free_bytes
        failure = self._failure or self._journal.failure
        return judge(
            self.statistics(),
            None if failure is None else str(failure),
            min_free_bytes=least,
            max_sync_seconds=max_sync_seconds,
        )

    @property
    def _state(self) -> State:
        state = super()._state
        return "failed" if state == "open" and self._journal.failure is not None else state

    def __del__(self) -> None:
        if hasattr(self, "_worker") and self._leave():
            self._warn()

    def __repr__(self) -> str:
        state = "closed" if self._closed is not None else "failed" if self._failure is not None else "open"
        return f"<Store {self._path!r} {state} next_sequence={self.next_sequence}>"

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

    def _launch(self, commit: Commit[Waiter], *, at_once: bool) -> None:
        if commit.labels:
            self._indexer.labelled(self._group.next_sequence)
        early = len(commit.batches) > 0 and len(commit) >= LARGE
        self._worker.send(commit, self._landed, at_once=at_once or early)
        if early:
            commit.write_receipts(self._group.next_sequence)

    def _landed(self, outcome: Landing | AquipuError) -> None:
        """A commit has come back from the worker."""
        self._handoff.arrived()
        if isinstance(outcome, Landing):
            self._herald.begin(outcome.next_sequence)
        self._arrived(outcome)

    def _settled(self) -> None:
        self._indexer.look(self._journal.catalogue)
        self._watch_age()

    def _fail(self, outcome: StoreFailedError) -> None:
        super()._fail(outcome)
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
        self._indexer.stop()
        self._finder.close(StoreClosedError(self._path))
        if self._sync_timer is not None:
            self._sync_timer.cancel()
            self._sync_timer = None
        super()._begin_closing()

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
            self._counters.syncs = outcome.syncs
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


_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _leave_all() -> None:
    left = [store for store in list(_open_stores) if store._leave()]
    for store in left:  # when nothing can go wrong any more: the warning may be made an error
        store._warn()


before_exit(_leave_all)
at_fork(partial(refuse_in_child, _open_stores))
