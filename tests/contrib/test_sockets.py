"""WebSockets under audit: how they begin, and how they are closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from aquipu import Always, Store, StoreFailedError
from aquipu.contrib.aiohttp import STORE, audit_requests
from aquipu.contrib.audit import Audit, Rule
from aquipu.contrib.shared.entry import Entry
from aquipu.contrib.starlette import AuditMiddleware, record
from tests.contrib.support import entries_in
from tests.contrib.wire import Wire
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio

FIRST = ("before_handler", "before_response")
COMMITS = (*FIRST, "after_response")
FIRST_ENTRIES: dict[str, list[tuple[Any, ...]]] = {
    "before_handler": [(True, None, None, None, None, None)],
    "before_response": [(None, 101, None, None, None, None)],
    "after_response": [],
}


class Broken(Exception):
    """What a handler raises."""


async def closed_by_the_service(scope: Scope, receive: Receive, send: Send) -> None:
    socket = WebSocket(scope, receive, send)
    await socket.accept()
    await socket.send_text("hello")
    await socket.close(4001)
    await receive()  # what the client says to that


async def closed_by_the_client(scope: Scope, receive: Receive, send: Send) -> None:
    socket = WebSocket(scope, receive, send)
    await socket.accept()
    async for _ in socket.iter_text():
        pass


async def refused(scope: Scope, receive: Receive, send: Send) -> None:
    await WebSocket(scope, receive, send).close()


async def refused_with_a_response(scope: Scope, receive: Receive, send: Send) -> None:
    socket = WebSocket(scope, receive, send)
    await socket.receive()
    await socket.send_denial_response(PlainTextResponse("no", 401))


async def raising(scope: Scope, receive: Receive, send: Send) -> None:
    await WebSocket(scope, receive, send).accept()
    raise Broken("secret")


class Service:
    """The store of a service, on a disk that fails on demand."""

    def __init__(self, path: Path, disk: FailingDisk, store: Store) -> None:
        self.path, self.disk, self.store = path, disk, store

    def wire(self, app: ASGIApp, *, answers: bool = True, **options: Any) -> Wire:
        """A WebSocket of which the client says that it connects and, later, that it leaves."""
        audit: Audit[Request] = Audit(**{"websockets": True, **options})
        extensions: dict[str, Any] = {"websocket.http.response": {}} if answers else {}
        wire = Wire(
            AuditMiddleware(app, audit),
            {"store": self.store},
            "GET",
            "/live?token=5",
            type="websocket",
            subprotocols=[],
            extensions=extensions,
        )
        del wire.scope["method"]
        wire.give({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001})
        return wire

    @property
    def entries(self) -> list[Entry]:
        return entries_in(self.path)


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    disk = FailingDisk()
    store = await Store.open(tmp_path / "store", sync_policy=Always(), disk=disk)
    yield Service(tmp_path / "store", disk, store)
    disk.mend()
    with suppress(StoreFailedError):
        await store.aclose()


def brief(entry: Entry) -> tuple[Any, ...]:
    names = ("intent", "status", "close_code", "supplement", "error", "incomplete")
    return tuple(entry.get(name) for name in names)


@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize(
    ("app", "code"), [(closed_by_the_service, 4001), (closed_by_the_client, 1001)]
)
async def test_a_socket_and_its_end(service: Service, commit: Any, app: ASGIApp, code: int) -> None:
    """The entries say that it was accepted, and the code of whoever has closed it."""
    await service.wire(app, commit=commit).run()
    first = FIRST_ENTRIES[commit]
    supplement = True if first else None
    assert [brief(entry) for entry in service.entries] == [
        *first,
        (None, 101, code, supplement, None, None),
    ]
    assert len({entry["id"] for entry in service.entries}) == 1
    assert [entry["method"] for entry in service.entries] == ["GET"] * len(service.entries)
    assert service.entries[0]["query"] == "token=[redacted]"


async def test_a_socket_is_accepted_when_its_entry_is_on_the_disk(service: Service) -> None:
    """Nothing is sent before that."""
    hold = service.disk.hold("sync")
    wire = service.wire(closed_by_the_service)
    running = asyncio.create_task(wire.run())
    await asyncio.to_thread(hold.reached.wait)
    assert wire.sent == []
    hold.released.set()
    await running
    assert [message["type"] for message in wire.sent] == [
        *("websocket.accept", "websocket.send", "websocket.close")
    ]


@pytest.mark.parametrize(("app", "status"), [(refused, 403), (refused_with_a_response, 401)])
async def test_a_socket_that_is_refused(service: Service, app: ASGIApp, status: int) -> None:
    """One entry has the status that the client gets."""
    await service.wire(app).run()
    assert [brief(entry) for entry in service.entries] == [(None, status, *[None] * 4)]


async def test_a_socket_whose_handler_raises(service: Service) -> None:
    """The supplement names the error."""
    with pytest.raises(Broken):
        await service.wire(raising).run()
    _, end = service.entries
    assert brief(end) == (None, 101, None, True, "Broken", None)


async def test_a_socket_whose_handler_is_cancelled(service: Service) -> None:
    """The supplement says so."""
    accepted = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await WebSocket(scope, receive, send).accept()
        accepted.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(service.wire(app).run())
    await accepted.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await service.store.flush()
    assert [entry.get("cancelled") for entry in service.entries] == [None, True]


@pytest.mark.parametrize("commit", FIRST)
@pytest.mark.parametrize("answers", [True, False])
async def test_a_socket_that_cannot_be_recorded(
    service: Service, commit: Any, answers: bool
) -> None:
    """It is refused: with a 503 where the server can, otherwise as servers refuse (403)."""
    service.disk.fail("write", ENOSPC, forever=True)
    wire = service.wire(closed_by_the_service, commit=commit, answers=answers)
    await wire.run()
    expected: list[tuple[str, object]] = (
        [("websocket.http.response.start", 503), ("websocket.http.response.body", None)]
        if answers
        else [("websocket.close", None)]
    )
    assert [(message["type"], message.get("status")) for message in wire.sent] == expected
    service.disk.mend()
    await service.store.append(b'{"status": 0}')
    assert [entry["status"] for entry in service.entries] == [0]


async def test_a_socket_that_is_not_asked_for(service: Service) -> None:
    """Without the option, or by the rules, it is let pass; an action in it is recorded."""
    for options in ({"websockets": False}, {"rules": [Rule("POST")]}):
        await service.wire(closed_by_the_service, **options).run()
    assert service.entries == []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await record(HTTPConnection(scope), "watch")
        await closed_by_the_service(scope, receive, send)

    await service.wire(app, websockets=False).run()
    assert [entry["action"] for entry in service.entries] == ["watch"]


async def test_what_the_functions_get(service: Service) -> None:
    """They get the connection, which a WebSocket is."""
    await service.wire(refused, actor=lambda connection: connection.url.path).run()
    assert [entry["actor"] for entry in service.entries] == ["/live"]


@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize("by", ["service", "client"])
async def test_a_socket_in_aiohttp(service: Service, commit: Any, by: str) -> None:
    """There it is a request; its end is a supplement with the code of the client, who answers 1000
    when the service closes it.
    """

    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        if by == "client":
            async for _ in socket:
                pass
        else:
            await socket.close(code=4002)
        return socket

    app = web.Application()
    app[STORE] = service.store
    audit_requests(app, Audit(commit=commit, websockets=True))
    app.router.add_get("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with ClientSession() as client, client.ws_connect(url) as socket:
        if by == "client":
            await socket.close(code=4001)
        else:
            await socket.receive()
    await runner.cleanup()
    first = FIRST_ENTRIES[commit]
    supplement = True if first else None
    assert [brief(entry) for entry in service.entries] == [
        *first,
        (None, 101, 4001 if by == "client" else 1000, supplement, None, None),
    ]
