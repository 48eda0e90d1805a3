"""Every way to end without a clean close, but for the SIGKILL from outside and the one at a call to the disk."""

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
from tests.faults.author import Author
from tests.faults.mortal import die
from tests.faults.plan import SECONDS_MAX, Life
from tests.faults.witness import Witness

_kept: list[Author] = []  # the stores that must not be collected before the interpreter ends


class Exit(NamedTuple):
    """A way to end without a clean close."""

    program: Callable[[Life, Witness], None]
    fresh: bool
    """In a fresh interpreter, because its end is part of it."""
    whole: bool
    """Everything accepted must be there, not only what was acknowledged."""
    status: int = 0


async def _pending(life: Life, witness: Witness) -> Author:
    """A store with something acknowledged, and something accepted that nobody has been told of."""
    author = await Author.begin(life, witness)
    await author.write(life.calls)
    await author.burst(life.calls)
    return author


async def _leaves(life: Life, witness: Witness) -> None:
    """The program ends and has not closed its store."""
    _kept.append(await _pending(life, witness))


async def _drops(life: Life, witness: Witness) -> None:
    """The store is collected as garbage while the loop runs on."""
    author = await Author.begin(life, witness)
    await author.write(life.calls)
    for call in islice(author.plan, life.calls):
        if len(call.payloads) == 1:
            author.store.append_nowait(call.payloads[0], relations=call.relations, durability=call.durability)
        else:
            await author.store.append_many(call.payloads, relations=call.relations, durability=call.durability)
        witness.accepted(len(call.payloads))
    del author
    gc.collect()
    await asyncio.sleep(0.001)


async def _raises(life: Life, witness: Witness) -> None:
    """An exception that nobody handles ends the loop and the program."""
    _kept.append(await _pending(life, witness))
    raise RuntimeError("meant: nobody handles this")


async def _exits(life: Life, witness: Witness) -> None:
    """sys.exit within a coroutine."""
    _kept.append(await _pending(life, witness))
    sys.exit(0)


async def _is_interrupted(life: Life, witness: Witness) -> None:
    """Ctrl-C: asyncio cancels the main task, and with it all who append."""
    author = await Author.begin(life, witness)
    _kept.append(author)
    await author.write(life.calls)
    asyncio.get_running_loop().call_later(0.003, os.kill, os.getpid(), signal.SIGINT)
    await author.write(1_000_000)


async def _stumbles(life: Life, witness: Witness) -> None:
    """A callback and a task of the loop raise; the store has nothing to do with it and goes on."""
    author = await Author.begin(life, witness)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)
    for _ in range(4):
        loop.call_soon(_stumble)
        stumbling = loop.create_task(_stumble_later())
        await author.write(life.calls)
        await asyncio.wait([stumbling])
    await author.store.aclose()


def _stumble() -> None:
    raise RuntimeError("meant: a callback fails")


async def _stumble_later() -> None:
    await asyncio.sleep(0)
    _stumble()


async def _stops_at_once(life: Life, witness: Witness) -> None:
    """os._exit from another thread, at any moment: nothing is run any more."""
    author = await Author.begin(life, witness)
    threading.Timer(Random(life.seed + life.round).uniform(0, 0.02), os._exit, (0,)).start()
    await author.write(1_000_000)


async def _stops_when_told(life: Life, witness: Witness) -> None:
    """os._exit from the loop, the moment after an acknowledgement."""
    await _pending(life, witness)
    os._exit(0)


def _closes_the_loop(life: Life, witness: Witness) -> None:
    """The loop is closed under the store, and the program ends some time later."""
    loop = asyncio.new_event_loop()
    _kept.append(loop.run_until_complete(_pending(life, witness)))
    loop.close()
    time.sleep(Random(life.seed + life.round).uniform(0, 0.005))


def _closes_the_loop_and_is_killed(life: Life, witness: Witness) -> None:
    _closes_the_loop(life, witness)
    die()


# forks


async def _forks(life: Life, witness: Witness) -> Store:
    """Fork children while tasks append. None of them touches the store, and the parent goes on; one child stays."""
    author = await Author.begin(life, witness)
    writing = asyncio.create_task(author.write(life.calls * 40))
    for fate in (_leave_at_once, _leave_in_order, _use, _wait_to_be_killed):
        await author.make(next(author.plan))
        _see_off(fate, author.store)
    witness.left_behind(_fork(_wait_to_be_killed, author.store))
    await writing
    return author.store


async def _forks_and_closes(life: Life, witness: Witness) -> None:
    store = await _forks(life, witness)
    await store.aclose()


async def _forks_and_is_killed(life: Life, witness: Witness) -> None:
    """The child that stays must not hold the lock of its parent."""
    await _forks(life, witness)
    die()


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
    """All that the end of an interpreter does for a store; the end itself would close the loop's epoll for the parent."""
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


def in_loop(program: Callable[[Life, Witness], Coroutine[Any, Any, object]]) -> Callable[[Life, Witness], None]:
    """A program out of a coroutine."""

    def run(life: Life, witness: Witness) -> None:
        asyncio.run(program(life, witness))

    return run


EXITS = {
    "the program leaves": Exit(in_loop(_leaves), True, True),
    "the store is dropped": Exit(in_loop(_drops), True, True),
    "an exception ends the loop": Exit(in_loop(_raises), True, True, 1),
    "sys.exit in the loop": Exit(in_loop(_exits), True, True),
    "Ctrl-C": Exit(in_loop(_is_interrupted), True, True, -signal.SIGINT),
    "the loop is closed": Exit(_closes_the_loop, True, True),
    "the loop is closed, then SIGKILL": Exit(_closes_the_loop_and_is_killed, False, False, -signal.SIGKILL),
    "exceptions in the loop": Exit(in_loop(_stumbles), False, True),
    "os._exit at random": Exit(in_loop(_stops_at_once), False, False),
    "os._exit when told": Exit(in_loop(_stops_when_told), False, False),
    "forks, then a close": Exit(in_loop(_forks_and_closes), False, True),
    "forks, then SIGKILL": Exit(in_loop(_forks_and_is_killed), False, False, -signal.SIGKILL),
}
