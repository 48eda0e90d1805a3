"""A WebSocket of an ASGI application that is audited: what stands between it and the server.

Its first entry says that it was accepted (status 101) or refused, its supplement how it was closed.
"""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aquipu.contrib.auditing.asgi import Withheld, is_only_withheld
from aquipu.contrib.auditing.trail import NOT_DONE, UNRECORDED, Trail
from aquipu.contrib.shared.redaction import headers_of

_ACCEPTED, _REFUSED, _UNAVAILABLE = 101, 403, 503
_NORMAL, _NO_CODE, _TRY_AGAIN_LATER = 1000, 1005, 1013  # codes of RFC 6455


class AuditedSocket:
    """One WebSocket on its way."""

    __slots__ = (
        *("_can_answer", "_exchange", "_is_before", "_is_withheld"),
        *("_receive", "_send", "_trail"),
    )

    def __init__(
        self, trail: Trail[Any], is_before: bool, receive: Receive, send: Send, scope: Scope
    ) -> None:
        self._trail = trail
        self._exchange = trail.exchange
        self._exchange.request_body = self._exchange.response_body = None
        self._is_before = is_before
        self._is_withheld = False
        self._receive = receive
        self._send = send
        self._can_answer = "websocket.http.response" in (scope.get("extensions") or {})

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            if await self._trail.intend() is None:
                await app(scope, self.receive, self.send)
            else:
                await self._withhold(NOT_DONE)
        except Exception as error:
            if is_only_withheld(error):
                return
            if not self._is_withheld:
                self._exchange.error = error
                await self._trail.end()
            raise
        except BaseException:
            self._exchange.cancelled = True
            self._trail.end_nowait()
            raise
        if not self._is_withheld:
            failure = await self._trail.end()
            if failure is not None:
                raise failure

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._close(message.get("code", _NO_CODE))
        return message

    async def send(self, message: Message) -> None:
        if self._is_withheld:
            raise Withheld
        exchange, kind = self._exchange, message["type"]
        if kind == "websocket.accept":
            await self._begin(_ACCEPTED, message)
        elif kind == "websocket.http.response.start":
            await self._begin(message["status"], message)
        elif kind == "websocket.http.response.body":
            exchange.is_complete = not message.get("more_body", False)
        elif kind == "websocket.close":
            if exchange.status is None:
                exchange.is_complete = True
                await self._begin(_REFUSED, message)
            else:
                self._close(message.get("code", _NORMAL))
        await self._send(message)

    def _close(self, code: int) -> None:
        """Note the code of whichever side has closed it first."""
        exchange = self._exchange
        exchange.is_complete = True
        if exchange.close_code is None:
            exchange.close_code = code

    async def _begin(self, status: int, message: Message) -> None:
        """Return when it may be accepted or refused; otherwise refuse it and raise."""
        self._exchange.respond(status, headers_of(message.get("headers", ())))
        if self._is_before and await self._trail.record() is not None:
            await self._withhold(UNRECORDED)
            raise Withheld

    async def _withhold(self, reason: str) -> None:
        self._is_withheld = True
        if not self._can_answer:  # the server answers with 403
            await self._send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        kind = "websocket.http.response"
        await self._send({"type": f"{kind}.start", "status": _UNAVAILABLE, "headers": headers})
        await self._send({"type": f"{kind}.body", "body": reason.encode()})
