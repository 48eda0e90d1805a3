"""What asyncio itself allows: the same tasks and futures, resolved by a thread that touches no
file.

Each caller awaits one bare future. At the end of the tick all of them are handed to a thread in one
list, and come back with one ``call_soon_threadsafe``. Nothing that gives each caller a future of
its own and returns from another thread can be faster.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from benchmarks.workload import Append


class Ceiling:
    """Has the `append` of a store, and nothing behind it."""

    def __init__(self) -> None:
        self._loop = get_running_loop()
        self._forming: list[Any] = []
        self._busy = False  # a group is with the thread, or leaves at the end of this tick
        self._inbox: SimpleQueue[list[Any] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()

    async def append(self, data: bytes) -> None:
        return await self._accept(data)

    def _accept(self, data: bytes) -> Future[None]:
        waiter: Future[None] = self._loop.create_future()
        self._forming.append(waiter)
        if not self._busy:
            self._schedule()
        return waiter

    def _schedule(self) -> None:
        self._busy = True
        self._loop.call_soon(self._submit)

    def _submit(self) -> None:
        group, self._forming = self._forming, []
        self._inbox.put(group)

    def _completed(self, group: list[Any]) -> None:
        self._acknowledge(group)
        self._busy = False
        if self._forming:
            self._schedule()

    def _acknowledge(self, group: list[Future[None]]) -> None:
        for waiter in group:
            if not waiter.done():
                waiter.set_result(None)

    def _run(self) -> None:
        while (group := self._inbox.get()) is not None:
            self._work(group)
            self._loop.call_soon_threadsafe(self._completed, group)

    def _work(self, group: list[Any]) -> None:
        """On the thread: nothing."""

    def close(self) -> None:
        """End the thread; nobody may be waiting."""
        self._inbox.put(None)
        self._thread.join()


@asynccontextmanager
async def open_ceiling(directory: Path) -> AsyncIterator[Append]:
    """As the other contenders are opened; the directory stays empty."""
    ceiling = Ceiling()
    try:
        yield ceiling.append
    finally:
        ceiling.close()
