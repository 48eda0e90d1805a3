"""Reading a log in a database: in pages of whole batches, each a question of its own.

Nothing is held between two pages against purges: RecordPurgedError where the next page was purged
before it was asked for.
"""

from __future__ import annotations

from pathlib import Path

from aquipu.errors import StoreUnavailableError
from aquipu.options import OnPurged, Range, Wanted
from aquipu.postgres.batches import records_in
from aquipu.postgres.log import Log
from aquipu.postgres.read.follow import LogFollow
from aquipu.postgres.read.rows import check_survived, raise_missing, rows_of
from aquipu.postgres.read.scan import LogScan
from aquipu.reading import Face, Follow, LogReader, Scan, first_of
from aquipu.record import Backup, Known, Position, Receipt, Record


class PostgresReader(LogReader):
    """Reads a log for a face."""

    def __init__(self, log: Log, face: Face) -> None:
        self._log = log
        self._face = face

    async def get(self, sequence: int) -> Record:
        for row in await rows_of(self._log, sequence, sequence + 1):
            for record in records_in(row, self._log.path):
                if record.sequence == sequence:
                    return record
        self._face.check_readable()
        await raise_missing(self._log, sequence)
        raise AssertionError("it was there, or is not")

    def scan(self, asked: Range, wanted: Wanted | None, *, reverse: bool) -> Scan:
        return LogScan(self._log, self._face, asked, wanted, reverse=reverse)

    async def newest(self, asked: Range, wanted: Wanted | None, count: int) -> list[Record]:
        scan = LogScan(self._log, self._face, asked, wanted, reverse=True, most=count)
        return await first_of(scan, count)

    def follow(
        self, start: int | Position | None, *, earliest: bool, on_purged: OnPurged
    ) -> Follow:
        return LogFollow(self._log, self._face, start, earliest=earliest, on_purged=on_purged)

    async def relations(self, prefix: str) -> dict[str, int]:
        query = (
            f"SELECT label, count(*) FROM aquipu.labels_{self._log.number} WHERE label >= $1"
            " AND starts_with(label, $1) AND sequence >= (SELECT first_sequence FROM aquipu.logs"
            f" WHERE id = {self._log.number}) GROUP BY label ORDER BY label"
        )
        rows = await self._log.reading.ask(lambda connection: connection.fetch(query, prefix))
        self._face.check_readable()
        return dict(map(tuple, rows))

    async def backup(self, path: str | Path, *, link: bool, bookmarks: bool) -> Backup:
        raise StoreUnavailableError(
            self._log.path,
            "back up",
            "the database that it is in is backed up as a whole, by pg_basebackup for example",
        )

    async def check_position(self, position: Position) -> None:
        await check_survived(self._log, bytes.fromhex(position.generation), position.sequence)

    async def find_commit(self, writer: bytes, number: int, floor: int) -> Receipt | None:
        raise NotImplementedError("a daemon serves the files of a log, not a database")

    async def find_number(self, writer: bytes, number: int) -> Known:
        raise NotImplementedError("the database decides on appends with a key")
