"""A log in a database whose records are brought elsewhere, in pieces of whole batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from aquipu.errors import CorruptionError
from aquipu.postgres.address import Address
from aquipu.postgres.batches import records_in
from aquipu.postgres.opening import DatabaseSource, open_source
from aquipu.postgres.read.rows import raise_missing, rows_of
from aquipu.record import PRODUCERS, Key, Record

_KEYS = (
    "SELECT producer, number, first_sequence, records FROM aquipu.keys"
    " WHERE log = $1 AND first_sequence >= $2 AND first_sequence < $3 ORDER BY first_sequence"
)


class Giver:
    """A log in a database, from which records are taken, as far as it reached when it was opened.

    One record is never given without the others that have its key.
    """

    def __init__(self, source: DatabaseSource) -> None:
        """Give what the source has now; it is closed with this."""
        self._source = source
        self._log = source.log
        self.path = self._log.path
        self.start, self.stop, _ = self._log.progress

    @classmethod
    async def open(cls, address: Address) -> Giver:
        """Open the log at an address. Raises as `Reader.open`."""
        return cls(await open_source(address))

    async def record(self, sequence: int) -> Record:
        """Return one record. Raises as `Reader.get`."""
        return await self._source.get(sequence)

    async def pieces(self, start: int) -> AsyncIterator[tuple[list[Record], list[Key]]]:
        """Yield the records from a sequence on, with the keys by the index of their first records.

        Raises RecordPurgedError, CorruptionError, StoreUnavailableError.
        """
        while start < self.stop:
            records = await self._page(start)
            keys = await self._keys(start, start + len(records))
            if keys and (end := _end_of(keys[-1])) > start + len(records):
                first = keys[-1]["first_sequence"]
                if first > start:  # it comes whole, with the next piece
                    records, keys = records[: first - start], keys[:-1]
                while (following := start + len(records)) < end and first == start:
                    records += (await self._page(following))[: end - following]
            yield (
                records,
                [
                    Key(
                        bytes(row["producer"]),
                        row["number"] | PRODUCERS,
                        row["first_sequence"] - start,
                        row["records"],
                    )
                    for row in keys
                ],
            )
            start += len(records)

    async def _page(self, start: int) -> list[Record]:
        """Return the next records, without a gap."""
        rows = await rows_of(self._log, start, self.stop)
        found = [record for row in rows for record in records_in(row, self.path)]
        records = [record for record in found if start <= record.sequence < self.stop]
        if not records or records[0].sequence != start:
            await raise_missing(self._log, start)
        following = start + len(records)
        if records[-1].sequence != following - 1:
            raise CorruptionError(self.path, start, "records behind it are missing")
        return records

    async def _keys(self, start: int, stop: int) -> Sequence[Any]:
        log = self._log
        rows: Sequence[Any] = await log.reading.ask(
            lambda connection: connection.fetch(_KEYS, log.number, start, stop)
        )
        return rows

    async def aclose(self) -> None:
        """Let go of the log."""
        await self._source.aclose()


def _end_of(key: Any) -> int:
    """Return one past the last record that has a key."""
    return int(key["first_sequence"] + key["records"])
