"""What can be read of a log, whoever writes it: the face that `Store` and readers in other processes share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

from aquipu.errors import RecordNotWrittenError, RecordPurgedError, StoreUnavailableError
from aquipu.follow import Follow, Followed
from aquipu.handoff import Handoff
from aquipu.owner import Owned
from aquipu.record import Record, checked_relations
from aquipu.scan import Scan
from aquipu.view import View, find, sequence_at

if TYPE_CHECKING:
    from datetime import datetime

    from aquipu.finding import Finder, Search, Wanted

T = TypeVar("T")

Time: TypeAlias = "datetime | int"
"""An aware datetime, or nanoseconds since the epoch."""


class Range(NamedTuple):
    """Which records a scan was asked for; each bound may be left out."""

    start: int | None
    stop: int | None
    since: int | None
    until: int | None


class Readable(Owned, ABC):
    """A log that can be read while it is being written."""

    _handoff: Handoff
    _finder: Finder

    @abstractmethod
    def _check_readable(self) -> None:
        """Raise unless it may be read from here and now."""

    @abstractmethod
    async def _seen(self) -> View:
        """Everything that may be seen now."""

    @abstractmethod
    def _followed(self) -> Followed:
        """What a follower asks. It keeps this alive."""

    @property
    @abstractmethod
    def next_sequence(self) -> int:
        """One past the last acknowledged record."""

    async def get(self, sequence: int) -> Record:
        """The record with this sequence.

        Raises RecordPurgedError or RecordNotWrittenError (both also LookupError), CorruptionError when it does not
        check, StoreUnavailableError when the file cannot be read.
        """
        check_sequence(sequence, "sequence")
        self._check_readable()

        async def get(seen: View) -> Record:
            if sequence < seen.start:
                raise RecordPurgedError(self._path, sequence, seen.start)
            if sequence >= seen.stop:
                raise RecordNotWrittenError(self._path, sequence, seen.stop)
            return await self._handoff.run(find, seen._replace(start=sequence, stop=sequence + 1))

        return await self._in_what_is_kept(get)

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
        """The records from ``start`` up to, not including, ``stop``, in order: ``async for record in store.scan()``.

        Without them: from the first one kept, up to the last one acknowledged when the scan takes its first step; what
        is appended later is not part of it.

        Args:
            since, until: only those that were accepted at ``since`` or later, and before ``until``: an aware datetime, or
                nanoseconds since the epoch. Together with sequences, both must hold.
            relation: only those that carry this label, or every one of several: ``relation=("user:7", "document:42")``.
            any_of: only those that carry at least one of these labels; with ``relation``, both must hold.
            reverse: the newest first.

        Raises TypeError or ValueError for what is no sequence, time or label, and for a start after the stop, in sequences
        or in times. RecordPurgedError, at its first step, for a start that is no longer kept.
        """
        asked, search = checked_range(start, stop, since, until), self._search(relation, any_of)
        self._check_readable()
        return Scan(
            partial(self._narrowed, asked),
            self._handoff,
            seen=self._seen,
            reverse=bool(reverse),
            search=search,
        )

    async def relations(self, prefix: str = "") -> dict[str, int]:
        """The labels that begin with ``prefix``, in order, and how many records carry each.

        Raises TypeError for a prefix that is no text, and what reading raises.
        """
        if not isinstance(prefix, str):
            raise TypeError(f"a prefix of labels is a str, not {type(prefix).__name__}")
        self._check_readable()

        async def count(seen: View) -> dict[str, int]:
            return await self._handoff.run(self._finder.counts, seen, prefix)

        return await self._in_what_is_kept(count)

    def follow(self, start: int | None = None) -> Follow:
        """Every record from ``start`` on, also those that are still to come, each as soon as it is acknowledged::

            async with store.follow(start=1000) as records:
                async for record in records:
                    ...

        Without a start: what is acknowledged from now on. A start that is still to come is waited for. A record is given
        after its own caller has been told, never before. See `Follow` for how it ends, and for what it raises.
        Raises TypeError or ValueError for a start that is no sequence; RecordPurgedError, at its first step, for one that
        is no longer kept.
        """
        if start is not None:
            check_sequence(start, "start")
        self._check_readable()
        return Follow(self._followed(), self.next_sequence if start is None else start)

    def _search(self, relation: str | Iterable[str] | None, any_of: Iterable[str] | None) -> Search | None:
        wanted = checked_wanted(relation, any_of)
        if wanted is None:
            return None
        from aquipu.finding import Search

        return Search(self._finder, wanted)

    async def _narrowed(self, asked: Range) -> View:
        """What may be seen of a range."""
        self._check_readable()

        async def narrow(seen: View) -> View:
            if asked.start is not None:
                if asked.start < seen.start:
                    raise RecordPurgedError(self._path, asked.start, seen.start)
                seen = seen._replace(start=asked.start)
            if asked.stop is not None:
                seen = seen._replace(stop=min(asked.stop, seen.stop))
            if asked.since is not None:
                seen = seen._replace(start=await self._handoff.run(sequence_at, seen, asked.since))
            if asked.until is not None:
                seen = seen._replace(stop=await self._handoff.run(sequence_at, seen, asked.until))
            return seen

        return await self._in_what_is_kept(narrow)

    async def _in_what_is_kept(self, call: Callable[[View], Awaitable[T]]) -> T:
        """Have something done with what may be seen; again, when a purge has removed what it was to read."""
        while True:
            seen = await self._seen()
            try:
                return await call(seen)
            except StoreUnavailableError as error:
                if not isinstance(error.__cause__, FileNotFoundError) or (await self._seen()).start <= seen.start:
                    raise


def checked_range(start: int | None, stop: int | None, since: Time | None, until: Time | None) -> Range:
    """TypeError or ValueError for what is no range."""
    for sequence, name in ((start, "start"), (stop, "stop")):
        if sequence is not None:
            check_sequence(sequence, name)
    if start is not None and stop is not None and start > stop:
        raise ValueError(f"a scan's start ({start}) is not after its stop ({stop})")
    times = None if since is None else nanoseconds(since), None if until is None else nanoseconds(until)
    if times[0] is not None and times[1] is not None and times[0] > times[1]:
        raise ValueError(f"a scan's since ({since}) is not after its until ({until})")
    return Range(start, stop, *times)


def checked_wanted(relation: str | Iterable[str] | None, any_of: Iterable[str] | None) -> Wanted | None:
    """Which labels a record must carry; None when it need carry none. TypeError or ValueError for what is no label."""
    if relation is None and any_of is None:
        return None
    from aquipu.finding import Wanted

    if isinstance(relation, str):
        relation = (relation,)
    wanted = Wanted(*(() if labels is None else checked_relations(labels) for labels in (relation, any_of)))
    for labels, given, name in ((relation, wanted.every, "relation"), (any_of, wanted.any_of, "any_of")):
        if labels is not None and not given:
            raise ValueError(f"{name} takes at least one label; to get every record, leave it out")
    return wanted


def check_sequence(sequence: object, name: str) -> None:
    """TypeError or ValueError for what cannot be one."""
    if not isinstance(sequence, int) or isinstance(sequence, bool):
        raise TypeError(f"{name} is a sequence, a whole number, not {type(sequence).__name__}")
    if sequence < 0:
        raise ValueError(f"{name} is a sequence, from 0 on, not {sequence}")


def nanoseconds(time: object) -> int:
    """A time in nanoseconds since the epoch. TypeError or ValueError for what is none."""
    if isinstance(time, int) and not isinstance(time, bool):
        return time
    from datetime import UTC, datetime, timedelta  # here, because a program that only writes needs none of it

    if not isinstance(time, datetime):
        raise TypeError(f"a time is an aware datetime or nanoseconds since the epoch, not {type(time).__name__}")
    if time.utcoffset() is None:
        raise ValueError(f"a time has a time zone: {time} may be one of many moments")
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
