"""The one door to the operating system: the only room that imports os, fcntl and mmap.

Everything blocks, nothing is retried, nothing is decided here. OSError passes through as it is. Small enough to fake whole:
a test hands `Store.open` a `Disk` of its own.
"""

from __future__ import annotations

import fcntl
import io
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EADDRINUSE, EDQUOT, EEXIST, EFBIG, EINVAL, EIO, ENOSPC, ENOSYS, EOPNOTSUPP
from grp import getgrnam
from socket import AF_UNIX, SOCK_STREAM, socket
from stat import S_ISSOCK
from struct import Struct
from typing import BinaryIO

from aquipu.errors import StoreUnavailableError

StrPath = str | os.PathLike[str]
Shared = mmap.mmap
"""Memory that several processes see."""

_NO_SPACE = frozenset({ENOSPC, EDQUOT, EFBIG})
_NOT_OFFERED = frozenset({EINVAL, ENOSYS, EOPNOTSUPP})
_FILE_MODE = 0o600
_DIRECTORY_MODE = 0o700
_BUFFERS_MAX = 1024  # IOV_MAX on Linux and macOS
_BACKLOG = 128  # connections that nobody has accepted yet
_READ_MAX = 1 << 30  # Linux reads and writes at most 2 GiB - 4 KiB in one call
_FLOCK = Struct("@hhqqi0q")  # fcntl_locking(2): type, whence, start, length (0: to the end), pid
_MARK = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_MARKS = sys.platform == "linux" and sys.maxsize > 1 << 32
"""Whether a file can be marked by one process and others can ask for the mark without setting one."""


def is_no_space(error: OSError) -> bool:
    """Whether the error says that there was no room: disk full, quota, or the limit of a file's size."""
    return error.errno in _NO_SPACE


@contextmanager
def explained(path: str, action: str) -> Iterator[None]:
    """Turn what the operating system refuses into an error of the tree."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailableError(str(error.filename or path), action, error.strerror or str(error)) from error


@contextmanager
def opened(disk: Disk, path: str) -> Iterator[int]:
    """A descriptor for reading, closed at the end."""
    descriptor = disk.open(path)
    try:
        yield descriptor
    finally:
        disk.close(descriptor)


def at_fork(in_child: Callable[[], None]) -> None:
    """Run ``in_child`` in every child process made by a fork from now on."""
    os.register_at_fork(after_in_child=in_child)


def process_id() -> int:
    return os.getpid()


def machine_life() -> bytes:
    """16 bytes that change when the machine starts anew; zeros where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return bytes.fromhex(file.read().strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)


def random_bytes(size: int) -> bytes:
    return os.urandom(size)


def absolute(path: StrPath) -> str:
    """The path from the root. ``..`` stays: what it means, only the system can tell. TypeError for what is no text."""
    path = os.fspath(path)
    if not isinstance(path, str):
        raise TypeError(f"a path is a str or an os.PathLike of str, not {type(path).__name__}")
    parts = os.path.join(os.getcwd(), path).split("/")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


class Disk:
    """Files and directories, as the operating system offers them. Remembers only what the system was seen not to offer.

    A program has no need of it. A test derives its own, to make single calls fail or wait, and gives it to `Store.open`;
    later versions may add calls. All may come from any thread.
    """

    def __init__(self) -> None:
        self._writes_synced = hasattr(os, "RWF_DSYNC")

    # directories and names

    def list(self, path: str) -> list[str]:
        """The names in a directory, in no order."""
        return os.listdir(path)

    def exists(self, path: str) -> bool:
        """Whether anything has this name, also a link that leads nowhere."""
        return os.path.lexists(path)

    def make_directories(self, path: str) -> None:
        """Create the directory and those above it that are missing, each made durable in the one above."""
        path = os.path.abspath(path)
        parent = os.path.dirname(path)
        if os.path.isdir(parent):
            self.sync_name(parent)  # somebody may have died between making it and this
        else:
            self.make_directories(parent)
        with suppress(FileExistsError):  # another process is as fast
            os.mkdir(path, _DIRECTORY_MODE)
        self.sync_directory(parent)

    def sync_name(self, path: str) -> None:
        """Make the name of a directory durable in the one above it; if that may not be read, others answer for it."""
        with suppress(PermissionError):
            self.sync_directory(os.path.dirname(path))

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name; what had that name is replaced."""
        os.rename(old, new)

    def remove(self, path: str) -> None:
        """Take a file's name away; its bytes stay for as long as somebody has it open."""
        os.unlink(path)

    def free(self, path: str) -> int:
        """Bytes that may still be written to the file system of a file or directory, without special rights."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    # files

    def create(self, path: str) -> int:
        """A new empty file, open for reading and writing; one that is there already is emptied."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _FILE_MODE)

    def open(self, path: str, *, writable: bool = False) -> int:
        """A descriptor of a file that is there."""
        return os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)

    def open_stream(self, path: str) -> BinaryIO:
        """The file as an object for reading in the background."""
        return io.FileIO(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb")

    def close(self, descriptor: int) -> None:
        """Let go of a descriptor, also when that is an error."""
        os.close(descriptor)

    def size(self, descriptor: int) -> int:
        """Bytes of the file, those included that were never written."""
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only where the file ends."""
        piece = os.pread(descriptor, min(size, _READ_MAX), offset)
        if len(piece) in (0, size):
            return piece
        return piece + self.read(descriptor, size - len(piece), offset + len(piece))

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        """Write all of the buffers, one behind another; when an error stops it, some bytes may have been written."""
        self._write_all(descriptor, buffers, offset, 0)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        """Write all of the buffers and make these bytes durable in one system call; False, and nothing is written, where
        the system does not offer that.

        It covers what this call writes and nothing that was written before.
        """
        if not self._writes_synced:
            return False
        try:
            self._write_all(descriptor, buffers, offset, os.RWF_DSYNC)
        except OSError as error:
            if error.errno not in _NOT_OFFERED:
                raise
            self._writes_synced = False
        return self._writes_synced

    def _write_all(self, descriptor: int, buffers: Sequence[bytes], offset: int, flags: int) -> None:
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

    def sync(self, descriptor: int) -> None:
        """Make everything written to the file durable, with as much of its metadata as reading it needs."""
        _sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file off, or lengthen it with zeros."""
        os.ftruncate(descriptor, size)

    # memory that processes share

    def share(self, path: str, data: bytes) -> Shared:
        """Memory that other processes can look into: the file, made if missing, from now on with ``data`` in it.

        The bytes are on the disk before they become memory. To write into a page that has no place there would end the
        process (SIGBUS) when the disk is full. A file that is there is written over, so those who look go on seeing it.
        The file is marked for as long as the memory is there: see `is_shared`.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
        try:
            os.pwrite(descriptor, data, 0)
            _sync(descriptor)
            if os.fstat(descriptor).st_size < len(data):
                raise OSError(EIO, "the system wrote a part and gives no reason", path)
            if _MARKS:  # the lock belongs to what was opened, which the memory keeps open
                with suppress(OSError):  # a file system without such locks
                    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _MARK)
            return mmap.mmap(descriptor, len(data))
        finally:
            os.close(descriptor)

    def is_shared(self, path: str) -> bool:
        """Whether the memory that a process has made of this file by `share` is still there; it ends with the process.

        True where the system cannot tell. Nothing is locked by asking.
        """
        if not _MARKS:
            return True
        with opened(self, path) as descriptor:
            try:
                found, *_ = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _MARK))
            except OSError:
                return True
        return bool(found != fcntl.F_UNLCK)

    def look_into(self, descriptor: int, size: int) -> Shared:
        """The first bytes of a file, which must be there, as memory that another process writes."""
        return mmap.mmap(descriptor, size, prot=mmap.PROT_READ)

    def identity(self, file: str | int) -> tuple[int, int]:
        """Tells the file of this path or descriptor from any other of this time."""
        found = os.stat(file)
        return found.st_dev, found.st_ino

    # sockets

    def listen(self, path: str, mode: int, group: str | None) -> socket:
        """A listening unix socket that is there under its name with the rights that it is to have, and never with others.

        The socket of somebody who is dead is replaced, anything else that has the name is not. Raises OSError; LookupError
        for an unknown group.
        """
        made = f"{path}.{process_id()}"
        listening = socket(AF_UNIX, SOCK_STREAM)
        try:
            _check_unused(path)
            with suppress(FileNotFoundError):  # of a process that had this number and died here
                os.unlink(made)
            listening.bind(made)
            try:
                if group is not None:
                    os.chown(made, -1, getgrnam(group).gr_gid)
                os.chmod(made, mode)
                listening.listen(_BACKLOG)
                os.rename(made, path)
            except BaseException:
                os.unlink(made)
                raise
        except BaseException:
            listening.close()
            raise
        return listening

    # locks

    def try_lock(self, path: str, *, shared: bool = False) -> int | None:
        """Lock a file, made if missing, without waiting; None when someone else holds it.

        The lock lives as long as the descriptor: it ends with the process, however that ends. A shared lock needs no
        right to write and excludes only those who want it whole.
        """
        access = os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT
        descriptor = os.open(path, access | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def try_hold(self, descriptor: int, *, alone: bool = False) -> bool:
        """Hold an open file or directory, without waiting, for as long as the descriptor lives; False when that cannot be.

        Several may hold it, or one ``alone``. What somebody holds, `try_remove` leaves.
        """
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def try_remove(self, path: str) -> bool:
        """Remove a file unless somebody holds it; False then."""
        descriptor = self.open(path)
        try:
            if not self.try_hold(descriptor, alone=True):
                return False
            self.remove(path)
            return True
        finally:
            self.close(descriptor)


def _check_unused(path: str) -> None:
    """Raise OSError unless a socket can be had there: nobody listens, and it is no file of another kind."""
    with socket(AF_UNIX, SOCK_STREAM) as probe, suppress(FileNotFoundError):
        if not S_ISSOCK(os.stat(path).st_mode):
            raise OSError(EEXIST, "it is there, and no socket", path)
        probe.setblocking(False)
        with suppress(ConnectionRefusedError):
            with suppress(BlockingIOError):  # so many want to be heard that one more would have to wait
                probe.connect(path)
            raise OSError(EADDRINUSE, "somebody listens there", path)


def _sync(descriptor: int) -> None:
    if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone leaves the data in the drive's own memory
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)
