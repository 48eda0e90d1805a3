"""Segments and parts of them as bytes, checked frame by frame. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from aquipu.archive.format.entry import PLAIN, Place, Segment
from aquipu.errors import CorruptionError, UnsupportedFormatError
from aquipu.local.format.frame import Flag, encode, mark
from aquipu.local.format.segment import (
    FOOTER_BYTES,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    SegmentSummary,
    footer_bytes,
    is_sealed,
)
from aquipu.local.format.structure import Damage, Unsupported
from aquipu.local.read.frames import Frame, FrameWalk, find_end
from aquipu.record import Record

_PIECE_BYTES = 256 * 1024  # fed at a time: a walk copies what it is fed


class Part(NamedTuple):
    """Whole frames of a segment."""

    data: memoryview
    start: int
    """Sequence of the first record."""
    stop: int
    """One past the last record."""
    last: Place | None
    """Last frame that holds records."""


def check_segment(
    path: str, header: SegmentHeader, data: bytes, pause: Callable[[], object] = lambda: None
) -> SegmentSummary:
    """Return what the footer of a sealed segment says, when every frame has been checked.

    Raises CorruptionError, which names ``path``, or UnsupportedFormatError.
    """
    if data[:SEGMENT_HEADER_BYTES] != header.encode():
        raise CorruptionError(path, 0, "the header of the segment is another")
    tail = data[-footer_bytes(data) :] if is_sealed(data[-FOOTER_BYTES:]) else b""
    try:
        said = SegmentSummary.decode_footer(tail, header.seed)
    except Damage as damage:
        raise CorruptionError(path, len(data) - len(tail), str(damage)) from None
    found = summary_of(path, header, memoryview(data)[: len(data) - len(tail)], pause)
    if found != said:
        raise CorruptionError(path, said.end, "the footer does not fit the frames")
    return said


def header_in(path: str, like: SegmentHeader, data: bytes) -> SegmentHeader:
    """Return the header of a segment that may have been compressed since ``like`` was read.

    Raises CorruptionError, which names ``path``, or UnsupportedFormatError.
    """
    try:
        header = SegmentHeader.decode(data, like.store_id, like.first_sequence)
    except Damage as damage:
        raise CorruptionError(path, 0, str(damage)) from None
    except Unsupported as unsupported:
        raise UnsupportedFormatError(path, str(unsupported)) from None
    if header._replace(plain_bytes=like.plain_bytes) != like:
        raise CorruptionError(path, 0, "the header of the segment is another")
    return header


def summary_of(
    path: str,
    header: SegmentHeader,
    data: bytes | memoryview,
    pause: Callable[[], object] = lambda: None,
    admit: Callable[[int, int], bool] = lambda next_sequence, time: True,
) -> SegmentSummary:
    """Return a summary of the frames of a segment: of all of them, each checked.

    Or of those before the first that is not to be admitted, by the sequence behind it and the time
    of its last record. Raises as `check_segment`.
    """
    nothing = SegmentSummary(header.first_sequence, header.link)
    return summary_behind(
        nothing, path, header, memoryview(data)[SEGMENT_HEADER_BYTES:], pause, admit
    )


def summary_behind(
    before: SegmentSummary,
    path: str,
    header: SegmentHeader,
    data: bytes | memoryview,
    pause: Callable[[], object] = lambda: None,
    admit: Callable[[int, int], bool] = lambda next_sequence, time: True,
) -> SegmentSummary:
    """Return a summary of some frames, and of those in these bytes, which follow; `summary_of`."""
    found = before.copy()
    walk = FrameWalk(path, header, (before.next_sequence, before.end))
    walk.link = before.link
    for begin in range(0, len(data), _PIECE_BYTES):
        walk.feed(bytes(data[begin : begin + _PIECE_BYTES]))
        for frame in walk.ready():
            said = frame.header
            if not admit(said.next_sequence, said.time):
                return found
            found.take(said.first_sequence, said.records, said.time, said.size, said.check)
            pause()
    if walk.fault is not None or walk.offset != before.end + len(data):
        raise walk.stopped()
    return found


def frames_in(path: str, header: SegmentHeader, data: bytes, end: int) -> Iterator[Frame]:
    """Yield the frames of a segment, which end at this offset. Raises as `check_segment`."""
    walk = FrameWalk(path, header)
    for begin in range(SEGMENT_HEADER_BYTES, end, _PIECE_BYTES):
        walk.feed(data[begin : min(begin + _PIECE_BYTES, end)])
        yield from walk.ready()
    if walk.offset != end:
        raise walk.stopped()


def begins_with(path: str, header: SegmentHeader, data: bytes, older: bytes) -> bool:
    """Return whether every record of an older form of a segment, at ``path``, stands in this one.

    Either may be compressed, or sealed. False also for an older form that is damaged.
    """
    if data.startswith(older):
        return True
    records = _records(path, header, data)
    try:
        return all(one == next(records, None) for one in _records(path, header, older))
    except (CorruptionError, UnsupportedFormatError):
        return False


def _records(path: str, like: SegmentHeader, data: bytes) -> Iterator[Record]:
    end = len(data) - (footer_bytes(data) if is_sealed(data[-FOOTER_BYTES:]) else 0)
    for frame in frames_in(path, header_in(path, like, data), data, end):
        yield from frame.records()


def part_of(
    path: str, header: SegmentHeader, begin: tuple[int, int], data: bytes, stop: int
) -> Part:
    """Return the whole frames at the beginning of these bytes, up to the sequence ``stop``.

    They begin at a sequence and an offset. Raises as `check_segment` for a frame that is whole and
    does not check.
    """
    start, offset = begin
    walk, last, end, reached = FrameWalk(path, header, begin), None, offset, start
    walk.feed(data)
    for frame in walk.ready():
        if reached >= stop:
            break
        end, reached = frame.offset + frame.header.size, frame.header.next_sequence
        if frame.header.records:
            last = Place(frame.offset, frame.header.check)
    if reached < stop and walk.fault is not None:
        raise walk.stopped()
    return Part(memoryview(data)[: end - offset], start, reached, last)


def sealed(
    path: str, header: SegmentHeader, young: bytes, next_sequence: int, link: int
) -> bytes | None:
    """Return a sealed segment of the header and the frames that were archived of it.

    It ends before a sequence, with the frame that has this check; None when none can be that one.
    Raises as `check_segment`.
    """
    walk = FrameWalk(path, header)
    walk.feed(young[SEGMENT_HEADER_BYTES:])
    found = find_end(header, walk.ready(), next_sequence, link)
    if found is not None:
        return young[: found.copied] + found.marks + found.contents.encode_footer(header.seed)
    if walk.fault is not None:
        raise walk.stopped()
    return None


def begun(header: SegmentHeader) -> bytes:
    """Return a segment without a record, in which a writer goes on: behind a frame of none.

    Without that frame, opening the store would take it for what a roll has left that was cut short.
    """
    first = header.first_sequence
    frame = mark(first_sequence=first, time=0, watermark=first, link=header.link, seed=header.seed)
    return header.encode() + b"".join(frame.buffers)


class Cut(NamedTuple):
    """The beginning of a segment, without a footer."""

    data: bytes
    next_sequence: int
    """Sequence behind the last record."""
    last_time: int = 0
    """Time of the last commit, in nanoseconds since the epoch; 0 without any."""


def cut(path: str, header: SegmentHeader, data: bytes, admit: Callable[[int, int], bool]) -> Cut:
    """Return a segment up to the first commit not to be admitted.

    A frame that holds several commits because it
    was compressed is cut at a record. Raises as `check_segment`.
    """
    found = summary_of(path, header, data, admit=admit)
    kept, behind = data[: found.end], found.next_sequence
    walk = FrameWalk(path, header, (behind, found.end))
    walk.feed(data[found.end :])
    for frame in walk.ready():
        if frame.header.flags & Flag.COMPRESSED:
            records = [one for one in frame.records() if admit(one.sequence + 1, one.timestamp)]
            if records:
                keys = [k for k in frame.commit_keys() if k.first + k.records <= len(records)]
                made = encode(
                    [one.data for one in records],
                    [one.timestamp for one in records],
                    labels={n: one.relations for n, one in enumerate(records) if one.relations},
                    keys=keys,
                    first_sequence=behind,
                    time=records[-1].timestamp,
                    watermark=behind,
                    link=found.link,
                    seed=header.seed,
                )
                whole = kept + b"".join(made.buffers)
                return Cut(whole, behind + len(records), records[-1].timestamp)
        break
    return Cut(kept, behind, found.last_time)


def last_record(path: str, header: SegmentHeader, begin: tuple[int, int], data: bytes) -> Record:
    """Return the last record of a young part that begins at this sequence and offset."""
    walk, last = FrameWalk(path, header, begin), None
    walk.feed(data)
    for frame in walk.ready():
        last = frame if frame.header.records else last
    if last is None:
        raise walk.stopped()
    return last.record(last.header.next_sequence - 1)


def described(
    header: SegmentHeader, summary: SegmentSummary, data: bytes, digest: bytes
) -> Segment:
    """Return how a list names a segment whose object holds these bytes."""
    return Segment(
        header.first_sequence,
        summary.next_sequence,
        digest,
        len(data),
        len(data),
        PLAIN,
        header.plain_bytes,
        header.created,
        header.link,
        summary.link,
        summary.first_time,
        summary.last_time,
    )
