"""Ownership: a log, open in a process, belongs to one event loop."""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop

from aquipu.errors import WrongLoopError


class Owned:
    """What belongs to an event loop."""

    def __init__(self, path: str, loop: AbstractEventLoop) -> None:
        self._path = path
        self._loop = loop

    @property
    def path(self) -> str:
        """The directory, absolute."""
        return self._path

    def _check_owner(self) -> None:
        """Raise unless this is the loop that it belongs to."""
        try:
            loop = get_running_loop()
        except RuntimeError:
            raise WrongLoopError(self._path) from None
        if loop is not self._loop:
            raise WrongLoopError(self._path)
