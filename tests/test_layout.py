"""layout.py: file names, the manifest, the header and the footer of a segment, and the index.

The oracles are the tables of the module's docstring, written out number by number.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aquipu.checksum import extend
from aquipu.layout import (
    BOOKMARK_BYTES,
    BOOKMARK_NAME,
    FOOTER_BYTES,
    INDEX_STRIDE,
    MANIFEST_BYTES,
    SEGMENT_HEADER_BYTES,
    VERSION,
    Bookmark,
    BookmarkKind,
    Contents,
    Damage,
    Index,
    Manifest,
    SegmentHeader,
    Unsupported,
    bookmark_in_the_making,
    bookmark_name,
    bookmark_of,
    cut_name,
    first_sequence_of,
    footer_bytes,
    is_bookmark_in_the_making,
    is_ours,
    is_sealed,
    is_unnamed,
    seed_of,
    segment_name,
    whole_cut_name,
)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

STORE = bytes(range(16))
OTHER_STORE = bytes(range(1, 17))
SEED = 0x5EED5EED

store_ids = st.binary(min_size=16, max_size=16)
u32s = st.integers(0, 2**32 - 1)
u64s = st.integers(0, 2**64 - 1)


def numbers(size: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in values)


def checked(data: bytes, seed: int = 0) -> bytes:
    """The structure with its checksum behind it."""
    return data + numbers(4, extend(seed, data))


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def outcome(decode: Callable[[bytes], object], data: bytes) -> type[Exception] | None:
    """What a decoder raises, if anything."""
    try:
        decode(data)
    except (Damage, Unsupported) as error:
        return type(error)
    return None


# names


@pytest.mark.parametrize(
    ("sequence", "name"),
    [
        (0, "00000000000000000000.segment"),
        (262144, "00000000000000262144.segment"),
        (2**64 - 1, "18446744073709551615.segment"),
    ],
)
def test_the_name_of_a_segment(sequence: int, name: str) -> None:
    """A segment is named by its first sequence in twenty digits."""
    assert segment_name(sequence) == name
    assert first_sequence_of(name) == sequence


@unhurried
@given(st.lists(u64s, max_size=20))
def test_a_listing_is_the_log_in_order(sequences: list[int]) -> None:
    """Sorted by name, segments stand in the order of their sequences."""
    assert [first_sequence_of(name) for name in sorted(map(segment_name, sequences))] == sorted(sequences)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".segment",
        "0.segment",
        "0000000000000000007.segment",
        "000000000000000000007.segment",
        "00000000000000000007",
        "00000000000000000007.Segment",
        "00000000000000000007.segment.bak",
        "00000000000000000007.segment\n",
        " 0000000000000000007.segment",
        "+0000000000000000007.segment",
        "-0000000000000000007.segment",
        "0x000000000000000007.segment",
        "0000000000000000000_7.segment",
        "a/00000000000000000007.segment",
        pytest.param("\u0660" * 20 + ".segment", id="digits of another script"),
        pytest.param("18446744073709551616.segment", id="more than a sequence can be"),
    ],
)
def test_a_name_of_something_else(name: str) -> None:
    """Only a name that `segment_name` gives is that of a segment, so no other file is ever taken for one."""
    assert first_sequence_of(name) is None
    assert not is_ours(name)


@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "manifest",
        "00000000000000262144.segment",
        "00000000000000262144.cut-4711",
        "manifest.unnamed",
        "00000000000000262144.segment.unnamed",
        "00000000000000262144.cut-4711.unnamed",
        *("manifest.cut-0", "manifest.cut-0-2", "nightly.hold.cut-0", "billing.cursor.cut-0-2"),
    ],
)
def test_a_file_of_ours(name: str) -> None:
    """A store holds its lock, its manifest, segments, cut-off tails, and those that are being made."""
    assert is_ours(name)


@pytest.mark.parametrize(
    "name",
    [
        *("notes.txt", "LOCK", "lock.1", "manifest~", "Manifest", "data.db", ".git", "lost+found"),
        *("00000000000000262144.cut", "00000000000000262144.cut-", "00000000000000262144.cut-x", "262144.cut-4711"),
        *("manifest.cut", "lock.cut-0", "nightly.cut-0", "manifest.bak.cut-0"),
        *("00000000000000262144.cut-4711.bak", "00000000000000262144.cut-4711\n", "00000000000000262144.cut-\u0664"),
        *("notes.unnamed", ".unnamed", "manifest.unnamed.txt", "262144.segment.unnamed"),
    ],
)
def test_a_file_of_somebody_else(name: str) -> None:
    """Any other name is not ours: a directory that holds one is no place for a new store, and opening removes none."""
    assert not is_ours(name)


def test_a_file_that_was_being_made() -> None:
    """Opening may remove what was being made and never got its name: nothing that is finished, and nothing of others."""
    being_made = ["manifest.unnamed", "00000000000000262144.segment.unnamed", "00000000000000262144.cut-4711.unnamed"]
    assert all(map(is_unnamed, being_made))
    finished = ["lock", "manifest", "00000000000000262144.segment", "00000000000000262144.cut-4711"]
    assert not any(map(is_unnamed, [*finished, "notes.unnamed", ".unnamed", "unnamed"]))


def test_the_name_of_a_tail_that_was_cut_off() -> None:
    """A tail is named by its segment and by the offset where it was cut."""
    assert cut_name(262144, 4711) == "00000000000000262144.cut-4711"
    assert cut_name(262144, 4711, 2) == "00000000000000262144.cut-4711-2"
    assert whole_cut_name("manifest") == "manifest.cut-0"
    assert whole_cut_name("nightly.hold", 2) == "nightly.hold.cut-0-2"
    assert first_sequence_of(cut_name(262144, 4711)) is None


@pytest.mark.parametrize(
    ("file_name", "kind", "name"),
    [
        ("nightly-backup.hold", BookmarkKind.HOLD, "nightly-backup"),
        ("billing.cursor", BookmarkKind.CURSOR, "billing"),
        ("a.hold.cursor", BookmarkKind.CURSOR, "a.hold"),
        ("00000000000000262144.segment.hold", BookmarkKind.HOLD, "00000000000000262144.segment"),
        ("manifest.unnamed.hold", BookmarkKind.HOLD, "manifest.unnamed"),
        ("_.cursor", BookmarkKind.CURSOR, "_"),
        ("x" * 100 + ".hold", BookmarkKind.HOLD, "x" * 100),
    ],
)
def test_the_name_of_a_bookmark(file_name: str, kind: BookmarkKind, name: str) -> None:
    """A bookmark's file is named by what its user calls it and its kind, and is ours, also while it is being made."""
    assert bookmark_name(kind, name) == file_name
    assert bookmark_of(file_name) == (kind, name)
    assert is_ours(file_name)
    assert is_ours(bookmark_in_the_making(file_name, 4711, 1))
    assert not is_unnamed(file_name)
    assert first_sequence_of(file_name) is None


@unhurried
@given(st.sampled_from(BookmarkKind), st.from_regex(BOOKMARK_NAME, fullmatch=True))
def test_any_bookmark_by_its_file_name(kind: BookmarkKind, name: str) -> None:
    """From each kind and name comes a file name of its own, from which both come back."""
    assert bookmark_of(bookmark_name(kind, name)) == (kind, name)


@pytest.mark.parametrize(
    "name",
    [
        *("hold", ".hold", "a.Hold", "a.hold~", "a.holds", "a.hold\n", "a\n.hold", "a b.hold", "a/b.hold", "-a.hold"),
        *("..hold", "a.bookmark", "\u00e4.hold", "a.hold.txt", "hold.unnamed", ".hold.unnamed", "a.hold.bak.unnamed"),
        pytest.param("x" * 101 + ".hold", id="101 characters"),
    ],
)
def test_what_is_no_name_of_a_bookmark(name: str) -> None:
    """Any other name is that of something else, and nobody's of ours."""
    assert bookmark_of(name) is None
    assert not is_ours(name)
    assert not is_unnamed(name)


def test_a_bookmark_that_was_being_made() -> None:
    """Its file is told apart from those that only the writer makes: somebody else may be at it just now."""
    made = [bookmark_in_the_making("billing.cursor", 4711, 1), "backup.hold.4711-12.unnamed", "a.hold.cursor.1-1.unnamed"]
    assert made[0] == "billing.cursor.4711-1.unnamed"
    assert all(map(is_bookmark_in_the_making, made))
    assert not any(map(is_unnamed, made))
    others = ["billing.cursor", "billing.cursor.unnamed", "billing.cursor.4711.unnamed", "b.4711-1.unnamed"]
    assert not any(map(is_bookmark_in_the_making, others))


# the manifest


def manifest_by_the_book(manifest: Manifest, version: int = 1, flags: int = 0) -> bytes:
    sequences = numbers(8, manifest.first_sequence, manifest.synced_sequence)
    return checked(b"aquipuMF" + numbers(4, version, flags) + manifest.store_id + sequences)


MANIFEST = Manifest(STORE, first_sequence=262144, synced_sequence=262999)
manifests = st.builds(Manifest, store_ids, u64s, u64s)


@unhurried
@given(manifests)
def test_any_manifest_there_and_back(manifest: Manifest) -> None:
    """A manifest is written as the docstring says and comes back as it was."""
    data = manifest.encode()
    assert len(data) == MANIFEST_BYTES
    assert data == manifest_by_the_book(manifest)
    assert Manifest.decode(data) == manifest


def test_every_bit_of_a_manifest() -> None:
    """A flipped bit is damage, or, in the version, a version that is not known; it never passes."""
    data = MANIFEST.encode()
    for bit in range(8 * len(data)):
        in_version = 8 <= bit // 8 < 12
        assert outcome(Manifest.decode, flipped(data, bit)) is (Unsupported if in_version else Damage)


@pytest.mark.parametrize("size", range(MANIFEST_BYTES))
def test_a_manifest_cut_short(size: int) -> None:
    """A manifest that lost its end is damaged, wherever it was cut, and never passes with zeros in its place."""
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
    """Another version is told before anything else of the manifest is looked at: it may have another size and checksum."""
    with pytest.raises(Unsupported, match=f"format version {version} is not known here"):
        Manifest.decode(manifest_by_the_book(MANIFEST, version=version) + more)


@pytest.mark.parametrize("flags", [1, 0x80000000])
def test_a_manifest_with_unknown_flags(flags: int) -> None:
    """A sound manifest with a flag of a later version is refused."""
    with pytest.raises(Unsupported, match=f"flags {flags:#x}"):
        Manifest.decode(manifest_by_the_book(MANIFEST, flags=flags))


# the header of a segment


def header_by_the_book(header: SegmentHeader, seed: int, version: int = 1, flags: int = 0) -> bytes:
    fields = b"aquipuSG" + numbers(4, version, flags) + header.store_id
    return checked(fields + numbers(8, header.first_sequence, header.created) + numbers(4, header.link) + bytes(8), seed)


HEADER = SegmentHeader(STORE, 262144, 1_700_000_000_000_000_000, 0xDEADBEEF)
headers = st.builds(SegmentHeader, store_ids, u64s, u64s, u32s)


def decode_header(data: bytes) -> SegmentHeader:
    return SegmentHeader.decode(data, HEADER.store_id, HEADER.first_sequence)


@unhurried
@given(store_ids, u64s)
def test_a_seed_comes_from_the_store_and_the_place(store_id: bytes, first_sequence: int) -> None:
    """The seed of a segment is the CRC32C of the store id and the first sequence, eight bytes little-endian."""
    assert seed_of(store_id, first_sequence) == extend(0, store_id + numbers(8, first_sequence))
    assert SegmentHeader(store_id, first_sequence, 1, 2).seed == seed_of(store_id, first_sequence)


@unhurried
@given(headers, st.binary(max_size=80))
def test_any_segment_header_there_and_back(header: SegmentHeader, behind: bytes) -> None:
    """A header is written as the docstring says, and comes back as it was, whatever frames stand behind it."""
    data = header.encode()
    assert len(data) == SEGMENT_HEADER_BYTES
    assert data == header_by_the_book(header, header.seed)
    assert SegmentHeader.decode(data + behind, header.store_id, header.first_sequence) == header


def test_every_bit_of_a_segment_header() -> None:
    """A flipped bit is damage, or, in the version, a version that is not known; it never passes."""
    data = HEADER.encode()
    for bit in range(8 * len(data)):
        in_version = 8 <= bit // 8 < 12
        assert outcome(decode_header, flipped(data, bit)) is (Unsupported if in_version else Damage)


@pytest.mark.parametrize("size", range(SEGMENT_HEADER_BYTES))
def test_a_segment_header_cut_short(size: int) -> None:
    """A header that lost its end is damaged, wherever it was cut."""
    assert outcome(decode_header, HEADER.encode()[:size]) is Damage


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(HEADER._replace(store_id=OTHER_STORE), id="another store"),
        pytest.param(HEADER._replace(first_sequence=262145), id="another place"),
        pytest.param(HEADER._replace(first_sequence=0), id="the first place"),
    ],
)
def test_a_segment_from_elsewhere(other: SegmentHeader) -> None:
    """The header of another store's segment, or of another one of this store, is damage here, however sound it is."""
    assert outcome(decode_header, other.encode()) is Damage
    assert outcome(decode_header, header_by_the_book(other, HEADER.seed)) is Damage


@pytest.mark.parametrize("data", [bytes(64), b"\xff" * 64, b"", MANIFEST.encode().ljust(64, b"\0")], ids=len)
def test_what_is_no_segment_header(data: bytes) -> None:
    """Whatever else stands there is damage."""
    assert outcome(decode_header, data) is Damage


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_a_segment_of_another_version(version: int) -> None:
    """Another version is told whether or not the checksum is one that this version would have made."""
    sound = header_by_the_book(HEADER, HEADER.seed, version=version)
    for data in (sound, sound[:-4] + bytes(4)):
        with pytest.raises(Unsupported, match=f"format version {version} is not known here"):
            decode_header(data)


@pytest.mark.parametrize("flags", [1, 0x80000000])
def test_a_segment_with_unknown_flags(flags: int) -> None:
    """A sound header with a flag of a later version is refused."""
    with pytest.raises(Unsupported, match=f"flags {flags:#x}"):
        decode_header(header_by_the_book(HEADER, HEADER.seed, flags=flags))


# a bookmark


def bookmark_by_the_book(
    bookmark: Bookmark, seed: int, version: int = 1, flags: int = 0, store_id: bytes | None = None
) -> bytes:
    fields = b"aquipuBM" + numbers(4, version, flags) + (store_id or bookmark.store_id)
    return checked(fields + numbers(8, bookmark.sequence), seed)


BOOKMARK = Bookmark(STORE, "backup.hold", 262144)
bookmarks = st.builds(Bookmark, store_ids, st.sampled_from(["backup.hold", "backup.cursor", "a.hold"]), u64s)


def decode_bookmark(data: bytes) -> Bookmark:
    return Bookmark.decode(data, BOOKMARK.store_id, BOOKMARK.file_name)


@unhurried
@given(bookmarks)
def test_any_bookmark_there_and_back(bookmark: Bookmark) -> None:
    """A bookmark is written as the docstring says and comes back as it was."""
    data = bookmark.encode()
    assert len(data) == BOOKMARK_BYTES
    assert bookmark.seed == extend(0, bookmark.store_id + bookmark.file_name.encode())
    assert data == bookmark_by_the_book(bookmark, bookmark.seed)
    assert Bookmark.decode(data, bookmark.store_id, bookmark.file_name) == bookmark


def test_every_bit_of_a_bookmark() -> None:
    """A flipped bit is damage, or, in the version, a version that is not known; it never passes."""
    data = BOOKMARK.encode()
    for bit in range(8 * len(data)):
        in_version = 8 <= bit // 8 < 12
        assert outcome(decode_bookmark, flipped(data, bit)) is (Unsupported if in_version else Damage)


@pytest.mark.parametrize("size", range(BOOKMARK_BYTES))
def test_a_bookmark_cut_short(size: int) -> None:
    """A bookmark that lost its end is damaged, wherever it was cut, and never passes with zeros in its place."""
    data = BOOKMARK.encode()[:size]
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
    """The bookmark of another store, of another name or of another kind is damage here, however sound it is."""
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
        pytest.param(checked(BOOKMARK.encode()[:-4] + b"more", BOOKMARK.seed), id="longer, and it checks"),
        pytest.param(checked(BOOKMARK.encode()[:-8], BOOKMARK.seed), id="shorter, and it checks"),
        pytest.param(MANIFEST.encode(), id="a manifest"),
        pytest.param(MANIFEST.encode()[:BOOKMARK_BYTES], id="a part of a manifest"),
    ],
)
def test_what_is_no_bookmark(data: bytes) -> None:
    """Whatever else stands there is damage."""
    assert outcome(decode_bookmark, data) is Damage


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
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


# the index, and what the frames of a segment amount to


class Frame(NamedTuple):
    """What a segment hears of a frame that is written at its end."""

    records: int
    size: int
    time: int


class Placed(NamedTuple):
    """The same frame in its place."""

    first_sequence: int
    records: int
    time: int
    offset: int


sizes = st.integers(52, 400) | st.integers(INDEX_STRIDE - 200, INDEX_STRIDE + 200) | st.integers(52, 4 * INDEX_STRIDE)
frames = st.lists(st.builds(Frame, st.integers(0, 5), sizes, st.integers(0, 50)), max_size=30)
FRAMES = [Frame(2, 100, 5), Frame(0, 52, 5), Frame(3, INDEX_STRIDE, 6), Frame(1, 3 * INDEX_STRIDE, 8), Frame(1, 90, 9)]


def written(some: list[Frame], first_sequence: int = 70, link: int = 5) -> tuple[Contents, list[Placed]]:
    """The contents of a segment that got these frames, and where each of them stands."""
    contents = Contents(first_sequence, link)
    places, sequence, offset = [], first_sequence, SEGMENT_HEADER_BYTES
    for check, frame in enumerate(some, 1000):
        contents.take(sequence, frame.records, frame.time, frame.size, check)
        places.append(Placed(sequence, frame.records, frame.time, offset))
        sequence += frame.records
        offset += frame.size
    return contents, places


def first_of_each_stride(places: list[Placed]) -> list[Placed]:
    noted: dict[int, Placed] = {}
    for place in places:
        noted.setdefault(place.offset // INDEX_STRIDE, place)
    return list(noted.values())


def test_a_segment_without_frames() -> None:
    """Contents begin behind the header, with nothing in them and the link of the header."""
    contents = Contents(70, 5)
    assert (contents.next_sequence, contents.link, contents.end) == (70, 5, SEGMENT_HEADER_BYTES)
    assert (contents.frames, contents.first_time, contents.last_time) == (0, 0, 0)
    assert contents.index == Index.empty()
    assert contents.unproven_from(70) == SEGMENT_HEADER_BYTES
    assert contents.index.place_before(70) is None


def test_two_segments_have_an_index_each() -> None:
    """What one segment notes does not appear in another."""
    contents, _ = written(FRAMES)
    assert len(contents.index.offsets) == 3
    assert Contents(70, 5).index == Index.empty()


@unhurried
@given(frames)
@example(FRAMES)
def test_any_frames_add_up(some: list[Frame]) -> None:
    """After each frame the contents are the sums of the frames, the times of the first and last, and the last check."""
    contents, places = written(some)
    times = [frame.time for frame in some]
    assert contents.next_sequence == 70 + sum(frame.records for frame in some)
    assert contents.end == SEGMENT_HEADER_BYTES + sum(frame.size for frame in some)
    assert contents.frames == len(some)
    assert contents.link == (999 + len(some) if some else 5)
    assert contents.last_time == (times[-1] if times else 0)
    assert contents.first_time == next(filter(None, times), 0)  # an empty frame before any commit has the time 0
    noted = first_of_each_stride(places)
    assert list(contents.index.sequences) == [place.first_sequence for place in noted]
    assert list(contents.index.times) == [place.time for place in noted]
    assert list(contents.index.offsets) == [place.offset for place in noted]


@unhurried
@given(frames, st.integers(68, 100))
@example(FRAMES, 69)
@example(FRAMES, 70)
@example(FRAMES, 72)
@example(FRAMES, 75)
def test_any_sequence_is_looked_up(some: list[Frame], sequence: int) -> None:
    """The index gives the last frame it noted that begins at or before a sequence: never one behind its record."""
    contents, places = written(some)
    noted = [place for place in first_of_each_stride(places) if place.first_sequence <= sequence]
    found = contents.index.place_before(sequence)
    assert found == ((noted[-1].first_sequence, noted[-1].offset) if noted else None)
    for place in places:
        if place.first_sequence <= sequence < place.first_sequence + place.records:
            assert found is not None
            assert found[1] <= place.offset


@unhurried
@given(frames, st.integers(68, 100))
@example(FRAMES, 69)
@example(FRAMES, 70)
@example(FRAMES, 72)
@example(FRAMES, 75)
def test_any_watermark_proves_what_stands_before_it(some: list[Frame], watermark: int) -> None:
    """Before the offset that a watermark gives, each frame is proven: it ends at or below it, and an empty one below it."""
    contents, places = written(some)
    offset = contents.unproven_from(watermark)
    for place in places:
        if place.offset < offset:
            assert place.first_sequence + place.records <= watermark
            assert place.first_sequence < watermark
    noted = [place.offset for place in first_of_each_stride(places) if place.first_sequence < watermark]
    assert offset == (noted[-1] if noted else SEGMENT_HEADER_BYTES)


# the footer


def footer_by_the_book(contents: Contents, seed: int) -> bytes:
    index = contents.index
    data = numbers(8, *index.sequences, *index.times, *index.offsets)
    data += b"aquipuFT" + numbers(4, len(index.offsets), contents.link)
    data += numbers(8, contents.next_sequence, contents.frames, contents.first_time, contents.last_time, contents.end)
    return checked(data + bytes(4), seed)


CONTENTS, _ = written(FRAMES)


def decode_footer(data: bytes) -> Contents:
    return Contents.decode_footer(data, SEED)


@unhurried
@given(frames, u32s, st.binary(max_size=100))
@example([], SEED, b"")
def test_any_footer_there_and_back(some: list[Frame], seed: int, before: bytes) -> None:
    """A footer is written as the docstring says, is found at the end of a file, and says what the contents were."""
    contents, _ = written(some)
    footer = contents.encode_footer(seed)
    assert footer == footer_by_the_book(contents, seed)
    assert is_sealed(before + footer)
    assert footer_bytes(before + footer) == len(footer)
    assert footer_bytes(footer[-FOOTER_BYTES:]) == len(footer)
    assert Contents.decode_footer(footer, seed) == contents


def test_every_bit_of_a_footer() -> None:
    """A flipped bit, in the columns or in what follows them, is damage; it never passes."""
    data = CONTENTS.encode_footer(SEED)
    for bit in range(8 * len(data)):
        assert outcome(decode_footer, flipped(data, bit)) is Damage


def test_a_footer_that_lost_some_bytes() -> None:
    """A footer without some of its first or last bytes, or with more, is damage."""
    data = CONTENTS.encode_footer(SEED)
    for size in range(len(data)):
        assert outcome(decode_footer, data[:size]) is Damage
        assert outcome(decode_footer, data[len(data) - size :]) is Damage
    assert outcome(decode_footer, b"\0" + data) is Damage
    assert outcome(decode_footer, data + b"\0") is Damage


@pytest.mark.parametrize("entries", [0, 2, 4, 2**32 - 1])
def test_a_footer_with_another_number_of_entries(entries: int) -> None:
    """A footer whose columns are not as long as it says is damage, however well it checks."""
    data = CONTENTS.encode_footer(SEED)
    at = len(data) - FOOTER_BYTES + 8
    assert data[at : at + 4] == numbers(4, 3)
    assert outcome(decode_footer, checked(data[:at] + numbers(4, entries) + data[at + 4 : -4], SEED)) is Damage


@unhurried
@given(u32s)
def test_a_footer_of_another_segment(seed: int) -> None:
    """With another seed a footer does not pass."""
    data = CONTENTS.encode_footer(SEED)
    assert outcome(lambda data: Contents.decode_footer(data, seed), data) is (None if seed == SEED else Damage)


@pytest.mark.parametrize(
    "tail",
    [b"", bytes(FOOTER_BYTES), b"\xff" * 200, b"aquipuFT", CONTENTS.encode_footer(SEED)[-FOOTER_BYTES + 1 :]],
    ids=["nothing", "zeros", "ones", "the magic alone", "a byte too few"],
)
def test_a_file_that_is_not_sealed(tail: bytes) -> None:
    """A file is sealed when its last 64 bytes begin as the end of a footer, and not otherwise."""
    assert not is_sealed(tail)
    assert outcome(decode_footer, tail) is Damage


def test_a_machine_with_the_other_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numbers in memory are big-endian, the columns are swapped on their way out and in; the index stays as it is."""
    contents, _ = written(FRAMES[:1])
    assert contents.encode_footer(SEED)[:24] == struct.pack("<3Q", 70, 5, 64)
    monkeypatch.setattr(sys, "byteorder", "big" if sys.byteorder == "little" else "little")
    mistaken = contents.encode_footer(SEED)  # one swap too many, or one too few
    assert mistaken[:24] == struct.pack(">3Q", 70, 5, 64)
    assert contents == written(FRAMES[:1])[0]
    assert Contents.decode_footer(mistaken, SEED) == contents
