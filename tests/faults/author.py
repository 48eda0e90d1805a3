"""The author of a life: opens the store, makes the calls of the plan, and testifies to what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random

from aquipu import BufferFullError, Receipt, Store
from aquipu.disk import Disk
from tests.faults.index import CURSOR, misfound, settled
from tests.faults.mortal import MortalDisk
from tests.faults.plan import HOLD, POLICIES, SECONDS_MAX, Call, Life, calls
from tests.faults.witness import Witness


class Author:
    """An open store, and the calls that this life makes."""

    def __init__(self, life: Life, witness: Witness, store: Store, plan: Iterator[Call]) -> None:
        self.store = store
        self.plan = plan
        self._life = life
        self._witness = witness
        self._pending: list[asyncio.Task[None]] = []
        self._letting_go = asyncio.Lock()
        self._consuming = asyncio.Lock()

    @classmethod
    async def begin(cls, life: Life, witness: Witness, plan: Iterator[Call] | None = None) -> Author:
        """Open the store."""
        store = await Store.open(
            life.path,
            sync_policy=POLICIES[life.policy],
            max_segment_bytes=life.max_segment_bytes,
            buffer_records=life.buffer_records,
            lock_timeout=SECONDS_MAX / 3,
            disk=_disk(life, witness),
        )
        witness.opened(store.next_sequence)
        if life.scan:
            await _read_by_face(life, witness, store)
        return cls(life, witness, store, calls(life.seed, life.round) if plan is None else plan)

    async def make(self, call: Call) -> None:
        """Make one call, and testify."""
        receipts = await self._send(call)
        for number, receipt in enumerate(receipts, call.number):
            self._witness.acknowledged(number, receipt)
        if call.then in ("let_go", "consume"):
            await getattr(self, call.then)()
        elif call.then is not None:
            await getattr(self.store, call.then)()

    async def let_go(self) -> None:
        """Set a hold, and purge what lies before it: one at a time, so that the last testimony tells of the last purge."""
        store = self.store
        async with self._letting_go:
            bound = max(store.next_sequence - 1, store.first_sequence)  # that is not sealed, whatever is appended meanwhile
            held = bound - (bound - store.first_sequence) // 4
            self._witness.holding(held)
            await store.hold(HOLD, held)
            self._witness.held(held)
            told = await store.purge(before=bound, dry_run=True)
            self._witness.purging(told.first_sequence)
            purged = await store.purge(before=bound)
            self._witness.purged(purged.first_sequence)

    async def consume(self) -> None:
        """Save a cursor: one at a time, as its one consumer would."""
        async with self._consuming:
            if self._life.program == "short":
                await settled(self.store)  # a cursor is saved by a thread of its own: the calls must come in one order
            sequence = self.store.next_sequence
            self._witness.saving(sequence)
            await self.store.cursor(CURSOR).save(sequence)
            self._witness.saved(sequence)

    async def _send(self, call: Call) -> list[Receipt]:
        self._witness.accepted(len(call.payloads))  # which happens before anything is awaited
        if len(call.payloads) > 1:
            return await self.store.append_many(call.payloads, relations=call.relations, durability=call.durability)
        data, relations, durability = call.payloads[0], call.relations, call.durability
        if not call.waits:
            try:
                return [await self.store.append_nowait(data, relations=relations, durability=durability)]
            except BufferFullError:
                pass
        return [await self.store.append(data, relations=relations, durability=durability)]

    async def write(self, number: int) -> None:
        """Several tasks, which make so many calls in all."""
        shared = islice(self.plan, number)

        async def one() -> None:
            for call in shared:
                await self.make(call)

        await asyncio.gather(*[one() for _ in range(self._life.tasks)])

    async def burst(self, number: int) -> None:
        """Have so many calls accepted, and wait for none. Usually some of them have been handed over, and some not."""
        random = Random(f"{self._life.seed}/{self._life.round}")
        for call in islice(self.plan, number):
            self._pending.append(asyncio.create_task(self.make(call)))
            for _ in range(random.choice((1, 1, 1, 2, 5))):
                await asyncio.sleep(0)


async def _read_by_face(life: Life, witness: Witness, store: Store) -> None:
    found = [record async for record in store.scan()]
    for record in Random(life.seed).sample(found, min(3, len(found))):
        if await store.get(record.sequence) != record:
            raise AssertionError(f"get({record.sequence}) gives another record than scan()")
    wrong = await misfound(store, found)
    if wrong is not None:
        raise AssertionError(wrong)
    witness.read(found)


def _disk(life: Life, witness: Witness) -> Disk:
    if life.program == "short":
        return MortalDisk(life.moment, life.share, witness.called)
    return Disk() if life.program == "long" else SlowDisk()


class SlowDisk(Disk):
    """Takes its time, so that an exit finds something that is accepted and not yet written."""

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        time.sleep(0.001)
        super().write(descriptor, buffers, offset)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        time.sleep(0.001)
        return super().write_synced(descriptor, buffers, offset)
