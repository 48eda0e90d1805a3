"""An archive lets go of its oldest segments, beside whatever carries it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Event

import pytest

from aquipu import Reader, RecordPurgedError, Store
from aquipu.archive import line as line_file
from aquipu.archive.bucket import Bucket
from aquipu.archive.check import Checking
from aquipu.archive.errors import ArchiveUnavailableError
from aquipu.archive.fetch import read_state
from aquipu.archive.format.keys import ObjectKey
from aquipu.archive.purge import outlived, purge
from aquipu.archive.restore import Restoring, Until
from aquipu.local.disk.disk import Disk
from aquipu.record import Purged
from tests.archive.faulty import FaultyBucket, MemoryBucket
from tests.archive.made import (
    URL,
    JournalLog,
    append,
    archived,
    check_restored,
    impatient,
    opened,
    restored,
    ten_archived,
    uploader,
)
from tests.archive.test_read import Kept
from tests.disk import ANY, FailingDisk
from tests.support import NOW, write


class Killed(BaseException):
    """Whatever ends the program."""


def purged(store: MemoryBucket, before: int, *, dry: bool = False) -> Purged:
    """Let go of what lies before a sequence."""
    return purge(Bucket(URL, store), before, None, "another process", Event(), dry)


def spans(store: MemoryBucket) -> list[tuple[int, int]]:
    """Return what records the objects hold that are there."""
    keys = filter(None, map(ObjectKey.parse, sorted(store.objects)))
    return [(key.first_sequence, key.next_sequence) for key in keys]


@pytest.fixture
def store(tmp_path: Path) -> MemoryBucket:
    """An archive of three full segments, of three records each, and one record more."""
    return ten_archived(tmp_path)


@pytest.mark.parametrize("gap", [20.0, -1.0])
def test_beside_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gap: float) -> None:
    """Whoever carries the log goes on, with the same archive, also one that looks at it after a
    pause: nothing is lost but what was let go of.
    """
    monkeypatch.setattr(line_file, "GAP_SECONDS", gap)
    journal, store = opened(tmp_path / "store"), MemoryBucket()
    carrying = uploader(store, JournalLog(journal))
    for begin in range(0, 36, 4):
        append(journal, range(begin, begin + 4))
        carrying.catch_up()
        done = purged(store, begin - 4)
        assert done.first_sequence == read_state(Bucket(URL, store)).head.first_sequence
    journal.close()
    assert carrying.catch_up() == 36
    assert spans(store)[0] == (27, 30)
    check_restored(store, tmp_path / "copy", 36, start=27)
    checked = Checking(Bucket(URL, store), Disk(), None, Event(), None).carry_out()
    assert (checked.first_sequence, checked.problems) == (27, [])


def test_what_goes(store: MemoryBucket) -> None:
    """Full segments alone, never the newest, and nothing when it is only asked what would."""
    before = dict(store.objects)
    done = purged(store, 8, dry=True)
    assert done[:4] == (0, 6, 2, 6)
    sizes = [len(before[key]) for key in sorted(before) if ObjectKey.parse(key)]
    assert done.bytes == sum(sizes[:2])
    assert purged(store, 2)[:4] == (0, 0, 0, 0)
    assert store.objects == before
    assert purged(store, 5)[:4] == (0, 3, 1, 3)
    assert purged(store, 100)[:4] == (3, 6, 1, 3)
    assert spans(store) == [(6, 9)]
    assert purged(store, 100)[:4] == (6, 6, 0, 0)


def test_before_a_time(tmp_path: Path) -> None:
    """Those in which everything was accepted before it."""
    journal, store = opened(tmp_path / "store"), MemoryBucket()
    for number in range(10):
        write(journal, bytes(1500), time=NOW + number)
        journal.maintain()
    journal.close()
    archived(store, tmp_path / "store")
    segments = read_state(Bucket(URL, store)).segments
    counts = [len(outlived(segments, None, NOW + time)) for time in range(12)]
    assert counts == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_killed_before_the_objects_are_gone(store: MemoryBucket, tmp_path: Path) -> None:
    """The archive begins where the entry says; the next purge removes what was left."""

    def die(key: str) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "delete", die)
        with suppress(Killed):
            purged(store, 6)
    assert spans(store)[0] == (0, 3)
    check_restored(store, tmp_path / "copy", 10, start=6)
    purged(store, 0)
    assert spans(store) == [(6, 9)]


@pytest.mark.asyncio
async def test_readers(store: MemoryBucket, tmp_path: Path) -> None:
    """One that is at work is told, and where the archive begins now; the next one begins there."""
    async with Reader.open(Kept(store)) as reader:
        purged(store, 6)
        with pytest.raises(RecordPurgedError) as raised:
            [one async for one in reader.scan()]
        assert (raised.value.sequence, raised.value.bound) == (0, 6)
    async with Reader.open(Kept(store)) as reader:
        assert reader.first_sequence == 6
        assert [one.sequence async for one in reader.scan()] == [6, 7, 8, 9]
        with pytest.raises(RecordPurgedError):
            await reader.get(5)


@pytest.mark.asyncio
async def test_a_log_that_reads_on_there(store: MemoryBucket, tmp_path: Path) -> None:
    """What neither keeps any more was purged; the rest is read on, seamlessly."""
    async with Store.open(tmp_path / "store") as log:
        await log.purge(before=9)
    async with Reader.open(tmp_path / "store", archive=Kept(store)) as reader:
        assert reader.first_sequence == 9
        assert (await reader.get(0)).sequence == 0
        purged(store, 6)
        with pytest.raises(RecordPurgedError) as raised:
            [one async for one in reader.scan(4)]
        assert raised.value.bound == 6
        assert [one.sequence async for one in reader.scan(6)] == [6, 7, 8, 9]


def test_restores(store: MemoryBucket, tmp_path: Path) -> None:
    """One that is under way is told; begun again, it makes what there is now, at the same place."""
    asked = store.get

    def get(key: str) -> object:
        if ObjectKey.parse(key):
            monkeypatch.undo()
            purged(store, 6)
        return asked(key)

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(store, "get", get)
    with pytest.raises(RecordPurgedError, match="read from 6 on"):
        restored(store, tmp_path / "copy")
    check_restored(store, tmp_path / "copy", 10, start=6)
    with pytest.raises(RecordPurgedError):
        restored(store, tmp_path / "other", Until(sequence=5))


def test_a_restore_cut_short_before(store: MemoryBucket, tmp_path: Path) -> None:
    """What it has fetched of what is gone by now goes."""
    disk = FailingDisk()
    disk.fail(ANY, Killed(), nth=60)
    with pytest.raises(Killed):
        Restoring(Bucket(URL, store), disk, str(tmp_path / "copy"), Until(), Event()).carry_out()
    disk.end_process()
    assert len(list((tmp_path / "copy").glob("*.segment"))) > 1
    purged(store, 6)
    check_restored(store, tmp_path / "copy", 10, start=6)


@pytest.mark.parametrize("seed", range(3))
def test_answers_that_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """No answer is believed in doubt: one of both, and what is said is what has gone."""
    impatient(monkeypatch)
    journal, store = opened(tmp_path / "store"), FaultyBucket(Random(seed), 0.2)
    carrying = uploader(store, JournalLog(journal))
    first = 0
    for begin in range(0, 24, 4):
        append(journal, range(begin, begin + 4))
        carrying.catch_up()
        done = purged(store, begin)
        assert (done.first_sequence_before, done.records) == (first, done.first_sequence - first)
        first = done.first_sequence
    journal.close()
    store.share = 0.0
    assert carrying.catch_up() == 24
    check_restored(store, tmp_path / "copy", 24, start=first)
    assert {len(set(bodies)) for bodies in store.puts.values()} == {1}


def test_no_right_to_remove(store: MemoryBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said; what is left is removed when there is one."""

    def refuse(keys: list[str]) -> None:
        raise PermissionError("403")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(store, "delete", refuse)
        with pytest.raises(ArchiveUnavailableError, match="no permission"):
            purged(store, 6)
    purged(store, 6)
    assert spans(store) == [(6, 9)]
