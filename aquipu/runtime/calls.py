"""Blocking calls that are left behind when their caller is told to stop.

What waits for another machine cannot be called back: a server that has taken the connection and
says nothing holds up a request for minutes. So the call is made on a thread of its own, and its
caller waits for the answer, or until it is to stop. A call that was left behind goes on to its end,
of which nobody hears; its thread is a daemon, for which no exit of the interpreter waits.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 0.05  # between two looks whether to stop, while an answer is awaited
_IDLE_SECONDS = 10.0  # that a thread waits for the next call before it ends


class Left(Exception):
    """The caller is to stop: the call was not begun, or was left behind."""


class _Answer(NamedTuple):
    """What came of a call."""

    value: Any = None
    error: BaseException | None = None


def call_until(stop: Event, call: Callable[[], T]) -> T:
    """Make a blocking call, and return or raise what comes of it.

    Raises Left when ``stop`` is set before there is an answer. Where no thread can be started any
    more, because the interpreter ends, the call is made on this one.
    """
    if stop.is_set():
        raise Left
    caller = _free_caller()
    if caller is None:
        return call()
    answers: SimpleQueue[_Answer] = SimpleQueue()
    caller.calls.put((call, answers))
    while True:
        try:
            answer = answers.get(timeout=_LOOK_SECONDS)
        except Empty:
            if stop.is_set():
                raise Left from None
        else:
            break
    if answer.error is None:
        value: T = answer.value
        return value
    try:
        raise answer.error
    finally:
        del answer  # which the error would keep by this frame


# No lock is taken here: one that another thread held would stay held in a process that is forked.


class _Caller:
    """A thread that makes calls, one after another."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[_Answer]]] = SimpleQueue()
        self.thread = Thread(target=self._run, name="aquipu-call", daemon=True)

    def _run(self) -> None:
        while True:
            try:
                call, answers = self.calls.get(timeout=_IDLE_SECONDS)
            except Empty:
                if self._is_over():
                    return
                continue
            answer = _answer_of(call)
            _free.append(self)
            answers.put(answer)
            del call, answers, answer  # an idle thread keeps nothing

    def _is_over(self) -> bool:
        """Leave the free ones; False when a call is being given to this one just now."""
        try:
            _free.remove(self)
        except ValueError:
            return False
        return True


_free: list[_Caller] = []


def _free_caller() -> _Caller | None:
    while _free:
        try:
            caller = _free.pop()
        except IndexError:  # another thread was quicker
            break
        if caller.thread.is_alive():  # those of a parent process are not
            return caller
    caller = _Caller()
    try:
        caller.thread.start()
    except RuntimeError:  # the interpreter ends
        return None
    return caller


def _answer_of(call: Callable[[], Any]) -> _Answer:
    try:
        return _Answer(call())
    except BaseException as error:  # it is raised where the call was asked for
        return _Answer(error=error)
