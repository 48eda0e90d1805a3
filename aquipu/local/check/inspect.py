"""What a store at rest holds: examined as opening would, and never changed. Blocking.

`hold_at_rest` holds the store so that nobody writes it meanwhile; others may read it too. Within
that, `examined` is what an opening would go by, `inspect` sums it up, and `verify_all` reads every
byte, also of a store that cannot be opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from aquipu.errors import CorruptionError, NotAStoreError, StoreLockedError
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.lock import Lock, holder_of
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import BookmarkKind, bookmark_of, first_sequence_of, is_ours
from aquipu.local.format.segment import SegmentSummary
from aquipu.local.format.structure import VERSION
from aquipu.local.read.examine import Findings, examine, verify
from aquipu.local.read.segment_reader import OnProgress, SegmentRef, read_header
from aquipu.local.retain.bookmarks import list_bookmarks, read_bookmark
from aquipu.local.retain.manifest import read_manifest
from aquipu.local.write.recovery import check_place


@dataclass(frozen=True, slots=True)
class TornTail:
    """Bytes behind the last record of which nothing proves that they were ever synced."""

    path: str
    """The segment file."""
    offset: int
    bytes: int
    reason: str
    records: int
    """That they may hold, as far as their frame headers can still be read."""
    possibly_acknowledged: bool


@dataclass(frozen=True, slots=True)
class Info:
    """What a store holds."""

    path: str
    store_id: str
    """32 hexadecimal digits."""
    format_version: int
    first_sequence: int
    """Of the first record kept."""
    next_sequence: int
    """One past the last record."""
    records: int
    segments: int
    bytes: int
    """Of all files of the store."""
    first_time: str | None
    """When the first record was accepted, ISO 8601 in UTC; None without any."""
    last_time: str | None
    clean: bool
    """It was closed, and nothing is to be mended."""
    torn_tail: TornTail | None
    holds: dict[str, int]
    """By name: from which sequence on nothing is purged."""


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
    records: int | None
    """None when damage keeps them from being counted."""
    frames: int | None
    """Commits and marks, as `records`."""
    segments: int
    bytes: int
    """Of the segment files."""
    damages: list[Damage]
    torn_tail: TornTail | None


# holding a store


@contextmanager
def hold_at_rest(disk: Disk, path: str) -> Iterator[None]:
    """Keep everyone from writing the store in the directory ``path``.

    Raises NotAStoreError and StoreLockedError.
    """
    if not disk.exists(path):
        raise NotAStoreError(path, "there is nothing of this name")
    with suppress(
        CorruptionError
    ):  # of the manifest: that is what `examined` and `verify_all` are there to say
        check_place(disk, path)
    lock = _take_shared(disk, path)
    try:
        yield
    finally:
        lock.release()


def _take_shared(disk: Disk, path: str) -> Lock:
    with translate_os_errors(path, "lock"):
        lock = Lock.take(disk, path, shared=True)
    if lock is None:
        raise StoreLockedError(path, holder_of(disk, path))
    return lock


# what it holds


def examined(disk: Disk, path: str) -> Findings:
    """Return what an opening would go by.

    Raises CorruptionError and UnsupportedFormatError as it would.
    """
    with translate_os_errors(path, "read"):
        findings = examine(disk, path)
    if findings is None:
        raise NotAStoreError(path, "the directory holds none")
    return findings


def inspect(disk: Disk, path: str) -> Info:
    """Sum up what the store holds.

    Raises what `examined` raises, also for a hold that does not check.
    """
    findings = examined(disk, path)
    first, following = findings.manifest.first_sequence, findings.contents.next_sequence
    with translate_os_errors(path, "read"):
        first_time, last_time = _times(disk, findings) if first < following else (None, None)
        size = sum(_sizes(disk, path, is_ours).values())
        holds = list_bookmarks(disk, path, findings.manifest.store_id, BookmarkKind.HOLD)
    return Info(
        path=path,
        store_id=findings.manifest.store_id.hex(),
        format_version=VERSION,
        first_sequence=first,
        next_sequence=following,
        records=following - first,
        segments=len(findings.segments),
        bytes=size,
        first_time=first_time,
        last_time=last_time,
        clean=findings.is_clean,
        torn_tail=_torn_tail(findings),
        holds=holds,
    )


def _times(disk: Disk, findings: Findings) -> tuple[str, str]:
    """Return when the first and the last record were accepted, in a store that holds any."""
    contents = findings.contents
    if (
        findings.contents.next_sequence == findings.active.first_sequence
    ):  # no record has come since the last roll
        contents = _footer(disk, findings.sealed[-1])
    # a commit has the time of its last record, and a mark that of the commit before it
    return iso_time(_first_time(disk, findings.segments[0])), iso_time(contents.last_time)


def _first_time(disk: Disk, segment: SegmentRef) -> int:
    """Return the timestamp of the first record of a segment."""
    with translate_os_errors(segment.path, "read"), segment.open(disk) as reader:
        walk = reader.walk()
        for frame in reader.frames(walk, reader.size):
            if frame.header.records:
                return frame.records()[0].timestamp
    raise walk.stopped()


def iso_time(nanoseconds: int) -> str:
    """Write nanoseconds since the epoch as ISO 8601, in UTC."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _torn_tail(findings: Findings) -> TornTail | None:
    torn = findings.torn
    if torn is None:
        return None
    return TornTail(
        findings.active.path,
        torn.offset,
        torn.size,
        torn.reason,
        torn.records,
        torn.possibly_acknowledged,
    )


def _footer(disk: Disk, segment: SegmentRef) -> SegmentSummary:
    with segment.open(disk) as reader:
        return reader.footer()


def _sizes(disk: Disk, path: str, wanted: Callable[[str], bool]) -> dict[str, int]:
    """Return the sizes of the files in the directory whose names are wanted."""
    sizes: dict[str, int] = {}
    for name in sorted(filter(wanted, disk.list(path))):
        with (
            suppress(FileNotFoundError),
            opened(disk, f"{path}/{name}") as descriptor,
        ):  # a bookmark may come and go
            sizes[name] = disk.size(descriptor)
    return sizes


# whether it is sound


def segment_bytes(disk: Disk, path: str) -> int:
    """Return how many bytes `verify_all` has to read."""
    with translate_os_errors(path, "read"):
        return sum(_sizes(disk, path, _kept(disk, path)).values())


def verify_all(disk: Disk, path: str, progress: OnProgress = lambda size: None) -> Verdict:
    """Read every byte of the segments and bookmarks, and check it.

    ``progress`` is called with the bytes read of the segments, in the end `segment_bytes`.
    """
    with translate_os_errors(path, "read"):
        sizes = _sizes(disk, path, _kept(disk, path))
        total = left = sum(sizes.values())

        def read(size: int) -> None:
            nonlocal left
            left -= size
            progress(size)

        findings, errors = _check(disk, path, read)
        progress(left)  # headers and footers, and what stands behind a damage
        frames = None if findings is None else _frames(disk, findings)
    return Verdict(
        path=path,
        records=None
        if findings is None
        else findings.contents.next_sequence - findings.manifest.first_sequence,
        frames=frames,
        segments=len(sizes),
        bytes=total,
        damages=[Damage(error.path, error.offset, error.reason) for error in errors],
        torn_tail=None if findings is None else _torn_tail(findings),
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
        sealed = list(_readable(disk, path, errors))
    for found in verify(disk, path, sealed, progress):
        _note(errors, found)
    for found in _damaged_bookmarks(disk, path):
        _note(errors, found)
    return findings, errors


def _readable(disk: Disk, path: str, errors: list[CorruptionError]) -> Iterator[SegmentRef]:
    """Yield the segments with a sound header, in a store that cannot be opened.

    The damage of the others is noted.
    """
    manifest = _manifest(disk, path)
    if manifest is None:
        return
    for name in sorted(filter(_kept(disk, path), disk.list(path))):
        file, first = f"{path}/{name}", first_sequence_of(name) or 0
        try:
            with opened(disk, file) as descriptor:
                yield SegmentRef(
                    first, file, read_header(disk, descriptor, file, manifest.store_id, first), None
                )
        except CorruptionError as error:
            _note(errors, error)


def _note(errors: list[CorruptionError], error: CorruptionError) -> None:
    """Add an error, unless the same was found before."""
    if all(error.args != known.args for known in errors):
        errors.append(error)


def _frames(disk: Disk, findings: Findings) -> int:
    """Return how many frames the store has."""
    sealed = sum(_footer(disk, segment).frames for segment in findings.sealed)
    return findings.contents.frames + sealed


def _damaged_bookmarks(disk: Disk, path: str) -> Iterator[CorruptionError]:
    manifest = _manifest(disk, path)
    if manifest is None:
        return
    for kind, name in sorted(filter(None, map(bookmark_of, disk.list(path)))):
        try:
            read_bookmark(disk, path, manifest.store_id, kind, name)
        except CorruptionError as error:
            yield error


def _kept(disk: Disk, path: str) -> Callable[[str], bool]:
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
