"""`max_segment_age`: a log that lets go of what is old by itself, also when nobody appends."""

from __future__ import annotations

import asyncio
import gc
import warnings
from errno import EIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from aquipu import (
    Always,
    EveryN,
    OsManaged,
    Reader,
    RecordPurgedError,
    Retention,
    Stage,
    Store,
    StoreFailedError,
)
from tests.callers import Timers
from tests.disk import FailingDisk
from tests.remote.daemon.served import served, soon, until
from tests.support import segments_in

pytestmark = pytest.mark.asyncio

SOON: dict[str, Any] = {"retention": Retention(max_age=0.1), "max_segment_age": 0.05}


async def test_nobody_appends_any_more(tmp_path: Path) -> None:
    """Everything goes, and its files: for the store, for a Reader, and for a client of a daemon,
    which need not ask.
    """
    async with served(tmp_path, **SOON) as it, it.connect() as client:
        async with Reader.open(tmp_path / "store") as reader:
            for _ in range(3):
                await it.store.append(b"x", relations=["user:7"])
            await until(lambda: it.store.first_sequence == 3)
            await until(lambda: len(segments_in(tmp_path / "store")) == 1)
            for log in (it.store, client, reader):
                assert [record async for record in log.scan()] == []
                with pytest.raises(RecordPurgedError):
                    await log.get(2)
            assert (await it.store.append(b"next")).sequence == 3
            await until(lambda: it.store.first_sequence == 4)


async def test_what_is_sealed_by_its_age_is_synced(tmp_path: Path) -> None:
    """The store knows, and lets go on who waits for that."""
    policy = EveryN(1000, within=3600)
    async with Store.open(tmp_path, sync_policy=policy, max_segment_age=0.05) as store:
        await store.append(b"x")
        await soon(store.reached(Stage.SYNCED, 0))
        assert store.synced_sequence == 1
        assert store.statistics().segments == 2


async def test_what_is_sealed_behind_its_commit_is_synced(tmp_path: Path) -> None:
    """The segment was full, or its time had come before the thread had done with the commit: who
    waits does not wait for the next commit, nor for the policy.
    """
    policy = EveryN(1000, within=3600)
    async with Store.open(tmp_path, sync_policy=policy, max_segment_bytes=4096) as store:
        await store.append(bytes(5000))
        await soon(store.reached(Stage.SYNCED, 0))
        assert store.synced_sequence == 1
        assert store.statistics().segments == 2


@pytest.mark.parametrize(
    "options",
    [{}, {"retention": Retention(max_age=0.01)}, {"max_segment_age": 0.01}, SOON],
    ids=str,
)
async def test_an_idle_store_costs_nothing(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nothing is left that is due, neither the loop nor the thread that writes has a timer:
    both wait for the next caller.
    """
    waits: list[float | None] = []
    get = SimpleQueue.get

    class Noted(SimpleQueue):  # type: ignore[type-arg]
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            waits.append(timeout)
            return get(self, block, timeout)

    monkeypatch.setattr("aquipu.local.write.worker.SimpleQueue", Noted)
    async with Store.open(tmp_path, sync_policy=Always(), **options) as store:
        await until(lambda: waits == [None])
        timers = Timers(monkeypatch)
        await store.append(b"x")
        if "max_segment_age" in options:
            await until(lambda: store.statistics().segments == 2 or store.first_sequence == 1)
        if options is SOON:
            await until(lambda: store.first_sequence == 1)
        await until(lambda: waits[-1] is None and not timers.pending)


async def test_a_roll_that_fails_while_nobody_appends(tmp_path: Path) -> None:
    """The store has failed, and says so before anybody appends."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=OsManaged(), max_segment_age=0.05, disk=disk)
    disk.fail("sync", EIO, forever=True)
    await store.append(b"x")
    await until(lambda: store.health().state == "failed")
    with pytest.raises(StoreFailedError):
        await store.append(b"y")
    with pytest.raises(StoreFailedError):
        await store.aclose()


async def test_closing_does_not_wait_for_an_age(tmp_path: Path) -> None:
    """A store is closed at once, whatever is due later, and found whole."""
    options: dict[str, Any] = {"retention": Retention(max_age=3600), "max_segment_age": 3600}
    async with Store.open(tmp_path, **options) as store:
        await store.append(b"x")
        closing = asyncio.ensure_future(store.aclose())
        await soon(closing)
    async with Store.open(tmp_path, **options) as store:
        assert (await store.get(0)).data == b"x"


async def test_a_store_that_is_left_while_something_is_due(tmp_path: Path) -> None:
    """What the thread calls keeps no store alive that the program has dropped."""
    store = await Store.open(tmp_path, max_segment_age=3600)
    await store.append(b"x")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del store
        # once the thread and the loop have let go of the commit
        await until(lambda: gc.collect() >= 0 and caught)
    assert [warning.category for warning in caught] == [ResourceWarning]
    async with Store.open(tmp_path) as store:
        assert (await store.get(0)).data == b"x"
