"""The header, the footer and the index of a segment as bytes and back.

The oracles are the tables of the module's docstring, written out number by number.
"""

from __future__ import annotations

import struct
import sys
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aquipu.local.format.manifest import Manifest
from aquipu.local.format.segment import (
    FOOTER_BYTES,
    INDEX_STRIDE,
    SEGMENT_HEADER_BYTES,
    Index,
    SegmentHeader,
    SegmentSummary,
    footer_bytes,
    is_sealed,
    seed_of,
)
from aquipu.local.format.structure import Damage, Unsupported, extend
from tests.local.format.structures import (
    OTHER_STORE,
    STORE,
    checked,
    flipped,
    numbers,
    outcome,
    store_ids,
    u32s,
    u64s,
    unhurried,
)

SEED = 0x5EED5EED
MANIFEST = Manifest(STORE, first_sequence=262144, synced_sequence=262999)


# the header of a segment


def header_by_the_book(
    header: SegmentHeader, seed: int, version: int = 1, flags: int | None = None
) -> bytes:
    if flags is None:
        flags = 1 if header.plain_bytes else 0
    fields = b"aquipuSG" + numbers(4, version, flags) + header.store_id
    return checked(
        fields
        + numbers(8, header.first_sequence, header.created)
        + numbers(4, header.link)
        + numbers(8, header.plain_bytes),
        seed,
    )


HEADER = SegmentHeader(STORE, 262144, 1_700_000_000_000_000_000, 0xDEADBEEF)
headers = st.builds(SegmentHeader, store_ids, u64s, u64s, u32s, st.just(0) | u64s)


def decode_header(data: bytes) -> SegmentHeader:
    return SegmentHeader.decode(data, HEADER.store_id, HEADER.first_sequence)


@unhurried
@given(store_ids, u64s)
def test_a_seed_comes_from_the_store_and_the_place(store_id: bytes, first_sequence: int) -> None:
    """The seed of a segment is the CRC32C of the store id and the first sequence, eight bytes
    little-endian.
    """
    assert seed_of(store_id, first_sequence) == extend(0, store_id + numbers(8, first_sequence))
    assert SegmentHeader(store_id, first_sequence, 1, 2).seed == seed_of(store_id, first_sequence)


@unhurried
@given(headers, st.binary(max_size=80))
def test_any_segment_header_there_and_back(header: SegmentHeader, behind: bytes) -> None:
    """A header is written as the docstring says, and comes back as it was, whatever frames stand
    behind it.
    """
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
    """The header of another store's segment, or of another one of this store, is damage here,
    however sound it is.
    """
    assert outcome(decode_header, other.encode()) is Damage
    assert outcome(decode_header, header_by_the_book(other, HEADER.seed)) is Damage


@pytest.mark.parametrize(
    "data", [bytes(64), b"\xff" * 64, b"", MANIFEST.encode().ljust(64, b"\0")], ids=len
)
def test_what_is_no_segment_header(data: bytes) -> None:
    """Whatever else stands there is damage."""
    assert outcome(decode_header, data) is Damage


@pytest.mark.parametrize("version", [0, 2, 2**32 - 1])
def test_a_segment_of_another_version(version: int) -> None:
    """Another version is named whether or not this version would have made the checksum."""
    sound = header_by_the_book(HEADER, HEADER.seed, version=version)
    for data in (sound, sound[:-4] + bytes(4)):
        with pytest.raises(Unsupported, match=f"format version {version} is not known here"):
            decode_header(data)


@pytest.mark.parametrize("flags", [2, 0x80000000])
def test_a_segment_with_unknown_flags(flags: int) -> None:
    """A sound header with a flag of a later version is refused."""
    with pytest.raises(Unsupported, match=f"flags {flags:#x}"):
        decode_header(header_by_the_book(HEADER, HEADER.seed, flags=flags))


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


sizes = (
    st.integers(52, 400)
    | st.integers(INDEX_STRIDE - 200, INDEX_STRIDE + 200)
    | st.integers(52, 4 * INDEX_STRIDE)
)
frames = st.lists(st.builds(Frame, st.integers(0, 5), sizes, st.integers(0, 50)), max_size=30)
FRAMES = [
    Frame(2, 100, 5),
    Frame(0, 52, 5),
    Frame(3, INDEX_STRIDE, 6),
    Frame(1, 3 * INDEX_STRIDE, 8),
    Frame(1, 90, 9),
]


def written(
    some: list[Frame], first_sequence: int = 70, link: int = 5
) -> tuple[SegmentSummary, list[Placed]]:
    """The contents of a segment that got these frames, and where each of them stands."""
    contents = SegmentSummary(first_sequence, link)
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
    contents = SegmentSummary(70, 5)
    assert (contents.next_sequence, contents.link, contents.end) == (70, 5, SEGMENT_HEADER_BYTES)
    assert (contents.frames, contents.first_time, contents.last_time) == (0, 0, 0)
    assert contents.index == Index.empty()
    assert contents.unproven_from(70) == SEGMENT_HEADER_BYTES
    assert contents.index.place_before(70) is None


def test_two_segments_have_an_index_each() -> None:
    """What one segment notes does not appear in another."""
    contents, _ = written(FRAMES)
    assert len(contents.index.offsets) == 3
    assert SegmentSummary(70, 5).index == Index.empty()


@unhurried
@given(frames)
@example(FRAMES)
def test_any_frames_add_up(some: list[Frame]) -> None:
    """After each frame the contents are the sums of the frames, the times of the first and last,
    and the last check.
    """
    contents, places = written(some)
    times = [frame.time for frame in some]
    assert contents.next_sequence == 70 + sum(frame.records for frame in some)
    assert contents.end == SEGMENT_HEADER_BYTES + sum(frame.size for frame in some)
    assert contents.frames == len(some)
    assert contents.link == (999 + len(some) if some else 5)
    assert contents.last_time == (times[-1] if times else 0)
    assert contents.first_time == next(
        filter(None, times), 0
    )  # an empty frame before any commit has the time 0
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
    """The index gives the last frame it noted that begins at or before a sequence: never one behind
    its record.
    """
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
    """Before the offset that a watermark gives, each frame is proven: it ends at or below it, and
    an empty one below it.
    """
    contents, places = written(some)
    offset = contents.unproven_from(watermark)
    for place in places:
        if place.offset < offset:
            assert place.first_sequence + place.records <= watermark
            assert place.first_sequence < watermark
    noted = [
        place.offset for place in first_of_each_stride(places) if place.first_sequence < watermark
    ]
    assert offset == (noted[-1] if noted else SEGMENT_HEADER_BYTES)


# the footer


def footer_by_the_book(contents: SegmentSummary, seed: int) -> bytes:
    index = contents.index
    data = numbers(8, *index.sequences, *index.times, *index.offsets)
    data += b"aquipuFT" + numbers(4, len(index.offsets), contents.link)
    data += numbers(
        8,
        contents.next_sequence,
        contents.frames,
        contents.first_time,
        contents.last_time,
        contents.end,
    )
    return checked(data + bytes(4), seed)


CONTENTS, _ = written(FRAMES)


def decode_footer(data: bytes) -> SegmentSummary:
    return SegmentSummary.decode_footer(data, SEED)


@unhurried
@given(frames, u32s, st.binary(max_size=100))
@example([], SEED, b"")
def test_any_footer_there_and_back(some: list[Frame], seed: int, before: bytes) -> None:
    """A footer is written as the docstring says, is found at the end of a file, and says what the
    contents were.
    """
    contents, _ = written(some)
    footer = contents.encode_footer(seed)
    assert footer == footer_by_the_book(contents, seed)
    assert contents.footer_bytes == len(footer)
    assert is_sealed(before + footer)
    assert footer_bytes(before + footer) == len(footer)
    assert footer_bytes(footer[-FOOTER_BYTES:]) == len(footer)
    assert SegmentSummary.decode_footer(footer, seed) == contents


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
    assert (
        outcome(decode_footer, checked(data[:at] + numbers(4, entries) + data[at + 4 : -4], SEED))
        is Damage
    )


@unhurried
@given(u32s)
def test_a_footer_of_another_segment(seed: int) -> None:
    """With another seed a footer does not pass."""
    data = CONTENTS.encode_footer(SEED)
    assert outcome(lambda data: SegmentSummary.decode_footer(data, seed), data) is (
        None if seed == SEED else Damage
    )


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        bytes(FOOTER_BYTES),
        b"\xff" * 200,
        b"aquipuFT",
        CONTENTS.encode_footer(SEED)[-FOOTER_BYTES + 1 :],
    ],
    ids=["nothing", "zeros", "ones", "the magic alone", "a byte too few"],
)
def test_a_file_that_is_not_sealed(tail: bytes) -> None:
    """A file is sealed when its last 64 bytes begin as the end of a footer, and not otherwise."""
    assert not is_sealed(tail)
    assert outcome(decode_footer, tail) is Damage


def test_a_machine_with_the_other_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numbers in memory are big-endian, the columns are swapped on their way out and in; the
    index stays as it is.
    """
    contents, _ = written(FRAMES[:1])
    assert contents.encode_footer(SEED)[:24] == struct.pack("<3Q", 70, 5, 64)
    monkeypatch.setattr(sys, "byteorder", "big" if sys.byteorder == "little" else "little")
    mistaken = contents.encode_footer(SEED)  # one swap too many, or one too few
    assert mistaken[:24] == struct.pack(">3Q", 70, 5, 64)
    assert contents == written(FRAMES[:1])[0]
    assert SegmentSummary.decode_footer(mistaken, SEED) == contents
