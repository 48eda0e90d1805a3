"""lost: frames that stand in for lost ones, and a segment healed with them, whatever is damaged in it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aquipu.frame import Walk, encode, keys_of, records
from aquipu.layout import SEGMENT_HEADER_BYTES, SegmentHeader
from aquipu.lost import LOST, WRITER, End, heal, stand_ins
from aquipu.record import Record

U32 = st.integers(0, 2**32 - 1)
HEADER = SegmentHeader(bytes(range(16)), 100, 5, 77)


def read(data: bytes, *, seed: int, sequence: int, link: int, offset: int = 0) -> tuple[Walk, list[Record]]:
    """Every record, as recovery reads them."""
    walk = Walk(seed=seed, offset=offset, sequence=sequence, link=link)
    walk.feed(data[offset:])
    found = [record for _, header, body in walk for record in records(header, body)]
    return walk, found


def made(sizes: list[int]) -> bytes:
    """A segment with a frame for each size: so many records."""
    data, sequence, link = HEADER.encode(), HEADER.first_sequence, HEADER.link
    for size in sizes:
        frame = encode(
            [b"record %d" % number for number in range(sequence, sequence + size)],
            [sequence] * size,
            first_sequence=sequence,
            time=sequence,
            watermark=sequence,
            link=link,
            seed=HEADER.seed,
        )
        data += b"".join(frame.buffers)
        sequence, link = sequence + size, frame.check
    return data


@given(first=st.integers(0, 2**40), number=st.integers(0, 300), link=U32, target=U32, seed=U32)
def test_stand_ins_lead_from_one_check_to_another(first: int, number: int, link: int, target: int, seed: int) -> None:
    """They follow the frame before, hold an empty record for each that is lost, and end with the check that is wanted."""
    frames = list(stand_ins(first, first + number, time=9, link=link, target=target, seed=seed))
    data = b"".join(b"".join(frame.buffers) for _, frame in frames)
    walk, found = read(data, seed=seed, sequence=first, link=link)
    assert (walk.fault, walk.offset, walk.link) == (None, len(data), target if frames else link)
    assert found == [Record(sequence, 9, b"", (LOST,)) for sequence in range(first, first + number)]
    assert bool(frames) == (number > 0 or link != target)


def test_many_lost_records_take_several_frames() -> None:
    """A frame stays of bounded size, and only the last one has the check that is wanted."""
    frames = list(stand_ins(7, 200_007, time=9, link=1, target=2, seed=3))
    assert [number for number, _ in frames] == [65_536, 65_536, 65_536, 3_392]
    assert frames[-1][1].check == 2
    walk, found = read(b"".join(b"".join(frame.buffers) for _, frame in frames), seed=3, sequence=7, link=1)
    assert (walk.fault, len(found)) == (None, 200_000)


def test_where_nobody_knows_what_follows() -> None:
    """Without a wanted check there is one frame, which names who wrote it."""
    ((number, frame),) = stand_ins(7, 9, time=9, link=1, target=None, seed=3)
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
def test_a_sealed_segment_with_any_bytes_changed(sizes: list[int], damage: list[tuple[int, int]]) -> None:
    """It is whole again: dense, of the same end, every record as it was or said to be lost, and every hole is told."""
    data = made(sizes)
    whole, before = read(data, seed=HEADER.seed, sequence=100, link=77, offset=SEGMENT_HEADER_BYTES)
    changed = bytearray(data)
    frames = len(data) - SEGMENT_HEADER_BYTES
    for at, turned in damage:
        changed[SEGMENT_HEADER_BYTES + at % frames] ^= turned
    healed = heal(bytes(changed), HEADER, end=End(whole.sequence, whole.link))
    walk, found = read(healed.data, seed=HEADER.seed, sequence=100, link=77, offset=SEGMENT_HEADER_BYTES)
    assert (walk.fault, walk.offset, walk.sequence, walk.link) == (None, len(healed.data), whole.sequence, whole.link)
    assert (healed.contents.next_sequence, healed.contents.link) == (whole.sequence, whole.link)
    assert (healed.contents.end, healed.tail) == (len(healed.data), b"")
    lost = {number for hole in healed.holes for number in range(hole.first_sequence, hole.next_sequence)}
    for record, original in zip(found, before, strict=True):
        if record.sequence in lost:
            assert (record.data, record.relations) == (b"", (LOST,))
        else:
            assert record == original
    if changed == data:
        assert (healed.data, healed.holes) == (data, [])
    else:
        assert healed.holes


def test_what_is_behind_the_last_proof_is_the_tail() -> None:
    """Of a segment that is being written, bytes that were never promised stay as they are."""
    data = made([1, 1, 1])
    healed = heal(data[:-1], HEADER, end=None)
    assert healed.holes == []
    assert healed.data + healed.tail == data[:-1]
    assert healed.contents.next_sequence == 102


@pytest.mark.parametrize("proven", [102, 103, 110])
def test_what_was_promised_is_filled_up(proven: int) -> None:
    """Up to where everything had been synced, stand-ins take the place of what is not there."""
    healed = heal(made([1, 1, 1])[:-1], HEADER, end=None, proven=proven)
    lost = proven - 102
    assert healed.contents.next_sequence == proven
    assert sum(hole.next_sequence - hole.first_sequence for hole in healed.holes) == lost
    assert bool(healed.tail) == (lost == 0)
