"""A bookmark as bytes and back.

The oracles are the tables of the module's docstring, written out number by number.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.local.format.bookmark import BOOKMARK_BYTES, Bookmark
from aquipu.local.format.manifest import Manifest
from aquipu.local.format.structure import Damage, Unsupported, extend
from tests.local.format.structures import (
    OTHER_STORE,
    STORE,
    checked,
    flipped,
    numbers,
    outcome,
    store_ids,
    u64s,
    unhurried,
)

MANIFEST = Manifest(STORE, first_sequence=262144, synced_sequence=262999)


def bookmark_by_the_book(
    bookmark: Bookmark,
    seed: int,
    version: int | None = None,
    flags: int = 0,
    store_id: bytes | None = None,
) -> bytes:
    version = (2 if bookmark.generation else 1) if version is None else version
    fields = b"aquipuBM" + numbers(4, version, flags) + (store_id or bookmark.store_id)
    return checked(fields + numbers(8, bookmark.sequence) + bookmark.generation, seed)


BOOKMARK = Bookmark(STORE, "backup.hold", 262144)
generations = st.sampled_from([b"", b"8 bytes.", bytes(8)])
bookmarks = st.builds(
    Bookmark,
    store_ids,
    st.sampled_from(["backup.hold", "backup.cursor", "a.hold"]),
    u64s,
    generations,
)


def decode_bookmark(data: bytes) -> Bookmark:
    return Bookmark.decode(data, BOOKMARK.store_id, BOOKMARK.file_name)


@unhurried
@given(bookmarks)
def test_any_bookmark_there_and_back(bookmark: Bookmark) -> None:
    """A bookmark is written as the docstring says and comes back as it was."""
    data = bookmark.encode()
    assert len(data) == (BOOKMARK_BYTES if bookmark.generation else 44)
    assert bookmark.seed == extend(0, bookmark.store_id + bookmark.file_name.encode())
    assert data == bookmark_by_the_book(bookmark, bookmark.seed)
    assert Bookmark.decode(data, bookmark.store_id, bookmark.file_name) == bookmark


def test_every_bit_of_a_bookmark() -> None:
    """A flipped bit is damage, or, in the version, a version that is not known; it never passes."""
    data = BOOKMARK.encode()
    for bit in range(8 * len(data)):
        in_version = 8 <= bit // 8 < 12
        assert outcome(decode_bookmark, flipped(data, bit)) is (
            Unsupported if in_version else Damage
        )


@pytest.mark.parametrize("size", range(BOOKMARK_BYTES))
def test_a_bookmark_cut_short(size: int) -> None:
    """A bookmark that lost its end is damaged, wherever it was cut, and never passes with zeros in
    its place.
    """
    data = BOOKMARK._replace(generation=b"8 bytes.").encode()[:size]
    assert outcome(decode_bookmark, data) is Damage
    assert outcome(decode_bookmark, data.ljust(BOOKMARK_BYTES, b"\0")) is not None


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(BOOKMARK._replace(store_id=OTHER_STORE), id="another store"),
        pytest.param(BOOKMARK._replace(file_name="audit.hold"), id="another name"),
        pytest.param(BOOKMARK._replace(file_name="backup.cursor"), id="another kind"),
    ],
)
def test_a_bookmark_from_elsewhere(other: Bookmark) -> None:
    """The bookmark of another store, of another name or of another kind is damage here, however
    sound it is.
    """
    assert outcome(decode_bookmark, other.encode()) is Damage


def test_a_bookmark_that_names_another_store() -> None:
    """A bookmark that checks here and yet names another store is damage too."""
    data = bookmark_by_the_book(BOOKMARK, BOOKMARK.seed, store_id=OTHER_STORE)
    with pytest.raises(Damage, match="belongs to another store"):
        decode_bookmark(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(BOOKMARK.encode() + b"\0", id="a byte behind it"),
        pytest.param(b"", id="nothing"),
        pytest.param(bytes(BOOKMARK_BYTES), id="zeros"),
        pytest.param(b"\xff" * BOOKMARK_BYTES, id="ones"),
        pytest.param(
            checked(BOOKMARK.encode()[:-4] + b"more", BOOKMARK.seed), id="longer, and it checks"
        ),
        pytest.param(checked(BOOKMARK.encode()[:-8], BOOKMARK.seed), id="shorter, and it checks"),
        pytest.param(MANIFEST.encode(), id="a manifest"),
        pytest.param(MANIFEST.encode()[:BOOKMARK_BYTES], id="a part of a manifest"),
    ],
)
def test_what_is_no_bookmark(data: bytes) -> None:
    """Whatever else stands there is damage."""
    assert outcome(decode_bookmark, data) is Damage


@pytest.mark.parametrize("version", [0, 3, 2**32 - 1])
@pytest.mark.parametrize("more", [b"", b"and what a later version adds"])
def test_a_bookmark_of_another_version(version: int, more: bytes) -> None:
    """Another version is told before anything else of the bookmark is looked at."""
    with pytest.raises(Unsupported, match=f"format version {version} is not known here"):
        decode_bookmark(bookmark_by_the_book(BOOKMARK, 0, version=version) + more)


@pytest.mark.parametrize("flags", [1, 0x80000000])
def test_a_bookmark_with_unknown_flags(flags: int) -> None:
    """A sound bookmark with a flag of a later version is refused."""
    with pytest.raises(Unsupported, match=f"flags {flags:#x}"):
        decode_bookmark(bookmark_by_the_book(BOOKMARK, BOOKMARK.seed, flags=flags))
