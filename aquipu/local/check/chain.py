"""The segments of a damaged store as a chain: each goes on where the one before ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, pairwise, zip_longest
from typing import NamedTuple

from aquipu.errors import (
    CorruptionError,
    UnsupportedFormatError,
)
from aquipu.local.check.actions import RepairAction, Step, firsts_in, size_of
from aquipu.local.check.indexes import damaged_indexes
from aquipu.local.check.placeholder import End, FilledSegment, Gap, fill_gaps, placeholders
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.format.frame import header_at
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import (
    cut_name,
    relations_name,
    segment_name,
)
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader, SegmentSummary, seed_of
from aquipu.local.format.structure import Unsupported
from aquipu.local.read.examine import verify
from aquipu.local.read.segment_reader import (
    OnProgress,
    SegmentRef,
    is_unwritten,
    read_footer,
    read_header,
)


class _Part(NamedTuple):
    """A segment file, and what of it is sound."""

    first: int
    path: str
    size: int
    header: SegmentHeader | None
    header_fault: str
    footer: SegmentSummary | None
    footer_fault: str
    link: int | None
    """The check of the last frame before it, as its header or its first frame says."""
    is_empty: bool
    """It holds no frame, and never did."""


class Chain:
    """The segments of a store, the oldest first: each one goes on where the one before ends."""

    def __init__(self, disk: Disk, path: str, manifest: Manifest, progress: OnProgress) -> None:
        self._disk = disk
        self._path = path
        self._manifest = manifest
        self._progress = progress
        firsts = [first for first in firsts_in(disk, path) if first >= manifest.first_sequence]
        self._parts = [_part(disk, path, manifest.store_id, first) for first in firsts]
        self._before: SegmentSummary | None = None

    @property
    def _expected(self) -> int:
        return self._manifest.first_sequence if self._before is None else self._before.next_sequence

    def plan_sealed(self, number: int) -> Iterator[Step]:
        """Plan repairs for the sealed segments of a store that still opens.

        There are ``number`` of them.
        """
        for part, following in islice(pairwise(self._parts), number):
            end = self._end_of(part, following)
            assert end is not None, "it was examined as sealed"
            yield from self._plan_sealed(part, end)

    def plan(self) -> Iterator[Step]:
        """Plan repairs for the segments of a store that cannot be opened."""
        for part, following in zip_longest(self._parts, self._parts[1:]):
            if part.first < self._expected:
                raise CorruptionError(
                    part.path,
                    0,
                    f"the segment overlaps the one before it, which ends at {self._expected}",
                )
            if part.first > self._expected:
                yield self._missing(part.first, part.link, is_last=False)
            end = self._end_of(part, following)
            if end is None:
                yield from self._plan_active(part, following)
                return
            yield from self._plan_sealed(part, end)
        yield self._missing(max(self._manifest.synced_sequence, self._expected), None, is_last=True)

    def _end_of(self, part: _Part, following: _Part | None) -> End | None:
        """Return where the frames of a segment end, as its footer and the next segment say.

        None for the one being written.
        """
        footer = part.footer
        if following is None or (
            footer is None and following is self._parts[-1] and following.is_empty
        ):
            return None if footer is None else End(footer.next_sequence, footer.link)
        if footer is None:
            return End(following.first, following.link)
        if (
            footer.next_sequence != following.first or following.link is None
        ):  # another one, between them, is missing
            return End(footer.next_sequence, footer.link)
        return End(following.first, following.link)

    def _plan_sealed(self, part: _Part, end: End) -> Iterator[Step]:
        footer, reason = part.footer, part.footer_fault
        if (
            part.header is not None
            and footer is not None
            and end == (footer.next_sequence, footer.link)
        ):
            segment = SegmentRef(part.first, part.path, part.header, None)
            errors = list(verify(self._disk, self._path, [segment], self._progress))
            if not errors:
                self._before = footer
                yield from self._plan_index(segment)
                return
            reason = errors[0].reason
        header = self._header(part)
        filled = self._filled(part, header, end)
        self._before = filled.contents
        gaps = filled.gaps
        if (
            part.header is not None and not gaps
        ):  # what is left is the footer: missing, or it does not fit
            offset = part.size if footer is None else footer.end
            gaps = [Gap(offset, part.size - offset, reason, end.next_sequence, end.next_sequence)]
        yield self._replaced(part, gaps, partial(self._sealed_bytes, part, header, end))

    def _plan_active(self, part: _Part, following: _Part | None) -> Iterator[Step]:
        """Plan repairs for the segment that was being written.

        What may stand behind it is a roll that was cut short.
        """
        header = self._header(part)
        filled = self._filled(part, header, None)
        if part.header is None or filled.gaps:
            yield self._replaced(part, filled.gaps, partial(self._active_bytes, part, header))
        if following is not None and following.header is None:
            action = "removed: it never held a record"
            planned = RepairAction(
                following.path, 0, following.size, following.header_fault, action, None, None, None
            )
            yield Step(
                segment_name(following.first), (planned,), None, partial(cut_name, following.first)
            )

    def _plan_index(self, segment: SegmentRef) -> Iterator[Step]:
        for error in damaged_indexes(self._disk, [segment]):
            action = "removed: it is built again from its segment"
            planned = RepairAction(
                error.path,
                0,
                size_of(self._disk, error.path),
                error.reason,
                action,
                None,
                None,
                None,
            )
            yield Step(relations_name(segment.first_sequence), (planned,), None)

    def _missing(self, stop: int, target: int | None, *, is_last: bool) -> Step:
        """Plan a segment of placeholders where one is missing.

        ``target`` is the check that its last frame must have.
        """
        first, before = self._expected, self._before
        time, link = (before.last_time, before.link) if before is not None else (0, 0)
        header = SegmentHeader(self._manifest.store_id, first, time, link)
        contents, frames = SegmentSummary(first, link), []
        for records, frame in placeholders(
            first, stop, time=time, link=link, target=target, seed=header.seed
        ):
            contents.take(contents.next_sequence, records, time, frame.size, frame.check)
            frames += frame.buffers
        self._before = contents
        footer = b"" if is_last else contents.encode_footer(header.seed)
        name = segment_name(first)
        action = (
            "made anew, with empty records for those that are lost"
            if first < stop
            else "made anew, without a record"
        )
        lost = (first, stop) if first < stop else (None, None)
        planned = RepairAction(
            f"{self._path}/{name}", 0, 0, "the segment is missing", action, None, *lost
        )
        data = b"".join((header.encode(), *frames, footer))
        return Step(name, (planned,), lambda: data, stale_index=relations_name(first))

    def _header(self, part: _Part) -> SegmentHeader:
        """Return the header of a segment, or one made anew.

        The time of its creation is asked for only as that of the last record before it.
        """
        if part.header is not None:
            return part.header
        time, link = (
            (self._before.last_time, self._before.link) if self._before is not None else (0, 0)
        )
        return SegmentHeader(
            self._manifest.store_id, part.first, time, link if part.link is None else part.link
        )

    def _replaced(self, part: _Part, gaps: list[Gap], content: Callable[[], bytes]) -> Step:
        actions = [_action_for(part.path, gap) for gap in gaps]
        if part.header is None:
            size, action = (
                min(part.size, SEGMENT_HEADER_BYTES),
                "made anew from what stands around it",
            )
            actions.insert(
                0, RepairAction(part.path, 0, size, part.header_fault, action, None, None, None)
            )
        kept = partial(cut_name, part.first)
        return Step(
            segment_name(part.first),
            tuple(actions),
            content,
            kept,
            stale_index=relations_name(part.first),
        )

    def _filled(self, part: _Part, header: SegmentHeader, end: End | None) -> FilledSegment:
        with opened(self._disk, part.path) as descriptor:
            data = self._disk.read(descriptor, part.size, 0).ljust(SEGMENT_HEADER_BYTES, b"\0")
        if end is not None and part.footer is not None:
            data = data[: part.footer.end]
        try:
            return fill_gaps(data, header, end=end, proven=self._manifest.synced_sequence)
        except Unsupported as unsupported:
            raise UnsupportedFormatError(part.path, str(unsupported)) from None

    def _sealed_bytes(self, part: _Part, header: SegmentHeader, end: End) -> bytes:
        filled = self._filled(part, header, end)
        return filled.data + filled.contents.encode_footer(header.seed)

    def _active_bytes(self, part: _Part, header: SegmentHeader) -> bytes:
        filled = self._filled(part, header, None)
        return filled.data + filled.tail


def _action_for(path: str, gap: Gap) -> RepairAction:
    if gap.first_sequence == gap.next_sequence:
        return RepairAction(
            path,
            gap.offset,
            gap.size,
            gap.reason,
            "made anew: no record is lost",
            None,
            None,
            None,
        )
    action = "empty records stand in for those that are lost"
    return RepairAction(
        path,
        gap.offset,
        gap.size,
        gap.reason,
        action,
        None,
        gap.first_sequence,
        gap.next_sequence,
    )


def _part(disk: Disk, path: str, store_id: bytes, first: int) -> _Part:
    name, seed = f"{path}/{segment_name(first)}", seed_of(store_id, first)
    header, header_fault, footer, footer_fault = (
        None,
        "",
        None,
        "the footer of a sealed segment is missing",
    )
    with opened(disk, name) as descriptor:
        size = disk.size(descriptor)
        try:
            header = read_header(disk, descriptor, name, store_id, first)
        except CorruptionError as error:
            header_fault = error.reason
        try:
            footer = read_footer(disk, descriptor, name, seed)
        except CorruptionError as error:
            footer_fault = error.reason
        frame = header_at(
            disk.read(descriptor, SEGMENT_HEADER_BYTES, SEGMENT_HEADER_BYTES), 0, seed
        )
        is_empty = is_unwritten(disk, descriptor)
    link = header.link if header is not None else frame.link if frame is not None else None
    return _Part(first, name, size, header, header_fault, footer, footer_fault, link, is_empty)
