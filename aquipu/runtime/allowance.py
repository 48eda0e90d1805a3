"""How often something may be done. Pure: every time is handed in."""

from __future__ import annotations


class Allowance:
    """A rate limit: a burst of so many at once, and in the long run one per interval."""

    def __init__(self, burst: int, every: int) -> None:
        self._burst = burst
        self._every = every
        self._spent = 0  # the time up to which it is used up, at the slowest pace

    def take(self, now: int) -> bool:
        """Return whether it may be done now, and count it as done if so."""
        spent = max(self._spent, now)
        if spent - now > (self._burst - 1) * self._every:
            return False
        self._spent = spent + self._every
        return True
