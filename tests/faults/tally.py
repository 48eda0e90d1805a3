"""What a run of one kind of fault counted, and what it found wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

ENOUGH = 20
"""Violations after which a run ends: more would say nothing new."""


@dataclass
class Tally:
    """Counts by name, and a line for each violation of the contract.

    A run without any has ``violations == []``.
    """

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Take the counts and violations of another run in."""
        self.counts.update(other.counts)
        self.violations += other.violations

    def violated(self, line: str) -> None:
        self.violations.append(line)
