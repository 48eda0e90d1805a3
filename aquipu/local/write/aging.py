"""Aging: what is due by itself, when nobody appends: a roll, or letting go of the oldest. Blocking.

Without a bound on the age of segments there is nothing of that, and an idle store waits for its
next caller only. With one, the thread that writes wakes when the segment at hand has reached it,
and, where the retention goes by age, when the oldest sealed segment is to go. Ages go by the clock
that nobody can set, suspends of the machine included. A wait may not count those, so none is longer
than `_WAIT_MAX`.
"""

from __future__ import annotations

from time import monotonic_ns, time_ns

from aquipu.local.retain.age import SegmentAge
from aquipu.local.retain.clock import HOUR, SECOND, elapsed_ns
from aquipu.local.write.keeper import Keeper
from aquipu.local.write.log_files import LogFiles
from aquipu.local.write.roller import Roller

_WAIT_MAX = HOUR


class Aging:
    """When the thread that writes a log has something to do by itself."""

    def __init__(self, files: LogFiles, keeper: Keeper, roller: Roller) -> None:
        self._files = files
        self._keeper = keeper
        self._roller = roller

    def limit(self, max_age: int) -> None:
        """Seal segments when their oldest record has this age, in nanoseconds."""
        active = self._files.active
        age = self._files.age = SegmentAge(max_age)
        if active.contents.next_sequence > active.header.first_sequence:
            times = (active.contents.first_time, active.contents.last_time)
            age.found(times, time_ns(), elapsed_ns())

    def written(self) -> None:
        """Note that a record was written: the segment at hand has one now."""
        if self._files.age is not None:
            self._files.age.written(elapsed_ns())

    @property
    def has_to_roll(self) -> bool:
        """Whether the segment at hand has reached its age."""
        age = self._files.age
        return age is not None and age.due is not None and elapsed_ns() >= age.due

    @property
    def seconds_left(self) -> float | None:
        """Seconds until something is due; None when nothing will be."""
        files = self._files
        if files.age is None or files.failure is not None:
            return None
        now, left = elapsed_ns(), []
        if files.age.due is not None:
            left.append(max(files.age.due - now, self._roller.roll_at - monotonic_ns()))
        if (look_at := self._keeper.look_at) is not None:
            left.append(look_at - now)
        return min(max(min(left), 0), _WAIT_MAX) / SECOND if left else None
