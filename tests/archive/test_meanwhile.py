"""An archive is read, checked and restored while its writer goes on, and removes what is old."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from obstore.exceptions import PermissionDeniedError

from aquipu.archive import fetch as fetch_file
from aquipu.archive import line as line_file
from aquipu.archive.bucket import Bucket, Doubt
from aquipu.archive.check import Checking
from aquipu.archive.errors import ArchiveDamagedError, ArchiveTakenError
from aquipu.archive.fetch import Outdated, fetch_young, read_state
from aquipu.archive.format.entry import EntryKind, Head
from aquipu.archive.format.keys import ENTRIES, entry_key, entry_number
from aquipu.archive.format.plan import KEPT_NUMBERS
from aquipu.archive.line import CHECK_SECONDS, KEPT_SECONDS, Line, claim
from aquipu.archive.read.files import ObjectDisk
from aquipu.archive.read.log import ArchivedLog
from aquipu.archive.restore import Restoring, Until
from aquipu.archive.uploader import Uploader
from aquipu.local.disk.disk import Disk
from tests.archive.faulty import MemoryBucket
from tests.archive.made import URL, JournalLog, uploader
from tests.support import STORE_ID, data_in, open_log, write

MANY = KEPT_NUMBERS + 20


class Writer:
    """A log and what carries it, an entry each second of a clock that the test has."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = 1000.0
        monkeypatch.setattr(line_file, "monotonic", lambda: self.clock)
        monkeypatch.setattr(line_file, "time", lambda: self.clock)
        path.mkdir()
        self.journal = open_log(path, max_segment_bytes=1 << 20)[0]
        self.objects = MemoryBucket()
        self.bucket = Bucket(URL, self.objects)
        self.carrier: Uploader = uploader(self.objects, JournalLog(self.journal))
        self.put(b"one large part" * 10_000)

    def put(self, data: bytes = b"a little") -> None:
        """Append a record, which is archived a second later."""
        write(self.journal, data)
        self.clock += 1
        self.carrier.catch_up()

    def put_many(self, number: int = MANY) -> None:
        """Go on for so many seconds, by default two minutes, until entries have gone."""
        for _ in range(number):
            self.put()

    def numbers(self) -> set[int]:
        """Return the numbers of the entries that are there."""
        names = (name for name in self.objects.objects if name.startswith(ENTRIES))
        return {number for name in names if (number := entry_number(name)) is not None}


@pytest.fixture
def writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """An archive that has a large part, many small ones, and no full segment yet."""
    made = Writer(tmp_path / "store", monkeypatch)
    made.put_many()
    return made


def test_a_part_whose_segment_is_full_now(writer: Writer) -> None:
    """However long ago it was put, it stays for a minute more: somebody may be about to read it."""
    seen = read_state(writer.bucket).head
    writer.journal.roll()
    writer.put()
    assert read_state(writer.bucket).head.young[:1] != seen.young[:1]
    assert fetch_young(writer.bucket, seen)
    writer.clock += KEPT_SECONDS
    writer.put()
    with pytest.raises(Outdated):
        fetch_young(writer.bucket, seen)


def test_a_part_that_is_missing(writer: Writer) -> None:
    """What the newest entry names is damage, and no writer that was quicker."""
    seen = read_state(writer.bucket).head
    del writer.objects.objects[entry_key(seen.young[0].number)]
    with pytest.raises(ArchiveDamagedError, match="is missing"):
        fetch_young(writer.bucket, seen)


def test_a_writer_that_runs_for_a_moment_each_hour(writer: Writer) -> None:
    """It finds what is old by the clock of the object store: the entries do not become more."""
    counts, put_at = [], dict[str, float]()

    def times(prefix: str) -> dict[str, float]:
        return {name: put_at.setdefault(name, writer.clock) for name in writer.objects.objects}

    writer.bucket.times = times  # type: ignore[method-assign]
    for _ in range(2 * MANY):
        writer.clock += 3600
        carrier = uploader(writer.objects, JournalLog(writer.journal))
        carrier._bucket = writer.bucket
        write(writer.journal, b"of this hour")
        carrier.catch_up()
        times("")
        counts.append(len(writer.numbers()))
    assert max(counts) <= MANY + KEPT_NUMBERS


def test_a_check_beside_the_writer(writer: Writer) -> None:
    """What has gone meanwhile, as it should, is no problem of the archive."""
    writer.journal.roll()
    writer.put()

    def go_on(size: int) -> None:
        writer.clock += KEPT_SECONDS
        writer.put_many()

    found = Checking(writer.bucket, Disk(), None, Event(), None, go_on).carry_out()
    assert (found.read, found.problems) == (1, [])


@pytest.mark.parametrize("rolled", [True, False])
def test_a_restore_beside_the_writer(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rolled: bool
) -> None:
    """Parts that were put anew, or whose segment is full, are looked up again."""
    ahead(writer, monkeypatch, rolled)
    done = Restoring(writer.bucket, Disk(), str(tmp_path / "copy"), Until(), Event()).carry_out()
    assert done.next_sequence == 1 + 3 * MANY
    assert len(data_in(tmp_path / "copy")) == done.next_sequence


@pytest.mark.parametrize("rolled", [True, False])
def test_a_reader_beside_the_writer(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, rolled: bool
) -> None:
    """It sees the archive as it is when it has been read."""
    ahead(writer, monkeypatch, rolled)
    assert ArchivedLog(ObjectDisk(writer.bucket)).view.stop == 1 + 3 * MANY


def ahead(writer: Writer, monkeypatch: pytest.MonkeyPatch, rolled: bool) -> None:
    """Have the writer go on for long between a look at the state and what it names."""
    found, left = fetch_file.newest_head, [True]

    def then_go_on(bucket: Bucket) -> Head | None:
        head = found(bucket)
        if left:
            left.clear()
            if rolled:
                writer.journal.roll()
            writer.clock += KEPT_SECONDS
            writer.put_many()
            writer.clock += KEPT_SECONDS
            writer.put_many()
        return head

    monkeypatch.setattr(fetch_file, "newest_head", then_go_on)


def test_a_reader_that_has_not_looked_for_long(writer: Writer) -> None:
    """The entry behind the one that it knows may have gone: it looks for the newest one."""
    log = ArchivedLog(ObjectDisk(writer.bucket))
    seen = read_state(writer.bucket).head
    writer.clock += KEPT_SECONDS
    writer.put_many()
    writer.clock += KEPT_SECONDS
    writer.put_many()
    assert seen.number + 1 not in writer.numbers()
    assert log.look().stop == read_state(writer.bucket).head.next_sequence


def test_a_reader_that_looks_often(writer: Writer) -> None:
    """One request tells that there is nothing new."""
    log = ArchivedLog(ObjectDisk(writer.bucket))
    before = log.disk.bucket.requests
    for _ in range(3):
        writer.clock += 2
        log.look()
    assert log.disk.bucket.requests - before == 3


def claimed(writer: Writer, name: str, meanwhile: Callable[[], None] = lambda: None) -> Line:
    """Claim the archive; something happens between its look and its fence."""
    return claim(writer.bucket, STORE_ID, 0, name, lambda state: meanwhile())


def test_a_claim_that_takes_long(writer: Writer) -> None:
    """Its fence stands where entries have gone by now: it has not become the writer."""

    def go_on() -> None:
        other = claimed(writer, "the other")
        for _ in range(2 * MANY):
            writer.clock += 2
            mark(other)

    with pytest.raises(Doubt, match="it took too long to begin"):
        claimed(writer, "the slow one", go_on)
    assert read_state(writer.bucket).head.writer == "the other"
    assert claimed(writer, "the slow one").head.epoch == 3


def mark(line: Line) -> None:
    """Put the next entry, and remove what is old."""
    head = line.next_head()
    line.put(head._replace(kind=EntryKind.BOOKMARKS, marked=head.number), b"{}")
    line.tidy()


def test_two_writers_of_one_epoch(writer: Writer) -> None:
    """Should that ever come to be, each is told of the other's name."""
    one = claimed(writer, "the one")
    other = Line(writer.bucket, read_state(writer.bucket), {}, "the other", one._began)
    for _ in range(2):
        mark(other)
    del writer.objects.objects[entry_key(one.head.number + 1)]
    writer.clock += 100
    with pytest.raises(ArchiveTakenError, match="is of the other"):
        mark(one)


def test_a_segment_made_of_parts_that_another_has_replaced(writer: Writer) -> None:
    """The writer that has been overtaken is told so, and does not wait."""
    one = claimed(writer, "the one")
    later = uploader(writer.objects, JournalLog(writer.journal), writer="the other")
    writer.carrier = later
    writer.journal.roll()
    writer.put()
    writer.clock += KEPT_SECONDS
    writer.put_many()
    with pytest.raises(ArchiveTakenError, match="is of the other"):
        one.fetch_own(writer.journal.segments[-1].header)


@pytest.mark.parametrize("pause", [0.0, CHECK_SECONDS / 2])
def test_a_bucket_that_was_made_anew(writer: Writer, pause: float) -> None:
    """The next put finds nothing in its way: what is missing is found before long, and said."""
    writer.objects.objects.clear()
    writer.put()
    writer.clock += pause
    with pytest.raises(ArchiveDamagedError, match=f"{entry_key(0)} is missing"):
        writer.put_many(round(CHECK_SECONDS - pause))
    with pytest.raises(ArchiveDamagedError, match=f"{entry_key(0)} is missing"):
        claimed(writer, "the next one")


def test_the_last_segment_is_missing(writer: Writer) -> None:
    """Whoever is to carry the log on is told, and puts nothing."""
    writer.journal.roll()
    writer.put()
    key = next(key for key in writer.objects.objects if key.startswith("segments"))
    del writer.objects.objects[key]
    before = dict(writer.objects.objects)
    with pytest.raises(ArchiveDamagedError, match=f"{key} is missing"):
        claimed(writer, "the next one")
    assert writer.objects.objects == before


def test_nobody_may_remove_anything(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again, less and less often, and the log is carried on."""
    tries = []

    def denied(keys: list[str]) -> None:
        tries.append(writer.clock)
        raise PermissionDeniedError("403 Forbidden")

    monkeypatch.setattr(writer.objects, "delete", denied)
    for _ in range(5):
        writer.put_many()
    assert 2 <= len(tries) <= 4
