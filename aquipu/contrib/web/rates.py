"""How many records there are in each part of a time: the log as a bar chart.

Nothing is counted: the newest record before each edge is looked up, and the sequences of two edges
say how many lie between them. An edge in the past does not move any more, so it is remembered.
Where a clock was set back, the parts around that moment are not exact; none is below zero.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import accumulate, pairwise
from time import time_ns
from typing import Any

from aquipu.contrib.streaming.live import AnyLog
from aquipu.contrib.streaming.shown import iso_time
from aquipu.contrib.web.queries import Span

_KEPT = 4096  # edges
_SETTLED = 2_000_000_000  # nanoseconds after which no record comes with an earlier time, nearly


class Rates:
    """Looks up edges, and remembers them."""

    def __init__(self, store: AnyLog) -> None:
        self._store = store
        self._edges: OrderedDict[int, int] = OrderedDict()
        self._generation = ""

    async def counts(self, span: Span) -> dict[str, Any]:
        """Return the counts of the parts of a time."""
        store, now = self._store, time_ns()
        if store.generation != self._generation:  # the end of the log was lost
            self._generation = store.generation
            self._edges.clear()
        found: list[int] = []
        for edge in span.edges:
            if found and found[-1] >= store.next_sequence:  # nothing came after that
                found.append(found[-1])
            else:
                found.append(max(await self._sequence_at(edge, now), store.first_sequence))
        rising = list(accumulate(found, max))
        return {
            "since": iso_time(span.begin),
            "until": iso_time(span.edges[-1]),
            "step": span.step // 1_000_000_000,
            "counts": [later - earlier for earlier, later in pairwise(rising)],
        }

    async def _sequence_at(self, edge: int, now: int) -> int:
        """Return one past the last record that was accepted before a time."""
        if edge in self._edges:
            return self._edges[edge]
        newest = (await self._store.page(until=edge, limit=1)).records
        sequence = newest[0].sequence + 1 if newest else 0
        if edge + _SETTLED < now:
            self._edges[edge] = sequence
            while len(self._edges) > _KEPT:
                self._edges.popitem(last=False)
        return sequence
