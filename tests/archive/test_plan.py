"""What is put into an archive next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu.archive.format.entry import EntryKind, Head, Piece
from aquipu.archive.format.plan import (
    KEPT_NUMBERS,
    PART_BYTES_MAX,
    Local,
    Refused,
    Step,
    fold,
    grown,
    named,
    outdated,
    step,
    young_end,
)

HEAD = Head(EntryKind.FENCE, 7, 1, bytes(16), 0, "", None, 10, 10, 10)
LOG = [Local(10, True), Local(20, True), Local(30, False)]


def test_sealed_segments_come_first_and_in_order() -> None:
    """Each sealed segment is put in its turn, and then the young end."""
    assert step(HEAD, LOG, 35) is Step.SEGMENT
    assert step(HEAD._replace(base=20, next_sequence=20), LOG, 35) is Step.SEGMENT
    assert step(HEAD._replace(base=30, next_sequence=30), LOG, 35) is Step.YOUNG
    assert step(HEAD._replace(base=30, next_sequence=35), LOG, 35) is None


def test_a_segment_is_put_though_all_of_it_was_young() -> None:
    """When it has been sealed, its object takes the place of its young parts."""
    piece = Piece(3, 20, 30, 64, 100)
    assert step(HEAD._replace(base=20, next_sequence=30, young=(piece,)), LOG, 30) is Step.SEGMENT


def test_a_segment_that_was_sealed_and_purged_when_all_of_it_was_archived() -> None:
    """Nothing is missing: it is made of its young parts."""
    piece = Piece(3, 5, 10, 64, 100)
    assert step(HEAD._replace(base=5, young=(piece,)), LOG, 35) is Step.OWN


@pytest.mark.parametrize(
    ("head", "log", "words"),
    [
        (HEAD._replace(base=5, next_sequence=8), LOG, "has purged its records up to sequence 9"),
        (HEAD._replace(base=30, next_sequence=36), LOG, "reaches up to sequence 35, which"),
        (HEAD._replace(base=15, next_sequence=15), LOG, "gone on apart"),
    ],
)
def test_an_archive_of_something_else(head: Head, log: list[Local], words: str) -> None:
    """What cannot follow what is archived is refused: nothing is ever left out, or written over."""
    with pytest.raises(Refused, match=words):
        step(head, log, 35)


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=400))
def test_few_young_parts_are_alive(news: list[int]) -> None:
    """However much comes each second, few parts are alive, and they are all that has come."""
    head = HEAD
    for number, size in enumerate(news):
        folded = fold([piece.size for piece in head.young], size)
        start, offset = young_end(head)
        for piece in head.young[len(head.young) - folded :][:1]:
            start, offset = piece.first_sequence, piece.offset
        end = young_end(head)[1] + size
        piece = Piece(number, start, head.next_sequence + 1, offset, end - offset)
        head = head._replace(young=grown(head, piece, folded), next_sequence=head.next_sequence + 1)
    assert young_end(head) == (HEAD.base + len(news), 64 + sum(news))
    assert [a.end for a in head.young][:-1] == [b.offset for b in head.young][1:]
    assert len(head.young) <= 7 * 5 + 2 * sum(news) // PART_BYTES_MAX
    assert all(piece.size <= PART_BYTES_MAX for piece in head.young)


def test_a_byte_travels_a_few_times() -> None:
    """Of parts of the same size, each byte is put again once for each eightfold growth."""
    sizes: list[int] = []
    put = 0
    for _ in range(8**4):
        folded = fold(sizes, 5000)
        made = 5000 + sum(sizes[len(sizes) - folded :])
        sizes[len(sizes) - folded :] = [made]
        put += made
    assert put / (8**4 * 5000) < 5


def test_entries_stay_for_a_while() -> None:
    """Removed is what nothing names, and is a hundred numbers old; never the first entry."""
    young = (Piece(40, 0, 1, 64, 1), Piece(200, 1, 2, 65, 1))
    head = HEAD._replace(number=200, listed=30, young=young)
    assert named(head) == {30, 40, 200}
    gone = outdated(head, set(range(201)) - named(head))
    assert gone == [n for n in range(1, 200 - KEPT_NUMBERS + 1) if n not in (30, 40)]
