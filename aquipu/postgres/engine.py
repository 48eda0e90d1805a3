"""The engine that is a PostgreSQL database: commits go there as calls of one function.

What is appended in the same moment travels as one call, and so do appends with a key or an expected
sequence, on which the database decides: each is a group of its own in it. One call is under way at
a time. What comes meanwhile goes with the next one.
"""

from __future__ import annotations

import math
from asyncio import AbstractEventLoop, CancelledError, Task, TimerHandle
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns, time_ns
from typing import Any

from aquipu.engine import Commit, CommitResult, Host, Limits, Progress
from aquipu.errors import (
    AquipuError,
    OutcomeUnknownError,
    RecordNotWrittenError,
    StoreClosedError,
    StoreFullError,
    StoreUnavailableError,
    copy_error,
)
from aquipu.policy import EveryN, Stage, SyncPolicy
from aquipu.postgres.address import Address
from aquipu.postgres.calls import Call, Waiting, arguments_of
from aquipu.postgres.confirming import Confirmer
from aquipu.postgres.keeping import Keeping, LagMeter
from aquipu.postgres.link.carrier import Carrier
from aquipu.postgres.link.driver import settled
from aquipu.postgres.link.leaving import leave
from aquipu.postgres.log import Head, Log
from aquipu.postgres.moving import Mover
from aquipu.postgres.read.reader import PostgresReader
from aquipu.reading import Face
from aquipu.record import Guarded, Receipt
from aquipu.runtime.counting import Latency
from aquipu.runtime.trouble import Troubles, judge
from aquipu.statistics import Health, Measured, Statistics

_GUARDED_MAX = 256
"""Appends with a key or an expected sequence that travel in one call."""
_HINT_SECONDS = 0.01
"""Between two hints to followers in other processes: each takes a lock of the whole server."""


class _Counting(SyncPolicy):
    """The policy of a log of which the database counts what is not synced, of all that write it."""

    def __init__(self, policy: SyncPolicy) -> None:
        self.stage = policy.stage  # type: ignore[misc]
        self.within = policy.within

    def owes_sync(self, unsynced: int, arriving: int) -> bool:
        return False


class PostgresEngine(Keeping):
    """A log in a database."""

    fails_for_good = False  # the server may be back, so later calls ask it
    decides = True

    def __init__(
        self,
        log: Log,
        carrier: Carrier,
        policy: SyncPolicy,
        limits: Limits,
        writer: bytes,
        address: Address,
        standbys: str,
    ) -> None:
        """Prepare to write a log; ``writer``: an id of this process that no other has.

        ``standbys``: the ``synchronous_standby_names`` of the server.
        """
        self.path = log.path
        self.policy = _Counting(policy)
        self._every = policy.n if isinstance(policy, EveryN) else None
        self.limits = limits
        self.latency = Latency()
        self.log = log
        self._carrier = carrier
        self._loop: AbstractEventLoop = log.loop
        self._writer = writer
        self._dsn = address.dsn
        self._mode = address.mode
        self._standbys = standbys
        self._confirmer: Confirmer | None = None
        self._mover = Mover(log, address.mode)
        self._mover.begin()
        self._number = 0  # of the last call that was made ready
        self._syncs = 0
        self._host = Host()
        self._commit: Commit[Any] | None = None  # that is under way
        self._guarded: list[Waiting] = []
        self._call: Call | None = None
        self._carrying: Task[None] | None = None
        self._timer: TimerHandle | None = None  # for the bound in time of what is not synced
        self._hinting: TimerHandle | None = None
        self._hint: Task[None] | None = None
        self._trouble: AquipuError | None = None  # since closing began
        self._is_over = False
        self._troubles = Troubles()
        self._lags = LagMeter(log)

    def attach(self, host: Host) -> None:
        self._host = host

    # commits

    def submit(self, commit: Commit[Any], done: Callable[[object], None], *, urgent: bool) -> None:
        self._commit = commit
        self.latency.since = monotonic_ns()
        self._begin()

    def submit_again(self, commit: Commit[Any], done: Callable[[object], None]) -> None:
        self._commit = commit
        self._begin()

    async def append_guarded(self, batch: Guarded) -> list[Receipt]:
        waiting = Waiting(batch, time_ns(), self._loop.create_future())
        self._guarded.append(waiting)
        self._begin()
        return await waiting.receipts

    def receive(self, commit: Commit[Any]) -> None:
        self._commit = None
        self._host.complete_soon()  # a caller may run the loop, and wait for others

    def publish(self, commit: Commit[Any]) -> None:
        self.log.wake()
        if self._hinting is None and not self._is_over:
            self._hinting = self._loop.call_later(_HINT_SECONDS, self._send_hint)

    def _begin(self) -> None:
        if self._carrying is None or self._carrying.done():
            self._carrying = self._loop.create_task(self._carry())

    async def _carry(self) -> None:
        """Carry to the database what there is, one call after another."""
        try:
            while call := self._next_call():
                following = self.log.progress.next_sequence
                answer = await self._carrier.call(call.arguments, following, call.is_confirmed)
                self._deliver(call, answer)
        except AquipuError as error:
            self._refused(error)
        except CancelledError:  # the loop is ending
            self._refused(StoreUnavailableError(self.path, "write", "the program is ending"))
            raise
        except Exception as error:  # whatever it is: nobody may be left waiting
            self._refused(
                StoreUnavailableError(self.path, "append to", f"{type(error).__name__}: {error}")
            )
        finally:
            self._carrying = None

    def _arguments(
        self, number: int, commit: Commit[Any] | None, guarded: list[Waiting]
    ) -> tuple[Any, ...]:
        return arguments_of(
            (self.log.number, self._writer, number),
            commit,
            guarded,
            every=self._every,
            mode=self._mode,
        )

    def _next_call(self) -> Call | None:
        """Return what is to be carried next: first what was under way and has no answer."""
        if self._call is None:
            commit = self._commit
            if commit is not None and commit.outcome is not None:
                commit = None
            guarded = self._guarded[:_GUARDED_MAX]
            if commit is not None or guarded:
                del self._guarded[: len(guarded)]
                self._number += 1
                arguments = self._arguments(self._number, commit, guarded)
                self._call = Call(self._number, commit, guarded, arguments)
        return self._call

    @property
    def stage_max(self) -> Stage:  # type: ignore[override]
        """REPLICATED where a synchronous standby confirms commits, as the server said last."""
        return Stage.REPLICATED if self._standbys else Stage.SYNCED

    # answers

    def _deliver(self, call: Call, answer: Any) -> None:
        """Give everyone what came of a call."""
        self._call = None
        now = monotonic_ns()
        is_synced: bool = answer["o_is_synced"]
        self._standbys = answer["o_standbys"]
        if is_synced:
            self._syncs += 1
            if self.latency.since:
                self.latency.synced(now - self.latency.since, now)
        self.latency.since = 0
        self.log.note(
            Head(
                *(answer["o_first"], answer["o_next"], answer["o_synced"]),
                answer["o_generation"],
            )
        )
        outcomes = list(
            zip(
                *(answer[name] for name in ("o_outcomes", "o_firsts", "o_counts", "o_times")),
                strict=True,
            )
        )
        commit = call.commit
        if commit is not None:
            if commit.payloads:
                _, commit.first_sequence, _, floor = outcomes.pop(0)
                if floor:
                    commit.level(floor)
            commit.sync = is_synced
            synced = answer["o_synced"]
            commit.outcome = CommitResult(answer["o_next"], synced, self._syncs)
            self._troubles.end("space")
            self._host.complete_soon()
        for waiting, outcome in zip(call.guarded, outcomes, strict=True):
            synced = math.inf if is_synced else answer["o_synced"]
            waiting.answer(self.path, outcome, synced)
        if call.guarded:
            self.publish(Commit())
        self._bound_age(is_synced)

    def _refused(self, error: AquipuError) -> None:
        """Give everyone of the call under way an error; if it is not known, those who wait, too."""
        call, self._call = self._call, None
        self.latency.since = 0
        if isinstance(error, StoreFullError):
            self._troubles.begin("space", f"the last commit was refused: {error.reason}")
        self._trouble = error
        guarded = [] if call is None else call.guarded
        commit = None if call is None else call.commit
        if isinstance(error, StoreFullError):
            if commit is not None:
                commit.outcome = error
                self._host.complete_soon()
        else:
            guarded, self._guarded = [*guarded, *self._guarded], []
            was_sent = isinstance(error, OutcomeUnknownError)
            away: AquipuError = error
            if was_sent:
                away = StoreUnavailableError(
                    self.path, "reach the server of", str(self._carrier.away)
                )
            self._host.give_up(error if was_sent else None, away)
            self._commit = None
        for waiting in guarded:
            if not waiting.receipts.done():
                waiting.receipts.set_exception(copy_error(error))

    def _bound_age(self, is_synced: bool) -> None:
        """Have what is not synced synced in time, where the policy bounds its age."""
        if is_synced and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        elif not is_synced and self._timer is None and self.policy.loop_patience is not None:
            self._timer = self._loop.call_later(self.policy.loop_patience, self._sync_due)

    def _sync_due(self) -> None:
        self._timer = None
        self._host.sync_soon()

    def _send_hint(self) -> None:
        """Tell followers in other processes that there is something new."""
        self._hinting = None
        if not self._is_over and (self._hint is None or self._hint.done()):
            self._hint = self._loop.create_task(self._tell())

    async def _tell(self) -> None:
        log = self.log
        with suppress(AquipuError):  # a follower looks by itself every now and then
            await log.asking.ask(
                lambda connection: connection.execute("SELECT pg_notify($1, '')", log.channel)
            )

    # the end

    def begin_closing(self) -> None:
        if not self.log.is_closing:
            self._trouble = None
        self._carrier.is_closing = True
        self.log.begin_closing()

    @property
    def owes_last_sync(self) -> bool:
        return self._trouble is None  # of what was only flushed

    def close(self, done: Callable[[CommitResult | AquipuError | None], None]) -> None:
        self._loop.create_task(self._hang_up(done))

    async def _hang_up(self, done: Callable[[CommitResult | AquipuError | None], None]) -> None:
        try:
            if self._hinting is not None and self._trouble is None:
                await self._tell()
            await self._carrier.hang_up()
        finally:
            self.drop()
            try:
                await settled()
            finally:
                done(self._trouble)

    def drop(self) -> None:
        """Let go of everything at once."""
        self._is_over = True
        for timer in (self._timer, self._hinting):
            if timer is not None:
                timer.cancel()
        self._timer = self._hinting = None
        self._carrier.drop()
        self._mover.drop()
        if self._confirmer is not None:
            self._confirmer.drop()
        self.log.close()
        for waiting in self._guarded:
            if not waiting.receipts.done():
                waiting.receipts.set_exception(StoreClosedError(self.path))

    def leave(self, commits: list[Commit[Any]]) -> bool:
        if self._is_over:
            return False
        self._is_over = True
        calls = [] if self._call is None else [self._call.arguments]
        under_way = None if self._call is None else self._call.commit
        number = self._number
        for commit in commits:
            if commit.payloads and commit is not under_way and commit.outcome is None:
                number += 1
                commit.sync = True
                calls.append(self._arguments(number, commit, []))
        with suppress(RuntimeError):  # the loop was closed under the store
            self._loop.call_soon_threadsafe(self._abandon)
        if calls:
            leave(self.path, self._dsn, calls)
        return True

    def _abandon(self) -> None:
        if self._carrying is not None:
            self._carrying.cancel()
        self.drop()

    # what is there

    def progress(self) -> Progress:
        """Return how far the log reaches, for all that write it, as the server said last."""
        return self.log.progress

    @property
    def generation(self) -> bytes:
        return self.log.generation

    def reader(self, face: Face) -> PostgresReader:
        return PostgresReader(self.log, face)

    def measure(self) -> Measured:
        return Measured(cursors=self._lags.latest())

    def health(
        self, seen: Statistics, failure: str | None, min_free_bytes: int | None, max_seconds: float
    ) -> Health:
        obstacle = self._carrier.obstacle
        return judge(
            seen,
            self._carrier.away,
            troubles=(*self._troubles.reasons, *([] if obstacle is None else [obstacle])),
            min_free_bytes=0,
            max_sync_seconds=max_seconds,
            behind="server",
        )

    async def reached(self, stage: Stage, sequence: int) -> None:
        if sequence >= self.log.progress.next_sequence:
            following = (await self.log.head()).next_sequence
            if sequence >= following:
                raise RecordNotWrittenError(self.path, sequence, following)
        if stage is Stage.ARCHIVED:
            raise ValueError("Stage.ARCHIVED is for a store that is opened with an archive")
        if stage is Stage.REPLICATED:
            if self._confirmer is None:
                self._confirmer = Confirmer(self.log, self._dsn, self._mode)
            await self._confirmer.confirm()
        elif stage is Stage.SYNCED and sequence >= self.log.progress.synced_sequence:
            await self._host.sync()

    async def roll(self) -> None:
        """Do nothing: a purge is exact to the batch, and needs no segment to end before it."""
