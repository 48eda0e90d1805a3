"""How services begin and end, with the servers that people use: under load, told by signals.

Whatever happens: who was answered has its record, once; all processes end; nothing is said of tasks
or loops that were left behind; and the store can be opened at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM
from typing import NamedTuple

import pytest

import aquipu
from aquipu import Reader, Record, Store
from aquipu.examples import fastapi_service
from benchmarks.servers import free_port, wait_until_reachable
from tests.services.kills import judge
from tests.services.load import Load
from tests.services.server import Server, started, until

pytestmark = [pytest.mark.proof, pytest.mark.asyncio]

_LEFT_BEHIND = re.compile(
    r"loop is closed|was destroyed|never retrieved|never awaited|could not be stored"
)
_TRACEBACK = re.compile(r"Traceback \(most.*\n((?:[ +|].*\n|\n)*)([\w.]+)")
_PACKAGE = str(Path(aquipu.__file__).parent)
_INTERRUPTIONS = {"asyncio.exceptions.CancelledError", "KeyboardInterrupt"}

UVICORN = ("uvicorn", "tests.services.fastapi_app:app", "--port", "{port}", "--no-access-log")
AIOHTTP = ("tests.services.aiohttp_app", "{port}")
GUNICORN = ("gunicorn", "--bind", "127.0.0.1:{port}", "--no-control-socket", "--worker-class")
SINGLE = {
    "uvicorn": (*UVICORN, "--loop", "asyncio", "--timeout-graceful-shutdown", "{patience}"),
    "aiohttp": (*AIOHTTP, "{patience}"),
}
if find_spec("uvloop"):
    SINGLE["uvicorn on uvloop"] = (
        *UVICORN,
        "--loop",
        "uvloop",
        "--timeout-graceful-shutdown",
        "{patience}",
    )
WORKERS = {
    "uvicorn": (*GUNICORN, "uvicorn_worker.UvicornWorker", "tests.services.fastapi_app:app"),
    "aiohttp": (*GUNICORN, "aiohttp.GunicornWebWorker", "tests.services.aiohttp_app:app"),
}
CONNECTED = (
    "uvicorn",
    "tests.services.fastapi_app:connected",
    "--port",
    "{port}",
    "--no-access-log",
)
DAEMON = ("aquipu", "serve", "audit", "--socket", "audit.sock", "--sync-policy", "always")

single = pytest.mark.parametrize("command", SINGLE.values(), ids=list(SINGLE))
workers = pytest.mark.parametrize("command", WORKERS.values(), ids=list(WORKERS))


@contextmanager
def serving(
    directory: Path, command: tuple[str, ...], patience: int = 3600
) -> Iterator[tuple[Server, int]]:
    """A service and its port. It waits so many seconds for its requests when it is told to end."""
    port = free_port()
    with started(
        directory, *(word.format(port=port, patience=patience) for word in command)
    ) as server:
        wait_until_reachable(server.process, port, command[0])
        yield server, port


@asynccontextmanager
async def idle_connection(port: int) -> AsyncIterator[None]:
    """A client that keeps its connection and asks nothing more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    yield
    writer.close()


@asynccontextmanager
async def stream(port: int) -> AsyncIterator[None]:
    """A client with a response that does not end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    await reader.readuntil(b"more")
    yield
    writer.close()


async def until_refused(port: int, server: Server) -> None:
    """Wait until it listens no more: it has heard that it is to end."""

    def refused() -> bool | None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            return True
        return None

    await until(refused, server)


class Left(NamedTuple):
    """What a service has left behind."""

    entries: list[dict[str, object]]
    is_closed: bool

    @property
    def of_the_stream(self) -> list[dict[str, object]]:
        """What its entries say of its end, in their order.

        Requests that were under way beside it may have been cancelled behind it.
        """
        return [
            {name: entry.get(name) for name in ("cancelled", "supplement")}
            for entry in self.entries
            if entry["path"] == "/stream"
        ]


async def left_behind(directory: Path, load: Load) -> Left:
    """The store, which can be opened at once, and in which everybody who was answered has one
    entry.
    """
    async with Store.open(directory / "audit", lock_timeout=0) as store:
        is_closed = store.recovery.clean
    async with Reader.open(directory / "audit") as reader:
        found = [record async for record in reader.scan()]
    assert list(judge(load.answered, filter(_is_signature, found))) == []
    return Left([json.loads(record.data) for record in found], is_closed)


def _is_signature(record: Record) -> bool:
    """Not what was cancelled before it had a response, or what is told of it afterwards."""
    entry = json.loads(record.data)
    return entry["status"] == 201 and "supplement" not in entry


def raised(server: Server) -> set[str]:
    """The errors whose tracebacks it has shown.

    Of what was left behind it must not speak at all.
    """
    assert not _LEFT_BEHIND.search(server.said)
    return {error for _, error in _TRACEBACK.findall(server.said)}


def raised_here(server: Server) -> set[str]:
    """Those that were raised in aquipu itself, and not by an interruption.

    What is interrupted shows a lot.
    """
    assert not _LEFT_BEHIND.search(server.said)
    shown = [
        (frames.rpartition('File "')[2], error) for frames, error in _TRACEBACK.findall(server.said)
    ]
    return {error for place, error in shown if place.startswith(_PACKAGE)} - _INTERRUPTIONS


@single
async def test_told_to_end(tmp_path: Path, command: tuple[str, ...]) -> None:
    """SIGTERM: what is under way is answered, and the store is closed."""
    with serving(tmp_path, command) as (server, port):
        async with Load(port) as load, idle_connection(port):
            server.hears(SIGTERM)
            assert await server.ended() in (0, -SIGTERM)
    assert raised(server) == set()
    assert "<Store" not in server.said
    assert (await left_behind(tmp_path, load)).is_closed


@single
async def test_a_stream_outlasts_the_patience_of_its_server(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """SIGTERM: the stream is cancelled by the server in the moment in which the store is closed,
    and its entry says so.
    """
    with serving(tmp_path, command, patience=1) as (server, port):
        async with Load(port) as load, stream(port):
            server.hears(SIGTERM)
            assert await server.ended() in (0, -SIGTERM)
    assert raised_here(server) == set()
    left = await left_behind(tmp_path, load)
    assert left.of_the_stream[-1] == {"cancelled": True, "supplement": True}
    assert left.is_closed


@single
async def test_interrupted_twice(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Ctrl-C, and again while it waits for a stream: the server ends without its shutdown, and the
    store is closed.
    """
    with serving(tmp_path, command) as (server, port):
        async with Load(port, forced=True) as load, idle_connection(port), stream(port):
            server.hears(SIGINT)
            await until_refused(port, server)
            server.hears(SIGINT)
            assert await server.ended() in (0, 1, -SIGINT)
    assert raised_here(server) == set()
    left = await left_behind(tmp_path, load)
    assert left.of_the_stream[-1]["cancelled"] is True
    assert left.is_closed


@single
async def test_interrupted_until_it_ends(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Ctrl-C without a pause, also into the closing of the store and the interpreter's exit.

    uvloop's own closing, which comes behind that of the store, is left alone: interrupted, it may
    wait for ever for a handle that it has not closed.
    """
    with serving(tmp_path, command) as (server, port):
        async with Load(port, forced=True) as load, stream(port):

            def interrupted() -> int | None:
                if "uvloop" not in command or "Finished server process" not in server.said:
                    server.hears(SIGINT)
                return server.process.poll()

            await until(interrupted, server, pause=0.002)
            await server.ended()
    assert raised_here(server) == set()
    await left_behind(tmp_path, load)


@pytest.mark.parametrize("number", [SIGHUP, SIGKILL], ids=["SIGHUP", "SIGKILL"])
async def test_gone_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """The terminal is closed, or somebody insists: uvicorn has no say in it."""
    with serving(tmp_path, SINGLE["uvicorn"]) as (server, port):
        async with Load(port) as load:
            server.hears(number)
            assert await server.ended() == -number
    assert raised(server) == set()
    await left_behind(tmp_path, load)


@workers
async def test_workers_of_gunicorn_replace_each_other(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """HUP: the new worker starts, and waits for the store as long as the old one has a stream. One
    that is killed is replaced. TERM: the last one closes the store.
    """
    with serving(tmp_path, command) as (server, port):
        async with Load(port) as load:
            async with stream(port):
                old = holder(tmp_path)
                server.hears(SIGHUP)
                await server.until_said("Booting worker", 2)
                assert holder(tmp_path) == old
            new = await until(lambda: holder(tmp_path, but=old), server)
            await load.answers()
            os.kill(new, SIGKILL)
            await until(lambda: holder(tmp_path, but=new), server)
            await load.answers()
            server.hears(SIGTERM)
            assert await server.ended() == 0
    assert raised(server) == set()
    assert "<Store" not in server.said
    assert (await left_behind(tmp_path, load)).is_closed


def holder(directory: Path, *, but: int | None = None) -> int | None:
    """The pid of the process that writes the store, if it is not this one."""
    text = (directory / "audit" / "lock").read_text()
    return int(text) if text and int(text) != but else None


async def test_reload(tmp_path: Path) -> None:
    """A file of the service changes: the new process takes the store over from the old one."""
    file = Path(shutil.copy(fastapi_service.__file__, tmp_path / "service.py"))
    command = ("uvicorn", "service:app", "--reload", "--port", "{port}", "--no-access-log")
    with serving(tmp_path, command) as (server, port):
        async with Load(port) as load:
            old = holder(tmp_path)

            def changed() -> int | None:
                """Again, since the reloader may not have looked before."""
                file.touch()
                return holder(tmp_path, but=old)

            await until(changed, server, pause=0.5)
            await load.answers()
            server.hears(SIGTERM)
            assert await server.ended() == 0
    assert raised(server) == set()
    assert "<Store" not in server.said
    assert (await left_behind(tmp_path, load)).is_closed


@pytest.mark.timeout(600)  # nine starts of a process, one after another
async def test_four_workers_with_a_daemon(tmp_path: Path) -> None:
    """The daemon is told to end, or killed, and comes back: requests wait and are answered. A
    worker is killed; all are replaced by HUP; all are told to end. The store is the daemon's, and
    nothing in it is there twice.
    """
    command = (*CONNECTED, "--workers", "4", "--timeout-worker-healthcheck", "45")
    with started(tmp_path, *DAEMON) as first:
        await first.until_said("is served at")
        with serving(tmp_path, command) as (server, port):
            pids = await server.until_said(r"Started server process \[(\d+)\]", 4)
            await server.until_said("Application startup complete", 4)
            async with Load(port) as load:
                first.hears(SIGTERM)
                assert await first.ended() == 0
                with started(tmp_path, *DAEMON) as second:
                    await load.answers()
                    second.hears(SIGKILL)
                    await second.ended()
                    with started(tmp_path, *DAEMON) as third:
                        await load.answers()
                        os.kill(int(pids[0]), SIGKILL)
                        await server.until_said("Application startup complete", 5)
                        server.hears(SIGHUP)
                        await server.until_said("Finished server process", 4)
                        await load.answers()
                        server.hears(SIGTERM)
                        assert await server.ended() == 0
                        third.hears(SIGTERM)
                        assert await third.ended() == 0
    assert [raised(each) for each in (server, third)] == [set(), set()]
    assert "Store" not in server.said
    assert (await left_behind(tmp_path, load)).is_closed


@pytest.mark.timeout(300)
async def test_workers_with_threads_and_a_daemon(tmp_path: Path) -> None:
    """Flask under three workers of eight threads, of which one after another is killed under load:
    who was answered has a record, and nobody has two.
    """
    command = (
        *("gunicorn", "--bind", "127.0.0.1:{port}", "--no-control-socket"),
        *("--workers", "3", "--threads", "8", "tests.services.flask_app:connected"),
    )
    with started(tmp_path, *DAEMON) as daemon:
        await daemon.until_said("is served at")
        with serving(tmp_path, command) as (server, port):
            async with Load(port) as load:
                for number in range(10):
                    pids = await server.until_said(r"Booting worker with pid: (\d+)", 3 + number)
                    await load.answers()
                    os.kill(int(pids[number]), SIGKILL)
                await load.answers()
                server.hears(SIGTERM)
                assert await server.ended() == 0
        daemon.hears(SIGTERM)
        assert await daemon.ended() == 0
    assert raised(server) == set()
    assert "Store" not in server.said
    assert (await left_behind(tmp_path, load)).is_closed


async def test_interrupted_twice_while_the_daemon_is_away(tmp_path: Path) -> None:
    """Ctrl-C, and again while it waits for requests that wait for the daemon: the service ends
    without it.
    """
    with started(tmp_path, *DAEMON) as daemon:
        await daemon.until_said("is served at")
        with serving(tmp_path, CONNECTED) as (server, port):
            async with Load(port, forced=True) as load:
                daemon.hears(SIGKILL)
                await daemon.ended()
                server.hears(SIGINT)
                await until_refused(port, server)
                server.hears(SIGINT)
                assert await server.ended() == 0
    assert not re.search(r"loop is closed|was destroyed|never awaited", server.said)
    await left_behind(tmp_path, load)
