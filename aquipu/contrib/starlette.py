"""A store in Starlette and FastAPI, opened with the application, that can audit its requests.

``pip install -e '.[fastapi]'`` in a checkout, or ``.[starlette]``.

::

    app = FastAPI(lifespan=lifespan("audit", sync_policy=Always()))
    app.add_middleware(AuditMiddleware, audit=Audit(rules=[Rule("POST", "/documents/*")]))

    @app.get("/documents/{number}")
    async def history(number: int, store: Annotated[Store, Depends(get_store)]) -> list[str]: ...

The store is in the state of the lifespan, as ``store``: every request and WebSocket has it in
``request.state``. With a lifespan of your own you can do without the one here: open the store in
it, and yield ``{"store": store}``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, TypedDict, cast

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from aquipu import Receipt, Store
from aquipu.contrib.audit import Audit, Coverage, Trail
from aquipu.contrib.auditing.action import Auditing, record_action
from aquipu.contrib.auditing.asgi import AuditedRequest
from aquipu.contrib.auditing.sockets import AuditedSocket
from aquipu.contrib.shared.entry import Exchange
from aquipu.contrib.shared.idempotency import idempotency_key
from aquipu.contrib.shared.opener import Source, opener_for, opener_of
from aquipu.contrib.shared.redaction import headers_of
from aquipu.contrib.shared.underway import requests_of

__all__ = ["AuditMiddleware", "State", "get_store", "idempotency_key", "lifespan", "record"]

_AUDITING = "aquipu.auditing"  # in the scope of a request: name of the store, and the audit


class State(TypedDict):
    """What the lifespan yields.

    A request that is annotated as ``Request[State]`` has it in its ``state``, typed.
    """

    store: Store


def lifespan(
    source: Source, own: Lifespan[Any] | None = None, *, name: str = "store", **options: Any
) -> Callable[[Any], AbstractAsyncContextManager[State]]:
    """Return a lifespan that opens a store for the application.

    It is opened before the application serves, and closed, synced, when it has stopped.

    Args:
        source: the path of the store, opened with ``options`` as by ``Store.open``; or a function
            that makes what is entered: ``lambda: Store.connect("unix:PATH")``, where several
            processes serve.
        own: the application's own lifespan: it begins when the store is open and ends before it is
            closed, and its state is part of the state.
        name: what the store is called in the state. Another store is another lifespan around this
            one.

    Raises TypeError or ValueError at once for an option that cannot be. When the application
    starts, whatever opening raises keeps it from serving; a store that another process is still
    writing is waited for (``lock_timeout``). When it stops, audited requests that its server has
    just cancelled are waited for, a second at most: their entries are in the store when that is
    closed.
    """
    opener = opener_of(source, options)

    @asynccontextmanager
    async def opened(app: Any) -> AsyncIterator[State]:
        opens = opener_for(app, name, opener, is_default=name == "store")
        async with opens() as store, nullcontext() if own is None else own(app) as more:
            try:
                yield cast("State", {**(more or {}), name: store})
            finally:
                await requests_of(store).ended()

    return opened


async def get_store(connection: HTTPConnection) -> Store:
    """Return the store that the lifespan has opened.

    Use it as ``Annotated[Store, Depends(get_store)]``, or ``await get_store(request)``.

    It is a RemoteStore if that is what the lifespan was given. For a WebSocket it serves as well.
    An endpoint that is a plain ``def`` runs in a worker thread, where nothing can be awaited:
    ``anyio.from_thread.run(store.append, data)``. Raises RuntimeError when there is none, and says
    why that may be.
    """
    return _store_in(connection.scope, "store")


def _store_in(scope: Scope, name: str) -> Store:
    try:
        return cast("Store", scope["state"][name])
    except KeyError:
        raise RuntimeError(
            f"there is no {name!r} in the state of this application: give it "
            f"lifespan=lifespan(...), or yield {{{name!r}: store}} from its own lifespan, and have "
            "that run (a TestClient runs it when it is entered)"
        ) from None


async def record(
    connection: HTTPConnection,
    action: str,
    *,
    actor: object = None,
    relations: Iterable[str] = (),
    **details: object,
) -> Receipt | None:
    """Store an entry for what is no request of its own: a login, an approval, an export.

    ``await record(request, action="login", actor=user.id, method="password")``. The entry has the
    ``action``, the ``details``, what is known of the request, and the ``request_id`` of that, if it
    is audited. Labels, actor and what is left out are as the `Audit` of the application says.

    Args:
        action: what was done.
        actor: who did it, if the function of the audit cannot know that yet.
        relations: labels beside those that the audit gives.
        details: what else there is to say. Values whose names look as if they held a secret
            (``redacted_headers``), and those that look like credentials, are left out.

    Returns when the entry is at the stage of the policy. Raises what `Store.append` raises; with
    ``on_error="log"`` that is logged, and None is returned. RuntimeError where there is no audit,
    TypeError for an action that is no text.
    """
    scope = connection.scope
    if _AUDITING not in scope:
        raise RuntimeError(
            "this application has no AuditMiddleware, which says what is recorded of whom: "
            "app.add_middleware(AuditMiddleware, audit=Audit(...))"
        )
    name, auditing = scope[_AUDITING]
    return await record_action(
        auditing,
        _store_in(scope, name),
        connection,
        _exchange(scope),
        action=action,
        actor=actor,
        relations=relations,
        details=details,
    )


class AuditMiddleware:
    """Pure ASGI middleware: stores an entry for each request that ``audit`` covers.

    Nothing is buffered: what passes, passes at once, but for the start of a response as long as
    that waits for its entry. WebSockets are audited if the audit says so (``websockets``): its
    functions get an ``HTTPConnection`` then, and one whose entry cannot be stored is refused. Of a
    request body is seen what the application reads. ``name`` is what the store is called in the
    state of the lifespan.
    """

    def __init__(
        self, app: ASGIApp, audit: Audit[Request] | None = None, *, name: str = "store"
    ) -> None:
        self.app = app
        self.audit: Audit[Request] = Audit() if audit is None else audit
        self.name = name
        self._unaudited = name, Auditing(self.audit)
        self._coverage = Coverage(self.audit)
        self._root_path = _root_path_below(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        audit = self.audit
        if scope["type"] == "lifespan":
            try:
                return await self.app(scope, receive, send)
            finally:
                self._coverage.say()
        scope[_AUDITING] = self._unaudited
        is_socket = scope["type"] == "websocket"
        if (is_socket and not audit.websockets) or not self._coverage.covers(
            scope.get("method", "GET"), *self._spellings(scope)
        ):
            return await self.app(scope, receive, send)
        store = _store_in(scope, self.name)
        request = cast("Request", HTTPConnection(scope)) if is_socket else Request(scope)
        if audit.filter_before is not None and not audit.filter_before(request):
            return await self.app(scope, receive, send)
        with requests_of(store):
            trail = Trail(audit, store, request, _exchange(scope))
            scope[_AUDITING] = self.name, Auditing(audit, trail.exchange.id)
            if is_socket:
                socket = AuditedSocket(trail, audit.is_before, receive, send, scope)
                return await socket.run(self.app, scope)
            if trail.exchange.request_body is not None:
                trail.exchange.request_body.is_whole = _has_no_body(scope)
            audited = AuditedRequest(trail, audit.is_before, receive, send, scope.get("app"))
            return await audited.run(self.app, scope)

    def _spellings(self, scope: Scope) -> list[str]:
        """Return the path as the router sees it, and what else would lead to the same handler."""
        whole = scope["path"]
        path = _route_path(whole, self._root_path or scope.get("root_path", ""))
        spellings = [path] if path == whole else [path, whole]
        if whole.endswith(
            "\n"
        ):  # the pattern of a route ends with `$`, which matches before it too
            spellings += [spelling[:-1] for spelling in spellings]
        return spellings


def _root_path_below(app: Any) -> str:
    """Return the root path that a FastAPI below will set; other middleware may stand between."""
    while app is not None and not hasattr(app, "root_path"):
        app = getattr(app, "app", None)
    return getattr(app, "root_path", "")


def _route_path(path: str, root_path: str) -> str:
    """Return what Starlette's router takes for the path: without the root path it begins with."""
    rest = path.removeprefix(root_path)
    return rest if not rest or rest.startswith("/") else path


def _has_no_body(scope: Scope) -> bool:
    """Return whether the head of a request says that nothing follows.

    Later versions of HTTP need not say it there.
    """
    headers = dict(scope["headers"])
    length = headers.get(b"content-length")
    if length is None:
        return b"transfer-encoding" not in headers and scope.get("http_version", "").startswith("1")
    return not length.strip(b"0")


def _exchange(scope: Scope) -> Exchange:
    client = scope.get("client")
    return Exchange(
        scope.get("method", "GET"),  # of a WebSocket
        scope["path"],
        scope.get("query_string", b"").decode("latin-1"),
        client[0] if client else None,
        headers_of(scope["headers"]),
    )
