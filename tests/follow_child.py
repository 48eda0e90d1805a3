"""The processes of `test_reader`: one that writes, and those that follow. Each reports on its
standard output.

A line ``sequence moment`` for each record: of the writer when its caller has been told, of a
follower when it was given. Moments are of the clock that all processes share (CLOCK_MONOTONIC), in
nanoseconds. The lines come in one piece at the end, so that nobody waits for the pipe; a writer
that is to be killed reports at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from time import monotonic_ns

from aquipu import Always, Reader, Store

TASKS = 64
SEGMENT_BYTES = 64 * 1024


def data_of(task: int, number: int) -> bytes:
    """What the record holds."""
    return b"%d-%d:" % (task, number) + bytes(number % 50)


def say(line: str) -> None:
    """To the test, at once."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


async def write(path: str, count: str) -> None:
    """From many tasks, so many records each, in all the ways to append; with a count of 0, until it
    is killed.

    Three followers in the same process hold what they are given against what was told.
    """
    at_once = count == "0"
    told: dict[int, int] = {}
    lines: list[str] = []
    report = say if at_once else lines.append
    async with Store.open(path, sync_policy=Always(), max_segment_bytes=SEGMENT_BYTES) as store:
        say("open")
        followers = [asyncio.create_task(check(store, told)) for _ in range(3)]

        async def append(task: int) -> None:
            number = 0
            while at_once or number < int(count):
                data = data_of(task, number)
                if number % 10 == 3:
                    (receipt,) = await store.append_many([data])
                elif number % 10 == 7:
                    receipt = await store.append_nowait(data)
                else:
                    receipt = await store.append(data)
                told[receipt.sequence] = monotonic_ns()
                report(f"{receipt.sequence} {told[receipt.sequence]}")
                number += 1

        await asyncio.gather(*map(append, range(TASKS)))
    for follower in followers:
        assert await follower == len(told)
    if lines:
        say("\n".join(lines))


async def check(store: Store, told: dict[int, int]) -> int:
    """Each record once, in order, after its own caller was told. How many there were."""
    following = store.next_sequence
    begun = following
    async with store.follow() as records:
        async for record in records:
            assert record.sequence == following
            assert told[following] <= monotonic_ns()
            following += 1
    return following - begun


async def follow(path: str, count: str) -> None:
    """From the first record on, so many of them."""
    lines: list[str] = []
    async with Reader.open(path) as reader, reader.follow(0) as records:
        say("open")
        async for record in records:
            lines.append(f"{record.sequence} {monotonic_ns()}")
            if len(lines) == int(count):
                break
    say("\n".join(lines))


async def leave(path: str, count: str) -> Store:
    """Accept so many records, and give up the loop with the store open: they are written when the
    interpreter ends.
    """
    store = await Store.open(path, max_segment_bytes=SEGMENT_BYTES)
    await store.append(b"acknowledged")
    for _ in range(int(count)):
        store.append_nowait(bytes(1000))
    return store


async def die(path: str, count: str) -> None:
    """Append together; the first who is told that its record is stored ends the process."""
    store = await Store.open(path, sync_policy=Always())
    say("open")

    async def append() -> None:
        await store.append(b"acknowledged")
        os._exit(0)

    await asyncio.gather(*(append() for _ in range(int(count))))


if __name__ == "__main__":
    if sys.argv[1] == "leave":
        left = asyncio.new_event_loop().run_until_complete(leave(*sys.argv[2:]))
    else:
        asyncio.run({"write": write, "follow": follow, "die": die}[sys.argv[1]](*sys.argv[2:]))
