"""Audit that comes first: what is asked for is stored before a handler runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from aquipu import Always, Store, StoreFailedError
from aquipu.contrib.aiohttp import STORE, audit_requests, opened
from aquipu.contrib.audit import Audit
from aquipu.contrib.shared.entry import Entry
from aquipu.contrib.starlette import AuditMiddleware
from tests.contrib.support import entries_in, labels_in
from tests.contrib.wire import Wire
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio

both_errors = pytest.mark.parametrize("on_error", ["fail", "log"])


class Handler:
    """Looks at what is stored when it runs, and answers or raises."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[list[Entry]] = []
        self.error: Exception | None = None
        self.mend: Callable[[], None] = lambda: None

    def run(self) -> str:
        self.found.append(entries_in(self.path))
        self.mend()
        if self.error is not None:
            raise self.error
        return "done"


class Service:
    """The store of a service, on a disk that fails on demand, and its handler."""

    def __init__(self, path: Path, disk: FailingDisk, store: Store) -> None:
        self.path, self.disk, self.store = path, disk, store
        self.handler = Handler(path)

    def spoil(self) -> None:
        """From now on the disk has no space, until the handler runs."""
        self.disk.fail("write", ENOSPC, forever=True)
        self.handler.mend = self.disk.mend

    def wire(self, headers: Any = (), **options: Any) -> Wire:
        """A request of an ASGI application."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await Request(scope, receive).body()
            await PlainTextResponse(self.handler.run(), 201)(scope, receive, send)

        audit: Audit[Request] = Audit(commit="before_handler", **options)
        made = AuditMiddleware(app, audit)
        wire = Wire(made, {"store": self.store}, "POST", "/a?token=5", headers)
        wire.give_body(b"{}")
        return wire


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    disk = FailingDisk()
    store = await Store.open(tmp_path / "store", sync_policy=Always(), disk=disk)
    yield Service(tmp_path / "store", disk, store)
    disk.mend()
    with suppress(StoreFailedError):
        await store.aclose()


async def test_an_intent_and_its_outcome(service: Service) -> None:
    """When the handler runs its intent is stored, redacted; the supplement has the same id."""
    secret = [("authorization", "secret")]
    wire = await service.wire(secret, request_body=True, response_body=True).run()
    assert (wire.status, wire.body) == (201, b"done")
    intent, outcome = entries_in(service.path)
    assert service.handler.found == [[intent]]
    assert intent.pop("duration") <= outcome["duration"]
    assert intent == {
        "id": outcome["id"],
        "method": "POST",
        "path": "/a",
        "query": "token=[redacted]",
        "status": None,
        "actor": None,
        "client": "192.0.2.1",
        "request_headers": {"authorization": "[redacted]", "transfer-encoding": "chunked"},
        "intent": True,
    }
    assert (outcome["status"], outcome["supplement"]) == (201, True)
    assert outcome["request_body"]["text"] == "{}"
    assert outcome["response_body"]["text"] == "done"
    assert "intent" not in outcome


async def test_the_handler_waits_for_the_disk(service: Service) -> None:
    """It does not run before the intent is at the stage of the policy."""
    hold = service.disk.hold("sync")
    running = asyncio.create_task(service.wire().run())
    await asyncio.to_thread(hold.reached.wait)
    assert service.handler.found == []
    hold.released.set()
    assert (await running).status == 201
    assert len(service.handler.found) == 1


@both_errors
async def test_an_intent_that_cannot_be_stored(
    service: Service, on_error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``fail`` the handler does not run, and nothing is stored later; with ``log`` it runs,
    and the outcome is an entry by itself.
    """
    service.spoil()
    wire = await service.wire(on_error=on_error).run()
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    if on_error == "fail":
        assert (wire.status, service.handler.found) == (503, [])
        assert b"not carried out" in wire.body
        assert "does not run" in line.getMessage()
        service.disk.mend()
        await service.store.append(b'{"status": 0}')
        assert [entry["status"] for entry in entries_in(service.path)] == [0]
    else:
        assert (wire.status, len(service.handler.found)) == (201, 1)
        assert "runs all the same" in line.getMessage()
        (outcome,) = entries_in(service.path)
        assert (outcome["status"], "supplement" in outcome) == (201, False)


async def test_a_handler_that_raises(service: Service) -> None:
    """Its outcome says so."""
    service.handler.error = LookupError("secret")
    with pytest.raises(LookupError):
        await service.wire().run()
    intent, outcome = entries_in(service.path)
    assert outcome["id"] == intent["id"]
    assert (outcome["error"], outcome["status"], outcome["supplement"]) == (
        *("LookupError", None),
        True,
    )


async def test_cancelled_before_its_handler_runs(service: Service) -> None:
    """The intent is written all the same, and so is what became of it; the handler never runs."""
    hold = service.disk.hold("sync")
    running = asyncio.create_task(service.wire().run())
    await asyncio.to_thread(hold.reached.wait)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    hold.released.set()
    await service.store.sync()
    intent, outcome = entries_in(service.path)
    assert (intent["intent"], outcome["cancelled"], outcome["supplement"]) == (True, True, True)
    assert service.handler.found == []


async def test_a_filter_cannot_keep_an_intent_out(service: Service) -> None:
    """It is stored as the filter leaves it; the answer of the filter is about the outcome."""

    def nothing(request: Request, entry: Entry) -> bool:
        entry["path"] = "/?"
        return False

    await service.wire(filter_after=nothing).run()
    (intent,) = entries_in(service.path)
    assert (intent["intent"], intent["path"]) == (True, "/?")


async def test_the_functions_are_asked_twice(service: Service) -> None:
    """Actor and labels of the intent are those known before the handler; the outcome has others."""
    asked: list[int] = []

    def relations(request: Request) -> tuple[str]:
        asked.append(len(service.handler.found))
        return (f"seen:{asked[-1]}",)

    def actor(request: Request) -> int:
        return len(service.handler.found)

    await service.wire(actor=actor, relations=relations).run()
    assert [entry["actor"] for entry in entries_in(service.path)] == [0, 1]
    assert labels_in(service.path) == [("seen:0",), ("seen:1",)]


@asynccontextmanager
async def serving(path: Path, **options: Any) -> AsyncIterator[tuple[Service, ClientSession]]:
    """The same with aiohttp, over real HTTP."""
    disk = FailingDisk()
    app = web.Application()
    app.cleanup_ctx.append(opened(path / "store", sync_policy=Always(), disk=disk))
    audit_requests(app, Audit(commit="before_handler", **options))

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=made.handler.run(), status=201)

    app.router.add_post("/{name}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made = Service(path / "store", disk, app[STORE])
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        yield made, client
    disk.mend()
    await runner.cleanup()


async def test_an_intent_in_aiohttp(tmp_path: Path) -> None:
    """When the handler runs its intent is stored, with the parameters of its path; then its
    outcome.
    """

    def relations(request: web.Request) -> list[str]:
        return [f"name:{request.match_info['name']}"]

    async with serving(tmp_path, relations=relations) as (service, client):
        async with client.post("/a", data=b"{}") as response:
            assert (response.status, await response.text()) == (201, "done")
    intent, outcome = entries_in(service.path)
    assert service.handler.found == [[intent]]
    assert (intent["intent"], intent["status"]) == (True, None)
    assert (outcome["id"], outcome["status"]) == (intent["id"], 201)
    assert outcome["supplement"] is True
    assert labels_in(service.path) == [("name:a",)] * 2


@both_errors
async def test_an_intent_in_aiohttp_that_cannot_be_stored(tmp_path: Path, on_error: Any) -> None:
    """With ``fail`` the handler does not run, and nothing is stored later; with ``log`` it runs."""
    async with serving(tmp_path, on_error=on_error) as (service, client):
        service.spoil()
        async with client.post("/a") as response:
            status, text = response.status, await response.text()
    entries = entries_in(service.path)
    if on_error == "fail":
        assert (status, service.handler.found, entries) == (503, [], [])
        assert "not carried out" in text
    else:
        assert (status, len(service.handler.found)) == (201, 1)
        assert [(entry["status"], "supplement" in entry) for entry in entries] == [(201, False)]
