"""A store in aiohttp's server: its life, its place, and requests audited, all over real HTTP on the
loopback.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest
from aiohttp import (
    ClientConnectionError,
    ClientPayloadError,
    ClientResponse,
    ClientSession,
    FormData,
    web,
)
from aiohttp.typedefs import Handler

from aquipu import Always, Store, StoreClosedError, StoreFailedError
from aquipu.contrib.aiohttp import STORE, audit_requests, opened
from aquipu.contrib.audit import Audit, Rule
from aquipu.contrib.shared.entry import Entry
from aquipu.remote.daemon.server import Daemon
from tests.contrib.support import entries_in, labels_in
from tests.disk import FailingDisk
from tests.support import data_in

pytestmark = pytest.mark.asyncio

WHENS = ("before_response", "after_response")
both_commits = pytest.mark.parametrize("commit", WHENS)
both_errors = pytest.mark.parametrize("on_error", ["fail", "log"])


class Broken(Exception):
    """What a handler raises."""


class Service:
    """An application that serves on the loopback, its store on a disk that fails on demand, and a
    client.
    """

    def __init__(
        self,
        path: Path,
        disk: FailingDisk,
        app: web.Application,
        runner: web.AppRunner,
        client: ClientSession,
    ):
        self.path, self.disk, self.app, self.runner, self.client = path, disk, app, runner, client

    @property
    def store(self) -> Store:
        return self.app[STORE]

    @property
    def port(self) -> int:
        return int(self.runner.addresses[0][1])

    async def entries(self) -> list[Entry]:
        """What was stored, when the service has ended, without what is never the same twice."""
        self.disk.mend()
        with suppress(StoreFailedError):
            await self.runner.cleanup()
        return [
            {key: entry[key] for key in entry if key != "duration"}
            for entry in entries_in(self.path)
        ]

    def spoil(self) -> None:
        """From now on the disk has no space."""
        self.disk.fail("write", ENOSPC, forever=True)


@asynccontextmanager
async def serving(
    path: Path, handler: Handler, audit: Audit[web.Request] | None = None, **options: Any
) -> AsyncIterator[Service]:
    """Every request below / goes to the handler, under audit."""
    disk = FailingDisk()
    app = web.Application()
    app.cleanup_ctx.append(opened(path / "store", sync_policy=Always(), disk=disk))
    audit_requests(app, audit)
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, **options)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        yield Service(path / "store", disk, app, runner, client)
    disk.mend()
    with suppress(StoreFailedError):
        await runner.cleanup()  # once more, if the test has done so


async def done(request: web.Request) -> web.Response:
    return web.Response(text="done", status=201)


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


def streaming(
    *pieces: bytes, before: Callable[[int], Awaitable[None]] | None = None, compress: bool = False
) -> Handler:
    """Sends the pieces one by one; ``before`` is awaited before each, and may raise."""

    async def handler(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse()
        if compress:
            response.enable_compression(web.ContentCoding.gzip)
        await response.prepare(request)
        for number, piece in enumerate(pieces):
            if before is not None:
                await before(number)
            await response.write(piece)
        return response

    return handler


async def answer(response: ClientResponse) -> tuple[int, bytes]:
    return response.status, await response.read()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "aquipu")
    return caplog


def said(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in log.records if record.name.startswith("aquipu")]


# the life of the store, and its place


async def test_a_store_lives_as_long_as_the_application(tmp_path: Path) -> None:
    """It is open from startup to cleanup, in the application and in those below it, and closed
    after that.

    One below may be audited by itself, in the store of the one above.
    """

    async def append(request: web.Request) -> web.Response:
        return web.json_response((await request.config_dict[STORE].append(b"event")).sequence)

    below = web.Application()
    below.router.add_post("/events", append)
    audit_requests(below)
    app = web.Application()
    app.cleanup_ctx.append(opened(tmp_path / "store"))
    app.add_subapp("/below", below)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    store = app[STORE]
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        async with client.post("/below/events") as response:
            assert await response.json() == 0
    await runner.cleanup()
    with pytest.raises(StoreClosedError):
        await store.append(b"too late")
    assert [json.loads(data)["path"] for data in data_in(tmp_path / "store")[1:]] == [
        "/below/events"
    ]


async def test_two_stores(tmp_path: Path) -> None:
    """Each has a key of its own, and either may come from an opener."""
    events = web.AppKey("events", Store)
    app = web.Application()
    app.cleanup_ctx.append(opened(lambda: Store.open(tmp_path / "store")))
    app.cleanup_ctx.append(opened(tmp_path / "events", key=events))
    runner = web.AppRunner(app)
    await runner.setup()
    assert app[STORE].path != app[events].path
    await runner.cleanup()


async def test_a_store_in_another_process(tmp_path: Path) -> None:
    """One that a daemon writes is opened and written by the audit as any other."""
    app = web.Application()
    app.cleanup_ctx.append(opened(lambda: Store.connect(f"unix:{tmp_path}/socket")))
    audit_requests(app)
    app.router.add_get("/", done)
    async with Store.open(tmp_path / "store", sync_policy=Always()) as store:
        async with Daemon.open(store, f"{tmp_path}/socket"):
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            async with (
                ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client,
                client.get("/") as response,
            ):
                assert await answer(response) == (201, b"done")
                assert store.synced_sequence == 1
            await runner.cleanup()


async def test_an_option_that_cannot_be() -> None:
    """It is refused where the application is put together."""
    with pytest.raises(TypeError, match="lock_timeout"):
        opened("store", lock_timeout="20")


async def test_no_store_in_the_application(caplog: pytest.LogCaptureFixture) -> None:
    """A service that was not given its context says so at its first request, which gets a 500."""
    app = web.Application()
    audit_requests(app)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with (
        ClientSession() as client,
        client.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as response,
    ):
        assert response.status == 500
    await runner.cleanup()
    assert "cleanup_ctx" in caplog.text


# auditing


@both_commits
async def test_an_ordinary_request(tmp_path: Path, commit: Any) -> None:
    """The client gets what the handler gave, and there is one entry that tells of it."""
    async with serving(tmp_path, done, Audit(commit=commit)) as service:
        async with service.client.post(
            "/a%20b?token=5", headers={"Authorization": "secret"}
        ) as response:
            assert await answer(response) == (201, b"done")
        (entry,) = await service.entries()
    assert (entry["method"], entry["path"], entry["query"], entry["status"], entry["client"]) == (
        "POST",
        "/a b",
        "token=[redacted]",
        201,
        "127.0.0.1",
    )
    assert entry["request_headers"]["authorization"] == "[redacted]"
    assert entry["response_headers"]["content-type"].startswith("text/plain")
    assert not {"error", "disconnected", "incomplete", "supplement", "request_body"} & set(entry)


@pytest.mark.parametrize("handler", [done, streaming(b"done")], ids=["whole", "stream"])
async def test_nothing_is_sent_before_the_entry_is_on_the_disk(
    tmp_path: Path, handler: Handler
) -> None:
    """The status line waits for the stage of the policy, also that of a response that is sent piece
    by piece.
    """
    async with serving(tmp_path, handler) as service:
        hold = service.disk.hold("sync")
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.to_thread(hold.reached.wait)
        reading = asyncio.create_task(reader.read(1))
        for _ in range(
            20
        ):  # turns of the loop, within which anything that had been sent would have come
            await asyncio.sleep(0)
        assert not reading.done()
        hold.released.set()
        assert await reading == b"H"
        assert service.store.synced_sequence == 1
        writer.close()


async def test_after_the_response_nothing_waits(tmp_path: Path) -> None:
    """The client has its answer while the disk is at work; the entry follows."""
    async with serving(tmp_path, done, Audit(commit="after_response")) as service:
        hold = service.disk.hold("sync")
        async with service.client.get("/") as response:
            assert await answer(response) == (201, b"done")
        hold.released.set()
        assert len(await service.entries()) == 1


async def test_rules_filters_and_functions(tmp_path: Path) -> None:
    """What a rule or a filter leaves out passes untouched; actor and relations are taken from the
    request.
    """

    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=404 if request.path.endswith("no") else 200)

    audit = Audit[web.Request](
        rules=[Rule("POST", "/a*")],
        filter_before=lambda request: "X-Probe" not in request.headers,
        filter_after=lambda request, entry: entry["status"] != 404,
        actor=lambda request: request.headers["X-User"],
        relations=lambda request: [f"path:{request.match_info['tail']}"],
    )
    async with serving(tmp_path, handler, audit) as service:
        for method, path, headers in (
            ("GET", "/a", {}),
            ("POST", "/b", {}),
            ("POST", "/a", {"X-Probe": "1"}),
            ("POST", "/ano", {"X-User": "eve"}),
            ("POST", "/ayes", {"X-User": "ada"}),
        ):
            async with service.client.request(method, path, headers=headers) as response:
                assert response.status in (200, 404)
        (entry,) = await service.entries()
    assert (entry["path"], entry["actor"], labels_in(service.path)) == (
        "/ayes",
        "ada",
        [("path:ayes",)],
    )


@both_commits
async def test_what_other_middlewares_do_is_seen(tmp_path: Path, commit: Any) -> None:
    """The audit stands before them all."""

    @web.middleware
    async def teapot(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        response.set_status(418)
        response.set_cookie("session", "secret")
        return response

    app = web.Application(middlewares=[teapot])
    app.cleanup_ctx.append(opened(tmp_path / "store"))
    audit_requests(app, Audit(commit=commit))
    app.router.add_get("/", done)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with (
        ClientSession() as client,
        client.get(f"http://127.0.0.1:{runner.addresses[0][1]}/") as response,
    ):
        assert response.status == 418
        assert response.cookies["session"].value == "secret"
    await runner.cleanup()
    (entry,) = entries_in(tmp_path / "store")
    assert (entry["status"], entry["response_headers"]["set-cookie"]) == (418, "[redacted]")


@both_commits
@pytest.mark.parametrize("path", ["/raise", "/nowhere"])
async def test_an_answer_that_is_raised(tmp_path: Path, commit: Any, path: str) -> None:
    """An HTTPException is a response like any other, also when no route was found."""

    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPForbidden if request.path == "/raise" else web.HTTPNotFound

    async with serving(tmp_path, handler, Audit(commit=commit)) as service:
        async with service.client.get(path) as response:
            assert response.status == (403 if path == "/raise" else 404)
        (entry,) = await service.entries()
    assert entry["status"] == response.status
    assert not {"error", "incomplete", "supplement"} & set(entry)


# bodies


@both_commits
async def test_bodies(tmp_path: Path, commit: Any) -> None:
    """Both are in the entry when that is asked for, up to the limit."""
    async with serving(
        tmp_path, echo, Audit(commit=commit, request_body=True, response_body=True)
    ) as service:
        for body in (b"hello", b"", b"x" * 200_000):
            async with service.client.post("/", data=body) as response:
                assert await answer(response) == (200, body)
        for entry, size in zip(await service.entries(), (5, 0, 200_000), strict=True):
            for name in ("request_body", "response_body"):
                seen = entry[name]
                assert (seen["bytes"], seen["truncated"], len(seen["text"])) == (
                    size,
                    size > 65_536,
                    min(size, 65_536),
                )


async def test_bodies_that_pass_piece_by_piece(tmp_path: Path) -> None:
    """They are not held up to be seen: only their size is told, and that they are not all here."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        return response

    audit = Audit[web.Request](commit="after_response", request_body=True, response_body=True)
    async with serving(tmp_path, handler, audit) as service:
        async with service.client.post("/", data=b"hello") as response:
            assert await answer(response) == (200, b"hello")
        (entry,) = await service.entries()
    assert entry["request_body"] == {"bytes": 5, "truncated": True, "text": ""}
    assert entry["response_body"]["truncated"] is True


async def test_a_form_with_a_file(tmp_path: Path) -> None:
    """A multipart body is taken piece by piece by the framework."""

    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=",".join(await request.post()))

    async with serving(tmp_path, handler, Audit(request_body=True)) as service:
        form = FormData({"name": "ada"})
        form.add_field("file", b"content", filename="file")
        async with service.client.post("/", data=form) as response:
            assert await answer(response) == (200, b"name,file")
        (entry,) = await service.entries()
    assert entry["request_body"]["truncated"] is True
    assert entry["request_body"]["bytes"] > 7


async def test_a_body_that_is_not_read(tmp_path: Path) -> None:
    """The middleware does not wait for what the handler does not want."""
    async with serving(tmp_path, done, Audit(request_body=True), lingering_time=0.0) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf")
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")
        writer.close()
        (entry,) = await service.entries()
    assert entry["request_body"] == {"bytes": 0, "truncated": True, "text": ""}


@pytest.mark.parametrize("how", ["answered", "raised", "cancelled"])
async def test_a_request_without_a_body(tmp_path: Path, how: str) -> None:
    """Nothing is missing from its entry, whether it was read or not."""
    begun = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        if how == "raised":
            raise Broken
        if how == "cancelled":
            await asyncio.Event().wait()
        return web.Response()

    async with serving(
        tmp_path, handler, Audit(request_body=True), handler_cancellation=True
    ) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await begun.wait()
        if how != "cancelled":  # else there may be a supplement: the client has gone meanwhile
            await reader.readline()
        writer.transport.abort()
        (entry,) = await service.entries()
    assert entry["request_body"] == {"bytes": 0, "truncated": False, "text": ""}


@both_commits
@pytest.mark.parametrize(("name", "status"), [("file", 200), ("none", 404)])
async def test_a_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, commit: Any, name: str, status: int
) -> None:
    """What becomes of it is known when it is sent, and that is what the entry says.

    The connection goes on to serve.
    """
    (tmp_path / "file").write_bytes(b"content")
    clients: set[object] = set()

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        clients.add(request.transport.get_extra_info("peername"))
        return web.FileResponse(tmp_path / name)

    async with serving(tmp_path, handler, Audit(commit=commit, response_body=True)) as service:
        async with service.client.get("/") as response:
            assert await answer(response) == (status, b"content" if status == 200 else b"")
        async with service.client.get("/", headers={"Range": "bytes=1-3"}) as response:
            assert await answer(response) == (
                206 if status == 200 else 404,
                b"ont" if status == 200 else b"",
            )
        entries = await service.entries()
    assert [entry["status"] for entry in entries] == ([200, 206] if status == 200 else [404, 404])
    assert not any({"incomplete", "supplement"} & set(entry) for entry in entries)
    assert len(clients) == 1
    assert "Traceback" not in caplog.text


@both_commits
async def test_head(tmp_path: Path, commit: Any) -> None:
    """A response to HEAD has no body."""
    async with serving(tmp_path, done, Audit(commit=commit, response_body=True)) as service:
        async with service.client.head("/") as response:
            assert response.status == 201
        (entry,) = await service.entries()
    assert "response_body" not in entry


# streams, errors, disconnects, cancellations


@both_commits
async def test_a_stream_passes_piece_by_piece(tmp_path: Path, commit: Any) -> None:
    """Each piece is with the client before the next is made."""
    received = asyncio.Semaphore(1)

    async def before(number: int) -> None:
        await received.acquire()

    async with serving(
        tmp_path, streaming(b"a", b"b", b"c", before=before), Audit(commit=commit)
    ) as service:
        async with service.client.get("/") as response:
            pieces = []
            async for piece in response.content.iter_any():
                pieces.append(piece)
                received.release()
        assert pieces == [b"a", b"b", b"c"]
        (entry,) = await service.entries()
    assert entry["status"] == 200


@both_commits
async def test_a_websocket(tmp_path: Path, commit: Any) -> None:
    """It is a request whose response is 101."""

    async def handler(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("hello")
        await socket.close()
        return socket

    async with serving(tmp_path, handler, Audit(commit=commit)) as service:
        async with service.client.ws_connect("/") as socket:
            assert await socket.receive_str() == "hello"
            await socket.receive()
        entries = await service.entries()
    assert [entry["status"] for entry in entries] == [101]


@both_commits
async def test_a_handler_that_raises(tmp_path: Path, commit: Any) -> None:
    """The client gets its 500 when the entry is stored."""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        raise Broken("secret")

    async with serving(tmp_path, handler, Audit(commit=commit, request_body=True)) as service:
        async with service.client.post("/", data=b"hello") as response:
            assert response.status == 500
            assert service.store.synced_sequence == 1
        (entry,) = await service.entries()
    assert (entry["status"], entry["error"], entry["request_body"]["text"]) == (
        None,
        "Broken",
        "hello",
    )
    assert "secret" not in str(entry)


@pytest.mark.parametrize(("commit", "entries"), [("before_response", 2), ("after_response", 1)])
async def test_a_handler_that_raises_in_its_response(
    tmp_path: Path, commit: Any, entries: int
) -> None:
    """The last entry tells how it ended."""

    async def before(number: int) -> None:
        if number:
            raise Broken

    audit = Audit[web.Request](commit=commit, request_body=True)
    async with serving(tmp_path, streaming(b"a", b"b", before=before), audit) as service:
        with pytest.raises(ClientPayloadError):
            async with service.client.post("/", data=b"hello") as response:
                await response.read()
        told = await service.entries()
    assert [entry.get("error") for entry in told] == [None, "Broken"][-entries:]
    assert [entry["request_body"]["text"] for entry in told] == ["hello"] * entries
    assert told[-1].get("supplement", False) is (entries == 2)


@pytest.mark.parametrize(("commit", "entries"), [("before_response", 2), ("after_response", 1)])
async def test_a_client_that_leaves_within_a_stream(
    tmp_path: Path, commit: Any, entries: int
) -> None:
    """The handler is told when it writes, and the last entry says why it ended."""
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"more")
                await asyncio.sleep(0)
        finally:
            ended.set()

    async with serving(tmp_path, handler, Audit(commit=commit)) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"more")
        writer.transport.abort()
        await ended.wait()
        told = await service.entries()
    assert len(told) == entries
    assert told[-1]["disconnected"] is True
    assert told[-1]["error"].endswith("Error")


@both_commits
async def test_a_client_that_leaves_before_its_response(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, commit: Any
) -> None:
    """The handler goes on to its end; that nobody was there any more is in the entry."""
    left, begun = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        await left.wait()
        while request.transport is not None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return web.Response()

    async with serving(tmp_path, handler, Audit(commit=commit)) as service:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await begun.wait()
        writer.transport.abort()
        left.set()
        (entry,) = await service.entries()
    assert (entry["status"], entry["disconnected"]) == (200, True)
    assert entry.get("incomplete", False) is (commit == "after_response")
    assert "Traceback" not in caplog.text


async def test_a_handler_that_is_cancelled(tmp_path: Path) -> None:
    """A server that cancels the handlers of clients that have left: the entry is stored and says
    both.
    """
    begun = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        await asyncio.Event().wait()
        return web.Response()

    async with serving(tmp_path, handler, handler_cancellation=True) as service:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await begun.wait()
        writer.transport.abort()
        async with service.store.follow() as records:
            await anext(records)
        (entry,) = await service.entries()
    assert (entry["status"], entry["cancelled"], entry["disconnected"]) == (None, True, True)


# a store that does not take it


@pytest.mark.parametrize("breaks", [False, True])
async def test_a_response_withheld_in_a_task_group(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, breaks: bool
) -> None:
    """It is withheld as any other, and no error of the handler; an error of its own beside it is
    one.
    """

    async def beside() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            if breaks:
                raise Broken

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        async with asyncio.TaskGroup() as group:
            group.create_task(beside())
            group.create_task(response.prepare(request))
        return response

    async with serving(tmp_path, handler) as service:
        service.spoil()
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).split()[1] == (b"500" if breaks else b"503")
        writer.close()
    assert ("Traceback" in caplog.text) is breaks


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", ["whole", "stream", "raised", "file"])
async def test_a_response_without_a_record(
    tmp_path: Path, log: pytest.LogCaptureFixture, kind: str, compress: bool
) -> None:
    """It is withheld: the client gets a 503 that tells nothing of it, on a connection that goes on
    to serve.
    """
    (tmp_path / "file").write_bytes(b"secret" * 100)

    async def handler(request: web.Request) -> web.StreamResponse:
        if kind == "stream":
            return await streaming(b"secret" * 100, compress=compress)(request)
        if kind == "raised":
            raise web.HTTPFound("/secret", headers={"X-Secret": "secret"})
        response = (
            web.FileResponse(tmp_path / "file")
            if kind == "file"
            else web.Response(body=b"secret" * 100)
        )
        if compress:
            response.enable_compression(web.ContentCoding.gzip)
        return response

    async with serving(tmp_path, handler) as service:
        service.spoil()
        for _ in range(2):
            async with service.client.get("/", allow_redirects=False) as response:
                status, body = await answer(response)
                assert status == 503
                assert b"could not be recorded" in body
                assert "secret" not in str(response.headers)
        assert said(log) == ["ERROR", "ERROR"]
        service.disk.mend()
        async with service.client.get("/", allow_redirects=False) as response:
            assert response.status in (200, 302)
            await response.read()
        assert len(await service.entries()) == 1


@pytest.mark.parametrize("how", ["full", "failed", "closed"])
@pytest.mark.parametrize("handler", [done, streaming(b"done")], ids=["whole", "stream"])
@both_errors
async def test_a_store_that_takes_nothing(
    tmp_path: Path, log: pytest.LogCaptureFixture, handler: Handler, how: str, on_error: Any
) -> None:
    """With ``log`` the client does not notice; with ``fail`` it gets a 503. One line is logged."""
    async with serving(tmp_path, handler, Audit(on_error=on_error)) as service:
        if how == "closed":
            await service.store.aclose()
        elif how == "failed":
            service.disk.fail("sync", EIO, forever=True)
        else:
            service.spoil()
        async with service.client.get("/") as response:
            status, body = await answer(response)
    assert (status == 503, body == b"done") == (on_error == "fail", on_error == "log")
    assert said(log) == ["ERROR"]


async def test_a_handler_that_does_not_heed_it(tmp_path: Path) -> None:
    """What it answers in place of the response that was withheld has no record either, and does not
    go out.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            return await streaming(b"secret")(request)
        except web.HTTPException:
            return web.Response(text="secret")

    async with serving(tmp_path, handler) as service:
        service.spoil()
        async with service.client.get("/") as response:
            status, body = await answer(response)
    assert status == 503
    assert b"secret" not in body


@both_errors
async def test_no_record_after_the_response(
    tmp_path: Path, log: pytest.LogCaptureFixture, on_error: Any
) -> None:
    """The client has its answer either way; with ``fail`` the server logs the error as well."""
    async with serving(
        tmp_path, done, Audit(commit="after_response", on_error=on_error)
    ) as service:
        service.spoil()
        async with service.client.get("/") as response:
            assert await answer(response) == (201, b"done")
        await service.runner.cleanup()
    assert said(log) == ["ERROR"]
    assert ("Error handling request" in log.text) is (on_error == "fail")


@both_errors
async def test_no_record_of_an_error(
    tmp_path: Path, log: pytest.LogCaptureFixture, on_error: Any
) -> None:
    """The error of the handler comes first; that its entry is missing is logged."""

    async def handler(request: web.Request) -> web.Response:
        raise Broken

    async with serving(tmp_path, handler, Audit(on_error=on_error)) as service:
        service.spoil()
        with suppress(ClientConnectionError):
            async with service.client.get("/") as response:
                assert response.status == 500
    assert said(log) == ["ERROR"]
    assert "Broken" in log.text
