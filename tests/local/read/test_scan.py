"""The rooms `scan` and `view`: what a view may see, whole and checked, and no file left open behind
it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from errno import EIO
from functools import partial
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import anyio
import pytest
import pytest_asyncio

from aquipu import CorruptionError, Record, StoreUnavailableError, UnsupportedFormatError
from aquipu.engine import Commit
from aquipu.local.format.frame import HEADER_BYTES, encode
from aquipu.local.format.segment import FOOTER_BYTES, INDEX_STRIDE, SEGMENT_HEADER_BYTES
from aquipu.local.format.structure import extend
from aquipu.local.index.finder import Finder
from aquipu.local.index.search import Search
from aquipu.local.read import segment_reader
from aquipu.local.read.held_segment import CHUNK_BYTES
from aquipu.local.read.scan import LocalScan
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.read.snapshot import Snapshot, find
from aquipu.local.write.journal import Journal
from aquipu.local.write.recovery import recover
from aquipu.options import Wanted
from aquipu.runtime.handoff import Handoff
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio

PATIENCE = 60.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""

CHUNKS = [1, 7, HEADER_BYTES, 100, 1000, 300_000]
CACHES: list[Any] = [
    pytest.param(lambda offset: False, id="nothing"),
    pytest.param(lambda offset: True, id="all"),
    pytest.param(lambda offset: offset % 3 == 0, id="some"),
]
"""What of a file is in memory, by its offset."""


class Place(NamedTuple):
    """Where a commit went."""

    path: Path
    offset: int
    end: int
    first_sequence: int


class Log:
    """A log written commit by commit, which knows where each one stands."""

    def __init__(self, path: Path, max_segment_bytes: int = 64 << 20) -> None:
        self.disk = FailingDisk()
        self.journal: Journal = recover(
            self.disk, str(path), max_segment_bytes=max_segment_bytes, new_store_id=bytes(16), now=1
        )[0]
        self.places: list[Place] = []
        self.records: list[Record] = []

    def write(self, *payloads: bytes, labels: dict[int, tuple[str, ...]] | None = None) -> Place:
        commit: Commit[Any] = Commit()
        first = self.journal.next_sequence
        commit.payloads += payloads
        commit.timestamps += range(first, first + len(payloads))
        commit.labels = labels or {}
        ref, offset = self.active, self.end
        self.journal.write(self.journal.prepare(commit))
        self.places.append(Place(Path(ref.path), offset, self.end, first))
        for index, payload in enumerate(payloads):
            self.records.append(
                Record(first + index, first + index, payload, commit.labels.get(index, ()))
            )
        return self.places[-1]

    def roll(self) -> None:
        """Seal the segment and begin the next one."""
        assert self.journal.roll()

    @property
    def active(self) -> SegmentRef:
        return self.journal.segments[-1]

    @property
    def end(self) -> int:
        return self.journal._files.active.contents.end

    def view(self, start: int = 0, stop: int | None = None) -> Snapshot:
        end = self.journal.next_sequence if stop is None else stop
        return Snapshot(self.disk, self.journal.segments, start, end)

    def scan(self, start: int = 0, stop: int | None = None) -> LocalScan:
        async def take() -> list[Snapshot]:
            return [self.view(start, stop)]

        return LocalScan(take, handoff())


def scan_of(view: Snapshot) -> LocalScan:
    async def take() -> list[Snapshot]:
        return [view]

    return LocalScan(take, handoff())


async def get(view: Snapshot) -> Record:
    return await handoff().run(find, view)


def handoff() -> Handoff:
    return Handoff(asyncio.get_running_loop())


async def read(scan: LocalScan) -> list[Record]:
    return [record async for record in scan]


def files_open_in(path: Path) -> list[str]:
    """The files under this path that the process has open for reading only."""
    targets = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
            flags = int(Path(f"/proc/self/fdinfo/{entry}").read_text().split()[3], 8)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        if target.startswith(f"{path}/") and flags & os.O_ACCMODE == os.O_RDONLY:
            targets.append(target)
    return targets


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int) -> None:
    """Turn one bit over."""
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 1]))


@pytest_asyncio.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    """An empty log."""
    log = Log(tmp_path)
    yield log
    log.journal.drop()


@pytest.fixture
def several(log: Log) -> Log:
    """Twelve commits of 1 to 4 records in three sealed segments and an active one."""
    for number in range(12):
        log.write(*(b"%d/%d" % (number, n) * (n + 1) for n in range(number % 4 + 1)))
        if number in (2, 5, 8):
            log.roll()
    return log


# what is read


@pytest.mark.parametrize("caches", CACHES)
@pytest.mark.parametrize("chunk", CHUNKS)
async def test_everything(
    several: Log, chunk: int, caches: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan gives every record, in order, over sealed and active segments, however small its
    chunks are, and whatever of the files is in memory.
    """
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", chunk)
    several.disk.caches = caches
    assert await read(several.scan()) == several.records


@pytest.mark.parametrize("chunk", [1, 100, 300_000])
async def test_every_start_and_every_stop(
    several: Log, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan is half-open: it begins at its start and ends before its stop, wherever commits and
    segments begin.
    """
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", chunk)
    count = len(several.records)
    for start in range(count):
        assert await read(several.scan(start)) == several.records[start:]
    for stop in range(count + 1):
        assert await read(several.scan(0, stop)) == several.records[:stop]


async def test_ranges_around_the_segment_boundaries(several: Log) -> None:
    """Ranges that begin or end on a boundary of segments, or one beside it, hold just their
    records.
    """
    bounds = [ref.first_sequence for ref in several.journal.segments]
    near = sorted({max(bound + step, 0) for bound in bounds for step in (-1, 0, 1)})
    for start in near:
        for stop in near:
            assert await read(several.scan(start, stop)) == several.records[start:stop]


async def test_empty_range(several: Log) -> None:
    """A range without records opens no file."""
    assert await read(several.scan(5, 5)) == []
    assert several.disk.count("open_stream") == 0


async def test_empty_log(log: Log) -> None:
    """A log without records gives none."""
    assert await read(log.scan()) == []


async def test_each_record_alone(several: Log) -> None:
    """`get` gives the first record of its view, from whatever segment."""
    for record in several.records:
        assert await get(several.view(record.sequence, record.sequence + 1)) == record


@pytest.mark.parametrize("pieces", [1, HEADER_BYTES, 1 << 20])
async def test_one_record_in_small_pieces(
    several: Log, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`get` finds its record also when a frame is larger than what is read at a time."""
    monkeypatch.setattr(segment_reader, "READ_BYTES", pieces)
    assert await get(several.view(17)) == several.records[17]


@pytest.mark.parametrize("sealed", [False, True])
async def test_starts_at_the_strides_of_the_index(log: Log, sealed: bool) -> None:
    """A start on an entry of the index, or beside it, begins with that record, sealed or not."""
    for number in range(60):
        log.write(bytes([number]) * 7000, b"%d" % number)
    entries = list(log.journal._files.active.contents.index.sequences)
    assert len(entries) > 60 * 7000 // INDEX_STRIDE
    if sealed:
        log.roll()
    for entry in entries:
        for start in (entry - 1, entry, entry + 1):
            if start >= 0:
                assert await read(log.scan(start, start + 5)) == log.records[start : start + 5]
                assert await get(log.view(start)) == log.records[start]


async def test_start_reads_from_the_stride_and_not_from_the_beginning(log: Log) -> None:
    """To find a record far into a segment, the frames before its stride are not read."""
    for number in range(60):
        log.write(bytes([number]) * 7000)
    overwrite(log.places[0].path, SEGMENT_HEADER_BYTES, bytes(INDEX_STRIDE))
    assert await read(log.scan(50)) == log.records[50:]
    assert await get(log.view(50)) == log.records[50]


async def test_relations_come_along(log: Log) -> None:
    """Labels are given back with the record that carries them."""
    log.write(b"one", b"two", labels={1: ("user:7", "document:42")})
    assert [record.relations for record in await read(log.scan())] == [
        (),
        ("user:7", "document:42"),
    ]
    assert (await get(log.view(1))).relations == ("user:7", "document:42")


async def test_frame_larger_than_a_chunk(log: Log) -> None:
    """A commit of several chunks is put together, and what stands around it is read as well."""
    log.write(b"before")
    log.write(bytes(9 * CHUNK_BYTES), b"beside")
    log.write(b"behind")
    assert await read(log.scan()) == log.records
    # once its header is known, the rest of the frame comes in one piece
    assert log.disk.count("read_stream") == 3
    assert await get(log.view(2)) == log.records[2]


async def test_empty_records_and_marks(log: Log) -> None:
    """Records without a byte are records; frames without a record give none."""
    log.write(b"", b"")
    log.journal.mark()
    log.write(b"")
    log.journal.mark()
    assert await read(log.scan()) == log.records
    assert len(log.records) == 3


# the view


async def test_view_is_taken_at_the_first_step(log: Log) -> None:
    """What is acknowledged between making a scan and its first step is part of it, what comes later
    is not.
    """
    log.write(b"one")
    scan = log.scan()
    log.write(b"two")
    assert (await anext(scan)).data == b"one"
    log.write(b"three")
    assert [record.data async for record in scan] == [b"two"]


async def test_segment_is_sealed_under_a_scan(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan goes on undisturbed while the segment that it reads is sealed and others follow."""
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", 100)
    for number in range(10):
        log.write(b"%d" % number * 30)
    scan = log.scan()
    first = await anext(scan)
    log.roll()
    log.write(b"later")
    assert [first, *await read(scan)] == log.records[:10]


GARBAGE = [
    pytest.param(b"\xff" * 300, id="noise"),
    pytest.param(b"\xaaqF1" * 75, id="magics"),
    pytest.param(bytes(300), id="zeros"),
]


@pytest.mark.parametrize("chunk", [1, 300_000])
@pytest.mark.parametrize("garbage", GARBAGE)
async def test_bytes_beyond_the_view(
    log: Log, garbage: bytes, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a file holds behind the last frame of the view is never looked at."""
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", chunk)
    log.write(b"one", b"two")
    place = log.write(b"three", b"four")
    view = log.view()
    overwrite(place.path, place.end, garbage)
    assert await read(scan_of(view)) == log.records
    assert await get(log.view(3)) == log.records[3]


@pytest.mark.parametrize("chunk", [1, 300_000])
async def test_commit_under_way_behind_the_view(
    log: Log, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame that is half written, or whole and not acknowledged, is no part of the view."""
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", chunk)
    log.write(b"one")
    log.write(b"two")
    behind = log.write(b"not acknowledged")
    flip(behind.path, behind.end - 1)
    assert await read(log.scan(0, 2)) == log.records[:2]
    assert await get(log.view(1, 2)) == log.records[1]


async def test_stop_within_a_commit_before_damage(log: Log) -> None:
    """A scan that stops within a commit does not meet what stands behind that commit."""
    log.write(b"one", b"two", b"three")
    behind = log.write(b"four")
    flip(behind.path, behind.offset)
    assert await read(log.scan(0, 2)) == log.records[:2]


async def test_sequence_before_the_view(log: Log) -> None:
    """A view knows nothing before its first segment."""
    log.write(b"one")
    view = log.view()._replace(segments=())
    with pytest.raises(LookupError):
        view.holding(0)


# damage


@pytest.mark.parametrize("chunk", [1, HEADER_BYTES, 300_000])
@pytest.mark.parametrize("part", ["header", "body"])
@pytest.mark.parametrize("sealed", [True, False])
async def test_damaged_frame(
    log: Log, part: str, sealed: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sound records before a damaged frame are given, then CorruptionError names the file and
    the frame's offset.
    """
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", chunk)
    for number in range(6):
        log.write(b"%d" % number)
    if sealed:
        log.roll()
        log.write(b"in the next segment")
    damaged = log.places[3]
    flip(damaged.path, damaged.offset + (8 if part == "header" else HEADER_BYTES + 1))
    given: list[Record] = []
    with pytest.raises(CorruptionError) as caught:
        await _collect(log.scan(), given)
    assert given == log.records[:3]
    assert (caught.value.path, caught.value.offset) == (str(damaged.path), damaged.offset)
    with pytest.raises(CorruptionError) as caught:
        await get(log.view(3))
    assert (caught.value.path, caught.value.offset) == (str(damaged.path), damaged.offset)
    assert await get(log.view(2)) == log.records[2]


async def test_damage_in_a_later_segment(several: Log) -> None:
    """Damage in one segment does not reach the records of those before it."""
    damaged = several.places[4]
    flip(damaged.path, damaged.offset)
    given: list[Record] = []
    with pytest.raises(CorruptionError) as caught:
        await _collect(several.scan(), given)
    assert given == several.records[: damaged.first_sequence]
    assert (caught.value.path, caught.value.offset) == (str(damaged.path), damaged.offset)


async def test_segment_cut_short(log: Log) -> None:
    """A file that ends within a frame is damaged where that frame begins."""
    log.write(b"one")
    place = log.write(b"two")
    os.truncate(place.path, place.end - 1)
    given: list[Record] = []
    with pytest.raises(CorruptionError, match="too early") as caught:
        await _collect(log.scan(), given)
    assert given == log.records[:1]
    assert (caught.value.path, caught.value.offset) == (str(place.path), place.offset)
    with pytest.raises(CorruptionError, match="too early"):
        await get(log.view(1))


@pytest.mark.parametrize("damage", ["flipped", "missing"])
async def test_footer_of_a_sealed_segment(log: Log, damage: str) -> None:
    """A sealed segment is not entered with a footer that does not check, or without one."""
    place = log.write(b"one")
    log.roll()
    if damage == "flipped":
        flip(place.path, place.end + 3)
    else:
        os.truncate(place.path, place.end)
    with pytest.raises(CorruptionError, match="footer") as caught:
        await read(log.scan())
    assert (caught.value.path, caught.value.offset) == (str(place.path), place.end)
    with pytest.raises(CorruptionError, match="footer"):
        await get(log.view())


async def test_footer_says_another_place(log: Log) -> None:
    """A footer that has moved is damage: its offsets would lead anywhere."""
    place = log.write(b"one")
    log.roll()
    whole = await asyncio.to_thread(place.path.read_bytes)
    assert len(whole) == place.end + 24 + FOOTER_BYTES
    overwrite(place.path, place.end, bytes(8) + whole[place.end :])
    with pytest.raises(CorruptionError, match="another place"):
        await read(log.scan())


async def test_frame_with_unknown_flags(log: Log) -> None:
    """A sound frame of a later version is refused as that, not as damage."""
    log.write(b"one")
    place = log.write(b"two")
    _reseal(log, place, flags=0x80)
    given: list[Record] = []
    with pytest.raises(UnsupportedFormatError, match="0x80") as caught:
        await _collect(log.scan(), given)
    assert given == log.records[:1]
    assert caught.value.path == str(place.path)
    with pytest.raises(UnsupportedFormatError, match=f"offset {place.offset} "):
        await get(log.view(1))


async def test_columns_that_do_not_fit(log: Log) -> None:
    """A frame whose checksums are right and whose columns are not is damage, at its own offset."""
    place = log.write(b"one")
    _reseal(log, place, records=2)
    view = log.view()._replace(stop=2)
    with pytest.raises(CorruptionError) as caught:
        await read(scan_of(view))
    assert (caught.value.path, caught.value.offset) == (str(place.path), place.offset)
    with pytest.raises(CorruptionError) as caught:
        await get(view)
    assert (caught.value.path, caught.value.offset) == (str(place.path), place.offset)


async def test_frame_out_of_order(log: Log) -> None:
    """A sound frame that does not follow the one before it is damage."""
    log.write(b"one")
    place = log.write(b"two")
    active = log.journal._files.active
    stale = encode(
        (b"two",), (1,), first_sequence=1, time=1, watermark=0, link=99, seed=active.seed
    )
    overwrite(place.path, place.offset, b"".join(stale.buffers))
    with pytest.raises(CorruptionError, match="does not follow"):
        await read(log.scan())


# files that cannot be read


async def test_file_is_missing(several: Log) -> None:
    """A segment file that is gone is StoreUnavailableError, with the path; what stands before it
    was given.
    """
    place = several.places[4]
    os.unlink(place.path)
    given: list[Record] = []
    with pytest.raises(StoreUnavailableError) as caught:
        await _collect(several.scan(), given)
    assert given == several.records[: several.places[3].first_sequence]
    assert (caught.value.path, caught.value.action) == (str(place.path), "read")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(StoreUnavailableError):
        await get(several.view(place.first_sequence))


async def test_reading_fails(log: Log, tmp_path: Path) -> None:
    """An error of the disk while reading is StoreUnavailableError, with the path, and the file is
    closed.
    """
    place = log.write(b"one")
    failure = OSError(EIO, "Input/output error")
    log.disk.fail("read_stream", failure)
    with pytest.raises(StoreUnavailableError, match="Input/output error") as caught:
        await read(log.scan())
    assert caught.value.path == str(place.path)
    assert caught.value.__cause__ is failure
    assert files_open_in(tmp_path) == []


async def test_reading_what_was_found_fails(log: Log, tmp_path: Path) -> None:
    """So it is with records that are sought by their labels, when the place is known and the record
    cannot be read.
    """
    place = log.write(b"one", labels={0: ("a",)})
    search = Search(Finder(), Wanted(("a",), ()))

    async def take() -> list[Snapshot]:
        return [log.view()]

    assert await read(LocalScan(take, handoff(), search=search)) == log.records
    failure = OSError(EIO, "Input/output error")
    log.disk.fail("read", failure)
    with pytest.raises(StoreUnavailableError, match="Input/output error") as caught:
        await read(LocalScan(take, handoff(), search=search))
    assert (caught.value.path, caught.value.__cause__) == (str(place.path), failure)
    assert files_open_in(tmp_path) == []


# files are closed


async def test_file_is_closed_at_the_end(several: Log, tmp_path: Path) -> None:
    """At any time a scan has at most one file open, and at its end none."""
    scan = several.scan()
    async for _ in scan:
        assert len(files_open_in(tmp_path)) <= 1
    assert files_open_in(tmp_path) == []
    with pytest.raises(StopAsyncIteration):
        await anext(scan)


async def test_get_closes_its_file(several: Log, tmp_path: Path) -> None:
    """`get` leaves no file open, found or damaged."""
    await get(several.view(3))
    assert files_open_in(tmp_path) == []
    flip(several.places[0].path, several.places[0].offset)
    with pytest.raises(CorruptionError):
        await get(several.view(0))
    assert files_open_in(tmp_path) == []


@pytest_asyncio.fixture
async def begun(log: Log, monkeypatch: pytest.MonkeyPatch) -> LocalScan:
    """A scan that has given one record of ten and has its file open."""
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", 100)
    for number in range(10):
        log.write(b"%d" % number * 50)
    scan = log.scan()
    await anext(scan)
    return scan


async def test_scan_is_closed_early(begun: LocalScan, tmp_path: Path) -> None:
    """`aclose` closes the file at hand and ends the scan; the second time it does nothing."""
    assert len(files_open_in(tmp_path)) == 1
    await begun.aclose()
    assert files_open_in(tmp_path) == []
    await begun.aclose()
    assert await read(begun) == []


async def test_scan_is_closed_before_it_begins(log: Log) -> None:
    """A scan that is closed before its first step opens nothing."""
    log.write(b"one")
    scan = log.scan()
    await scan.aclose()
    assert await read(scan) == []
    assert log.disk.count("open_stream") == 0


async def test_scan_is_left_with_break(begun: LocalScan, tmp_path: Path) -> None:
    """Leaving a loop early within `async with` closes the file."""
    async with begun as scan:
        async for _ in scan:
            break
    assert files_open_in(tmp_path) == []


async def test_error_in_the_loop(begun: LocalScan, tmp_path: Path) -> None:
    """An exception in the user's own loop within `async with` closes the file and goes on."""

    async def fail() -> None:
        async with begun as scan:
            async for record in scan:
                record.sequence // 0

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert files_open_in(tmp_path) == []


async def test_file_is_closed_after_damage(log: Log, tmp_path: Path) -> None:
    """A scan that ends with an error has closed its file, and gives nothing more."""
    place = log.write(b"one")
    flip(place.path, place.offset)
    scan = log.scan()
    with pytest.raises(CorruptionError):
        await anext(scan)
    assert files_open_in(tmp_path) == []
    assert await read(scan) == []


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[ThreadPoolExecutor]:
    """The loop's pool, with a single thread: what is given to it later is done later."""
    with ThreadPoolExecutor(1) as executor:
        asyncio.get_running_loop().set_default_executor(executor)
        yield executor


CANCELLATIONS: list[Any] = [
    pytest.param(lambda task, scope: task.cancel(), id="once"),
    pytest.param(
        lambda task, scope: [task.cancel(), asyncio.get_running_loop().call_soon(task.cancel)],
        id="twice",
    ),
    pytest.param(lambda task, scope: scope.cancel(), id="scope"),
]
"""A task can be cancelled again while it clears up; a cancel scope of anyio cancels every await
that follows.
"""


@pytest.mark.parametrize("cancel", CANCELLATIONS)
@pytest.mark.parametrize("call", ["open_stream", "read_stream"])
async def test_scan_is_cancelled_during_a_call(
    log: Log,
    tmp_path: Path,
    pool: ThreadPoolExecutor,
    call: str,
    cancel: Callable[[asyncio.Task[None], anyio.CancelScope], object],
) -> None:
    """Cancelled while a thread opens or reads: the caller leaves, and when the call has ended the
    file is closed.
    """
    log.write(b"one")
    reached = asyncio.Event()
    tell = partial(asyncio.get_running_loop().call_soon_threadsafe, reached.set)
    log.disk.before(call, tell)
    hold = log.disk.hold(call)
    scan, scope = log.scan(), anyio.CancelScope()

    async def step() -> None:
        with scope:
            await anext(scan)

    task = asyncio.create_task(step())
    await reached.wait()
    cancel(task, scope)
    for _ in range(5):
        await asyncio.sleep(0)
    hold.released.set()
    await asyncio.wait([task])
    await asyncio.get_running_loop().run_in_executor(pool, int)
    for _ in range(5):
        await asyncio.sleep(0)
    assert files_open_in(tmp_path) == []
    assert await read(scan) == []


async def test_get_is_cancelled(log: Log, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """A cancelled `get` leaves no file open."""
    log.write(b"one")
    blocker = threading.Event()
    pool.submit(blocker.wait)
    task = asyncio.create_task(get(log.view()))
    await asyncio.sleep(0)
    task.cancel()
    blocker.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.get_running_loop().run_in_executor(pool, int)
    assert files_open_in(tmp_path) == []


async def test_many_scans_at_once(
    several: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scans do not disturb each other."""
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", 100)
    for records in await asyncio.gather(*(read(several.scan()) for _ in range(20))):
        assert records == several.records
    assert files_open_in(tmp_path) == []


async def _collect(scan: LocalScan, given: list[Record]) -> None:
    """As `read`, but what came before an error is kept."""
    async for record in scan:
        given.append(record)  # noqa: PERF401 - a comprehension would lose them


def _reseal(log: Log, place: Place, **changes: int) -> None:
    """Write a frame anew with other fields in its header and with checksums that fit, as a strange
    writer would.
    """
    header = Struct("<4sIIIQQQIII")
    names = [
        "magic",
        "flags",
        "records",
        "body_size",
        "first_sequence",
        "time",
        "watermark",
        "link",
        "body_check",
        "check",
    ]
    with place.path.open("rb") as file:
        file.seek(place.offset)
        fields: dict[str, Any] = dict(
            zip(names, header.unpack(file.read(header.size)), strict=True)
        )
    head = header.pack(*(fields | changes).values())[:-4]
    overwrite(
        place.path,
        place.offset,
        head + extend(log.journal._files.active.seed, head).to_bytes(4, "little"),
    )
