"""What an engine may ask of the store that has it: the other face of a committer.

It holds the store weakly. A program that drops its store without closing it must be able to, while
a worker or a connection is still there; then there is nobody left to be asked, and each of these
does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

from aquipu.engine import Host, Limits
from aquipu.errors import AquipuError, StoreFailedError

if TYPE_CHECKING:
    from aquipu.commit.writable import Writable


class StoreHost(Host):
    """A store as its engine sees it."""

    def __init__(self, store: Writable) -> None:
        self._store = ref(store)

    def check(self) -> None:
        if (store := self._store()) is not None:
            store._check()

    def complete_soon(self) -> None:
        if (store := self._store()) is not None:
            store._go_on_soon()

    def complete_meanwhile(self) -> None:
        if (store := self._store()) is not None:
            store._go_on_meanwhile()

    def sync_soon(self) -> None:
        if (store := self._store()) is not None:
            store._sync_soon()

    async def sync(self) -> None:
        if (store := self._store()) is not None:
            await (store.aclose() if store._life.is_closing else store.sync())  # both sync

    def fail(self, failure: StoreFailedError) -> None:
        if (store := self._store()) is not None:
            store._fail(failure)

    def give_up(self, of_commit: AquipuError | None, error: AquipuError) -> None:
        if (store := self._store()) is not None:
            store._give_up(of_commit, error)

    def refuse(self, refused: dict[int, Exception]) -> None:
        if (store := self._store()) is not None:
            store._part(refused)

    def keep_within(self, limits: Limits) -> None:
        if (store := self._store()) is not None:
            store._fit(limits)

    def leave(self) -> None:
        if (store := self._store()) is not None:
            store._leave()
