"""An action that is no request of its own: a login, an approval, an export.

It is stored with what the audit of the application says of a request: who asked, the labels, and
what is left out because it may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, NamedTuple, TypeVar

from aquipu import Receipt
from aquipu.contrib.auditing.audit import Audit
from aquipu.contrib.auditing.trail import Trail
from aquipu.contrib.shared.altered import collection_of_labels
from aquipu.contrib.shared.entry import Entry, Exchange
from aquipu.contrib.shared.opener import AnyStore
from aquipu.contrib.shared.underway import requests_of

R = TypeVar("R")

_OF_RESPONSES = frozenset({"duration", "response_headers", "request_body", "response_body"})


class Auditing(NamedTuple, Generic[R]):
    """What an audit has left with a request, for the actions in its handler."""

    audit: Audit[R]
    request_id: str | None = None
    """Of the entry of the request; None: the request is not audited."""


async def record_action(
    auditing: Auditing[R],
    store: AnyStore,
    request: R,
    exchange: Exchange,
    *,
    action: str,
    actor: object,
    relations: Iterable[str],
    details: Mapping[str, object],
) -> Receipt | None:
    """Store the entry of an action; see ``record`` of each framework."""
    if not isinstance(action, str) or not action:
        raise TypeError(f"an action is named by a text such as 'login', not {action!r}")
    labels = tuple(collection_of_labels(relations))
    audit = auditing.audit
    seen = exchange.entry(audit.redaction, headers=audit.headers, at_end=False)
    entry: Entry = {"id": exchange.id, "action": action}
    if auditing.request_id is not None:
        entry["request_id"] = auditing.request_id
    entry |= {
        name: value for name, value in seen.items() if name != "id" and name not in _OF_RESPONSES
    }
    if details:
        entry["details"] = {
            name: audit.redaction.detail(name, value) for name, value in details.items()
        }
    with requests_of(store):
        return await Trail(audit, store, request, exchange).act(entry, actor, labels)
