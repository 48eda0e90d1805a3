"""Through the daemon: several processes that append to one store, beside one process that has the
store for itself.

``python -m benchmarks.daemon serve STORE SOCKET`` is the daemon, and ``... append SOCKET SECONDS``
one of its clients (`processes`).
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from aquipu import Always, Store
from aquipu.remote.daemon.server import Daemon
from benchmarks.contender import scratch
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.processes import begin, figures, play, started, together, when_told
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.settings import Settings
from benchmarks.workload import latencies

PROCESSES = 4
TASKS = 64
_MODULE = "benchmarks.daemon"

_SERVED = f"daemon, {PROCESSES} processes × {TASKS} tasks"
_ONE = f"daemon, 1 process × {TASKS} tasks"
_MANY = f"embedded, {PROCESSES * TASKS} tasks"
_FEW = f"embedded, {TASKS} tasks"


def run(settings: Settings, progress: Progress) -> Report:
    """The same tasks with the same records, in processes of their own and in that of the store."""
    contenders: dict[str, Contender] = {
        _SERVED: _served_contender(settings, PROCESSES),
        _ONE: _served_contender(settings, 1),
        _MANY: _embedded_contender(settings, PROCESSES * TASKS),
        _FEW: _embedded_contender(settings, TASKS),
    }
    rounds = interleaved(contenders, settings.rounds, progress)
    return Report("daemon", tables=[_table(rounds)], targets=_targets(rounds), rounds=rounds)


def _embedded_contender(settings: Settings, callers: int) -> Contender:
    async def measured(path: Path) -> Sample:
        async with Store.open(path, sync_policy=Always()) as store:
            taken = await latencies(store.append, callers, settings.seconds)
            return {**taken.sample(settings.seconds), "syncs": _syncs(store)}

    def contender() -> Sample:
        with scratch(settings) as directory:
            return in_loop(settings, lambda: measured(directory / "store"))

    return contender


def _served_contender(settings: Settings, processes: int) -> Contender:
    def contender() -> Sample:
        with scratch(settings) as directory, ExitStack() as stack:
            # not in the directory, whose path may be too long for a socket
            socket = Path(stack.enter_context(TemporaryDirectory())) / "socket"
            daemon = stack.enter_context(started(_MODULE, "serve", directory / "store", socket))
            clients = [
                stack.enter_context(started(_MODULE, "append", socket, settings.seconds))
                for _ in range(processes)
            ]
            measured = together(clients)
            begin(daemon)
            return {**measured, **figures(daemon)}

    return contender


def _syncs(store: Store) -> float:
    """For each append."""
    statistics = store.statistics()
    return statistics.syncs / statistics.records


# other processes


async def serve(path: str, socket: str) -> dict[str, float]:
    async with Store.open(path, sync_policy=Always()) as store, Daemon.open(store, socket):
        await when_told()
        return {"syncs": _syncs(store)}


async def append(socket: str, seconds: str) -> Sample:
    async with Store.connect(f"unix:{socket}") as store:
        await when_told()
        return (await latencies(store.append, TASKS, float(seconds))).sample(float(seconds))


# what is shown


def _table(rounds: Rounds) -> Table:
    rows = []
    for name in (_SERVED, _ONE, _MANY, _FEW):
        figures = [milliseconds(rounds.median(name, quantity)) for quantity in ("p50", "p99")]
        per_append = rounds.median(name, "syncs")
        rows.append(
            [
                name,
                count(rounds.median(name, "appends/s")),
                times(rounds.ratio(name, _MANY, "appends/s")),
                *figures,
                f"{per_append:.4f}",
            ]
        )
    title = "Appends of 256 bytes under Always, through the daemon and in its process"
    return Table(
        title, ["", "appends/s", f"of {_MANY}", "median", "99 %", "syncs per append"], rows
    )


def _targets(rounds: Rounds) -> list[Target]:
    return [
        Target(f"{_SERVED}, of {_MANY}", rounds.ratio(_SERVED, _MANY, "appends/s"), 0.75, "×"),
        Target(f"{_SERVED}, of {_FEW}", rounds.ratio(_SERVED, _FEW, "appends/s"), 0.5, "×"),
    ]


if __name__ == "__main__":
    play({"serve": serve, "append": append})
