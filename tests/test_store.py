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
from pathlib import Path
from typing import Any, Literal

import pytest

from aquipu import Always, EveryN, OsManaged, Receipt, Record, Stage, Store, StoreLockedError
from aquipu.errors import StoreAlreadyOpenError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock
from aquipu.local.format.frame import MAGIC
from aquipu.local.format.names import ACKNOWLEDGED, HISTORY, LOCK, Reserve, segment_name
from tests.callers import (
    Clock,
    OracleDisk,
    data_of,
    held,
    open_descriptors,
    outcomes_of,
    records_of,
    tick,
)
from tests.disk import FailingDisk
from tests.remote.daemon.served import until
from tests.support import copy_of, engine_of, segment_in

pytestmark = pytest.mark.asyncio


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
    """A missing directory is made, with those above it; directories are 0700 and files 0600."""
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
    """A path is a str or PathLike;

    `store.path` is absolute, so it stays true when the directory of the process changes.
    """
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
    """Whoever opens a store that is being written gets StoreLockedError, naming the path and the
    holder's pid.
    """
    async with Store.open(tmp_path) as store:
        with pytest.raises(StoreLockedError) as caught:
            await Store.open(tmp_path, lock_timeout=0)
        assert (caught.value.path, caught.value.pid) == (str(tmp_path), os.getpid())
        assert (await store.append(b"undisturbed")).sequence == 0


async def test_a_second_opener_that_waits(tmp_path: Path) -> None:
    """Within its `lock_timeout` a second opener gets the store as soon as the first one lets go."""
    disk = FailingDisk()
    async with Store.open(tmp_path) as store:
        await store.append(b"written before")
    lock = Lock.take(Disk(), str(tmp_path))  # as of another process
    assert lock is not None
    with held(disk, "try_lock_directory", nth=2) as call:
        second = ensure_future(records_by(tmp_path, disk))
        await call.reached()  # the first attempt has failed
    assert not second.done()
    lock.release()
    assert await second == [b"written before"]


async def records_by(path: Path, disk: Disk) -> list[bytes]:
    async with Store.open(path, disk=disk, lock_timeout=20) as store:
        return await data_of(store)


async def test_two_openers_of_a_missing_directory(tmp_path: Path) -> None:
    """When two make the directory at the same time, one gets the store, and the other waits for it
    as ever; or it is told that this process has it open just then.
    """
    both_have_looked = threading.Barrier(2, timeout=20)
    disks = FailingDisk(), FailingDisk()
    for disk in disks:
        disk.before("make_directories", both_have_looked.wait, forever=True, of="/above/store")
    both = [ensure_future(records_by(tmp_path / "above" / "store", disk)) for disk in disks]
    outcomes = await outcomes_of(both)
    assert [] in outcomes
    for other in outcomes:
        assert other == [] or isinstance(other, StoreAlreadyOpenError)


async def test_recovery_of_a_new_store(tmp_path: Path) -> None:
    """`store.recovery` tells that the store was made."""
    async with Store.open(tmp_path) as store:
        report = store.recovery
    assert (report.created, report.clean, report.next_sequence, report.segments) == (
        True,
        True,
        0,
        1,
    )


async def test_recovery_of_a_closed_store(tmp_path: Path) -> None:
    """`store.recovery` tells that nothing had to be done."""
    async with Store.open(tmp_path) as store:
        await store.append_many([b"x", b"y"])
    async with Store.open(tmp_path) as store:
        report = store.recovery
    assert (report.created, report.clean, report.next_sequence) == (False, True, 2)
    assert (report.rewritten_bytes, report.cut_bytes, report.cut_kept_in) == (0, 0, None)


async def test_recovery_after_a_crash(tmp_path: Path) -> None:
    """`store.recovery` tells what was found, what was written once more, what was cut, and where
    the cut bytes are.
    """
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
    assert (report.cut_bytes, report.cut_offset, report.cut_from) == (
        12,
        end,
        str(segment_in(crashed)),
    )
    assert report.cut_kept_in is not None
    assert (crashed / Path(report.cut_kept_in).name).read_bytes() == b"half a frame"


# records and receipts


async def test_a_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receipt holds the sequence, the time of acceptance and the stage; the record read back has
    the first two.
    """
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
    ids=[
        "bytes",
        "bytearray",
        "memoryview",
        "with a step",
        "of numbers",
        "empty",
        "every byte",
        "zeros",
        "like a frame",
    ],
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
    """Labels are stored with their record and read back in their order, from every kind of append,
    also after reopening.
    """
    labels = ("user:7", "dokument:größe", "with a space", "x" * 1024)
    expected = [
        labels,
        (),
        ("nowait",),
        ("many",),
        ("many",),
        ("generated:0", "generated:1"),
        ("twice", "twice"),
    ]
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
    """Labels do not make a record that is within `max_record_bytes` wait for room that can never
    be.
    """
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
            appends: list[Future[Any]] = [
                store.append_nowait(buffer),
                store.append_nowait(memoryview(buffer)),
            ]
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
    """`flush` waits for the commit that is under way and the one that forms, and for nothing that
    comes later.
    """
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
    disk = OracleDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        syncs = disk.syncs
        store.append_nowait(b"x")
        await store.flush()
        assert (store.next_sequence, store.synced_sequence, disk.syncs) == (1, 0, syncs)


async def test_sync_makes_everything_safe(tmp_path: Path) -> None:
    """After `sync` everything acknowledged, and everything accepted, is on the disk."""
    disk = OracleDisk()
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
    """`sync` shares the sync of a commit that has not returned: it covers everything accepted
    before.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        await store.append(b"before")
        syncs = disk.syncs
        with held(disk, "sync") as call:
            append = store.append_nowait(b"x", durability=Stage.SYNCED)
            await call.reached()
            barriers = [
                ensure_future(store.sync()),
                ensure_future(store.flush()),
                ensure_future(store.sync()),
            ]
            await tick()
            assert not any(barrier.done() for barrier in barriers)
        await asyncio.gather(append, *barriers)
        assert (store.synced_sequence, disk.syncs) == (2, syncs + 1)


async def test_sync_joins_the_commit_that_forms(tmp_path: Path) -> None:
    """`sync` needs no commit of its own when one is forming: that one is synced, and its callers
    know.
    """
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


# closing


async def test_aclose_waits_for_everything(tmp_path: Path) -> None:
    """`aclose` waits for all that was accepted, syncs it, and lets go of every file and of the
    lock.
    """
    disk = OracleDisk()
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
    assert await asyncio.to_thread(
        engine_of(store)._worker.join, 20
    )  # which held it for as long as it told of its end
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("action", ["always", "error"])
async def test_a_store_that_was_never_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: Literal["always", "error"]
) -> None:
    """Letting go of an open store is a ResourceWarning, perhaps made an error; what was accepted is
    written anyway.
    """
    raised: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    store = await Store.open(tmp_path, sync_policy=OsManaged())
    await store.append(b"acknowledged")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        store.append_nowait(b"accepted")
        await store.append(b"acknowledged, too")
        del store
        # once the thread and the loop have let go of the commit
        await until(lambda: gc.collect() >= 0 and (caught or raised))
    said = [str(warning.message) for warning in caught] + [str(error.exc_value) for error in raised]
    assert len(said) == 1
    assert "never closed" in said[0]
    async with Store.open(tmp_path) as store:  # waits until the one before has let go
        assert await data_of(store) == [b"acknowledged", b"accepted", b"acknowledged, too"]


async def test_the_files_of_a_store(tmp_path: Path) -> None:
    """A lock, a manifest, segments, what readers are told, what is kept for a full disk, no more; a
    clean close leaves no space behind the frames.
    """
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        await store.append(b"x")
        assert segment_in(tmp_path).stat().st_size > 100_000
    assert sorted(os.listdir(tmp_path)) == sorted(
        [segment_name(0), ACKNOWLEDGED, HISTORY, LOCK, "manifest", *Reserve]
    )
    assert segment_in(tmp_path).stat().st_size < 1000
