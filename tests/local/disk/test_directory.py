"""directory: a store writes where it was opened, and says nothing is stored when that is no longer
where its path leads.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aquipu import (
    Always,
    AquipuError,
    EveryN,
    OsManaged,
    Reader,
    Stage,
    Store,
    StoreFailedError,
    StoreLockedError,
    StoreUnavailableError,
    SyncPolicy,
)
from aquipu.local.disk.directory import Directory
from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import HOLDS_LOCK, LOCK, MANIFEST
from tests.support import engine_of, segment_in, segments_in

SEGMENT_BYTES = 8192


def removed(path: Path) -> None:
    while path.exists():  # something may just be made in it
        shutil.rmtree(path, ignore_errors=True)


def moved(path: Path) -> None:
    path.rename(path.parent / "moved")


def replaced(path: Path) -> None:
    moved(path)
    path.mkdir()


def replaced_by_a_copy(path: Path) -> None:
    moved(path)
    shutil.copytree(path.parent / "moved", path)


def replaced_by_a_file(path: Path) -> None:
    moved(path)
    path.write_text("")


def moved_with_its_parent(path: Path) -> None:
    path.parent.rename(path.parent.parent / "elsewhere")


def covered_by_a_link(path: Path) -> None:
    moved(path)
    (path.parent / "other").mkdir()
    path.symlink_to("other")


def led_round_in_a_circle(path: Path) -> None:
    moved(path)
    path.symlink_to(path.name)


def segment_removed(path: Path) -> None:
    segments_in(path)[-1].unlink()


def segment_replaced(path: Path) -> None:
    file = segments_in(path)[-1]
    copy = file.read_bytes()
    file.unlink()
    file.write_bytes(copy)


def segment_renamed(path: Path) -> None:
    file = segments_in(path)[-1]
    file.rename(file.with_suffix(".old"))


def sealed_segment_removed(path: Path) -> None:
    segments_in(path)[0].unlink()


def manifest_removed(path: Path) -> None:
    (path / MANIFEST).unlink()


PLACES = [
    *(
        removed,
        moved,
        replaced,
        replaced_by_a_copy,
        replaced_by_a_file,
        moved_with_its_parent,
        covered_by_a_link,
    ),
    *(
        led_round_in_a_circle,
        segment_removed,
        segment_replaced,
        segment_renamed,
        sealed_segment_removed,
        manifest_removed,
    ),
]
Act = Callable[[Path], None]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a store is to be: in a directory that has a parent to be moved with."""
    parent = tmp_path / "parent"
    parent.mkdir()
    return parent / "store"


async def some(store: Store) -> list[bytes]:
    """Some records of more than one segment, all of them on the disk."""
    payloads = [b"%d " % number * 1500 for number in range(4)]
    for payload in payloads:
        await store.append(payload, durability=Stage.SYNCED)
    return payloads


@pytest.mark.asyncio
@pytest.mark.parametrize("policy", [Always(), EveryN(64), OsManaged()], ids=repr)
@pytest.mark.parametrize("act", PLACES)
async def test_nothing_more_is_acknowledged(place: Path, act: Act, policy: SyncPolicy) -> None:
    """The next commit fails, whatever the policy, and so does each one after it; `health` says why;
    and no segment has come to be anywhere."""
    store = await Store.open(place, sync_policy=policy, max_segment_bytes=SEGMENT_BYTES)
    await some(store)
    act(place)
    before = sorted(place.parent.parent.rglob("*.segment"))
    for _ in range(3):
        with pytest.raises(StoreFailedError, match="checking its place"):
            await store.append(b"z" * 3000)
    health = store.health()
    assert health.state == "failed"
    assert "checking its place" in health.reasons[0]
    with pytest.raises(StoreFailedError):
        await store.aclose()
    assert sorted(place.parent.parent.rglob("*.segment")) == before


@pytest.mark.asyncio
@pytest.mark.parametrize("act", PLACES)
async def test_it_is_noticed_at_the_end(place: Path, act: Act) -> None:
    """A store to which nothing more is appended says it when it is closed."""
    store = await Store.open(place, max_segment_bytes=SEGMENT_BYTES)
    await some(store)
    act(place)
    with pytest.raises(StoreFailedError, match="checking its place"):
        await store.aclose()


@pytest.mark.asyncio
async def test_it_is_noticed_without_an_append(place: Path) -> None:
    """Whoever asks an idle store for its health now and then is told."""
    store = await Store.open(place)
    moved(place)
    async with asyncio.timeout(20):
        while store.health().state == "ok":  # noqa: ASYNC110 - nobody is woken by it
            await asyncio.sleep(0.05)
    assert str(place.parent / "moved") in store.health().reasons[0]
    with pytest.raises(StoreFailedError):
        await store.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("act", [moved, replaced, replaced_by_a_copy, covered_by_a_link])
async def test_what_was_acknowledged_is_where_the_directory_is(place: Path, act: Act) -> None:
    """All that was acknowledged is in the directory that was opened, wherever it is now, and
    nothing is elsewhere.
    """
    store = await Store.open(place, max_segment_bytes=SEGMENT_BYTES)
    told = await some(store)
    act(place)
    with pytest.raises(StoreFailedError):
        await store.append_many([b"z" * 9000, b"z" * 9000])
    with pytest.raises(StoreFailedError):
        await store.aclose()
    async with Store.open(place.parent / "moved") as found:
        assert [record.data async for record in found.scan()][: len(told)] == told
    assert act is not replaced or os.listdir(place) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("act", [moved, replaced, removed])
async def test_no_cursor_and_no_hold_is_saved_elsewhere(place: Path, act: Act) -> None:
    """What a consumer saves and what is held is not said to be kept when the directory is not where
    the path leads.
    """
    store = await Store.open(place)
    await some(store)
    act(place)
    with pytest.raises(StoreUnavailableError):
        await store.cursor("consumer").save(2)
    with pytest.raises(AquipuError):
        await store.hold("backup", 1)
    with pytest.raises(StoreFailedError):
        await store.aclose()
    assert act is not replaced or os.listdir(place) == []


@pytest.mark.asyncio
async def test_names_that_come_and_go_are_no_trouble(place: Path) -> None:
    """A cursor that is saved with each record, files of others, a change of rights: all go on."""
    async with Store.open(place, sync_policy=Always(), max_segment_bytes=SEGMENT_BYTES) as store:
        for number in range(12):
            await store.append(b"z" * 1000)
            await store.cursor("consumer").save(number)
            (place / f"stranger-{number}").write_text("")
            if number % 3 == 2:
                (place / f"stranger-{number}").unlink()
        os.chmod(place, 0o750)
        await store.append(b"z")
        assert store.health().state == "ok"


@pytest.mark.asyncio
async def test_a_link_that_is_the_path(place: Path) -> None:
    """A store may be opened through a link; what the link leads to is held, not the link."""
    os.mkdir(place.parent / "v1")
    os.mkdir(place.parent / "v2")
    os.symlink("v1", place)
    store = await Store.open(place)
    await store.append(b"x")
    os.unlink(place)
    os.symlink("v1", place)  # anew, to the same
    await store.append(b"x")
    os.unlink(place)
    os.symlink("v2", place)
    with pytest.raises(StoreFailedError, match="v1"):
        await store.append(b"x")
    with pytest.raises(StoreFailedError):
        await store.aclose()
    assert os.listdir(place) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("policy", [Always(), OsManaged()])
@pytest.mark.parametrize("size", [0, 200])
async def test_the_next_commit_notices_that_the_segment_is_cut_off(
    place: Path, policy: SyncPolicy, size: int
) -> None:
    """Nothing is acknowledged that would stand behind a hole, where no reader finds it."""
    store = await Store.open(place, sync_policy=policy)
    await store.append(b"x" * 1000)
    store.statistics()
    os.truncate(segment_in(place), size)
    with pytest.raises(StoreFailedError, match="cut off"):
        await store.append(b"y" * 1000)
    with pytest.raises(StoreFailedError):
        await store.aclose()


@pytest.mark.asyncio
async def test_a_close_notices_that_the_segment_is_cut_off(place: Path) -> None:
    """What was acknowledged is gone, so it is not said to be closed in order."""
    store = await Store.open(place, sync_policy=OsManaged())
    await store.append(b"x" * 1000)
    os.truncate(segment_in(place), 200)
    with pytest.raises(StoreFailedError, match="cut off"):
        await store.aclose()


async def over_a_roll(store: Store) -> None:
    for _ in range(3):
        await store.append(b"x" * 3000)


class CutsAtARoll(Disk):
    """Cuts off the segment that is being sealed: before it is prepared for that, or after."""

    def __init__(self, place: Path, call: str) -> None:
        super().__init__()
        self.place, self.call = place, call

    def truncate(self, descriptor: int, size: int) -> None:
        super().truncate(descriptor, size)
        if self.call == "truncate":
            os.truncate(segment_in(self.place), 200)

    def rename(self, old: str, new: str) -> None:
        if self.call == "rename" and new.endswith(".segment") and segments_in(self.place):
            os.truncate(segment_in(self.place), 200)
        super().rename(old, new)


@pytest.mark.asyncio
@pytest.mark.parametrize("call", ["truncate", "rename"])
async def test_a_segment_that_is_cut_off_is_not_sealed(place: Path, call: str) -> None:
    """Its footer would give it its size back, and the hole would not show before it is verified."""
    disk = CutsAtARoll(place, call)
    store = await Store.open(place, sync_policy=Always(), max_segment_bytes=4096, disk=disk)
    with pytest.raises(StoreFailedError, match="cut off"):
        await over_a_roll(store)
    assert store.health().state == "failed"
    with pytest.raises(StoreFailedError):
        await store.aclose()


@pytest.mark.asyncio
async def test_the_segment_is_cut_off(place: Path) -> None:
    """A segment that is truncated (logrotate's copytruncate) is noticed while it is written."""
    store = await Store.open(place, sync_policy=Always())
    await store.append(b"x")
    os.truncate(segment_in(place), 0)
    engine_of(store)._journal._space.measure_at = 0
    store.statistics()  # has the worker look beside commits, at most once a second
    async with asyncio.timeout(20):
        while store.health().state == "ok":  # noqa: ASYNC110 - nobody is woken by it
            await asyncio.sleep(0.05)
    with pytest.raises(StoreFailedError, match="cut off"):
        await store.append(b"x")
    with pytest.raises(StoreFailedError):
        await store.aclose()


@pytest.mark.asyncio
@pytest.mark.parametrize("act", [removed, moved, replaced, replaced_by_a_copy, covered_by_a_link])
async def test_a_reader_says_so(place: Path, act: Act) -> None:
    """A Reader never goes on silently beside the store that has its path now: reading and following
    raise.
    """
    async with Store.open(place) as store:
        await some(store)
    async with Reader.open(place) as reader:
        follower = reader.follow(0)
        await anext(follower)
        act(place)
        with pytest.raises(StoreUnavailableError, match="director"):
            await reader.get(0)
        with pytest.raises(StoreUnavailableError, match="director"):
            async for _ in follower:
                pass


def test_what_cannot_be_told_is_not_held_against_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system that does not answer for a moment, or a program that gave its rights up, poisons
    nothing.
    """
    place.mkdir()
    directory = Directory(Disk(), str(place))

    def refused(disk: Disk, file: str | int) -> tuple[int, int, int, int]:
        raise PermissionError(13, "Permission denied", file)

    with monkeypatch.context() as patch:
        patch.setattr(Disk, "seen", refused)
        assert directory.wrong() is None
    moved(place)
    assert directory.wrong() is not None
    directory.close()


def test_files_are_looked_at_only_when_names_have_changed(place: Path) -> None:
    """A directory that rests costs one look at its path; one in which something has just happened
    is looked at again, as the next change may bear the same time.
    """
    place.mkdir()
    directory = Directory(Disk(), str(place))
    asked: list[bool] = []

    def files(whole: bool) -> str | None:
        asked.append(whole)
        return "gone" if len(asked) == 4 else None

    assert directory.wrong(files) is directory.wrong(files) is None
    assert len(asked) == 2  # it has just been made
    os.utime(place, ns=(0, 0))
    directory._settled = Disk().seen(str(place))
    assert directory.wrong(files) is None
    assert len(asked) == 2
    (place / "new").write_text("")
    assert [directory.wrong(files) for _ in range(2)] == [None, "gone"]
    directory.close()


def test_a_pinned_directory_is_given_back(place: Path) -> None:
    """Its descriptor is closed with the last one who holds it, and its path is a path again."""
    place.mkdir()
    disk = Disk()
    before = len(os.listdir("/dev/fd"))
    one, two = Directory(disk, str(place)), Directory(disk, str(place))
    assert len(os.listdir("/dev/fd")) == before + 1
    replaced(place)
    (place / "new").write_text("")
    one.close()
    assert not disk.exists(f"{place}/new")
    two.close()
    assert disk.exists(f"{place}/new")
    assert len(os.listdir("/dev/fd")) == before


# one writer

SECOND = """
import asyncio, sys
from aquipu import AquipuError, Store
async def main():
    try:
        async with Store.open(sys.argv[1], lock_timeout=0) as store:
            await store.append(b"second")
            print("opened")
    except AquipuError as error:
        print(type(error).__name__)
asyncio.run(main())
"""


def lock_removed(path: Path) -> None:
    (path / LOCK).unlink()


def lock_replaced(path: Path) -> None:
    lock_removed(path)
    (path / LOCK).write_text("1\n")


def locks_removed(path: Path) -> None:
    (path / LOCK).unlink()
    (path / HOLDS_LOCK).unlink(missing_ok=True)


@pytest.mark.asyncio
@pytest.mark.parametrize("act", [lock_removed, lock_replaced, locks_removed])
async def test_without_the_lock_file_nobody_is_let_in(place: Path, act: Act) -> None:
    """Whoever removes "the stale lock" under a writer lets no second one in, in this process or
    another; and the writer goes on, and puts the file back."""
    async with Store.open(place, sync_policy=Always()) as store:
        await store.append(b"first")
        act(place)
        with pytest.raises(StoreLockedError):
            await Store.open(place, lock_timeout=0)
        second = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", SECOND, str(place)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert second.stdout.strip() == "StoreLockedError"
        await store.append(b"first again")
        assert (place / LOCK).read_text() == f"{os.getpid()}\n"
        with pytest.raises(StoreLockedError, match=rf"in this process \({os.getpid()}\)"):
            await Store.open(place, lock_timeout=0)
    async with Store.open(place, lock_timeout=0) as store:
        assert [record.data async for record in store.scan()] == [b"first", b"first again"]


@pytest.mark.asyncio
async def test_where_directories_are_not_locked(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the lock file is all there is: a writer notices, before it acknowledges anything, that
    another one has it.
    """

    def opened_only(disk: Disk, path: str, *, shared: bool = False) -> int:
        return disk.open(path)

    monkeypatch.setattr(Disk, "try_lock_directory", opened_only)
    store = await Store.open(place, sync_policy=Always())
    await store.append(b"first")
    with pytest.raises(StoreLockedError):
        await Store.open(place, lock_timeout=0)
    lock_removed(place)
    second = Disk().try_lock(str(place / LOCK))
    assert second is not None
    with pytest.raises(StoreFailedError, match="another process has it"):
        await store.append(b"first again")
    with pytest.raises(StoreFailedError):
        await store.aclose()
    os.close(second)
