"""The JSON API: records are listed, found, taken one by one, and appended.

Each answer is bounded, whatever is stored: so many records, so much of each one's data, so much in
all. What takes longer than `SECONDS_MAX` is given up, and so much may be asked for at once, so that
questions cost neither the service nor the writer more than that.
"""

from __future__ import annotations

from asyncio import Semaphore, timeout
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from aquipu import Record, Stage, Store
from aquipu.contrib.shared.idempotency import idempotency_key
from aquipu.contrib.sse import PATIENCE, events
from aquipu.contrib.streaming.live import AnyLog
from aquipu.contrib.streaming.shown import as_json, iso_time, shown
from aquipu.contrib.web.queries import (
    DATA_BYTES_MAX,
    FOLLOWING,
    PREFIX_CHARACTERS_MAX,
    SEQUENCE_MAX,
    BadQuery,
    Query,
    Wish,
    range_of,
    start_of,
    wish_of,
)

SECONDS_MAX = 10.0
"""How long a question may take."""
ANSWER_BYTES_MAX = 1024 * 1024
"""The most data of all records of one answer, in bytes."""
SLICE_BYTES = 64 * 1024
"""How much of an answer is given to the server at a time, in bytes."""
SENT_MAX = 16
"""How many answers that are longer are sent at a time."""
SENDING_SECONDS_MAX = 120.0
"""How long one of them may take."""
QUESTIONS_MAX = 8
"""How many questions are answered at a time; others wait, for a moment."""
JSON_BYTES_MAX = 1024 * 1024
"""The longest record that is taken as JSON, which is checked; a longer one is sent as bytes."""
BODIES_MAX = 16
"""How many records are taken at a time, each of them at most as long as the store takes it."""
_WAIT_SECONDS = 5.0
_APPEND_SECONDS = 30.0
_LABELS_SECONDS = 5.0
_LABELS_KEPT = 64  # answers
_LABELS_OFFERED_MAX = 100
_ASK_LESS = "ask for less, by since and until"
_OUTCOME_UNKNOWN = (
    "whether it is stored is not known; sent again with the same Idempotency-Key, it is once"
)
_JSON, _BYTES = "application/json", "application/octet-stream"
_PRODUCER = "aquipu web"


class Sliced(Response):
    """An answer that is sent piece by piece, when it is long.

    A client that asks for much and takes nothing has one piece in memory, and is cut off in time;
    of long answers so many are sent at once, and the others wait.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        body = self.body
        if len(body) <= SLICE_BYTES or scope["method"] == "HEAD":
            return await super().__call__(scope, receive, send)
        head = {"type": "http.response.start", "status": self.status_code}
        try:
            async with timeout(SENDING_SECONDS_MAX), _sending(scope):
                await send({**head, "headers": self.raw_headers})
                for begin in range(0, len(body), SLICE_BYTES):
                    piece = bytes(body[begin : begin + SLICE_BYTES])
                    more = begin + SLICE_BYTES < len(body)
                    async with timeout(PATIENCE):
                        await send({"type": "http.response.body", "body": piece, "more_body": more})
        except TimeoutError:
            return None


def _sending(scope: Scope) -> Semaphore:
    """Return what long answers of an application wait for."""
    state = scope["app"].state
    if not hasattr(state, "sending"):
        state.sending = Semaphore(SENT_MAX)
    places: Semaphore = state.sending
    return places


class Json(Sliced):
    """An answer as JSON, of whatever was stored."""

    media_type = _JSON

    def render(self, content: Any) -> bytes:
        """Return it as UTF-8."""
        return as_json(content)


class Gate:
    """Lets only so many through at a time."""

    def __init__(self, most: int) -> None:
        self._places = Semaphore(most)

    @asynccontextmanager
    async def entered(self, seconds: float, late: str = _ASK_LESS) -> AsyncGenerator[None, None]:
        """Wait for a place, and have it for so long: 503 without one, 504 when time is up."""
        try:
            async with timeout(_WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            busy = "too much is asked for at once: try again in a moment"
            raise HTTPException(503, busy, {"Retry-After": "2"}) from None
        try:
            async with timeout(seconds):
                yield
        except TimeoutError:
            raise HTTPException(504, f"this took longer than {seconds:g} s: {late}") from None
        finally:
            self._places.release()


class Api:
    """Answers for one store."""

    def __init__(self, store: AnyLog, *, may_write: bool) -> None:
        self.store = store
        self._may_write = may_write
        self.questions = Gate(QUESTIONS_MAX)
        self._bodies = Gate(BODIES_MAX)
        self._labels: OrderedDict[str, tuple[float, dict[str, int]]] = OrderedDict()
        self._counting = Semaphore(1)

    # reading

    async def records(self, request: Request) -> Response:
        """List records: the newest first, or from a place on."""
        wish = wish_of(request.query_params.multi_items())
        async with self.questions.entered(SECONDS_MAX):
            found, following = await listed(self.store, wish)
        return Json(
            {
                "records": found,
                "next": following,
                "first_sequence": self.store.first_sequence,
                "next_sequence": max(
                    self.store.next_sequence, 0, *(one["sequence"] + 1 for one in found)
                ),
            }
        )

    async def record(self, request: Request) -> Response:
        """Give one record."""
        query = Query(request.query_params.multi_items(), ("bytes",))
        most = query.number("bytes", 0, DATA_BYTES_MAX)
        record = await self._one(request)
        return Json(shown(record, DATA_BYTES_MAX if most is None else most))

    async def data(self, request: Request) -> Response:
        """Give the bytes of one record, or a part of them."""
        Query(request.query_params.multi_items(), ())
        record = await self._one(request)
        size = len(record.data)
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Disposition": f'attachment; filename="record-{record.sequence}.bin"',
        }
        try:
            piece = range_of(request.headers.get("range"), size)
        except BadQuery as error:
            return Json({"error": str(error)}, 416, {"Content-Range": f"bytes */{size}"})
        if piece is None:
            return Sliced(record.data, 200, headers, _BYTES)
        headers["Content-Range"] = f"bytes {piece.begin}-{piece.end - 1}/{size}"
        return Sliced(record.data[piece.begin : piece.end], 206, headers, _BYTES)

    async def _one(self, request: Request) -> Record:
        text = request.path_params["sequence"]
        pairs = [("sequence", text)]
        sequence = Query(pairs, ("sequence",)).number("sequence", 0, SEQUENCE_MAX)
        assert sequence is not None
        async with self.questions.entered(SECONDS_MAX):
            return await self.store.get(sequence)

    async def labels(self, request: Request) -> Response:
        """Give the labels that begin with a prefix, and how many records carry each."""
        query = Query(request.query_params.multi_items(), ("prefix", "limit"))
        prefix = query.text("prefix") or ""
        if not 0 < len(prefix) <= PREFIX_CHARACTERS_MAX:
            raise BadQuery(f"prefix is the beginning of a label, 1 to {PREFIX_CHARACTERS_MAX} long")
        limit = query.number("limit", 1, _LABELS_OFFERED_MAX) or 20
        found = await self._counts(prefix)
        offered = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:limit]
        return Json(
            {
                "labels": [{"label": label, "records": count} for label, count in offered],
                "more": max(len(found) - limit, 0),
            }
        )

    async def _counts(self, prefix: str) -> dict[str, int]:
        """Count the records of labels, one question at a time; for a while, it is remembered."""
        async with self.questions.entered(SECONDS_MAX), self._counting:
            kept = self._labels.get(prefix)
            if kept is not None and monotonic() - kept[0] < _LABELS_SECONDS:
                return kept[1]
            found = await self.store.relations(prefix)
            if len(found) <= 10 * _LABELS_OFFERED_MAX:
                self._labels[prefix] = monotonic(), found
            while len(self._labels) > _LABELS_KEPT:
                self._labels.popitem(last=False)
            return found

    async def follow(self, request: Request) -> Response:
        """Give each record as a server-sent event."""
        query = Query(request.query_params.multi_items(), FOLLOWING)
        return events(
            self.store,
            request,
            start=start_of(query),  # type: ignore[arg-type]
            relation=query.labels("relation"),
            any_of=query.labels("any_of"),
        )

    # writing

    async def append(self, request: Request) -> Response:
        """Store the body as a record."""
        store = self.store
        if not self._may_write or not isinstance(store, Store):
            raise HTTPException(403, "writing is off here (write=True, or --write, asks for it)")
        query = Query(request.query_params.multi_items(), ("relation", "expect", "stage"))
        labels = query.labels("relation") or ()
        expected = query.number("expect", 0, SEQUENCE_MAX)
        stage = {"policy": None, "flushed": Stage.FLUSHED, "synced": Stage.SYNCED}[
            query.choice("stage", ("policy", "flushed", "synced"))
        ]
        key = idempotency_key(request, producer=_PRODUCER)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (_JSON, _BYTES):  # what a form of another site cannot send
            raise HTTPException(415, f"a record is sent as {_JSON} or {_BYTES}")
        async with self._bodies.entered(_APPEND_SECONDS, _OUTCOME_UNKNOWN):
            most = store.limits.record_bytes
            data = await _body(request, min(most, JSON_BYTES_MAX) if kind == _JSON else most)
            if kind == _JSON:
                _check_json(data)
            receipt = await store.append(
                data, relations=labels, durability=stage, key=key, expect=expected
            )
        return Json(
            {
                "sequence": receipt.sequence,
                "time": iso_time(receipt.timestamp),
                "stage": receipt.stage.name.lower(),
            },
            201,
        )


async def listed(store: AnyLog, wish: Wish) -> tuple[list[dict[str, Any]], int | None]:
    """Return the records of one answer, and where the next one goes on, if there is more."""
    start = None if wish.start is None else max(wish.start, store.first_sequence)
    if start is not None and wish.stop is not None and start > wish.stop:
        return [], None
    found: list[dict[str, Any]] = []
    size = 0
    async with store.scan(
        start,
        wish.stop,
        since=wish.since,
        until=wish.until,
        relation=wish.relation,
        any_of=wish.any_of,
        reverse=wish.newest_first,
    ) as records:
        async for record in records:
            size += min(len(record.data), wish.data_bytes) + sum(map(len, record.relations))
            if len(found) == wish.limit or (found and size > ANSWER_BYTES_MAX):
                return found, found[-1]["sequence"] + (0 if wish.newest_first else 1)
            found.append(shown(record, wish.data_bytes))
    return found, None


def _check_json(data: bytes) -> None:
    try:
        Record(0, 0, data).json()
    except ValueError as error:
        raise BadQuery(str(error).replace("record 0 is", "the body is", 1)) from None


async def _body(request: Request, most: int) -> bytes:
    """Return the body, which is not read any further than a record may be long."""
    said = request.headers.get("content-length", "0")
    if said.isdigit() and len(said) < 20 and int(said) > most:
        raise HTTPException(413, f"a record has at most {most} bytes")
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > most:
                raise HTTPException(413, f"a record has at most {most} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "the body has not come") from None
    return bytes(body)
