"""Catching up: very many followers that begin with the first record at once, beside one scan."""

from __future__ import annotations

import gc
import tracemalloc
from asyncio import gather, sleep
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter, process_time

from aquipu import OsManaged, Reader, Store
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.report import Table, Target, count, times
from benchmarks.settings import Settings

_FOLLOWERS = 1_500
_BATCH = 256
_YIELD = 50  # records that a follower takes before it lets the others go on
_KIB = 1024
_SCAN, _TOGETHER, _MEMORY = "one scan", "followers together", "memory of followers"


def measure(settings: Settings, progress: Progress, directory: Path) -> Rounds:
    """Everything in its rounds, on a store of a hundredth of the records."""
    path = directory / "followed"
    in_loop(settings, partial(_write, path, _records(settings)))
    contenders: dict[str, Contender] = {
        _SCAN: partial(_in_reader, settings, path, partial(_scan, _followers(settings))),
        _TOGETHER: partial(_in_reader, settings, path, partial(_together, _followers(settings))),
        _MEMORY: partial(_in_reader, settings, path, partial(_memory, _followers(settings))),
    }
    return interleaved(contenders, settings.rounds, progress)


def _records(settings: Settings) -> int:
    return max(settings.records // 100, _BATCH)


def _followers(settings: Settings) -> int:
    return min(_FOLLOWERS, settings.records // 100)


async def _write(path: Path, records: int) -> None:
    async with Store.open(path, sync_policy=OsManaged()) as store:
        for number in range(records):
            labels = (f"user:{number % 9973}", f"action:{number % 20}", f"region:{number % 4}")
            last = store.append_nowait(b"%08d" % number * 11, relations=labels)
            if number % _BATCH == _BATCH - 1:
                await last
        await last


def _in_reader(
    settings: Settings, path: Path, measured: Callable[[Reader], Awaitable[Sample]]
) -> Sample:
    async def opened() -> Sample:
        async with Reader.open(path) as reader:
            return await measured(reader)

    return in_loop(settings, opened)


async def _scan(scans: int, reader: Reader) -> Sample:
    """Several scans one after another, and about a tenth of what the followers are given."""
    given, began, computed = 0, perf_counter(), process_time()
    for _ in range(max(scans // 10, 1)):
        async for _ in reader.scan():
            given += 1
    return _rates(given, began, computed)


async def _together(followers: int, reader: Reader) -> Sample:
    stop = reader.next_sequence

    async def follow() -> int:
        given = 0
        async with reader.follow(0) as records:
            async for record in records:
                given += 1
                if given % _YIELD == 0:
                    await sleep(0)
                if record.sequence + 1 == stop:
                    break
        return given

    began, computed = perf_counter(), process_time()
    given = sum(await gather(*(follow() for _ in range(followers))))
    if given != followers * stop:
        raise RuntimeError(f"{followers} followers were given {given} records of {stop}")
    return _rates(given, began, computed)


def _rates(given: int, began: float, computed: float) -> Sample:
    return {
        "records/s": given / (perf_counter() - began),
        "by CPU": given / (process_time() - computed),
    }


async def _memory(followers: int, reader: Reader) -> Sample:
    """What each holds that has stopped somewhere in the first eighth."""
    follows = [reader.follow(0) for _ in range(followers)]
    random = Random(1)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for follow in follows:
        for _ in range(random.randrange(1, reader.next_sequence // 8)):
            await anext(follow)
    gc.collect()
    held = (tracemalloc.get_traced_memory()[0] - before) / followers
    tracemalloc.stop()
    for follow in follows:
        await follow.aclose()
    return {"KiB": held / _KIB}


def table(settings: Settings, rounds: Rounds) -> Table:
    """The followers beside a scan."""
    rows = [
        [name, *(count(rounds.median(name, quantity)) for quantity in ("records/s", "by CPU")), ""]
        for name in (_SCAN, _TOGETHER)
    ]
    rows[1][-1] = f"{rounds.median(_MEMORY, 'KiB'):.1f} KiB"
    ratios = [
        times(rounds.ratio(_TOGETHER, _SCAN, quantity)) for quantity in ("records/s", "by CPU")
    ]
    rows.append(["of that", *ratios, ""])
    title = (
        f"{_followers(settings):,} followers that catch up at once in {_records(settings):,} "
        "records of 88 bytes with 3 labels"
    )
    return Table(title, ["", "records/s", "by CPU", "each holds"], rows)


def targets(rounds: Rounds) -> list[Target]:
    """What was set beforehand."""
    together = rounds.ratio(_TOGETHER, _SCAN, "records/s")
    held = rounds.median(_MEMORY, "KiB")
    return [
        Target("followers that catch up together, of the rate of one scan", together, 1.0, "×"),
        Target("memory of a follower that catches up", held, 128, " KiB", at_least=False),
    ]
