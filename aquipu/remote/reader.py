"""Reading a log that a daemon has: in pages, each of them an answer."""

from __future__ import annotations

from asyncio import Task, ensure_future, wait
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from aquipu.engine import Progress
from aquipu.errors import (
    PositionLostError,
    RecordNotWrittenError,
    RecordPurgedError,
    StoreClosedError,
)
from aquipu.local.disk.paths import StrPath, checked_place
from aquipu.local.retain.bookmarks import hold_of_cursor
from aquipu.options import OnPurged, Range, Wanted
from aquipu.reading import Cursor, Face, Follow, LogReader, Scan, first_of
from aquipu.record import Backup, Known, Position, Receipt, Record
from aquipu.remote.protocol import Head, Message, generation_in, page_in

T = TypeVar("T")


class Daemon(Protocol):
    """What a reader asks."""

    path: str
    is_closing: bool

    def progress(self) -> Progress:
        """Return how far the log reaches, as the daemon said last."""

    @property
    def generation(self) -> bytes:
        """That of the log, as the daemon said last."""

    async def call(self, do: str, **arguments: Any) -> Any:
        """Have the daemon do something; return what it says."""

    async def ask(self, understood: Callable[[Message], T], do: str, **arguments: Any) -> T:
        """Ask the daemon, and return its answer as it is understood."""


class RemoteReader(LogReader):
    """Reads the log of a daemon for a face.

    It holds nothing between two pages against purges: RecordPurgedError where the next page was
    purged before it was asked for.
    """

    def __init__(self, daemon: Daemon, face: Face) -> None:
        self._daemon = daemon
        self._face = face

    async def get(self, sequence: int) -> Record:
        return (await self._daemon.ask(_records_in, "get", sequence=sequence))[0]

    def scan(self, asked: Range, wanted: Wanted | None, *, reverse: bool) -> Scan:
        return self._pages(asked, wanted, reverse=reverse)

    async def newest(self, asked: Range, wanted: Wanted | None, count: int) -> list[Record]:
        return await first_of(self._pages(asked, wanted, reverse=True, limit=count), count)

    def _pages(self, asked: Range, wanted: Wanted | None, **more: bool | int) -> _Pages:
        every, any_of = (None, None) if wanted is None else wanted
        labels = {"relation": every or None, "any_of": any_of or None}
        return _Pages(self._daemon, self._face, {**asked._asdict(), **labels, **more})

    def follow(
        self, start: int | Position | None, *, earliest: bool, on_purged: OnPurged
    ) -> Follow:
        return _Follow(self._daemon, self._face, start, earliest=earliest, on_purged=on_purged)

    async def relations(self, prefix: str) -> dict[str, int]:
        labels: dict[str, int] = await self._daemon.call("relations", prefix=prefix)
        return labels

    async def backup(self, path: StrPath, *, link: bool, bookmarks: bool) -> Backup:
        place = checked_place(path)  # the daemon may be started in another directory
        done = await self._daemon.call("backup", path=place, link=link, bookmarks=bookmarks)
        return Backup(*done)

    async def check_position(self, position: Position) -> None:
        generation, sequence = position
        await self._daemon.call("survived", generation=generation, sequence=sequence)

    async def find_commit(self, writer: bytes, number: int, floor: int) -> Receipt | None:
        raise NotImplementedError("a daemon serves the files of a log, not another daemon")

    async def find_number(self, writer: bytes, number: int) -> Known:
        raise NotImplementedError("the daemon decides on appends with a key")


class RemoteCursor(Cursor):
    """As `Cursor`, kept by the daemon."""

    def __init__(self, daemon: Daemon, face: Face, name: str, *, hold: bool) -> None:
        """Prepare a cursor; not called by users: `Store.cursor` does."""
        # an earlier daemon, which cannot hold, does not know the longer ones
        self._to_load, self._to_save = "load", "save"
        if hold_of_cursor(name, hold) is not None:
            self._to_load, self._to_save = "load and hold", "save and hold"
        self._daemon = daemon
        self._face = face
        self._name = name

    @property
    def name(self) -> str:
        """What it is called."""
        return self._name

    async def load(self) -> int | None:
        """See `Cursor.load`."""
        self._face.check_readable()
        sequence: int | None = await self._daemon.call(self._to_load, name=self._name)
        return sequence

    async def save(self, sequence: int) -> None:
        """See `Cursor.save`."""
        self._face.check_readable()
        await self._daemon.call(self._to_save, name=self._name, sequence=sequence)


class _Pages(Scan):
    """The records of a scan, a page at a time."""

    def __init__(self, daemon: Daemon, face: Face, asked: Head) -> None:
        self._daemon = daemon
        self._face = face
        self._asked: Head | None = asked
        self._ready = iter(())

    async def aclose(self) -> None:
        self._asked = None
        self._ready = iter(())

    async def _refill(self) -> Record:
        while (asked := self._asked) is not None:
            self._face.check_readable()
            records, left = await self._daemon.ask(_page_in, "page", **asked)
            if self._asked is None:  # closed meanwhile
                break
            self._asked = (
                None
                if left["stop"] is None
                else asked | {"start": left["start"], "stop": left["stop"]}
            )
            self._ready = iter(records)
            for record in self._ready:
                return record
        raise StopAsyncIteration


class _Follow(Follow):
    """The records from a place on, for ever."""

    def __init__(
        self,
        daemon: Daemon,
        face: Face,
        start: int | Position | None,
        *,
        earliest: bool = False,
        on_purged: OnPurged = "raise",
    ) -> None:
        """Prepare to follow; without a start, from where the log begins or ends when asked."""
        super().__init__(daemon.path, earliest=earliest, on_purged=on_purged)
        self._daemon = daemon
        self._face = face
        self._read_in = daemon.generation.hex()  # that before the next one
        self._is_position = isinstance(start, Position)
        if isinstance(start, Position):
            self._read_in, start = start
        self._next = start
        self._ready = iter(())
        self._is_over = False
        self._asked: Task[Any] | None = None  # that a step waits for
        if start is None:
            self._asked = self._ask("stand")

    async def aclose(self) -> None:
        self._is_over = True
        self._ready = iter(())
        if self._asked is not None:
            self._asked.cancel()

    async def _refill(self) -> Record:
        while not self._is_over:
            try:
                found = await self._more()
            except StoreClosedError:
                if not self._daemon.is_closing:
                    raise
                break
            except RecordPurgedError as error:
                self._next = self._overtaken(error)
                continue
            except RecordNotWrittenError as error:
                if not self._is_position:
                    raise
                raise PositionLostError(self._path, error.sequence, error.bound) from None
            if found and not self._is_over:
                self._is_position = True
                if self._read_in:
                    self._generation = bytes.fromhex(self._read_in)
                self._earliest = False
                self._next = found[-1].sequence + 1
                self._ready = iter(found)
                return next(self._ready)
        raise StopAsyncIteration

    async def _more(self) -> list[Record]:
        """Return the next records, when there are any; none when it is closed meanwhile."""
        if self._next is None:
            stand = await self._answer("stand")
            self._next = self._daemon.progress().first_sequence if self._earliest else stand
            self._read_in = self._daemon.generation.hex()
        await self._answer("wait")
        if self._is_over:
            return []
        self._face.check_readable()
        found, head = await self._daemon.ask(
            _page_in, "page", start=self._next, generation=self._read_in or None
        )
        self._read_in = head["generation"]
        return found

    async def _answer(self, do: str) -> Any:
        """Return what the daemon says.

        None when this is closed meanwhile. Cancelled, it is asked again the next time.
        """
        asked = self._asked = self._asked or self._ask(do)
        try:
            await wait([asked])
        finally:
            self._asked = None
            asked.cancel()
        return None if asked.cancelled() else asked.result()

    def _ask(self, do: str) -> Task[Any]:
        generation = self._read_in if self._next is not None else None
        asked = ensure_future(self._say(do, sequence=self._next, generation=generation or None))
        asked.add_done_callback(
            lambda task: task.cancelled() or task.exception()
        )  # heard of, also if nobody waits
        return asked

    async def _say(self, do: str, **arguments: Any) -> Any:
        self._face.check_readable()
        return await self._daemon.call(do, **arguments)


def _records_in(message: Message) -> list[Record]:
    return page_in(message.tail)


def _page_in(message: Message) -> tuple[list[Record], Head]:
    """Return the records of a page, and what is left."""
    left = {"start": message.head.get("start"), "stop": message.head.get("stop")}
    return page_in(message.tail), {**left, "generation": generation_in(message.head)}
