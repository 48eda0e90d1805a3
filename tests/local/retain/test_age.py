"""age: how old the segment that is being written is."""

from __future__ import annotations

import pytest

from aquipu.local.retain.age import SegmentAge
from aquipu.local.retain.retention import GAP_MAX

DAY = 86_400 * 1_000_000_000
NOW = 20_000 * DAY
ELAPSED = 3 * DAY


def test_a_segment_from_its_first_record_to_its_seal() -> None:
    """An empty one is never due; the first record decides when it is, and the last one since when
    it grows older behind the seal.
    """
    age = SegmentAge(100)
    assert age.due is None
    age.written(1000)
    age.written(1060)
    assert age.due == 1100
    assert age.sealed(1200) == 1060
    assert age.due is None
    assert age.sealed(1300) == 1300
    age.written(1400)
    assert age.due == 1500


@pytest.mark.parametrize(
    ("first", "last", "first_age", "last_age"),
    [
        (NOW - 2 * DAY, NOW - DAY, 2 * DAY, DAY),
        (NOW - 5 * DAY, NOW - 4 * DAY, 5 * DAY, 4 * DAY),  # longer than the machine has been on
        (NOW + DAY, NOW + 2 * DAY, DAY, 0),
        (NOW - 2 * GAP_MAX, NOW - DAY, DAY, DAY),
        (NOW - 2 * GAP_MAX - DAY, NOW - 2 * GAP_MAX, DAY, 0),
        (NOW - DAY, NOW - 2 * DAY, 2 * DAY, 2 * DAY),
    ],
)
def test_a_segment_that_opening_finds(first: int, last: int, first_age: int, last_age: int) -> None:
    """It is as old as its times say, but for what no clock can have been right about: a time in the
    future, and a gap of more than a year, count as none.
    """
    age = SegmentAge(100)
    age.found((first, last), NOW, ELAPSED)
    assert age.due == ELAPSED - first_age + 100
    assert age.sealed(ELAPSED) == ELAPSED - last_age
