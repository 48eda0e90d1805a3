"""Log: what is carried to an archive, as far as the one that carries it asks. Blocking."""

from __future__ import annotations

import re
from contextlib import suppress
from hashlib import sha256
from time import sleep
from typing import Protocol

from aquipu.errors import (
    CorruptionError,
    RecordNotWrittenError,
    StoreFullError,
    StoreUnavailableError,
)
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import reported
from aquipu.local.disk.os_errors import is_passing, translate_os_errors
from aquipu.local.format.history import History
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.retain.bookmarks import encoded_bookmarks, set_hold
from aquipu.local.retain.history import read_history

_OF_ARCHIVE = re.compile(r"archive\.[0-9a-f]{12}\.hold")
_PAUSE = 0.1  # seconds until a log is looked at again whose writer has been started anew


class Log(Protocol):
    """A log that is being written, or not."""

    @property
    def store_id(self) -> bytes:
        """Which store it is."""

    @property
    def next_sequence(self) -> int:
        """One past the last acknowledged record."""

    def look(self) -> Snapshot:
        """Return what may be seen of it now, and is on the disk.

        What goes wrong with making it durable is a StoreUnavailableError for `SYNC`.
        """

    def history(self) -> History | None:
        """Return the generations of the store; None when they are not known."""

    def hold(self, name: str, sequence: int) -> bool:
        """Keep everything from a sequence on; False: try again in a moment."""

    def bookmarks(self) -> dict[str, bytes]:
        """Return the holds and cursors, the bytes of each by file name.

        Raises StoreUnavailableError.
        """


def hold_name(url: str) -> str:
    """Return the name of the hold that keeps what is not archived at this place."""
    return f"archive.{sha256(url.encode()).hexdigest()[:12]}"


def bookmarks_of(disk: Disk, path: str) -> dict[str, bytes]:
    """Return the holds and cursors of a store that come along: all but those of archives.

    Raises StoreUnavailableError.
    """
    with translate_os_errors(path, "read the holds and cursors of"):
        found = encoded_bookmarks(disk, path)
    return {name: data for name, data in found.items() if not _OF_ARCHIVE.fullmatch(name)}


SYNC = "sync"
"""How a StoreUnavailableError calls making a log durable."""


def may_pass(error: StoreUnavailableError | StoreFullError) -> bool:
    """Return whether a log that could not be read, or took no hold, is to be tried again.

    Not after a sync that has failed, since the next one would say that all is well, and not where
    it is no error of the system: the log is not there any more.
    """
    cause = error.__cause__
    if isinstance(error, StoreFullError):
        return True
    return isinstance(cause, OSError) and (error.action != SYNC or is_passing(cause))


class CatalogLog(Log):
    """The log in a directory, whoever writes it."""

    def __init__(self, disk: Disk, path: str, catalog: Catalog) -> None:
        self._disk = disk
        self._path = path
        self._catalog = catalog

    @property
    def store_id(self) -> bytes:
        return self._catalog.store_id

    @property
    def next_sequence(self) -> int:
        return self._catalog.acknowledged

    def history(self) -> History | None:
        with translate_os_errors(self._path, "read the history of"), suppress(CorruptionError):
            return read_history(self._disk, self._path, self.store_id)
        return None

    def hold(self, name: str, sequence: int) -> bool:
        with reported(self._path, "set a hold in"):
            return set_hold(self._disk, self._path, name, sequence)

    def bookmarks(self) -> dict[str, bytes]:
        return bookmarks_of(self._disk, self._path)

    def look(self) -> Snapshot:
        while True:
            view = self._catalog.look()
            try:
                self._catalog.sync(view.stop)
            except RecordNotWrittenError:  # its writer has been started anew just now
                sleep(_PAUSE)
                continue
            return view
