"""Room for appends on which an engine decides."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from aquipu.commit.room import Room

pytestmark = pytest.mark.asyncio


def room(records: int = 4, size: int = 100) -> Room:
    bounds = SimpleNamespace(buffer_records=records, buffer_bytes=size)
    return Room(asyncio.get_running_loop(), bounds)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_is_bounded_and_in_order() -> None:
    """Records and bytes; nobody overtakes one that waits; what is too large goes alone."""
    it, done = room(), list[str]()

    async def enter(name: str, records: int, size: int) -> None:
        await it.take(records, size)
        done.append(name)

    await enter("first", 3, 10)
    tasks = [
        asyncio.ensure_future(enter(*one)) for one in [("two", 2, 1), ("one", 1, 1), ("big", 1, 99)]
    ]
    await turns()
    assert (done, it.records) == (["first"], 3)
    it.give(3, 10)
    await turns()
    assert (done, it.records, it.size) == (["first", "two", "one"], 3, 2)
    it.give(2, 1)
    it.give(1, 1)
    await turns()
    assert (done[-1], it.records) == ("big", 1)
    it.give(1, 99)
    await enter("larger than all", 50, 5000)
    await asyncio.gather(*tasks)


async def test_who_gives_up() -> None:
    """Leaves the line, and does not hold up those behind; one whose turn had come gives it back."""
    it = room()
    await it.take(3, 0)
    large, small = (asyncio.ensure_future(it.take(records, 0)) for records in (4, 1))
    await turns()
    large.cancel()
    await turns()
    assert small.done()
    late = asyncio.ensure_future(it.take(2, 0))
    await turns()
    it.give(3, 0)
    late.cancel()  # in the moment in which its turn has come
    await turns()
    assert late.cancelled()
    assert it.records == 1


async def test_the_end() -> None:
    """Who waits gets the error."""
    it = room()
    await it.take(4, 0)
    waiting = asyncio.ensure_future(it.take(1, 0))
    await turns()
    it.close(lambda: KeyError("closed"))
    with pytest.raises(KeyError):
        await waiting
    assert it.records == 4
