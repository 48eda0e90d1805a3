"""remote: a store in another process gives what a store in this one gives, and goes on when its
daemon was away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aquipu import (
    Always,
    AquipuError,
    BatchTooLargeError,
    BufferFullError,
    CorruptionError,
    EveryN,
    OsManaged,
    Purged,
    Receipt,
    Record,
    RecordNotWrittenError,
    RecordPurgedError,
    RecordTooLargeError,
    RemoteStore,
    Stage,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    SyncPolicy,
    WrongLoopError,
)
from tests.daemon.served import KIND, Served, Shared, served, soon, until
from tests.disk import FailingDisk
from tests.support import flip, frames_in, segment_in
from tests.sync.awaited import Synchronous

pytestmark = pytest.mark.asyncio

Call = Callable[[Any], Awaitable[object]]
PAST_A_PAGE = 2048 * 2 + 7


KINDS = {"daemon": Served, "shared": Shared, "sync": Synchronous}


@pytest.fixture(autouse=True, params=list(KINDS.values()), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Iterator[type[Served]]:
    """A daemon serves the store, or one of those that share it; and one without a loop."""
    before = KIND.set(request.param)
    yield request.param
    KIND.reset(before)


daemon_only = pytest.mark.parametrize("kind", [Served], indirect=True, ids=["daemon"])
"""For what is said of a daemon that comes and goes, or has failed: see `tests.shared`."""

of_a_loop = pytest.mark.parametrize(
    "kind", [Served, Shared], indirect=True, ids=["daemon", "shared"]
)
"""For what is said of callers in one loop, and of cancelling them: see `tests.sync`."""


@pytest_asyncio.fixture
async def it(kind: type[Served], tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as it:
        yield it


@pytest_asyncio.fixture
async def store(it: Served) -> AsyncIterator[RemoteStore]:
    async with it.connect() as store:
        yield store


async def all_of(records: Any) -> list[Record]:
    return [record async for record in records]


async def outcome(call: Call, store: Any) -> object:
    """What it gives; the class, arguments and cause of what it raises."""
    try:
        return await call(store)
    except Exception as error:
        cause = error.__cause__
        return type(error), *error.args, None if cause is None else (type(cause), *cause.args)


# the same as a store


async def test_a_receipt_is_that_of_the_record(store: RemoteStore, it: Served) -> None:
    """Sequence, time and stage are those with which the record is in the log, and so are data and
    labels.
    """
    receipt = await store.append(b"signed", relations=("user:7", "märz"))
    assert receipt == Receipt(0, receipt.timestamp, Stage.SYNCED)
    (record,) = await all_of(it.store.scan())
    assert record == Record(0, receipt.timestamp, b"signed", ("user:7", "märz"))
    assert (store.first_sequence, store.next_sequence, store.synced_sequence) == (0, 1, 1)


@pytest.mark.parametrize("policy", [Always(), EveryN(4, within=None), OsManaged()], ids=str)
async def test_the_stage_is_that_of_the_policy(tmp_path: Path, policy: SyncPolicy) -> None:
    """A client gets what a caller in the daemon's process would get, whatever it asks for."""
    stages: list[list[Stage]] = []
    for place in ("remote", "own"):
        async with served(tmp_path / place, sync_policy=policy) as it, it.connect() as remote:
            store = remote if place == "remote" else it.store
            stages.append([])
            for durability in (None, None, None, None, Stage.SYNCED, Stage.FLUSHED, None):
                stages[-1].append((await store.append(b"x", durability=durability)).stage)
    assert stages[0] == stages[1]


@of_a_loop
async def test_everybody_of_one_moment_travels_together(store: RemoteStore, it: Served) -> None:
    """Many tasks that append at the same time share a message, a commit and a sync, and each gets
    its own receipt.
    """
    receipts = await asyncio.gather(*(store.append(b"%d" % number) for number in range(500)))
    assert [receipt.sequence for receipt in receipts] == list(range(500))
    assert await it.data() == [b"%d" % number for number in range(500)]
    assert it.store.statistics().commits == 1


async def test_what_a_client_counts(tmp_path: Path) -> None:
    """Its own appends and errors, and where the log stands; the syncs and the files are the
    daemon's.
    """
    async with (
        served(tmp_path, max_record_bytes=100) as it,
        it.connect() as one,
        it.connect() as two,
    ):
        await two.append(b"of another")
        await one.append_many([b"ab", b"c"], relations=("user:7",))
        with pytest.raises(RecordTooLargeError):
            await one.append(bytes(101))
        seen = await asyncio.to_thread(one.statistics)
        assert (seen.records, seen.bytes, seen.commits, seen.errors["RecordTooLargeError"]) == (
            2,
            3,
            1,
            1,
        )
        assert (seen.append_seconds.total, seen.commit_records.total, seen.sync_seconds.total) == (
            2,
            1,
            0,
        )
        assert (seen.first_sequence, seen.next_sequence, seen.synced_sequence) == (0, 3, 3)
        assert (seen.syncs, seen.segments, seen.disk_bytes, seen.free_bytes) == (0, 0, 0, None)
        assert (seen.buffered_records, seen.unsynced_records, seen.under_way_seconds) == (0, 0, 0)


@daemon_only
async def test_the_health_of_the_way_to_the_daemon(tmp_path: Path) -> None:
    """ok, degraded while an answer is late, failed when the daemon could not be reached, and ok
    when it is back; closed.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it:
        store = await it.connect(timeout=0.1)
        await store.append(b"before")
        assert store.health() == ("ok", ())
        hold = disk.hold("write_synced")
        future = store.append_nowait(b"x")
        await until(hold.reached.is_set)
        late = store.health(max_answer_seconds=0)
        hold.released.set()
        await future
        assert late.state == "degraded"
        assert late.reasons[0].startswith("the daemon has not answered for")
        await it.end()
        with pytest.raises(StoreUnavailableError) as away:
            await store.append(b"y")
        assert store.health() == ("failed", (str(away.value),))
        await it.begin()
        await store.append(b"z")
        assert store.health(max_answer_seconds=0) == ("ok", ())
        await store.aclose()
        assert store.health() == ("closed", ("the store is closed",))


async def test_several_clients_share_the_syncs(it: Served) -> None:
    """What several processes append while the disk is busy leaves as one commit."""
    async with it.connect() as one, it.connect() as two:
        for _ in range(20):
            await asyncio.gather(*(store.append(b"x") for store in (one, two) for _ in range(8)))
        assert it.store.statistics().records == 320
        assert one.next_sequence == 320 or two.next_sequence == 320


async def test_append_many_is_one_commit_in_its_order(store: RemoteStore, it: Served) -> None:
    """Receipts in order, each record with the labels; nothing for nothing."""
    receipts = await store.append_many([b"a", bytearray(b"b"), memoryview(b"c")], relations=("l",))
    assert [receipt.sequence for receipt in receipts] == [0, 1, 2]
    assert [(record.data, record.relations) for record in await all_of(it.store.scan())] == [
        (b"a", ("l",)),
        (b"b", ("l",)),
        (b"c", ("l",)),
    ]
    assert await store.append_many([]) == []


async def test_append_nowait_and_its_future(store: RemoteStore) -> None:
    """The future resolves when append would have returned; callbacks can be added to it."""
    futures = [store.append_nowait(b"x") for _ in range(3)]
    assert [(await future).sequence for future in futures] == [0, 1, 2]


async def test_flush_and_sync(tmp_path: Path) -> None:
    """After sync everything that was accepted is on the disk, whatever the policy."""
    async with served(tmp_path, sync_policy=OsManaged()) as it, it.connect() as store:
        future = store.append_nowait(b"x")
        await store.flush()
        assert future.done()
        assert store.synced_sequence == it.store.synced_sequence == 0
        await store.sync()
        assert store.synced_sequence == it.store.synced_sequence == 1


async def filled(store: Store) -> None:
    """A log of a few segments, with labels and times to look for."""
    for number in range(400):
        labels = (f"third:{number % 3}", *(["tens"] if number % 10 == 0 else []))
        store.append_nowait(b"%d" % number + bytes(20), relations=labels)
        if number % 7 == 0:
            await store.flush()
    await store.sync()


def reads(times: list[int]) -> dict[str, Call]:
    """Ways to read that log."""
    at = datetime.fromtimestamp(times[200] / 1e9, UTC)
    scans: dict[str, dict[str, Any]] = {
        "all": {},
        "reverse": {"reverse": True},
        "range": {"start": 5, "stop": 300},
        "range, reverse": {"start": 5, "stop": 300, "reverse": True},
        "nothing": {"start": 7, "stop": 7},
        "beyond": {"start": 10_000},
        "beyond, reverse": {"start": 10_000, "reverse": True},
        "times": {"since": times[100], "until": times[301]},
        "a datetime": {"since": at},
        "a label": {"relation": "tens"},
        "labels": {"relation": ("tens", "third:0"), "reverse": True},
        "any of": {"any_of": ("tens", "third:1"), "start": 100},
        "all of it": {"relation": ["third:2"], "any_of": {"tens"}, "since": times[50], "stop": 390},
        "no such label": {"relation": "nobody"},
        "no labels": {"relation": ()},
        "backwards": {"start": 2, "stop": 1},
        "times backwards": {"since": 2, "until": 1},
        "no sequence": {"start": -1},
        "no number": {"start": "1"},
        "no zone": {"since": datetime(2026, 1, 1)},
        "a label of bytes": {"relation": b"x"},
    }
    calls: dict[str, Call] = {name: scanning(options) for name, options in scans.items()}
    return calls | {
        "get": lambda store: store.get(399),
        "get what is not there": lambda store: store.get(400),
        "get no sequence": lambda store: store.get(-1),
        "get a truth": lambda store: store.get(True),
        "get a huge one": lambda store: store.get(1 << 70),
        "relations": lambda store: store.relations(),
        "relations with a prefix": lambda store: store.relations("third"),
        "relations of bytes": lambda store: store.relations(b"third"),
        "holds": lambda store: store.holds(),
    }


def scanning(options: dict[str, Any]) -> Call:
    async def scan(store: Any) -> object:
        return await all_of(store.scan(**options))

    return scan


async def test_reading_gives_the_same(tmp_path: Path) -> None:
    """Every way to read, and every wrong one: records, or errors with their arguments."""
    async with served(tmp_path, max_segment_bytes=8192) as it, it.connect() as remote:
        await filled(it.store)
        times = [record.timestamp for record in await all_of(it.store.scan())]
        for name, call in reads(times).items():
            assert await outcome(call, remote) == await outcome(call, it.store), name


async def test_a_scan_of_several_pages_is_what_was_there_at_the_first(
    store: RemoteStore, it: Served
) -> None:
    """In both directions; what is appended while it is under way is not part of it."""
    await it.store.append_many([b"%d" % number for number in range(PAST_A_PAGE)])
    for reverse in (False, True):
        there = it.store.next_sequence
        scan = store.scan(reverse=reverse)
        seen = [await anext(scan)]
        await it.store.append(b"later")
        seen += await all_of(scan)
        assert [record.sequence for record in seen] == list(range(there))[:: -1 if reverse else 1]


async def test_a_scan_of_large_records(store: RemoteStore) -> None:
    """A page takes as many as are sensible, and at least one."""
    data = [bytes([number]) * 200_000 for number in range(5)]
    await store.append_many(data)
    assert [record.data for record in await all_of(store.scan())] == data
    assert [record.data for record in await all_of(store.scan(reverse=True))] == data[::-1]


async def test_a_scan_that_is_closed_has_ended(store: RemoteStore, it: Served) -> None:
    await it.store.append_many([b"x"] * PAST_A_PAGE)
    async with store.scan() as scan:
        await anext(scan)
    assert await all_of(scan) == []


async def test_many_labels_come_whole(store: RemoteStore, it: Served) -> None:
    """The answer may be larger than the head of any message."""
    for first in range(0, 60_000, 20_000):
        for number in range(first, first + 20_000, 100):
            it.store.append_nowait(
                b"", relations=[f"{'label' * 10}:{one}" for one in range(number, number + 100)]
            )
        await it.store.flush()
    counts = await soon(store.relations())
    assert len(counts) == 60_000
    assert counts == await it.store.relations()


async def test_more_questions_at_once_than_the_daemon_takes(store: RemoteStore, it: Served) -> None:
    """They wait for their turn, and all are answered."""
    await it.store.append_many([b"%d" % number for number in range(300)])
    records = await soon(asyncio.gather(*(store.get(number) for number in range(300))))
    assert [record.data for record in records] == [b"%d" % number for number in range(300)]


# errors


WRONG: dict[str, Call] = {
    "no bytes": lambda store: store.append("text"),
    "no label": lambda store: store.append(b"x", relations=("",)),
    "one label as text": lambda store: store.append(b"x", relations="user:7"),
    "no stage": lambda store: store.append(b"x", durability=2),
    "too early a stage": lambda store: store.append(b"x", durability=Stage.BUFFERED),
    "a batch that is none": lambda store: store.append_many(b"x"),
    "purge of nothing": lambda store: store.purge(),
    "purge of both": lambda store: store.purge(before=1, before_time=2),
    "purge before no sequence": lambda store: store.purge(before=-1),
    "purge before no time": lambda store: store.purge(before_time="now"),
    "hold without a name": lambda store: store.hold("", 0),
    "hold at no sequence": lambda store: store.hold("a", -1),
    "hold too late": lambda store: store.hold("a", 1_000),
    "release of nothing": lambda store: store.release("nobody"),
    "release without a name": lambda store: store.release("../x"),
    "cursor at no sequence": lambda store: store.cursor("a").save(-1),
    "cursor at half a sequence": lambda store: store.cursor("a").save(0.5),
    "follow from no sequence": lambda store: anext(store.follow(-1)),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
async def test_what_is_refused_is_refused_in_the_same_words(
    call: Call, store: RemoteStore, it: Served
) -> None:
    """The same class and the same arguments, and nothing is stored."""
    assert await outcome(call, store) == await outcome(call, it.store)
    assert it.store.next_sequence == 0


async def test_a_cursor_without_a_name(store: RemoteStore) -> None:
    with pytest.raises(ValueError, match="name"):
        store.cursor("")


async def test_a_record_that_is_too_large(tmp_path: Path) -> None:
    """Is refused where it is appended, by the limit of the daemon's store."""
    async with served(tmp_path, max_record_bytes=100) as it, it.connect() as store:
        with pytest.raises(RecordTooLargeError) as refused:
            await store.append(bytes(101))
        assert refused.value.limit == 100
        assert (await store.append(bytes(100))).sequence == 0


async def test_a_batch_that_no_buffer_holds(tmp_path: Path) -> None:
    """The narrower of the two buffers counts, the daemon's or the client's."""
    async with served(tmp_path, buffer_records=10) as it:
        async with it.connect() as store:
            with pytest.raises(BatchTooLargeError):
                await store.append_many([b"x"] * 11)
            assert len(await store.append_many([b"x"] * 10)) == 10
        async with it.connect(buffer_records=5) as store:
            with pytest.raises(BatchTooLargeError):
                await store.append_many([b"x"] * 6)


async def test_a_record_whose_labels_are_larger_than_the_buffer(tmp_path: Path) -> None:
    """It goes alone, as in a store of this process."""
    labels = [f"{number}" + "x" * 1000 for number in range(200)]
    async with (
        served(tmp_path, max_record_bytes=100, buffer_bytes=1000) as it,
        it.connect() as store,
    ):
        receipts = await soon(
            asyncio.gather(*(store.append(b"x", relations=labels) for _ in range(3)))
        )
        assert [receipt.sequence for receipt in receipts] == [0, 1, 2]


async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """StoreFullError with its cause, for the client whose commit found no space; the next append
    works.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect() as store:
        await store.append(b"before")
        disk.fail("write_synced", ENOSPC)
        with pytest.raises(StoreFullError) as full:
            await store.append(b"x")
        assert full.value.sequence == 1
        assert isinstance(full.value.__cause__, OSError)
        assert full.value.__cause__.errno == ENOSPC
        assert (await store.append(b"after")).sequence == 1
        assert await it.data() == [b"before", b"after"]


@daemon_only
async def test_a_disk_that_fails(tmp_path: Path) -> None:
    """StoreFailedError for all, as long as that daemon is there; the next daemon takes what comes
    then.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect() as store:
        await store.append(b"before")
        disk.fail("write_synced", EIO)
        for _ in range(2):
            with pytest.raises(StoreFailedError) as failed:
                await store.append(b"x")
        assert isinstance(failed.value.__cause__, OSError)
        assert it.daemon.failed.done()
        assert (await store.get(0)).data == b"before"
        disk.mend()
        await it.end()
        await it.begin()
        await store.append(b"after")
        assert (await it.data())[-1] == b"after"


async def test_damage_is_reported_with_its_place(tmp_path: Path) -> None:
    """CorruptionError names the file of the daemon."""
    async with served(tmp_path) as it, it.connect() as store:
        await store.append(b"x")
        offset, header, _ = frames_in(tmp_path / "store")[0]
        flip(segment_in(tmp_path / "store"), offset + header.size - 1)
        with pytest.raises(CorruptionError) as damaged:
            await store.get(0)
        assert damaged.value.path == str(segment_in(tmp_path / "store"))


# keeping and letting go


async def test_purge_and_holds(tmp_path: Path) -> None:
    """What goes and what is held is the daemon's store's; a scan of what has gone says so."""
    async with served(tmp_path, max_segment_bytes=8192) as it, it.connect() as store:
        await filled(it.store)
        await store.hold("audit", 300)
        assert await store.holds() == await it.store.holds() == {"audit": 300}
        would = await store.purge(before=380, dry_run=True)
        assert isinstance(would, Purged)
        assert store.first_sequence == 0
        assert await store.purge(before=380) == would
        assert 0 < store.first_sequence == it.store.first_sequence <= 300
        for call in (
            scanning({"start": 0}),
            lambda store: store.get(0),
            lambda store: anext(store.follow(0)),
        ):
            found = await outcome(call, store)
            assert found == await outcome(call, it.store)
            assert isinstance(found, tuple)
            assert found[0] is RecordPurgedError
        assert await store.release("audit") is True
        assert await store.release("audit") is False
        later = await store.purge(before_time=datetime.now(UTC))
        assert later.first_sequence > would.first_sequence


async def test_a_roll(tmp_path: Path) -> None:
    """The daemon's store seals its segment, with everything that this client had accepted."""
    async with served(tmp_path) as it, it.connect() as store:
        appended = asyncio.ensure_future(store.append(b"one"))
        await asyncio.sleep(0)
        await store.roll()
        assert appended.done()
        assert it.store.statistics().segments == 2


async def test_a_page_that_was_purged_before_it_was_asked_for(tmp_path: Path) -> None:
    """The scan says so, as it does where the writer is in another process."""
    async with served(tmp_path, max_segment_bytes=8192) as it, it.connect() as store:
        await it.store.append_many([b"x"] * PAST_A_PAGE)
        for _ in range(3):
            await it.store.append_many([b"x"] * 100)
        scan = store.scan()
        await anext(scan)
        await it.store.purge(before=it.store.next_sequence)
        with pytest.raises(RecordPurgedError):
            await all_of(scan)


async def test_a_cursor_is_kept_by_the_daemon(store: RemoteStore, it: Served) -> None:
    """Under its name, for whoever asks."""
    cursor = store.cursor("billing")
    assert cursor.name == "billing"
    assert await cursor.load() is None
    await store.append_many([b"x"] * 50)
    await cursor.save(42)
    assert await store.cursor("billing").load() == await it.store.cursor("billing").load() == 42
    with pytest.raises(RecordNotWrittenError):
        await cursor.save(51)


async def test_a_cursor_that_holds(tmp_path: Path) -> None:
    """Nothing that its consumer has not passed is purged, and a name that is too long for it is
    refused at once.
    """
    async with served(tmp_path, max_segment_bytes=4096) as it, it.connect() as store:
        for _ in range(10):
            await store.append(b"x" * 4096)
        cursor = store.cursor("billing", hold=True)
        assert await cursor.load() is None
        assert await store.holds() == {"cursor.billing": 0}
        await cursor.save(4)
        assert (await store.purge(before=9)).first_sequence == 4
        assert await store.cursor("billing", hold=True).load() == 4
        with pytest.raises(ValueError, match="at most 93 characters"):
            store.cursor("n" * 94, hold=True)


async def test_how_far_consumers_are_behind(
    store: RemoteStore, it: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, as in the statistics of the process that has the files; in those of a client soon
    after it has asked.
    """
    monkeypatch.setattr("aquipu.remote.lags._PAUSE", 0)
    await store.append_many([b"x"] * 5)
    await store.cursor("billing").save(2)
    lags = await store.cursors()
    assert {name: lag[:2] for name, lag in lags.items()} == {"billing": (2, 3)}
    assert lags["billing"].seconds > 0
    await until(lambda: store.statistics().cursor_records == {"billing": 3})
    assert store.statistics().cursor_seconds["billing"] > 0


# following


async def test_following_what_is_there_and_what_comes(store: RemoteStore, it: Served) -> None:
    """Each record once, in its order, whoever appends it.

    A start beyond the end is an error, as in a Store.
    """
    await it.store.append_many([b"%d" % number for number in range(PAST_A_PAGE)])
    async with (
        store.follow(start=10) as records,
        store.follow("earliest") as every,
        store.follow() as fresh,
    ):
        assert [(await anext(records)).sequence for _ in range(PAST_A_PAGE - 10)] == list(
            range(10, PAST_A_PAGE)
        )
        assert [(await anext(every)).sequence for _ in range(PAST_A_PAGE)] == list(
            range(PAST_A_PAGE)
        )
        waiting = [asyncio.ensure_future(anext(one)) for one in (records, every, fresh)]
        await store.append_many([b"a", b"b", b"c"])
        assert [record.data for record in await soon(asyncio.gather(*waiting))] == [
            b"a",
            b"a",
            b"a",
        ]
    with pytest.raises(RecordNotWrittenError):
        await anext(store.follow(PAST_A_PAGE + 4))


async def test_following_where_a_purge_was_quicker(tmp_path: Path) -> None:
    """The earliest is the first record kept; one that is overtaken raises, or passes over and tells
    how many.
    """
    async with served(tmp_path, max_segment_bytes=4096) as it, it.connect() as store:
        for number in range(20):
            await store.append(b"%d" % number * 500)
        early = store.follow("earliest")
        first = (await store.purge(before=15)).first_sequence
        assert (await anext(early)).sequence == first
        assert early.skipped == 0
        with pytest.raises(RecordPurgedError):
            await anext(store.follow(1))
        passing = store.follow(1, on_purged="skip")
        assert (await anext(passing)).sequence == first
        assert passing.skipped == first - 1


@daemon_only
async def test_following_across_a_restart(store: RemoteStore, it: Served) -> None:
    """A follower waits for the next daemon, and misses nothing."""
    async with store.follow(0) as records:
        waiting = asyncio.ensure_future(anext(records))
        await store.flush()
        for number in range(3):
            await it.end()
            await it.begin()
            await it.store.append(b"%d" % number)
            assert (await soon(waiting)).data == b"%d" % number
            waiting = asyncio.ensure_future(anext(records))
        waiting.cancel()


@daemon_only
async def test_a_step_of_a_follower_that_is_cancelled(store: RemoteStore, it: Served) -> None:
    """Nothing is lost or repeated, and nothing of it is left at the daemon, however often that is
    done.
    """
    async with store.follow(0) as records:
        for _ in range(1200):
            step = asyncio.ensure_future(anext(records))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            step.cancel()
        await store.append_many([b"a", b"b"])
        assert [(await soon(anext(records))).data for _ in range(2)] == [b"a", b"b"]
        step = asyncio.ensure_future(anext(records))
        (session,) = it.daemon.sessions
        await until(lambda: len(session._waits) == 1)
        step.cancel()
        await until(lambda: not session._waits)


async def test_a_follower_that_is_closed_while_it_waits(store: RemoteStore) -> None:
    """The step that waits has come to the end."""
    records = store.follow(0)
    step = asyncio.ensure_future(all_of(records))
    await store.flush()
    await asyncio.sleep(0)
    await records.aclose()
    assert await soon(step) == []
    assert await all_of(records) == []


async def test_a_follower_ends_with_its_store(it: Served) -> None:
    """Closing the store ends the iteration, after what had come."""
    store = await it.connect()
    await store.append(b"x")
    records = store.follow(0)
    assert (await soon(anext(records))).data == b"x"
    step = asyncio.ensure_future(all_of(records))
    await until(lambda: any(session._waits for session in it.daemon.sessions))
    await store.aclose()
    assert await soon(step) == []


@daemon_only
async def test_a_follower_of_a_store_that_fails(tmp_path: Path) -> None:
    """It gives what may still be read, and then says that the store has failed."""
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect() as store:
        await store.append(b"before")
        disk.fail("write_synced", EIO)
        with pytest.raises(StoreFailedError):
            await store.append(b"x")
        records = store.follow(0)
        assert (await soon(anext(records))).data == b"before"
        with pytest.raises(StoreFailedError):
            await soon(anext(records))


async def test_more_followers_than_a_daemon_has_patience_for(
    store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one too many is told; the others, and whoever appends, notice nothing."""
    monkeypatch.setattr("aquipu.daemon.session.WAITS_MAX", 3)
    followers = [store.follow(0) for _ in range(4)]
    steps = [asyncio.ensure_future(anext(one)) for one in followers]
    done, waiting = await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    (refused,) = done
    assert isinstance(refused.exception(), StoreUnavailableError)
    assert "at most 3 followers" in str(refused.exception())
    await store.append(b"x")
    assert [record.data for record in await soon(asyncio.gather(*waiting))] == [b"x"] * 3


# room


@of_a_loop
async def test_the_buffer_of_the_client_is_bounded(tmp_path: Path) -> None:
    """append_nowait raises when it is full, append waits, and one that is cancelled while it waits
    is not stored.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect(buffer_records=3) as store:
        await store.append(b"first")
        hold = disk.hold("write_synced")
        futures = [store.append_nowait(b"%d" % number) for number in range(3)]
        with pytest.raises(BufferFullError):
            store.append_nowait(b"x")
        waiting = asyncio.ensure_future(store.append(b"waited"))
        cancelled = asyncio.ensure_future(store.append(b"cancelled"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await until(hold.reached.is_set)
        hold.released.set()
        await soon(asyncio.gather(*futures))
        assert (await soon(waiting)).sequence == 4
        assert await it.data() == [b"first", b"0", b"1", b"2", b"waited"]


async def test_the_buffer_of_the_daemon_is_full_of_others(tmp_path: Path) -> None:
    """A client waits for its turn there, in the order in which commits came, and reading goes on
    meanwhile.
    """
    disk = FailingDisk()
    async with (
        served(tmp_path, disk=disk, buffer_records=4) as it,
        it.connect() as one,
        it.connect() as two,
    ):
        await one.append(b"first")
        hold = disk.hold("write_synced")
        own = [it.store.append_nowait(b"own") for _ in range(4)]
        await until(hold.reached.is_set)
        waiting = [
            asyncio.ensure_future(store.append_many([b"%d" % number] * 3))
            for number, store in enumerate((one, two))
        ]
        await until(lambda: it.store.statistics().waiting + it.daemon.gathering.waiting == 2)
        assert (await soon(two.get(0))).data == b"first"
        hold.released.set()
        await soon(asyncio.gather(*own, *waiting))
        assert sorted((await it.data())[5:]) == [b"0"] * 3 + [b"1"] * 3


@daemon_only
async def test_a_daemon_that_comes_back_with_less_room(tmp_path: Path) -> None:
    """A batch that waits and would never have room there is refused; everybody else goes on, also
    who was accepted in a commit that is now too large: that goes alone.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect(buffer_records=100) as store:
        await store.append(b"before")
        hold = disk.hold("write_synced")
        first = store.append_nowait(b"first")
        await until(hold.reached.is_set)
        small = [asyncio.ensure_future(store.append_many([b"s"] * 10)) for _ in range(9)]
        large = asyncio.ensure_future(store.append_many([b"l"] * 50))
        behind = asyncio.ensure_future(store.append(b"behind"))
        await asyncio.sleep(0)
        hold.released.set()
        it.options["buffer_records"] = 20
        await it.daemon.aclose()
        await it.store.aclose()
        await it.begin()
        await soon(asyncio.wait([first, *small, large, behind]))
        with pytest.raises(BatchTooLargeError):
            large.result()
        assert [len(one.result()) for one in small] == [10] * 9
        assert behind.result().stage is Stage.SYNCED


# whose it is


@of_a_loop
async def test_another_loop(store: RemoteStore) -> None:
    """Every call from elsewhere is one clear error."""

    def elsewhere(call: Call) -> None:
        async def run() -> None:
            with pytest.raises(WrongLoopError):
                await call(store)

        asyncio.run(run())

    for call in (
        lambda store: store.append(b"x"),
        lambda store: store.append_many([b"x"]),
        lambda store: store.get(0),
        lambda store: store.relations(),
        lambda store: store.sync(),
        lambda store: store.aclose(),
    ):
        await asyncio.to_thread(elsewhere, call)
    assert (await store.append(b"x")).sequence == 0


CLOSED: dict[str, Call] = {
    "append": lambda store: store.append(b"x"),
    "append_many": lambda store: store.append_many([b"x"]),
    "flush": lambda store: store.flush(),
    "sync": lambda store: store.sync(),
    "get": lambda store: store.get(0),
    "relations": lambda store: store.relations(),
    "purge": lambda store: store.purge(before=0),
    "hold": lambda store: store.hold("a", 0),
    "holds": lambda store: store.holds(),
    "cursor": lambda store: store.cursor("a").save(0),
}


@pytest.mark.parametrize("call", CLOSED.values(), ids=CLOSED)
async def test_what_is_asked_of_a_closed_store(call: Call, it: Served) -> None:
    """StoreClosedError, and closing it again does nothing."""
    async with it.connect() as store:
        pass
    await store.aclose()
    with pytest.raises(StoreClosedError):
        await call(store)
    with pytest.raises(StoreClosedError):
        store.scan()
    with pytest.raises(StoreClosedError):
        store.follow()


# closing


async def test_closing_waits_for_what_was_accepted(it: Served) -> None:
    """Everything is stored and synced when aclose returns, and every future is done."""
    store = await it.connect()
    futures = [store.append_nowait(b"%d" % number) for number in range(3000)]
    await store.aclose()
    assert [future.result().sequence for future in futures] == list(range(3000))
    assert len(await it.data()) == 3000


async def test_closing_syncs_what_was_only_flushed(tmp_path: Path) -> None:
    """As closing a store does, whatever the policy of the daemon."""
    async with served(tmp_path, sync_policy=OsManaged()) as it:
        async with it.connect() as store:
            await store.append(b"x")
            assert it.store.synced_sequence == 0
        assert it.store.synced_sequence == 1


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


@of_a_loop
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
    """Nobody waits for ever: StoreClosedError."""
    async with served(tmp_path) as it:
        store = await it.connect()
        asked: list[asyncio.Future[object]] = [
            asyncio.ensure_future(store.get(0)),
            asyncio.ensure_future(store.relations()),
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await store.aclose()
        for one in asked:
            with pytest.raises((StoreClosedError, RecordNotWrittenError)):
                await soon(one)


@of_a_loop
async def test_its_words(it: Served) -> None:
    """repr says where it is and whether it is open; the path is the address."""
    async with it.connect() as store:
        assert repr(store) == f"<RemoteStore {it.address!r} open>"
        assert store.path == it.address
    assert repr(store) == f"<RemoteStore {it.address!r} closed>"


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        *(
            ({"address": 7}, TypeError),
            ({"address": "/run/x"}, ValueError),
            ({"address": "unix:"}, ValueError),
        ),
        *(
            ({"timeout": -1}, ValueError),
            ({"timeout": "1"}, TypeError),
            ({"timeout": float("nan")}, ValueError),
        ),
        *(
            ({"buffer_records": 0}, ValueError),
            ({"buffer_bytes": 1.5}, TypeError),
            ({"buffer_records": 1 << 40}, ValueError),
        ),
    ],
)
async def test_options_that_cannot_be(options: dict[str, Any], kind: type[Exception]) -> None:
    """They are refused at once, before anything is awaited."""
    with pytest.raises(kind):
        Store.connect(**{"address": "unix:/nowhere", **options})


async def test_every_error_is_one_of_the_tree(tmp_path: Path) -> None:
    """Where no daemon is: after its time, and not before."""
    with pytest.raises(
        StoreUnavailableError, match=r"cannot reach the daemon at unix:.*No such file"
    ):
        await Store.connect(f"unix:{tmp_path}/nobody", timeout=0)
    with pytest.raises(AquipuError):
        await Store.connect(f"unix:{tmp_path}/nobody", timeout=0.05)
