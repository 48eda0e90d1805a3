"""Several processes of one service with ``Store.open(path, shared=True)``: bare appends beside one
process that has the store for itself, and audited POSTs beside the same workers with a daemon.

``python -m benchmarks.shared append STORE SECONDS`` is one of the processes that append
(`processes`); the service is `workers`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from aquipu import Always, Store
from benchmarks.contender import scratch
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.posting import post, source
from benchmarks.processes import play, started, together, when_told
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.servers import LeftOut
from benchmarks.settings import Settings
from benchmarks.webserver import check_installed
from benchmarks.workers import WORKERS, serving
from benchmarks.workload import latencies

PROCESSES = 8
TASKS = 8
CONNECTIONS = 64

_SHARED = f"shared, {PROCESSES} processes × {TASKS} tasks"
_ALONE = f"one process, {PROCESSES * TASKS} tasks"
_WORKERS = f"{WORKERS} workers, shared=True"
_SERVED = f"{WORKERS} workers, aquipu serve"


def run(settings: Settings, progress: Progress) -> Report:
    """The appends, and the service where it is installed."""
    appends = interleaved(
        {_SHARED: partial(_appended, settings), _ALONE: partial(_alone, settings)},
        settings.rounds,
        progress,
    )
    tables, targets = [_table(appends)], _targets(appends)
    try:
        if not settings.servers:
            raise LeftOut("--no-servers")
        check_installed()
    except LeftOut as reason:
        notes = [f"FastAPI under uvicorn left out: {reason}"]
        return Report("shared", tables=tables, targets=targets, notes=notes, rounds=appends)
    requests = interleaved(
        {name: _service(settings, name) for name in (_WORKERS, _SERVED)}, settings.rounds, progress
    )
    share = requests.ratio(_WORKERS, _SERVED, "requests/s")
    return Report(
        "shared",
        tables=[*tables, _table_of_requests(requests)],
        targets=[*targets, Target(f"requests/s of {_WORKERS}, of {_SERVED}", share, 0.8, "×")],
        notes=[source(settings)],
        rounds=Rounds({**appends.samples, **requests.samples}),
    )


# appends


def _appended(settings: Settings) -> Sample:
    with scratch(settings) as directory, ExitStack() as stack:
        store = directory / "store"
        processes = [
            stack.enter_context(started("benchmarks.shared", "append", store, settings.seconds))
            for _ in range(PROCESSES)
        ]
        return {**together(processes), "records": _records_in_a_commit(store)}


def _alone(settings: Settings) -> Sample:
    async def measured(path: Path) -> Sample:
        async with Store.open(path, sync_policy=Always()) as store:
            taken = await latencies(store.append, PROCESSES * TASKS, settings.seconds)
            return taken.sample(settings.seconds)

    with scratch(settings) as directory:
        sample = in_loop(settings, lambda: measured(directory / "store"))
        return {**sample, "records": _records_in_a_commit(directory / "store")}


def _records_in_a_commit(store: Path) -> float:
    """Under Always each commit has its own sync."""
    command = [sys.executable, "-m", "aquipu", "verify", "--json", str(store)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    checked = json.loads(shown)
    return float(checked["records"]) / float(checked["frames"])


async def append(path: str, seconds: str) -> Sample:
    """Append beside the others."""
    async with Store.open(path, shared=True, sync_policy=Always()) as store:
        await when_told()
        return (await latencies(store.append, TASKS, float(seconds))).sample(float(seconds))


# the service


def _service(settings: Settings, name: str) -> Contender:
    def contender() -> Sample:
        with scratch(settings) as directory, TemporaryDirectory() as place:
            # not in the directory, whose path may be too long for a socket
            socket = Path(place) / "socket" if name == _SERVED else None
            with serving(directory / "audit", socket) as port:
                return post(settings, port, CONNECTIONS)

    return contender


# what is shown


def _table(rounds: Rounds) -> Table:
    rows = [
        [
            name,
            count(rounds.median(name, "appends/s")),
            times(rounds.ratio(name, _ALONE, "appends/s")),
            *(milliseconds(rounds.median(name, quantity)) for quantity in ("p50", "p99")),
            f"{rounds.median(name, 'records'):.1f}",
        ]
        for name in (_SHARED, _ALONE)
    ]
    title = "Appends of 256 bytes under Always, by several processes and by one"
    columns = ["", "appends/s", f"of {_ALONE}", "median", "99 %", "appends per sync"]
    return Table(title, columns, rows)


def _targets(rounds: Rounds) -> list[Target]:
    share = rounds.ratio(_SHARED, _ALONE, "records")
    return [Target(f"appends per sync, {_SHARED}, of {_ALONE}", share, 0.5, "×")]


def _table_of_requests(rounds: Rounds) -> Table:
    rows = [
        [
            name,
            count(rounds.median(name, "requests/s")),
            times(rounds.ratio(name, _SERVED, "requests/s")),
            *(milliseconds(rounds.median(name, quantity)) for quantity in ("p50", "p99")),
        ]
        for name in (_WORKERS, _SERVED)
    ]
    title = f"FastAPI under uvicorn, audited POSTs from {CONNECTIONS} connections, Always"
    return Table(title, ["", "requests/s", "of the second", "median", "99 %"], rows)


if __name__ == "__main__":
    play({"append": append})
