"""group: batches that expect a sequence leave the commit in which they would get another."""

from __future__ import annotations

from aquipu.commit.buffer import COMMIT_BYTES, Pending
from aquipu.commit.group import GroupCommit
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from tests.commit.situations import add, complete, group_of, submitted, wait


def expect(group: GroupCommit[str], name: str, expected: int, records: int = 1) -> None:
    """A batch that expects a sequence is accepted."""
    payloads = [name.encode()] * records
    pending: Pending[str] = Pending(
        payloads, records, {0: ("a:1",)}, Stage.FLUSHED, name, True, (b"w" * 16, 1), expected
    )
    assert group.add_batch(pending, 0)


def refuse_first(policy: SyncPolicy | None = None) -> GroupCommit[str]:
    """A group whose first record is under way and will be refused, behind three that are stored."""
    group = group_of(policy or OsManaged(), next_sequence=3, size=4 * COMMIT_BYTES)
    add(group, "refused")
    submitted(group)
    return group


def test_what_comes_next() -> None:
    """What is under way, accepted, or waits for room counts."""
    group = group_of(OsManaged(), next_sequence=3, records=2)
    assert group.upcoming == 3
    add(group, "a")
    submitted(group)
    add(group, "b")
    wait(group, "c", "d")
    assert group.upcoming == 7
    complete(group)
    assert group.upcoming == 7


def test_nothing_was_refused() -> None:
    """Who expects what it gets stays in the commit."""
    group = refuse_first()
    expect(group, "x", 4, records=2)
    expect(group, "y", 6)
    complete(group)
    submitted(group)
    assert group.conflicts() == []
    assert group.settle([])
    commit = group.under_way
    assert commit is not None
    assert (commit.waiters, commit.expected) == (["x", None, "y"], {})


def test_something_was_refused() -> None:
    """All that expect a sequence leave with their labels and keys, and the others move up."""
    group = refuse_first()
    expect(group, "x", 4, records=2)
    add(group, "plain")
    expect(group, "y", 7)
    group.refuse()
    submitted(group)
    assert group.conflicts() == [0, 3]
    assert group.settle([0, 3])
    commit = group.under_way
    assert commit is not None
    assert (commit.waiters, commit.labels, commit.keys, commit.batches) == (["plain"], {}, [], {})
    assert commit.accepted is commit.timestamps
    assert (group.buffered_records, group.buffered_bytes) == (1, 5)
    assert [receipt.sequence for receipt in complete(group)] == [3]


def test_one_that_came_when_it_was_refused_already() -> None:
    """It has counted those that leave the commit before it, and so is one of them."""
    group = refuse_first()
    assert group.add(b"large", COMMIT_BYTES, (), Stage.FLUSHED, "large", 0)
    expect(group, "x", 5)
    group.refuse()
    submitted(group)  # that of the large one
    expect(group, "late", group.upcoming)
    complete(group)
    submitted(group)
    assert group.conflicts() == [0, 1]


def test_nothing_is_left() -> None:
    """None is under way then, unless somebody waits for the commit as a whole."""
    group = refuse_first()
    expect(group, "x", 4)
    group.refuse()
    submitted(group)
    assert not group.settle(group.conflicts())
    assert group.under_way is None
    assert group.buffered_records == 0
    add(group, "refused")
    submitted(group)
    expect(group, "y", 4)
    group.barrier(Stage.SYNCED, "sync")
    group.refuse()
    expect(group, "z", 9)
    group.barrier(Stage.SYNCED, "sync")
    commit = submitted(group)
    assert group.settle(group.conflicts())
    assert (commit.payloads, commit.barriers, commit.sync) == ([], ["sync"], True)


def test_whether_it_is_synced_is_decided_anew() -> None:
    """What has left the commit does not count for the policy."""
    group = refuse_first(EveryN(2))
    expect(group, "x", 4)
    add(group, "plain", stage=Stage.FLUSHED)
    group.refuse()
    commit = submitted(group)
    assert commit.sync
    group.settle(group.conflicts())
    assert not commit.sync


def test_a_loop_that_is_gone() -> None:
    """What expects a sequence is not written: nobody can say any more whether it gets it."""
    group = refuse_first(Always())
    add(group, "a")
    expect(group, "x", 5, records=2)
    add(group, "b")
    (left,) = group.remaining()
    assert (left.waiters, left.sync) == (["a", "b"], True)


def test_records_beside_the_commits() -> None:
    """A sync is due for them, though all commits are synced; refused, it is still due."""
    group = group_of(OsManaged())
    assert not group.barrier(Stage.SYNCED, "sync")
    group.is_beside = True
    for ended in (group.refuse, group.abandon, lambda: complete(group)):
        assert group.barrier(Stage.SYNCED, "sync")
        commit = submitted(group)
        assert commit.sync
        assert not group.is_beside
        ended()
        assert group.is_beside == (ended in (group.refuse, group.abandon))
    assert not group.barrier(Stage.SYNCED, "sync")


def test_records_beside_a_sync_that_is_under_way() -> None:
    """That may have begun before they came: they need another one."""
    group = group_of(OsManaged())
    add(group, "a", stage=Stage.SYNCED)
    submitted(group)
    group.is_beside = True
    assert group.barrier(Stage.SYNCED, "sync")
    assert complete(group)
    assert submitted(group).barriers == ["sync"]
