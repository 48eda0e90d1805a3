"""search: which frames of a segment are read for a search, and which of their records are given."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from random import Random

import pytest

from aquipu import CorruptionError
from aquipu.local.format.frame import HEADER_BYTES
from aquipu.local.index import finder as finding
from aquipu.local.index.finder import Finder
from aquipu.local.index.plan import Plan
from aquipu.local.index.search import Candidates, Search, SegmentSearch
from aquipu.local.index.table import build
from aquipu.local.read.segment_reader import SegmentReader, SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.options import Wanted
from aquipu.record import Record
from tests.disk import FailingDisk
from tests.support import commit, flip, open_log, searched

X = Wanted(("x",), ())
LABELS = ("rare", "some", "often", "every", "\N{SNOWMAN}")


class Log:
    """A log of three segments with many strides, and somebody who finds in it."""

    def __init__(self, path: Path) -> None:
        self.disk = FailingDisk()
        self.journal, _ = open_log(path, self.disk)
        self.records: list[Record] = []
        self.due: list[SegmentRef] = []
        self.finder = Finder(self.due.append)

    def write(self, *labels: tuple[str, ...]) -> None:
        """One commit of records with these labels."""
        first = self.journal.next_sequence
        payloads = [b"%d" % (first + n) * (n % 3) for n in range(len(labels))]
        made = commit(*payloads, labels={n: given for n, given in enumerate(labels) if given})
        self.journal.write(self.journal.prepare(made))
        self.records += [
            Record(first + n, made.timestamps[n], payloads[n], given)
            for n, given in enumerate(labels)
        ]

    def view(self) -> Snapshot:
        return Snapshot(self.disk, self.journal.segments, 0, self.journal.next_sequence)

    def build(self) -> None:
        for segment in self.journal.segments[:-1]:
            build(self.disk, segment)

    def found(
        self, wanted: Wanted, start: int = 0, stop: int = 10**6, *, reverse: bool = False
    ) -> list[Record]:
        """What a search gives, segment by segment."""
        view, found = self.view()._replace(start=start), []
        pieces = list(view._replace(stop=min(stop, view.stop)).pieces())
        for segment, begin, end in pieces[::-1] if reverse else pieces:
            search = Search(self.finder, wanted)
            found += searched(search, view, segment, begin, end, reverse=reverse)
        return found


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """Commits of various sizes, with labels of very different frequency."""
    monkeypatch.setattr("aquipu.local.format.segment.INDEX_STRIDE", 300)
    monkeypatch.setattr("aquipu.local.index.search.INDEX_STRIDE", 300)
    log, random = Log(tmp_path), Random(1)
    for _ in range(3):
        assert not log.records or log.journal.roll()
        for size in random.choices((1, 2, 3, 30), k=40):
            given = [
                tuple(
                    label
                    for label, part in zip(LABELS, (0.01, 0.1, 0.6, 1.0, 0.05), strict=True)
                    if random.random() < part
                )
                for _ in range(size)
            ]
            log.write(*given)
    yield log
    log.journal.drop()


@pytest.mark.parametrize("known", ["nothing", "tables", "all"])
@pytest.mark.parametrize("reverse", [False, True])
def test_any_plan_gives_what_a_filter_gives(
    log: Log, known: str, reverse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is looked up, whatever is known, and however much is read at a time, a search gives
    the records that carry the labels, and no other.
    """
    random = Random(2)
    if known != "nothing":
        log.build()
    shares = {"nothing": 0, "tables": 500, "all": 10**9}
    monkeypatch.setattr(finding, "_SHARE_BYTES_MIN", shares[known])
    monkeypatch.setattr(finding, "_SHARES", 10**9)
    for _ in range(150):
        labels = random.sample((*LABELS, "never"), random.randrange(1, 5))
        wanted = Wanted(tuple(labels[:2]), tuple(labels[2:]))
        ways = [
            Plan(every, any_of)
            for size in range(len(wanted.every) + 1)
            for every in combinations(wanted.every, size)
            for any_of in {(), wanted.any_of}
            if every or any_of
        ]
        way = random.choice([None, *ways])
        monkeypatch.setattr(finding, "plan", lambda *_, way=way: way)
        monkeypatch.setattr("aquipu.local.index.search._FIRST_BYTES", random.choice((1, 400, 9999)))
        start, stop = sorted(random.sample(range(len(log.records) + 1), 2))
        expected = list(filter(wanted.fits, log.records[start:stop]))
        found = log.found(wanted, start, stop, reverse=reverse)
        assert found == (expected[::-1] if reverse else expected), (wanted, way, start, stop)


def test_what_a_plan_leaves_to_the_records(log: Log) -> None:
    """Labels that are not looked up are looked at, so that a frequent one costs no look-up."""
    log.build()
    log.found(Wanted(("some", "every"), ()))
    assert log.due == []


@pytest.mark.parametrize("reverse", [False, True])
def test_an_index_that_is_wrong(log: Log, reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first record on that does not carry what the index says, the segment is looked
    through: every sought one behind it is found, and the index is due to be built anew.
    """
    segment, view = log.journal.segments[1], log.view()
    first, end = segment.first_sequence, view.end_of(segment)
    rights = [record for record in log.records[first:end] if "some" in record.relations]
    wrong = next(n for n in range(20, end) if "some" not in log.records[first + n].relations)
    sure = Wanted(("some",), ())
    candidates = Candidates(array("I", [wrong]), sure, end)
    monkeypatch.setattr(Finder, "candidates", lambda *_: candidates)
    found = searched(Search(log.finder, sure), view, segment, reverse=reverse)
    assert set(found) <= set(rights)
    order = rights[::-1] if reverse else rights
    assert found == order[len(order) - len(found) :]
    behind = [it for it in order if (it.sequence < first + wrong) == reverse]
    assert found[len(found) - len(behind) :] == behind
    assert log.due == [segment]


def test_what_is_sound_comes_before_an_error(log: Log) -> None:
    """Of a damaged segment the frames before the damage are still looked through."""
    segment, view = log.journal.segments[1], log.view()
    with segment.open(log.disk) as reader:
        index = reader.index()
        offset, sequence = index.offsets[9], index.sequences[9]
    flip(Path(segment.path), offset + HEADER_BYTES + 1)
    search = Search(log.finder, Wanted(("often",), ())).enter(
        view, segment, segment.first_sequence, view.end_of(segment)
    )
    found: list[Record] = []

    def read_on(reader: SegmentReader) -> None:
        while True:
            for records in search.records(search.read(reader, index, False), False):
                found.extend(records)

    with segment.open(log.disk) as reader, pytest.raises(CorruptionError) as caught:
        read_on(reader)
    assert caught.value.offset == offset
    assert found == [
        record
        for record in log.records[segment.first_sequence : sequence]
        if "often" in record.relations
    ]


# which frames are read


class Strides:
    """Somebody who reads records of one segment by their sequences."""

    def __init__(self, log: Log, segment: SegmentRef) -> None:
        self.disk = log.disk
        self.path = Path(segment.path)
        self.descriptor = log.disk.open(segment.path)
        self._log = log
        self._segment_ref = segment
        self._reader = SegmentReader(log.disk, segment, self.descriptor)
        self._index = self._reader.index()

    @property
    def places(self) -> list[tuple[int, int]]:
        """The sequence and the offset with which each stride begins, and those behind the last but
        one.
        """
        return list(zip(self._index.sequences, self._index.offsets, strict=True))

    def read(self, sequences: Sequence[int], *, until: int | None = None) -> list[int]:
        self.disk.calls.clear()
        first, end = self._segment_ref.first_sequence, self._log.view().end_of(self._segment_ref)
        found = array("I", [sequence - first for sequence in sequences])
        candidates = Candidates(found, X, end if until is None else until)
        search = SegmentSearch(self._log.finder, X, self._segment_ref, candidates, first, end)
        records: list[Record] = []
        while not search.is_done:
            for some in search.records(search.read(self._reader, self._index, False), False):
                records += some
        return [record.sequence for record in records]


@pytest.fixture
def strides(log: Log) -> Iterator[Strides]:
    """A segment of many strides, each with two or three commits of three records."""
    assert log.journal.roll()
    for _ in range(30):
        log.write(("x",), ("x",), ("x",))
    assert log.journal.roll()
    made = Strides(log, log.journal.segments[3])
    yield made
    log.disk.close(made.descriptor)


def test_records_of_a_stride(strides: Strides) -> None:
    """Of a segment only the stride is read in which the records stand."""
    places = strides.places
    assert len(places) > 5
    for (begin, offset), (end, behind) in pairwise(places):
        for some in (range(begin, end), *combinations(range(begin, end), 2)):
            assert strides.read(some) == list(some)
            calls = [call for call in strides.disk.calls if call.method == "read"]
            assert min(call.offset for call in calls) == offset
            assert max(call.offset + call.size for call in calls) == behind
    assert strides.read([places[-1][0], places[-1][0] + 1]) == [places[-1][0], places[-1][0] + 1]


def test_strides_one_behind_another(strides: Strides) -> None:
    """They are read in one piece, and so is all of which nothing is known."""
    begin, offset = strides.places[1]
    end, behind = strides.places[4]
    assert strides.read(range(begin, end)) == list(range(begin, end))
    assert [(call.offset, call.size) for call in strides.disk.calls if call.method == "read"] == [
        (offset, behind - offset)
    ]
    first = strides.places[0][0]
    assert strides.read([first], until=end) == [first, *range(end, first + 90)]


def test_a_single_record_of_a_stride(strides: Strides) -> None:
    """Of the frames before it the headers are enough: what is damaged in a body there does not
    matter.
    """
    (_, offset), (behind, _) = strides.places[2:4]
    flip(strides.path, offset + HEADER_BYTES + 1)
    assert strides.read([behind - 1]) == [behind - 1]
    with pytest.raises(CorruptionError):
        strides.read([behind - 2, behind - 1])


def test_nothing_behind_the_last_record_of_a_stride(strides: Strides) -> None:
    """What is damaged there does not matter, unless it is not known what it holds."""
    (begin, _), (_, behind) = strides.places[2:4]
    flip(strides.path, behind - 3)
    assert strides.read([begin, begin + 1]) == [begin, begin + 1]
    with pytest.raises(CorruptionError):
        strides.read([begin, begin + 1], until=begin + 2)
