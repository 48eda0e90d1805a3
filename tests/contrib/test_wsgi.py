"""Requests of WSGI applications, audited whatever becomes of them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from errno import ENOSPC
from itertools import islice
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

import aquipu.sync
from aquipu import Always, ForkedStoreError
from aquipu.contrib.audit import UNRECORDED, Audit, Rule
from aquipu.contrib.wsgi import AuditMiddleware, get_store
from aquipu.sync import SyncStore
from tests.contrib.support import entries_in, labels_in
from tests.disk import FailingDisk
from tests.sync.support import program

PLAIN = [("Content-Type", "text/plain")]
BOTH: dict[str, Any] = {"request_body": True, "response_body": True}

Environ = dict[str, Any]
App = Callable[[Environ, Any], Iterable[bytes]]


@pytest.fixture
def disk() -> FailingDisk:
    return FailingDisk()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path: Path, disk: FailingDisk) -> Iterator[SyncStore]:
    with aquipu.sync.open(path, sync_policy=Always(), disk=disk) as store:
        store.append(b'{"path": "before"}')
        yield store


def environ(method: str = "POST", path: str = "/", body: bytes = b"", **more: Any) -> Environ:
    given: Environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "REMOTE_ADDR": "192.0.2.1"}
    given["SCRIPT_NAME"] = ""
    setup_testing_defaults(given)
    given.update({"wsgi.input": io.BytesIO(body), "QUERY_STRING": ""})
    if body:
        given["CONTENT_LENGTH"] = str(len(body))
    return given | more


class Answer:
    """What a client gets, and how many records there were when its status line was sent."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.stored = -1


def ask(
    app: AuditMiddleware, given: Environ, store: SyncStore, *, pieces: int | None = None
) -> Answer:
    """Serve one request, of its response at most so many pieces; the standard library sees that
    the middleware keeps to WSGI.
    """
    answer = Answer()

    def write(data: bytes) -> None:
        if answer.stored < 0:
            answer.stored = store.next_sequence
        answer.body += data

    def start(status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info and answer.stored >= 0:
            raise exc_info[1]
        answer.status, answer.headers = int(status[:3]), headers
        return write

    result = validator(app)(given, start)
    try:
        for piece in islice(result, pieces):
            write(piece)
    finally:
        result.close()  # type: ignore[attr-defined]
    return answer


def plain(given: Environ, start: Any) -> Iterable[bytes]:
    start("201 Created", PLAIN)
    return [b"do", b"ne"]


def entries(path: Path) -> list[dict[str, Any]]:
    return entries_in(path)[1:]


# what is stored


def test_an_entry_comes_before_the_answer(store: SyncStore, path: Path) -> None:
    """Its fields are those of every entry, and it is stored when the status line is sent."""
    audit: Audit[Environ] = Audit(
        actor=lambda given: given["user"],
        relations=lambda given: [f"document:{given['PATH_INFO'].rpartition('/')[2]}"],
        query_values=["page"],
    )
    given = environ(path="/documents/7", user="ada", QUERY_STRING="page=2&token=x")
    given |= {"HTTP_AUTHORIZATION": "Basic x", "CONTENT_TYPE": "text/plain", "SCRIPT_NAME": "/api"}
    answer = ask(AuditMiddleware(validator(plain), store, audit), given, store)
    assert (answer.status, answer.body, answer.stored) == (201, b"done", 2)
    (entry,) = entries(path)
    assert (entry["method"], entry["path"], entry["status"]) == ("POST", "/api/documents/7", 201)
    assert (entry["actor"], entry["client"]) == ("ada", "192.0.2.1")
    assert entry["query"] == "page=2&token=[redacted]"
    assert entry["request_headers"]["authorization"] == "[redacted]"
    assert entry["request_headers"]["content-type"] == "text/plain"
    assert entry["response_headers"] == {"content-type": "text/plain"}
    assert "incomplete" not in entry
    assert labels_in(path)[1] == ("document:7",)


@pytest.mark.parametrize("audit", [{}, BOTH, {"commit": "after_response"}], ids=str)
def test_the_context_of_a_handler(store: SyncStore, path: Path, audit: Any) -> None:
    """The functions of an audit see its context variables, as those of Flask, which takes them
    back before the server asks for the body.
    """
    user: ContextVar[str] = ContextVar("user", default="nobody")

    def app(given: Environ, start: Any) -> Iterable[bytes]:
        token = user.set("ada")
        try:
            return plain(given, start)
        finally:
            user.reset(token)

    who: Audit[Environ] = Audit(actor=lambda given: user.get(), **audit)
    ask(AuditMiddleware(app, store, who), environ(), store)
    assert [entry["actor"] for entry in entries(path)] == ["ada"]


def test_which_requests(store: SyncStore, path: Path) -> None:
    """A rule means the path without its mount point; what reaches the handler otherwise counts."""
    app = AuditMiddleware(plain, store, Audit(rules=[Rule("POST", "/ä/*")]))
    bytes_of_it = "/ä/1".encode().decode("latin-1")
    ask(app, environ(path=bytes_of_it, SCRIPT_NAME="/api"), store)
    ask(app, environ(path=bytes_of_it, method="GET"), store)
    ask(app, environ(path="/b", SCRIPT_NAME=""), store)
    assert [entry["path"] for entry in entries(path)] == ["/api/ä/1"]


def test_a_filter_before_and_after(store: SyncStore, path: Path) -> None:
    """The one leaves requests out, the other changes what is stored."""

    def after(given: Environ, entry: dict[str, Any]) -> bool:
        del entry["request_headers"]
        return True

    audit: Audit[Environ] = Audit(
        filter_before=lambda given: given["PATH_INFO"] != "/health", filter_after=after
    )
    app = AuditMiddleware(plain, store, audit)
    ask(app, environ(path="/health"), store)
    ask(app, environ(path="/"), store)
    (entry,) = entries(path)
    assert (entry["path"], "request_headers" in entry) == ("/", False)


READS: dict[str, Callable[[Any], object]] = {
    "read": lambda body: body.read(-1),
    "read by size": lambda body: [body.read(3) for _ in range(3)],
    "readline": lambda body: [body.readline(), body.readline(), body.readline()],
    "readlines": lambda body: body.readlines(),
    "a loop": list,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_bodies(store: SyncStore, path: Path, read: Callable[[Any], object]) -> None:
    """That of the request as far as it is read, and the first piece of that of the response."""

    def app(given: Environ, start: Any) -> Iterable[bytes]:
        assert read(given["wsgi.input"])
        start("200 OK", PLAIN)
        yield b"first"
        yield b" second"

    answer = ask(AuditMiddleware(app, store, Audit(**BOTH)), environ(body=b"one\ntwo"), store)
    assert (answer.body, answer.stored) == (b"first second", 2)
    (entry,) = entries(path)
    assert entry["request_body"] == {"bytes": 7, "truncated": False, "text": "one\ntwo"}
    assert entry["response_body"] == {"bytes": 5, "truncated": True, "text": "first"}


@pytest.mark.parametrize(
    ("head", "whole"),
    [
        ({}, True),
        ({"CONTENT_LENGTH": "0"}, True),
        ({"CONTENT_LENGTH": "6"}, False),
        ({"HTTP_TRANSFER_ENCODING": "chunked", "wsgi.input_terminated": True}, False),
        ({"SERVER_PROTOCOL": "HTTP/2"}, False),
    ],
)
def test_a_body_that_is_not_read(store: SyncStore, path: Path, head: Environ, whole: bool) -> None:
    """It is whole if there is none, as the head says."""
    given = environ(**{"SERVER_PROTOCOL": "HTTP/1.1", **head})
    ask(AuditMiddleware(plain, store, Audit(**BOTH)), given, store)
    assert entries(path)[0]["request_body"] == {"bytes": 0, "truncated": not whole, "text": ""}


def test_after_the_response(store: SyncStore, path: Path) -> None:
    """The entry tells of all of it, and no byte waits for it."""
    audit: Audit[Environ] = Audit(commit="after_response", response_body=True)
    answer = ask(AuditMiddleware(plain, store, audit), environ(), store)
    assert (answer.body, answer.stored) == (b"done", 1)
    (entry,) = entries(path)
    assert entry["response_body"] == {"bytes": 4, "truncated": False, "text": "done"}


@pytest.mark.parametrize("is_full", [False, True])
def test_before_the_handler(store: SyncStore, path: Path, disk: FailingDisk, is_full: bool) -> None:
    """What is asked for is stored when the handler runs; if it cannot be, it does not run."""
    audit: Audit[Environ] = Audit(commit="before_handler")
    found: list[int] = []

    def app(given: Environ, start: Any) -> Iterable[bytes]:
        found.append(store.next_sequence)
        return plain(given, start)

    before = store.next_sequence
    if is_full:
        disk.fail("write_synced", ENOSPC)
    answer = ask(AuditMiddleware(app, store, audit), environ(), store)
    disk.mend()
    if is_full:
        assert (answer.status, found, store.next_sequence) == (503, [], before)
        assert b"not carried out" in answer.body
    else:
        assert (answer.status, found) == (201, [before + 1])
        intent, outcome = entries_in(path)[-2:]
        assert (intent["intent"], outcome["supplement"]) == (True, True)
        assert intent["id"] == outcome["id"]


def writing(given: Environ, start: Any) -> Iterable[bytes]:
    write = start("200 OK", PLAIN)
    write(b"written ")
    return [b"done"]


def late(given: Environ, start: Any) -> Iterator[bytes]:
    start("200 OK", PLAIN)
    yield b"done"


def empty(given: Environ, start: Any) -> Iterable[bytes]:
    start("200 OK", PLAIN)
    return []


KINDS: dict[str, App] = {"list": plain, "write": writing, "generator": late, "empty": empty}


@pytest.mark.parametrize("audit", [Audit(), Audit(response_body=True)], ids=["", "bodies"])
@pytest.mark.parametrize("app", KINDS.values(), ids=KINDS)
def test_every_way_to_answer(store: SyncStore, path: Path, app: App, audit: Any) -> None:
    """One entry, before the first byte."""
    answer = ask(AuditMiddleware(validator(app), store, audit), environ(), store)
    assert answer.stored in (2, -1)
    assert len(entries(path)) == 1


@pytest.mark.parametrize("audit", [Audit(), Audit(response_body=True)], ids=["", "bodies"])
@pytest.mark.parametrize("app", KINDS.values(), ids=KINDS)
def test_a_response_that_is_withheld(
    store: SyncStore, path: Path, disk: FailingDisk, app: App, audit: Any
) -> None:
    """Without its entry the client gets a 503 that says why, and nothing of the response."""
    disk.fail("write_synced", ENOSPC)
    answer = ask(AuditMiddleware(validator(app), store, audit), environ(), store)
    assert (answer.status, answer.body.decode()) == (503, UNRECORDED)
    assert ("Content-Length", str(len(UNRECORDED))) in answer.headers
    assert entries(path) == []


def test_an_error_that_is_only_logged(
    store: SyncStore, path: Path, disk: FailingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """The response goes on as if it had an entry."""
    disk.fail("write_synced", ENOSPC)
    answer = ask(AuditMiddleware(plain, store, Audit(on_error="log")), environ(), store)
    assert (answer.status, answer.body) == (201, b"done")
    assert "could not be stored" in caplog.text


# applications that do not come to their end


def raising_first(given: Environ, start: Any) -> Iterable[bytes]:
    raise KeyError("first")


def raising_started(given: Environ, start: Any) -> Iterable[bytes]:
    start("200 OK", PLAIN)
    raise KeyError("started")


def raising_within(given: Environ, start: Any) -> Iterator[bytes]:
    start("200 OK", PLAIN)
    yield b"some"
    raise KeyError("within")


@pytest.mark.parametrize(
    ("app", "statuses"),
    [(raising_first, [None]), (raising_started, [None]), (raising_within, [200, 200])],
)
def test_an_application_that_raises(
    store: SyncStore, path: Path, app: App, statuses: list[int | None]
) -> None:
    """The entry names the class of the error, and the server gets it; of a stream that had begun
    a second entry says how it ended.
    """
    with pytest.raises(KeyError):
        ask(AuditMiddleware(app, store), environ(), store)
    found = entries(path)
    assert [entry["status"] for entry in found] == statuses
    assert found[-1]["error"] == "KeyError"
    assert [entry.get("supplement", False) for entry in found] == [False, True][: len(found)]


def test_an_error_page_of_the_application(store: SyncStore, path: Path) -> None:
    """What is sent in place of a response that had not begun is what is stored, with its error."""

    def app(given: Environ, start: Any) -> Iterable[bytes]:
        start("200 OK", PLAIN)
        try:
            raise KeyError("inside")
        except KeyError:
            start("500 Oh", PLAIN, sys.exc_info())
        return [b"sorry"]

    answer = ask(AuditMiddleware(app, store), environ(), store)
    assert (answer.status, answer.body) == (500, b"sorry")
    (entry,) = entries(path)
    assert (entry["status"], entry["error"]) == (500, "KeyError")


def test_a_client_that_leaves(store: SyncStore, path: Path) -> None:
    """The server closes the response before its end: a second entry says so."""
    closed: list[bool] = []

    def app(given: Environ, start: Any) -> Iterator[bytes]:
        start("200 OK", PLAIN)
        try:
            while True:
                yield b"more"
        finally:
            closed.append(True)

    ask(AuditMiddleware(app, store), environ(), store, pieces=3)
    first, second = entries(path)
    assert (first.get("disconnected"), second["disconnected"]) == (None, True)
    assert (second["id"], second["supplement"]) == (first["id"], True)
    assert closed == [True]


def test_a_worker_that_is_ended(store: SyncStore, path: Path) -> None:
    """SystemExit in a handler passes, and its entry says so."""

    def app(given: Environ, start: Any) -> Iterable[bytes]:
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        ask(AuditMiddleware(app, store), environ(), store)
    store.flush()
    (entry,) = entries(path)
    assert (entry["cancelled"], entry["status"]) == (True, None)


# the store


def test_the_store_in_a_handler(store: SyncStore, path: Path) -> None:
    """It is in the environ, also where nothing is audited, and so in whatever has the environ."""

    class Request:
        def __init__(self, environ: Environ) -> None:
            self.environ = environ

    def app(given: Environ, start: Any) -> Iterable[bytes]:
        assert get_store(given) is get_store(Request(given)) is store
        return plain(given, start)

    audit: Audit[Environ] = Audit(rules=[Rule("GET")])
    assert ask(AuditMiddleware(app, store, audit), environ(), store).status == 201
    with pytest.raises(RuntimeError, match=r"app.wsgi_app = AuditMiddleware"):
        get_store({})
    with pytest.raises(TypeError, match=r"lambda: aquipu.sync.open"):
        AuditMiddleware(app, "audit")  # type: ignore[arg-type]


def test_a_store_that_each_process_opens(tmp_path: Path) -> None:
    """It is opened with the first request, once, and by a forked child anew."""
    opened: list[SyncStore] = []

    def opening() -> SyncStore:
        opened.append(aquipu.sync.open(tmp_path / str(os.getpid())))
        return opened[-1]

    app = AuditMiddleware(plain, opening)
    assert opened == []
    for _ in range(2):
        list(app(environ(), lambda *_: lambda _: None))
    child = os.fork()
    if not child:
        try:
            list(app(environ(), lambda *_: lambda _: None))
            opened[-1].close()
            with pytest.raises(ForkedStoreError):
                opened[0].append(b"x")
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(opened) == 1
    opened[0].close()
    assert len(entries_in(tmp_path / str(os.getpid()))) == 2
    assert len(entries_in(tmp_path / str(child))) == 1


def test_the_end_of_a_process_that_has_opened_its_store(path: Path) -> None:
    """It is closed, without a warning, and a child that was forked before leaves it alone."""
    script = """
import io, wsgiref.util
from aquipu.contrib.wsgi import AuditMiddleware

def app(environ, start):
    start("200 OK", [])
    return []

audited = AuditMiddleware(app, lambda: aquipu.sync.open(path))
environ = {"REQUEST_METHOD": "GET"}
wsgiref.util.setup_testing_defaults(environ)
list(audited(environ, lambda *_: None))
if not os.fork():
    sys.exit()
os.wait()
"""
    assert program(script, path).stderr == ""
    assert len(entries_in(path)) == 1
