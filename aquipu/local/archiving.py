"""The embedded engine with an archive: a thread of its own carries the log there.

It reads what has been acknowledged, as a reader of another process does, and syncs it; the worker
knows nothing of it, and no append waits. When the store is closed, what has come last is carried as
well, if the object store answers within a few seconds; a request that it has not answered by then
is left behind.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from logging import getLogger
from socket import gethostname
from threading import Thread
from time import monotonic
from typing import Any

from aquipu.archive.archive import Archive
from aquipu.archive.bucket import Bucket
from aquipu.archive.errors import ArchiveError
from aquipu.archive.log import SYNC, Log, bookmarks_of
from aquipu.archive.read.files import ObjectDisk
from aquipu.archive.read.joined import Joined, JoinedReader
from aquipu.archive.uploader import Progress, Uploader
from aquipu.engine import CommitResult
from aquipu.errors import AquipuError, RecordNotWrittenError, StoreClosedError, copy_error
from aquipu.local.cursor import hold_beside_writer
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.system import process_id
from aquipu.local.engine import LocalEngine
from aquipu.local.format.history import History
from aquipu.local.log import LocalReader
from aquipu.local.opening import Opened, open_files
from aquipu.local.reaching import Reaching
from aquipu.local.read.snapshot import Snapshot
from aquipu.options import Options
from aquipu.policy import Stage
from aquipu.reading import Face
from aquipu.runtime.handoff import Handoff
from aquipu.statistics import Archived, Measured

_LAST_SECONDS = 5.0
"""Seconds that a store that is being closed waits for what has come last to be archived."""
_TROUBLE, _BLOCKED = "archive", "archive: the store"

_log = getLogger(__name__)


class _EngineLog(Log):
    """The log of an engine, from the thread that carries it."""

    def __init__(self, engine: ArchivedEngine) -> None:
        self._engine = engine
        self._synced = 0  # one past the last record that a sync of ours has covered

    @property
    def store_id(self) -> bytes:
        return self._engine.published().segments[-1].header.store_id

    @property
    def next_sequence(self) -> int:
        return self._engine.next_sequence

    def look(self) -> Snapshot:
        """Return what may be seen, synced.

        A sync that has failed, here or of the worker, is never made up for: what was not on the
        disk by then is not seen.
        """
        view = self._engine.published()
        active = view.segments[-1]
        safe = max(self._engine.synced_sequence, active.first_sequence, self._synced)
        if view.stop <= safe:
            # also when less may be seen, because the store has failed: it was acknowledged
            return view._replace(stop=max(view.stop, self._synced))
        disk = view.disk
        with translate_os_errors(active.path, SYNC), suppress(FileNotFoundError):
            with opened(disk, active.path) as descriptor:
                disk.sync(descriptor)
        if self._engine.is_doubtful:  # looked at behind the sync
            return view._replace(stop=safe)
        self._synced = view.stop
        return view

    def history(self) -> History | None:
        return self._engine.history

    def bookmarks(self) -> dict[str, bytes]:
        return bookmarks_of(self._engine.disk, self._engine.path)

    def hold(self, name: str, sequence: int) -> bool:
        return hold_beside_writer(self._engine.disk, self._engine.path, name, sequence)


class ArchivedEngine(LocalEngine):
    """The files of one log, open for writing, and carried to an archive."""

    def __init__(
        self,
        path: str,
        options: Options,
        disk: Disk,
        loop: AbstractEventLoop,
        handoff: Handoff,
        opened: Opened,
        bucket: Bucket,
    ) -> None:
        super().__init__(path, options, disk, loop, handoff, opened)
        archive: Archive = options.archive
        self._archived = Reaching(loop)
        self._joined = Joined(self, partial(ObjectDisk, bucket))
        self._ended: ArchiveError | AquipuError | None = None
        self._when_carried: Callable[[], None] | None = None
        self._uploader = Uploader(
            bucket,
            _EngineLog(self),
            f"process {process_id()} of {gethostname()}",
            interval=archive.interval,
            hold=archive.hold,
            compress=archive.compress,
            told=self._told,
        )
        self._carrier = Thread(target=self._carry, name="aquipu-archive", daemon=True)
        self._carrier.start()

    @property
    def history(self) -> History | None:
        """The generations of the store."""
        return self._generations.history

    @property
    def is_doubtful(self) -> bool:
        """Whether a sync of the worker has failed, or may be failing just now."""
        return self._journal.is_doubtful

    # on the thread that carries

    def _carry(self) -> None:
        try:
            self._uploader.follow()
        except AquipuError as error:
            self._stopped(error)
        except Exception as error:  # a fault of ours must not end in silence
            self._stopped(AquipuError(f"{self.path}: its archive has failed: {error!r:.200}"))
        finally:
            self._call(self._carried)

    def _stopped(self, error: AquipuError) -> None:
        self._journal.troubles.end(_BLOCKED)
        _log.error("%s: the archive has stopped: %s", self.path, error)
        self._journal.troubles.begin(_TROUBLE, f"the archive has stopped: {error}")
        self._call(partial(self._end, error))

    def _told(self, progress: Progress) -> None:
        if progress.ended is not None:
            return
        self._note(_TROUBLE, "the archive does not answer", progress.trouble)
        self._note(_BLOCKED, "the archive has to wait", progress.blocked)
        self._call(partial(self._archived.advance, progress.next_sequence))

    def _note(self, cause: str, what: str, reason: str | None) -> None:
        """Have health say what is in the way of the archive, or that it is not any more."""
        troubles = self._journal.troubles
        if reason is None:
            troubles.end(cause)
        elif troubles.begin(cause, f"{what}: {reason}"):
            _log.warning(
                "%s: %s: %s; nothing waits for it, and it is tried again", self.path, what, reason
            )

    def _call(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop was closed under the store
            self._loop.call_soon_threadsafe(call)

    # in the loop

    def _end(self, error: AquipuError) -> None:
        self._ended = error
        self._archived.fail(error)

    def _carried(self) -> None:
        if self._ended is None:
            self._archived.fail(StoreClosedError(self.path))
        then, self._when_carried = self._when_carried, None
        if then is not None:
            then()

    def _let_go(
        self,
        done: Callable[[CommitResult | AquipuError | None], None],
        outcome: CommitResult | AquipuError,
    ) -> None:
        """Have what has come last carried, when all is written, and then end."""
        self._joined.close()
        let_go = partial(self._say_behind, partial(super()._let_go, done, outcome), outcome)
        if not self._carrier.is_alive():
            let_go()
            return
        self._when_carried = let_go
        self._uploader.finish(_LAST_SECONDS)

    def _say_behind(self, then: Callable[[], None], outcome: CommitResult | AquipuError) -> None:
        """Log how many records a store that was closed well has not archived, and go on."""
        end = self.next_sequence
        records = end - self._uploader.progress.next_sequence
        if records > 0 and not isinstance(outcome, AquipuError):
            _log.warning(
                "%s is closed; records that are not archived: %d, up to sequence %d; they are safe "
                "in the store, and go up when it is opened with its archive again",
                *(self.path, records, end - 1),
            )
        then()

    def leave(self, commits: list[Any]) -> bool:
        self._uploader.finish(_LAST_SECONDS)
        return super().leave(commits)

    # what is there

    def reader(self, face: Face) -> LocalReader:
        """Return what reads the log, and what was purged of it from the archive."""
        return JoinedReader(self, face, self._joined)

    def measure(self) -> Measured:
        progress = self._uploader.progress
        behind = max(self.next_sequence - progress.next_sequence, 0)
        seconds = monotonic() - progress.covered if behind else 0.0
        return super().measure()._replace(archive=Archived(progress.next_sequence, behind, seconds))

    async def reached(self, stage: Stage, sequence: int) -> None:
        if stage is not Stage.ARCHIVED:
            await super().reached(stage, sequence)
            return
        if sequence >= self.next_sequence:
            raise RecordNotWrittenError(self.path, sequence, self.next_sequence)
        if sequence < self._uploader.progress.next_sequence:
            return
        if self._ended is not None:
            raise copy_error(self._ended)
        await self._archived.wait(sequence)


async def open_archived(path: str, options: Options, disk: Disk) -> ArchivedEngine:
    """Open the files of the log in a directory, which is carried to an archive.

    Raises what `Store.open` raises, and ArchiveUnavailableError where the archive cannot be
    reached whatever comes: a missing package, or an option that is none.
    """
    loop = get_running_loop()
    handoff = Handoff(loop)
    archive: Archive = options.archive
    bucket = await handoff.run(archive.bucket_for, path)
    files = await open_files(path, options, disk, handoff)
    try:
        return ArchivedEngine(path, options, disk, loop, handoff, files, bucket)
    except BaseException:  # no thread for the worker
        files.drop()
        raise
