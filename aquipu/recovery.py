"""What opening finds, and what it does about it. Blocking; nobody else writes meanwhile.

First the directory is *examined*, which changes nothing and either explains every byte or raises. Then it is *mended*:

=====================================================  ================================================================
found                                                  done
=====================================================  ================================================================
nothing, or the first steps of a creation              a new store
a mark as the last frame: its watermark says "all      nothing, but that the mark itself, which nothing proves, is written
of it"                                                 once more, to be synced with the first commit
sound frames that no watermark proves                  written once more, and synced, the names too: what is read may be a
                                                       page that a failed sync left in memory, and syncing a clean page
                                                       does nothing
zeros behind the last frame                            nothing: space written ahead
bytes behind the last sound frame, none proven         torn tail: kept aside in a ``.cut-`` file, then trimmed
bytes behind it, and a later frame proves them, or
the manifest does                                      CorruptionError
an empty last segment behind another, at most zeros    a roll that was cut short: removed, the one before goes on, and
behind its header                                      its index is removed, too
segments that lie before the first sequence kept       left over from a purge: not looked at, and removed, unless somebody
                                                       still reads them
a bookmark that nobody was done with                   removed, unless somebody is still making it
a footer, header, link or segment that does not fit    CorruptionError
=====================================================  ================================================================

After mending, an empty frame with the new watermark is written: from then on what was found is proven as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from aquipu.disk import Disk, explained, opened
from aquipu.durable import OutcomeUnknown, put_aside, sync, sync_directory
from aquipu.errors import (
    CorruptionError,
    NotAStoreError,
    StoreFailedError,
    StoreUnavailableError,
)
from aquipu.frame import HEADER_BYTES, Flag, Walk, search
from aquipu.journal import Extent, Journal
from aquipu.layout import (
    MANIFEST,
    SEGMENT_HEADER_BYTES,
    Contents,
    Manifest,
    SegmentHeader,
    cut_name,
    first_sequence_of,
    is_bookmark_in_the_making,
    is_ours,
    is_unnamed,
    relations_name,
    segment_name,
    segment_of,
)
from aquipu.manifest import read_manifest, write_manifest
from aquipu.purge import Past
from aquipu.retention import Retention, Sealed
from aquipu.segment import READ_BYTES, Segment, is_unwritten, read_footer, read_header, walk_frames, what_stopped

Progress = Callable[[int], None]


class RecoveryReport(NamedTuple):
    """What opening found and did; also ``store.recovery``."""

    created: bool
    """There was no store; this is a new one."""
    clean: bool
    """The store had been closed; nothing had to be done."""
    first_sequence: int
    next_sequence: int
    segments: int
    rewritten_bytes: int = 0
    """Sound, but not proven to be on the disk: written once more and synced."""
    cut_bytes: int = 0
    """A torn tail that was trimmed: the rest of this report speaks of it."""
    cut_from: str | None = None
    """The segment file."""
    cut_offset: int = 0
    cut_reason: str | None = None
    cut_kept_in: str | None = None
    """The file that holds the bytes that were cut."""
    cut_records: int = 0
    """Records that they held, as far as their frame headers can still be read."""
    cut_possibly_acknowledged: bool = False
    """Whether a caller may have been told that one of them was FLUSHED (never SYNCED, unless the disk lied)."""


class Torn(NamedTuple):
    """Bytes behind the last sound frame that nothing proves."""

    offset: int
    size: int
    reason: str
    records: int
    possibly_acknowledged: bool


class Findings(NamedTuple):
    """A store that can be opened: what stands in its directory."""

    manifest: Manifest
    sealed: list[Extent]
    active: Extent
    contents: Contents
    """Of the active segment."""
    watermark: int
    marked: bool
    size: int
    """Of the active segment's file."""
    torn: Torn | None
    past: Sequence[Sealed] = ()
    """What decisions on the sealed segments depend on."""
    left_over: Sequence[int] = ()
    """The first sequences of segments that were purged, and of which files are still there."""
    unnamed: Sequence[str] = ()
    """Files that were never finished."""
    bookmarks: Sequence[str] = ()
    """Files in which somebody makes a bookmark, or died while at it."""
    empty_successor: str | None = None
    """What is left of a roll that was cut short."""

    @property
    def extents(self) -> list[Extent]:
        return [*self.sealed, self.active]

    @property
    def is_clean(self) -> bool:
        return self.marked and self.torn is None and not self.unnamed and self.empty_successor is None


def check_place(disk: Disk, path: str) -> None:
    """Make the directory if there is none, durably; refuse what is no store, before anything is written into it.

    Raises NotAStoreError, CorruptionError or UnsupportedFormatError (of the manifest), StoreUnavailableError.
    """
    with explained(path, "use"):
        if not disk.exists(path):
            disk.make_directories(path)
        try:
            names = disk.list(path)
        except NotADirectoryError:
            raise NotAStoreError(path, "it is a file") from None
        if MANIFEST in names:
            read_manifest(disk, path)
        foreign = [name for name in names if not is_ours(name)]
        if foreign and MANIFEST not in names:
            raise NotAStoreError(path, f"the directory holds other things, {min(foreign)!r} among them")


def recover(
    disk: Disk,
    path: str,
    *,
    max_segment_bytes: int,
    new_store_id: bytes,
    now: int,
    retention: Retention | None = None,
) -> tuple[Journal, RecoveryReport]:
    """Open the store in the directory ``path``, or make a new one there. The caller holds its lock.

    Raises CorruptionError, UnsupportedFormatError or StoreUnavailableError.
    """
    try:
        with explained(path, "open"):
            findings = examine(disk, path)
            if findings is None:
                return _create(disk, path, max_segment_bytes, retention, new_store_id, now)
            return _mend(disk, path, findings, max_segment_bytes, retention)
    except StoreFailedError as failed:
        raise StoreUnavailableError(path, "open", failed.reason) from failed.__cause__
    except OutcomeUnknown as unknown:
        reason = f"{unknown.doing}: {unknown.error.strerror}"
        raise StoreUnavailableError(path, "open", reason) from unknown.error


def examine(disk: Disk, path: str) -> Findings | None:
    """What stands in the directory; None for no store, or one whose creation was cut short. Changes nothing."""
    names = disk.list(path)
    firsts = sorted(first for name in names if (first := first_sequence_of(name)) is not None)
    if MANIFEST not in names:
        if not firsts or (firsts == [0] and _size(disk, _path(path, 0)) <= SEGMENT_HEADER_BYTES):
            return None
        raise CorruptionError(f"{path}/{MANIFEST}", 0, "the manifest is missing")
    manifest = read_manifest(disk, path)
    firsts = [first for first in firsts if first >= manifest.first_sequence]
    if not firsts:
        raise CorruptionError(_path(path, manifest.first_sequence), 0, "the segment is missing, and there is no other")
    if firsts[0] != manifest.first_sequence:
        raise CorruptionError(_path(path, manifest.first_sequence), 0, "the first segment is missing")
    successor = _empty_header(disk, path, manifest, firsts[-1]) if len(firsts) > 1 else None
    if successor is not None:
        firsts.pop()
    sealed, past, before = _examine_sealed(disk, path, manifest, firsts)
    findings = _examine_active(disk, path, manifest, firsts[-1], before, successor)
    former = relations_name(firsts[-1])  # a table of the segment that goes on is of a former life, when it was sealed
    return findings._replace(
        sealed=sealed,
        past=past,
        left_over=sorted({first for first in map(segment_of, names) if first is not None and first < firsts[0]}),
        unnamed=[name for name in names if is_unnamed(name) or name == former],
        bookmarks=[name for name in names if is_bookmark_in_the_making(name)],
        empty_successor=None if successor is None else segment_name(successor.first_sequence),
    )


def verify(disk: Disk, path: str, extents: list[Extent], progress: Progress) -> Iterator[CorruptionError]:
    """Read every frame of the sealed ones among these segments; what does not check comes out, one a segment.

    The active one was read whole when it was examined.
    """
    for extent in extents:
        with opened(disk, extent.path) as descriptor:
            try:
                said = read_footer(disk, descriptor, extent.path, extent.header.seed)
                if said is None:
                    continue
                walk = _walk(extent.header)
                contents = Contents(extent.first_sequence, extent.header.link)
                for _, frame, _ in walk_frames(disk, descriptor, walk, said.end, progress):
                    contents.take(frame.first_sequence, frame.records, frame.time, frame.size, frame.check)
                if walk.offset != said.end:
                    raise what_stopped(extent.path, walk)
                if contents != said:
                    raise CorruptionError(extent.path, said.end, "the footer does not fit the frames")
            except CorruptionError as error:
                yield error


# examining


def _empty_header(disk: Disk, path: str, manifest: Manifest, first_sequence: int) -> SegmentHeader | None:
    """The header of a segment that has no frame and never had one."""
    name = _path(path, first_sequence)
    with opened(disk, name) as descriptor:
        header = read_header(disk, descriptor, name, manifest.store_id, first_sequence)
        return header if is_unwritten(disk, descriptor) else None


def _examine_sealed(
    disk: Disk, path: str, manifest: Manifest, firsts: list[int]
) -> tuple[list[Extent], list[Sealed], Contents | None]:
    """All segments but the last: their headers, their footers, and that each follows the one before."""
    extents: list[Extent] = []
    past: list[Sealed] = []
    before: Contents | None = None
    for first in firsts[:-1]:
        name = _path(path, first)
        with opened(disk, name) as descriptor:
            header = _follow(disk, descriptor, name, manifest, first, before)
            before = read_footer(disk, descriptor, name, header.seed)
            size = disk.size(descriptor)
            if before is None:
                raise CorruptionError(name, size, "the footer of a sealed segment is missing")
        extents.append(Extent(first, name, header, None))
        past.append(Sealed(first, before.next_sequence, size, before.last_time))
    return extents, past, before


def _follow(
    disk: Disk, descriptor: int, name: str, manifest: Manifest, first: int, before: Contents | None
) -> SegmentHeader:
    """The header of a segment that continues where ``before`` ends."""
    header = read_header(disk, descriptor, name, manifest.store_id, first)
    if before is not None and before.next_sequence != first:
        missing = f"sequences {before.next_sequence} to {first - 1} are missing before this segment"
        raise CorruptionError(name, 0, missing)
    if before is not None and before.link != header.link:
        raise CorruptionError(name, 0, "the segment does not follow the one before it")
    return header


def _examine_active(
    disk: Disk, path: str, manifest: Manifest, first: int, before: Contents | None, successor: SegmentHeader | None
) -> Findings:
    """The last segment with frames, frame by frame; ``successor`` is what a roll behind it left when it was cut short."""
    name = _path(path, first)
    with opened(disk, name) as descriptor:
        header = _follow(disk, descriptor, name, manifest, first, before)
        size = end = disk.size(descriptor)
        footer = _footer_if_sound(disk, descriptor, name, header.seed)
        if footer is not None:
            if successor is None or (successor.first_sequence, successor.link) != (footer.next_sequence, footer.link):
                raise CorruptionError(name, footer.end, "the segment is sealed, but the one behind it is missing")
            end = footer.end
        contents = Contents(first, header.link)
        marked = False
        walk = _walk(header)
        for _, frame, _ in walk_frames(disk, descriptor, walk, end):
            contents.take(frame.first_sequence, frame.records, frame.time, frame.size, frame.check)
            marked = frame.watermark == frame.next_sequence
        if walk.unknown_flags:
            raise what_stopped(name, walk)
        torn = _judge_tail(disk, descriptor, name, walk, end)
    if torn is None and footer is not None and contents.next_sequence < footer.next_sequence:
        records = footer.next_sequence - contents.next_sequence
        torn = Torn(contents.end, size - contents.end, "zeros where the footer tells of frames", records, True)
    if contents.next_sequence < manifest.synced_sequence:
        lost = f"sequences {contents.next_sequence} to {manifest.synced_sequence - 1} are missing: they had been synced"
        raise CorruptionError(name, contents.end, f"{torn.reason}; {lost}" if torn else lost)
    extent = Extent(first, name, header, contents.index)
    return Findings(manifest, [], extent, contents, walk.watermark, marked and size == contents.end, size, torn)


def _footer_if_sound(disk: Disk, descriptor: int, name: str, seed: int) -> Contents | None:
    """The footer of a segment that may never have been sealed: what does not check there is no footer."""
    try:
        return read_footer(disk, descriptor, name, seed)
    except CorruptionError:
        return None


def _judge_tail(disk: Disk, descriptor: int, name: str, walk: Walk, end: int) -> Torn | None:
    """What the bytes behind the last sound frame are: nothing but zeros, a torn tail, or damage."""
    last = 0  # the offset behind the last byte that is not zero
    records, owed, frames, expected = 0, True, 0, walk.sequence
    reason = walk.fault or "the file ends within a frame"
    for offset, piece in _pieces(disk, descriptor, walk.offset, end):
        filled = len(piece.rstrip(b"\0"))
        if filled:
            last = offset + filled
        for _, header in search(piece, 0, walk.seed):
            if header.watermark > walk.sequence:
                proof = f"{reason}, but a later frame proves that sequence {walk.sequence} had been synced"
                raise CorruptionError(name, walk.offset, proof)
            frames += 1
            records += header.records
            owed = owed and bool(header.flags & Flag.OWES_SYNC) and header.first_sequence == expected
            expected = header.next_sequence
    if not last:
        return None
    return Torn(walk.offset, last - walk.offset, reason, records, not (frames and owed))


def _pieces(disk: Disk, descriptor: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The bytes from start to end, in pieces that overlap by less than a frame header, so that none falls between two."""
    offset = start
    while offset < end:
        piece = disk.read(descriptor, min(READ_BYTES, end - offset), offset)
        yield offset, piece
        if offset + len(piece) >= end or len(piece) < HEADER_BYTES:
            return
        offset += len(piece) - HEADER_BYTES + 1


def _walk(header: SegmentHeader) -> Walk:
    return Walk(seed=header.seed, offset=SEGMENT_HEADER_BYTES, sequence=header.first_sequence, link=header.link)


# mending


def _create(
    disk: Disk, path: str, max_segment_bytes: int, retention: Retention | None, store_id: bytes, now: int
) -> tuple[Journal, RecoveryReport]:
    """A new store: the first segment, and then the manifest that says that there is one."""
    disk.sync_name(path)
    segment = Segment.create(disk, _path(path, 0), SegmentHeader(store_id, 0, now, 0))
    try:
        manifest = Manifest(store_id, 0, 0)
        write_manifest(disk, path, manifest)
    except BaseException:
        segment.close()
        raise
    journal = Journal(
        disk,
        path,
        manifest,
        [],
        segment,
        synced_sequence=0,
        max_segment_bytes=max_segment_bytes,
        marked=False,
        retention=retention,
    )
    return journal, RecoveryReport(created=True, clean=True, first_sequence=0, next_sequence=0, segments=1)


def _mend(
    disk: Disk, path: str, findings: Findings, max_segment_bytes: int, retention: Retention | None
) -> tuple[Journal, RecoveryReport]:
    """Bring the files into the state that the findings describe, and continue there."""
    active, contents, torn = findings.active, findings.contents, findings.torn
    report = RecoveryReport(
        created=False,
        clean=findings.is_clean,
        first_sequence=findings.manifest.first_sequence,
        next_sequence=contents.next_sequence,
        segments=len(findings.extents),
    )
    descriptor = disk.open(active.path, writable=True)
    try:
        _remove(disk, path, findings.unnamed)
        for name in findings.bookmarks:
            with suppress(OSError):  # it is in nobody's way
                disk.try_remove(f"{path}/{name}")
        if torn is not None:
            name_of = partial(cut_name, active.first_sequence, torn.offset)
            kept = put_aside(disk, path, name_of, disk.read(descriptor, torn.size, torn.offset))
            report = report._replace(
                cut_bytes=torn.size,
                cut_from=active.path,
                cut_offset=torn.offset,
                cut_reason=torn.reason,
                cut_kept_in=kept,
                cut_records=torn.records,
                cut_possibly_acknowledged=torn.possibly_acknowledged,
            )
        rewritten = _write_again(disk, descriptor, findings)
        if not findings.marked:
            sync(disk, descriptor)
            sync_directory(disk, path)  # a process that died may have made a name, and not made it durable
            report = report._replace(rewritten_bytes=rewritten)
        if findings.empty_successor is not None:
            # only now: as long as a footer may come back after a power cut, a successor must be there
            _remove(disk, path, [findings.empty_successor])
        segment = Segment(disk, active.path, descriptor, active.header, contents, contents.end)
        segment.dirty = findings.marked  # the mark was written again, and not synced
        journal = Journal(
            disk,
            path,
            findings.manifest,
            findings.sealed,
            segment,
            synced_sequence=contents.next_sequence,
            max_segment_bytes=max_segment_bytes,
            marked=findings.marked,
            past=Past(disk, path, findings.past, findings.left_over),
            retention=retention,
        )
        if findings.left_over:
            sync_directory(disk, path)  # the manifest that says so may have a name that is not durable
            while journal.sweep():
                pass
        if not findings.marked:
            journal.mark()
        return journal, report
    except BaseException:
        disk.close(descriptor)
        raise


def _write_again(disk: Disk, descriptor: int, findings: Findings) -> int:
    """Trim what is behind the frames, and write once more those that no watermark proves. How many bytes that were.

    Of a clean store that is the mark: its own sync may be the one that failed.
    """
    contents = findings.contents
    if findings.size != contents.end:
        disk.truncate(descriptor, contents.end)
    start = contents.unproven_from(findings.watermark)
    for offset in range(start, contents.end, READ_BYTES):
        piece = disk.read(descriptor, min(READ_BYTES, contents.end - offset), offset)
        disk.write(descriptor, [piece], offset)
    return contents.end - start


def _remove(disk: Disk, path: str, names: Sequence[str]) -> None:
    for name in names:
        disk.remove(f"{path}/{name}")
    if names:
        sync_directory(disk, path)


# the operating system


def _path(path: str, first_sequence: int) -> str:
    return f"{path}/{segment_name(first_sequence)}"


def _size(disk: Disk, name: str) -> int:
    with opened(disk, name) as descriptor:
        return disk.size(descriptor)
