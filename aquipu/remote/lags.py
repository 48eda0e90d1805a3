"""How far consumers are behind, as a daemon says it, for the statistics of its clients.

They are asked for from any thread and wait for nothing, so they are what the daemon said last. It
is asked when somebody wants to know, at most once a second, and through a connection that is there.
A daemon of an earlier version does not know the question; then nothing is known.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic

from aquipu.record import Lag
from aquipu.remote.connection import Connection
from aquipu.remote.protocol import Message, WireError, value_in

_PAUSE = 1.0  # seconds between two questions, at least


class Lags:
    """What one daemon has said of the cursors."""

    def __init__(self, connection: Connection, loop: AbstractEventLoop) -> None:
        """Begin with nothing known; no question is asked before somebody wants to know."""
        self._connection = connection
        self._loop = loop
        self._found: Mapping[str, Lag] = {}
        self._ask_at = 0.0

    def latest(self) -> Mapping[str, Lag]:
        """Return what was said last, by name, and have it asked again if that was not just now."""
        now = monotonic()
        if now >= self._ask_at:
            self._ask_at = now + _PAUSE
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._ask)
        return self._found

    def _ask(self) -> None:
        if self._connection.is_up:
            self._connection.send({"do": "cursors"}, (), self._heard)

    def _heard(self, message: Message | None) -> None:
        if message is not None and "error" not in message.head:
            with suppress(WireError):
                self._found = lags_in(message)


def lags_in(message: Message) -> dict[str, Lag]:
    """Return what an answer says. Raises WireError."""
    try:
        said = value_in(message.tail).items()
        return {
            name: Lag(int(sequence), int(records), float(seconds))
            for name, (sequence, records, seconds) in said
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise WireError("an answer does not say how far consumers are behind") from error
