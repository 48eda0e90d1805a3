"""condition: the health of a client knows how its daemon is."""

from __future__ import annotations

from collections.abc import Callable
from errno import EIO, ENOSPC
from pathlib import Path

import pytest

from aquipu import RemoteStore, StoreFailedError, StoreFullError
from aquipu.remote import condition
from aquipu.remote.daemon import answers
from aquipu.remote.protocol import Head, WireError, health_in
from aquipu.statistics import Health
from tests.disk import FailingDisk
from tests.remote.daemon.served import connected, served, until
from tests.support import remote_engine_of

WELL = Health("ok", ())
FULL = "the last commit was refused: No space left on device"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is asked again and again without a pause."""
    monkeypatch.setattr(condition, "_PAUSE", 0)


def says(store: RemoteStore, state: str, *reasons: str) -> Callable[[], bool]:
    """Whether the health of the client is this."""
    return lambda: store.health(max_answer_seconds=60) == (state, reasons)


@pytest.mark.asyncio
async def test_a_daemon_whose_disk_is_full(tmp_path: Path) -> None:
    """A client that was refused knows it at once, another one hears of it; until a commit gets
    through.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect() as one, it.connect() as other:
        await until(says(other, "ok"))
        disk.fail("write", ENOSPC, forever=True)
        with pytest.raises(StoreFullError):
            await one.append(b"x")
        assert FULL in one.health().reasons
        await until(says(other, "degraded", f"the daemon says: {FULL}"))
        disk.mend()
        await one.sync()
        assert FULL in one.health().reasons
        await one.append(b"x")
        assert FULL not in one.health().reasons
        await until(says(other, "ok"))
        await until(says(one, "ok"))


@pytest.mark.asyncio
async def test_a_daemon_whose_store_has_failed(tmp_path: Path) -> None:
    """So has the store for its clients, until another daemon is there."""
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect() as one, it.connect() as other:
        other.health()
        disk.fail("sync", EIO)
        with pytest.raises(StoreFailedError) as failed:
            await one.append(b"x")
        await until(says(other, "failed", str(failed.value)))
        await it.end()
        await it.begin()
        await other.append(b"x")
        await until(says(other, "ok"))


@pytest.mark.asyncio
async def test_a_daemon_that_has_ended(tmp_path: Path) -> None:
    """A client that asks nothing of it is not well either, until another daemon answers."""
    gone = "the daemon has ended the connection; the next call makes it anew"
    async with served(tmp_path) as it, it.connect() as store:
        await until(says(store, "ok"))
        await it.end()
        await until(says(store, "degraded", gone))
        await it.begin()
        await store.append(b"x")
        await until(says(store, "ok"))


@pytest.mark.asyncio
async def test_a_daemon_of_an_earlier_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not know the question, is asked once, and nothing is said of it."""
    asked = []

    class Noted(answers.Arguments):
        def __init__(self, head: Head) -> None:
            super().__init__(head)
            asked.append(head.get("do"))

    monkeypatch.delitem(answers._CALLS, "health")
    monkeypatch.setattr(answers, "Arguments", Noted)
    async with served(tmp_path) as it, it.connect() as store:
        store.health()
        await until(lambda: "health" in asked)
        for _ in range(5):
            await store.append(b"x")
            assert store.health() == WELL
        assert asked.count("health") == 1


@pytest.mark.asyncio
async def test_a_daemon_that_has_not_said_anything_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it said before is not told any more."""
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect() as one, it.connect() as other:
        disk.fail("write", ENOSPC, forever=True)
        with pytest.raises(StoreFullError):
            await one.append(b"x")
        await until(says(other, "degraded", f"the daemon says: {FULL}"))
        monkeypatch.setattr(condition, "_OLD_SECONDS", -1.0)
        assert other.health().reasons == ("the daemon has not said for 0 s how it is",)


@pytest.mark.asyncio
async def test_nobody_asks_for_a_client_that_is_closed(tmp_path: Path) -> None:
    """Its timer is gone with it."""
    async with served(tmp_path) as it:
        store = await connected(it.address)
        store.health()
        await store.append(b"x")
        await store.aclose()
        assert remote_engine_of(store)._condition._timer is None
        assert store.health().state == "closed"


@pytest.mark.parametrize("text", [b"{}", b"[]", b'["ok"]', b'["ok", 1]', b"[1, []]", b"x"])
def test_what_is_no_health(text: bytes) -> None:
    """It is refused, and never told."""
    with pytest.raises(WireError):
        health_in(text)
