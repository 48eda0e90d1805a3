"""What a client has its daemon do beside commits and reading: each is one question."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from aquipu.engine import Engine
from aquipu.policy import Stage
from aquipu.record import Purged


class Upkeep(Engine):
    """The part of an engine that asks a daemon and gives its answer."""

    @abstractmethod
    async def call(self, do: str, **arguments: Any) -> Any:
        """Have the daemon do something; return what it says."""

    async def reached(self, stage: Stage, sequence: int) -> None:
        progress = self.progress()
        known = progress.synced_sequence if stage is Stage.SYNCED else progress.next_sequence
        if sequence >= known:  # the daemon may know more, and has the policy
            await self.call("reached", stage=stage, sequence=sequence)

    async def roll(self) -> None:
        await self.call("roll")

    async def purge(self, before: int | None, before_time: int | None, dry_run: bool) -> Purged:
        return Purged(
            *await self.call("purge", before=before, before_time=before_time, dry_run=dry_run)
        )

    async def hold(self, name: str, sequence: int) -> None:
        await self.call("hold", name=name, sequence=sequence)

    async def release(self, name: str) -> bool:
        return bool(await self.call("release", name=name))

    async def holds(self) -> dict[str, int]:
        holds: dict[str, int] = await self.call("holds")
        return holds
