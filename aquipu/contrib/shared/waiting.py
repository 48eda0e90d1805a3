"""Waiting for futures and tasks to their end, whatever it is."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import anyio

T = TypeVar("T")


async def outcome_of(future: asyncio.Future[Any] | Exception | None) -> Exception | None:
    """Return the error that the future ends with, or that was given in its place, if any."""
    if not isinstance(future, asyncio.Future):
        return future
    try:
        await future
    except Exception as error:
        return error
    return None


async def end_of(task: asyncio.Task[None]) -> None:
    """Wait for the task, also when cancelled; then raise what it raised, or the cancellation."""
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
    if not task.cancelled():
        task.result()


def result_of(call: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits, without a loop, and return what comes of it."""
    try:
        call.send(None)
    except StopIteration as end:
        return cast("T", end.value)
    call.close()
    raise RuntimeError("a call waits where there is no event loop")


def is_in_a_loop() -> bool:
    """Return whether this thread runs an event loop now."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
