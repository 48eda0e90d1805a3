"""journal: rolling from segment to segment, also when any of its calls fails."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from aquipu.engine import CommitResult
from aquipu.errors import AquipuError, StoreFailedError, StoreFullError
from aquipu.local.disk.disk import Disk
from aquipu.local.format.frame import records
from aquipu.local.format.names import UNNAMED, segment_name
from aquipu.local.write.journal import Journal
from tests.disk import ANY, Call, Crash, FailingDisk, undurable_names
from tests.local.logs import SEGMENT_BYTES, THIRD, fill, without_zeros_ahead, write_and_maintain
from tests.support import (
    data_in,
    frames_in,
    header_in,
    open_log,
    records_in,
    segment_in,
    segments_in,
    write,
)

# rolling


def test_a_segment_is_rolled_when_it_is_full(journal: Journal, store: Path) -> None:
    """The records go on in a new segment, named by its first sequence and linked to the last frame
    of the one before.
    """
    fill(journal)
    assert len(segments_in(store)) == 1
    journal.maintain()
    write(journal, b"next")
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 3)]
    assert header_in(store, 3).link == frames_in(store, 0)[-1][1].check
    ((_, header, body),) = frames_in(store, 3)
    assert (header.first_sequence, header.watermark, header.link) == (
        3,
        3,
        header_in(store, 3).link,
    )
    assert records(header, body)[0].data == b"next"


def test_a_roll_that_is_asked_for(journal: Journal, store: Path) -> None:
    """A segment is sealed whatever its size; without a record it is left as it is."""
    for _ in range(2):
        assert journal.roll()
    assert segments_in(store) == [segment_in(store, 0)]
    write(journal, b"one", sync=False)
    for _ in range(2):
        assert journal.roll()
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 1)]
    assert journal.result() == CommitResult(1, 1, 1)
    write(journal, b"two")
    journal.close()
    assert data_in(store) == [b"one", b"two"]


def test_a_segment_that_is_not_full_is_not_rolled(journal: Journal, disk: FailingDisk) -> None:
    """Between commits there is nothing to do, and the disk is left alone."""
    write(journal, THIRD)
    disk.calls.clear()
    journal.maintain()
    assert disk.calls == []


def test_a_commit_larger_than_a_segment(journal: Journal, store: Path) -> None:
    """A commit is never divided: it fills its segment alone, and the next one gets another."""
    write_and_maintain(journal, bytes(3 * SEGMENT_BYTES))
    write_and_maintain(journal, bytes(3 * SEGMENT_BYTES))
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 1), segment_in(store, 2)]


def test_the_order_of_a_roll(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """Header, name, then the footer of the one before, each durable before the next; only then the
    first frame.
    """
    fill(journal)
    disk.calls.clear()
    write_and_maintain(journal, b"one more")
    disk.calls.clear()
    fill(journal)
    disk.calls.clear()
    journal.maintain()
    write(journal, b"first", sync=False)
    old, new = segment_name(4), segment_name(7)
    assert [(call.method, call.name) for call in disk.calls] == [
        ("truncate", old),
        ("create", new + UNNAMED),
        ("write", new + UNNAMED),
        ("sync", new + UNNAMED),
        ("rename", new),
        ("sync_directory", store.name),
        ("write", old),
        ("sync", old),
        ("close", old),
        ("write", new),
    ]


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strides are so short that the segments of these tests are large enough to have their
    successors prepared.
    """
    monkeypatch.setattr("aquipu.local.write.segment_writer.AHEAD_BYTES", SEGMENT_BYTES // 2)


@pytest.mark.usefixtures("prepared")
def test_the_order_of_a_prepared_roll(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """The file is made after one commit and synced after another.

    The roll writes its header, names it, and seals.
    """
    old, new = segment_name(0), segment_name(3)
    spare = old + UNNAMED
    steps: list[list[tuple[str, str]]] = []
    for _ in range(4):
        write(journal, THIRD if len(steps) < 3 else b"first", sync=False)
        disk.calls.clear()
        journal.maintain()
        steps.append([(call.method, call.name) for call in disk.calls])
    assert steps[0] == [("create", spare), ("write", spare)]
    assert steps[1] == [("sync", spare)]
    assert steps[2] == [
        ("write", spare),
        ("sync", spare),
        ("rename", new),
        ("sync_directory", store.name),
        ("write", old),
        ("sync", old),
        ("close", old),
    ]
    assert steps[3] == [("create", new + UNNAMED), ("write", new + UNNAMED)]
    assert data_in(store) == [THIRD, THIRD, THIRD, b"first"]
    assert not without_zeros_ahead(store / (new + UNNAMED))


@pytest.mark.usefixtures("prepared")
def test_a_prepared_file_is_not_left_behind(journal: Journal, store: Path) -> None:
    """A close removes it, durably before the manifest speaks of a clean end: the next opening has
    nothing to do.
    """
    write_and_maintain(journal, b"record")
    assert list(store.glob(f"*{UNNAMED}"))
    journal.close()
    assert not list(store.glob(f"*{UNNAMED}"))
    again, report = open_log(store)
    again.close()
    assert report.clean


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("step", ["create", "write"])
def test_no_space_to_prepare(journal: Journal, disk: FailingDisk, store: Path, step: str) -> None:
    """Nothing is left of it, the log goes on, and it is tried again behind the next commit."""
    write(journal, b"first")
    disk.fail(step, errno.ENOSPC, of=UNNAMED, written=10)
    journal.maintain()
    assert not list(store.glob(f"*{UNNAMED}"))
    write_and_maintain(journal, b"second")
    assert list(store.glob(f"*{UNNAMED}"))
    write_and_maintain(journal, 2 * THIRD)
    write_and_maintain(journal, b"next")
    assert [segment.name for segment in segments_in(store)] == [segment_name(0)]
    write_and_maintain(journal, THIRD)
    assert [segment.name for segment in segments_in(store)] == [segment_name(0), segment_name(5)]
    assert data_in(store) == [b"first", b"second", 2 * THIRD, b"next", THIRD]


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(
    ("step", "nth"),
    [("create", 1), ("write", 1), ("sync", 1), ("write", 2), ("sync", 2), ("rename", 1)],
)
def test_a_prepared_roll_that_fails(
    journal: Journal, disk: FailingDisk, store: Path, step: str, nth: int
) -> None:
    """The journal is poisoned, no file stays open; the next opening finds every commit and removes
    what was prepared.
    """
    disk.fail(step, errno.EIO, of=UNNAMED if step != "rename" else ".segment", nth=nth)
    for _ in range(3):
        with suppress(StoreFailedError):
            write_and_maintain(journal, THIRD, sync=False)
    with pytest.raises(StoreFailedError):
        journal.close()
    assert disk.open_files == {}
    kept = journal.next_sequence
    again, report = open_log(store)
    again.close()
    assert report.next_sequence == kept
    assert data_in(store) == [THIRD] * kept
    assert not list(store.glob(f"*{UNNAMED}"))


def test_a_sealed_segment_is_all_synced(journal: Journal, store: Path) -> None:
    """Also what nobody asked to be synced is durable once its segment is sealed, and the journal
    knows.
    """
    fill(journal, sync=False)
    assert journal.result() == CommitResult(3, 0, 0)
    journal.maintain()
    assert journal.result() == CommitResult(3, 3, 1)
    write(journal, b"next", sync=False)
    assert frames_in(store, 3)[0][1].watermark == 3


def test_the_catalogue_names_every_segment(journal: Journal, store: Path) -> None:
    """Readers are told the segments in their order; the last one grows, the others are sealed."""
    for _ in range(7):
        write_and_maintain(journal, THIRD)
    first, second, third = journal.segments
    assert [ref.first_sequence for ref in journal.segments] == [0, 3, 6]
    assert [ref.path for ref in journal.segments] == [
        str(segment) for segment in segments_in(store)
    ]
    assert [ref.header for ref in journal.segments] == [
        header_in(store, first) for first in (0, 3, 6)
    ]
    assert (first.growing, second.growing) == (None, None)
    assert third.growing is not None
    assert list(third.growing.sequences) == [6]


def test_a_catalogue_that_was_taken_before_a_roll(journal: Journal) -> None:
    """A reader keeps the catalogue that it has taken: it is not changed under its hands."""
    fill(journal)
    taken = journal.segments
    journal.maintain()
    assert len(taken) == 1
    assert len(journal.segments) == 2


# every call in turn


@pytest.fixture(params=["made at the roll", "prepared"])
def successors(request: pytest.FixtureRequest) -> None:
    """When the files of the next segments are made."""
    if request.param == "prepared":
        request.getfixturevalue("prepared")


def live(store: Path, disk: Disk, acknowledged: list[bytes]) -> None:
    """A life that makes a store, fills three segments and closes; notes each record that was
    acknowledged as synced.
    """
    journal, _ = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    try:
        for number in range(8):
            payload = b"%d" % number * 1500
            with suppress(StoreFullError):
                write(journal, payload)
                acknowledged.append(payload)
            journal.maintain()
    finally:
        journal.close()


def lives_with(
    fault: Callable[[FailingDisk, int], object], path: Path
) -> Iterator[tuple[Path, FailingDisk, list[bytes]]]:
    """A life for each call of the disk that it makes, with this fault at that call."""
    for nth in count(1):
        store, disk = path / str(nth), FailingDisk()
        store.mkdir()
        acknowledged: list[bytes] = []
        fault(disk, nth)
        with suppress(AquipuError, Crash):
            live(store, disk, acknowledged)
        if not disk.failures:
            assert len(acknowledged) == 8
            assert nth > 40
            return
        yield store, disk, acknowledged
        disk.end_process()


def check_next_life(store: Path, before: FailingDisk, acknowledged: list[bytes]) -> None:
    """All that was acknowledged is there, in order; the store goes on without a gap; no name can
    get lost any more.
    """
    why = f"failed at {failed_call(before)}"
    before.end_process()
    disk = FailingDisk()
    journal, report = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    assert report.next_sequence - len(acknowledged) in (0, 1), why  # one may have been under way
    write(journal, b"next life")
    assert undurable_names([*before.calls, *disk.calls]) == set(), why
    journal.maintain()
    journal.close()
    found = records_in(store)
    assert [record.data for record in found][: len(acknowledged)] == acknowledged, why
    assert [record.sequence for record in found] == list(range(report.next_sequence + 1)), why
    last, report = open_log(store)
    last.close()
    assert report.clean, why


def failed_call(disk: FailingDisk) -> Call:
    """The first call that failed."""
    return next(call for call in disk.calls if call.failed)


@pytest.mark.usefixtures("successors")
def test_a_crash_before_every_call(tmp_path: Path) -> None:
    """Wherever a process ends, in creating, committing, rolling or closing: the next one finds what
    was acknowledged.
    """
    for store, disk, acknowledged in lives_with(FailingDisk.crash, tmp_path):
        check_next_life(store, disk, acknowledged)


@pytest.mark.usefixtures("successors")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_at_every_call(tmp_path: Path, number: int) -> None:
    """Whichever call fails once, with an error of the tree or none: what was acknowledged is there
    afterwards.
    """

    def fault(disk: FailingDisk, nth: int) -> None:
        disk.fail(ANY, number, nth=nth, written=40)

    for store, disk, acknowledged in lives_with(fault, tmp_path):
        check_next_life(store, disk, acknowledged)


@pytest.mark.usefixtures("successors")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_no_sync_follows_one_that_failed(tmp_path: Path, number: int) -> None:
    """Of a file or of a directory, in a commit, a roll or a close: once one has failed, none is
    asked for again.
    """

    def fault(disk: FailingDisk, nth: int) -> None:
        disk.fail(ANY, number, nth=nth)

    for _, disk, _ in lives_with(fault, tmp_path):
        failed = failed_call(disk)
        if failed.method in ("sync", "sync_directory"):
            later = disk.calls[disk.calls.index(failed) + 1 :]
            assert {call.method for call in later} <= {"close"}, f"after {failed}"


@pytest.mark.usefixtures("successors")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_no_file_is_left_open_after_any_error(tmp_path: Path, number: int) -> None:
    """A store that has failed is opened again in the same process, so a failure may not cost a
    descriptor each time.
    """

    def fault(disk: FailingDisk, nth: int) -> None:
        disk.fail(ANY, number, nth=nth)

    left_open = [
        (failed_call(disk), disk.open_files)
        for _, disk, _ in lives_with(fault, tmp_path)
        if disk.open_files
    ]
    assert left_open == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_close_of_a_sealed_segment_that_reports_an_error(
    journal: Journal, disk: FailingDisk, store: Path, number: int
) -> None:
    """The file is sealed and synced by then, and its descriptor is gone whatever close says: the
    log goes on behind it.
    """
    fill(journal)
    disk.fail("close", number)
    journal.maintain()
    write_and_maintain(journal, b"next")
    journal.close()
    assert data_in(store) == [THIRD, THIRD, THIRD, b"next"]
