"""follow, tail: every record once, in order, never before its writer was told, and nobody waits for
a follower.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
from asyncio import CancelledError, Task, create_task, sleep
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aquipu import (
    Always,
    CorruptionError,
    EveryN,
    Follow,
    OsManaged,
    Record,
    RecordNotWrittenError,
    RecordPurgedError,
    Store,
    StoreClosedError,
    StoreFailedError,
    SyncPolicy,
    WrongLoopError,
)
from aquipu.local.read.follow import LocalFollow
from aquipu.local.write.publisher import RECENT_BYTES
from tests.disk import FailingDisk, Hold
from tests.support import (
    engine_of,
    flip,
    segment_in,
)

TASKS = 64
TICKS = 30
"""At each of so many ticks of the loop a step is cancelled."""


async def take(follow: Follow, count: int) -> list[Record]:
    """The next records, so many."""
    return [await anext(follow) for _ in range(count)]


async def take_all(follow: Follow) -> list[Record]:
    async with follow:
        return [record async for record in follow]


async def ticks(count: int = 1) -> None:
    for _ in range(count):
        await sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own time limit ends it."""
    while not condition():  # noqa: ASYNC110 - what it waits for happens on other threads
        await sleep(0.001)


async def release(hold: Hold) -> None:
    """Let a held call go on, once it is reached."""
    await until(hold.reached.is_set)
    hold.released.set()


def sequences(records: list[Record]) -> list[int]:
    return [record.sequence for record in records]


async def refused(call: Awaitable[object]) -> None:
    with pytest.raises(StoreFailedError):
        await call


async def failed(path: Path, policy: SyncPolicy, *follows: int) -> tuple[Store, list[Follow]]:
    """A store with 10 records on the disk and 5 that are only acknowledged, followed from these
    sequences, which fails.
    """
    disk = FailingDisk(writes_synced=False)
    store = await Store.open(path, sync_policy=policy, disk=disk)
    await store.append_many([b"synced"] * 10)
    await store.sync()
    followers = [store.follow(start) for start in follows]
    await store.append_many([b"flushed"] * 5)
    disk.fail("sync", errno.EIO)
    await refused(store.sync())
    return store, followers


# where it begins


@pytest.mark.asyncio
async def test_only_what_is_new(tmp_path: Path) -> None:
    """Without a start it begins with what is acknowledged after the call."""
    async with Store.open(tmp_path) as store:
        await store.append(b"old")
        follow = store.follow()
        await store.append(b"new")
        assert [record.data for record in await take(follow, 1)] == [b"new"]
    assert await take_all(follow) == []


@pytest.mark.parametrize("start", [0, 1, 5, 9, 10])
@pytest.mark.asyncio
async def test_what_is_there_and_what_comes(tmp_path: Path, start: int) -> None:
    """With a start it gives what is there from there on, and then what comes."""
    async with Store.open(tmp_path) as store:
        await store.append_many([b"%d" % n for n in range(10)], relations=("number",))
        follow = store.follow(start)
        early = await take(follow, 10 - start)
        waiting = create_task(take_all(follow))
        await ticks(3)
        for number in range(10, 20):
            await store.append(b"%d" % number, relations=("number", f"number:{number}"))
        written = [record async for record in store.scan()]
    assert early + await waiting == written[start:]


@pytest.mark.asyncio
async def test_a_start_beyond_the_end(tmp_path: Path) -> None:
    """Whoever has read so far has read something else: that is an error, and no silent wait.

    The very end is none.
    """
    async with Store.open(tmp_path) as store:
        await store.append_many([b"x"] * 3)
        with pytest.raises(RecordNotWrittenError) as caught:
            await anext(store.follow(4))
        assert (caught.value.sequence, caught.value.bound) == (4, 3)
        follow = store.follow(store.next_sequence)
        await store.append(b"new")
        assert sequences(await take(follow, 1)) == [3]


@pytest.mark.asyncio
async def test_the_earliest_and_the_latest(tmp_path: Path) -> None:
    """Where the log begins, also when a purge has let go of what was there before, or does so
    before the first step.
    """
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        for number in range(20):
            await store.append(b"%d" % number * 500)
        early, latest = store.follow("earliest"), store.follow("latest")
        first = (await store.purge(before=15)).first_sequence
        assert first > 0
        assert sequences(await take(early, 2)) == [first, first + 1]
        assert early.skipped == 0, "nothing was promised before that"
        assert sequences(await take(store.follow("earliest"), 1)) == [first]
        await store.append(b"new")
        assert sequences(await take(latest, 1)) == [20]


@pytest.mark.parametrize(
    "options",
    [{"start": "middle"}, {"start": 0, "on_purged": "ignore"}, {"start": 0, "on_purged": []}],
)
@pytest.mark.asyncio
async def test_an_option_that_is_none(tmp_path: Path, options: dict[str, Any]) -> None:
    """It is refused at once."""
    async with Store.open(tmp_path) as store:
        with pytest.raises(ValueError, match=r"position is|on_purged is"):
            store.follow(**options)


@pytest.mark.asyncio
async def test_one_that_is_overtaken_passes_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With on_purged="skip" it goes on with the first record kept, and tells how many it has passed
    over, each time.
    """
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        for number in range(40):
            await store.append(b"%d" % number * 500)
        first = (await store.purge(before=10)).first_sequence
        follow = store.follow(2, on_purged="skip")
        assert isinstance(follow, LocalFollow)
        assert sequences(await take(follow, 1)) == [first]
        assert follow.skipped == first - 2
        follow._ready = iter(())  # what was read ahead is given first, whatever is purged meanwhile
        at = follow._next
        second = (await store.purge(before=39)).first_sequence
        assert second > at
        assert sequences(await take(follow, 40 - second)) == list(range(second, 40))
        assert follow.skipped == first - 2 + second - at
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
        assert f"passes over {first - 2} records and goes on at sequence {first}" in caplog.text
        again = store.follow(2)
        for _ in range(2):
            with pytest.raises(RecordPurgedError):
                await anext(again)
        assert again.skipped == 0


@pytest.mark.parametrize(
    ("start", "error"), [(-1, ValueError), (b"0", TypeError), (1.0, TypeError), (True, TypeError)]
)
@pytest.mark.asyncio
async def test_a_start_that_is_none(tmp_path: Path, start: int, error: type[Exception]) -> None:
    """What is no sequence is refused at once."""
    async with Store.open(tmp_path) as store:
        with pytest.raises(error, match="start is a sequence"):
            store.follow(start)


@pytest.mark.asyncio
async def test_a_start_that_was_purged(tmp_path: Path) -> None:
    """A start that is no longer kept is an error of its own, at the first step."""
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        for _ in range(5):
            await store.append(b"x" * 4096)
        await store.purge(before=3)
        with pytest.raises(RecordPurgedError) as caught:
            await anext(store.follow(2))
        assert (caught.value.sequence, caught.value.bound) == (2, 3)
        assert sequences(await take(store.follow(3), 2)) == [3, 4]


@pytest.mark.asyncio
async def test_overtaken_by_a_purge(tmp_path: Path) -> None:
    """A late follower makes no purge wait; when its next record is gone, it is told so."""
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        follow = store.follow(0)
        for _ in range(2):
            await store.append(b"x" * RECENT_BYTES)
        assert sequences(await take(follow, 1)) == [0]
        for _ in range(3):
            await store.append(b"x" * RECENT_BYTES)
        assert (await store.purge(before=4)).segments == 4
        with pytest.raises(RecordPurgedError) as caught:
            await anext(follow)
        assert (caught.value.sequence, caught.value.bound) == (1, 4)


# how it goes on


@pytest.mark.parametrize("policy", [Always(), EveryN(16), OsManaged()])
@pytest.mark.asyncio
async def test_many_writers_and_followers(tmp_path: Path, policy: SyncPolicy) -> None:
    """Each follower gets each record once, in order, as it was written, none before its own caller
    was told.
    """
    told: set[int] = set()

    async def write(store: Store, task: int) -> None:
        for number in range(30):
            data = b"%d-%d" % (task, number)
            if number % 10 == 3:
                told.update(
                    receipt.sequence
                    for receipt in await store.append_many([data] * 3, relations=("batch",))
                )
            elif number % 10 == 7:
                told.add((await store.append_nowait(data)).sequence)
            else:
                told.add(
                    (await store.append(data, relations=("one",) if number % 2 else ())).sequence
                )

    async def read(follow: Follow, got: list[Record]) -> None:
        async for record in follow:
            assert record.sequence in told
            got.append(record)
            if record.sequence % 50 == 0:
                await ticks(record.sequence % 7)

    received: list[list[Record]] = [[] for _ in range(4)]
    async with Store.open(tmp_path, sync_policy=policy, max_segment_bytes=8192) as store:
        readers = [create_task(read(store.follow(0), got)) for got in received]
        await asyncio.gather(*(write(store, task) for task in range(TASKS)))
        written = [record async for record in store.scan()]
    await asyncio.gather(*readers)
    assert len(written) == len(told) == TASKS * 36
    assert received == [written] * 4


@pytest.mark.asyncio
async def test_two_halves_of_a_commit(tmp_path: Path) -> None:
    """A commit whose callers go on in two halves is given when the last of them has been told."""
    told: set[int] = set()
    ahead: list[int] = []

    async def write(store: Store) -> None:
        for _ in range(5):
            receipt = await store.append(b"x")
            told.add(receipt.sequence)

    async def read(follow: Follow) -> None:
        async for record in follow:
            ahead.extend({record.sequence} - told)

    async with Store.open(tmp_path, sync_policy=Always()) as store:
        reader = create_task(read(store.follow()))
        await asyncio.gather(*(write(store) for _ in range(600)))
        assert store.statistics().commits < 60
    await reader
    assert len(told) == 3000
    assert ahead == []


@pytest.mark.asyncio
async def test_asking_from_within_a_commit(tmp_path: Path) -> None:
    """A caller that follows as soon as it is told sees nothing of its neighbours in the commit who
    are not yet told.
    """
    told: list[int] = []
    seen: list[tuple[int, bool]] = []

    async def write(store: Store) -> None:
        told.append((await store.append(b"x")).sequence)
        async with store.follow(0) as follow:
            record = await anext(follow)
            seen.append((record.sequence, len(told) == 8))

    async with Store.open(tmp_path) as store:
        await asyncio.gather(*(write(store) for _ in range(8)))
    assert seen == [(0, True)] * 8


@pytest.mark.asyncio
async def test_at_the_end_it_reads_no_file(tmp_path: Path) -> None:
    """A follower that waits at the end is given the records of the commit from memory: their data
    is not even copied.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        follow = store.follow()
        payload = b"the very object"
        for _ in range(5):
            waiting = create_task(take(follow, 1))
            await ticks(3)
            before = disk.count("open", "open_stream", "read")
            await store.append(payload)
            (record,) = await waiting
            assert record.data is payload
            assert disk.count("open", "open_stream", "read") == before


@pytest.mark.asyncio
async def test_what_is_kept_for_followers_is_bounded(tmp_path: Path) -> None:
    """Followers that do not step make nobody wait and the memory no larger; later they get all of
    it from the files.
    """
    async with Store.open(tmp_path, max_segment_bytes=3 * RECENT_BYTES) as store:
        follows = [store.follow(), store.follow()]
        for number in range(40):
            await store.append(b"%d" % number * (RECENT_BYTES // 8))
            await ticks()  # its caller is told first
            kept = engine_of(store)._publisher._recent
            assert sum(recent.size for recent in kept) <= RECENT_BYTES
            assert kept[-1].next_sequence == number + 1
        for follow in follows:
            assert sequences(await take(follow, 40)) == list(range(40))
            await follow.aclose()
        await store.append(b"nobody follows")
        await ticks()
        assert not engine_of(store)._publisher._recent


@pytest.mark.asyncio
async def test_without_followers_nothing_is_kept(tmp_path: Path) -> None:
    """Nothing is kept without followers, also when one was dropped and never closed."""
    async with Store.open(tmp_path) as store:
        await store.append(b"x")
        await ticks()
        assert not engine_of(store)._publisher._recent
        follow = store.follow()
        await store.append(b"x")
        await ticks()
        assert engine_of(store)._publisher._recent
        del follow
        gc.collect()
        await store.append(b"x")
        await ticks()
        assert not engine_of(store)._publisher._recent


@pytest.mark.asyncio
async def test_a_saturated_loop(tmp_path: Path) -> None:
    """Beside a task that always computes, a follower from the start gets everything, from files and
    from memory.
    """
    done = False

    async def burn() -> None:
        while not done:
            sum(range(5000))
            await sleep(0)

    async with Store.open(tmp_path, sync_policy=Always()) as store:
        await store.append_many([b"early"] * 1000)
        burning = create_task(burn())
        follow = store.follow(0)
        for number in range(20):
            await store.append(b"late")
            assert sequences(await take(follow, 1 if number else 1001))[-1] == 1000 + number
        done = True
        await burning


# cancelled


async def steps_cancelled(follow: Follow, count: int) -> list[Record]:
    """The next records, each step of which is cancelled at every tick before it comes."""
    got: list[Record] = []
    delay = 0
    while len(got) < count:
        step: Task[Record] = create_task(anext(follow))
        await ticks(delay % TICKS)
        if delay % 3 == 0:
            await sleep(0.0002)
        delay += 1
        if delay % 40:
            step.cancel()
        try:
            got.append(await step)
        except CancelledError:
            continue
    return got


@pytest.mark.asyncio
async def test_cancelled_while_it_reads_files(tmp_path: Path) -> None:
    """A step that is cancelled at whatever tick has lost nothing and repeats nothing; no file stays
    open.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, max_segment_bytes=4096, disk=disk) as store:
        own = len(disk.open_files)  # before any roll, which has two segments open for a moment
        await asyncio.gather(*(store.append(b"%d" % n * 50) for n in range(500)))
        async with store.follow(0) as follow:
            assert sequences(await steps_cancelled(follow, 500)) == list(range(500))
        await until(lambda: len(disk.open_files) == own)


@pytest.mark.asyncio
async def test_cancelled_while_records_come(tmp_path: Path) -> None:
    """So it is while it waits and is given records from memory."""

    async def write(store: Store) -> None:
        for _ in range(30):
            await store.append(b"x")
            await sleep(0.0005)

    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        follow = store.follow(0)
        reading = create_task(steps_cancelled(follow, 8 * 30))
        await asyncio.gather(*(write(store) for _ in range(8)))
        assert sequences(await reading) == list(range(8 * 30))


@pytest.mark.asyncio
async def test_cancelled_while_a_file_is_held_up(tmp_path: Path) -> None:
    """A cancelled step ends at once, though its thread is still in the file; the file is closed
    when it has left it.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"x")
        await ticks()
        own = len(disk.open_files)
        follow = store.follow(0)
        hold = disk.hold("read")
        step: Task[Record] = create_task(anext(follow))
        await until(hold.reached.is_set)
        step.cancel()
        with pytest.raises(CancelledError):
            await step
        assert sequences(await take(follow, 1)) == [0]
        await release(hold)
        await follow.aclose()
        await until(lambda: len(disk.open_files) == own)


# how it ends


@pytest.mark.asyncio
async def test_the_store_is_closed(tmp_path: Path) -> None:
    """When the store is closed, each follower gets what was acknowledged, the last commit too, and
    then it ends.
    """
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        waiting = create_task(take_all(store.follow()))
        late, later = store.follow(0), store.follow(150)
        await ticks(3)
        futures = [store.append_nowait(b"%d" % n * 20) for n in range(200)]
    assert all(future.done() for future in futures)
    assert sequences(await waiting) == list(range(200))
    assert sequences(await take_all(late)) == list(range(200))
    assert sequences(await take_all(later)) == list(range(150, 200))
    assert await take_all(late) == []
    with pytest.raises(StoreClosedError):
        store.follow()


@pytest.mark.asyncio
async def test_the_store_fails(tmp_path: Path) -> None:
    """A follower gets what may still be read, and then an error object of its own, with the same
    cause.
    """
    store, (waiting, late, later) = await failed(tmp_path, EveryN(100, within=None), 15, 0, 12)
    assert sequences(await take(late, 10)) == list(range(10))
    errors = []
    for follow in (waiting, late, later):
        with pytest.raises(StoreFailedError) as caught:
            await anext(follow)
        errors.append(caught.value)
    assert len({id(error) for error in errors}) == 3
    assert {id(error.__cause__) for error in errors} == {id(errors[0].__cause__)}
    assert isinstance(errors[0].__cause__, OSError)
    await refused(store.aclose())
    with pytest.raises(StoreFailedError):
        await anext(late)


@pytest.mark.asyncio
async def test_failing_wakes_those_who_wait(tmp_path: Path) -> None:
    """A follower that waits at the end hears of the failure at once."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=Always(), disk=disk)
    waiting = create_task(take_all(store.follow()))
    await ticks(3)
    disk.fail("write", errno.EIO)
    await refused(store.append(b"x"))
    await refused(waiting)
    await refused(store.aclose())


@pytest.mark.asyncio
async def test_failing_while_it_closes(tmp_path: Path) -> None:
    """A last sync that fails is told to followers as well."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, sync_policy=OsManaged(), disk=disk)
    await store.append(b"flushed")
    follow = store.follow()
    disk.fail("sync", errno.EIO)
    await refused(store.aclose())
    await refused(anext(follow))


@pytest.mark.asyncio
async def test_closed_while_it_waits(tmp_path: Path) -> None:
    """Closing a follower ends a step that waits."""
    async with Store.open(tmp_path) as store:
        follow = store.follow()
        waiting = create_task(take_all(follow))
        await ticks(3)
        await follow.aclose()
        assert await waiting == []
        await follow.aclose()


@pytest.mark.asyncio
async def test_closed_early(tmp_path: Path) -> None:
    """A follower that is closed in the middle has ended, whatever it had read ahead."""
    async with Store.open(tmp_path) as store:
        await store.append_many([b"x"] * 100)
        await ticks(2)
        async with store.follow(0) as records:
            async for record in records:
                if record.sequence == 5:
                    break
        assert await take_all(records) == []


@pytest.mark.asyncio
async def test_a_damaged_frame(tmp_path: Path) -> None:
    """What is sound before a damaged frame is given; then the damage is named."""
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        await store.append(b"sound")
        offset = engine_of(store)._journal._files.active.contents.end
        await store.append(b"to be damaged")
        await ticks()  # from then on it is late
        flip(segment_in(tmp_path), offset + 70)
        follow = store.follow(0)
        assert sequences(await take(follow, 1)) == [0]
        with pytest.raises(CorruptionError) as caught:
            await anext(follow)
        assert (caught.value.path, caught.value.offset) == (str(segment_in(tmp_path)), offset)


@pytest.mark.asyncio
async def test_a_frame_larger_than_a_read(tmp_path: Path) -> None:
    """A commit of any size is read whole."""
    async with Store.open(tmp_path) as store:
        data = [os.urandom(300_000) for _ in range(10)]
        await store.append_many(data)
        assert [record.data for record in await take(store.follow(0), 10)] == data
        assert [record.data for record in await take(store.follow(9), 1)] == data[9:]


def test_another_loop(tmp_path: Path) -> None:
    """A follower belongs to the loop of its store."""

    async def opened() -> tuple[Store, Follow]:
        store = await Store.open(tmp_path)
        return store, store.follow(0)

    with asyncio.Runner() as runner:
        store, follow = runner.run(opened())
        with asyncio.Runner() as other, pytest.raises(WrongLoopError):
            other.run(take(follow, 1))
        runner.run(store.aclose())
