"""What the tests of several rooms share: stores under audit, and their entries read back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from tests.support import records_in


def entries_in(path: Path) -> list[dict[str, Any]]:
    """The entries of a store, read from its files by themselves."""
    return [json.loads(record.data) for record in records_in(path)]


def labels_in(path: Path) -> list[tuple[str, ...]]:
    """The labels of the entries."""
    return [record.relations for record in records_in(path)]


class Started(uvicorn.Server):
    """Says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serves = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.serves.set()

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])


@asynccontextmanager
async def under_uvicorn(app: ASGIApp, **options: Any) -> AsyncIterator[int]:
    """The application on the loopback, until the end of the block: its port."""
    config = uvicorn.Config(
        app,
        **{"host": "127.0.0.1", "port": 0, "log_level": "critical", "lifespan": "on", **options},
    )
    server = Started(config)
    running = asyncio.create_task(server.serve())
    await server.serves.wait()
    try:
        yield server.port
    finally:
        server.should_exit = True
        await running
