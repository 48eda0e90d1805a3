"""The states of an open log: every state, every event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aquipu.errors import ForkedStoreError, StoreClosedError, StoreFailedError
from aquipu.runtime.lifecycle import TRANSITIONS, Event, Lifecycle, State

FAILURE = StoreFailedError("/log", "fdatasync failed")
DO: dict[Event, Callable[[Lifecycle], Any]] = {
    Event.FAIL: lambda life: life.fail(FAILURE),
    Event.CLOSE: Lifecycle.close,
    Event.END: Lifecycle.end,
    Event.FORK: Lifecycle.fork,
    Event.LEAVE: Lifecycle.leave,
}
TABLE = """
          FAIL    CLOSE    END     FORK    LEAVE
OPEN      FAILED  CLOSING  -       FORKED  LEFT
FAILED    -       CLOSING  -       FORKED  LEFT
CLOSING   -       -        CLOSED  FORKED  CLOSING
CLOSED    -       -        -       -       -
FORKED    -       -        -       FORKED  -
LEFT      -       -        -       FORKED  -
"""
"""Where each event leads from each state; a dash: nothing changes."""


def expected() -> dict[tuple[State, Event], State]:
    head, *rows = [line.split() for line in TABLE.strip().splitlines()]
    return {
        (State[state], Event[event]): State[following]
        for state, *cells in rows
        for event, following in zip(head, cells, strict=True)
        if following != "-"
    }


def in_state(state: State) -> Lifecycle:
    life = Lifecycle("/log")
    life.state = state
    return life


def test_the_table_is_the_one_that_is_used() -> None:
    """Each state has its row, each event its column, and nothing else leads anywhere."""
    assert expected() == TRANSITIONS
    assert {state for state, _ in expected()} | {State.CLOSED} == set(State)
    assert {event for _, event in expected()} == set(Event) == set(DO)


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_each_event_in_each_state(state: State, event: Event) -> None:
    """It leads where the table says, or changes nothing."""
    life = in_state(state)
    DO[event](life)
    assert life.state is expected().get((state, event), state)


def test_what_is_refused() -> None:
    """A log answers with why it takes nothing more: the first reason, but that it is closed is the
    last word.
    """
    life = Lifecycle("/log")
    assert (life.is_open, life.refusal, life.state_seen) == (True, None, "open")
    life.fail(FAILURE)
    assert (life.is_open, life.refusal, life.state_seen) == (False, FAILURE, "failed")
    life.close()
    assert isinstance(life.refusal, StoreClosedError)
    assert (life.is_closing, life.state_seen, life.failure) == (True, "closing", FAILURE)
    life.end()
    assert (life.is_closing, life.state_seen) == (True, "closed")


def test_a_log_that_fails_while_it_is_closed() -> None:
    """Callers hear that it is closed; that it has failed is remembered for those who close it."""
    life = Lifecycle("/log")
    life.close()
    life.fail(FAILURE)
    assert isinstance(life.refusal, StoreClosedError)
    assert (life.state, life.failure) == (State.CLOSING, FAILURE)


def test_a_child_of_the_process_that_has_the_log() -> None:
    """Every call in it is a ForkedStoreError, and it leaves nothing."""
    life = Lifecycle("/log")
    life.fork()
    assert isinstance(life.refusal, ForkedStoreError)
    assert (life.is_forked, life.is_open, life.leave()) == (True, False, False)


def test_a_log_is_left_once() -> None:
    """The second time there is nothing to leave; reading it is still allowed."""
    life = Lifecycle("/log")
    assert [life.leave(), life.leave()] == [True, False]
    assert (life.is_closing, life.refusal, life.state_seen) == (False, None, "open")
