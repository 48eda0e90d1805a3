"""recovery: what opening finds behind the last proven frame, and what it does about it.

Each state is made with real files, and then opened.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from aquipu.errors import StoreUnavailableError
from aquipu.local.format.frame import HEADER_BYTES
from aquipu.local.format.names import UNNAMED, cut_name, segment_name
from aquipu.local.format.segment import INDEX_STRIDE
from aquipu.local.read.segment_reader import READ_BYTES
from aquipu.local.write.recovery import RecoveryReport, check_place
from tests.disk import FailingDisk
from tests.local.logs import (
    SEGMENT_BYTES,
    THIRD,
    corruption,
    end_of,
    frame,
    live,
    put,
    reopen,
    rolled,
)
from tests.support import (
    NOW,
    copy_of,
    data_in,
    flip,
    frames_in,
    header_in,
    open_log,
    records_in,
    segment_in,
    snapshot,
    write,
)

# a closed store


def test_a_store_that_was_closed(store: Path) -> None:
    """Nothing is to be done: the report says so, and not a byte is another."""
    live(store, b"a", b"b")
    before = {name: data for name, (data, _) in snapshot(store).items()}
    journal, report = open_log(store)
    assert journal.result()[:2] == (2, 2)
    journal.drop()
    assert report == RecoveryReport(
        created=False, clean=True, first_sequence=0, next_sequence=2, segments=1
    )
    assert {name: data for name, (data, _) in snapshot(store).items()} == before


def test_a_closed_store_of_many_segments(store: Path) -> None:
    """The report counts them, the catalogue names them, and the log goes on behind the last."""
    payloads = rolled(store)
    journal, report = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    assert (report.clean, report.segments, report.next_sequence) == (True, 4, 10)
    assert [ref.first_sequence for ref in journal.segments] == [0, 3, 6, 9]
    assert [ref.growing is None for ref in journal.segments] == [True, True, True, False]
    write(journal, b"next")
    journal.close()
    assert data_in(store) == [*payloads, b"next"]


def test_a_mark_that_was_never_synced(store: Path) -> None:
    """The mark that an opening writes and a crash leaves unsynced is made durable before the first
    new record is told.
    """
    live(store, b"a", close=False)
    live(store, close=False)
    disk = FailingDisk()
    journal, report = open_log(store, disk)
    assert report.clean
    write(
        journal, bytes(200_000)
    )  # large enough for a write that syncs itself and nothing before it
    journal.drop()
    assert ("sync", segment_name(0)) in disk.steps("sync", "write_synced")


def test_time_does_not_go_back_over_a_reopening(store: Path) -> None:
    """The journal remembers the time of the last record, so the next one is not given an earlier
    one.
    """
    live(store, b"a")
    journal, _ = open_log(store)
    assert journal.last_time == NOW
    journal.drop()


@pytest.mark.parametrize("behind", [b"", bytes(5000), b"torn"])
def test_time_does_not_go_back_over_a_roll_and_a_crash(store: Path, behind: bytes) -> None:
    """Also when the last segment holds no frame yet: the records are in the one before, and so is
    the time.
    """
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    for _ in range(3):
        write(journal, THIRD, time=NOW + 10**12)
    journal.maintain()
    journal.drop()
    segment_in(store, 3).write_bytes(segment_in(store, 3).read_bytes() + behind)
    again, _ = open_log(store)
    assert again.last_time == NOW + 10**12
    again.drop()


# sound frames that no watermark proves


@pytest.mark.parametrize("sync", [True, False])
def test_a_store_that_was_not_closed(store: Path, sync: bool) -> None:
    """Every whole commit is kept, written once more and synced; then a mark proves it, and the next
    opening is clean.
    """
    live(store, b"a", b"b", sync=sync, close=False)
    journal, report = open_log(store)
    journal.drop()
    assert (report.clean, report.next_sequence, report.cut_bytes) == (False, 2, 0)
    assert report.rewritten_bytes > 0
    assert data_in(store) == [b"a", b"b"]
    assert frames_in(store)[-1][1].watermark == 2
    again, report = open_log(store)
    again.drop()
    assert (report.clean, report.rewritten_bytes) == (True, 0)


def test_unproven_frames_are_written_once_more_before_they_are_synced(store: Path) -> None:
    """A page that a failed sync left in memory is clean to the kernel: only writing it again makes
    a sync write it.
    """
    live(store, b"a", close=False)
    live(store, b"b", b"c", sync=False, close=False)
    unproven = frames_in(store)[2][0]
    end = end_of(store)
    disk = FailingDisk()
    journal, report = open_log(store, disk)
    journal.drop()
    changes = [call for call in disk.calls if call.method in ("write", "sync")]
    synced = next(index for index, call in enumerate(changes) if call.method == "sync")
    again = changes[:synced]
    assert min(call.offset for call in again) <= unproven
    assert max(call.offset + call.size for call in again) == end
    assert sum(call.size for call in again) == report.rewritten_bytes
    assert [(call.method, call.offset) for call in changes[synced + 1 :]] == [
        ("write", end)
    ]  # the mark


def test_the_store_counts_as_synced_after_it_was_opened(store: Path) -> None:
    """What was only flushed in the life before is safe now, and the frames that follow say so."""
    live(store, b"a", b"b", sync=False, close=False)
    journal, _ = open_log(store)
    assert journal.result()[:2] == (2, 2)
    write(journal, b"c", sync=False)
    journal.drop()
    assert frames_in(store)[-1][1].watermark == 2


def test_only_what_is_not_proven_is_written_once_more(store: Path) -> None:
    """A long segment whose last commit alone is unproven is not written again from its start."""
    journal, _ = open_log(store)
    for _ in range(20):
        write(journal, bytes(50_000))
    journal.drop()
    last = frames_in(store)[-1][1]
    report = reopen(store)
    assert last.size <= report.rewritten_bytes < 4 * INDEX_STRIDE


def test_more_than_one_read_of_unproven_frames(store: Path) -> None:
    """Frames larger than a read are written again piece by piece, and stay what they are."""
    payload = bytes(range(256)) * (READ_BYTES // 100)
    live(store, payload, sync=False, close=False)
    report = reopen(store)
    assert report.rewritten_bytes > 2 * READ_BYTES
    assert data_in(store) == [payload]


# zeros


@pytest.mark.parametrize("zeros", [1, 51, 52, 53, 4096, 3 * READ_BYTES + 1])
def test_zeros_behind_the_last_frame(store: Path, zeros: int) -> None:
    """They are space that was written ahead: never a record, never a torn tail, and gone after
    opening.
    """
    live(store, b"a", b"b", sync=False, close=False)
    end = end_of(store)
    put(store, bytes(zeros))
    journal, report = open_log(store)
    journal.drop()
    assert (report.next_sequence, report.cut_bytes, report.cut_kept_in) == (2, 0, None)
    assert segment_in(store).stat().st_size == end + HEADER_BYTES  # the mark
    assert data_in(store) == [b"a", b"b"]


def test_a_segment_of_zeros(store: Path) -> None:
    """Zeros behind the header are no record, however many."""
    live(store, close=False)
    segment_in(store).write_bytes(header_in(store).encode() + bytes(10_000))
    assert reopen(store).next_sequence == 0


def test_a_last_commit_whose_bytes_are_all_zeros(store: Path) -> None:
    """When a power cut kept the size and not the data, that commit is gone, and nothing is there to
    be kept.
    """
    live(store, b"a", b"b", close=False)
    offset, header, _ = frames_in(store)[-1]
    put(store, bytes(header.size), at=offset)
    report = reopen(store)
    assert (report.next_sequence, report.cut_bytes) == (1, 0)
    assert data_in(store) == [b"a"]


def test_zeros_in_place_of_a_commit_that_was_synced(store: Path) -> None:
    """A later frame proves it: that is damage, not unwritten space."""
    live(store, b"a", b"b", b"c")
    offset, header, _ = frames_in(store)[1]
    whole = segment_in(store).read_bytes()
    segment_in(store).write_bytes(
        whole[:offset] + bytes(header.size) + whole[offset + header.size :]
    )
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment_in(store)), offset)


# a torn tail


@pytest.mark.parametrize("ahead", [0, 5000], ids=["the file ends", "zeros follow"])
def test_a_tail_cut_at_every_byte_of_the_last_commit(
    tmp_path: Path, store: Path, ahead: int
) -> None:
    """Opening succeeds, keeps every byte that it cuts, loses only that commit, and the log goes on
    in its place.
    """
    live(store, b"a", b"b", b"the last commit", close=False)
    offset, header, _ = frames_in(store)[-1]
    whole = segment_in(store).read_bytes()[: offset + header.size]
    for cut in range(header.size):
        torn = copy_of(store, f"cut-{cut}")
        segment_in(torn).write_bytes(whole[: offset + cut] + bytes(ahead))
        journal, report = open_log(torn)
        kept = whole[offset : offset + cut].rstrip(
            b"\0"
        )  # zeros are never told from unwritten space
        assert (report.clean, report.next_sequence, report.cut_bytes) == (False, 2, len(kept))
        if kept:
            assert report.cut_kept_in == str(torn / cut_name(0, offset))
            assert Path(report.cut_kept_in).read_bytes() == kept
            assert (report.cut_from, report.cut_offset) == (str(segment_in(torn)), offset)
            assert report.cut_reason
        assert len(list(torn.glob("*.cut-*"))) == bool(kept)
        assert write(journal, b"next").next_sequence == 3
        journal.close()
        assert [(record.sequence, record.data) for record in records_in(torn)] == [
            (0, b"a"),
            (1, b"b"),
            (2, b"next"),
        ]
        assert reopen(torn).clean


def test_a_mark_cut_at_every_byte(tmp_path: Path, store: Path) -> None:
    """A close that was cut short loses no record. Without any of the mark, which a close does not
    sync, the manifest proves them.
    """
    live(store, b"a", b"b")
    offset, header, _ = frames_in(store)[-1]
    for cut in range(header.size):
        torn = copy_of(store, f"cut-{cut}")
        put(torn, segment_in(store).read_bytes()[offset : offset + cut], at=offset)
        report = reopen(torn)
        assert (report.clean, report.next_sequence, report.cut_records) == (cut == 0, 2, 0)
        assert data_in(torn) == [b"a", b"b"]


def test_bytes_of_something_else_behind_the_last_frame(store: Path) -> None:
    """They are kept aside and cut, also behind a clean close; what precedes them is untouched."""
    live(store, b"a")
    put(store, b"\0\0junk\0\0and more")
    report = reopen(store)
    assert (report.next_sequence, report.cut_bytes) == (1, 16)
    assert report.cut_kept_in is not None
    assert Path(report.cut_kept_in).read_bytes() == b"\0\0junk\0\0and more"


def test_good_frames_behind_a_bad_one_that_nothing_proves(store: Path) -> None:
    """The kernel writes pages in any order: without a watermark beyond the bad frame, all of it is
    the torn tail.
    """
    live(store, b"a", close=False)
    live(store, b"b", b"c", b"d", sync=False, close=False)
    offset = frames_in(store)[2][0]
    whole = segment_in(store).read_bytes()
    flip(segment_in(store), offset + HEADER_BYTES)
    report = reopen(store)
    assert (report.next_sequence, report.cut_records, report.cut_offset) == (1, 3, offset)
    assert report.cut_kept_in is not None
    kept = Path(report.cut_kept_in).read_bytes()
    assert kept[HEADER_BYTES + 1 :] == whole[offset + HEADER_BYTES + 1 :]
    assert data_in(store) == [b"a"]


def test_a_tail_larger_than_a_read(store: Path) -> None:
    """However much is cut, every byte of it is kept."""
    live(store, b"a", close=False)
    tail = bytes(range(1, 251)) * (3 * READ_BYTES // 250)
    put(store, tail)
    report = reopen(store)
    assert report.cut_kept_in is not None
    assert report.cut_bytes == len(tail)
    assert Path(report.cut_kept_in).read_bytes() == tail


def test_the_tail_is_kept_before_it_is_trimmed(store: Path) -> None:
    """The file with the cut bytes is durable under its name before the segment loses them, and the
    trim is synced.
    """
    live(store, b"a", close=False)
    put(store, b"torn")
    disk = FailingDisk()
    journal, report = open_log(store, disk)
    journal.drop()
    name = cut_name(0, report.cut_offset)
    steps = disk.steps("create", "write", "sync", "rename", "sync_directory", "truncate")
    trim = steps.index(("truncate", segment_name(0)))
    assert steps[:trim] == [
        ("create", name + UNNAMED),
        ("write", name + UNNAMED),
        ("sync", name + UNNAMED),
        ("rename", name),
        ("sync_directory", store.name),
    ]
    assert ("sync", segment_name(0)) in steps[trim:]


def test_a_tail_that_cannot_be_kept(store: Path) -> None:
    """Without space to keep any of them, the bytes stay where they are, and opening is refused."""
    live(store, b"a", close=False)
    put(store, b"torn")
    before = segment_in(store).read_bytes()
    disk = FailingDisk()
    disk.fail("write", errno.ENOSPC, written=2, forever=True)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        open_log(store, disk)
    assert segment_in(store).read_bytes() == before
    assert reopen(store).cut_bytes == 4


def test_a_second_torn_tail_at_the_same_place(store: Path) -> None:
    """What was kept of the first is not lost to the second."""
    live(store, b"a", close=False)
    end = end_of(store)
    for tail in (b"first torn tail", b"second torn tail"):
        put(store, tail, at=end)
        live(store, close=False)
    assert {file.read_bytes() for file in store.glob("*.cut-*")} == {
        b"first torn tail",
        b"second torn tail",
    }


def test_cut_files_do_not_hinder(store: Path) -> None:
    """What was kept aside is never read again, and never removed."""
    live(store, b"a", close=False)
    put(store, b"torn")
    kept = reopen(store).cut_kept_in
    assert kept is not None
    check_place(FailingDisk(), str(store))
    assert reopen(store).clean
    assert Path(kept).read_bytes() == b"torn"


# whether what was cut could have been acknowledged


def test_a_torn_commit_that_owed_a_sync(store: Path) -> None:
    """Its callers got no receipt: what is not on the disk was not acknowledged as synced."""
    live(store, b"a", close=False)
    put(store, frame(store, b"torn", sequence=1, owes_sync=True)[:-1])
    report = reopen(store)
    assert (report.cut_records, report.cut_possibly_acknowledged) == (1, False)


def test_a_torn_commit_that_owed_none(store: Path) -> None:
    """Its callers may have been told that it is flushed."""
    live(store, b"a", close=False)
    put(store, frame(store, b"torn", sequence=1)[:-1])
    report = reopen(store)
    assert (report.cut_records, report.cut_possibly_acknowledged) == (1, True)


def test_a_torn_commit_whose_header_cannot_be_read(store: Path) -> None:
    """Nobody can tell what it owed, so its callers may have been told."""
    live(store, b"a", close=False)
    put(store, frame(store, b"torn", sequence=1, owes_sync=True)[: HEADER_BYTES - 1])
    report = reopen(store)
    assert (report.cut_records, report.cut_possibly_acknowledged) == (0, True)


def test_an_unreadable_commit_before_one_that_owed_a_sync(store: Path) -> None:
    """What the readable one owed says nothing of the other, whose callers may have been told."""
    live(store, b"a", close=False)
    flushed = frame(store, b"flushed", sequence=1)
    owing = frame(store, b"under way", sequence=2, watermark=1, owes_sync=True, link=0)
    put(store, bytes(len(flushed)), owing)
    assert reopen(store).cut_possibly_acknowledged
