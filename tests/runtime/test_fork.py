"""A child that is forked beside open files takes none of them along, and so no lock and no mark."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.disk import FailingDisk

CHILD = """
import asyncio, os, sys, threading
from aquipu import Always, Store
from aquipu.local.disk.disk import Disk

path, disk = sys.argv[1], Disk()

def child_that_stays():
    here, there = os.pipe(), os.pipe()
    if not os.fork():
        os.close(here[1])
        os.write(there[1], b"!")
        os.read(here[0], 1)  # until the parent ends
        os._exit(0)
    os.read(there[0], 1)
"""


def run(script: str, path: Path) -> None:
    """A process of its own, in which every assertion holds."""
    ended = subprocess.run(
        [sys.executable, "-c", CHILD + script, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def test_the_hold_on_a_directory_ends_with_the_parents_descriptor(tmp_path: Path) -> None:
    """Whoever sets a hold or purges has the directory for itself: a child must not keep it."""
    run(
        """
directory = disk.open(path)
assert disk.try_hold(directory, exclusive=True)
child_that_stays()
disk.close(directory)
again = disk.open(path)
assert disk.try_hold(again, exclusive=True)
""",
        tmp_path,
    )


def test_a_file_that_is_held_only_after_the_fork(tmp_path: Path) -> None:
    """A lock belongs to the open file: one that was open at the fork is not the child's either."""
    run(
        """
directory = disk.open(path)
child_that_stays()
assert disk.try_hold(directory, exclusive=True)
disk.close(directory)
again = disk.open(path)
assert disk.try_hold(again, exclusive=True)
""",
        tmp_path,
    )


def test_a_file_that_is_opened_while_another_thread_forks(tmp_path: Path) -> None:
    """A fork comes before a file is opened, or when it is known to be: never between the two."""
    run(
        """
opened, forked, opens = threading.Event(), threading.Event(), os.open

def slow(*arguments, **named):
    descriptor = opens(*arguments, **named)
    opened.set()
    forked.wait(0.3)  # as long as this a fork would have time
    return descriptor

def lock():
    locked.append(disk.try_lock(f"{path}/lock"))

locked = []
os.register_at_fork(after_in_parent=forked.set)
os.open = slow
thread = threading.Thread(target=lock)
thread.start()
opened.wait()
child_that_stays()
thread.join()
disk.close(locked[0])
assert disk.try_lock(f"{path}/lock") is not None
""",
        tmp_path,
    )


def test_a_scan_that_ends_after_a_fork(tmp_path: Path) -> None:
    """What a scan has read a purge removes, also when a child was forked that still runs."""
    run(
        """
async def main():
    async with Store.open(path, sync_policy=Always(), max_segment_bytes=4096) as store:
        for _ in range(20):
            await store.append(bytes(1000))
        scan = store.scan()
        await anext(scan)
        child_that_stays()
        await scan.aclose()
        first, files = store.first_sequence, len(os.listdir(path))
        purged = await store.purge(before=15)
        assert purged.first_sequence > first
        assert len(os.listdir(path)) < files

asyncio.run(main())
""",
        tmp_path / "store",
    )


def test_the_mark_of_a_shared_page_ends_with_the_parents(tmp_path: Path) -> None:
    """Readers see that a writer has ended, though its child lives on."""
    run(
        """
page = disk.share(f"{path}/page", bytes(4096))
child_that_stays()
disk.close(page)
assert not disk.is_shared(f"{path}/page")
""",
        tmp_path,
    )


def test_what_a_child_does_with_the_parents_descriptors(tmp_path: Path) -> None:
    """They lead nowhere: it reads nothing, writes nothing, and may close each; what it opens itself
    is its own.
    """
    (tmp_path / "file").write_bytes(b"parent")
    run(
        """
descriptor, stream = disk.open(f"{path}/file", writable=True), disk.open_stream(f"{path}/file")
pid = os.fork()
if not pid:
    own = disk.create(f"{path}/own")
    disk.write(own, [b"child"], 0)
    assert disk.read(own, 10, 0) == b"child"
    assert disk.read(descriptor, 10, 0) == stream.read() == b""
    disk.write(descriptor, [b"child!"], 0)
    stream.close()
    for known in (descriptor, own):
        disk.close(known)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert disk.read(descriptor, 10, 0) == stream.read() == b"parent"
""",
        tmp_path,
    )


def test_a_number_that_is_given_again(tmp_path: Path) -> None:
    """A file that was closed is forgotten: what has its number now is the child's as any other."""
    run(
        """
descriptor, stream = disk.create(f"{path}/file"), disk.open_stream(f"{path}/file")
numbers = {descriptor, stream.fileno()}
disk.close(descriptor)
stream.close()
ends = os.pipe()
assert set(ends) == numbers
if not os.fork():
    os.write(ends[1], b"!")
    os._exit(0)
assert os.read(ends[0], 1) == b"!"
""",
        tmp_path,
    )


def test_a_disk_of_a_test_ends_its_process(tmp_path: Path) -> None:
    """The disks of these tests forget what they close behind a store's back, as any other does."""
    disk = FailingDisk()
    descriptor = disk.create(str(tmp_path / "file"))
    disk.end_process()
    from aquipu.local.disk.open_files import open_files

    assert descriptor not in open_files._descriptors
