"""A commit frame as bytes and back.

The oracle is `by_the_book`, the tables of the module's docstring written out number by number.
"""

from __future__ import annotations

import re
import struct
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aquipu.local.format import frame
from aquipu.local.format.frame import (
    HEADER_BYTES,
    MAGIC,
    Flag,
    header_at,
    is_sound,
    keys_of,
    record_of,
    records,
)
from aquipu.local.format.walk import Walk, search
from aquipu.record import LABEL_BYTES_MAX, LABELS_MAX, Key, Record
from tests.local.format.commits import (
    SEED,
    TELLING,
    Commit,
    body_by_the_book,
    commits,
    header_by_the_book,
    numbers,
    read,
    u32s,
    unhurried,
)

APART = 64 * 1024


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
    commit = Commit(
        [b"one", b"three"], [2, 2], first_sequence=7, time=2, watermark=7, link=0x11111111, seed=0
    )
    assert len(worked_example()) == 84
    assert commit.frame() == worked_example()
    assert f"{commit.encoded().size} bytes, with both times" in " ".join(
        (frame.__doc__ or "").split()
    )


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
    """What goes into a frame comes out of it: records, labels, keys, flags and the numbers of the
    header.
    """
    encoded = commit.encoded()
    whole = b"".join(encoded.buffers)
    header = header_at(whole, 0, commit.seed)
    assert header is not None
    body = whole[HEADER_BYTES:]
    assert (encoded.size, encoded.check) == (len(whole), header.check)
    assert (header.size, header.next_sequence) == (
        len(whole),
        commit.first_sequence + len(commit.payloads),
    )
    assert (header.first_sequence, header.time, header.watermark, header.link) == commit[5:9]
    assert bool(header.flags & Flag.OWES_SYNC) is commit.owes_sync
    assert is_sound(header, body, commit.seed)
    assert keys_of(header, body) == list(commit.keys)
    assert records(header, body) == commit.records()
    assert frame.labels(header, body) == [record.relations for record in commit.records()]
    assert [
        record_of(header, body, record.sequence) for record in commit.records()
    ] == commit.records()


@unhurried
@given(commits(), st.data())
def test_some_records_of_a_frame(commit: Commit, data: st.DataObject) -> None:
    """Those at some indices, in a range, or with a label are those that stand there among all."""
    whole, every = commit.frame(), commit.records()
    header = header_at(whole, 0, commit.seed)
    assert header is not None
    columns, count = frame.decoder(header, whole[HEADER_BYTES:]), len(every)
    some = sorted(data.draw(st.sets(st.integers(0, max(count - 1, 0)), max_size=count)))
    assert columns.records_at(some) == [every[index] for index in some]
    begin = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(begin, count))
    assert list(columns.records(begin, stop)) == every[begin:stop]
    labels = {label for record in every for label in record.relations if label}
    for label in (*labels, "never", *(label[1:] for label in labels if label[1:])):
        carrying = [index for index, it in enumerate(every) if label in it.relations]
        assert columns.carrying(label) == carrying
        assert columns.records_carrying(label) == [every[index] for index in carrying]


@pytest.mark.parametrize(
    "sizes",
    [[APART], [APART + 1], [APART, APART], [2 * APART, 0], [1, 1 << 20, 7, 1 << 19]],
    ids=str,
)
def test_payloads_of_a_big_frame_stay_apart(sizes: list[int]) -> None:
    """Payloads of 64 KiB or more, on average, are handed on as they are and not copied; the frame
    is the same.
    """
    payloads = [bytes([index]) * size for index, size in enumerate(sizes, 1)]
    commit = Commit(
        payloads, list(range(len(sizes))), labels={0: ("big",)}, keys=[Key(b"w" * 16, 3, 0, 1)]
    )
    buffers = commit.encoded().buffers
    assert all(
        buffer is payload for buffer, payload in zip(buffers[-len(sizes) :], payloads, strict=True)
    )
    assert commit.frame() == by_the_book(commit)
    assert commit.encoded().size == len(commit.frame())
    assert [
        found for _, _, found in read(Walk(seed=SEED, offset=0, sequence=0, link=0), commit.frame())
    ] == [commit.records()]


@pytest.mark.parametrize(
    "sizes", [[APART - 1], [APART, APART - 1], [1] * 2000], ids=["one", "two", "many"]
)
def test_payloads_of_a_small_frame_are_joined(sizes: list[int]) -> None:
    """Smaller payloads travel in one buffer with the columns, so that a commit is two buffers
    whatever its records.
    """
    commit = Commit([bytes(size) for size in sizes], [0] * len(sizes))
    assert len(commit.encoded().buffers) == 2
    assert commit.frame() == by_the_book(commit)


def test_a_machine_with_the_other_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where numbers in memory are big-endian, the columns are swapped on their way out and on their
    way in.
    """
    commit = Commit([b"one", b"three"], [4, 5], labels={1: ("a", "bc")})
    assert commit.frame()[HEADER_BYTES:][:24] == struct.pack("<2I2Q", 3, 5, 4, 5)
    monkeypatch.setattr(sys, "byteorder", "big" if sys.byteorder == "little" else "little")
    mistaken = commit.frame()  # one swap too many, or one too few
    header = header_at(mistaken, 0, SEED)
    assert header is not None
    assert mistaken[HEADER_BYTES:][:24] == struct.pack(">2I2Q", 3, 5, 4, 5)
    assert records(header, mistaken[HEADER_BYTES:]) == commit.records()


# what does not check


def walk_of(commit: Commit) -> Walk:
    return Walk(seed=commit.seed, offset=0, sequence=commit.first_sequence, link=commit.link)


def test_every_bit_of_a_frame() -> None:
    """A single flipped bit, whichever it is, leaves no frame to be given, and the walk says that
    and where.
    """
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
    """With another seed neither header nor body of a frame passes, not even an empty one."""
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
    """Zeros, ones and repeated bytes are never a frame, with no seed: unwritten space is not a
    record.
    """
    for seed in (0, SEED, 2**32 - 1):
        assert header_at(filler * size, 0, seed) is None
        assert list(search(filler * size, 0, seed)) == []


def test_a_header_that_is_cut_short() -> None:
    """A header that does not stand whole in the buffer is none, wherever it is cut, and none behind
    the end.
    """
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
        pytest.param(
            ONE + numbers(4, 5) + b"\x01" + numbers(2, 1) + b"ab" + b"one",
            1,
            1,
            id="bytes behind the labels",
        ),
        pytest.param(
            ONE + numbers(4, 4) + b"\x01" + numbers(2, 2) + b"ab" + b"one",
            1,
            1,
            id="labels beyond their columns",
        ),
        pytest.param(
            ONE + numbers(4, 99) + b"\x00" + b"one", 1, 1, id="label columns beyond the body"
        ),
        pytest.param(
            ONE + numbers(4, 4) + b"\x01" + numbers(2, 1) + b"\xff" + b"one",
            1,
            1,
            id="a label that is no UTF-8",
        ),
    ],
)
def test_columns_that_do_not_fit(body: bytes, flags: int, count: int) -> None:
    """A frame whose columns do not fit each other is a ValueError, however well it checks."""
    with pytest.raises(ValueError, match="frame"):
        decode(body, flags, count)


@pytest.mark.parametrize(("first", "count"), [(0, 2), (1, 1), (2**32 - 1, 1)])
def test_a_key_of_records_that_are_not_there(first: int, count: int) -> None:
    """A key names records of its own frame; one that reaches beyond them is a ValueError, however
    well it checks.
    """
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
    """A body that lost its end, under a header that checks, is a ValueError and never fewer
    records.
    """
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
