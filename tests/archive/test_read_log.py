"""What a reader of an archive sees at each look, and what a look costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.archive.bucket import Bucket
from aquipu.archive.fetch import read_state
from aquipu.archive.format.keys import entry_number
from aquipu.archive.format.pieces import summary_behind
from aquipu.archive.read import log as log_file
from aquipu.archive.read import young as young_file
from aquipu.archive.read.files import InParts, ObjectDisk
from aquipu.archive.read.log import ArchivedLog
from aquipu.local.compress.segment import compress
from aquipu.local.disk.disk import Disk
from aquipu.local.format.segment import SegmentHeader, SegmentSummary
from tests.archive import made
from tests.archive.faulty import MemoryBucket
from tests.archive.made import URL, JournalLog, append, opened, uploader


def bytes_of(log: ArchivedLog) -> dict[str, bytes]:
    """Return the bytes of every file."""
    disk, found = log.disk, {}
    for path in disk.files:
        descriptor = disk.open(path)
        found[path] = disk.read(descriptor, disk.size(descriptor), 0)
        disk.close(descriptor)
    return found


def test_one_look_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sees what a reader sees that was opened just then, and reads only what is new: while
    parts are folded, segments are sealed, and one is compressed while it is young.
    """
    monkeypatch.setattr(log_file, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(made, "SEGMENT_BYTES", 20_000)
    walked: list[int] = []

    def counted(before: SegmentSummary, path: str, header: SegmentHeader, data: bytes) -> object:
        walked.append(len(data))
        return summary_behind(before, path, header, data)

    store = MemoryBucket()
    journal = opened(tmp_path / "store")
    carrier = uploader(store, JournalLog(journal))
    carrier.catch_up()
    log = ArchivedLog(ObjectDisk(Bucket(URL, store)))
    rolls = folds = 0
    for number in range(60):
        before, young = log._state.head.number, log._state.head.young
        append(journal, range(number, number + 1))
        if journal.segments[-1].first_sequence == number + 1 and rolls == 0:
            assert compress(Disk(), journal.segments[-2], lambda: None) is not None
            rolls += 1
        carrier.catch_up()
        store.asked.clear()
        walked.clear()
        with monkeypatch.context() as patch:
            patch.setattr(young_file, "summary_behind", counted)
            view = log.look()
        assert min(filter(None, map(entry_number, store.asked))) > before
        head = read_state(Bucket(URL, store)).head
        assert walked == [piece.size for piece in head.young if piece.number > before]
        folds += bool(young) and 0 < len(head.young) <= len(young) and head.base == 0
        fresh = ArchivedLog(ObjectDisk(Bucket(URL, store)))
        assert view._replace(disk=fresh.disk) == fresh.view
        assert view.stop == number + 1
        assert bytes_of(log) == bytes_of(fresh)
    journal.close()
    assert (rolls, folds > 0, len(view.segments) > 3) == (1, True, True)


def test_a_file_that_is_open_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another look, with more in the same segment, changes nothing in it."""
    monkeypatch.setattr(log_file, "LOOK_SECONDS", 0.0)
    store = MemoryBucket()
    journal = opened(tmp_path / "store")
    append(journal, range(1))
    carrier = uploader(store, JournalLog(journal))
    carrier.catch_up()
    log = ArchivedLog(ObjectDisk(Bucket(URL, store)))
    descriptor = log.disk.open(log.view.segments[0].path)
    size = log.disk.size(descriptor)
    append(journal, range(1, 2))
    carrier.catch_up()
    assert log.look().stop == 2
    assert log.disk.size(descriptor) == size
    assert len(log.disk.read(descriptor, 2 * size, 0)) == size
    journal.close()


@given(st.lists(st.binary(max_size=5), max_size=6), st.integers(0, 40), st.integers(0, 40))
def test_bytes_in_parts(parts: list[bytes], begin: int, size: int) -> None:
    """A file in parts reads as one that is whole, also beyond its end."""
    whole = b"".join(parts)
    file = InParts.of(parts)
    assert file.size == len(whole)
    assert file.read(begin, begin + size) == whole[begin : begin + size]
