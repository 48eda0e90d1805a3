"""retention.py: what a user may ask for, and from where on a log is kept.

The oracle for a decision is the list of segments that go, judged one by one.
"""

from __future__ import annotations

import copy
import pickle
from datetime import timedelta
from itertools import pairwise
from math import inf, nan
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from aquipu.local.retain.retention import (
    Retention,
    SealedSegment,
    aged,
    aging,
    believed,
    kept_from,
    kept_from_sequence,
    kept_from_time,
)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


class Log(NamedTuple):
    """The segments of a store."""

    sealed: list[SealedSegment]
    active_first: int
    active_bytes: int

    @property
    def boundaries(self) -> list[int]:
        return [*(segment.first_sequence for segment in self.sealed), self.active_first]

    @property
    def bytes(self) -> int:
        return self.active_bytes + sum(segment.bytes for segment in self.sealed)

    def kept(self, retention: Retention, now: int = NOW, held: list[int] | None = None) -> int:
        return kept_from(*self, retention, now, held or [])

    def gone(self, kept: int) -> list[SealedSegment]:
        return self.sealed[: self.boundaries.index(kept)]

    def without(self, gone: list[SealedSegment]) -> Log:
        return self._replace(sealed=self.sealed[len(gone) :])

    def next_to_go(self, kept: int) -> SealedSegment | None:
        """The oldest sealed segment that stays."""
        return next((segment for segment in self.sealed if segment.first_sequence == kept), None)


def log_of(first_sequence: int, segments: list[tuple[int, int, int]], active_bytes: int) -> Log:
    """A log from records, bytes and seconds of each sealed segment; the last ones end just before
    NOW.
    """
    sealed, sequence = [], first_sequence
    time = NOW - SECOND * sum(seconds for _, _, seconds in segments)
    for records, size, seconds in segments:
        time += SECOND * seconds
        sealed.append(SealedSegment(sequence, sequence + records, size, time))
        sequence += records
    return Log(sealed, sequence, active_bytes)


sizes = st.integers(0, 50)
logs = st.builds(
    log_of,
    st.integers(0, 20),
    st.lists(st.tuples(st.integers(1, 9), sizes, st.integers(0, 9)), max_size=8),
    sizes,
)
holds = st.lists(st.integers(0, 120), max_size=3)
ages = st.integers(1, 60)
amounts = st.integers(1, 400)
retentions = (
    st.builds(Retention, max_age=ages)
    | st.builds(Retention, max_bytes=amounts)
    | st.builds(Retention, max_age=ages, max_bytes=amounts)
)

# segments of 10 records and 100 bytes; their newest records are 30, 20, 10 and 0 seconds old
LOG = log_of(70, [(10, 100, 10), (10, 100, 10), (10, 100, 10), (10, 100, 10)], 64)
NEW = Log([], 70, 64)


# what a user may ask for


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, ValueError, "neither max_age nor max_bytes keeps everything: leave it out"),
        ({"max_age": None, "max_bytes": None}, ValueError, "leave it out"),
        ({"max_age": 0}, ValueError, "max_age takes a positive time, not 0"),
        ({"max_age": -1.5}, ValueError, "max_age takes a positive time, not -1.5"),
        ({"max_age": inf}, ValueError, "max_age takes a positive time, not inf"),
        ({"max_age": nan}, ValueError, "max_age takes a positive time, not nan"),
        ({"max_age": timedelta(0)}, ValueError, "max_age takes a positive time, not 0:00:00"),
        ({"max_age": timedelta(days=-1)}, ValueError, "max_age takes a positive time, not -1 day"),
        (
            {"max_age": "30 days"},
            TypeError,
            "max_age takes a datetime.timedelta or seconds, not str",
        ),
        ({"max_age": True}, TypeError, "max_age takes a datetime.timedelta or seconds, not bool"),
        ({"max_age": 1j}, TypeError, "max_age takes a datetime.timedelta or seconds, not complex"),
        ({"max_bytes": 0}, ValueError, "max_bytes takes at least 1 byte, not 0"),
        ({"max_bytes": -1}, ValueError, "max_bytes takes at least 1 byte, not -1"),
        ({"max_bytes": 1e9}, TypeError, "max_bytes takes a whole number of bytes, not float"),
        ({"max_bytes": "1 GB"}, TypeError, "max_bytes takes a whole number of bytes, not str"),
        ({"max_bytes": True}, TypeError, "max_bytes takes a whole number of bytes, not bool"),
        (
            {"max_bytes": timedelta(1)},
            TypeError,
            "max_bytes takes a whole number of bytes, not timedelta",
        ),
        ({"max_age": 60, "max_bytes": 0}, ValueError, "max_bytes"),
        ({"max_age": 0, "max_bytes": 1}, ValueError, "max_age"),
    ],
    ids=str,
)
def test_a_retention_that_cannot_be(
    arguments: dict[str, Any], error: type[Exception], words: str
) -> None:
    """An age is a positive time, a size a whole number from 1 on, and one of them is given; the
    error says which is not.
    """
    with pytest.raises(error, match=words):
        Retention(**arguments)


@pytest.mark.parametrize(
    "retention",
    [
        Retention(timedelta(days=30)),
        Retention(max_age=86_400),
        Retention(max_age=0.5),
        Retention(max_bytes=1),
        Retention(max_bytes=2**60),
        Retention(timedelta(days=30), 10**9),
    ],
    ids=repr,
)
def test_a_retention_is_a_value(retention: Retention) -> None:
    """A retention is equal to its copy, hashes like it and survives pickling."""
    for again in (
        copy.copy(retention),
        copy.deepcopy(retention),
        pickle.loads(pickle.dumps(retention)),
    ):
        assert again == retention
        assert hash(again) == hash(retention)


@pytest.mark.parametrize("field", ["max_age", "max_bytes"])
def test_a_retention_does_not_change(field: str) -> None:
    """What a store was opened with cannot be changed under it."""
    with pytest.raises(AttributeError, match=f"cannot assign to field '{field}'"):
        setattr(Retention(60, 60), field, 1)


# by age


@pytest.mark.parametrize(
    ("max_age", "kept"),
    [
        (timedelta(days=1), 70),
        (86_400, 70),
        (30, 70),
        (timedelta(seconds=30), 70),
        (timedelta(seconds=30) - timedelta(microseconds=1), 80),
        (29.999_999_9, 80),
        (29, 80),
        (20, 80),
        (19, 90),
        (0.5, 100),
        (timedelta(microseconds=1), 100),
        (1e-12, 100),
        pytest.param(10**400, 70, id="beyond every float"),
        (1e300, 70),
    ],
    ids=repr,
)
def test_segments_that_are_too_old(max_age: float | timedelta, kept: int) -> None:
    """A segment goes when its newest record is older than max_age, be it by a moment, and stays at
    exactly that age.
    """
    assert LOG.kept(Retention(max_age)) == kept


def test_a_segment_grows_old_by_a_nanosecond() -> None:
    """An age is compared in nanoseconds, with no rounding in between, also for half a century."""
    age = 50 * 365 * 86_400
    assert LOG.kept(Retention(age), NOW - 30 * SECOND + age * SECOND) == 70
    assert LOG.kept(Retention(age), NOW - 30 * SECOND + age * SECOND + 1) == 80


@pytest.mark.parametrize("now", [NOW - 3600 * SECOND, 0])
def test_a_clock_that_was_set_back(now: int) -> None:
    """Records that seem to come from the future are not old: nothing goes."""
    assert LOG.kept(Retention(0.001), now) == 70


def test_everything_is_too_old() -> None:
    """The active segment stays, however old it is."""
    assert LOG.kept(Retention(1), NOW + 10**9 * SECOND) == 110


# by size


@pytest.mark.parametrize(
    ("max_bytes", "kept"),
    [
        (10**9, 70),
        (464, 70),
        (463, 80),
        (364, 80),
        (363, 90),
        (164, 100),
        (163, 110),
        (64, 110),
        (63, 110),
        (1, 110),
    ],
)
def test_more_bytes_than_may_be(max_bytes: int, kept: int) -> None:
    """The oldest go until the files that stay, the active one among them, have at most max_bytes;
    the active one stays.
    """
    assert LOG.kept(Retention(max_bytes=max_bytes)) == kept


# both, and holds


@pytest.mark.parametrize(
    ("max_age", "max_bytes", "kept"),
    [(29, 464, 80), (30, 363, 90), (19, 464, 90), (19, 364, 90), (19, 1, 110), (60, 10**9, 70)],
)
def test_either_bound(max_age: int, max_bytes: int, kept: int) -> None:
    """What is over either of the two bounds goes."""
    assert LOG.kept(Retention(max_age, max_bytes)) == kept


@pytest.mark.parametrize(
    ("held", "kept"),
    [
        ([], 110),
        ([0], 70),
        ([70], 70),
        ([79], 70),
        ([80], 80),
        ([109], 100),
        ([110], 110),
        ([10**9], 110),
        ([95, 84, 200], 80),
    ],
    ids=str,
)
def test_what_is_held_stays(held: list[int], kept: int) -> None:
    """The segment with the oldest held sequence stays, with all behind it, for all three ways to
    let go of the old.
    """
    assert LOG.kept(Retention(max_bytes=1), held=held) == kept
    assert LOG.kept(Retention(1), NOW + 3600 * SECOND, held) == kept
    assert kept_from_sequence(LOG.sealed, LOG.active_first, 10**9, held) == kept
    assert kept_from_time(LOG.sealed, LOG.active_first, NOW + 1, held) == kept


@pytest.mark.parametrize("held", [[], [0], [70], [75]], ids=str)
def test_a_store_with_one_segment(held: list[int]) -> None:
    """Nothing is sealed, so nothing goes."""
    assert NEW.kept(Retention(1, 1), NOW + 3600 * SECOND, held) == 70
    assert kept_from_sequence([], 70, 10**9, held) == 70
    assert kept_from_time([], 70, 2 * NOW, held) == 70


# a purge that is asked for


@pytest.mark.parametrize(
    ("sequence", "kept"),
    [
        (0, 70),
        (70, 70),
        (79, 70),
        (80, 80),
        (81, 80),
        (109, 100),
        (110, 110),
        (111, 110),
        (2**64, 110),
    ],
)
def test_a_purge_before_a_sequence(sequence: int, kept: int) -> None:
    """Only segments that lie wholly before the sequence go."""
    assert kept_from_sequence(LOG.sealed, LOG.active_first, sequence) == kept


@pytest.mark.parametrize(
    ("time", "kept"),
    [
        (0, 70),
        (NOW - 30 * SECOND, 70),
        (NOW - 30 * SECOND + 1, 80),
        (NOW - 20 * SECOND, 80),
        (NOW, 100),
        (NOW + 1, 110),
        (2 * NOW, 110),
    ],
)
def test_a_purge_before_a_time(time: int, kept: int) -> None:
    """Only segments whose newest record is older than the time go: a record of that very time
    stays.
    """
    assert kept_from_time(LOG.sealed, LOG.active_first, time) == kept


def test_a_segment_without_records() -> None:
    """One that holds nothing lies before every sequence that it does not stand behind, and holds up
    nobody.
    """
    sealed = [SealedSegment(70, 70, 100, 0), SealedSegment(70, 80, 100, NOW)]
    assert kept_from_sequence(sealed, 80, 80) == 80
    assert kept_from_sequence(sealed, 80, 79) == 70
    assert kept_from(sealed, 80, 64, Retention(max_bytes=164), NOW) == 70
    assert kept_from(sealed, 80, 64, Retention(max_bytes=163), NOW) == 80


# whatever the log


@unhurried
@given(logs, retentions, st.integers(-60, 60), holds)
@example(NEW, Retention(1, 1), 60, [])
def test_any_retention_keeps_to_its_bounds(
    log: Log, retention: Retention, seconds: int, held: list[int]
) -> None:
    """The log begins with a segment: at the latest with the active one, and with no sequence lost
    that is held.
    """
    kept = log.kept(retention, NOW + seconds * SECOND, held)
    assert kept in log.boundaries
    assert all(segment.next_sequence <= sequence for segment in log.gone(kept) for sequence in held)


@unhurried
@given(logs, ages, amounts, st.integers(-60, 60), holds)
@example(LOG, 19, 464, 0, [])
@example(LOG, 30, 363, 0, [])
@example(LOG, 19, 1, 0, [95])
def test_any_segment_goes_for_a_reason(
    log: Log, age: int, amount: int, seconds: int, held: list[int]
) -> None:
    """Each segment that went was too old, or one too many when its turn came; the next one is
    neither, or is held.
    """
    now = NOW + seconds * SECOND

    def is_over(segment: SealedSegment, left: int) -> bool:
        return now - segment.last_time > age * SECOND or left > amount

    kept = log.kept(Retention(age, amount), now, held)
    left = log.bytes
    for segment in log.gone(kept):
        assert is_over(segment, left)
        left -= segment.bytes
    stays = log.next_to_go(kept)
    if stays is not None and not any(sequence < stays.next_sequence for sequence in held):
        assert not is_over(stays, left)


@unhurried
@given(logs, amounts, holds)
def test_any_size_is_met(log: Log, amount: int, held: list[int]) -> None:
    """What stays is within max_bytes, unless it is the active segment alone or something held
    stands in its first one.
    """
    kept = log.kept(Retention(max_bytes=amount), held=held)
    stays = log.next_to_go(kept)
    if stays is not None and not any(sequence < stays.next_sequence for sequence in held):
        assert log.without(log.gone(kept)).bytes <= amount


@unhurried
@given(logs, ages, amounts, st.integers(-60, 60), holds)
def test_any_two_bounds_together(
    log: Log, age: int, amount: int, seconds: int, held: list[int]
) -> None:
    """Both bounds let go of what the one or the other does alone, and not of more."""
    now = NOW + seconds * SECOND
    alone = log.kept(Retention(age), now, held), log.kept(Retention(max_bytes=amount), now, held)
    assert log.kept(Retention(age, amount), now, held) == max(alone)


@unhurried
@given(logs, retentions, st.integers(-60, 60), holds)
def test_any_decision_is_made_once(
    log: Log, retention: Retention, seconds: int, held: list[int]
) -> None:
    """When what may go is gone, nothing more may: the decision on the rest is the same."""
    now = NOW + seconds * SECOND
    kept = log.kept(retention, now, held)
    assert log.without(log.gone(kept)).kept(retention, now, held) == kept


@unhurried
@given(logs, ages, amounts, holds, st.data())
def test_any_more_lets_go_of_no_less(
    log: Log, age: int, amount: int, held: list[int], data: st.DataObject
) -> None:
    """With more time gone, a shorter age, fewer bytes allowed or a hold less, the log begins no
    earlier.
    """
    retention = Retention(age, amount)
    usual = log.kept(retention, NOW, held)
    more = st.integers(0, 60)
    assert log.kept(retention, NOW + data.draw(more) * SECOND, held) >= usual
    assert log.kept(Retention(data.draw(st.integers(1, age)), amount), NOW, held) >= usual
    assert log.kept(Retention(age, data.draw(st.integers(1, amount))), NOW, held) >= usual
    assert log.kept(retention, NOW, held[1:]) >= usual
    bigger = log._replace(active_bytes=log.active_bytes + data.draw(more))
    assert bigger.kept(retention, NOW, held) >= usual


@unhurried
@given(logs, st.integers(0, 120), holds)
def test_any_purge_before_a_sequence(log: Log, sequence: int, held: list[int]) -> None:
    """No record from the sequence on goes and none that is held, and the next segment has such a
    record or is active.
    """
    kept = kept_from_sequence(log.sealed, log.active_first, sequence, held)
    bounds = [sequence, *held]
    assert all(segment.next_sequence <= bound for segment in log.gone(kept) for bound in bounds)
    stays = log.next_to_go(kept)
    assert stays is None or any(bound < stays.next_sequence for bound in bounds)


@unhurried
@given(logs, st.integers(-90, 10), holds)
def test_any_purge_before_a_time(log: Log, seconds: int, held: list[int]) -> None:
    """No segment with a record of the time or later goes, none that is held, and the next one is
    such a one or active.
    """
    time = NOW + seconds * SECOND
    kept = kept_from_time(log.sealed, log.active_first, time, held)
    for segment in log.gone(kept):
        assert segment.last_time < time
        assert all(segment.next_sequence <= sequence for sequence in held)
    stays = log.next_to_go(kept)
    assert (
        stays is None
        or stays.last_time >= time
        or any(sequence < stays.next_sequence for sequence in held)
    )


@unhurried
@given(logs, st.lists(st.integers(0, 120), min_size=2), st.lists(st.integers(-90, 10), min_size=2))
def test_any_later_purge_lets_go_of_no_less(
    log: Log, sequences: list[int], seconds: list[int]
) -> None:
    """The later the sequence or time, the later the log begins, but never later than they say."""
    assume(log.sealed)
    by_sequence = [
        kept_from_sequence(log.sealed, log.active_first, sequence) for sequence in sorted(sequences)
    ]
    by_time = [
        kept_from_time(log.sealed, log.active_first, NOW + s * SECOND) for s in sorted(seconds)
    ]
    for kept in (by_sequence, by_time):
        assert all(earlier <= later for earlier, later in pairwise(kept))
    assert all(
        kept <= max(bound, log.boundaries[0])
        for kept, bound in zip(by_sequence, sorted(sequences), strict=True)
    )


# the clock was wrong

DAY = 86_400 * SECOND
YEAR = 365 * DAY


def spans(*times: tuple[int, int]) -> list[SealedSegment]:
    """Sealed segments with the times of their first and last commits, in days from NOW on."""
    return [
        SealedSegment(n, n + 1, 100, NOW + last * DAY, NOW + first * DAY)
        for n, (first, last) in enumerate(times)
    ]


def days(sealed: list[SealedSegment]) -> list[float]:
    return [(segment.last_time - NOW) / DAY for segment in sealed]


@pytest.mark.parametrize(
    ("times", "active", "expected"),
    [
        pytest.param([(-9, -8), (-8, -7)], -6, [-8, -7], id="right"),
        pytest.param(
            [(-9, -8), (9999, 9999), (-7, -6)], -6, [-8, -7, -6], id="in the future for a moment"
        ),
        pytest.param(
            [(-9, 9999), (-7, -6)], -6, [-7, -6], id="in the future from within a segment on"
        ),
        pytest.param([(9998, 9999), (9997, 9999)], -6, [-6, -6], id="in the future until now"),
        pytest.param([(-9, -8), (9998, 9999)], 9999, [-8, 9999], id="in the future from then on"),
        pytest.param(
            [(-9, -8), (-9999, -9998), (-7, -6)], -6, [-8, -8, -6], id="in the past for a moment"
        ),
        pytest.param([(9, 10), (11, 12)], None, [10, 12], id="the clock is wrong now"),
    ],
)
def test_times_that_can_be(
    times: list[tuple[int, int]], active: int | None, expected: list[float]
) -> None:
    """What lies in the future counts as accepted before what follows it, what lies in the past,
    after what is before it.
    """
    sealed = spans(*times)
    first_time = 0 if active is None else NOW + active * DAY
    assert days(believed(sealed, first_time, NOW)) == expected


@pytest.mark.parametrize(
    ("times", "active", "expected"),
    [
        pytest.param([(-9, -8), (-8, -7)], -6, [8, 7], id="right"),
        pytest.param([(-9, -8), (-8, -7)], None, [8, 7], id="right, and nothing behind them"),
        pytest.param(
            [(-9, -8), (9999, 9999), (-7, -6)], -5, [8, 7, 6], id="in the future for a moment"
        ),
        pytest.param(
            [(-9, -8), (-9999, -9998), (-7, -6)], -5, [8, 8, 6], id="in the past for a moment"
        ),
        pytest.param([(-9999, -9998), (-9999, -9997)], -5, [6, 5], id="set right, from 1970 on"),
        pytest.param(
            [(-9009, -9008), (-9008, -9007)], -9006, [2, 1], id="years after the newest record"
        ),
        pytest.param([(8, 9), (9, 10)], 11, [0, 0], id="before the newest record"),
        pytest.param([(-9, -8), (9998, 9999)], 9999, [8, 0], id="in the future from then on"),
        pytest.param([(-9, -8), (-8, -7)], -9999, [8, 7], id="in the past at the end"),
        pytest.param([(-366, -366)], None, [366], id="nothing for a year"),
        pytest.param([(-367, -367)], None, [0], id="nothing for more than a year"),
    ],
)
def test_how_old_a_log_is(
    times: list[tuple[int, int]], active: int | None, expected: list[float]
) -> None:
    """As old as the clock says, but for steps that are no time that has passed."""
    active_times = (0, 0) if active is None else (NOW + active * DAY,) * 2
    elapsed = 12345 * DAY
    found = aging(spans(*times), active_times, NOW, elapsed)
    assert [(elapsed - segment.aging_since) / DAY for segment in found] == expected
    assert [segment._replace(aging_since=0) for segment in found] == spans(*times)
    assert [segment.last_time for segment in aged(found)] == [
        segment.aging_since for segment in found
    ]


@unhurried
@given(
    st.lists(st.tuples(st.integers(-800, 800), st.integers(0, 40)), max_size=8),
    st.none() | st.integers(-800, 800),
)
def test_no_segment_is_made_older(times: list[tuple[int, int]], active: int | None) -> None:
    """Whatever the clock did: no segment is older than the oldest time in the log, none is younger
    than one behind it, and none was accepted later than now.
    """
    sealed = spans(*((first, first + more) for first, more in times))
    active_times = (0, 0) if active is None else (NOW + active * DAY,) * 2
    ages = [-segment.aging_since / DAY for segment in aging(sealed, active_times, NOW, 0)]
    assert ages == sorted(ages, reverse=True)
    earliest = min([0, *(first for first, _ in times), *([active] if active is not None else [])])
    assert all(0 <= age <= -earliest for age in ages)
