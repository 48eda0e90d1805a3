"""Records that only the daemon refuses, because their client knew no better: each fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from aquipu import Always, Receipt, RecordTooLargeError, RemoteStore, Stage, Store
from aquipu.commit.buffer import Pending
from aquipu.commit.group import GroupCommit
from aquipu.engine import CommitResult
from aquipu.remote.protocol import WireError, refused_head, refused_in
from tests.remote.daemon.served import Fate, Served, between, nth, served, soon

pytestmark = pytest.mark.asyncio

BAD = "two\nlines"


@pytest_asyncio.fixture
async def it(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, max_record_bytes=100) as it:
        yield it


@pytest.fixture(autouse=True)
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients know another rule for labels than the daemon: none."""
    monkeypatch.setattr("aquipu.commit.writable.checked_relations", tuple)


async def appended(store: RemoteStore, *labels: str) -> list[object]:
    """What became of records with these labels, that were appended in the same moment."""
    calls = (
        store.append(b"%d" % number, relations=(label,)) for number, label in enumerate(labels)
    )
    return list(await asyncio.gather(*calls, return_exceptions=True))


@pytest.mark.parametrize("bad", [{0}, {2}, {5}, {0, 5}, {1, 2, 3}, {0, 1, 2, 3, 4, 5}])
async def test_a_bad_label_among_others(it: Served, bad: set[int]) -> None:
    """Its caller gets the reason, all others their receipts, in their order."""
    async with it.connect() as store:
        await store.append(b"first")
        found = await soon(
            appended(store, *(BAD if number in bad else f"n:{number}" for number in range(6)))
        )
        receipts = [each for each in found if isinstance(each, Receipt)]
        assert {number for number, each in enumerate(found) if isinstance(each, ValueError)} == bad
        assert all("control character" in str(found[number]) for number in bad)
        assert [receipt.sequence for receipt in receipts] == list(range(1, 7 - len(bad)))
        assert (await soon(store.append(b"last"))).sequence == 7 - len(bad)
    assert await it.data() == [b"first", *(b"%d" % n for n in range(6) if n not in bad), b"last"]


async def test_the_label_of_the_engine(it: Served) -> None:
    """A client of an earlier version cannot forge it either."""
    async with it.connect() as store:
        forged, good = await soon(appended(store, "aquipu:lost", "user:7"))
    assert isinstance(forged, ValueError)
    assert isinstance(good, Receipt)
    assert [record.relations async for record in it.store.scan()] == [("user:7",)]


async def test_a_batch_with_a_bad_label(it: Served) -> None:
    """All of a batch is refused, and nothing of its neighbours."""
    async with it.connect() as store:
        before, batch, behind, other = await soon(
            asyncio.gather(
                store.append(b"before", relations=("a",)),
                store.append_many([b"one", b"two"], relations=(BAD,)),
                store.append_many([b"three", b"four"], relations=("b",)),
                store.append(b"five"),
                return_exceptions=True,
            )
        )
    assert isinstance(batch, ValueError)
    assert isinstance(before, Receipt)
    assert isinstance(other, Receipt)
    assert isinstance(behind, list)
    assert [receipt.sequence for receipt in (before, *behind, other)] == [0, 1, 2, 3]
    assert [(record.data, record.relations) async for record in it.store.scan()] == [
        (b"before", ("a",)),
        (b"three", ("b",)),
        (b"four", ("b",)),
        (b"five", ()),
    ]


@pytest.mark.parametrize("labels", [(BAD,), (BAD, "a")])
async def test_who_waits_for_the_whole_commit(it: Served, labels: tuple[str, ...]) -> None:
    """A sync is about what can be stored: it does not fail with a record that cannot."""
    async with it.connect() as store:
        appending = asyncio.ensure_future(appended(store, *labels))
        await asyncio.sleep(0)
        await soon(store.sync())
        assert isinstance((await appending)[0], ValueError)
        assert store.statistics().buffered_records == store.statistics().buffered_bytes == 0
        assert sum(store.statistics().errors.values()) == 1


async def test_a_daemon_that_takes_smaller_records_than_the_one_before(it: Served) -> None:
    """A record that was accepted under the old limit fails alone under the new one."""
    async with it.connect() as store:
        await store.append(b"first")
        await it.end()
        appending = asyncio.gather(
            *(store.append(bytes(size)) for size in (10, 80, 20, 90, 50)), return_exceptions=True
        )
        await asyncio.sleep(0)
        it.options["max_record_bytes"] = 50
        await it.begin()
        found = await soon(appending)
    assert [type(each) for each in found] == [
        Receipt,
        RecordTooLargeError,
        Receipt,
        RecordTooLargeError,
        Receipt,
    ]
    assert [each.limit for each in found if isinstance(each, RecordTooLargeError)] == [50, 50]
    assert list(map(len, await it.data())) == [5, 10, 20, 50]


@pytest.mark.parametrize("fate", [Fate.DROP, Fate.HALF, Fate.LAST])
@pytest.mark.parametrize("number", [1, 2])
async def test_a_connection_that_is_lost_meanwhile(it: Served, fate: Fate, number: int) -> None:
    """Whichever of the two commits is lost, or its answer: nothing is stored twice, and nobody is
    told wrong.
    """
    async with between(it) as (middle, address):
        async with Store.connect(address, timeout=10) as store:
            middle.request = nth(number, fate)
            found = await soon(appended(store, "a", BAD, "b"))
    assert [type(each) for each in found] == [Receipt, ValueError, Receipt]
    assert await it.data() == [b"0", b"2"]


async def test_a_number_names_one_commit(it: Served) -> None:
    """What is sent again without a record is another commit than the one that held it."""
    async with between(it) as (middle, address), Store.connect(address, timeout=10) as store:
        await soon(appended(store, "a", BAD, "b"))
    commits = [
        message
        for message in middle.requests
        if message.head.get("do") == "commit" and message.tail
    ]
    assert [message.head["number"] for message in commits] == [1, 2]


# apart from any daemon


def under_way(*members: Pending[str]) -> GroupCommit[str]:
    group: GroupCommit[str] = GroupCommit(
        Always(), next_sequence=0, synced_sequence=0, buffer_records=100, buffer_bytes=1000
    )
    for member in members:
        if member.batch:
            assert group.add_batch(member, 0)
        else:
            assert group.add(
                member.payloads[0],
                member.size,
                member.labels.get(0, ()),
                member.stage,
                member.waiter,
                0,
            )
    group.submit()
    return group


def single(name: str, *labels: str) -> Pending[str]:
    size = len(name) + sum(map(len, labels))
    return Pending((name.encode(),), size, {0: labels} if labels else {}, Stage.SYNCED, name, False)


async def test_records_that_leave_a_commit() -> None:
    """What is left is as if they had never been in it, and the room that they took is free."""
    batch: Pending[str] = Pending([b"x", b"yy"], 3, {}, Stage.SYNCED, "batch", True, (b"w" * 16, 7))
    lost: Pending[str] = Pending([b"x", b"yy"], 7, {1: ("long",)}, Stage.SYNCED, "lost", True)
    group = under_way(single("a"), lost, single("b", "label"), single("c"), batch)
    assert group.part({0: "first", 2: "second"}) == [("a", "first"), ("lost", "second")]
    commit = group.under_way
    assert commit is not None
    assert (commit.payloads, commit.waiters) == (
        [b"b", b"c", b"x", b"yy"],
        ["b", "c", "batch", None],
    )
    assert (commit.labels, commit.batches, commit.label_bytes, commit.size) == (
        {0: ("label",)},
        {2: 2},
        5,
        10,
    )
    assert [(key.first, key.records) for key in commit.keys] == [(2, 2)]
    assert (group.buffered_records, group.buffered_bytes) == (4, 10)
    group.complete(CommitResult(4, 4, 1))
    assert (group.buffered_records, group.buffered_bytes) == (0, 0)


async def test_refusals_on_the_wire() -> None:
    """They arrive as they were sent; more than a message should hold come with the next answer."""
    head = refused_head({3: ValueError("why"), 5: RecordTooLargeError("store", 9, 7)})
    found = refused_in(head, 6, "unix:x")
    assert {index: (type(error), error.args) for index, error in found.items()} == {
        3: (ValueError, ("why",)),
        5: (RecordTooLargeError, ("store", 9, 7)),
    }
    assert head["error"]["kind"] == "ValueError"
    assert (
        len(refused_in(refused_head(dict.fromkeys(range(5000), ValueError("x"))), 5000, "unix:x"))
        == 1000
    )
    assert refused_in({"error": head["error"]}, 6, "unix:x") == {}


@pytest.mark.parametrize(
    "refused",
    [7, [7], [[7]], [[6, {}]], [[-1, {}]], [["x", {}]], [[None, {}]], {"a": 1}, [[[], 1]]],
)
async def test_refusals_that_are_none(refused: object) -> None:
    """What names no record of the commit is no answer."""
    with pytest.raises(WireError, match="which records are refused"):
        refused_in({"refused": refused}, 6, "unix:x")
