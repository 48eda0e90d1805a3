"""A primary and its synchronous standby: what is confirmed, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT
from typing import Any

import asyncpg
import pytest

from aquipu import Always, OsManaged, PositionLostError, Reader, Stage, Store
from tests.postgres import runs
from tests.postgres.pair import Pair, names
from tests.postgres.server import log_name
from tests.remote.daemon.served import soon, until

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Both at work."""
    pair = Pair.made()
    yield pair
    pair.remove()


async def test_what_a_standby_has_confirmed(pair: Pair, tmp_path: Path) -> None:
    """A receipt says REPLICATED where that was asked for, and where none confirms it is refused."""
    await names(pair.primary, "one")
    async with Store.open(pair.log(log_name(tmp_path)), sync_policy=OsManaged()) as store:
        assert (await store.append(b"0")).stage is Stage.FLUSHED
        assert (await store.append(b"1", durability=Stage.REPLICATED)).stage is Stage.REPLICATED
        keyed = await store.append(b"2", durability=Stage.REPLICATED, key=("orders", 1))
        assert keyed.stage is Stage.REPLICATED
        receipt = await store.append(b"3")
        await soon(store.reached(Stage.REPLICATED, receipt.sequence))
        reading = f"{pair.standby.url}?log={log_name(tmp_path)}"
        async with Reader.open(reading) as reader, reader.follow("earliest") as records:
            assert [(await soon(anext(records))).data for _ in range(4)] == [b"0", b"1", b"2", b"3"]
            step = asyncio.ensure_future(anext(records))
            await store.append(b"4")
            assert (await soon(step)).data == b"4"
        await names(pair.primary, "")
        await store.append(b"5")
        with pytest.raises(ValueError, match="has a synchronous standby"):
            await store.append(b"6", durability=Stage.REPLICATED)
        assert store.next_sequence == 6


async def test_the_only_standby_is_gone(pair: Pair, tmp_path: Path) -> None:
    """Nothing is acknowledged meanwhile, health says why; a wait that is cancelled is no answer."""
    await names(pair.primary, "one")
    async with Store.open(pair.log(log_name(tmp_path)), sync_policy=Always()) as store:
        await store.append(b"0")
        pair.standby.stop(SIGINT)
        appended = asyncio.ensure_future(store.append(b"1"))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await store.append(b"2")
        await until(lambda: any("standby" in reason for reason in store.health().reasons))
        admin = await asyncpg.connect(pair.primary.url)
        for how in ("pg_cancel_backend", "pg_terminate_backend", "pg_cancel_backend"):
            await end_wait(admin, how)
        await asyncio.sleep(0.1)
        assert not appended.done()
        pair.standby.start()
        assert (await soon(appended)).sequence == 1
        assert (await store.append(b"3")).sequence == 3
        assert [record.data async for record in store.scan()] == [b"0", b"1", b"2", b"3"]
        await admin.close()


async def end_wait(admin: Any, how: str) -> None:
    """End the wait of a commit for the standby, as soon as there is one."""
    query = f"SELECT {how}(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    async with asyncio.timeout(20):
        while not await admin.fetch(query):  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def mortal() -> Iterator[Pair]:
    """Both at work, until one of them is lost: the tests that take it stand in this order."""
    pair = Pair.made(noting=True)
    yield pair
    pair.remove()


@pytest.mark.proof
@pytest.mark.timeout(300)
async def test_they_are_lost_under_load(mortal: Pair) -> None:
    """The standby is away, and both lose their power: 0 acknowledged lost, 0 twice, dense. At full
    size, and with standbys that take over one after another, it is ``python -m tests.postgres``.
    """
    assert (await runs.standbys(mortal, 1))["records that waited, each time"] > 0
    assert (await runs.cuts(mortal, 2))["files rolled back"] > 0


@pytest.mark.proof
async def test_a_standby_takes_over(mortal: Pair, tmp_path: Path) -> None:
    """What was acknowledged is there, once; what was under way is sent there."""
    address = mortal.log(log_name(tmp_path))
    receipts: dict[bytes, int] = {}
    stop = asyncio.Event()
    async with (
        Store.open(address, sync_policy=Always()) as store,
        Store.open(address, sync_policy=OsManaged()) as loose,
    ):
        generation = store.generation
        callers = [asyncio.ensure_future(_append(store, who, receipts, stop)) for who in "ab"]
        await until(lambda: len(receipts) > 50)
        await loose.append(b"loose")
        position = loose.follow(0)
        record = await anext(position)
        await asyncio.to_thread(mortal.take_over)
        seen = len(receipts)
        await until(lambda: len(receipts) > seen + 50)
        stop.set()
        await soon(asyncio.gather(*callers))
        stored = {record.data: record.sequence async for record in store.scan()}
        assert {data: stored[data] for data in receipts} == receipts
        assert sorted(stored.values()) == list(range(len(stored)))
        assert store.generation != generation
        again = store.follow(position.position_after(record))
        assert (await soon(anext(again))).sequence == 1
        with pytest.raises(PositionLostError):
            await anext(store.follow(f"{generation}-{store.next_sequence}"))


async def _append(
    store: Store, who: str, receipts: dict[bytes, int], stop: asyncio.Event, count: int = 0
) -> None:
    while not stop.is_set():
        data = f"{who} {count}".encode()
        receipts[data] = (await store.append(data)).sequence
        count += 1
