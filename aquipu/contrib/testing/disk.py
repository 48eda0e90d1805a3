"""A disk with real files that goes wrong on demand."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from errno import EIO, ENOSPC
from typing import NamedTuple

import anyio
import pytest

from aquipu import Disk

STANDSTILL_SECONDS_MAX = 60.0
"""How long a disk stands still at most: a test that forgets to mend it fails, and does not hang."""


class _Fault(NamedTuple):
    errno: int | None
    """What writes end in; None: nothing."""
    syncs: bool
    """Whether syncs end in it too."""
    seconds: float
    """That every call takes first."""
    met: threading.Event
    """A write or a sync has come to it."""
    over: threading.Event
    """Ends the waiting."""


class FaultyDisk(Disk):
    """A disk with real files whose writes and syncs go wrong on demand.

    Otherwise syncs cost nothing: no test cuts the power. Each call replaces what was asked for
    before; it may be made at any time, from any thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self.struck = 0
        """How many writes and syncs have met a fault."""
        self._fault: _Fault | None = None

    def fail(self) -> None:
        """Make every write and sync fail (EIO).

        The next commit fails the store, its callers get StoreFailedError.
        """
        self._become(EIO, syncs=True)

    def fill(self) -> None:
        """Make every write fail for lack of space (ENOSPC), with none free.

        Callers get StoreFullError, and after `mend` the same store goes on.
        """
        self._become(ENOSPC)

    def slow_down(self, seconds: float) -> None:
        """Make every write and sync take this much longer.

        ValueError unless it is a time from 0 to a minute.
        """
        if not 0 <= seconds <= STANDSTILL_SECONDS_MAX:
            raise ValueError(
                f"a disk is slower by 0 to {STANDSTILL_SECONDS_MAX} seconds, not {seconds}"
            )
        self._become(None, seconds=seconds)

    def stop(self) -> None:
        """Make every write and sync wait for `mend`; after `STANDSTILL_SECONDS_MAX` it fails."""
        self._become(EIO, syncs=True, seconds=STANDSTILL_SECONDS_MAX)

    def mend(self) -> None:
        """Make the disk sound from now on; what waits goes through.

        A store that has failed stays so until it is reopened.
        """
        fault, self._fault = self._fault, None
        if fault is not None:
            fault.over.set()

    def free(self, path: str) -> int:
        fault = self._fault
        return 0 if fault is not None and fault.errno == ENOSPC else super().free(path)

    async def reached(self) -> None:
        """Wait until a write or a sync has met the fault that is set now.

        The test fails when there is no fault, or nothing has come to it within
        `STANDSTILL_SECONDS_MAX`.
        """
        fault = self._fault
        if fault is None or not await anyio.to_thread.run_sync(
            fault.met.wait, STANDSTILL_SECONDS_MAX, abandon_on_cancel=True
        ):
            pytest.fail(
                "nothing was written to the disk since it was told to go wrong, "
                "or it was not told to"
            )

    def write(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> None:
        self._strike()
        super().write(descriptor, buffers, offset)

    def write_synced(self, descriptor: int, buffers: Sequence[bytes], offset: int) -> bool:
        self._strike()
        super().write(descriptor, buffers, offset)
        return True

    def sync(self, descriptor: int) -> None:
        self._strike(sync=True)

    def sync_directory(self, path: str) -> None:
        self._strike(sync=True)

    def _become(self, errno: int | None, *, syncs: bool = False, seconds: float = 0.0) -> None:
        self.mend()
        self._fault = _Fault(errno, syncs, seconds, threading.Event(), threading.Event())

    def _strike(self, *, sync: bool = False) -> None:
        fault = self._fault
        if fault is None:
            return
        self.struck += 1
        fault.met.set()
        mended = fault.over.wait(fault.seconds) if fault.seconds else False
        if fault.errno is not None and not mended and (fault.syncs or not sync):
            raise OSError(fault.errno, os.strerror(fault.errno))
