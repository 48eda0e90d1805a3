"""The plugin for the tests of other people: its store in the loop of their test, its disk that
fails when they say so.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import tomllib
from errno import EIO
from importlib import import_module
from pathlib import Path

import pytest

from aquipu import OsManaged, Reader, Store, StoreFailedError, StoreFullError
from aquipu.contrib.pytest import FaultyDisk, assert_recorded_in

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

# in the hands of pytest


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> _Run:
    """Runs a test file in a pytest of its own, with the plugin and those that are named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    return _Run(pytester)


class _Run:
    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def __call__(
        self, test: str, *options: str, plugins: tuple[str, ...] = ("asyncio", "anyio")
    ) -> pytest.RunResult:
        self._pytester.makepyfile(f"import asyncio\nimport pytest\nfrom aquipu import *\n\n{test}")
        loaded = [word for name in (*plugins, "aquipu.contrib.pytest") for word in ("-p", name)]
        strict = ("-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
        return self._pytester.runpytest_subprocess(
            *loaded, *(strict if "asyncio" in plugins else strict[:2]), *options
        )


STORED = """
async def test_stored(aquipu_store, assert_recorded, aquipu_path):
    await aquipu_store.append(b'{"order": 7, "by": "ada"}', relations=("user:ada",))
    [record] = await assert_recorded({"order": 7}, relation="user:ada")
    assert record.sequence == 0
    assert (aquipu_path / "lock").exists() or list(aquipu_path.iterdir())

@pytest.fixture
def shop(aquipu_store):
    return aquipu_store

async def test_each_has_its_own(shop, aquipu_store):
    assert shop is aquipu_store
    assert shop.next_sequence == 0
    await shop.append(b"x")
"""
FAULTS = """
async def test_full(aquipu_store, aquipu_faults):
    aquipu_faults.fill()
    with pytest.raises(StoreFullError):
        await aquipu_store.append(b"x")
    aquipu_faults.mend()
    await aquipu_store.append(b"x")

async def test_failed(aquipu_store, aquipu_faults):
    aquipu_faults.fail()
    with pytest.raises(StoreFailedError):
        await aquipu_store.append(b"x")

async def test_still(aquipu_store, aquipu_faults):
    aquipu_faults.stop()
    late = asyncio.ensure_future(aquipu_store.append(b"x"))
    await aquipu_faults.reached()
    assert not late.done()

async def test_slow(aquipu_store, aquipu_faults):
    aquipu_faults.slow_down(0.001)
    await aquipu_store.append(b"x")
    assert aquipu_faults.struck
"""
BACKEND = """
@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def test_under_pytest_asyncio(run: _Run) -> None:
    """In its strict mode, with and without anyio's plugin."""
    marked = "pytestmark = pytest.mark.asyncio\n" + STORED + FAULTS
    run(marked).assert_outcomes(passed=6)
    run(marked, plugins=("asyncio",)).assert_outcomes(passed=6)


def test_under_pytest_asyncio_by_itself(run: _Run) -> None:
    """In its automatic mode, where no test is marked."""
    run(STORED + FAULTS, "-o", "asyncio_mode=auto").assert_outcomes(passed=6)


def test_in_a_wider_loop(run: _Run) -> None:
    """The store is opened in the loop of the test, also when that is the one of its module, or of
    the session.
    """
    test = """
    loops = []

    async def test_one(aquipu_store):
        loops.append(asyncio.get_running_loop())
        await aquipu_store.append(b"x")

    async def test_two(aquipu_store):
        assert loops == [asyncio.get_running_loop()]
        await aquipu_store.append(b"x")
    """
    test = "\n".join(line[4:] for line in test.splitlines())
    module = "pytestmark = pytest.mark.asyncio(loop_scope='module')\n" + test
    run(module).assert_outcomes(passed=2)
    session = "pytestmark = pytest.mark.asyncio\n" + test
    run(session, "-o", "asyncio_default_test_loop_scope=session").assert_outcomes(passed=2)


def test_under_anyio(run: _Run) -> None:
    """With and without pytest-asyncio beside it."""
    marked = "pytestmark = pytest.mark.anyio\n" + BACKEND + STORED + FAULTS
    run(marked).assert_outcomes(passed=6)
    run(marked, plugins=("anyio",)).assert_outcomes(passed=6)


def test_under_both_at_once(run: _Run) -> None:
    """Whichever of the two runs a test, the store is in its loop: marked for anyio where
    pytest-asyncio takes every coroutine, marked for both, or with anyio's backend near; also in a
    wider loop.
    """
    beside = """
@pytest.mark.asyncio
@pytest.mark.usefixtures("anyio_backend")
async def test_a_backend_is_near(aquipu_store, assert_recorded):
    await aquipu_store.append(b"x")
    await assert_recorded(b"x")

@pytest.mark.asyncio
@pytest.mark.anyio
async def test_marked_twice(aquipu_store):
    await aquipu_store.append(b"x")

@pytest.mark.anyio
class TestClass:
    async def test_in_a_class(self, aquipu_store):
        await aquipu_store.append(b"x")

@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.usefixtures("anyio_backend")
async def test_in_a_wider_loop(aquipu_store):
    await aquipu_store.append(b"x")
"""
    run(BACKEND + beside).assert_outcomes(passed=4)
    marked = "pytestmark = pytest.mark.anyio\n" + BACKEND + STORED + FAULTS + beside
    run(marked, "-o", "asyncio_mode=auto").assert_outcomes(passed=10)


def test_no_loop_for_a_store(run: _Run) -> None:
    """A test that nobody runs in a loop of asyncio is told what to do; what needs no loop is there
    for it.
    """
    done = run(
        """
def test_plain(aquipu_store):
    pass

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_another_loop(anyio_backend, aquipu_store):
    pass

def test_its_own_loop(aquipu_path, aquipu_faults):
    async def main():
        async with Store.open(aquipu_path, disk=aquipu_faults) as store:
            await store.append(b"x")
    asyncio.run(main())
"""
    )
    done.assert_outcomes(passed=1, errors=2)
    done.stdout.fnmatch_lines(["*aquipu_store needs a test that pytest-asyncio or anyio runs*"])
    done.stdout.fnmatch_lines(["*aquipu_store runs on asyncio, and this test on trio*"])


def test_without_a_plugin_for_loops(run: _Run) -> None:
    """Neither pytest-asyncio nor anyio's plugin is needed where there is no store in a loop."""
    run("def test_plain(aquipu_path, aquipu_faults): pass", plugins=()).assert_outcomes(passed=1)


APPLICATIONS = """
from fastapi import FastAPI
from starlette.testclient import TestClient
from aiohttp import ClientSession, web
from aquipu.contrib.aiohttp import STORE, audit_requests, opened
from aquipu.contrib.audit import Audit
from aquipu.contrib.starlette import AuditMiddleware, lifespan

app = FastAPI(lifespan=lifespan("own", lifespan("events", name="events"), sync_policy=Always()))
app.add_middleware(AuditMiddleware)

@app.post("/orders/{number}", status_code=201)
async def order(number: int) -> int:
    return number

def test_in_another_loop(aquipu_app, aquipu_look, aquipu_path, tmp_path, monkeypatch):
    assert aquipu_look.records() == []
    aquipu_look.assert_not_recorded()
    monkeypatch.chdir(tmp_path)
    with TestClient(aquipu_app(app)) as client:
        aquipu_look.assert_not_recorded()
        client.post("/orders/7")
        [record] = aquipu_look.assert_recorded({"path": "/orders/7", "status": 201})
        assert client.app_state["store"].path == str(aquipu_path)
        assert client.app_state["store"].limits.stage is Stage.SYNCED
    assert aquipu_look.records() == [record]
    with pytest.raises(pytest.fail.Exception, match="there must be no record.*there are 1"):
        aquipu_look.assert_not_recorded(lambda record: True)
    with pytest.raises(pytest.fail.Exception, match="none at all"):
        aquipu_look.assert_recorded(relation="nobody", within=0)

def test_that_has_a_store_of_its_own(aquipu_app, aquipu_look):
    with TestClient(aquipu_app(app)):
        assert aquipu_look.records() == []

def test_the_store_of_a_name(aquipu_app, tmp_path, monkeypatch, aquipu_path):
    monkeypatch.chdir(tmp_path)
    with TestClient(aquipu_app(app, name="events")) as client:
        assert client.app_state["events"].path == str(aquipu_path)
        assert (tmp_path / "own").exists()

def test_after_that_it_has_its_own_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with TestClient(app):
        assert (tmp_path / "own").exists()

def test_with_a_disk_that_fails(aquipu_app, aquipu_faults, aquipu_look):
    with TestClient(aquipu_app(app)) as client:
        aquipu_faults.fail()
        assert client.post("/orders/7").status_code == 503
    aquipu_look.assert_not_recorded(within=0.02)

@pytest.mark.asyncio
async def test_in_the_loop_of_the_test(
    aquipu_app, aquipu_store, assert_recorded, assert_not_recorded
):
    async with aquipu_app(app).router.lifespan_context(app) as state:
        assert state["store"] is aquipu_store
        await assert_not_recorded()
        await state["store"].append(b"x")
    await assert_recorded(b"x")
    with pytest.raises(pytest.fail.Exception, match="there must be no record"):
        await assert_not_recorded(b"x")

@pytest.mark.asyncio
async def test_of_aiohttp(aquipu_app, aquipu_store, assert_recorded):
    app = web.Application()
    app.cleanup_ctx.append(opened("own"))
    audit_requests(app)
    runner = web.AppRunner(aquipu_app(app))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        async with client.get("/nothing") as response:
            assert response.status == 404
    await runner.cleanup()
    await assert_recorded({"path": "/nothing", "status": 404})
"""


def test_the_store_of_an_application(run: _Run) -> None:
    """It is the test's, in its own loop or in another one, with the options of the application.

    Another store of it, and the application after the test, have their own path.
    """
    run(APPLICATIONS, "-o", "asyncio_mode=strict").assert_outcomes(passed=7)


def test_what_is_shown_when_nothing_is_recorded(run: _Run) -> None:
    """What was expected, and what there is instead; not the inside of the plugin."""
    done = run(
        """
@pytest.mark.asyncio
async def test_missing(aquipu_store, assert_recorded):
    await aquipu_store.append(b'{"order": 8}')
    await assert_recorded({"order": 7}, within=0)
"""
    )
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(
        [
            "E *no record is as expected: {'order': 7}; of 1, the last are",
            "E *0: b'{\"order\": 8}' ()",
        ]
    )
    done.stdout.no_fnmatch_line("*_matcher*")


def test_the_entry_point() -> None:
    """pytest finds the plugin by itself where aquipu is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert import_module(project["entry-points"]["pytest11"]["aquipu"]).pytest_configure


# the disk


@pytest.mark.asyncio
async def test_a_disk_that_fails(tmp_path: Path) -> None:
    """The store is poisoned, mended or not, until it is opened again."""
    disk = FaultyDisk()
    store = await Store.open(tmp_path, disk=disk)
    await store.append(b"safe")
    disk.fail()
    for _ in range(2):
        with pytest.raises(StoreFailedError) as caught:
            await store.append(b"x")
        disk.mend()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == EIO
    with pytest.raises(StoreFailedError):
        await store.aclose()
    async with Store.open(tmp_path, disk=disk) as again:
        assert (await again.get(0)).data == b"safe"


@pytest.mark.asyncio
async def test_a_disk_that_stands_still_until_it_is_mended(tmp_path: Path) -> None:
    """What waits goes through when it is mended; the loop goes on meanwhile."""
    disk = FaultyDisk()
    async with Store.open(tmp_path, disk=disk, sync_policy=OsManaged()) as store:
        disk.stop()
        waiting = store.append_nowait(b"x")
        await disk.reached()
        assert not waiting.done()
        disk.mend()
        assert (await waiting).sequence == 0


@pytest.mark.asyncio
async def test_one_fault_replaces_another(tmp_path: Path) -> None:
    """A disk that stood still and is now full lets those go on who wait, and refuses those who
    come.
    """
    disk = FaultyDisk()
    async with Store.open(tmp_path, disk=disk, sync_policy=OsManaged()) as store:
        disk.stop()
        waiting = store.append_nowait(b"x")
        await disk.reached()
        disk.fill()
        await waiting
        with pytest.raises(StoreFullError):
            await store.append(b"y")
        disk.mend()


def test_a_full_disk_has_nothing_free(tmp_path: Path) -> None:
    """The health of a store on it says so."""
    disk = FaultyDisk()
    assert disk.free(str(tmp_path)) > 0
    disk.fill()
    assert disk.free(str(tmp_path)) == 0


def test_a_disk_that_is_never_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails in the end: a test that forgets it does not hang."""
    monkeypatch.setattr("aquipu.contrib.testing.disk.STANDSTILL_SECONDS_MAX", 0.01)
    disk = FaultyDisk()
    disk.stop()
    with pytest.raises(OSError, match="Input/output error"):
        disk.sync(0)


@pytest.mark.asyncio
async def test_a_fault_that_nobody_meets(monkeypatch: pytest.MonkeyPatch) -> None:
    """To wait for a fault that is not set, or not met, fails the test."""
    monkeypatch.setattr("aquipu.contrib.testing.disk.STANDSTILL_SECONDS_MAX", 0.01)
    disk = FaultyDisk()
    for fault in (disk.mend, disk.fail):
        fault()
        with pytest.raises(pytest.fail.Exception, match="nothing was written"):
            await disk.reached()


def test_waiting_ends_when_it_is_mended() -> None:
    """Also in another thread, and long before the time that a slow disk takes."""
    disk = FaultyDisk()
    disk.slow_down(60)
    thread = threading.Thread(target=disk.sync, args=(0,))
    thread.start()
    while not disk.struck:
        pass
    disk.mend()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("seconds", [-1, 61, float("nan")])
def test_a_time_that_no_disk_takes(seconds: float) -> None:
    """It is refused, and the disk is as before."""
    disk = FaultyDisk()
    with pytest.raises(ValueError, match="slower by 0 to"):
        disk.slow_down(seconds)
    disk.sync(0)
    assert disk.struck == 0


# what is recorded


@pytest.mark.asyncio
async def test_what_may_be_expected(tmp_path: Path) -> None:
    """Bytes, members of a JSON object, a function, or anything at all; with a label or without."""
    async with Store.open(tmp_path) as store:
        await store.append_many(
            [b"plain", b'{"a": 1, "b": null}', b'{"a": 1}', b"[1]", b"\xff"], relations=("one",)
        )
        await store.append(b"plain", relations=("two",))

        async def found(*expected: object, relation: str | None = None) -> list[int]:
            records = await assert_recorded_in(store, *expected, relation=relation)  # type: ignore[arg-type]
            return [record.sequence for record in records]

        assert await found(b"plain") == [0, 5]
        assert await found(b"plain", relation="two") == [5]
        assert await found({"a": 1}) == [1, 2]
        assert await found({"b": None}) == [1]
        assert await found(lambda record: record.sequence > 3) == [4, 5]
        assert await found(relation="one") == [0, 1, 2, 3, 4]
        with pytest.raises(TypeError, match="not str"):
            await found("plain")


@pytest.mark.asyncio
async def test_what_is_recorded_a_little_later(tmp_path: Path) -> None:
    """It is waited for; also by a reader that is not the store."""
    async with Store.open(tmp_path) as store, Reader.open(tmp_path) as reader:
        looking = asyncio.ensure_future(assert_recorded_in(reader, b"late", within=20))
        await asyncio.sleep(0.02)
        assert not looking.done()
        await store.append(b"late")
        assert len(await looking) == 1


@pytest.mark.asyncio
async def test_what_is_not_recorded(tmp_path: Path) -> None:
    """The message says what there is; a long record is shortened."""
    async with Store.open(tmp_path) as store:
        with pytest.raises(
            pytest.fail.Exception,
            match="no record; there is none at all with the relation 'user:7'",
        ):
            await assert_recorded_in(store, relation="user:7", within=0)
        await store.append(b"x" * 10_000)
        with pytest.raises(pytest.fail.Exception) as caught:
            await assert_recorded_in(store, b"y", within=0)
        assert len(str(caught.value)) < 500
