"""What a simulated power cut takes from the files of a server."""

from __future__ import annotations

import struct
from random import Random

from tests.postgres.unsynced import rolled_back, unsynced_in


def note(kind: str, at: int, more: int, old: bytes = b"", size: int = 0) -> bytes:
    return struct.pack("<IIQQQQ", ord(kind), len(old), 9, at, size, more) + old


SYNCED = note("W", 0, 600) + note("S", 0, 1) + note("E", 0, 1)
GROWN = SYNCED + note("W", 100, 1024, b"b" * 500, 600) + note("W", 100, 10, b"c" * 10, 1124)


def test_what_it_takes() -> None:
    """What was synced stays; of what was not, each sector has what stood there before or after."""
    (writes,) = unsynced_in(GROWN).values()
    written = b"b" * 100 + b"d" * 10 + b"c" * 1014
    seen = set()
    for seed in range(50):
        left = bytearray(written)
        rolled_back(left, writes, Random(seed))
        assert left[:100] == b"b" * 100
        assert bytes(left[100:110]) in (b"b" * 10, b"c" * 10, b"d" * 10)
        seen.add(bytes(left))
    assert {b"b" * 600, written} < seen


def test_what_a_sync_covers() -> None:
    """What was written before it began; of a file that was cut or is gone, what is left."""
    assert unsynced_in(SYNCED) == {}
    assert unsynced_in(note("S", 0, 7) + note("W", 0, 5) + note("E", 0, 7))
    assert unsynced_in(GROWN + note("T", 0, 50)) == {}
    assert unsynced_in(GROWN + note("U", 0, 0)) == {}
