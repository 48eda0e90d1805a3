"""Destination: the directory of a backup, locked, and what it holds. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic, sleep

from aquipu.errors import AquipuError, BackupRefusedError, CorruptionError, StoreLockedError
from aquipu.local.backup.plan import Ended, Held, Place
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.durable import sync_directory, write_whole
from aquipu.local.disk.lock import Lock, holder_of
from aquipu.local.disk.paths import is_within
from aquipu.local.format.history import NO_GENERATION, Ending, History, Mark, encoded
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import (
    ACKNOWLEDGED,
    HISTORY,
    MANIFEST,
    first_sequence_of,
    is_unnamed,
    segment_name,
)
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.read.frames import SegmentEnd, find_end
from aquipu.local.read.segment_reader import SegmentReader, SegmentRef, read_footer, read_header
from aquipu.local.retain.manifest import read_manifest, write_manifest
from aquipu.local.write.recovery import check_place

_LOCK_SECONDS = 20.0  # that another backup, or a client that asks twice, is waited for
_LOCK_PAUSE = 0.05
_UNKNOWN_LIFE = bytes(16)


def check_apart(store: str, path: str) -> None:
    """Raise BackupRefusedError for a place within the store, or around it."""
    if is_within(path, store):
        raise BackupRefusedError(path, f"it lies within the store, {store}")
    if is_within(store, path):
        raise BackupRefusedError(path, f"the store lies within it: {store}")


class Destination:
    """The directory of a backup, until `close`; no other process writes it."""

    def __init__(self, disk: Disk, path: str, store_id: bytes, check: Callable[[], None]) -> None:
        """Make the directory if need be, and lock it. ``check`` may raise to end the waiting.

        Raises NotAStoreError, BackupRefusedError for a backup of another store, CorruptionError,
        UnsupportedFormatError, StoreLockedError, StoreUnavailableError or OSError.
        """
        self.path = path
        self._disk = disk
        self._store_id = store_id
        around = _store_around(disk, path)
        if around is not None:
            raise BackupRefusedError(path, f"it lies within the store, {around}")
        check_place(disk, path)
        self._check_store()
        self._lock = _locked(disk, path, check)
        try:
            self._check_store()  # it may have become one meanwhile
            self.manifest = self._cleared()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the directory."""
        self._lock.release()

    def _check_store(self) -> None:
        if self._disk.exists(f"{self.path}/{MANIFEST}"):
            found = read_manifest(self._disk, self.path).store_id
            if found != self._store_id:
                raise BackupRefusedError(
                    self.path, f"it holds another store, {found.hex()}, not {self._store_id.hex()}"
                )

    def _cleared(self) -> Manifest | None:
        """Remove what an earlier backup has left unfinished; return the manifest, if there is one.

        Without one there is at most the segment that was to be the first, still empty.
        """
        disk, path = self._disk, self.path
        names = disk.list(path)
        if MANIFEST not in names:
            for name in names:
                if first_sequence_of(name) is not None:
                    with opened(disk, f"{path}/{name}") as descriptor:
                        if disk.size(descriptor) > SEGMENT_HEADER_BYTES:
                            raise CorruptionError(
                                f"{path}/{MANIFEST}", 0, "the manifest is missing"
                            )
                    disk.remove(f"{path}/{name}")
        for name in names:
            if is_unnamed(name):
                disk.remove(f"{path}/{name}")
        sync_directory(disk, path)  # a process may have died between making a name and this
        return read_manifest(disk, path) if MANIFEST in names else None

    def names(self) -> set[str]:
        """Return the names of the files in it."""
        return set(self._disk.list(self.path))

    # what it holds

    def held(self, store: Mapping[int, Held]) -> list[Held]:
        """Return the segments that are here, in the order of the log.

        Those that are not as in the ``store`` are read, for the last frame that holds records.
        """
        if self.manifest is None:
            return []
        begin = self.manifest.first_sequence
        firsts = sorted(
            first
            for name in self.names()
            if (first := first_sequence_of(name)) is not None and first >= begin
        )
        return [self._held(first, store.get(first)) for first in firsts]

    def _held(self, first: int, same: Held | None) -> Held:
        with self.opened(first) as reader:
            header, footer = reader.ref.header, None
            with suppress(CorruptionError):  # it is copied anew
                footer = read_footer(self._disk, reader.descriptor, reader.ref.path, header.seed)
            if footer is not None:
                held = Held(first, footer.next_sequence, header.link, footer.link, is_sealed=True)
                if held == same or same is None:
                    return held
            sequence, last = _last_frame(reader, reader.size)
        if footer is not None:
            return held._replace(last=last)
        return Held(first, sequence, header.link, 0, is_sealed=False, last=last)

    @contextmanager
    def opened(self, first_sequence: int) -> Iterator[SegmentReader]:
        """Give a reader of the segment here that begins with this sequence."""
        path = f"{self.path}/{segment_name(first_sequence)}"
        with opened(self._disk, path) as descriptor:
            header = read_header(self._disk, descriptor, path, self._store_id, first_sequence)
            yield SegmentReader(
                self._disk, SegmentRef(first_sequence, path, header, None), descriptor
            )

    def end_of(self, ended: Ended) -> SegmentEnd | None:
        """Return how a segment that is not sealed here ended in the store.

        None when no frame here can be that one, or not all records stand before it.
        """
        with self.opened(ended.first_sequence) as reader:
            frames = reader.frames(reader.walk(), reader.size)
            return find_end(reader.ref.header, frames, ended.next_sequence, ended.link)

    # what is written

    def begin(self, first: SegmentHeader, *, is_unfinished: bool = False) -> None:
        """Make it a store that begins there, without a record yet, if it is none.

        ``is_unfinished``: one that is not to be opened before it is finished.
        """
        number = first.first_sequence
        if self.manifest is None or self.manifest.first_sequence != number:
            self.name_empty(first)
            self.manifest = Manifest(self._store_id, number, number, is_unfinished)
            write_manifest(self._disk, self.path, self.manifest)

    def disown(self, history: History | None) -> None:
        """Note that it was not closed, and what is known of the store's generations.

        A page of an earlier writer says less than what comes now, and goes.
        """
        disk, path = self._disk, self.path
        with suppress(FileNotFoundError):
            disk.remove(f"{path}/{ACKNOWLEDGED}")
        if history is not None and history.current != NO_GENERATION:
            mark = Mark(Ending.UNKNOWN, _UNKNOWN_LIFE, 0)
            write_whole(disk, f"{path}/{HISTORY}", encoded(mark, history, self._store_id))
        else:
            with suppress(FileNotFoundError):
                disk.remove(f"{path}/{HISTORY}")

    def name_empty(self, header: SegmentHeader) -> None:
        """Make an empty segment, durably, unless there is one of its name."""
        name = f"{self.path}/{segment_name(header.first_sequence)}"
        if not self._disk.exists(name):
            write_whole(self._disk, name, header.encode())

    def finish(self, next_sequence: int) -> None:
        """Note durably that everything before this sequence is here."""
        assert self.manifest is not None, "it was begun"
        done = self.manifest._replace(synced_sequence=next_sequence, is_unfinished=False)
        if done != self.manifest:
            write_manifest(self._disk, self.path, done)


def _store_around(disk: Disk, path: str) -> str | None:
    """Return the directory of a store in which this path lies."""
    while path := path.rpartition("/")[0]:
        if disk.exists(f"{path}/{MANIFEST}"):
            with suppress(AquipuError, OSError):  # it is a file of something else
                read_manifest(disk, path)
                return path
    return None


def _last_frame(reader: SegmentReader, end: int) -> tuple[int, Place | None]:
    """Return one past the last record of the sound frames, and the last frame that holds any."""
    walk, last = reader.walk(), None
    for frame in reader.frames(walk, end):
        if frame.header.records:
            last = frame.offset, frame.header.check
    return walk.sequence, last


def _locked(disk: Disk, path: str, check: Callable[[], None]) -> Lock:
    deadline = monotonic() + _LOCK_SECONDS
    while True:
        lock = Lock.take(disk, path)
        if lock is not None:
            return lock
        check()
        if monotonic() > deadline:
            raise StoreLockedError(path, holder_of(disk, path))
        sleep(_LOCK_PAUSE)
