"""The way to a daemon: a connection that is made anew when it is lost, as long as somebody wants something of it.

Whoever asks waits until the daemon can be reached, for a time that has an end. A question whose answer was lost with the
connection is asked again; what must not be done twice says so to the daemon when it comes back (see `wire`). A daemon that
can be reached and hangs up before it has answered anything, again and again, counts as one that cannot be reached. An idle
connection costs nothing: no thread, no timer, and nobody looks whether it is still there before somebody asks.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, BaseTransport, CancelledError, Future, Protocol, Task, Transport, sleep, timeout
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from socket import AF_UNIX, SOCK_STREAM, socket
from time import monotonic
from typing import NamedTuple, cast
from weakref import WeakMethod

from aquipu.daemon.wire import Head, Message, Messages, Welcome, WireError, encoded, raise_if_error, standing_in, welcome_in
from aquipu.errors import AquipuError, OutcomeUnknownError, StoreClosedError, StoreUnavailableError, twin
from aquipu.worker import EXIT_SECONDS

SCHEME = "unix:"
ANSWER_BYTES_MAX = 1 << 30
PURGED = "the records that it could be among were purged before the daemon could be asked"
_PAUSE = 0.01  # seconds between two attempts, doubling
_PAUSE_MAX = 0.25
_STEADY_SECONDS = 1.0  # a connection that lived so long was none that the daemon cannot bear
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
    welcome: Callable[[Welcome], None]
    """The daemon is there."""
    stand: Callable[[tuple[int, int, int]], None]
    """Told with each answer where the log stands."""
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
        self._patience = seconds  # less when the loop seems to be ending
        self._client = [WeakMethod(method) for method in client]
        self._closed = False
        self._line: _Line | None = None  # on which we are welcome
        self._reaching: Task[None] | None = None
        self._deadline: float | None = None  # for the daemon to answer, since it does not
        self._pause = 0.0  # before the next attempt
        self._waiting: list[Future[None]] = []
        self._heard: dict[int, Heard] = {}
        self._number = 0

    @property
    def is_up(self) -> bool:
        """Whether something can be sent now."""
        return self._line is not None

    def send(self, head: Head, tail: Sequence[bytes], heard: Heard) -> int:
        """Ask something, on a connection that `is_up`. The number under which the answer will come.

        ValueError, and nothing is sent, for a head that is too large.
        """
        assert self._line is not None
        self._number += 1
        message = encoded({"id": self._number, **head}, tail)
        self._heard[self._number] = heard
        self._line.transport.write(message)
        return self._number

    async def ask(self, head: Head) -> Message:
        """Ask something, and again if need be: the answer. Raises what the answer says, or StoreUnavailableError.

        Cancelled, it is done all the same, unless it waits for something.
        """
        while True:
            await self.reached()
            answered: Future[Message | None] = self._loop.create_future()
            number = self.send(head, (), partial(_settle, answered))
            try:
                message = await answered
            except CancelledError:
                self._forget(number)
                raise
            if message is not None:
                raise_if_error(message.head, self.address)
                return message

    async def reached(self) -> None:
        """Wait until something can be sent. Raises StoreUnavailableError, or StoreClosedError after `close`."""
        while not self.is_up:
            if self._closed:
                raise StoreClosedError(self.address)
            waiting = self._loop.create_future()
            self._waiting.append(waiting)
            self.reach()
            await waiting

    def reach(self) -> None:
        """Have the connection made, if it is not there."""
        if not self.is_up and not self._closed and self._reaching is None:
            self._reaching = self._loop.create_task(self._reach())

    def hasten(self) -> None:
        """The client is about to close: from now on a daemon that is away is waited for no longer than at the exit."""
        self._seconds = self._patience = min(self._patience, EXIT_SECONDS)
        if self._deadline is not None:
            self._deadline = min(self._deadline, monotonic() + self._patience)

    def close(self) -> None:
        """Hang up. Who still waits for an answer gets StoreClosedError."""
        self._closed = True
        if self._reaching is not None:
            self._reaching.cancel()
        line, self._line = self._line, None
        if line is not None:
            line.transport.close()
        self._lose_answers()
        self._tell_waiting(StoreClosedError(self.address))

    # making it

    async def _reach(self) -> None:
        try:
            await self._try_again()
        except AquipuError as error:
            self._give_up(error)
        except CancelledError:
            if not self._closed:  # it was the loop that is ending: whoever closes the store meanwhile waits for us
                self._patience = min(self._seconds, EXIT_SECONDS)
                self._give_up(StoreUnavailableError(self.address, "reach the daemon at", "the program is ending"))
            raise
        except Exception as error:  # whatever it is: nobody may be left waiting
            self._give_up(StoreUnavailableError(self.address, "reach the daemon at", f"{type(error).__name__}: {error}"))
        finally:
            self._reaching = None

    async def _try_again(self) -> None:
        """Until the daemon welcomes us, or the time is over."""
        if self._deadline is None:
            self._deadline, self._pause = monotonic() + self._patience, 0.0
        reason: Exception = WireError("it hangs up before it answers")
        while True:
            left = self._deadline - monotonic()
            if left <= 0 and self._pause:  # there was an attempt
                text = getattr(reason, "strerror", None) or str(reason) or "it does not answer"
                raise StoreUnavailableError(self.address, "reach the daemon at", text) from reason
            await sleep(max(min(self._pause, left), 0))
            self._pause = min(max(2 * self._pause, _PAUSE), _PAUSE_MAX)
            try:
                async with timeout(max(self._deadline - monotonic(), _PAUSE)):
                    return await self._introduce()
            except (OSError, WireError, TimeoutError) as error:
                reason = error

    async def _introduce(self) -> None:
        """Connect, and become welcome."""
        line = _Line(self._loop, self)
        transport, _ = await self._loop.create_unix_connection(lambda: line, self._path)
        try:
            client = self._living()
            if client is None:  # nobody wants anything any more
                transport.abort()
                return
            transport.write(encoded(client.hello()))
            await line.welcome
        except BaseException:
            transport.abort()
            raise

    def _give_up(self, error: AquipuError) -> None:
        self._deadline = None
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

    # hearing: called by a line, and so from no task. Callers whose commit has arrived go on within.

    def greeted(self, line: _Line, head: Head) -> None:
        """The daemon has answered the hello on this line."""
        client = self._living()
        if client is None or line.welcome.done():  # nobody waits for it any more
            line.transport.abort()
            return
        try:
            raise_if_error(head, self.address)
            welcome = welcome_in(head)
        except Exception as error:
            line.welcome.set_exception(error)
            return
        line.welcome.set_result(None)
        self._line, self._patience = line, self._seconds
        self._tell_waiting(None)
        client.welcome(welcome)

    def answered(self, message: Message) -> None:
        """An answer. Raises WireError for what is none."""
        standing = standing_in(message.head)
        heard = self._heard.pop(message.head.get("id", 0), None)
        client = self._living()
        if heard is not None and client is not None:
            self._deadline = None
            client.stand(standing)
            heard(message)

    def lost(self, line: _Line) -> None:
        """This line has come to its end."""
        if line is self._line:
            self._line = None
            if monotonic() - line.since >= _STEADY_SECONDS:
                self._deadline = None
            self._lose_answers()

    def _lose_answers(self) -> None:
        """No answer will come any more."""
        lost, self._heard = self._heard, {}
        for heard in lost.values():
            heard(None)

    def _forget(self, number: int) -> None:
        """Nobody wants this answer any more."""
        if self._heard.pop(number, None) is not None and self._line is not None:
            self._line.transport.write(encoded({"id": number, "do": "forget"}))


class _Line(Protocol):
    """One connection, from its beginning to its end."""

    transport: Transport

    def __init__(self, loop: AbstractEventLoop, connection: Connection) -> None:
        self.welcome: Future[None] = loop.create_future()
        self.since = monotonic()
        self._connection = connection
        self._messages = Messages(ANSWER_BYTES_MAX)

    def connection_made(self, transport: BaseTransport) -> None:
        self.transport = cast("Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._messages.feed(data):
                if self.welcome.done():
                    self._connection.answered(message)
                else:
                    self._connection.greeted(self, message.head)
        except WireError:
            self.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(WireError("it hung up"))
        if not self.welcome.cancelled():
            self.welcome.exception()  # who introduces itself raises it, if anybody still does
        self._connection.lost(self)


def _settle(future: Future[Message | None], message: Message | None) -> None:
    if not future.done():
        future.set_result(message)


# without a loop


def deliver(address: str, hello: Head, commits: Sequence[tuple[Head, list[bytes]]], deadline: float) -> None:
    """Bring commits to the daemon at the end of a program, when there is no loop any more. Blocking.

    The first one may have been sent before; ``hello`` asks what has become of it then. Raises OSError, WireError, or what
    the daemon says.
    """
    with socket(AF_UNIX, SOCK_STREAM) as line:
        line.settimeout(_left(deadline))
        line.connect(path_in(address))
        messages = _received(line, deadline)
        line.sendall(encoded(hello))
        outcome = welcome_in(_heard(messages, address)).outcome
        known = outcome not in (None, "absent")
        for request, tail in commits[known:]:
            line.settimeout(_left(deadline))
            line.sendall(encoded({"id": 1, **request}, tail))
            _heard(messages, address)
    if outcome == "unknown":
        raise OutcomeUnknownError(address, PURGED)


def _received(line: socket, deadline: float) -> Iterator[Message]:
    messages = Messages(ANSWER_BYTES_MAX)
    while True:
        line.settimeout(_left(deadline))
        piece = line.recv(_RECEIVED_BYTES)
        if not piece:
            return
        yield from messages.feed(piece)


def _left(deadline: float) -> float:
    return max(deadline - monotonic(), _PAUSE)


def _heard(messages: Iterator[Message], address: str) -> Head:
    message = next(messages, None)
    if message is None:
        raise WireError("it hung up")
    raise_if_error(message.head, address)
    return message.head
