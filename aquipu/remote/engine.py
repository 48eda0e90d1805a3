"""The engine that is a daemon's socket: commits go there as messages, and answers bring them back.

A commit goes to the daemon as one message, and one answer brings it back. So what a process appends
in the same moment travels together, and the daemon joins what all processes send. A connection that
is lost is made anew (see `connection`), and the commit under way then is not sent again before the
daemon has said that it does not have it.
"""

from __future__ import annotations

import sys
from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from logging import getLogger
from time import monotonic_ns
from typing import Any, TypeVar

import anyio

from aquipu.engine import Commit, CommitResult, Host, Limits, Progress
from aquipu.errors import (
    AquipuError,
    OutcomeUnknownError,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
)
from aquipu.local.disk.system import random_bytes
from aquipu.policy import OsManaged, Stage
from aquipu.reading import Face
from aquipu.record import Guarded, Lag, Receipt
from aquipu.remote.condition import Condition
from aquipu.remote.connection import PURGED, Client, Connection, path_in
from aquipu.remote.guarded import GuardedAppends
from aquipu.remote.lags import Lags, lags_in
from aquipu.remote.leaving import Sent, deliver_or_say, leave
from aquipu.remote.protocol import (
    VERSION,
    Head,
    Message,
    Stored,
    Welcome,
    WireError,
    raise_if_error,
    records_of_commit,
    refused_in,
    stored_in,
    value_in,
)
from aquipu.remote.reader import RemoteCursor, RemoteReader
from aquipu.remote.upkeep import Upkeep
from aquipu.runtime.counting import Latency
from aquipu.runtime.trouble import Troubles, judge
from aquipu.statistics import Health, Measured, Statistics

T = TypeVar("T")

_log = getLogger(__name__)


class RemoteEngine(Upkeep):
    """A log that a daemon writes."""

    fails_for_good = False  # the daemon may open its store again, so later calls ask it
    decides = True

    def __init__(
        self,
        address: str,
        socket: str,
        loop: AbstractEventLoop,
        seconds: float,
        buffer_records: int,
        buffer_bytes: int,
    ) -> None:
        """Prepare for a daemon at the path of a socket; errors name the ``address``."""
        self.path = address
        self._socket = socket
        self.policy = OsManaged()  # it is the daemon that decides what owes a sync
        self.limits = Limits(Stage.SYNCED, 0, buffer_records, buffer_bytes)
        self.latency = Latency()
        self._asked_for = self.limits  # the daemon may have narrower bounds
        self._loop = loop
        self._writer = random_bytes(16)
        self._number = 0  # of the last commit with records that was under way, or is
        self._was_sent = False  # the commit under way, perhaps through a connection that was lost
        self._floor = 0  # the commit under way, if it was sent, has no sequence below
        self._progress = Progress(0, 0, 0)
        self._generation = ""
        self._trouble: AquipuError | None = None  # since closing began
        self._away: AquipuError | None = None  # why the daemon could not be reached the last time
        self.is_closing = self._is_over = False
        self._commit: Commit[Any] | None = None  # that is under way
        self._host = Host()
        client = Client(
            self._hello,
            self._welcome,
            self._note_progress,
            self._give_up,
            self._lost,
            self._serve,
        )
        self.connection = Connection(address, socket, loop, seconds, client)
        self._condition = Condition(self.connection, loop)
        self._lags = Lags(self.connection, loop)
        self._guarded = GuardedAppends(self.connection, loop, self.progress)
        self._troubles = Troubles()

    def attach(self, host: Host) -> None:
        self._host = host

    async def call(self, do: str, **arguments: Any) -> Any:
        """Have the daemon do something; return what it says."""
        return await self.ask(_value_in, do, **arguments)

    async def ask(self, understood: Callable[[Message], T], do: str, **arguments: Any) -> T:
        """Ask the daemon, and return its answer as it is understood.

        Raises StoreUnavailableError, and what the daemon says is wrong.
        """
        message = await self.connection.ask({"do": do, **arguments})
        try:
            return understood(message)
        except WireError as error:
            raise StoreUnavailableError(
                self.path, "understand the daemon at", str(error)
            ) from error

    # commits

    def submit(self, commit: Commit[Any], done: Callable[[object], None], *, urgent: bool) -> None:
        self._commit = commit
        if commit.payloads:
            self._number += 1
        self._was_sent = False
        self.latency.since = monotonic_ns()
        self._send()

    def _send(self) -> None:
        """Send the commit under way, or have the way for it made."""
        commit = self._commit
        assert commit is not None
        if self.connection.is_up:
            if not self._was_sent:
                self._floor = self._progress.next_sequence
            self._was_sent = True
            self.connection.send(*self._message_of(commit, self._number), self._answered)
        else:
            self.connection.reach()

    def _message_of(self, commit: Commit[Any], number: int) -> tuple[Head, list[bytes]]:
        head = {
            "do": "commit",
            "number": number,
            "stage": Stage.SYNCED if commit.sync else Stage.FLUSHED,
        }
        if not commit.payloads:
            return head, []
        return head, records_of_commit(commit.payloads, commit.timestamps, commit.labels)

    def _answered(self, message: Message | None) -> None:
        """Take the answer about the commit under way.

        None when the connection was lost before that was said.
        """
        if message is None:
            self.connection.reach()
            return
        try:
            if refused := refused_in(message.head, self._records_under_way, self.path):
                self._part(refused)
                return
            raise_if_error(message.head, self.path)
            stored = stored_in(message.head)
        except AquipuError as error:
            self._come_back(error)
        except WireError as error:
            self._come_back(
                OutcomeUnknownError(self.path, f"the daemon's answer cannot be understood, {error}")
            )
        except Exception as error:  # what the daemon refuses
            self._come_back(StoreUnavailableError(self.path, "append to", str(error)))
        else:
            self._complete(stored)

    @property
    def _records_under_way(self) -> int:
        return 0 if self._commit is None else len(self._commit)

    def _part(self, refused: dict[int, Exception]) -> None:
        """Send the others again: the daemon stored nothing of the commit, because of these."""
        self._host.refuse(refused)
        self._number += self._records_under_way > 0
        self._was_sent = False
        self._send()

    def _complete(self, stored: Stored) -> None:
        """Complete the commit under way: it is in the log."""
        commit = self._commit
        assert commit is not None
        if commit.payloads:
            commit.first_sequence = stored.first
        following = commit.first_sequence + len(commit)
        commit.timestamps = [stored.time] * len(commit)
        commit.sync = stored.stage is Stage.SYNCED
        synced = following if commit.sync else min(self._progress.synced_sequence, following)
        self._come_back(CommitResult(following, synced, 0))

    def _come_back(self, outcome: CommitResult | AquipuError) -> None:
        """Take back the commit under way, which has come back.

        Its callers go on in the next tick: what has brought it may have more.
        """
        commit = self._commit
        assert commit is not None
        self.latency.since = 0
        if isinstance(outcome, StoreFullError):
            self._troubles.begin("space", f"the last commit was refused: {outcome.reason}")
        elif isinstance(outcome, CommitResult) and commit.payloads:
            self._troubles.end("space")
        is_last = isinstance(outcome, StoreFailedError) or not commit.payloads
        if isinstance(outcome, AquipuError) and self.is_closing and is_last:
            self._trouble = outcome
        commit.outcome = outcome
        self._host.complete_soon()

    def submit_again(self, commit: Commit[Any], done: Callable[[object], None]) -> None:
        """Ask the next connection for the outcome of what was sent, and so not send it twice."""
        self._commit = commit
        if not self._was_sent or not self.connection.is_up:
            self._send()

    async def append_guarded(self, batch: Guarded) -> list[Receipt]:
        return await self._guarded.append(batch)

    def interrupted(self) -> None:
        if not isinstance(sys.exception(), Exception):  # what was being sent or heard may be lost
            self.connection.renew()

    def receive(self, commit: Commit[Any]) -> None:
        self._commit = None
        self._host.complete_soon()  # a caller may run the loop, and wait for others

    # called by the connection

    def _hello(self) -> Head:
        head: Head = {"hello": VERSION, "writer": self._writer.hex()}
        commit = self._commit
        if commit is not None and commit.payloads and self._was_sent:
            head |= {"number": self._number, "floor": self._floor}
        return head

    def _welcome(self, welcome: Welcome) -> None:
        self._away = None
        self._condition.forget()
        self._note_progress(welcome.standing)
        self._generation = welcome.generation
        self.limits = Limits(
            welcome.stage,
            welcome.max_record_bytes,
            min(self._asked_for.buffer_records, welcome.buffer_records),
            min(self._asked_for.buffer_bytes, welcome.buffer_bytes),
        )
        self._host.keep_within(self.limits)
        if self._commit is None or self._commit.outcome is not None:
            return
        if isinstance(welcome.outcome, Stored):
            self._complete(welcome.outcome)
        elif welcome.outcome == "unknown":
            self._come_back(OutcomeUnknownError(self.path, PURGED))
        else:
            self._was_sent = False  # and if it was, the daemon does not have it
            self._send()

    def _note_progress(self, progress: tuple[int, int, int]) -> None:
        self._progress = Progress(*progress)

    def _give_up(self, error: AquipuError) -> None:
        """Fail everything that waits: the daemon cannot be reached."""
        self._away = self._trouble = error
        self.latency.since = 0
        commit = self._commit
        was_sent = commit is not None and bool(commit.payloads) and self._was_sent
        of_commit = OutcomeUnknownError(self.path, str(error)) if was_sent else None
        self._host.give_up(of_commit, error)
        self._commit = None

    def _lost(self) -> None:
        """Take note that the connection was lost; it is made anew when it is needed."""

    async def _serve(self) -> AquipuError | None:
        """Leave it to a daemon to serve: it may be about to be started."""
        return None

    # the end

    def begin_closing(self) -> None:
        if not self.is_closing:
            self._trouble = None
        self.is_closing = True
        self.connection.hasten()

    @property
    def owes_last_sync(self) -> bool:
        return self._trouble is None  # of what was only flushed

    def close(self, done: Callable[[CommitResult | AquipuError | None], None]) -> None:
        self.drop()
        done(self._trouble)

    def drop(self) -> None:
        """Hang up."""
        self._is_over = True
        self._condition.close()
        self.connection.close()

    def leave(self, commits: list[Commit[Any]]) -> bool:
        """Bring to the daemon what was accepted, on a thread of its own."""
        if self._is_over:
            return False
        self._is_over = True
        under_way = self._commit if self._commit in commits else None
        is_numbered = under_way is not None and bool(under_way.payloads)
        numbers = count(self._number + (not is_numbered))
        messages = [
            self._message_of(commit, next(numbers)) for commit in commits if commit.payloads
        ]
        with suppress(RuntimeError):  # the loop was closed under the store
            self._loop.call_soon_threadsafe(self.connection.close)
        if messages:
            leave(self._delivery(messages))
        return True

    def _delivery(self, messages: list[Sent]) -> Callable[[float], None]:
        """Return what brings these commits to the daemon, until a deadline."""
        return partial(deliver_or_say, self.path, self._socket, self._hello(), messages)

    # what is there

    def progress(self) -> Progress:
        """Return how far the log reaches, for all that write it, as the daemon said last."""
        return self._progress

    @property
    def generation(self) -> bytes:
        return bytes.fromhex(self._generation)

    def reader(self, face: Face) -> RemoteReader:
        return RemoteReader(self, face)

    def measure(self) -> Measured:
        return Measured(cursors=self._lags.latest())  # the daemon syncs, and has the files

    def health(
        self, seen: Statistics, failure: str | None, min_free_bytes: int | None, max_seconds: float
    ) -> Health:
        self._condition.watch()
        return judge(
            seen,
            self._condition.failure if self._away is None else str(self._away),
            troubles=(*self._troubles.reasons, *self._condition.reasons),
            min_free_bytes=0,
            max_sync_seconds=max_seconds,
            behind="daemon",
        )

    # what is kept

    def cursor(self, name: str, face: Face, *, hold: bool) -> RemoteCursor:
        return RemoteCursor(self, face, name, hold=hold)

    async def cursors(self) -> dict[str, Lag]:
        return await self.ask(lags_in, "cursors")


async def open_engine(
    address: str, seconds: float, buffer_records: int, buffer_bytes: int
) -> RemoteEngine:
    """Connect to the daemon at an address; see `Store.connect`."""
    loop = get_running_loop()
    engine = RemoteEngine(address, path_in(address), loop, seconds, buffer_records, buffer_bytes)
    # brings in what closing needs: later there may be no descriptor left to import it
    anyio.CancelScope()
    try:
        await engine.connection.reached()
    except BaseException:
        engine.drop()
        raise
    return engine


def _value_in(message: Message) -> Any:
    return value_in(message.tail)
