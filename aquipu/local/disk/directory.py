"""The directory of a store, held open by a descriptor, and whether it is still where it was.

Blocking.

Its names are looked up in the directory that was opened (`Disk.pin`), whatever has the path
meanwhile. So when it is renamed, replaced, removed, or when a link that leads to it is switched,
nothing is written elsewhere; but a process that opens the path next does not find what was written
here. Therefore the path is checked before anything is acknowledged.

That takes one call (``stat``) as long as the directory's time of change stays what it was when all
was found in order. When it has moved on, the caller's files are checked as well. A directory in
which names change all the time, cursors for example, must not make each commit slow, so to look at
*all* files is put off for a while that grows with what it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns, time_ns

from aquipu.errors import NotAStoreError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import is_nowhere, translate_os_errors
from aquipu.local.disk.pins import Pin

_TICK = 50_000_000
"""Nanoseconds: two changes of a directory that are nearer to each other may bear the same time."""
_SHARE = 50  # of the time, to look at all files takes one in so many


class Directory:
    """The directory that ``path`` leads to when this is made, until `close`."""

    def __init__(self, disk: Disk, path: str) -> None:
        """Open the directory. Raises OSError."""
        self.path = path
        self._disk = disk
        self._pin: Pin | None = disk.pin(path)
        try:
            self._identity = disk.identity(path)
        except BaseException:
            self.close()
            raise
        self._settled: tuple[int, int, int, int] | None = (
            None  # what the path led to when all was found in order
        )
        self._all_at = 0  # not before then are all files looked at

    def close(self) -> None:
        """Release the directory: from now on its path is a path as any other.

        Does nothing the second time.
        """
        self._pin = None

    def wrong(self, files: Callable[[bool], str | None] = lambda whole: None) -> str | None:
        """Return what is wrong with its place, in words; None as long as the path leads to it.

        When names in it have changed, ``files`` is asked what is wrong with them; with True, it
        checks all of them. An error that does not say that the path leads nowhere does not count
        as wrong.
        """
        try:
            seen = self._disk.seen(self.path)
        except OSError as error:
            return self._gone() if is_nowhere(error) else None
        if seen == self._settled:
            return None
        if seen[:2] != self._identity:
            return self._gone()
        began = monotonic_ns()
        looks_at_all = began >= self._all_at
        found = files(looks_at_all)
        if looks_at_all:
            now = monotonic_ns()
            self._all_at = now + _SHARE * (now - began)
            if found is None and abs(time_ns() - seen[2]) > _TICK:
                self._settled = seen
        return found

    def _gone(self) -> str:
        now = self._disk.whereabouts(self.path)
        if now is None:
            return "the directory was removed or replaced while it was open"
        return f"the path leads no longer to the directory that was opened: that is now {now}"


def check_there(disk: Disk, path: str) -> None:
    """Raise NotAStoreError when nothing has this path, StoreUnavailableError if nobody can say."""
    with translate_os_errors(path, "look at"):
        if not disk.exists(path):
            raise NotAStoreError(path, "there is nothing of this name")
