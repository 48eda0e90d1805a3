"""A log in a database that takes records as they are in another log: at their sequences.

A batch is brought with the sequence that it must get, and so it fits once, however often it is
sent. Who goes on after being cut short asks the log where it ends. Nobody else may write it
meanwhile: then nothing fits any more, and ConflictError says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from aquipu.errors import ConflictError, StaleKeyError
from aquipu.options import Options
from aquipu.policy import Always
from aquipu.postgres.address import Address
from aquipu.postgres.batches import Group, Rows, records_in
from aquipu.postgres.engine import PostgresEngine
from aquipu.postgres.link.carrier import Carrier
from aquipu.postgres.link.driver import settled
from aquipu.postgres.log import Head
from aquipu.postgres.opening import open_engine
from aquipu.postgres.read.rows import rows_of
from aquipu.record import PRODUCERS, Key, Record

_CONFLICT, _STALE = 2, 3


class Receiver:
    """A log in a database, open for taking over records."""

    def __init__(self, engine: PostgresEngine, address: Address, seconds: float) -> None:
        self.path = engine.path
        self._engine = engine
        self._mode = address.mode
        log = engine.log
        self._carrier = Carrier(address.dsn, log.path, log.loop, seconds, log.asking)
        self._writer = uuid4().bytes
        self._number = 0

    @classmethod
    async def open(cls, address: Address, first: int, seconds: float = 20.0) -> Receiver:
        """Open the log at an address; it is made if it is not there.

        One in which nothing was ever stored begins with the sequence ``first``. Raises as
        `Store.open`.
        """
        options = Options(Always(), 1 << 26, 1 << 24, 65_536, 1 << 26, seconds)
        self = cls(await open_engine(address, options), address, seconds)
        try:
            if first and (await self.head()).next_sequence == 0:
                await self._begin_at(first)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def head(self) -> Head:
        """Return how far it reaches."""
        return await self._engine.log.head()

    async def has(self, record: Record) -> bool:
        """Return whether it has exactly this record at its sequence."""
        rows = await rows_of(self._engine.log, record.sequence, record.sequence + 1)
        return any(record == one for row in rows for one in records_in(row, self.path))

    async def _begin_at(self, sequence: int) -> None:
        log = self._engine.log
        await log.asking.ask(
            lambda connection: connection.execute(
                "SELECT aquipu.begin_at($1, $2)", log.number, sequence
            ),
            "copy to",
        )

    async def bring(self, records: Sequence[Record], keys: Sequence[Key]) -> None:
        """Store records at their sequences, synced, whose times never decrease.

        ``keys``: by the index of their first records. Raises ConflictError when the log does not
        end where they begin, and what `append` raises.
        """
        groups = list(_groups_of(records, keys))
        self._number += 1
        arguments = (
            *(self._engine.log.number, self._writer, self._number),
            *(True, False, self._mode, None),
            *Rows(groups).arguments(),
        )
        answer = await self._carrier.call(arguments, records[0].sequence, False)
        for group, outcome, first in zip(
            groups, answer["o_outcomes"], answer["o_firsts"], strict=True
        ):
            if outcome == _CONFLICT and group.expected is not None:
                raise ConflictError(self.path, group.expected, first)
            if outcome == _STALE and group.key is not None:
                raise StaleKeyError(self.path, group.key[1], first)

    async def aclose(self) -> None:
        """Let go of the log."""
        await self._carrier.hang_up()
        self._carrier.drop()
        self._engine.drop()
        await settled()


def _groups_of(records: Sequence[Record], keys: Sequence[Key]) -> list[Group]:
    """Return records as groups: each batch with a key is one, and so is what lies in between."""
    groups = []
    at = 0
    for key in sorted(keys, key=lambda key: key.first):
        if key.first > at:
            groups.append(_group(records[at : key.first], None))
        at = key.first + key.records
        of_producer = (key.writer, key.number & ~PRODUCERS)
        groups.append(_group(records[key.first : at], of_producer))
    if at < len(records):
        groups.append(_group(records[at:], None))
    return groups


def _group(records: Sequence[Record], key: tuple[bytes, int] | None) -> Group:
    labels = {index: record.relations for index, record in enumerate(records) if record.relations}
    payloads = [record.data for record in records]
    times = [record.timestamp for record in records]
    return Group(payloads, times, labels, key, records[0].sequence)
