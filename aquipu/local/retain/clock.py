"""The clock of the system, compared with one that cannot be set.

Records have the times that the system clock says, and it may be wrong: an empty battery, a wrong
answer of a time server, a virtual machine that was restored. Nothing here corrects it. But it
can be checked, for a second clock counts how much time has passed since the machine was started,
also while it was suspended:

* while the store is open, the two keep step; when they do not, the system clock was set;
* when it is opened, the system clock is not before the newest record, and not years after it.

Where that is not so, the clock is *in doubt*: look at it. That ends when it is again what
it was held for, and otherwise when it has kept step for an hour: then it was corrected, most
likely. How old a segment is, is asked of the other clock (see `retention.aged`), so nothing that
was ever decided depends on which of the two it was.
"""

from __future__ import annotations

import time
from logging import getLogger
from time import time_ns
from typing import Protocol

from aquipu.local.retain.retention import GAP_MAX

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
YEAR = GAP_MAX

STEP_MAX = HOUR + HOUR // 60
"""Nanoseconds by which the clock may be set and is still believed: an hour, for a mistake about
summer time, and a little.
"""
KEPT = HOUR
"""Nanoseconds that it must keep step before it is believed again."""

_log = getLogger(__name__)

_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed_ns() -> int:
    """Return nanoseconds since boot, suspends included where the system counts them."""
    return time.clock_gettime_ns(_ELAPSED)


class ClockWatch:
    """Decides whether the system clock can be believed. Times are handed in, in nanoseconds."""

    def __init__(self, now: int, elapsed: int, newest: int) -> None:
        """Begin with the clocks as they are when the store is opened.

        ``now`` is what the system clock says, ``elapsed`` the other one, and ``newest`` the time of
        the newest record; 0 without any.
        """
        self.doubt: str | None = None
        """Why the clock is not believed, in one sentence."""
        self._ahead = now - elapsed  # as it is believed
        self._newest = newest
        self._odd: int | None = None  # how far ahead it is, when that is in doubt
        self._odd_since = 0
        if newest and not self._fits(now):
            self._ahead = newest - elapsed
            ahead = "after the newest record, unless nothing came since, or that was imported"
            self._begin(now, elapsed, "before the newest record", ahead)
        else:
            self._newest = 0

    def look(self, now: int, elapsed: int) -> None:
        """Compare the two clocks as they are now, and update `doubt`."""
        ahead = now - elapsed
        if abs(ahead - self._ahead) <= STEP_MAX or (self._newest and self._fits(now)):
            self._believe(ahead)
        elif self._odd is None or abs(ahead - self._odd) > STEP_MAX:
            self._begin(now, elapsed, "behind what has passed", "ahead of what has passed")
        elif elapsed - self._odd_since >= KEPT:
            self._believe(ahead)

    def _fits(self, now: int) -> bool:
        return -STEP_MAX <= now - self._newest <= GAP_MAX

    def _believe(self, ahead: int) -> None:
        self._ahead = ahead
        self.doubt = self._odd = None
        self._newest = 0

    def _begin(self, now: int, elapsed: int, behind: str, ahead: str) -> None:
        self._odd, self._odd_since = now - elapsed, elapsed
        off = self._odd - self._ahead
        where = behind if off < 0 else ahead
        self.doubt = (
            f"the system clock is wrong, or was: it says {_date(now)}, {_span(abs(off))} {where}"
        )


class Troubles(Protocol):
    """Where it is kept that the clock is in doubt: `runtime.trouble.Troubles`."""

    def begin(self, name: str, reason: str) -> bool: ...

    def end(self, name: str) -> None: ...


class ClockAlarm:
    """Says when the system clock is in doubt: in the log of the program, and among the troubles."""

    def __init__(self, path: str, watch: ClockWatch, troubles: Troubles) -> None:
        """Watch for the store in this directory."""
        self._path = path
        self._watch = watch
        self._troubles = troubles
        self._ahead = 0  # of the monotonic clock, in nanoseconds, when that last changed
        self._say()

    def look(self) -> str | None:
        """Return why the clock is in doubt, None when it is not; from any thread."""
        self._look(time_ns())
        return self._watch.doubt

    def follow(self, now: int, monotonic: int) -> None:
        """Look again if the clock was set: it says ``now``, the monotonic one ``monotonic``."""
        if self._watch.doubt is not None or abs(now - monotonic - self._ahead) > SECOND:
            self._ahead = now - monotonic
            self._look(now)

    def _look(self, now: int) -> None:
        before = self._watch.doubt
        self._watch.look(now, elapsed_ns())
        if self._watch.doubt != before:
            self._say()

    def _say(self) -> None:
        doubt = self._watch.doubt
        if doubt is None:
            self._troubles.end("clock")
        elif self._troubles.begin("clock", doubt):
            _log.warning(
                "%s: %s; records have the times that it says, and nothing is older by that",
                self._path,
                doubt,
            )


def _date(now: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now // SECOND))
    except (OverflowError, ValueError, OSError):
        return f"{now} ns since 1970"


def _span(duration: int) -> str:
    for unit, name in ((YEAR, "years"), (DAY, "days")):
        if duration >= 2 * unit:
            return f"{duration // unit} {name}"
    return f"{duration / HOUR:.1f} hours"
