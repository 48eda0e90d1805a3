"""The batcher that a careful user writes by hand: what gathers while the disk is busy is written
and synced together.
"""

from __future__ import annotations

from asyncio import Future, Task, create_task, get_running_loop
from collections.abc import Awaitable, Callable

Write = Callable[[list[bytes]], Awaitable[object]]
"""Makes a batch durable."""


class Batcher:
    """Has the `append` of a store, over any `Write`."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._loop = get_running_loop()
        self._waiting: list[tuple[bytes, Future[None]]] = []
        self._task: Task[None] | None = None

    async def append(self, data: bytes) -> None:
        done: Future[None] = self._loop.create_future()
        self._waiting.append((data, done))
        if self._task is None:
            self._task = create_task(self._drain())
        await done

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._write([data for data, _ in batch])
            except Exception as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)
        self._task = None
