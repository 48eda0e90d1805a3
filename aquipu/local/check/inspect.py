"""What a store at rest holds: examined as opening would, and never changed. Blocking.

`hold_at_rest` holds the store so that nobody writes it meanwhile; others may read it too. Within
that, `examined` is what an opening would go by, and `inspect` sums it up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from aquipu.errors import CorruptionError, NotAStoreError, StoreLockedError
from aquipu.local.disk.directory import check_there
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.lock import Lock, holder_of
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.format.names import SOCKET, BookmarkKind, is_ours
from aquipu.local.format.segment import SegmentSummary
from aquipu.local.format.structure import VERSION
from aquipu.local.read.examine import Findings, examine
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.retain.bookmarks import list_bookmarks
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
class Writer:
    """The process that writes a store at this moment."""

    pid: int | None
    """None when it could not write that down."""
    shared: bool
    """Whether other processes write through it."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """The segments of a store that are compressed, together."""

    segments: int
    bytes: int
    """Of their files."""
    plain_bytes: int
    """That these files had before."""


@dataclass(frozen=True, slots=True)
class Info:
    """What a store holds."""

    path: str
    store_id: str | None
    """32 hexadecimal digits; None where a daemon has the files."""
    format_version: int
    first_sequence: int
    """Of the first record kept."""
    next_sequence: int
    """One past the last record."""
    records: int
    segments: int | None
    """None where a daemon of an earlier version has the files."""
    bytes: int | None
    """Of all files of the store; where a daemon has them, of the segments."""
    first_time: str | None
    """When the first record was accepted, ISO 8601 in UTC; None without any."""
    last_time: str | None
    clean: bool | None
    """Whether it was closed, and nothing is to be mended; None while it is written."""
    torn_tail: TornTail | None
    holds: dict[str, int]
    """By name: from which sequence on nothing is purged."""
    compressed: Compressed | None = None
    """None when no segment is."""
    writer: Writer | None = None
    """Process that writes it at this moment; None for a store at rest."""


# holding a store


@contextmanager
def hold_at_rest(disk: Disk, path: str) -> Iterator[None]:
    """Keep everyone from writing the store in the directory ``path``.

    Raises NotAStoreError and StoreLockedError.
    """
    check_there(disk, path)
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
        size = sum(sizes_of(disk, path, is_ours).values())
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
        torn_tail=torn_tail_of(findings),
        holds=holds,
        compressed=compressed_in(disk, findings.segments),
    )


def compressed_in(disk: Disk, segments: Iterable[SegmentRef]) -> Compressed | None:
    """Return which of these segments are compressed, and what that has saved."""
    sizes: list[tuple[int, int]] = []
    for segment in segments:
        with (
            translate_os_errors(segment.path, "read"),
            suppress(FileNotFoundError),  # a purge has taken it
            segment.open(disk) as reader,
        ):
            sizes.append((reader.size, reader.plain_bytes))
    both = [(size, plain) for size, plain in sizes if plain]
    return Compressed(len(both), *map(sum, zip(*both, strict=True))) if both else None


def _times(disk: Disk, findings: Findings) -> tuple[str, str]:
    """Return when the first and the last record were accepted, in a store that holds any."""
    contents = findings.contents
    if (
        findings.contents.next_sequence == findings.active.first_sequence
    ):  # no record has come since the last roll
        contents = footer_of(disk, findings.sealed[-1])
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


def torn_tail_of(findings: Findings) -> TornTail | None:
    """Return the torn tail that was found, if there is one."""
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


def footer_of(disk: Disk, segment: SegmentRef) -> SegmentSummary:
    """Return what the footer of a sealed segment says."""
    with segment.open(disk) as reader:
        return reader.footer()


def sizes_of(disk: Disk, path: str, wanted: Callable[[str], bool]) -> dict[str, int]:
    """Return the sizes of the files in the directory whose names are wanted."""
    sizes: dict[str, int] = {}
    for name in sorted(filter(wanted, set(disk.list(path)) - {SOCKET})):
        with (
            suppress(FileNotFoundError),
            opened(disk, f"{path}/{name}") as descriptor,
        ):  # a bookmark may come and go
            sizes[name] = disk.size(descriptor)
    return sizes
