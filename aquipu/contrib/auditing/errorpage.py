"""The page that a client of Starlette or FastAPI gets when a handler has raised.

The application's function for it (a handler of ``Exception``, or of 500) is asked outside of all
middleware that an application adds, so what it gives was never seen there. So that its response is
audited like any other, it is made and sent where the audit stands. Starlette asks for it again
behind that, to throw it away, and gets one that costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, cast

from starlette.concurrency import run_in_threadpool
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_SHOWN = "aquipu.error_page"  # in the scope of a request: for which exception


class ErrorPage:
    """The application's function, in its place in the application."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self._handler = handler

    async def __call__(self, request: Request, error: Exception) -> Response:
        """Starlette asks for the page."""
        if request.scope.get(_SHOWN) is error:
            return Response(status_code=500)  # which is not sent: a response has begun
        return await self._response(request, error)

    async def show(self, scope: Scope, receive: Receive, send: Send, error: Exception) -> None:
        """Send the page.

        If the application fails at making it, nothing is sent, and Starlette finds out in its turn.
        """
        try:
            response = await self._response(Request(scope, receive), error)
        except Exception:
            return
        scope[_SHOWN] = error
        await response(scope, receive, send)

    async def _response(self, request: Request, error: Exception) -> Response:
        if _is_async(self._handler):
            response = await self._handler(request, error)
        else:
            response = await run_in_threadpool(self._handler, request, error)
        return cast("Response", response)


def error_page_of(app: Any) -> ErrorPage | None:
    """Return the error page of an application; None if it has none of its own."""
    outermost = getattr(app, "middleware_stack", None)
    if (
        not isinstance(outermost, ServerErrorMiddleware)
        or outermost.debug
        or outermost.handler is None
    ):
        return None
    if not isinstance(outermost.handler, ErrorPage):
        outermost.handler = ErrorPage(outermost.handler)
    return outermost.handler


def _is_async(function: Any) -> bool:
    while isinstance(function, partial):
        function = function.func
    called = getattr(function, "__call__", None)  # noqa: B004
    return iscoroutinefunction(function) or iscoroutinefunction(called)
