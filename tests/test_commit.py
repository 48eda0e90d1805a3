"""commit.py: who leaves together and who has arrived.

Named situations first; then `Engine`, which does at random whatever a store may do to a GroupCommit and keeps a naive
account of it: plain lists of calls, searched and summed afresh each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from aquipu.commit import COMMIT_BYTES, Commit, GroupCommit, Landing, Pending
from aquipu.frame import Key
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from aquipu.record import Receipt

MIB = 1024 * 1024

# situations


def group_of(policy: SyncPolicy, *, next_sequence: int = 0, records: int = 100, size: int = 1000) -> GroupCommit[str]:
    """A group in which waiters are names."""
    return GroupCommit(
        policy, next_sequence=next_sequence, synced_sequence=next_sequence, buffer_records=records, buffer_bytes=size
    )


def add(group: GroupCommit[str], *names: str, stage: Stage | None = None, now: int = 0) -> None:
    """Accept a record for each of these waiters, named by itself."""
    for name in names:
        assert group.add(name.encode(), len(name), (), stage or group.policy.stage, name, now)


def add_batch(group: GroupCommit[str], name: str, *payloads: bytes, stage: Stage = Stage.FLUSHED) -> None:
    assert group.add_batch(batch_of(name, *payloads, stage=stage), 0)


def batch_of(
    name: str,
    *payloads: bytes,
    stage: Stage = Stage.FLUSHED,
    labels: tuple[str, ...] = (),
    key: tuple[bytes, int] | None = None,
) -> Pending[str]:
    of_each = dict.fromkeys(range(len(payloads)), labels) if labels else {}
    return Pending(payloads, sum(map(len, payloads)), of_each, stage, name, True, key)


def departed(group: GroupCommit[str]) -> Commit[str]:
    commit = group.depart()
    assert commit is not None
    return commit


def land(group: GroupCommit[str]) -> list[Receipt]:
    """The commit under way arrives, having reached the stage that it owes."""
    commit = group.under_way
    assert commit is not None
    first = group.next_sequence
    end = first + len(commit)
    arrived = group.arrive(Landing(end, end if commit.sync else group.synced_sequence, 0))
    assert arrived is commit
    return list(arrived.receipts(first))


def wait(group: GroupCommit[str], *names: str) -> None:
    """Records of one byte that find no room line up."""
    for name in names:
        assert not group.add(name.encode(), 1, (), Stage.FLUSHED, name, 0)
        group.wait(Pending([name.encode()], 1, {}, Stage.FLUSHED, name, False))


def taken(group: GroupCommit[str], *names: str, now: int = 0) -> list[str]:
    """Which of these the forming commit takes by itself."""
    assert group.forming is not None
    return [name for name in names if group.forming.take(name.encode(), name, now)]


def send(group: GroupCommit[str], *names: str, stage: Stage | None = None) -> bool:
    """A commit of these records, there and back; whether it was synced."""
    add(group, *names, stage=stage)
    synced = departed(group).sync
    land(group)
    return synced


def nobody_is_gone(waiter: str) -> bool:
    return False


def test_a_commit_takes_by_itself_only_what_it_was_told() -> None:
    """Before it is opened nothing; then as many records and bytes as there was room for, and none earlier than the last."""
    group = group_of(Always(), records=4, size=6)
    add(group, "u")
    departed(group)
    add(group, "a", now=7)
    assert taken(group, "b") == []
    group.open_to_all()
    assert taken(group, "b", "c", "d", now=5) == ["b", "c"]
    land(group)
    assert taken(group, "d") == []
    group.open_to_all()
    assert taken(group, "too large for it", "d", "e", now=9) == ["d"]
    commit = departed(group)
    assert (commit.waiters, commit.timestamps) == (["a", "b", "c", "d"], [7, 7, 7, 9])
    land(group)
    add(group, "f", now=8)
    assert departed(group).timestamps == [9]


@pytest.mark.parametrize("closing", ["somebody waits", "the bounds change", "it is as large as a commit gets"])
def test_a_commit_takes_no_more_by_itself(closing: str) -> None:
    """Nobody goes ahead of those who wait, new bounds hold at once, and a commit that is large enough is left behind."""
    group = group_of(Always(), size=2 * COMMIT_BYTES)
    add(group, "a")
    group.open_to_all()
    assert taken(group, "b") == ["b"]
    if closing == "somebody waits":
        group.wait(batch_of("c", b"c"))
        group.open_to_all()
    elif closing == "the bounds change":
        group.resize(2, 100)
    else:
        assert group.add(bytes(COMMIT_BYTES), COMMIT_BYTES, (), Stage.FLUSHED, "large", 0)
        group.open_to_all()
    assert taken(group, "d") == []


def test_appends_of_one_tick() -> None:
    """What is accepted before the commit leaves travels in it, in the order of the calls."""
    group = group_of(Always(), next_sequence=5)
    assert not group.is_forming
    add(group, "a", "b", "c", now=9)
    assert group.is_forming
    commit = departed(group)
    assert (commit.payloads, commit.waiters) == ([b"a", b"b", b"c"], ["a", "b", "c"])
    assert len(commit) == 3
    assert not group.is_forming
    assert land(group) == [Receipt(sequence, 9, Stage.SYNCED) for sequence in (5, 6, 7)]


def test_one_commit_at_a_time() -> None:
    """While a commit is under way none departs; what gathers meanwhile is the next one."""
    group = group_of(Always())
    add(group, "a")
    assert departed(group).waiters == ["a"]
    add(group, "b")
    add(group, "c")
    assert group.depart() is None
    land(group)
    assert departed(group).waiters == ["b", "c"]


def test_nothing_to_send() -> None:
    """Without anything accepted no commit departs, and none can arrive."""
    group = group_of(Always())
    assert group.depart() is None
    with pytest.raises(AssertionError, match="only after it has departed"):
        group.arrive(Landing(0, 0, 0))


def test_receipts_are_receipts() -> None:
    """Receipts are made by a short cut and are Receipt objects all the same."""
    group = group_of(OsManaged())
    add(group, "a", now=3)
    departed(group)
    (receipt,) = land(group)
    assert type(receipt) is Receipt
    assert (receipt.sequence, receipt.timestamp, receipt.stage) == (0, 3, Stage.FLUSHED)


def test_a_clock_that_goes_back() -> None:
    """A timestamp is never below the one before it, nor below the last of the store's earlier life."""
    group: GroupCommit[str] = GroupCommit(
        OsManaged(), next_sequence=0, synced_sequence=0, last_time=50, buffer_records=9, buffer_bytes=9
    )
    for name, now in (("a", 40), ("b", 60), ("c", 55)):
        add(group, name, now=now)
    assert group.add_batch(batch_of("d", b"d", b"e"), 58)
    assert group.add_batch(batch_of("f", b"f"), 61)
    add(group, "g", now=2)
    assert departed(group).timestamps == [50, 60, 60, 60, 60, 61, 61]


def test_labels_of_some_records() -> None:
    """Labels are kept by the place of their record in the commit; a batch gives them to each of its records."""
    group = group_of(OsManaged())
    add(group, "a")
    assert group.add(b"b", 1, ("user:7",), Stage.FLUSHED, "b", 0)
    assert group.add_batch(batch_of("c", b"c", b"d", labels=("x", "y")), 0)
    assert group.add_batch(batch_of("e", b"e"), 0)
    assert departed(group).labels == {1: ("user:7",), 2: ("x", "y"), 3: ("x", "y")}


def test_the_size_of_labels() -> None:
    """Labels count for the buffer; how much of a commit's size they are is kept apart from its data."""
    group = group_of(OsManaged())
    add(group, "abc")
    assert group.add(b"d", 7, ("user:7",), Stage.FLUSHED, "d", 0)
    assert group.add_batch(Pending([b"e", b"fg"], 3 + 2 * 2, {0: ("xy",), 1: ("xy",)}, Stage.FLUSHED, "e", True), 0)
    commit = departed(group)
    assert (commit.size, commit.label_bytes, group.buffered_bytes) == (17, 10, 17)


def test_batches_with_keys() -> None:
    """The key of a batch names its records by their place in the commit, also when it had to wait for room."""
    group = group_of(OsManaged(), records=4)
    writer = b"w" * 16
    add(group, "a")
    assert group.add_batch(batch_of("b", b"b", b"c", key=(writer, 7)), 0)
    group.wait(batch_of("d", b"d", b"e", key=(writer, 8)))
    assert departed(group).keys == [Key(writer, 7, 1, 2)]
    group.arrive(Landing(3, 0, 0))
    group.admit(0, lambda waiter: False)
    assert departed(group).keys == [Key(writer, 8, 0, 2)]


def test_a_batch_among_others() -> None:
    """A batch is whole and in one piece, and only its first place has the waiter."""
    group = group_of(OsManaged())
    add(group, "a")
    add_batch(group, "b", b"1", b"2", b"3")
    add(group, "c")
    commit = departed(group)
    assert commit.payloads == [b"a", b"1", b"2", b"3", b"c"]
    assert commit.waiters == ["a", "b", None, None, "c"]
    assert commit.batches == {1: 3}
    assert list(commit.everyone()) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("policy", "stages", "synced"),
    [
        (Always(), [Stage.SYNCED], True),
        (Always(), [Stage.FLUSHED], False),
        (Always(), [Stage.FLUSHED, Stage.SYNCED, Stage.FLUSHED], True),
        (OsManaged(), [Stage.FLUSHED] * 9, False),
        (OsManaged(), [Stage.FLUSHED, Stage.SYNCED], True),
        (EveryN(3), [Stage.FLUSHED] * 2, False),
        (EveryN(3), [Stage.FLUSHED] * 3, True),
        (EveryN(3), [Stage.FLUSHED] * 9, True),
        (EveryN(3), [Stage.SYNCED], True),
        (EveryN(1), [Stage.FLUSHED], True),
    ],
    ids=repr,
)
def test_the_strictest_member_decides(policy: SyncPolicy, stages: list[Stage], synced: bool) -> None:
    """A commit is synced when a member asks for it or the policy owes it, and then all its receipts say so."""
    group = group_of(policy)
    for stage in stages:
        add(group, "a", stage=stage)
    assert departed(group).sync is synced
    assert {receipt.stage for receipt in land(group)} == {Stage.SYNCED if synced else Stage.FLUSHED}
    assert group.unsynced == (0 if synced else len(stages))


def test_a_strict_batch_among_others() -> None:
    """The stage that a batch asks for counts like that of a record, before and behind milder ones."""
    group = group_of(OsManaged())
    add_batch(group, "a", b"1", stage=Stage.SYNCED)
    add_batch(group, "b", b"2")
    add(group, "c")
    assert departed(group).sync


def test_every_third_over_several_commits() -> None:
    """EveryN counts what was acknowledged and not synced: the commit that would reach n is synced; then it counts anew."""
    group = group_of(EveryN(3))
    assert [send(group, "a") for _ in range(7)] == [False, False, True, False, False, True, False]
    assert group.unsynced == 1
    assert [send(group, "a", "b") for _ in range(2)] == [True, False]


def test_more_synced_than_was_owed() -> None:
    """When the journal has synced for a reason of its own, the policy counts from there."""
    group = group_of(EveryN(3))
    send(group, "a", "b")
    add(group, "c", stage=Stage.SYNCED)
    departed(group)
    group.arrive(Landing(3, 3, 1))
    assert group.unsynced == 0
    assert not send(group, "d", "e")


def test_a_commit_that_has_grown_large() -> None:
    """A forming commit that has reached COMMIT_BYTES takes no more: the rest leaves with the next ones, in order."""
    group = group_of(OsManaged(), size=10 * COMMIT_BYTES)
    half = COMMIT_BYTES // 2
    for name, size in (("a", half), ("b", half - 1), ("c", 1), ("d", 0), ("e", 3 * half), ("f", 1)):
        assert group.add(name.encode(), size, (), Stage.FLUSHED, name, 0)
    members = []
    while (commit := group.depart()) is not None:
        members.append(commit.waiters)
        land(group)
    assert members == [["a", "b", "c"], ["d", "e"], ["f"]]


@pytest.mark.parametrize(
    ("records", "size", "room"),
    [(1, 0, True), (1, 6, True), (1, 7, False), (2, 6, True), (2, 7, False), (3, 0, False)],
)
def test_room_for_so_much(records: int, size: int, room: bool) -> None:
    """There is room up to the last record and the last byte, counting what is under way; without it nothing is taken."""
    group = group_of(OsManaged(), records=4, size=10)
    add(group, "ab")
    departed(group)
    add(group, "cd")
    if records == 1:
        assert group.add(b"e", size, (), Stage.FLUSHED, "e", 0) is room
    else:
        assert group.add_batch(Pending([b"e"] * records, size, {}, Stage.FLUSHED, "e", True), 0) is room
    assert (group.buffered_records, group.buffered_bytes) == ((2 + records, 4 + size) if room else (2, 4))
    land(group)
    assert departed(group).payloads == [b"cd", *[b"e"] * (records if room else 0)]


def test_room_for_another_record() -> None:
    """A buffer that is full of records takes no more, however small."""
    group = group_of(OsManaged(), records=2)
    add(group, "", "")
    assert not group.add(b"", 0, (), Stage.FLUSHED, "c", 0)
    assert not group.add_batch(Pending([b""], 0, {}, Stage.FLUSHED, "c", True), 0)


def test_room_comes_back_when_a_commit_arrives() -> None:
    """What has arrived is out of the buffer; what waits is accepted in the order of the calls, as far as it fits."""
    group = group_of(OsManaged(), records=2, size=100)
    add(group, "a", "b")
    departed(group)
    wait(group, "c", "d", "e")
    land(group)
    group.admit(7, nobody_is_gone)
    commit = departed(group)
    assert (commit.waiters, commit.timestamps) == (["c", "d"], [7, 7])
    assert [pending.waiter for pending in group.waiting] == ["e"]


def test_a_large_one_waits_in_front_of_a_small_one() -> None:
    """Nobody overtakes: a record that would fit waits behind one that does not."""
    group = group_of(OsManaged(), records=9, size=10)
    add(group, "abcdef")
    group.wait(Pending([b"12345"], 5, {}, Stage.FLUSHED, "large", False))
    assert not group.add_batch(batch_of("small batch", b"1"), 0)
    wait(group, "small")
    group.admit(0, nobody_is_gone)
    assert [pending.waiter for pending in group.waiting] == ["large", "small"]


def test_a_batch_waits_until_all_of_it_fits() -> None:
    """A batch is never accepted in part."""
    group = group_of(OsManaged(), records=3, size=100)
    add(group, "a")
    departed(group)
    group.wait(batch_of("b", b"1", b"2", b"3"))
    group.admit(0, nobody_is_gone)
    assert not group.is_forming
    land(group)
    group.admit(0, nobody_is_gone)
    assert departed(group).batches == {0: 3}


def test_who_is_gone_while_waiting_for_room() -> None:
    """A caller that was cancelled before its record was accepted is passed over, and leaves no gap."""
    group = group_of(OsManaged(), records=1, size=100)
    add(group, "a")
    departed(group)
    wait(group, "b", "c", "d")
    land(group)
    group.admit(0, {"b", "d"}.__contains__)
    assert departed(group).waiters == ["c"]
    group.admit(0, {"b", "d"}.__contains__)
    assert not group.waiting


def test_a_record_larger_than_the_buffer_with_its_labels() -> None:
    """It waits until the buffer is empty and then goes alone: nobody waits for ever, and nobody beside it."""
    group = group_of(OsManaged(), size=10)
    assert group.add(b"0123456789", 12, ("xy",), Stage.FLUSHED, "a", 0)
    wait(group, "b")
    assert departed(group).waiters == ["a"]
    large = Pending([b"0123456789"], 11, {0: ("x",)}, Stage.FLUSHED, "c", False)
    group.wait(large)
    land(group)
    group.admit(0, nobody_is_gone)
    assert departed(group).waiters == ["b"]
    assert list(group.waiting) == [large]
    land(group)
    group.admit(0, nobody_is_gone)
    assert departed(group).waiters == ["c"]
    assert not group.add(b"", 0, (), Stage.FLUSHED, "d", 0)
    assert not group.add_batch(batch_of("d", b""), 0)


def test_leaving_the_line() -> None:
    """Who is cancelled while it waits for room is out of the line at once, and those behind it are accepted if they fit."""
    group = group_of(OsManaged(), records=9, size=10)
    add(group, "abcdef")
    large, larger = batch_of("large", b"12345"), batch_of("larger", b"123456")
    group.waiting += [large, larger]
    wait(group, "b")
    group.leave_line(larger, 5, nobody_is_gone)
    assert [pending.waiter for pending in group.waiting] == ["large", "b"]
    group.leave_line(large, 5, nobody_is_gone)
    assert not group.waiting
    commit = departed(group)
    assert (commit.waiters, commit.timestamps) == (["abcdef", "b"], [0, 5])


def test_leaving_a_line_that_has_moved_on() -> None:
    """Who was accepted meanwhile keeps its place in the log; one that is equal to it keeps its place in the line."""
    group = group_of(OsManaged(), records=1)
    add(group, "a")
    accepted, equal = batch_of("b", b"1"), batch_of("b", b"1")
    group.waiting += [accepted, equal]
    departed(group)
    land(group)
    group.admit(0, nobody_is_gone)
    group.leave_line(accepted, 0, nobody_is_gone)
    assert list(group.waiting) == [equal]
    assert departed(group).waiters == ["b"]


def test_giving_up_those_who_wait_for_room() -> None:
    """Those who wait for room are handed back in their order, and what was accepted stays."""
    group = group_of(OsManaged(), records=1, size=100)
    add(group, "a")
    wait(group, "b", "c")
    assert group.give_up_waiting() == ["b", "c"]
    assert group.give_up_waiting() == []
    assert departed(group).waiters == ["a"]


@pytest.mark.parametrize("stage", [Stage.FLUSHED, Stage.SYNCED])
def test_a_barrier_with_nothing_to_wait_for(stage: Stage) -> None:
    """flush() and sync() have nothing to wait for when everything is on the disk."""
    group = group_of(Always())
    assert not group.barrier(stage, "barrier")
    send(group, "a")
    assert not group.barrier(stage, "barrier")
    assert not group.is_forming


def test_a_flush_of_what_was_acknowledged() -> None:
    """What was acknowledged is FLUSHED already, so flush() has nothing to wait for; sync() sends a commit of its own."""
    group = group_of(OsManaged())
    send(group, "a")
    assert not group.barrier(Stage.FLUSHED, "flush")
    assert group.barrier(Stage.SYNCED, "sync")
    commit = departed(group)
    assert (len(commit), commit.sync, commit.barriers) == (0, True, ["sync"])
    assert land(group) == []
    assert group.unsynced == 0


def test_a_barrier_behind_what_is_forming() -> None:
    """A barrier joins the last commit that is forming, and sync() has that commit synced."""
    group = group_of(OsManaged(), size=2 * COMMIT_BYTES)
    assert group.add(b"a", COMMIT_BYTES, (), Stage.FLUSHED, "a", 0)
    add(group, "b")
    assert group.barrier(Stage.SYNCED, "sync")
    assert group.barrier(Stage.FLUSHED, "flush")
    first = departed(group)
    assert (first.barriers, first.sync) == ([], False)
    land(group)
    second = departed(group)
    assert (second.barriers, second.sync) == (["sync", "flush"], True)
    assert list(second.everyone()) == ["b", "sync", "flush"]


@pytest.mark.parametrize(("stage", "waits"), [(Stage.FLUSHED, True), (Stage.SYNCED, False)])
def test_a_barrier_behind_what_is_under_way(stage: Stage, waits: bool) -> None:
    """flush() waits for the commit that is under way; sync() only if that is synced, otherwise for one of its own."""
    group = group_of(OsManaged())
    add(group, "a")
    commit = departed(group)
    assert group.barrier(stage, "barrier")
    assert commit.barriers == (["barrier"] if waits else [])
    assert group.is_forming is not waits
    synced = group_of(Always())
    add(synced, "a")
    commit = departed(synced)
    assert synced.barrier(stage, "barrier")
    assert commit.barriers == ["barrier"]
    assert not synced.is_forming


def test_a_sync_that_nobody_waits_for() -> None:
    """The age timer has a sync done without a waiter, once and not again when all is synced."""
    group = group_of(EveryN(9))
    send(group, "a")
    assert group.barrier(Stage.SYNCED, None)
    commit = departed(group)
    assert (commit.sync, commit.barriers) == (True, [])
    land(group)
    assert not group.barrier(Stage.SYNCED, None)


def test_records_that_join_a_sync() -> None:
    """A commit that was begun by sync() takes the records that come before it leaves."""
    group = group_of(OsManaged())
    send(group, "a")
    assert group.barrier(Stage.SYNCED, "sync")
    add(group, "b")
    commit = departed(group)
    assert (commit.waiters, commit.barriers, commit.sync) == (["b"], ["sync"], True)


def test_no_space_for_a_commit() -> None:
    """A refused commit is out of the buffer, its sequences go to the next one, and the barriers behind it are told too."""
    group = group_of(OsManaged(), next_sequence=4)
    add(group, "a")
    departed(group)
    assert group.barrier(Stage.FLUSHED, "flush")
    add(group, "bcd")
    assert group.barrier(Stage.SYNCED, "sync")
    commit, behind = group.refuse()
    assert list(commit.everyone()) == ["a", "flush"]
    assert behind == ["sync"]
    assert (group.buffered_records, group.buffered_bytes, group.next_sequence, group.under_way) == (1, 3, 4, None)
    following = departed(group)
    assert (following.waiters, following.barriers) == (["bcd"], [])
    assert land(group)[0].sequence == 4


def test_a_failed_store() -> None:
    """Everyone who waits for anything is handed over, once, and nothing is left to send."""
    group = group_of(OsManaged(), records=4, size=2 * COMMIT_BYTES)
    add(group, "a")
    departed(group)
    group.barrier(Stage.FLUSHED, "flush")
    assert group.add(b"b", COMMIT_BYTES, (), Stage.FLUSHED, "b", 0)
    add_batch(group, "c", b"1", b"2")
    group.barrier(Stage.SYNCED, "sync")
    group.wait(batch_of("d", b"3", b"4"))
    assert group.abandon() == ["a", "flush", "b", "c", "sync", "d"]
    assert (group.buffered_records, group.buffered_bytes, group.under_way, group.is_forming) == (0, 0, None, False)
    assert not group.waiting
    assert group.abandon() == []


def test_a_loop_that_is_gone() -> None:
    """What was accepted and has not departed is handed over in order, to be synced."""
    group = group_of(OsManaged(), size=2 * COMMIT_BYTES)
    add(group, "a")
    departed(group)
    assert group.add(b"b", COMMIT_BYTES, (), Stage.FLUSHED, "b", 0)
    add(group, "c")
    left = group.remaining()
    assert [(commit.waiters, commit.sync) for commit in left] == [(["b"], True), (["c"], True)]
    assert not group.is_forming
    assert group.remaining() == []


# whatever a store may do


@dataclass(eq=False)
class Call:
    """An append, or an append_many, as its caller sees it."""

    number: int
    count: int
    size: int
    stage: Stage
    labels: tuple[str, ...]
    batch: bool
    gone: bool = False
    accepted_at: int | None = None
    """Its timestamp, once it is accepted."""

    @property
    def payloads(self) -> list[bytes]:
        return [b"%d.%d" % (self.number, index) for index in range(self.count)]

    @property
    def label_bytes(self) -> int:
        return self.size - sum(map(len, self.payloads)) if self.labels else 0

    @cached_property
    def pending(self) -> Pending[Waiter]:
        return Pending(
            self.payloads,
            self.size,
            dict.fromkeys(range(len(self.payloads)), self.labels) if self.labels else {},
            self.stage,
            self,
            self.batch,
        )


@dataclass(eq=False)
class Barrier:
    """A flush or a sync, and the calls that were accepted and not yet told when it was called."""

    stage: Stage
    behind: list[Call] = field(default_factory=list)


Waiter = Call | Barrier

policies = st.one_of(st.just(Always()), st.builds(EveryN, st.integers(1, 6)), st.just(OsManaged()))
stages = st.sampled_from([None, None, Stage.FLUSHED, Stage.SYNCED])  # None: what the policy asks for
sizes = st.integers(0, 3) | st.integers(0, 12).map(MIB.__mul__)
clocks = st.integers(0, 50)
of_labels = st.sampled_from([(), (), ("user:7",), ("a", "b")])


def is_gone(waiter: Waiter) -> bool:
    return isinstance(waiter, Call) and waiter.gone


class Heavy(bytes):
    """The one payload of a call, as long as the call says."""

    def __new__(cls, call: Call) -> Heavy:
        heavy = super().__new__(cls, call.payloads[0])
        heavy.size = call.size
        return heavy

    size: int

    def __len__(self) -> int:
        return self.size


class Engine(RuleBasedStateMachine):
    """A GroupCommit beside lists: what waits for room, what is accepted, what travels, what the log holds."""

    @initialize(
        policy=policies,
        records=st.integers(1, 8),
        mib=st.integers(9, 40),
        start=st.integers(0, 5),
        now=clocks,
        end=st.sampled_from(["end_by_arriving", "end_by_failing", "end_by_leaving"]),
    )
    def open(self, policy: SyncPolicy, records: int, mib: int, start: int, now: int, end: str) -> None:
        self.policy, self.start, self.clock = policy, start, now
        self.buffer_records, self.buffer_bytes = records, mib * MIB
        self.group: GroupCommit[Waiter] = GroupCommit(
            policy,
            next_sequence=start,
            synced_sequence=start,
            last_time=now,
            buffer_records=records,
            buffer_bytes=mib * MIB,
        )
        self.calls = 0
        self.queued: list[Call] = []  # wait for room
        self.accepted: list[Call] = []  # and neither under way nor told
        self.travelling: list[Call] | None = None
        self.barriers: list[Barrier] = []  # not yet told
        self.aged: list[Barrier] = []  # syncs that nobody waits for
        self.log: list[Call] = []  # the call of each record that was acknowledged
        self.synced = 0  # so many of them are on the disk
        self.last_accepted = 0  # the number of a call
        self.sync_asked = False  # of a commit that is forming, by a barrier that may have been told already
        self.end = end  # the name of the method that ends it

    # what the account says

    def buffered(self) -> list[Call]:
        return [*(self.travelling or ()), *self.accepted]

    def fits(self, call: Call) -> bool:
        records = sum(other.count for other in self.buffered())
        size = sum(other.size for other in self.buffered())
        if not records and not call.batch:
            return True  # with its labels it may be larger than the buffer, and must not wait for ever
        return records + call.count <= self.buffer_records and size + call.size <= self.buffer_bytes

    def owes(self, count: int) -> bool:
        """Whether the policy demands a sync of a commit with so many records."""
        unsynced = len(self.log) - self.synced
        return isinstance(self.policy, EveryN) and unsynced + count > self.policy.n - 1

    def next_members(self) -> list[Call]:
        """The calls that belong in the next commit: until one has made it large enough."""
        members: list[Call] = []
        for call in self.accepted:
            if sum(member.size for member in members) >= COMMIT_BYTES:
                break
            members.append(call)
        return members

    def accept(self, call: Call, now: int) -> None:
        """The account of a call that has got its place: later than all that were called later."""
        assert call.number > self.last_accepted
        self.last_accepted = call.number
        self.clock = max(self.clock, now)
        call.accepted_at = self.clock
        self.accepted.append(call)

    def accept_those_who_fit(self, now: int) -> None:
        while self.queued and (self.queued[0].gone or self.fits(self.queued[0])):
            call = self.queued.pop(0)
            if not call.gone:
                self.accept(call, now)

    # what callers do

    def new_call(self, sizes: Sequence[int], stage: Stage | None, labels: tuple[str, ...], batch: bool) -> Call | None:
        """None for one that a store refuses at once: it could never be accepted."""
        call = Call(self.calls + 1, len(sizes), sum(sizes), stage or self.policy.stage, labels, batch)
        if batch and (call.count > self.buffer_records or call.size > self.buffer_bytes):
            return None
        self.calls += 1
        return call

    @rule(size=sizes, stage=stages, labels=of_labels, now=clocks, waits=st.booleans())
    def append(self, size: int, stage: Stage | None, labels: tuple[str, ...], now: int, waits: bool) -> None:
        call = self.new_call([size], stage, labels, batch=False)
        if call is None:
            return
        room = not self.queued and self.fits(call)
        assert self.is_accepted(call, stage, now) is room
        if room:
            self.accept(call, now)
        elif waits:
            self.group.wait(call.pending)
            self.queued.append(call)

    def is_accepted(self, call: Call, stage: Stage | None, now: int) -> bool:
        """As a store does it: what asks for nothing of its own, the forming commit may take by itself."""
        is_plain, forming = stage is None and not call.labels, self.group.forming
        if is_plain and forming is not None and forming.take(Heavy(call), call, now):
            return True
        added = self.group.add(call.payloads[0], call.size, call.labels, call.stage, call, now)
        if added and stage is None:
            self.group.open_to_all()
        return added

    @rule(sizes=st.lists(sizes, min_size=1, max_size=4), stage=stages, labels=of_labels, now=clocks)
    def append_many(self, sizes: list[int], stage: Stage | None, labels: tuple[str, ...], now: int) -> None:
        call = self.new_call(sizes, stage, labels, batch=True)
        if call is None:
            return
        room = not self.queued and self.fits(call)
        assert self.group.add_batch(call.pending, now) is room
        if room:
            self.accept(call, now)
        else:
            self.group.wait(call.pending)
            self.queued.append(call)

    @rule(stage=st.sampled_from([Stage.FLUSHED, Stage.SYNCED]))
    def wait_for_all(self, stage: Stage) -> None:
        barrier = Barrier(stage, self.buffered())
        if self.group.barrier(stage, barrier):
            self.barriers.append(barrier)
            self.sync_asked |= stage is Stage.SYNCED and self.group.is_forming
        else:
            assert not self.buffered()
            assert stage is Stage.FLUSHED or self.synced == len(self.log)

    @rule()
    def grow_old(self) -> None:
        barrier = Barrier(Stage.SYNCED, [*self.log, *self.buffered()])
        if self.group.barrier(Stage.SYNCED, None):
            self.aged.append(barrier)
            self.sync_asked |= self.group.is_forming

    @precondition(lambda self: self.queued or self.buffered())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([*self.queued, *self.buffered()])).gone = True

    @precondition(lambda self: self.queued or self.buffered())
    @rule(data=st.data(), now=clocks)
    def leave_line(self, data: st.DataObject, now: int) -> None:
        call = data.draw(st.sampled_from([*self.queued, *self.buffered()]))
        call.gone = True
        self.group.leave_line(call.pending, now, is_gone)
        if call in self.queued:
            self.queued.remove(call)
            self.accept_those_who_fit(now)
        assert [pending.waiter for pending in self.group.waiting] == self.queued

    # what the store does

    @rule()
    def depart(self) -> None:
        commit = self.group.depart()
        if commit is None:
            assert self.travelling is not None or not self.accepted
            return
        assert self.travelling is None
        members = self.next_members()
        self.check_members(commit, members)
        self.check_sync(commit, members)
        self.accepted = self.accepted[len(members) :]
        self.travelling = members
        self.sync_asked &= self.group.is_forming

    def check_sync(self, commit: Commit[Waiter], members: list[Call]) -> None:
        """It is synced when a member or a barrier asks for it or the policy owes it, and not without a reason."""
        waiters: list[Waiter] = [*members, *self.joined(commit)]
        if any(waiter.stage is Stage.SYNCED for waiter in waiters) or self.owes(len(commit)) or not members:
            assert commit.sync
        else:
            assert not commit.sync or self.sync_asked

    def joined(self, commit: Commit[Waiter]) -> list[Barrier]:
        assert all(barrier in self.barriers for barrier in commit.barriers)
        return [barrier for barrier in self.barriers if barrier in commit.barriers]

    def check_members(self, commit: Commit[Waiter], members: list[Call]) -> None:
        """The commit holds these calls whole, in this order, with everything that belongs to them."""
        payloads: list[bytes] = []
        labels, batches = {}, {}
        waiters: list[Call | None] = []
        for call in members:
            first = len(payloads)
            payloads += call.payloads
            waiters += [call, *[None] * (call.count - 1)]
            if call.batch:
                batches[first] = call.count
            if call.labels:
                labels.update(dict.fromkeys(range(first, first + call.count), call.labels))
        assert (commit.payloads, commit.waiters) == (payloads, waiters)
        assert (commit.labels, commit.batches) == (labels, batches)
        assert commit.size == sum(call.size for call in members)
        assert commit.label_bytes == sum(call.label_bytes for call in members)
        assert commit.timestamps == [call.accepted_at for call in members for _ in range(call.count)]
        assert list(commit.everyone()) == [*members, *commit.barriers]

    @precondition(lambda self: self.travelling is not None)
    @rule(now=clocks, synced_anyway=st.booleans())
    def arrive(self, now: int, synced_anyway: bool) -> None:
        """Also when the journal has synced more than it owed, because it rolled to a new segment."""
        assert self.group.under_way is not None
        assert self.travelling is not None
        self.log += [call for call in self.travelling for _ in range(call.count)]
        if self.group.under_way.sync or synced_anyway:
            self.synced = len(self.log)
        first = self.group.next_sequence
        commit = self.group.arrive(Landing(self.start + len(self.log), self.start + self.synced, 0))
        self.check_receipts(list(commit.receipts(first)), first, self.travelling)
        self.travelling = None
        for barrier in self.joined(commit):
            self.check_barrier(barrier)
            self.barriers.remove(barrier)
        self.check_bound()
        self.admit(now)

    def check_receipts(self, receipts: list[Receipt], first: int, members: list[Call]) -> None:
        """Dense sequences, the times of acceptance, and at least the stage that was asked for, which has been reached."""
        expected = [(call, call.accepted_at) for call in members for _ in range(call.count)]
        assert [receipt.sequence for receipt in receipts] == list(range(first, first + len(expected)))
        for receipt, (call, accepted_at) in zip(receipts, expected, strict=True):
            assert receipt.timestamp == accepted_at
            assert receipt.stage >= call.stage
            assert receipt.stage is not Stage.SYNCED or receipt.sequence < self.start + self.synced

    def check_barrier(self, barrier: Barrier) -> None:
        """All that was accepted before it has reached its stage."""
        reached = self.log if barrier.stage is Stage.FLUSHED else self.log[: self.synced]
        assert all(call in reached for call in barrier.behind)

    def check_bound(self) -> None:
        """What a power cut could take of the acknowledged records is within the policy, at every arrival."""
        at_risk = self.log[self.synced :]
        assert self.group.unsynced == len(at_risk)
        assert all(call.stage is not Stage.SYNCED for call in at_risk)
        if isinstance(self.policy, EveryN):
            assert len(at_risk) <= self.policy.n - 1

    @precondition(lambda self: self.travelling is not None)
    @rule(now=clocks)
    def refuse(self, now: int) -> None:
        assert self.travelling is not None
        commit, behind = self.group.refuse()
        told = [*commit.everyone(), *behind]
        self.check_all_told(told, [*self.travelling, *self.barriers])
        for call in self.travelling:
            for barrier in self.aged:
                barrier.behind = [other for other in barrier.behind if other is not call]
        self.barriers.clear()
        self.travelling = None
        self.admit(now)

    def check_all_told(self, told: Iterable[Waiter], expected: Iterable[Waiter]) -> None:
        """Each of them, and once."""
        assert sorted(map(id, told)) == sorted(map(id, expected))

    @rule(now=clocks)
    def admit(self, now: int) -> None:
        self.group.admit(now, is_gone)
        self.accept_those_who_fit(now)
        assert [pending.waiter for pending in self.group.waiting] == self.queued

    # how it ends

    @rule()
    def give_up_waiting(self) -> None:
        assert self.group.give_up_waiting() == self.queued
        self.queued.clear()

    def end_by_failing(self) -> None:
        everyone: list[Waiter] = [*self.buffered(), *self.barriers, *self.queued]
        self.check_all_told(self.group.abandon(), everyone)
        assert (self.group.buffered_records, self.group.buffered_bytes) == (0, 0)
        assert not self.group.is_forming
        assert not self.group.waiting
        assert self.group.depart() is None

    def end_by_leaving(self) -> None:
        left: list[Waiter] = []
        for commit in self.group.remaining():
            assert commit.sync
            left += [waiter for waiter in commit.waiters if waiter is not None]
        assert left == self.accepted
        assert not self.group.is_forming

    def end_by_arriving(self) -> None:
        """Whatever had been going on, commits go round until there are none: nobody is left waiting."""
        while self.travelling is not None or self.group.is_forming:
            if self.travelling is not None:
                self.arrive(0, synced_anyway=False)
            self.depart()
        assert not [*self.buffered(), *self.barriers, *self.queued]
        assert (self.group.buffered_records, self.group.buffered_bytes) == (0, 0)
        for barrier in self.aged:
            self.check_barrier(barrier)

    def teardown(self) -> None:
        getattr(self, self.end)()

    @invariant()
    def is_within_its_bounds(self) -> None:
        assert self.group.buffered_records == sum(call.count for call in self.buffered()) <= self.buffer_records
        assert self.group.buffered_bytes == sum(call.size for call in self.buffered())
        assert self.group.buffered_bytes <= self.buffer_bytes or self.group.buffered_records == 1
        assert self.group.next_sequence == self.start + len(self.log)
        assert self.group.synced_sequence == self.start + self.synced
        assert self.group.is_forming or not self.accepted


def test_whatever_a_store_may_do() -> None:
    """Order, bounds, batches, barriers, receipts and the policy hold through any calls, refusals and failures."""
    run_state_machine_as_test(
        Engine,
        settings=settings(
            deadline=None, max_examples=150, stateful_step_count=50, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
