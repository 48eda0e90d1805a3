"""Bytes of objects that were fetched, as many as there is room for. Pure."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict

WHOLE_BYTES = 8 * 1024 * 1024
"""Size up to which an object is fetched whole."""
_ALIGNED = 64 * 1024
_TAIL = 256 * 1024
_LEAST = 1024 * 1024
_MOST = 8 * 1024 * 1024


class Cache:
    """Extents of objects, the last used kept; no more bytes than there is room for."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._extents: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._begins: dict[str, list[int]] = {}
        self._read_on: dict[str, tuple[int, int]] = {}
        self.size = 0
        """Bytes that are kept."""

    def find(self, key: str, begin: int, end: int) -> bytes | None:
        """Return the bytes of an object between two offsets, if they are here in one extent."""
        begins = self._begins.get(key, ())
        for place in range(bisect_right(begins, begin) - 1, -1, -1):
            extent = self._extents[key, begins[place]]
            if begins[place] + len(extent) >= end:
                self._extents.move_to_end((key, begins[place]))
                return extent[begin - begins[place] : end - begins[place]]
        return None

    def wanted(self, key: str, begin: int, end: int, size: int) -> tuple[int, int]:
        """Return what to fetch of an object of this size so that these bytes are here."""
        if size <= min(WHOLE_BYTES, self._room):
            return 0, size
        first = begin - begin % _ALIGNED
        if end == size:  # the end of a footer, of which more will be wanted
            first = min(first, max(size - _TAIL, 0))
        following, before = self._read_on.get(key, (-1, 0))
        more = min(2 * before, _MOST) if following - _ALIGNED <= begin <= following else _LEAST
        last = min(max(end, first + more), size)
        self._read_on[key] = last, last - first
        return first, last

    def put(self, key: str, begin: int, data: bytes) -> None:
        """Keep bytes that were fetched, and drop those that were not used for longest."""
        if (key, begin) in self._extents:
            self.size -= len(self._extents.pop((key, begin)))
        else:
            insort(self._begins.setdefault(key, []), begin)
        self._extents[key, begin] = data
        self.size += len(data)
        while self.size > self._room and len(self._extents) > 1:
            (other, at), dropped = self._extents.popitem(last=False)
            self._begins[other].remove(at)
            self.size -= len(dropped)
