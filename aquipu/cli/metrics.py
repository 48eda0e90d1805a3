"""The statistics of a store over HTTP, for Prometheus, while a command writes it.

What is answered, and that the disk is not waited for, is in `aquipu.contrib.prometheus`. Beside it stand what
``prometheus_client`` knows of any process: its memory, its open files, its CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from aquipu.cli.app import MissingPackageError
from aquipu.errors import StoreUnavailableError
from aquipu.store import Store

_PORT_MAX = 65_535


class Place(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parsed(cls, text: str) -> Place:
        """``PORT``, ``HOST:PORT`` or ``[HOST]:PORT``; without a host only this machine is answered. Raises ValueError."""
        host, _, port = text.rpartition(":")
        if not port.isascii() or not port.isdigit() or int(port) > _PORT_MAX:
            raise ValueError(f"{text!r} is not [HOST:]PORT, such as 9464 or 0.0.0.0:9464")
        return cls(host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port))


@contextmanager
def served(store: Store, place: Place) -> Iterator[str]:
    """Answer there until the end of the block, in threads of their own; gives the address. Raises MissingPackageError,
    StoreUnavailableError."""
    try:
        from prometheus_client import start_http_server

        from aquipu.contrib.prometheus import exported
    except ModuleNotFoundError as error:
        raise MissingPackageError(f"metrics need {error.name}: pip install 'aquipu[prometheus]'") from None
    with exported(store):
        host = f"[{place.host}]" if ":" in place.host else place.host
        try:
            server, thread = start_http_server(place.port, place.host)
        except OSError as error:
            raise StoreUnavailableError(f"{host}:{place.port}", "answer at", error.strerror or str(error)) from error
        try:
            yield f"http://{host}:{server.server_port}/metrics"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
