"""postings: what labels are gathered from frames, and that a table gives back just that, or says that it is damaged."""

from __future__ import annotations

import gc
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aquipu.checksum import extend
from aquipu.frame import Header, encode, header_at
from aquipu.layout import Damage
from aquipu.postings import (
    BLOCK_BYTES,
    RUN_POSITIONS,
    TRAILER_BYTES,
    VERSION,
    Block,
    Gathering,
    Outline,
    Pace,
    combine,
    encode_blocks,
    outline_at,
    summed,
)

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SEED = 0x5EED5EED
FIRST = 1000
NEXT = 1400
LINK = 0x11111111

Labels = tuple[str, ...]
Postings = Mapping[str, Sequence[int]]

printable = st.characters(exclude_categories=("C", "Z")) | st.just(" ")
words = st.text("ab:", min_size=1, max_size=4) | st.text(printable, min_size=1, max_size=6).filter(str.isprintable)
of_records = st.lists(st.lists(words, max_size=4).map(tuple), max_size=40)
positions = st.sets(st.integers(0, 399), min_size=1, max_size=30).map(sorted)
tables = st.dictionaries(words, positions, max_size=20)


# frames, and what is to be gathered from them


def frame(labels: Sequence[Labels], first_sequence: int = FIRST) -> tuple[Header, bytes]:
    """A frame of records with these labels."""
    payloads = [b"data"] * len(labels)
    given = {index: of_record for index, of_record in enumerate(labels) if of_record}
    encoded = encode(
        payloads,
        [7] * len(labels),
        labels=given,
        first_sequence=first_sequence,
        time=7,
        watermark=0,
        link=0,
        seed=SEED,
    )
    header = header_at(encoded.buffers[0], 0, SEED)
    assert header is not None
    return header, b"".join(encoded.buffers[1:])


def gathered(commits: Iterable[Sequence[Labels]], *, floor: str = "", bytes_max: int | None = None) -> Gathering:
    """What is gathered from these commits."""
    gathering = Gathering(FIRST, floor=floor, bytes_max=bytes_max)
    for labels in commits:
        gathering.take(*frame(labels, gathering.next_sequence))
    return gathering


def expected(labels: Iterable[Labels]) -> dict[str, list[int]]:
    """Where each label stands, in order, from the records themselves."""
    found: dict[str, list[int]] = {}
    for position, of_record in enumerate(labels):
        for label in set(of_record):
            found.setdefault(label, []).append(position)
    return dict(sorted(found.items()))


def drained(gathering: Gathering) -> dict[str, list[int]]:
    """Everything that it holds, in the order in which it gives it."""
    return {label: list(array("I", held)) for label, held in gathering.drain(Pace())}


class Interrupted(Exception):
    """Raised by a pause."""


class Pauses:
    """A pause that counts how often it was called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@contextmanager
def small_blocks() -> Iterator[None]:
    """Tables of many small blocks: one is full with 48 bytes, and a label with more than 3 positions has its own."""
    with patch.multiple("aquipu.postings", BLOCK_BYTES=48, RUN_POSITIONS=3):
        yield


# tables in memory


def outline_for(postings: Postings, seed: int = SEED) -> tuple[Outline, list[bytes]]:
    """The outline of a table for these labels, and its blocks."""
    outline = Outline(NEXT, LINK)
    blocks = []
    for block in encode_blocks((label, array("I", at).tobytes()) for label, at in sorted(postings.items())):
        outline.note(block, seed)
        blocks.append(block.data)
    return outline, blocks


def outline_of(firsts: list[str], sizes: list[int], checks: list[int]) -> Outline:
    """An outline that tells of blocks with these first labels, sizes and checks."""
    outline = Outline(NEXT, LINK)
    outline.labels = outline.postings = len(firsts)
    outline.firsts, outline.sizes, outline.checks = firsts, array("I", sizes), array("I", checks)
    outline.offsets = [0, *accumulate(sizes)]
    return outline


def table_of(postings: Postings, seed: int = SEED) -> bytes:
    """The table for these labels as bytes."""
    outline, blocks = outline_for(postings, seed)
    return b"".join((*blocks, outline.encode(seed)))


def opened(data: bytes, seed: int = SEED) -> Outline:
    """The outline of a table, as it is read from a file."""
    return Outline.decode(data[outline_at(data[-TRAILER_BYTES:], len(data)) :], seed)


def block_of(data: bytes, outline: Outline, n: int, seed: int = SEED) -> Block:
    start, end = outline.offsets[n : n + 2]
    return outline.block(n, data[start:end], seed)


def positions_in(data: bytes, label: str) -> list[int]:
    """Where the table says that the label stands, from the blocks in which it must stand."""
    outline = opened(data)
    found: list[int] = []
    for n in outline.holding(label):
        found += block_of(data, outline, n).positions(label)
    return found


def everything_in(data: bytes) -> dict[str, list[int]]:
    """All that a table says, from all of its blocks."""
    outline = opened(data)
    found: dict[str, list[int]] = {}
    for n in range(outline.blocks):
        for label, at in block_of(data, outline, n).entries():
            found.setdefault(label, []).extend(at)
    return found


def signed(data: bytes, seed: int = SEED) -> bytes:
    """The end of a table with a last field that checks."""
    return data[:-4] + extend(seed, data[:-4]).to_bytes(4, "little")


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def numbers(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


# gathering


@unhurried
@given(of_records, st.lists(st.integers(0, 40)))
def test_whatever_is_gathered(labels: list[Labels], cuts: list[int]) -> None:
    """Each label is found at just the records that were given it, however the records were committed."""
    edges = [0, *sorted(min(cut, len(labels)) for cut in cuts), len(labels)]
    commits = [labels[start:end] for start, end in pairwise(edges)]
    gathering = gathered(commits)
    found = expected(labels)
    assert gathering.next_sequence == FIRST + len(labels)
    assert {label: list(gathering.positions(label)) for label in found} == found
    assert list(gathering.counts()) == [(label, len(at)) for label, at in found.items()]
    assert list(drained(gathering).items()) == list(found.items())
    assert list(gathering.counts()) == []


@unhurried
@given(of_records, words)
def test_a_label_that_nobody_gave(labels: list[Labels], label: str) -> None:
    """It stands nowhere."""
    gathering = gathered([labels])
    assert list(gathering.positions(label)) == expected(labels).get(label, [])


def test_a_label_that_a_record_was_given_twice() -> None:
    """The record is found once, and counts once."""
    gathering = gathered([[("a", "a"), ("b",), ("a", "b", "a")]])
    assert list(gathering.positions("a")) == [0, 2]
    assert list(gathering.counts()) == [("a", 2), ("b", 2)]


@unhurried
@given(of_records, st.text("ab:", max_size=2))
def test_labels_by_prefix_while_they_are_gathered(labels: list[Labels], prefix: str) -> None:
    """Those that begin so are listed, in order, with their counts, and no others."""
    found = [(label, len(at)) for label, at in expected(labels).items() if label.startswith(prefix)]
    assert list(gathered([labels]).counts(prefix)) == found


def test_many_labels_come_in_order() -> None:
    """Also when there are far more than are sorted in one go."""
    labels = [(f"order:{n * 7919 % 10007}", "all") for n in range(10007)]
    listed = list(gathered([labels]).counts())
    assert listed == [("all", 10007), *((label, 1) for label in sorted(of_record[0] for of_record in labels))]


def test_asked_between_two_frames() -> None:
    """A gathering is the index of what it has taken so far; asking it changes nothing, and what was given stays."""
    gathering = gathered([[("a",), ("a", "b")]])
    before = gathering.positions("a")
    assert list(gathering.counts()) == [("a", 2), ("b", 1)]
    gathering.take(*frame([("a",)], FIRST + 2))
    assert (list(before), list(gathering.positions("a"))) == ([0, 1], [0, 1, 2])
    assert list(gathering.counts()) == [("a", 3), ("b", 1)]


def test_records_without_labels() -> None:
    """They take their places: the positions behind them are right."""
    assert list(gathered([[(), ()], [()], [(), ("a",)]]).positions("a")) == [4]


def test_an_empty_frame() -> None:
    """A mark holds nothing and changes nothing."""
    assert list(gathered([[("a",)], [], [("a",)]]).positions("a")) == [0, 1]


@pytest.mark.parametrize("first_sequence", [FIRST - 1, FIRST, FIRST + 2])
def test_another_frame_than_the_next(first_sequence: int) -> None:
    """A frame out of its turn is refused, and nothing of it is taken."""
    gathering = gathered([[("a",)]])
    with pytest.raises(ValueError, match=f"begins with sequence {first_sequence} instead of {FIRST + 1}"):
        gathering.take(*frame([("b",)], first_sequence))
    assert list(gathering.counts()) == [("a", 1)]


def test_a_label_with_a_line_break() -> None:
    """No store takes such a label; one in a frame is refused, because a table could not hold it."""
    with pytest.raises(ValueError, match="line break"):
        gathered([[("a\nb",)]])


def test_a_frame_whose_columns_do_not_fit() -> None:
    """It is refused as it is everywhere."""
    header, body = frame([("a",), ("b",)])
    with pytest.raises(ValueError, match="labels of a frame"):
        Gathering(FIRST).take(header, body[: 12 * 2] + numbers(1) + body[12 * 2 + 4 :])


def test_a_segment_of_too_many_records() -> None:
    """A position is a u32: what does not fit is refused, and the last one that fits is taken."""
    gathering = Gathering(FIRST)
    gathering.next_sequence = FIRST + 2**32 - 1
    with pytest.raises(OverflowError):
        gathering.take(*frame([("a",), ("b",)], FIRST + 2**32 - 1))
    gathering.take(*frame([("a",)], FIRST + 2**32 - 1))
    assert list(gathering.positions("a")) == [2**32 - 1]


def test_the_garbage_collector_has_nothing_to_walk_over() -> None:
    """However many labels there are, what is gathered adds next to nothing to the collector's work."""
    labels = [(f"user:{n}", f"order:{n // 2}", "all") for n in range(5000)]
    commit = frame(labels, FIRST)
    gathering = Gathering(FIRST)
    gc.collect()
    before = len(gc.get_objects())
    gathering.take(*commit)
    gc.collect()
    assert len(gc.get_objects()) - before < 200
    assert len(list(gathering.counts())) == 7501


# gathering in little memory


def passes(labels: Sequence[Labels], bytes_max: int) -> list[dict[str, list[int]]]:
    """What is gathered pass by pass, when so much memory may be used."""
    found = []
    floor: str | None = ""
    while floor is not None:
        gathering = gathered([labels[n : n + 5] for n in range(0, len(labels), 5)], floor=floor, bytes_max=bytes_max)
        floor = gathering.ceiling
        found.append(drained(gathering))
    return found


@unhurried
@given(of_records, st.integers(1, 3000))
def test_in_several_passes(labels: list[Labels], bytes_max: int) -> None:
    """Within any bound, the passes together give every label once, in order, with all its positions."""
    together = [entry for found in passes(labels, bytes_max) for entry in found.items()]
    assert together == list(expected(labels).items())


def test_a_pass_keeps_to_its_bound() -> None:
    """Many labels are divided over several passes, none of which holds many more than fit, nor many fewer."""
    sizes = [len(found) for found in passes([(f"order:{n:05}",) for n in range(2000)], 50_000)]
    assert sum(sizes) == 2000
    assert max(sizes) <= 500
    assert min(sizes[:-1]) >= 100


def test_positions_count_as_well() -> None:
    """The bound holds for labels with many positions each, also for those that stay when others are left out."""
    labels = [(f"order:{n % 200:03}",) for n in range(20_000)]
    sizes = [len(found) for found in passes(labels, 30_000)]
    assert sum(sizes) == 200
    assert max(sizes) <= 30_000 // 400
    in_one_frame = gathered([labels], bytes_max=30_000)
    assert len(drained(in_one_frame)) <= 30_000 // 400


def test_labels_that_are_left_out_take_no_room() -> None:
    """However often one of them comes, the pass keeps what it has."""
    labels = [(f"order:{n:05}",) for n in range(500)] + [("zzz",)] * 20_000
    assert len(passes(labels, 50_000)[0]) >= 100


def test_one_label_that_is_larger_than_the_bound() -> None:
    """It is gathered all the same, in a pass of its own."""
    assert passes([("a", "b")] * 100, 1) == [{"a": list(range(100))}, {"b": list(range(100))}]


def test_enough_memory() -> None:
    """Within the bound, one pass does."""
    assert gathered([[("a",), ("b",)]], bytes_max=10_000).ceiling is None


# pauses


def test_long_work_is_divided() -> None:
    """Gathering a large frame, sorting, and going through many labels let the caller in every few hundred records."""
    labels = [(f"user:{n}", f"order:{n}") for n in range(10_000)]
    gathering = Gathering(FIRST)
    taking, listing, draining = Pauses(), Pauses(), Pauses()
    gathering.take(*frame(labels), Pace(taking))
    list(gathering.counts("", listing))
    list(gathering.drain(Pace(draining)))
    assert taking.count >= 10_000 // 512
    assert listing.count >= 20
    assert draining.count >= 20


def test_many_small_frames_do_not_pause_each() -> None:
    """A pause comes after a stretch of work, not after each frame."""
    pauses = Pauses()
    pace = Pace(pauses)
    gathering = Gathering(FIRST)
    for n in range(1000):
        gathering.take(*frame([("a",)], FIRST + n), pace)
    assert 5 <= pauses.count <= 100


def test_a_pause_that_ends_the_work() -> None:
    """What a pause raises comes out of whatever was under way."""

    def pause() -> None:
        raise Interrupted

    gathering = Gathering(FIRST)
    with pytest.raises(Interrupted):
        gathering.take(*frame([("a",)] * 5000), Pace(pause))
    assert list(gathering.counts()) == [], "the first pause should come when the frame is decoded"


# a table there and back


def test_the_worked_example() -> None:
    """A block is written as the docstring says."""
    (block,) = encode_blocks([("a", array("I", [1, 2, 300]).tobytes()), ("bc", array("I", [2]).tobytes())])
    assert zlib.decompress(block.data) == bytes.fromhex(
        "02 00 00 00  04 00 00 0061 0a 62 6303 01  00 00  00 00  00 0001 01 2a 02  00 00 01 00  00 00 00 00  00 00 00 00"
    )
    assert (block.first, block.labels, block.postings) == ("a", 2, 4)


def test_the_end_of_a_table() -> None:
    """Outline and trailer are written as the docstring says."""
    outline, blocks = outline_for({"a": [1, 2], "b": [3]})
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
    assert outline.encode(SEED) == columns + trailer + numbers(extend(SEED, columns + trailer))
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
        outline = opened(data)
        assert (outline.next_sequence, outline.link) == (NEXT, LINK)
        assert (outline.labels, outline.postings) == (len(postings), sum(map(len, postings.values())))


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
    """The blocks that the outline names hold all labels that begin so, and each block picks them out."""
    with small_blocks():
        data = table_of(postings)
    outline = opened(data)
    found = [entry for n in outline.beginning(prefix) for entry in block_of(data, outline, n).counted(prefix)]
    begin_so = {label: at for label, at in postings.items() if label.startswith(prefix)}
    assert list(summed([found])) == [(label, len(begin_so[label])) for label in sorted(begin_so)]
    assert len(outline.beginning(prefix)) <= len(found) + 1


def test_a_label_with_many_positions() -> None:
    """It has blocks of its own, so that no block grows beyond bound; its neighbours stand in others."""
    postings = {"a": [5], "b": list(range(RUN_POSITIONS * 2 + 10)), "c": [6], "d": list(range(RUN_POSITIONS))}
    outline, blocks = outline_for(postings)
    assert outline.firsts == ["a", "b", "b", "b", "c"]
    assert (outline.labels, outline.postings) == (4, sum(map(len, postings.values())))
    data = table_of(postings)
    assert {label: positions_in(data, label) for label in postings} == postings
    assert max(len(zlib.decompress(block)) for block in blocks) <= 3 * BLOCK_BYTES


def test_a_block_is_about_as_large_as_it_should_be() -> None:
    """So that a look-up reads little, and the outline stays small."""
    outline, blocks = outline_for({f"order:{n:06}": [n] for n in range(20_000)})
    sizes = [len(zlib.decompress(block)) for block in blocks]
    assert all(BLOCK_BYTES * 0.9 < size < BLOCK_BYTES * 1.1 for size in sizes[:-1])
    assert len(outline.firsts) == len(sizes)


def test_positions_as_large_as_they_can_be() -> None:
    """A position is a u32, and the steps between two labels go back and forth over all of its range."""
    postings = {"a": [0, 2**32 - 1], "b": [2**31, 2**32 - 1], "c": [0]}
    assert everything_in(table_of(postings)) == postings


# damage


SOUND = outline_of(["a", "b"], [10, 10], [1, 2])

SPECIMEN: Postings = {
    "a": [0, 1, 2, 3, 4, 250, 399],
    "b": [7],
    "document:42": [1, 398],
    "user:7": [0, 1, 3],
    "user:8": [2],
    "\u00e4\u4e16": [9, 11],
}


def specimen() -> bytes:
    with small_blocks():
        return table_of(SPECIMEN)


def truth_or_damage(read: Callable[[], object], truth: object) -> bool:
    """Whether reading told the truth; False for Damage, and anything else fails the test."""
    try:
        found = read()
    except Damage:
        return False
    assert found == truth
    return True


def test_the_specimen_has_what_a_table_can_have() -> None:
    """Several blocks, a label over several of them, several labels in one, and letters of more than one byte."""
    outline = opened(specimen())
    assert outline.blocks >= 5
    assert len(set(outline.firsts)) < outline.blocks
    assert len(set(outline.firsts)) < len(SPECIMEN)


def test_every_bit_of_a_table() -> None:
    """A flipped bit is noticed by whoever reads the part that it is in; nobody gets a wrong or a missing answer."""
    data = specimen()
    for bit in range(8 * len(data)):
        changed = flipped(data, bit)
        assert not truth_or_damage(lambda changed=changed: everything_in(changed), None)  # type: ignore[misc]
        for label in (*SPECIMEN, "absent", "user:"):
            truth_or_damage(lambda changed=changed, label=label: positions_in(changed, label), SPECIMEN.get(label, []))  # type: ignore[misc]


def test_every_cut_of_a_table() -> None:
    """A table that lost its end is damaged, and so is one with zeros in its place or something behind it."""
    data = specimen()
    for size in range(len(data)):
        for changed in (data[:size], data[:size].ljust(len(data), b"\0"), data + data[: size + 1]):
            if changed != data:
                assert not truth_or_damage(lambda changed=changed: opened(changed), None)  # type: ignore[misc]


def test_every_run_of_bytes_that_is_missing() -> None:
    """A table out of which some bytes were taken is damaged."""
    data = specimen()
    for start in range(0, len(data), 3):
        for end in range(start + 1, len(data) + 1, 5):
            changed = data[:start] + data[end:]
            assert not truth_or_damage(lambda changed=changed: everything_in(changed), None)  # type: ignore[misc]


def test_the_blocks_of_another_table() -> None:
    """Blocks that are sound by themselves do not pass in a table that was not written with them."""
    other = {label: [*at, 399] if at[-1] != 399 else at[:-1] for label, at in SPECIMEN.items()}
    with small_blocks():
        blocks = outline_for(other)[1]
        outline, own = outline_for(SPECIMEN)
    for n, block in enumerate(own):
        assert outline.block(n, block, SEED).labels
        for another in (*blocks, *own[:n], *own[n + 1 :]):
            if another != block:
                with pytest.raises(Damage):
                    outline.block(n, another, SEED)


def test_the_table_of_another_segment() -> None:
    """Every check starts from the segment's seed, so another segment's table does not pass, nor does a block of it."""
    data = table_of(SPECIMEN, SEED + 1)
    with pytest.raises(Damage, match="belongs to another segment"):
        opened(data)
    outline, (block,) = outline_for({"a": [1]}, SEED + 1)
    with pytest.raises(Damage):
        outline.block(0, block, SEED)


@pytest.mark.parametrize(("offset", "value"), [(8, VERSION + 1), (8, 0), (12, 1)])
def test_a_later_version(offset: int, value: int) -> None:
    """It is no table that this version can use; it is made anew."""
    tail = SOUND.encode(SEED)
    at = len(tail) - TRAILER_BYTES + offset
    with pytest.raises(Damage, match="not known here"):
        Outline.decode(signed(tail[:at] + numbers(value) + tail[at + 4 :]), SEED)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "does not end as one", id="nothing"),
        pytest.param(bytes(TRAILER_BYTES), "does not end as one", id="zeros"),
        pytest.param(b"aquipuRE" + b"\xff" * (TRAILER_BYTES - 8), "shorter than it says", id="an end beyond the file"),
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
        pytest.param(19 + 48, numbers(21), id="the outline stands elsewhere"),
    ],
)
def test_an_outline_that_does_not_fit_itself(offset: int, changed: bytes) -> None:
    """It has as many sizes, checks and labels as blocks, and these fill the file up to it; a right check is not enough."""
    tail = SOUND.encode(SEED)
    assert vars(Outline.decode(tail, SEED)) == vars(SOUND)
    with pytest.raises(Damage, match="outline of the index"):
        Outline.decode(signed(tail[:offset] + changed + tail[offset + len(changed) :]), SEED)


def raw_block(labels: int, text: bytes, counts: Sequence[int], steps: Sequence[int], size: int | None = None) -> bytes:
    """A block of these parts, before it is compressed."""
    columns = [b"".join(bytes([n >> 8 * place & 255]) for n in column) for column in (counts, steps) for place in range(4)]
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
        pytest.param(zlib.compress(raw_block(3, b"a\nb", [2, 1, 1], [0, 1, 4, 5])), id="a label too few"),
        pytest.param(zlib.compress(raw_block(1, b"a\nb", [2], [0, 1])), id="a label too many"),
        pytest.param(zlib.compress(raw_block(1, b"\xff", [1], [1])), id="no UTF-8"),
        pytest.param(zlib.compress(raw_block(1, b"a", [], [])), id="no counts"),
        pytest.param(zlib.compress(raw_block(2, b"a\nb", [2, 1], [0, 1])), id="a position too few"),
        pytest.param(zlib.compress(raw_block(2, b"a\nb", [2, 1], [0, 1, 4, 5])), id="a position too many"),
        pytest.param(zlib.compress(raw_block(1, b"a", [2], [1, 1], size=1000)), id="text beyond the block"),
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
def test_a_block_with_labels_that_belong_elsewhere(firsts: list[str], n: int, labels: list[str]) -> None:
    """It is damage: a label that stands in another block than it must would not be found."""
    data = zlib.compress(raw_block(len(labels), "\n".join(labels).encode(), [1] * len(labels), [1] * len(labels)))
    outline = outline_of(firsts, [len(data)] * 2, [extend(SEED, data)] * 2)
    with pytest.raises(Damage, match="other labels than it should"):
        outline.block(n, data, SEED)


# several labels


@unhurried
@given(st.lists(st.sets(st.integers(0, 100)).map(sorted), max_size=4), st.booleans())
def test_several_labels_together(columns: list[list[int]], every: bool) -> None:
    """All or any of them, in order, each position once, whether it is done in one go or piece by piece."""
    together = set[int]() if not columns else set(columns[0])
    for column in columns:
        together = together & set(column) if every else together | set(column)
    arrays = [array("I", column) for column in columns]
    for window in (1, 7, 4096):
        with patch("aquipu.postings._WINDOW", window):
            assert list(combine(arrays, every=every)) == sorted(together)


def test_many_positions_are_combined_piece_by_piece() -> None:
    """The caller is let in between the pieces, and may end the work there."""
    many = [array("I", range(0, 100_000, 2)), array("I", range(0, 100_000, 3))]
    pauses = Pauses()
    assert list(combine(many, every=True, pause=pauses)) == list(range(0, 100_000, 6))
    assert pauses.count >= 20


def test_a_label_that_stands_nowhere_ends_it() -> None:
    """With one of all labels missing there is nothing to look for, however often the others stand."""
    pauses = Pauses()
    assert list(combine([array("I", range(100_000)), array("I")], every=True, pause=pauses)) == []
    assert pauses.count == 0


@unhurried
@given(st.lists(st.dictionaries(words, st.integers(1, 1000)), max_size=4))
def test_counts_of_several_segments(counts: list[dict[str, int]]) -> None:
    """They are added up label by label, in order."""
    total: dict[str, int] = {}
    for of_segment in counts:
        for label, number in of_segment.items():
            total[label] = total.get(label, 0) + number
    assert list(summed(sorted(of_segment.items()) for of_segment in counts)) == sorted(total.items())
