"""A store made of an archive, every byte checked. Blocking.

As in a backup, each segment comes to its place whole and durable, in the order of the log, and its
successor has its name before. So a restore that was cut short goes on where it was: what is there
is read, and only what is not as it should be is fetched. Until it is done, the manifest says that
it is not, and nothing opens it: a service that did so would go on where the log does not end.

One that was done, and whose process ended before it said so, is done again, or goes on with what
the archive holds by now: nothing that is there is given up.

A commit is restored whole, or not at all: so the last record is that of the last commit which lies
before the bound. (In a compressed segment commits are not told apart: it is the last record there.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha256
from threading import Event
from time import monotonic
from typing import NamedTuple, TypeVar

from aquipu.archive.bucket import Bucket, insist
from aquipu.archive.errors import ArchiveDamagedError, NothingBeforeError
from aquipu.archive.fetch import (
    State,
    fetch_segment,
    fetch_young,
    read_bookmarks,
    read_object,
    read_state,
)
from aquipu.archive.format.entry import Head, Segment
from aquipu.archive.format.pieces import Cut, begins_with, begun, cut
from aquipu.errors import (
    BackupRefusedError,
    CorruptionError,
    RecordNotWrittenError,
    RecordPurgedError,
)
from aquipu.local.backup.destination import Destination
from aquipu.local.backup.pace import Stopped
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.durable import reported, write_whole
from aquipu.local.format.names import (
    ACKNOWLEDGED,
    bookmark_of,
    first_sequence_of,
    relations_name,
    segment_name,
)
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.retain.bookmarks import write_encoded

T = TypeVar("T")

_AHEAD = 2  # segments that are fetched while one is checked and written


class Until(NamedTuple):
    """Up to where a store is restored: before a sequence, or a time in nanoseconds, or both."""

    sequence: int | None = None
    time: int | None = None

    def admits(self, next_sequence: int, time: int) -> bool:
        """Return whether a commit is restored that ends before a sequence, and has this time."""
        if self.sequence is not None and next_sequence > self.sequence:
            return False
        return self.time is None or time < self.time


class Restored(NamedTuple):
    """What a restore has made."""

    path: str
    first_sequence: int
    next_sequence: int
    """One past the last record."""
    last_timestamp: int | None
    """When the last record was accepted, nanoseconds since the epoch; None without any."""
    segments: int
    bytes: int
    """Bytes of the log, fetched or found there."""
    fetched_bytes: int
    seconds: float


def wholly_admitted(segments: list[Segment], until: Until) -> int:
    """Return how many of the segments are restored whole: the others come after the bound."""
    count = 0
    for segment in segments:
        if not until.admits(segment.next_sequence, segment.last_time):
            break
        count += 1
    return count


def successor_of(segment: Segment, store_id: bytes) -> SegmentHeader:
    """Return a header for the segment behind the last one that is archived."""
    created = segment.last_time or segment.created
    return SegmentHeader(store_id, segment.next_sequence, created, segment.link)


class _Found(NamedTuple):
    """What an archive holds, with what is named only for a while."""

    state: State
    young: tuple[SegmentHeader, bytes] | None
    """The segment that was being written, if records of it are archived and wanted."""
    bookmarks: dict[str, bytes]


class _Last(NamedTuple):
    """The last segment of what is restored, in which a writer goes on."""

    header: SegmentHeader
    cut: Cut


class Restoring:
    """One restore; ``progress`` is called with the bytes that are done."""

    def __init__(
        self,
        bucket: Bucket,
        disk: Disk,
        path: str,
        until: Until,
        stop: Event,
        progress: Callable[[int], object] = lambda size: None,
        *,
        bookmarks: bool = True,
    ) -> None:
        """Prepare it; ``bookmarks`` says whether holds and cursors come along."""
        self._bucket = bucket.until(stop)
        self._disk = disk
        self._path = path
        self._until = until
        self._stop = stop
        self._progress = progress
        self._wants_bookmarks = bookmarks
        self._is_kept = False  # a store is there that was restored whole: it may only grow
        self._bytes = self._fetched = 0

    def carry_out(self) -> Restored:
        """Restore the store.

        Raises NoArchiveError, NothingBeforeError, ArchiveDamagedError, ArchiveUnavailableError,
        UnsupportedFormatError, RecordPurgedError or RecordNotWrittenError for a bound that is not
        in the archive, RecordPurgedError also for a purge of it meanwhile, BackupRefusedError and
        what `Destination` raises for the place, StoreUnavailableError, for lack of space for
        example, and Stopped.
        """
        began = monotonic()
        found = self._ask(self._find)
        head, segments = found.state
        self._check_bound(head)
        count = wholly_admitted(segments, self._until)
        last = self._last(found, count)
        self._check_any(found, last, count)
        with reported(self._path, "restore to"):
            to = Destination(self._disk, self._path, head.store_id, self._check)
            try:
                self._is_kept = self._holds_whole(to)
                self._carry_out(to, found, last, count)
                self._write_bookmarks(to, found.bookmarks)
                to.finish(last.cut.next_sequence)
            finally:
                to.close()
        return Restored(
            self._path,
            head.first_sequence,
            last.cut.next_sequence,
            last.cut.last_time or (segments[count - 1].last_time if count else None),
            count + 1,
            self._bytes,
            self._fetched,
            monotonic() - began,
        )

    def _find(self) -> _Found:
        """Read what may be put anew any moment: after Outdated, this is to be called again."""
        head, segments = state = read_state(self._bucket)
        is_wanted = head.young and wholly_admitted(segments, self._until) == len(segments)
        return _Found(
            state,
            fetch_young(self._bucket, head) if is_wanted else None,
            read_bookmarks(self._bucket, head) if self._wants_bookmarks else {},
        )

    def _check_bound(self, head: Head) -> None:
        sequence, url = self._until.sequence, self._bucket.url
        if sequence is not None and sequence < head.first_sequence:
            raise RecordPurgedError(url, sequence, head.first_sequence)
        if sequence is not None and sequence > head.next_sequence:
            raise RecordNotWrittenError(url, sequence, head.next_sequence)

    def _holds_whole(self, to: Destination) -> bool:
        """Return whether a store is there that is restored; refuse one that was opened since."""
        if ACKNOWLEDGED in to.names():
            raise BackupRefusedError(self._path, "it holds a store already")
        manifest = to.manifest
        if manifest is None or manifest.is_unfinished:
            return False
        return manifest.synced_sequence > manifest.first_sequence

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped

    def _carry_out(self, to: Destination, found: _Found, last: _Last, count: int) -> None:
        """Restore so many segments, and the last one."""
        head, segments = found.state
        header, data = last.header, last.cut.data
        store_id = head.store_id
        headers = [one.header(store_id) for one in segments[:count]] + [header]
        firsts = [one.first_sequence for one in headers]
        if self._is_kept:
            self._check_kept(to, firsts)
            self._check_grows(header, data)
        self._clear(to, set(firsts))
        to.begin(headers[0], is_unfinished=True)
        for number, fetched in enumerate(self._fetched_ahead(store_id, segments[:count])):
            to.name_empty(headers[number + 1])
            if fetched is not None:
                self._write(segment_name(headers[number].first_sequence), fetched)
            self._write_table(store_id, segments[number])
            self._count(segments[number].size)
        self._write(segment_name(header.first_sequence), data)
        self._count(len(data))
        to.disown(head.history())

    def _check_kept(self, to: Destination, firsts: list[int]) -> None:
        """Refuse a restore of segments among which those are not that the store there has."""
        is_same = to.manifest is not None and to.manifest.first_sequence == firsts[0]
        others = {name for name in to.names() if first_sequence_of(name) not in [None, *firsts]}
        if not is_same or not all(map(self._is_empty, others)):
            raise self._refused()

    def _is_empty(self, name: str) -> bool:
        with opened(self._disk, f"{self._path}/{name}") as descriptor:
            return self._disk.size(descriptor) <= SEGMENT_HEADER_BYTES

    def _check_grows(self, header: SegmentHeader, data: bytes) -> None:
        """Refuse a restore that takes records from a segment of the store that is there."""
        if self._is_kept:
            name = segment_name(header.first_sequence)
            there = self._there(name)
            if there and not begins_with(f"{self._path}/{name}", header, data, there):
                raise self._refused()

    def _refused(self) -> BackupRefusedError:
        reason = "it holds a store already, which is not the beginning of what is restored"
        return BackupRefusedError(self._path, reason)

    def _clear(self, to: Destination, wanted: set[int]) -> None:
        """Remove segments that an earlier restore, cut short, with another bound, has left."""
        for name in sorted(to.names(), reverse=True):
            first = first_sequence_of(name)
            if first is not None and first not in wanted:
                self._disk.remove(f"{self._path}/{name}")

    def _last(self, found: _Found, count: int) -> _Last:
        """Return the segment that will be written on."""
        head, segments = found.state
        if count < len(segments):
            segment = segments[count]
            header = segment.header(head.store_id)
            if not self._until.admits(segment.first_sequence + 1, segment.first_time):
                return _Last(header, Cut(header.encode(), header.first_sequence))
            data, said = self._ask(lambda: fetch_segment(self._bucket, head.store_id, segment))
            data = data[: said.end]
        elif found.young is not None:
            header, data = found.young
        elif segments:
            header = successor_of(segments[-1], head.store_id)
            return _Last(header, Cut(begun(header), header.first_sequence))
        else:
            first = SegmentHeader(head.store_id, head.base, 0, 0)
            header = first._replace(link=first.seed)
            return _Last(header, Cut(header.encode(), header.first_sequence))
        self._fetched += len(data)
        try:
            return _Last(header, cut(self._bucket.url, header, data, self._until.admits))
        except CorruptionError as error:
            raise ArchiveDamagedError(self._bucket.url, error.reason) from None

    def _check_any(self, found: _Found, last: _Last, count: int) -> None:
        """Refuse a time before the first record: an empty store is not what was asked for."""
        head = found.state.head
        if count or last.cut.next_sequence > head.first_sequence or self._until.time is None:
            return
        if head.next_sequence > head.first_sequence:
            reason = f"its first record, sequence {head.first_sequence}, came later"
            raise NothingBeforeError(self._bucket.url, reason)

    def _fetched_ahead(self, store_id: bytes, segments: list[Segment]) -> Iterator[bytes | None]:
        """Yield the bytes of each segment, checked; None when they are there already."""
        with ExitStack() as stack:
            pool = ThreadPoolExecutor(_AHEAD)
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
            ahead: deque[Future[bytes | None]] = deque()
            for segment in segments:
                ahead.append(pool.submit(self._missing, store_id, segment))
                if len(ahead) > _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _missing(self, store_id: bytes, segment: Segment) -> bytes | None:
        name = segment_name(segment.first_sequence)
        if sha256(self._there(name)).digest() == segment.sha256:
            return None
        data, _ = self._ask(lambda: fetch_segment(self._bucket, store_id, segment))
        self._fetched += segment.stored
        self._check_grows(segment.header(store_id), data)
        return data

    def _there(self, name: str) -> bytes:
        """Return the bytes of a file of the restored store, none when there is no such file."""
        path = f"{self._path}/{name}"
        if not self._disk.exists(path):
            return b""
        with opened(self._disk, path) as descriptor:
            return self._disk.read(descriptor, self._disk.size(descriptor), 0)

    def _write_table(self, store_id: bytes, segment: Segment) -> None:
        key = segment.table_key(store_id)
        name = relations_name(segment.first_sequence)
        if key is not None and not self._disk.exists(f"{self._path}/{name}"):
            table = key
            self._write(name, self._ask(lambda: read_object(self._bucket, table)))

    def _write(self, name: str, data: bytes) -> None:
        self._check()
        write_whole(self._disk, f"{self._path}/{name}", data)

    def _write_bookmarks(self, to: Destination, bookmarks: dict[str, bytes]) -> None:
        """Set the holds and cursors, and no others, which one that was cut short may have left."""
        for name in to.names() - bookmarks.keys():
            if bookmark_of(name) is not None:
                self._disk.remove(f"{self._path}/{name}")
        write_encoded(self._disk, self._path, bookmarks)

    def _count(self, size: int) -> None:
        self._bytes += size
        self._progress(size)

    def _ask(self, call: Callable[[], T]) -> T:
        return insist(self._bucket, call, self._stop)
