"""Which requests are audited, and what is stored of them whatever the store says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import FrozenInstanceError
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aquipu import Always, EveryN, Stage, Store, StoreClosedError, StoreFailedError, StoreFullError
from aquipu.contrib.audit import Audit, Rule, Trail
from aquipu.contrib.shared.entry import Entry, Exchange
from aquipu.contrib.shared.opener import opener_of
from tests.contrib.support import entries_in, labels_in
from tests.disk import FailingDisk

# rules


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*", "/anything/at/all", True),
        ("*", "", True),
        ("/a", "/a", True),
        ("/a", "/a/", False),
        ("/a", "/ab", False),
        ("/a*", "/ab/c", True),
        ("/a/*", "/a/", True),
        ("/a/*", "/a", False),
        ("*/b", "/a/b", True),
        ("*/b", "/a/b/c", False),
        ("/a/*/c", "/a/b/c", True),
        ("/a/*/c", "/a/c", False),
        ("/a/*/c", "/a//c", True),
        ("/a*a", "/a", False),
        ("/a*b*c", "/a1b2c", True),
        ("/a*b*c", "/a1c2b", False),
        ("/a*bc*c", "/abc", False),
        ("/*ab*ab", "/ab", False),
        ("/*ab*ab", "/abab", True),
        ("/a.c", "/abc", False),
        ("/[a]", "/a", False),
    ],
)
def test_the_path_of_a_rule(pattern: str, path: str, fits: bool) -> None:
    """A star is any characters, nothing else is special, and the whole path must match."""
    assert Rule("*", pattern).matches("POST", path) is fits


@pytest.mark.parametrize(
    ("methods", "method", "fits"),
    [
        ("*", "PURGE", True),
        ("POST", "POST", True),
        ("post, put", "PUT", True),
        ("POST PUT", "DELETE", False),
        ("GET", "HEAD", True),
        ("HEAD", "GET", False),
    ],
)
def test_the_methods_of_a_rule(methods: str, method: str, fits: bool) -> None:
    """They are words.

    GET means HEAD as well, which runs the same handler and would otherwise pass unseen.
    """
    assert Rule(methods).matches(method, "/") is fits


def test_a_path_that_would_take_long_to_match() -> None:
    """Many stars against a long path take no longer than a look at it."""
    assert not Rule("*", "/" + "*a" * 50 + "b").matches("GET", "/" + "a" * 60_000)


@pytest.mark.parametrize(
    ("rules", "covered"),
    [
        ([], {"POST /a", "GET /a", "GET /health"}),
        ([Rule("POST")], {"POST /a"}),
        ([Rule("*", "/health", audited=False)], {"POST /a", "GET /a"}),
        ([Rule("*", "/health", audited=False), Rule("GET")], {"GET /a"}),
        ([Rule("GET"), Rule("*", "/health", audited=False)], {"GET /a", "GET /health"}),
    ],
)
def test_the_first_rule_that_matches_decides(rules: list[Rule], covered: set[str]) -> None:
    """What none matches is audited only where all rules leave out."""
    audit: Audit[None] = Audit(rules=rules)
    assert {
        each for each in ("POST /a", "GET /a", "GET /health") if audit.covers(*each.split())
    } == covered


@pytest.mark.parametrize(
    ("made", "options", "kind", "says"),
    [
        (Rule, {"methods": ""}, ValueError, "names methods"),
        (Rule, {"path": "documents/*"}, ValueError, "begins with / or"),
        (Audit, {"commit": "sometime"}, ValueError, "before_response"),
        (Audit, {"on_error": "ignore"}, ValueError, "fail"),
        (Audit, {"body_limit": -1}, ValueError, "body_limit"),
        (Audit, {"redacted_headers": "cookie"}, TypeError, "redacted_headers"),
        (Audit, {"kept_headers": "cookie"}, TypeError, "kept_headers"),
        (Audit, {"query_values": "page"}, TypeError, "query_values"),
    ],
)
def test_what_cannot_be(
    made: type, options: dict[str, Any], kind: type[Exception], says: str
) -> None:
    """A mistake is found when the service is put together, not at its first request."""
    with pytest.raises(kind, match=says):
        made(**options)


@pytest.mark.parametrize("made", [Rule("POST"), Audit[None]()])
def test_what_was_checked_is_not_changed(made: Any) -> None:
    """Rules and audits were checked when they were made: they stay as they are."""
    for name in ("path", "commit", "anything"):
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, "never")


@pytest.mark.asyncio
@pytest.mark.parametrize(("method", "has_body"), [("GET", True), ("POST", True), ("HEAD", False)])
async def test_a_body_that_is_never_sent(place: Place, method: str, has_body: bool) -> None:
    """A response to HEAD has no body, so there is none in its entry either."""
    exchange = Exchange(method, "/a", "", None, ())
    Trail(Audit[str](request_body=True, response_body=True), place.store, "the request", exchange)
    assert exchange.request_body is not None
    assert (exchange.response_body is not None) is has_body


# a source


def test_a_path_is_opened_with_options(tmp_path: Path) -> None:
    """A path and options open a store; nothing is opened or made before it is entered."""
    opener_of(tmp_path / "store", {"sync_policy": Always()})
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("store", {"sync": True}, "sync"),
        ("store", {"lock_timeout": "20"}, "lock_timeout"),
        (lambda: Store.open("store"), {"lock_timeout": 1}, "lock_timeout"),
        (Store.open("store"), {}, "lambda"),
        (None, {}, "NoneType"),
    ],
)
def test_a_source_that_cannot_be(source: Any, options: dict[str, Any], says: str) -> None:
    """It is refused at once, with what to write instead."""
    with pytest.raises(TypeError, match=says):
        opener_of(source, options)


# a trail


class Place:
    """A store on a disk that fails on demand, and the exchanges audited there."""

    def __init__(self, path: Path, disk: FailingDisk, store: Store) -> None:
        self.path, self.disk, self.store = path, disk, store

    def trail(self, done: bool = True, **options: Any) -> Trail[str]:
        trail = Trail(
            Audit[str](**options), self.store, "the request", Exchange("POST", "/a", "", None, ())
        )
        if done:
            trail.exchange.respond(200, ())
            trail.exchange.is_complete = True
        return trail

    async def entries(self) -> list[Entry]:
        await self.store.flush()
        return entries_in(self.path)


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    disk = FailingDisk()
    store = await Store.open(tmp_path / "store", sync_policy=Always(), disk=disk, buffer_records=4)
    yield Place(tmp_path / "store", disk, store)
    disk.mend()
    with suppress(StoreFailedError):
        await store.aclose()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "aquipu")
    return caplog


@pytest.mark.asyncio
async def test_what_the_service_says_of_a_request(place: Place) -> None:
    """Actor and relations come from its functions, which get its request."""
    trail = place.trail(
        actor=lambda request: request.upper(), relations=lambda request: {f"seen:{request}"}
    )
    assert await trail.record() is None
    assert (await place.entries())[0]["actor"] == "THE REQUEST"
    assert labels_in(place.path) == [("seen:the request",)]


@pytest.mark.asyncio
async def test_a_filter_after_the_handler(place: Place) -> None:
    """It sees the entry, keeps it out, or changes it; an entry that is kept out is no error."""

    def only_errors(request: str, entry: Entry) -> bool:
        entry["path"] = "/?"
        return bool(entry["status"] >= 400)

    good, bad = place.trail(filter_after=only_errors), place.trail(filter_after=only_errors)
    bad.exchange.respond(404, ())
    assert await good.record() is await good.end() is await bad.record() is None
    assert [(entry["status"], entry["path"]) for entry in await place.entries()] == [(404, "/?")]


@pytest.mark.asyncio
async def test_a_stage_of_its_own(place: Place) -> None:
    """``durability`` asks for another stage than the policy of the store."""
    await place.trail().record()
    before = place.disk.syncs
    assert await place.trail(durability=Stage.FLUSHED).record() is None
    assert place.disk.syncs == before
    assert await place.trail().record() is None
    assert place.disk.syncs > before


@pytest.mark.asyncio
async def test_a_response_that_ended_well_has_one_entry(place: Place) -> None:
    """Nothing is added to what was said before it began."""
    trail = place.trail()
    await trail.record()
    await trail.end()
    assert len(await place.entries()) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["raised", "incomplete"])
async def test_a_response_that_ended_otherwise_has_a_supplement(place: Place, how: str) -> None:
    """A second entry with the same id says how."""
    trail = place.trail(done=False)
    trail.exchange.respond(200, ())
    await trail.record()
    if how == "raised":
        trail.exchange.error = ValueError()
    await trail.end()
    first, second = await place.entries()
    assert "supplement" not in first
    assert second["supplement"] is True
    assert first["id"] == second["id"]
    assert ("error" in second, "incomplete" in second) == (how == "raised", how == "incomplete")


@pytest.mark.asyncio
@pytest.mark.parametrize(("on_error", "returned"), [("fail", True), ("log", False)])
@pytest.mark.parametrize(
    ("error", "kind"), [(ENOSPC, StoreFullError), (EIO, StoreFailedError), (None, StoreClosedError)]
)
async def test_a_store_that_takes_nothing(
    place: Place,
    log: pytest.LogCaptureFixture,
    on_error: str,
    returned: bool,
    error: int | None,
    kind: type[Exception],
) -> None:
    """Full, failed or closed: it is logged once, without data, and with ``fail`` the caller learns
    of it.
    """
    if error is None:
        await place.store.aclose()
    else:
        place.disk.fail("write", error, forever=True)
    trail = place.trail(on_error=on_error, actor=lambda request: "nobody's business")
    failure = await trail.record()
    assert isinstance(failure, kind) if returned else failure is None
    (line,) = [record for record in log.records if record.levelname == "ERROR"]
    assert ("withheld" in line.getMessage()) is returned
    assert trail.exchange.id in line.getMessage()
    assert line.exc_info is None
    assert "nobody" not in line.getMessage()
    assert "/a" not in line.getMessage().replace(str(place.path), "")


@pytest.mark.asyncio
@pytest.mark.parametrize("function", ["actor", "relations", "filter_after"])
@pytest.mark.parametrize("on_error", ["fail", "log"])
async def test_a_function_of_the_service_that_raises(
    place: Place, log: pytest.LogCaptureFixture, function: str, on_error: str
) -> None:
    """The entry is stored all the same, and says which function raised what; the traceback is
    logged.
    """

    def broken(*_: object) -> Any:
        raise KeyError("user")

    options: dict[str, Any] = {function: broken}
    assert await place.trail(on_error=on_error, **options).record() is None
    (line,) = log.records
    assert line.exc_info is not None
    (entry,) = await place.entries()
    assert entry["audit_error"] == {function: "KeyError"}
    assert (entry["method"], entry["path"], entry["status"], entry["actor"]) == (
        "POST",
        "/a",
        200,
        None,
    )
    assert "user" not in str(entry)


@pytest.mark.asyncio
async def test_all_functions_raise_and_the_request_is_cancelled(place: Place) -> None:
    """The entry of a request that does not wait is kept by nothing either."""

    def broken(*_: object) -> Any:
        raise ValueError

    trail = place.trail(actor=broken, relations=broken, filter_after=broken)
    trail.exchange.cancelled = True
    trail.end_nowait()
    (entry,) = await place.entries()
    assert entry["audit_error"] == dict.fromkeys(
        ("actor", "filter_after", "relations"), "ValueError"
    )
    assert entry["cancelled"] is True


@pytest.mark.asyncio
async def test_a_filter_that_raises_has_taken_nothing_out(place: Place) -> None:
    """What it was to take out is not known, so nothing stays in which secrets may be, and nothing
    that it had put there.
    """

    def half_done(request: str, entry: Entry) -> bool:
        entry["note"] = "half"
        entry["path"] = "/?"
        raise LookupError

    trail = place.trail(False, filter_after=half_done, request_body=True, response_body=True)
    trail.exchange.respond(201, ())
    await trail.record()
    (entry,) = await place.entries()
    left_out = ["request_headers", "response_headers", "request_body", "response_body"]
    assert entry["altered"] == left_out
    assert not {*left_out, "note"} & set(entry)
    assert (entry["path"], entry["status"]) == ("/a", 201)


@pytest.mark.asyncio
async def test_labels_that_cannot_be(place: Place) -> None:
    """They are made labels, and the entry says that its labels are not what they were."""
    await place.trail(relations=lambda request: ["two\nlines", "user:7"]).record()
    await place.trail(relations=lambda request: ["one", "user:7"]).record()
    first, second = await place.entries()
    assert labels_in(place.path) == [("two%0Alines", "user:7"), ("one", "user:7")]
    assert first["altered"] == ["relations"]
    assert "altered" not in second


@pytest.mark.asyncio
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_an_entry_larger_than_a_record(tmp_path: Path, is_cancelled: bool) -> None:
    """It is cut to the size of a record, and says what of it."""
    path = tmp_path / "store"
    async with Store.open(path, max_record_bytes=1000) as store:
        trail = Place(path, FailingDisk(), store).trail(request_body=True)
        assert trail.exchange.request_body is not None
        trail.exchange.request_body.feed(b"\0" * 60_000)
        trail.exchange.request_body.is_whole = True
        if is_cancelled:
            trail.end_nowait()
        else:
            assert await trail.record() is None
    (entry,) = entries_in(path)
    assert entry["altered"] == ["request_body"]
    assert (entry["request_body"]["bytes"], entry["request_body"]["truncated"]) == (60_000, True)
    assert 50 < len(entry["request_body"]["text"]) < 200


@pytest.mark.asyncio
async def test_cancelled_while_it_waits_for_the_disk(place: Place) -> None:
    """The entry is accepted, and written."""
    hold = place.disk.hold("write")
    recording = asyncio.create_task(place.trail().record())
    await asyncio.to_thread(hold.reached.wait)
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    hold.released.set()
    assert len(await place.entries()) == 1


@pytest.mark.asyncio
async def test_a_cancelled_request_does_not_wait(place: Place) -> None:
    """Its entry is taken at once, and written as everything that was accepted is."""
    hold = place.disk.hold("write")
    trail = place.trail(done=False)
    trail.exchange.cancelled = True
    trail.end_nowait()
    hold.released.set()
    (entry,) = await place.entries()
    assert entry["cancelled"] is True
    assert entry["status"] is None


@pytest.mark.asyncio
async def test_a_cancelled_request_that_finds_no_room(
    place: Place, log: pytest.LogCaptureFixture
) -> None:
    """It does not wait for room either: that its entry is lost is logged."""
    hold = place.disk.hold("write")
    waiting = [asyncio.create_task(place.trail().record()) for _ in range(4)]
    await asyncio.to_thread(hold.reached.wait)
    trail = place.trail()
    trail.end_nowait()
    assert "no room" in log.text
    hold.released.set()
    await asyncio.gather(*waiting)
    assert len(await place.entries()) == 4


@pytest.mark.asyncio
async def test_a_cancelled_request_whose_entry_is_refused_later(
    place: Place, log: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for it, so it is logged."""
    place.disk.fail("write", ENOSPC, forever=True)
    place.trail().end_nowait()
    with pytest.raises(StoreFullError):
        await place.store.flush()
    await asyncio.sleep(0)
    assert "has no space" in log.text


@pytest.mark.asyncio
async def test_the_entry_is_at_the_stage_of_the_policy(tmp_path: Path) -> None:
    """Under EveryN nothing waits for the disk, under Always everything does."""
    async with Store.open(
        tmp_path / "store", sync_policy=EveryN(64, within=None), disk=(disk := FailingDisk())
    ) as store:
        before = disk.syncs
        await Place(tmp_path / "store", disk, store).trail().record()
        assert disk.syncs == before
