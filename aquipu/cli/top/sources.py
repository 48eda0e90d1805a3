"""Where samples come from: the directory of a store, seen from outside, or the daemon that has it.

A directory is looked at as every reader does: the page of its writer is read, which is one short
read, and now and then its names and the cursors. Of a store that others share, or that is served,
the daemon is asked for its statistics, its health and its cursors, through one connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from time import monotonic
from typing import Protocol

from anyio import fail_after, to_thread

from aquipu.cli.top.samples import Behind, Sample, WriterSeen
from aquipu.errors import AquipuError, NotAStoreError
from aquipu.local.check.diagnosis.diagnose import writer_at
from aquipu.local.disk.directory import check_there
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.disk.paths import SCHEME, address_in, is_shared
from aquipu.local.disk.system import process_state
from aquipu.local.format.names import (
    ACKNOWLEDGED,
    HISTORY,
    MANIFEST,
    SOCKET,
    BookmarkKind,
    first_sequence_of,
)
from aquipu.local.format.progress import Published
from aquipu.local.read.examine import examine
from aquipu.local.read.progress_reader import ProgressReader
from aquipu.local.retain.bookmarks import bookmark_names, read_bookmark
from aquipu.local.retain.manifest import read_manifest
from aquipu.reader import Reader
from aquipu.remote.store import RemoteStore
from aquipu.statistics import Statistics
from aquipu.store import Store

_SELDOM = 5.0  # seconds between two looks at the names in a directory
_ANSWER_SECONDS = 3.0  # a daemon that is silent for longer is shown as such


class Source(Protocol):
    """Gives samples of one store."""

    name: str
    """As it is called on the screen."""

    async def sample(self) -> Sample:
        """Look once; what is wrong with the store is in the sample.

        Raises AquipuError only the first time, where there is no store.
        """


@asynccontextmanager
async def source_of(store: str) -> AsyncIterator[Source]:
    """Give what samples a store: a directory, or the address of a daemon.

    Of a directory that processes share, the one that writes is asked, if it answers.
    """
    address = address_in(store)
    if address is None and is_shared(store):
        address = f"{SCHEME}{store}/{SOCKET}"
    if address is not None:
        try:
            connection = await Store.connect(address, timeout=_ANSWER_SECONDS)
        except (AquipuError, ValueError):
            if address_in(store) is not None:
                raise
        else:
            async with connection:
                yield DaemonSource(store, connection, await _pid_of(connection))
            return
    yield DirectorySource(store, Disk())


@asynccontextmanager
async def read_source(opening: AbstractAsyncContextManager[Reader]) -> AsyncIterator[Source]:
    """Give what samples a log in a database, or an archive: what its readers see."""
    async with opening as reader:
        yield ReaderSource(reader)


class ReaderSource:
    """A log as any reader of it sees it: how far it reaches, and how far consumers are behind."""

    def __init__(self, reader: Reader) -> None:
        self.name = reader.path
        self._reader = reader
        self._last: Sample | None = None

    async def sample(self) -> Sample:
        """Read the newest record, and the cursors."""
        try:
            with fail_after(_ANSWER_SECONDS):
                self._last = await self._read()
                return self._last
        except (AquipuError, TimeoutError) as error:
            reason = str(error) or f"there is no answer for {_ANSWER_SECONDS:.0f} s"
            last = self._last or Sample(monotonic())
            return last._replace(at=monotonic(), health="away", reasons=(reason,))

    async def _read(self) -> Sample:
        reader, acknowledged = self._reader, self._reader.next_sequence
        async with reader.scan(reverse=True) as records:
            async for newest in records:
                acknowledged = newest.sequence + 1
                break
        lags = await reader.cursors()
        return Sample(
            at=monotonic(),
            first=reader.first_sequence,
            acknowledged=acknowledged,
            consumers={name: Behind(lag.records, lag.seconds) for name, lag in lags.items()},
            writer=WriterSeen(None, None),
        )


async def _pid_of(connection: RemoteStore) -> int | None:
    """Return the process that has the files, if they can be seen from here."""
    with suppress(AquipuError, OSError):
        writer = writer_at(Disk(), await connection.daemon_place())
        return None if writer is None else writer.pid
    return None


class DirectorySource:
    """A store seen from outside: what its writer has put on its page, and what lies there."""

    def __init__(self, path: str, disk: Disk) -> None:
        self.name = path
        self._disk = disk
        self._path = path
        self._store_id: bytes | None = None
        self._page: ProgressReader | None = None
        self._files = (0, 0)
        self._seldom_at = 0.0
        self._sequences: dict[str, int] = {}
        self._at_rest: tuple[int, int] | None = None
        self._rests_as: object = None  # what it looked like when that was found
        self._writer: WriterSeen | None = None

    async def sample(self) -> Sample:
        """Look once, on a thread: a disk that hangs holds nothing up but the number itself."""
        return await to_thread.run_sync(self._look, abandon_on_cancel=True)

    def _look(self) -> Sample:
        disk, path = self._disk, self._path
        if self._store_id is None:
            self._store_id = _store_id(disk, path)
        now = monotonic()
        try:
            return self._sample(now)
        except (AquipuError, OSError) as error:
            return Sample(now, health="away", reasons=(str(error),))

    def _sample(self, now: float) -> Sample:
        disk, path = self._disk, self._path
        found = writer_at(disk, path)
        was, self._writer = self._writer, None
        if found is not None:
            state = None if found.pid is None else process_state(found.pid)
            self._writer = WriterSeen(found.pid, state)
        if now >= self._seldom_at:
            self._seldom_at = now + _SELDOM
            self._files = _sizes(disk, path)
            self._sequences = _cursors(disk, path, self._store_id)
        published = self._published()
        if self._writer is None and (looks := _appearance(disk, path)) != self._rests_as:
            self._rests_as, self._at_rest = looks, _bounds(disk, path)
        first, acknowledged = self._reach(published)
        health, reasons = _judged(self._writer, was)
        return Sample(
            at=now,
            first=first,
            acknowledged=acknowledged,
            writer=self._writer,
            segments=self._files[0],
            disk_bytes=self._files[1],
            free_bytes=disk.free(path),
            consumers={
                name: Behind(max(acknowledged - sequence, 0), None)
                for name, sequence in self._sequences.items()
            },
            health=health,
            reasons=reasons,
        )

    def _reach(self, published: Published | None) -> tuple[int, int]:
        """Return the first sequence kept, and one past the last that is acknowledged."""
        if self._writer is None and self._at_rest is not None:
            return self._at_rest
        if published is None:
            return self._at_rest or (0, 0)
        return published.first_sequence, published.acknowledged

    def _published(self) -> Published | None:
        disk, page = self._disk, self._page
        assert self._store_id is not None
        with suppress(FileNotFoundError):
            if page is None or disk.identity(f"{self._path}/{ACKNOWLEDGED}") != page.identity:
                self._page = page = ProgressReader.open(disk, self._path, self._store_id)
        return None if page is None or not page.is_live else page.read()


def _store_id(disk: Disk, path: str) -> bytes:
    """Return the id of the store that must be there. Raises NotAStoreError."""
    check_there(disk, path)
    with translate_os_errors(path, "read"):
        try:
            return read_manifest(disk, path).store_id
        except FileNotFoundError:
            raise NotAStoreError(path, "the directory holds none") from None
        except NotADirectoryError:
            raise NotAStoreError(path, "it is a file") from None


def _appearance(disk: Disk, path: str) -> object:
    """Return what is different whenever a writer has been there, however shortly."""
    seen = []
    for name in (MANIFEST, ACKNOWLEDGED, HISTORY):
        with suppress(OSError):
            seen.append((name, disk.seen(f"{path}/{name}")))
    return seen


def _bounds(disk: Disk, path: str) -> tuple[int, int] | None:
    """Return the first and the next sequence of a store at rest; None when that is hidden."""
    with suppress(AquipuError, OSError):
        findings = examine(disk, path)
        if findings is not None:
            return findings.manifest.first_sequence, findings.contents.next_sequence
    return None


def _sizes(disk: Disk, path: str) -> tuple[int, int]:
    """Return the number of segment files and their bytes."""
    number = total = 0
    for name in disk.list(path):
        if first_sequence_of(name) is not None:
            with suppress(FileNotFoundError):  # a purge took it
                total += disk.seen(f"{path}/{name}")[3]
                number += 1
    return number, total


def _cursors(disk: Disk, path: str, store_id: bytes | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for name in bookmark_names(disk, path, BookmarkKind.CURSOR):
        with suppress(AquipuError, OSError):
            sequence = read_bookmark(disk, path, store_id or b"", BookmarkKind.CURSOR, name)
            if sequence is not None:
                found[name] = sequence
    return found


def _judged(writer: WriterSeen | None, was: WriterSeen | None) -> tuple[str, tuple[str, ...]]:
    """Return the health of a store as it is seen from outside."""
    if writer is None:
        gone = "its writer has just ended" if was is not None else "nobody writes it"
        return "at rest", (gone,)
    if writer.state == "stopped":
        return "stopped", (
            (
                f"its writer, process {writer.pid}, is stopped (SIGSTOP): kill -CONT {writer.pid} "
                "lets it go on"
            ),
        )
    if writer.state == "gone":
        return "away", (f"its writer, process {writer.pid}, is gone, and its lock is held yet",)
    return "ok", ()


class DaemonSource:
    """A store that a daemon has: what it says of itself."""

    def __init__(self, name: str, store: RemoteStore, pid: int | None = None) -> None:
        self.name = name
        self._store = store
        self._pid = pid
        self._last: Sample | None = None
        self._is_known = True  # it knows how to give its statistics

    async def sample(self) -> Sample:
        """Ask once; a daemon that does not answer in time is shown with what it said last."""
        now, pid = monotonic(), self._pid
        writer = WriterSeen(pid, None if pid is None else process_state(pid))
        try:
            with fail_after(_ANSWER_SECONDS):
                if writer.state == "gone":  # another one may have come in its place
                    self._pid = pid = await _pid_of(self._store)
                    writer = WriterSeen(pid, None if pid is None else process_state(pid))
                self._last = await self._asked(writer)
                return self._last
        except (AquipuError, TimeoutError) as error:
            reason = str(error) or f"the daemon has not answered for {_ANSWER_SECONDS:.0f} s"
            stopped = writer.state == "stopped"
            if stopped:
                reason = f"the daemon, process {pid}, is stopped (SIGSTOP): kill -CONT {pid}"
            last = self._last or Sample(now)
            return last._replace(
                at=now,
                statistics=None,
                writer=writer,
                health="stopped" if stopped else "away",
                reasons=(reason,),
            )

    async def _asked(self, writer: WriterSeen) -> Sample:
        store, said = self._store, await self._statistics()
        health = store.health()
        consumers: Mapping[str, Behind]
        if said is not None:
            consumers = {
                name: Behind(records, said.cursor_seconds.get(name))
                for name, records in said.cursor_records.items()
            }
        else:
            lags = await store.cursors()
            consumers = {name: Behind(lag.records, lag.seconds) for name, lag in lags.items()}
        return Sample(
            at=monotonic(),
            first=store.first_sequence,
            acknowledged=store.next_sequence if said is None else said.next_sequence,
            synced=store.synced_sequence if said is None else said.synced_sequence,
            statistics=said,
            writer=writer,
            segments=None if said is None else said.segments,
            disk_bytes=None if said is None else said.disk_bytes,
            free_bytes=None if said is None else said.free_bytes,
            consumers=consumers,
            health=health.state,
            reasons=health.reasons,
        )

    async def _statistics(self) -> Statistics | None:
        """Return what the daemon counts; None from one of an earlier version."""
        if self._is_known:
            try:
                return await self._store.daemon_statistics()
            except AquipuError as error:
                if "may be older than its client" not in str(error):
                    raise
                self._is_known = False
        await self._store.holds()  # so that it says how far it has come
        return None
