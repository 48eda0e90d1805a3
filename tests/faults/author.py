"""The author of a life: opens the store, makes the calls of the plan, and testifies to what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from random import Random

from aquipu import BufferFullError, Receipt, Store
from aquipu.disk import Disk
from tests.faults.mortal import MortalDisk
from tests.faults.plan import POLICIES, SECONDS_MAX, Call, Life, calls
from tests.faults.witness import Witness


class Author:
    """An open store, and the calls that this life makes."""

    def __init__(self, life: Life, witness: Witness, store: Store, plan: Iterator[Call]) -> None:
        self.store = store
        self.plan = plan
        self._life = life
        self._witness = witness
        self._pending: list[asyncio.Task[None]] = []

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
        if call.then is not None:
            await getattr(self.store, call.then)()

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
