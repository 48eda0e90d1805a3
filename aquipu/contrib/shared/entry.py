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
from random import getrandbits
from time import perf_counter
from typing import Any, TypeAlias

from aquipu.contrib.shared.redaction import (
    KEPT_HEADERS,
    REDACTED,
    REDACTED_HEADERS,
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
Headers: TypeAlias = Iterable[tuple[str, str]]

_utf8 = getincrementaldecoder("utf-8")
_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=str
).encode


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
        is_cut = self.bytes > len(self._kept)
        seen: Entry = {"bytes": self.bytes, "truncated": is_cut or not self.is_whole}
        try:
            seen["text"] = _utf8().decode(
                self._kept, not seen["truncated"]
            )  # a character that was cut is left out
        except UnicodeDecodeError:
            seen["base64"] = b64encode(self._kept).decode()
        return seen


class Exchange:
    """One request and its response, as far as they have come."""

    __slots__ = (
        *("_began", "_headers", "_id", "_response_headers", "client", "method", "path", "query"),
        *(
            "cancelled",
            "close_code",
            "disconnected",
            "error",
            "is_complete",
            "request_body",
            "response_body",
            "status",
        ),
    )

    def __init__(
        self, method: str, path: str, query: str, client: str | None, headers: Headers
    ) -> None:
        self._began = perf_counter()
        self._id = f"{getrandbits(64):016x}"  # no secret, and no system call
        self._headers = headers
        self._response_headers: Headers = ()
        self.method, self.path, self.query, self.client = method, path, query, client
        self.status: int | None = None
        self.request_body: Body | None = None
        self.response_body: Body | None = None
        self.error: BaseException | None = None
        self.close_code: int | None = None  # of a WebSocket
        self.cancelled = self.disconnected = False
        self.is_complete = False
        """Whether the handler has given its whole response."""

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
        entry: Entry = {"id": self._id, "method": self.method, "path": self.path}
        if self.query:
            entry["query"] = redaction.query(self.query)
        entry |= {"status": self.status, "actor": None, "client": self.client}
        entry["duration"] = round(perf_counter() - self._began, 6)
        trace = trace_in(self._headers)
        if trace is not None:
            entry |= trace._asdict()
        if headers:
            entry["request_headers"] = _headers(self._headers, redaction)
            entry["response_headers"] = _headers(self._response_headers, redaction)
        if self.request_body is not None:
            entry["request_body"] = self.request_body.entry()
        if self.response_body is not None:
            entry["response_body"] = self.response_body.entry()
        return entry | self._outcome(at_end)

    def _outcome(self, at_end: bool) -> Entry:
        outcome: Entry = {}
        if self.error is not None:
            outcome["error"] = type(self.error).__qualname__
        if self.close_code is not None:
            outcome["close_code"] = self.close_code
        is_cut_short = self.error is not None or self.cancelled
        for name, is_so in (
            ("disconnected", self.disconnected),
            ("cancelled", self.cancelled),
            ("incomplete", at_end and not self.is_complete and not is_cut_short),
        ):
            if is_so:
                outcome[name] = True
        return outcome


def as_json(entry: Entry) -> bytes:
    """Return the bytes of a record; what JSON does not know (a UUID as an actor) becomes its str.

    Raises TypeError or ValueError for what has no place in JSON: a key that is no text, NaN, what
    holds itself.
    """
    return _encode(entry).encode(
        "utf-8", "backslashreplace"
    )  # of half a surrogate pair, which is how JSON writes it too


def _headers(pairs: Headers, redaction: Redaction) -> dict[str, str]:
    found: dict[str, str] = {}
    for given, value in pairs:
        name = given.lower()
        shown = redaction.header(name, value)
        found[name] = f"{found[name]}, {shown}" if name in found else shown
    return found
