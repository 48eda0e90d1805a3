"""A request of an ASGI application that is audited: what stands between it and the server."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aquipu.contrib.auditing.errorpage import error_page_of
from aquipu.contrib.auditing.trail import NOT_DONE, UNRECORDED, Trail
from aquipu.contrib.shared.redaction import headers_of

_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "http.response.pathsend"})


class Withheld(Exception):
    """Raised in the application when its response is not sent: it ends as if sending had failed."""


def is_only_withheld(error: Exception) -> bool:
    """Return whether all that was raised is that exception, by itself or out of task groups."""
    if isinstance(error, ExceptionGroup):
        return error.split(Withheld)[1] is None
    return isinstance(error, Withheld)


class AuditedRequest:
    """One request on its way: stands between the server and the application."""

    __slots__ = (
        "_app",
        "_exchange",
        "_failure",
        "_held",
        "_is_before",
        "_is_withheld",
        "_receive",
        "_send",
        "_trail",
    )

    def __init__(
        self, trail: Trail[Request], is_before: bool, receive: Receive, send: Send, app: Any
    ) -> None:
        self._trail = trail
        self._exchange = trail.exchange
        self._is_before = is_before
        self._receive = receive
        self._send = send
        self._app = app  # in which the audit stands: one below it puts itself into the scope
        self._held: Message | None = (
            None  # the start of a response, until the first piece of its body
        )
        self._is_withheld = False
        self._failure: Exception | None = None  # after a response, which it could not keep back

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            if self._trail.comes_first and await self._trail.intend() is not None:
                await self._withhold(NOT_DONE)
            else:
                await app(scope, self.receive, self.send)
        except Exception as error:
            if is_only_withheld(error):
                return
            await self._raised(error, scope)
            raise
        except BaseException:
            self._exchange.cancelled = True
            self._drop_held()
            self._trail.end_nowait()
            raise
        if not self._trail.is_over or self._failure is not None:
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
            raise Withheld
        kind, exchange = message["type"], self._exchange
        if kind == "http.response.start":
            exchange.respond(message["status"], headers_of(message.get("headers", ())))
            if self._is_before:
                if exchange.response_body is not None:
                    self._held = message
                    return
                if await self._trail.record() is not None:
                    await self._refuse()
        elif kind in _BODIES:
            self._see(message)
            if self._held is not None:
                await self._let_go(self._held)
        try:
            await self._send(message)
        except OSError:  # how a server says that the client has left
            exchange.disconnected, exchange.is_complete = True, False
            raise
        if exchange.is_complete and self._trail.is_due:
            self._failure = await self._trail.record()

    def _see(self, message: Message) -> None:
        """Note a piece of the response, and whether it is the last one."""
        exchange = self._exchange
        exchange.is_complete = not message.get("more_body", False)
        body = exchange.response_body
        if body is not None and message["type"] == "http.response.body":
            body.feed(message.get("body", b""))
            body.is_whole = exchange.is_complete

    async def _let_go(self, held: Message) -> None:
        """Send the start of a response that was held, when its entry is stored."""
        if await self._trail.record() is not None:
            await self._refuse()
        self._held = None
        await self._pass_on(held)

    async def _refuse(self) -> None:
        """Send a 503 in place of a response whose entry cannot be stored, and raise."""
        await self._withhold(UNRECORDED)
        raise Withheld

    async def _withhold(self, reason: str) -> None:
        self._is_withheld, self._held = True, None
        text = reason.encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
        ]
        await self._send({"type": "http.response.start", "status": 503, "headers": headers})
        await self._send({"type": "http.response.body", "body": text})

    async def _pass_on(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # how a server says that the client has left
            self._exchange.disconnected, self._exchange.is_complete = True, False
            raise

    async def _raised(self, error: Exception, scope: Scope) -> None:
        if self._is_withheld:
            return
        self._exchange.error = error
        self._drop_held()
        page = error_page_of(self._app)
        if page is not None and self._exchange.status is None:
            with suppress(
                Exception
            ):  # for want of an entry, or because the client has left, or it cannot be sent
                await page.show(scope, self.receive, self.send, error)
        if not self._is_withheld:
            await self._trail.end()

    async def _returned(self) -> None:
        if self._is_withheld:
            return
        failure = self._failure or await self._trail.end()
        if failure is None:
            if self._held is not None:
                await self._pass_on(self._held)
        elif self._held is not None:
            await self._withhold(UNRECORDED)
        else:
            raise failure

    def _drop_held(self) -> None:
        if self._held is not None:
            self._held = None
            self._exchange.take_back()
