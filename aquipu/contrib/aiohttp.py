"""A store in aiohttp's server: opened with the application, at hand in its handlers, auditing its requests.

``pip install 'aquipu[aiohttp]'``.

::

    app = web.Application()
    app.cleanup_ctx.append(opened("audit", sync_policy=Always()))
    audit_requests(app, Audit(rules=[Rule("POST", "/documents/*")]))

    async def history(request: web.Request) -> web.Response:
        store = request.app[STORE]  # in an application below this one: request.config_dict[STORE]

What is audited when is told in `aquipu.contrib.audit`; here it means: a response that a handler returns goes out when
its entry is stored, and so does the start of one that a handler prepares itself to write to it piece by piece. aiohttp
gives no way to see the bytes of such a response, nor those of a request body that a handler takes piece by piece (or as
multipart): of them ``bytes`` is told, and they are ``truncated``. A WebSocket is a request whose response has the
status 101.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from aquipu import Store
from aquipu.contrib.audit import UNRECORDED, Audit, Trail
from aquipu.contrib.entry import Body, Exchange
from aquipu.contrib.opener import AnyStore, Source, opener_of
from aquipu.contrib.underway import requests_of

__all__ = ["STORE", "audit_requests", "opened"]

STORE: web.AppKey[Store] = web.AppKey("aquipu.store", Store)
"""Where the store is in the application."""


def _request_key(name: str) -> Any:
    """aiohttp has keys of their own for requests since 3.14, and warns of strings since then."""
    kind = getattr(web, "RequestKey", None)
    return name if kind is None else kind(name, object)


_TRAIL = _request_key("aquipu.trail")
_WITHHELD = _request_key("aquipu.withheld")


def opened(
    source: Source, *, key: web.AppKey[Any] = STORE, **options: Any
) -> Callable[[web.Application], AsyncIterator[None]]:
    """For ``app.cleanup_ctx``: opens a store before the application serves and closes it, synced, when it has stopped.

    ``source`` is the path of the store, opened with ``options`` as by ``Store.open``, or a function that makes what is
    entered: ``lambda: Store.connect("unix:PATH")``, where several processes serve. What comes after it in
    ``cleanup_ctx`` begins when the store is open, and ends before it is closed.

    Raises TypeError or ValueError at once for an option that cannot be. When the application starts, whatever opening
    raises keeps it from serving; a store that another process is still writing is waited for (``lock_timeout``).
    When it stops, audited requests that its server has just cancelled are waited for, a second at most: their entries are
    in the store when that is closed.
    """
    opener = opener_of(source, options)

    async def context(app: web.Application) -> AsyncIterator[None]:
        async with opener() as store:
            app[key] = store
            try:
                yield
            finally:
                await requests_of(store).ended()

    return context


def audit_requests(app: web.Application, audit: Audit[web.Request] | None = None, *, key: web.AppKey[Any] = STORE) -> None:
    """Store an entry for each request of this application, and of those below it, that ``audit`` covers.

    Call it before the application starts and after its middlewares are set: it stands before all of them, so what they
    do to a response is in the entry.
    """
    auditor = _Auditor(Audit() if audit is None else audit, key)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await auditor.handle(request, handler)

    app.middlewares.insert(0, middleware)
    app.on_response_prepare.append(auditor.prepare)


class _Auditor:
    """Stands between the server and the handlers."""

    def __init__(self, audit: Audit[web.Request], key: web.AppKey[Any]) -> None:
        self._audit = audit
        self._key = key

    async def handle(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        audit = self._audit
        if not audit.covers(request.method, request.path):
            return await handler(request)
        if audit.filter_before is not None and not audit.filter_before(request):
            return await handler(request)
        store = self._store(request)
        with requests_of(store):
            trail = request[_TRAIL] = Trail(audit, store, request, _exchange(request))
            return await self._audited(trail, request, handler)

    async def _audited(self, trail: Trail[web.Request], request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
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
        """A response is about to be sent; one that its handler sends itself has no entry yet."""
        trail: Trail[web.Request] | None = request.get(_TRAIL)
        if trail is not None and self._audit.is_before and trail.is_due:
            await _admit(trail, request, response)

    async def _respond(
        self, trail: Trail[web.Request], request: web.Request, response: web.StreamResponse
    ) -> web.StreamResponse:
        """The handler has given its response; returns what goes on to the server, when it may."""
        if _WITHHELD in request:  # also if the handler has not heeded it
            raise request[_WITHHELD]
        if self._audit.is_before and trail.is_due and isinstance(response, web.Response):
            await _admit(trail, request, response)
        elif trail.is_due:  # after the response; or what that is (of a file: 206, 304, 404) is known when it is prepared
            return await _send(trail, request, response)
        trail.exchange.is_complete = True
        return response

    def _store(self, request: web.Request) -> AnyStore:
        try:
            store: AnyStore = request.config_dict[self._key]
        except KeyError:
            raise RuntimeError(
                f"there is no {self._key} in this application: app.cleanup_ctx.append(opened(...)) puts it there at startup"
            ) from None
        return store


async def _admit(trail: Trail[web.Request], request: web.Request, response: web.StreamResponse) -> None:
    """Returns when the response may begin. Raises a 503 in its place."""
    await _note(trail.exchange, request, response)
    if await trail.record() is not None:
        withheld = request[_WITHHELD] = web.HTTPServiceUnavailable(text=UNRECORDED)
        if response.prepared:
            _write_alike(withheld, response)
        raise withheld


def _write_alike(withheld: web.Response, response: web.StreamResponse) -> None:
    """The writer of the connection has been set up for the response that is withheld, and has to serve for this one."""
    if response.headers.get(hdrs.TRANSFER_ENCODING) == "chunked":
        withheld.enable_chunked_encoding()
    if response.compression and not isinstance(response, web.Response):
        withheld.headers[hdrs.CONTENT_ENCODING] = response.headers[hdrs.CONTENT_ENCODING]


async def _send(trail: Trail[web.Request], request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Do with the response what the server would do next."""
    with suppress(ConnectionError):  # the client has left
        await response.prepare(request)
        await response.write_eof()
        trail.exchange.is_complete = True
    await _note(trail.exchange, request, response)
    return _Sent(response) if isinstance(response, web.FileResponse) else response


class _Sent(web.StreamResponse):
    """A file that has been sent. Any other response is prepared once, but a file would be sent again by the server."""

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


def _exchange(request: web.Request) -> Exchange:
    return Exchange(
        request.method, request.path, request.rel_url.raw_query_string, request.remote, list(request.headers.items())
    )


async def _note(exchange: Exchange, request: web.Request, response: web.StreamResponse) -> None:
    """What is to be seen of both when the response is made."""
    headers = list(response.headers.items())
    if not response.prepared:
        headers += [(hdrs.SET_COOKIE, cookie.OutputString()) for cookie in response.cookies.values()]
    exchange.respond(response.status, headers)
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
