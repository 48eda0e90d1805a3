"""How callers go on when their commit has come back."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Future, Task, ensure_future
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from itertools import islice
from typing import Any

import pytest

from aquipu import Receipt, Stage
from aquipu.commit.resume import Kept, resumable, resume

pytestmark = pytest.mark.asyncio

place: ContextVar[str] = ContextVar("place")


def receipt(sequence: int) -> Receipt:
    return Receipt(sequence, 0, Stage.SYNCED)


def go_on(waiters: Sequence[Future[Any] | None], receipts: Iterable[Receipt]) -> int:
    left = list(waiters)
    return resume(left, resumable(left, receipts))


async def in_callback(call: Callable[[], object]) -> None:
    """Run it where a commit comes back: in a callback of the loop, with no task running."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def callback() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    loop.call_soon(callback)
    await done


async def waiting(
    count: int, story: list[object]
) -> tuple[list[Future[Receipt]], list[Task[None]]]:
    """Tasks that each await a future, and write down what came of it."""

    async def caller(future: Future[Receipt]) -> None:
        place.set(f"caller {futures.index(future)}")
        found = await future
        story.append((found.sequence, place.get()))

    futures: list[Future[Receipt]] = [
        asyncio.get_running_loop().create_future() for _ in range(count)
    ]
    tasks = [ensure_future(caller(future)) for future in futures]
    await asyncio.sleep(0)
    return futures, tasks


async def test_tasks_run_at_once_and_in_order() -> None:
    """Each caller goes on before `resume` returns, in the order of the commit, in its own context,
    with its own receipt.
    """
    story: list[object] = []
    futures, tasks = await waiting(3, story)

    def resume_all() -> None:
        go_on(futures, map(receipt, (7, 8, 9)))
        story.append("returned")

    await in_callback(resume_all)
    assert story == [(7, "caller 0"), (8, "caller 1"), (9, "caller 2"), "returned"]
    await asyncio.gather(*tasks)


async def test_a_future_is_let_go_of_when_its_task_was_run() -> None:
    """Each by itself, and not all of them together when the commit goes: that would call the
    garbage collector again and again.
    """
    story: list[object] = []
    futures, tasks = await waiting(3, story)
    waiters: list[Future[Receipt] | None] = [*futures]
    pairs = resumable(waiters, map(receipt, range(3)))
    await in_callback(lambda: resume(waiters, islice(pairs, 2)))
    assert waiters == [None, None, futures[2]]
    await in_callback(lambda: resume(waiters, pairs))
    assert waiters == [None, None, None]
    assert story == [(0, "caller 0"), (1, "caller 1"), (2, "caller 2")]
    await asyncio.gather(*tasks)


async def test_a_cancelled_caller_among_others() -> None:
    """It is left as it is, and its neighbours are told."""
    story: list[object] = []
    futures, tasks = await waiting(3, story)
    tasks[1].cancel()
    await in_callback(lambda: go_on(futures, map(receipt, range(3))))
    assert story == [(0, "caller 0"), (2, "caller 2")]
    with pytest.raises(CancelledError):
        await tasks[1]


async def test_a_caller_that_raises() -> None:
    """Its exception is its own: the others are told."""
    story: list[object] = []
    futures, tasks = await waiting(1, story)

    async def broken(future: Future[Receipt]) -> None:
        await future
        raise ValueError("its own")

    future: Future[Receipt] = asyncio.get_running_loop().create_future()
    task = ensure_future(broken(future))
    await asyncio.sleep(0)
    await in_callback(lambda: go_on([future, *futures], map(receipt, range(2))))
    assert story == [(1, "caller 0")]
    with pytest.raises(ValueError, match="its own"):
        await task
    await asyncio.gather(*tasks)


async def test_a_place_without_a_future() -> None:
    """The later records of a batch have none: they are passed over."""
    story: list[object] = []
    futures, tasks = await waiting(1, story)
    await in_callback(lambda: go_on([None, *futures], map(receipt, range(2))))
    assert story == [(1, "caller 0")]
    await asyncio.gather(*tasks)


async def test_a_future_that_was_given_away() -> None:
    """What `append_nowait` gave away is resolved as any future is: its callbacks run in their turn,
    all of them.
    """
    story: list[object] = []
    kept = Kept(loop=asyncio.get_running_loop())
    kept.add_done_callback(lambda future: story.append(("first", future.result().sequence)))
    kept.add_done_callback(lambda future: story.append(("second", future.result().sequence)))

    def resume_it() -> None:
        go_on([kept], [receipt(4)])
        story.append("returned")

    await in_callback(resume_it)
    await asyncio.sleep(0)
    assert story == ["returned", ("first", 4), ("second", 4)]


async def test_a_future_that_nobody_awaits_yet() -> None:
    """It is resolved, and whoever awaits it later has the receipt at once."""
    future: Future[Receipt] = asyncio.get_running_loop().create_future()
    await in_callback(lambda: go_on([future], [receipt(5)]))
    assert (await future).sequence == 5


async def test_a_task_that_ends_the_program() -> None:
    """KeyboardInterrupt passes through, and the iterator still holds those not yet resolved."""
    story: list[object] = []
    futures, tasks = await waiting(1, story)

    async def ends(future: Future[Receipt]) -> None:
        await future
        raise KeyboardInterrupt

    future: Future[Receipt] = asyncio.get_running_loop().create_future()
    task = ensure_future(ends(future))
    await asyncio.sleep(0)
    waiters: list[Future[Receipt] | None] = [future, *futures]
    pairs = resumable(waiters, map(receipt, range(2)))

    def resume_all() -> None:
        try:
            resume(waiters, pairs)
        except KeyboardInterrupt:
            story.append("ended")
        resume(waiters, pairs)

    await in_callback(resume_all)
    assert story == ["ended", (1, "caller 0")]
    assert isinstance(task.exception(), KeyboardInterrupt)
    await asyncio.gather(*tasks)
