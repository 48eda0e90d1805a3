"""Responses of Starlette and FastAPI that come about otherwise: error pages, task groups, requests
without a body.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from errno import ENOSPC
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
import pytest_asyncio
from aiohttp import ClientSession
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aquipu import Always, Store, WrongLoopError
from aquipu.contrib.audit import Audit
from aquipu.contrib.shared.entry import Entry
from aquipu.contrib.starlette import AuditMiddleware, get_store, lifespan
from tests.contrib.support import entries_in, under_uvicorn
from tests.contrib.wire import Wire, started
from tests.disk import FailingDisk
from tests.support import data_in

pytestmark = pytest.mark.asyncio

WHENS = ["before_response", "after_response"]
both_commits = pytest.mark.parametrize("commit", WHENS)
both_bodies = pytest.mark.parametrize("response_body", [False, True])


class Broken(Exception):
    """What a handler raises."""


class Pages:
    """The error pages of an application, and how often they were asked for."""

    def __init__(self, status: int = 500) -> None:
        self.status = status
        self.errors: list[Exception] = []

    def page(self, request: Request, error: Exception) -> Response:
        self.errors.append(error)
        return PlainTextResponse("sorry", self.status, {"x-page": "own"})

    async def waiting(self, request: Request, error: Exception) -> Response:
        await asyncio.sleep(0)
        return self.page(request, error)

    async def __call__(self, request: Request, error: Exception) -> Response:
        return self.page(request, error)


async def broken(request: Request) -> Response:
    raise Broken


async def half(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise Broken

    return StreamingResponse(pieces())


@asynccontextmanager
async def serving(
    app: Starlette, path: Path, disk: FailingDisk | None = None, **audit: Any
) -> AsyncIterator[Callable[[str], Wire]]:
    """The application under audit."""
    app.router.lifespan_context = lifespan(
        path / "store", sync_policy=Always(), disk=disk or FailingDisk()
    )
    app.add_middleware(AuditMiddleware, audit=Audit(**audit))
    async with started(app) as state:
        yield lambda target: Wire(app, state, "GET", target)


def entries(path: Path) -> list[Entry]:
    return entries_in(path / "store")


# error pages


@both_commits
@both_bodies
@pytest.mark.parametrize("registered", [500, Exception])
@pytest.mark.parametrize("kind", ["page", "waiting", "__call__"])
async def test_an_error_page_of_the_application(
    tmp_path: Path, commit: str, response_body: bool, registered: Any, kind: str
) -> None:
    """The one entry has the response that the client got, and the error; the page is made once; the
    server hears of it.
    """
    pages = Pages()
    handler = pages if kind == "__call__" else getattr(pages, kind)
    app = Starlette(routes=[Route("/a", broken)], exception_handlers={registered: handler})
    async with serving(app, tmp_path, commit=commit, response_body=response_body) as wire:
        request = wire("/a")
        with pytest.raises(Broken):
            await request.run()
    assert (request.status, request.body, len(pages.errors)) == (500, b"sorry", 1)
    (entry,) = entries(tmp_path)
    assert (entry["status"], entry["error"], entry["response_headers"]["x-page"]) == (
        500,
        "Broken",
        "own",
    )
    assert "supplement" not in entry
    if response_body:
        assert entry["response_body"] == {"bytes": 5, "truncated": False, "text": "sorry"}


async def test_an_error_page_of_fastapi(tmp_path: Path) -> None:
    """As in Starlette, with a status of its own."""
    pages = Pages(503)
    app = FastAPI()
    app.add_api_route("/a", broken)
    app.add_exception_handler(Exception, pages.page)
    async with serving(app, tmp_path) as wire:
        for _ in range(2):
            with suppress(Broken):
                await wire("/a").run()
    assert [entry["status"] for entry in entries(tmp_path)] == [503, 503]
    assert len(pages.errors) == 2


async def test_an_error_page_without_a_record(tmp_path: Path) -> None:
    """It is withheld as any other response."""
    disk, pages = FailingDisk(), Pages()
    app = Starlette(routes=[Route("/a", broken)], exception_handlers={Exception: pages.page})
    async with serving(app, tmp_path, disk) as wire:
        disk.fail("write", ENOSPC, forever=True)
        request = wire("/a")
        with pytest.raises(Broken):
            await request.run()
        disk.mend()
    assert (request.status, len(request.sent)) == (503, 2)


async def test_an_error_page_that_fails(tmp_path: Path) -> None:
    """The entry says what is known, and what happens is what Starlette makes of that."""

    def failing(request: Request, error: Exception) -> Response:
        raise LookupError

    app = Starlette(routes=[Route("/a", broken)], exception_handlers={Exception: failing})
    async with serving(app, tmp_path) as wire:
        request = wire("/a")
        with pytest.raises(LookupError):
            await request.run()
    (entry,) = entries(tmp_path)
    assert (entry["status"], entry["error"], request.status) == (None, "Broken", None)


@pytest.mark.parametrize("debug", [False, True])
async def test_without_an_error_page(tmp_path: Path, debug: bool) -> None:
    """What Starlette gives by itself is made further out, and its status is not guessed."""
    handlers: dict[Any, Any] = {Exception: Pages().page} if debug else {}
    app = Starlette(debug=debug, routes=[Route("/a", broken)], exception_handlers=handlers)
    async with serving(app, tmp_path) as wire:
        with suppress(Broken):
            await wire("/a").run()
    (entry,) = entries(tmp_path)
    assert (entry["status"], entry["error"]) == (None, "Broken")


async def test_an_error_behind_the_beginning_of_a_response(tmp_path: Path) -> None:
    """No page can be sent any more; a supplement says what happened."""
    pages = Pages()
    app = Starlette(routes=[Route("/a", half)], exception_handlers={Exception: pages.page})
    async with serving(app, tmp_path) as wire:
        request = wire("/a")
        with suppress(Broken):
            await request.run()
    first, second = entries(tmp_path)
    assert (first["status"], second["error"], second["supplement"]) == (200, "Broken", True)
    assert b"sorry" not in request.body


async def test_the_page_of_an_application_below(tmp_path: Path) -> None:
    """Each application has its own page: the audit of the upper one sees that of the lower as any
    response.
    """
    lower = Starlette(routes=[Route("/a", broken)], exception_handlers={Exception: Pages(501).page})
    app = Starlette(routes=[Mount("/below", lower)], exception_handlers={Exception: Pages().page})
    async with serving(app, tmp_path) as wire:
        request = wire("/below/a")
        with suppress(Broken):
            await request.run()
    assert (request.status, request.body) == (501, b"sorry")
    assert {entry["status"] for entry in entries(tmp_path)} == {501}
    assert entries(tmp_path)[-1]["error"] == "Broken"


async def test_a_request_that_is_not_audited_has_its_page(tmp_path: Path) -> None:
    """An error that was shown under audit, and is raised again without, is shown again."""
    same = Broken()
    pages = Pages()

    async def again(request: Request) -> Response:
        raise same

    app = Starlette(routes=[Route("/a", again)], exception_handlers={Exception: pages.page})
    async with serving(
        app, tmp_path, filter_before=lambda request: "audited" in request.query_params
    ) as wire:
        for target in ("/a?audited", "/a"):
            request = wire(target)
            with suppress(Broken):
                await request.run()
            assert request.body == b"sorry"
    assert len(pages.errors) == 2


# responses that are withheld


async def answer(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"secret"})


async def in_a_task_group(scope: Scope, receive: Receive, send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(answer(send))


async def in_a_nursery(scope: Scope, receive: Receive, send: Send) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(in_a_task_group, scope, receive, send)
        await anyio.sleep_forever()


async def alone(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send)


@pytest_asyncio.fixture
async def full(tmp_path: Path) -> AsyncIterator[Store]:
    """A store without space."""
    disk = FailingDisk()
    async with Store.open(tmp_path / "store", sync_policy=Always(), disk=disk) as store:
        disk.fail("write", ENOSPC, forever=True)
        yield store
        disk.mend()


@pytest.mark.parametrize("app", [alone, in_a_task_group, in_a_nursery])
async def test_a_response_withheld_in_a_task_group(full: Store, app: ASGIApp) -> None:
    """Nothing went wrong in the application, so nothing comes out of it."""
    wire = await Wire(AuditMiddleware(app), {"store": full}, "GET", "/a").run()
    assert (wire.status, len(wire.sent)) == (503, 2)


async def test_another_error_in_the_same_task_group(full: Store) -> None:
    """What the application itself raises is not swallowed with it."""

    async def stumble() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise Broken

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(answer(send))
            group.create_task(stumble())

    with pytest.raises(ExceptionGroup) as caught:
        await Wire(AuditMiddleware(app), {"store": full}, "GET", "/a").run()
    assert caught.value.subgroup(Broken) is not None


async def test_the_server_has_nothing_to_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Under uvicorn a withheld response is a 503, and no exception in the application."""
    disk = FailingDisk()
    app = Starlette(
        routes=[Mount("/group", in_a_nursery)],
        lifespan=lifespan(tmp_path / "store", sync_policy=Always(), disk=disk),
    )
    app.add_middleware(AuditMiddleware)
    async with under_uvicorn(app) as port, ClientSession(f"http://127.0.0.1:{port}") as client:
        disk.fail("write", ENOSPC, forever=True)
        caplog.set_level(logging.DEBUG, "uvicorn.error")
        async with client.get("/group/a") as response:
            assert response.status == 503
            assert b"secret" not in await response.read()
        disk.mend()
    assert [record.name for record in caplog.records if record.levelno >= logging.ERROR] == [
        "aquipu.contrib.audit"
    ]


# endpoints in worker threads


async def test_a_synchronous_endpoint(tmp_path: Path) -> None:
    """What cannot work in a worker thread raises an error that names what does; and that works as
    it is written there.
    """

    def wrong(store: Annotated[Store, Depends(get_store)]) -> list[str]:
        said = []
        for call in (
            lambda: asyncio.run(store.sync()),
            lambda: store.append_nowait(b"lost"),
            store.scan,
        ):
            with pytest.raises(WrongLoopError) as caught:
                call()
            said.append(str(caught.value))
        return said

    def right(store: Annotated[Store, Depends(get_store)]) -> int:
        anyio.from_thread.run(partial(store.append, b"one", relations=("user:7",)))
        return anyio.from_thread.run(store.append, b"two").sequence

    app = FastAPI(lifespan=lifespan(tmp_path / "store"))
    app.add_api_route("/wrong", wrong)
    app.add_api_route("/right", right)
    async with started(app) as state:
        said = json.loads((await Wire(app, state, "GET", "/wrong").run()).body)
        assert json.loads((await Wire(app, state, "GET", "/right").run()).body) == 1
    assert all(
        "anyio.from_thread.run(store.append, data)" in message and "async def" in message
        for message in said
    )
    assert len(said) == 3
    assert data_in(tmp_path / "store") == [b"one", b"two"]


# requests without a body


@pytest.mark.parametrize(
    ("version", "headers", "is_whole"),
    [
        ("1.1", [], True),
        ("1.0", [], True),
        ("1.1", [("content-length", "0")], True),
        ("2", [("content-length", "0")], True),
        ("2", [], False),
        ("1.1", [("content-length", "5")], False),
        ("1.1", [("transfer-encoding", "chunked")], False),
        ("1.1", [("content-length", "10")], False),
    ],
)
async def test_a_body_that_nobody_reads(
    tmp_path: Path, version: str, headers: list[tuple[str, str]], is_whole: bool
) -> None:
    """If the head of the request says that there is none, nothing is missing from the entry."""
    app = AuditMiddleware(PlainTextResponse("done"), Audit(request_body=True))
    async with Store.open(tmp_path / "store") as store:
        await Wire(app, {"store": store}, "POST", "/a", headers, http_version=version).run()
    (entry,) = entries(tmp_path)
    assert entry["request_body"] == {"bytes": 0, "truncated": not is_whole, "text": ""}


async def test_a_body_that_comes_all_the_same(tmp_path: Path) -> None:
    """What is read is there, whatever the head had said."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await answer(send)

    async with Store.open(tmp_path / "store") as store:
        wire = Wire(AuditMiddleware(app, Audit(request_body=True)), {"store": store}, "POST", "/a")
        wire.give({"type": "http.request", "body": b"half", "more_body": True})
        await wire.run()
    assert entries(tmp_path)[0]["request_body"] == {"bytes": 4, "truncated": True, "text": "half"}
