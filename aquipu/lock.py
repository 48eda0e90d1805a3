"""The lock of a store: one process writes. Blocking, but never waiting: who wants to wait tries again.

The lock is the operating system's (flock), so it ends with the process that holds it, however that ends. While it is
held the file holds the holder's pid, for the message of those who find it taken.
"""

from __future__ import annotations

import weakref
from contextlib import suppress

from aquipu.disk import Disk, at_fork, process_id
from aquipu.layout import LOCK

_PID_BYTES_MAX = 20


class Lock:
    """A lock that is held, until `release`. A forked child drops its copy at once, so the lock ends with the parent."""

    def __init__(self, disk: Disk, descriptor: int, *, names_us: bool) -> None:
        self._disk = disk
        self._names_us = names_us
        self._descriptor: int | None = descriptor
        _held.add(self)

    @classmethod
    def take(cls, disk: Disk, path: str, *, shared: bool = False) -> Lock | None:
        """Lock the store in the directory ``path``; None when someone else holds it."""
        descriptor = disk.try_lock(f"{path}/{LOCK}", shared=shared)
        if descriptor is None:
            return None
        lock = cls(disk, descriptor, names_us=not shared)
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
        """Let go, and name no holder any more. Does nothing the second time."""
        if self._descriptor is not None and self._names_us:
            with suppress(OSError):
                self._disk.truncate(self._descriptor, 0)
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self)
        if descriptor is not None:
            with suppress(OSError):  # the lock is gone with the descriptor, whatever the system says
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
        lock._close()


at_fork(_let_go_in_child)
