"""A request of an ASGI application that is audited: what stands between it and the server."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aquipu.contrib.auditing.errorpage import ErrorPage
from aquipu.contrib.auditing.trail import NOT_DONE, UNRECORDED, Trail

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
        "_exchange",
        "_failure",
        "_held",
        "_is_before",
        "_is_withheld",
        "_page",
        "_receive",
        "_send",
        "_trail",
    )

    def __init__(
        self,
        trail: Trail[Request],
        is_before: bool,
        receive: Receive,
        send: Send,
        page: ErrorPage | None,
    ) -> None:
        self._trail = trail
        self._exchange = trail.exchange
        self._is_before = is_before
        self._receive = receive
        self._send = send
        self._page = page
        self._held: Message | None = (
            None  # the start of a response, until the first piece of its body
        )
        self._is_withheld = False
        self._failure: Exception | None = None  # after a response, which it could not keep back

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        try:
            if await self._trail.intend() is None:
                await app(scope, self.receive, self.send)
            else:
                await self._withhold(NOT_DONE)
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
            raise Withheld
        if message["type"] == "http.response.start":
            await self._start(message)
        elif message["type"] in _BODIES:
            await self._go_on(message)
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        self._exchange.respond(message["status"], decoded(message.get("headers", ())))
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
        """Return when the response may begin; otherwise send a 503 and raise."""
        if await self._trail.record() is not None:
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
        if self._page is not None and self._exchange.status is None:
            with suppress(
                Exception
            ):  # for want of an entry, or because the client has left, or it cannot be sent
                await self._page.show(scope, self.receive, self.send, error)
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


def decoded(headers: Any) -> list[tuple[str, str]]:
    """Return headers as text."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
