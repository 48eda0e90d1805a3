"""The log of a store over all of its runs: what must be in it, and what is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise, repeat

from aquipu import Record, Stage
from aquipu.local.disk.disk import Disk
from aquipu.local.format.frame import records
from aquipu.local.format.names import BookmarkKind
from aquipu.local.index.table import table_path
from aquipu.local.read.examine import Findings, examine
from aquipu.local.read.segment_reader import SegmentReader, SegmentRef, read_footer
from aquipu.local.retain.bookmarks import read_bookmark
from tests.faults.index import fault_of_table
from tests.faults.oracle import Account, Acknowledgement, check
from tests.faults.plan import POLICIES, calls


@dataclass
class Log:
    """One store, and what it must hold."""

    path: str
    seed: int
    policy: int
    round: int = 0
    records: list[Record] = field(default_factory=list)
    """All that was found after the run before, and substitutes for what was purged: by sequence."""
    first: int = 0
    """Where the log began."""
    held: int | None = None
    """From where on it was held."""
    cursor: int | None = None
    """Where its consumer was."""

    def with_purged(self, found: list[Record], account: Account, first: int) -> list[Record]:
        """The records found after a run, from the first one ever on: what was purged stands there
        as it was written.
        """
        times = {number: timestamp for number, _, timestamp, _ in account.acknowledged}
        every, plan = self.records[:first], calls(self.seed, self.round)
        while len(every) < first:
            call = next(plan)
            for number, data in enumerate(call.payloads, call.number):
                time = times.get(number, every[-1].timestamp if every else 0)
                every.append(Record(len(every), time, data, call.relations))
        return every[:first] + found

    def judge(
        self,
        found: list[Record],
        account: Account,
        *,
        whole: bool,
        first: int = 0,
        held: int | None = None,
        cursor: int | None = None,
    ) -> Iterator[str]:
        """What is wrong after a run, one line each. ``whole``: everything accepted must be there.
        ``found`` is complete (`with_purged`); the log begins with ``first`` and is ``held``, and
        its consumer is at the ``cursor``.
        """
        yield from self._judge_begin(account, first, held)
        told = self.cursor if account.saved is None else account.saved
        if cursor != told and (cursor is None or cursor != account.saving):
            yield f"the cursor is {cursor} instead of {told} or {account.saving}"
        known = len(self.records)
        if found[:known] != self.records:
            yield f"what was there before the run has changed: {_difference(self.records, found)}"
        if [record.sequence for record in found] != list(range(len(found))):
            yield "the sequences are not dense"
        times = [record.timestamp for record in found]
        if times != sorted(times):
            yield "a timestamp is lower than the one before"
        if account.opened not in (None, known):
            yield (
                f"it was opened with next_sequence {account.opened}; {known} records had been left"
            )
        if account.read not in (None, (known - self.first, check(self.records[self.first :]))):
            yield (
                f"scan gave something else than the {known - self.first} records that had been left"
            )
        if whole and len(found) - known != account.accepted:
            yield f"{account.accepted} records were accepted, and {len(found) - known} are there"
        yield from self._judge_data(found[known:])
        yield from self._judge_receipts(found, sorted(account.acknowledged))

    def _judge_begin(self, account: Account, first: int, held: int | None) -> Iterator[str]:
        """The log begins where the last purge has told, or where the next one was to bring it; the
        hold is the last one.
        """
        told = self.first if account.purged is None else account.purged
        if first not in (told, account.purging):
            yield f"the log begins with {first} instead of {told} or {account.purging}"
        told_held = self.held if account.held is None else account.held
        if held != told_held and (held is None or held != account.holding):
            yield f"the hold is on {held} instead of {told_held} or {account.holding}"
        if told_held is not None and first > max(told_held, account.holding or 0):
            yield f"the log begins with {first}, and {told_held} was held"

    def _judge_data(self, new: list[Record]) -> Iterator[str]:
        """This run's records are those of its first calls, each call whole."""
        plan, at = calls(self.seed, self.round), 0
        while at < len(new):
            call = next(plan)
            part = new[at : at + len(call.payloads)]
            at += len(call.payloads)
            if [record.data for record in part] != call.payloads[: len(part)]:
                yield (
                    f"record {call.number} of the run, or one of its batch, is not what was "
                    "appended"
                )
            elif len(part) < len(call.payloads):
                yield f"of a batch of {len(call.payloads)} records {len(part)} are there"
            if any(record.relations != call.relations for record in part):
                yield (
                    f"record {call.number} of the run, or one of its batch, has other labels than "
                    "were given"
                )

    def _judge_receipts(
        self, found: list[Record], receipts: list[Acknowledgement]
    ) -> Iterator[str]:
        """What was acknowledged is there, as its receipt says, and was not before its stage."""
        known = len(self.records)
        asked = self._asked(receipts[-1].number + 1 if receipts else 0)
        for number, sequence, timestamp, stage in receipts:
            if sequence != known + number:
                yield (
                    f"record {number} of the run got sequence {sequence} instead of "
                    f"{known + number}"
                )
            elif sequence >= len(found):
                yield (
                    f"sequence {sequence} was acknowledged and is missing: there are {len(found)} "
                    "records"
                )
            elif found[sequence].timestamp != timestamp:
                yield f"sequence {sequence} has another timestamp than its receipt"
            if stage < asked[number]:
                yield (
                    f"sequence {sequence} was acknowledged at stage {stage} instead of "
                    f"{asked[number]}"
                )

    def _asked(self, count: int) -> list[Stage]:
        """The stage that each of the first records of the run had to reach before it was
        acknowledged.
        """
        asked: list[Stage] = []
        plan = calls(self.seed, self.round)
        while len(asked) < count:
            call = next(plan)
            asked += repeat(call.durability or POLICIES[self.policy].stage, len(call.payloads))
        return asked


def _difference(expected: list[Record], found: list[Record]) -> str:
    for record, other in zip(expected, found, strict=False):
        if record != other:
            return f"sequence {record.sequence} is another record"
    return f"there were {len(expected)} records, and there are {len(found)}"


def read_all(path: str) -> tuple[list[Record], Findings | None]:
    """Every record that an opening will find, read without changing anything; and what it will find
    beside them.
    """
    disk = Disk()
    findings = examine(disk, path) if disk.exists(path) else None
    found: list[Record] = []
    for segment in findings.segments if findings is not None else ():
        descriptor = disk.open(segment.path)
        try:
            found += _read_segment(disk, descriptor, segment)
        finally:
            disk.close(descriptor)
    return found, findings


def bookmark_in(path: str, findings: Findings | None, kind: BookmarkKind, name: str) -> int | None:
    """The hold that the runs set, or the cursor that they save."""
    if findings is None:
        return None
    return read_bookmark(Disk(), path, findings.manifest.store_id, kind, name)


def tables_in(findings: Findings | None) -> Iterator[str | None]:
    """For each table what is wrong with it.

    It gets its name when it is whole, so a kill leaves none that is not right.
    """
    for segment, behind in pairwise(findings.segments if findings is not None else ()):
        if Disk().exists(table_path(segment)):
            yield fault_of_table(Disk(), segment, behind)


def _read_segment(disk: Disk, descriptor: int, segment: SegmentRef) -> Iterator[Record]:
    header = segment.header
    footer = (
        read_footer(disk, descriptor, segment.path, header.seed)
        if segment.growing is None
        else None
    )
    end = footer.end if footer is not None else disk.size(descriptor)
    reader = SegmentReader(disk, segment, descriptor)
    for frame in reader.frames(reader.walk(), end):
        yield from records(frame.header, frame.body)
