"""Frames one behind another, walked and searched. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from aquipu.local.format.frame import HEADER_BYTES, KNOWN_FLAGS, MAGIC, Header, header_at
from aquipu.local.format.structure import extend


class Walk:
    """Frames one behind another, from bytes that come in pieces of any size.

    ``feed`` takes the next piece; iterating gives each whole, sound frame as ``(offset, header,
    body)`` and ends when the bytes run out (feed more) or when something does not check: then
    ``fault`` says what, and ``offset`` where.

    Beside the checksums each frame must follow the one before: its sequence, and its link (a walk
    that begins in the middle of a segment has no link to compare the first one with: None).
    """

    def __init__(self, *, seed: int, offset: int, sequence: int, link: int | None) -> None:
        self.seed = seed
        self.offset = offset
        """Offset of the next frame in the file."""
        self.sequence = sequence
        """Sequence that the next frame must begin with."""
        self.link = link
        self.watermark = 0
        """Highest watermark seen."""
        self.fault: str | None = None
        self.unknown_flags = 0
        """Flags of the next frame that this version does not know: it is checked, but not read."""
        self._buffer = b""
        self._at = 0  # of the next frame in the buffer
        self._wanted = HEADER_BYTES

    @property
    def wanted(self) -> int:
        """Least number of bytes that are missing for the next frame."""
        return max(self._wanted - self.pending, 0)

    @property
    def pending(self) -> int:
        """Number of bytes fed and not yet part of a frame."""
        return len(self._buffer) - self._at

    def restart(self) -> None:
        """Forget the bytes that are not yet part of a frame; feed those from `offset` on next."""
        self._buffer = b""
        self._at = 0

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the file."""
        self._buffer = self._buffer[self._at :] + piece if self.pending else piece
        self._at = 0

    def __iter__(self) -> Walk:
        return self

    def __next__(self) -> tuple[int, Header, bytes]:
        buffer, at = self._buffer, self._at
        if self.fault is not None or len(buffer) - at < HEADER_BYTES:
            self._wanted = HEADER_BYTES
            raise StopIteration
        header = header_at(buffer, at, self.seed)
        if header is None:
            return self._stop("the header of a frame does not check")
        if header.first_sequence != self.sequence:
            return self._stop(
                f"a frame begins with sequence {header.first_sequence} instead of {self.sequence}"
            )
        if self.link is not None and header.link != self.link:
            return self._stop(
                f"the frame at sequence {self.sequence} does not follow the one before it"
            )
        size = HEADER_BYTES + header.body_size
        end = at + size
        if end > len(buffer):
            self._wanted = size
            raise StopIteration
        body = buffer[at + HEADER_BYTES : end]
        if extend(self.seed, body) != header.body_check:
            return self._stop(f"the body of the frame at sequence {self.sequence} does not check")
        if header.flags & ~KNOWN_FLAGS:
            self.unknown_flags = header.flags & ~KNOWN_FLAGS
            return self._stop(f"a frame has the unknown flags {self.unknown_flags:#x}")
        offset = self.offset
        self._at = end
        self.offset = offset + size
        self.sequence += header.records
        self.link = header.check
        if header.watermark > self.watermark:
            self.watermark = header.watermark
        return offset, header, body

    def _stop(self, fault: str) -> tuple[int, Header, bytes]:
        self.fault = fault
        raise StopIteration


def search(buffer: bytes, offset: int, seed: int) -> Iterator[tuple[int, Header]]:
    """Yield every sound frame header in the buffer from ``offset`` on, wherever it stands.

    Recovery takes them as evidence of what was synced.
    """
    at = buffer.find(MAGIC, offset)
    while at >= 0:
        header = header_at(buffer, at, seed)
        if header is not None:
            yield at, header
        at = buffer.find(MAGIC, at + 1)
