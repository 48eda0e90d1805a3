"""The statistics of stores for Prometheus, read when it asks for them::

    async with Store.open("audit") as store:
        with exported(store, name="audit"):
            ...

Nothing is counted twice: each scrape takes one snapshot of each store (`Store.statistics`), in whatever thread
``prometheus_client`` answers it, and waits neither for the loop nor for the disk. So a scrape is answered while the disk
hangs, and shows it: ``aquipu_under_way_seconds`` grows.

======================================  =========  =================================================================
metric, each with the label ``store``   type       what
======================================  =========  =================================================================
aquipu_appends_total                    counter    records acknowledged
aquipu_appended_bytes_total             counter    of their data
aquipu_commits_total                    counter    that carried them to the disk
aquipu_syncs_total                      counter    fdatasync calls, or writes that sync by themselves
aquipu_errors_total                     counter    callers that got an error, by ``reason``: "StoreFullError"
aquipu_cancelled_waiters_total          counter    callers that were cancelled while they waited
aquipu_append_seconds                   histogram  from acceptance to acknowledgement
aquipu_commit_records                   histogram  records of a commit
aquipu_sync_seconds                     histogram  of single calls
aquipu_buffer_records                   gauge      accepted, not yet acknowledged
aquipu_buffer_bytes                     gauge      of their data and labels
aquipu_waiting_callers                  gauge      that wait for room in the buffer
aquipu_first_sequence                   gauge      of the first record kept
aquipu_next_sequence                    gauge      one past the last acknowledged record
aquipu_synced_sequence                  gauge      everything below is on the disk
aquipu_oldest_unsynced_seconds          gauge      age of the oldest record that a power cut could take
aquipu_under_way_seconds                gauge      how long the disk has been at what it is doing; 0 when it rests
aquipu_segments                         gauge      files of the log; missing of a store that a daemon writes
aquipu_disk_bytes                       gauge      of these files
aquipu_free_bytes                       gauge      on their file system; missing where the system does not tell
aquipu_state                            gauge      1 for the ``state`` it is in, 0 for the others
======================================  =========  =================================================================

Histograms of time have buckets from 0.1 ms, doubling, to 13 s. To be warned: ``aquipu_state{state="failed"} == 1``;
``aquipu_under_way_seconds > 1``; ``predict_linear(aquipu_free_bytes[1h], 4 * 3600) < 0``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from threading import Lock

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from aquipu import Histogram, Statistics
from aquipu.contrib.opener import AnyStore

_STATES = ("open", "failed", "closing", "closed")

_COUNTERS: dict[str, tuple[str, Callable[[Statistics], float]]] = {
    "aquipu_appends": ("Records acknowledged.", lambda seen: seen.records),
    "aquipu_appended_bytes": ("Bytes of the data of these records.", lambda seen: seen.bytes),
    "aquipu_commits": ("Commits that carried these records to the disk.", lambda seen: seen.commits),
    "aquipu_syncs": ("Syncs of the log: fdatasync, or writes that sync by themselves.", lambda seen: seen.syncs),
    "aquipu_cancelled_waiters": ("Callers that were cancelled while they waited.", lambda seen: seen.cancelled),
}
_HISTOGRAMS: dict[str, tuple[str, Callable[[Statistics], Histogram]]] = {
    "aquipu_append_seconds": ("From acceptance to acknowledgement of a record.", lambda seen: seen.append_seconds),
    "aquipu_commit_records": ("Records of a commit.", lambda seen: seen.commit_records),
    "aquipu_sync_seconds": ("Single calls that sync the log.", lambda seen: seen.sync_seconds),
}
_GAUGES: dict[str, tuple[str, Callable[[Statistics], float | None]]] = {
    "aquipu_buffer_records": ("Records accepted, not yet acknowledged.", lambda seen: seen.buffered_records),
    "aquipu_buffer_bytes": ("Bytes of these, with their labels.", lambda seen: seen.buffered_bytes),
    "aquipu_waiting_callers": ("Callers that wait for room in the buffer.", lambda seen: seen.waiting),
    "aquipu_first_sequence": ("The first record kept.", lambda seen: seen.first_sequence),
    "aquipu_next_sequence": ("One past the last acknowledged record.", lambda seen: seen.next_sequence),
    "aquipu_synced_sequence": ("Everything below is on the disk.", lambda seen: seen.synced_sequence),
    "aquipu_oldest_unsynced_seconds": (
        "Age of the oldest record that a power cut could take.",
        lambda seen: seen.oldest_unsynced_seconds,
    ),
    "aquipu_under_way_seconds": (
        "How long the disk has been at what it is doing; 0 when it rests.",
        lambda seen: seen.under_way_seconds,
    ),
    "aquipu_segments": ("Files of the log.", lambda seen: seen.segments or None),
    "aquipu_disk_bytes": ("Bytes of these files.", lambda seen: seen.disk_bytes or None),
    "aquipu_free_bytes": ("Bytes free on their file system.", lambda seen: seen.free_bytes),
}


class StoreCollector(Collector):
    """Gives the statistics of some stores to a registry of ``prometheus_client``. `exported` is the short way to one.

    It does not keep a store alive: one that nobody holds any more is no longer shown.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        """Registers itself, unless ``registry`` is None. ValueError when the registry has one already."""
        self._stores: weakref.WeakValueDictionary[str, AnyStore] = weakref.WeakValueDictionary()
        self._lock = Lock()
        if registry is not None:
            registry.register(self)

    def add(self, store: AnyStore, name: str | None = None) -> None:
        """Show a store from now on, also after it is closed; ``name`` is its label ``store``, without it its path.

        Raises ValueError when another store is shown under this name.
        """
        label = store.path if name is None else name
        with self._lock:
            if self._stores.get(label, store) is not store:
                raise ValueError(f"another store is shown as {label!r} already; remove it first, or give this one a name")
            self._stores[label] = store

    def remove(self, store: AnyStore) -> None:
        """Show it no longer."""
        with self._lock:
            for label, shown in list(self._stores.items()):
                if shown is store:
                    del self._stores[label]

    def describe(self) -> list[Metric]:
        """The metrics without their values, by which a registry finds two of the same name."""
        return _metrics({})

    def collect(self) -> list[Metric]:
        """The metrics as they are now."""
        with self._lock:
            stores = dict(self._stores)
        return _metrics({label: store.statistics() for label, store in stores.items()})


def _metrics(seen: dict[str, Statistics]) -> list[Metric]:
    return [*_counters(seen), *_histograms(seen), *_gauges(seen)]


def _counters(seen: dict[str, Statistics]) -> Iterator[Metric]:
    for name, (text, value_of) in _COUNTERS.items():
        counter = CounterMetricFamily(name, text, labels=["store"])
        for label, statistics in seen.items():
            counter.add_metric([label], value_of(statistics))
        yield counter
    errors = CounterMetricFamily("aquipu_errors", "Callers that got an error, by its name.", labels=["store", "reason"])
    for label, statistics in seen.items():
        for reason, count in statistics.errors.items():
            errors.add_metric([label, reason], count)
    yield errors


def _histograms(seen: dict[str, Statistics]) -> Iterator[Metric]:
    for name, (text, value_of) in _HISTOGRAMS.items():
        family = HistogramMetricFamily(name, text, labels=["store"])
        for label, statistics in seen.items():
            histogram = value_of(statistics)
            bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
            counts = accumulate(map(float, histogram.counts))
            family.add_metric([label], list(zip(bounds, counts, strict=True)), histogram.sum)
        yield family


def _gauges(seen: dict[str, Statistics]) -> Iterator[Metric]:
    for name, (text, value_of) in _GAUGES.items():
        gauge = GaugeMetricFamily(name, text, labels=["store"])
        for label, statistics in seen.items():
            value = value_of(statistics)
            if value is not None:
                gauge.add_metric([label], value)
        yield gauge
    states = GaugeMetricFamily("aquipu_state", "1 for the state that the store is in.", labels=["store", "state"])
    for label, statistics in seen.items():
        for state in _STATES:
            states.add_metric([label, state], state == statistics.state)
    yield states


@contextmanager
def exported(store: AnyStore, name: str | None = None, registry: CollectorRegistry = REGISTRY) -> Iterator[None]:
    """Show the statistics of a store in a registry, until the end of the block; ``name`` is its label ``store``, without it
    its path. Several stores may be shown at once.

    Raises ValueError when another store is shown under this name.
    """
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
_collectors: weakref.WeakKeyDictionary[CollectorRegistry, StoreCollector] = weakref.WeakKeyDictionary()
