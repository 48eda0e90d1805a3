"""A store in aiohttp's server, opened with the application, that can audit its requests.

``pip install -e '.[aiohttp]'`` in a checkout.

::

    app = web.Application()
    app.cleanup_ctx.append(opened("audit", sync_policy=Always()))
    audit_requests(app, Audit(rules=[Rule("POST", "/documents/*")]))

    async def history(request: web.Request) -> web.Response:
        store = request.app[STORE]  # in an application below this one: request.config_dict[STORE]

What is audited when is said in `aquipu.contrib.audit`; here it means: a response that a handler
returns goes out when its entry is stored, and so does the start of one that a handler prepares
itself to write to it piece by piece. aiohttp gives no way to see the bytes of such a response, nor
those of a request body that a handler takes piece by piece (or as multipart): of them ``bytes`` is
told, and they are ``truncated``. A WebSocket is a request whose response has the status 101; with
``websockets=True`` a second entry has the code with which the client closed it, or answered when
the service did.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from aquipu import Receipt, Store
from aquipu.contrib.audit import Audit, Coverage, Trail
from aquipu.contrib.auditing.action import Auditing, record_action
from aquipu.contrib.auditing.trail import NOT_DONE, UNRECORDED
from aquipu.contrib.shared.entry import Body, Exchange
from aquipu.contrib.shared.idempotency import idempotency_key
from aquipu.contrib.shared.opener import AnyStore, Source, opener_for, opener_of
from aquipu.contrib.shared.underway import requests_of

__all__ = ["STORE", "audit_requests", "idempotency_key", "opened", "record"]

STORE: web.AppKey[Store] = web.AppKey("aquipu.store", Store)
"""Where the store is in the application."""


def _request_key(name: str) -> Any:
    """Return a key for requests: aiohttp has a type for it since 3.14, and warns of strings."""
    kind = getattr(web, "RequestKey", None)
    return name if kind is None else kind(name, object)


_TRAIL = _request_key("aquipu.trail")
_WITHHELD = _request_key("aquipu.withheld")
_AUDITING = _request_key("aquipu.auditing")


def opened(
    source: Source, *, key: web.AppKey[Any] = STORE, **options: Any
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a context for ``app.cleanup_ctx`` that opens a store for the application.

    It is opened before the application serves, and closed, synced, when it has stopped.

    ``source`` is the path of the store, opened with ``options`` as by ``Store.open``, or a function
    that makes what is entered: ``lambda: Store.connect("unix:PATH")``, where several processes
    serve. What comes after it in ``cleanup_ctx`` begins when the store is open, and ends before it
    is closed.

    Raises TypeError or ValueError at once for an option that cannot be. When the application
    starts, whatever opening raises keeps it from serving; a store that another process is still
    writing is waited for (``lock_timeout``). When it stops, audited requests that its server has
    just cancelled are waited for, a second at most: their entries are in the store when that is
    closed.
    """
    opener = opener_of(source, options)

    async def context(app: web.Application) -> AsyncIterator[None]:
        async with opener_for(app, key, opener, is_default=key is STORE)() as store:
            app[key] = store
            try:
                yield
            finally:
                await requests_of(store).ended()

    return context


def audit_requests(
    app: web.Application, audit: Audit[web.Request] | None = None, *, key: web.AppKey[Any] = STORE
) -> None:
    """Store an entry for each request of this application that ``audit`` covers.

    Requests of the applications below it are included.

    Call it before the application starts and after its middlewares are set: it stands before all of
    them, so what they do to a response is in the entry.
    """
    auditor = _Auditor(app, Audit() if audit is None else audit, key)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await auditor.handle(request, handler)

    app.middlewares.insert(0, middleware)
    app.on_response_prepare.append(auditor.prepare)
    app.on_cleanup.append(auditor.cleanup)


async def record(
    request: web.Request,
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
    if _AUDITING not in request:
        raise RuntimeError(
            "this application is not audited, so nothing says what is recorded of whom: "
            "audit_requests(app, Audit(...))"
        )
    key, auditing = request[_AUDITING]
    return await record_action(
        auditing,
        _store_of(request, key),
        request,
        _exchange(request),
        action=action,
        actor=actor,
        relations=relations,
        details=details,
    )


class _Auditor:
    """Stands between the server and the handlers."""

    def __init__(
        self, app: web.Application, audit: Audit[web.Request], key: web.AppKey[Any]
    ) -> None:
        self._app = app
        self._audit = audit
        self._key = key
        self._unaudited = key, Auditing(audit)
        self._coverage = Coverage(audit)

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        audit = self._audit
        request[_AUDITING] = self._unaudited
        if not self._coverage.covers(request.method, *_spellings(request, self._app)):
            return await handler(request)
        if audit.filter_before is not None and not audit.filter_before(request):
            return await handler(request)
        store = _store_of(request, self._key)
        with requests_of(store):
            trail = request[_TRAIL] = Trail(audit, store, request, _exchange(request))
            request[_AUDITING] = self._key, Auditing(audit, trail.exchange.id)
            if trail.exchange.request_body is not None:
                trail.exchange.request_body.is_whole = not request.body_exists
            return await self._audited(trail, request, handler)

    async def _audited(
        self, trail: Trail[web.Request], request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            if await trail.intend() is not None:
                raise web.HTTPServiceUnavailable(text=NOT_DONE)
            response = await self._respond(trail, request, await _answer(request, handler))
        except web.HTTPException:
            raise
        except Exception as error:
            trail.exchange.error = error
            await _note_request(trail.exchange, request)
            await trail.end()
            raise
        except BaseException:
            trail.exchange.cancelled = True
            _note_connection(trail.exchange, request)
            trail.end_nowait()
            raise
        failure = await trail.end()
        if failure is not None:
            raise failure
        if isinstance(response, web.HTTPException):
            raise response
        return response

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Store the entry of a response that its handler sends itself, before it is sent."""
        trail: Trail[web.Request] | None = request.get(_TRAIL)
        if trail is not None and self._audit.is_before and trail.is_due:
            await _admit(trail, request, response)

    async def cleanup(self, app: web.Application) -> None:
        """Name the rules that have matched nothing: no more requests come."""
        self._coverage.say()

    async def _respond(
        self, trail: Trail[web.Request], request: web.Request, response: web.StreamResponse
    ) -> web.StreamResponse:
        """Return what goes on to the server, when it may, for the handler's response."""
        if _WITHHELD in request:  # also if the handler has not heeded it
            raise request[_WITHHELD]
        if self._audit.is_before and trail.is_due and isinstance(response, web.Response):
            await _admit(trail, request, response)
        # after the response; or what that is (of a file: 206, 304, 404) is known when it is
        # prepared
        elif trail.is_due or self._closes(response):
            return await _send(trail, request, response)
        trail.exchange.is_complete = True
        return response

    def _closes(self, response: web.StreamResponse) -> bool:
        """Return whether the entry of a response says how it was closed."""
        return self._audit.websockets and isinstance(response, web.WebSocketResponse)


def _store_of(request: web.Request, key: web.AppKey[Any]) -> AnyStore:
    try:
        store: AnyStore = request.config_dict[key]
    except KeyError:
        raise RuntimeError(
            f"there is no {key} in this application: "
            "app.cleanup_ctx.append(opened(...)) puts it there at startup"
        ) from None
    return store


async def _admit(
    trail: Trail[web.Request], request: web.Request, response: web.StreamResponse
) -> None:
    """Returns when the response may begin. Raises a 503 in its place."""
    await _note(trail.exchange, request, response)
    if await trail.record() is not None:
        withheld = request[_WITHHELD] = web.HTTPServiceUnavailable(text=UNRECORDED)
        if response.prepared:
            _write_alike(withheld, response)
        raise withheld


def _write_alike(withheld: web.Response, response: web.StreamResponse) -> None:
    """Write a response as the withheld one would be: the connection's writer is set up for that."""
    if response.headers.get(hdrs.TRANSFER_ENCODING) == "chunked":
        withheld.enable_chunked_encoding()
    if response.compression and not isinstance(response, web.Response):
        withheld.headers[hdrs.CONTENT_ENCODING] = response.headers[hdrs.CONTENT_ENCODING]


async def _send(
    trail: Trail[web.Request], request: web.Request, response: web.StreamResponse
) -> web.StreamResponse:
    """Do with the response what the server would do next."""
    with suppress(ConnectionError):  # the client has left
        await response.prepare(request)
        await response.write_eof()
        trail.exchange.is_complete = True
    await _note(trail.exchange, request, response)
    return _Sent(response) if isinstance(response, web.FileResponse) else response


class _Sent(web.StreamResponse):
    """A file that has been sent.

    Any other response is prepared once, but a file would be sent again by the server.
    """

    def __init__(self, response: web.StreamResponse) -> None:
        super().__init__(status=response.status, reason=response.reason)
        self._response = response

    @property
    def keep_alive(self) -> bool | None:
        return self._response.keep_alive

    @property
    def body_length(self) -> int:
        return self._response.body_length

    async def prepare(self, request: Any) -> None:
        pass

    async def write_eof(self, data: bytes = b"") -> None:
        pass


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:  # which is a response
        return error
    except ExceptionGroup as errors:  # of a handler that has prepared its response in a task group
        withheld: web.Response | None = request.get(_WITHHELD)
        if withheld is None or errors.split(lambda error: error is withheld)[1] is not None:
            raise
        return withheld


def _spellings(request: web.Request, app: web.Application) -> list[str]:
    """Return the path as the routes of this application have it, and as the client wrote it."""
    path = getattr(
        request.rel_url, "path_safe", request.path
    )  # an escaped slash is none in it, as for the router
    prefix = _prefix_of(app, request)
    whole = [path, request.path]
    return [spelling.removeprefix(prefix) for spelling in whole] + (whole if prefix else [])


def _prefix_of(app: web.Application, request: web.Request) -> str:
    """Return the prefix, from the beginning of the path, under which the application is mounted."""
    for above in request.match_info.apps:
        if above is app:
            break
        for resource in above.router.resources():
            about = resource.get_info()
            if about.get("app") is app:
                return unquote(about.get("prefix", ""))
    return ""


def _exchange(request: web.Request) -> Exchange:
    return Exchange(
        request.method,
        request.path,
        request.rel_url.raw_query_string,
        request.remote,
        list(request.headers.items()),
    )


async def _note(exchange: Exchange, request: web.Request, response: web.StreamResponse) -> None:
    """Note what is to be seen of the request and the response when the response is made."""
    headers = list(response.headers.items())
    if not response.prepared:
        headers += [
            (hdrs.SET_COOKIE, cookie.OutputString()) for cookie in response.cookies.values()
        ]
    exchange.respond(response.status, headers)
    if isinstance(response, web.WebSocketResponse):
        exchange.close_code = response.close_code
    await _note_request(exchange, request)
    if exchange.response_body is not None and isinstance(response, web.Response):
        _note_response_body(exchange.response_body, response)


async def _note_request(exchange: Exchange, request: web.Request) -> None:
    _note_connection(exchange, request)
    body, content = exchange.request_body, request.content
    if body is not None and not body.is_whole and content.at_eof() and content.exception() is None:
        body.feed(await request.read())  # which is there, or was taken piece by piece and is empty
        body.bytes = content.total_bytes
        body.is_whole = True


def _note_response_body(seen: Body, response: web.Response) -> None:
    body = response.body
    if body is None or isinstance(body, bytes | bytearray):
        seen.feed(body or b"")
        seen.is_whole = True


def _note_connection(exchange: Exchange, request: web.Request) -> None:
    transport = request.transport
    exchange.disconnected = transport is None or transport.is_closing()
