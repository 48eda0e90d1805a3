"""The daemon: a store that many processes write, each through a connection of its own.

It is one store in one process, so what all clients send at the same time shares its commits and its
syncs. A client's commit is a batch here: all of it is stored, or none. The store's own bounds make
each client wait for its turn.

**No record twice.** A client sends one commit at a time, under the name of its writer and a number;
both are stored with it. When a connection is lost, the client comes back with the number of the
commit whose answer it never got. Then nothing that still comes from the old connection counts any
more, what had come from it is done to its end, and the log itself is searched for the key: that
shows what became of the commit, also when it was a daemon before this one that took it.

What one client may do to the others is in `session`: nothing.
"""

from __future__ import annotations

from asyncio import AbstractServer, Future, gather, get_running_loop, sleep
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from socket import socket
from weakref import WeakSet

from aquipu.errors import StoreFailedError, StoreUnavailableError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.paths import StrPath, absolute
from aquipu.local.disk.sockets import disown, hang_up
from aquipu.local.disk.system import at_fork
from aquipu.remote.daemon.gathering import Gathering
from aquipu.remote.daemon.session import Session
from aquipu.runtime.closing import Closing, Opening
from aquipu.store import Store

_TURNS = 3  # of the loop, until each client that has connected has a session
_MODE, _GROUP_MODE = 0o600, 0o660


class Daemon(Closing):
    """Serves an open store at a unix socket until it is closed; the store stays open."""

    def __init__(self, store: Store, path: str) -> None:
        """Prepare a daemon; not called by users: `Daemon.open` does."""
        self.store = store
        self.path = path
        self.failed: Future[None] = get_running_loop().create_future()
        """Resolved when a client was sent the error of a store that has failed."""
        self.sessions: set[Session] = set()
        """Sessions that are connected, or have something under way."""
        self.gathering = Gathering(get_running_loop())
        self.is_closed = False
        self._server: AbstractServer
        self._sockets: list[socket] = []
        self._identity: tuple[int, int] | None = None
        _open_daemons.add(self)

    @staticmethod
    def open(store: Store, path: StrPath, *, group: str | None = None) -> Opening[Daemon]:
        """Serve ``store`` at the socket ``path``.

        It is open to the user of this process only, or to a ``group`` as well.

        A socket that a dead daemon left is replaced. Raises (when awaited or entered)
        StoreUnavailableError: something listens there, the path is too long for a socket or is
        something else, there is no such group, ...
        """
        return Opening(partial(_open, store, absolute(path), group))

    async def aclose(self) -> None:
        """Take no more, answer what is under way, and hang up; do nothing the second time."""
        if self.is_closed:
            return
        self.is_closed = True
        self._remove_name()
        try:
            for _ in range(_TURNS):
                await sleep(0)
            await gather(*(session.hang_up() for session in list(self.sessions)))
        finally:
            self._server.close()

    async def _listen(self, group: str | None) -> None:
        disk = Disk()
        try:
            listening = disk.listen(self.path, _MODE if group is None else _GROUP_MODE, group)
        except LookupError:
            raise StoreUnavailableError(
                self.path, "listen at", f"there is no group {group}"
            ) from None
        except OSError as error:
            raise StoreUnavailableError(
                self.path, "listen at", error.strerror or str(error)
            ) from error
        except ValueError as error:
            raise StoreUnavailableError(self.path, "listen at", str(error)) from None
        await self.serve(listening)

    async def serve(self, listening: socket) -> None:
        """Serve at a socket that listens already, and has the path."""
        self._identity = Disk().identity(self.path)
        self._sockets = [listening]
        try:
            self._server = await get_running_loop().create_unix_server(
                partial(Session, self), sock=listening
            )
        except BaseException:
            self.drop()
            listening.close()
            raise

    def drop(self) -> None:
        """Hang up at once, because the event loop is gone: no client waits for an answer in vain.

        From any thread.
        """
        self.is_closed = True
        self._remove_name()
        for descriptor in self._descriptors():
            hang_up(descriptor)

    def _remove_name(self) -> None:
        with suppress(OSError):
            if Disk().identity(self.path) == self._identity:  # otherwise it was replaced
                Disk().remove(self.path)

    def disown(self) -> None:
        """Let go of all sockets in a forked child: the parent goes on with them."""
        self.is_closed = True
        for descriptor in self._descriptors():
            disown(descriptor)

    def _descriptors(self) -> Iterator[int]:
        """Yield the descriptors of its sockets that are open."""
        sessions = (session.socket for session in list(self.sessions))
        for each in (*self._sockets, *sessions):
            if each.fileno() >= 0:
                yield each.fileno()

    def heard_of(self, error: Exception) -> None:
        """Note that a client was sent this error."""
        if isinstance(error, StoreFailedError) and not self.failed.done():
            self.failed.set_result(None)


async def _open(store: Store, path: str, group: str | None) -> Daemon:
    daemon = Daemon(store, path)
    await daemon._listen(group)
    return daemon


_open_daemons: WeakSet[Daemon] = WeakSet()


def _disown_in_child() -> None:
    for daemon in list(_open_daemons):
        daemon.disown()
    _open_daemons.clear()


at_fork(_disown_in_child)
