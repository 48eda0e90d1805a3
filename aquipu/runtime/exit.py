"""The end of the program: what was accepted is written before the interpreter is gone.

A store that was never closed is left at the exit: what it still holds is written, for at most
`EXIT_SECONDS`. First all are left, and then all are waited for, so that they work side by side.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable
from time import monotonic

EXIT_SECONDS = 4.0
"""Seconds that the exit of the interpreter waits for what was accepted."""

_leaving: list[Callable[[], None]] = []
_waiting: list[Callable[[float], None]] = []
_ending: list[bool] = []


def before_exit(leave: Callable[[], None]) -> None:
    """Have ``leave`` called at the exit, before anything is waited for."""
    _leaving.append(leave)


def at_exit(wait: Callable[[float], None]) -> None:
    """Have ``wait`` called at the exit, with the time by which it is to return (`monotonic`)."""
    _waiting.append(wait)


def is_ending() -> bool:
    """Return whether the interpreter is about to exit: no thread can be started any more."""
    return bool(_ending)


@atexit.register
def _drain() -> None:
    _ending.append(True)
    deadline = monotonic() + EXIT_SECONDS
    try:
        for leave in _leaving:
            leave()
    finally:
        for wait in _waiting:
            wait(deadline)
