"""The buffer of a log: what is accepted and not yet submitted, and what waits for room. Pure.

An append is *accepted* into the commit that is forming; it waits for *room* first when the buffer
is full, in the order of the calls. Most records ask for nothing of their own and come many at a
time. So the forming commit is given, with the first of them, how far it may go on without asking,
and takes the others by itself (`Commit.take`): a sixth of the time that an append costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, repeat
from typing import Generic, TypeVar

from aquipu.engine import Commit
from aquipu.policy import Stage
from aquipu.record import PRODUCERS, Key

Waiter = TypeVar("Waiter")

COMMIT_BYTES = 8 * 1024 * 1024
"""Bytes from which a forming commit takes no more: what comes later goes into the next one."""


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
        expected: int | None = None,
        times: Sequence[int] | None = None,
    ) -> None:
        """Keep what is to be appended; ``labels`` by the index of those records that have any.

        ``key``: writer and number, by which a batch that is sent again can be recognised.
        ``expected``: the sequence that a batch must get. ``times``: of the records of a batch, none
        before `Buffer.last_time`; without, that of the acceptance.
        """
        self.payloads = payloads
        self.size = size
        self.labels = labels
        self.stage = stage
        self.waiter = waiter
        self.batch = batch
        self.key = key
        self.expected = expected
        self.times = times


class Buffer(Generic[Waiter]):
    """Forms commits, and keeps within bounds what is accepted and not yet complete."""

    def __init__(
        self, *, buffer_records: int, buffer_bytes: int, elapsed: Callable[[], int] = int
    ) -> None:
        """Begin empty; ``elapsed`` is the monotonic clock, asked once for each commit."""
        self.buffer_records = buffer_records
        self.buffer_bytes = buffer_bytes
        self.under_way: Commit[Waiter] | None = None
        self.forming: Commit[Waiter] | None = None
        """The one that takes what is accepted now, if any: the last that is not submitted."""
        self.waiting: deque[Pending[Waiter]] = deque()
        self._queue: deque[Commit[Waiter]] = deque()  # those that are not submitted
        # the first of those that wait, while it may have been accepted
        self._admitting: Pending[Waiter] | None = None
        # of all that are not complete, but for the forming one
        self._full_records = self._full_bytes = 0
        self._elapsed = elapsed

    @property
    def is_forming(self) -> bool:
        """Whether something waits to be submitted."""
        return bool(self._queue)

    @property
    def buffered_records(self) -> int:
        """Records accepted and not yet complete."""
        forming = self.forming
        return self._full_records if forming is None else self._full_records + len(forming.payloads)

    @property
    def buffered_bytes(self) -> int:
        """Bytes of the `buffered_records`, with their labels."""
        forming = self.forming
        return self._full_bytes if forming is None else self._full_bytes + forming.size

    @property
    def last_time(self) -> int:
        """Time of the newest record that is accepted and not yet complete; 0 without any."""
        commits = (self.under_way, *self._queue)
        return max((one.timestamps[-1] for one in commits if one and one.timestamps), default=0)

    @property
    def waiting_records(self) -> int:
        """Records that wait for room."""
        return sum(len(pending.payloads) for pending in self.waiting)

    # accepting

    def add(
        self,
        payload: bytes,
        size: int,
        labels: tuple[str, ...],
        stage: Stage,
        waiter: Waiter,
        now: int,
    ) -> bool:
        """Accept one record, whose place in the log is settled from here on.

        Return False when there is no room for it now.
        """
        if not self._has_room(1, size):
            return False
        self._put(payload, size, labels, stage, waiter, now)
        return True

    def _put(
        self,
        payload: bytes,
        size: int,
        labels: tuple[str, ...],
        stage: Stage,
        waiter: Waiter,
        now: int,
    ) -> None:
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

    def open_to_all(self) -> None:
        """Let the forming commit take more by itself, as far as there is room now.

        Only records that ask for no more than those in it have.
        """
        commit = self.forming
        if commit is not None and not self.waiting:
            commit.records_max = self.buffer_records - self._full_records
            commit.bytes_max = min(self.buffer_bytes - self._full_bytes, COMMIT_BYTES - 1)

    def wait(self, pending: Pending[Waiter]) -> None:
        """Have it wait for room: from now on nothing goes ahead of it."""
        self.waiting.append(pending)
        self.close_to_all()

    def close_to_all(self) -> None:
        """Let the forming commit take nothing more by itself: each append must ask first."""
        if self.forming is not None:
            self.forming.records_max = 0

    def add_batch(self, pending: Pending[Waiter], now: int) -> bool:
        """Accept records that belong together, so that they share one commit.

        Return False when there is no room for them now.
        """
        if not self._has_room(len(pending.payloads), pending.size):
            return False
        self._put_batch(pending, now)
        return True

    def _put_batch(self, pending: Pending[Waiter], now: int) -> None:
        count = len(pending.payloads)
        commit = self._open(alone=pending.times is not None)
        first = len(commit.payloads)
        commit.batches[first] = count
        if pending.key is not None:
            commit.keys.append(Key(*pending.key, first, count))
        if pending.key is None or pending.key[1] & PRODUCERS:  # no commit of a client
            commit.whole = True
        if pending.expected is not None:
            commit.expected[first] = pending.expected
        if pending.labels:
            commit.labels.update(
                (first + index, labels) for index, labels in pending.labels.items()
            )
            commit.label_bytes += pending.size - sum(map(len, pending.payloads))
        commit.stage = max(commit.stage, pending.stage)
        commit.time = max(commit.time, now)
        commit.payloads += pending.payloads
        if pending.times is not None:
            commit.accepted = [commit.time] * count
        commit.timestamps += pending.times or repeat(commit.time, count)
        commit.waiters += chain((pending.waiter,), repeat(None, count - 1))
        commit.size += pending.size

    def admit(self, now: int, is_gone: Callable[[Waiter], bool]) -> None:
        """Accept those that wait for room, in their order, as far as there is room.

        One whose waiter is gone was never accepted.
        """
        while self.waiting:
            first = self.waiting[0]
            was_admitted = first is self._admitting and self._is_in(first)
            self._admitting = first
            if not (was_admitted or is_gone(first.waiter) or self._admit(first, now)):
                break
            self.waiting.popleft()
        self._admitting = None

    def leave_line(
        self, pending: Pending[Waiter], now: int, is_gone: Callable[[Waiter], bool]
    ) -> None:
        """Drop one that waited for room: none of it is written, and those behind it move up."""
        if pending in self.waiting:
            self.waiting.remove(pending)
            self.admit(now, is_gone)

    def _admit(self, pending: Pending[Waiter], now: int) -> bool:
        """Accept the first of those that wait, if there is room."""
        if not self._fits(len(pending.payloads), pending.size):
            return False
        if pending.batch:
            self._put_batch(pending, now)
        else:
            labels = pending.labels.get(0, ())
            self._put(pending.payloads[0], pending.size, labels, pending.stage, pending.waiter, now)
        return True

    def _is_in(self, pending: Pending[Waiter]) -> bool:
        """Return whether an `admit` that was interrupted has accepted it.

        As the last one then, since it stood in the line.
        """
        commit = self._queue[-1] if self._queue else self.under_way
        count = len(pending.payloads)
        return (
            commit is not None and len(commit) >= count and commit.waiters[-count] is pending.waiter
        )

    # room

    def _open(self, *, alone: bool = False) -> Commit[Waiter]:
        """Return the commit that still takes records; ``alone``: one that has none.

        Records that were given times have a commit to themselves.
        """
        forming = self.forming
        if forming is not None and (
            forming.size >= COMMIT_BYTES
            or forming.accepted is not forming.timestamps
            or (alone and forming.payloads)
        ):
            self._leave_behind(forming)
            forming = None
        if forming is None:
            self.forming = forming = Commit()
            self._queue.append(forming)
        if not forming.payloads:
            forming.since = self._elapsed()
        return forming

    def _leave_behind(self, commit: Commit[Waiter]) -> None:
        """Have the forming commit take no more."""
        self._full_records += len(commit)
        self._full_bytes += commit.size
        self.forming = None

    def _has_room(self, records: int, bytes: int) -> bool:
        """Return whether so much may be accepted now.

        What is larger than the buffer goes alone; what may not, never comes here.
        """
        return not self.waiting and self._fits(records, bytes)

    def _fits(self, records: int, bytes: int) -> bool:
        buffered = self.buffered_records
        is_over = (
            buffered + records > self.buffer_records
            or self.buffered_bytes + bytes > self.buffer_bytes
        )
        return not (is_over and buffered)

    def may_hold(self, records: int, bytes: int) -> bool:
        """Return whether a batch of this size can ever have room.

        One record has, however large its labels: see `add`.
        """
        return records <= self.buffer_records and (bytes <= self.buffer_bytes or records == 1)

    def resize(self, records: int, bytes: int) -> list[Pending[Waiter]]:
        """Keep within these bounds from now on.

        Return those that wait for room and would never have it: they have left the line.
        """
        self.buffer_records, self.buffer_bytes = records, bytes
        self.close_to_all()
        too_large = [
            pending
            for pending in self.waiting
            if not self.may_hold(len(pending.payloads), pending.size)
        ]
        if too_large:
            self.waiting = deque(pending for pending in self.waiting if pending not in too_large)
        return too_large
