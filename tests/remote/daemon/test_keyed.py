"""keyed: a commit is found by its key, wherever in the log it stands, and nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aquipu.engine import Commit
from aquipu.errors import CorruptionError
from aquipu.local.disk.disk import Disk
from aquipu.local.keyed import Found, find_keyed
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.write.journal import Journal
from aquipu.record import Key
from tests.support import NOW, commit, flip, frames_in, open_log, segment_in, segments_in

WRITER, OTHER = b"w" * 16, b"o" * 16


def keyed(*keys: Key, records: int = 2, time: int = NOW) -> Commit[Any]:
    """A commit of so many records with these keys."""
    made = commit(*(b"x" * 50 for _ in range(records)), time=time)
    made.keys += keys
    return made


def write(journal: Journal, *commits: Commit[Any]) -> None:
    for one in commits:
        journal.write(journal.prepare(one))
        journal.maintain()


def view_of(journal: Journal, start: int = 0, stop: int | None = None) -> Snapshot:
    until = journal.next_sequence if stop is None else stop
    return Snapshot(Disk(), journal.segments, max(start, journal.segments[0].first_sequence), until)


def test_a_commit_in_the_active_segment(tmp_path: Path) -> None:
    """It is found by writer and number, with its own first sequence and its own time."""
    journal, _ = open_log(tmp_path)
    write(
        journal, keyed(), keyed(Key(WRITER, 7, 0, 1), Key(OTHER, 7, 1, 2), records=3, time=NOW + 5)
    )
    assert find_keyed(view_of(journal), WRITER, 7) == Found(2, NOW + 5)
    assert find_keyed(view_of(journal), OTHER, 7) == Found(3, NOW + 5)
    assert find_keyed(view_of(journal), WRITER, 8) is None
    assert find_keyed(view_of(journal), b"n" * 16, 7) is None
    journal.close()


def test_commits_across_many_segments(tmp_path: Path) -> None:
    """Each is found in whatever segment it stands, also after the log was opened anew."""
    journal, _ = open_log(tmp_path, max_segment_bytes=4096)
    write(journal, *(keyed(Key(WRITER, number, 0, 2)) for number in range(60)))
    assert len(segments_in(tmp_path)) > 2
    for _ in range(2):
        for number in range(60):
            assert find_keyed(view_of(journal), WRITER, number) == Found(2 * number, NOW)
        journal.close()
        journal, _ = open_log(tmp_path, max_segment_bytes=4096)
    journal.close()


def test_from_a_floor_on(tmp_path: Path) -> None:
    """A commit that begins at the floor is found, and nothing is read of the segments before it."""
    journal, _ = open_log(tmp_path, max_segment_bytes=4096)
    write(journal, *(keyed(Key(WRITER, number, 0, 2)) for number in range(60)))
    first, second, *_ = segments_in(tmp_path)
    second_sequence = int(second.name.partition(".")[0])
    first.unlink()  # whoever reads it is told
    for number in range(60):
        sought = view_of(journal, start=2 * number)
        if 2 * number >= second_sequence:
            assert find_keyed(sought, WRITER, number) == Found(2 * number, NOW)
    journal.drop()  # it would notice that a segment is gone


def test_only_what_may_be_seen(tmp_path: Path) -> None:
    """A commit behind the end of the view is not found: nobody has been told of it."""
    journal, _ = open_log(tmp_path)
    write(journal, keyed(Key(WRITER, 1, 0, 2)), keyed(Key(WRITER, 2, 0, 2)))
    assert find_keyed(view_of(journal, stop=2), WRITER, 1) == Found(0, NOW)
    assert find_keyed(view_of(journal, stop=2), WRITER, 2) is None
    assert find_keyed(view_of(journal, stop=0), WRITER, 1) is None
    assert find_keyed(view_of(journal, start=4), WRITER, 2) is None
    journal.close()


def test_after_a_purge(tmp_path: Path) -> None:
    """What was purged is not found; what was kept is."""
    journal, _ = open_log(tmp_path, max_segment_bytes=4096)
    write(journal, *(keyed(Key(WRITER, number, 0, 2)) for number in range(60)))
    journal.purge(before=60, before_time=None, dry_run=False)
    while journal.delete_dropped():
        pass
    first = journal.segments[0].first_sequence
    assert 0 < first <= 60
    assert find_keyed(view_of(journal), WRITER, 0) is None
    assert find_keyed(view_of(journal), WRITER, first // 2) == Found(first, NOW)
    journal.close()


def test_a_frame_that_is_damaged(tmp_path: Path) -> None:
    """Is never passed over in silence: the commit that is sought may be the one."""
    journal, _ = open_log(tmp_path)
    write(journal, keyed(Key(WRITER, 1, 0, 2)), keyed(Key(WRITER, 2, 0, 2)))
    offset, header, _ = frames_in(tmp_path)[0]
    flip(segment_in(tmp_path), offset + header.size - 1)
    with pytest.raises(CorruptionError):
        find_keyed(view_of(journal), WRITER, 2)
    journal.close()


def test_a_key_that_names_more_than_there_is(tmp_path: Path) -> None:
    """A frame that no writer makes is damage, with its place."""
    journal, _ = open_log(tmp_path)
    write(journal, keyed(Key(WRITER, 1, 0, 3)))
    with pytest.raises(CorruptionError, match="a key of a frame names more records than it has"):
        find_keyed(view_of(journal), WRITER, 1)
    journal.close()
