"""Backups beside appends: what they cost the writer, and how fast they are.

A store that holds a log already is appended to by 64 callers, each waiting for its own, while it is
backed up again and again: by the same process (``await store.backup``), by another one (``aquipu
backup``), or not at all. The second table is of a store at rest.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from shutil import rmtree
from time import perf_counter

from aquipu import Always, EveryN, Reader, Store, SyncPolicy
from benchmarks.contender import scratch
from benchmarks.measure import Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.settings import Settings
from benchmarks.workload import latencies

CALLERS = 64
SEGMENT_BYTES = 8 * 1024 * 1024
RECORD = bytes(256)
HELD_BYTES = 256 * 1024 * 1024
NEW_BYTES = 10 * 1024 * 1024
POLICIES: dict[str, SyncPolicy] = {"Always()": Always(), "EveryN(64)": EveryN(64)}

_ALONE, _WITHIN, _BESIDE = "no backup", "store.backup()", "aquipu backup"
_FIRST, _AGAIN = "first backup", "second backup"


def run(settings: Settings, progress: Progress) -> Report:
    """The writer's throughput beside backups, and the time of a backup."""
    contenders = {
        f"{policy}, {how}": partial(_appended, settings, policy, how)
        for policy in POLICIES
        for how in (_ALONE, _WITHIN, _BESIDE)
    }
    beside = interleaved(contenders, settings.rounds, progress)
    rest = interleaved({_FIRST: partial(_at_rest, settings)}, settings.rounds, progress)
    return Report(
        "backup",
        tables=[_table(beside), _table_at_rest(rest)],
        targets=[
            Target(
                f"appends/s, {policy}, beside {how}, of those without",
                beside.ratio(f"{policy}, {how}", f"{policy}, {_ALONE}", "appends/s"),
                0.9,
                "×",
            )
            for policy in POLICIES
            for how in (_WITHIN, _BESIDE)
        ],
        rounds=Rounds({**beside.samples, **rest.samples}),
    )


# beside appends


def _appended(settings: Settings, policy: str, how: str) -> Sample:
    async def measured(directory: Path) -> Sample:
        place = directory / "backup"
        async with Store.open(
            directory / "store", sync_policy=POLICIES[policy], max_segment_bytes=SEGMENT_BYTES
        ) as store:
            await _fill(store, _held(settings))
            backing_up = asyncio.create_task(_backups(store, place, how))
            taken = await latencies(store.append, CALLERS, settings.seconds)
            backing_up.cancel()
            with suppress(asyncio.CancelledError):
                await backing_up
            return taken.sample(settings.seconds)

    with scratch(settings) as directory:
        return in_loop(settings, lambda: measured(directory))


async def _backups(store: Store, place: Path, how: str) -> None:
    """Make one backup after another, each of all that there is."""
    while how != _ALONE:
        if how == _WITHIN:
            await store.backup(place)
        else:
            command = (sys.executable, "-m", "aquipu", "backup", store.path, str(place))
            process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
            try:
                await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        await asyncio.to_thread(rmtree, place)


async def _fill(store: Store, size: int) -> None:
    for _ in range(size // (len(RECORD) * 1024)):
        await store.append_many([RECORD] * 1024)
    await store.sync()


def _held(settings: Settings) -> int:
    return min(HELD_BYTES, int(settings.seconds * HELD_BYTES / 2))


# at rest


def _at_rest(settings: Settings) -> Sample:
    async def measured(directory: Path) -> Sample:
        path, place = directory / "store", directory / "backup"
        async with Store.open(path, max_segment_bytes=SEGMENT_BYTES) as store:
            await _fill(store, _held(settings))
        begun = perf_counter()
        async with Reader.open(path) as reader:
            done = await reader.backup(place)
        seconds = perf_counter() - begun
        async with Store.open(path, max_segment_bytes=SEGMENT_BYTES) as store:
            await _fill(store, min(NEW_BYTES, _held(settings)))
        begun = perf_counter()
        async with Reader.open(path) as reader:
            again = await reader.backup(place)
        return {
            "bytes": done.copied_bytes,
            "bytes/s": done.copied_bytes / seconds,
            "bytes again": again.copied_bytes,
            "seconds again": perf_counter() - begun,
        }

    with scratch(settings) as directory:
        return in_loop(settings, lambda: measured(directory))


# what is shown


def _table(rounds: Rounds) -> Table:
    rows = [
        [
            f"{policy}, {how}",
            count(rounds.median(f"{policy}, {how}", "appends/s")),
            times(rounds.ratio(f"{policy}, {how}", f"{policy}, {_ALONE}", "appends/s")),
            milliseconds(rounds.median(f"{policy}, {how}", "p50")),
            milliseconds(rounds.median(f"{policy}, {how}", "p99")),
        ]
        for policy in POLICIES
        for how in (_ALONE, _WITHIN, _BESIDE)
    ]
    title = f"Appends of 256 bytes by {CALLERS} callers, while the store is backed up"
    return Table(title, ["", "appends/s", f"of {_ALONE}", "median", "99 %"], rows)


def _table_at_rest(rounds: Rounds) -> Table:
    of = partial(rounds.median, _FIRST)
    rows = [
        [_FIRST, f"{of('bytes') / 1e6:,.0f} MB", f"{of('bytes/s') / 1e6:,.0f} MB/s"],
        [
            f"{_AGAIN}, {NEW_BYTES / 1e6:.0f} MB are new",
            f"{of('bytes again') / 1e6:,.0f} MB",
            milliseconds(of("seconds again")),
        ],
    ]
    return Table("A store at rest", ["", "copied", ""], rows)
