"""A bookmark, hold or cursor, as bytes and back. Pure.

All numbers are little-endian, the checksum is a CRC32C::

    bookmark, 44 bytes; with version 2, that of a cursor, 52
    0   8  magic "aquipuBM"
    8   4  format version
    12  4  flags
    16 16  store id
    32  8  sequence
    40  8  version 2: generation in which it was saved
    .   4  check of the above, from the seed

The **seed** is the CRC32C of the store id and the file name. So a bookmark that was renamed, or
that another store left, does not check.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from aquipu.local.format.structure import (
    VERSION,
    Damage,
    check_flags,
    check_version,
    checked,
    extend,
    is_sound,
)

_BOOKMARK_MAGIC = b"aquipuBM"
_BOOKMARK = Struct("<8sII16sQI")
_BOOKMARK_VERSION = 2
_GENERATION_BYTES = 8
BOOKMARK_BYTES = _BOOKMARK.size + _GENERATION_BYTES
"""The most that one has."""


class Bookmark(NamedTuple):
    """A place in the log under a name: a hold or a cursor."""

    store_id: bytes
    file_name: str
    """Name of the file, from its name and kind. The bytes hold it only in their check."""
    sequence: int
    generation: bytes = b""
    """Generation in which it was saved, 8 bytes.

    None for a hold, and for a cursor from before there were generations.
    """

    @property
    def seed(self) -> int:
        return _bookmark_seed(self.store_id, self.file_name)

    def encode(self) -> bytes:
        version = _BOOKMARK_VERSION if self.generation else VERSION
        head = _BOOKMARK.pack(_BOOKMARK_MAGIC, version, 0, self.store_id, self.sequence, 0)[:-4]
        return checked(head + self.generation + bytes(4), self.seed)

    @classmethod
    def decode(cls, data: bytes, store_id: bytes, file_name: str) -> Bookmark:
        """Return the bookmark of this store in this file. Raises Damage or Unsupported."""
        if len(data) < 16 or not data.startswith(_BOOKMARK_MAGIC):
            raise Damage("the bookmark does not begin as one")
        version = int.from_bytes(data[8:12], "little")
        if version != _BOOKMARK_VERSION:
            check_version(version)
        size = BOOKMARK_BYTES if version == _BOOKMARK_VERSION else _BOOKMARK.size
        if len(data) != size or not is_sound(data, _bookmark_seed(store_id, file_name)):
            raise Damage("the bookmark does not check, or belongs to another store or name")
        _, _, flags, its_store, sequence, _ = _BOOKMARK.unpack_from(data)
        check_flags(flags)
        if its_store != store_id:
            raise Damage("the bookmark belongs to another store")
        return cls(store_id, file_name, sequence, data[_BOOKMARK.size - 4 : -4])


def _bookmark_seed(store_id: bytes, file_name: str) -> int:
    return extend(0, store_id + file_name.encode())
