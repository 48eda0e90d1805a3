"""log: what wakes the followers of a log, with connections that are none."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from aquipu.postgres.link.connections import Connections
from aquipu.postgres.log import Log


class Connection:
    """A connection that does not say that it listens."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.terminated = asyncio.Event()

    async def add_listener(self, channel: str, hinted: object) -> None:
        self.asked.set()
        await asyncio.Event().wait()

    def terminate(self) -> None:
        self.terminated.set()


class NoConnections:
    """Connections for questions that nobody asks."""

    def close(self) -> None:
        """Let go of them."""


@pytest.mark.asyncio
async def test_a_log_that_is_closed_while_it_begins_to_listen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection for hints is let go of, and who waits for news goes on."""
    connection, asking = Connection(), cast("Connections", NoConnections())

    async def connect(*_: object) -> Any:
        return connection

    monkeypatch.setattr("aquipu.postgres.log.connect", connect)
    log = Log("a log", 1, asyncio.get_running_loop(), asking, asking, "a server")
    waiting = asyncio.create_task(log.news(0))
    await connection.asked.wait()
    log.close()
    await waiting
    await connection.terminated.wait()
