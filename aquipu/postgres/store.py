"""How a `Store` of a log in a database is opened."""

from __future__ import annotations

from asyncio import get_running_loop
from functools import partial

from aquipu.options import Options
from aquipu.postgres.address import Address, address_of
from aquipu.postgres.opening import open_engine
from aquipu.runtime.closing import Opening
from aquipu.store import Store


def opening_of(database: str, options: Options) -> Opening[Store]:
    """Return what opens the log at an address; ValueError for one that cannot be."""
    return Opening(partial(_open, address_of(database), options))


async def _open(address: Address, options: Options) -> Store:
    return Store(await open_engine(address, options), get_running_loop())
