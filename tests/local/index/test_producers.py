"""Keys of producers in the label index, and how a number is found by it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from aquipu.engine import Commit
from aquipu.local.check.indexes import damaged_indexes
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import replace_file
from aquipu.local.format.postings import BlockIndex, encode_blocks
from aquipu.local.index.finder import Finder
from aquipu.local.index.postings import producer_entry
from aquipu.local.index.table import Table, build, table_path
from aquipu.local.keyed import find_number
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.write.journal import Journal
from aquipu.record import PRODUCERS, Key, Known, Located
from tests.support import NOW, commit, open_log

WRITER, OTHER, CLIENT = b"w" * 16, b"o" * 16, b"c" * 16
NUMBERS = range(0, 240, 2)


def keyed(*keys: Key, time: int = NOW) -> Commit[Any]:
    """A commit of three records with these keys."""
    made = commit(*[b"x" * 50] * 3, time=time)
    made.keys += keys
    return made


class Log:
    """A log of several segments: each commit has a number of a producer, of another one with
    other numbers, and of a daemon's client.
    """

    def __init__(self, path: Path) -> None:
        self.disk = Disk()
        self.journal: Journal = open_log(path, max_segment_bytes=4096)[0]
        self.due: list[SegmentRef] = []
        self.finder = Finder(self.due.append)
        for number in NUMBERS:
            self.write(
                Key(WRITER, PRODUCERS | number, 1, 2),
                Key(OTHER, PRODUCERS | (number + 1000), 0, 1),
                Key(CLIENT, number, 0, 1),
            )

    def write(self, *keys: Key) -> None:
        self.journal.write(self.journal.prepare(keyed(*keys)))
        self.journal.maintain()

    @property
    def view(self) -> Snapshot:
        segments = self.journal.segments
        return Snapshot(self.disk, segments, segments[0].first_sequence, self.journal.next_sequence)

    def build(self) -> None:
        for segment in self.journal.segments[:-1]:
            build(self.disk, segment)

    def find(self, number: int, writer: bytes = WRITER, view: Snapshot | None = None) -> Known:
        """What is known, with plain numbers."""
        known = find_number(view or self.view, self.finder, writer, PRODUCERS | number)
        return known._replace(last=known.last & ~PRODUCERS if known.last >= 0 else -1)


@pytest.fixture(params=["tables", "no tables"])
def log(tmp_path: Path, request: pytest.FixtureRequest) -> Log:
    log = Log(tmp_path)
    assert len(log.journal.segments) > 3
    if request.param == "tables":
        log.build()
    return log


def test_every_number(log: Log) -> None:
    """It is found where it is, whichever segment that is, and the last one is that of the log."""
    for number in NUMBERS:
        located = Located(3 * (number // 2) + 1, 2, NOW)
        assert log.find(number) == Known(NUMBERS[-1], located)
        other = Located(3 * (number // 2), 1, NOW)
        assert log.find(number + 1000, OTHER) == Known(NUMBERS[-1] + 1000, other)


def test_a_number_that_is_not_there(log: Log) -> None:
    """Between two others, before the first, behind the last, and of an unknown producer."""
    for number in (1, 117, 237):
        assert log.find(number) == Known(NUMBERS[-1], None)
    assert log.find(999, OTHER) == Known(NUMBERS[-1] + 1000, None)
    assert log.find(5000) == Known(NUMBERS[-1], None)
    assert log.find(7, b"n" * 16) == Known(-1, None)


def test_the_keys_of_a_daemons_client(log: Log) -> None:
    """They are not in the index: who looks for them knows where they can be."""
    assert find_number(log.view, log.finder, CLIENT, 2) == Known(-1, None)
    assert log.finder.counts(log.view, "") == {}


def test_what_may_be_seen(log: Log) -> None:
    """What is not acknowledged yet, or is purged, is not found."""
    assert log.find(0) == Known(NUMBERS[-1], Located(1, 2, NOW))
    whole = log.view
    early = whole._replace(stop=whole.stop - 6)
    assert log.find(NUMBERS[-1], view=early) == Known(NUMBERS[-3], None)
    assert log.find(NUMBERS[-1]).last == NUMBERS[-1]
    assert log.find(NUMBERS[-1], view=early) == Known(NUMBERS[-3], None)
    late = whole._replace(segments=whole.segments[2:], start=whole.segments[2].first_sequence)
    assert log.find(0, view=late) == Known(NUMBERS[-1], None)


def test_an_index_that_says_another_place(tmp_path: Path) -> None:
    """The frames say which number it is: the segment is read, and the table is to be built."""
    log = Log(tmp_path)
    log.build()
    segment, behind = next(pairwise(log.journal.segments))
    block_index = BlockIndex(behind.first_sequence, behind.header.link)
    positions = b"".join(position.to_bytes(4, "little") for position in (0, 3))
    blocks = list(encode_blocks([(producer_entry(WRITER), positions)]))
    for block in blocks:
        block_index.note(block, segment.header.seed)
    pieces = [[block.data for block in blocks], [block_index.encode(segment.header.seed)]]
    replace_file(log.disk, table_path(segment), pieces)
    assert log.find(2) == Known(NUMBERS[-1], Located(4, 2, NOW))
    assert segment in log.due


def test_an_index_is_checked_with_its_producers(tmp_path: Path) -> None:
    """The table says what stands in its segment, and nothing of the clients."""
    log = Log(tmp_path)
    log.build()
    assert list(damaged_indexes(log.disk, log.journal.segments[:-1])) == []
    segment, behind = next(pairwise(log.journal.segments))
    table = Table.open(log.disk, segment, behind.first_sequence, behind.header.link)
    assert [entry for entry, _ in table.entries()] == sorted(map(producer_entry, (OTHER, WRITER)))
