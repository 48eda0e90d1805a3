"""Room for appends on which an engine decides: within the bounds of the buffer, as all others.

Who waits for room has handed nothing over, and leaves the line when it is cancelled. So callers
that give up and try again, while a server does not answer, do not fill the memory.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol


class Bounds(Protocol):
    """How much may be handed over at a time."""

    buffer_records: int
    buffer_bytes: int


class _Turn(NamedTuple):
    records: int
    size: int
    comes: Future[None]


class Room:
    """What is handed over, and the line of those that wait for room, in the order of the calls."""

    def __init__(self, loop: AbstractEventLoop, bounds: Bounds) -> None:
        """Begin empty; the bounds may change."""
        self._loop = loop
        self._bounds = bounds
        self.records = 0
        """Handed over."""
        self.size = 0
        """Of these, in bytes."""
        self._line: deque[_Turn] = deque()

    async def take(self, records: int, size: int) -> None:
        """Wait until there is room for these; what is larger than the bounds goes alone."""
        if not self._line and self._fits(records, size):
            self._enter(records, size)
            return
        turn = _Turn(records, size, self._loop.create_future())
        self._line.append(turn)
        try:
            await turn.comes
        except BaseException:
            with suppress(ValueError):
                self._line.remove(turn)
            if turn.comes.done() and not turn.comes.cancelled() and not turn.comes.exception():
                self.give(records, size)  # it had come
            else:
                self._admit()
            raise

    def give(self, records: int, size: int) -> None:
        """Leave: there is an outcome."""
        self.records -= records
        self.size -= size
        self._admit()

    def close(self, error: Callable[[], Exception]) -> None:
        """Fail everyone who waits."""
        while self._line:
            turn = self._line.popleft()
            if not turn.comes.done():
                turn.comes.set_exception(error())

    def _fits(self, records: int, size: int) -> bool:
        return not self.records or (
            self.records + records <= self._bounds.buffer_records
            and self.size + size <= self._bounds.buffer_bytes
        )

    def _enter(self, records: int, size: int) -> None:
        self.records += records
        self.size += size

    def _admit(self) -> None:
        while self._line and (self._line[0].comes.done() or self._fits(*self._line[0][:2])):
            turn = self._line.popleft()
            if not turn.comes.done():
                self._enter(turn.records, turn.size)
                turn.comes.set_result(None)
