"""The line of numbered entries: read, claimed by one writer, and gone on with. Blocking.

An entry that is the newest is never removed, and neither is the first. A listing may lag behind,
so it says only where to begin: from its last number on, entries are asked for one by one.

A writer may have been paused, or cut off, until the fence that is in its way was removed. So none
is removed before a minute, and one that has put nothing for twenty seconds looks whether the entry
that it has put is the newest. Not yet elegant: that trusts a clock, and a listing.

A purge is an entry beside the writer: a list with fewer segments, of the same epoch. It claims
nothing, so the writer, which finds it at its next number, takes it over and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, time, time_ns
from typing import NamedTuple

from aquipu.archive.bucket import READS, Bucket, Different, Doubt
from aquipu.archive.errors import (
    ArchiveDamagedError,
    ArchiveRefusedError,
    ArchiveTakenError,
    NoArchiveError,
)
from aquipu.archive.format.entry import (
    EntryKind,
    Head,
    Piece,
    Segment,
    decode,
    decode_bookmarks,
    decode_list,
    encode,
    encode_list,
)
from aquipu.archive.format.keys import ENTRIES, ObjectKey, entry_key, entry_number
from aquipu.archive.format.plan import outdated
from aquipu.errors import AquipuError, RecordPurgedError, UnsupportedFormatError
from aquipu.local.format.structure import Damage, Unsupported

KEPT_SECONDS = 60.0
"""Seconds that an entry stays at least, so that a writer which was paused finds it in its way."""
GAP_SECONDS = 20.0
"""Seconds after which a writer does not rely on that, and looks whether its entry is the newest."""


class State(NamedTuple):
    """What an archive holds."""

    head: Head
    segments: list[Segment]
    """In the order of the log."""


def read_state(bucket: Bucket) -> State:
    """Return what the archive holds now.

    Raises NoArchiveError, ArchiveDamagedError, UnsupportedFormatError, and what a bucket raises.
    """
    for _ in range(READS):
        head = _newest(bucket)
        if head is None:
            raise NoArchiveError(bucket.url, "it holds no entry of one")
        try:
            return State(head, _segments(bucket, head))
        except _Gone as gone:  # a writer is at work: others have taken its place
            missing = gone
    raise ArchiveDamagedError(bucket.url, f"{missing} is missing")


def read_entry(bucket: Bucket, number: int) -> tuple[Head, bytes]:
    """Return the entry with this number, and its body.

    Raises ArchiveDamagedError, UnsupportedFormatError, and what a bucket raises.
    """
    found = _entry(bucket, number)
    if found is None:
        raise ArchiveDamagedError(bucket.url, f"{entry_key(number)} is missing")
    return found


def read_object(bucket: Bucket, key: ObjectKey) -> bytes:
    """Return the bytes of an object that a list names.

    Raises RecordPurgedError when it was purged meanwhile, ArchiveDamagedError, and what a bucket
    raises.
    """
    try:
        return bucket.get_object(key)
    except ArchiveDamagedError as damaged:
        raise lost(bucket, key, damaged) from None


def lost(bucket: Bucket, key: ObjectKey, damaged: ArchiveDamagedError) -> AquipuError:
    """Return why an object is not there that a list has named: it was purged, or what was found.

    Raises what `read_state` raises.
    """
    first = read_state(bucket).head.first_sequence
    if key.next_sequence <= first:
        return RecordPurgedError(bucket.url, key.first_sequence, first)
    return damaged


def read_bookmarks(bucket: Bucket, head: Head) -> dict[str, bytes]:
    """Return the holds and cursors that are archived, the bytes of each by its file name.

    Raises ArchiveDamagedError, UnsupportedFormatError, Doubt when a writer has just put others, and
    what a bucket raises.
    """
    if head.marked is None:
        return {}
    found = _entry(bucket, head.marked)
    if found is None:
        raise Doubt(f"{entry_key(head.marked)} is not there any more")
    with _supported(bucket, head.marked):
        return decode_bookmarks(found[1])


def read_piece(bucket: Bucket, piece: Piece) -> bytes:
    """Return the bytes of a young part. Raises as `read_entry`."""
    head, body = read_entry(bucket, piece.number)
    if not head.young or head.young[-1] != piece or len(body) != piece.size:
        raise ArchiveDamagedError(bucket.url, f"{entry_key(piece.number)} is another part")
    return body


class Overtaken(Exception):
    """A purge came between: the line is as that has left it, and the entry was not put."""


class _Gone(Exception):
    """An entry that was named is not there any more; the text is its name."""


class _Other(Exception):
    """The number has the entry of another: its head, and its body."""

    def __init__(self, head: Head, body: bytes) -> None:
        super().__init__(head.number)
        self.head, self.body = head, body


def _segments(bucket: Bucket, head: Head) -> list[Segment]:
    if head.listed is None:
        return []
    found = _entry(bucket, head.listed)
    if found is None:
        raise _Gone(entry_key(head.listed))
    if found[0].kind is not EntryKind.LIST:
        raise ArchiveDamagedError(bucket.url, f"{entry_key(head.listed)} is no list")
    return _listed(bucket, *found)


def _listed(bucket: Bucket, head: Head, body: bytes) -> list[Segment]:
    """Return the segments of the entry of a list."""
    with _supported(bucket, head.number):
        return decode_list(body)


@contextmanager
def _supported(bucket: Bucket, number: int) -> Iterator[None]:
    """Name the entry of which something is not known here."""
    try:
        yield
    except Unsupported as unsupported:
        name = f"{bucket.url}/{entry_key(number)}"
        raise UnsupportedFormatError(name, str(unsupported)) from None


def _newest(bucket: Bucket) -> Head | None:
    """Return the newest entry; None when there is none."""
    numbers = [n for n in map(entry_number, bucket.list(ENTRIES)) if n is not None]
    if not numbers:
        if bucket.get(entry_key(0)) is not None:
            raise Doubt("the listing lags behind: it shows no entry, and there is one")
        return None
    newest, number = None, max(numbers)
    while (found := _entry(bucket, number)) is not None:
        newest, number = found[0], number + 1
    if newest is None:
        raise Doubt(f"the listing lags behind: {entry_key(number)} is not there any more")
    return newest


def _entry(bucket: Bucket, number: int) -> tuple[Head, bytes] | None:
    """Return an entry; None when there is none of this number."""
    fault = Damage("")
    for _ in range(READS):
        data = bucket.get(entry_key(number))
        if data is None:
            return None
        try:
            with _supported(bucket, number):
                return decode(data, number)
        except Damage as damage:
            fault = damage
    raise ArchiveDamagedError(bucket.url, f"{entry_key(number)}: {fault}")


class Line:
    """The line of one archive, claimed by this writer."""

    def __init__(
        self, bucket: Bucket, state: State, ages: Mapping[int, float], writer: str, began: _Moment
    ) -> None:
        """Go on behind the fence of this writer; its claim began at that moment.

        ``ages``: the numbers of the entries that are there, and for how many seconds.
        """
        self.bucket = bucket
        self.head, self.segments = state
        self._writer = writer
        now = monotonic()
        self._put_at = {number: now - age for number, age in ages.items()}
        self._began = began  # when the entry that was put last was tried first
        self._attempt = self.head.number, began  # the one that is tried now

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
            self._attempt = head.number, _Moment.now()
        try:
            _put(self.bucket, head, body)
        except _Other as other:
            if other.head.epoch != head.epoch or other.head.kind is not EntryKind.LIST:
                raise _taken(self.bucket, other.head) from None
            self.segments = _listed(self.bucket, other.head, other.body)
            self.head = other.head
            self._put_at[other.head.number] = monotonic()
            raise Overtaken from None
        if self._began.seconds_since() > GAP_SECONDS:
            self._check_newest(head)
        self.head, self._began = head, self._attempt[1]
        self._put_at[head.number] = monotonic()

    def _check_newest(self, head: Head) -> None:
        """Raise ArchiveTakenError when the entry was put where another's fence had been."""
        numbers = filter(None, map(entry_number, self.bucket.list(ENTRIES)))
        newest = max(numbers, default=head.number)
        found = _entry(self.bucket, newest) if newest > head.number else (head, b"")
        if found is None:
            raise Doubt(f"{entry_key(newest)} is not there any more")
        if found[0].epoch != head.epoch:
            raise _taken(self.bucket, found[0])

    def tidy(self) -> None:
        """Remove entries that nothing names any more. Raises what a bucket raises."""
        old = monotonic() - KEPT_SECONDS
        gone = outdated(self.head, [n for n, put_at in self._put_at.items() if put_at <= old])
        if gone:
            self.bucket.remove([entry_key(number) for number in gone])
            for number in gone:
                del self._put_at[number]


class _Moment(NamedTuple):
    """A moment by two clocks, of which one may be set, and the other may stand still."""

    monotonic: float
    time: float

    @classmethod
    def now(cls) -> _Moment:
        return cls(monotonic(), time())

    def seconds_since(self) -> float:
        now = self.now()
        return max(now.monotonic - self.monotonic, now.time - self.time)


def _put(bucket: Bucket, head: Head, body: bytes | memoryview) -> None:
    key, data = entry_key(head.number), encode(head, body)
    try:
        bucket.put_new(key, data)
    except Different:
        found = _entry(bucket, head.number)
        if found is None:
            raise Doubt(f"{key} was there, and is not any more") from None
        if found == decode(data, head.number):  # the answer was damaged, not the object
            return
        raise _Other(*found) from None


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
    began = _Moment.now()
    try:
        state = read_state(bucket)
    except NoArchiveError:
        state = State(_first(store_id, first_sequence), [])
    head = state.head
    if head.store_id != store_id:
        raise ArchiveRefusedError(
            bucket.url, f"it holds another store, {head.store_id.hex()}, not {store_id.hex()}"
        )
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
    times = bucket.times(ENTRIES)
    newest = max(times.values(), default=0.0)
    ages = {n: newest - times[key] for key in times if (n := entry_number(key)) is not None}
    return Line(bucket, State(fence, state.segments), ages, writer, began)


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
