"""The room `handoff`: a timer only while a job is under way, waiting only on a loop that never
rests.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVarTuple, cast

import pytest

from aquipu import Always, Store
from aquipu.runtime import handoff
from aquipu.runtime.handoff import Handoff

Ts = TypeVarTuple("Ts")


class FakeLoop:
    """Keeps every timer that it is asked for and fires none by itself."""

    def __init__(self) -> None:
        self.timers: list[asyncio.TimerHandle] = []
        self.delays: list[float] = []

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: object
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(delay, callback, args, self.as_loop)
        self.timers.append(timer)
        self.delays.append(delay)
        return timer

    @property
    def as_loop(self) -> asyncio.AbstractEventLoop:
        return cast(asyncio.AbstractEventLoop, self)

    @property
    def armed(self) -> list[asyncio.TimerHandle]:
        return [timer for timer in self.timers if not timer.cancelled()]

    def fire(self) -> None:
        """Let the last timer go off; it counts as armed no longer."""
        (timer,) = self.armed
        timer._run()
        timer.cancel()

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass


class Clock:
    """Stands in for the two clocks of the room: the time that passed, and the part of it that was
    computing.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.computed = 10.0

    def pass_time(self, seconds: float, *, computing: float) -> None:
        self.now += seconds
        self.computed += seconds * computing


class Latch:
    """A lock that remembers how it was used.

    It refuses to be released when nobody holds it, as a real one does.
    """

    def __init__(self) -> None:
        self.waits: list[tuple[float, bool]] = []
        """Of each wait its bound in seconds, and whether the sign came in time."""
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens elsewhere during a wait."""
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not blocking:
            return self._lock.acquire(blocking=False)
        self.meanwhile()
        taken = self._lock.acquire(timeout=timeout)
        self.waits.append((timeout, taken))
        return taken

    def release(self) -> None:
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(handoff, "monotonic", lambda: clock.now)
    monkeypatch.setattr(handoff, "thread_time", lambda: clock.computed)
    return clock


@pytest.fixture
def give_way(loop: FakeLoop, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Handoff:
    """A hand-off whose two locks can be looked into."""
    monkeypatch.setattr(handoff, "Lock", Latch)
    return Handoff(loop.as_loop)


def entered_of(give_way: Handoff) -> Latch:
    latch: Any = give_way._entered
    assert isinstance(latch, Latch)
    return latch


def done_of(give_way: Handoff) -> Latch:
    latch: Any = give_way._done
    assert isinstance(latch, Latch)
    return latch


def saturate(give_way: Handoff, loop: FakeLoop, clock: Clock) -> None:
    """A job comes back after a probe that found the loop computing all the while."""
    give_way.begin()
    clock.pass_time(0.001, computing=1.0)
    loop.fire()
    give_way.end()


# the probe


def test_no_job_under_way(loop: FakeLoop, give_way: Handoff) -> None:
    """Before the first job there is no timer."""
    assert loop.timers == []
    assert not give_way.saturated


def test_one_job_there_and_back(loop: FakeLoop, give_way: Handoff) -> None:
    """A job under way has one timer, of a millisecond, and none is left when it is back."""
    give_way.begin()
    assert [timer.when() for timer in loop.armed] == [0.001]
    give_way.end()
    assert loop.armed == []


def test_several_jobs_at_once_share_one_timer(loop: FakeLoop, give_way: Handoff) -> None:
    """However many jobs are under way, one timer runs, until the last of them is back."""
    give_way.begin()
    give_way.begin()
    assert len(loop.timers) == 1
    give_way.end()
    assert len(loop.armed) == 1
    give_way.end()
    assert loop.armed == []
    assert len(loop.timers) == 1


def test_long_job_on_a_resting_loop(loop: FakeLoop, clock: Clock, give_way: Handoff) -> None:
    """A probe that finds the loop at rest waits for nothing."""
    give_way.begin()
    clock.pass_time(0.001, computing=0.4)
    loop.fire()
    assert not give_way.saturated
    assert done_of(give_way).waits == []
    assert len(loop.armed) == 1


def test_long_job_is_probed_less_and_less_often(
    loop: FakeLoop, clock: Clock, give_way: Handoff
) -> None:
    """Each probe doubles the pause before the next one, up to 8 ms; the next job begins at a
    millisecond again.
    """
    give_way.begin()
    for _ in range(6):
        clock.pass_time(0.001, computing=0.0)
        loop.fire()
    give_way.end()
    give_way.begin()
    assert loop.delays == [0.001, 0.002, 0.004, 0.008, 0.008, 0.008, 0.008, 0.001]


def test_job_back_while_probes_are_running(loop: FakeLoop, clock: Clock, give_way: Handoff) -> None:
    """Also the timer that a probe has armed anew is cancelled when the job comes back."""
    give_way.begin()
    clock.pass_time(0.001, computing=1.0)
    loop.fire()
    assert len(loop.armed) == 1
    give_way.end()
    assert loop.armed == []


def test_loop_that_computed_all_the_while(loop: FakeLoop, clock: Clock, give_way: Handoff) -> None:
    """A probe that finds the loop computing most of the time calls it saturated, and waits at most
    0.2 ms.
    """
    give_way.begin()
    clock.pass_time(0.001, computing=0.6)
    loop.fire()
    assert give_way.saturated
    assert done_of(give_way).waits == [(0.0002, False)]


def test_each_probe_measures_its_own_stretch(
    loop: FakeLoop, clock: Clock, give_way: Handoff
) -> None:
    """What was computed before the last probe does not count for the next one."""
    give_way.begin()
    clock.pass_time(0.01, computing=1.0)
    loop.fire()
    clock.pass_time(0.001, computing=0.0)
    loop.fire()
    assert len(done_of(give_way).waits) == 1


def test_sign_that_a_job_is_done_ends_the_wait(
    loop: FakeLoop, clock: Clock, give_way: Handoff
) -> None:
    """The loop waits no longer than until the thread has told what came of its job."""
    done_of(give_way).meanwhile = give_way.done
    give_way.begin()
    clock.pass_time(0.001, computing=1.0)
    loop.fire()
    assert done_of(give_way).waits == [(0.0002, True)]


def test_job_back_before_any_probe_ends_saturation(
    loop: FakeLoop, clock: Clock, give_way: Handoff
) -> None:
    """A job that comes back before any probe went off shows that the loop rests again."""
    saturate(give_way, loop, clock)
    assert give_way.saturated
    give_way.begin()
    give_way.end()
    assert not give_way.saturated


def test_job_back_after_a_busy_probe_keeps_saturation(
    loop: FakeLoop, clock: Clock, give_way: Handoff
) -> None:
    """As long as the probes find the loop busy, it stays saturated from job to job."""
    saturate(give_way, loop, clock)
    saturate(give_way, loop, clock)
    assert give_way.saturated


def test_job_back_after_a_probe_at_rest_ends_saturation(
    loop: FakeLoop, clock: Clock, give_way: Handoff
) -> None:
    """A probe that went off and found the loop at rest keeps nothing alive."""
    saturate(give_way, loop, clock)
    give_way.begin()
    clock.pass_time(0.001, computing=0.1)
    loop.fire()
    give_way.end()
    assert not give_way.saturated


# the system call


def test_hand_over_on_a_resting_loop(loop: FakeLoop, give_way: Handoff) -> None:
    """On a loop that rests, handing over touches no lock and does not wait."""
    given: list[str] = []
    give_way.hand_over(given.append, "job")
    assert given == ["job"]
    assert entered_of(give_way).waits == []
    assert not entered_of(give_way).locked()
    assert len(loop.armed) == 1


def test_hand_over_on_a_saturated_loop(loop: FakeLoop, clock: Clock, give_way: Handoff) -> None:
    """On a saturated loop, handing over waits until the thread is at its system call."""
    saturate(give_way, loop, clock)
    give_way.hand_over(lambda job: give_way.entering_syscall(), "job")
    assert entered_of(give_way).waits == [(0.001, True)]
    assert len(loop.armed) == 1


def test_thread_that_does_not_take_off(loop: FakeLoop, clock: Clock, give_way: Handoff) -> None:
    """A thread that gives no sign holds the loop up for a millisecond, not for ever."""
    saturate(give_way, loop, clock)
    give_way.hand_over(lambda job: None, "job")
    assert entered_of(give_way).waits == [(0.001, False)]


def test_lock_is_taken_before_the_job_is_given(
    loop: FakeLoop, clock: Clock, give_way: Handoff
) -> None:
    """A thread that is at its system call at once is not missed: the lock is held when it gets the
    job.
    """
    saturate(give_way, loop, clock)
    held: list[bool] = []
    give_way.hand_over(lambda job: held.append(entered_of(give_way).locked()), "job")
    assert held == [True]


# the locks


def test_signs_that_nobody_waits_for(give_way: Handoff) -> None:
    """A sign without a wait is no error, however often it comes, and leaves the lock free."""
    for _ in range(3):
        give_way.entering_syscall()
        give_way.done()
    assert not entered_of(give_way).locked()
    assert not done_of(give_way).locked()


def test_signs_before_a_wait_do_not_end_it(loop: FakeLoop, clock: Clock, give_way: Handoff) -> None:
    """Signs do not add up: a wait ends with a sign that comes after the job was given, or with its
    time.
    """
    saturate(give_way, loop, clock)
    for _ in range(3):
        give_way.entering_syscall()
    give_way.hand_over(lambda job: None, "job")
    assert entered_of(give_way).waits == [(0.001, False)]


def test_sign_that_comes_too_late(loop: FakeLoop, clock: Clock, give_way: Handoff) -> None:
    """After a wait that ended with its time, late signs are no error, and the next wait works as
    the first did.
    """
    saturate(give_way, loop, clock)
    give_way.hand_over(lambda job: None, "slow")
    give_way.entering_syscall()
    give_way.entering_syscall()
    give_way.hand_over(lambda job: give_way.entering_syscall(), "prompt")
    assert entered_of(give_way).waits == [(0.001, False), (0.001, True)]


def test_two_jobs_without_a_sign(loop: FakeLoop, clock: Clock, give_way: Handoff) -> None:
    """A lock that is still held from the job before is no error: the loop waits its time again."""
    saturate(give_way, loop, clock)
    give_way.hand_over(lambda job: None, "one")
    give_way.hand_over(lambda job: None, "two")
    assert entered_of(give_way).waits == [(0.001, False)] * 2


# a real loop


class TimedLoop(asyncio.SelectorEventLoop):
    """A real loop that keeps the timers of the hand-off and of the store's own."""

    def __init__(self) -> None:
        self.ours: list[asyncio.TimerHandle] = []
        super().__init__()

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = super().call_later(delay, callback, *args, context=context)
        if getattr(callback, "__module__", "").startswith("aquipu."):
            self.ours.append(timer)
        return timer

    @property
    def armed(self) -> list[asyncio.TimerHandle]:
        """Timers that have neither gone off nor been cancelled."""
        return [timer for timer in self.ours if not timer.cancelled() and timer._scheduled]  # type: ignore[attr-defined]


def test_store_at_rest_has_no_timer(tmp_path: Path) -> None:
    """Opened, written to, read from and left alone: between two jobs no timer of a store is
    running.
    """

    async def live(loop: TimedLoop) -> None:
        async with Store.open(tmp_path / "store", sync_policy=Always()) as store:
            assert loop.armed == []
            future = store.append_nowait(b"one")
            await asyncio.sleep(0)
            assert len(loop.armed) == 1
            await future
            assert loop.armed == []
            assert (await store.get(0)).data == b"one"
            assert [record.data async for record in store.scan()] == [b"one"]
            assert loop.armed == []
        assert loop.armed == []

    loop = TimedLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(live(loop))
    assert loop.ours


# run()


class Call:
    """A blocking call that a test lets go on when it wants to."""

    def __init__(self, outcome: object = None) -> None:
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.outcome = outcome

    def __call__(self) -> object:
        self.entered.set()
        self.gate.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Undone:
    """Takes what a call left behind, and tells when."""

    def __init__(self) -> None:
        self.results: list[object] = []
        self.event = asyncio.Event()

    def __call__(self, result: object) -> None:
        self.results.append(result)
        self.event.set()


@pytest.fixture
def one_thread() -> Iterator[ThreadPoolExecutor]:
    """A pool in which calls are done one after another, so that a later one tells that the earlier
    ones have ended.
    """
    with ThreadPoolExecutor(1) as executor:
        yield executor


async def _entered(call: Call) -> None:
    await asyncio.to_thread(call.entered.wait)


async def _settle(executor: ThreadPoolExecutor) -> None:
    """Wait until the pool has ended what it was given, and the loop has heard of it."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(executor, int)
    for _ in range(5):
        await asyncio.sleep(0)


def _is_resting(give_way: Handoff) -> bool:
    return give_way._timer is None and give_way._jobs == 0


@pytest.mark.asyncio
async def test_run_returns_the_result() -> None:
    """The result of the call comes back, with its arguments given, and no timer stays."""
    give_way = Handoff(asyncio.get_running_loop())
    undone = Undone()
    assert await give_way.run(divmod, 17, 5, undo=undone) == (3, 2)
    assert undone.results == []
    assert _is_resting(give_way)


@pytest.mark.asyncio
async def test_run_is_on_a_thread_of_the_pool() -> None:
    """The loop thread itself never makes the blocking call."""
    give_way = Handoff(asyncio.get_running_loop())
    assert await give_way.run(threading.get_ident) != threading.get_ident()


@pytest.mark.asyncio
async def test_run_raises_what_the_call_raises() -> None:
    """An exception of the call reaches the caller as it is; there is nothing to undo."""
    give_way = Handoff(asyncio.get_running_loop())
    undone, call = Undone(), Call(OSError(5, "no"))
    call.gate.set()
    with pytest.raises(OSError, match="no") as caught:
        await give_way.run(call, undo=undone)
    assert caught.value is call.outcome
    assert undone.results == []
    assert _is_resting(give_way)


@pytest.mark.asyncio
async def test_run_cancelled_while_the_call_goes_on() -> None:
    """The cancelled caller leaves at once; when the call has ended, its result is undone, once."""
    give_way = Handoff(asyncio.get_running_loop())
    undone, call = Undone(), Call("a file")
    task = asyncio.create_task(give_way.run(call, undo=undone))
    await _entered(call)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _is_resting(give_way)
    assert undone.results == []
    call.gate.set()
    await undone.event.wait()
    assert undone.results == ["a file"]


@pytest.mark.asyncio
async def test_run_cancelled_in_the_moment_of_the_result(one_thread: ThreadPoolExecutor) -> None:
    """A result that has come, but that the cancelled caller will never see, is undone as well."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(one_thread)
    give_way = Handoff(loop)
    undone, call = Undone(), Call("a file")
    task = asyncio.create_task(give_way.run(call, undo=undone))
    await asyncio.sleep(0)
    call.entered.wait()
    call.gate.set()
    one_thread.submit(int).result()  # the loop has not turned: the result stands in its queue
    loop.call_soon(lambda: loop.call_soon(task.cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    await undone.event.wait()
    assert undone.results == ["a file"]
    assert _is_resting(give_way)


@pytest.mark.asyncio
async def test_run_cancelled_with_nothing_to_undo(one_thread: ThreadPoolExecutor) -> None:
    """Without an undo the result is simply dropped, and nobody hears of it."""
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    loop.set_default_executor(one_thread)
    call = Call("a value")
    task = asyncio.create_task(Handoff(loop).run(call))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    call.gate.set()
    await _settle(one_thread)
    assert complaints == []


@pytest.mark.asyncio
async def test_run_cancelled_and_the_call_fails(one_thread: ThreadPoolExecutor) -> None:
    """A call that fails after its caller has gone leaves nothing to undo and no complaint of the
    loop.
    """
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: complaints.append(context))
    loop.set_default_executor(one_thread)
    undone, call = Undone(), Call(OSError(5, "no"))
    task = asyncio.create_task(Handoff(loop).run(call, undo=undone))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    call.gate.set()
    await _settle(one_thread)
    gc.collect()
    assert undone.results == []
    assert complaints == []


@pytest.mark.asyncio
async def test_run_when_the_pool_takes_no_more() -> None:
    """A pool that refuses the call leaves no job under way and no timer behind."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    loop.set_default_executor(executor)
    give_way = Handoff(loop)
    with pytest.raises(RuntimeError):
        await give_way.run(int)
    assert _is_resting(give_way)
