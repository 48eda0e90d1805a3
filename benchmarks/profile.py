"""Where the time of an append goes: the steps of a commit, and how often it calls the system and
changes threads.

The steps are what lies between six moments in the life of a commit, taken by looking at the clock
where they pass: that costs a few microseconds itself, and is why this stands apart from the
throughput.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from time import perf_counter, thread_time
from typing import Any
from unittest.mock import patch

from aquipu import Always, Store
from aquipu.local.write.journal import Journal
from aquipu.local.write.worker import Worker
from benchmarks.contender import at, callers_named, scratch
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.report import Report, Table
from benchmarks.settings import CALLERS, RECORD, Settings
from benchmarks.workload import closed_loop

_STEPS = (
    "the loop hands it over, the worker wakes",
    "the worker encodes it",
    "write and sync, one system call",
    "the worker says so, the loop wakes",
    "the loop resumes its callers and takes their next appends",
)
_PER_CALL = re.compile(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)")
_ROOT = Path(__file__).resolve().parents[1]
_TRACED = 300  # commits, and once more twice as many: the difference has no start and no end in it
_RARE = 0.05  # calls per commit that are not worth a row


def run(settings: Settings, progress: Progress) -> Report:
    """Steps, switches and system calls."""
    contenders = {at("commit", callers): _watched(settings, callers) for callers in CALLERS}
    rounds = interleaved(contenders, settings.rounds, progress)
    report = Report("profile", tables=[_step_table(rounds), _thread_table(rounds)], rounds=rounds)
    if shutil.which("strace") is None:
        report.notes.append("system calls left out: strace is not installed")
        return report
    progress.expect(1)
    progress.step("system calls")
    calls = {callers: _system_calls(settings, callers) for callers in (1, 64)}
    report.tables.append(_call_table(calls))
    return report


# what runs


class Moments:
    """When each commit passed the places that are watched, on whichever thread."""

    def __init__(self) -> None:
        self.passed: list[list[float]] = [[] for _ in range(6)]

    @contextmanager
    def watching(self) -> Iterator[None]:
        send, prepare, write, completed = (
            Worker.send,
            Journal.prepare,
            Journal.write,
            Store._completed,
        )
        sent, taken, encoded, written, back, done = (times.append for times in self.passed)

        def watched_send(worker: Worker, *arguments: Any, **options: Any) -> None:
            sent(perf_counter())
            send(worker, *arguments, **options)

        def watched_prepare(journal: Journal, commit: Any) -> Any:
            taken(perf_counter())
            prepared = prepare(journal, commit)
            encoded(perf_counter())
            return prepared

        def watched_write(journal: Journal, prepared: Any) -> Any:
            result = write(journal, prepared)
            written(perf_counter())
            return result

        def watched_completed(store: Store, outcome: object = None) -> None:
            back(perf_counter())
            completed(store, outcome)
            done(perf_counter())

        with (
            patch.object(Worker, "send", watched_send),
            patch.object(Journal, "prepare", watched_prepare),
            patch.object(Journal, "write", watched_write),
            patch.object(Store, "_completed", watched_completed),
        ):
            yield

    def steps(self) -> Sample:
        """The median of each step, in seconds."""
        pairs = zip(self.passed, self.passed[1:], strict=False)
        return {
            name: median(end - begin for begin, end in zip(earlier, later, strict=False))
            for name, (earlier, later) in zip(_STEPS, pairs, strict=True)
        }


def _watched(settings: Settings, callers: int) -> Contender:
    async def measured(directory: Path) -> Sample:
        moments = Moments()
        with moments.watching():
            async with Store.open(directory / "watched", sync_policy=Always()) as store:
                await closed_loop(store.append, callers, settings.seconds)
        async with Store.open(directory / "store", sync_policy=Always()) as store:
            await closed_loop(store.append, callers, settings.seconds / 10)
            commits, switches, computed = store.statistics().commits, _switches(), thread_time()
            appends = await closed_loop(store.append, callers, settings.seconds)
            computed = thread_time() - computed
            commits = store.statistics().commits - commits
            each = {"switches": (_switches() - switches) / commits, "records": appends / commits}
            return {**moments.steps(), **each, "loop": computed / appends}

    def contender() -> Sample:
        with scratch(settings) as directory:
            return in_loop(settings, lambda: measured(directory))

    return contender


def _switches() -> int:
    """How often threads of this process gave way because they had to wait."""
    return getrusage(RUSAGE_SELF).ru_nvcsw


def _system_calls(settings: Settings, callers: int) -> dict[str, float]:
    """By name: how many for each commit."""
    few, many = (_traced(settings, callers, commits) for commits in (_TRACED, 2 * _TRACED))
    commits = many.pop("commits") - few.pop("commits")
    each = {name: (count - few.get(name, 0)) / commits for name, count in many.items()}
    return {name: count for name, count in each.items() if count >= _RARE}


def _traced(settings: Settings, callers: int, commits: int) -> dict[str, int]:
    with scratch(settings) as directory:
        log = directory / "calls"
        child = [
            sys.executable,
            "-m",
            "benchmarks.profile",
            str(directory / "store"),
            str(callers),
            str(commits),
        ]
        command = ["strace", "-f", "-c", "-o", str(log), *child]
        said = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True).stdout
        found = [
            match
            for line in log.read_text().splitlines()
            if (match := _PER_CALL.match(line)) is not None
        ]
        return {match[2]: int(match[1]) for match in found if match[2] != "total"} | {
            "commits": int(said)
        }


async def _child(path: str, callers: str, commits: str) -> None:
    """Each caller makes so many appends; says how many commits that were."""
    async with Store.open(path, sync_policy=Always()) as store:

        async def caller() -> None:
            for _ in range(int(commits)):
                await store.append(RECORD)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(int(callers)):
                tasks.create_task(caller())
        sys.stdout.write(f"{store.statistics().commits}\n")


# what is shown


def _step_table(rounds: Rounds) -> Table:
    def microseconds(callers: int, quantity: str) -> str:
        return f"{rounds.median(at('commit', callers), quantity) * 1e6:.0f} µs"

    rows = [[name, *(microseconds(callers, name) for callers in CALLERS)] for name in _STEPS]
    title = (
        "The steps of a commit under Always; the last one overlaps with the next commit where "
        "there are many callers"
    )
    return Table(title, ["", *map(callers_named, CALLERS)], rows)


def _thread_table(rounds: Rounds) -> Table:
    def figures(quantity: str, scale: float = 1) -> list[str]:
        return [
            f"{rounds.median(at('commit', callers), quantity) * scale:.2f}" for callers in CALLERS
        ]

    rows = [
        ["records in a commit", *figures("records")],
        ["thread switches for each commit", *figures("switches")],
        ["CPU of the loop's thread for each append, µs", *figures("loop", 1e6)],
    ]
    return Table("Threads", ["", *map(callers_named, CALLERS)], rows)


def _call_table(calls: dict[int, dict[str, float]]) -> Table:
    names = sorted(
        {name for counts in calls.values() for name in counts},
        key=lambda name: -calls[1].get(name, 0),
    )
    rows = [[name, *(f"{counts.get(name, 0):.2f}" for counts in calls.values())] for name in names]
    return Table("System calls for each commit (strace)", ["", *map(callers_named, calls)], rows)


if __name__ == "__main__":
    asyncio.run(_child(*sys.argv[1:]))
