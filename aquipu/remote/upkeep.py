"""What a client has its daemon do beside commits and reading: each is one question."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal, get_args, get_origin, get_type_hints

from aquipu.engine import Engine
from aquipu.errors import StoreUnavailableError
from aquipu.policy import Stage
from aquipu.record import Purged
from aquipu.statistics import Histogram, Statistics


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
        bounds = {"before": before, "before_time": before_time}
        return Purged(*await self.call("purge", **bounds, dry_run=dry_run, held=True))

    async def hold(self, name: str, sequence: int) -> None:
        await self.call("hold", name=name, sequence=sequence)

    async def release(self, name: str) -> bool:
        return bool(await self.call("release", name=name))

    async def holds(self) -> dict[str, int]:
        holds: dict[str, int] = await self.call("holds")
        return holds

    async def daemon_place(self) -> str:
        """Return the directory of the daemon's store, as it is called there.

        Raises StoreUnavailableError, also for a daemon of an earlier version, which does not say.
        """
        try:
            return str(await self.call("place"))
        except ValueError as error:
            raise StoreUnavailableError(self.path, "ask for its directory", str(error)) from None

    async def daemon_statistics(self) -> Statistics:
        """Return the statistics of the daemon's store, all that it has done for whomever.

        Raises StoreUnavailableError, also for a daemon of an earlier version, which has none.
        """
        try:
            said = await self.call("statistics")
        except ValueError as error:
            raise StoreUnavailableError(self.path, "ask for statistics", str(error)) from None
        try:
            return statistics_in(said)
        except (AttributeError, TypeError, ValueError) as error:
            reason = f"what it says are no statistics: {error}"
            raise StoreUnavailableError(self.path, "understand the daemon at", reason) from None


def statistics_in(said: Any) -> Statistics:
    """Return the statistics in a JSON object of their fields, of an earlier or a later version.

    A field that it does not have is empty, and one that is not known here is left out. Raises
    AttributeError, TypeError or ValueError for anything else.
    """
    if not isinstance(said, dict):
        raise TypeError("no object")
    kinds = get_type_hints(Statistics)
    return Statistics(**{name: _read(said.get(name), kind) for name, kind in kinds.items()})


def _read(value: Any, kind: Any) -> Any:
    """Return the value of a field of this kind; None is one that is not there."""
    if kind is Histogram:
        bounds, counts, total = ((), (0,), 0.0) if value is None else value
        return Histogram(tuple(map(float, bounds)), tuple(map(int, counts)), float(total))
    if get_origin(kind) is dict:
        _, read = get_args(kind)
        return {str(name): read(one) for name, one in ({} if value is None else value).items()}
    if kind in (int, float):
        return kind(0 if value is None else value)
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else get_args(kind)[0]
    if value is None:
        return None
    return float(value) if float in get_args(kind) else int(value)
