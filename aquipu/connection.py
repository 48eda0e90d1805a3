"""The way to a daemon: a connection that is made anew when it is lost, as long as somebody wants something of it.

Whoever asks waits until the daemon can be reached, for a time that has an end. A question whose answer was lost with the
connection is asked again; what must not be done twice says so to the daemon when it comes back (see `wire`). An idle
connection costs nothing: no thread, no timer, and nobody looks whether it is still there before somebody asks.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, BaseTransport, Future, Protocol, Task, Transport, sleep, timeout
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from socket import AF_UNIX, SOCK_STREAM, socket
from time import monotonic
from typing import NamedTuple, cast
from weakref import WeakMethod

from aquipu.errors import AquipuError, StoreClosedError, StoreUnavailableError, twin
from aquipu.wire import Head, Message, Messages, WireError, encoded, error_in

SCHEME = "unix:"
ANSWER_BYTES_MAX = 1 << 30
_PAUSE = 0.01  # seconds between two attempts, doubling
_PAUSE_MAX = 0.25
_RECEIVED_BYTES = 64 * 1024

Heard = Callable[[Message | None], None]
"""Told of an answer; of None when the connection was lost before it came."""


def path_in(address: object) -> str:
    """The path in an address, ``unix:PATH``. TypeError or ValueError for anything else."""
    if not isinstance(address, str):
        raise TypeError(f"an address is a str, such as 'unix:/run/audit.sock', not {type(address).__name__}")
    if not address.startswith(SCHEME) or address == SCHEME:
        raise ValueError(f"an address is written unix:PATH, not {address!r}")
    return address.removeprefix(SCHEME)


class Client(NamedTuple):
    """On whose behalf the daemon is asked: bound methods."""

    hello: Callable[[], Head]
    """How it introduces itself."""
    welcome: Callable[[Head], None]
    """The daemon is there."""
    hear: Callable[[Head], None]
    """Told of the head of each answer."""
    give_up: Callable[[AquipuError], None]
    """The daemon cannot be reached, and nobody tries any more until something else is asked."""


class Connection:
    """To the daemon at an address. All of it belongs to the loop."""

    def __init__(self, address: str, loop: AbstractEventLoop, seconds: float, client: Client) -> None:
        """``seconds``: how long the daemon may be away before those who wait are told.

        The methods of the client are held weakly: an open connection must not keep a store that nobody has any more.
        """
        self.address = address
        self._path = path_in(address)
        self._loop = loop
        self._seconds = seconds
        self._client = [WeakMethod(method) for method in client]
        self._closed = False
        self._line: _Line | None = None  # on which we are welcome
        self._reaching: Task[None] | None = None
        self._waiting: list[Future[None]] = []
        self._heard: dict[int, Heard] = {}
        self._number = 0

    @property
    def is_up(self) -> bool:
        """Whether something can be sent now."""
        return self._line is not None

    def send(self, head: Head, tail: Sequence[bytes], heard: Heard) -> None:
        """Ask something, on a connection that `is_up`."""
        assert self._line is not None
        self._number += 1
        self._heard[self._number] = heard
        self._line.transport.write(encoded({"id": self._number, **head}, tail))

    async def ask(self, head: Head) -> Message:
        """Ask something, and again if need be: the answer. Raises what the answer says, or StoreUnavailableError."""
        while True:
            await self.reached()
            answered: Future[Message | None] = self._loop.create_future()
            self.send(head, (), partial(_settle, answered))
            message = await answered
            if message is not None:
                raise_if_error(message.head, self.address)
                return message

    async def reached(self) -> None:
        """Wait until something can be sent. Raises StoreUnavailableError, or StoreClosedError after `close`."""
        if self._closed:
            raise StoreClosedError(self.address)
        if not self.is_up:
            waiting = self._loop.create_future()
            self._waiting.append(waiting)
            self.reach()
            await waiting

    def reach(self) -> None:
        """Have the connection made, if it is not there."""
        if not self.is_up and self._reaching is None:
            self._reaching = self._loop.create_task(self._reach())

    def close(self) -> None:
        """Hang up. Who still waits for an answer gets StoreClosedError."""
        self._closed = True
        if self._reaching is not None:
            self._reaching.cancel()
        line, self._line = self._line, None
        if line is not None:
            line.transport.close()
        self._forget()
        self._tell_waiting(StoreClosedError(self.address))

    # making it

    async def _reach(self) -> None:
        try:
            await self._try_until(monotonic() + self._seconds)
        except AquipuError as error:
            self._give_up(error)
        except Exception as error:  # whatever it is: nobody may be left waiting
            self._give_up(StoreUnavailableError(self.address, "reach the daemon at", f"{type(error).__name__}: {error}"))
        finally:
            self._reaching = None

    async def _try_until(self, deadline: float) -> None:
        pause = _PAUSE
        while True:
            try:
                async with timeout(max(deadline - monotonic(), _PAUSE)):
                    return await self._introduce()
            except (OSError, WireError, TimeoutError) as error:
                reason = getattr(error, "strerror", None) or str(error) or "it does not answer"
                left = deadline - monotonic()
                if left <= 0:
                    raise StoreUnavailableError(self.address, "reach the daemon at", reason) from error
                await sleep(min(pause, left))
                pause = min(2 * pause, _PAUSE_MAX)

    async def _introduce(self) -> None:
        """Connect, and become welcome."""
        line = _Line(self._loop, self._message, self._lost)
        transport, _ = await self._loop.create_unix_connection(lambda: line, self._path)
        try:
            client = self._living()
            if client is None:  # nobody wants anything any more
                transport.abort()
                return
            transport.write(encoded(client.hello()))
            head = await line.welcome
            raise_if_error(head, self.address)
            if transport.is_closing():
                raise WireError("it hung up")
        except BaseException:
            transport.abort()
            raise
        self._line = line
        self._tell_waiting(None)
        client.welcome(head)

    def _give_up(self, error: AquipuError) -> None:
        self._tell_waiting(error)
        client = self._living()
        if client is not None:
            client.give_up(error)

    def _tell_waiting(self, error: AquipuError | None) -> None:
        """The daemon is there, or cannot be reached."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done() and error is not None:
                future.set_exception(twin(error))
            elif not future.done():
                future.set_result(None)

    def _living(self) -> Client | None:
        methods = [method() for method in self._client]
        return None if None in methods else Client(*methods)  # type: ignore[arg-type]

    # hearing

    def _message(self, message: Message) -> None:
        client = self._living()
        heard = self._heard.pop(message.head.get("id", 0), None)
        if heard is not None and client is not None:
            client.hear(message.head)
            heard(message)

    def _lost(self, line: _Line) -> None:
        if line is self._line:
            self._line = None
            self._forget()

    def _forget(self) -> None:
        """No answer will come any more on this line."""
        lost, self._heard = self._heard, {}
        for heard in lost.values():
            heard(None)


class _Line(Protocol):
    """One connection, from its beginning to its end."""

    transport: Transport

    def __init__(self, loop: AbstractEventLoop, message: Callable[[Message], None], lost: Callable[[_Line], None]) -> None:
        self.welcome: Future[Head] = loop.create_future()
        self._message = message
        self._lost = lost
        self._messages = Messages(ANSWER_BYTES_MAX)

    def connection_made(self, transport: BaseTransport) -> None:
        self.transport = cast("Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._messages.feed(data):
                if self.welcome.done():
                    self._message(message)
                else:
                    self.welcome.set_result(message.head)
        except WireError:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(WireError("it hung up"))
            self.welcome.exception()  # who introduces itself raises it, if anybody still does
        self._lost(self)


def raise_if_error(head: Head, address: str) -> None:
    """Raise the error that an answer tells of, if it does."""
    if "error" in head:
        raise error_in(head["error"], address)


def _settle(future: Future[Message | None], message: Message | None) -> None:
    if not future.done():
        future.set_result(message)


# without a loop


def deliver(address: str, hello: Head, commits: Sequence[tuple[Head, list[bytes]]], seconds: float) -> None:
    """Bring commits to the daemon at the end of a program, when there is no loop any more. Blocking.

    The first one may have been sent before; ``hello`` asks what has become of it then. Raises OSError, WireError, or what
    the daemon says.
    """
    with socket(AF_UNIX, SOCK_STREAM) as line:
        line.settimeout(seconds)
        line.connect(path_in(address))
        messages = _received(line)
        line.sendall(encoded(hello))
        head = _heard(messages, address)
        for request, tail in commits[1 if isinstance(head["outcome"], list) else 0 :]:
            line.sendall(encoded({"id": 1, **request}, tail))
            _heard(messages, address)


def _received(line: socket) -> Iterator[Message]:
    messages = Messages(ANSWER_BYTES_MAX)
    while piece := line.recv(_RECEIVED_BYTES):
        yield from messages.feed(piece)


def _heard(messages: Iterator[Message], address: str) -> Head:
    message = next(messages, None)
    if message is None:
        raise WireError("it hung up")
    raise_if_error(message.head, address)
    return message.head
