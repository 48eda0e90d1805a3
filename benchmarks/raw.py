"""What the disk itself allows: one thread, no loop, no format."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter

from benchmarks.settings import MIB, RECORD

_ZEROS = 16 * MIB


def writes(directory: Path, seconds: float, *, zero_filled: bool) -> float:
    """pwrite + fdatasync of one record, per second; into a file that grows with each, or into zeros
    that are there.
    """
    descriptor = _create(directory / "raw")
    try:
        if zero_filled:
            os.pwrite(descriptor, bytes(_ZEROS), 0)
            os.fsync(descriptor)
        done = offset = 0
        began = perf_counter()
        while (elapsed := perf_counter() - began) < seconds:
            os.pwrite(descriptor, RECORD, offset)
            os.fdatasync(descriptor)
            done += 1
            offset += len(RECORD)
            if zero_filled:
                offset %= _ZEROS
        return done / elapsed
    finally:
        os.close(descriptor)


def sequential(directory: Path, seconds: float, *, synced_bytes: int) -> float:
    """Bytes per second of writing a growing file in pieces of 1 MiB, with an fdatasync after each
    ``synced_bytes``.
    """
    descriptor = _create(directory / "sequential")
    piece = os.urandom(MIB)
    try:
        offset = 0
        began = perf_counter()
        while (elapsed := perf_counter() - began) < seconds:
            for _ in range(synced_bytes // MIB):
                offset += os.pwrite(descriptor, piece, offset)
            os.fdatasync(descriptor)
        return offset / elapsed
    finally:
        os.close(descriptor)


def _create(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
