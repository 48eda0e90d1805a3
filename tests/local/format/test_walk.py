"""Frames one behind another, and frames anywhere."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.local.format.frame import HEADER_BYTES, MAGIC, Header, header_at
from aquipu.local.format.walk import Walk, search
from tests.local.format.commits import (
    SEED,
    TELLING,
    Commit,
    Found,
    body_by_the_book,
    commits,
    header_by_the_book,
    read,
    unhurried,
)

# frames one behind another


def chain(*some: Commit, first_sequence: int = 0, link: int = 0) -> list[Commit]:
    """The commits as they follow each other in a segment."""
    linked = []
    for commit in some:
        following = commit._replace(first_sequence=first_sequence, link=link, seed=SEED)
        linked.append(following)
        first_sequence += len(following.payloads)
        link = following.encoded().check
    return linked


CHAIN = chain(
    Commit([b"one", b"two"], [5, 6]),
    Commit([], [], watermark=2),
    Commit([], [], watermark=2),
    TELLING._replace(watermark=1),
    Commit([b"x" * 70, MAGIC], [10, 11], watermark=5),
    first_sequence=3,
    link=0xC0FFEE,
)

BYTES = b"".join(commit.frame() for commit in CHAIN)


def walk_chain(linked: list[Commit] = CHAIN) -> Walk:
    first = linked[0]
    return Walk(seed=SEED, offset=1000, sequence=first.first_sequence, link=first.link)


def expected(linked: Iterable[Commit] = CHAIN, offset: int = 1000) -> list[Found]:
    found = []
    for commit in linked:
        found.append((offset, commit.encoded().check, commit.records()))
        offset += commit.encoded().size
    return found


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def assert_at_rest(walk: Walk, linked: list[Commit] = CHAIN) -> None:
    """The walk has taken everything, found nothing wrong, and stands where the next frame would
    begin.
    """
    size = sum(commit.encoded().size for commit in linked)
    last = linked[-1]
    assert (walk.fault, walk.unknown_flags, walk.pending) == (None, 0, 0)
    assert (walk.offset, walk.sequence) == (1000 + size, last.first_sequence + len(last.payloads))
    assert walk.link == last.encoded().check
    assert walk.watermark == max(commit.watermark for commit in linked)
    assert walk.wanted == HEADER_BYTES


@pytest.mark.parametrize("size", [len(BYTES), 1, 2, 3, 7, 51, 52, 53, 100], ids=str)
def test_a_walk_fed_in_pieces(size: int) -> None:
    """The frames are the same, whole or byte by byte or in any pieces."""
    walk = walk_chain()
    assert read(walk, *pieces_of(BYTES, size)) == expected()
    assert_at_rest(walk)


def test_a_walk_cut_at_every_offset() -> None:
    """Of bytes that are cut, each whole frame is given and nothing is wrong; with the rest come the
    others.
    """
    ends = [
        offset + commit.encoded().size - 1000
        for (offset, *_), commit in zip(expected(), CHAIN, strict=True)
    ]
    for cut in range(len(BYTES) + 1):
        walk = walk_chain()
        whole = sum(end <= cut for end in ends)
        assert read(walk, BYTES[:cut]) == expected()[:whole]
        assert walk.fault is None
        assert walk.pending == cut - (ends[whole - 1] if whole else 0)
        assert read(walk, BYTES[cut:]) == expected()[whole:]
        assert_at_rest(walk)


@unhurried
@given(
    st.lists(commits(), min_size=1, max_size=6),
    st.lists(st.integers(1, 60), max_size=40),
    st.binary(max_size=60),
)
def test_any_walk_in_any_pieces(some: list[Commit], sizes: list[int], behind: bytes) -> None:
    """Any frames in any pieces, with any bytes behind them, are the frames that were written."""
    linked = chain(*some)
    left = b"".join(commit.frame() for commit in linked) + behind
    pieces = []
    for size in sizes:
        pieces.append(left[:size])
        left = left[size:]
    walk = walk_chain(linked)
    assert read(walk, *pieces, left) == expected(linked)
    assert walk.pending == len(behind)
    assert (walk.fault is not None) == (len(behind) >= HEADER_BYTES)


def test_a_walk_fed_just_what_it_wants() -> None:
    """``wanted`` is never more than the next frame needs, so a reader that gives just that comes
    through.
    """
    walk, at, found = walk_chain(), 0, []
    while at < len(BYTES):
        assert 0 < walk.wanted <= len(BYTES) - at
        piece = BYTES[at : at + walk.wanted]
        at += len(piece)
        found += read(walk, piece)
    assert found == expected()
    assert_at_rest(walk)


def test_a_walk_wants_the_rest_of_a_frame() -> None:
    """With the header of a frame at hand, ``wanted`` is what its body still lacks."""
    walk = walk_chain()
    assert walk.wanted == HEADER_BYTES
    assert read(walk, BYTES[:20]) == []
    assert (walk.wanted, walk.pending) == (HEADER_BYTES - 20, 20)
    assert read(walk, BYTES[20:60]) == []
    assert walk.wanted == CHAIN[0].encoded().size - 60


@pytest.mark.parametrize("count", [1, HEADER_BYTES - 1, HEADER_BYTES, 5000], ids=str)
@pytest.mark.parametrize(
    "filler", [b"\x00", b"\xff", MAGIC[:1]], ids=["zeros", "ones", "half a magic"]
)
@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_a_walk_with_a_tail_behind(filler: bytes, count: int, size: int) -> None:
    """Zeros or garbage behind the frames change none of them; the walk ends there, with a fault
    once it has seen enough.
    """
    walk = walk_chain()
    assert read(walk, *pieces_of(BYTES + filler * count, size)) == expected()
    assert walk.offset == 1000 + len(BYTES)
    assert walk.pending == count
    if count < HEADER_BYTES:
        assert (walk.fault, walk.wanted) == (None, HEADER_BYTES - count)
    else:
        assert walk.fault == "the header of a frame does not check"


def test_a_walk_that_has_stopped() -> None:
    """After a fault a walk gives nothing more, also when sound frames are fed behind it."""
    walk = walk_chain()
    assert read(walk, bytes(HEADER_BYTES), BYTES) == []
    assert walk.offset == 1000
    assert walk.fault == "the header of a frame does not check"


def test_every_bit_of_a_frame_in_the_middle() -> None:
    """A flipped bit ends the walk at its frame: those before are given, none behind it is."""
    begin = expected()[3][0] - 1000
    end = expected()[4][0] - 1000
    for bit in range(8 * begin, 8 * end, 5):
        damaged = bytearray(BYTES)
        damaged[bit // 8] ^= 1 << bit % 8
        walk = walk_chain()
        assert read(walk, bytes(damaged)) == expected()[:3]
        assert walk.fault is not None
        assert walk.offset == 1000 + begin


def rearranged(*order: int) -> bytes:
    return b"".join(CHAIN[index].frame() for index in order)


@pytest.mark.parametrize(
    ("data", "whole", "fault"),
    [
        pytest.param(
            rearranged(1, 2, 3, 4),
            0,
            "begins with sequence 5 instead of 3",
            id="the first is missing",
        ),
        pytest.param(
            rearranged(0, 1, 2, 4),
            3,
            "begins with sequence 8 instead of 5",
            id="one with records is missing",
        ),
        pytest.param(
            rearranged(0, 2, 3, 4), 1, "at sequence 5 does not follow", id="an empty one is missing"
        ),
        pytest.param(
            rearranged(0, 0, 1),
            1,
            "begins with sequence 3 instead of 5",
            id="one with records stands twice",
        ),
        pytest.param(
            rearranged(0, 1, 1, 2),
            2,
            "at sequence 5 does not follow",
            id="an empty one stands twice",
        ),
        pytest.param(
            rearranged(0, 2, 1, 3), 1, "at sequence 5 does not follow", id="two have changed places"
        ),
    ],
)
def test_sound_frames_in_a_wrong_order(data: bytes, whole: int, fault: str) -> None:
    """Each frame must follow the one before it, by its sequence and by its link: a frame more or
    less ends the walk.
    """
    walk = walk_chain()
    assert read(walk, data) == expected()[:whole]
    assert walk.fault is not None
    assert fault in walk.fault
    assert walk.offset == 1000 + sum(len(CHAIN[index].frame()) for index in range(whole))


def test_a_walk_with_another_link() -> None:
    """The first frame must link to what stood before the segment."""
    walk = Walk(seed=SEED, offset=0, sequence=3, link=0xC0FFEE + 1)
    assert read(walk, BYTES) == []
    assert walk.fault == "the frame at sequence 3 does not follow the one before it"


def test_a_walk_from_the_middle() -> None:
    """Without a link the first frame is taken as it is, and the second must still follow it."""
    begin = expected()[3][0]
    walk = Walk(seed=SEED, offset=begin, sequence=5, link=None)
    assert read(walk, BYTES[begin - 1000 :]) == expected()[3:]
    astray = Walk(seed=SEED, offset=0, sequence=5, link=None)
    assert len(read(astray, rearranged(1, 3))) == 1
    assert astray.fault == "the frame at sequence 5 does not follow the one before it"


@pytest.mark.parametrize("flags", [16, 16 | 4, 1 << 31, 0xFFFFFFFF], ids=hex)
def test_a_frame_with_unknown_flags(flags: int) -> None:
    """A frame that checks and has a flag of a later version ends the walk, which says which flags
    it does not know.
    """
    body = body_by_the_book(CHAIN[1])
    later = header_by_the_book(body, CHAIN[1], flags, 0) + body
    walk = walk_chain()
    assert read(walk, CHAIN[0].frame() + later + BYTES) == expected()[:1]
    assert walk.unknown_flags == flags & ~15
    assert walk.fault == f"a frame has the unknown flags {flags & ~15:#x}"
    assert walk.offset == expected()[1][0]


def test_a_damaged_frame_with_unknown_flags() -> None:
    """A frame whose body does not check is damage, whatever flags it has: it may not be of a later
    version at all.
    """
    later = header_by_the_book(b"sound", CHAIN[1], 8, 0) + b"s0und"
    walk = walk_chain()
    assert read(walk, CHAIN[0].frame() + later) == expected()[:1]
    assert walk.unknown_flags == 0
    assert walk.fault == "the body of the frame at sequence 5 does not check"


def test_the_highest_watermark_is_kept() -> None:
    """The watermark of a walk is the highest that it has seen, not the last."""
    seen = []
    walk = walk_chain()
    walk.feed(BYTES)
    for _ in walk:
        seen.append(walk.watermark)  # noqa: PERF401 (the walk moves on between two of them)
    assert seen == [0, 2, 2, 2, 5]


# frames anywhere


def everywhere(buffer: bytes, offset: int, seed: int) -> list[tuple[int, Header]]:
    """What `search` should find, tried at every offset."""
    tried = ((at, header_at(buffer, at, seed)) for at in range(offset, len(buffer)))
    return [(at, header) for at, header in tried if header is not None]


noise = st.binary(max_size=30) | st.sampled_from(
    [MAGIC, MAGIC[:3], MAGIC * 3, MAGIC[:3] + MAGIC, bytes(60)]
)

headers_of = commits().map(lambda commit: commit._replace(seed=SEED).frame())


@unhurried
@given(st.lists(noise | headers_of, max_size=8), st.integers(0, 100))
def test_headers_among_anything(parts: list[bytes], offset: int) -> None:
    """Every sound header is found, wherever it stands and whatever stands around it, and nothing
    else is.
    """
    buffer = b"".join(parts)
    assert list(search(buffer, offset, SEED)) == everywhere(buffer, offset, SEED)


def shifted(by: int) -> bytes:
    return bytes(by) + BYTES + MAGIC


@pytest.mark.parametrize("by", [0, 1, 3, 51, 52, 4095])
def test_headers_behind_a_gap(by: int) -> None:
    """The frames of a segment are found at any offset, with those before the start left out."""
    offsets = [by + offset - 1000 for offset, *_ in expected()]
    assert [at for at, _ in search(shifted(by), 0, SEED)] == offsets
    assert [at for at, _ in search(shifted(by), offsets[1], SEED)] == offsets[1:]
    assert [at for at, _ in search(shifted(by), offsets[1] + 1, SEED)] == offsets[2:]


def test_a_header_at_the_end_of_the_buffer() -> None:
    """A header is found up to the last byte of the buffer, without its body, and not when its own
    last byte is missing.
    """
    begin = expected()[3][0] - 1000
    to_the_end = BYTES[: begin + HEADER_BYTES]
    assert [at for at, _ in search(to_the_end, begin, SEED)] == [begin]
    assert list(search(to_the_end[:-1], begin, SEED)) == []


def test_a_header_within_a_payload() -> None:
    """A header inside the data of a record is found: a caller that takes it for proof must know."""
    inner = CHAIN[0].frame()
    outer = Commit([b"before " + inner + b" behind"], [1]).frame()
    assert [at for at, _ in search(outer, 0, SEED)] == [0, outer.index(inner)]


def test_a_walk_is_its_own_iterator() -> None:
    """Iterating again goes on where the walk stands."""
    walk = walk_chain()
    walk.feed(BYTES)
    assert next(walk)[0] == 1000
    assert [offset for offset, *_ in walk] == [offset for offset, *_ in expected()[1:]]
