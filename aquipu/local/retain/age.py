"""How old the segment that is being written is. Pure; all times are handed in, in nanoseconds."""

from __future__ import annotations

from aquipu.local.retain.retention import GAP_MAX


class SegmentAge:
    """The age of one segment after another, by a clock that cannot be set."""

    def __init__(self, max_age: int) -> None:
        self.max_age = max_age
        """Age of its oldest record at which a segment is to be sealed."""
        self._first_at = 0  # when its first record was written; 0: there is none
        self._last_at = 0

    def found(self, times: tuple[int, int], now: int, elapsed: int) -> None:
        """Take over a segment with records, of which the first and the last have these times.

        ``now`` and ``elapsed`` are what the two clocks say. A time that the clock cannot have been
        right about counts as none: see `retention.aging`.
        """
        first, last = times
        self._last_at = elapsed - _passed(last, now)
        self._first_at = self._last_at - _passed(first, last)

    def written(self, now: int) -> None:
        """Note that a record was written."""
        self._first_at = self._first_at or now
        self._last_at = now

    def sealed(self, now: int) -> int:
        """Return since when the newest record of a segment grows older; the next one is empty."""
        last, self._first_at, self._last_at = self._last_at, 0, 0
        return last or now

    @property
    def due(self) -> int | None:
        """When the segment is to be sealed; None as long as nothing is in it."""
        return self._first_at + self.max_age if self._first_at else None


def _passed(since: int, until: int) -> int:
    passed = until - since
    return passed if 0 <= passed <= GAP_MAX else 0
