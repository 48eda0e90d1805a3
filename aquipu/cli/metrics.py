"""The statistics and the health of a store over HTTP, while a command writes it.

============  ======================================================================================
``/metrics``  for Prometheus: see `aquipu.contrib.prometheus`. Beside the store stands what
              ``prometheus_client`` knows of any process: its memory, its open files, its CPU
``/healthz``  200 as long as the store takes records, 503 when it has failed or is being closed; the
              first line of the text is the state, each other one a reason (see `Store.health`)
============  ======================================================================================

Elsewhere is nothing (404). All of it can be asked by GET and HEAD, and nothing waits for the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from socket import AF_INET6, AI_PASSIVE, SOCK_STREAM, getaddrinfo
from socketserver import TCPServer, ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from aquipu.cli.streams.console import readable
from aquipu.cli.streams.missing import MissingPackageError
from aquipu.errors import StoreUnavailableError
from aquipu.store import Store

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_PORT_MAX = 65_535
_PATIENCE = 10.0  # seconds for a request to come
_TEXT = "text/plain; charset=utf-8"
_METHODS = ("GET", "HEAD")


class Place(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parsed(cls, text: str) -> Place:
        """``PORT``, ``HOST:PORT`` or ``[HOST]:PORT``; without a host only this machine is answered.

        Raises ValueError.
        """
        host, _, port = text.rpartition(":")
        if not port.isascii() or not port.isdigit() or int(port) > _PORT_MAX:
            raise ValueError(f"{text!r} is not [HOST:]PORT, such as 9464 or 0.0.0.0:9464")
        return cls(host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port))


@contextmanager
def served(store: Store, place: Place) -> Iterator[str]:
    """Serve metrics there until the end of the block, in threads of their own; give the address.

    Raises MissingPackageError, StoreUnavailableError.
    """
    try:
        import prometheus_client as client

        from aquipu.contrib.prometheus import exported
    except ModuleNotFoundError as error:
        raise MissingPackageError("metrics need", error.name, "prometheus") from None
    registry = (
        client.CollectorRegistry()
    )  # whatever the environment says of prometheus_client's own
    for collector in (client.ProcessCollector, client.PlatformCollector, client.GCCollector):
        collector(registry=registry)
    with exported(store, registry=registry):
        host = f"[{place.host}]" if ":" in place.host else place.host
        try:
            server = _server(place, _application(client.make_wsgi_app(registry), store))
        except OSError as error:
            raise StoreUnavailableError(
                f"{host}:{place.port}", "answer at", error.strerror or str(error)
            ) from error
        thread = Thread(target=server.serve_forever, name="aquipu-metrics", daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{server.server_port}/metrics"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _application(metrics: WSGIApplication, store: Store) -> WSGIApplication:
    """Return the application that answers requests."""
    pages: dict[str, WSGIApplication] = {"/metrics": metrics, "/healthz": _health(store)}

    def answer(environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        page = pages.get(environ["PATH_INFO"])
        if page is None:
            page = _page(HTTPStatus.NOT_FOUND, f"there are {' and '.join(pages)} here")
        elif environ["REQUEST_METHOD"] not in _METHODS:
            page = _page(
                HTTPStatus.METHOD_NOT_ALLOWED, "only to be read", ("Allow", ", ".join(_METHODS))
            )
        return _without_body_for_head(page, environ, start)

    return answer


def _without_body_for_head(
    page: WSGIApplication, environ: WSGIEnvironment, start: StartResponse
) -> list[bytes]:
    """Return the body of a page; for HEAD none, with the headers that they have for GET."""
    said: list[Any] = []

    def keep(status: str, headers: list[tuple[str, str]], *more: Any) -> Callable[[bytes], object]:
        said[:] = [status, headers]
        return said.append

    body = b"".join(page({**environ, "REQUEST_METHOD": "GET"}, keep))
    status, headers = said
    others = [(name, value) for name, value in headers if name.lower() != "content-length"]
    start(status, [*others, ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _page(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> WSGIApplication:
    def page(environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        start(
            f"{status.value} {status.phrase}",
            [("Content-Type", _TEXT), ("Cache-Control", "no-store"), *headers],
        )
        return [f"{readable(text)}\n".encode()]

    return page


def _health(store: Store) -> WSGIApplication:
    def page(environ: WSGIEnvironment, start: StartResponse) -> Any:
        health = store.health()
        status = (
            HTTPStatus.OK if health.state in ("ok", "degraded") else HTTPStatus.SERVICE_UNAVAILABLE
        )
        return _page(status, "\n".join([health.state, *health.reasons]))(environ, start)

    return page


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE

    def log_message(self, format: str, *words: Any) -> None:
        """Log nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind as the base class does, without looking up the name of this machine."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = (
            str(self.server_address[0]),
            int(self.server_address[1]),
        )
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error: the client has gone, or was too slow."""


class _Server6(_Server):
    address_family = AF_INET6


def _server(place: Place, application: WSGIApplication) -> _Server:
    family, *_ = getaddrinfo(place.host, place.port, type=SOCK_STREAM, flags=AI_PASSIVE)[0]
    kind = _Server6 if family == AF_INET6 else _Server
    return make_server(
        place.host, place.port, application, server_class=kind, handler_class=_Handler
    )
