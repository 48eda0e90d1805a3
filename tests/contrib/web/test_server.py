"""The server of `aquipu web`: connections that ask for nothing, or take nothing, and many of them.

``python -m tests.contrib.web.test_server 10000`` holds so many open against the command, and says
what it has cost.
"""

from __future__ import annotations

import asyncio
import re
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import pytest

from aquipu import Always, Store
from aquipu.contrib import sse
from aquipu.contrib.streaming.live import live_of
from aquipu.contrib.web import api, server
from aquipu.contrib.web.app import app
from aquipu.contrib.web.server import Bounded, address_of, listening, serve
from tests.callers import tick
from tests.cli.support import COMMAND, run

ASK = b"GET /api/records HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SHOWN = re.compile(r"aquipu: .* is shown at http://127\.0\.0\.1:([0-9]+)/\n")


@asynccontextmanager
async def served(store: Store, *, write: bool = False) -> AsyncIterator[int]:
    """The store, shown by the server of the command: its port."""
    stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with listening("127.0.0.1", 0) as place:
        running = asyncio.create_task(serve(app(store, write=write), place, stopped))
        try:
            yield place.getsockname()[1]
        finally:
            stopped.set_result(None)
            await running


async def answer(port: int, asked: bytes = ASK) -> bytes:
    """What comes back, up to the end of the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asked)
    found = await reader.read()
    writer.close()
    return found


async def half_open(port: int, begin: bytes = b"GET /") -> asyncio.StreamWriter:
    """A connection on which no whole request ever comes."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)
    return writer


@pytest.mark.asyncio
async def test_connections_without_a_request_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When there are too many, the oldest of them goes for a new one, and that is answered."""
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 50)
    async with Store.open(tmp_path / "store") as store, served(store) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        assert (await answer(port)).startswith(b"HTTP/1.1 200")
        for reader, _ in held[:150]:
            with suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 5) == b""
        for _, writer in held:
            writer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "begin",
    [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: y", ASK[:-2].replace(b"close", b"x")],
)
async def test_a_connection_without_a_request_is_closed(
    begin: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some seconds, however much of its head has come."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.02)
    async with Store.open(tmp_path / "store") as store, served(store) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


@pytest.mark.asyncio
async def test_who_asks_for_much_and_takes_nothing_has_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long answer is given to the server piece by piece, so many at a time, and not for ever."""
    monkeypatch.setattr(sse, "PATIENCE", 0.05)
    monkeypatch.setattr(api, "PATIENCE", 0.05)
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.05)
    async with Store.open(tmp_path / "store") as store, served(store) as port:
        await store.append(bytes(16 * 1024 * 1024))
        asked = ASK.replace(b"/api/records", b"/api/records/0/data")
        held = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            writer.write(asked)
            held.append((reader, writer))
        for reader, _ in held:
            with suppress(ConnectionError):  # it has had its piece, and is hung up on
                await asyncio.wait_for(reader.read(1), 60)
        for room in (sse, api, server):  # for the next one, who takes what it is given, as it can
            monkeypatch.setattr(room, "IDLE_SECONDS" if room is server else "PATIENCE", 60)
        assert len(await asyncio.wait_for(answer(port, asked), 60)) > 16 * 1024 * 1024
        for _, writer in held:
            writer.close()


@pytest.mark.asyncio
async def test_a_follower_that_takes_nothing_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was sent last is dropped with it: a real connection, whose window is full."""
    monkeypatch.setattr(sse, "PATIENCE", 0.1)
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.1)
    async with Store.open(tmp_path / "store") as store, served(store) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(ASK.replace(b"/api/records", b"/api/events?start=earliest"))
        async with asyncio.timeout(60):
            while not live_of(store).clients:
                await tick()
            while live_of(store).clients:
                await store.append_many([bytes(10_000)] * 100)
        writer.close()


@pytest.mark.asyncio
async def test_clients_that_are_written_to_directly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets what it wants, in order, without a gap or a double, however often it takes no more
    for a moment and its own task has to go on.
    """
    written, tries = [], count()
    direct = Bounded.write_directly

    def fickle(self: Bounded, piece: bytes) -> bool:
        is_sent = next(tries) % 3 != 1 and direct(self, piece)
        written.append(is_sent)
        return is_sent

    monkeypatch.setattr(Bounded, "write_directly", fickle)
    async with Store.open(tmp_path / "store") as store, served(store) as port:
        targets = ["/api/events?start=earliest", "/api/events?start=earliest&relation=odd"]
        clients = [await following(port, target) for target in targets * 2]
        for number in range(20):
            await store.append(b"%d" % number, relations=["odd"] * (number % 2))
            await asyncio.sleep(0)
        for (reader, writer), step in zip(clients, (1, 2, 1, 2), strict=True):
            assert await ids_until(reader, 19) == list(range(step - 1, 20, step))
            writer.close()
    assert {True, False} == set(written)


async def following(port: int, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client of the stream of records, whose stream has begun."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"retry: 1000\n\n\r\n"), 20)
    return reader, writer


async def ids_until(reader: asyncio.StreamReader, last: int) -> list[int]:
    """The ids of the events, piece by piece as HTTP has them, up to this one."""
    found: list[int] = []
    async with asyncio.timeout(20):
        while not found or found[-1] < last:
            size = int(await reader.readline(), 16)
            text = await reader.readexactly(size + 2)
            assert text.endswith(b"\n\n\r\n")
            found += [int(line[4:]) for line in text.split(b"\n") if line.startswith(b"id: ")]
    return found


@pytest.mark.asyncio
async def test_a_body_that_does_not_come_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free again, and nothing is written."""
    monkeypatch.setattr(api, "_APPEND_SECONDS", 0.05)
    async with (
        Store.open(tmp_path / "store", sync_policy=Always()) as store,
        served(store, write=True) as port,
    ):
        asked = (
            b"POST /api/records HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/octet-stream\r\nContent-Length: 1000\r\n\r\nabc"
        )
        assert (await answer(port, asked)).startswith(b"HTTP/1.1 504")
        assert store.next_sequence == 0


@pytest.mark.asyncio
async def test_the_address_that_is_said(tmp_path: Path) -> None:
    """It can be opened, with IPv6 as well."""
    with listening("127.0.0.1", 0) as place:
        assert address_of("::1", place) == f"http://[::1]:{place.getsockname()[1]}/"


# the command


@contextmanager
def showing(store: Path | str, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`aquipu web` in a process of its own, and its port."""
    command = [*COMMAND, "web", str(store), "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, _port(process.stderr)
        finally:
            process.kill()


def _port(errors: IO[str] | None) -> int:
    assert errors is not None
    line = errors.readline()
    found = SHOWN.fullmatch(line)
    assert found, line + errors.read()
    return int(found[1])


async def _filled(path: Path) -> None:
    async with Store.open(path) as store:
        await store.append(b"one")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_command_shows_a_store(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """Beside nobody, with a stream that is open: a signal ends it at once, and changes nothing."""
    path = tmp_path / "store"
    asyncio.run(_filled(path))

    async def look(port: int) -> None:
        assert b'"data":"one"' in await answer(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ASK.replace(b"/api/records", b"/api/live"))
        await reader.readuntil(b"event: live")
        process.send_signal(number)
        await reader.read()
        writer.close()

    with showing(path) as (process, port):
        asyncio.run(look(port))
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert "Traceback" not in errors


def test_a_writer_does_not_notice_a_page_that_is_stopped(tmp_path: Path) -> None:
    """Stopped while it streams, or killed: appends, rolls, purges and the end go on."""
    path = tmp_path / "store"
    asyncio.run(_filled(path))

    async def write(process: subprocess.Popen[str], port: int) -> None:
        async with Store.open(path, sync_policy=Always()) as store:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK.replace(b"/api/records", b"/api/events?start=earliest"))
            await reader.readuntil(b'"data":"one"')
            for number in (signal.SIGSTOP, signal.SIGKILL):
                process.send_signal(number)
                for _ in range(20):
                    await store.append_many([bytes(1000)] * 50)
                await store.roll()
                await store.purge(before=store.next_sequence)
            writer.close()
            assert store.first_sequence == store.next_sequence == 2001

    with showing(path) as (process, port):
        asyncio.run(asyncio.wait_for(write(process, port), 60))


def test_arguments_that_cannot_be(tmp_path: Path) -> None:
    """Another host without a token, a token that is none, writing past the writer, no store."""
    path = tmp_path / "store"
    asyncio.run(_filled(path))
    short, missing = tmp_path / "short", tmp_path / "missing"
    short.write_text("short\n")
    for options, said in (
        (("--host", "0.0.0.0"), "token"),
        (("--token-file", str(missing)), "cannot be read"),
        (("--token-file", str(short)), "at least 16"),
        (("--write",), "shared"),
        (("--port", "70000"), "65535"),
    ):
        done = run("web", path, *options)
        assert done.returncode == 2, done.stderr
        assert said in " ".join(done.stderr.decode().split())
    assert run("web", tmp_path / "nothing").returncode == 2


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """It is said, and nothing is changed."""
    path = tmp_path / "store"
    asyncio.run(_filled(path))
    with listening("127.0.0.1", 0) as place:
        done = run("web", path, "--port", str(place.getsockname()[1]))
    assert done.returncode == 4
    assert b"cannot answer at 127.0.0.1" in done.stderr


# many


async def hold(port: int, count: int) -> int:
    """Hold so many connections half open, and ask meanwhile: how many questions were answered."""
    held = []
    answered = 0
    for number in range(count):
        held.append(await half_open(port))
        if number % max(count // 20, 1) == 0:
            answered += (await answer(port)).startswith(b"HTTP/1.1 200")
    for writer in held:
        writer.transport.abort()
    return answered


def memory_of(process: subprocess.Popen[str]) -> int:
    """The most memory that a process has had, in KiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+([0-9]+) kB", status)[0])


def attack(count: int) -> tuple[int, int, int]:
    """Attack the command: questions answered, its memory before and after, in KiB."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(count + 500, most), most))
    with TemporaryDirectory() as directory:
        path = Path(directory) / "store"
        asyncio.run(_filled(path))
        with showing(path) as (process, port):
            asyncio.run(hold(port, 1))
            before = memory_of(process)
            answered = asyncio.run(hold(port, count))
            return answered, before, memory_of(process)


@pytest.mark.proof
def test_a_thousand_connections_half_open() -> None:
    """Everybody else is answered meanwhile, and the memory stays where it is."""
    answered, before, after = attack(1000)
    assert answered == 20
    assert after < before + 64 * 1024


if __name__ == "__main__":
    asked = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    answered, before, after = attack(asked)
    sys.stdout.write(
        f"{asked:,} connections half open: {answered} of 20 questions answered meanwhile;"
        f" memory {before / 1024:.0f} MiB before, {after / 1024:.0f} MiB at most\n"
    )
