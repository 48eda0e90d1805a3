"""Frames with labels, and what is to be gathered from them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SEED = 0x5EED5EED

printable = st.characters(exclude_categories=("C", "Z")) | st.just(" ")

words = st.text("ab:", min_size=1, max_size=4) | st.text(printable, min_size=1, max_size=6).filter(
    str.isprintable
)


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)
