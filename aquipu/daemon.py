"""The daemon: a store that many processes write, each through a connection of its own.

It is one store in one process, so what all clients send at the same time shares its commits and its syncs. A client's
commit is a batch here: all of it is stored, or none. The store's own bounds make each client wait for its turn.

**No record twice.** A client sends one commit at a time, under the name of its writer and a number; both are stored with
it. When a connection is lost, the client comes back with the number of the commit whose answer it never got. Then nothing
that still comes from the old connection counts any more, what was accepted from it is awaited, and the log itself is
searched for the key: that tells what became of the commit, also when it was a daemon before this one that took it.

**Nobody harms anybody else.** What is no message, or larger than any can be, ends its connection, and so does a client that
does not introduce itself, or has more than `REQUESTS_MAX` requests under way. To one that reads no answers no more are
written than its socket takes.
"""

from __future__ import annotations

from asyncio import AbstractServer, BaseTransport, Event, Future, Protocol, Task, Transport, gather, get_running_loop, wait
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from logging import getLogger
from typing import Any, cast

from aquipu.closing import Closing, Opening
from aquipu.disk import Disk, StrPath, absolute
from aquipu.errors import StoreUnavailableError
from aquipu.service import TAIL_BYTES_MAX, answer, standing, welcome, writer_in
from aquipu.store import Store
from aquipu.wire import Head, Message, Messages, WireError, encoded, error_head

REQUESTS_MAX = 64
"""Of one client, under way at a time, beside those that wait for a record."""
WAITS_MAX = 1000
"""Of one client: its followers that have come to the end."""
_HELLO_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_MODE, _GROUP_MODE = 0o600, 0o660

_log = getLogger(__name__)


class Daemon(Closing):
    """Serves an open store at a unix socket until it is closed. The store is not closed with it."""

    def __init__(self, store: Store, path: str) -> None:
        """Not called by users: `Daemon.open` does."""
        self.store = store
        self.path = path
        self.sessions: set[_Session] = set()
        self._server: AbstractServer | None = None
        self._identity: tuple[int, int] | None = None

    @staticmethod
    def open(store: Store, path: StrPath, *, group: str | None = None) -> Opening[Daemon]:
        """Serve ``store`` at the socket ``path``: for the user of this process alone, or for a ``group`` as well.

        A socket that a dead daemon left is replaced. Raises (when awaited or entered) StoreUnavailableError: somebody
        listens there, the path is too long for a socket or is something else, there is no such group, ...
        """
        return Opening(partial(_open, store, absolute(path), group))

    async def aclose(self) -> None:
        """Take no more, answer what is under way, and hang up. Does nothing the second time."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        with suppress(OSError):
            if Disk().identity(self.path) == self._identity:  # otherwise somebody has replaced it
                Disk().remove(self.path)
        await gather(*(session.hang_up() for session in list(self.sessions)))

    async def _listen(self, group: str | None) -> None:
        disk = Disk()
        try:
            listening = disk.listen(self.path, _MODE if group is None else _GROUP_MODE, group)
        except LookupError:
            raise StoreUnavailableError(self.path, "listen at", f"there is no group {group}") from None
        except OSError as error:
            raise StoreUnavailableError(self.path, "listen at", error.strerror or str(error)) from error
        self._identity = disk.identity(self.path)
        self._server = await get_running_loop().create_unix_server(partial(_Session, self), sock=listening)

    async def take_over(self, heir: _Session, writer: bytes) -> None:
        """End what else claims to be this writer, and wait until nothing of it is under way."""
        others = [session for session in self.sessions if session.writer == writer and session is not heir]
        for other in others:
            other.end()
        await gather(*(other.ended() for other in others))


async def _open(store: Store, path: str, group: str | None) -> Daemon:
    daemon = Daemon(store, path)
    await daemon._listen(group)
    return daemon


class _Session(Protocol):
    """One client. What it sends is done in tasks: the greeting alone, then many requests at a time."""

    def __init__(self, daemon: Daemon) -> None:
        self.writer: bytes | None = None
        self._daemon = daemon
        self._store = daemon.store
        self._loop = get_running_loop()
        self._messages = Messages(TAIL_BYTES_MAX)
        self._requests: set[Task[None]] = set()
        self._waits: set[Task[None]] = set()
        self._is_welcome = False
        self._writable = Event()
        self._writable.set()
        self._lost: Future[None] = self._loop.create_future()

    # the connection

    def connection_made(self, transport: BaseTransport) -> None:
        self._transport = cast("Transport", transport)
        self._daemon.sessions.add(self)
        self._patience = self._loop.call_later(_HELLO_SECONDS, self._refuse, WireError("it does not say who it is"))

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._messages.feed(data):
                self._take(message)
        except WireError as error:
            self._refuse(error)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost.set_result(None)
        self._daemon.sessions.discard(self)
        self.end()

    def end(self) -> None:
        """Nothing that comes of it counts any more; what the store has accepted is written."""
        self._patience.cancel()
        self._transport.abort()
        for task in (*self._requests, *self._waits):
            task.cancel()

    async def ended(self) -> None:
        """Wait until nothing of it is under way."""
        await gather(*self._requests, *self._waits, return_exceptions=True)

    async def hang_up(self) -> None:
        """Answer what is under way, but for those that wait for a record, and close the connection."""
        self._transport.pause_reading()
        for task in self._waits:
            task.cancel()
        if self._requests:
            await wait(self._requests, timeout=_CLOSE_SECONDS)
        self._transport.close()
        await wait([self._lost], timeout=_CLOSE_SECONDS)
        self.end()

    def _refuse(self, error: WireError) -> None:
        _log.warning("%s: a client is cut off: %s", self._daemon.path, error)
        self.end()

    # what it asks

    def _take(self, message: Message) -> None:
        if self.writer is None:
            self.writer = writer_in(message)
            self._start(self._requests, 1, self._greet(self.writer, message))
        elif not self._is_welcome:
            raise WireError("it does not wait to be welcome")
        elif message.head.get("do") == "wait":
            self._start(self._waits, WAITS_MAX, self._answer(self.writer, message))
        else:
            self._start(self._requests, REQUESTS_MAX, self._answer(self.writer, message))

    def _start(self, tasks: set[Task[None]], most: int, work: Coroutine[Any, Any, None]) -> None:
        if len(tasks) >= most:
            work.close()
            raise WireError(f"it has more than {most} requests under way")
        task = self._loop.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def _greet(self, writer: bytes, hello: Message) -> None:
        self._patience.cancel()
        await self._daemon.take_over(self, writer)
        try:
            head = await welcome(self._store, writer, hello)
            self._is_welcome = True
        except WireError as error:
            self._refuse(error)
        except Exception as error:
            self._send({"error": error_head(error)})
            self._transport.close()
        else:
            self._send(head)

    async def _answer(self, writer: bytes, request: Message) -> None:
        head: Head = {"id": request.head.get("id")}
        tail: list[bytes] = []
        try:
            await self._writable.wait()
            more, tail = await answer(self._store, writer, request)
            head |= more
        except WireError as error:
            self._refuse(error)
            return
        except Exception as error:  # whatever it is, it is for the one who asked
            head["error"] = error_head(error)
        head["standing"] = standing(self._store)
        self._send(head, tail)

    def _send(self, head: Head, tail: list[bytes] | None = None) -> None:
        self._transport.write(encoded(head, tail or ()))
