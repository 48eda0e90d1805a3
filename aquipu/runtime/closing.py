"""What is closed at the end: the `async with` that stores, readers, scans and followers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any, Generic, Self, SupportsIndex, TypeVar

from aquipu.record import Record


class Single:
    """What cannot be copied or pickled.

    A second one would write, wait and close without the knowledge of the first.
    """

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied or pickled: it belongs to one process and "
            "one event loop; pass its path on and open it there (where a store is to be written "
            "from several processes: `aquipu serve`, and Store.connect in each)"
        )


class Closing(Single, ABC):
    """Something to be closed; ``async with`` does it."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close it. May be called again."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


C = TypeVar("C", bound=Closing)


class Opening(Generic[C]):
    """What `open` gives: await it, or enter it for what is to be closed again at the end."""

    def __init__(self, open: Callable[[], Coroutine[Any, Any, C]]) -> None:
        self._open = open
        self._opened: C | None = None

    def __await__(self) -> Generator[Any, None, C]:
        return self._open().__await__()

    async def __aenter__(self) -> C:
        self._opened = await self._open()
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._opened is not None
        await self._opened.aclose()


class Records(Closing):
    """Records one after another: its own iterator, used once."""

    _ready: Iterator[Record]
    """The records decoded and not yet given."""

    @abstractmethod
    async def _refill(self) -> Record:
        """Get more, and give the first of them; StopAsyncIteration at the end."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        for record in self._ready:
            return record
        return await self._refill()

    async def batch(self) -> list[Record]:
        """Return the next record and those that were read with it; none at the end."""
        async for record in self:
            return [record, *self._ready]
        return []
