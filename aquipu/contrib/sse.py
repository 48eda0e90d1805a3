"""The records of a store as server-sent events, in a route of your own::

    @app.get("/events")
    async def stream(request: Request, store: Annotated[Store, Depends(get_store)]) -> Response:
        return events(store, request)

Each record is an event, with its sequence as the ``id`` and `shown` as the ``data``. A browser's
``EventSource`` that has lost its connection sends the last ``id`` back (``Last-Event-ID``), and the
stream goes on behind it: nothing is left out, and nothing comes twice. Beside records there are

========  ==========================================================================================
purged    ``{"from": 7, "to": 900}``: these were purged before the client had them, and it goes on
          at 900
lost      ``{"from": 7, "to": 12}``: the log has lost its end, and the client had read these before;
          it goes on at 7, and others may stand there now
end       ``{"error": "..."}``: the store is closed, or cannot be read any more, or the service ends
========  ==========================================================================================

**How much that costs.** Clients that are near the end of the log share one follower, and each event
is made once for all of them; one that is behind reads the log by itself. So a client is a number,
its next sequence, and at most 128 KiB on their way: nothing is kept for one that is slow. One that
takes nothing for 30 seconds is cut off, and goes on by its ``Last-Event-ID``. There are at most
`FOLLOWERS_MAX` for a store, then the answer is 503. Under `aquipu web` an event costs a client one
system call, and no turn of its task.

What is not yet elegant: the ``id`` is a sequence, so a client that was away while the log lost its
end and grew again beyond it is told nothing; a consumer that must know that keeps a `Position`.
"""

from __future__ import annotations

from asyncio import TimerHandle, get_running_loop, timeout
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from typing import Any, Literal

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from aquipu import AquipuError, Record, RecordNotWrittenError, RecordPurgedError
from aquipu.contrib.streaming.live import PIECE_BYTES, AnyLog, Live, live_of, ready
from aquipu.contrib.streaming.places import Labels, Place, write_of
from aquipu.contrib.streaming.shown import event, shown

__all__ = ["EventStream", "events", "shown"]

FOLLOWERS_MAX = 1000
"""The most clients that follow one store at a time."""
PATIENCE = 30.0
"""Seconds after which a client that takes nothing is cut off."""
_ALIVE = b": nothing yet\n\n"
_RETRY = b"retry: 1000\n\n"  # milliseconds until a client comes back
_SEQUENCE_DIGITS = 20


# one client


def events(
    store: AnyLog,
    request: HTTPConnection,
    *,
    start: int | Literal["earliest", "latest"] = "latest",
    relation: str | Iterable[str] | None = None,
    any_of: Iterable[str] | None = None,
) -> Response:
    """Return the response that gives each record as a server-sent event.

    Args:
        store: a Store, a RemoteStore or a Reader, which stays open as long as there are responses.
        request: of which the header ``Last-Event-ID`` says where to go on, if it is there.
        start: where to begin without that header: a sequence, ``"earliest"`` or ``"latest"``.
        relation, any_of: only records that carry these labels, as `Store.scan` takes it.

    The response is 400 for a header that holds no sequence, and 503 with too many clients. Raises
    TypeError or ValueError for what is no start or label, StoreClosedError.
    """
    relation = (relation,) if isinstance(relation, str) else relation
    every, some = (None if one is None else tuple(one) for one in (relation, any_of))
    store.scan(0, 0, relation=every, any_of=some)  # which says what cannot be
    begin = start
    given = request.headers.get("last-event-id")
    if given is not None:
        if not (given.isascii() and given.isdigit() and len(given) <= _SEQUENCE_DIGITS):
            return JSONResponse({"error": "Last-Event-ID is a sequence"}, 400)
        begin = int(given) + 1
    elif not isinstance(start, int):
        if start not in ("earliest", "latest"):
            raise ValueError(f'start is a sequence, "earliest" or "latest", not {start!r:.100}')
    elif isinstance(start, bool) or start < 0:
        raise ValueError(f"start is a sequence, from 0 on, not {start!r:.100}")
    live = live_of(store)
    if live.clients >= FOLLOWERS_MAX:
        busy = {"error": f"{FOLLOWERS_MAX} clients follow this store already; try again later"}
        return JSONResponse(busy, 503, {"Retry-After": "5"})
    place = Place(Labels(frozenset(every or ()), frozenset(some or ())), write_of(request.scope))
    return EventStream(_Client(store, live, begin, every, some, place).pieces())


class _Client:
    """What one client has been sent."""

    def __init__(
        self,
        store: AnyLog,
        live: Live,
        begin: int | str,
        every: tuple[str, ...] | None,
        any_of: tuple[str, ...] | None,
        place: Place,
    ) -> None:
        self._store, self._live, self._begin = store, live, begin
        self._asked: dict[str, Any] = {"relation": every, "any_of": any_of}
        self._place = place

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield what is sent, for ever; nothing is kept of it."""
        live, place, error = self._live, self._place, None
        with live.joined(self._store):
            await live.begun()
            try:
                yield _RETRY + await self._first()
                while not live.is_over and not (live.has_ended and place.next >= live.next):
                    if live.first <= place.next < live.next:
                        piece = live.after(place.next, place.wanted)
                        place.next = piece.following
                        if piece.text:
                            yield piece.text
                    elif place.next < live.first:
                        async with aclosing(self._from_the_log(live.next)) as texts:
                            async for text in texts:
                                yield text
                    elif not await live.news(place):
                        # an id without data: where to go on is known, though nothing fitted
                        yield b"id: %d\n\n" % (place.next - 1) if place.next else _ALIVE
            except AquipuError as caught:
                error = caught
            error = error or live.error
            said = "the stream has ended" if error is None else str(error)
            yield event("end", None, {"error": said})

    async def _first(self) -> bytes:
        """Find where to begin; return what is to be said about that."""
        self._place.next = self._live.next
        if self._begin == "earliest":
            self._place.next = self._store.first_sequence
        elif isinstance(self._begin, int):
            self._place.next = self._begin
        if self._place.next > self._live.next:
            try:
                await self._store.get(self._place.next - 1)
            except RecordPurgedError:
                pass
            except RecordNotWrittenError as error:
                gone = {"from": error.bound, "to": self._place.next}
                self._place.next = error.bound
                return event("lost", error.bound - 1, gone)
        return b""

    async def _from_the_log(self, stop: int) -> AsyncGenerator[bytes, None]:
        """Yield what lies behind the others."""
        try:
            async with self._store.scan(self._place.next, stop, **self._asked) as records:
                while batch := await records.batch():
                    for piece, following in _pieces(batch):
                        yield piece
                        self._place.next = following
            self._place.next = stop
        except RecordPurgedError as error:
            gone = {"from": self._place.next, "to": error.bound}
            self._place.next = error.bound
            yield event("purged", error.bound - 1, gone)


def _pieces(records: list[Record]) -> Iterator[tuple[bytes, int]]:
    """Yield records as events, some at a time, and one past the last of these."""
    texts: list[bytes] = []
    size = 0
    for record in records:
        text = ready(record).text
        if texts and size + len(text) > PIECE_BYTES:
            yield b"".join(texts), record.sequence
            texts, size = [], 0
        texts.append(text)
        size += len(text)
    yield b"".join(texts), records[-1].sequence + 1


class EventStream(StreamingResponse):
    """Sends what comes for a client, as long as the client takes it."""

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self._pieces = pieces
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(pieces, 200, headers, "text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; to HEAD its head alone."""
        if scope["method"] == "HEAD":
            await self._pieces.aclose()
            await Response(None, 200, dict(self.headers))(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send until there is no more, or the client takes nothing for too long."""
        begun: float | None = None  # when what is being sent was given to the server
        loop = get_running_loop()
        watch: TimerHandle

        def look() -> None:  # now and then: a timer for each piece would cost more than sending it
            nonlocal watch
            if begun is not None and loop.time() - begun >= PATIENCE:
                patience.reschedule(loop.time())
            else:
                watch = loop.call_later(PATIENCE / 4, look)

        watch = loop.call_later(PATIENCE / 4, look)
        try:
            async with timeout(None) as patience, aclosing(self._pieces) as pieces:
                begun = loop.time()
                head = {"status": self.status_code, "headers": self.raw_headers}
                await send({"type": "http.response.start", **head})
                begun = None
                async for piece in pieces:
                    begun = loop.time()
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    begun = None
                begun = loop.time()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:  # it takes nothing: it goes on later, by its Last-Event-ID
            return
        finally:
            watch.cancel()
