"""inspection: what a store at rest holds, seen without changing it."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EACCES, EIO
from pathlib import Path

import pytest

from aquipu.errors import (
    CorruptionError,
    NotAStoreError,
    StoreLockedError,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from aquipu.local.check.inspect import Info, TornTail, examined, hold_at_rest, inspect
from aquipu.local.check.verify import Damage, segment_bytes, verify_all
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock
from aquipu.local.format.frame import HEADER_BYTES, encode
from aquipu.local.format.names import LOCK, MANIFEST, UNNAMED, BookmarkKind
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES
from aquipu.local.format.structure import extend
from aquipu.local.retain.bookmarks import write_bookmark
from aquipu.local.retain.manifest import read_manifest, write_manifest
from tests.disk import FailingDisk
from tests.local.logs import SEGMENT_BYTES, THIRD
from tests.support import (
    NOW,
    STORE_ID,
    commit,
    flip,
    frames_in,
    header_in,
    open_log,
    segment_in,
    segments_in,
    snapshot,
    write,
)

EVERY_LOOK: tuple[Callable[[Disk, str], object], ...] = (
    examined,
    inspect,
    segment_bytes,
    verify_all,
)
JUNK = b"half a commit"


# making states


def live(store: Path, *payloads: bytes, first_time: int = NOW, close: bool = True) -> None:
    """A life of a store with one commit a payload, a second apart; ended by a clean close, or by a
    crash.
    """
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    for number, payload in enumerate(payloads):
        write(journal, payload, time=first_time + number * 1_000_000_000)
        journal.maintain()
    if close:
        journal.close()
    else:
        journal.drop()


def rolled(store: Path, records: int = 10) -> None:
    """A cleanly closed store whose segments begin with 0, 3, 6 and so on."""
    live(store, *[bytes([number]) + THIRD for number in range(records)])
    assert [int(segment.stem) for segment in segments_in(store)] == list(range(0, records + 1, 3))


def put(store: Path, data: bytes, first_sequence: int = 0) -> None:
    """Let a segment end with these bytes."""
    file = segment_in(store, first_sequence)
    file.write_bytes(file.read_bytes() + data)


def replace_first_frame(
    store: Path, payloads: tuple[bytes, ...], times: tuple[int, ...], flags: int
) -> None:
    """Have a sealed segment begin with a frame that passes its checksums, as a writer with these
    notions would make it.
    """
    file, header = segment_in(store), header_in(store)
    made = encode(
        payloads, times, first_sequence=0, time=NOW, watermark=0, link=header.link, seed=header.seed
    )
    frame = b"".join(made.buffers)
    head = frame[:4] + flags.to_bytes(4, "little") + frame[8 : HEADER_BYTES - 4]
    frame = head + extend(header.seed, head).to_bytes(4, "little") + frame[HEADER_BYTES:]
    room = len(THIRD)  # the footer stays where it is
    data = file.read_bytes()
    file.write_bytes(
        data[:SEGMENT_HEADER_BYTES]
        + frame[:room]
        + data[SEGMENT_HEADER_BYTES + len(frame[:room]) :]
    )


# holding a store


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere", "there is nothing of this name"),
        ("file", "it is a file"),
        ("home", "the directory holds other things, 'letter.txt' among them"),
    ],
)
def test_a_place_without_a_store(tmp_path: Path, name: str, reason: str) -> None:
    """It is an error that says why and gives no advice for writers; nothing is made, and nothing
    changed.
    """
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_bytes(b"mine")
    names = sorted(tmp_path.rglob("*"))
    path = str(tmp_path / name)
    with pytest.raises(NotAStoreError) as caught, hold_at_rest(FailingDisk(), path):
        pytest.fail("there is nothing to hold")
    assert (caught.value.path, caught.value.reason) == (path, reason)
    assert sorted(tmp_path.rglob("*")) == names


@pytest.mark.parametrize("look", [examined, inspect, verify_all])
def test_a_directory_that_holds_no_store(store: Path, look: Callable[[Disk, str], object]) -> None:
    """An empty directory could become a store, but is none to read."""
    with pytest.raises(NotAStoreError, match="the directory holds none") as caught:
        look(FailingDisk(), str(store))
    assert caught.value.path == str(store)
    assert list(store.iterdir()) == []


def test_nobody_writes_a_store_that_is_held(store: Path) -> None:
    """While it is held a writer finds it locked, and another reader does not; after that it is free
    again.
    """
    live(store, b"one")
    (store / LOCK).touch()
    disk, path = Disk(), str(store)
    with hold_at_rest(disk, path):
        assert Lock.take(disk, path) is None
        with hold_at_rest(disk, path):
            pass
        assert Lock.take(disk, path) is None
    lock = Lock.take(disk, path)
    assert lock is not None
    lock.release()


def test_an_error_lets_go_of_the_store(store: Path) -> None:
    """Whatever happens to the inspection, the store is free afterwards and no file is left open."""
    live(store, b"one")
    (store / LOCK).touch()
    disk = FailingDisk()
    with pytest.raises(ZeroDivisionError), hold_at_rest(disk, str(store)):
        raise ZeroDivisionError
    assert disk.open_files == {}


def test_a_store_that_is_being_written(store: Path) -> None:
    """It is not read; the error names who writes it, as the lock file does."""
    live(store, b"one")
    lock = Lock.take(Disk(), str(store))
    (store / LOCK).write_bytes(b"4711\n")
    before = snapshot(store)
    with pytest.raises(StoreLockedError) as caught, hold_at_rest(Disk(), str(store)):
        pytest.fail("it is not ours to hold")
    assert (caught.value.path, caught.value.pid) == (str(store), 4711)
    assert snapshot(store) == before
    assert lock is not None
    lock.release()


def test_a_copy_without_a_lock_file(store: Path) -> None:
    """A copy that left the lock file out can be read, and does not get one."""
    rolled(store)
    before = snapshot(store)
    assert LOCK not in before
    disk = FailingDisk()
    with hold_at_rest(disk, str(store)):
        assert inspect(disk, str(store)).records == 10
        assert verify_all(disk, str(store)).records == 10
    assert snapshot(store) == before


def test_a_lock_file_that_may_not_be_opened(store: Path) -> None:
    """What the operating system refuses is an error of the tree."""
    live(store, b"one")
    disk = FailingDisk()
    disk.fail("try_lock", EACCES)
    with (
        pytest.raises(StoreUnavailableError, match=f"cannot lock {store}"),
        hold_at_rest(disk, str(store)),
    ):
        pytest.fail("it cannot be held")


@pytest.mark.parametrize("look", EVERY_LOOK)
def test_looking_changes_nothing(store: Path, look: Callable[[Disk, str], object]) -> None:
    """Names, bytes and times of the files are as they were, of a store that must be mended too; no
    file stays open.
    """
    rolled(store)
    put(store, JUNK, 9)
    (store / f"{MANIFEST}{UNNAMED}").write_bytes(b"unfinished")
    before, disk = snapshot(store), FailingDisk()
    look(disk, str(store))
    assert snapshot(store) == before
    assert disk.open_files == {}


@pytest.mark.parametrize("look", EVERY_LOOK)
@pytest.mark.parametrize("method", ["list", "open", "read", "size"])
def test_a_disk_that_cannot_be_read(
    store: Path, look: Callable[[Disk, str], object], method: str
) -> None:
    """Every call that fails, whichever it is, ends in an error of the tree, and leaves no file
    open.
    """
    rolled(store)
    disk = FailingDisk()
    look(disk, str(store))
    for nth in range(1, disk.count(method) + 1):
        disk.mend()
        disk.fail(method, EIO, nth=nth)
        with pytest.raises(StoreUnavailableError, match="cannot read"):
            look(disk, str(store))
        assert disk.open_files == {}


# what it holds


def test_what_several_segments_hold(store: Path) -> None:
    """Every field of the summary, of a store that was closed."""
    rolled(store)
    assert inspect(FailingDisk(), str(store)) == Info(
        path=str(store),
        store_id=STORE_ID.hex(),
        format_version=1,
        first_sequence=0,
        next_sequence=10,
        records=10,
        segments=4,
        bytes=sum(file.stat().st_size for file in store.iterdir()),
        first_time="2023-11-14T22:13:20.000000000Z",
        last_time="2023-11-14T22:13:29.000000000Z",
        clean=True,
        torn_tail=None,
        holds={},
    )


def test_holds_and_what_a_purge_has_left(store: Path) -> None:
    """The holds are told; segments before the first sequence are neither counted as such nor read,
    only their bytes.
    """
    rolled(store)
    disk = FailingDisk()
    manifest = read_manifest(disk, str(store))
    write_bookmark(disk, str(store), manifest.store_id, BookmarkKind.HOLD, "backup", 7)
    write_manifest(disk, str(store), manifest._replace(first_sequence=6))
    flip(segment_in(store, 0), 100)
    info = inspect(disk, str(store))
    assert (info.first_sequence, info.records, info.segments, info.holds) == (
        6,
        4,
        2,
        {"backup": 7},
    )
    assert info.bytes == sum(file.stat().st_size for file in store.iterdir())
    verdict = verify_all(disk, str(store))
    assert (verdict.damages, verdict.records, verdict.segments) == ([], 4, 2)
    assert (
        verdict.bytes
        == segment_bytes(disk, str(store))
        == sum(segment_in(store, first).stat().st_size for first in (6, 9))
    )


@pytest.mark.parametrize("kind", BookmarkKind)
def test_a_damaged_bookmark(store: Path, kind: BookmarkKind) -> None:
    """verify names it; info tells of a damaged hold, for without it nobody knows what is held."""
    rolled(store)
    write_bookmark(Disk(), str(store), STORE_ID, kind, "backup", 7)
    flip(store / f"backup.{kind}", 20)
    damages = verify_all(Disk(), str(store)).damages
    assert [(damage.path, damage.offset) for damage in damages] == [(f"{store}/backup.{kind}", 0)]
    if kind is BookmarkKind.HOLD:
        with pytest.raises(CorruptionError, match=r"backup\.hold"):
            inspect(Disk(), str(store))
    else:
        assert inspect(Disk(), str(store)).holds == {}


def test_a_bookmark_that_goes_while_files_are_counted(store: Path) -> None:
    """A file that was replaced since the directory was listed is no longer there, and that is no
    error.
    """
    rolled(store)
    disk = FailingDisk()
    disk.answer("list", [*os.listdir(store), "billing.cursor.4711-1.unnamed"])
    assert inspect(disk, str(store)) == inspect(Disk(), str(store))


def test_a_store_without_records(store: Path) -> None:
    """It has no times, and nothing else is missing."""
    live(store)
    info = inspect(FailingDisk(), str(store))
    assert (info.records, info.next_sequence, info.segments) == (0, 0, 1)
    assert (info.first_time, info.last_time) == (None, None)
    assert info.clean


def test_the_times_are_those_of_records(store: Path) -> None:
    """The first record of a commit may be older than the commit; a time has nine digits behind its
    point.
    """
    journal, _ = open_log(store)
    together = commit(b"one", b"two", b"three")
    together.timestamps[:] = [NOW + 7, NOW + 80, NOW + 900]
    journal.write(journal.prepare(together))
    journal.close()
    info = inspect(FailingDisk(), str(store))
    assert info.first_time == "2023-11-14T22:13:20.000000007Z"
    assert info.last_time == "2023-11-14T22:13:20.000000900Z"


def test_a_log_that_begins_with_a_mark(store: Path) -> None:
    """A mark holds no record: the first time is that of the first record behind it."""
    live(store, close=False)
    put(store, JUNK)
    live(store, b"one", first_time=NOW + 5)
    assert [header.records for _, header, _ in frames_in(store)] == [0, 1, 0]
    assert inspect(FailingDisk(), str(store)).first_time == "2023-11-14T22:13:20.000000005Z"


@pytest.mark.parametrize("torn", [False, True])
def test_no_record_since_the_last_roll(store: Path, torn: bool) -> None:
    """The last record stands in a sealed segment then; also when the first commit behind it was
    torn, and cut off.
    """
    live(store, *[bytes([number]) + THIRD for number in range(3)], close=not torn)
    if torn:
        put(store, JUNK, 3)
        assert inspect(FailingDisk(), str(store)).last_time == "2023-11-14T22:13:22.000000000Z"
        live(store)
    assert segments_in(store)[-1] == segment_in(store, 3)
    info = inspect(FailingDisk(), str(store))
    assert (info.records, info.segments, info.torn_tail) == (3, 2, None)
    assert info.last_time == "2023-11-14T22:13:22.000000000Z"


def test_a_crash_is_not_called_clean(store: Path) -> None:
    """Without the mark of a close it was not closed, however sound its records are."""
    live(store, b"one", b"two", close=False)
    info = inspect(FailingDisk(), str(store))
    assert (info.records, info.clean, info.torn_tail) == (2, False, None)


def test_an_unfinished_file_is_counted_and_not_called_clean(store: Path) -> None:
    """All files of the store are part of its size, also one that the next opening removes."""
    live(store, b"one")
    size = inspect(FailingDisk(), str(store)).bytes
    assert size is not None
    (store / f"{MANIFEST}{UNNAMED}").write_bytes(b"unfinished")
    info = inspect(FailingDisk(), str(store))
    assert (info.bytes, info.clean) == (size + 10, False)


@pytest.mark.parametrize("synced", [False, True])
def test_a_torn_tail(store: Path, synced: bool) -> None:
    """It is described, and not part of what is counted; who owed a sync had told nobody."""
    live(store, b"one", close=False)
    offset = segment_in(store).stat().st_size
    journal, _ = open_log(store)
    write(journal, b"two", b"three", sync=synced)
    journal.drop()
    segment, whole = segment_in(store), segment_in(store).read_bytes()
    offset, header, _ = frames_in(store)[-1]
    segment.write_bytes(whole[: offset + header.size - 1])
    torn = TornTail(
        str(segment), offset, header.size - 1, "the file ends within a frame", 2, not synced
    )
    info = inspect(FailingDisk(), str(store))
    assert (info.records, info.clean, info.torn_tail) == (1, False, torn)
    verdict = verify_all(FailingDisk(), str(store))
    assert (verdict.records, verdict.damages, verdict.torn_tail) == (1, [], torn)


def test_damage_where_an_opening_looks(store: Path) -> None:
    """It is refused as an opening would refuse it: there is no telling what such a store holds."""
    live(store, b"one", b"two")
    flip(segment_in(store), SEGMENT_HEADER_BYTES + 60)
    for look in (examined, inspect):
        with pytest.raises(CorruptionError, match="does not check") as caught:
            look(FailingDisk(), str(store))
        assert (caught.value.path, caught.value.offset) == (
            str(segment_in(store)),
            SEGMENT_HEADER_BYTES,
        )


@pytest.mark.parametrize(
    ("payloads", "times", "flags", "kind", "reason"),
    [
        pytest.param(
            (b"one",),
            (NOW,),
            64,
            UnsupportedFormatError,
            "a frame at offset 64 has the flags 0x40",
            id="later",
        ),
        pytest.param(
            (b"one", b"two"),
            (NOW,),
            0,
            CorruptionError,
            "a frame ends before its columns",
            id="columns",
        ),
        pytest.param(
            (THIRD * 9,),
            (NOW,),
            0,
            CorruptionError,
            "the frames end too early",
            id="beyond-the-file",
        ),
        pytest.param(
            (),
            (),
            0,
            CorruptionError,
            "the header of a frame does not check",
            id="a-mark-and-then-nothing",
        ),
    ],
)
def test_a_first_record_that_cannot_be_read(
    store: Path,
    payloads: tuple[bytes, ...],
    times: tuple[int, ...],
    flags: int,
    kind: type[Exception],
    reason: str,
) -> None:
    """An opening does not look into sealed segments; what stops the summary there names the file,
    and says what it is.
    """
    rolled(store)
    replace_first_frame(store, payloads, times, flags)
    with pytest.raises(kind, match=reason) as caught:
        inspect(FailingDisk(), str(store))
    assert str(segment_in(store)) in str(caught.value)


# whether it is sound


def test_a_sound_store(store: Path) -> None:
    """Everything is counted: records, frames with the mark of the close, segments, bytes."""
    rolled(store)
    verdict = verify_all(FailingDisk(), str(store))
    assert (verdict.path, verdict.records, verdict.frames, verdict.segments) == (
        str(store),
        10,
        11,
        4,
    )
    assert verdict.bytes == sum(file.stat().st_size for file in segments_in(store))
    assert (verdict.damages, verdict.torn_tail) == ([], None)


@pytest.mark.parametrize("damaged", [False, True])
def test_progress_comes_to_all_bytes(store: Path, damaged: bool) -> None:
    """A bar that is told of every piece ends full, also when a damage ends the reading of a segment
    early.
    """
    rolled(store)
    if damaged:
        flip(segment_in(store, 3), SEGMENT_HEADER_BYTES + 60)
    told: list[int] = []
    verdict = verify_all(FailingDisk(), str(store), told.append)
    assert len(told) > 4
    assert min(told) >= 0
    assert sum(told) == segment_bytes(FailingDisk(), str(store)) == verdict.bytes


def test_damage_in_sealed_segments(store: Path) -> None:
    """Where an opening does not look: the first damage of each segment is named, and the records
    are counted still.
    """
    rolled(store)
    for first in (3, 6):
        flip(segment_in(store, first), frames_in(store, first)[1][0] + 100)
    verdict = verify_all(FailingDisk(), str(store))
    assert [(damage.path, damage.offset) for damage in verdict.damages] == [
        (str(segment_in(store, first)), frames_in(store, 0)[1][0]) for first in (3, 6)
    ]
    assert all("does not check" in damage.reason for damage in verdict.damages)
    assert (verdict.records, verdict.frames) == (10, 11)


def test_damage_in_a_store_that_cannot_be_opened(store: Path) -> None:
    """Damage that stops an opening does not stop this: the other segments are read, and each damage
    is named once.
    """
    rolled(store)
    for first in (0, 3, 9):
        flip(segment_in(store, first), SEGMENT_HEADER_BYTES + 60)
    verdict = verify_all(FailingDisk(), str(store))
    damaged = sorted(damage.path for damage in verdict.damages)
    assert damaged == [str(segment_in(store, first)) for first in (0, 3, 9)]
    assert (verdict.records, verdict.frames, verdict.segments, verdict.torn_tail) == (
        None,
        None,
        4,
        None,
    )


def test_damaged_headers_and_footers(store: Path) -> None:
    """A damaged header or footer is named, and so is what is damaged behind it; each once."""
    rolled(store)
    flip(segment_in(store, 0), 50)
    flip(segment_in(store, 3), segment_in(store, 3).stat().st_size - 10)
    flip(segment_in(store, 6), SEGMENT_HEADER_BYTES + 60)
    verdict = verify_all(FailingDisk(), str(store))
    assert [damage.path for damage in verdict.damages] == [
        str(segment_in(store, first)) for first in (0, 3, 6)
    ]


def test_a_segment_that_is_missing(store: Path) -> None:
    """A gap in the log is damage, of the segment behind it; the other segments are read."""
    rolled(store)
    segment_in(store, 3).unlink()
    flip(segment_in(store, 0), SEGMENT_HEADER_BYTES + 60)
    gap, other = verify_all(FailingDisk(), str(store)).damages
    assert gap == Damage(
        str(segment_in(store, 6)), 0, "sequences 3 to 5 are missing before this segment"
    )
    assert other.path == str(segment_in(store, 0))


def test_a_manifest_that_is_missing(store: Path) -> None:
    """That is damage, and not an empty directory; without the id of the store nothing else can be
    checked.
    """
    rolled(store)
    (store / MANIFEST).unlink()
    flip(segment_in(store, 0), SEGMENT_HEADER_BYTES + 60)
    with hold_at_rest(FailingDisk(), str(store)):
        verdict = verify_all(FailingDisk(), str(store))
    assert verdict.damages == [Damage(str(store / MANIFEST), 0, "the manifest is missing")]
    assert (verdict.records, verdict.segments) == (None, 4)


def test_a_manifest_that_is_damaged(store: Path) -> None:
    """It is named once, however often it is read."""
    rolled(store)
    flip(store / MANIFEST, 20)
    with hold_at_rest(FailingDisk(), str(store)):
        verdict = verify_all(FailingDisk(), str(store))
    assert verdict.damages == [Damage(str(store / MANIFEST), 0, "the manifest does not check")]


def test_a_later_format_is_no_damage(store: Path) -> None:
    """A segment that a later version has written is refused, and not called damaged."""
    rolled(store)
    segment = segment_in(store, 3)
    data = bytearray(segment.read_bytes())
    data[8] += 1
    segment.write_bytes(data)
    for look in (inspect, verify_all):
        with pytest.raises(UnsupportedFormatError, match="format version 2"):
            look(FailingDisk(), str(store))
