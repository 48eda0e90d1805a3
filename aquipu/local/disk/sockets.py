"""Unix sockets, and the files by which they are found."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EADDRINUSE, EEXIST
from grp import getgrnam
from socket import AF_UNIX, SHUT_RDWR, SOCK_DGRAM, SOCK_STREAM, socket
from stat import S_ISSOCK

from aquipu.local.disk.system import random_bytes

_BACKLOG = 128  # connections that are not accepted yet
_PATH_MAX = 107 if sys.platform == "linux" else 103  # bytes; then comes a zero
_NAMES_TRIED = 100


def check_socket_path(path: str) -> None:
    """Raise ValueError for a path that has more bytes than the system takes for a socket."""
    size = len(os.fsencode(path))
    if size > _PATH_MAX:
        raise ValueError(
            f"{path} is too long for a socket: it has {size} bytes, "
            f"and {_PATH_MAX} can be at most; give a shorter one"
        )


def tell_manager(*lines: str) -> None:
    """Tell whatever started this process how it is, such as ``READY=1``: sd_notify(3).

    Does nothing where nobody asked for it, with NOTIFY_SOCKET in the environment. It never waits
    and never fails: who does not listen does not hear it.
    """
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with suppress(OSError), socket(AF_UNIX, SOCK_DGRAM) as notifying:
        notifying.setblocking(False)
        notifying.sendto("\n".join(lines).encode(errors="surrogateescape"), address)


@contextmanager
def short(path: str) -> Iterator[str]:
    """Give a name for the path of a socket that is not too long for one, wherever it lies.

    Beyond the limit, the name leads through an open descriptor of the directory (Linux).
    """
    if len(os.fsencode(path)) <= _PATH_MAX:
        yield path
        return
    directory, name = os.path.split(path)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def listen_alone(path: str, mode: int) -> socket:
    """Open a listening socket in the place of any that has the name.

    For a caller that holds a lock under which nobody else listens there. Raises OSError.
    """
    listening = socket(AF_UNIX, SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
        with short(path) as name:
            listening.bind(name)
        os.chmod(path, mode)  # nobody gets in before: it does not listen yet
        listening.listen(_BACKLOG)
    except BaseException:
        listening.close()
        raise
    return listening


def hang_up(descriptor: int) -> None:
    """End what goes through a socket, for all processes; the descriptor stays open."""
    with suppress(OSError), socket(fileno=os.dup(descriptor)) as same:
        same.shutdown(SHUT_RDWR)


def disown(descriptor: int) -> None:
    """Let go of a socket that another process goes on with; its number stays taken.

    What still has the number, in a forked child, then closes nothing else.
    """
    with suppress(OSError):
        null = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(null, descriptor, inheritable=False)
        finally:
            os.close(null)


def listen(path: str, mode: int, group: str | None) -> socket:
    """Open a listening socket, as `Disk.listen` says."""
    check_socket_path(path)
    listening = socket(AF_UNIX, SOCK_STREAM)
    try:
        _check_unused(path)
        made = _bind_beside(listening, path)
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


def _bind_beside(listening: socket, path: str) -> str:
    """Bind a socket to a new name in the directory of the path, no longer than the path.

    So the new name fits where the path does.
    """
    directory, name = os.path.split(path)
    size = min(len(os.fsencode(name)), 16)
    for left in reversed(range(_NAMES_TRIED)):
        made = os.path.join(directory, random_bytes(size).hex()[:size])
        try:
            listening.bind(made)
        except OSError as error:
            if error.errno != EADDRINUSE or not left:
                raise
        else:
            break
    return made


def _check_unused(path: str) -> None:
    """Raise OSError if a process listens there, or if it is a file of another kind."""
    with socket(AF_UNIX, SOCK_STREAM) as probe, suppress(FileNotFoundError):
        if not S_ISSOCK(os.stat(path).st_mode):
            raise OSError(EEXIST, "it is there, and no socket", path)
        probe.setblocking(False)
        with suppress(ConnectionRefusedError):
            with suppress(BlockingIOError):  # so many connect that one more would have to wait
                probe.connect(path)
            raise OSError(EADDRINUSE, "somebody listens there", path)
