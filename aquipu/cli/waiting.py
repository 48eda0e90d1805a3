"""Saying for whom a command waits, when it has not got a store at once."""

from __future__ import annotations

from asyncio import get_running_loop
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from aquipu.cli.arguments import absolute, database_of
from aquipu.cli.streams.console import say_to_people
from aquipu.local.check.diagnosis.diagnose import writer_at
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.paths import address_in
from aquipu.local.disk.system import process_id

T = TypeVar("T")

_PATIENCE = 1.0
"""Seconds of waiting of which nothing is said."""


async def opened_patiently(opening: Awaitable[T], store: str, seconds: float) -> T:
    """Open a store; on a terminal, say after a second for whom it waits, and how long it will."""
    timer = get_running_loop().call_later(_PATIENCE, _say_waiting, store, seconds)
    try:
        return await opening
    finally:
        timer.cancel()


def _say_waiting(store: str, seconds: float) -> None:
    how_long = f"for up to {seconds:g} s; Ctrl-C ends it"
    if database_of(store) is not None:  # its address may have a password in it
        say_to_people(f"aquipu: the log in the database is not open yet; waiting {how_long}")
        return
    if address_in(store) is not None:
        say_to_people(f"aquipu: nobody answers at {store} yet; waiting {how_long}")
        return
    with suppress(OSError):
        writer = writer_at(Disk(), absolute(store))
        if writer is None or writer.pid == process_id():
            say_to_people(f"aquipu: {store} is being opened: the end of its log is read first")
        else:
            who = "another process" if writer.pid is None else f"process {writer.pid}"
            say_to_people(f"aquipu: {store} is in use by {who}; waiting {how_long}")
