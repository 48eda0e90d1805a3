"""A rule means what the router sees: whatever spelling of a path runs a handler, that request is
audited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from fastapi import FastAPI
from starlette._utils import get_route_path
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from aquipu.contrib.aiohttp import audit_requests, opened
from aquipu.contrib.audit import REQUESTS_PER_RULE, Audit, Coverage, Rule
from aquipu.contrib.starlette import AuditMiddleware, _route_path, lifespan
from tests.contrib.support import entries_in, under_uvicorn
from tests.contrib.wire import Wire, started

pytestmark = pytest.mark.asyncio

SIGN = Rule("POST", "/documents/*/sign")


class Signed(list[str]):
    """The documents that were signed: each of them must have left an entry."""

    async def sign(self, request: Request) -> Response:
        self.append(request.path_params["document"])
        return PlainTextResponse("signed")

    @property
    def routes(self) -> list[Route]:
        return [Route("/documents/{document}/sign", self.sign, methods=["POST"])]

    def serve(self, app: FastAPI) -> None:
        app.add_route("/documents/{document}/sign", self.sign, methods=["POST"])


@pytest.fixture
def signed() -> Signed:
    return Signed()


def at(root_path: str, path: Path) -> FastAPI:
    """As ``FastAPI(root_path=)``, of which later versions warn."""
    app = FastAPI(lifespan=lifespan(path / "store"))
    app.root_path = root_path
    return app


async def answers(port: int, *targets: str) -> list[int]:
    """The status of a POST for each of these, which are sent as they stand."""
    statuses = []
    for target in targets:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        statuses.append(int((await reader.read()).split(b" ", 2)[1]))
        writer.close()
    return statuses


def paths_in(path: Path) -> list[str]:
    return [entry["path"] for entry in entries_in(path)]


# Starlette and FastAPI


async def test_a_root_path_of_the_server(tmp_path: Path, signed: Signed) -> None:
    """``uvicorn --root-path`` puts it before the path: the router takes it off, so does a rule."""
    app = Starlette(routes=signed.routes, lifespan=lifespan(tmp_path / "store"))
    app.add_middleware(AuditMiddleware, audit=Audit(rules=[SIGN]))
    async with under_uvicorn(app, root_path="/api") as port:
        assert await answers(port, "/documents/1/sign") == [200]
    assert signed == ["1"]
    assert paths_in(tmp_path / "store") == ["/api/documents/1/sign"]


def added(app: FastAPI) -> ASGIApp:
    app.add_middleware(AuditMiddleware, audit=Audit(rules=[SIGN]))
    return app


def around(app: FastAPI) -> ASGIApp:
    return AuditMiddleware(app, Audit(rules=[SIGN]))


def around_others(app: FastAPI) -> ASGIApp:
    return AuditMiddleware(GZipMiddleware(GZipMiddleware(app)), Audit(rules=[SIGN]))


@pytest.mark.parametrize("audited", [added, around, around_others])
async def test_a_root_path_of_the_application(
    tmp_path: Path, signed: Signed, audited: Callable[[FastAPI], ASGIApp]
) -> None:
    """With ``FastAPI(root_path=)`` the client may write it or not: both are audited, whatever
    middleware stands between.
    """
    app = at("/api", tmp_path)
    signed.serve(app)
    async with under_uvicorn(audited(app)) as port:
        assert await answers(port, "/documents/1/sign", "/api/documents/2/sign") == [200, 200]
    assert signed == ["1", "2"]
    assert paths_in(tmp_path / "store") == ["/documents/1/sign", "/api/documents/2/sign"]


@pytest.mark.parametrize("prefix", ["/v1", "/v1/deeper", "/{tenant}", "/with space"])
async def test_a_mounted_application(tmp_path: Path, signed: Signed, prefix: str) -> None:
    """Its rules are written as its routes are, without the prefix; rules with the prefix go on to
    audit as well.
    """
    target = prefix.replace("{tenant}", "acme").replace(" ", "%20")
    whole = Rule("POST", f"{target.replace('%20', ' ')}/documents/2/*")
    sub = Starlette(routes=signed.routes)
    sub.add_middleware(
        AuditMiddleware, audit=Audit(rules=[Rule("POST", "/documents/1/sign"), whole])
    )
    app = Starlette(routes=[Mount(prefix, sub)], lifespan=lifespan(tmp_path / "store"))
    async with under_uvicorn(app) as port:
        assert await answers(
            port, *(f"{target}/documents/{number}/sign" for number in (1, 2, 3))
        ) == [200, 200, 200]
    assert signed == ["1", "2", "3"]
    assert [path[-7:] for path in paths_in(tmp_path / "store")] == ["/1/sign", "/2/sign"]


SPELLINGS = [
    "/documents/7/sign",
    "/documents/7/sign%0A",
    "/documents/7/sign%0a",
    "/documents/7/%73ign",
    "/%64ocuments/7/sign",
    "/documents/7%0A/sign",
    "/documents/%E2%80%8D/sign",
    "/documents/7/sign?x=1",
    "/documents/7/sign/",
    "//documents/7/sign",
    "/documents//sign",
    "/documents/7%2Fsign",
    "/documents%2F7/sign",
    "/./documents/7/sign",
    "/documents/7/sign;x=1",
    "/documents/7/sign%00",
    "/documents/7/sign%0D%0A",
    "/documents/7/sign%0A%0A",
    "/api/documents/7/sign%0A",
    "/api%2Fdocuments/7/sign",
    "/%61pi/documents/7/sign",
    "/api/api/documents/7/sign",
    "/DOCUMENTS/7/sign",
    "http://localhost/documents/7/sign",
]


@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_spellings_of_a_path(
    tmp_path: Path, signed: Signed, root_path: str, http: str
) -> None:
    """Whatever the client makes of the path: the handler does not run without an entry."""
    pytest.importorskip(http)
    app = at(root_path, tmp_path)
    signed.serve(app)
    app.add_middleware(AuditMiddleware, audit=Audit(rules=[SIGN]))
    async with under_uvicorn(app, http=http) as port:
        await answers(port, *SPELLINGS)
    assert len(signed) > 5
    assert "7\n" in signed
    assert len(paths_in(tmp_path / "store")) >= len(signed)


async def test_a_rule_that_leaves_out_means_one_spelling(tmp_path: Path, signed: Signed) -> None:
    """What a rule leaves out is what it names, as the router sees it, and nothing that only looks
    like it from outside.
    """
    app = at("/api", tmp_path)
    signed.serve(app)
    leaves_out = Rule("*", "/api/*", audited=False)
    app.add_middleware(AuditMiddleware, audit=Audit(rules=[leaves_out]))
    async with started(app) as state:
        for path in ("/documents/1/sign", "/api/documents/2/sign", "/documents/3/sign\n"):
            await Wire(app, state, "POST", path).run()
    assert signed == ["1", "2", "3"]
    assert len(paths_in(tmp_path / "store")) == 3


async def test_the_path_that_the_router_sees() -> None:
    """It is found as Starlette finds it."""
    paths = ["", "/", "/a", "/a/", "/a/b", "/ab", "//a", "/a//b", "/A/b", "a"]
    for path, root_path in product(paths, ["", "/", "/a", "/a/", "/a/b"]):
        assert _route_path(path, root_path) == get_route_path(
            {"path": path, "root_path": root_path}
        ), (path, root_path)


# aiohttp


@asynccontextmanager
async def under_aiohttp(app: web.Application) -> AsyncIterator[int]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def signing(signed: list[str]) -> web.Application:
    async def sign(request: web.Request) -> web.Response:
        signed.append(request.match_info["document"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/documents/{document}/sign", sign)
    return app


@pytest.mark.parametrize("depth", [1, 2])
async def test_an_application_below_another(tmp_path: Path, signed: Signed, depth: int) -> None:
    """As in Starlette, its rules are written as its routes are; with the prefix they audit too."""
    sub = signing(signed)
    whole = Rule("POST", "/below" * depth + "/documents/2/*")
    audit_requests(sub, Audit(rules=[Rule("POST", "/documents/1/sign"), whole]))
    app = sub
    for _ in range(depth):
        above = web.Application()
        above.add_subapp("/below", app)
        app = above
    app.cleanup_ctx.append(opened(tmp_path / "store"))
    target = "/below" * depth
    async with under_aiohttp(app) as port:
        assert await answers(
            port, *(f"{target}/documents/{number}/sign" for number in (1, 2, 3))
        ) == [200, 200, 200]
    assert signed == ["1", "2", "3"]
    assert [path[-7:] for path in paths_in(tmp_path / "store")] == ["/1/sign", "/2/sign"]


async def test_a_slash_that_is_none(tmp_path: Path, signed: Signed) -> None:
    """To aiohttp's router an escaped slash is part of a name: a rule that leaves out a path below
    does not mean it.
    """
    app = signing(signed)
    app.cleanup_ctx.append(opened(tmp_path / "store"))
    audit_requests(app, Audit(rules=[Rule("*", "/documents/*/preview/sign", audited=False), SIGN]))
    async with under_aiohttp(app) as port:
        assert await answers(port, "/documents/7%2Fpreview/sign", "/documents/7/sign") == [200, 200]
    assert signed == ["7/preview", "7"]
    assert len(paths_in(tmp_path / "store")) == 2


# a rule that matches nothing


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "aquipu")
    return caplog


async def test_a_rule_that_never_matches_is_said(log: pytest.LogCaptureFixture) -> None:
    """After a hundred requests, once, with what may be wrong."""
    coverage: Coverage[None] = Coverage(
        Audit(rules=[Rule("GET", "/a"), Rule("POST", "/b"), Rule("PUT", "/c")])
    )
    coverage.covers("POST", "/b")
    for _ in range(REQUESTS_PER_RULE - 2):
        coverage.covers("GET", "/other")
    assert log.messages == []
    coverage.covers("GET", "/other")
    first, second = log.messages
    assert (
        "Rule(methods='GET', path='/a', audited=True) has decided about none of 100 requests so far"
        in first
    )
    assert "'/c'" in second
    assert "root_path" in first
    coverage.say()
    for _ in range(200):
        coverage.covers("GET", "/other")
    assert len(log.messages) == 2


@pytest.mark.parametrize("matched", ["as it is", "in another spelling"])
async def test_rules_that_match_are_not_said(log: pytest.LogCaptureFixture, matched: str) -> None:
    """However late, and however it matched."""
    coverage: Coverage[None] = Coverage(Audit(rules=[Rule("GET", "/a")]))
    for _ in range(REQUESTS_PER_RULE - 1):
        coverage.covers("GET", "/other")
    coverage.covers("GET", *(["/a"] if matched == "as it is" else ["/other", "/a"]))
    coverage.say()
    assert log.messages == []


async def test_a_rule_behind_one_that_takes_all(log: pytest.LogCaptureFixture) -> None:
    """It decides about nothing, so it is said too."""
    coverage: Coverage[None] = Coverage(
        Audit(rules=[Rule("*"), Rule("GET", "/health", audited=False)])
    )
    coverage.covers("GET", "/health")
    coverage.say()
    assert ["/health" in message for message in log.messages] == [True]


async def test_a_service_without_requests(log: pytest.LogCaptureFixture) -> None:
    """Nothing passed, so nothing is said."""
    Coverage(Audit[None](rules=[Rule("GET", "/a")])).say()
    assert log.messages == []


@pytest.mark.parametrize("framework", ["starlette", "aiohttp"])
async def test_the_end_of_a_service(
    tmp_path: Path, signed: Signed, log: pytest.LogCaptureFixture, framework: str
) -> None:
    """A service that has had few requests says it when it ends."""
    audit: Audit[Any] = Audit(rules=[Rule("POST", "/wrong/*")])
    if framework == "starlette":
        asgi = Starlette(routes=signed.routes, lifespan=lifespan(tmp_path / "store"))
        asgi.add_middleware(AuditMiddleware, audit=audit)
        async with under_uvicorn(asgi) as port:
            await answers(port, "/documents/1/sign")
    else:
        app = signing(signed)
        app.cleanup_ctx.append(opened(tmp_path / "store"))
        audit_requests(app, audit)
        async with under_aiohttp(app) as port:
            await answers(port, "/documents/1/sign")
    (message,) = [
        record.getMessage() for record in log.records if record.name == "aquipu.contrib.audit"
    ]
    assert "'/wrong/*'" in message
    assert "the only request so far" in message
