"""The clients of a stream: where each is, what it wants, and how it is written to.

A server may have an extension of ASGI that gives, with each request, a call that writes a piece of
its response: the bytes as they travel, made once for all clients, without a turn of each client's
task. The server of `aquipu web` has it. With any other, each task sends its client what comes.
"""

from __future__ import annotations

from asyncio import Future, get_running_loop
from collections.abc import Callable
from typing import Any, NamedTuple

EXTENSION = "aquipu.direct"
"""Its name in the extensions of a request."""

Write = Callable[[bytes], bool]
"""Sends a piece that was `framed`, or returns False and sends nothing: the client has not yet taken
what it was sent before, or its response is not under way.
"""


def write_of(scope: Any) -> Write | None:
    """Return what writes to the client of a request, where the server has it."""
    write: Write | None = (scope.get("extensions") or {}).get(EXTENSION)
    return write


def framed(piece: bytes) -> bytes:
    """Return a piece as it travels in a response of HTTP/1.1 without a length."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


class Labels(NamedTuple):
    """The labels of the records that a client wants."""

    every: frozenset[str]
    any_of: frozenset[str]

    def fit(self, carried: tuple[str, ...]) -> bool:
        """Return whether a record with these labels is wanted."""
        return self.every.issubset(carried) and (
            not self.any_of or not self.any_of.isdisjoint(carried)
        )


class Place:
    """Where a client is, and what it wants."""

    __slots__ = ("_due", "next", "wanted", "write", "written")

    def __init__(self, wanted: Labels, write: Write | None) -> None:
        self.next = 0
        """Sequence from which it has been sent nothing."""
        self.wanted = wanted
        self.write = write
        """What sends to it directly, if anything does."""
        self.written = False
        """Whether anything was, since its task has waited."""
        self._due: Future[None] | None = None

    async def wait(self) -> None:
        """Wait until its task has something to do."""
        self.written = False
        self._due = get_running_loop().create_future()
        try:
            await self._due
        finally:
            self._due = None

    def wake(self) -> None:
        """Let its task go on."""
        if self._due is not None and not self._due.done():
            self._due.set_result(None)
