"""A disk without one free block: what frees space works on it, and retention does so at once."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from errno import EDQUOT, EFBIG, ENOSPC
from itertools import count
from pathlib import Path

import pytest

from aquipu import Always, Reader, Retention, Store, StoreFullError
from aquipu.local.format.names import MANIFEST, UNNAMED, Reserve
from tests.disk import Crash, FailingDisk
from tests.support import copy_of, open_log, segments_in

KIB = 1024


def mount(path: Path, kind: str) -> bool:
    """Have a small file system of its own there; False where that cannot be."""
    path.mkdir()
    if kind == "tmpfs":
        commands = [["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path)]]
    else:
        image = path.with_suffix(".image")
        image.write_bytes(bytes(2048 * KIB))
        commands = [
            ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)],
            ["mount", "-o", "loop", str(image), str(path)],
        ]
    with suppress(OSError):
        return all(
            subprocess.run(command, capture_output=True, check=False).returncode == 0
            for command in commands
        )
    return False


@pytest.fixture(params=["tmpfs", "ext4"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "volume"
    if not mount(path, request.param):
        pytest.skip(f"no {request.param} can be mounted here")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=False)


def fill(volume: Path) -> None:
    """Leave no byte free."""
    with (volume / "ballast").open("ab", buffering=0) as ballast:
        for size in (64 * KIB, 4 * KIB, KIB, 1):
            with suppress(OSError):
                while True:
                    ballast.write(bytes(size))
                    os.fsync(ballast.fileno())


async def written(path: Path, records: int) -> None:
    async with Store.open(path, sync_policy=Always(), max_segment_bytes=32 * KIB) as store:
        for _ in range(records):
            await store.append(bytes(8000), relations=("a",))


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "killed"])
@pytest.mark.asyncio
async def test_a_full_disk_is_opened_held_and_purged(volume: Path, killed: bool) -> None:
    """Whatever the process before has left in the lock file; and then there is space again."""
    path = volume / "store"
    await written(path, 20)
    if killed:
        (path / "lock").write_text("99999\n")
    fill(volume)
    async with Store.open(path, max_segment_bytes=32 * KIB, lock_timeout=0) as store:
        await store.hold("backup", 10)
        purged = await store.purge(before=15)
        assert 0 < purged.first_sequence <= 10
        assert purged.segments > 0
        await store.append(bytes(8000))
    async with Store.open(path) as store:
        assert (store.first_sequence, store.next_sequence) == (purged.first_sequence, 21)
        assert await store.holds() == {"backup": 10}


@pytest.mark.asyncio
async def test_retention_frees_space_at_once(volume: Path) -> None:
    """A commit that finds no space is tried again behind what the retention lets go of: its caller
    hears of nothing.
    """
    path = volume / "store"
    await written(path, 20)
    fill(volume)
    retention = Retention(max_bytes=64 * KIB)
    async with Store.open(
        path, max_segment_bytes=32 * KIB, retention=retention, lock_timeout=0
    ) as store:
        for _ in range(40):
            await store.append(bytes(8000))
        assert store.statistics().disk_bytes < 128 * KIB
        assert store.first_sequence > 0


@pytest.mark.asyncio
async def test_consumers_go_on_on_a_full_disk(volume: Path) -> None:
    """Each of several saves where it has come as often as it likes, one that is new too, in the
    process of the writer and beside it; also when something else takes each free byte meanwhile.
    """
    path = volume / "store"
    await written(path, 20)
    async with Reader.open(path) as reader:
        for name in ("a", "b"):
            await reader.cursor(name).save(0)
    fill(volume)
    async with (
        Store.open(path, max_segment_bytes=32 * KIB, lock_timeout=0) as store,
        Reader.open(path) as reader,
    ):
        for sequence in range(1, 6):
            for log, name in ((store, "a"), (reader, "b"), (reader, "new")):
                await log.cursor(name).save(sequence)
                fill(volume)
        assert [await store.cursor(name).load() for name in ("a", "b", "new")] == [5, 5, 5]
        await store.hold("backup", 10)
        fill(volume)
        await store.hold("backup", 12)
        assert await store.holds() == {"backup": 12}


@pytest.mark.parametrize("size", [40, 5000, 64 * KIB + 1, 200 * KIB])
@pytest.mark.asyncio
async def test_a_torn_tail_of_any_size_on_a_full_disk(volume: Path, size: int) -> None:
    """The store opens, and all that was cut off is kept, whatever its size."""
    path = volume / "store"
    await written(path, 1)
    tail = b"torn" + os.urandom(size - 4)
    with segments_in(path)[0].open("ab") as file:
        file.write(tail + bytes(100))
    fill(volume)
    async with Store.open(path, lock_timeout=0) as store:
        assert (store.recovery.cut_bytes, store.next_sequence) == (len(tail.rstrip(b"\0")), 1)
        kept = store.recovery.cut_kept_in
    (only,) = path.glob("*.cut-*")
    assert (str(only), only.read_bytes()) == (kept, tail.rstrip(b"\0"))


# on a disk that only seems to be full


@pytest.mark.asyncio
async def test_what_retention_lets_go_of_when_the_disk_is_full(tmp_path: Path) -> None:
    """What its rule says and no more: everything from the hold on stays; if that is not enough, the
    commit is refused.
    """
    disk = FailingDisk()
    retention = Retention(max_bytes=9000)
    async with Store.open(
        tmp_path, max_segment_bytes=4096, retention=retention, disk=disk
    ) as store:
        await store.hold("held", 0)
        for _ in range(6):
            await store.append(bytes(5000))
        await store.purge(before=0)  # comes back behind the roll
        await store.hold("held", 4)
        disk.fail("write", ENOSPC, of=".segment", written=10)
        await store.append(b"on")
        assert store.first_sequence == 4
        assert [file.name[:20] for file in segments_in(tmp_path)] == [
            f"{first:020d}" for first in (4, 5, 6)
        ]
        disk.fail("write", ENOSPC, of=".segment", forever=True)
        with pytest.raises(StoreFullError):
            await store.append(b"no")
        assert store.first_sequence == 4
        disk.mend()
        assert (await store.append(b"on")).sequence == 7


@pytest.mark.parametrize("number", [ENOSPC, EDQUOT, EFBIG], ids=["ENOSPC", "EDQUOT", "EFBIG"])
@pytest.mark.asyncio
async def test_health_knows_what_was_refused(tmp_path: Path, number: int) -> None:
    """Until a commit got through, whatever the free space is said to be: a quota and a limit do not
    show there.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        disk.fail("write", number, forever=True)
        with pytest.raises(StoreFullError):
            await store.append(b"x")
        health = store.health(min_free_bytes=0)
        assert health.state == "degraded"
        assert health.reasons == (f"the last commit was refused: {os.strerror(number)}",)
        disk.mend()
        await store.sync()
        assert store.health(min_free_bytes=0) == health
        await store.append(b"x")
        assert store.health(min_free_bytes=0).state == "ok"


@pytest.mark.asyncio
async def test_the_reserve_of_a_manifest(tmp_path: Path) -> None:
    """Without space for a new file the one that was kept becomes the manifest, and another is kept
    when there is space.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, max_segment_bytes=4096, disk=disk) as store:
        await store.append(bytes(5000))
        await store.append(b"x")
        disk.fail("create", ENOSPC, forever=True)
        await store.purge(before=1)
        assert not (tmp_path / Reserve.MANIFEST).exists()
        assert not (tmp_path / (MANIFEST + UNNAMED)).exists()
        assert (tmp_path / MANIFEST).stat().st_size == 52
        disk.mend()
    assert (tmp_path / Reserve.MANIFEST).stat().st_size == 4096
    async with Store.open(tmp_path) as store:
        assert store.first_sequence == 1


@pytest.mark.asyncio
async def test_a_reserve_that_a_power_cut_has_emptied(tmp_path: Path) -> None:
    """Nothing of it was synced: it is made again."""
    await written(tmp_path / "store", 1)
    for reserve in Reserve:
        (tmp_path / "store" / reserve).write_bytes(b"")
    await written(tmp_path / "store", 1)
    assert all(
        (tmp_path / "store" / reserve).stat().st_size == reserve.bytes for reserve in Reserve
    )


@pytest.mark.asyncio
async def test_a_torn_tail_on_a_full_disk(tmp_path: Path) -> None:
    """What was cut off is kept in the space that was reserved for it, and the store opens."""
    path = tmp_path / "store"
    await written(path, 1)
    with segments_in(path)[0].open("ab") as file:
        file.write(b"torn" * 10)
    disk = FailingDisk()
    disk.fail("create", ENOSPC, forever=True)
    async with Store.open(path, disk=disk) as store:
        assert store.recovery.cut_bytes == 40
    (kept,) = path.glob("*.cut-*")
    assert kept.read_bytes() == b"torn" * 10


@pytest.mark.asyncio
async def test_the_reserve_of_a_cursor(tmp_path: Path) -> None:
    """A new cursor takes it, also in another process; the writer makes another when it measures."""
    disk, beside = FailingDisk(), FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"x")
        beside.fail("create", ENOSPC, forever=True)
        async with Reader.open(tmp_path, disk=beside) as reader:
            await reader.cursor("new").save(1)
            assert not (tmp_path / Reserve.CURSOR).exists()
            with pytest.raises(StoreFullError, match="nothing was changed; free some space"):
                await reader.cursor("another").save(1)
            await reader.cursor("new").save(0)
            assert await reader.cursor("new").load() == 0
        assert not [name for name in disk.list(str(tmp_path)) if name.endswith(UNNAMED)]
    assert (tmp_path / Reserve.CURSOR).stat().st_size == 4096


@pytest.mark.asyncio
async def test_a_cursor_of_an_older_version_on_a_full_disk(tmp_path: Path) -> None:
    """It is shorter, so it is replaced and not written over."""
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"x")
        await store.cursor("old").save(1)
        before = (tmp_path / "old.cursor").stat()
        os.truncate(tmp_path / "old.cursor", 44)
        disk.fail("create", ENOSPC, forever=True)
        await store.cursor("old").save(0)
        after = (tmp_path / "old.cursor").stat()
        assert (after.st_size, after.st_ino != before.st_ino) == (52, True)


@pytest.mark.asyncio
async def test_a_crash_while_a_torn_tail_is_moved(tmp_path: Path) -> None:
    """Before each call to the disk: the next opening goes on, and every byte of the tail is kept,
    in one file or in two.
    """
    await written(tmp_path / "before", 1)
    tail = os.urandom(100 * KIB) + b"."
    with segments_in(tmp_path / "before")[0].open("ab") as file:
        file.write(tail)
    crashes = 0
    for nth in count(1):
        path = copy_of(tmp_path / "before", f"{nth}")
        disk, after = FailingDisk(), FailingDisk()
        for full in (disk, after):
            full.fail("write", ENOSPC, of=UNNAMED, forever=True)
        disk.crash(nth)
        try:
            open_log(path, disk)[0].drop()
        except Crash:
            crashes += 1
            disk.end_process()
            open_log(path, after)[0].drop()
        kept = [file.read_bytes() for file in path.glob("*.cut-*")]
        for start in range(0, len(tail), 32 * KIB):
            piece = tail[start : start + 32 * KIB]
            assert any(one[start : start + len(piece)] == piece for one in kept), nth
        if crashes < nth:
            break
    assert crashes > 20


@pytest.mark.asyncio
async def test_each_piece_of_a_torn_tail_is_on_the_disk_before_it_is_cut_off(
    tmp_path: Path,
) -> None:
    """So is the name of the file that keeps it; and each cut, before its space is needed again."""
    await written(tmp_path, 1)
    segment = segments_in(tmp_path)[0]
    offset = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(b"." * (70 * KIB))
    disk = FailingDisk()
    disk.fail("write", ENOSPC, of=UNNAMED)
    open_log(tmp_path, disk)[0].drop()
    kept, torn = f"{segment.stem}.cut-{offset}", segment.name
    steps = disk.steps("write", "sync", "sync_directory", "truncate")
    first = steps.index(("write", kept))
    piece = [("write", kept), ("sync", kept), ("truncate", torn), ("sync", torn)]
    assert steps[first - 1 : first + 12] == [("sync_directory", tmp_path.name), *3 * piece]
