"""Power cuts at every moment of a running store; each state is opened by the real `Store.open` and
judged by the contract.

A store is written on a volatile disk: bursts of appends, batches, syncs, rolls, holds, purges,
tables of relations, cursors, clean closes, killed processes in between, also in the middle of a
purge, of a table or of a cursor. Each acknowledgement is noted with the moment (the length of the
disk's log) at which the caller was told. Then, for moments all along the log, the states that a
power cut may leave are opened, and:

* what reads back at a sequence is what was written there, with its timestamp and labels; the
  sequences are dense;
* nothing that was promised SYNCED is missing; under `EveryN(n)` at most n - 1 acknowledged records
  are; under `OsManaged` what is left is a clean prefix;
* when all that was written is still there (the process died, not the machine), nothing acknowledged
  is missing;
* the log begins where the last purge has told, or where one that has begun was to bring it, never
  behind a hold that was told, and all from there on is there;
* a cursor is the one that was saved last, or one whose saving had begun since: never an older one,
  never damaged, and never beyond the end of the log;
* a position that a consumer keeps itself is told to be lost when records that lie before it are,
  also when the log has grown past it since, and only then; a kill of the process begins no new
  generation;
* by their labels just those records are found that the log holds, whatever is left of the tables;
  and when those that are missing or damaged have been built anew, each says what its segment says;
* by times just those records are found that have them, also when the clock was set, and nothing is
  purged for its age then;
* after opening, all that was found is synced: a second power cut takes none of it (some states are
  gone on with, and cut again).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from errno import EIO
from math import inf
from random import Random
from types import MappingProxyType
from typing import NamedTuple

import aquipu.local.write.roller
import aquipu.local.write.segment_writer
from aquipu import (
    Always,
    AquipuError,
    EveryN,
    OsManaged,
    Position,
    PositionLostError,
    Receipt,
    Record,
    Stage,
    Store,
    SyncPolicy,
)
from aquipu.local.format.frame import HEADER_BYTES
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES, plain_bytes_in
from tests.faults.clock import RETENTION, Clock, mistimed, of_the_engine
from tests.faults.index import CURSOR, LABELS, build_tables, by_hand, misfound, misindexed, settled
from tests.faults.inline import run_inline
from tests.faults.tally import ENOUGH, Tally
from tests.faults.volatile_disk import SECTOR, Fault, Files, Replay, VolatileDisk
from tests.support import engine_of

PATH = "/store"
POLICIES: tuple[SyncPolicy, ...] = (Always(), EveryN(64, within=None), OsManaged())
_RELATIONS = ((), (), (), LABELS[:1], LABELS)
_TO_THE_BORDER = 0.15
_TO_THE_BRINK = 0.1
_FOUND_SHARE = (
    0.02  # of the states with tables that were met before: finding takes longer than all the rest
)
_KEPT = 5  # positions are asked for, the newest ones
_GROWN_SHARE = 0.2
_COLUMNS_BYTES = 12  # of one record, without labels
_LAST_CALLS = ("create", "write", "sync", "rename", "sync_directory", "remove")
_AHEAD_BYTES = 2048  # space is written ahead in strides that fit these small stores


@dataclass
class Purge:
    """One that let go of something."""

    began: int
    """The moments at which it began, and at which somebody knew what had come of it."""
    first_sequence: int
    """Where it was to bring the beginning of the log."""
    ended: float = inf
    done: bool = False


@dataclass
class Save:
    """Of a cursor: when it began, what was to be saved, and when somebody was told that it is."""

    began: int
    sequence: int
    ended: float = inf


@dataclass
class Kept:
    """A position that a consumer keeps itself, in a place that loses nothing."""

    moment: int
    position: Position
    is_lost: bool = False
    """Not all that it has read is there any more."""


@dataclass
class History:
    """What was written, and what was promised at which moment of the log."""

    policy: SyncPolicy
    records: list[Record] = field(default_factory=list)
    """By sequence."""
    moments: dict[Stage, list[int]] = field(
        default_factory=lambda: {Stage.FLUSHED: [0], Stage.SYNCED: [0]}
    )
    """For each stage, the moments at which more was promised to have reached it ..."""
    reached: dict[Stage, list[int]] = field(
        default_factory=lambda: {Stage.FLUSHED: [0], Stage.SYNCED: [0]}
    )
    """... and one past the last sequence that had."""

    purges: list[Purge] = field(default_factory=list)
    holds: list[tuple[int, int]] = field(default_factory=list)
    """The moment at which somebody was told that everything from this sequence on is held."""
    saves: list[Save] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    misfound: list[str] = field(default_factory=list)
    """What was wrong with what was found by relation."""
    began_with: int = 0
    """Where the log began when the disk was as it started ..."""
    cursor: int | None = None
    """... and the cursor."""

    def wrote(self, receipt: Receipt, data: bytes, labels: tuple[str, ...]) -> None:
        """What must be read back at this sequence."""
        self.records += [Record(0, 0, b"")] * (receipt.sequence + 1 - len(self.records))
        self.records[receipt.sequence] = Record(receipt.sequence, receipt.timestamp, data, labels)

    def promise(self, moment: int, stage: Stage, next_sequence: int) -> None:
        """At this moment all before ``next_sequence`` was acknowledged with this stage."""
        for lesser in (Stage.FLUSHED, Stage.SYNCED)[: stage - 1]:
            if next_sequence > self.reached[lesser][-1]:
                self.moments[lesser].append(moment)
                self.reached[lesser].append(next_sequence)

    def promised(self, moment: int, stage: Stage) -> int:
        """One past the last sequence that was promised to have reached the stage by this moment."""
        return self.reached[stage][bisect_right(self.moments[stage], moment) - 1]

    def beginnings(self, moment: int) -> tuple[int, set[int]]:
        """Where the log was told to begin by this moment, and where it may begin as well: a purge
        is under way.
        """
        told = [
            purge.first_sequence for purge in self.purges if purge.done and purge.ended <= moment
        ]
        begun = {
            purge.first_sequence for purge in self.purges if purge.began < moment < purge.ended
        }
        return max(told, default=self.began_with), begun

    def cursors(self, moment: int) -> set[int | None]:
        """What the cursor may be by this moment: what was saved last, or what was to be saved
        since.
        """
        possible = {self.cursor}
        for save in self.saves:
            if save.ended <= moment:
                possible = {save.sequence}
            elif save.began < moment:
                possible.add(save.sequence)
        return possible

    def after(self, there: Found) -> History:
        """The history of a store that was found so after a power cut: what is there is there for
        good, or was nothing.
        """
        kept = [
            Kept(0, kept.position, kept.is_lost or kept.position.sequence > there.next_sequence)
            for kept in self.kept
            if kept.moment <= there.moment
        ]
        return History(
            self.policy,
            self.records[: there.next_sequence],
            kept=kept,
            began_with=there.first_sequence,
            cursor=there.cursor,
        )


@dataclass(frozen=True)
class Habits:
    """How the users of one store behave."""

    sizes: tuple[int, ...]
    asking: bool
    """They ask for stages of their own, and for syncs."""
    segment_bytes: int
    purging: float
    """How often they purge ..."""
    consuming: float
    """... and how often one builds tables, finds by them, or saves its cursor."""
    every: int
    """The power is cut at one in so many moments."""
    setting: float = 0
    """How often they set the clock; then there is a retention, too."""
    compressing: bool = False
    """Sealed segments are compressed, when tables are built."""


HABITS = (
    Habits(
        sizes=(0, 1, 40, 256, 300, 700),
        asking=True,
        segment_bytes=4096,
        purging=0.2,
        consuming=0.05,
        every=1,
    ),
    Habits(sizes=(0, 40, 100), asking=False, segment_bytes=65536, purging=0, consuming=0, every=3),
    Habits(
        sizes=(0, 1, 40, 256, 300, 700),
        asking=True,
        segment_bytes=4096,
        purging=0.03,
        consuming=0.6,
        every=3,
    ),
    Habits(
        (0, 1, 40, 300, 700),
        asking=True,
        segment_bytes=8192,
        purging=0.03,
        consuming=0.03,
        every=2,
        setting=0.5,
    ),
)


@contextmanager
def small_strides() -> Iterator[None]:
    """Space is written ahead in small strides while this lasts, a roll that failed is tried again
    behind each commit, and tables are built by hand: calls come in one order.
    """
    before = (
        aquipu.local.write.segment_writer.AHEAD_BYTES,
        aquipu.local.write.segment_writer._SMALL_BYTES,
    )
    pause = aquipu.local.write.roller._ROLL_PAUSE
    (
        aquipu.local.write.segment_writer.AHEAD_BYTES,
        aquipu.local.write.segment_writer._SMALL_BYTES,
    ) = (
        _AHEAD_BYTES,
        _AHEAD_BYTES,
    )
    aquipu.local.write.roller._ROLL_PAUSE = 0
    try:
        with by_hand():
            yield
    finally:
        (
            aquipu.local.write.segment_writer.AHEAD_BYTES,
            aquipu.local.write.segment_writer._SMALL_BYTES,
        ) = before
        aquipu.local.write.roller._ROLL_PAUSE = pause


# running


@dataclass
class Run:
    """A store on a disk, its users, and what is noted of them."""

    disk: VolatileDisk
    history: History
    habits: Habits
    random: Random
    clock: Clock = field(default_factory=Clock)

    async def execute(self, *, sessions: int, bursts: int) -> None:
        """Several sessions, each ended by a close or by a kill of the process."""
        for _ in range(sessions):
            store = await self.open()
            for _ in range(self.random.randrange(1, bursts + 1)):
                await self._burst(store)
            if self.random.random() < 2 * self.habits.purging:
                await self._kill_within_a_purge(store)
            elif self.random.random() < self.habits.consuming:
                await self._kill_beside_the_log(store)
            elif self.random.random() < 0.5:
                await store.aclose()
                self._promise(Stage.SYNCED)
            else:
                await self.kill(store)

    async def open(self) -> Store:
        """The store on this disk. What opening finds is synced."""
        store = await self.open_only()
        self.history.promise(len(self.disk.log), Stage.SYNCED, store.next_sequence)
        for purge in self.history.purges:
            if purge.ended == inf:
                purge.ended, purge.done = (
                    len(self.disk.log),
                    purge.first_sequence == store.first_sequence,
                )
        return store

    def _keep(self, store: Store) -> None:
        """A consumer that has read everything keeps its place."""
        kept = Kept(len(self.disk.log), Position(store.generation, store.next_sequence))
        before = self.history.kept[-1] if self.history.kept else kept
        if before.moment and before.position.generation != kept.position.generation:
            self.history.misfound.append("a new generation has begun, and nothing was lost")
        self.history.kept.append(kept)

    async def open_only(self) -> Store:
        return await Store.open(
            PATH,
            sync_policy=self.history.policy,
            max_segment_bytes=self.habits.segment_bytes,
            retention=RETENTION if self.habits.setting else None,
            compress=self.habits.compressing,
            lock_timeout=0,
            disk=self.disk,
        )

    async def kill(self, store: Store) -> None:
        """The process is killed; its store finds that its disk refuses everything."""
        self.disk.kill_process()
        with suppress(AquipuError):
            await store.aclose()

    async def _burst(self, store: Store) -> None:
        """Some callers at once, or a batch, or a sync."""
        self._keep(store)
        if self.random.random() < self.habits.setting:
            self.clock.set(self.random)
        kind = self.random.random()
        if isinstance(self.history.policy, EveryN) and self.random.random() < _TO_THE_BRINK:
            await self._to_the_brink(store, self.history.policy.n)
        elif kind < 0.7:
            await asyncio.gather(
                *(self._append(store) for _ in range(self.random.choice((1, 1, 1, 2, 5, 20))))
            )
        elif kind < 0.9:
            await self._append_batch(
                store, [self._data() for _ in range(self.random.randrange(1, 6))]
            )
        elif self.habits.asking:
            await store.sync()
            self._promise(Stage.SYNCED)
        if self.random.random() < self.habits.purging:
            await self._let_go(store)
        if self.random.random() < self.habits.consuming:
            await self.random.choice((build_tables, self._find, self._save))(store)

    async def _to_the_brink(self, store: Store, n: int) -> None:
        """As many unsynced records as there may be, and then the one that would be too many."""
        room = n - 1 - (store.next_sequence - store.synced_sequence)
        await self._append_batch(store, [b""] * room)
        await self._append(store)

    async def _find(self, store: Store) -> None:
        """Everything is acknowledged now: it is found."""
        records = self.history.records[store.first_sequence :]
        wrong = await misfound(store, records) or await mistimed(store, records, self.random)
        if wrong is not None:
            self.history.misfound.append(wrong)

    async def _save(self, store: Store) -> None:
        """A cursor, forwards or backwards."""
        await settled(store)  # it is written by another thread
        save = Save(len(self.disk.log), self.random.randint(0, store.next_sequence))
        self.history.saves.append(save)
        await store.cursor(CURSOR).save(save.sequence)
        save.ended = len(self.disk.log)
        self.history.promise(len(self.disk.log), Stage.SYNCED, save.sequence)

    async def _let_go(self, store: Store) -> None:
        """A hold, and a purge up to it."""
        sequence = self.random.randint(store.first_sequence, store.next_sequence)
        await store.hold("held", sequence)
        self.history.holds.append((len(self.disk.log), sequence))
        purge = await self._purge_to_come(store)
        purged = await store.purge(before=store.next_sequence)
        if purge is not None:
            assert purged.first_sequence == purge.first_sequence
            purge.ended, purge.done = len(self.disk.log), True

    async def _purge_to_come(self, store: Store) -> Purge | None:
        """What a purge now is to do, in the history; None when it is nothing."""
        told = await store.purge(before=store.next_sequence, dry_run=True)
        if not told.segments:
            return None
        self.history.purges.append(Purge(len(self.disk.log), told.first_sequence))
        return self.history.purges[-1]

    async def _kill_within_a_purge(self, store: Store) -> None:
        """Often the purge is all that the process did: nothing else makes its names durable."""
        if self.random.random() < 0.7:
            await store.aclose()
            self._promise(Stage.SYNCED)
            store = await self.open()
        await store.hold("held", store.next_sequence)
        self.history.holds.append((len(self.disk.log), store.next_sequence))
        await self._purge_to_come(store)
        await self._kill_within(store, store.purge(before=store.next_sequence))

    async def _kill_beside_the_log(self, store: Store) -> None:
        """While a cursor is saved, or when the table of a segment that was sealed just now is
        built, or half built: the next opening undoes that roll, and the segment gets another table
        one day.
        """
        if self.random.random() < 0.5:
            await self._kill_within(store, self._save(store))
            return
        await self._append(store, bytes(self.habits.segment_bytes))
        await settled(store)
        if self.random.random() < 0.5:
            await self._kill_within(store, build_tables(store))
        else:
            await build_tables(store)
            await self.kill(store)

    async def _kill_within(self, store: Store, deed: Awaitable[object]) -> None:
        """From some call to the disk on, nothing that the process does reaches it."""
        last, dead = self.random.choice(_LAST_CALLS), False

        def trap(call: str, count: int) -> Fault | None:
            nonlocal dead
            dead = dead or call == last
            return Fault(EIO) if dead else None

        self.disk.trap = trap
        with suppress(AquipuError):
            await deed
        with suppress(AquipuError):
            await store.aclose()
        self.disk.trap = None
        self.disk.kill_process()

    async def _append(self, store: Store, data: bytes | None = None) -> None:
        data, labels = self._data() if data is None else data, self.random.choice(_RELATIONS)
        to_the_border = self.random.random() < _TO_THE_BORDER
        if to_the_border:
            data, labels = self.random.randbytes(_size_to_the_border(store)), ()
        receipt = await store.append(data, relations=labels, durability=self._durability())
        self.history.wrote(receipt, data, labels)
        self.history.promise(len(self.disk.log), receipt.stage, receipt.sequence + 1)
        if (
            to_the_border
        ):  # and behind it a frame that is small enough for its body to be lost as a whole
            await self._append(store)

    async def _append_batch(self, store: Store, batch: list[bytes]) -> None:
        labels = self.random.choice(_RELATIONS)
        for receipt, data in zip(
            await store.append_many(batch, relations=labels), batch, strict=True
        ):
            self.history.wrote(receipt, data, labels)
            self.history.promise(len(self.disk.log), receipt.stage, receipt.sequence + 1)

    def _durability(self) -> Stage | None:
        if not self.habits.asking or self.random.random() < 0.8:
            return None
        if isinstance(self.history.policy, Always):
            return Stage.SYNCED  # less would be a promise of less: not what Always is judged by
        return self.random.choice((Stage.SYNCED, Stage.FLUSHED))

    def _promise(self, stage: Stage) -> None:
        self.history.promise(len(self.disk.log), stage, len(self.history.records))

    def _data(self) -> bytes:
        return self.random.randbytes(self.random.choice(self.habits.sizes))


def _size_to_the_border(store: Store) -> int:
    """Of a record behind whose frame the header of the next one ends where a sector does: its body
    can be lost alone.
    """
    end = engine_of(store)._journal._files.active.contents.end + HEADER_BYTES + _COLUMNS_BYTES
    return -(end + HEADER_BYTES) % SECTOR


# dying, and being judged


@dataclass
class Judge:
    """Opens what power cuts leave, and holds it against the history."""

    tally: Tally
    random: Random
    lost: Counter[int] = field(default_factory=Counter)
    """How often so many acknowledged records were missing."""
    tables: set[int] = field(default_factory=set)
    """Which sets of tables and segments have been met."""

    async def judge_run(self, run: Run, *, several: int, every: int, again: float) -> None:
        """Power cuts along a run's log, at one in ``every`` moments; a share of ``again`` goes on
        and is cut again.
        """
        self.tally.violations += run.history.misfound
        replay, found = Replay(run.disk), dict[int, Found | None]()
        for moment, event in enumerate(run.disk.log, 1):
            replay.take(event)
            if self.random.randrange(every):
                continue
            for number, files in enumerate(replay.states(self.random, several)):
                shape = hash(frozenset(files.items()))
                if shape not in found:
                    found[shape] = await self._open(run, files, again, moment)
                    self.tally.counts[f"states, {_name(run.history.policy)}"] += 1
                there = found[shape]
                if there is not None:
                    self._judge(run.history, moment, there.next_sequence, all_there=number == 1)
                    self._judge_begin(run.history, moment, there)
                    self._judge_cursor(run.history, moment, there)

    async def _open(self, run: Run, files: Files, again: float, moment: int) -> Found | None:
        """Open a state and read everything; None when it is not as written."""
        later = Run(VolatileDisk(files), run.history, run.habits, self.random, run.clock)
        try:
            store = await later.open_only()
        except AquipuError as error:
            self.tally.violated(f"refused what a power cut may leave: {error!r}")
            return None
        try:
            found = [record async for record in store.scan()]
            held, cursor = (await store.holds()).get("held"), await store.cursor(CURSOR).load()
            there = Found(store.first_sequence, store.next_sequence, held, cursor, moment)
            await self._judge_index(files, store, found)
            wrong = await mistimed(store, found, self.random) if run.habits.setting else None
            if wrong is not None:
                self.tally.violated(f"after a power cut, {wrong}")
            await self._judge_kept(run.history, moment, store)  # it may append
        except AquipuError as error:
            self.tally.violated(f"cannot read what a power cut may leave: {error!r}")
            return None
        finally:
            await (store.aclose() if self.random.random() < 0.1 else later.kill(store))
        self.tally.counts["records read back"] += len(found)
        if found != run.history.records[there.first_sequence : there.next_sequence]:
            self.tally.violated("records read back other than they were written")
            return None
        if again and self.random.random() < again:
            await self._cut_again(run, files, there)
        return there

    async def _cut_again(self, run: Run, files: Files, there: Found) -> None:
        """A run after the power cut, and power cuts in it: during recovery and after."""
        later = Run(
            VolatileDisk(files), run.history.after(there), run.habits, self.random, run.clock
        )
        await later.execute(sessions=1, bursts=2)
        self.tally.counts["runs after a power cut"] += 1
        await self.judge_run(later, several=1, every=4, again=0)

    def _judge(self, history: History, moment: int, next_sequence: int, *, all_there: bool) -> None:
        acknowledged = history.promised(moment, Stage.FLUSHED)
        missing = max(acknowledged - next_sequence, 0)
        self.tally.counts["judgements"] += 1
        bound = loss_bound(history.policy)
        if all_there and missing:
            self.tally.violated(f"a process crash took {missing} acknowledged records")
        if bound is not None and missing > bound:
            self.tally.violated(
                f"{_name(history.policy)}: a power cut took {missing} acknowledged records"
            )
        if next_sequence < history.promised(moment, Stage.SYNCED):
            self.tally.violated(
                f"{_name(history.policy)}: a power cut took records that were SYNCED"
            )
        self.lost[missing] += 1

    def _judge_begin(self, history: History, moment: int, there: Found) -> None:
        told, begun = history.beginnings(moment)
        if there.first_sequence not in {told} | begun:
            self.tally.violated(
                f"the log begins with {there.first_sequence} instead of {told} or {begun}"
            )
        self.tally.counts["power cuts while a purge was under way"] += bool(begun)
        self.tally.counts["power cuts after a purge"] += bool(told)
        held = [sequence for when, sequence in history.holds if when <= moment]
        later = [sequence for when, sequence in history.holds if when > moment]
        if held and there.held not in {held[-1], *later[:1]}:
            self.tally.violated(f"the hold on {held[-1]} is one on {there.held}")

    def _judge_cursor(self, history: History, moment: int, there: Found) -> None:
        possible = history.cursors(moment)
        self.tally.counts["power cuts while a cursor was being saved"] += len(possible) > 1
        if there.cursor not in possible:
            self.tally.violated(f"the cursor is {there.cursor} instead of one of {possible}")
        if there.cursor is not None and there.cursor > there.next_sequence:
            self.tally.violated(
                f"the cursor is {there.cursor}, and the log ends at {there.next_sequence}"
            )

    async def _judge_kept(self, history: History, moment: int, store: Store) -> None:
        """Those who kept a position are told, or not, as it should be; now and then also when the
        log has grown.
        """
        kept = [one for one in history.kept if one.moment <= moment][-_KEPT:]
        lost = [one.is_lost or one.position.sequence > store.next_sequence for one in kept]
        self.tally.counts["positions that were lost in a power cut"] += sum(lost)
        grows = self.random.random() < _GROWN_SHARE and any(lost)
        for _ in range(1 + grows):
            for one, is_lost in zip(kept, lost, strict=True):
                if await _is_told(store, one.position) != is_lost:
                    said = "is told" if not is_lost else "is not told"
                    self.tally.violated(
                        f"a consumer at {one.position} {said} that its records are lost"
                    )
            if grows:
                await store.append_many(
                    [b""] * (max(one.position.sequence for one in kept) + 1 - store.next_sequence)
                )

    async def _judge_index(self, files: Files, store: Store, found: list[Record]) -> None:
        """When there are other tables or segments than in all states before, and of some others."""
        tables = {path: data for path, data in files.items() if ".relations" in path}
        shape = hash(
            (
                frozenset(tables.items()),
                frozenset(path for path in files if path.endswith(".segment")),
            )
        )
        if shape in self.tables and self.random.random() > _FOUND_SHARE:
            return
        self.tables.add(shape)
        self.tally.counts["power cuts after which all was found by relation"] += 1
        self.tally.counts["power cuts that left tables"] += bool(tables)
        self.tally.counts["power cuts that left compressed segments"] += any(
            path.endswith(".segment") and plain_bytes_in(bytes(data[:SEGMENT_HEADER_BYTES])) > 0
            for path, data in files.items()
        )
        wrong = await misindexed(store, found)
        if wrong is not None:
            self.tally.violated(f"after a power cut, {wrong}")


class Found(NamedTuple):
    """What opening a state has shown."""

    first_sequence: int
    next_sequence: int
    held: int | None
    cursor: int | None
    moment: int
    """At which the power was cut."""


async def _is_told(store: Store, position: Position) -> bool:
    try:
        await engine_of(store).check_there(bytes.fromhex(position.generation), position.sequence)
    except PositionLostError:
        return True
    return False


def loss_bound(policy: SyncPolicy) -> int | None:
    """The most acknowledged records that a power cut may take."""
    match policy:
        case Always():
            return 0
        case EveryN(n):
            return n - 1
    return None


def _name(policy: SyncPolicy) -> str:
    return type(policy).__name__


async def crash(
    policy: SyncPolicy,
    size: int,
    seed: int,
    tick: Callable[[int], None] = lambda n: None,
    enough: int = ENOUGH,
    seldom: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Tally, Counter[int]]:
    """Judge at least ``size`` distinct states under a policy.

    And more, up to four times as many, until there are more than so many of those that are
    ``seldom``, by what the tally calls them. Also how often how many acknowledged records were
    lost.
    """

    def is_over() -> bool:
        counts, violations = judge.tally.counts, judge.tally.violations
        judged, missing = counts[key], any(counts[name] <= n for name, n in seldom.items())
        return len(violations) >= enough or judged >= (4 * size if missing else size)

    judge, counted, number = Judge(Tally(), Random(seed)), 0, 0
    key = f"states, {_name(policy)}"
    with small_strides():
        while not is_over():
            habits = replace(HABITS[number % len(HABITS)], compressing=number % 8 in (2, 3, 4, 5))
            run = Run(
                VolatileDisk(one_call_syncs=number % 3 > 0), History(policy), habits, judge.random
            )
            number += 1
            with of_the_engine(run.clock):
                await run.execute(sessions=3, bursts=12 if habits.asking else 60)
                await judge.judge_run(run, several=3, every=habits.every, again=0.01)
            tick(judge.tally.counts[key] - counted)
            counted = judge.tally.counts[key]
    return judge.tally, judge.lost


def run(
    policy: SyncPolicy,
    size: int,
    seed: int,
    tick: Callable[[int], None],
    enough: int = ENOUGH,
    seldom: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Tally, Counter[int]]:
    """Judge crash states; see `crash`."""
    return run_inline(crash(policy, size, seed, tick, enough, seldom))
