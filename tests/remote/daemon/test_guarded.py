"""Appends with a key and such that expect a sequence, through a daemon: whatever becomes of the
connection and of the daemon, each is stored once, and its caller gets the first receipt.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, ensure_future
from collections.abc import Awaitable
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest

from aquipu import (
    BatchTooLargeError,
    ConflictError,
    EveryN,
    OutcomeUnknownError,
    Receipt,
    RecordTooLargeError,
    RemoteStore,
    Stage,
    StaleKeyError,
    Store,
    StoreFullError,
    StoreUnavailableError,
)
from aquipu.remote.daemon.session import REQUESTS_MAX
from aquipu.remote.guarded import UNDER_WAY_MAX
from aquipu.remote.protocol import records_of_commit
from tests.callers import held
from tests.disk import WRITES, FailingDisk
from tests.remote.daemon.served import (
    SHORT,
    TIMEOUT,
    WELCOME,
    WRITER,
    Fate,
    Peer,
    Served,
    between,
    nth,
    peer,
    scripted,
    served,
    served_at_last,
    soon,
    until,
)

pytestmark = pytest.mark.asyncio

PRODUCER = 1 << 63


async def test_a_key_of_several_processes(store: RemoteStore, it: Served) -> None:
    """Whoever gives it first has it stored; all have the receipt of that, which is the record's."""
    async with it.connect() as other:
        calls = [
            client.append(b"%d" % number, key=("p", number), relations=("a:1",))
            for number in range(40)
            for client in (store, other, it.store)
        ]
        receipts: list[Receipt] = await soon(asyncio.gather(*calls))
    assert [receipt.sequence for receipt in receipts] == [n for n in range(40) for _ in range(3)]
    assert await it.data() == [b"%d" % number for number in range(40)]
    records = [record async for record in it.store.scan(relation="a:1")]
    assert [record.timestamp for record in records] == [it.timestamp for it in receipts[::3]]


async def test_a_batch_with_a_key(store: RemoteStore, it: Served) -> None:
    """Its receipts are given again, also to who gives another number of records."""
    receipts = await store.append_many([b"a", b"b"], key=("p", 1))
    assert [receipt.sequence for receipt in receipts] == [0, 1]
    assert await store.append_many([b"c"], key=("p", 1)) == receipts
    assert await store.append_many([b"c", b"d"], expect=2) != receipts
    assert await it.data() == [b"a", b"b", b"c", b"d"]


async def test_what_is_refused(store: RemoteStore, it: Served) -> None:
    """The errors are those of a store of this process, and nothing is written."""
    await store.append(b"9", key=("p", 9))
    with pytest.raises(StaleKeyError) as stale:
        await store.append(b"8", key=("p", 8))
    assert (stale.value.number, stale.value.last) == (8, 9)
    with pytest.raises(ConflictError) as conflict:
        await store.append(b"x", expect=7)
    assert (conflict.value.expected, conflict.value.next_sequence) == (7, 1)
    for wrong in ({"key": ("", 1)}, {"key": ("p", -1)}, {"expect": -1}, {"expect": True}):
        with pytest.raises((TypeError, ValueError)):
            await store.append(b"x", **wrong)
    assert await it.data() == [b"9"]


async def test_what_is_too_large(tmp_path: Path) -> None:
    """It is refused before it is sent, by what the daemon has said of its limits."""
    async with served(tmp_path, max_record_bytes=10) as it, it.connect(buffer_records=2) as store:
        with pytest.raises(RecordTooLargeError):
            await store.append(b"x" * 11, key=("p", 1))
        with pytest.raises(BatchTooLargeError):
            await store.append_many([b"x"] * 3, expect=0)
        assert await it.data() == []


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """The caller gets StoreFullError; with space its key is as new as before."""
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect() as store:
        await store.append(b"0", key=("p", 0))
        disk.fail(WRITES, ENOSPC)
        with pytest.raises(StoreFullError):
            await store.append(b"1", key=("p", 1))
        assert (await store.append(b"1", key=("p", 1))).sequence == 1


@pytest.mark.parametrize("fate", [Fate.DROP, Fate.HALF, Fate.LAST])
@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_a_connection_that_is_lost(it: Served, fate: Fate, lost: str) -> None:
    """Keyed and conditional appends are asked again: each is there once, with its first receipt,
    and in the order of the calls.
    """
    async with between(it) as (middle, address):
        async with Store.connect(address, timeout=TIMEOUT) as store:
            await store.append(b"before", key=("p", 0))
            if lost == "request":
                middle.request = nth(2, fate, do="append")
            else:
                seen = 0

                def decide(message: Any) -> Fate:
                    nonlocal seen
                    seen += "records" in message.head
                    return fate if seen == 2 and "records" in message.head else Fate.PASS

                middle.answer = decide
            calls: list[Awaitable[Receipt]] = [
                *(store.append(b"k%d" % number, key=("p", number)) for number in range(1, 5)),
                *(store.append(b"c%d" % number, expect=5 + number) for number in range(3)),
            ]
            receipts = await soon(asyncio.gather(*calls))
            assert [receipt.sequence for receipt in receipts] == [1, 2, 3, 4, 5, 6, 7]
    assert await it.data() == [b"before", b"k1", b"k2", b"k3", b"k4", b"c0", b"c1", b"c2"]


async def test_a_daemon_that_is_started_anew(it: Served) -> None:
    """It finds in its log what was stored and not answered, for a key and for a condition."""
    async with between(it) as (middle, address):
        async with Store.connect(address, timeout=TIMEOUT) as store:
            await store.append(b"before", key=("p", 0))
            middle.answer = lambda message: Fate.DROP if "records" in message.head else Fate.PASS
            keyed = ensure_future(store.append(b"keyed", key=("p", 1)))
            await until(lambda: it.store.next_sequence == 2)
            conditional = ensure_future(store.append(b"conditional", expect=2))
            await until(lambda: it.store.next_sequence == 3)
            await it.end()
            middle.answer = lambda message: Fate.PASS
            await it.begin()
            receipts = await soon(asyncio.gather(keyed, conditional))
            assert [receipt.sequence for receipt in receipts] == [1, 2]
            assert {receipt.stage for receipt in receipts} == {Stage.SYNCED}
    assert await it.data() == [b"before", b"keyed", b"conditional"]


async def test_a_daemon_that_does_not_come_back(it: Served) -> None:
    """What was sent has an unknown outcome, and what was not is not stored."""
    async with between(it) as (middle, address):
        store = await served_at_last(lambda: Store.connect(address, timeout=SHORT))
        middle.answer = lambda message: Fate.DROP if "records" in message.head else Fate.PASS
        sent = ensure_future(store.append(b"keyed", key=("p", 1)))
        await until(lambda: it.store.next_sequence == 1)
        middle.request = lambda message: Fate.DROP
        with pytest.raises(OutcomeUnknownError):
            await soon(sent)
        with pytest.raises(StoreUnavailableError):
            await soon(store.append(b"other", key=("p", 2)))
        middle.request = middle.answer = lambda message: Fate.PASS
        again = await served_at_last(lambda: store.append(b"again", key=("p", 1)))
        assert again.sequence == 0
        await store.aclose()
    assert await it.data() == [b"keyed"]


async def test_records_that_were_purged_before_the_daemon_could_be_asked(tmp_path: Path) -> None:
    """Whether a conditional append was among them is not known any more: the caller is told so."""
    async with served(tmp_path, max_segment_bytes=4096) as it, between(it) as (middle, address):
        async with Store.connect(address, timeout=TIMEOUT) as store:
            middle.answer = lambda message: Fate.DROP if "records" in message.head else Fate.PASS
            call = ensure_future(store.append(b"conditional", expect=0))
            await until(lambda: it.store.next_sequence == 1)
            await it.daemon.aclose()
            for _ in range(100):
                await it.store.append(b"x" * 100)
            await it.store.purge(before=90)
            middle.answer = lambda message: Fate.PASS
            await it.store.aclose()
            await it.begin()
            with pytest.raises(OutcomeUnknownError):
                await soon(call)


async def test_a_caller_that_is_cancelled(tmp_path: Path) -> None:
    """Its record is written all the same, and its key is known; closing waits for the answer."""
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it:
        async with it.connect() as store:
            await store.append(b"0", key=("p", 0))
            with held(disk, "write_synced") as call:
                task = ensure_future(store.append(b"1", key=("p", 1)))
                await call.reached()
                task.cancel()
                with pytest.raises(CancelledError):
                    await task
                closing = ensure_future(store.aclose())
                again = ensure_future(it.store.append(b"again", key=("p", 1)))
                await asyncio.sleep(0)
                assert not closing.done()
            await soon(closing)
            assert (await soon(again)).sequence == 1
        assert await it.data() == [b"0", b"1"]


async def test_sync_covers_what_was_flushed(tmp_path: Path) -> None:
    """`sync` and closing have it on the disk, though it was no commit of this client."""
    async with served(tmp_path, sync_policy=EveryN(64, within=None)) as it:
        async with it.connect() as store:
            receipt = await store.append(b"0", key=("p", 0))
            assert (receipt.stage, it.store.synced_sequence) == (Stage.FLUSHED, 0)
            await store.sync()
            assert it.store.synced_sequence == 1
            await store.append(b"1", expect=1)
            assert it.store.synced_sequence == 1
            again = await store.append(b"1", key=("p", 0), durability=Stage.SYNCED)
            assert again == receipt._replace(stage=Stage.SYNCED)
            await store.append(b"2", key=("p", 1))
        assert it.store.synced_sequence == 3


async def test_many_at_once(store: RemoteStore, it: Served) -> None:
    """As many as the daemon does for one client at a time are never used up: others go on."""
    assert UNDER_WAY_MAX < REQUESTS_MAX
    await store.append(b"first")
    calls = [store.append(b"%d" % number, key=("p", number)) for number in range(200)]
    calls += [store.append(b"plain") for _ in range(20)]
    receipts = await soon(asyncio.gather(*calls, store.get(0)))
    assert len({receipt.sequence for receipt in receipts[:-1]}) == 220
    assert it.store.next_sequence == 221
    keyed = [receipt.sequence for receipt in receipts[:200]]
    assert keyed == sorted(keyed)


async def test_a_daemon_of_an_earlier_version(tmp_path: Path) -> None:
    """It does not know what is asked for, and the caller is told so."""

    async def earlier(one: Peer) -> None:
        await one.hear()
        await one.say(WELCOME)
        request = await one.hear()
        assert request is not None
        error = {
            "kind": "ValueError",
            "arguments": ["this daemon does not know how to do 'append'"],
            "cause": None,
        }
        await one.say({"id": request.head["id"], "error": error, "standing": [0, 0, 0]})
        await one.hear()

    async with scripted(tmp_path / "socket", earlier) as address:
        store = await Store.connect(address, timeout=TIMEOUT)
        with pytest.raises(StoreUnavailableError, match="does not know how to do 'append'"):
            await soon(store.append(b"x", key=("p", 1)))
        await soon(store.aclose())


GOOD = {"do": "append", "producer": WRITER, "number": PRODUCER, "expect": None, "stage": 3}


@pytest.mark.parametrize(
    "wrong",
    [
        {"number": 1},
        {"number": -1},
        {"number": True},
        {"producer": "ab"},
        {"producer": 7},
        {"producer": None},
        {"producer": None, "client": WRITER},
        {"producer": None, "client": "zz", "number": 1},
        {"expect": -1},
        {"expect": "0"},
        {"stage": 9},
    ],
)
async def test_a_request_that_is_none(it: Served, wrong: dict[str, Any]) -> None:
    """The client is cut off, and nothing is written."""
    tail = b"".join(records_of_commit([b"x"], [0], {}))
    async with peer(it) as one:
        await one.greet()
        await one.say({"id": 1, **GOOD, **wrong}, tail)
        answer = await one.hear()
        assert answer is not None
        assert answer.head["error"]["kind"] == "StoreUnavailableError"
        assert await one.hear() is None
    assert await it.data() == []


async def test_records_that_are_none(it: Served) -> None:
    """None, or with different labels: no client sends such."""
    for tail in (
        b"",
        b"".join(records_of_commit([], [], {})),
        b"".join(records_of_commit([b"x", b"y"], [0, 0], {0: ("a:1",)})),
    ):
        async with peer(it) as one:
            await one.greet()
            await one.say({"id": 1, **GOOD}, tail)
            await one.hear()
            assert await one.hear() is None
    async with peer(it) as one:
        await one.greet()
        labelled = b"".join(records_of_commit([b"x"], [0], {0: ("aquipu:lost",)}))
        answer = await one.ask({"id": 1, **GOOD}, labelled)
        assert answer.head["error"]["kind"] == "ValueError"
        good = b"".join(records_of_commit([b"x"], [0], {0: ("a:1",)}))
        answer = await one.ask({"id": 2, **GOOD}, good)
        assert (answer.head["first"], answer.head["records"]) == (0, 1)
    assert await it.data() == [b"x"]
