"""What auditing costs a service: FastAPI under uvicorn, every POST in the store before (or after)
its response.

The same application without the middleware stands beside it. 64 and 256 connections show what it
takes from the throughput of one process that computes all the time; one connection shows what a
request waits for its commit. A request that waits is found alive by the garbage collector, again
and again, and so all the modules of the application are: ``gc.freeze()`` shows what that costs.
"""

from __future__ import annotations

from benchmarks.audited import ALWAYS, AUDITS, FROZEN, UNAUDITED
from benchmarks.contender import scratch
from benchmarks.load import cpu_seconds
from benchmarks.measure import Contender, Progress, Rounds, Sample, interleaved, quotient
from benchmarks.posting import post, seconds_of, source
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.servers import LeftOut
from benchmarks.settings import Settings
from benchmarks.webserver import check_installed, served_by

CONNECTIONS = (64, 256, 1)
WANTED = {64: 0.82, 256: 0.7}
"""Requests/s, of those without audit, by the number of connections."""


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
            _target(rounds, audit, connections, wanted)
            for connections, wanted in WANTED.items()
            for audit in (ALWAYS, FROZEN)
        ],
        notes=[source(settings)],
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
    before = cpu_seconds(pid)
    sample = post(settings, port, connections)
    answers = sample["requests/s"] * seconds_of(settings)
    return {**sample, "cpu": quotient(cpu_seconds(pid) - before, answers)}


def _at(quantity: str, connections: int) -> str:
    return f"{quantity}, {connections}"


# what is shown


def _target(rounds: Rounds, audit: str, connections: int, wanted: float) -> Target:
    share = rounds.ratio(audit, UNAUDITED, _at("requests/s", connections))
    return Target(
        f"requests/s of {UNAUDITED}, {connections} connections: {audit}", share, wanted, "×"
    )


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
