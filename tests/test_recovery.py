"""recovery: what opening finds, and what it does about it. Each state is made with real files, and then opened."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from aquipu.checksum import extend
from aquipu.disk import Disk
from aquipu.errors import (
    AquipuError,
    CorruptionError,
    NotAStoreError,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from aquipu.frame import HEADER_BYTES, encode
from aquipu.journal import Journal
from aquipu.layout import (
    FOOTER_BYTES,
    INDEX_STRIDE,
    LOCK,
    MANIFEST,
    MANIFEST_BYTES,
    SEGMENT_HEADER_BYTES,
    UNNAMED,
    VERSION,
    Contents,
    Manifest,
    SegmentHeader,
    cut_name,
    relations_name,
    segment_name,
)
from aquipu.manifest import write_manifest
from aquipu.recovery import RecoveryReport, check_place, examine, verify
from aquipu.segment import READ_BYTES
from tests.support import (
    ANY,
    MIB,
    NOW,
    STORE_ID,
    Crash,
    FailingDisk,
    commit,
    copy_of,
    data_in,
    flip,
    frames_in,
    header_in,
    open_log,
    records_in,
    segment_in,
    segments_in,
    snapshot,
    undurable_names,
    write,
)

OTHER_ID = bytes(range(16, 32))
SEGMENT_BYTES = 4096
THIRD = bytes(range(250)) * 6
"""Three records of this size fill a segment."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


# making states


def live(store: Path, *payloads: bytes, sync: bool = True, close: bool = True, store_id: bytes = STORE_ID) -> list[bytes]:
    """A life of a store with one commit for each payload; ended by a clean close, or by a crash with nothing under way."""
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES, store_id=store_id)
    for payload in payloads:
        write(journal, payload, sync=sync)
        journal.tidy()
    if close:
        journal.close()
    else:
        journal.drop()
    return list(payloads)


def rolled(store: Path, *, close: bool = True, store_id: bytes = STORE_ID) -> list[bytes]:
    """A store of four segments that begin with 0, 3, 6 and 9; only the last one, of one record, is not sealed."""
    payloads = [bytes([number]) + THIRD for number in range(10)]
    live(store, *payloads, close=close, store_id=store_id)
    assert [segment.name for segment in segments_in(store)] == [segment_name(first) for first in (0, 3, 6, 9)]
    return payloads


def successor(store: Path, first_sequence: int) -> Path:
    """Make the empty segment that a roll would make next, and give its path."""
    header = SegmentHeader(STORE_ID, first_sequence, NOW, frames_in(store)[-1][1].check)
    segment_in(store, first_sequence).write_bytes(header.encode())
    return segment_in(store, first_sequence)


def seal(store: Path) -> bytes:
    """Make the first segment a sealed one, and give its footer."""
    frames, seed = frames_in(store), header_in(store).seed
    contents = Contents(0, header_in(store).link)
    for _, header, _ in frames:
        contents.take(header.first_sequence, header.records, header.time, header.size, header.check)
    footer = contents.encode_footer(seed)
    segment_in(store).write_bytes(segment_in(store).read_bytes()[: contents.end] + footer)
    return footer


def frame(
    store: Path,
    payload: bytes,
    *,
    sequence: int,
    watermark: int = 0,
    link: int | None = None,
    owes_sync: bool = False,
    flags: int = 0,
) -> bytes:
    """A frame for the first segment of a store, as a writer with these notions would have made it."""
    seed = header_in(store).seed
    made = b"".join(
        encode(
            (payload,),
            (NOW,),
            owes_sync=owes_sync,
            first_sequence=sequence,
            time=NOW,
            watermark=watermark,
            link=frames_in(store)[-1][1].check if link is None else link,
            seed=seed,
        ).buffers
    )
    head = made[:4] + (flags | made[4]).to_bytes(4, "little") + made[8 : HEADER_BYTES - 4]
    return head + extend(seed, head).to_bytes(4, "little") + made[HEADER_BYTES:]


def end_of(store: Path) -> int:
    """Where the frames of the first segment end."""
    offset, header, _ = frames_in(store)[-1]
    return offset + header.size


def put(store: Path, *pieces: bytes, at: int | None = None) -> None:
    """Let the first segment end with these bytes, behind its frames or from an offset on."""
    file = segment_in(store)
    file.write_bytes(file.read_bytes()[: end_of(store) if at is None else at] + b"".join(pieces))


# opening them


def reopen(store: Path, disk: FailingDisk | None = None) -> RecoveryReport:
    """Open and close, and give what the opening found; then the store must be clean."""
    journal, report = open_log(store, disk)
    journal.close()
    again, clean = open_log(store)
    again.drop()
    assert clean.clean
    return report


def refusal(store: Path, kind: type[AquipuError] = CorruptionError) -> AquipuError:
    """The error with which opening refuses a store; it must have changed nothing and left nothing open."""
    before, disk = snapshot(store), FailingDisk()
    with pytest.raises(kind) as caught:
        open_log(store, disk)
    assert snapshot(store) == before
    assert disk.open_files == {}
    return caught.value


def corruption(store: Path) -> CorruptionError:
    """The damage that opening names."""
    error = refusal(store)
    assert isinstance(error, CorruptionError)
    assert error.path in str(error)
    assert str(error.offset) in str(error)
    assert error.reason in str(error)
    return error


def damages(store: Path) -> list[CorruptionError]:
    """What verify finds, reading every sealed segment."""
    disk = FailingDisk()
    findings = examine(disk, str(store))
    assert findings is not None
    found = list(verify(disk, str(store), findings.extents, lambda size: None))
    assert disk.open_files == {}
    return found


# the place


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    """The directory and those above it are made, for their owner alone, and their names are durable."""
    disk = FailingDisk()
    check_place(disk, str(tmp_path / "a" / "store"))
    assert stat.S_IMODE((tmp_path / "a" / "store").stat().st_mode) == 0o700
    assert undurable_names(disk.calls) == set()


def test_a_directory_that_is_there(store: Path) -> None:
    """It keeps its mode, and nothing in it is touched."""
    store.chmod(0o750)
    live(store, b"a")
    before = snapshot(store)
    check_place(FailingDisk(), str(store))
    assert snapshot(store) == before
    assert stat.S_IMODE(store.stat().st_mode) == 0o750


def test_a_file_is_no_place_for_a_store(tmp_path: Path) -> None:
    """A path that is a file is refused, and the file is left alone."""
    file = tmp_path / "file"
    file.write_bytes(b"something else")
    with pytest.raises(NotAStoreError, match="it is a file"):
        check_place(FailingDisk(), str(file))
    assert file.read_bytes() == b"something else"


@pytest.mark.parametrize(
    "name", ["letter.txt", "0.segment", "00000000000000000000.segments", "x00000000000000000000.cut-5", "Lock"]
)
def test_a_directory_that_holds_something_else(store: Path, name: str) -> None:
    """It is refused by a name in it, before anything is written."""
    (store / name).touch()
    before = snapshot(store)
    with pytest.raises(NotAStoreError) as caught:
        check_place(FailingDisk(), str(store))
    assert repr(name) in str(caught.value)
    assert snapshot(store) == before


def test_something_else_beside_a_store(store: Path) -> None:
    """A store stays one, whatever else is laid into its directory; opening leaves that alone."""
    live(store, b"a")
    (store / "letter.txt").write_bytes(b"dear")
    check_place(FailingDisk(), str(store))
    assert reopen(store).clean
    assert (store / "letter.txt").read_bytes() == b"dear"


def test_a_file_of_someone_else_that_ends_like_an_unfinished_one(store: Path) -> None:
    """Only the unfinished files of a store are its own: what another program has laid there is never removed."""
    live(store, b"a")
    (store / f"letter{UNNAMED}").write_bytes(b"dear")
    reopen(store)
    assert (store / f"letter{UNNAMED}").read_bytes() == b"dear"


def test_a_directory_that_another_process_makes_at_the_same_moment(tmp_path: Path) -> None:
    """Two that open a new store together do not fail for each other: the lock decides between them."""

    class LateDisk(FailingDisk):
        """Looks before the other process makes the directory, and makes its own after that."""

        def exists(self, path: str) -> bool:
            (tmp_path / "store").mkdir()
            return False

    check_place(LateDisk(), str(tmp_path / "store"))


@pytest.mark.parametrize("method", ["list", "exists", "make_directories"])
def test_a_place_that_cannot_be_used(tmp_path: Path, method: str) -> None:
    """What the operating system refuses becomes an error of the tree that names the path and the reason."""
    disk = FailingDisk()
    disk.fail(method, errno.EACCES)
    path = tmp_path if method == "list" else tmp_path / "store"
    with pytest.raises(StoreUnavailableError, match="Permission denied") as caught:
        check_place(disk, str(path))
    assert (caught.value.path, caught.value.action) == (str(path), "use")


# a new store


def test_an_empty_directory_becomes_a_store(store: Path) -> None:
    """There is a manifest and a first segment, both sound, and nothing that was cut or mended."""
    journal, report = open_log(store)
    journal.drop()
    assert report == RecoveryReport(created=True, clean=True, first_sequence=0, next_sequence=0, segments=1)
    assert sorted(file.name for file in store.iterdir()) == [segment_name(0), MANIFEST]
    assert Manifest.decode((store / MANIFEST).read_bytes()) == Manifest(STORE_ID, 0, 0)
    assert header_in(store) == SegmentHeader(STORE_ID, 0, NOW, 0)


def test_the_order_of_a_creation(store: Path) -> None:
    """The first segment is durable before the manifest that says that there is one."""
    disk = FailingDisk()
    journal, _ = open_log(store, disk)
    journal.drop()
    changes = [call for call in disk.calls if call.path.startswith(str(store)) and call.method not in ("list", "close")]
    assert [(call.method, call.name) for call in changes] == [
        ("create", segment_name(0) + UNNAMED),
        ("write", segment_name(0) + UNNAMED),
        ("sync", segment_name(0) + UNNAMED),
        ("rename", segment_name(0)),
        ("sync_directory", store.name),
        ("create", MANIFEST + UNNAMED),
        ("write", MANIFEST + UNNAMED),
        ("sync", MANIFEST + UNNAMED),
        ("rename", MANIFEST),
        ("sync_directory", store.name),
    ]


HALF_CREATED: dict[str, dict[str, bytes]] = {
    "the lock": {LOCK: b"1234\n"},
    "an unnamed segment": {segment_name(0) + UNNAMED: b"aquipu"},
    "an empty segment": {segment_name(0): SegmentHeader(OTHER_ID, 0, NOW, 0).encode()},
    "an unnamed manifest": {
        segment_name(0): SegmentHeader(OTHER_ID, 0, NOW, 0).encode(),
        MANIFEST + UNNAMED: b"aquipuMF and more bytes than a manifest has, if it is a long one",
    },
}


@pytest.mark.parametrize("state", HALF_CREATED)
def test_the_first_steps_of_a_creation(store: Path, state: str) -> None:
    """What was begun and never finished is made anew; nothing of it remains."""
    for name, data in HALF_CREATED[state].items():
        (store / name).write_bytes(data)
    journal, report = open_log(store)
    write(journal, b"a")
    journal.close()
    assert report.created
    assert Manifest.decode((store / MANIFEST).read_bytes()).store_id == STORE_ID
    assert header_in(store).store_id == STORE_ID
    assert data_in(store) == [b"a"]
    assert {file.name for file in store.iterdir()} - {LOCK} == {segment_name(0), MANIFEST}


def test_a_creation_that_was_just_finished(store: Path) -> None:
    """With its manifest a store is a store, and keeps its id; that it was not closed is found."""
    live(store, close=False)
    journal, report = open_log(store, store_id=OTHER_ID)
    journal.close()
    assert (report.created, report.clean, report.next_sequence) == (False, False, 0)
    assert header_in(store).store_id == STORE_ID


def creations(fault: Callable[[FailingDisk, int], None], path: Path) -> Iterator[tuple[Path, FailingDisk]]:
    """A creation for each call of the disk that it makes, with this fault at that call."""
    for nth in count(1):
        store, disk = path / str(nth) / "above" / "store", FailingDisk()
        fault(disk, nth)
        with suppress(AquipuError, Crash):
            check_place(disk, str(store))
            open_log(store, disk)
        disk.end_process()
        if not disk.failures:
            assert nth > 15
            return
        yield store, disk


def check_creation(store: Path, before: FailingDisk) -> None:
    """The next opening makes the store, or finds it, and no name of it can get lost any more."""
    why = f"failed at {next(call for call in before.calls if call.failed)}"
    disk = FailingDisk()
    check_place(disk, str(store))
    journal, report = open_log(store, disk)
    assert report.next_sequence == 0, why
    write(journal, b"a")
    assert undurable_names([*before.calls, *disk.calls]) == set(), why
    journal.drop()
    assert reopen(store).next_sequence == 1, why
    assert data_in(store) == [b"a"], why


def test_a_crash_before_every_call_of_a_creation(tmp_path: Path) -> None:
    """Wherever the process ends, the next opening has a durable store before it acknowledges anything."""
    for store, disk in creations(FailingDisk.crash, tmp_path):
        check_creation(store, disk)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_at_every_call_of_a_creation(tmp_path: Path, number: int) -> None:
    """Whichever call fails, it is an error of the tree, and the next opening has a durable store."""
    for store, disk in creations(lambda disk, nth: disk.fail(ANY, number, nth=nth, written=10), tmp_path):
        check_creation(store, disk)


# a closed store


def test_a_store_that_was_closed(store: Path) -> None:
    """Nothing is to be done: the report says so, and not a byte is another."""
    live(store, b"a", b"b")
    before = {name: data for name, (data, _) in snapshot(store).items()}
    journal, report = open_log(store)
    assert journal.landing()[:2] == (2, 2)
    journal.drop()
    assert report == RecoveryReport(created=False, clean=True, first_sequence=0, next_sequence=2, segments=1)
    assert {name: data for name, (data, _) in snapshot(store).items()} == before


def test_a_closed_store_of_many_segments(store: Path) -> None:
    """The report counts them, the catalogue names them, and the log goes on behind the last."""
    payloads = rolled(store)
    journal, report = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    assert (report.clean, report.segments, report.next_sequence) == (True, 4, 10)
    assert [extent.first_sequence for extent in journal.catalogue] == [0, 3, 6, 9]
    assert [extent.growing is None for extent in journal.catalogue] == [True, True, True, False]
    write(journal, b"next")
    journal.close()
    assert data_in(store) == [*payloads, b"next"]


def test_a_mark_that_was_never_synced(store: Path) -> None:
    """The mark that an opening writes and a crash leaves unsynced is made durable before the first new record is told."""
    live(store, b"a", close=False)
    live(store, close=False)
    disk = FailingDisk()
    journal, report = open_log(store, disk)
    assert report.clean
    write(journal, bytes(200_000))  # large enough for a write that syncs itself and nothing before it
    journal.drop()
    assert ("sync", segment_name(0)) in disk.steps("sync", "write_synced")


def test_time_does_not_go_back_over_a_reopening(store: Path) -> None:
    """The journal remembers the time of the last record, so the next one is not given an earlier one."""
    live(store, b"a")
    journal, _ = open_log(store)
    assert journal.last_time == NOW
    journal.drop()


@pytest.mark.parametrize("behind", [b"", bytes(5000), b"torn"])
def test_time_does_not_go_back_over_a_roll_and_a_crash(store: Path, behind: bytes) -> None:
    """Also when the last segment holds no frame yet: the records are in the one before, and so is the time."""
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    for _ in range(3):
        write(journal, THIRD, time=NOW + 10**12)
    journal.tidy()
    journal.drop()
    segment_in(store, 3).write_bytes(segment_in(store, 3).read_bytes() + behind)
    again, _ = open_log(store)
    assert again.last_time == NOW + 10**12
    again.drop()


# sound frames that no watermark proves


@pytest.mark.parametrize("sync", [True, False])
def test_a_store_that_was_not_closed(store: Path, sync: bool) -> None:
    """Every whole commit is kept, written once more and synced; then a mark proves it, and the next opening is clean."""
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
    """A page that a failed sync left in memory is clean to the kernel: only writing it again makes a sync write it."""
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
    assert [(call.method, call.offset) for call in changes[synced + 1 :]] == [("write", end)]  # the mark


def test_the_store_counts_as_synced_after_it_was_opened(store: Path) -> None:
    """What was only flushed in the life before is safe now, and the frames that follow say so."""
    live(store, b"a", b"b", sync=False, close=False)
    journal, _ = open_log(store)
    assert journal.landing()[:2] == (2, 2)
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
    """They are space that was written ahead: never a record, never a torn tail, and gone after opening."""
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
    """When a power cut kept the size and not the data, that commit is gone, and nothing is there to be kept."""
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
    segment_in(store).write_bytes(whole[:offset] + bytes(header.size) + whole[offset + header.size :])
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment_in(store)), offset)


# a torn tail


@pytest.mark.parametrize("ahead", [0, 5000], ids=["the file ends", "zeros follow"])
def test_a_tail_cut_at_every_byte_of_the_last_commit(tmp_path: Path, store: Path, ahead: int) -> None:
    """Opening succeeds, keeps every byte that it cuts, loses only that commit, and the log goes on in its place."""
    live(store, b"a", b"b", b"the last commit", close=False)
    offset, header, _ = frames_in(store)[-1]
    whole = segment_in(store).read_bytes()[: offset + header.size]
    for cut in range(header.size):
        torn = copy_of(store, f"cut-{cut}")
        segment_in(torn).write_bytes(whole[: offset + cut] + bytes(ahead))
        journal, report = open_log(torn)
        kept = whole[offset : offset + cut].rstrip(b"\0")  # zeros are never told from unwritten space
        assert (report.clean, report.next_sequence, report.cut_bytes) == (False, 2, len(kept))
        if kept:
            assert report.cut_kept_in == str(torn / cut_name(0, offset))
            assert Path(report.cut_kept_in).read_bytes() == kept
            assert (report.cut_from, report.cut_offset) == (str(segment_in(torn)), offset)
            assert report.cut_reason
        assert len(list(torn.glob("*.cut-*"))) == bool(kept)
        assert write(journal, b"next").next_sequence == 3
        journal.close()
        assert [(record.sequence, record.data) for record in records_in(torn)] == [(0, b"a"), (1, b"b"), (2, b"next")]
        assert reopen(torn).clean


def test_a_mark_cut_at_every_byte(tmp_path: Path, store: Path) -> None:
    """A close that was cut short loses no record: only the proof is missing."""
    live(store, b"a", b"b")
    offset, header, _ = frames_in(store)[-1]
    for cut in range(header.size):
        torn = copy_of(store, f"cut-{cut}")
        put(torn, segment_in(store).read_bytes()[offset : offset + cut], at=offset)
        report = reopen(torn)
        assert (report.clean, report.next_sequence, report.cut_records) == (False, 2, 0)
        assert data_in(torn) == [b"a", b"b"]


def test_bytes_of_something_else_behind_the_last_frame(store: Path) -> None:
    """They are kept aside and trimmed, also behind a clean close; what is before them is untouched."""
    live(store, b"a")
    put(store, b"\0\0junk\0\0and more")
    report = reopen(store)
    assert (report.next_sequence, report.cut_bytes) == (1, 16)
    assert report.cut_kept_in is not None
    assert Path(report.cut_kept_in).read_bytes() == b"\0\0junk\0\0and more"


def test_good_frames_behind_a_bad_one_that_nothing_proves(store: Path) -> None:
    """The kernel writes pages in any order: without a watermark beyond the bad frame, all of it is the torn tail."""
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
    """The file with the cut bytes is durable under its name before the segment loses them, and the trim is synced."""
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
    """Without space to keep them, the bytes stay where they are, and opening is refused."""
    live(store, b"a", close=False)
    put(store, b"torn")
    before = segment_in(store).read_bytes()
    disk = FailingDisk()
    disk.fail("write", errno.ENOSPC, written=2)
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
    assert {file.read_bytes() for file in store.glob("*.cut-*")} == {b"first torn tail", b"second torn tail"}


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
    """Its callers were never told: a commit that is not on the disk was not acknowledged as synced."""
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


# damage that a later frame proves


def test_a_bit_at_every_byte_of_a_synced_commit(store: Path) -> None:
    """Opening refuses: it names file, offset and reason, and changes nothing."""
    journal, _ = open_log(store)
    write(journal, b"a")
    journal.write(journal.prepare(commit(b"b", b"c" * 20, labels={1: ("user:7",)})))
    write(journal, b"d", sync=False)
    journal.close()
    offset, header, _ = frames_in(store)[1]
    for place in range(offset, offset + header.size):
        flip(segment_in(store), place, place % 8)
        error = corruption(store)
        assert (error.path, error.offset) == (str(segment_in(store)), offset), f"byte {place - offset} of the frame"
        assert "sequence 1 had been synced" in error.reason
        flip(segment_in(store), place, place % 8)
    assert reopen(store).clean


def test_a_bit_at_every_byte_of_the_last_commit_of_a_closed_store(store: Path) -> None:
    """The mark of the close proves the last commit too."""
    live(store, b"a", b"b")
    offset, header, _ = frames_in(store)[1]
    for place in range(offset, offset + header.size):
        flip(segment_in(store), place, place % 8)
        assert corruption(store).offset == offset
        flip(segment_in(store), place, place % 8)


def test_a_bit_at_every_byte_of_the_mark(tmp_path: Path, store: Path) -> None:
    """The mark itself proves nothing but what stands before it: without it no record is lost."""
    live(store, b"a", b"b")
    offset, header, _ = frames_in(store)[-1]
    for place in range(offset, offset + header.size):
        damaged = copy_of(store, f"bit-{place}")
        flip(segment_in(damaged), place, place % 8)
        report = reopen(damaged)
        assert (report.clean, report.next_sequence, report.cut_offset) == (False, 2, offset)
        assert data_in(damaged) == [b"a", b"b"]


def test_a_damaged_commit_before_a_torn_tail(store: Path) -> None:
    """Damage is damage, also when the store was not closed: a commit that was synced later on proves it."""
    live(store, b"a", b"b", b"c", close=False)
    put(store, b"torn")
    offset = frames_in(store)[0][0]
    flip(segment_in(store), offset + HEADER_BYTES)
    assert corruption(store).offset == offset


def test_a_timestamp_is_covered(store: Path) -> None:
    """A changed time is damage, as changed data is: in the body as in the header of a commit."""
    live(store, b"a", b"b")
    offset = frames_in(store)[0][0]
    for place in (offset + 24, offset + HEADER_BYTES + 4):
        flip(segment_in(store), place)
        assert corruption(store).offset == offset
        flip(segment_in(store), place)


def test_bytes_lost_from_the_middle(store: Path) -> None:
    """A commit that is gone as if it had never been is noticed by the one behind it."""
    live(store, b"a", b"b", b"c")
    offset, header, _ = frames_in(store)[1]
    whole = segment_in(store).read_bytes()
    segment_in(store).write_bytes(whole[:offset] + whole[offset + header.size :])
    error = corruption(store)
    assert error.offset == offset
    assert "sequence 2 instead of 1" in error.reason


def test_a_commit_that_does_not_follow_the_one_before(store: Path) -> None:
    """A frame that is sound in itself, and links to another past, is not accepted behind this one."""
    live(store, b"a", close=False)
    put(store, frame(store, b"of another past", sequence=1, link=0x12345678))
    report = reopen(store)
    assert (report.next_sequence, report.cut_records) == (1, 1)
    assert report.cut_reason == "the frame at sequence 1 does not follow the one before it"
    assert data_in(store) == [b"a"]


def witnessed_at(store: Path, distance: int) -> int:
    """Damage the first frame, and let the header of the only one that proves it stand so far behind; gives its offset."""
    live(store, close=False)
    header = header_in(store)
    segment_in(store).write_bytes(header.encode())
    journal, _ = open_log(store)
    journal.drop()
    first = end_of(store)
    put(store, frame(store, bytes(distance - HEADER_BYTES - 12), sequence=0))
    put(store, frame(store, b"witness", sequence=1, watermark=1))
    assert frames_in(store)[-1][0] == first + distance
    flip(segment_in(store), first)
    return first


@pytest.mark.parametrize("before", [0, 1, 20, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1])
def test_a_witness_across_two_reads(store: Path, before: int) -> None:
    """The frame that proves the damage is found wherever it stands, also where one read ends and the next begins."""
    offset = witnessed_at(store, READ_BYTES - before)
    assert corruption(store).offset == offset


def test_a_witness_far_behind(store: Path) -> None:
    """A proof counts at any distance."""
    offset = witnessed_at(store, 4 * MIB + 12_345)
    assert corruption(store).offset == offset


# bytes of another life


def test_stale_frames_behind_a_trimmed_tail(store: Path) -> None:
    """What was cut never comes back: not when the new frames end where an old one began, not if the old bytes return."""
    live(store, b"a", close=False)
    live(store, bytes(200), b"stale", sync=False, close=False)
    (bad, first, _), (stale_offset, stale, _) = frames_in(store)[2:]
    stale_bytes = segment_in(store).read_bytes()[stale_offset : stale_offset + stale.size]
    flip(segment_in(store), bad + HEADER_BYTES)
    live(store, bytes(first.body_size - 12 - HEADER_BYTES), close=False)  # the mark of the opening stands before it
    assert end_of(store) == stale_offset
    assert data_in(store) == [b"a", bytes(148)]
    put(store, stale_bytes)
    report = reopen(store)
    assert (report.next_sequence, report.cut_bytes) == (2, stale.size)
    assert data_in(store) == [b"a", bytes(148)]


def test_frames_of_another_store_behind_the_last(tmp_path: Path, store: Path) -> None:
    """Blocks that held another store are never taken for this one's, though sequence and link might fit."""
    live(store, b"a", close=False)
    other = tmp_path / "other"
    other.mkdir()
    live(other, b"a", b"stale", store_id=OTHER_ID)
    offset = frames_in(other)[1][0]
    put(store, segment_in(other).read_bytes()[offset:])
    report = reopen(store)
    assert (report.next_sequence, report.cut_records) == (1, 0)
    assert data_in(store) == [b"a"]


def test_frames_of_another_segment_are_no_witness(store: Path) -> None:
    """Only frames of the segment itself can prove damage in it."""
    rolled(store, close=False)
    offset = frames_in(store, 9)[0][0]
    stale = segment_in(store, 3).read_bytes()[frames_in(store, 3)[1][0] :]
    segment = segment_in(store, 9)
    segment.write_bytes(segment.read_bytes()[:offset] + stale)
    report = reopen(store)
    assert (report.next_sequence, report.cut_offset) == (9, offset)


def test_a_record_that_holds_a_frame_of_its_own_store(store: Path) -> None:
    """Data is never mistaken for the log: a torn record with an old frame in it proves nothing."""
    live(store, b"a", b"b")
    inside = segment_in(store).read_bytes()
    live(store, inside, close=False)
    offset, header, _ = frames_in(store)[-1]
    put(store, segment_in(store).read_bytes()[offset : offset + header.size - 1], at=offset)
    assert reopen(store).next_sequence == 2
    assert data_in(store) == [b"a", b"b"]


# segments


@pytest.mark.parametrize(("missing", "named"), [(0, 0), (3, 6), (6, 9), (9, 6)])
def test_a_missing_segment(store: Path, missing: int, named: int) -> None:
    """At the start, in the middle, at the end: the log is not whole, and the place of the gap is named."""
    rolled(store)
    segment_in(store, missing).unlink()
    assert corruption(store).path == str(segment_in(store, named))


def test_the_gap_of_a_missing_segment_is_named(store: Path) -> None:
    """The message says which sequences are missing."""
    rolled(store)
    segment_in(store, 3).unlink()
    assert "sequences 3 to 5 are missing" in corruption(store).reason


def test_every_segment_is_missing(store: Path) -> None:
    """A manifest without any segment has lost them all: that is no new store."""
    live(store, b"a")
    segment_in(store).unlink()
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment_in(store)), 0)


@pytest.mark.parametrize("first", [0, 3, 6, 9])
@pytest.mark.parametrize("to", ["00000000000000000004.segment", "00000000000000000020.segment", "segment.old"])
def test_a_renamed_segment(store: Path, first: int, to: str) -> None:
    """A segment belongs to its name: under another one it is not accepted, and under its own it is missed."""
    rolled(store)
    segment_in(store, first).rename(store / to)
    corruption(store)


@pytest.mark.parametrize(("one", "other"), [(0, 3), (3, 6), (6, 9), (0, 9)])
def test_two_segments_that_have_changed_places(store: Path, one: int, other: int) -> None:
    """Each is refused under the name of the other."""
    rolled(store)
    first, second = segment_in(store, one), segment_in(store, other)
    first.rename(store / "aside")
    second.rename(first)
    (store / "aside").rename(second)
    assert "another store or place" in corruption(store).reason


@pytest.mark.parametrize("first", [0, 3, 6, 9])
def test_a_segment_of_another_store(tmp_path: Path, store: Path, first: int) -> None:
    """The same sequences in a store of the same make are still not these: the header tells."""
    rolled(store)
    other = tmp_path / "other"
    other.mkdir()
    rolled(other, store_id=OTHER_ID)
    segment_in(store, first).write_bytes(segment_in(other, first).read_bytes())
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment_in(store, first)), 0)
    assert "another store or place" in error.reason


def test_the_manifest_of_another_store(tmp_path: Path, store: Path) -> None:
    """Then no segment belongs to it."""
    live(store, b"a")
    other = tmp_path / "other"
    other.mkdir()
    live(other, b"a", store_id=OTHER_ID)
    (store / MANIFEST).write_bytes((other / MANIFEST).read_bytes())
    assert "another store or place" in corruption(store).reason


@pytest.mark.parametrize("commits", [0, 1, 2, 3])
def test_an_older_copy_of_a_sealed_segment(tmp_path: Path, store: Path, commits: int) -> None:
    """A copy from before its seal, however many of the records it holds, has no footer."""
    payloads = rolled(store)
    older = tmp_path / "older"
    older.mkdir()
    live(older, *payloads[:commits], close=commits < 3)
    copy = segment_in(older).read_bytes()
    if commits == 3:
        copy = copy[: end_of(older)]
    segment_in(store).write_bytes(copy)
    error = corruption(store)
    assert error.path == str(segment_in(store))
    assert "footer of a sealed segment is missing" in error.reason


def test_an_older_copy_of_the_last_segment(tmp_path: Path, store: Path) -> None:
    """A closed store knows how far it reached: a copy that is sound in itself and ends before that is refused."""
    live(store, b"a", b"b")
    older = copy_of(store, "older")
    live(store, b"c")
    segment_in(store).write_bytes(segment_in(older).read_bytes())
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment_in(store)), end_of(store))
    assert "sequences 2 to 2 are missing" in error.reason


def test_a_closed_store_cut_at_every_byte_of_its_last_commit(tmp_path: Path, store: Path) -> None:
    """After a clean close nothing is a torn tail: what was synced and is not there is lost, wherever the cut is."""
    live(store, b"a", b"b")
    offset, header, _ = frames_in(store)[1]
    whole = segment_in(store).read_bytes()
    for cut in range(header.size):
        segment_in(store).write_bytes(whole[: offset + cut])
        error = corruption(store)
        assert (error.path, error.offset) == (str(segment_in(store)), offset), f"byte {cut}"


def test_a_close_is_a_lower_bound_only(store: Path) -> None:
    """What was written after the last clean close is judged by its frames alone: without it, its tail may be torn."""
    live(store, b"a")
    live(store, b"b", b"c", close=False)
    offset, header, _ = frames_in(store)[-1]
    put(store, segment_in(store).read_bytes()[offset : offset + header.size - 1], at=offset)
    assert reopen(store).next_sequence == 2
    assert data_in(store) == [b"a", b"b"]


def test_a_segment_that_does_not_follow_the_one_before(store: Path) -> None:
    """Also with a sound header of this store and this place: the link must be that of the last frame before."""
    rolled(store)
    segment = segment_in(store, 9)
    header = header_in(store, 9)._replace(link=0x12345678)
    segment.write_bytes(header.encode() + segment.read_bytes()[SEGMENT_HEADER_BYTES:])
    error = corruption(store)
    assert (error.path, error.offset) == (str(segment), 0)
    assert "does not follow" in error.reason


@pytest.mark.parametrize("first", [0, 3, 6, 9])
def test_a_bit_at_every_byte_of_a_segment_header(store: Path, first: int) -> None:
    """The header of every segment is covered, the sealed ones and the last; only its version is a matter of its own."""
    rolled(store)
    segment = segment_in(store, first)
    for place in range(SEGMENT_HEADER_BYTES):
        flip(segment, place, place % 8)
        error = refusal(store, UnsupportedFormatError if place in range(8, 12) else CorruptionError)
        assert error.args[0] == str(segment), f"byte {place}"
        flip(segment, place, place % 8)


@pytest.mark.parametrize("first", [0, 3, 6])
def test_a_bit_at_every_byte_of_a_footer(store: Path, first: int) -> None:
    """The footer of every sealed segment is checked at every opening."""
    rolled(store)
    segment = segment_in(store, first)
    size = segment.stat().st_size
    for place in range(size - FOOTER_BYTES - 24, size):
        flip(segment, place, place % 8)
        error = corruption(store)
        assert error.path == str(segment), f"byte {place}"
        assert "footer" in error.reason
        flip(segment, place, place % 8)


@pytest.mark.parametrize("first", [0, 3, 6])
@pytest.mark.parametrize("cut", [1, FOOTER_BYTES, FOOTER_BYTES + 24, 1000, 4000])
def test_a_sealed_segment_cut_short(store: Path, first: int, cut: int) -> None:
    """A sealed segment that has lost its end is damaged, wherever it was cut."""
    rolled(store)
    segment = segment_in(store, first)
    segment.write_bytes(segment.read_bytes()[:-cut])
    assert corruption(store).path == str(segment)


def test_a_segment_cut_shorter_than_its_header(store: Path) -> None:
    """A named segment without a sound header is damaged, never unfinished: the header was durable before the name."""
    live(store, b"a")
    header = header_in(store).encode()
    for size in (0, 1, SEGMENT_HEADER_BYTES - 1):
        segment_in(store).write_bytes(header[:size])
        assert corruption(store).path == str(segment_in(store))


# the manifest


def test_a_missing_manifest(store: Path) -> None:
    """A log without its manifest is damaged: it is never taken for a new store."""
    live(store, b"a")
    (store / MANIFEST).unlink()
    error = corruption(store)
    assert (error.path, error.reason) == (f"{store}/{MANIFEST}", "the manifest is missing")


def test_a_missing_manifest_and_first_segment(store: Path) -> None:
    """What is left of a log keeps a new one from being made over it."""
    rolled(store)
    (store / MANIFEST).unlink()
    for first in (0, 3, 6):
        segment_in(store, first).unlink()
        assert corruption(store).path == f"{store}/{MANIFEST}"


def test_a_bit_of_the_manifest(store: Path) -> None:
    """Every bit of it is covered; only its version is a matter of its own."""
    live(store, b"a")
    for place in range(8 * MANIFEST_BYTES):
        flip(store / MANIFEST, place // 8, place % 8)
        error = refusal(store, UnsupportedFormatError if place // 8 in range(8, 12) else CorruptionError)
        assert error.args[0] == f"{store}/{MANIFEST}", f"bit {place}"
        flip(store / MANIFEST, place // 8, place % 8)


@pytest.mark.parametrize("size", [0, 1, 8, 15, 16, MANIFEST_BYTES - 1, MANIFEST_BYTES + 1])
def test_a_manifest_of_another_size(store: Path, size: int) -> None:
    """It has its size, not a byte less or more."""
    live(store, b"a")
    data = (store / MANIFEST).read_bytes()
    (store / MANIFEST).write_bytes((data + b"\0")[:size])
    assert corruption(store).path == f"{store}/{MANIFEST}"


# later versions


def later(data: bytes, at: int, seed: int) -> bytes:
    """A structure with another number at this place, and a check that fits."""
    changed = data[:at] + (VERSION + 1).to_bytes(4, "little") + data[at + 4 :]
    return changed[:-4] + extend(seed, changed[:-4]).to_bytes(4, "little")


@pytest.mark.parametrize("at", [8, 12], ids=["version", "flags"])
def test_a_manifest_of_a_later_version(store: Path, at: int) -> None:
    """It is refused before anything is written, also when the later manifest is longer."""
    live(store, b"a", close=False)
    data = (store / MANIFEST).read_bytes()
    (store / MANIFEST).write_bytes(later(data, at, 0))
    assert refusal(store, UnsupportedFormatError).args[0] == f"{store}/{MANIFEST}"
    if at == 8:
        (store / MANIFEST).write_bytes(later(data + bytes(20), at, 0))
        refusal(store, UnsupportedFormatError)


@pytest.mark.parametrize("at", [8, 12], ids=["version", "flags"])
@pytest.mark.parametrize("first", [0, 3, 6, 9])
def test_a_segment_of_a_later_version(store: Path, first: int, at: int) -> None:
    """One such segment is enough: the store is refused before anything is written."""
    rolled(store)
    segment, header = segment_in(store, first), header_in(store, first)
    segment.write_bytes(later(header.encode(), at, header.seed) + segment.read_bytes()[SEGMENT_HEADER_BYTES:])
    assert refusal(store, UnsupportedFormatError).args[0] == str(segment)


def test_an_empty_successor_of_a_later_version(store: Path) -> None:
    """A segment that a later version has begun is not removed as the rest of a roll."""
    live(store, b"a", close=False)
    seed = SegmentHeader(STORE_ID, 1, NOW, 0).seed
    last = successor(store, 1)
    last.write_bytes(later(last.read_bytes(), 8, seed))
    assert refusal(store, UnsupportedFormatError).args[0] == str(last)


@pytest.mark.parametrize("flags", [8, 1 << 31])
def test_a_frame_with_a_feature_that_is_not_known(store: Path, flags: int) -> None:
    """A sound frame with an unknown flag is no torn tail: nothing is cut, the store is left to a newer program."""
    live(store, b"a", close=False)
    put(store, frame(store, b"compressed", sequence=1, flags=flags))
    error = refusal(store, UnsupportedFormatError)
    assert error.args[0] == str(segment_in(store))
    assert f"{flags:#x}" in str(error)


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
    """The empty successor is removed, durably, and the log goes on in the segment before it, without a gap."""
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
    """A roll that is undone may have been whole, and its segment indexed: that index is removed, durably."""
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
    """Wherever this opening ends, before any of its calls, the next one finds every record and finishes the work."""
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
    """The footer is on the disk before the successor gets its first frame: so this one has lost it."""
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
def test_an_empty_segment_that_does_not_follow_the_seal(store: Path, first: int, link: int | None) -> None:
    """A sealed segment has a successor that continues it: any other empty one is not what its roll has left."""
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


# verify


def test_a_sound_store_is_verified(store: Path) -> None:
    """Nothing comes out, and the progress hears of every byte of the sealed frames."""
    rolled(store)
    disk, heard = FailingDisk(), list[int]()
    findings = examine(disk, str(store))
    assert findings is not None
    assert list(verify(disk, str(store), findings.extents, heard.append)) == []
    assert sum(heard) == sum(header.size for first in (0, 3, 6) for _, header, _ in frames_in(store, first))


def test_a_bit_at_every_byte_of_a_sealed_segment(store: Path) -> None:
    """Opening reads only headers and footers; verify reads it all, and names file, offset and reason."""
    payloads = [b"%d" % number for number in range(3)]
    journal, _ = open_log(store)
    for payload in payloads:
        write(journal, payload)
    journal.drop()
    live(store, bytes(SEGMENT_BYTES), b"in the next segment")
    assert len(segments_in(store)) == 2
    frames = frames_in(store)
    for offset, header, _ in frames[:-1]:
        for place in range(offset, offset + header.size):
            flip(segment_in(store), place, place % 8)
            (error,) = damages(store)
            assert (error.path, error.offset) == (str(segment_in(store)), offset), f"byte {place}"
            assert error.reason
            flip(segment_in(store), place, place % 8)
    assert damages(store) == []


def test_every_damaged_segment_is_found(store: Path) -> None:
    """One damage does not hide another: verify goes on with the next segment."""
    rolled(store)
    for first in (0, 6):
        flip(segment_in(store, first), 2000)
    assert [error.path for error in damages(store)] == [str(segment_in(store, first)) for first in (0, 6)]


def test_zeros_in_a_sealed_segment(store: Path) -> None:
    """A commit that has become zeros is damage there too."""
    rolled(store)
    segment = segment_in(store, 3)
    offset, header, _ = frames_in(store, 3)[-1]
    whole = segment.read_bytes()
    segment.write_bytes(whole[:offset] + bytes(header.size) + whole[offset + header.size :])
    (error,) = damages(store)
    assert (error.path, error.offset) == (str(segment), offset)


def test_a_footer_that_does_not_fit_the_frames(store: Path) -> None:
    """A footer that is sound in itself is not trusted: verify compares it with what stands before it."""
    rolled(store)
    contents, seed = Contents(0, header_in(store).link), header_in(store).seed
    for _, header, _ in frames_in(store):
        contents.take(header.first_sequence, header.records, header.time, header.size, header.check)
    contents.frames += 1
    whole = segment_in(store).read_bytes()
    segment_in(store).write_bytes(whole[: contents.end] + contents.encode_footer(seed))
    (error,) = damages(store)
    assert (error.path, error.offset) == (str(segment_in(store)), contents.end)
    assert "footer" in error.reason


def test_a_sealed_frame_with_a_feature_that_is_not_known(store: Path) -> None:
    """Verify cannot read it and does not call it damage."""
    rolled(store)
    offset = frames_in(store)[-1][0]
    segment, seed = segment_in(store), header_in(store).seed
    whole = segment.read_bytes()
    head = whole[offset : offset + 4] + b"\x80\0\0\0" + whole[offset + 8 : offset + HEADER_BYTES - 4]
    check = extend(seed, head).to_bytes(4, "little")
    segment.write_bytes(whole[:offset] + head + check + whole[offset + HEADER_BYTES :])
    with pytest.raises(UnsupportedFormatError, match="0x80"):
        damages(store)


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


def openings(fault: Callable[[FailingDisk, int], None], store: Path) -> Iterator[tuple[Path, FailingDisk, Journal | None]]:
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
    """It is StoreUnavailableError or none, no file is left open, and the next opening finds everything."""
    payloads = bring(store, TROUBLES[trouble])
    for path, disk, journal in openings(lambda disk, nth: disk.fail(ANY, number, nth=nth, written=3), store):
        why = next(call for call in disk.calls if call.failed)
        if journal is not None:
            journal.drop()
        assert disk.open_files == {}, why
        assert reopen(path).next_sequence == 3, why
        assert data_in(path) == payloads, why


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_crash_before_every_call_of_an_opening(store: Path, trouble: str) -> None:
    """Wherever an opening ends, the next one finds everything, keeps what was cut, and has durable names."""
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
    """When the frames that were found cannot be made durable, the store is not opened; a new opening writes them again."""
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
    """What opening finds is found without a single write: a reader in another process may look at any time."""
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
    """They are no part of the log, and opening removes them and their indexes; a purge cut short is no trouble."""
    payloads = rolled(store, close=close)
    purged(store, first)
    for left in (0, 3, 6):
        (store / relations_name(left)).touch()
    disk = FailingDisk()
    journal, report = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    assert (report.clean, report.first_sequence, report.segments) == (close, first, 4 - first // 3)
    assert journal.catalogue[0].first_sequence == first
    kept = {name(left) for left in (0, 3, 6, 9) if left >= first for name in (segment_name, relations_name)}
    assert {file.name for file in store.iterdir()} - {relations_name(9)} == (kept | {MANIFEST}) - {relations_name(9)}
    assert data_in(store) == payloads[first:]
    removed = [call for call in disk.calls if call.method in ("remove", "sync_directory")]
    assert removed[0].method == "sync_directory", "the name of the manifest that says so may not be durable yet"
    journal.drop()


@pytest.mark.parametrize("spoil", [lambda file: flip(file, 30), lambda file: file.write_bytes(b""), Path.unlink])
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
    """The first segment kept begins exactly there: anything else has lost it, and nothing is removed."""
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
    """Opening removes what a dead writer left, and leaves what somebody holds; neither makes the store unclean."""
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
