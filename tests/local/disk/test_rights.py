"""mode= and group=: every file that a store makes has the rights that were asked for, today and at
the next roll.
"""

from __future__ import annotations

import asyncio
import grp
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from stat import S_IMODE
from tempfile import TemporaryDirectory

import pytest

from aquipu import Always, NotAStoreError, Store
from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import ACKNOWLEDGED, LOCK, MANIFEST
from tests.cli.support import well
from tests.support import flip, segments_in

READS = """
import asyncio, os, sys
from aquipu import Reader
path, group = sys.argv[1], int(sys.argv[2])
async def main():
    async with Reader.open(path) as reader:
        records = [record async for record in reader.scan()]
        found = [record async for record in reader.scan(relation="a:1")]
        return len(records), len(found)
asyncio.run(main())  # as root, who may read what is imported
os.setgroups([])
os.setresgid(group, group, group)
os.setresuid(65534, 65534, 65534)
print(*asyncio.run(main()))
"""


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that everybody may enter; those of pytest are for their user alone."""
    with TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


def modes(path: Path) -> set[int]:
    """Of all files in a directory."""
    return {S_IMODE(file.stat().st_mode) for file in path.iterdir()}


async def everything(path: Path, mode: int | None = None, group: str | None = None) -> None:
    """A life in which each kind of file is made: segments, a spare one, tables, the manifest, a
    hold and a cursor.
    """
    async with Store.open(
        path, sync_policy=Always(), max_segment_bytes=4096, mode=mode, group=group
    ) as store:
        for _ in range(6):
            await store.append(b"x" * 2000, relations=("a:1",))
        await store.cursor("consumer").save(3)
        await store.hold("backup", 1)
        await store.purge(before=2)
        assert (
            len([record async for record in store.scan(relation="a:1")])
            == store.next_sequence - store.first_sequence
        )


@pytest.mark.asyncio
@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o644])
async def test_every_file_has_the_rights(tmp_path: Path, mode: int) -> None:
    """Whatever the umask is, all files have them, and who may read a file may enter the directories
    that were made.
    """
    path = tmp_path / "above" / "store"
    await everything(path, mode)
    assert modes(path) == {mode}
    enter = mode | (mode & 0o444) >> 2
    assert {S_IMODE(place.stat().st_mode) for place in (path, path.parent)} == {enter}


@pytest.mark.asyncio
async def test_files_that_are_there_get_them_too(tmp_path: Path) -> None:
    """A store that was made for its owner alone is opened for a group: each of its files can be
    read, the directory keeps its own rights; and opened without, it keeps what its files have.
    """
    path = tmp_path / "store"
    await everything(path)
    assert modes(path) == {0o600}
    await everything(path, 0o640)
    assert modes(path) == {0o640}
    assert S_IMODE(path.stat().st_mode) == 0o700


@pytest.mark.asyncio
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_a_member_of_the_group_reads(open_path: Path) -> None:
    """Somebody who is in the group and may write nothing reads all records, those of segments that
    were made later too.
    """
    group = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, os.getgid()))
    path = open_path / "store"
    await everything(path, group=group.gr_name)
    assert modes(path) == {0o640}
    assert {file.stat().st_gid for file in (path, *path.iterdir())} == {group.gr_gid}
    before = sorted(path.iterdir())
    async with Store.open(path, max_segment_bytes=4096, group=group.gr_name) as store:
        for _ in range(4):
            await store.append(b"x" * 4096)
        records = store.next_sequence - store.first_sequence
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", READS, str(path), str(group.gr_gid)],
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stderr, done.stdout.split()[0]) == ("", str(records))
    assert set(before) <= set(path.iterdir()) | set(segments_in(path))


@pytest.mark.asyncio
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another group")
async def test_a_directory_that_hands_its_group_down(tmp_path: Path) -> None:
    """In a setgid directory files belong to its group, and directories that are made hand it down
    as well.
    """
    group = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, os.getgid()))
    os.chown(tmp_path, -1, group.gr_gid)
    os.chmod(tmp_path, 0o2770)
    path = tmp_path / "store"
    await everything(path, 0o640)
    assert {file.stat().st_gid for file in (path, *path.iterdir())} == {group.gr_gid}
    assert S_IMODE(path.stat().st_mode) == 0o2750
    assert S_IMODE(os.stat(tmp_path).st_mode) == 0o2770


@pytest.mark.parametrize("mode", [0, 0o400, 0o440, 0o700, 0o755, 0o1640, -1])
def test_rights_that_cannot_be(tmp_path: Path, mode: int) -> None:
    """The owner must be able to read and write, and nobody executes a log."""
    with pytest.raises(ValueError, match="0o640"):
        Store.open(tmp_path, mode=mode)


@pytest.mark.parametrize(
    "options", [{"mode": "640"}, {"mode": True}, {"mode": 6.4}, {"group": 100}]
)
def test_rights_that_are_none(tmp_path: Path, options: dict[str, object]) -> None:
    """What is no number and no name is refused at once."""
    with pytest.raises(TypeError):
        Store.open(tmp_path, **options)  # type: ignore[arg-type]


def test_a_group_that_nobody_knows(tmp_path: Path) -> None:
    """It is refused at once, by name."""
    with pytest.raises(ValueError, match="nobody-at-all"):
        Store.open(tmp_path, group="nobody-at-all")


def test_rights_on_the_command_line(tmp_path: Path) -> None:
    """append takes them as chmod does."""
    command = [sys.executable, "-m", "aquipu", "append", str(tmp_path / "store")]
    subprocess.run([*command, "--mode", "640"], input=b"x\n", check=True)
    assert modes(tmp_path / "store") == {0o640}
    for wrong in (["--mode", "rw-r-----"], ["--mode", "755"], ["--group", "nobody-at-all"]):
        refused = subprocess.run([*command, *wrong], input=b"x\n", capture_output=True, check=False)
        assert (refused.returncode, wrong[0].encode() in refused.stderr) == (2, True)


# where a store may be made


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name", ["lost+found", ".snapshot", ".zfs", ".DS_Store", ".Trash-1000", ".nfs000000"]
)
async def test_a_fresh_volume(tmp_path: Path, name: str) -> None:
    """A directory that holds nothing but what a file system puts there itself takes a new store,
    and keeps that.
    """
    (tmp_path / name).mkdir()
    async with Store.open(tmp_path) as store:
        await store.append(b"x")
    async with Store.open(tmp_path) as store:
        assert store.next_sequence == 1
    assert (tmp_path / name).is_dir()
    assert {LOCK, MANIFEST, ACKNOWLEDGED} <= set(os.listdir(tmp_path))


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["lost", "letter.txt", "lost+found.txt"])
async def test_a_directory_of_somebody_else(tmp_path: Path, name: str) -> None:
    """Anything else is somebody's, hidden files beside it or not: nothing is written there."""
    (tmp_path / ".hidden").write_text("")
    (tmp_path / name).write_text("")
    with pytest.raises(NotAStoreError, match=name.replace("+", r"\+")):
        await Store.open(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([".hidden", name])


def test_a_file_of_another_user(tmp_path: Path) -> None:
    """It keeps its rights: only its owner may change them."""
    disk = Disk()
    disk.permit(0o640, None)
    os.close(disk.create(str(tmp_path / "file")))
    assert modes(tmp_path) == {0o640}
    os.chmod(tmp_path / "file", 0o600)
    os.chown(tmp_path / "file", 65534, -1) if os.geteuid() == 0 else None
    disk.entitle(str(tmp_path / "file"))
    assert modes(tmp_path) == ({0o600} if os.geteuid() == 0 else {0o640})


# what the commands make in a store that is there


def commands(path: Path) -> None:
    """Each command that makes files in a store, on one with damage that repair mends."""
    segments = segments_in(path)
    for arguments in (
        ["hold", str(path), "mine"],
        ["index", str(path), "--rebuild"],
        ["purge", str(path), "--before", "2"],
        ["repair", str(path), "--yes"],
    ):
        if arguments[0] == "repair":
            flip(segments[-2], 100)
            (path / MANIFEST).unlink()
        well(*arguments)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660])
def test_what_the_commands_make(tmp_path: Path, mode: int) -> None:
    """It has the rights that the store's files have: who reads them reads what is new and what was
    repaired as well.
    """
    path = tmp_path / "store"
    asyncio.run(everything(path, mode))
    commands(path)
    assert [file.name for file in path.glob("*.cut-*")]
    assert modes(path) == {mode}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_makes_in_a_store_of_another_user(tmp_path: Path) -> None:
    """It belongs to that user and to the group of the store, so its service goes on."""
    path = tmp_path / "store"
    asyncio.run(everything(path, 0o640))
    for file in (path, *path.iterdir()):
        os.chown(file, 65534, 4)
    commands(path)
    assert {(file.stat().st_uid, file.stat().st_gid) for file in path.iterdir()} == {(65534, 4)}
    assert modes(path) == {0o640}


def test_a_group_that_this_user_cannot_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was for that group is not for another: it is for the user alone."""
    (tmp_path / "like").write_bytes(b"")
    os.chmod(tmp_path / "like", 0o664)
    disk = Disk()
    disk.permit_as(str(tmp_path / "like"))
    disk._rights = disk._rights._replace(group=12345)  # type: ignore[union-attr]

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    os.close(disk.create(str(tmp_path / "new")))
    assert S_IMODE((tmp_path / "new").stat().st_mode) == 0o604
