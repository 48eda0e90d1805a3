"""bookmark.py: holds and cursors as files."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from errno import EACCES, EIO, ENOSPC
from itertools import count
from pathlib import Path
from threading import Thread

import pytest

from aquipu.errors import CorruptionError, RecordPurgedError, UnsupportedFormatError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import OutcomeUnknown
from aquipu.local.format.bookmark import BOOKMARK_BYTES
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import UNNAMED, BookmarkKind, is_bookmark_in_the_making, is_ours
from aquipu.local.retain.bookmarks import (
    checked_name,
    exclusive,
    list_bookmarks,
    read_bookmark,
    remove_bookmark,
    set_hold,
    write_bookmark,
)
from aquipu.local.retain.manifest import write_manifest
from tests.disk import Crash, FailingDisk, undurable_names
from tests.support import STORE_ID, flip, snapshot

HOLD, CURSOR = BookmarkKind.HOLD, BookmarkKind.CURSOR
OTHER_STORE = bytes(range(1, 17))
by_kind = pytest.mark.parametrize("kind", BookmarkKind)

Act = Callable[[Disk, Path], object]


def write(
    path: Path, kind: BookmarkKind, name: str, sequence: int, disk: Disk | None = None
) -> None:
    write_bookmark(disk or Disk(), str(path), STORE_ID, kind, name, sequence)


def read(path: Path, kind: BookmarkKind, name: str, disk: Disk | None = None) -> int | None:
    return read_bookmark(disk or Disk(), str(path), STORE_ID, kind, name)


def everything(path: Path, kind: BookmarkKind, disk: Disk | None = None) -> dict[str, int]:
    return list_bookmarks(disk or Disk(), str(path), STORE_ID, kind)


def remove(path: Path, kind: BookmarkKind, name: str, disk: Disk | None = None) -> bool:
    return remove_bookmark(disk or Disk(), str(path), kind, name)


# names


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "Z",
        "7",
        "_",
        "nightly-backup",
        "billing.v2",
        "a..b",
        "a.",
        "00000000000000000000",
        "lock",
        "x" * 100,
    ],
)
def test_a_name_that_can_be(tmp_path: Path, name: str) -> None:
    """Letters, digits, dots, dashes and underscores, up to 100 of them, name a bookmark, in a file
    of ours.
    """
    assert checked_name(name) == name
    write(tmp_path, HOLD, name, 7)
    assert everything(tmp_path, HOLD) == {name: 7}
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.hold"]
    assert is_ours(f"{name}.hold")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "..",
            ".hidden",
            "-v",
            "a/b",
            "/",
            "../a",
            "a\\b",
            "a b",
            "a\n",
            "\na",
            "a\0",
            "a*",
            "a:b",
            "~a",
        ),
        pytest.param("\u00e4", id="a letter of another alphabet"),
        pytest.param("\u0667", id="a digit of another script"),
        pytest.param("\udcff", id="half a character"),
        pytest.param("x" * 101, id="101 characters"),
    ],
)
def test_a_name_that_cannot_be(tmp_path: Path, name: str) -> None:
    """Any other str is a ValueError that says what may stand in a name, and no file is touched."""
    disk = FailingDisk()
    calls: list[Callable[[], object]] = [
        lambda: checked_name(name),
        lambda: write(tmp_path, HOLD, name, 7, disk),
        lambda: read(tmp_path, HOLD, name, disk),
        lambda: remove(tmp_path, HOLD, name, disk),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="1 to 100 of A-Z a-z 0-9"):
            call()
    assert disk.calls == []


@pytest.mark.parametrize("name", [None, 7, b"backup", Path("backup"), ["backup"]], ids=repr)
def test_a_name_of_another_type(name: object) -> None:
    """A name is a str; the TypeError says what it was."""
    with pytest.raises(TypeError, match=f"named by a str, not {type(name).__name__}"):
        checked_name(name)


def test_a_name_that_is_far_too_long() -> None:
    """The message shows the beginning of a long name, and how long it is."""
    with pytest.raises(ValueError, match=r"\(1000000 characters\)") as caught:
        checked_name("x" * 1_000_000)
    assert len(str(caught.value)) < 300


# written, read, listed, removed


@by_kind
@pytest.mark.parametrize("sequence", [0, 7, 2**32, 2**64 - 1])
def test_a_bookmark_is_set_and_moved(tmp_path: Path, kind: BookmarkKind, sequence: int) -> None:
    """What was written last is read back, and nothing else is left in the directory."""
    write(tmp_path, kind, "backup", 3)
    write(tmp_path, kind, "backup", sequence)
    assert read(tmp_path, kind, "backup") == sequence
    assert [path.name for path in tmp_path.iterdir()] == [f"backup.{kind}"]


def test_a_bookmark_is_for_its_owner(tmp_path: Path) -> None:
    """Like every file of a store, only its owner may read it."""
    write(tmp_path, HOLD, "backup", 3)
    assert stat.S_IMODE((tmp_path / "backup.hold").stat().st_mode) == 0o600


@by_kind
def test_a_bookmark_that_was_never_set(tmp_path: Path, kind: BookmarkKind) -> None:
    """None, and an empty list; looking changes nothing."""
    before = snapshot(tmp_path)
    assert read(tmp_path, kind, "backup") is None
    assert everything(tmp_path, kind) == {}
    assert snapshot(tmp_path) == before


def test_a_hold_and_a_cursor_of_one_name(tmp_path: Path) -> None:
    """They are two bookmarks that know nothing of each other."""
    write(tmp_path, HOLD, "backup", 3)
    write(tmp_path, CURSOR, "backup", 5)
    assert (read(tmp_path, HOLD, "backup"), read(tmp_path, CURSOR, "backup")) == (3, 5)
    assert remove(tmp_path, HOLD, "backup")
    assert (read(tmp_path, HOLD, "backup"), read(tmp_path, CURSOR, "backup")) == (None, 5)


def test_all_bookmarks_of_one_kind(tmp_path: Path) -> None:
    """A list holds all of one kind in the order of their names; nothing else that stands in the
    directory is opened.
    """
    for sequence, name in enumerate(["b", "a.hold", "a.cursor", "B", "0", "a"]):
        write(tmp_path, HOLD, name, sequence)
        write(tmp_path, CURSOR, name, 100 + sequence)
    names = [
        "manifest",
        "notes.txt",
        ".hold",
        "-a.hold",
        "c.hold.unnamed",
        "c.Hold",
        "c.hold~",
        "a b.hold",
    ]
    for other in names:
        (tmp_path / other).write_bytes(b"")
    disk = FailingDisk()
    held = everything(tmp_path, HOLD, disk)
    assert held == {"b": 0, "a.hold": 1, "a.cursor": 2, "B": 3, "0": 4, "a": 5}
    assert list(held) == sorted(held)
    assert disk.steps("open") == [("open", f"{name}.hold") for name in sorted(held)]
    assert everything(tmp_path, CURSOR) == {name: 100 + sequence for name, sequence in held.items()}


def test_a_bookmark_that_is_removed(tmp_path: Path) -> None:
    """True for one that was there, False for one that was not; the others stay."""
    write(tmp_path, HOLD, "backup", 3)
    write(tmp_path, HOLD, "audit", 4)
    assert remove(tmp_path, HOLD, "backup") is True
    assert remove(tmp_path, HOLD, "backup") is False
    assert everything(tmp_path, HOLD) == {"audit": 4}


def test_a_bookmark_that_goes_while_it_is_listed(tmp_path: Path) -> None:
    """One that is removed between the listing and the reading is not there; the others are."""
    for sequence, name in enumerate("abc"):
        write(tmp_path, CURSOR, name, sequence)
    disk = FailingDisk()
    disk.before("open", (tmp_path / "b.cursor").unlink)
    assert everything(tmp_path, CURSOR, disk) == {"a": 0, "c": 2}


# damage


def test_every_bit_of_a_bookmark(tmp_path: Path) -> None:
    """A flipped bit is a CorruptionError, in the version an UnsupportedFormatError; never another
    place, never none.
    """
    write(tmp_path, HOLD, "audit", 4)
    write(tmp_path, HOLD, "backup", 3)
    file = tmp_path / "backup.hold"
    for offset in range(len(file.read_bytes())):
        for bit in range(8):
            error = UnsupportedFormatError if 8 <= offset < 12 else CorruptionError
            flip(file, offset, bit)
            for look in (
                lambda: read(tmp_path, HOLD, "backup"),
                lambda: everything(tmp_path, HOLD),
            ):
                with pytest.raises(error, match=re.escape(str(file))):
                    look()
            flip(file, offset, bit)
    assert everything(tmp_path, HOLD) == {"audit": 4, "backup": 3}


@pytest.mark.parametrize("size", range(BOOKMARK_BYTES))
def test_a_bookmark_cut_short(tmp_path: Path, size: int) -> None:
    """A bookmark that lost its end, be it all of it, is a CorruptionError that names the file;
    looking changes nothing.
    """
    write_bookmark(Disk(), str(tmp_path), STORE_ID, CURSOR, "billing", 3, b"8 bytes.")
    file = tmp_path / "billing.cursor"
    file.write_bytes(file.read_bytes()[:size])
    before = snapshot(tmp_path)
    for look in (lambda: read(tmp_path, CURSOR, "billing"), lambda: everything(tmp_path, CURSOR)):
        with pytest.raises(CorruptionError) as caught:
            look()
        assert (caught.value.path, caught.value.offset) == (str(file), 0)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("behind", [b"\0", b"more than a bookmark"])
def test_a_bookmark_with_something_behind_it(tmp_path: Path, behind: bytes) -> None:
    """A bookmark is exactly as long as it is: more is damage too."""
    write(tmp_path, HOLD, "backup", 3)
    file = tmp_path / "backup.hold"
    file.write_bytes(file.read_bytes() + behind)
    with pytest.raises(CorruptionError):
        read(tmp_path, HOLD, "backup")


def test_a_bookmark_of_a_later_version(tmp_path: Path) -> None:
    """UnsupportedFormatError, which names the file and says that a newer aquipu is needed; so
    nothing held is let go.
    """
    write(tmp_path, HOLD, "backup", 3)
    file = tmp_path / "backup.hold"
    data = bytearray(file.read_bytes())
    data[8] += 2
    file.write_bytes(bytes(data) + b"and what it adds")
    with pytest.raises(UnsupportedFormatError, match="newer") as caught:
        everything(tmp_path, HOLD)
    assert caught.value.path == str(file)


def test_a_bookmark_of_another_store(tmp_path: Path) -> None:
    """One that was copied from another store says nothing of this log: a CorruptionError."""
    write_bookmark(Disk(), str(tmp_path), OTHER_STORE, HOLD, "backup", 3)
    assert read_bookmark(Disk(), str(tmp_path), OTHER_STORE, HOLD, "backup") == 3
    with pytest.raises(CorruptionError, match="another store"):
        read(tmp_path, HOLD, "backup")
    with pytest.raises(CorruptionError, match="another store"):
        everything(tmp_path, HOLD)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (HOLD, "audit"),
        (CURSOR, "backup"),
        (HOLD, "Backup"),
        (HOLD, "backup2"),
        (HOLD, "backup.hold"),
    ],
)
def test_a_bookmark_under_another_name(tmp_path: Path, kind: BookmarkKind, name: str) -> None:
    """One that was renamed, or made another kind, is a CorruptionError: nobody set that one."""
    write(tmp_path, HOLD, "backup", 3)
    (tmp_path / "backup.hold").rename(tmp_path / f"{name}.{kind}")
    with pytest.raises(CorruptionError):
        read(tmp_path, kind, name)


@pytest.mark.parametrize(
    "data", [b"", b"not a bookmark", bytes(BOOKMARK_BYTES)], ids=["nothing", "text", "zeros"]
)
def test_a_damaged_bookmark_is_replaced_or_removed(tmp_path: Path, data: bytes) -> None:
    """Both are done without reading it: the only ways to be rid of one."""
    file = tmp_path / "backup.hold"
    file.write_bytes(data)
    write(tmp_path, HOLD, "backup", 5)
    assert read(tmp_path, HOLD, "backup") == 5
    file.write_bytes(data)
    assert remove(tmp_path, HOLD, "backup")
    assert everything(tmp_path, HOLD) == {}


# a disk that fails


def test_a_bookmark_is_made_durable(tmp_path: Path) -> None:
    """It gets its name after its bytes are synced, and then the name is synced."""
    disk = FailingDisk()
    write(tmp_path, HOLD, "backup", 3, disk)
    made = disk.steps("create")[0][1]
    assert is_bookmark_in_the_making(made)
    assert disk.steps("write", "sync", "rename", "sync_directory") == [
        ("write", made),
        ("sync", made),
        ("rename", "backup.hold"),
        ("sync_directory", tmp_path.name),
    ]
    assert not undurable_names(disk.calls)
    assert not disk.open_files


@pytest.mark.parametrize("there", [True, False])
def test_a_removal_is_made_durable(tmp_path: Path, there: bool) -> None:
    """The directory is synced, also when none was there: one who removed it may have died before
    that.
    """
    if there:
        write(tmp_path, HOLD, "backup", 3)
    disk = FailingDisk()
    assert remove(tmp_path, HOLD, "backup", disk) is there
    assert disk.steps("remove", "sync_directory") == [
        ("remove", "backup.hold"),
        ("sync_directory", tmp_path.name),
    ]


@pytest.mark.parametrize("error", [EIO, ENOSPC])
@pytest.mark.parametrize("method", ["create", "write", "sync", "rename"])
def test_a_bookmark_that_cannot_be_set(tmp_path: Path, method: str, error: int) -> None:
    """The error comes through, the old place stands, nothing is left open, and setting it again
    works. Of a full disk that is so when there is no space to write over the old one either.
    """
    write(tmp_path, HOLD, "backup", 3)
    disk = FailingDisk()
    disk.fail(method, error, written=10, forever=error == ENOSPC)
    if error == ENOSPC:
        disk.fail("write", error, of=".hold", forever=True)
    with pytest.raises(OutcomeUnknown if method == "sync" else OSError):
        write(tmp_path, HOLD, "backup", 5, disk)
    assert everything(tmp_path, HOLD) == {"backup": 3}
    assert not disk.open_files
    disk.mend()
    write(tmp_path, HOLD, "backup", 5, disk)
    assert read(tmp_path, HOLD, "backup") == 5


@pytest.mark.parametrize("method", ["create", "write", "rename"])
@by_kind
def test_a_bookmark_on_a_full_disk(tmp_path: Path, kind: BookmarkKind, method: str) -> None:
    """The one that is there is written over and synced, and no other file is left."""
    write(tmp_path, kind, "backup", 3)
    names = set(tmp_path.iterdir())
    disk = FailingDisk()
    disk.fail(method, ENOSPC, of=UNNAMED if method != "rename" else f".{kind}", forever=True)
    write(tmp_path, kind, "backup", 5, disk)
    assert everything(tmp_path, kind) == {"backup": 5}
    assert set(tmp_path.iterdir()) == names
    assert disk.steps("write", "sync")[-2:] == [
        ("write", f"backup.{kind}"),
        ("sync", f"backup.{kind}"),
    ]
    assert not disk.open_files


@by_kind
def test_a_bookmark_that_needs_space_to_be_written_over(tmp_path: Path, kind: BookmarkKind) -> None:
    """Half of it is undone, durably; then the reserve is taken, if there is one. What cannot be
    undone is not known.
    """
    write(tmp_path, kind, "backup", 3)
    disk = FailingDisk()
    disk.fail("create", ENOSPC, forever=True)
    disk.fail("write", ENOSPC, of=f".{kind}", written=40)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path, kind, "backup", 5, disk)
    assert everything(tmp_path, kind) == {"backup": 3}
    assert disk.steps("write", "sync") == [
        ("write", f"backup.{kind}"),
        ("write", f"backup.{kind}"),
        ("sync", f"backup.{kind}"),
    ]
    (tmp_path / f"{kind}.reserve").write_bytes(bytes(4096))
    disk.fail("write", ENOSPC, of=f".{kind}", written=40)
    write(tmp_path, kind, "backup", 5, disk)
    assert everything(tmp_path, kind) == {"backup": 5}
    disk.fail("write", ENOSPC, of=f".{kind}", written=40)
    disk.fail("write", ENOSPC, of=f".{kind}", nth=2)
    with pytest.raises(OutcomeUnknown, match="undoing"):
        write(tmp_path, kind, "backup", 1 << 60, disk)
    assert not disk.open_files


def test_a_bookmark_whose_name_is_not_certain(tmp_path: Path) -> None:
    """When the directory cannot be synced, setting and removing end in OutcomeUnknown, and neither
    is tried again.
    """
    for act in (
        lambda disk: write(tmp_path, HOLD, "backup", 5, disk),
        lambda disk: remove(tmp_path, HOLD, "backup", disk),
    ):
        disk = FailingDisk()
        disk.fail("sync_directory", EIO)
        with pytest.raises(OutcomeUnknown, match="directory"):
            act(disk)
        assert disk.count("sync_directory") == 1


def test_a_removal_that_is_refused(tmp_path: Path) -> None:
    """The error comes through and the bookmark stands; that none was there is the only error that
    is no error.
    """
    write(tmp_path, HOLD, "backup", 3)
    disk = FailingDisk()
    disk.fail("remove", EACCES)
    with pytest.raises(PermissionError):
        remove(tmp_path, HOLD, "backup", disk)
    assert everything(tmp_path, HOLD) == {"backup": 3}


@pytest.mark.parametrize("error", [EIO, EACCES])
@pytest.mark.parametrize("method", ["open", "read", "list"])
def test_a_bookmark_that_cannot_be_read(tmp_path: Path, method: str, error: int) -> None:
    """The error comes through: what cannot be read is never taken for none."""
    write(tmp_path, HOLD, "backup", 3)
    disk = FailingDisk()
    disk.fail(method, error, forever=True)
    with pytest.raises(OSError, match=os.strerror(error)):
        everything(tmp_path, HOLD, disk)
    if method != "list":
        with pytest.raises(OSError, match=os.strerror(error)):
            read(tmp_path, HOLD, "backup", disk)
    assert not disk.open_files


@pytest.mark.parametrize("before", [None, 3])
@pytest.mark.parametrize(
    ("act", "after"),
    [
        (lambda disk, path: write(path, HOLD, "backup", 5, disk), 5),
        (lambda disk, path: remove(path, HOLD, "backup", disk), None),
    ],
    ids=["set", "removed"],
)
def test_a_crash_at_every_step(
    tmp_path: Path, act: Act, before: int | None, after: int | None
) -> None:
    """Wherever the process ends, the bookmark is as it was or as it shall be, and what else is left
    is in nobody's way.
    """
    steps = 0
    for nth in count(1):
        path = tmp_path / str(nth)
        path.mkdir()
        if before is not None:
            write(path, HOLD, "backup", before)
        disk = FailingDisk()
        disk.crash(nth)
        try:
            act(disk, path)
        except Crash:
            steps += 1
        else:
            break
        finally:
            disk.end_process()
        assert read(path, HOLD, "backup") in (before, after)
        assert all(
            is_bookmark_in_the_making(name)
            for name in Disk().list(str(path))
            if name != "backup.hold"
        )
        act(Disk(), path)
        assert read(path, HOLD, "backup") == after
    assert steps >= 2
    assert read(path, HOLD, "backup") == after


# several writers


def test_two_writers_of_one_bookmark(tmp_path: Path) -> None:
    """Each has a file of its own until it is done: the one that is done last is last, and neither
    fails.
    """
    disk = FailingDisk()
    held = disk.hold("write")
    slow = Thread(target=write, args=(tmp_path, CURSOR, "billing", 3, disk))
    slow.start()
    assert held.reached.wait(20)
    write(tmp_path, CURSOR, "billing", 5)
    assert read(tmp_path, CURSOR, "billing") == 5
    held.released.set()
    slow.join()
    assert read(tmp_path, CURSOR, "billing") == 3
    assert disk.count("create") == 1, "nobody has taken its file away"
    assert [path.name for path in tmp_path.iterdir()] == ["billing.cursor"]


def test_a_file_that_was_taken_for_that_of_a_dead_writer(tmp_path: Path) -> None:
    """A store that is opened at that moment may remove it before it is held: it is written once
    more.
    """
    disk = FailingDisk()
    held = disk.hold("write")
    writer = Thread(target=write, args=(tmp_path, CURSOR, "billing", 3, disk))
    writer.start()
    assert held.reached.wait(20)
    for path in tmp_path.iterdir():
        path.unlink()
    held.released.set()
    writer.join()
    assert read(tmp_path, CURSOR, "billing") == 3
    assert disk.count("create") == 2


# holds against purges


def manifest(path: Path, first_sequence: int) -> None:
    write_manifest(Disk(), str(path), Manifest(STORE_ID, first_sequence, 0))


def test_a_hold_is_set_where_the_log_still_is(tmp_path: Path) -> None:
    """From the first sequence kept on; before it, RecordPurgedError, and there is no hold."""
    manifest(tmp_path, 4)
    for sequence in (4, 5, 10**6):
        assert set_hold(Disk(), str(tmp_path), "backup", sequence)
        assert everything(tmp_path, HOLD) == {"backup": sequence}
    with pytest.raises(RecordPurgedError) as caught:
        set_hold(Disk(), str(tmp_path), "audit", 3)
    assert (caught.value.sequence, caught.value.bound) == (3, 4)
    assert everything(tmp_path, HOLD) == {"backup": 10**6}


def test_only_one_decides(tmp_path: Path) -> None:
    """While somebody decides on a purge or sets a hold, nobody else does; then the next may."""
    manifest(tmp_path, 0)
    with exclusive(Disk(), str(tmp_path)) as first, exclusive(Disk(), str(tmp_path)) as second:
        assert (first, second) == (True, False)
        assert not set_hold(Disk(), str(tmp_path), "backup", 1)
        assert everything(tmp_path, HOLD) == {}
    assert set_hold(Disk(), str(tmp_path), "backup", 1)
