"""The face: what is read of a store while it is written, its sequences and its times."""

from __future__ import annotations

import asyncio
from asyncio import Future, ensure_future
from pathlib import Path
from typing import Any

import pytest

from aquipu import Always, CorruptionError, OsManaged, RecordNotWrittenError, Stage, Store
from tests.callers import (
    Clock,
    data_of,
    filled,
    held,
    numbered,
    open_descriptors,
    records_of,
    sequences_of,
    tick,
)
from tests.disk import FailingDisk
from tests.support import copy_of, flip, segment_in, segments_in

pytestmark = pytest.mark.asyncio


# reading


@pytest.mark.parametrize(
    "max_segment_bytes", [64 << 20, 4096], ids=["one segment", "several segments"]
)
async def test_scan_is_half_open(tmp_path: Path, max_segment_bytes: int) -> None:
    """A scan gives the records from `start` up to, not including, `stop`, like a slice, across
    segments.
    """
    bounds = [None, 0, 1, 49, 50, 99, 100, 101, 2**64]
    async with await filled(tmp_path, max_segment_bytes=max_segment_bytes) as store:
        assert (len(segments_in(tmp_path)) > 2) == (max_segment_bytes == 4096)
        for start in bounds:
            for stop in bounds:
                if start is None or stop is None or start <= stop:
                    assert await sequences_of(store, start, stop) == list(range(100))[start:stop]
        assert await data_of(store) == [numbered(number) for number in range(100)]


@pytest.mark.parametrize(
    "max_segment_bytes", [64 << 20, 4096], ids=["one segment", "several segments"]
)
async def test_get(tmp_path: Path, max_segment_bytes: int) -> None:
    """`get` finds each record, in the segment that is being written and in sealed ones, also after
    reopening.
    """
    async with await filled(tmp_path, max_segment_bytes=max_segment_bytes) as store:
        for number in range(100):
            record = await store.get(number)
            assert (record.sequence, record.data) == (number, numbered(number))
    async with Store.open(tmp_path, max_segment_bytes=max_segment_bytes) as store:
        for number in (0, 1, 50, 98, 99):
            assert (await store.get(number)).data == numbered(number)


async def test_reading_within_large_commits(tmp_path: Path) -> None:
    """One record of a commit can be read alone, and a scan may begin and end within one."""
    async with Store.open(tmp_path) as store:
        for first in (0, 1000, 2000):
            await store.append_many([b"%d" % number for number in range(first, first + 1000)])
        assert [(await store.get(number)).data for number in (0, 999, 1000, 1500, 2999)] == [
            b"0",
            b"999",
            b"1000",
            b"1500",
            b"2999",
        ]
        assert await data_of(store, 995, 2005) == [b"%d" % number for number in range(995, 2005)]
        assert await data_of(store, 1400, 1402) == [b"1400", b"1401"]


async def test_reading_sees_only_what_is_acknowledged(tmp_path: Path) -> None:
    """A record that is in the file, and whose caller has not been told yet, is not read."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        await store.append(b"acknowledged")
        with held(disk, "write_synced") as call:
            store.append_nowait(b"under way")
            await call.reached()
            assert await data_of(store) == [b"acknowledged"]
            with pytest.raises(RecordNotWrittenError) as caught:
                await store.get(1)
            assert (caught.value.sequence, caught.value.bound) == (1, 1)
        await store.flush()
        assert (await store.get(1)).data == b"under way"


async def test_get_of_a_record_that_is_not_there(tmp_path: Path) -> None:
    """RecordNotWrittenError is also a LookupError."""
    async with Store.open(tmp_path) as store:
        with pytest.raises(LookupError):
            await store.get(0)


async def test_a_scan_of_an_empty_store(tmp_path: Path) -> None:
    """Nothing comes out, and nothing goes wrong."""
    async with Store.open(tmp_path) as store:
        assert await data_of(store) == []


async def test_a_scan_sees_what_was_acknowledged_at_its_first_step(tmp_path: Path) -> None:
    """Not what was there when it was made, and nothing that is appended after the first step."""
    async with Store.open(tmp_path) as store:
        await store.append(b"0")
        scan = store.scan()
        await store.append(b"1")
        seen = []
        async for record in scan:
            seen.append(record.data)
            await store.append(b"later")
        assert seen == [b"0", b"1"]
        assert len(await data_of(store)) == 4


async def test_a_scan_while_others_append(tmp_path: Path) -> None:
    """Scans that run while the log grows and rolls give a sound prefix each, and disturb nobody."""
    async with Store.open(tmp_path, sync_policy=OsManaged(), max_segment_bytes=8192) as store:

        async def write() -> None:
            for number in range(600):
                await store.append(b"%d" % number * 20)

        async def read() -> int:
            seen = 0
            async for record in store.scan():
                assert (record.sequence, record.data) == (seen, b"%d" % seen * 20)
                seen += 1
            return seen

        writing = ensure_future(write())
        while not writing.done():
            until = store.next_sequence
            assert await read() >= until
            await tick()  # a scan of nothing does not suspend
        await writing
        assert await read() == 600
        assert store.statistics().segments > 3


async def test_leaving_a_scan_in_the_middle(tmp_path: Path) -> None:
    """`aclose` closes the file and ends the scan; the second time it does nothing."""
    async with await filled(tmp_path, size=10_000) as store:
        before = open_descriptors(tmp_path)
        scan = store.scan()
        assert (await anext(scan)).sequence == 0
        assert len(open_descriptors(tmp_path)) > len(before)
        await scan.aclose()
        assert open_descriptors(tmp_path) == before
        with pytest.raises(StopAsyncIteration):
            await anext(scan)
        await scan.aclose()


async def test_leaving_the_block_of_a_scan(tmp_path: Path) -> None:
    """`async with store.scan()` closes the file at the end of the block."""
    async with await filled(tmp_path, size=10_000) as store:
        before = open_descriptors(tmp_path)
        async with store.scan(10) as scan:
            async for record in scan:
                assert record.sequence == 10
                break
            assert len(open_descriptors(tmp_path)) > len(before)
        assert open_descriptors(tmp_path) == before


async def test_the_end_of_a_scan(tmp_path: Path) -> None:
    """At its end a scan has closed its file, and has ended for good."""
    async with await filled(tmp_path) as store:
        before = open_descriptors(tmp_path)
        scan = store.scan()
        assert len([record async for record in scan]) == 100
        assert open_descriptors(tmp_path) == before
        await store.append(b"later")
        with pytest.raises(StopAsyncIteration):
            await anext(scan)


async def test_several_scans_at_once(tmp_path: Path) -> None:
    """Each scan has its own place."""
    async with await filled(tmp_path, max_segment_bytes=4096) as store:
        found = await asyncio.gather(
            *(sequences_of(store, start, start + 20) for start in range(0, 100, 10))
        )
        assert found == [list(range(100))[start : start + 20] for start in range(0, 100, 10)]


async def test_reading_a_frame_that_was_damaged_meanwhile(tmp_path: Path) -> None:
    """What does not check is CorruptionError with file and offset; what stands before it can be
    read; writing goes on.
    """
    async with Store.open(tmp_path) as store:
        opened = len(open_descriptors(tmp_path))
        await store.append(b"sound")
        offset = segment_in(tmp_path).stat().st_size
        await store.append(b"to be damaged")
        flip(segment_in(tmp_path), offset + 70)
        with pytest.raises(CorruptionError) as caught:
            await data_of(store)
        assert (caught.value.path, caught.value.offset) == (str(segment_in(tmp_path)), offset)
        assert len(open_descriptors(tmp_path)) == opened
        with pytest.raises(CorruptionError):
            await store.get(1)
        assert (await store.get(0)).data == b"sound"
        assert (await store.append(b"after")).sequence == 2


# sequences and times


async def test_sequences_are_in_the_order_of_the_calls(tmp_path: Path) -> None:
    """Dense, from 0, in the order in which the appends of whatever kind were called, across commits
    and reopenings.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=8) as store:
        with held(disk, "write") as call:
            calls: list[Future[Any]] = [store.append_nowait(b"0")]
            await call.reached()
            calls.append(ensure_future(store.append(b"1")))
            calls.append(ensure_future(store.append_many([b"2", b"3", b"4"])))
            await tick()
            calls.append(store.append_nowait(b"5"))
            calls.append(
                ensure_future(store.append_many([b"6", b"7", b"8"]))
            )  # from here on they wait for room
            calls.append(ensure_future(store.append(b"9")))
            await tick()
            assert store.statistics().waiting == 2
        receipts = []
        for told in await asyncio.gather(*calls):
            receipts += told if isinstance(told, list) else [told]
        assert [receipt.sequence for receipt in receipts] == list(range(10))
    async with Store.open(tmp_path) as store:
        assert (await store.append(b"10")).sequence == 10
    assert await records_of(tmp_path) == [b"%d" % number for number in range(11)]


async def test_bounds_of_the_log(tmp_path: Path) -> None:
    """`first_sequence`, `next_sequence` and `synced_sequence` bound what there is and what is safe,
    half-open.
    """
    async with Store.open(tmp_path, sync_policy=OsManaged()) as store:
        assert (store.first_sequence, store.next_sequence, store.synced_sequence) == (0, 0, 0)
        await store.append_many([b"x", b"y"])
        assert (store.first_sequence, store.next_sequence, store.synced_sequence) == (0, 2, 0)
        await store.append(b"z", durability=Stage.SYNCED)
        assert (store.first_sequence, store.next_sequence, store.synced_sequence) == (0, 3, 3)
    async with Store.open(tmp_path) as store:
        assert (store.first_sequence, store.next_sequence, store.synced_sequence) == (0, 3, 3)


async def test_the_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By up to a second, timestamps do not decrease, in a commit and from one to the next, for
    records alone and in batches. By more they do, from segment to segment: see `test_clock_steps`.
    """
    clock = Clock(monkeypatch, 1000, 500, 2000, 1500)
    async with Store.open(tmp_path) as store:
        futures = [store.append_nowait(b"x") for _ in range(4)]
        receipts = list(await asyncio.gather(*futures))
        clock.set(10)
        receipts += await store.append_many([b"x", b"x"])
        receipts.append(await store.append(b"x"))
        clock.set(2001)
        receipts.append(await store.append(b"x"))
        expected = [1000, 1000, 2000, 2000, 2000, 2000, 2000, 2001]
        assert [receipt.timestamp for receipt in receipts] == expected
        assert [record.timestamp async for record in store.scan()] == expected


async def test_the_clock_is_set_back_between_two_openings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By up to a second, timestamps do not decrease within a segment, however often the store is
    opened.
    """
    clock = Clock(monkeypatch, 5000)
    async with Store.open(tmp_path) as store:
        await store.append(b"x")
    clock.set(1000)
    for _ in range(3):
        async with Store.open(tmp_path) as store:
            assert (await store.append(b"x")).timestamp == 5000


async def test_the_clock_is_set_back_after_a_roll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By up to a second, timestamps do not decrease, also when the newest segment holds no record
    yet, closed or crashed.
    """
    clock = Clock(monkeypatch, 5000)
    async with Store.open(tmp_path / "closed", max_segment_bytes=4096) as store:
        await store.append(b"x" * 5000)
        await store.append(b"y" * 5000)  # when this is acknowledged, the first roll has been made
        await store.sync()  # and behind this the second
        crashed = copy_of(tmp_path / "closed", "crashed")
    torn = copy_of(crashed, "torn")
    with segments_in(torn)[-1].open("ab") as file:
        file.write(b"half a frame")
    ahead = copy_of(crashed, "with zeros ahead")
    with segments_in(ahead)[-1].open("ab") as file:
        file.write(bytes(10_000))
    clock.set(1000)
    for path in (tmp_path / "closed", crashed, torn, ahead):
        async with Store.open(path) as store:
            assert (await store.append(b"z")).timestamp == 5000, path.name
