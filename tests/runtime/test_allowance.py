"""allowance.py: how often something may be done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.runtime.allowance import Allowance


def test_a_burst_and_then_a_pace() -> None:
    """So many times at once; after that once in so much time."""
    allowance = Allowance(3, 10)
    assert [allowance.take(100) for _ in range(5)] == [True, True, True, False, False]
    assert [allowance.take(now) for now in (109, 110, 111, 119, 120)] == [
        False,
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("pause", [30, 10**12])
def test_after_a_pause(pause: int) -> None:
    """Who has waited long may do it so many times again, and not more often."""
    allowance = Allowance(3, 10)
    assert all(allowance.take(0) for _ in range(3))
    assert [allowance.take(pause) for _ in range(4)] == [True, True, True, False]


@given(st.integers(1, 5), st.integers(1, 9), st.lists(st.integers(0, 30)))
def test_any_stretch_of_time(burst: int, every: int, pauses: list[int]) -> None:
    """In no stretch of time it is done more often than the burst and the pace allow."""
    allowance, now, done = Allowance(burst, every), 0, list[int]()
    for pause in pauses:
        now += pause
        if allowance.take(now):
            done.append(now)
    for first, begin in enumerate(done):
        for last, end in enumerate(done[first:], first):
            assert last - first + 1 <= burst + (end - begin) // every
