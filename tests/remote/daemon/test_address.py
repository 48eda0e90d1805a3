"""The address of a daemon, ``unix:PATH``: where it may be given, and how long the path of its
socket may be.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from starlette.applications import Starlette

from aquipu import (
    Always,
    Disk,
    EveryN,
    Reader,
    RemoteStore,
    Retention,
    Store,
    StoreUnavailableError,
)
from aquipu.contrib import aiohttp, starlette
from aquipu.remote.daemon.server import Daemon
from tests.remote.daemon.served import Served

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def it(tmp_path: Path) -> AsyncIterator[Served]:
    served = Served(tmp_path)
    await served.begin()
    yield served
    await served.end()


def not_made(address: str) -> bool:
    """Whether no directory of that name has come to be."""
    return not Path(address).exists() and not Path("unix:").exists()


@pytest.mark.parametrize("form", [str, Path])
async def test_an_address_in_the_place_of_a_path(it: Served, form: Any) -> None:
    """What is opened is the store of the daemon; no directory is made of the address."""
    async with Store.open(form(it.address), buffer_records=10) as store:
        assert isinstance(store, RemoteStore)
        await store.append(b"x")
    assert await it.data() == [b"x"]
    assert not_made(it.address)


async def test_a_directory_that_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its place before it, it is a path as any other."""
    monkeypatch.chdir(tmp_path)
    async with Store.open("./unix:store") as store:
        assert isinstance(store, Store)
    assert (tmp_path / "unix:store" / "lock").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"sync_policy": Always()},
        {"sync_policy": EveryN(64)},
        {"lock_timeout": 20.0},
        {"max_segment_bytes": 64 * 1024 * 1024},
        {"max_record_bytes": 1},
        {"retention": Retention(max_bytes=1)},
        {"disk": Disk()},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_an_option_that_is_the_daemons(options: dict[str, Any]) -> None:
    """It is refused at once and by its name, also when it is what would have been chosen anyway; so
    is it in a service.
    """
    (name,) = options
    with pytest.raises(
        TypeError, match=f"^{name} cannot be given with unix:nowhere: the daemon there"
    ):
        Store.open("unix:nowhere", **options)
    with pytest.raises(
        TypeError, match=f"^{name} cannot be given with unix:nowhere: the daemon there"
    ):
        starlette.lifespan("unix:nowhere", timeout=1, **options)
    assert not_made("unix:nowhere")


async def test_services_are_given_an_address(it: Served) -> None:
    """A lifespan and a cleanup context open what the daemon has, also with a timeout for it."""
    several: list[dict[str, Any]] = [{}, {"timeout": 5.0}]
    for options in several:
        async with starlette.lifespan(it.address, **options)(Starlette()) as state:
            await state["store"].append(b"starlette")
        app = web.Application()
        opening = aiohttp.opened(it.address, **options)(app)
        await anext(opening)
        await app[aiohttp.STORE].append(b"aiohttp")
        with pytest.raises(StopAsyncIteration):
            await anext(opening)
    assert await it.data() == [b"starlette", b"aiohttp"] * 2
    assert not_made(it.address)


async def test_a_reader_has_no_address() -> None:
    """It reads files: what reads from a daemon is named."""
    with pytest.raises(ValueError, match=r"use Store.connect\('unix:/run/x.sock'\)"):
        Reader.open("unix:/run/x.sock")


def path_of(directory: Path, size: int, name: str = "socket") -> Path:
    """A path of so many bytes, in directories below this one."""
    missing = size - len(os.fsencode(directory)) - 1 - len(name) - 1
    assert missing > 0
    path = directory / ("x" * missing) / name
    path.parent.mkdir()
    assert len(os.fsencode(path)) == size
    return path


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory whose path is short."""
    with TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.mark.parametrize("name", ["socket", "s", "a-longer-name-of-a-socket"])
@pytest.mark.parametrize("size", [80, 103, 104, 105, 106, 107])
async def test_a_path_that_is_nearly_too_long(
    it: Served, short: Path, size: int, name: str
) -> None:
    """Whatever can be connected to can be listened at, again too; nothing else is left there."""
    path = path_of(short, size, name)
    for _ in range(2):
        async with Daemon.open(it.store, path), Store.connect(f"unix:{path}") as store:
            await store.append(b"x")
            assert [file.name for file in path.parent.iterdir()] == [name]
        assert list(path.parent.iterdir()) == []


async def test_a_path_that_is_too_long(it: Served, short: Path) -> None:
    """Both sides say so at once, with the number of bytes that can be."""
    path = path_of(short, 108)
    with pytest.raises(StoreUnavailableError, match="it has 108 bytes, and 107 can be at most"):
        await Daemon.open(it.store, path)
    with pytest.raises(ValueError, match="it has 108 bytes, and 107 can be at most"):
        Store.connect(f"unix:{path}")
    assert list(path.parent.iterdir()) == []


async def test_names_that_are_taken_are_left(it: Served, short: Path) -> None:
    """The socket has a name of one character: so has the one that it is made under, and nobody
    else's is touched.
    """
    path = path_of(short, 107, "s")
    for taken in "0123456789abcde":
        (path.parent / taken).write_text("mine")
    async with Daemon.open(it.store, path), Store.connect(f"unix:{path}") as store:
        await store.append(b"x")
    assert {file.read_text() for file in path.parent.iterdir()} == {"mine"}


async def test_a_path_that_is_no_text(it: Served, short: Path) -> None:
    """A socket may have any bytes as its name."""
    path = short / os.fsdecode(b"\xff")
    async with Daemon.open(it.store, path), Store.connect(f"unix:{path}") as store:
        await store.append(b"x")
    assert await it.data() == [b"x"]
