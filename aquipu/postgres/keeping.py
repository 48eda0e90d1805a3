"""What is kept of a log and what goes: purges, holds and cursors, each one question."""

from __future__ import annotations

from asyncio import Task
from contextlib import suppress
from re import fullmatch
from time import monotonic_ns, time_ns
from typing import Any

from aquipu.engine import Engine
from aquipu.errors import (
    AquipuError,
    RecordNotWrittenError,
    RecordPurgedError,
    StoreUnavailableError,
)
from aquipu.postgres.address import NAME
from aquipu.postgres.batches import records_in
from aquipu.postgres.log import Log
from aquipu.postgres.read.rows import check_survived
from aquipu.reading import Cursor, Face
from aquipu.record import Lag, Purged

_HOLDING = """
SELECT name, sequence FROM aquipu.holds WHERE log = $1
    AND NOT EXISTS (SELECT FROM aquipu.batches_{0} WHERE first_sequence > $2
        AND first_sequence <= sequence)
    AND (EXISTS (SELECT FROM aquipu.batches_{0}
            WHERE first_sequence > $2 AND first_sequence <= $3::bigint)
        OR EXISTS (SELECT FROM aquipu.batches_{0}
            WHERE first_sequence = $2 AND latest_time < $4::bigint)
        OR EXISTS (SELECT FROM aquipu.logs
            WHERE id = $1 AND next_sequence > $2 AND next_sequence <= $3::bigint))
    ORDER BY sequence, name LIMIT 1
"""
"""The hold but for which more than what lies before a sequence would have gone."""
_HOLDING_MAX = 93  # characters in the name of a cursor, with which its hold can still be named
_LOOK_EVERY = 1_000_000_000  # nanoseconds, at most
_SEQUENCE_MAX = (1 << 63) - 1


class Keeping(Engine):
    """The part of an engine that asks the database what is kept."""

    log: Log

    async def purge(self, before: int | None, before_time: int | None, dry_run: bool) -> Purged:
        log = self.log
        before = None if before is None else min(before, _SEQUENCE_MAX)
        was, first, partitions, size = await log.asking.ask(
            lambda connection: connection.fetchrow(
                "SELECT * FROM aquipu.purge($1, $2, $3, $4)",
                *(log.number, before, before_time, dry_run),
            ),
            "purge",
        )
        if not dry_run:
            with suppress(StoreUnavailableError):  # somebody reads; the next purge does it
                await log.asking.ask(
                    lambda connection: connection.execute("SELECT aquipu.sweep($1)", log.number)
                )
            await log.head()
        by = await log.asking.ask(
            lambda connection: connection.fetchrow(
                _HOLDING.format(log.number), log.number, first, before, before_time
            )
        )
        held = (None, None) if by is None else (by["name"], by["sequence"])
        return Purged(was, first, partitions, first - was, size, *held)

    async def hold(self, name: str, sequence: int) -> None:
        await hold(self.log, name, sequence)

    async def release(self, name: str) -> bool:
        query = "DELETE FROM aquipu.holds WHERE log = $1 AND name = $2"
        done: str = await self.log.asking.ask(
            lambda connection: connection.execute(query, self.log.number, name), "release"
        )
        return done != "DELETE 0"

    async def holds(self) -> dict[str, int]:
        return await holds(self.log)

    def cursor(self, name: str, face: Face, *, hold: bool) -> Cursor:
        return PostgresCursor(self.log, face, name, hold=hold)

    async def cursors(self) -> dict[str, Lag]:
        return await lags(self.log)


async def hold(log: Log, name: str, sequence: int) -> None:
    """Keep everything from a sequence on; see `Store.hold`."""
    first, following = await log.asking.ask(
        lambda connection: connection.fetchrow(
            "SELECT * FROM aquipu.hold($1, $2, $3)",
            *(log.number, name, min(sequence, _SEQUENCE_MAX)),
        ),
        "set a hold in",
    )
    if sequence < first:
        raise RecordPurgedError(log.path, sequence, first)
    if sequence > following:
        raise RecordNotWrittenError(log.path, sequence, following)


async def holds(log: Log) -> dict[str, int]:
    """Return the holds by name."""
    query = "SELECT name, sequence FROM aquipu.holds WHERE log = $1 ORDER BY name"
    rows = await log.asking.ask(lambda connection: connection.fetch(query, log.number))
    return dict(map(tuple, rows))


async def lags(log: Log) -> dict[str, Lag]:
    """Return how far each cursor is behind, by name."""
    number = log.number
    query = (
        "SELECT c.name, c.sequence, l.first_sequence AS kept, l.next_sequence AS following,"
        " b.* FROM aquipu.cursors c JOIN aquipu.logs l ON l.id = c.log LEFT JOIN LATERAL"
        " (SELECT first_sequence, records, floor_time, data, lengths, times, labels, places,"
        f" checksum, size FROM aquipu.batches_{number} WHERE first_sequence <="
        " greatest(c.sequence, l.first_sequence) ORDER BY first_sequence DESC LIMIT 1) b ON true"
        " WHERE c.log = $1 ORDER BY c.name"
    )
    rows = await log.reading.ask(lambda connection: connection.fetch(query, number))
    found = {}
    for row in rows:
        name, sequence, kept, following, *batch = row
        found[name] = Lag(
            sequence,
            max(following - sequence, 0),
            _age(max(sequence, kept), following, batch, log.path),
        )
    return found


class LagMeter:
    """What was found of the cursors when it was looked last; it is looked beside what is asked."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._found: dict[str, Lag] = {}
        self._looked_at = 0
        self._looking: Task[None] | None = None

    def latest(self) -> dict[str, Lag]:
        """Return what was found, and have it looked again unless that was just now; any thread."""
        now = monotonic_ns()
        if now - self._looked_at > _LOOK_EVERY and not self._log.is_closed:
            self._looked_at = now
            with suppress(RuntimeError):  # the loop was closed
                self._log.loop.call_soon_threadsafe(self._begin)
        return self._found

    def _begin(self) -> None:
        if not self._log.is_closed and (self._looking is None or self._looking.done()):
            self._looking = self._log.loop.create_task(self._look())

    async def _look(self) -> None:
        with suppress(AquipuError):  # what was found before stands
            self._found = await lags(self._log)


def _age(sequence: int, following: int, batch: list[Any], path: str) -> float:
    """Return the age of a record in seconds; 0 for one that is not there."""
    if sequence >= following or batch[0] is None:
        return 0.0
    for record in records_in(batch, path):
        if record.sequence == sequence:
            return max(time_ns() - record.timestamp, 0) / 1e9
    return 0.0


class PostgresCursor(Cursor):
    """As `Cursor`, kept in a row of the database."""

    def __init__(self, log: Log, face: Face, name: str, *, hold: bool) -> None:
        """Prepare a cursor; not called by users: `Store.cursor` and `Reader.cursor` do."""
        if not isinstance(name, str):
            raise TypeError(f"a cursor is named by a str, not {type(name).__name__}")
        if not fullmatch(NAME, name):
            raise ValueError(
                "the name of a cursor is 1 to 100 of A-Z a-z 0-9 . _ - and begins with neither a "
                f"dot nor a dash, not {name[:100]!r} ({len(name)} characters)"
            )
        if not isinstance(hold, bool):
            raise TypeError(f"hold is True or False, not {hold!r:.100}")
        if hold and len(name) > _HOLDING_MAX:
            raise ValueError(
                f"a cursor that holds has a name of at most {_HOLDING_MAX} characters, "
                f"not {len(name)}"
            )
        self._log = log
        self._face = face
        self._name = name
        self._hold = f"cursor.{name}" if hold else None

    async def load(self) -> int | None:
        self._face.check_readable()
        query = "SELECT sequence, generation FROM aquipu.cursors WHERE log = $1 AND name = $2"
        row = await self._log.asking.ask(
            lambda connection: connection.fetchrow(query, self._log.number, self._name)
        )
        if row is not None:
            await check_survived(self._log, row[1], row[0])
        if self._hold is not None:
            first = (await self._log.head()).first_sequence
            await self._keep(self._hold, first if row is None else row[0])
        return None if row is None else int(row[0])

    async def save(self, sequence: int) -> None:
        if not isinstance(sequence, int) or isinstance(sequence, bool):
            raise TypeError(
                f"a cursor keeps a sequence, a whole number, not {type(sequence).__name__}"
            )
        if not 0 <= sequence < 1 << 64:
            raise ValueError(f"a cursor keeps a sequence, from 0 on, not {sequence}")
        self._face.check_readable()
        # in one transaction that is synced, and so is everything that it has seen
        following = await self._log.asking.ask(
            lambda connection: connection.fetchval(
                "SELECT aquipu.save_cursor($1, $2, $3, $4)",
                *(self._log.number, self._name, min(sequence, _SEQUENCE_MAX), self._hold),
            ),
            "save a cursor in",
        )
        if sequence > following:
            raise RecordNotWrittenError(self._log.path, sequence, following)

    async def _keep(self, name: str, sequence: int) -> None:
        """Have everything kept from this sequence on, or what is left of it."""
        while True:
            try:
                await hold(self._log, name, sequence)
                return
            except RecordPurgedError as purged:  # before it was held
                sequence = purged.bound
