"""The clock of the machine under test, which its users set; and what is found by the times that it
gave.

It is set so far that no time that has passed could explain it, or by hours: so nothing ever grows
old enough for the retention, whatever the clock says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from unittest.mock import patch

import aquipu.commit.committer
import aquipu.commit.writable
import aquipu.local.opening
import aquipu.local.retain.clock
import aquipu.local.write.journal
import aquipu.local.write.keeper
from aquipu import Record, Retention, Store

_SECOND = 10**9
_HOUR = 3600 * _SECOND
_ERA = 3 * 366 * 24 * _HOUR
_TRIES = 4
RETENTION = Retention(max_age=100 * 3600)
"""More than all hours together by which the clock of one run is set."""


class Clock:
    """Says by how much it was set more than the real one."""

    def __init__(self) -> None:
        self._set_by = 0

    def __call__(self) -> int:
        return time.time_ns() + self._set_by

    def set(self, random: Random) -> None:
        """Forward or back, and often right again."""
        self._set_by = random.choice((0, 0, 1, 5)) * _ERA + random.choice(
            (0, 1, _SECOND, 2 * _SECOND, _HOUR, 9 * _HOUR)
        )


@contextmanager
def of_the_engine(clock: Clock) -> Iterator[None]:
    """While this lasts the engine asks this clock; what it logs of it is not shown."""
    with ExitStack() as stack:
        for room in (
            aquipu.local.retain.clock,
            aquipu.local.write.journal,
            aquipu.local.write.keeper,
            aquipu.local.opening,
            aquipu.commit.committer,
            aquipu.commit.writable,
        ):
            stack.enter_context(patch.object(room, "time_ns", clock))
        stack.enter_context(patch.object(aquipu.local.retain.clock._log, "disabled", True))
        yield


async def mistimed(store: Store, records: Sequence[Record], random: Random) -> str | None:
    """What is wrong with what is found by times in a log that holds just these records;

    None when nothing is.
    """
    times = sorted({record.timestamp for record in records})
    for _ in range(_TRIES if times else 0):
        since, until = sorted((random.choice(times), random.choice(times) + random.randrange(2)))
        expected = [record.sequence for record in records if since <= record.timestamp < until]
        reverse = random.random() < 0.5
        found = [
            record.sequence
            async for record in store.scan(since=since, until=until, reverse=reverse)
        ]
        if found != (expected[::-1] if reverse else expected):
            return f"from {since} up to {until} {found} are found instead of {expected}"
    return None
