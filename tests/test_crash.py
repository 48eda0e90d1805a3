"""Killed again and again: whatever was acknowledged is there, as it was written, under every
policy.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aquipu import Record, Store
from tests import crash_child
from tests.crash_child import BATCH, POLICIES, data_of, is_batch, labels_of

KILLS = 34
"""For each policy: more than 100 in all."""
EXITS = 6
"""For each policy: processes that end themselves with os._exit."""
ACKNOWLEDGEMENTS_MAX = 120
NUMBERS_PER_LIFE = 1_200_000
"""Every life begins its own numbers at a multiple of this, which is one of `BATCH` and of the step
of `is_batch` too.
"""


class History:
    """What was acknowledged in all the lives of a store so far."""

    def __init__(self, path: Path, policy: str, seed: int) -> None:
        self.path = path
        self.policy = policy
        self.random = random.Random(seed)
        self.acknowledged: dict[int, int] = {}
        """Sequence to number."""
        self.lives = 0
        self.reached = 0
        """Records that were once found in the store: they stay, acknowledged or not."""

    def live(self, *, kill: bool) -> None:
        """One process more: it opens the store, appends, and ends in the middle of that."""
        self.lives += 1
        acknowledgements = self.random.choice(
            [1, 2, self.random.randrange(1, ACKNOWLEDGEMENTS_MAX)]
        )
        with self._start(0 if kill else acknowledgements) as process:
            assert process.stdout is not None
            if kill:
                lines = self.random.choice(
                    [1, 2, *[2 + acknowledgements] * 3]
                )  # 1: it is killed while it opens the store
                for _ in range(lines):
                    self._note(process.stdout.readline())
                process.send_signal(signal.SIGKILL)
            for line in process.stdout:  # what it had still reported counts as well
                self._note(line)
        assert process.returncode == (-signal.SIGKILL if kill else 7)

    def _start(self, acknowledgements: int) -> subprocess.Popen[str]:
        first = self.lives * NUMBERS_PER_LIFE
        segment_bytes = self.random.choice([4096, 16_384, 64 << 20])
        arguments = [
            str(self.path),
            self.policy,
            str(first),
            str(segment_bytes),
            str(acknowledgements),
        ]
        return subprocess.Popen(
            [sys.executable, "-m", crash_child.__name__, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        )

    def _note(self, line: str) -> None:
        assert line.endswith("\n"), f"the process ended by itself: {line!r}"
        if line not in ("begin\n", "open\n"):
            number, sequence = map(int, line.split())
            assert self.acknowledged.setdefault(sequence, number) == number, (
                "a sequence was given twice"
            )

    def check(self) -> None:
        """Open the store and hold all that it has against all that was acknowledged."""
        records = asyncio.run(_read(self.path))
        assert [record.sequence for record in records] == list(range(len(records)))
        assert len(records) >= self.reached
        self.reached = len(records)
        for sequence, number in self.acknowledged.items():
            assert sequence < len(records), f"sequence {sequence} was acknowledged and is missing"
            assert records[sequence].data == data_of(number)
        self._check_contents(records)

    def _check_contents(self, records: list[Record]) -> None:
        """Also what was never acknowledged is as it was written; nothing is there twice; a batch is
        whole.
        """
        numbers = [int(record.data.partition(b":")[0]) for record in records]
        assert len(set(numbers)) == len(numbers)
        times = [record.timestamp for record in records]
        assert times == sorted(times)
        for record, number in zip(records, numbers, strict=True):
            assert record.data == data_of(number)
            first = number - number % BATCH
            if is_batch(first):
                assert record.relations == labels_of(first)
                assert numbers[record.sequence - number % BATCH :][:BATCH] == list(
                    range(first, first + BATCH)
                )
            else:
                assert record.relations == labels_of(number)


async def _read(path: Path) -> list[Record]:
    async with Store.open(path) as store:
        return [record async for record in store.scan()]


def _environment() -> dict[str, str]:
    """The child finds its module where this one was found."""
    root = str(Path(__file__).parent.parent)
    paths = [root, os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.mark.proof
@pytest.mark.parametrize("policy", POLICIES)
def test_killed_again_and_again(tmp_path: Path, policy: str) -> None:
    """SIGKILL at any moment, and os._exit, take no acknowledged record, under no policy, however
    often they come.
    """
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"{policy}: seed {seed}")  # noqa: T201 - pytest shows it when the test fails
    history = History(tmp_path / "store", policy, seed)
    ends = [True] * KILLS + [False] * EXITS
    history.random.shuffle(ends)
    for kill in ends:
        history.live(kill=kill)
        if (
            history.random.random() < 0.5
        ):  # otherwise the next process finds the store as the last one left it
            history.check()
    history.check()
    assert history.acknowledged


@pytest.mark.parametrize("policy", POLICIES)
def test_process_ends_itself(tmp_path: Path, policy: str) -> None:
    """os._exit in the middle of the work takes no acknowledged record, and no later one takes its
    sequence.
    """
    history = History(tmp_path / "store", policy, seed=1)
    history.live(kill=False)
    history.check()
    history.live(kill=False)
    history.check()
    assert len(history.acknowledged) <= history.reached
