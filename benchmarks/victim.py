"""A process that fills one segment and then waits to be killed.

``python -m benchmarks.victim PATH BYTES RECORDS POLICY``, with the records in each commit.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from aquipu import Store
from aquipu.local.format.frame import HEADER_BYTES
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES
from benchmarks.contender import POLICIES
from benchmarks.settings import RECORD

_COLUMNS_BYTES = 12  # of a record without relations, beside its data
_ROOT = Path(__file__).resolve().parents[1]


def leave_behind(path: Path, size: int, records: int, policy: str) -> None:
    """A store whose only segment is full, in commits of so many records, and whose process was
    killed (SIGKILL).
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.victim",
        str(path.resolve()),
        str(size),
        str(records),
        policy,
    ]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"full\n":
                raise RuntimeError("the process that fills a segment has failed")
        finally:
            process.kill()


async def main(path: str, size: str, records: str, policy: str) -> None:
    """Fill the segment up to where it would be sealed, say so, and wait."""
    batch = [RECORD] * int(records)
    commit = HEADER_BYTES + len(batch) * (_COLUMNS_BYTES + len(RECORD))
    async with Store.open(path, sync_policy=POLICIES[policy], max_segment_bytes=int(size)) as store:
        for _ in range((int(size) - SEGMENT_HEADER_BYTES - 1) // commit):
            await store.append_many(batch)
        sys.stdout.write("full\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
