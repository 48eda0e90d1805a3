"""What is in the directory of a store: every byte explained, or an error. Blocking.

Nothing is changed here. An opening examines the directory before it writes anything, `recovery`
says what is done about what was found; readers and `inspect` go by the same findings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from aquipu.errors import CorruptionError
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.format.frame import HEADER_BYTES, Flag, Header
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import (
    MANIFEST,
    first_sequence_of,
    is_bookmark_in_the_making,
    is_unnamed,
    relations_name,
    segment_name,
    segment_of,
)
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader, SegmentSummary
from aquipu.local.format.walk import search
from aquipu.local.read.copied import Copied
from aquipu.local.read.frames import FrameWalk
from aquipu.local.read.segment_reader import (
    READ_BYTES,
    OnProgress,
    SegmentReader,
    SegmentRef,
    check_follows,
    is_unwritten,
    read_footer,
    read_header,
)
from aquipu.local.retain.manifest import read_finished
from aquipu.local.retain.retention import SealedSegment


class Torn(NamedTuple):
    """A torn tail: bytes behind the last sound frame that nothing proves."""

    offset: int
    size: int
    reason: str
    records: int
    possibly_acknowledged: bool


class Findings(NamedTuple):
    """A store that can be opened: what is in its directory."""

    manifest: Manifest
    sealed: list[SegmentRef]
    active: SegmentRef
    contents: SegmentSummary
    """What the active segment holds."""
    watermark: int
    """Sequence before which all was synced, as the frames or the manifest prove."""
    marked: bool
    """Whether a mark is the last frame."""
    size: int
    """Bytes of the active segment's file."""
    torn: Torn | None
    sealed_segments: Sequence[SealedSegment] = ()
    """The sealed segments, as purges and the retention see them."""
    left_over: Sequence[int] = ()
    """First sequences of segments that were purged, and of which files are still there."""
    unnamed: Sequence[str] = ()
    """Files that were never finished."""
    bookmarks: Sequence[str] = ()
    """Files of bookmarks that are being made, or whose making was cut short."""
    empty_successor: str | None = None
    """File name of the empty segment that a roll left when it was cut short."""
    is_purged: bool = False
    """Whether the log begins later than the manifest on the disk says: see `copied`."""

    @property
    def segments(self) -> list[SegmentRef]:
        return [*self.sealed, self.active]

    @property
    def is_proven(self) -> bool:
        """Whether all frames are known to be on the disk: by a mark behind them, or the manifest.

        Of a backup, or what was restored, it is the manifest, written when all was synced.
        """
        contents = self.contents
        return self.marked or (
            self.manifest.synced_sequence >= contents.next_sequence
            and self.size == contents.end > SEGMENT_HEADER_BYTES
        )

    @property
    def is_clean(self) -> bool:
        return (
            self.is_proven
            and self.torn is None
            and not self.unnamed
            and self.empty_successor is None
        )


def examine(disk: Disk, path: str) -> Findings | None:
    """Return what is in the directory, without changing anything.

    None for no store, or one whose creation was cut short. Raises CorruptionError or
    UnsupportedFormatError.
    """
    names = disk.list(path)
    firsts = sorted(first for name in names if (first := first_sequence_of(name)) is not None)
    if MANIFEST not in names:
        if not firsts or (firsts == [0] and _size(disk, _path(path, 0)) <= SEGMENT_HEADER_BYTES):
            return None
        raise CorruptionError(f"{path}/{MANIFEST}", 0, "the manifest is missing")
    manifest = read_finished(disk, path)
    copied = Copied(disk, path, manifest)
    try:
        return _examine(disk, path, names, manifest, firsts, copied)
    except CorruptionError as error:
        raise copied.judged(error) from None


def _examine(
    disk: Disk,
    path: str,
    names: Sequence[str],
    manifest: Manifest,
    firsts: list[int],
    copied: Copied,
) -> Findings:
    """Explain every byte of a directory that has a manifest."""
    begins = manifest.first_sequence
    if begins not in firsts and copied.first_sequence in firsts:
        manifest = manifest._replace(first_sequence=max(begins, copied.first_sequence))
    firsts = [first for first in firsts if first >= manifest.first_sequence]
    if not firsts:
        raise CorruptionError(
            _path(path, manifest.first_sequence), 0, "the segment is missing, and there is no other"
        )
    if firsts[0] != manifest.first_sequence:
        raise CorruptionError(
            _path(path, manifest.first_sequence), 0, "the first segment is missing"
        )
    successor = _empty_header(disk, path, manifest, firsts[-1]) if len(firsts) > 1 else None
    if successor is not None:
        firsts.pop()
    sealed, sealed_segments, before = _examine_sealed(disk, path, manifest, firsts)
    findings = _examine_active(disk, path, manifest, firsts[-1], before, successor, copied)
    former = relations_name(
        firsts[-1]
    )  # a label index of the segment that goes on is from when it was sealed
    return findings._replace(
        sealed=sealed,
        sealed_segments=sealed_segments,
        left_over=sorted(
            {first for first in map(segment_of, names) if first is not None and first < firsts[0]}
        ),
        unnamed=[name for name in names if is_unnamed(name) or name == former],
        bookmarks=[name for name in names if is_bookmark_in_the_making(name)],
        empty_successor=None if successor is None else segment_name(successor.first_sequence),
        is_purged=manifest.first_sequence != begins,
    )


def verify(
    disk: Disk, path: str, segments: list[SegmentRef], progress: OnProgress
) -> Iterator[CorruptionError]:
    """Read every frame of the sealed ones among these segments, and yield what does not check.

    At most one error a segment. The active one was read whole when it was examined.
    """
    for ref in segments:
        with ref.open(disk) as reader:
            try:
                said = read_footer(disk, reader.descriptor, ref.path, ref.header.seed)
                if said is None:
                    continue
                walk = reader.walk()
                contents = SegmentSummary(ref.first_sequence, ref.header.link)
                for frame in reader.frames(walk, said.end, progress):
                    _take(contents, frame.header)
                if walk.offset != said.end:
                    raise walk.stopped()
                if contents != said:
                    raise CorruptionError(ref.path, said.end, "the footer does not fit the frames")
            except CorruptionError as error:
                yield error


def _empty_header(
    disk: Disk, path: str, manifest: Manifest, first_sequence: int
) -> SegmentHeader | None:
    """Return the header of a segment that has no frame and never had one; None for another."""
    name = _path(path, first_sequence)
    with opened(disk, name) as descriptor:
        header = read_header(disk, descriptor, name, manifest.store_id, first_sequence)
        return header if is_unwritten(disk, descriptor) else None


def _examine_sealed(
    disk: Disk, path: str, manifest: Manifest, firsts: list[int]
) -> tuple[list[SegmentRef], list[SealedSegment], SegmentSummary | None]:
    """Check all segments but the last: headers, footers, and that each follows the one before."""
    segments: list[SegmentRef] = []
    sealed_segments: list[SealedSegment] = []
    before: SegmentSummary | None = None
    for first in firsts[:-1]:
        name = _path(path, first)
        with opened(disk, name) as descriptor:
            header = _follow(disk, descriptor, name, manifest, first, before)
            ref = SegmentRef(first, name, header, None)
            reader = SegmentReader(disk, ref, descriptor)
            before, size = reader.footer(), reader.size
        segments.append(ref._replace(times=(before.first_time, before.last_time)))
        sealed_segments.append(
            SealedSegment(first, before.next_sequence, size, before.last_time, before.first_time)
        )
    return segments, sealed_segments, before


def _follow(
    disk: Disk,
    descriptor: int,
    name: str,
    manifest: Manifest,
    first: int,
    before: SegmentSummary | None,
) -> SegmentHeader:
    """Return the header of a segment that continues where ``before`` ends."""
    header = read_header(disk, descriptor, name, manifest.store_id, first)
    if before is not None:
        check_follows(name, header, before.next_sequence, before.link)
    return header


def _examine_active(
    disk: Disk,
    path: str,
    manifest: Manifest,
    first: int,
    before: SegmentSummary | None,
    successor: SegmentHeader | None,
    copied: Copied,
) -> Findings:
    """Check the last segment with frames, frame by frame.

    ``successor`` is what a roll behind it left when it was cut short.
    """
    name = _path(path, first)
    with opened(disk, name) as descriptor:
        header = _follow(disk, descriptor, name, manifest, first, before)
        size = end = disk.size(descriptor)
        footer = _footer_if_sound(disk, descriptor, name, header.seed)
        if footer is not None:
            follows = None if successor is None else (successor.first_sequence, successor.link)
            is_followed = follows == (footer.next_sequence, footer.link)
            if not is_followed and not copied.is_whole_before(footer.next_sequence):
                raise CorruptionError(
                    name, footer.end, "the segment is sealed, but the one behind it is missing"
                )
            end = footer.end
        contents = SegmentSummary(first, header.link)
        ref = SegmentRef(first, name, header, contents.index)
        reader = SegmentReader(disk, ref, descriptor)
        marked = False
        walk = reader.walk()
        for frame in reader.frames(walk, end):
            _take(contents, frame.header)
            marked = frame.header.watermark == frame.header.next_sequence
        if walk.unknown_flags:
            raise walk.stopped()
        torn = _judge_tail(disk, descriptor, walk, end, copied)
    if torn is None and footer is not None and contents.next_sequence < footer.next_sequence:
        records = footer.next_sequence - contents.next_sequence
        torn = Torn(
            contents.end,
            size - contents.end,
            "zeros where the footer tells of frames",
            records,
            True,
        )
    if contents.next_sequence < manifest.synced_sequence:
        lost = (
            f"sequences {contents.next_sequence} to {manifest.synced_sequence - 1} are missing: "
            "they had been synced"
        )
        raise CorruptionError(name, contents.end, f"{torn.reason}; {lost}" if torn else lost)
    watermark = max(walk.watermark, manifest.synced_sequence)
    is_marked = marked and size == contents.end
    return Findings(manifest, [], ref, contents, watermark, is_marked, size, torn)


def _footer_if_sound(disk: Disk, descriptor: int, name: str, seed: int) -> SegmentSummary | None:
    """Return the footer of a segment that may never have been sealed, if it is sound.

    What does not check there is no footer.
    """
    try:
        return read_footer(disk, descriptor, name, seed)
    except CorruptionError:
        return None


def _judge_tail(
    disk: Disk, descriptor: int, walk: FrameWalk, end: int, copied: Copied
) -> Torn | None:
    """Return the torn tail behind the last sound frame, or None for zeros; raise for damage."""
    last = 0  # the offset behind the last byte that is not zero
    records, owed, frames, expected = 0, True, 0, walk.sequence
    reason = walk.fault or "the file ends within a frame"
    for offset, piece in _pieces(disk, descriptor, walk.offset, end):
        filled = len(piece.rstrip(b"\0"))
        if filled:
            last = offset + filled
        for _, header in search(piece, 0, walk.seed):
            if header.watermark > walk.sequence and not copied.is_whole_before(walk.sequence):
                proof = (
                    f"{reason}, but a later frame proves that "
                    f"sequence {walk.sequence} had been synced"
                )
                raise CorruptionError(walk.path, walk.offset, proof)
            frames += 1
            records += header.records
            owed = (
                owed and bool(header.flags & Flag.OWES_SYNC) and header.first_sequence == expected
            )
            expected = header.next_sequence
    if not last:
        return None
    return Torn(walk.offset, last - walk.offset, reason, records, not (frames and owed))


def _pieces(disk: Disk, descriptor: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the bytes from start to end, in overlapping pieces.

    They overlap by less than a frame header, so that none falls between two.
    """
    offset = start
    while offset < end:
        piece = disk.read(descriptor, min(READ_BYTES, end - offset), offset)
        yield offset, piece
        if offset + len(piece) >= end or len(piece) < HEADER_BYTES:
            return
        offset += len(piece) - HEADER_BYTES + 1


def _take(contents: SegmentSummary, frame: Header) -> None:
    contents.take(frame.first_sequence, frame.records, frame.time, frame.size, frame.check)


def _path(path: str, first_sequence: int) -> str:
    return f"{path}/{segment_name(first_sequence)}"


def _size(disk: Disk, name: str) -> int:
    with opened(disk, name) as descriptor:
        return disk.size(descriptor)
