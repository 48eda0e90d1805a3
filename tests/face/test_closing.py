"""The face: closing, and what a store says of itself."""

from __future__ import annotations

import asyncio
from errno import EIO, ENOSPC
from pathlib import Path

import pytest

from aquipu import (
    OsManaged,
    RecordNotWrittenError,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
)
from tests.disk import FailingDisk
from tests.face.faces import not_for, of_a_loop, of_files
from tests.remote.daemon.served import Served, served, soon, until

pytestmark = pytest.mark.asyncio


async def test_closing_waits_for_what_was_accepted(it: Served) -> None:
    """Everything is stored and synced when aclose returns, and every future is done."""
    store = await it.connect()
    futures = [store.append_nowait(b"%d" % number) for number in range(3000)]
    await store.aclose()
    assert [future.result().sequence for future in futures] == list(range(3000))
    assert len(await it.data()) == 3000


async def test_closing_syncs_what_was_only_flushed(tmp_path: Path) -> None:
    """As closing a store does, whatever the policy."""
    async with served(tmp_path, sync_policy=OsManaged()) as it:
        async with it.connect() as store:
            await store.append(b"x")
            assert it.store.synced_sequence == 0
        assert it.store.synced_sequence == 1


@of_files("the disk that is full is that of this process")
async def test_closing_when_the_last_commit_finds_no_space(tmp_path: Path) -> None:
    """Its callers are told; what was flushed before is synced all the same."""
    disk = FailingDisk()
    async with served(tmp_path, sync_policy=OsManaged(), disk=disk) as it:
        store = await it.connect()
        await store.append(b"x")
        disk.fail("write", ENOSPC)
        future = store.append_nowait(b"y")
        await store.aclose()
        assert isinstance(future.exception(), StoreFullError)
        assert it.store.synced_sequence == 1


@of_files("the disk that fails is that of this process")
async def test_closing_when_the_sync_fails(tmp_path: Path) -> None:
    """aclose says so, and has closed."""
    disk = FailingDisk()
    async with served(tmp_path, sync_policy=OsManaged(), disk=disk) as it:
        store = await it.connect()
        await store.append(b"x")
        disk.fail("sync", EIO)
        disk.fail("write_synced", EIO)
        with pytest.raises(StoreFailedError):
            await soon(store.aclose())
        with pytest.raises(StoreFailedError):
            await store.aclose()
        with pytest.raises(StoreClosedError):
            await store.append(b"x")


@not_for(
    "sync", "postgresql", why="it holds up the disk of this process; threads are not cancelled"
)
async def test_closing_that_is_cancelled(tmp_path: Path) -> None:
    """It is closed all the same, and then the cancellation goes on."""
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it:
        store = await it.connect()
        await store.append(b"before")
        hold = disk.hold("write_synced")
        future = store.append_nowait(b"x")
        closing = asyncio.ensure_future(store.aclose())
        await until(hold.reached.is_set)
        closing.cancel()
        await asyncio.sleep(0)
        hold.released.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert future.result().sequence == 1


async def test_questions_under_way_when_it_is_closed(tmp_path: Path) -> None:
    """Nobody waits for ever: there is an answer, or StoreClosedError."""
    async with served(tmp_path) as it:
        store = await it.connect()
        asked: list[asyncio.Future[object]] = [
            asyncio.ensure_future(store.get(0)),
            asyncio.ensure_future(store.relations()),
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await store.aclose()
        got, labels = await soon(asyncio.gather(*asked, return_exceptions=True))
        assert isinstance(got, StoreClosedError | RecordNotWrittenError)
        assert labels == {} or isinstance(labels, StoreClosedError)


@of_a_loop
async def test_its_words(it: Served) -> None:
    """repr says where it is and whether it is open; its path is what it was opened with."""
    async with it.connect() as store:
        assert repr(store).startswith(f"<{type(store).__name__} {it.address!r} open")
        assert store.path == it.address
    assert repr(store).startswith(f"<{type(store).__name__} {it.address!r} closed")
