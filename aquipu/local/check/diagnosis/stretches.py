"""The stretches of a segment's file: what is where, without a gap and without an overlap. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aquipu.local.check.diagnosis.facts import Kind, Stretch
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES


def stretches_of(
    size: int, end: int, behind: Kind, damages: Iterable[tuple[int, int | None]] = ()
) -> tuple[Stretch, ...]:
    """Return the stretches of a file of so many bytes whose frames end at the offset ``end``.

    What stands behind them is ``behind``. Each damage is an offset and a number of bytes; None is
    all there is from there on.
    """
    end = max(min(end, size), min(SEGMENT_HEADER_BYTES, size))
    parts = [
        (Kind.HEADER, 0, min(SEGMENT_HEADER_BYTES, size)),
        (Kind.FRAMES, min(SEGMENT_HEADER_BYTES, size), end),
        (behind, end, size),
    ]
    for offset, number in sorted(damages, key=lambda damage: damage[0]):
        begin = min(max(offset, 0), max(size - 1, 0))
        stop = size if number is None else min(begin + max(number, 1), size)
        parts = list(_painted(parts, begin, stop))
    return tuple(_joined(parts))


def with_torn_tail(stretches: Iterable[Stretch], offset: int, size: int) -> tuple[Stretch, ...]:
    """Return the stretches with a torn tail in the place of what was said of these bytes."""
    parts = [(kind, begin, begin + number) for kind, begin, number in stretches]
    return tuple(_joined(_painted(parts, offset, offset + size, Kind.TORN)))


def _painted(
    parts: Iterable[tuple[Kind, int, int]], begin: int, stop: int, kind: Kind = Kind.DAMAGE
) -> Iterator[tuple[Kind, int, int]]:
    for was, start, end in parts:
        yield was, start, min(end, begin)
        yield kind, max(start, begin), min(end, stop)
        yield was, max(start, stop), end


def _joined(parts: Iterable[tuple[Kind, int, int]]) -> Iterator[Stretch]:
    last: Stretch | None = None
    for kind, start, end in parts:
        if start >= end:
            continue
        if last is not None and last.kind is kind:
            last = last._replace(bytes=end - last.offset)
            continue
        if last is not None:
            yield last
        last = Stretch(kind, start, end - start)
    if last is not None:
        yield last
