"""The JSON API of a store: what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from errno import ENOSPC
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from aquipu import Always, Reader, RemoteStore, Store
from aquipu.contrib.streaming.live import AnyLog
from aquipu.contrib.web import api
from aquipu.contrib.web.app import app
from aquipu.contrib.web.openapi import document
from aquipu.remote.daemon.server import Daemon
from tests.contrib.web.support import client_of, stream
from tests.disk import FailingDisk

pytestmark = pytest.mark.asyncio


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest_asyncio.fixture
async def store(tmp_path: Path, disk: FailingDisk) -> AsyncIterator[Store]:
    async with Store.open(
        tmp_path / "store", sync_policy=Always(), max_record_bytes=4 * 1024 * 1024, disk=disk
    ) as store:
        yield store


@pytest_asyncio.fixture
async def client(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app(store, write=True)) as client:
        yield client


async def fill(store: Store, count: int = 120) -> None:
    for number in range(count):
        await store.append(b"%d" % number, relations=[f"user:{number % 10}", "all"])


def one_of(kind: str, store: Store, reader: Reader, remote: RemoteStore) -> AnyLog:
    found: dict[str, AnyLog] = {"store": store, "reader": reader, "daemon": remote}
    return found[kind]


def sequences(answer: httpx2.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [record["sequence"] for record in answer.json()["records"]]


# reading


@pytest.mark.parametrize("kind", ["store", "reader", "daemon"])
async def test_pages_have_every_record_once(kind: str, store: Store, tmp_path: Path) -> None:
    """From the newest to the oldest, or the other way, from any store, whatever comes meanwhile."""
    await fill(store)
    async with (
        Daemon.open(store, f"{tmp_path}/socket"),
        Reader.open(store.path) as reader,
        Store.connect(f"unix:{tmp_path}/socket") as remote,
        client_of(app(one_of(kind, store, reader, remote))) as client,
    ):
        for order, place in (("newest", "before"), ("oldest", "start")):
            found: list[int] = []
            more: dict[str, Any] = {}
            while True:
                asked: dict[str, Any] = {"order": order, "limit": 50, "relation": "all", **more}
                answer = await client.get("/api/records", params=asked)
                found += sequences(answer)
                if answer.json()["next"] is None:
                    break
                more = {place: answer.json()["next"]}
                await store.append(b"meanwhile")
            assert found == (sorted(found, reverse=order == "newest"))
            assert sorted(found) == list(range(120))


async def test_records_are_found_by_labels_and_time(
    store: Store, client: httpx2.AsyncClient
) -> None:
    """All of several, one of several, and between two times."""
    await fill(store, 40)
    both: dict[str, Any] = {"relation": ["user:7", "all"]}
    assert sequences(await client.get("/api/records", params=both)) == [37, 27, 17, 7]
    some: dict[str, Any] = {"any_of": ["user:1", "user:2"], "limit": 3}
    assert sequences(await client.get("/api/records", params=some)) == [32, 31, 22]
    time = (await store.get(30)).timestamp
    assert min(sequences(await client.get("/api/records", params={"since": time}))) <= 30
    assert max(sequences(await client.get("/api/records", params={"until": time}))) < 30
    since = {"since": "2020-01-01T00:00:00+01:00", "until": "2020-01-02T00:00:00Z"}
    assert sequences(await client.get("/api/records", params=since)) == []


async def test_one_record_and_its_bytes(store: Store, client: httpx2.AsyncClient) -> None:
    """A long one is cut where it is shown, and had whole, or in parts, as bytes."""
    data = bytes(range(256)) * 1000
    await store.append(data, relations=["a"])
    listed = (await client.get("/api/records")).json()["records"][0]
    assert (listed["bytes"], listed["cut"], listed["encoding"]) == (256_000, True, "base64")
    whole = await client.get("/api/records/0/data")
    assert whole.content == data
    assert whole.headers["content-type"] == "application/octet-stream"
    assert whole.headers["content-disposition"].startswith("attachment")
    part = await client.get("/api/records/0/data", headers={"range": "bytes=256-511"})
    assert part.status_code == 206
    assert part.content == bytes(range(256))
    assert part.headers["content-range"] == "bytes 256-511/256000"
    last = await client.get("/api/records/0/data", headers={"range": "bytes=-2"})
    assert last.content == b"\xfe\xff"


async def test_an_answer_is_bounded_in_bytes(
    store: Store, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many records are asked for; the next one goes on where it ended."""
    monkeypatch.setattr(api, "ANSWER_BYTES_MAX", 10_000)
    await store.append_many([bytes(4000)] * 7)
    found: list[int] = []
    asked = {"limit": 500, "bytes": 4000}
    while True:
        answer = await client.get("/api/records", params=asked)
        assert len(sequences(answer)) <= 2
        found += sequences(answer)
        if answer.json()["next"] is None:
            break
        asked["before"] = answer.json()["next"]
    assert found == [6, 5, 4, 3, 2, 1, 0]


async def test_labels_are_offered_by_how_often_they_are_used(
    store: Store, client: httpx2.AsyncClient
) -> None:
    """Those that begin as was typed, so many, and how many more there are."""
    for number in range(30):
        await store.append(b"x", relations=[f"user:{number}", "user:all"])
    answer = (await client.get("/api/labels", params={"prefix": "user:", "limit": 2})).json()
    assert answer["labels"] == [
        {"label": "user:all", "records": 30},
        {"label": "user:0", "records": 1},
    ]
    assert answer["more"] == 29


async def test_how_many_records_there_are_in_each_part_of_a_time(
    store: Store, client: httpx2.AsyncClient
) -> None:
    """The parts together have all records of the time."""
    await fill(store, 25)
    answer = (await client.get("/api/rate", params={"step": 10, "count": 6})).json()
    assert len(answer["counts"]) == 6
    assert sum(answer["counts"]) == 25
    again = (await client.get("/api/rate", params={"step": 10, "count": 6})).json()
    assert sum(again["counts"]) == 25


@pytest.mark.parametrize("kind", ["store", "reader", "daemon"])
async def test_what_is_known_of_a_store(kind: str, store: Store, tmp_path: Path) -> None:
    """What is not known is null, and a sentence says why; consumers are known in any case."""
    await fill(store, 10)
    await store.cursor("billing").save(4)
    async with (
        Daemon.open(store, f"{tmp_path}/socket"),
        Reader.open(store.path) as reader,
        Store.connect(f"unix:{tmp_path}/socket") as remote,
        client_of(app(one_of(kind, store, reader, remote))) as client,
    ):
        known = (await client.get("/api/status")).json()
        assert known["kind"] == kind
        assert known["next_sequence"] == 10
        assert known["consumers"]["billing"]["records"] == 6
        assert known["synced_sequence"] == (None if kind == "reader" else 10)
        assert (known["statistics"] is None) is (kind != "store")
        assert bool(known["unknown"]) is (kind != "store")
        metrics = await client.get("/metrics")
        assert 'aquipu_next_sequence{store="' in metrics.text
        assert ("aquipu_appends_total" in metrics.text) is (kind == "store")
        assert (await client.get("/healthz")).text == "ok\n"
        assert (await client.get("/readyz")).text == "ok\n"


async def test_a_store_that_takes_nothing_more_is_not_ready(
    store: Store, client: httpx2.AsyncClient
) -> None:
    """Whoever sends requests here learns it; the service itself lives."""
    await store.aclose()
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/healthz")).status_code == 200
    closed = await client.get("/api/records")
    assert closed.status_code == 503
    assert closed.json()["reason"] == "StoreClosedError"


async def test_a_log_of_another_engine(store: Store, tmp_path: Path) -> None:
    """Whatever has the calls of a Reader is shown: those of databases and archives are no Readers
    of files.
    """
    await fill(store, 5)
    await store.cursor("billing").save(2)
    async with Reader.open(store.path) as reader:

        class Bare:
            path = "postgresql://db/shop?log=audit"
            generation = reader.generation
            first_sequence, next_sequence = 0, 0  # as its server has said last
            page, scan, follow, get = reader.page, reader.scan, reader.follow, reader.get
            relations, cursors = reader.relations, reader.cursors

        bare: Any = Bare()
        async with client_of(app(bare)) as client:
            known = (await client.get("/api/status")).json()
            assert (known["kind"], known["next_sequence"]) == ("reader", 5)
            assert known["consumers"]["billing"]["records"] == 3
            assert known["unknown"]
            assert sequences(await client.get("/api/records")) == [4, 3, 2, 1, 0]
            assert "aquipu_next_sequence" in (await client.get("/metrics")).text
            assert (await client.get("/readyz")).status_code == 200
            seen = stream(app(bare), "/api/live", last_event_id="0")
            [moment] = await seen.until(1)
            assert [record["sequence"] for record in moment.data["records"]] == [4, 3, 2, 1, 0]
            await seen.leave()
        with pytest.raises(TypeError, match="cannot write"):
            app(bare, write=True)


async def test_a_stream_that_is_asked_for_its_head(client: httpx2.AsyncClient) -> None:
    """HEAD is answered at once, and nobody follows for it."""
    for target in ("/api/events", "/api/live"):
        answer = await client.head(target)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")


# writing


async def test_a_record_is_appended(store: Store, client: httpx2.AsyncClient) -> None:
    """As bytes, or as JSON, with labels; the answer is its receipt."""
    asked = {"relation": ["user:7", "b"], "stage": "synced"}
    answer = await client.post(
        "/api/records",
        params=asked,
        content=b"\xff",
        headers={"content-type": "application/octet-stream"},
    )
    assert answer.status_code == 201
    assert (answer.json()["sequence"], answer.json()["stage"]) == (0, "synced")
    record = await store.get(0)
    assert (record.data, record.relations) == (b"\xff", ("user:7", "b"))
    assert (await client.post("/api/records", json={"a": 1})).json()["sequence"] == 1


async def test_a_request_that_is_sent_again_is_stored_once(
    store: Store, client: httpx2.AsyncClient
) -> None:
    """With an Idempotency-Key, and the second answer is that of the first."""
    one, other = [
        await client.post("/api/records", json=1, headers={"idempotency-key": "8e03978e"})
        for _ in range(2)
    ]
    assert one.json() == other.json()
    assert store.next_sequence == 1


async def test_a_record_only_at_its_sequence(store: Store, client: httpx2.AsyncClient) -> None:
    """Who expects another one is told, and nothing is written."""
    refused = await client.post("/api/records", params={"expect": 7}, json=1)
    assert refused.status_code == 409
    assert store.next_sequence == 0


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "application/json"}, b"{", 400),
        ({"content-type": "application/json"}, b"NaN", 400),
        ({"content-type": "application/json"}, b"[" * 500_000, 400),
        ({"content-type": "application/json"}, b" " * 1_100_000, 413),
        ({"content-type": "application/octet-stream"}, bytes(4 * 1024 * 1024 + 1), 413),
        ({"content-type": "application/octet-stream", "content-length": "9" * 18}, b"", 413),
        ({"content-type": "text/plain"}, b"{}", 415),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=b", 415),
        ({}, b"{}", 415),
        ({"content-type": "application/json", "idempotency-key": "x" * 300}, b"1", 400),
    ],
)
async def test_a_body_that_is_no_record(
    headers: dict[str, str], content: bytes, status: int, store: Store, client: httpx2.AsyncClient
) -> None:
    """It is refused with what is wrong, and nothing is written."""
    refused = await client.post("/api/records", content=content, headers=headers)
    assert refused.status_code == status
    assert refused.json()["error"]
    assert store.next_sequence == 0


async def test_writing_is_off_unless_it_was_asked_for(store: Store) -> None:
    """Also for who may read, and a Reader cannot be asked for it at all."""
    async with client_of(app(store)) as client:
        refused = await client.post("/api/records", json=1)
    assert refused.status_code == 403
    assert store.next_sequence == 0
    async with Reader.open(store.path) as reader:
        with pytest.raises(TypeError, match="Reader cannot write"):
            app(reader, write=True)
    with pytest.raises(TypeError, match="a store is a Store"):
        app("audit")  # type: ignore[arg-type]


async def test_no_space_is_said(
    store: Store, client: httpx2.AsyncClient, disk: FailingDisk
) -> None:
    """As 507, and the next one works when there is space."""
    disk.fail("write", ENOSPC, forever=True)
    refused = await client.post("/api/records", json=1)
    assert refused.status_code == 507
    assert refused.json()["reason"] == "StoreFullError"


# what cannot be asked


@pytest.mark.parametrize(
    "target",
    [
        "/api/records?before=-1",
        "/api/records?before=9999999999999999999",
        "/api/records?before=1e3",
        "/api/records?before=%D9%A3",
        "/api/records?limit=0",
        "/api/records?limit=501",
        "/api/records?limit=-5",
        "/api/records?limit=1&limit=2",
        "/api/records?bytes=65537",
        "/api/records?order=random",
        "/api/records?since=yesterday",
        "/api/records?since=2026-01-01T00:00:00",
        "/api/records?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
        "/api/records?start=5&before=4",
        "/api/records?util=2026-01-01T00:00:00Z",
        "/api/records?relation=",
        "/api/records?relation=a%00b",
        "/api/records?" + "&".join(["relation=a"] * 17),
        "/api/records/-1",
        "/api/records/99999999999999999999",
        "/api/records/x",
        "/api/labels",
        "/api/labels?prefix=" + "x" * 300,
        "/api/labels?prefix=a&limit=1000",
        "/api/rate?step=0",
        "/api/rate?count=100000",
        "/api/events?start=-1",
        "/api/events?start=first",
        "/api/live?relation=%0A",
    ],
)
async def test_a_question_that_cannot_be(target: str, client: httpx2.AsyncClient) -> None:
    """It is answered with 400 and what is wrong, as JSON."""
    refused = await client.get(target)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]
    assert refused.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "range",
    ["bytes=9-", "bytes=5-4", "bytes=0-1,3-4", "bytes=-0", "lines=1-2", "bytes=" + "9" * 99],
)
async def test_a_range_that_cannot_be(range: str, store: Store, client: httpx2.AsyncClient) -> None:
    """It is answered with 416, and how much there is; one that is too long is cut."""
    await store.append(b"123456789")
    refused = await client.get("/api/records/0/data", headers={"range": range})
    assert refused.status_code == 416
    assert refused.headers["content-range"] == "bytes */9"
    huge = {"range": "bytes=8-999999999999999999"}
    assert (await client.get("/api/records/0/data", headers=huge)).content == b"9"


async def test_what_is_not_there(store: Store, client: httpx2.AsyncClient) -> None:
    """404 for what is not yet there, 410 for what was purged, 405 for what nobody does."""
    missing = await client.get("/api/records/7")
    assert (missing.status_code, missing.json()["reason"]) == (404, "RecordNotWrittenError")
    assert (await client.get("/api/nothing")).json() == {"error": "Not Found"}
    assert (await client.delete("/api/records")).status_code == 405
    await store.append(b"x")
    await store.roll()
    await store.append(b"y")
    await store.purge(before=1)
    gone = await client.get("/api/records/0")
    assert (gone.status_code, gone.json()["reason"]) == (410, "RecordPurgedError")
    assert sequences(await client.get("/api/records?start=0&order=oldest")) == [1]


async def test_a_question_that_takes_too_long(
    store: Store, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up, and says so; while too much is asked for, others wait, and not for ever."""
    monkeypatch.setattr(api, "SECONDS_MAX", 0.01)
    monkeypatch.setattr(api, "_WAIT_SECONDS", 0.0)
    began = asyncio.Event()

    async def for_ever(prefix: str) -> dict[str, int]:
        began.set()
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(store, "relations", for_ever)
    late = await client.get("/api/labels?prefix=a")
    assert late.status_code == 504
    monkeypatch.setattr(api, "SECONDS_MAX", 20.0)
    waiting = [
        asyncio.create_task(client.get(f"/api/labels?prefix={number}"))
        for number in range(api.QUESTIONS_MAX)
    ]
    await began.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    busy = await client.get("/api/records")
    assert busy.status_code == 503
    assert "retry-after" in busy.headers
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert (await client.get("/api/records")).status_code == 200


# the document


async def test_the_document_has_every_route(client: httpx2.AsyncClient, store: Store) -> None:
    """And no other, each with its method and its own name; what it refers to is there."""
    found = (await client.get("/api/openapi.json")).json()
    OpenAPI(**found)
    described = {(method.upper(), path) for path, item in found["paths"].items() for method in item}
    routes = {
        (method, route.path)
        for route in app(store).routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
        if route.path not in ("/", "/static/{name}")
    }
    assert described == routes
    text = json.dumps(found)
    for part in text.split('"#/components/')[1:]:
        kind, name = part.partition('"')[0].split("/")
        assert name in found["components"][kind]
    ids = [one["operationId"] for item in found["paths"].values() for one in item.values()]
    assert len(ids) == len(set(ids))


async def test_answers_have_the_fields_of_the_document(
    store: Store, client: httpx2.AsyncClient
) -> None:
    """Every field that is there is described, and what is described as required is there."""
    await fill(store, 3)
    schemas = document()["components"]["schemas"]
    for target, name in (
        ("/api/records", "Records"),
        ("/api/records/0", "Record"),
        ("/api/labels?prefix=u", "Labels"),
        ("/api/rate", "Rate"),
        ("/api/status", "Status"),
    ):
        assert set((await client.get(target)).json()) == set(schemas[name]["required"])
    assert set((await client.post("/api/records", json=1)).json()) == set(
        schemas["Receipt"]["required"]
    )


# in a service


async def test_mounted_into_a_service(store: Store) -> None:
    """Below any path, in Starlette and in FastAPI, with the guard of its own."""
    await store.append(b"x")
    fastapi = FastAPI()
    fastapi.mount("/audit", app(store))
    for service in (Starlette(routes=[Mount("/audit", app(store))]), fastapi):
        async with client_of(service) as client:
            assert sequences(await client.get("/audit/api/records")) == [0]
            page = await client.get("/audit/")
            assert page.headers["content-type"].startswith("text/html")
        async with client_of(service, ("192.0.2.7", 1)) as stranger:
            assert (await stranger.get("/audit/api/records")).status_code == 403
            assert (await stranger.get("/audit/")).status_code == 403
