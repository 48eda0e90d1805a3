"""Clients that come back: who is cut off connects again, and asks for something else.

Nothing is asked for twice, so what is stored twice is the service's doing. Whatever a service
answers must be a success, unless it is forced to end; what it cannot do at the moment it may only
not begin.

Clients hang up now and then. uvicorn that is told to end asks the connections that it has then to
end with it; one that it accepts in that moment is overlooked, and as long as its client goes on
asking, uvicorn goes on answering.
"""

from __future__ import annotations

import asyncio
from asyncio import (
    Condition,
    IncompleteReadError,
    Task,
    create_task,
    gather,
    open_connection,
    sleep,
)
from itertools import count, islice
from time import monotonic
from types import TracebackType
from typing import Self

from benchmarks.load import answer
from tests.services.client import signature

CONNECTIONS = 16
PATIENCE = 60.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""
_REQUESTS = 50
"""Of one connection, until its client hangs up by itself and connects anew."""
_PAUSE = 0.02  # between two attempts to connect


class Load:
    """So many connections that sign one document after another, for the time of the block, and what
    they were told.
    """

    def __init__(self, port: int, *, forced: bool = False) -> None:
        """``forced``: the service may answer that it has failed, which is no answer."""
        self.answered: set[int] = set()
        self.longest_pause = 0.0
        """The longest time in which nobody was answered, in seconds."""
        self._answered_at: float | None = None
        self._port = port
        self._cut_off: tuple[type[Exception], ...] = (OSError, IncompleteReadError) + (
            RuntimeError,
        ) * forced
        self._numbers = count()
        self._news = Condition()
        self._tasks: list[Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [create_task(self._come_back()) for _ in range(CONNECTIONS)]
        await self.answers()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await gather(*self._tasks, return_exceptions=True):
            if error is None and isinstance(outcome, Exception):
                raise outcome

    async def answers(self, more: int = 5 * CONNECTIONS) -> None:
        """Wait until so many more have been answered; raises at once what somebody was told that is
        no success.
        """
        wanted = len(self.answered) + more
        async with asyncio.timeout(PATIENCE), self._news:
            await self._news.wait_for(
                lambda: len(self.answered) >= wanted or any(task.done() for task in self._tasks)
            )
        for task in self._tasks:
            if task.done():
                task.result()

    async def _come_back(self) -> None:
        while True:
            try:
                await self._sign()
            except self._cut_off:
                await sleep(_PAUSE)
            finally:
                await self._tell()

    async def _sign(self) -> None:
        reader, writer = await open_connection("127.0.0.1", self._port)
        try:
            for number in islice(self._numbers, _REQUESTS):
                writer.write(signature(number))
                await answer(reader)
                self._note(number)
                await self._tell()
        finally:
            writer.close()

    def _note(self, number: int) -> None:
        now = monotonic()
        self.answered.add(number)
        if self._answered_at is not None:
            self.longest_pause = max(self.longest_pause, now - self._answered_at)
        self._answered_at = now

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()
