"""The audited requests of a store that have not come to their end: their entries are still to come.

A server that has waited for its requests for as long as it may cancels them and shuts the
application down in the same moment. What is cancelled needs some turns of the loop to end and to
leave its entry, and the store is not closed before that, for at most `SECONDS`.
"""

from __future__ import annotations

from asyncio import Event, wait_for
from contextlib import suppress
from weakref import WeakKeyDictionary

from aquipu.contrib.shared.opener import AnyStore

SECONDS = 1.0


class UnderWay:
    """A request enters it when it comes to be audited, and leaves it at its end."""

    def __init__(self) -> None:
        self._count = 0
        self._ended: Event | None = None  # that somebody waits for

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *raised: object) -> None:
        self._count -= 1
        if not self._count and self._ended is not None:
            self._ended.set()
            self._ended = None

    async def ended(self) -> None:
        """Wait until there is none, or long enough."""
        if self._count:
            ended = self._ended = self._ended or Event()
            with suppress(TimeoutError):
                await wait_for(ended.wait(), SECONDS)


def requests_of(store: AnyStore) -> UnderWay:
    """Return the requests that are audited in this store."""
    found = _under_way.get(store)
    if found is None:
        found = _under_way[store] = UnderWay()
    return found


_under_way: WeakKeyDictionary[AnyStore, UnderWay] = WeakKeyDictionary()
