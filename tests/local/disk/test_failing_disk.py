"""When the disk fails: who is told what, what is kept, and that nobody is left waiting."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from errno import EDQUOT, EFBIG, EIO, EMFILE, ENOSPC
from pathlib import Path
from typing import Any

import pytest

from aquipu import (
    Always,
    AquipuError,
    EveryN,
    OsManaged,
    Receipt,
    RecordNotWrittenError,
    Stage,
    Store,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    SyncPolicy,
)
from aquipu.local.format.names import ACKNOWLEDGED, LOCK, UNNAMED, segment_name
from tests.callers import (
    PATIENCE,
    Scene,
    Timers,
    check_closes_as_failed,
    check_each_has_its_own,
    everybody,
    held,
    open_descriptors,
    outcomes_of,
    pass_time,
    records_of,
    scenes,
    tick,
)
from tests.disk import ANY, FailingDisk
from tests.support import copy_of, data_in, segment_in

pytestmark = pytest.mark.asyncio


# a sync that fails

both_ways = pytest.mark.parametrize("sync_call", ["write_synced", "sync"])


def disk_that_syncs_with(sync_call: str) -> FailingDisk:
    """Once the space for it is there, a commit is made durable by one system call, or by a write
    and fdatasync.
    """
    return FailingDisk(writes_synced=sync_call == "write_synced")


@both_ways
async def test_a_sync_fails(tmp_path: Path, sync_call: str) -> None:
    """The callers of that commit and every later one get StoreFailedError, with the OSError as its
    cause.
    """
    disk = disk_that_syncs_with(sync_call)
    store = await Store.open(tmp_path, sync_policy=Always(), disk=disk)
    await store.append(b"safe")
    error = OSError(EIO, "a broken disk")
    disk.fail(sync_call, error)
    outcomes = await outcomes_of(await everybody(store))
    check_each_has_its_own(outcomes, StoreFailedError, error)
    assert all(
        "outcome unknown" in str(outcome) and "a broken disk" in str(outcome)
        for outcome in outcomes
    )

    later = [
        store.append(b"x"),
        store.append_many([b"x"]),
        store.append_many([]),
        store.flush(),
        store.sync(),
    ]
    check_each_has_its_own(await outcomes_of(later), StoreFailedError, error)
    with pytest.raises(StoreFailedError):
        store.append_nowait(b"x")
    await check_closes_as_failed(store)


@both_ways
async def test_a_sync_that_failed_is_never_repeated(tmp_path: Path, sync_call: str) -> None:
    """The kernel may have dropped the pages and report success the next time: no file is touched
    again, only closed.
    """
    disk = disk_that_syncs_with(sync_call)
    store = await Store.open(tmp_path, sync_policy=Always(), disk=disk)
    await store.append(b"safe")
    disk.fail(sync_call, EIO)
    syncs = disk.syncs
    await outcomes_of(await everybody(store))
    assert disk.syncs == syncs + 1

    calls = len(disk.calls)
    await outcomes_of([store.append(b"x"), store.sync(), store.flush()])
    await check_closes_as_failed(store)
    of_the_log = [
        call for call in disk.calls[calls:] if call.name not in (LOCK, ACKNOWLEDGED, tmp_path.name)
    ]
    assert [(call.method, call.name) for call in of_the_log] == [("close", segment_name(0))]


@both_ways
async def test_a_sync_fails_while_others_form_and_wait(tmp_path: Path, sync_call: str) -> None:
    """Nobody is left waiting: not those of the next commit, and not those that wait for room."""
    disk = disk_that_syncs_with(sync_call)
    store = await Store.open(tmp_path, sync_policy=Always(), disk=disk, buffer_records=10)
    await store.append(b"safe")
    error = OSError(EIO, "a broken disk")
    disk.fail(sync_call, error)
    with held(disk, sync_call) as call:
        under_way = await everybody(store)
        await call.reached()
        forming = await everybody(store)
        await tick()
        waiting = [asyncio.ensure_future(store.append(b"more")) for _ in range(3)]
        many = asyncio.ensure_future(store.append_many([b"more", b"more"]))
        await tick()
        assert store.statistics().waiting == 4
    check_each_has_its_own(
        await outcomes_of([*under_way, *forming, *waiting, many]), StoreFailedError, error
    )
    statistics = store.statistics()
    assert (statistics.waiting, statistics.buffered_records, statistics.buffered_bytes) == (0, 0, 0)
    await check_closes_as_failed(store)


@both_ways
async def test_reading_after_a_sync_failed(tmp_path: Path, sync_call: str) -> None:
    """What was synced can still be read; what was acknowledged without a sync, and what failed, can
    not.
    """
    disk = disk_that_syncs_with(sync_call)
    store = await Store.open(tmp_path, sync_policy=EveryN(2, within=None), disk=disk)
    await store.append_many([b"zero", b"one", b"two"])
    assert (await store.append(b"three")).stage is Stage.FLUSHED
    disk.fail("sync", EIO)
    with pytest.raises(StoreFailedError):
        await store.append(b"four")
    assert (store.synced_sequence, store.next_sequence) == (3, 4)
    assert "failed" in repr(store)
    assert (await store.get(2)).data == b"two"
    assert [record.data async for record in store.scan()] == [b"zero", b"one", b"two"]
    for sequence in (3, 4):
        with pytest.raises(RecordNotWrittenError):
            await store.get(sequence)
    await check_closes_as_failed(store)


@both_ways
async def test_opening_again_after_a_sync_failed(tmp_path: Path, sync_call: str) -> None:
    """Only a new opening, which reads what is really there, clears the failure."""
    disk = disk_that_syncs_with(sync_call)
    store = await Store.open(tmp_path, sync_policy=Always(), disk=disk)
    await store.append(b"safe")
    disk.fail(sync_call, EIO, written=60)
    with pytest.raises(StoreFailedError):
        await store.append(b"who knows")
    with pytest.raises(StoreFailedError) as caught:
        await store.aclose()
    assert isinstance(caught.value.__cause__, OSError)

    # the one call wrote a part of the frame before it failed; of the two calls the first wrote all
    # of it
    torn = sync_call == "write_synced"
    found = [b"safe"] if torn else [b"safe", b"who knows"]
    async with Store.open(tmp_path, sync_policy=Always(), lock_timeout=0) as again:
        assert [record.data async for record in again.scan()] == found
        assert bool(again.recovery.cut_bytes) == torn
        assert (await again.append(b"after")).sequence == len(found)
    assert await records_of(tmp_path) == [*found, b"after"]


async def test_closing_a_failed_store_twice(tmp_path: Path) -> None:
    """Each `aclose` of a failed store raises an object of its own."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=Always(), disk=disk)
    error = OSError(EIO, "a broken disk")
    disk.fail("sync", error)
    with pytest.raises(StoreFailedError):
        await store.append(b"x")
    closings = await outcomes_of([store.aclose(), store.aclose()])
    check_each_has_its_own(
        [*closings, *await outcomes_of([store.aclose()])], StoreFailedError, error
    )


async def test_the_sync_of_the_timer_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that nobody waits for poisons the store as well: what it was to cover is unknown."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=EveryN(64, within=1.0), disk=disk)
    await store.append(b"acknowledged")
    error = OSError(EIO, "a broken disk")
    disk.fail("sync", error)
    with held(disk, "sync") as call:
        pass_time(monkeypatch, 1.0)
        await call.reached()
        waiting = await everybody(store)
    check_each_has_its_own(await outcomes_of(waiting), StoreFailedError, error)
    assert (store.next_sequence, store.synced_sequence) == (1, 0)
    await check_closes_as_failed(store)
    assert await records_of(tmp_path) == [b"acknowledged"]


async def test_the_sync_of_the_close_fails(tmp_path: Path) -> None:
    """`aclose` raises StoreFailedError; the store is closed and unlocked all the same, and syncs
    nothing any more.
    """
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=OsManaged(), disk=disk)
    await store.append(b"acknowledged")
    syncs = disk.syncs
    disk.fail("sync", EIO)
    await check_closes_as_failed(store)
    assert disk.syncs == syncs + 1
    assert await records_of(tmp_path) == [b"acknowledged"]


async def test_the_sync_of_the_close_fails_behind_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that has ended leaves no timer in the loop, also when a commit came back while it was
    closing.
    """
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=EveryN(64, within=1.0), disk=disk)
    timers = Timers(monkeypatch)
    with held(disk, "write") as call:
        accepted = store.append_nowait(b"acknowledged")
        await call.reached()
        closing = asyncio.ensure_future(store.aclose())
        await tick()
        disk.fail("sync", EIO)
    assert (await accepted).stage is Stage.FLUSHED
    with pytest.raises(StoreFailedError):
        await closing
    assert timers.pending == []


# a write that fails

WRITES = pytest.mark.parametrize(
    ("policy", "writes_synced", "method"),
    [(Always(), True, "write_synced"), (Always(), False, "write"), (OsManaged(), True, "write")],
    ids=["write and sync in one call", "write, then sync", "write alone"],
)


@WRITES
async def test_a_write_fails(
    tmp_path: Path, policy: SyncPolicy, writes_synced: bool, method: str
) -> None:
    """A write that fails for another reason than space poisons the store as a failed sync does: it
    is not tried again.
    """
    disk = FailingDisk(writes_synced=writes_synced)
    store = await Store.open(tmp_path, sync_policy=policy, disk=disk)
    await store.append(b"before")
    error = OSError(EIO, "a broken disk")
    disk.fail(method, error, written=60)
    calls = len(disk.calls)
    outcomes = await outcomes_of(await everybody(store, store.flush()))
    check_each_has_its_own(outcomes, StoreFailedError, error)
    check_each_has_its_own(
        await outcomes_of([store.append(b"x"), store.sync()]), StoreFailedError, error
    )
    await check_closes_as_failed(store)
    of_the_log = [
        call for call in disk.calls[calls:] if call.name not in (LOCK, ACKNOWLEDGED, tmp_path.name)
    ]
    assert [call.method for call in of_the_log] == [method, "close"]
    assert await records_of(tmp_path) == [b"before"]


async def test_writing_ahead_fails(tmp_path: Path) -> None:
    """Zeros that cannot be written, for another reason than space, are a failed write like any."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=Always(), disk=disk)
    error = OSError(EIO, "a broken disk")
    disk.fail("write", error, written=512)
    check_each_has_its_own(await outcomes_of(await everybody(store)), StoreFailedError, error)
    await check_closes_as_failed(store)
    assert await records_of(tmp_path) == []


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("a defect")], ids=["no memory", "a defect"]
)
async def test_an_error_that_nobody_foresaw(tmp_path: Path, error: Exception) -> None:
    """Whatever goes wrong on the worker's thread, everybody is told, and the store closes."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=OsManaged(), disk=disk)
    disk.fail("write", error)
    check_each_has_its_own(await outcomes_of(await everybody(store)), StoreFailedError, error)
    await check_closes_as_failed(store)


# no space

no_space = pytest.mark.parametrize(
    "number", [ENOSPC, EDQUOT, EFBIG], ids=["ENOSPC", "EDQUOT", "EFBIG"]
)


@no_space
@WRITES
async def test_no_space_for_a_commit(
    tmp_path: Path, policy: SyncPolicy, writes_synced: bool, method: str, number: int
) -> None:
    """Its callers get StoreFullError, nothing half-written stays, and the next append takes its
    place without a gap.
    """
    disk = FailingDisk(writes_synced=writes_synced)
    async with Store.open(tmp_path, sync_policy=policy, disk=disk) as store:
        await store.append(b"before")
        error = OSError(number, "no room")
        disk.fail(method, error, written=125)
        outcomes = await outcomes_of(
            await everybody(store, store.flush())
        )  # a sync would write zeros ahead first
        check_each_has_its_own(outcomes, StoreFullError, error)
        assert {(outcome.sequence, outcome.reason) for outcome in outcomes} == {(1, "no room")}
        assert data_in(tmp_path) == [b"before"]
        assert b"zeroone" not in segment_in(tmp_path).read_bytes()

        assert (store.next_sequence, store.statistics().buffered_records) == (1, 0)
        assert (await store.append(b"after")).sequence == 1
        await store.sync()
        assert store.synced_sequence == 2
    async with Store.open(tmp_path) as store:
        assert store.recovery.clean
    assert await records_of(tmp_path) == [b"before", b"after"]


@pytest.mark.parametrize(
    "policy", [Always(), EveryN(2), OsManaged()], ids=["Always", "EveryN", "OsManaged"]
)
async def test_a_disk_that_stays_full(tmp_path: Path, policy: SyncPolicy) -> None:
    """As long as there is no space each commit is refused at the same sequence; then the same store
    goes on.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=policy, disk=disk) as store:
        await store.append(b"before")
        for method in ("write", "write_synced"):
            disk.fail(method, ENOSPC, forever=True, written=7)
        for _ in range(5):
            with pytest.raises(StoreFullError) as caught:
                await store.append(b"refused")
            assert caught.value.sequence == 1
        assert (await store.get(0)).data == b"before"
        disk.mend()
        receipts = [await store.append(b"after") for _ in range(3)]
        assert [receipt.sequence for receipt in receipts] == [1, 2, 3]
    assert await records_of(tmp_path) == [b"before", b"after", b"after", b"after"]


async def test_what_is_unsynced_while_the_disk_is_full(tmp_path: Path) -> None:
    """Records that were acknowledged without a sync survive the refusal of a later commit."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=EveryN(3, within=None), disk=disk) as store:
        assert (await store.append(b"zero")).stage is Stage.FLUSHED
        assert (await store.append(b"one")).stage is Stage.FLUSHED
        disk.fail("write", ENOSPC, nth=2, written=30)  # the first one writes zeros ahead
        with pytest.raises(StoreFullError):
            await store.append(b"refused")
        assert [record.data async for record in store.scan()] == [b"zero", b"one"]
        await store.append(b"two")
    assert await records_of(tmp_path) == [b"zero", b"one", b"two"]


async def test_the_commit_behind_a_refused_one(tmp_path: Path) -> None:
    """Appends of a later commit are stored as if nothing had been; who waits for all before them is
    told of the refusal.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        error = OSError(ENOSPC, "no room")
        disk.fail("write", error)
        with held(disk, "write") as call:
            refused = store.append_nowait(b"refused")
            await call.reached()
            with_it = asyncio.ensure_future(store.flush())
            await tick()
            behind = [
                store.append_nowait(b"zero"),
                store.append_nowait(b"one", durability=Stage.SYNCED),
            ]
            barriers = [asyncio.ensure_future(store.flush()), asyncio.ensure_future(store.sync())]
            await tick()
        outcomes = await outcomes_of([refused, with_it, *barriers])
        check_each_has_its_own(outcomes, StoreFullError, error)
        assert [receipt.sequence for receipt in await asyncio.gather(*behind)] == [0, 1]
        await store.sync()
    assert await records_of(tmp_path) == [b"zero", b"one"]


async def test_a_sync_alone_behind_a_refused_commit(tmp_path: Path) -> None:
    """`sync` is told that what it was to cover was refused, also when no other record is on its
    way.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        await store.append(b"before")
        disk.fail("write", ENOSPC)
        with held(disk, "write") as call:
            refused = store.append_nowait(b"refused")
            await call.reached()
            barrier = asyncio.ensure_future(store.sync())
            await tick()
        outcomes = await outcomes_of([refused, barrier])
        assert [type(outcome) for outcome in outcomes] == [StoreFullError, StoreFullError]
        await store.sync()
        assert store.synced_sequence == 1


async def test_those_who_wait_for_room_behind_a_refused_commit(tmp_path: Path) -> None:
    """A refused commit makes room in the buffer: those who wait for it are stored."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk, buffer_records=2) as store:
        disk.fail("write", ENOSPC)
        with held(disk, "write") as call:
            refused = [store.append_nowait(b"refused"), store.append_nowait(b"refused")]
            await call.reached()
            waiting = [asyncio.ensure_future(store.append(b"%d" % number)) for number in range(5)]
            await tick()
        outcomes = await outcomes_of(refused)
        assert [type(outcome) for outcome in outcomes] == [StoreFullError, StoreFullError]
        assert [receipt.sequence for receipt in await asyncio.gather(*waiting)] == list(range(5))
    assert await records_of(tmp_path) == [b"0", b"1", b"2", b"3", b"4"]


async def test_no_space_for_a_batch(tmp_path: Path) -> None:
    """Of a batch that found no space nothing is kept."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        await store.append(b"before")
        disk.fail("write_synced", ENOSPC, written=3000)
        with pytest.raises(StoreFullError):
            await store.append_many([b"%d" % number for number in range(1000)])
        receipts = await store.append_many([b"x", b"y"])
        assert [receipt.sequence for receipt in receipts] == [1, 2]
    assert await records_of(tmp_path) == [b"before", b"x", b"y"]


@no_space
async def test_no_space_for_zeros_ahead(tmp_path: Path, number: int) -> None:
    """Space written ahead is a help, not a need: without it a commit is stored all the same, and no
    zeros stay.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        disk.fail("write", number, written=4096)
        assert (await store.append(b"zero")).stage is Stage.SYNCED
        assert segment_in(tmp_path).stat().st_size < 4096
        assert (await store.append(b"one")).stage is Stage.SYNCED
    assert await records_of(tmp_path) == [b"zero", b"one"]


@pytest.mark.parametrize("method", ["truncate", "sync"])
async def test_cutting_back_fails(tmp_path: Path, method: str) -> None:
    """When a refused commit cannot be cut back for certain, the store is poisoned: half of it may
    still be there.
    """
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=Always(), disk=disk)
    await store.append(b"before")
    disk.fail("write_synced", ENOSPC, written=60)
    error = OSError(EIO, "a broken disk")
    disk.fail(method, error)
    check_each_has_its_own(await outcomes_of(await everybody(store)), StoreFailedError, error)
    await check_closes_as_failed(store)
    assert await records_of(tmp_path) == [b"before"]


async def test_no_space_at_the_close(tmp_path: Path) -> None:
    """The frame that closes a store may find no space: nothing is lost, and closing is no error."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        await store.append(b"zero")
        disk.fail("write", ENOSPC, forever=True, written=10)
    assert disk.failures
    assert await records_of(tmp_path) == [b"zero"]


# a roll that fails

NO_SPACE_TO_ROLL: list[tuple[str, dict[str, Any]]] = [
    ("create", {"of": UNNAMED}),
    ("write", {"of": UNNAMED, "written": 20}),
    ("rename", {"of": segment_name(1)}),
    (
        "write",
        {"of": segment_name(0), "nth": 2, "written": 20},
    ),  # the first is the commit, the second the footer
]


@pytest.mark.parametrize(
    ("method", "which"),
    NO_SPACE_TO_ROLL,
    ids=["making the next", "its header", "naming it", "the footer"],
)
async def test_no_space_to_roll(tmp_path: Path, method: str, which: dict[str, Any]) -> None:
    """Without space for the next segment the log goes on in the one at hand, and rolls when there
    is space.
    """
    disk = FailingDisk()
    async with Store.open(
        tmp_path, sync_policy=OsManaged(), max_segment_bytes=4096, disk=disk
    ) as store:
        disk.fail(method, ENOSPC, **which)
        await store.append(b"a" * 5000)
        await store.append(b"b")  # when this is acknowledged, the first roll has been tried
        assert disk.failures == 1
        await store.append(b"c")  # and the second one
        assert store.statistics().segments == 2
        assert [record.data async for record in store.scan()] == [b"a" * 5000, b"b", b"c"]
    assert await records_of(tmp_path) == [b"a" * 5000, b"b", b"c"]
    assert not [name for name in os.listdir(tmp_path) if name.endswith(UNNAMED)]


@pytest.mark.parametrize("method", ["create", "rename", "sync_directory", "truncate", "sync"])
async def test_a_roll_fails(tmp_path: Path, method: str) -> None:
    """A roll that fails poisons the store: the record that filled the segment is acknowledged, the
    next one is refused.
    """
    disk = FailingDisk()
    policy = (
        Always() if method == "truncate" else OsManaged()
    )  # zeros are written ahead of what is synced
    store = await Store.open(tmp_path, sync_policy=policy, max_segment_bytes=4096, disk=disk)
    disk.fail(method, EIO)
    await store.append(b"a" * 5000)
    with pytest.raises(StoreFailedError):
        await store.append(b"b")
    assert disk.failures == 1
    await check_closes_as_failed(store)
    assert await records_of(tmp_path) == [b"a" * 5000]


@pytest.mark.parametrize("number", [EIO, ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("policy", [Always(), OsManaged()], ids=["Always", "OsManaged"])
async def test_any_call_of_a_roll_fails(tmp_path: Path, policy: SyncPolicy, number: int) -> None:
    """Whichever call fails while a store rolls: every caller is told, and what was acknowledged is
    found again.
    """
    nth = 0
    while True:
        nth += 1
        disk = FailingDisk()
        path = tmp_path / str(nth)
        store = await Store.open(path, sync_policy=policy, max_segment_bytes=4096, disk=disk)
        disk.fail(ANY, number, nth=nth, written=20)
        payloads = [b"a" * 5000, b"b", b"c" * 5000, b"d"]
        outcomes = [(await outcomes_of([store.append(data)]))[0] for data in payloads]
        failures = disk.failures
        disk.mend()
        await outcomes_of([store.aclose()])
        assert open_descriptors(path) == []
        found = await records_of(path)
        for data, outcome in zip(payloads, outcomes, strict=True):
            assert isinstance(outcome, (Receipt, StoreFullError, StoreFailedError))
            if isinstance(outcome, Receipt):
                assert found[outcome.sequence] == data
        if not failures:
            break
    assert nth > 20


# an opening that fails


@scenes
@pytest.mark.parametrize(
    ("first", "number"),
    [pytest.param(0, number, marks=pytest.mark.proof) for number in (EIO, ENOSPC, EMFILE)]
    + list(enumerate((EIO, ENOSPC, EMFILE), 1)),
)
async def test_any_call_of_an_opening_fails(
    tmp_path: Path, scene: Scene, first: int, number: int
) -> None:
    """Each call fails with one error, and in the proof (``first`` is 0) with each: an opening does
    not look at which it is.

    It is StoreUnavailableError, holds neither lock nor descriptor, and the next opening works as
    if it had not been.
    """
    expected = await scene(tmp_path / "scene")
    for nth in range(first, 1000, 3) if first else range(1, 1000):
        path = copy_of(tmp_path / "scene", str(nth)) if expected else tmp_path / str(nth)
        disk = FailingDisk()
        disk.fail(ANY, number, nth=nth, written=20)
        refusal: StoreUnavailableError | None = None
        try:
            store = await Store.open(path, disk=disk)
        except StoreUnavailableError as error:
            refusal = error
        else:
            disk.mend()
            await store.aclose()
        if refusal is not None:
            assert isinstance(refusal.__cause__, OSError)
            assert refusal.__cause__.errno == number
        assert open_descriptors(path) == []
        assert await records_of(path) == expected
        if not disk.failures:
            break
    assert nth > 10


# reading that fails


@pytest.mark.parametrize("method", ["open", "read"])
async def test_a_record_cannot_be_read(tmp_path: Path, method: str) -> None:
    """A read that fails is StoreUnavailableError for its caller alone: the store goes on, and so
    does reading.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"zero")
        before = open_descriptors(tmp_path)
        disk.fail(method, EIO)
        with pytest.raises(StoreUnavailableError) as caught:
            await store.get(0)
        assert isinstance(caught.value.__cause__, OSError)
        assert (await store.append(b"one")).sequence == 1
        assert (await store.get(0)).data == b"zero"
        assert open_descriptors(tmp_path) == before


async def test_a_segment_cannot_be_scanned(tmp_path: Path) -> None:
    """A scan that fails is StoreUnavailableError, leaves no descriptor, and a new one works."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"zero")
        before = open_descriptors(tmp_path)
        disk.fail("open_stream", EMFILE)
        with pytest.raises(StoreUnavailableError):
            [record async for record in store.scan()]
        assert [record.data async for record in store.scan()] == [b"zero"]
        assert open_descriptors(tmp_path) == before


# everybody, and every call


@pytest.mark.parametrize("number", [EIO, ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize(
    "policy", [Always(), EveryN(3), OsManaged()], ids=["Always", "EveryN", "OsManaged"]
)
async def test_every_future_ends(tmp_path: Path, policy: SyncPolicy, number: int) -> None:
    """Whichever call on a segment fails, every future ends in a receipt, an error of the tree or
    its own cancellation.
    """
    for nth in range(1, 1000):
        path = tmp_path / str(nth)
        disk = FailingDisk()
        store = await Store.open(
            path, sync_policy=policy, disk=disk, max_segment_bytes=4096, buffer_records=12
        )
        disk.fail(ANY, number, nth=nth, of=".segment", written=20)
        callers: list[asyncio.Future[Any]] = []
        for turn in range(8):
            callers += [asyncio.ensure_future(store.append(b"x" * 700)) for _ in range(4)]
            callers.append(asyncio.ensure_future(store.append_many([b"y"] * 3)))
            callers.append(asyncio.ensure_future(store.sync() if turn % 2 else store.flush()))
            await tick()
            callers[-turn - 1].cancel()
        callers.append(asyncio.ensure_future(store.aclose()))
        outcomes = await outcomes_of(callers)
        assert all(
            outcome is None
            or isinstance(outcome, (Receipt, list, AquipuError, asyncio.CancelledError))
            for outcome in outcomes
        )
        assert open_descriptors(path) == []
        acknowledged = [outcome.sequence for outcome in outcomes if isinstance(outcome, Receipt)]
        assert len(await records_of(path)) > max(acknowledged, default=-1)
        if not disk.failures:
            break
    assert nth > 10


async def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, where it finds this package."""
    command = [sys.executable, "-c", script, *arguments]
    root = Path(__file__).parents[3]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=root,
        check=False,
    )


UNLOCKABLE = """
import asyncio, errno, sys
from aquipu import AquipuError, Store
from tests.support import FailingDisk

async def main():
    disk = FailingDisk()
    store = await Store.open(sys.argv[1], disk=disk)
    await store.append(b"safe")
    disk.fail("close", errno.EIO, of="lock")
    try:
        await store.aclose()
    except AquipuError:
        pass
    print("closed")

asyncio.run(main())
"""


async def test_letting_go_of_the_lock_fails(tmp_path: Path) -> None:
    """`aclose` ends also when the lock file cannot be closed well. (In a process of its own: a hang
    would be for ever.)
    """
    done = await run_script(UNLOCKABLE, str(tmp_path))
    assert done.stdout == "closed\n", done.stderr
    assert "Exception in thread" not in done.stderr
    assert await records_of(tmp_path) == [b"safe"]


# a disk that is really full

LIMITED = """
import asyncio, json, resource, sys
from aquipu import Always, OsManaged, Store, StoreFullError

hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

async def fill(store):
    while True:
        try:
            await store.append(bytes([store.next_sequence]) * 5000)
        except StoreFullError as error:
            return error

async def main():
    policy = {"Always": Always(), "OsManaged": OsManaged()}[sys.argv[2]]
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    async with Store.open(sys.argv[1], sync_policy=policy) as store:
        full = await fill(store)
        again = await fill(store)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        receipt = await store.append(bytes([store.next_sequence]) * 5000)
        # no room for the frame that closes the store
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    print(json.dumps([full.__cause__.errno, full.sequence, again.sequence, receipt.sequence]))

asyncio.run(main())
"""


@pytest.mark.parametrize("policy", ["Always", "OsManaged"])
async def test_a_limit_of_the_size_of_files(tmp_path: Path, policy: str) -> None:
    """At the limit of a file's size appends are refused; when it is raised the same store goes on
    without a gap.
    """
    done = await run_script(LIMITED, str(tmp_path / "store"), policy)
    assert done.returncode == 0, done.stderr
    number, refused, again, stored = json.loads(done.stdout)
    assert number == EFBIG
    assert refused == again == stored == 12
    assert await records_of(tmp_path / "store") == [
        bytes([sequence]) * 5000 for sequence in range(13)
    ]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, check=False, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode != 0:
        pytest.skip(f"this process may not mount a tmpfs: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=60)


@pytest.mark.parametrize(
    "policy", [Always(), EveryN(4), OsManaged()], ids=["Always", "EveryN", "OsManaged"]
)
async def test_a_disk_that_is_full(small_disk: Path, policy: SyncPolicy) -> None:
    """On a full disk appends are refused, reading goes on, and when space is freed the same store
    goes on without a gap.
    """
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(128 * 1024))
    path = small_disk / "store"
    async with Store.open(path, sync_policy=policy) as store:

        async def fill() -> None:
            while True:
                await store.append(bytes([store.next_sequence]) * 10_000)

        with pytest.raises(StoreFullError) as caught:
            await fill()
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == ENOSPC
        refused = caught.value.sequence
        assert refused == store.next_sequence > 10
        assert (await store.get(refused - 1)).data == bytes([refused - 1]) * 10_000
        ballast.unlink()
        receipts = [await store.append(bytes([store.next_sequence]) * 10_000) for _ in range(3)]
        assert [receipt.sequence for receipt in receipts] == [refused, refused + 1, refused + 2]
    assert await records_of(path) == [bytes([sequence]) * 10_000 for sequence in range(refused + 3)]
