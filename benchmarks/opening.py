"""Opening: a store that was closed, and one whose process was killed."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

from aquipu import OsManaged, Store
from benchmarks.contender import scratch
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.report import Report, Table, Target, milliseconds, times
from benchmarks.settings import MIB, RECORD, Settings
from benchmarks.victim import leave_behind

_SEGMENT_BYTES = MIB  # of the sealed ones: what opening reads of them hardly depends on their size
_BATCH = 64
_SECONDS = "seconds"
_ONE = "closed, 1 segment"
_KILLED = {  # records in a commit, policy, at most so many milliseconds
    "killed, commits of 1,000 records, EveryN(64)": (1_000, "EveryN(64)", 150.0),
    "killed, commits of one record, EveryN(64)": (1, "EveryN(64)", 500.0),
    "killed, commits of 1,000 records, OsManaged (all of it is written again)": (
        1_000,
        "OsManaged",
        None,
    ),
}


def run(settings: Settings, progress: Progress) -> Report:
    """Stores are made once, and opened in rounds."""
    many = f"closed, {settings.segments:,} sealed segments"
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        progress.expect(2 + len(_KILLED))
        for name, segments in ((_ONE, 0), (many, settings.segments)):
            progress.step(f"making a store: {name}")
            path = stack.enter_context(scratch(settings)) / "store"
            in_loop(settings, partial(_make, path, segments))
            contenders[name] = _opened(settings, path)
        for name, (records, policy, _) in _KILLED.items():
            progress.step(f"making a store: {name}")
            path = stack.enter_context(scratch(settings)) / "store"
            leave_behind(path, settings.active_bytes, records, policy)
            contenders[name] = _recovered(settings, path)
        rounds = interleaved(contenders, settings.rounds, progress)
    return Report(
        "opening", tables=[_table(settings, rounds)], targets=_targets(many, rounds), rounds=rounds
    )


async def _make(path: Path, segments: int) -> None:
    """Make and close a store with so many sealed segments, and a little in the one written last."""
    async with Store.open(path, sync_policy=OsManaged(), max_segment_bytes=_SEGMENT_BYTES) as store:
        while store.statistics().segments <= segments:
            await store.append_many([RECORD] * _BATCH)
            await store.flush()
        await store.append(RECORD)


def _opened(settings: Settings, path: Path) -> Contender:
    """Opening and closing change nothing, so the same store is opened again and again."""
    return lambda: {_SECONDS: median(_open(settings, path) for _ in range(settings.openings))}


def _recovered(settings: Settings, path: Path) -> Contender:
    """Opening mends the store, so a copy is opened; it is synced first, so that opening pays for
    its own syncs only.
    """

    def contender() -> Sample:
        with scratch(settings) as directory:
            copy = directory / "store"
            shutil.copytree(path, copy)
            for file in copy.iterdir():
                _sync(file)
            return {_SECONDS: _open(settings, copy)}

    return contender


def _open(settings: Settings, path: Path) -> float:
    async def opened() -> float:
        began = perf_counter()
        async with Store.open(path):
            return perf_counter() - began

    return in_loop(settings, opened)


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# what is shown


def _table(settings: Settings, rounds: Rounds) -> Table:
    rows = [
        [
            name,
            milliseconds(rounds.median(name, _SECONDS)),
            times(rounds.ratio(name, _ONE, _SECONDS)),
        ]
        for name in rounds.samples
    ]
    title = (
        f"Opening; the process was killed when a segment of {settings.active_bytes / MIB:g} MiB "
        "was full"
    )
    return Table(title, ["", "median", "against the first"], rows)


def _targets(many: str, rounds: Rounds) -> list[Target]:
    targets = [
        Target(
            f"{many}, against 1 segment", rounds.ratio(many, _ONE, _SECONDS), 2, "×", at_least=False
        ),
        Target(many, rounds.median(many, _SECONDS) * 1e3, 50, " ms", at_least=False),
    ]
    for name, (_, _, bound) in _KILLED.items():
        if bound is not None:
            targets.append(
                Target(name, rounds.median(name, _SECONDS) * 1e3, bound, " ms", at_least=False)
            )
    return targets
