"""An object store that takes the connection and says nothing holds up no end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from subprocess import PIPE, Popen
from threading import Event, Thread
from typing import Any

import pytest

from aquipu import Archive, Reader, Store, StoreClosedError
from aquipu.archive.bucket import Bucket
from aquipu.archive.read.files import ObjectDisk
from aquipu.archive.read.joined import Joined
from aquipu.archive.uploader import Uploader
from aquipu.local.backup.pace import Stopped
from tests.archive.faulty import Found, MemoryBucket
from tests.archive.made import URL as MADE
from tests.archive.made import JournalLog, Kept, append, opened, uploader
from tests.archive.silent import SECONDS, URL, Silent, silent
from tests.support import data_in, engine_of


@pytest.fixture
def server() -> Iterator[Silent]:
    with silent() as it:
        yield it


@pytest.mark.asyncio
async def test_a_store_is_closed(
    tmp_path: Path, server: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends when the last seconds are over, with a request under way, and lets go of its lock."""
    monkeypatch.setattr("aquipu.local.archiving._LAST_SECONDS", 0.01)
    async with asyncio.timeout(SECONDS):
        store = await Store.open(tmp_path / "store", archive=server.archive())
        await store.append(b"kept")
        await asyncio.to_thread(server.asked.wait)
        await store.aclose()
        async with Store.open(tmp_path / "store") as again:
            assert again.next_sequence == 1
    assert data_in(tmp_path / "store") == [b"kept"]


_LEFT_OPEN = """
import asyncio, sys
from aquipu import Archive, Store
from aquipu.local import archiving

archiving._LAST_SECONDS = 0.01

async def main(path, url, *options):
    store = await Store.open(path, archive=Archive(url, **dict(o.split("=", 1) for o in options)))
    await store.append(b"kept")
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await store.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


def ended(process: Popen[bytes], number: Signals | None = None) -> tuple[int, bytes]:
    """End a process, by a signal or the end of its input; its exit code, and what it has said."""
    try:
        if number is not None:
            process.send_signal(number)
        _, said = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    return process.returncode, said


def test_a_program_ends(tmp_path: Path, server: Silent) -> None:
    """No thread that still waits for an answer holds up the exit of the interpreter."""
    options = [f"{name}={value}" for name, value in server.options.items()]
    command = [sys.executable, "-c", _LEFT_OPEN, str(tmp_path / "store"), URL, *options]
    root = Path(__file__).parents[2]
    with Popen(command, cwd=root, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert server.asked.wait(SECONDS)
        code, said = ended(process)
    assert code == 0, said
    assert data_in(tmp_path / "store") == [b"kept"]


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (("archive", "{store}", URL), SIGINT, 130),
        pytest.param(
            ("archive", "{store}", URL, "--follow"), SIGTERM, 4, marks=pytest.mark.proof
        ),  # it goes on for some seconds, and a record is left
        (("archive", "check", URL), SIGINT, 130),
        (("archive", "purge", URL, "--before", "1d"), SIGTERM, 143),
        (("restore", URL, "{store}-copy"), SIGINT, 130),
    ],
)
def test_a_command_is_ended(
    tmp_path: Path, server: Silent, words: tuple[str, ...], number: Signals, code: int
) -> None:
    """By a signal, with its usual exit code, whatever is being asked."""
    store = tmp_path / "store"
    asyncio.run(_made(store))
    arguments = [word.format(store=store) for word in words]
    command = [sys.executable, "-m", "aquipu", *arguments, *server.arguments]
    with Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert server.asked.wait(SECONDS)
        assert ended(process, number)[0] == code


async def _made(path: Path) -> None:
    async with Store.open(path) as store:
        await store.append(b"record")


class _Away(MemoryBucket):
    """Cannot be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.called = Event()

    def list(self, prefix: str, **options: Any) -> Iterator[list[dict[str, Any]]]:
        self.called.set()
        raise ConnectionError("refused")


async def _cancelled(archive: Archive, asked: Event) -> None:
    opening = asyncio.ensure_future(Reader.open(archive))
    assert await asyncio.to_thread(asked.wait, SECONDS)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with asyncio.timeout(SECONDS / 2):
        await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.asyncio
async def test_opening_an_archive_is_cancelled() -> None:
    """No thread goes on to ask, which the end of the loop would wait for."""
    away = _Away()
    await _cancelled(Kept(away), away.called)


@pytest.mark.asyncio
async def test_opening_an_archive_is_cancelled_during_a_request(server: Silent) -> None:
    """The request is left behind."""
    await _cancelled(server.archive(), server.asked)


@pytest.mark.asyncio
@pytest.mark.parametrize("silence", [True, False])
async def test_a_reader_is_closed_while_it_opens_the_archive(
    tmp_path: Path, server: Silent, silence: bool
) -> None:
    """Who waits for a record that was purged is told at once, and no thread goes on to ask."""
    away = _Away()
    archive, asked = (server.archive(), server.asked) if silence else (Kept(away), away.called)
    async with Store.open(tmp_path / "store", max_segment_bytes=4096) as store:
        await store.append_many([bytes(4000)])
        await store.append_many([bytes(4000)])
        await store.purge(before=1)
    reader = await Reader.open(tmp_path / "store", archive=archive)
    getting = asyncio.ensure_future(reader.get(0))
    assert await asyncio.to_thread(asked.wait, SECONDS)
    await reader.aclose()
    with pytest.raises(StoreClosedError):
        await getting
    async with asyncio.timeout(SECONDS / 2):
        await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.asyncio
async def test_an_archive_that_is_first_reached_after_the_close(tmp_path: Path) -> None:
    """A thread that comes to it late does not ask."""
    async with Store.open(tmp_path / "store") as store:
        away = _Away()
        joined = Joined(engine_of(store), lambda: ObjectDisk(Bucket(MADE, away)))
        joined.close()
        with pytest.raises(StoreClosedError):
            joined.seen(await engine_of(store).snapshot())
        assert not away.called.is_set()


class _Holding(MemoryBucket):
    """Makes the first request of one kind wait."""

    def __init__(self, held: str) -> None:
        super().__init__()
        self._held = held
        self.begun, self.released = Event(), Event()

    def put(self, key: str, body: bytes, **options: Any) -> None:
        self._wait("put")
        super().put(key, body, **options)

    def get(self, key: str) -> Found:
        self._wait("get")
        return super().get(key)

    def list(self, prefix: str, **options: Any) -> Iterator[list[dict[str, Any]]]:
        self._wait("list")
        return super().list(prefix, **options)

    def _wait(self, kind: str) -> None:
        if kind == self._held and not self.begun.is_set():
            self.begun.set()
            assert self.released.wait(SECONDS)


def _followed(store: _Holding, carrier: Uploader, stop: Event) -> None:
    """Follow, be told to stop during the request that is held, and let that go on afterwards."""
    following = Thread(target=carrier.follow, daemon=True)
    following.start()
    assert store.begun.wait(SECONDS)
    stop.set()
    following.join(SECONDS)
    assert not following.is_alive()
    store.released.set()


@pytest.mark.parametrize("held", ["list", "get"])
def test_nothing_is_put_after_the_stop(tmp_path: Path, held: str) -> None:
    """A claim that is told to stop while it reads puts no fence when the answer comes."""
    journal, stop, store = opened(tmp_path / "store"), Event(), _Holding(held)
    append(journal, range(3))
    _followed(store, uploader(store, JournalLog(journal), stop=stop), stop)
    journal.close()
    with pytest.raises(Stopped):
        Bucket(MADE, store).until(stop).put_new("key", b"body")
    assert store.objects == {}


def test_a_put_that_is_left_behind(tmp_path: Path) -> None:
    """It may still land, and is a true part of the archive: whoever comes next goes on."""
    journal, stop, store = opened(tmp_path / "store"), Event(), _Holding("put")
    append(journal, range(3))
    _followed(store, uploader(store, JournalLog(journal), stop=stop), stop)
    assert uploader(store, JournalLog(journal)).catch_up() == 3
    journal.close()
