"""What `aquipu serve --metrics` answers over HTTP: two pages, to whoever reads them."""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path
from socket import create_connection

import pytest
import pytest_asyncio
from aiohttp import ClientSession

from aquipu import Store, StoreFailedError
from aquipu.cli.metrics import Place, served
from aquipu.contrib.pytest import FaultyDisk

pytestmark = pytest.mark.asyncio

METHODS = ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"]


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest_asyncio.fixture
async def store(tmp_path: Path, disk: FaultyDisk) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / os.fsdecode(b"st\xffre"), disk=disk)
    yield store
    disk.mend()
    try:
        await store.aclose()
    except StoreFailedError:
        assert disk.struck


@pytest_asyncio.fixture
async def client(store: Store) -> AsyncIterator[ClientSession]:
    """Of the place where the store is shown."""
    with served(store, Place("127.0.0.1", 0)) as address:
        async with ClientSession(address.removesuffix("/metrics")) as client:
            yield client


async def test_the_metrics(client: ClientSession) -> None:
    """They are text, also of a path that is none; packed for those who take that; and with a query,
    as Prometheus may.
    """
    for headers in ({"Accept-Encoding": "gzip"}, {"Accept-Encoding": "identity"}):
        async with client.get("/metrics?x=y", headers=headers, auto_decompress=False) as answer:
            body = await answer.read()
            assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(body)))
            text = (
                gzip.decompress(body) if "Content-Encoding" in answer.headers else body
            ).decode()
        assert '/st\\\\xffre"} 0.0\n' in text
        assert "process_open_fds" in text


async def test_health(client: ClientSession, store: Store, disk: FaultyDisk) -> None:
    """200 as long as it takes records, 503 when it does not: with the state, and the reasons in
    sentences.
    """
    async with client.get("/healthz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")
    disk.fail()
    with pytest.raises(StoreFailedError):
        await store.append(b"x")
    async with client.get("/healthz") as answer:
        state, reason = (await answer.text()).splitlines()
        assert (answer.status, state) == (503, "failed")
        assert r"/st\xffre has failed" in reason


async def test_health_of_a_disk_that_is_nearly_full(
    client: ClientSession, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody should look, and nobody should start it anew: 200."""
    health = store.health(min_free_bytes=1 << 62)
    while health.state == "ok":  # it has not measured yet
        await store.append(b"x")
        health = store.health(min_free_bytes=1 << 62)
    monkeypatch.setattr(Store, "health", lambda store: health)
    async with client.get("/healthz") as answer:
        assert (answer.status, (await answer.text()).splitlines()[0]) == (200, "degraded")


async def test_health_of_a_store_that_is_closed(client: ClientSession, store: Store) -> None:
    """It takes nothing more: 503."""
    await store.aclose()
    async with client.get("/healthz") as answer:
        assert (answer.status, (await answer.text()).splitlines()[0]) == (503, "closed")


@pytest.mark.parametrize(
    "path", ["/", "/metric", "/metrics/", "/healthz/x", "/favicon.ico", "/%ff", "/x/metrics"]
)
async def test_nothing_is_elsewhere(client: ClientSession, path: str) -> None:
    """404, and what there is."""
    async with client.get(path) as answer:
        assert (answer.status, await answer.text()) == (
            404,
            "there are /metrics and /healthz here\n",
        )


@pytest.mark.parametrize(("path", "status"), [("/metrics", 200), ("/healthz", 200), ("/", 404)])
async def test_only_the_head(client: ClientSession, path: str, status: int) -> None:
    """HEAD is answered as GET is, without the text."""
    async with client.head(path) as answer:
        assert (answer.status, await answer.read()) == (status, b"")
        assert int(answer.headers["Content-Length"]) > 0


@pytest.mark.parametrize("method", METHODS)
async def test_nothing_can_be_done(client: ClientSession, method: str) -> None:
    """405, and what can be."""
    for path in ("/metrics", "/healthz"):
        async with client.request(method, path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


async def test_a_client_that_says_nothing(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    """Others are answered meanwhile, and it does not keep it from ending; nothing is said of it."""
    with served(store, Place("127.0.0.1", 0)) as address:
        port = int(address.split(":")[2].removesuffix("/metrics"))
        with (
            create_connection(("127.0.0.1", port)) as silent,
            create_connection(("127.0.0.1", port)) as noise,
        ):
            noise.sendall(b"\xff\xff\xff\r\n\r\n")
            silent.sendall(b"GET ")
            async with ClientSession() as client, client.get(address) as answer:
                assert answer.status == 200
    assert capfd.readouterr().err == ""


async def test_beside_the_mode_of_several_processes(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The daemon shows its own store from a registry of its own, whatever its environment says."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with served(store, Place("127.0.0.1", 0)) as address:
        async with ClientSession() as client, client.get(address) as answer:
            assert "aquipu_next_sequence{" in await answer.text()
