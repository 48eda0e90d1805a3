"""The measuring: single syncs, and stores under load, in a directory of its own.

Every run opens a store of its own in it, and has so many tasks append one record after another,
each of which waits until it is acknowledged. What is timed is what a program sees.
"""

from __future__ import annotations

from array import array
from asyncio import CancelledError, create_task, gather, sleep
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import ENOSPC
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from time import perf_counter

from anyio import to_thread

from aquipu.cli.bench.plan import RECORD_BYTES, Plan
from aquipu.cli.bench.results import Run, SyncCost, run_of, sync_cost
from aquipu.local.disk.disk import Disk, opened
from aquipu.policy import Always, EveryN, SyncPolicy
from aquipu.store import Store

PREFIX = ".aquipu-bench-"
"""Beginning of the name of the directory in which everything happens."""
_BLOCK = 4096
_FILE_BYTES = 4 * 1024 * 1024  # over which single syncs go round
_LOOK_SECONDS = 0.02  # between two looks at what is not yet synced
_TIMED = 8  # of so many appends one is timed, where there are many
_SYNCS_MIN = 20
_TURN_SECONDS = 0.1

Say = Callable[[str], None]
"""Shows what is being measured."""


@contextmanager
def workplace(directory: str, plan: Plan, disk: Disk) -> Iterator[str]:
    """Give a new directory in this one, and remove it with all that is in it.

    Raises OSError, also when there is not enough space.
    """
    free = disk.free(directory)
    if free < plan.needed_bytes:
        raise OSError(
            ENOSPC,
            f"{free:,} bytes are free, and measuring needs {plan.needed_bytes:,}; nothing was "
            "written",
            directory,
        )
    place = mkdtemp(prefix=PREFIX, dir=directory)
    try:
        yield place
    finally:
        rmtree(place, ignore_errors=True)


async def measured(place: str, plan: Plan, disk: Disk, say: Say) -> tuple[SyncCost, list[Run]]:
    """Measure all of the plan."""
    say("single syncs")
    cost = await syncs(place, plan.sync_seconds, disk)
    runs = []
    for number, (name, policy, callers) in enumerate(plan.runs, 1):
        say(f"{number} of {len(plan.runs)}: {name}, {_callers(callers)}")
        runs.append(await _run(f"{place}/store", name, policy, callers, plan))
    return cost, runs


def _callers(number: int) -> str:
    return "1 caller" if number == 1 else f"{number} callers"


async def syncs(place: str, seconds: float, disk: Disk) -> SyncCost:
    """Measure what it costs to write a block of a file that is there, and to sync it."""
    path, costs = f"{place}/syncs", array("d")
    disk.close(disk.create(path))
    with opened(disk, path, writable=True) as descriptor:
        disk.write(descriptor, [bytes(_FILE_BYTES)], 0)
        disk.sync(descriptor)
        end = perf_counter() + seconds
        while perf_counter() < end or len(costs) < _SYNCS_MIN:  # in turns, so that it can be ended
            await to_thread.run_sync(_sync_some, disk, descriptor, costs)
    disk.remove(path)
    return sync_cost(costs)


def _sync_some(disk: Disk, descriptor: int, costs: array[float]) -> None:
    end = perf_counter() + _TURN_SECONDS
    while perf_counter() < end:
        offset = len(costs) * _BLOCK % _FILE_BYTES
        disk.write(descriptor, [b"\xa5" * _BLOCK], offset)
        begun = perf_counter()
        disk.sync(descriptor)
        costs.append(perf_counter() - begun)


async def _run(path: str, name: str, policy: SyncPolicy, callers: int, plan: Plan) -> Run:
    """Measure one store under load, and remove it."""
    try:
        async with Store.open(path, sync_policy=policy) as store:
            load = _Load(store, policy, plan)
            await load.carry(callers)
        return run_of(
            name,
            callers,
            load.records,
            load.seconds,
            load.waits,
            _bound(policy),
            load.unsynced,
        )
    finally:
        await to_thread.run_sync(_removed, path)


def _removed(path: str) -> None:
    if Path(path).exists():
        rmtree(path, ignore_errors=True)


def _bound(policy: SyncPolicy) -> int | None:
    if isinstance(policy, Always):
        return 0
    return policy.n - 1 if isinstance(policy, EveryN) else None


class _Load:
    """Tasks that append to one store until the time, or what may be written, is used up."""

    def __init__(self, store: Store, policy: SyncPolicy, plan: Plan) -> None:
        self.records = 0
        self.seconds = 0.0
        self.waits = array("d")
        self.unsynced = 0
        self._store = store
        self._records_max = plan.run_bytes // (RECORD_BYTES + 64)
        self._run_seconds = plan.run_seconds
        self._timed = 1 if isinstance(policy, Always) else _TIMED
        self._is_over = False

    async def carry(self, callers: int) -> None:
        looking = create_task(self._look())
        begun = perf_counter()
        self._end = begun + self._run_seconds
        try:
            await gather(*(self._append() for _ in range(callers)))
            self.seconds = perf_counter() - begun
        finally:
            looking.cancel()
            with suppress(CancelledError):
                await looking

    async def _append(self) -> None:
        data, append = b"\x5a" * RECORD_BYTES, self._store.append
        begun = perf_counter()
        while True:  # once at least, however busy the machine is
            for turn in range(self._timed):
                await append(data)
                if not turn:
                    self.waits.append(perf_counter() - begun)
            self.records += self._timed
            begun = perf_counter()
            if begun >= self._end or self.records >= self._records_max:
                return

    async def _look(self) -> None:
        while True:
            unsynced = self._store.statistics().unsynced_records
            self.unsynced = max(self.unsynced, unsynced)
            await sleep(_LOOK_SECONDS)
