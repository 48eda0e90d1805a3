"""The files that this process has open, and how a fork gives them up."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import get_ident
from time import monotonic, sleep

_MODE = 0o600
_FORK_PAUSE = 0.0005  # seconds between two looks at the threads that open, close or fork
_FORK_SECONDS = 1.0  # no longer: the disk may hang


class OpenFiles:
    """The files that this process has open, so that a forked child gives them up at once.

    A lock (flock, or the mark of shared memory) belongs to the open file, which a child has in
    common with its parent: it would last as long as the child, and the parent could neither purge
    nor set a hold. No fork comes between opening and noting, and none between the two at closing:
    a thread that forks waits for the threads that are between them. There is no lock, because one
    that an interrupt leaves behind would stop every thread.
    """

    def __init__(self) -> None:
        self._descriptors: set[int] = set()
        self._busy: dict[int, None] = {}  # threads between two such steps
        self._is_forking = False
        os.register_at_fork(
            before=self._before, after_in_parent=self._after, after_in_child=self._let_go
        )

    def open(self, path: str, flags: int, within: int | None = None, mode: int = _MODE) -> int:
        """Open a file, made with this mode if ``flags`` ask for it, and note it.

        With ``within`` the path is a name in the directory of that descriptor.
        """
        with self.noting():
            descriptor = os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=within)
            self._descriptors.add(descriptor)
            return descriptor

    def close(self, descriptor: int) -> None:
        """Close a file and forget it, also when closing it raises."""
        with self.noting():
            self._descriptors.discard(descriptor)
            os.close(descriptor)

    def forget(self, descriptor: int) -> None:
        """Forget a descriptor that is about to be closed."""
        self._descriptors.discard(descriptor)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep other threads from forking until the end."""
        me = get_ident()
        self._busy[me] = None
        deadline = monotonic() + _FORK_SECONDS
        while self._is_forking and monotonic() < deadline:
            self._busy.pop(me, None)
            sleep(_FORK_PAUSE)
            self._busy[me] = None
        try:
            yield
        finally:
            self._busy.pop(me, None)

    def _before(self) -> None:
        self._is_forking = True
        self._busy.pop(get_ident(), None)  # it is here now
        deadline = monotonic() + _FORK_SECONDS
        while self._busy and monotonic() < deadline:
            sleep(_FORK_PAUSE)

    def _after(self) -> None:
        self._is_forking = False

    def _let_go(self) -> None:
        """Release all descriptors in the child.

        Their numbers stay taken, and lead nowhere; their owners may still close them.
        """
        self._busy.clear()
        self._is_forking = False
        descriptors, self._descriptors = self._descriptors, set()
        if not descriptors:
            return
        try:
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # no such device here, or no descriptor left
            for descriptor in descriptors:
                with suppress(OSError):
                    os.close(descriptor)
            return
        for descriptor in descriptors:
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
        self._descriptors = descriptors


open_files = OpenFiles()


class Stream(io.FileIO):
    """A file opened through `OpenFiles`, as an object for reading."""

    def close(self) -> None:
        with open_files.noting():
            if not self.closed:
                open_files.forget(self.fileno())
            super().close()
