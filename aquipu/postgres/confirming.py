"""Waiting until a synchronous standby has all that there is of a log."""

from __future__ import annotations

from asyncio import Lock
from uuid import uuid4

from aquipu.postgres.calls import arguments_of
from aquipu.postgres.link.carrier import Carrier
from aquipu.postgres.log import Log


class Confirmer:
    """A writer of its own, of calls without records: each is committed when the standby has it.

    What was committed before it in the log of the server, the standby has then, too.
    """

    def __init__(self, log: Log, dsn: str, mode: str) -> None:
        self._log = log
        self._mode = mode
        self._carrier = Carrier(dsn, log.path, log.loop, log.asking.seconds, log.asking)
        self._writer = uuid4().bytes
        self._number = 0
        self._turn = Lock()

    async def confirm(self) -> None:
        """Return when a standby has confirmed what is there now.

        Raises StoreUnavailableError where none would.
        """
        async with self._turn:
            self._number += 1
            arguments = arguments_of(
                (self._log.number, self._writer, self._number),
                None,
                [],
                every=None,
                mode=self._mode,
                confirm=True,
            )
            await self._carrier.call(arguments, self._log.progress.next_sequence, True)

    def drop(self) -> None:
        """Let go of the connection."""
        self._carrier.drop()
