"""Records as server-sent events, in a route of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aquipu import Always, Reader, Record, Store
from aquipu.contrib import sse
from aquipu.contrib.sse import events
from aquipu.contrib.streaming import live
from aquipu.contrib.streaming.live import live_of
from aquipu.contrib.streaming.shown import shown
from aquipu.remote.daemon.server import Daemon
from tests.contrib.web.support import Stream, stream
from tests.contrib.wire import Wire

pytestmark = pytest.mark.asyncio


def service(store: Any, **options: Any) -> Starlette:
    """Three lines of somebody's own."""

    async def follow(request: Request) -> Response:
        return events(store, request, **options)

    return Starlette(routes=[Route("/events", follow)])


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "store", sync_policy=Always()) as store:
        yield store


async def test_each_record_is_an_event(store: Store) -> None:
    """From now on, with its sequence as the id; what was there before is not sent."""
    await store.append(b"before")
    following = stream(service(store), "/events")
    await following.begun()
    await store.append("Grüße".encode(), relations=["user:7"])
    await store.append(b"\xff\x00")
    one, other = await following.until(2)
    assert (one.name, one.id) == ("message", "1")
    assert one.data["data"] == "Grüße"
    assert one.data["relations"] == ["user:7"]
    assert (other.data["encoding"], other.data["data"]) == ("base64", "/wA=")
    await following.leave()


@pytest.mark.parametrize("kind", ["store", "reader", "daemon"])
async def test_a_connection_that_comes_back_has_no_gap_and_no_double(
    kind: str, store: Store, tmp_path: Path
) -> None:
    """It goes on behind its Last-Event-ID, whatever came meanwhile, from any store."""
    async with (
        Daemon.open(store, f"{tmp_path}/socket"),
        Reader.open(store.path) as reader,
        Store.connect(f"unix:{tmp_path}/socket") as remote,
    ):
        app = service({"store": store, "reader": reader, "daemon": remote}[kind])
        await store.append_many([b"%d" % number for number in range(5)])
        first = stream(app, "/events", last_event_id="2")
        await first.until(2)
        await first.leave()
        await store.append_many([b"while it was away"] * 300)
        second = stream(app, "/events", last_event_id=first.events[-1].id)
        await second.until(300)
        await store.append(b"and then")
        await second.until(301)
        assert first.sequences + second.sequences == list(range(3, 306))
        await second.leave()


async def test_clients_at_the_end_share_one_follower(store: Store) -> None:
    """Each event is made once for all of them, and all get all; nothing runs when they are gone."""
    app = service(store)
    clients = [stream(app, "/events") for _ in range(20)]
    for client in clients:
        await client.begun()
    await store.append_many([b"x"] * 50)
    for client in clients:
        await client.until(50)
        assert client.sequences == list(range(50))
    assert live_of(store).clients == 20
    for client in clients:
        await client.leave()
    assert live_of(store).clients == 0
    assert live_of(store)._task is None


async def test_only_records_with_a_label(store: Store) -> None:
    """The same records come from the log as from what is new."""
    app = service(store, relation="user:7", start="earliest")
    for number in range(10):
        await store.append(b"x", relations=[f"user:{number}"])
    following = stream(app, "/events")
    await following.until(1)
    await store.append(b"x", relations=["user:8"])
    await store.append(b"x", relations=["user:7", "vip"])
    await following.until(2)
    assert following.sequences == [7, 11]
    await following.leave()


async def test_a_client_without_news_learns_where_to_go_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream with a label that nothing carries says the sequence that it has come to."""
    monkeypatch.setattr(live, "HEARTBEAT", 0.01)
    following = stream(service(store, relation="user:7"), "/events")
    await following.begun()
    await store.append_many([b"x"] * 5)
    async with asyncio.timeout(20):
        while b"id: 4\n\n" not in following.wire.body:
            await following.wire.until(len(following.wire.sent) + 1)
    assert following.events == []
    await following.leave()


class Slow(Wire):
    """A client that takes the beginning of the body, and nothing more until it is told to."""

    def __init__(self, app: Starlette, taken: int = 1) -> None:
        super().__init__(app, {}, "GET", "/events")
        self.taking = asyncio.Event()
        self._taken = taken

    async def _send(self, message: Any) -> None:
        if len(self.sent) > self._taken:
            await self.taking.wait()
        await super()._send(message)


async def test_a_slow_client_keeps_nothing_in_memory(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It falls behind what is shared, reads on from the log, and has everything in the end."""
    monkeypatch.setattr(live, "_RING_RECORDS", 16)
    slow, quick = Slow(service(store)), stream(service(store), "/events")
    following = Stream(slow)
    for client in (following, quick):
        await client.begun()
    for number in range(1, 21):
        await store.append_many([b"x" * 100] * 40)
        await quick.until(40 * number)
    assert len(live_of(store)._ring) <= 16
    assert following.sequences == []
    slow.taking.set()
    await following.until(800)
    assert following.sequences == list(range(800))
    for client in (following, quick):
        await client.leave()


async def test_a_client_that_takes_nothing_is_cut_off(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some seconds; nothing is left of it."""
    monkeypatch.setattr(sse, "PATIENCE", 0.02)
    stuck = Stream(Slow(service(store), taken=0))
    await stuck.ended()
    assert stuck.wire.body == b""
    assert live_of(store).clients == 0


async def test_records_that_were_purged_are_said(tmp_path: Path) -> None:
    """The stream goes on with the first one kept, and says which are gone."""
    async with Store.open(tmp_path / "small", max_segment_bytes=4096) as store:
        for _ in range(20):
            await store.append(bytes(1000))
        await store.purge(before=10)
        following = stream(service(store), "/events", last_event_id="1")
        await following.until(1)
        purged, *rest = await following.until(1 + 20 - store.first_sequence)
        assert purged.name == "purged"
        assert purged.data == {"from": 2, "to": store.first_sequence}
        assert [event.data["sequence"] for event in rest] == list(range(store.first_sequence, 20))
        await following.leave()


async def test_a_client_that_has_read_what_is_gone(store: Store) -> None:
    """A log that has lost its end says so, and the client goes on at its new end."""
    await store.append(b"zero")
    following = stream(service(store), "/events", last_event_id="7")
    await following.until(1)
    await store.append(b"one")
    lost, record = await following.until(2)
    assert (lost.name, lost.id, lost.data) == ("lost", "0", {"from": 1, "to": 8})
    assert record.data["sequence"] == 1
    await following.leave()


async def test_a_store_that_is_closed_ends_its_streams(store: Store) -> None:
    """With an event that says so, after everything that was acknowledged."""
    following = stream(service(store), "/events")
    await following.begun()
    await store.append(b"last")
    await store.aclose()
    last, end = await following.ended()
    assert last.data["data"] == "last"
    assert end.name == "end"
    assert "ended" in end.data["error"]


async def test_too_many_clients(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked to come later; one that leaves makes room."""
    monkeypatch.setattr(sse, "FOLLOWERS_MAX", 1)
    first = stream(service(store), "/events")
    await first.begun()
    second = stream(service(store), "/events")
    await second.ended()
    assert second.wire.status == 503
    await first.leave()
    third = stream(service(store), "/events")
    await third.begun()
    assert third.wire.status == 200
    await third.leave()


@pytest.mark.parametrize("id", ["-1", "x", "", "1.5", "9" * 40, "²"])
async def test_an_id_that_is_no_sequence(id: str, store: Store) -> None:
    """It is refused, and nothing is followed."""
    refused = stream(service(store), "/events", last_event_id=id)
    await refused.ended()
    assert refused.wire.status == 400


@pytest.mark.parametrize(
    "options", [{"start": -1}, {"start": "first"}, {"start": True}, {"relation": ""}]
)
async def test_a_route_that_cannot_be(options: dict[str, Any], store: Store) -> None:
    """What its author has given wrong is an error, as of `scan` and `follow`."""
    refused = stream(service(store, **options), "/events")
    with pytest.raises(ValueError, match=r"start|label"):
        await refused.ended()


# records as JSON


@given(st.binary(max_size=50), st.integers(0, 60))
async def test_data_is_cut_at_a_character(data: bytes, most: int) -> None:
    """The beginning of text is text, and never more than was asked for; bytes are base64."""
    found = shown(Record(0, 0, data), most)
    assert found["bytes"] == len(data)
    assert found["cut"] is (len(data) > most)
    if found["encoding"] == "utf-8":
        text = found["data"].encode()
        assert data.startswith(text)
        assert min(len(data), most) - 3 <= len(text) <= most or not found["cut"]


async def test_a_time_has_all_its_nanoseconds() -> None:
    """JSON has no number for them."""
    assert shown(Record(0, 1_700_000_000_000_000_001, b""))["time"] == (
        "2023-11-14T22:13:20.000000001Z"
    )
