"""The directory of a running store is moved, replaced or removed, or one of its files is, or the
lock: at every moment, on a real disk.

What must hold: nothing that is appended after that is acknowledged; all that was acknowledged
before is where the directory is now; nothing of the store has come to be elsewhere; and at no
moment is there a second writer.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from tempfile import TemporaryDirectory

from aquipu import (
    Always,
    AquipuError,
    EveryN,
    OsManaged,
    Receipt,
    Store,
    StoreLockedError,
    SyncPolicy,
)
from tests.faults.inline import run_inline
from tests.faults.tally import Tally
from tests.support import engine_of

POLICIES: tuple[SyncPolicy, ...] = (Always(), EveryN(4), OsManaged())
MOMENTS = 7
"""Records that are there before it happens; three fill a segment."""
_SECONDS = 30.0


def _removed(path: str) -> None:
    while os.path.exists(path):  # something may just be made in it
        shutil.rmtree(path, ignore_errors=True)


def _moved(path: str) -> None:
    os.rename(path, f"{path}.now")


def _replaced(path: str) -> None:
    _moved(path)
    os.mkdir(path)


def _linked(path: str) -> None:
    _moved(path)
    os.mkdir(f"{path}.other")
    os.symlink(f"{path}.other", path)


def _last(path: str) -> str:
    return max(entry.path for entry in os.scandir(path) if entry.name.endswith(".segment"))


def _segment(path: str) -> None:
    os.unlink(_last(path))


def _cut(path: str) -> None:
    os.truncate(_last(path), 0)


def _manifest(path: str) -> None:
    os.unlink(f"{path}/manifest")


def _lock(path: str) -> None:
    os.unlink(f"{path}/lock")


def _other_lock(path: str) -> None:
    _lock(path)
    with open(f"{path}/lock", "w") as file:
        file.write("1\n")


Act = Callable[[str], None]
ENDS: dict[str, Act] = {
    "removed": _removed,
    "moved": _moved,
    "replaced": _replaced,
    "behind another link": _linked,
    "without its last segment": _segment,
    "with its last segment cut off": _cut,
    "without its manifest": _manifest,
}
"""After these the store takes nothing more ..."""
PASSES: dict[str, Act] = {"without its lock file": _lock, "with another lock file": _other_lock}
"""... and after these it goes on, alone."""


def _cases() -> Iterator[tuple[str, Act, SyncPolicy, int]]:
    for what, act in (ENDS | PASSES).items():
        for policy in POLICIES:
            for moment in range(MOMENTS):
                yield what, act, policy, moment


async def _told(store: Store, number: int) -> bool:
    """Whether an append of this record was acknowledged."""
    with suppress(AquipuError):
        return isinstance(await store.append(_data(number)), Receipt)
    return False


def _data(number: int) -> bytes:
    return b"%d " % number * 700


async def _happens(
    path: str, what: str, act: Act, policy: SyncPolicy, moment: int, tally: Tally
) -> None:
    """One store, to which it happens before its record of this number."""
    case = f"{what}, {policy}, before record {moment}"
    store = await Store.open(path, sync_policy=policy, max_segment_bytes=4096)
    told = [number for number in range(moment) if await _told(store, number)]
    await engine_of(store).ask(lambda journal: None)  # a roll that is due has been made by then
    act(path)
    tally.counts["directories " + what] += 1
    if what in PASSES and await _lets_in(path):
        tally.violated(f"{case}: a second writer is let in")
    later = [number for number in range(moment, moment + 4) if await _told(store, number)]
    if what in ENDS and later:
        tally.violated(f"{case}: {len(later)} records are acknowledged that are nowhere")
    if what in PASSES and len(later) != 4:
        tally.violated(f"{case}: a store that is alone refuses records")
    if (store.health().state == "failed") != (what in ENDS):
        tally.violated(f"{case}: its health is {store.health()}")
    with suppress(AquipuError):
        await store.aclose()
        if what in ENDS:
            tally.violated(f"{case}: it is closed as if all was well")
    elsewhere = [] if act in (*PASSES.values(), _segment, _cut, _manifest) else _names_in(path)
    if elsewhere:
        tally.violated(f"{case}: {elsewhere} have come to be elsewhere")
    if act in (_moved, _replaced, _linked):
        await _judge(f"{path}.now", told, case, tally)
    elif what in PASSES:
        await _judge(path, [*told, *later], case, tally)


def _names_in(path: str) -> list[str]:
    return os.listdir(path) if os.path.isdir(path) else []


async def _lets_in(path: str) -> bool:
    try:
        second = await Store.open(path, lock_timeout=0)
    except StoreLockedError:
        return False
    await second.aclose()
    return True


async def _judge(path: str, told: list[int], case: str, tally: Tally) -> None:
    """All that was acknowledged is there, in its place."""
    try:
        async with Store.open(path, lock_timeout=0) as store:
            found = [record.data async for record in store.scan()]
    except AquipuError as error:
        tally.violated(f"{case}: what is left cannot be opened: {error!r}")
        return
    if found[: len(told)] != [_data(number) for number in told]:
        tally.violated(f"{case}: of {len(told)} acknowledged records not all are there")


async def _all(tally: Tally) -> None:
    for what, act, policy, moment in _cases():
        with TemporaryDirectory() as directory:
            await asyncio.wait_for(
                _happens(f"{directory}/store", what, act, policy, moment, tally), _SECONDS
            )


def run() -> Tally:
    """Everything that may happen, at every moment, under every policy."""
    tally = Tally()
    try:
        run_inline(_all(tally))
    except TimeoutError:
        tally.violated("places: somebody waits for ever")
    return tally
