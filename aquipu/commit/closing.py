"""How a log is closed, and what becomes of one that never was."""

from __future__ import annotations

import warnings
from asyncio import AbstractEventLoop, CancelledError, wait
from weakref import WeakSet

import anyio

from aquipu.commit.committer import Committer
from aquipu.engine import CommitResult, Engine
from aquipu.errors import AquipuError, StoreClosedError, copy_error
from aquipu.policy import Stage
from aquipu.runtime.exit import before_exit

_CLOSING_PAUSE = 0.05
"""Seconds until closing looks whether something was lost to an interrupt, doubling."""
_CLOSING_PAUSE_MAX = 1.0


class Closable(Committer):
    """A committer that can be closed, and is left at the exit of the interpreter."""

    def __init__(self, engine: Engine, loop: AbstractEventLoop) -> None:
        super().__init__(engine, loop)
        _open.add(self)

    async def aclose(self) -> None:
        """Accept no more, wait for everything accepted, sync it, and let go of the store.

        It does so also when it is cancelled itself. Callers that still wait for room get
        StoreClosedError. Raises StoreFailedError when the store has failed; it is closed and
        unlocked all the same. The second call waits for the first.
        """
        self._check_owner()
        if self._closed is None:
            self._begin_closing()
        closed, pause = self._closed, _CLOSING_PAUSE
        assert closed is not None
        cancelled: CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not closed.done():
                try:
                    done, _ = await wait([closed], timeout=pause)
                except CancelledError as error:
                    cancelled = error
                    continue
                if not done:
                    self._cut_short = True
                    self._begin_closing()
                    pause = min(2 * pause, _CLOSING_PAUSE_MAX)
        if cancelled is not None:
            raise cancelled
        failure = closed.exception()
        if failure is not None:
            raise copy_error(failure)

    def _begin_closing(self) -> None:
        """Accept no more; called again, do what an interrupt has left undone."""
        if self._closed is None:
            self._closed = self._loop.create_future()
        self._life.close()
        self._engine.begin_closing()
        self._group.close_to_all()
        self._fail_all(
            [pending.waiter for pending in self._group.waiting], StoreClosedError(self._path)
        )
        self._group.waiting.clear()
        self._room.close(lambda: StoreClosedError(self._path))
        if self._cut_short:
            self._loop.call_soon(self._tick)
        elif self._group.under_way is None and not self._scheduled:
            self._submit()

    def _end(self) -> None:
        """Let go of the log: everything accepted is complete, and nothing more is accepted."""
        if self._engine.owes_last_sync and self._group.barrier(Stage.SYNCED, None):
            self._submit()
            return
        self._ending = True
        self._engine.close(self._finished)

    def _finished(self, outcome: CommitResult | AquipuError | None) -> None:
        """Let `aclose` return: the engine has let go of the log."""
        _open.discard(self)
        self._life.end()
        if isinstance(outcome, CommitResult):
            self._group.synced_sequence = outcome.synced_sequence
            self._counters.syncs = outcome.syncs
        if self._closed is None or self._closed.done():
            return
        if isinstance(outcome, AquipuError):
            self._closed.set_exception(outcome)
            self._closed.exception()  # aclose raises it; not the garbage collector
        else:
            self._closed.set_result(None)

    def _leave(self) -> bool:
        """Have what was accepted written in the background: the program has dropped the log.

        Return False when there was nothing to leave.
        """
        if self._life.is_forked:
            return False
        is_new = self._life.leave()
        under_way = self._group.under_way
        self._group.mend()
        remaining = self._group.remaining()
        left = self._engine.leave(remaining if under_way is None else [under_way, *remaining])
        return left and is_new

    def _warn(self) -> None:
        warnings.warn(
            f"{self!r} was never closed; use aclose() or `async with`",
            ResourceWarning,
            stacklevel=2,
            source=self,
        )


_open: WeakSet[Closable] = WeakSet()


def _leave_all() -> None:
    """Leave every log that is still open, at the exit of the interpreter."""
    left = [log for log in list(_open) if log._leave()]
    for log in left:  # when nothing can go wrong any more: the warning may be made an error
        log._warn()


def refuse_in_child() -> None:
    """Refuse everything in a forked child: the logs belong to its parent."""
    for log in list(_open):
        log._life.fork()
        log._group.close_to_all()
    _open.clear()


before_exit(_leave_all)
