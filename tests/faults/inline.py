"""Runs a program whose disk is memory, without the threads of the loop's pool.

A simulated disk makes nobody wait, so a call that blocks may as well be made at once. That saves
two thousand hand-overs between threads a second, most of what a crash state would cost. The worker
of a store keeps its thread: what passes between it and the loop is part of what is tested.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class InlineExecutor(ThreadPoolExecutor):
    """Makes each call in the thread that submits it."""

    def submit(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


def run_inline(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, with an `InlineExecutor`."""

    async def within() -> T:
        asyncio.get_running_loop().set_default_executor(InlineExecutor())
        return await main

    return asyncio.run(within())
