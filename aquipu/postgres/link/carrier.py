"""The one connection of a process that carries commits, until there is an answer to each.

A commit has a number of its writer, and the database remembers the last one with its answer. So
whatever leaves it unknown what became of a commit has it sent again, under the same number: a
connection that is lost, a server that is ended or cancels the call, and a standby that does not
confirm. The last one is treacherous: who cancels the wait for a standby gets *success*, and a mere
warning beside it. Here that warning counts as an answer that was lost.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Task, sleep, timeout
from contextlib import suppress
from time import monotonic
from typing import Any

from aquipu.errors import AquipuError, OutcomeUnknownError, StoreUnavailableError
from aquipu.postgres.link.connections import Connections, Pause
from aquipu.postgres.link.driver import (
    connect,
    is_connection_lost,
    is_passing,
    reason_of,
    translated,
)
from aquipu.runtime.exit import EXIT_SECONDS

APPEND = (
    "SELECT * FROM aquipu.append($1, $2, $3, $4, $5, $6,"
    " $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)"
)
_LOOK_AFTER = 1.0
"""Seconds without an answer until the server is asked what it is at."""
_LOOK_SECONDS = 10.0
"""Seconds until a server that does not say it counts as lost."""
_ACTIVITY = (
    "SELECT wait_event_type, wait_event, current_setting('synchronous_standby_names') AS standbys,"
    " (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')) AS synced"
    " FROM pg_stat_activity WHERE pid = $1"
)


class Carrier:
    """Carries one call after another. All of it belongs to the loop."""

    def __init__(
        self, dsn: str, path: str, loop: AbstractEventLoop, seconds: float, asking: Connections
    ) -> None:
        """Prepare; ``asking``: connections on which the server is asked what it is at."""
        self._dsn = dsn
        self._path = path
        self._loop = loop
        self._seconds = seconds
        self._asking = asking
        self._connection: Any = None
        self._warning: str | None = None
        self._watching: Task[None] | None = None
        self.since = 0.0
        """When the call was begun that is under way; 0 when none is."""
        self.obstacle: str | None = None
        """Why there is no answer yet, as far as is known."""
        self.away: str | None = None
        """Why the server could not be reached the last time."""
        self.is_closing = False

    async def call(self, arguments: tuple[Any, ...], following: int, is_confirmed: bool) -> Any:
        """Return the answer to a call of `aquipu.append`, sent as often as it takes.

        ``following``: the sequence that it would get. ``is_confirmed``: it must be seen afterwards,
        too, that the server waits for standbys. Raises OutcomeUnknownError when the server was away
        for too long and may have got it; StoreUnavailableError when it has not; what is refused.
        """
        pause, was_sent = Pause(self._seconds), False
        self.since = monotonic()
        self._watching = self._loop.create_task(self._watch())
        try:
            while True:
                try:
                    connection = await self._connected()
                    was_sent = True
                    answer = await self._call(connection, arguments, is_confirmed)
                    if answer is not None:
                        return answer
                    pause = Pause(self._seconds)  # the server is there
                except Exception as error:
                    self._lost(error)
                    if not is_passing(error):
                        raise translated(error, self._path, "append to", following) from error
                    if pause.is_over or (self.is_closing and pause.has_lasted(EXIT_SECONDS)):
                        raise self._given_up(error, was_sent) from error
                await pause.wait()
        finally:
            self.since, self.obstacle = 0.0, None
            self._watching.cancel()

    def _given_up(self, error: Exception, was_sent: bool) -> AquipuError:
        self.away = reason_of(error)
        if was_sent:
            return OutcomeUnknownError(self._path, self.away)
        return StoreUnavailableError(self._path, "reach the server of", self.away)

    async def _connected(self) -> Any:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._dsn, "read-write", self._warned)
        self.away = None
        return self._connection

    async def _call(self, connection: Any, arguments: tuple[Any, ...], is_confirmed: bool) -> Any:
        """Return the answer, or None when it says less than it seems to."""
        self._warning = None
        answer = await connection.fetchrow(APPEND, *arguments)
        if self._warning is not None:
            self.obstacle = f"the wait for the standby was cancelled: {self._warning}"
            return None
        if is_confirmed and not await connection.fetchval(
            "SELECT current_setting('synchronous_standby_names') <> ''"
        ):
            return None  # it was emptied meanwhile, and that ends all waits without a word
        return answer

    def _warned(self, _: Any, message: Any) -> None:
        """Take a warning of the server; only one about the wait for standbys is of interest."""
        if getattr(message, "server_source_filename", None) == "syncrep.c":
            self._warning = message.message

    def _lost(self, error: Exception) -> None:
        connection = self._connection
        if connection is not None and is_connection_lost(error, connection):
            self._connection = None
            connection.terminate()

    # what it waits for

    async def _watch(self) -> None:
        """Ask the server, now and then, what keeps it from an answer; hang up if it is gone."""
        while True:
            await sleep(_LOOK_AFTER)
            connection = self._connection
            if connection is None or connection.is_closed():
                continue
            pid = connection.get_server_pid()
            try:
                async with timeout(_LOOK_SECONDS):
                    row = await self._asking.ask(
                        lambda asked, pid=pid: asked.fetchrow(_ACTIVITY, pid)  # type: ignore[misc]
                    )
            except (AquipuError, TimeoutError):
                row = None
            if row is None:
                connection.terminate()  # unknown, so it is sent again on another
                continue
            self.obstacle = _obstacle(row)

    # the end

    async def hang_up(self) -> None:
        """End the connection, as politely as there is time for."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                await connection.close(timeout=1.0)

    def drop(self) -> None:
        """End the connection at once."""
        self.is_closing = True
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _obstacle(row: Any) -> str | None:
    """Return in words what a backend waits for."""
    kind, event, standbys, synced = row
    if event == "SyncRep":
        connected = f"{synced} of them connected" if synced else "none of them is connected"
        return f"the synchronous standby does not confirm ({standbys!r}; {connected})"
    if kind == "Lock":
        return "another writer of the log holds its head, and has not come to an end"
    return None
