"""The face: appends with a key, such that expect a sequence, and waiting for a stage."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from aquipu import ConflictError, OsManaged, Stage, StaleKeyError, Store
from tests.face.faces import all_of
from tests.remote.daemon.served import Served, served, soon

pytestmark = pytest.mark.asyncio


async def test_a_key_that_is_given_again(store: Store, it: Served) -> None:
    """Nothing is stored, whatever the data, and the receipt is that of the first time; a batch has
    one key for all of it.
    """
    first = await store.append(b"first", key=("orders", 1), relations=("a:1",))
    assert await store.append(b"another", key=("orders", 1)) == first
    batch = await store.append_many([b"a", b"b"], key=("orders", 2))
    assert await store.append_many([b"a", b"b"], key=("orders", 2)) == batch
    assert await it.data() == [b"first", b"a", b"b"]


async def test_a_key_that_is_given_twice_at_once(store: Store, it: Served) -> None:
    """All who give it get the same receipt."""
    receipts = await asyncio.gather(*(store.append(b"x", key=("orders", 1)) for _ in range(5)))
    assert receipts == [receipts[0]] * 5
    assert await it.data() == [b"x"]


async def test_a_number_that_is_lower(store: Store, it: Served) -> None:
    """It is stale unless the log has it; a number that skips ahead is accepted."""
    known = await store.append(b"10", key=("orders", 10))
    await store.append(b"20", key=("orders", 20))
    with pytest.raises(StaleKeyError) as stale:
        await store.append(b"15", key=("orders", 15))
    assert (stale.value.number, stale.value.last) == (15, 20)
    assert await store.append(b"10", key=("orders", 10)) == known
    assert await it.data() == [b"10", b"20"]


async def test_a_key_in_the_next_life(tmp_path: Path) -> None:
    """It is known as long as its record is kept, also when the store was closed meanwhile."""
    async with served(tmp_path) as it, it.connect() as store:
        first = await store.append(b"first", key=("orders", 7))
    async with served(tmp_path) as it, it.connect() as store:
        again = await store.append(b"again", key=("orders", 7))
        with pytest.raises(StaleKeyError):
            await store.append(b"lower", key=("orders", 6))
        assert again == first
        assert await it.data() == [b"first"]


async def test_an_expected_sequence(store: Store, it: Served) -> None:
    """The record gets exactly that one, or it is not stored, and the error has the next one."""
    assert (await store.append(b"a", expect=0)).sequence == 0
    for expected in (0, 2):
        with pytest.raises(ConflictError) as conflict:
            await store.append(b"b", expect=expected)
        assert (conflict.value.expected, conflict.value.next_sequence) == (expected, 1)
    batch = await store.append_many([b"b", b"c"], expect=1)
    assert [receipt.sequence for receipt in batch] == [1, 2]
    assert await it.data() == [b"a", b"b", b"c"]


async def test_a_race_for_a_sequence(store: Store, it: Served) -> None:
    """It has one winner, and the others are told what comes next."""
    outcomes = await asyncio.gather(
        *(store.append(b"%d" % number, expect=0) for number in range(8)), return_exceptions=True
    )
    conflicts = [outcome for outcome in outcomes if isinstance(outcome, ConflictError)]
    assert [conflict.next_sequence for conflict in conflicts] == [1] * 7
    assert len(await it.data()) == 1


async def test_waiting_for_a_stage(tmp_path: Path) -> None:
    """It returns when the log is that safe up to there, whoever has it synced."""
    async with served(tmp_path, sync_policy=OsManaged()) as it, it.connect() as store:
        receipt = await store.append(b"x")
        await soon(store.reached(Stage.FLUSHED, receipt.sequence))
        waiting = asyncio.ensure_future(store.reached(Stage.SYNCED, receipt.sequence))
        await asyncio.sleep(0)
        await it.store.sync()
        await soon(waiting)
        assert it.store.synced_sequence == 1


async def test_json(store: Store) -> None:
    """A value comes back as it was."""
    value: Any = {"id": 7, "märz": [None, True, 1.5]}
    receipt = await store.append_json(value, relations=("user:7",))
    record = await store.get(receipt.sequence)
    assert record.json() == value
    assert record.relations == ("user:7",)
    assert record.time == receipt.time


async def test_pages(store: Store) -> None:
    """The newest records first; each page says where the next one goes on."""
    await store.append_many([b"%d" % number for number in range(5)], relations=("a",))
    await store.append(b"of another")
    page = await store.page(relation="a", limit=3)
    assert [record.data for record in page.records] == [b"4", b"3", b"2"]
    page = await store.page(relation="a", limit=3, before=page.next)
    assert [record.data for record in page.records] == [b"1", b"0"]
    assert page.next is None
    assert [record.sequence for record in await all_of(store.scan())] == list(range(6))
