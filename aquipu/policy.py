"""When a record is safe enough: the stages that it passes, and the policies that choose one.

::

      await append()          flush                      sync
     caller ───────▶ buffer ─────────▶ page cache ─────────────▶ disk
             Stage.BUFFERED   Stage.FLUSHED               Stage.SYNCED
                              survives a process crash    survives a power cut

A policy decides from counts handed to it; it knows no clock, no file and no loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from sys import float_info
from typing import ClassVar


class Stage(IntEnum):
    """How far a record has come. Later stages compare greater."""

    BUFFERED = 1
    """Accepted, in the memory of the process. A process crash takes it."""
    FLUSHED = 2
    """In the page cache of the operating system.

    A process crash leaves it, a power cut may take it.
    """
    SYNCED = 3
    """On the disk: fdatasync has returned. A power cut leaves it."""
    REPLICATED = 4
    """On the disk of a synchronous standby (in PostgreSQL): the loss of the server leaves it."""
    ARCHIVED = 5
    """In the archive (``Store.open(archive=...)``): the loss of the machine leaves it."""


class SyncPolicy:
    """When a store syncs. Use one of ``Always``, ``EveryN`` and ``OsManaged``."""

    stage: ClassVar[Stage]
    """What an append waits for when it asks for nothing else."""
    within: float | None = None
    """The greatest age in seconds of an acknowledged record that is not synced;

    None for no such bound.
    """

    @property
    def loop_patience(self) -> float | None:
        """Seconds until the loop asks for a sync; the rest of ``within`` is for the disk."""
        return None if self.within is None else self.within / 2

    @property
    def worker_patience(self) -> float | None:
        """Seconds until the worker syncs by itself: the loop is blocked, or it had asked."""
        return None if self.within is None else 0.75 * self.within

    def owes_sync(self, unsynced: int, arriving: int) -> bool:
        """Return whether ``arriving`` records must be synced before they are acknowledged.

        ``unsynced`` records are acknowledged already.
        """
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Always(SyncPolicy):
    """``append`` returns when the record is SYNCED. A power cut takes no acknowledged record.

    The same choice as PostgreSQL's ``synchronous_commit=on`` and InnoDB's
    ``innodb_flush_log_at_trx_commit=1``.
    """

    stage = Stage.SYNCED

    def owes_sync(self, unsynced: int, arriving: int) -> bool:
        # each of its records asks for SYNCED by itself; one that asked for less owes nothing
        return False


@dataclass(frozen=True)
class EveryN(SyncPolicy):
    """``append`` returns when the record is FLUSHED; every ``n``-th waits for SYNCED.

    It is the append that makes the unsynced count reach ``n`` that waits. A power cut takes at most
    ``n - 1`` acknowledged records, and none that is older than ``within`` seconds (None: no bound
    in time). The timer starts with the oldest unsynced record and fires at half of ``within``, at
    three quarters when the loop is blocked; the rest is for the disk: a sync that takes longer than
    that passes the bound.

    Raises TypeError or ValueError for an ``n`` below 1 and a ``within`` that is not a positive
    number.
    """

    stage = Stage.FLUSHED
    n: int = 64
    within: float | None = 1.0

    def __post_init__(self) -> None:
        n, within = self.n, self.within
        if not isinstance(n, int) or isinstance(n, bool):
            raise TypeError(f"EveryN takes a whole number of records, not {type(n).__name__}")
        if n < 1:
            raise ValueError(f"EveryN takes at least 1 record, not {n}")
        if within is not None and (
            not isinstance(within, (int, float)) or isinstance(within, bool)
        ):
            raise TypeError(f"within takes seconds or None, not {type(within).__name__}")
        if within is not None and not 0 < within <= float_info.max:
            raise ValueError(f"within takes a positive number of seconds, not {within}")

    def owes_sync(self, unsynced: int, arriving: int) -> bool:
        return unsynced + arriving >= self.n


class OsManaged(SyncPolicy):
    """``append`` returns when the record is FLUSHED.

    Nothing is synced until ``sync()``, a seal or the close. A power cut takes what the kernel has
    not yet written back (on Linux usually the last 5 to 30 seconds); what is left is a clean
    prefix. The same choice as InnoDB's ``innodb_flush_log_at_trx_commit=2``.
    """

    stage = Stage.FLUSHED

    def owes_sync(self, unsynced: int, arriving: int) -> bool:
        return False
