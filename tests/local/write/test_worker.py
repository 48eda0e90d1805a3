"""The room `worker`: one thread, jobs in order, one wake per commit, and nobody left waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from errno import EIO, ENOSPC
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, cast

import pytest

from aquipu.engine import Commit, CommitResult
from aquipu.errors import AquipuError, StoreFailedError, StoreFullError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock
from aquipu.local.write import worker as room
from aquipu.local.write.journal import Journal
from aquipu.local.write.recovery import recover
from aquipu.local.write.worker import Worker, _living
from aquipu.policy import Stage
from aquipu.runtime import exit as ending
from aquipu.runtime.handoff import Handoff
from tests.disk import WRITES, FailingDisk

PATIENCE = 20.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""

Outcome = CommitResult | AquipuError


class FakeLoop:
    """Keeps what a thread wants called in the loop; the test calls it, on its own thread."""

    def __init__(self) -> None:
        self.wakes: SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]] = SimpleQueue()
        self.closed = False

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.wakes.put((callback, args))

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object
    ) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(delay, callback, args, cast(asyncio.AbstractEventLoop, self))

    def get_debug(self) -> bool:
        return False

    def turn(self) -> None:
        """Wait for one wake, and do what it asks for."""
        callback, args = self.wakes.get(timeout=PATIENCE)
        callback(*args)


class Bench:
    """A worker with all that it needs, and what it told."""

    def __init__(
        self, path: Path, max_segment_bytes: int = 1 << 20, patience: float | None = None
    ) -> None:
        self.path = str(path)
        self.disk = FailingDisk()
        self.loop = FakeLoop()
        self.outcomes: list[Outcome] = []
        lock = Lock.take(self.disk, self.path)
        assert lock is not None
        self.lock = lock
        self.journal: Journal = recover(
            self.disk, self.path, max_segment_bytes=max_segment_bytes, new_store_id=bytes(16), now=1
        )[0]
        as_loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.worker = Worker(self.journal, lock, as_loop, Handoff(as_loop), patience)

    def send(self, *payloads: bytes, sync: bool = True) -> None:
        self.worker.send(commit_of(*payloads, sync=sync), self.outcomes.append)

    def completed(self, count: int) -> list[Outcome]:
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
        journal, report = recover(
            Disk(), self.path, max_segment_bytes=1 << 20, new_store_id=bytes(16), now=1
        )
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
    bench.disk.mend()
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
    """Commits sent while the disk is busy are written one after another, in the order in which they
    were sent.
    """
    hold = bench.disk.hold(WRITES)
    for count in (1, 2, 3):
        bench.send(*[b"x"] * count)
    hold.released.set()
    outcomes = bench.completed(3)
    assert [outcome.next_sequence for outcome in outcomes if isinstance(outcome, CommitResult)] == [
        1,
        3,
        6,
    ]


def test_result_says_how_far_the_log_is_synced(bench: Bench) -> None:
    """A commit that owes no sync stays unsynced; the next one that does covers both."""
    bench.send(b"one", sync=False)
    bench.send(b"two", sync=True)
    first, second = bench.completed(2)
    assert isinstance(first, CommitResult)
    assert isinstance(second, CommitResult)
    assert (first.next_sequence, first.synced_sequence) == (1, 0)
    assert (second.next_sequence, second.synced_sequence) == (2, 2)


def test_commit_without_records_is_a_sync(bench: Bench) -> None:
    """An empty commit syncs what was written before, and adds nothing."""
    bench.send(b"one", sync=False)
    bench.send(sync=True)
    outcomes = bench.completed(2)
    assert outcomes[1] == CommitResult(1, 1, 1)


def test_large_commit_makes_one_wake(bench: Bench) -> None:
    """However many records it holds, a commit comes back with one call into the loop."""
    bench.send(*[b"x"] * 1000)
    bench.send(*[b"y"] * 1000)
    bench.completed(2)
    bench.finish()
    assert bench.loop.wakes.empty()
    assert len(bench.outcomes) == 3


def test_sender_does_not_wait(bench: Bench) -> None:
    """`send` returns while the disk still holds the commit."""
    hold = bench.disk.hold(WRITES)
    bench.send(b"one")
    assert hold.reached.wait(PATIENCE)
    assert bench.outcomes == []
    assert bench.loop.wakes.empty()


# the thread


def test_thread_of_the_worker(bench: Bench) -> None:
    """The thread is a daemon, so that a program that must stop does, and has a name."""
    assert bench.worker._thread.daemon
    assert bench.worker._thread.name == "aquipu"


def test_waiting_for_a_held_worker(bench: Bench) -> None:
    """`join` gives up after its time and says so."""
    hold = bench.disk.hold(WRITES)
    bench.send(b"one")
    assert hold.reached.wait(PATIENCE)
    assert not bench.worker.join(0.0)
    hold.released.set()
    bench.finish()
    assert bench.worker.join(0.0)


class TracedBytes(bytes):
    """Bytes that tell of their end."""

    gone: threading.Event

    def __del__(self) -> None:
        self.gone.set()


class TracedCommit(Commit[Any]):
    """A commit that tells of its end."""

    gone: threading.Event

    def __del__(self) -> None:
        self.gone.set()


@pytest.mark.parametrize(
    "size", [10, 100_000], ids=["joined into the body", "handed over as it is"]
)
def test_idle_thread_keeps_no_record_alive(bench: Bench, size: int) -> None:
    """When a commit has come back and the thread waits for the next one, neither it nor its data is
    in memory.
    """
    commit, payload = TracedCommit(), TracedBytes(size)
    payload.gone = payload_gone = threading.Event()
    commit.gone = commit_gone = threading.Event()
    fill(commit, [payload], True)
    bench.worker.send(commit, bench.outcomes.append)
    del commit, payload
    bench.completed(1)
    assert commit_gone.wait(PATIENCE)
    assert payload_gone.wait(PATIENCE)


def test_thread_keeps_no_record_of_a_commit_without_space(bench: Bench) -> None:
    """A commit that found no space is let go of as well, once its error has been dropped."""
    commit = TracedCommit()
    commit.gone = gone = threading.Event()
    fill(commit, [b"one"], True)
    bench.disk.fail(WRITES, ENOSPC, forever=True)
    bench.worker.send(commit, bench.outcomes.append)
    del commit
    assert isinstance(bench.completed(1)[0], StoreFullError)
    bench.outcomes.clear()
    bench.disk.mend()
    assert gone.wait(PATIENCE)


# failures


def test_no_space_is_an_outcome_and_the_next_commit_is_written(bench: Bench) -> None:
    """A full disk refuses one commit; the worker goes on with the next."""
    bench.disk.fail(WRITES, ENOSPC, forever=True)
    bench.send(b"one")
    bench.completed(1)
    bench.disk.mend()
    bench.send(b"two")
    first, second = bench.completed(1)
    assert isinstance(first, StoreFullError)
    assert isinstance(second, CommitResult)
    assert second.next_sequence == 1


def test_failed_write_poisons(bench: Bench) -> None:
    """After an error of the disk every later commit is refused, and the disk is left alone."""
    bench.disk.fail(WRITES, EIO, forever=True)
    bench.send(b"one")
    bench.completed(1)
    bench.disk.mend()
    writes = bench.disk.count(*WRITES)
    bench.send(b"two")
    first, second = bench.completed(1)
    assert isinstance(first, StoreFailedError)
    assert isinstance(second, StoreFailedError)
    assert first is not second
    assert isinstance(bench.finish(), StoreFailedError)
    assert bench.disk.count(*WRITES) == writes
    assert bench.is_unlocked()


@pytest.mark.parametrize("step", ["prepare", "write"])
def test_unexpected_error_poisons_and_is_the_outcome(
    bench: Bench,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
    thread_errors: list[threading.ExceptHookArgs],
) -> None:
    """A defect, or no memory, leaves nobody waiting: its callers are told, and so are all who come
    after.
    """
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
    first, second = bench.completed(2)
    assert isinstance(first, StoreFailedError)
    assert first.__cause__ is defect
    assert isinstance(second, StoreFailedError)
    assert isinstance(bench.finish(), StoreFailedError)
    assert bench.is_unlocked()
    assert thread_errors == []


def test_unexpected_error_between_commits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, thread_errors: list[threading.ExceptHookArgs]
) -> None:
    """A defect after a commit has completed, as while rolling, does not end the thread: the next
    commit is told.
    """

    def broken() -> None:
        raise MemoryError("out of memory")

    monkeypatch.setattr(bench.journal, "maintain", broken)
    bench.send(b"one")
    bench.completed(1)
    bench.send(b"two")
    first, second = bench.completed(1)
    assert isinstance(first, CommitResult)
    assert isinstance(second, StoreFailedError)
    assert isinstance(bench.finish(), StoreFailedError)
    assert bench.is_unlocked()
    assert thread_errors == []


def test_unexpected_error_while_closing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, thread_errors: list[threading.ExceptHookArgs]
) -> None:
    """A defect while closing is told to who closes, and the lock is released all the same."""

    def broken() -> CommitResult:
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


def test_failed_roll_is_the_outcome_of_the_next_commit(
    tmp_path: Path, thread_errors: list[threading.ExceptHookArgs]
) -> None:
    """A roll that fails has no caller of its own; the next commit hears of it."""
    bench = Bench(tmp_path, max_segment_bytes=4096)
    hold = bench.disk.hold(WRITES)
    bench.send(bytes(5000))
    assert hold.reached.wait(PATIENCE)
    bench.disk.fail("rename", EIO)
    hold.released.set()
    bench.send(b"two")
    first, second = bench.completed(2)
    assert isinstance(first, CommitResult)
    assert isinstance(second, StoreFailedError)
    bench.finish()
    assert thread_errors == []


# the end


def test_finish_writes_all_that_was_sent(bench: Bench) -> None:
    """What was sent before is written; then the journal is closed, the lock free and the thread at
    its end.
    """
    for number in range(5):
        bench.send(b"%d" % number, sync=False)
    bench.worker.finish(bench.outcomes.append)
    outcomes = bench.completed(6)
    assert bench.worker.join(PATIENCE)
    last = outcomes[-1]
    assert isinstance(last, CommitResult)
    assert (last.next_sequence, last.synced_sequence) == (5, 5)
    assert bench.is_unlocked()
    assert bench.worker not in _living
    assert bench.stored() == 5


def test_lock_is_free_when_the_end_is_known(bench: Bench) -> None:
    """Who is told that the worker has finished can open the store again at once."""
    unlocked: list[bool] = []
    bench.worker.finish(lambda outcome: unlocked.append(bench.is_unlocked()))
    bench.loop.turn()
    assert unlocked == [True]


def test_leave_calls_nothing_back(bench: Bench) -> None:
    """Without a loop the rest is written all the same, and nobody is woken for it."""
    bench.worker.leave([commit_of(b"one"), commit_of(b"two", b"three")])
    assert bench.worker.join(PATIENCE)
    assert bench.loop.wakes.empty()
    assert bench.is_unlocked()
    assert bench.stored() == 3


def test_leave_comes_after_what_was_sent(bench: Bench) -> None:
    """Commits that were sent before keep their place, and their callers are told."""
    hold = bench.disk.hold(WRITES)
    bench.send(b"sent")
    bench.worker.leave([commit_of(b"left")])
    hold.released.set()
    bench.completed(1)
    assert bench.worker.join(PATIENCE)
    assert bench.stored() == 2
    assert len(bench.outcomes) == 1


def test_loop_closed_under_the_worker(
    bench: Bench, thread_errors: list[threading.ExceptHookArgs]
) -> None:
    """A loop that is gone raises nothing in the thread: it writes what it was given, and ends when
    it is told to.
    """
    hold = bench.disk.hold(WRITES)
    bench.send(b"one")
    bench.send(b"two")
    bench.loop.closed = True
    hold.released.set()
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
    """It is done between the commits that were sent before and behind it, and what it gives comes
    back in one wake.
    """
    hold = bench.disk.hold(WRITES)
    bench.send(b"one")
    told: list[int | AquipuError] = []
    bench.worker.ask(lambda journal: journal.next_sequence, told.append)
    bench.send(b"two")
    hold.released.set()
    bench.completed(3)
    assert told == [1]
    assert len(bench.outcomes) == 2


@pytest.mark.parametrize(
    "error", [StoreFullError("s", None, "no space"), StoreFailedError("s", "reason")]
)
def test_an_error_of_other_work_is_its_outcome(bench: Bench, error: AquipuError) -> None:
    """An error of the tree comes back as it is; the worker goes on."""

    def fail(journal: Journal) -> int:
        raise error

    bench.worker.ask(fail, partial(_note, bench))
    bench.send(b"one")
    assert bench.completed(2) == [error, CommitResult(1, 1, 1)]


def test_a_defect_in_other_work_poisons(bench: Bench) -> None:
    """Whatever it was, nobody is left waiting, and the journal is not trusted any more."""
    bench.worker.ask(lambda journal: 1 // 0, partial(_note, bench))
    bench.send(b"one")
    assert [type(outcome) for outcome in bench.completed(2)] == [StoreFailedError, StoreFailedError]


def test_files_go_when_nothing_else_is_to_be_done(tmp_path: Path) -> None:
    """What a purge has let go of is removed without anybody asking for it."""
    bench = Bench(tmp_path, max_segment_bytes=4096)
    for _ in range(4):
        bench.send(bytes(4096))
    bench.worker.ask(lambda journal: journal.purge(before=3), lambda purged: None)
    bench.completed(5)
    idle = threading.Event()
    delete = bench.journal.delete_dropped

    def swept() -> bool:
        more = delete()
        if not more:
            idle.set()
        return more

    bench.journal.delete_dropped = swept  # type: ignore[method-assign]
    bench.worker.ask(lambda journal: None, lambda nothing: None)
    bench.completed(1)
    assert idle.wait(PATIENCE)
    assert [path.stem for path in sorted(tmp_path.glob("*.segment"))] == [
        f"{first:020d}" for first in (3, 4)
    ]
    bench.finish()


# what is due between two jobs


def test_woken_many_times(bench: Bench) -> None:
    """A thread that is at work is woken once, however often it is asked; and again when it has
    heard of it.
    """
    for _ in range(2):
        hold = bench.disk.hold(WRITES)
        bench.send(b"record")
        assert hold.reached.wait(PATIENCE)
        for _ in range(3):
            bench.worker.wake()
        assert bench.worker._inbox.qsize() == 1
        hold.released.set()
        bench.worker.ask(lambda journal: None, lambda outcome: None)  # comes behind the waking
        bench.completed(2)


def test_since_when_the_thread_is_at_work(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's latency says it while a job is done; before, between two and at the end there
    is none.
    """
    idle: SimpleQueue[int] = SimpleQueue()
    latency = bench.journal.latency
    monkeypatch.setattr(bench.journal, "delete_dropped", lambda: idle.put(latency.since))
    heard: list[int | AquipuError] = []
    for _ in range(3):
        bench.worker.ask(lambda journal: journal.latency.since, heard.append)
        bench.completed(1)
        assert idle.get(timeout=PATIENCE) == 0
    assert all(isinstance(since, int) and since > 0 for since in heard)
    bench.finish()
    assert latency.since == 0


class TimedInbox(SimpleQueue[Any]):
    """Notes how long the thread would wait for a job."""

    waits: ClassVar[SimpleQueue[float | None]]

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        self.waits.put(timeout)
        if timeout == 0:
            raise Empty
        return super().get(block)


def test_how_long_the_thread_waits_for_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a record that is not synced, until the patience since then is over, whatever comes
    meanwhile; then it syncs.
    """
    now = [1000.0]
    waits: SimpleQueue[float | None] = SimpleQueue()
    TimedInbox.waits = waits
    monkeypatch.setattr(room, "SimpleQueue", TimedInbox)
    monkeypatch.setattr(room, "monotonic", lambda: now[0])
    bench = Bench(tmp_path, patience=5.0)
    assert waits.get(timeout=PATIENCE) is None
    bench.send(b"record", sync=False)
    assert waits.get(timeout=PATIENCE) == 5.0
    now[0] = 1003.0
    bench.send(b"record", sync=False)
    assert waits.get(timeout=PATIENCE) == 2.0
    now[0] = 1010.0
    bench.send(b"record", sync=False)
    assert waits.get(timeout=PATIENCE) == 0
    assert waits.get(timeout=PATIENCE) is None  # it was synced
    assert not bench.journal.is_unsynced
    assert bench.journal.synced_sequence == 3
    bench.completed(3)
    bench.finish()


def test_a_patience_longer_than_a_thread_can_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread waits for as long as the system lets it."""
    waits: SimpleQueue[float | None] = SimpleQueue()
    TimedInbox.waits = waits
    monkeypatch.setattr(room, "SimpleQueue", TimedInbox)
    bench = Bench(tmp_path, patience=1e12)
    bench.send(b"record", sync=False)
    bench.completed(1)
    assert [waits.get(timeout=PATIENCE) for _ in range(2)] == [None, threading.TIMEOUT_MAX]
    bench.finish()


# the exit of the interpreter


class LateWorker:
    """One that ends after so many seconds of being waited for."""

    def __init__(self, name: str, seconds: float, now: list[float], steps: list[object]) -> None:
        self.path = name
        self._seconds = seconds
        self._now = now
        self._steps = steps

    def join(self, seconds: float) -> bool:
        self._steps.append((self.path, seconds))
        waited = min(seconds, self._seconds)
        self._now[0] += waited
        self._seconds -= waited
        return self._seconds == 0


def test_workers_are_waited_for_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the exit all that is to be left is left, then all workers have four seconds together; who
    needs more is named.
    """
    now, steps = [1000.0], list[object]()
    lates = [
        LateWorker(name, seconds, now, steps)
        for name, seconds in (("one", 1.0), ("two", 3.5), ("three", 0.0))
    ]
    monkeypatch.setattr(room, "monotonic", lambda: now[0])
    monkeypatch.setattr(ending, "monotonic", lambda: now[0])
    monkeypatch.setattr(ending, "_ending", [])
    monkeypatch.setattr(room, "_living", lates)
    monkeypatch.setattr(ending, "_leaving", [])
    ending.before_exit(lambda: steps.append("first"))
    ending.before_exit(lambda: steps.append("second"))
    ending._drain()
    assert steps == ["first", "second", ("one", 4.0), ("two", 3.0), ("three", 0)]
    (said,) = caplog.messages
    assert said.startswith("two was not closed")


def test_leaving_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers are waited for all the same."""
    steps: list[object] = []
    monkeypatch.setattr(room, "_living", [LateWorker("one", 0.0, [0.0], steps)])
    monkeypatch.setattr(ending, "_ending", [])
    monkeypatch.setattr(ending, "_leaving", [])

    def fail() -> None:
        raise ValueError("of the program")

    ending.before_exit(fail)
    with pytest.raises(ValueError, match="of the program"):
        ending._drain()
    assert len(steps) == 1
