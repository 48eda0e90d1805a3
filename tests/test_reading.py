"""reading: which records a scan gives, by sequence, time and relation, in both directions, also
while a purge goes on.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aquipu import (
    CorruptionError,
    Record,
    RecordNotWrittenError,
    RecordPurgedError,
    StoreUnavailableError,
)
from aquipu.engine import Commit
from aquipu.local.format.segment import INDEX_STRIDE, SEGMENT_HEADER_BYTES
from aquipu.local.index.finder import Finder
from aquipu.local.index.table import build
from aquipu.local.log import LocalReader
from aquipu.local.read.follow import Followed
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.reading import Face, LogReader, Readable, Scan
from aquipu.record import nanoseconds
from aquipu.runtime.handoff import Handoff
from tests.disk import FailingDisk
from tests.support import flip, open_log

pytestmark = pytest.mark.asyncio

Labels = tuple[str, ...]


class Log(Readable):
    """A log that is written commit by commit and read as a store is, and whose purges are made by
    hand.
    """

    def __init__(self, path: Path) -> None:
        self.disk = FailingDisk()
        self.journal, _ = open_log(path, self.disk)
        self.records: list[Record] = []
        self.first_sequence = 0
        self.due: list[SegmentRef] = []
        self._path = str(path)
        self.handoff = Handoff(asyncio.get_running_loop())
        self.finder = Finder(self.due.append)

    def write(self, *records: tuple[int, Labels], data: bytes = b"data") -> None:
        """One commit of records with these times and labels."""
        commit: Commit[Any] = Commit()
        first = self.journal.next_sequence
        for index, (time, labels) in enumerate(records):
            commit.payloads.append(b"%d " % (first + index) + data)
            commit.timestamps.append(time)
            if labels:
                commit.labels[index] = labels
            self.records.append(Record(first + index, time, commit.payloads[-1], labels))
        self.journal.write(self.journal.prepare(commit))

    def roll(self) -> None:
        """Seal the segment and begin the next one."""
        assert self.journal.roll()

    def cut(self, kept_from: int) -> None:
        """Let the log begin with this segment, as a purge does, and leave the files as they are."""
        self.first_sequence = kept_from
        self.journal._files.segments = tuple(
            at for at in self.journal.segments if at.first_sequence >= kept_from
        )

    def purge(self, kept_from: int) -> None:
        """As `cut`, and remove the files before it, up to the first one that is held."""
        gone = [
            segment.path for segment in self.journal.segments if segment.first_sequence < kept_from
        ]
        self.cut(kept_from)
        for path in gone:
            if not self.disk.try_remove(path):
                break

    def segments(self) -> tuple[SegmentRef, ...]:
        return self.journal.segments

    @property
    def next_sequence(self) -> int:
        return self.journal.next_sequence

    def _check_readable(self) -> None:
        pass

    @property
    def _reader(self) -> LogReader:
        return LocalReader(self, Face(self._check_owner, self._check_readable))

    @property
    def synced_sequence(self) -> int:
        return self.journal.synced_sequence

    async def snapshot(self) -> Snapshot:
        return Snapshot(self.disk, self.journal.segments, self.first_sequence, self.next_sequence)

    def followed(self, face: Face) -> Followed:
        raise NotImplementedError

    async def secure(self, sequence: int) -> None:
        raise NotImplementedError

    async def check_survived(self, generation: bytes, sequence: int) -> None:
        raise NotImplementedError


@pytest_asyncio.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    """An empty log; at the end no file is left open but that which is being written."""
    log = Log(tmp_path)
    yield log
    log.journal.drop()
    assert open_in(tmp_path) == []


@pytest.fixture
def three(log: Log) -> Log:
    """Three segments, of five commits with two records each; a label on each, and one on each
    fifth.
    """
    for number in range(15):
        if number in (5, 10):
            log.roll()
        log.write(
            *(
                (100 * number + n, ("all", "fifth") if (2 * number + n) % 5 == 0 else ("all",))
                for n in (0, 1)
            )
        )
    return log


@pytest.fixture
def hundred(log: Log) -> Log:
    """A hundred segments of ten commits."""
    for number in range(1000):
        if number and number % 10 == 0:
            log.roll()
        log.write((1000 + number, ("even",) if number % 2 == 0 else ()))
    return log


async def read(scan: Scan) -> list[Record]:
    return [record async for record in scan]


def open_in(path: Path) -> list[str]:
    """The names of the files under this path that are open for reading only."""
    names = []
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
            flags = int(Path(f"/proc/self/fdinfo/{entry}").read_text().split()[3], 8)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
        is_file = not flags & os.O_DIRECTORY  # the store holds its directory all along
        if is_file and target.startswith(str(path)) and flags & os.O_ACCMODE == os.O_RDONLY:
            names.append(target.rpartition("/")[2])
    return names


def segments_opened(log: Log) -> set[str]:
    """The segments that were opened since the calls were forgotten."""
    return {
        call.path
        for call in log.disk.calls
        if call.method in ("open", "open_stream") and ".segment" in call.path
    }


def zero(path: Path, start: int, end: int) -> None:
    """Write zeros over a part of a file."""
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(end - start))


def carries(record: Record, every: Iterable[str], any_of: Iterable[str] | None) -> bool:
    return set(every) <= set(record.relations) and (
        any_of is None or bool(set(any_of) & set(record.relations))
    )


# against a list


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.proof) for seed in range(4, 24))]
)
async def test_any_combination(log: Log, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan gives just the records that a filter over the whole log gives, in the order that was
    asked for.
    """
    pick = random.Random(seed)
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", pick.choice([1, 100, 5000, 300_000]))
    labels, time = ["a", "b", "c", "user:7", "ä"], 0
    for _ in range(pick.randrange(10, 60)):
        times = [time := time + pick.choice([0, 0, 1, 5]) for _ in range(pick.randrange(1, 5))]
        given = [tuple(pick.sample(labels, pick.choice([0, 0, 1, 2, 3]))) for _ in times]
        log.write(*zip(times, given, strict=True), data=bytes(pick.choice([1, 10, 3000, 30_000])))
        if pick.random() < 0.1:
            log.journal.mark()
        if pick.random() < 0.15:
            log.roll()
    for segment in log.segments()[:-1]:
        if pick.random() < 0.5:
            build(log.disk, segment)

    def bounds(values: range) -> tuple[int | None, int | None]:
        low, high = sorted(pick.choices(values, k=2))
        return pick.choice([None, low]), pick.choice([None, high])

    for _ in range(60):
        start, stop = bounds(range(len(log.records) + 2))
        since, until = bounds(range(-2, time + 3))
        every = pick.choice([None, None, *labels, ("a", "b"), ["c"], ("a", "never")])
        any_of = pick.choice([None, None, ("b", "c"), ["never"], ("never", "user:7")])
        reverse = pick.random() < 0.5
        names = (every,) if isinstance(every, str) else every or ()
        expected = [
            record
            for record in log.records[start:stop]
            if (since is None or record.timestamp >= since)
            and (until is None or record.timestamp < until)
            and carries(record, names, any_of)
        ]
        if reverse:
            expected.reverse()
        scan = log.scan(
            start, stop, since=since, until=until, relation=every, any_of=any_of, reverse=reverse
        )
        assert await read(scan) == expected
    for prefix in ("", "a", "user", "x"):
        carried = [
            label
            for record in log.records
            for label in record.relations
            if label.startswith(prefix)
        ]
        counted = await log.relations(prefix)
        assert counted == {label: carried.count(label) for label in carried}
        assert list(counted) == sorted(counted)


# by time


async def test_every_time(three: Log) -> None:
    """`since` is the first time that is given and `until` the first that is not, wherever commits
    and segments begin.
    """
    times = [record.timestamp for record in three.records]
    for time in sorted({time + step for time in times for step in (-1, 0, 1)}):
        assert await read(three.scan(since=time)) == [
            record for record in three.records if record.timestamp >= time
        ]
        assert await read(three.scan(until=time)) == [
            record for record in three.records if record.timestamp < time
        ]


async def test_many_records_of_the_same_time(log: Log) -> None:
    """Records of one time over several segments are all before it or all behind it."""
    for time in (1, 7, 7, 7, 7, 9):
        log.write((time, ()), (time, ()))
        log.roll()
    assert await read(log.scan(since=7)) == log.records[2:]
    assert await read(log.scan(since=8)) == log.records[10:]
    assert await read(log.scan(until=7)) == log.records[:2]
    assert await read(log.scan(since=7, until=8)) == log.records[2:10]


async def test_the_clock_went_back_after_the_store_was_made(log: Log) -> None:
    """What the first segment says of its creation is no bound: a log may have been made by a clock
    that was wrong.
    """
    assert log.segments()[0].header.created > 10
    log.write((10, ()))
    assert await read(log.scan(since=10)) == log.records
    assert await read(log.scan(until=11)) == log.records
    assert await read(log.scan(since=11)) == []


async def test_moments_as_datetime(log: Log) -> None:
    """An aware datetime of any zone is the same as its nanoseconds, to the last microsecond."""
    moment = datetime(2026, 3, 1, 12, 30, 15, 123457, tzinfo=UTC)
    time = 1_772_368_215_123_457_000
    assert nanoseconds(moment) == time
    log.write((time - 1, ()), (time, ()))
    for zone in (UTC, timezone(timedelta(hours=5, minutes=45))):
        assert await read(log.scan(since=moment.astimezone(zone))) == log.records[1:]
        assert await read(log.scan(until=moment.astimezone(zone))) == log.records[:1]


@pytest.mark.parametrize("name", ["since", "until"])
async def test_a_moment_without_a_zone(log: Log, name: str) -> None:
    """A naive datetime is refused at once: which moment it means depends on who reads it."""
    with pytest.raises(ValueError, match="time zone"):
        log.scan(**{name: datetime(2026, 3, 1)})  # type: ignore[arg-type]


@pytest.mark.parametrize("time", ["2026-03-01", 1.5, True, timedelta(1)])
async def test_what_is_no_time(log: Log, time: Any) -> None:
    """What is neither a datetime nor whole nanoseconds is a TypeError at once."""
    for bounds in ({"since": time}, {"until": time}):
        with pytest.raises(TypeError, match="a time is"):
            log.scan(**bounds)


async def test_since_after_until(three: Log) -> None:
    """A range of times that ends before it begins fails at once; an empty one has nothing."""
    with pytest.raises(ValueError, match="not after its until"):
        three.scan(since=8, until=7)
    assert await read(three.scan(since=100, until=100)) == []


async def test_start_after_stop(three: Log) -> None:
    """A range of sequences that ends before it begins is refused at once, in both directions."""
    for reverse in (False, True):
        with pytest.raises(ValueError, match="not after its stop"):
            three.scan(8, 7, reverse=reverse)


@pytest.mark.parametrize("sequence", [True, 1.0, "1", -1])
async def test_what_is_no_sequence(log: Log, sequence: Any) -> None:
    """What is no whole number from 0 on is refused at once."""
    kind = ValueError if sequence == -1 else TypeError
    for call in (log.scan, lambda stop: log.scan(None, stop)):
        with pytest.raises(kind, match="a sequence"):
            call(sequence)
    with pytest.raises(
        ValueError if sequence == "1" else kind, match="sequence"
    ):  # text: a position
        log.follow(sequence)
    with pytest.raises(kind, match="a sequence"):
        await log.get(sequence)


async def test_scan_by_time_opens_what_it_must(hundred: Log) -> None:
    """Of a hundred segments only those are opened in which the asked times lie."""
    hundred.disk.calls.clear()
    assert await read(hundred.scan(since=1503, until=1527)) == hundred.records[503:527]
    assert segments_opened(hundred) == {segment.path for segment in hundred.segments()[50:53]}


async def test_scan_by_time_beyond_the_log(hundred: Log) -> None:
    """Times before and behind all records give all of them, or none."""
    assert await read(hundred.scan(since=0, until=10**19)) == hundred.records
    assert await read(hundred.scan(since=2000)) == []
    assert await read(hundred.scan(until=1000)) == []
    assert await read(hundred.scan(until=1000, reverse=True)) == []


async def test_view_by_time_is_taken_at_the_first_step(log: Log) -> None:
    """A scan by time is a view as of its first step, as any other."""
    log.write((1, ()))
    scan = log.scan(since=1)
    log.write((2, ()))
    assert await anext(scan) == log.records[0]
    log.write((3, ()))
    assert await read(scan) == log.records[1:2]


async def test_damage_at_the_asked_time(three: Log) -> None:
    """A frame that does not check where a time is sought: CorruptionError with file and offset."""
    segment = three.segments()[1]
    flip(Path(segment.path), SEGMENT_HEADER_BYTES + 60)
    with pytest.raises(CorruptionError) as caught:
        await read(three.scan(since=700))
    assert (caught.value.path, caught.value.offset) == (segment.path, SEGMENT_HEADER_BYTES)


# in reverse


@pytest.mark.parametrize("chunk", [1, 100, 300_000])
async def test_reverse_of_every_range(
    three: Log, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In reverse a scan gives what it gives forward, the newest first."""
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", chunk)
    for start in range(0, 31, 3):
        for stop in range(start, 31, 2):
            assert (
                await read(three.scan(start, stop, reverse=True)) == three.records[start:stop][::-1]
            )


@pytest.mark.parametrize("sealed", [False, True])
async def test_reverse_over_many_strides(log: Log, sealed: bool) -> None:
    """Strides of the index, frames that are larger than several of them, and marks between: all are
    given once.
    """
    for number in range(120):
        log.write(
            (number, ()), (number, ()), data=bytes(5 * INDEX_STRIDE if number % 50 == 20 else 7000)
        )
        if number % 10 == 3:
            log.journal.mark()
    if sealed:
        log.roll()
    assert await read(log.scan(reverse=True)) == log.records[::-1]
    assert await read(log.scan(41, 43, reverse=True)) == log.records[41:43][::-1]


async def test_the_last_records_are_read_from_the_last_stride(log: Log) -> None:
    """For the last few records, nothing is read that stands before the stride in which they are."""
    for number in range(60):
        log.write((number, ()), data=bytes(7000))
    index = log.journal._files.active.contents.index
    zero(Path(log.segments()[0].path), SEGMENT_HEADER_BYTES, index.offsets[-1])
    last = log.records[index.sequences[-1] :]
    async with log.scan(reverse=True) as scan:
        assert [await anext(scan) for _ in last] == last[::-1]


async def test_the_last_records_of_many_segments(hundred: Log) -> None:
    """The last records open the last segment, and the oldest one, which they hold."""
    hundred.disk.calls.clear()
    async with hundred.scan(reverse=True) as scan:
        assert [await anext(scan) for _ in range(10)] == hundred.records[-1:-11:-1]
    assert segments_opened(hundred) == {hundred.segments()[0].path, hundred.segments()[-1].path}


async def test_damage_in_reverse(three: Log) -> None:
    """What is newer than a damaged stride is given, then CorruptionError says where it is."""
    segment = three.segments()[1]
    flip(Path(segment.path), SEGMENT_HEADER_BYTES + 60)
    given: list[Record] = []
    with pytest.raises(CorruptionError) as caught:
        await collect(three.scan(reverse=True), given)
    assert given == three.records[20:][::-1]
    assert (caught.value.path, caught.value.offset) == (segment.path, SEGMENT_HEADER_BYTES)


async def test_view_in_reverse_is_taken_at_the_first_step(log: Log) -> None:
    """What is appended after the first step does not come to the front."""
    log.write((1, ()))
    scan = log.scan(reverse=True)
    log.write((2, ()))
    assert await anext(scan) == log.records[1]
    log.write((3, ()))
    assert await read(scan) == log.records[:1]


# by relation


@pytest.mark.parametrize(
    "arguments", [{"relation": b"all"}, {"relation": 7}, {"any_of": "all"}, {"relation": ("a", 7)}]
)
async def test_what_is_no_label(log: Log, arguments: dict[str, Any]) -> None:
    """A label is text, and `any_of` takes several: anything else is a TypeError at once."""
    with pytest.raises(TypeError):
        log.scan(**arguments)


@pytest.mark.parametrize("label", ["", "a\nb", "x" * 1025])
async def test_a_label_that_no_record_can_carry(log: Log, label: str) -> None:
    """What `append` refuses as a label, a scan refuses too, instead of finding nothing."""
    for arguments in ({"relation": label}, {"relation": ("a", label)}, {"any_of": [label]}):
        with pytest.raises(ValueError, match="a label"):
            log.scan(**arguments)


@pytest.mark.parametrize("name", ["relation", "any_of"])
async def test_no_label_at_all(log: Log, name: str) -> None:
    """An empty collection of labels is refused: it could mean every record, or none."""
    with pytest.raises(ValueError, match="at least one"):
        log.scan(**{name: ()})  # type: ignore[arg-type]


async def test_prefix_that_is_no_text(log: Log) -> None:
    """The beginning of labels is text."""
    with pytest.raises(TypeError, match="prefix"):
        await log.relations(b"user")  # type: ignore[arg-type]


async def test_relations_of_what_is_kept(three: Log) -> None:
    """Labels are counted in what may be seen: not in what was purged."""
    assert await three.relations() == {"all": 30, "fifth": 6}
    three.purge(20)
    assert await three.relations() == {"all": 10, "fifth": 2}


async def test_view_by_relation_is_taken_at_the_first_step(three: Log) -> None:
    """Records that come after the first step are not found, though the index knows them."""
    scan = three.scan(relation="fifth")
    found = [await anext(scan)]
    three.write((10_000, ("fifth",)))
    assert len(await read(three.scan(relation="fifth"))) == 7
    assert [*found, *await read(scan)] == [
        record for record in three.records[:30] if "fifth" in record.relations
    ]


async def test_segment_is_sealed_under_a_scan_by_relation(three: Log) -> None:
    """A scan goes on when the segment that was growing is sealed and has its table."""
    scan = three.scan(relation="fifth")
    found = [await anext(scan)]
    three.roll()
    build(three.disk, three.segments()[2])
    assert [*found, *await read(scan)] == [
        record for record in three.records if "fifth" in record.relations
    ]


async def test_a_find_opens_no_segment_without_a_hit(hundred: Log) -> None:
    """With tables, a segment in which nothing is found is not read."""
    hundred.write((5000, ("once",)))
    for segment in hundred.segments()[:-1]:
        build(hundred.disk, segment)
    for record_count in (1, 1):  # the second time the tables are at hand
        hundred.disk.calls.clear()
        assert len(await read(hundred.scan(relation="once"))) == record_count
        read_from = {
            call.path
            for call in hundred.disk.calls
            if call.method == "read" and ".segment" in call.path
        }
        assert read_from <= {hundred.segments()[-1].path}


# purges


MODES: list[Any] = [
    pytest.param({}, id="forward"),
    pytest.param({"relation": "all"}, id="by relation"),
    pytest.param({"since": 0}, id="by time"),
]


@pytest.mark.parametrize("mode", MODES)
async def test_purge_under_a_scan(
    three: Log, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A purge leaves the segment that a scan is in and all behind it; those that it has left may
    go.
    """
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", 100)
    scan = three.scan(**mode)
    paths = [segment.path for segment in three.segments()]
    given = [await anext(scan)]
    three.purge(20)
    assert all(map(three.disk.exists, paths))
    given += [await anext(scan) for _ in range(10)]
    assert three.disk.try_remove(paths[0])
    assert not three.disk.try_remove(paths[1])
    assert given + await read(scan) == three.records


@pytest.mark.parametrize("mode", MODES)
async def test_purge_under_a_scan_in_reverse(three: Log, mode: dict[str, Any]) -> None:
    """In reverse a scan holds the oldest segment that it will come to, and so all of them."""
    scan = three.scan(**mode, reverse=True)
    paths = [segment.path for segment in three.segments()]
    given = [await anext(scan)]
    three.purge(20)
    assert all(map(three.disk.exists, paths))
    assert given + await read(scan) == three.records[::-1]
    assert three.disk.try_remove(paths[0])


async def test_purge_of_what_a_scan_in_reverse_does_not_want(three: Log) -> None:
    """Segments before the start of a scan in reverse are not held."""
    paths = [segment.path for segment in three.segments()]
    async with three.scan(10, reverse=True) as scan:
        await anext(scan)
        assert three.disk.try_remove(paths[0])
        assert not three.disk.try_remove(paths[1])


class Purging(Log):
    """A log that is purged just after somebody has taken his view of it."""

    kept_from = 0

    async def snapshot(self) -> Snapshot:
        seen = await super().snapshot()
        kept_from, self.kept_from = self.kept_from, 0
        if kept_from:
            self.purge(kept_from)
        return seen


@pytest_asyncio.fixture
async def raced(tmp_path: Path) -> AsyncIterator[Purging]:
    """Three segments of four records; the first two are purged at the next look."""
    log = Purging(tmp_path)
    for number in range(12):
        if number in (4, 8):
            log.roll()
        log.write((number, ("all",)))
    log.kept_from = 8
    yield log
    log.journal.drop()
    assert open_in(tmp_path) == []


@pytest.mark.parametrize("mode", [*MODES, pytest.param({"reverse": True}, id="reverse")])
async def test_purge_before_the_first_step_is_done(raced: Purging, mode: dict[str, Any]) -> None:
    """A scan of all that is kept, which a purge has overtaken, begins with what is kept then."""
    found = await read(raced.scan(**mode))
    assert sorted(found) == raced.records[8:]


@pytest.mark.parametrize("mode", [*MODES, pytest.param({"reverse": True}, id="reverse")])
async def test_purge_of_the_start(raced: Purging, mode: dict[str, Any]) -> None:
    """A start that was purged is RecordPurgedError, also when the purge came in between."""
    with pytest.raises(RecordPurgedError) as caught:
        await read(raced.scan(2, **mode))
    assert (caught.value.path, caught.value.sequence, caught.value.bound) == (raced._path, 2, 8)


async def test_get_of_what_is_purged_meanwhile(raced: Purging) -> None:
    """`get` of a record that a purge took at that moment is RecordPurgedError."""
    with pytest.raises(RecordPurgedError) as caught:
        await raced.get(3)
    assert (caught.value.sequence, caught.value.bound) == (3, 8)
    with pytest.raises(RecordNotWrittenError):
        await raced.get(12)


async def test_relations_of_what_is_purged_meanwhile(raced: Purging) -> None:
    """Counting begins anew when a purge took what was to be counted."""
    assert await raced.relations() == {"all": 4}


@pytest.mark.parametrize("mode", MODES)
async def test_segment_is_gone_when_a_scan_comes_to_it(three: Log, mode: dict[str, Any]) -> None:
    """Where a purge heeds no holds, on another machine, the scan ends with RecordPurgedError where
    it stood.
    """
    scan = three.scan(**mode)
    given = [await anext(scan) for _ in range(10)]
    for segment in three.segments()[:2]:
        os.unlink(segment.path)
    three.cut(20)
    with pytest.raises(RecordPurgedError) as caught:
        await anext(scan)
    assert given == three.records[:10]
    assert (caught.value.path, caught.value.sequence, caught.value.bound) == (three._path, 10, 20)
    assert await read(scan) == []


@pytest.mark.parametrize("mode", [*MODES, pytest.param({"reverse": True}, id="reverse")])
async def test_segment_that_is_missing(three: Log, mode: dict[str, Any]) -> None:
    """A segment that is gone though nothing was purged is StoreUnavailableError."""
    path = three.segments()[0].path
    os.unlink(path)
    with pytest.raises(StoreUnavailableError) as caught:
        await read(three.scan(**mode))
    assert caught.value.path == path
    with pytest.raises(StoreUnavailableError):
        await three.get(0)


async def test_segment_that_is_being_removed(three: Log) -> None:
    """A file that a purge holds to remove it is as good as gone."""
    path = three.segments()[0].path
    descriptor = three.disk.open(path)
    assert three.disk.try_hold(descriptor, exclusive=True)
    with pytest.raises(StoreUnavailableError):
        await read(three.scan())
    three.cut(10)
    assert await read(three.scan()) == three.records[10:]
    three.disk.close(descriptor)


async def test_segment_that_was_removed_after_it_was_opened(
    three: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To hold a file that has lost its name holds nothing: such a scan begins anew with what is
    kept.
    """
    try_hold = three.disk.try_hold

    def hold_late(descriptor: int, *, exclusive: bool = False) -> bool:
        if not exclusive and three.first_sequence == 0:
            three.purge(10)
        return try_hold(descriptor, exclusive=exclusive)

    monkeypatch.setattr(three.disk, "try_hold", hold_late)
    assert await read(three.scan()) == three.records[10:]


# files are closed


@pytest.mark.parametrize(
    "mode", [{"reverse": True}, {"relation": "all"}, {"relation": "all", "reverse": True}]
)
async def test_files_are_closed(
    three: Log, tmp_path: Path, mode: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan has at most two files open, and none when it is closed early, at its end, or after an
    error.
    """
    monkeypatch.setattr("aquipu.local.read.scan.CHUNK_BYTES", 100)
    async with three.scan(**mode) as scan:
        await anext(scan)
        assert 1 <= len(open_in(tmp_path)) <= 2
    assert open_in(tmp_path) == []
    async for _ in three.scan(**mode):
        assert len(open_in(tmp_path)) <= 2
    assert open_in(tmp_path) == []
    flip(Path(three.segments()[1].path), SEGMENT_HEADER_BYTES + 60)
    with pytest.raises(CorruptionError):
        await read(three.scan(**mode))
    assert open_in(tmp_path) == []


def cancel_once(task: asyncio.Task[Any]) -> None:
    task.cancel()


def cancel_twice(task: asyncio.Task[Any]) -> None:
    task.cancel()
    asyncio.get_running_loop().call_soon(task.cancel)


@pytest.mark.parametrize("cancel", [cancel_once, cancel_twice])
@pytest.mark.parametrize("nth", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", [{"reverse": True}, {"relation": "all"}, {"since": 700}])
async def test_step_is_cancelled(
    three: Log,
    tmp_path: Path,
    mode: dict[str, Any],
    nth: int,
    cancel: Callable[[asyncio.Task[Any]], None],
) -> None:
    """Cancelled while a thread is at its files: the caller leaves, and when the call has ended they
    are closed.
    """
    hold = three.disk.hold("read", nth=nth)
    scan = three.scan(**mode)
    task = asyncio.ensure_future(read(scan))
    reached = asyncio.ensure_future(asyncio.to_thread(hold.reached.wait))
    await asyncio.wait([task, reached], return_when=asyncio.FIRST_COMPLETED)
    cancel(task)
    for _ in range(5):
        await asyncio.sleep(0)
    three.disk.mend()
    hold.released.set()
    hold.reached.set()
    await asyncio.wait([task, reached])
    await asyncio.get_running_loop().shutdown_default_executor()
    for _ in range(5):
        await asyncio.sleep(0)
    assert open_in(tmp_path) == []


async def collect(scan: Scan, given: list[Record]) -> None:
    """What came before an error is kept."""
    async for record in scan:
        given.append(record)  # noqa: PERF401 - a comprehension would lose them
