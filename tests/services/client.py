"""The clients of a service that is about to die: ``python -m tests.services.client PORT FIRST``.

256 connections sign one document after another, each document once: connection k those with the
numbers FIRST + k, FIRST + k + 256, and so on, the next when the answer to the last one is there. On
standard output stands ``begun`` at the first answer, and when all connections are at their end,
because the service is gone, the numbers of all that were answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import count

from benchmarks.load import answer

CONNECTIONS = 256
_BODY = b'{"by":"ada"}'


class Clients:
    """All of them, and what they were told."""

    def __init__(self, port: int, first: int) -> None:
        self._port = port
        self._first = first
        self.answered: list[int] = []

    async def run(self) -> None:
        """Until the service is gone."""
        async with asyncio.TaskGroup() as group:
            for connection in range(CONNECTIONS):
                group.create_task(self._connection(self._first + connection))

    async def _connection(self, first: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            for number in count(first, CONNECTIONS):
                writer.write(signature(number))
                await answer(reader)
                self._note(number)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the service is gone

    def _note(self, number: int) -> None:
        if not self.answered:
            _tell("begun")
        self.answered.append(number)


def signature(number: int) -> bytes:
    """The request that signs this document."""
    head = (
        f"POST /documents/{number}/signatures HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    )
    return head.encode() + _BODY


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(port: str, first: str) -> None:
    clients = Clients(int(port), int(first))
    asyncio.run(clients.run())
    _tell(json.dumps(clients.answered))


if __name__ == "__main__":
    main(*sys.argv[1:])
