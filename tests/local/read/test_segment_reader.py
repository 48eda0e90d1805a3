"""segment: the frame that holds a sequence, found by the headers of those before it, and what is
said where it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from aquipu.errors import CorruptionError, UnsupportedFormatError
from aquipu.local.format.frame import HEADER_BYTES, Header, encode
from aquipu.local.format.names import segment_name
from aquipu.local.format.segment import INDEX_STRIDE, SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.format.structure import extend
from aquipu.local.format.walk import Walk
from aquipu.local.read import segment_reader as room
from aquipu.local.read.segment_reader import TAIL_BYTES, SegmentReader, SegmentRef, read_footer
from aquipu.local.write.segment_writer import SegmentWriter
from tests.disk import FailingDisk
from tests.support import (
    NOW,
    STORE_ID,
    flip,
)

FIRST = 7
HEADER = SegmentHeader(STORE_ID, FIRST, NOW, 0x11111111)
FLAGS_AT, CHECK_AT = 4, HEADER_BYTES - 4


class Frame(NamedTuple):
    """A frame as it stands in the file."""

    offset: int
    header: Header
    body: bytes

    @property
    def end(self) -> int:
        return self.offset + self.header.size


class Bench:
    """A segment of frames of these sizes: for each frame the sizes of its records."""

    def __init__(self, path: Path, frames: list[list[int]]) -> None:
        self.disk = FailingDisk()
        self.path = path / segment_name(FIRST)
        self.segment = SegmentWriter.create(self.disk, str(self.path), HEADER)
        for sizes in frames:
            contents = self.segment.contents
            frame = encode(
                [bytes([size % 251]) * size for size in sizes],
                [NOW] * len(sizes),
                first_sequence=contents.next_sequence,
                time=NOW,
                watermark=FIRST,
                link=contents.link,
                seed=HEADER.seed,
            )
            self.segment.append(frame, contents.next_sequence, len(sizes), NOW, durable=False)
        walk = Walk(seed=HEADER.seed, offset=SEGMENT_HEADER_BYTES, sequence=FIRST, link=HEADER.link)
        walk.feed(self.path.read_bytes()[SEGMENT_HEADER_BYTES:])
        self.frames = [Frame(*found) for found in walk]
        self._descriptor = self.disk.open(str(self.path))

    def holding(
        self, sequence: int, place: tuple[int, int] = (FIRST, SEGMENT_HEADER_BYTES)
    ) -> tuple[Header, bytes]:
        self.disk.calls.clear()
        ref = SegmentRef(FIRST, str(self.path), HEADER, None)
        frame = SegmentReader(self.disk, ref, self._descriptor).frame_holding(sequence, place)
        return frame.header, frame.body

    @property
    def reads(self) -> list[tuple[int, int]]:
        """Offset and size of what was read for the last answer.

        To look behind the end of the file is no read.
        """
        size = self.path.stat().st_size
        return [
            (call.offset, call.size)
            for call in self.disk.calls
            if call.method == "read" and call.offset < size
        ]

    def error(
        self, sequence: int, place: tuple[int, int] = (FIRST, SEGMENT_HEADER_BYTES)
    ) -> tuple[int, str]:
        """Where the answer fails, and for what reason."""
        with pytest.raises(CorruptionError) as caught:
            self.holding(sequence, place)
        assert caught.value.path == str(self.path)
        return caught.value.offset, caught.value.reason

    def cut(self, size: int) -> None:
        with self.path.open("r+b") as file:
            file.truncate(size)


Make = Callable[[list[list[int]]], Bench]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def bench(frames: list[list[int]]) -> Bench:
        made.append(Bench(tmp_path, frames))
        return made[-1]

    yield bench
    for each in made:
        each.disk.end_process()


def test_every_sequence_from_every_place_before(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame is found from its own place and from any before it, wherever the pieces end that
    are read at a time.
    """
    bench = make([[3], [], [40, 1, 0], [200], [2, 2], [], [9]])
    for size in range(HEADER_BYTES, 300, 7):
        monkeypatch.setattr(room, "INDEX_STRIDE", size)
        for place in bench.frames:
            for wanted in bench.frames:
                for sequence in range(
                    max(wanted.header.first_sequence, place.header.first_sequence),
                    wanted.header.next_sequence,
                ):
                    found = bench.holding(sequence, (place.header.first_sequence, place.offset))
                    assert found == (wanted.header, wanted.body)


def test_small_frames_need_one_read(make: Make) -> None:
    """What came with the header is not read again: neither the headers behind it nor the body."""
    bench = make([[10]] * 20)
    for n in range(20):
        bench.holding(FIRST + n)
        assert bench.reads == [(SEGMENT_HEADER_BYTES, INDEX_STRIDE)]


def test_bodies_on_the_way_are_passed_over(make: Make) -> None:
    """Of the frames before it the headers are read, and of its own body just what it needs."""
    bench = make([[300_000], [10], [300_000], [10]])
    first, second, third, last = bench.frames
    bench.holding(FIRST + 3)
    assert bench.reads == [
        (first.offset, INDEX_STRIDE),
        (second.offset, INDEX_STRIDE),
        (last.offset, INDEX_STRIDE),
    ]
    bench.holding(FIRST + 2, (FIRST + 1, second.offset))
    assert bench.reads == [
        (second.offset, INDEX_STRIDE),
        (third.offset + HEADER_BYTES, third.header.body_size),
    ]


def test_a_header_that_does_not_check(make: Make) -> None:
    """It is damage at the frame's own offset; also when only the header is left of the file."""
    bench = make([[10]] * 3)
    frame = bench.frames[1]
    flip(bench.path, frame.offset + 8)
    assert bench.holding(FIRST)[0] == bench.frames[0].header
    assert bench.error(FIRST + 1) == (frame.offset, "the header of a frame does not check")
    bench.cut(frame.offset + HEADER_BYTES)
    assert bench.error(FIRST + 2) == (frame.offset, "the header of a frame does not check")


@pytest.mark.parametrize("left", [0, 1, HEADER_BYTES - 1])
@pytest.mark.parametrize("piece", [HEADER_BYTES + 30, INDEX_STRIDE])
def test_a_file_that_ends_before_the_frame(
    make: Make, left: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no whole header is left, the frames end too early: that is not a header which does not
    check.
    """
    monkeypatch.setattr(room, "INDEX_STRIDE", piece)
    bench = make([[10]] * 3)
    bench.cut(bench.frames[2].offset + left)
    assert bench.error(FIRST + 2) == (bench.frames[2].offset, "the frames end too early")


def test_a_frame_in_another_place(make: Make) -> None:
    """A sound frame with another sequence than the one before it leads to, or the index says, is
    damage.
    """
    bench = make([[10]] * 3)
    frame = bench.frames[1]
    assert bench.error(FIRST + 2, (FIRST + 2, frame.offset)) == (
        frame.offset,
        f"a frame begins with sequence {FIRST + 1} instead of {FIRST + 2}",
    )


def test_a_body_that_does_not_check(make: Make) -> None:
    """It is damage when this frame is the one that is wanted, and does not matter on the way to
    another.
    """
    bench = make([[10]] * 3)
    frame = bench.frames[1]
    flip(bench.path, frame.end - 1)
    assert bench.error(FIRST + 1) == (
        frame.offset,
        f"the body of the frame at sequence {FIRST + 1} does not check",
    )
    assert bench.holding(FIRST + 2)[1] == bench.frames[2].body


@pytest.mark.parametrize("missing", [1, 10, 100_000])
def test_a_file_that_ends_within_the_body(make: Make, missing: int) -> None:
    """A body of which the last bytes are not there ends too early."""
    bench = make([[10], [100_000]])
    frame = bench.frames[1]
    bench.cut(frame.end - missing)
    assert bench.error(FIRST + 1) == (frame.offset, "the frames end too early")


def test_a_frame_with_unknown_flags(make: Make) -> None:
    """A sound frame of a later version is refused as that; the flags that are known are not among
    those that are named.
    """
    bench = make([[10]] * 2)
    frame = bench.frames[1]
    data = bytearray(bench.path.read_bytes())
    data[frame.offset + FLAGS_AT] |= 0x84
    head = bytes(data[frame.offset : frame.offset + CHECK_AT])
    data[frame.offset + CHECK_AT : frame.offset + HEADER_BYTES] = extend(
        HEADER.seed, head
    ).to_bytes(4, "little")
    bench.path.write_bytes(data)
    with pytest.raises(
        UnsupportedFormatError, match=f"offset {frame.offset} has the flags 0x80;"
    ) as caught:
        bench.holding(FIRST + 1)
    assert caught.value.path == str(bench.path)


# the footer, and what the worker is told


def test_a_small_footer_comes_with_the_end_of_the_file(make: Make) -> None:
    """One read brings it; it says what the frames amount to, and sealing gives the size of the
    whole file.
    """
    bench = make([[10]] * 3)
    assert bench.segment.seal() == bench.path.stat().st_size
    bench.disk.calls.clear()
    assert (
        read_footer(bench.disk, bench._descriptor, str(bench.path), HEADER.seed)
        == bench.segment.contents
    )
    assert [size for _, size in bench.reads] == [TAIL_BYTES]


def test_a_large_footer_takes_a_second_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that does not fit into the end of the file read at first is read as a whole."""
    monkeypatch.setattr("aquipu.local.format.segment.INDEX_STRIDE", 50)
    bench = make([[10]] * 200)
    size = bench.segment.seal()
    footer = size - bench.segment.contents.end
    assert footer > TAIL_BYTES
    bench.disk.calls.clear()
    assert (
        read_footer(bench.disk, bench._descriptor, str(bench.path), HEADER.seed)
        == bench.segment.contents
    )
    assert bench.reads == [(size - TAIL_BYTES, TAIL_BYTES), (size - footer, footer)]
