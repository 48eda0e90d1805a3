"""What the tests of the archive share: logs that are carried there, and what must hold then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from aquipu import Archive
from aquipu.archive import bucket as bucket_file
from aquipu.archive.bucket import Bucket
from aquipu.archive.fetch import read_state
from aquipu.archive.log import CatalogLog, Log
from aquipu.archive.restore import Restored, Restoring, Until
from aquipu.archive.uploader import Progress, Uploader
from aquipu.local.check.verify import verify_all
from aquipu.local.disk.disk import Disk
from aquipu.local.format.history import History
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.write.journal import Journal
from tests.archive.faulty import MemoryBucket
from tests.support import STORE_ID, data_in, open_log, write

SEGMENT_BYTES = 4096
URL = "s3://bucket/prefix"


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody rest between two requests."""
    monkeypatch.setattr(bucket_file, "_PAUSE", 0.0)


class JournalLog(Log):
    """A log that the test itself is writing."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.disk = Disk()

    @property
    def store_id(self) -> bytes:
        return self.journal.segments[-1].header.store_id

    @property
    def next_sequence(self) -> int:
        return self.journal.next_sequence

    def look(self) -> Snapshot:
        segments = self.journal.segments
        return Snapshot(self.disk, segments, segments[0].first_sequence, self.journal.next_sequence)

    def history(self) -> History | None:
        return None

    def bookmarks(self) -> dict[str, bytes]:
        return {}

    def hold(self, name: str, sequence: int) -> bool:
        return self.journal.set_hold(name, sequence)


class Kept(Archive):
    """An archive whose objects the test has in memory."""

    def __init__(self, store: Any, **options: Any) -> None:
        super().__init__(URL, interval=0.01, **options)
        self._store = store

    def bucket(self) -> Bucket:
        return Bucket(URL, self._store)


def uploader(
    store: Any,
    log: Log,
    *,
    stop: Event | None = None,
    writer: str = "a test",
    patience: float | None = None,
    hold: bool = False,
    compress: bool = False,
    told: Callable[[Progress], object] = lambda progress: None,
) -> Uploader:
    """Return one that carries a log to this object store."""
    return Uploader(
        Bucket(URL, store),
        log,
        writer,
        stop,
        interval=0.001,
        patience=patience,
        hold=hold,
        compress=compress,
        told=told,
    )


def archived(
    store: Any,
    path: Path,
    *,
    writer: str = "a test",
    patience: float = 5.0,
    compress: bool = False,
) -> int:
    """Archive a store at rest; return one past the last archived record."""
    catalog = Catalog(Disk(), str(path))
    try:
        log = CatalogLog(Disk(), str(path), catalog)
        carrier = uploader(store, log, writer=writer, patience=patience, compress=compress)
        return carrier.catch_up()
    finally:
        catalog.close()


def restored(store: Any, path: Path, until: Until = Until()) -> Restored:
    """Restore an archive."""
    return Restoring(Bucket(URL, store), Disk(), str(path), until, Event()).carry_out()


def append(journal: Journal, numbers: range) -> None:
    """Append a record for each number, a commit each; three fill a segment."""
    for number in numbers:
        write(journal, data_of(number))
        journal.maintain()


def data_of(number: int) -> bytes:
    """Return the data of a record."""
    return b"%06d" % number * 250


def opened(path: Path) -> Journal:
    """Open a store for writing whose segments hold three records."""
    path.mkdir(exist_ok=True)
    return open_log(path, max_segment_bytes=SEGMENT_BYTES)[0]


def grown(path: Path, numbers: range) -> None:
    """Append a record for each number, and close the store."""
    journal = opened(path)
    append(journal, numbers)
    journal.close()


def check_restored(store: Any, path: Path, stop: int, *, start: int = 0) -> None:
    """Restore; it must be whole, open, and hold just the records up to there."""
    done = restored(store, path)
    assert (done.first_sequence, done.next_sequence) == (start, stop)
    assert verify_all(Disk(), str(path)).damages == []
    journal, report = open_log(path)
    assert report.next_sequence == stop
    assert report.rewritten_bytes == 0  # the manifest says that it is on the disk
    assert data_in(path) == [data_of(number) for number in range(start, stop)]
    write(journal, b"and it goes on")
    journal.close()


def check_archive(objects: dict[str, bytes]) -> int:
    """Read all that is named; return one past the last archived record."""
    from tests.archive.faulty import MemoryBucket

    store = MemoryBucket()
    store.objects = objects
    state = read_state(Bucket(URL, store))
    assert state.head.store_id == STORE_ID
    return state.head.next_sequence


def ten_archived(directory: Path) -> MemoryBucket:
    """An archive of three sealed segments, of three records each, and one record more."""
    grown(directory / "store", range(10))
    made = MemoryBucket()
    archived(made, directory / "store")
    return made
