"""group: whatever a store may do, in any order.

`Engine` does at random whatever a store may do to a GroupCommit and keeps a naive account of it:
plain lists of calls, searched and summed afresh each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aquipu.commit.buffer import COMMIT_BYTES, Pending
from aquipu.commit.group import GroupCommit
from aquipu.engine import Commit, CommitResult
from aquipu.policy import Always, EveryN, OsManaged, Stage, SyncPolicy
from aquipu.record import Receipt, labels_size
from tests.commit.situations import MIB


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
    accepted_at: int = 0
    """What the clock said when it was accepted."""
    timestamp: int | None = None
    """When it has submitted: within its commit no time is below the one before."""

    @property
    def payloads(self) -> list[bytes]:
        if self.batch:
            return [b"%d.%d" % (self.number, index) for index in range(self.count)]
        return [Heavy(b"%d.0" % self.number, self.size - self.label_bytes)]

    @property
    def label_bytes(self) -> int:
        if self.batch and self.labels:
            return self.size - sum(map(len, self.payloads))
        return labels_size(self.labels)

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
stages = st.sampled_from(
    [None, None, Stage.FLUSHED, Stage.SYNCED]
)  # None: what the policy asks for
sizes = st.integers(0, 3) | st.integers(0, 12).map(MIB.__mul__)
clocks = st.integers(0, 50)
of_labels = st.sampled_from([(), (), ("user:7",), ("a", "b")])


def is_gone(waiter: Waiter) -> bool:
    return isinstance(waiter, Call) and waiter.gone


class Heavy(bytes):
    """The one payload of a call, as long as it says."""

    def __new__(cls, data: bytes, size: int) -> Heavy:
        heavy = super().__new__(cls, data)
        heavy.size = size
        return heavy

    size: int

    def __len__(self) -> int:
        return self.size


class Engine(RuleBasedStateMachine):
    """A GroupCommit beside lists: what waits for room, what is accepted, what travels, what the log
    holds.
    """

    @initialize(
        policy=policies,
        records=st.integers(1, 8),
        mib=st.integers(9, 40),
        start=st.integers(0, 5),
        end=st.sampled_from(["end_by_completing", "end_by_failing", "end_by_leaving"]),
    )
    def open(self, policy: SyncPolicy, records: int, mib: int, start: int, end: str) -> None:
        self.policy, self.start = policy, start
        self.buffer_records, self.buffer_bytes = records, mib * MIB
        self.group: GroupCommit[Waiter] = GroupCommit(
            policy,
            next_sequence=start,
            synced_sequence=start,
            buffer_records=records,
            buffer_bytes=mib * MIB,
        )
        self.calls = 0
        self.queued: list[Call] = []  # wait for room
        self.accepted: list[Call] = []  # and neither under way nor told
        self.travelling: list[Call] | None = None
        self.barriers: list[Barrier] = []  # not yet told
        self.aged: list[
            tuple[Barrier, Commit[Waiter]]
        ] = []  # syncs that nobody waits for, with the commits that carry them
        self.log: list[Call] = []  # the call of each record that was acknowledged
        self.synced = 0  # so many of them are on the disk
        self.last_accepted = 0  # the number of a call
        self.sync_asked = (
            False  # of a commit that is forming, by a barrier that may have been told already
        )
        self.end = end  # the name of the method that ends it

    # what the account says

    def buffered(self) -> list[Call]:
        return [*(self.travelling or ()), *self.accepted]

    def fits(self, call: Call) -> bool:
        records = sum(other.count for other in self.buffered())
        size = sum(other.size for other in self.buffered())
        if not records and not call.batch:
            return (
                True  # with its labels it may be larger than the buffer, and must not wait for ever
            )
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
        call.accepted_at = now
        self.accepted.append(call)

    def accept_those_who_fit(self, now: int) -> None:
        while self.queued and (self.queued[0].gone or self.fits(self.queued[0])):
            call = self.queued.pop(0)
            if not call.gone:
                self.accept(call, now)

    # what callers do

    def new_call(
        self, sizes: Sequence[int], stage: Stage | None, labels: tuple[str, ...], batch: bool
    ) -> Call | None:
        """None for one that a store refuses at once: it could never be accepted."""
        call = Call(
            self.calls + 1, len(sizes), sum(sizes), stage or self.policy.stage, labels, batch
        )
        if batch and (call.count > self.buffer_records or call.size > self.buffer_bytes):
            return None
        self.calls += 1
        return call

    @rule(size=sizes, stage=stages, labels=of_labels, now=clocks, waits=st.booleans())
    def append(
        self, size: int, stage: Stage | None, labels: tuple[str, ...], now: int, waits: bool
    ) -> None:
        call = self.new_call([size + labels_size(labels)], stage, labels, batch=False)
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
        """As a store does it: what asks for nothing of its own, the forming commit may take by
        itself.
        """
        if stage is None and self.is_taken(call, now):
            return True
        added = self.group.add(call.payloads[0], call.size, call.labels, call.stage, call, now)
        if added and stage is None:
            self.group.open_to_all()
        return added

    def is_taken(self, call: Call, now: int) -> bool:
        forming = self.group.forming
        if forming is None:
            return False
        if not call.labels:
            return forming.take(call.payloads[0], call, now)
        return forming.take_labelled(call.payloads[0], call.labels, call, now)

    @rule(sizes=st.lists(sizes, min_size=1, max_size=4), stage=stages, labels=of_labels, now=clocks)
    def append_many(
        self, sizes: list[int], stage: Stage | None, labels: tuple[str, ...], now: int
    ) -> None:
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
            forming = self.group.forming
            carrier = forming if forming is not None else self.group.under_way
            assert carrier is not None
            self.aged.append((barrier, carrier))
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
    def submit(self) -> None:
        commit = self.group.submit()
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
        """It is synced when a member or a barrier asks for it or the policy owes it, and not
        without a reason.
        """
        waiters: list[Waiter] = [*members, *self.joined(commit)]
        if (
            any(waiter.stage is Stage.SYNCED for waiter in waiters)
            or self.owes(len(commit))
            or not members
        ):
            assert commit.sync
        else:
            assert not commit.sync or self.sync_asked

    def joined(self, commit: Commit[Waiter]) -> list[Barrier]:
        assert all(barrier in self.barriers for barrier in commit.barriers)
        return [barrier for barrier in self.barriers if barrier in commit.barriers]

    def check_members(self, commit: Commit[Waiter], members: list[Call]) -> None:
        """The commit holds these calls whole, in this order, with all that belongs to them."""
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
        for call, timestamp in zip(
            members, accumulate((call.accepted_at for call in members), max), strict=True
        ):
            call.timestamp = timestamp
        assert commit.timestamps == [call.timestamp for call in members for _ in range(call.count)]
        assert list(commit.everyone()) == [*members, *commit.barriers]

    @precondition(lambda self: self.travelling is not None)
    @rule(now=clocks, synced_anyway=st.booleans())
    def complete(self, now: int, synced_anyway: bool) -> None:
        """Also when the journal has synced more than it owed, because it has rolled."""
        assert self.group.under_way is not None
        assert self.travelling is not None
        self.log += [call for call in self.travelling for _ in range(call.count)]
        if self.group.under_way.sync or synced_anyway:
            self.synced = len(self.log)
        first = self.group.next_sequence
        commit = self.group.complete(
            CommitResult(self.start + len(self.log), self.start + self.synced, 0)
        )
        self.check_receipts(list(commit.receipts()), first, self.travelling)
        self.travelling = None
        for barrier in self.joined(commit):
            self.check_barrier(barrier)
            self.barriers.remove(barrier)
        for aged in [aged for aged in self.aged if aged[1] is commit]:
            self.check_barrier(aged[0])
            self.aged.remove(aged)
        self.check_bound()
        self.admit(now)

    def check_receipts(self, receipts: list[Receipt], first: int, members: list[Call]) -> None:
        """Dense sequences, the times of acceptance, and at least the stage that was asked for,
        which has been reached.
        """
        expected = [(call, call.timestamp) for call in members for _ in range(call.count)]
        assert [receipt.sequence for receipt in receipts] == list(
            range(first, first + len(expected))
        )
        for receipt, (call, timestamp) in zip(receipts, expected, strict=True):
            assert receipt.timestamp == timestamp
            assert receipt.stage >= call.stage
            assert receipt.stage is not Stage.SYNCED or receipt.sequence < self.start + self.synced

    def check_barrier(self, barrier: Barrier) -> None:
        """All that was accepted before it has reached its stage."""
        reached = self.log if barrier.stage is Stage.FLUSHED else self.log[: self.synced]
        assert all(call in reached for call in barrier.behind)

    def check_bound(self) -> None:
        """What a power cut could take of the acknowledged records is within the policy, at every
        completion.
        """
        at_risk = self.log[self.synced :]
        assert self.group.unsynced == len(at_risk)
        assert all(call.stage is not Stage.SYNCED for call in at_risk)
        if isinstance(self.policy, EveryN):
            assert len(at_risk) <= self.policy.n - 1

    @precondition(lambda self: self.travelling is not None)
    @rule(now=clocks)
    def refuse(self, now: int) -> None:
        """The sync that it carried is gone with it: the worker syncs what is old by itself."""
        assert self.travelling is not None
        self.aged = [aged for aged in self.aged if aged[1] is not self.group.under_way]
        told = self.group.refused()
        self.group.refuse()
        self.check_all_told(told, [*self.travelling, *self.barriers])
        for call in self.travelling:
            for barrier, _ in self.aged:
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
        self.group.waiting.clear()
        self.queued.clear()

    def end_by_failing(self) -> None:
        everyone: list[Waiter] = [*self.buffered(), *self.barriers, *self.queued]
        self.check_all_told(self.group.everyone(), everyone)
        self.group.abandon()
        assert (self.group.buffered_records, self.group.buffered_bytes) == (0, 0)
        assert not self.group.is_forming
        assert not self.group.waiting
        assert self.group.submit() is None

    def end_by_leaving(self) -> None:
        left: list[Waiter] = []
        for commit in self.group.remaining():
            assert commit.sync
            left += [waiter for waiter in commit.waiters if waiter is not None]
        assert left == self.accepted
        assert not self.group.is_forming

    def end_by_completing(self) -> None:
        """Whatever had been going on, commits go round until there are none: nobody is left
        waiting.
        """
        while self.travelling is not None or self.group.is_forming:
            if self.travelling is not None:
                self.complete(0, synced_anyway=False)
            self.submit()
        assert not [*self.buffered(), *self.barriers, *self.queued]
        assert (self.group.buffered_records, self.group.buffered_bytes) == (0, 0)
        assert not self.aged

    def teardown(self) -> None:
        getattr(self, self.end)()

    @invariant()
    def is_within_its_bounds(self) -> None:
        assert (
            self.group.buffered_records
            == sum(call.count for call in self.buffered())
            <= self.buffer_records
        )
        assert self.group.buffered_bytes == sum(call.size for call in self.buffered())
        assert self.group.buffered_bytes <= self.buffer_bytes or self.group.buffered_records == 1
        assert self.group.next_sequence == self.start + len(self.log)
        assert self.group.synced_sequence == self.start + self.synced
        assert self.group.is_forming or not self.accepted


@pytest.mark.parametrize("examples", [50, pytest.param(300, marks=pytest.mark.proof)])
def test_whatever_a_store_may_do(examples: int) -> None:
    """Order, bounds, batches, barriers, receipts and the policy hold through any calls, refusals
    and failures.
    """
    run_state_machine_as_test(
        Engine,
        settings=settings(
            deadline=None,
            max_examples=examples,
            stateful_step_count=50,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
