"""blocks and frame: what compressed frames are made of, and that they hold what went in. Pure."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.local.compress import blocks as compressing
from aquipu.local.compress.blocks import blocks, compressed
from aquipu.local.format.frame import Flag, Header, keys_of, packed, plain_size, records
from aquipu.local.format.segment import (
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    SegmentSummary,
    is_sealed,
)
from aquipu.local.format.structure import Unsupported
from aquipu.local.read.frames import Frame, FrameWalk
from aquipu.record import Key
from tests.local.format.commits import Commit, labels, unhurried
from tests.support import STORE_ID

HEADER = SegmentHeader(STORE_ID, 7, 1, 99)


@st.composite
def commits(draw: st.DrawFn) -> Sequence[Commit]:
    """Commits that follow each other in one segment: empty ones, labelled ones, and with keys."""
    made, sequence, link = [], HEADER.first_sequence, HEADER.link
    for time in range(1, draw(st.integers(1, 6)) + 1):
        payloads = draw(st.lists(st.binary(max_size=40), max_size=5))
        of_each = st.lists(labels, min_size=1, max_size=3).map(tuple)
        indices = st.sampled_from(range(len(payloads))) if payloads else st.nothing()
        carried = draw(st.dictionaries(indices, of_each))
        named = draw(st.lists(st.binary(min_size=16, max_size=16), max_size=2)) if payloads else []
        commit = Commit(
            payloads,
            [time] * len(payloads),
            carried,
            [Key(writer, time, 0, len(payloads)) for writer in named],
            draw(st.booleans()),
            sequence,
            time,
            draw(st.integers(0, sequence)),
            link,
            HEADER.seed,
        )
        made.append(commit)
        sequence, link = sequence + len(payloads), commit.encoded().check
    return made


def frames_of(made: Sequence[Commit]) -> tuple[list[Frame], SegmentSummary]:
    """The frames of these commits, and what the footer of their segment says."""
    contents = SegmentSummary(HEADER.first_sequence, HEADER.link)
    data = b""
    for commit in made:
        frame = commit.encoded()
        contents.take(
            commit.first_sequence, len(commit.payloads), commit.time, frame.size, frame.check
        )
        data += b"".join(frame.buffers)
    return walked(HEADER, data), contents


def walked(header: SegmentHeader, data: bytes) -> list[Frame]:
    """Every frame that stands in these bytes, checked one by one and each by the one before."""
    walk = FrameWalk("segment", header)
    walk.feed(data)
    found = list(walk.ready())
    assert (walk.fault, walk.pending) == (None, 0)
    return found


@unhurried
@given(commits(), st.integers(1, 300))
def test_a_segment_that_is_compressed(made: Sequence[Commit], block_bytes: int) -> None:
    """Its records, their times and labels, and the keys are the same, and it ends with the check
    with which it ended before; its footer says what stands in it.
    """
    frames, contents = frames_of(made)
    if contents.next_sequence == HEADER.first_sequence:
        return  # nothing is compressed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compressing, "BLOCK_BYTES", block_bytes)
        header, *pieces, footer = compressed(frames, HEADER._replace(plain_bytes=5), contents)
    its = SegmentHeader.decode(header, STORE_ID, HEADER.first_sequence)
    assert its == HEADER._replace(plain_bytes=5)
    found = walked(its, b"".join(pieces))
    assert all(frame.header.flags & Flag.COMPRESSED for frame in found)
    assert [it for frame in found for it in frame.records()] == [
        it for frame in frames for it in frame.records()
    ]
    assert keys_in(found) == keys_in(frames)
    said = SegmentSummary.decode_footer(footer, its.seed)
    assert is_sealed(footer)
    assert (said.next_sequence, said.link) == (contents.next_sequence, contents.link)
    assert (said.frames, said.end) == (len(found), SEGMENT_HEADER_BYTES + len(b"".join(pieces)))
    assert said.last_time == max(made, key=lambda it: (bool(it.payloads), it.time)).time


def keys_in(frames: Sequence[Frame]) -> list[tuple[bytes, int, int, int]]:
    """Every key, and the sequences of the records that it names."""
    return [
        (key.writer, key.number, frame.header.first_sequence + key.first, key.records)
        for frame in frames
        for key in frame.commit_keys()
    ]


def test_which_frames_go_together() -> None:
    """The first one stays alone; the others gather up to the size; empty ones are left out."""
    sizes = [10, 0, *[50_000] * 7, 200_000, 10]
    made, sequence = [], 0
    for size in sizes:
        count = 1 if size else 0
        header = Header(0, count, size, sequence, 1, 0, 0, 0, 0)
        made.append(Frame("segment", 0, header, b""))
        sequence += count
    together = [[frame.header.body_size for frame in block] for block in blocks(made)]
    assert together == [[10], [50_000] * 3, [50_000] * 3, [50_000, 200_000], [10]]


def test_what_a_compressed_frame_says_of_its_size() -> None:
    """How much memory its columns take is known before they are decompressed."""
    frames, _ = frames_of([Commit([b"a" * 5000], [1], first_sequence=7, link=99, seed=HEADER.seed)])
    made = packed([(frames[0].header, frames[0].body)], link=99, seed=HEADER.seed)
    (found,) = walked(HEADER, b"".join(made.buffers))
    assert found.header.body_size < 200
    assert plain_size(found.header, found.body) == frames[0].header.body_size == 5012
    assert plain_size(frames[0].header, frames[0].body) == 5012


@pytest.mark.parametrize("body", [b"", bytes(7), bytes(8), b"\x05\0\0\0\0\0\0\0nonsense"])
def test_columns_that_cannot_be_decompressed(body: bytes) -> None:
    """No writer makes such a frame with a check that is right; it is damage like any other."""
    header = Header(Flag.COMPRESSED, 1, len(body), 0, 1, 0, 0, 0, 0)
    with pytest.raises(ValueError, match=r"of a frame|a frame ends"):
        records(header, body)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named, and how to install it."""
    frames, _ = frames_of([Commit([b"a"], [1], first_sequence=7, link=99, seed=HEADER.seed)])
    made = packed([(frames[0].header, frames[0].body)], link=99, seed=HEADER.seed)
    (found,) = walked(HEADER, b"".join(made.buffers))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(Unsupported, match=r"pip install -e '\.\[compress\]'"):
        records(found.header, found.body)
    assert keys_of(found.header, found.body) == []
