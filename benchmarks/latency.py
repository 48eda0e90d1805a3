"""How long things took: counted by the microsecond, so that ten million of them take no more memory
than ten.
"""

from __future__ import annotations

from array import array
from math import ceil, inf

# microseconds; what takes longer than a tenth of a second is rare enough to be kept one by one
_SLOTS = 100_000


class Latencies:
    """Durations in seconds."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _SLOTS))
        self._long: list[float] = []

    def note(self, seconds: float) -> None:
        """Count one."""
        slot = int(seconds * 1e6)
        if slot < _SLOTS:
            self._slots[slot] += 1
        else:
            self._long.append(seconds)

    def __len__(self) -> int:
        return sum(self._slots) + len(self._long)

    def sample(self, seconds: float) -> dict[str, float]:
        """Of appends in so many seconds: how many a second, the median and the 99th percentile."""
        return {
            "appends/s": len(self) / seconds,
            "p50": self.percentile(50),
            "p99": self.percentile(99),
        }

    def percentile(self, percent: float) -> float:
        """The smallest duration that so many percent do not exceed; infinity when nothing was
        counted.
        """
        rank = ceil(len(self) * percent / 100)
        if not rank:
            return inf
        for slot, count in enumerate(self._slots):
            rank -= count
            if rank <= 0:
                return slot / 1e6
        return sorted(self._long)[rank - 1]
