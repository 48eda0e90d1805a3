"""What the tests share that call a store as its users do.

Callers that wait, calls of the disk that are held, timers, and what is left behind.
"""

from __future__ import annotations

import asyncio
import os
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aquipu import Always, AquipuError, EveryN, OsManaged, Store, StoreFailedError
from aquipu.local.disk.disk import Disk
from aquipu.local.format.frame import MAGIC
from tests.disk import FailingDisk, Hold
from tests.support import copy_of, segment_in

PATIENCE = 20.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""


class Held:
    """A call that the disk holds."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold

    async def reached(self) -> None:
        """Wait until the call has begun."""
        assert await asyncio.to_thread(self._hold.reached.wait, PATIENCE), "the call never came"

    def release(self) -> None:
        self._hold.released.set()


@contextmanager
def held(disk: FailingDisk, method: str, *, nth: int = 1, of: str = "") -> Iterator[Held]:
    """Hold a call until `release`, or the end of the block: a test that fails must not hang as
    well.
    """
    hold = Held(disk.hold(method, nth=nth, of=of))
    try:
        yield hold
    finally:
        hold.release()


async def tick() -> None:
    """Let everything that is ready in the loop run once."""
    await asyncio.sleep(0)


def pass_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Turn the clock of the loop forward: its timers are due that much earlier."""
    loop = asyncio.get_running_loop()
    now = loop.time
    monkeypatch.setattr(loop, "time", lambda: now() + seconds)


class Timers:
    """The timers that a loop is asked for from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: list[asyncio.TimerHandle] = []
        call_later = self._loop.call_later

        def note(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
            self._asked.append(call_later(*arguments, **options))
            return self._asked[-1]

        monkeypatch.setattr(self._loop, "call_later", note)

    @property
    def pending(self) -> list[asyncio.TimerHandle]:
        """Those that are neither cancelled nor due."""
        now = self._loop.time()
        return [timer for timer in self._asked if not timer.cancelled() and timer.when() > now]


def _join_looks() -> None:
    """Wait for a look at the cursors, for which statistics ask: nothing waits for its end, and it
    has the directory open for a moment.
    """
    for thread in threading.enumerate():
        if thread.name == "aquipu-lag":
            thread.join()


def open_descriptors(path: Path) -> list[str]:
    """The files below a path that this process holds open, but for a look in passing."""
    _join_looks()
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of the listing itself
            continue
        if target.startswith(str(path)):
            found.append(target)
    return found


async def no_store(path: Path) -> list[bytes]:
    """Nothing but a place for a store."""
    return []


async def closed_store(path: Path) -> list[bytes]:
    """A store of two segments that was closed."""
    async with Store.open(path, max_segment_bytes=4096) as store:
        await store.append(b"a" * 5000)
        await store.append(b"b")
    return [b"a" * 5000, b"b"]


async def torn_store(path: Path) -> list[bytes]:
    """A store that nobody closed, with half a commit at its end."""
    other = path.with_name("other")
    async with Store.open(other, max_segment_bytes=4096) as store:
        await store.append(b"a" * 5000)
        await store.append(b"b")
        copy_of(other, path.name)
    with segment_in(path, 1).open("ab") as file:
        file.write(b"half a frame")
    return [b"a" * 5000, b"b"]


Scene = Callable[[Path], Awaitable[list[bytes]]]


scenes = pytest.mark.parametrize("scene", [no_store, closed_store, torn_store])


async def records_of(path: Path) -> list[bytes]:
    """What a new opening finds: at once, so nobody else may have the lock."""
    async with Store.open(path, lock_timeout=0) as store:
        return [record.data async for record in store.scan()]


async def outcomes_of(callers: Sequence[Awaitable[Any]]) -> list[Any]:
    """Results and errors, when everybody has one."""
    return await asyncio.gather(*callers, return_exceptions=True)


async def everybody(
    store: Store, *barriers: Coroutine[Any, Any, None]
) -> list[asyncio.Future[Any]]:
    """Callers of every kind who leave together; in the order of their calls the records are zero to
    four.
    """
    await tick()  # whatever has just come back is done with
    calls: list[Coroutine[Any, Any, Any]] = [
        store.append(b"one"),
        store.append(b"two"),
        store.append_many([b"three", b"four"]),
        *(barriers or (store.flush(), store.sync())),
    ]
    return [*map(asyncio.ensure_future, calls), store.append_nowait(b"zero")]


def check_each_has_its_own(
    outcomes: Sequence[object], kind: type[AquipuError], cause: BaseException
) -> None:
    """All of them are errors of this kind with this cause, and no two are the same object."""
    assert [type(outcome) for outcome in outcomes] == [kind] * len(outcomes)
    assert len(set(map(id, outcomes))) == len(outcomes)
    assert all(isinstance(outcome, kind) and outcome.__cause__ is cause for outcome in outcomes)


async def check_closes_as_failed(store: Store) -> None:
    with pytest.raises(StoreFailedError):
        await store.aclose()
    assert open_descriptors(Path(store.path)) == []


POLICIES = pytest.mark.parametrize(
    "policy", [Always(), EveryN(64), OsManaged()], ids=["Always", "EveryN(64)", "OsManaged"]
)


class OracleDisk(Disk):
    """Knows by itself, from the frames' headers and the calls of the system, which sequences were
    written and synced: a sync covers the file that it is of, and no other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.written = 0
        """One past the last record written."""
        self.syncs = 0
        """Syncs that have returned, of any file."""
        self._unsynced: dict[int, int] = {}  # descriptor: first sequence that no sync has covered

    @property
    def synced(self) -> int:
        """Everything below was covered by a sync that has returned."""
        return min(self._unsynced.values(), default=self.written)

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        super().write(descriptor, buffers, offset)
        self._note(descriptor, buffers)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        is_alone = descriptor not in self._unsynced
        if not super().write_synced(descriptor, buffers, offset):
            return False
        self._note(descriptor, buffers)
        self.syncs += 1
        if is_alone:
            self._unsynced.pop(descriptor, None)
        return True

    def sync(self, descriptor: int) -> None:
        before = self._unsynced.get(descriptor), self.written
        super().sync(descriptor)
        self.syncs += 1
        if before == (self._unsynced.get(descriptor), self.written):
            self._unsynced.pop(descriptor, None)

    def _note(self, descriptor: int, buffers: Sequence[bytes]) -> None:
        if buffers[0].startswith(MAGIC):
            _, _, records, _, first = struct.unpack_from("<4sIIIQ", buffers[0])
            self._unsynced.setdefault(descriptor, first)
            self.written = first + records


class Clock:
    """Stands in for the system's clock, which may be set back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *times: int) -> None:
        self._times = list(times)
        monkeypatch.setattr("aquipu.commit.committer.time_ns", self)
        monkeypatch.setattr("aquipu.commit.guarding.time_ns", self)
        monkeypatch.setattr("aquipu.commit.writable.time_ns", self)

    def __call__(self) -> int:
        return self._times.pop(0) if len(self._times) > 1 else self._times[0]

    def set(self, time: int) -> None:
        self._times = [time]


async def data_of(store: Store, start: int | None = None, stop: int | None = None) -> list[bytes]:
    return [record.data async for record in store.scan(start, stop)]


async def sequences_of(
    store: Store, start: int | None = None, stop: int | None = None
) -> list[int]:
    return [record.sequence async for record in store.scan(start, stop)]


def numbered(number: int, size: int = 100) -> bytes:
    return (b"%d " % number * size)[:size]


async def filled(path: Path, *, size: int = 100, **options: Any) -> Store:
    """A store with the records 0 to 99, each in a commit of its own."""
    store = await Store.open(path, sync_policy=OsManaged(), **options)
    for number in range(100):
        await store.append(numbered(number, size))
    return store
