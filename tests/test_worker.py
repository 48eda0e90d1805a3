"""The room `worker`: one thread, jobs in order, one wake per commit, and nobody left waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from errno import EIO, ENOSPC
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import pytest

from aquipu.commit import Commit, Landing
from aquipu.disk import Disk
from aquipu.errors import AquipuError, StoreFailedError, StoreFullError
from aquipu.handoff import Handoff
from aquipu.journal import Journal
from aquipu.lock import Lock
from aquipu.policy import Stage
from aquipu.recovery import recover
from aquipu.worker import Worker, _living

PATIENCE = 20.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""

Outcome = Landing | AquipuError


class FakeLoop:
    """Keeps what a thread wants to have called in the loop; the test calls it, on its own thread."""

    def __init__(self) -> None:
        self.wakes: SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]] = SimpleQueue()
        self.closed = False

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.wakes.put((callback, args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(delay, callback, args, cast(asyncio.AbstractEventLoop, self))

    def get_debug(self) -> bool:
        return False

    def turn(self) -> None:
        """Wait for one wake, and do what it asks for."""
        callback, args = self.wakes.get(timeout=PATIENCE)
        callback(*args)


class HeldDisk(Disk):
    """Writes wait while the gate is shut; `at_gate` tells that one does. `failure` is raised instead, while it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.at_gate = threading.Event()
        self.failure: Exception | None = None
        self.writes = 0

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        self._pass()
        super().write(descriptor, buffers, offset)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        self._pass()
        return super().write_synced(descriptor, buffers, offset)

    def _pass(self) -> None:
        self.writes += 1
        if not self.gate.is_set():
            self.at_gate.set()
            assert self.gate.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure


class Bench:
    """A worker with all that it needs, and what it told."""

    def __init__(self, path: Path, max_segment_bytes: int = 1 << 20) -> None:
        self.path = str(path)
        self.disk = HeldDisk()
        self.loop = FakeLoop()
        self.outcomes: list[Outcome] = []
        lock = Lock.take(self.disk, self.path)
        assert lock is not None
        self.lock = lock
        self.journal: Journal = recover(
            self.disk, self.path, max_segment_bytes=max_segment_bytes, new_store_id=bytes(16), now=1
        )[0]
        as_loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.worker = Worker(self.journal, lock, as_loop, Handoff(as_loop))

    def send(self, *payloads: bytes, sync: bool = True) -> None:
        self.worker.send(commit_of(*payloads, sync=sync), self.outcomes.append)

    def landed(self, count: int) -> list[Outcome]:
        """Wait for so many outcomes, and give all that came so far."""
        for _ in range(count):
            self.loop.turn()
        return self.outcomes

    def finish(self) -> Outcome:
        self.worker.finish(self.outcomes.append)
        self.loop.turn()
        assert self.worker.join(PATIENCE)
        return self.outcomes[-1]

    def is_unlocked(self) -> bool:
        lock = Lock.take(Disk(), self.path)
        if lock is not None:
            lock.release()
        return lock is not None

    def stored(self) -> int:
        """How many records are found in the files."""
        journal, report = recover(Disk(), self.path, max_segment_bytes=1 << 20, new_store_id=bytes(16), now=1)
        journal.drop()
        return report.next_sequence


def commit_of(*payloads: bytes, sync: bool = True) -> Commit[Any]:
    commit: Commit[Any] = Commit()
    fill(commit, payloads, sync)
    return commit


def fill(commit: Commit[Any], payloads: Sequence[bytes], sync: bool) -> None:
    commit.payloads += payloads
    commit.timestamps += [7] * len(payloads)
    commit.waiters += [None] * len(payloads)
    commit.size = sum(map(len, payloads))
    commit.stage = Stage.SYNCED if sync else Stage.FLUSHED
    commit.sync = sync


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A worker at work; it is ended with the test."""
    bench = Bench(tmp_path)
    yield bench
    bench.disk.gate.set()
    bench.worker.leave([])
    assert bench.worker.join(PATIENCE)


@pytest.fixture
def thread_errors(monkeypatch: pytest.MonkeyPatch) -> list[threading.ExceptHookArgs]:
    """What escapes from threads during the test."""
    escaped: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", escaped.append)
    return escaped


# jobs


def test_jobs_are_done_in_their_order(bench: Bench) -> None:
    """Commits sent while the disk is busy are written one after another, in the order in which they were sent."""
    bench.disk.gate.clear()
    for count in (1, 2, 3):
        bench.send(*[b"x"] * count)
    bench.disk.gate.set()
    outcomes = bench.landed(3)
    assert [outcome.next_sequence for outcome in outcomes if isinstance(outcome, Landing)] == [1, 3, 6]


def test_landing_tells_how_far_the_log_is_synced(bench: Bench) -> None:
    """A commit that owes no sync lands unsynced; the next one that does covers both."""
    bench.send(b"one", sync=False)
    bench.send(b"two", sync=True)
    first, second = bench.landed(2)
    assert isinstance(first, Landing)
    assert isinstance(second, Landing)
    assert (first.next_sequence, first.synced_sequence) == (1, 0)
    assert (second.next_sequence, second.synced_sequence) == (2, 2)


def test_commit_without_records_is_a_sync(bench: Bench) -> None:
    """An empty commit syncs what was written before, and adds nothing."""
    bench.send(b"one", sync=False)
    bench.send(sync=True)
    outcomes = bench.landed(2)
    assert outcomes[1] == Landing(1, 1, 1)


def test_large_commit_makes_one_wake(bench: Bench) -> None:
    """However many records it holds, a commit comes back with one call into the loop."""
    bench.send(*[b"x"] * 1000)
    bench.send(*[b"y"] * 1000)
    bench.landed(2)
    bench.finish()
    assert bench.loop.wakes.empty()
    assert len(bench.outcomes) == 3


def test_sender_does_not_wait(bench: Bench) -> None:
    """`send` returns while the disk still holds the commit."""
    bench.disk.gate.clear()
    bench.send(b"one")
    assert bench.disk.at_gate.wait(PATIENCE)
    assert bench.outcomes == []
    assert bench.loop.wakes.empty()


# the thread


def test_thread_of_the_worker(bench: Bench) -> None:
    """The thread is a daemon, so that a program that must stop does, and has a name to be found by."""
    assert bench.worker._thread.daemon
    assert bench.worker._thread.name == "aquipu"


def test_waiting_for_a_held_worker(bench: Bench) -> None:
    """`join` gives up after its time and says so."""
    bench.disk.gate.clear()
    bench.send(b"one")
    assert bench.disk.at_gate.wait(PATIENCE)
    assert not bench.worker.join(0.0)
    bench.disk.gate.set()
    bench.finish()
    assert bench.worker.join(0.0)


class Mortal(bytes):
    """Bytes that tell of their end."""

    gone: threading.Event

    def __del__(self) -> None:
        self.gone.set()


class TracedCommit(Commit[Any]):
    """A commit that tells of its end."""

    gone: threading.Event

    def __del__(self) -> None:
        self.gone.set()


@pytest.mark.parametrize("size", [10, 100_000], ids=["joined into the body", "handed over as it is"])
def test_idle_thread_keeps_no_record_alive(bench: Bench, size: int) -> None:
    """When a commit has come back and the thread waits for the next one, neither it nor its data is in memory."""
    commit, payload = TracedCommit(), Mortal(size)
    payload.gone = payload_gone = threading.Event()
    commit.gone = commit_gone = threading.Event()
    fill(commit, [payload], True)
    bench.worker.send(commit, bench.outcomes.append)
    del commit, payload
    bench.landed(1)
    assert commit_gone.wait(PATIENCE)
    assert payload_gone.wait(PATIENCE)


def test_thread_keeps_no_record_of_a_commit_without_space(bench: Bench) -> None:
    """A commit that found no space is let go of as well, once its error has been dropped."""
    commit = TracedCommit()
    commit.gone = gone = threading.Event()
    fill(commit, [b"one"], True)
    bench.disk.failure = OSError(ENOSPC, "No space left on device")
    bench.worker.send(commit, bench.outcomes.append)
    del commit
    assert isinstance(bench.landed(1)[0], StoreFullError)
    bench.outcomes.clear()
    bench.disk.failure = None
    assert gone.wait(PATIENCE)


# failures


def test_no_space_is_told_and_the_next_commit_is_written(bench: Bench) -> None:
    """A full disk refuses one commit; the worker goes on with the next."""
    bench.disk.failure = OSError(ENOSPC, "No space left on device")
    bench.send(b"one")
    bench.landed(1)
    bench.disk.failure = None
    bench.send(b"two")
    first, second = bench.landed(1)
    assert isinstance(first, StoreFullError)
    assert isinstance(second, Landing)
    assert second.next_sequence == 1


def test_failed_write_poisons(bench: Bench) -> None:
    """After an error of the disk every later commit is refused, and the disk is not touched again."""
    bench.disk.failure = OSError(EIO, "Input/output error")
    bench.send(b"one")
    bench.landed(1)
    bench.disk.failure = None
    writes = bench.disk.writes
    bench.send(b"two")
    first, second = bench.landed(1)
    assert isinstance(first, StoreFailedError)
    assert isinstance(second, StoreFailedError)
    assert first is not second
    assert isinstance(bench.finish(), StoreFailedError)
    assert bench.disk.writes == writes
    assert bench.is_unlocked()


@pytest.mark.parametrize("step", ["prepare", "write"])
def test_unexpected_error_poisons_and_is_told(
    bench: Bench, step: str, monkeypatch: pytest.MonkeyPatch, thread_errors: list[threading.ExceptHookArgs]
) -> None:
    """A defect, or no memory, leaves nobody waiting: its callers are told, and so are all who come after."""
    defect = MemoryError("out of memory")
    raised = [defect]
    whole = getattr(bench.journal, step)

    def broken(*arguments: Any) -> Any:
        if raised:
            raise raised.pop()
        return whole(*arguments)

    monkeypatch.setattr(bench.journal, step, broken)
    bench.send(b"one")
    bench.send(b"two")
    first, second = bench.landed(2)
    assert isinstance(first, StoreFailedError)
    assert first.__cause__ is defect
    assert isinstance(second, StoreFailedError)
    assert isinstance(bench.finish(), StoreFailedError)
    assert bench.is_unlocked()
    assert thread_errors == []


def test_unexpected_error_between_commits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, thread_errors: list[threading.ExceptHookArgs]
) -> None:
    """A defect after a commit has landed, as while rolling, does not end the thread: the next commit is told."""

    def broken() -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr(bench.journal, "tidy", broken)
    bench.send(b"one")
    bench.landed(1)
    bench.send(b"two")
    first, second = bench.landed(1)
    assert isinstance(first, Landing)
    assert isinstance(second, StoreFailedError)
    assert isinstance(bench.finish(), StoreFailedError)
    assert bench.is_unlocked()
    assert thread_errors == []


def test_unexpected_error_while_closing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, thread_errors: list[threading.ExceptHookArgs]
) -> None:
    """A defect while closing is told to who closes, and the lock is released all the same."""

    def broken() -> Landing:
        raise ValueError("a defect")

    monkeypatch.setattr(bench.journal, "close", broken)
    outcome = bench.finish()
    assert isinstance(outcome, StoreFailedError)
    assert "a defect" in str(outcome)
    assert bench.is_unlocked()
    assert thread_errors == []
    bench.journal.drop()


def test_error_while_letting_go_of_the_lock(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, thread_errors: list[threading.ExceptHookArgs]
) -> None:
    """Who closes is told also when the system reports an error for the lock file."""
    release = bench.lock.release

    def broken() -> None:
        release()
        raise OSError(EIO, "Input/output error")

    monkeypatch.setattr(bench.lock, "release", broken)
    bench.finish()
    assert bench.is_unlocked()
    assert thread_errors == []


def test_failed_roll_is_told_to_the_next_commit(tmp_path: Path, thread_errors: list[threading.ExceptHookArgs]) -> None:
    """A roll that fails has no caller of its own; the next commit hears of it."""
    bench = Bench(tmp_path, max_segment_bytes=4096)
    bench.disk.gate.clear()
    bench.send(bytes(5000))
    assert bench.disk.at_gate.wait(PATIENCE)
    bench.disk.rename = _refuse  # type: ignore[method-assign]
    bench.disk.gate.set()
    bench.send(b"two")
    first, second = bench.landed(2)
    assert isinstance(first, Landing)
    assert isinstance(second, StoreFailedError)
    bench.finish()
    assert thread_errors == []


def _refuse(old: str, new: str) -> None:
    raise OSError(EIO, "Input/output error")


# the end


def test_finish_writes_all_that_was_sent(bench: Bench) -> None:
    """What was sent before is written; then the journal is closed, the lock free and the thread at its end."""
    for number in range(5):
        bench.send(b"%d" % number, sync=False)
    bench.worker.finish(bench.outcomes.append)
    outcomes = bench.landed(6)
    assert bench.worker.join(PATIENCE)
    last = outcomes[-1]
    assert isinstance(last, Landing)
    assert (last.next_sequence, last.synced_sequence) == (5, 5)
    assert bench.is_unlocked()
    assert bench.worker not in _living
    assert bench.stored() == 5


def test_lock_is_free_when_the_end_is_told(bench: Bench) -> None:
    """Who is told that the worker has finished can open the store again at once."""
    unlocked: list[bool] = []
    bench.worker.finish(lambda outcome: unlocked.append(bench.is_unlocked()))
    bench.loop.turn()
    assert unlocked == [True]


def test_leave_tells_nobody(bench: Bench) -> None:
    """Without a loop the rest is written all the same, and nobody is woken for it."""
    bench.worker.leave([commit_of(b"one"), commit_of(b"two", b"three")])
    assert bench.worker.join(PATIENCE)
    assert bench.loop.wakes.empty()
    assert bench.is_unlocked()
    assert bench.stored() == 3


def test_leave_comes_after_what_was_sent(bench: Bench) -> None:
    """Commits that were sent before keep their place, and their callers are told."""
    bench.disk.gate.clear()
    bench.send(b"sent")
    bench.worker.leave([commit_of(b"left")])
    bench.disk.gate.set()
    bench.landed(1)
    assert bench.worker.join(PATIENCE)
    assert bench.stored() == 2
    assert len(bench.outcomes) == 1


def test_loop_closed_under_the_worker(bench: Bench, thread_errors: list[threading.ExceptHookArgs]) -> None:
    """A loop that is gone raises nothing in the thread: it writes what it was given, and ends when it is told to."""
    bench.disk.gate.clear()
    bench.send(b"one")
    bench.send(b"two")
    bench.loop.closed = True
    bench.disk.gate.set()
    bench.worker.finish(bench.outcomes.append)
    assert bench.worker.join(PATIENCE)
    assert thread_errors == []
    assert bench.outcomes == []
    assert bench.is_unlocked()
    assert bench.stored() == 2


def test_worker_is_waited_for_at_exit_while_it_lives(bench: Bench) -> None:
    """The exit of the interpreter knows each worker that has not ended."""
    assert bench.worker in _living
    bench.finish()
    assert bench.worker not in _living


# what is not a commit


def _note(bench: Bench, outcome: int | AquipuError) -> None:
    assert not isinstance(outcome, int)
    bench.outcomes.append(outcome)


def test_other_work_takes_its_turn(bench: Bench) -> None:
    """It is done between the commits that were sent before and behind it, and what it gives comes back in one wake."""
    bench.disk.gate.clear()
    bench.send(b"one")
    told: list[int | AquipuError] = []
    bench.worker.ask(lambda journal: journal.next_sequence, told.append)
    bench.send(b"two")
    bench.disk.gate.set()
    bench.landed(3)
    assert told == [1]
    assert len(bench.outcomes) == 2


@pytest.mark.parametrize("error", [StoreFullError("s", None, "no space"), StoreFailedError("s", "reason")])
def test_an_error_of_other_work_is_told(bench: Bench, error: AquipuError) -> None:
    """An error of the tree comes back as it is; the worker goes on."""

    def fail(journal: Journal) -> int:
        raise error

    bench.worker.ask(fail, partial(_note, bench))
    bench.send(b"one")
    assert bench.landed(2) == [error, Landing(1, 1, 1)]


def test_a_defect_in_other_work_poisons(bench: Bench) -> None:
    """Whatever it was, nobody is left waiting, and the journal is not trusted any more."""
    bench.worker.ask(lambda journal: 1 // 0, partial(_note, bench))
    bench.send(b"one")
    assert [type(outcome) for outcome in bench.landed(2)] == [StoreFailedError, StoreFailedError]


def test_files_go_when_nothing_else_is_to_be_done(tmp_path: Path) -> None:
    """What a purge has let go of is removed without anybody asking for it."""
    bench = Bench(tmp_path, max_segment_bytes=4096)
    for _ in range(4):
        bench.send(bytes(4096))
    bench.worker.ask(lambda journal: journal.purge(before=3), lambda purged: None)
    bench.landed(5)
    idle = threading.Event()
    sweep = bench.journal.sweep

    def swept() -> bool:
        more = sweep()
        if not more:
            idle.set()
        return more

    bench.journal.sweep = swept  # type: ignore[method-assign]
    bench.worker.ask(lambda journal: None, lambda nothing: None)
    bench.landed(1)
    assert idle.wait(PATIENCE)
    assert [path.stem for path in sorted(tmp_path.glob("*.segment"))] == [f"{first:020d}" for first in (3, 4)]
    bench.finish()
