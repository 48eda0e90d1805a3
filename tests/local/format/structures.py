"""What the tests of small structures share: stores, numbers, checksums, flipped bits."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from aquipu.local.format.structure import Damage, Unsupported, extend

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

STORE = bytes(range(16))
OTHER_STORE = bytes(range(1, 17))
store_ids = st.binary(min_size=16, max_size=16)
u32s = st.integers(0, 2**32 - 1)
u64s = st.integers(0, 2**64 - 1)


def numbers(size: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in values)


def checked(data: bytes, seed: int = 0) -> bytes:
    """Return the structure with its checksum behind it."""
    return data + numbers(4, extend(seed, data))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def outcome(decode: Callable[[bytes], object], data: bytes) -> type[Exception] | None:
    """Return what a decoder raises, if anything."""
    try:
        decode(data)
    except (Damage, Unsupported) as error:
        return type(error)
    return None
