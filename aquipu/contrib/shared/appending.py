"""The two calls by which records are appended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from aquipu import Receipt, Stage


class Appending(Protocol):
    """What a log handler asks of a store: whatever takes records by these calls will do."""

    async def append(
        self, data: bytes, *, relations: Iterable[str] = ..., durability: Stage | None = ...
    ) -> Receipt:
        """See `Store.append`."""

    def append_nowait(
        self, data: bytes, *, relations: Iterable[str] = ..., durability: Stage | None = ...
    ) -> asyncio.Future[Receipt]:
        """See `Store.append_nowait`."""
