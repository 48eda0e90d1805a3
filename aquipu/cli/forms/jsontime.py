"""The time that a JSON line says, as nanoseconds since the epoch. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from re import ASCII, fullmatch
from re import compile as pattern
from typing import Any, NamedTuple

_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ISO = pattern(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)"
    r"(?:[.,]([0-9]{1,9})[0-9]*)?\s?(Z|[+-][0-9]{2}:?[0-9]{2})?",
    ASCII,
)
_UNITS = ((10**11, _SECOND), (10**14, 10**6), (10**17, 10**3), (10**20, 1))
"""Up to which number it counts which unit, in nanoseconds: a second, a thousandth, and so on."""


class ExactFloat(float):
    """A number with a fraction, with its digits as they stand in the line."""

    digits: str

    def __new__(cls, digits: str) -> ExactFloat:
        """Make it of these digits."""
        made = super().__new__(cls, digits)
        made.digits = digits
        return made


class TimePlace(NamedTuple):
    """Where in a line its time is: ``.ts``."""

    path: tuple[str, ...]

    @classmethod
    def parsed(cls, text: str) -> TimePlace:
        """Return the place that a text means; ValueError for anything else."""
        if fullmatch(r"(?:\.[^.=]+)+", text) is None:
            raise ValueError(f"{text!r} is not .FIELD, such as .ts or .event.time")
        return cls(tuple(text[1:].split(".")))

    def time_in(self, value: Any) -> int:
        """Return the time of a line, in nanoseconds; ValueError where there is none."""
        for part in self.path:
            value = value.get(part) if isinstance(value, dict) else None
        try:
            return nanoseconds_of(value)
        except ValueError as error:
            raise ValueError(f".{'.'.join(self.path)} {error}") from None


def nanoseconds_of(value: Any) -> int:
    """Return a text of ISO 8601, or a number since 1970, in nanoseconds; ValueError for others.

    What unit a number counts, is told by its size: seconds below 10¹¹, then thousandths, millionths
    and billionths of one.
    """
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("is not there" if value is None else "is neither a number nor a text")
    number = Decimal(value.digits) if isinstance(value, ExactFloat) else Decimal(value)
    if number.is_nan() or number < 0:
        raise ValueError("is before 1970")
    for most, unit in _UNITS:
        if number < most:
            return int(number * unit)
    raise ValueError("is no time: the number is too large")


def _of_text(text: str) -> int:
    found = _ISO.fullmatch(text.strip())
    if found is None:
        raise ValueError("is no time: ISO 8601 is 2026-01-31T12:00:00.5Z")
    day, time, fraction, zone = found.groups()
    if zone is None:
        raise ValueError("has no zone: Z, or +02:00, stands behind a time")
    try:
        moment = datetime.fromisoformat(f"{day}T{time}{zone}")
    except ValueError:
        raise ValueError("is no time: there is no such day, hour or zone") from None
    whole = (moment - _EPOCH) // timedelta(seconds=1) * _SECOND
    if whole < 0:
        raise ValueError("is before 1970")
    return whole + int((fraction or "0").ljust(9, "0"))
