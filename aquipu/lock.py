"""The lock of a store: one process writes. Blocking, but never waiting: who wants to wait tries again.

The lock is the operating system's (flock), so it ends with the process that holds it, however that ends. The file holds the
pid of the last holder, for the message of those who find it taken.
"""

from __future__ import annotations

import weakref

from aquipu.disk import Disk, at_fork, process_id
from aquipu.layout import LOCK

_PID_BYTES_MAX = 20


class Lock:
    """A lock that is held, until `release`. A forked child drops its copy at once, so the lock ends with the parent."""

    def __init__(self, disk: Disk, descriptor: int) -> None:
        self._disk = disk
        self._descriptor: int | None = descriptor
        _held.add(self)

    @classmethod
    def take(cls, disk: Disk, path: str, *, shared: bool = False) -> Lock | None:
        """Lock the store in the directory ``path``; None when someone else holds it."""
        descriptor = disk.try_lock(f"{path}/{LOCK}", shared=shared)
        if descriptor is None:
            return None
        lock = cls(disk, descriptor)
        if not shared:
            try:
                pid = b"%d\n" % process_id()
                disk.write(descriptor, [pid], 0)
                disk.truncate(descriptor, len(pid))
            except BaseException:
                lock.release()
                raise
        return lock

    def release(self) -> None:
        """Let go. Does nothing the second time."""
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        if descriptor is not None:
            self._disk.close(descriptor)


def holder_of(disk: Disk, path: str) -> int | None:
    """The pid that the lock file names, if it can be read."""
    try:
        descriptor = disk.open(f"{path}/{LOCK}")
    except OSError:
        return None
    try:
        text = disk.read(descriptor, _PID_BYTES_MAX, 0)
    except OSError:
        return None
    finally:
        disk.close(descriptor)
    return int(text) if text.strip().isdigit() else None


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_held):
        lock.release()


at_fork(_let_go_in_child)
