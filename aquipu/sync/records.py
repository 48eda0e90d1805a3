"""Scans and followers without ``await``: iterators whose steps are taken in the loop.

A step brings all records that are read at a time, so it is taken seldom.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from aquipu import AquipuError, Follow, Position, Record, Scan, StoreClosedError
from aquipu.sync.loop import LoopThread

R = TypeVar("R", bound=Scan | Follow)


class _SyncRecords(Generic[R]):
    """Records one after another: its own iterator, used once, by one thread at a time.

    It closes its files at the end of the records, by `close`, at the end of ``with``, and when it
    is dropped.
    """

    def __init__(self, owner: object, thread: LoopThread, records: R) -> None:
        """Prepare an iterator; not called by users. ``owner`` is kept, and so kept open."""
        self._owner = owner
        self._thread = thread
        self._records = records
        self._ready: Iterator[Record] = iter(())
        self._step: Future[list[Record]] | None = None  # one that its caller was interrupted in
        self._is_closed = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        for record in self._ready:
            return record
        if self._is_closed:
            raise StopIteration
        batch = self._next_batch()
        if not batch:
            self.close()
            raise StopIteration
        self._ready = iter(batch)
        return next(self._ready)

    def _next_batch(self) -> list[Record]:
        if self._step is None:
            self._step = self._thread.begin(self._records.batch)
        batch = self._step.result()
        self._step = None
        return batch

    def close(self) -> None:
        """End it, and close its files. Does nothing the second time."""
        if not self._is_closed:
            self._is_closed, self._ready = True, iter(())
            with suppress(AquipuError):  # the store was closed, or is the parent's
                self._thread.call(self._end)

    async def _end(self) -> None:
        try:
            await self._records.aclose()
        finally:
            self._thread.has_read(self._records)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_is_closed") and not self._is_closed:
            self._thread.drop(self._end)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"a {type(self).__name__} cannot be copied or pickled")


class SyncScan(_SyncRecords[Scan]):
    """The records of a view: ``for record in store.scan()``. See `Scan`, also for what it raises.

    It is its own iterator, used once, by one thread at a time. Its files are closed at its end, by
    `close`, at the end of ``with``, and when it is dropped.
    """


class SyncFollow(_SyncRecords[Follow]):
    """The records of a log from a place on, and every new one: ``for record in store.follow()``.

    See `Follow`, also for what it raises. It waits for the next record, and ends when the store is
    closed, by whatever thread, or it itself is. A wait that is interrupted has lost no record.
    """

    def _next_batch(self) -> list[Record]:
        try:
            return super()._next_batch()
        except StoreClosedError:  # at the end of the program
            return []

    @property
    def skipped(self) -> int:
        """Records that were purged before they could be given, and skipped."""
        return self._records.skipped

    def position_after(self, record: Record) -> Position:
        """Return where a consumer goes on that has processed this record, the last one given.

        See `Follow.position_after`.
        """
        return self._records.position_after(record)
