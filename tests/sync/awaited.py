"""A synchronous store whose calls can be awaited: each is made on a thread of its own.

So what is stated of any store can be stated of this one in the same words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import aquipu.sync
from aquipu.runtime.closing import Opening
from tests.remote.daemon.served import TIMEOUT, Served
from tests.sync.support import PATIENCE, begun

AT_ONCE = {"scan", "follow", "cursor", "append_nowait"}
"""What is no coroutine function of a `Store`."""


def wrapped(given: Any) -> Any:
    """What a call has given, as its own calls can be awaited."""
    return Awaited(given) if type(given).__module__.startswith("aquipu.sync") else given


async def awaited(call: Callable[[], Any]) -> Any:
    return wrapped(await asyncio.wrap_future(begun(call)))


class Awaited:
    """What stands for a store, a scan, a follower or a cursor."""

    def __init__(self, of: Any) -> None:
        self._of = of

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._of, name)
        if not callable(found) or name in {"statistics", "health", "position_after"}:
            return found
        if name == "append_nowait":
            return lambda *arguments, **options: asyncio.wrap_future(
                begun(partial(found, *arguments, **options)).result(PATIENCE)
            )
        if name in AT_ONCE:
            return lambda *arguments, **options: wrapped(
                begun(partial(found, *arguments, **options)).result(PATIENCE)
            )
        return lambda *arguments, **options: awaited(partial(found, *arguments, **options))

    async def aclose(self) -> None:
        await awaited(self._of.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        record = await awaited(lambda: next(self._of, None))
        if record is None:
            raise StopAsyncIteration
        return record


class Synchronous(Served):
    """A store whose clients have the synchronous face."""

    def connect(self, **options: Any) -> Any:
        connecting = partial(aquipu.sync.connect, self.address, **{"timeout": TIMEOUT, **options})
        return Opening(partial(awaited, connecting))
