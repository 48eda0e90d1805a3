"""How large the measurements are, and where they write."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
RECORD_BYTES = 256
RECORD = bytes(range(256)) * (RECORD_BYTES // 256)
CALLERS = (1, 64, 1024)


@dataclass(frozen=True)
class Settings:
    """Sizes of a full run; `quick` and `smallest` are shorter, and say less."""

    directory: Path
    """Scratch space on a real disk; whoever made it removes it."""
    rounds: int = 3
    seconds: float = 1.0
    """Of one measured run."""
    records: int = 1_000_000
    """In the stores that are read."""
    gets: int = 2_000
    """Of one measured run."""
    segments: int = 100
    """Sealed ones, in the store that is opened."""
    openings: int = 11
    """Of one measured run."""
    active_bytes: int = 64 * MIB
    """Of the segment that is being written when the process is killed."""
    processes: int = 7
    """Started in one measured run of `imports`."""
    steady_seconds: float = 60.0
    steady_segment_bytes: int = 8 * MIB
    following_seconds: float = 20.0
    """Of one paced run, with followers or while tables are built."""
    labels: int = 100_000
    """Distinct ones, in the store in which records are found."""
    labelled: int = 5_000_000
    """Records with labels, in the long run of `labels`."""
    finding_segment_bytes: int = 64 * MIB
    finds: int = 400
    """Of one measured run."""
    servers: bool = True
    """Whether to start Redis, PostgreSQL and uvicorn."""
    loop_factory: Callable[[], AbstractEventLoop] | None = None
    """None: plain asyncio."""


def full(directory: Path, *, servers: bool) -> Settings:
    """What the figures in the README were measured with."""
    return Settings(directory, servers=servers)


def quick(directory: Path, *, servers: bool) -> Settings:
    """Enough to see that everything runs, and roughly how fast."""
    return Settings(
        directory,
        seconds=0.2,
        records=100_000,
        gets=200,
        segments=20,
        openings=3,
        active_bytes=8 * MIB,
        processes=2,
        steady_seconds=3.0,
        steady_segment_bytes=MIB,
        following_seconds=2.0,
        labels=10_000,
        labelled=200_000,
        finding_segment_bytes=8 * MIB,
        finds=40,
        servers=servers,
    )


def smallest(directory: Path, *, servers: bool) -> Settings:
    """The shortest run that still prints every table. Its figures mean nothing."""
    return Settings(
        directory,
        rounds=1,
        seconds=0.02,
        records=2_000,
        gets=10,
        segments=3,
        openings=1,
        active_bytes=MIB // 4,
        processes=1,
        steady_seconds=0.2,
        steady_segment_bytes=MIB // 16,
        following_seconds=0.2,
        labels=1_000,
        labelled=2_000,
        finding_segment_bytes=MIB // 8,
        finds=2,
        servers=servers,
    )
