"""`reached`: waiting until the log is safe up to a record, and whose sync that is."""

from __future__ import annotations

import asyncio
from asyncio import ensure_future
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest

import aquipu.sync
from aquipu import (
    Always,
    EveryN,
    OsManaged,
    RecordNotWrittenError,
    Stage,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    SyncPolicy,
)
from tests.callers import held, pass_time, tick
from tests.disk import WRITES, FailingDisk
from tests.remote.daemon.served import Served, Shared, soon, until

pytestmark = pytest.mark.asyncio

UNHURRIED = EveryN(1000, within=3600)
"""Bounds the age of what is not synced, but not before the end of a test."""

ways = pytest.mark.parametrize("way", ["alone", "daemon", "shared"])


@asynccontextmanager
async def opened(way: str, path: Path, **options: Any) -> AsyncIterator[tuple[Store, Store]]:
    """The store that writes, and the one that is asked: itself, or a client of it."""
    it = (Shared if way == "shared" else Served)(path, **options)
    await it.begin()
    try:
        if way == "alone":
            yield it.store, it.store
        else:
            async with it.connect() as client:
                yield it.store, client
    finally:
        await it.end()


def waiting_in(store: Store) -> int:
    """Calls that wait in the store that writes."""
    return len(store._engine._reaching._waiting)  # type: ignore[attr-defined]


async def waits(store: Store) -> None:
    """Wait until a call has come there."""
    await until(lambda: waiting_in(store) > 0)


@ways
async def test_what_is_synced_already(tmp_path: Path, way: str) -> None:
    """It returns at once, and asks the disk for nothing: also for what was purged since."""
    async with opened(way, tmp_path, sync_policy=Always()) as (store, asked):
        receipt = await store.append(b"x")
        await store.roll()
        await store.append(b"y")
        await store.purge(before=1)
        syncs = store.statistics().syncs
        for stage in (Stage.BUFFERED, Stage.FLUSHED, Stage.SYNCED):
            await soon(asked.reached(stage, receipt.sequence))
        assert store.statistics().syncs == syncs


@ways
@pytest.mark.parametrize("policy", [OsManaged(), EveryN(1000, within=None), Always()], ids=str)
async def test_a_policy_that_might_never_sync(tmp_path: Path, way: str, policy: SyncPolicy) -> None:
    """It asks for the sync: otherwise it would wait for ever."""
    async with opened(way, tmp_path, sync_policy=policy) as (store, asked):
        receipt = await store.append(b"x", durability=Stage.FLUSHED)
        assert store.synced_sequence == 0
        await soon(asked.reached(Stage.FLUSHED, receipt.sequence))
        assert store.synced_sequence == 0
        await soon(asked.reached(Stage.SYNCED, receipt.sequence))
        assert store.synced_sequence == asked.synced_sequence == 1


@ways
async def test_a_policy_that_bounds_the_age(tmp_path: Path, way: str) -> None:
    """It waits for the sync that comes by itself, which is the only one, and all who wait for
    records that it reaches go on; a later record waits for the next one.
    """
    policy = EveryN(1000, within=0.5)
    async with opened(way, tmp_path, sync_policy=policy) as (store, asked):
        for _ in range(3):
            await store.append(b"x")
        syncs = store.statistics().syncs
        await soon(asyncio.gather(*(asked.reached(Stage.SYNCED, number) for number in range(3))))
        assert store.synced_sequence == 3
        assert store.statistics().syncs == syncs + 1


@ways
async def test_a_sync_of_another_caller(tmp_path: Path, way: str) -> None:
    """Whoever has the log synced lets those who wait go on, up to what is on the disk."""
    async with opened(way, tmp_path, sync_policy=UNHURRIED) as (store, asked):
        await store.append(b"x")
        waiting = ensure_future(asked.reached(Stage.SYNCED, 0))
        await waits(store)
        assert not waiting.done()
        await store.append(b"y", durability=Stage.SYNCED)
        await soon(waiting)


@ways
async def test_no_such_record(tmp_path: Path, way: str) -> None:
    """A sequence that no acknowledged record has is refused, whatever the stage: also for a client
    that has not heard of the last records yet, which are there.
    """
    async with opened(way, tmp_path, sync_policy=Always()) as (store, asked):
        for stage in (Stage.BUFFERED, Stage.FLUSHED, Stage.SYNCED):
            with pytest.raises(RecordNotWrittenError):
                await soon(asked.reached(stage, 0))
        await store.append(b"x")
        await soon(asked.reached(Stage.FLUSHED, 0))
        with pytest.raises(RecordNotWrittenError):
            await soon(asked.reached(Stage.SYNCED, 1))


@ways
@pytest.mark.parametrize(
    ("stage", "sequence", "kind"),
    [
        (3, 0, TypeError),
        ("SYNCED", 0, TypeError),
        (Stage.SYNCED, -1, ValueError),
        (Stage.SYNCED, True, TypeError),
        (Stage.SYNCED, None, TypeError),
    ],
)
async def test_no_stage_and_no_sequence(
    tmp_path: Path, way: str, stage: Any, sequence: Any, kind: type[Exception]
) -> None:
    """What is none is refused at once."""
    async with opened(way, tmp_path) as (_, asked):
        with pytest.raises(kind):
            await asked.reached(stage, sequence)


async def test_a_caller_that_is_cancelled(tmp_path: Path) -> None:
    """Only that one stops waiting; the others go on with the sync."""
    async with Store.open(tmp_path, sync_policy=UNHURRIED) as store:
        await store.append(b"x")
        first, second = (ensure_future(store.reached(Stage.SYNCED, 0)) for _ in range(2))
        await tick()
        first.cancel()
        await asyncio.wait([first])
        await store.sync()
        await soon(second)
        assert first.cancelled()


async def test_a_client_whose_caller_is_cancelled(tmp_path: Path) -> None:
    """The daemon does not go on waiting for it."""
    async with opened("daemon", tmp_path, sync_policy=UNHURRIED) as (store, asked):
        await store.append(b"x")
        waiting = ensure_future(asked.reached(Stage.SYNCED, 0))
        await waits(store)
        waiting.cancel()
        await until(lambda: waiting_in(store) == 0)


async def test_many_clients_wait(tmp_path: Path) -> None:
    """Calls that wait do not take the place of those that append."""
    async with opened("daemon", tmp_path, sync_policy=UNHURRIED) as (store, asked):
        await store.append(b"x")
        waiting = [ensure_future(asked.reached(Stage.SYNCED, 0)) for _ in range(100)]
        await until(lambda: waiting_in(store) == 100)
        await soon(asked.append(b"y", durability=Stage.SYNCED))
        await soon(asyncio.gather(*waiting))


async def test_the_store_is_closed_meanwhile(tmp_path: Path) -> None:
    """Closing syncs, so the record is safe and its caller goes on; later calls are refused."""
    store = await Store.open(tmp_path, sync_policy=UNHURRIED)
    await store.append(b"x")
    waiting = ensure_future(store.reached(Stage.SYNCED, 0))
    await tick()
    await store.aclose()
    await soon(waiting)
    with pytest.raises(StoreClosedError):
        await store.reached(Stage.SYNCED, 0)


@pytest.mark.parametrize("policy", [UNHURRIED, OsManaged()], ids=str)
async def test_the_sync_fails(tmp_path: Path, policy: SyncPolicy) -> None:
    """Who waits gets the failure, and so does who asks later, but for what had been synced."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=policy, disk=disk)
    await store.append(b"safe", durability=Stage.SYNCED)
    await store.append(b"x")
    waiting = ensure_future(store.reached(Stage.SYNCED, 1)) if policy is UNHURRIED else None
    await tick()
    disk.fail("sync", EIO)
    if waiting is None:
        with pytest.raises(StoreFailedError):
            await soon(store.reached(Stage.SYNCED, 1))
    else:
        with pytest.raises(StoreFailedError):
            await store.sync()
        with pytest.raises(StoreFailedError):
            await soon(waiting)
    with pytest.raises(StoreFailedError):
        await soon(store.reached(Stage.SYNCED, 1))
    await soon(store.reached(Stage.SYNCED, 0))
    with pytest.raises(StoreFailedError):
        await store.aclose()


async def test_the_last_sync_fails(tmp_path: Path) -> None:
    """Who still waits when the store cannot be closed well gets the failure."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=UNHURRIED, disk=disk)
    await store.append(b"x")
    waiting = ensure_future(store.reached(Stage.SYNCED, 0))
    await tick()
    disk.fail("sync", EIO)
    with pytest.raises(StoreFailedError):
        await store.aclose()
    with pytest.raises(StoreFailedError):
        await soon(waiting)


async def test_a_later_record_finds_no_space(tmp_path: Path) -> None:
    """That is the error of its own caller: the record that is waited for is in the log."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store:
        await store.append(b"x")
        disk.fail(WRITES, ENOSPC, forever=True)
        later = store.append_nowait(b"y")
        await soon(store.reached(Stage.SYNCED, 0))
        with pytest.raises(StoreFullError):
            await later
        assert store.synced_sequence == 1


async def test_the_sync_that_comes_by_itself_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It returns when the disk has it, not when the time is over."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=EveryN(1000, within=1000), disk=disk) as store:
        await store.append(b"x")
        waiting = ensure_future(store.reached(Stage.SYNCED, 0))
        with held(disk, "sync") as hold:
            await tick()  # the commit has come to its end, and its timer runs
            pass_time(monkeypatch, 1000)
            await hold.reached()
            assert not waiting.done()
        await soon(waiting)


async def test_a_daemon_that_is_away(tmp_path: Path) -> None:
    """A client that waits asks the next daemon, and says when there is none."""
    it = Served(tmp_path, sync_policy=UNHURRIED)
    await it.begin()
    async with it.connect() as asked:
        await asked.append(b"x")
        waiting = ensure_future(asked.reached(Stage.SYNCED, 0))
        await waits(it.store)
        await it.end()
        await it.begin()
        await soon(waiting)  # closing has synced it
    await it.end()


async def test_one_call_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon has patience for so many calls that wait, and says so to the next."""
    monkeypatch.setattr("aquipu.remote.daemon.session.WAITS_MAX", 3)
    async with opened("daemon", tmp_path, sync_policy=UNHURRIED) as (store, asked):
        await store.append(b"x")
        waiting = [ensure_future(asked.reached(Stage.SYNCED, 0)) for _ in range(3)]
        await until(lambda: waiting_in(store) == 3)
        with pytest.raises(StoreUnavailableError, match="at most 3"):
            await soon(asked.reached(Stage.SYNCED, 0))
        await store.sync()
        await soon(asyncio.gather(*waiting))


async def test_waiting_without_a_loop(tmp_path: Path) -> None:
    """The synchronous store has the call, too."""

    def wait() -> int:
        with aquipu.sync.open(tmp_path, sync_policy=OsManaged()) as store:
            store.reached(Stage.SYNCED, store.append(b"x").sequence)
            return store.synced_sequence

    assert await asyncio.to_thread(wait) == 1
