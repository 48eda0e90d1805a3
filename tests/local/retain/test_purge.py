"""purge.py: deleting sealed segments; and through the store: purge, retention and holds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from errno import EACCES, EIO, ENOSPC
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aquipu import (
    Always,
    CorruptionError,
    ForkedStoreError,
    Purged,
    RecordNotWrittenError,
    RecordPurgedError,
    Retention,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    WrongLoopError,
)
from aquipu.local.disk.disk import Disk
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import ACKNOWLEDGED, MANIFEST, UNNAMED, relations_name, segment_name
from aquipu.local.index.indexer import Indexer
from aquipu.local.retain.bookmarks import exclusive, set_hold
from aquipu.local.retain.purge import SealedSegments
from aquipu.local.retain.retention import SealedSegment
from tests.disk import FailingDisk
from tests.support import NOW, flip, segment_in, segments_in, snapshot

SEGMENT_BYTES = 4096
FULL = b"x" * SEGMENT_BYTES
"""A record that fills a segment, so that the next one begins another."""
SEALED = [
    SealedSegment(0, 10, 100, NOW),
    SealedSegment(10, 25, 150, NOW + 1),
    SealedSegment(25, 26, 60, NOW + 2),
]


@pytest.fixture(autouse=True)
def _no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """No index is built beside: these tests look at every file and every call."""
    monkeypatch.setattr(Indexer, "look", lambda self, segments: None)


# the room


def past(path: Path, disk: Disk | None = None, left_over: tuple[int, ...] = ()) -> SealedSegments:
    return SealedSegments(disk or FailingDisk(), str(path), SEALED, left_over)


def lay(path: Path, *firsts: int, relations: bool = False) -> None:
    """Files of segments, or of their indexes."""
    for first in firsts:
        (path / (relations_name if relations else segment_name)(first)).touch()


def delete_all(some: SealedSegments) -> int:
    """How many segments could be removed."""
    count = 0
    while some.delete():
        count += 1
    return count


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Somebody reads this file, as a scan does."""
    disk = Disk()
    descriptor = disk.open(str(file))
    assert disk.try_hold(descriptor)
    try:
        yield
    finally:
        disk.close(descriptor)


@pytest.mark.parametrize(
    ("kept_from", "purged"),
    [
        (0, Purged(0, 0, 0, 0, 0)),
        (10, Purged(0, 10, 1, 10, 100)),
        (25, Purged(0, 25, 2, 25, 250)),
        (26, Purged(0, 26, 3, 26, 310)),
    ],
)
def test_what_a_purge_amounts_to(tmp_path: Path, kept_from: int, purged: Purged) -> None:
    """Segments, records and bytes are those of the whole segments before; asking for them changes
    nothing.
    """
    some = past(tmp_path)
    assert some.before(0, kept_from) == purged
    assert some.sealed == SEALED
    assert not some.delete()


def test_what_was_let_go_of_is_removed_the_oldest_first(tmp_path: Path) -> None:
    """Each deletion removes the files of one segment, its index after it, and no other file."""
    lay(tmp_path, 0, 10, 25, 26)
    lay(tmp_path, 0, 10, 25, relations=True)
    disk = FailingDisk()
    some = past(tmp_path, disk)
    some.drop(25)
    assert some.sealed == SEALED[2:]
    assert delete_all(some) == 2
    assert disk.steps("remove") == [
        ("remove", name(first)) for first in (0, 10) for name in (segment_name, relations_name)
    ]
    kept = {segment_name(25), relations_name(25), segment_name(26)}
    assert {file.name for file in tmp_path.iterdir()} == kept
    assert not disk.open_files


def test_files_that_are_gone_already(tmp_path: Path) -> None:
    """A file that is not there is removed, whoever did it: half of them may be left by a purge that
    was cut short.
    """
    lay(tmp_path, 10)
    lay(tmp_path, 0, relations=True)
    some = past(tmp_path, left_over=(0, 10))
    assert delete_all(some) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_somebody_reads(tmp_path: Path) -> None:
    """The removal stops there: what lies behind may be wanted next.

    When it is tried again, all of it goes.
    """
    lay(tmp_path, 0, 10, 25)
    some = past(tmp_path, left_over=(0, 10, 25))
    with reading(segment_in(tmp_path, 10)):
        assert delete_all(some) == 1
        assert segments_in(tmp_path) == [segment_in(tmp_path, 10), segment_in(tmp_path, 25)]
    assert not some.delete(), "not before it is asked for"
    some.try_again()
    assert delete_all(some) == 2
    assert segments_in(tmp_path) == []


@pytest.mark.parametrize("method", ["open", "remove"])
@pytest.mark.parametrize("error", [EIO, EACCES])
def test_a_file_that_cannot_be_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, method: str, error: int
) -> None:
    """It is in nobody's way: a warning names it, nothing is raised, nothing is left open, and it
    goes another time.
    """
    lay(tmp_path, 0, 10)
    disk = FailingDisk()
    disk.fail(method, error)
    some = past(tmp_path, disk, left_over=(0, 10))
    assert delete_all(some) == 0
    assert segment_name(0) in caplog.text
    assert os.strerror(error) in caplog.text
    assert not disk.open_files
    some.try_again()
    assert delete_all(some) == 2


# through the store


async def opened(path: Path, disk: Disk | None = None, **options: Any) -> Store:
    chosen: dict[str, Any] = {
        "sync_policy": Always(),
        "max_segment_bytes": SEGMENT_BYTES,
        "lock_timeout": 0,
        "disk": disk,
    } | options
    return await Store.open(path, **chosen)


@contextmanager
def decided_elsewhere(path: Path) -> Iterator[None]:
    """Another process sets a hold just now."""
    with exclusive(Disk(), str(path)) as is_exclusive:
        assert is_exclusive
        yield


def first_in_manifest(path: Path) -> int:
    return Manifest.decode((path / MANIFEST).read_bytes()).first_sequence


async def filled(path: Path, segments: int, disk: Disk | None = None, **options: Any) -> Store:
    """A store with so many sealed segments of one record each, and one more record."""
    store = await opened(path, disk, **options)
    for _ in range(segments):
        await store.append(FULL)
    await store.append(b"last")
    return store


async def sequences(store: Store) -> list[int]:
    return [record.sequence async for record in store.scan()]


@pytest.mark.asyncio
async def test_a_purge_before_a_sequence(tmp_path: Path) -> None:
    """Whole segments before it go, durably and with their files, and the store says from where on
    it keeps.
    """
    async with await filled(tmp_path, 5) as store:
        sizes = [file.stat().st_size for file in segments_in(tmp_path)]
        assert await store.purge(before=3) == Purged(0, 3, 3, 3, sum(sizes[:3]))
        assert (
            store.first_sequence
            == store.statistics().first_sequence
            == first_in_manifest(tmp_path)
            == 3
        )
        assert store.statistics().segments == 3
        assert segments_in(tmp_path) == [segment_in(tmp_path, first) for first in (3, 4, 5)]
        assert await sequences(store) == [3, 4, 5]
        with pytest.raises(RecordPurgedError):
            await store.get(2)
        with pytest.raises(RecordPurgedError):
            [record async for record in store.scan(2)]
    async with await opened(tmp_path) as store:
        assert store.first_sequence == store.recovery.first_sequence == 3
        assert await sequences(store) == [3, 4, 5]


@pytest.mark.asyncio
async def test_a_sequence_within_a_segment(tmp_path: Path) -> None:
    """The segment that holds a record to be kept stays whole."""
    async with await opened(tmp_path) as store:
        for _ in range(2):
            await store.append_many([b"", b"", FULL])
        assert (await store.purge(before=5)).first_sequence == 3
        assert (await store.purge(before=3)).segments == 0
        assert await sequences(store) == [3, 4, 5]


@pytest.mark.asyncio
async def test_the_segment_that_is_being_written_stays(tmp_path: Path) -> None:
    """However far the bound lies ahead, the sealed segments are all that goes; sequences go on
    where they were.
    """
    async with await filled(tmp_path, 2) as store:
        assert (await store.purge(before=10**30)).first_sequence == 2
        assert await sequences(store) == [2]
        assert (await store.append(FULL)).sequence == 3
        assert (await store.purge(before=4)).first_sequence == 4
        assert await sequences(store) == []
        assert (await store.append(b"on")).sequence == 4


@pytest.mark.asyncio
async def test_a_store_of_which_all_was_purged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened anew without any record left, it goes on with the next sequence, and no time runs
    backwards.
    """
    async with await opened(tmp_path) as store:
        receipt = await store.append(FULL)
        assert (await store.purge(before=1)).first_sequence == 1
    async with await opened(tmp_path) as store:
        assert (store.first_sequence, store.next_sequence) == (1, 1)
    monkeypatch.setattr("aquipu.commit.writable.time_ns", lambda: receipt.timestamp - 10**9)
    async with await opened(tmp_path) as store:
        later = await store.append(b"on")
        assert (later.sequence, later.timestamp) == (1, receipt.timestamp)


@pytest.mark.asyncio
@pytest.mark.parametrize("as_datetime", [True, False])
async def test_a_purge_before_a_time(tmp_path: Path, as_datetime: bool) -> None:
    """Segments in which every record is older go; one record of that time keeps its segment."""
    async with await opened(tmp_path) as store:
        receipts = [await store.append(FULL) for _ in range(4)]
        time = receipts[2].timestamp
        if as_datetime:
            time = time // 1000 * 1000
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time // 1000)
            purged = await store.purge(
                before_time=moment.astimezone(timezone(timedelta(hours=5, minutes=30)))
            )
        else:
            purged = await store.purge(before_time=time)
        kept = next(receipt.sequence for receipt in receipts if receipt.timestamp >= time)
        assert purged.first_sequence == store.first_sequence == kept


@pytest.mark.asyncio
async def test_a_dry_run(tmp_path: Path) -> None:
    """It says what the purge would come to, which is then what it comes to, and changes nothing."""
    store = await filled(tmp_path, 4)
    await store.hold("backup", 2)
    before = snapshot(tmp_path)
    told = await store.purge(before=9, dry_run=True)
    assert told.first_sequence == 2
    assert (
        snapshot(tmp_path) | {ACKNOWLEDGED: before[ACKNOWLEDGED]} == before
    )  # memory, not a record of anything
    assert store.first_sequence == 0
    assert await store.purge(before=9) == told
    await store.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("by_time", [False, True])
async def test_which_hold_keeps_a_purge_from_going_further(tmp_path: Path, by_time: bool) -> None:
    """The oldest one, where without holds more would go; none where the bound itself keeps it."""
    async with await filled(tmp_path, 4) as store:
        times = [record.timestamp async for record in store.scan()]
        await store.hold("later", 3)
        await store.hold("older", 2)

        async def held(before: int) -> tuple[str | None, int | None]:
            purged = await (
                store.purge(before_time=times[before]) if by_time else store.purge(before=before)
            )
            return purged.held_by, purged.held_from

        assert await held(2) == (None, None)
        assert await held(3) == await held(4) == ("older", 2)
        assert store.first_sequence == 2
        await store.release("older")
        assert await held(3) == (None, None)
        assert await held(4) == ("later", 3)
        await store.release("later")
        assert await held(4) == (None, None)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, TypeError, "one of the two"),
        ({"before": 1, "before_time": 1}, TypeError, "one of the two"),
        ({"before": "1"}, TypeError, "before is a sequence, a whole number, not str"),
        ({"before": 1.0}, TypeError, "not float"),
        ({"before": True}, TypeError, "not bool"),
        ({"before": datetime(2020, 1, 1, tzinfo=UTC)}, TypeError, "not datetime"),
        ({"before": -1}, ValueError, "from 0 on, not -1"),
        ({"before_time": datetime(2020, 1, 1)}, ValueError, "has a time zone"),
        ({"before_time": 1.5}, TypeError, "not float"),
        ({"before_time": True}, TypeError, "not bool"),
        ({"before_time": "2020-01-01"}, TypeError, "not str"),
        ({"before_time": timedelta(days=1)}, TypeError, "not timedelta"),
    ],
    ids=str,
)
async def test_a_bound_that_is_none(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    """A purge takes one bound, a sequence or a time that is one moment; what is none is refused
    before anything is done.
    """
    disk = FailingDisk()
    async with await filled(tmp_path, 2, disk) as store:
        disk.calls.clear()
        with pytest.raises(error, match=words):
            await store.purge(**arguments)
        assert disk.calls == []


@pytest.mark.asyncio
async def test_a_time_before_there_was_a_clock(tmp_path: Path) -> None:
    """A time long ago, or far ahead, is a time: nothing is older, or everything."""
    async with await filled(tmp_path, 2) as store:
        assert (await store.purge(before_time=datetime.min.replace(tzinfo=UTC))).segments == 0
        assert (await store.purge(before_time=-1)).segments == 0
        assert (await store.purge(before_time=datetime.max.replace(tzinfo=UTC))).segments == 2


# beside others


@pytest.mark.asyncio
async def test_a_purge_takes_its_turn_among_commits(tmp_path: Path) -> None:
    """Appends before, beside and behind a purge are all stored, and it does not wait for those
    behind.
    """
    async with await filled(tmp_path, 3) as store:
        appends = [asyncio.ensure_future(store.append(b"%d" % number)) for number in range(50)]
        purge = asyncio.ensure_future(store.purge(before=3))
        appends += [
            asyncio.ensure_future(store.append(b"%d" % number)) for number in range(50, 100)
        ]
        receipts = await asyncio.gather(*appends)
        assert (await purge).first_sequence == 3
        assert [receipt.sequence for receipt in receipts] == list(range(4, 104))
        assert await sequences(store) == list(range(3, 104))


@pytest.mark.asyncio
async def test_many_purges_at_once(tmp_path: Path) -> None:
    """Each is decided on what the one before has left; together they come to the furthest."""
    async with await filled(tmp_path, 6) as store:
        purges = await asyncio.gather(*(store.purge(before=bound) for bound in (2, 1, 5, 3)))
        assert [(each.first_sequence_before, each.first_sequence) for each in purges] == [
            (0, 2),
            (2, 2),
            (2, 5),
            (5, 5),
        ]
        assert sum(each.records for each in purges) == 5
        assert segments_in(tmp_path) == [segment_in(tmp_path, 5), segment_in(tmp_path, 6)]


@pytest.mark.asyncio
async def test_a_purge_whose_caller_is_cancelled(tmp_path: Path) -> None:
    """It is done all the same, with the files, and disturbs nobody."""
    disk = FailingDisk()
    store = await filled(tmp_path, 3, disk)
    held = disk.hold("rename", of=MANIFEST)
    purge = asyncio.ensure_future(store.purge(before=3))
    await asyncio.to_thread(held.reached.wait)
    neighbour = asyncio.ensure_future(store.append(b"neighbour"))
    await asyncio.sleep(0)
    purge.cancel()
    with pytest.raises(asyncio.CancelledError):
        await purge
    assert store.first_sequence == 0, "not before it is durable"
    held.released.set()
    assert (await neighbour).sequence == 4
    assert store.first_sequence == 3
    await store.aclose()
    async with await opened(tmp_path):
        assert segments_in(tmp_path) == [segment_in(tmp_path, 3)]


@pytest.mark.asyncio
async def test_a_purge_that_is_under_way_when_the_store_is_closed(tmp_path: Path) -> None:
    """The close waits for it, and its caller is told what came of it."""
    store = await filled(tmp_path, 3)
    purge = asyncio.ensure_future(store.purge(before=3))
    await asyncio.sleep(0)
    await store.aclose()
    assert (await purge).first_sequence == 3
    assert first_in_manifest(tmp_path) == 3


ACTS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "purge": lambda store: store.purge(before=1),
    "dry run": lambda store: store.purge(before=1, dry_run=True),
    "hold": lambda store: store.hold("backup", 1),
    "release": lambda store: store.release("backup"),
}
EVERY_ACT = ACTS | {"holds": lambda store: store.holds()}
by_act = pytest.mark.parametrize("act", EVERY_ACT)


@pytest.mark.asyncio
@by_act
async def test_a_closed_store(tmp_path: Path, act: str) -> None:
    """A closed store lets go of nothing and keeps nothing more:

    StoreClosedError, and no file is touched.
    """
    store = await filled(tmp_path, 2)
    await store.aclose()
    before = snapshot(tmp_path)
    with pytest.raises(StoreClosedError):
        await EVERY_ACT[act](store)
    assert snapshot(tmp_path) == before


@pytest.mark.asyncio
@by_act
async def test_another_loop(tmp_path: Path, act: str) -> None:
    """A call from another event loop is a clear error."""
    async with await filled(tmp_path, 2) as store:
        call = partial(EVERY_ACT[act], store)

        async def elsewhere() -> None:
            await call()

        with pytest.raises(WrongLoopError):
            await asyncio.to_thread(asyncio.run, elsewhere())


@pytest.mark.asyncio
@pytest.mark.parametrize("act", ACTS)
async def test_a_forked_child(tmp_path: Path, act: str) -> None:
    """The store stays with the parent."""
    async with await filled(tmp_path, 2) as store:
        refusal, store._life.refusal = store._life.refusal, ForkedStoreError(store.path)
        with pytest.raises(ForkedStoreError):
            await ACTS[act](store)
        store._life.refusal = refusal


# scans beside it


@pytest.mark.asyncio
async def test_a_segment_that_is_being_read(tmp_path: Path) -> None:
    """The purge is done, and readers see where the log begins; the files go when nobody reads them
    any more.
    """
    async with await filled(tmp_path, 4) as store:
        with reading(segment_in(tmp_path, 1)):
            assert (await store.purge(before=3)).segments == 3
            assert store.first_sequence == 3
            assert segments_in(tmp_path)[0] == segment_in(tmp_path, 1)
        assert (await store.purge(before=3)).segments == 0
        assert segments_in(tmp_path)[0] == segment_in(tmp_path, 3)


@pytest.mark.asyncio
async def test_left_over_files_go_with_the_next_roll(tmp_path: Path) -> None:
    """What could not be removed is tried again when a segment is rolled."""
    async with await filled(tmp_path, 2) as store:
        with reading(segment_in(tmp_path, 0)):
            await store.purge(before=2)
        await store.append(b"no roll")
        await store.append(FULL)
        await store.purge(before=0, dry_run=True)  # comes back behind the roll
    async with await opened(tmp_path):
        assert segments_in(tmp_path)[0] == segment_in(tmp_path, 2)


# failures


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["create", "write", "rename"])
async def test_no_space_for_the_manifest(tmp_path: Path, method: str) -> None:
    """Nothing has changed, the store goes on, and the purge works when there is space."""
    disk = FailingDisk()
    async with await filled(tmp_path, 3, disk) as store:
        disk.fail("rename", ENOSPC, of=MANIFEST + UNNAMED)  # there is no reserve
        disk.fail(method, ENOSPC, of=MANIFEST if method == "rename" else MANIFEST + UNNAMED)
        with pytest.raises(StoreFullError, match="nothing was changed") as caught:
            await store.purge(before=3)
        assert caught.value.sequence is None
        assert store.first_sequence == first_in_manifest(tmp_path) == 0
        assert len(segments_in(tmp_path)) == 4
        assert (await store.append(b"on")).sequence == 4
        assert (await store.purge(before=3)).first_sequence == 3
        assert await sequences(store) == [3, 4]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "of"),
    [
        ("create", MANIFEST + UNNAMED),
        ("write", MANIFEST + UNNAMED),
        ("sync", MANIFEST + UNNAMED),
        ("rename", MANIFEST),
        ("sync_directory", ""),
    ],
)
async def test_a_manifest_that_cannot_be_written(tmp_path: Path, method: str, of: str) -> None:
    """The store has failed, as with any other write: everyone is told, no file has gone, and the
    next opening knows.
    """
    disk = FailingDisk()
    store = await filled(tmp_path, 3, disk)
    held = disk.hold("list")
    disk.fail(method, EIO, of=of)
    purge = asyncio.ensure_future(store.purge(before=3))
    await asyncio.to_thread(held.reached.wait)
    neighbour = asyncio.ensure_future(store.append(b"neighbour"))
    await asyncio.sleep(0)
    held.released.set()
    for call in (purge, neighbour):
        with pytest.raises(StoreFailedError, match="outcome unknown"):
            await call
    for act in ACTS.values():
        with pytest.raises(StoreFailedError):
            await act(store)
    assert store.first_sequence == 0
    assert len(segments_in(tmp_path)) == 4
    assert await sequences(store) == [0, 1, 2, 3]
    with pytest.raises(StoreFailedError):
        await store.aclose()
    async with await opened(tmp_path) as store:
        assert store.first_sequence in (0, 3)
        assert await sequences(store) == list(range(store.first_sequence, 4))


@pytest.mark.asyncio
async def test_files_that_cannot_be_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The purge is done; a warning says what is left, and the next opening removes it."""
    disk = FailingDisk()
    async with await filled(tmp_path, 3, disk) as store:
        disk.fail("remove", EACCES, forever=True)
        assert (await store.purge(before=3)).first_sequence == 3
        assert len(segments_in(tmp_path)) == 4
        assert segment_name(0) in caplog.text
        assert await sequences(store) == [3]
        assert (await store.append(b"on")).sequence == 4
    async with await opened(tmp_path) as store:
        assert segments_in(tmp_path) == [segment_in(tmp_path, 3)]


# holds


@pytest.mark.asyncio
async def test_what_is_held_is_not_purged(tmp_path: Path) -> None:
    """Everything from the oldest hold on stays, whatever a purge is told; a hold that is gone keeps
    nothing.
    """
    async with await filled(tmp_path, 5) as store:
        await store.hold("backup", 1)
        await store.hold("audit", 3)
        assert await store.holds() == {"audit": 3, "backup": 1}
        assert (await store.purge(before=5)).first_sequence == 1
        assert await store.release("backup")
        assert (
            await store.purge(before_time=datetime.now(UTC) + timedelta(days=1))
        ).first_sequence == 3
        await store.hold("audit", 5)
        assert (await store.purge(before=5)).first_sequence == 5
        assert await store.release("audit")
        assert not await store.release("audit")
        assert await store.holds() == {}


@pytest.mark.asyncio
async def test_a_hold_survives_a_restart(tmp_path: Path) -> None:
    """It is durable when `hold` returns, and keeps what it keeps in each life of the store."""
    disk = FailingDisk()
    store = await filled(tmp_path, 3, disk)
    disk.calls.clear()
    await store.hold("backup", 1)
    assert [method for method, _ in disk.steps("write", "sync", "rename", "sync_directory")] == [
        *("write", "sync", "rename", "sync_directory")
    ]
    await store.aclose()
    async with await opened(tmp_path) as store:
        assert await store.holds() == {"backup": 1}
        assert (await store.purge(before=3)).first_sequence == 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "sequence", "error"),
    [
        (7, 1, TypeError),
        ("backup", "1", TypeError),
        ("backup", 1.0, TypeError),
        ("backup", True, TypeError),
        ("", 1, ValueError),
        ("a/b", 1, ValueError),
        ("backup", -1, ValueError),
        ("backup", 5, RecordNotWrittenError),
        ("backup", 2**64, RecordNotWrittenError),
    ],
)
async def test_a_hold_that_cannot_be(
    tmp_path: Path, name: Any, sequence: Any, error: type[Exception]
) -> None:
    """What is no name or no sequence, or lies beyond the end, is refused before all else."""
    disk = FailingDisk()
    async with await filled(tmp_path, 3, disk) as store:
        disk.calls.clear()
        with pytest.raises(error):
            await store.hold(name, sequence)
        assert disk.calls == []


@pytest.mark.asyncio
async def test_a_hold_on_what_is_to_come(tmp_path: Path) -> None:
    """The next sequence may be held: everything that is appended from now on stays."""
    async with await filled(tmp_path, 1) as store:
        await store.hold("backup", store.next_sequence)
        await store.append(FULL)
        await store.append(FULL)
        assert (await store.purge(before=4)).first_sequence == 1


@pytest.mark.asyncio
async def test_a_hold_on_what_is_gone(tmp_path: Path) -> None:
    """RecordPurgedError, and there is no hold: it would promise what is no longer there."""
    async with await filled(tmp_path, 3) as store:
        await store.purge(before=2)
        with pytest.raises(RecordPurgedError) as caught:
            await store.hold("backup", 1)
        assert caught.value.bound == 2
        assert await store.holds() == {}
        await store.hold("backup", 2)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", [None, "a/b"])
async def test_a_release_of_what_is_no_name(tmp_path: Path, name: Any) -> None:
    """TypeError or ValueError, as for setting it."""
    async with await filled(tmp_path, 1) as store:
        with pytest.raises((TypeError, ValueError)):
            await store.release(name)


@pytest.mark.asyncio
async def test_a_hold_that_another_process_sets(tmp_path: Path) -> None:
    """The directory is asked right before each decision: whoever set the hold, it counts."""
    async with await filled(tmp_path, 3) as store:
        assert set_hold(Disk(), str(tmp_path), "elsewhere", 1)
        assert await store.holds() == {"elsewhere": 1}
        assert (await store.purge(before=3)).first_sequence == 1
        with pytest.raises(RecordPurgedError):
            set_hold(Disk(), str(tmp_path), "late", 0)
        assert await store.holds() == {"elsewhere": 1}


@pytest.mark.asyncio
async def test_a_hold_that_is_set_while_a_purge_is_decided(tmp_path: Path) -> None:
    """It has to wait until the decision is durable, and is then refused: no hold is ever passed
    over.
    """
    disk = FailingDisk()
    async with await filled(tmp_path, 3, disk) as store:
        held = disk.hold("rename", of=MANIFEST)
        purge = asyncio.ensure_future(store.purge(before=3))
        await asyncio.to_thread(held.reached.wait)
        assert not set_hold(Disk(), str(tmp_path), "late", 1)
        held.released.set()
        await purge
        with pytest.raises(RecordPurgedError):
            set_hold(Disk(), str(tmp_path), "late", 1)


@pytest.mark.asyncio
@pytest.mark.parametrize("act", ["purge", "hold"])
async def test_a_purge_while_another_process_sets_a_hold(tmp_path: Path, act: str) -> None:
    """Its turn comes when the hold is set; commits do not wait for that, and neither does a caller
    who gives up.
    """
    async with await filled(tmp_path, 3) as store:
        with decided_elsewhere(tmp_path):
            call = asyncio.ensure_future(ACTS[act](store))
            given_up = asyncio.ensure_future(store.purge(before=3))
            for _ in range(3):
                await store.append(b"beside it")
            given_up.cancel()
            assert (await asyncio.gather(given_up, return_exceptions=True))[
                0
            ].__class__ is asyncio.CancelledError
            assert not call.done()
            assert store.first_sequence == 0
        await call
        assert store.first_sequence == (1 if act == "purge" else 0)


@pytest.mark.asyncio
async def test_a_damaged_hold(tmp_path: Path) -> None:
    """No bit of it may change what it holds: nothing is purged until it is set anew or released."""
    async with await filled(tmp_path, 3) as store:
        await store.hold("backup", 1)
        file = tmp_path / "backup.hold"
        for bit in range(8 * file.stat().st_size):
            flip(file, bit // 8, bit % 8)
            with pytest.raises(Exception, match=r"backup\.hold") as caught:
                await store.purge(before=3)
            assert caught.type.__name__ in ("CorruptionError", "UnsupportedFormatError")
            assert store.first_sequence == 0
            flip(file, bit // 8, bit % 8)
        flip(file, 20)
        with pytest.raises(CorruptionError):
            await store.holds()
        with pytest.raises(CorruptionError):
            await store.purge(before=3, dry_run=True)
        assert await store.release("backup")
        assert (await store.purge(before=3)).first_sequence == 3


@pytest.mark.asyncio
async def test_holds_that_cannot_be_read(tmp_path: Path) -> None:
    """What cannot be read is never taken for none: nothing is purged, and the store goes on."""
    disk = FailingDisk()
    async with await filled(tmp_path, 3, disk) as store:
        await store.hold("backup", 1)
        for method in ("list", "open", "read"):
            disk.fail(method, EIO, of="" if method == "list" else "backup.hold")
            with pytest.raises(StoreUnavailableError, match="Input/output error"):
                await store.purge(before=3)
            disk.fail(method, EIO, of="" if method == "list" else "backup.hold")
            with pytest.raises(StoreUnavailableError, match="Input/output error"):
                await store.holds()
        assert store.first_sequence == 0
        assert (await store.purge(before=3)).first_sequence == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["create", "write", "rename"])
@pytest.mark.parametrize(
    ("number", "error"), [(ENOSPC, StoreFullError), (EIO, StoreUnavailableError)]
)
async def test_a_hold_that_cannot_be_set(
    tmp_path: Path, method: str, number: int, error: type[Exception]
) -> None:
    """The old one holds still, nothing is left lying about, and the store goes on."""
    disk = FailingDisk()
    async with await filled(tmp_path, 3, disk) as store:
        await store.hold("backup", 1)
        names = sorted(disk.list(str(tmp_path)))
        full = number == ENOSPC  # for the reserve, and to write over the old one, too
        disk.fail(
            method, number, of="" if method != "rename" else ".hold", written=10, forever=full
        )
        disk.fail(("open", "write"), number, of="hold.reserve", forever=full)
        disk.fail("write", number, of="backup.hold", forever=full)
        with pytest.raises(error):
            await store.hold("backup", 2)
        disk.mend()
        assert await store.holds() == {"backup": 1}
        assert sorted(disk.list(str(tmp_path))) == names
        assert (await store.append(b"on")).sequence == 4


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("act", "method"), [("hold", "sync"), ("hold", "sync_directory"), ("release", "sync_directory")]
)
async def test_a_hold_of_which_nobody_knows(tmp_path: Path, act: str, method: str) -> None:
    """A failed sync is a failed sync: the store is poisoned, and nothing is synced again."""
    disk = FailingDisk()
    store = await filled(tmp_path, 3, disk)
    await store.hold("backup", 1)
    disk.fail(method, EIO)
    with pytest.raises(StoreFailedError):
        await ACTS[act](store)
    disk.calls.clear()
    with pytest.raises(StoreFailedError):
        await store.append(b"on")
    with pytest.raises(StoreFailedError):
        await store.aclose()
    assert disk.steps("create", "write", "write_synced", "sync", "sync_directory", "rename") == []


# retention


@pytest.mark.asyncio
async def test_a_retention_by_size(tmp_path: Path) -> None:
    """Each time a segment is rolled, the oldest ones go until the others are within the bound."""
    async with await filled(tmp_path, 9, retention=Retention(max_bytes=3 * SEGMENT_BYTES)) as store:
        await store.purge(before=0)  # comes back when all that was asked for before is done
        assert store.next_sequence == 10
        assert store.first_sequence == first_in_manifest(tmp_path) == 7
        assert segments_in(tmp_path)[0] == segment_in(tmp_path, 7)
        assert await sequences(store) == [7, 8, 9]


@pytest.mark.asyncio
async def test_a_retention_by_age(tmp_path: Path) -> None:
    """A segment goes when its newest record is older than the bound, and not before."""
    async with await filled(tmp_path, 3, retention=Retention(max_age=timedelta(days=1))) as store:
        await store.purge(before=0)
        assert store.first_sequence == 0
    async with await opened(tmp_path, retention=Retention(max_age=1e-9)) as store:
        await store.purge(before=0)
        assert store.first_sequence == 3


@pytest.mark.asyncio
async def test_a_store_without_retention(tmp_path: Path) -> None:
    """Nothing goes that nobody asked to go."""
    async with await filled(tmp_path, 5) as store:
        pass
    assert store.first_sequence == first_in_manifest(tmp_path) == 0


@pytest.mark.asyncio
async def test_a_retention_looks_after_opening(tmp_path: Path) -> None:
    """What a new retention no longer keeps goes without waiting for a record."""
    async with await filled(tmp_path, 5):
        pass
    async with await opened(tmp_path, retention=Retention(max_bytes=1)) as store:
        await store.holds()
    assert store.first_sequence == first_in_manifest(tmp_path) == 5


@pytest.mark.asyncio
async def test_a_retention_keeps_what_is_held(tmp_path: Path) -> None:
    """A hold is stronger than any retention."""
    async with await filled(tmp_path, 3) as store:
        await store.hold("backup", 1)
    async with await filled(tmp_path, 3, retention=Retention(max_bytes=1)) as store:
        await store.purge(before=0)
        assert store.first_sequence == 1


@pytest.mark.asyncio
async def test_a_retention_and_a_damaged_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is purged, a warning says why, and appends go on; when the hold is gone, the next
    roll lets go.
    """
    async with await filled(tmp_path, 3) as store:
        await store.hold("backup", 1)
    flip(tmp_path / "backup.hold", 20)
    async with await opened(tmp_path, retention=Retention(max_bytes=1)) as store:
        await store.append(b"on")
        assert store.first_sequence == 0
        assert "backup.hold" in caplog.text
        assert await store.release("backup")
        await store.append(FULL)
        await store.purge(before=0)
        assert store.first_sequence == 6


@pytest.mark.asyncio
async def test_a_retention_while_another_process_sets_a_hold(tmp_path: Path) -> None:
    """It waits for no roll, but for the next commit."""
    async with await filled(tmp_path, 3):
        pass
    with decided_elsewhere(tmp_path):
        store = await opened(tmp_path, retention=Retention(max_bytes=1))
        await store.append(b"on")
        assert store.first_sequence == 0
    await store.append(b"and on")
    await store.aclose()
    assert store.first_sequence == 3


@pytest.mark.asyncio
async def test_a_retention_without_space_for_the_manifest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again with the next roll, and a warning says so."""
    disk = FailingDisk()
    async with await filled(tmp_path, 3):
        pass
    disk.fail("create", ENOSPC, of=MANIFEST + UNNAMED)
    disk.fail("rename", ENOSPC, of=MANIFEST + UNNAMED)  # there is no reserve
    async with await opened(tmp_path, disk, retention=Retention(max_bytes=1)) as store:
        await store.append(b"on")
        assert store.first_sequence == 0
        assert "has no space" in caplog.text
        await store.append(FULL)
        await store.purge(before=0)
        assert store.first_sequence == 6


@pytest.mark.asyncio
async def test_a_retention_whose_manifest_cannot_be_written(tmp_path: Path) -> None:
    """The journal has failed; the next caller is told, and no file has gone."""
    disk = FailingDisk()
    async with await filled(tmp_path, 3):
        pass
    disk.fail("sync", EIO, of=MANIFEST + UNNAMED)
    store = await opened(tmp_path, disk, retention=Retention(max_bytes=1))
    with pytest.raises(StoreFailedError):
        await store.append(b"on")
    with pytest.raises(StoreFailedError):
        await store.aclose()
    assert len(segments_in(tmp_path)) == 4


@pytest.mark.parametrize(
    "retention", [3600, timedelta(days=1), "1 day", {"max_bytes": 1}, Retention], ids=str
)
def test_a_retention_that_is_none(tmp_path: Path, retention: Any) -> None:
    """TypeError at once, before any file is touched."""
    with pytest.raises(TypeError, match="retention is a Retention or None"):
        Store.open(tmp_path / "store", retention=retention)
    assert list(tmp_path.iterdir()) == []
