"""group: what a commit takes with it, in what order, and who is told what."""

from __future__ import annotations

import pytest

from aquipu.commit.buffer import COMMIT_BYTES, Pending
from aquipu.commit.group import GroupCommit
from aquipu.engine import CommitResult
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from aquipu.record import PRODUCERS, Key, Receipt
from tests.commit.situations import (
    add,
    add_batch,
    batch_of,
    complete,
    group_of,
    nobody_is_gone,
    send,
    submitted,
    taken,
    wait,
)


def test_a_commit_takes_by_itself_only_as_far_as_it_may() -> None:
    """Before it is opened nothing; then as many records and bytes as there was room for, and none
    earlier than the one before in its commit.
    """
    group = group_of(Always(), records=4, size=6)
    add(group, "u")
    submitted(group)
    add(group, "a", now=7)
    assert taken(group, "b") == []
    group.open_to_all()
    assert taken(group, "b", "c", "d", now=5) == ["b", "c"]
    complete(group)
    assert taken(group, "d") == []
    group.open_to_all()
    assert taken(group, "too large for it", "d", "e", now=9) == ["d"]
    commit = submitted(group)
    assert (commit.waiters, commit.timestamps) == (["a", "b", "c", "d"], [7, 7, 7, 9])
    complete(group)
    add(group, "f", now=8)
    assert submitted(group).timestamps == [8]


@pytest.mark.parametrize(
    "closing", ["somebody waits", "the bounds change", "it is as large as a commit gets"]
)
def test_a_commit_takes_no_more_by_itself(closing: str) -> None:
    """Nobody goes ahead of those who wait, new bounds hold at once, and a commit that is large
    enough is left behind.
    """
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
    commit = submitted(group)
    assert (commit.payloads, commit.waiters) == ([b"a", b"b", b"c"], ["a", "b", "c"])
    assert len(commit) == 3
    assert not group.is_forming
    assert complete(group) == [Receipt(sequence, 9, Stage.SYNCED) for sequence in (5, 6, 7)]


def test_one_commit_at_a_time() -> None:
    """While a commit is under way none is submitted; what gathers meanwhile is the next one."""
    group = group_of(Always())
    add(group, "a")
    assert submitted(group).waiters == ["a"]
    add(group, "b")
    add(group, "c")
    assert group.submit() is None
    complete(group)
    assert submitted(group).waiters == ["b", "c"]


def test_nothing_to_send() -> None:
    """Without anything accepted no commit is submitted, and none can complete."""
    group = group_of(Always())
    assert group.submit() is None
    with pytest.raises(AssertionError, match="only after it was submitted"):
        group.complete(CommitResult(0, 0, 0))


def test_receipts_are_receipts() -> None:
    """Receipts are made by a short cut and are Receipt objects all the same."""
    group = group_of(OsManaged())
    add(group, "a", now=3)
    submitted(group)
    (receipt,) = complete(group)
    assert type(receipt) is Receipt
    assert (receipt.sequence, receipt.timestamp, receipt.stage) == (0, 3, Stage.FLUSHED)


def test_a_clock_that_goes_back() -> None:
    """Within a commit a timestamp is never below the one before it; the next commit has the times
    of the clock again.
    """
    group = group_of(OsManaged())
    for name, now in (("a", 40), ("b", 60), ("c", 55)):
        add(group, name, now=now)
    assert group.add_batch(batch_of("d", b"d", b"e"), 58)
    assert group.add_batch(batch_of("f", b"f"), 61)
    add(group, "g", now=2)
    assert submitted(group).timestamps == [40, 60, 60, 60, 60, 61, 61]
    complete(group)
    add(group, "h", now=2)
    assert submitted(group).timestamps == [2]


def test_a_commit_that_is_levelled() -> None:
    """Its receipts tell the times that were stored, also those that were made before; when it was
    accepted stays.
    """
    group = group_of(OsManaged())
    for name, now in (("a", 40), ("b", 60)):
        add(group, name, now=now)
    commit = submitted(group)
    commit.write_receipts()
    commit.level(50)
    commit.write_receipts()
    assert [receipt.timestamp for receipt in commit.written] == commit.timestamps == [50, 60]
    assert (commit.accepted, commit.time) == ([40, 60], 60)


def test_receipts_are_made_together_once() -> None:
    """Those of a commit that was not levelled are not made again."""
    group = group_of(OsManaged())
    add(group, "a", "b", now=7)
    commit = submitted(group)
    commit.first_sequence = 3
    commit.write_receipts()
    written = commit.written
    assert written == [Receipt(3, 7, Stage.FLUSHED), Receipt(4, 7, Stage.FLUSHED)]
    commit.write_receipts()
    assert commit.written is written


def test_how_long_a_record_waits_does_not_depend_on_the_clock() -> None:
    """When the first record of a commit was accepted is asked of a clock that nobody can set, once
    for each commit.
    """
    elapsed = iter(range(100, 200))
    group: GroupCommit[str] = GroupCommit(
        OsManaged(),
        next_sequence=0,
        synced_sequence=0,
        buffer_records=9,
        buffer_bytes=9,
        elapsed=lambda: next(elapsed),
    )
    group.barrier(Stage.SYNCED, "s")
    for name, now in (("a", 40), ("b", 9_000)):
        add(group, name, now=now)
    assert submitted(group).since == 100
    complete(group)
    assert group.unsynced_since == 100
    add(group, "c", now=3)
    assert submitted(group).since == 101


def test_labels_of_some_records() -> None:
    """Labels are kept by the place of their record in the commit; a batch gives them to each of its
    records.
    """
    group = group_of(OsManaged())
    add(group, "a")
    assert group.add(b"b", 1, ("user:7",), Stage.FLUSHED, "b", 0)
    assert group.add_batch(batch_of("c", b"c", b"d", labels=("x", "y")), 0)
    assert group.add_batch(batch_of("e", b"e"), 0)
    assert submitted(group).labels == {1: ("user:7",), 2: ("x", "y"), 3: ("x", "y")}


def test_labels_that_the_forming_commit_takes_by_itself() -> None:
    """They count as those do that the group accepts, for the room as for the commit, and what has
    no room is left out whole.
    """
    group = group_of(OsManaged(), records=3, size=12)
    add(group, "a")
    group.open_to_all()
    commit = group.forming
    assert commit is not None
    assert commit.take_labelled(b"b", ("user:7",), "b", 4)
    assert not commit.take_labelled(b"cc", ("xyz",), "c", 5)  # 8 + 5 bytes
    assert (commit.size, commit.label_bytes, group.buffered_bytes) == (8, 6, 8)
    assert commit.take_labelled(b"d", ("xy", "z"), "d", 3)
    assert not commit.take_labelled(b"", ("z",), "e", 6)  # a fourth record
    assert (commit.payloads, commit.waiters) == ([b"a", b"b", b"d"], ["a", "b", "d"])
    assert (commit.labels, commit.timestamps) == ({1: ("user:7",), 2: ("xy", "z")}, [0, 4, 4])
    assert (commit.size, commit.label_bytes, group.buffered_bytes) == (12, 9, 12)


def test_who_is_given_the_receipts_of_a_whole_batch() -> None:
    """A caller of this process is; a client keeps count by itself, and needs the first alone."""
    group = group_of(OsManaged())
    assert group.add_batch(batch_of("a", b"a", b"b", key=(bytes(16), 7)), 5)
    commit = group.forming
    assert commit is not None
    assert not commit.whole
    of_producer = (bytes(16), PRODUCERS | 7)
    for waiter, key in (("c", None), ("d", of_producer)):
        commit.whole = False
        assert group.add_batch(batch_of(waiter, b"c", key=key), 6)
        assert commit.whole
    commit.first_sequence = 3
    assert [next(commit.receipts(index)) for index in (0, 2)] == [
        Receipt(3, 5, Stage.FLUSHED),
        Receipt(5, 6, Stage.FLUSHED),
    ]
    assert len(list(commit.receipts())) == 4


def test_the_size_of_labels() -> None:
    """Labels count for the buffer; how much of a commit's size they are is kept apart from its
    data.
    """
    group = group_of(OsManaged())
    add(group, "abc")
    assert group.add(b"d", 7, ("user:7",), Stage.FLUSHED, "d", 0)
    assert group.add_batch(
        Pending([b"e", b"fg"], 3 + 2 * 2, {0: ("xy",), 1: ("xy",)}, Stage.FLUSHED, "e", True), 0
    )
    commit = submitted(group)
    assert (commit.size, commit.label_bytes, group.buffered_bytes) == (17, 10, 17)


def test_batches_with_keys() -> None:
    """The key of a batch names its records by their place in the commit, also when it had to wait
    for room.
    """
    group = group_of(OsManaged(), records=4)
    writer = b"w" * 16
    add(group, "a")
    assert group.add_batch(batch_of("b", b"b", b"c", key=(writer, 7)), 0)
    group.wait(batch_of("d", b"d", b"e", key=(writer, 8)))
    assert submitted(group).keys == [Key(writer, 7, 1, 2)]
    group.complete(CommitResult(3, 0, 0))
    group.admit(0, lambda waiter: False)
    assert submitted(group).keys == [Key(writer, 8, 0, 2)]


def test_a_batch_among_others() -> None:
    """A batch is whole and in one piece, and only its first place has the waiter."""
    group = group_of(OsManaged())
    add(group, "a")
    add_batch(group, "b", b"1", b"2", b"3")
    add(group, "c")
    commit = submitted(group)
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
def test_the_strictest_member_decides(
    policy: SyncPolicy, stages: list[Stage], synced: bool
) -> None:
    """A commit is synced when a member asks for it or the policy owes it, and then all its receipts
    say so.
    """
    group = group_of(policy)
    for stage in stages:
        add(group, "a", stage=stage)
    assert submitted(group).sync is synced
    assert {receipt.stage for receipt in complete(group)} == {
        Stage.SYNCED if synced else Stage.FLUSHED
    }
    assert group.unsynced == (0 if synced else len(stages))


def test_a_strict_batch_among_others() -> None:
    """The stage of a batch counts like that of a record, before and after milder ones."""
    group = group_of(OsManaged())
    add_batch(group, "a", b"1", stage=Stage.SYNCED)
    add_batch(group, "b", b"2")
    add(group, "c")
    assert submitted(group).sync


def test_every_third_over_several_commits() -> None:
    """EveryN counts what was acknowledged and not synced: the commit that would reach n is synced;
    then it counts anew.
    """
    group = group_of(EveryN(3))
    assert [send(group, "a") for _ in range(7)] == [False, False, True, False, False, True, False]
    assert group.unsynced == 1
    assert [send(group, "a", "b") for _ in range(2)] == [True, False]


def test_more_synced_than_was_owed() -> None:
    """When the journal has synced for a reason of its own, the policy counts from there."""
    group = group_of(EveryN(3))
    send(group, "a", "b")
    add(group, "c", stage=Stage.SYNCED)
    submitted(group)
    group.complete(CommitResult(3, 3, 1))
    assert group.unsynced == 0
    assert not send(group, "d", "e")


def test_a_commit_that_has_grown_large() -> None:
    """A forming commit that has reached COMMIT_BYTES takes no more: the rest leaves with the next
    ones, in order.
    """
    group = group_of(OsManaged(), size=10 * COMMIT_BYTES)
    half = COMMIT_BYTES // 2
    for name, size in (("a", half), ("b", half - 1), ("c", 1), ("d", 0), ("e", 3 * half), ("f", 1)):
        assert group.add(name.encode(), size, (), Stage.FLUSHED, name, 0)
    members = []
    while (commit := group.submit()) is not None:
        members.append(commit.waiters)
        complete(group)
    assert members == [["a", "b", "c"], ["d", "e"], ["f"]]


@pytest.mark.parametrize(
    ("records", "size", "room"),
    [(1, 0, True), (1, 6, True), (1, 7, False), (2, 6, True), (2, 7, False), (3, 0, False)],
)
def test_room_for_so_much(records: int, size: int, room: bool) -> None:
    """There is room up to the last record and the last byte, counting what is under way; without it
    nothing is taken.
    """
    group = group_of(OsManaged(), records=4, size=10)
    add(group, "ab")
    submitted(group)
    add(group, "cd")
    if records == 1:
        assert group.add(b"e", size, (), Stage.FLUSHED, "e", 0) is room
    else:
        assert (
            group.add_batch(Pending([b"e"] * records, size, {}, Stage.FLUSHED, "e", True), 0)
            is room
        )
    assert (group.buffered_records, group.buffered_bytes) == (
        (2 + records, 4 + size) if room else (2, 4)
    )
    complete(group)
    assert submitted(group).payloads == [b"cd", *[b"e"] * (records if room else 0)]


def test_room_for_another_record() -> None:
    """A buffer that is full of records takes no more, however small."""
    group = group_of(OsManaged(), records=2)
    add(group, "", "")
    assert not group.add(b"", 0, (), Stage.FLUSHED, "c", 0)
    assert not group.add_batch(Pending([b""], 0, {}, Stage.FLUSHED, "c", True), 0)


def test_room_comes_back_when_a_commit_completes() -> None:
    """What is complete is out of the buffer; what waits is accepted in the order of the calls, as
    far as it fits.
    """
    group = group_of(OsManaged(), records=2, size=100)
    add(group, "a", "b")
    submitted(group)
    wait(group, "c", "d", "e")
    complete(group)
    group.admit(7, nobody_is_gone)
    commit = submitted(group)
    assert (commit.waiters, commit.timestamps) == (["c", "d"], [7, 7])
    assert [pending.waiter for pending in group.waiting] == ["e"]


@pytest.mark.parametrize("before", ["", "a", "abc"])
def test_an_admission_that_was_interrupted_before_it_accepted(before: str) -> None:
    """It is made once, whatever stands in front: a shorter commit than the batch, or none."""
    group = group_of(OsManaged())
    if before:
        add(group, *before)
    batch = batch_of("batch", b"1", b"2")
    group.wait(batch)
    group._admitting = batch
    group.admit(0, nobody_is_gone)
    commit = submitted(group)
    assert commit.waiters == [*before, "batch", None]
    assert not group.waiting


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
    submitted(group)
    group.wait(batch_of("b", b"1", b"2", b"3"))
    group.admit(0, nobody_is_gone)
    assert not group.is_forming
    complete(group)
    group.admit(0, nobody_is_gone)
    assert submitted(group).batches == {0: 3}


def test_who_is_gone_while_waiting_for_room() -> None:
    """A caller cancelled before its record was accepted is passed over, and leaves no gap."""
    group = group_of(OsManaged(), records=1, size=100)
    add(group, "a")
    submitted(group)
    wait(group, "b", "c", "d")
    complete(group)
    group.admit(0, {"b", "d"}.__contains__)
    assert submitted(group).waiters == ["c"]
    group.admit(0, {"b", "d"}.__contains__)
    assert not group.waiting


def test_a_record_larger_than_the_buffer_with_its_labels() -> None:
    """It waits until the buffer is empty and then goes alone: nobody waits for ever, and nobody
    beside it.
    """
    group = group_of(OsManaged(), size=10)
    assert group.add(b"0123456789", 12, ("xy",), Stage.FLUSHED, "a", 0)
    wait(group, "b")
    assert submitted(group).waiters == ["a"]
    large = Pending([b"0123456789"], 11, {0: ("x",)}, Stage.FLUSHED, "c", False)
    group.wait(large)
    complete(group)
    group.admit(0, nobody_is_gone)
    assert submitted(group).waiters == ["b"]
    assert list(group.waiting) == [large]
    complete(group)
    group.admit(0, nobody_is_gone)
    assert submitted(group).waiters == ["c"]
    assert not group.add(b"", 0, (), Stage.FLUSHED, "d", 0)
    assert not group.add_batch(batch_of("d", b""), 0)


def test_leaving_the_line() -> None:
    """Who is cancelled while it waits for room is out of the line at once, and those behind it are
    accepted if they fit.
    """
    group = group_of(OsManaged(), records=9, size=10)
    add(group, "abcdef")
    large, larger = batch_of("large", b"12345"), batch_of("larger", b"123456")
    group.waiting += [large, larger]
    wait(group, "b")
    group.leave_line(larger, 5, nobody_is_gone)
    assert [pending.waiter for pending in group.waiting] == ["large", "b"]
    group.leave_line(large, 5, nobody_is_gone)
    assert not group.waiting
    commit = submitted(group)
    assert (commit.waiters, commit.timestamps) == (["abcdef", "b"], [0, 5])


def test_leaving_a_line_that_has_moved_on() -> None:
    """Who was accepted meanwhile keeps its place in the log; one that is equal to it keeps its
    place in the line.
    """
    group = group_of(OsManaged(), records=1)
    add(group, "a")
    accepted, equal = batch_of("b", b"1"), batch_of("b", b"1")
    group.waiting += [accepted, equal]
    submitted(group)
    complete(group)
    group.admit(0, nobody_is_gone)
    group.leave_line(accepted, 0, nobody_is_gone)
    assert list(group.waiting) == [equal]
    assert submitted(group).waiters == ["b"]


@pytest.mark.parametrize("stage", [Stage.FLUSHED, Stage.SYNCED])
def test_a_barrier_with_nothing_to_wait_for(stage: Stage) -> None:
    """flush() and sync() have nothing to wait for when everything is on the disk."""
    group = group_of(Always())
    assert not group.barrier(stage, "barrier")
    send(group, "a")
    assert not group.barrier(stage, "barrier")
    assert not group.is_forming


def test_a_flush_of_what_was_acknowledged() -> None:
    """What was acknowledged is FLUSHED already, so flush() has nothing to wait for; sync() sends a
    commit of its own.
    """
    group = group_of(OsManaged())
    send(group, "a")
    assert not group.barrier(Stage.FLUSHED, "flush")
    assert group.barrier(Stage.SYNCED, "sync")
    commit = submitted(group)
    assert (len(commit), commit.sync, commit.barriers) == (0, True, ["sync"])
    assert complete(group) == []
    assert group.unsynced == 0


def test_a_barrier_behind_what_is_forming() -> None:
    """A barrier joins the last commit that is forming, and sync() has that commit synced."""
    group = group_of(OsManaged(), size=2 * COMMIT_BYTES)
    assert group.add(b"a", COMMIT_BYTES, (), Stage.FLUSHED, "a", 0)
    add(group, "b")
    assert group.barrier(Stage.SYNCED, "sync")
    assert group.barrier(Stage.FLUSHED, "flush")
    first = submitted(group)
    assert (first.barriers, first.sync) == ([], False)
    complete(group)
    second = submitted(group)
    assert (second.barriers, second.sync) == (["sync", "flush"], True)
    assert list(second.everyone()) == ["b", "sync", "flush"]


@pytest.mark.parametrize(("stage", "waits"), [(Stage.FLUSHED, True), (Stage.SYNCED, False)])
def test_a_barrier_behind_what_is_under_way(stage: Stage, waits: bool) -> None:
    """flush() waits for the commit that is under way; sync() only if that is synced, otherwise for
    one of its own.
    """
    group = group_of(OsManaged())
    add(group, "a")
    commit = submitted(group)
    assert group.barrier(stage, "barrier")
    assert commit.barriers == (["barrier"] if waits else [])
    assert group.is_forming is not waits
    synced = group_of(Always())
    add(synced, "a")
    commit = submitted(synced)
    assert synced.barrier(stage, "barrier")
    assert commit.barriers == ["barrier"]
    assert not synced.is_forming


def test_a_sync_that_nobody_waits_for() -> None:
    """The age timer has a sync done without a waiter, once and not again when all is synced."""
    group = group_of(EveryN(9))
    send(group, "a")
    assert group.barrier(Stage.SYNCED, None)
    commit = submitted(group)
    assert (commit.sync, commit.barriers) == (True, [])
    complete(group)
    assert not group.barrier(Stage.SYNCED, None)


def test_records_that_join_a_sync() -> None:
    """A commit that was begun by sync() takes the records that come before it leaves."""
    group = group_of(OsManaged())
    send(group, "a")
    assert group.barrier(Stage.SYNCED, "sync")
    add(group, "b")
    commit = submitted(group)
    assert (commit.waiters, commit.barriers, commit.sync) == (["b"], ["sync"], True)


def test_no_space_for_a_commit() -> None:
    """A refused commit is out of the buffer, its sequences go to the next one, and the barriers
    behind it are told too.
    """
    group = group_of(OsManaged(), next_sequence=4)
    add(group, "a")
    submitted(group)
    assert group.barrier(Stage.FLUSHED, "flush")
    add(group, "bcd")
    assert group.barrier(Stage.SYNCED, "sync")
    assert group.refused() == ["a", "flush", "sync"]
    group.refuse()
    assert (group.buffered_records, group.buffered_bytes, group.next_sequence, group.under_way) == (
        1,
        3,
        4,
        None,
    )
    following = submitted(group)
    assert (following.waiters, following.barriers) == (["bcd"], [])
    assert complete(group)[0].sequence == 4


def test_a_failed_store() -> None:
    """Everyone who waits for anything is handed over, once, and nothing is left to send."""
    group = group_of(OsManaged(), records=4, size=2 * COMMIT_BYTES)
    add(group, "a")
    submitted(group)
    group.barrier(Stage.FLUSHED, "flush")
    assert group.add(b"b", COMMIT_BYTES, (), Stage.FLUSHED, "b", 0)
    add_batch(group, "c", b"1", b"2")
    group.barrier(Stage.SYNCED, "sync")
    group.wait(batch_of("d", b"3", b"4"))
    assert group.everyone() == ["a", "flush", "b", "c", "sync", "d"]
    group.abandon()
    assert (group.buffered_records, group.buffered_bytes, group.under_way, group.is_forming) == (
        0,
        0,
        None,
        False,
    )
    assert not group.waiting
    assert group.everyone() == []


def test_a_loop_that_is_gone() -> None:
    """What was accepted and not submitted is handed over in order, to be synced."""
    group = group_of(OsManaged(), size=2 * COMMIT_BYTES)
    add(group, "a")
    submitted(group)
    assert group.add(b"b", COMMIT_BYTES, (), Stage.FLUSHED, "b", 0)
    add(group, "c")
    left = group.remaining()
    assert [(commit.waiters, commit.sync) for commit in left] == [(["b"], True), (["c"], True)]
    assert not group.is_forming
    assert group.remaining() == []


def test_records_with_times_of_their_own_have_a_commit_to_themselves() -> None:
    """They keep them; when they were accepted is known beside that, and what comes before and
    behind has the times of its acceptance.
    """
    group = group_of(Always())
    add(group, "a", now=7)
    group.open_to_all()
    batch = batch_of("old", b"1", b"2")
    batch.times = [3, 4]
    assert group.last_time == 7
    assert group.add_batch(batch, 9)
    assert taken(group, "b", now=9) == []
    add(group, "c", now=9)
    found = []
    for _ in range(3):
        commit = submitted(group)
        found.append((commit.payloads, commit.timestamps, commit.accepted, commit.time))
        complete(group)
    assert found == [
        ([b"a"], [7], [7], 7),
        ([b"1", b"2"], [3, 4], [9, 9], 9),
        ([b"c"], [9], [9], 9),
    ]
    assert group.last_time == 0
