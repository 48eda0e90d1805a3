"""Following: how soon a record reaches those who wait for it, in the process and in others, and
what that costs the writer.

``python -m benchmarks.following PATH`` is a process that follows. When it has come to the end it
gives the moment at which it had each record, on the clock that all processes share
(CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from array import array
from asyncio import Task, TaskGroup
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic_ns, perf_counter

from aquipu import Always, Follow, Reader, Store
from benchmarks import catching
from benchmarks.contender import scratch
from benchmarks.latency import Latencies
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.settings import RECORD, Settings
from benchmarks.workload import Append, throughput

TASKS = 64
RATE = 20_000
_FOLLOWERS = 3  # in the process
_READERS = 2  # in a process of its own each
_CALLERS = 1024
_END = b"end"  # what the last record holds
_ROOT = Path(__file__).resolve().parents[1]

_FOLLOWED, _ALONE = "paced, followed", "paced, alone"
_READ, _UNREAD = "unpaced, with a Reader", "unpaced, alone"


def run(settings: Settings, progress: Progress) -> Report:
    """The same appends with followers and without, at a pace that leaves the machine some time, and
    as fast as they go.
    """
    contenders: dict[str, Contender] = {
        _FOLLOWED: _paced_contender(settings, _FOLLOWERS, _READERS),
        _ALONE: _paced_contender(settings, 0, 0),
        _READ: _unpaced_contender(settings, 1),
        _UNREAD: _unpaced_contender(settings, 0),
    }
    rounds = interleaved(contenders, settings.rounds, progress)
    with scratch(settings) as directory:
        rounds |= catching.measure(settings, progress, directory)
    tables = [_delay_table(settings, rounds), _paced_table(rounds), _unpaced_table(rounds)]
    tables.append(catching.table(settings, rounds))
    targets = _targets(rounds) + catching.targets(rounds)
    return Report("following", tables=tables, targets=targets, rounds=rounds)


async def paced(append: Append, seconds: float, data: bytes = RECORD) -> tuple[float, Latencies]:
    """Appends per second and how long each took, when `RATE` are asked for, by tasks in turn.

    Each task awaits its own append; when it is late for the next one it does not wait.
    """
    taken = Latencies()
    began = perf_counter()
    end = began + seconds

    async def task(number: int) -> None:
        due = began + number / RATE
        while max(due, now := perf_counter()) < end:
            if now < due:
                await asyncio.sleep(due - now)
            asked = perf_counter()
            await append(data)
            taken.note(perf_counter() - asked)
            due += TASKS / RATE

    async with TaskGroup() as tasks:
        for number in range(TASKS):
            tasks.create_task(task(number))
    return len(taken) / (perf_counter() - began), taken


# what runs


def _paced_contender(settings: Settings, followers: int, readers: int) -> Contender:
    seconds = settings.following_seconds

    async def measured(path: Path) -> tuple[Sample, array[int], list[array[int]]]:
        acknowledged_at = array("q", bytes(8 * (int(RATE * seconds) + TASKS)))
        async with TaskGroup() as tasks, Store.open(path, sync_policy=Always()) as store:
            following = _begin(tasks, store, followers)

            async def append(data: bytes) -> None:
                receipt = await store.append(data)
                acknowledged_at[receipt.sequence] = monotonic_ns()

            rate, taken = await paced(append, seconds)
            del acknowledged_at[store.next_sequence :]
            await store.append(_END)
        sample = {"appends/s": rate, "p50": taken.percentile(50), "p99": taken.percentile(99)}
        return sample, acknowledged_at, [task.result() for task in following]

    def contender() -> Sample:
        with _read(settings, readers) as (path, processes):
            sample, acknowledged_at, given = in_loop(settings, lambda: measured(path))
            read = [_moments(process) for process in processes]
        return {
            **sample,
            **_delays("in the process", acknowledged_at, given),
            **_delays("in another process", acknowledged_at, read),
        }

    return contender


def _unpaced_contender(settings: Settings, readers: int) -> Contender:
    async def measured(path: Path) -> tuple[Sample, int]:
        async with Store.open(path, sync_policy=Always()) as store:
            rate = await throughput(store.append, _CALLERS, settings.seconds)
            return {"appends/s": rate}, (await store.append(_END)).sequence

    def contender() -> Sample:
        with _read(settings, readers) as (path, processes):
            sample, appended = in_loop(settings, lambda: measured(path))
            for process in processes:
                _check_all(len(_moments(process)), appended)
        return sample

    return contender


def _begin(tasks: TaskGroup, store: Store, followers: int) -> list[Task[array[int]]]:
    return [tasks.create_task(_given(store.follow(0))) for _ in range(followers)]


async def _given(records: Follow) -> array[int]:
    """When each record was given, from the first one up to the end;

    RuntimeError unless each comes once, in order.
    """
    moments = array("q")
    async with records:
        async for record in records:
            if record.sequence != len(moments):
                raise RuntimeError(
                    f"a follower was given record {record.sequence} in the place of {len(moments)}"
                )
            if record.data == _END:
                break
            moments.append(monotonic_ns())
    return moments


def _delays(where: str, acknowledged_at: array[int], followers: Iterable[array[int]]) -> Sample:
    """From the receipt of a record, in its caller, until the record was given to the slowest
    follower.
    """
    slowest: dict[str, float] = {}
    for moments in followers:
        _check_all(len(moments), len(acknowledged_at))
        taken = Latencies()
        for sequence, (given, acknowledged) in enumerate(
            zip(moments, acknowledged_at, strict=True)
        ):
            if given < acknowledged:
                raise RuntimeError(
                    f"a follower {where} was given record {sequence} before its caller was resumed"
                )
            taken.note((given - acknowledged) / 1e9)
        for percent in (50, 99):
            quantity = f"{where} p{percent}"
            slowest[quantity] = max(slowest.get(quantity, 0.0), taken.percentile(percent))
    return slowest


def _check_all(given: int, appended: int) -> None:
    if given != appended:
        raise RuntimeError(f"a follower was given {given} of {appended} records")


# other processes


@contextmanager
def _read(settings: Settings, readers: int) -> Iterator[tuple[Path, list[subprocess.Popen[bytes]]]]:
    """An empty store, and so many processes that follow it already."""
    with scratch(settings) as directory, ExitStack() as stack:
        path = directory / "store"
        in_loop(settings, lambda: _make(path))
        command = [sys.executable, "-m", "benchmarks.following", str(path)]
        processes = []
        for _ in range(readers):
            process = stack.enter_context(
                subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE)
            )
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != b"open\n":
                raise RuntimeError("a process that follows has failed to begin")
        yield path, processes


async def _make(path: Path) -> None:
    async with Store.open(path):
        pass


def _moments(process: subprocess.Popen[bytes]) -> array[int]:
    """What the process gives when it has come to the end."""
    assert process.stdout is not None
    content = process.stdout.read()
    if process.wait():
        raise RuntimeError("a process that follows has failed")
    moments = array("q")
    moments.frombytes(content)
    return moments


async def main(path: str) -> None:
    """Follow, and say when each record came."""
    async with Reader.open(path) as reader:
        records = reader.follow(0)
        sys.stdout.buffer.write(b"open\n")
        sys.stdout.buffer.flush()
        moments = await _given(records)
    sys.stdout.buffer.write(moments.tobytes())


# what is shown


def _delay_table(settings: Settings, rounds: Rounds) -> Table:
    rows = []
    for where, followers in (("in the process", _FOLLOWERS), ("in another process", _READERS)):
        delays = [
            milliseconds(rounds.median(_FOLLOWED, f"{where} p{percent}")) for percent in (50, 99)
        ]
        rows.append([where, str(followers), *delays])
    title = (
        f"From acknowledgement to a follower: {TASKS} tasks at a paced {RATE:,} appends/s under "
        "Always, "
        f"{settings.following_seconds:g} seconds"
    )
    return Table(title, ["", "followers", "median of the slowest", "99 % of the slowest"], rows)


def _paced_table(rounds: Rounds) -> Table:
    rows = []
    for name in (_FOLLOWED, _ALONE):
        latency = [milliseconds(rounds.median(name, quantity)) for quantity in ("p50", "p99")]
        rows.append([name, count(rounds.median(name, "appends/s")), *latency])
    return Table("What these followers cost an append", ["", "appends/s", "median", "99 %"], rows)


def _unpaced_table(rounds: Rounds) -> Table:
    rows = [[name, count(rounds.median(name, "appends/s"))] for name in (_READ, _UNREAD)]
    rows.append(["of that", times(rounds.ratio(_READ, _UNREAD, "appends/s"))])
    return Table(
        f"One Reader in another process, {_CALLERS:,} callers under Always", ["", "appends/s"], rows
    )


def _targets(rounds: Rounds) -> list[Target]:
    own, other = (
        rounds.median(_FOLLOWED, f"{where} p50") * 1e3
        for where in ("in the process", "in another process")
    )
    cost = rounds.ratio(_FOLLOWED, _ALONE, "p99")
    kept = rounds.ratio(_READ, _UNREAD, "appends/s")
    return [
        Target("median delay to a follower in the process", own, 2, " ms", at_least=False),
        Target("median delay to a follower in another process", other, 20, " ms", at_least=False),
        Target("99 % of an append with followers, of that without", cost, 2, "×", at_least=False),
        Target(
            f"{_CALLERS:,} callers with a Reader in another process, of those without",
            kept,
            0.85,
            "×",
        ),
    ]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
