"""indexes: those of a store at rest, checked and built."""

from __future__ import annotations

from pathlib import Path

import pytest

from aquipu.errors import CorruptionError
from aquipu.local.check.indexes import build_indexes, damaged_indexes
from aquipu.local.index.table import table_path
from aquipu.local.read.examine import examine
from aquipu.local.read.segment_reader import SegmentRef
from tests.disk import FailingDisk
from tests.support import commit, flip, open_log, segment_in, snapshot


@pytest.fixture
def sealed(tmp_path: Path) -> list[SegmentRef]:
    """Three sealed segments of one record each, with a label."""
    path = tmp_path / "store"
    path.mkdir()
    journal, _ = open_log(path, max_segment_bytes=4096)
    for number in range(3):
        journal.write(journal.prepare(commit(bytes(5000), labels={0: (f"label:{number}",)})))
        journal.maintain()
    journal.close()
    findings = examine(FailingDisk(), str(path))
    assert findings is not None
    assert len(findings.sealed) == 3
    return findings.sealed


def build(sealed: list[SegmentRef], *, anew: bool = False) -> int:
    return build_indexes(FailingDisk(), sealed, anew=anew, progress=lambda size: None)


def test_missing_indexes_are_built(sealed: list[SegmentRef]) -> None:
    """All of them are built the first time, and none the second;

    ``anew`` builds them in any case.
    """
    assert list(damaged_indexes(FailingDisk(), sealed)) == []
    assert build(sealed) == 3
    assert all(Path(table_path(segment)).exists() for segment in sealed)
    assert build(sealed) == 0
    assert build(sealed, anew=True) == 3


def test_a_damaged_index_is_told_and_built_again(sealed: list[SegmentRef]) -> None:
    """It alone is built, and is then what it was."""
    build(sealed)
    index = Path(table_path(sealed[1]))
    sound = index.read_bytes()
    flip(index, 5)
    (error,) = damaged_indexes(FailingDisk(), sealed)
    assert (error.path, error.offset) == (str(index), 0)
    assert build(sealed) == 1
    assert index.read_bytes() == sound
    assert list(damaged_indexes(FailingDisk(), sealed)) == []


def test_the_index_of_another_segment(sealed: list[SegmentRef]) -> None:
    """What was made of something else is damaged, though all of it checks."""
    build(sealed)
    Path(table_path(sealed[1])).write_bytes(Path(table_path(sealed[0])).read_bytes())
    assert [error.path for error in damaged_indexes(FailingDisk(), sealed)] == [
        table_path(sealed[1])
    ]


def test_checking_changes_nothing(sealed: list[SegmentRef]) -> None:
    """Damage is told, not mended."""
    build(sealed)
    flip(Path(table_path(sealed[2])), 9)
    directory = Path(sealed[0].path).parent
    before = snapshot(directory)
    list(damaged_indexes(FailingDisk(), sealed))
    assert snapshot(directory) == before


def test_a_damaged_segment_gets_no_index(sealed: list[SegmentRef]) -> None:
    """The log is damaged then: that is said, and nothing is written."""
    directory = Path(sealed[0].path).parent
    flip(segment_in(directory, 1), 200)
    with pytest.raises(CorruptionError):
        build(sealed)
    assert not Path(table_path(sealed[1])).exists()
