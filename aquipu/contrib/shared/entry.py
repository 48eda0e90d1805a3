"""The entry of an audited request: what its record holds, as one JSON object in UTF-8.

By an example, here with line breaks and all that may be in it::

    {"id": "5f0c3d5f8e0b1a77",
     "method": "POST",
     "path": "/documents/42/signatures",
     "query": "page=[redacted]&token=[redacted]",
     "status": 201,
     "actor": "7",
     "client": "192.0.2.1",
     "duration": 0.001234,
     "trace_id": "0af7651916cd43dd8448eb211c80319c",
     "span_id": "b7ad6b7169203331",
     "request_headers": {"host": "example.org", "authorization": "[redacted]"},
     "response_headers": {"content-type": "application/json", "set-cookie": "[redacted]"},
     "request_body": {"bytes": 13, "truncated": false, "text": "{\\"agree\\":true}"},
     "response_body": {"bytes": 70000, "truncated": true, "base64": "iVBORw0KGgo..."},
     "error": "ValueError",
     "disconnected": true,
     "cancelled": true,
     "incomplete": true,
     "intent": true,
     "supplement": true,
     "altered": ["relations", "response_body"],
     "audit_error": {"relations": "KeyError"}}

There is no time in it: that is the timestamp of the record. The request had come ``duration``
seconds before that.

* ``id``: of the request, 64 random bits; a second entry about the same request has the same
* ``path``: as the client sent it, decoded
* ``query``: left out when there was none
* ``status``: of the response as the handler began it; null: none had begun
* ``actor``: what the service's function said; null without one
* ``client``: address of the peer (behind a proxy that is the proxy, unless the server is told to
  trust it)
* ``duration``: seconds from the request to this entry
* ``trace_id``, ``span_id``: the trace of the request and the span of its caller, when it has a
  valid ``traceparent`` header (W3C); left out otherwise
* ``…_headers``: by lower-case name; several of one name are joined by a comma. Left out when not
  asked for
* ``…_body``: what was seen of it; left out when not asked for. ``bytes``: how many had come by
  then; ``truncated``: that is not all that is here, or more may have come. As ``text`` when it is
  UTF-8, else in ``base64``
* ``action``, ``request_id``, ``details``: of what a service records by itself: what was done, in
  the midst of which audited request, and what the service says of it
* ``error``: the class of the exception that the handler raised. Never its message, which may quote
  anything
* ``close_code``: with which a WebSocket was closed (RFC 6455)
* ``disconnected``: the client was gone before its response was complete, as far as the server has
  told
* ``cancelled``: the handler was cancelled
* ``incomplete``: the handler returned without having given a whole response
* ``intent``: what is asked for, stored before the handler runs; the ``status`` is null
* ``supplement``: a second entry: what became of an intent, or how a response ended whose first
  entry was stored before it was sent
* ``altered``: what could not be stored as it was given, and is escaped, cut or left out here (see
  `altered`); the labels of the record are called ``relations``
* ``audit_error``: which functions of the service raised when they were asked for this entry, and
  the class of the exception

The last eight are there only when there is something to say.

**Secrets.** What stands in an entry stays: a log is not corrected. So nothing that commonly holds a
secret is taken unless it is asked for:

- of a query only the names of the parameters (tokens and signed links travel there), not the
  values;
- no value of a header whose name looks as if it held a secret (`REDACTED_HEADERS`), unless it is
  one of `KEPT_HEADERS`, and no value that looks like a credential by itself (``Bearer ...``, a JSON
  Web Token);
- of an address in a header (``location``, ``referer``, ``link`` ...) no user and password, no
  fragment, and of its query as of that of the request;
- no body at all.

A path stands as it is: where secrets are part of paths, leave those out by a rule.
"""

from __future__ import annotations

import json
from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Iterable
from json.encoder import encode_basestring as quoted
from random import getrandbits
from time import perf_counter
from typing import Any, TypeAlias

from aquipu.contrib.shared.redaction import (
    KEPT_HEADERS,
    REDACTED,
    REDACTED_HEADERS,
    Header,
    Redaction,
)
from aquipu.contrib.shared.trace import trace_in

__all__ = [
    "KEPT_HEADERS",
    "REDACTED",
    "REDACTED_HEADERS",
    "Body",
    "Entry",
    "Exchange",
    "Headers",
    "Redaction",
    "as_json",
]

Entry: TypeAlias = dict[str, Any]
Headers: TypeAlias = Iterable[Header]

_utf8 = getincrementaldecoder("utf-8")
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str
).encode
_BOOLEANS = "false", "true"


class Body:
    """A body as it passes: all of it is counted, and at most ``limit`` bytes are kept."""

    __slots__ = ("_kept", "_limit", "bytes", "is_whole")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.bytes = 0
        self.is_whole = False
        """Whether its end has been seen."""

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        room = self._limit - len(self._kept)
        if room > 0:
            self._kept += data[:room]
        self.bytes += len(data)

    def entry(self) -> Entry:
        found: Entry = json.loads(self.json())
        return found

    def json(self) -> str:
        is_truncated = not self.is_whole or self.bytes > len(self._kept)
        head = f'{{"bytes":{self.bytes},"truncated":{_BOOLEANS[is_truncated]}'
        try:  # a character that was cut is left out
            text = _utf8().decode(self._kept) if is_truncated else self._kept.decode()
        except UnicodeDecodeError:
            return f'{head},"base64":"{b64encode(self._kept).decode()}"}}'
        return f'{head},"text":{quoted(text)}}}'


class Exchange:
    """One request and its response, as far as they have come.

    ``headers``: that nobody changes later.
    """

    status: int | None = None
    request_body: Body | None = None
    response_body: Body | None = None
    error: BaseException | None = None
    close_code: int | None = None
    """Of a WebSocket."""
    cancelled = False
    disconnected = False
    is_complete = False
    """Whether the handler has given its whole response."""
    _response_headers: Headers = ()

    def __init__(
        self, method: str, path: str, query: str, client: str | None, headers: Headers
    ) -> None:
        self._began = perf_counter()
        self._id = f"{getrandbits(64):016x}"  # no secret, and no system call
        self._headers = headers
        self.method, self.path, self.query, self.client = method, path, query, client

    @property
    def id(self) -> str:
        return self._id

    def respond(self, status: int, headers: Headers) -> None:
        """Note that a response begins."""
        self.status, self._response_headers = status, headers

    def take_back(self) -> None:
        """Note that the response that had begun did not get as far as the client."""
        self.status, self._response_headers, self.response_body = None, (), None

    def entry(self, redaction: Redaction, *, headers: bool, at_end: bool) -> Entry:
        """Return what is known by now; ``at_end``: nothing more comes from the handler."""
        found: Entry = json.loads(self.json(redaction, headers=headers, at_end=at_end))
        return found

    def json(
        self,
        redaction: Redaction,
        *,
        headers: bool,
        at_end: bool,
        actor: object = None,
        is_supplement: bool = False,
    ) -> str:
        """Return the entry as JSON, with who asked for it, and whether it is a supplement.

        It is written piece by piece: to encode a dict takes several times as long. Raises as
        `as_json` for an actor that has no place in it.
        """
        query = f',"query":{quoted(redaction.query(self.query))}' if self.query else ""
        duration = round((perf_counter() - self._began) * 1e6) / 1e6
        text = (
            f'{{"id":"{self._id}","method":{_value(self.method)},"path":{_value(self.path)}{query},'
            f'"status":{_value(self.status)},"actor":{_value(actor)},'
            f'"client":{_value(self.client)},"duration":{duration!r}'
        )
        trace = trace_in(self._headers)
        if trace is not None:
            text += f',"trace_id":"{trace.trace_id}","span_id":"{trace.span_id}"'
        if headers:
            text += (
                f',"request_headers":{_headers(self._headers, redaction)}'
                f',"response_headers":{_headers(self._response_headers, redaction)}'
            )
        if self.request_body is not None:
            text += f',"request_body":{self.request_body.json()}'
        if self.response_body is not None:
            text += f',"response_body":{self.response_body.json()}'
        return text + self._outcome(at_end) + (',"supplement":true}' if is_supplement else "}")

    def _outcome(self, at_end: bool) -> str:
        """Return the fields that say what went otherwise than it should."""
        text = ""
        if self.error is not None:
            text += f',"error":{quoted(type(self.error).__qualname__)}'
        if self.close_code is not None:
            text += f',"close_code":{_value(self.close_code)}'
        if self.disconnected:
            text += ',"disconnected":true'
        if self.cancelled:
            text += ',"cancelled":true'
        if at_end and not (self.is_complete or self.cancelled or self.error is not None):
            text += ',"incomplete":true'
        return text


def as_json(entry: Entry) -> bytes:
    """Return the bytes of a record; what JSON does not know (a UUID as an actor) becomes its str.

    Raises TypeError or ValueError for what has no place in JSON: a key that is no text, NaN, what
    holds itself.
    """
    return as_bytes(_encode(entry))


def as_bytes(text: str) -> bytes:
    """Return JSON in UTF-8; of half a surrogate pair, the escape by which JSON writes it too."""
    return text.encode("utf-8", "backslashreplace")


def _value(value: object) -> str:
    """Return a value as JSON; at once, if it is one of those that nearly all are."""
    if value is None:
        return "null"
    if type(value) is str:
        return quoted(value)
    return int.__repr__(value) if type(value) is int else _encode(value)


def _headers(given: Headers, redaction: Redaction) -> str:
    shown = list(map(redaction.shown, given))
    found = dict(shown)
    return "{" + ",".join((found if len(found) == len(shown) else _joined(shown)).values()) + "}"


def _joined(shown: list[tuple[str, str]]) -> dict[str, str]:
    """Return headers of which some have the same name."""
    found: dict[str, str] = {}
    for name, text in shown:
        before = found.get(name)
        found[name] = text if before is None else f"{before[:-1]}, {text[len(name) + 2 :]}"
    return found
