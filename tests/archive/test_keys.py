"""The names of the objects of an archive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.archive.format.keys import Kind, ObjectKey, entry_key, entry_number

SEQUENCES = st.integers(0, 2**64 - 1)


@given(
    st.binary(min_size=16, max_size=16),
    SEQUENCES,
    SEQUENCES,
    st.binary(max_size=40),
    st.sampled_from(Kind),
)
def test_a_name_says_what_it_was_made_of(
    store_id: bytes, first: int, following: int, body: bytes, kind: Kind
) -> None:
    """A name is read back as what it was made of, and fits its bytes alone."""
    key = ObjectKey.of(store_id, first, following, body, kind)
    assert ObjectKey.parse(str(key)) == key
    assert key.fits(body)
    assert not key.fits(body + b"\0")


@given(SEQUENCES, SEQUENCES)
def test_the_listing_is_the_log_in_order(one: int, other: int) -> None:
    """Names sort as their sequences do, and those of entries as their numbers."""
    names = [
        str(ObjectKey.of(bytes(16), first, first, b"", Kind.SEGMENT)) for first in (one, other)
    ]
    assert (names[0] < names[1]) == (one < other)
    assert (entry_key(one) < entry_key(other)) == (one < other)
    assert entry_number(entry_key(one)) == one


@given(st.text())
def test_any_other_name_is_none(text: str) -> None:
    """What is no such name is nobody's: an archive may lie beside other objects."""
    for name in (text, f"entries/{text}", f"segments/{text}.segment"):
        found = ObjectKey.parse(name)
        assert found is None or str(found) == name
        number = entry_number(name)
        assert number is None or entry_key(number) == name


@pytest.mark.parametrize("name", [f"entries/{2**64}", "entries/1", "entries/" + "٣" * 20])
def test_a_number_out_of_bounds_is_none(name: str) -> None:
    """A number has twenty ASCII digits, and is below 2^64."""
    assert entry_number(name) is None
