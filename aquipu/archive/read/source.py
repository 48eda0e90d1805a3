"""Reading an archive without restoring it: what `Reader.open` gives for the place of one."""

from __future__ import annotations

from asyncio import get_running_loop, sleep

from aquipu.archive.archive import Archive
from aquipu.archive.read.files import ObjectDisk
from aquipu.archive.read.log import LOOK_SECONDS, ArchivedLog
from aquipu.errors import RecordNotWrittenError, StoreClosedError
from aquipu.local.disk.paths import StrPath
from aquipu.local.format.history import NO_GENERATION, check_survived
from aquipu.local.index.finder import Finder
from aquipu.local.log import LocalReader
from aquipu.local.preload import load
from aquipu.local.read.follow import Followed, Recent
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.read.tail import Windows
from aquipu.reading import Cursor, Face, Follow, LogReader
from aquipu.record import Backup, Lag
from aquipu.runtime.handoff import Handoff


class ArchiveSource:
    """The files of an archive, as far as they may be read.

    They are as far behind their log as the archive is, and a second more.
    """

    def __init__(self, log: ArchivedLog, handoff: Handoff) -> None:
        self.log = log
        self.path = log.path
        self.disk: ObjectDisk = log.disk
        self.handoff = handoff
        self.finder = Finder()
        self.windows = Windows()
        self.is_closed = False

    def reader(self, face: Face) -> LogReader:
        return _ArchiveReader(self, face)

    def cursor(self, name: str, face: Face, *, hold: bool) -> Cursor:
        """Raise ValueError: an archive is only read."""
        raise ValueError(
            f"{self.path} is an archive, and keeps no cursor:"
            " keep the position of the consumer with its own results"
        )

    async def cursors(self) -> dict[str, Lag]:
        return {}

    async def holds(self) -> dict[str, int]:
        return {}

    async def aclose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.finder.close(StoreClosedError(self.path))
            self.disk.end()

    async def snapshot(self) -> Snapshot:
        return await self.handoff.run(self.log.look)

    def followed(self, face: Face) -> Followed:
        return _Watch(self, face)

    @property
    def first_sequence(self) -> int:
        return self.log.view.start

    @property
    def next_sequence(self) -> int:
        return self.log.view.stop

    @property
    def synced_sequence(self) -> int:
        return self.log.view.stop

    async def secure(self, sequence: int) -> None:
        """Do nothing: what is archived was synced."""

    @property
    def generation(self) -> bytes:
        history = self.log.history
        return NO_GENERATION if history is None else history.current

    async def check_survived(self, generation: bytes, sequence: int) -> None:
        check_survived(self.path, self.log.history, generation, sequence, self.first_sequence)


class _ArchiveReader(LocalReader):
    """Reads an archive by the calls for the files of a log."""

    def __init__(self, source: ArchiveSource, face: Face) -> None:
        super().__init__(source, face)
        self._url = source.path

    async def backup(self, path: StrPath, *, link: bool, bookmarks: bool) -> Backup:
        """Raise ValueError: its segments are no files, and a restore makes a store of it."""
        url = self._url
        raise ValueError(
            f"{url} is an archive, and is not backed up as the directory of a store is:"
            f" `aquipu restore {url} DIR` makes a store of it; nothing was written"
        )


class _Watch(Followed):
    """An archive as one follower sees it."""

    def __init__(self, source: ArchiveSource, face: Face) -> None:
        self._source = source
        self._face = face
        self._left = False
        self.path, self.disk, self.handoff = source.path, source.disk, source.handoff
        self.windows = source.windows

    def check(self) -> None:
        self._face.check_owner()

    @property
    def first_sequence(self) -> int:
        return self._source.first_sequence

    @property
    def acknowledged(self) -> int:
        return 0 if self._source.is_closed else self._source.next_sequence

    @property
    def generation(self) -> bytes:
        return self._source.generation

    async def move(self, generation: bytes, sequence: int) -> bytes:
        await self._source.check_survived(generation, sequence)
        return self.generation

    def admits(self, start: int) -> bool:
        if start > self._source.next_sequence:
            raise RecordNotWrittenError(self.path, start, self._source.next_sequence)
        return True

    def recent(self, sequence: int) -> Recent | None:
        return None

    def look(self, indexed: bool) -> Snapshot:
        return self._source.log.look()

    async def news(self, sequence: int) -> bool:
        while not self._is_over and self.acknowledged <= sequence:
            await sleep(LOOK_SECONDS)
            if not self._is_over:
                await self.handoff.run(self._source.log.look)
        return not self._is_over

    @property
    def _is_over(self) -> bool:
        return self._left or self._source.is_closed

    def joined(self, follower: Follow) -> None:
        pass

    def left(self, follower: Follow) -> None:
        self._left = True


async def open_source(archive: Archive) -> ArchiveSource:
    """Open an archive for reading; see `Reader.open`.

    Raises NoArchiveError, ArchiveUnavailableError, ArchiveDamagedError, UnsupportedFormatError.
    """
    handoff = Handoff(get_running_loop())
    await load(handoff)
    disk = ObjectDisk(await handoff.run(archive.bucket))
    try:
        return ArchiveSource(await handoff.run(ArchivedLog, disk), handoff)
    except BaseException:  # cancelled, most likely: the thread goes on to ask, unless it is ended
        disk.end()
        raise
