"""The room `opening`: waiting for the lock, and leaving nothing behind when it does not come to an
opening.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aquipu import (
    Always,
    CorruptionError,
    NotAStoreError,
    Store,
    StoreAlreadyOpenError,
    StoreLockedError,
    StoreUnavailableError,
)
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock
from aquipu.local.format.names import LOCK, MANIFEST
from aquipu.local.opening import Opened, open_files, take_lock
from aquipu.options import MIB, Options
from aquipu.runtime.handoff import Handoff
from tests.callers import open_descriptors
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio

PATIENCE = 60.0
"""Seconds that a waiting opener is given.

Nothing is measured with it: it waits for an event, not for its end.
"""

HOLDER = """
import asyncio, sys
from aquipu import Store

async def hold(path):
    async with Store.open(path) as store:
        await store.append(b"from the holder")
        await asyncio.sleep(0)  # readers in other processes have been told, too
        print("held", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

asyncio.run(hold(sys.argv[1]))
"""


class WatchedDisk(FailingDisk):
    """Tells when the lock was found taken."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def try_lock_directory(self, path: str, *, shared: bool = False) -> int | None:
        descriptor = super().try_lock_directory(path, shared=shared)
        if descriptor is None:
            self._loop.call_soon_threadsafe(self.refused.set)
        return descriptor


def options(lock_timeout: float = 0.0) -> Options:
    return Options(Always(), 64 * MIB, 16 * MIB, 65_536, 64 * MIB, lock_timeout)


def handoff() -> Handoff:
    return Handoff(asyncio.get_running_loop())


def is_unlocked(path: Path) -> bool:
    lock = Lock.take(Disk(), str(path))
    if lock is not None:
        lock.release()
    return lock is not None


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


@contextmanager
def _holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open, until it is given a line or killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes the store at ``tmp_path / "store"``."""
    with _holding(tmp_path / "store") as process:
        yield process


def _release(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


# waiting for the lock


async def test_holder_in_this_process_lets_go(tmp_path: Path) -> None:
    """A second Store waits while the first one is open, and is opened as soon as it is closed."""
    first = await Store.open(tmp_path)
    await first.append(b"one")
    disk = WatchedDisk()
    opening = asyncio.create_task(_open(tmp_path, disk, PATIENCE))
    await disk.refused.wait()
    assert not opening.done()
    await first.aclose()
    second = await opening
    assert (await second.get(0)).data == b"one"
    await second.aclose()


async def test_holder_in_another_process_lets_go(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    """A second process waits while the first one writes, and finds all that it has written."""
    disk = WatchedDisk()
    opening = asyncio.create_task(_open(tmp_path / "store", disk, PATIENCE))
    await disk.refused.wait()
    assert not opening.done()
    _release(holder)
    async with await opening as store:
        assert store.recovery.clean
        assert (await store.get(0)).data == b"from the holder"


async def test_holder_in_another_process_is_killed(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    """The lock ends with its holder, however that ends."""
    disk = WatchedDisk()
    opening = asyncio.create_task(_open(tmp_path / "store", disk, PATIENCE))
    await disk.refused.wait()
    holder.send_signal(signal.SIGKILL)
    async with await opening as store:
        assert (await store.get(0)).data == b"from the holder"


async def test_many_wait_for_one_lock(tmp_path: Path) -> None:
    """Of those who open at once each gets the lock, one after another and alone.

    Who comes while another has the store open in this process hears that, and comes again.
    """
    inside, free = 0, asyncio.Event()

    async def use() -> None:
        nonlocal inside
        while True:
            try:
                async with Store.open(tmp_path, lock_timeout=PATIENCE) as store:
                    free.clear()
                    inside += 1
                    assert inside == 1
                    await store.append(b"mine")
                    inside -= 1
                free.set()
                return
            except StoreAlreadyOpenError:
                await free.wait()

    await asyncio.gather(*(use() for _ in range(5)))
    async with Store.open(tmp_path) as store:
        assert store.next_sequence == 5


@pytest.mark.parametrize("seconds", [0, 0.0, 1e-9, 0.001, 0.05])
async def test_holder_does_not_let_go(
    tmp_path: Path, holder: subprocess.Popen[str], seconds: float
) -> None:
    """When the time is over, StoreLockedError names the holder's pid and the store."""
    with pytest.raises(StoreLockedError) as caught:
        await Store.open(tmp_path / "store", lock_timeout=seconds)
    assert caught.value.pid == holder.pid
    assert caught.value.path == str(tmp_path / "store")
    assert str(holder.pid) in str(caught.value)
    assert str(tmp_path / "store") in str(caught.value)


async def test_no_time_to_wait(tmp_path: Path) -> None:
    """With a lock_timeout of 0 there is exactly one attempt."""
    async with Store.open(tmp_path):
        disk = FailingDisk()
        with pytest.raises(StoreLockedError) as caught:
            await Store.open(tmp_path, lock_timeout=0, disk=disk)
        assert disk.count("try_lock_directory") == 1
        assert caught.value.pid == os.getpid()


async def test_free_lock_is_taken_at_once(tmp_path: Path) -> None:
    """A store that nobody holds is opened with the first attempt, also without any time to wait."""
    disk = FailingDisk()
    async with Store.open(tmp_path, lock_timeout=0, disk=disk):
        assert disk.count("try_lock_directory") == 1


async def test_pid_that_cannot_be_told(tmp_path: Path) -> None:
    """When the lock file names nobody, the error says so instead of guessing."""
    lock = Lock.take(Disk(), str(tmp_path))
    assert lock is not None
    (tmp_path / LOCK).write_text("?")
    with pytest.raises(StoreLockedError, match="another process") as caught:
        await Store.open(tmp_path, lock_timeout=0)
    assert caught.value.pid is None
    lock.release()


async def test_refused_opening_changes_nothing(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    """An opener that does not get the lock has not touched a file, and keeps none open."""
    before = contents(tmp_path / "store")
    with pytest.raises(StoreLockedError):
        await Store.open(tmp_path / "store", lock_timeout=0.001)
    assert contents(tmp_path / "store") == before
    assert open_descriptors(tmp_path) == []
    assert holder.poll() is None


async def test_lock_that_cannot_be_made(tmp_path: Path) -> None:
    """A system that refuses the lock file is one clear error, without waiting for it."""
    (tmp_path / LOCK).mkdir()
    with pytest.raises(StoreUnavailableError) as caught:
        await Store.open(tmp_path, lock_timeout=PATIENCE)
    assert caught.value.action == "lock"
    assert caught.value.path == str(tmp_path / LOCK)


# making the place


async def test_missing_parents_are_created(tmp_path: Path) -> None:
    """A directory whose parents are missing is made with all of them, for the user alone, each one
    durably.
    """
    disk = FailingDisk()
    path = tmp_path / "a" / "b" / "store"
    async with Store.open(path, disk=disk) as store:
        assert store.recovery.created
    synced = [call.path for call in disk.calls if call.method == "sync_directory"]
    for directory in (tmp_path / "a", tmp_path / "a" / "b", path):
        assert mode_of(directory) == 0o700
        assert str(directory.parent) in synced


async def test_directory_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """An existing directory keeps its own mode."""
    os.chmod(tmp_path, 0o755)
    async with Store.open(tmp_path):
        pass
    assert mode_of(tmp_path) == 0o755


async def test_place_is_checked_before_the_lock_is_made(tmp_path: Path) -> None:
    """In a directory that holds other things not even a lock file is left."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(NotAStoreError):
        await Store.open(tmp_path)
    assert list(contents(tmp_path)) == ["notes.txt"]


# openings that come to nothing


async def test_dropped_opening(tmp_path: Path) -> None:
    """`drop` closes the files and frees the lock, and writes nothing of the log."""
    opened = await open_files(str(tmp_path), options(), Disk(), handoff())
    before = contents(tmp_path)
    assert open_descriptors(tmp_path)
    opened.drop()
    assert open_descriptors(tmp_path) == []
    assert contents(tmp_path) | {LOCK: b""} == before | {
        LOCK: b""
    }  # the lock file may tell that nobody holds it
    async with Store.open(tmp_path, lock_timeout=0):
        pass


async def test_opening_that_finds_damage(tmp_path: Path) -> None:
    """An opening that raises has freed the lock and closed every file."""
    async with Store.open(tmp_path):
        pass
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(CorruptionError):
        await Store.open(tmp_path)
    assert open_descriptors(tmp_path) == []
    assert is_unlocked(tmp_path)


async def test_opening_cancelled_while_it_waits_for_the_lock(tmp_path: Path) -> None:
    """Cancelled between two attempts: the holder goes on, and the lock is free when it lets go."""
    async with Store.open(tmp_path) as store:
        disk = WatchedDisk()
        opening = asyncio.create_task(_open(tmp_path, disk, PATIENCE))
        await disk.refused.wait()
        await _cancel(opening)
        await store.append(b"one")
    assert open_descriptors(tmp_path) == []
    assert is_unlocked(tmp_path)


@pytest.mark.parametrize(("call", "nth"), [("try_lock", 1), ("list", 2)])
@pytest.mark.parametrize("times", [1, 2])
async def test_opening_cancelled_during_a_call(
    tmp_path: Path, call: str, nth: int, times: int
) -> None:
    """Cancelled in the middle of a call: the caller leaves at once; when the call has ended, what
    it got is let go. The directory is listed a second time when it is examined, under the lock.
    """
    disk = FailingDisk()
    hold = disk.hold(call, nth=nth)
    opening = asyncio.create_task(_open(tmp_path, disk, 0.0))
    await asyncio.to_thread(hold.reached.wait, PATIENCE)
    for _ in range(times):
        opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert not is_unlocked(tmp_path)
    hold.released.set()
    async with Store.open(tmp_path, lock_timeout=PATIENCE):
        pass
    assert open_descriptors(tmp_path) == []


async def test_thread_that_cannot_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the system has no thread for the worker, the opening raises and releases what it had."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "aquipu":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="thread"):
        await Store.open(tmp_path)
    assert open_descriptors(tmp_path) == []
    assert is_unlocked(tmp_path)


async def test_waiting_for_the_lock_alone(tmp_path: Path) -> None:
    """`take_lock` gives the lock itself, held until it is released."""
    lock = await take_lock(str(tmp_path), 0.0, Disk(), handoff())
    assert not is_unlocked(tmp_path)
    lock.release()
    assert is_unlocked(tmp_path)


async def test_files_of_an_opening(tmp_path: Path) -> None:
    """What comes of an opening: the journal at the place where it goes on, the report, and the
    lock, held.
    """
    opened = await open_files(str(tmp_path / "store"), options(), Disk(), handoff())
    assert isinstance(opened, Opened)
    assert opened.report.created
    assert opened.journal.next_sequence == 0
    assert not is_unlocked(tmp_path / "store")
    opened.drop()


async def _open(path: Path, disk: Disk, lock_timeout: float) -> Store:
    return await Store.open(path, disk=disk, lock_timeout=lock_timeout)


async def _cancel(task: asyncio.Task[Store]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
