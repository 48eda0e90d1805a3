"""plan: what a backup copies, decided from two lists of segments."""

from __future__ import annotations

import pytest

from aquipu.local.backup.plan import Held, Plan, Refused, plan


def sealed(first: int, following: int) -> Held:
    """A sealed segment of a log in which each segment knows the end of the one before."""
    return Held(first, following, follows=first, link=following, is_sealed=True)


def growing(first: int, following: int, last: tuple[int, int] | None = None) -> Held:
    """The segment that is being written, or was, when an earlier backup was made."""
    return Held(first, following, follows=first, link=0, is_sealed=False, last=last)


STORE = [sealed(0, 10), sealed(10, 20), sealed(20, 30), growing(30, 35)]


def copied(decided: Plan) -> list[int]:
    return [one.segment.first_sequence for one in decided.copied]


def test_a_new_backup() -> None:
    """Everything is copied, in the order of the log, each segment with its successor's name."""
    decided = plan(STORE, [], None)
    assert (decided.first_sequence, copied(decided)) == (0, [0, 10, 20, 30])
    assert [one.successor for one in decided.copied] == [10, 20, 30, None]
    assert [one.needs for one in decided.copied] == [None] * 4


def test_a_backup_of_a_log_that_was_purged() -> None:
    """It begins where the log does."""
    decided = plan(STORE[2:], [], None)
    assert (decided.first_sequence, copied(decided)) == (20, [20, 30])


def test_what_is_there_is_not_copied_again() -> None:
    """Sealed segments never change; the last one is copied over what an earlier backup has."""
    held = [*STORE[:2], growing(20, 25, last=(64, 4711))]
    decided = plan(STORE, held, 0)
    assert copied(decided) == [20, 30]
    assert [one.needs for one in decided.copied] == [held[-1], None]


def test_nothing_has_come() -> None:
    """The last segment is copied all the same, and must hold what the backup has."""
    held = [*STORE[:3], growing(30, 35, last=(64, 4711))]
    decided = plan(STORE, held, 0)
    assert copied(decided) == [30]
    assert decided.copied[0].needs == held[-1]


def test_a_segment_that_is_missing_in_the_backup() -> None:
    """A backup that was cut short is completed, wherever it lacks something."""
    assert copied(plan(STORE, [STORE[0], STORE[2], STORE[3]], 0)) == [10, 30]


def test_what_the_store_has_purged_stays_in_the_backup() -> None:
    """The backup begins where it did, and goes on where it ends."""
    decided = plan(STORE[2:], STORE[:2], 0)
    assert (decided.first_sequence, copied(decided)) == (0, [20, 30])


def test_what_the_store_has_sealed_and_purged_is_sealed_in_the_backup() -> None:
    """When the backup has all its records; the next segment says with which frame it ended."""
    decided = plan(STORE[2:], [STORE[0], growing(10, 20)], 0)
    assert decided.ended == (10, 20, STORE[2].follows)
    assert (decided.first_sequence, copied(decided)) == (0, [20, 30])


def test_what_was_sealed_before_a_mark_is_sealed_anew_in_the_backup() -> None:
    """The store has purged it, and the next segment says that it ended with another frame."""
    decided = plan(STORE[1:], [Held(0, 10, follows=0, link=11, is_sealed=True)], 0)
    assert decided.ended == (0, 10, STORE[1].follows)


def test_a_backup_that_was_purged_itself() -> None:
    """What was purged there is not brought back."""
    decided = plan(STORE, [STORE[1], STORE[2]], 10)
    assert (decided.first_sequence, copied(decided)) == (10, [30])


def test_only_what_a_successor_with_records_follows_may_be_linked() -> None:
    """A writer of the backup goes on in the last segment that holds a record."""
    store = [sealed(0, 10), sealed(10, 20), growing(20, 20)]
    assert [one.may_link for one in plan(store, [], None).copied] == [True, False, False]
    assert [one.may_link for one in plan(STORE, [], None).copied] == [True, True, True, False]


def test_an_empty_segment_that_the_store_does_not_have() -> None:
    """A roll that was undone in the store is undone in the backup."""
    store = [sealed(0, 10), growing(10, 25)]
    held = [sealed(0, 10), sealed(10, 20)._replace(last=(64, 7)), growing(20, 20)]
    decided = plan(store, held, 0)
    assert (list(decided.removed), copied(decided)) == ([20], [10])
    assert decided.copied[0].needs == held[1]


@pytest.mark.parametrize(
    ("store", "held", "kept_from", "reason"),
    [
        (STORE, [*STORE[:3], growing(30, 36)], 0, "it reaches up to sequence 35"),
        (STORE[:1], STORE[1:2], 10, "it reaches up to sequence 19"),
        (STORE, [sealed(0, 10), sealed(10, 15), growing(15, 18)], 0, "segment 15 .* gone on apart"),
        (STORE, [sealed(0, 10), sealed(10, 22)], 0, "segment 10 .* gone on apart"),
        (STORE[2:], STORE[:1], 0, "purged .* up to sequence 19, .* only before sequence 10"),
        (STORE[2:], [STORE[0], growing(10, 19)], 0, "purged .* only before sequence 19"),
        (STORE[2:], [], 0, "purged .* only before sequence 0"),
    ],
)
def test_what_does_not_go_together(
    store: list[Held], held: list[Held], kept_from: int, reason: str
) -> None:
    """A backup that reaches further, has gone on apart or has a gap is refused, with the reason."""
    with pytest.raises(Refused, match=reason):
        plan(store, held, kept_from)
