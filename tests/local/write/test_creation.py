"""recovery: the directory of a store, and a store that is new or half made."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from aquipu.errors import AquipuError, NotAStoreError, StoreUnavailableError
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import LOCK, MANIFEST, UNNAMED, segment_name
from aquipu.local.format.segment import SegmentHeader
from aquipu.local.write.recovery import RecoveryReport, check_place
from tests.disk import ANY, Crash, FailingDisk, undurable_names
from tests.local.logs import OTHER_ID, live, reopen
from tests.support import NOW, STORE_ID, data_in, header_in, open_log, snapshot, write

# the place


def test_a_missing_directory_is_made(tmp_path: Path) -> None:
    """The directory and those above it are made, for their owner alone, and their names are
    durable.
    """
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
    "name",
    [
        "letter.txt",
        "0.segment",
        "00000000000000000000.segments",
        "x00000000000000000000.cut-5",
        "Lock",
    ],
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
    """Only the unfinished files of a store are its own: what another program has laid there is
    never removed.
    """
    live(store, b"a")
    (store / f"letter{UNNAMED}").write_bytes(b"dear")
    reopen(store)
    assert (store / f"letter{UNNAMED}").read_bytes() == b"dear"


def test_a_directory_that_another_process_makes_at_the_same_moment(tmp_path: Path) -> None:
    """Two that open a new store together do not fail: the lock decides between them."""
    disk = FailingDisk()
    disk.before("make_directories", (tmp_path / "store").mkdir)
    check_place(disk, str(tmp_path / "store"))


@pytest.mark.parametrize("method", ["list", "exists", "make_directories"])
def test_a_place_that_cannot_be_used(tmp_path: Path, method: str) -> None:
    """What the operating system refuses becomes an error of the tree that names the path and the
    reason.
    """
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
    assert report == RecoveryReport(
        created=True, clean=True, first_sequence=0, next_sequence=0, segments=1
    )
    assert sorted(file.name for file in store.iterdir()) == [segment_name(0), MANIFEST]
    assert Manifest.decode((store / MANIFEST).read_bytes()) == Manifest(STORE_ID, 0, 0)
    assert header_in(store) == SegmentHeader(STORE_ID, 0, NOW, 0)


def test_the_order_of_a_creation(store: Path) -> None:
    """The first segment is durable before the manifest that says that there is one."""
    disk = FailingDisk()
    journal, _ = open_log(store, disk)
    journal.drop()
    changes = [
        call
        for call in disk.calls
        if call.path.startswith(str(store)) and call.method not in ("list", "close")
    ]
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


def creations(
    fault: Callable[[FailingDisk, int], object], path: Path
) -> Iterator[tuple[Path, FailingDisk]]:
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
    """Wherever the process ends, the next opening has a durable store before it acknowledges
    anything.
    """
    for store, disk in creations(FailingDisk.crash, tmp_path):
        check_creation(store, disk)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_at_every_call_of_a_creation(tmp_path: Path, number: int) -> None:
    """Whichever call fails, it is an error of the tree, and the next opening's store is durable."""
    for store, disk in creations(
        lambda disk, nth: disk.fail(ANY, number, nth=nth, written=10), tmp_path
    ):
        check_creation(store, disk)
