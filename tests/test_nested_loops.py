"""A caller who goes on may run the loop itself, as in a notebook with nest_asyncio, until a later
call has come back.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, faulthandler, sys
import nest_asyncio
if "late" not in sys.argv:
    nest_asyncio.apply()
from aquipu import Always, Store
if "late" in sys.argv:
    nest_asyncio.apply()
faulthandler.dump_traceback_later(30, exit=True)

async def main():
    loop = asyncio.get_running_loop()
    run = loop.run_until_complete
    store = await Store.open(sys.argv[1], sync_policy=Always())
    if "first" in sys.argv:
        run(store.append(b"first"))
    await store.append(b"0")
    if "sleep" in sys.argv:
        await asyncio.sleep(0)
    for _ in range(3):
        run(store.append(b"within"))
        run(store.append_many([b"a", b"b"], relations=("a:1",)))
        run(store.sync())
    await neighbours(store, run)
    await followed(store, run)
    run(store.aclose())
    print("closed", store.next_sequence)

async def neighbours(store, run):
    "One of a commit waits for another of the same commit, which stands behind it."
    async def one():
        await store.append(b"one")
        run(asyncio.wait([behind]))
    before = asyncio.ensure_future(one())
    behind = asyncio.ensure_future(store.append(b"behind"))
    await asyncio.gather(before, behind)

async def followed(store, run):
    "A reader gets all of it, in order, also when the writer waits for the reader in the loop."
    start = store.next_sequence
    async with store.follow(start) as records:
        for number in range(3):
            receipt = await store.append(b"%d" % number)
            record = run(anext(aiter(records)))
            assert record.sequence == receipt.sequence == start + number

asyncio.run(main())
"""


@pytest.mark.parametrize("mode", ["", "late", "first", "sleep"])
def test_the_loop_is_run_by_a_caller(mode: str, tmp_path: Path) -> None:
    """Every call comes back: the next commit leaves, and neighbours and readers are told, within
    the inner loop.
    """
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "store"), mode]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["closed", str(15 + (mode == "first"))]
