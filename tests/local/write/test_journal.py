"""journal: the directory of the log.

What its files hold after each commit and after a close.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from aquipu.engine import CommitResult
from aquipu.errors import StoreFailedError
from aquipu.local.format.frame import Flag
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import MANIFEST, UNNAMED, segment_name
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentSummary
from aquipu.local.write.journal import Journal
from aquipu.local.write.segment_writer import AHEAD_BYTES
from tests.disk import FailingDisk
from tests.local.logs import SEGMENT_BYTES, fill
from tests.support import (
    NOW,
    STORE_ID,
    commit,
    data_in,
    flip,
    frames_in,
    header_in,
    open_log,
    records_in,
    segment_in,
    segments_in,
    snapshot,
    write,
)

# commits


def test_a_commit_is_written(journal: Journal) -> None:
    """A result says how far the log reaches, how far it is synced, and how many syncs it took."""
    assert write(journal, b"a", b"b", sync=False) == CommitResult(2, 0, 0)
    assert write(journal, b"c", sync=True) == CommitResult(3, 3, 1)
    assert write(journal, b"d", b"e", sync=False) == CommitResult(5, 3, 1)


def test_records_are_read_back_as_they_were(journal: Journal, store: Path) -> None:
    """Data, times and labels come back from the file, in the order of the commits."""
    made = commit(b"a", b"", b"c" * 100_000, time=NOW + 5, labels={2: ("user:7", "document:42")})
    made.timestamps[:] = [NOW, NOW + 2, NOW + 5]
    journal.write(journal.prepare(made))
    write(journal, b"d", time=NOW + 9)
    assert [tuple(record) for record in records_in(store)] == [
        (0, NOW, b"a", ()),
        (1, NOW + 2, b"", ()),
        (2, NOW + 5, b"c" * 100_000, ("user:7", "document:42")),
        (3, NOW + 9, b"d", ()),
    ]


def test_sequences_watermarks_and_links_of_successive_frames(journal: Journal, store: Path) -> None:
    """Each frame begins where the one before ended, links to it, and says what was synced before it
    was written.
    """
    write(journal, b"a", b"b", sync=False)
    write(journal, b"c", sync=True)
    write(journal, b"d", sync=True)
    write(journal, b"e", b"f", sync=False)
    headers = [header for _, header, _ in frames_in(store)]
    assert [(header.first_sequence, header.records) for header in headers] == [
        (0, 2),
        (2, 1),
        (3, 1),
        (4, 2),
    ]
    assert [header.watermark for header in headers] == [0, 0, 3, 4]
    assert [header.link for header in headers] == [
        header_in(store).link,
        *(header.check for header in headers[:-1]),
    ]


def test_a_frame_says_whether_it_owed_a_sync(journal: Journal, store: Path) -> None:
    """Recovery can tell a commit whose callers waited for the disk from another."""
    write(journal, b"a", sync=False)
    write(journal, b"b", sync=True)
    assert [bool(header.flags & Flag.OWES_SYNC) for _, header, _ in frames_in(store)] == [
        False,
        True,
    ]


def test_the_time_of_a_frame_is_that_of_its_last_record(journal: Journal, store: Path) -> None:
    """The commit's own time is the latest in it, and the journal remembers it."""
    made = commit(b"a", b"b")
    made.timestamps[:] = [NOW, NOW + 3]
    journal.write(journal.prepare(made))
    assert [header.time for _, header, _ in frames_in(store)] == [NOW + 3]
    assert journal.last_time == NOW + 3


@pytest.mark.parametrize("writes_synced", [True, False])
def test_a_durable_commit_costs_one_sync(store: Path, writes_synced: bool) -> None:
    """At most one sync a commit, counted as it is made, however the system offers it."""
    disk = FailingDisk(writes_synced=writes_synced)
    journal, _ = open_log(store, disk)
    disk.calls.clear()
    for number, payload in enumerate(
        [b"small", b"small", bytes(200_000), b"small", bytes(3 * AHEAD_BYTES)]
    ):
        result = write(journal, payload, payload)
        assert result.syncs == disk.syncs == number + 1
        assert result.synced_sequence == result.next_sequence
    journal.drop()


def test_nothing_is_synced_that_owes_no_sync(journal: Journal, disk: FailingDisk) -> None:
    """Commits without a sync reach the file, in one write each, and nothing more is asked of the
    disk.
    """
    for _ in range(5):
        result = write(journal, b"record", sync=False)
    assert result == CommitResult(5, 0, 0)
    assert [call.method for call in disk.calls] == ["write"] * 5


def test_a_sync_covers_what_came_before(journal: Journal, disk: FailingDisk) -> None:
    """A durable commit behind one that was not synced makes both durable: a write that syncs only
    itself will not do.
    """
    write(journal, b"a", sync=False)
    assert write(journal, bytes(200_000), sync=True) == CommitResult(2, 2, 1)
    assert [call.method for call in disk.calls] == ["write", "write", "sync"]


def test_a_commit_without_records_is_a_sync(
    journal: Journal, disk: FailingDisk, store: Path
) -> None:
    """It writes no frame; it syncs if there is anything to sync."""
    write(journal, b"a", sync=False)
    disk.calls.clear()
    assert write(journal, sync=True) == CommitResult(1, 1, 1)
    assert write(journal, sync=True) == CommitResult(1, 1, 1)
    assert [call.method for call in disk.calls] == ["sync"]
    assert len(frames_in(store)) == 1


def test_preparing_touches_no_disk(journal: Journal, disk: FailingDisk) -> None:
    """All the work that needs no disk is done before it is asked for."""
    journal.prepare(commit(b"record"))
    assert disk.calls == []


# closing


def test_a_close_proves_everything(journal: Journal, store: Path) -> None:
    """Everything is synced, then an empty frame says so; it ends the file, and it is on the disk as
    well.
    """
    write(journal, b"a", b"b", sync=False)
    assert journal.close().synced_sequence == 2
    offset, mark, body = frames_in(store)[-1]
    assert (mark.first_sequence, mark.records, mark.watermark, mark.time) == (2, 0, 2, NOW)
    assert body == b""
    assert segment_in(store).stat().st_size == offset + mark.size


def test_the_order_of_a_close(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """The mark and the manifest speak only for what has been synced before, and are durable
    themselves.
    """
    write(journal, b"a", sync=False)
    disk.calls.clear()
    journal.close()
    segment, unnamed = segment_name(0), MANIFEST + UNNAMED
    assert [(call.method, call.name) for call in disk.calls] == [
        ("sync", segment),
        ("write", segment),
        ("truncate", segment),
        ("sync", segment),
        ("create", unnamed),
        ("write", unnamed),
        ("sync", unnamed),
        ("rename", MANIFEST),
        ("close", MANIFEST),
        ("sync_directory", store.name),
        ("close", segment),
    ]
    assert disk.open_files == {}


def test_a_close_writes_into_the_manifest_how_far_the_log_reaches(
    journal: Journal, store: Path
) -> None:
    """Until then the manifest says what it said: only a clean close knows the end of the log."""
    before = (store / MANIFEST).read_bytes()
    write(journal, b"a", b"b")
    assert (store / MANIFEST).read_bytes() == before
    journal.close()
    assert Manifest.decode((store / MANIFEST).read_bytes()) == Manifest(STORE_ID, 0, 2)


def test_a_close_without_a_record_leaves_the_manifest(journal: Journal, disk: FailingDisk) -> None:
    """It says already how far the log reaches."""
    disk.calls.clear()
    journal.close()
    assert MANIFEST not in {call.name for call in disk.calls}


@pytest.mark.parametrize("method", ["create", "write", "rename"])
def test_no_space_for_the_manifest(
    journal: Journal, disk: FailingDisk, store: Path, method: str
) -> None:
    """Closing succeeds all the same; the old manifest stays, and so does every record."""
    write(journal, b"a")
    before = (store / MANIFEST).read_bytes()
    disk.fail(
        method, errno.ENOSPC, of=MANIFEST if method == "rename" else MANIFEST + UNNAMED, written=20
    )
    assert journal.close().synced_sequence == 1
    assert disk.open_files == {}
    assert (store / MANIFEST).read_bytes() == before
    again, report = open_log(store)
    again.close()
    assert (report.next_sequence, report.cut_bytes) == (1, 0)


@pytest.mark.parametrize("method", ["create", "write", "sync", "rename", "sync_directory"])
def test_a_manifest_that_cannot_be_written(
    journal: Journal, disk: FailingDisk, store: Path, method: str
) -> None:
    """The callers get it, every file is closed, and the next opening finds the log as it was."""
    write(journal, b"a")
    of = {"rename": MANIFEST, "sync_directory": store.name}.get(method, MANIFEST + UNNAMED)
    disk.fail(method, errno.EIO, of=of, written=20)
    with pytest.raises(StoreFailedError) as caught:
        journal.close()
    assert isinstance(caught.value.__cause__, OSError)
    assert disk.open_files == {}
    again, report = open_log(store)
    again.close()
    assert report.next_sequence == 1


def test_a_close_takes_the_zeros_along(journal: Journal, store: Path) -> None:
    """Space written ahead is given back."""
    write(journal, b"a")
    assert segment_in(store).stat().st_size > AHEAD_BYTES
    journal.close()
    assert segment_in(store).stat().st_size < 1000


def test_an_empty_store_is_closed_with_a_mark(journal: Journal, store: Path) -> None:
    """Without any record the mark says that there is none."""
    journal.close()
    ((_, mark, _),) = frames_in(store)
    assert (mark.first_sequence, mark.records, mark.watermark) == (0, 0, 0)


def test_opening_and_closing_writes_no_second_mark(journal: Journal, store: Path) -> None:
    """A store that is opened and closed without a record does not grow."""
    write(journal, b"a")
    journal.close()
    before = segment_in(store).read_bytes()
    for _ in range(3):
        again, _ = open_log(store)
        again.close()
        assert segment_in(store).read_bytes() == before


def test_a_mark_behind_each_life(journal: Journal, store: Path) -> None:
    """A record behind a mark needs a mark of its own at the next close; the log goes on behind the
    first.
    """
    write(journal, b"a")
    journal.close()
    again, _ = open_log(store)
    write(again, b"b")
    again.close()
    assert [(header.records, header.watermark) for _, header, _ in frames_in(store)] == [
        (1, 0),
        (0, 1),
        (1, 1),
        (0, 2),
    ]


def test_a_close_right_after_a_roll(journal: Journal, store: Path) -> None:
    """The new segment gets the mark, so the next opening finds the store closed."""
    fill(journal)
    journal.maintain()
    journal.close()
    again, report = open_log(store)
    again.close()
    assert report.clean
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 3)]


def test_a_close_right_after_a_roll_of_a_marked_segment(store: Path) -> None:
    """The mark in the sealed segment does not speak for the new one: that one is marked too."""
    journal, _ = open_log(store)
    fill(journal)
    journal.close()
    full, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    write(full, sync=True)
    full.maintain()
    full.close()
    again, report = open_log(store)
    again.close()
    assert report.clean
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 3)]


def test_no_space_for_the_mark(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """Closing succeeds all the same: only the proof is missing, and no half of it is left."""
    write(journal, b"a")
    disk.fail("write", errno.ENOSPC, written=30)
    assert journal.close().synced_sequence == 1
    assert len(frames_in(store)) == 1
    again, report = open_log(store)
    again.close()
    assert (report.next_sequence, report.cut_bytes) == (1, 0)


@pytest.mark.parametrize(
    ("method", "nth"), [("sync", 1), ("write", 1), ("truncate", 1), ("sync", 2)]
)
def test_a_close_that_fails(
    journal: Journal, disk: FailingDisk, store: Path, method: str, nth: int
) -> None:
    """The callers are told, the file is let go of, and no sync is repeated."""
    write(journal, b"a", sync=False)
    disk.calls.clear()
    disk.fail(method, errno.EIO, nth=nth)
    with pytest.raises(StoreFailedError) as caught:
        journal.close()
    assert isinstance(caught.value.__cause__, OSError)
    assert disk.open_files == {}
    assert [call.method for call in disk.calls][-2:] == [method, "close"]
    assert data_in(store) == [b"a"]


def test_a_journal_that_is_dropped(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """An opening that nobody waits for any more lets go of the file and writes nothing."""
    before = snapshot(store)
    journal.drop()
    assert [call.method for call in disk.calls] == ["close"]
    assert snapshot(store) == before


# the file as a whole


def test_every_bit_that_a_journal_writes_is_covered(journal: Journal, store: Path) -> None:
    """A turned bit anywhere in a closed segment stops the walk at the frame that holds it."""
    write(journal, b"a")
    write(journal, b"b", sync=False)
    journal.close()
    file, frames = segment_in(store), frames_in(store)
    for offset in range(SEGMENT_HEADER_BYTES, file.stat().st_size):
        flip(file, offset, offset % 8)
        sound = [frame for frame in frames if frame[0] + frame[1].size <= offset]
        assert frames_in(store) == sound, f"byte {offset}"
        flip(file, offset, offset % 8)


def test_the_footer_fits_the_frames(journal: Journal, store: Path) -> None:
    """What a sealed segment says of itself is what its frames amount to."""
    fill(journal)
    journal.maintain()
    contents = SegmentSummary(0, header_in(store).link)
    for _, header, _ in frames_in(store, 0):
        contents.take(header.first_sequence, header.records, header.time, header.size, header.check)
    seed = header_in(store).seed
    assert (
        SegmentSummary.decode_footer(segment_in(store).read_bytes()[contents.end :], seed)
        == contents
    )


def test_all_segments_belong_to_the_store_of_the_manifest(journal: Journal, store: Path) -> None:
    """Every header carries the store id, and the manifest is the only other file."""
    fill(journal)
    journal.maintain()
    assert {header_in(store, first).store_id for first in (0, 3)} == {STORE_ID}
    assert sorted(file.name for file in store.iterdir()) == [
        segment_name(0),
        segment_name(3),
        MANIFEST,
    ]
