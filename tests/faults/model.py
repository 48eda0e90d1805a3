"""A store against a list in memory: hypothesis finds the sequence of events that breaks it.

Appends by many callers, some of whom are cancelled; batches; flush and sync; the kill of the
process and of the power; a clean reopening; a failing sync; a disk that fills up and is freed;
rolls, because the segments are small; holds and purges; cursors; tables that are built, damaged and
lost, and what is found by them; segments that are compressed. After each event the store holds
exactly what the list says from its first sequence on, at the same sequences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from errno import EIO, ENOSPC
from random import Random
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aquipu import (
    Always,
    AquipuError,
    EveryN,
    Receipt,
    Record,
    RecordNotWrittenError,
    Stage,
    Store,
    StoreFailedError,
    StoreFullError,
    SyncPolicy,
)
from tests.faults.crashes import PATH, POLICIES, loss_bound, small_strides
from tests.faults.index import build_tables, misfound
from tests.faults.tally import Tally
from tests.faults.volatile_disk import Failure, Fault, Replay, VolatileDisk

T = TypeVar("T")

_SEGMENT_BYTES = 4096
_SECONDS = 20.0  # nobody waits for ever; an event takes milliseconds
_DATA = st.binary(max_size=40) | st.integers(200, 900).map(bytes)
_FULL = bytes(_SEGMENT_BYTES)
_POLICIES = (*POLICIES, EveryN(3, within=None))
_RELATIONS = ((), ("a",), ("a", "b"))


def _relations(data: bytes) -> tuple[str, ...]:
    """The labels that a record with this data carries: so the list need not tell of them."""
    return _RELATIONS[len(data) % len(_RELATIONS)]


def _alike(data: list[bytes]) -> list[bytes]:
    """A batch, whose records carry the same labels: each as long as that needs."""
    return [payload + bytes((len(data[0]) - len(payload)) % len(_RELATIONS)) for payload in data]


class StoreModel(RuleBasedStateMachine):
    """The events, and what must hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.strides = small_strides()
        self.strides.__enter__()
        self.disk = VolatileDisk()
        self.records: list[bytes] = []
        self.synced = 0
        """How many of them were promised to be SYNCED."""
        self.first = 0
        """The first of them that was not purged."""
        self.holds: dict[str, int] = {}
        self.cursors: dict[str, int] = {}
        self.sync_fault: Failure | None = None
        self.is_full = False

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.disk.kill_process()
            self._run(self._bury())
        self.runner.close()
        self.strides.__exit__(None, None, None)

    @initialize(
        policy=st.sampled_from(_POLICIES), one_call_syncs=st.booleans(), compress=st.booleans()
    )
    def begin(self, policy: SyncPolicy, one_call_syncs: bool, compress: bool) -> None:
        self.policy = policy
        self.compress = compress
        self.disk = VolatileDisk(trap=self._trap, one_call_syncs=one_call_syncs)
        self._run(self._open())

    # events

    @rule(
        data=st.lists(_DATA, min_size=1, max_size=12),
        cancelled=st.sets(st.integers(0, 11)),
        ticks=st.integers(1, 3),
    )
    def append(self, data: list[bytes], cancelled: set[int], ticks: int) -> None:
        """All of them are accepted, and so written; the cancelled callers do not hear of it, and
        disturb nobody.
        """
        answers = self._run(self._append_all(data, cancelled, ticks))
        if self.is_full or self.sync_fault is not None:
            self._settle(data, answers)
            return
        first = len(self.records)
        self.records += data
        for index, answer in enumerate(answers):
            if isinstance(answer, asyncio.CancelledError):
                assert index in cancelled, "a caller was cancelled by its neighbour"
            else:
                assert isinstance(answer, Receipt), answer
                assert answer.sequence == first + index
                self._promise(answer)

    @precondition(lambda self: not self.is_full and self.sync_fault is None)
    @rule(
        data=st.lists(_DATA, max_size=12),
        durability=st.sampled_from((None, Stage.FLUSHED, Stage.SYNCED)),
    )
    def append_many(self, data: list[bytes], durability: Stage | None) -> None:
        if isinstance(self.policy, Always):
            durability = None  # less would be a promise of less: not what Always is judged by
        first, data = len(self.records), _alike(data)
        relations = _relations(data[0]) if data else ()
        receipts = self._run(
            self.store.append_many(data, relations=relations, durability=durability)
        )
        self.records += data
        assert [receipt.sequence for receipt in receipts] == list(range(first, len(self.records)))
        for receipt in receipts:
            self._promise(receipt)

    @precondition(lambda self: self.sync_fault is None)
    @rule()
    def flush(self) -> None:
        self._run(self.store.flush())

    @precondition(lambda self: self.sync_fault is None)
    @rule()
    def sync(self) -> None:
        self._run(self.store.sync())
        self.synced = len(self.records)
        assert self.store.synced_sequence == self.store.next_sequence

    @precondition(lambda self: not self.is_full and self.sync_fault is None)
    @rule(segments=st.integers(1, 3))
    def fill_segments(self, segments: int) -> None:
        """So many segments are rolled."""
        for _ in range(segments):
            self._promise(self._run(self._append(_FULL)))
            self.records.append(_FULL)

    @precondition(lambda self: self.sync_fault is None)
    @rule(back=st.integers(0, 30), dry_run=st.booleans())
    def purge(self, back: int, dry_run: bool) -> None:
        """Whole segments go, none behind the bound or a hold; on a full disk nothing goes."""
        bound = max(len(self.records) - back, 0)
        purge = self.store.purge(before=bound, dry_run=dry_run)
        if self.is_full and not dry_run:
            with suppress(StoreFullError):
                assert self._run(purge).segments == 0
            return
        purged = self._run(purge)
        assert purged.first_sequence_before == self.first
        assert (
            self.first
            <= purged.first_sequence
            <= max(self.first, min(bound, *self.holds.values(), len(self.records)))
        )
        assert purged.records == purged.first_sequence - self.first
        if not dry_run:
            self.first = purged.first_sequence

    @precondition(lambda self: not self.is_full and self.sync_fault is None)
    @rule(name=st.sampled_from(("backup", "audit")), share=st.floats(0, 1))
    def hold(self, name: str, share: float) -> None:
        sequence = self.first + int(share * (len(self.records) - self.first))
        self._run(self.store.hold(name, sequence))
        self.holds[name] = sequence

    @precondition(lambda self: self.sync_fault is None)
    @rule(name=st.sampled_from(("backup", "audit")))
    def release(self, name: str) -> None:
        assert self._run(self.store.release(name)) == (self.holds.pop(name, None) is not None)

    @precondition(lambda self: self.sync_fault is None)
    @rule(name=st.sampled_from(("billing", "search")), back=st.integers(-2, 30))
    def save(self, name: str, back: int) -> None:
        """What lies before a cursor is synced; one beyond the end is refused.

        On a full disk a cursor stays what it was.
        """
        sequence = max(len(self.records) - back, 0)
        if sequence > len(self.records):
            with pytest.raises(RecordNotWrittenError):
                self._run(self.store.cursor(name).save(sequence))
            return
        if self.is_full:
            with pytest.raises(StoreFullError):
                self._run(self.store.cursor(name).save(sequence))
            return
        self._run(self.store.cursor(name).save(sequence))
        self.cursors[name] = sequence
        self.synced = max(self.synced, sequence)

    @precondition(lambda self: self.sync_fault is None)
    @rule()
    def build_tables(self) -> None:
        """Beside that, full segments are compressed; on a full disk nothing comes of either."""
        self._run(build_tables(self.store))

    @precondition(lambda self: self.sync_fault is None)
    @rule(pick=st.integers(0), bit=st.integers(0), lost=st.booleans())
    def spoil_a_table(self, pick: int, bit: int, lost: bool) -> None:
        """A bit of a table is another one, or the table is gone."""
        self.disk.spoil(".relations", pick, None if lost else bit)

    @precondition(lambda self: self.sync_fault is None)
    @rule()
    def find(self) -> None:
        """By its labels each record is found, and no other."""
        kept = enumerate(self.records[self.first :], self.first)
        records = [Record(sequence, 0, data, _relations(data)) for sequence, data in kept]
        assert self._run(misfound(self.store, records, ("a", "b", "c"))) is None

    @precondition(lambda self: not self.is_full)
    @rule()
    def reopen(self) -> None:
        if self.sync_fault is not None:
            self._look_for([])
        else:
            self._run(self.store.aclose())
            self._run(self._open())

    @precondition(lambda self: not self.is_full and self.sync_fault is None)
    @rule()
    def lose_the_process(self) -> None:
        """No acknowledged record is lost under any policy."""
        self.disk.kill_process()
        self._run(self._bury())
        self._run(self._open())

    @precondition(lambda self: not self.is_full and self.sync_fault is None)
    @rule(seed=st.integers(0, 2**32), pick=st.integers(0, 6))
    def lose_the_power(self, seed: int, pick: int) -> None:
        """No more acknowledged records are lost than the policy allows, and what is left is a
        prefix.
        """
        replay = Replay(self.disk)
        for event in self.disk.log:
            replay.take(event)
        states = list(replay.states(Random(seed), 2))
        self.disk.kill_process()
        self._run(self._bury())
        self.disk = VolatileDisk(states[pick % len(states)], trap=self._trap)
        self.store = self._run(self._opened())
        kept, bound = self.store.next_sequence, loss_bound(self.policy)
        assert self.synced <= kept <= len(self.records)
        assert bound is None or len(self.records) - kept <= bound
        self.records = self.records[:kept]
        self.synced = kept

    @precondition(lambda self: not self.is_full)
    @rule(failure=st.sampled_from(Failure))
    def break_the_sync(self, failure: Failure) -> None:
        """From now on, until the next opening, syncing fails."""
        self.sync_fault = failure

    @precondition(lambda self: self.sync_fault is None)
    @rule()
    def fill_the_disk(self) -> None:
        self.is_full = True

    @precondition(lambda self: self.is_full)
    @rule(data=_DATA)
    def free_the_disk(self, data: bytes) -> None:
        """The same store goes on, with no gap."""
        self.is_full = False
        receipt = self._run(self._append(data))
        assert receipt.sequence == len(self.records)
        self.records.append(data)
        self._promise(receipt)

    @invariant()
    def holds_what_it_should(self) -> None:
        if hasattr(self, "store") and self.sync_fault is None:
            assert self._run(self._read()) == self.records[self.first :]
            assert self._run(self.store.holds()) == self.holds
            for name in ("billing", "search"):
                assert self._run(self.store.cursor(name).load()) == self.cursors.get(name)
            assert self.store.first_sequence == self.first
            assert self.store.next_sequence == len(self.records)
            assert self.store.synced_sequence >= self.synced

    # how

    def _trap(self, call: str, count: int) -> Fault | None:
        if self.is_full and call in ("write", "write_synced", "create"):
            return Fault(ENOSPC, part=0.5)
        if self.sync_fault is not None and call in ("sync", "write_synced"):
            return Fault(EIO, failure=self.sync_fault)
        return None

    def _promise(self, receipt: Receipt) -> None:
        if receipt.stage is Stage.SYNCED:
            self.synced = max(self.synced, receipt.sequence + 1)

    def _settle(self, data: list[bytes], answers: list[Receipt | BaseException]) -> None:
        """The disk was full, or its sync failed.

        Refused records are gone; those of unknown outcome are looked for.
        """
        unknown: list[bytes] = []
        for payload, answer in zip(data, answers, strict=True):
            if isinstance(answer, Receipt):
                assert not self.is_full, "stored on a full disk"
                self.records += [*unknown, payload]  # callers that were cancelled before it
                unknown.clear()
                assert answer.sequence == len(self.records) - 1
                self._promise(answer)
            elif not isinstance(answer, StoreFullError):
                assert isinstance(answer, (StoreFailedError, asyncio.CancelledError)), answer
                unknown.append(payload)
        if self.sync_fault is not None:
            self._look_for(unknown)

    def _look_for(self, unknown: list[bytes]) -> None:
        """Open the store again: what it holds beyond the acknowledged records must be those of
        unknown outcome.
        """
        acknowledged = self.records
        kept = self.sync_fault is not Failure.REVERTED
        with suppress(AquipuError):
            self._run(self.store.aclose())
        self.sync_fault = None
        self.store = self._run(self._opened())
        found = self.records[: self.first] + self._run(
            self._read()
        )  # those before are what they were
        if kept:
            assert found[: len(acknowledged)] == acknowledged
            rest = iter(unknown)
            assert all(data in rest for data in found[len(acknowledged) :])
        else:
            assert len(found) >= self.synced
            assert found[: self.synced] == acknowledged[: self.synced]
        self.records, self.synced = found, len(found)

    async def _append(self, data: bytes) -> Receipt:
        return await self.store.append(data, relations=_relations(data))

    async def _append_all(
        self, data: list[bytes], cancelled: set[int], ticks: int
    ) -> list[Receipt | BaseException]:
        tasks = [asyncio.ensure_future(self._append(payload)) for payload in data]
        for _ in range(ticks):
            await asyncio.sleep(0)
        for index in cancelled:
            if index < len(tasks):
                tasks[index].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(AquipuError):
            await self.store.flush()  # those of the cancelled callers have arrived as well
        return answers

    async def _read(self) -> list[bytes]:
        return [record.data async for record in self.store.scan()]

    async def _opened(self) -> Store:
        return await Store.open(
            PATH,
            sync_policy=self.policy,
            max_segment_bytes=_SEGMENT_BYTES,
            compress=self.compress,
            lock_timeout=0,
            disk=self.disk,
        )

    async def _open(self) -> None:
        self.store = await self._opened()
        self.synced = len(self.records)

    async def _bury(self) -> None:
        with suppress(AquipuError):
            await self.store.aclose()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(_in_time(coroutine))


async def _in_time(coroutine: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(_SECONDS):
        return await coroutine


def _seeded() -> type[StoreModel]:
    """Return a model of its own for a seed, which stays with the class."""

    class Seeded(StoreModel):
        pass

    return Seeded


def check(examples: int, steps: int = 25, *, shrink: bool = True, seed: int | None = None) -> None:
    """Run the model; raises what breaks it: with ``shrink``, the shortest sequence of events that
    does. Without a seed the examples are always the same.
    """
    model = StoreModel if seed is None else hypothesis.seed(seed)(_seeded())
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=True,
            phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )


def run(size: int, seed: int, tick: Callable[[int], None]) -> Tally:
    """Run the model with so many examples, which follow from the seed."""
    tally = Tally()
    try:
        check(size, shrink=False, seed=seed)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        tally.violated(f"model: {error!r}")
    tally.counts["examples of the model"] += size
    tick(size)
    return tally
