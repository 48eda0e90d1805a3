"""finding: labels are found from the tables, or from the segments themselves where a table is
missing, damaged or wrong.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from errno import EIO
from itertools import count
from pathlib import Path

import pytest

from aquipu import CorruptionError, StoreClosedError, StoreUnavailableError
from aquipu.local.compress.segment import compress
from aquipu.local.disk.durable import write_whole
from aquipu.local.format.postings import TRAILER_BYTES, BlockIndex, block_index_at, encode_blocks
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES
from aquipu.local.index import finder as room
from aquipu.local.index.finder import Finder
from aquipu.local.index.meter import Pause
from aquipu.local.index.search import Search
from aquipu.local.index.table import build, table_path
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.write.journal import Journal
from aquipu.options import Wanted
from tests.disk import FailingDisk
from tests.support import (
    commit,
    flip,
    open_log,
    searched,
)

Labels = tuple[str, ...]


class Log:
    """A log with labels, and somebody who finds in it."""

    def __init__(self, path: Path) -> None:
        self.disk = FailingDisk()
        self.journal: Journal = open_log(path, self.disk)[0]
        self.carried: list[Labels] = []
        self.due: list[SegmentRef] = []
        self.finder = Finder(self.due.append)

    def write(self, *labels: Labels) -> None:
        """One commit of records with these labels."""
        given = {index: of_record for index, of_record in enumerate(labels) if of_record}
        self.journal.write(self.journal.prepare(commit(*[b"data"] * len(labels), labels=given)))
        self.carried += labels

    def roll(self) -> None:
        """Seal the segment and begin the next one."""
        assert self.journal.roll()

    def build(self) -> None:
        """The tables of all sealed segments."""
        for segment in self.segments[:-1]:
            build(self.disk, segment)

    @property
    def segments(self) -> tuple[SegmentRef, ...]:
        return self.journal.segments

    def view(self) -> Snapshot:
        return Snapshot(self.disk, self.segments, 0, self.journal.next_sequence)

    def find(self, *every: str, any_of: Labels = (), view: Snapshot | None = None) -> list[int]:
        """The sequences of the records that carry these labels."""
        view = view or self.view()
        found = []
        for segment in view.segments:
            positions = self.finder.positions(view, segment, Wanted(every, any_of))
            found += [segment.first_sequence + position for position in positions]
        return [sequence for sequence in found if sequence < view.stop]

    def carrying(self, label: str) -> list[int]:
        """What `find` should find."""
        return [sequence for sequence, labels in enumerate(self.carried) if label in labels]

    def counts(self, prefix: str = "") -> dict[str, int]:
        return self.finder.counts(self.view(), prefix)

    def counted(self) -> dict[str, int]:
        """What `counts` should count."""
        every = sorted({label for labels in self.carried for label in labels})
        return {label: len(self.carrying(label)) for label in every}

    def table(self, n: int) -> Path:
        return Path(table_path(self.segments[n]))

    def reads(self, n: int) -> int:
        """How often a segment was read."""
        return sum(
            call.method == "open" and call.path == self.segments[n].path for call in self.disk.calls
        )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    """Two sealed segments without tables, and one that is being written."""
    log = Log(tmp_path)
    log.write(("a", "b"), (), ("a",))
    log.write(("c",))
    log.roll()
    log.write(("b", "c"), ("a", "b", "b"))
    log.roll()
    log.write(("a",), ("d", "b"))
    yield log
    log.journal.drop()
    assert log.disk.open_files == {}


# which records


def test_every_and_any(log: Log) -> None:
    """A record is found that carries all of the labels, and one of those of which any will do."""
    log.build()
    assert log.find("a") == [0, 2, 5, 6]
    assert log.find("a", "b") == [0, 5]
    assert log.find(any_of=("c", "d")) == [3, 4, 7]
    assert log.find("b", any_of=("c", "d")) == [4, 7]
    assert log.find("a", "never") == log.find(any_of=("never",)) == []


@pytest.mark.parametrize("tables", [True, False])
def test_counts(log: Log, tables: bool) -> None:
    """Labels are counted over all segments, in order, with tables and without; a label given twice
    counts once.
    """
    if tables:
        log.build()
    assert log.counts() == log.counted() == {"a": 4, "b": 4, "c": 2, "d": 1}
    assert list(log.counts()) == ["a", "b", "c", "d"]
    assert log.counts("d") == {"d": 1}
    assert log.counts("e") == {}


def test_segments_outside_of_the_view(log: Log) -> None:
    """What may not be seen is not counted, and a segment of which nothing may be seen is not even
    read.
    """
    view = log.view()._replace(stop=log.segments[2].first_sequence)
    assert log.finder.counts(view, "") == {"a": 3, "b": 3, "c": 2}
    assert log.reads(2) == 0


# the tables


def test_tables_spare_the_segments(log: Log) -> None:
    """Where there is a table the segment is not read, and no table is due."""
    log.build()
    log.disk.calls.clear()
    assert log.find("a") == log.carrying("a")
    assert log.counts() == log.counted()
    assert (log.reads(0), log.reads(1), log.due) == (0, 0, [])


def test_table_is_opened_once(log: Log) -> None:
    """The end of a table stays in memory: a later question reads one block and nothing else."""
    log.build()
    log.find("a")
    log.disk.calls.clear()
    log.find("a")
    assert [call.name for call in log.disk.calls if call.method == "read"] == [
        log.table(0).name,
        log.table(1).name,
    ]


def test_tables_in_memory_are_bounded(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many tables stay open: the one that was asked longest ago is opened anew."""
    monkeypatch.setattr(room, "TABLES_MAX", 1)
    log.build()
    for _ in range(2):
        log.disk.calls.clear()
        assert log.find("a") == log.carrying("a")
        assert len(log.finder._tables) == 1


def test_table_is_missing(log: Log) -> None:
    """Without a table the segment itself is read, once, and its table is due."""
    for _ in range(2):
        log.due.clear()
        assert log.find("a") == log.carrying("a")
        assert log.due == list(log.segments[:2])
    assert log.reads(0) == 1
    assert log.counts() == log.counted()


def test_table_comes_later(log: Log) -> None:
    """When the table of a segment is there, its postings in memory are let go of."""
    log.find("a")
    log.build()
    log.disk.calls.clear()
    assert log.find("a") == log.carrying("a")
    assert log.reads(0) == 0
    assert set(log.finder._gathered) == {log.segments[2].first_sequence}


@pytest.mark.parametrize("opened", [False, True])
def test_any_damage_of_a_table(log: Log, opened: bool) -> None:
    """Whatever byte of a table is wrong, also of one that was opened before: the answer comes from
    the segment.
    """
    log.build()
    whole = log.table(0).read_bytes()
    block_index = BlockIndex.decode(
        whole[block_index_at(whole[-TRAILER_BYTES:], len(whole)) :], log.segments[0].header.seed
    )
    for offset in range(block_index.offsets[-1] if opened else len(whole)):
        log.finder = Finder(log.due.append)
        if opened:
            log.find("a")
        flip(log.table(0), offset)
        assert log.find("a") == log.carrying("a")
        assert log.counts() == log.counted()
        assert set(log.due) == {log.segments[0]}
        log.table(0).write_bytes(whole)
        log.due.clear()


def test_damaged_table_is_built_anew(log: Log) -> None:
    """A table that was found damaged after it had been opened is forgotten: the next one of its
    name is opened anew.
    """
    log.build()
    log.find("a")
    whole = log.table(0).read_bytes()
    flip(log.table(0), 0)
    assert log.find("a") == log.carrying("a")
    log.table(0).unlink()
    log.due.clear()
    assert log.find("a") == log.carrying("a")
    assert log.due == [log.segments[0]]
    log.table(0).write_bytes(whole)
    log.disk.calls.clear()
    assert log.find("a") == log.carrying("a")
    assert log.reads(0) == 0


def test_label_that_stands_nowhere(log: Log) -> None:
    """Where one of several labels has no record in a segment, the others are not looked up in its
    table.
    """
    log.build()
    log.find("a")

    def reads(*labels: str) -> int:
        log.disk.calls.clear()
        assert log.find(*labels) == []
        return log.disk.count("read")

    assert reads("a", "never") == reads("a", "never", "b") > 0


def test_table_cannot_be_read(log: Log) -> None:
    """An error of the disk at a table is as good as none: the segment is asked."""
    log.build()
    log.find("a")
    log.disk.fail("read", EIO, of=".relations", forever=True)
    assert log.counts() == log.counted()
    assert set(log.due) == set(log.segments[:2])
    assert log.find("a") == log.carrying("a")


def test_table_of_another_life(log: Log) -> None:
    """A table that was made of another segment, or of an earlier state of this one, is not
    believed.
    """
    log.build()
    segment, behind = log.segments[0], log.segments[1]
    for block_index in (
        BlockIndex(behind.first_sequence - 1, behind.header.link),
        BlockIndex(behind.first_sequence, behind.header.link ^ 1),
    ):
        write_whole(log.disk, table_path(segment), block_index.encode(segment.header.seed))
        assert log.find("a") == log.carrying("a")
        assert log.due == [segment]
        log.due.clear()


def forge(log: Log, n: int, postings: dict[str, list[int]]) -> None:
    """A table that checks and fits its segment, and says something else."""
    segment, behind = log.segments[n], log.segments[n + 1]
    block_index = BlockIndex(behind.first_sequence, behind.header.link)
    blocks = list(
        encode_blocks((label, array("I", at).tobytes()) for label, at in sorted(postings.items()))
    )
    for block in blocks:
        block_index.note(block, segment.header.seed)
    data = b"".join(block.data for block in blocks) + block_index.encode(segment.header.seed)
    write_whole(log.disk, table_path(segment), data)


def read(log: Log, n: int, wanted: Wanted) -> list[int]:
    """The sequences of the records that a search in a segment gives."""
    found = searched(Search(log.finder, wanted), log.view(), log.segments[n])
    return [record.sequence for record in found]


def test_table_says_what_is_not_so(log: Log) -> None:
    """A record is given only when it carries what was sought, whatever a table says; and the table
    is due.
    """
    forge(log, 0, {"a": [0, 1, 2, 3]})
    assert read(log, 0, Wanted(("a",), ())) == [0, 2]
    assert log.due == [log.segments[0]]
    log.due.clear()
    forge(log, 0, {"d": [2]})
    assert read(log, 0, Wanted(("d",), ())) == []
    assert log.due == [log.segments[0]]
    forge(log, 0, {"a": [1, 2]})
    assert read(log, 0, Wanted(("a",), ())) == [0, 2]


def test_table_says_more_records_than_there_are(log: Log) -> None:
    """A position behind the end of the segment is not looked for."""
    forge(log, 0, {"a": [0, 2, 4, 4_000_000_000]})
    assert read(log, 0, Wanted(("a",), ())) == [0, 2]


# the segments themselves


def test_growing_segment_is_caught_up(log: Log) -> None:
    """What was gathered stays: a later question reads only the frames that have come since, and
    costs nothing else.
    """
    log.find("a")
    flip(
        Path(log.segments[2].path), SEGMENT_HEADER_BYTES + 60
    )  # it was read before, and is not read again
    log.write(("a", "e"))
    assert log.find("a") == log.carrying("a")
    assert log.find("e") == [8]
    reads = log.reads(2)
    assert log.counts() == log.counted()
    assert log.reads(2) == reads


def test_the_first_search_gathers_nothing(log: Log) -> None:
    """It looks through the segment that is being written; from the second on each gathers a share,
    and knows what it has gathered.
    """
    view, wanted = log.view(), Wanted(("d",), ())
    growing = log.segments[2]
    first, second = (log.finder.candidates(view, growing, wanted) for _ in range(2))
    assert (list(first.positions), first.until) == ([], growing.first_sequence)
    assert (list(second.positions), second.until) == ([1], view.stop)


def test_commit_that_is_not_acknowledged(log: Log) -> None:
    """Of a growing segment nothing is read beyond what may be seen."""
    view = log.view()
    end = log.journal._files.active.contents.end
    log.write(("a",))
    flip(Path(log.segments[2].path), end + 60)
    assert log.find("a", view=view) == log.carrying("a")[:-1]
    with pytest.raises(CorruptionError) as caught:
        log.find("a")
    assert (caught.value.path, caught.value.offset) == (log.segments[2].path, end)


def test_growing_segment_is_sealed(log: Log) -> None:
    """Postings that were gathered while a segment grew serve on until it has its table."""
    view = log.view()
    log.find("a")
    log.write(("a",))
    log.roll()
    assert log.find("a") == log.carrying("a")
    log.build()
    log.disk.calls.clear()
    assert log.find("a") == log.carrying("a")
    assert log.reads(2) == 0
    assert log.find("a", view=view) == log.carrying("a")[:-1]


@pytest.mark.parametrize("seen", ["while it grew", "sealed"])
def test_growing_segment_is_sealed_and_compressed(log: Log, seen: str) -> None:
    """Its frames stand elsewhere then: what is asked is gathered anew, and each record is there
    once.
    """
    wanted = Wanted(("a",), ())
    for _ in range(2):
        log.finder.candidates(log.view(), log.segments[2], wanted)
    assert log.counts() == log.counted()
    for _ in range(20):
        log.write(("a", "e"), ())
    expected, counted, view = log.carrying("a"), log.counted(), log.view()
    found = searched(Search(Finder(), wanted), view, log.segments[2])
    assert len(found) == 21
    log.roll()
    assert compress(log.disk, log.segments[2], lambda: None) is not None
    view = view if seen == "while it grew" else log.view()
    for _ in range(2):
        assert searched(Search(log.finder, wanted), view, view.segments[2]) == found
    assert log.find("a", view=view) == expected
    assert log.finder.counts(view, "") == counted
    assert log.find("a") == expected


def test_segment_is_compressed_while_it_is_counted(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what was gathered of it and the rest: no record is counted twice, and none missed."""
    for _ in range(20):
        log.write(("a", "e"), ())
    counted, view = log.counted(), log.view()
    gathered = room._Gathered.counted

    def compressed(self: room._Gathered, prefix: str, pause: Pause) -> room._CountedUpTo:
        found = gathered(self, prefix, pause)
        assert 0 < self.postings.next_sequence < view.stop
        log.roll()
        assert compress(log.disk, log.segments[2], lambda: None) is not None
        return found

    monkeypatch.setattr(room, "_SHARE_BYTES_MIN", 1)
    monkeypatch.setattr(room._Gathered, "counted", compressed)
    assert log.finder.counts(view, "") == counted


def test_nobody_asks(log: Log) -> None:
    """Nothing is gathered before somebody asks."""
    assert not log.finder._gathered
    assert log.reads(2) == 0


def test_gatherings_are_bounded(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many segments have their postings in memory: then one that was asked longest ago is
    read again.
    """
    monkeypatch.setattr(room, "GATHERINGS_MAX", 1)
    for reads in (1, 2):
        assert log.find("a") == log.carrying("a")
        assert (log.reads(0), len(log.finder._gathered)) == (reads, 1)


def test_which_gathering_is_let_go_of(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one that was asked longest ago, not the one that was made first."""
    monkeypatch.setattr(room, "GATHERINGS_MAX", 2)
    for n in (0, 1, 0, 2, 0):
        log.finder.positions(log.view(), log.segments[n], Wanted(("a",), ()))
    assert [log.reads(n) for n in range(3)] == [1, 1, 1]
    assert list(log.finder._gathered) == [
        log.segments[2].first_sequence,
        log.segments[0].first_sequence,
    ]


def test_which_table_is_let_go_of(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is with tables."""
    monkeypatch.setattr(room, "TABLES_MAX", 2)
    log.roll()
    log.build()
    for n in (0, 1, 0, 2, 0):
        log.finder.positions(log.view(), log.segments[n], Wanted(("a",), ()))
    assert list(log.finder._tables) == [
        log.segments[2].first_sequence,
        log.segments[0].first_sequence,
    ]
    assert (
        log.disk.steps("open").count(("open", log.table(0).name)) == 4
    )  # opened once, and asked three times


def test_more_labels_than_memory(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment with more labels than may be in memory is read in several passes, and every label
    is found.
    """
    monkeypatch.setattr(room, "GATHERED_BYTES_MAX", 20_000)
    for number in range(20):
        log.write(*((f"label {50 * number + n}", "every") for n in range(50)))
    for label in ("a", "every", *(f"label {n}" for n in range(0, 1000, 97)), "never"):
        assert log.find(label) == log.carrying(label)
    log.write(("a", "label 3"))
    assert log.find("label 3") == log.carrying("label 3")
    assert log.counts() == log.counted()
    ceiling = log.finder._gathered[log.segments[2].first_sequence].postings.ceiling
    assert ceiling is not None  # the first label that the first pass has left out
    assert log.find(ceiling) == log.carrying(ceiling) != []


def test_segment_is_damaged(log: Log) -> None:
    """A segment without a table that does not check is CorruptionError with file and offset, each
    time.
    """
    flip(Path(log.segments[1].path), SEGMENT_HEADER_BYTES + 60)
    for ask in (lambda: log.find("a"), log.counts, lambda: log.find("a")):
        with pytest.raises(CorruptionError) as caught:
            ask()
        assert (caught.value.path, caught.value.offset) == (
            log.segments[1].path,
            SEGMENT_HEADER_BYTES,
        )


def test_reading_fails_once(log: Log) -> None:
    """After an error of the disk the next question begins anew, and finds each record once."""
    log.disk.fail("read", EIO, of=".segment")
    with pytest.raises(StoreUnavailableError) as caught:
        log.find("a")
    assert caught.value.path == log.segments[0].path
    assert log.find("a") == log.carrying("a")
    assert log.counts() == log.counted()


def test_reading_ends_anywhere(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the reading of a segment is broken off, within a frame too: later each record is
    found once.
    """
    monkeypatch.setattr("aquipu.local.index.meter.Meter.SLICE", 1)
    monkeypatch.setattr("aquipu.local.index.throttle.WORK_SECONDS", 0)
    for last in range(12):
        left = iter(range(last))

        def sleep(seconds: float, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise OSError(EIO, "broken off")

        log.finder = Finder()
        with monkeypatch.context() as patch:
            patch.setattr("aquipu.local.index.throttle.sleep", sleep)
            with suppress(StoreUnavailableError):
                log.find("b")
        assert log.find("b") == log.carrying("b")
        assert log.counts() == log.counted()


def test_segment_is_gone(log: Log) -> None:
    """A segment that is not there is StoreUnavailableError, because of a FileNotFoundError."""
    Path(log.segments[0].path).unlink()
    with pytest.raises(StoreUnavailableError) as caught:
        log.find("a")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert (caught.value.path, caught.value.action) == (log.segments[0].path, "read")


# threads


def test_many_ask_at_once(log: Log) -> None:
    """Questions from many threads do not disturb each other, with tables and without, while the log
    grows.
    """
    build(log.disk, log.segments[0])
    views = []
    for _ in range(20):
        log.write(("a", "b"))
        views.append(log.view())
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda view: (view.stop, log.find("a", view=view)), views[::-1]))
        assert list(pool.map(lambda _: log.counts(), range(8))) == [log.counted()] * 8
    for stop, sequences in found:
        assert sequences == [sequence for sequence in log.carrying("a") if sequence < stop]


def test_close_ends_what_is_under_way(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing ends a question that is reading a segment, which may take seconds; and forgets
    everything.
    """
    monkeypatch.setattr("aquipu.local.index.meter.Meter.SLICE", 1)
    hold = log.disk.hold("read", of=log.segments[2].path.rpartition("/")[2])
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(log.find, "a")
        assert hold.reached.wait(30)
        log.finder.close(StoreClosedError("somewhere"))
        hold.released.set()
        with pytest.raises(StoreClosedError):
            asked.result()
    assert not log.finder._gathered


Ask = Callable[[Log], object]


@pytest.mark.parametrize("ask", [lambda log: log.find("a"), lambda log: log.counts()])
def test_other_threads_come_through(log: Log, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long work on a thread rests now and then: it must not keep the interpreter lock from the
    loop.
    """
    rests: list[float] = []
    monkeypatch.setattr("aquipu.local.index.throttle.sleep", rests.append)
    monkeypatch.setattr("aquipu.local.index.throttle.WORK_SECONDS", 0)
    monkeypatch.setattr("aquipu.local.index.meter.Meter.SLICE", 1)
    ask(log)
    assert len(rests) >= 3
    assert min(rests) > 0


def test_rests_are_short(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller waits for the answer: a rest takes a quarter of the time worked before it."""
    rests: list[float] = []
    clock = count(0)  # each look at it takes 8 milliseconds
    monkeypatch.setattr("aquipu.local.index.throttle.thread_time", lambda: next(clock) / 125)
    monkeypatch.setattr("aquipu.local.index.throttle.sleep", rests.append)
    monkeypatch.setattr("aquipu.local.index.meter.Meter.SLICE", 1)
    log.find("a")
    assert rests == [pytest.approx(0.002)] * len(rests) != []
