"""Catalog: which segments a log has and how far it is acknowledged, while others write it.

The writer says on its progress page how far its callers have been acknowledged, in which segment
that is, and where the log begins. As long as it says the same segments, the directory is not listed
again; sealed segments never change, so each is looked into once. Of the segment that is being
written only headers of frames are read, from where the last look ended, and only as far as they are
acknowledged.

Where the page does not help (there is none, the machine was started anew, the last writer ended
without saying so), the directory is examined as an opening would, and seen is what the frames
prove: that is slower, and always safe. A page from before the machine was started anew counts as
far as there are sound frames.

Nothing is written, repaired or locked here. Blocking; several threads may look at once.
"""

from __future__ import annotations

from contextlib import suppress
from errno import EAGAIN
from threading import Lock
from typing import NamedTuple

from aquipu.errors import (
    CorruptionError,
    NotAStoreError,
    PositionLostError,
    RecordNotWrittenError,
    StoreUnavailableError,
)
from aquipu.local.disk.directory import Directory
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.history import NO_GENERATION, History, check_survived
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import ACKNOWLEDGED, MANIFEST, first_sequence_of, segment_name
from aquipu.local.format.progress import Published
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, Index
from aquipu.local.read.examine import examine
from aquipu.local.read.progress_reader import ProgressReader
from aquipu.local.read.segment_reader import SegmentRef, check_follows, read_header
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.retain.history import read_history
from aquipu.local.retain.manifest import read_finished, read_manifest

_TRIES = 5  # to list a directory in which segments come and go


class _Sealed(NamedTuple):
    """A sealed segment: it never changes."""

    segment: SegmentRef
    next_sequence: int
    link: int
    """Check of its last frame."""


class _Growing(NamedTuple):
    """How far the segment that is being written is known."""

    segment: SegmentRef
    known: Index
    sequence: int
    """Sequence of the next frame."""
    offset: int


class _Changed(OSError):
    """The directory changed while it was looked at."""


class Catalog:
    """The segments of the store in the directory ``path``, and how far they may be read."""

    def __init__(self, disk: Disk, path: str) -> None:
        """Look once. Raises NotAStoreError, and what `look` raises."""
        self._disk = disk
        self._path = path
        self._lock = Lock()
        self._closed = False
        self._page: ProgressReader | None = None
        self._listed: Published | None = None  # when the directory was listed
        self._outdated: Published | None = None  # what is proven goes beyond this
        self._start = 0
        self._sealed: dict[int, _Sealed] = {}
        self._growing: _Growing | None = None
        self._proven: Snapshot | None = None  # without a page
        self._proven_by: object = None
        self._synced = 0  # one past the last record known to be on the disk
        self._history: History | None = None
        with translate_os_errors(path, "read"):
            self._directory, manifest = _checked_place(disk, path)
        self.store_id = manifest.store_id
        self.look()

    # without blocking

    @property
    def acknowledged(self) -> int:
        """One past the last acknowledged record."""
        published = self._published()
        if published is not None:
            return published.acknowledged
        return self._proven.stop if self._proven is not None else 0

    @property
    def generation(self) -> bytes:
        """Generation that the log is in, as its writer last said, or else its history."""
        page = self._page
        if page is not None and page.is_live and page.generation != NO_GENERATION:
            return page.generation
        return NO_GENERATION if self._history is None else self._history.current

    def move(self, generation: bytes, sequence: int) -> bytes:
        """Return the generation in which a reader of another one goes on that has read up to there.

        Raises PositionLostError, and what `look` raises; for a sequence in the present one, only
        where a writer says that the log ends before it.
        """
        with translate_os_errors(self._path, "read"):
            self._history = read_history(self._disk, self._path, self.store_id)
        check_survived(self._path, self._history, generation, sequence, self.first_sequence)
        if self.is_led and sequence > self.acknowledging:
            raise PositionLostError(self._path, sequence, self.acknowledging)
        return self.generation

    @property
    def acknowledging(self) -> int:
        """One past the last record that is acknowledged, or is being at this moment."""
        acknowledged, page = self.acknowledged, self._page
        return (
            max(acknowledged, page.acknowledging)
            if self.is_led and page is not None
            else acknowledged
        )

    @property
    def first_sequence(self) -> int:
        """Sequence of the first retained record."""
        published = self._published()
        return self._start if published is None else max(self._start, published.first_sequence)

    @property
    def is_led(self) -> bool:
        """Whether a writer says how far it has come, so that the disk need not be looked at."""
        return self._published() is not None

    def close(self) -> None:
        """Drop the page and the directory."""
        self._closed = True
        self._page = None
        self._directory.close()

    def _published(self) -> Published | None:
        page = self._page
        published = page.read() if page is not None and page.is_live else None
        return None if published == self._outdated else published

    # looking

    def look(self, *, indexed: bool = True) -> Snapshot:
        """Return what may be seen now.

        Without ``indexed`` places in the segment that is being written are found slowly. Raises
        CorruptionError, UnsupportedFormatError or StoreUnavailableError.
        """
        with self._lock, translate_os_errors(self._path, "read"):
            self._check_place()
            for tries_left in reversed(range(_TRIES)):
                try:
                    return self._look(indexed)
                except (_Changed, FileNotFoundError):  # a purge, most likely
                    self._listed = None
                    if not tries_left:
                        raise
        raise AssertionError("the last try returns or raises")

    def _check_place(self) -> None:
        """Refuse to read a directory that this path has left: its writer has gone, too."""
        wrong = self._directory.wrong()
        if wrong is not None and not self._closed:
            raise StoreUnavailableError(self._path, "read", wrong)

    def _look(self, indexed: bool) -> Snapshot:
        self._find_page()
        published = self._published()
        if published is not None and not self._is_listed(published):
            self._list(published)
            if published == self._outdated:
                published = None
        if published is None:
            return self._by_frames()
        assert self._growing is not None
        if indexed:
            self._catch_up(published.acknowledged)
        sealed = (sealed.segment for sealed in self._sealed.values())
        return Snapshot(
            self._disk,
            (*sealed, self._growing.segment),
            self._start,
            max(published.acknowledged, self._start),
        )

    def sync(self, sequence: int) -> None:
        """Have everything before this sequence on the disk, which the writer may not have synced.

        Any process may sync a file that it can read. Sealed segments are on the disk already.
        Raises RecordNotWrittenError for a sequence beyond the end, and what `look` raises.
        """
        view = self.look(indexed=False)
        if sequence > max(view.stop, self.acknowledging):
            raise RecordNotWrittenError(self._path, sequence, max(view.stop, self.acknowledging))
        active = view.segments[-1]
        if max(active.first_sequence, self._synced) < sequence:
            with (
                translate_os_errors(active.path, "sync"),
                suppress(FileNotFoundError),
            ):  # it was sealed, and then purged
                with opened(self._disk, active.path) as descriptor:
                    self._disk.sync(descriptor)
            if sequence > self.acknowledging:  # the writer's own sync has failed
                raise RecordNotWrittenError(self._path, sequence, self.acknowledged)
            self._synced = max(view.stop, sequence)

    def _find_page(self) -> None:
        """Open the page if its file has come, or was replaced, since the last look."""
        if self._closed:
            return
        page = self._page
        if page is not None:
            try:
                if (
                    self._disk.identity(f"{self._path}/{ACKNOWLEDGED}") == page.identity
                    and page.is_live
                ):
                    return
            except FileNotFoundError:  # what was seen last still holds
                return
        self._page = ProgressReader.open(self._disk, self._path, self.store_id) or page

    def _is_listed(self, published: Published) -> bool:
        """Return whether the segments are those listed: a purge begins with the oldest."""
        listed = self._listed
        if listed is None or listed[1:] != published[1:]:
            return False
        return self._disk.exists(f"{self._path}/{segment_name(self._start)}")

    def _list(self, published: Published) -> None:
        """Look which segments there are.

        The manifest is read after that: it says which of them still count.
        """
        names = self._disk.list(self._path)
        manifest = read_manifest(self._disk, self._path)
        if manifest.store_id != self.store_id:
            raise CorruptionError(
                f"{self._path}/{MANIFEST}", 16, "another store has taken the place of this one"
            )
        # a writer that was not closed, but emptied when its program ended
        if manifest.synced_sequence > published.acknowledged:
            self._outdated = published
            return
        start = max(manifest.first_sequence, published.first_sequence)
        # a retention may have dropped all that was acknowledged
        active = max(published.active_first, start)
        firsts = sorted(
            first
            for name in names
            if (first := first_sequence_of(name)) is not None and start <= first <= active
        )
        for missing in {start, active} - set(firsts):
            now = self._published()
            if now is None or now[1:] != published[1:]:
                raise _Changed(EAGAIN, "its segments come and go faster than they can be listed")
            raise CorruptionError(
                f"{self._path}/{segment_name(missing)}", 0, "the segment is missing"
            )
        sealed: dict[int, _Sealed] = {}
        before: _Sealed | None = None
        for first in firsts[:-1]:
            one = self._sealed.get(first) or self._sealed_at(first)
            if before is not None:
                check_follows(one.segment.path, one.segment.header, *before[1:])
            sealed[first] = before = one
        segment = self._segment_at(active, Index.empty())
        if before is not None:
            check_follows(segment.path, segment.header, *before[1:])
        if self._growing is None or self._growing.segment.first_sequence != active:
            self._growing = _Growing(segment, Index.empty(), active, SEGMENT_HEADER_BYTES)
        self._sealed, self._start, self._listed = sealed, start, published

    def _segment_at(self, first_sequence: int, growing: Index | None) -> SegmentRef:
        path = f"{self._path}/{segment_name(first_sequence)}"
        with opened(self._disk, path) as descriptor:
            header = read_header(self._disk, descriptor, path, self.store_id, first_sequence)
        return SegmentRef(first_sequence, path, header, growing)

    def _sealed_at(self, first_sequence: int) -> _Sealed:
        segment = self._segment_at(first_sequence, None)
        with segment.open(self._disk) as reader:
            footer = reader.footer()
        segment = segment._replace(times=(footer.first_time, footer.last_time))
        return _Sealed(segment, footer.next_sequence, footer.link)

    def _catch_up(self, acknowledged: int) -> None:
        """Find where the acknowledged frames of the segment that is being written stand."""
        growing = self._growing
        assert growing is not None
        # a writer that failed has been started anew, and knows less
        if growing.sequence > acknowledged:
            growing = _nothing_of(growing)
        if growing.sequence < acknowledged:
            try:
                self._growing = self._skim(growing, acknowledged)
            except CorruptionError:
                if growing.offset == SEGMENT_HEADER_BYTES:
                    raise
                # what stood there may have been written anew
                self._growing = self._skim(_nothing_of(growing), acknowledged)

    def _skim(self, growing: _Growing, acknowledged: int) -> _Growing:
        """Read the headers of the frames up to there.

        The index is a new one: others may be reading in the old.
        """
        segment, known, sequence, offset = growing
        index = Index(*(column[:] for column in known))
        with segment.open(self._disk) as reader:
            for at, header in reader.headers((sequence, offset)):
                index.note(header.first_sequence, header.time, at)
                sequence, offset = header.next_sequence, at + header.size
                if sequence >= acknowledged:
                    break
        return _Growing(segment._replace(growing=index), index, sequence, offset)

    def _by_frames(self) -> Snapshot:
        """Return what the frames prove.

        As long as the directory looks the same, it is not examined again.
        """
        looks = self._appearance()
        if self._proven is None or self._proven_by != looks:
            self._history = read_history(self._disk, self._path, self.store_id)
            self._proven = self._examine()
            self._proven_by = looks
        return self._proven

    def _appearance(self) -> object:
        names = sorted(self._disk.list(self._path))
        segments = [name for name in names if first_sequence_of(name) is not None]
        newest = f"{self._path}/{segments[-1] if segments else MANIFEST}"
        with opened(self._disk, newest) as descriptor:
            size = self._disk.size(descriptor)
        return names, size, read_manifest(self._disk, self._path)

    def _examine(self) -> Snapshot:
        findings = examine(self._disk, self._path)
        if findings is None:
            raise NotAStoreError(self._path, "the directory holds none")
        sound = findings.contents.next_sequence
        stop = max(
            findings.manifest.synced_sequence, findings.watermark, findings.active.first_sequence
        )
        said = self._page.read() if self._page is not None else None
        if said is not None:
            stop = max(stop, min(said.acknowledged, sound))
        self._start = findings.manifest.first_sequence
        return Snapshot(self._disk, tuple(findings.segments), self._start, stop)


def _nothing_of(growing: _Growing) -> _Growing:
    segment = growing.segment
    return _Growing(segment, Index.empty(), segment.first_sequence, SEGMENT_HEADER_BYTES)


def _checked_place(disk: Disk, path: str) -> tuple[Directory, Manifest]:
    """Hold the directory from now on, and read the manifest of the store that must be there."""
    try:
        directory = Directory(disk, path)
        names = disk.list(path)
    except FileNotFoundError:
        raise NotAStoreError(path, "there is nothing of this name") from None
    except NotADirectoryError:
        raise NotAStoreError(path, "it is a file") from None
    if MANIFEST not in names and examine(disk, path) is None:
        raise NotAStoreError(path, "the directory holds none")
    return directory, read_finished(disk, path)
