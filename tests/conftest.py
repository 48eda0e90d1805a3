"""What holds for all tests."""

from __future__ import annotations

import signal

import pytest

_WITH_DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}


@pytest.fixture(scope="session", autouse=True)
def _heeded_signals() -> None:
    """The programs that tests start heed signals, also where the tests themselves were started to ignore them.

    What a process ignores, its children ignore as well: under nohup SIGHUP, in the background of a script SIGINT.
    """
    for number, handler in _WITH_DEFAULTS.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
