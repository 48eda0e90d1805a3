"""What is audited, and how: the options of an audit, checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar, get_args

from aquipu import Stage
from aquipu.contrib.auditing.rule import Rule
from aquipu.contrib.shared.entry import KEPT_HEADERS, REDACTED_HEADERS, Entry, Redaction

R = TypeVar("R")

Commit = Literal["before_handler", "before_response", "after_response"]
OnError = Literal["fail", "log"]


@dataclass(frozen=True, kw_only=True)
class Audit(Generic[R]):
    """What is audited, and how; without any argument: every request, no bodies.

    ``R`` is the request of the framework.

    Args:
        rules: the first that matches decides. A request that none matches is audited only if all
            rules leave out.
        filter_before: called with the request before the handler; False: it is not audited. What it
            raises, the client gets.
        filter_after: called with the request and its entry when that would be stored; False: it is
            not. What it changes in the entry is what is stored: the place to take out what must not
            stay.
        actor: who asked, taken from the request after the handler: a str, a number, None.
        relations: the labels of the record, taken from the request after the handler: ``("user:7",
            "document:42")``. What is no label is made one, by `aquipu.label`; who asks for such
            labels later does better to call that here.
        headers: whether those of request and response are in the entry.
        redacted_headers: names, in which ``*`` stands for any characters, of those whose values are
            not.
        kept_headers: names, in the same way, of those whose values are whatever
            ``redacted_headers`` says; with ``redacted_headers={"*"}`` they are the only ones.
        query_values: names of the query parameters whose values are in the entry; of others only
            the name is.
        request_body, response_body: whether they are in the entry, up to ``body_limit`` bytes of
            each. They may hold secrets.
        websockets: whether WebSockets are: an entry when one is accepted or refused, and one with
            the ``close_code`` when it has ended. For the rules they are GET. (In aiohttp they are
            requests: the first entry is there without this.)
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
    kept_headers: Collection[str] = KEPT_HEADERS
    query_values: Collection[str] = ()
    request_body: bool = False
    response_body: bool = False
    body_limit: int = 64 * 1024
    websockets: bool = False
    commit: Commit = "before_response"
    on_error: OnError = "fail"
    durability: Stage | None = None
    redaction: Redaction = field(init=False, repr=False, compare=False)
    _otherwise: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("redacted_headers", "kept_headers", "query_values"):
            if isinstance(getattr(self, name), str):
                raise TypeError(
                    f"{name} takes a collection of names; one name is written as a tuple: ('page',)"
                )
        if self.commit not in get_args(Commit) or self.on_error not in get_args(OnError):
            raise ValueError(
                'commit is "before_handler", "before_response" or "after_response" '
                'and on_error is "fail" or "log", '
                f"not {self.commit!r} and {self.on_error!r}"
            )
        if self.body_limit < 0:
            raise ValueError(f"body_limit is 0 or more bytes, not {self.body_limit}")
        redaction = Redaction(self.redacted_headers, self.query_values, self.kept_headers)
        object.__setattr__(self, "redaction", redaction)
        object.__setattr__(self, "_otherwise", not any(rule.audited for rule in self.rules))

    def covers(self, method: str, path: str, *spellings: str) -> bool:
        """Return whether such a request is audited; ``spellings``: see `decisive`."""
        rule = self.decisive(method, path, *spellings)
        return self._otherwise if rule is None else rule.audited

    def decisive(self, method: str, path: str, *spellings: str) -> Rule | None:
        """Return the first rule that matches the path.

        If it audits, any other spelling of the path that may reach the handler counts as well.
        """
        for rule in self.rules:
            if rule.matches(method, path) or (
                rule.audited and any(rule.matches(method, other) for other in spellings)
            ):
                return rule
        return None

    @property
    def is_before(self) -> bool:
        """Whether the response waits for its entry."""
        return self.commit == "before_response"
