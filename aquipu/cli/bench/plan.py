"""What is measured, and how long. Pure."""

from __future__ import annotations

from typing import NamedTuple

from aquipu.policy import Always, EveryN, OsManaged, SyncPolicy

RECORD_BYTES = 256
CALLERS = (1, 16, 64, 256)
POLICIES: tuple[tuple[str, SyncPolicy], ...] = (
    ("Always()", Always()),
    ("EveryN(64)", EveryN(64)),
    ("OsManaged()", OsManaged()),
)
_MIB = 1024 * 1024
_SPARE_BYTES = 256 * _MIB  # for segments made ahead, and for others who write there


class Plan(NamedTuple):
    """How much is measured."""

    sync_seconds: float
    """Of single syncs."""
    run_seconds: float
    """Of one policy with one number of callers."""
    run_bytes: int
    """The most that one run writes: then it ends early."""
    runs: tuple[tuple[str, SyncPolicy, int], ...]
    """Name of a policy, the policy, and the number of callers."""

    @property
    def needed_bytes(self) -> int:
        """Free space without which nothing is begun."""
        return 2 * self.run_bytes + _SPARE_BYTES


def planned(*, quick: bool) -> Plan:
    """Return the plan of 20 seconds, or of less than three minutes."""
    runs = tuple((name, policy, callers) for name, policy in POLICIES for callers in CALLERS)
    if quick:
        return Plan(1.5, 1.2, 192 * _MIB, runs)
    return Plan(8.0, 11.0, 512 * _MIB, runs)
