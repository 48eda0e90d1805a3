"""What cannot be stored as it is given, and what is stored in its place.

Nobody may keep the entry of a request, or a line of a log, out of the store by what it holds. So
what fits no record is escaped, cut or left out, and the entry names it: ``"altered": ["relations",
"request_body"]``.

* a label that is none: escaped and cut as by `aquipu.label`
* labels beyond the 255th: left out
* what is no text among labels: as its str
* a function that raises: what it had given so far; its name and the class of the error stand in
  ``"audit_error": {"relations": "KeyError"}``
* a value that JSON does not know: as its str; if it has none, its class
* an entry larger than a record: the largest of its values is cut (a text, a body) or left out,
  until it fits
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple, TypeVar, cast

from aquipu import is_label, label
from aquipu.contrib.shared.entry import Entry, as_json

R = TypeVar("R")

LABELS_MAX = 255
"""The most that a record carries."""
_CORE = frozenset({"id", "method", "status", "duration", "supplement", "altered", "audit_error"})
"""What is never cut: small, and by which an entry is known."""
_TEXT_MIN = 16
"""Characters of a text; when it would be cut to fewer, it is left out."""


class Labels(NamedTuple):
    """What a function of the service said of a record, as it can be stored."""

    labels: tuple[str, ...] = ()
    is_altered: bool = False
    error: Exception | None = None
    """That it raised."""


def labels_of(
    relations: Callable[[R], Iterable[str]] | None, subject: R, known: Iterable[str] = ()
) -> Labels:
    """Return the labels that ``relations`` gives for this subject, whatever they are.

    ``known``: what stands before them.
    """
    given: list[object] = []
    error: Exception | None = None
    try:
        given.extend(known)
        if relations is not None:
            given.extend(islice(collection_of_labels(relations(subject)), LABELS_MAX + 1))
    except Exception as raised:
        error = raised  # what came before is there
    if error is None and len(given) <= LABELS_MAX and all(map(_is_fit, given)):
        return Labels(cast("tuple[str, ...]", tuple(given)))
    return Labels(tuple(map(_fitting, given[:LABELS_MAX])), True, error)


def collection_of_labels(given: Iterable[str]) -> Iterable[str]:
    """Return what is given; TypeError for a single label, which is a collection of characters."""
    if isinstance(given, str | bytes):
        raise TypeError(
            "relations gives a collection of labels; one label is written as a tuple: ('user:7',)"
        )
    return given


def altered(entry: Entry, *names: str) -> Entry:
    """Return the entry with the names of what is not stored as it was given."""
    said = [*entry.get("altered", ()), *names]
    return {**entry, "altered": list(dict.fromkeys(said))}


def failed(entry: Entry, name: str, error: Exception) -> Entry:
    """Return the entry with the name of a function of the service that has raised.

    Never its message, which may quote anything.
    """
    return {
        **entry,
        "audit_error": {**entry.get("audit_error", {}), name: type(error).__qualname__},
    }


def as_record(entry: Entry, bytes_max: int | None = None) -> bytes:
    """Return the bytes of a record, in which everything that cannot be in it is altered."""
    try:
        data = as_json(entry)
    except Exception:
        entry = _known_to_json(entry)
        data = as_json(entry)
    if bytes_max is None or len(data) <= bytes_max:
        return data
    return _cut(entry, data, bytes_max)


def shown(value: object) -> str:
    """Return a value as text; one that has none, as its class."""
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__qualname__}>"


def _is_fit(given: object) -> bool:
    return isinstance(given, str) and is_label(given)


def _fitting(given: object) -> str:
    text = given if isinstance(given, str) else shown(given)
    return text if is_label(text) else label(text)


def _known_to_json(entry: Entry) -> Entry:
    known: Entry = {}
    strange: list[str] = []
    for name, value in entry.items():
        key = name if isinstance(name, str) else shown(name)
        try:
            as_json({key: value})
            known[key] = value
        except Exception:
            known[key] = shown(value)
            strange.append(key)
        if key is not name:
            strange.append(key)
    return altered(known, *strange)


def _cut(entry: Entry, data: bytes, bytes_max: int) -> bytes:
    """Make the largest value smaller until the entry fits or nothing is left that may be cut."""
    while len(data) > bytes_max:
        sizes = {
            name: len(as_json({name: value})) for name, value in entry.items() if name not in _CORE
        }
        if not sizes:
            break
        name = max(sizes, key=sizes.__getitem__)
        over = len(data) - bytes_max
        smaller = _smaller(entry[name], max(1 - over / sizes[name], 0))
        entry = altered({**entry, name: smaller}, name)
        if smaller is None:
            del entry[name]
        data = as_json(entry)
    return data


def _smaller(value: Any, share: float) -> Any:
    """About this share of a text, or of a body; None when nothing of it is left."""
    if isinstance(value, str):
        size = int(len(value) * share * 0.98)  # characters are not all equally long in JSON
        return value[:size] if size >= _TEXT_MIN else None
    if isinstance(value, dict):
        for kind, unit in (("text", 1), ("base64", 4)):
            left = _smaller(value.get(kind), share)
            if left is not None:
                return {**value, "truncated": True, kind: left[: len(left) // unit * unit]}
    return None
