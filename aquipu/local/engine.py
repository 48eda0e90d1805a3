"""The embedded engine: the files of a log, written by one thread of this process.

A commit goes to the worker, which owns the journal, and what comes back is published to
readers. What else is done with the journal, a purge for example, goes the same way, between two
commits.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from aquipu.commit.committer import LARGE
from aquipu.engine import Commit, CommitResult, Engine, Host, Limits, Progress
from aquipu.errors import (
    AquipuError,
    PositionLostError,
    RecordNotWrittenError,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
)
from aquipu.local.consumers import EngineFollowed
from aquipu.local.cursor import LocalCursor
from aquipu.local.disk.disk import Disk
from aquipu.local.format.history import check_survived
from aquipu.local.lag import LagMeter
from aquipu.local.log import LocalReader
from aquipu.local.opening import Opened, indexing, open_files
from aquipu.local.reaching import AgeTimer, Reaching, check_stage
from aquipu.local.read.follow import Followed
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.requests import Requests
from aquipu.local.write.journal import Journal
from aquipu.local.write.publisher import Publisher
from aquipu.local.write.worker import Worker
from aquipu.options import Options
from aquipu.policy import Stage
from aquipu.reading import Cursor, Face
from aquipu.record import PRODUCERS, Lag, Purged
from aquipu.runtime.handoff import Handoff
from aquipu.runtime.trouble import judge
from aquipu.statistics import Health, Measured, Statistics

if TYPE_CHECKING:
    from aquipu.local.write.recovery import RecoveryReport

T = TypeVar("T")


class LocalEngine(Engine):
    """The files of one log, open for writing."""

    def __init__(
        self,
        path: str,
        options: Options,
        disk: Disk,
        loop: AbstractEventLoop,
        handoff: Handoff,
        opened: Opened,
    ) -> None:
        from aquipu.local.index.finder import Finder  # an import alone needs none of it

        journal, report, lock, page, self._generations = opened
        self.path = path
        self.policy = options.sync_policy
        self.limits = Limits(
            self.policy.stage,
            options.max_record_bytes,
            options.buffer_records,
            options.buffer_bytes,
        )
        self.handoff = handoff
        self.disk = disk
        self.recovery: RecoveryReport = report
        """What opening found and did."""
        self.next_sequence = self.synced_sequence = report.next_sequence
        self._loop = loop
        self._journal = journal
        self.latency = journal.latency
        self._max_segment_bytes = options.max_segment_bytes
        self._host = Host()
        self._failure: StoreFailedError | None = None
        self._is_closing = False
        self._reaching = Reaching(loop)
        self._age = AgeTimer(loop, self._sync_aged)
        self._publisher = Publisher(loop, journal, page, report.next_sequence)
        self._lags = LagMeter(disk, journal, self._publisher)
        self._worker = Worker(journal, lock, loop, handoff, self.policy.worker_patience)
        self._worker.aged = self._aged
        self._indexer = indexing(options, disk, self._worker, journal, report)
        self.finder = Finder(self._indexer.due, self._indexer.give_way)
        self._requests = Requests(loop, self._worker, self._answered)
        self._indexer.look(journal.segments)

    def attach(self, host: Host) -> None:
        self._host = host
        self.handoff.meanwhile = host.complete_meanwhile

    # commits

    def submit(self, commit: Commit[Any], done: Callable[[object], None], *, urgent: bool) -> None:
        self._expect_labels(commit)
        early = commit.whole and len(commit) >= LARGE
        self._worker.send(commit, done, at_once=urgent or early)
        if early:
            commit.write_receipts()

    def submit_again(self, commit: Commit[Any], done: Callable[[object], None]) -> None:
        self._expect_labels(commit)
        self._worker.repeat(commit, done)

    def _expect_labels(self, commit: Commit[Any]) -> None:
        keys = commit.keys
        if commit.labels or (keys and any(key.number & PRODUCERS for key in keys)):
            self._indexer.labelled(commit.first_sequence)

    def receive(self, commit: Commit[Any]) -> None:
        self.handoff.result()
        if isinstance(commit.outcome, CommitResult):
            self._publisher.begin(commit.outcome.next_sequence)
            self.next_sequence = commit.outcome.next_sequence
            self.synced_sequence = commit.outcome.synced_sequence

    def publish(self, commit: Commit[Any]) -> None:
        self._publisher.publish(commit.first_sequence, commit)

    def settle(self) -> None:
        self.handoff.settled()
        self._indexer.look(self._journal.segments)
        self._reaching.advance(self.synced_sequence)
        is_over = self._failure is not None or self._is_closing
        is_safe = is_over or self.next_sequence == self.synced_sequence
        self._age.watch(self.policy.loop_patience, is_safe=is_safe)

    def fail(self, failure: StoreFailedError) -> None:
        self._failure = failure
        self._publisher.fail(failure, self.synced_sequence)
        self._reaching.fail(failure)

    def _aged(self, outcome: CommitResult | AquipuError) -> None:
        """Take note of what the worker has done by itself: a roll, or letting go of the oldest."""
        if isinstance(outcome, StoreFailedError):
            self._host.fail(outcome)
        elif isinstance(outcome, CommitResult) and not self._is_closing:
            self._publisher.republish()  # the first sequence may be another
            self._indexer.look(self._journal.segments)
            synced_sequence = min(outcome.synced_sequence, self.next_sequence)
            self.synced_sequence = max(synced_sequence, self.synced_sequence)
            self._reaching.advance(self.synced_sequence)

    def _sync_aged(self) -> None:
        self._host.sync_soon()

    # the end

    def begin_closing(self) -> None:
        self._is_closing = True
        self._worker.expect_end()
        self._indexer.stop()
        self.finder.close(StoreClosedError(self.path))
        self._age.stop()

    def close(self, done: Callable[[CommitResult | AquipuError | None], None]) -> None:
        """Have the journal closed, when nothing is being built beside it any more."""
        if self._worker.outcome is not None:  # and an interrupt has kept us from hearing of it
            self._finished(done, self._worker.outcome)
        elif self._indexer.stop(partial(self._index_ended, done)):
            self.handoff.begin()
        else:
            self._worker.finish(partial(self._finished, done))

    def _index_ended(self, done: Callable[[CommitResult | AquipuError | None], None]) -> None:
        """Go on with closing; on the thread of the indexer."""
        try:
            self._loop.call_soon_threadsafe(self._index_left, done)
        except RuntimeError:  # the loop was closed under the store
            self._host.leave()
        self.handoff.done()

    def _index_left(self, done: Callable[[CommitResult | AquipuError | None], None]) -> None:
        self.handoff.end()
        self._worker.finish(partial(self._finished, done))

    def _finished(
        self,
        done: Callable[[CommitResult | AquipuError | None], None],
        outcome: CommitResult | AquipuError,
    ) -> None:
        self.handoff.rest()
        self._requests.refuse(StoreClosedError(self.path))
        if isinstance(outcome, CommitResult):
            self.synced_sequence = outcome.synced_sequence
            self._reaching.advance(self.synced_sequence)
        else:
            self._reaching.fail(outcome)
        if self._failure is None and isinstance(outcome, StoreFailedError):
            self._publisher.fail(outcome, self.synced_sequence)
        # behind the last commit that is published
        self._loop.call_soon(self._let_go, done, outcome)

    def _let_go(
        self,
        done: Callable[[CommitResult | AquipuError | None], None],
        outcome: CommitResult | AquipuError,
    ) -> None:
        self._publisher.end()
        done(outcome)

    def leave(self, commits: list[Commit[Any]]) -> bool:
        if self._worker.outcome is not None:
            return False
        self._indexer.stop()
        self.finder.close(StoreClosedError(self.path))
        self._worker.leave(commits)
        return True

    # what is there

    def progress(self) -> Progress:
        synced_sequence = self.synced_sequence  # first: it must not pass the other meanwhile
        return Progress(self.first_sequence, self.next_sequence, synced_sequence)

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record kept."""
        return self._journal.segments[0].first_sequence

    @property
    def last_time(self) -> int:
        return self._journal.last_time

    @property
    def generation(self) -> bytes:
        return self._generations.current

    def reader(self, face: Face) -> LocalReader:
        return LocalReader(self, face)

    def measure(self) -> Measured:
        journal = self._journal
        if not journal.is_measured:
            self._worker.wake()
        return Measured(
            len(journal.segments),
            journal.disk_bytes,
            journal.free_bytes,
            journal.failure is not None,
            self._lags.found if self._is_closing else self._lags.latest(),
        )

    def health(
        self, seen: Statistics, failure: str | None, min_free_bytes: int | None, max_seconds: float
    ) -> Health:
        if failure is None and self._journal.failure is not None:
            failure = str(self._journal.failure)
        if failure is None:
            self._journal.look_at_clock()
        least = 4 * self._max_segment_bytes if min_free_bytes is None else min_free_bytes
        return judge(
            seen,
            failure,
            troubles=self._journal.troubles.reasons,
            min_free_bytes=least,
            max_sync_seconds=max_seconds,
        )

    async def reached(self, stage: Stage, sequence: int) -> None:
        check_stage(stage)
        if sequence >= self.next_sequence:
            raise RecordNotWrittenError(self.path, sequence, self.next_sequence)
        while stage is Stage.SYNCED and sequence >= self.synced_sequence:
            self._host.check()
            if self.policy.within is not None:
                await self._reaching.wait(sequence)
            else:  # the policy might never sync it
                with suppress(StoreFullError):  # of records that were appended later
                    await self._host.sync()

    # what is kept

    async def roll(self) -> None:
        if not await self.ask(Journal.roll):
            reason = "; ".join(self._journal.troubles.reasons) or "tried again later"
            raise StoreUnavailableError(self.path, "roll", reason)
        self._indexer.look(self._journal.segments)

    async def purge(self, before: int | None, before_time: int | None, dry_run: bool) -> Purged:
        work = partial(Journal.purge, before=before, before_time=before_time, dry_run=dry_run)
        purged = await self._ask_in_turn(work)
        if not dry_run:
            with suppress(
                StoreClosedError, StoreFailedError
            ):  # what is left of the files goes at the next opening
                while await self.ask(Journal.delete_dropped):
                    pass
        return purged

    async def hold(self, name: str, sequence: int) -> None:
        if sequence > self.next_sequence:
            raise RecordNotWrittenError(self.path, sequence, self.next_sequence)
        await self._ask_in_turn(lambda journal: journal.set_hold(name, sequence))

    async def release(self, name: str) -> bool:
        return await self.ask(lambda journal: journal.remove_hold(name))

    async def holds(self) -> dict[str, int]:
        return await self.handoff.run(self._journal.holds)

    def cursor(self, name: str, face: Face, *, hold: bool) -> Cursor:
        store_id = self._journal.segments[-1].header.store_id
        return LocalCursor(name, self, store_id, face.check_owner, hold=hold)

    async def cursors(self) -> dict[str, Lag]:
        return await self.handoff.run(self._lags.look)

    async def ask(self, work: Callable[[Journal], T]) -> T:
        """Have something done with the journal, between two commits: see `Requests`."""
        self._host.check()
        return await self._requests.ask(work)

    async def _ask_in_turn(self, work: Callable[[Journal], T | None]) -> T:
        self._host.check()
        return await self._requests.ask_in_turn(work)

    def _answered(self, outcome: object) -> None:
        self.handoff.end()
        self._publisher.republish()  # a purge may have moved the first sequence
        if isinstance(outcome, StoreFailedError):
            self._host.fail(outcome)

    # what readers ask

    @property
    def _readable_until(self) -> int:
        return self.next_sequence if self._failure is None else self.synced_sequence

    async def snapshot(self) -> Snapshot:
        """Return everything that may be seen now."""
        segments = self._journal.segments
        return Snapshot(self.disk, segments, segments[0].first_sequence, self._readable_until)

    def published(self) -> Snapshot:
        """Return only what is acknowledged to every caller; from any thread.

        What may be seen is asked for before where.
        """
        until = self._publisher.acknowledged
        segments = self._journal.segments
        return Snapshot(self.disk, segments, segments[0].first_sequence, until)

    async def check_survived(self, generation: bytes, sequence: int) -> None:
        """Raise PositionLostError unless what was read in a generation up to there survived."""
        history = self._generations.history
        check_survived(self.path, history, generation, sequence, self.first_sequence)

    async def check_there(self, generation: bytes, sequence: int) -> None:
        """Raise PositionLostError as `check_survived`, and for what lies beyond the end."""
        await self.check_survived(generation, sequence)
        if sequence > self.next_sequence:
            raise PositionLostError(self.path, sequence, self.next_sequence)

    async def secure(self, sequence: int) -> None:
        """Have everything before a sequence on the disk.

        Raises RecordNotWrittenError for one beyond the end.
        """
        if sequence > self.next_sequence:
            raise RecordNotWrittenError(self.path, sequence, self.next_sequence)
        if sequence > self.synced_sequence:
            await self._host.sync()

    def followed(self, face: Face) -> Followed:
        return EngineFollowed(self, self._publisher, face)


async def open_engine(path: str, options: Options, disk: Disk) -> LocalEngine:
    """Open the files of the log in a directory; see `Store.open`."""
    loop = get_running_loop()
    handoff = Handoff(loop)
    opened = await open_files(path, options, disk, handoff)
    try:
        return LocalEngine(path, options, disk, loop, handoff, opened)
    except BaseException:  # no thread for the worker
        opened.drop()
        raise
