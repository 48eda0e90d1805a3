"""Storing of one request: what is stored when, and what becomes of an error."""

from __future__ import annotations

import json
from asyncio import Future
from collections.abc import Callable, Iterable
from functools import partial
from logging import getLogger
from typing import Generic, NamedTuple, TypeVar

from aquipu import AquipuError, Receipt, RecordTooLargeError
from aquipu.contrib.auditing.audit import Audit
from aquipu.contrib.shared.altered import Labels, altered, as_record, failed, labels_of
from aquipu.contrib.shared.entry import Body, Entry, Exchange, as_bytes
from aquipu.contrib.shared.opener import AnyStore

R = TypeVar("R")

UNRECORDED = (
    "This request could not be recorded, so its response is withheld. "
    "What it asked for may have been done.\n"
)
"""What the client reads below its 503."""

NOT_DONE = "This request could not be recorded, so it was not carried out.\n"
"""What it reads when that is known before the handler runs."""

_MAY_HOLD_SECRETS = frozenset(
    {"query", "request_headers", "response_headers", "request_body", "response_body", "details"}
)

_OUTCOME = frozenset({"response_headers", "request_body", "response_body"})
"""What there is to say of a request only when its handler runs."""

_logger = getLogger("aquipu.contrib.audit")


class Made(NamedTuple):
    """What is appended."""

    data: bytes
    labels: tuple[str, ...]


class Actor(NamedTuple):
    """Who asked, as the function of the service said, or what it raised."""

    value: object = None
    error: Exception | None = None


_NOBODY = Actor()


class Trail(Generic[R]):
    """Storing of one request: an entry, and a supplement if its response then ended otherwise."""

    __slots__ = ("_attempts", "_audit", "_is_intended", "_request", "_said", "_store", "exchange")

    def __init__(self, audit: Audit[R], store: AnyStore, request: R, exchange: Exchange) -> None:
        self._audit = audit
        self._store = store
        self._request = request
        self._attempts = 0
        self._is_intended = False
        self._said: tuple[object, object] = None, None  # of the last entry: error, code of closing
        self.exchange = exchange
        if audit.request_body:
            exchange.request_body = Body(audit.body_limit)
        if audit.response_body and exchange.method != "HEAD":  # to which no body is sent
            exchange.response_body = Body(audit.body_limit)

    @property
    def comes_first(self) -> bool:
        """Whether what is asked for is stored before the handler runs: see `intend`."""
        return self._audit.commit == "before_handler"

    @property
    def is_due(self) -> bool:
        """Whether there is no entry yet, but for that of the intent."""
        return not self._attempts

    @property
    def is_over(self) -> bool:
        """Whether the last entry still says all there is to say, and the response is complete."""
        exchange = self.exchange
        return (
            exchange.is_complete
            and self._attempts > 0
            and (exchange.error, exchange.close_code) == self._said
        )

    async def intend(self) -> Exception | None:
        """Store what is asked for, before the handler runs, if the audit is one that comes first.

        Log what prevents it, and return that with ``on_error="fail"``: then the handler must not
        run.
        """
        audit = self._audit
        if not self.comes_first:
            return None
        entry = self.exchange.entry(audit.redaction, headers=audit.headers, at_end=False)
        known = {name: value for name, value in entry.items() if name not in _OUTCOME}
        self._is_intended = True
        try:
            made = self._finished({**known, "intent": True}, self._actor(), is_certain=True)
            if made is not None:
                await self._append(made)
        except Exception as error:
            fails = audit.on_error == "fail"
            _log(
                self.exchange.id,
                error,
                "its handler does not run" if fails else "its handler runs all the same",
            )
            self._is_intended = False
            return error if fails else None
        return None

    async def record(self, *, at_end: bool = False) -> Exception | None:
        """Store the entry; log what prevents it, and return that with ``on_error="fail"``.

        When it is cancelled the entry is written all the same, unless it was still waiting for
        room.
        """
        try:
            made = self._made(at_end)
            if made is not None:
                await self._append(made)
        except Exception as error:
            return self._failed(error, at_end)
        return None

    async def end(self) -> Exception | None:
        """Store the entry, as `record`, at the handler's end if there is none or it changed."""
        return None if self.is_over else await self.record(at_end=True)

    def end_nowait(self) -> None:
        """Store the entry, as `record`, of a cancelled handler, without waiting for the outcome."""
        try:
            made = self._made(at_end=True)
            if made is not None:
                self._append_nowait(made).add_done_callback(partial(_settled, self.exchange.id))
        except Exception as error:
            _log(self.exchange.id, error, "its request was cancelled")

    async def act(
        self, entry: Entry, actor: object = None, labels: Iterable[str] = ()
    ) -> Receipt | None:
        """Store the entry of an action, whatever the filter says of it, as the filter leaves it.

        ``actor``, ``labels``: what is known beside that which the functions of the audit say.

        Raises what the store raises; with ``on_error="log"`` that is logged, and None is returned.
        """
        asked = self._actor() if actor is None else Actor(actor)
        made = self._finished(entry, asked, is_certain=True, labels=labels)
        try:
            return None if made is None else await self._append(made)
        except Exception as error:
            if self._audit.on_error == "fail":
                raise
            _log(self.exchange.id, error, "the request goes on")
            return None

    async def _append(self, made: Made) -> Receipt:
        store, durability = self._store, self._audit.durability
        try:
            return await store.append(made.data, relations=made.labels, durability=durability)
        except RecordTooLargeError as error:
            data = as_record(json.loads(made.data), error.limit)
            return await store.append(data, relations=made.labels, durability=durability)

    def _append_nowait(self, made: Made) -> Future[Receipt]:
        store, durability = self._store, self._audit.durability
        try:
            return store.append_nowait(made.data, relations=made.labels, durability=durability)
        except RecordTooLargeError as error:
            data = as_record(json.loads(made.data), error.limit)
            return store.append_nowait(data, relations=made.labels, durability=durability)

    def _made(self, at_end: bool) -> Made | None:
        """Return the entry and its labels, unless the filter keeps it out."""
        audit, exchange = self._audit, self.exchange
        is_supplement, self._attempts = self._attempts > 0 or self._is_intended, self._attempts + 1
        self._said = exchange.error, exchange.close_code
        actor, given = self._actor(), None
        if audit.filter_after is None:
            given = labels_of(audit.relations, self._request)
            if actor.error is None and not given.is_altered:
                made = self._as_it_is(actor.value, given.labels, at_end, is_supplement)
                if made is not None:
                    return made
        entry = exchange.entry(audit.redaction, headers=audit.headers, at_end=at_end)
        if is_supplement:
            entry["supplement"] = True
        return self._finished(entry, actor, given)

    def _as_it_is(
        self, actor: object, labels: tuple[str, ...], at_end: bool, is_supplement: bool
    ) -> Made | None:
        """Return an entry in which nothing is altered, as nearly all are: it is written at once.

        None for one with an actor that JSON does not know.
        """
        audit = self._audit
        try:
            text = self.exchange.json(
                audit.redaction,
                headers=audit.headers,
                at_end=at_end,
                actor=actor,
                is_supplement=is_supplement,
            )
        except Exception:
            return None
        return Made(as_bytes(text), labels)

    def _finished(
        self,
        entry: Entry,
        actor: Actor,
        given: Labels | None = None,
        *,
        is_certain: bool = False,
        labels: Iterable[str] = (),
    ) -> Made | None:
        """Return the entry and its labels, with what the functions of the service say.

        ``given``: the labels, if the function for them has been asked; ``labels``: beside that.
        ``is_certain``: it is stored whatever the filter says, as the filter leaves it.
        """
        audit = self._audit
        if actor.error is not None:
            entry = self._raised(altered(entry, "actor"), "actor", actor.error)
        else:
            entry = {**entry, "actor": actor.value}
        filtered = (
            entry
            if audit.filter_after is None
            else self._filtered(entry, audit.filter_after, is_certain)
        )
        if filtered is None:
            return None

        if given is None:
            given = labels_of(audit.relations, self._request, labels)
        if given.is_altered:
            filtered = altered(filtered, "relations")
        if given.error is not None:
            filtered = self._raised(filtered, "relations", given.error)
        return Made(as_record(filtered), given.labels)

    def _actor(self) -> Actor:
        function = self._audit.actor
        if function is None:
            return _NOBODY
        try:
            return Actor(function(self._request))
        except Exception as error:
            return Actor(None, error)

    def _filtered(
        self, entry: Entry, wanted: Callable[[R, Entry], bool], is_certain: bool
    ) -> Entry | None:
        """Return the entry as the filter leaves it; None when it keeps it out.

        If the filter raises, what it was to take out is not known, and nothing is left in which
        there may be a secret.
        """
        whole = dict(entry)
        try:
            return entry if wanted(self._request, entry) or is_certain else None
        except Exception as error:
            kept = {name: value for name, value in whole.items() if name not in _MAY_HOLD_SECRETS}
            left_out = [name for name in whole if name not in kept]
            return self._raised(altered(kept, *left_out), "filter_after", error)

    def _raised(self, entry: Entry, function: str, error: Exception) -> Entry:
        """Log that a function of the service raised, and name it in the entry."""
        _logger.error(
            "%s raised %s for the audit entry %s, which is stored without what it was to give",
            *(function, type(error).__qualname__, self.exchange.id),
            exc_info=error,
        )
        return failed(entry, function, error)

    def _failed(self, error: Exception, at_end: bool) -> Exception | None:
        fails = self._audit.on_error == "fail"
        withholds = fails and self._audit.is_before and not at_end
        _log(
            self.exchange.id,
            error,
            "its response is withheld" if withholds else "its response is as it would have been",
        )
        return error if fails else None


def _settled(id: str, future: Future[Receipt]) -> None:
    error = future.exception()
    if error is not None:
        _log(id, error, "its request was cancelled")


def _log(id: str, error: BaseException, consequence: str) -> None:
    """Log in one line, without data, what the store raises; add a traceback to any other error."""
    its_own = None if isinstance(error, AquipuError) else error
    _logger.error(
        "the audit entry %s could not be stored: %s; %s", id, error, consequence, exc_info=its_own
    )
