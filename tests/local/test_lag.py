"""How far the consumers of a log are behind, as its statistics say."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from aquipu import Always, Reader, Statistics, Store
from aquipu.local import lag
from aquipu.local.format.names import BookmarkKind, bookmark_name
from tests.callers import held, tick
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test need not wait for the next look."""
    monkeypatch.setattr(lag, "_LOOK_EVERY", 0)


async def seen(store: Store, expected: Mapping[str, int]) -> Statistics:
    """The statistics when they say so of the records: a look at a time, beside the loop."""
    while (found := store.statistics()).cursor_records != expected:
        await tick()
    return found


async def test_a_consumer_that_falls_behind_and_catches_up(tmp_path: Path) -> None:
    """It is as many records behind as it has not passed, and as old as the first of them."""
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        for _ in range(5):
            await store.append(b"x")
        await store.cursor("billing").save(3)
        await store.cursor("mail").save(5)
        found = await seen(store, {"billing": 2, "mail": 0})
        assert found.cursor_seconds["mail"] == 0.0
        since = found.cursor_seconds["billing"]
        later = await seen(store, {"billing": 2, "mail": 0})
        assert 0 < since <= later.cursor_seconds["billing"]
        await store.cursor("billing").save(5)
        found = await seen(store, {"billing": 0, "mail": 0})
        assert found.cursor_seconds == {"billing": 0.0, "mail": 0.0}


async def test_a_consumer_in_another_process(tmp_path: Path) -> None:
    """A cursor that a Reader saves is seen as well."""
    async with Store.open(tmp_path, sync_policy=Always()) as store, Reader.open(tmp_path) as reader:
        await store.append_many([b"x"] * 5)
        assert store.statistics().cursor_records == {}
        await reader.cursor("billing").save(1)
        await seen(store, {"billing": 4})


async def test_a_consumer_of_what_was_purged(tmp_path: Path) -> None:
    """It is behind by what was purged, too; the age is that of the oldest record kept."""
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        for _ in range(3):
            await store.append(b"x")
        await store.cursor("billing").save(1)
        await store.roll()
        await store.append(b"x")
        await store.purge(before=3)
        found = await seen(store, {"billing": 3})
        assert found.cursor_seconds["billing"] > 0


async def test_a_cursor_that_does_not_check(tmp_path: Path) -> None:
    """It is left out, and the others are there."""
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        await store.append(b"x")
        for name in ("billing", "mail"):
            await store.cursor(name).save(0)
        (tmp_path / bookmark_name(BookmarkKind.CURSOR, "mail")).write_bytes(b"?")
        await seen(store, {"billing": 1})


async def looked() -> None:
    """Wait until nobody looks."""
    while any(thread.name == "aquipu-lag" for thread in threading.enumerate()):
        await tick()


async def test_a_look_that_the_disk_holds_up(tmp_path: Path) -> None:
    """Appends and statistics go on beside it, with what was found before; no second look begins."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        await store.append(b"x")
        await store.cursor("billing").save(1)
        await seen(store, {"billing": 0})
        await looked()
        with held(disk, "list") as call:
            store.statistics()
            await call.reached()
            await store.append_many([b"x"] * 3)
            assert store.statistics().cursor_records == {"billing": 0}
            looking = [thread for thread in threading.enumerate() if thread.name == "aquipu-lag"]
            assert len(looking) == 1
            call.release()
        await seen(store, {"billing": 3})


async def test_a_closed_store(tmp_path: Path) -> None:
    """It says what was found last, and looks no more."""
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        await store.append(b"x")
        await store.cursor("billing").save(0)
        await seen(store, {"billing": 1})
        await looked()
    async with Reader.open(tmp_path) as reader:
        await reader.cursor("billing").save(1)
    for _ in range(3):
        assert store.statistics().cursor_records == {"billing": 1}
        assert not any(thread.name == "aquipu-lag" for thread in threading.enumerate())
