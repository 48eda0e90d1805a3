"""A log as this process knows it: where it is, how far it reaches, and what wakes its followers.

Who waits for the next record shares one task with all who do. It listens for hints (``NOTIFY``,
which each writer sends every 10 ms at most) where the server lets it, and looks at the head of the
log every now and then in any case. While nobody waits, there is neither task nor connection.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Event, Future, Task, timeout
from contextlib import suppress
from typing import Any, NamedTuple

from aquipu.engine import Progress
from aquipu.errors import AquipuError
from aquipu.postgres.link.connections import Connections
from aquipu.postgres.link.driver import connect

_LISTENING_PAUSE = 0.5
"""Seconds between two looks at the head where hints are heard."""
_PAUSE = 0.005  # where none are: growing while nothing comes
_PAUSE_MAX = 0.1
_HEAD = (
    "SELECT first_sequence, next_sequence, synced_sequence, generation FROM aquipu.logs"
    " WHERE id = $1"
)


class Head(NamedTuple):
    """The head of a log: how far it reaches, and in which generation."""

    first_sequence: int
    next_sequence: int
    synced_sequence: int
    generation: bytes


class Log:
    """One log of a database."""

    def __init__(
        self,
        path: str,
        number: int,
        loop: AbstractEventLoop,
        asking: Connections,
        reading: Connections,
        listens_at: str | None,
    ) -> None:
        """Keep where a log is.

        ``asking``: connections to the server that is written; ``reading``: to the one that is read.
        ``listens_at``: the server that hints come from; None where none do.
        """
        self.path = path
        self.number = number
        """The one that its tables are named by."""
        self.loop = loop
        self.asking = asking
        self.reading = reading
        self.is_closing = self.is_closed = False
        self.progress = Progress(0, 0, 0)
        self.generation = bytes(8)
        self._listens_at = listens_at
        self._waiting: set[Future[None]] = set()
        self._watching: Task[None] | None = None
        self._hint = Event()

    @property
    def channel(self) -> str:
        """Name under which hints are sent."""
        return f"aquipu_{self.number}"

    # how far it reaches

    async def head(self) -> Head:
        """Return the head as the server says it that is read."""
        row = await self.reading.ask(lambda connection: connection.fetchrow(_HEAD, self.number))
        head = Head(*row)
        self.note(head)
        return head

    def note(self, head: Head) -> None:
        """Take note of a head; of two answers that cross, the one that is further counts."""
        new = Progress(*head[:3])
        if head.generation == self.generation:
            new = Progress(*map(max, new, self.progress))
        self.generation = head.generation
        is_news = new.next_sequence != self.progress.next_sequence
        self.progress = new
        if is_news:
            self.wake()

    def wake(self) -> None:
        """Have everyone look who waits for news."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    # news

    async def news(self, sequence: int) -> None:
        """Wait until there is more than what lies before this sequence, or perhaps is.

        Returns also when the log is closed.
        """
        if self.progress.next_sequence > sequence or self.is_closing:
            return
        waiting: Future[None] = self.loop.create_future()
        self._waiting.add(waiting)
        if self._watching is None:
            self._watching = self.loop.create_task(self._watch())
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)

    @property
    def is_followed(self) -> bool:
        """Whether anybody waits for news."""
        return bool(self._waiting)

    async def _watch(self) -> None:
        """Look for news as long as anybody waits for any."""
        listening: Any = None
        pause = _PAUSE
        try:
            while self._waiting and not self.is_closed:
                if listening is None or listening.is_closed():
                    listening = await self._listen()
                before = self.progress.next_sequence
                with suppress(AquipuError):
                    await self.head()
                is_news = self.progress.next_sequence != before
                pause = _PAUSE if is_news else min(pause * 1.5, _PAUSE_MAX)
                self._hint.clear()
                with suppress(TimeoutError):
                    async with timeout(pause if listening is None else _LISTENING_PAUSE):
                        await self._hint.wait()
        finally:
            self._watching = None
            if listening is not None:
                listening.terminate()
            self.wake()  # who came meanwhile looks, and begins again

    async def _listen(self) -> Any:
        """Return a connection on which hints come; None where that cannot be."""
        if self._listens_at is None:
            return None
        connection: Any = None
        try:
            connection = await connect(self._listens_at, "primary")
            await connection.add_listener(self.channel, self._hinted)
        except BaseException as error:  # it is cancelled when the log is closed
            if connection is not None:
                connection.terminate()
            if not isinstance(error, Exception):
                raise
            return None  # then it is looked for news now and then
        return connection

    def _hinted(self, *_: object) -> None:
        self._hint.set()

    # the end

    def begin_closing(self) -> None:
        """Have followers come to their end."""
        self.is_closing = True
        self.wake()

    def close(self) -> None:
        """Let go of the connections, and wake everyone who waits."""
        self.is_closing = self.is_closed = True
        self.wake()
        if self._watching is not None:
            self._watching.cancel()
        self.asking.close()
        if self.reading is not self.asking:
            self.reading.close()
