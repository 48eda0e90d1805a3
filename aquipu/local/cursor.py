"""Cursors: where a consumer goes on, kept beside the store under a name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from aquipu.errors import AquipuError, RecordPurgedError, StoreFullError, StoreUnavailableError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import OutcomeUnknown
from aquipu.local.disk.os_errors import is_no_space, translate_os_errors
from aquipu.local.format.bookmark import Bookmark
from aquipu.local.format.history import NO_GENERATION
from aquipu.local.format.names import BookmarkKind
from aquipu.local.read.snapshot import Snapshot, find
from aquipu.local.retain.bookmarks import (
    bookmark_names,
    checked_name,
    hold_of_cursor,
    read_bookmark,
    read_cursor,
    set_hold,
    write_bookmark,
)
from aquipu.reading import Cursor
from aquipu.record import Lag
from aquipu.runtime.handoff import Handoff


class Source(Protocol):
    """The log of a cursor."""

    path: str
    disk: Disk
    handoff: Handoff

    @property
    def first_sequence(self) -> int:
        """Sequence of the first record kept."""

    @property
    def generation(self) -> bytes:
        """Generation that it is in."""

    async def hold(self, name: str, sequence: int) -> None:
        """Keep everything from this sequence on; see `Store.hold`."""

    async def secure(self, sequence: int) -> None:
        """Have everything before this sequence on the disk.

        Raises RecordNotWrittenError for one beyond the end.
        """

    async def check_there(self, generation: bytes, sequence: int) -> None:
        """Raise PositionLostError unless what a generation gave up to there is still there."""


class LocalCursor(Cursor):
    """A `Cursor` in a small file beside the log."""

    def __init__(
        self,
        name: str,
        log: Source,
        store_id: bytes,
        check: Callable[[], None],
        *,
        hold: bool,
    ) -> None:
        """Check the name; not called by users: `Store.cursor` and `Reader.cursor` do.

        ``check``: raises unless the log may be used here and now; it keeps the face alive.
        """
        self._name = checked_name(name)
        self._hold = hold_of_cursor(name, hold)
        self._disk, self._path, self._handoff = log.disk, log.path, log.handoff
        self._store_id = store_id
        self._log = log
        self._check = check

    async def load(self) -> int | None:
        bookmark = await self._handoff.run(self._load)
        if bookmark is not None:
            self._check()
            await self._log.check_there(bookmark.generation or NO_GENERATION, bookmark.sequence)
        if self._hold is not None:
            sequence = self._log.first_sequence if bookmark is None else bookmark.sequence
            await self._keep(self._hold, sequence)
        return None if bookmark is None else bookmark.sequence

    async def save(self, sequence: int) -> None:
        if not isinstance(sequence, int) or isinstance(sequence, bool):
            raise TypeError(
                f"a cursor keeps a sequence, a whole number, not {type(sequence).__name__}"
            )
        if not 0 <= sequence < 1 << 64:
            raise ValueError(f"a cursor keeps a sequence, from 0 on, not {sequence}")
        self._check()
        await self._log.secure(sequence)
        if self._hold is not None:  # whatever comes between: never beyond the cursor
            saved = await self._handoff.run(self._load)
            lowest = sequence if saved is None else min(saved.sequence, sequence)
            await self._keep(self._hold, lowest, at_most=True)
        await self._handoff.run(self._save, sequence, self._log.generation)
        if self._hold is not None:
            await self._keep(self._hold, sequence)

    async def _keep(self, hold: str, sequence: int, *, at_most: bool = False) -> None:
        """Have everything kept from this sequence on, or (``at_most``) more; or what is left."""
        held = await self._handoff.run(self._held, hold)
        while held is None or (held > sequence if at_most else held != sequence):
            try:
                await self._log.hold(hold, sequence)
                return
            except RecordPurgedError as purged:  # before it was held
                sequence = purged.bound

    # on a thread

    def _held(self, hold: str) -> int | None:
        with translate_os_errors(self._path, f"read the hold {hold!r} of"):
            return read_bookmark(self._disk, self._path, self._store_id, BookmarkKind.HOLD, hold)

    def _load(self) -> Bookmark | None:
        with translate_os_errors(self._path, f"read the cursor {self._name!r} of"):
            return read_cursor(self._disk, self._path, self._store_id, self._name)

    def _save(self, sequence: int, generation: bytes) -> None:
        with _changing_bookmark(self._path, f"save the cursor {self._name!r} of"):
            write_bookmark(
                self._disk,
                self._path,
                self._store_id,
                BookmarkKind.CURSOR,
                self._name,
                sequence,
                generation.strip(b"\0") and generation,
            )


def hold_beside_writer(disk: Disk, path: str, name: str, sequence: int) -> bool:
    """Keep everything from this sequence on, in a process that does not write the log. Blocking.

    False when another sets a hold at this moment: try again. Raises RecordPurgedError,
    StoreFullError or StoreUnavailableError.
    """
    with _changing_bookmark(path, "set a hold in"):
        return set_hold(disk, path, name, sequence)


@contextmanager
def _changing_bookmark(path: str, action: str) -> Iterator[None]:
    try:
        with translate_os_errors(path, action):
            try:
                yield
            except OSError as error:
                if not is_no_space(error):
                    raise
                raise StoreFullError(path, None, error.strerror or "no space") from error
    except OutcomeUnknown as unknown:
        reason = f"{unknown.doing}: {unknown.error.strerror}"
        raise StoreUnavailableError(path, action, reason) from unknown.error


def lags(path: str, store_id: bytes, view: Snapshot, now: int) -> dict[str, Lag]:
    """Return how far each cursor is behind what may be seen of a log, by its name. Blocking.

    Those that do not check are left out, and so are those whose next record is purged just now.
    ``now``: by the clock of the records. Raises StoreUnavailableError.
    """
    found: dict[str, Lag] = {}
    with translate_os_errors(path, "read the cursors of"):
        names = bookmark_names(view.disk, path, BookmarkKind.CURSOR)
    for name in names:
        with suppress(AquipuError, OSError):
            bookmark = read_cursor(view.disk, path, store_id, name)
            if bookmark is not None:
                found[name] = _lag(bookmark.sequence, view, now)
    return found


def _lag(sequence: int, view: Snapshot, now: int) -> Lag:
    following = max(sequence, view.start)
    if following >= view.stop:
        return Lag(sequence, max(view.stop - sequence, 0), 0.0)
    record = find(view._replace(start=following, stop=following + 1))
    return Lag(sequence, view.stop - sequence, max(now - record.timestamp, 0) / 1e9)
