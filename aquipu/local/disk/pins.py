"""Directories that are held by a descriptor, wherever their paths lead meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from weakref import WeakValueDictionary

from aquipu.local.disk.open_files import open_files


class Pin:
    """A directory that is held by a descriptor, for as long as this object is kept."""

    def __init__(self, descriptor: int | None) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:  # no sooner: another thread may be using it
        if self.descriptor is not None:
            with suppress(OSError):
                open_files.close(self.descriptor)


class Pins:
    """The directories that are held now, by their paths."""

    def __init__(self) -> None:
        self._pins: WeakValueDictionary[str, Pin] = WeakValueDictionary()

    def hold(self, path: str) -> Pin:
        """Hold the directory that this path leads to now, as long as what is returned is kept."""
        pin = self._pins.get(path)
        if pin is None:
            pin = self._pins[path] = Pin(open_files.open(path, os.O_RDONLY | os.O_DIRECTORY))
        return pin

    @contextmanager
    def pinned(self, path: str) -> Iterator[int | None]:
        """Give a descriptor of this directory, if it is pinned, until the call is over."""
        pin = self._pins.get(path)
        try:
            yield None if pin is None else pin.descriptor
        finally:
            pin = None  # the traceback of an error keeps this frame

    @contextmanager
    def within(self, path: str) -> Iterator[tuple[int | None, str]]:
        """Give where to look up a file, and under which name.

        The first is a descriptor of its directory, if that is pinned.
        """
        directory, _, name = path.rpartition("/")
        with self.pinned(directory) as descriptor:
            try:
                yield (None, path) if descriptor is None else (descriptor, name)
            except OSError as error:
                error.filename = path  # not the name alone
                raise
