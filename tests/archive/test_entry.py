"""The entries of an archive as bytes and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.archive.format.entry import (
    EntryKind,
    Head,
    Piece,
    Place,
    Segment,
    decode,
    decode_list,
    encode,
    encode_list,
)
from aquipu.local.format.history import Generation
from aquipu.local.format.structure import Damage, Unsupported

NUMBERS = st.integers(0, 2**64 - 1)
DIGESTS = st.binary(min_size=32, max_size=32)
HEADS = st.builds(
    Head,
    st.sampled_from(EntryKind),
    NUMBERS,
    NUMBERS,
    st.binary(min_size=16, max_size=16),
    NUMBERS,
    st.text("a ü\n", max_size=8),
    st.none() | NUMBERS,
    NUMBERS,
    NUMBERS,
    NUMBERS,
    st.lists(st.builds(Piece, *[NUMBERS] * 5), max_size=3).map(tuple),
    st.binary(max_size=64),
    st.none() | st.builds(Place, NUMBERS, NUMBERS),
    st.lists(st.builds(Generation, st.binary(min_size=8, max_size=8), NUMBERS), max_size=3).map(
        tuple
    ),
    st.none() | NUMBERS,
)
SEGMENTS = st.builds(
    Segment,
    NUMBERS,
    NUMBERS,
    DIGESTS,
    NUMBERS,
    NUMBERS,
    st.just("plain"),
    *[NUMBERS] * 6,
    st.just(b"") | DIGESTS,
    NUMBERS,
)


@given(HEADS, st.binary(max_size=100))
def test_an_entry_is_read_back(head: Head, body: bytes) -> None:
    """An entry is read back as it was made."""
    assert decode(encode(head, body), head.number) == (head, body)


@given(st.lists(SEGMENTS, max_size=4))
def test_a_list_is_read_back(segments: list[Segment]) -> None:
    """A list of segments is read back as it was made."""
    assert decode_list(encode_list(segments)) == segments


@given(HEADS, st.binary(max_size=20), st.data())
def test_a_changed_byte_is_found(head: Head, body: bytes, data: st.DataObject) -> None:
    """An entry of which any byte is another, or that was cut off, is no entry of this version."""
    made = encode(head, body)
    place = data.draw(st.integers(0, len(made) - 1))
    flipped = bytes([made[place] ^ data.draw(st.integers(1, 255))])
    for damaged in (made[:place], made[:place] + flipped + made[place + 1 :]):
        with pytest.raises((Damage, Unsupported)):
            decode(damaged, head.number)


@pytest.mark.parametrize("body", [b"", b" and more"])
def test_a_size_of_the_head_that_is_another(body: bytes) -> None:
    """Also where what follows would do as a part of the head."""
    made = bytearray(encode(Head(EntryKind.FENCE, 3, 1, bytes(16), 0, "", None, 0, 0, 0), body))
    made[12] += 1
    with pytest.raises(Damage, match="its head does not end where it should"):
        decode(bytes(made), 3)


def test_an_entry_at_another_place() -> None:
    """An entry under the name of another number is damage: the answer was swapped."""
    head = Head(EntryKind.FENCE, 3, 1, bytes(16), 0, "", None, 0, 0, 0)
    with pytest.raises(Damage, match="it is entry 3, not 4"):
        decode(encode(head), 4)


def test_a_later_version() -> None:
    """An entry, or an encoding, of a later version is said to be one."""
    made = encode(Head(EntryKind.FENCE, 3, 1, bytes(16), 0, "", None, 0, 0, 0))
    with pytest.raises(Unsupported, match="format version 2"):
        decode(made[:8] + b"\2" + made[9:], 3)
    with pytest.raises(Unsupported, match="'rot13' is not known"):
        decode_list(encode_list([Segment(0, 1, bytes(32), 1, 1, "rot13", 0, 0, 0, 0, 0, 0)]))
