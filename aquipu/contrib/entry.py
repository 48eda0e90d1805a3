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
     "request_headers": {"host": "example.org", "authorization": "[redacted]"},
     "response_headers": {"content-type": "application/json", "set-cookie": "[redacted]"},
     "request_body": {"bytes": 13, "truncated": false, "text": "{\\"agree\\":true}"},
     "response_body": {"bytes": 70000, "truncated": true, "base64": "iVBORw0KGgo..."},
     "error": "ValueError",
     "disconnected": true,
     "cancelled": true,
     "incomplete": true,
     "supplement": true}

There is no time in it: that is the timestamp of the record. The request had come ``duration`` seconds before that.

================  ==================================================================================================
``id``            of the request, 64 random bits; a second entry about the same request has the same
``path``          as the client sent it, decoded
``query``         left out when there was none
``status``        of the response as the handler began it; null: none had begun
``actor``         what the service's function said; null without one
``client``        address of the peer (behind a proxy that is the proxy, unless the server is told to trust it)
``duration``      seconds from the request to this entry
``…_headers``     by lower-case name; several of one name are joined by a comma. Left out when not asked for
``…_body``        what was seen of it; left out when not asked for. ``bytes``: how many had come by then; ``truncated``:
                  that is not all that is here, or more may have come. As ``text`` when it is UTF-8, else in ``base64``
``error``         the class of the exception that the handler raised. Never its message, which may quote anything
``disconnected``  the client was gone before its response was complete, as far as the server has told
``cancelled``     the handler was cancelled
``incomplete``    the handler returned without having given a whole response
``supplement``    a second entry: how a response ended whose first entry was stored before it was sent
================  ==================================================================================================

The last five are there only when they are true.

**Secrets.** What stands in an entry stays: a log is not corrected. So nothing that commonly holds a secret is taken unless
it is asked for: of a query only the names of the parameters (tokens and signed links travel there), not the values, and the
same in a header that quotes an address with a query (``referer``, ``location``); some headers never (`REDACTED_HEADERS`);
bodies not at all. A path stands as it is: where secrets are part of paths, leave those out by a rule.
"""

from __future__ import annotations

import json
from base64 import b64encode
from codecs import getincrementaldecoder
from collections.abc import Collection, Iterable
from random import getrandbits
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import unquote_plus

Entry: TypeAlias = dict[str, Any]
Headers: TypeAlias = Iterable[tuple[str, str]]

REDACTED = "[redacted]"
REDACTED_HEADERS = frozenset(
    {
        *("authorization", "cookie", "set-cookie"),
        *("proxy-authorization", "x-api-key", "x-auth-token", "x-csrf-token", "x-xsrf-token"),
        *("x-amz-security-token", "x-goog-iap-jwt-assertion", "cf-access-jwt-assertion"),
    }
)
"""Headers whose values stand in no entry by default; add to them with ``REDACTED_HEADERS | {"x-session"}``."""

_utf8 = getincrementaldecoder("utf-8")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


class Redaction(NamedTuple):
    """What is left out of an entry."""

    headers: frozenset[str]
    """Names in lower case."""
    query_values: Collection[str]
    """Names of the parameters whose values are kept."""

    def header(self, name: str, value: str) -> str:
        if name in self.headers:
            return REDACTED
        address, mark, query = value.partition("?")
        return address + mark + self.query(query) if mark else value

    def query(self, query: str) -> str:
        return "&".join([self._parameter(part) for part in query.split("&")])

    def _parameter(self, part: str) -> str:
        name, equals, _ = part.partition("=")
        if not equals:  # a value without a name, for all we know
            return REDACTED if part else ""
        return part if unquote_plus(name) in self.query_values else f"{name}={REDACTED}"


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
            seen["text"] = _utf8().decode(self._kept, not seen["truncated"])  # a character that was cut is left out
        except UnicodeDecodeError:
            seen["base64"] = b64encode(self._kept).decode()
        return seen


class Exchange:
    """One request and its response, as far as they have come."""

    __slots__ = (
        *("_began", "_headers", "_id", "_response_headers", "client", "method", "path", "query"),
        *("cancelled", "disconnected", "error", "is_complete", "request_body", "response_body", "status"),
    )

    def __init__(self, method: str, path: str, query: str, client: str | None, headers: Headers) -> None:
        self._began = perf_counter()
        self._id = f"{getrandbits(64):016x}"  # no secret, and no system call
        self._headers = headers
        self._response_headers: Headers = ()
        self.method, self.path, self.query, self.client = method, path, query, client
        self.status: int | None = None
        self.request_body: Body | None = None
        self.response_body: Body | None = None
        self.error: BaseException | None = None
        self.cancelled = self.disconnected = False
        self.is_complete = False
        """Whether the handler has given its whole response."""

    @property
    def id(self) -> str:
        return self._id

    def respond(self, status: int, headers: Headers) -> None:
        """A response begins."""
        self.status, self._response_headers = status, headers

    def take_back(self) -> None:
        """The response that had begun did not get as far as the client."""
        self.status, self._response_headers, self.response_body = None, (), None

    def entry(self, redaction: Redaction, *, headers: bool, at_end: bool) -> Entry:
        """What is known by now; ``at_end``: nothing more comes from the handler."""
        entry: Entry = {"id": self._id, "method": self.method, "path": self.path}
        if self.query:
            entry["query"] = redaction.query(self.query)
        entry |= {"status": self.status, "actor": None, "client": self.client}
        entry["duration"] = round(perf_counter() - self._began, 6)
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
    """The bytes of a record. What JSON does not know (a UUID as an actor) is written as its str; TypeError for no key."""
    return _encode(entry).encode("utf-8", "backslashreplace")  # of half a surrogate pair, which is how JSON writes it too


def _headers(pairs: Headers, redaction: Redaction) -> dict[str, str]:
    found: dict[str, str] = {}
    for given, value in pairs:
        name = given.lower()
        shown = redaction.header(name, value)
        found[name] = f"{found[name]}, {shown}" if name in found else shown
    return found
