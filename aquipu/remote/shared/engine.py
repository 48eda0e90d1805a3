"""The engine of a store that several processes have open at once: `Store.open(shared=True)`.

Each of them is a client of the one that writes, and any of them may be that one (`leader`). So
there is one way for all: what a process appends goes through a socket, also to itself, shares its
commits and syncs with what the others append, and is neither lost nor stored twice when the one
that writes ends, is killed, or lets go of the store: the next one finds it in the log by its key.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Task, get_running_loop, wait
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from aquipu.engine import Commit, CommitResult
from aquipu.errors import AquipuError
from aquipu.local.disk.disk import Disk
from aquipu.options import Options
from aquipu.remote.engine import RemoteEngine
from aquipu.remote.leaving import Sent
from aquipu.remote.protocol import Welcome
from aquipu.remote.shared.leader import Leader, socket_of
from aquipu.remote.shared.leaving import Legacy

if TYPE_CHECKING:
    from aquipu.local.write.recovery import RecoveryReport


class SharedEngine(RemoteEngine):
    """A log that this process writes together with others."""

    def __init__(self, path: str, options: Options, disk: Disk, loop: AbstractEventLoop) -> None:
        super().__init__(
            path,
            socket_of(path),
            loop,
            options.lock_timeout,
            options.buffer_records,
            options.buffer_bytes,
        )
        self._stage = options.sync_policy.stage
        self._options, self._disk = options, disk
        self._leader = Leader(path, options, disk)
        self._ending: Task[None] | None = None

    @property
    def recovery(self) -> RecoveryReport | None:
        """What opening found and did, where it was this process that opened the files."""
        store = self._leader.store
        return None if store is None else store.recovery

    # what the connection tells

    def _welcome(self, welcome: Welcome) -> None:
        """Take what a client must know; an append is as safe as the policy of either side says."""
        self._leader.note_known()
        super()._welcome(welcome._replace(stage=max(welcome.stage, self._stage)))

    def _lost(self) -> None:
        """Look at once who writes now: what was acknowledged may still owe a sync."""
        if not self.is_closing:
            self.connection.reach()

    async def _serve(self) -> AquipuError | None:
        return await self._leader.serve()

    # the end

    def close(self, done: Callable[[CommitResult | AquipuError | None], None]) -> None:
        if self._ending is None:
            reaching = self.connection.reaching
            self.drop()
            self._ending = self._loop.create_task(self._end(reaching))
        self._ending.add_done_callback(partial(self._ended, done))

    async def _end(self, reaching: Task[None] | None) -> None:
        if reaching is not None:  # it may be about to open the store
            await wait([reaching])
        with anyio.CancelScope(shield=True):
            await self._leader.aclose()

    async def abandon(self) -> None:
        """Undo an opening that has failed, or whose caller was cancelled."""
        reaching = self.connection.reaching
        self.drop()
        await self._end(reaching)

    def _ended(
        self, done: Callable[[CommitResult | AquipuError | None], None], task: Task[None]
    ) -> None:
        error = None if task.cancelled() else task.exception()
        done(error if isinstance(error, AquipuError) else self._trouble)

    def leave(self, commits: list[Commit[Any]]) -> bool:
        self._leader.leave()
        return super().leave(commits)

    def _delivery(self, messages: list[Sent]) -> Callable[[float], None]:
        return Legacy(
            self.path, self._socket, self._options, self._disk, self._hello(), messages
        ).deliver_or_say


async def open_engine(path: str, options: Options, disk: Disk) -> SharedEngine:
    """Open the log in a directory together with other processes; see `Store.open`."""
    engine = SharedEngine(path, options, disk, get_running_loop())
    try:
        await engine.connection.reached()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await engine.abandon()
        raise
    return engine
