"""idempotency: a key from a header, whoever's request it is, and what is no key."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aquipu.contrib import aiohttp, starlette, wsgi
from aquipu.contrib.shared.idempotency import idempotency_key
from aquipu.record import key_of
from tests.contrib.wire import Wire, started


def key(text: str | None, producer: str = "orders") -> tuple[str, int] | None:
    headers = {} if text is None else {"Idempotency-Key": text}
    return idempotency_key(SimpleNamespace(headers=headers), producer=producer)


def test_a_text_as_a_key() -> None:
    """Any text is a key that an append takes; the same in every process and version."""
    assert key("8e03978e") == (
        "66871bbdf0565d5240553ba7240180f6393b3c359333a3cd3cf32d519ed4d79d",
        0,
    )
    for text in ("a", "a" * 255, "\udcff", "\u00e9", "a b"):
        made = key(text)
        assert made is not None
        key_of(made)


def test_texts_and_producers_are_kept_apart() -> None:
    """Another text or another producer is another key, also where the two are shifted."""
    pairs = [("a", "p"), ("b", "p"), ("a", "q"), ("p:a", ""), ("a", "p:"), (":a", "p")]
    assert len({key(*pair) for pair in pairs}) == len(pairs)


def test_quotation_marks() -> None:
    """The draft of the standard asks for them, and few clients send them: they do not count."""
    assert key('"8e03978e"') == key("8e03978e") == key(' "8e03978e" ')
    assert key('"') != key("8e03978e")


def test_no_header() -> None:
    """A request without it has no key."""
    assert key(None) is None


@pytest.mark.parametrize("text", ["", " ", '""', "a" * 256])
def test_what_is_no_key(text: str) -> None:
    """It is refused, so that the service can answer 400."""
    with pytest.raises(ValueError, match=re.escape("1 to 255 characters")):
        key(text)


def test_each_framework_has_it() -> None:
    """It stands beside what else a framework's module gives."""
    for module in (starlette, aiohttp, wsgi):
        assert module.idempotency_key is idempotency_key


TEXTS = [("one", 0), ("one", 0), ("two", 1), ("one", 0), (None, 2), (None, 3)]
"""Of requests, and the sequence that each gets."""


@pytest.mark.asyncio
async def test_a_request_that_is_sent_again(tmp_path: Path) -> None:
    """What it asks for is stored once, by Starlette and aiohttp, with their own headers."""

    async def in_starlette(request: Request) -> Response:
        key = idempotency_key(request, producer="starlette")
        return JSONResponse((await request.state.store.append(b"order", key=key)).sequence)

    app = Starlette(
        routes=[Route("/", in_starlette, methods=["POST"])],
        lifespan=starlette.lifespan(tmp_path / "one"),
    )
    async with started(app) as state:
        for text, expected in TEXTS:
            headers = [] if text is None else [("Idempotency-Key", text)]
            wire = Wire(app, state, "POST", "/", headers)
            wire.give_body(b"")
            await wire.run()
            assert wire.body == b"%d" % expected

    async def in_aiohttp(request: web.Request) -> web.Response:
        key = idempotency_key(request, producer="aiohttp")
        receipt = await request.app[aiohttp.STORE].append(b"order", key=key)
        return web.json_response(receipt.sequence)

    service = web.Application()
    service.cleanup_ctx.append(aiohttp.opened(tmp_path / "other"))
    service.router.add_post("/", in_aiohttp)
    async with TestServer(service) as server, ClientSession() as client:
        for text, expected in TEXTS:
            given = {} if text is None else {"idempotency-key": text}
            async with client.post(server.make_url("/"), headers=given) as answer:
                assert await answer.json() == expected
