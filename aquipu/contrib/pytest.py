"""A plugin of pytest for the tests of programs that use aquipu, there when it is installed.

::

    async def test_an_order_is_audited(aquipu_store, assert_recorded):
        await order(7, store=aquipu_store)
        [record] = await assert_recorded({"order": 7}, relation="user:ada")

    async def test_no_order_without_its_audit(aquipu_store, aquipu_faults):
        aquipu_faults.fill()
        with pytest.raises(StoreFullError):
            await order(7, store=aquipu_store)

    def test_a_signature_is_audited(aquipu_app, aquipu_look):
        with TestClient(aquipu_app(app)) as client:
            client.post("/documents/42/signatures", json={"by": "ada"})
        [record] = aquipu_look.assert_recorded({"status": 201}, relation="document:42")

* ``aquipu_store``: an empty store in a directory of its own, open in the loop of the test, closed
  after it;
* ``aquipu_faults``: the disk under that store, which fails, fills up, is slow or stands still on
  demand: a `FaultyDisk`;
* ``assert_recorded``: `assert_recorded_in` that store;
* ``assert_not_recorded``: the contrary;
* ``aquipu_app``: ``aquipu_app(app)`` makes an application of FastAPI, Starlette or aiohttp open a
  store of the test in place of its own;
* ``aquipu_look``: a `Look` into the store, for tests that are not async;
* ``aquipu_path``: a directory for a store that the program opens itself, in a test without a loop
  for instance. Hand it ``disk=aquipu_faults`` as well to have its disk fail.

All of them are fixtures: a test asks for them as arguments, and nothing is imported.

**Whose loop.** A store belongs to the loop it was opened in, so the plugin that runs the test must
open it: pytest-asyncio, in either mode and with any ``loop_scope``, or anyio. So there is one
fixture for each of their ways, and ``aquipu_store`` asks for the one that fits the test. Neither of
them is needed to be installed. In its automatic mode pytest-asyncio runs every test that is a
coroutine, also those that are marked for anyio.
"""

from __future__ import annotations

from asyncio import get_event_loop
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    ExitStack,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

import pytest

from aquipu import Record, Store, StoreFailedError
from aquipu.contrib.shared.opener import Opener, options_of, stood_in
from aquipu.contrib.testing.asserting import (
    Expected,
    Look,
    assert_not_recorded_in,
    assert_recorded_in,
)
from aquipu.contrib.testing.disk import STANDSTILL_SECONDS_MAX, FaultyDisk

__all__ = [
    "STANDSTILL_SECONDS_MAX",
    "Expected",
    "FaultyDisk",
    "Look",
    "assert_not_recorded_in",
    "assert_recorded_in",
]

A = TypeVar("A")

_LOOP_SCOPES: tuple[Literal["function", "class", "module", "package", "session"], ...] = (
    *("function", "class"),
    *("module", "package", "session"),
)


# the fixtures


@pytest.fixture
def aquipu_path(tmp_path: Path) -> Path:
    """Return where a store may be made, inside of ``tmp_path``; nothing is there yet."""
    return tmp_path / "aquipu"


@pytest.fixture
def aquipu_faults() -> Iterator[FaultyDisk]:
    """Give the disk under ``aquipu_store``, to make it fail, fill up, slow down or stand still.

    It is sound again after the test.
    """
    disk = FaultyDisk()
    yield disk
    disk.mend()


@pytest.fixture
def aquipu_store(request: pytest.FixtureRequest) -> Any:
    """Give an empty `Store` in a directory of its own, open in the loop of the test.

    It is closed after the test.
    """
    return request.getfixturevalue(_store_fixture(request))


@pytest.fixture
def assert_recorded(aquipu_store: Store) -> Callable[..., Awaitable[list[Record]]]:
    """`assert_recorded_in` the ``aquipu_store``:

    ``[record] = await assert_recorded(b"...", relation="user:7")``.
    """
    return partial(assert_recorded_in, aquipu_store)


@pytest.fixture
def assert_not_recorded(aquipu_store: Store) -> Callable[..., Awaitable[None]]:
    """`assert_not_recorded_in` the ``aquipu_store``."""
    return partial(assert_not_recorded_in, aquipu_store)


@pytest.fixture
def aquipu_look(aquipu_path: Path) -> Look:
    """Give a `Look` into the store at ``aquipu_path``, for a test that is not async."""
    return Look(aquipu_path)


@pytest.fixture
def aquipu_app(
    request: pytest.FixtureRequest, aquipu_path: Path, aquipu_faults: FaultyDisk
) -> Iterator[Callable[..., Any]]:
    """Give a function that makes an application open the store of the test in place of its own.

    ``aquipu_app(app)`` returns the application of FastAPI, Starlette or aiohttp, whose ``lifespan``
    or ``opened`` then opens an empty store at ``aquipu_path``, on the disk ``aquipu_faults`` and
    with its own options; or, in a test that has ``aquipu_store``, takes that one. Of an application
    with several stores, ``name`` says which (the ``name`` or ``key`` that it was opened with).
    """
    with ExitStack() as until_the_end:

        def hand_over(app: A, *, name: object = None) -> A:
            # asked here: the store may be made for another fixture of the test
            store: Store | None = (
                request.getfixturevalue("aquipu_store")
                if "aquipu_store" in request.fixturenames
                else None
            )

            def opener_in_place_of(own: Opener) -> Opener:
                if store is not None:
                    return lambda: nullcontext(store)
                return partial(_opened, aquipu_path, aquipu_faults, **options_of(own))

            until_the_end.enter_context(stood_in(app, name, opener_in_place_of))
            return app

        yield hand_over


@pytest.fixture
async def _aquipu_anyio_store(
    anyio_backend: Any, aquipu_path: Path, aquipu_faults: FaultyDisk
) -> AsyncIterator[Store]:
    async with _opened(aquipu_path, aquipu_faults) as store:
        yield store


@asynccontextmanager
async def _opened(path: Path, disk: FaultyDisk, **options: Any) -> AsyncIterator[Store]:
    store = await Store.open(path, disk=disk, **options)
    try:
        yield store
    finally:
        disk.mend()
        with suppress(*[StoreFailedError] if disk.struck else []):  # as the test wanted it
            await store.aclose()


def pytest_configure(config: pytest.Config) -> None:
    """Register, with pytest-asyncio, a fixture for each scope of a loop."""
    if config.pluginmanager.hasplugin("asyncio"):
        config.pluginmanager.register(_asyncio_fixtures(), "aquipu-asyncio")


def _asyncio_fixtures() -> ModuleType:
    import pytest_asyncio

    fixtures = ModuleType("aquipu-asyncio", "A store in the loop of each scope.")
    for scope in _LOOP_SCOPES:
        setattr(
            fixtures,
            scope,
            pytest_asyncio.fixture(
                _store_in_a_loop(), loop_scope=scope, name=_asyncio_store(scope)
            ),
        )
    return fixtures


def _store_in_a_loop() -> Callable[[Path, FaultyDisk], Iterator[Store]]:
    def opened(aquipu_path: Path, aquipu_faults: FaultyDisk) -> Iterator[Store]:
        """Open the store in the loop of the scope.

        Not a coroutine: anyio runs those itself wherever its ``anyio_backend`` is near, also in a
        test that is not its own. Around a plain function pytest-asyncio makes the loop of the scope
        the current one.
        """
        loop = get_event_loop()
        opening = _opened(aquipu_path, aquipu_faults)
        store = loop.run_until_complete(opening.__aenter__())
        yield store
        loop.run_until_complete(opening.__aexit__(None, None, None))

    return opened


def _asyncio_store(scope: str) -> str:
    return f"_aquipu_asyncio_{scope}_store"


def _store_fixture(request: pytest.FixtureRequest) -> str:
    """Return the name of the fixture that fits the loop of the test."""
    marker = request.node.get_closest_marker("asyncio")
    if marker is not None and request.config.pluginmanager.hasplugin("aquipu-asyncio"):
        scope = marker.kwargs.get("loop_scope") or request.config.getini(
            "asyncio_default_test_loop_scope"
        )
        return _asyncio_store(scope)
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend_name")
        if backend == "asyncio":
            return "_aquipu_anyio_store"
        pytest.fail(
            f"aquipu_store runs on asyncio, and this test on {backend}: "
            "let anyio_backend be 'asyncio'"
        )
    pytest.fail(
        "aquipu_store needs a test that pytest-asyncio or anyio runs: mark it with "
        "pytest.mark.asyncio or pytest.mark.anyio; in any other, open a store at aquipu_path "
        "where your loop is"
    )
