"""Store: a log that takes records and gives them back."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from functools import partial
from typing import TYPE_CHECKING, cast

from aquipu.commit.closing import refuse_in_child
from aquipu.commit.writable import Writable
from aquipu.engine import Engine, Limits
from aquipu.errors import StoreClosedError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.paths import StrPath, absolute, address_in, database_in
from aquipu.local.disk.system import at_fork
from aquipu.local.engine import open_engine
from aquipu.local.opening import permitted
from aquipu.local.retain.bookmarks import checked_name
from aquipu.local.retain.retention import Duration, Retention
from aquipu.options import (
    MIB,
    Options,
    check_buffer,
    check_seconds,
    check_sequence,
    refuse_for_daemon,
    refuse_for_database,
)
from aquipu.policy import EveryN, SyncPolicy
from aquipu.reading import Cursor, Face, LogReader, Readable
from aquipu.record import Known, Lag, Purged, Receipt, Time, nanoseconds
from aquipu.runtime.closing import Opening

if TYPE_CHECKING:
    from aquipu.archive.archive import Archive
    from aquipu.local.write.recovery import RecoveryReport
    from aquipu.remote.store import RemoteStore
    from aquipu.statistics import Health, Statistics


class Store(Readable, Writable):
    """A durable log.

    Made by `Store.open`; belongs to the event loop that opened it, and to this process. Where its
    records are kept is the business of its `Engine`.
    """

    def __init__(self, engine: Engine, loop: AbstractEventLoop) -> None:
        """Prepare a store; not called by users: `Store.open` does."""
        Writable.__init__(self, engine, loop)

    @staticmethod
    def open(
        path: StrPath,
        *,
        sync_policy: SyncPolicy = EveryN(64),
        max_segment_bytes: int = 64 * MIB,
        max_segment_age: float | Duration | None = None,
        max_record_bytes: int = 16 * MIB,
        buffer_records: int = 65_536,
        buffer_bytes: int = 64 * MIB,
        lock_timeout: float = 20.0,
        retention: Retention | None = None,
        mode: int | None = None,
        group: str | None = None,
        compress: bool = False,
        archive: Archive | None = None,
        shared: bool = False,
        disk: Disk | None = None,
    ) -> Opening[Store]:
        """Open the store in the directory ``path``: ``async with Store.open("audit") as store``.

        Await it, or enter it. A missing directory is created, durably. What opening finds after a
        crash, and does about it, is in ``store.recovery``.

        A path that is written ``unix:PATH`` is the address of a daemon: what is opened then is the
        `RemoteStore` that `connect` gives, and of the options only those of the buffer can be
        given: the others are the daemon's.

        ``postgresql://USER@HOST/DATABASE?log=NAME`` is a log in a database, which many processes
        on many machines may write ([how](postgres/README.md)). Of the options, ``sync_policy``,
        ``max_record_bytes`` and those of the buffer count there, and ``lock_timeout``: how long the
        server may be away until calls fail.

        Args:
            sync_policy: when ``append`` returns, and so what a power cut can take: `Always`,
                `EveryN`, `OsManaged`.
            max_segment_bytes: a segment file that has reached this size is sealed and the next one
                begun.
            max_segment_age: and so is one whose oldest record has this age, in seconds or as a
                ``datetime.timedelta``, also when nothing more is appended. Then `Retention` by age
                keeps its word in a log of any size: see there. Without, only the size counts.
            max_record_bytes: the most data that one record may hold; at most ``buffer_bytes``.
            buffer_records, buffer_bytes: how much may be accepted and not yet acknowledged. A
                process crash takes what is in the buffer, none of it acknowledged. When it is full,
                ``append`` waits and ``append_nowait`` raises.
            lock_timeout: seconds to wait for another process that is still writing the store.
            retention: which old segments are let go of, whenever a new one begins and now; without
                it, none.
            mode: the rights of the store's files, those that are there already included: ``0o640``
                for a group that reads. A directory that is made lets enter all that may read; one
                that is there keeps its rights. Without, 0600.
            group: the name of the group that these files, and directories that are made, belong to;
                with it the ``mode`` is 0640 if none is given. Without, that of the process or of a
                directory that hands its group down (setgid).
            compress: segments that are full, those that are there already included, are replaced
                by compressed ones, one after another, on a thread of its own that takes a quarter
                of one core at most. Log lines come to a tenth of their size; every call reads them
                as before, a little slower. After a crash the old file is there, or the new one.
                Takes the package zstandard (``pip install -e '.[compress]'``), as reading does.
                Versions of aquipu from before this refuse such a store.
            archive: where the log is carried while it is being written: `Archive`, and
                [what that promises](archive/README.md). `health` says when it is in trouble.
            shared: several processes of this user may have the store open at once, all of them with
                this: workers of a web server, for example. The first one writes it and serves it to
                the others, at a socket in the directory; when it ends, however it ends, another one
                takes over, and nothing acknowledged is lost or stored twice. Each should give the
                same options: those of the process that writes hold, but an append is never less
                safe than the ``sync_policy`` of its own process says. What is opened is a
                `RemoteStore`. ``lock_timeout`` is then also how long the process that writes may be
                away, now and later, until calls fail. Not on a network file system.
            disk: the door to the operating system; a test may hand in one that fails.

        Raises (when awaited or entered): StoreLockedError, CorruptionError, UnsupportedFormatError,
        NotAStoreError, StoreUnavailableError; nothing was changed. TypeError or ValueError at once
        for an option that cannot be, ModuleNotFoundError for ``compress`` without its package.
        """
        options = Options(
            sync_policy,
            max_segment_bytes,
            max_record_bytes,
            buffer_records,
            buffer_bytes,
            lock_timeout,
            retention,
            mode,
            group,
            max_segment_age,
            compress,
            archive,
        )
        address = address_in(path)
        if address is not None:
            given = {**options._asdict(), "shared": shared, "disk": disk}
            refuse_for_daemon(address, given, Store.open.__kwdefaults__ or {})
            connecting = Store.connect(
                address, buffer_records=buffer_records, buffer_bytes=buffer_bytes
            )
            return cast("Opening[Store]", connecting)  # its calls are the same
        database = database_in(path)
        if database is not None:
            given = {**options._asdict(), "shared": shared, "disk": disk}
            refuse_for_database(given, Store.open.__kwdefaults__ or {})
            from aquipu.postgres.store import opening_of  # here: a local store needs none of it

            return opening_of(database, options.checked())
        if not isinstance(shared, bool):
            raise TypeError(f"shared is True or False, not {shared!r}")
        if archive is not None:
            _check_archive(archive)
        opening, allowed = _open_shared if shared else _open, permitted(disk, options)
        return Opening(partial(opening, absolute(path), options.checked(), allowed))

    @staticmethod
    def connect(
        address: str,
        *,
        timeout: float = 20.0,
        buffer_records: int = 65_536,
        buffer_bytes: int = 64 * MIB,
    ) -> Opening[RemoteStore]:
        """Connect to the store that a daemon writes (``aquipu serve STORE --socket PATH``).

        From as many processes as want it; await it, or enter it: ``async with
        Store.connect("unix:/run/audit.sock") as store``. Its calls are those of a Store.

        Args:
            address: ``unix:PATH``.
            timeout: seconds that the daemon may be away, now and later. Calls that wait meanwhile
                fail after that; what was sent and not answered is neither lost nor stored twice
                when the daemon is back in time. While it is closed, a store waits 4 seconds at most
                for a daemon that is away.
            buffer_records, buffer_bytes: how much may be accepted in this process and not yet
                acknowledged; the daemon's own bounds hold as well.

        Raises (when awaited or entered): StoreUnavailableError when no daemon answers in time, and
        what it says is wrong. TypeError or ValueError at once for an address or option that cannot
        be.
        """
        from aquipu.remote.connection import path_in  # here: a local store needs none of it

        path_in(address)
        check_seconds("timeout", timeout)
        check_buffer(buffer_records, buffer_bytes)
        return Opening(partial(_connect, address, timeout, buffer_records, buffer_bytes))

    # keeping and letting go

    async def purge(
        self, *, before: int | None = None, before_time: Time | None = None, dry_run: bool = False
    ) -> Purged:
        """Let go of the oldest records: the whole sealed segments before a sequence or a time.

        Those before the sequence ``before``, or those in which every record was accepted before
        ``before_time`` (an aware datetime, or nanoseconds since the epoch). The segment that is
        being written stays, and so does everything from the oldest hold on, of which the result
        says the name if more would have gone. When this returns,
        ``first_sequence`` is durably the new one, and the files are removed; those that a reader is
        at go later. After a crash within it, the first sequence is the old one or the new one, and
        all that it says is kept is there. Cancelled, it is done all the same. With ``dry_run``
        nothing is done: what it would come to is returned.

        Raises TypeError or ValueError unless there is exactly one of the two and it is a sequence
        or a time; CorruptionError for a hold that does not check (`release` removes it);
        StoreFullError (nothing was changed), StoreFailedError, StoreClosedError,
        StoreUnavailableError.
        """
        if (before is None) == (before_time is None):
            raise TypeError("purge takes a sequence (before) or time (before_time), one of the two")
        if before is not None:
            check_sequence(before, "before")
        time = None if before_time is None else nanoseconds(before_time)
        return await self._engine.purge(before, time, bool(dry_run))

    async def hold(self, name: str, sequence: int) -> None:
        """Keep everything from this sequence on, whatever the retention says, until `release`.

        The name may be set anew. A hold is durable when this returns, and holds after a restart.
        ``sequence`` may be up to ``next_sequence``: keep what is to come. A name is 1 to 100 of A-Z
        a-z 0-9 . _ - and begins with neither a dot nor a dash.

        Raises RecordPurgedError or RecordNotWrittenError for a sequence that is no longer or not
        yet there, TypeError or ValueError for what is no name or sequence, and what `purge` raises.
        """
        checked_name(name)
        check_sequence(sequence, "sequence")
        self._check()
        await self._engine.hold(name, sequence)

    async def release(self, name: str) -> bool:
        """Remove a hold, also one that is damaged; False when there was none. Raises as `hold`."""
        return await self._engine.release(checked_name(name))

    async def holds(self) -> dict[str, int]:
        """Return the holds by name, also those that other processes have set.

        Raises CorruptionError for one that does not check, StoreUnavailableError, StoreClosedError.
        """
        self._check_readable()
        return await self._engine.holds()

    def cursor(self, name: str, *, hold: bool = False) -> Cursor:
        """Return the place of a consumer, kept under this name beside the store: see `Cursor`.

        With ``hold`` nothing that it has not passed is purged. TypeError, ValueError: no such name.
        """
        return self._engine.cursor(checked_name(name), self._face, hold=hold)

    async def cursors(self) -> dict[str, Lag]:
        """Return how far each consumer is behind, by the name of its cursor. Raises as `holds`."""
        self._check_readable()
        return await self._engine.cursors()

    # where the log stands

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record kept."""
        return self._engine.progress().first_sequence

    @property
    def next_sequence(self) -> int:
        """One past the last acknowledged record."""
        return self._engine.progress().next_sequence

    @property
    def synced_sequence(self) -> int:
        """Sequence below which everything is on the disk."""
        return self._engine.progress().synced_sequence

    @property
    def generation(self) -> str:
        """Name of the period in which no acknowledged record was lost: see `Position`."""
        return self._engine.generation.hex()

    @property
    def limits(self) -> Limits:
        """What it takes at a time, and what an append waits for."""
        return self._engine.limits

    @property
    def recovery(self) -> RecoveryReport:
        """What opening found and did."""
        recovery: RecoveryReport | None = self._engine.recovery
        if recovery is None:
            raise AttributeError(f"{self._path}: the process that writes the store has its report")
        return recovery

    def statistics(self) -> Statistics:
        """Return a snapshot, without waiting for the worker or the disk.

        From any thread, and also of a closed store.
        """
        return self._counted()

    def health(self, *, min_free_bytes: int | None = None, max_sync_seconds: float = 1.0) -> Health:
        """Return whether all is well, and if not, why; from any thread and without waiting.

        * ``ok``;
        * ``degraded``: you should look: the disk is nearly full, or slow, the last commit was
          refused for lack of space (also by a quota or a limit of file sizes), the next segment
          cannot be made, the clock is wrong, or the archive does not answer or has stopped;
        * ``failed``: a sync or a write has failed, and nothing more is accepted until the store is
          opened again;
        * ``closed``: `aclose` has begun.

        Args:
            min_free_bytes: with less free space the disk is nearly full; without it, room for four
                more segments (``4 * max_segment_bytes``).
            max_sync_seconds: a sync that takes longer is slow: one within the last half minute (up
                to a minute), or what the disk is at now. A disk in good health takes milliseconds;
                etcd warns from one second on, too.
        """
        return self._engine.health(
            self._counted(),
            None if self._life.failure is None else str(self._life.failure),
            min_free_bytes,
            max_sync_seconds,
        )

    # for a daemon

    async def find_commit(self, writer: bytes, number: int, floor: int) -> Receipt | None:
        """Return the receipt of the first record of a commit that was given this key, if any.

        It cannot be below the sequence ``floor``. Raises RecordPurgedError where it may have been
        and was purged, and what `get` raises.
        """
        self._check_readable()
        return await self._reader.find_commit(writer, number, floor)

    # within

    async def _find_number(self, writer: bytes, number: int) -> Known:
        return await self._reader.find_number(writer, number)

    @property
    def _face(self) -> Face:
        return Face(self._check_owner, self._check_readable)

    @property
    def _reader(self) -> LogReader:
        return self._engine.reader(self._face)

    def _check_readable(self) -> None:
        self._check_owner()
        if self._life.is_closing:
            raise StoreClosedError(self._path)

    def __del__(self) -> None:
        if hasattr(self, "_closed") and self._leave():
            self._warn()

    def __repr__(self) -> str:
        state = "closed" if self._life.is_closing else self._life.state_seen
        return f"<Store {self._path!r} {state} next_sequence={self.next_sequence}>"


def _check_archive(archive: object) -> None:
    from aquipu.archive.archive import Archive

    if not isinstance(archive, Archive):
        raise TypeError(f"archive is an Archive or None, not {type(archive).__name__}")


async def _open(path: str, options: Options, disk: Disk) -> Store:
    if options.archive is not None:
        from aquipu.local.archiving import open_archived  # others do not pay for it

        return Store(await open_archived(path, options, disk), get_running_loop())
    return Store(await open_engine(path, options, disk), get_running_loop())


async def _open_shared(path: str, options: Options, disk: Disk) -> RemoteStore:
    from aquipu.remote.store import open_shared

    return await open_shared(path, options, disk)


async def _connect(
    address: str, seconds: float, buffer_records: int, buffer_bytes: int
) -> RemoteStore:
    from aquipu.remote.store import connect

    return await connect(address, seconds, buffer_records, buffer_bytes)


at_fork(refuse_in_child)
