"""The server of `aquipu web`: uvicorn, with bounds for clients that are slow, or many.

uvicorn waits for the head of a request as long as its client likes. So a connection without a
request is closed after `IDLE_SECONDS`, and when there are `CONNECTIONS_MAX`, the oldest of these
goes for the new one: whoever only holds connections open keeps nobody out. One that is ended, and
takes no more, is dropped with what was still on its way.
"""

from __future__ import annotations

from asyncio import BaseTransport, Future, TimerHandle, create_task, wait
from collections.abc import Iterator
from contextlib import contextmanager
from socket import AF_INET, AF_INET6, SOCK_STREAM, create_server, getaddrinfo, socket
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette

from aquipu.contrib.streaming.places import EXTENSION

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Protocol
else:
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Protocol
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol

CONNECTIONS_MAX = 2000
"""The most connections at a time."""
IDLE_SECONDS = 10.0
"""Seconds after which a connection without a request is closed, twice that at most."""
_BACKLOG = 512
_STOP_SECONDS = 3  # that answers under way may still take, and no stream


class Bounded(Protocol):
    """A connection."""

    _order: dict[Bounded, None]
    _look_at: TimerHandle | None = None
    _last: object = None  # the request that was under way at the last look
    _was_closing = False

    def connection_made(self, transport: BaseTransport) -> None:
        """Take it, in the place of another one if there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._order[self] = None
        if len(self._order) > CONNECTIONS_MAX:
            victim = next((one for one in self._order if one.is_idle), self)
            victim.transport.abort()
            self._order.pop(victim, None)
        self._look_at = self.loop.call_later(IDLE_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._order.pop(self, None)
        if self._look_at is not None:
            self._look_at.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a request; a stream that answers it may be written to directly."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self.write_directly}  # type: ignore[dict-item]

    def write_directly(self, piece: bytes) -> bool:
        """Send a piece of the response under way, as `streaming.places` says."""
        cycle = self.cycle
        if (
            cycle is None
            or not (cycle.response_started and cycle.chunked_encoding)
            or cycle.response_complete
            or cycle.disconnected
            or self.flow.write_paused
            or self.transport.is_closing()
        ):
            return False
        self.transport.write(piece)
        return True

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def _look(self) -> None:
        """Drop it if nothing has come of it since the last look."""
        closing = self.transport.is_closing()
        if (self.is_idle and self._last is self.cycle) or (closing and self._was_closing):
            self.transport.abort()
            return
        self._last, self._was_closing = (self.cycle if self.is_idle else self), closing
        self._look_at = self.loop.call_later(IDLE_SECONDS, self._look)


class _Server(uvicorn.Server):
    """Leaves signals to the command."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield


def listening(host: str, port: int) -> socket:
    """Return the socket at which the server answers; OSError when that cannot be."""
    family, *_ = getaddrinfo(host, port, type=SOCK_STREAM)[0]
    return create_server(
        (host, port), family=AF_INET6 if family == AF_INET6 else AF_INET, backlog=_BACKLOG
    )


def address_of(host: str, place: socket, path: str = "/") -> str:
    """Return what a browser is given."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{place.getsockname()[1]}{path}"


async def serve(application: Starlette, place: socket, stopped: Future[Any]) -> None:
    """Answer until it is told to stop, or cannot any more."""
    protocol = type("Bounded", (Bounded,), {"_order": {}})
    config = uvicorn.Config(
        application,
        http=protocol,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,  # an address holds labels
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    server = _Server(config)
    running = create_task(server.serve(sockets=[place]))
    await wait([running, stopped], return_when="FIRST_COMPLETED")
    application.state.end_streams()
    server.should_exit = True
    await running
