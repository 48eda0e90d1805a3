"""Lines out of pieces: bytes in, lines out. Pure.

A line is a record of `aquipu append`, with or without its end. Only a line feed ends a line (or
only a NUL): a carriage return may stand anywhere in it, and the last line may have no end at all.
"""

from __future__ import annotations

from aquipu.options import MIB

LINE_BYTES_MAX = 16 * MIB
"""How long a line may be, with its line end."""


class LineTooLongError(ValueError):
    """The line of this number, counted from 1, has more than ``limit`` bytes.

    It was refused; those before it were not.
    """

    def __init__(self, number: int, limit: int, source: str = "standard input") -> None:
        super().__init__(number, limit, source)
        self.number, self.limit, self.source = number, limit, source

    def __str__(self) -> str:
        return (
            f"line {self.number} of {self.source} is longer than {self.limit:,} bytes; "
            "it was not stored; everything before it was"
        )


class Lines:
    """Lines out of pieces, up to the first line that is longer than it may be."""

    def __init__(
        self,
        line_bytes_max: int = LINE_BYTES_MAX,
        *,
        end: bytes = b"\n",
        keep_end: bool = True,
        source: str = "standard input",
    ) -> None:
        """Make lines that this byte ends; it is part of them, or left out."""
        self._end = end
        self._source = source
        self._kept = end if keep_end else b""
        self._line_bytes_max = line_bytes_max
        self._number = 1  # of the line at hand
        self._held: list[bytes] = []  # what has come of it
        self._held_bytes = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the lines that this piece completes.

        Raises LineTooLongError as soon as a line is over the limit.
        """
        *ended, begun = piece.split(self._end)
        lines = [line + self._kept for line in ended] if self._kept else ended
        if lines:
            self._hold(lines[0])
            lines[0] = self.rest()
            self._number += len(lines)
        self._hold(begun)
        return lines

    def rest(self) -> bytes:
        """Return, and drop, what has come of a line that is not complete."""
        line = b"".join(self._held)
        self._held.clear()
        self._held_bytes = 0
        return line

    def _hold(self, part: bytes) -> None:
        self._held_bytes += len(part)
        if self._held_bytes > self._line_bytes_max:
            raise LineTooLongError(self._number, self._line_bytes_max, self._source)
        self._held.append(part)
