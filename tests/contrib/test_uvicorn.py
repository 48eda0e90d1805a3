"""Requests audited under uvicorn, over real HTTP: what the server of `wire` stands for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from errno import ENOSPC
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from aquipu import Always
from aquipu.contrib.audit import Audit
from aquipu.contrib.starlette import AuditMiddleware, lifespan
from tests.contrib.support import entries_in, under_uvicorn
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio

both_commits = pytest.mark.parametrize("commit", ["before_response", "after_response"])


async def whole(request: Request) -> Response:
    return PlainTextResponse(await request.body(), 201)


async def stream(request: Request) -> Response:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"more"
            await asyncio.sleep(0)

    return StreamingResponse(endless())


async def broken(request: Request) -> Response:
    raise ValueError


@asynccontextmanager
async def serving(path: Path, disk: FailingDisk, http: str, **audit: Any) -> AsyncIterator[int]:
    """The service on the loopback, until the end of the block: its port."""
    app = Starlette(
        routes=[
            Route("/whole", whole, methods=["POST"]),
            Route("/stream", stream),
            Route("/broken", broken),
        ],
        lifespan=lifespan(path, sync_policy=Always(), disk=disk),
    )
    app.add_middleware(AuditMiddleware, audit=Audit(**audit))
    async with under_uvicorn(app, http=http) as port:
        yield port


@pytest.fixture(params=["h11", "httptools"])
def http(request: pytest.FixtureRequest) -> str:
    """The parsers that uvicorn may use, which tell of clients that leave in ways of their own."""
    if request.param == "httptools":
        pytest.importorskip("httptools")
    return str(request.param)


@both_commits
async def test_a_request_and_its_entry(tmp_path: Path, http: str, commit: Any) -> None:
    """The client gets what the handler gave; the entry has both bodies."""
    async with serving(
        tmp_path / "store",
        FailingDisk(),
        http,
        commit=commit,
        request_body=True,
        response_body=True,
    ) as port:
        async with ClientSession(f"http://127.0.0.1:{port}") as client:
            async with client.post(
                "/whole?token=5", data=b"hello", headers={"Cookie": "secret"}
            ) as response:
                assert (response.status, await response.read()) == (201, b"hello")
            async with client.get("/broken") as response:
                assert response.status == 500
    first, second = entries_in(tmp_path / "store")
    assert (first["status"], first["client"], first["query"]) == (
        201,
        "127.0.0.1",
        "token=[redacted]",
    )
    assert first["request_headers"]["cookie"] == "[redacted]"
    assert (
        first["request_body"]
        == first["response_body"]
        == {"bytes": 5, "truncated": False, "text": "hello"}
    )
    assert (second["status"], second["error"]) == (None, "ValueError")


@pytest.mark.parametrize(("commit", "entries"), [("before_response", 2), ("after_response", 1)])
async def test_a_client_that_leaves_within_a_stream(
    tmp_path: Path, http: str, commit: Any, entries: int
) -> None:
    """The stream ends, and the last entry says that the client had left."""
    async with serving(tmp_path / "store", FailingDisk(), http, commit=commit) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"more")
        writer.transport.abort()
    told = entries_in(tmp_path / "store")
    assert len(told) == entries
    assert (told[-1]["status"], told[-1]["disconnected"], told[-1]["incomplete"]) == (
        200,
        True,
        True,
    )


async def test_a_response_without_a_record(tmp_path: Path, http: str) -> None:
    """It is withheld, on a connection that goes on to serve when there is space again."""
    disk = FailingDisk()
    async with (
        serving(tmp_path / "store", disk, http) as port,
        ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        disk.fail("write", ENOSPC, forever=True)
        async with client.post("/whole", data=b"secret") as response:
            assert response.status == 503
            assert b"secret" not in await response.read()
        async with client.get("/stream") as response:
            assert response.status == 503
            assert b"more" not in await response.read()
        disk.mend()
        async with client.post("/whole", data=b"hello") as response:
            assert response.status == 201
    assert [entry["status"] for entry in entries_in(tmp_path / "store")] == [201]
