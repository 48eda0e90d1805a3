"""The connections for questions: a few, made when they are needed, and made anew when lost.

A question changes nothing, or the same thing when it is asked twice, so one whose connection was
lost is asked again, for a time that has an end. What is asked of a server that does not answer at
all ends with its connection after `ANSWER_SECONDS`.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Semaphore, sleep, timeout
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, TypeVar

from aquipu.errors import AquipuError, StoreClosedError, StoreUnavailableError
from aquipu.postgres.link.driver import (
    connect,
    is_connection_lost,
    is_passing,
    reason_of,
    translated,
)

T = TypeVar("T")

CONNECTIONS_MAX = 4
"""Questions of one log under way at a time."""
ANSWER_SECONDS = 60.0
"""Seconds until a server that says nothing counts as lost."""
_PAUSE = 0.01  # seconds between two attempts, doubling
_PAUSE_MAX = 0.25

Question = Callable[[Any], Awaitable[T]]
"""What is asked, given a connection."""


class Pause:
    """The pauses between attempts, until a deadline."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline: float | None = None
        self._next = _PAUSE

    @property
    def is_over(self) -> bool:
        """Whether the time is over that began with the first attempt that failed."""
        return self._deadline is not None and monotonic() >= self._deadline

    def has_lasted(self, seconds: float) -> bool:
        """Return whether the first attempt failed so long ago."""
        begun = None if self._deadline is None else self._deadline - self._seconds
        return begun is not None and monotonic() - begun >= seconds

    async def wait(self) -> None:
        """Wait for the next attempt; the first failed one begins the time."""
        if self._deadline is None:
            self._deadline = monotonic() + self._seconds
        await sleep(max(min(self._next, self._deadline - monotonic()), 0))
        self._next = min(2 * self._next, _PAUSE_MAX)


class Connections:
    """To one server, or the one of several that is right. All of it belongs to the loop."""

    def __init__(
        self, dsn: str, session: str, path: str, loop: AbstractEventLoop, seconds: float
    ) -> None:
        """Prepare connections; errors name the ``path``.

        ``seconds``: how long the server may be away before a question fails.
        """
        self.path = path
        self._dsn = dsn
        self._session = session
        self._loop = loop
        self.seconds = seconds
        self._idle: list[Any] = []
        self._used: set[Any] = set()
        self._permits = Semaphore(CONNECTIONS_MAX)
        self._is_closed = False

    async def ask(self, question: Question[T], action: str = "read") -> T:
        """Return what a question gives; it is asked again when its connection was lost.

        Raises StoreUnavailableError, StoreClosedError, and what the question raises of this
        package.
        """
        pause = Pause(self.seconds)
        async with self._permits:
            while True:
                if self._is_closed:
                    raise StoreClosedError(self.path)
                try:
                    return await self._ask(question)
                except AquipuError:
                    raise
                except Exception as error:
                    if self._is_closed:
                        raise StoreClosedError(self.path) from None
                    if not is_passing(error) or pause.is_over:
                        raise translated(error, self.path, action, None) from error
                await pause.wait()

    async def _ask(self, question: Question[T]) -> T:
        connection = self._idle.pop() if self._idle else None
        while connection is not None and connection.is_closed():
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = await connect(self._dsn, self._session)
        self._used.add(connection)
        is_sound = False
        try:
            async with timeout(ANSWER_SECONDS):
                answer = await question(connection)
            is_sound = True
            return answer
        except AquipuError:
            is_sound = True
            raise
        except Exception as error:
            is_sound = not is_connection_lost(error, connection)
            raise
        finally:
            self._used.discard(connection)
            if is_sound and not self._is_closed and not connection.is_closed():
                self._idle.append(connection)
            else:
                connection.terminate()

    def drop_idle(self) -> None:
        """Make the connections anew: the server that they lead to may be another one by now."""
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()

    def close(self) -> None:
        """End all connections. What is under way gets StoreClosedError."""
        self._is_closed = True
        for connection in (*self._idle, *self._used):
            connection.terminate()
        self._idle.clear()


async def first_answer(
    connections: Connections, question: Question[T], action: str, seconds: float
) -> T:
    """Return what a question gives, within so many seconds; StoreUnavailableError after that."""
    try:
        async with timeout(seconds):
            return await connections.ask(question, action)
    except TimeoutError as error:
        raise StoreUnavailableError(connections.path, action, reason_of(error)) from error
