"""An ASGI server made by hand: the test says what the client sends, and sees each message that the
application gives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Pair = tuple[str, str]

END = {"type": "http.request", "body": b"", "more_body": False}
GONE = {"type": "http.disconnect"}


class Wire:
    """One request.

    ``sent`` holds what has come out of the application; ``leave`` is the client hanging up.
    """

    def __init__(
        self,
        app: ASGIApp,
        state: dict[str, Any],
        method: str,
        target: str,
        headers: Sequence[Pair] = (),
        **scope: Any,
    ) -> None:
        path, _, query = target.partition("?")
        self.scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "client": ("192.0.2.1", 50_000),
            "server": ("192.0.2.2", 80),
            "state": state,
            **scope,
        }
        self.sent: list[Message] = []
        self.send_error: Exception | None = None
        """What sending raises from now on."""
        self._app = app
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._news = asyncio.Condition()

    def give(self, *messages: Message) -> None:
        """What the client sends next."""
        for message in messages:
            self._inbox.put_nowait(message)

    def give_body(self, *pieces: bytes) -> None:
        """A whole body, of which the head says that it comes."""
        self.scope["headers"].append((b"transfer-encoding", b"chunked"))
        self.give(
            *({"type": "http.request", "body": piece, "more_body": True} for piece in pieces), END
        )

    def leave(self) -> None:
        self.give(GONE)

    async def run(self) -> Wire:
        """Have the application answer. Raises what it raises."""
        await self._app(self.scope, self._inbox.get, self._send)
        return self

    async def until(self, count: int) -> None:
        """Wait until the application has sent so many messages."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.sent) >= count)

    async def _send(self, message: Message) -> None:
        if self.send_error is not None:
            raise self.send_error
        async with self._news:
            self.sent.append(message)
            self._news.notify_all()

    @property
    def status(self) -> int | None:
        """As the client has it: None before anything has come."""
        return next(
            (
                message["status"]
                for message in self.sent
                if message["type"] == "http.response.start"
            ),
            None,
        )

    @property
    def body(self) -> bytes:
        return b"".join(
            message.get("body", b"")
            for message in self.sent
            if message["type"] == "http.response.body"
        )


async def _run(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


@asynccontextmanager
async def started(app: ASGIApp) -> AsyncIterator[dict[str, Any]]:
    """An application between its startup and its shutdown: the state that its server keeps for the
    requests.
    """
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    outbox: asyncio.Queue[Message] = asyncio.Queue()
    state: dict[str, Any] = {}
    scope: Scope = {
        "type": "lifespan",
        "asgi": {"version": "3.0", "spec_version": "2.0"},
        "state": state,
    }
    running = asyncio.create_task(_run(app, scope, inbox.get, outbox.put))
    inbox.put_nowait({"type": "lifespan.startup"})
    begun = await outbox.get()
    if begun["type"] != "lifespan.startup.complete":
        await asyncio.wait([running])
        running.exception()
        raise RuntimeError(begun["message"])
    try:
        yield state
    finally:
        inbox.put_nowait({"type": "lifespan.shutdown"})
        ended = await outbox.get()
        await running
    assert ended["type"] == "lifespan.shutdown.complete"
