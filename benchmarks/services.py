"""What auditing costs a service: FastAPI under uvicorn, every POST in the store before (or after)
its response.

The same application without the middleware stands beside it. 256 connections show what it takes
from the throughput of one process that computes all the time; one connection shows what a request
waits for its commit. The load comes from wrk where that is installed, and else from tasks of this
process; both send the next request when the answer to the last one is there.
"""

from __future__ import annotations

from math import floor

from benchmarks import wrk
from benchmarks.audited import ALWAYS, AUDITS, BODY, REQUEST, UNAUDITED
from benchmarks.contender import scratch
from benchmarks.load import cpu_seconds, repeat
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved, quotient
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.servers import LeftOut
from benchmarks.settings import Settings
from benchmarks.webserver import check_installed, served_by

CONNECTIONS = (256, 1)
_RUN_SECONDS = 5.0  # as long as so many other runs: requests are slow
_URL = "http://127.0.0.1:{port}/documents/42/signatures"


def run(settings: Settings, progress: Progress) -> Report:
    """Each way to audit, at each number of connections."""
    try:
        if not settings.servers:
            raise LeftOut("--no-servers")
        check_installed()
    except LeftOut as reason:
        return Report("services", notes=[f"FastAPI under uvicorn left out: {reason}"])
    names = [UNAUDITED, *AUDITS]
    rounds = interleaved(
        {name: _served(settings, name) for name in names}, settings.rounds, progress
    )
    return Report(
        "services",
        tables=[_table(connections, names, rounds) for connections in CONNECTIONS],
        targets=[
            Target(f"requests/s, {ALWAYS}, of those with {UNAUDITED}", _share(rounds), 0.7, "×")
        ],
        notes=[f"the load comes from {'wrk' if _by_wrk(settings) else 'asyncio connections'}"],
        rounds=rounds,
    )


# what runs


def _served(settings: Settings, audit: str) -> Contender:
    def contender() -> Sample:
        with (
            scratch(settings) as directory,
            served_by("benchmarks.audited", audit, str(directory)) as (port, pid),
        ):
            sample: dict[str, float] = {}
            for connections in CONNECTIONS:
                loaded = _load(settings, port, pid, connections)
                sample |= {_at(quantity, connections): value for quantity, value in loaded.items()}
            return sample

    return contender


def _load(settings: Settings, port: int, pid: int, connections: int) -> Sample:
    seconds = _RUN_SECONDS * settings.seconds
    before = cpu_seconds(pid)
    if _by_wrk(settings):
        sample = wrk.post(
            _URL.format(port=port), BODY, connections, floor(seconds), settings.directory
        )
    else:
        sample = in_loop(settings, lambda: repeat(port, REQUEST, connections, seconds))
    return {**sample, "cpu": quotient(cpu_seconds(pid) - before, sample["requests/s"] * seconds)}


def _by_wrk(settings: Settings) -> bool:
    """wrk knows only whole seconds."""
    return wrk.is_installed() and _RUN_SECONDS * settings.seconds >= 1


def _at(quantity: str, connections: int) -> str:
    return f"{quantity}, {connections}"


# what is shown


def _share(rounds: Rounds) -> float:
    return rounds.ratio(ALWAYS, UNAUDITED, _at("requests/s", CONNECTIONS[0]))


def _table(connections: int, names: list[str], rounds: Rounds) -> Table:
    rows = []
    for name in names:
        p50, p99, answers = (
            rounds.median(name, _at(quantity, connections))
            for quantity in ("p50", "p99", "requests/s")
        )
        before50, before99 = (
            rounds.median(UNAUDITED, _at(quantity, connections)) for quantity in ("p50", "p99")
        )
        added = ["", ""] if name == UNAUDITED else [_added(p50 - before50), _added(p99 - before99)]
        share = times(rounds.ratio(name, UNAUDITED, _at("requests/s", connections)))
        cpu = milliseconds(rounds.median(name, _at("cpu", connections)))
        rows.append(
            [
                name,
                milliseconds(p50),
                added[0],
                milliseconds(p99),
                added[1],
                count(answers),
                share,
                cpu,
            ]
        )
    title = (
        f"FastAPI under uvicorn, POSTs from {connections} "
        f"connection{'s' if connections > 1 else ''}"
    )
    return Table(
        title,
        ["audit", "median", "added", "99 %", "added", "requests/s", "of the first", "CPU for each"],
        rows,
    )


def _added(seconds: float) -> str:
    return f"{seconds * 1e3:+.3g} ms"
