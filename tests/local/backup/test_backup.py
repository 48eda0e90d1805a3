"""backup: a store copied beside its writer, again and again, and what is refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event

import pytest

from aquipu.errors import (
    BackupRefusedError,
    CorruptionError,
    NotAStoreError,
    PositionLostError,
    StoreLockedError,
    StoreUnavailableError,
)
from aquipu.local.backup import destination
from aquipu.local.backup.backup import Making, Overtaken, Wish
from aquipu.local.backup.pace import Stopped
from aquipu.local.check.diagnosis.diagnose import diagnose
from aquipu.local.check.inspect import inspect
from aquipu.local.check.verify import verify_all
from aquipu.local.compress.segment import compress
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock
from aquipu.local.format.history import check_survived
from aquipu.local.format.names import ACKNOWLEDGED, BookmarkKind, relations_name, segment_name
from aquipu.local.format.progress import Published
from aquipu.local.format.segment import footer_bytes
from aquipu.local.retain.bookmarks import read_bookmark, write_bookmark
from aquipu.local.retain.history import read_history
from aquipu.local.write.generation import Generations
from aquipu.local.write.journal import Journal
from aquipu.local.write.progress_page import ProgressPage
from tests.disk import Crash, FailingDisk, undurable_names
from tests.local.backup.made import backed_up, check, filled, grown, purged, seen, writing
from tests.local.logs import OTHER_ID, live
from tests.support import (
    STORE_ID,
    copy_of,
    data_in,
    flip,
    open_log,
    segment_in,
    segments_in,
    snapshot,
    write,
)

CHANGES = ("write", "sync", "sync_directory", "rename", "create", "remove", "truncate")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the backup goes: not yet there."""
    return tmp_path / "deep" / "backup"


def test_a_first_backup(store: Path, place: Path) -> None:
    """It holds what the store holds, and says how far that is; the store is as it was."""
    data = grown(store, 10)
    before = snapshot(store)
    done = backed_up(store, place)
    assert snapshot(store) == before
    assert (done.first_sequence, done.next_sequence, done.segments) == (0, 10, 4)
    assert done.copied_bytes == sum(file.stat().st_size for file in segments_in(store))
    check(place, data)


@pytest.mark.parametrize("number", range(10))
def test_a_backup_at_every_length(store: Path, place: Path, number: int) -> None:
    """Also of an empty store, of a new segment, and of one that is just full."""
    with writing(store) as journal:
        data = filled(journal, number)
        backed_up(store, place, journal=journal)
    check(place, data)


def test_beside_a_writer(store: Path, place: Path) -> None:
    """What is not acknowledged does not come along, however far the file reaches."""
    disk = FailingDisk()
    with writing(store) as journal:
        data = filled(journal, 4)
        view = seen(disk, journal)
        filled(journal, 2, first=4)
        making = Making(disk, str(store), Wish(str(place), False, True), lambda: 0, Event())
        assert making.carry_out(view).next_sequence == 4
    check(place, data)


@pytest.mark.parametrize("number", [1, 4, 40])
def test_a_backup_beside_a_writer_is_known_to_be_on_the_disk(
    store: Path, place: Path, number: int
) -> None:
    """No mark stands behind its records, and the manifest proves the same: an opening mends
    nothing, and a look does not say that it would. What comes behind it is not proven by that.
    """
    disk = Disk()
    with writing(store) as journal:
        data = filled(journal, number)
        backed_up(store, place, journal=journal)
    assert inspect(disk, str(place)).clean
    assert not [step for step in diagnose(disk, str(place)).opening if "once more" in step]
    later = copy_of(place, "later")
    live(later, b"later", sync=False, close=False)
    assert not inspect(disk, str(later)).clean
    assert [step for step in diagnose(disk, str(later)).opening if "once more" in step]
    journal, report = open_log(place)
    journal.close()
    assert (report.clean, report.rewritten_bytes) == (True, 0)
    check(place, data)


def test_again_only_what_is_new_is_copied(store: Path, place: Path) -> None:
    """Of twenty segments that were there, none is read or written but the last."""
    data = grown(store, 60)
    backed_up(store, place)
    data += grown(store, 4, first=60)
    disk = FailingDisk()
    done = backed_up(store, place, disk)
    assert done.copied_bytes < 4 * os.path.getsize(segments_in(store)[0])
    written = {call.name for call in disk.calls if call.method == "write"}
    assert segment_name(0) not in {name.removesuffix(".unnamed") for name in written}
    check(place, data)


def test_what_was_purged_stays_in_the_backup(store: Path, place: Path) -> None:
    """A backup keeps what it has; a new one begins where the log does by then."""
    data = grown(store, 10)
    backed_up(store, place)
    journal, _ = open_log(store)
    journal.purge(before=6)
    write(journal, b"later")
    journal.close()
    done = backed_up(store, place)
    assert done.first_sequence == 0
    check(place, [*data, b"later"])
    assert backed_up(store, place.parent / "other").first_sequence == 6
    check(place.parent / "other", [*data[6:], b"later"])


def test_a_purge_beside_it_takes_nothing_away(store: Path, place: Path) -> None:
    """A purge of what is to be copied, when the copy has begun: the files stay for so long."""
    disk = FailingDisk()
    with writing(store) as journal:
        data = filled(journal, 10)
        disk.before("create", partial(purged, journal, 9), of=f"{segment_name(6)}.unnamed")
        backed_up(store, place, disk, journal=journal)
        assert journal.segments[0].first_sequence == 9
        assert segments_in(store)[0].name == segment_name(3)
    check(place, data)


def test_a_purge_that_was_quicker(store: Path, place: Path) -> None:
    """What is gone before it was held: the backup looks again, and nothing is written."""
    with writing(store) as journal:
        filled(journal, 10)
        with pytest.raises(Overtaken):
            backed_up(store, place, journal=journal, between=partial(purged, journal, 6))
        assert segments_in(place) == []
        assert backed_up(store, place, journal=journal).first_sequence == 6


def test_a_backup_that_was_opened_and_closed(store: Path, place: Path) -> None:
    """To look into a backup with a writer leaves marks, and no record: it goes on."""
    data = grown(store, 7)
    for first in (7, 9, 10):
        backed_up(store, place)
        journal, _ = open_log(place)
        journal.close()
        data += grown(store, 2 if first != 9 else 1, first=first)
        ProgressPage.create(Disk(), str(place), STORE_ID, Published(first, 0, 0)).close()
    backed_up(store, place)
    assert not (place / ACKNOWLEDGED).exists()
    check(place, data)


def rolled(store: Path, *, before: int) -> None:
    """Seal the last segment, and purge all records."""
    with writing(store) as journal:
        journal.roll()
        purged(journal, before)


@pytest.mark.parametrize("looked_into", [False, True])
def test_all_that_it_has_was_purged(store: Path, place: Path, looked_into: bool) -> None:
    """A quiet store whose last segment was sealed and purged since: nothing is missing."""
    with writing(store) as journal:
        data = filled(journal, 5)
        backed_up(store, place, journal=journal)
        if looked_into:
            with writing(place):
                pass
        journal.roll()
        purged(journal, 5)
        assert segments_in(store)[0].name == segment_name(5)
        for number in (5, 6, 7):
            assert backed_up(store, place, journal=journal).next_sequence == number
            check(copy_of(place, f"it-{number}"), data)
            data += filled(journal, 1, first=number)


def test_all_that_it_has_was_purged_after_the_store_was_closed(store: Path, place: Path) -> None:
    """The mark of the close is in the backup as well."""
    data = grown(store, 5)
    backed_up(store, place)
    rolled(store, before=5)
    backed_up(store, place)
    check(place, data)


@pytest.mark.parametrize("further", [0, 4])
def test_a_mark_came_behind_what_the_backup_has(store: Path, place: Path, further: int) -> None:
    """No record is missing, and what a mark says is known: it goes on there."""
    with writing(store) as journal:
        data = filled(journal, 5)
        backed_up(store, place, journal=journal)
    rolled(store, before=5)
    with writing(store) as journal:
        data += filled(journal, further)
    backed_up(store, place)
    check(place, data)
    assert verify_all(Disk(), str(place)).damages == []


@pytest.mark.parametrize("further", [0, 4])
def test_a_segment_was_sealed_in_the_store_behind_a_mark(
    store: Path, place: Path, further: int
) -> None:
    """The store was made anew of a copy that had it open still; no record is missing."""
    data = grown(store, 3)
    backed_up(store, place)
    full = store / segment_name(0)
    full.write_bytes(full.read_bytes()[: -footer_bytes(full.read_bytes())])
    (store / segment_name(3)).unlink()
    rolled(store, before=3)
    with writing(store) as journal:
        data += filled(journal, further, first=3)
    backed_up(store, place)
    check(place, data)
    assert verify_all(Disk(), str(place)).damages == []


def test_a_purged_segment_that_was_another_one(store: Path, place: Path) -> None:
    """As many records, and not the same: it is refused, and stays as it is."""
    older = copy_of(store, "older")
    grown(store, 3)
    backed_up(store, place)
    before = data_in(place)
    grown(older, 3, first=50)
    rolled(older, before=3)
    with pytest.raises(BackupRefusedError, match="segment 0 does not end as it did there"):
        backed_up(older, place)
    assert data_in(place) == before


def test_a_segment_that_was_compressed_since(store: Path, place: Path) -> None:
    """Its frames are others: the last record that the backup has tells whether it is the same."""
    with writing(store) as journal:
        data = filled(journal, 4)
        backed_up(store, place, journal=journal)
        data += filled(journal, 4, first=4)
        for segment in journal.segments[:-1]:
            assert compress(Disk(), segment, lambda: None) is not None
        backed_up(store, place, journal=journal)
    check(place, data)


def test_a_plain_copy_of_a_segment_that_was_backed_up_compressed(store: Path, place: Path) -> None:
    """The store is made anew of a copy that has it as it was: it is the same log."""
    with writing(store) as journal:
        data = filled(journal, 3)
        other = copy_of(store, "other")
        assert compress(Disk(), journal.segments[0], lambda: None) is not None
        backed_up(store, place, journal=journal)
    data += grown(other, 2, first=3)
    backed_up(other, place)
    check(place, data)


def test_a_compressed_segment_that_has_gone_on_apart(store: Path, place: Path) -> None:
    """It is told by the last record that the backup has."""
    grown(store, 4)
    other = copy_of(store, "other")
    grown(store, 1, first=4)
    backed_up(store, place)
    with writing(other) as journal:
        filled(journal, 4, first=50)
        for segment in journal.segments[:-1]:
            compress(Disk(), segment, lambda: None)
        with pytest.raises(BackupRefusedError, match=r"segment 3 .* gone on apart"):
            backed_up(other, place, journal=journal)


def test_a_backup_of_a_backup(store: Path, place: Path) -> None:
    """To restore is to copy the backup back."""
    data = grown(store, 7)
    backed_up(store, place)
    backed_up(place, place.parent / "restored")
    check(place.parent / "restored", data)


def test_label_indexes_come_along(store: Path, place: Path) -> None:
    """So nothing must be built anew."""
    grown(store, 7)
    (store / relations_name(0)).write_bytes(b"an index")
    backed_up(store, place)
    assert (place / relations_name(0)).read_bytes() == b"an index"


@pytest.mark.parametrize("bookmarks", [True, False])
def test_holds_and_cursors(store: Path, place: Path, bookmarks: bool) -> None:
    """They come along, unless they are not wanted; those of the backup stay."""
    grown(store, 7)
    backed_up(store, place)
    write_bookmark(Disk(), str(store), STORE_ID, BookmarkKind.CURSOR, "billing", 5)
    write_bookmark(Disk(), str(place), STORE_ID, BookmarkKind.HOLD, "mine", 3)
    backed_up(store, place, bookmarks=bookmarks)
    found = read_bookmark(Disk(), str(place), STORE_ID, BookmarkKind.CURSOR, "billing")
    assert found == (5 if bookmarks else None)
    assert read_bookmark(Disk(), str(place), STORE_ID, BookmarkKind.HOLD, "mine") == 3


def test_a_writer_of_the_backup_begins_a_generation(store: Path, place: Path) -> None:
    """Who has read further than the backup reaches is told so; what is in it holds."""
    grown(store, 7)
    disk = Disk()
    ours = Generations.begin(disk, str(store), STORE_ID, 7, created=True)
    backed_up(store, place)
    its = Generations.begin(disk, str(place), STORE_ID, 7, created=False)
    assert its.current != ours.current
    history = read_history(disk, str(place), STORE_ID)
    check_survived(str(place), history, ours.current, 7, 0)
    with pytest.raises(PositionLostError) as caught:
        check_survived(str(place), history, ours.current, 8, 0)
    assert caught.value.resume == 7


def test_a_store_without_a_history(store: Path, place: Path) -> None:
    """One of an earlier version, or of a full disk, has none: nor has its backup."""
    grown(store, 1)
    (store / "history").unlink(missing_ok=True)
    backed_up(store, place)
    assert not (place / "history").exists()


# links and shared blocks


def test_links(store: Path, place: Path) -> None:
    """Sealed segments are the very files of the store; the last one with records never is."""
    data = grown(store, 10)
    done = backed_up(store, place, link=True)
    linked = [
        file.stat().st_ino == (store / file.name).stat().st_ino for file in segments_in(place)
    ]
    assert linked == [True, True, True, False]
    assert done.shared_bytes == sum(file.stat().st_size for file in segments_in(store)[:3])
    before = snapshot(store)
    check(place, data)  # opens it as a writer does
    assert snapshot(store) == before


@pytest.mark.parametrize("number", range(1, 8))
def test_a_writer_of_a_linked_backup_does_the_store_no_harm(
    store: Path, place: Path, number: int
) -> None:
    """Whatever the last segment is: growing, full, empty."""
    with writing(store) as journal:
        data = filled(journal, number)
        backed_up(store, place, journal=journal, link=True)
        grown(place, 4)
    check(store, data)


def test_a_file_system_that_shares_blocks(store: Path, place: Path) -> None:
    """Sealed segments share theirs, and are checked all the same."""
    data = grown(store, 10)

    class Sharing(Disk):
        def clone(self, source: int, descriptor: int) -> bool:
            self.write(descriptor, [self.read(source, self.size(source), 0)], 0)
            return True

    done = backed_up(store, place, Sharing())
    assert done.shared_bytes == sum(file.stat().st_size for file in segments_in(store)[:3])
    check(place, data)


def test_another_file_system_takes_no_links(store: Path, place: Path) -> None:
    """The error says so."""
    grown(store, 4)

    class Apart(Disk):
        def link(self, old: str, new: str) -> None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), old, None, new)

    with pytest.raises(BackupRefusedError, match="linked there: Invalid cross-device link"):
        backed_up(store, place, Apart(), link=True)


# damage


@pytest.mark.parametrize("number", [0, 3, 9])
def test_damage_in_the_store(store: Path, place: Path, number: int) -> None:
    """It is found, named with its file in the store, and does not come to the backup."""
    disk = FailingDisk()
    with writing(store) as journal:
        data = filled(journal, 10)
        flip(segment_in(store, number), 200)
        with pytest.raises(CorruptionError) as caught:
            backed_up(store, place, disk, journal=journal)
        assert disk.open_files == {}
        flip(segment_in(store, number), 200)
    assert caught.value.path == str(segment_in(store, number))
    check(place, data[:number])


def test_a_footer_that_does_not_fit(store: Path, place: Path) -> None:
    """A sealed segment that lacks frames before its sound footer is damaged."""
    grown(store, 10)
    segment = segment_in(store, 3)
    data = segment.read_bytes()
    segment.write_bytes(data[:64] + bytes(1000) + data[1064:])
    with pytest.raises(CorruptionError, match="header of a frame"):
        backed_up(store, place)


# cut short


def test_at_each_call_that_fails(store: Path, place: Path, tmp_path: Path) -> None:
    """Whatever fails, the store is as it was, what the backup had is there, and it goes on."""
    data = grown(store, 7)
    backed_up(store, place)
    data += grown(store, 5, first=7)
    before = snapshot(store)
    refused = 0
    for nth in count(1):
        tried, disk = copy_of(place, f"tried-{nth}"), FailingDisk()
        rule = disk.fail(CHANGES, errno.ENOSPC, nth=nth)
        try:
            backed_up(store, tried, disk)
        except StoreUnavailableError:
            refused += 1
            check(copy_of(tried, f"left-{nth}"), data[: len(data_in(tried))])
            assert len(data_in(tried)) >= 7
        assert disk.open_files == {}
        assert snapshot(store) == before
        if rule.seen < nth:
            break
        backed_up(store, tried)
        check(tried, data)
    assert refused > 20


def ended_at_each_call(
    store: Path, place: Path, *, link: bool = False, journal: Journal | None = None
) -> Iterator[Path]:
    """Yield what a backup has left whose process ended at each of its calls, a place for each.

    It goes on from what is at a place, if anything is.
    """
    for nth in count(1):
        tried, disk = place.parent / f"tried-{nth}", FailingDisk()
        if place.exists():
            copy_of(place, tried.name)
        disk.fail(CHANGES, Crash(), nth=nth, forever=True)
        try:
            backed_up(store, tried, disk, link=link, journal=journal)
            return
        except Crash:
            disk.end_process()
        yield tried


def test_its_process_ends_at_each_call_as_it_seals(store: Path, place: Path) -> None:
    """What the store has purged is there at any moment."""
    data = grown(store, 5)
    backed_up(store, place)
    rolled(store, before=5)
    new = grown(store, 2, first=5)
    for nth, tried in enumerate(ended_at_each_call(store, place), 1):
        left = copy_of(tried, f"left-{nth}")
        check(left, [*data, *new][: len(data_in(left))])
        assert len(data_in(left)) >= 5
        backed_up(store, tried)
        check(tried, [*data, *new])
    assert nth >= 20


@pytest.mark.parametrize("link", [False, True])
def test_its_process_ends_at_each_call(store: Path, place: Path, link: bool) -> None:
    """What a killed backup leaves is gone on with; without links it also opens, as it is."""
    data = grown(store, 7)
    backed_up(store, place)
    data += grown(store, 5, first=7)
    for nth, tried in enumerate(ended_at_each_call(store, place, link=link), 1):
        if not link:
            check(copy_of(tried, f"left-{nth}"), data[: len(data_in(tried))])
        backed_up(store, tried, link=link)
        assert [file.name for file in tried.iterdir() if file.name.endswith(".unnamed")] == []
        check(tried, data)
    assert nth >= 20


def test_a_linked_backup_that_was_cut_short_is_opened(store: Path, place: Path) -> None:
    """Whenever its process ends: a writer refuses what it left, or does the store no harm."""
    data = grown(store, 7)
    place.mkdir(parents=True)
    with writing(store) as journal:  # the last segment is full, and its successor empty
        data += filled(journal, 2, first=7)
        for tried in ended_at_each_call(store, place, link=True, journal=journal):
            with suppress(CorruptionError):
                grown(tried, 4)
    check(store, data)


def test_a_first_backup_whose_process_ends_at_each_call(store: Path, place: Path) -> None:
    """It is no store yet, or one that has less; the next one completes it."""
    data = grown(store, 7)
    ended = 0
    for tried in ended_at_each_call(store, place):
        backed_up(store, tried)
        check(tried, data)
        ended += 1
    assert ended >= 20


def test_it_is_durable_at_the_end(store: Path, place: Path) -> None:
    """No name and no byte is left to chance: each file is synced before it has its name."""
    grown(store, 7)
    disk = FailingDisk()
    backed_up(store, place, disk)
    ours = [call for call in disk.calls if call.path.startswith(str(place))]
    assert undurable_names(ours) <= {str(place), str(place.parent)}  # of which others are told
    for number, call in enumerate(ours):
        if call.method == "rename" and call.name.endswith((".segment", ".relations")):
            before = [one for one in ours[:number] if one.name == f"{call.name}.unnamed"]
            assert [one.method for one in before if one.method in ("write", "sync")][-1] == "sync"


def test_it_is_stopped(store: Path, place: Path) -> None:
    """Nobody waits any more: it ends soon, and what is there opens."""
    data = grown(store, 10)
    disk, stop = FailingDisk(), Event()
    disk.before("create", stop.set, of=f"{segment_name(6)}.unnamed")
    with pytest.raises(Stopped):
        backed_up(store, place, disk, stop=stop)
    assert disk.open_files == {}
    check(place, data[:3])


# the place


def test_a_place_within_the_store_or_around_it(store: Path, tmp_path: Path) -> None:
    """Also by a link: the error says so, and nothing is made."""
    grown(store, 1)
    (tmp_path / "way").symlink_to(store)
    for place, reason in (
        (store, "within the store"),
        (store / "backup", "within the store"),
        (tmp_path / "way" / "backup", "within the store"),
        (tmp_path, "the store lies within it"),
        (Path("/"), "the store lies within it"),
    ):
        before = snapshot(store)
        with pytest.raises(BackupRefusedError, match=reason):
            backed_up(store, place)
        assert snapshot(store) == before


def test_a_place_that_holds_something_else(store: Path, place: Path, tmp_path: Path) -> None:
    """Another store, other files, a file: one error each, and nothing is changed."""
    grown(store, 1)
    other = tmp_path / "other"
    other.mkdir()
    live(other, b"a", store_id=OTHER_ID)
    place.mkdir(parents=True)
    (place / "holiday.jpg").touch()
    for path, kind, reason in (
        (other, BackupRefusedError, f"another store, {OTHER_ID.hex()}"),
        (place, NotAStoreError, "holiday.jpg"),
        (place / "holiday.jpg", NotAStoreError, "it is a file"),
    ):
        before = snapshot(path) if path.is_dir() else {}
        with pytest.raises(kind, match=reason):
            backed_up(store, path)
        assert before == (snapshot(path) if path.is_dir() else {})


def test_a_backup_that_has_more_than_the_store(store: Path, place: Path, tmp_path: Path) -> None:
    """The store was put back to an older state: nothing of the backup is lost."""
    grown(store, 5)
    older = copy_of(store, "older")
    grown(store, 3, first=5)
    backed_up(store, place)
    before = snapshot(place)
    with pytest.raises(BackupRefusedError, match="it reaches up to sequence 7"):
        backed_up(older, place)
    grown(older, 6, first=50)
    with pytest.raises(BackupRefusedError, match="gone on apart"):
        backed_up(older, place)
    after = snapshot(place)
    assert {name: after[name] for name in after if name not in (".", "lock")} == {
        name: before[name] for name in before if name not in (".", "lock")
    }


def test_a_place_that_is_in_use(store: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer of the backup, or another backup, is waited for, and then named."""
    grown(store, 1)
    backed_up(store, place)
    lock = Lock.take(Disk(), str(place))
    assert lock is not None
    monkeypatch.setattr(destination, "_LOCK_SECONDS", 0.0)
    with pytest.raises(StoreLockedError):
        backed_up(store, place)
    lock.release()
    backed_up(store, place)


def test_a_backup_without_its_manifest(store: Path, place: Path) -> None:
    """What holds records and does not say of which store is no place for a backup."""
    grown(store, 4)
    backed_up(store, place)
    (place / "manifest").unlink()
    with pytest.raises(CorruptionError, match="manifest is missing"):
        backed_up(store, place)


def test_a_damaged_end_of_the_backup_is_copied_anew(store: Path, place: Path) -> None:
    """The last segment is copied each time, over whatever is there."""
    data = grown(store, 8)
    backed_up(store, place)
    flip(segments_in(place)[-1], 300)
    backed_up(store, place)
    check(place, data)
