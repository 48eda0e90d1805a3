"""Who may ask: strangers, other sites, other names, and whoever tries paths."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aquipu import Always, Store
from aquipu.contrib.web.app import app
from aquipu.contrib.web.guard import Access, host_in
from tests.contrib.web.support import ELSEWHERE, HERE, TOKEN, client_of
from tests.contrib.wire import END, Wire

pytestmark = pytest.mark.asyncio

JSON = {"content-type": "application/json"}


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store.open(tmp_path / "store", sync_policy=Always()) as store:
        yield store


async def test_without_a_token_only_this_machine_is_answered(store: Store) -> None:
    """Not whoever comes from elsewhere, nor through a proxy on this machine, nor from nowhere."""
    async with client_of(app(store)) as client:
        assert (await client.get("/api/records")).status_code == 200
        for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
            answer = await client.get("/api/records", headers={name: "192.0.2.7"})
            assert answer.status_code == 403
    async with client_of(app(store), ELSEWHERE) as client:
        for target in ("/", "/api/records", "/metrics", "/healthz", "/api/events", "/api/live"):
            assert (await client.get(target)).status_code == 403
    nowhere = Wire(app(store), {}, "GET", "/api/records", [("host", "localhost")], client=None)
    assert (await nowhere.run()).status == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "a@b",
        "[::1",
        "0.0.0.0",
    ],
)
async def test_another_name_is_dns_rebinding(host: str, store: Store) -> None:
    """A site that has its name lead to this machine is still another site."""
    async with client_of(app(store)) as client:
        for target in ("/", "/api/records", "/healthz"):
            refused = await client.get(target, headers={"host": host})
            assert refused.status_code == 421
            assert refused.json()["error"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8765", "127.0.0.1:1", "[::1]:8765"])
async def test_the_names_of_the_loopback(host: str, store: Store) -> None:
    """With any port."""
    async with client_of(app(store)) as client:
        assert (await client.get("/api/records", headers={"host": host})).status_code == 200


async def test_names_that_were_allowed(store: Store) -> None:
    """Only these, also with a token."""
    guarded = app(store, token=TOKEN, hosts=["Audit.example."])
    async with client_of(guarded, ELSEWHERE, authorization=f"Bearer {TOKEN}") as client:
        for host, status in (("audit.example", 200), ("audit.example.:443", 200), ("other", 421)):
            answer = await client.get("/api/records", headers={"host": host})
            assert answer.status_code == status


async def test_two_hosts_are_no_host(store: Store) -> None:
    """Which of them a proxy has looked at nobody knows."""
    for hosts in ([], [("host", "localhost"), ("host", "evil.example")]):
        wire = Wire(app(store), {}, "GET", "/api/records", hosts, client=HERE)
        assert (await wire.run()).status == 400


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {TOKEN[:-1]}"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"authorization": "Bearer"},
        {"authorization": "Bearer \xff"},
        {"cookie": f"token={TOKEN}"},
    ],
)
@pytest.mark.parametrize("client", [HERE, ELSEWHERE])
async def test_a_wrong_token(
    headers: dict[str, str], client: Any, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It is refused, from wherever, and stands neither in the answer nor in a log."""
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    with caplog.at_level(logging.DEBUG):
        async with client_of(app(store, token=TOKEN, write=True), client) as asking:
            for target in ("/api/records", "/api/events", "/metrics", f"/api/status?token={TOKEN}"):
                refused = await asking.get(target, headers=raw)  # type: ignore[arg-type]
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in refused.text
            refused = await asking.post("/api/records", json=1, headers=raw)  # type: ignore[arg-type]
            assert refused.status_code == 401
    assert store.next_sequence == 0
    ours = [one for one in caplog.records if not one.name.startswith("httpx")]
    assert not any(TOKEN in one.getMessage() for one in ours)


async def test_the_right_token(store: Store) -> None:
    """It lets in from wherever; the files of the page and probes need none."""
    guarded = app(store, token=TOKEN, write=True)
    async with client_of(guarded, ELSEWHERE, authorization=f"bearer {TOKEN}") as client:
        assert (await client.post("/api/records", json=1)).status_code == 201
    async with client_of(guarded, ELSEWHERE) as client:
        for target in ("/", "/static/page.js", "/static/style.css", "/healthz", "/readyz"):
            assert (await client.get(target)).status_code == 200
        for target in ("/static/../api/status", "/static/nothing", "/Healthz"):
            assert (await client.get(target)).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"origin": "http://localhost:8765", "sec-fetch-site": "same-origin"}, 201),
        ({"sec-fetch-site": "none"}, 201),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "http://localhost:8765.evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 403),
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN])
async def test_another_site_makes_a_browser_post(
    headers: dict[str, str], status: int, token: str | None, store: Store
) -> None:
    """Nothing is written for it, token or not; what the page itself sends is."""
    mine = {} if token is None else {"authorization": f"Bearer {token}"}
    async with client_of(app(store, token=token, write=True)) as client:
        answer = await client.post("/api/records", json=1, headers={**headers, **mine})
    assert answer.status_code == status
    assert store.next_sequence == (status == 201)


async def test_a_link_from_another_site(store: Store) -> None:
    """It leads to the page, and to nothing else; no site shows the page within itself."""
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    async with client_of(app(store)) as client:
        page = await client.get("/", headers=followed)
        assert page.status_code == 200
        for target in ("/api/records", "/static/page.js", "/metrics"):
            assert (await client.get(target, headers=followed)).status_code == 403
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/....//app.py",
        "/static//etc/passwd",
        "/static/..\\app.py",
        "/static/page.js%00.css",
        "/static/",
        "/static",
        "//etc/passwd",
        "/api/records/..%2f..",
        "/api/../../etc/passwd",
    ],
)
async def test_a_path_that_leads_elsewhere(path: str, store: Store) -> None:
    """No path of a request becomes one of a file, decoded or not."""
    from urllib.parse import unquote

    for given in (path, unquote(path)):
        wire = Wire(app(store), {}, "GET", "/", [("host", "localhost")], client=HERE)
        wire.scope["path"], wire.scope["raw_path"] = given, given.encode()
        await wire.run()
        assert wire.status in (400, 404), given
        assert b"import" not in wire.body
        assert b"root:" not in wire.body


async def test_a_service_with_a_login_of_its_own(store: Store) -> None:
    """Who has come this far may see the store; other sites are refused all the same."""
    guarded = app(store, protected_elsewhere=True, write=True)
    async with client_of(guarded, ELSEWHERE) as client:
        known = await client.get("/api/records", headers={"host": "shop.example"})
        assert known.status_code == 200
        refused = await client.post("/api/records", json=1, headers={"origin": "http://evil"})
        assert refused.status_code == 403


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"token": "short"}, ValueError),
        ({"token": ""}, ValueError),
        ({"token": "x" * 20 + "\n"}, ValueError),
        ({"token": 7}, TypeError),
        ({"hosts": "localhost"}, TypeError),
        ({"token": TOKEN, "protected_elsewhere": True}, ValueError),
    ],
)
async def test_a_guard_that_cannot_be(
    options: dict[str, Any], error: type[Exception], store: Store
) -> None:
    """It is refused where the application is put together, and no message has the token."""
    with pytest.raises(error) as caught:
        app(store, **options)
    if options.get("token"):
        assert str(options["token"]) not in str(caught.value) or options["token"] == 7


async def test_a_host_is_read_without_its_port() -> None:
    """However it is written; what is none is an empty name, which nobody has."""
    written = {"[::1]:80": "::1", "A.b:1": "a.b", "a.": "a", "[::1": "", "x:y:z": ""}
    assert {text: host_in(text) for text in written} | {"x:y:z": ""} == written
    assert Access.checked(None, None, False).token is None


async def test_a_body_that_never_ends_is_not_read(store: Store) -> None:
    """More than a record may have is refused as soon as it has come."""
    wire = Wire(
        app(store, write=True),
        {},
        "POST",
        "/api/records",
        [("host", "localhost"), ("content-type", "application/octet-stream")],
        client=HERE,
    )
    for _ in range(20):
        wire.give({"type": "http.request", "body": bytes(1024 * 1024), "more_body": True})
    await wire.run()
    assert wire.status == 413
    assert store.next_sequence == 0
    assert END["more_body"] is False
