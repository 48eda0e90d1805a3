"""RemoteStore: the store of a daemon, or of several processes, as this process has it."""

from __future__ import annotations

from asyncio import get_running_loop
from typing import TYPE_CHECKING

from aquipu.remote.engine import open_engine
from aquipu.remote.upkeep import Upkeep
from aquipu.store import Store

if TYPE_CHECKING:
    from aquipu.local.disk.disk import Disk
    from aquipu.options import Options
    from aquipu.statistics import Health, Statistics


class RemoteStore(Store):
    """A store that a daemon writes.

    Made by `Store.connect`; belongs to the loop that connected it, and to this process.

    Its calls are those of `Store`, with the same receipts and errors. Beside them, each may raise
    StoreUnavailableError: the daemon could not be reached in time, and nothing was sent; and what
    appends OutcomeUnknownError: it was sent, and what became of it cannot be found out. In both
    cases the next call tries again; given the same key, it is stored once. StoreFailedError comes
    from the daemon, as long as it has not been started anew. A daemon that is there and does not
    answer, because its disk hangs, is waited for, as a disk is.

    Where the log stands, and how far consumers are behind, it knows as the daemon said last. It
    counts what this process has appended; ``syncs`` and ``segments`` are 0: the daemon has the
    files. An append takes from its acceptance by the daemon to the answer; what is under way is a
    commit that was not yet answered.
    """

    def health(
        self,
        *,
        min_free_bytes: int | None = None,
        max_sync_seconds: float = 1.0,
        max_answer_seconds: float = 1.0,
    ) -> Health:
        """Return the health, as `Store.health`, of the daemon and of the connection to it.

        It is ``degraded`` when the daemon has not answered for ``max_answer_seconds``, when it has
        refused the last commit for lack of space, and when it says that its store is; ``failed``
        when it could not be reached the last time, and when its store takes nothing more. The other
        two bounds are the daemon's own.

        What the daemon says of itself is a few seconds old, and unknown until it has answered the
        first call of this.
        """
        return self._engine.health(self._counted(), None, None, max_answer_seconds)

    async def daemon_place(self) -> str:
        """Return the directory of the daemon's store, as it is called there.

        Raises as `daemon_statistics`.
        """
        return await self._upkeep().daemon_place()

    async def daemon_statistics(self) -> Statistics:
        """Return the statistics of the daemon's store: all that it has done, for every client.

        `statistics` is of this process alone. Raises StoreUnavailableError, also for a daemon of an
        earlier version, which does not know the question.
        """
        return await self._upkeep().daemon_statistics()

    def _upkeep(self) -> Upkeep:
        self._check_readable()
        assert isinstance(self._engine, Upkeep)
        return self._engine

    def __repr__(self) -> str:
        state = "closed" if self._life.is_closing else "open"
        return f"<RemoteStore {self._path!r} {state}>"


async def connect(
    address: str, seconds: float, buffer_records: int, buffer_bytes: int
) -> RemoteStore:
    """Connect to a daemon; see `Store.connect`."""
    loop = get_running_loop()
    return RemoteStore(await open_engine(address, seconds, buffer_records, buffer_bytes), loop)


async def open_shared(path: str, options: Options, disk: Disk) -> RemoteStore:
    """Open a store together with other processes; see `Store.open`."""
    from aquipu.remote.shared.engine import open_engine as share  # it imports the daemon, too

    return RemoteStore(await share(path, options, disk), get_running_loop())
