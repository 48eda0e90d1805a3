"""A primary and its synchronous standby, on the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg

from aquipu.postgres.address import address_of
from aquipu.postgres.schema.migrating import migrate
from tests.postgres.server import Server


class Pair:
    """Two servers, each of which may be the other's standby."""

    def __init__(self, primary: Server) -> None:
        """Begin with a primary that runs; see `made`."""
        self.primary = primary
        self.standby = self._new_standby()

    @classmethod
    def made(cls, *, noting: bool = False) -> Pair:
        """Both at work, with the tables; ``noting``: their power can be cut."""
        primary = Server.made()
        try:
            if noting:
                primary.notes = primary.place / "notes"
            primary.start()
            _run(migrate(address_of(primary.url, needs_log=False)))
            return cls(primary)
        except BaseException:
            primary.remove()
            raise

    def _new_standby(self) -> Server:
        standby = self.primary.standby()
        try:
            if self.primary.notes is not None:
                standby.notes = standby.place / "notes"
            standby.start()
            _run(names(self.primary, "one"))
        except BaseException:
            standby.remove()
            raise
        return standby

    @property
    def both(self) -> tuple[Server, Server]:
        return self.primary, self.standby

    def log(self, name: str) -> str:
        """The address of a log, on whichever of them takes writes."""
        ports = ",".join(f"127.0.0.1:{server.port}" for server in self.both)
        return f"postgresql://postgres@{ports}/postgres?log={name}"

    def take_over(self) -> None:
        """Kill the primary, and let the standby take its place."""
        self.primary.kill()
        self.standby.configure(synchronous_standby_names="")
        self.standby.promote()

    def renew(self) -> None:
        """Give the one that has taken over a new standby, in the place of the one that was lost."""
        self.primary.remove()
        self.primary = self.standby
        self.standby = self._new_standby()

    def remove(self) -> None:
        for server in self.both:
            server.remove()


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
