"""Cancellation, by its moment: who is cancelled, when, and what state must be left."""

from __future__ import annotations

import asyncio
import threading
from asyncio import CancelledError, ensure_future
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import pytest

from aquipu import (
    Always,
    AquipuError,
    EveryN,
    OsManaged,
    Stage,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
)
from aquipu.local import opening as opening_room
from aquipu.local.write.worker import Worker
from tests.callers import (
    PATIENCE,
    Scene,
    check_each_has_its_own,
    held,
    open_descriptors,
    outcomes_of,
    records_of,
    scenes,
    tick,
)
from tests.disk import ANY, FailingDisk
from tests.support import copy_of

pytestmark = pytest.mark.asyncio


async def check_cancelled(task: asyncio.Future[Any]) -> None:
    """The task ends as cancelled, and as nothing else."""
    with pytest.raises(CancelledError):
        await task
    assert task.cancelled()


@asynccontextmanager
async def threads_of_its_own(count: int | None = None) -> AsyncIterator[None]:
    """Blocking calls within this block have threads of their own; behind it all of them have ended,
    and the loop knows.
    """
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(count) as pool:
        loop.set_default_executor(pool)
        yield
    loop.set_default_executor(ThreadPoolExecutor())
    for _ in range(3):
        await tick()


# an append


async def test_append_cancelled_while_it_waits_for_room(tmp_path: Path) -> None:
    """Nothing is written: it was never accepted.

    Those before and behind it get their places as if it had not been.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=1) as store:
        with held(disk, "write") as call:
            before = store.append_nowait(b"before")
            await call.reached()
            cancelled = ensure_future(store.append(b"cancelled"))
            behind = ensure_future(store.append(b"behind"))
            await tick()
            assert store.statistics().waiting == 2
            cancelled.cancel()
            await check_cancelled(cancelled)
        assert ((await before).sequence, (await behind).sequence) == (0, 1)
    assert await records_of(tmp_path) == [b"before", b"behind"]


async def test_append_many_cancelled_while_it_waits_for_room(tmp_path: Path) -> None:
    """Nothing of the batch is written."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=2) as store:
        with held(disk, "write") as call:
            before = store.append_nowait(b"before")
            await call.reached()
            cancelled = ensure_future(store.append_many([b"cancelled", b"too"]))
            await tick()
            cancelled.cancel()
            await check_cancelled(cancelled)
        await before
        assert (await store.append(b"behind")).sequence == 1
    assert await records_of(tmp_path) == [b"before", b"behind"]


async def test_append_cancelled_while_it_waits_for_room_stands_in_nobodys_way(
    tmp_path: Path,
) -> None:
    """Who has been cancelled no longer waits: it is not counted, and what fits into the buffer is
    taken again.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_bytes=10, max_record_bytes=10) as store:
        with held(disk, "write") as call:
            before = store.append_nowait(b"five!")
            await call.reached()
            cancelled = ensure_future(store.append(b"cancelled!"))
            await tick()
            cancelled.cancel()
            await check_cancelled(cancelled)
            assert store.statistics().waiting == 0
            behind = store.append_nowait(b"four")
        assert ((await before).sequence, (await behind).sequence) == (0, 1)


async def test_append_cancelled_in_the_tick_in_which_room_is_made(tmp_path: Path) -> None:
    """A record that was admitted before its caller could be cancelled has its place, and is
    written.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=1) as store:
        with held(disk, "write") as call:
            before = store.append_nowait(b"before")
            await call.reached()
            cancelled = ensure_future(store.append(b"admitted"))
            await tick()
            before.add_done_callback(lambda _: cancelled.cancel())
        await check_cancelled(cancelled)
        await store.flush()
        assert store.next_sequence == 2
    assert await records_of(tmp_path) == [b"before", b"admitted"]


async def test_append_cancelled_after_it_was_accepted(tmp_path: Path) -> None:
    """Its caller stops waiting; the record keeps its place and is written."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        writes = disk.steps("write", "write_synced", "sync")  # the free space is measured meanwhile
        tasks = [ensure_future(store.append(data)) for data in (b"before", b"cancelled", b"behind")]
        await tick()
        assert store.statistics().buffered_records == 3
        assert disk.steps("write", "write_synced", "sync") == writes
        tasks[1].cancel()
        await check_cancelled(tasks[1])
        assert ((await tasks[0]).sequence, (await tasks[2]).sequence) == (0, 2)
        assert (await store.get(1)).data == b"cancelled"
    assert await records_of(tmp_path) == [b"before", b"cancelled", b"behind"]


async def test_append_cancelled_before_it_was_called(tmp_path: Path) -> None:
    """A task that is cancelled before its first step has called nothing."""
    async with Store.open(tmp_path) as store:
        task = ensure_future(store.append(b"never called"))
        task.cancel()
        await check_cancelled(task)
        assert (await store.append(b"first")).sequence == 0


@pytest.mark.parametrize("method", ["write", "sync"])
async def test_append_cancelled_while_its_commit_is_under_way(tmp_path: Path, method: str) -> None:
    """Its caller stops waiting at once, whatever the disk does; the commit completes, and its
    neighbours are told.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        with held(disk, method) as call:
            tasks = [
                ensure_future(store.append(data)) for data in (b"before", b"cancelled", b"behind")
            ]
            await call.reached()
            tasks[1].cancel()
            await check_cancelled(tasks[1])
            assert not tasks[0].done()
        receipts = await asyncio.gather(tasks[0], tasks[2])
        assert [(receipt.sequence, receipt.stage) for receipt in receipts] == [
            (0, Stage.SYNCED),
            (2, Stage.SYNCED),
        ]
        assert (store.next_sequence, store.synced_sequence) == (3, 3)
    assert await records_of(tmp_path) == [b"before", b"cancelled", b"behind"]


@pytest.mark.parametrize("many", [False, True], ids=["append", "append_many"])
async def test_append_cancelled_by_a_neighbour_that_was_acknowledged_before_it(
    tmp_path: Path, many: bool
) -> None:
    """A cancellation between the completion of the commit and the caller's next step is one all the
    same.
    """

    async def call(data: bytes) -> None:
        await (store.append_many([data]) if many else store.append(data))

    async def cancel_the_other() -> None:
        await call(b"first")
        second.cancel()

    async with Store.open(tmp_path) as store:
        first = ensure_future(cancel_the_other())
        second = ensure_future(call(b"second"))
        await check_cancelled(second)
        await first
        assert (store.next_sequence, store.statistics().commits) == (2, 1)
    assert await records_of(tmp_path) == [b"first", b"second"]


async def test_all_appends_of_a_commit_cancelled(tmp_path: Path) -> None:
    """A commit that nobody waits for any more is written as any other."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        with held(disk, "sync") as call:
            under_way = [ensure_future(store.append(b"%d" % number)) for number in range(3)]
            await call.reached()
            forming = [ensure_future(store.append(b"%d" % number)) for number in range(3, 6)]
            await tick()
            for task in under_way + forming:
                task.cancel()
            for task in under_way + forming:
                await check_cancelled(task)
        await store.sync()
        assert store.synced_sequence == 6
    assert await records_of(tmp_path) == [b"%d" % number for number in range(6)]


async def test_the_future_of_append_nowait_cancelled(tmp_path: Path) -> None:
    """Cancelling the future gives up the receipt, not the record."""
    async with Store.open(tmp_path) as store:
        futures = [store.append_nowait(data) for data in (b"before", b"cancelled", b"behind")]
        futures[1].cancel()
        assert ((await futures[0]).sequence, (await futures[2]).sequence) == (0, 2)
    assert await records_of(tmp_path) == [b"before", b"cancelled", b"behind"]


async def test_append_under_a_timeout(tmp_path: Path) -> None:
    """A timeout of asyncio ends the waiting with TimeoutError; the record is written."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        with held(disk, "write"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await store.append(b"late")
        await store.flush()
        assert store.next_sequence == 1


async def test_append_in_a_cancel_scope(tmp_path: Path) -> None:
    """A cancelled scope of anyio ends the waiting; the record is written."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        with held(disk, "write"):
            with anyio.move_on_after(0) as scope:
                await store.append(b"late")
            assert scope.cancelled_caught
        await store.flush()
        assert store.next_sequence == 1


async def test_appends_cancelled_by_their_task_group(tmp_path: Path) -> None:
    """When one task of a group fails, the others are cancelled, and what they had appended is
    written.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        with held(disk, "write") as call:

            async def work() -> None:
                async with asyncio.TaskGroup() as group:
                    for number in range(3):
                        group.create_task(store.append(b"%d" % number))
                    await call.reached()
                    raise ZeroDivisionError

            with pytest.raises(ExceptionGroup):
                await work()
        await store.flush()
    assert await records_of(tmp_path) == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("number", "kind"), [(ENOSPC, StoreFullError), (EIO, StoreFailedError)], ids=["full", "failed"]
)
async def test_append_cancelled_in_a_commit_that_fails(
    tmp_path: Path, number: int, kind: type[AquipuError]
) -> None:
    """The cancelled caller is cancelled, its neighbours get the error, and no error is left that
    nobody has taken.
    """
    disk = FailingDisk()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    store = await Store.open(tmp_path, sync_policy=OsManaged(), disk=disk)
    error = OSError(number, "a bad disk")
    disk.fail("write", error)
    with held(disk, "write") as call:
        tasks = [ensure_future(store.append(b"x")) for _ in range(3)]
        await call.reached()
        tasks[1].cancel()
        await check_cancelled(tasks[1])
    check_each_has_its_own(await outcomes_of([tasks[0], tasks[2]]), kind, error)
    await outcomes_of([store.aclose()])
    del tasks
    assert complaints == []


# a batch


@pytest.mark.parametrize("method", ["write", "sync"])
async def test_append_many_cancelled_while_it_is_under_way(tmp_path: Path, method: str) -> None:
    """The whole batch is written, and so are its neighbours."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        with held(disk, method) as call:
            before = ensure_future(store.append(b"before"))
            batch = ensure_future(store.append_many([b"one", b"two"]))
            behind = ensure_future(store.append_many([b"three", b"four"]))
            await call.reached()
            batch.cancel()
            await check_cancelled(batch)
        assert (await before).sequence == 0
        assert [receipt.sequence for receipt in await behind] == [3, 4]
    assert await records_of(tmp_path) == [b"before", b"one", b"two", b"three", b"four"]


async def test_append_many_cancelled_after_it_was_accepted(tmp_path: Path) -> None:
    """The whole batch is written, in one commit."""
    async with Store.open(tmp_path) as store:
        batch = ensure_future(store.append_many([b"one", b"two"]))
        await tick()
        batch.cancel()
        await check_cancelled(batch)
        await store.flush()
        assert (store.next_sequence, store.statistics().commits) == (2, 1)
    assert await records_of(tmp_path) == [b"one", b"two"]


# flush and sync


async def test_flush_cancelled_while_a_commit_is_under_way(tmp_path: Path) -> None:
    """Its caller stops waiting; the commit, its callers and another flush do not notice."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        with held(disk, "write") as call:
            append = store.append_nowait(b"x")
            await call.reached()
            flushes = [ensure_future(store.flush()), ensure_future(store.flush())]
            await tick()
            flushes[0].cancel()
            await check_cancelled(flushes[0])
            assert not flushes[1].done()
        await flushes[1]
        assert append.done()


async def test_sync_cancelled_while_it_syncs(tmp_path: Path) -> None:
    """Its caller stops waiting; the sync that was asked for happens, and another one who asked is
    told.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        await store.append(b"x")
        with held(disk, "sync") as call:
            syncs = [ensure_future(store.sync()), ensure_future(store.sync())]
            await call.reached()
            syncs[0].cancel()
            await check_cancelled(syncs[0])
            assert (syncs[1].done(), store.synced_sequence) == (False, 0)
        await syncs[1]
        assert store.synced_sequence == 1


async def test_sync_cancelled_before_it_is_submitted(tmp_path: Path) -> None:
    """A sync that waits behind a commit is cancelled: the appends that share the next commit are
    stored as they asked.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        with held(disk, "write") as call:
            store.append_nowait(b"zero")
            await call.reached()
            sync = ensure_future(store.sync())
            behind = ensure_future(store.append(b"one"))
            await tick()
            sync.cancel()
            await check_cancelled(sync)
        assert (await behind).sequence == 1


# closing


async def check_is_closed(store: Store, *stored: bytes) -> None:
    """The store is closed, holds nothing, has let go of its lock, and what it had accepted is
    there.
    """
    with pytest.raises(StoreClosedError):
        await store.append(b"x")
    assert open_descriptors(Path(store.path)) == []
    assert await records_of(Path(store.path)) == list(stored)


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("method", ["write", "sync", "truncate"])
async def test_aclose_cancelled_while_it_waits(tmp_path: Path, method: str, times: int) -> None:
    """However often: it waits for what was accepted, syncs, lets go of the lock, and then raises
    CancelledError.
    """
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=OsManaged(), disk=disk)
    with held(disk, method) as call:
        accepted = store.append_nowait(b"accepted")
        closing = ensure_future(store.aclose())
        await call.reached()
        for number in range(times):
            closing.cancel(f"time {number}")
            await tick()
            await tick()
        assert not closing.done()
    await check_cancelled(closing)
    assert (await accepted).sequence == 0
    assert store.synced_sequence == 1
    await check_is_closed(store, b"accepted")


async def test_aclose_of_a_store_that_does_not_close_well_cancelled(tmp_path: Path) -> None:
    """CancelledError is not turned into something else, not even by a failed sync; the next
    `aclose` tells of that.
    """
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=OsManaged(), disk=disk)
    await store.append(b"accepted")
    disk.fail("sync", EIO)
    with held(disk, "sync") as call:
        closing = ensure_future(store.aclose())
        await call.reached()
        closing.cancel()
        await tick()
    await check_cancelled(closing)
    with pytest.raises(StoreFailedError):
        await store.aclose()
    await check_is_closed(store, b"accepted")


async def test_aclose_under_a_timeout(tmp_path: Path) -> None:
    """A timeout of asyncio is told only when the store is closed."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, disk=disk)
    with held(disk, "write") as call:
        accepted = store.append_nowait(b"accepted")
        await call.reached()
        asyncio.get_running_loop().call_later(
            0.01, call.release
        )  # after the timeout, which is due at once
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await store.aclose()
    assert accepted.done()
    await check_is_closed(store, b"accepted")


async def test_aclose_in_a_cancelled_scope(tmp_path: Path) -> None:
    """In a cancelled scope of anyio it closes; the scope ends what comes after it."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, disk=disk)
    with held(disk, "write") as call:
        accepted = store.append_nowait(b"accepted")
        await call.reached()
        asyncio.get_running_loop().call_later(
            0.01, call.release
        )  # the scope tries again in every turn of the loop
        with anyio.CancelScope() as scope:
            scope.cancel()
            await store.aclose()
            assert accepted.done()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    await check_is_closed(store, b"accepted")


async def test_one_of_two_acloses_cancelled(tmp_path: Path) -> None:
    """The other one does not notice."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, disk=disk)
    await store.append(b"accepted")
    with held(disk, "sync") as call:
        closings = [ensure_future(store.aclose()), ensure_future(store.aclose())]
        await call.reached()
        closings[0].cancel()
        await tick()
        assert not any(closing.done() for closing in closings)
    await check_cancelled(closings[0])
    await closings[1]
    await check_is_closed(store, b"accepted")


async def test_a_block_cancelled(tmp_path: Path) -> None:
    """A task cancelled within `async with Store.open(...)` closes the store on its way out."""
    ready = asyncio.Event()
    stores: list[Store] = []

    async def work() -> None:
        async with Store.open(tmp_path) as store:
            stores.append(store)
            await store.append(b"acknowledged")
            store.append_nowait(b"accepted")
            ready.set()
            await asyncio.Event().wait()

    task = ensure_future(work())
    await ready.wait()
    task.cancel()
    await check_cancelled(task)
    await check_is_closed(stores[0], b"acknowledged", b"accepted")


async def test_those_who_wait_when_the_store_is_closed(tmp_path: Path) -> None:
    """Who waits for room gets StoreClosedError, each its own; who was accepted gets a receipt;
    nobody is left waiting.
    """
    disk = FailingDisk()
    store = await Store.open(tmp_path, disk=disk, buffer_records=4)
    with held(disk, "write") as call:
        under_way = [store.append_nowait(b"zero"), store.append_nowait(b"one")]
        await call.reached()
        forming: list[asyncio.Future[Any]] = [
            store.append_nowait(b"two"),
            ensure_future(store.append(b"three")),
        ]
        barriers = [ensure_future(store.flush()), ensure_future(store.sync())]
        await tick()
        calls: list[Coroutine[Any, Any, Any]] = [
            store.append(b"x"),
            store.append(b"y"),
            store.append_many([b"z"]),
        ]
        waiting = [ensure_future(call) for call in calls]
        await tick()
        assert store.statistics().waiting == 3
        closing = ensure_future(store.aclose())
        refused = await outcomes_of(waiting)
    assert [type(outcome) for outcome in refused] == [StoreClosedError] * 3
    assert len(set(map(id, refused))) == 3
    receipts = await asyncio.gather(*under_way, *forming)
    assert [receipt.sequence for receipt in receipts] == [0, 1, 2, 3]
    await asyncio.gather(*barriers, closing)
    await check_is_closed(store, b"zero", b"one", b"two", b"three")


async def test_appends_accepted_in_the_tick_of_the_close(tmp_path: Path) -> None:
    """What was accepted just before `aclose`, and has not even departed, is written and told."""
    store = await Store.open(tmp_path, sync_policy=EveryN(64))
    accepted = [store.append_nowait(b"zero"), store.append_nowait(b"one")]
    await store.aclose()
    assert [receipt.sequence for receipt in await asyncio.gather(*accepted)] == [0, 1]
    await check_is_closed(store, b"zero", b"one")


# opening


async def opened(path: Path, disk: FailingDisk) -> Store:
    return await Store.open(path, disk=disk)


def check_no_worker_is_left(but: list[threading.Thread]) -> None:
    """Every thread that worked for a store has ended, or is about to, but for those that were there
    before.
    """
    for thread in threading.enumerate():
        if thread.name == "aquipu" and thread not in but:
            thread.join(PATIENCE)
            assert not thread.is_alive()


@scenes
async def test_open_cancelled_at_every_step(tmp_path: Path, scene: Scene) -> None:
    """Whatever the disk is doing: no lock, no thread and no descriptor are left, and the next
    opening works.
    """
    expected = await scene(tmp_path / "scene")
    before = threading.enumerate()

    def fresh(name: str) -> Path:
        return copy_of(tmp_path / "scene", name) if expected else tmp_path / name

    disk, steps = FailingDisk(), 0

    def run(worker: Worker) -> None:
        """Count the steps so far: what an open store does on its threads is no part of opening."""
        nonlocal steps
        steps = len(disk.calls)
        run_worker(worker)

    run_worker = Worker._run
    with patch.object(Worker, "_run", run):
        async with Store.open(fresh("undisturbed"), disk=disk):
            pass
    assert steps > 10
    for step in range(1, steps + 1):
        path, disk = fresh(str(step)), FailingDisk()
        async with threads_of_its_own():
            with held(disk, ANY, nth=step) as call:
                opening = ensure_future(opened(path, disk))
                await call.reached()
                opening.cancel()
                await check_cancelled(opening)
        assert open_descriptors(path) == []
        check_no_worker_is_left(before)
        assert await records_of(path) == expected


async def test_open_cancelled_while_it_waits_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who has the lock does not notice, and the one who gave up leaves nothing."""
    monkeypatch.setattr(
        opening_room, "is_in_use_here", lambda disk, path: False
    )  # as of another process
    disk = FailingDisk()
    async with Store.open(tmp_path) as store:
        before = sorted(open_descriptors(tmp_path))
        async with threads_of_its_own():
            with held(disk, "try_lock_directory", nth=2) as call:
                opening = ensure_future(opened(tmp_path, disk))
                await call.reached()
                opening.cancel()
                await check_cancelled(opening)
        assert sorted(open_descriptors(tmp_path)) == before
        await store.append(b"undisturbed")


async def test_entering_a_store_cancelled(tmp_path: Path) -> None:
    """`async with Store.open(...)` that is cancelled while it opens leaves nothing either."""
    disk = FailingDisk()

    async def enter() -> None:
        async with Store.open(tmp_path, disk=disk):
            raise AssertionError("entered")

    with held(disk, "sync") as call:
        entering = ensure_future(enter())
        await call.reached()
        entering.cancel()
        await check_cancelled(entering)
    async with Store.open(
        tmp_path
    ) as store:  # it waits until the opening that was cancelled has let go
        await store.append(b"x")
    assert open_descriptors(tmp_path) == []


# reading


async def first_of(store: Store) -> bytes:
    """One step of a scan of its own."""
    async with store.scan() as scan:
        return (await anext(scan)).data


@pytest.mark.parametrize("method", ["open", "read", "close"])
async def test_get_cancelled_while_it_reads(tmp_path: Path, method: str) -> None:
    """Its caller stops waiting at once; the file is closed when the disk comes back, and the store
    goes on.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"zero")
        before = open_descriptors(tmp_path)
        async with threads_of_its_own():
            with held(disk, method) as call:
                reading = ensure_future(store.get(0))
                await call.reached()
                reading.cancel()
                await check_cancelled(reading)
        assert open_descriptors(tmp_path) == before
        assert (await store.get(0)).data == b"zero"


@pytest.mark.parametrize("method", ["open_stream", "read_stream"])
@pytest.mark.parametrize("times", [1, 2])
async def test_scan_cancelled_while_it_reads(tmp_path: Path, method: str, times: int) -> None:
    """The file at hand is closed, the scan has ended, and the store goes on."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"zero")
        before = open_descriptors(tmp_path)
        scan = store.scan()
        async with threads_of_its_own():
            with held(disk, method) as call:
                step = ensure_future(anext(scan))
                await call.reached()
                for _ in range(times):
                    step.cancel()
                    await tick()
            with pytest.raises(CancelledError):
                await step
        assert open_descriptors(tmp_path) == before
        with pytest.raises(StopAsyncIteration):
            await anext(scan)
        assert await first_of(store) == b"zero"


async def test_scan_cancelled_does_not_close_its_file_under_the_read(tmp_path: Path) -> None:
    """The file is closed only when the read has ended: its descriptor may by then belong to another
    file.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"zero")
        async with threads_of_its_own(2):
            with held(disk, "read_stream") as call:
                step = ensure_future(first_of(store))
                await call.reached()
                step.cancel()
                await tick()
                with suppress(
                    TimeoutError
                ):  # the other thread may wait for the read: then nothing more can come of it
                    await asyncio.wait_for(asyncio.to_thread(list), 0.1)
            with pytest.raises(CancelledError):
                await step
        assert disk.misused == []


async def test_scan_in_a_cancelled_scope_while_every_thread_is_busy(tmp_path: Path) -> None:
    """Leaving a scan closes its file also when the scope is cancelled and no thread is free to do
    it at once.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        for _ in range(10):
            await store.append(b"x" * 100_000)
        before = open_descriptors(tmp_path)
        async with threads_of_its_own(1):
            loop = asyncio.get_running_loop()
            with anyio.CancelScope() as scope:
                async with store.scan() as scan:
                    assert (await anext(scan)).sequence == 0
                    assert open_descriptors(tmp_path) != before
                    busy = threading.Event()
                    thread = loop.run_in_executor(None, busy.wait, PATIENCE)
                    loop.call_later(0.01, busy.set)
                    scope.cancel()
            assert await thread
        assert open_descriptors(tmp_path) == before
        assert disk.misused == []


async def test_a_loop_over_a_scan_cancelled(tmp_path: Path) -> None:
    """`async with store.scan()` closes the file also when the body of the loop is cancelled between
    two steps.
    """
    async with Store.open(tmp_path) as store:
        for _ in range(10):
            await store.append(b"x" * 100_000)
        before = open_descriptors(tmp_path)
        within = asyncio.Event()

        async def read() -> None:
            async with store.scan() as scan:
                async for _ in scan:
                    assert open_descriptors(tmp_path) != before
                    within.set()
                    await asyncio.Event().wait()

        task = ensure_future(read())
        await within.wait()
        task.cancel()
        await check_cancelled(task)
        assert open_descriptors(tmp_path) == before
