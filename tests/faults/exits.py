"""Every way to end without a clean close, but for the SIGKILL from outside and the one at a call to
the disk.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from itertools import islice
from random import Random
from typing import Any, NamedTuple

from aquipu import ForkedStoreError, Store
from tests.faults.crashing_disk import kill_self
from tests.faults.oracle import Oracle
from tests.faults.plan import SECONDS_MAX, Run
from tests.faults.script import Script

_kept: list[Script] = []  # the stores that must not be collected before the interpreter ends


class Exit(NamedTuple):
    """A way to end without a clean close."""

    program: Callable[[Run, Oracle], None]
    fresh: bool
    """In a fresh interpreter, because its end is part of it."""
    whole: bool
    """Everything accepted must be there, not only what was acknowledged."""
    status: int = 0


async def _pending(run: Run, oracle: Oracle) -> Script:
    """A store with something acknowledged, and something accepted that nobody has been told of."""
    script = await Script.begin(run, oracle)
    await script.write(run.calls)
    await script.burst(run.calls)
    return script


async def _leaves(run: Run, oracle: Oracle) -> None:
    """The program ends and has not closed its store."""
    _kept.append(await _pending(run, oracle))


async def _drops(run: Run, oracle: Oracle) -> None:
    """The store is collected as garbage while the loop runs on."""
    script = await Script.begin(run, oracle)
    await script.write(run.calls)
    for call in islice(script.plan, run.calls):
        if len(call.payloads) == 1:
            script.store.append_nowait(
                call.payloads[0], relations=call.relations, durability=call.durability
            )
        else:
            await script.store.append_many(
                call.payloads, relations=call.relations, durability=call.durability
            )
        oracle.accepted(len(call.payloads))
    del script
    gc.collect()
    await asyncio.sleep(0.001)


async def _raises(run: Run, oracle: Oracle) -> None:
    """An exception that nobody handles ends the loop and the program."""
    _kept.append(await _pending(run, oracle))
    raise RuntimeError("meant: nobody handles this")


async def _exits(run: Run, oracle: Oracle) -> None:
    """sys.exit within a coroutine."""
    _kept.append(await _pending(run, oracle))
    sys.exit(0)


async def _is_interrupted(run: Run, oracle: Oracle) -> None:
    """Ctrl-C: asyncio cancels the main task, and with it all who append."""
    script = await Script.begin(run, oracle)
    _kept.append(script)
    await script.write(run.calls)
    asyncio.get_running_loop().call_later(0.003, os.kill, os.getpid(), signal.SIGINT)
    await script.write(1_000_000)


async def _stumbles(run: Run, oracle: Oracle) -> None:
    """A callback and a task of the loop raise; the store has nothing to do with it and goes on."""
    script = await Script.begin(run, oracle)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    for _ in range(4):
        loop.call_soon(_stumble)
        stumbling = loop.create_task(_stumble_later())
        await script.write(run.calls)
        await asyncio.wait([stumbling])
    await script.store.aclose()


def _stumble() -> None:
    raise RuntimeError("meant: a callback fails")


async def _stumble_later() -> None:
    await asyncio.sleep(0)
    _stumble()


async def _stops_at_once(run: Run, oracle: Oracle) -> None:
    """os._exit from another thread, at any moment: nothing is run any more."""
    script = await Script.begin(run, oracle)
    threading.Timer(Random(run.seed + run.round).uniform(0, 0.02), os._exit, (0,)).start()
    await script.write(1_000_000)


async def _stops_when_told(run: Run, oracle: Oracle) -> None:
    """os._exit from the loop, the moment after an acknowledgement."""
    await _pending(run, oracle)
    os._exit(0)


def _closes_the_loop(run: Run, oracle: Oracle) -> None:
    """The loop is closed under the store, and the program ends some time later."""
    loop = asyncio.new_event_loop()
    _kept.append(loop.run_until_complete(_pending(run, oracle)))
    loop.close()
    time.sleep(Random(run.seed + run.round).uniform(0, 0.005))


def _closes_the_loop_and_is_killed(run: Run, oracle: Oracle) -> None:
    _closes_the_loop(run, oracle)
    kill_self()


# forks


async def _forks(run: Run, oracle: Oracle) -> Store:
    """Fork children while tasks append.

    None of them touches the store, and the parent goes on; one child stays.
    """
    script = await Script.begin(run, oracle)
    writing = asyncio.create_task(script.write(run.calls * 40))
    for fate in (_leave_at_once, _leave_in_order, _use, _wait_to_be_killed):
        await script.make(next(script.plan))
        _see_off(fate, script.store)
    oracle.left_behind(_fork(_wait_to_be_killed, script.store))
    await writing
    return script.store


async def _forks_and_closes(run: Run, oracle: Oracle) -> None:
    store = await _forks(run, oracle)
    await store.aclose()


async def _forks_and_is_killed(run: Run, oracle: Oracle) -> None:
    """The child that stays must not hold the lock of its parent."""
    await _forks(run, oracle)
    kill_self()


def _fork(fate: Callable[[Store], None], store: Store) -> int:
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(SECONDS_MAX)
            fate(store)
        finally:
            os._exit(1)
    return pid


def _see_off(fate: Callable[[Store], None], store: Store) -> None:
    """A child from its beginning to its end."""
    pid = _fork(fate, store)
    if fate is _wait_to_be_killed:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    expected = -signal.SIGKILL if fate is _wait_to_be_killed else 0
    if status != expected:
        raise AssertionError(f"the child {fate.__name__} ended with {status}")


def _leave_at_once(store: Store) -> None:
    os._exit(0)


def _leave_in_order(store: Store) -> None:
    """All that the end of an interpreter does for a store; the end itself would close the loop's
    epoll for the parent.
    """
    del store
    gc.collect()
    atexit._run_exitfuncs()
    os._exit(0)


def _use(store: Store) -> None:
    try:
        store.append_nowait(b"from a child")
    except ForkedStoreError:
        os._exit(0)


def _wait_to_be_killed(store: Store) -> None:
    signal.pause()


# all of them


def in_loop(
    program: Callable[[Run, Oracle], Coroutine[Any, Any, object]],
) -> Callable[[Run, Oracle], None]:
    """A program out of a coroutine."""

    def execute(run: Run, oracle: Oracle) -> None:
        asyncio.run(program(run, oracle))

    return execute


EXITS = {
    "the program leaves": Exit(in_loop(_leaves), True, True),
    "the store is dropped": Exit(in_loop(_drops), True, True),
    "an exception ends the loop": Exit(in_loop(_raises), True, True, 1),
    "sys.exit in the loop": Exit(in_loop(_exits), True, True),
    "Ctrl-C": Exit(in_loop(_is_interrupted), True, True, -signal.SIGINT),
    "the loop is closed": Exit(_closes_the_loop, True, True),
    "the loop is closed, then SIGKILL": Exit(
        _closes_the_loop_and_is_killed, False, False, -signal.SIGKILL
    ),
    "exceptions in the loop": Exit(in_loop(_stumbles), False, True),
    "os._exit at random": Exit(in_loop(_stops_at_once), False, False),
    "os._exit when told": Exit(in_loop(_stops_when_told), False, False),
    "forks, then a close": Exit(in_loop(_forks_and_closes), False, True),
    "forks, then SIGKILL": Exit(in_loop(_forks_and_is_killed), False, False, -signal.SIGKILL),
}
