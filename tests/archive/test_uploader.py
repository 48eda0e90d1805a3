"""A log is carried to its archive, beside its writer, whatever the object store answers."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from random import Random
from threading import Event

import pytest

from aquipu.archive.bucket import Bucket
from aquipu.archive.errors import (
    ArchiveDamagedError,
    ArchiveRefusedError,
    ArchiveTakenError,
    ArchiveUnavailableError,
)
from aquipu.archive.fetch import read_state
from aquipu.archive.format.keys import ObjectKey
from aquipu.archive.log import CatalogLog
from aquipu.local.check.indexes import build_indexes
from aquipu.local.compress.segment import compress
from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import segment_name
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.examine import examine
from aquipu.local.write.journal import Journal
from tests.archive import made
from tests.archive.faulty import DeniedBucket, FaultyBucket, MemoryBucket
from tests.archive.made import (
    URL,
    JournalLog,
    append,
    archived,
    check_archive,
    check_restored,
    grown,
    impatient,
    opened,
    uploader,
)
from tests.local.backup.made import purged
from tests.support import open_log, segment_in, write


def test_all_of_it_and_then_what_is_new(tmp_path: Path) -> None:
    """An archive holds the log; made again it gets what is new, and nothing is put twice."""
    store = MemoryBucket()
    grown(tmp_path / "store", range(7))
    assert archived(store, tmp_path / "store") == 7
    check_restored(store, tmp_path / "first", 7)
    before = dict(store.objects)
    grown(tmp_path / "store", range(7, 20))
    assert archived(store, tmp_path / "store") == 20
    check_restored(store, tmp_path / "second", 20)
    assert all(store.objects[key] == body for key, body in before.items())
    assert {len(bodies) for bodies in store.puts.values()} == {1}


def test_an_empty_log(tmp_path: Path) -> None:
    """An archive without a record is one of this store, and so is what is restored of it."""
    store = MemoryBucket()
    grown(tmp_path / "store", range(0))
    assert archived(store, tmp_path / "store") == 0
    check_restored(store, tmp_path / "copy", 0)


def test_beside_the_writer(tmp_path: Path) -> None:
    """Young parts go up while the segment is being written, and give way to its object."""
    store = MemoryBucket()
    journal = opened(tmp_path / "store")
    carrier = uploader(store, JournalLog(journal))
    for number in range(20):
        append(journal, range(number, number + 1))
        assert carrier.catch_up() == number + 1
        if number % 5 == 0:
            check_restored(store, tmp_path / str(number), number + 1)
    journal.close()
    state = read_state(Bucket(URL, store))
    assert len(state.segments) == 6
    assert state.head.next_sequence == 20


def test_a_roll_that_is_undone(tmp_path: Path) -> None:
    """A full segment behind which nothing came may be gone on with: it is not archived as full."""
    store, path = MemoryBucket(), tmp_path / "store"
    for begin in range(0, 12, 3):
        journal = opened(path)
        append(journal, range(begin, begin + 3))
        assert uploader(store, JournalLog(journal)).catch_up() == begin + 3
        journal.drop()  # the empty segment behind goes at the next opening
    check_restored(store, tmp_path / "copy", 12)


def test_a_segment_that_was_compressed_while_it_was_young(tmp_path: Path) -> None:
    """Its young parts are put anew: in the compressed file frames stand elsewhere."""
    store, path = MemoryBucket(), tmp_path / "store"
    journal = opened(path)
    append(journal, range(2))
    carrier = uploader(store, JournalLog(journal))
    carrier.catch_up()
    append(journal, range(2, 3))
    assert compress(Disk(), journal.segments[0], lambda: None) is not None
    for end in (3, 4):
        assert uploader(store, JournalLog(journal)).catch_up() == end
        append(journal, range(end, 4))
    journal.close()
    check_restored(store, tmp_path / "copy", 4)


class CompressedAt(Disk):
    """Has the first segment compressed just before its file is opened for the n-th time."""

    def __init__(self, opens: int) -> None:
        super().__init__()
        self.opens = opens

    def open(self, path: str, *, writable: bool = False) -> int:
        if path.endswith(segment_name(0)):
            self.opens -= 1
            if self.opens == 0:
                with closing(Catalog(Disk(), path.rpartition("/")[0])) as catalog:
                    assert compress(Disk(), catalog.look().segments[0], lambda: None) is not None
        return super().open(path, writable=writable)


@pytest.mark.parametrize("claiming", [False, True])
def test_a_segment_that_is_compressed_while_it_is_read(
    tmp_path: Path, claiming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At whatever moment: no part goes up that is of both files, and none is refused."""
    monkeypatch.setattr(made, "SEGMENT_BYTES", 1 << 20)
    opens = 0
    while True:
        opens, store, path = opens + 1, MemoryBucket(), tmp_path / str(opens)
        journal = opened(path)
        log = JournalLog(journal)
        carrier = uploader(store, log)
        for number in range(7):
            append(journal, range(number, number + 1))
            carrier.catch_up()
        append(journal, range(7, 8))
        assert journal.roll()
        log.disk = disk = CompressedAt(opens)
        carrier = uploader(store, log) if claiming else carrier
        assert carrier.catch_up() == 8
        check_restored(store, path.with_suffix(".first"), 8)
        append(journal, range(8, 9))
        assert carrier.catch_up() == 9
        journal.close()
        check_restored(store, path.with_suffix(".second"), 9)
        if disk.opens > 0:
            break
    assert opens > 2


def test_a_plain_copy_of_a_segment_that_went_up_compressed(tmp_path: Path) -> None:
    """The store is made anew of a backup that has it as it was: it is the same log."""
    store, path = MemoryBucket(), tmp_path / "store"
    journal = opened(path)
    append(journal, range(3))
    shutil.copytree(path, tmp_path / "copy")
    assert compress(Disk(), journal.segments[0], lambda: None) is not None
    assert uploader(store, JournalLog(journal)).catch_up() == 3
    journal.close()
    copy = opened(tmp_path / "copy")
    for end in (3, 4, 7):
        append(copy, range(copy.next_sequence, end))
        assert uploader(store, JournalLog(copy)).catch_up() == end
    copy.close()
    check_restored(store, tmp_path / "restored", 7)


def test_no_right_to_delete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that are outdated stay, and everything is archived all the same."""

    def refuse(key: str) -> None:
        raise PermissionError("403")

    monkeypatch.setattr("aquipu.archive.line.KEPT_SECONDS", 0.0)
    monkeypatch.setattr("aquipu.archive.format.plan.KEPT_NUMBERS", 3)
    journal, store = opened(tmp_path / "store"), MemoryBucket()
    monkeypatch.setattr(store, "delete", refuse)
    carrier = uploader(store, JournalLog(journal), patience=0.0)
    for number in range(10):
        append(journal, range(number, number + 1))
        assert carrier.catch_up() == number + 1
    journal.close()
    check_restored(store, tmp_path / "copy", 10)


def test_young_parts_are_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many small parts few are alive, and the archive holds every record all the same."""
    monkeypatch.setattr("aquipu.archive.line.KEPT_SECONDS", 0.0)
    store = MemoryBucket()
    (tmp_path / "store").mkdir()
    journal, _ = open_log(tmp_path / "store")
    carrier = uploader(store, JournalLog(journal))
    for number in range(300):
        write(journal, b"%d" % number)
        carrier.catch_up()
    assert len(read_state(Bucket(URL, store)).head.young) <= 14
    assert len(store.objects) <= 130
    journal.close()
    archived(store, tmp_path / "store")
    from tests.archive.made import restored
    from tests.support import data_in

    restored(store, tmp_path / "copy")
    assert data_in(tmp_path / "copy") == [b"%d" % number for number in range(300)]


def test_label_indexes_come_along(tmp_path: Path) -> None:
    """The label index of a segment is archived with it, or later, when it has been built."""
    store, path = MemoryBucket(), tmp_path / "store"
    grown(path, range(10))
    archived(store, path)
    found = examine(Disk(), str(path))
    assert found is not None
    build_indexes(Disk(), found.sealed, anew=False, progress=lambda size: None)
    archived(store, path)
    state = read_state(Bucket(URL, store))
    tables = [one.table_key(state.head.store_id) for one in state.segments]
    names = [str(key) for key in tables if key is not None]
    assert len(names) == 3
    assert set(names) <= set(store.objects)
    check_restored(store, tmp_path / "copy", 10)
    assert len(list((tmp_path / "copy").glob("*.relations"))) == 3


def test_the_store_was_purged_too_early(tmp_path: Path) -> None:
    """What is missing in between is never left out: it is said, and the archive stays as it is."""
    store, path = MemoryBucket(), tmp_path / "store"
    grown(path, range(4))
    archived(store, path)
    before = dict(store.objects)
    journal = opened(path)
    append(journal, range(4, 20))
    journal.purge(before=9)
    journal.close()
    with pytest.raises(ArchiveRefusedError, match="has purged its records up to sequence 8"):
        archived(store, path)
    assert store.objects == before


def sealed_and_purged(journal: Journal, before: int) -> None:
    """Seal the last segment, and purge every record."""
    journal.roll()
    purged(journal, before)
    assert journal.segments[0].first_sequence == before


@pytest.mark.parametrize("compress", [False, True])
def test_all_that_is_archived_was_purged(tmp_path: Path, compress: bool) -> None:
    """The last segment was sealed and purged between two looks: nothing is missing, it goes on."""
    store, journal = MemoryBucket(), opened(tmp_path / "store")
    carrier = uploader(store, JournalLog(journal), compress=compress)
    append(journal, range(4))
    carrier.catch_up()
    append(journal, range(4, 5))
    carrier.catch_up()
    sealed_and_purged(journal, 5)
    append(journal, range(5, 7))
    assert carrier.catch_up() == 7
    state = read_state(Bucket(URL, store))
    assert [one.first_sequence for one in state.segments] == [0, 3]
    assert (state.segments[1].plain_bytes > 0) is compress
    check_restored(store, tmp_path / "copy", 7)
    journal.close()


def test_nothing_is_archived_yet(tmp_path: Path) -> None:
    """An archive that holds no record begins where the log does by now."""
    store, journal = MemoryBucket(), opened(tmp_path / "store")
    assert uploader(store, JournalLog(journal)).catch_up() == 0
    append(journal, range(5))
    journal.purge(before=3)
    assert uploader(store, JournalLog(journal)).catch_up() == 5
    journal.close()
    check_restored(store, tmp_path / "copy", 5, start=3)


def test_all_that_is_archived_was_purged_from_a_store_at_rest(tmp_path: Path) -> None:
    """Whoever carries it next goes on there."""
    store, journal = MemoryBucket(), opened(tmp_path / "store")
    append(journal, range(5))
    uploader(store, JournalLog(journal)).catch_up()
    sealed_and_purged(journal, 5)
    journal.close()
    assert archived(store, tmp_path / "store") == 5
    grown(tmp_path / "store", range(5, 9))
    assert archived(store, tmp_path / "store") == 9
    check_restored(store, tmp_path / "copy", 9)


def test_a_mark_came_behind_what_is_archived(tmp_path: Path) -> None:
    """No record is missing, and what a mark says is known: the archive goes on there."""
    store, journal = MemoryBucket(), opened(tmp_path / "store")
    append(journal, range(5))
    uploader(store, JournalLog(journal)).catch_up()
    journal.close()
    journal = opened(tmp_path / "store")
    sealed_and_purged(journal, 5)
    journal.close()
    grown(tmp_path / "store", range(5, 9))
    assert archived(store, tmp_path / "store") == 9
    check_restored(store, tmp_path / "copy", 9)


def test_a_copy_that_went_on_apart(tmp_path: Path) -> None:
    """Two histories are never mixed: what does not have what is archived is refused."""
    store = MemoryBucket()
    grown(tmp_path / "store", range(5))
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    grown(tmp_path / "copy", range(100, 103))
    grown(tmp_path / "store", range(5, 8))
    archived(store, tmp_path / "store")
    before = dict(store.objects)
    with pytest.raises(ArchiveRefusedError, match=r"apart|reaches up to"):
        archived(store, tmp_path / "copy")
    grown(tmp_path / "copy", range(200, 220))
    with pytest.raises(ArchiveRefusedError, match="apart"):
        archived(store, tmp_path / "copy")
    assert store.objects == before


def replaced(path: Path, other: Path) -> None:
    """Put the files of another store in the place of those of this one, in its directory."""
    for file in path.iterdir():
        file.unlink()
    for file in other.iterdir():
        shutil.copy2(file, path)


@pytest.mark.parametrize("roll", [False, True])
@pytest.mark.parametrize("before", [2, 3])
def test_files_that_are_replaced_while_they_are_carried(
    tmp_path: Path, roll: bool, before: int
) -> None:
    """Of another history nothing is put behind the first one, be it full or not: that is said.

    Wherever the two have parted: within the segment, or with its first record.
    """
    store, path, old = MemoryBucket(), tmp_path / "store", tmp_path / "old"
    grown(path, range(before))
    shutil.copytree(path, old)
    grown(path, range(before, 5))
    catalog = Catalog(Disk(), str(path))
    carrier = uploader(store, CatalogLog(Disk(), str(path), catalog), patience=0.0)
    assert carrier.catch_up() == 5
    put = dict(store.objects)
    replaced(path, old)
    grown(path, range(105 - before, 110 if roll else 109 - before))
    with pytest.raises(ArchiveRefusedError, match="holds other records"):
        carrier.catch_up()
    catalog.close()
    assert store.objects == put
    check_restored(store, tmp_path / "copy", 5)


def test_two_machines(tmp_path: Path) -> None:
    """A machine that takes over stops the first one's archive at its next put, and goes on."""
    store = MemoryBucket()
    first = opened(tmp_path / "first")
    carrier = uploader(store, JournalLog(first), writer="the first")
    append(first, range(5))
    carrier.catch_up()
    check_restored(store, tmp_path / "second", 5)
    archived(store, tmp_path / "second", writer="the second")
    append(first, range(5, 6))
    with pytest.raises(ArchiveTakenError, match="is of the second"):
        carrier.catch_up()
    first.close()
    assert check_archive(store.objects) == 6


def test_a_damaged_segment_is_not_archived(tmp_path: Path) -> None:
    """What does not check on the disk is an error: no archive holds it."""
    from aquipu.errors import CorruptionError

    store, path = MemoryBucket(), tmp_path / "store"
    grown(path, range(10))
    damaged = segment_in(path)
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(CorruptionError):
        archived(store, path)
    assert not any(ObjectKey.parse(key) for key in store.objects)


def test_an_object_of_other_bytes(tmp_path: Path) -> None:
    """Where a name is taken by bytes that are not its own, nothing is believed archived."""
    store, path = MemoryBucket(), tmp_path / "store"
    grown(path, range(10))
    archived(store, path)
    key = next(key for key in store.objects if ObjectKey.parse(key))
    other = MemoryBucket()
    other.objects[key] = b"other bytes"
    with pytest.raises(ArchiveDamagedError, match="other bytes"):
        archived(other, path)


def test_no_permission(tmp_path: Path) -> None:
    """Without permission a carrying that is to end says so at once."""
    grown(tmp_path / "store", range(3))
    with pytest.raises(ArchiveUnavailableError, match="no permission"):
        archived(DeniedBucket(), tmp_path / "store")


def test_following_until_told_to_stop(tmp_path: Path) -> None:
    """It goes on until it is told to stop, also while the object store is away."""
    grown(tmp_path / "store", range(3))
    journal = opened(tmp_path / "store")
    stop, store = Event(), DeniedBucket()
    said: list[str | None] = []

    def told(progress: object) -> None:
        said.append(progress.trouble)  # type: ignore[attr-defined]
        stop.set()

    carrier = uploader(store, JournalLog(journal), stop=stop, told=told)
    carrier.follow()
    journal.close()
    assert said[0] is not None
    assert said[0].startswith("no permission")


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_object_store_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Everything is archived in the end, each object once, whatever answers were lost or wrong.

    The carrier is given up and begun anew between two steps now and then, as a process is that is
    killed.
    """
    impatient(monkeypatch)
    random = Random(seed)
    store = FaultyBucket(random, random.choice((0.05, 0.15, 0.3)))
    journal = opened(tmp_path / "store")
    carrier = uploader(store, JournalLog(journal))
    written = believed = 0
    for _ in range(30):
        number = random.randrange(4)
        append(journal, range(written, written + number))
        written += number
        if random.random() < 0.3:
            carrier = uploader(store, JournalLog(journal))
        believed = carrier.catch_up()
        assert check_archive(dict(store.objects)) == believed == written
    journal.close()
    assert {len(set(bodies)) for bodies in store.puts.values()} == {1}
    well = MemoryBucket()
    well.objects = store.objects
    check_restored(well, tmp_path / "copy", written)
    assert store.counts
