"""What can be known of a log without its lock, while another process writes it: its segments, and how far they are told.

The writer says on its board (`acknowledged`) how far its callers have been told, in which segment that is, and where the
log begins. As long as it says the same segments, the directory is not listed again; sealed segments never change, so each
is looked into once. Of the segment that is being written only headers of frames are read, from where the last look ended,
and only as far as the callers have been told.

Where the board does not help (there is none, the machine was started anew, the last writer ended without saying so), the
directory is examined as an opening would, and seen is what the frames prove: that is slower, and always safe. A board from
before the machine was started anew counts as far as there are sound frames.

Nothing is written, repaired or locked here. Blocking; several threads may look at once.
"""

from __future__ import annotations

from errno import EAGAIN
from threading import Lock
from typing import NamedTuple

from aquipu.acknowledged import Glass, Standing
from aquipu.disk import Disk, explained, opened
from aquipu.errors import CorruptionError, NotAStoreError
from aquipu.frame import HEADER_BYTES, header_at
from aquipu.journal import Extent
from aquipu.layout import (
    ACKNOWLEDGED,
    INDEX_STRIDE,
    MANIFEST,
    SEGMENT_HEADER_BYTES,
    Index,
    Manifest,
    first_sequence_of,
    segment_name,
)
from aquipu.manifest import read_manifest
from aquipu.recovery import examine
from aquipu.segment import read_footer, read_header
from aquipu.view import View

_TRIES = 5  # to list a directory in which segments come and go


class _Sealed(NamedTuple):
    """A sealed segment: it never changes."""

    extent: Extent
    next_sequence: int
    link: int
    """Of its last frame."""


class _Growing(NamedTuple):
    """How far the segment that is being written is known."""

    extent: Extent
    known: Index
    sequence: int
    """Of the next frame."""
    offset: int


class _Changed(OSError):
    """The directory changed while it was looked at."""


class Catalogue:
    """The segments of the store in the directory ``path``, and how far they may be read."""

    def __init__(self, disk: Disk, path: str) -> None:
        """Raises NotAStoreError, UnsupportedFormatError, CorruptionError or StoreUnavailableError."""
        self._disk = disk
        self._path = path
        self._lock = Lock()
        self._closed = False
        self._glass: Glass | None = None
        self._listed: Standing | None = None  # what the board said when the directory was listed
        self._outdated: Standing | None = None  # what a board says beyond which more is proven
        self._start = 0
        self._sealed: dict[int, _Sealed] = {}
        self._growing: _Growing | None = None
        self._proven: View | None = None  # without a board
        self._proven_by: object = None
        with explained(path, "read"):
            self.store_id = _checked_place(disk, path).store_id
        self.look()

    # without blocking

    @property
    def told(self) -> int:
        """Everything below has been acknowledged."""
        standing = self._standing()
        if standing is not None:
            return standing.told
        return self._proven.stop if self._proven is not None else 0

    @property
    def first_sequence(self) -> int:
        """Of the first record kept."""
        standing = self._standing()
        return self._start if standing is None else max(self._start, standing.first_sequence)

    @property
    def is_led(self) -> bool:
        """Whether a writer says how far it has come, so that there is no need to look at the disk."""
        return self._standing() is not None

    def close(self) -> None:
        """Let go of the board."""
        self._closed = True
        self._glass = None

    def _standing(self) -> Standing | None:
        glass = self._glass
        standing = glass.look() if glass is not None and glass.is_live else None
        return None if standing == self._outdated else standing

    # looking

    def look(self, *, indexed: bool = True) -> View:
        """What may be seen now. Without ``indexed`` places in the segment that is being written are found slowly.

        Raises CorruptionError, UnsupportedFormatError or StoreUnavailableError.
        """
        with self._lock, explained(self._path, "read"):
            for tries_left in reversed(range(_TRIES)):
                try:
                    return self._look(indexed)
                except (_Changed, FileNotFoundError):  # a purge, most likely
                    self._listed = None
                    if not tries_left:
                        raise
        raise AssertionError("the last try returns or raises")

    def _look(self, indexed: bool) -> View:
        self._find_board()
        standing = self._standing()
        if standing is not None and not self._is_listed(standing):
            self._list(standing)
            standing = self._standing()  # the list may have shown that it is outdated
        if standing is None:
            return self._without_board()
        assert self._growing is not None
        if indexed:
            self._catch_up(standing.told)
        sealed = (sealed.extent for sealed in self._sealed.values())
        return View(self._disk, (*sealed, self._growing.extent), self._start, max(standing.told, self._start))

    def _find_board(self) -> None:
        """The file may have come, or have been replaced, since the last look."""
        if self._closed:
            return
        glass = self._glass
        if glass is not None:
            try:
                if self._disk.identity(f"{self._path}/{ACKNOWLEDGED}") == glass.identity and glass.is_live:
                    return
            except FileNotFoundError:  # what was seen last still holds
                return
        self._glass = Glass.put_on(self._disk, self._path, self.store_id) or glass

    def _is_listed(self, standing: Standing) -> bool:
        """Whether the segments are still those that were listed. A purge begins with the oldest."""
        listed = self._listed
        if listed is None or listed[1:] != standing[1:]:
            return False
        return self._disk.exists(f"{self._path}/{segment_name(self._start)}")

    def _list(self, standing: Standing) -> None:
        """Look which segments there are. The manifest is read after that: it says which of them still count."""
        names = self._disk.list(self._path)
        manifest = read_manifest(self._disk, self._path)
        if manifest.store_id != self.store_id:
            raise CorruptionError(f"{self._path}/{MANIFEST}", 16, "another store has taken the place of this one")
        if manifest.synced_sequence > standing.told:  # a writer that was not closed, but emptied when its program ended
            self._outdated = standing
            return
        start = max(manifest.first_sequence, standing.first_sequence)
        active = max(standing.active_first, start)  # a retention may have let go of all that was told
        firsts = sorted(
            first for name in names if (first := first_sequence_of(name)) is not None and start <= first <= active
        )
        for missing in {start, active} - set(firsts):
            now = self._standing()
            if now is None or now[1:] != standing[1:]:
                raise _Changed(EAGAIN, "its segments come and go faster than they can be listed")
            raise CorruptionError(f"{self._path}/{segment_name(missing)}", 0, "the segment is missing")
        sealed: dict[int, _Sealed] = {}
        before: _Sealed | None = None
        for first in firsts[:-1]:
            one = self._sealed.get(first) or self._sealed_at(first)
            _check_follows(one.extent, before)
            sealed[first] = before = one
        extent = self._extent_at(active, Index.empty())
        _check_follows(extent, before)
        if self._growing is None or self._growing.extent.first_sequence != active:
            self._growing = _Growing(extent, Index.empty(), active, SEGMENT_HEADER_BYTES)
        self._sealed, self._start, self._listed = sealed, start, standing

    def _extent_at(self, first_sequence: int, growing: Index | None) -> Extent:
        path = f"{self._path}/{segment_name(first_sequence)}"
        with opened(self._disk, path) as descriptor:
            header = read_header(self._disk, descriptor, path, self.store_id, first_sequence)
        return Extent(first_sequence, path, header, growing)

    def _sealed_at(self, first_sequence: int) -> _Sealed:
        extent = self._extent_at(first_sequence, None)
        with opened(self._disk, extent.path) as descriptor:
            footer = read_footer(self._disk, descriptor, extent.path, extent.header.seed)
            if footer is None:
                size = self._disk.size(descriptor)
                raise CorruptionError(extent.path, size, "the footer of a sealed segment is missing")
        return _Sealed(extent, footer.next_sequence, footer.link)

    def _catch_up(self, told: int) -> None:
        """Know where the frames of the segment that is being written stand, as far as the callers have been told."""
        growing = self._growing
        assert growing is not None
        if growing.sequence > told:  # a writer that failed has been started anew, and knows less
            growing = _nothing_of(growing)
        if growing.sequence < told:
            try:
                self._growing = self._skim(growing, told)
            except CorruptionError:
                if growing.offset == SEGMENT_HEADER_BYTES:
                    raise
                self._growing = self._skim(_nothing_of(growing), told)  # what stood there may have been written anew

    def _skim(self, growing: _Growing, told: int) -> _Growing:
        """Read the headers of the frames up to there. The index is a new one: others may be reading in the old."""
        extent, known, sequence, offset = growing
        index = Index(*(column[:] for column in known))
        with opened(self._disk, extent.path) as descriptor:
            piece, begin = b"", offset
            while sequence < told:
                if offset + HEADER_BYTES > begin + len(piece):
                    piece, begin = self._disk.read(descriptor, INDEX_STRIDE, offset), offset
                header = header_at(piece, offset - begin, extent.header.seed)
                if header is None or header.first_sequence != sequence:
                    raise CorruptionError(extent.path, offset, f"the frame at sequence {sequence} does not check")
                index.note(sequence, header.time, offset)
                sequence, offset = header.next_sequence, offset + header.size
        return _Growing(extent._replace(growing=index), index, sequence, offset)

    def _without_board(self) -> View:
        """What the frames prove. As long as the directory looks the same, it is not examined again."""
        looks = self._appearance()
        if self._proven is None or self._proven_by != looks:
            self._proven = self._examine()
            self._proven_by = looks
        return self._proven

    def _appearance(self) -> object:
        names = sorted(self._disk.list(self._path))
        segments = [name for name in names if first_sequence_of(name) is not None]
        with opened(self._disk, f"{self._path}/{segments[-1] if segments else MANIFEST}") as descriptor:
            size = self._disk.size(descriptor)
        return names, size, read_manifest(self._disk, self._path)

    def _examine(self) -> View:
        findings = examine(self._disk, self._path)
        if findings is None:
            raise NotAStoreError(self._path, "the directory holds none")
        sound = findings.contents.next_sequence
        stop = max(findings.manifest.synced_sequence, findings.watermark, findings.active.first_sequence)
        said = self._glass.look() if self._glass is not None else None
        if said is not None:
            stop = max(stop, min(said.told, sound))
        self._start = findings.manifest.first_sequence
        return View(self._disk, tuple(findings.extents), self._start, stop)


def _nothing_of(growing: _Growing) -> _Growing:
    extent = growing.extent
    return _Growing(extent, Index.empty(), extent.first_sequence, SEGMENT_HEADER_BYTES)


def _check_follows(extent: Extent, before: _Sealed | None) -> None:
    """CorruptionError unless the segment goes on where the one before it ends."""
    if before is None:
        return
    if before.next_sequence != extent.first_sequence:
        missing = f"sequences {before.next_sequence} to {extent.first_sequence - 1} are missing before this segment"
        raise CorruptionError(extent.path, 0, missing)
    if before.link != extent.header.link:
        raise CorruptionError(extent.path, 0, "the segment does not follow the one before it")


def _checked_place(disk: Disk, path: str) -> Manifest:
    """The manifest of the store that must be there."""
    try:
        names = disk.list(path)
    except FileNotFoundError:
        raise NotAStoreError(path, "there is nothing of this name") from None
    except NotADirectoryError:
        raise NotAStoreError(path, "it is a file") from None
    if MANIFEST not in names and examine(disk, path) is None:
        raise NotAStoreError(path, "the directory holds none")
    return read_manifest(disk, path)
