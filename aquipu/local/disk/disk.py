"""The files and directories of the operating system, and the one door to them.

Everything blocks, nothing is retried, nothing is decided here. OSError passes through as it is.
Small enough to fake whole: a test hands `Store.open` a `Disk` of its own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EBADF, EIO, EISDIR, ENOLCK
from socket import socket
from typing import BinaryIO

from aquipu.local.disk import system
from aquipu.local.disk.open_files import Stream, open_files
from aquipu.local.disk.os_errors import is_nowhere
from aquipu.local.disk.pins import Pin, Pins
from aquipu.local.disk.rights import Rights
from aquipu.local.disk.sockets import listen

# NFS locks only what may be written
_NO_DIRECTORY_LOCKS = system.NOT_OFFERED | {EBADF, EISDIR, ENOLCK}
_DIRECTORY_MODE = 0o700
_BUFFERS_MAX = 1024  # IOV_MAX on Linux and macOS
_READ_MAX = 1 << 30  # Linux reads and writes at most 2 GiB - 4 KiB in one call


@contextmanager
def opened(disk: Disk, path: str, *, writable: bool = False) -> Iterator[int]:
    """Open an existing file, and close it at the end."""
    descriptor = disk.open(path, writable=True) if writable else disk.open(path)
    try:
        yield descriptor
    finally:
        disk.close(descriptor)


class Disk:
    """Files and directories, as the operating system offers them.

    Remembers only what the system was seen not to offer, and which directories are pinned: see
    `pin`. A program has no need of it. A test derives its own, to make single calls fail or wait,
    and gives it to `Store.open`; later versions may add calls. All may come from any thread.
    """

    def __init__(self) -> None:
        self._writes_synced = hasattr(os, "RWF_DSYNC")
        self._pins = Pins()
        self._rights: Rights | None = None

    # rights

    def permit(self, mode: int, group: str | None) -> None:
        """Set the rights and the group of all files made from now on, whatever the umask.

        LookupError for an unknown group.
        """
        self._rights = Rights.of(mode, group)

    def permit_as(self, path: str) -> None:
        """Set the rights, the group and, as root, the owner of what is made as those of a file."""
        with self._pins.within(path) as (within, name):
            self._rights = Rights.like(os.stat(name, dir_fd=within))

    def entitle(self, path: str) -> None:
        """Give an existing file of this user the rights and the group that `permit` set."""
        if self._rights is not None:
            with opened(self, path) as descriptor:
                self._rights.give(descriptor)

    # directories and names

    def pin(self, path: str) -> Pin:
        """Hold the directory that this path leads to now.

        As long as what is returned is kept, its names are looked up in that very directory,
        wherever the path leads meanwhile. The path must be written in the same way each time.
        """
        return self._pins.hold(path)

    def _directory(self, path: str) -> int:
        """Open a directory."""
        with self._pins.pinned(path) as pinned:
            return open_files.open(
                path if pinned is None else ".", os.O_RDONLY | os.O_DIRECTORY, pinned
            )

    def whereabouts(self, path: str) -> str | None:
        """Return the path that a pinned directory has now.

        None when it was removed, or where the system does not say.
        """
        with self._pins.pinned(path) as pinned, suppress(OSError):
            if pinned is not None and os.fstat(pinned).st_nlink:
                return os.readlink(f"/proc/self/fd/{pinned}")
        return None

    def seen(self, file: str | int) -> tuple[int, int, int, int]:
        """Return what this path leads to now, whatever is pinned, or what a descriptor has open.

        Its identity in two numbers, the time of its last change in nanoseconds, its size in bytes.
        """
        found = os.stat(file)
        return found.st_dev, found.st_ino, found.st_ctime_ns, found.st_size

    def list(self, path: str) -> list[str]:
        """Return the names in a directory, in no order."""
        descriptor = self._directory(path)
        try:
            return os.listdir(descriptor)
        finally:
            open_files.close(descriptor)

    def exists(self, path: str) -> bool:
        """Return whether anything has this name, also a link that leads nowhere.

        OSError when the system does not say.
        """
        try:
            with self._pins.within(path) as (within, name):
                os.stat(name, dir_fd=within, follow_symlinks=False)
        except OSError as error:
            if is_nowhere(error):
                return False
            raise
        except ValueError:  # no name at all
            return False
        return True

    def make_directories(self, path: str) -> None:
        """Create a directory and the missing ones above it, each durable in the one above."""
        path = os.path.abspath(path)
        parent = os.path.dirname(path)
        if os.path.isdir(parent):
            self.sync_name(parent)  # a process may have died between making it and this
        else:
            self.make_directories(parent)
        with suppress(FileExistsError):  # another process is as fast
            os.mkdir(path, _DIRECTORY_MODE)
            if self._rights is not None:
                self._rights.give_directory(path)
        self.sync_directory(parent)

    def sync_name(self, path: str) -> None:
        """Make the name of a directory durable in the one above it.

        Does nothing if that one may not be read: its owner is responsible for it.
        """
        with suppress(PermissionError):
            self.sync_directory(os.path.dirname(path))

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        descriptor = self._directory(path)
        try:
            os.fsync(descriptor)
        finally:
            open_files.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of any file that has it."""
        with self._pins.within(old) as (source, was), self._pins.within(new) as (target, name):
            os.rename(was, name, src_dir_fd=source, dst_dir_fd=target)

    def link(self, old: str, new: str) -> None:
        """Give a file one more name, which nothing has yet, on the same file system."""
        with self._pins.within(old) as (source, was), self._pins.within(new) as (target, name):
            os.link(was, name, src_dir_fd=source, dst_dir_fd=target)

    def remove(self, path: str) -> None:
        """Remove a file's name; its bytes stay for as long as a process has it open."""
        with self._pins.within(path) as (within, name):
            os.unlink(name, dir_fd=within)

    def free(self, path: str) -> int:
        """Return how many bytes the file system of a path has free without special rights."""
        with self._pins.pinned(path) as pinned:
            found = os.statvfs(path if pinned is None else pinned)
        return found.f_bavail * found.f_frsize

    def life(self) -> bytes:
        """Return the `machine_life` of the machine whose memory holds what is not yet synced."""
        return system.machine_life()

    # files

    def create(self, path: str) -> int:
        """Open a new empty file for reading and writing; an existing one is emptied."""
        return self._open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def open(self, path: str, *, writable: bool = False) -> int:
        """Open an existing file."""
        return self._open(path, os.O_RDWR if writable else os.O_RDONLY)

    def open_stream(self, path: str) -> BinaryIO:
        """Open a file as an object for reading in the background."""
        return Stream(self._open(path, os.O_RDONLY), "rb")

    def _open(self, path: str, flags: int) -> int:
        with self._pins.within(path) as (within, name):
            descriptor = open_files.open(name, flags, within)
        if flags & os.O_CREAT and self._rights is not None:
            try:
                self._rights.give(descriptor)
            except BaseException:
                open_files.close(descriptor)
                raise
        return descriptor

    def close(self, descriptor: int) -> None:
        """Close a descriptor and forget it, also when closing it raises."""
        open_files.close(descriptor)

    def size(self, descriptor: int) -> int:
        """Return the size of the file in bytes, those included that were never written."""
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read ``size`` bytes from ``offset``; fewer only where the file ends."""
        piece = os.pread(descriptor, min(size, _READ_MAX), offset)
        if len(piece) in (0, size):
            return piece
        return piece + self.read(descriptor, size - len(piece), offset + len(piece))

    def read_cached(self, descriptor: int, size: int, offset: int) -> bytes | None:
        """Read as many bytes, if the system has all of them in memory, without waiting for a disk.

        None where it has not, where the file ends before, and where the system does not say.
        """
        return system.read_cached(descriptor, size, offset)

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        """Write all of the buffers, one behind another; after an error, some may be written."""
        self._write_all(descriptor, buffers, offset, 0)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        """Write all of the buffers and make these bytes durable in one system call.

        False, and nothing is written, where the system does not offer that. It covers what this
        call writes and nothing that was written before.
        """
        if not self._writes_synced:
            return False
        try:
            self._write_all(descriptor, buffers, offset, os.RWF_DSYNC)
        except OSError as error:
            if error.errno not in system.NOT_OFFERED:
                raise
            self._writes_synced = False
        return self._writes_synced

    def _write_all(
        self, descriptor: int, buffers: Sequence[bytes], offset: int, flags: int
    ) -> None:
        for first in range(0, len(buffers), _BUFFERS_MAX):
            some = buffers[first : first + _BUFFERS_MAX]
            size = sum(map(len, some))
            done = os.pwritev(descriptor, some, offset, flags)
            while done < size:  # a short write: the next one either goes on or says what is wrong
                more = os.pwritev(descriptor, [b"".join(some)[done:]], offset + done, flags)
                if more == 0:
                    raise OSError(EIO, "the system writes nothing and gives no reason")
                done += more
            offset += size

    def clone(self, source: int, descriptor: int) -> bool:
        """Have a file share all blocks of another one; False where that is not offered."""
        return system.clone(source, descriptor)

    def sync(self, descriptor: int) -> None:
        """Make all that was written to the file durable, and the metadata that reading it needs."""
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync leaves the data in the drive's own memory
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file off, or lengthen it with zeros."""
        os.ftruncate(descriptor, size)

    # a page that processes share

    def share(self, path: str, data: bytes) -> int:
        """Open a small file that readers in other processes read, and write ``data`` into it.

        It is made if missing. The bytes are on the disk when this returns, so publishing needs no
        space. An existing file is written over, so its readers go on seeing it. It is marked for as
        long as the descriptor is open: see `is_shared`.
        """
        descriptor = self._open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, data, 0)
            Disk.sync(self, descriptor)
            if os.fstat(descriptor).st_size < len(data):
                raise OSError(EIO, "the system wrote a part and gives no reason", path)
            system.mark(descriptor)
        except BaseException:
            open_files.close(descriptor)
            raise
        return descriptor

    def is_shared(self, path: str) -> bool:
        """Return whether a process has this file open by `share`; that ends with the process.

        Nothing is locked by asking. True where the system cannot say.
        """
        with opened(self, path) as descriptor:
            return system.is_marked(descriptor)

    def publish(self, descriptor: int, data: bytes | bytearray) -> None:
        """Write the first bytes of a shared file, for its readers."""
        os.pwrite(descriptor, data, 0)

    def look_into(self, descriptor: int, size: int) -> bytes:
        """Read the first bytes of a shared file; fewer where it was cut off."""
        return os.pread(descriptor, size, 0)

    def identity(self, file: str | int) -> tuple[int, int]:
        """Return what is different for each file that exists now, of this path or descriptor."""
        if isinstance(file, int):
            found = os.fstat(file)
        else:
            with self._pins.pinned(file) as pinned, self._pins.within(file) as (within, name):
                found = os.stat(name, dir_fd=within) if pinned is None else os.fstat(pinned)
        return found.st_dev, found.st_ino

    # sockets

    def listen(self, path: str, mode: int, group: str | None) -> socket:
        """Open a listening unix socket that has its rights as soon as it has its name.

        A socket at which no process listens is replaced, anything else that has the name is not.
        Raises OSError; LookupError for an unknown group; ValueError for a path that cannot be one
        of a socket.
        """
        return listen(path, mode, group)

    # locks

    def try_lock(self, path: str, *, shared: bool = False) -> int | None:
        """Lock a file, made if missing, without waiting; None when another holder has it.

        The lock lives as long as the descriptor: it ends with the process, however that ends. A
        shared lock needs a file that exists, but no right to write, and excludes only exclusive
        ones. What is locked has this name, also when the file is replaced at this moment.
        """
        access = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
        while True:
            descriptor = self._open(path, access)
            try:
                if not system.try_flock(descriptor, exclusive=not shared):
                    open_files.close(descriptor)
                    return None
                with suppress(FileNotFoundError):
                    if self.identity(path) == self.identity(descriptor):
                        return descriptor
            except BaseException:
                open_files.close(descriptor)
                raise
            open_files.close(descriptor)

    def try_lock_directory(self, path: str, *, shared: bool = False) -> int | None:
        """Lock a directory, as `try_lock`.

        It cannot be replaced unseen, as a file in it can. Where the file system does not lock
        directories, it is only opened.
        """
        descriptor = self._directory(path)
        try:
            if system.try_flock(descriptor, exclusive=not shared):
                return descriptor
        except OSError as error:
            if error.errno in _NO_DIRECTORY_LOCKS:
                return descriptor
            open_files.close(descriptor)
            raise
        open_files.close(descriptor)
        return None

    def try_hold(self, descriptor: int, *, exclusive: bool = False) -> bool:
        """Hold an open file, without waiting, while the descriptor is open; False if impossible.

        Several may hold it, or one ``exclusive``. `try_remove` leaves a file that is held.
        """
        return system.try_flock(descriptor, exclusive=exclusive)

    def try_remove(self, path: str) -> bool:
        """Remove a file unless it is held; False then."""
        descriptor = self.open(path)
        try:
            if not self.try_hold(descriptor, exclusive=True):
                return False
            self.remove(path)
            return True
        finally:
            self.close(descriptor)
