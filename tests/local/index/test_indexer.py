"""indexer: tables are built in the background, on a thread that is there only for that, and nothing
waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from array import array
from collections.abc import Iterator
from errno import EIO
from pathlib import Path

import pytest

from aquipu import EveryN, Store, StoreLockedError
from aquipu.local.format.names import UNNAMED
from aquipu.local.index.indexer import Indexer
from aquipu.local.index.table import Table, compare, table_path
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.write.journal import Journal
from tests.disk import FailingDisk
from tests.support import (
    commit,
    engine_of,
    flip,
    open_log,
    segments_in,
)

PATIENCE = 60.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""


class Log:
    """A log with labels, and its indexer."""

    def __init__(self, path: Path) -> None:
        self.disk = FailingDisk()
        self.journal: Journal = open_log(path, self.disk)[0]
        self.indexer = Indexer(self.disk, 0)

    def write(self, *labels: str) -> None:
        """A commit of two records, of which the first carries these labels, in a segment of its
        own.
        """
        if labels:
            self.indexer.labelled(self.journal.next_sequence)
        self.journal.write(
            self.journal.prepare(commit(b"one", b"two", labels={0: labels} if labels else {}))
        )
        assert self.journal.roll()

    @property
    def segments(self) -> tuple[SegmentRef, ...]:
        return self.journal.segments

    def look(self) -> None:
        """The indexer sees what there is, and does what is to be done."""
        self.indexer.look(self.segments)
        self.wait()

    def wait(self) -> None:
        """Until nothing is being built."""
        thread = self.indexer._thread
        if thread is not None:
            thread.join(PATIENCE)
        assert self.indexer._thread is None

    def table(self, n: int) -> Table:
        """The table of a segment, which says just what stands there."""
        segment, behind = self.segments[n], self.segments[n + 1]
        table = Table.open(self.disk, segment, behind.first_sequence, behind.header.link)
        table.check()
        compare(self.disk, segment, table)
        return table

    def path(self, n: int) -> Path:
        """Of a table."""
        return Path(table_path(self.segments[n]))

    def opened(self, n: int) -> int:
        """How often a segment was opened."""
        return sum(
            call.method == "open" and call.path == self.segments[n].path for call in self.disk.calls
        )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Two sealed segments with labels and one without, and one that is being written."""
    log = Log(tmp_path)
    log.write("a", "b")
    log.write("a")
    log.write()
    yield log
    log.indexer.stop()
    log.wait()
    log.journal.drop()
    assert log.disk.open_files == {}


# what is built


def test_missing_tables_are_built(log: Log) -> None:
    """Every sealed segment gets its table, and then there is no thread any more."""
    log.look()
    assert log.table(0).positions("a") == array("I", [0])
    assert [log.table(n).labels for n in range(3)] == [2, 1, 0]
    assert not log.path(3).exists()


def test_segment_without_labels_is_not_read(log: Log) -> None:
    """What was written here without a label gets an empty table, and is not read for it; what has
    labels is.
    """
    log.disk.calls.clear()
    log.look()
    assert [log.opened(n) for n in range(3)] == [1, 1, 0]


def test_segment_of_an_earlier_time_is_read(log: Log) -> None:
    """Of what was there at the opening nothing is known: it is read once, and then its table says
    that it has no labels.
    """
    log.indexer = Indexer(log.disk, log.journal.next_sequence)
    log.disk.calls.clear()
    log.look()
    assert [log.opened(n) for n in range(3)] == [1, 1, 1]
    log.indexer = Indexer(log.disk, log.journal.next_sequence)
    log.disk.calls.clear()
    log.look()
    assert [log.opened(n) for n in range(3)] == [0, 0, 0]


def test_labels_of_a_commit_that_is_not_yet_sealed(log: Log) -> None:
    """Labels count for the segment that was written when they came, and not for the one before."""
    log.look()
    log.write()
    log.indexer.labelled(log.journal.next_sequence)
    log.look()
    assert log.table(3).labels == 0
    log.write("c")
    log.look()
    assert log.table(4).labels == 1


def test_next_segment_is_sealed(log: Log) -> None:
    """When the log has grown only what is new is looked at; the same segments cost nothing."""
    log.look()
    log.disk.calls.clear()
    log.look()
    assert log.disk.calls == []
    log.write("c")
    log.disk.calls.clear()
    log.look()
    assert {call.name.partition(".")[0] for call in log.disk.calls} == {log.path(3).stem}
    assert log.table(3).labels == 1


def test_table_that_is_there_stays(log: Log) -> None:
    """At the opening of a store what is there is not built again."""
    log.look()
    before = log.path(0).stat()
    log.indexer = Indexer(log.disk, log.journal.next_sequence)
    log.look()
    assert log.path(0).stat() == before


def test_damaged_table_is_due(log: Log) -> None:
    """A table that somebody found damaged is built anew, though it is there."""
    log.look()
    sound = log.path(0).read_bytes()
    flip(log.path(0), 3)
    log.indexer.due(log.segments[0])
    log.wait()
    assert log.path(0).read_bytes() == sound


def test_damaged_table_is_due_while_it_is_looked_for(log: Log) -> None:
    """What is found damaged while a job only looks whether there is a table is built anew behind
    it.
    """
    log.look()
    sound = log.path(0).read_bytes()
    flip(log.path(0), 3)
    log.indexer = Indexer(log.disk, log.journal.next_sequence)
    hold = log.disk.hold("exists", of=log.path(0).name)
    log.indexer.look(log.journal.segments)
    assert hold.reached.wait(PATIENCE)
    log.indexer.due(log.segments[0])
    hold.released.set()
    log.wait()
    assert log.path(0).read_bytes() == sound


def test_damaged_table_stays_due(log: Log) -> None:
    """A table that was found damaged is built anew, also when the segments are looked through
    before it comes to that.
    """
    log.look()
    sound = log.path(0).read_bytes()
    flip(log.path(0), 3)
    log.indexer = Indexer(log.disk, log.journal.next_sequence)
    hold = log.disk.hold("create")
    log.indexer.due(log.segments[1])
    assert hold.reached.wait(PATIENCE)
    log.indexer.due(log.segments[0])
    log.indexer.look(log.segments)
    hold.released.set()
    log.wait()
    assert log.path(0).read_bytes() == sound


def test_due_many_times(log: Log) -> None:
    """A table that is due many times is built once; while it is being built, it is not due anew."""
    hold = log.disk.hold("create")
    log.disk.calls.clear()
    for _ in range(5):
        log.indexer.due(log.segments[0])
    assert hold.reached.wait(PATIENCE)
    log.indexer.due(log.segments[0])
    log.indexer.due(log.segments[1])
    hold.released.set()
    log.wait()
    assert log.disk.count("create") == 2
    assert log.table(0).labels == 2
    assert log.table(1).labels == 1


# the thread


def test_nothing_to_do(log: Log) -> None:
    """Without sealed segments there is no thread, and none is begun to find that out."""
    log.indexer.look(log.segments[-1:])
    assert log.indexer._thread is None


def test_thread_is_a_daemon(log: Log) -> None:
    """The exit of the program does not wait for a table."""
    hold = log.disk.hold("create")
    log.indexer.look(log.segments)
    assert hold.reached.wait(PATIENCE)
    assert log.indexer._thread is not None
    assert log.indexer._thread.daemon
    hold.released.set()


def test_no_thread_to_be_had(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system has no more threads the log goes on, and the next occasion builds what is
    due.
    """

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        log.look()
    assert not log.path(0).exists()
    log.write("c")
    log.look()
    assert [log.table(n).labels for n in range(4)] == [2, 1, 0, 1]


def test_build_goes_in_slices(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two slices of work the thread rests."""
    rests: list[float] = []
    monkeypatch.setattr("aquipu.local.index.throttle.sleep", rests.append)
    monkeypatch.setattr("aquipu.local.index.throttle.WORK_SECONDS", 0)
    monkeypatch.setattr("aquipu.local.index.meter.Meter.SLICE", 1)
    log.look()
    assert len(rests) >= 2
    assert min(rests) > 0


# stopping


def test_build_gives_way_to_a_search(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """While labels are searched for a build rests at each step; it is done all the same."""
    rests: list[float] = []
    monkeypatch.setattr("aquipu.local.index.indexer.sleep", rests.append)
    monkeypatch.setattr("aquipu.local.index.indexer._QUIET", PATIENCE)
    monkeypatch.setattr("aquipu.local.index.meter.Meter.SLICE", 1)
    log.look()
    assert rests == []
    log.indexer.give_way()
    log.indexer.due(log.segments[0])
    log.wait()
    assert rests
    assert log.table(0).labels == 2


def test_stop_while_nothing_is_built(log: Log) -> None:
    """Stopping has nothing to wait for then, and afterwards nothing is begun."""
    assert log.indexer.stop() is False
    log.look()
    log.indexer.due(log.segments[0])
    assert log.indexer._thread is None
    assert not log.path(0).exists()


def test_stop_within_a_build(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build ends at its next slice: nothing of its table is left, nothing else is begun, and
    whoever stops is told.
    """
    monkeypatch.setattr("aquipu.local.index.meter.Meter.SLICE", 1)
    hold = log.disk.hold("create")
    ended = threading.Event()
    log.indexer.look(log.segments)
    assert hold.reached.wait(PATIENCE)
    assert log.indexer.stop(ended.set)
    assert not ended.is_set()
    hold.released.set()
    assert ended.wait(PATIENCE)
    assert log.indexer.stop() is False
    names = log.disk.list(log.journal.path)
    assert not [name for name in names if name.endswith((".relations", UNNAMED))]


# errors


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "aquipu.local.index.indexer"
    ]


def test_segment_that_cannot_be_indexed(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """An error is reported once, with the file; that segment is left alone, and the others get
    their tables.
    """
    log.disk.fail("read", EIO, of=log.segments[0].path, forever=True)
    log.look()
    for _ in range(2):
        log.indexer.due(log.segments[0])
        log.wait()
    (warning,) = warnings_of(caplog)
    assert log.segments[0].path in warning
    assert "no record is lost" in warning
    assert not log.path(0).exists()
    assert [log.table(n).labels for n in (1, 2)] == [1, 0]


def test_damaged_segment(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged segment gets no table."""
    flip(Path(log.segments[0].path), 64 + 60)
    log.look()
    (warning,) = warnings_of(caplog)
    assert "CorruptionError" in warning
    assert not log.path(0).exists()


@pytest.mark.parametrize("n", [0, 2])
def test_disk_is_full(log: Log, n: int, caplog: pytest.LogCaptureFixture) -> None:
    """Without space for a table, also for an empty one, there is none; the log is not touched."""
    log.disk.fail("write", EIO, of=f"{log.path(n).name}{UNNAMED}", forever=True)
    log.look()
    assert len(warnings_of(caplog)) == 1
    assert [log.path(other).exists() for other in range(3)] == [other != n for other in range(3)]


def test_segment_was_purged(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """Of a segment that a purge has removed there is nothing to build, and nothing to report."""
    for n in (0, 1):
        Path(log.segments[n].path).unlink()
    log.look()
    assert warnings_of(caplog) == []
    assert [log.path(n).exists() for n in range(3)] == [False, False, True]


def test_segment_is_purged_within_a_build(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    """A table whose segment was removed while it was built is removed as well."""
    hold = log.disk.hold("rename", of=log.path(0).name)
    log.indexer.look(log.segments)
    assert hold.reached.wait(PATIENCE)
    Path(log.segments[0].path).unlink()
    hold.released.set()
    log.wait()
    assert warnings_of(caplog) == []
    assert not log.path(0).exists()


# in a store


def indexers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "aquipu-index"]


async def no_indexer() -> None:
    """Wait until nothing is being built."""
    for thread in indexers():
        await asyncio.to_thread(thread.join, PATIENCE)


def tables_in(path: Path) -> set[str]:
    return {file.stem for file in path.iterdir() if file.suffix == ".relations"}


async def fill(store: Store, commits: int, relations: tuple[str, ...] = ("a", "b")) -> None:
    for _ in range(commits):
        await store.append(bytes(300), relations=relations)


@pytest.mark.asyncio
async def test_store_indexes_what_it_seals(tmp_path: Path) -> None:
    """A segment gets its table when the next commit has come back; an idle store has no thread for
    it.
    """
    async with Store.open(
        tmp_path, max_segment_bytes=4096, sync_policy=EveryN(64, within=None)
    ) as store:
        assert indexers() == []
        await fill(store, 50)
        await no_indexer()
        sealed = {file.stem for file in segments_in(tmp_path)[:-1]}
        assert len(sealed) >= 3
        assert tables_in(tmp_path) == sealed
        assert await store.relations() == {"a": 50, "b": 50}
        assert len([record async for record in store.scan(relation=("a", "b"))]) == 50


@pytest.mark.asyncio
async def test_store_without_labels_is_not_read(tmp_path: Path) -> None:
    """Who uses no labels pays a small file for each segment, and no reading."""
    disk = FailingDisk()
    async with Store.open(tmp_path, max_segment_bytes=4096, disk=disk) as store:
        disk.calls.clear()
        await fill(store, 50, ())
        await no_indexer()
        assert tables_in(tmp_path) == {file.stem for file in segments_in(tmp_path)[:-1]}
        assert [
            call
            for call in disk.calls
            if call.method in ("open", "read") and ".segment" in call.name
        ] == []


@pytest.mark.asyncio
async def test_store_indexes_what_it_finds(tmp_path: Path) -> None:
    """Tables that are missing when a store is opened are built, and one that a find does not
    believe is built anew.
    """
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        await fill(store, 50)
    tables = tables_in(tmp_path)
    for stem in tables:
        (tmp_path / f"{stem}.relations").unlink()
    async with Store.open(tmp_path, max_segment_bytes=4096) as store:
        await no_indexer()
        assert tables <= tables_in(tmp_path)
        table = tmp_path / f"{min(tables)}.relations"
        sound = table.read_bytes()
        flip(table, 5)
        assert await store.relations() == {"a": 50, "b": 50}
        await no_indexer()
        assert table.read_bytes() == sound


@pytest.mark.asyncio
async def test_store_closes_within_a_build(tmp_path: Path) -> None:
    """aclose ends a build and lets go of the store's lock only behind it: nothing is written into
    another's store.
    """
    disk = FailingDisk()
    store = await Store.open(tmp_path, max_segment_bytes=4096, disk=disk)
    hold = disk.hold("create", of=f".relations{UNNAMED}")
    await fill(store, 50)
    assert await asyncio.to_thread(hold.reached.wait, PATIENCE)
    closing = asyncio.ensure_future(store.aclose())
    with pytest.raises(StoreLockedError):
        await Store.open(tmp_path, lock_timeout=0.05)
    assert not closing.done()
    hold.released.set()
    await closing
    assert not [name for name in disk.list(str(tmp_path)) if name.endswith(UNNAMED)]
    async with Store.open(tmp_path) as again:
        assert again.recovery.clean
        assert len([record async for record in again.scan(relation="a")]) == 50


@pytest.mark.asyncio
async def test_loop_ends_within_a_build_of_a_closing_store(tmp_path: Path) -> None:
    """A loop that is closed while aclose waits for a build leaves nothing locked and nobody
    waiting.
    """
    disk = FailingDisk()
    hold = disk.hold("create", of=f".relations{UNNAMED}")

    async def begin_closing() -> Store:
        store = await Store.open(tmp_path, max_segment_bytes=4096, disk=disk)
        await fill(store, 50)
        assert await asyncio.to_thread(hold.reached.wait, PATIENCE)
        store._begin_closing()
        return store

    store = await asyncio.to_thread(asyncio.run, begin_closing())
    hold.released.set()
    await no_indexer()
    assert await asyncio.to_thread(engine_of(store)._worker.join, PATIENCE)
    async with Store.open(tmp_path) as again:
        assert again.next_sequence == 50


@pytest.mark.asyncio
async def test_store_goes_on_when_nothing_can_be_indexed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors of the disk at a table never reach those who append or read."""
    caplog.set_level(logging.WARNING)
    disk = FailingDisk()
    async with Store.open(tmp_path, max_segment_bytes=4096, disk=disk) as store:
        disk.fail("create", EIO, of=f".relations{UNNAMED}", forever=True)
        await fill(store, 50)
        assert await store.relations() == {"a": 50, "b": 50}
        await no_indexer()
        assert len(warnings_of(caplog)) == len(segments_in(tmp_path)) - 1
