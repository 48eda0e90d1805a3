"""Actions that are no requests of their own, recorded with what the audit says of a request."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession, web
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from aquipu import Always, Receipt, Store, StoreFailedError, StoreFullError
from aquipu.contrib.aiohttp import STORE, audit_requests
from aquipu.contrib.aiohttp import record as record_in_aiohttp
from aquipu.contrib.audit import Audit, Rule
from aquipu.contrib.shared.entry import Entry
from aquipu.contrib.starlette import AuditMiddleware, record
from tests.contrib.support import entries_in, labels_in
from tests.contrib.wire import Wire
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio

HEADERS = [
    ("authorization", "secret"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
]
Act = Callable[[Request], Awaitable[object]]


class Service:
    """The store of a service, on a disk that fails on demand."""

    def __init__(self, path: Path, disk: FailingDisk, store: Store) -> None:
        self.path, self.disk, self.store = path, disk, store

    async def run(self, act: Act, audit: Audit[Request] | None = None) -> list[Entry]:
        """Have the handler of a request act; return the entries."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await act(Request(scope, receive))
            await PlainTextResponse("done")(scope, receive, send)

        made = AuditMiddleware(app, audit)
        await Wire(made, {"store": self.store}, "POST", "/login?token=5", HEADERS).run()
        return entries_in(self.path)


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    disk = FailingDisk()
    store = await Store.open(tmp_path / "store", sync_policy=Always(), disk=disk)
    yield Service(tmp_path / "store", disk, store)
    disk.mend()
    with suppress(StoreFailedError):
        await store.aclose()


async def test_an_action_in_an_audited_request(service: Service) -> None:
    """It is stored at once, with what is known of the request, whose id it names; secrets are left
    out.
    """
    receipts: list[Receipt | None] = []

    async def act(request: Request) -> None:
        receipts.append(
            await record(
                request, action="login", method="password", password="hunter2", attempt=3, to="?a=b"
            )
        )
        assert service.store.synced_sequence == 1

    entry, of_request = await service.run(act)
    assert receipts[0] is not None
    assert receipts[0].sequence == 0
    assert len(entry["id"]) == 16
    assert entry["id"] != of_request["id"]
    del entry["id"]
    assert entry == {
        "action": "login",
        "request_id": of_request["id"],
        "method": "POST",
        "path": "/login",
        "query": "token=[redacted]",
        "status": None,
        "actor": None,
        "client": "192.0.2.1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "b7ad6b7169203331",
        "request_headers": {"authorization": "[redacted]", "traceparent": HEADERS[1][1]},
        "details": {"method": "password", "password": "[redacted]", "attempt": 3, "to": "?a=b"},
    }


async def test_a_detail_that_is_a_credential(service: Service) -> None:
    """Its value is left out whatever its name, and a name that is kept keeps its value."""
    audit: Audit[Request] = Audit(kept_headers={"method-of-auth"})
    details = {"note": "Bearer abcdefgh", "method-of-auth": "password", "AUTH": "x"}
    entry, _ = await service.run(lambda request: record(request, "login", **details), audit)
    assert entry["details"] == {
        "note": "[redacted]",
        "method-of-auth": "password",
        "AUTH": "[redacted]",
    }


async def test_a_credential_within_a_detail(service: Service) -> None:
    """It is left out at any depth; and so is what holds itself, which has no end."""
    around: dict[str, Any] = {"passwords": ["hunter2"]}
    around["around"] = around
    form = {
        "user": "ada",
        "Password": "hunter2",
        "more": ({"api_key": "hunter2"}, "Bearer hunter2"),
    }
    entry, _ = await service.run(
        lambda request: record(request, "login", form=form, around=around, tokens=["hunter2"])
    )
    assert entry["details"]["form"] == {
        "user": "ada",
        "Password": "[redacted]",
        "more": [{"api_key": "[redacted]"}, "[redacted]"],
    }
    assert "hunter2" not in json.dumps(entry)


async def test_who_acts_and_its_labels(service: Service) -> None:
    """The functions of the audit say so; what is given goes before that, and labels add up."""
    audit: Audit[Request] = Audit(
        rules=[Rule("*", "/nothing")],
        actor=lambda request: "anonymous",
        relations=lambda request: ["all"],
    )
    await service.run(lambda request: record(request, "logout"), audit)
    await service.run(
        lambda request: record(request, "login", actor=7, relations=("user:7",)), audit
    )
    assert [entry["actor"] for entry in entries_in(service.path)] == ["anonymous", 7]
    assert labels_in(service.path) == [("all",), ("user:7", "all")]


async def test_an_action_in_a_request_that_is_not_audited(service: Service) -> None:
    """It is recorded all the same, and names no request."""
    audit: Audit[Request] = Audit(rules=[Rule("*", "/nothing")])
    (entry,) = await service.run(lambda request: record(request, "login"), audit)
    assert "request_id" not in entry


async def test_the_filter_of_an_audit(service: Service) -> None:
    """It takes out what must not stay, and cannot keep the action out."""

    def nothing(request: Request, entry: Entry) -> bool:
        entry["client"] = "somewhere"
        return False

    audit: Audit[Request] = Audit(filter_after=nothing)
    (entry,) = await service.run(lambda request: record(request, "login"), audit)
    assert (entry["action"], entry["client"]) == ("login", "somewhere")


@pytest.mark.parametrize("on_error", ["fail", "log"])
async def test_an_action_that_cannot_be_stored(
    service: Service, on_error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``fail`` the handler gets the error of the store; with ``log`` it goes on."""

    async def act(request: Request) -> None:
        service.disk.fail("write", ENOSPC, forever=True)
        try:
            if on_error == "fail":
                with pytest.raises(StoreFullError):
                    await record(request, "login")
            else:
                assert await record(request, "login") is None
        finally:
            service.disk.mend()

    await service.run(act, Audit(on_error=on_error))
    errors = [line for line in caplog.records if line.levelno == logging.ERROR]
    assert len(errors) == (on_error == "log")


@pytest.mark.parametrize("wrong", [{"action": ""}, {"action": 7}, {"relations": "user:7"}])
async def test_an_action_that_cannot_be(service: Service, wrong: dict[str, Any]) -> None:
    """It is refused where it is recorded, and nothing is stored of it."""

    async def act(request: Request) -> None:
        with pytest.raises(TypeError):
            await record(request, **{"action": "login", **wrong})

    assert ["action" in entry for entry in await service.run(act)] == [False]


async def test_an_action_without_an_audit() -> None:
    """Nothing says then what may be recorded, so it is an error that says what is missing."""
    with pytest.raises(RuntimeError, match="AuditMiddleware"):
        await record(Request({"type": "http"}), "login")


async def test_an_action_in_aiohttp(service: Service) -> None:
    """It is the same there, for a request that is audited and one that is not."""

    async def act(request: web.Request) -> web.Response:
        await record_in_aiohttp(request, "login", actor=7, relations=["user:7"], token="x")
        return web.Response(text="done")

    app = web.Application()
    app[STORE] = service.store
    audit_requests(app, Audit(rules=[Rule("POST", "/login")]))
    app.router.add_post("/{name}", act)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        for path in ("/login", "/other"):
            async with client.post(path) as response:
                assert response.status == 200
    await runner.cleanup()
    first, of_request, second = entries_in(service.path)
    assert (first["action"], first["actor"], first["details"]) == (
        *("login", 7),
        {"token": "[redacted]"},
    )
    assert first["request_id"] == of_request["id"]
    assert "request_id" not in second
    assert labels_in(service.path) == [("user:7",), (), ("user:7",)]


async def test_an_action_in_aiohttp_without_an_audit() -> None:
    """It is an error that says what is missing."""
    caught: list[str] = []

    async def act(request: web.Request) -> web.Response:
        with pytest.raises(RuntimeError, match="audit_requests") as raised:
            await record_in_aiohttp(request, "login")
        caught.append(str(raised.value))
        return web.Response()

    app = web.Application()
    app.router.add_get("/", act)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with ClientSession() as client, client.get(url) as response:
        assert response.status == 200
    await runner.cleanup()
    assert len(caught) == 1
