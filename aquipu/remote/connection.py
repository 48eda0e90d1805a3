"""The connection to a daemon, made anew when it is lost, as long as it is needed.

What is asked waits until the daemon can be reached, for a time that has an end. A question whose
answer was lost with the connection is asked again; what must not be done twice says so to the
daemon when it comes back (see `protocol`). A daemon that can be reached and hangs up before it has
answered anything, again and again, counts as one that cannot be reached. An idle connection costs
nothing: no thread, no timer, and nobody looks whether it is still there before somebody asks.
"""

from __future__ import annotations

from asyncio import (
    AbstractEventLoop,
    BaseTransport,
    CancelledError,
    Future,
    Protocol,
    Task,
    Transport,
    sleep,
    timeout,
)
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import NamedTuple, cast
from weakref import WeakMethod

from aquipu.errors import (
    AquipuError,
    StoreClosedError,
    StoreUnavailableError,
    copy_error,
)
from aquipu.local.disk.paths import SCHEME
from aquipu.local.disk.sockets import check_socket_path, short
from aquipu.remote.protocol import (
    Head,
    Message,
    Messages,
    Welcome,
    WireError,
    encoded,
    progress_in,
    raise_if_error,
    welcome_in,
)
from aquipu.runtime.exit import EXIT_SECONDS

ANSWER_BYTES_MAX = 1 << 30
PURGED = "the records that it could be among were purged before the daemon could be asked"
_PAUSE = 0.01  # seconds between two attempts, doubling
_PAUSE_MAX = 0.25
_STEADY_SECONDS = 1.0  # a connection that lived so long was none that the daemon cannot bear
_RECEIVED_BYTES = 64 * 1024

Heard = Callable[[Message | None], None]
"""Called with an answer; with None when the connection was lost before it came."""


def path_in(address: object) -> str:
    """Return the path in an address, ``unix:PATH``; TypeError or ValueError for anything else."""
    if not isinstance(address, str):
        raise TypeError(
            f"an address is a str, such as 'unix:/run/audit.sock', not {type(address).__name__}"
        )
    if not address.startswith(SCHEME) or address == SCHEME:
        raise ValueError(f"an address is written unix:PATH, not {address!r}")
    path = address.removeprefix(SCHEME)
    check_socket_path(path)
    return path


class Client(NamedTuple):
    """On whose behalf the daemon is asked: bound methods."""

    hello: Callable[[], Head]
    """How it introduces itself."""
    welcome: Callable[[Welcome], None]
    """The daemon is there."""
    progress: Callable[[tuple[int, int, int]], None]
    """Called with each answer: how far the log has come."""
    give_up: Callable[[AquipuError], None]
    """The daemon cannot be reached, and nobody tries any more until something else is asked."""
    lost: Callable[[], None]
    """The connection was lost."""
    serve: Callable[[], Awaitable[AquipuError | None]]
    """Nobody serves: do so, or return why not."""


class Connection:
    """To the daemon at a socket. All of it belongs to the loop."""

    def __init__(
        self, address: str, socket: str, loop: AbstractEventLoop, seconds: float, client: Client
    ) -> None:
        """Prepare a connection to the path of a socket; errors name the ``address``.

        ``seconds``: how long the daemon may be away before what waits gets an error.

        The methods of the client are held weakly: an open connection must not keep a store that
        nobody has any more.
        """
        self.address = address
        self._socket = socket
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
        """Ask something, again if need be, and return the answer.

        Raises what the answer says, or StoreUnavailableError.

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
        """Wait until something can be sent.

        Raises StoreUnavailableError, or StoreClosedError after `close`.
        """
        while not self.is_up:
            if self._closed:
                raise StoreClosedError(self.address)
            waiting = self._loop.create_future()
            self._waiting.append(waiting)
            self.reach()
            await waiting

    @property
    def reaching(self) -> Task[None] | None:
        """What makes the connection at this moment."""
        return self._reaching

    def reach(self) -> None:
        """Have the connection made, if it is not there."""
        if not self.is_up and not self._closed and self._reaching is None:
            self._reaching = self._loop.create_task(self._reach())

    def hasten(self) -> None:
        """Wait for an absent daemon no longer than at the exit: the client is about to close."""
        self._seconds = self._patience = min(self._patience, EXIT_SECONDS)
        if self._deadline is not None:
            self._deadline = min(self._deadline, monotonic() + self._patience)

    def renew(self) -> None:
        """Hang up and connect anew: an interrupt has left unknown what went through."""
        if self._line is not None:
            self._line.transport.abort()

    def close(self) -> None:
        """Hang up. What still waits for an answer gets StoreClosedError."""
        self._closed = True
        if self._reaching is not None:
            self._reaching.cancel()
        line, self._line = self._line, None
        if line is not None:
            line.transport.close()
        self._lose_answers()
        self._resolve_waiting(StoreClosedError(self.address))

    # making it

    async def _reach(self) -> None:
        try:
            await self._try_again()
        except AquipuError as error:
            self._give_up(error)
        except CancelledError:
            if (
                not self._closed
            ):  # it was the loop that is ending: a closing of the store meanwhile waits for us
                self._patience = min(self._seconds, EXIT_SECONDS)
                self._give_up(
                    StoreUnavailableError(
                        self.address, "reach the daemon at", "the program is ending"
                    )
                )
            raise
        except Exception as error:  # whatever it is: nobody may be left waiting
            self._give_up(
                StoreUnavailableError(
                    self.address, "reach the daemon at", f"{type(error).__name__}: {error}"
                )
            )
        finally:
            self._reaching = None

    async def _try_again(self) -> None:
        """Try until the daemon welcomes us, or the time is over."""
        if self._deadline is None:
            self._deadline, self._pause = monotonic() + self._patience, 0.0
        reason: Exception = WireError("it hangs up before it answers")
        while True:
            left = self._deadline - monotonic()
            if left <= 0 and self._pause:  # there was an attempt
                if isinstance(reason, AquipuError):
                    raise reason
                text = getattr(reason, "strerror", None) or str(reason) or "it does not answer"
                raise StoreUnavailableError(self.address, "reach the daemon at", text) from reason
            await sleep(max(min(self._pause, left), 0))
            self._pause = min(max(2 * self._pause, _PAUSE), _PAUSE_MAX)
            try:
                async with timeout(max(self._deadline - monotonic(), _PAUSE)):
                    return await self._introduce()
            except (FileNotFoundError, ConnectionRefusedError) as error:
                reason = await self._serve() or error
            except PermissionError:
                raise
            except (OSError, WireError, TimeoutError) as error:
                reason = error

    async def _serve(self) -> AquipuError | None:
        """Have the client serve, if it can: nobody else does; return why it does not."""
        client = self._living()
        return None if client is None else await client.serve()

    async def _introduce(self) -> None:
        """Connect, and become welcome."""
        line = _Line(self._loop, self)
        with short(self._socket) as name:
            transport, _ = await self._loop.create_unix_connection(lambda: line, name)
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
        self._resolve_waiting(error)
        client = self._living()
        if client is not None:
            client.give_up(error)

    def _resolve_waiting(self, error: AquipuError | None) -> None:
        """Resolve what waits: the daemon is there, or cannot be reached."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done() and error is not None:
                future.set_exception(copy_error(error))
            elif not future.done():
                future.set_result(None)

    def _living(self) -> Client | None:
        methods = [method() for method in self._client]
        return None if None in methods else Client(*methods)  # type: ignore[arg-type]

    # hearing: called by a line, and so from no task. Callers whose commit is complete go on within.

    def greeted(self, line: _Line, head: Head) -> None:
        """Take the daemon's answer to the hello on this line."""
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
        self._resolve_waiting(None)
        client.welcome(welcome)

    def answered(self, message: Message) -> None:
        """Take an answer. Raises WireError for what is none."""
        progress = progress_in(message.head)
        heard = self._heard.pop(message.head.get("id", 0), None)
        client = self._living()
        if heard is not None and client is not None:
            self._deadline = None
            client.progress(progress)
            heard(message)

    def lost(self, line: _Line) -> None:
        """Note that this line has come to its end."""
        if line is self._line:
            self._line = None
            if monotonic() - line.since >= _STEADY_SECONDS:
                self._deadline = None
            self._lose_answers()
            client = self._living()
            if client is not None:
                client.lost()

    def _lose_answers(self) -> None:
        """Fail the questions: no answer will come any more."""
        lost, self._heard = self._heard, {}
        for heard in lost.values():
            heard(None)

    def _forget(self, number: int) -> None:
        """Drop a question whose answer is not wanted any more."""
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
        except BaseException:  # an interrupt, perhaps between two messages
            self.transport.abort()
            raise

    def connection_lost(self, error: Exception | None) -> None:
        if not self.welcome.done():
            self.welcome.set_exception(WireError("it hung up"))
        if not self.welcome.cancelled():
            self.welcome.exception()  # the introduction raises it, if it still waits
        self._connection.lost(self)


def _settle(future: Future[Message | None], message: Message | None) -> None:
    if not future.done():
        future.set_result(message)


# without a loop
