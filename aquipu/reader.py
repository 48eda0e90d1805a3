"""Reader: a log that another process writes, or nobody.

It takes no lock and writes nothing, and sees exactly what has been acknowledged: see `catalogue`. A follower looks at the
memory that the writer shares: every millisecond while something comes, less and less often (20 ms) when nothing does. That
costs neither a thread nor a system call on a file.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop, sleep
from functools import partial
from time import monotonic

from aquipu.catalogue import Catalogue
from aquipu.closing import Closing, Opening
from aquipu.cursor import Cursor
from aquipu.disk import Disk, StrPath, absolute
from aquipu.errors import StoreClosedError
from aquipu.finding import Finder
from aquipu.follow import Follow, Followed, Recent
from aquipu.handoff import Handoff
from aquipu.reading import Readable
from aquipu.view import View

_PAUSE = 0.001  # seconds between two looks at the board, growing
_PAUSE_GROWS = 1.25
_PAUSE_MAX = 0.02
_BOARD_PAUSE = 1.0
"""Seconds between two looks whether the board is still the same file: only a writer that found none makes another."""


class Reader(Readable, Closing):
    """A log for reading, in any process. Made by `Reader.open`; belongs to the event loop that opened it.

    It goes on while the writer rolls, purges, dies and is started anew, and when there is none. What it sees has been
    acknowledged, and is never a commit under way.
    """

    def __init__(self, path: str, disk: Disk, loop: AbstractEventLoop, handoff: Handoff, catalogue: Catalogue) -> None:
        """Not called by users: `Reader.open` does."""
        super().__init__(path, loop)
        self._disk = disk
        self._handoff = handoff
        self._catalogue = catalogue
        self._finder = Finder()
        self._closed = False

    @staticmethod
    def open(path: StrPath, *, disk: Disk | None = None) -> Opening[Reader]:
        """Open the store in the directory ``path`` for reading; await it, or enter it::

            async with Reader.open("audit") as reader:
                async for record in reader.scan(): ...

        Raises (when awaited or entered): NotAStoreError, also where nothing is yet; UnsupportedFormatError;
        CorruptionError; StoreUnavailableError.
        """
        return Opening(partial(_open, absolute(path), Disk() if disk is None else disk))

    @property
    def first_sequence(self) -> int:
        """Of the first record kept."""
        return self._catalogue.first_sequence

    @property
    def next_sequence(self) -> int:
        """One past the last acknowledged record."""
        return self._catalogue.told

    def cursor(self, name: str) -> Cursor:
        """The place of a consumer, kept under this name: see `Cursor`. Its file is the only one that a Reader ever writes,
        and only when `Cursor.save` is called. TypeError or ValueError for what is no name."""
        return Cursor(self._disk, self._path, self._catalogue.store_id, self._handoff, name)

    async def aclose(self) -> None:
        """Let go of the store; followers end. Does nothing the second time."""
        if not self._closed:
            self._closed = True
            self._finder.close(StoreClosedError(self._path))
            self._catalogue.close()

    def __repr__(self) -> str:
        return f"<Reader {self._path!r} {'closed' if self._closed else 'open'} next_sequence={self.next_sequence}>"

    def _check_readable(self) -> None:
        self._check_owner()
        if self._closed:
            raise StoreClosedError(self._path)

    async def _seen(self) -> View:
        return await self._handoff.run(self._catalogue.look)

    def _followed(self) -> Followed:
        return _Watch(self)


class _Watch(Followed):
    """A log as one follower of a Reader sees it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._left = False
        self.path, self.disk, self.handoff = reader._path, reader._disk, reader._handoff

    def check(self) -> None:
        self._reader._check_owner()

    @property
    def told(self) -> int:
        return 0 if self._reader._closed else self._reader._catalogue.told

    def recent(self, sequence: int) -> Recent | None:
        return None

    def look(self, indexed: bool) -> View:
        return self._reader._catalogue.look(indexed=indexed)

    async def news(self, sequence: int) -> bool:
        catalogue = self._reader._catalogue
        pause, board_looked_at = _PAUSE, monotonic()
        while not self._is_over:
            await sleep(pause)
            if self._is_over or self.told > sequence:
                break
            pause = min(pause * _PAUSE_GROWS, _PAUSE_MAX)
            if not catalogue.is_led or monotonic() - board_looked_at > _BOARD_PAUSE:
                await self.handoff.run(partial(catalogue.look, indexed=False))
                board_looked_at = monotonic()
        return not self._is_over

    @property
    def _is_over(self) -> bool:
        return self._left or self._reader._closed

    def joined(self, follower: Follow) -> None:
        pass

    def left(self, follower: Follow) -> None:
        self._left = True


async def _open(path: str, disk: Disk) -> Reader:
    loop = get_running_loop()
    handoff = Handoff(loop)
    return Reader(path, disk, loop, handoff, await handoff.run(Catalogue, disk, path))
