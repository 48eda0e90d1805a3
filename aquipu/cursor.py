"""Cursors: where a consumer goes on, kept beside the store under a name."""

from __future__ import annotations

from aquipu.bookmark import checked_name, read_bookmark, write_bookmark
from aquipu.disk import Disk, explained
from aquipu.durable import OutcomeUnknown
from aquipu.errors import StoreUnavailableError
from aquipu.handoff import Handoff
from aquipu.layout import BookmarkKind


class Cursor:
    """A sequence that is kept under a name, in a small file beside the store: the next one that a consumer is to read.

    So a consumer goes on exactly behind its last record, however it ended::

        async with Reader.open("audit") as reader:
            cursor = reader.cursor("billing")
            async with reader.follow(await cursor.load() or 0) as records:
                async for record in records:
                    await bill(record)
                    await cursor.save(record.sequence + 1)

    A consumer that dies between the two awaits reads that record again: at least once. To read each exactly once, keep the
    sequence where the consumer's own results are kept, in the same transaction. To save after every hundredth record is a
    hundred times cheaper, and repeats up to a hundred.

    A cursor keeps nothing from being purged: that is what `Store.hold` does. One consumer at a time may use a name.
    """

    def __init__(self, disk: Disk, path: str, store_id: bytes, handoff: Handoff, name: str) -> None:
        """Not called by users: `Store.cursor` and `Reader.cursor` do."""
        self._name = checked_name(name)
        self._disk = disk
        self._path = path
        self._store_id = store_id
        self._handoff = handoff

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    async def load(self) -> int | None:
        """The sequence that was saved last; None when none ever was.

        Raises CorruptionError for a file that does not check: a consumer must not begin anew because of that.
        StoreUnavailableError when it cannot be read.
        """
        return await self._handoff.run(self._load)

    async def save(self, sequence: int) -> None:
        """Keep this sequence: it is on the disk when this returns. After a crash it is the old one or the new one.

        Cancelled, it may be saved all the same. Raises StoreUnavailableError: it is the old one or the new one then, too.
        TypeError or ValueError for what is no sequence.
        """
        if not isinstance(sequence, int) or isinstance(sequence, bool):
            raise TypeError(f"a cursor keeps a sequence, a whole number, not {type(sequence).__name__}")
        if not 0 <= sequence < 1 << 64:
            raise ValueError(f"a cursor keeps a sequence, from 0 on, not {sequence}")
        await self._handoff.run(self._save, sequence)

    # on a thread

    def _load(self) -> int | None:
        with explained(self._path, f"read the cursor {self._name!r} of"):
            return read_bookmark(self._disk, self._path, self._store_id, BookmarkKind.CURSOR, self._name)

    def _save(self, sequence: int) -> None:
        action = f"save the cursor {self._name!r} of"
        try:
            with explained(self._path, action):
                write_bookmark(self._disk, self._path, self._store_id, BookmarkKind.CURSOR, self._name, sequence)
        except OutcomeUnknown as unknown:
            reason = f"{unknown.doing}: {unknown.error.strerror}"
            raise StoreUnavailableError(self._path, action, reason) from unknown.error
