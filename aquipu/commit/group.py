"""Group commit: which appends share a commit, and what is acknowledged and synced. Pure.

No file, thread, clock or loop; all of it belongs to the loop thread.

An append is *accepted* into the commit that is forming; it waits for *room* first when the buffer
is full. The commit is *submitted* when the one before it is complete, so a group forms because the
disk is busy. It is *complete* when its records have reached the stage that it owes, and then its
waiters are resolved::

                 room?  yes                    one at a time
    append ─────────┬────────▶ forming ──────────────────────▶ under way ─────▶ complete
                    │ no          ▲                                │
                    └──▶ waiting ─┘  in the order of the calls     └─▶ refused (no space), or all
                                                                       are abandoned (failed)

A waiter is whatever the caller can resolve: the store uses futures, a test anything. A record whose
waiter has lost interest keeps its place and is written: it was accepted.

**Interrupts.** A Ctrl-C may come between any two steps here. So each change has one step that
decides: a record is accepted when its waiter is in its column, which comes last; a commit is under
way from the one assignment that says so. `mend` takes back what was begun before that step and
finishes what comes behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from aquipu.commit.buffer import Buffer, Waiter
from aquipu.engine import Commit, CommitResult
from aquipu.policy import Stage, SyncPolicy
from aquipu.record import labels_size

E = TypeVar("E")


class GroupCommit(Buffer[Waiter]):
    """Lets one commit be under way at a time, and knows what is acknowledged and what is synced."""

    def __init__(
        self,
        policy: SyncPolicy,
        *,
        next_sequence: int,
        synced_sequence: int,
        buffer_records: int,
        buffer_bytes: int,
        elapsed: Callable[[], int] = int,
    ) -> None:
        """Begin where a log ends; ``elapsed`` is the monotonic clock, asked once a commit."""
        super().__init__(buffer_records=buffer_records, buffer_bytes=buffer_bytes, elapsed=elapsed)
        self.policy = policy
        self.next_sequence = next_sequence
        """One past the last acknowledged record."""
        self.synced_sequence = synced_sequence
        self.is_beside = False
        """Whether records that came into the log beside the commits may not be synced."""
        self._covers_beside = False  # the commit under way syncs those, too
        self.unsynced_since = 0
        """Time, by the monotonic clock, when the oldest `unsynced` record was accepted, if any."""

    @property
    def unsynced(self) -> int:
        """Acknowledged records that a power cut could take."""
        return self.next_sequence - self.synced_sequence

    @property
    def upcoming(self) -> int:
        """Sequence that the next record gets, behind all that is accepted or waits for room."""
        return self.next_sequence + self.buffered_records + self.waiting_records

    def barrier(self, stage: Stage, waiter: Waiter | None) -> bool:
        """Have ``waiter`` resolved when everything accepted so far has reached ``stage``.

        Return False when it has already.
        """
        if self.forming is not None:
            commit = self.forming
            commit.stage = max(commit.stage, stage)
        elif self.under_way is not None and (
            stage is Stage.FLUSHED or (self.under_way.sync and not self.is_beside)
        ):
            commit = self.under_way
        elif stage is Stage.SYNCED and (
            self.under_way is not None or self.unsynced or self.is_beside
        ):
            commit = self._open()
            commit.stage = stage
        else:
            return False
        if waiter is not None:
            commit.barriers.append(waiter)
        return True

    # submitting and completing

    def submit(self) -> Commit[Waiter] | None:
        """Take the next commit to submit, and decide whether it is synced.

        None while one is under way.
        """
        if self.under_way is not None or not self._queue:
            return None
        commit = self._queue[0]
        if commit is self.forming:
            self._leave_behind(commit)
        self._decide_sync(commit)
        commit.first_sequence = self.next_sequence
        self._covers_beside = commit.sync and self.is_beside
        self.is_beside = self.is_beside and not commit.sync
        self.under_way = commit
        self._queue.popleft()
        return commit

    def _decide_sync(self, commit: Commit[Waiter]) -> None:
        commit.sync = commit.stage >= Stage.SYNCED or self.policy.owes_sync(
            self.unsynced, len(commit)
        )

    def conflicts(self) -> list[int]:
        """Return which batches of the commit under way would get another sequence than expected.

        By the index of their first records. Those that leave it make those behind them move up.
        """
        commit = self.under_way
        assert commit is not None, "a commit is checked when it was submitted"
        found: list[int] = []
        leaving = 0
        for first, expected in commit.expected.items():
            if commit.first_sequence + first - leaving != expected:
                found.append(first)
                leaving += commit.batches[first]
        return found

    def settle(self, conflicts: Iterable[int]) -> bool:
        """Take batches, whose waiters have failed, out of the commit under way.

        Return whether anything is left of it; if not, none is under way.
        """
        self.part(dict.fromkeys(conflicts))
        commit = self.under_way
        assert commit is not None, "a commit is checked when it was submitted"
        commit.expected = {}
        self._decide_sync(commit)
        is_left = bool(commit.payloads or commit.barriers)
        if not is_left:
            self._leave()
        return is_left

    def complete(self, result: CommitResult) -> Commit[Waiter]:
        """Complete the commit under way: its records count as acknowledged now.

        It has reached the stage that it owed.
        """
        commit = self.under_way
        assert commit is not None, "a commit completes only after it was submitted"
        if commit.timestamps and (
            not self.unsynced or result.synced_sequence > self.synced_sequence
        ):
            # what was synced meanwhile, was synced as far as it went then
            self.unsynced_since = commit.since
        self.next_sequence = result.next_sequence
        self.synced_sequence = result.synced_sequence
        return self._leave()

    def refused(self) -> list[Waiter]:
        """Return the waiters to be failed when there was no space for the commit under way.

        Those of it, and the barriers placed behind it, which were to wait for its records too. To
        be failed before `refuse`.
        """
        assert self.under_way is not None, "a commit completes only after it was submitted"
        return [
            *self.under_way.everyone(),
            *(waiter for later in self._queue for waiter in later.barriers),
        ]

    def refuse(self) -> None:
        """Drop the commit under way: there was no space for it, and `refused` have failed."""
        for later in self._queue:
            later.barriers.clear()
        self.is_beside = self.is_beside or self._covers_beside
        self._leave()

    def part(self, refused: Mapping[int, E]) -> list[tuple[Waiter, E]]:
        """Take records that cannot be stored, by their index, out of the commit under way.

        Each leaves it with its whole batch, and the others stay together. Return the waiters of
        those that leave, each with the reason.
        """
        commit = self.under_way
        assert commit is not None, "nothing is refused but what is under way"
        reasons = dict(refused)
        for first, count in commit.batches.items():
            batch = range(first, first + count)
            its = sorted(refused.keys() & batch)
            reasons |= dict.fromkeys(batch, refused[its[0]]) if its else {}
        failed = [
            (waiter, reasons[index])
            for index in sorted(reasons)
            if (waiter := commit.waiters[index]) is not None
        ]
        records, size = len(commit), commit.size
        keep(commit, [index for index in range(records) if index not in reasons])
        self._full_records -= records - len(commit)
        self._full_bytes -= size - commit.size
        return failed

    def everyone(self) -> list[Waiter]:
        """Return all waiters, which are to be failed before `abandon`."""
        commits = [*([self.under_way] if self.under_way is not None else []), *self._queue]
        everyone = [waiter for commit in commits for waiter in commit.everyone()]
        return everyone + [pending.waiter for pending in self.waiting]

    def abandon(self) -> None:
        """Drop everything: the store has failed, and so have the waiters of `everyone`."""
        self.is_beside = self.is_beside or (self.under_way is not None and self._covers_beside)
        self.waiting.clear()
        self.under_way = self.forming = None
        self._queue.clear()
        self._full_records = self._full_bytes = 0

    def remaining(self) -> list[Commit[Waiter]]:
        """Take all commits that are not submitted, each to be synced: the loop is gone.

        What expects a sequence is left out: nobody is there any more to see that it gets it.
        """
        commits = list(self._queue)
        self._queue.clear()
        self.forming = None
        for commit in commits:
            commit.sync = True
            left_out = {
                index
                for first in commit.expected
                for index in range(first, first + commit.batches[first])
            }
            if left_out:
                keep(commit, [index for index in range(len(commit)) if index not in left_out])
        return commits

    def holds(self, waiter: Waiter) -> bool:
        """Return whether what this waits for is accepted and not yet complete."""
        commits = [*([self.under_way] if self.under_way is not None else []), *self._queue]
        return any(waiter is one for commit in commits for one in commit.waiters)

    def mend(self) -> None:
        """Make all of this whole again after an interrupt between any two of its steps."""
        queue, forming = self._queue, self.forming
        if queue and queue[0] is self.under_way:
            queue.popleft()
        if forming is not None and not (queue and queue[-1] is forming):
            queue.append(forming)
        self.close_to_all()
        for commit in queue:
            square(commit)
        left = [
            commit
            for commit in (self.under_way, *queue)
            if commit is not None and commit is not forming
        ]
        self._full_records = sum(map(len, left))
        self._full_bytes = sum(commit.size for commit in left)

    def _leave(self) -> Commit[Waiter]:
        commit = self.under_way
        assert commit is not None, "a commit completes only after it was submitted"
        self.under_way = None
        self._full_records -= len(commit)
        self._full_bytes -= commit.size
        return commit


def keep(commit: Commit[Waiter], indexes: Sequence[int]) -> None:
    """Let a commit go of all records but these; of a batch all are kept, or none."""
    places = {index: place for place, index in enumerate(indexes)}
    payloads = [commit.payloads[index] for index in indexes]
    times = [commit.timestamps[index] for index in indexes]
    waiters = [commit.waiters[index] for index in indexes]
    labels = {places[index]: its for index, its in commit.labels.items() if index in places}
    batches = {places[first]: n for first, n in commit.batches.items() if first in places}
    keys = [key._replace(first=places[key.first]) for key in commit.keys if key.first in places]
    expected = {places[first]: n for first, n in commit.expected.items() if first in places}
    label_bytes = sum(map(labels_size, labels.values()))
    size = sum(map(len, payloads)) + label_bytes
    # without a call in between, so an interrupt does not leave it in pieces
    commit.payloads, commit.timestamps, commit.accepted = payloads, times, times
    commit.waiters, commit.labels, commit.batches = waiters, labels, batches
    commit.keys, commit.expected, commit.label_bytes, commit.size = (
        keys,
        expected,
        label_bytes,
        size,
    )


def square(commit: Commit[Waiter]) -> None:
    """Take back what was accepted in part: its caller was interrupted, and does not wait."""
    count = min(len(commit.payloads), len(commit.timestamps), len(commit.waiters))
    for first, records in list(commit.batches.items()):
        if first + records > count:
            count = first
            del commit.batches[first]
    for column in (commit.payloads, commit.timestamps, commit.waiters):
        del column[count:]
    commit.labels = {index: labels for index, labels in commit.labels.items() if index < count}
    commit.keys = [key for key in commit.keys if key.first < count]
    commit.expected = {first: n for first, n in commit.expected.items() if first < count}
    commit.label_bytes = sum(map(labels_size, commit.labels.values()))
    commit.size = sum(map(len, commit.payloads)) + commit.label_bytes
