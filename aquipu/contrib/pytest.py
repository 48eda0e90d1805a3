"""For the tests of programs that use aquipu: a plugin of pytest that is there when aquipu is installed.

::

    async def test_an_order_is_audited(aquipu_store, assert_recorded):
        await order(7, store=aquipu_store)
        [record] = await assert_recorded({"order": 7}, relation="user:ada")

    async def test_no_order_without_its_audit(aquipu_store, aquipu_faults):
        aquipu_faults.fill()
        with pytest.raises(StoreFullError):
            await order(7, store=aquipu_store)

* ``aquipu_store``: an empty store in a directory of its own, open in the loop of the test, closed after it;
* ``aquipu_faults``: the disk under that store, which fails, fills up, is slow or stands still on demand: a `FaultyDisk`;
* ``assert_recorded``: `assert_recorded_in` that store;
* ``aquipu_path``: a directory for a store that the program opens itself, in a test without a loop for instance. Hand it
  ``disk=aquipu_faults`` as well to have its disk fail.

**Whose loop.** A store belongs to the loop it was opened in, so the plugin that runs the test must open it: pytest-asyncio,
in either mode and with any ``loop_scope``, or anyio. So there is one fixture for each of their ways, and ``aquipu_store``
asks for the one that fits the test. Neither of them is needed to be installed.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from errno import EIO, ENOSPC
from functools import partial
from pathlib import Path
from reprlib import Repr
from time import monotonic
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import anyio
import pytest

from aquipu import Disk, Reader, Record, Store, StoreFailedError

if TYPE_CHECKING:
    from aquipu import RemoteStore

STANDSTILL_SECONDS_MAX = 60.0
"""How long a disk stands still at most: a test that forgets to mend it fails, and does not hang."""

Expected: TypeAlias = "bytes | Mapping[str, object] | Callable[[Record], bool] | None"

_LOOP_SCOPES: tuple[Literal["function", "class", "module", "package", "session"], ...] = (
    *("function", "class"),
    *("module", "package", "session"),
)
_POLL_SECONDS = 0.01
_SHOWN_RECORDS = 10


class _Fault(NamedTuple):
    errno: int | None
    """What writes end in; None: nothing."""
    syncs: bool
    """Whether syncs end in it too."""
    seconds: float
    """That every call takes first."""
    met: threading.Event
    """A write or a sync has come to it."""
    over: threading.Event
    """Ends the waiting."""


class FaultyDisk(Disk):
    """A disk with real files whose writes and syncs go wrong on demand; otherwise syncs cost nothing: nobody cuts the power
    in a test. Each of the calls replaces what was asked for before; they may be made at any time, from any thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.struck = 0
        """How many writes and syncs have met a fault."""
        self._fault: _Fault | None = None

    def fail(self) -> None:
        """Every write and sync fails (EIO): the next commit poisons the store, its callers get StoreFailedError."""
        self._become(EIO, syncs=True)

    def fill(self) -> None:
        """No write finds space (ENOSPC), and none is free: callers get StoreFullError, and after `mend` the same store goes
        on."""
        self._become(ENOSPC)

    def slow_down(self, seconds: float) -> None:
        """Every write and sync takes this much longer. ValueError unless it is a time from 0 to a minute."""
        if not 0 <= seconds <= STANDSTILL_SECONDS_MAX:
            raise ValueError(f"a disk is slower by 0 to {STANDSTILL_SECONDS_MAX} seconds, not {seconds}")
        self._become(None, seconds=seconds)

    def stop(self) -> None:
        """The disk stands still: every write and sync waits for `mend`, at most `STANDSTILL_SECONDS_MAX`, then fails."""
        self._become(EIO, syncs=True, seconds=STANDSTILL_SECONDS_MAX)

    def mend(self) -> None:
        """The disk is sound from now on; what waits goes through. A store that has failed stays so until it is reopened."""
        fault, self._fault = self._fault, None
        if fault is not None:
            fault.over.set()

    def free(self, path: str) -> int:
        fault = self._fault
        return 0 if fault is not None and fault.errno == ENOSPC else super().free(path)

    async def reached(self) -> None:
        """Wait until a write or a sync has met the fault that is set now. The test fails when there is no fault, or nothing
        has come to it within `STANDSTILL_SECONDS_MAX`."""
        fault = self._fault
        if fault is None or not await anyio.to_thread.run_sync(
            fault.met.wait, STANDSTILL_SECONDS_MAX, abandon_on_cancel=True
        ):
            pytest.fail("nothing was written to the disk since it was told to go wrong, or it was not told to")

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        self._strike()
        super().write(descriptor, buffers, offset)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        self._strike()
        super().write(descriptor, buffers, offset)
        return True

    def sync(self, descriptor: int) -> None:
        self._strike(sync=True)

    def sync_directory(self, path: str) -> None:
        self._strike(sync=True)

    def _become(self, errno: int | None, *, syncs: bool = False, seconds: float = 0.0) -> None:
        self.mend()
        self._fault = _Fault(errno, syncs, seconds, threading.Event(), threading.Event())

    def _strike(self, *, sync: bool = False) -> None:
        fault = self._fault
        if fault is None:
            return
        self.struck += 1
        fault.met.set()
        mended = fault.over.wait(fault.seconds) if fault.seconds else False
        if fault.errno is not None and not mended and (fault.syncs or not sync):
            raise OSError(fault.errno, os.strerror(fault.errno))


async def assert_recorded_in(
    store: Store | RemoteStore | Reader, expected: Expected = None, *, relation: str | None = None, within: float = 1.0
) -> list[Record]:
    """All records of a store that are as expected, at least one; otherwise the test fails, and shows what there is.

    ``[record] = await assert_recorded_in(...)`` says that there is exactly one.

    Args:
        expected: the data of the record; or, of a record in JSON, some of its members with their values; or a function
            that is given each record and says whether it is one; without it, any record will do.
        relation: only records that carry this label.
        within: seconds until there must be one. It returns as soon as there is.
    """
    __tracebackhide__ = True
    matches = _matcher(expected)
    deadline = monotonic() + within
    while True:
        seen = [record async for record in store.scan(relation=relation)]
        found = [record for record in seen if matches(record)]
        if found:
            return found
        if monotonic() >= deadline:
            pytest.fail(_not_found(expected, relation, seen))
        await anyio.sleep(_POLL_SECONDS)


def _matcher(expected: Expected) -> Callable[[Record], bool]:
    if expected is None:
        return lambda record: True
    if isinstance(expected, bytes):
        return lambda record: record.data == expected
    if isinstance(expected, Mapping):
        return partial(_holds, expected.items())
    if callable(expected):
        return expected
    raise TypeError(f"what is expected is bytes, a mapping or a function, not {type(expected).__name__}")


def _holds(members: Any, record: Record) -> bool:
    with suppress(ValueError):
        line = json.loads(record.data)
        return isinstance(line, dict) and all(name in line and line[name] == value for name, value in members)
    return False


def _not_found(expected: Expected, relation: str | None, seen: list[Record]) -> str:
    short = Repr()
    short.maxother = short.maxstring = 300
    what = "no record" if expected is None else f"no record is as expected: {expected!r}"
    where = "" if relation is None else f" with the relation {relation!r}"
    if not seen:
        return f"{what}; there is none at all{where}"
    last = [f"  {record.sequence}: {short.repr(record.data)} {record.relations}" for record in seen[-_SHOWN_RECORDS:]]
    return "\n".join([f"{what}; of {len(seen)}{where}, the last are", *last])


# the fixtures


@pytest.fixture
def aquipu_path(tmp_path: Path) -> Path:
    """Where a store may be made; nothing is there yet. Inside of ``tmp_path``."""
    return tmp_path / "aquipu"


@pytest.fixture
def aquipu_faults() -> Iterator[FaultyDisk]:
    """The disk under ``aquipu_store``: makes it fail, fill up, slow down or stand still; sound again after the test."""
    disk = FaultyDisk()
    yield disk
    disk.mend()


@pytest.fixture
def aquipu_store(request: pytest.FixtureRequest) -> Any:
    """An empty `Store` in a directory of its own, open in the loop of the test; closed after it."""
    return request.getfixturevalue(_store_fixture(request))


@pytest.fixture
def assert_recorded(aquipu_store: Store) -> Callable[..., Awaitable[list[Record]]]:
    """`assert_recorded_in` the ``aquipu_store``: ``[record] = await assert_recorded(b"...", relation="user:7")``."""
    return partial(assert_recorded_in, aquipu_store)


@pytest.fixture
async def _aquipu_anyio_store(anyio_backend: Any, aquipu_path: Path, aquipu_faults: FaultyDisk) -> AsyncIterator[Store]:
    async with _opened(aquipu_path, aquipu_faults) as store:
        yield store


@asynccontextmanager
async def _opened(path: Path, disk: FaultyDisk) -> AsyncIterator[Store]:
    store = await Store.open(path, disk=disk)
    try:
        yield store
    finally:
        disk.mend()
        with suppress(*[StoreFailedError] if disk.struck else []):  # as the test wanted it
            await store.aclose()


def pytest_configure(config: pytest.Config) -> None:
    """With pytest-asyncio: a fixture for each scope of a loop."""
    if config.pluginmanager.hasplugin("asyncio"):
        config.pluginmanager.register(_asyncio_fixtures(), "aquipu-asyncio")


def _asyncio_fixtures() -> ModuleType:
    import pytest_asyncio

    fixtures = ModuleType("aquipu-asyncio", "A store in the loop of each scope.")
    for scope in _LOOP_SCOPES:
        setattr(fixtures, scope, pytest_asyncio.fixture(_store_in_a_loop(), loop_scope=scope, name=_asyncio_store(scope)))
    return fixtures


def _store_in_a_loop() -> Callable[[Path, FaultyDisk], AsyncIterator[Store]]:
    async def opened(aquipu_path: Path, aquipu_faults: FaultyDisk) -> AsyncIterator[Store]:
        async with _opened(aquipu_path, aquipu_faults) as store:
            yield store

    return opened


def _asyncio_store(scope: str) -> str:
    return f"_aquipu_asyncio_{scope}_store"


def _store_fixture(request: pytest.FixtureRequest) -> str:
    """The name of the fixture that fits the loop of the test."""
    marker = request.node.get_closest_marker("asyncio")
    if marker is not None and request.config.pluginmanager.hasplugin("aquipu-asyncio"):
        scope = marker.kwargs.get("loop_scope") or request.config.getini("asyncio_default_test_loop_scope")
        return _asyncio_store(scope)
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend_name")
        if backend == "asyncio":
            return "_aquipu_anyio_store"
        pytest.fail(f"aquipu_store runs on asyncio, and this test on {backend}: let anyio_backend be 'asyncio'")
    pytest.fail(
        "aquipu_store needs a test that pytest-asyncio or anyio runs: mark it with pytest.mark.asyncio or "
        "pytest.mark.anyio; in any other, open a store at aquipu_path where your loop is"
    )
