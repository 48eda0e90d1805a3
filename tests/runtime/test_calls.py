"""Blocking calls, which are left behind when their caller is told to stop."""

from __future__ import annotations

import gc
import weakref
from threading import Event, Thread, current_thread

import pytest

from aquipu.runtime import calls
from aquipu.runtime.calls import Left, call_until

SECONDS = 20.0


class Thing:
    """Something that a call returns, or raises with."""


def test_what_comes_of_it() -> None:
    """It is returned, or raised, whatever it is."""
    assert call_until(Event(), lambda: 5) == 5

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_until(Event(), interrupt)


def test_it_is_not_begun_after_the_stop() -> None:
    """Nothing is called any more."""
    stop, called = Event(), list[int]()
    stop.set()
    with pytest.raises(Left):
        call_until(stop, lambda: called.append(1))
    assert called == []


def test_it_is_left_behind() -> None:
    """The caller goes on, the call goes on to its end, and the next one has another thread."""
    stop, begun, released, ended = Event(), Event(), Event(), Event()

    def wait() -> None:
        begun.set()
        assert released.wait(SECONDS)
        ended.set()

    def end() -> None:
        assert begun.wait(SECONDS)
        stop.set()

    Thread(target=end, daemon=True).start()
    with pytest.raises(Left):
        call_until(stop, wait)
    assert not ended.is_set()
    assert call_until(Event(), lambda: "well") == "well"
    released.set()
    assert ended.wait(SECONDS)


def test_a_thread_makes_many_calls() -> None:
    """It is a daemon, which no exit waits for, and is used again."""
    seen = {call_until(Event(), current_thread) for _ in range(100)}
    assert len(seen) == 1
    assert all(thread.daemon for thread in seen)
    assert current_thread() not in seen


def test_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller makes the call itself."""

    def refuse(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(calls, "_free", [])
    monkeypatch.setattr(Thread, "start", refuse)
    assert call_until(Event(), current_thread) is current_thread()


def test_an_idle_thread_ends_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call returned or raised is gone as soon as the caller has let go of it."""
    monkeypatch.setattr(calls, "_IDLE_SECONDS", 0.01)
    monkeypatch.setattr(calls, "_free", [])

    def fail() -> None:
        error = ValueError("wrong")
        error.thing = Thing()  # type: ignore[attr-defined]
        raise error

    kept = weakref.ref(call_until(Event(), Thing))
    with pytest.raises(ValueError, match="wrong") as raised:
        call_until(Event(), fail)
    also = weakref.ref(raised.value.thing)  # type: ignore[attr-defined]
    del raised
    (free,) = calls._free
    free.thread.join(SECONDS)
    assert not free.thread.is_alive()
    gc.collect()
    assert (kept(), also()) == (None, None)
    assert calls._free == []
    assert call_until(Event(), lambda: 1) == 1
