"""What can be read of a log, wherever it is kept: the face of stores and of readers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from logging import getLogger
from typing import TYPE_CHECKING, NamedTuple

from aquipu.errors import RecordPurgedError
from aquipu.options import (
    OnPurged,
    Range,
    Start,
    Wanted,
    check_limit,
    check_sequence,
    checked_range,
    checked_start,
    checked_wanted,
)
from aquipu.record import Backup, Known, Page, Position, Receipt, Record, Time
from aquipu.runtime.closing import Records, Single
from aquipu.runtime.owner import Owned

if TYPE_CHECKING:
    from pathlib import Path

_NO_GENERATION = bytes(8)
_log = getLogger(__name__)


class Scan(Records):
    """The records of a view, or of several parts of one: ``async for record in scan``.

    It is its own iterator and is used once. The files at hand are closed at the end of the records
    and by `aclose`; ``async with scan`` calls that. Raises CorruptionError where a frame does not
    check (what was given before was sound), StoreUnavailableError when a file cannot be read, and
    RecordPurgedError for records that were purged before the scan came to them: only at its first
    step, unless the writer is in another process.
    """


class Follow(Records):
    """The records of a log from a place on, and every new one: ``async for record in ...``.

    A new record comes as soon as it is acknowledged. It is its own iterator and is used once, by
    one task at a time. A step that is cancelled has neither lost nor repeated a record: the next
    one goes on. It ends when the store (or the Reader) is closed, after everything that was
    acknowledged. ``async with follow`` closes it at the end, as `aclose` does.

    Raises, at its first step, RecordNotWrittenError for a start beyond the end of the log, and
    PositionLostError for a position whose records are not all there any more (a Reader may meet
    that later, too). StoreFailedError when the store has failed, after what may still be read;
    RecordPurgedError when the next record was purged before it was read, unless it is to pass over
    such (`skipped`); CorruptionError where a frame does not check, StoreUnavailableError when a
    file cannot be read.
    """

    def __init__(self, path: str, *, earliest: bool, on_purged: OnPurged) -> None:
        self.skipped = 0
        """Records that were purged before they could be given, and skipped."""
        self._path = path
        self._generation = _NO_GENERATION  # of the records at hand, and of those read next
        self._earliest = earliest  # nothing was given yet, and it may begin wherever the log does
        self._on_purged = on_purged

    def position_after(self, record: Record) -> Position:
        """Return where a consumer goes on that has processed this record, the last one given.

        Keep it with the consumer's own results, in the same transaction, and give it to `follow`
        as the start, also as text (``str(position)``). A position says more than a sequence: when
        the log has lost its end, and the position lies beyond, `follow` raises PositionLostError,
        also when others stand at those sequences by then.
        """
        return Position(self._generation.hex(), record.sequence + 1)

    def _overtaken(self, error: RecordPurgedError) -> int:
        """Return where to go on when a purge was quicker, unless that is an error."""
        if self._earliest:
            return error.bound
        if self._on_purged == "raise":
            raise error
        self.skipped += error.bound - error.sequence
        _log.warning(
            "%s: a follower was overtaken by a purge: it passes over %d records and goes on "
            "at sequence %d",
            self._path,
            error.bound - error.sequence,
            error.bound,
        )
        return error.bound


class Cursor(Single, ABC):
    """The sequence that a consumer reads next, kept under a name in a small file.

    So a consumer goes on exactly behind its last record, however it ended::

        async with Reader.open("audit") as reader:
            cursor = reader.cursor("billing")
            async with reader.follow(await cursor.load() or "earliest") as records:
                async for record in records:
                    await bill(record)
                    await cursor.save(record.sequence + 1)

    A consumer that dies between the two awaits reads that record again: at least once. To read each
    exactly once, keep the position where the consumer's own results are kept, in the same
    transaction (`Follow.position_after`). To save after every hundredth record is a hundred times
    cheaper, and repeats up to a hundred.

    One consumer at a time may use a name. A cursor keeps nothing from being purged, unless it was
    made with ``hold=True``: then a hold goes along, ``cursor.billing``. The first `load` sets it,
    to where the log begins if nothing was saved. It never lies beyond the cursor, also after a
    crash, and stays, also when the cursor is used without ``hold``, until it is released.
    """

    _name: str

    @property
    def name(self) -> str:
        """The name that it is kept under."""
        return self._name

    @abstractmethod
    async def load(self) -> int | None:
        """Return the sequence that was saved last; None when none ever was.

        Raises PositionLostError when the log has lost its end since, and the cursor lies beyond:
        what the consumer has read from its ``resume`` on is not there any more. To accept that,
        save ``resume``. CorruptionError for a file that does not check: a consumer must not begin
        anew because of that. StoreUnavailableError when it cannot be read.
        """

    @abstractmethod
    async def save(self, sequence: int) -> None:
        """Keep this sequence: it is on the disk when this returns.

        After a crash it is the old one or the new one. All records before it are on the disk then,
        too: what was only flushed is synced first. So a power cut takes no record that lies before
        a saved cursor.

        Cancelled, it may be saved all the same. Raises StoreFullError: it is the old one.
        StoreUnavailableError: it is the old one or the new one then, too. RecordNotWrittenError for
        a sequence beyond the end of the log, StoreFailedError when that cannot be synced any more:
        nothing is saved. TypeError or ValueError for what is no sequence.
        """


class Face(NamedTuple):
    """The object that a program reads from: to hold it is to hold the log open."""

    check_owner: Callable[[], None]
    """Raises unless this is the loop that it belongs to."""
    check_readable: Callable[[], None]
    """Raises unless it may be read from here and now."""


class LogReader(ABC):
    """What can be read of a log; the arguments have been checked."""

    @abstractmethod
    async def get(self, sequence: int) -> Record:
        """Return the record with this sequence; see `Store.get`."""

    @abstractmethod
    def scan(self, asked: Range, wanted: Wanted | None, *, reverse: bool) -> Scan:
        """Return the records of a range, those that carry the labels; see `Store.scan`."""

    async def newest(self, asked: Range, wanted: Wanted | None, count: int) -> list[Record]:
        """Return the newest records of a range that carry the labels, at most so many."""
        return await first_of(self.scan(asked, wanted, reverse=True), count)

    @abstractmethod
    def follow(
        self, start: int | Position | None, *, earliest: bool, on_purged: OnPurged
    ) -> Follow:
        """Return every record from a place on; None: what is acknowledged from now on."""

    @abstractmethod
    async def relations(self, prefix: str) -> dict[str, int]:
        """Return the labels that begin with a prefix, and how many records carry each."""

    @abstractmethod
    async def backup(self, path: str | Path, *, link: bool, bookmarks: bool) -> Backup:
        """Copy the log to another directory; see `Store.backup`."""

    @abstractmethod
    async def check_position(self, position: Position) -> None:
        """Raise PositionLostError unless what was read before the position survived."""

    @abstractmethod
    async def find_commit(self, writer: bytes, number: int, floor: int) -> Receipt | None:
        """Return the receipt of the first record of a commit that was given a key, or None.

        The commit cannot be below ``floor``. Raises RecordPurgedError where it may have been.
        """

    @abstractmethod
    async def find_number(self, writer: bytes, number: int) -> Known:
        """Return the last number of a producer, and where the records of this one are."""


class Readable(Owned, ABC):
    """A log that can be read while it is being written."""

    @abstractmethod
    def _check_readable(self) -> None:
        """Raise unless it may be read from here and now."""

    @property
    @abstractmethod
    def _reader(self) -> LogReader:
        """What the engine gives to be read; it keeps this alive."""

    async def get(self, sequence: int) -> Record:
        """Return the record with this sequence.

        Raises RecordPurgedError or RecordNotWrittenError (both also LookupError), CorruptionError
        when it does not check, StoreUnavailableError when the file cannot be read.
        """
        check_sequence(sequence, "sequence")
        self._check_readable()
        return await self._reader.get(sequence)

    def scan(
        self,
        start: int | None = None,
        stop: int | None = None,
        *,
        since: Time | None = None,
        until: Time | None = None,
        relation: str | Iterable[str] | None = None,
        any_of: Iterable[str] | None = None,
        reverse: bool = False,
    ) -> Scan:
        """Return the records from ``start`` up to, not including, ``stop``, in order.

        Use it as ``async for record in store.scan()``. Without the two: from the first one kept, up
        to the last one acknowledged when the scan takes its first step; what is appended later is
        not part of it.

        It takes no `Position`: its bounds are those of a slice, beyond the end there is nothing.
        Who keeps a place and goes on from it, in batches, asks `check_position` before each, or
        follows.

        Args:
            since, until: only those that were accepted at ``since`` or later, and before ``until``:
                an aware datetime, or nanoseconds since the epoch. Together with sequences, both
                must hold. What counts is the timestamp of each record, also where the clock was
                set; the order is that of the log.
            relation: only those that carry this label, or every one of several:
                ``relation=("user:7", "document:42")``.
            any_of: only those that carry at least one of these labels; with ``relation``, both must
                hold.
            reverse: the newest first.

        Raises TypeError or ValueError for what is no sequence, time or label, and for a start after
        the stop, in sequences or in times. RecordPurgedError, at its first step, for a start that
        is no longer kept.
        """
        asked, wanted = checked_range(start, stop, since, until), checked_wanted(relation, any_of)
        self._check_readable()
        return self._reader.scan(asked, wanted, reverse=bool(reverse))

    async def page(
        self,
        *,
        before: int | None = None,
        limit: int = 50,
        since: Time | None = None,
        until: Time | None = None,
        relation: str | Iterable[str] | None = None,
        any_of: Iterable[str] | None = None,
    ) -> Page:
        """Return the newest records, the newest first, and where the next page goes on.

        ::

            page = await store.page(relation="user:7", limit=20)
            older = await store.page(relation="user:7", limit=20, before=page.next)

        ``page.next`` is a sequence, so it may travel in JSON or in an address; it is None on the
        last page. The pages that follow are the same whatever is appended meanwhile, and a record
        that was purged meanwhile is not on them any more; so the last one may be empty. To read the
        oldest first, or everything, is what `scan` is for.

        Args:
            before: only records with a smaller sequence: the ``next`` of the page before.
            limit: the most records on the page, 1 to 1,000.
            since, until, relation, any_of: which records, as `scan` takes it: the same on every
                page.

        Raises TypeError or ValueError for what is no sequence, limit, time or label, and what
        reading raises.
        """
        check_limit(limit)
        if before is not None:
            check_sequence(before, "before")
        asked, wanted = checked_range(None, before, since, until), checked_wanted(relation, any_of)
        self._check_readable()
        found = await self._reader.newest(asked, wanted, limit + 1)  # is there another page?
        records = found[:limit]
        return Page(records, records[-1].sequence if len(found) > limit else None)

    async def relations(self, prefix: str = "") -> dict[str, int]:
        """Return the labels that begin with ``prefix``, in order, and how many records carry each.

        Raises TypeError for a prefix that is no text, and what reading raises.
        """
        if not isinstance(prefix, str):
            raise TypeError(f"a prefix of labels is a str, not {type(prefix).__name__}")
        self._check_readable()
        return await self._reader.relations(prefix)

    def follow(self, start: Start = None, *, on_purged: OnPurged = "raise") -> Follow:
        """Return every record from ``start`` on, each new one as soon as it is acknowledged::

            async with store.follow(start=1000) as records:
                async for record in records:
                    ...

        A record is given after its own caller has its receipt, never before. See `Follow` for how
        it ends, and for what it raises.

        Args:
            start: a sequence; a `Position`, or its text; ``"earliest"``: the first record kept; or
                ``"latest"``: what is acknowledged from now on.
            on_purged: what it does when the next record was purged before it was given: ``"raise"``
                RecordPurgedError, or ``"skip"`` to the first one kept. Then the log of the program
                has a warning, and `Follow.skipped` counts.

        Raises TypeError or ValueError for what is none of these. At its first step,
        RecordPurgedError for a start that is no longer kept, RecordNotWrittenError for one beyond
        ``next_sequence``, and PositionLostError for a position when not all that was read before it
        is there any more.
        """
        start = checked_start(start, on_purged)
        self._check_readable()
        if start == "earliest":
            return self._reader.follow(None, earliest=True, on_purged=on_purged)
        return self._reader.follow(start, earliest=False, on_purged=on_purged)

    async def backup(
        self, path: str | Path, *, link: bool = False, bookmarks: bool = True
    ) -> Backup:
        """Copy the log to another directory, while it is being written, and check the copy.

        The backup is a store: it opens as any other. It holds everything that was acknowledged when
        this began, all of it synced, there as here. What the directory has from an earlier backup
        is not copied again, and kept, also when it was purged here. It needs space for what is new,
        and for the last segment. When it is cut short, or cancelled, the next one goes on from
        there, and what is there opens. No purge removes what is being copied.

        Args:
            path: the directory, on the machine where the store's own is; made if it is missing.
            link: give sealed segments a second name in place of a copy, on the same file system.
                That protects from a purge, and not from a disk that fails.
            bookmarks: whether the holds and cursors come along.

        Raises BackupRefusedError for a place that does not go together with this store,
        NotAStoreError for one that holds other things, StoreLockedError when it is in use,
        CorruptionError for what is damaged, here or there, StoreUnavailableError, for lack of space
        for example. The store is never harmed. TypeError or ValueError for what is no path;
        ValueError for an archive, of which `aquipu restore` makes a store.
        """
        for name, value in (("link", link), ("bookmarks", bookmarks)):
            if not isinstance(value, bool):
                raise TypeError(f"{name} is True or False, not {value!r:.100}")
        self._check_readable()
        return await self._reader.backup(path, link=link, bookmarks=bookmarks)

    async def check_position(self, position: Position) -> None:
        """Raise PositionLostError unless what was read before the position survived.

        What lies beyond the end of the log is not looked at: `follow` says so.
        """
        self._check_readable()
        await self._reader.check_position(position)


async def first_of(scan: Scan, count: int) -> list[Record]:
    """Return the first records of a scan, at most so many, and close it."""
    found: list[Record] = []
    async with scan:
        async for record in scan:
            found.append(record)
            if len(found) == count:
                break
    return found
