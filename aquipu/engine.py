"""The seam between what a program calls and where its records are kept.

A `Store` is the face, and has an `Engine`: files of this machine (`local`), or a daemon that has
them (`remote`). Whole commits cross here, never single records::

      Store ── append ──▶ Committer ── submit(commit) ──▶ Engine ──▶ disk, or daemon
        ▲                     ▲                             │
        │                     └──── commit.outcome, done() ─┤   how far the log has come
        └───────────────── get, scan, follow ── reader() ───┘   something to read

An engine says what came of a commit in ``commit.outcome`` before it calls ``done``; one that it is
handed twice, because an interrupt has left it unclear, is written once. All methods but `leave` are
called on the thread of the loop. What an engine has to say of itself, it says to its `Host`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count, islice, repeat
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from aquipu.errors import AquipuError, StoreFailedError
from aquipu.policy import Stage, SyncPolicy
from aquipu.record import Guarded, Key, Lag, Purged, Receipt, plain_size

if TYPE_CHECKING:
    from aquipu.reading import Cursor, Face, LogReader
    from aquipu.runtime.counting import Latency
    from aquipu.statistics import Health, Measured, Statistics

Waiter = TypeVar("Waiter")

_receipt = partial(tuple.__new__, Receipt)  # half the price of Receipt(...)


class Progress(NamedTuple):
    """How far a log reaches."""

    first_sequence: int
    """Sequence of the first record kept."""
    next_sequence: int
    """One past the last acknowledged record."""
    synced_sequence: int
    """Everything below is on the disk."""


class Limits(NamedTuple):
    """What a log takes at a time, and what an append waits for that asks for nothing else."""

    stage: Stage
    record_bytes: int
    buffer_records: int
    buffer_bytes: int


class CommitResult(NamedTuple):
    """How far the log has come when a commit is complete."""

    next_sequence: int
    """One past the last record written."""
    synced_sequence: int
    """Everything below is on the disk."""
    syncs: int
    """Syncs of the log so far, since opening."""


class Commit(Generic[Waiter]):
    """Records that share one write and at most one sync, in the order of their calls.

    Without records: a sync alone.
    """

    __slots__ = (
        *("accepted", "barriers", "batches", "bytes_max", "expected", "first_sequence", "keys"),
        *("label_bytes", "labels", "outcome", "payloads", "records_max", "since", "size", "stage"),
        *("sync", "taken", "time", "timestamps", "waiters", "whole", "written"),
    )

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.timestamps: list[int] = []
        self.accepted = self.timestamps
        """When its records were accepted: their timestamps, unless these were levelled or given."""
        self.since = 0
        """When the first of them was, by the monotonic clock."""
        self.time = 0
        """When the last of them was accepted; no later one of the commit is earlier."""
        self.labels: dict[int, tuple[str, ...]] = {}
        """By the index of those records that have any."""
        self.label_bytes = 0
        self.waiters: list[Waiter | None] = []
        """One place for each record; None for the second and later ones of a batch."""
        self.batches: dict[int, int] = {}
        """Index of its first record, and number of its records."""
        self.keys: list[Key] = []
        """Of those batches that were given one."""
        self.expected: dict[int, int] = {}
        """Sequences that some batches must get, by the index of their first records; until sent."""
        self.barriers: list[Waiter] = []
        """Waiters for the commit as a whole: of flush() and sync()."""
        self.size = 0
        self.stage = Stage.FLUSHED
        """The strictest that a member asks for."""
        self.sync = False
        """Decided when it is submitted."""
        self.first_sequence = 0
        """Sequence of its first record, when it was submitted."""
        self.taken = False
        """The engine has it: to be handed it once more changes nothing."""
        self.outcome: CommitResult | AquipuError | None = None
        """What came of it, as soon as the engine knows."""
        self.whole = False
        """Whether a batch gets the receipts of all its records, and not of its first alone."""
        self.written: list[Receipt] = []
        """The receipts, when they are made together: see `write_receipts`."""
        self.records_max = self.bytes_max = 0
        """As far as this `take` goes on. There may be more room, but that must be asked."""

    def __len__(self) -> int:
        return len(self.payloads)

    def take(self, payload: bytes, waiter: Waiter, now: int) -> bool:
        """Accept a record without labels that is content with the stage of the others.

        Return False when the group must be asked.
        """
        size = self.size + len(payload)
        if size > self.bytes_max or len(self.payloads) >= self.records_max:
            return False
        self.size = size
        if now < self.time:
            now = self.time
        else:
            self.time = now
        self.payloads.append(payload)
        self.timestamps.append(now)
        self.waiters.append(waiter)
        return True

    def take_labelled(
        self, payload: bytes, labels: Iterable[str], waiter: Waiter, now: int
    ) -> bool:
        """Accept a record with plain labels, as `take` does one without."""
        if type(labels) is not tuple:
            if type(labels) is not list:
                return False
            labels = tuple(labels)
        if not (size := plain_size(labels)):
            return False
        index = len(self.payloads)
        total = self.size + len(payload) + size
        if total > self.bytes_max or index >= self.records_max:
            return False
        self.labels[index] = labels
        self.label_bytes += size
        self.size = total
        if now < self.time:
            now = self.time
        else:
            self.time = now
        self.payloads.append(payload)
        self.timestamps.append(now)
        self.waiters.append(waiter)
        return True

    def level(self, time: int) -> None:
        """Let no record of it be earlier than this."""
        self.timestamps = [max(timestamp, time) for timestamp in self.timestamps]
        self.time = self.timestamps[-1]

    def everyone(self) -> Iterator[Waiter]:
        """Yield everything that waits for this commit."""
        yield from (waiter for waiter in self.waiters if waiter is not None)
        yield from self.barriers

    def receipts(self, begin: int = 0) -> Iterator[Receipt]:
        """Yield one for each record from an index on, now that all have come as far as is owed."""
        # one by one: a thousand at once would live just long enough to burden the collector
        stage = max(self.stage, Stage.SYNCED) if self.sync else Stage.FLUSHED
        times = islice(self.timestamps, begin, None)
        return map(_receipt, zip(count(self.first_sequence + begin), times, repeat(stage)))

    def write_receipts(self) -> None:
        """Make all receipts, unless they are there: those of a large batch while the disk works."""
        # once more where the timestamps were changed meanwhile
        if not self.written or self.timestamps is not self.accepted:
            self.written = list(self.receipts())


class Host:
    """What an engine may ask of the store that has it, on the thread of the loop.

    It does not keep the store alive, and when that is gone, or as here not yet there, each of these
    does nothing.
    """

    def check(self) -> None:
        """Raise unless the store takes records from here and now."""

    def complete_soon(self) -> None:
        """Complete the commit under way in the next tick, if its outcome stands in it."""

    def complete_meanwhile(self) -> None:
        """Go on with the callers of complete commits, now and then, while one runs the loop."""

    def sync_soon(self) -> None:
        """Submit a commit that syncs what is not synced: the policy bounds its age."""

    async def sync(self) -> None:
        """Have everything accepted so far synced, also when the store is being closed."""

    def fail(self, failure: StoreFailedError) -> None:
        """Fail everything that waits, and accept nothing more: the log has failed."""

    def give_up(self, of_commit: AquipuError | None, error: AquipuError) -> None:
        """Fail everything that waits, and stay open: the log cannot be reached for now.

        ``of_commit``: what those of the commit under way get instead, if it is another error.
        """

    def refuse(self, refused: dict[int, Exception]) -> None:
        """Take records out of the commit under way, by their index: they cannot be stored."""

    def keep_within(self, limits: Limits) -> None:
        """Accept no more than these limits allow, from now on."""

    def leave(self) -> None:
        """Have what was accepted written when the loop is gone; from any thread."""


class Engine(ABC):
    """Where a log is kept. One `Committer` hands it commits, one at a time."""

    decides: bool = False
    """Whether it, and not the `Committer`, decides on what is given a key or expects a sequence."""

    path: str
    """Of the directory, or the address."""
    policy: SyncPolicy
    """Which commits owe a sync."""
    limits: Limits
    stage_max: Stage = Stage.SYNCED
    """The latest stage that an append may wait for."""
    latency: Latency
    """How long it takes to answer."""
    fails_for_good: bool = True
    """Whether a StoreFailedError ends the store."""
    recovery: Any = None
    """What opening found and did; None where another process has opened the files."""

    @abstractmethod
    def attach(self, host: Host) -> None:
        """Take note whose commits these will be, before the first of them."""

    @abstractmethod
    def submit(self, commit: Commit[Any], done: Callable[[object], None], *, urgent: bool) -> None:
        """Have a commit written, and call ``done`` when its outcome stands in it.

        ``urgent``: before this thread computes on, wait until the disk has it.
        """

    @abstractmethod
    def submit_again(self, commit: Commit[Any], done: Callable[[object], None]) -> None:
        """Submit the commit under way, of which an interrupt has left unclear whether it was."""

    async def append_guarded(self, batch: Guarded) -> list[Receipt]:
        """Store a batch, if its key is new, at the sequence that it expects: if it `decides`."""
        raise NotImplementedError

    def receive(self, commit: Commit[Any]) -> None:
        """Take note of the outcome of a commit: its callers are about to be acknowledged."""

    def publish(self, commit: Commit[Any]) -> None:
        """Let readers see a commit whose callers have gone on; perhaps twice."""

    def settle(self) -> None:
        """Do what is due when a commit is complete and the next one is not yet submitted."""

    def interrupted(self) -> None:
        """Take note that an interrupt may have cut any step of this thread short."""

    def fail(self, failure: StoreFailedError) -> None:
        """Take note that the log has failed: what is not on the disk may not be read any more."""

    # the end

    def begin_closing(self) -> None:
        """Take note that nothing more is accepted; it may be called again."""

    @property
    def owes_last_sync(self) -> bool:
        """Whether what is only flushed must be synced by a commit before `close`."""
        return False

    @abstractmethod
    def close(self, done: Callable[[CommitResult | AquipuError | None], None]) -> None:
        """Make everything durable, let go of the log, and call ``done`` with what came of it.

        After an interrupt it may be called again.
        """

    @abstractmethod
    def leave(self, commits: list[Commit[Any]]) -> bool:
        """Have these commits written when the program has dropped the store, and close.

        From any thread. Return False when there was nothing to leave.
        """

    # what is there

    @abstractmethod
    def progress(self) -> Progress:
        """Return how far the log reaches; from any thread."""

    @property
    def last_time(self) -> int | None:
        """Time of the last record written; None where records cannot be given times."""
        return None

    @property
    @abstractmethod
    def generation(self) -> bytes:
        """Name of the stretch of the log's life in which no acknowledged record was lost."""

    @abstractmethod
    def reader(self, face: Face) -> LogReader:
        """Return what can be read; it keeps the face alive."""

    @abstractmethod
    def measure(self) -> Measured:
        """Return what only the engine knows of the statistics; from any thread."""

    @abstractmethod
    def health(
        self, seen: Statistics, failure: str | None, min_free_bytes: int | None, max_seconds: float
    ) -> Health:
        """Judge the log, by the least free space and the longest wait; from any thread."""

    @abstractmethod
    async def reached(self, stage: Stage, sequence: int) -> None:
        """Wait until a record has reached a stage; see `Store.reached`."""

    # what is kept

    @abstractmethod
    async def roll(self) -> None:
        """Begin the next segment; see `Store.roll`."""

    @abstractmethod
    async def purge(self, before: int | None, before_time: int | None, dry_run: bool) -> Purged:
        """Drop the oldest records; see `Store.purge`."""

    @abstractmethod
    async def hold(self, name: str, sequence: int) -> None:
        """Keep everything from a sequence on; see `Store.hold`."""

    @abstractmethod
    async def release(self, name: str) -> bool:
        """Remove a hold; see `Store.release`."""

    @abstractmethod
    async def holds(self) -> dict[str, int]:
        """Return the holds by name."""

    @abstractmethod
    def cursor(self, name: str, face: Face, *, hold: bool) -> Cursor:
        """Return the place of a consumer; see `Store.cursor`."""

    @abstractmethod
    async def cursors(self) -> dict[str, Lag]:
        """Return how far each cursor is behind, by name."""
