"""What is asked of a database to read from a log: rows, and which of them have some labels.

What is asked for by labels is looked up in the table of labels first, a few sequences at a time.
Rows follow one another without gaps, so what is not there shows.
"""

from __future__ import annotations

from typing import Any

from aquipu.errors import (
    CorruptionError,
    PositionLostError,
    RecordNotWrittenError,
    RecordPurgedError,
)
from aquipu.options import Wanted
from aquipu.postgres.batches import COLUMNS
from aquipu.postgres.log import Log

_PAGE_BYTES = 512 * 1024
_PAGE_ROWS = 512
_PAGE_RECORDS = 2048
LABELLED = 64
"""Records with a label that are looked up at a time: each may lie in a batch of its own."""
_SEQUENCE_MAX = (1 << 63) - 1
"""The highest that the database has room for; no record ever gets it."""


async def check_survived(log: Log, generation: bytes, sequence: int) -> None:
    """Raise PositionLostError unless what a generation gave before a sequence is still there."""
    if generation == log.generation:
        return
    query = (
        "SELECT (SELECT generation FROM aquipu.logs WHERE id = $1), (SELECT min(survived) FROM"
        " aquipu.generations WHERE log = $1 AND number >= (SELECT number FROM aquipu.generations"
        " WHERE log = $1 AND generation = $2))"
    )
    current, survived = await log.reading.ask(
        lambda connection: connection.fetchrow(query, log.number, generation)
    )
    if generation == current:
        return
    if survived is None or sequence > survived:
        raise PositionLostError(log.path, sequence, survived)


async def raise_missing(log: Log, sequence: int) -> None:
    """Raise why nothing has this sequence."""
    head = await log.head()
    if sequence < head.first_sequence:
        raise RecordPurgedError(log.path, sequence, head.first_sequence)
    if sequence >= head.next_sequence:
        raise RecordNotWrittenError(log.path, sequence, head.next_sequence)
    raise CorruptionError(log.path, sequence, f"the batch with sequence {sequence} is missing")


async def rows_of(
    log: Log,
    start: int,
    stop: int,
    times: tuple[int | None, int | None] = (None, None),
    *,
    reverse: bool = False,
) -> list[Any]:
    """Return the next rows of a range, as many as a page takes, and at least one if there is any.

    ``times``: only those that may hold a record within. None is of another log's.
    """
    start, stop = min(start, _SEQUENCE_MAX), min(stop, _SEQUENCE_MAX)
    table = f"aquipu.batches_{log.number}"
    order = "DESC" if reverse else "ASC"
    since = "" if times[0] is None else " AND latest_time >= $3"
    until = "" if times[1] is None else f" AND earliest_time < ${3 + (times[0] is not None)}"
    query = (
        f"SELECT {COLUMNS} FROM (SELECT *, sum(size) OVER w - size AS bytes_before,"
        f" sum(records) OVER w - records AS records_before FROM (SELECT * FROM {table}"
        " WHERE first_sequence >= coalesce((SELECT first_sequence FROM"
        f" {table} WHERE first_sequence <= $1 ORDER BY first_sequence DESC LIMIT 1), $1)"
        " AND first_sequence >= (SELECT l.first_sequence FROM aquipu.logs l WHERE"
        f" l.id = {log.number}) AND first_sequence < $2{since}{until}"
        f" ORDER BY first_sequence {order} LIMIT {_PAGE_ROWS}) r"
        f" WINDOW w AS (ORDER BY first_sequence {order})) p"
        f" WHERE bytes_before < {_PAGE_BYTES} AND records_before < {_PAGE_RECORDS}"
        f" ORDER BY first_sequence {order}"
    )
    given = [time for time in times if time is not None]
    rows: list[Any] = await log.reading.ask(
        lambda connection: connection.fetch(query, start, stop, *given)
    )
    return rows


async def labelled(
    log: Log, start: int, stop: int, wanted: Wanted, count: int, *, reverse: bool
) -> list[int]:
    """Return the next sequences of a range whose records carry the labels, at most so many."""
    table = f"aquipu.labels_{log.number}"
    order = "DESC" if reverse else "ASC"
    within = "sequence >= $1 AND sequence < $2"
    if wanted.every:
        others = "".join(
            f" AND EXISTS (SELECT FROM {table} o WHERE o.label = ${place} AND"
            " o.sequence = a.sequence)"
            for place in range(5, 4 + len(wanted.every))
        )
        query = (
            f"SELECT sequence FROM {table} a WHERE label = $4 AND {within}{others}"
            " AND ($3::text[] = '{}' OR EXISTS (SELECT FROM"
            f" {table} o WHERE o.label = ANY ($3::text[]) AND o.sequence = a.sequence))"
            f" ORDER BY sequence {order} LIMIT {count}"
        )
    else:
        query = (
            "SELECT DISTINCT f.sequence FROM unnest($3::text[]) AS l(label) CROSS JOIN LATERAL"
            f" (SELECT sequence FROM {table} a WHERE a.label = l.label AND {within}"
            f" ORDER BY sequence {order} LIMIT {count}) f ORDER BY 1 {order} LIMIT {count}"
        )
    start, stop = min(start, _SEQUENCE_MAX), min(stop, _SEQUENCE_MAX)
    rows = await log.reading.ask(
        lambda connection: connection.fetch(query, start, stop, list(wanted.any_of), *wanted.every)
    )
    return [row[0] for row in rows]


async def rows_holding(log: Log, sequences: list[int]) -> list[Any]:
    """Return the rows that hold these sequences, in order."""
    table = f"aquipu.batches_{log.number}"
    query = (
        f"SELECT {COLUMNS} FROM {table} WHERE first_sequence IN (SELECT (SELECT first_sequence"
        f" FROM {table} WHERE first_sequence <= s.sequence ORDER BY first_sequence DESC LIMIT 1)"
        " FROM unnest($1::bigint[]) AS s(sequence)) ORDER BY first_sequence"
    )
    rows: list[Any] = await log.reading.ask(lambda connection: connection.fetch(query, sequences))
    return rows
