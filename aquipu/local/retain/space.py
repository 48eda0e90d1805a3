"""FreeSpace: how much space is left, and what is reserved for a full disk. Blocking."""

from __future__ import annotations

from time import monotonic_ns

from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import has_reserves, keep_reserves
from aquipu.local.retain.clock import SECOND

_MEASURE_EVERY = SECOND  # how much space is left, at most


class FreeSpace:
    """The free space of a store's file system, and the reserves that bookmarks and purges need."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.bytes: int | None = None
        """Free bytes when last measured; None: not known."""
        self.measure_at = 0
        """Time when it is to be measured again, in nanoseconds by the monotonic clock."""
        self._disk = disk
        self._path = path
        self._has_reserves: bool | None = None  # None: they were not asked for

    @property
    def is_measured(self) -> bool:
        """Whether the space was just measured; from any thread."""
        return monotonic_ns() < self.measure_at

    def measure(self) -> None:
        """Measure the space, and make the reserves anew that were used."""
        self.renew_reserves()
        self.measure_at = monotonic_ns() + _MEASURE_EVERY
        try:
            self.bytes = self._disk.free(self._path)
        except OSError:
            self.bytes = None

    def keep_reserves(self) -> None:
        """Reserve the space that bookmarks and purges need on a full disk, if there is any."""
        self._has_reserves = keep_reserves(self._disk, self._path)

    def use_reserve(self) -> None:
        """Note that a reserve may be used now."""
        if self._has_reserves is not None:
            self._has_reserves = False

    def renew_reserves(self) -> None:
        """Make the reserves anew that were used, if reserves are kept.

        Other processes use them, too: for their cursors and holds.
        """
        if self._has_reserves and not has_reserves(self._disk, self._path):
            self._has_reserves = False
        if self._has_reserves is False:
            self.keep_reserves()
