"""A log in PostgreSQL with a synchronous standby, beside a transaction for each append; several
processes that write one log; and what others' own transactions lose beside one.

``python -m benchmarks.postgres append ADDRESS CALLERS SECONDS`` is one of the processes that append
(`processes`), ``pace ADDRESS APPENDS SECONDS`` one that appends so many a second, and ``transact
URL SECONDS`` the one with transactions of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib import import_module
from itertools import count as numbers
from pathlib import Path
from time import perf_counter
from typing import Any

from aquipu import Always, Store
from benchmarks import servers
from benchmarks.contender import Opener, at, callers_named, scratch, store_opener, throughput_of
from benchmarks.measure import Contender, Progress, Rounds, Sample, interleaved
from benchmarks.processes import begin as let_go_on
from benchmarks.processes import figures, play, started, together, when_told
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.servers import LeftOut
from benchmarks.settings import CALLERS, RECORD, Settings
from benchmarks.workload import Append, latencies

_APPENDS = "appends/s"
_POOL = 32
_SECONDS = 30.0
DATABASE = "aquipu, PostgreSQL with a synchronous standby"
POOL = f"a transaction for each append, a pool of {_POOL}, the same servers"
DIRECTORY = "aquipu, a directory"
PROCESSES = 4
_TOGETHER = f"{PROCESSES} processes of {CALLERS[-1] // PROCESSES} callers"
_ALONE = f"one process of {CALLERS[-1]:,} callers"
_USERS = 8
_PACE = 50_000
_TICK = 0.002  # seconds between two times at which records become due
_PACES = {"alone": 0, f"beside a log at {_PACE:,}/s or as many as it can": _PACE}


def run(settings: Settings, progress: Progress) -> Report:
    """Both at 1, 64 and 1,024 callers, and a directory beside them."""
    try:
        if not settings.servers:
            raise LeftOut("--no-servers")
        package = import_module("asyncpg")
    except (LeftOut, ImportError) as reason:
        return Report("postgres", notes=[f"PostgreSQL left out: {reason}"])
    with ExitStack() as stack:
        directory = stack.enter_context(scratch(settings)).resolve()
        try:
            above = (settings.directory.resolve(), directory)
            url = stack.enter_context(_pair(package, directory, above))
        except LeftOut as reason:
            return Report("postgres", notes=[f"PostgreSQL left out: {reason}"])
        openers: dict[str, Opener] = {
            DATABASE: partial(_open_log, url, numbers()),
            POOL: partial(_open_pool, package, url),
            DIRECTORY: store_opener(Always()),
        }
        contenders = {
            at(name, callers): throughput_of(settings, opener, callers)
            for callers in CALLERS
            for name, opener in openers.items()
        }
        logs = numbers()
        contenders |= {
            _TOGETHER: _processes(settings, url, logs, PROCESSES),
            _ALONE: _processes(settings, url, logs, 1),
        }
        contenders |= {
            f"transactions {name}": _transactions(settings, url, logs, pace)
            for name, pace in _PACES.items()
        }
        rounds = interleaved(contenders, settings.rounds, progress)
    return Report(
        "postgres",
        tables=[_table(rounds), _table_of_processes(rounds), _table_of_transactions(rounds)],
        targets=_targets(rounds),
        rounds=rounds,
    )


@contextmanager
def _pair(package: Any, directory: Path, above: tuple[Path, ...]) -> Iterator[str]:
    """Run a primary and its synchronous standby; give the address of the primary."""
    with ExitStack() as stack:
        places = directory / "primary", directory / "standby"
        for place in places:
            place.mkdir()
        primary = stack.enter_context(servers.postgresql(places[0], above))
        url = f"postgresql://postgres@127.0.0.1:{primary.port}/postgres"
        stack.enter_context(servers.standby(places[1], above, primary.port))
        asyncio.run(_confirmed(package, url))
        yield url


async def _confirmed(package: Any, url: str) -> None:
    """Have the standby confirm each commit, and make the tables."""
    from aquipu.postgres.address import address_of
    from aquipu.postgres.schema.migrating import migrate

    connection = await package.connect(url)
    await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    await connection.execute("SELECT pg_reload_conf()")
    query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
    async with asyncio.timeout(_SECONDS):
        while not await connection.fetchval(query):  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.05)
    await connection.close()
    await migrate(address_of(url, needs_log=False))


@asynccontextmanager
async def _open_log(url: str, names: Iterator[int], directory: Path) -> AsyncIterator[Append]:
    address = f"{url}?log=log{next(names)}"
    async with Store.open(address, sync_policy=Always()) as store:
        yield store.append


@asynccontextmanager
async def _open_pool(package: Any, url: str, directory: Path) -> AsyncIterator[Append]:
    async with package.create_pool(url, min_size=_POOL, max_size=_POOL) as pool:
        await pool.execute("DROP TABLE IF EXISTS log")
        await pool.execute("CREATE TABLE log (sequence bigserial PRIMARY KEY, data bytea)")

        async def append(data: bytes) -> None:
            await pool.execute("INSERT INTO log (data) VALUES ($1)", data)

        yield append


# processes that write one log


def _processes(settings: Settings, url: str, logs: Iterator[int], count: int) -> Contender:
    def contender() -> Sample:
        address = f"{url}?log=together{next(logs)}"
        words = (address, CALLERS[-1] // count, settings.seconds)
        with ExitStack() as stack:
            return together(
                [
                    stack.enter_context(started("benchmarks.postgres", "append", *words))
                    for _ in range(count)
                ]
            )

    return contender


async def append(address: str, callers: str, seconds: str) -> Sample:
    """Append beside the others."""
    async with Store.open(address, sync_policy=Always()) as store:
        await when_told()
        return (await latencies(store.append, int(callers), float(seconds))).sample(float(seconds))


async def pace(address: str, appends: str, seconds: str) -> Sample:
    """Append so many a second, or as many as are confirmed.

    One task appends all that are due, every few milliseconds: so it is the log that takes time
    from the others, and not what keeps the pace.
    """
    done, end = 0, float(seconds)
    async with Store.open(address, sync_policy=Always()) as store:
        await when_told()
        begun = perf_counter()
        while (now := perf_counter() - begun) < end:
            due = min(int(now * int(appends)) - done, CALLERS[-1])
            waiting = [store.append_nowait(RECORD) for _ in range(due)]
            done += due
            await asyncio.sleep(_TICK)
            if waiting:
                await waiting[-1]
        return {_APPENDS: done / now}


# transactions of others


def _transactions(settings: Settings, url: str, logs: Iterator[int], pace: int) -> Contender:
    def contender() -> Sample:
        address = f"{url}?log=beside{next(logs)}"
        seconds = settings.seconds
        with ExitStack() as stack:
            users = stack.enter_context(started("benchmarks.postgres", "transact", url, seconds))
            beside = []
            if pace:
                # a little longer than the others, so that these are never without it
                words = (address, pace, 1.2 * seconds)
                beside = [stack.enter_context(started("benchmarks.postgres", "pace", *words))]
            for process in (*beside, users):
                let_go_on(process)
            sample = figures(users)
            rates = [figures(process)[_APPENDS] for process in beside]
            return {**sample, "log": sum(rates)}

    return contender


async def transact(url: str, seconds: str) -> Sample:
    """Commit transactions of two rows in tables of one's own, from a pool."""
    package = import_module("asyncpg")
    async with package.create_pool(url, min_size=_USERS, max_size=_USERS) as pool:
        await pool.execute("CREATE TABLE IF NOT EXISTS orders (number serial, item bytea)")
        await pool.execute("CREATE TABLE IF NOT EXISTS lines (number integer, item bytea)")

        async def order(data: bytes) -> None:
            async with pool.acquire() as connection, connection.transaction():
                query = "INSERT INTO orders (item) VALUES ($1) RETURNING number"
                number = await connection.fetchval(query, data)
                await connection.execute("INSERT INTO lines VALUES ($1, $2)", number, data)

        await when_told()
        return (await latencies(order, _USERS, float(seconds))).sample(float(seconds))


# what is shown


def _table(rounds: Rounds) -> Table:
    rows = []
    for name in (DATABASE, POOL, DIRECTORY):
        rates = [count(rounds.median(at(name, callers), _APPENDS)) for callers in CALLERS]
        ratios = [
            times(rounds.ratio(at(DATABASE, callers), at(name, callers), _APPENDS))
            for callers in CALLERS
        ]
        rows.append([name, *rates, *ratios])
    columns = ["", *map(callers_named, CALLERS), *(f"÷ it, {callers:,}" for callers in CALLERS)]
    title = (
        "Appends per second, 256-byte records, each on the disks of both servers when it returns; "
        "the first ÷ it"
    )
    return Table(title, columns, rows)


def _table_of_processes(rounds: Rounds) -> Table:
    rows = [
        [
            name,
            count(rounds.median(name, _APPENDS)),
            times(rounds.ratio(name, _ALONE, _APPENDS)),
            *(milliseconds(rounds.median(name, quantity)) for quantity in ("p50", "p99")),
        ]
        for name in (_TOGETHER, _ALONE)
    ]
    title = "Appends of 256 bytes to one log, by several processes and by one"
    return Table(title, ["", _APPENDS, f"of {_ALONE}", "median", "99 %"], rows)


def _table_of_transactions(rounds: Rounds) -> Table:
    alone, *_ = names = [f"transactions {name}" for name in _PACES]
    rows = [
        [
            name,
            count(rounds.median(name, _APPENDS)),
            times(rounds.ratio(name, alone, _APPENDS)),
            *(milliseconds(rounds.median(name, quantity)) for quantity in ("p50", "p99")),
            count(rounds.median(name, "log")),
        ]
        for name in names
    ]
    title = f"Transactions of others in the same database, from {_USERS} connections"
    return Table(title, ["", "transactions/s", "of the first", "median", "99 %", _APPENDS], rows)


def _targets(rounds: Rounds) -> list[Target]:
    most = CALLERS[-1]
    ratio = rounds.ratio(at(DATABASE, most), at(POOL, most), _APPENDS)
    alone, beside = (f"transactions {name}" for name in _PACES)
    return [
        Target(f"a log ÷ a transaction for each append, {most:,} callers", ratio, 10.0, "×"),
        Target(f"{_TOGETHER}, of {_ALONE}", rounds.ratio(_TOGETHER, _ALONE, _APPENDS), 0.8, "×"),
        Target(f"{beside}, of those alone", rounds.ratio(beside, alone, _APPENDS), 0.9, "×"),
    ]


if __name__ == "__main__":
    play({"append": append, "pace": pace, "transact": transact})
