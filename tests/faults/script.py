"""The script of a run: opens the store, makes the calls of the plan, and has the oracle note what
it is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random

from aquipu import BufferFullError, Receipt, Store
from aquipu.local.disk.disk import Disk
from tests.faults.crashing_disk import CrashingDisk
from tests.faults.index import CURSOR, misfound, settled
from tests.faults.oracle import Oracle
from tests.faults.plan import HOLD, POLICIES, SECONDS_MAX, Call, Run, calls


class Script:
    """An open store, and the calls that this run makes."""

    def __init__(self, run: Run, oracle: Oracle, store: Store, plan: Iterator[Call]) -> None:
        self.store = store
        self.plan = plan
        self._run = run
        self._oracle = oracle
        self._pending: list[asyncio.Task[None]] = []
        self._letting_go = asyncio.Lock()
        self._consuming = asyncio.Lock()

    @classmethod
    async def begin(cls, run: Run, oracle: Oracle, plan: Iterator[Call] | None = None) -> Script:
        """Open the store."""
        store = await Store.open(
            run.path,
            sync_policy=POLICIES[run.policy],
            max_segment_bytes=run.max_segment_bytes,
            buffer_records=run.buffer_records,
            lock_timeout=SECONDS_MAX / 3,
            disk=_disk(run, oracle),
        )
        oracle.opened(store.next_sequence)
        if run.scan:
            await _read_by_face(run, oracle, store)
        return cls(run, oracle, store, calls(run.seed, run.round) if plan is None else plan)

    async def make(self, call: Call) -> None:
        """Make one call, and note what its caller is told."""
        receipts = await self._send(call)
        for number, receipt in enumerate(receipts, call.number):
            self._oracle.acknowledged(number, receipt)
        if call.then in ("let_go", "consume"):
            await getattr(self, call.then)()
        elif call.then is not None:
            await getattr(self.store, call.then)()

    async def let_go(self) -> None:
        """Set a hold, and purge what lies before it: one at a time, so that what was noted
        last tells of the last purge.
        """
        store = self.store
        async with self._letting_go:
            bound = max(
                store.next_sequence - 1, store.first_sequence
            )  # that is not sealed, whatever is appended meanwhile
            held = bound - (bound - store.first_sequence) // 4
            self._oracle.holding(held)
            await store.hold(HOLD, held)
            self._oracle.held(held)
            told = await store.purge(before=bound, dry_run=True)
            self._oracle.purging(told.first_sequence)
            purged = await store.purge(before=bound)
            self._oracle.purged(purged.first_sequence)

    async def consume(self) -> None:
        """Save a cursor: one at a time, as its one consumer would."""
        async with self._consuming:
            if self._run.program == "short":
                await settled(
                    self.store
                )  # a cursor is saved by a thread of its own: the calls must come in one order
            sequence = self.store.next_sequence
            self._oracle.saving(sequence)
            await self.store.cursor(CURSOR).save(sequence)
            self._oracle.saved(sequence)

    async def _send(self, call: Call) -> list[Receipt]:
        self._oracle.accepted(len(call.payloads))  # which happens before anything is awaited
        if len(call.payloads) > 1:
            return await self.store.append_many(
                call.payloads, relations=call.relations, durability=call.durability
            )
        data, relations, durability = call.payloads[0], call.relations, call.durability
        if not call.waits:
            try:
                return [
                    await self.store.append_nowait(data, relations=relations, durability=durability)
                ]
            except BufferFullError:
                pass
        return [await self.store.append(data, relations=relations, durability=durability)]

    async def write(self, number: int) -> None:
        """Several tasks, which make so many calls in all."""
        shared = islice(self.plan, number)

        async def one() -> None:
            for call in shared:
                await self.make(call)

        await asyncio.gather(*[one() for _ in range(self._run.tasks)])

    async def burst(self, number: int) -> None:
        """Have so many calls accepted, and wait for none.

        Usually some of them have been handed over, and some not.
        """
        random = Random(f"{self._run.seed}/{self._run.round}")
        for call in islice(self.plan, number):
            self._pending.append(asyncio.create_task(self.make(call)))
            for _ in range(random.choice((1, 1, 1, 2, 5))):
                await asyncio.sleep(0)


async def _read_by_face(run: Run, oracle: Oracle, store: Store) -> None:
    found = [record async for record in store.scan()]
    for record in Random(run.seed).sample(found, min(3, len(found))):
        if await store.get(record.sequence) != record:
            raise AssertionError(f"get({record.sequence}) gives another record than scan()")
    wrong = await misfound(store, found)
    if wrong is not None:
        raise AssertionError(wrong)
    oracle.read(found)


def _disk(run: Run, oracle: Oracle) -> Disk:
    if run.program == "short":
        return CrashingDisk(run.moment, run.share, oracle.called)
    return Disk() if run.program == "long" else SlowDisk()


class SlowDisk(Disk):
    """Takes its time, so that an exit finds something that is accepted and not yet written."""

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        time.sleep(0.001)
        super().write(descriptor, buffers, offset)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        time.sleep(0.001)
        return super().write_synced(descriptor, buffers, offset)
