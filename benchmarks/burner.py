"""A task that never lets the loop rest: it computes for a while in every iteration, and yields."""

from __future__ import annotations

import asyncio
from time import perf_counter, thread_time

from benchmarks.latency import Latencies
from benchmarks.measure import Sample
from benchmarks.settings import RECORD
from benchmarks.workload import Append

CALLERS = 16


async def burn(burning: float, seconds: float) -> int:
    """Compute for ``burning`` seconds of CPU in each iteration of the loop; how many iterations
    there were.
    """
    iterations = 0
    end = perf_counter() + seconds
    while perf_counter() < end:
        until = thread_time() + burning
        while thread_time() < until:
            pass
        iterations += 1
        await asyncio.sleep(0)
    return iterations


async def beside(append: Append, burning: float, seconds: float) -> Sample:
    """Callers in a closed loop beside the burning.

    Only what finished before the burning stopped counts.
    """
    taken = Latencies()
    burns = True

    async def caller() -> None:
        while burns:
            began = perf_counter()
            await append(RECORD)
            if burns:
                taken.note(perf_counter() - began)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(caller())
        iterations = await burn(burning, seconds)
        burns = False
    return {
        "p50": taken.percentile(50),
        "p99": taken.percentile(99),
        "finished": float(len(taken)),
        "iterations/s": iterations / seconds,
    }
