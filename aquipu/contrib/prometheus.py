"""The statistics of stores for Prometheus, read when it asks for them::

    async with Store.open("audit") as store:
        with exported(store, name="audit"):
            ...

Nothing is counted twice: each scrape takes one snapshot of each store (`Store.statistics`), in
whatever thread ``prometheus_client`` answers it, and waits neither for the loop nor for the disk.
So a scrape is answered while the disk hangs, and shows it: ``aquipu_under_way_seconds`` grows.

==============================  =========  =========================================================
metric, with label ``store``    type       what
==============================  =========  =========================================================
aquipu_appends_total            counter    records acknowledged
aquipu_appended_bytes_total     counter    of their data
aquipu_commits_total            counter    that carried them to the disk
aquipu_syncs_total              counter    fdatasync calls, or writes that sync by themselves
aquipu_errors_total             counter    callers with an error, by ``reason``: "StoreFullError"
aquipu_cancelled_waiters_total  counter    callers that were cancelled while they waited
aquipu_append_seconds           histogram  from acceptance to acknowledgement
aquipu_commit_records           histogram  records of a commit
aquipu_sync_seconds             histogram  of single calls
aquipu_buffer_records           gauge      accepted, not yet acknowledged
aquipu_buffer_bytes             gauge      of their data and labels
aquipu_waiting_callers          gauge      that wait for room in the buffer
aquipu_first_sequence           gauge      of the first record kept
aquipu_next_sequence            gauge      one past the last acknowledged record
aquipu_synced_sequence          gauge      everything below is on the disk
aquipu_oldest_unsynced_seconds  gauge      age of the oldest record that a power cut could take
aquipu_under_way_seconds        gauge      time at what the disk is doing now; 0 when it rests
aquipu_segments                 gauge      files of the log; missing where a daemon writes
aquipu_disk_bytes               gauge      of these files
aquipu_free_bytes               gauge      on their file system; missing where that is not known
aquipu_state                    gauge      1 for the ``state`` it is in, 0 for the others
aquipu_cursor_records           gauge      that the ``cursor`` has not passed yet
aquipu_cursor_seconds           gauge      age of the oldest of these that is kept
aquipu_archived_sequence        gauge      everything below is in the archive, if there is one
aquipu_unarchived_records       gauge      records that the archive does not have yet
aquipu_archive_lag_seconds      gauge      how far it is behind; 0 when it has all
==============================  =========  =========================================================

Histograms of time have buckets from 0.1 ms, doubling, to 13 s. To be warned:
``aquipu_state{state="failed"} == 1``; ``aquipu_under_way_seconds > 1``;
``predict_linear(aquipu_free_bytes[1h], 4 * 3600) < 0``; ``aquipu_cursor_seconds > 300``.

In ``prometheus_client``'s multiprocess mode (``PROMETHEUS_MULTIPROC_DIR``) a scrape shows what
processes have written into files, which is not asked of anybody, so a store cannot be shown there:
`exported` says so. Have the daemon answer by itself (``aquipu serve --metrics``), or give a
``registry`` from which the process that has the store answers.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from os import environ
from threading import Lock
from typing import Any, get_type_hints

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from aquipu import Histogram, Statistics
from aquipu.contrib.shared.opener import AnyStore

_STATES = ("open", "failed", "closing", "closed")
_FAMILIES = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}
_METRICS = {
    field: metric
    for field, hint in get_type_hints(Statistics, include_extras=True).items()
    for metric in getattr(hint, "__metadata__", ())
}
"""By the field of `Statistics` that has it, where it stands beside the type."""


class StoreCollector(Collector):
    """Collector of the statistics of some stores for a registry of ``prometheus_client``.

    `exported` is the short way to one.

    It does not keep a store alive: one that nobody holds any more is no longer shown.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        """Register, unless ``registry`` is None.

        Raises ValueError when the registry has one already; RuntimeError for the `REGISTRY` in
        multiprocess mode, in which it would never be asked.
        """
        _check_asked(registry)
        self._stores: weakref.WeakValueDictionary[str, AnyStore] = weakref.WeakValueDictionary()
        self._lock = Lock()
        if registry is not None:
            registry.register(self)

    def add(self, store: AnyStore, name: str | None = None) -> None:
        """Show a store from now on, also after it is closed.

        ``name`` is its label ``store``, without it its path. Bytes of a path that are no UTF-8 are
        written as ``\xff``.

        Raises ValueError when another store is shown under this name.
        """
        label = _text(store.path if name is None else name)
        with self._lock:
            if self._stores.get(label, store) is not store:
                raise ValueError(
                    f"another store is shown as {label!r} already; "
                    "remove it first, or give this one a name"
                )
            self._stores[label] = store

    def remove(self, store: AnyStore) -> None:
        """Show it no longer."""
        with self._lock:
            for label, shown in list(self._stores.items()):
                if shown is store:
                    del self._stores[label]

    def describe(self) -> list[Metric]:
        """Return the metrics without values, by which a registry finds two of the same name."""
        return list(_metrics({}))

    def collect(self) -> list[Metric]:
        """Return the metrics as they are now."""
        with self._lock:
            stores = dict(self._stores)
        return list(_metrics({label: store.statistics() for label, store in stores.items()}))


def _text(label: str) -> str:
    return label.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _check_asked(registry: CollectorRegistry | None) -> None:
    """RuntimeError for the registry that is not asked in multiprocess mode."""
    if registry is REGISTRY and not {
        "PROMETHEUS_MULTIPROC_DIR",
        "prometheus_multiproc_dir",
    }.isdisjoint(environ):
        raise RuntimeError(
            "a store cannot be shown in prometheus_client's multiprocess mode "
            "(PROMETHEUS_MULTIPROC_DIR is set): a scrape shows only what processes have written "
            "into files; let the daemon answer (aquipu serve --metrics), or give a registry from "
            "which the process that has the store answers"
        )


def _metrics(seen: dict[str, Statistics]) -> Iterator[Metric]:
    """Yield each metric with its value for each store."""
    for field, (kind, name, text, label, zero_is_unknown) in _METRICS.items():
        family = _FAMILIES[kind](name, text, labels=["store", label] if label else ["store"])
        for store, statistics in seen.items():
            value = getattr(statistics, field)
            if not (value is None or (zero_is_unknown and value == 0)):
                _add(family, store, value)
        yield family


def _add(family: Any, store: str, value: object) -> None:
    """Add the value of one store to its metric."""
    if isinstance(value, Histogram):
        bounds = [*map(floatToGoString, value.bounds), "+Inf"]
        counts = accumulate(map(float, value.counts))
        family.add_metric([store], list(zip(bounds, counts, strict=True)), value.sum)
    elif isinstance(value, dict):
        for label, number in value.items():
            family.add_metric([store, label], number)
    elif isinstance(value, str):
        for state in _STATES:
            family.add_metric([store, state], state == value)
    else:
        family.add_metric([store], value)


@contextmanager
def exported(
    store: AnyStore, name: str | None = None, registry: CollectorRegistry = REGISTRY
) -> Iterator[None]:
    """Show the statistics of a store in a registry, until the end of the block.

    ``name`` is its label ``store``, without it its path. Several stores may be shown at once.

    Raises ValueError when another store is shown under this name, RuntimeError in multiprocess mode
    (see above).
    """
    _check_asked(registry)
    with _lock:
        collector = _collectors.get(registry)
        if collector is None:
            collector = _collectors[registry] = StoreCollector(registry)
    collector.add(store, name)
    try:
        yield
    finally:
        collector.remove(store)


_lock = Lock()
_collectors: weakref.WeakKeyDictionary[CollectorRegistry, StoreCollector] = (
    weakref.WeakKeyDictionary()
)
