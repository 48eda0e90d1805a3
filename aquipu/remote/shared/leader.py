"""The one of several processes that writes their store, and serves it to the others.

Which one that is, the lock of the store decides: who gets it opens the files and listens at the
socket `socket` in the directory, and whoever finds nobody there tries to get the lock. It is the
operating system's, so it is free as soon as its holder has ended, however that ended.
"""

from __future__ import annotations

from asyncio import Task, get_running_loop
from contextlib import suppress
from logging import getLogger
from socket import socket

import anyio

from aquipu.errors import AquipuError, StoreLockedError, StoreUnavailableError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.sockets import listen_alone
from aquipu.local.disk.system import network_file_system, process_id
from aquipu.local.format.names import MANIFEST, SOCKET
from aquipu.options import Options
from aquipu.remote.daemon.server import Daemon
from aquipu.store import Store

_MODE = 0o600
"""Of the socket: processes of other users are kept out, also of a group that may read."""

_log = getLogger(__name__)


def socket_of(path: str) -> str:
    """Return the path of the socket of the store in a directory."""
    return f"{path}/{SOCKET}"


class Leader:
    """Opens and serves a store as soon as no other process does; belongs to one event loop."""

    def __init__(self, path: str, options: Options, disk: Disk) -> None:
        self.store: Store | None = None
        """The store, while this process is the one that writes it."""
        self._path = path
        self._options = options._replace(lock_timeout=0)
        self._disk = disk
        self._daemon: Daemon | None = None
        self._is_known = False  # the store was there before
        self._stepping_down: Task[None] | None = None

    async def serve(self) -> AquipuError | None:
        """Open the store and serve it; return why not when another process has it.

        Raises what `Store.open` raises. A store that was there before is not made anew.
        """
        if self.store is not None:
            return None
        await self._check_place()
        try:
            store = await Store.open(self._path, disk=self._disk, **self._options._asdict())
        except StoreLockedError as error:
            return error
        try:
            daemon = Daemon(store, socket_of(self._path))
            await daemon.serve(self._listen())
        except BaseException:
            with anyio.CancelScope(shield=True):
                await store.aclose()
            raise
        _log.info(
            "%s: this process, %d, %s",
            self._path,
            process_id(),
            "has taken it over and writes it now"
            if self._is_known
            else "writes it, for all that share it",
        )
        self._is_known = True
        self.store, self._daemon = store, daemon
        daemon.failed.add_done_callback(lambda _: self._step_down())
        return None

    async def _check_place(self) -> None:
        kind = network_file_system(self._path)
        if kind is not None:
            raise StoreUnavailableError(
                self._path,
                "share",
                f"it lies on a network file system ({kind}), where processes of other machines "
                "cannot reach its socket",
            )
        with translate_os_errors(self._path, "go on with"):
            is_there = not self._is_known or self._disk.exists(f"{self._path}/{MANIFEST}")
        if not is_there:
            raise StoreUnavailableError(
                self._path, "go on with", "the directory of the store was removed or replaced"
            )

    def _listen(self) -> socket:
        path = socket_of(self._path)
        try:
            return listen_alone(path, _MODE)
        except OSError as error:
            raise StoreUnavailableError(path, "listen at", error.strerror or str(error)) from error

    def note_known(self) -> None:
        """Note that the store is there: from now on it is not made anew."""
        self._is_known = True

    def _step_down(self) -> None:
        """Let go of a store that has failed: whoever opens it next sees what is really there."""
        if self.store is not None:
            _log.error("%s has failed here, and is let go of", self._path)
            self._stepping_down = get_running_loop().create_task(self._let_go())

    async def _let_go(self) -> None:
        store, daemon = self.store, self._daemon
        if store is not None and daemon is not None:
            await daemon.aclose()
            self.store = self._daemon = None
            with suppress(AquipuError):
                await store.aclose()

    async def aclose(self) -> None:
        """Serve no more, and close the store: another process may go on.

        Raises StoreFailedError when the store has failed; it is closed all the same.
        """
        if self._stepping_down is not None:
            await self._stepping_down
        store, daemon = self.store, self._daemon
        self.store = self._daemon = None
        if store is not None and daemon is not None:
            try:
                await daemon.aclose()
            finally:
                await store.aclose()

    def leave(self) -> None:
        """Let go of the store without the event loop: the program has dropped it.

        From any thread. What the store has accepted is written in the background.
        """
        if self._daemon is not None:
            self._daemon.drop()
        if self.store is not None:
            self.store._leave()
