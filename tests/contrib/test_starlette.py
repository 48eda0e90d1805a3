"""A store in Starlette and FastAPI: its life, its place, and requests audited whatever becomes of
them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import pytest_asyncio
from fastapi import Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aquipu import Always, RemoteStore, Store, StoreClosedError, StoreFailedError, StoreFullError
from aquipu.contrib.audit import Audit, Rule
from aquipu.contrib.shared.entry import Entry
from aquipu.contrib.starlette import AuditMiddleware, State, get_store, lifespan
from aquipu.remote.daemon.server import Daemon
from tests.contrib.support import entries_in, labels_in
from tests.contrib.wire import END, Wire, started
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio

StoreOfRequest = Annotated[Store, Depends(get_store)]

# the life of the store


async def test_a_store_lives_as_long_as_the_application(tmp_path: Path) -> None:
    """It is open from startup to shutdown, and closed and unlocked after that; a second start opens
    it again.
    """
    app = Starlette(lifespan=lifespan(tmp_path / "store", sync_policy=Always()))
    for sequence in range(2):
        async with started(app) as state:
            store = state["store"]
            assert (await store.append(b"here")).sequence == sequence
        with pytest.raises(StoreClosedError):
            await store.append(b"too late")


async def test_an_opener_in_place_of_a_path(tmp_path: Path) -> None:
    """Whatever can be entered for a store will do."""
    app = Starlette(lifespan=lifespan(lambda: Store.open(tmp_path / "store", sync_policy=Always())))
    async with started(app) as state:
        assert (await state["store"].append(b"here")).sequence == 0


async def test_a_store_in_another_process(tmp_path: Path) -> None:
    """One that a daemon writes is opened, handed out and written by the audit as any other."""
    app = FastAPI(lifespan=lifespan(lambda: Store.connect(f"unix:{tmp_path}/socket")))
    app.add_middleware(AuditMiddleware)

    @app.post("/events")
    async def append(store: Annotated[RemoteStore, Depends(get_store)]) -> int:
        return (await store.append(b"{}")).sequence

    async with Store.open(tmp_path / "store", sync_policy=Always()) as store:
        async with Daemon.open(store, f"{tmp_path}/socket"), started(app) as state:
            assert (await Wire(app, state, "POST", "/events").run()).body == b"0"
            assert store.synced_sequence == 2
    assert entries_in(tmp_path / "store")[1]["path"] == "/events"


async def test_with_a_lifespan_of_the_application(tmp_path: Path) -> None:
    """Its own begins when the store is open and ends before it is closed; both states are there."""
    seen: list[str] = []

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        seen.append("begin")
        async with Store.open(tmp_path / "events") as events:
            yield {"events": events}
            seen.append("end")
            await audit.append(b"still open")

    app = Starlette(lifespan=lifespan(tmp_path / "store", own))
    async with started(app) as state:
        audit = state["store"]
        assert set(state) == {"store", "events"}
        assert seen == ["begin"]
    assert seen == ["begin", "end"]


async def test_with_a_lifespan_without_state(tmp_path: Path) -> None:
    """One that yields nothing adds nothing."""

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[None]:
        yield

    async with started(Starlette(lifespan=lifespan(tmp_path / "store", own))) as state:
        assert set(state) == {"store"}


async def test_two_stores(tmp_path: Path) -> None:
    """A lifespan around another one, each with its name."""
    inner = lifespan(tmp_path / "events", name="events")
    async with started(Starlette(lifespan=lifespan(tmp_path / "store", inner))) as state:
        assert state["store"].path != state["events"].path


async def test_an_option_that_cannot_be() -> None:
    """It is refused where the application is put together."""
    with pytest.raises(TypeError, match="lock_timeout"):
        lifespan("store", lock_timeout="20")


async def test_a_store_that_cannot_be_opened(tmp_path: Path) -> None:
    """The application does not start, and the reason is told."""
    async with Store.open(tmp_path / "store"):
        with pytest.raises(RuntimeError, match="already open in this process"):
            async with started(Starlette(lifespan=lifespan(tmp_path / "store", lock_timeout=0))):
                pass


async def test_a_lifespan_of_the_application_that_fails(tmp_path: Path) -> None:
    """The store is closed again when what comes after it does not start."""

    @asynccontextmanager
    async def own(app: Starlette) -> AsyncIterator[None]:
        raise OSError("no port")
        yield

    with pytest.raises(RuntimeError, match="no port"):
        async with started(Starlette(lifespan=lifespan(tmp_path / "store", own))):
            pass
    async with Store.open(tmp_path / "store", lock_timeout=0):
        pass


# its place


async def test_the_dependency_in_fastapi(tmp_path: Path) -> None:
    """A handler that asks for it gets the store."""
    app = FastAPI(lifespan=lifespan(tmp_path / "store"))

    @app.post("/events")
    async def append(store: StoreOfRequest) -> int:
        return (await store.append(b"event")).sequence

    async with started(app) as state:
        assert (await Wire(app, state, "POST", "/events").run()).body == b"0"
        assert (await Wire(app, state, "POST", "/events").run()).body == b"1"


async def test_the_dependency_in_a_websocket(tmp_path: Path) -> None:
    """It serves WebSockets too, and the audit lets them pass."""
    app = FastAPI(lifespan=lifespan(tmp_path / "store"))
    app.add_middleware(AuditMiddleware)

    @app.websocket("/events")
    async def append(websocket: WebSocket, store: StoreOfRequest) -> None:
        await websocket.accept()
        await websocket.send_text(str((await store.append(b"event")).sequence))
        await websocket.close()

    async with started(app) as state:
        wire = Wire(app, state, "GET", "/events", type="websocket", subprotocols=[])
        wire.give({"type": "websocket.connect"})
        await wire.run()
        assert [message.get("text") for message in wire.sent] == [None, "0", None]
    assert (tmp_path / "store").exists()


async def test_the_store_in_starlette(tmp_path: Path) -> None:
    """It is in the state of every request, and `get_store` finds it there."""

    async def append(request: Request[State]) -> Response:
        return JSONResponse((await request.state["store"].append(b"event")).sequence)

    async def count(request: Request) -> Response:
        return JSONResponse((await get_store(request)).next_sequence)

    app = Starlette(
        routes=[
            Mount(
                "/in", routes=[Route("/events", append, methods=["POST"]), Route("/count", count)]
            )
        ],
        lifespan=lifespan(tmp_path / "s"),
    )
    async with started(app) as state:
        assert (await Wire(app, state, "POST", "/in/events").run()).body == b"0"
        assert (await Wire(app, state, "GET", "/in/count").run()).body == b"1"


@pytest.mark.parametrize("state", [None, {}])
async def test_no_store_in_the_state(state: dict[str, Any] | None) -> None:
    """A service that was not given its lifespan is told so, by the dependency and by the
    middleware.
    """
    request = Request({"type": "http"} if state is None else {"type": "http", "state": state})
    with pytest.raises(RuntimeError, match="lifespan"):
        await get_store(request)
    app = AuditMiddleware(PlainTextResponse("done"))
    wire = Wire(app, {}, "GET", "/")
    with pytest.raises(RuntimeError, match="lifespan"):
        await wire.run()
    assert wire.sent == []


# auditing


class Service:
    """An ASGI application under audit, with a store whose disk fails on demand."""

    def __init__(self, path: Path, disk: FailingDisk, store: Store) -> None:
        self.path, self.disk, self.store = path, disk, store

    def wire(
        self,
        app: ASGIApp,
        audit: Audit[Request] | None = None,
        *,
        request: str = "POST /a",
        headers: Any = (),
    ) -> Wire:
        method, target = request.split(" ", 1)
        return Wire(AuditMiddleware(app, audit), {"store": self.store}, method, target, headers)

    async def entries(self) -> list[Entry]:
        """What was stored, without what is never the same twice."""
        with suppress(StoreClosedError, StoreFailedError):
            await self.store.flush()
        return [
            {key: entry[key] for key in entry if key != "duration"}
            for entry in entries_in(self.path)
        ]


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    disk = FailingDisk()
    store = await Store.open(tmp_path / "store", sync_policy=Always(), disk=disk)
    yield Service(tmp_path / "store", disk, store)
    disk.mend()
    with suppress(StoreFailedError):
        await store.aclose()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "aquipu")
    return caplog


class Broken(Exception):
    """What a handler raises."""


DONE = PlainTextResponse("done", 201)
AFTER: Audit[Request] = Audit(commit="after_response")
WHENS: tuple[Literal["before_response", "after_response"], ...] = (
    "before_response",
    "after_response",
)
both_commits = pytest.mark.parametrize("commit", WHENS)
both_errors = pytest.mark.parametrize("on_error", ["fail", "log"])


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the whole body and gives it back."""
    await PlainTextResponse(await Request(scope, receive).body())(scope, receive, send)


def streaming(*pieces: bytes, before: Callable[[int], Awaitable[None]] | None = None) -> ASGIApp:
    """Sends the pieces one by one; ``before`` is awaited before each, and may raise."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number, piece in enumerate(pieces):
            if before is not None:
                await before(number)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


@both_commits
async def test_an_ordinary_request(service: Service, commit: Any) -> None:
    """The client gets what the handler gave, and there is one entry that tells of it."""
    headers = [("Authorization", "secret"), ("Accept", "*/*")]
    wire = await service.wire(
        DONE, Audit(commit=commit), request="POST /a?token=5", headers=headers
    ).run()
    assert (wire.status, wire.body) == (201, b"done")
    (entry,) = await service.entries()
    assert len(entry.pop("id")) == 16
    assert entry == {
        "method": "POST",
        "path": "/a",
        "query": "token=[redacted]",
        "status": 201,
        "actor": None,
        "client": "192.0.2.1",
        "request_headers": {"authorization": "[redacted]", "accept": "*/*"},
        "response_headers": {"content-length": "4", "content-type": "text/plain; charset=utf-8"},
    }


async def test_nothing_is_sent_before_the_entry_is_on_the_disk(service: Service) -> None:
    """The status line waits for the stage of the policy."""
    hold = service.disk.hold("sync")
    wire = service.wire(DONE)
    running = asyncio.create_task(wire.run())
    await asyncio.to_thread(hold.reached.wait)
    assert wire.sent == []
    hold.released.set()
    await running
    assert wire.status == 201
    assert service.store.synced_sequence == 1


async def test_after_the_response_nothing_waits(service: Service) -> None:
    """The client has its answer while the disk is at work; the entry follows."""
    hold = service.disk.hold("sync")
    wire = service.wire(DONE, AFTER)
    running = asyncio.create_task(wire.run())
    await asyncio.to_thread(hold.reached.wait)
    assert wire.body == b"done"
    hold.released.set()
    await running
    assert len(await service.entries()) == 1


async def test_background_work_does_not_delay_the_entry(service: Service) -> None:
    """An entry after the response is stored when that is sent, not when everything behind it is
    done.
    """
    seen: list[int] = []
    response = PlainTextResponse(
        "done", background=BackgroundTask(lambda: seen.append(service.store.next_sequence))
    )
    await service.wire(response, AFTER).run()
    assert seen == [1]


async def test_rules_and_filters(service: Service) -> None:
    """What a rule or the filter before leaves out passes untouched; the filter after sees the
    entry.
    """
    audit = Audit[Request](
        rules=[Rule("POST", "/a*")],
        filter_before=lambda request: "x-probe" not in request.headers,
        filter_after=lambda request, entry: entry["status"] != 404,
    )
    for request, headers in (("GET /a", ()), ("POST /b", ()), ("POST /a", [("X-Probe", "1")])):
        wire = await service.wire(DONE, audit, request=request, headers=headers).run()
        assert wire.status == 201
    await service.wire(PlainTextResponse("", 404), audit, request="POST /ab").run()
    await service.wire(DONE, audit, request="POST /ac").run()
    assert [entry["path"] for entry in await service.entries()] == ["/ac"]


async def test_a_filter_before_the_handler_that_raises(service: Service) -> None:
    """It is an error of the service: the handler does not run."""
    wire = service.wire(DONE, Audit(filter_before=lambda request: 1 / 0 > 0))
    with pytest.raises(ZeroDivisionError):
        await wire.run()
    assert wire.sent == []


async def test_who_asked_is_known_after_the_handler(tmp_path: Path) -> None:
    """Functions of the service see the path parameters and what authentication left in state."""

    def relations(request: Request) -> list[str]:
        return [f"document:{request.path_params['number']}"]

    app = FastAPI(lifespan=lifespan(tmp_path / "store"))
    app.add_middleware(
        AuditMiddleware, audit=Audit(actor=lambda request: request.state.user, relations=relations)
    )

    async def user(request: Request) -> None:
        request.state.user = "ada"

    @app.get("/documents/{number}", dependencies=[Depends(user)])
    async def document(number: int) -> int:
        return number

    async with started(app) as state:
        assert (await Wire(app, state, "GET", "/documents/42").run()).body == b"42"
    assert entries_in(tmp_path / "store")[0]["actor"] == "ada"
    assert labels_in(tmp_path / "store") == [("document:42",)]


@both_errors
async def test_around_a_middleware_of_the_other_kind(tmp_path: Path, on_error: Any) -> None:
    """Beyond a BaseHTTPMiddleware functions see the same, and a response is withheld as well."""
    disk = FailingDisk()
    app = FastAPI(lifespan=lifespan(tmp_path / "store", sync_policy=Always(), disk=disk))

    @app.middleware("http")
    async def named(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        request.state.user = "ada"
        return await call_next(request)

    @app.get("/documents/{number}")
    async def document(number: int) -> int:
        return number

    audit = Audit[Request](
        actor=lambda request: [request.state.user, request.path_params.get("number")],
        request_body=True,
        response_body=True,
        on_error=on_error,
    )
    app.add_middleware(AuditMiddleware, audit=audit)
    async with started(app) as state:
        for target, status in (("/documents/42", 200), ("/documents/no", 422)):
            wire = Wire(app, state, "GET", target)
            wire.give_body()
            assert (await wire.run()).status == status
        disk.fail("write_synced", ENOSPC, forever=True)
        disk.fail("write", ENOSPC, forever=True)
        wire = Wire(app, state, "GET", "/documents/42")
        wire.give_body()
        assert (await wire.run()).status == (503 if on_error == "fail" else 200)
        disk.mend()
    first, second = entries_in(tmp_path / "store")
    assert (first["actor"], second["actor"]) == (["ada", "42"], ["ada", "no"])
    assert first["response_body"]["text"] == "42"


# bodies


@both_commits
async def test_bodies(service: Service, commit: Any) -> None:
    """Both are in the entry when that is asked for, also before the response."""
    wire = service.wire(echo, Audit(commit=commit, request_body=True, response_body=True))
    wire.give_body(b"hello ", b"world")
    assert (await wire.run()).body == b"hello world"
    (entry,) = await service.entries()
    whole = {"bytes": 11, "truncated": False, "text": "hello world"}
    assert (entry["request_body"], entry["response_body"]) == (whole, whole)


@both_commits
async def test_large_bodies(service: Service, commit: Any) -> None:
    """At most the limit is kept, by default 64 KiB of each; the client gets all."""
    wire = service.wire(echo, Audit(commit=commit, request_body=True, response_body=True))
    wire.give_body(*[b"x" * 50_000] * 4)
    assert len((await wire.run()).body) == 200_000
    (entry,) = await service.entries()
    for name in ("request_body", "response_body"):
        assert (entry[name]["bytes"], entry[name]["truncated"], len(entry[name]["text"])) == (
            200_000,
            True,
            65_536,
        )


async def test_a_body_that_is_not_read(service: Service) -> None:
    """What the application does not read is not seen, and the entry says that there may be more."""
    wire = service.wire(DONE, Audit(request_body=True))
    wire.give_body(b"unread")
    await wire.run()
    assert (await service.entries())[0]["request_body"] == {
        "bytes": 0,
        "truncated": True,
        "text": "",
    }


async def test_head(service: Service) -> None:
    """A response to HEAD has no body, whatever the handler gives."""
    wire = await service.wire(DONE, Audit(response_body=True), request="HEAD /a").run()
    assert wire.status == 201
    (entry,) = await service.entries()
    assert entry["method"] == "HEAD"
    assert "response_body" not in entry


@pytest.mark.parametrize("extension", [False, True])
@both_commits
async def test_a_file(service: Service, tmp_path: Path, commit: Any, extension: bool) -> None:
    """A file that the server sends by itself is a whole response, whose bytes are not seen."""
    (tmp_path / "file").write_bytes(b"content")
    wire = service.wire(
        FileResponse(tmp_path / "file"), Audit(commit=commit, response_body=True), request="GET /f"
    )
    if extension:
        wire.scope["extensions"] = {"http.response.pathsend": {}}
    await wire.run()
    assert wire.sent[-1]["type"] == (
        "http.response.pathsend" if extension else "http.response.body"
    )
    (entry,) = await service.entries()
    assert entry["response_body"]["truncated"] is extension
    assert "incomplete" not in entry


# streams


async def test_a_stream_passes_piece_by_piece(service: Service) -> None:
    """Nothing is buffered: each piece is with the client before the next is made."""
    seen: list[int] = []

    async def before(number: int) -> None:
        seen.append(len(wire.sent))

    wire = service.wire(streaming(b"a", b"b", b"c", before=before))
    await wire.run()
    assert seen == [1, 2, 3]
    assert len(await service.entries()) == 1


async def test_the_first_piece_of_a_stream(service: Service) -> None:
    """When response bodies are asked for, the status line waits for it, and the entry before the
    response holds it.
    """
    seen: list[int] = []

    async def before(number: int) -> None:
        seen.append(len(wire.sent))

    wire = service.wire(streaming(b"a", b"b", b"c", before=before), Audit(response_body=True))
    assert (await wire.run()).body == b"abc"
    assert seen == [0, 2, 3]
    (entry,) = await service.entries()
    assert entry["response_body"] == {"bytes": 1, "truncated": True, "text": "a"}


async def test_the_whole_of_a_stream(service: Service) -> None:
    """After the response, all of it is known."""
    await service.wire(
        streaming(b"a", b"b", b"c"), Audit(commit="after_response", response_body=True)
    ).run()
    (entry,) = await service.entries()
    assert entry["response_body"] == {"bytes": 3, "truncated": False, "text": "abc"}


async def test_a_response_that_begins_and_has_no_body(service: Service) -> None:
    """It is passed on as it is, also where its start was held for a body; that it is incomplete is
    said.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    for audit in (Audit[Request](), Audit[Request](response_body=True), AFTER):
        wire = await service.wire(app, audit).run()
        assert (wire.status, len(wire.sent)) == (200, 1)
    outcomes = [
        (entry.get("supplement"), entry.get("incomplete")) for entry in await service.entries()
    ]
    assert outcomes == [(None, None), (True, True), (None, True), (None, True)]


async def test_an_application_that_answers_nothing(service: Service) -> None:
    """Also that is audited; what its client gets is the server's affair."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    await service.wire(app).run()
    (entry,) = await service.entries()
    assert (entry["status"], entry["incomplete"]) == (None, True)


async def test_other_messages_pass(service: Service) -> None:
    """Early hints, trailers and whatever a later ASGI may bring."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.early_hint", "links": []})
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"a"})
        await send({"type": "http.response.trailers", "headers": []})

    wire = await service.wire(app).run()
    assert [message["type"].rpartition(".")[2] for message in wire.sent] == [
        "early_hint",
        "start",
        "body",
        "trailers",
    ]


# errors, disconnects, cancellations


@pytest.mark.parametrize("response_body", [False, True])
@both_commits
async def test_a_handler_that_raises(service: Service, commit: Any, response_body: bool) -> None:
    """The error goes on to whoever makes a response of it, when its entry is stored."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Broken("secret")

    wire = service.wire(app, Audit(commit=commit, response_body=response_body))
    with pytest.raises(Broken, match="secret"):
        await wire.run()
    (entry,) = await service.entries()
    assert (entry["status"], entry["error"], entry["response_headers"]) == (None, "Broken", {})
    assert "secret" not in str(entry)


async def test_a_handler_that_raises_is_answered_with_500_when_its_entry_is_stored(
    tmp_path: Path,
) -> None:
    """Starlette's own answer stands outside of the middleware, and so waits for the entry too."""
    disk = FailingDisk()

    async def handler(request: Request) -> Response:
        raise Broken

    app = Starlette(
        routes=[Route("/a", handler)],
        lifespan=lifespan(tmp_path / "store", sync_policy=Always(), disk=disk),
    )
    app.add_middleware(AuditMiddleware)
    async with started(app) as state:
        hold = disk.hold("sync")
        wire = Wire(app, state, "GET", "/a")
        running = asyncio.create_task(wire.run())
        await asyncio.to_thread(hold.reached.wait)
        assert wire.sent == []
        hold.released.set()
        with pytest.raises(Broken):
            await running
        assert wire.status == 500
    assert entries_in(tmp_path / "store")[0]["error"] == "Broken"


@pytest.mark.parametrize("response_body", [False, True])
async def test_a_handler_that_raises_in_its_response(service: Service, response_body: bool) -> None:
    """The entry was stored before the response began; a second one tells how it ended."""

    async def before(number: int) -> None:
        if number:
            raise Broken

    wire = service.wire(streaming(b"a", b"b", before=before), Audit(response_body=response_body))
    with pytest.raises(Broken):
        await wire.run()
    first, second = await service.entries()
    assert (first["status"], second["status"]) == (200, 200)
    assert "error" not in first
    assert (second["error"], second["supplement"], second["id"]) == ("Broken", True, first["id"])


async def test_a_handler_that_raises_before_the_first_piece(service: Service) -> None:
    """A start that was held has never been sent: the client gets a 500, and the entry does not say
    otherwise.
    """

    async def before(number: int) -> None:
        raise Broken

    wire = service.wire(streaming(b"a", before=before), Audit(response_body=True))
    with pytest.raises(Broken):
        await wire.run()
    assert wire.sent == []
    (entry,) = await service.entries()
    assert (entry["status"], entry["error"]) == (None, "Broken")


async def test_a_handler_that_raises_in_its_response_audited_after(service: Service) -> None:
    """One entry tells all of it."""

    async def before(number: int) -> None:
        if number:
            raise Broken

    with pytest.raises(Broken):
        await service.wire(streaming(b"a", b"b", before=before), AFTER).run()
    (entry,) = await service.entries()
    assert (entry["status"], entry["error"]) == (200, "Broken")


@both_commits
async def test_background_work_that_raises(service: Service, commit: Any) -> None:
    """The response was complete; the error behind it is added."""

    def fail() -> None:
        raise Broken

    wire = service.wire(
        PlainTextResponse("done", background=BackgroundTask(fail)), Audit(commit=commit)
    )
    with pytest.raises(Broken):
        await wire.run()
    assert wire.body == b"done"
    assert [entry.get("error") for entry in await service.entries()] == [None, "Broken"]


@both_commits
async def test_a_client_that_leaves_within_its_request(service: Service, commit: Any) -> None:
    """The handler that reads the body learns of it and raises; that is audited."""
    wire = service.wire(echo, Audit(commit=commit, request_body=True))
    wire.give({"type": "http.request", "body": b"half", "more_body": True})
    wire.leave()
    with pytest.raises(ClientDisconnect):
        await wire.run()
    (entry,) = await service.entries()
    assert (entry["status"], entry["error"], entry["disconnected"]) == (
        None,
        "ClientDisconnect",
        True,
    )
    assert entry["request_body"] == {"bytes": 4, "truncated": True, "text": "half"}


async def endless() -> AsyncIterator[bytes]:
    while True:
        yield b"more"
        await asyncio.sleep(0)


@pytest.mark.parametrize(("commit", "entries"), [("before_response", 2), ("after_response", 1)])
async def test_a_client_that_leaves_within_a_stream(
    service: Service, commit: Any, entries: int
) -> None:
    """The stream ends, and the last entry says why."""
    wire = service.wire(StreamingResponse(endless()), Audit(commit=commit))
    wire.give(END)
    running = asyncio.create_task(wire.run())
    await wire.until(5)
    wire.leave()
    await running
    told = await service.entries()
    assert len(told) == entries
    assert (told[-1]["disconnected"], told[-1]["incomplete"], told[-1]["status"]) == (
        True,
        True,
        200,
    )


async def test_a_client_that_is_gone_when_the_response_is_sent(service: Service) -> None:
    """A server may say so by raising an OSError where a message is sent."""
    wire = service.wire(DONE, AFTER)
    wire.send_error = ConnectionResetError()
    with pytest.raises(ConnectionResetError):
        await wire.run()
    (entry,) = await service.entries()
    assert (entry["disconnected"], entry["error"]) == (True, "ConnectionResetError")


async def test_a_client_that_leaves_after_its_response(service: Service) -> None:
    """That is the end of every request, and nothing to tell of, not even where the handler then
    raises.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await DONE(scope, receive, send)
        await receive()
        raise Broken

    wire = service.wire(app)
    wire.leave()
    with pytest.raises(Broken):
        await wire.run()
    entries = await service.entries()
    assert [(entry.get("error"), "disconnected" in entry) for entry in entries] == [
        (None, False),
        ("Broken", False),
    ]


@both_commits
async def test_a_handler_that_is_cancelled(service: Service, commit: Any) -> None:
    """It ends at once, and its entry is stored."""
    begun = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(service.wire(app, Audit(commit=commit)).run())
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (entry,) = await service.entries()
    assert (entry["status"], entry["cancelled"]) == (None, True)


async def test_a_request_that_is_cancelled_while_its_entry_is_on_its_way(service: Service) -> None:
    """The entry is written all the same, a second one says that its response was not sent, and
    nobody waits.
    """
    hold = service.disk.hold("sync")
    wire = service.wire(DONE)
    running = asyncio.create_task(wire.run())
    await asyncio.to_thread(hold.reached.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    hold.released.set()
    first, second = await service.entries()
    assert wire.sent == []
    assert (first["status"], second["cancelled"], second["supplement"]) == (201, True, True)


# a store that does not take it


def spoil(service: Service, how: str) -> None:
    if how == "full":
        service.disk.fail("write", ENOSPC, forever=True)
    elif how == "failed":
        service.disk.fail("sync", EIO, forever=True)
        service.disk.fail("write_synced", EIO, forever=True)


SPOILT = {"full": StoreFullError, "failed": StoreFailedError, "closed": StoreClosedError}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("response_body", [False, True])
async def test_a_response_without_a_record(
    service: Service, log: pytest.LogCaptureFixture, how: str, response_body: bool
) -> None:
    """With ``fail`` it is withheld: the client gets a 503 that tells nothing of the response, and
    one line is logged.
    """
    spoil(service, how)
    if how == "closed":
        await service.store.aclose()
    wire = await service.wire(
        PlainTextResponse("the secret"), Audit(response_body=response_body)
    ).run()
    assert wire.status == 503
    assert b"secret" not in wire.body
    assert b"could not be recorded" in wire.body
    assert [record.levelname for record in log.records] == ["ERROR"]


@pytest.mark.parametrize("how", SPOILT)
async def test_a_response_that_goes_on_without_a_record(
    service: Service, log: pytest.LogCaptureFixture, how: str
) -> None:
    """With ``log`` the client does not notice."""
    spoil(service, how)
    if how == "closed":
        await service.store.aclose()
    wire = await service.wire(DONE, Audit(on_error="log")).run()
    assert (wire.status, wire.body) == (201, b"done")
    assert [record.levelname for record in log.records] == ["ERROR"]


async def test_a_store_that_has_space_again(service: Service) -> None:
    """The next request is served as if nothing had been."""
    service.disk.fail("write", ENOSPC, forever=True)
    assert (await service.wire(DONE).run()).status == 503
    service.disk.mend()
    assert (await service.wire(DONE).run()).status == 201
    assert [entry["status"] for entry in await service.entries()] == [201]


async def test_a_stream_that_is_withheld(service: Service) -> None:
    """The application is stopped where it sends, also when it does not heed that at first."""
    spoil(service, "full")
    tries = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal tries
        with suppress(Exception):
            await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            tries += 1
            await send({"type": "http.response.body", "body": b"secret", "more_body": True})

    wire = await service.wire(app).run()
    assert (wire.status, tries, len(wire.sent)) == (503, 1, 2)
    wire = await service.wire(StreamingResponse(endless())).run()
    assert (wire.status, len(wire.sent)) == (503, 2)


async def test_an_application_that_does_not_notice(service: Service) -> None:
    """One that swallows what sending raises is not heard any more, and adds no second error."""
    spoil(service, "full")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(Exception):
            await send({"type": "http.response.start", "status": 200, "headers": []})

    wire = await service.wire(app).run()
    assert (wire.status, len(wire.sent)) == (503, 2)


async def test_a_start_that_was_held_to_the_end_is_withheld_too(service: Service) -> None:
    """A response without any body has no record either."""
    spoil(service, "full")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    assert (await service.wire(app, Audit(response_body=True)).run()).status == 503


async def test_background_work_of_a_withheld_response(service: Service) -> None:
    """It is not done: the request has failed."""
    spoil(service, "full")
    seen: list[str] = []
    await service.wire(
        PlainTextResponse("done", background=BackgroundTask(seen.append, "done"))
    ).run()
    assert seen == []


@both_errors
async def test_no_record_after_the_response(
    service: Service, log: pytest.LogCaptureFixture, on_error: Any
) -> None:
    """The client has its answer either way; with ``fail`` the error goes up to the server, behind
    all background work.
    """
    spoil(service, "full")
    seen: list[str] = []
    response = PlainTextResponse("done", background=BackgroundTask(seen.append, "done"))
    wire = service.wire(response, Audit(commit="after_response", on_error=on_error))
    if on_error == "fail":
        with pytest.raises(StoreFullError):
            await wire.run()
    else:
        await wire.run()
    assert (wire.body, seen) == (b"done", ["done"])
    assert [record.levelname for record in log.records] == ["ERROR"]


@both_errors
@both_commits
async def test_no_record_of_an_error(
    service: Service, log: pytest.LogCaptureFixture, commit: Any, on_error: Any
) -> None:
    """The error of the handler comes first; that its entry is missing is logged."""
    spoil(service, "full")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise Broken

    with pytest.raises(Broken):
        await service.wire(app, Audit(commit=commit, on_error=on_error)).run()
    assert [record.levelname for record in log.records] == ["ERROR"]


async def test_a_client_that_is_gone_when_its_response_is_withheld(service: Service) -> None:
    """What the server says of that passes."""
    spoil(service, "full")
    wire = service.wire(DONE)
    wire.send_error = ConnectionResetError()
    with pytest.raises(ConnectionResetError):
        await wire.run()
