"""pace: how a backup keeps out of the way of a writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest

from aquipu.local.backup.pace import Pace, Stopped
from aquipu.local.backup.segment_copy import Copier
from aquipu.local.disk.disk import Disk

SIZE = 5 * 1024 * 1024


class Log:
    """A log that has come so far, and what rests beside it, which takes no time here."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.next_sequence = 0
        self.now = 100.0
        self.rests: list[float | None] = []
        self.stop = Event()
        monkeypatch.setattr(self.stop, "wait", self._wait)
        monkeypatch.setattr("aquipu.local.backup.pace.monotonic", lambda: self.now)
        monkeypatch.setattr("aquipu.local.backup.pace.thread_time", lambda: self.now)
        self.pace = Pace(lambda: self.next_sequence, self.stop)

    def _wait(self, seconds: float | None = None) -> bool:
        self.rests.append(seconds)
        return self.stop.is_set()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(monkeypatch)


def moved(log: Log, seconds: float) -> None:
    """Move something for so long."""
    began, log.now = log.now, log.now + seconds
    log.pace.moved(began)


def test_beside_a_writer(log: Log) -> None:
    """It keeps a twentieth of the disk, a tenth of the processor, and rests a second at most."""
    log.next_sequence = 1
    moved(log, 0.01)
    log.next_sequence = 2
    log.now += 0.001
    log.pace.computed()
    log.next_sequence = 3
    moved(log, 10)
    assert log.rests == pytest.approx([0.19, 0.009, 1.0])


def test_beside_a_log_that_stands_still(log: Log) -> None:
    """It does not rest at all, and begins to when something is appended."""
    moved(log, 0.01)
    moved(log, 0.01)
    log.next_sequence = 1
    moved(log, 0.01)
    moved(log, 0.01)
    assert log.rests == pytest.approx([0, 0, 0.19, 0])


def test_a_little_computing(log: Log) -> None:
    """It rests after some time of it, not after each frame."""
    log.next_sequence = 1
    log.now += 0.0001
    log.pace.computed()
    assert log.rests == []
    log.now += 0.0003
    log.pace.computed()
    assert log.rests == pytest.approx([0.0036])


def test_nobody_waits_any_more(log: Log) -> None:
    """The work ends at its next rest, also beside a log that stands still."""
    log.stop.set()
    with pytest.raises(Stopped):
        moved(log, 0.01)


def test_pieces_of_a_copy(log: Log, tmp_path: Path) -> None:
    """Beside a writer they are small, so that no sync of theirs is long; alone they are not."""
    sizes: list[int] = []

    class Recording(Disk):
        def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
            sizes.append(sum(map(len, buffers)))
            if offset < SIZE // 2:
                log.next_sequence += 1
            super().write(descriptor, buffers, offset)

    (tmp_path / "segment").write_bytes(bytes(SIZE))
    copier = Copier(Recording(), str(tmp_path), log.pace)
    assert copier.copy(f"{tmp_path}/segment", f"{tmp_path}/copy", share=False).copied == SIZE
    small, large = 256 * 1024, 2 * 1024 * 1024
    assert set(sizes[:-1]) == {small, large}
    assert sizes[0] == small
    assert sum(sizes) == SIZE
    assert (tmp_path / "copy").stat().st_size == SIZE
