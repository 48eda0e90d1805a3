"""Threads that append by `aquipu.sync`, beside tasks of a loop, and beside what a program without
asyncio would write by hand: a loop for each call, or anyio's blocking portal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

from anyio.from_thread import start_blocking_portal

import aquipu.sync
from aquipu import Always, Store
from aquipu.statistics import Statistics
from benchmarks.contender import scratch
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.report import Report, Table, Target, count, times
from benchmarks.settings import RECORD, Settings
from benchmarks.workload import throughput

CALLERS = 8

_TASKS = f"{CALLERS} tasks of a loop"
_THREADS = f"{CALLERS} threads, aquipu.sync"
_PORTAL = f"{CALLERS} threads, anyio's portal"
_TASK = "1 task of a loop"
_THREAD = "1 thread, aquipu.sync"
_ALONE = "1 thread, a loop and a store for each call"


def run(settings: Settings, progress: Progress) -> Report:
    """All of them under Always."""
    contenders: dict[str, Contender] = {
        name: partial(_measured, settings, call)
        for name, call in {
            _TASKS: partial(_tasks, settings, CALLERS),
            _THREADS: partial(_threads, settings, CALLERS),
            _PORTAL: partial(_portal, settings, CALLERS),
            _TASK: partial(_tasks, settings, 1),
            _THREAD: partial(_threads, settings, 1),
            _ALONE: partial(_loops, settings),
        }.items()
    }
    rounds = interleaved(contenders, settings.rounds, progress)
    return Report("synchronous", tables=[_table(rounds)], targets=_targets(rounds), rounds=rounds)


def _measured(settings: Settings, call: Callable[[Path], Sample]) -> Sample:
    with scratch(settings) as directory:
        return call(directory / "store")


def _tasks(settings: Settings, callers: int, path: Path) -> Sample:
    async def measured() -> Sample:
        async with Store.open(path, sync_policy=Always()) as store:
            each = await throughput(store.append, callers, settings.seconds)
            return _sample(each, store.statistics())

    return in_loop(settings, measured)


def _threads(settings: Settings, callers: int, path: Path) -> Sample:
    with aquipu.sync.open(path, sync_policy=Always()) as store:
        each = _in_threads(store.append, callers, settings.seconds)
        return _sample(each, store.statistics())


def _portal(settings: Settings, callers: int, path: Path) -> Sample:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Store.open(path, sync_policy=Always())) as store,
    ):
        each = _in_threads(partial(portal.call, store.append), callers, settings.seconds)
        return _sample(each, store.statistics())


def _loops(settings: Settings, path: Path) -> Sample:
    async def once(data: bytes) -> None:
        async with Store.open(path, sync_policy=Always()) as store:
            await store.append(data)

    each = _in_threads(lambda data: asyncio.run(once(data)), 1, settings.seconds)
    return {"appends/s": each, "records": 1.0}


def _in_threads(append: Callable[[bytes], object], callers: int, seconds: float) -> float:
    """Appends per second of threads of which each waits for its own before the next."""
    begin, done = Event(), []
    end = float("inf")

    def caller() -> None:
        append(RECORD)  # a warm-up
        begin.wait()
        mine = 0
        while perf_counter() < end:
            append(RECORD)
            mine += 1
        done.append(mine)

    threads = [Thread(target=caller) for _ in range(callers)]
    for thread in threads:
        thread.start()
    began = perf_counter()
    end = began + seconds
    begin.set()
    for thread in threads:
        thread.join()
    if len(done) < callers:
        raise RuntimeError("a thread has failed")
    return sum(done) / (perf_counter() - began)


def _sample(each: float, statistics: Statistics) -> Sample:
    return {"appends/s": each, "records": statistics.records / statistics.commits}


# what is shown


def _table(rounds: Rounds) -> Table:
    rows = []
    for name in rounds.samples:
        beside = _TASKS if name in (_TASKS, _THREADS, _PORTAL) else _TASK
        rows.append(
            [
                name,
                count(rounds.median(name, "appends/s")),
                times(rounds.ratio(name, beside, "appends/s")),
                f"{rounds.median(name, 'records'):.1f}",
            ]
        )
    title = "Appends of 256 bytes under Always, without asyncio"
    return Table(title, ["", "appends/s", "of as many tasks", "records in a commit"], rows)


def _targets(rounds: Rounds) -> list[Target]:
    return [
        Target(f"{_THREADS}, of {_TASKS}", rounds.ratio(_THREADS, _TASKS, "appends/s"), 0.5, "×")
    ]
