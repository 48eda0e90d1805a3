"""What an engine may ask of the store that has it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from aquipu import Store, StoreFailedError, StoreUnavailableError
from aquipu.engine import Host
from tests.support import engine_of


async def ask_everything(host: Host, path: Path) -> None:
    """Ask a host for everything that it can do."""
    error = StoreUnavailableError(str(path), "reach", "no reason")
    host.check()
    host.complete_soon()
    host.complete_meanwhile()
    host.sync_soon()
    await host.sync()
    host.fail(StoreFailedError(str(path), "syncing"))
    host.give_up(error, error)
    host.refuse({0: ValueError()})
    host.leave()


@pytest.mark.asyncio
async def test_a_store_that_is_gone(tmp_path: Path) -> None:
    """A host does not keep its store alive, and when that is gone, it does nothing."""
    store = await Store.open(tmp_path)
    host, limits, worker = engine_of(store)._host, store.limits, engine_of(store)._worker
    await store.aclose()
    assert worker.join(20)
    gone = weakref.ref(store)
    del store
    await asyncio.sleep(0)
    gc.collect()
    assert gone() is None
    await ask_everything(host, tmp_path)
    host.keep_within(limits)


@pytest.mark.asyncio
async def test_an_engine_without_a_store(tmp_path: Path) -> None:
    """Until an engine has a store, nothing that it asks for is done."""
    await ask_everything(Host(), tmp_path)
