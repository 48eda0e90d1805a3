"""A log in PostgreSQL with a synchronous standby, beside a transaction for each append."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib import import_module
from itertools import count as numbers
from pathlib import Path
from typing import Any

from aquipu import Always, Store
from benchmarks import servers
from benchmarks.contender import Opener, at, callers_named, scratch, store_opener, throughput_of
from benchmarks.measure import Progress, Rounds, interleaved
from benchmarks.report import Report, Table, Target, count, times
from benchmarks.servers import LeftOut
from benchmarks.settings import CALLERS, Settings
from benchmarks.workload import Append

_APPENDS = "appends/s"
_POOL = 32
_SECONDS = 30.0
DATABASE = "aquipu, PostgreSQL with a synchronous standby"
POOL = f"a transaction for each append, a pool of {_POOL}, the same servers"
DIRECTORY = "aquipu, a directory"


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
        rounds = interleaved(contenders, settings.rounds, progress)
    return Report("postgres", tables=[_table(rounds)], targets=_targets(rounds), rounds=rounds)


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


def _targets(rounds: Rounds) -> list[Target]:
    most = CALLERS[-1]
    ratio = rounds.ratio(at(DATABASE, most), at(POOL, most), _APPENDS)
    return [Target(f"a log ÷ a transaction for each append, {most:,} callers", ratio, 10.0, "×")]
