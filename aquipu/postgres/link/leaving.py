"""The end of a program that writes to a database: what was accepted is sent without its loop."""

from __future__ import annotations

from asyncio import run, timeout
from collections.abc import Callable
from functools import partial
from logging import getLogger
from threading import Thread
from time import monotonic
from typing import Any

from aquipu.postgres.link.carrier import APPEND
from aquipu.postgres.link.driver import connect, reason_of
from aquipu.runtime.exit import EXIT_SECONDS, at_exit, is_ending

_log = getLogger(__name__)

_threads: list[Thread] = []
_undelivered: list[Callable[[float], None]] = []


def leave(path: str, dsn: str, calls: list[tuple[Any, ...]]) -> None:
    """Make these calls in the background; at the exit, when it waits."""
    deliver = partial(_deliver_or_say, path, dsn, calls)
    if is_ending():
        _undelivered.append(deliver)
        return
    thread = Thread(
        target=deliver, args=(monotonic() + EXIT_SECONDS,), name="aquipu-leave", daemon=True
    )
    thread.start()
    _threads[:] = [one for one in _threads if one.is_alive()]
    _threads.append(thread)


def _wait(deadline: float) -> None:
    while _undelivered:
        _undelivered.pop()(deadline)
    for thread in _threads:
        thread.join(max(deadline - monotonic(), 0))


def _deliver_or_say(path: str, dsn: str, calls: list[tuple[Any, ...]], deadline: float) -> None:
    try:
        run(_deliver(dsn, calls, deadline))
    except Exception as error:
        _log.error(
            "%s was not closed, and the database did not take what was accepted before the exit: "
            "records that were accepted and not yet acknowledged may be missing; "
            "use aclose() or `async with`: %s",
            path,
            reason_of(error),
        )


async def _deliver(dsn: str, calls: list[tuple[Any, ...]], deadline: float) -> None:
    async with timeout(max(deadline - monotonic(), 0.01)):
        connection = await connect(dsn, "read-write")
        try:
            for arguments in calls:
                await connection.fetchrow(APPEND, *arguments)
        finally:
            connection.terminate()


at_exit(_wait)
