"""Reading the files of a log: what `Store` and `Reader` give to be read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Protocol, TypeVar

from aquipu.errors import RecordNotWrittenError, RecordPurgedError, StoreUnavailableError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.paths import StrPath, checked_place
from aquipu.local.format.segment import TIME_END
from aquipu.local.keyed import find_keyed, find_number
from aquipu.local.read.follow import Followed, LocalFollow
from aquipu.local.read.scan import LocalScan
from aquipu.local.read.snapshot import Snapshot, find, parts_between
from aquipu.options import OnPurged, Range, Wanted
from aquipu.policy import Stage
from aquipu.reading import Face, LogReader
from aquipu.record import Backup, Known, Position, Receipt, Record
from aquipu.runtime.handoff import Handoff

if TYPE_CHECKING:
    from aquipu.local.index.finder import Finder
    from aquipu.local.index.search import Search

T = TypeVar("T")


class Source(Protocol):
    """The files of a log, as far as they may be read."""

    handoff: Handoff
    finder: Finder

    @property
    def disk(self) -> Disk:
        """The door to it."""

    @property
    def path(self) -> str:
        """The directory."""

    async def snapshot(self) -> Snapshot:
        """Return everything that may be seen now."""

    def followed(self, face: Face) -> Followed:
        """Return what a follower asks; it keeps the face alive."""

    @property
    def next_sequence(self) -> int:
        """One past the last acknowledged record."""

    @property
    def synced_sequence(self) -> int:
        """Everything below is on the disk, as far as this process knows."""

    async def secure(self, sequence: int) -> None:
        """Have everything before a sequence on the disk."""

    async def check_survived(self, generation: bytes, sequence: int) -> None:
        """Raise PositionLostError unless what was read in a generation up to there is there."""


class LocalReader(LogReader):
    """Reads a source for a face."""

    def __init__(self, source: Source, face: Face) -> None:
        self._source = source
        self._face = face

    async def get(self, sequence: int) -> Record:
        path, handoff = self._source.path, self._source.handoff

        async def get(seen: Snapshot) -> Record:
            if sequence < seen.start:
                raise RecordPurgedError(path, sequence, seen.start)
            if sequence >= seen.stop:
                raise RecordNotWrittenError(path, sequence, seen.stop)
            return await handoff.run(find, seen._replace(start=sequence, stop=sequence + 1))

        return await self._in_what_is_kept(get)

    def scan(self, asked: Range, wanted: Wanted | None, *, reverse: bool) -> LocalScan:
        return LocalScan(
            partial(self._narrowed, asked),
            self._source.handoff,
            seen=self._source.snapshot,
            reverse=reverse,
            search=self._search(wanted),
        )

    def follow(
        self, start: int | Position | None, *, earliest: bool, on_purged: OnPurged
    ) -> LocalFollow:
        log = self._source.followed(self._face)
        if earliest:
            return LocalFollow(log, log.first_sequence, earliest=True, on_purged=on_purged)
        following = self._source.next_sequence if start is None else start
        return LocalFollow(log, following, on_purged=on_purged)

    async def relations(self, prefix: str) -> dict[str, int]:
        source = self._source

        async def count(seen: Snapshot) -> dict[str, int]:
            return await source.handoff.run(source.finder.counts, seen, prefix)

        return await self._in_what_is_kept(count)

    async def check_position(self, position: Position) -> None:
        generation = bytes.fromhex(position.generation)
        await self._source.check_survived(generation, position.sequence)

    async def find_commit(self, writer: bytes, number: int, floor: int) -> Receipt | None:
        source = self._source

        async def search(seen: Snapshot) -> Receipt | None:
            since = seen._replace(start=min(max(floor, seen.start), seen.stop))
            found = await source.handoff.run(find_keyed, since, writer, number)
            if found is not None:
                is_synced = found.first_sequence < source.synced_sequence
                stage = Stage.SYNCED if is_synced else Stage.FLUSHED
                return Receipt(found.first_sequence, found.time, stage)
            if floor < seen.start:
                raise RecordPurgedError(source.path, floor, seen.start)
            return None

        return await self._in_what_is_kept(search)

    async def find_number(self, writer: bytes, number: int) -> Known:
        source = self._source

        async def search(seen: Snapshot) -> Known:
            return await source.handoff.run(find_number, seen, source.finder, writer, number)

        return await self._in_what_is_kept(search)

    def _search(self, wanted: Wanted | None) -> Search | None:
        if wanted is None:
            return None
        from aquipu.local.index.search import Search  # only a search pays for it

        return Search(self._source.finder, wanted)

    async def _narrowed(self, asked: Range) -> list[Snapshot]:
        """Return what may be seen of a range, in its parts.

        The times of a log are not always in its order.
        """
        self._face.check_readable()
        path, handoff = self._source.path, self._source.handoff

        async def narrow(seen: Snapshot) -> list[Snapshot]:
            if asked.start is not None:
                if asked.start < seen.start:
                    raise RecordPurgedError(path, asked.start, seen.start)
                seen = seen._replace(start=asked.start)
            if asked.stop is not None:
                seen = seen._replace(stop=min(asked.stop, seen.stop))
            if asked.since is None and asked.until is None:
                return [seen]
            since, until = asked.since or 0, TIME_END if asked.until is None else asked.until
            return await handoff.run(parts_between, seen, since, until)

        return await self._in_what_is_kept(narrow)

    async def backup(self, path: StrPath, *, link: bool, bookmarks: bool) -> Backup:
        from anyio import to_thread

        from aquipu.local.backup.backup import Making, Overtaken, Wish  # only a backup pays for it

        source, stop = self._source, Event()
        wish = Wish(checked_place(path), link, bookmarks)
        making = Making(source.disk, source.path, wish, lambda: source.next_sequence, stop)
        try:
            while True:
                await source.handoff.run(making.prepare)
                seen = await source.snapshot()
                await source.secure(min(seen.stop, source.next_sequence))
                with suppress(Overtaken):
                    # no job of the handoff's: that gives way to what callers wait for
                    call = partial(making.carry_out, seen)
                    return await to_thread.run_sync(call, abandon_on_cancel=True)
        finally:
            stop.set()

    async def _in_what_is_kept(self, call: Callable[[Snapshot], Awaitable[T]]) -> T:
        """Do something with what may be seen; again, when a purge has removed its files."""
        while True:
            seen = await self._source.snapshot()
            try:
                return await call(seen)
            except StoreUnavailableError as error:
                was_purged = isinstance(error.__cause__, FileNotFoundError)
                if not was_purged or (await self._source.snapshot()).start <= seen.start:
                    raise
