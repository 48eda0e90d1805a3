"""How much of the log is kept: the user's rule, and the decision where the log shall begin. Pure.

What goes is always a run of whole sealed segments from the oldest on. So each decision is one
number: the sequence from which everything stays, which is always the first sequence of a segment.
The functions here find it; they remove nothing.

Two things bound every decision: the active segment stays, and so does the one with the oldest held
sequence, and all behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf
from typing import NamedTuple, Protocol, cast, runtime_checkable

_SECOND = 1_000_000_000  # in nanoseconds
GAP_MAX = 366 * 86_400 * _SECOND
"""Longest time without a record, in nanoseconds; beyond it the clock is taken to have been set."""


@runtime_checkable
class Duration(Protocol):
    """A stretch of time such as ``datetime.timedelta``."""

    def total_seconds(self) -> float: ...


@dataclass(frozen=True)
class Retention:
    """How long records are kept, and how many bytes of them.

    What is over either bound is deleted, the oldest first.

    ``max_age`` is a ``datetime.timedelta`` or seconds: a segment goes when its newest record is
    older than that. ``max_bytes`` counts the bytes of the segment files: the oldest go until the
    others are within it. Without one of the two there is no such bound.

    Only whole sealed segments go, and the store checks whenever it begins a new segment, when it is
    opened, and when the disk is full: then the commit that found no space is tried once more after
    that. So about one segment more than the bound is kept, and a store to which nothing is appended
    deletes nothing. With ``Store.open(max_segment_age=...)`` the store also checks when something
    is due by its age, so that nothing older than ``max_age`` and ``max_segment_age`` together
    stays, but for the moment that the disk needs. These always stay: the segment that is being
    written, and everything from the oldest ``hold`` on.

    Age does not go by what the system clock may be set to. While a store is open, its segments grow
    older with the time that passes. When it is opened, a segment is as old as the clock says, but
    for what the log itself shows to be wrong: where nothing seems to have been appended for more
    than a year, that year and what is beyond it counts as no time, and a time in the future, or one
    before that of the records before, as that of the records around it.

    Raises TypeError or ValueError for an age that is no positive time, a size that is no whole
    number from 1 on, and when neither is given.
    """

    max_age: float | Duration | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        max_age, max_bytes = self.max_age, self.max_bytes
        if max_age is None and max_bytes is None:
            raise ValueError(
                "a Retention with neither max_age nor max_bytes keeps everything: leave it out"
            )
        if max_age is not None:
            check_age("max_age", max_age)
        if max_bytes is not None and (
            not isinstance(max_bytes, int) or isinstance(max_bytes, bool)
        ):
            raise TypeError(
                f"max_bytes takes a whole number of bytes, not {type(max_bytes).__name__}"
            )
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes takes at least 1 byte, not {max_bytes}")

    @property
    def age_ns(self) -> int | None:
        """``max_age`` in nanoseconds."""
        return None if self.max_age is None else nanoseconds_of(self.max_age)


class SealedSegment(NamedTuple):
    """What a decision on a sealed segment depends on. Each continues the one before."""

    first_sequence: int
    next_sequence: int
    bytes: int
    """Size of its file."""
    last_time: int
    """Time when its newest record was accepted, in nanoseconds since the epoch."""
    first_time: int = 0
    """Time of its first commit, in nanoseconds since the epoch; 0 when that is not known."""
    aging_since: int = 0
    """Latest time when its newest record may have been accepted, by a clock that cannot be set."""


def kept_from(
    sealed: Sequence[SealedSegment],
    active_first: int,
    active_bytes: int,
    retention: Retention,
    now: int,
    held: Iterable[int] = (),
) -> int:
    """Return the sequence from which everything stays under this retention.

    ``sealed`` are the sealed segments, the oldest first; ``active_first`` and ``active_bytes`` are
    the first sequence and the size of the one behind them, ``now`` is by the clock of their
    ``last_time`` (see `aged`), and ``held`` are the sequences of the holds.
    """
    bounds = []
    if retention.max_age is not None:
        bounds.append(kept_from_time(sealed, active_first, now - nanoseconds_of(retention.max_age)))
    if retention.max_bytes is not None:
        bounds.append(_kept_within(sealed, active_first, active_bytes, retention.max_bytes))
    return kept_from_sequence(sealed, active_first, max(bounds), held)


def kept_from_sequence(
    sealed: Sequence[SealedSegment], active_first: int, sequence: int, held: Iterable[int] = ()
) -> int:
    """Return the sequence from which everything stays when records before ``sequence`` may go."""
    bound = min((sequence, *held))
    return next(
        (segment.first_sequence for segment in sealed if segment.next_sequence > bound),
        active_first,
    )


def kept_from_time(
    sealed: Sequence[SealedSegment], active_first: int, time: int, held: Iterable[int] = ()
) -> int:
    """Return the sequence from which all stays when what was accepted before ``time`` may go."""
    sequence = next(
        (segment.first_sequence for segment in sealed if segment.last_time >= time), active_first
    )
    return kept_from_sequence(sealed, active_first, sequence, held)


def believed(
    sealed: Sequence[SealedSegment], active_first_time: int, now: int
) -> list[SealedSegment]:
    """Return the same segments with times that are possible.

    None is before that of an older segment, and none is later than ``now``, unless every newer one
    is, too. What was accepted when the clock was
    wrong was accepted before the first record behind it for which it was right.
    ``active_first_time`` is that of the segment behind them, 0 without any.
    """
    times: list[int] = []
    following = active_first_time if active_first_time <= now else 0
    for segment in reversed(sealed):
        times.append(following if segment.last_time > now and following else segment.last_time)
        if 0 < segment.first_time <= now:
            following = segment.first_time
    newest_so_far = accumulate(reversed(times), max)
    return [
        segment._replace(last_time=time)
        for segment, time in zip(sealed, newest_so_far, strict=True)
    ]


def aging(
    sealed: Sequence[SealedSegment], active_times: tuple[int, int], now: int, elapsed: int
) -> list[SealedSegment]:
    """Return the segments with the time since when each has grown older.

    That is by the clock that says ``elapsed`` now, when the system clock says ``now``.
    ``active_times`` are those of the first and the last commit of the segment behind them, 0
    without any. Of any two that follow each other, and of the last one and now, no more than
    `GAP_MAX` lies in between, or it counts as no time at all.
    """
    first, last = active_times
    times = [*(segment.last_time for segment in believed(sealed, first, now)), last or now]
    in_order = [*(min(time, now) for time in accumulate(times, max)), now]
    since: list[int] = []
    for later, earlier in pairwise(reversed(in_order)):
        gap = later - earlier
        elapsed -= gap if gap <= GAP_MAX else 0
        since.append(elapsed)
    return [
        segment._replace(aging_since=at) for segment, at in zip(sealed, since[:0:-1], strict=True)
    ]


def aged(sealed: Iterable[SealedSegment]) -> list[SealedSegment]:
    """Return the same segments with the times since when they have aged, for a decision by age."""
    return [segment._replace(last_time=segment.aging_since) for segment in sealed]


def _kept_within(
    sealed: Sequence[SealedSegment], active_first: int, active_bytes: int, max_bytes: int
) -> int:
    left = active_bytes + sum(segment.bytes for segment in sealed)
    for segment in sealed:
        if left <= max_bytes:
            return segment.first_sequence
        left -= segment.bytes
    return active_first


def check_age(name: str, age: object) -> None:
    """TypeError or ValueError for what is no age that a record or a segment can reach."""
    is_number = isinstance(age, (int, float)) and not isinstance(age, bool)
    if not is_number and not isinstance(age, Duration):
        raise TypeError(f"{name} takes a datetime.timedelta or seconds, not {type(age).__name__}")
    if not 0 < _seconds(cast("float | Duration", age)) < inf:
        raise ValueError(f"{name} takes a positive time, not {age}")


def _seconds(duration: float | Duration) -> float:
    return duration.total_seconds() if isinstance(duration, Duration) else duration


def nanoseconds_of(duration: float | Duration) -> int:
    """Return a duration in whole nanoseconds."""
    numerator, denominator = _seconds(duration).as_integer_ratio()  # exact, and without a limit
    return numerator * _SECOND // denominator
