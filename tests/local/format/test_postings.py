"""A table of labels gives back what it was made of, or says that it is damaged."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aquipu.local.format.postings import (
    BLOCK_BYTES,
    RUN_POSITIONS,
    TRAILER_BYTES,
    VERSION,
    Block,
    BlockIndex,
    block_index_at,
    encode_blocks,
)
from aquipu.local.format.structure import Damage, extend
from aquipu.local.index.postings import add_counts
from tests.local.labelled import SEED, numbers, unhurried, words

NEXT = 1400

LINK = 0x11111111

Postings = Mapping[str, Sequence[int]]

positions = st.sets(st.integers(0, 399), min_size=1, max_size=30).map(sorted)

tables = st.dictionaries(words, positions, max_size=20)


@contextmanager
def small_blocks() -> Iterator[None]:
    """Tables of many small blocks: one is full with 48 bytes, and a label with more than 3
    positions has its own.
    """
    with patch.multiple("aquipu.local.format.postings", BLOCK_BYTES=48, RUN_POSITIONS=3):
        yield


# tables in memory


def block_index_for(postings: Postings, seed: int = SEED) -> tuple[BlockIndex, list[bytes]]:
    """The block index of a table for these labels, and its blocks."""
    block_index = BlockIndex(NEXT, LINK)
    blocks = []
    for block in encode_blocks(
        (label, array("I", at).tobytes()) for label, at in sorted(postings.items())
    ):
        block_index.note(block, seed)
        blocks.append(block.data)
    return block_index, blocks


def block_index_of(firsts: list[str], sizes: list[int], checks: list[int]) -> BlockIndex:
    """A block index that names blocks with these first labels, sizes and checks."""
    block_index = BlockIndex(NEXT, LINK)
    block_index.labels = block_index.postings = len(firsts)
    block_index.firsts, block_index.sizes, block_index.checks = (
        firsts,
        array("I", sizes),
        array("I", checks),
    )
    block_index.offsets = [0, *accumulate(sizes)]
    return block_index


def table_of(postings: Postings, seed: int = SEED) -> bytes:
    """The table for these labels as bytes."""
    block_index, blocks = block_index_for(postings, seed)
    return b"".join((*blocks, block_index.encode(seed)))


def opened(data: bytes, seed: int = SEED) -> BlockIndex:
    """The block index of a table, as it is read from a file."""
    return BlockIndex.decode(data[block_index_at(data[-TRAILER_BYTES:], len(data)) :], seed)


def block_of(data: bytes, block_index: BlockIndex, n: int, seed: int = SEED) -> Block:
    start, end = block_index.offsets[n : n + 2]
    return block_index.block(n, data[start:end], seed)


def positions_in(data: bytes, label: str) -> list[int]:
    """Where the table says that the label stands, from the blocks in which it must stand."""
    block_index = opened(data)
    found: list[int] = []
    for n in block_index.holding(label):
        found += block_of(data, block_index, n).positions(label)
    return found


def everything_in(data: bytes) -> dict[str, list[int]]:
    """All that a table says, from all of its blocks."""
    block_index = opened(data)
    found: dict[str, list[int]] = {}
    for n in range(block_index.blocks):
        for label, at in block_of(data, block_index, n).entries():
            found.setdefault(label, []).extend(at)
    return found


def signed(data: bytes, seed: int = SEED) -> bytes:
    """The end of a table with a last field that checks."""
    return data[:-4] + extend(seed, data[:-4]).to_bytes(4, "little")


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# a table there and back


def test_the_worked_example() -> None:
    """A block is written as the docstring says."""
    (block,) = encode_blocks(
        [("a", array("I", [1, 2, 300]).tobytes()), ("bc", array("I", [2]).tobytes())]
    )
    assert zlib.decompress(block.data) == bytes.fromhex(
        "02 00 00 00  04 00 00 0061 0a 62 6303 01  00 00  00 00  00 0001 01 2a 02  00 00 01 00  00 "
        "00 00 00  00 00 00 00"
    )
    assert (block.first, block.labels, block.postings) == ("a", 2, 4)


def test_the_end_of_a_table() -> None:
    """Block index and trailer are written as the docstring says."""
    block_index, blocks = block_index_for({"a": [1, 2], "b": [3]})
    (block,) = blocks
    columns = numbers(len(block), extend(SEED, block)) + b"a"
    trailer = b"".join(
        (
            b"aquipuRE" + numbers(VERSION, 0),
            NEXT.to_bytes(8, "little") + numbers(LINK, 1),
            *(value.to_bytes(8, "little") for value in (2, 3, len(block))),
            numbers(0),
        )
    )
    assert block_index.encode(SEED) == columns + trailer + numbers(extend(SEED, columns + trailer))
    assert len(trailer) + 4 == TRAILER_BYTES


@unhurried
@given(tables)
@example({})
@example({"a": list(range(10)), "a ": [0], "b": [1, 2], "": [0]})
def test_any_table_there_and_back(postings: dict[str, list[int]]) -> None:
    """Every label is found with just its positions, in small blocks as in large ones."""
    large = table_of(postings)
    with small_blocks():
        small = table_of(postings)
    for data in (large, small):
        assert everything_in(data) == {label: postings[label] for label in sorted(postings)}
        assert {label: positions_in(data, label) for label in postings} == postings
        block_index = opened(data)
        assert (block_index.next_sequence, block_index.link) == (NEXT, LINK)
        assert (block_index.labels, block_index.postings) == (
            len(postings),
            sum(map(len, postings.values())),
        )


@unhurried
@given(tables, words)
def test_a_label_that_is_not_in_the_table(postings: dict[str, list[int]], label: str) -> None:
    """The one block in which it would stand says that it is not there."""
    with small_blocks():
        data = table_of(postings)
    assert len(opened(data).holding(label)) <= max(len(postings.get(label, ())), 1)
    assert positions_in(data, label) == postings.get(label, [])


@unhurried
@given(tables, st.text("ab:", max_size=3))
def test_labels_by_prefix_in_a_table(postings: dict[str, list[int]], prefix: str) -> None:
    """The blocks that the block index names hold all labels that begin so, each picks its own."""
    with small_blocks():
        data = table_of(postings)
    block_index = opened(data)
    counted = [
        block_of(data, block_index, n).counted(prefix) for n in block_index.beginning(prefix)
    ]
    found: dict[str, int] = {}
    for of_block in counted:
        add_counts(found, of_block)
    begin_so = {label: at for label, at in postings.items() if label.startswith(prefix)}
    assert list(found.items()) == [(label, len(begin_so[label])) for label in sorted(begin_so)]
    assert len(counted) <= sum(len(labels) for labels, _ in counted) + 1


def test_a_label_with_many_positions() -> None:
    """It has blocks of its own, so that no block grows beyond bound; its neighbours stand in
    others.
    """
    postings = {
        "a": [5],
        "b": list(range(RUN_POSITIONS * 2 + 10)),
        "c": [6],
        "d": list(range(RUN_POSITIONS)),
    }
    block_index, blocks = block_index_for(postings)
    assert block_index.firsts == ["a", "b", "b", "b", "c"]
    assert (block_index.labels, block_index.postings) == (4, sum(map(len, postings.values())))
    data = table_of(postings)
    assert {label: positions_in(data, label) for label in postings} == postings
    assert max(len(zlib.decompress(block)) for block in blocks) <= 3 * BLOCK_BYTES


def test_a_block_is_about_as_large_as_it_should_be() -> None:
    """So that a look-up reads little, and the block index stays small."""
    block_index, blocks = block_index_for({f"order:{n:06}": [n] for n in range(20_000)})
    sizes = [len(zlib.decompress(block)) for block in blocks]
    assert all(BLOCK_BYTES * 0.9 < size < BLOCK_BYTES * 1.1 for size in sizes[:-1])
    assert len(block_index.firsts) == len(sizes)


def test_positions_as_large_as_they_can_be() -> None:
    """A position is a u32, and the steps between two labels go back and forth over all of its
    range.
    """
    postings = {"a": [0, 2**32 - 1], "b": [2**31, 2**32 - 1], "c": [0]}
    assert everything_in(table_of(postings)) == postings


# damage


SOUND = block_index_of(["a", "b"], [10, 10], [1, 2])

FIXTURE: Postings = {
    "a": [0, 1, 2, 3, 4, 250, 399],
    "b": [7],
    "document:42": [1, 398],
    "user:7": [0, 1, 3],
    "user:8": [2],
    "\u00e4\u4e16": [9, 11],
}


def fixture() -> bytes:
    with small_blocks():
        return table_of(FIXTURE)


def truth_or_damage(read: Callable[[], object], truth: object) -> bool:
    """Whether reading told the truth; False for Damage, and anything else fails the test."""
    try:
        found = read()
    except Damage:
        return False
    assert found == truth
    return True


def test_the_specimen_has_what_a_table_can_have() -> None:
    """Several blocks, a label over several of them, several labels in one, and letters of more than
    one byte.
    """
    block_index = opened(fixture())
    assert block_index.blocks >= 5
    assert len(set(block_index.firsts)) < block_index.blocks
    assert len(set(block_index.firsts)) < len(FIXTURE)


def test_every_bit_of_a_table() -> None:
    """A flipped bit is noticed by whoever reads the part that it is in; nobody gets a wrong or a
    missing answer.
    """
    data = fixture()
    for bit in range(8 * len(data)):
        changed = flipped(data, bit)
        assert not truth_or_damage(partial(everything_in, changed), None)
        for label in (*FIXTURE, "absent", "user:"):
            truth_or_damage(partial(positions_in, changed, label), FIXTURE.get(label, []))


def test_every_cut_of_a_table() -> None:
    """A table that lost its end is damaged, and so is one with zeros in its place or something
    behind it.
    """
    data = fixture()
    for size in range(len(data)):
        for changed in (data[:size], data[:size].ljust(len(data), b"\0"), data + data[: size + 1]):
            if changed != data:
                assert not truth_or_damage(lambda changed=changed: opened(changed), None)  # type: ignore[misc]


def test_every_run_of_bytes_that_is_missing() -> None:
    """A table out of which some bytes were taken is damaged."""
    data = fixture()
    for start in range(0, len(data), 3):
        for end in range(start + 1, len(data) + 1, 5):
            changed = data[:start] + data[end:]
            assert not truth_or_damage(lambda changed=changed: everything_in(changed), None)  # type: ignore[misc]


def test_the_blocks_of_another_table() -> None:
    """Blocks that are sound by themselves do not pass in a table that was not written with them."""
    other = {label: [*at, 399] if at[-1] != 399 else at[:-1] for label, at in FIXTURE.items()}
    with small_blocks():
        blocks = block_index_for(other)[1]
        block_index, own = block_index_for(FIXTURE)
    for n, block in enumerate(own):
        assert block_index.block(n, block, SEED).labels
        for another in (*blocks, *own[:n], *own[n + 1 :]):
            if another != block:
                with pytest.raises(Damage):
                    block_index.block(n, another, SEED)


def test_the_table_of_another_segment() -> None:
    """Every check starts from the segment's seed, so another segment's table does not pass, nor
    does a block of it.
    """
    data = table_of(FIXTURE, SEED + 1)
    with pytest.raises(Damage, match="belongs to another segment"):
        opened(data)
    block_index, (block,) = block_index_for({"a": [1]}, SEED + 1)
    with pytest.raises(Damage):
        block_index.block(0, block, SEED)


@pytest.mark.parametrize(("offset", "value"), [(8, VERSION + 1), (8, 0), (12, 1)])
def test_a_later_version(offset: int, value: int) -> None:
    """It is no table that this version can use; it is made anew."""
    tail = SOUND.encode(SEED)
    at = len(tail) - TRAILER_BYTES + offset
    with pytest.raises(Damage, match="not known here"):
        BlockIndex.decode(signed(tail[:at] + numbers(value) + tail[at + 4 :]), SEED)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "does not end as one", id="nothing"),
        pytest.param(bytes(TRAILER_BYTES), "does not end as one", id="zeros"),
        pytest.param(
            b"aquipuRE" + b"\xff" * (TRAILER_BYTES - 8),
            "shorter than it says",
            id="an end beyond the file",
        ),
        pytest.param(b"aquipuRE" + bytes(TRAILER_BYTES - 8), "does not check", id="no check"),
    ],
)
def test_what_is_no_table(data: bytes, reason: str) -> None:
    """It is damage, whatever it is."""
    with pytest.raises(Damage, match=reason):
        opened(data)


@pytest.mark.parametrize(
    ("offset", "changed"),
    [
        pytest.param(0, numbers(11), id="the blocks end elsewhere"),
        pytest.param(16, b"aab", id="a label is missing"),
        pytest.param(16, b"a\n\n", id="a label too many"),
        pytest.param(16, b"\xff\nb", id="no UTF-8"),
        pytest.param(19 + 28, numbers(0), id="no blocks"),
        pytest.param(19 + 28, numbers(1), id="a block less"),
        pytest.param(19 + 28, numbers(3), id="a block more"),
        pytest.param(19 + 48, numbers(21), id="the block_index stands elsewhere"),
    ],
)
def test_an_outline_that_does_not_fit_itself(offset: int, changed: bytes) -> None:
    """It has as many sizes, checks and labels as blocks, and these fill the file up to it; a right
    check is not enough.
    """
    tail = SOUND.encode(SEED)
    assert vars(BlockIndex.decode(tail, SEED)) == vars(SOUND)
    with pytest.raises(Damage, match="block index"):
        BlockIndex.decode(signed(tail[:offset] + changed + tail[offset + len(changed) :]), SEED)


def raw_block(
    labels: int, text: bytes, counts: Sequence[int], steps: Sequence[int], size: int | None = None
) -> bytes:
    """A block of these parts, before it is compressed."""
    columns = [
        b"".join(bytes([n >> 8 * place & 255]) for n in column)
        for column in (counts, steps)
        for place in range(4)
    ]
    return numbers(labels, len(text) if size is None else size) + text + b"".join(columns)


def test_a_block_by_hand() -> None:
    """What the next test takes apart is sound."""
    block = Block(zlib.compress(raw_block(2, b"a\nb", [2, 1], [0, 1, 4])))
    assert [(label, list(at)) for label, at in block.entries()] == [("a", [0, 1]), ("b", [4])]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"a block", id="not compressed"),
        pytest.param(zlib.compress(b""), id="empty"),
        pytest.param(zlib.compress(numbers(1)), id="no head"),
        pytest.param(zlib.compress(raw_block(0, b"", [], [])), id="no labels"),
        pytest.param(zlib.compress(raw_block(2, b"a\nb", [2, 1], [0, 1, 4]))[:-1], id="cut short"),
        pytest.param(
            zlib.compress(raw_block(3, b"a\nb", [2, 1, 1], [0, 1, 4, 5])), id="a label too few"
        ),
        pytest.param(zlib.compress(raw_block(1, b"a\nb", [2], [0, 1])), id="a label too many"),
        pytest.param(zlib.compress(raw_block(1, b"\xff", [1], [1])), id="no UTF-8"),
        pytest.param(zlib.compress(raw_block(1, b"a", [], [])), id="no counts"),
        pytest.param(zlib.compress(raw_block(2, b"a\nb", [2, 1], [0, 1])), id="a position too few"),
        pytest.param(
            zlib.compress(raw_block(2, b"a\nb", [2, 1], [0, 1, 4, 5])), id="a position too many"
        ),
        pytest.param(
            zlib.compress(raw_block(1, b"a", [2], [1, 1], size=1000)), id="text beyond the block"
        ),
    ],
)
def test_a_block_whose_parts_do_not_fit(data: bytes) -> None:
    """It is damage, also where its check is right."""
    with pytest.raises(Damage, match="block of the index"):
        Block(data)


def test_a_position_that_cannot_be() -> None:
    """Steps that lead beyond a u32 are damage, for those who ask for that label."""
    block = Block(zlib.compress(raw_block(2, b"a\nb", [2, 1], [2**32 - 1, 1, 4])))
    assert list(block.positions("b")) == [4]
    with pytest.raises(Damage, match="position"):
        block.positions("a")


@pytest.mark.parametrize(
    ("firsts", "n", "labels"),
    [
        pytest.param(["a", "c"], 0, ["b"], id="not the first label"),
        pytest.param(["b", "c"], 0, ["a", "b"], id="an earlier label before it"),
        pytest.param(["a", "c"], 0, ["a", "c"], id="the first label of the next block"),
        pytest.param(["a", "c"], 0, ["a", "d"], id="a label behind that of the next block"),
        pytest.param(["a", "a"], 0, ["a", "b"], id="another label within a run"),
    ],
)
def test_a_block_with_labels_that_belong_elsewhere(
    firsts: list[str], n: int, labels: list[str]
) -> None:
    """It is damage: a label that stands in another block than it must would not be found."""
    data = zlib.compress(
        raw_block(len(labels), "\n".join(labels).encode(), [1] * len(labels), [1] * len(labels))
    )
    block_index = block_index_of(firsts, [len(data)] * 2, [extend(SEED, data)] * 2)
    with pytest.raises(Damage, match="other labels than it should"):
        block_index.block(n, data, SEED)
