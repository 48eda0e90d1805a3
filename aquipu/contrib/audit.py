"""Auditing of requests: which ones, what is taken from them, when their entry is safe, and what if it cannot be stored.

A handler runs; its response is ready; the entry is stored; the response goes out. In that order a client that has its
answer has its record, whatever happens to the service next. What that costs the client is one commit, shared with all
requests that are at this point at the same time.

======================================  ===============================================================================
``commit="before_response"``            the status line is not sent before the entry is at the stage of the store's policy
                                        (or at ``durability``). A client that got its status has its record
``commit="after_response"``             the entry is stored when the response has been sent, and tells of all of it. A crash
                                        between the two takes the entry
``on_error="fail"``                     an entry that cannot be stored costs the client its response: 503 instead (after
                                        the response, the error is raised for the server to log). The handler has run
                                        by then, and what it did stays
``on_error="log"``                      the error is logged, and the response goes on
======================================  ===============================================================================

**A response that is streamed** is not over, and may never be, when it begins. Before it begins, its entry holds what is
known: status, headers, the request. When it then ends as it should, nothing is added. When it does not (the handler
raises, is cancelled, or ends early; the client leaves), a second entry says so, with the same ``id`` and
``"supplement": true``. Whoever wants to know how long every stream took and how it ended audits after the response. If
response bodies are asked for as well as ``before_response``, the status line waits for the first piece of the body, so
that the entry of an ordinary response holds its body; of a stream it holds that first piece, ``truncated``.

**Errors.** A handler that raises is audited with ``status`` null and the ``error``; what the client gets (a 500) is
made further out. **Cancelled** requests do not wait for their entry: it is accepted, and written as everything that was
accepted is.

After a `StoreFailedError` or `OutcomeUnknownError` the outcome is unknown: an entry whose request was answered with 503
may be found in the log later. A disk that hangs holds up the responses for as long; a server or a proxy that limits the
time of a request cancels them.

The functions of the service get the framework's own request, after the handler: what authentication left in its state
is there. They must not wait. One that raises has kept the entry from being stored, and ``on_error`` decides what
becomes of that.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger
from typing import Generic, Literal, TypeVar, get_args

from aquipu import AquipuError, Receipt, Stage
from aquipu.contrib.entry import REDACTED_HEADERS, Body, Entry, Exchange, Redaction, as_json
from aquipu.contrib.opener import AnyStore

__all__ = ["REDACTED_HEADERS", "Audit", "Entry", "Rule", "Trail"]

R = TypeVar("R")

Commit = Literal["before_response", "after_response"]
OnError = Literal["fail", "log"]

UNRECORDED = "This request could not be recorded, so its response is withheld. What it asked for may have been done.\n"
"""What the client reads below its 503."""

_logger = getLogger("aquipu.contrib.audit")


@dataclass(frozen=True)
class Rule:
    """Requests by method and path: ``Rule("POST PUT", "/documents/*")``; ``Rule("*", "/health", audited=False)``.

    ``methods`` are words, ``*`` is every method, and GET means HEAD too, which runs the same handler. In ``path`` a
    ``*`` stands for any characters, slashes among them; nothing else is special, and the whole path must match.
    """

    methods: str = "*"
    path: str = "*"
    audited: bool = True
    _methods: frozenset[str] = field(init=False, repr=False, compare=False)
    _pieces: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        methods = set(self.methods.upper().replace(",", " ").split())
        if not methods:
            raise ValueError('a rule names methods, or "*" for every one')
        if not self.path.startswith(("/", "*")):
            raise ValueError(f"the path of a rule begins with / or *, not as {self.path!r} does")
        if "GET" in methods:
            methods.add("HEAD")
        object.__setattr__(self, "_methods", frozenset(methods))
        object.__setattr__(self, "_pieces", tuple(self.path.split("*")))

    def matches(self, method: str, path: str) -> bool:
        """Whether this request is meant."""
        return ("*" in self._methods or method in self._methods) and _fits(self._pieces, path)


def _fits(pieces: tuple[str, ...], path: str) -> bool:
    """Whether the pieces stand in the path one after another, the first at its beginning and the last at its end."""
    first, last = pieces[0], pieces[-1]
    if len(pieces) == 1:
        return path == first
    at, end = len(first), len(path) - len(last)
    if end < at or not path.startswith(first) or not path.endswith(last):
        return False
    for piece in pieces[1:-1]:
        at = path.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


@dataclass(frozen=True, kw_only=True)
class Audit(Generic[R]):
    """What is audited, and how. ``R`` is the request of the framework; without any argument: every request, no bodies.

    Args:
        rules: the first that matches decides. A request that none matches is audited only if all rules leave out.
        filter_before: called with the request before the handler; False: it is not audited. What it raises, the client
            gets.
        filter_after: called with the request and its entry when that would be stored; False: it is not. What it changes in
            the entry is what is stored: the place to take out what must not stay.
        actor: who asked, taken from the request after the handler: a str, a number, None.
        relations: the labels of the record, taken from the request after the handler: ``("user:7", "document:42")``.
        headers: whether those of request and response are in the entry.
        redacted_headers: whose values are not.
        query_values: names of the query parameters whose values are in the entry; of others only the name is.
        request_body, response_body: whether they are in the entry, up to ``body_limit`` bytes of each. They may hold
            secrets.
        commit: when the entry is stored.
        on_error: what becomes of the response when the entry cannot be.
        durability: as in ``Store.append``, in place of the stage of the store's policy.

    Raises TypeError or ValueError for what cannot be.
    """

    rules: Sequence[Rule] = ()
    filter_before: Callable[[R], bool] | None = None
    filter_after: Callable[[R, Entry], bool] | None = None
    actor: Callable[[R], object] | None = None
    relations: Callable[[R], Iterable[str]] | None = None
    headers: bool = True
    redacted_headers: Collection[str] = REDACTED_HEADERS
    query_values: Collection[str] = ()
    request_body: bool = False
    response_body: bool = False
    body_limit: int = 64 * 1024
    commit: Commit = "before_response"
    on_error: OnError = "fail"
    durability: Stage | None = None
    redaction: Redaction = field(init=False, repr=False, compare=False)
    _otherwise: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("redacted_headers", "query_values"):
            if isinstance(getattr(self, name), str):
                raise TypeError(f"{name} takes a collection of names; one name is written as a tuple: ('page',)")
        if self.commit not in get_args(Commit) or self.on_error not in get_args(OnError):
            raise ValueError(
                'commit is "before_response" or "after_response" and on_error is "fail" or "log", '
                f"not {self.commit!r} and {self.on_error!r}"
            )
        if self.body_limit < 0:
            raise ValueError(f"body_limit is 0 or more bytes, not {self.body_limit}")
        headers = frozenset(name.lower() for name in self.redacted_headers)
        object.__setattr__(self, "redaction", Redaction(headers, frozenset(self.query_values)))
        object.__setattr__(self, "_otherwise", not any(rule.audited for rule in self.rules))

    def covers(self, method: str, path: str) -> bool:
        """Whether the rules say that such a request is audited."""
        for rule in self.rules:
            if rule.matches(method, path):
                return rule.audited
        return self._otherwise

    @property
    def is_before(self) -> bool:
        """Whether the response waits for its entry."""
        return self.commit == "before_response"


class Trail(Generic[R]):
    """What is stored of one request: an entry, and a supplement if its response then ended otherwise than it began."""

    __slots__ = ("_attempts", "_audit", "_request", "_store", "exchange")

    def __init__(self, audit: Audit[R], store: AnyStore, request: R, exchange: Exchange) -> None:
        self._audit = audit
        self._store = store
        self._request = request
        self._attempts = 0
        self.exchange = exchange
        if audit.request_body:
            exchange.request_body = Body(audit.body_limit)
        if audit.response_body and exchange.method != "HEAD":  # to which no body is sent
            exchange.response_body = Body(audit.body_limit)

    @property
    def is_due(self) -> bool:
        """Whether there is no entry yet."""
        return not self._attempts

    async def record(self, *, at_end: bool = False) -> Exception | None:
        """Have the entry stored. What keeps it from that is logged, and with ``on_error="fail"`` returned.

        When it is cancelled the entry is written all the same, unless it was still waiting for room.
        """
        try:
            made = self._made(at_end)
            if made is not None:
                await self._store.append(made[0], relations=made[1], durability=self._audit.durability)
        except Exception as error:
            return self._failed(error, at_end)
        return None

    async def end(self) -> Exception | None:
        """The handler has come to its end: as `record`, if there is no entry yet or it has turned out otherwise."""
        is_well = self.exchange.is_complete and self.exchange.error is None
        return None if is_well and not self.is_due else await self.record(at_end=True)

    def end_nowait(self) -> None:
        """The handler was cancelled: as `record`, but whether the entry is stored, it does not wait to learn."""
        try:
            made = self._made(at_end=True)
            if made is not None:
                future = self._store.append_nowait(made[0], relations=made[1], durability=self._audit.durability)
                future.add_done_callback(partial(_settled, self.exchange.id))
        except Exception as error:
            _log(self.exchange.id, error, "its request was cancelled")

    def _made(self, at_end: bool) -> tuple[bytes, tuple[str, ...]] | None:
        """The record and its labels, unless the filter keeps it out."""
        audit, request = self._audit, self._request
        is_supplement, self._attempts = self._attempts > 0, self._attempts + 1
        entry = self.exchange.entry(audit.redaction, headers=audit.headers, at_end=at_end)
        if audit.actor is not None:
            entry["actor"] = audit.actor(request)
        if is_supplement:
            entry["supplement"] = True
        if audit.filter_after is not None and not audit.filter_after(request, entry):
            return None
        return as_json(entry), tuple(audit.relations(request)) if audit.relations is not None else ()

    def _failed(self, error: Exception, at_end: bool) -> Exception | None:
        fails = self._audit.on_error == "fail"
        withholds = fails and self._audit.is_before and not at_end
        _log(self.exchange.id, error, "its response is withheld" if withholds else "its response is as it would have been")
        return error if fails else None


def _settled(id: str, future: Future[Receipt]) -> None:
    error = future.exception()
    if error is not None:
        _log(id, error, "its request was cancelled")


def _log(id: str, error: BaseException, consequence: str) -> None:
    """One line for what the store says, which holds no data; with its traceback what a function of the service raised."""
    its_own = None if isinstance(error, AquipuError) else error
    _logger.error("the audit entry %s could not be stored: %s; %s", id, error, consequence, exc_info=its_own)
