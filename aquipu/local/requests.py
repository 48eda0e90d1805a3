"""What is done with the journal beside commits: each in its turn, between two of them."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import anyio

from aquipu.errors import AquipuError, copy_error
from aquipu.local.write.journal import Journal
from aquipu.local.write.worker import Worker

T = TypeVar("T")

_BUSY_PAUSE = 0.005  # seconds, while another process sets a hold


class Requests:
    """Those that are under way; belongs to the loop."""

    def __init__(
        self, loop: AbstractEventLoop, worker: Worker, answered: Callable[[object], None]
    ) -> None:
        """``answered`` is called with each outcome, before whoever asked goes on."""
        self._loop = loop
        self._worker = worker
        self._answered = answered
        self._waiting: set[Future[Any]] = set()

    async def ask(self, work: Callable[[Journal], T]) -> T:
        """Have something done with the journal.

        Cancelled, it is done all the same. Raises what the log answers with.
        """
        waiter: Future[T] = self._loop.create_future()
        self._waiting.add(waiter)
        try:
            self._worker.ask(work, partial(self._take, waiter))
            return await waiter
        finally:
            self._waiting.discard(waiter)

    async def ask_in_turn(self, work: Callable[[Journal], T | None]) -> T:
        """Ask, and again as long as another process sets a hold at that moment."""
        while True:
            answer = await self.ask(work)
            if answer:
                return answer
            await anyio.sleep(_BUSY_PAUSE)

    def refuse(self, error: AquipuError) -> None:
        """Fail those that are left: their answers were lost to an interrupt."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(copy_error(error))

    def _take(self, waiter: Future[T], outcome: T | AquipuError) -> None:
        self._answered(outcome)
        if waiter.done():
            return
        if isinstance(outcome, AquipuError):
            waiter.set_exception(copy_error(outcome))
        else:
            waiter.set_result(outcome)
