"""The face: appending, and how much of it may be under way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aquipu import (
    Always,
    BufferFullError,
    EveryN,
    OsManaged,
    Receipt,
    Record,
    RecordTooLargeError,
    Stage,
    Store,
    SyncPolicy,
)
from tests.disk import FailingDisk
from tests.face.faces import all_of, not_for, of_a_loop, of_several
from tests.remote.daemon.served import Served, served, soon, until

pytestmark = pytest.mark.asyncio


async def test_a_receipt_is_that_of_the_record(store: Store, it: Served) -> None:
    """Sequence, time and stage are those with which the record is in the log, and so are data and
    labels.
    """
    receipt = await store.append(b"signed", relations=("user:7", "märz"))
    assert receipt == Receipt(0, receipt.timestamp, Stage.SYNCED)
    (record,) = await all_of(it.store.scan())
    assert record == Record(0, receipt.timestamp, b"signed", ("user:7", "märz"))
    assert (store.first_sequence, store.next_sequence, store.synced_sequence) == (0, 1, 1)


F, S = Stage.FLUSHED, Stage.SYNCED


@pytest.mark.parametrize(
    ("policy", "stages"),
    [
        (Always(), [S, S, S, S, S, F, S]),
        (EveryN(4, within=None), [F, F, F, S, S, F, F]),
        (OsManaged(), [F, F, F, F, S, F, F]),
    ],
    ids=["Always", "EveryN", "OsManaged"],
)
async def test_the_stage_is_that_of_the_policy(
    tmp_path: Path, policy: SyncPolicy, stages: list[Stage]
) -> None:
    """Or the one that is asked for, whichever process writes."""
    async with served(tmp_path, sync_policy=policy) as it, it.connect() as store:
        for durability, stage in zip((None, None, None, None, S, F, None), stages, strict=True):
            assert (await store.append(b"x", durability=durability)).stage is stage


@of_a_loop
async def test_everybody_of_one_moment_travels_together(store: Store, it: Served) -> None:
    """Many tasks that append at the same time share a commit and a sync, and each gets its own
    receipt.
    """
    receipts = await asyncio.gather(*(store.append(b"%d" % number) for number in range(500)))
    assert [receipt.sequence for receipt in receipts] == list(range(500))
    assert await it.data() == [b"%d" % number for number in range(500)]
    assert it.store.statistics().commits == 1


@not_for("alone", "postgresql", why="it counts the syncs itself: see test_statistics")
async def test_what_a_client_counts(tmp_path: Path) -> None:
    """Its own appends and errors, and where the log stands; the syncs and the files are counted by
    the store that has the files.
    """
    async with (
        served(tmp_path, max_record_bytes=100) as it,
        it.connect() as one,
        it.connect() as two,
    ):
        await two.append(b"of another")
        await one.append_many([b"ab", b"c"], relations=("user:7",))
        with pytest.raises(RecordTooLargeError):
            await one.append(bytes(101))
        seen = await asyncio.to_thread(one.statistics)
        assert (seen.records, seen.bytes, seen.commits, seen.errors["RecordTooLargeError"]) == (
            2,
            3,
            1,
            1,
        )
        assert (seen.append_seconds.total, seen.commit_records.total, seen.sync_seconds.total) == (
            2,
            1,
            0,
        )
        assert (seen.first_sequence, seen.next_sequence, seen.synced_sequence) == (0, 3, 3)
        assert (seen.syncs, seen.segments, seen.disk_bytes, seen.free_bytes) == (0, 0, 0, None)
        assert (seen.buffered_records, seen.unsynced_records, seen.under_way_seconds) == (0, 0, 0)


@of_several
async def test_several_clients_share_the_syncs(it: Served) -> None:
    """What several processes append while the disk is busy leaves as one commit."""
    async with it.connect() as one, it.connect() as two:
        for _ in range(20):
            await asyncio.gather(*(store.append(b"x") for store in (one, two) for _ in range(8)))
        assert it.store.statistics().records == 320
        assert one.next_sequence == 320 or two.next_sequence == 320


async def test_append_many_is_one_commit_in_its_order(store: Store, it: Served) -> None:
    """Receipts in order, each record with the labels; nothing for nothing."""
    receipts = await store.append_many([b"a", bytearray(b"b"), memoryview(b"c")], relations=("l",))
    assert [receipt.sequence for receipt in receipts] == [0, 1, 2]
    assert [(record.data, record.relations) for record in await all_of(it.store.scan())] == [
        (b"a", ("l",)),
        (b"b", ("l",)),
        (b"c", ("l",)),
    ]
    assert await store.append_many([]) == []


async def test_append_nowait_and_its_future(store: Store) -> None:
    """The future resolves when append would have returned; callbacks can be added to it."""
    futures = [store.append_nowait(b"x") for _ in range(3)]
    assert [(await future).sequence for future in futures] == [0, 1, 2]


async def test_flush_and_sync(tmp_path: Path) -> None:
    """After sync everything that was accepted is on the disk, whatever the policy."""
    async with served(tmp_path, sync_policy=OsManaged()) as it, it.connect() as store:
        future = store.append_nowait(b"x")
        await store.flush()
        assert future.done()
        assert store.synced_sequence == it.store.synced_sequence == 0
        await store.sync()
        assert store.synced_sequence == it.store.synced_sequence == 1


# room


@not_for(
    "sync", "postgresql", why="it holds up the disk of this process; threads are not cancelled"
)
async def test_a_buffer_is_bounded(tmp_path: Path) -> None:
    """append_nowait raises when it is full, append waits, and one that is cancelled while it waits
    is not stored.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect(buffer_records=3) as store:
        await store.append(b"first")
        hold = disk.hold("write_synced")
        futures = [store.append_nowait(b"%d" % number) for number in range(3)]
        with pytest.raises(BufferFullError):
            store.append_nowait(b"x")
        waiting = asyncio.ensure_future(store.append(b"waited"))
        cancelled = asyncio.ensure_future(store.append(b"cancelled"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await until(hold.reached.is_set)
        hold.released.set()
        await soon(asyncio.gather(*futures))
        assert (await soon(waiting)).sequence == 4
        assert await it.data() == [b"first", b"0", b"1", b"2", b"waited"]


@of_several
async def test_the_buffer_of_the_one_that_writes_is_full_of_others(tmp_path: Path) -> None:
    """Each waits for its turn there, in the order in which commits came, and reading goes on
    meanwhile.
    """
    disk = FailingDisk()
    async with (
        served(tmp_path, disk=disk, buffer_records=4) as it,
        it.connect() as one,
        it.connect() as two,
    ):
        await one.append(b"first")
        hold = disk.hold("write_synced")
        own = [it.store.append_nowait(b"own") for _ in range(4)]
        await until(hold.reached.is_set)
        waiting = [
            asyncio.ensure_future(store.append_many([b"%d" % number] * 3))
            for number, store in enumerate((one, two))
        ]
        await until(lambda: it.store.statistics().waiting + it.daemon.gathering.waiting == 2)
        assert (await soon(two.get(0))).data == b"first"
        hold.released.set()
        await soon(asyncio.gather(*own, *waiting))
        assert sorted((await it.data())[5:]) == [b"0"] * 3 + [b"1"] * 3
