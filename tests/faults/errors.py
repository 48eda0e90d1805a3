"""Every call to the disk fails, in every way.

One scenario (open, bursts of appends and batches, a sync, rolls, holds and purges, tables and what
is found by them, a cursor, a close, a second opening) is run once for each call that it makes, each
error, and each thing that the error may leave behind: half of a write, or what a failed fdatasync
does to its pages. Then the process dies, or the power does, and the store is opened again on a
sound disk. It must hold:

* every future ends, in a receipt or in an error of the tree;
* after a failed sync of the log that store issues no further call that writes or syncs; that a
  directory could not be opened for its sync, for a reason that passes, is none;
* what was acknowledged is there, as the policy bounds it, and reads back as it was written;
* the log begins where it began before a purge that failed, or where that purge was to bring it,
  never behind a hold;
* a cursor is the one that was saved last, or one that could not be saved and whose caller was told
  so;
* by their labels just those records are found that are there; a table that could not be built is
  built later;
* what was refused for lack of space is not there; what failed with its outcome unknown may be, in
  the order of the calls.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from errno import EACCES, EDQUOT, EINTR, EIO, EMFILE, ENOMEM, ENOSPC, errorcode
from itertools import product
from random import Random
from tempfile import TemporaryDirectory
from unittest.mock import patch

from aquipu import (
    AquipuError,
    Receipt,
    Record,
    Stage,
    Store,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    SyncPolicy,
)
from aquipu.local.disk.os_errors import is_passing
from tests.faults.crashes import PATH, POLICIES, loss_bound, small_strides
from tests.faults.index import CURSOR, LABELS, build_tables, misfound, misindexed, settled
from tests.faults.inline import run_inline
from tests.faults.tally import ENOUGH, Tally
from tests.faults.volatile_disk import Failure, Fault, Files, Replay, VolatileDisk

ERRORS = (EIO, ENOSPC, EDQUOT, EINTR, EMFILE, EACCES, ENOMEM)
_CHANGING = frozenset(
    {"create", "write", "write_synced", "sync", "truncate", "rename", "remove", "sync_directory"}
)
_FOUND_SHARE = 0.03  # of the openings: finding takes longer than all the rest
_SECONDS = 30.0  # nothing may wait for ever; a run takes some milliseconds


@dataclass(frozen=True)
class Case:
    """Which call of the scenario fails, and how."""

    policy: SyncPolicy
    call: int
    fault: Fault
    lasting: bool
    """The same kind of call fails from then on, until the process ends."""

    def __str__(self) -> str:
        how = f"{errorcode[self.fault.error]}, part {self.fault.part}, {self.fault.failure.name}"
        return (
            f"{type(self.policy).__name__}, call "
            f"{self.call}{' and later' if self.lasting else ''}: {how}"
        )


@dataclass
class Machine:
    """A disk whose calls are traced, and one of which may fail."""

    case: Case | None
    trace: list[str] = field(default_factory=list)
    failed: str | None = None
    """The call that failed."""
    after: int = 0
    """Length of the trace at that moment."""
    failed_beside: bool = False
    """It was a call beside the log: a failed sync there says nothing of the log."""
    is_beside: bool = False

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Nothing is done to the log itself."""
        self.is_beside = True
        try:
            yield
        finally:
            self.is_beside = False

    def trap(self, call: str, count: int) -> Fault | None:
        self.trace.append(call)
        case = self.case
        if case is None or count < case.call:
            return None
        if count == case.call:
            self.failed, self.after, self.failed_beside = call, len(self.trace), self.is_beside
            return case.fault
        return case.fault if case.lasting and call == self.failed else None


@dataclass
class Outcome:
    """What the callers were told."""

    stored: dict[int, bytes] = field(default_factory=dict)
    synced: int = 0
    """One past the last sequence promised to be SYNCED."""
    refused: set[bytes] = field(default_factory=set)
    unknown: list[bytes] = field(default_factory=list)
    poisoned: bool = False
    first_sequence: int = 0
    """Where the log begins, as far as the last purge has told ..."""
    purging: set[int] = field(default_factory=set)
    """... and where it may begin when a purge has told nothing."""
    held: int | None = None
    """The hold that was set, as far as was told ..."""
    holding: set[int] = field(default_factory=set)
    """... and those of which nothing was told."""
    cursor: int | None = None
    """The cursor that was saved last ..."""
    saving: set[int] = field(default_factory=set)
    """... and those since that could not be saved."""
    wrong: list[str] = field(default_factory=list)
    """What they were told of a cursor, or of what is found by relation, and is not so."""

    @property
    def acknowledged(self) -> int:
        return 1 + max(self.stored, default=-1)

    def told(self, data: bytes, answer: Receipt | BaseException) -> None:
        """The answer to one append."""
        if isinstance(answer, Receipt):
            self.stored[answer.sequence] = data
            if answer.stage is Stage.SYNCED:
                self.synced = max(self.synced, answer.sequence + 1)
        elif isinstance(answer, StoreFullError):
            self.refused.add(data)
        elif isinstance(answer, AquipuError):
            self.unknown.append(data)
            self.poisoned = self.poisoned or isinstance(answer, StoreFailedError)
        else:
            raise answer

    def loaded(self, cursor: int | None) -> None:
        """What a cursor is said to be."""
        if cursor not in {self.cursor} | self.saving:
            self.wrong.append(
                f"the cursor is {cursor} instead of {self.cursor} or one of {self.saving}"
            )


async def _scenario(
    disk: VolatileDisk, policy: SyncPolicy, outcome: Outcome, machine: Machine
) -> None:
    """Two sessions, as a program would have them that takes each error and goes on."""
    number = iter(range(10_000))

    def data() -> bytes:
        return b"%d " % next(number) * 120

    def relations(data: bytes) -> tuple[str, ...]:
        return LABELS[: int(data.split()[0]) % 3]

    for session in range(2):
        try:
            store = await Store.open(
                PATH, sync_policy=policy, max_segment_bytes=4096, lock_timeout=0, disk=disk
            )
        except AquipuError:
            continue
        outcome.synced = max(outcome.synced, store.next_sequence)
        for burst in (1, 3, 1, 8, 2):
            payloads = [data() for _ in range(burst)]
            appends = [store.append(payload, relations=relations(payload)) for payload in payloads]
            answers = await asyncio.gather(*appends, return_exceptions=True)
            for payload, answer in zip(payloads, answers, strict=True):
                outcome.told(payload, answer)
        batch = [data(), data(), data()]
        for payload, answer in zip(batch, await _answers(store, batch), strict=True):
            outcome.told(payload, answer)
        if session:  # there are some segments now
            with suppress(AquipuError):
                await _consume(store, outcome, machine)
        with suppress(AquipuError):
            await _let_go(store, outcome)
        with suppress(AquipuError):
            await store.sync()
            outcome.synced = max(outcome.synced, outcome.acknowledged)
        with suppress(AquipuError):
            await store.aclose()
            outcome.synced = max(outcome.synced, outcome.acknowledged)


async def _consume(store: Store, outcome: Outcome, machine: Machine) -> None:
    """Tables are built, finding by relation gives what is there, and a cursor is saved."""
    await settled(store)
    await store.sync()  # else the cursor would sync the log as it is saved, which is not beside it
    with machine.beside():
        await build_tables(store)
        with suppress(AquipuError):
            found = [record async for record in store.scan()]
            outcome.wrong += filter(None, [await misfound(store, found, LABELS[1:])])
        with suppress(AquipuError):
            outcome.loaded(await store.cursor(CURSOR).load())
        outcome.saving.add(store.next_sequence)
        with suppress(StoreUnavailableError, StoreFullError):
            await store.cursor(CURSOR).save(store.next_sequence)
            outcome.cursor = store.next_sequence
            outcome.saving.clear()


async def _let_go(store: Store, outcome: Outcome) -> None:
    """A purge of everything that can go, of which a hold keeps a part; then the hold is set further
    on.
    """
    for part in (3, 2):
        sequence = store.next_sequence - (store.next_sequence - store.first_sequence) // part
        try:
            outcome.holding.add(sequence)
            await store.hold("held", sequence)
            outcome.held = sequence
            told = await store.purge(before=store.next_sequence, dry_run=True)
            outcome.purging.add(told.first_sequence)
            purged = await store.purge(before=store.next_sequence)
            outcome.first_sequence = purged.first_sequence
        except StoreFailedError:  # of these two, nobody knows
            raise
        except AquipuError:
            pass
        outcome.holding.clear()
        outcome.purging.clear()


async def _answers(store: Store, batch: list[bytes]) -> Sequence[Receipt | BaseException]:
    try:
        return await store.append_many(batch)
    except AquipuError as error:
        return [error] * len(batch)


async def _judge(
    case: Case,
    machine: Machine,
    disk: VolatileDisk,
    outcome: Outcome,
    random: Random,
    tally: Tally,
) -> None:
    """Hold what was called against the rules, and open what is left: after a power cut, after the
    kill of the process, and after a power cut that follows that opening.
    """
    for wrong in outcome.wrong:
        tally.violated(f"{case}: {wrong}")
    not_begun = machine.failed == "sync_directory" and is_passing(OSError(case.fault.error, ""))
    if machine.failed in ("sync", "sync_directory") and not machine.failed_beside and not not_begun:
        later = machine.trace[machine.after :]
        session = later[: later.index("try_lock")] if "try_lock" in later else later
        again = _CHANGING.intersection(session)
        if again:
            tally.violated(
                f"{case}: after the failed sync the disk was called again: {sorted(again)}"
            )
    bound = loss_bound(case.policy)
    for files in _states(disk, random):
        await _open_and_judge(
            case, VolatileDisk(files), outcome, random, tally, lost=bound, synced=outcome.synced
        )
    disk.trap = None
    disk.kill_process()
    kept = case.fault.failure is not Failure.REVERTED or (
        machine.failed_beside and not case.lasting
    )
    found = await _open_and_judge(
        case, disk, outcome, random, tally, lost=0 if kept else bound, synced=outcome.synced
    )
    for files in _states(disk, random):
        await _open_and_judge(
            case, VolatileDisk(files), outcome, random, tally, lost=None, synced=found
        )


def _states(disk: VolatileDisk, random: Random) -> Iterator[Files]:
    """What a power cut now may leave."""
    replay = Replay(disk)
    for event in disk.log:
        replay.take(event)
    return replay.states(random, 1)


async def _open_and_judge(
    case: Case,
    disk: VolatileDisk,
    outcome: Outcome,
    random: Random,
    tally: Tally,
    *,
    lost: int | None,
    synced: int,
) -> int:
    """Open a sound disk, hold the records against what the callers were told, and tell how many
    there are.
    """
    tally.counts["openings after an error"] += 1
    try:
        store = await Store.open(PATH, lock_timeout=0, disk=disk)
    except AquipuError as error:
        tally.violated(f"{case}: a sound disk is refused: {error!r}")
        return 0
    try:
        found = [record async for record in store.scan()]
        holds = await store.holds()
        await _judge_beside(case, store, found, outcome, random, tally)
    except AquipuError as error:
        tally.violated(f"{case}: what was opened cannot be read: {error!r}")
        return 0
    finally:
        await store.aclose()
    _judge_begin(case, store, holds, outcome, tally)
    following = store.next_sequence
    if [record.sequence for record in found] != list(range(store.first_sequence, following)):
        tally.violated(f"{case}: what the store says it keeps is not there")
    extra = [record.data for record in found if record.sequence not in outcome.stored]
    if any(outcome.stored.get(record.sequence, record.data) != record.data for record in found):
        tally.violated(f"{case}: a record reads back other than it was written")
    if any(data in outcome.refused for data in extra):
        tally.violated(f"{case}: a record is there that was refused")
    if extra != [data for data in outcome.unknown if data in extra]:
        tally.violated(f"{case}: records are there that were not written, or in another order")
    if following < synced:
        tally.violated(f"{case}: {synced - following} SYNCED records are missing")
    if lost is not None and outcome.acknowledged - following > lost:
        tally.violated(
            f"{case}: {outcome.acknowledged - following} acknowledged records are missing"
        )
    return following


async def _judge_beside(
    case: Case, store: Store, found: list[Record], outcome: Outcome, random: Random, tally: Tally
) -> None:
    """The cursor, and what is found by relation."""
    outcome.wrong.clear()
    outcome.loaded(await store.cursor(CURSOR).load())
    if random.random() < _FOUND_SHARE:
        outcome.wrong += filter(None, [await misindexed(store, found)])
    for wrong in outcome.wrong:
        tally.violated(f"{case}: {wrong}")


def _judge_begin(
    case: Case, store: Store, holds: dict[str, int], outcome: Outcome, tally: Tally
) -> None:
    """Where the log begins, and what is held."""
    if store.first_sequence not in {outcome.first_sequence} | outcome.purging:
        tally.violated(
            f"{case}: the log begins with {store.first_sequence}, which no purge has told"
        )
    if holds.get("held") not in {outcome.held} | outcome.holding:
        tally.violated(f"{case}: {holds} are the holds, which nobody has set")
    if outcome.held is not None and store.first_sequence > max(outcome.held, *outcome.holding, 0):
        tally.violated(f"{case}: what was held is purged")


async def fail_once(case: Case, random: Random, tally: Tally) -> None:
    """One run of the scenario with one failing call."""
    machine = Machine(case)
    disk, outcome = VolatileDisk(trap=machine.trap), Outcome()
    try:
        async with asyncio.timeout(_SECONDS):
            await _scenario(disk, case.policy, outcome, machine)
    except TimeoutError:
        tally.violated(f"{case}: somebody waits for ever")
        return
    if machine.failed is not None:
        tally.counts["injected errors"] += 1
        tally.counts[f"injected into {machine.failed}"] += 1
        tally.counts["injected beside the log"] += machine.failed_beside
        await _judge(case, machine, disk, outcome, random, tally)


async def cases() -> list[Case]:
    """Every call of the scenario, under every policy, with every error and what it may leave
    behind.
    """
    every: list[Case] = []
    for policy in POLICIES:
        machine = Machine(None)
        await _scenario(VolatileDisk(trap=machine.trap), policy, Outcome(), machine)
        for number, call in enumerate(machine.trace, 1):
            parts = (0.0, 0.5, 1.0) if call in ("write", "write_synced") else (0.0,)
            failures = tuple(Failure) if call == "sync" else (Failure.DIRTY,)
            for error, part, failure, lasting in product(ERRORS, parts, failures, (False, True)):
                every.append(Case(policy, number, Fault(error, part, failure), lasting))
    return every


async def fail(
    size: int,
    seed: int,
    tick: Callable[[int], None] = lambda n: None,
    only: Callable[[Case], bool] = lambda case: True,
    enough: int = ENOUGH,
) -> Tally:
    """A sample of ``size`` of all cases, or of only some of them; all of those for 0."""
    random, tally = Random(seed), Tally()
    with small_strides():
        every = [case for case in await cases() if only(case)]
        chosen = every if not size or size >= len(every) else random.sample(every, size)
        for case in chosen:
            await fail_once(case, random, tally)
            tick(1)
            if len(tally.violations) >= enough:
                break
    return tally


def forgotten_pages() -> Tally:
    """Every sync that can fail, fails, and the pages stay in memory as if they were clean."""
    return run_inline(
        fail(0, 0, only=lambda case: case.fault.failure is Failure.CLEAN and not case.lasting)
    )


def short_writes() -> Tally:
    """The real disk, on which each system call writes at most some bytes: everything must be there
    nevertheless.
    """
    tally = Tally()
    whole = os.pwritev

    def short(descriptor: int, buffers: Sequence[bytes], offset: int, flags: int = 0) -> int:
        tally.counts["short writes"] += 1
        return whole(descriptor, [b"".join(buffers)[:100]], offset, flags)

    async def scenario(path: str) -> None:
        data = [bytes([number]) * 300 for number in range(20)]
        async with Store.open(path, max_segment_bytes=4096) as store:
            await asyncio.gather(*map(store.append, data))
        async with Store.open(path) as store:
            if [record.data async for record in store.scan()] != data:
                tally.violated("short writes: records read back other than they were written")

    with TemporaryDirectory() as directory, patch("os.pwritev", short):
        try:
            asyncio.run(asyncio.wait_for(scenario(f"{directory}/store"), _SECONDS))
        except (AquipuError, TimeoutError) as error:
            tally.violated(f"short writes: {error!r}")
    return tally


def run(size: int, seed: int, tick: Callable[[int], None], enough: int = ENOUGH) -> Tally:
    """Inject errors; see `fail`."""
    return run_inline(fail(size, seed, tick, enough=enough))
