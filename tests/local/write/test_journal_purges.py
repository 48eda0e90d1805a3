"""journal: purges and holds, and what is left of them when they are cut short."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from aquipu.errors import AquipuError, RecordPurgedError, StoreFailedError
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.names import HOLDS_LOCK, MANIFEST, UNNAMED, segment_name
from aquipu.local.write.journal import Journal
from tests.disk import ANY, Crash, FailingDisk
from tests.local.logs import SEGMENT_BYTES, THIRD, write_and_maintain
from tests.support import NOW, STORE_ID, copy_of, open_log, records_in, segments_in, write


def sealed_store(store: Path, *, close: bool = True) -> None:
    """A store of four segments that begin with 0, 3, 6 and 9; the last one has no record."""
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    for _ in range(9):
        write_and_maintain(journal, THIRD)
    if close:
        journal.close()
    else:
        journal.drop()


def purge(journal: Journal, before: int) -> None:
    """As the worker does it when nothing else is to be done."""
    assert journal.purge(before=before) is not None
    while journal.delete_dropped():
        pass


def test_the_order_of_a_purge(store: Path) -> None:
    """The holds are read before the decision; no file goes before the manifest says durably that
    the log begins later; and nobody else decides meanwhile.
    """
    sealed_store(store)
    disk = FailingDisk()
    journal, _ = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    disk.calls.clear()
    purge(journal, 6)
    changes = ("list", "create", "write", "sync", "rename", "sync_directory", "remove")
    unnamed = MANIFEST + UNNAMED
    assert disk.steps(*changes) == [
        ("list", store.name),
        ("create", unnamed),
        ("write", unnamed),
        ("sync", unnamed),
        ("rename", MANIFEST),
        ("sync_directory", store.name),
        ("remove", segment_name(0)),
        ("remove", "00000000000000000000.relations"),
        ("remove", segment_name(3)),
        ("remove", "00000000000000000003.relations"),
    ]
    held = [call.method for call in disk.calls if call.name in (HOLDS_LOCK, MANIFEST, store.name)]
    assert held[0] == "try_lock"
    assert held[-1] == "close", "the lock on the holds is held until the decision is durable"
    journal.drop()


def test_a_purge_keeps_what_the_manifest_says_beside(store: Path) -> None:
    """The store's id and how far it had been closed stay what they were."""
    sealed_store(store)
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    purge(journal, 3)
    assert Manifest.decode((store / MANIFEST).read_bytes()) == Manifest(STORE_ID, 3, 9)
    write(journal, b"on")
    journal.close()
    assert Manifest.decode((store / MANIFEST).read_bytes()) == Manifest(STORE_ID, 3, 10)


@pytest.mark.parametrize("close", [True, False])
def test_time_goes_on_when_everything_was_purged(store: Path, close: bool) -> None:
    """The segment that is left has no record; it knows nevertheless when the last one before it was
    accepted.
    """
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    write(journal, bytes(SEGMENT_BYTES), time=NOW + 5)
    journal.maintain()
    purge(journal, 1)
    if close:
        journal.close()
    else:
        journal.drop()
    for _ in range(2):
        journal, report = open_log(store, max_segment_bytes=SEGMENT_BYTES)
        assert (report.first_sequence, report.next_sequence, journal.last_time) == (1, 1, NOW + 5)
        journal.drop()


def test_a_catalogue_that_was_taken_before_a_purge(store: Path) -> None:
    """Readers keep the view that they took; who asks after the purge sees what is kept, before any
    file is gone.
    """
    sealed_store(store)
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    before = journal.segments
    journal.purge(before=6)
    assert [ref.first_sequence for ref in before] == [0, 3, 6, 9]
    assert [ref.first_sequence for ref in journal.segments] == [6, 9]
    assert [int(segment.stem) for segment in segments_in(store)] == [0, 3, 6, 9]
    journal.drop()


def test_a_manifest_whose_close_reports_an_error(store: Path) -> None:
    """It was synced and has its name: the purge is done, whatever the close says."""
    sealed_store(store)
    disk = FailingDisk()
    journal, _ = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    disk.fail("close", errno.ENOSPC, of=MANIFEST)
    purge(journal, 6)
    assert disk.failures == 1
    assert journal.segments[0].first_sequence == 6
    assert not [name for name in disk.open_files.values() if name.endswith(MANIFEST)]
    journal.close()


def test_a_poisoned_journal_purges_nothing(store: Path) -> None:
    """Neither decides nor removes what was decided before, nor sets or removes a hold."""
    sealed_store(store)
    disk = FailingDisk()
    journal, _ = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    journal.purge(before=3)
    journal.fail("testing", OSError(errno.EIO, "broken"))
    disk.calls.clear()
    assert not journal.delete_dropped()
    journal.retain()
    acts: list[Callable[[], object]] = [
        lambda: journal.purge(before=6),
        lambda: journal.purge(before_time=NOW),
        lambda: journal.set_hold("backup", 6),
        lambda: journal.remove_hold("backup"),
    ]
    for act in acts:
        with pytest.raises(StoreFailedError):
            act()
    assert disk.calls == []
    journal.drop()


def cut_short(
    store: Path, act: Callable[[Journal], object], fault: Callable[[FailingDisk, int], object]
) -> Iterator[Path]:
    """The store after this act, with a fault at its first call, its second, and so on; each in a
    copy of its own.
    """
    for nth in count(1):
        path = copy_of(store, f"{store.name}-{nth}")
        disk = FailingDisk()
        journal, _ = open_log(path, disk, max_segment_bytes=SEGMENT_BYTES)
        fault(disk, nth)
        before = len(disk.calls)
        with suppress(Crash, AquipuError):
            act(journal)
        struck = disk.failures > 0
        with suppress(Crash, AquipuError):
            journal.drop()
        disk.end_process()
        if not struck:
            assert nth > 5, "there were calls to fail"
            assert len(disk.calls) > before
            return
        yield path


def at_call(error: int | BaseException) -> Callable[[FailingDisk, int], object]:
    return lambda disk, nth: disk.fail(ANY, error, nth=nth)


FAULTS: list[Callable[[FailingDisk, int], object]] = [
    FailingDisk.crash,
    *map(at_call, (errno.EIO, errno.ENOSPC)),
]


@pytest.mark.parametrize("fault", FAULTS, ids=["crash", "EIO", "ENOSPC"])
@pytest.mark.parametrize("close", [True, False], ids=["closed before", "killed before"])
def test_a_purge_cut_short_at_every_call(
    store: Path, close: bool, fault: Callable[[FailingDisk, int], object]
) -> None:
    """The first sequence is the old or the new one, what it says is there is there, and opening
    removes what is left.
    """
    sealed_store(store, close=close)
    begun = set()
    for path in cut_short(store, lambda journal: purge(journal, 6), fault):
        first = Manifest.decode((path / MANIFEST).read_bytes()).first_sequence
        begun.add(first)
        assert first in (0, 6)
        journal, report = open_log(path, max_segment_bytes=SEGMENT_BYTES)
        assert (report.first_sequence, report.next_sequence) == (first, 9)
        assert [record.sequence for record in records_in(path)] == list(range(first, 9))
        write(journal, b"on")
        purge(journal, 6)
        journal.close()
        assert [record.sequence for record in records_in(path)] == [6, 7, 8, 9]
    assert begun == {0, 6}


@pytest.mark.parametrize("fault", FAULTS, ids=["crash", "EIO", "ENOSPC"])
def test_a_hold_cut_short_at_every_call(
    store: Path, fault: Callable[[FailingDisk, int], object]
) -> None:
    """It is the old one or the new one, and opening leaves nothing of the other."""
    sealed_store(store)
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    assert journal.set_hold("backup", 1)
    journal.close()
    found = set()
    for path in cut_short(store, lambda journal: journal.set_hold("backup", 4), fault):
        journal, report = open_log(path, max_segment_bytes=SEGMENT_BYTES)
        assert report.clean, "what others leave is no trouble of the log"
        found.add(journal.holds()["backup"])
        assert {file.name for file in path.iterdir()} == {file.name for file in store.iterdir()}
        journal.close()
    assert found == {1, 4}


def test_a_hold_and_a_purge(store: Path) -> None:
    """What is held is not purged; what is purged is not held."""
    sealed_store(store)
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    assert journal.set_hold("backup", 4)
    purge(journal, 9)
    assert journal.segments[0].first_sequence == 3
    with pytest.raises(RecordPurgedError):
        journal.set_hold("audit", 2)
    assert journal.remove_hold("backup")
    purge(journal, 9)
    assert journal.segments[0].first_sequence == 9
    journal.close()
