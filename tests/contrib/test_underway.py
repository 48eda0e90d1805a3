"""Requests that are under way when the service is told to end: their entries come before the store
is closed.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Event, Task
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aquipu import Store
from aquipu.contrib.aiohttp import audit_requests, opened
from aquipu.contrib.shared import underway
from aquipu.contrib.shared.underway import UnderWay, requests_of
from aquipu.contrib.starlette import AuditMiddleware, lifespan
from tests.contrib.support import entries_in
from tests.contrib.wire import Wire, started

pytestmark = pytest.mark.asyncio

TURNS = 20


class Slow:
    """A handler that is there for ever, and when it is cancelled for some turns of the loop."""

    def __init__(self) -> None:
        self.entered = Event()
        self.may_end = Event()

    async def wait(self) -> None:
        self.entered.set()
        try:
            await self.may_end.wait()
        finally:
            for _ in range(TURNS):
                await asyncio.sleep(0)


@asynccontextmanager
async def serving(slow: Slow, path: Path) -> AsyncIterator[Task[Any]]:
    """A request that is under way in a Starlette application, which is shut down at the end."""

    async def handler(request: Request) -> Response:
        await slow.wait()
        return Response()

    app = Starlette(routes=[Route("/", handler)], lifespan=lifespan(path))
    app.add_middleware(AuditMiddleware)
    async with started(app) as state:
        running = asyncio.create_task(Wire(app, state, "GET", "/").run())
        await slow.entered.wait()
        yield running


async def test_cancelled_in_the_moment_of_the_shutdown(tmp_path: Path) -> None:
    """What a server cancels when it shuts the application down leaves its entry."""
    slow = Slow()
    async with serving(slow, tmp_path / "store") as running:
        running.cancel()
    with pytest.raises(CancelledError):
        await running
    (entry,) = entries_in(tmp_path / "store")
    assert (entry["path"], entry["cancelled"]) == ("/", True)


async def test_cancelled_in_the_moment_of_the_cleanup(tmp_path: Path) -> None:
    """So does what aiohttp cancels when it has waited long enough."""
    slow = Slow()

    async def handler(request: web.Request) -> web.Response:
        await slow.wait()
        return web.Response()

    app = web.Application()
    app.cleanup_ctx.append(opened(tmp_path / "store"))
    app.router.add_get("/", handler)
    audit_requests(app)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        asking = asyncio.create_task(client.get("/"))
        await slow.entered.wait()
        await runner.cleanup()
        await asyncio.wait([asking])
        asking.exception()
    (entry,) = entries_in(tmp_path / "store")
    assert (entry["path"], entry["cancelled"]) == ("/", True)


async def test_a_request_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not keep the store from being closed for ever; what it answers then is withheld."""
    monkeypatch.setattr(underway, "SECONDS", 0.01)
    slow = Slow()
    async with serving(slow, tmp_path / "store") as running:
        pass
    slow.may_end.set()
    assert (await running).status == 503
    assert entries_in(tmp_path / "store") == []


async def test_the_requests_of_a_store(tmp_path: Path) -> None:
    """They are waited for until the last one has ended, whatever ended it; those of another store
    are not.
    """
    async with Store.open(tmp_path / "one") as one, Store.open(tmp_path / "two") as two:
        under_way = requests_of(one)
        assert requests_of(one) is under_way is not requests_of(two)
        await under_way.ended()
        with under_way:
            waiting = asyncio.create_task(under_way.ended())
            with pytest.raises(ValueError, match="of the handler"), under_way:
                raise ValueError("of the handler")
            await asyncio.sleep(0)
            assert not waiting.done()
            await requests_of(two).ended()
        await waiting


async def test_requests_begin_again() -> None:
    """After the last one has ended another may come."""
    under_way = UnderWay()
    with under_way:
        pass
    with under_way:
        waiting = asyncio.create_task(under_way.ended())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting


async def test_the_last_request_ends_the_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is closed as soon as the last request has ended, and not only when the patience
    with them has.
    """
    monkeypatch.setattr(underway, "SECONDS", 1e6)
    under_way = UnderWay()
    with under_way, under_way:
        waiting = asyncio.create_task(under_way.ended())
        await asyncio.sleep(0)
    await asyncio.wait_for(waiting, 60)
