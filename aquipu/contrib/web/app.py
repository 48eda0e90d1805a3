"""The application: every route in one table, with who answers it.

``app(store)`` is mounted into a service, or served by ``aquipu web STORE``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from time import time_ns
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aquipu import (
    AquipuError,
    BatchTooLargeError,
    ConflictError,
    CorruptionError,
    NoSuchRecordError,
    RecordPurgedError,
    RecordTooLargeError,
    StaleKeyError,
    Store,
    StoreFullError,
)
from aquipu.contrib.streaming.live import AnyLog, live_of
from aquipu.contrib.web.api import SECONDS_MAX, Api, Json
from aquipu.contrib.web.guard import Access, Guard
from aquipu.contrib.web.live import Live, live
from aquipu.contrib.web.monitoring import Monitoring
from aquipu.contrib.web.openapi import document
from aquipu.contrib.web.page import Page
from aquipu.contrib.web.queries import span_of
from aquipu.contrib.web.rates import Rates
from aquipu.contrib.web.standing import Standing

_CALLS = ("page", "scan", "follow", "get", "relations", "cursors")
"""What a log is known by: Readers of other engines are classes of their own."""
Answer = Callable[[Request], Awaitable[Response]]

_STATUS: tuple[tuple[type[AquipuError], int], ...] = (
    (RecordPurgedError, 410),
    (NoSuchRecordError, 404),
    (ConflictError, 409),
    (StaleKeyError, 409),
    (RecordTooLargeError, 413),
    (BatchTooLargeError, 413),
    (StoreFullError, 507),
    (CorruptionError, 500),
)


def app(
    store: AnyLog,
    *,
    token: str | None = None,
    write: bool = False,
    hosts: Collection[str] | None = None,
    protected_elsewhere: bool = False,
) -> Starlette:
    """Return the page and the API of a store, as an ASGI application.

    ``routes=[Mount("/audit", app(store))]``, or FastAPI's ``mount``. The store is opened and closed
    by the service, and read as long as that answers.

    Args:
        store: a Store, a RemoteStore or a Reader.
        token: that requests must carry (``Authorization: Bearer ...``), 16 characters or more.
            Without one, only this machine itself is answered, by a name of the loopback.
        write: whether records may be appended; a Reader cannot.
        hosts: the names by which the service may be called; without, with a token, any.
        protected_elsewhere: the service around this has a login of its own, so who comes this far
            may see the store. What another site makes a browser ask for is refused all the same.

    Raises TypeError or ValueError for what cannot be.
    """
    access = Access.checked(token, hosts, protected_elsewhere)
    if not all(hasattr(store, call) for call in _CALLS):
        raise TypeError(f"a store is a Store, RemoteStore or Reader, not {type(store).__name__}")
    if write and not isinstance(store, Store):
        raise TypeError("a Reader cannot write: give a Store, or one of Store.connect")
    page, standing = Page(), Standing(store, may_write=write)
    moments = Live(standing)
    open_paths = ["/", "", "/healthz", "/readyz", *(f"/static/{name}" for name in page.names)]
    made = Starlette(
        routes=[
            Route(path, answer, methods=[method])
            for method, path, answer in _table(page, standing, moments, may_write=write)
        ],
        middleware=[Middleware(Guard, access=access, open_paths=open_paths)],
        exception_handlers=_HANDLERS,
    )

    def end_streams() -> None:
        moments.end()
        live_of(store).end()

    made.state.end_streams = end_streams
    return made


def _table(
    page: Page, standing: Standing, moments: Live, *, may_write: bool
) -> list[tuple[str, str, Answer]]:
    """Return method, path and answer of each route."""
    api = Api(standing.store, may_write=may_write)
    monitoring, rates = Monitoring(standing), Rates(standing.store)

    async def status(request: Request) -> Response:
        async with api.questions.entered(SECONDS_MAX):
            return Json(await standing.overview())

    async def rate(request: Request) -> Response:
        span = span_of(request.query_params.multi_items(), time_ns())
        async with api.questions.entered(SECONDS_MAX):
            return Json(await rates.counts(span))

    async def at_work(request: Request) -> Response:
        return live(moments, request)

    async def openapi(request: Request) -> Response:
        return Json(document())

    return [
        ("GET", "/", page.index),
        ("GET", "/static/{name}", page.static),
        ("GET", "/api/status", status),
        ("GET", "/api/rate", rate),
        ("GET", "/api/live", at_work),
        ("GET", "/api/records", api.records),
        ("POST", "/api/records", api.append),
        ("GET", "/api/records/{sequence}", api.record),
        ("GET", "/api/records/{sequence}/data", api.data),
        ("GET", "/api/labels", api.labels),
        ("GET", "/api/events", api.follow),
        ("GET", "/api/openapi.json", openapi),
        ("GET", "/metrics", monitoring.metrics),
        ("GET", "/healthz", monitoring.healthz),
        ("GET", "/readyz", monitoring.readyz),
    ]


# errors


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Json({"error": error.detail}, error.status_code, error.headers)


async def _bad(request: Request, error: Exception) -> Response:
    return Json({"error": str(error)}, 400)


async def _failed(request: Request, error: Exception) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 503)
    return Json({"error": _readable(str(error)), "reason": type(error).__name__}, status)


def _readable(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


_HANDLERS: dict[Any, Any] = {HTTPException: _refused, ValueError: _bad, AquipuError: _failed}
