"""An object store that accepts every connection and says nothing, on a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socket import create_server, socket
from threading import Event, Thread
from typing import Any

from aquipu import Archive

URL = "s3://bucket/prefix"
SECONDS = 60.0
"""For what takes a moment, or a few seconds: a request that nobody answers takes minutes."""


class Silent:
    """It is asked, and does not answer."""

    def __init__(self, server: socket) -> None:
        self.asked = Event()
        """Set when a request has come."""
        self._server = server
        self._connections: list[socket] = []
        port = server.getsockname()[1]
        self.options: dict[str, Any] = {
            "endpoint": f"http://127.0.0.1:{port}",
            "region": "us-east-1",
            "access_key_id": "AKIAEXAMPLE",
            "secret_access_key": "secret-secret",
        }

    def archive(self) -> Archive:
        """Return the place of an archive there."""
        return Archive(URL, **self.options)

    @property
    def arguments(self) -> list[str]:
        """Options for a command that is to go there."""
        return [f"--option={name}={value}" for name, value in self.options.items()]

    def accept(self) -> None:
        """Take connections, until the server is closed."""
        with suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self._connections.append(connection)
                Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: socket) -> None:
        with suppress(OSError):
            while connection.recv(65536):
                self.asked.set()

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@contextmanager
def silent() -> Iterator[Silent]:
    """Run one, and hang up on everybody at the end."""
    with create_server(("127.0.0.1", 0)) as server:
        it = Silent(server)
        Thread(target=it.accept, daemon=True).start()
        try:
            yield it
        finally:
            it.close()
