"""Times as people write them: ISO 8601, a date, yesterday, or how long ago."""

from __future__ import annotations

from datetime import datetime, timedelta
from re import ASCII, findall, fullmatch

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_IN_WORDS = r"([0-9]{1,9}) (second|minute|hour|day|week)s?"
_AGO = rf"([0-9]{{1,9}})([{''.join(_SECONDS)}])"


def seconds_in(text: str) -> int | None:
    """Return how many seconds a length of time has, such as 90s, 1h30m or 5 minutes.

    None for anything else.
    """
    if match := fullmatch(_IN_WORDS, text, ASCII):
        text = match[1] + match[2][0]
    if not fullmatch(rf"(?:{_AGO})+", text, ASCII):
        return None
    return sum(int(number) * _SECONDS[unit] for number, unit in findall(_AGO, text))


def moment(text: str, now: datetime) -> datetime:
    """Return the time that is meant, with its zone; ValueError for anything else.

    ``now`` has the local zone. What lacks a zone is meant in the local one, and a date is its
    beginning there::

        2026-01-31T12:00:00Z    2026-01-31 12:00    2026-01-31    today    yesterday    now
        90s    15m    1h30m    2d    1w             so long ago
        1h ago    5 minutes ago    2 days ago
    """
    length = seconds_in(text.removesuffix(" ago"))
    if length is not None and not fullmatch(_IN_WORDS, text, ASCII):
        try:
            return now - timedelta(seconds=length)
        except OverflowError:
            raise ValueError(f"{text!r} is longer ago than there are dates") from None
    days = {"today": 0, "yesterday": 1}.get(text)
    if text == "now":
        return now
    if days is not None:
        day = now.date() - timedelta(days=days)
        return datetime(day.year, day.month, day.day).astimezone()
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time: write 2026-01-31T12:00:00Z; 2026-01-31 or 2026-01-31T12:00 (by "
            "the clock here); 90s, 15m, 1h30m, 2d or 1w (ago); 5 minutes ago; now, today or "
            "yesterday"
        ) from None
    try:
        return time if time.utcoffset() is not None else time.astimezone()
    except (OverflowError, ValueError):
        raise ValueError(f"{text!r} is before or after all times") from None
