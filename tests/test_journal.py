"""journal: the directory of the log. What its files hold after each commit, roll and close, and what a failure leaves."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from aquipu.commit import Landing
from aquipu.disk import Disk
from aquipu.errors import AquipuError, RecordPurgedError, StoreFailedError, StoreFullError
from aquipu.frame import Flag, records
from aquipu.journal import Journal
from aquipu.layout import MANIFEST, SEGMENT_HEADER_BYTES, UNNAMED, Contents, Manifest, segment_name
from aquipu.segment import AHEAD_BYTES
from tests.support import (
    ANY,
    NOW,
    STORE_ID,
    Call,
    Crash,
    FailingDisk,
    commit,
    copy_of,
    data_in,
    flip,
    frames_in,
    header_in,
    open_log,
    records_in,
    segment_in,
    segments_in,
    snapshot,
    undurable_names,
    write,
)

NO_SPACE = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]
SEGMENT_BYTES = 4096
THIRD = bytes(1500)
"""Three records of this size fill a segment."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    made = FailingDisk()
    yield made
    made.end_process()


@pytest.fixture
def journal(disk: FailingDisk, store: Path) -> Journal:
    """The log of a new store; its segments are full after three records of THIRD."""
    journal, _ = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    disk.calls.clear()
    return journal


def without_zeros_ahead(file: Path) -> bytes:
    return file.read_bytes().rstrip(b"\0")


def write_and_tidy(journal: Journal, *payloads: bytes, sync: bool = True) -> Landing:
    """One turn of the worker."""
    landing = write(journal, *payloads, sync=sync)
    journal.tidy()
    return landing


def fill(journal: Journal, *, sync: bool = True) -> None:
    """Make the segment at hand full; what rolls it is the next `tidy`."""
    for _ in range(3):
        write(journal, THIRD, sync=sync)


# commits


def test_a_commit_lands(journal: Journal) -> None:
    """A landing says how far the log reaches, how far it is synced, and how many syncs that took."""
    assert write(journal, b"a", b"b", sync=False) == Landing(2, 0, 0)
    assert write(journal, b"c", sync=True) == Landing(3, 3, 1)
    assert write(journal, b"d", b"e", sync=False) == Landing(5, 3, 1)


def test_records_are_read_back_as_they_were(journal: Journal, store: Path) -> None:
    """Data, times and labels come back from the file, in the order of the commits."""
    made = commit(b"a", b"", b"c" * 100_000, time=NOW + 5, labels={2: ("user:7", "document:42")})
    made.timestamps[:] = [NOW, NOW + 2, NOW + 5]
    journal.write(journal.prepare(made))
    write(journal, b"d", time=NOW + 9)
    assert [tuple(record) for record in records_in(store)] == [
        (0, NOW, b"a", ()),
        (1, NOW + 2, b"", ()),
        (2, NOW + 5, b"c" * 100_000, ("user:7", "document:42")),
        (3, NOW + 9, b"d", ()),
    ]


def test_sequences_watermarks_and_links_of_successive_frames(journal: Journal, store: Path) -> None:
    """Each frame begins where the one before ended, links to it, and says what was synced before it was written."""
    write(journal, b"a", b"b", sync=False)
    write(journal, b"c", sync=True)
    write(journal, b"d", sync=True)
    write(journal, b"e", b"f", sync=False)
    headers = [header for _, header, _ in frames_in(store)]
    assert [(header.first_sequence, header.records) for header in headers] == [(0, 2), (2, 1), (3, 1), (4, 2)]
    assert [header.watermark for header in headers] == [0, 0, 3, 4]
    assert [header.link for header in headers] == [header_in(store).link, *(header.check for header in headers[:-1])]


def test_a_frame_says_whether_it_owed_a_sync(journal: Journal, store: Path) -> None:
    """Recovery can tell a commit whose callers waited for the disk from one whose callers did not."""
    write(journal, b"a", sync=False)
    write(journal, b"b", sync=True)
    assert [bool(header.flags & Flag.OWES_SYNC) for _, header, _ in frames_in(store)] == [False, True]


def test_the_time_of_a_frame_is_that_of_its_last_record(journal: Journal, store: Path) -> None:
    """The commit's own time is the latest in it, and the journal remembers it."""
    made = commit(b"a", b"b")
    made.timestamps[:] = [NOW, NOW + 3]
    journal.write(journal.prepare(made))
    assert [header.time for _, header, _ in frames_in(store)] == [NOW + 3]
    assert journal.last_time == NOW + 3


@pytest.mark.parametrize("writes_synced", [True, False])
def test_a_durable_commit_costs_one_sync(store: Path, writes_synced: bool) -> None:
    """At most one sync a commit, counted as it is made, however the system offers it."""
    disk = FailingDisk(writes_synced=writes_synced)
    journal, _ = open_log(store, disk)
    disk.calls.clear()
    for number, payload in enumerate([b"small", b"small", bytes(200_000), b"small", bytes(3 * AHEAD_BYTES)]):
        landing = write(journal, payload, payload)
        assert landing.syncs == disk.syncs == number + 1
        assert landing.synced_sequence == landing.next_sequence
    journal.drop()


def test_nothing_is_synced_that_owes_no_sync(journal: Journal, disk: FailingDisk) -> None:
    """Commits without a sync reach the file, in one write each, and nothing more is asked of the disk."""
    for _ in range(5):
        landing = write(journal, b"record", sync=False)
    assert landing == Landing(5, 0, 0)
    assert [call.method for call in disk.calls] == ["write"] * 5


def test_a_sync_covers_what_came_before(journal: Journal, disk: FailingDisk) -> None:
    """A durable commit behind one that was not synced makes both durable: a write that syncs only itself will not do."""
    write(journal, b"a", sync=False)
    assert write(journal, bytes(200_000), sync=True) == Landing(2, 2, 1)
    assert [call.method for call in disk.calls] == ["write", "write", "sync"]


def test_a_commit_without_records_is_a_sync(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """It writes no frame; it syncs if there is anything to sync."""
    write(journal, b"a", sync=False)
    disk.calls.clear()
    assert write(journal, sync=True) == Landing(1, 1, 1)
    assert write(journal, sync=True) == Landing(1, 1, 1)
    assert [call.method for call in disk.calls] == ["sync"]
    assert len(frames_in(store)) == 1


def test_preparing_touches_no_disk(journal: Journal, disk: FailingDisk) -> None:
    """All the work that needs no disk is done before it is asked for."""
    journal.prepare(commit(b"record"))
    assert disk.calls == []


# rolling


def test_a_segment_is_rolled_when_it_is_full(journal: Journal, store: Path) -> None:
    """The records go on in a new segment, named by its first sequence and linked to the last frame of the one before."""
    fill(journal)
    assert len(segments_in(store)) == 1
    journal.tidy()
    write(journal, b"next")
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 3)]
    assert header_in(store, 3).link == frames_in(store, 0)[-1][1].check
    ((_, header, body),) = frames_in(store, 3)
    assert (header.first_sequence, header.watermark, header.link) == (3, 3, header_in(store, 3).link)
    assert records(header, body)[0].data == b"next"


def test_a_segment_that_is_not_full_is_not_rolled(journal: Journal, disk: FailingDisk) -> None:
    """Between commits there is nothing to do, and the disk is left alone."""
    write(journal, THIRD)
    disk.calls.clear()
    journal.tidy()
    assert disk.calls == []


def test_a_commit_larger_than_a_segment(journal: Journal, store: Path) -> None:
    """A commit is never divided: it fills its segment alone, and the next one gets another."""
    write_and_tidy(journal, bytes(3 * SEGMENT_BYTES))
    write_and_tidy(journal, bytes(3 * SEGMENT_BYTES))
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 1), segment_in(store, 2)]


def test_the_order_of_a_roll(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """Header, name, then the footer of the one before, each durable before the next; only then the first frame."""
    fill(journal)
    disk.calls.clear()
    write_and_tidy(journal, b"one more")
    disk.calls.clear()
    fill(journal)
    disk.calls.clear()
    journal.tidy()
    write(journal, b"first", sync=False)
    old, new = segment_name(4), segment_name(7)
    assert [(call.method, call.name) for call in disk.calls] == [
        ("truncate", old),
        ("create", new + UNNAMED),
        ("write", new + UNNAMED),
        ("sync", new + UNNAMED),
        ("rename", new),
        ("sync_directory", store.name),
        ("write", old),
        ("sync", old),
        ("close", old),
        ("write", new),
    ]


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strides are so short that the segments of these tests are large enough to have their successors prepared."""
    monkeypatch.setattr("aquipu.segment.AHEAD_BYTES", SEGMENT_BYTES // 2)


@pytest.mark.usefixtures("prepared")
def test_the_order_of_a_prepared_roll(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """The file is made after one commit and synced after another. The roll writes its header, names it, and seals."""
    old, new = segment_name(0), segment_name(3)
    spare = old + UNNAMED
    steps: list[list[tuple[str, str]]] = []
    for _ in range(4):
        write(journal, THIRD if len(steps) < 3 else b"first", sync=False)
        disk.calls.clear()
        journal.tidy()
        steps.append([(call.method, call.name) for call in disk.calls])
    assert steps[0] == [("create", spare), ("write", spare)]
    assert steps[1] == [("sync", spare)]
    assert steps[2] == [
        ("write", spare),
        ("sync", spare),
        ("rename", new),
        ("sync_directory", store.name),
        ("write", old),
        ("sync", old),
        ("close", old),
    ]
    assert steps[3] == [("create", new + UNNAMED), ("write", new + UNNAMED)]
    assert data_in(store) == [THIRD, THIRD, THIRD, b"first"]
    assert not without_zeros_ahead(store / (new + UNNAMED))


@pytest.mark.usefixtures("prepared")
def test_a_prepared_file_is_not_left_behind(journal: Journal, store: Path) -> None:
    """A close removes it, durably before the manifest speaks of a clean end: the next opening has nothing to do."""
    write_and_tidy(journal, b"record")
    assert list(store.glob(f"*{UNNAMED}"))
    journal.close()
    assert not list(store.glob(f"*{UNNAMED}"))
    again, report = open_log(store)
    again.close()
    assert report.clean


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("step", ["create", "write"])
def test_no_space_to_prepare(journal: Journal, disk: FailingDisk, store: Path, step: str) -> None:
    """Nothing is left of it, the log goes on, and it is tried again behind the next commit."""
    write(journal, b"first")
    disk.fail(step, errno.ENOSPC, of=UNNAMED, written=10)
    journal.tidy()
    assert not list(store.glob(f"*{UNNAMED}"))
    write_and_tidy(journal, b"second")
    assert list(store.glob(f"*{UNNAMED}"))
    write_and_tidy(journal, 2 * THIRD)
    write_and_tidy(journal, b"next")
    assert [segment.name for segment in segments_in(store)] == [segment_name(0)]
    write_and_tidy(journal, THIRD)
    assert [segment.name for segment in segments_in(store)] == [segment_name(0), segment_name(5)]
    assert data_in(store) == [b"first", b"second", 2 * THIRD, b"next", THIRD]


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(
    ("step", "nth"), [("create", 1), ("write", 1), ("sync", 1), ("write", 2), ("sync", 2), ("rename", 1)]
)
def test_a_prepared_roll_that_fails(journal: Journal, disk: FailingDisk, store: Path, step: str, nth: int) -> None:
    """The journal is poisoned, no file stays open; the next opening finds every commit and removes what was prepared."""
    disk.fail(step, errno.EIO, of=UNNAMED if step != "rename" else ".segment", nth=nth)
    for _ in range(3):
        with suppress(StoreFailedError):
            write_and_tidy(journal, THIRD, sync=False)
    with pytest.raises(StoreFailedError):
        journal.close()
    assert disk.open_files == {}
    kept = journal.next_sequence
    again, report = open_log(store)
    again.close()
    assert report.next_sequence == kept
    assert data_in(store) == [THIRD] * kept
    assert not list(store.glob(f"*{UNNAMED}"))


def test_a_sealed_segment_is_all_synced(journal: Journal, store: Path) -> None:
    """Also what nobody asked to be synced is durable once its segment is sealed, and the journal knows."""
    fill(journal, sync=False)
    assert journal.landing() == Landing(3, 0, 0)
    journal.tidy()
    assert journal.landing() == Landing(3, 3, 1)
    write(journal, b"next", sync=False)
    assert frames_in(store, 3)[0][1].watermark == 3


def test_the_catalogue_names_every_segment(journal: Journal, store: Path) -> None:
    """Readers are told the segments in their order; the last one grows, the others are sealed."""
    for _ in range(7):
        write_and_tidy(journal, THIRD)
    first, second, third = journal.catalogue
    assert [extent.first_sequence for extent in journal.catalogue] == [0, 3, 6]
    assert [extent.path for extent in journal.catalogue] == [str(segment) for segment in segments_in(store)]
    assert [extent.header for extent in journal.catalogue] == [header_in(store, first) for first in (0, 3, 6)]
    assert (first.growing, second.growing) == (None, None)
    assert third.growing is not None
    assert list(third.growing.sequences) == [6]


def test_a_catalogue_that_was_taken_before_a_roll(journal: Journal) -> None:
    """A reader keeps the catalogue that it has taken: it is not changed under its hands."""
    fill(journal)
    taken = journal.catalogue
    journal.tidy()
    assert len(taken) == 1
    assert len(journal.catalogue) == 2


# no space


@pytest.mark.parametrize("number", NO_SPACE)
def test_no_space_for_a_commit(journal: Journal, disk: FailingDisk, store: Path, number: int) -> None:
    """Nothing of the commit is kept: the file is as it was, byte for byte, and that is on the disk."""
    write(journal, b"kept", sync=False)
    before = segment_in(store).read_bytes()
    disk.fail("write", number, written=70)
    with pytest.raises(StoreFullError) as caught:
        write(journal, b"refused", sync=False)
    assert segment_in(store).read_bytes() == before
    assert disk.steps("truncate", "sync") == [("truncate", segment_name(0)), ("sync", segment_name(0))]
    assert (caught.value.path, caught.value.sequence) == (str(store), 1)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == number


@pytest.mark.parametrize(("method", "payload"), [("write", b"refused"), ("write_synced", bytes(200_000))])
def test_no_space_for_a_durable_commit(
    journal: Journal, disk: FailingDisk, store: Path, method: str, payload: bytes
) -> None:
    """Also where zeros stand ahead, nothing is left behind the last frame, and nothing before it is touched."""
    write(journal, b"kept")
    before = without_zeros_ahead(segment_in(store))
    disk.fail("write_synced", errno.ENOSPC, written=70)
    with pytest.raises(StoreFullError):
        write(journal, payload)
    assert segment_in(store).read_bytes() == before
    assert data_in(store) == [b"kept"]


@pytest.mark.parametrize("sync", [True, False])
def test_space_again(journal: Journal, disk: FailingDisk, store: Path, sync: bool) -> None:
    """The next commit gets the sequence and the place of the refused one, without reopening: no gap."""
    write(journal, b"a", sync=sync)
    disk.fail("write", errno.ENOSPC, written=70, forever=True)
    disk.fail("write_synced", errno.ENOSPC, written=70, forever=True)
    for _ in range(3):
        with pytest.raises(StoreFullError) as caught:
            write(journal, b"refused", b"refused too", sync=sync)
        assert caught.value.sequence == 1
    disk.mend()
    assert write(journal, b"b", sync=sync).next_sequence == 2
    assert data_in(store) == [b"a", b"b"]
    first, second = (header for _, header, _ in frames_in(store))
    assert (second.first_sequence, second.link) == (1, first.check)


def test_a_commit_that_is_cut_back_makes_the_rest_durable(journal: Journal, disk: FailingDisk) -> None:
    """The cut syncs the whole file, and the landing says so."""
    write(journal, b"kept", sync=False)
    disk.fail("write", errno.ENOSPC)
    with pytest.raises(StoreFullError):
        write(journal, b"refused", sync=False)
    assert journal.landing() == Landing(1, 1, 1)


@pytest.mark.parametrize("method", ["truncate", "sync"])
def test_a_commit_that_cannot_be_cut_back(journal: Journal, disk: FailingDisk, method: str) -> None:
    """If half a commit may have stayed, the outcome is unknown: the journal is poisoned."""
    write(journal, b"kept", sync=False)
    disk.fail("write", errno.ENOSPC, written=70)
    disk.fail(method, errno.EIO)
    with pytest.raises(StoreFailedError, match="outcome unknown"):
        write(journal, b"refused", sync=False)
    assert journal.failure is not None


def test_no_space_to_write_ahead(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """Where there is space for a commit and not for the zeros behind it, the commit is stored."""
    disk.fail("write", errno.ENOSPC, written=1000)
    assert write(journal, b"record") == Landing(1, 1, 1)
    assert data_in(store) == [b"record"]


def test_zeros_that_cannot_be_taken_back(journal: Journal, disk: FailingDisk) -> None:
    """When there is no space for them and no way back either, the outcome is unknown: the journal is poisoned."""
    disk.fail("write", errno.ENOSPC, written=1000)
    disk.fail("truncate", errno.EIO)
    with pytest.raises(StoreFailedError, match="truncating"):
        write(journal, b"record")
    assert disk.calls[-1].method == "truncate"


@pytest.mark.parametrize("step", ["create", "write", "rename"])
def test_no_space_for_the_next_segment(journal: Journal, disk: FailingDisk, store: Path, step: str) -> None:
    """The log goes on in the segment at hand, and rolls when there is space again."""
    fill(journal)
    disk.fail(step, errno.ENOSPC, of=UNNAMED if step != "rename" else ".segment", written=10)
    journal.tidy()
    assert segments_in(store) == [segment_in(store, 0)]
    assert not list(store.glob(f"*{UNNAMED}"))
    write(journal, b"goes on")
    journal.tidy()
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 4)]
    write(journal, b"next")
    assert data_in(store) == [THIRD, THIRD, THIRD, b"goes on", b"next"]


@pytest.mark.parametrize("sync", [True, False])
def test_no_space_for_the_footer(journal: Journal, disk: FailingDisk, store: Path, sync: bool) -> None:
    """The empty successor is removed, durably, before the old segment goes on; later it is rolled."""
    fill(journal, sync=sync)
    before = without_zeros_ahead(segment_in(store))
    disk.calls.clear()
    disk.fail("write", errno.ENOSPC, of=segment_name(0), written=20)
    journal.tidy()
    assert segments_in(store) == [segment_in(store, 0)]
    assert without_zeros_ahead(segment_in(store)) == before
    assert undurable_names(disk.calls) == set()
    assert disk.steps("remove", "sync_directory")[-2:] == [("remove", segment_name(3)), ("sync_directory", store.name)]
    write(journal, b"goes on", sync=sync)
    journal.tidy()
    write(journal, b"next", sync=sync)
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 4)]
    assert data_in(store) == [THIRD, THIRD, THIRD, b"goes on", b"next"]


@pytest.mark.parametrize("method", ["remove", "sync_directory"])
def test_an_unused_segment_that_cannot_be_removed(journal: Journal, disk: FailingDisk, store: Path, method: str) -> None:
    """A successor that may still be there must not be outgrown by the one before it: the journal is poisoned."""
    fill(journal)
    disk.fail("write", errno.ENOSPC, of=segment_name(0))
    disk.fail(method, errno.EIO, nth=1 if method == "remove" else 2)
    with pytest.raises(StoreFailedError):
        journal.tidy()
    with pytest.raises(StoreFailedError):
        journal.close()
    assert disk.open_files == {}
    again, report = open_log(store)
    again.close()
    assert report.next_sequence == 3
    assert data_in(store) == [THIRD, THIRD, THIRD]


def test_no_space_for_many_rolls(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """However long the space is missing, every commit that fits is kept, and one reopening finds them all."""
    disk.fail("create", errno.ENOSPC, forever=True)
    for number in range(10):
        write_and_tidy(journal, b"%d" % number * 1000)
    journal.close()
    again, report = open_log(store)
    again.drop()
    assert report.clean
    assert data_in(store) == [b"%d" % number * 1000 for number in range(10)]


# the disk fails


@pytest.mark.parametrize(
    ("method", "writes_synced", "nth_commit"), [("sync", False, 1), ("sync", True, 1), ("write_synced", True, 2)]
)
def test_a_sync_that_fails(store: Path, method: str, writes_synced: bool, nth_commit: int) -> None:
    """The commit's outcome is unknown, the cause is named, and no sync is ever asked for again."""
    disk = FailingDisk(writes_synced=writes_synced)
    journal, _ = open_log(store, disk)
    for _ in range(nth_commit - 1):
        write(journal, b"synced")
    disk.fail(method, errno.EIO)
    with pytest.raises(StoreFailedError, match="outcome unknown") as caught:
        write(journal, b"lost or not")
    assert caught.value.path == str(store)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EIO
    syncs = disk.syncs
    refused = [lambda: write(journal, b"later"), lambda: write(journal, sync=True), journal.close]
    for call in refused:
        with pytest.raises(StoreFailedError):
            call()
    journal.tidy()
    assert disk.syncs == syncs


def test_a_poisoned_journal_leaves_the_disk_alone(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """After a failure nothing is written, synced, rolled or cut; closing only lets go of the file."""
    fill(journal)
    disk.fail("sync", errno.EIO)
    write(journal, b"unsynced", sync=False)
    with pytest.raises(StoreFailedError):
        write(journal, b"lost or not")
    before = snapshot(store)
    disk.calls.clear()
    for sync in (True, False):
        with pytest.raises(StoreFailedError):
            write(journal, b"later", sync=sync)
    with pytest.raises(StoreFailedError):
        write(journal, sync=True)
    journal.tidy()
    assert disk.calls == []
    with pytest.raises(StoreFailedError):
        journal.close()
    assert [call.method for call in disk.calls] == ["close"]
    assert disk.open_files == {}
    assert snapshot(store) == before


def test_a_failure_keeps_what_was_synced_before_it(journal: Journal, disk: FailingDisk) -> None:
    """Readers may go on up to the last synced record: the journal still knows where that is."""
    write(journal, b"synced")
    write(journal, b"flushed", sync=False)
    disk.fail("sync", errno.EIO)
    with pytest.raises(StoreFailedError):
        write(journal, b"lost or not")
    assert journal.landing().synced_sequence == 1


@pytest.mark.parametrize(("method", "sync"), [("write", False), ("write", True), ("write_synced", True)])
def test_a_write_that_fails(journal: Journal, disk: FailingDisk, method: str, sync: bool) -> None:
    """Any error but a lack of space poisons the journal at once: nothing is cut, nothing is tried again."""
    if method == "write_synced":
        write(journal, b"synced")
    disk.calls.clear()
    disk.fail(method, errno.EIO, written=30)
    with pytest.raises(StoreFailedError, match="Input/output error"):
        write(journal, b"lost or not", sync=sync)
    assert [call.method for call in disk.calls] == [method]


def test_each_caller_gets_an_error_of_its_own(journal: Journal, disk: FailingDisk) -> None:
    """Every refusal is a new object with the same words and the same cause, that of the first failure."""
    disk.fail("write", errno.EIO)
    errors = []
    for _ in range(3):
        with pytest.raises(StoreFailedError) as caught:
            write(journal, b"record", sync=False)
        errors.append(caught.value)
    errors.append(journal.fail("something else", ValueError("later")))
    assert len({id(error) for error in errors}) == 4
    assert len({str(error) for error in errors}) == 1
    assert len({id(error.__cause__) for error in errors}) == 1


def test_an_unexpected_error_poisons_too(journal: Journal, disk: FailingDisk) -> None:
    """A defect of the engine leaves nobody with a half-written commit: the first word on it stands."""
    defect = ValueError()
    error = journal.fail("an unexpected error", defect)
    assert "an unexpected error: ValueError" in str(error)
    assert error.__cause__ is defect
    disk.calls.clear()
    with pytest.raises(StoreFailedError):
        write(journal, b"record")
    assert disk.calls == []


@pytest.mark.parametrize(
    ("method", "of"),
    [
        ("create", ""),
        ("write", UNNAMED),
        ("sync", UNNAMED),
        ("rename", ""),
        ("sync_directory", ""),
        ("truncate", ""),
        ("write", segment_name(0)),
        ("sync", segment_name(0)),
    ],
)
def test_a_roll_that_fails(journal: Journal, disk: FailingDisk, store: Path, method: str, of: str) -> None:
    """The journal is poisoned, refuses what comes without touching the disk, and every commit is there afterwards."""
    fill(journal)
    disk.fail(method, errno.EIO, of=of)
    with pytest.raises(StoreFailedError):
        journal.tidy()
    disk.calls.clear()
    with pytest.raises(StoreFailedError):
        write(journal, b"later")
    assert disk.calls == []
    with pytest.raises(StoreFailedError):
        journal.close()
    assert disk.open_files == {}, "a file of the roll was left open"
    again, _ = open_log(store)
    again.close()
    assert data_in(store) == [THIRD, THIRD, THIRD]


def test_a_directory_that_cannot_be_synced_is_not_asked_again(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """A failed fsync of the directory poisons as a failed fdatasync does: the new name may be lost."""
    fill(journal)
    disk.calls.clear()
    disk.fail("sync_directory", errno.EIO)
    with pytest.raises(StoreFailedError, match="fsync of the directory"):
        journal.tidy()
    with pytest.raises(StoreFailedError):
        journal.close()
    assert disk.count("sync_directory") == 1
    assert disk.count("sync") == 1  # of the header, before it


def test_a_seal_that_fails_syncs_nothing_again(journal: Journal, disk: FailingDisk) -> None:
    """When the sync of a footer fails, neither the old segment nor the new one is synced any more."""
    fill(journal)
    disk.calls.clear()
    disk.fail("sync", errno.EIO, of=segment_name(0))
    with pytest.raises(StoreFailedError, match="fdatasync"):
        journal.tidy()
    assert disk.steps("sync", "write_synced") == [("sync", segment_name(3) + UNNAMED), ("sync", segment_name(0))]


# closing


def test_a_close_proves_everything(journal: Journal, store: Path) -> None:
    """Everything is synced, then an empty frame says so; it ends the file, and it is on the disk as well."""
    write(journal, b"a", b"b", sync=False)
    assert journal.close().synced_sequence == 2
    offset, mark, body = frames_in(store)[-1]
    assert (mark.first_sequence, mark.records, mark.watermark, mark.time) == (2, 0, 2, NOW)
    assert body == b""
    assert segment_in(store).stat().st_size == offset + mark.size


def test_the_order_of_a_close(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """The mark and the manifest speak only for what has been synced before, and are durable themselves."""
    write(journal, b"a", sync=False)
    disk.calls.clear()
    journal.close()
    segment, unnamed = segment_name(0), MANIFEST + UNNAMED
    assert [(call.method, call.name) for call in disk.calls] == [
        ("sync", segment),
        ("write", segment),
        ("truncate", segment),
        ("sync", segment),
        ("create", unnamed),
        ("write", unnamed),
        ("sync", unnamed),
        ("rename", MANIFEST),
        ("close", MANIFEST),
        ("sync_directory", store.name),
        ("close", segment),
    ]
    assert disk.open_files == {}


def test_a_close_writes_into_the_manifest_how_far_the_log_reaches(journal: Journal, store: Path) -> None:
    """Until then the manifest says what it said: only a clean close knows the end of the log."""
    before = (store / MANIFEST).read_bytes()
    write(journal, b"a", b"b")
    assert (store / MANIFEST).read_bytes() == before
    journal.close()
    assert Manifest.decode((store / MANIFEST).read_bytes()) == Manifest(STORE_ID, 0, 2)


def test_a_close_without_a_record_leaves_the_manifest(journal: Journal, disk: FailingDisk) -> None:
    """It says already how far the log reaches."""
    disk.calls.clear()
    journal.close()
    assert MANIFEST not in {call.name for call in disk.calls}


@pytest.mark.parametrize("method", ["create", "write", "rename"])
def test_no_space_for_the_manifest(journal: Journal, disk: FailingDisk, store: Path, method: str) -> None:
    """Closing succeeds all the same; the old manifest stays, and so does every record."""
    write(journal, b"a")
    before = (store / MANIFEST).read_bytes()
    disk.fail(method, errno.ENOSPC, of=MANIFEST if method == "rename" else MANIFEST + UNNAMED, written=20)
    assert journal.close().synced_sequence == 1
    assert disk.open_files == {}
    assert (store / MANIFEST).read_bytes() == before
    again, report = open_log(store)
    again.close()
    assert (report.next_sequence, report.cut_bytes) == (1, 0)


@pytest.mark.parametrize("method", ["create", "write", "sync", "rename", "sync_directory"])
def test_a_manifest_that_cannot_be_written(journal: Journal, disk: FailingDisk, store: Path, method: str) -> None:
    """The callers are told, every file is let go of, and the next opening finds the log as it was."""
    write(journal, b"a")
    of = {"rename": MANIFEST, "sync_directory": store.name}.get(method, MANIFEST + UNNAMED)
    disk.fail(method, errno.EIO, of=of, written=20)
    with pytest.raises(StoreFailedError) as caught:
        journal.close()
    assert isinstance(caught.value.__cause__, OSError)
    assert disk.open_files == {}
    again, report = open_log(store)
    again.close()
    assert report.next_sequence == 1


def test_a_close_takes_the_zeros_along(journal: Journal, store: Path) -> None:
    """Space written ahead is given back."""
    write(journal, b"a")
    assert segment_in(store).stat().st_size > AHEAD_BYTES
    journal.close()
    assert segment_in(store).stat().st_size < 1000


def test_an_empty_store_is_closed_with_a_mark(journal: Journal, store: Path) -> None:
    """Without any record the mark says that there is none."""
    journal.close()
    ((_, mark, _),) = frames_in(store)
    assert (mark.first_sequence, mark.records, mark.watermark) == (0, 0, 0)


def test_opening_and_closing_writes_no_second_mark(journal: Journal, store: Path) -> None:
    """A store that is opened and closed without a record does not grow."""
    write(journal, b"a")
    journal.close()
    before = segment_in(store).read_bytes()
    for _ in range(3):
        again, _ = open_log(store)
        again.close()
        assert segment_in(store).read_bytes() == before


def test_a_mark_behind_each_life(journal: Journal, store: Path) -> None:
    """A record behind a mark needs a mark of its own at the next close; the log goes on behind the first."""
    write(journal, b"a")
    journal.close()
    again, _ = open_log(store)
    write(again, b"b")
    again.close()
    assert [(header.records, header.watermark) for _, header, _ in frames_in(store)] == [(1, 0), (0, 1), (1, 1), (0, 2)]


def test_a_close_right_after_a_roll(journal: Journal, store: Path) -> None:
    """The new segment gets the mark, so the next opening finds the store closed."""
    fill(journal)
    journal.tidy()
    journal.close()
    again, report = open_log(store)
    again.close()
    assert report.clean
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 3)]


def test_a_close_right_after_a_roll_of_a_marked_segment(store: Path) -> None:
    """The mark in the sealed segment does not speak for the new one: that one is marked too."""
    journal, _ = open_log(store)
    fill(journal)
    journal.close()
    full, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    write(full, sync=True)
    full.tidy()
    full.close()
    again, report = open_log(store)
    again.close()
    assert report.clean
    assert segments_in(store) == [segment_in(store, 0), segment_in(store, 3)]


def test_no_space_for_the_mark(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """Closing succeeds all the same: only the proof is missing, and no half of it is left."""
    write(journal, b"a")
    disk.fail("write", errno.ENOSPC, written=30)
    assert journal.close().synced_sequence == 1
    assert len(frames_in(store)) == 1
    again, report = open_log(store)
    again.close()
    assert (report.next_sequence, report.cut_bytes) == (1, 0)


@pytest.mark.parametrize(("method", "nth"), [("sync", 1), ("write", 1), ("truncate", 1), ("sync", 2)])
def test_a_close_that_fails(journal: Journal, disk: FailingDisk, store: Path, method: str, nth: int) -> None:
    """The callers are told, the file is let go of, and no sync is repeated."""
    write(journal, b"a", sync=False)
    disk.calls.clear()
    disk.fail(method, errno.EIO, nth=nth)
    with pytest.raises(StoreFailedError) as caught:
        journal.close()
    assert isinstance(caught.value.__cause__, OSError)
    assert disk.open_files == {}
    assert [call.method for call in disk.calls][-2:] == [method, "close"]
    assert data_in(store) == [b"a"]


def test_a_journal_that_is_dropped(journal: Journal, disk: FailingDisk, store: Path) -> None:
    """An opening that nobody waits for any more lets go of the file and writes nothing."""
    before = snapshot(store)
    journal.drop()
    assert [call.method for call in disk.calls] == ["close"]
    assert snapshot(store) == before


# every call in turn


@pytest.fixture(params=["made at the roll", "prepared"])
def successors(request: pytest.FixtureRequest) -> None:
    """When the files of the next segments are made."""
    if request.param == "prepared":
        request.getfixturevalue("prepared")


def live(store: Path, disk: Disk, acknowledged: list[bytes]) -> None:
    """A life that makes a store, fills three segments and closes; notes each record that was acknowledged as synced."""
    journal, _ = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    try:
        for number in range(8):
            payload = b"%d" % number * 1500
            with suppress(StoreFullError):
                write(journal, payload)
                acknowledged.append(payload)
            journal.tidy()
    finally:
        journal.close()


def lives_with(fault: Callable[[FailingDisk, int], None], path: Path) -> Iterator[tuple[Path, FailingDisk, list[bytes]]]:
    """A life for each call of the disk that it makes, with this fault at that call."""
    for nth in count(1):
        store, disk = path / str(nth), FailingDisk()
        store.mkdir()
        acknowledged: list[bytes] = []
        fault(disk, nth)
        with suppress(AquipuError, Crash):
            live(store, disk, acknowledged)
        if not disk.failures:
            assert len(acknowledged) == 8
            assert nth > 40
            return
        yield store, disk, acknowledged
        disk.end_process()


def check_next_life(store: Path, before: FailingDisk, acknowledged: list[bytes]) -> None:
    """All that was acknowledged is there, in order; the store goes on without a gap; no name can get lost any more."""
    why = f"failed at {failed_call(before)}"
    before.end_process()
    disk = FailingDisk()
    journal, report = open_log(store, disk, max_segment_bytes=SEGMENT_BYTES)
    assert report.next_sequence - len(acknowledged) in (0, 1), why  # one may have been under way
    write(journal, b"next life")
    assert undurable_names([*before.calls, *disk.calls]) == set(), why
    journal.tidy()
    journal.close()
    found = records_in(store)
    assert [record.data for record in found][: len(acknowledged)] == acknowledged, why
    assert [record.sequence for record in found] == list(range(report.next_sequence + 1)), why
    last, report = open_log(store)
    last.close()
    assert report.clean, why


def failed_call(disk: FailingDisk) -> Call:
    """The first call that failed."""
    return next(call for call in disk.calls if call.failed)


@pytest.mark.usefixtures("successors")
def test_a_crash_before_every_call(tmp_path: Path) -> None:
    """Wherever a process ends, in creating, committing, rolling or closing: the next one finds what was acknowledged."""
    for store, disk, acknowledged in lives_with(FailingDisk.crash, tmp_path):
        check_next_life(store, disk, acknowledged)


@pytest.mark.usefixtures("successors")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_at_every_call(tmp_path: Path, number: int) -> None:
    """Whichever call fails once, with an error of the tree or none: what was acknowledged is there afterwards."""

    def fault(disk: FailingDisk, nth: int) -> None:
        disk.fail(ANY, number, nth=nth, written=40)

    for store, disk, acknowledged in lives_with(fault, tmp_path):
        check_next_life(store, disk, acknowledged)


@pytest.mark.usefixtures("successors")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_no_sync_follows_one_that_failed(tmp_path: Path, number: int) -> None:
    """Of a file or of a directory, in a commit, a roll or a close: once one has failed, none is asked for again."""

    def fault(disk: FailingDisk, nth: int) -> None:
        disk.fail(ANY, number, nth=nth)

    for _, disk, _ in lives_with(fault, tmp_path):
        failed = failed_call(disk)
        if failed.method in ("sync", "sync_directory"):
            later = disk.calls[disk.calls.index(failed) + 1 :]
            assert {call.method for call in later} <= {"close"}, f"after {failed}"


@pytest.mark.usefixtures("successors")
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_no_file_is_left_open_after_any_error(tmp_path: Path, number: int) -> None:
    """A store that has failed is opened again in the same process, so a failure may not cost a descriptor each time."""

    def fault(disk: FailingDisk, nth: int) -> None:
        disk.fail(ANY, number, nth=nth)

    left_open = [(failed_call(disk), disk.open_files) for _, disk, _ in lives_with(fault, tmp_path) if disk.open_files]
    assert left_open == []


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_close_of_a_sealed_segment_that_reports_an_error(
    journal: Journal, disk: FailingDisk, store: Path, number: int
) -> None:
    """The file is sealed and synced by then, and its descriptor is gone whatever close says: the log goes on behind it."""
    fill(journal)
    disk.fail("close", number)
    journal.tidy()
    write_and_tidy(journal, b"next")
    journal.close()
    assert data_in(store) == [THIRD, THIRD, THIRD, b"next"]


# the file as a whole


def test_every_bit_that_a_journal_writes_is_covered(journal: Journal, store: Path) -> None:
    """A turned bit anywhere in a closed segment stops the walk at the frame that holds it."""
    write(journal, b"a")
    write(journal, b"b", sync=False)
    journal.close()
    file, frames = segment_in(store), frames_in(store)
    for offset in range(SEGMENT_HEADER_BYTES, file.stat().st_size):
        flip(file, offset, offset % 8)
        sound = [frame for frame in frames if frame[0] + frame[1].size <= offset]
        assert frames_in(store) == sound, f"byte {offset}"
        flip(file, offset, offset % 8)


def test_the_footer_fits_the_frames(journal: Journal, store: Path) -> None:
    """What a sealed segment says of itself is what its frames amount to."""
    fill(journal)
    journal.tidy()
    contents = Contents(0, header_in(store).link)
    for _, header, _ in frames_in(store, 0):
        contents.take(header.first_sequence, header.records, header.time, header.size, header.check)
    seed = header_in(store).seed
    assert Contents.decode_footer(segment_in(store).read_bytes()[contents.end :], seed) == contents


def test_all_segments_belong_to_the_store_of_the_manifest(journal: Journal, store: Path) -> None:
    """Every header carries the store id, and the manifest is the only other file."""
    fill(journal)
    journal.tidy()
    assert {header_in(store, first).store_id for first in (0, 3)} == {STORE_ID}
    assert sorted(file.name for file in store.iterdir()) == [segment_name(0), segment_name(3), MANIFEST]


# purges and holds


def sealed_store(store: Path, *, close: bool = True) -> None:
    """A store of four segments that begin with 0, 3, 6 and 9; the last one has no record."""
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    for _ in range(9):
        write_and_tidy(journal, THIRD)
    if close:
        journal.close()
    else:
        journal.drop()


def purge(journal: Journal, before: int) -> None:
    """As the worker does it when nothing else is to be done."""
    assert journal.purge(before=before) is not None
    while journal.sweep():
        pass


def test_the_order_of_a_purge(store: Path) -> None:
    """The holds are read before the decision; no file goes before the manifest says durably that the log begins later; and
    nobody else decides meanwhile."""
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
    opened = [call.method for call in disk.calls if call.path == str(store) or call.name == MANIFEST]
    assert opened[0] == "open"
    assert opened[-1] == "close", "the directory is held until the decision is durable"
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
    """The segment that is left has no record; it knows nevertheless when the last one before it was accepted."""
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    write(journal, bytes(SEGMENT_BYTES), time=NOW + 5)
    journal.tidy()
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
    """Readers keep the view that they took; who asks after the purge sees what is kept, before any file is gone."""
    sealed_store(store)
    journal, _ = open_log(store, max_segment_bytes=SEGMENT_BYTES)
    before = journal.catalogue
    journal.purge(before=6)
    assert [extent.first_sequence for extent in before] == [0, 3, 6, 9]
    assert [extent.first_sequence for extent in journal.catalogue] == [6, 9]
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
    assert journal.catalogue[0].first_sequence == 6
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
    assert not journal.sweep()
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


def cut_short(store: Path, act: Callable[[Journal], object], fault: Callable[[FailingDisk, int], None]) -> Iterator[Path]:
    """The store after this act, with a fault at its first call, its second, and so on; each in a copy of its own."""
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


def at_call(error: int | BaseException) -> Callable[[FailingDisk, int], None]:
    return lambda disk, nth: disk.fail(ANY, error, nth=nth)


FAULTS: list[Callable[[FailingDisk, int], None]] = [
    FailingDisk.crash,
    *map(at_call, (errno.EIO, errno.ENOSPC)),
]


@pytest.mark.parametrize("fault", FAULTS, ids=["crash", "EIO", "ENOSPC"])
@pytest.mark.parametrize("close", [True, False], ids=["closed before", "killed before"])
def test_a_purge_cut_short_at_every_call(store: Path, close: bool, fault: Callable[[FailingDisk, int], None]) -> None:
    """The first sequence is the old or the new one, what it says is there is there, and opening removes what is left."""
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
def test_a_hold_cut_short_at_every_call(store: Path, fault: Callable[[FailingDisk, int], None]) -> None:
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
    assert journal.catalogue[0].first_sequence == 3
    with pytest.raises(RecordPurgedError):
        journal.set_hold("audit", 2)
    assert journal.remove_hold("backup")
    purge(journal, 9)
    assert journal.catalogue[0].first_sequence == 9
    journal.close()
