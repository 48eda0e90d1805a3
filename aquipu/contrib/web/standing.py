"""Where a store stands: what is known of it from here, and what is not, and why.

A `Store` of this process knows everything. A client of a daemon knows how far the log has come, and
how far consumers are behind; latencies and files are the daemon's own. A `Reader`, whether of
files, of a database or of an archive, sees the log, and not its writer. What is not known is None,
and ``unknown`` says why in a sentence; nothing is made up.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import sqrt
from time import monotonic
from typing import Any

from aquipu import AquipuError, Histogram, Reader, RemoteStore, Statistics, Store
from aquipu.contrib.streaming.live import AnyLog, end_of

_CONSUMERS_SECONDS = 2.0  # for which they are remembered
_COUNTED = ("records", "bytes", "commits", "syncs", "cancelled")
_MEASURED = (
    *("buffered_records", "buffered_bytes", "waiting", "unsynced_records"),
    *("oldest_unsynced_seconds", "under_way_seconds", "slowest_sync_seconds"),
)
_OF_FILES = ("segments", "disk_bytes", "free_bytes")
_READER_UNKNOWN = (
    "This page only reads the log, beside whoever writes it. How long appends take, what is "
    "buffered and what is synced, only that process knows: mount the page there "
    "(aquipu.contrib.web.app)."
)
_DAEMON_UNKNOWN = (
    "Another process writes this store, and this page asks it. How long appends take there, and "
    "how large its files are, it says at its own metrics (aquipu serve --metrics)."
)


class Standing:
    """What is known of one store."""

    def __init__(self, store: AnyLog, *, may_write: bool) -> None:
        self.store = store
        self._may_write = may_write
        self._consumers: dict[str, Any] | None = None
        self._asked_at = float("-inf")

    async def overview(self) -> dict[str, Any]:
        """Return all that is known: for the head of the page."""
        store = self.store
        consumers = await self.consumers()
        numbers = await self.numbers()
        return {
            "store": readable(store.path),
            "kind": kind_of(store),
            "writable": self._may_write,
            **numbers,
            "health": store.health()._asdict() if isinstance(store, Store) else None,
            "consumers": consumers,
            "unknown": _unknown(store),
        }

    async def numbers(self) -> dict[str, Any]:
        """Return how far the log has come, and what is measured, as of now."""
        store = self.store
        following = await end_of(store) if self._is_elsewhere else store.next_sequence
        first = store.first_sequence
        if not isinstance(store, Store):
            return {**_bounds(first, following, None), "statistics": None}
        synced = min(store.synced_sequence, following)
        known = None if isinstance(store, RemoteStore) else plain(store.statistics())
        return {**_bounds(first, following, synced), "statistics": known}

    @property
    def _is_elsewhere(self) -> bool:
        """Whether what is known is what a daemon, a database or an archive has said last."""
        return type(self.store) not in (Store, Reader) or "://" in self.store.path

    async def consumers(self) -> dict[str, Any] | None:
        """Return how far each consumer is behind; None when that cannot be read just now."""
        if monotonic() - self._asked_at > _CONSUMERS_SECONDS:
            self._asked_at = monotonic()
            try:
                lags = await self.store.cursors()
            except AquipuError:
                self._consumers = None
            else:
                self._consumers = {name: lag._asdict() for name, lag in sorted(lags.items())}
        return self._consumers


def kind_of(store: AnyLog) -> str:
    """Return what the store is, from here: ``store``, ``daemon`` or ``reader``."""
    if isinstance(store, RemoteStore):
        return "daemon"
    return "store" if isinstance(store, Store) else "reader"


def readable(text: str) -> str:
    r"""Return text that any encoding of Unicode takes: a byte that is no UTF-8 is shown as \xff."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def plain(statistics: Statistics) -> dict[str, Any]:
    """Return the statistics as JSON has them."""
    names = (*_COUNTED, *_MEASURED, *_OF_FILES)
    return {
        **{name: getattr(statistics, name) for name in names},
        "state": statistics.state,
        "errors": dict(statistics.errors),
    }


def latencies(now: Statistics, before: Statistics) -> dict[str, float | None]:
    """Return medians and 99th percentiles of what happened between two snapshots, in seconds."""
    found: dict[str, float | None] = {}
    for name in ("append_seconds", "sync_seconds"):
        for percent in (50, 99):
            found[f"{name}_p{percent}"] = percentile(
                getattr(now, name), getattr(before, name), percent
            )
    return found


def percentile(now: Histogram, before: Histogram, percent: float) -> float | None:
    """Return about which value so many percent of the new ones do not exceed; None without any.

    A bucket says no more than its bounds: it is the middle of them, on the scale of their
    logarithms.
    """
    counts = [one - other for one, other in zip(now.counts, before.counts, strict=True)]
    reached = list(accumulate(counts))
    if not reached or reached[-1] <= 0:
        return None
    bucket = bisect_left(reached, reached[-1] * percent / 100)
    bounds = now.bounds
    if bucket >= len(bounds):
        return bounds[-1]
    return bounds[0] / sqrt(2) if bucket == 0 else sqrt(bounds[bucket - 1] * bounds[bucket])


def _bounds(first: int, following: int, synced: int | None) -> dict[str, Any]:
    return {
        "first_sequence": min(first, following),
        "next_sequence": following,
        "synced_sequence": synced,
    }


def _unknown(store: AnyLog) -> list[str]:
    if isinstance(store, RemoteStore):
        return [_DAEMON_UNKNOWN]
    return [] if isinstance(store, Store) else [_READER_UNKNOWN]
