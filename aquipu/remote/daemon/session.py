"""One client of a daemon: what it sends is done in tasks, the greeting alone, then many at a time.

**No client harms another.** What is no message, or larger than any can be, ends its connection,
and so does a client that does not introduce itself. From one that has much under way no more is
read, and to one that reads no answers no more are written than its socket takes.
"""

from __future__ import annotations

from asyncio import (
    BaseTransport,
    Event,
    Future,
    Protocol,
    Task,
    Transport,
    get_running_loop,
    wait,
)
from collections import deque
from collections.abc import Sequence
from functools import partial
from logging import getLogger
from socket import socket
from typing import TYPE_CHECKING, cast

from aquipu.errors import StoreUnavailableError
from aquipu.remote.daemon.answers import (
    COMMIT_BYTES_MAX,
    TAIL_BYTES_MAX,
    answer,
    progress_of,
    welcome,
    writer_in,
)
from aquipu.remote.protocol import (
    Head,
    Message,
    Messages,
    WireError,
    encoded,
    error_head,
    number_in,
)

if TYPE_CHECKING:
    from aquipu.remote.daemon.server import Daemon

REQUESTS_MAX = 16
"""Requests of one client.

With so many under way, or `COMMIT_BYTES_MAX` in them, no more is read from it for now.
"""
WAITS_MAX = 1000
"""Calls of one client that wait: for the next record, or for a stage; one more is refused."""
_HELLO_SECONDS = 10.0
_CLOSE_SECONDS = 2.0

_log = getLogger(__name__)


class Session(Protocol):
    """One connection to a client."""

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
        self.socket: socket = transport.get_extra_info("socket")
        self._daemon.sessions.add(self)
        self._patience = self._loop.call_later(
            _HELLO_SECONDS, self._refuse, WireError("a client does not say hello")
        )
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
        """Ignore what still comes from the client; what has come is done."""
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
        """Answer what is under way, but for waits for a record, and close the connection."""
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
        self._send(
            {
                "error": error_head(
                    StoreUnavailableError(self._daemon.path, "be served at", str(error))
                )
            }
        )
        self.end()

    # what it asks

    @property
    def _has_enough(self) -> bool:
        return (
            self._is_leaving
            or len(self._requests) >= REQUESTS_MAX
            or self._bytes >= COMMIT_BYTES_MAX
        )

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
            self._greeting = self._loop.create_task(
                self._greet(self._take_over(), self.writer, message)
            )
            return
        if not self._is_welcome:
            raise WireError("a client does not wait to be welcome")
        number = number_in(message.head, "id")
        if message.head.get("do") == "forget":
            self._forget(number)
        elif message.head.get("do") in ("wait", "reached"):
            self._wait(number, self.writer, message)
        else:
            self._begin(number, self.writer, message)

    def _take_over(self) -> list[Session]:
        """End what else claims to be this writer."""
        others = [
            other
            for other in self._daemon.sessions
            if other.writer == self.writer and other is not self
        ]
        for other in others:
            other.end()
        return others

    async def _greet(self, others: list[Session], writer: bytes, hello: Message) -> None:
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
            reason = f"a client waits with at most {WAITS_MAX} followers and calls of reached"
            self._reply(
                {
                    "id": number,
                    "error": error_head(
                        StoreUnavailableError(self._daemon.path, "wait for", reason)
                    ),
                }
            )
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
            if request.tail and request.head.get("do") == "commit":
                async with self._daemon.gathering:
                    more, tail = await answer(self._store, writer, request)
            else:
                more, tail = await answer(self._store, writer, request)
            head |= more
        except WireError as error:
            self._refuse(error)
            return
        except Exception as error:  # whatever it is, it is for the client
            head["error"] = error_head(error)
            self._daemon.heard_of(error)
        self._reply(head, tail)

    def _reply(self, head: Head, tail: Sequence[bytes] = ()) -> None:
        self._send({**head, "standing": progress_of(self._store)}, tail)

    def _send(self, head: Head, tail: Sequence[bytes] = ()) -> None:
        if not self._transport.is_closing():
            self._transport.write(encoded(head, tail))
