"""frame.py: commit frames as bytes and back.

The oracle is `by_the_book`, the tables of the module's docstring written out number by number.
"""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aquipu import frame
from aquipu.checksum import extend
from aquipu.frame import (
    HEADER_BYTES,
    MAGIC,
    Encoded,
    Flag,
    Header,
    Key,
    Walk,
    encode,
    header_at,
    is_sound,
    keys_of,
    record_of,
    records,
    search,
)
from aquipu.record import LABEL_BYTES_MAX, LABELS_MAX, Record

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SEED = 0x5EED5EED
APART = 64 * 1024

u32s = st.integers(0, 2**32 - 1)
u64s = st.integers(0, 2**64 - 1)
labels = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


class Commit(NamedTuple):
    """What goes into a frame."""

    payloads: list[bytes]
    timestamps: list[int]
    labels: dict[int, tuple[str, ...]] | None = None
    keys: Sequence[Key] = ()
    owes_sync: bool = False
    first_sequence: int = 0
    time: int = 1
    watermark: int = 0
    link: int = 0
    seed: int = SEED

    def encoded(self) -> Encoded:
        return encode(
            self.payloads,
            self.timestamps,
            labels=self.labels,
            keys=self.keys,
            owes_sync=self.owes_sync,
            first_sequence=self.first_sequence,
            time=self.time,
            watermark=self.watermark,
            link=self.link,
            seed=self.seed,
        )

    def frame(self) -> bytes:
        return b"".join(self.encoded().buffers)

    def records(self) -> list[Record]:
        given = self.labels or {}
        return [
            Record(self.first_sequence + index, self.timestamps[index], data, given.get(index, ()))
            for index, data in enumerate(self.payloads)
        ]


@st.composite
def keys_of_up_to(draw: st.DrawFn, count: int) -> Key:
    first = draw(st.integers(0, count))
    return Key(draw(st.binary(min_size=16, max_size=16)), draw(u64s), first, draw(st.integers(0, count - first)))


@st.composite
def commits(draw: st.DrawFn) -> Commit:
    payloads = draw(st.lists(st.binary(max_size=40), max_size=8))
    count = len(payloads)
    of_records = st.lists(labels, max_size=4).map(tuple)
    return Commit(
        payloads,
        draw(st.lists(u64s, min_size=count, max_size=count)),
        labels=draw(st.dictionaries(st.sampled_from(range(count)), of_records)) if count else {},
        keys=draw(st.lists(keys_of_up_to(count), max_size=3)),
        owes_sync=draw(st.booleans()),
        first_sequence=draw(u64s),
        time=draw(u64s),
        watermark=draw(u64s),
        link=draw(u32s),
        seed=draw(u32s),
    )


def numbers(size: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(size, "little") for value in values)


def header_by_the_book(body: bytes, commit: Commit, flags: int, count: int) -> bytes:
    head = (
        b"\xaaqF1"
        + numbers(4, flags, count, len(body))
        + numbers(8, commit.first_sequence, commit.time, commit.watermark)
        + numbers(4, commit.link, extend(commit.seed, body))
    )
    return head + numbers(4, extend(commit.seed, head))


def body_by_the_book(commit: Commit) -> bytes:
    body = b""
    if commit.keys:
        body += numbers(4, len(commit.keys))
        for key in commit.keys:
            body += key.writer + numbers(8, key.number) + numbers(4, key.first, key.records)
    body += numbers(4, *map(len, commit.payloads)) + numbers(8, *commit.timestamps)
    if commit.labels:
        of_each = [commit.labels.get(index, ()) for index in range(len(commit.payloads))]
        spelled = [label.encode() for of_one in of_each for label in of_one]
        columns = numbers(1, *map(len, of_each)) + numbers(2, *map(len, spelled)) + b"".join(spelled)
        body += numbers(4, len(columns)) + columns
    return body + b"".join(commit.payloads)


def by_the_book(commit: Commit) -> bytes:
    flags = (1 if commit.labels else 0) | (2 if commit.keys else 0) | (4 if commit.owes_sync else 0)
    body = body_by_the_book(commit)
    return header_by_the_book(body, commit, flags, len(commit.payloads)) + body


# one frame


def worked_example() -> bytes:
    """The bytes that stand at the left of the docstring's worked example."""
    text = (frame.__doc__ or "").partition("A worked example.")[2].partition("Downsides")[0]
    rows = re.findall(r"^ {4}((?:[0-9a-f]{2} +)+)", text, re.MULTILINE)
    return bytes.fromhex("".join(rows))


def test_the_worked_example() -> None:
    """The bytes of the worked example in the docstring are what encode makes of its two records."""
    commit = Commit([b"one", b"three"], [2, 2], first_sequence=7, time=2, watermark=7, link=0x11111111, seed=0)
    assert len(worked_example()) == 84
    assert commit.frame() == worked_example()
    assert f"{commit.encoded().size} bytes, with both times" in (frame.__doc__ or "")


@unhurried
@given(commits())
@example(Commit([], []))
@example(Commit([b""], [0], labels={0: ()}))
@example(Commit([b"x"] * 300, [5] * 300, labels={299: ("ä" * 512,) * 255}))
def test_any_commit_is_written_by_the_book(commit: Commit) -> None:
    """A frame is, byte for byte, what the tables of the docstring say."""
    assert commit.frame() == by_the_book(commit)


@unhurried
@given(commits())
@example(Commit([], [], keys=[Key(b"k" * 16, 0, 0, 0)]))
@example(Commit([b"x"], [0], labels={0: ("l" * LABEL_BYTES_MAX,) * LABELS_MAX}))
def test_any_commit_there_and_back(commit: Commit) -> None:
    """What goes into a frame comes out of it: records, labels, keys, flags and the numbers of the header."""
    encoded = commit.encoded()
    whole = b"".join(encoded.buffers)
    header = header_at(whole, 0, commit.seed)
    assert header is not None
    body = whole[HEADER_BYTES:]
    assert (encoded.size, encoded.check) == (len(whole), header.check)
    assert (header.size, header.next_sequence) == (len(whole), commit.first_sequence + len(commit.payloads))
    assert (header.first_sequence, header.time, header.watermark, header.link) == commit[5:9]
    assert bool(header.flags & Flag.OWES_SYNC) is commit.owes_sync
    assert is_sound(header, body, commit.seed)
    assert keys_of(header, body) == list(commit.keys)
    assert records(header, body) == commit.records()
    assert frame.labels(header, body) == [record.relations for record in commit.records()]
    assert [record_of(header, body, record.sequence) for record in commit.records()] == commit.records()


@pytest.mark.parametrize("sizes", [[APART], [APART + 1], [APART, APART], [2 * APART, 0], [1, 1 << 20, 7, 1 << 19]], ids=str)
def test_payloads_of_a_big_frame_stay_apart(sizes: list[int]) -> None:
    """Payloads of 64 KiB or more, on average, are handed on as they are and not copied; the frame is the same."""
    payloads = [bytes([index]) * size for index, size in enumerate(sizes, 1)]
    commit = Commit(payloads, list(range(len(sizes))), labels={0: ("big",)}, keys=[Key(b"w" * 16, 3, 0, 1)])
    buffers = commit.encoded().buffers
    assert all(buffer is payload for buffer, payload in zip(buffers[-len(sizes) :], payloads, strict=True))
    assert commit.frame() == by_the_book(commit)
    assert commit.encoded().size == len(commit.frame())
    assert [found for _, _, found in read(Walk(seed=SEED, offset=0, sequence=0, link=0), commit.frame())] == [
        commit.records()
    ]


@pytest.mark.parametrize("sizes", [[APART - 1], [APART, APART - 1], [1] * 2000], ids=["one", "two", "many"])
def test_payloads_of_a_small_frame_are_joined(sizes: list[int]) -> None:
    """Smaller payloads travel in one buffer with the columns, so that a commit is two buffers whatever its records."""
    commit = Commit([bytes(size) for size in sizes], [0] * len(sizes))
    assert len(commit.encoded().buffers) == 2
    assert commit.frame() == by_the_book(commit)


def test_a_machine_with_the_other_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numbers in memory are big-endian, the columns are swapped on their way out and on their way in."""
    commit = Commit([b"one", b"three"], [4, 5], labels={1: ("a", "bc")})
    assert commit.frame()[HEADER_BYTES:][:24] == struct.pack("<2I2Q", 3, 5, 4, 5)
    monkeypatch.setattr(sys, "byteorder", "big" if sys.byteorder == "little" else "little")
    mistaken = commit.frame()  # one swap too many, or one too few
    header = header_at(mistaken, 0, SEED)
    assert header is not None
    assert mistaken[HEADER_BYTES:][:24] == struct.pack(">2I2Q", 3, 5, 4, 5)
    assert records(header, mistaken[HEADER_BYTES:]) == commit.records()


# what does not check

TELLING = Commit(
    [b"one", b"", b"three"],
    [7, 8, 9],
    labels={0: ("user:7", "schlüssel"), 2: ("x",)},
    keys=[Key(bytes(range(16)), 12, 1, 2)],
    owes_sync=True,
    first_sequence=70,
    time=9,
    watermark=70,
    link=0xABCDEF01,
)


def walk_of(commit: Commit) -> Walk:
    return Walk(seed=commit.seed, offset=0, sequence=commit.first_sequence, link=commit.link)


def test_every_bit_of_a_frame() -> None:
    """A single flipped bit, whichever it is, leaves no frame to be given, and the walk says that and where."""
    whole = int.from_bytes(TELLING.frame(), "little")
    size = len(TELLING.frame())
    for bit in range(8 * size):
        walk = walk_of(TELLING)
        walk.feed((whole ^ 1 << bit).to_bytes(size, "little"))
        assert list(walk) == []
        assert walk.fault is not None
        assert (walk.offset, walk.sequence, walk.link) == (0, TELLING.first_sequence, TELLING.link)


@unhurried
@given(commits(), st.data())
def test_some_bit_of_any_frame(commit: Commit, data: st.DataObject) -> None:
    """Neither the header nor the body of a frame passes with a flipped bit."""
    whole = bytearray(commit.frame())
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    sound = header_at(bytes(whole), 0, commit.seed)
    assert sound is not None
    whole[bit // 8] ^= 1 << bit % 8
    if bit < 8 * HEADER_BYTES:
        assert header_at(bytes(whole), 0, commit.seed) is None
    else:
        assert not is_sound(sound, bytes(whole[HEADER_BYTES:]), commit.seed)


@unhurried
@given(commits(), u32s)
def test_a_frame_of_another_segment(commit: Commit, seed: int) -> None:
    """With another seed neither the header nor the body of a frame passes, not even an empty body."""
    whole = commit.frame()
    sound = header_at(whole, 0, commit.seed)
    assert sound is not None
    passes = seed == commit.seed
    assert (header_at(whole, 0, seed) is not None) is passes
    assert is_sound(sound, whole[HEADER_BYTES:], seed) is passes


@unhurried
@given(commits(), st.binary(min_size=1, max_size=4))
def test_a_body_of_another_length(commit: Commit, more: bytes) -> None:
    """A body that is too short or too long is not the one of its header."""
    whole = commit.frame()
    header = header_at(whole, 0, commit.seed)
    assert header is not None
    body = whole[HEADER_BYTES:]
    assert not is_sound(header, body + more, commit.seed)
    assert not is_sound(header._replace(body_size=len(body) + len(more)), body, commit.seed)
    assert not body or not is_sound(header, body[:-1], commit.seed)


@pytest.mark.parametrize("size", [0, 1, 4, HEADER_BYTES - 1, HEADER_BYTES, 4096])
@pytest.mark.parametrize("filler", [b"\x00", b"\xff", MAGIC[:1]])
def test_filled_space_is_no_header(filler: bytes, size: int) -> None:
    """Zeros, ones and repeated bytes are never a frame, with no seed: unwritten space is not a record."""
    for seed in (0, SEED, 2**32 - 1):
        assert header_at(filler * size, 0, seed) is None
        assert list(search(filler * size, 0, seed)) == []


def test_a_header_that_is_cut_short() -> None:
    """A header that does not stand whole in the buffer is none, wherever it is cut, and none behind the end."""
    whole = TELLING.frame()
    for cut in range(HEADER_BYTES):
        assert header_at(whole[:cut], 0, SEED) is None
    assert header_at(whole[:HEADER_BYTES], 0, SEED) is not None
    assert header_at(whole, len(whole), SEED) is None


# columns that do not fit


def decode(body: bytes, flags: int, count: int) -> list[Record]:
    """The records of a frame that checks although no writer here would have made it."""
    whole = header_by_the_book(body, Commit([], []), flags, count) + body
    header = header_at(whole, 0, SEED)
    assert header is not None
    assert is_sound(header, body, SEED)
    return records(header, body)


ONE = numbers(4, 3) + numbers(8, 9)  # the columns of a single record of three bytes


@pytest.mark.parametrize(
    ("body", "flags", "count"),
    [
        pytest.param(b"", 0, 1, id="no columns"),
        pytest.param(ONE[:3], 0, 1, id="lengths cut short"),
        pytest.param(ONE[:-1], 0, 1, id="times cut short"),
        pytest.param(ONE + b"on", 0, 1, id="payloads cut short"),
        pytest.param(ONE + b"one more", 0, 1, id="bytes behind the payloads"),
        pytest.param(b"one", 0, 0, id="bytes of no record"),
        pytest.param(ONE + b"one", 0, 2**32 - 1, id="more records than bytes"),
        pytest.param(b"\0" * 3, 2, 0, id="number of keys cut short"),
        pytest.param(numbers(4, 1) + b"k" * 31, 2, 0, id="key cut short"),
        pytest.param(numbers(4, 2**32 - 1) + b"k" * 32, 2, 0, id="more keys than bytes"),
        pytest.param(ONE, 1, 1, id="no label columns"),
        pytest.param(ONE + b"\x01\x00\x00", 1, 1, id="size of the labels cut short"),
        pytest.param(ONE + numbers(4, 0), 1, 1, id="no counts of labels"),
        pytest.param(ONE + numbers(4, 3) + b"\x01" + numbers(2, 2), 1, 1, id="labels cut short"),
        pytest.param(ONE + numbers(4, 1) + b"\x02one", 1, 1, id="more labels than columns"),
        pytest.param(ONE + numbers(4, 5) + b"\x01" + numbers(2, 1) + b"ab" + b"one", 1, 1, id="bytes behind the labels"),
        pytest.param(
            ONE + numbers(4, 4) + b"\x01" + numbers(2, 2) + b"ab" + b"one", 1, 1, id="labels beyond their columns"
        ),
        pytest.param(ONE + numbers(4, 99) + b"\x00" + b"one", 1, 1, id="label columns beyond the body"),
        pytest.param(ONE + numbers(4, 4) + b"\x01" + numbers(2, 1) + b"\xff" + b"one", 1, 1, id="a label that is no UTF-8"),
    ],
)
def test_columns_that_do_not_fit(body: bytes, flags: int, count: int) -> None:
    """A frame whose columns do not fit each other is a ValueError, however well it checks."""
    with pytest.raises(ValueError, match="frame"):
        decode(body, flags, count)


@pytest.mark.parametrize(("first", "count"), [(0, 2), (1, 1), (2**32 - 1, 1)])
def test_a_key_of_records_that_are_not_there(first: int, count: int) -> None:
    """A key names records of its own frame; one that reaches beyond them is a ValueError, however well it checks."""
    for key in (Key(b"k" * 16, 1, 0, 1), Key(b"k" * 16, 1, first, count)):
        commit = Commit([b"one"], [9], keys=[key])
        header = header_at(commit.frame(), 0, SEED)
        assert header is not None
        if key.first + key.records <= 1:
            assert keys_of(header, commit.frame()[HEADER_BYTES:]) == [key]
        else:
            with pytest.raises(ValueError, match="more records"):
                keys_of(header, commit.frame()[HEADER_BYTES:])


@unhurried
@given(st.binary(max_size=120), st.integers(0, 7), st.integers(0, 12) | u32s)
def test_any_body_with_any_header(body: bytes, flags: int, count: int) -> None:
    """Whatever a frame holds, its records are as many as its header says, or a ValueError comes."""
    try:
        found = decode(body, flags, count)
    except ValueError:
        return
    assert len(found) == count
    assert sum(len(record.data) for record in found) <= len(body)


@unhurried
@given(commits(), st.data())
def test_any_body_cut_short(commit: Commit, data: st.DataObject) -> None:
    """A body that lost its end, under a header that checks, is a ValueError and never fewer records."""
    whole = commit.frame()
    header = header_at(whole, 0, commit.seed)
    assert header is not None
    body = whole[HEADER_BYTES:]
    if not body:
        return
    with pytest.raises(ValueError, match="frame"):
        records(header, body[: data.draw(st.integers(0, len(body) - 1))])


def test_what_does_not_fit_is_not_repeated() -> None:
    """The message about a label that cannot be read holds nothing of it."""
    label = b"\xff secret"
    columns = b"\x01" + numbers(2, len(label)) + label
    with pytest.raises(ValueError, match="frame") as caught:
        decode(ONE + numbers(4, len(columns)) + columns + b"one", 1, 1)
    assert "0xff" not in str(caught.value)
    assert "secret" not in str(caught.value)


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

Found = tuple[int, int, list[Record]]


def walk_chain(linked: list[Commit] = CHAIN) -> Walk:
    first = linked[0]
    return Walk(seed=SEED, offset=1000, sequence=first.first_sequence, link=first.link)


def read(walk: Walk, *pieces: bytes) -> list[Found]:
    """Offset, check and records of each frame that comes out of the walk."""
    found = []
    for piece in pieces:
        walk.feed(piece)
        found += [(offset, header.check, records(header, body)) for offset, header, body in walk]
    return found


def expected(linked: Iterable[Commit] = CHAIN, offset: int = 1000) -> list[Found]:
    found = []
    for commit in linked:
        found.append((offset, commit.encoded().check, commit.records()))
        offset += commit.encoded().size
    return found


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def assert_at_rest(walk: Walk, linked: list[Commit] = CHAIN) -> None:
    """The walk has taken everything, found nothing wrong, and stands where the next frame would begin."""
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
    """Of bytes that are cut, each whole frame is given and nothing is wrong; with the rest come the others."""
    ends = [offset + commit.encoded().size - 1000 for (offset, *_), commit in zip(expected(), CHAIN, strict=True)]
    for cut in range(len(BYTES) + 1):
        walk = walk_chain()
        whole = sum(end <= cut for end in ends)
        assert read(walk, BYTES[:cut]) == expected()[:whole]
        assert walk.fault is None
        assert walk.pending == cut - (ends[whole - 1] if whole else 0)
        assert read(walk, BYTES[cut:]) == expected()[whole:]
        assert_at_rest(walk)


@unhurried
@given(st.lists(commits(), min_size=1, max_size=6), st.lists(st.integers(1, 60), max_size=40), st.binary(max_size=60))
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
    """``wanted`` is never more than the next frame needs, so a reader that gives just that comes through."""
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
@pytest.mark.parametrize("filler", [b"\x00", b"\xff", MAGIC[:1]], ids=["zeros", "ones", "half a magic"])
@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_a_walk_with_a_tail_behind(filler: bytes, count: int, size: int) -> None:
    """Zeros or garbage behind the frames change none of them; the walk ends there, with a fault once it has seen enough."""
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
        pytest.param(rearranged(1, 2, 3, 4), 0, "begins with sequence 5 instead of 3", id="the first is missing"),
        pytest.param(rearranged(0, 1, 2, 4), 3, "begins with sequence 8 instead of 5", id="one with records is missing"),
        pytest.param(rearranged(0, 2, 3, 4), 1, "at sequence 5 does not follow", id="an empty one is missing"),
        pytest.param(rearranged(0, 0, 1), 1, "begins with sequence 3 instead of 5", id="one with records stands twice"),
        pytest.param(rearranged(0, 1, 1, 2), 2, "at sequence 5 does not follow", id="an empty one stands twice"),
        pytest.param(rearranged(0, 2, 1, 3), 1, "at sequence 5 does not follow", id="two have changed places"),
    ],
)
def test_sound_frames_in_a_wrong_order(data: bytes, whole: int, fault: str) -> None:
    """Each frame must follow the one before it, by its sequence and by its link: a frame more or less ends the walk."""
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


@pytest.mark.parametrize("flags", [8, 16 | 4, 1 << 31, 0xFFFFFFFF], ids=hex)
def test_a_frame_with_unknown_flags(flags: int) -> None:
    """A frame that checks and has a flag of a later version ends the walk, which says which flags it does not know."""
    body = body_by_the_book(CHAIN[1])
    later = header_by_the_book(body, CHAIN[1], flags, 0) + body
    walk = walk_chain()
    assert read(walk, CHAIN[0].frame() + later + BYTES) == expected()[:1]
    assert walk.unknown_flags == flags & ~7
    assert walk.fault == f"a frame has the unknown flags {flags & ~7:#x}"
    assert walk.offset == expected()[1][0]


def test_a_damaged_frame_with_unknown_flags() -> None:
    """A frame whose body does not check is damage, whatever flags it has: it may not be of a later version at all."""
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


noise = st.binary(max_size=30) | st.sampled_from([MAGIC, MAGIC[:3], MAGIC * 3, MAGIC[:3] + MAGIC, bytes(60)])
headers_of = commits().map(lambda commit: commit._replace(seed=SEED).frame())


@unhurried
@given(st.lists(noise | headers_of, max_size=8), st.integers(0, 100))
def test_headers_among_anything(parts: list[bytes], offset: int) -> None:
    """Every sound header is found, wherever it stands and whatever stands around it, and nothing else is."""
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
    """A header is found up to the last byte of the buffer, without its body, and not when its own last byte is missing."""
    begin = expected()[3][0] - 1000
    to_the_end = BYTES[: begin + HEADER_BYTES]
    assert [at for at, _ in search(to_the_end, begin, SEED)] == [begin]
    assert list(search(to_the_end[:-1], begin, SEED)) == []


def test_a_header_within_a_payload() -> None:
    """A header inside the data of a record is found too: who takes it for a witness must know that."""
    inner = CHAIN[0].frame()
    outer = Commit([b"before " + inner + b" behind"], [1]).frame()
    assert [at for at, _ in search(outer, 0, SEED)] == [0, outer.index(inner)]


def test_a_walk_is_its_own_iterator() -> None:
    """Iterating again goes on where the walk stands."""
    walk = walk_chain()
    walk.feed(BYTES)
    assert next(walk)[0] == 1000
    assert [offset for offset, *_ in walk] == [offset for offset, *_ in expected()[1:]]
