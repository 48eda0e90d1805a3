"""What the tests of the page share: a client of it, and streams taken apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2
from starlette.types import ASGIApp

from tests.contrib.wire import Wire

TOKEN = "a token of this test, long enough"
HERE = ("127.0.0.1", 50_000)
ELSEWHERE = ("192.0.2.7", 50_000)


@asynccontextmanager
async def client_of(
    app: ASGIApp, client: tuple[str, int] = HERE, **headers: str
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that calls the application by the name of the loopback."""
    transport = httpx2.ASGITransport(app, client=client)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://localhost:8765", headers=headers
    ) as made:
        yield made


class Event(NamedTuple):
    """One event of a stream."""

    name: str
    id: str
    data: Any


def events_in(body: bytes) -> list[Event]:
    """The events of a stream, as a browser sees them: an id without data is no event."""
    found: list[Event] = []
    last = ""
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.partition(": ")[::2] for line in block.split("\n"))
        last = fields.get("id", last)
        if "data" in fields:
            found.append(Event(fields.get("event", "message"), last, json.loads(fields["data"])))
    return found


class Stream:
    """A client of a stream: what has come to it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._running = asyncio.create_task(wire.run())

    @property
    def events(self) -> list[Event]:
        return events_in(self.wire.body)

    @property
    def sequences(self) -> list[int]:
        return [event.data["sequence"] for event in self.events if event.name == "message"]

    async def until(self, count: int) -> list[Event]:
        """Wait for so many events."""
        async with asyncio.timeout(20):
            while len(self.events) < count:
                await self.wire.until(len(self.wire.sent) + 1)
        return self.events

    async def begun(self) -> None:
        """Wait until it has an answer, and what comes at once."""
        async with asyncio.timeout(20):
            await self.wire.until(2)

    async def leave(self) -> None:
        """Hang up; the application must end with that."""
        self.wire.leave()
        async with asyncio.timeout(20):
            await self._running

    async def ended(self) -> list[Event]:
        """Wait until the application has ended it."""
        async with asyncio.timeout(20):
            await self._running
        return self.events


def stream(app: ASGIApp, target: str, **headers: str) -> Stream:
    """Begin a stream."""
    pairs = [("host", "localhost"), *((key.replace("_", "-"), v) for key, v in headers.items())]
    return Stream(Wire(app, {}, "GET", target, pairs, client=HERE))
