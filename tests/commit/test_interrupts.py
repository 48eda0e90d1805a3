"""A Ctrl-C at any line of the loop's side: closing works afterwards, nobody waits for ever, and
what was acknowledged is there.
"""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import aquipu
from aquipu import Always, EveryN, OsManaged, Receipt, Stage, Store, SyncPolicy

ROOMS = str(Path(aquipu.__file__).parent)
SECONDS = 20.0  # to close in
MOMENT = 0.2  # for what mostly takes less, and may take until the store is closed
RAISED_MAX = 20
STEP = 23  # of so many lines one is interrupted; with 1, which takes minutes, each of them

Acknowledged = dict[int, bytes]
Scenario = Callable[[Store, Acknowledged], Coroutine[Any, Any, None]]


@contextmanager
def interrupt_at(line: int) -> Iterator[list[int]]:
    """Raise KeyboardInterrupt before this line, counted over all that this thread runs of the
    package from here on.

    Gives a list that holds how many lines there were.
    """
    count = [0]

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(ROOMS):
            return None
        if event == "line":
            count[0] += 1
            if count[0] == line:
                raise KeyboardInterrupt(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


async def note(acknowledged: Acknowledged, call: Awaitable[Receipt], data: bytes) -> None:
    acknowledged[(await call).sequence] = data


async def appends(store: Store, acknowledged: Acknowledged) -> None:
    """Several callers, one after another and in the same tick, with labels and without."""

    async def one(name: int) -> None:
        for number in range(3):
            data = b"%d of %d" % (number, name)
            await note(
                acknowledged, store.append(data, relations=("a:1",) if name % 2 else ()), data
            )

    await asyncio.gather(*map(one, range(4)))


async def batches(store: Store, acknowledged: Acknowledged) -> None:
    """Batches beside single records, and futures that were given away."""
    await asyncio.gather(
        store.append_many([b"a", b"b", b"c"], relations=("a:1",)),
        note(acknowledged, store.append(b"single"), b"single"),
        store.append_many([b"d", b"e"]),
        note(acknowledged, store.append_nowait(b"given away"), b"given away"),
    )
    for receipt, data in zip(await store.append_many([b"f", b"g"]), (b"f", b"g"), strict=True):
        acknowledged[receipt.sequence] = data


async def back_pressure(store: Store, acknowledged: Acknowledged) -> None:
    """More than the buffer holds; one caller leaves the line."""
    calls = [
        asyncio.ensure_future(note(acknowledged, store.append(b"%d" % n), b"%d" % n))
        for n in range(7)
    ]
    many = asyncio.ensure_future(store.append_many([b"x", b"y"]))
    await asyncio.sleep(0)
    calls[5].cancel()
    await asyncio.gather(*calls[:5], calls[6], many)


async def syncs(store: Store, acknowledged: Acknowledged) -> None:
    """flush and sync, with something to wait for and without."""
    await asyncio.gather(note(acknowledged, store.append(b"0"), b"0"), store.sync(), store.flush())
    await store.sync()
    await asyncio.gather(
        store.sync(), note(acknowledged, store.append(b"1", durability=Stage.SYNCED), b"1")
    )


async def readers(store: Store, acknowledged: Acknowledged) -> None:
    """A follower, a scan, a look-up and a hold beside a writer."""

    async def follow() -> None:
        async with store.follow(0) as records:
            async for record in records:
                if record.sequence >= 2:
                    break

    following = asyncio.ensure_future(follow())
    for number in range(3):
        data = b"%d" % number
        await note(acknowledged, store.append(data), data)
    async for _ in store.scan():
        pass
    await store.get(1)
    await store.hold("here", 1)
    await following


async def closes(store: Store, acknowledged: Acknowledged) -> None:
    """A close that waits for what was accepted."""
    calls = [
        asyncio.ensure_future(note(acknowledged, store.append(b"%d" % n), b"%d" % n))
        for n in range(4)
    ]
    await asyncio.sleep(0)
    await store.aclose()
    await asyncio.gather(*calls, return_exceptions=True)


async def keys(store: Store, acknowledged: Acknowledged) -> None:
    """Keys that are new, given twice and searched for, and expected sequences that are wrong; more
    than the buffer holds.
    """

    async def one(number: int, data: bytes) -> None:
        await note(acknowledged, store.append(data, key=("one", number)), data)

    await one(0, b"0")
    await asyncio.gather(*(one(number, b"%d" % number) for number in (1, 1, 2, 3, 3)))
    calls = [
        asyncio.ensure_future(store.append_many([b"a", b"b"], key=("two", 1))) for _ in range(2)
    ]
    more = [asyncio.ensure_future(one(number, b"%d" % number)) for number in (4, 5, 5)]
    await asyncio.sleep(0)
    more[1].cancel()
    more[2].cancel()
    receipts = (await asyncio.gather(*calls))[0]
    await more[0]
    acknowledged |= {receipts[0].sequence: b"a", receipts[1].sequence: b"b"}
    behind = await asyncio.gather(
        *(store.append(b"n", expect=store.next_sequence) for _ in range(2)), return_exceptions=True
    )
    assert any(isinstance(it, aquipu.ConflictError) for it in behind)
    with suppress(aquipu.StaleKeyError):
        await one(0, b"0")


async def keys_again(store: Store) -> None:
    """Give every key of `keys` once more."""
    calls: list[Awaitable[object]] = [
        store.append_many([b"a", b"b"], key=("two", 1)),
        *(store.append(b"%d" % number, key=("one", number)) for number in range(6)),
    ]
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert not isinstance(outcome, Exception) or isinstance(
            outcome, (aquipu.StaleKeyError, aquipu.StoreClosedError)
        )


SCENARIOS: dict[str, tuple[Scenario, SyncPolicy, int]] = {
    "appends": (appends, Always(), 100),
    "batches": (batches, EveryN(4), 100),
    "back-pressure": (back_pressure, OsManaged(), 2),
    "syncs": (syncs, EveryN(8), 100),
    "readers": (readers, Always(), 100),
    "closes": (closes, EveryN(8), 100),
    "keys": (keys, Always(), 100),
    "keys without room": (keys, OsManaged(), 2),
}


def live(
    path: str, line: int, scenario: Scenario, policy: SyncPolicy, buffer_records: int
) -> tuple[Acknowledged, bool]:
    """Run a scenario up to this line, and close the store.

    What was acknowledged, and whether the line was reached.
    """
    acknowledged: Acknowledged = {}
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)
    try:
        store = loop.run_until_complete(
            Store.open(path, sync_policy=policy, buffer_records=buffer_records).__aenter__()
        )
        main = loop.create_task(scenario(store, acknowledged))
        gc.collect()  # what an earlier store leaves is not to be interrupted
        with interrupt_at(line) as count, suppress(KeyboardInterrupt):
            loop.run_until_complete(main)
        for _ in range(RAISED_MAX):
            try:
                loop.run_until_complete(wind_up(store, again=scenario is keys))
            except KeyboardInterrupt:  # of a task that awaits the one that was interrupted
                continue
            except RuntimeError as error:  # its end was still to stop the loop
                if "stopped before" not in str(error):
                    raise
                continue
            break
        else:
            raise AssertionError("the interrupt does not come to an end")
    finally:
        loop.close()
    return acknowledged, count[0] >= line


async def wind_up(store: Store, *, again: bool) -> None:
    """Cancel all that is left, and close: all of it ends.

    Before that, with ``again``, give the keys of the scenario once more: none is stuck. (A wake-up
    that was lost is made up for when the store is closed, so they may end only then.)
    """
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if again:
        left.add(asyncio.ensure_future(keys_again(store)))
        await asyncio.wait(left, timeout=MOMENT)
    closing = asyncio.ensure_future(store.aclose())
    _, pending = await asyncio.wait([*left, closing], timeout=SECONDS)
    assert closing not in pending, f"closing has not come to its end: {store!r}"
    assert not pending, f"somebody waits for ever: {pending}"
    closing.result()


def run(name: str, directory: Path, step: int) -> int:
    """Interrupt a scenario at each so manieth line.

    The last one at which there was anything to interrupt.
    """
    line, was_interrupted = random.randrange(step) + 1 - step, True
    while was_interrupted:
        line += step
        path = directory / str(line)
        try:
            acknowledged, was_interrupted = live(str(path), line, *SCENARIOS[name])
        except BaseException as error:
            error.add_note(f"interrupted at line {line}")
            raise
        found = asyncio.run(read(path))
        assert {sequence: found.get(sequence) for sequence in acknowledged} == acknowledged, (
            f"interrupted at line {line}"
        )
        keyed = [data for data in found.values() if data != b"n"]
        assert not name.startswith("keys") or len(set(keyed)) == len(keyed), (
            f"a key is there twice, interrupted at line {line}"
        )
    return line - step


@pytest.mark.proof
@pytest.mark.parametrize("name", SCENARIOS)
def test_an_interrupt_at_any_line(name: str, tmp_path: Path) -> None:
    """Wherever it comes: the store closes, every task ends, and what was acknowledged is there with
    its own sequence.

    In an interpreter of its own: each interrupt in a traced line leaves CPython 3.11 a little less
    depth.
    """
    command = [sys.executable, "-m", "tests.commit.test_interrupts", name, str(tmp_path), str(STEP)]
    ended = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 50, "the scenario was too short to note anything"


async def read(path: Path) -> Acknowledged:
    async with Store.open(path, lock_timeout=0) as store:
        return {record.sequence: record.data async for record in store.scan()}


if __name__ == "__main__":
    print(run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))  # noqa: T201
