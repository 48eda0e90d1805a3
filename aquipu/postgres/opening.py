"""Opening a log in a database: for writing, and for reading alone."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from typing import Any, NamedTuple
from uuid import uuid4

from aquipu.engine import Limits
from aquipu.errors import (
    NotAStoreError,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from aquipu.options import Options
from aquipu.policy import Always
from aquipu.postgres.address import Address
from aquipu.postgres.engine import PostgresEngine
from aquipu.postgres.keeping import PostgresCursor, holds, lags
from aquipu.postgres.link.carrier import Carrier
from aquipu.postgres.link.connections import Connections
from aquipu.postgres.link.driver import module, settled
from aquipu.postgres.log import Log
from aquipu.postgres.read.reader import PostgresReader
from aquipu.postgres.schema.versions import VERSION, refusal_of
from aquipu.reading import Cursor, Face, LogReader
from aquipu.record import Lag, Record

SERVER_MIN = 140000
"""The earliest server, as ``server_version_num`` has it."""
PARTITION_RECORDS = 1_000_000
"""Sequences that a partition of a new log has room for."""

_SERVER = (
    "SELECT current_setting('server_version_num')::integer AS number,"
    " current_setting('server_version') AS name, current_setting('fsync') = 'on' AS syncs,"
    " current_setting('server_encoding') AS encoding,"
    " to_regclass('aquipu.version') IS NOT NULL AS has_tables"
)


class Server(NamedTuple):
    """What is asked of a server before a log is opened there."""

    number: int
    name: str
    syncs: bool
    encoding: str
    has_tables: bool


async def ask_server(connection: Any) -> Server:
    """Return what a server says of itself."""
    return Server(*await connection.fetchrow(_SERVER))


async def version_in(connection: Any, server: Server) -> int:
    """Return the version of the tables in a database; 0 without any."""
    if not server.has_tables:
        return 0
    return int(await connection.fetchval("SELECT max(version) FROM aquipu.version"))


async def check_server(connection: Any, address: Address, *, is_always: bool) -> None:
    """Raise unless a log can be opened on this server; nothing is changed."""
    server = await ask_server(connection)
    refused = None
    if server.number < SERVER_MIN:
        refused = f"the server is PostgreSQL {server.name}, and the earliest that works is 14"
    elif server.encoding != "UTF8":
        refused = f"the encoding of the database is {server.encoding}, and labels need UTF8"
    elif is_always and not server.syncs and not address.is_unsafe:
        refused = (
            "the server does not sync (fsync = off), so a power cut could take what Always "
            "promises to keep: set fsync = on, or say unsafe=yes in the address"
        )
    if refused is None:
        version = await version_in(connection, server)
        if version > VERSION:
            raise UnsupportedFormatError(
                address.shown,
                f"its tables are of version {version}, and this aquipu knows {VERSION}",
            )
        refused = refusal_of(version)
    if refused is not None:
        raise StoreUnavailableError(address.shown, "open", refused)


async def open_engine(address: Address, options: Options) -> PostgresEngine:
    """Open a log for writing; see `Store.open`. Raises as that does."""
    module()
    loop = get_running_loop()
    asking = Connections(address.dsn, "read-write", address.shown, loop, options.lock_timeout)
    is_always = isinstance(options.sync_policy, Always)

    standbys = ""

    async def begin(connection: Any) -> int:
        nonlocal standbys
        await check_server(connection, address, is_always=is_always)
        standbys = await connection.fetchval("SHOW synchronous_standby_names")
        query = "SELECT aquipu.open_log($1, $2)"
        number = int(await connection.fetchval(query, address.log, PARTITION_RECORDS))
        await connection.execute("SELECT aquipu.begin_run($1, $2)", number, not is_always)
        return number

    log: Log | None = None
    try:
        number = await asking.ask(begin, "open")
        log = Log(
            *(address.shown, number, loop, asking),
            _reading(address, asking, loop, options.lock_timeout),
            address.dsn,
        )
        await log.head()
    except BaseException:
        asking.close() if log is None else log.close()
        raise
    carrier = Carrier(address.dsn, address.shown, loop, options.lock_timeout, asking)
    limits = Limits(
        options.sync_policy.stage,
        options.max_record_bytes,
        options.buffer_records,
        options.buffer_bytes,
    )
    return PostgresEngine(
        log, carrier, options.sync_policy, limits, uuid4().bytes, address, standbys
    )


def _reading(
    address: Address, asking: Connections, loop: AbstractEventLoop, seconds: float
) -> Connections:
    """Return the connections that are read through."""
    if address.readers is None:
        return asking
    return Connections(address.readers, "any", address.shown, loop, seconds)


class DatabaseSource:
    """A log in a database, as far as it may be read."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.path = log.path

    @property
    def is_closed(self) -> bool:
        return self.log.is_closed

    @property
    def first_sequence(self) -> int:
        return self.log.progress.first_sequence

    @property
    def next_sequence(self) -> int:
        return self.log.progress.next_sequence

    @property
    def generation(self) -> bytes:
        return self.log.generation

    def reader(self, face: Face) -> LogReader:
        return PostgresReader(self.log, face)

    async def get(self, sequence: int) -> Record:
        """Return one record, to whoever has the source for itself. Raises as `Reader.get`."""
        return await self.reader(Face(lambda: None, lambda: None)).get(sequence)

    def cursor(self, name: str, face: Face, *, hold: bool) -> Cursor:
        return PostgresCursor(self.log, face, name, hold=hold)

    async def cursors(self) -> dict[str, Lag]:
        return await lags(self.log)

    async def holds(self) -> dict[str, int]:
        return await holds(self.log)

    async def aclose(self) -> None:
        self.log.close()
        await settled()


async def open_source(address: Address, seconds: float = 20.0) -> DatabaseSource:
    """Open a log for reading; see `Reader.open`. Raises as that does."""
    module()
    loop = get_running_loop()
    asking = Connections(address.dsn, "any", address.shown, loop, seconds)
    log: Log | None = None

    async def begin(connection: Any) -> int:
        await check_server(connection, address, is_always=False)
        query = "SELECT id FROM aquipu.logs WHERE name = $1"
        number = await connection.fetchval(query, address.log)
        if number is None:
            raise NotAStoreError(address.shown, f"the database has no log {address.log!r}")
        return int(number)

    try:
        number = await asking.ask(begin, "open")
        reading = _reading(address, asking, loop, seconds)
        log = Log(address.shown, number, loop, asking, reading, address.dsn)
        await log.head()
    except BaseException:
        asking.close() if log is None else log.close()
        raise
    return DatabaseSource(log)
