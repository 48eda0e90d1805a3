"""How much of the past is kept: the user's rule, and the decision where the log shall begin. Pure.

What goes is always a run of whole sealed segments from the oldest on. So each decision is one number: the sequence from
which everything stays, which is always the first sequence of a segment. The functions here find it; they remove nothing.

Two things bound every decision: the active segment stays, and so does the one with the oldest held sequence, and all
behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple, Protocol, runtime_checkable

from aquipu.value import Value

_SECOND = 1_000_000_000  # in nanoseconds


@runtime_checkable
class Duration(Protocol):
    """A stretch of time such as ``datetime.timedelta``."""

    def total_seconds(self) -> float: ...


class Retention(Value):
    """How long records are kept, and how many bytes of them. What is over either bound goes, the oldest first.

    ``max_age`` is a ``datetime.timedelta`` or seconds: a segment goes when its newest record is older than that.
    ``max_bytes`` counts the bytes of the segment files: the oldest go until the others are within it. Without one of
    the two there is no such bound.

    Only whole sealed segments go, and the store looks whenever it begins a new segment and when it is opened. So about
    one segment more than the bound is kept, and a store to which nothing is appended lets go of nothing. These always
    stay: the segment that is being written, and everything from the oldest ``hold`` on.

    Age goes by the system clock: while that is a year ahead, everything seems a year older.

    Raises TypeError or ValueError for an age that is no positive time, a size that is no whole number from 1 on, and
    when neither is given.
    """

    max_age: float | Duration | None
    max_bytes: int | None
    __match_args__ = ("max_age", "max_bytes")

    def __init__(self, max_age: float | Duration | None = None, max_bytes: int | None = None) -> None:
        if max_age is None and max_bytes is None:
            raise ValueError("a Retention with neither max_age nor max_bytes keeps everything: leave it out")
        if max_age is not None and not 0 < _seconds(max_age) < inf:
            raise ValueError(f"max_age takes a positive time, not {max_age}")
        if max_bytes is not None and (not isinstance(max_bytes, int) or isinstance(max_bytes, bool)):
            raise TypeError(f"max_bytes takes a whole number of bytes, not {type(max_bytes).__name__}")
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes takes at least 1 byte, not {max_bytes}")
        vars(self).update(max_age=max_age, max_bytes=max_bytes)


class Sealed(NamedTuple):
    """One sealed segment: what a decision on it depends on. Each continues the one before."""

    first_sequence: int
    next_sequence: int
    bytes: int
    """Of its file."""
    last_time: int
    """When its newest record was accepted, in nanoseconds since the epoch."""


def kept_from(
    sealed: Sequence[Sealed],
    active_first: int,
    active_bytes: int,
    retention: Retention,
    now: int,
    held: Iterable[int] = (),
) -> int:
    """The sequence from which everything stays under this retention.

    ``sealed`` are the sealed segments, the oldest first; ``active_first`` and ``active_bytes`` are the first sequence and
    the size of the one behind them, ``now`` is in nanoseconds since the epoch, and ``held`` are the sequences of the holds.
    """
    bounds = []
    if retention.max_age is not None:
        bounds.append(kept_from_time(sealed, active_first, now - _nanoseconds(retention.max_age)))
    if retention.max_bytes is not None:
        bounds.append(_kept_within(sealed, active_first, active_bytes, retention.max_bytes))
    return kept_from_sequence(sealed, active_first, max(bounds), held)


def kept_from_sequence(sealed: Sequence[Sealed], active_first: int, sequence: int, held: Iterable[int] = ()) -> int:
    """The sequence from which everything stays when what lies before ``sequence`` may go."""
    bound = min((sequence, *held))
    return next((segment.first_sequence for segment in sealed if segment.next_sequence > bound), active_first)


def kept_from_time(sealed: Sequence[Sealed], active_first: int, time: int, held: Iterable[int] = ()) -> int:
    """The sequence from which everything stays when what was accepted before ``time`` may go."""
    sequence = next((segment.first_sequence for segment in sealed if segment.last_time >= time), active_first)
    return kept_from_sequence(sealed, active_first, sequence, held)


def _kept_within(sealed: Sequence[Sealed], active_first: int, active_bytes: int, max_bytes: int) -> int:
    left = active_bytes + sum(segment.bytes for segment in sealed)
    for segment in sealed:
        if left <= max_bytes:
            return segment.first_sequence
        left -= segment.bytes
    return active_first


def _seconds(duration: float | Duration) -> float:
    """TypeError for what is neither a number nor a stretch of time."""
    if isinstance(duration, (int, float)) and not isinstance(duration, bool):
        return duration
    if isinstance(duration, Duration):
        return duration.total_seconds()
    raise TypeError(f"max_age takes a datetime.timedelta or seconds, not {type(duration).__name__}")


def _nanoseconds(duration: float | Duration) -> int:
    numerator, denominator = _seconds(duration).as_integer_ratio()  # exact, and without a limit
    return numerator * _SECOND // denominator
