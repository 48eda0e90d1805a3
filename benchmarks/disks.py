"""Disks for a store to stand on: one that keeps the time of its syncs, and one that is slow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter, sleep

from aquipu.local.disk.disk import Disk
from benchmarks.latency import Latencies


class WatchedDisk(Disk):
    """A disk of which one can see each call that makes something durable."""

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        with self.syncing():
            return super().write_synced(descriptor, buffers, offset)

    def sync(self, descriptor: int) -> None:
        with self.syncing():
            super().sync(descriptor)

    @contextmanager
    def syncing(self) -> Iterator[None]:
        yield


class TimedDisk(WatchedDisk):
    """Counts how long each sync takes."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = Latencies()

    @contextmanager
    def syncing(self) -> Iterator[None]:
        began = perf_counter()
        yield
        self.taken.note(perf_counter() - began)


class SlowDisk(WatchedDisk):
    """Takes so many seconds longer for each sync, from the moment that ``slow`` is set."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.slow = False
        self._seconds = seconds

    @contextmanager
    def syncing(self) -> Iterator[None]:
        if self.slow:
            sleep(self._seconds)
        yield
