"""checksum.py: it is CRC32C, bit for bit, from any start."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aquipu.local.format.structure import extend

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
starts = st.integers(0, 2**32 - 1)

ISCSI_READ = bytes.fromhex(
    "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 "
    "02000000 00000000"
)


def bit_by_bit(start: int, data: bytes) -> int:
    """The polynomial division of RFC 3720, written out."""
    register = start ^ 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("data", "check"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (ISCSI_READ, 0xD9963A56),
    ],
)
def test_the_examples_of_the_standard(data: bytes, check: int) -> None:
    """The examples of RFC 3720, appendix B.4, come out as they stand there."""
    assert extend(0, data) == check


@unhurried
@given(starts, st.binary(max_size=200))
def test_any_bytes_from_any_start(start: int, data: bytes) -> None:
    """The fast checksum is the slow one."""
    assert extend(start, data) == bit_by_bit(start, data)


@unhurried
@given(starts, st.binary(max_size=200), st.integers(0, 200))
def test_bytes_in_two_parts(start: int, data: bytes, cut: int) -> None:
    """A checksum can be continued: that of the first part is the start of the second."""
    assert extend(extend(start, data[:cut]), data[cut:]) == extend(start, data)


@unhurried
@given(starts, starts, st.binary(max_size=64))
def test_two_starts(one: int, other: int, data: bytes) -> None:
    """Different starts give different checksums of the same bytes, always: a wrong seed never
    passes.
    """
    assert (extend(one, data) == extend(other, data)) == (one == other)
