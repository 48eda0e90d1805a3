"""The daemon: a store that many processes write, each through a connection of its own.

It is one store in one process, so what all clients send at the same time shares its commits and its syncs. A client's
commit is a batch here: all of it is stored, or none. The store's own bounds make each client wait for its turn.

**No record twice.** A client sends one commit at a time, under the name of its writer and a number; both are stored with
it. When a connection is lost, the client comes back with the number of the commit whose answer it never got. Then nothing
that still comes from the old connection counts any more, what had come from it is done to its end, and the log itself is
searched for the key: that tells what became of the commit, also when it was a daemon before this one that took it.

**Nobody harms anybody else.** What is no message, or larger than any can be, ends its connection, and so does a client that
does not introduce itself. From one that has much under way no more is read, and to one that reads no answers no more are
written than its socket takes.
"""

from __future__ import annotations

from asyncio import (
    AbstractServer,
    BaseTransport,
    Event,
    Future,
    Protocol,
    Task,
    Transport,
    gather,
    get_running_loop,
    sleep,
    wait,
)
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from logging import getLogger
from typing import cast

from aquipu.closing import Closing, Opening
from aquipu.daemon.answers import COMMIT_BYTES_MAX, TAIL_BYTES_MAX, answer, standing, welcome, writer_in
from aquipu.daemon.wire import Head, Message, Messages, WireError, encoded, error_head, number_in
from aquipu.disk import Disk, StrPath, absolute
from aquipu.errors import StoreFailedError, StoreUnavailableError
from aquipu.store import Store

REQUESTS_MAX = 16
"""Of one client: with so many under way, or with `COMMIT_BYTES_MAX` in them, no more is read from it for now."""
WAITS_MAX = 1000
"""Of one client: its followers that have come to the end. To one more is said that it cannot be."""
_HELLO_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_TURNS = 3  # of the loop, until there is a session for whoever has connected already
_MODE, _GROUP_MODE = 0o600, 0o660

_log = getLogger(__name__)


class Daemon(Closing):
    """Serves an open store at a unix socket until it is closed. The store is not closed with it."""

    def __init__(self, store: Store, path: str) -> None:
        """Not called by users: `Daemon.open` does."""
        self.store = store
        self.path = path
        self.failed: Future[None] = get_running_loop().create_future()
        """Resolved when a client was told that the store has failed."""
        self.sessions: set[_Session] = set()
        """Those that are connected, or have something under way."""
        self.is_closed = False
        self._server: AbstractServer
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
        if self.is_closed:
            return
        self.is_closed = True
        with suppress(OSError):
            if Disk().identity(self.path) == self._identity:  # otherwise somebody has replaced it
                Disk().remove(self.path)
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
            raise StoreUnavailableError(self.path, "listen at", f"there is no group {group}") from None
        except OSError as error:
            raise StoreUnavailableError(self.path, "listen at", error.strerror or str(error)) from error
        self._identity = disk.identity(self.path)
        self._server = await get_running_loop().create_unix_server(partial(_Session, self), sock=listening)

    def heard_of(self, error: Exception) -> None:
        """A client is told of this."""
        if isinstance(error, StoreFailedError) and not self.failed.done():
            self.failed.set_result(None)


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
        self._untaken: deque[Message] = deque()
        self._greeting: Task[None] | None = None
        self._is_welcome = False
        self._requests: set[Task[None]] = set()
        self._bytes = 0  # of their tails
        self._waits: dict[int, Task[None]] = {}
        self._is_paused = self._is_leaving = False
        self._writable = Event()
        self._writable.set()
        self._lost: Future[None] = self._loop.create_future()

    # the connection

    def connection_made(self, transport: BaseTransport) -> None:
        self._transport = cast("Transport", transport)
        self._daemon.sessions.add(self)
        self._patience = self._loop.call_later(_HELLO_SECONDS, self._refuse, WireError("a client does not say hello"))
        if self._daemon.is_closed:  # it was accepted just before
            self.end()

    def data_received(self, data: bytes) -> None:
        try:
            self._untaken += self._messages.feed(data)
        except WireError as error:
            self._refuse(error)
        else:
            self._take_some()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost.set_result(None)
        self._writable.set()
        self.end()
        self._leave()

    def end(self) -> None:
        """Nothing that still comes of it counts any more; what has come is done."""
        self._patience.cancel()
        self._transport.abort()
        self._untaken.clear()
        for task in (self._greeting, *self._waits.values()):
            if task is not None:
                task.cancel()

    async def ended(self) -> None:
        """Wait until nothing of it is under way."""
        if self._requests:
            await wait(self._requests)

    async def hang_up(self) -> None:
        """Answer what is under way, but for those that wait for a record, and close the connection."""
        self._is_leaving = True
        self._take_some()
        for task in self._waits.values():
            task.cancel()
        if self._requests:
            await wait(self._requests, timeout=_CLOSE_SECONDS)
        self._transport.close()
        await wait([self._lost], timeout=_CLOSE_SECONDS)
        self.end()
        for task in self._requests:
            task.cancel()

    def _leave(self) -> None:
        if self._lost.done() and not self._requests:
            self._daemon.sessions.discard(self)

    def _refuse(self, error: WireError) -> None:
        """Say what is wrong, as far as the socket takes it, and end."""
        _log.warning("%s: a client is cut off: %s", self._daemon.path, error)
        self._send({"error": error_head(StoreUnavailableError(self._daemon.path, "be served at", str(error)))})
        self.end()

    # what it asks

    @property
    def _has_enough(self) -> bool:
        return self._is_leaving or len(self._requests) >= REQUESTS_MAX or self._bytes >= COMMIT_BYTES_MAX

    def _take_some(self) -> None:
        """Begin what has come, as far as that is not too much at a time, and read on or not."""
        try:
            while self._untaken and not self._has_enough:
                self._take(self._untaken.popleft())
        except WireError as error:
            self._refuse(error)
        else:
            self._pause(self._has_enough)

    def _take(self, message: Message) -> None:
        if self.writer is None:
            self.writer = writer_in(message)
            self._patience.cancel()
            self._greeting = self._loop.create_task(self._greet(self._take_over(), self.writer, message))
            return
        if not self._is_welcome:
            raise WireError("a client does not wait to be welcome")
        number = number_in(message.head, "id")
        if message.head.get("do") == "forget":
            self._forget(number)
        elif message.head.get("do") == "wait":
            self._wait(number, self.writer, message)
        else:
            self._begin(number, self.writer, message)

    def _take_over(self) -> list[_Session]:
        """End what else claims to be this writer."""
        others = [other for other in self._daemon.sessions if other.writer == self.writer and other is not self]
        for other in others:
            other.end()
        return others

    async def _greet(self, others: list[_Session], writer: bytes, hello: Message) -> None:
        for other in others:
            await other.ended()
        try:
            head = (await welcome(self._store, writer, hello))._asdict()
            self._is_welcome = True
        except WireError as error:
            self._refuse(error)
        except Exception as error:
            self._send({"error": error_head(error)})
            self._transport.close()
        else:
            self._send(head)

    def _begin(self, number: int, writer: bytes, request: Message) -> None:
        task = self._loop.create_task(self._answer(number, writer, request))
        self._requests.add(task)
        self._bytes += len(request.tail)
        task.add_done_callback(partial(self._done, len(request.tail)))

    def _done(self, size: int, task: Task[None]) -> None:
        self._requests.discard(task)
        self._bytes -= size
        self._take_some()
        self._leave()

    def _pause(self, paused: bool) -> None:
        if paused == self._is_paused or self._transport.is_closing():
            return
        self._is_paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _wait(self, number: int, writer: bytes, request: Message) -> None:
        self._forget(number)
        if len(self._waits) >= WAITS_MAX:
            reason = f"a client waits with at most {WAITS_MAX} followers"
            self._reply({"id": number, "error": error_head(StoreUnavailableError(self._daemon.path, "follow", reason))})
            return
        task = self._waits[number] = self._loop.create_task(self._answer(number, writer, request))
        task.add_done_callback(partial(self._waited, number))

    def _waited(self, number: int, task: Task[None]) -> None:
        if self._waits.get(number) is task:
            del self._waits[number]

    def _forget(self, number: int) -> None:
        waiting = self._waits.pop(number, None)
        if waiting is not None:
            waiting.cancel()

    async def _answer(self, number: int, writer: bytes, request: Message) -> None:
        head: Head = {"id": number}
        tail: list[bytes] = []
        await self._writable.wait()
        if self._transport.is_closing():  # and it has not begun
            return
        try:
            more, tail = await answer(self._store, writer, request)
            head |= more
        except WireError as error:
            self._refuse(error)
            return
        except Exception as error:  # whatever it is, it is for the one who asked
            head["error"] = error_head(error)
            self._daemon.heard_of(error)
        self._reply(head, tail)

    def _reply(self, head: Head, tail: Sequence[bytes] = ()) -> None:
        self._send({**head, "standing": standing(self._store)}, tail)

    def _send(self, head: Head, tail: Sequence[bytes] = ()) -> None:
        if not self._transport.is_closing():
            self._transport.write(encoded(head, tail))
