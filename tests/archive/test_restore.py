"""A store is made of an archive, every byte checked."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import pytest

from aquipu import Store
from aquipu.archive.bucket import Bucket
from aquipu.archive.check import Checking
from aquipu.archive.errors import (
    ArchiveDamagedError,
    ArchiveError,
    NoArchiveError,
    NothingBeforeError,
)
from aquipu.archive.fetch import read_state
from aquipu.archive.format.keys import ObjectKey, entry_key
from aquipu.archive.restore import Restoring, Until
from aquipu.errors import (
    BackupRefusedError,
    NotAStoreError,
    RecordNotWrittenError,
    RecordPurgedError,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from aquipu.local.check.verify import verify_all
from aquipu.local.compress.segment import compress
from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import MANIFEST, segment_name
from aquipu.local.format.segment import SegmentHeader
from aquipu.local.read.catalog import Catalog
from aquipu.local.retain.manifest import read_manifest
from tests.archive.faulty import FaultyBucket, MemoryBucket
from tests.archive.made import (
    SEGMENT_BYTES,
    URL,
    JournalLog,
    append,
    archived,
    check_restored,
    data_of,
    grown,
    impatient,
    opened,
    restored,
    ten_archived,
    uploader,
)
from tests.disk import ANY, FailingDisk
from tests.support import NOW, STORE_ID, data_in, open_log, write


@pytest.fixture
def store(tmp_path: Path) -> MemoryBucket:
    """An archive of three sealed segments, of three records each, and one record more."""
    return ten_archived(tmp_path)


def test_an_archive_that_ends_with_a_full_segment(tmp_path: Path) -> None:
    """Lost before the next record went up: the restored store goes on, and so does the archive."""
    store = MemoryBucket()
    grown(tmp_path / "store", range(4))
    archived(store, tmp_path / "store")
    head = read_state(Bucket(URL, store)).head
    assert (head.base, head.next_sequence, len(head.young)) == (3, 4, 1)
    for number in range(head.young[0].number, head.number + 1):
        del store.objects[entry_key(number)]
    check_restored(store, tmp_path / "copy", 3)
    restored(store, tmp_path / "next")
    for numbers in (range(3, 3), range(3, 5), range(5, 9)):
        grown(tmp_path / "next", numbers)
        assert archived(store, tmp_path / "next") == numbers.stop
        check_restored(store, tmp_path / f"copy-{numbers}", numbers.stop)


@pytest.mark.parametrize("stop", range(11))
def test_until_a_sequence(store: MemoryBucket, tmp_path: Path, stop: int) -> None:
    """Restored is what lies before the sequence, also within a segment, and it goes on there."""
    done = restored(store, tmp_path / "copy", Until(sequence=stop))
    assert done.next_sequence == stop
    journal, report = open_log(tmp_path / "copy")
    assert report.next_sequence == stop
    write(journal, b"new")
    journal.close()
    assert data_in(tmp_path / "copy") == [*map(data_of, range(stop)), b"new"]


def test_until_a_time(tmp_path: Path) -> None:
    """Restored is what was accepted before the time: the commits up to the first one that was
    not.
    """
    journal = opened(tmp_path / "store")
    for number in range(8):
        write(journal, data_of(number), time=NOW + number)
        journal.maintain()
    journal.close()
    store = MemoryBucket()
    archived(store, tmp_path / "store")
    for number in range(1, 9):
        done = restored(store, tmp_path / str(number), Until(time=NOW + number))
        assert (done.next_sequence, done.last_timestamp) == (number, NOW + number - 1)


def test_until_a_time_before_the_first_record(tmp_path: Path) -> None:
    """An empty store is not what was asked for: it is said, and nothing is made."""
    journal = opened(tmp_path / "store")
    for number in range(8):
        write(journal, data_of(number), time=NOW + number)
        journal.maintain()
    archives, before = [MemoryBucket(), MemoryBucket()], [0, 3]
    for store, first in zip(archives, before, strict=True):
        journal.purge(before=first)
        uploader(store, JournalLog(journal)).catch_up()
        place = tmp_path / f"from {first}"
        with pytest.raises(NothingBeforeError, match=f"sequence {first}, came later"):
            restored(store, place, Until(time=NOW + first))
        assert not place.exists()
        assert restored(store, place, Until(time=NOW + first + 1)).next_sequence == first + 1
        assert (
            restored(store, tmp_path / f"none {first}", Until(sequence=first)).last_timestamp
            is None
        )
    journal.close()


def test_a_commit_is_whole_or_not_there(tmp_path: Path) -> None:
    """A bound within a commit leaves all of it out: what was appended at once stays together."""
    (tmp_path / "store").mkdir()
    journal, _ = open_log(tmp_path / "store")
    write(journal, b"0", b"1")
    write(journal, b"2", b"3", b"4")
    journal.close()
    store = MemoryBucket()
    archived(store, tmp_path / "store")
    assert restored(store, tmp_path / "copy", Until(sequence=4)).next_sequence == 2


def test_segments_that_are_compressed(tmp_path: Path) -> None:
    """A store with compressed segments is archived, also when they were compressed in between, and
    restored up to any record.
    """
    journal = opened(tmp_path / "store")
    append(journal, range(2))
    store = MemoryBucket()
    uploader(store, JournalLog(journal)).catch_up()
    append(journal, range(2, 10))
    for segment in journal.segments[:-1]:
        assert compress(Disk(), segment, lambda: None) is not None
    uploader(store, JournalLog(journal)).catch_up()
    journal.close()
    check_restored(store, tmp_path / "copy", 10)
    for stop in range(10):
        assert restored(store, tmp_path / str(stop), Until(sequence=stop)).next_sequence == stop
        assert data_in(tmp_path / str(stop)) == [data_of(number) for number in range(stop)]
    checking = Checking(Bucket(URL, store), Disk(), str(tmp_path / "store"), Event(), None)
    assert checking.carry_out().problems == []


def test_segments_go_up_compressed(tmp_path: Path) -> None:
    """They take less, hold the same, and are those of the store."""
    journal, store = opened(tmp_path / "store"), MemoryBucket()
    append(journal, range(10))
    uploader(store, JournalLog(journal), compress=True).catch_up()
    journal.close()
    sizes = [len(body) for key, body in store.objects.items() if ObjectKey.parse(key)]
    assert len(sizes) == 3
    assert max(sizes) < SEGMENT_BYTES // 4
    check_restored(store, tmp_path / "copy", 10)
    for stop in range(10):
        assert restored(store, tmp_path / str(stop), Until(sequence=stop)).next_sequence == stop
    checked = Checking(Bucket(URL, store), Disk(), str(tmp_path / "store"), Event(), None)
    assert checked.carry_out()._replace(bytes=0)[3:] == (3, 3, 3, 0, [], 0, 0.0)


def test_bounds_that_are_not_there(store: MemoryBucket, tmp_path: Path) -> None:
    """A bound beyond the archive is an error, and nothing is made."""
    with pytest.raises(RecordNotWrittenError):
        restored(store, tmp_path / "copy", Until(sequence=11))
    grown(tmp_path / "late", range(10))
    journal = opened(tmp_path / "late")
    journal.purge(before=6)
    journal.close()
    late = MemoryBucket()
    archived(late, tmp_path / "late")
    check_restored(late, tmp_path / "copy of it", 10, start=6)
    with pytest.raises(RecordPurgedError):
        restored(late, tmp_path / "copy", Until(sequence=5))
    assert not (tmp_path / "copy").exists()


class Killed(BaseException):
    """Whatever ends the program."""


def test_one_that_was_cut_short_goes_on(store: MemoryBucket, tmp_path: Path) -> None:
    """Wherever it was cut short, the next one goes on: what is there whole is not fetched again."""
    fetched, number = set(), 1
    while True:
        place, disk = tmp_path / str(number), FailingDisk()
        disk.fail(ANY, Killed(), nth=number)
        try:
            Restoring(Bucket(URL, store), disk, str(place), Until(), Event()).carry_out()
            break
        except Killed:
            disk.end_process()
        check_whole_or_refused(place)
        fetched.add(restored(store, place).fetched_bytes)
        assert data_in(place) == [data_of(number) for number in range(10)]
        number += 3
    assert number > 30
    assert len(fetched) == 4


def check_whole_or_refused(place: Path) -> None:
    """Nobody takes a part of a log for a store, to read it or to go on there."""
    if not (place / MANIFEST).exists():
        return
    if not read_manifest(Disk(), str(place)).is_unfinished:
        assert len(data_in(place)) == 10
        return
    before = files_in(place)
    tries: list[Callable[[], object]] = [
        partial(open_log, place),
        partial(verify_all, Disk(), str(place)),
        partial(Catalog, Disk(), str(place)),
    ]
    for refused in tries:
        with pytest.raises(NotAStoreError, match="a restore has not finished: do that again"):
            refused()
    assert files_in(place) == before


@pytest.mark.parametrize("seed", range(4))
def test_answers_that_are_wrong(
    store: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A damaged answer is asked for again: what is restored is what was archived."""
    impatient(monkeypatch)
    faulty = FaultyBucket(Random(seed), 0.2, ("refused", "truncated", "swapped", "listing lags"))
    faulty.objects = store.objects
    check_restored(faulty, tmp_path / "copy", 10)


def test_any_flipped_byte_is_found(store: MemoryBucket, tmp_path: Path) -> None:
    """One byte changed in any object that is named, and it is said which one it is."""
    random = Random(5)
    named = [key for key in store.objects if key in _named(store)]
    assert len(named) == 5
    for key in named:
        good = store.objects[key]
        for _ in range(5):
            at = random.randrange(len(good))
            store.objects[key] = good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :]
            with pytest.raises((ArchiveDamagedError, UnsupportedFormatError), match=key[:40]):
                restored(store, tmp_path / f"copy of {key[-9:]} {at}")
        store.objects[key] = good


def _named(store: MemoryBucket) -> set[str]:
    state = read_state(Bucket(URL, store))
    head = state.head
    numbers = [head.number, head.listed, *(piece.number for piece in head.young)]
    names = {f"entries/{number:020d}" for number in numbers if number is not None}
    return names | {str(one.key(head.store_id)) for one in state.segments}


def test_an_object_is_missing(store: MemoryBucket, tmp_path: Path) -> None:
    """It is named, and what lies before it can be restored."""
    key = [key for key in sorted(store.objects) if ObjectKey.parse(key)][1]
    del store.objects[key]
    with pytest.raises(ArchiveDamagedError, match=f"{key} is missing"):
        restored(store, tmp_path / "copy")
    assert restored(store, tmp_path / "earlier", Until(sequence=3)).next_sequence == 3


def test_no_archive(tmp_path: Path) -> None:
    """Nothing is made of nothing."""
    with pytest.raises(NoArchiveError):
        restored(MemoryBucket(), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_place_that_is_taken(store: MemoryBucket, tmp_path: Path) -> None:
    """A store, or other files, are never written over."""
    restored(store, tmp_path / "copy")
    asyncio.run(open_and_close(tmp_path / "copy"))
    before = files_in(tmp_path / "copy")
    with pytest.raises(BackupRefusedError, match="holds a store already"):
        restored(store, tmp_path / "copy")
    assert files_in(tmp_path / "copy") == before
    with pytest.raises(BackupRefusedError, match=r"it lies within the store, .*/copy;"):
        restored(store, tmp_path / "copy" / "further" / "within")
    assert not (tmp_path / "copy" / "further").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("hello")
    with pytest.raises(NotAStoreError):
        restored(store, other)


async def open_and_close(path: Path) -> None:
    """Have a service take it, which appends nothing."""
    async with Store.open(path):
        pass


def test_one_that_is_done_is_done_again(store: MemoryBucket, tmp_path: Path) -> None:
    """Its process may have ended before it said so: the next one says so, and copies nothing."""
    copy = tmp_path / "copy"
    first, before = restored(store, copy), files_in(copy)
    again = restored(store, copy)
    assert again[:5] == first[:5]
    assert again.fetched_bytes < SEGMENT_BYTES  # the young end alone, to be compared
    assert files_in(copy) == before


@pytest.mark.parametrize("compress", [False, True])
def test_one_that_is_done_goes_on_with_the_archive(
    store: MemoryBucket, tmp_path: Path, compress: bool
) -> None:
    """What the archive has got since comes to what is there, which nobody has opened."""
    restored(store, tmp_path / "copy")
    grown(tmp_path / "store", range(10, 17))
    archived(store, tmp_path / "store", compress=compress)
    check_restored(store, tmp_path / "copy", 17)


@pytest.mark.parametrize("bound", [0, 3, 4, 9])
def test_a_bound_before_the_end_of_what_is_there(
    store: MemoryBucket, tmp_path: Path, bound: int
) -> None:
    """No record that was restored is taken away again: that is another restore."""
    refused(store, tmp_path / "copy", Until(sequence=bound), like=store)


@pytest.mark.parametrize("other", [data_of(50), bytes(SEGMENT_BYTES)])
def test_a_place_that_has_gone_on_apart(tmp_path: Path, other: bytes) -> None:
    """A copy of the same store with other records keeps them, wherever their segments begin."""
    archives = []
    for data in [[data_of(number) for number in range(4, 10)], [other] * 5]:
        shutil.rmtree(tmp_path / "store", ignore_errors=True)
        grown(tmp_path / "store", range(4))
        journal = opened(tmp_path / "store")
        for one in data:
            write(journal, one)
            journal.maintain()
        journal.close()
        archives.append(MemoryBucket())
        archived(archives[-1], tmp_path / "store")
    refused(archives[0], tmp_path / "copy", Until(), like=archives[1])


@pytest.mark.parametrize("is_older", [False, True])
def test_a_place_that_begins_elsewhere(tmp_path: Path, is_older: bool) -> None:
    """Its older records stay, and none is put before them."""
    early, late = ten_archived(tmp_path), MemoryBucket()
    journal = opened(tmp_path / "store")
    journal.purge(before=6)
    journal.close()
    archived(late, tmp_path / "store")
    store, like = (late, early) if is_older else (early, late)
    refused(store, tmp_path / "copy", Until(), like=like)


def test_a_name_that_was_given_too_early(store: MemoryBucket, tmp_path: Path) -> None:
    """A segment that is empty still, made for what was to come, is not in the way."""
    copy = tmp_path / "copy"
    restored(store, copy)
    header = SegmentHeader(STORE_ID, 12, 0, 0)
    (copy / segment_name(12)).write_bytes(header.encode())
    check_restored(store, copy, 10)


def refused(store: MemoryBucket, copy: Path, until: Until, *, like: MemoryBucket) -> None:
    """Restore one archive, and then another to the same place: nothing there changes."""
    restored(like, copy)
    before = files_in(copy)
    with pytest.raises(BackupRefusedError, match="not the beginning of what is restored"):
        restored(store, copy, until)
    assert files_in(copy) == before


def files_in(directory: Path) -> dict[str, bytes]:
    """Return what each file holds."""
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_no_space(store: MemoryBucket, tmp_path: Path) -> None:
    """No space at the place is one clear error; with space it goes on."""
    disk = FullDisk()
    with pytest.raises(StoreUnavailableError, match="No space left"):
        Restoring(Bucket(URL, store), disk, str(tmp_path / "copy"), Until(), Event()).carry_out()
    check_restored(store, tmp_path / "copy", 10)


class FullDisk(Disk):
    """A disk with space for a few writes."""

    left = 6

    def write(self, descriptor: int, buffers: Any, offset: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        super().write(descriptor, buffers, offset)


def test_errors_name_the_place() -> None:
    """Every error of an archive can be taken apart, and names the place."""
    error = NoArchiveError(URL, "it is empty")
    assert isinstance(error, ArchiveError)
    assert (error.url, error.reason) == (URL, "it is empty")
    assert URL in str(error)
