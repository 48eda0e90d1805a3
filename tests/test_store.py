"""The face: what a user of a store sees, from its opening to its close."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import struct
import sys
import threading
import warnings
import weakref
from asyncio import Future, ensure_future
from collections.abc import Awaitable, Callable, Iterator, Sequence
from errno import EIO
from pathlib import Path
from typing import Any, Literal

import pytest

from aquipu import (
    Always,
    BufferFullError,
    CorruptionError,
    EveryN,
    OsManaged,
    Receipt,
    Record,
    RecordNotWrittenError,
    Stage,
    Store,
    StoreFailedError,
    StoreLockedError,
    SyncPolicy,
)
from aquipu.disk import Disk
from aquipu.frame import MAGIC
from aquipu.layout import ACKNOWLEDGED, LOCK, segment_name
from tests.support import FailingDisk, copy_of, flip, frames_in, segment_in, segments_in, untimed
from tests.test_failing_disk import Timers, held, open_descriptors, outcomes_of, pass_time, records_of, tick

pytestmark = pytest.mark.asyncio

PATIENCE = 20.0
"""Seconds until a test that waits in vain gives up."""
POLICIES = pytest.mark.parametrize("policy", [Always(), EveryN(64), OsManaged()], ids=["Always", "EveryN(64)", "OsManaged"])


class WitnessDisk(Disk):
    """Knows by itself, from the frames' headers and the calls of the system, which sequences were written and synced."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        """One past the last record written."""
        self.synced = 0
        """Everything below was covered by a sync that has returned."""
        self.syncs = 0

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        super().write(descriptor, buffers, offset)
        self._note(buffers)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        covers_all = self.synced == self.written
        if not super().write_synced(descriptor, buffers, offset):
            return False
        self._note(buffers)
        self.syncs += 1
        if covers_all:
            self.synced = self.written
        return True

    def sync(self, descriptor: int) -> None:
        covered = self.written
        super().sync(descriptor)
        self.syncs += 1
        self.synced = covered

    def _note(self, buffers: Sequence[bytes]) -> None:
        if buffers[0].startswith(MAGIC):
            _, _, records, _, first = struct.unpack_from("<4sIIIQ", buffers[0])
            self.written = first + records


class Clock:
    """Stands in for the system's clock, which may be set back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *times: int) -> None:
        self._times = list(times)
        monkeypatch.setattr("aquipu.writing.time_ns", self)

    def __call__(self) -> int:
        return self._times.pop(0) if len(self._times) > 1 else self._times[0]

    def set(self, time: int) -> None:
        self._times = [time]


async def data_of(store: Store, start: int | None = None, stop: int | None = None) -> list[bytes]:
    return [record.data async for record in store.scan(start, stop)]


async def sequences_of(store: Store, start: int | None = None, stop: int | None = None) -> list[int]:
    return [record.sequence async for record in store.scan(start, stop)]


# opening


async def test_open_awaited(tmp_path: Path) -> None:
    """`await Store.open(...)` gives a store that is closed with `aclose`."""
    store = await Store.open(tmp_path)
    receipt = await store.append(b"x")
    await store.aclose()
    assert receipt.sequence == 0
    assert await records_of(tmp_path) == [b"x"]


async def test_open_entered(tmp_path: Path) -> None:
    """`async with Store.open(...)` gives a store that is closed at the end of the block."""
    async with Store.open(tmp_path) as store:
        await store.append(b"x")
    assert open_descriptors(tmp_path) == []
    assert await records_of(tmp_path) == [b"x"]


async def test_open_awaited_and_then_entered(tmp_path: Path) -> None:
    """A store that was awaited can be entered as well, and is closed at the end of the block."""
    async with await Store.open(tmp_path) as store:
        await store.append(b"x")
    assert "closed" in repr(store)


async def test_a_block_that_raises(tmp_path: Path) -> None:
    """An error in the block comes out as it is; what was accepted is stored."""

    async def work() -> None:
        async with Store.open(tmp_path) as store:
            store.append_nowait(b"accepted")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert await records_of(tmp_path) == [b"accepted"]


async def test_a_missing_directory(tmp_path: Path) -> None:
    """A missing directory is made, with those above it; directories have mode 0700 and files 0600."""
    async with Store.open(tmp_path / "a" / "b") as store:
        await store.append(b"x")
        assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("a", "a/b")} == {0o700}
        assert {file.stat().st_mode & 0o777 for file in (tmp_path / "a" / "b").iterdir()} == {0o600}


async def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    """The mode of a directory that is there already is its owner's business."""
    os.chmod(tmp_path, 0o750)
    async with Store.open(tmp_path):
        assert os.stat(tmp_path).st_mode & 0o777 == 0o750


async def test_a_path_of_any_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is a str or PathLike; `store.path` is absolute, so it stays true when the directory of the process changes."""
    monkeypatch.chdir(tmp_path)
    for path in ("store", Path("store"), str(tmp_path / "store")):
        async with Store.open(path) as store:
            assert store.path == str(tmp_path / "store")


async def test_a_symbolic_link_to_a_directory(tmp_path: Path) -> None:
    """A store may be reached through a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    async with Store.open(tmp_path / "link") as store:
        await store.append(b"x")
    assert await records_of(tmp_path / "real") == [b"x"]


async def test_repr(tmp_path: Path) -> None:
    """The repr tells the path, the state and how far the log reaches."""
    async with Store.open(tmp_path) as store:
        await store.append(b"x")
        assert repr(store) == f"<Store '{tmp_path}' open next_sequence=1>"
    assert repr(store) == f"<Store '{tmp_path}' closed next_sequence=1>"


async def test_a_second_opener(tmp_path: Path) -> None:
    """Whoever opens a store that is being written gets StoreLockedError, naming the path and the holder's pid."""
    async with Store.open(tmp_path) as store:
        with pytest.raises(StoreLockedError) as caught:
            await Store.open(tmp_path, lock_timeout=0)
        assert (caught.value.path, caught.value.pid) == (str(tmp_path), os.getpid())
        assert (await store.append(b"undisturbed")).sequence == 0


async def test_a_second_opener_that_waits(tmp_path: Path) -> None:
    """Within its `lock_timeout` a second opener gets the store as soon as the first one lets go."""
    disk = FailingDisk()
    async with Store.open(tmp_path) as store:
        with held(disk, "try_lock", nth=2) as call:
            second = ensure_future(records_by(tmp_path, disk))
            await call.reached()  # the first attempt has failed
        await store.append(b"written meanwhile")
        assert not second.done()
    assert await second == [b"written meanwhile"]


async def records_by(path: Path, disk: Disk) -> list[bytes]:
    async with Store.open(path, disk=disk, lock_timeout=20) as store:
        return await data_of(store)


class MeetingDisk(Disk):
    """Those who look whether the directory is there wait for each other, so that both see that it is not."""

    def __init__(self) -> None:
        super().__init__()
        self._meeting = threading.Barrier(2, timeout=20)

    def exists(self, path: str) -> bool:
        found = super().exists(path)
        self._meeting.wait()
        return found


async def test_two_openers_of_a_missing_directory(tmp_path: Path) -> None:
    """When two make the directory at the same time, one gets the store, and the other waits for it as ever."""
    disk = MeetingDisk()
    both = [ensure_future(records_by(tmp_path / "above" / "store", disk)) for _ in range(2)]
    assert await outcomes_of(both) == [[], []]


async def test_recovery_of_a_new_store(tmp_path: Path) -> None:
    """`store.recovery` tells that the store was made."""
    async with Store.open(tmp_path) as store:
        report = store.recovery
    assert (report.created, report.clean, report.next_sequence, report.segments) == (True, True, 0, 1)


async def test_recovery_of_a_closed_store(tmp_path: Path) -> None:
    """`store.recovery` tells that nothing had to be done."""
    async with Store.open(tmp_path) as store:
        await store.append_many([b"x", b"y"])
    async with Store.open(tmp_path) as store:
        report = store.recovery
    assert (report.created, report.clean, report.next_sequence) == (False, True, 2)
    assert (report.rewritten_bytes, report.cut_bytes, report.cut_kept_in) == (0, 0, None)


async def test_recovery_after_a_crash(tmp_path: Path) -> None:
    """`store.recovery` tells what was found, what was written once more, what was cut, and where the cut bytes are."""
    async with Store.open(tmp_path / "living", sync_policy=OsManaged()) as store:
        await store.append_many([b"x", b"y"])
        crashed = copy_of(tmp_path / "living", "crashed")
    end = segment_in(crashed).stat().st_size
    with segment_in(crashed).open("ab") as file:
        file.write(b"half a frame")
    async with Store.open(crashed) as store:
        report = store.recovery
        assert await data_of(store) == [b"x", b"y"]
        assert store.synced_sequence == 2
    assert (report.created, report.clean, report.next_sequence) == (False, False, 2)
    assert report.rewritten_bytes > 0
    assert (report.cut_bytes, report.cut_offset, report.cut_from) == (12, end, str(segment_in(crashed)))
    assert report.cut_kept_in is not None
    assert (crashed / Path(report.cut_kept_in).name).read_bytes() == b"half a frame"


# records and receipts


async def test_a_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt holds the sequence, the time of acceptance and the stage; the record read back has the first two."""
    Clock(monkeypatch, 1_700_000_000_000_000_123)
    async with Store.open(tmp_path) as store:
        receipt = await store.append(b"data")
        assert receipt == Receipt(0, 1_700_000_000_000_000_123, Stage.FLUSHED)
        assert await store.get(0) == Record(0, 1_700_000_000_000_000_123, b"data", ())


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        (b"bytes", b"bytes"),
        (bytearray(b"bytearray"), b"bytearray"),
        (memoryview(b"memoryview")[6:], b"view"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(struct.pack("<2I", 1, 2)).cast("I"), b"\1\0\0\0\2\0\0\0"),
        (b"", b""),
        (bytes(range(256)), bytes(range(256))),
        (b"\0" * 1000, b"\0" * 1000),
        (MAGIC * 20, MAGIC * 20),
    ],
    ids=["bytes", "bytearray", "memoryview", "with a step", "of numbers", "empty", "every byte", "zeros", "like a frame"],
)
async def test_data_of_every_kind(tmp_path: Path, data: Any, stored: bytes) -> None:
    """Whatever is bytes-like is stored as its bytes, whatever they are."""
    async with Store.open(tmp_path) as store:
        await store.append(data)
        await store.append_nowait(data)
        await store.append_many([data, data])
        assert await data_of(store) == [stored] * 4
    assert await records_of(tmp_path) == [stored] * 4


async def test_large_records(tmp_path: Path) -> None:
    """A record may be larger than everything that is read or written at a time."""
    sizes = [3, 300_000, 5_000_000, 1, 1_100_000]
    generator = random.Random(7)
    payloads = [generator.randbytes(size) for size in sizes]
    async with Store.open(tmp_path) as store:
        receipts = await asyncio.gather(*map(store.append, payloads))
        assert [receipt.sequence for receipt in receipts] == list(range(5))
        assert await data_of(store) == payloads
        assert (await store.get(2)).data == payloads[2]
    assert await records_of(tmp_path) == payloads


async def test_relations(tmp_path: Path) -> None:
    """Labels are stored with their record and read back in their order, from every kind of append, also after reopening."""
    labels = ("user:7", "dokument:größe", "with a space", "x" * 1024)
    expected = [labels, (), ("nowait",), ("many",), ("many",), ("generated:0", "generated:1"), ("twice", "twice")]
    async with Store.open(tmp_path) as store:
        waiting = [
            ensure_future(store.append(b"a", relations=labels)),
            ensure_future(store.append(b"b")),
        ]
        await tick()
        await store.append_nowait(b"c", relations=["nowait"])
        await store.append_many([b"d", b"e"], relations=("many",))
        await store.append(b"f", relations=(f"generated:{number}" for number in range(2)))
        await store.append(b"g", relations=("twice", "twice"))
        await asyncio.gather(*waiting)
        assert [record.relations async for record in store.scan()] == expected
    async with Store.open(tmp_path) as store:
        assert [record.relations async for record in store.scan()] == expected
        assert (await store.get(0)).relations == labels


async def test_as_many_labels_as_a_record_may_carry(tmp_path: Path) -> None:
    """255 labels of 1,024 bytes are stored; only one more of either is refused."""
    labels = tuple(f"{number:03}".ljust(1024, "x") for number in range(255))
    async with Store.open(tmp_path) as store:
        await store.append(b"data", relations=labels)
        assert await store.get(0) == Record(0, (await store.get(0)).timestamp, b"data", labels)


async def test_a_record_at_its_limit_with_labels(tmp_path: Path) -> None:
    """Labels do not make a record that is within `max_record_bytes` wait for room that can never be."""
    async with Store.open(tmp_path, max_record_bytes=100, buffer_bytes=100) as store:
        append = ensure_future(store.append(b"x" * 100, relations=("user:7",)))
        await tick()
        assert store.statistics().waiting == 0
        assert (await append).sequence == 0


async def test_a_buffer_that_is_used_again(tmp_path: Path) -> None:
    """Data is copied before the call first suspends: a caller may overwrite its buffer at once."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=4) as store:
        buffer = bytearray(b"first")
        with held(disk, "write") as call:
            appends: list[Future[Any]] = [store.append_nowait(buffer), store.append_nowait(memoryview(buffer))]
            appends.append(ensure_future(store.append(buffer)))
            await tick()
            buffer[:] = b"other"
            await call.reached()
            appends.append(ensure_future(store.append_many([buffer])))
            appends.append(ensure_future(store.append(buffer)))  # waits for room
            appends.append(ensure_future(store.append_many([buffer])))
            await tick()
            assert store.statistics().waiting == 2
            buffer[:] = b"third"
        await asyncio.gather(*appends)
    assert await records_of(tmp_path) == [b"first"] * 3 + [b"other"] * 3


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
async def test_durability_of_one_record(tmp_path: Path, policy: SyncPolicy, durability: Stage | None, stage: Stage) -> None:
    """A record reaches the stage that it, or else the policy, asks for, and its caller is told when it has."""
    disk = WitnessDisk()
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
    """A FLUSHED record is in the file as every process sees it: the end of this one would not take it."""
    async with Store.open(tmp_path, sync_policy=OsManaged()) as store:
        await store.append(b"in the page cache")
        assert b"in the page cache" in segment_in(tmp_path).read_bytes()


async def test_the_strictest_member_of_a_commit(tmp_path: Path) -> None:
    """Records that leave together share one sync when one of them asks for it, and all of them are SYNCED then."""
    disk = WitnessDisk()
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


async def test_a_flushed_record_is_told_before_the_sync_of_the_next_commit(tmp_path: Path) -> None:
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


# many at once


async def test_append_many(tmp_path: Path) -> None:
    """A batch is one commit; each record gets a receipt, in their order, all with the same time."""
    async with Store.open(tmp_path) as store:
        receipts = await store.append_many([b"a", bytearray(b"b"), memoryview(b"c")], relations=("user:7",))
        assert [receipt.sequence for receipt in receipts] == [0, 1, 2]
        assert len({receipt.timestamp for receipt in receipts}) == 1
        assert store.statistics().commits == 1
        assert [record.relations async for record in store.scan()] == [("user:7",)] * 3
        assert len(frames_in(tmp_path)) == 1


async def test_append_many_of_nothing(tmp_path: Path) -> None:
    """An empty batch is an empty list, and no commit."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        calls = len(disk.calls)
        assert await store.append_many([]) == []
        assert await store.append_many(iter(())) == []
        await store.flush()
        assert (store.statistics().commits, len(disk.calls)) == (0, calls)


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
    """What is called in one turn of the loop, from however many tasks, is one commit with one sync."""
    disk = WitnessDisk()
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


@pytest.mark.parametrize("buffer_records", [65_536, 100], ids=["with room for all", "with room for few"])
@POLICIES
async def test_a_thousand_tasks(tmp_path: Path, policy: SyncPolicy, buffer_records: int) -> None:
    """Sequences are dense and in the order of the calls; every record is read back; syncs are no more than commits."""
    tasks, appends = (1024, 50) if buffer_records == 65_536 else (512, 5)
    disk = WitnessDisk()
    calls: list[bytes] = []
    given: dict[bytes, Receipt] = {}

    async def work(store: Store, task: int) -> None:
        for number in range(appends):
            data = b"task %d, append %d" % (task, number)
            calls.append(data)
            given[data] = await store.append(data)

    async with Store.open(tmp_path, sync_policy=policy, disk=disk, buffer_records=buffer_records) as store:
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


# waiting for all that was accepted


@pytest.mark.parametrize("method", ["flush", "sync"])
async def test_a_barrier_with_nothing_to_wait_for(tmp_path: Path, method: str) -> None:
    """`flush` and `sync` of a store that has nothing to do touch nothing."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        await getattr(store, method)()
        await store.append(b"x")
        calls = len(disk.calls)
        await getattr(store, method)()
        assert len(disk.calls) == calls


async def test_flush_waits_for_what_is_accepted(tmp_path: Path) -> None:
    """`flush` waits for the commit that is under way and the one that forms, and for nothing that comes later."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        with held(disk, "write", nth=3) as third:
            with held(disk, "write", nth=2) as second:
                with held(disk, "write") as first:
                    appends = [store.append_nowait(b"under way")]
                    await first.reached()
                    flush_of_first = ensure_future(store.flush())
                    await tick()
                    appends.append(store.append_nowait(b"forming"))
                    flush_of_second = ensure_future(store.flush())
                    await tick()
                    assert not flush_of_first.done()
                await second.reached()
                await flush_of_first
                appends.append(store.append_nowait(b"later"))
                assert not flush_of_second.done()
            await third.reached()
            await flush_of_second
            assert not appends[2].done()
        await appends[2]


async def test_flush_does_not_sync(tmp_path: Path) -> None:
    """`flush` waits for the page cache only."""
    disk = WitnessDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        syncs = disk.syncs
        store.append_nowait(b"x")
        await store.flush()
        assert (store.next_sequence, store.synced_sequence, disk.syncs) == (1, 0, syncs)


async def test_sync_makes_everything_safe(tmp_path: Path) -> None:
    """After `sync` everything acknowledged, and everything accepted, is on the disk."""
    disk = WitnessDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        await store.append(b"acknowledged")
        accepted = store.append_nowait(b"accepted")
        await store.sync()
        assert accepted.done()
        assert disk.synced == store.synced_sequence == store.next_sequence == 2


async def test_sync_while_a_commit_without_a_sync_is_under_way(tmp_path: Path) -> None:
    """`sync` waits for a sync that begins after that commit was written."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        with held(disk, "sync") as syncing:
            with held(disk, "write") as writing:
                append = store.append_nowait(b"x")
                await writing.reached()
                sync = ensure_future(store.sync())
                await tick()
            await syncing.reached()
            await append
            assert (store.next_sequence, store.synced_sequence, sync.done()) == (1, 0, False)
        await sync
        assert store.synced_sequence == 1


async def test_sync_while_a_commit_with_a_sync_is_under_way(tmp_path: Path) -> None:
    """`sync` shares the sync of a commit that has not returned: it covers everything accepted before."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        await store.append(b"before")
        syncs = disk.syncs
        with held(disk, "sync") as call:
            append = store.append_nowait(b"x", durability=Stage.SYNCED)
            await call.reached()
            barriers = [ensure_future(store.sync()), ensure_future(store.flush()), ensure_future(store.sync())]
            await tick()
            assert not any(barrier.done() for barrier in barriers)
        await asyncio.gather(append, *barriers)
        assert (store.synced_sequence, disk.syncs) == (2, syncs + 1)


async def test_sync_joins_the_commit_that_forms(tmp_path: Path) -> None:
    """`sync` needs no commit of its own when one is forming: that one is synced, and its callers know."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        syncs = disk.syncs
        append = store.append_nowait(b"x")
        await store.sync()
        assert ((await append).stage, disk.syncs) == (Stage.SYNCED, syncs + 1)


async def test_barriers_do_not_wait_for_those_who_wait_for_room(tmp_path: Path) -> None:
    """What waits for room is not accepted yet: `flush` does not promise it."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk, buffer_records=1) as store:
        with held(disk, "write", nth=2) as second:
            with held(disk, "write") as first:
                accepted = store.append_nowait(b"accepted")
                await first.reached()
                waiting = ensure_future(store.append(b"waiting"))
                await tick()
                flush = ensure_future(store.flush())
                await tick()
            await second.reached()
            await flush
            assert (accepted.done(), waiting.done()) == (True, False)
        assert (await waiting).sequence == 1


# reading


def numbered(number: int, size: int = 100) -> bytes:
    return (b"%d " % number * size)[:size]


async def filled(path: Path, *, size: int = 100, **options: Any) -> Store:
    """A store with the records 0 to 99, each in a commit of its own."""
    store = await Store.open(path, sync_policy=OsManaged(), **options)
    for number in range(100):
        await store.append(numbered(number, size))
    return store


@pytest.mark.parametrize("max_segment_bytes", [64 << 20, 4096], ids=["one segment", "several segments"])
async def test_scan_is_half_open(tmp_path: Path, max_segment_bytes: int) -> None:
    """A scan gives the records from `start` up to, not including, `stop`, like a slice, across segments."""
    bounds = [None, 0, 1, 49, 50, 99, 100, 101, 2**64]
    async with await filled(tmp_path, max_segment_bytes=max_segment_bytes) as store:
        assert (len(segments_in(tmp_path)) > 2) == (max_segment_bytes == 4096)
        for start in bounds:
            for stop in bounds:
                if start is None or stop is None or start <= stop:
                    assert await sequences_of(store, start, stop) == list(range(100))[start:stop]
        assert await data_of(store) == [numbered(number) for number in range(100)]


@pytest.mark.parametrize("max_segment_bytes", [64 << 20, 4096], ids=["one segment", "several segments"])
async def test_get(tmp_path: Path, max_segment_bytes: int) -> None:
    """`get` finds each record, in the segment that is being written and in sealed ones, also after reopening."""
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
        found = await asyncio.gather(*(sequences_of(store, start, start + 20) for start in range(0, 100, 10)))
        assert found == [list(range(100))[start : start + 20] for start in range(0, 100, 10)]


async def test_reading_a_frame_that_was_damaged_meanwhile(tmp_path: Path) -> None:
    """What does not check is CorruptionError with file and offset; what stands before it can be read; writing goes on."""
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
    """Dense, from 0, in the order in which the appends of whatever kind were called, across commits and reopenings."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=8) as store:
        with held(disk, "write") as call:
            calls: list[Future[Any]] = [store.append_nowait(b"0")]
            await call.reached()
            calls.append(ensure_future(store.append(b"1")))
            calls.append(ensure_future(store.append_many([b"2", b"3", b"4"])))
            await tick()
            calls.append(store.append_nowait(b"5"))
            calls.append(ensure_future(store.append_many([b"6", b"7", b"8"])))  # from here on they wait for room
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
    """`first_sequence`, `next_sequence` and `synced_sequence` bound what there is and what is safe, half-open."""
    async with Store.open(tmp_path, sync_policy=OsManaged()) as store:
        assert (store.first_sequence, store.next_sequence, store.synced_sequence) == (0, 0, 0)
        await store.append_many([b"x", b"y"])
        assert (store.first_sequence, store.next_sequence, store.synced_sequence) == (0, 2, 0)
        await store.append(b"z", durability=Stage.SYNCED)
        assert (store.first_sequence, store.next_sequence, store.synced_sequence) == (0, 3, 3)
    async with Store.open(tmp_path) as store:
        assert (store.first_sequence, store.next_sequence, store.synced_sequence) == (0, 3, 3)


async def test_the_clock_is_set_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timestamps never decrease, in a commit and from one to the next, for records alone and in batches."""
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


async def test_the_clock_is_set_back_between_two_openings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timestamps never decrease within a store, however often it is opened."""
    clock = Clock(monkeypatch, 5000)
    async with Store.open(tmp_path) as store:
        await store.append(b"x")
    clock.set(1000)
    for _ in range(3):
        async with Store.open(tmp_path) as store:
            assert (await store.append(b"x")).timestamp == 5000


async def test_the_clock_is_set_back_after_a_roll(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Timestamps never decrease, also when the newest segment holds no record yet, closed or crashed."""
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


# the policies


@pytest.mark.parametrize("n", [1, 2, 7, 64])
async def test_every_n_at_every_acknowledgement(tmp_path: Path, n: int) -> None:
    """Whenever anyone is told, at most n - 1 acknowledged records are unsynced, by the store's word and by the disk's."""
    disk = WitnessDisk()
    generator = random.Random(n)
    worst_said = worst_done = acknowledged = 0
    store = await Store.open(tmp_path, sync_policy=EveryN(n, within=None), disk=disk, buffer_records=50)

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
                told((await store.append_many([b"x"] * generator.randrange(1, 10), durability=durability))[-1])
            elif kind < 0.9 and store.statistics().buffered_records < 50 and not store.statistics().waiting:
                future = store.append_nowait(b"x", durability=durability)
                future.add_done_callback(lambda future: told(future.result()))
                await future
            else:
                await store.flush()

    async with store:
        await asyncio.gather(*(work(generator.choice([None, None, Stage.FLUSHED, Stage.SYNCED])) for _ in range(20)))
        assert acknowledged == store.next_sequence > 100
        assert worst_said <= n - 1
        assert worst_done <= n - 1


@pytest.mark.parametrize("n", [2, 5, 64])
async def test_every_n_exactly(tmp_path: Path, n: int) -> None:
    """n - 1 records are FLUSHED, and the one that makes n waits for the sync; then counting begins anew."""
    disk = WitnessDisk()
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
        assert [(await store.append(b"x")).stage for _ in range(2)] == [Stage.FLUSHED, Stage.FLUSHED]
        assert (await store.append(b"x", durability=Stage.SYNCED)).stage is Stage.SYNCED
        assert [(await store.append(b"x")).stage for _ in range(2)] == [Stage.FLUSHED, Stage.FLUSHED]
    async with Store.open(tmp_path, sync_policy=policy) as store:
        assert [(await store.append(b"x")).stage for _ in range(2)] == [Stage.FLUSHED, Stage.FLUSHED]


async def test_every_n_with_a_batch_larger_than_n(tmp_path: Path) -> None:
    """A batch that passes n is synced before any of it is told."""
    async with Store.open(tmp_path, sync_policy=EveryN(3, within=None)) as store:
        assert {receipt.stage for receipt in await store.append_many([b"x"] * 2)} == {Stage.FLUSHED}
        assert {receipt.stage for receipt in await store.append_many([b"x"] * 10)} == {Stage.SYNCED}
        assert store.synced_sequence == 12


async def test_every_n_syncs_an_idle_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No acknowledged record stays unsynced for longer than `within`, though nobody calls anything."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=EveryN(64, within=10.0), disk=disk) as store:
        for turn in range(1, 3):
            assert (await store.append(b"x")).stage is Stage.FLUSHED
            with held(disk, "sync") as call:
                pass_time(monkeypatch, 10.0)
                await call.reached()
                assert store.synced_sequence == turn - 1
                arrived = ensure_future(store.sync())  # shares the sync that is under way
                await tick()
            await arrived
            assert store.synced_sequence == turn


async def test_every_n_reckons_from_the_oldest_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """What is unsynced is synced in time also when the loop comes to nothing: its program computes, or waits."""
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
    """The store has failed, as with any sync: whoever calls next is told, and nothing is synced again."""
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
    "policy", [Always(), EveryN(64, within=None), OsManaged()], ids=["Always", "EveryN(within=None)", "OsManaged"]
)
async def test_without_a_bound_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: SyncPolicy) -> None:
    """Under the other policies an idle store has no timer, and an hour changes nothing."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=policy, disk=disk) as store:
        timers = Timers(monkeypatch)
        await store.append(b"x", durability=Stage.FLUSHED)
        assert timers.pending == []
        calls = len(disk.calls)
        pass_time(monkeypatch, 3600)
        for _ in range(5):
            await tick()
        await store.flush()
        assert (store.synced_sequence, len(disk.calls)) == (0, calls)


async def test_a_store_with_nothing_unsynced_has_no_timer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer of `within` lives only as long as something is unsynced, and ends with the store."""
    timers = Timers(monkeypatch)
    async with Store.open(tmp_path, sync_policy=EveryN(64)) as store:
        await store.append(b"x")
        await tick()
        assert len(timers.pending) == 1
        await store.sync()
        assert timers.pending == []
        await store.append(b"x")
    assert timers.pending == []


async def test_a_commit_that_comes_back_during_the_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    """Under OsManaged nothing is synced until `sync`, a roll or the close; each of them covers everything."""
    disk = WitnessDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), max_segment_bytes=1 << 20, disk=disk) as store:
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
    disk = WitnessDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:

        async def work() -> None:
            for _ in range(20):
                receipt = await store.append(b"x")
                assert receipt.stage is Stage.SYNCED
                assert disk.synced > receipt.sequence
                assert store.synced_sequence > receipt.sequence

        await asyncio.gather(*(work() for _ in range(50)))


# room in the buffer


async def test_the_buffer_is_bounded_in_records(tmp_path: Path) -> None:
    """`append` waits and `append_nowait` raises when `buffer_records` are accepted and not yet acknowledged."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=4) as store:
        buffered: list[int] = []
        with held(disk, "write") as call:
            appends = [ensure_future(store.append(b"%d" % number)) for number in range(20)]
            for append in appends:
                append.add_done_callback(lambda _: buffered.append(store.statistics().buffered_records))
            await call.reached()
            assert (store.statistics().buffered_records, store.statistics().waiting) == (4, 16)
            with pytest.raises(BufferFullError) as caught:
                store.append_nowait(b"refused")
            assert (caught.value.path, caught.value.records, caught.value.bytes) == (str(tmp_path), 4, 4)
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
    """Callers are let in in their order: a small record that would fit does not pass a large one that waits."""
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
        assert (empty.records, empty.bytes, empty.commits, empty.syncs, empty.cancelled) == (0, 0, 0, 0, 0)
        assert (empty.buffered_records, empty.buffered_bytes, empty.waiting, empty.unsynced_records) == (0, 0, 0, 0)
        assert (empty.first_sequence, empty.next_sequence, empty.synced_sequence, empty.segments) == (0, 1, 1, 1)
        assert (set(empty.errors.values()), empty.state) == ({0}, "open")
        await store.append_many([b"one", b"three"])
        after = empty._replace(records=2, bytes=8, commits=1, unsynced_records=2, next_sequence=3)
        assert untimed(store.statistics()) == after
        with held(disk, "write") as call:
            appends = [ensure_future(store.append(b"four")) for _ in range(4)]
            await call.reached()
            assert untimed(store.statistics()) == after._replace(buffered_records=3, buffered_bytes=12, waiting=1)
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
    """`syncs` counts every sync of the log as the disk sees it; `segments` the files that hold it."""
    disk = WitnessDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        syncs = disk.syncs
        for _ in range(10):
            await store.append(b"x")
        assert store.statistics().syncs == disk.syncs - syncs == 10
    async with await filled(tmp_path / "small", max_segment_bytes=4096) as store:
        await store.sync()
        assert store.statistics().segments == len(segments_in(tmp_path / "small")) > 2


# closing


async def test_aclose_waits_for_everything(tmp_path: Path) -> None:
    """`aclose` waits for all that was accepted, syncs it, and lets go of every file and of the lock."""
    disk = WitnessDisk()
    store = await Store.open(tmp_path, sync_policy=OsManaged(), disk=disk)
    await store.append(b"acknowledged")
    accepted = [store.append_nowait(b"accepted") for _ in range(3)]
    await store.aclose()
    assert all(future.done() for future in accepted)
    assert disk.synced == store.synced_sequence == store.next_sequence == 4
    assert open_descriptors(tmp_path) == []
    async with Store.open(tmp_path, lock_timeout=0) as store:
        assert store.recovery.clean


async def test_aclose_while_a_commit_is_under_way(tmp_path: Path) -> None:
    """`aclose` does not return before the commit has, and a second `aclose` waits for the first."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, disk=disk)
    with held(disk, "write") as call:
        under_way = store.append_nowait(b"under way")
        await call.reached()
        forming = store.append_nowait(b"forming")
        closings = [ensure_future(store.aclose()), ensure_future(store.aclose())]
        await tick()
        assert not any(closing.done() for closing in closings)
        assert "closed" in repr(store)
    await asyncio.gather(*closings)
    assert ((await under_way).sequence, (await forming).sequence) == (0, 1)


async def test_a_closed_store_is_freed(tmp_path: Path) -> None:
    """Nothing keeps a store alive that was closed and let go of."""
    store = await Store.open(tmp_path, sync_policy=EveryN(64))
    await store.append(b"x")
    await store.aclose()
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("action", ["always", "error"])
async def test_a_store_that_was_never_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Literal["always", "error"]
) -> None:
    """Letting go of an open store is a ResourceWarning, perhaps made an error; what was accepted is written anyway."""
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    store = await Store.open(tmp_path, sync_policy=OsManaged())
    await store.append(b"acknowledged")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        store.append_nowait(b"accepted")
        await store.append(b"acknowledged, too")
        await tick()  # the loop has let go of it
        del store
        gc.collect()
    said = [str(warning.message) for warning in caught] + [str(error.exc_value) for error in raised]
    assert len(said) == 1
    assert "never closed" in said[0]
    async with Store.open(tmp_path) as store:  # waits until the one before has let go
        assert await data_of(store) == [b"acknowledged", b"accepted", b"acknowledged, too"]


async def test_the_files_of_a_store(tmp_path: Path) -> None:
    """A lock, a manifest, segments, what readers are told, no more; a clean close leaves no space behind the frames."""
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        await store.append(b"x")
        assert segment_in(tmp_path).stat().st_size > 100_000
    assert sorted(os.listdir(tmp_path)) == [segment_name(0), ACKNOWLEDGED, LOCK, "manifest"]
    assert segment_in(tmp_path).stat().st_size < 1000
