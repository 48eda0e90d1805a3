"""recovery: rolls and purges that were cut short, and openings that fail at any of their calls."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from aquipu.errors import StoreUnavailableError
from aquipu.local.disk.disk import Disk
from aquipu.local.format.frame import HEADER_BYTES
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import MANIFEST, UNNAMED, cut_name, relations_name, segment_name
from aquipu.local.format.segment import FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.read.examine import examine
from aquipu.local.retain.manifest import write_manifest
from aquipu.local.write.journal import Journal
from tests.disk import ANY, Crash, FailingDisk, undurable_names
from tests.local.logs import (
    SEGMENT_BYTES,
    THIRD,
    corruption,
    end_of,
    live,
    put,
    reopen,
    rolled,
    seal,
    successor,
)
from tests.support import (
    NOW,
    STORE_ID,
    copy_of,
    data_in,
    flip,
    frames_in,
    open_log,
    segment_in,
    segments_in,
    snapshot,
    write,
)

# a roll that was cut short


def full(store: Path) -> list[bytes]:
    """A store whose only segment is full, left by a crash before its roll."""
    payloads = [bytes([number]) + THIRD for number in range(3)]
    journal, _ = open_log(store)
    for payload in payloads:
        write(journal, payload, sync=False)
    journal.drop()
    return payloads


def unnamed_successor(store: Path) -> None:
    """The file of the next segment before it has its name."""
    (store / (segment_name(3) + UNNAMED)).write_bytes(b"aquipuSG")


def prepared_successor(store: Path) -> None:
    """It has zeros for its first frames."""
    last = successor(store, 3)
    last.write_bytes(last.read_bytes() + bytes(5000))


def empty_successor(store: Path) -> None:
    """The next segment with its header and nothing else."""
    successor(store, 3)


def half_footer(store: Path) -> None:
    """A footer as a write leaves it that was cut short."""
    seal(store)
    segment_in(store).write_bytes(segment_in(store).read_bytes()[:-40])


def damaged_footer(store: Path) -> None:
    """A whole footer that does not check."""
    seal(store)
    flip(segment_in(store), -1)


Steps = tuple[Callable[[Path], object], ...]
ROLLS: dict[str, Steps] = {
    "the successor is not named": (unnamed_successor,),
    "there is no footer": (empty_successor,),
    "half a footer": (empty_successor, half_footer),
    "a damaged footer": (empty_successor, damaged_footer),
    "a whole footer": (empty_successor, seal),
    "there is no footer, and the successor was prepared": (prepared_successor,),
    "half a footer, and the successor was prepared": (prepared_successor, half_footer),
    "a whole footer, and the successor was prepared": (prepared_successor, seal),
}


def bring(store: Path, steps: Steps) -> list[bytes]:
    """Bring a store with a full segment into a state; gives the data that it holds."""
    payloads = full(store)
    for step in steps:
        step(store)
    return payloads


@pytest.mark.parametrize("state", ROLLS)
def test_a_roll_that_was_cut_short(store: Path, state: str) -> None:
    """The empty successor is removed, durably, and the log goes on in the segment before it,
    without a gap.
    """
    payloads = bring(store, ROLLS[state])
    disk = FailingDisk()
    journal, report = open_log(store, disk)
    assert (report.clean, report.next_sequence, report.segments) == (False, 3, 1)
    assert bool(report.cut_bytes) == state.startswith(("half a footer", "a damaged footer"))
    assert segments_in(store) == [segment_in(store)]
    assert not list(store.glob(f"*{UNNAMED}"))
    assert undurable_names(disk.calls) == set()
    assert disk.steps("remove", "sync_directory")[-1] == ("sync_directory", store.name)
    write(journal, b"next")
    journal.close()
    assert data_in(store) == [*payloads, b"next"]
    assert reopen(store).clean


def test_the_index_of_a_segment_that_goes_on(store: Path) -> None:
    """A roll that is undone may have been whole, and its segment indexed: that index is removed,
    durably.
    """
    bring(store, ROLLS["a whole footer"])
    (store / relations_name(0)).write_bytes(b"of a former life")
    disk = FailingDisk()
    journal, report = open_log(store, disk)
    journal.drop()
    assert not report.clean
    assert not (store / relations_name(0)).exists()
    assert undurable_names(disk.calls) == set()


@pytest.mark.parametrize("state", ROLLS)
def test_a_crash_while_a_roll_is_undone(tmp_path: Path, store: Path, state: str) -> None:
    """Wherever this opening ends, before any of its calls, the next one finds every record and
    finishes the work.
    """
    payloads = bring(store, ROLLS[state])
    for nth in count(1):
        crashed, disk = copy_of(store, f"{nth}"), FailingDisk()
        disk.crash(nth)
        with suppress(Crash):
            open_log(crashed, disk)
        disk.end_process()
        assert reopen(crashed).next_sequence == 3, f"crashed before {disk.calls[-1]}"
        assert data_in(crashed) == payloads
        if not disk.failures:
            break


def test_a_new_segment_without_a_whole_frame(store: Path) -> None:
    """Its predecessor is sealed, so it stays: its first commit was under way."""
    payloads = full(store)
    successor(store, 3)
    seal(store)
    segment_in(store, 3).write_bytes(segment_in(store, 3).read_bytes() + b"torn")
    report = reopen(store)
    assert (report.next_sequence, report.segments) == (3, 2)
    assert data_in(store) == payloads


def test_a_segment_without_a_footer_before_one_with_frames(store: Path) -> None:
    """The footer is on the disk before the successor gets its first frame: this one has lost it."""
    rolled(store)
    segment = segment_in(store, 6)
    segment.write_bytes(segment.read_bytes()[: -FOOTER_BYTES - 24])
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment), segment.stat().st_size)


def test_a_segment_without_a_footer_before_the_last_two(store: Path) -> None:
    """Only the last two segments can be unfinished, also behind an empty one."""
    rolled(store)
    last = segment_in(store, 9)
    last.write_bytes(last.read_bytes()[:SEGMENT_HEADER_BYTES])
    segment = segment_in(store, 3)
    segment.write_bytes(segment.read_bytes()[: -FOOTER_BYTES - 24])
    assert corruption(store).path == str(segment)


def test_an_empty_successor_with_a_damaged_header(store: Path) -> None:
    """A name was given only to a sound header: this is damage, and not the rest of a roll."""
    full(store)
    last = successor(store, 3)
    flip(last, 50)
    assert corruption(store).path == str(last)


@pytest.mark.parametrize(("first", "link"), [(3, 0x12345678), (4, None)])
def test_an_empty_segment_that_does_not_follow_the_seal(
    store: Path, first: int, link: int | None
) -> None:
    """A sealed segment has a successor that continues it: any other empty one is not what its roll
    has left.
    """
    full(store)
    seal(store)
    link = frames_in(store)[-1][1].check if link is None else link
    segment_in(store, first).write_bytes(SegmentHeader(STORE_ID, first, NOW, link).encode())
    assert corruption(store).path == str(segment_in(store))


def test_a_damaged_commit_in_a_segment_whose_roll_was_cut_short(store: Path) -> None:
    """That the roll is undone does not hide damage: what a later frame proves is found as ever."""
    journal, _ = open_log(store)
    for _ in range(3):
        write(journal, THIRD)
    journal.drop()
    successor(store, 3)
    seal(store)
    offset = frames_in(store)[0][0]
    flip(segment_in(store), offset + HEADER_BYTES)
    assert corruption(store).offset == offset


# the operating system refuses


def torn_tail(store: Path) -> None:
    """Bytes that are no frame behind the last one."""
    put(store, b"torn")


def unfinished_copy(store: Path) -> None:
    """A file that would have kept the torn tail, had it been finished."""
    (store / (cut_name(0, end_of(store)) + UNNAMED)).write_bytes(b"to")


TROUBLES: dict[str, Steps] = {
    "a closed store": (live,),
    "unproven frames": (),
    "a torn tail": (torn_tail,),
    "an unfinished file": (unfinished_copy,),
    "a torn tail and its unfinished copy": (unfinished_copy, torn_tail),
    "a roll": ROLLS["a whole footer"],
}


def openings(
    fault: Callable[[FailingDisk, int], object], store: Path
) -> Iterator[tuple[Path, FailingDisk, Journal | None]]:
    """An opening for each call of the disk that it makes, with this fault at that call."""
    for nth in count(1):
        path, disk = copy_of(store, f"{store.name}-{nth}"), FailingDisk()
        fault(disk, nth)
        journal = None
        with suppress(StoreUnavailableError, Crash):
            journal, _ = open_log(path, disk)
        if not disk.failures:
            assert nth > 5
            return
        yield path, disk, journal


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_an_error_at_every_call_of_an_opening(store: Path, trouble: str, number: int) -> None:
    """It is StoreUnavailableError or none, no file is left open, and the next opening finds
    everything.
    """
    payloads = bring(store, TROUBLES[trouble])
    for path, disk, journal in openings(
        lambda disk, nth: disk.fail(ANY, number, nth=nth, written=3), store
    ):
        why = next(call for call in disk.calls if call.failed)
        if journal is not None:
            journal.drop()
        assert disk.open_files == {}, why
        assert reopen(path).next_sequence == 3, why
        assert data_in(path) == payloads, why


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_crash_before_every_call_of_an_opening(store: Path, trouble: str) -> None:
    """Wherever an opening ends, the next one finds everything, keeps what was cut, and has durable
    names.
    """
    payloads = bring(store, TROUBLES[trouble])
    for path, before, _ in openings(FailingDisk.crash, store):
        why = before.calls[-1]
        before.end_process()
        after = FailingDisk()
        assert reopen(path, after).next_sequence == 3, why
        assert data_in(path) == payloads, why
        assert undurable_names([*before.calls, *after.calls]) == set(), why
        assert not list(path.glob(f"*{UNNAMED}")), why
        if "torn" in trouble:
            assert [file.read_bytes() for file in path.glob("*.cut-*")] == [b"torn"], why


def test_a_failed_sync_of_an_opening_is_not_repeated(store: Path) -> None:
    """When the frames that were found cannot be made durable, the store is not opened; a new
    opening writes them again.
    """
    full(store)
    disk = FailingDisk()
    disk.fail("sync", errno.EIO)
    with pytest.raises(StoreUnavailableError, match="fdatasync") as caught:
        open_log(store, disk)
    assert isinstance(caught.value.__cause__, OSError)
    assert disk.count("sync") == 1
    again = FailingDisk()
    report = reopen(store, again)
    assert report.rewritten_bytes > 3 * len(THIRD)


# examining


@pytest.mark.parametrize("trouble", TROUBLES)
def test_examining_changes_nothing(store: Path, trouble: str) -> None:
    """What opening finds is found without a single write: a reader in another process may look at
    any time.
    """
    bring(store, TROUBLES[trouble])
    before, disk = snapshot(store), FailingDisk()
    findings = examine(disk, str(store))
    assert findings is not None
    assert snapshot(store) == before
    assert {call.method for call in disk.calls} <= {"list", "open", "read", "size", "close"}
    assert disk.open_files == {}


def test_examining_a_directory_without_a_store(store: Path) -> None:
    """There is nothing to be found, and nothing is made."""
    assert examine(FailingDisk(), str(store)) is None
    assert list(store.iterdir()) == []


# what a purge has left


def purged(store: Path, first_sequence: int) -> None:
    """Have the manifest say that the log begins here; the files before are left over."""
    manifest = Manifest.decode((store / MANIFEST).read_bytes())
    write_manifest(Disk(), str(store), manifest._replace(first_sequence=first_sequence))


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("first", [3, 6, 9])
def test_segments_before_the_first_sequence(store: Path, first: int, close: bool) -> None:
    """They are no part of the log, and opening removes them and their indexes; a purge cut short is
    no trouble.
    """
    payloads = rolled(store, close=close)
    purged(store, first)
    for left in (0, 3, 6):
        (store / relations_name(left)).touch()
    disk = FailingDisk()
    journal, report = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    assert (report.clean, report.first_sequence, report.segments) == (close, first, 4 - first // 3)
    assert journal.segments[0].first_sequence == first
    kept = {
        name(left)
        for left in (0, 3, 6, 9)
        if left >= first
        for name in (segment_name, relations_name)
    }
    assert {file.name for file in store.iterdir()} - {relations_name(9)} == (kept | {MANIFEST}) - {
        relations_name(9)
    }
    assert data_in(store) == payloads[first:]
    removed = [call for call in disk.calls if call.method in ("remove", "sync_directory")]
    assert removed[0].method == "sync_directory", (
        "the name of the manifest that says so may not be durable yet"
    )
    journal.drop()


@pytest.mark.parametrize(
    "spoil", [lambda file: flip(file, 30), lambda file: file.write_bytes(b""), Path.unlink]
)
def test_damage_in_what_was_purged(store: Path, spoil: Callable[[Path], object]) -> None:
    """What lies before the first sequence is not looked at: it may be whole, half or damaged."""
    payloads = rolled(store)
    spoil(segment_in(store, 3))
    corruption(store)
    purged(store, 6)
    findings = examine(Disk(), str(store))
    assert findings is not None
    assert findings.left_over == ([0] if not segment_in(store, 3).exists() else [0, 3])
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    journal.drop()
    assert data_in(store) == payloads[6:]


@pytest.mark.parametrize("first", [1, 2, 4, 5, 10, 2**64 - 1])
def test_a_first_sequence_where_no_segment_begins(store: Path, first: int) -> None:
    """The first segment kept begins exactly there: anything else has lost it, and nothing is
    removed.
    """
    rolled(store)
    purged(store, first)
    before = snapshot(store)
    assert corruption(store).path == str(segment_in(store, first))
    assert snapshot(store) == before


def test_a_first_segment_that_is_missing_is_no_purge(store: Path) -> None:
    """Only the manifest says what was purged."""
    rolled(store)
    segment_in(store, 0).unlink()
    assert corruption(store).path == str(segment_in(store, 0))


def test_a_left_over_file_that_is_being_read(store: Path) -> None:
    """Opening leaves it, and all behind it, for another time."""
    rolled(store)
    purged(store, 9)
    disk = Disk()
    reader = disk.open(str(segment_in(store, 3)))
    assert disk.try_hold(reader)
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    assert [int(file.stem) for file in segments_in(store)] == [3, 6, 9]
    disk.close(reader)
    journal.close()
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    assert [int(file.stem) for file in segments_in(store)] == [9]
    journal.drop()


def test_a_bookmark_that_is_being_made(store: Path) -> None:
    """Opening removes what a dead writer left, and leaves what somebody holds; neither makes the
    store unclean.
    """
    rolled(store)
    dead, alive = store / "backup.hold.4711-1.unnamed", store / "billing.cursor.4712-1.unnamed"
    for file in (dead, alive):
        file.write_bytes(b"half")
    disk = Disk()
    writer = disk.open(str(alive))
    assert disk.try_hold(writer)
    journal, report = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    assert report.clean
    assert not dead.exists()
    assert alive.exists()
    disk.close(writer)
    journal.drop()
