"""What a run is to do: everything that it appends follows from the seed, its number and the place
of the call in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from aquipu import Always, EveryN, OsManaged, Stage, SyncPolicy
from tests.faults.index import LABELS

POLICIES: tuple[SyncPolicy, ...] = (Always(), EveryN(4, within=None), OsManaged(), EveryN(64))
HOLD = "held"  # the name of the hold that every run sets
SECONDS_MAX = 30  # no run takes so long: one that does is ended by its alarm, which is a violation


class Run(NamedTuple):
    """The task of a child: which program it runs, and how."""

    program: str
    path: str
    seed: int
    round: int
    policy: int
    """Index in `POLICIES`."""
    oracle: str
    max_segment_bytes: int = 4096
    buffer_records: int = 65_536
    calls: int = 6
    tasks: int = 1
    scan: bool = False
    """Read everything right after opening."""
    moment: int = 0
    """Die at this call to the disk, from 1; 0 for never."""
    share: float = 0.0
    """Of the bytes of the write at that moment, which are still written."""


class Call(NamedTuple):
    """One call of a run; all of it follows from the seed, the run's number and the calls before."""

    number: int
    """Of its first record, counted from the beginning of the run."""
    payloads: list[bytes]
    relations: tuple[str, ...]
    durability: Stage | None
    waits: bool
    """append, not append_nowait."""
    then: str | None
    """What the caller does next: sync, flush, let_go of old records, or consume them."""


def calls(seed: int, round: int) -> Iterator[Call]:
    """The calls of a run, without end."""
    random = Random(f"{seed}/{round}")
    number = 0
    while True:
        payloads = [
            random.randbytes(_size(random)) for _ in range(random.choice((1, 1, 1, 1, 1, 2, 7)))
        ]
        relations = random.choice(((), (), (), LABELS[:1], LABELS))
        durability = random.choice((None, None, None, Stage.FLUSHED, Stage.SYNCED))
        then = random.choice((*[None] * 14, "sync", "flush", "let_go", "consume"))
        yield Call(number, payloads, relations, durability, random.random() < 0.8, then)
        number += len(payloads)


def _size(random: Random) -> int:
    return 70_000 if random.random() < 0.002 else min(int(random.expovariate(1 / 250)), 3000)
