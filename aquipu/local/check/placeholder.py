"""Placeholders for lost records, and segments whose gaps are filled with them. Pure.

A log has no gaps: sequences are dense, and each frame links to the check of the frame before it. So
where a frame cannot be read any more, **a frame stands in for it**. It holds an empty record with
the label `LOST` for each record that is lost, at the time of the frame before, and the key of its
commit is named by `WRITER`. Everything behind stays as it is, byte for byte: a frame's checks do
not depend on where in the file it stands, and the link of the frame behind holds, because the
placeholder has *just the check that this link names*. A CRC can be given any value by choosing 32
bits: those of the key's number give the body the check that gives the header the check that is
wanted.

That proves nothing about what was lost, and does not pretend to: who reads a record with the label
`LOST` reads "there was one". What is left of the damaged bytes is kept by the repair.

Downsides: a program that knows nothing of the label sees empty records; a segment is filled whole,
in memory. No user gives a record of his own this label (`record.RESERVED`), but the first versions
did not yet refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from aquipu.local.format.frame import (
    HEADER_BYTES,
    KNOWN_FLAGS,
    Encoded,
    Header,
    columns,
    encode,
    is_sound,
)
from aquipu.local.format.segment import (
    SEGMENT_HEADER_BYTES,
    TIME_END,
    SegmentHeader,
    SegmentSummary,
)
from aquipu.local.format.structure import Unsupported, chosen, extend
from aquipu.local.format.walk import Walk, search
from aquipu.record import Key

LOST = "aquipu:lost"
"""The label of a record that stands in for one that is lost."""
WRITER = b"aquipu: repaired"
"""Writer of placeholders, in the key of their commits."""
BAD_FOOTER = "the footer of the segment does not check"
_RECORDS_MAX = 65_536  # in one placeholder: about 2 MiB
_CHECK_BYTES = 4
_NUMBER = slice(20, 28)  # of the one key, at the beginning of the body


class Gap(NamedTuple):
    """A stretch of a segment that does not check, and what of the log was lost with it."""

    offset: int
    size: int
    reason: str
    first_sequence: int
    next_sequence: int
    """One past the last record lost; the same as the first for none: an empty frame, or bytes that
    are no frame.
    """


class End(NamedTuple):
    """Where the frames of a sealed segment end, as its neighbours or its footer say."""

    next_sequence: int
    link: int | None
    """The check of its last frame; None when it is not known."""


class FilledSegment(NamedTuple):
    """A segment in which every frame checks."""

    data: bytes
    """Its header, and its frames one behind another."""
    tail: bytes
    """What stands behind them and was never proven, as it was: for an opening to judge.

    Nothing in a sealed segment.
    """
    contents: SegmentSummary
    gaps: list[Gap]


def placeholders(
    first: int, stop: int, *, time: int, link: int, target: int | None, seed: int
) -> Iterator[tuple[int, Encoded]]:
    """Yield frames in place of those that held the records from ``first`` up to ``stop``.

    Each comes with its number of records. They follow the frame with the check ``link``, and the
    last of them has the check ``target``, if that is known.
    """
    while first < stop or target not in (None, link):
        records = min(stop - first, _RECORDS_MAX)
        is_last = first + records == stop
        frame = _placeholder(first, records, time, link, target if is_last else None, seed)
        yield records, frame
        first, link = first + records, frame.check


def fill_gaps(
    data: bytes, header: SegmentHeader, *, end: End | None, proven: int = 0
) -> FilledSegment:
    """Return a segment with placeholders for what does not check, from the bytes of its file.

    The bytes come without the footer. With an ``end`` it is a sealed one, and holds everything up
    to there. Without one it is being written: what does not check is filled when a later frame
    proves that it had been synced, or when it lies below ``proven``; the rest is its tail. Raises
    Unsupported for a frame with unknown flags.
    """
    filler = _GapFiller(data, header)
    while True:
        filler.take_sound()
        if end is None and filler.next_sequence >= max(proven, filler.synced()):
            return filler.done(tail=data[filler.at :])
        following = filler.following(end)
        if following is None:
            filler.bridge(len(data), end or End(max(proven, filler.synced()), None))
            return filler.done(tail=b"")
        offset, frame, time = following
        filler.bridge(offset, End(frame.first_sequence, frame.link), time)


class _GapFiller:
    """A segment on the way to be filled."""

    def __init__(self, data: bytes, header: SegmentHeader) -> None:
        self.at = SEGMENT_HEADER_BYTES
        """What stands before is taken or bridged."""
        self._data = data
        self._header = header
        self._contents = SegmentSummary(header.first_sequence, header.link)
        self._pieces = [header.encode()]
        self._gaps: list[Gap] = []
        self._reason = ""

    @property
    def next_sequence(self) -> int:
        """Of the first record that is still to come."""
        return self._contents.next_sequence

    def take_sound(self) -> None:
        """Take the frames from here on, as far as each follows the one before."""
        contents = self._contents
        walk = Walk(
            seed=self._header.seed,
            offset=self.at,
            sequence=contents.next_sequence,
            link=contents.link,
        )
        walk.feed(self._data[self.at :])
        for offset, frame, _ in walk:
            contents.take(frame.first_sequence, frame.records, frame.time, frame.size, frame.check)
            self._pieces.append(self._data[offset : offset + frame.size])
        if walk.unknown_flags:
            raise Unsupported(
                f"a frame at offset {walk.offset} has the flags {walk.unknown_flags:#x}"
            )
        self.at = walk.offset
        self._reason = walk.fault or "the frames end too early"

    def following(self, end: End | None) -> tuple[int, Header, int] | None:
        """Return the next frame that is whole and sound and of this place in the log.

        Where it stands, its header, and when its first record was accepted.
        """
        for offset, header in self._headers():
            body = self._data[offset + HEADER_BYTES : offset + header.size]
            fits = end is None or header.next_sequence <= end.next_sequence
            if (
                fits
                and header.first_sequence >= self.next_sequence
                and is_sound(header, body, self._header.seed)
            ):
                is_read = header.records > 0 and not header.flags & ~KNOWN_FLAGS
                return offset, header, columns(header, body)[0][0] if is_read else header.time
        return None

    def synced(self) -> int:
        """Return the sequence below which everything had been synced, as later headers say."""
        return max((header.watermark for _, header in self._headers()), default=0)

    def bridge(self, offset: int, goal: End, latest: int = TIME_END) -> None:
        """Let placeholders lead from the frames that were taken to the goal.

        What stands before ``offset`` is a gap. None of them is later than what follows: a segment
        may be older than it was when it was created.
        """
        contents = self._contents
        first, time = (
            contents.next_sequence,
            min(contents.last_time or self._header.created, latest),
        )
        loses = first < goal.next_sequence or goal.link not in (None, contents.link)
        if loses or self._data[self.at : offset].strip(b"\0"):
            reason = self._reason if loses or offset < len(self._data) else BAD_FOOTER
            self._gaps.append(Gap(self.at, offset - self.at, reason, first, goal.next_sequence))
        for records, frame in placeholders(
            first,
            goal.next_sequence,
            time=time,
            link=contents.link,
            target=goal.link,
            seed=self._header.seed,
        ):
            contents.take(contents.next_sequence, records, time, frame.size, frame.check)
            self._pieces += frame.buffers
        self.at = offset

    def done(self, tail: bytes) -> FilledSegment:
        return FilledSegment(b"".join(self._pieces), tail, self._contents, self._gaps)

    def _headers(self) -> Iterator[tuple[int, Header]]:
        return search(self._data, self.at, self._header.seed)


def _placeholder(
    first: int, records: int, time: int, link: int, target: int | None, seed: int
) -> Encoded:
    def encoded(number: int) -> Encoded:
        return encode(
            [b""] * records,
            [time] * records,
            labels=dict.fromkeys(range(records), (LOST,)),
            keys=[Key(WRITER, number, 0, records)],
            first_sequence=first,
            time=time,
            watermark=first,
            link=link,
            seed=seed,
        )

    plain = encoded(0)
    if target is None:
        return plain
    whole = b"".join(plain.buffers)
    head, body = whole[: HEADER_BYTES - 2 * _CHECK_BYTES], whole[HEADER_BYTES:]
    before, behind = extend(seed, body[: _NUMBER.start]), body[_NUMBER.stop :]
    body_check = chosen(
        lambda check: extend(seed, head + check.to_bytes(_CHECK_BYTES, "little")), target
    )
    return encoded(
        chosen(lambda number: extend(before, number.to_bytes(8, "little") + behind), body_check)
    )
