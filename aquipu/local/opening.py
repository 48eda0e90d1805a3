"""Opens the files of a store: lock, recovery, journal, progress page.

Nothing blocks the loop, and nothing is left behind when an opening is cancelled.
"""

from __future__ import annotations

from functools import partial
from logging import getLogger
from time import monotonic, time_ns
from typing import TYPE_CHECKING, NamedTuple

import anyio

from aquipu.errors import StoreAlreadyOpenError, StoreLockedError, needed
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import reported
from aquipu.local.disk.lock import Lock, holder_of, is_in_use_here
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.system import process_id, random_bytes
from aquipu.local.format.progress import Published
from aquipu.local.index.indexer import Indexer
from aquipu.local.preload import load
from aquipu.local.retain.retention import nanoseconds_of
from aquipu.local.write.generation import Generations
from aquipu.local.write.journal import Journal
from aquipu.local.write.progress_page import ProgressPage
from aquipu.local.write.worker import Worker
from aquipu.options import Options
from aquipu.runtime.handoff import Handoff

if TYPE_CHECKING:
    from aquipu.local.write.recovery import RecoveryReport

_LOCK_PAUSE = 0.01  # seconds between two attempts, doubling
_LOCK_PAUSE_MAX = 0.25
_SAID_AFTER = 1.0  # seconds of waiting

_log = getLogger(__name__)


class Opened(NamedTuple):
    """The files of a store, opened and locked by this process."""

    journal: Journal
    report: RecoveryReport
    lock: Lock
    page: ProgressPage
    generations: Generations

    def drop(self) -> None:
        """Undo an opening whose caller was cancelled."""
        self.journal.drop()
        self.page.close()
        self.lock.release()


async def open_files(path: str, options: Options, disk: Disk, handoff: Handoff) -> Opened:
    """Make the directory if need be, wait for its lock, and recover what it holds.

    Raises what `Store.open` raises.
    """
    await load(handoff)
    await handoff.run(_check_place, disk, path)
    lock = await take_lock(path, options.lock_timeout, disk, handoff)
    try:
        return await handoff.run(recover_files, path, options, disk, lock, undo=Opened.drop)
    except RuntimeError:  # the loop's pool takes no more calls, and the lock with them
        lock.release()
        raise


async def take_lock(path: str, seconds: float, disk: Disk, handoff: Handoff) -> Lock:
    """Take the lock of the store as soon as its holder releases it.

    Raises StoreLockedError after so many seconds, and StoreAlreadyOpenError at once when the holder
    is this process.
    """
    began, pause = monotonic(), _LOCK_PAUSE
    deadline, is_said = began + seconds, False
    while True:
        lock = await handoff.run(_try_lock, disk, path, undo=_release)
        if lock is not None:
            return lock
        if await handoff.run(is_in_use_here, disk, path):  # waiting for ourselves would not end
            raise StoreAlreadyOpenError(path, process_id())
        left = deadline - monotonic()
        if left <= 0:
            raise StoreLockedError(path, await handoff.run(holder_of, disk, path))
        if not is_said and monotonic() - began >= _SAID_AFTER:
            is_said = True
            holder = await handoff.run(holder_of, disk, path)
            _log.warning(
                "%s is in use by process %s: waiting until it is closed there, %.0f s more at most",
                path,
                holder,
                left,
            )
        await anyio.sleep(min(pause, left))
        pause = min(2 * pause, _LOCK_PAUSE_MAX)


# on a thread, where recovery is imported too: it takes a moment, and a program that only imports
# the package needs none of it


def _check_place(disk: Disk, path: str) -> None:
    from aquipu.local.write.recovery import check_place

    check_place(disk, path)


def _try_lock(disk: Disk, path: str) -> Lock | None:
    with translate_os_errors(path, "lock"):
        return Lock.take(disk, path)


def _release(lock: Lock | None) -> None:
    if lock is not None:
        lock.release()


def recover_files(path: str, options: Options, disk: Disk, lock: Lock) -> Opened:
    """Recover the store and return its files.

    Owns the lock: it is either in what is returned, or released.
    """
    from aquipu.local.write.recovery import entitle, recover

    try:
        if options.rights is not None:
            entitle(disk, path)
        journal, report = recover(
            disk,
            path,
            max_segment_bytes=options.max_segment_bytes,
            new_store_id=random_bytes(16),
            now=time_ns(),
            retention=options.retention,
            lock=lock,
        )
        if options.max_segment_age is not None:
            journal.aging.limit(nanoseconds_of(options.max_segment_age))
    except BaseException:
        lock.release()
        raise
    try:
        with reported(path, "open"):
            store_id = journal.segments[-1].header.store_id
            generations = Generations.begin(
                disk, path, store_id, journal.next_sequence, created=report.created
            )
            page = _create_page(disk, path, journal, generations.current)
            if not page.has_file:
                generations.disown_page()
    except BaseException:
        journal.drop()
        lock.release()
        raise
    journal.generations = generations
    journal.keep_reserves()
    return Opened(journal, report, lock, page, generations)


def _create_page(disk: Disk, path: str, journal: Journal, generation: bytes) -> ProgressPage:
    """Publish what has been found: it is as good as acknowledged, and may be seen elsewhere."""
    first, active = journal.segments[0], journal.segments[-1]
    published = Published(journal.next_sequence, active.first_sequence, first.first_sequence)
    return ProgressPage.create(disk, path, active.header.store_id, published, generation)


def permitted(disk: Disk | None, options: Options) -> Disk:
    """Return a disk that makes files with the rights that were asked for.

    ValueError for an unknown group; ModuleNotFoundError where nothing can be compressed.
    """
    if options.compress:
        _check_compression()
    disk = Disk() if disk is None else disk
    if options.rights is not None:
        try:
            disk.permit(options.rights, options.group)
        except LookupError as error:
            raise ValueError(str(error)) from None
    return disk


def _check_compression() -> None:
    try:
        import zstandard  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"compress=True needs {needed('zstandard', 'compress')}", name=error.name
        ) from None


def indexing(
    options: Options, disk: Disk, worker: Worker, journal: Journal, report: RecoveryReport
) -> Indexer:
    """Return what builds the label indexes of sealed segments, and compresses them before."""
    compressor = None
    if options.compress:
        from aquipu.local.compress.segment import Compressor

        def resized(first_sequence: int, size: int) -> None:
            worker.note(partial(Journal.resized, first_sequence=first_sequence, size=size))

        compressor = Compressor(disk, lambda: journal.segments[0].first_sequence, resized)
    return Indexer(disk, report.next_sequence, compressor)
