"""The oldest segments of an archive are let go of, also while it is being carried on. Blocking.

First an entry says durably where the archive begins; then the objects before that are removed.
Killed in between, some of them are left, which nothing names: the next purge removes those, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from threading import Event

from aquipu.archive.bucket import Bucket, insist
from aquipu.archive.fetch import State, read_state
from aquipu.archive.format.entry import Segment
from aquipu.archive.format.keys import SEGMENTS, ObjectKey
from aquipu.archive.line import put_purge
from aquipu.record import Purged


def purge(
    bucket: Bucket, before: int | None, before_time: int | None, writer: str, stop: Event, dry: bool
) -> Purged:
    """Let go of the full segments before a sequence, or a time in nanoseconds.

    The newest full segment stays: by it the archive is known to be of its log. With ``dry`` nothing
    is done. Raises NoArchiveError, ArchiveDamagedError, ArchiveUnavailableError,
    UnsupportedFormatError and Stopped.
    """

    def let_go() -> State:
        state = read_state(bucket)
        while count := len(outlived(state.segments, before, before_time)):
            put_purge(bucket, state, count, writer)
            state = read_state(bucket)  # only what that says is done
        return state

    bucket = bucket.until(stop)
    state = insist(bucket, lambda: read_state(bucket), stop)
    going = outlived(state.segments, before, before_time)
    if not dry:
        left = insist(bucket, let_go, stop)
        insist(bucket, lambda: _remove(bucket, left), stop)
        going = [one for one in state.segments if one.first_sequence < left.head.first_sequence]
    first = state.head.first_sequence
    following = going[-1].next_sequence if going else first
    stored = sum(one.stored + one.table_size for one in going)
    return Purged(first, following, len(going), following - first, stored)


def outlived(
    segments: Sequence[Segment], before: int | None, before_time: int | None
) -> list[Segment]:
    """Return the segments in which all lies before the bound, from the oldest on. Pure."""

    def is_over(one: Segment) -> bool:
        if before is not None:
            return one.next_sequence <= before
        return before_time is not None and one.last_time < before_time

    return list(takewhile(is_over, segments[:-1]))


def _remove(bucket: Bucket, state: State) -> None:
    """Remove the objects of the store that lie before the archive, also those left earlier."""
    head, named = state.head, {one.first_sequence for one in state.segments}
    keys = {name: ObjectKey.parse(name) for name in bucket.list(SEGMENTS)}
    bucket.remove(
        [
            name
            for name, key in keys.items()
            if key is not None
            and key.store_id == head.store_id
            and key.next_sequence <= head.first_sequence
            and key.first_sequence not in named
        ]
    )
