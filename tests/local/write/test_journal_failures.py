"""journal: what a full disk and a failing one leave, and what callers are told."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from aquipu.engine import CommitResult
from aquipu.errors import StoreFailedError, StoreFullError
from aquipu.local.format.names import UNNAMED, segment_name
from aquipu.local.write.journal import Journal
from tests.disk import FailingDisk, undurable_names
from tests.local.logs import NO_SPACE, THIRD, fill, without_zeros_ahead, write_and_maintain
from tests.support import data_in, frames_in, open_log, segment_in, segments_in, snapshot, write

# no space


@pytest.mark.parametrize("number", NO_SPACE)
def test_no_space_for_a_commit(
    journal: Journal, disk: FailingDisk, store: Path, number: int
) -> None:
    """Nothing of the commit is kept: the file is as it was, byte for byte, also on the disk."""
    write(journal, b"kept", sync=False)
    before = segment_in(store).read_bytes()
    disk.fail("write", number, written=70)
    with pytest.raises(StoreFullError) as caught:
        write(journal, b"refused", sync=False)
    assert segment_in(store).read_bytes() == before
    assert disk.steps("truncate", "sync") == [
        ("truncate", segment_name(0)),
        ("sync", segment_name(0)),
    ]
    assert (caught.value.path, caught.value.sequence) == (str(store), 1)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == number


@pytest.mark.parametrize(
    ("method", "payload"), [("write", b"refused"), ("write_synced", bytes(200_000))]
)
def test_no_space_for_a_durable_commit(
    journal: Journal, disk: FailingDisk, store: Path, method: str, payload: bytes
) -> None:
    """Also where zeros stand ahead, nothing is left behind the last frame, and nothing before it is
    touched.
    """
    write(journal, b"kept")
    before = without_zeros_ahead(segment_in(store))
    disk.fail("write_synced", errno.ENOSPC, written=70)
    with pytest.raises(StoreFullError):
        write(journal, payload)
    assert segment_in(store).read_bytes() == before
    assert data_in(store) == [b"kept"]


@pytest.mark.parametrize("sync", [True, False])
def test_space_again(journal: Journal, disk: FailingDisk, store: Path, sync: bool) -> None:
    """The next commit gets the sequence and the place of the refused one, without reopening: no
    gap.
    """
    write(journal, b"a", sync=sync)
    disk.fail("write", errno.ENOSPC, written=70, forever=True)
    disk.fail("write_synced", errno.ENOSPC, written=70, forever=True)
    for _ in range(3):
        with pytest.raises(StoreFullError) as caught:
            write(journal, b"refused", b"refused too", sync=sync)
        assert caught.value.sequence == 1
    disk.mend()
    assert write(journal, b"b", sync=sync).next_sequence == 2
    assert data_in(store) == [b"a", b"b"]
    first, second = (header for _, header, _ in frames_in(store))
    assert (second.first_sequence, second.link) == (1, first.check)


def test_a_commit_that_is_cut_back_makes_the_rest_durable(
    journal: Journal, disk: FailingDisk
) -> None:
    """The cut syncs the whole file, and the result says so."""
    write(journal, b"kept", sync=False)
    disk.fail("write", errno.ENOSPC)
    with pytest.raises(StoreFullError):
        write(journal, b"refused", sync=False)
    assert journal.result() == CommitResult(1, 1, 1)


@pytest.mark.parametrize("method", ["truncate", "sync"])
def test_a_commit_that_cannot_be_cut_back(journal: Journal, disk: FailingDisk, method: str) -> None:
    """If half a commit may have stayed, the outcome is unknown: the journal is poisoned."""
    write(journal, b"kept", sync=False)
    disk.fail("write", errno.ENOSPC, written=70)
    disk.fail(method, errno.EIO)
    with pytest.raises(StoreFailedError, match="outcome unknown"):
        write(journal, b"refused", sync=False)
    assert journal.failure is not None


def test_no_space_to_write_ahead(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """Where there is space for a commit and not for the zeros behind it, the commit is stored."""
    disk.fail("write", errno.ENOSPC, written=1000)
    assert write(journal, b"record") == CommitResult(1, 1, 1)
    assert data_in(store) == [b"record"]


def test_zeros_that_cannot_be_taken_back(journal: Journal, disk: FailingDisk) -> None:
    """When there is no space for them and no way back either, the outcome is unknown: the journal
    is poisoned.
    """
    disk.fail("write", errno.ENOSPC, written=1000)
    disk.fail("truncate", errno.EIO)
    with pytest.raises(StoreFailedError, match="truncating"):
        write(journal, b"record")
    assert disk.calls[-1].method == "truncate"


@pytest.mark.parametrize("step", ["create", "write", "rename"])
def test_no_space_for_the_next_segment(
    journal: Journal, disk: FailingDisk, store: Path, step: str
) -> None:
    """The log goes on in the segment at hand, and rolls when there is space again."""
    fill(journal)
    disk.fail(step, errno.ENOSPC, of=UNNAMED if step != "rename" else ".segment", written=10)
    journal.maintain()
    assert segments_in(store) == [segment_in(store, 0)]
    assert not list(store.glob(f"*{UNNAMED}"))
    write(journal, b"goes on")
    journal.maintain()
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 4)]
    write(journal, b"next")
    assert data_in(store) == [THIRD, THIRD, THIRD, b"goes on", b"next"]


@pytest.mark.parametrize("sync", [True, False])
def test_no_space_for_the_footer(
    journal: Journal, disk: FailingDisk, store: Path, sync: bool
) -> None:
    """The empty successor is removed, durably, before the old segment goes on; it rolls later."""
    fill(journal, sync=sync)
    before = without_zeros_ahead(segment_in(store))
    disk.calls.clear()
    disk.fail("write", errno.ENOSPC, of=segment_name(0), written=20)
    journal.maintain()
    assert segments_in(store) == [segment_in(store, 0)]
    assert without_zeros_ahead(segment_in(store)) == before
    assert undurable_names(disk.calls) == set()
    assert disk.steps("remove", "sync_directory")[-2:] == [
        ("remove", segment_name(3)),
        ("sync_directory", store.name),
    ]
    write(journal, b"goes on", sync=sync)
    journal.maintain()
    write(journal, b"next", sync=sync)
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 4)]
    assert data_in(store) == [THIRD, THIRD, THIRD, b"goes on", b"next"]


@pytest.mark.parametrize("method", ["remove", "sync_directory"])
def test_an_unused_segment_that_cannot_be_removed(
    journal: Journal, disk: FailingDisk, store: Path, method: str
) -> None:
    """A successor that may still be there must not be outgrown by the one before it: the journal is
    poisoned.
    """
    fill(journal)
    disk.fail("write", errno.ENOSPC, of=segment_name(0))
    disk.fail(method, errno.EIO, nth=1 if method == "remove" else 2)
    with pytest.raises(StoreFailedError):
        journal.maintain()
    with pytest.raises(StoreFailedError):
        journal.close()
    assert disk.open_files == {}
    again, report = open_log(store)
    again.close()
    assert report.next_sequence == 3
    assert data_in(store) == [THIRD, THIRD, THIRD]


def test_no_space_for_many_rolls(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """However long the space is missing, every commit that fits is kept, and one reopening finds
    them all.
    """
    disk.fail("create", errno.ENOSPC, forever=True)
    for number in range(10):
        write_and_maintain(journal, b"%d" % number * 1000)
    journal.close()
    again, report = open_log(store)
    again.drop()
    assert report.clean
    assert data_in(store) == [b"%d" % number * 1000 for number in range(10)]


# the disk fails


@pytest.mark.parametrize(
    ("method", "writes_synced", "nth_commit"),
    [("sync", False, 1), ("sync", True, 1), ("write_synced", True, 2)],
)
def test_a_sync_that_fails(store: Path, method: str, writes_synced: bool, nth_commit: int) -> None:
    """The commit's outcome is unknown, the cause is named, and no sync is ever asked for again."""
    disk = FailingDisk(writes_synced=writes_synced)
    journal, _ = open_log(store, disk)
    for _ in range(nth_commit - 1):
        write(journal, b"synced")
    disk.fail(method, errno.EIO)
    with pytest.raises(StoreFailedError, match="outcome unknown") as caught:
        write(journal, b"lost or not")
    assert caught.value.path == str(store)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EIO
    syncs = disk.syncs
    refused = [lambda: write(journal, b"later"), lambda: write(journal, sync=True), journal.close]
    for call in refused:
        with pytest.raises(StoreFailedError):
            call()
    journal.maintain()
    assert disk.syncs == syncs


def test_a_poisoned_journal_leaves_the_disk_alone(
    journal: Journal, disk: FailingDisk, store: Path
) -> None:
    """After a failure nothing is written, synced, rolled or cut; closing only closes the file."""
    fill(journal)
    disk.fail("sync", errno.EIO)
    write(journal, b"unsynced", sync=False)
    with pytest.raises(StoreFailedError):
        write(journal, b"lost or not")
    before = snapshot(store)
    disk.calls.clear()
    for sync in (True, False):
        with pytest.raises(StoreFailedError):
            write(journal, b"later", sync=sync)
    with pytest.raises(StoreFailedError):
        write(journal, sync=True)
    journal.maintain()
    assert disk.calls == []
    with pytest.raises(StoreFailedError):
        journal.close()
    assert [call.method for call in disk.calls] == ["close"]
    assert disk.open_files == {}
    assert snapshot(store) == before


def test_a_failure_keeps_what_was_synced_before_it(journal: Journal, disk: FailingDisk) -> None:
    """Readers may go on up to the last synced record: the journal still knows where that is."""
    write(journal, b"synced")
    write(journal, b"flushed", sync=False)
    disk.fail("sync", errno.EIO)
    with pytest.raises(StoreFailedError):
        write(journal, b"lost or not")
    assert journal.result().synced_sequence == 1


@pytest.mark.parametrize(
    ("method", "sync"), [("write", False), ("write", True), ("write_synced", True)]
)
def test_a_write_that_fails(journal: Journal, disk: FailingDisk, method: str, sync: bool) -> None:
    """Any error but a lack of space poisons the journal at once: nothing is cut, nothing is tried
    again.
    """
    if method == "write_synced":
        write(journal, b"synced")
    disk.calls.clear()
    disk.fail(method, errno.EIO, written=30)
    with pytest.raises(StoreFailedError, match="Input/output error"):
        write(journal, b"lost or not", sync=sync)
    assert [call.method for call in disk.calls] == [method]


def test_each_caller_gets_an_error_of_its_own(journal: Journal, disk: FailingDisk) -> None:
    """Every refusal is a new object with the same words and the same cause, that of the first
    failure.
    """
    disk.fail("write", errno.EIO)
    errors = []
    for _ in range(3):
        with pytest.raises(StoreFailedError) as caught:
            write(journal, b"record", sync=False)
        errors.append(caught.value)
    errors.append(journal.fail("something else", ValueError("later")))
    assert len({id(error) for error in errors}) == 4
    assert len({str(error) for error in errors}) == 1
    assert len({id(error.__cause__) for error in errors}) == 1


def test_an_unexpected_error_poisons_too(journal: Journal, disk: FailingDisk) -> None:
    """A defect of the engine leaves no half-written commit: the first word on it stands."""
    defect = ValueError()
    error = journal.fail("an unexpected error", defect)
    assert "an unexpected error: ValueError" in str(error)
    assert error.__cause__ is defect
    disk.calls.clear()
    with pytest.raises(StoreFailedError):
        write(journal, b"record")
    assert disk.calls == []


@pytest.mark.parametrize(
    ("method", "of"),
    [
        ("create", ""),
        ("write", UNNAMED),
        ("sync", UNNAMED),
        ("rename", ""),
        ("sync_directory", ""),
        ("truncate", ""),
        ("write", segment_name(0)),
        ("sync", segment_name(0)),
    ],
)
def test_a_roll_that_fails(
    journal: Journal, disk: FailingDisk, store: Path, method: str, of: str
) -> None:
    """The journal is poisoned, refuses what comes without touching the disk, and every commit is
    there afterwards.
    """
    fill(journal)
    disk.fail(method, errno.EIO, of=of)
    with pytest.raises(StoreFailedError):
        journal.maintain()
    disk.calls.clear()
    with pytest.raises(StoreFailedError):
        write(journal, b"later")
    assert disk.calls == []
    with pytest.raises(StoreFailedError):
        journal.close()
    assert disk.open_files == {}, "a file of the roll was left open"
    again, _ = open_log(store)
    again.close()
    assert data_in(store) == [THIRD, THIRD, THIRD]


def test_a_directory_that_cannot_be_synced_is_not_asked_again(
    journal: Journal, disk: FailingDisk, store: Path
) -> None:
    """A failed fsync of a directory poisons like a failed fdatasync: its new name may be lost."""
    fill(journal)
    disk.calls.clear()
    disk.fail("sync_directory", errno.EIO)
    with pytest.raises(StoreFailedError, match="fsync of the directory"):
        journal.maintain()
    with pytest.raises(StoreFailedError):
        journal.close()
    assert disk.count("sync_directory") == 1
    assert disk.count("sync") == 1  # of the header, before it


def test_a_seal_that_fails_syncs_nothing_again(journal: Journal, disk: FailingDisk) -> None:
    """When the sync of a footer fails, neither the old segment nor the new is synced again."""
    fill(journal)
    disk.calls.clear()
    disk.fail("sync", errno.EIO, of=segment_name(0))
    with pytest.raises(StoreFailedError, match="fdatasync"):
        journal.maintain()
    assert disk.steps("sync", "write_synced") == [
        ("sync", segment_name(3) + UNNAMED),
        ("sync", segment_name(0)),
    ]
