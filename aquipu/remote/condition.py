"""How a daemon says that it is, for the health of its clients.

Belongs to the loop; only `reasons` and `watch` are for any thread.

The health of a client is asked from any thread and waits for nothing, so what it says of the
daemon is what the daemon said last. From the first time that somebody wants to know, the daemon is
asked every two seconds, through a connection that is there: no connection is made for it. What the
daemon said longer than ten seconds ago is repeated no more; that it has not said anything since is.
Where the connection has ended, that is said: the daemon was started anew, or is there no more, and
which of the two it is shows when somebody calls.
A daemon of an earlier version does not know the question, and is not asked again before it is
started anew.
"""

from __future__ import annotations

import weakref
from asyncio import AbstractEventLoop, TimerHandle
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from aquipu.remote.connection import Connection
from aquipu.remote.protocol import Message, WireError, health_in

_PAUSE = 2.0  # seconds between two questions
_OLD_SECONDS = 10.0


class _Said(NamedTuple):
    state: str
    reasons: tuple[str, ...]
    at: float


class Condition:
    """What is known of one daemon."""

    def __init__(self, connection: Connection, loop: AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop
        self._said: _Said | None = None
        self._is_watched = False
        self._is_asked = False
        self._timer: TimerHandle | None = None

    # from any thread

    def watch(self) -> None:
        """Somebody wants to know, now and from now on."""
        if not self._is_watched:
            self._is_watched = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._ask)

    @property
    def failure(self) -> str | None:
        """Why the daemon takes nothing more."""
        said = self._said
        if said is None or said.state != "failed" or monotonic() - said.at > _OLD_SECONDS:
            return None
        return "; ".join(said.reasons)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is in the way of the daemon, one sentence each."""
        if not self._connection.is_up:
            return ("the daemon has ended the connection; the next call makes it anew",)
        said = self._said
        if said is None:
            return ()
        age = monotonic() - said.at
        if age > _OLD_SECONDS:
            return (f"the daemon has not said for {age:.0f} s how it is",)
        return tuple(f"the daemon says: {reason}" for reason in said.reasons)

    # on the loop

    def forget(self) -> None:
        """Drop what was said: the daemon is another one or was restarted.

        It is asked at once, if the health was ever asked for.
        """
        self._said, self._is_asked = None, False
        if self._is_watched:
            self._ask()

    def close(self) -> None:
        """Ask no more."""
        self._is_watched = True  # nobody begins again
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None

    def _ask(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._connection.is_up and not self._is_asked:
            self._is_asked = True
            self._connection.send({"do": "health"}, (), self._heard)
        self._timer = self._loop.call_later(_PAUSE, _ask_again, weakref.ref(self))

    def _heard(self, message: Message | None) -> None:
        self._is_asked = False
        if message is None:  # the connection was lost
            self._said = None
        elif "error" in message.head:  # an earlier version
            self.close()
        else:
            with suppress(WireError):
                self._said = _Said(*health_in(message.tail), monotonic())


def _ask_again(condition: weakref.ref[Condition]) -> None:
    """Ask again, unless the condition is gone: the timer keeps none alive."""
    living = condition()
    if living is not None and living._timer is not None:
        living._ask()
