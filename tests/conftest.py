"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def _heeded_signals() -> None:
    """The programs that tests start heed signals, also where the tests themselves were started to ignore them.

    What a process ignores, its children ignore as well: under nohup SIGHUP, in the background of a script SIGINT.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
