"""Each segment of a store as it stands: in a sound store, beside a writer, and in a damaged one.

Blocking. Only headers and footers are read, and the frames of what has no footer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from aquipu.errors import CorruptionError
from aquipu.local.check.actions import RepairAction
from aquipu.local.check.diagnosis.facts import IndexState, Kind, SegmentFacts, State
from aquipu.local.check.diagnosis.stretches import stretches_of, with_torn_tail
from aquipu.local.check.inspect import iso_time
from aquipu.local.check.verify import Damage
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.rights import rights_of
from aquipu.local.format.names import first_sequence_of, relations_name, segment_name
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentSummary, plain_bytes_in
from aquipu.local.read.segment_reader import (
    READ_BYTES,
    SegmentReader,
    SegmentRef,
    is_unwritten,
    read_footer,
    read_header,
)


class Log(NamedTuple):
    """What is known of the log when its segments are looked at."""

    store_id: bytes | None
    """None when damage hides it: then nothing of a segment can be read."""
    begins: int
    """Sequence of the first record kept."""
    stop: int | None = None
    """Beside a writer: one past the last record acknowledged; None for a store at rest."""
    damages: Sequence[Damage] = ()
    repair: Sequence[RepairAction] = ()

    def damaged(self, path: str) -> list[tuple[int, int | None]]:
        """Return what of a file is damaged: offsets, and bytes as far as they are known."""
        planned: list[tuple[int, int | None]] = [
            (action.offset, action.bytes) for action in self.repair if action.path == path
        ]
        if self.repair:
            return planned
        return [(one.offset, None) for one in self.damages if one.path == path]


class _Frames(NamedTuple):
    """Frames of a segment, as far as they are sound."""

    contents: SegmentSummary | None
    end: int
    behind: Kind
    state: State
    torn_bytes: int = 0
    """From their end up to the last byte that is not zero, in a store at rest."""


def segments_of(disk: Disk, path: str, log: Log) -> Iterator[SegmentFacts]:
    """Yield what stands in each segment file, the oldest first, and a line for each missing one.

    A file that a purge takes meanwhile is left out. Raises OSError.
    """
    names = set(disk.list(path))
    firsts = sorted(first for name in names if (first := first_sequence_of(name)) is not None)
    kept = [first for first in firsts if first >= log.begins]
    blamed = [*(one.path for one in log.damages), *(one.path for one in log.repair)]
    missing = {
        first for one in blamed if (first := first_sequence_of(one.rpartition("/")[2])) is not None
    } - set(firsts)
    for first in sorted({*firsts, *missing}):
        if first in missing:
            yield _missing(first)
            continue
        with suppress(FileNotFoundError):
            is_last = bool(kept) and first == kept[-1]
            yield _segment(disk, path, log, first, names, is_last=is_last)


def _missing(first: int) -> SegmentFacts:
    name, none = segment_name(first), IndexState.NONE
    return SegmentFacts(name, State.MISSING, first, None, None, 0, None, None, 0, none, 0, "", ())


def _segment(
    disk: Disk, path: str, log: Log, first: int, names: Collection[str], *, is_last: bool
) -> SegmentFacts:
    name = f"{path}/{segment_name(first)}"
    with opened(disk, name) as descriptor:
        size = disk.size(descriptor)
        plain_bytes = plain_bytes_in(disk.read(descriptor, SEGMENT_HEADER_BYTES, 0))
        found = _frames_of(disk, descriptor, name, log, first, is_last=is_last)
    damages = log.damaged(name)
    state = State.DAMAGED if damages else found.state
    if first < log.begins:
        state = State.LEFT_OVER
    stretches = stretches_of(size, found.end, found.behind, damages)
    if found.torn_bytes and not damages:
        stretches = with_torn_tail(stretches, found.end, found.torn_bytes)
    contents = found.contents
    index, index_bytes = _index(disk, path, log, first, names, found.state)
    has_times = contents is not None and contents.frames > 0 and contents.first_time > 0
    return SegmentFacts(
        name=segment_name(first),
        state=state,
        first_sequence=first,
        next_sequence=None if contents is None else contents.next_sequence,
        frames=None if contents is None else contents.frames,
        bytes=size,
        first_time=iso_time(contents.first_time) if contents is not None and has_times else None,
        last_time=iso_time(contents.last_time) if contents is not None and has_times else None,
        plain_bytes=0 if contents is None else plain_bytes,
        index=index,
        index_bytes=index_bytes,
        mode=rights_of(name)[0],
        stretches=stretches,
    )


def _frames_of(
    disk: Disk, descriptor: int, name: str, log: Log, first: int, *, is_last: bool
) -> _Frames:
    if log.store_id is None:
        return _Frames(None, 0, Kind.DAMAGE, State.DAMAGED)
    try:
        header = read_header(disk, descriptor, name, log.store_id, first)
    except CorruptionError:
        return _Frames(None, 0, Kind.DAMAGE, State.DAMAGED)
    footer = None
    with suppress(CorruptionError):  # then its frames say what it holds
        footer = read_footer(disk, descriptor, name, header.seed)
    if footer is not None:
        return _Frames(footer, footer.end, Kind.FOOTER, State.SEALED)
    if is_last and first > log.begins and log.stop is None and is_unwritten(disk, descriptor):
        return _Frames(SegmentSummary(first, header.link), 0, Kind.UNWRITTEN, State.EMPTY)
    contents = _walked(disk, descriptor, SegmentRef(first, name, header, None), log.stop)
    behind = Kind.UNWRITTEN if log.stop is None else Kind.BEHIND
    torn = _filled(disk, descriptor, contents.end) if log.stop is None else 0
    return _Frames(contents, contents.end, behind, State.ACTIVE, torn)


def _filled(disk: Disk, descriptor: int, start: int) -> int:
    """Return the number of bytes from there up to the last one that is not zero."""
    offset, last = start, start
    while piece := disk.read(descriptor, READ_BYTES, offset):
        filled = len(piece.rstrip(b"\0"))
        last = offset + filled if filled else last
        offset += len(piece)
    return last - start


def _walked(disk: Disk, descriptor: int, ref: SegmentRef, stop: int | None) -> SegmentSummary:
    """Return a summary of the frames from the first one on, as far as they check and are wanted."""
    reader = SegmentReader(disk, ref, descriptor)
    walk = reader.walk()
    contents = SegmentSummary(ref.first_sequence, ref.header.link)
    for frame in reader.frames(walk, reader.size):
        header = frame.header
        if stop is not None and header.next_sequence > stop:
            break
        contents.take(header.first_sequence, header.records, header.time, header.size, header.check)
    return contents


def _index(
    disk: Disk, path: str, log: Log, first: int, names: Collection[str], state: State
) -> tuple[IndexState, int]:
    name = relations_name(first)
    if state in (State.ACTIVE, State.EMPTY):
        return IndexState.NONE, 0
    if name not in names:
        return IndexState.MISSING, 0
    with opened(disk, f"{path}/{name}") as descriptor:
        size = disk.size(descriptor)
    if any(one.path == f"{path}/{name}" for one in log.damages):
        return IndexState.DAMAGED, size
    return IndexState.THERE, size
