"""The lock of a store: one process writes. Blocking, but never waiting.

To wait for the lock, the caller tries again. The lock is the operating system's (flock), so it ends
with the process that holds it, however that ends. Locked is the directory itself, which cannot be
replaced unseen, and the file `lock` in it, the only thing that earlier versions of this package
lock. Removing that file does not unlock the store. While it is locked the file has the holder's
pid, for the message of a process that finds it taken; where the pid cannot be written, on a full
disk for example, the message names no holder. On a file system that does not lock directories the
file is all there is, so a writer checks before it acknowledges anything whether the file is still
its own (`Lock.keep`).
"""

from __future__ import annotations

import weakref
from contextlib import suppress

from aquipu.local.disk.directory import Directory
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.system import at_fork, process_id
from aquipu.local.format.names import LOCK

_PID_BYTES_MAX = 20


class Lock:
    """A lock that is held, until `release`.

    A forked child drops its copy at once, so the lock ends with the parent.
    """

    def __init__(self, disk: Disk, directory: Directory, locked: int) -> None:
        self.directory = directory
        """Directory of the store, held for as long as the lock is."""
        self._disk = disk
        self._locked: int | None = locked  # a descriptor of the directory
        self._file: int | None = None
        self._names_us = False
        self.is_in_use = False
        """Whether it belongs to a store that is open and not about to be closed."""
        _held.add(self)

    @classmethod
    def take(cls, disk: Disk, path: str, *, shared: bool = False) -> Lock | None:
        """Lock the store in the directory ``path``; None when another holder has the lock."""
        directory = Directory(disk, path)
        try:
            locked = disk.try_lock_directory(path, shared=shared)
        except BaseException:
            directory.close()
            raise
        if locked is None:
            directory.close()
            return None
        lock = cls(disk, directory, locked)
        try:
            if lock._take_file(shared=shared):
                return lock
        except BaseException:
            lock.release()
            raise
        lock.release()
        return None

    def keep(self) -> bool:
        """Return whether no other holder has the file of the lock.

        One that was removed or replaced is made and locked again.
        """
        name, file = f"{self.directory.path}/{LOCK}", self._file
        try:
            if file is not None and self._disk.identity(name) == self._disk.identity(file):
                return True
        except FileNotFoundError:
            pass
        if not self._take_file(shared=False):
            return False
        if file is not None:
            self._let_go(file)
        return True

    def _take_file(self, *, shared: bool) -> bool:
        """Lock the file as well; False when another holder has it."""
        try:
            descriptor = self._disk.try_lock(f"{self.directory.path}/{LOCK}", shared=shared)
        except FileNotFoundError:
            if not shared:
                raise
            return True  # a copy, without the file that a writer would have made
        if descriptor is None:
            return False
        self._file = descriptor
        if not shared:
            self._names_us = True
            self._name_us(descriptor)
        return True

    def _name_us(self, descriptor: int) -> None:
        pid = b"%d\n" % process_id()
        with suppress(OSError):
            try:
                self._disk.write(descriptor, [pid], 0)
                self._disk.truncate(descriptor, len(pid))
            except OSError:  # rather no pid than the one of the holder before
                self._disk.truncate(descriptor, 0)

    def is_at(self, place: tuple[int, int]) -> bool:
        """Return whether what is locked is this directory: see `Disk.identity`."""
        return self._locked is not None and self._disk.identity(self._locked) == place

    def release(self) -> None:
        """Release the lock and remove the pid. Does nothing the second time."""
        if self._file is not None and self._names_us:
            with suppress(OSError):
                self._disk.truncate(self._file, 0)
        self._close()

    def _close(self) -> None:
        descriptors = self._file, self._locked
        self._file = self._locked = None
        _held.discard(self)
        for descriptor in descriptors:
            if descriptor is not None:
                self._let_go(descriptor)
        self.directory.close()

    def _let_go(self, descriptor: int) -> None:
        with suppress(OSError):  # the lock is gone with the descriptor, whatever the system says
            self._disk.close(descriptor)


def holder_of(disk: Disk, path: str) -> int | None:
    """Return the pid in the lock file, if it can be read."""
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


def is_in_use_here(disk: Disk, path: str) -> bool:
    """Return whether a store of this process is open there, whatever the spelling of the path."""
    try:
        place = disk.identity(path)
        return any(lock.is_at(place) for lock in list(_held) if lock.is_in_use)
    except OSError:
        return False


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for lock in list(_held):
        lock._close()


at_fork(_let_go_in_child)
