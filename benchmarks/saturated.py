"""A loop that never rests: what becomes of appends beside a task that computes in every iteration,
and under uvicorn.

Other ways to append are shown beside it. They may get nothing done at all until the burning stops:
each run is bounded by the burning, which stops after its time whatever the appends do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks.burner import CALLERS, beside, burn
from benchmarks.contender import Opener, run_of, scratch
from benchmarks.engines import AQUIPU, engines
from benchmarks.load import APPEND_CONNECTIONS, BUSY_CONNECTIONS, generate
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved, quotient
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.servers import LeftOut
from benchmarks.settings import Settings
from benchmarks.webserver import NOTHING, check_installed, serving
from benchmarks.workload import Append

_BURNS = (50, 200, 1000)  # microseconds an iteration
_NO_STORE = "no store at work"
_ITERATIONS = "iterations/s"
_WEB_RUNS = 2.0  # as long as so many other runs: requests are slow


def run(settings: Settings, progress: Progress) -> Report:
    """The burning task, then the web server."""
    found, left_out = engines()
    rounds = interleaved(_burnt(settings, found), settings.rounds, progress)
    report = Report(
        "saturated",
        tables=[_table(burning, list(found), rounds) for burning in _BURNS],
        targets=[target for burning in _BURNS for target in _targets(burning, rounds)],
        notes=left_out,
    )
    try:
        if not settings.servers:
            raise LeftOut("--no-servers")
        check_installed()
    except LeftOut as reason:
        report.notes.append(f"FastAPI under uvicorn left out: {reason}")
    else:
        served = [NOTHING, *found]
        rounds |= interleaved(
            {_web_at(name): _served(settings, name) for name in served}, settings.rounds, progress
        )
        report.tables.append(_web_table(served, rounds))
    report.rounds = rounds
    return report


# what runs


def _burnt(settings: Settings, found: dict[str, Opener]) -> dict[str, Contender]:
    contenders: dict[str, Contender] = {}
    for burning in _BURNS:
        contenders[_at(_NO_STORE, burning)] = _alone(settings, burning)
        for name, opener in found.items():
            contenders[_at(name, burning)] = run_of(
                settings, opener, _beside(burning, settings.seconds)
            )
    return contenders


def _alone(settings: Settings, burning: int) -> Contender:
    async def alone() -> Sample:
        return {_ITERATIONS: await burn(burning / 1e6, settings.seconds) / settings.seconds}

    return lambda: in_loop(settings, alone)


def _beside(burning: int, seconds: float) -> Callable[[Append], Awaitable[Sample]]:
    return lambda append: beside(append, burning / 1e6, seconds)


def _served(settings: Settings, engine: str) -> Contender:
    def contender() -> Sample:
        with scratch(settings) as directory, serving(engine, directory) as (port, pid):
            return in_loop(settings, lambda: generate(port, pid, _WEB_RUNS * settings.seconds))

    return contender


def _at(name: str, burning: int) -> str:
    return f"{name}, {burning} µs"


def _web_at(name: str) -> str:
    return f"uvicorn, {name}"


# what is shown


def _table(burning: int, names: list[str], rounds: Rounds) -> Table:
    alone = rounds.median(_at(_NO_STORE, burning), _ITERATIONS)
    rows = [[_NO_STORE, "", "", "", count(alone), ""]]
    for name in names:
        p50, p99, finished, iterations = (
            rounds.median(_at(name, burning), quantity)
            for quantity in ("p50", "p99", "finished", _ITERATIONS)
        )
        kept = times(quotient(iterations, alone))
        rows.append(
            [name, milliseconds(p50), milliseconds(p99), count(finished), count(iterations), kept]
        )
    title = f"{CALLERS} callers beside a task that burns {burning} µs in each iteration of the loop"
    columns = [
        "",
        "median append",
        "99 %",
        "finished meanwhile",
        "iterations/s of the task",
        "of those with no store",
    ]
    return Table(title, columns, rows)


def _targets(burning: int, rounds: Rounds) -> list[Target]:
    place = _at(AQUIPU, burning)
    p50, p99 = (rounds.median(place, quantity) * 1e3 for quantity in ("p50", "p99"))
    bound = 1.5 + 5 * burning / 1e3
    kept = rounds.ratio(place, _at(_NO_STORE, burning), _ITERATIONS)
    beside_it = f"beside {burning} µs an iteration"
    return [
        Target(
            f"median append {beside_it}: 1.5 ms + 5 iterations", p50, bound, " ms", at_least=False
        ),
        Target(f"99 % of appends {beside_it}: twice that", p99, 2 * bound, " ms", at_least=False),
        Target(f"iterations that the task keeps, {beside_it}", kept, 0.8, "×"),
    ]


def _web_table(names: list[str], rounds: Rounds) -> Table:
    rows = []
    for name in names:
        p50, p99, appends, busy, cpu = (
            rounds.median(_web_at(name), quantity)
            for quantity in ("p50", "p99", "appends/s", "busy/s", "cpu")
        )
        against = times(rounds.ratio(_web_at(name), _web_at(NOTHING), "p50"))
        rows.append(
            [
                name,
                milliseconds(p50),
                against,
                milliseconds(p99),
                count(appends),
                count(busy),
                f"{cpu:.0%}",
            ]
        )
    title = (
        f"FastAPI under uvicorn, {BUSY_CONNECTIONS} connections that keep it busy: how long a "
        "request that appends takes, "
        f"{APPEND_CONNECTIONS} at a time"
    )
    columns = [
        "appends go to",
        "median",
        "of the first",
        "99 %",
        "appends/s",
        "other requests/s",
        "CPU of the server",
    ]
    return Table(title, columns, rows)
