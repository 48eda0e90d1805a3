"""The records of a range, a page at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from aquipu.errors import CorruptionError, RecordPurgedError
from aquipu.options import Range, Wanted
from aquipu.postgres.batches import records_in
from aquipu.postgres.log import Log
from aquipu.postgres.read.rows import LABELLED, labelled, rows_holding, rows_of
from aquipu.reading import Face, Scan
from aquipu.record import Record


class LogScan(Scan):
    """The records of a range, a page at a time."""

    def __init__(
        self,
        log: Log,
        face: Face,
        asked: Range,
        wanted: Wanted | None,
        *,
        reverse: bool,
        most: int = LABELLED,
    ) -> None:
        self._log = log
        self._face = face
        self._asked = asked
        self._wanted = wanted
        self._is_reverse = reverse
        self._most = min(most, LABELLED)
        self._left: tuple[int, int] | None = None  # what is not yet read, from the first step on
        self._is_over = False
        self._ready = iter(())

    async def aclose(self) -> None:
        self._is_over = True
        self._ready = iter(())

    async def _refill(self) -> Record:
        while not self._is_over:
            self._face.check_readable()
            if self._left is None:
                self._left = await self._begin()
            start, stop = self._left
            if start >= stop:
                break
            found = await self._page(start, stop)
            if self._is_over:
                break
            self._ready = iter(found)
            for record in self._ready:
                return record
        self._is_over = True
        raise StopAsyncIteration

    async def _begin(self) -> tuple[int, int]:
        """Return the bounds of the scan, as far as the log reaches now."""
        head = await self._log.head()
        start, stop = self._asked.start, self._asked.stop
        if start is not None and start < head.first_sequence:
            raise RecordPurgedError(self._log.path, start, head.first_sequence)
        start = head.first_sequence if start is None else start
        stop = head.next_sequence if stop is None else min(stop, head.next_sequence)
        if self._asked.since is not None and start < stop:
            start = max(start, await self._first_since(self._asked.since, stop))
        return start, stop

    async def _first_since(self, since: int, stop: int) -> int:
        """Return the sequence of the first batch that may have a record of this time or later."""
        query = (
            f"SELECT first_sequence FROM aquipu.batches_{self._log.number} WHERE latest_time >= $1"
            " ORDER BY latest_time, first_sequence LIMIT 1"
        )
        found = await self._log.reading.ask(
            lambda connection: connection.fetchval(query, max(since, -(1 << 63)))
        )
        return stop if found is None else int(found)

    async def _page(self, start: int, stop: int) -> list[Record]:
        """Return the records of the next page; take note of what is left."""
        if self._wanted is None:
            rows = await self._whole_page(start, stop)
        else:
            rows = await self._labelled_page(start, stop, self._wanted)
        assert self._left is not None
        if self._is_reverse:
            start = max(start, self._left[1])
        else:
            stop = min(stop, self._left[0])
        pages = (records_in(row, self._log.path) for row in rows)
        if self._is_reverse:
            pages = (records[::-1] for records in pages)
        return list(self._fitting(chain.from_iterable(pages), start, stop))

    @property
    def _nothing(self) -> tuple[int, int]:
        """What is left when nothing is."""
        assert self._left is not None
        start, stop = self._left
        return (start, start) if self._is_reverse else (stop, stop)

    async def _whole_page(self, start: int, stop: int) -> list[Any]:
        """Return the next rows, in the order of the scan."""
        times = (self._asked.since, self._asked.until)
        rows = await rows_of(self._log, start, stop, times, reverse=self._is_reverse)
        is_whole = times == (None, None)
        if not rows:
            await self._check_kept(start, stop, is_whole=is_whole)
            self._left = self._nothing
            return rows
        lowest, highest = (rows[-1], rows[0]) if self._is_reverse else (rows[0], rows[-1])
        end = highest["first_sequence"] + highest["records"]
        follows = end >= stop if self._is_reverse else lowest["first_sequence"] <= start
        if not (is_whole and follows):
            await self._check_kept(start, stop, is_whole=is_whole)
        self._left = (start, lowest["first_sequence"]) if self._is_reverse else (end, stop)
        return rows

    async def _labelled_page(self, start: int, stop: int, wanted: Wanted) -> list[Any]:
        """Return the rows with the next records that carry the labels."""
        found = await labelled(self._log, start, stop, wanted, self._most, reverse=self._is_reverse)
        rows = await rows_holding(self._log, found) if found else []
        await self._check_kept(start, stop, is_whole=False)
        if len(found) < self._most:
            self._left = self._nothing
        else:
            self._left = (start, found[-1]) if self._is_reverse else (found[-1] + 1, stop)
        return rows[::-1] if self._is_reverse else rows

    async def _check_kept(self, start: int, stop: int, *, is_whole: bool) -> None:
        """Raise RecordPurgedError when what was to come has gone; or that it is missing."""
        head = await self._log.head()
        if start < head.first_sequence:
            raise RecordPurgedError(self._log.path, start, head.first_sequence)
        if is_whole:
            place = stop - 1 if self._is_reverse else start
            raise CorruptionError(self._log.path, place, f"sequence {place} is missing")

    def _fitting(self, records: Iterable[Record], start: int, stop: int) -> Iterator[Record]:
        """Yield those that are asked for."""
        since, until = self._asked.since, self._asked.until
        for record in records:
            if (
                start <= record.sequence < stop
                and (since is None or record.timestamp >= since)
                and (until is None or record.timestamp < until)
                and (self._wanted is None or self._wanted.fits(record))
            ):
                yield record
