"""The manifest as bytes and back.

The oracles are the tables of the module's docstring, written out number by number.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.local.format.manifest import MANIFEST_BYTES, Manifest
from aquipu.local.format.segment import SegmentHeader
from aquipu.local.format.structure import VERSION, Damage, Unsupported
from tests.local.format.structures import (
    STORE,
    checked,
    flipped,
    numbers,
    outcome,
    store_ids,
    u64s,
    unhurried,
)


def manifest_by_the_book(manifest: Manifest, version: int = 1, flags: int = 0) -> bytes:
    sequences = numbers(8, manifest.first_sequence, manifest.synced_sequence)
    return checked(b"aquipuMF" + numbers(4, version, flags) + manifest.store_id + sequences)


MANIFEST = Manifest(STORE, first_sequence=262144, synced_sequence=262999)
manifests = st.builds(Manifest, store_ids, u64s, u64s, st.booleans())


@unhurried
@given(manifests)
def test_any_manifest_there_and_back(manifest: Manifest) -> None:
    """A manifest is written as the docstring says and comes back as it was."""
    data = manifest.encode()
    assert len(data) == MANIFEST_BYTES
    assert data == manifest_by_the_book(manifest, flags=int(manifest.is_unfinished))
    assert Manifest.decode(data) == manifest


def test_every_bit_of_a_manifest() -> None:
    """A flipped bit is damage, or, in the version, a version that is not known; it never passes."""
    data = MANIFEST.encode()
    for bit in range(8 * len(data)):
        in_version = 8 <= bit // 8 < 12
        assert outcome(Manifest.decode, flipped(data, bit)) is (
            Unsupported if in_version else Damage
        )


@pytest.mark.parametrize("size", range(MANIFEST_BYTES))
def test_a_manifest_cut_short(size: int) -> None:
    """A manifest that lost its end is damaged, wherever it was cut, and never passes with zeros in
    its place.
    """
    data = MANIFEST.encode()[:size]
    assert outcome(Manifest.decode, data) is Damage
    assert outcome(Manifest.decode, data.ljust(MANIFEST_BYTES, b"\0")) is not None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(MANIFEST.encode() + b"\0", id="a byte behind it"),
        pytest.param(bytes(MANIFEST_BYTES), id="zeros"),
        pytest.param(b"\xff" * MANIFEST_BYTES, id="ones"),
        pytest.param(b"aquipuMF" + numbers(4, VERSION), id="half a beginning"),
        pytest.param(SegmentHeader(STORE, 0, 1, 0).encode(), id="a segment header"),
    ],
)
def test_what_is_no_manifest(data: bytes) -> None:
    """Whatever else stands there is damage."""
    assert outcome(Manifest.decode, data) is Damage


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
@pytest.mark.parametrize("more", [b"", b"and what a later version adds"])
def test_a_manifest_of_another_version(version: int, more: bytes) -> None:
    """Another version is told before anything else of the manifest is looked at: it may have
    another size and checksum.
    """
    with pytest.raises(Unsupported, match=f"format version {version} is not known here"):
        Manifest.decode(manifest_by_the_book(MANIFEST, version=version) + more)


@pytest.mark.parametrize("flags", [2, 0x80000000])
def test_a_manifest_with_unknown_flags(flags: int) -> None:
    """A sound manifest with a flag of a later version is refused."""
    with pytest.raises(Unsupported, match=f"flags {flags:#x}"):
        Manifest.decode(manifest_by_the_book(MANIFEST, flags=flags))
