"""Repeat the proof at any size: ``python -m tests.faults --states 1000000``.

Runs power cuts, disk errors, kills, bit flips, the model and the mutants on all processors, with a
progress bar on standard error and a summary on standard output. Exit status 1 when the contract was
violated anywhere, or a mutant was not found.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tests.faults import crashes, errors, flips, kills, model, places
from tests.faults.mutants import MUTANTS, hunted, mutate
from tests.faults.tally import Tally

_CHUNK = {
    "places": 1,
    "states": 5000,
    "errors": 250,
    "kills": 250,
    "flips": 10_000,
    "examples": 100,
    "mutants": 1,
}


@dataclass(frozen=True)
class Share:
    """A part of the work, small enough that progress shows."""

    kind: str
    size: int
    seed: int


@dataclass
class Result:
    """What came of a share."""

    share: Share
    tally: Tally
    lost: dict[str, Counter[int]] = field(default_factory=dict)


def work(share: Share) -> Result:
    """Do one share; in a process of its own."""
    match share.kind:
        case "states":
            policy = crashes.POLICIES[share.seed % len(crashes.POLICIES)]
            tally, lost = crashes.run(policy, share.size, share.seed, _quiet)
            return Result(share, tally, {type(policy).__name__: lost})
        case "places":
            return Result(share, places.run())
        case "errors":
            return Result(share, errors.run(share.size, share.seed, _quiet))
        case "kills":
            return Result(share, kills.run(share.size, share.seed, _quiet))
        case "flips":
            return Result(share, flips.run(share.size, share.seed, _quiet))
        case "examples":
            return Result(share, model.run(share.size, share.seed, _quiet))
    return Result(share, _mutant(list(MUTANTS)[share.seed]))


def _quiet(done: int) -> None:
    """The parent shows the progress."""


def _mutant(name: str) -> Tally:
    tally = Tally()
    with TemporaryDirectory() as place:
        mutate(name, MUTANTS[name], Path(place))
        found, said = hunted(Path(place), MUTANTS[name])
    tally.counts["mutants"] += 1
    tally.counts["mutants found"] += found
    if not found:
        tally.violated(f"the mutant that {name} was not found: {said}")
    return tally


def shares(arguments: argparse.Namespace) -> Iterator[Share]:
    """All the work, in parts."""
    for kind, chunk in _CHUNK.items():
        total = (
            len(MUTANTS) if kind == "mutants" and arguments.mutants else getattr(arguments, kind)
        )
        if total is None:
            yield Share(kind, 0, arguments.seed)
            continue
        number = 0
        while total > 0:
            seed = number if kind == "mutants" else arguments.seed + number
            yield Share(kind, min(chunk, total), seed)
            total -= chunk
            number += 1


def main() -> int:
    """Do it all."""
    arguments = _arguments()
    every, tally, lost = list(shares(arguments)), Tally(), dict[str, Counter[int]]()
    began = monotonic()
    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        ProcessPoolExecutor(arguments.processes) as pool,
    ):
        bars = {
            kind: progress.add_task(
                kind, total=sum(share.size or 1 for share in every if share.kind == kind)
            )
            for kind in dict.fromkeys(share.kind for share in every)
        }
        pending: list[Future[Result]] = [pool.submit(work, share) for share in every]
        for done in as_completed(pending):
            result = done.result()
            progress.advance(bars[result.share.kind], result.share.size or 1)
            tally.add(result.tally)
            for policy, counts in result.lost.items():
                lost.setdefault(policy, Counter()).update(counts)
    _report(tally, lost, monotonic() - began)
    return 1 if tally.violations else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description="Repeat the proof at any size."
    )
    parser.add_argument(
        "--states", type=int, default=60_000, help="crash states in all, a third under each policy"
    )
    parser.add_argument(
        "--errors",
        type=_amount,
        default=3_000,
        help="injected disk errors; all: every call, every error",
    )
    parser.add_argument("--kills", type=int, default=500, help="processes killed")
    parser.add_argument(
        "--flips",
        type=_amount,
        default=20_000,
        help="bits flipped; all: every bit, and all other damage",
    )
    parser.add_argument("--examples", type=int, default=300, help="examples of the model")
    parser.add_argument(
        "--mutants", action=argparse.BooleanOptionalAction, default=True, help="hunt the mutants"
    )
    parser.set_defaults(places=None)  # always all of them
    parser.add_argument("--seed", type=int, default=0, help="where the random choices begin")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="how many at a time")
    return parser.parse_args()


def _amount(text: str) -> int | None:
    return None if text == "all" else int(text)


def _report(tally: Tally, lost: dict[str, Counter[int]], seconds: float) -> None:
    """The summary."""
    console = Console(file=sys.stdout, highlight=False, width=120)
    for name, count in sorted(tally.counts.items()):
        console.print(f"{count:>12,}  {name}")
    for policy, counts in sorted(lost.items()):
        most = max(counts, default=0)
        several = ", ".join(
            f"{n}: {counts[n]:,}" for n in (0, 1, 2, 4, 8, 16, 32, 62, 63, 64) if counts[n]
        )
        console.print(
            f"{most:>12,}  most acknowledged records that a power cut took, {policy} (how often: "
            f"{several})"
        )
    console.print(f"{len(tally.violations):>12,}  violations, in {seconds:,.0f} s")
    for line in tally.violations[:50]:
        console.print(f"              {line}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
