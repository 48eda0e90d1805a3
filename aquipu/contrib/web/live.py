"""What the page sees of a store at work: twice a second where it stands, and the newest records.

A store may take 200,000 records a second, and nobody can read that. So a viewer is not sent every
record, but the newest of each half second, and how many were passed over; when fewer come, they are
all there. ``id`` is the sequence behind the last one, by which a viewer that has lost its
connection goes on: it gets what it would have got in one longer half second.

All viewers look at the same moments, so what costs something is asked once for all of them; without
a viewer nothing runs.
"""

from __future__ import annotations

from asyncio import Event, Task, create_task, current_task, sleep
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from time import time
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from aquipu import AquipuError, RemoteStore, Statistics, Store
from aquipu.contrib.sse import EventStream
from aquipu.contrib.streaming.shown import event
from aquipu.contrib.web.api import listed
from aquipu.contrib.web.queries import SEQUENCE_MAX, BadQuery, Query, Wish
from aquipu.contrib.web.standing import Standing, latencies

PAUSE = 0.5
"""Seconds between two moments."""
NEWEST_MAX = 20
"""The most records of one moment."""
VIEWERS_MAX = 100
"""The most viewers of one store."""
_DATA_BYTES = 512
_QUIET_RECORDS = 2000  # in a moment: with more of them, the writer has the machine for itself
_SHARES = 3  # that are gathered in a moment
_PREPARING = 8  # moments in which all that is there is gathered
_PREPARED_EACH = 20  # moments, from then on
_ANY_LABEL = "any"  # which records carry it is nothing that matters
_ENDED = "the stream has ended"
_ALIKE = 64  # questions of one moment that are remembered


class _Moment(NamedTuple):
    """Where the store stood."""

    next_sequence: int
    numbers: dict[str, Any]


Found = tuple[list[dict[str, Any]], int | None]
Labels = tuple[str, ...] | None


class Live:
    """The moments of one store."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self.store = standing.store
        self.viewers = 0
        self.moment: _Moment | None = None
        self.error: str | None = None
        self._before: Statistics | None = None
        self._alike: dict[tuple[int, int, Labels], Found] = {}
        self._next = Event()
        self._task: Task[None] | None = None

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Count a viewer until the end of the block; the first one makes it run."""
        self.viewers += 1
        if self._task is None or self._task.done():
            self.moment = self.error = self._before = None
            self._task = create_task(self._run())
        try:
            yield
        finally:
            self.viewers -= 1
            if not self.viewers and self._task is not None:
                self._task.cancel()
                self._task = None

    def end(self) -> None:
        """End all views: the service ends."""
        if self.viewers:
            self.error = _ENDED
            self._tell()

    async def next_moment(self) -> _Moment | None:
        """Wait for the next moment; None when there are no more."""
        if self.error is None:
            await self._next.wait()
        return self.moment if self.error is None else None

    async def newest(self, start: int, stop: int, labels: Labels) -> Found:
        """Return the newest records between two sequences, asked once for all who want the same."""
        key = start, stop, labels
        if key not in self._alike:
            if len(self._alike) > _ALIKE:
                self._alike.clear()
            wish = Wish(start, stop, None, None, labels, None, NEWEST_MAX, _DATA_BYTES, True)
            self._alike[key] = await listed(self.store, wish)
        return self._alike[key]

    async def _run(self) -> None:
        before = number = 0
        try:
            while True:
                self._alike.clear()
                numbers = await self._numbers()
                following = numbers["next_sequence"]
                self.moment = _Moment(following, numbers)
                self._tell()
                is_quiet = number == 0 or following - before < _QUIET_RECORDS
                if is_quiet and (number < _PREPARING or number % _PREPARED_EACH == 0):
                    await self._prepare(following)
                before, number = following, number + 1
                await sleep(PAUSE)
        except AquipuError as error:
            self.error = str(error)
        finally:
            if self._task is current_task():  # else its viewers have left, and others have come
                self.error = self.error or _ENDED
                self._tell()

    async def _prepare(self, following: int) -> None:
        """Have the newest records ready to be found by their labels, a share each time.

        A search has the labels of the segment that is being written gathered, a share at a time,
        and looks through the rest. So who has had a page open for some seconds finds at once.
        """
        if following == 0 or isinstance(self.store, RemoteStore):
            return
        for _ in range(_SHARES):
            async with self.store.scan(following - 1, following, relation=_ANY_LABEL) as records:
                async for _ in records:
                    pass

    def _tell(self) -> None:
        self._next.set()
        self._next = Event()

    async def _numbers(self) -> dict[str, Any]:
        standing, store = self._standing, self.store
        numbers = {"at": time(), **await standing.numbers()}
        numbers["consumers"] = await standing.consumers()
        numbers["health"] = numbers["latencies"] = None
        if isinstance(store, Store):
            numbers["health"] = store.health()._asdict()
            if not isinstance(store, RemoteStore):
                now = store.statistics()
                if self._before is not None:
                    numbers["latencies"] = latencies(now, self._before)
                self._before = now
        return numbers


def live(moments: Live, request: Request) -> Response:
    """Return the response that shows a store at work, until the viewer leaves."""
    query = Query(request.query_params.multi_items(), ("relation",))
    labels = query.labels("relation")
    moments.store.scan(0, 0, relation=labels)  # which says what cannot be
    given = request.headers.get("last-event-id")
    start = None
    if given is not None:
        try:
            start = Query([("id", given)], ("id",)).number("id", 0, SEQUENCE_MAX)
        except BadQuery:
            raise BadQuery("Last-Event-ID is a sequence") from None
    if moments.viewers >= VIEWERS_MAX:
        busy = {"error": f"{VIEWERS_MAX} pages look at this store already; close one"}
        return JSONResponse(busy, 503, {"Retry-After": "10"})
    return EventStream(_viewer(moments, start, labels))


async def _viewer(moments: Live, start: int | None, labels: Labels) -> AsyncGenerator[bytes, None]:
    """Yield what one viewer sees."""
    with moments.joined():
        while (moment := await moments.next_moment()) is not None:
            stop = moment.next_sequence
            if start is None:
                start = stop
            if start > stop:  # the log has lost its end
                yield event("lost", stop, {"from": stop, "to": start})
                start = stop
            records: list[dict[str, Any]] = []
            passed: int | None = 0
            if start < stop:
                try:
                    records, more = await moments.newest(start, stop, labels)
                except AquipuError as error:
                    yield event("end", None, {"error": str(error)})
                    return
                passed = stop - start - len(records)
                if labels is not None:  # how many others fitted is not known
                    passed = None if more is not None else 0
            yield event("live", stop, {**moment.numbers, "records": records, "passed": passed})
            start = stop
        yield event("end", None, {"error": moments.error})
