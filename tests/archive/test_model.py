"""Backups and an archive of a log, whatever happens to it meanwhile: hypothesis finds the sequence.

It is appended to, rolled, purged, compressed, closed, opened again, and made anew of a copy; the
object store answers wrongly. What is copied is always the log, dense and whole. A copy is refused
only when it lacks something that was purged.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from aquipu import Reader
from aquipu.archive.bucket import Bucket
from aquipu.archive.errors import ArchiveRefusedError
from aquipu.archive.fetch import read_state
from aquipu.archive.purge import purge
from aquipu.errors import BackupRefusedError
from aquipu.local.check.verify import verify_all
from aquipu.local.compress.segment import compress
from aquipu.local.disk.disk import Disk
from aquipu.record import Backup
from aquipu.runtime.closing import Opening
from tests.archive.faulty import FaultyBucket
from tests.archive.made import (
    URL,
    JournalLog,
    append,
    check_restored,
    data_of,
    impatient,
    opened,
    restored,
    uploader,
)
from tests.archive.test_read import Kept
from tests.local.backup.made import backed_up, check, purged
from tests.support import data_in, open_log


class CopiedLog(RuleBasedStateMachine):
    """The events, and what must hold after each."""

    @initialize(
        compress=st.booleans(),
        link=st.booleans(),
        faults=st.sampled_from((0.0, 0.2)),
        seed=st.integers(0, 999),
    )
    def begin(self, compress: bool, link: bool, faults: float, seed: int) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="aquipu-copied-"))
        self.store, self.place = self.directory / "store", self.directory / "backup"
        self.journal = opened(self.store)
        self.compress, self.link, self.faults = compress, link, faults
        self.random = Random(seed)
        self.first = self.end = 0
        self.restored_first: int | None = None
        self.begin_archive()
        self.begin_backup()

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            shutil.rmtree(self.directory)

    def begin_archive(self) -> None:
        self.bucket = FaultyBucket(self.random, 0.0)
        self.archive_first = self.archived = self.first
        self.begin_carrier()

    def begin_carrier(self) -> None:
        self.carrier = uploader(self.bucket, JournalLog(self.journal), compress=self.compress)

    def begin_backup(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.backup_first: int | None = None
        self.backed_up = self.first

    # what happens to the log

    @rule(number=st.integers(1, 7))
    def append(self, number: int) -> None:
        append(self.journal, range(self.end, self.end + number))
        self.end += number

    @rule()
    def roll(self) -> None:
        self.journal.roll()

    @rule(share=st.floats(0, 1) | st.just(1.0))
    def purge(self, share: float) -> None:
        purged(self.journal, self.first + round(share * (self.end - self.first)))
        self.first = self.journal.segments[0].first_sequence

    @rule()
    def roll_and_purge(self) -> None:
        self.roll()
        self.purge(1.0)

    @rule()
    def compress_all(self) -> None:
        for segment in self.journal.segments[:-1]:
            compress(Disk(), segment, lambda: None)

    @rule()
    def close_and_open(self) -> None:
        self.close()
        self.open()

    def close(self) -> None:
        self.journal.close()

    def open(self) -> None:
        self.journal = opened(self.store)
        self.begin_carrier()

    # the copies

    def check_refused(self, reason: str, reached: int) -> None:
        """A record is missing in the copy, which was purged."""
        assert "has purged its records" in reason
        assert reached < self.first

    @rule(anew=st.booleans())
    def archive(self, anew: bool) -> None:
        """All of it is there then; or it was purged too early."""
        if anew or self.carrier._line is None:
            self.begin_carrier()
            if self.archived == self.archive_first:  # it holds nothing yet
                self.archive_first = self.archived = self.first
        self.bucket.share = self.faults
        try:
            assert self.carrier.catch_up() == self.end
        except ArchiveRefusedError as refused:
            self.check_refused(refused.reason, self.archived)
            self.begin_archive()
            assert self.carrier.catch_up() == self.end
        self.bucket.share = 0.0
        self.archived = self.end
        self.check_archive()

    @rule(share=st.floats(0, 1))
    def purge_archive(self, share: float) -> None:
        if self.bucket.objects:
            before = self.archive_first + round(share * (self.archived - self.archive_first))
            self.bucket.share = self.faults
            purge(Bucket(URL, self.bucket), before, None, "a test", self.carrier._stop, False)
            self.bucket.share = 0.0
            self.archive_first = read_state(Bucket(URL, self.bucket)).head.first_sequence
            assert self.archive_first <= before
            self.check_archive()

    def check_archive(self) -> None:
        copy = self.directory / "copy"
        check_restored(self.bucket, copy, self.archived, start=self.archive_first)
        shutil.rmtree(copy)

    @rule()
    def restore_again(self) -> None:
        """To where an earlier archive was restored: it goes on, or keeps all that is there."""
        if not self.bucket.objects:
            return
        place = self.directory / "restored"
        before = data_in(place) if place.exists() else []
        try:
            assert restored(self.bucket, place).next_sequence == self.archived
            self.restored_first = self.archive_first
        except BackupRefusedError:
            assert self.restored_first != self.archive_first
            assert data_in(place) == before
            return
        assert data_in(place) == [data_of(n) for n in range(self.archive_first, self.archived)]
        assert verify_all(Disk(), str(place)).damages == []

    @rule()
    def read_it_there(self) -> None:
        """What the store has purged is read from the archive, and all that is archived there."""
        self.archive(anew=False)
        self.close()
        first = min(self.first, self.archive_first)
        archive = Kept(self.bucket)
        assert asyncio.run(read(Reader.open(archive), self.archive_first, self.end)) is None
        assert asyncio.run(read(Reader.open(self.store, archive=archive), first, self.end)) is None
        self.open()

    @rule(by_backup=st.booleans())
    def lose_the_machine(self, by_backup: bool) -> None:
        """The store is made anew of either copy, and goes on."""
        self.archive(anew=False)
        self.back_up(looked_into=False)
        if self.end in (self.archive_first, self.backup_first):  # one of them holds no record
            return
        self.close()
        shutil.rmtree(self.store)
        if by_backup:
            backed_up(self.place, self.store)
            self.first = int(self.backup_first or 0)
        else:
            restored(self.bucket, self.store)
            self.first = self.archive_first
        self.open()

    def backed_up_now(self) -> Backup:
        return backed_up(self.store, self.place, journal=self.journal, link=self.link)

    @rule(looked_into=st.booleans())
    def back_up(self, looked_into: bool) -> None:
        """All of it is there then; or it was purged too early."""
        if self.backed_up == self.backup_first:  # it holds no record
            self.begin_backup()
        try:
            done = self.backed_up_now()
        except BackupRefusedError as refused:
            self.check_refused(refused.reason, self.backed_up)
            self.begin_backup()
            done = self.backed_up_now()
        if self.backup_first is None:
            self.backup_first = done.first_sequence
        self.backed_up = self.end
        assert (done.first_sequence, done.next_sequence) == (self.backup_first, self.end)
        check(self.place, [data_of(number) for number in range(self.backup_first, self.end)])
        if looked_into:
            open_log(self.place)[0].close()


async def read(reading: Opening[Reader], first: int, end: int) -> str | None:
    """What is wrong with a log that should hold just these records; None when nothing is."""
    async with reading as reader:
        found = [record async for record in reader.scan(start=first)]
        expected = [(number, data_of(number)) for number in range(first, end)]
        if [(one.sequence, one.data) for one in found] != expected:
            return f"it holds {[one.sequence for one in found]}, not {first} to {end}"
        for record in found[:1] + found[-1:]:
            if await reader.get(record.sequence) != record:
                return f"record {record.sequence} is another one when it is got"
        if [one async for one in reader.scan(start=first, reverse=True)] != found[::-1]:
            return "backwards it holds other records"
    return None


@pytest.mark.parametrize(
    "examples", [30, pytest.param(200, marks=[pytest.mark.proof, pytest.mark.timeout(600)])]
)
def test_the_copies_of_a_log(examples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sequence of events leads to a copy that is not the log, or is refused without need."""
    impatient(monkeypatch)
    run_state_machine_as_test(
        CopiedLog,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
