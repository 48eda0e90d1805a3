"""What can be written to a log: the face that every store has.

An append checks its record, takes a place in the commit that is forming, and a future; the
`Committer` does the rest.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, Future
from collections.abc import Iterable, Sequence
from threading import get_ident
from time import time_ns

from aquipu.commit.buffer import Pending
from aquipu.commit.committer import Waiter
from aquipu.commit.guarding import Guarding
from aquipu.commit.host import StoreHost
from aquipu.commit.resume import Kept
from aquipu.engine import Engine
from aquipu.errors import BufferFullError, RecordTooLargeError, StoreClosedError
from aquipu.options import check_sequence, check_times
from aquipu.policy import Stage
from aquipu.record import (
    Guarded,
    Receipt,
    checked_batch,
    checked_data,
    checked_json,
    checked_relations,
    key_of,
    labels_size,
)

_NO_RELATIONS: tuple[str, ...] = ()

Data = bytes | bytearray | memoryview


class Writable(Guarding):
    """A log that takes records."""

    def __init__(self, engine: Engine, loop: AbstractEventLoop) -> None:
        super().__init__(engine, loop)
        engine.attach(StoreHost(self))

    async def append(
        self,
        data: Data,
        *,
        relations: Iterable[str] = _NO_RELATIONS,
        durability: Stage | None = None,
        key: tuple[str, int] | None = None,
        expect: int | None = None,
    ) -> Receipt:
        """Store one record, and return when it is as safe as was asked for.

        That is when it has reached the stage that the policy, or ``durability``, asks for.

        ``data`` is copied (or, as bytes, kept) before anything else happens. ``relations`` are
        labels such as ``"user:7"`` that are stored with the record. ``durability`` asks for more
        than the policy (``Stage.SYNCED``) or for less (``Stage.FLUSHED``) for this record.

        ``key`` makes it safe to append again: ``("orders-api", 4711)``, a producer (a text of 1 to
        64 characters) and its number, which grows. When the log has the key, nothing is stored, and
        the receipt is that of the first time, after a restart too; a key is known at least as long
        as its record is kept. A number may skip ahead. One that is lower than the producer's last
        and not known is a StaleKeyError.

        ``expect`` stores the record only if it gets exactly this sequence: else ConflictError, with
        the ``next_sequence`` that would be right. With a key that is known, it does not count.

        Waits for room when the buffer is full. Cancelled while it waits for room: nothing is
        written. Cancelled after that: the record keeps its place and is written; only its caller
        stops waiting.

        Raises StoreFullError (no space; nothing kept; try again), StoreFailedError (outcome
        unknown), StoreClosedError, RecordTooLargeError, WrongLoopError, ForkedStoreError; TypeError
        or ValueError for what is no record, label, key or sequence; with a key also what `get`
        raises.
        """
        if key is not None or expect is not None:
            return (await self._append_guarded((data,), relations, durability, key, expect))[0]
        waiter: Future[Receipt] = Future(loop=self._loop)
        commit = self._group.forming
        pending: Pending[Waiter] | None = None
        try:
            if (
                commit is None
                or type(data) is not bytes
                or len(data) > self._max_record_bytes
                or durability is not None
                or get_ident() != self._thread
                or not self._loop.is_running()
                or not (
                    commit.take(data, waiter, time_ns())
                    if relations is _NO_RELATIONS
                    else commit.take_labelled(data, relations, waiter, time_ns())
                )
            ):
                pending = self._accept(data, relations, durability, waiter)
                if pending is not None:
                    self._group.wait(pending)
        except BaseException:
            self._interrupted()
            raise
        if pending is not None:
            return await self._in_line(pending, waiter)
        try:
            return await waiter
        except CancelledError:
            self._counters.cancelled += 1
            raise

    async def append_json(
        self,
        value: object,
        *,
        relations: Iterable[str] = _NO_RELATIONS,
        durability: Stage | None = None,
        key: tuple[str, int] | None = None,
        expect: int | None = None,
    ) -> Receipt:
        """Store a value as JSON: one record, which `Record.json` gives back.

        The record is compact, in UTF-8, and the keys of an object keep their order. The value is
        encoded before anything else happens, as the standard library's ``json`` does it: a tuple
        becomes an array, and a key that is a number, a bool or None a text.

        Raises TypeError for what JSON does not have, a datetime or a set for example, and
        ValueError for NaN and infinity, for a lone surrogate, and for what contains itself: nothing
        is written. Otherwise as `append`.
        """
        data = checked_json(value)
        return await self.append(
            data, relations=relations, durability=durability, key=key, expect=expect
        )

    def append_nowait(
        self,
        data: Data,
        *,
        relations: Iterable[str] = _NO_RELATIONS,
        durability: Stage | None = None,
        in_line: bool = False,
    ) -> Future[Receipt]:
        """Store one record without waiting: the future resolves when `append` would have returned.

        It takes no key and no expected sequence: to decide on those may take a look into the log.
        Raises BufferFullError when there is no room, and at once whatever else `append` raises
        before it accepts. ``in_line``: without room, the record waits for it behind those that do
        already; cancelled meanwhile, it is not written.
        """
        waiter = Kept(loop=self._loop)
        self._publishes_later = True
        try:
            pending = self._accept(data, relations, durability, waiter)
            if pending is not None and in_line:
                self._group.wait(pending)
        except BaseException:
            self._interrupted()
            raise
        if pending is not None and not in_line:
            raise self._refused(
                BufferFullError(
                    self._path, self._group.buffered_records, self._group.buffered_bytes
                )
            )
        return waiter

    async def append_many(
        self,
        data: Iterable[Data],
        *,
        relations: Iterable[str] = _NO_RELATIONS,
        durability: Stage | None = None,
        key: tuple[str, int] | None = None,
        expect: int | None = None,
    ) -> list[Receipt]:
        """Store several records as one commit: after a crash all of them are there, or none.

        ``relations`` and ``durability`` hold for each of them. One ``key`` is for the whole batch,
        whose receipts are given again; ``expect`` is for its first record. An empty collection
        returns an empty list, and its key is not kept. Raises what `append` raises, and
        BatchTooLargeError for more than the buffer can hold.
        """
        if key is not None or expect is not None:
            return await self._append_guarded(data, relations, durability, key, expect)
        self._check()
        payloads = _payloads_of(data)
        labels = checked_relations(relations)
        stage = self._stage if durability is None else self._asked(durability)
        if not payloads:
            return []
        of_each = dict.fromkeys(range(len(payloads)), labels) if labels else {}
        return await self._append_batch(payloads, of_each, stage)

    async def append_dated(
        self, payloads: list[bytes], labels: Sequence[tuple[str, ...]], times: Sequence[int]
    ) -> list[Receipt]:
        """Store records with the times that they had elsewhere, as one commit: for an import.

        Labels and times, in nanoseconds since the epoch, are those of each record. Only the
        embedded engine can (`Engine.last_time`); any other is a TypeError. Raises TimeRefusedError
        for a time that is before the one before it, before that of the last record, or in the
        future, and BufferFullError when there is no room now; nothing is written. Otherwise as
        `append_many`.
        """
        self._check()
        last = self._engine.last_time
        if last is None:
            raise TypeError(f"{self._path} gives each record its time itself")
        check_times(times, max(last, self._group.last_time), time_ns())
        of_each = {index: its for index, its in enumerate(map(checked_relations, labels)) if its}
        if not len(payloads) == len(labels) == len(times):
            raise ValueError("each record has a time and labels")
        if not payloads:
            return []
        return await self._append_batch(payloads, of_each, self._stage, times=times)

    async def flush(self) -> None:
        """Wait until everything accepted so far is FLUSHED: a process crash takes none of it.

        Raises StoreFullError when some of it found no space, StoreFailedError, StoreClosedError.
        """
        await self._barrier(Stage.FLUSHED)

    async def sync(self) -> None:
        """Wait until everything accepted so far is SYNCED: a power cut takes none of it.

        Raises as `flush`.
        """
        await self._barrier(Stage.SYNCED)

    async def reached(self, stage: Stage, sequence: int) -> None:
        """Return when the log has reached a stage up to and including this record.

        ``await store.reached(Stage.SYNCED, receipt.sequence)``: a power cut takes neither this
        record nor any before it. Where that is so already, it returns at once, also for a record
        that was purged since. For a record that has a receipt, the stages before SYNCED are behind
        it.

        Where the policy bounds the age of what is not synced (``EveryN(within=...)``), this waits
        for that sync, ``within`` seconds at most unless the disk is slower, and costs none of its
        own; `sync` does not wait for it. Under any other policy, which might never sync, it asks
        for a sync. Cancelled, only its caller stops waiting. A store that is closed meanwhile syncs
        first.

        ``Stage.ARCHIVED``, of a store that is opened with an archive: the loss of the machine takes
        neither. Raises `ArchiveError` when the archive has stopped; ValueError without one.

        Raises RecordNotWrittenError for a sequence that no acknowledged record has,
        StoreFailedError, StoreClosedError; TypeError or ValueError for what is no stage or
        sequence.
        """
        if not isinstance(stage, Stage):
            raise TypeError(f"a stage is a Stage, not {type(stage).__name__}")
        check_sequence(sequence, "sequence")
        self._check_owner()
        if self._life.is_closing:
            raise StoreClosedError(self._path)
        await self._engine.reached(stage, sequence)

    async def roll(self) -> None:
        """Seal the segment that is being written, and begin the next one, whatever its size.

        When this returns, everything accepted before is synced and stands in sealed segments: files
        that do not change any more, and that `purge` and the retention may let go of. Where nothing
        was written since the last roll, nothing is done. Cancelled, it may be done all the same.

        Raises StoreUnavailableError when the next segment cannot be made, for lack of space for
        example: the one at hand grows, nothing was lost, and it is tried again when it is full.
        Otherwise as `flush`.
        """
        await self.sync()
        await self._engine.roll()

    # accepting

    def _asked(self, durability: Stage) -> Stage:
        """Return the stage that a record asks for, as far as there is one such here."""
        return _checked_stage(durability, self._engine.stage_max)

    async def _append_guarded(
        self,
        data: Iterable[Data],
        relations: Iterable[str],
        durability: Stage | None,
        key: tuple[str, int] | None,
        expect: int | None,
    ) -> list[Receipt]:
        """Check records that have a key or an expected sequence, and store them."""
        self._check()
        payloads = _payloads_of(data)
        labels = checked_relations(relations)
        stage = self._stage if durability is None else self._asked(durability)
        if expect is not None:
            check_sequence(expect, "expect")
        checked = None if key is None else key_of(key)
        if not payloads:
            return []
        return await self.append_guarded(Guarded(payloads, labels, stage, checked, expect))

    def _accept(
        self,
        data: Data,
        relations: Iterable[str],
        durability: Stage | None,
        waiter: Future[Receipt],
    ) -> Pending[Waiter] | None:
        """Check one record and accept it; without room for it, give it back as it would wait."""
        if (
            get_ident() != self._thread
            or self._life.refusal is not None
            or not self._loop.is_running()
        ):
            self._check()
        payload = data if type(data) is bytes else checked_data(data)
        size = len(payload)
        if size > self._max_record_bytes:
            raise self._refused(RecordTooLargeError(self._path, size, self._max_record_bytes))
        labels: tuple[str, ...] = ()
        if relations is not _NO_RELATIONS:
            labels = checked_relations(relations)
            size += labels_size(labels)
        stage = self._stage if durability is None else self._asked(durability)
        if self._group.add(payload, size, labels, stage, waiter, time_ns()):
            if durability is None:
                self._group.open_to_all()
            if not self._scheduled:
                self._schedule()
            return None
        return Pending((payload,), size, {0: labels} if labels else {}, stage, waiter, False)


def _payloads_of(data: Iterable[Data]) -> list[bytes]:
    if isinstance(data, (bytes, bytearray, memoryview, str)):
        raise TypeError(
            f"append_many takes a collection of records, not {type(data).__name__}; use append"
        )
    return checked_batch(data)


def _checked_stage(durability: object, most: Stage) -> Stage:
    if not isinstance(durability, Stage):
        raise TypeError(f"durability is a Stage or None, not {type(durability).__name__}")
    if durability is Stage.BUFFERED:
        raise ValueError(
            "an append waits at least for Stage.FLUSHED; append_nowait does not wait at all"
        )
    if durability is Stage.REPLICATED and durability > most:
        raise ValueError(
            "Stage.REPLICATED is for a log in PostgreSQL whose server has a synchronous standby"
        )
    if durability > most:
        raise ValueError(
            f"an append waits for Stage.{most.name} at most; wait for {durability.name} by "
            "`reached`"
        )
    return durability
