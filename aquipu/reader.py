"""Reader: a log that another process writes, or none.

It takes no lock and writes nothing, and sees exactly what has been acknowledged: see `Catalog`. A
follower looks at the page that the writer shares: every millisecond while something comes, less and
less often (20 ms) when nothing does. That costs no thread and one short read, which takes about a
microsecond.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop, sleep
from functools import partial
from time import monotonic, time_ns
from typing import TYPE_CHECKING, Protocol, cast

from aquipu.errors import RecordNotWrittenError, StoreClosedError
from aquipu.local.cursor import LocalCursor, hold_beside_writer, lags
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.paths import StrPath, absolute, address_in, database_in, is_archive
from aquipu.local.index.finder import Finder
from aquipu.local.log import LocalReader
from aquipu.local.preload import load
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.follow import Followed, Recent
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.read.tail import Windows
from aquipu.local.retain.bookmarks import holds
from aquipu.reading import Cursor, Face, Follow, LogReader, Readable
from aquipu.record import Lag
from aquipu.runtime.closing import Closing, Opening
from aquipu.runtime.handoff import Handoff

if TYPE_CHECKING:
    from aquipu.archive.archive import Archive
    from aquipu.archive.read.joined import Joined
    from aquipu.postgres.address import Address

_PAUSE = 0.001  # seconds between two looks at the progress page, growing
_PAUSE_GROWS = 1.25
_PAUSE_MAX = 0.02
_PAGE_PAUSE = 1.0
"""Seconds between two looks whether the progress page is still the same file.

Only a writer that found none makes another.
"""


class Source(Protocol):
    """A log that is read and not written: files, an archive, or tables of a database."""

    @property
    def path(self) -> str:
        """What it is called in errors."""

    @property
    def is_closed(self) -> bool: ...

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record kept."""

    @property
    def next_sequence(self) -> int:
        """One past the last acknowledged record."""

    @property
    def generation(self) -> bytes:
        """Generation that it is in."""

    def reader(self, face: Face) -> LogReader:
        """Return what can be read; it keeps the face."""

    def cursor(self, name: str, face: Face, *, hold: bool) -> Cursor:
        """Return the place of a consumer; see `Reader.cursor`."""

    async def cursors(self) -> dict[str, Lag]:
        """Return how far each cursor is behind, by name."""

    async def holds(self) -> dict[str, int]:
        """Return the holds by name."""

    async def aclose(self) -> None:
        """Let go of the log and end its followers; do nothing the second time."""


class Reader(Readable, Closing):
    """A log for reading, in any process.

    Made by `Reader.open`; belongs to the event loop that opened it.

    It goes on while the writer rolls, purges, dies and is started anew, and when there is none.
    What it sees has been acknowledged, and is never a commit under way.
    """

    def __init__(self, source: Source, loop: AbstractEventLoop) -> None:
        """Prepare a reader; not called by users: `Reader.open` does."""
        super().__init__(source.path, loop)
        self._source = source

    @staticmethod
    def open(
        path: StrPath | Archive, *, archive: Archive | None = None, disk: Disk | None = None
    ) -> Opening[Reader]:
        """Open the store in the directory ``path`` for reading; await it, or enter it::

            async with Reader.open("audit") as reader:
                async for record in reader.scan(): ...

        ``postgresql://HOST/DATABASE?log=NAME`` is a log in a database: see `Store.open`. It may be
        on a standby.

        ``s3://BUCKET/PREFIX``, or an `Archive`, is a log in an object store, which is read without
        being restored ([how](archive/README.md)): it is behind its log by a second or two. With a
        directory, ``archive`` is where to read what has been purged there, when that is asked for
        by its sequence.

        Raises (when awaited or entered): NotAStoreError, also where nothing is yet;
        UnsupportedFormatError; CorruptionError; StoreUnavailableError. ValueError at once for the
        address of a daemon, and for what is no place at all.
        """
        if is_archive(path):
            return _opening_archive(cast("str | Archive", path))
        path = cast("StrPath", path)
        address = address_in(path)
        if address is not None:
            raise ValueError(
                f"{address} is a daemon, and a Reader reads the files of a store: open its"
                f" directory here, or use Store.connect({address!r}), which reads by the same calls"
            )
        database = database_in(path)
        if database is not None:
            return _opening_database(database)
        disk = Disk() if disk is None else disk
        return Opening(partial(_open, absolute(path), disk, archive))

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record kept, as far as it was looked."""
        return self._source.first_sequence

    @property
    def next_sequence(self) -> int:
        """One past the last acknowledged record, as far as it was looked."""
        return self._source.next_sequence

    @property
    def generation(self) -> str:
        """The generation of the log: see `Store.generation`."""
        return self._source.generation.hex()

    def cursor(self, name: str, *, hold: bool = False) -> Cursor:
        """Return the place of a consumer, kept under this name: see `Cursor`.

        Its file, and that of its ``hold``, are the only ones that a Reader ever writes. TypeError
        or ValueError for what is no name; ValueError for an archive, which keeps none.
        """
        return self._source.cursor(name, self._face, hold=hold)

    async def cursors(self) -> dict[str, Lag]:
        """Return how far each consumer is behind, by the name of its cursor: see `Store.cursors`.

        A cursor that does not check is left out. Raises what reading raises.
        """
        self._check_readable()
        return await self._source.cursors()

    async def holds(self) -> dict[str, int]:
        """Return the holds by name: see `Store.holds`. Raises what that raises."""
        self._check_readable()
        return await self._source.holds()

    async def aclose(self) -> None:
        """Let go of the log and end its followers; do nothing the second time."""
        await self._source.aclose()

    def __repr__(self) -> str:
        return (
            f"<Reader {self._path!r} {'closed' if self._source.is_closed else 'open'}"
            f" next_sequence={self.next_sequence}>"
        )

    def _check_readable(self) -> None:
        self._check_owner()
        if self._source.is_closed:
            raise StoreClosedError(self._path)

    @property
    def _face(self) -> Face:
        return Face(self._check_owner, self._check_readable)

    @property
    def _reader(self) -> LogReader:
        return self._source.reader(self._face)


class _Files:
    """The files of a log that is read and not written."""

    def __init__(self, path: str, disk: Disk, handoff: Handoff, catalog: Catalog) -> None:
        self.path = path
        self.disk = disk
        self.handoff = handoff
        self.catalog = catalog
        self.finder = Finder()
        self.windows = Windows()
        self.joined: Joined | None = None  # with an archive
        self.is_closed = False

    def reader(self, face: Face) -> LogReader:
        if self.joined is not None:
            from aquipu.archive.read.joined import JoinedReader

            return JoinedReader(self, face, self.joined)
        return LocalReader(self, face)

    def cursor(self, name: str, face: Face, *, hold: bool) -> Cursor:
        return LocalCursor(name, self, self.catalog.store_id, face.check_readable, hold=hold)

    async def cursors(self) -> dict[str, Lag]:
        seen, store_id = await self.snapshot(), self.catalog.store_id
        return await self.handoff.run(lags, self.path, store_id, seen, time_ns())

    async def holds(self) -> dict[str, int]:
        return await self.handoff.run(holds, self.disk, self.path, self.catalog.store_id)

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.finder.close(StoreClosedError(self.path))
            if self.joined is not None:
                self.joined.close()
            self.catalog.close()

    async def snapshot(self) -> Snapshot:
        return await self.handoff.run(self.catalog.look)

    def followed(self, face: Face) -> Followed:
        return _Watch(self, face)

    @property
    def next_sequence(self) -> int:
        return self.catalog.acknowledged

    @property
    def first_sequence(self) -> int:
        return self.catalog.first_sequence

    @property
    def synced_sequence(self) -> int:
        return 0  # only the writer knows

    @property
    def generation(self) -> bytes:
        return self.catalog.generation

    async def check_survived(self, generation: bytes, sequence: int) -> None:
        await self.handoff.run(self.catalog.move, generation, sequence)

    check_there = check_survived  # it says so, too, of what lies beyond the end

    async def secure(self, sequence: int) -> None:
        await self.handoff.run(self.catalog.sync, sequence)

    async def hold(self, name: str, sequence: int) -> None:
        set_hold = partial(hold_beside_writer, self.disk, self.path, name, sequence)
        while not await self.handoff.run(set_hold):  # noqa: ASYNC110 - another process is at it
            await sleep(_PAUSE)


class _Watch(Followed):
    """A log as one follower of a Reader sees it."""

    def __init__(self, files: _Files, face: Face) -> None:
        self._files = files
        self._face = face
        self._left = False
        self.path, self.disk, self.handoff = files.path, files.disk, files.handoff
        self.windows = files.windows

    def check(self) -> None:
        self._face.check_owner()

    @property
    def first_sequence(self) -> int:
        return self._files.catalog.first_sequence

    @property
    def acknowledged(self) -> int:
        return 0 if self._files.is_closed else self._files.catalog.acknowledged

    @property
    def generation(self) -> bytes:
        return self._files.catalog.generation

    async def move(self, generation: bytes, sequence: int) -> bytes:
        return await self.handoff.run(self._files.catalog.move, generation, sequence)

    def admits(self, start: int) -> bool:
        segments = self._files.catalog
        if not segments.is_led:
            return start <= segments.acknowledged
        if start > segments.acknowledging:
            raise RecordNotWrittenError(self.path, start, segments.acknowledging)
        return True

    def recent(self, sequence: int) -> Recent | None:
        return None

    def look(self, indexed: bool) -> Snapshot:
        return self._files.catalog.look(indexed=indexed)

    async def news(self, sequence: int) -> bool:
        segments = self._files.catalog
        pause, page_looked_at, was = _PAUSE, monotonic(), (segments.is_led, segments.generation)
        while not self._is_over:
            await sleep(pause)
            if (
                self._is_over
                or self.acknowledged > sequence
                or (segments.is_led, segments.generation) != was
            ):
                break
            pause = min(pause * _PAUSE_GROWS, _PAUSE_MAX)
            if not segments.is_led or monotonic() - page_looked_at > _PAGE_PAUSE:
                await self.handoff.run(partial(segments.look, indexed=False))
                page_looked_at = monotonic()
        return not self._is_over

    @property
    def _is_over(self) -> bool:
        return self._left or self._files.is_closed

    def joined(self, follower: Follow) -> None:
        pass

    def left(self, follower: Follow) -> None:
        self._left = True


def _opening_database(database: str) -> Opening[Reader]:
    from aquipu.postgres.address import address_of  # here: a local store needs none of it

    return Opening(partial(_open_database, address_of(database)))


async def _open_database(address: Address) -> Reader:
    from aquipu.postgres.opening import open_source

    return Reader(await open_source(address), get_running_loop())


def _opening_archive(place: str | Archive) -> Opening[Reader]:
    from aquipu.archive.archive import Archive  # here: a local store needs none of it

    return Opening(partial(_open_archive, place if isinstance(place, Archive) else Archive(place)))


async def _open_archive(archive: Archive) -> Reader:
    from aquipu.archive.read.source import open_source

    return Reader(await open_source(archive), get_running_loop())


async def _open(path: str, disk: Disk, archive: Archive | None) -> Reader:
    loop = get_running_loop()
    handoff = Handoff(loop)
    await load(handoff)
    files = _Files(path, disk, handoff, await handoff.run(Catalog, disk, path))
    if archive is not None:
        from aquipu.archive.read.files import ObjectDisk
        from aquipu.archive.read.joined import Joined

        files.joined = Joined(files, lambda: ObjectDisk(archive.bucket()))
    return Reader(files, loop)
