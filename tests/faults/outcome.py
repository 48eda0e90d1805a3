"""What opening and reading a changed store gave, by the blocking rooms or by the face; and what the
contract says to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aquipu import (
    Always,
    CorruptionError,
    NotAStoreError,
    Record,
    RecoveryReport,
    Store,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from aquipu.local.disk.disk import Disk
from aquipu.local.format.frame import Header, records
from aquipu.local.format.names import BookmarkKind
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES
from aquipu.local.index.finder import Finder
from aquipu.local.index.search import Search
from aquipu.local.index.table import build
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.retain.bookmarks import read_bookmark
from aquipu.local.write.journal import Journal
from aquipu.local.write.recovery import check_place, recover
from aquipu.options import Wanted
from tests.faults.fixture import CURSORS, SEGMENT_BYTES, Fixture
from tests.faults.image import Image
from tests.faults.index import build_tables, carried
from tests.support import searched

NOTICED = (CorruptionError, UnsupportedFormatError, NotAStoreError, StoreUnavailableError)
"""The errors of the tree that tell of changed bytes."""


class Outcome(NamedTuple):
    """What opening and reading gave; without a report, it was the opening that raised the error."""

    error: Exception | None
    report: RecoveryReport | None
    records: list[Record]
    holds: dict[str, int] | None = None
    """None, as in the following: an error came before they were read, or nobody asked for them."""
    cursors: dict[str, int] | None = None
    found: dict[str, list[int]] | None = None
    """By each label that a record carries: the sequences ..."""
    counts: dict[str, int] | None = None
    """... and how many they are."""

    def agrees(self, other: Outcome) -> bool:
        """Whether the other says the same; of what stands before damage it may give less, for it
        reads in chunks.
        """
        mine, its = (
            (type(self.error), getattr(self.error, "args", ())),
            (type(other.error), getattr(other.error, "args", ())),
        )
        given = self.records if self.error is None else self.records[: len(other.records)]
        return (
            mine == its
            and (self.report, *self[3:]) == (other.report, *other[3:])
            and given == other.records
        )


def observe(path: str, *, finding: bool = True) -> Outcome:
    """Open the store and read all of it with the blocking rooms; with ``finding``, which takes
    longer than all the rest, by relation as well: then tables that are missing or damaged are
    built.
    """
    disk, found = Disk(), list[Record]()
    try:
        check_place(disk, path)
        journal, report = recover(
            disk, path, max_segment_bytes=SEGMENT_BYTES, new_store_id=bytes(16), now=0
        )
    except Exception as error:
        return Outcome(error, None, found)
    try:
        for some in _read(disk, journal):
            found += some
        holds, cursors = journal.holds(), _cursors(disk, journal)
        by_label, counts = _found(disk, journal, found) if finding else (None, None)
        return Outcome(None, report, found, holds, cursors, by_label, counts)
    except Exception as error:
        return Outcome(error, report, found)
    finally:
        journal.drop()


def _read(disk: Disk, journal: Journal) -> Iterator[list[Record]]:
    """Read as a scan does: every segment up to where the next one begins."""
    ends = [segment.first_sequence for segment in journal.segments[1:]] + [journal.next_sequence]
    for segment, end in zip(journal.segments, ends, strict=True):
        with segment.open(disk) as reader:
            walk = reader.walk((segment.first_sequence, SEGMENT_HEADER_BYTES))
            frames = reader.frames(walk, reader.size)
            while walk.sequence < end and (frame := next(frames, None)) is not None:
                yield _records(frame.header, frame.body, segment.path, frame.offset)
        if walk.sequence < end and walk.unknown_flags:
            flags = f"a frame at offset {walk.offset} has the flags {walk.unknown_flags:#x}"
            raise UnsupportedFormatError(segment.path, flags)
        if walk.sequence < end:
            raise CorruptionError(
                segment.path, walk.offset, walk.fault or "the frames end too early"
            )


def _cursors(disk: Disk, journal: Journal) -> dict[str, int]:
    store_id = journal.segments[-1].header.store_id
    every = {
        name: read_bookmark(disk, journal.path, store_id, BookmarkKind.CURSOR, name)
        for name in CURSORS
    }
    return {name: at for name, at in every.items() if at is not None}


def _found(
    disk: Disk, journal: Journal, records: list[Record]
) -> tuple[dict[str, list[int]], dict[str, int]]:
    """What is found by each label, and the counts of all."""
    due: dict[str, SegmentRef] = {}
    finder = Finder(lambda segment: due.update({segment.path: segment}))
    view = Snapshot(
        disk, journal.segments, journal.segments[0].first_sequence, journal.next_sequence
    )
    found = {label: _find(view, Search(finder, Wanted((label,), ()))) for label in carried(records)}
    counts = finder.counts(view, "")
    for segment in due.values():
        build(disk, segment)
    return found, counts


def _find(view: Snapshot, search: Search) -> list[int]:
    found: list[Record] = []
    for segment in view.segments:
        found += searched(search, view, segment)
    return [record.sequence for record in found]


def _records(header: Header, body: bytes, path: str, offset: int) -> list[Record]:
    try:
        return records(header, body)
    except ValueError as error:
        raise CorruptionError(path, offset, str(error)) from None


async def through_store(path: str) -> Outcome:
    """Open the store and read all of it as a user does.

    What can be read must still be there after another commit.
    """
    found: list[Record] = []
    try:
        store = await Store.open(
            path, sync_policy=Always(), max_segment_bytes=SEGMENT_BYTES, lock_timeout=0
        )
    except Exception as error:
        return Outcome(error, None, found)
    async with store:
        try:
            async for record in store.scan():
                found.append(record)  # noqa: PERF401 - what came before an error counts
            holds = await store.holds()
            loaded = {name: await store.cursor(name).load() for name in CURSORS}
            by_label = {
                label: [r.sequence async for r in store.scan(relation=label)]
                for label in carried(found)
            }
            counts = await store.relations()
        except Exception as error:
            return Outcome(error, store.recovery, found)
        await build_tables(store)
        receipt = await store.append(b"one more")
    async with Store.open(path, max_segment_bytes=SEGMENT_BYTES, lock_timeout=0) as again:
        assert [record async for record in again.scan(0, receipt.sequence)] == found
        assert (await again.get(receipt.sequence)).data == b"one more"
    cursors = {name: at for name, at in loaded.items() if at is not None}
    return Outcome(None, store.recovery, found, holds, cursors, by_label, counts)


# the judge


def judge(fixture: Fixture, image: Image, outcome: Outcome, left: Image) -> tuple[str, bool]:
    """What the outcome is, and whether the contract allows it;

    ``left`` is the directory afterwards.
    """
    error, report, found, *_ = outcome
    wrong = _wrong(fixture, image, outcome, left)
    if wrong is not None:
        return wrong, False
    if report is None:
        return "noticed at opening", True
    if error is not None:
        return "noticed when read", True
    if len(found) == len(fixture.records):
        return "without effect", True
    return ("named as a torn tail" if report.cut_bytes else "gone with the end"), True


def _wrong(fixture: Fixture, image: Image, outcome: Outcome, left: Image) -> str | None:
    error, report, found, holds, cursors, *_ = outcome
    if error is not None and not isinstance(error, NOTICED):
        return f"{type(error).__name__} came out: {error}"
    if found != fixture.records[: len(found)]:
        return "other records than were written"
    if report is None:
        return None if left == image else "refused, but the directory is changed"
    if fixture.must_be_refused(image):
        return "opened, with a manifest, name, header or footer that is damaged"
    if report.cut_bytes and not _is_kept(report, image, left):
        return "a torn tail is not kept as it was"
    if holds not in (None, fixture.holds(image)):
        return f"other holds than were set: {holds}"
    if cursors not in (None, fixture.cursors(image)):
        return f"other cursors than were saved: {cursors}"
    if error is not None:
        return None
    return _misfound(fixture, outcome, left) or _missing(fixture, image, report, len(found))


def _misfound(fixture: Fixture, outcome: Outcome, left: Image) -> str | None:
    """By relation. And each table is in the end as it was: a changed one has been noticed."""
    expected = carried(outcome.records)
    if outcome.found is None or outcome.counts is None:
        return None
    if outcome.found != expected or outcome.counts != {
        label: len(sequences) for label, sequences in expected.items()
    }:
        return "other records are found by relation than carry it"
    if any(left.get(name) != fixture.image[name] for name in fixture.tables):
        return "a damaged table was not built anew"
    return None


def _missing(fixture: Fixture, image: Image, report: RecoveryReport, found: int) -> str | None:
    if found < fixture.proven(image):
        return f"{len(fixture.records) - found} records are missing without an error"
    if (
        found < len(fixture.records)
        and not report.cut_bytes
        and fixture.behind_sound_frames(image).strip(b"\0")
    ):
        return "a torn tail is not named"
    return None


def _is_kept(report: RecoveryReport, image: Image, left: Image) -> bool:
    assert report.cut_from is not None
    assert report.cut_kept_in is not None
    torn = image[Path(report.cut_from).name][
        report.cut_offset : report.cut_offset + report.cut_bytes
    ]
    return left.get(Path(report.cut_kept_in).name) == torn
