"""What a query of the API asks for, and what it cannot: pure, and the only place that reads it.

A parameter that is not known, or given twice, or no number within its bounds, is a `BadQuery`: a
misspelt ``util=`` must not give everything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

SEQUENCE_MAX = 2**63 - 1
"""The largest sequence that is taken."""
LIMIT_MAX = 500
"""The most records of one answer."""
LIMIT = 50
"""How many there are when nothing is said."""
LABELS_MAX = 16
"""The most labels that one query names."""
DATA_BYTES = 2048
"""How much of each record's data stands in a list, in bytes, when nothing is said."""
DATA_BYTES_MAX = 64 * 1024
"""The most that can be asked for."""
BUCKETS_MAX = 240
"""The most parts of a time that are counted at once."""
PREFIX_CHARACTERS_MAX = 256
_DIGITS_MAX = 19
_NANOSECONDS_DIGITS = 18  # a number this long is nanoseconds since the epoch

Pairs = Sequence[tuple[str, str]]


class BadQuery(ValueError):
    """What a query asks for cannot be."""


class Wish(NamedTuple):
    """Which records a query asks for."""

    start: int | None
    """Sequence of the first one that may be there."""
    stop: int | None
    """One past the last one that may be there."""
    since: datetime | int | None
    until: datetime | int | None
    relation: tuple[str, ...] | None
    any_of: tuple[str, ...] | None
    limit: int
    data_bytes: int
    newest_first: bool


class Query:
    """The parameters of one request."""

    def __init__(self, pairs: Pairs, known: Collection[str]) -> None:
        """Take them; BadQuery for one that is not known."""
        self._pairs = pairs
        for name, _ in pairs:
            if name not in known:
                names = ", ".join(sorted(known)) or "none"
                raise BadQuery(f"there is no parameter {name!r:.60}; there are: {names}")

    def text(self, name: str) -> str | None:
        """Return the value of a parameter that is given once, if it is."""
        found = self.texts(name)
        if len(found) > 1:
            raise BadQuery(f"{name} is given once")
        return found[0] if found else None

    def texts(self, name: str) -> list[str]:
        """Return all values of a parameter."""
        return [value for key, value in self._pairs if key == name]

    def number(self, name: str, least: int, most: int) -> int | None:
        """Return the number that a parameter holds, if it is there."""
        text = self.text(name)
        if text is None:
            return None
        if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX:
            value = int(text)
            if least <= value <= most:
                return value
        raise BadQuery(f"{name} is a whole number from {least} to {most}, not {text!r:.40}")

    def choice(self, name: str, choices: Sequence[str]) -> str:
        """Return which of these a parameter says; the first one if it is not there."""
        text = self.text(name)
        if text is None:
            return choices[0]
        if text not in choices:
            raise BadQuery(f"{name} is {' or '.join(choices)}, not {text!r:.40}")
        return text

    def time(self, name: str) -> datetime | int | None:
        """Return the time that a parameter says: ISO 8601 with a zone, or nanoseconds."""
        text = self.text(name)
        if text is None:
            return None
        if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX:
            return int(text)
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            raise BadQuery(
                f"{name} is a time such as 2026-01-31T12:00:00Z, not {text!r:.40}"
            ) from None
        if found.utcoffset() is None:
            raise BadQuery(f"{name} says no zone: write {text[:30]}Z, or +01:00")
        return found

    def labels(self, name: str) -> tuple[str, ...] | None:
        """Return the labels of a parameter that may be repeated; None without any."""
        found = self.texts(name)
        if len(found) > LABELS_MAX:
            raise BadQuery(f"{name} is given at most {LABELS_MAX} times")
        return tuple(found) or None


_LABELS = ("relation", "any_of")
RECORDS = ("before", "start", "since", "until", "limit", "bytes", "order", *_LABELS)
"""The parameters of a list of records."""
FOLLOWING = ("start", *_LABELS)
"""Those of a stream of events."""


def wish_of(pairs: Pairs) -> Wish:
    """Return which records are asked for; BadQuery for what cannot be."""
    query = Query(pairs, RECORDS)
    wish = Wish(
        start=query.number("start", 0, SEQUENCE_MAX),
        stop=query.number("before", 0, SEQUENCE_MAX),
        since=query.time("since"),
        until=query.time("until"),
        relation=query.labels("relation"),
        any_of=query.labels("any_of"),
        limit=query.number("limit", 1, LIMIT_MAX) or LIMIT,
        data_bytes=_or(query.number("bytes", 0, DATA_BYTES_MAX), DATA_BYTES),
        newest_first=query.choice("order", ("newest", "oldest")) == "newest",
    )
    if wish.start is not None and wish.stop is not None and wish.start > wish.stop:
        raise BadQuery("start is not after before")
    return wish


def start_of(query: Query) -> int | str:
    """Return where a stream begins: a sequence, earliest, or (without any) latest."""
    text = query.text("start")
    if text in (None, "earliest", "latest"):
        return text or "latest"
    return _or(query.number("start", 0, SEQUENCE_MAX), 0)


class Span(NamedTuple):
    """Times, evenly spaced, between which records are counted."""

    begin: int
    """In nanoseconds since the epoch."""
    step: int
    """In nanoseconds."""
    parts: int

    @property
    def edges(self) -> list[int]:
        """The times, one more than there are parts."""
        return [self.begin + self.step * number for number in range(self.parts + 1)]


def span_of(pairs: Pairs, now: int) -> Span:
    """Return the times that are asked for: ``count`` parts of ``step`` seconds, up to ``until``.

    They lie on multiples of the step, so that what was counted once need not be counted again; the
    last one has just begun.
    """
    query = Query(pairs, ("step", "count", "until"))
    step = _or(query.number("step", 1, 7 * 86_400), 1) * 1_000_000_000
    count = _or(query.number("count", 1, BUCKETS_MAX), 60)
    until = _nanoseconds(query.time("until"), now)
    end = (until // step + 1) * step
    return Span(max(end - count * step, 0), step, count)


class Piece(NamedTuple):
    """A part of a record's data."""

    begin: int
    end: int
    """One past its last byte."""


def range_of(text: str | None, size: int) -> Piece | None:
    """Return the part that a Range header asks for; None: all of it.

    BadQuery for one that cannot be had: nothing is there, or it asks for several.
    """
    if text is None:
        return None
    unit, _, asked = text.partition("=")
    first, dash, last = asked.strip().partition("-")
    is_one = unit.strip().lower() == "bytes" and dash and (first or last)
    if not is_one or not all(_is_number(part) for part in (first, last) if part):
        raise BadQuery("a Range asks for one part: bytes=0-1023")
    if not first:
        begin, end = max(size - int(last), 0), size
    else:
        begin, end = int(first), min(int(last) + 1, size) if last else size
    if begin >= end:
        raise BadQuery(f"there are {size} bytes")
    return Piece(begin, end)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX


def _nanoseconds(time: datetime | int | None, now: int) -> int:
    if time is None:
        return now
    if isinstance(time, int):
        return min(time, 2 * now)
    return min(max(int(time.timestamp() * 1_000_000_000), 0), 2 * now)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
