"""What waits for a sync, and asks for none: callers, and acknowledged records that grow older."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable

from aquipu.errors import AquipuError, copy_error
from aquipu.policy import Stage


def check_stage(stage: Stage) -> None:
    """Raise ValueError for a stage that no record of a store without an archive reaches."""
    if stage > Stage.SYNCED:
        raise ValueError(f"Stage.{stage.name} is for a store that is opened with it: see `Stage`")


class Reaching:
    """Futures by the sequence that they wait for. All of it belongs to the loop."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[Future[None], int] = {}

    async def wait(self, sequence: int) -> None:
        """Wait until what is synced goes beyond a sequence; raise what `fail` is given."""
        waiter: Future[None] = self._loop.create_future()
        self._waiting[waiter] = sequence
        try:
            await waiter
        finally:
            del self._waiting[waiter]

    def advance(self, synced_sequence: int) -> None:
        """Let go on who waits for records below."""
        for waiter, sequence in self._waiting.items():
            if sequence < synced_sequence and not waiter.done():
                waiter.set_result(None)

    def fail(self, error: AquipuError) -> None:
        """Give everyone who still waits an error of its own."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(copy_error(error))


class AgeTimer:
    """Has what is acknowledged synced before it is older than the policy allows."""

    def __init__(self, loop: AbstractEventLoop, sync: Callable[[], None]) -> None:
        self._loop = loop
        self._sync = sync
        self._timer: TimerHandle | None = None

    def watch(self, patience: float | None, *, is_safe: bool) -> None:
        """Ask for a sync so many seconds after this is first called with records that need one."""
        if is_safe:
            self.stop()
        elif patience is not None and self._timer is None:
            self._timer = self._loop.call_later(patience, self.due)

    def due(self) -> None:
        """Ask for it now."""
        self._timer = None
        self._sync()

    def stop(self) -> None:
        """Ask for none."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
