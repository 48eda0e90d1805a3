"""From a path to a journal with its lock, without blocking the loop and without leaving anything behind when cancelled."""

from __future__ import annotations

from time import monotonic, time_ns
from typing import TYPE_CHECKING, NamedTuple

import anyio

from aquipu.acknowledged import Board, Standing
from aquipu.disk import Disk, explained, random_bytes
from aquipu.errors import StoreLockedError
from aquipu.handoff import Handoff
from aquipu.journal import Journal
from aquipu.lock import Lock, holder_of
from aquipu.options import Options

if TYPE_CHECKING:
    from aquipu.recovery import RecoveryReport

_LOCK_PAUSE = 0.01  # seconds between two attempts, doubling
_LOCK_PAUSE_MAX = 0.25


class Opened(NamedTuple):
    """The files of a store, ours alone."""

    journal: Journal
    report: RecoveryReport
    lock: Lock
    board: Board

    def drop(self) -> None:
        """Undo an opening that nobody waits for any more."""
        self.journal.drop()
        self.board.close()
        self.lock.release()


async def open_files(path: str, options: Options, disk: Disk, handoff: Handoff) -> Opened:
    """Make the directory if need be, wait for its lock, recover what it holds. Raises what `Store.open` raises."""
    await handoff.run(_check_place, disk, path)
    lock = await take_lock(path, options.lock_timeout, disk, handoff)
    try:
        return await handoff.run(_recover, path, options, disk, lock, undo=Opened.drop)
    except RuntimeError:  # the loop's pool takes no more calls, and the lock with them
        lock.release()
        raise


async def take_lock(path: str, seconds: float, disk: Disk, handoff: Handoff) -> Lock:
    """The lock of the store, as soon as its holder lets go. StoreLockedError after so many seconds."""
    deadline, pause = monotonic() + seconds, _LOCK_PAUSE
    while True:
        lock = await handoff.run(_try_lock, disk, path, undo=_release)
        if lock is not None:
            return lock
        left = deadline - monotonic()
        if left <= 0:
            raise StoreLockedError(path, await handoff.run(holder_of, disk, path))
        await anyio.sleep(min(pause, left))
        pause = min(2 * pause, _LOCK_PAUSE_MAX)


# on a thread, where recovery is imported too: it takes a moment, and a program that only imports us needs none of it


def _check_place(disk: Disk, path: str) -> None:
    from aquipu.recovery import check_place

    check_place(disk, path)


def _try_lock(disk: Disk, path: str) -> Lock | None:
    with explained(path, "lock"):
        return Lock.take(disk, path)


def _release(lock: Lock | None) -> None:
    if lock is not None:
        lock.release()


def _recover(path: str, options: Options, disk: Disk, lock: Lock) -> Opened:
    """Owns the lock: it is either in what comes back, or released."""
    from aquipu.recovery import recover

    try:
        journal, report = recover(
            disk,
            path,
            max_segment_bytes=options.max_segment_bytes,
            new_store_id=random_bytes(16),
            now=time_ns(),
            retention=options.retention,
        )
    except BaseException:
        lock.release()
        raise
    return Opened(journal, report, lock, _put_up(disk, path, journal))


def _put_up(disk: Disk, path: str, journal: Journal) -> Board:
    """What has been found is as good as acknowledged: it is safe, and readers in other processes may see it."""
    first, active = journal.catalogue[0], journal.catalogue[-1]
    standing = Standing(journal.next_sequence, active.first_sequence, first.first_sequence)
    return Board.put_up(disk, path, active.header.store_id, standing)
