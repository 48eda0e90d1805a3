"""A store in Flask, Django and every other WSGI application, that can audit its requests.

::

    app = Flask(__name__)
    app.wsgi_app = AuditMiddleware(
        app.wsgi_app,
        lambda: aquipu.sync.open("audit", sync_policy=Always()),
        audit=Audit(rules=[Rule("POST", "/documents/*")]),
    )

    @app.get("/documents/<int:number>")
    def history(number: int) -> list[str]:
        store = get_store(flask.request)
        ...

What is audited when is told in `aquipu.contrib.audit`; here it means: ``start_response`` is passed
on to the server when the entry is stored, and so no byte leaves before. ``cancelled`` is a request
in which the server ended its worker, ``disconnected`` one whose response the server did not take to
its end: that is how WSGI says that the client has left.

The functions of an `Audit` get the environ, after the handler, on its thread and with its context
variables: of Flask, ``flask.request``, ``g`` and ``session`` are those of the request. In other
frameworks a handler leaves there what they need: ``request.environ["user"] = user.id``.
"""

from __future__ import annotations

from atexit import register
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from os import getpid
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from aquipu.contrib.audit import NOT_DONE, UNRECORDED, Audit, Coverage, Trail
from aquipu.contrib.shared.entry import Body, Exchange
from aquipu.contrib.shared.idempotency import idempotency_key
from aquipu.contrib.shared.waiting import result_of
from aquipu.sync import SyncStore

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from aquipu import Receipt

__all__ = ["AuditMiddleware", "get_store", "idempotency_key"]

_STORE = "aquipu.store"

Environ: TypeAlias = "WSGIEnvironment"


def get_store(request: Any) -> SyncStore:
    """Return the store of the middleware, for a handler.

    ``request`` is the environ, or an object that has it as ``environ``: a request of Flask, Django
    and most others. Raises RuntimeError when the middleware is not there.
    """
    environ = getattr(request, "environ", request)
    try:
        return cast("SyncStore", environ[_STORE])
    except KeyError:
        raise RuntimeError(
            f"there is no {_STORE!r} in the environ of this request: wrap the application, "
            "app.wsgi_app = AuditMiddleware(app.wsgi_app, ...)"
        ) from None


class AuditMiddleware:
    """WSGI middleware: stores an entry for each request that ``audit`` covers.

    Nothing is buffered: what passes, passes at once, but for the start of a response as long as
    that waits for its entry. Of a request body is seen what the application reads.
    """

    def __init__(
        self,
        app: WSGIApplication,
        store: SyncStore | Callable[[], SyncStore],
        audit: Audit[Environ] | None = None,
    ) -> None:
        """Wrap an application.

        Args:
            app: any WSGI application.
            store: where the entries go; or a function that opens it, which is called in each
                process with its first request, also in one that was forked from the first
                (``gunicorn --preload``). Such a store is closed at the exit of the process.
            audit: what is audited, and how; without it every request.
        """
        self.app = app
        self.audit: Audit[Environ] = Audit() if audit is None else audit
        self._store = _StoreOf(store)
        self._coverage = Coverage(self.audit)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, as WSGI has it."""
        store = environ[_STORE] = self._store.here()
        whole, path = _path(environ, "SCRIPT_NAME", "PATH_INFO"), _path(environ, "PATH_INFO")
        method = environ["REQUEST_METHOD"]
        spellings = [path] if path == whole else [path, whole]
        covers, audit = self._coverage.covers(method, *spellings), self.audit
        if not covers or (audit.filter_before is not None and not audit.filter_before(environ)):
            return self.app(environ, start_response)
        query, client = environ.get("QUERY_STRING", ""), environ.get("REMOTE_ADDR") or None
        exchange = Exchange(method, whole, query, client, list(_headers(environ)))
        trail = Trail(audit, cast("Any", _Awaited(store)), environ, exchange)
        if result_of(trail.intend()) is not None:
            return _refuse(start_response, NOT_DONE)
        if exchange.request_body is not None:
            environ["wsgi.input"] = _Input(environ, exchange.request_body)
        return _Audited(trail, audit.is_before, start_response).run(self.app, environ)


class _StoreOf:
    """The store of a process, opened when it is first asked for."""

    def __init__(self, source: SyncStore | Callable[[], SyncStore]) -> None:
        if not isinstance(source, SyncStore) and not callable(source):
            raise TypeError(
                "the store is a SyncStore or a function that opens one, not "
                f"{type(source).__name__}; write lambda: aquipu.sync.open(path)"
            )
        self._source = source
        self._opened: dict[int, SyncStore] = {}  # by process: a child has that of its parent, too
        self._locks: dict[int, Lock] = {}

    def here(self) -> SyncStore:
        source, process = self._source, getpid()
        if isinstance(source, SyncStore):
            return source
        store = self._opened.get(process)
        if store is None:
            with self._locks.setdefault(process, Lock()):
                store = self._opened.get(process)
                if store is None:
                    store = self._opened[process] = source()
                    register(self._close, process)
        return store

    def _close(self, process: int) -> None:
        """Close the store of a process at its exit, and not at that of a child."""
        if process == getpid():
            self._opened.pop(process).close()


class _Awaited:
    """A store as `Trail` sees it: what it awaits is done before it is awaited."""

    def __init__(self, store: SyncStore) -> None:
        self._store = store
        self.append_nowait = store.append_nowait

    async def append(self, data: bytes, **options: Any) -> Receipt:
        return self._store.append(data, **options)


def _refuse(start_response: StartResponse, text: str) -> list[bytes]:
    """Begin a 503 with this text, which is ASCII; return its body."""
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
    start_response("503 Service Unavailable", headers)
    return [text.encode()]


class _Withheld(Exception):
    """Raised in the application when its response is not sent."""


class _Audited:
    """One request on its way: stands between the server and the application."""

    def __init__(
        self, trail: Trail[Environ], is_before: bool, start_response: StartResponse
    ) -> None:
        self.exchange = trail.exchange
        self.is_withheld = False
        self._trail = trail
        self._is_before = is_before
        self._start_response = start_response
        self._held: tuple[Any, ...] | None = None  # start of a response, until its entry is there
        self._write: Callable[[bytes], object] | None = None  # the server's, from that on
        self._is_over = False
        self._context = copy_context()  # of the handler, from its response on

    def run(self, app: WSGIApplication, environ: Environ) -> Iterable[bytes]:
        try:
            given = app(environ, self.start)
        except _Withheld:
            given = []
        except BaseException as error:
            self.raised(error)
            raise
        if self._held is not None and self.exchange.response_body is None:
            self.admit()
        # servers take the length of a body from that of a sequence
        kind = _Response if not isinstance(given, list | tuple) else _Pieces
        return kind(self, given)

    # what the application calls

    def start(
        self, status: str, headers: Any, exc_info: Any = None, /
    ) -> Callable[[bytes], object]:
        if self.is_withheld:
            raise _Withheld
        if exc_info:
            self.exchange.error = exc_info[1]
        elif self._held is not None:
            raise AssertionError("start_response was called again without exc_info")
        start = (status, headers, exc_info) if exc_info else (status, headers)
        if self._write is not None:
            self._write = self._start_response(*start)  # raises if the head has been sent
        else:
            self._held = start
        self._context = copy_context()
        self.exchange.respond(int(status[:3]), list(headers))
        if not self._is_before:
            self._pass_on()
        return self.write

    def write(self, data: bytes) -> None:
        self.feed(data)
        if not self.admit():
            raise _Withheld
        assert self._write is not None
        self._write(data)

    # what becomes of the response

    def feed(self, data: bytes) -> None:
        if self.exchange.response_body is not None:
            self.exchange.response_body.feed(data)

    def admit(self) -> bool:
        """Have the response begin when its entry is stored; return whether it may."""
        if self._held is not None:
            if self._context.run(result_of, self._trail.record()) is None:
                self._pass_on()
            else:
                self.is_withheld, self._held = True, None
                _refuse(self._start_response, UNRECORDED)
        return not self.is_withheld

    def _pass_on(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self._write = self._start_response(*held)

    def completed(self) -> None:
        """Note that the application has given its whole response."""
        self.exchange.is_complete = True
        if self.exchange.response_body is not None:
            self.exchange.response_body.is_whole = True
        self.admit()

    def raised(self, error: BaseException) -> None:
        """Store what an application that has raised has come to."""
        if self.is_withheld or self._is_over:
            return
        self._is_over = True
        if self._held is not None:
            self._held = None
            self.exchange.take_back()
        if isinstance(error, Exception):
            self.exchange.error = error
            self._context.run(result_of, self._trail.end())
        else:
            self.exchange.cancelled = True
            self._context.run(self._trail.end_nowait)

    def closed(self) -> None:
        """Store what is known at the end. The server takes nothing more."""
        if self.is_withheld or self._is_over:
            return
        self._is_over = True
        exchange = self.exchange
        if not exchange.is_complete:
            exchange.is_complete = exchange.method == "HEAD"  # of which no body is wanted
            exchange.disconnected = not exchange.is_complete
        failure = self._context.run(result_of, self._trail.end())
        if failure is not None:
            raise failure


class _Response:
    """The body of a response, as the server takes it."""

    def __init__(self, audited: _Audited, given: Iterable[bytes]) -> None:
        self._audited = audited
        self._given = given
        self._pieces: Iterator[bytes] | None = None
        self._is_at_end = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        audited = self._audited
        if audited.is_withheld or self._is_at_end:
            return self._withheld()
        try:
            if self._pieces is None:
                self._pieces = iter(self._given)
            piece = next(self._pieces)
        except StopIteration:
            self._is_at_end = True
            audited.completed()
            if audited.is_withheld:
                self._is_at_end = False
            return self._withheld()
        except _Withheld:
            return self._withheld()
        except BaseException as error:
            audited.raised(error)
            raise
        audited.feed(piece)
        return piece if audited.admit() else self._withheld()

    def _withheld(self) -> bytes:
        """Return the body of a response that is withheld; StopIteration when there is none."""
        if self._is_at_end or not self._audited.is_withheld:
            raise StopIteration
        self._is_at_end = True
        return UNRECORDED.encode()

    def close(self) -> None:
        """Close what the application has given, and store how it ended. The server calls it."""
        try:
            close = getattr(self._given, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            self._audited.raised(error)
            raise
        self._audited.closed()


class _Pieces(_Response):
    """Of a response whose body has a known number of pieces."""

    def __len__(self) -> int:
        return 1 if self._audited.is_withheld else len(cast("list[bytes]", self._given))


class _Input:
    """The body of a request: what the application reads of it is seen."""

    def __init__(self, environ: Environ, body: Body) -> None:
        self._input = environ["wsgi.input"]
        self._body = body
        length = environ.get("CONTENT_LENGTH") or ""
        self._length = int(length) if length.isdecimal() else None
        has_none = (
            not environ.get("HTTP_TRANSFER_ENCODING")
            if self._length is None and environ.get("SERVER_PROTOCOL", "").startswith("HTTP/1")
            else self._length == 0
        )
        body.is_whole = has_none  # by the head; later versions of HTTP need not say it there

    def _seen(self, data: bytes, *, is_end: bool) -> bytes:
        self._body.feed(data)
        self._body.is_whole |= is_end or self._body.bytes == self._length
        return data

    def read(self, *size: int) -> bytes:
        data = self._input.read(*size)
        is_all = not size or size[0] < 0
        return self._seen(data, is_end=is_all or (not data and size[0] > 0))

    def readline(self, *size: int) -> bytes:
        line = self._input.readline(*size)
        return self._seen(line, is_end=not line and size != (0,))

    def readlines(self, hint: int = -1, /) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")


def _path(environ: Environ, *names: str) -> str:
    """Return parts of a path, decoded: WSGI has bytes as Latin-1."""
    return (
        "".join(environ.get(name, "") for name in names)
        .encode("latin-1", "replace")
        .decode("utf-8", "replace")
    )


def _headers(environ: Environ) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name[5:].replace("_", "-"), value
        elif name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
            yield name.replace("_", "-"), value
