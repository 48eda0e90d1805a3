"""Keys and power cuts: a key is known exactly as long as its record is in the log."""

from __future__ import annotations

from random import Random

import pytest

from aquipu import Always, EveryN, OsManaged, Stage, Store, SyncPolicy
from tests.faults.volatile_disk import Files, Replay, VolatileDisk

PATH = "/store"
PRODUCERS = ("a", "b")
NUMBERS = range(0, 150, 3)
SHARE = 0.04
"""Of the moments at which the power is cut."""


def data_of(producer: str, number: int) -> bytes:
    return b"%s:%d" % (producer.encode(), number) + bytes(80)


async def append_all(disk: VolatileDisk, policy: SyncPolicy) -> list[tuple[int, bytes]]:
    """Append every number of every producer; return what was SYNCED, and at which moment."""
    synced = []
    async with Store.open(
        PATH, lock_timeout=0, disk=disk, sync_policy=policy, max_segment_bytes=4096
    ) as store:
        for number in NUMBERS:
            for producer in PRODUCERS:
                data = data_of(producer, number)
                receipt = await store.append(data, key=(producer, number))
                if receipt.stage is Stage.SYNCED:
                    synced.append((len(disk.log), data))
    return synced


async def check(files: Files, synced: set[bytes]) -> bool:
    """Send each key again to a store that a power cut has left; whether any record was gone."""
    async with Store.open(PATH, lock_timeout=0, disk=VolatileDisk(files)) as store:
        left = {record.data: record.sequence async for record in store.scan()}
        assert synced <= left.keys()
        gone = 0
        for number in NUMBERS:
            for producer in PRODUCERS:
                data = data_of(producer, number)
                receipt = await store.append(data, key=(producer, number))
                if data in left:
                    assert receipt.sequence == left[data], "its receipt is that of its record"
                else:
                    assert receipt.sequence == len(left) + gone, "it is appended again"
                    gone += 1
        found = [record.data async for record in store.scan()]
        assert len(found) == len(set(found)) == len(NUMBERS) * len(PRODUCERS)
        return gone > 0


@pytest.mark.proof
@pytest.mark.asyncio
@pytest.mark.parametrize("policy", [Always(), EveryN(8, within=None), OsManaged()], ids=repr)
async def test_a_power_cut(policy: SyncPolicy) -> None:
    """A key whose record survived gives its receipt; one whose record is gone is appended again,
    and then every record is there once.
    """
    disk, random = VolatileDisk(), Random(7)
    promised = await append_all(disk, policy)
    replay, cuts, losses = Replay(disk), 0, 0
    for moment, event in enumerate(disk.log, 1):
        replay.take(event)
        if random.random() > SHARE:
            continue
        synced = {data for when, data in promised if when <= moment}
        for files in replay.states(random, 1):
            losses += await check(files, synced)
            cuts += 1
    assert cuts > 20
    assert losses > 10
