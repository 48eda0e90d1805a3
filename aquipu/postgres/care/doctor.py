"""A server examined: every setting that weakens what is promised of a log there, and what to set.

What is asked of the server, `ask_settings`; what it means, `findings_in`, is pure.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from aquipu.errors import AquipuError
from aquipu.postgres.address import Address
from aquipu.postgres.link.driver import connect, translated
from aquipu.postgres.opening import SERVER_MIN, ask_server, version_in
from aquipu.postgres.schema.versions import VERSION

_NAMES = (
    *("fsync", "full_page_writes", "synchronous_commit", "synchronous_standby_names"),
    *("wal_level", "wal_sync_method", "data_checksums", "server_version"),
    *("server_version_num", "server_encoding"),
)
_LAG_MAX = 64 * 1024 * 1024
"""Bytes that a standby may be behind until that is a finding."""


class Standby(NamedTuple):
    """A standby as its primary sees it."""

    name: str
    state: str
    sync_state: str
    lag_bytes: int | None
    """Of the log of the server that it has not written yet."""


class Seen(NamedTuple):
    """What a server says of itself."""

    settings: dict[str, str]
    is_standby: bool
    schema_version: int
    """Version of the tables; 0: there are none."""
    standbys: list[Standby]


class Finding(NamedTuple):
    """Something that weakens what is promised, or that should be known."""

    setting: str
    value: str
    weight: str
    """``danger``: what was acknowledged may be lost; ``remark``: it should be known."""
    means: str
    remedy: str
    """What to set or to do."""


class ServerDiagnosis(NamedTuple):
    """What was found of a server."""

    database: str
    """The address, without a password."""
    server: str
    findings: list[Finding]


async def examine(address: Address) -> ServerDiagnosis:
    """Return what weakens the promise of logs in a database; nothing is changed.

    Raises StoreUnavailableError, and ValueError for an address that cannot be.
    """
    try:
        connection = await connect(address.dsn, "any")
        try:
            seen = await ask_settings(connection)
        finally:
            await connection.close()
    except (AquipuError, ImportError, ValueError):
        raise
    except Exception as error:
        raise translated(error, address.shown, "examine", None) from error
    server = seen.settings.get("server_version", "unknown")
    return ServerDiagnosis(address.shown, server, findings_in(seen))


async def ask_settings(connection: Any) -> Seen:
    """Ask a server for what it says of itself."""
    rows = await connection.fetch(
        "SELECT name, setting FROM pg_settings WHERE name = ANY ($1::text[])", list(_NAMES)
    )
    standbys = await connection.fetch(
        "SELECT application_name, coalesce(state, 'unknown'), coalesce(sync_state, 'unknown'),"
        " CASE WHEN NOT pg_is_in_recovery()"
        " THEN pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::bigint END"
        " FROM pg_stat_replication ORDER BY application_name"
    )
    is_standby = await connection.fetchval("SELECT pg_is_in_recovery()")
    version = await version_in(connection, await ask_server(connection))
    return Seen(dict(map(tuple, rows)), is_standby, version, [Standby(*row) for row in standbys])


def findings_in(seen: Seen) -> list[Finding]:
    """Return what is found of a server, the dangers first. Pure."""
    found = [*_of_durability(seen), *_of_standbys(seen), *_of_schema(seen)]
    return sorted(found, key=lambda finding: finding.weight != "danger")


def _of_durability(seen: Seen) -> list[Finding]:
    found = []
    settings = seen.settings
    if settings.get("fsync") == "off":
        means = "a power cut may take or damage anything, whatever the policy says"
        found.append(Finding("fsync", "off", "danger", means, "set fsync = on and restart"))
    if settings.get("full_page_writes") == "off":
        means = "a power cut within a page write damages the page, unless the disk prevents that"
        remedy = "set full_page_writes = on"
        found.append(Finding("full_page_writes", "off", "danger", means, remedy))
    if settings.get("synchronous_commit") in ("off", "local"):
        means = (
            "aquipu sets it for each of its commits; what others write to this database may be "
            "lost in a power cut"
        )
        value = settings["synchronous_commit"]
        remedy = "set synchronous_commit = on"
        found.append(Finding("synchronous_commit", value, "remark", means, remedy))
    if settings.get("data_checksums") == "off":
        means = "pages that the disk has altered are noticed in batches of aquipu only"
        remedy = "run pg_checksums --enable while the server is down"
        found.append(Finding("data_checksums", "off", "remark", means, remedy))
    return found


def _of_standbys(seen: Seen) -> list[Finding]:
    if seen.is_standby:
        means = "it takes no writes; the primary decides what is promised"
        return [Finding("server", "standby", "remark", means, "examine the primary as well")]
    found = []
    names = seen.settings.get("synchronous_standby_names", "")
    confirming = [one for one in seen.standbys if one.sync_state in ("sync", "quorum")]
    if not names:
        means = "no standby confirms a commit: the loss of this server takes what it alone has"
        remedy = "set synchronous_standby_names, to 'ANY 1 (a, b)' with two standbys for example"
        found.append(Finding("synchronous_standby_names", "empty", "remark", means, remedy))
    elif not confirming:
        means = "none of these is connected: commits that are synced wait until one is"
        remedy = "start a standby, or empty the setting to go on without"
        found.append(Finding("synchronous_standby_names", names, "danger", means, remedy))
    elif len(seen.standbys) == 1:
        means = "there is one standby: while it is away, commits that are synced wait"
        found.append(
            Finding("synchronous_standby_names", names, "remark", means, "add a second standby")
        )
    for standby in seen.standbys:
        if standby.lag_bytes is not None and standby.lag_bytes > _LAG_MAX:
            means = f"it is {standby.lag_bytes:,} bytes behind: a fail-over to it takes long"
            remedy = "look at its disk and its network"
            found.append(Finding("replica lag", standby.name, "remark", means, remedy))
    return found


def _of_schema(seen: Seen) -> list[Finding]:
    found = []
    number = int(seen.settings.get("server_version_num", SERVER_MIN))
    if number < SERVER_MIN:
        means, remedy = "aquipu does not work with it", "upgrade to PostgreSQL 14 or later"
        value = seen.settings.get("server_version", "")
        found.append(Finding("server_version", value, "danger", means, remedy))
    encoding = seen.settings.get("server_encoding", "UTF8")
    if encoding != "UTF8":
        means, remedy = "labels need UTF8", "make a database with ENCODING 'UTF8'"
        found.append(Finding("server_encoding", encoding, "danger", means, remedy))
    if seen.schema_version != VERSION:
        value = str(seen.schema_version) if seen.schema_version else "none"
        means = f"this aquipu works with tables of version {VERSION}"
        remedy = "run aquipu migrate" if seen.schema_version < VERSION else "use a newer aquipu"
        found.append(Finding("tables", value, "remark", means, remedy))
    return found
