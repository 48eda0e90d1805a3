"""A FastAPI application whose POSTs are audited under `Always`, in four workers of uvicorn.

The workers share the store, or append to it through a daemon (``aquipu serve``). Which of the two
stands in the environment: STORE is a path, or ``unix:`` and that of a socket.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from aquipu import Always
from benchmarks.audited import audited
from benchmarks.servers import LeftOut, end, free_port

WORKERS = 4
_STORE = "STORE"
_READY = b"Application startup complete"


@contextmanager
def serving(store: Path, socket: Path | None) -> Iterator[int]:
    """The service, for the time of the block: its port. With a socket, a daemon writes."""
    with ExitStack() as stack:
        where = str(store)
        if socket is not None:
            where = f"unix:{socket}"
            stack.enter_context(_daemon(store, socket))
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "benchmarks.workers:application", "--factory"]
        command += ["--workers", str(WORKERS), "--port", str(port), "--loop", "asyncio"]
        command += ["--http", "h11", "--no-access-log"]
        process = subprocess.Popen(
            command, env={**os.environ, _STORE: where}, stderr=subprocess.PIPE
        )
        stack.callback(end, process, signal.SIGTERM)
        _wait_for_workers(process)
        yield port


def _wait_for_workers(process: subprocess.Popen[bytes]) -> None:
    """Wait until all of them have opened the store. Raises LeftOut when they do not come to it."""
    assert process.stderr is not None
    said = iter(process.stderr.readline, b"")
    for _ in range(WORKERS):
        if not any(_READY in line for line in said):
            raise LeftOut("uvicorn did not start")


@contextmanager
def _daemon(store: Path, socket: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "aquipu", "serve", str(store), "--socket", str(socket)]
    process = subprocess.Popen([*command, "--sync-policy", "always"])
    try:
        yield
    finally:
        end(process, signal.SIGTERM)


def application() -> Any:
    """Return the application of one worker."""
    where = os.environ[_STORE]
    sharing = {} if where.startswith("unix:") else {"shared": True, "sync_policy": Always()}
    return audited(where, "before_response", **sharing)
