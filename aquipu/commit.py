"""Who leaves together and who has arrived. Pure: no file, thread, clock or loop; all of it belongs to the loop thread.

An append is *accepted* into the commit that is forming; it waits for *room* first when the buffer is full. The commit
*departs* when the one before it has arrived, so a group forms because the disk is busy. It *arrives* when its records have
reached the stage that it owes, and then its waiters are told::

                 room?  yes                    one at a time
    append ─────────┬────────▶ forming ──────────────────────▶ under way ─────▶ arrived
                    │ no          ▲                                │
                    └──▶ waiting ─┘  in the order of the calls     └─▶ refused (no space), or all are abandoned (failed)

A waiter is whatever the caller can tell things to: the store uses futures, a test anything. A record whose waiter has
lost interest keeps its place and is written: it was accepted.

Most records ask for nothing of their own and come many at a time. So the forming commit is told, when it accepts the first
of them, how far it may go on without asking, and takes the others by itself (`Commit.take`): a sixth of the time that an
append costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Generic, NamedTuple, TypeVar

from aquipu.frame import Key
from aquipu.policy import Stage, SyncPolicy
from aquipu.record import Receipt

Waiter = TypeVar("Waiter")

COMMIT_BYTES = 8 * 1024 * 1024
"""A forming commit that has reached this size takes no more: what comes later leaves with the next one."""

_receipt = partial(tuple.__new__, Receipt)  # half the price of Receipt(...): it is made once for each append


class Landing(NamedTuple):
    """How far the log has come when a commit arrives."""

    next_sequence: int
    """One past the last record written."""
    synced_sequence: int
    """Everything below is on the disk."""
    syncs: int
    """Syncs of the log so far, since opening."""


class Commit(Generic[Waiter]):
    """Records that share one write and at most one sync, in the order of their calls. Without records: a sync alone."""

    __slots__ = (
        "barriers",
        "batches",
        "bytes_max",
        "keys",
        "label_bytes",
        "labels",
        "payloads",
        "records_max",
        "size",
        "stage",
        "sync",
        "time",
        "timestamps",
        "waiters",
        "written",
    )

    def __init__(self, time: int = 0) -> None:
        self.payloads: list[bytes] = []
        self.timestamps: list[int] = []
        self.time = time
        """Of the last record; no later one is earlier."""
        self.labels: dict[int, tuple[str, ...]] = {}
        """By the index of those records that have any."""
        self.label_bytes = 0
        self.waiters: list[Waiter | None] = []
        """One place for each record; None for the second and later ones of a batch."""
        self.batches: dict[int, int] = {}
        """Index of its first record, and number of its records."""
        self.keys: list[Key] = []
        """Of those batches that were given one."""
        self.barriers: list[Waiter] = []
        """Those who wait for the commit as a whole: flush() and sync()."""
        self.size = 0
        self.stage = Stage.FLUSHED
        """The strictest that a member asks for."""
        self.sync = False
        """Decided when it departs."""
        self.written: list[Receipt] = []
        """The receipts, when they are made together: see `write_receipts`."""
        self.records_max = self.bytes_max = 0
        """As far as this `take` goes on. There may be more room, but that must be asked."""

    def __len__(self) -> int:
        return len(self.payloads)

    def take(self, payload: bytes, waiter: Waiter, now: int) -> bool:
        """Accept a record without labels that is content with the stage of the others; False: ask the group."""
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

    def everyone(self) -> Iterator[Waiter]:
        """All who wait for anything of this commit."""
        yield from (waiter for waiter in self.waiters if waiter is not None)
        yield from self.barriers

    def receipts(self, first_sequence: int) -> Iterator[Receipt]:
        """One for each record, now that the commit has reached the stage that it owed.

        Made one by one: a thousand at once would live just long enough to burden the garbage collector.
        """
        stage = Stage.SYNCED if self.sync else Stage.FLUSHED
        sequences = range(first_sequence, first_sequence + len(self.payloads))
        return map(_receipt, zip(sequences, self.timestamps, repeat(stage)))

    def write_receipts(self, first_sequence: int) -> None:
        """Make all receipts, unless they are there: those of a large batch can be made while the disk works."""
        if not self.written:
            self.written = list(self.receipts(first_sequence))


class Pending(Generic[Waiter]):
    """An append, or a batch that must stay together, that waits for room."""

    def __init__(
        self,
        payloads: Sequence[bytes],
        size: int,
        labels: Mapping[int, tuple[str, ...]],
        stage: Stage,
        waiter: Waiter,
        batch: bool,
        key: tuple[bytes, int] | None = None,
    ) -> None:
        """``labels`` by the index of those records that have any. ``key``: writer and number, by which a batch that is
        sent again can be recognised."""
        self.payloads = payloads
        self.size = size
        self.labels = labels
        self.stage = stage
        self.waiter = waiter
        self.batch = batch
        self.key = key


class GroupCommit(Generic[Waiter]):
    """Forms commits, keeps the buffer within its bounds, and knows what is acknowledged and what is synced."""

    def __init__(
        self,
        policy: SyncPolicy,
        *,
        next_sequence: int,
        synced_sequence: int,
        last_time: int = 0,
        buffer_records: int,
        buffer_bytes: int,
    ) -> None:
        self.policy = policy
        self.next_sequence = next_sequence
        """One past the last acknowledged record."""
        self.synced_sequence = synced_sequence
        self.unsynced_since = 0
        """When the oldest acknowledged record that is not synced was accepted, if there is one."""
        self.buffer_records = buffer_records
        self.buffer_bytes = buffer_bytes
        self.under_way: Commit[Waiter] | None = None
        self.forming: Commit[Waiter] | None = None
        """The one that takes what is accepted now, if there is any: the last of those that have not departed."""
        self.waiting: deque[Pending[Waiter]] = deque()
        self._queue: deque[Commit[Waiter]] = deque()  # those that have not departed
        self._full_records = self._full_bytes = 0  # of all that have not arrived, but for the forming one
        self._last_time = last_time  # of the commits before the forming one

    @property
    def unsynced(self) -> int:
        """Acknowledged records that a power cut could take."""
        return self.next_sequence - self.synced_sequence

    @property
    def is_forming(self) -> bool:
        """Whether something waits to depart."""
        return bool(self._queue)

    @property
    def buffered_records(self) -> int:
        """Accepted and not yet arrived."""
        forming = self.forming
        return self._full_records if forming is None else self._full_records + len(forming.payloads)

    @property
    def buffered_bytes(self) -> int:
        """Of these, with their labels."""
        forming = self.forming
        return self._full_bytes if forming is None else self._full_bytes + forming.size

    # accepting

    def add(self, payload: bytes, size: int, labels: tuple[str, ...], stage: Stage, waiter: Waiter, now: int) -> bool:
        """Accept one record, whose place in the log is settled from here on; False when there is no room for it now."""
        if not self._has_room(1, size):
            return False
        commit = self._open()
        if labels:
            commit.labels[len(commit.payloads)] = labels
            commit.label_bytes += size - len(payload)
        commit.stage = max(commit.stage, stage)
        commit.time = max(commit.time, now)
        commit.payloads.append(payload)
        commit.timestamps.append(commit.time)
        commit.waiters.append(waiter)
        commit.size += size
        return True

    def open_to_all(self) -> None:
        """Let the forming commit take more by itself, as far as there is room now, of records that ask for no more than
        those in it have."""
        commit = self.forming
        if commit is not None and not self.waiting:
            commit.records_max = self.buffer_records - self._full_records
            commit.bytes_max = min(self.buffer_bytes - self._full_bytes, COMMIT_BYTES - 1)

    def wait(self, pending: Pending[Waiter]) -> None:
        """Have it wait for room. From now on nobody goes ahead of it."""
        self.waiting.append(pending)
        self._close_to_all()

    def _close_to_all(self) -> None:
        if self.forming is not None:
            self.forming.records_max = 0

    def add_batch(self, pending: Pending[Waiter], now: int) -> bool:
        """Accept records that belong together, so that they share one commit; False when there is no room for them now."""
        count = len(pending.payloads)
        if not self._has_room(count, pending.size):
            return False
        commit = self._open()
        first = len(commit.payloads)
        commit.batches[first] = count
        if pending.key is not None:
            commit.keys.append(Key(*pending.key, first, count))
        if pending.labels:
            commit.labels.update((first + index, labels) for index, labels in pending.labels.items())
            commit.label_bytes += pending.size - sum(map(len, pending.payloads))
        commit.stage = max(commit.stage, pending.stage)
        commit.time = max(commit.time, now)
        commit.payloads += pending.payloads
        commit.timestamps += repeat(commit.time, count)
        commit.waiters.append(pending.waiter)
        commit.waiters += repeat(None, count - 1)
        commit.size += pending.size
        return True

    def admit(self, now: int, is_gone: Callable[[Waiter], bool]) -> None:
        """Accept those who wait for room, in their order, as far as there is room. Who is gone was never accepted."""
        waiting, self.waiting = self.waiting, deque()
        while waiting and (is_gone(waiting[0].waiter) or self._admit(waiting[0], now)):
            waiting.popleft()
        self.waiting = waiting

    def leave_line(self, pending: Pending[Waiter], now: int, is_gone: Callable[[Waiter], bool]) -> None:
        """Who waited for room is gone: nothing of it is written, and it stands in nobody's way."""
        if pending in self.waiting:
            self.waiting.remove(pending)
            self.admit(now, is_gone)

    def _admit(self, pending: Pending[Waiter], now: int) -> bool:
        if pending.batch:
            return self.add_batch(pending, now)
        labels = pending.labels.get(0, ())
        return self.add(pending.payloads[0], pending.size, labels, pending.stage, pending.waiter, now)

    def barrier(self, stage: Stage, waiter: Waiter | None) -> bool:
        """Have ``waiter`` told when everything accepted so far has reached ``stage``; False when it has already."""
        if self.forming is not None:
            commit = self.forming
            commit.stage = max(commit.stage, stage)
        elif self.under_way is not None and (stage is Stage.FLUSHED or self.under_way.sync):
            commit = self.under_way
        elif stage is Stage.SYNCED and (self.under_way is not None or self.unsynced):
            commit = self._open()
            commit.stage = stage
        else:
            return False
        if waiter is not None:
            commit.barriers.append(waiter)
        return True

    def _open(self) -> Commit[Waiter]:
        """The commit that still takes records."""
        if self.forming is None or self.forming.size >= COMMIT_BYTES:
            if self.forming is not None:
                self._leave_behind(self.forming)
            self.forming = Commit(self._last_time)
            self._queue.append(self.forming)
        return self.forming

    def _leave_behind(self, commit: Commit[Waiter]) -> None:
        """The forming commit takes no more."""
        self._last_time = commit.time
        self._full_records += len(commit)
        self._full_bytes += commit.size
        self.forming = None

    def _has_room(self, records: int, bytes: int) -> bool:
        """Whether so much may be accepted now. What is larger than the buffer goes alone; who may not, never comes here."""
        if self.waiting:
            return False
        buffered = self.buffered_records
        is_over = buffered + records > self.buffer_records or self.buffered_bytes + bytes > self.buffer_bytes
        return not (is_over and buffered)

    def may_hold(self, records: int, bytes: int) -> bool:
        """Whether a batch of this size can ever have room. One record has, however large its labels: see `add`."""
        return records <= self.buffer_records and (bytes <= self.buffer_bytes or records == 1)

    def resize(self, records: int, bytes: int) -> list[Pending[Waiter]]:
        """Keep within these bounds from now on. Gives those who wait for room and would never have it: they have left the
        line."""
        self.buffer_records, self.buffer_bytes = records, bytes
        self._close_to_all()
        waiting, self.waiting = self.waiting, deque()
        too_large: list[Pending[Waiter]] = []
        for pending in waiting:
            line = self.waiting if self.may_hold(len(pending.payloads), pending.size) else too_large
            line.append(pending)
        return too_large

    # leaving and arriving

    def depart(self) -> Commit[Waiter] | None:
        """The next commit that may leave, with the decision whether it is synced; None while one is under way."""
        if self.under_way is not None or not self._queue:
            return None
        commit = self._queue.popleft()
        if commit is self.forming:
            self._leave_behind(commit)
        commit.sync = commit.stage is Stage.SYNCED or self.policy.owes_sync(self.unsynced, len(commit))
        self.under_way = commit
        return commit

    def arrive(self, landing: Landing) -> Commit[Waiter]:
        """The commit under way has reached the stage that it owed: its records count as acknowledged now."""
        commit = self._leave()
        if commit.timestamps and (not self.unsynced or landing.synced_sequence > self.synced_sequence):
            self.unsynced_since = commit.timestamps[0]  # what was synced meanwhile, was synced as far as it went then
        self.next_sequence = landing.next_sequence
        self.synced_sequence = landing.synced_sequence
        return commit

    def refuse(self) -> tuple[Commit[Waiter], list[Waiter]]:
        """There was no space for the commit under way. Gives it back, with the barriers placed behind it: they were to
        wait for its records too, and must be told."""
        commit = self._leave()
        behind = [waiter for later in self._queue for waiter in later.barriers]
        for later in self._queue:
            later.barriers.clear()
        return commit, behind

    def abandon(self) -> list[Waiter]:
        """The store has failed: everyone who waits for anything, and nothing is left to wait for."""
        commits = [*([self.under_way] if self.under_way is not None else []), *self._queue]
        everyone = [waiter for commit in commits for waiter in commit.everyone()]
        everyone += self.give_up_waiting()
        self.under_way = self.forming = None
        self._queue.clear()
        self._full_records = self._full_bytes = 0
        return everyone

    def remaining(self) -> list[Commit[Waiter]]:
        """The loop is gone: what was accepted and has not departed, each commit to be synced."""
        commits = list(self._queue)
        self._queue.clear()
        self.forming = None
        for commit in commits:
            commit.sync = True
        return commits

    def give_up_waiting(self) -> list[Waiter]:
        """Those who wait for room and will not get it."""
        waiters = [pending.waiter for pending in self.waiting]
        self.waiting.clear()
        return waiters

    def _leave(self) -> Commit[Waiter]:
        commit = self.under_way
        assert commit is not None, "a commit arrives only after it has departed"
        self.under_way = None
        self._full_records -= len(commit)
        self._full_bytes -= commit.size
        return commit
