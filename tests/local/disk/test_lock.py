"""lock: one process writes a store; the operating system's lock, and the pid beside it for the
message.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock, holder_of
from aquipu.local.format.names import LOCK
from tests.disk import FailingDisk

HOLDER = """
import os, sys
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock
lock = Lock.take(Disk(), sys.argv[1])
"""
ONE_PROCESS = HOLDER + "print(os.getpid(), flush=True); sys.stdin.read()"
PARENT_DIES = (
    HOLDER
    + """
pid = os.fork()
if pid:
    os._exit(0)  # as a kill would end it: no cleaning up
print(os.getpid(), flush=True)
sys.stdin.read()
"""
)
CHILD_DIES = (
    HOLDER
    + """
if os.fork() == 0:
    lock.release()
    os._exit(0)
os.wait()
print(os.getpid(), flush=True)
sys.stdin.read()
"""
)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path)


@contextmanager
def running(script: str, store: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A script that has printed the pid of the process that goes on, until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, store],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())


def take(store: str, *, shared: bool = False) -> Lock | None:
    return Lock.take(Disk(), store, shared=shared)


def take_and_release(store: str) -> bool:
    """Whether the lock could be had."""
    lock = take(store)
    if lock is not None:
        lock.release()
    return lock is not None


def test_a_lock_that_is_held_is_not_given_again(store: str) -> None:
    """One holder at a time, also within one process."""
    first = take(store)
    assert first is not None
    assert not take_and_release(store)
    first.release()
    assert take_and_release(store)


def test_two_stores_have_two_locks(tmp_path: Path) -> None:
    """The lock of one directory says nothing of another."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = take(str(tmp_path / "a"))
    assert first is not None
    assert take_and_release(str(tmp_path / "b"))
    first.release()


def test_releasing_twice(store: str) -> None:
    """The second release does nothing: above all it does not close a descriptor that is someone
    else's by now.
    """
    first = take(store)
    assert first is not None
    first.release()
    second = take(store)  # most likely the same number of a descriptor
    assert second is not None
    first.release()
    assert not take_and_release(store)
    second.release()


def test_the_holder_is_named(store: str) -> None:
    """The lock file holds the pid of the process that holds the lock, and a line end."""
    lock = take(store)
    assert lock is not None
    assert (Path(store) / LOCK).read_bytes() == b"%d\n" % os.getpid()
    assert holder_of(Disk(), store) == os.getpid()
    lock.release()


def test_another_process_is_named(store: str) -> None:
    """Who finds the lock taken can tell by which process."""
    with running(ONE_PROCESS, store) as (_, pid):
        assert not take_and_release(store)
        assert holder_of(Disk(), store) == pid != os.getpid()


def test_a_stale_pid_locks_nothing(store: str) -> None:
    """A lock file that a dead process has left is taken over, and all of the old pid is gone."""
    (Path(store) / LOCK).write_bytes(b"99999999999999999999\n")
    lock = take(store)
    assert lock is not None
    assert holder_of(Disk(), store) == os.getpid()
    lock.release()


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"not a pid", b"-1\n", b"12 13\n", b"\xff\xfe", b"\0" * 30]
)
def test_a_lock_file_that_names_nobody(store: str, text: bytes) -> None:
    """The holder is unknown when the file does not hold a number; that is no error."""
    (Path(store) / LOCK).write_bytes(text)
    assert holder_of(Disk(), store) is None


def test_no_lock_file_names_nobody(store: str) -> None:
    """Without a lock file the holder is unknown."""
    assert holder_of(Disk(), store) is None


@pytest.mark.parametrize("method", ["open", "read"])
def test_a_lock_file_that_cannot_be_read(store: str, method: str) -> None:
    """The pid is a courtesy: failing to read it is no error, and leaves nothing open."""
    (Path(store) / LOCK).write_bytes(b"12\n")
    disk = FailingDisk()
    disk.fail(method, errno.EIO)
    assert holder_of(disk, store) is None
    assert disk.open_files == {}


@pytest.mark.parametrize("method", ["write", "truncate"])
def test_a_pid_that_cannot_be_written(store: str, method: str) -> None:
    """The pid is a courtesy: the lock is held without it, and names nobody rather than somebody
    else.
    """
    (Path(store) / LOCK).write_bytes(b"99999\n")
    disk = FailingDisk()
    disk.fail(method, errno.ENOSPC)
    lock = Lock.take(disk, store)
    assert lock is not None
    assert not take_and_release(store)
    assert holder_of(Disk(), store) is None
    lock.release()
    assert disk.open_files == {}
    assert take_and_release(store)


def test_a_shared_lock_changes_nothing(store: str) -> None:
    """Readers share the lock and leave the file as it is."""
    (Path(store) / LOCK).write_bytes(b"7\n")
    first, second = take(store, shared=True), take(store, shared=True)
    assert first is not None
    assert second is not None
    assert (Path(store) / LOCK).read_bytes() == b"7\n"
    first.release()
    second.release()


def test_a_shared_lock_keeps_a_writer_out(store: str) -> None:
    """A writer gets the lock when the last reader has let go."""
    assert take_and_release(store)
    first, second = take(store, shared=True), take(store, shared=True)
    assert first is not None
    assert second is not None
    first.release()
    assert not take_and_release(store)
    second.release()
    assert take_and_release(store)


def test_a_writer_keeps_shared_locks_out(store: str) -> None:
    """A reader that wants to be sure of no writer gets no lock while there is one."""
    writer = take(store)
    assert writer is not None
    assert take(store, shared=True) is None
    writer.release()


def test_the_lock_ends_when_its_process_is_killed(store: str) -> None:
    """A killed process leaves the file, and no lock."""
    with running(ONE_PROCESS, store) as (process, _):
        assert not take_and_release(store)
        process.kill()
        process.wait()
        assert take_and_release(store)


def test_a_forked_child_does_not_keep_the_lock(store: str) -> None:
    """When the parent dies, its child lives on and the lock does not."""
    with running(PARENT_DIES, store) as (process, child):
        assert process.wait() == 0
        os.kill(child, 0)  # it lives
        assert take_and_release(store)


def test_a_forked_child_does_not_take_the_lock_along(store: str) -> None:
    """When a child dies, or releases what it inherited, the parent still holds the lock."""
    with running(CHILD_DIES, store) as (_, parent):
        assert not take_and_release(store)
        assert holder_of(Disk(), store) == parent
