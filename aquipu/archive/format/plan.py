"""What is put into an archive next, decided from what it holds and what the log has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from aquipu.archive.format.entry import Head, Piece
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES

PART_BYTES_MAX = 8 * 1024 * 1024
"""About the most bytes of a young part."""
KEPT_NUMBERS = 100
"""Entries that stay, though nothing names them any more: for those who are reading."""
_ALIKE = 7  # parts of a size that are folded with a new one
_SMALL = 4096  # bytes, and less, are one size; each of the next is eight times the one before


class Local(NamedTuple):
    """A segment of the log."""

    first_sequence: int
    is_sealed: bool


class Step(Enum):
    """What is put next."""

    SEGMENT = "segment"
    """The segment at the base, which is sealed, and a list that names it."""
    YOUNG = "young"
    """Frames of that segment, which is being written."""
    OWN = "own"
    """That segment, which was sealed and purged, made of its young parts, and a list."""


class Refused(Exception):
    """The archive does not go together with this log; the text says why."""


def step(head: Head, log: Sequence[Local], stop: int) -> Step | None:
    """Return what is put next; None when everything before ``stop`` is archived.

    The ``log`` is in order; its last segment is the one that is being written. Raises Refused when
    the archive is not of this log.
    """
    first, reached = log[0].first_sequence, head.next_sequence
    if first > head.base and first == reached:
        return Step.OWN if stop > reached else None  # without a record behind it, it may go on
    if first > head.base:
        raise Refused(
            f"the store has purged its records up to sequence {first - 1}, and this archive has "
            f"them only before sequence {reached}"
        )
    if reached > stop:
        raise Refused(f"it reaches up to sequence {reached - 1}, which the store does not")
    segment = next((one for one in log if one.first_sequence == head.base), None)
    if segment is None:
        raise Refused(apart(head.base))
    if segment.is_sealed:
        return Step.SEGMENT
    return None if reached == stop else Step.YOUNG


def young_end(head: Head) -> tuple[int, int]:
    """Return the sequence and the offset at which the next young part begins."""
    if not head.young:
        return head.base, SEGMENT_HEADER_BYTES
    return head.next_sequence, head.young[-1].end


def apart(first_sequence: int) -> str:
    """Return what to say when the two have gone on apart in this segment."""
    return (
        f"its segment {first_sequence} holds other records than that of the store: the two have "
        "gone on apart"
    )


def another_store(there: bytes, here: bytes) -> str:
    """Return what to say of an archive that is not of this store, by the ids of both."""
    return f"it holds another store, {there.hex()}, not {here.hex()}"


def not_before(first_sequence: int) -> str:
    """Return what to say when the log does not go on, with this segment, what is archived."""
    return (
        f"what it holds before sequence {first_sequence} does not end as the log did there: the two"
        " have gone on apart"
    )


def fold(sizes: Sequence[int], new: int) -> int:
    """Return how many of the last parts are put again, in one with a new part of this size.

    So many that no eight of about one size are left.
    """
    folded = 0
    while True:
        alike = 0
        while folded + alike < len(sizes) and _tier(sizes[-1 - folded - alike]) <= _tier(new):
            alike += 1
        size = new + sum(sizes[len(sizes) - folded - alike : len(sizes) - folded])
        if alike < _ALIKE or size > PART_BYTES_MAX:
            return folded
        folded, new = folded + alike, size


def _tier(size: int) -> int:
    tier = 0
    while size > _SMALL:
        size, tier = size // 8, tier + 1
    return tier


def grown(head: Head, piece: Piece, folded: int) -> tuple[Piece, ...]:
    """Return the young parts that are alive when this one has been put."""
    return (*head.young[: len(head.young) - folded], piece)


def named(head: Head) -> set[int]:
    """Return the numbers of the entries that an entry names, of which it may be one."""
    numbers = {head.listed, head.marked, *(piece.number for piece in head.young)}
    return {number for number in numbers if number is not None}


def outdated(head: Head, unnamed: Iterable[int]) -> list[int]:
    """Return those entries, of some that nothing names any more, that nobody reads by now.

    The first one stays: by it an archive is known, also when a listing lags.
    """
    return sorted(number for number in unnamed if 0 < number <= head.number - KEPT_NUMBERS)
