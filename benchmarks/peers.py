"""The peers: what else a program could append to, each configured so that a power cut takes nothing
acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import platform
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import aiofiles

from aquipu import Always
from benchmarks import servers
from benchmarks.batcher import Batcher
from benchmarks.contender import (
    Opener,
    at,
    callers_named,
    latency_of,
    scratch,
    store_opener,
    throughput_of,
)
from benchmarks.measure import Progress, Rounds, interleaved
from benchmarks.report import Curve, Report, Table, Target, count, milliseconds, times
from benchmarks.servers import LeftOut
from benchmarks.settings import CALLERS, Settings
from benchmarks.workload import Append

_APPENDS = "appends/s"
_LATENCY_CALLERS = 64
_LMDB_MAP_BYTES = 64 << 30  # address space, not memory

AQUIPU = "aquipu"
FILE = "batcher, plain file"
AIOFILES = "aiofiles + fdatasync"
UNBUFFERED = "aiofiles unbuffered + fdatasync"
AIOSQLITE = "aiosqlite"


class Peer(NamedTuple):
    name: str
    version: str
    configuration: str
    opener: Opener


def run(settings: Settings, progress: Progress) -> Report:
    """Every peer at 1, 64 and 1,024 callers, beside aquipu under Always."""
    with ExitStack() as running, scratch(settings) as directory:
        found, left_out = _gather(settings, running, directory)
        contenders = {
            at(peer.name, callers): throughput_of(settings, peer.opener, callers)
            for callers in CALLERS
            for peer in found
        }
        rounds = interleaved(contenders, settings.rounds, progress)
        late = {
            f"latency, {peer.name}": latency_of(settings, peer.opener, _LATENCY_CALLERS)
            for peer in found
        }
        rounds |= interleaved(late, settings.rounds, progress)
    return Report(
        "peers",
        tables=[_table(found, rounds), _configurations(found)],
        targets=_targets(found, rounds),
        notes=left_out,
        curves=_curves(found, rounds),
        rounds=rounds,
    )


def _gather(
    settings: Settings, running: ExitStack, directory: Path
) -> tuple[list[Peer], list[str]]:
    """The peers that are here, their servers running; and a line for each that is left out."""
    found, left_out = [], []
    for start in (
        aquipu,
        aiofiles_alone,
        aiofiles_unbuffered,
        aiosqlite,
        plain_file,
        sqlite,
        lmdb,
        rocksdb,
    ):
        try:
            found.append(start())
        except LeftOut as reason:
            left_out.append(f"{start.__name__} left out: {reason}")
    for name, serve in (("Redis", _redis), ("PostgreSQL", _postgresql)):
        try:
            if not settings.servers:
                raise LeftOut("--no-servers")
            place = directory / name
            place.mkdir()
            found.append(running.enter_context(serve(place, (settings.directory, directory))))
        except LeftOut as reason:
            left_out.append(f"{name} left out: {reason}")
    return found, left_out


# the peers


def aquipu() -> Peer:
    return Peer(
        AQUIPU, version("aquipu"), "Store.open(path, sync_policy=Always())", store_opener(Always())
    )


def aiofiles_alone() -> Peer:
    configuration = (
        'aiofiles.open(path, "ab"); await write(data); await flush(); '
        "await to_thread(os.fdatasync, fd)"
    )
    return Peer(AIOFILES, version("aiofiles"), configuration, _open_aiofiles)


@asynccontextmanager
async def _open_aiofiles(directory: Path) -> AsyncIterator[Append]:
    async with aiofiles.open(directory / "file", "ab") as file:
        descriptor = file.fileno()

        async def append(data: bytes) -> None:
            await file.write(data)
            await file.flush()
            await asyncio.to_thread(os.fdatasync, descriptor)

        yield append


def aiofiles_unbuffered() -> Peer:
    configuration = (
        'aiofiles.open(path, "ab", buffering=0); await write(data); '
        "await to_thread(os.fdatasync, fd)"
    )
    return Peer(UNBUFFERED, version("aiofiles"), configuration, _open_unbuffered)


@asynccontextmanager
async def _open_unbuffered(directory: Path) -> AsyncIterator[Append]:
    async with aiofiles.open(directory / "file", "ab", buffering=0) as file:
        descriptor = file.fileno()

        async def append(data: bytes) -> None:
            await file.write(data)
            await asyncio.to_thread(os.fdatasync, descriptor)

        yield append


def aiosqlite() -> Peer:
    package = _package("aiosqlite")
    configuration = (
        "PRAGMA journal_mode=WAL; synchronous=FULL; one connection; await execute(INSERT); "
        "await commit()"
    )
    versions = f"{version('aiosqlite')}, SQLite {sqlite3.sqlite_version}"
    return Peer(AIOSQLITE, versions, configuration, partial(_open_aiosqlite, package))


@asynccontextmanager
async def _open_aiosqlite(package: Any, directory: Path) -> AsyncIterator[Append]:
    async with package.connect(directory / "database") as connection:
        for statement in _SQLITE_SETUP:
            await connection.execute(statement)
        await connection.commit()

        async def append(data: bytes) -> None:
            await connection.execute(_SQLITE_INSERT, (data,))
            await connection.commit()

        yield append


def plain_file() -> Peer:
    configuration = (
        'to_thread: os.write(fd, b"".join(batch)); os.fdatasync(fd); '
        "no checksum, no format, no recovery"
    )
    return Peer(FILE, f"Python {platform.python_version()}", configuration, _open_file)


@asynccontextmanager
async def _open_file(directory: Path) -> AsyncIterator[Append]:
    descriptor = os.open(directory / "file", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(batch: list[bytes]) -> None:
        os.write(descriptor, b"".join(batch))
        os.fdatasync(descriptor)

    try:
        yield _batched(write)
    finally:
        os.close(descriptor)


_SQLITE_SETUP = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "CREATE TABLE log (sequence INTEGER PRIMARY KEY, data BLOB)",
)
_SQLITE_INSERT = "INSERT INTO log (data) VALUES (?)"


def sqlite() -> Peer:
    configuration = (
        "PRAGMA journal_mode=WAL; synchronous=FULL; to_thread: executemany(INSERT); commit"
    )
    return Peer("batcher, sqlite3", sqlite3.sqlite_version, configuration, _open_sqlite)


@asynccontextmanager
async def _open_sqlite(directory: Path) -> AsyncIterator[Append]:
    connection = sqlite3.connect(directory / "database", check_same_thread=False)
    for statement in _SQLITE_SETUP:
        connection.execute(statement)
    connection.commit()

    def write(batch: list[bytes]) -> None:
        connection.executemany(_SQLITE_INSERT, [(data,) for data in batch])
        connection.commit()

    try:
        yield _batched(write)
    finally:
        connection.close()


def lmdb() -> Peer:
    package = _package("lmdb")
    configuration = (
        "sync=True, metasync=True, writemap=False; to_thread: one write transaction, "
        "putmulti(append=True)"
    )
    versions = f"{version('lmdb')}, LMDB {'.'.join(map(str, package.version()))}"
    return Peer("batcher, LMDB", versions, configuration, partial(_open_lmdb, package))


@asynccontextmanager
async def _open_lmdb(package: Any, directory: Path) -> AsyncIterator[Append]:
    environment = package.open(str(directory / "database"), map_size=_LMDB_MAP_BYTES)
    written = 0

    def write(batch: list[bytes]) -> None:
        nonlocal written
        with environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            items = [
                (number.to_bytes(8, "big"), data) for number, data in enumerate(batch, written)
            ]
            cursor.putmulti(items, append=True)
        written += len(batch)

    try:
        yield _batched(write)
    finally:
        environment.close()


def rocksdb() -> Peer:
    package = _package("rocksdict")
    configuration = "WriteOptions.sync=True, raw_mode; to_thread: one WriteBatch"
    versions = f"rocksdict {version('rocksdict')}"
    return Peer("batcher, RocksDB", versions, configuration, partial(_open_rocksdb, package))


@asynccontextmanager
async def _open_rocksdb(package: Any, directory: Path) -> AsyncIterator[Append]:
    database = package.Rdict(str(directory / "database"), package.Options(raw_mode=True))
    synced = package.WriteOptions()
    synced.sync = True
    written = 0

    def write(batch: list[bytes]) -> None:
        nonlocal written
        writes = package.WriteBatch(raw_mode=True)
        for number, data in enumerate(batch, written):
            writes.put(number.to_bytes(8, "big"), data)
        database.write(writes, synced)
        written += len(batch)

    try:
        yield _batched(write)
    finally:
        database.close()


@contextmanager
def _redis(directory: Path, above: Sequence[Path]) -> Iterator[Peer]:
    package = _package("redis.asyncio")
    options = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
        "--auto-aof-rewrite-percentage",
        "0",
    ]
    with servers.redis(directory, options) as server:
        configuration = (
            "appendonly yes, appendfsync always; batches of RPUSH through "
            "pipeline(transaction=False)"
        )
        versions = f"{server.version}, redis-py {version('redis')}"
        yield Peer("Redis", versions, configuration, partial(_open_redis, package, server.port))


@asynccontextmanager
async def _open_redis(package: Any, port: int, directory: Path) -> AsyncIterator[Append]:
    async with package.Redis(host="127.0.0.1", port=port) as client:
        await client.delete("log")

        async def write(batch: list[bytes]) -> None:
            pipeline = client.pipeline(transaction=False)
            for data in batch:
                pipeline.rpush("log", data)
            await pipeline.execute()

        yield Batcher(write).append


@contextmanager
def _postgresql(directory: Path, above: Sequence[Path]) -> Iterator[Peer]:
    package = _package("asyncpg")
    with servers.postgresql(directory, above) as server:
        configuration = (
            "fsync=on, synchronous_commit=on (as installed); batches: INSERT ... SELECT "
            "unnest($1::bytea[])"
        )
        versions = f"{server.version}, asyncpg {version('asyncpg')}"
        yield Peer(
            "PostgreSQL", versions, configuration, partial(_open_postgresql, package, server.port)
        )


@asynccontextmanager
async def _open_postgresql(package: Any, port: int, directory: Path) -> AsyncIterator[Append]:
    connection = await package.connect(
        host="127.0.0.1", port=port, user="postgres", database="postgres"
    )
    try:
        await connection.execute("DROP TABLE IF EXISTS log")
        await connection.execute("CREATE TABLE log (sequence bigserial PRIMARY KEY, data bytea)")
        insert = await connection.prepare("INSERT INTO log (data) SELECT unnest($1::bytea[])")
        yield Batcher(insert.fetch).append
    finally:
        await connection.close()


def _batched(write: Callable[[list[bytes]], None]) -> Append:
    """The append of a batcher over a blocking call."""
    return Batcher(lambda batch: asyncio.to_thread(write, batch)).append


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except (ImportError, PackageNotFoundError):
        raise LeftOut(
            f"{name.partition('.')[0]} is not installed (pip install -e '.[bench]')"
        ) from None


# what is shown


def _table(found: list[Peer], rounds: Rounds) -> Table:
    rows = []
    for peer in found:
        rates = [count(rounds.median(at(peer.name, callers), _APPENDS)) for callers in CALLERS]
        ratios = [
            times(rounds.ratio(at(AQUIPU, callers), at(peer.name, callers), _APPENDS))
            for callers in CALLERS
        ]
        latency = [
            milliseconds(rounds.median(f"latency, {peer.name}", quantity))
            for quantity in ("p50", "p99")
        ]
        rows.append([peer.name, *rates, *ratios, *latency])
    columns = ["", *map(callers_named, CALLERS), *(f"÷ it, {callers:,}" for callers in CALLERS)]
    columns += [f"median at {_LATENCY_CALLERS}", "99 %"]
    title = (
        "Appends per second, 256-byte records, configured so that a power cut takes nothing "
        "acknowledged; "
        "aquipu ÷ it; how long an append takes. A batcher is hand-written"
    )
    return Table(title, columns, rows)


def _configurations(found: list[Peer]) -> Table:
    rows = [[peer.name, peer.version, peer.configuration] for peer in found]
    return Table("Versions and configurations", ["", "version", "configuration"], rows)


def _targets(found: list[Peer], rounds: Rounds) -> list[Target]:
    wanted = [
        (FILE, 1, 1.6),
        (FILE, 64, 1.25),
        (FILE, 1024, 1.0),
        (AIOSQLITE, 1024, 12.0),
        (AIOFILES, 1024, 40.0),
    ]
    names = {peer.name for peer in found}
    return [
        Target(
            f"Always, {callers_named(callers)}, against {name}",
            rounds.ratio(at(AQUIPU, callers), at(name, callers), _APPENDS),
            bound,
            "×",
        )
        for name, callers, bound in wanted
        if name in names
    ]


def _curves(found: list[Peer], rounds: Rounds) -> list[Curve]:
    throughput = [
        Curve(
            "peers by callers",
            peer.name,
            [(callers, rounds.median(at(peer.name, callers), _APPENDS)) for callers in CALLERS],
        )
        for peer in found
    ]
    latency = [
        Curve(
            f"peers latency at {_LATENCY_CALLERS} callers",
            peer.name,
            [
                (float(quantity[1:]), rounds.median(f"latency, {peer.name}", quantity) * 1e3)
                for quantity in ("p50", "p90", "p99", "p99.9")
            ],
        )
        for peer in found
    ]
    return throughput + latency
