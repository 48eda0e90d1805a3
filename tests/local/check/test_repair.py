"""repair: each kind of damage made whole, with everything that was sound as it was, also across
crashes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from aquipu.errors import (
    CorruptionError,
    NotAStoreError,
    StoreLockedError,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from aquipu.local.check.actions import RepairAction
from aquipu.local.check.placeholder import LOST, WRITER
from aquipu.local.check.repair import repairing
from aquipu.local.check.verify import verify_all
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock
from aquipu.local.format.frame import KNOWN_FLAGS, keys_of
from aquipu.local.format.names import (
    ACKNOWLEDGED,
    LOCK,
    MANIFEST,
    BookmarkKind,
    first_sequence_of,
    is_ours,
    relations_name,
    segment_name,
)
from aquipu.local.format.segment import FOOTER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.format.structure import extend
from aquipu.local.index.table import Table, build
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.retain.bookmarks import list_bookmarks, write_bookmark
from aquipu.record import Record
from tests.disk import Crash, FailingDisk
from tests.faults.volatile_disk import Replay, VolatileDisk
from tests.local.logs import SEGMENT_BYTES
from tests.support import (
    NOW,
    STORE_ID,
    commit,
    copy_of,
    flip,
    frames_in,
    header_in,
    open_log,
    records_in,
    segment_in,
    segments_in,
    snapshot,
)

RECORDS = 60


def payload(sequence: int) -> bytes:
    return b"record %3d " % sequence * 23


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "store"
    path.mkdir()
    fill(path, RECORDS)
    write_bookmark(FailingDisk(), str(path), STORE_ID, BookmarkKind.HOLD, "backup", 20)
    write_bookmark(FailingDisk(), str(path), STORE_ID, BookmarkKind.CURSOR, "billing", 30)
    assert len(segments_in(path)) == 5
    assert [len(frames_in(path, first)) for first in firsts(path)] == [5, 5, 5, 5, 1]
    return path


def fill(path: Path, number: int) -> None:
    """Append so many records, three in a commit, and close the log."""
    journal, report = open_log(path, max_segment_bytes=SEGMENT_BYTES)
    for first in range(report.next_sequence, report.next_sequence + number, 3):
        some = range(first, first + 3)
        labels: dict[int, tuple[str, ...]] = {0: (f"first:{first}", "every")}
        journal.write(journal.prepare(commit(*map(payload, some), time=NOW + first, labels=labels)))
        journal.maintain()
    journal.close()


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """Sealed segments of 15 records in 5 frames each, and an empty active one with a mark."""
    return Path(shutil.copytree(made, tmp_path / "store"))


def firsts(path: Path) -> list[int]:
    return [
        first for file in segments_in(path) if (first := first_sequence_of(file.name)) is not None
    ]


def repaired(path: Path, disk: Disk | None = None) -> list[RepairAction]:
    with repairing(disk or FailingDisk(), str(path)) as repair:
        return repair.carry_out()


def assert_whole(path: Path, before: list[Record], lost: set[int]) -> None:
    """The store is sound, opens, holds every record that is not lost as it was, and says of the
    others that they are.
    """
    assert verify_all(Disk(), str(path)).damages == []
    found = records_in(path)
    assert [record.sequence for record in found] == list(
        range(before[0].sequence, len(before) + before[0].sequence)
    )
    for record, original in zip(found, before, strict=True):
        if record.sequence in lost:
            assert (record.data, record.relations) == (b"", (LOST,))
        else:
            assert record == original
    assert [record.timestamp for record in found] == sorted(record.timestamp for record in found)
    copy = copy_of(path, "opened")
    journal, report = open_log(copy)
    journal.close()
    assert report.next_sequence == before[-1].sequence + 1
    assert all(map(is_ours, (file.name for file in path.iterdir())))


def without_lock(path: Path) -> dict[str, tuple[bytes, int]]:
    """Everything about a store that repairing it would change."""
    return {name: what for name, what in snapshot(path).items() if name not in (LOCK, ".")}


def frame_at(path: Path, first: int, number: int) -> tuple[int, int, range]:
    """Offset and size of a frame of a segment, and the sequences that it holds."""
    offset, header, _ = frames_in(path, first)[number]
    return offset, header.size, range(header.first_sequence, header.next_sequence)


# frames


@pytest.mark.parametrize("number", range(5), ids=["first", "second", "third", "fourth", "last"])
@pytest.mark.parametrize("where", ["header", "body"])
def test_a_damaged_frame_of_a_sealed_segment(store: Path, number: int, where: str) -> None:
    """Only its records are lost; its bytes are kept; all other files, and all other frames, stay as
    they were.
    """
    before, files = records_in(store), snapshot(store)
    segment = segments_in(store)[1]
    offset, size, lost = frame_at(store, 15, number)
    frames = [body for _, _, body in frames_in(store, 15)]
    flip(segment, offset + (9 if where == "header" else 100))
    held = segment.read_bytes()
    (actions,) = repaired(store)
    assert (actions.path, actions.offset, actions.bytes) == (str(segment), offset, size)
    assert (actions.lost_from, actions.lost_before, actions.lost) == (lost.start, lost.stop, 3)
    assert actions.kept_in == str(store / f"{15:020d}.cut-{offset}")
    assert Path(actions.kept_in).read_bytes() == held[offset : offset + size]
    assert_whole(store, before, set(lost))
    assert [body for _, _, body in frames_in(store, 15)][:number] == frames[:number]
    assert [body for _, _, body in frames_in(store, 15)][number + 1 :] == frames[number + 1 :]
    untouched = snapshot(store)
    for name in files.keys() - {segment.name, ".", LOCK}:
        assert untouched[name] == files[name]


def test_damaged_frames_side_by_side_and_apart(store: Path) -> None:
    """Each stretch of damage is a gap of its own, and what stands between two of them stays."""
    before = records_in(store)
    places = [frame_at(store, 0, number) for number in (0, 1, 3)] + [frame_at(store, 30, 2)]
    for offset, _, sequences in places:
        flip(segment_in(store, sequences.start // 15 * 15), offset + 60)
    actions = repaired(store)
    assert [(one.lost_from, one.lost_before) for one in actions] == [(0, 6), (9, 12), (36, 39)]
    assert_whole(store, before, {*range(6), 9, 10, 11, 36, 37, 38})


def test_a_placeholder_is_known_by_its_key(store: Path) -> None:
    """The commit of an empty record that stands in names its writer, so that no record of a user is
    taken for one.
    """
    offset, _, _ = frame_at(store, 15, 2)
    flip(segment_in(store, 15), offset)
    repaired(store)
    keys = [keys_of(header, body) for _, header, body in frames_in(store, 15)]
    assert [[key.writer for key in its] for its in keys] == [[], [], [WRITER], [], []]


def test_a_segment_that_is_nothing_but_zeros(store: Path) -> None:
    """Header, frames and footer are made anew; the file was as long as a segment, and all of its
    records are lost.
    """
    before, segment = records_in(store), segment_in(store, 15)
    segment.write_bytes(bytes(segment.stat().st_size))
    assert sum(actions.lost for actions in repaired(store)) == 15
    assert_whole(store, before, set(range(15, 30)))


@pytest.mark.parametrize("size", [0, 10, 64, 500, 2500])
def test_a_sealed_segment_that_was_cut(store: Path, size: int) -> None:
    """What is left of it stays readable, and placeholders lead to the next segment."""
    before, segment = records_in(store), segment_in(store, 30)
    whole = [
        header.next_sequence
        for offset, header, _ in frames_in(store, 30)
        if offset + header.size <= size
    ]
    segment.write_bytes(segment.read_bytes()[:size])
    repaired(store)
    assert_whole(store, before, set(range(max(whole, default=30), 45)))


def test_a_record_that_holds_the_frames_of_its_own_segment(tmp_path: Path) -> None:
    """Frames that stand inside of a damaged one, as a user's data, are not taken for frames of the
    log.
    """
    path = tmp_path / "store"
    path.mkdir()
    journal, _ = open_log(path)
    journal.write(journal.prepare(commit(b"one")))
    journal.write(journal.prepare(commit(segment_in(path).read_bytes(), b"three")))
    journal.write(journal.prepare(commit(b"four")))
    journal.close()
    before = records_in(path)
    flip(segment_in(path), frames_in(path)[2][0] - 1)
    repaired(path)
    assert_whole(path, before, {1, 2})


# the segment that was being written


@pytest.fixture
def growing(tmp_path: Path) -> Path:
    """One segment that is being written: five commits, of which all but the last are proven, left
    as by a kill.
    """
    path = tmp_path / "growing"
    path.mkdir()
    journal, _ = open_log(path)
    for first in range(0, 15, 3):
        journal.write(
            journal.prepare(commit(*map(payload, range(first, first + 3)), time=NOW + first))
        )
    journal.drop()
    return path


def test_damage_that_a_later_frame_proves(growing: Path) -> None:
    """The frame that opening refuses is bridged, and what stands behind it stays."""
    before = records_in(growing)
    offset, _, lost = frame_at(growing, 0, 1)
    flip(segment_in(growing), offset + 70)
    with pytest.raises(CorruptionError):
        open_log(growing)
    repaired(growing)
    assert_whole(growing, before, set(lost))


def test_a_torn_tail_behind_the_damage_is_left_to_opening(growing: Path) -> None:
    """Bytes that were never promised are neither lost nor actions: they stand there as they did,
    until it is opened.
    """
    segment = segment_in(growing)
    segment.write_bytes(segment.read_bytes() + b"half a commit")
    before = records_in(growing)
    offset, _, lost = frame_at(growing, 0, 1)
    flip(segment, offset + 70)
    (actions,) = repaired(growing)
    assert (actions.lost_from, actions.lost_before) == (lost.start, lost.stop)
    assert segment.read_bytes().endswith(b"half a commit")
    assert_whole(growing, before, set(lost))


def test_the_end_of_a_closed_log_is_gone(store: Path) -> None:
    """The manifest says how far it reached: placeholders fill the gap; no sequence comes twice."""
    before = records_in(store)
    segment_in(store, 60).unlink()
    segment = segment_in(store, 45)
    segment.write_bytes(segment.read_bytes()[: frames_in(store, 45)[2][0]])
    with pytest.raises(CorruptionError):
        open_log(store)
    repaired(store)
    assert_whole(store, before, set(range(51, 60)))


# headers and footers


@pytest.mark.parametrize("first", [0, 15, 60])
def test_a_damaged_header(store: Path, first: int) -> None:
    """It is made anew, its bytes are kept, and no record is lost."""
    before, segment = records_in(store), segment_in(store, first)
    held = segment.read_bytes()
    flip(segment, 40)
    (actions,) = repaired(store)
    assert (actions.offset, actions.bytes, actions.lost) == (0, SEGMENT_HEADER_BYTES, 0)
    assert actions.kept_in is not None
    assert Path(actions.kept_in).stat().st_size == SEGMENT_HEADER_BYTES
    assert segment.read_bytes()[SEGMENT_HEADER_BYTES:] == held[SEGMENT_HEADER_BYTES:]
    assert_whole(store, before, set())


def test_a_damaged_header_and_the_frame_behind_it(store: Path) -> None:
    """Then nothing in the segment tells what it follows; the segment before does."""
    before, segment = records_in(store), segment_in(store, 15)
    flip(segment, 40)
    flip(segment, SEGMENT_HEADER_BYTES + 5)
    repaired(store)
    assert_whole(store, before, {15, 16, 17})


@pytest.mark.parametrize("back", [1, 40, FOOTER_BYTES, FOOTER_BYTES + 3])
def test_a_damaged_footer(store: Path, back: int) -> None:
    """It is made anew from the frames, byte for byte, and the damaged one is kept."""
    before, segment = records_in(store), segment_in(store, 15)
    held = segment.read_bytes()
    flip(segment, len(held) - back)
    (actions,) = repaired(store)
    assert (actions.lost, actions.offset + actions.bytes) == (0, len(held))
    assert segment.read_bytes() == held
    assert_whole(store, before, set())


def test_a_footer_that_is_not_there(store: Path) -> None:
    """It is made anew; there are no bytes to keep."""
    before, segment = records_in(store), segment_in(store, 15)
    held = segment.read_bytes()
    offset, size, _ = frame_at(store, 15, 4)
    segment.write_bytes(held[: offset + size])
    (actions,) = repaired(store)
    assert (actions.bytes, actions.kept_in) == (0, None)
    assert segment.read_bytes() == held
    assert_whole(store, before, set())


def test_a_segment_without_a_footer_before_one_of_which_nothing_is_left(store: Path) -> None:
    """Only behind the last segment but one may a footer be missing for good reason: this one is
    made anew.
    """
    before = records_in(store)
    flip(segment_in(store, 15), segment_in(store, 15).stat().st_size - 7)
    segment_in(store, 30).write_bytes(b"")
    repaired(store)
    assert_whole(store, before, set(range(30, 45)))


def rolled(path: Path, zeros: int = 0) -> Path:
    """What a crash leaves that comes between the header of a successor and the footer: an empty
    segment.
    """
    frames = frames_in(path)
    successor = SegmentHeader(STORE_ID, 15, NOW, frames[-1][1].check)
    segment_in(path, 15).write_bytes(successor.encode() + bytes(zeros))
    return segment_in(path, 15)


@pytest.mark.parametrize("zeros", [0, 100_000])
def test_damage_before_a_roll_that_was_cut_short(growing: Path, zeros: int) -> None:
    """The empty segment is left as it is: opening undoes the roll."""
    before = records_in(growing)
    successor = rolled(growing, zeros)
    held = successor.read_bytes()
    offset, _, lost = frame_at(growing, 0, 1)
    flip(segment_in(growing), offset + 70)
    repaired(growing)
    assert successor.read_bytes() == held
    assert_whole(growing, before, set(lost))


@pytest.mark.parametrize("size", [0, 10, SEGMENT_HEADER_BYTES])
def test_a_damaged_segment_that_never_held_a_record(growing: Path, size: int) -> None:
    """It is removed, as opening would remove it were it sound; its bytes are kept."""
    before = records_in(growing)
    successor = rolled(growing)
    flip(successor, 9 if size == 10 else 50)
    held = successor.read_bytes()[:size]
    successor.write_bytes(held)
    (actions,) = repaired(growing)
    assert not successor.exists()
    assert (b"" if actions.kept_in is None else Path(actions.kept_in).read_bytes()) == held
    assert_whole(growing, before, set())


# segments that are not there


@pytest.mark.parametrize("first", [0, 15, 45])
def test_a_segment_is_missing(store: Path, first: int) -> None:
    """One of placeholders takes its place, and the others stay as they are."""
    before, others = (
        records_in(store),
        {file.name: file.read_bytes() for file in segments_in(store)},
    )
    segment_in(store, first).unlink()
    del others[segment_name(first)]
    (actions,) = repaired(store)
    assert (actions.lost_from, actions.lost_before, actions.kept_in) == (first, first + 15, None)
    assert {name: (store / name).read_bytes() for name in others} == others
    assert_whole(store, before, set(range(first, first + 15)))


def test_several_segments_are_missing(store: Path) -> None:
    """Those between two that are there become one."""
    before = records_in(store)
    segment_in(store, 15).unlink()
    segment_in(store, 30).unlink()
    (actions,) = repaired(store)
    assert actions.lost == 30
    assert_whole(store, before, set(range(15, 45)))


def test_a_missing_segment_before_one_without_a_header(store: Path) -> None:
    """The first frame of the segment behind tells what the missing one must end with."""
    before = records_in(store)
    segment_in(store, 15).unlink()
    flip(segment_in(store, 30), 20)
    repaired(store)
    assert_whole(store, before, set(range(15, 30)))


def test_the_last_segment_is_missing(store: Path) -> None:
    """Everything that is known to have been there is there."""
    before = records_in(store)
    segment_in(store, 60).unlink()
    (actions,) = repaired(store)
    assert actions.lost == 0
    assert_whole(store, before, set())


def test_all_segments_are_missing(store: Path) -> None:
    """The manifest still says how far the log reached, so the next record gets a sequence of its
    own.
    """
    before = records_in(store)
    for segment in segments_in(store):
        segment.unlink()
    repaired(store)
    assert_whole(store, before, set(range(RECORDS)))


def test_segments_that_overlap(store: Path) -> None:
    """Which of them is right, nobody can tell: nothing is changed."""
    shutil.copy(segment_in(store, 0), segment_in(store, 7))
    before = without_lock(store)
    with pytest.raises(CorruptionError, match="overlaps"):
        repaired(store)
    assert without_lock(store) == before


# the manifest


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda file: flip(file, 20), lambda file: file.write_bytes(b"")]
)
def test_a_manifest_that_is_missing_or_damaged(
    store: Path, damage: Callable[[Path], object]
) -> None:
    """It is made anew from what the segments say of their store."""
    before = records_in(store)
    damage(store / MANIFEST)
    (actions,) = repaired(store)
    assert actions.path == str(store / MANIFEST)
    assert (actions.kept_in is None) == (actions.bytes == 0)
    assert header_in(store).store_id == STORE_ID
    assert_whole(store, before, set())


def test_a_manifest_of_a_log_that_was_purged(store: Path) -> None:
    """Without a manifest the log begins with the first segment that is there."""
    before = [record for record in records_in(store) if record.sequence >= 15]
    segment_in(store, 0).unlink()
    (store / MANIFEST).unlink()
    repaired(store)
    assert_whole(store, before, set())


def test_segments_of_two_stores_without_a_manifest(store: Path, tmp_path: Path) -> None:
    """Whose log it is cannot be told: nothing is changed."""
    other = tmp_path / "other"
    other.mkdir()
    open_log(other, store_id=bytes(16))[0].close()
    shutil.copy(segment_in(other), store)
    (store / MANIFEST).unlink()
    with pytest.raises(CorruptionError, match="do not tell which store this is"):
        repaired(store)
    assert not (store / MANIFEST).exists()


def test_a_segment_of_another_store(store: Path, tmp_path: Path) -> None:
    """Its bytes are kept whole, and none of its records comes into the log."""
    before = records_in(store)
    other = tmp_path / "other"
    other.mkdir()
    journal, _ = open_log(other, store_id=bytes(16))
    journal.write(journal.prepare(commit(b"not ours")))
    journal.close()
    held = segment_in(other).read_bytes()
    shutil.copy(segment_in(other), segment_in(store, 15))
    actions = repaired(store)
    kept = b"".join(Path(one.kept_in).read_bytes() for one in actions if one.kept_in)
    assert kept == held
    assert_whole(store, before, set(range(15, 30)))


# bookmarks and indexes


@pytest.mark.parametrize(
    ("kind", "name"), [(BookmarkKind.HOLD, "backup"), (BookmarkKind.CURSOR, "billing")]
)
def test_a_damaged_bookmark(store: Path, kind: BookmarkKind, name: str) -> None:
    """It is set where it can do no harm: everything is held, everything is read again.

    Its bytes are kept.
    """
    before, file = records_in(store), store / f"{name}.{kind}"
    flip(file, 33)
    held = file.read_bytes()
    (actions,) = repaired(store)
    assert actions.kept_in == f"{file}.cut-0"
    assert Path(actions.kept_in).read_bytes() == held
    assert list_bookmarks(Disk(), str(store), STORE_ID, kind) == {name: 0}
    assert_whole(store, before, set())


def index_of(path: Path, first: int) -> Path:
    ref = SegmentRef(first, str(segment_in(path, first)), header_in(path, first), None)
    build(FailingDisk(), ref)
    return path / relations_name(first)


def test_a_damaged_index(store: Path) -> None:
    """It goes, and is built again from its segment by whoever wants it."""
    before, index = records_in(store), index_of(store, 15)
    flip(index, 30)
    (actions,) = repaired(store)
    assert (actions.path, actions.kept_in) == (str(index), None)
    assert not index.exists()
    assert_whole(store, before, set())


def test_the_index_of_a_segment_that_is_repaired(store: Path) -> None:
    """It tells of records that are lost, and would still pass for that of the segment: it goes as
    well.
    """
    index = index_of(store, 15)
    offset, _, _ = frame_at(store, 15, 2)
    flip(segment_in(store, 15), offset + 80)
    repaired(store)
    assert not index.exists()
    index_of(store, 15)
    header = header_in(store, 15)
    ref = SegmentRef(15, str(segment_in(store, 15)), header, None)
    table = Table.open(Disk(), ref, 30, frames_in(store, 15)[-1][1].check)
    assert list(table.positions(LOST)) == [6, 7, 8]
    assert list(table.positions("every")) == [0, 3, 9, 12]


def test_what_the_last_writer_said_is_forgotten_with_the_damage(store: Path) -> None:
    """A reader must not be told of records that are no longer there."""
    (store / ACKNOWLEDGED).write_bytes(bytes(4096))
    flip(segment_in(store, 15), 100)
    repaired(store)
    assert not (store / ACKNOWLEDGED).exists()


# how it goes about it


def test_a_sound_store(store: Path) -> None:
    """Nothing is to be done, and nothing but the lock is touched."""
    before = without_lock(store)
    disk = FailingDisk()
    with repairing(disk, str(store)) as repair:
        assert repair.plan == []
        assert repair.carry_out() == []
    assert without_lock(store) == before
    assert disk.count("create", "rename", "remove") == 0


def test_a_plan_changes_nothing(store: Path) -> None:
    """What would be done can be looked at before."""
    flip(segment_in(store, 15), 100)
    (store / MANIFEST).unlink()
    before = without_lock(store)
    with repairing(FailingDisk(), str(store)) as repair:
        assert [actions.kept_in for actions in repair.plan] == [None, None]
        assert repair.plan[1].lost == 3
    assert without_lock(store) == before


def test_a_torn_tail_alone_is_nothing_to_repair(growing: Path) -> None:
    """Opening mends it."""
    segment = segment_in(growing)
    segment.write_bytes(segment.read_bytes()[:-1])
    assert repaired(growing) == []


def test_a_store_at_work_is_not_repaired(store: Path) -> None:
    """Whoever writes it must close it first."""
    flip(segment_in(store, 15), 100)
    lock = Lock.take(Disk(), str(store))
    assert lock is not None
    with pytest.raises(StoreLockedError):
        repaired(store)
    lock.release()


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch])
def test_there_is_no_store(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Nothing is made where there is none."""
    path = tmp_path / "store"
    make(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(NotAStoreError):
        repaired(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_later_format(store: Path) -> None:
    """What this version does not know it does not call damaged."""
    manifest = bytearray((store / MANIFEST).read_bytes())
    manifest[8] += 1
    (store / MANIFEST).write_bytes(manifest)
    with pytest.raises(UnsupportedFormatError):
        repaired(store)


@pytest.mark.parametrize("behind_damage", [False, True])
def test_a_frame_with_unknown_flags(store: Path, behind_damage: bool) -> None:
    """A sound frame of a later version is not taken for a damaged one."""
    segment, seed = segment_in(store, 15), header_in(store, 15).seed
    offset, _, _ = frame_at(store, 15, 2)
    if behind_damage:
        flip(segment, offset - 1)
    data = bytearray(segment.read_bytes())
    data[offset + 4 : offset + 8] = (KNOWN_FLAGS + 1).to_bytes(4, "little")
    data[offset + 48 : offset + 52] = extend(seed, bytes(data[offset : offset + 48])).to_bytes(
        4, "little"
    )
    segment.write_bytes(data)
    with pytest.raises(UnsupportedFormatError):
        repaired(store)
    assert segment.read_bytes() == data


def test_bytes_that_were_put_aside_before_stay(store: Path) -> None:
    """A second damage at the same place gets a file of its own."""
    segment = segment_in(store, 15)
    offset, _, _ = frame_at(store, 15, 2)
    flip(segment, offset + 100)
    first = repaired(store)[0]
    flip(segment, offset + 100)
    second = repaired(store)[0]
    assert (first.offset, second.offset) == (offset, offset)
    assert first.kept_in is not None
    assert second.kept_in == f"{first.kept_in}-2"


def test_no_space(store: Path) -> None:
    """Without space nothing is changed, and with space it goes on."""
    before = records_in(store)
    flip(segment_in(store, 15), 100)
    held = segment_in(store, 15).read_bytes()
    disk = FailingDisk()
    disk.fail("write", 28, nth=2, of=".segment.unnamed")
    disk.fail("write", 28, of=".segment.unnamed")
    with pytest.raises(StoreUnavailableError):
        repaired(store, disk)
    assert segment_in(store, 15).read_bytes() == held
    repaired(store)
    assert_whole(store, before, {15, 16, 17})


# crashes


def many_damages(path: Path) -> set[int]:
    """One of each kind. The sequences that are lost."""
    index_of(path, 30)
    offset, _, lost = frame_at(path, 30, 2)
    flip(segment_in(path, 30), offset + 80)
    flip(segment_in(path, 30), 33)
    footer = segment_in(path, 45)
    flip(footer, footer.stat().st_size - 7)
    segment_in(path, 15).unlink()
    flip(path / MANIFEST, 30)
    flip(path / "backup.hold", 30)
    return {*lost, *range(15, 30)}


def kept_by(done: list[RepairAction]) -> set[str]:
    return {Path(actions.kept_in).name for actions in done if actions.kept_in is not None}


@pytest.mark.parametrize("every", [9, pytest.param(2, marks=pytest.mark.proof)])
def test_a_crash_before_each_call(store: Path, every: int) -> None:
    """Wherever the process ends, repairing can be done again, and comes to the same.

    The proof tries each second call, and this one of nine.
    """
    before = records_in(store)
    lost = many_damages(store)
    kept = kept_by(repaired(copy_of(store, "undisturbed")))
    nth, crashed = 1, True
    while crashed:
        path, disk = copy_of(store, f"crash-{nth}"), FailingDisk()
        disk.crash(nth)
        try:
            repaired(path, disk)
            crashed = False
        except Crash:
            disk.end_process()
            repaired(path)
        assert_whole(path, before, lost)
        assert {file.name for file in path.glob("*.cut-*")} == kept
        shutil.rmtree(path)
        shutil.rmtree(path.parent / "opened")
        nth += every
    assert nth > 100


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.proof)])
def test_a_power_cut_at_each_moment(store: Path, tmp_path: Path, every: int) -> None:
    """Whatever of it a power cut leaves, repairing can be done again, and comes to the same.

    The proof tries each moment, and this one of twelve.
    """
    before = records_in(store)
    lost = many_damages(store)
    disk = VolatileDisk({f"/s/{file.name}": file.read_bytes() for file in store.iterdir()})
    with repairing(disk, "/s") as repair:
        repair.carry_out()
    replay = Replay(disk)
    states = 0
    for event in disk.log:
        replay.take(event)
        for state in replay.states(Random(states), 1):
            states += 1
            if states % every:
                continue
            path = tmp_path / "cut"
            path.mkdir()
            for name, data in state.items():
                (path / name.rpartition("/")[2]).write_bytes(data)
            repaired(path)
            assert_whole(path, before, lost)
            shutil.rmtree(path)
            shutil.rmtree(tmp_path / "opened")
    assert states > 20
