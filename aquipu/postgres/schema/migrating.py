"""Bringing a database to the version of this aquipu: when it is asked for, and only then."""

from __future__ import annotations

from typing import Any, NamedTuple

from aquipu.errors import StoreUnavailableError, UnsupportedFormatError
from aquipu.postgres.address import Address
from aquipu.postgres.link.driver import connect, translated
from aquipu.postgres.opening import SERVER_MIN, ask_server, version_in
from aquipu.postgres.schema.versions import VERSION, Migration, missing_from


class Migrated(NamedTuple):
    """What a migration has come to."""

    database: str
    """The address, without a password."""
    version_before: int
    """Version of the tables before; 0: there were none."""
    version: int
    steps: tuple[str, ...]
    """What each version has brought."""


async def migrate(address: Address, *, dry_run: bool = False) -> Migrated:
    """Create or upgrade the tables of a database, in one transaction.

    With ``dry_run`` nothing is changed: what would be done is returned. Raises
    UnsupportedFormatError for a later version, StoreUnavailableError when the server refuses.
    """
    try:
        connection = await connect(address.dsn, "read-write")
        try:
            async with connection.transaction():
                return await _migrate(connection, address, dry_run=dry_run)
        finally:
            await connection.close()
    except (StoreUnavailableError, UnsupportedFormatError):
        raise
    except (ImportError, ValueError):
        raise
    except Exception as error:
        raise translated(error, address.shown, "migrate", None) from error


async def _migrate(connection: Any, address: Address, *, dry_run: bool) -> Migrated:
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext('aquipu'))")
    server = await ask_server(connection)
    if server.number < SERVER_MIN:
        raise StoreUnavailableError(
            address.shown, "migrate", f"the server is PostgreSQL {server.name}, earlier than 14"
        )
    before = await version_in(connection, server)
    if before > VERSION:
        raise UnsupportedFormatError(
            address.shown, f"its tables are of version {before}, and this aquipu knows {VERSION}"
        )
    steps = missing_from(before)
    if steps and not dry_run:
        if before == 0:
            await connection.execute("CREATE SCHEMA IF NOT EXISTS aquipu")
        for step in steps:
            await _apply(connection, step)
    return Migrated(address.shown, before, VERSION, tuple(step.adds for step in steps))


async def _apply(connection: Any, step: Migration) -> None:
    await connection.execute(step.sql)
    await connection.execute("INSERT INTO aquipu.version (version) VALUES ($1)", step.version)
