"""A primary and its synchronous standby, on the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import asyncpg

from aquipu.postgres.address import address_of
from aquipu.postgres.schema.migrating import migrate
from tests.postgres.server import Server


class Pair(NamedTuple):
    """Two servers, each of which may be the other's standby."""

    primary: Server
    standby: Server

    @classmethod
    def made(cls, *, noting: bool = False) -> Pair:
        """Both at work, with the tables; ``noting``: their power can be cut."""
        primary = Server.made()
        try:
            if noting:
                primary.notes = primary.place / "notes"
            primary.start()
            _run(migrate(address_of(primary.url, needs_log=False)))
            return cls(primary, primary)._with_standby()
        except BaseException:
            primary.remove()
            raise

    def _with_standby(self) -> Pair:
        standby = self.primary.standby()
        try:
            if self.primary.notes is not None:
                standby.notes = standby.place / "notes"
            standby.start()
            _run(names(self.primary, "one"))
        except BaseException:
            standby.remove()
            raise
        return Pair(self.primary, standby)

    def log(self, name: str) -> str:
        """The address of a log, on whichever of them takes writes."""
        ports = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres@{ports}/postgres?log={name}"

    def take_over(self) -> None:
        """Kill the primary, and let the standby take its place."""
        self.primary.kill()
        self.standby.configure(synchronous_standby_names="")
        self.standby.promote()

    def renewed(self) -> Pair:
        """The one that has taken over, and a new standby in the place of the one that was lost."""
        self.primary.remove()
        return Pair(self.standby, self.standby)._with_standby()

    def remove(self) -> None:
        self.standby.remove()
        self.primary.remove()


async def names(server: Server, value: str | None = None) -> str:
    """Set ``synchronous_standby_names``, and wait until it is so."""
    connection = await asyncpg.connect(server.url)
    if value is not None:
        server.configure(synchronous_standby_names=value)
        server.reload()
    async with asyncio.timeout(20):
        while True:
            found: str = await connection.fetchval("SHOW synchronous_standby_names")
            if value is None or found == value:
                break
            await asyncio.sleep(0.01)
    await connection.close()
    return found


def _run(call: Coroutine[Any, Any, object]) -> None:
    """Run it on another thread: this one may run a loop."""
    with ThreadPoolExecutor(1) as beside:
        beside.submit(asyncio.run, call).result()


_shared: list[Pair] = []


def shared_pair() -> Pair:
    """The pair of this process, which is made when it is first wanted."""
    if not _shared:
        _shared.append(Pair.made())
    return _shared[0]


def end_session() -> None:
    """Let go of the pair, if there is one."""
    while _shared:
        _shared.pop().remove()
