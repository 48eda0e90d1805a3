"""Which frames of a segment are compressed together, and what is made of them. Pure.

Small commits compress badly: a frame of one log line is hardly smaller than the line. So frames
that follow each other are put together, up to `BLOCK_BYTES`. More would gain little, and to read a
single record its whole block is decompressed. The first frame stays alone: it says when the first
commit of the segment was. Empty frames, which say only how much was synced when they were written,
are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from aquipu.local.format.frame import Encoded, packed
from aquipu.local.format.segment import SegmentHeader, SegmentSummary
from aquipu.local.read.frames import Frame

BLOCK_BYTES = 128 * 1024
"""Size of the frames of a block, before they are compressed: no more are added to so much."""


def blocks(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Yield the frames that are compressed together, in their order."""
    block: list[Frame] = []
    size, is_first = 0, True
    for frame in frames:
        if not frame.header.records:
            continue
        block.append(frame)
        size += frame.header.size
        if is_first or size >= BLOCK_BYTES:
            yield block
            block, size, is_first = [], 0, False
    if block:
        yield block


def compressed(
    frames: Iterable[Frame], header: SegmentHeader, contents: SegmentSummary
) -> Iterator[bytes]:
    """Yield the bytes of a segment with compressed frames: its header, its blocks, its footer.

    ``header`` is the new one, ``contents`` what the old footer says. Raises what the frames raise,
    CorruptionError where one does not fit, and UnsupportedFormatError without zstandard.
    """
    made = SegmentSummary(header.first_sequence, header.link)
    yield header.encode()
    for block in blocks(frames):
        with block[0].decoding():
            first, last = block[0].header, block[-1].header
            is_last = last.next_sequence == contents.next_sequence
            frame = _packed(block, made.link, header.seed, contents.link if is_last else None)
        records = last.next_sequence - first.first_sequence
        made.take(first.first_sequence, records, last.time, frame.size, frame.check)
        yield b"".join(frame.buffers)
    yield made.encode_footer(header.seed)


def _packed(block: list[Frame], link: int, seed: int, check: int | None) -> Encoded:
    return packed(
        [(frame.header, frame.body) for frame in block], link=link, seed=seed, check=check
    )
