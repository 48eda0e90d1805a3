"""What labels are gathered from frames, while they come and afterwards."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Iterable, Sequence
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.local.format.frame import Header, encode, header_at
from aquipu.local.index.meter import Meter
from aquipu.local.index.postings import PostingsBuilder, add_counts, combine
from tests.local.labelled import SEED, numbers, unhurried, words

FIRST = 1000

Labels = tuple[str, ...]

of_records = st.lists(st.lists(words, max_size=4).map(tuple), max_size=40)


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


def gathered(
    commits: Iterable[Sequence[Labels]], *, floor: str = "", bytes_max: int | None = None
) -> PostingsBuilder:
    """What is gathered from these commits."""
    builder = PostingsBuilder(FIRST, floor=floor, bytes_max=bytes_max)
    for labels in commits:
        builder.take(*frame(labels, builder.next_sequence))
    return builder


def expected(labels: Iterable[Labels]) -> dict[str, list[int]]:
    """Where each label stands, in order, from the records themselves."""
    found: dict[str, list[int]] = {}
    for position, of_record in enumerate(labels):
        for label in set(of_record):
            found.setdefault(label, []).append(position)
    return dict(sorted(found.items()))


def drained(builder: PostingsBuilder) -> dict[str, list[int]]:
    """Everything that it holds, in the order in which it gives it."""
    return {label: list(array("I", held)) for label, held in builder.drain(Meter())}


class Interrupted(Exception):
    """Raised by a pause."""


class Pauses:
    """A pause that counts how often it was called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


# gathering


@unhurried
@given(of_records, st.lists(st.integers(0, 40)))
def test_whatever_is_gathered(labels: list[Labels], cuts: list[int]) -> None:
    """Each label is found at just the records that were given it, however the records were
    committed.
    """
    edges = [0, *sorted(min(cut, len(labels)) for cut in cuts), len(labels)]
    commits = [labels[start:end] for start, end in pairwise(edges)]
    builder = gathered(commits)
    found = expected(labels)
    assert builder.next_sequence == FIRST + len(labels)
    assert {label: list(builder.positions(label)) for label in found} == found
    assert list(builder.counts()) == [(label, len(at)) for label, at in found.items()]
    assert list(drained(builder).items()) == list(found.items())
    assert list(builder.counts()) == []


@unhurried
@given(of_records, words)
def test_a_label_that_nobody_gave(labels: list[Labels], label: str) -> None:
    """It stands nowhere."""
    builder = gathered([labels])
    assert list(builder.positions(label)) == expected(labels).get(label, [])


def test_a_label_that_a_record_was_given_twice() -> None:
    """The record is found once, and counts once."""
    builder = gathered([[("a", "a"), ("b",), ("a", "b", "a")]])
    assert list(builder.positions("a")) == [0, 2]
    assert list(builder.counts()) == [("a", 2), ("b", 2)]


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
    assert listed == [
        ("all", 10007),
        *((label, 1) for label in sorted(of_record[0] for of_record in labels)),
    ]


def test_asked_between_two_frames() -> None:
    """A builder is the index of what it has taken so far; asking it changes nothing, and what was
    given stays.
    """
    builder = gathered([[("a",), ("a", "b")]])
    before = builder.positions("a")
    assert list(builder.counts()) == [("a", 2), ("b", 1)]
    builder.take(*frame([("a",)], FIRST + 2))
    assert (list(before), list(builder.positions("a"))) == ([0, 1], [0, 1, 2])
    assert list(builder.counts()) == [("a", 3), ("b", 1)]


def test_records_without_labels() -> None:
    """They take their places: the positions behind them are right."""
    assert list(gathered([[(), ()], [()], [(), ("a",)]]).positions("a")) == [4]


def test_an_empty_frame() -> None:
    """A mark holds nothing and changes nothing."""
    assert list(gathered([[("a",)], [], [("a",)]]).positions("a")) == [0, 1]


@pytest.mark.parametrize("first_sequence", [FIRST - 1, FIRST, FIRST + 2])
def test_another_frame_than_the_next(first_sequence: int) -> None:
    """A frame out of its turn is refused, and nothing of it is taken."""
    builder = gathered([[("a",)]])
    with pytest.raises(
        ValueError, match=f"begins with sequence {first_sequence} instead of {FIRST + 1}"
    ):
        builder.take(*frame([("b",)], first_sequence))
    assert list(builder.counts()) == [("a", 1)]


def test_a_label_with_a_line_break() -> None:
    """No store takes such a label; one in a frame is refused, because a table could not hold it."""
    with pytest.raises(ValueError, match="line break"):
        gathered([[("a\nb",)]])


def test_a_frame_whose_columns_do_not_fit() -> None:
    """It is refused as it is everywhere."""
    header, body = frame([("a",), ("b",)])
    with pytest.raises(ValueError, match="labels of a frame"):
        PostingsBuilder(FIRST).take(header, body[: 12 * 2] + numbers(1) + body[12 * 2 + 4 :])


def test_a_segment_of_too_many_records() -> None:
    """A position is a u32: what does not fit is refused, and the last one that fits is taken."""
    builder = PostingsBuilder(FIRST)
    builder.next_sequence = FIRST + 2**32 - 1
    with pytest.raises(OverflowError):
        builder.take(*frame([("a",), ("b",)], FIRST + 2**32 - 1))
    builder.take(*frame([("a",)], FIRST + 2**32 - 1))
    assert list(builder.positions("a")) == [2**32 - 1]


def test_the_garbage_collector_has_nothing_to_walk_over() -> None:
    """However many labels there are, what is gathered adds almost no work for the collector."""
    labels = [(f"user:{n}", f"order:{n // 2}", "all") for n in range(5000)]
    commit = frame(labels, FIRST)
    builder = PostingsBuilder(FIRST)
    gc.collect()
    before = len(gc.get_objects())
    builder.take(*commit)
    gc.collect()
    assert len(gc.get_objects()) - before < 200
    assert len(list(builder.counts())) == 7501


# builder in little memory


def passes(labels: Sequence[Labels], bytes_max: int) -> list[dict[str, list[int]]]:
    """What is gathered pass by pass, when so much memory may be used."""
    found = []
    floor: str | None = ""
    while floor is not None:
        builder = gathered(
            [labels[n : n + 5] for n in range(0, len(labels), 5)], floor=floor, bytes_max=bytes_max
        )
        floor = builder.ceiling
        found.append(drained(builder))
    return found


@unhurried
@given(of_records, st.integers(1, 3000))
def test_in_several_passes(labels: list[Labels], bytes_max: int) -> None:
    """Within any bound, the passes together give every label once, in order, with all its
    positions.
    """
    together = [entry for found in passes(labels, bytes_max) for entry in found.items()]
    assert together == list(expected(labels).items())


def test_a_pass_keeps_to_its_bound() -> None:
    """Many labels are divided over several passes, none of which holds many more than fit, nor many
    fewer.
    """
    sizes = [len(found) for found in passes([(f"order:{n:05}",) for n in range(2000)], 50_000)]
    assert sum(sizes) == 2000
    assert max(sizes) <= 500
    assert min(sizes[:-1]) >= 100


def test_positions_count_as_well() -> None:
    """The bound holds for labels with many positions each, also for those that stay when others are
    left out.
    """
    labels = [(f"order:{n % 200:03}",) for n in range(20_000)]
    sizes = [len(found) for found in passes(labels, 30_000)]
    assert sum(sizes) == 200
    assert max(sizes) <= 30_000 // 400
    in_one_frame = gathered([labels], bytes_max=30_000)
    assert len(drained(in_one_frame)) <= 30_000 // 400


def test_labels_that_are_left_out_take_no_room() -> None:
    """However often one of them comes, the pass keeps what it has."""
    labels = [(f"order:{n:05}",) for n in range(500)] + [("zzz",)] * 5_000
    assert len(passes(labels, 50_000)[0]) >= 100


def test_one_label_that_is_larger_than_the_bound() -> None:
    """It is gathered all the same, in a pass of its own."""
    assert passes([("a", "b")] * 100, 1) == [{"a": list(range(100))}, {"b": list(range(100))}]


def test_enough_memory() -> None:
    """Within the bound, one pass does."""
    assert gathered([[("a",), ("b",)]], bytes_max=10_000).ceiling is None


# pauses


def test_long_work_is_divided() -> None:
    """Gathering a large frame, sorting, and going through many labels let the caller in every few
    hundred records.
    """
    labels = [(f"user:{n}", f"order:{n}") for n in range(10_000)]
    builder = PostingsBuilder(FIRST)
    taking, listing, draining = Pauses(), Pauses(), Pauses()
    builder.take(*frame(labels), Meter(taking))
    list(builder.counts("", listing))
    list(builder.drain(Meter(draining)))
    assert taking.count >= 10_000 // 512
    assert listing.count >= 20
    assert draining.count >= 20


def test_many_small_frames_do_not_pause_each() -> None:
    """A pause comes after a stretch of work, not after each frame."""
    pauses = Pauses()
    meter = Meter(pauses)
    builder = PostingsBuilder(FIRST)
    for n in range(1000):
        builder.take(*frame([("a",)], FIRST + n), meter)
    assert 5 <= pauses.count <= 100


def test_a_pause_that_ends_the_work() -> None:
    """What a pause raises comes out of whatever was under way."""

    def pause() -> None:
        raise Interrupted

    builder = PostingsBuilder(FIRST)
    with pytest.raises(Interrupted):
        builder.take(*frame([("a",)] * 5000), Meter(pause))
    assert list(builder.counts()) == [], "the first pause should come when the frame is decoded"


# several labels


@unhurried
@given(st.lists(st.sets(st.integers(0, 100)).map(sorted), max_size=4), st.booleans())
def test_several_labels_together(columns: list[list[int]], every: bool) -> None:
    """All or any of them, in order, each position once, whether it is done in one go or piece by
    piece.
    """
    together = set[int]() if not columns else set(columns[0])
    for column in columns:
        together = together & set(column) if every else together | set(column)
    arrays = [array("I", column) for column in columns]
    for window in (1, 7, 4096):
        with patch("aquipu.local.index.postings._WINDOW", window):
            assert list(combine(arrays, every=every)) == sorted(together)


def test_many_positions_are_combined_piece_by_piece() -> None:
    """The caller is let in between the pieces, and may end the work there."""
    many = [array("I", range(0, 100_000, 2)), array("I", range(0, 100_000, 3))]
    pauses = Pauses()
    assert list(combine(many, every=True, pause=pauses)) == list(range(0, 100_000, 6))
    assert pauses.count >= 20


def test_a_label_that_stands_nowhere_ends_it() -> None:
    """With one label missing there is nothing to look for, however often the others stand."""
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
    added: dict[str, int] = {}
    for of_segment in counts:
        add_counts(added, (of_segment.keys(), of_segment.values()))
    assert added == total
