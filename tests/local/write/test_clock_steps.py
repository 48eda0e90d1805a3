"""The clock of the machine is set, forward and back, while a log is written: what its records say,
and what is found.

The oracle of every search is the list of the receipts: what a caller was told is the time of its
record.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from errno import ENOSPC
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aquipu import Always, OsManaged, Reader, Record, Retention, Store
from aquipu.local.check.inspect import examined
from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import first_sequence_of
from aquipu.local.read.examine import verify
from aquipu.runtime.closing import Opening
from tests.disk import FailingDisk
from tests.remote.daemon.served import served

pytestmark = pytest.mark.asyncio

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
YEAR = 365 * DAY
NOW = 1_700_000_000 * SECOND


ROOMS = (
    "local.retain.clock",
    "local.opening",
    *(f"local.write.{name}" for name in ("journal", "keeper")),
)
"""Rooms of the writer that ask the clock of the machine."""


class Clock:
    """Stands in for the clock of the machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, time: int = NOW) -> None:
        self.time = time
        for room in ("commit.committer", "commit.guarding", "commit.writable", *ROOMS):
            monkeypatch.setattr(f"aquipu.{room}.time_ns", lambda: self.time)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def times_of(store: Store) -> list[int]:
    return [record.timestamp - NOW async for record in store.scan()]


async def found(
    store: Store | Reader, since: int | None, until: int | None, *, reverse: bool = False
) -> list[int]:
    return [
        record.sequence async for record in store.scan(since=since, until=until, reverse=reverse)
    ]


def segments_of(path: Path) -> list[int]:
    return sorted(
        first for file in path.iterdir() if (first := first_sequence_of(file.name)) is not None
    )


async def test_a_clock_that_is_wrong_for_a_moment(tmp_path: Path, clock: Clock) -> None:
    """Only what was accepted in that moment has its time; the next record has the time of the clock
    again.
    """
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        for step in (0, 73 * YEAR, 0, 1):
            clock.time = NOW + step
            await store.append(b"x")
        assert await times_of(store) == [0, 73 * YEAR, 0, 1]
        assert segments_of(tmp_path) == [0, 2]
        assert await found(store, NOW - SECOND, NOW + DAY) == [0, 2, 3]
        assert await found(store, NOW - SECOND, NOW + DAY, reverse=True) == [3, 2, 0]
        assert await found(store, NOW + 1, None) == [1, 3]
        assert await found(store, None, NOW + 1) == [0, 2]


@pytest.mark.parametrize(
    ("step", "expected"), [(1, [10, 10]), (SECOND, [10, 10]), (SECOND + 1, [10, 9 - SECOND])]
)
async def test_how_far_a_clock_may_be_set_back(
    tmp_path: Path, clock: Clock, step: int, expected: list[int]
) -> None:
    """Up to one second is levelled: times do not decrease then.

    Beyond that, the log follows the clock.
    """
    clock.time = NOW + 10
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        await store.append(b"x")
        clock.time -= step
        receipt = await store.append(b"y")
        assert await times_of(store) == expected
        assert receipt.timestamp == NOW + expected[-1]
        assert len(segments_of(tmp_path)) == len(set(expected))


async def test_a_clock_that_is_set_back_when_a_segment_is_full(
    tmp_path: Path, clock: Clock
) -> None:
    """The segment that has begun by then is empty, and takes what is earlier than its creation;
    also after reopening.
    """
    for step in (5 * YEAR, 4 * YEAR, 0):
        async with Store.open(tmp_path, sync_policy=Always(), max_segment_bytes=4096) as store:
            for more in (2, 1):
                clock.time = NOW + step + more * DAY
                await store.append(bytes(4096))
    async with Store.open(tmp_path) as store:
        assert await times_of(store) == [
            *(5 * YEAR + 2 * DAY, 5 * YEAR + DAY, 4 * YEAR + 2 * DAY, 4 * YEAR + DAY, 2 * DAY, DAY)
        ]
        for since in range(0, 3 * DAY, DAY // 2):
            assert await found(store, NOW + since, NOW + 3 * DAY) == [
                n for n, day in ((4, 2), (5, 1)) if since <= day * DAY
            ]


async def test_a_clock_that_is_set_while_a_commit_forms(tmp_path: Path, clock: Clock) -> None:
    """Within one commit times do not decrease.

    One that began before the clock was set forward is not stamped anew.
    """
    async with Store.open(tmp_path, sync_policy=Always()) as store:
        clock.time = NOW + YEAR
        await store.append(b"x")
        clock.time = NOW
        waiting = [store.append_nowait(b"y")]
        for time in (2 * YEAR, 0):
            clock.time = NOW + time
            waiting.append(store.append_nowait(b"y"))
        assert [(await one).timestamp - NOW for one in waiting] == [0, 2 * YEAR, 2 * YEAR]
        assert await times_of(store) == [YEAR, 0, 2 * YEAR, 2 * YEAR]
        assert await found(store, NOW, NOW + YEAR) == [1]
        assert await found(store, NOW + YEAR, None) == [0, 2, 3]


async def test_a_clock_that_goes_to_and_fro(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes a bounded number of segments; beyond it times are levelled, until the log may follow
    the clock again.
    """
    monotonic = NOW
    monkeypatch.setattr("aquipu.local.write.roller.monotonic_ns", lambda: monotonic)
    async with Store.open(tmp_path, sync_policy=OsManaged()) as store:
        told = []
        for number in range(100):
            clock.time = NOW + number % 2 * YEAR
            told.append((await store.append(b"x")).timestamp)
        assert len(segments_of(tmp_path)) == 17
        assert told[:34] == [NOW, NOW + YEAR] * 17
        assert told[34:] == [NOW + YEAR] * 66
        clock.time, monotonic = NOW, monotonic + 60 * SECOND
        assert (await store.append(b"y")).timestamp == NOW
        assert len(segments_of(tmp_path)) == 18
        assert [record.timestamp async for record in store.scan()] == [*told, NOW]


async def test_no_space_for_the_segment_that_would_follow_the_clock(
    tmp_path: Path, clock: Clock
) -> None:
    """Times are levelled, and told so, also to those of a large batch; with space there the log
    follows the clock.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        clock.time = NOW + YEAR
        await store.append(b"x")
        clock.time = NOW
        disk.fail("create", ENOSPC, forever=True)
        told = await store.append_many([b"y"] * 1000)
        assert {receipt.timestamp for receipt in told} == {NOW + YEAR}
        disk.mend()
        told.append(await store.append(b"z"))
        assert told[-1].timestamp == NOW
        assert [record.timestamp async for record in store.scan(1)] == [
            receipt.timestamp for receipt in told
        ]
        assert store.statistics().errors["StoreFullError"] == 0


@pytest.mark.parametrize("reverse", [False, True])
async def test_a_search_by_time_through_a_daemon(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, reverse: bool
) -> None:
    """It comes in pages, of which each goes on where the one before ended: nothing is given twice,
    or left out.
    """
    monkeypatch.setattr("aquipu.remote.daemon.answers.PAGE_RECORDS", 2)
    async with served(tmp_path) as it, it.connect() as store:
        for step in (0, YEAR, 0, 73 * YEAR, 0):
            clock.time = NOW + step
            told = await store.append_many([b"x", b"y", b"z"])
            assert [receipt.timestamp for receipt in told] == [clock.time] * 3
        expected = [0, 1, 2, 6, 7, 8, 12, 13, 14]
        scan = store.scan(since=NOW, until=NOW + DAY, reverse=reverse)
        assert [record.sequence async for record in scan] == (
            expected[::-1] if reverse else expected
        )


async def test_how_long_something_took_is_not_asked_of_the_clock(
    tmp_path: Path, clock: Clock
) -> None:
    """However the clock is set, an append took as long as it took, and so long ago the oldest
    unsynced record came.
    """
    async with Store.open(tmp_path, sync_policy=OsManaged()) as store:
        for step in (YEAR, 0, 9 * YEAR, 0):
            clock.time = NOW + step
            await store.append_many([b"x"] * 100)
            waiting = [store.append_nowait(b"x") for _ in range(3)]
            clock.time -= 100 * DAY
            for one in waiting:
                await one
            seen = store.statistics()
            assert 0 < seen.append_seconds.sum < 1000
            assert 0 < seen.oldest_unsynced_seconds < 1000


# whatever the clock does


@dataclass
class Step:
    """What happens next: the clock is set, and something is done."""

    clock: int
    """By how much it is moved."""
    records: tuple[int, ...] = ()
    """Appended one after another, or batches of so many."""
    reopen: bool = False
    purge: bool = False
    labelled: bool = False


moves = st.sampled_from((0, 1, 5, SECOND // 2, SECOND, 2 * SECOND, DAY, YEAR, 73 * YEAR))
steps = st.builds(
    Step,
    st.one_of(moves, moves.map(int.__neg__)),
    st.lists(st.integers(1, 3), max_size=4).map(tuple),
    st.booleans(),
    st.sampled_from((False, False, False, True)),
    st.booleans(),
)


@dataclass
class History:
    """A log that was written by such a clock, and what its callers were told."""

    path: Path
    record_bytes: int
    time: int = NOW
    records: list[Record] = field(default_factory=list)
    first: int = 0

    def clock(self) -> int:
        return self.time

    async def write(self, plan: Iterable[Step], check: Callable[[Store], Awaitable[None]]) -> None:
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(self._opening())
            for step in plan:
                self.time = max(self.time + step.clock, 0)
                if step.reopen:
                    await stack.aclose()
                    store = await stack.enter_async_context(self._opening())
                for count in step.records:
                    self.time += 1
                    await self._append(store, count, ("a",) if step.labelled else ())
                if step.purge:
                    purged = (
                        await store.purge(before=store.next_sequence - 2)
                        if store.next_sequence > 2
                        else None
                    )
                    self.first = purged.first_sequence if purged is not None else self.first
            await check(store)

    def _opening(self) -> Opening[Store]:
        return Store.open(self.path, sync_policy=OsManaged(), max_segment_bytes=4096)

    async def _append(self, store: Store, count: int, labels: tuple[str, ...]) -> None:
        data = [b"x" * self.record_bytes] * count
        for receipt in await store.append_many(data, relations=labels):
            self.records.append(Record(receipt.sequence, receipt.timestamp, data[0], labels))

    def expected(self, since: int | None, until: int | None, labelled: bool) -> list[Record]:
        return [
            record
            for record in self.records[self.first :]
            if (since is None or record.timestamp >= since)
            and (until is None or record.timestamp < until)
            and (not labelled or record.relations)
        ]

    def bounds(self) -> list[int | None]:
        """Times at which something begins or ends, and those beside them."""
        times = sorted({record.timestamp for record in self.records} | {NOW})
        some = times if len(times) <= 3 else [times[0], times[len(times) // 2], times[-1]]
        return [None, *sorted({max(time + by, 0) for time in some for by in (0, 1)})]


plans = st.lists(steps, min_size=1, max_size=6)
sizes = st.sampled_from([0, 1500, 4096])
unhurried = settings(deadline=None, max_examples=4, suppress_health_check=list(HealthCheck))


@unhurried
@given(plans, sizes)
@example([Step(0, (1,)), Step(73 * YEAR, (1,)), Step(-73 * YEAR, (1, 2))], 0)
@example([Step(0, (1,)), Step(YEAR, (1,)), Step(-YEAR, (1,), reopen=True)], 4096)
@example(
    [Step(YEAR, (1,)), Step(-YEAR, (1,)), Step(-YEAR, (1,)), Step(YEAR, (2,), purge=True)], 4096
)
async def test_any_search_by_time_is_exact_and_complete(
    plan: list[Step], record_bytes: int
) -> None:
    """Exactly the records whose receipts say so, in the order of the log or against it, with a
    label or without, by the store itself and by a reader beside it; times never decrease within a
    segment, and nothing is amiss in the files.
    """
    await search(plan, record_bytes)


@pytest.mark.proof
@settings(unhurried, max_examples=30)
@given(plans, sizes)
async def test_many_searches_by_time_are_exact_and_complete(
    plan: list[Step], record_bytes: int
) -> None:
    """So are those of thirty other logs."""
    await search(plan, record_bytes)


async def search(plan: list[Step], record_bytes: int) -> None:
    """Write such a log, search it by all bounds of time, and look at its files."""

    async def check(store: Store) -> None:
        async with Reader.open(history.path) as reader:
            bounds = history.bounds()
            for since, until in [(since, until) for since in bounds for until in bounds]:
                if since is not None and until is not None and since > until:
                    continue
                for labelled in (False, True):
                    expected = history.expected(since, until, labelled)
                    label = "a" if labelled else None
                    for log in (store, reader):
                        scan = log.scan(since=since, until=until, relation=label)
                        assert [record async for record in scan] == expected
                    back = store.scan(since=since, until=until, relation=label, reverse=True)
                    assert [record async for record in back] == expected[::-1]
                    if len(expected) > 1:
                        start, stop = expected[0].sequence + 1, expected[-1].sequence
                        part = store.scan(start, stop, since=since, until=until, relation=label)
                        assert [record async for record in part] == expected[1:-1]

    with TemporaryDirectory() as place:
        history = History(Path(place) / "log", record_bytes)
        with (
            patch("aquipu.commit.committer.time_ns", history.clock),
            patch("aquipu.commit.writable.time_ns", history.clock),
            patch("aquipu.local.write.journal.time_ns", history.clock),
            patch("aquipu.local.retain.clock.time_ns", history.clock),
            patch("aquipu.local.write.keeper.time_ns", history.clock),
            patch("aquipu.local.opening.time_ns", history.clock),
        ):
            await history.write(plan, check)
        check_segments(history)


def check_segments(history: History) -> None:
    """Each segment has times that do not decrease, within the bounds that are known of it without
    reading it.
    """
    findings = examined(Disk(), str(history.path))
    assert list(verify(Disk(), str(history.path), findings.segments, lambda size: None)) == []
    ends = [*(segment.first_sequence for segment in findings.segments[1:]), len(history.records)]
    for segment, stop in zip(findings.segments, ends, strict=True):
        times = [record.timestamp for record in history.records[segment.first_sequence : stop]]
        assert times == sorted(times)
        assert all(segment.earliest <= time <= segment.latest for time in times)


# what is let go of by its age


class Clocks(Clock):
    """Both clocks of the machine: the one that may be set, and the one that counts on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.elapsed = 1000 * DAY
        rooms = (
            "retain.clock",
            *(f"write.{name}" for name in ("aging", "journal", "keeper", "log_files")),
        )
        for room in rooms:
            monkeypatch.setattr(f"aquipu.local.{room}.elapsed_ns", lambda: self.elapsed)

    def pass_by(self, duration: int) -> None:
        self.time += duration
        self.elapsed += duration


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


QUARTER = Retention(max_age=timedelta(days=90))


async def fill(store: Store, segments: int = 1) -> None:
    """So many segments; with each, what the retention no longer keeps goes."""
    for _ in range(segments):
        await store.append(bytes(4096))
    await store.purge(before=0)  # behind what is done between two commits


def opened(path: Path) -> Opening[Store]:
    return Store.open(path, sync_policy=Always(), max_segment_bytes=4096, retention=QUARTER)


@pytest.mark.parametrize("ahead", [100 * DAY, 10 * YEAR, 73 * YEAR])
async def test_a_clock_that_is_set_forward_makes_nothing_older(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture, ahead: int
) -> None:
    """Nothing goes for that, the health says why, and the log once; what does grow old goes when it
    is time.
    """
    async with opened(tmp_path) as store:
        await fill(store, 3)
        clocks.time += ahead
        await fill(store, 3)
        assert store.first_sequence == 0
        (reason,) = store.health().reasons
        assert store.health().state == "degraded"
        assert reason.startswith("the system clock is wrong, or was: it says 20")
        clocks.time -= ahead
        await fill(store, 3)
        assert store.health().state == "ok"
        assert store.first_sequence == 0
        assert [record.message.count(reason) for record in caplog.records] == [1]
        clocks.pass_by(91 * DAY)
        await fill(store)
        assert store.first_sequence == 9


@pytest.mark.parametrize("ahead", [100 * DAY, 73 * YEAR])
async def test_records_of_a_moment_in_the_future_grow_old_as_the_others(
    tmp_path: Path, clocks: Clocks, ahead: int
) -> None:
    """They are in nobody's way: not while the store is open, nor after it was opened again, nor for
    a purge by time.
    """
    async with opened(tmp_path) as store:
        await fill(store)
        clocks.time += ahead
        await fill(store)
        clocks.time -= ahead
        await fill(store)
        clocks.pass_by(50 * DAY)
        await fill(store)
        assert (await store.purge(before_time=clocks.time - DAY, dry_run=True)).first_sequence == 3
    clocks.pass_by(41 * DAY)
    async with opened(tmp_path) as store:
        assert store.health().state == "ok"
        await fill(store)
        assert store.first_sequence == 3


async def test_a_store_that_an_older_version_left_in_the_future(
    tmp_path: Path, clocks: Clocks
) -> None:
    """It is opened, says so, and its next records have the times of the clock; a purge by time
    takes nothing meanwhile.
    """
    clocks.time += 73 * YEAR
    async with opened(tmp_path) as store:
        await fill(store, 3)
    clocks.time -= 73 * YEAR
    async with opened(tmp_path) as store:
        (reason,) = store.health().reasons
        assert "before the newest record" in reason
        assert (await store.append(b"x")).timestamp == clocks.time
        assert (await store.purge(before_time=clocks.time + YEAR)).segments == 0
        clocks.pass_by(3600 * SECOND)
        assert store.health().state == "ok"
        assert (await store.purge(before_time=clocks.time + YEAR)).segments == 3


async def test_a_clock_that_is_years_ahead_when_a_store_is_opened(
    tmp_path: Path, clocks: Clocks
) -> None:
    """Nothing goes, however often it is opened, also when the wrong time stands in the log
    meanwhile.
    """
    async with opened(tmp_path) as store:
        await fill(store, 3)
    clocks.time += 73 * YEAR
    for _ in range(3):
        async with opened(tmp_path) as store:
            await fill(store)
            assert store.first_sequence == 0
            clocks.pass_by(3600 * SECOND)
    clocks.time -= 73 * YEAR
    async with opened(tmp_path) as store:
        await fill(store)
        assert store.first_sequence == 0


async def test_a_clock_that_is_set_right_after_the_start(tmp_path: Path, clocks: Clocks) -> None:
    """A machine without a battery starts in 1970.

    What was appended until a time server was asked is no older by that.
    """
    clocks.time -= 53 * YEAR
    async with opened(tmp_path) as store:
        await fill(store, 3)
        clocks.time += 53 * YEAR
        await fill(store, 3)
        assert store.first_sequence == 0
    async with opened(tmp_path) as store:
        assert store.health().state == "ok"
        await fill(store)
        assert store.first_sequence == 0
    clocks.pass_by(91 * DAY)
    async with opened(tmp_path) as store:
        await fill(store)
        assert store.first_sequence == 7
