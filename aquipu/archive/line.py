"""The line of numbered entries: claimed by one writer, and gone on with. Blocking.

An entry that nothing names any more stays for a minute: for those who have read what named it. A
writer may have been paused, or cut off, until the fence that is in its way was removed. So one that
has put nothing for twenty seconds, or whose claim took as long, looks whether the entry that it has
put is the newest. Not yet elegant: that trusts a clock, and a listing.

Nothing is in the way of an entry in a bucket that was lost and made anew. So whoever begins, and a
writer now and then, looks whether what is named is there.

A purge is an entry beside the writer: a list with fewer segments, of the same epoch. It claims
nothing, so the writer, which finds it at its next number, takes it over and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic, time, time_ns
from typing import NamedTuple

from aquipu.archive.bucket import Bucket, Different, Doubt
from aquipu.archive.errors import (
    ArchiveRefusedError,
    ArchiveTakenError,
    NoArchiveError,
)
from aquipu.archive.fetch import (
    Outdated,
    State,
    check_there,
    fetch_sealed,
    find_entry,
    newest_head,
    read_state,
    segments_in,
)
from aquipu.archive.format.entry import (
    EntryKind,
    Head,
    decode,
    encode,
    encode_list,
)
from aquipu.archive.format.keys import ENTRIES, entry_key, entry_number
from aquipu.archive.format.plan import another_store, named, outdated
from aquipu.local.format.segment import SegmentHeader

KEPT_SECONDS = 60.0
"""Seconds that an entry stays at least when nothing names it any more, a fence from the first."""
GAP_SECONDS = 20.0
"""Seconds after which a writer does not rely on that, and looks whether its entry is the newest."""
CHECK_SECONDS = 600.0
"""Seconds after which a writer looks whether what it has put is there still."""
_TIDY_PAUSE_MAX = 3600.0  # seconds between two tries to remove what may not be removed


class Moment(NamedTuple):
    """A moment by two clocks, of which one may be set, and the other may stand still."""

    monotonic: float
    time: float

    @classmethod
    def now(cls) -> Moment:
        """Return this one."""
        return cls(monotonic(), time())

    def seconds_since(self) -> float:
        """Return for how long it has passed, at most."""
        now = self.now()
        return max(now.monotonic - self.monotonic, now.time - self.time)


class Overtaken(Exception):
    """A purge came between: the line is as that has left it, and the entry was not put."""


class _Other(Exception):
    """The number has the entry of another: its head, and its body."""

    def __init__(self, head: Head, body: bytes) -> None:
        super().__init__(head.number)
        self.head, self.body = head, body


class Line:
    """The line of one archive, claimed by this writer."""

    def __init__(
        self, bucket: Bucket, state: State, ages: Mapping[int, float], writer: str, began: Moment
    ) -> None:
        """Go on behind the fence of this writer; its claim began at that moment.

        ``ages``: for how many seconds nothing has named the entries that are there, by their
        numbers.
        """
        self.bucket = bucket
        self.head, self.segments = state
        self._writer = writer
        now = monotonic()
        self._unnamed = {number: now - age for number, age in ages.items()}
        self._named: set[int] = set()
        self._note(self.head)
        self._began = began  # when the entry that was put last was tried first
        self._attempt = self.head.number, began  # the one that is tried now
        self._checked = Moment.now()
        self._tidied, self._tidy_pause = -KEPT_SECONDS, 0.0

    def next_head(self) -> Head:
        """Return the head of the next entry, as far as it is as the last one."""
        head = self.head
        return head._replace(number=head.number + 1, time=time_ns(), writer=self._writer)

    def put(self, head: Head, body: bytes | memoryview) -> None:
        """Put the next entry.

        Raises ArchiveTakenError when another writer has it, Overtaken, and what a bucket raises.
        After Doubt, the same entry is to be put again: it may be there.
        """
        if self._attempt[0] != head.number:
            self._attempt = head.number, Moment.now()
        try:
            _put(self.bucket, head, body)
        except _Other as other:
            if _is_of_another(other.head, head) or other.head.kind is not EntryKind.LIST:
                raise _taken(self.bucket, other.head) from None
            self.segments = segments_in(self.bucket, other.head, other.body)
            self._note(other.head)
            raise Overtaken from None
        paused = self._began.seconds_since() > GAP_SECONDS
        if paused or self._checked.seconds_since() > CHECK_SECONDS:
            self._check_newest(head)
            check_there(self.bucket, State(head, self.segments))
            self._checked = Moment.now()
        self._note(head)
        self._began = self._attempt[1]

    def _note(self, head: Head) -> None:
        """Take an entry as the newest; note since when nothing names those that it does not."""
        now, before = monotonic(), self._named
        self.head, self._named = head, named(head)
        for number in (before | {head.number}) - self._named:
            self._unnamed.setdefault(number, now)

    def fetch_own(self, successor: SegmentHeader) -> tuple[SegmentHeader, bytes]:
        """Return the segment of the young parts, sealed; see `fetch_sealed`.

        Raises ArchiveTakenError when another writer has put others in their place.
        """
        try:
            return fetch_sealed(self.bucket, self.head, successor)
        except Outdated:
            self._check_newest(self.head)
            raise

    def _check_newest(self, head: Head) -> None:
        """Raise ArchiveTakenError when the entry was put where another's fence had been."""
        found = newest_head(self.bucket)
        if found is not None and found.number > head.number and _is_of_another(found, head):
            raise _taken(self.bucket, found)

    def tidy(self) -> None:
        """Remove entries that nothing names any more. Raises what a bucket raises.

        Without the right to do so it is tried again, less and less often.
        """
        now = monotonic()
        if now < self._tidied + self._tidy_pause:
            return
        old = now - KEPT_SECONDS
        gone = outdated(self.head, [number for number, at in self._unnamed.items() if at <= old])
        if gone:
            self._tidied = now
            self._tidy_pause = min(max(2 * self._tidy_pause, KEPT_SECONDS), _TIDY_PAUSE_MAX)
            self.bucket.remove([entry_key(number) for number in gone])
            self._tidy_pause = 0.0
            for number in gone:
                del self._unnamed[number]


def _put(bucket: Bucket, head: Head, body: bytes | memoryview) -> None:
    key, data = entry_key(head.number), encode(head, body)
    try:
        bucket.put_new(key, data)
    except Different:
        found = find_entry(bucket, head.number)
        if found is None:
            raise Doubt(f"{key} was there, and is not any more") from None
        if found == decode(data, head.number):  # the answer was damaged, not the object
            return
        raise _Other(*found) from None


def _is_of_another(found: Head, head: Head) -> bool:
    """Return whether an entry is not of the same writer, nor of a purge beside it."""
    if found.epoch != head.epoch:
        return True
    return found.writer != head.writer and found.kind is not EntryKind.LIST


def _taken(bucket: Bucket, by: Head) -> ArchiveTakenError:
    return ArchiveTakenError(bucket.url, f"its {_whose(by)}")


def _whose(head: Head) -> str:
    return f"entry {head.number} is of {head.writer}"


def claim(
    bucket: Bucket,
    store_id: bytes,
    first_sequence: int,
    writer: str,
    check: Callable[[State], None],
) -> Line:
    """Begin as the one writer of the archive, with a fence.

    Where nothing is archived yet, it begins at this sequence. ``check`` raises for one that does
    not go with the log: before anything is written. Raises ArchiveRefusedError for the archive of
    another store, and what `read_state` and a bucket raise. After Doubt, it may be claimed again: a
    fence too many does no harm.
    """
    began = Moment.now()
    try:
        state = read_state(bucket)
    except NoArchiveError:
        state = State(_first(store_id, first_sequence), [])
    else:
        check_there(bucket, state)
    head = state.head
    if head.store_id != store_id:
        raise ArchiveRefusedError(bucket.url, another_store(head.store_id, store_id))
    if head.next_sequence == head.first_sequence:
        head = _beginning_at(first_sequence, head)
        state = State(head, [])
    check(state)
    fence = head._replace(
        kind=EntryKind.FENCE,
        number=head.number + 1,
        epoch=head.epoch + 1,
        time=time_ns(),
        writer=writer,
    )
    try:
        _put(bucket, fence, b"")
    except _Other as other:
        raise Doubt(f"another was quicker: {_whose(other.head)}") from None
    line = Line(bucket, State(fence, state.segments), _unnamed(bucket, head, fence), writer, began)
    if began.seconds_since() > GAP_SECONDS and newest_head(bucket) != fence:
        raise Doubt("it took too long to begin: there may be another writer")
    return line


def _unnamed(bucket: Bucket, head: Head, fence: Head) -> dict[int, float]:
    """Return for how many seconds, at least, nothing has named the entries that are there.

    Since the head was put before the fence, by the clock of the object store.
    """
    times = bucket.times(ENTRIES)
    put_at = {n: at for key, at in times.items() if (n := entry_number(key)) is not None}
    newest = max(put_at.values(), default=0.0)
    age = newest - put_at.get(head.number, newest)
    return {n: age for n in put_at if n < fence.number and n not in named(head)}


def put_purge(bucket: Bucket, state: State, gone: int, writer: str) -> State:
    """Have the archive begin behind so many of its segments; return what it holds then.

    Whoever carries the log goes on. Raises Doubt when an entry has come meanwhile: read the state
    anew; and what a bucket raises.
    """
    kept = state.segments[gone:]
    head = state.head
    said = head._replace(
        kind=EntryKind.LIST,
        number=head.number + 1,
        time=time_ns(),
        writer=writer,
        listed=head.number + 1,
        first_sequence=kept[0].first_sequence,
    )
    try:
        _put(bucket, said, encode_list(kept))
    except _Other as other:
        raise Doubt(f"another was quicker: {_whose(other.head)}") from None
    return State(said, kept)


def _first(store_id: bytes, first_sequence: int) -> Head:
    """Return what stands before the first entry of an archive."""
    head = Head(EntryKind.FENCE, -1, 0, store_id, 0, "", None, 0, 0, 0)
    return _beginning_at(first_sequence, head)


def _beginning_at(first_sequence: int, head: Head) -> Head:
    return head._replace(
        first_sequence=first_sequence, base=first_sequence, next_sequence=first_sequence
    )
