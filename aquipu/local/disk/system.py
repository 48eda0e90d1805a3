"""The process, others, their marks and locks on files, what files hold, the machine, and chance.

A mark is seen by other processes without setting one. It is a lock of the open file (OFD), so it
ends with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from errno import EINVAL, EISDIR, ENOSYS, ENOTTY, EOPNOTSUPP, EXDEV
from struct import Struct

_FLOCK = Struct("@hhqqi0q")  # fcntl_locking(2): type, whence, start, length (0: to the end), pid
_MARK = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_MARKS = sys.platform == "linux" and sys.maxsize > 1 << 32
_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
_FICLONE = 0x40049409  # ioctl_ficlonerange(2), as most machines number it
NOT_OFFERED = frozenset({EINVAL, ENOSYS, EOPNOTSUPP})
"""Errors that say that the system does not have a call."""
_NO_CLONES = NOT_OFFERED | {EXDEV, ENOTTY, EISDIR}


def at_fork(in_child: Callable[[], None]) -> None:
    """Run ``in_child`` in every child process made by a fork from now on."""
    os.register_at_fork(after_in_child=in_child)


def environment() -> Mapping[str, str]:
    return os.environ


def process_id() -> int:
    return os.getpid()


def mark(descriptor: int) -> None:
    """Mark a file for as long as it is open, where the system offers that."""
    if _MARKS:
        with suppress(OSError):  # a file system without such locks
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _MARK)


def is_marked(descriptor: int) -> bool:
    """Return whether a process has marked this file; True where the system cannot say."""
    if not _MARKS:
        return True
    try:
        found, *_ = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _MARK))
    except OSError:
        return True
    return bool(found != fcntl.F_UNLCK)


def try_flock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock an open file, without waiting; False when another holder has it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_cached(descriptor: int, size: int, offset: int) -> bytes | None:
    """Read ``size`` bytes of a file from ``offset``, if they are in memory: see `Disk`."""
    if not _NOWAIT:
        return None
    buffer = bytearray(size)
    try:
        found = os.preadv(descriptor, [buffer], offset, _NOWAIT)
    except OSError:  # nothing is in memory; what else it may be, reading it in earnest shows
        return None
    return bytes(buffer) if found == size else None


def clone(source: int, descriptor: int) -> bool:
    """Have a file share all blocks of another one; False where that is not offered."""
    try:
        fcntl.ioctl(descriptor, _FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_CLONES:
            raise
        return False
    return True


def machine_life() -> bytes:
    """Return 16 bytes that change when the machine boots; zeros where the system has none."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return bytes.fromhex(file.read().strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)


def random_bytes(size: int) -> bytes:
    return os.urandom(size)


MOUNTS = "/proc/self/mountinfo"

NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "9p", "lustre", "gfs2"),
        *("ocfs2", "beegfs", "glusterfs", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs"),
    }
)
"""Kinds of file systems that other machines may use as well."""
LOCKS = "/proc/locks"


def locked_by(identities: Collection[tuple[int, int]]) -> int | None:
    """Return the process that has locked one of these files for itself (flock), without locking.

    None when no process has, and where the system does not say. Files are given as `Disk.identity`
    does. 0 is a process that is not seen from here, in another container for example.
    """
    numbers = {(os.major(device), os.minor(device), inode) for device, inode in identities}
    try:
        with open(LOCKS) as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    for _, *words in lines:  # proc_locks(5); one that waits has an arrow
        if words[:3] == ["FLOCK", "ADVISORY", "WRITE"]:
            major, minor, inode = words[4].split(":")
            if (int(major, 16), int(minor, 16), int(inode)) in numbers:
                return max(int(words[3]), 0)
    return None


def process_state(pid: int) -> str | None:
    """Return ``running``, ``stopped`` (SIGSTOP) or ``gone``; None where the system does not say."""
    try:
        with open(f"/proc/{pid}/stat", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone" if os.path.isdir("/proc/self") else None
    except (OSError, IndexError):
        return None
    return {"T": "stopped", "t": "stopped", "Z": "gone", "X": "gone"}.get(state, "running")


def network_file_system(path: str) -> str | None:
    """Return the kind of the file system of a path if other machines may use it as well.

    None for one of this machine, and where the system cannot say.
    """
    kind = file_system(path)
    return kind if kind in NETWORK else None


def file_system(path: str) -> str | None:
    """Return the kind of the file system of a path, or of its nearest parent that is there."""
    real = os.path.realpath(path)
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            mounts = [_mount(line) for line in file]
    except OSError:
        return None
    # a later mount at the same place hides an earlier one
    holding = [(point, kind) for point, kind in mounts if _holds(point, real)]
    return max(reversed(holding), key=lambda mount: len(mount[0]))[1] if holding else None


def _mount(line: str) -> tuple[str, str]:
    """Return where a file system is mounted, and its kind (proc_pid_mountinfo(5))."""
    before, _, after = line.partition(" - ")
    return _unescaped(before.split(" ")[4]), after.split(" ")[0]


def _unescaped(text: str) -> str:
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(escape, character)
    return text


def _holds(point: str, path: str) -> bool:
    return point == "/" or path == point or path.startswith(point + "/")
