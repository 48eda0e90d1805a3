"""The room `scan`, stride by stride: against the order of the log, and only the records that are
sought by their labels.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from errno import EIO, EMFILE
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aquipu import Record, StoreUnavailableError
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, Index
from aquipu.local.index.finder import Finder
from aquipu.local.index.search import Search
from aquipu.local.index.table import build
from aquipu.local.read.scan import LocalScan
from aquipu.local.read.snapshot import Snapshot
from aquipu.options import Wanted
from aquipu.runtime.handoff import Handoff
from tests.disk import FailingDisk
from tests.support import NOW, commit, open_log

pytestmark = pytest.mark.asyncio

EVERY = ("every",)
SOME = ("some",)


class CountingHandoff(Handoff):
    """Notes how many jobs are under way."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.under_way = self.jobs = 0

    def begin(self) -> None:
        self.under_way += 1
        self.jobs += 1
        super().begin()

    def end(self) -> None:
        self.under_way -= 1
        super().end()


class Log:
    """A log whose strides are so short that nearly each commit begins one."""

    def __init__(self, path: Path) -> None:
        self.disk = FailingDisk()
        self.journal, _ = open_log(path, self.disk)
        self.handoff = CountingHandoff()
        self.finder = Finder()
        self.records: list[Record] = []
        self.bounds: list[int] = []
        """The sequences with which strides begin."""

    def write(self, *labels: tuple[str, ...]) -> None:
        """One commit of records with these labels."""
        first, strides = self.journal.next_sequence, len(self.index.sequences)
        payloads = [b"record %d" % (first + n) for n in range(len(labels))]
        made = commit(*payloads, labels={n: given for n, given in enumerate(labels) if given})
        self.journal.write(self.journal.prepare(made))
        self.records += [
            Record(first + n, NOW, payloads[n], given) for n, given in enumerate(labels)
        ]
        if len(self.index.sequences) > strides:
            self.bounds.append(first)

    def roll(self) -> None:
        """Seal the segment and begin the next one."""
        assert self.journal.roll()

    @property
    def index(self) -> Index:
        """Of the segment that is being written."""
        return self.journal._files.active.contents.index

    def scan(self, start: int = 0, stop: int | None = None, **options: Any) -> LocalScan:
        return self.scan_parts(
            (start, self.journal.next_sequence if stop is None else stop), **options
        )

    def scan_parts(self, *parts: tuple[int, int], **options: Any) -> LocalScan:
        """A scan of several ranges, one behind another."""

        async def take() -> list[Snapshot]:
            return [
                Snapshot(self.disk, self.journal.segments, start, stop) for start, stop in parts
            ]

        return LocalScan(take, self.handoff, **options)

    def stride_of(self, sequence: int) -> int:
        return max(bound for bound in self.bounds if bound <= sequence)


@pytest_asyncio.fixture
async def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Log]:
    """Two sealed segments and one that is being written, of five commits each, and nobody's job
    under way at the end.
    """
    monkeypatch.setattr("aquipu.local.format.segment.INDEX_STRIDE", 150)
    log = Log(tmp_path)
    for number in range(15):
        if number in (5, 10):
            log.roll()
        log.write(EVERY, (*EVERY, *SOME) if number % 3 == 0 else EVERY)
    yield log
    log.journal.drop()
    assert log.handoff.under_way == 0


async def read(scan: LocalScan) -> list[Record]:
    return [record async for record in scan]


@pytest.mark.parametrize("labels", [(), EVERY, SOME])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("every", [0, 1, 3])
async def test_every_range(log: Log, labels: tuple[str, ...], reverse: bool, every: int) -> None:
    """A scan gives just the records of its range that carry the labels, in the order that was asked
    for, whatever of the files is in memory: nothing, all, or a part.
    """
    log.disk.caches = lambda offset: bool(every) and offset % every == 0
    for start in range(0, 31, 3):
        for stop in range(start, 31, 2):
            expected = [
                record for record in log.records[start:stop] if set(labels) <= set(record.relations)
            ]
            search = Search(log.finder, Wanted(labels, ())) if labels else None
            found = await read(log.scan(start, stop, search=search, reverse=reverse))
            assert found == (expected[::-1] if reverse else expected)


@pytest.mark.parametrize("labels", [(), EVERY, SOME])
@pytest.mark.parametrize("reverse", [False, True])
async def test_parts_of_a_view(log: Log, labels: tuple[str, ...], reverse: bool) -> None:
    """Parts are given one behind another, also those that stand in one segment, in one stride, or
    in one commit.
    """
    for width in (1, 2, 3, 5):
        for gap in (1, 4, 11):
            parts = [(start, min(start + width, 30)) for start in range(0, 30, width + gap)]
            within = [record for start, stop in parts for record in log.records[start:stop]]
            expected = [record for record in within if set(labels) <= set(record.relations)]
            search = Search(log.finder, Wanted(labels, ())) if labels else None
            found = await read(log.scan_parts(*parts, search=search, reverse=reverse))
            assert found == (expected[::-1] if reverse else expected)


async def test_strides_in_reverse_become_more_at_a_time(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going back a scan reads the last stride, then two, then four: quick for the last records, and
    for all of them.
    """
    monkeypatch.setattr("aquipu.local.read.held_segment._STRIDES_MAX", 4)
    log.roll()
    for _ in range(14):
        log.write(EVERY, EVERY, EVERY, EVERY)  # more than a stride
    offsets, first = list(log.index.offsets), log.index.sequences[0]
    assert len(offsets) == 14
    assert await read(log.scan(first, reverse=True)) == log.records[: first - 1 : -1]
    assert [call.offset for call in log.disk.calls if call.method == "seek_stream"] == [
        offsets[0],
        offsets[-1],
        offsets[-3],
        offsets[-7],
        offsets[-11],
        offsets[0],
    ]
    assert offsets[0] == SEGMENT_HEADER_BYTES


async def test_which_segments_are_opened(log: Log) -> None:
    """Forward they are opened as the scan comes to them; in reverse the oldest one first, which it
    holds.
    """
    paths = [segment.path for segment in log.journal.segments]
    for reverse, opened in ((False, paths), (True, [paths[0], *paths[::-1]])):
        log.disk.calls.clear()
        await read(log.scan(reverse=reverse))
        assert [call.path for call in log.disk.calls if call.method == "open_stream"] == opened


async def test_no_range_and_no_hit(log: Log) -> None:
    """An empty range opens nothing, in reverse as well; a segment of which its table says that it
    has no hit is opened, and its footer is not read.
    """
    for segment in log.journal.segments[:-1]:
        build(log.disk, segment)
    log.disk.calls.clear()
    assert await read(log.scan(7, 7, reverse=True)) == []
    assert log.disk.count("open_stream") == 0
    search = Search(log.finder, Wanted(("never",), ()))
    for _ in range(2):  # the second one gathers what the segment that is being written has
        assert await read(log.scan(search=search)) == []
    log.disk.calls.clear()
    assert await read(log.scan(search=search)) == []
    reads = [call.path for call in log.disk.calls if call.method == "read"]
    assert [path for path in reads if path.endswith(".segment")] == []


@pytest.mark.parametrize(("method", "number"), [("open_stream", EMFILE), ("read", EIO)])
async def test_a_segment_cannot_be_entered(log: Log, method: str, number: int) -> None:
    """When its file cannot be opened, or its footer cannot be read, the error says what was to be
    done with which file.
    """
    log.disk.fail(method, number)
    with pytest.raises(StoreUnavailableError) as caught:
        await read(log.scan())
    assert (caught.value.path, caught.value.action) == (log.journal.segments[0].path, "read")


async def test_jobs_that_threads_do_for_a_scan(log: Log) -> None:
    """The loop gives way to each read of a scan until it is done, also when it fails."""
    await read(log.scan())
    assert log.handoff.under_way == 0
    assert log.handoff.jobs == 2 * len(log.journal.segments)  # to open a file, and to read it
    log.disk.fail("read_stream", EIO)
    with pytest.raises(StoreUnavailableError) as caught:
        await read(log.scan())
    assert (caught.value.action, log.handoff.under_way) == ("read", 0)


async def test_a_read_that_nobody_waits_for_fails(log: Log) -> None:
    """An error of the disk after its scan was cancelled is nobody's: it is not reported as an
    exception that was lost.
    """
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
    log.disk.fail("read_stream", EIO)
    hold = log.disk.hold("read_stream")
    task = asyncio.create_task(read(log.scan()))
    assert await asyncio.to_thread(hold.reached.wait, 60)
    task.cancel()
    await asyncio.wait([task])
    hold.released.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    for _ in range(5):
        await asyncio.sleep(0)
    assert task.cancelled()
    del task
    gc.collect()
    assert reported == []


async def test_what_is_in_memory_takes_no_thread(log: Log) -> None:
    """Where the system has in memory what a scan reads, threads open the files and do no more; what
    is sought by its labels comes from there as well.
    """
    log.disk.caches = lambda offset: True
    for search in (None, Search(log.finder, Wanted(EVERY, ()))):
        jobs = log.handoff.jobs
        scan = log.scan(0, 4, search=search)
        assert await read(scan) == log.records[:4]
        assert log.handoff.jobs == jobs + 1


async def test_the_loop_goes_on_between_what_is_in_memory(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan that waits for no disk gives others a turn all the same, with each chunk."""
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", 300)
    log.disk.caches = lambda offset: True
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    turn()
    assert await read(log.scan(0, 8)) == log.records[:8]
    assert turns > 4
