"""A directory that takes records as they are in another log: at their sequences.

The engine is the one of every store, so whatever is cut short opens, and goes on where it ends.
"""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Sequence
from typing import Any

from aquipu.engine import Commit, CommitResult, Progress
from aquipu.errors import AquipuError, NoSuchRecordError
from aquipu.local.backup.destination import Destination
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.system import random_bytes
from aquipu.local.engine import LocalEngine, open_engine
from aquipu.local.format.names import MANIFEST
from aquipu.local.format.segment import SegmentHeader
from aquipu.options import MIB, Options
from aquipu.policy import Always, Stage
from aquipu.reading import Face
from aquipu.record import Key, Record

_SEGMENT_BYTES = 64 * MIB


class Receiver:
    """A store in a directory, open for taking over records. Of the loop that opened it."""

    def __init__(self, engine: LocalEngine, last_time: int) -> None:
        self.path = engine.path
        self._engine = engine
        self._last_time = last_time

    @classmethod
    async def open(
        cls, path: str, first: int, seconds: float = 20.0, segment_bytes: int = _SEGMENT_BYTES
    ) -> Receiver:
        """Open the store in a directory; one that is made begins with the sequence ``first``.

        Raises as `Store.open`.
        """
        disk = Disk()
        if first:
            _begin_at(disk, path, first)
        options = Options(Always(), segment_bytes, 16 * MIB, 65_536, 64 * MIB, seconds)
        engine = await open_engine(path, options, disk)
        return cls(engine, await engine.ask(lambda journal: journal.last_time))

    async def head(self) -> Progress:
        """Return how far it reaches."""
        return self._engine.progress()

    async def has(self, record: Record) -> bool:
        """Return whether it has exactly this record at its sequence."""
        reader = self._engine.reader(Face(_nothing, _nothing))
        try:
            return await reader.get(record.sequence) == record
        except NoSuchRecordError:
            return False

    async def bring(self, records: Sequence[Record], keys: Sequence[Key]) -> None:
        """Store records at its end, synced, whose times never decrease from one to the next.

        ``keys``: by the index of their first records. Raises StoreFullError, StoreFailedError,
        StoreUnavailableError.
        """
        if records[0].timestamp < self._last_time:
            # a segment begins with the time to which the clock was set back: one unit alone,
            # because what comes behind it may be later than what was before
            await self._engine.roll()
            alone = next((key.records for key in keys if key.first == 0), 1)
            await self._write(records[:alone], [key for key in keys if key.first < alone])
            keys = [key._replace(first=key.first - alone) for key in keys if key.first >= alone]
            records = records[alone:]
        if records:
            await self._write(records, list(keys))

    async def _write(self, records: Sequence[Record], keys: list[Key]) -> None:
        """Write records as one commit."""
        engine = self._engine
        commit: Commit[Any] = Commit()
        commit.payloads = [record.data for record in records]
        commit.timestamps = [record.timestamp for record in records]
        # their times are old ones, and no sign that the clock of this machine was set
        commit.time = commit.since = records[-1].timestamp
        commit.labels = {
            index: record.relations for index, record in enumerate(records) if record.relations
        }
        commit.keys = keys
        commit.stage, commit.sync = Stage.SYNCED, True
        commit.first_sequence = engine.next_sequence
        written = get_running_loop().create_future()
        engine.submit(commit, lambda _: written.set_result(None), urgent=False)
        await written
        engine.receive(commit)
        engine.settle()
        if isinstance(commit.outcome, AquipuError):
            raise commit.outcome
        engine.publish(commit)
        self._last_time = records[-1].timestamp

    async def aclose(self) -> None:
        """Close the store. Raises StoreFailedError when what came last may not be on the disk."""
        closed = get_running_loop().create_future()
        self._engine.begin_closing()
        self._engine.close(closed.set_result)
        outcome: CommitResult | AquipuError | None = await closed
        if isinstance(outcome, AquipuError):
            raise outcome


def _begin_at(disk: Disk, path: str, first: int) -> None:
    """Make a store that begins with a sequence, unless there is one."""
    with translate_os_errors(path, "make"):
        if disk.exists(f"{path}/{MANIFEST}"):
            return
        store_id = random_bytes(16)
        header = SegmentHeader(store_id, first, 0, 0)
        to = Destination(disk, path, store_id, _nothing)
        try:
            to.begin(header._replace(link=header.seed))
        finally:
            to.close()


def _nothing() -> None:
    """Check nothing: nobody else has this engine."""
