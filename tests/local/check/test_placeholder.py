"""lost: frames that stand in for lost ones, and a segment filled with them, whatever is damaged in
it.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aquipu.local.check.placeholder import BAD_FOOTER, LOST, WRITER, End, fill_gaps, placeholders
from aquipu.local.format.frame import HEADER_BYTES, encode, keys_of, records
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.local.format.walk import Walk
from aquipu.record import Record

U32 = st.integers(0, 2**32 - 1)
HEADER = SegmentHeader(bytes(range(16)), 100, 5, 77)


def read(
    data: bytes, *, seed: int, sequence: int, link: int, offset: int = 0
) -> tuple[Walk, list[Record]]:
    """Every record, as recovery reads them."""
    walk = Walk(seed=seed, offset=offset, sequence=sequence, link=link)
    walk.feed(data[offset:])
    found = [record for _, header, body in walk for record in records(header, body)]
    return walk, found


def made(sizes: list[int], watermarks: list[int] | None = None) -> bytes:
    """A segment with a frame for each size: so many records.

    A frame's watermark is its sequence, if none is given.
    """
    data, sequence, link = HEADER.encode(), HEADER.first_sequence, HEADER.link
    for n, size in enumerate(sizes):
        frame = encode(
            [b"record %d" % number for number in range(sequence, sequence + size)],
            [sequence] * size,
            first_sequence=sequence,
            time=sequence,
            watermark=watermarks[n] if watermarks else sequence,
            link=link,
            seed=HEADER.seed,
        )
        data += b"".join(frame.buffers)
        sequence, link = sequence + size, frame.check
    return data


def walk_of(data: bytes) -> Walk:
    """A walk over a segment, which has everything to read."""
    walk = Walk(
        seed=HEADER.seed,
        offset=SEGMENT_HEADER_BYTES,
        sequence=HEADER.first_sequence,
        link=HEADER.link,
    )
    walk.feed(data[SEGMENT_HEADER_BYTES:])
    return walk


@given(first=st.integers(0, 2**40), number=st.integers(0, 300), link=U32, target=U32, seed=U32)
def test_placeholders_lead_from_one_check_to_another(
    first: int, number: int, link: int, target: int, seed: int
) -> None:
    """They follow the frame before, hold an empty record for each that is lost, and end with the
    check that is wanted.
    """
    frames = list(placeholders(first, first + number, time=9, link=link, target=target, seed=seed))
    data = b"".join(b"".join(frame.buffers) for _, frame in frames)
    walk, found = read(data, seed=seed, sequence=first, link=link)
    assert (walk.fault, walk.offset, walk.link) == (None, len(data), target if frames else link)
    assert found == [Record(sequence, 9, b"", (LOST,)) for sequence in range(first, first + number)]
    assert bool(frames) == (number > 0 or link != target)


def test_many_lost_records_take_several_frames() -> None:
    """A frame stays of bounded size, and only the last one has the check that is wanted."""
    frames = list(placeholders(7, 200_007, time=9, link=1, target=2, seed=3))
    assert [number for number, _ in frames] == [65_536, 65_536, 65_536, 3_392]
    assert frames[-1][1].check == 2
    walk, found = read(
        b"".join(b"".join(frame.buffers) for _, frame in frames), seed=3, sequence=7, link=1
    )
    assert (walk.fault, len(found)) == (None, 200_000)


def test_where_nobody_knows_what_follows() -> None:
    """Without a wanted check there is one frame, which names who wrote it."""
    ((number, frame),) = placeholders(7, 9, time=9, link=1, target=None, seed=3)
    walk = Walk(seed=3, offset=0, sequence=7, link=1)
    walk.feed(b"".join(frame.buffers))
    ((_, header, body),) = walk
    (key,) = keys_of(header, body)
    assert number == 2
    assert (key.writer, key.first, key.records) == (WRITER, 0, 2)


@given(
    sizes=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=4),
)
@settings(deadline=None)
def test_a_sealed_segment_with_any_bytes_changed(
    sizes: list[int], damage: list[tuple[int, int]]
) -> None:
    """It is whole again: dense, of the same end, every record as it was or said to be lost, and
    every gap is told.
    """
    data = made(sizes)
    whole, before = read(data, seed=HEADER.seed, sequence=100, link=77, offset=SEGMENT_HEADER_BYTES)
    changed = bytearray(data)
    frames = len(data) - SEGMENT_HEADER_BYTES
    for at, turned in damage:
        changed[SEGMENT_HEADER_BYTES + at % frames] ^= turned
    filled = fill_gaps(bytes(changed), HEADER, end=End(whole.sequence, whole.link))
    walk, found = read(
        filled.data, seed=HEADER.seed, sequence=100, link=77, offset=SEGMENT_HEADER_BYTES
    )
    assert (walk.fault, walk.offset, walk.sequence, walk.link) == (
        None,
        len(filled.data),
        whole.sequence,
        whole.link,
    )
    assert (filled.contents.next_sequence, filled.contents.link) == (whole.sequence, whole.link)
    assert (filled.contents.end, filled.tail) == (len(filled.data), b"")
    lost = {
        number for gap in filled.gaps for number in range(gap.first_sequence, gap.next_sequence)
    }
    for record, original in zip(found, before, strict=True):
        if record.sequence in lost:
            assert (record.data, record.relations) == (b"", (LOST,))
        else:
            assert record == original
    if changed == data:
        assert (filled.data, filled.gaps) == (data, [])
    else:
        assert filled.gaps


@pytest.mark.parametrize("at", [0, HEADER_BYTES - 1, HEADER_BYTES])
@pytest.mark.parametrize("damaged", [{0}, {1}, {2}, {4}, {0, 2}, {1, 2}, {2, 3}, {3, 4}])
def test_just_the_records_of_a_damaged_frame_are_lost(damaged: set[int], at: int) -> None:
    """Each stretch of frames that do not check is one gap, from where to where it is; every other
    record stays as it was.

    The third frame is an empty one: what follows it has the sequence that it has itself.
    """
    sizes = [2, 1, 0, 3, 1]
    data = made(sizes)
    walk = walk_of(data)
    frames = [
        (offset, offset + header.size, header.first_sequence, header.next_sequence)
        for offset, header, _ in walk
    ]
    changed = bytearray(data)
    for n in damaged:
        changed[frames[n][0] + (at if at < HEADER_BYTES or sizes[n] else 0)] ^= 1
    filled = fill_gaps(bytes(changed), HEADER, end=End(walk.sequence, walk.link))
    lost = [frames[n] for n in sorted(damaged)]
    if len(lost) == 2 and lost[0][1] == lost[1][0]:
        lost = [(lost[0][0], lost[1][1], lost[0][2], lost[1][3])]
    found = [
        (gap.offset, gap.offset + gap.size, gap.first_sequence, gap.next_sequence)
        for gap in filled.gaps
    ]
    assert found == lost
    gone = {sequence for n in damaged for sequence in range(frames[n][2], frames[n][3])}
    whole, before = read(
        filled.data, seed=HEADER.seed, sequence=100, link=77, offset=SEGMENT_HEADER_BYTES
    )
    assert whole.sequence == walk.sequence
    assert {record.sequence for record in before if record.relations == (LOST,)} == gone
    assert {record.data for record in before if record.sequence not in gone} == {
        b"record %d" % sequence for sequence in range(100, walk.sequence) if sequence not in gone
    }


@pytest.mark.parametrize(
    ("behind", "reason"),
    [
        (0, BAD_FOOTER),
        (1, "the frames end too early"),
        (2, "the frames end too early"),
        (3, "the frames end too early"),
    ],
)
def test_bytes_that_are_no_frame(behind: int, reason: str) -> None:
    """They are a gap in which no record is lost; those behind the last frame of a sealed segment
    were its footer.
    """
    data = made([1, 2, 1])
    walk = walk_of(data)
    offset = [len(data), *(offset for offset, _, _ in walk)][behind]
    extra = b"\xaa" * 5
    filled = fill_gaps(
        data[:offset] + extra + data[offset:], HEADER, end=End(walk.sequence, walk.link)
    )
    assert filled.data == data
    ((at, size, said, first, following),) = filled.gaps
    assert (at, size, first == following) == (offset, len(extra), True)
    assert (said == BAD_FOOTER) == (reason == BAD_FOOTER)


def test_zeros_behind_the_frames() -> None:
    """They are space that was written ahead: no gap."""
    data = made([1, 2, 1])
    walk = walk_of(data)
    assert len(list(walk)) == 3
    assert fill_gaps(data + bytes(500), HEADER, end=End(walk.sequence, walk.link)).gaps == []


@pytest.mark.parametrize(
    "watermarks", [[100, 100, 100, 102], [100, 100, 102, 100], [100, 100, 102, 102]]
)
def test_any_later_frame_may_prove_a_lost_one(watermarks: list[int]) -> None:
    """It was synced when one of the frames further on says so, the next one or another."""
    data = bytearray(made([1, 1, 1, 1], watermarks))
    offset = [offset for offset, _, _ in walk_of(bytes(data))][1]
    data[offset] ^= 1
    filled = fill_gaps(bytes(data), HEADER, end=None)
    assert [(gap.first_sequence, gap.next_sequence) for gap in filled.gaps] == [(101, 102)]
    assert (filled.contents.next_sequence, filled.tail) == (104, b"")


def test_later_frames_that_prove_nothing() -> None:
    """When none of them says that the lost one was synced, it and what follows are the tail."""
    data = bytearray(made([1, 1, 1, 1], [100, 100, 101, 101]))
    offset = [offset for offset, _, _ in walk_of(bytes(data))][1]
    data[offset] ^= 1
    filled = fill_gaps(bytes(data), HEADER, end=None)
    assert (filled.gaps, filled.contents.next_sequence, filled.tail) == (
        [],
        101,
        bytes(data[offset:]),
    )


def test_what_is_behind_the_last_proof_is_the_tail() -> None:
    """Of a segment that is being written, bytes that were never promised stay as they are."""
    data = made([1, 1, 1])
    filled = fill_gaps(data[:-1], HEADER, end=None)
    assert filled.gaps == []
    assert filled.data + filled.tail == data[:-1]
    assert filled.contents.next_sequence == 102


@pytest.mark.parametrize("proven", [102, 103, 110])
def test_what_was_promised_is_filled_up(proven: int) -> None:
    """Up to where everything had been synced, placeholders take the place of what is not there."""
    filled = fill_gaps(made([1, 1, 1])[:-1], HEADER, end=None, proven=proven)
    lost = proven - 102
    assert filled.contents.next_sequence == proven
    assert sum(gap.next_sequence - gap.first_sequence for gap in filled.gaps) == lost
    assert bool(filled.tail) == (lost == 0)


@pytest.mark.parametrize("created", [5, 90, 9_000])
def test_a_segment_that_is_older_than_its_creation(created: int) -> None:
    """The clock was set back while it was empty.

    What stands in for its first records is not later than what follows.
    """
    header = HEADER._replace(created=created)
    frames, sequence, link = list[bytes](), header.first_sequence, header.link
    for times in ([50, 60], [70, 80]):
        frame = encode(
            [b"x", b"y"],
            times,
            first_sequence=sequence,
            time=times[-1],
            watermark=sequence,
            link=link,
            seed=header.seed,
        )
        frames.append(b"".join(frame.buffers))
        sequence, link = sequence + 2, frame.check
    filled = fill_gaps(
        b"".join((header.encode(), bytes(len(frames[0])), frames[1])),
        header,
        end=End(sequence, link),
    )
    walk, found = read(
        filled.data,
        seed=header.seed,
        sequence=header.first_sequence,
        link=header.link,
        offset=SEGMENT_HEADER_BYTES,
    )
    assert walk.fault is None
    assert [record.timestamp for record in found] == [min(created, 70)] * 2 + [70, 80]
