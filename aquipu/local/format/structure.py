"""What the structures of a store have in common: a version, flags, and a checksum at the end. Pure.

A structure that is read and does not check raises Damage, and one from a later version Unsupported.
"""

from __future__ import annotations

from collections.abc import Callable

import google_crc32c

extend: Callable[[int, bytes], int] = google_crc32c.extend
"""``extend(start, data)``: CRC32C (RFC 3720, appendix B.4) of ``data``, continued from ``start``.

The checksum of everything that aquipu writes; 0 to begin.
"""
VERSION = 1
"""Version of the format that is written."""


class Damage(Exception):
    """A structure does not check; the text says which.

    The modules that know the path turn it into a CorruptionError.
    """


class Unsupported(Exception):
    """A structure is sound but from a later version.

    The modules that know the path turn it into an UnsupportedFormatError.
    """


def checked(data: bytes, seed: int) -> bytes:
    """Return the structure with its last four bytes replaced by the checksum of the others."""
    return data[:-4] + extend(seed, data[:-4]).to_bytes(4, "little")


def is_sound(data: bytes, seed: int) -> bool:
    return extend(seed, data[:-4]) == int.from_bytes(data[-4:], "little")


def check_version(version: int) -> None:
    if version != VERSION:
        raise Unsupported(f"format version {version} is not known here (this is version {VERSION})")


def check_flags(flags: int, known: int = 0) -> None:
    if flags & ~known:
        raise Unsupported(f"the flags {flags & ~known:#x} are not known here")


def chosen(check_of: Callable[[int], int], target: int) -> int:
    """Return the 32 bits for which ``check_of`` gives the target.

    It is a CRC of them and of bytes that stay the same. Each bit that is set turns the same bits of
    a CRC over, whatever the others are. So this is a system of 32 linear equations over single
    bits, and solved as one.
    """
    base = check_of(0)
    rows: dict[
        int, tuple[int, int]
    ] = {}  # by their highest bit: the bits of the check that turn over, and for which choice
    for bit in range(32):
        turns, choice = _reduced(rows, check_of(1 << bit) ^ base, 1 << bit)
        rows[turns.bit_length()] = turns, choice
    left, choice = _reduced(rows, target ^ base, 0)
    assert left == 0, "a CRC takes every value"
    return choice


def _reduced(rows: dict[int, tuple[int, int]], turns: int, choice: int) -> tuple[int, int]:
    while turns and turns.bit_length() in rows:
        row_turns, row_choice = rows[turns.bit_length()]
        turns, choice = turns ^ row_turns, choice ^ row_choice
    return turns, choice
