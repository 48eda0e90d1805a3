"""The face: appends with a key, and such that expect a sequence."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, ensure_future
from collections.abc import Awaitable
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest

from aquipu import (
    Always,
    BatchTooLargeError,
    ConflictError,
    CorruptionError,
    EveryN,
    OsManaged,
    Reader,
    Receipt,
    RecordTooLargeError,
    Stage,
    StaleKeyError,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
)
from aquipu.commit import keys as keys_room
from aquipu.commit.keys import Keys
from tests.callers import check_closes_as_failed, data_of, held, outcomes_of, records_of, tick
from tests.disk import WRITES, FailingDisk
from tests.support import flip, frames_in, segment_in

pytestmark = pytest.mark.asyncio


def key(number: int, producer: str = "orders") -> tuple[str, int]:
    return producer, number


async def kinds_of(calls: list[Awaitable[Any]]) -> list[Any]:
    """The sequence of each receipt, and the class of each error."""
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    return [type(it) if isinstance(it, BaseException) else it.sequence for it in outcomes]


# keys


async def test_a_key_that_is_given_again(tmp_path: Path) -> None:
    """Nothing is stored, whatever the data, and the receipt is that of the first time."""
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        first = await store.append(b"first", key=key(1), relations=("a:1",))
        assert await store.append(b"first", key=key(1)) == first
        assert await store.append(b"another", key=key(1), relations=("b:1",)) == first
        assert await data_of(store) == [b"first"]
        assert store.statistics().records == 1


async def test_a_key_in_the_next_life(tmp_path: Path) -> None:
    """It is known after a restart, in whatever segment it stands, first and last numbers too."""
    receipts: dict[int, Receipt] = {}
    for life in range(3):
        async with Store.open(tmp_path, max_segment_bytes=4096) as store:
            for number, receipt in receipts.items():
                assert await store.append(b"again", key=key(number)) == receipt._replace(
                    stage=Stage.SYNCED
                )
            assert store.next_sequence == len(receipts)
            for number in range(life * 100, life * 100 + 100, 2):
                receipts[number] = await store.append(b"x" * 100, key=key(number))
            for stale in (1, life * 100 + 97):
                with pytest.raises(StaleKeyError) as caught:
                    await store.append(b"stale", key=key(stale))
                assert (caught.value.number, caught.value.last) == (stale, life * 100 + 98)
            assert store.statistics().segments > 1 + life
    assert len(await records_of(tmp_path)) == 150


async def test_many_producers(tmp_path: Path) -> None:
    """The numbers of each are its own, also among those of others and without labels."""
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        for number in range(30):
            for name in ("a", "b", "c"):
                await store.append(name.encode(), key=key(number * len(name), name))
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        again = await store.append(b"", key=key(17, "b"))
        assert again.sequence == 17 * 3 + 1
        assert (await store.append(b"new", key=key(17, "d"))).sequence == 90


async def test_a_producer_that_is_not_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is searched for again: memory is bounded, and what is known is not."""
    bounded: Keys[Any] = Keys(producers_max=2, located_max=2)
    async with Store.open(tmp_path) as store:
        monkeypatch.setattr(store, "_keys", bounded)
        for number in range(3):
            for name in "abcdef":
                await store.append(name.encode(), key=key(number, name))
        for number in range(3):
            for place, name in enumerate("abcdef"):
                receipt = await store.append(b"again", key=key(number, name))
                assert receipt.sequence == number * 6 + place
        assert store.next_sequence == 18
        assert len(bounded._producers) <= 2
        assert len(bounded._located) <= 2
    assert keys_room.PRODUCERS_MAX == keys_room.LOCATED_MAX == 16_384


async def test_a_number_that_skips_ahead(tmp_path: Path) -> None:
    """It is accepted, and those that were passed over are stale: none of them is written."""
    async with Store.open(tmp_path) as store:
        await store.append(b"0", key=key(0))
        await store.append(b"1000", key=key(1000))
        with pytest.raises(StaleKeyError) as caught:
            await store.append(b"500", key=key(500))
        assert (caught.value.number, caught.value.last) == (500, 1000)
        assert (await store.append(b"", key=key(0))).sequence == 0
        assert store.statistics().errors["StaleKeyError"] == 1
        assert await data_of(store) == [b"0", b"1000"]


async def test_a_batch_with_a_key(tmp_path: Path) -> None:
    """One key is for the whole batch, and gives all of its receipts, in the next life too."""
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        await store.append(b"before")
        receipts = await store.append_many([b"a", b"b", b"c"], key=key(1), relations=("a:1",))
        assert [receipt.sequence for receipt in receipts] == [1, 2, 3]
        assert await store.append_many([b"other"], key=key(1)) == receipts
        assert await store.append(b"other", key=key(1)) == receipts[0]
        assert await store.append_many([], key=key(2)) == []
        assert (await store.append(b"d", key=key(2))).sequence == 4
    async with Store.open(tmp_path) as store:
        assert await store.append_many([b"a", b"b", b"c"], key=key(1)) == receipts


async def test_the_same_key_at_the_same_moment(tmp_path: Path) -> None:
    """All callers of it have the one receipt, and numbers stay in the order of the calls."""
    async with Store.open(tmp_path) as store:
        for known in (False, True):
            first = store.next_sequence
            base = 100 * known
            calls: list[Awaitable[Any]] = [
                store.append(b"%d" % number, key=key(base + number))
                for number in range(20)
                for _ in range(3)
            ]
            sequences = [it.sequence for it in await asyncio.gather(*calls)]
            assert sequences == [first + number for number in range(20) for _ in range(3)]


async def test_a_caller_that_comes_when_the_search_has_ended(tmp_path: Path) -> None:
    """It goes behind those that have waited for it: their numbers are lower."""
    async with Store.open(tmp_path) as store:
        calls: list[Awaitable[Any]] = []
        for number in range(200):
            calls.append(ensure_future(store.append(b"%d" % number, key=key(number))))
            await tick()
        assert await kinds_of(calls) == list(range(200))


async def test_a_duplicate_waits_for_the_first(tmp_path: Path) -> None:
    """Cancelled, it does not disturb the first; nor does the first, cancelled, disturb it."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        await store.append(b"0", key=key(0))
        for number, gone in ((1, 0), (2, 1)):
            with held(disk, "write_synced") as call:
                tasks = [ensure_future(store.append(b"x", key=key(number))) for _ in range(3)]
                await call.reached()
                tasks[gone].cancel()
                await tick()
                assert [task.done() for task in tasks] == [place == gone for place in range(3)]
            outcomes = await outcomes_of(tasks)
            assert isinstance(outcomes.pop(gone), CancelledError)
            assert {receipt.sequence for receipt in outcomes} == {number}
        assert store.next_sequence == 3


async def test_all_callers_are_cancelled(tmp_path: Path) -> None:
    """Once accepted the record is written, and its key is known."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        await store.append(b"0", key=key(0))
        with held(disk, "write_synced") as call:
            tasks = [ensure_future(store.append(b"1", key=key(1))) for _ in range(2)]
            await call.reached()
            for task in tasks:
                task.cancel()
            await outcomes_of(tasks)
        assert (await store.append(b"again", key=key(1))).sequence == 1
        assert await data_of(store) == [b"0", b"1"]


async def test_cancelled_in_the_line(tmp_path: Path) -> None:
    """It leaves the line when its last caller is cancelled, and its number may come again."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=1) as store:
        await store.append(b"0", key=key(0))
        with held(disk, "write") as call:
            before = store.append_nowait(b"before")
            await call.reached()
            tasks = [ensure_future(store.append(b"1", key=key(1))) for _ in range(2)]
            await tick()
            tasks[0].cancel()
            await tick()
            assert store.statistics().waiting == 1
            tasks[1].cancel()
            await tick()
            assert store.statistics().waiting == 0
            again = ensure_future(store.append(b"again", key=key(1)))
            await tick()
        assert ((await before).sequence, (await again).sequence) == (1, 2)
        assert all(isinstance(it, CancelledError) for it in await outcomes_of(tasks))
    assert await records_of(tmp_path) == [b"0", b"before", b"again"]


async def test_no_space(tmp_path: Path) -> None:
    """All callers of the key are refused, and the number is as new as before."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"0", key=key(0))
        disk.fail(WRITES, ENOSPC, nth=1)
        calls: list[Awaitable[Any]] = [store.append(b"1", key=key(1)) for _ in range(3)]
        assert await kinds_of(calls) == [StoreFullError] * 3
        assert not any(producer.under_way for producer in store._keys._producers.values())
        assert (await store.append(b"1", key=key(1))).sequence == 1
        assert await data_of(store) == [b"0", b"1"]


async def test_a_lower_number_waits_until_it_is_decided_which_is_the_last(tmp_path: Path) -> None:
    """Is the higher one stored, it is stale; is that refused, it is new."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"0", key=key(0))
        for number, error, expected in ((10, ENOSPC, [StoreFullError, 1]), (30, None, [2, None])):
            with held(disk, "write") as call:
                if error is not None:
                    disk.fail("write", error)
                higher = ensure_future(store.append(b"higher", key=key(number)))
                await call.reached()
                lower = ensure_future(store.append(b"lower", key=key(number - 1)))
                await tick()
            found = await kinds_of([higher, lower])
            assert found == [it or StaleKeyError for it in expected]


async def test_a_store_that_fails(tmp_path: Path) -> None:
    """All callers get StoreFailedError, those of the same key too, and each an error of its own;
    so does who searches.
    """
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=Always(), disk=disk)
    await store.append(b"0", key=key(0))
    disk.fail(WRITES, EIO, forever=True)
    calls: list[Awaitable[Any]] = [
        *(store.append(b"1", key=key(1)) for _ in range(2)),
        store.append(b"2", key=key(2)),
        store.append(b"?", key=key(1, "unknown")),
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(it) for it in outcomes} == {StoreFailedError}
    assert len(set(map(id, outcomes))) == 4
    with pytest.raises(StoreFailedError):
        await store.append(b"0", key=key(0))
    await check_closes_as_failed(store)


async def test_closing(tmp_path: Path) -> None:
    """What is accepted is written; who still searches, or comes later, gets StoreClosedError."""
    store = await Store.open(tmp_path)
    await store.append(b"0", key=key(0))
    accepted = ensure_future(store.append(b"1", key=key(1)))
    searching = ensure_future(store.append(b"2", key=key(1, "unknown")))
    await tick()
    await store.aclose()
    assert await kinds_of([accepted, searching]) in ([1, StoreClosedError], [1, 2])
    with pytest.raises(StoreClosedError):
        await store.append(b"0", key=key(0))


@pytest.mark.parametrize("policy", [EveryN(64), OsManaged()])
async def test_a_duplicate_that_asks_for_more(tmp_path: Path, policy: EveryN | OsManaged) -> None:
    """It is as safe as the duplicate asks for, when that returns."""
    async with Store.open(tmp_path, sync_policy=policy) as store:
        first = await store.append(b"0", key=key(0))
        assert (first.stage, store.synced_sequence) == (Stage.FLUSHED, 0)
        assert (await store.append(b"0", key=key(0))).stage is Stage.FLUSHED
        both = await asyncio.gather(
            store.append(b"1", key=key(1)),
            store.append(b"1", key=key(1), durability=Stage.SYNCED),
        )
        assert [receipt.sequence for receipt in both] == [1, 1]
        assert both[1].stage is Stage.SYNCED
        assert store.synced_sequence == 2
        again = await store.append(b"0", key=key(0))
        assert again == first._replace(stage=Stage.SYNCED)


async def test_a_key_whose_record_was_purged(tmp_path: Path) -> None:
    """It is stale as long as a later record of its producer is kept; after that, it is new."""
    for life in range(2):
        async with Store.open(tmp_path, max_segment_bytes=4096) as store:
            if not life:
                await store.append(b"0", key=key(0))
                await store.append(b"0", key=key(0, "other"))
                for _ in range(100):
                    await store.append(b"x" * 100)
                await store.append(b"1", key=key(1))
                await store.purge(before=90)
                assert store.first_sequence > 2
                assert (await store.append(b"again", key=key(0))).sequence == 0
            else:
                with pytest.raises(StaleKeyError):
                    await store.append(b"again", key=key(0))
                first = await store.append(b"again", key=key(0, "other"))
                assert first.sequence == store.next_sequence - 1


async def test_a_damaged_log(tmp_path: Path) -> None:
    """Where a key cannot be looked up, the caller is told so, and nothing is written."""
    async with Store.open(tmp_path) as store:
        await store.append(b"0", key=key(0))
        await store.append(b"x" * 100)
        flip(segment_in(tmp_path), frames_in(tmp_path)[-1][0] + 60)
        calls: list[Awaitable[Any]] = [store.append(b"?", key=key(0, "unknown")) for _ in range(3)]
        assert await kinds_of(calls) == [CorruptionError] * 3
        assert store.next_sequence == 2


async def test_the_entries_of_producers_are_nowhere_seen(tmp_path: Path) -> None:
    """They are no labels: neither `relations` nor a scan shows them, before and behind a roll."""
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        for number in range(100):
            await store.append(b"x" * 100, key=key(number), relations=("a:1",))
        for asked in (store, await Reader.open(tmp_path)):
            assert await asked.relations() == {"a:1": 100}
            assert await asked.relations("\0") == {}
            with pytest.raises(ValueError, match="no control character"):
                asked.scan(relation="\0")
            if isinstance(asked, Reader):
                await asked.aclose()


async def test_append_nowait_takes_no_key(tmp_path: Path) -> None:
    """To decide on one may take a look into the log."""
    async with Store.open(tmp_path) as store:
        for arguments in ({"key": key(1)}, {"expect": 0}):
            with pytest.raises(TypeError, match="unexpected keyword argument"):
                store.append_nowait(b"x", **arguments)


async def test_records_and_batches_that_are_too_large(tmp_path: Path) -> None:
    """They are refused as without a key, and their number may come again."""
    async with Store.open(tmp_path, max_record_bytes=10, buffer_records=2) as store:
        with pytest.raises(RecordTooLargeError):
            await store.append(b"x" * 11, key=key(0))
        with pytest.raises(BatchTooLargeError):
            await store.append_many([b"x"] * 3, key=key(0))
        with pytest.raises(RecordTooLargeError):
            await store.append(b"x" * 11, expect=0)
        with pytest.raises(TypeError):
            await store.append("text", key=key(0))  # type: ignore[arg-type]
        assert (await store.append(b"x", key=key(0))).sequence == 0


# an expected sequence


async def test_an_expected_sequence(tmp_path: Path) -> None:
    """The record gets exactly that, or none: then the caller is told which one comes next."""
    async with Store.open(tmp_path) as store:
        assert (await store.append(b"0", expect=0)).sequence == 0
        for wrong in (0, 2, 1 << 70):
            with pytest.raises(ConflictError) as caught:
                await store.append(b"wrong", expect=wrong)
            assert (caught.value.expected, caught.value.next_sequence) == (wrong, 1)
        receipts = await store.append_many([b"1", b"2"], expect=1)
        assert [receipt.sequence for receipt in receipts] == [1, 2]
        assert store.statistics().errors["ConflictError"] == 3
        assert await data_of(store) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("wrong", [-1, True, "0", 0.0])
async def test_what_is_no_sequence(tmp_path: Path, wrong: Any) -> None:
    """One clear error, and nothing is written."""
    async with Store.open(tmp_path) as store:
        with pytest.raises((TypeError, ValueError), match="expect is a sequence"):
            await store.append(b"x", expect=wrong)
        assert store.next_sequence == 0


async def test_a_race(tmp_path: Path) -> None:
    """Of those who expect the same sequence one wins, and the others are told the next one."""
    async with Store.open(tmp_path) as store:
        for sequence in range(50):
            calls = [store.append(b"%d" % n, expect=sequence) for n in range(8)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            won = [it for it in outcomes if not isinstance(it, BaseException)]
            assert [receipt.sequence for receipt in won] == [sequence]
            lost = [it for it in outcomes if isinstance(it, ConflictError)]
            assert [error.next_sequence for error in lost] == [sequence + 1] * 7


async def test_expected_behind_what_is_accepted(tmp_path: Path) -> None:
    """What is accepted and not yet written counts, and so does what waits for room."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, buffer_records=2) as store:
        with held(disk, "write") as call:
            tasks = [ensure_future(store.append(b"%d" % n)) for n in range(4)]
            await call.reached()
            assert store.statistics().waiting == 2
            fits = ensure_future(store.append(b"4", expect=4))
            await tick()
            with pytest.raises(ConflictError) as caught:
                await store.append(b"wrong", expect=2)
        assert caught.value.next_sequence == 5
        assert await kinds_of([*tasks, fits]) == [0, 1, 2, 3, 4]


async def test_something_before_it_is_refused(tmp_path: Path) -> None:
    """It would get another sequence than it expects: it is refused before its commit is submitted,
    and those behind it move up, or are refused as well.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"0")
        with held(disk, "write") as call:
            disk.fail("write", ENOSPC)
            full = ensure_future(store.append(b"full"))
            await call.reached()
            conflict = ensure_future(store.append_many([b"a", b"b"], expect=2))
            behind = ensure_future(store.append(b"behind", relations=("a:1",)))
            keyed = ensure_future(store.append(b"keyed", key=key(0), expect=5))
            last = ensure_future(store.append(b"last"))
            await tick()
            assert store.statistics().waiting == 0
        outcomes = await outcomes_of([full, conflict, behind, last])
        assert isinstance(outcomes[0], StoreFullError)
        assert isinstance(outcomes[1], ConflictError)
        assert (outcomes[1].expected, outcomes[1].next_sequence) == (2, 3)
        assert [outcomes[2].sequence, outcomes[3].sequence] == [1, 2]
        with pytest.raises(ConflictError):
            await keyed
        assert (await store.append(b"keyed", key=key(0), expect=3)).sequence == 3
        assert await data_of(store) == [b"0", b"behind", b"last", b"keyed"]
        assert [record.sequence async for record in store.scan(relation="a:1")] == [1]


async def test_nothing_is_left_of_a_commit(tmp_path: Path) -> None:
    """A commit in which all are refused is not written, and who waits for it as a whole goes on."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        for barrier in (False, True):
            with held(disk, "write") as call:
                disk.fail("write", ENOSPC)
                full = ensure_future(store.append(b"full"))
                await call.reached()
                conflict = ensure_future(store.append(b"a", expect=1))
                await tick()
                waiting = [ensure_future(store.flush())] if barrier else []
                await tick()
            assert await kinds_of([full, conflict]) == [StoreFullError, ConflictError]
            assert len(await outcomes_of(waiting)) == barrier
        assert (await store.append(b"0", expect=0)).sequence == 0
        assert store.statistics().buffered_records == 0


async def test_a_key_and_an_expected_sequence(tmp_path: Path) -> None:
    """A key that is known gives its receipt, whatever is expected; a new one must fit."""
    async with Store.open(tmp_path) as store:
        first = await store.append(b"0", key=key(0), expect=0)
        assert (await store.append(b"0", key=key(0), expect=0)).sequence == first.sequence
        with pytest.raises(ConflictError):
            await store.append(b"1", key=key(1), expect=0)
        assert (await store.append(b"1", key=key(1), expect=1)).sequence == 1
