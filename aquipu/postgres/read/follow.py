"""The records of a log from a place on, and every new one."""

from __future__ import annotations

from aquipu.errors import (
    CorruptionError,
    PositionLostError,
    RecordNotWrittenError,
    RecordPurgedError,
    StoreClosedError,
)
from aquipu.options import OnPurged
from aquipu.postgres.batches import records_in
from aquipu.postgres.log import Log
from aquipu.postgres.read.rows import check_survived, rows_of
from aquipu.reading import Face, Follow
from aquipu.record import Position, Record


class LogFollow(Follow):
    """The records from a place on, for ever."""

    def __init__(
        self,
        log: Log,
        face: Face,
        start: int | Position | None,
        *,
        earliest: bool,
        on_purged: OnPurged,
    ) -> None:
        super().__init__(log.path, earliest=earliest, on_purged=on_purged)
        self._log = log
        self._face = face
        self._read_in = log.generation
        self._is_position = isinstance(start, Position)
        if isinstance(start, Position):
            self._read_in, start = bytes.fromhex(start.generation), start.sequence
        self._next = start
        if start is None and not earliest:
            self._next = log.progress.next_sequence
        self._is_begun = False
        self._is_over = False
        self._ready = iter(())

    async def aclose(self) -> None:
        self._is_over = True
        self._ready = iter(())
        self._log.wake()

    async def _refill(self) -> Record:
        while not self._is_over:
            try:
                self._face.check_readable()
                found = await self._more()
            except StoreClosedError:
                if not self._log.is_closing:
                    raise
                break
            except RecordPurgedError as error:
                self._next = self._overtaken(error)
                continue
            if self._is_over:
                break
            if found:
                self._earliest = False
                self._is_begun = True
                self._generation = self._read_in
                self._next = found[-1].sequence + 1
                self._ready = iter(found)
                return next(self._ready)
        raise StopAsyncIteration

    async def _more(self) -> list[Record]:
        """Return the next records; none when it is to be looked again."""
        if self._next is None:
            self._next = (await self._log.head()).first_sequence
        if not self._is_begun:
            await self._check_start(self._next)
            self._is_begun = True
        if self._read_in != self._log.generation:
            await check_survived(self._log, self._read_in, self._next)
            self._read_in = self._log.generation
        if self._is_over:
            return []
        if self._log.progress.next_sequence <= self._next:
            await self._log.news(self._next)
            if self._is_over or self._log.progress.next_sequence <= self._next:
                return []
        start = self._next
        rows = await rows_of(self._log, start, max(self._log.progress.next_sequence, start + 1))
        if not rows or rows[0]["first_sequence"] > start:
            await self._check_place(start)
            return []
        found = [record for row in rows for record in records_in(row, self._log.path)]
        return [record for record in found if record.sequence >= start]

    async def _check_start(self, start: int) -> None:
        """Raise RecordNotWrittenError or PositionLostError for a start beyond the end."""
        head = await self._log.head()
        if self._is_position:
            await check_survived(self._log, self._read_in, start)
        if start > head.next_sequence:
            if self._is_position:
                raise PositionLostError(self._path, start, head.next_sequence)
            raise RecordNotWrittenError(self._path, start, head.next_sequence)

    async def _check_place(self, start: int) -> None:
        """Raise RecordPurgedError when the next record has gone; or that it is missing."""
        head = await self._log.head()
        if start < head.first_sequence:
            raise RecordPurgedError(self._path, start, head.first_sequence)
        if start < head.next_sequence:
            rows = await rows_of(self._log, start, start + 1)
            if not rows:
                raise CorruptionError(self._path, start, f"sequence {start} is missing")
