"""What the tests of backups share: one that is made at once, and what must hold of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from aquipu.local.backup.backup import Making, Wish
from aquipu.local.check.verify import verify_all
from aquipu.local.disk.disk import Disk
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.write.journal import Journal
from aquipu.record import Backup
from tests.disk import FailingDisk
from tests.local.logs import SEGMENT_BYTES
from tests.support import data_in, open_log, write


def backed_up(
    store: Path | str,
    place: Path | str,
    disk: Disk | None = None,
    *,
    link: bool = False,
    bookmarks: bool = True,
    journal: Journal | None = None,
    stop: Event | None = None,
    between: Callable[[], object] = lambda: None,
) -> Backup:
    """Make a backup as `LocalReader.backup` does: of a store at rest, or of one that is written.

    ``between`` runs before anything is copied.
    """
    disk = disk or FailingDisk()
    wish = Wish(str(place), link, bookmarks)
    making = Making(disk, str(store), wish, lambda: 0, Event() if stop is None else stop)
    making.prepare()
    view = at_rest(disk, store) if journal is None else seen(disk, journal)
    between()
    return making.carry_out(view)


def at_rest(disk: Disk, store: Path | str) -> Snapshot:
    """What a reader may see of a store that nobody writes."""
    catalog = Catalog(disk, str(store))
    try:
        return catalog.look()
    finally:
        catalog.close()


def seen(disk: Disk, journal: Journal) -> Snapshot:
    """What may be seen of a log that is being written."""
    segments = journal.segments
    return Snapshot(disk, segments, segments[0].first_sequence, journal.next_sequence)


def grown(store: Path, number: int, *, first: int = 0) -> list[bytes]:
    """Append so many records, three of which fill a segment, and close the store."""
    with writing(store) as journal:
        return filled(journal, number, first=first)


@contextmanager
def writing(store: Path) -> Iterator[Journal]:
    """Open a store for writing, and close it at the end."""
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    yield journal
    journal.close()


def filled(journal: Journal, number: int, *, first: int = 0) -> list[bytes]:
    """Append so many records to an open log."""
    made = [b"%06d" % (first + index) * 250 for index in range(number)]
    for data in made:
        write(journal, data)
        journal.maintain()
    return made


def purged(journal: Journal, before: int) -> None:
    """Purge a log, and remove the files that nobody holds."""
    journal.purge(before=before)
    while journal.delete_dropped():
        pass


def check(place: Path, data: list[bytes]) -> None:
    """A backup opens, verifies, and holds just these records."""
    verdict = verify_all(Disk(), str(place))
    assert verdict.damages == []
    assert verdict.torn_tail is None
    assert verdict.records == len(data)
    journal, report = open_log(place)
    journal.drop()
    assert report.next_sequence == report.first_sequence + len(data)
    assert data_in(place) == data
