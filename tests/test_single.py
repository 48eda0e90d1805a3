"""A store is one: it is neither copied nor opened twice."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import gc
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aquipu import Always, Reader, Store, StoreAlreadyOpenError, StoreLockedError
from aquipu.local.disk.lock import Lock
from aquipu.remote.reader import RemoteCursor
from aquipu.remote.store import RemoteStore
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio


@dataclasses.dataclass
class Settings:
    """As of a program that keeps its store there."""

    store: object


COPIES: list[Callable[[Any], object]] = [
    copy.copy,
    copy.deepcopy,
    pickle.dumps,
    lambda thing: dataclasses.asdict(Settings(thing)),
]


@pytest.mark.parametrize("copied", COPIES)
async def test_a_copy_is_refused_and_harms_nothing(
    tmp_path: Path, copied: Callable[[Any], object]
) -> None:
    """A store, and whatever has come from it, is a TypeError that says what to do; all of it goes
    on.
    """
    async with Store.open(tmp_path, sync_policy=Always()) as store, Reader.open(tmp_path) as reader:
        await store.append(b"0")
        scan, follow = store.scan(), reader.follow(0)
        for thing in (store, reader, store.cursor("c"), scan, store.follow(), follow):
            with pytest.raises(TypeError, match=r"cannot be copied or pickled.*pass its path on"):
                copied(thing)
        gc.collect()
        assert (await store.append(b"1")).sequence == 1
        assert (await anext(scan)).data == b"0"
        assert (await anext(follow)).data == b"0"
        await follow.aclose()
        await scan.aclose()


@pytest.mark.parametrize("kind", [Store, Reader, RemoteStore, RemoteCursor])
async def test_half_made(kind: type) -> None:
    """What was made without its beginning is neither copied, nor does its end raise."""
    thing: object = object.__new__(kind)
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copy.copy(thing)
    del thing
    gc.collect()


async def test_a_second_opening_in_the_same_process(tmp_path: Path) -> None:
    """It is refused at once, in these words, whatever the spelling of the path, and from another
    loop.
    """
    path, link = tmp_path / "store", tmp_path / "link"
    link.symlink_to(path)
    async with Store.open(path) as store:
        for spelling in (path, link, tmp_path / "." / "store" / ".." / "store"):
            with pytest.raises(StoreAlreadyOpenError, match="already open in this process"):
                await Store.open(spelling, lock_timeout=1000)

        async def elsewhere() -> None:
            await Store.open(path, lock_timeout=1000)

        with pytest.raises(StoreAlreadyOpenError, match="already open in this process"):
            await asyncio.to_thread(asyncio.run, elsewhere())
        await store.append(b"goes on")


async def test_an_opening_while_the_store_is_being_closed(tmp_path: Path) -> None:
    """It waits: the store is about to be let go of."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, disk=disk)
    hold = disk.hold("truncate")
    closing = asyncio.ensure_future(store.aclose())
    assert await asyncio.to_thread(hold.reached.wait, 20)
    opening = asyncio.ensure_future(Store.open(tmp_path).__aenter__())
    await asyncio.sleep(0)
    hold.released.set()
    await closing
    await (await opening).aclose()


async def test_waiting_for_another_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a second, once, and with the process that has it."""
    monkeypatch.setattr("aquipu.local.opening._SAID_AFTER", 0.0)
    lock = Lock.take(FailingDisk(), str(tmp_path))
    assert lock is not None
    with caplog.at_level(logging.WARNING), pytest.raises(StoreLockedError, match="aquipu serve"):
        await Store.open(tmp_path, lock_timeout=0.2)
    said = [
        record.getMessage()
        for record in caplog.records
        if "waiting until it is closed" in record.getMessage()
    ]
    assert len(said) == 1
    lock.release()
