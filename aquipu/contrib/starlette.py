"""A store in Starlette and FastAPI: opened with the application, at hand in its handlers, auditing its requests.

``pip install 'aquipu[fastapi]'``, or ``aquipu[starlette]``.

::

    app = FastAPI(lifespan=lifespan("audit", sync_policy=Always()))
    app.add_middleware(AuditMiddleware, audit=Audit(rules=[Rule("POST", "/documents/*")]))

    @app.get("/documents/{number}")
    async def history(number: int, store: Annotated[Store, Depends(get_store)]) -> list[str]: ...

The store is in the state of the lifespan, as ``store``: every request and WebSocket has it in ``request.state``. Who
writes a lifespan of their own can do without the one here: open the store in it, and yield ``{"store": store}``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, TypedDict, cast

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from aquipu import Store
from aquipu.contrib.audit import UNRECORDED, Audit, Trail
from aquipu.contrib.entry import Exchange
from aquipu.contrib.opener import Source, opener_of
from aquipu.contrib.underway import requests_of

__all__ = ["AuditMiddleware", "State", "get_store", "lifespan"]

_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "http.response.pathsend"})


class State(TypedDict):
    """What the lifespan yields. A request that is annotated as ``Request[State]`` has it in its ``state``, typed."""

    store: Store


def lifespan(
    source: Source, own: Lifespan[Any] | None = None, *, name: str = "store", **options: Any
) -> Callable[[Any], AbstractAsyncContextManager[State]]:
    """A lifespan that opens a store before the application serves and closes it, synced, when it has stopped.

    Args:
        source: the path of the store, opened with ``options`` as by ``Store.open``; or a function that makes what is
            entered: ``lambda: Store.connect("unix:PATH")``, where several processes serve.
        own: the application's own lifespan: it begins when the store is open and ends before it is closed, and its state
            is part of the state.
        name: what the store is called in the state. Another store is another lifespan around this one.

    Raises TypeError or ValueError at once for an option that cannot be. When the application starts, whatever opening
    raises keeps it from serving; a store that another process is still writing is waited for (``lock_timeout``).
    When it stops, audited requests that its server has just cancelled are waited for, a second at most: their entries are
    in the store when that is closed.
    """
    opener = opener_of(source, options)

    @asynccontextmanager
    async def opened(app: Any) -> AsyncIterator[State]:
        async with opener() as store, nullcontext() if own is None else own(app) as more:
            try:
                yield cast("State", {**(more or {}), name: store})
            finally:
                await requests_of(store).ended()

    return opened


async def get_store(connection: HTTPConnection) -> Store:
    """The store that the lifespan has opened: ``Annotated[Store, Depends(get_store)]``, or ``await get_store(request)``.

    It is a RemoteStore if that is what the lifespan was given. For a WebSocket it serves as well.
    Raises RuntimeError when there is none, and says why that may be.
    """
    return _store_in(connection.scope, "store")


def _store_in(scope: Scope, name: str) -> Store:
    try:
        return cast("Store", scope["state"][name])
    except KeyError:
        raise RuntimeError(
            f"there is no {name!r} in the state of this application: give it lifespan=lifespan(...), or yield "
            f"{{{name!r}: store}} from its own lifespan, and have that run (a TestClient runs it when it is entered)"
        ) from None


class AuditMiddleware:
    """Pure ASGI middleware: stores an entry for each request that ``audit`` covers.

    Nothing is buffered: what passes, passes at once, but for the start of a response as long as that waits for its entry.
    WebSockets and the lifespan are passed through, unaudited. Of a request body is seen what the application reads.
    ``name`` is what the store is called in the state of the lifespan.
    """

    def __init__(self, app: ASGIApp, audit: Audit[Request] | None = None, *, name: str = "store") -> None:
        self.app = app
        self.audit: Audit[Request] = Audit() if audit is None else audit
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        audit = self.audit
        if scope["type"] != "http" or not audit.covers(scope["method"], scope["path"]):
            return await self.app(scope, receive, send)
        store = _store_in(scope, self.name)
        request = Request(scope)
        if audit.filter_before is not None and not audit.filter_before(request):
            return await self.app(scope, receive, send)
        with requests_of(store):
            trail = Trail(audit, store, request, _exchange(scope))
            return await _Audited(trail, audit.is_before, receive, send).run(self.app, scope)


class _Withheld(Exception):
    """Raised in the application when its response is not sent: it ends as if sending had failed."""


class _Audited:
    """One request on its way: stands between the server and the application."""

    __slots__ = ("_exchange", "_failure", "_held", "_is_before", "_is_withheld", "_receive", "_send", "_trail")

    def __init__(self, trail: Trail[Request], is_before: bool, receive: Receive, send: Send) -> None:
        self._trail = trail
        self._exchange = trail.exchange
        self._is_before = is_before
        self._receive = receive
        self._send = send
        self._held: Message | None = None  # the start of a response, until the first piece of its body
        self._is_withheld = False
        self._failure: Exception | None = None  # after a response, which it could not keep back

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            await app(scope, self.receive, self.send)
        except _Withheld:
            pass
        except Exception as error:
            await self._raised(error)
            raise
        except BaseException:
            self._exchange.cancelled = True
            self._drop_held()
            self._trail.end_nowait()
            raise
        else:
            await self._returned()

    async def receive(self) -> Message:
        message = await self._receive()
        body = self._exchange.request_body
        if message["type"] == "http.disconnect":
            self._exchange.disconnected |= not self._exchange.is_complete
        elif body is not None:
            body.feed(message.get("body", b""))
            body.is_whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._is_withheld:
            raise _Withheld
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] in _BODIES:
            await self._go_on(message)
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        self._exchange.respond(message["status"], _decoded(message.get("headers", ())))
        if not self._is_before:
            await self._pass_on(message)
        elif self._exchange.response_body is not None:
            self._held = message
        else:
            await self._admit()
            await self._pass_on(message)

    async def _go_on(self, message: Message) -> None:
        exchange = self._exchange
        exchange.is_complete = not message.get("more_body", False)
        if exchange.response_body is not None and message["type"] == "http.response.body":
            exchange.response_body.feed(message.get("body", b""))
            exchange.response_body.is_whole = exchange.is_complete
        if self._held is not None:
            await self._admit()
            held, self._held = self._held, None
            await self._pass_on(held)
        await self._pass_on(message)
        if exchange.is_complete and self._trail.is_due:
            self._failure = await self._trail.record()

    async def _admit(self) -> None:
        """Returns when the response may begin; otherwise its client is told, and the application."""
        if await self._trail.record() is not None:
            await self._withhold()
            raise _Withheld

    async def _withhold(self) -> None:
        self._is_withheld, self._held = True, None
        text = UNRECORDED.encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(text))]
        await self._send({"type": "http.response.start", "status": 503, "headers": headers})
        await self._send({"type": "http.response.body", "body": text})

    async def _pass_on(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # how a server says that the client has left
            self._exchange.disconnected, self._exchange.is_complete = True, False
            raise

    async def _raised(self, error: Exception) -> None:
        if not self._is_withheld:
            self._exchange.error = error
            self._drop_held()
            await self._trail.end()

    async def _returned(self) -> None:
        if self._is_withheld:
            return
        failure = self._failure or await self._trail.end()
        if failure is None:
            if self._held is not None:
                await self._pass_on(self._held)
        elif self._held is not None:
            await self._withhold()
        else:
            raise failure

    def _drop_held(self) -> None:
        if self._held is not None:
            self._held = None
            self._exchange.take_back()


def _exchange(scope: Scope) -> Exchange:
    client = scope.get("client")
    return Exchange(
        scope["method"],
        scope["path"],
        scope.get("query_string", b"").decode("latin-1"),
        client[0] if client else None,
        _decoded(scope["headers"]),
    )


def _decoded(headers: Any) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
