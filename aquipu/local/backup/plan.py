"""What a backup copies, decided from what the store has and what the backup has. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Place = tuple[int, int]
"""Offset and check of a frame."""


class Held(NamedTuple):
    """A segment, as it stands in one of the two directories."""

    first_sequence: int
    next_sequence: int
    """One past its last record."""
    follows: int
    """Link: the check of the last frame before it."""
    link: int
    """Check of its last frame; that of the segment before when it has none."""
    is_sealed: bool
    last: Place | None = None
    """Last frame that holds records, where that was looked for: in a backup."""

    @property
    def is_empty(self) -> bool:
        """Whether it holds no record."""
        return self.next_sequence == self.first_sequence


class Copied(NamedTuple):
    """One segment that is to be copied."""

    segment: Held
    needs: Held | None
    """What the backup has of it, and what must stand in what is copied over that."""
    successor: int | None
    """First sequence of the next segment, which must have its name before this one is sealed."""
    may_link: bool
    """Whether the copy may be the store's own file: nothing is ever written to it there."""


class Ended(NamedTuple):
    """The last segment of the backup that the store has purged since, and that ended otherwise.

    All its records are there. It was being written then; or it was sealed, and the store, made anew
    of another copy, has sealed it behind a mark.
    """

    first_sequence: int
    next_sequence: int
    link: int
    """Check of the frame with which it ended in the store."""


class Plan(NamedTuple):
    """What is to be done."""

    first_sequence: int
    """Of the first record that the backup keeps."""
    ended: Ended | None
    """What is to be sealed in the backup itself."""
    removed: Sequence[int]
    """First sequences of empty segments of the backup that the store does not have."""
    copied: Sequence[Copied]
    """In the order of the log; the last segment is always among them."""


class Refused(Exception):
    """The backup does not go together with this store; the text says why."""


def plan(store: Sequence[Held], backup: Sequence[Held], kept_from: int | None) -> Plan:
    """Decide what is copied, so that the backup holds the segments of the store.

    Both are in the order of the log. The last segment of the store is the one that is being
    written. The backup keeps what begins at ``kept_from``; None: there is none yet. Raises Refused.
    """
    first = store[0].first_sequence if kept_from is None else kept_from
    store = [segment for segment in store if segment.first_sequence >= first]
    end = max((segment.next_sequence for segment in backup), default=first)
    if not store or end > store[-1].next_sequence:
        raise Refused(
            f"it reaches up to sequence {end - 1}, which the store does not, or not any more"
        )
    begin = store[0].first_sequence
    ended = _ended([held for held in backup if held.first_sequence < begin], first, store[0])
    here = {segment.first_sequence: segment for segment in store}
    there = {held.first_sequence: held for held in backup if held.first_sequence >= begin}
    for number, held in there.items():
        same = here.get(number)
        if not held.is_empty and (same is None or held.next_sequence > same.next_sequence):
            raise Refused(apart(number))
    needed = {number: held for number, held in there.items() if held.last is not None}
    copied = [
        Copied(
            segment,
            needed.get(segment.first_sequence),
            None if behind is None else behind.first_sequence,
            behind is not None and not behind.is_empty,
        )
        for segment, behind in zip(store, [*store[1:], None], strict=True)
        if not _is_there(segment, there.get(segment.first_sequence))
    ]
    return Plan(first, ended, sorted(set(there) - set(here)), copied)


def _ended(older: Sequence[Held], first: int, begin: Held) -> Ended | None:
    """Return the last segment that the store has purged since, unless it ends as there.

    Refuse when the backup lacks any record that the store has purged.
    """
    reached = older[-1].next_sequence if older else first
    if reached != begin.first_sequence:
        raise Refused(
            f"the store has purged its records up to sequence {begin.first_sequence - 1}, and this "
            f"backup has them only before sequence {reached}"
        )
    if not older:
        return None
    last = older[-1]
    if last.is_sealed and last.link == begin.follows:
        return None
    return Ended(last.first_sequence, last.next_sequence, begin.follows)


def _is_there(segment: Held, held: Held | None) -> bool:
    return segment.is_sealed and held is not None and held._replace(last=None) == segment


def unlike(first_sequence: int) -> str:
    """Return what to say of a segment that ended otherwise in the store, which has purged it."""
    return (
        f"it has all records that the store has purged, but its segment {first_sequence} does not "
        "end as it did there, so the next one does not fit"
    )


def apart(first_sequence: int) -> str:
    """Return what to say of a segment in which the two have gone on apart."""
    return (
        f"its segment {first_sequence} holds other records than that of the store: the two have "
        "gone on apart"
    )
