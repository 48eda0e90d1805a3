"""Moving records from the outbox into their log: beside whatever else a store does.

Each store of a log that is open for writing looks twice a second, and one after another they move
what there is. A transaction takes records out of the outbox and appends them, so it does not matter
whether its answer comes: what is still in the outbox is moved the next time.
"""

from __future__ import annotations

from asyncio import Task, sleep
from contextlib import suppress
from itertools import count
from typing import Any
from uuid import uuid4

from aquipu.errors import AquipuError
from aquipu.postgres.batches import Group, Rows
from aquipu.postgres.log import Log

_PAUSE = 0.5
"""Seconds between two looks into an outbox that is empty."""
_RECORDS_MAX = 1024
"""Records that are moved in one transaction."""
_WAITING = (
    "SELECT id, time, data, labels FROM aquipu.outbox WHERE log = $1 ORDER BY id LIMIT "
    f"{_RECORDS_MAX}"
)
_MOVE = (
    "SELECT aquipu.move($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
)


class Mover:
    """Moves the outbox of one log."""

    def __init__(self, log: Log, mode: str) -> None:
        """Prepare; ``mode``: the ``synchronous_commit`` of what it appends."""
        self._log = log
        self._mode = mode
        self._writer = uuid4().bytes
        self._numbers = count(1)
        self._task: Task[None] | None = None

    def begin(self) -> None:
        """Move what comes, until `drop`."""
        self._task = self._log.loop.create_task(self._go_on())

    def drop(self) -> None:
        """Move nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def _go_on(self) -> None:
        while not self._log.is_closing:
            moved = 0
            with suppress(AquipuError):  # the server is away, or says no; it is tried again
                moved = await self.move()
            if moved < _RECORDS_MAX:
                await sleep(_PAUSE)

    async def move(self) -> int:
        """Move what is in the outbox now, a part at most; return how many records that were.

        Raises StoreUnavailableError, StoreClosedError.
        """
        return await self._log.asking.ask(self._move, "move the outbox of")

    async def _move(self, connection: Any) -> int:
        rows = await connection.fetch(_WAITING, self._log.number)
        if not rows:
            return 0
        labels = {index: tuple(row["labels"]) for index, row in enumerate(rows) if row["labels"]}
        # the clock may have been set between two transactions, and the times of a batch ascend
        time, times = 0, []
        for row in rows:
            time = max(time, row["time"])
            times.append(time)
        made = Rows([Group([row["data"] for row in rows], times, labels)])
        is_moved = await connection.fetchval(
            _MOVE,
            [row["id"] for row in rows],
            *(self._log.number, self._writer, next(self._numbers), self._mode),
            *made.arguments(),
        )
        if is_moved:
            self._log.wake()
        return len(rows)
