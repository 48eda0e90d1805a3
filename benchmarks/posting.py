"""The load of an audited application: POSTs that sign a document, each when the last is answered.

It comes from wrk where that is installed, and else from tasks of this process.
"""

from __future__ import annotations

from math import floor

from benchmarks import wrk
from benchmarks.audited import BODY, REQUEST
from benchmarks.load import repeat
from benchmarks.measure import Sample, in_loop
from benchmarks.settings import Settings

_RUN_SECONDS = 5.0  # as long as so many other runs: requests are slow
_URL = "http://127.0.0.1:{port}/documents/42/signatures"


def seconds_of(settings: Settings) -> float:
    """How long the load lasts."""
    return _RUN_SECONDS * settings.seconds


def post(settings: Settings, port: int, connections: int) -> Sample:
    """How many answers there were a second on so many connections, and how long they took."""
    seconds = seconds_of(settings)
    if _by_wrk(settings):
        url = _URL.format(port=port)
        return wrk.post(url, BODY, connections, floor(seconds), settings.directory)
    return in_loop(settings, lambda: repeat(port, REQUEST, connections, seconds))


def source(settings: Settings) -> str:
    """Where the load comes from, as a note."""
    return f"the load comes from {'wrk' if _by_wrk(settings) else 'asyncio connections'}"


def _by_wrk(settings: Settings) -> bool:
    """wrk knows only whole seconds."""
    return wrk.is_installed() and seconds_of(settings) >= 1
