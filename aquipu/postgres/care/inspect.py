"""A log in a database looked into, and checked: what `aquipu info` and `verify` say of one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any, NamedTuple

from aquipu.errors import CorruptionError
from aquipu.postgres.address import Address
from aquipu.postgres.batches import COLUMNS, records_in
from aquipu.postgres.keeping import holds
from aquipu.postgres.log import Log
from aquipu.postgres.opening import open_source
from aquipu.record import moment

_ROWS = 64
_INFO = (
    "SELECT l.first_sequence, l.next_sequence, l.synced_sequence, encode(l.generation, 'hex'),"
    " (SELECT count(*) FROM aquipu.partitions p WHERE p.log = l.id),"
    " (SELECT sum(pg_total_relation_size(t.relid)) FROM pg_partition_tree('aquipu.batches_' ||"
    " l.id) t) + (SELECT sum(pg_total_relation_size(t.relid)) FROM"
    " pg_partition_tree('aquipu.labels_' || l.id) t),"
    " current_setting('server_version'), (SELECT max(version) FROM aquipu.version),"
    " current_setting('synchronous_standby_names')"
    " FROM aquipu.logs l WHERE l.id = $1"
)


class DatabaseInfo(NamedTuple):
    """What a log in a database holds."""

    path: str
    """The address, without a password."""
    log: str
    server: str
    """Version of the server."""
    schema_version: int
    """Version of the tables."""
    generation: str
    first_sequence: int
    """Sequence of the first record kept."""
    next_sequence: int
    """One past the last record."""
    synced_sequence: int
    """Everything below is on the disk of the server."""
    records: int
    partitions: int
    bytes: int
    """Of the tables and indexes of the log."""
    first_time: str | None
    """Of the first record, ISO 8601 in UTC."""
    last_time: str | None
    """Of the last record."""
    synchronous_standbys: str
    """``synchronous_standby_names`` of the server; empty: none confirms anything."""
    holds: dict[str, int]
    """From which sequence on each keeps everything."""


class Damage(NamedTuple):
    """A place of a log that does not check."""

    sequence: int
    reason: str


class DatabaseVerdict(NamedTuple):
    """What a check of a log in a database has found."""

    path: str
    next_sequence: int
    """One past the last record that was checked."""
    records: int
    batches: int
    bytes: int
    """Of the data of the records."""
    damages: list[Damage]


async def look_into(address: Address) -> DatabaseInfo:
    """Return what a log holds. Raises as `Reader.open`."""
    async with aclosing(await open_source(address)) as source:
        log = source.log
        row = await log.asking.ask(lambda connection: connection.fetchrow(_INFO, log.number))
        first, following, synced, generation, partitions, size, server, version, standbys = row
        times: list[str | None] = [None, None]
        if following > first:
            records = [await source.get(first), await source.get(following - 1)]
            times = [moment(record.timestamp).isoformat() for record in records]
        return DatabaseInfo(
            path=log.path,
            log=address.log,
            server=server,
            schema_version=version,
            generation=generation,
            first_sequence=first,
            next_sequence=following,
            synced_sequence=synced,
            records=following - first,
            partitions=partitions,
            bytes=int(size),
            first_time=times[0],
            last_time=times[1],
            synchronous_standbys=standbys,
            holds=await holds(log),
        )


async def check(address: Address, progress: Callable[[int, int], None]) -> DatabaseVerdict:
    """Read every record of a log that is there now, and compare it with its checksum.

    ``progress``: called with bytes and records that were read. Raises as `Reader.open`.
    """
    async with aclosing(await open_source(address)) as source:
        log = source.log
        head = await log.head()
        following, stop = head.first_sequence, head.next_sequence
        damages: list[Damage] = []
        records = batches = size = 0
        while following < stop:
            rows = await _next_rows(log, following, stop)
            if not rows:
                damages.append(Damage(following, f"the records up to {stop - 1} are missing"))
                break
            for row in rows:
                first = row["first_sequence"]
                if first > following:
                    damages.append(Damage(following, f"the records up to {first - 1} are missing"))
                found = _checked(row, log, damages)
                records += found
                batches += 1
                size += row["size"]
                progress(row["size"], found)
                following = first + row["records"]
            damages += await _labels_amiss(log, rows)
        return DatabaseVerdict(log.path, stop, records, batches, size, damages)


async def _next_rows(log: Log, start: int, stop: int) -> list[Any]:
    query = (
        f"SELECT {COLUMNS} FROM aquipu.batches_{log.number} WHERE first_sequence >= $1"
        f" AND first_sequence < $2 ORDER BY first_sequence LIMIT {_ROWS}"
    )
    rows: list[Any] = await log.reading.ask(lambda connection: connection.fetch(query, start, stop))
    return rows


def _checked(row: Any, log: Log, damages: list[Damage]) -> int:
    """Return how many records of a row are sound, and note what is not."""
    try:
        return len(records_in(row, log.path))
    except CorruptionError as error:
        damages.append(Damage(row["first_sequence"], error.reason))
        return 0


async def _labels_amiss(log: Log, rows: list[Any]) -> list[Damage]:
    """Return where the table of labels says something else than the records do."""
    start, stop = rows[0]["first_sequence"], rows[-1]["first_sequence"] + rows[-1]["records"]
    query = (
        f"SELECT label, sequence FROM aquipu.labels_{log.number}"
        " WHERE sequence >= $1 AND sequence < $2"
    )
    found = await log.reading.ask(lambda connection: connection.fetch(query, start, stop))
    indexed = set(map(tuple, found))
    carried = {
        (label, row["first_sequence"] + place)
        for row in rows
        for label, place in zip(row["labels"], row["places"], strict=False)
    }
    return [
        Damage(sequence, "its labels do not stand in the table of labels as in the record")
        for sequence in sorted({sequence for _, sequence in indexed ^ carried})
    ]
