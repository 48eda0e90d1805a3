"""A process that appends to a store as fast as it can, until it is terminated.

``python -m tests.backups.writer STORE SEGMENT_BYTES RETENTION_BYTES``. Each record begins with its
sequence, so that whoever has read it knows that it stands where it should.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aquipu import EveryN, Retention, Store

RECORD = bytes(240)
BATCHES, BATCH = 8, 16


def data_of(sequence: int) -> bytes:
    """The data of a record."""
    return b"%016d" % sequence + RECORD[: sequence % 241]


async def write(path: str, segment_bytes: int, retention_bytes: int) -> None:
    """Append, with eight callers that wait for their batches, until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    retention = Retention(max_bytes=retention_bytes) if retention_bytes else None
    async with Store.open(
        path, max_segment_bytes=segment_bytes, sync_policy=EveryN(64), retention=retention
    ) as store:
        given = store.next_sequence
        sys.stdout.write("begun\n")
        sys.stdout.flush()

        async def append() -> None:
            nonlocal given
            while not ended.is_set():
                first, given = given, given + BATCH
                sequences = range(first, given)
                receipts = await store.append_many(list(map(data_of, sequences)))
                assert receipts[0].sequence == first

        await asyncio.gather(*(append() for _ in range(BATCHES)))


@contextmanager
def writing(path: Path, segment_bytes: int, retention_bytes: int = 0) -> Iterator[None]:
    """Have a store written by another process meanwhile."""
    command = [sys.executable, "-m", "tests.backups.writer"]
    command += [str(path), str(segment_bytes), str(retention_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"begun\n"
            yield
            assert process.poll() is None, "the writer has ended by itself"
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
