"""clock.py: when the clock of the system is believed, and when it is in doubt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.local.retain.clock import DAY, HOUR, KEPT, SECOND, STEP_MAX, ClockWatch, elapsed_ns
from aquipu.local.retain.retention import GAP_MAX

NOW = 1_700_000_000 * SECOND


def watch(newest: int = 0) -> ClockWatch:
    """At an elapsed time of 0, when the clock says NOW."""
    return ClockWatch(NOW, 0, newest)


def look(clock: ClockWatch, elapsed: int, set_by: int) -> str | None:
    """What it is in doubt for, when so much has passed and the system clock was set by so much."""
    clock.look(NOW + elapsed + set_by, elapsed)
    return clock.doubt


def test_a_clock_that_nobody_sets() -> None:
    """It keeps step, whatever time passes."""
    clock = watch()
    assert [look(clock, elapsed, 0) for elapsed in (0, 1, DAY, 10_000 * DAY)] == [None] * 4


@pytest.mark.parametrize("sign", [1, -1])
def test_how_far_a_clock_may_be_set(sign: int) -> None:
    """An hour and a little at a time is believed, also one step after another; beyond that it is in
    doubt.
    """
    clock = watch()
    assert [look(clock, step, sign * step * STEP_MAX) for step in range(1, 100)] == [None] * 99
    assert look(clock, 100, sign * (100 * STEP_MAX + 1)) is not None


@pytest.mark.parametrize(
    ("set_by", "words"),
    [
        (100 * DAY, "it says 2024-02-22 22:13 UTC, 100 days ahead of what has passed"),
        (76 * 366 * DAY, "it says 2100-01-10 22:13 UTC, 76 years ahead of what has passed"),
        (-2 * HOUR, "it says 2023-11-14 20:13 UTC, 2.0 hours behind what has passed"),
    ],
)
def test_a_clock_that_is_wrong_for_a_moment(set_by: int, words: str) -> None:
    """What is in doubt is said; when it is right again, nothing is."""
    clock = watch()
    assert look(clock, 1, set_by) == f"the system clock is wrong, or was: {words}"
    assert look(clock, 2, set_by) is not None
    assert look(clock, 3, 0) is None


@pytest.mark.parametrize("set_by", [100 * DAY, -100 * DAY])
def test_a_clock_that_was_corrected(set_by: int) -> None:
    """It is believed when it has kept step for an hour from there on, and not while it is set again
    and again.
    """
    clock = watch()
    assert look(clock, 0, set_by) is not None
    assert look(clock, KEPT - 1, set_by) is not None
    assert look(clock, KEPT, 2 * set_by) is not None
    assert look(clock, 2 * KEPT - 1, 2 * set_by) is not None
    assert look(clock, 2 * KEPT, 2 * set_by) is None
    assert look(clock, 2 * KEPT, 0) is not None


@pytest.mark.parametrize("newest", [NOW, NOW + STEP_MAX, NOW - DAY, NOW - GAP_MAX])
def test_an_opening_at_a_time_that_can_be(newest: int) -> None:
    """The clock is not before the newest record, but for a little, and not more than a year after
    it.
    """
    assert watch(newest).doubt is None


def test_an_opening_before_the_newest_record() -> None:
    """It was wrong then, or it is now.

    It is believed when it is past that record, or has kept step for an hour.
    """
    clock = watch(NOW + 100 * DAY)
    assert clock.doubt is not None
    assert clock.doubt.endswith("it says 2023-11-14 22:13 UTC, 100 days before the newest record")
    assert look(clock, 1, 0) is not None
    assert look(clock, 2, 101 * DAY) is None
    clock = watch(NOW + 100 * DAY)
    assert look(clock, KEPT - 1, 0) is not None
    assert look(clock, KEPT, 0) is None


def test_an_opening_years_after_the_newest_record() -> None:
    """Either nobody appended for years, or the clock is wrong."""
    clock = watch(NOW - 3 * GAP_MAX)
    assert clock.doubt is not None
    assert clock.doubt.endswith(
        "3 years after the newest record, unless nothing came since, or that was imported"
    )
    assert look(clock, 1, -3 * GAP_MAX) is None
    clock = watch(NOW - 3 * GAP_MAX)
    assert look(clock, KEPT, 0) is None


def test_a_time_that_has_no_date() -> None:
    """Whatever a clock says can be said."""
    clock = watch()
    clock.look(10**40, 0)
    assert clock.doubt is not None
    assert f"it says {10**40} ns since 1970" in clock.doubt


@given(st.lists(st.tuples(st.integers(0, 2 * HOUR), st.integers(-5 * HOUR, 5 * HOUR))))
def test_any_doubt_ends(steps: list[tuple[int, int]]) -> None:
    """However the clock was set: an hour in which nobody sets it, and it is believed."""
    clock, elapsed = watch(), 0
    set_by = 0
    for passed, step in steps:
        elapsed, set_by = elapsed + passed, set_by + step
        look(clock, elapsed, set_by)
    look(clock, elapsed + KEPT, set_by)
    assert clock.doubt is None


def test_the_clock_that_nobody_can_set() -> None:
    """It goes on."""
    assert 0 < elapsed_ns() <= elapsed_ns()
