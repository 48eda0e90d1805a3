"""A store that runs for long holds no more memory than one that has just begun."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from aquipu import Store

TASKS = 256

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def append(store, turns, task):
    for turn in range(turns):
        await store.append(b"%128d%128d" % (task, turn))

async def main(path, *counts):
    done = 0
    async with Store.open(path, max_segment_bytes=8 * 1024 * 1024) as store:
        for count in counts:
            turns = (count - done) // TASKS
            await asyncio.gather(*(append(store, turns, task) for task in range(TASKS)))
            done += turns * TASKS
            print(store.next_sequence, resident_bytes(), flush=True)

asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
"""

MIB = 1024 * 1024


def test_memory_after_many_appends(tmp_path: Path) -> None:
    """After 200,000 appends of 256 bytes the process is at most 32 MiB larger than after 20,000;
    segments roll too.
    """
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "store"), "20000", "200000"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (early, early_bytes), (late, late_bytes) = (
        map(int, line.split()) for line in output.splitlines()
    )
    assert early >= 19_000
    assert late >= 199_000
    assert late_bytes - early_bytes <= 32 * MIB
    for file in (tmp_path / "store").iterdir():
        file.unlink()  # 50 MB that nobody needs to keep
