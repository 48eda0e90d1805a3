"""What the tests of the daemon and its clients share: a store that is served, and what may stand
between the two.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeVar

from aquipu import Always, RemoteStore, Store, StoreUnavailableError
from aquipu.remote.daemon.server import Daemon
from aquipu.remote.protocol import VERSION, Head, Message, Messages, encoded

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""
TIMEOUT = 10.0
"""Of a client whose daemon comes back."""
SHORT = 0.05
"""Of a client whose daemon does not."""
BYTES_MAX = 1 << 30
WRITER = "0123456789abcdef0123456789abcdef"

Pass = Callable[[Message], "Fate"]


class Served:
    """A store and its daemon, in this loop. Both can be ended and begun anew."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.options = {"sync_policy": Always(), **options}
        self.store: Store
        self.daemon: Daemon

    @property
    def socket(self) -> Path:
        return self.path / "socket"

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"

    async def begin(self) -> None:
        self.store = await Store.open(self.path / "store", **self.options)
        self.daemon = await Daemon.open(self.store, self.socket)

    async def end(self) -> None:
        await self.daemon.aclose()
        with suppress(Exception):  # one that has failed says so again
            await self.store.aclose()

    async def data(self) -> list[bytes]:
        """Of all records."""
        return [record.data async for record in self.store.scan()]

    def connect(self, **options: Any) -> Any:
        return Store.connect(self.address, **{"timeout": TIMEOUT, **options})


class Shared(Served):
    """A store that several have open with ``shared=True``: the first of them serves it."""

    first: Any

    async def begin(self) -> None:
        self.first = await Store.open(self.path / "store", shared=True, **self.options)
        leader = self.first._engine._leader
        self.store, self.daemon = leader.store, leader._daemon

    async def end(self) -> None:
        with suppress(Exception):  # one that has failed says so again
            await self.first.aclose()

    @property
    def socket(self) -> Path:
        return self.path / "store" / "socket"

    @property
    def address(self) -> str:
        return str(self.path / "store")

    def connect(self, **options: Any) -> Any:
        options["lock_timeout"] = options.pop("timeout", TIMEOUT)
        return Store.open(self.path / "store", shared=True, **{**self.options, **options})


KIND: ContextVar[type[Served]] = ContextVar("KIND", default=Served)
"""How the stores of a test are served."""


@asynccontextmanager
async def served(path: Path, **options: Any) -> AsyncIterator[Served]:
    """A store that is served in this directory."""
    it = KIND.get()(path, **options)
    await it.begin()
    try:
        yield it
    finally:
        await it.end()


# between the two


class Fate(Enum):
    """Of a message."""

    PASS = auto()
    DROP = auto()
    """The connection is lost before any of it has passed."""
    HALF = auto()
    """It is lost in the midst of it."""
    LAST = auto()
    """It is lost behind it."""


class Between:
    """Stands between clients and a daemon, and has connections lost at chosen messages."""

    def __init__(self, daemon: Path) -> None:
        self.request: Pass = lambda message: Fate.PASS
        """Decides on what a client says."""
        self.answer: Pass = lambda message: Fate.PASS
        """Decides on what the daemon says."""
        self.requests: list[Message] = []
        """All that clients said, also what did not pass."""
        self.tasks: set[asyncio.Task[None]] = set()
        self._daemon = daemon

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            ahead, onward = await asyncio.open_unix_connection(self._daemon)
        except OSError:
            writer.transport.abort()
            return
        there = asyncio.create_task(self._carry(reader, onward, self._asked))
        back = asyncio.create_task(self._carry(ahead, writer, self._answered))
        self.tasks |= {there, back}
        await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, onward):
            end.close()
        await asyncio.wait([there, back])

    def _answered(self, message: Message) -> Fate:
        return self.answer(message)

    def _asked(self, message: Message) -> Fate:
        self.requests.append(message)
        return self.request(message)

    async def _carry(self, reader: StreamReader, writer: StreamWriter, passes: Pass) -> None:
        messages = Messages(BYTES_MAX)
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                for message in messages.feed(piece):
                    fate = passes(message)
                    whole = encoded(message.head, [message.tail])
                    writer.write(
                        {Fate.DROP: b"", Fate.HALF: whole[: len(whole) // 2]}.get(fate, whole)
                    )
                    await writer.drain()
                    if fate is not Fate.PASS:
                        return


@asynccontextmanager
async def between(it: Served) -> AsyncIterator[tuple[Between, str]]:
    """What stands between the daemon and its clients, and the address at which they find it."""
    path = it.path / "between"
    middle = Between(it.socket)
    server = await asyncio.start_unix_server(middle.serve, path)
    try:
        yield middle, f"unix:{path}"
    finally:
        server.close()
        for task in middle.tasks:
            task.cancel()
        await asyncio.sleep(0)
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*middle.tasks, return_exceptions=True)


def nth(number: int, fate: Fate, do: str = "commit") -> Pass:
    """This fate for the nth message that asks to do that; all others pass."""
    seen = 0

    def decide(message: Message) -> Fate:
        nonlocal seen
        seen += message.head.get("do") == do
        return fate if seen == number and message.head.get("do") == do else Fate.PASS

    return decide


# one that speaks by itself


class Peer:
    """One end of a connection that says what a test wants it to say."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._messages = Messages(BYTES_MAX)
        self._heard: list[Message] = []

    async def say(self, head: Head, tail: bytes = b"") -> None:
        await self.write(encoded(head, [tail]))

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self) -> Message | None:
        """The next message; None when the other end has hung up."""
        async with asyncio.timeout(PATIENCE):
            while not self._heard:
                try:
                    piece = await self.reader.read(1 << 16)
                except ConnectionError:
                    return None
                if not piece:
                    return None
                self._heard += self._messages.feed(piece)
        return self._heard.pop(0)

    async def ask(self, head: Head, tail: bytes = b"") -> Message:
        await self.say(head, tail)
        answer = await self.hear()
        assert answer is not None, "it hung up"
        return answer

    async def greet(self, writer: str = WRITER, **more: object) -> Head:
        """Become welcome at a daemon."""
        return (await self.ask({"hello": VERSION, "writer": writer, **more})).head

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def peer(it: Served) -> AsyncIterator[Peer]:
    """A client that says what a test wants."""
    one = Peer(*await asyncio.open_unix_connection(it.socket))
    try:
        yield one
    finally:
        one.close()


WELCOME: Head = {
    "stage": 3,
    "max_record_bytes": 1000,
    "buffer_records": 100,
    "buffer_bytes": 10_000,
    "standing": [0, 0, 0],
    "outcome": None,
}


@asynccontextmanager
async def scripted(path: Path, *scripts: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[str]:
    """A daemon that says what a test wants: one script a connection, the last one for all that
    follow. Its address.
    """
    left = list(scripts)
    running: set[asyncio.Task[Any]] = set()

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        one = Peer(reader, writer)
        try:
            await (left.pop(0) if len(left) > 1 else left[0])(one)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            running.discard(task)
            writer.transport.abort()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield f"unix:{path}"
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def until(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


async def soon(awaitable: Awaitable[Any]) -> Any:
    """What it gives; an error when it never does."""
    async with asyncio.timeout(PATIENCE):
        return await awaitable


async def served_at_last(call: Callable[[], Awaitable[T]]) -> T:
    """What it gives, made anew until a client that waits no longer than SHORT finds its daemon."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with suppress(StoreUnavailableError):
                return await call()


async def connected(address: str, **options: Any) -> RemoteStore:
    return await Store.connect(address, **{"timeout": TIMEOUT, **options})
