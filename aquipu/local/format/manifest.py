"""The manifest of a store as bytes and back. Pure.

All numbers are little-endian, the checksum is a CRC32C::

    manifest, 52 bytes
    0   8  magic "aquipuMF"
    8   4  format version
    12  4  flags: 1 while a restore has not finished
    16 16  store id
    32  8  first sequence kept
    40  8  synced sequence
    48  4  check of the above
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
    is_sound,
)

_MANIFEST_MAGIC = b"aquipuMF"
_MANIFEST = Struct("<8sII16sQQI")
MANIFEST_BYTES = _MANIFEST.size
_UNFINISHED = 1


class Manifest(NamedTuple):
    """Which store this is, and where its log begins."""

    store_id: bytes
    """Id of the store, 16 random bytes."""
    first_sequence: int
    """Sequence of the first retained record: what lies before was purged."""
    synced_sequence: int
    """Sequence below which everything was synced, at the creation or the last clean close.

    Of a backup, or what was restored: when that was done.
    """
    is_unfinished: bool = False
    """Whether it is being restored: a part of the log, which nobody is to go on with."""

    def encode(self) -> bytes:
        flags = _UNFINISHED if self.is_unfinished else 0
        return checked(_MANIFEST.pack(_MANIFEST_MAGIC, VERSION, flags, *self[:3], 0), 0)

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Return the manifest from its bytes. Raises Damage or Unsupported."""
        if len(data) < 16 or not data.startswith(_MANIFEST_MAGIC):
            raise Damage("the manifest does not begin as one")
        check_version(int.from_bytes(data[8:12], "little"))
        if len(data) != MANIFEST_BYTES or not is_sound(data, 0):
            raise Damage("the manifest does not check")
        _, _, flags, store_id, first, synced, _ = _MANIFEST.unpack(data)
        check_flags(flags, known=_UNFINISHED)
        return cls(store_id, first, synced, bool(flags & _UNFINISHED))
