"""The states of an open log, and what leads from one to the next. Pure.

::

             fail                 close               end
    OPEN ──────────▶ FAILED ───────────────▶ CLOSING ─────▶ CLOSED
      │                                         ▲
      ├──────────────── close ──────────────────┘
      ├── fork ──▶ FORKED     in a child process: the parent has the log
      └── leave ─▶ LEFT       the program has dropped it and never closed it

What is not in the table changes nothing: a log that is closing does not fail any more as far as
its callers see, and one that is closed stays so. What is not yet elegant: that a log *has* failed
is remembered beside its state, because closing it must say so.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

from aquipu.errors import AquipuError, ForkedStoreError, StoreClosedError, StoreFailedError


class State(Enum):
    """How far the life of a log has come."""

    OPEN = "open"
    FAILED = "failed"
    CLOSING = "closing"
    CLOSED = "closed"
    FORKED = "forked"
    LEFT = "left"


class Event(Enum):
    """What may happen to a log."""

    FAIL = auto()
    CLOSE = auto()
    END = auto()
    FORK = auto()
    LEAVE = auto()


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.OPEN, Event.FAIL): State.FAILED,
    (State.OPEN, Event.CLOSE): State.CLOSING,
    (State.FAILED, Event.CLOSE): State.CLOSING,
    (State.CLOSING, Event.END): State.CLOSED,
    **{(state, Event.FORK): State.FORKED for state in State if state is not State.CLOSED},
    (State.OPEN, Event.LEAVE): State.LEFT,
    (State.FAILED, Event.LEAVE): State.LEFT,
    (State.CLOSING, Event.LEAVE): State.CLOSING,  # and it is not waited for to its end
}


_SEEN: dict[State, Literal["open", "failed", "closing", "closed"]] = {
    State.OPEN: "open",
    State.FAILED: "failed",
    State.CLOSING: "closing",
    State.CLOSED: "closed",
    State.FORKED: "closed",
    State.LEFT: "open",
}


class Lifecycle:
    """The state of one log, and the error that it answers with."""

    __slots__ = ("failure", "path", "refusal", "state")

    def __init__(self, path: str) -> None:
        self.path = path
        self.state = State.OPEN
        self.failure: StoreFailedError | None = None
        """Why it has failed, also when it is closed by now."""
        self.refusal: AquipuError | None = None
        """Why nothing more is accepted; None as long as it is open."""

    def _take(self, event: Event) -> bool:
        """Go on to the next state, and return whether there is one."""
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            return False
        self.state = following
        return True

    def fail(self, failure: StoreFailedError) -> None:
        """Take note that the outcome of a write is unknown."""
        self.failure = failure
        if self._take(Event.FAIL):
            self.refusal = failure

    def close(self) -> None:
        """Accept nothing more."""
        if self._take(Event.CLOSE):
            self.refusal = StoreClosedError(self.path)

    def end(self) -> None:
        """Take note that closing has come to its end."""
        self._take(Event.END)

    def fork(self) -> None:
        """Take note that this is a child of the process that has the log."""
        if self._take(Event.FORK):
            self.refusal = ForkedStoreError(self.path)

    def leave(self) -> bool:
        """Take note that the program has dropped the log; return False when it was over before."""
        return self._take(Event.LEAVE)

    @property
    def state_seen(self) -> Literal["open", "failed", "closing", "closed"]:
        """The state as statistics and texts name it."""
        return _SEEN[self.state]

    @property
    def is_open(self) -> bool:
        """Whether records are accepted."""
        return self.refusal is None

    @property
    def is_closing(self) -> bool:
        """Whether `aclose` has begun."""
        return self.state in (State.CLOSING, State.CLOSED)

    @property
    def is_forked(self) -> bool:
        """Whether the log belongs to the parent of this process."""
        return self.state is State.FORKED
