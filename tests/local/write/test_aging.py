"""aging: what is due by itself, by a clock that the tests turn."""

from __future__ import annotations

from collections.abc import Callable
from errno import EIO, EMFILE, ENOSPC
from pathlib import Path

import pytest

from aquipu.errors import StoreFailedError
from aquipu.local.retain.retention import Retention
from aquipu.local.write.journal import Journal
from aquipu.local.write.recovery import recover
from tests.disk import FailingDisk
from tests.support import NOW, STORE_ID, segments_in, write

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
ROOMS = (
    *("retain.clock.elapsed_ns", "retain.clock.time_ns", "write.roller.monotonic_ns"),
    *(f"write.aging.{name}" for name in ("elapsed_ns", "monotonic_ns", "time_ns")),
    *(f"write.journal.{name}" for name in ("elapsed_ns", "time_ns")),
    *("write.keeper.elapsed_ns", "write.log_files.elapsed_ns"),
)


class Times:
    """All clocks of the machine, in step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passed = 0
        for room in ROOMS:
            start = NOW if room.endswith(".time_ns") else 1000 * HOUR
            monkeypatch.setattr(f"aquipu.local.{room}", lambda start=start: start + self.passed)

    @property
    def now(self) -> int:
        return NOW + self.passed


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> Times:
    return Times(monkeypatch)


Opening = Callable[..., Journal]


def opened(
    path: Path, max_age: float | None = 2, segment_age: float = 1, disk: FailingDisk | None = None
) -> Journal:
    journal, _ = recover(
        disk or FailingDisk(),
        str(path),
        max_segment_bytes=1 << 20,
        new_store_id=STORE_ID,
        now=NOW,
        retention=None if max_age is None else Retention(max_age=max_age),
    )
    journal.aging.limit(int(segment_age * SECOND))
    return journal


def append(journal: Journal, times: Times) -> None:
    """One record, and what follows a commit."""
    write(journal, b"x" * 100, time=times.now)
    tend(journal)


def tend(journal: Journal) -> None:
    """What the thread that writes does between two jobs."""
    journal.maintain()
    while journal.delete_dropped():
        pass


def wait(journal: Journal, times: Times, most: int = 1 << 60) -> bool:
    """Let time pass until something is due, and do that; False when nothing is before ``most``."""
    left = journal.aging.seconds_left
    if left is None or left * SECOND > most:
        times.passed += most if left is not None else 0
        return False
    times.passed += round(left * SECOND)
    journal.grow_older()
    tend(journal)
    return True


def first_of(journal: Journal) -> int:
    return journal.segments[0].first_sequence


def test_nothing_older_than_both_bounds_stays(tmp_path: Path, times: Times) -> None:
    """A record every 100 ms for 10 s, then silence: at no moment there is a record older than the
    retention and the segments are to be, and in the end there is none, and nothing is due.
    """
    journal = opened(tmp_path)
    accepted: list[int] = []
    while True:
        if len(accepted) < 100:
            until = len(accepted) * SECOND // 10
            while (left := journal.aging.seconds_left) is not None:
                if times.passed + left * SECOND > until:
                    break
                assert wait(journal, times)
            times.passed = until
            accepted.append(times.passed)
            append(journal, times)
        elif not wait(journal, times):
            break
        oldest = accepted[first_of(journal)] if first_of(journal) < len(accepted) else None
        assert oldest is None or times.passed - oldest <= 3 * SECOND + 10
    assert first_of(journal) == journal.next_sequence == 100
    assert len(segments_in(tmp_path)) == 1
    assert times.passed <= 13 * SECOND


def test_an_idle_log_has_nothing_to_do(tmp_path: Path, times: Times) -> None:
    """Nothing is due in an empty log, nor, without a retention by age, once what is there is
    sealed.
    """
    journal = opened(tmp_path, max_age=None)
    assert journal.aging.seconds_left is None
    append(journal, times)
    assert journal.aging.seconds_left == 1
    assert wait(journal, times)
    assert len(journal.segments) == 2
    assert journal.synced_sequence == 1
    assert journal.aging.seconds_left is None


def test_a_log_whose_segments_may_have_any_age(tmp_path: Path, times: Times) -> None:
    """Without the bound nothing is ever due by itself."""
    journal, _ = recover(
        FailingDisk(),
        str(tmp_path),
        max_segment_bytes=4096,
        new_store_id=STORE_ID,
        now=NOW,
        retention=Retention(max_age=1),
    )
    for _ in range(3):
        write(journal, b"x" * 4096, time=times.now)
        journal.maintain()
    assert journal.aging.seconds_left is None


def test_a_wait_that_does_not_count_suspends(tmp_path: Path, times: Times) -> None:
    """No wait is longer than an hour: the machine may have slept meanwhile."""
    journal = opened(tmp_path, segment_age=30 * 86_400)
    append(journal, times)
    assert journal.aging.seconds_left == 3600


def test_a_log_that_was_closed_for_long(tmp_path: Path, times: Times) -> None:
    """Its records have grown older meanwhile: what is too old is sealed and goes at once."""
    journal = opened(tmp_path)
    append(journal, times)
    journal.close()
    times.passed += 10 * SECOND
    journal = opened(tmp_path)
    assert journal.aging.seconds_left == 0
    assert wait(journal, times, 0)
    assert first_of(journal) == 1
    assert journal.aging.seconds_left is None


def test_a_log_that_was_closed_for_a_moment(tmp_path: Path, times: Times) -> None:
    """Its segment is as old as its first record, not as the opening."""
    journal = opened(tmp_path, max_age=100, segment_age=10)
    append(journal, times)
    times.passed += 3 * SECOND
    append(journal, times)
    times.passed += 2 * SECOND
    journal.close()
    times.passed += SECOND
    journal = opened(tmp_path, max_age=100, segment_age=10)
    assert journal.aging.seconds_left == 4
    assert wait(journal, times)
    assert journal.aging.seconds_left == pytest.approx(93)


@pytest.mark.parametrize("error", [ENOSPC, EMFILE])
def test_a_segment_that_cannot_be_made(tmp_path: Path, times: Times, error: int) -> None:
    """The roll is tried again, after longer and longer pauses, and what is appended meanwhile is
    stored; in the end everything goes that is too old.
    """
    disk = FailingDisk()
    journal = opened(tmp_path, disk=disk)
    append(journal, times)
    disk.fail("create", error, forever=True)
    for _ in range(30):
        assert wait(journal, times)
        assert len(journal.segments) == 1
    assert journal.aging.seconds_left == pytest.approx(5, abs=0.1)
    assert journal.troubles.reasons
    append(journal, times)
    disk.mend()
    while wait(journal, times):
        pass
    assert first_of(journal) == journal.next_sequence == 2
    assert not journal.troubles.reasons


def test_what_is_held(tmp_path: Path, times: Times) -> None:
    """It stays, and is looked for once in the age of a segment, not all the time; when it is held
    no more, it goes.
    """
    journal = opened(tmp_path)
    append(journal, times)
    assert journal.set_hold("backup", 0)
    while len(journal.segments) < 2:
        assert wait(journal, times)
    for _ in range(3):
        assert wait(journal, times)
    assert first_of(journal) == 0
    assert journal.aging.seconds_left == pytest.approx(1)
    assert journal.remove_hold("backup")
    assert wait(journal, times)
    assert first_of(journal) == 1
    assert journal.aging.seconds_left is None


def test_a_hold_that_does_not_check(tmp_path: Path, times: Times) -> None:
    """The retention keeps everything then; that is said, and looked at again as with a hold."""
    journal = opened(tmp_path)
    append(journal, times)
    assert journal.set_hold("backup", 0)
    (hold,) = tmp_path.glob("*backup*")
    good = hold.read_bytes()
    hold.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    for _ in range(5):
        assert wait(journal, times)
    assert first_of(journal) == 0
    assert journal.aging.seconds_left == pytest.approx(1)
    assert journal.troubles.reasons
    hold.unlink()
    assert wait(journal, times)
    assert first_of(journal) == 1
    assert not journal.troubles.reasons


def test_a_file_that_cannot_be_removed(tmp_path: Path, times: Times) -> None:
    """It is tried again once in the age of a segment, also when nothing else is due."""
    disk = FailingDisk()
    journal = opened(tmp_path, disk=disk)
    append(journal, times)
    disk.fail("remove", EIO, forever=True)
    for _ in range(4):
        assert wait(journal, times)
    assert first_of(journal) == 1
    assert len(segments_in(tmp_path)) == 2
    assert journal.aging.seconds_left == pytest.approx(1)
    disk.mend()
    assert wait(journal, times)
    assert len(segments_in(tmp_path)) == 1
    assert journal.aging.seconds_left is None


def test_a_roll_that_fails(tmp_path: Path, times: Times) -> None:
    """A sync that fails poisons the log, as at any roll, and nothing is due any more."""
    disk = FailingDisk()
    journal = opened(tmp_path, disk=disk)
    append(journal, times)
    disk.fail("sync", EIO, forever=True)
    times.passed += SECOND
    with pytest.raises(StoreFailedError):
        journal.grow_older()
    assert journal.failure is not None
    assert journal.aging.seconds_left is None
