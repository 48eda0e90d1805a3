"""A plain worker thread: groups as in `ceiling`, and the thread writes and syncs them.

No hand-off, no format.
"""

from __future__ import annotations

import os
from asyncio import Future
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.ceiling import Ceiling
from benchmarks.workload import Append


class PlainThread(Ceiling):
    """Has the `append` of a store."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        super().__init__()

    async def append(self, data: bytes) -> None:
        waiter = self._accept(data)
        self._forming[-1] = (waiter, data)
        return await waiter

    def _acknowledge(self, group: list[tuple[Future[None], bytes]]) -> None:  # type: ignore[override]
        super()._acknowledge([waiter for waiter, _ in group])

    def _work(self, group: list[tuple[Future[None], bytes]]) -> None:
        os.write(self._descriptor, b"".join([data for _, data in group]))
        os.fdatasync(self._descriptor)


@asynccontextmanager
async def open_plain_thread(directory: Path) -> AsyncIterator[Append]:
    descriptor = os.open(directory / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    thread = PlainThread(descriptor)
    try:
        yield thread.append
    finally:
        thread.close()
        os.close(descriptor)
