"""A disk at which its process is killed, and the kills that are possible there.

A kill stands before one of the calls that change something; if it is a write, also within it and
right behind it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import NamedTuple

from aquipu.local.disk.disk import Disk

CHANGING = (
    *("try_lock", "make_directories", "create", "rename", "remove", "sync_directory"),
    *("write", "write_synced", "sync", "truncate", "share"),
)
"""The calls that change something."""
_WRITES = ("write", "write_synced")


class CrashingDisk(Disk):
    """Kills the process at one of the calls that change something, before it, or with a part of its
    bytes written.
    """

    def __init__(self, moment: int, share: float, called: Callable[[str], None]) -> None:
        super().__init__()
        self._left = moment
        self._share = share
        self._called = called

    def _passes(self, call: str) -> bool:
        """Whether the process outlives this call."""
        self._left -= 1
        self._called(call)
        if self._left == 0 and not (self._share and call in _WRITES):
            kill_self()
        return self._left != 0

    def try_lock(self, path: str, *, shared: bool = False) -> int | None:
        self._passes("try_lock")
        return super().try_lock(path, shared=shared)

    def make_directories(self, path: str) -> None:
        self._passes("make_directories")
        super().make_directories(path)

    def create(self, path: str) -> int:
        self._passes("create")
        return super().create(path)

    def rename(self, old: str, new: str) -> None:
        self._passes("rename")
        super().rename(old, new)

    def remove(self, path: str) -> None:
        self._passes("remove")
        super().remove(path)

    def sync_directory(self, path: str) -> None:
        self._passes("sync_directory")
        super().sync_directory(path)

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        if not self._passes("write"):
            super().write(descriptor, [self._part(buffers)], offset)
            kill_self()
        super().write(descriptor, buffers, offset)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        if not self._passes("write_synced"):
            super().write_synced(descriptor, [self._part(buffers)], offset)
            kill_self()
        return super().write_synced(descriptor, buffers, offset)

    def _part(self, buffers: Sequence[bytes]) -> bytes:
        whole = b"".join(buffers)
        return whole[: int(self._share * len(whole))]

    def sync(self, descriptor: int) -> None:
        self._passes("sync")
        super().sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        self._passes("truncate")
        super().truncate(descriptor, size)

    def share(self, path: str, data: bytes) -> int:
        self._passes("share")
        return super().share(path, data)


def kill_self() -> None:
    """By SIGKILL, at once."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # the signal may be taken by another thread: this one does nothing more


class Kill(NamedTuple):
    """At a call to the disk (from 1), after a share of the bytes that it writes."""

    moment: int
    share: float
    call: str


def kills_of(trace: Sequence[str], share: float) -> list[Kill]:
    """Every kill that is possible at the calls of a run with this trace;

    ``share`` is that of a kill within a write.
    """
    kills = []
    for moment, call in enumerate(trace, 1):
        kills += [
            Kill(moment, part, call) for part in ((0.0, share, 1.0) if call in _WRITES else (0.0,))
        ]
    return kills


def kill_in_seal(trace: Sequence[str]) -> Kill | None:
    """In the middle of the first footer: it is written after the successor has its name, and the
    zeros behind are cut.
    """
    roll = ["rename", "sync_directory", "truncate", "write"]
    for moment in range(len(roll), len(trace)):
        if list(trace[moment - len(roll) : moment]) == roll:
            return Kill(moment, 0.5, "write")
    return None
