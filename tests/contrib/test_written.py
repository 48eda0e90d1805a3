"""Entries that are written as JSON at once, and headers that are remembered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from sys import getrefcount
from typing import Any

import pytest

from aquipu import Store
from aquipu.contrib.audit import Audit, Trail
from aquipu.contrib.shared.entry import (
    REDACTED,
    REDACTED_HEADERS,
    Body,
    Exchange,
    Redaction,
    as_bytes,
    as_json,
)
from tests.contrib.support import entries_in, labels_in

HOSTILE = 'quotes " and \\, \x00\x1b, \u2028, käse, \ud800 half a pair'


@pytest.fixture
def redaction() -> Redaction:
    return Redaction(REDACTED_HEADERS, {"page"})


def exchange() -> Exchange:
    made = Exchange("POST", HOSTILE, f"page={HOSTILE}&token=s3cret", HOSTILE, ())
    made.respond(201, ())
    return made


def with_headers() -> Exchange:
    made = Exchange("GET", "/", "", None, ((b"host", b"a"), (b"x", b'"\xff')))
    made.respond(200, [("X-Twice", HOSTILE), ("x-twice", '"')])
    return made


def with_a_trace() -> Exchange:
    value = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    return Exchange("GET", "/", "", "192.0.2.1", ((b"traceparent", value),))


def with_bodies() -> Exchange:
    made = exchange()
    made.request_body, made.response_body = Body(100), Body(4)
    made.request_body.feed(HOSTILE.encode("utf-8", "replace"))
    made.request_body.is_whole = True
    made.response_body.feed(b"\xff\xfe..........")
    return made


def that_went_wrong() -> Exchange:
    made = exchange()
    made.error, made.close_code = ValueError("s3cret"), 1011
    made.disconnected = made.cancelled = True
    return made


@pytest.mark.parametrize(
    "make", [exchange, with_headers, with_a_trace, with_bodies, that_went_wrong]
)
@pytest.mark.parametrize("is_supplement", [False, True])
@pytest.mark.parametrize("actor", [None, 7, True, 0.5, HOSTILE, {"id": [HOSTILE]}])
def test_an_entry_is_written_as_json_has_it(
    redaction: Redaction, make: Callable[[], Exchange], is_supplement: bool, actor: object
) -> None:
    """Whatever stands in it, the bytes are those that the encoder makes of the same entry."""
    text = make().json(
        redaction, headers=True, at_end=True, actor=actor, is_supplement=is_supplement
    )
    entry = json.loads(text)
    assert as_bytes(text) == as_json(entry)
    assert entry["actor"] == actor
    assert entry.get("supplement", False) is is_supplement


@pytest.mark.parametrize("actor", [float("nan"), {(1, 2): 3}])
def test_an_actor_that_has_no_place_in_json(redaction: Redaction, actor: object) -> None:
    """It is refused, and no entry is written that nobody can read."""
    with pytest.raises((TypeError, ValueError)):
        exchange().json(redaction, headers=True, at_end=True, actor=actor)


# headers


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_headers_as_bytes(redaction: Redaction, kind: Callable[[bytes], Any]) -> None:
    """They are shown as the same text is, the second time as well; as ASGI has it they are Latin-1,
    and some applications give what cannot be remembered.
    """
    for _ in range(2):
        given = kind(b"X-Name"), kind(b"J\xf6rg")
        assert redaction.shown(given) == redaction.shown(("X-Name", "Jörg"))
        assert redaction.shown(given) == ('"x-name"', '"x-name":"Jörg"')
        secret = kind(b"X-Api-Key"), kind(b"s3cret")
        assert redaction.shown(secret) == ('"x-api-key"', f'"x-api-key":"{REDACTED}"')


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("authorization", "s3cret"),
        ("x-custom", "Bearer s3cret"),
        ("location", "/cb?code=s3cret"),
        ("x-note", "x" * 1000),
    ],
)
def test_what_is_left_out_is_not_remembered(redaction: Redaction, name: str, value: str) -> None:
    """A secret stays in memory no longer than its request, and neither does a long text."""
    header = name, value
    before = getrefcount(header), getrefcount(value)
    redaction.shown(header)
    assert (getrefcount(header), getrefcount(value)) == before


def test_memory_of_headers_is_bounded(redaction: Redaction) -> None:
    """Whoever sends another header each time fills no memory."""
    headers = [(f"x-{number}", "value") for number in range(5000)]
    before = getrefcount(headers[0])
    for number in range(5000):
        redaction.shown(headers[number])
    remembered = sum(getrefcount(headers[number]) > before for number in range(5000))
    assert 0 < remembered <= 1024


# what the functions of a service say


def raising(request: str) -> Iterator[str]:
    yield "first"
    raise KeyError("s3cret")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("actor", "labels", "altered"),
    [
        ("ada", ("user:7",), None),
        (float("nan"), ("user:7",), ["actor"]),
        ("ada", ("two\nlines",), ["relations"]),
        ("ada", None, ["relations"]),
    ],
)
@pytest.mark.parametrize("is_filtered", [False, True])
async def test_each_function_is_asked_once(
    tmp_path: Path, actor: object, labels: Any, altered: Any, is_filtered: bool
) -> None:
    """Also when what it says cannot be stored as it is; and the entry is the same with a filter
    that changes nothing.
    """
    asked: list[str] = []

    def who(request: str) -> object:
        asked.append("actor")
        return actor

    def relations(request: str) -> Any:
        asked.append("relations")
        return raising(request) if labels is None else labels

    audit = Audit[str](
        actor=who, relations=relations, filter_after=(lambda *_: True) if is_filtered else None
    )
    async with Store.open(tmp_path) as store:
        trail = Trail(audit, store, "the request", Exchange("POST", "/a", "", None, ()))
        assert await trail.record() is None
    assert asked == ["actor", "relations"]
    (entry,) = entries_in(tmp_path)
    assert entry["actor"] == ("nan" if actor != actor else actor)
    assert entry.get("altered") == altered
    assert entry.get("audit_error") == ({"relations": "KeyError"} if labels is None else None)
    assert len(labels_in(tmp_path)[0]) == 1
