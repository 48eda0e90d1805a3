"""Rounds, medians and ratios: what makes two figures comparable.

A machine is never the same for a minute. So everything that is compared is measured in the same
run, in rounds: each round measures every contender once, every second round in the reverse order,
and a figure is the median over the rounds.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from benchmarks.settings import Settings

T = TypeVar("T")

Sample = Mapping[str, float]
"""What one run of one contender measured: quantity to value.

Infinity where nothing came to an end.
"""
Contender = Callable[[], Sample]


class Progress:
    """Hears how far a benchmark is. This one keeps it to itself."""

    def expect(self, steps: int) -> None:
        """So many more steps will come."""

    def step(self, doing: str) -> None:
        """The next step begins."""


@dataclass(frozen=True)
class Rounds:
    """What each contender measured in each round."""

    samples: dict[str, list[Sample]]

    def median(self, contender: str, quantity: str) -> float:
        return median(sample[quantity] for sample in self.samples[contender])

    def ratio(self, contender: str, other: str, quantity: str) -> float:
        """Of the medians, so that a reader who divides what the table shows finds the same."""
        return quotient(self.median(contender, quantity), self.median(other, quantity))

    def ratio_within(self, contender: str, quantity: str, other: str) -> float:
        """Of two quantities of the same contender, again of their medians."""
        return quotient(self.median(contender, quantity), self.median(contender, other))

    def __or__(self, more: Rounds) -> Rounds:
        return Rounds({**self.samples, **more.samples})


def quotient(figure: float, other: float) -> float:
    """Their ratio; infinity where there is nothing to divide by."""
    return figure / other if other else float("inf")


def interleaved(contenders: Mapping[str, Contender], rounds: int, progress: Progress) -> Rounds:
    """Run each contender once in every round, every second round in the reverse order: a drift then
    favours nobody.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    progress.expect(rounds * len(contenders))
    for number in range(rounds):
        for name in turns(list(contenders), number):
            progress.step(name)
            gc.collect()
            samples[name].append(contenders[name]())
    return Rounds(samples)


def resident_bytes() -> int:
    """Memory of this process; where the system does not tell, the most that it ever was."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def turns(names: Sequence[str], number: int) -> Sequence[str]:
    """The order of the contenders in this round."""
    return names[::-1] if number % 2 else names


def in_loop(settings: Settings, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it in an event loop of its own."""
    with asyncio.Runner(loop_factory=settings.loop_factory) as runner:
        return runner.run(main())
