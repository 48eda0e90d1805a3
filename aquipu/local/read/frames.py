"""Frames of a segment file as values. No I/O: bytes come in, frames come out.

Here alone the bytes of a frame become a `Frame`, by whatever way they were read. A frame whose
checksums are right and whose columns do not fit each other is damage, too: every way to decode one
raises a CorruptionError that names the place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from aquipu.errors import CorruptionError, UnsupportedFormatError
from aquipu.local.format.frame import (
    KNOWN_FLAGS,
    Header,
    decoder,
    is_sound,
    keys_of,
    mark,
)
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader, SegmentSummary
from aquipu.local.format.structure import Unsupported
from aquipu.local.format.walk import Walk
from aquipu.record import Key, Record

Place = tuple[int, int]
"""Sequence and offset of a frame: of its first record, and of its first byte."""

_MARKS_MAX = 4
TOO_EARLY = "the frames end too early"


class Frame(NamedTuple):
    """A sound frame of a segment file.

    What decodes it raises CorruptionError when its columns do not fit each other.
    """

    path: str
    """Path of the segment file."""
    offset: int
    """Offset of the frame in the file, in bytes."""
    header: Header
    body: bytes

    @classmethod
    def checked(cls, path: str, offset: int, header: Header, body: bytes, seed: int) -> Frame:
        """Return the frame with this header.

        Raises CorruptionError for another body, UnsupportedFormatError for unknown flags.
        """
        if not is_sound(header, body, seed):
            raise CorruptionError(path, offset, _no_body(header, body))
        if header.flags & ~KNOWN_FLAGS:
            raise _unknown_flags(path, offset, header.flags & ~KNOWN_FLAGS)
        return cls(path, offset, header, body)

    def records(self) -> list[Record]:
        """Return all records of the frame."""
        return list(self.records_between(0, self.header.records))

    def records_between(self, begin: int, stop: int) -> Iterator[Record]:
        """Return the records from the index ``begin`` up to ``stop``, each made when it is wanted.

        The others stay bytes.
        """
        with self.decoding():
            return decoder(self.header, self.body).records(begin, stop)

    def records_at(self, indices: Sequence[int]) -> list[Record]:
        """Return the records at these indices, which ascend; the others stay bytes."""
        with self.decoding():
            return decoder(self.header, self.body).records_at(indices)

    def record(self, sequence: int) -> Record:
        """Return the record with this sequence; the others stay bytes."""
        (record,) = self.records_at((sequence - self.header.first_sequence,))
        return record

    def commit_keys(self) -> list[Key]:
        """Return the keys of the commits in the frame."""
        with self.decoding():
            return keys_of(self.header, self.body)

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Translate what a decoder raises: into CorruptionError and UnsupportedFormatError."""
        try:
            yield
        except ValueError as error:
            raise CorruptionError(self.path, self.offset, str(error)) from None
        except Unsupported as unsupported:
            raise UnsupportedFormatError(self.path, str(unsupported)) from None


_frame = partial(tuple.__new__, Frame)  # cheaper than Frame(...): once for each frame that is read


class FrameWalk(Walk):
    """The frames of one file, one behind another, from bytes that come in pieces of any size."""

    def __init__(self, path: str, header: SegmentHeader, place: Place | None = None) -> None:
        """Begin at a place, or at the first frame, which must follow the segment before."""
        link = header.link if place is None else None
        sequence, offset = place or (header.first_sequence, SEGMENT_HEADER_BYTES)
        super().__init__(seed=header.seed, sequence=sequence, offset=offset, link=link)
        self.path = path

    def ready(self) -> Iterator[Frame]:
        """Yield the frames that are whole with the bytes fed so far."""
        path = self.path
        for offset, header, body in self:
            yield _frame((path, offset, header, body))

    def stopped(self) -> CorruptionError | UnsupportedFormatError:
        """Return the error for a walk that should have gone further."""
        if self.unknown_flags:
            return _unknown_flags(self.path, self.offset, self.unknown_flags)
        return CorruptionError(self.path, self.offset, self.fault or TOO_EARLY)


class SegmentEnd(NamedTuple):
    """How a segment ended of which a copy has all records."""

    contents: SegmentSummary
    marks: bytes
    """Frames of no records at its end, which the copy lacks."""

    @property
    def copied(self) -> int:
        """Offset behind the frames that the copy has."""
        return self.contents.end - len(self.marks)


def find_end(
    header: SegmentHeader, frames: Iterable[Frame], next_sequence: int, link: int
) -> SegmentEnd | None:
    """Return how a segment ended: before a sequence, with the frame that has this check.

    The frames are those of a copy, from its beginning on. It may lack the mark that a close or an
    opening has left behind the last record: what that says is known. None when no frame can be the
    one that has this check.
    """
    found = SegmentSummary(header.first_sequence, header.link)
    for frame in frames:
        said = frame.header
        found.take(said.first_sequence, said.records, said.time, said.size, said.check)
        if (found.next_sequence, found.link) == (next_sequence, link):
            return SegmentEnd(found, b"")
    marks = b""
    for _ in range(_MARKS_MAX if found.next_sequence == next_sequence else 0):
        made = mark(
            first_sequence=next_sequence,
            time=found.last_time,
            watermark=next_sequence,
            link=found.link,
            seed=header.seed,
        )
        found.take(next_sequence, 0, found.last_time, made.size, made.check)
        marks += b"".join(made.buffers)
        if found.link == link:
            return SegmentEnd(found, marks)
    return None


def _no_body(header: Header, body: bytes) -> str:
    if len(body) < header.body_size:
        return TOO_EARLY
    return f"the body of the frame at sequence {header.first_sequence} does not check"


def _unknown_flags(path: str, offset: int, flags: int) -> UnsupportedFormatError:
    return UnsupportedFormatError(path, f"a frame at offset {offset} has the flags {flags:#x}")
