"""What is sent to the database in one call, and what its answer means to those who wait for it."""

from __future__ import annotations

from asyncio import Future
from typing import Any, NamedTuple

from aquipu.engine import Commit
from aquipu.errors import ConflictError, StaleKeyError
from aquipu.policy import Stage
from aquipu.postgres.batches import Group, Rows
from aquipu.record import PRODUCERS, Guarded, Receipt

_IS_CONFIRMED = 4
"""Where the arguments say that a standby must confirm."""
_STORED, _KNOWN, _CONFLICT, _STALE = range(4)


class Waiting(NamedTuple):
    """An append on which the database decides, until it has."""

    batch: Guarded
    time: int
    receipts: Future[list[Receipt]]

    def answer(self, path: str, outcome: tuple[int, int, int, int], synced: float) -> None:
        """Give the caller what the database has decided.

        ``synced``: the sequence below which everything is on the disk of the server.
        """
        if self.receipts.done():
            return
        kind, first, count, time = outcome
        batch = self.batch
        if kind == _CONFLICT and batch.expected is not None:
            self.receipts.set_exception(ConflictError(path, batch.expected, first))
        elif kind == _STALE and batch.key is not None:
            self.receipts.set_exception(StaleKeyError(path, batch.key[1] & ~PRODUCERS, first))
        else:
            if kind == _STORED:
                time = max(time, self.time)
            is_synced = first + count <= synced
            stage = max(batch.stage, Stage.SYNCED) if is_synced else Stage.FLUSHED
            self.receipts.set_result(
                [Receipt(sequence, time, stage) for sequence in range(first, first + count)]
            )


class Call(NamedTuple):
    """What was sent, or is about to be: sent again, it is the same."""

    number: int
    commit: Commit[Any] | None
    guarded: list[Waiting]
    arguments: tuple[Any, ...]

    @property
    def is_confirmed(self) -> bool:
        """Whether a synchronous standby must confirm it."""
        return bool(self.arguments[_IS_CONFIRMED])


def arguments_of(
    of_writer: tuple[int, bytes, int],
    commit: Commit[Any] | None,
    guarded: list[Waiting],
    *,
    every: int | None,
    mode: str,
    confirm: bool = False,
) -> tuple[Any, ...]:
    """Return the arguments of `aquipu.append` for a commit, and for appends that are guarded.

    ``of_writer``: the log, the id of the writer, and the number of the call there. ``every``: how
    many records may not be left unsynced. ``mode``: the ``synchronous_commit`` of what is synced.
    ``confirm``: whether a standby must confirm it, whatever they ask for.
    """
    groups = []
    is_confirmed = confirm or (commit is not None and commit.stage >= Stage.REPLICATED)
    is_synced = is_confirmed or (commit is not None and commit.sync)
    if commit is not None and commit.payloads:
        groups.append(Group(commit.payloads, commit.timestamps, commit.labels))
    for waiting in guarded:
        is_synced = is_synced or waiting.batch.stage >= Stage.SYNCED
        is_confirmed = is_confirmed or waiting.batch.stage >= Stage.REPLICATED
        groups.append(_group_of(waiting.batch, waiting.time))
    return (*of_writer, is_synced, is_confirmed, mode, every, *Rows(groups).arguments())


def _group_of(batch: Guarded, time: int) -> Group:
    key = None if batch.key is None else (batch.key[0], batch.key[1] & ~PRODUCERS)
    expected = None if batch.expected is None else min(batch.expected, (1 << 63) - 1)
    count = len(batch.payloads)
    labels = dict.fromkeys(range(count), batch.labels) if batch.labels else {}
    return Group(batch.payloads, [time] * count, labels, key, expected)
