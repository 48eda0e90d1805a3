"""The face: many callers at once, room in the buffer, and what is counted."""

from __future__ import annotations

import asyncio
from asyncio import Future, ensure_future
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aquipu import Always, BufferFullError, OsManaged, Receipt, Record, Store, SyncPolicy
from aquipu.engine import Commit
from tests.callers import POLICIES, OracleDisk, filled, held, records_of, tick
from tests.disk import FailingDisk
from tests.support import copy_of, engine_of, frames_in, segment_in, segments_in, untimed

pytestmark = pytest.mark.asyncio


# many at once


async def test_append_many(tmp_path: Path) -> None:
    """A batch is one commit; each record gets a receipt, in their order, all with the same time."""
    async with Store.open(tmp_path) as store:
        receipts = await store.append_many(
            [b"a", bytearray(b"b"), memoryview(b"c")], relations=("user:7",)
        )
        assert [receipt.sequence for receipt in receipts] == [0, 1, 2]
        assert len({receipt.timestamp for receipt in receipts}) == 1
        assert store.statistics().commits == 1
        assert [record.relations async for record in store.scan()] == [("user:7",)] * 3
        assert len(frames_in(tmp_path)) == 1


async def test_append_many_of_nothing(tmp_path: Path) -> None:
    """An empty batch is an empty list, and no commit."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        writes = disk.steps("write", "write_synced", "sync")  # the free space is measured meanwhile
        assert await store.append_many([]) == []
        assert await store.append_many(iter(())) == []
        await store.flush()
        assert store.statistics().commits == 0
        assert disk.steps("write", "write_synced", "sync") == writes


async def test_append_many_of_a_generator(tmp_path: Path) -> None:
    """Any iterable will do, and is gone through once, before anything is accepted."""
    async with Store.open(tmp_path) as store:

        def records() -> Iterator[bytes]:
            for number in range(1000):
                assert store.statistics().buffered_records == 0
                yield b"%d" % number

        receipts = await store.append_many(records())
        assert [receipt.sequence for receipt in receipts] == list(range(1000))
    assert await records_of(tmp_path) == [b"%d" % number for number in range(1000)]


async def test_append_many_is_all_or_nothing(tmp_path: Path) -> None:
    """Wherever a crash cuts a batch, its records are there all together, or not at all."""
    async with Store.open(tmp_path / "living", sync_policy=OsManaged()) as store:
        await store.append(b"before")
        before = segment_in(tmp_path / "living").stat().st_size
        await store.append_many([b"%d" % number for number in range(50)])
        crashed = copy_of(tmp_path / "living", "crashed")
    whole = segment_in(crashed).read_bytes()
    for end in [before, before + 1, before + 51, before + 300, len(whole) - 1, len(whole)]:
        path = copy_of(crashed, f"cut at {end}")
        segment_in(path).write_bytes(whole[:end])
        assert len(await records_of(path)) == (51 if end == len(whole) else 1)


async def test_appends_of_one_tick_travel_together(tmp_path: Path) -> None:
    """What comes in one turn of the loop, from any number of tasks, is one commit and sync."""
    disk = OracleDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        syncs = disk.syncs
        await asyncio.gather(*(store.append(b"%d" % number) for number in range(100)))
        assert (store.statistics().commits, disk.syncs - syncs) == (1, 1)


async def test_appends_gather_while_the_disk_is_busy(tmp_path: Path) -> None:
    """What is called while a commit is under way, in however many turns, leaves as the next one."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        with held(disk, "sync") as call:
            futures = [store.append_nowait(b"first")]
            await call.reached()
            for number in range(50):
                futures.append(store.append_nowait(b"%d" % number))
                await tick()
            assert not any(future.done() for future in futures)
        await asyncio.gather(*futures)
        assert store.statistics().commits == 2


async def test_the_next_commit_leaves_before_the_last_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is at what the callers append next while readers are told of what they appended."""
    async with Store.open(tmp_path / "store", sync_policy=Always()) as store:
        engine, seen = engine_of(store), list[tuple[str, int]]()
        submit, publish = engine.submit, engine.publish

        def submitted(commit: Commit[Any], done: Callable[[object], None], **more: bool) -> None:
            seen.append(("submit", commit.first_sequence))
            submit(commit, done, **more)

        def published(commit: Commit[Any]) -> None:
            seen.append(("publish", commit.first_sequence))
            publish(commit)

        monkeypatch.setattr(engine, "submit", submitted)
        monkeypatch.setattr(engine, "publish", published)
        for data in (b"zero", b"one", b"two"):
            await store.append(data)
    assert seen[:4] == [("submit", 0), ("submit", 1), ("publish", 0), ("submit", 2)]


@pytest.mark.parametrize(
    "buffer_records", [65_536, 100], ids=["with room for all", "with room for few"]
)
@POLICIES
async def test_a_thousand_tasks(tmp_path: Path, policy: SyncPolicy, buffer_records: int) -> None:
    """Sequences are dense and in the order of the calls; every record is read back; syncs are no
    more than commits.
    """
    tasks, appends = (1024, 50) if buffer_records == 65_536 else (512, 5)
    disk = OracleDisk()
    calls: list[bytes] = []
    given: dict[bytes, Receipt] = {}

    async def work(store: Store, task: int) -> None:
        for number in range(appends):
            data = b"task %d, append %d" % (task, number)
            calls.append(data)
            given[data] = await store.append(data)

    async with Store.open(
        tmp_path, sync_policy=policy, disk=disk, buffer_records=buffer_records
    ) as store:
        syncs = disk.syncs
        await asyncio.gather(*(work(store, task) for task in range(tasks)))
        statistics = store.statistics()
        assert disk.syncs - syncs == statistics.syncs <= statistics.commits <= tasks * appends
        assert (statistics.records, statistics.next_sequence) == (tasks * appends, tasks * appends)
    assert [given[data].sequence for data in calls] == list(range(tasks * appends))
    times = [given[data].timestamp for data in calls]
    assert times == sorted(times)
    async with Store.open(tmp_path) as store:
        found = [record async for record in store.scan()]
    assert found == [Record(given[data].sequence, given[data].timestamp, data) for data in calls]


# room in the buffer


async def test_the_buffer_is_bounded_in_records(tmp_path: Path) -> None:
    """`append` waits and `append_nowait` raises when `buffer_records` are accepted and not yet
    acknowledged.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=4) as store:
        buffered: list[int] = []
        with held(disk, "write") as call:
            appends = [ensure_future(store.append(b"%d" % number)) for number in range(20)]
            for append in appends:
                append.add_done_callback(
                    lambda _: buffered.append(store.statistics().buffered_records)
                )
            await call.reached()
            assert (store.statistics().buffered_records, store.statistics().waiting) == (4, 16)
            with pytest.raises(BufferFullError) as caught:
                store.append_nowait(b"refused")
            assert (caught.value.path, caught.value.records, caught.value.bytes) == (
                str(tmp_path),
                4,
                4,
            )
        receipts = await asyncio.gather(*appends)
        assert [receipt.sequence for receipt in receipts] == list(range(20))
        assert 0 < max(buffered) <= 4
        assert (store.statistics().buffered_records, store.statistics().waiting) == (0, 0)
    assert await records_of(tmp_path) == [b"%d" % number for number in range(20)]


async def test_the_buffer_is_bounded_in_bytes(tmp_path: Path) -> None:
    """The same for `buffer_bytes`: a large record waits until there is room for all of it."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, max_record_bytes=80, buffer_bytes=100) as store:
        with held(disk, "write") as call:
            first = store.append_nowait(b"x" * 60)
            await call.reached()
            second = store.append_nowait(b"x" * 40)
            assert store.statistics().buffered_bytes == 100
            with pytest.raises(BufferFullError):
                store.append_nowait(b"x")
            third = ensure_future(store.append(b"x" * 61))
            await tick()
            assert (store.statistics().buffered_bytes, store.statistics().waiting) == (100, 1)
        assert [(await append).sequence for append in (first, second, third)] == [0, 1, 2]


async def test_nobody_overtakes_those_who_wait(tmp_path: Path) -> None:
    """Callers are let in in their order: a small record that would fit does not pass a large one
    that waits.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, max_record_bytes=100, buffer_bytes=100) as store:
        with held(disk, "write") as call:
            first = store.append_nowait(b"x" * 60)
            await call.reached()
            large = ensure_future(store.append(b"x" * 50))
            small = ensure_future(store.append(b"x"))
            batch = ensure_future(store.append_many([b"x", b"x"]))
            await tick()
            assert store.statistics().waiting == 3
            with pytest.raises(BufferFullError):
                store.append_nowait(b"x")
        assert [(await append).sequence for append in (first, large, small)] == [0, 1, 2]
        assert [receipt.sequence for receipt in await batch] == [3, 4]


async def test_a_record_that_nobody_awaits_waits_in_line(tmp_path: Path) -> None:
    """With ``in_line`` a record without room is stored in its turn, between those of others;
    cancelled before there is room, it is not stored.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=1) as store:
        with held(disk, "write") as call:
            first = store.append_nowait(b"first", in_line=True)
            await call.reached()
            futures: list[Future[Receipt]] = [ensure_future(store.append(b"awaited"))]
            await tick()
            futures += [store.append_nowait(b"%d" % n, in_line=True) for n in range(3)]
            futures[2].cancel()
            assert store.statistics().waiting == 4
        receipts = await asyncio.gather(first, *futures, return_exceptions=True)
        assert isinstance(receipts.pop(3), asyncio.CancelledError)
        assert [receipt.sequence for receipt in receipts if isinstance(receipt, Receipt)] == [
            0,
            1,
            2,
            3,
        ]
        assert store.statistics().errors["BufferFullError"] == 0
    assert await records_of(tmp_path) == [b"first", b"awaited", b"0", b"2"]


async def test_a_batch_waits_for_room_as_a_whole(tmp_path: Path) -> None:
    """A batch is let in when there is room for all of it, and still is one commit."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=4) as store:
        with held(disk, "write") as call:
            first = [store.append_nowait(b"x") for _ in range(2)]
            await call.reached()
            batch = ensure_future(store.append_many([b"y"] * 3))
            await tick()
            assert (store.statistics().buffered_records, store.statistics().waiting) == (2, 1)
        await asyncio.gather(*first)
        assert [receipt.sequence for receipt in await batch] == [2, 3, 4]
        assert len(frames_in(tmp_path)) == 2


# statistics


async def test_statistics(tmp_path: Path) -> None:
    """A snapshot of counts since the opening, and of what is buffered, unsynced and waiting now."""
    async with Store.open(tmp_path) as store:
        await store.append(b"of an earlier opening")
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk, buffer_records=3) as store:
        empty = untimed(store.statistics())
        assert (empty.records, empty.bytes, empty.commits, empty.syncs, empty.cancelled) == (
            0,
            0,
            0,
            0,
            0,
        )
        assert (
            empty.buffered_records,
            empty.buffered_bytes,
            empty.waiting,
            empty.unsynced_records,
        ) == (0, 0, 0, 0)
        assert (
            empty.first_sequence,
            empty.next_sequence,
            empty.synced_sequence,
            empty.segments,
        ) == (0, 1, 1, 1)
        assert (set(empty.errors.values()), empty.state) == ({0}, "open")
        await store.append_many([b"one", b"three"])
        after = empty._replace(records=2, bytes=8, commits=1, unsynced_records=2, next_sequence=3)
        assert untimed(store.statistics()) == after
        with held(disk, "write") as call:
            appends = [ensure_future(store.append(b"four")) for _ in range(4)]
            await call.reached()
            assert untimed(store.statistics()) == after._replace(
                buffered_records=3, buffered_bytes=12, waiting=1
            )
        await asyncio.gather(*appends)
        await store.sync()
        assert untimed(store.statistics()) == empty._replace(
            records=6, bytes=24, commits=3, syncs=1, next_sequence=7, synced_sequence=7
        )


async def test_statistics_count_data_only(tmp_path: Path) -> None:
    """`bytes` is of the records' data, without their labels."""
    async with Store.open(tmp_path) as store:
        await store.append(b"four", relations=("user:7", "document:42"))
        await store.append_many([b"one", b"three"], relations=("user:7",))
        assert store.statistics().bytes == 12


async def test_statistics_of_a_full_disk_and_a_roll(tmp_path: Path) -> None:
    """`syncs` counts every sync of the log as the disk sees it;

    `segments` the files that hold it.
    """
    disk = OracleDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        syncs = disk.syncs
        for _ in range(10):
            await store.append(b"x")
        assert store.statistics().syncs == disk.syncs - syncs == 10
    async with await filled(tmp_path / "small", max_segment_bytes=4096) as store:
        await store.sync()
        assert store.statistics().segments == len(segments_in(tmp_path / "small")) > 2
