"""Callers in a closed loop: each awaits its own append before it begins the next, as a request
handler does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter

from benchmarks.latency import Latencies
from benchmarks.settings import RECORD

Append = Callable[[bytes], Awaitable[object]]
"""`Store.append`, or what stands in its place; it returns when the record is as safe as was
configured.
"""

_WARM_UP = 0.1  # of the time of the run


async def closed_loop(append: Append, callers: int, seconds: float, data: bytes = RECORD) -> int:
    """Append for so many seconds; how many appends there were until the last caller had stopped."""
    running = True
    done = 0

    def stop() -> None:
        nonlocal running
        running = False

    async def caller() -> None:
        nonlocal done
        mine = 0
        while running:
            await append(data)
            mine += 1
        done += mine

    asyncio.get_running_loop().call_later(seconds, stop)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())
    return done


async def closed_appends(append: Append, callers: int, total: int, data: bytes = RECORD) -> None:
    """Append about so many records: each caller its share of them."""

    async def caller() -> None:
        for _ in range(total // callers):
            await append(data)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(callers):
            tasks.create_task(caller())


async def throughput(append: Append, callers: int, seconds: float, data: bytes = RECORD) -> float:
    """Appends per second, after a warm-up."""
    await closed_loop(append, callers, seconds * _WARM_UP, data)
    began = perf_counter()
    done = await closed_loop(append, callers, seconds, data)
    return done / (perf_counter() - began)


async def latencies(
    append: Append, callers: int, seconds: float, data: bytes = RECORD
) -> Latencies:
    """How long each append took. Looking at the clock costs too: `throughput` does not."""
    await closed_loop(append, callers, seconds * _WARM_UP, data)
    taken = Latencies()

    async def timed(data: bytes) -> None:
        began = perf_counter()
        await append(data)
        taken.note(perf_counter() - began)

    await closed_loop(timed, callers, seconds, data)
    return taken
