"""Whether a store at rest is sound: every byte of it is read. Blocking.

Also of one that cannot be opened: then all that is damaged is found, not only the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from aquipu.errors import CorruptionError
from aquipu.local.check.indexes import damaged_indexes
from aquipu.local.check.inspect import (
    TornTail,
    Writer,
    examined,
    footer_of,
    sizes_of,
    torn_tail_of,
)
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import bookmark_of, first_sequence_of
from aquipu.local.read.examine import Findings, verify
from aquipu.local.read.segment_reader import OnProgress, SegmentRef, read_header
from aquipu.local.retain.bookmarks import read_bookmark
from aquipu.local.retain.manifest import read_manifest


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that were safe on the disk and are not what was written."""

    path: str
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What reading every byte has shown."""

    path: str
    next_sequence: int | None
    """One past the last record that was checked: of a store that is written, the last one that was
    acknowledged when this began. None when damage keeps it from being known.
    """
    records: int | None
    """None when damage keeps them from being counted."""
    frames: int | None
    """Commits and marks, as `records`."""
    segments: int
    bytes: int
    """Of the segment files."""
    damages: list[Damage]
    torn_tail: TornTail | None
    writer: Writer | None = None
    """Process that writes it at this moment; None for a store at rest."""


class Remaining:
    """What is still to be read, for a progress that ends at the total."""

    def __init__(self, total: int, progress: OnProgress) -> None:
        self._left = total
        self._progress = progress

    def read(self, size: int) -> None:
        """Report these bytes as read."""
        self._left -= size
        self._progress(size)

    def finish(self) -> None:
        """Report the rest."""
        self._progress(self._left)


def segment_bytes(disk: Disk, path: str) -> int:
    """Return how many bytes `verify_all` has to read."""
    with translate_os_errors(path, "read"):
        return sum(sizes_of(disk, path, kept(disk, path)).values())


def verify_all(disk: Disk, path: str, progress: OnProgress = lambda size: None) -> Verdict:
    """Read every byte of the segments, bookmarks and label indexes, and check it.

    ``progress`` is called with the bytes read of the segments, in the end `segment_bytes`.
    """
    with translate_os_errors(path, "read"):
        sizes = sizes_of(disk, path, kept(disk, path))
        total = sum(sizes.values())
        bar = Remaining(total, progress)
        findings, errors = _check(disk, path, bar.read)
        bar.finish()  # headers and footers, and what stands behind a damage
        frames = None if findings is None else _frames(disk, findings)
        indexes = [] if findings is None else list(damaged_indexes(disk, findings.sealed))
    first, following = (
        (findings.manifest.first_sequence, findings.contents.next_sequence)
        if findings is not None
        else (0, None)
    )
    return Verdict(
        path=path,
        next_sequence=following,
        records=None if following is None else following - first,
        frames=frames,
        segments=len(sizes),
        bytes=total,
        damages=damages_of([*errors, *indexes]),
        torn_tail=None if findings is None else torn_tail_of(findings),
    )


def _check(
    disk: Disk, path: str, progress: OnProgress
) -> tuple[Findings | None, list[CorruptionError]]:
    """Return what is damaged, each once; no findings of a store that could not be opened."""
    findings: Findings | None = None
    errors: list[CorruptionError] = []
    try:
        findings = examined(disk, path)
        progress(findings.size)  # the last segment was read whole
        sealed = findings.sealed
    except CorruptionError as error:
        errors.append(error)
        sealed = list(readable_segments(disk, path, errors))
    for found in verify(disk, path, sealed, progress):
        note(errors, found)
    for found in damaged_bookmarks(disk, path):
        note(errors, found)
    return findings, errors


def readable_segments(disk: Disk, path: str, errors: list[CorruptionError]) -> Iterator[SegmentRef]:
    """Yield the segments with a sound header, in a store that cannot be opened.

    The damage of the others is noted.
    """
    manifest = _manifest(disk, path)
    if manifest is None:
        return
    for name in sorted(filter(kept(disk, path), disk.list(path))):
        file, first = f"{path}/{name}", first_sequence_of(name) or 0
        try:
            with opened(disk, file) as descriptor:
                yield SegmentRef(
                    first, file, read_header(disk, descriptor, file, manifest.store_id, first), None
                )
        except CorruptionError as error:
            note(errors, error)


def note(errors: list[CorruptionError], error: CorruptionError) -> None:
    """Add an error, unless the same was found before."""
    if all(error.args != known.args for known in errors):
        errors.append(error)


def _frames(disk: Disk, findings: Findings) -> int:
    """Return how many frames the store has."""
    sealed = sum(footer_of(disk, segment).frames for segment in findings.sealed)
    return findings.contents.frames + sealed


def damages_of(errors: Iterable[CorruptionError]) -> list[Damage]:
    """Return what is damaged, for people to read."""
    return [Damage(error.path, error.offset, error.reason) for error in errors]


def damaged_bookmarks(disk: Disk, path: str) -> Iterator[CorruptionError]:
    """Yield what is wrong with the holds and cursors."""
    manifest = _manifest(disk, path)
    if manifest is None:
        return
    for kind, name in sorted(filter(None, map(bookmark_of, disk.list(path)))):
        try:
            read_bookmark(disk, path, manifest.store_id, kind, name)
        except CorruptionError as error:
            yield error


def kept(disk: Disk, path: str) -> Callable[[str], bool]:
    """Return what says of a name whether it is one of the log's segments, and not left over."""
    manifest = _manifest(disk, path)
    begin = 0 if manifest is None else manifest.first_sequence

    def is_kept(name: str) -> bool:
        first = first_sequence_of(name)
        return first is not None and first >= begin

    return is_kept


def _manifest(disk: Disk, path: str) -> Manifest | None:
    """Return the manifest; None when it is missing or damaged, as examining the store says.

    Without the id in it nothing can be checked.
    """
    try:
        return read_manifest(disk, path)
    except (CorruptionError, FileNotFoundError):
        return None
