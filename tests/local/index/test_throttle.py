"""rest: long work on a thread sleeps in proportion to what it has worked, and may be ended at any
of its pauses.
"""

from __future__ import annotations

import pytest

from aquipu.local.index import throttle as room
from aquipu.local.index.throttle import WORK_SECONDS, Throttle


class Clock:
    """Time that a thread computes, when the test says so; sleeping is written down."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        patch.setattr(room, "thread_time", lambda: self.now)
        patch.setattr(room, "sleep", self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def nothing() -> None:
    """Nobody wants the work to end."""


def test_short_work_goes_on(clock: Clock) -> None:
    """Between two calls that come soon there is no rest; many of them together make one."""
    rest = Throttle(3.0, nothing)
    for _ in range(4):
        clock.now += WORK_SECONDS / 3.5
        rest()
    assert clock.slept == [pytest.approx(3 * WORK_SECONDS * 4 / 3.5)]


@pytest.mark.parametrize("ratio", [0.25, 3.0])
def test_rest_is_as_long_as_the_work(clock: Clock, ratio: float) -> None:
    """The work takes the same share of the time, however long its slices are."""
    rest = Throttle(ratio, nothing)
    for worked in (0.0004, 0.002, 0.0004):
        clock.now += worked
        rest()
    assert clock.slept == [pytest.approx(ratio * worked) for worked in (0.0004, 0.002, 0.0004)]


def test_rest_has_an_end(clock: Clock) -> None:
    """After a slice that took seconds the rest is short: somebody may want the work to end."""
    rest = Throttle(3.0, nothing)
    clock.now += 10
    rest()
    assert clock.slept == [0.02]


def test_work_is_ended(clock: Clock) -> None:
    """What `check` raises ends the work, at each call, rest or not."""
    heeded: list[float] = []

    def check() -> None:
        heeded.append(clock.now)
        if len(heeded) == 2:
            raise KeyError

    rest = Throttle(3.0, check)
    rest()
    with pytest.raises(KeyError):
        rest()
    assert clock.slept == []
