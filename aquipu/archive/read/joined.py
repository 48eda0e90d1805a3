"""A log whose purged records are read from its archive, by the same calls.

Only what is asked for by a sequence that the store does not keep any more goes there. So nothing
that the store itself has ever waits for an object store.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from aquipu.archive.errors import ArchiveRefusedError
from aquipu.archive.format.plan import another_store, not_before
from aquipu.archive.read.files import FIRST_NUMBER, ObjectDisk
from aquipu.archive.read.log import ArchivedLog
from aquipu.errors import StoreClosedError
from aquipu.local.disk.disk import Disk
from aquipu.local.format.segment import SegmentHeader
from aquipu.local.index.finder import Finder
from aquipu.local.log import LocalReader, Source
from aquipu.local.read.follow import Followed, Recent
from aquipu.local.read.scan import LocalScan
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.read.tail import Windows
from aquipu.options import OnPurged, Range, Wanted
from aquipu.reading import Face, Follow
from aquipu.record import Position, Record

T = TypeVar("T")


class KeptLog(Source, Protocol):
    """The files of a log that keeps its newest records."""

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record kept."""


def join(kept: Snapshot, archived: Snapshot, disk: Disk) -> Snapshot | None:
    """Return what may be seen of both: the archive, and from where the log begins on, the log.

    None when the archive does not reach up to there.
    """
    first = kept.segments[0].first_sequence
    older = [one for one in archived.segments if one.first_sequence < first]
    if not older:
        return kept._replace(disk=disk)
    if archived.end_of(older[-1]) != first:
        return None
    return Snapshot(disk, (*older, *kept.segments), archived.start, kept.stop)


class _JoinedDisk:
    """The disk of a log, and the files of its archive; those that are purged are taken there."""

    def __init__(self, kept: Disk, archived: ObjectDisk) -> None:
        self._kept = kept
        self._archived = archived

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    def open(self, path: str) -> int:
        return self._opened(path, lambda disk, path: disk.open(path))

    def open_stream(self, path: str) -> BinaryIO:
        return self._opened(path, lambda disk, path: disk.open_stream(path))

    def _opened(self, path: str, call: Callable[[Disk, str], T]) -> T:
        if path in self._archived.files:
            return call(self._archived, path)
        try:
            return call(self._kept, path)
        except FileNotFoundError:
            there = self._there(path)
            if there not in self._archived.files:
                raise
            return call(self._archived, there)

    def exists(self, path: str) -> bool:
        files = self._archived.files
        return path in files or self._kept.exists(path) or self._there(path) in files

    def _there(self, path: str) -> str:
        return f"{self._archived.bucket.url}/{path.rpartition('/')[2]}"

    def _of(self, descriptor: int) -> Disk:
        return self._archived if descriptor >= FIRST_NUMBER else self._kept

    def close(self, descriptor: int) -> None:
        self._of(descriptor).close(descriptor)

    def size(self, descriptor: int) -> int:
        return self._of(descriptor).size(descriptor)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        return self._of(descriptor).read(descriptor, size, offset)

    def read_cached(self, descriptor: int, size: int, offset: int) -> bytes | None:
        return self._of(descriptor).read_cached(descriptor, size, offset)

    def try_hold(self, descriptor: int, *, exclusive: bool = False) -> bool:
        return self._of(descriptor).try_hold(descriptor, exclusive=exclusive)


class Joined:
    """A log and its archive, as one source; the archive is opened when it is first needed."""

    def __init__(self, kept: KeptLog, reached: Callable[[], ObjectDisk]) -> None:
        """Take the log, and what reaches the archive: blocking, and not asking it yet."""
        self._kept = kept
        self._reached = reached
        self._archived: ObjectDisk | None = None
        self._log: ArchivedLog | None = None
        self._follows: SegmentHeader | None = None  # found to follow what is archived
        self._is_closed = False
        self._lock = Lock()  # of reaching it: several threads may look
        self.handoff = kept.handoff
        self.finder = Finder()
        self.windows = Windows()

    def close(self) -> None:
        """Let go of the archive, also while it is being opened."""
        self._is_closed = True
        self.finder.close(StoreClosedError(self._kept.path))
        if self._archived is not None:
            self._archived.end()

    @property
    def path(self) -> str:
        return self._kept.path

    @property
    def disk(self) -> Disk:
        log = self._log
        assert log is not None, "it was looked at"
        return cast(Disk, _JoinedDisk(self._kept.disk, log.disk))

    async def snapshot(self) -> Snapshot:
        kept = await self._kept.snapshot()
        return await self.handoff.run(self.seen, kept)

    def seen(self, kept: Snapshot) -> Snapshot:
        """Return what may be seen of both; only the log where they do not meet. Blocking.

        Raises ArchiveRefusedError for an archive of something else, and what reading it raises.
        """
        if self._log is None:
            self._log = self._opened()
        header, log = kept.segments[0].header, self._log
        if header.store_id != log.store_id:
            reason = another_store(log.store_id, header.store_id)
            raise ArchiveRefusedError(log.path, reason)
        found = join(kept, log.view, self.disk) or join(kept, log.look(), self.disk)
        if found is None:
            return kept._replace(disk=self.disk)
        if found.start < kept.start and header != self._follows:
            self._check_follows(header, log)
        return found

    def _check_follows(self, header: SegmentHeader, log: ArchivedLog) -> None:
        """Raise ArchiveRefusedError for an archive that the first segment here does not follow."""
        if not log.goes_before(header):
            raise ArchiveRefusedError(log.path, not_before(header.first_sequence))
        self._follows = header

    def _opened(self) -> ArchivedLog:
        with self._lock:
            if self._archived is None:
                self._archived = self._reached()
            disk = self._archived
        if self._is_closed:  # looked at behind that: whoever closes it ends what is there
            disk.end()
        return ArchivedLog(disk)

    def followed(self, face: Face) -> Followed:
        return _Followed(self, self._kept.followed(face))

    @property
    def next_sequence(self) -> int:
        return self._kept.next_sequence

    @property
    def synced_sequence(self) -> int:
        return self._kept.synced_sequence

    async def secure(self, sequence: int) -> None:
        await self._kept.secure(sequence)

    async def check_survived(self, generation: bytes, sequence: int) -> None:
        await self._kept.check_survived(generation, sequence)


class _Followed(Followed):
    """A log and its archive as a follower sees them that begins in the archive."""

    def __init__(self, joined: Joined, kept: Followed) -> None:
        self._joined = joined
        self._kept = kept
        self.path, self.handoff, self.windows = kept.path, kept.handoff, joined.windows

    @property
    def disk(self) -> Disk:  # type: ignore[override]
        return self._joined.disk

    def check(self) -> None:
        self._kept.check()

    @property
    def first_sequence(self) -> int:
        return 0  # what is purged is there

    @property
    def acknowledged(self) -> int:
        return self._kept.acknowledged

    @property
    def generation(self) -> bytes:
        return self._kept.generation

    async def move(self, generation: bytes, sequence: int) -> bytes:
        return await self._kept.move(generation, sequence)

    def admits(self, start: int) -> bool:
        return self._kept.admits(start)

    def recent(self, sequence: int) -> Recent | None:
        return self._kept.recent(sequence)

    def look(self, indexed: bool) -> Snapshot:
        return self._joined.seen(self._kept.look(indexed))

    async def news(self, sequence: int) -> bool:
        return await self._kept.news(sequence)

    def joined(self, follower: Follow) -> None:
        self._kept.joined(follower)

    def left(self, follower: Follow) -> None:
        self._kept.left(follower)


class JoinedReader(LocalReader):
    """Reads a log, and what it does not keep any more from its archive."""

    def __init__(self, kept: KeptLog, face: Face, joined: Joined) -> None:
        super().__init__(kept, face)
        self._kept = kept
        self._both = LocalReader(joined, face)

    async def get(self, sequence: int) -> Record:
        if sequence < self._kept.first_sequence:
            return await self._both.get(sequence)
        return await super().get(sequence)

    def scan(self, asked: Range, wanted: Wanted | None, *, reverse: bool) -> LocalScan:
        if asked.start is not None and asked.start < self._kept.first_sequence:
            return self._both.scan(asked, wanted, reverse=reverse)
        return super().scan(asked, wanted, reverse=reverse)

    def follow(self, start: int | Position | None, *, earliest: bool, on_purged: OnPurged) -> Any:
        sequence = start.sequence if isinstance(start, Position) else start
        if sequence is not None and sequence < self._kept.first_sequence:
            return self._both.follow(start, earliest=earliest, on_purged=on_purged)
        return super().follow(start, earliest=earliest, on_purged=on_purged)
