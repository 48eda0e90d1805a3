"""The generation of a store: a new one begins when acknowledged records may have been lost.

Blocking.

=======================================  ===========================================================
how the last writer left                 the generation
=======================================  ===========================================================
the store was closed, and ends where it  goes on: everything was synced
did then
its process died; the machine still      goes on: the pages are still in memory
runs, and all that its page shows is
there (`progress_page`)
anything else: the power was cut, the    a new one begins, where the log ends now; to a reader that
page is gone or is behind, the store     has read no further that makes no difference
was repaired
=======================================  ===========================================================

It is on the disk before the store accepts a record, and so is that the store is open. That it was
closed is written last and not synced: if a power cut takes that, the next opening begins a
generation that it need not have begun.

Where the file cannot be made, for lack of space, a store goes on without: its positions name no
generation, and a reader that has read further than the log reaches when the file is made gets a
PositionLostError.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from logging import getLogger

from aquipu.errors import AquipuError
from aquipu.local.disk.disk import Disk, opened
from aquipu.local.disk.durable import put_aside, sync, sync_directory, write_whole
from aquipu.local.disk.os_errors import is_no_space
from aquipu.local.disk.system import random_bytes
from aquipu.local.format.history import (
    ALL,
    HISTORY_BYTES,
    NO_GENERATION,
    Ending,
    History,
    Mark,
    encoded,
    encoded_mark,
    encoded_table,
)
from aquipu.local.format.names import HISTORY, whole_cut_name
from aquipu.local.format.structure import Damage
from aquipu.local.read.progress_reader import ProgressReader
from aquipu.local.retain.history import read_mark_and_history

_NO_LIFE = bytes(16)

_log = getLogger(__name__)


class Generations:
    """The history of a store that this process writes."""

    def __init__(
        self, disk: Disk, path: str, store_id: bytes, history: History | None, mark: Mark
    ) -> None:
        """Take what `begin` has read."""
        self.history = history
        """History of the store; None where the file cannot be had."""
        self._disk = disk
        self._path = path
        self._store_id = store_id
        self._mark = mark

    @classmethod
    def begin(
        cls, disk: Disk, path: str, store_id: bytes, end: int, *, created: bool
    ) -> Generations:
        """Go on in a store that ends at this sequence, in a new generation if need be.

        Raises UnsupportedFormatError, OSError or OutcomeUnknown.
        """
        mark = Mark(Ending.OPEN, disk.life(), 0)
        before = ALL if created else end
        try:
            was, history = read_mark_and_history(disk, path, store_id)
        except FileNotFoundError:
            was, history = None, None
        except Damage as damage:
            _put_aside(disk, path, damage)
            was, history, before = None, None, 0
        its = cls(disk, path, store_id, history, mark)
        if history is None:
            its._make(History.fresh(random_bytes(8), before))
        elif not _is_whole(was, mark.life, end, partial(_furthest, disk, path, store_id)):
            its._write(history.followed_by(random_bytes(8), end))
        else:
            # also what says the same: the sync of the one who wrote it may have failed
            its._write(history)
        return its

    @property
    def current(self) -> bytes:
        """The generation of what is written now."""
        return NO_GENERATION if self.history is None else self.history.current

    def disown_page(self) -> None:
        """Note that no page shows readers how far this writer comes, or vouches for it."""
        self._mark = self._mark._replace(life=_NO_LIFE)
        if self.history is not None:
            self._write(self.history)

    def close(self, end: int) -> None:
        """Note that the store is closed, all of it is synced, and it ends here.

        Without this nothing is lost.
        """
        if self.history is not None:
            mark = Mark(Ending.CLOSED, _NO_LIFE, end)
            with (
                suppress(OSError),
                opened(self._disk, f"{self._path}/{HISTORY}", writable=True) as descriptor,
            ):
                self._disk.write(
                    descriptor, [encoded_mark(mark, self.history.turn, self._store_id)], 0
                )

    def _make(self, history: History) -> None:
        try:
            write_whole(
                self._disk, f"{self._path}/{HISTORY}", encoded(self._mark, history, self._store_id)
            )
            self.history = history
        except OSError as error:
            if not is_no_space(error):
                raise
            self._go_without(error)

    def _write(self, history: History) -> None:
        """Over what is there, which needs no space.

        A new table first: the mark names none that is not on the disk.
        """
        disk, path = self._disk, f"{self._path}/{HISTORY}"
        try:
            with opened(disk, path, writable=True) as descriptor:
                if history != self.history:
                    offset, table = encoded_table(history, self._store_id)
                    disk.write(descriptor, [table], offset)
                    sync(disk, descriptor)
                disk.write(descriptor, [encoded_mark(self._mark, history.turn, self._store_id)], 0)
                sync(disk, descriptor)
            self.history = history
        except OSError as error:
            if not is_no_space(error):
                raise
            # as it is, it would say of what comes now that nothing of it can be lost
            disk.remove(path)
            sync_directory(disk, self._path)
            self.history = None
            self._go_without(error)

    def _go_without(self, error: OSError) -> None:
        _log.warning(
            "%s: there is no space to write which generation this is, so until the next opening "
            "positions name none: %s",
            self._path,
            error.strerror,
        )


def would_begin(disk: Disk, path: str, store_id: bytes, end: int) -> bool:
    """Return whether opening a store that ends at this sequence would begin a new generation.

    Changes nothing. Raises UnsupportedFormatError or OSError.
    """
    try:
        was, _ = read_mark_and_history(disk, path, store_id)
    except FileNotFoundError:
        return False
    except Damage:
        return True
    return not _is_whole(was, disk.life(), end, partial(_furthest, disk, path, store_id))


def doubt(disk: Disk, path: str, store_id: bytes) -> None:
    """Note that the log was repaired: at its next opening a new generation begins.

    Raises OSError or OutcomeUnknown.
    """
    try:
        _, history = read_mark_and_history(disk, path, store_id)
    except (FileNotFoundError, Damage, AquipuError):
        return
    with opened(disk, f"{path}/{HISTORY}", writable=True) as descriptor:
        disk.write(
            descriptor, [encoded_mark(Mark(Ending.UNKNOWN, _NO_LIFE, 0), history.turn, store_id)], 0
        )
        sync(disk, descriptor)


def _put_aside(disk: Disk, path: str, damage: Damage) -> None:
    with opened(disk, f"{path}/{HISTORY}") as descriptor:
        data = disk.read(descriptor, HISTORY_BYTES, 0)
    kept = put_aside(disk, path, partial(whole_cut_name, HISTORY), data)
    _log.error(
        "%s/%s is damaged: %s; no record is lost, but consumers that kept positions will be told "
        "that it is not known whether what they have read is still there; the damaged bytes are "
        "kept in %s",
        path,
        HISTORY,
        damage,
        kept,
    )


def _is_whole(was: Mark | None, life: bytes, end: int, furthest: Callable[[], int | None]) -> bool:
    """Return whether nothing acknowledged can be missing from a log that ends there."""
    if was is None or was.ending is Ending.UNKNOWN:
        return False
    if was.ending is Ending.CLOSED:
        return was.end == end
    if was.life != life or life == _NO_LIFE:
        return False
    acknowledged = furthest()
    return acknowledged is not None and acknowledged <= end


def _furthest(disk: Disk, path: str, store_id: bytes) -> int | None:
    """Return how far the last writer may have acknowledged, as its page says.

    None when there is no page since boot.
    """
    try:
        page = ProgressReader.open(disk, path, store_id)
    except (OSError, AquipuError):
        return None
    if page is None or not page.is_live:
        return None
    published = page.read()
    if published is None:
        return None
    return max(published.acknowledged, page.acknowledging, page.acknowledged_before_failure)
