"""The line of entries, and who may go on with it."""

from __future__ import annotations

from random import Random

import pytest

from aquipu.archive import line as line_file
from aquipu.archive.bucket import Bucket, Doubt
from aquipu.archive.errors import (
    ArchiveDamagedError,
    ArchiveRefusedError,
    ArchiveTakenError,
    NoArchiveError,
)
from aquipu.archive.fetch import read_state
from aquipu.archive.format.entry import EntryKind
from aquipu.archive.format.keys import entry_key
from aquipu.archive.line import Line, claim
from aquipu.errors import UnsupportedFormatError
from tests.archive.faulty import FaultyBucket, MemoryBucket
from tests.archive.made import URL

STORE_ID = bytes(range(16))


def claimed(store: MemoryBucket, writer: str = "one", store_id: bytes = STORE_ID) -> Line:
    """Claim an archive."""
    return claim(Bucket(URL, store), store_id, 5, writer, lambda state: None)


def put(line: Line, body: bytes = b"") -> None:
    """Put the next entry."""
    line.put(line.next_head()._replace(kind=EntryKind.YOUNG), body)


def test_nothing_is_there() -> None:
    """A place without entries is no archive; the first claim begins one where the log begins."""
    store = MemoryBucket()
    with pytest.raises(NoArchiveError, match="no entry"):
        read_state(Bucket(URL, store))
    line = claimed(store)
    assert (line.head.number, line.head.epoch, line.head.first_sequence) == (0, 1, 5)
    assert read_state(Bucket(URL, store)).head == line.head


def test_the_first_one_stops() -> None:
    """Of two writers the one that began last goes on; the other is told who it is, and stops."""
    store = MemoryBucket()
    first = claimed(store, "the first")
    put(first)
    second = claimed(store, "the second")
    assert second.head.epoch == first.head.epoch + 1
    with pytest.raises(ArchiveTakenError, match="is of the second"):
        put(first)
    put(second)
    with pytest.raises(ArchiveTakenError):
        put(first)
    assert read_state(Bucket(URL, store)).head == second.head


def test_another_store() -> None:
    """The archive of another store is refused, and nothing is written."""
    store = MemoryBucket()
    claimed(store)
    before = dict(store.objects)
    with pytest.raises(ArchiveRefusedError, match="it holds another store"):
        claimed(store, store_id=bytes(16))
    assert store.objects == before


def test_what_does_not_go_with_the_log() -> None:
    """It is checked before anything is written: the writer at work is not disturbed."""
    store = MemoryBucket()
    first = claimed(store)

    def refuse(state: object) -> None:
        raise ArchiveRefusedError(URL, "another log")

    with pytest.raises(ArchiveRefusedError):
        claim(Bucket(URL, store), STORE_ID, 5, "two", refuse)
    put(first)


def test_the_same_entry_again() -> None:
    """After an answer that was lost, the entry is put again, and is there once."""
    store = FaultyBucket(Random(2), 0.0, ("lost before", "lost behind"))
    line = claimed(store)
    store.share = 0.7
    for number in range(20):
        head = line.next_head()._replace(kind=EntryKind.YOUNG)
        while True:
            try:
                line.put(head, b"%d" % number)
                break
            except Doubt:
                continue
    assert {len(bodies) for bodies in store.puts.values()} == {1}
    assert read_state(Bucket(URL, MemoryBucketOf(store))).head.number == 20
    assert {"lost before", "lost behind"} == set(store.counts)


class MemoryBucketOf(MemoryBucket):
    """The same objects, by calls that do not fail."""

    def __init__(self, store: MemoryBucket) -> None:
        super().__init__()
        self.objects = store.objects


def test_a_listing_that_lags() -> None:
    """A listing says only where to begin: later entries are found by their numbers."""
    store = MemoryBucket()
    line = claimed(store)
    for _ in range(5):
        put(line)
    lagging = MemoryBucket()
    lagging.objects = store.objects
    shown = {entry_key(number): b"" for number in (0, 1, 2)}

    def behind(prefix: str, *, chunk_size: int) -> object:
        return iter([[{"path": key, "size": 1} for key in shown]])

    lagging.list = behind  # type: ignore[method-assign,assignment]
    assert read_state(Bucket(URL, lagging)).head.number == 5
    shown.clear()
    with pytest.raises(Doubt, match="lags behind"):
        read_state(Bucket(URL, lagging))


def test_a_damaged_entry() -> None:
    """The newest entry is damaged, or of a later version: each is said, with its name."""
    store = MemoryBucket()
    line = claimed(store)
    put(line, b"body")
    key = entry_key(1)
    good = store.objects[key]
    store.objects[key] = good[:-1]
    with pytest.raises(ArchiveDamagedError, match=key):
        read_state(Bucket(URL, store))
    store.objects[key] = good[:8] + b"\x09" + good[9:]
    with pytest.raises(UnsupportedFormatError, match="format version 9"):
        read_state(Bucket(URL, store))


def test_a_writer_that_was_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told also when the fence has gone that was in its way."""
    store = MemoryBucket()
    first = claimed(store, "the first")
    put(first)
    second = claimed(store, "the second")
    for _ in range(150):
        put(second)
    monkeypatch.setattr(line_file, "KEPT_SECONDS", 0.0)
    second.tidy()
    assert entry_key(2) not in store.objects
    monkeypatch.setattr(line_file, "GAP_SECONDS", -1.0)
    with pytest.raises(ArchiveTakenError, match="entry 152 is of the second"):
        put(first)
    put(second)
    assert read_state(Bucket(URL, store)).head == second.head


def test_entries_that_nothing_names_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are removed, a hundred numbers and a minute later, and the first one never is."""
    store = MemoryBucket()
    line = claimed(store)
    for _ in range(150):
        put(line)
    before = dict(store.objects)
    line.tidy()
    assert store.objects == before
    monkeypatch.setattr(line_file, "KEPT_SECONDS", 0.0)
    line.tidy()
    assert sorted(store.objects) == [entry_key(n) for n in (0, *range(51, 151))]
    line.tidy()
    assert claimed(store).head.number == 151
