"""The objects of an archive in a directory: what is there after a power cut, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from errno import EIO, EMFILE, ENOSPC
from pathlib import Path
from random import Random
from typing import Any

import pytest

from aquipu import (
    Archive,
    ArchiveDamagedError,
    ArchiveUnavailableError,
    Reader,
    Stage,
    Store,
)
from aquipu.archive.bucket import Bucket, Different, Doubt
from aquipu.archive.errors import NoArchiveError
from aquipu.archive.fetch import read_state
from aquipu.archive.format.keys import Kind, ObjectKey, entry_key
from aquipu.archive.places import directory as directory_file
from aquipu.archive.places.directory import DirectoryStore
from aquipu.local.disk.disk import Disk
from tests.archive.contract import CONTRACT, SLOW
from tests.disk import FailingDisk, undurable_names
from tests.faults.volatile_disk import Replay, VolatileDisk

ROOT = "/archive"
URL = f"file://{ROOT}"
SEGMENT = str(ObjectKey.of(bytes(16), 0, 3, b"bytes", Kind.SEGMENT))


@pytest.mark.parametrize("rule", [*CONTRACT, *SLOW])
def test_the_contract(rule: Any, tmp_path: Path) -> None:
    """A directory keeps objects as a server does."""

    def at(prefix: str) -> Archive:
        archive = Archive(f"file://{tmp_path}/elsewhere/{prefix}", interval=0.1)
        archive.bucket_for(str(tmp_path / "store"))
        return archive

    rule(at, tmp_path)


class Volatile(VolatileDisk):
    """A disk whose directories are there, each."""

    def make_directories(self, path: str) -> None:
        """Do nothing: `undurable_names` looks at that."""

    def exists(self, path: str) -> bool:
        return path == ROOT or super().exists(path)


def test_a_power_cut_takes_nothing_that_was_put() -> None:
    """At each moment, all that was said to be put is there, and no object is there in part."""
    disk, random = Volatile(), Random(7)
    bucket = Bucket(URL, DirectoryStore(disk, ROOT))
    bodies = {entry_key(number): random.randbytes(1 + 600 * number) for number in range(4)}
    bodies[SEGMENT] = b"bytes"
    said = []  # how long the log was when an object was said to be put
    for key, body in bodies.items():
        bucket.put_new(key, body)
        said.append((len(disk.log), f"{ROOT}/{key}"))
    bucket.put_new(SEGMENT, b"bytes")
    replay = Replay(disk)
    for moment, event in enumerate(disk.log, 1):
        replay.take(event)
        for files in replay.states(random, 5):
            objects = {path: data for path, data in files.items() if not _is_unfinished(path)}
            assert all(path in objects for when, path in said if when <= moment)
            for path, data in objects.items():
                assert data == bodies[path.removeprefix(f"{ROOT}/")], moment


def _is_unfinished(path: str) -> bool:
    return path.endswith(".unnamed")


def test_an_object_has_its_name_when_its_bytes_are_on_the_disk(tmp_path: Path) -> None:
    """It is written, synced, named, and then its directory is synced: in this order."""
    disk = FailingDisk()
    bucket = Bucket(URL, DirectoryStore(disk, str(tmp_path)))
    for number in range(2):
        disk.calls = [call for call in disk.calls if call.method == "make_directories"]
        bucket.put_new(entry_key(number), b"entry")
    steps = [name for name, _ in disk.steps("write", "sync", "link", "remove", "sync_directory")]
    assert steps == ["write", "sync", "link", "remove", "sync_directory"]
    assert not disk.open_files


def test_the_directories_of_objects_are_durable(tmp_path: Path) -> None:
    """A power cut takes no name of a directory that was made for objects, and none of theirs."""
    disk = FailingDisk()
    bucket = Bucket(URL, DirectoryStore(disk, str(tmp_path)))
    for key in (entry_key(0), SEGMENT):
        bucket.put_new(key, b"bytes")
    assert undurable_names(disk.calls) == set()


def test_directories_are_made_durable_once_for_each_process(tmp_path: Path) -> None:
    """Also those that are there: the process that has made them may have died before the sync."""
    (tmp_path / "entries").mkdir()
    disk = FailingDisk()
    bucket = Bucket(URL, DirectoryStore(disk, str(tmp_path)))
    for number in range(3):
        bucket.put_new(entry_key(number), b"entry")
    assert disk.steps("make_directories") == [("make_directories", "entries")]


def test_what_has_the_name_already_may_never_have_been_synced(tmp_path: Path) -> None:
    """The same bytes are put in its place, synced; nothing is put in place of other bytes."""
    (tmp_path / "entries").mkdir()
    path = tmp_path / entry_key(0)
    path.write_bytes(b"entry")
    before, disk = path.stat().st_ino, FailingDisk()
    bucket = Bucket(URL, DirectoryStore(disk, str(tmp_path)))
    bucket.put_new(entry_key(0), b"entry")
    assert path.stat().st_ino != before
    steps = [name for name, _ in disk.steps("sync", "rename", "sync_directory")][-3:]
    assert steps == ["sync", "rename", "sync_directory"]
    before = path.stat().st_ino
    with pytest.raises(Different):
        bucket.put_new(entry_key(0), b"other")
    assert (path.stat().st_ino, path.read_bytes()) == (before, b"entry")
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("call", ["create", "write", "sync", "link", "remove", "sync_directory"])
@pytest.mark.parametrize("error", [EIO, ENOSPC, EMFILE])
def test_an_object_that_may_be_lost_is_not_believed(call: str, error: int, tmp_path: Path) -> None:
    """After each error it is put again, though it may be found: and only then it has been put."""
    disk = FailingDisk()
    bucket = Bucket(URL, DirectoryStore(disk, str(tmp_path)))
    disk.fail(call, error, of="/entries" if call == "sync_directory" else "")
    with pytest.raises(Doubt):
        bucket.put_new(entry_key(0), b"entry")
    disk.fail("create", error, nth=1)
    with pytest.raises(Doubt):
        bucket.put_new(entry_key(0), b"entry")
    disk.mend()
    seen = len(disk.calls)
    bucket.put_new(entry_key(0), b"entry")
    assert [one.method for one in disk.calls[seen:]].count("sync_directory") == 1
    assert bucket.get(entry_key(0)) == b"entry"
    assert not disk.open_files


def test_no_permission(tmp_path: Path) -> None:
    """It is said at once, not asked again."""
    disk = FailingDisk()
    disk.fail("create", PermissionError(13, "Permission denied", "/archive/entries"))
    with pytest.raises(ArchiveUnavailableError, match="no permission: Permission denied: /arch"):
        Bucket(URL, DirectoryStore(disk, str(tmp_path))).put_new(entry_key(0), b"entry")


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """That of a disk that is not mounted is no archive without objects; none is made there."""
    with pytest.raises(NoArchiveError, match="there is no such directory"):
        Archive(f"file://{tmp_path}/archive").bucket()
    archive = Archive(f"file://{tmp_path}/archive")
    bucket = archive.bucket_for(str(tmp_path / "store"))
    bucket.put_new(entry_key(0), b"entry")
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    for ask in (
        lambda: bucket.get(entry_key(0)),
        lambda: bucket.list("entries"),
        lambda: bucket.ranges(entry_key(0), [(0, 1)]),
        lambda: bucket.put_new(entry_key(1), b"entry"),
    ):
        with pytest.raises(ArchiveUnavailableError, match="there is no such directory"):
            ask()
    assert os.listdir(tmp_path) == ["elsewhere"]


_KILLED = """
import os, signal, sys
from aquipu.archive.places.directory import DirectoryStore
from tests.faults.crashing_disk import CrashingDisk

place, moment = sys.argv[1], int(sys.argv[2])
disk = CrashingDisk(moment, 0.5, lambda call: None)
store = DirectoryStore(disk, place)
store.put("entries/00000000000000000000", b"entry", mode="create", use_multipart=False)
print("whole")
"""


def test_what_a_killed_process_has_left_is_removed(tmp_path: Path) -> None:
    """Wherever it was killed: an object is there whole or not, and nothing else stays."""
    for moment in range(1, 20):
        place = tmp_path / str(moment)
        place.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _KILLED, str(place), str(moment)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        bucket = Archive(f"file://{place}").bucket_for(str(tmp_path / "store"))
        assert bucket.get(entry_key(0)) in (None, b"entry")
        names = os.listdir(place / "entries") if (place / "entries").exists() else []
        assert names in ([], [entry_key(0).rpartition("/")[2]])
    else:
        raise AssertionError("it never came to its end")
    assert moment > 5


def test_what_a_living_process_is_writing_stays(tmp_path: Path) -> None:
    """Another one that begins does not take it away; and no listing shows it."""
    disk, other = FailingDisk(), DirectoryStore(Disk(), str(tmp_path))
    bucket = Bucket(URL, DirectoryStore(disk, str(tmp_path)))
    listed = []

    def look() -> None:
        other.remove_unfinished()
        listed.append((len(os.listdir(tmp_path / "entries")), bucket.list("entries")))

    disk.before("link", look)
    bucket.put_new(entry_key(0), b"entry")
    assert listed == [(1, {})]
    assert bucket.list("entries") == {entry_key(0): 5}


def test_only_what_is_known_to_be_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What obstore left goes when it is old; a file of somebody else never does."""
    (tmp_path / "entries").mkdir()
    left = [tmp_path / f"{entry_key(0)}#1", tmp_path / f"{entry_key(1)}.{'0' * 16}.unnamed"]
    others = [tmp_path / "entries" / name for name in ("notes#1", f"notes.{'0' * 16}.unnamed")]
    for path in left + others:
        path.write_bytes(b"part")
    store = DirectoryStore(Disk(), str(tmp_path))
    assert list(Bucket(URL, store).list("entries")) == []
    store.remove_unfinished()
    assert [path.exists() for path in left + others] == [True, False, True, True]
    monkeypatch.setattr(directory_file, "_LEFT_NS", -1)
    store.remove_unfinished()
    assert [path.exists() for path in left + others] == [False, False, True, True]


@pytest.mark.parametrize(("mode", "file"), [(0o700, 0o600), (0o755, 0o644), (0o770, 0o660)])
def test_who_may_read_the_directory_may_read_its_objects(
    mode: int, file: int, tmp_path: Path
) -> None:
    """And nobody else: whatever the umask."""
    place = tmp_path / "archive"
    place.mkdir()
    place.chmod(mode)
    Archive(f"file://{place}").bucket().put_new(entry_key(0), b"entry")
    assert (place / entry_key(0)).stat().st_mode & 0o777 == file
    assert (place / "entries").stat().st_mode & 0o777 == mode


def test_without_obstore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive in a directory needs no package."""
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    archive = Archive(f"file://{tmp_path}/archive")
    archive.bucket_for(str(tmp_path / "store")).put_new(entry_key(0), b"entry")


def test_an_archive_of_an_earlier_version(tmp_path: Path) -> None:
    """What obstore put is found, and what is put now obstore finds."""
    from obstore.store import from_url

    url = f"file://{tmp_path}"
    before = Bucket(url, from_url(url))
    before.put_new(entry_key(0), b"zero")
    now = Archive(url).bucket()
    now.put_new(entry_key(1), b"one")
    for bucket in (before, now):
        assert bucket.list("entries") == {entry_key(0): 4, entry_key(1): 3}
        assert (bucket.get(entry_key(0)), bucket.get(entry_key(1))) == (b"zero", b"one")
    assert now.times("entries").keys() == before.times("entries").keys()


@pytest.mark.asyncio
async def test_an_entry_that_a_power_cut_emptied(tmp_path: Path) -> None:
    """One that an earlier version did not sync is damage; without the file, all goes on."""
    archive = Archive(f"file://{tmp_path}/archive", interval=0.05)
    for number in range(2):
        async with Store.open(tmp_path / "store", archive=archive) as store:
            receipt = await store.append(b"%d" % number)
            await store.reached(Stage.ARCHIVED, receipt.sequence)
    newest = max((tmp_path / "archive" / "entries").iterdir())
    newest.write_bytes(b"")
    with pytest.raises(ArchiveDamagedError, match=newest.name):
        read_state(archive.bucket())
    newest.unlink()
    async with Store.open(tmp_path / "store", archive=archive) as store:
        await store.reached(Stage.ARCHIVED, store.next_sequence - 1)
    async with Reader.open(archive) as reader:
        assert [record.data async for record in reader.scan()] == [b"0", b"1"]
