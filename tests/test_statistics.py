"""What is counted of a store, whatever its disk does, and what is said of its health."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from errno import EIO, ENOSPC
from pathlib import Path
from shutil import disk_usage
from time import monotonic_ns
from typing import Any

import pytest

from aquipu import (
    Always,
    BatchTooLargeError,
    BufferFullError,
    EveryN,
    Health,
    OsManaged,
    RecordTooLargeError,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
)
from aquipu.options import MIB
from aquipu.runtime.counting import (
    COUNTED_ERRORS,
    SECOND,
    Counters,
    Latency,
    Tally,
    durations,
    sizes,
)
from aquipu.runtime.trouble import judge
from aquipu.statistics import Statistics
from tests.callers import held, tick
from tests.disk import FailingDisk
from tests.support import engine_of, segments_in

MS = SECOND // 1000

# tallies


@pytest.mark.parametrize(
    ("value", "bucket"),
    [
        *((0, 0), (1, 0), (100_000, 0)),
        *((100_001, 1), (200_000, 1), (200_001, 2), (400_000, 2)),
        *((13_107_200_000, 17), (13_107_200_001, 18), (10**15, 18)),
    ],
)
def test_the_bucket_of_a_value(value: int, bucket: int) -> None:
    """A bound belongs to its bucket; what is beyond all of them goes into the last."""
    tally = durations()
    tally.add(value)
    counts = tally.snapshot().counts
    assert (counts[bucket], sum(counts)) == (1, 1)


def test_bounds_are_in_base_units() -> None:
    """Durations are told in seconds, from 0.1 ms, doubling; sizes as they are."""
    seconds, records = durations().snapshot(), sizes().snapshot()
    assert seconds.bounds[:3] == pytest.approx((0.0001, 0.0002, 0.0004))
    assert records.bounds == tuple(2**n for n in range(17))
    for histogram in (seconds, records):
        assert len(histogram.counts) == len(histogram.bounds) + 1


def test_the_sum_of_a_tally() -> None:
    """It is in base units too, and the number of values is told."""
    tally = durations()
    for value in (1, 2, 3):
        tally.add(value * MS)
    assert tally.snapshot().sum == pytest.approx(0.006)
    assert tally.snapshot().total == 3


@pytest.mark.parametrize("seed", range(20))
def test_ages_as_if_each_were_counted_by_itself(seed: int) -> None:
    """A sorted column of times is counted as one by one, whatever its spread; the sum is exact up
    to 16 of them.
    """
    dice = random.Random(seed)
    now = 1_700_000_000 * SECOND
    together, single = Tally(100_000, 19), Tally(100_000, 19)
    for _ in range(50):
        spread = 10 ** dice.randrange(2, 11)
        times = sorted(now - dice.randrange(spread) for _ in range(dice.randrange(1, 16)))
        together.add_ages(times, now)
        for time in times:
            single.add(now - time)
    at_bounds = sorted(
        now - (100_000 << bucket) + near for bucket in range(5) for near in (-1, 0, 1)
    )
    together.add_ages(at_bounds, now)
    for time in at_bounds:
        single.add(now - time)
    assert together.snapshot() == single.snapshot()
    many = sorted(now - dice.randrange(10**9) for _ in range(1000))
    together.add_ages(many, now)
    for time in many:
        single.add(now - time)
    assert together.snapshot().counts == single.snapshot().counts
    assert together.snapshot().sum == pytest.approx(single.snapshot().sum, rel=0.1)


def test_times_that_lie_ahead() -> None:
    """When the clock was turned back, an age is 0, and the sum does not shrink."""
    tally = durations()
    tally.add_ages([2000, 3000], 1000)
    assert (tally.snapshot().counts[0], tally.snapshot().sum) == (2, 0)


def test_what_a_commit_adds() -> None:
    """Records, bytes, one commit, how many it held and how long they took."""
    counters = Counters()
    counters.acknowledged([1 * MS, 2 * MS], 100, 3 * MS)
    assert (counters.records, counters.bytes, counters.commits) == (2, 100, 1)
    assert counters.append_times.snapshot().sum == pytest.approx(0.003)
    assert counters.commit_records.snapshot().counts[1] == 1


def test_an_error_of_another_kind() -> None:
    """It is counted under its name when it comes; the common ones are there from the beginning."""
    counters = Counters()
    counters.refused(KeyError(), 2)
    assert counters.errors == {**dict.fromkeys(COUNTED_ERRORS, 0), "KeyError": 2}


# the disk


def test_what_is_under_way() -> None:
    """Its time runs while it lasts."""
    latency = Latency()
    assert latency.under_way(5 * SECOND) == 0
    latency.since = 5 * SECOND
    assert latency.under_way(7 * SECOND) == 2 * SECOND
    latency.since = 0
    assert latency.under_way(8 * SECOND) == 0


def test_the_slowest_sync_of_late() -> None:
    """It is remembered for half a minute at least, for a minute at most."""
    latency = Latency()
    begin = 1_000_000
    latency.synced(1, begin * SECOND)
    latency.synced(70, (begin + 29) * SECOND)
    latency.synced(3, (begin + 29) * SECOND)
    latency.synced(2, (begin + 31) * SECOND)
    assert latency.slowest((begin + 31) * SECOND) == 70
    assert latency.slowest((begin + 59) * SECOND) == 70
    assert latency.slowest((begin + 60) * SECOND) == 2
    latency.synced(1, (begin + 62) * SECOND)
    assert latency.slowest((begin + 62) * SECOND) == 2
    assert latency.slowest((begin + 500) * SECOND) == 0
    assert latency.syncs.snapshot().total == 5


# a store


def errors_of(store: Store) -> dict[str, int]:
    """Those that were counted."""
    return {name: count for name, count in store.statistics().errors.items() if count}


@pytest.mark.asyncio
async def test_what_is_counted_of_appends(tmp_path: Path) -> None:
    """Each record has its latency, each commit its size, each sync its time."""
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        await store.append_many([b"x"] * 5)
        await asyncio.gather(*(store.append(b"x") for _ in range(3)))
        seen = store.statistics()
    assert (seen.append_seconds.total, seen.records) == (8, 8)
    assert (seen.commit_records.total, seen.commit_records.sum) == (2, 8)
    assert (seen.sync_seconds.total, seen.syncs) == (2, 2)
    assert 0 < seen.sync_seconds.sum < seen.append_seconds.sum
    assert seen.slowest_sync_seconds > 0


@pytest.mark.asyncio
async def test_every_sync_of_the_log_has_its_time(tmp_path: Path) -> None:
    """Those of a roll, and those that cut a refused commit back, too."""
    disk = FailingDisk()
    async with Store.open(
        tmp_path, sync_policy=EveryN(3), disk=disk, max_segment_bytes=4096
    ) as store:
        for number in range(40):
            if number % 10 == 5:
                disk.fail("write", ENOSPC)
            try:
                await store.append(bytes(500), durability=None)
            except StoreFullError:
                disk.mend()
        await store.sync()
        seen = store.statistics()
        assert seen.sync_seconds.total == seen.syncs > 13
        assert seen.segments == len(segments_in(tmp_path)) > 3


@pytest.mark.asyncio
async def test_bytes_on_the_disk(tmp_path: Path) -> None:
    """Of the segment files as they are: with the zeros ahead, after a roll, a purge and a new
    opening.
    """

    def found() -> int:
        return sum(file.stat().st_size for file in segments_in(tmp_path))

    async with Store.open(tmp_path, sync_policy=Always(), max_segment_bytes=4096) as store:
        assert store.statistics().disk_bytes == found()
        for _ in range(20):
            await store.append(bytes(1000))
        await store.purge(
            before=0, dry_run=True
        )  # behind the roll that the last commit may have caused
        assert store.statistics().disk_bytes == found()
        await store.purge(before=10)
        assert store.statistics().disk_bytes == found()
    async with Store.open(tmp_path) as store:
        assert store.statistics().disk_bytes == found()


@pytest.mark.asyncio
async def test_errors_by_their_names(tmp_path: Path) -> None:
    """Each caller that got an error counts once, under the name of what it got."""
    disk = FailingDisk()
    options: dict[str, Any] = {
        "buffer_records": 3,
        "max_record_bytes": 10,
        "sync_policy": OsManaged(),
    }
    store = await Store.open(tmp_path, disk=disk, **options)
    with pytest.raises(RecordTooLargeError):
        await store.append(bytes(11))
    with pytest.raises(RecordTooLargeError):
        await store.append_many([bytes(11)])
    with pytest.raises(BatchTooLargeError):
        await store.append_many([b"x"] * 4)
    disk.fail("write", ENOSPC)
    full = await asyncio.gather(*(store.append(b"x") for _ in range(3)), return_exceptions=True)
    assert {type(error) for error in full} == {StoreFullError}
    with held(disk, "write") as call:
        waiting = [store.append_nowait(b"x") for _ in range(3)]
        await call.reached()
        with pytest.raises(BufferFullError):
            store.append_nowait(b"x")
    await asyncio.gather(*waiting)
    disk.fail("write", EIO)
    for _ in range(2):
        with pytest.raises(StoreFailedError):
            await store.append(b"x")
    expected = {
        "RecordTooLargeError": 2,
        "BatchTooLargeError": 1,
        "StoreFullError": 3,
        "BufferFullError": 1,
        "StoreFailedError": 2,
    }
    assert errors_of(store) == expected
    assert (store.statistics().records, store.statistics().state) == (3, "failed")
    with pytest.raises(StoreFailedError):
        await store.aclose()
    with pytest.raises(StoreClosedError):
        await store.append(b"x")
    assert errors_of(store) == {**expected, "StoreClosedError": 1}


@pytest.mark.asyncio
async def test_cancelled_waiters(tmp_path: Path) -> None:
    """Whoever was cancelled counts, wherever it waited; it is no error, and what was accepted is
    written.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, sync_policy=OsManaged(), buffer_records=8) as store:
        with held(disk, "write") as call:
            waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(store.append(b"first"))]
            await call.reached()
            waiting += map(
                asyncio.ensure_future,
                (store.append(b"x"), store.append_many([b"x", b"x"]), store.sync()),
            )
            await tick()
            waiting.append(store.append_nowait(b"x"))
            waiting += map(
                asyncio.ensure_future, (store.append_many([b"x"] * 8), store.append(b"no room"))
            )
            await tick()
            assert store.statistics().waiting == 2
            for waiter in waiting:
                waiter.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert (
                store.statistics().cancelled == len(waiting) - 1
            )  # the future that was given away tells nobody
        await store.flush()
        assert store.statistics().cancelled == len(waiting)
        assert store.statistics().records == 5
        assert errors_of(store) == {}


@pytest.mark.asyncio
async def test_the_oldest_unsynced(tmp_path: Path) -> None:
    """Its age is that of the first record that a power cut would take."""
    async with Store.open(tmp_path, sync_policy=OsManaged(), max_segment_bytes=4096) as store:
        assert store.statistics().oldest_unsynced_seconds == 0

        def since() -> int:
            return store._group.unsynced_since

        began = monotonic_ns()
        await store.append(b"x")
        between = monotonic_ns()
        await store.append(b"x")
        assert began <= since() <= between
        assert store.statistics().oldest_unsynced_seconds > 0
        await store.sync()
        assert store.statistics().oldest_unsynced_seconds == 0
        await store.append(bytes(5000))  # and the roll behind it syncs it
        between = monotonic_ns()
        await store.append(b"x")
        assert between <= since() <= monotonic_ns()


@pytest.mark.asyncio
async def test_from_any_thread_while_the_disk_stands_still(tmp_path: Path) -> None:
    """A snapshot and the health are there at once, also from another thread, and say what is going
    on.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk, sync_policy=Always()) as store:
        with held(disk, "sync") as call:
            append = asyncio.ensure_future(store.append(b"x"))
            await call.reached()
            seen = await asyncio.to_thread(store.statistics)
            health = await asyncio.to_thread(store.health, max_sync_seconds=0)
            assert (seen.buffered_records, seen.records, seen.state) == (1, 0, "open")
            assert seen.under_way_seconds > 0
            assert health.state == "degraded"
            assert health.reasons[0].startswith("the disk has not answered for")
        await append
        await store.purge(before=0)  # behind what the worker does after a commit
        while store.statistics().under_way_seconds:
            await tick()
        assert store.health().state == "ok"


async def seen_free(store: Store, expected: int | None) -> None:
    """Wait until the worker has measured it."""
    while store.statistics().free_bytes != expected:
        await tick()


@pytest.mark.asyncio
async def test_free_space_is_measured_beside_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most once a second; and an idle store measures it for the next one who asks."""
    disk = FailingDisk()
    measured = disk.answer("free", 7 * MIB)
    async with Store.open(tmp_path, disk=disk) as store:
        await seen_free(store, 7 * MIB)
        for _ in range(10):
            await store.append(b"x")
            store.statistics()
        assert measured.seen == 1
        monkeypatch.setattr("aquipu.local.retain.space._MEASURE_EVERY", 0)
        monkeypatch.setattr(engine_of(store)._journal._space, "measure_at", 0)
        disk.mend()
        disk.answer("free", 5 * MIB)
        assert store.statistics().free_bytes == 7 * MIB
        await seen_free(store, 5 * MIB)
        disk.mend()
        disk.fail("free", EIO, forever=True)
        await seen_free(store, None)
        assert store.health().state == "ok"


@pytest.mark.asyncio
async def test_the_free_space_of_a_real_disk(tmp_path: Path) -> None:
    """It is what the system says."""
    async with Store.open(tmp_path) as store:
        while store.statistics().free_bytes is None:
            await tick()
        assert store.statistics().free_bytes == pytest.approx(disk_usage(tmp_path).free, rel=0.2)


@pytest.mark.asyncio
async def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    """Room for fewer than four segments is little, unless told otherwise."""
    disk = FailingDisk()
    disk.answer("free", 7 * MIB)
    async with Store.open(tmp_path, disk=disk, max_segment_bytes=2 * MIB) as store:
        await seen_free(store, 7 * MIB)
        assert store.health() == Health(
            "degraded", ("the disk is nearly full: 7 MiB are free, less than 8 MiB",)
        )
        assert store.health(min_free_bytes=7 * MIB) == Health("ok", ())


@pytest.mark.asyncio
async def test_the_state_of_a_store(tmp_path: Path) -> None:
    """Open, closing, closed: and the health says so."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, disk=disk, sync_policy=OsManaged())
    states = [store.statistics().state]
    with held(disk, "write") as call:
        append = asyncio.ensure_future(store.append(b"x"))
        await call.reached()
        closing = asyncio.ensure_future(store.aclose())
        await tick()
        states.append(store.statistics().state)
    await asyncio.gather(append, closing)
    states.append(store.statistics().state)
    assert states == ["open", "closing", "closed"]
    assert store.health() == Health("closed", ("the store is closed",))


@pytest.mark.asyncio
async def test_a_failure_between_two_commits(tmp_path: Path) -> None:
    """A roll that failed is said before anybody appends again."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, disk=disk, sync_policy=OsManaged(), max_segment_bytes=4096)
    disk.fail("rename", EIO)
    await store.append(bytes(5000))
    while store.health().state == "ok":
        await tick()
    assert store.health().state == store.statistics().state == "failed"
    assert "has failed: rolling to a new segment" in store.health().reasons[0]
    with pytest.raises(StoreFailedError):
        await store.aclose()
    assert (store.health().state, store.statistics().state) == ("failed", "closed")


# health


@pytest.fixture
def well() -> Statistics:
    """Of a store that has nothing to complain about."""
    numbers: dict[str, Any] = dict.fromkeys(Statistics._fields, 0)
    return Statistics(**numbers)._replace(
        free_bytes=100 * MIB, under_way_seconds=0.5, slowest_sync_seconds=0.5, state="open"
    )


@pytest.mark.parametrize(
    ("change", "state", "reasons"),
    [
        (lambda seen: seen, "ok", ()),
        (lambda seen: seen._replace(free_bytes=None), "ok", ()),
        (lambda seen: seen._replace(free_bytes=9 * MIB), "degraded", ("nearly full",)),
        (
            lambda seen: seen._replace(under_way_seconds=1.1),
            "degraded",
            ("not answered for 1.1 s",),
        ),
        (lambda seen: seen._replace(slowest_sync_seconds=2.0), "degraded", ("a sync took 2.0 s",)),
        (
            lambda seen: seen._replace(free_bytes=0, slowest_sync_seconds=2.0),
            "degraded",
            ("0 MiB", "2.0 s"),
        ),
        (lambda seen: seen._replace(free_bytes=0, state="closing"), "closed", ("is closing",)),
    ],
)
def test_what_the_numbers_say(
    well: Statistics,
    change: Callable[[Statistics], Statistics],
    state: str,
    reasons: tuple[str, ...],
) -> None:
    """Every reason is given; what is over outweighs what is wrong."""
    health = judge(change(well), None, min_free_bytes=10 * MIB, max_sync_seconds=1.0)
    assert health.state == state
    assert len(health.reasons) == len(reasons)
    for reason, part in zip(health.reasons, reasons, strict=True):
        assert part in reason


def test_troubles_are_reasons(well: Statistics) -> None:
    """What the store knows to be in its way comes before what the numbers say, and degrades it."""
    health = judge(
        well._replace(free_bytes=0),
        None,
        troubles=["a", "b"],
        min_free_bytes=1,
        max_sync_seconds=1.0,
    )
    assert health == Health(
        "degraded", ("a", "b", "the disk is nearly full: 0 MiB are free, less than 0 MiB")
    )


def test_a_failure_outweighs_everything(well: Statistics) -> None:
    """Also in a store that was closed since."""
    health = judge(
        well._replace(state="closed", free_bytes=0),
        "it broke",
        min_free_bytes=1,
        max_sync_seconds=1.0,
    )
    assert health == Health("failed", ("it broke",))
