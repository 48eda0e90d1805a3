"""Times as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from aquipu.cli.times import moment


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The zone of this process, where the clock is put forward on 2026-03-29."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


NOON = datetime(2026, 3, 30, 10, 0, tzinfo=UTC)  # 12:00 there


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("now", "2026-03-30T10:00"),
        ("90s", "2026-03-30T09:58:30"),
        ("1h30m", "2026-03-30T08:30"),
        ("2d", "2026-03-28T10:00"),
        ("1w", "2026-03-23T10:00"),
        ("5 minutes ago", "2026-03-30T09:55"),
        ("1h ago", "2026-03-30T09:00"),
        ("1h30m ago", "2026-03-30T08:30"),
        ("1 day ago", "2026-03-29T10:00"),
        ("today", "2026-03-29T22:00"),
        ("yesterday", "2026-03-28T23:00"),
        ("2026-03-28", "2026-03-27T23:00"),
        ("2026-03-30T12:00", "2026-03-30T10:00"),
        ("2026-03-28 12:00:01.5", "2026-03-28T11:00:01.5"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00"),
        ("2026-01-31T12:00:00+05:30", "2026-01-31T06:30"),
    ],
)
def test_a_time(text: str, utc: str) -> None:
    """What has no zone is by the clock here, also on the days when that is put forward."""
    expected = datetime.fromisoformat(utc).replace(tzinfo=UTC)
    assert moment(text, NOON.astimezone()) - expected == timedelta()


@pytest.mark.parametrize(
    "text",
    ["", "noon", " ago", "now ago", "5 minutes", "5 minutes ago ago", "1",
     "-1h", "1.5h", "1 h", "h", "1y", "٣h", "99999999w", "tomorrow", "2026-13-01",
     "9999-12-31T23:59-23:00x"],
)  # fmt: skip
def test_no_time(text: str) -> None:
    """Whatever else stands there is a ValueError that says what a time looks like."""
    with pytest.raises(ValueError, match=r"is no time|longer ago"):
        moment(text, NOON.astimezone())
