"""The face: what a policy and a stage promise, and when the disk is asked for it."""

from __future__ import annotations

import asyncio
import random
from asyncio import ensure_future
from collections.abc import Awaitable, Callable
from errno import EIO
from pathlib import Path
from typing import Any

import pytest

from aquipu import Always, EveryN, OsManaged, Receipt, Stage, Store, StoreFailedError, SyncPolicy
from tests.callers import PATIENCE, OracleDisk, Timers, held, pass_time, tick
from tests.disk import FailingDisk
from tests.support import segment_in

pytestmark = pytest.mark.asyncio


# stages


@pytest.mark.parametrize(
    ("policy", "durability", "stage"),
    [
        (Always(), None, Stage.SYNCED),
        (Always(), Stage.SYNCED, Stage.SYNCED),
        (Always(), Stage.FLUSHED, Stage.FLUSHED),
        (EveryN(64), None, Stage.FLUSHED),
        (EveryN(64), Stage.SYNCED, Stage.SYNCED),
        (EveryN(1), None, Stage.SYNCED),
        (EveryN(1), Stage.FLUSHED, Stage.SYNCED),
        (OsManaged(), None, Stage.FLUSHED),
        (OsManaged(), Stage.SYNCED, Stage.SYNCED),
    ],
)
async def test_durability_of_one_record(
    tmp_path: Path, policy: SyncPolicy, durability: Stage | None, stage: Stage
) -> None:
    """A record reaches the stage that it, or else the policy, asks for, and its caller is told when
    it has.
    """
    disk = OracleDisk()
    async with Store.open(tmp_path, sync_policy=policy, disk=disk) as store:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.append(b"x", durability=durability),
            lambda: store.append_nowait(b"x", durability=durability),
            lambda: store.append_many([b"x"], durability=durability),
        ]
        for number, call in enumerate(calls, start=1):
            told = await call()
            receipt = told[0] if isinstance(told, list) else told
            assert receipt.stage is stage
            assert disk.written == store.next_sequence == number
            assert disk.synced == store.synced_sequence == (number if stage is Stage.SYNCED else 0)


async def test_flushed_is_with_the_operating_system(tmp_path: Path) -> None:
    """A FLUSHED record is in the file as every process sees it: the end of this one would not take
    it.
    """
    async with Store.open(tmp_path, sync_policy=OsManaged()) as store:
        await store.append(b"in the page cache")
        assert b"in the page cache" in segment_in(tmp_path).read_bytes()


async def test_the_strictest_member_of_a_commit(tmp_path: Path) -> None:
    """Records that leave together share one sync when one of them asks for it, and all of them are
    SYNCED then.
    """
    disk = OracleDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        syncs = disk.syncs
        batch = ensure_future(store.append_many([b"d", b"e"]))
        futures = [
            store.append_nowait(b"a"),
            store.append_nowait(b"b", durability=Stage.SYNCED),
            store.append_nowait(b"c", durability=Stage.FLUSHED),
        ]
        receipts = [*await asyncio.gather(*futures), *await batch]
        assert [receipt.stage for receipt in receipts] == [Stage.SYNCED] * 5
        assert (disk.syncs - syncs, store.statistics().commits) == (1, 1)
        assert (await store.append(b"f")).stage is Stage.FLUSHED


async def test_a_flushed_record_is_acknowledged_before_the_sync_of_the_next_commit(
    tmp_path: Path,
) -> None:
    """Who asks for less does not wait for those who ask for more in a later commit."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        with held(disk, "sync") as call:
            flushed = store.append_nowait(b"a", durability=Stage.FLUSHED)
            await flushed
            synced = store.append_nowait(b"b")
            await call.reached()
            assert not synced.done()
        assert (await synced).stage is Stage.SYNCED


# the policies


@pytest.mark.parametrize("n", [1, 2, 7, 64])
async def test_every_n_at_every_acknowledgement(tmp_path: Path, n: int) -> None:
    """Whenever anyone is told, at most n - 1 acknowledged records are unsynced, by the store's word
    and by the disk's.
    """
    disk = OracleDisk()
    generator = random.Random(n)
    worst_said = worst_done = acknowledged = 0
    store = await Store.open(
        tmp_path, sync_policy=EveryN(n, within=None), disk=disk, buffer_records=50
    )

    def told(receipt: Receipt) -> None:
        nonlocal acknowledged, worst_said, worst_done
        acknowledged = max(acknowledged, receipt.sequence + 1)
        worst_done = max(worst_done, acknowledged - disk.synced)
        worst_said = max(worst_said, store.next_sequence - store.synced_sequence)

    async def work(durability: Stage | None) -> None:
        for _ in range(30):
            kind = generator.random()
            if kind < 0.6:
                told(await store.append(b"x", durability=durability))
            elif kind < 0.8:
                told(
                    (
                        await store.append_many(
                            [b"x"] * generator.randrange(1, 10), durability=durability
                        )
                    )[-1]
                )
            elif (
                kind < 0.9
                and store.statistics().buffered_records < 50
                and not store.statistics().waiting
            ):
                future = store.append_nowait(b"x", durability=durability)
                future.add_done_callback(lambda future: told(future.result()))
                await future
            else:
                await store.flush()

    async with store:
        await asyncio.gather(
            *(work(generator.choice([None, None, Stage.FLUSHED, Stage.SYNCED])) for _ in range(20))
        )
        assert acknowledged == store.next_sequence > 100
        assert worst_said <= n - 1
        assert worst_done <= n - 1


@pytest.mark.parametrize("n", [2, 5, 64])
async def test_every_n_exactly(tmp_path: Path, n: int) -> None:
    """n - 1 records are FLUSHED, and the one that makes n waits for the sync; then counting begins
    anew.
    """
    disk = OracleDisk()
    async with Store.open(tmp_path, sync_policy=EveryN(n, within=None), disk=disk) as store:
        syncs = disk.syncs
        for turn in range(1, 4):
            stages = [(await store.append(b"x")).stage for _ in range(n)]
            assert stages == [Stage.FLUSHED] * (n - 1) + [Stage.SYNCED]
            assert disk.synced == store.synced_sequence == turn * n
            assert disk.syncs - syncs == turn


async def test_every_n_waits_for_the_sync(tmp_path: Path) -> None:
    """The append that makes the count reach n is told only when the sync has returned."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=EveryN(3, within=None), disk=disk) as store:
        await store.append(b"x")
        await store.append(b"x")
        with held(disk, "sync") as call:
            third = store.append_nowait(b"x")
            await call.reached()
            assert (third.done(), store.next_sequence) == (False, 2)
        assert (await third).stage is Stage.SYNCED


async def test_every_n_counts_what_a_sync_has_covered_no_more(tmp_path: Path) -> None:
    """`sync` and a record that asks for SYNCED begin the count anew, and so does a reopening."""
    policy = EveryN(3, within=None)
    async with Store.open(tmp_path, sync_policy=policy) as store:
        await store.append(b"x")
        await store.append(b"x")
        await store.sync()
        assert [(await store.append(b"x")).stage for _ in range(2)] == [
            Stage.FLUSHED,
            Stage.FLUSHED,
        ]
        assert (await store.append(b"x", durability=Stage.SYNCED)).stage is Stage.SYNCED
        assert [(await store.append(b"x")).stage for _ in range(2)] == [
            Stage.FLUSHED,
            Stage.FLUSHED,
        ]
    async with Store.open(tmp_path, sync_policy=policy) as store:
        assert [(await store.append(b"x")).stage for _ in range(2)] == [
            Stage.FLUSHED,
            Stage.FLUSHED,
        ]


async def test_every_n_with_a_batch_larger_than_n(tmp_path: Path) -> None:
    """A batch that passes n is synced before any of it is told."""
    async with Store.open(tmp_path, sync_policy=EveryN(3, within=None)) as store:
        assert {receipt.stage for receipt in await store.append_many([b"x"] * 2)} == {Stage.FLUSHED}
        assert {receipt.stage for receipt in await store.append_many([b"x"] * 10)} == {Stage.SYNCED}
        assert store.synced_sequence == 12


async def test_every_n_syncs_an_idle_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No acknowledged record stays unsynced for longer than `within`, though nothing is called."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=EveryN(64, within=10.0), disk=disk) as store:
        for turn in range(1, 3):
            assert (await store.append(b"x")).stage is Stage.FLUSHED
            await tick()  # the timer starts behind the callers
            with held(disk, "sync") as call:
                pass_time(monkeypatch, 10.0)
                await call.reached()
                assert store.synced_sequence == turn - 1
                sharing = ensure_future(store.sync())  # shares the sync that is under way
                await tick()
            await sharing
            assert store.synced_sequence == turn


async def test_every_n_reckons_from_the_oldest_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that come later do not put the sync of the first one off."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=EveryN(64, within=10.0), disk=disk) as store:
        await store.append(b"oldest")
        with held(disk, "sync") as call:
            for _ in range(5):
                pass_time(monkeypatch, 2.0)
                store.append_nowait(b"x")
                await tick()
            await call.reached()


async def test_every_n_syncs_beside_a_loop_that_is_blocked(tmp_path: Path) -> None:
    """What is unsynced is synced in time also when the loop comes to nothing: its program computes,
    or waits.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=EveryN(64, within=0.05), disk=disk) as store:
        for turn in range(1, 4):
            hold = disk.hold("sync", of=".segment")
            assert (await store.append(b"x")).stage is Stage.FLUSHED
            assert hold.reached.wait(PATIENCE)  # nothing else happens on this thread
            hold.released.set()
            await store.sync()
            assert store.synced_sequence == turn
        assert store.statistics().syncs == 3


async def test_the_sync_beside_a_blocked_loop_fails(tmp_path: Path) -> None:
    """The store has failed, as with any sync: whoever calls next is told, and nothing is synced
    again.
    """
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=EveryN(64, within=0.05), disk=disk)
    disk.fail("sync", EIO, forever=True)
    hold = disk.hold("sync", of=".segment")
    await store.append(b"x")
    assert hold.reached.wait(PATIENCE)
    hold.released.set()
    with pytest.raises(StoreFailedError):
        await store.append(b"x")
    with pytest.raises(StoreFailedError):
        await store.aclose()
    assert disk.failures == 1


@pytest.mark.parametrize(
    "policy",
    [Always(), EveryN(64, within=None), OsManaged()],
    ids=["Always", "EveryN(within=None)", "OsManaged"],
)
async def test_without_a_bound_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: SyncPolicy
) -> None:
    """Under the other policies an idle store has no timer, and an hour changes nothing."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=policy, disk=disk) as store:
        timers = Timers(monkeypatch)
        await store.append(b"x", durability=Stage.FLUSHED)
        await tick()  # it was told, and now the store is idle
        assert timers.pending == []
        calls = len(disk.calls)
        pass_time(monkeypatch, 3600)
        for _ in range(5):
            await tick()
        await store.flush()
        assert (store.synced_sequence, len(disk.calls)) == (0, calls)


async def test_a_store_with_nothing_unsynced_has_no_timer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer of `within` lives only while something is unsynced, and ends with the store."""
    timers = Timers(monkeypatch)
    async with Store.open(tmp_path, sync_policy=EveryN(64)) as store:
        await store.append(b"x")
        await tick()
        assert len(timers.pending) == 1
        await store.sync()
        assert timers.pending == []
        await store.append(b"x")
    assert timers.pending == []


async def test_a_commit_that_comes_back_during_the_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts no timer: a closed store leaves nothing in the loop that would keep it alive."""
    disk = FailingDisk()
    timers = Timers(monkeypatch)
    store = await Store.open(tmp_path, sync_policy=EveryN(64), disk=disk)
    with held(disk, "write") as call:
        store.append_nowait(b"x")
        await call.reached()
        closing = ensure_future(store.aclose())
        await tick()
    await closing
    assert timers.pending == []


async def test_os_managed_syncs_nothing_by_itself(tmp_path: Path) -> None:
    """Under OsManaged nothing is synced until `sync`, a roll or the close; each of them covers
    everything.
    """
    disk = OracleDisk()
    async with Store.open(
        tmp_path, sync_policy=OsManaged(), max_segment_bytes=1 << 20, disk=disk
    ) as store:
        syncs = disk.syncs
        for _ in range(200):
            assert (await store.append(b"x")).stage is Stage.FLUSHED
        assert (disk.syncs, store.statistics().unsynced_records) == (syncs, 200)
        await store.sync()
        assert (disk.syncs, disk.synced) == (syncs + 1, 200)
        await store.append(b"x" * (1 << 20))
        await store.append(b"behind the roll")
        assert disk.synced == 201
        assert store.synced_sequence == 201
    assert disk.synced == 202


async def test_always(tmp_path: Path) -> None:
    """Under Always whoever is told has a record that is on the disk."""
    disk = OracleDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:

        async def work() -> None:
            for _ in range(20):
                receipt = await store.append(b"x")
                assert receipt.stage is Stage.SYNCED
                assert disk.synced > receipt.sequence
                assert store.synced_sequence > receipt.sequence

        await asyncio.gather(*(work() for _ in range(50)))
