"""A FastAPI application under uvicorn, in a process of its own: ``python -m benchmarks.webserver
ENGINE DIRECTORY PORT``.

It answers ``/busy`` with a page of JSON, which keeps the loop computing, and ``/append`` when a
record is durable.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.contender import Opener
from benchmarks.engines import engines
from benchmarks.servers import LeftOut, end, free_port, wait_until_reachable
from benchmarks.settings import RECORD
from benchmarks.workload import Append

NOTHING = "nothing: it answers at once"
_PAGE = [{"id": number, "name": f"item {number}", "price": number * 1.25} for number in range(20)]
_ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serving(engine: str, directory: Path) -> Iterator[tuple[int, int]]:
    """The application with this engine, for the time of the block: its port and its pid.

    Raises LeftOut.
    """
    with served_by("benchmarks.webserver", engine, str(directory)) as served:
        yield served


@contextmanager
def served_by(module: str, *words: str) -> Iterator[tuple[int, int]]:
    """What ``python -m MODULE WORD ...

    PORT`` serves, for the time of the block: its port and its pid. Raises LeftOut.
    """
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", module, *words, str(port)], cwd=_ROOT)
    try:
        wait_until_reachable(process, port, "uvicorn")
        yield port, process.pid
    finally:
        end(process, signal.SIGTERM)


def check_installed() -> None:
    """Raises LeftOut."""
    for name in ("fastapi", "uvicorn"):
        try:
            import_module(name)
        except ImportError:
            raise LeftOut(f"{name} is not installed (pip install -e '.[bench]')") from None


def _application(opener: Opener, directory: Path) -> Any:
    append: Append

    @asynccontextmanager
    async def opened(_: object) -> AsyncIterator[None]:
        nonlocal append
        async with opener(directory) as append:
            yield

    async def busy() -> object:
        return _PAGE

    async def append_one() -> object:
        await append(RECORD)
        return {"bytes": len(RECORD)}

    application = import_module("fastapi").FastAPI(lifespan=opened)
    application.add_api_route("/busy", busy)
    application.add_api_route("/append", append_one)
    return application


@asynccontextmanager
async def _open_nothing(directory: Path) -> AsyncIterator[Append]:
    async def append(data: bytes) -> None:
        pass

    yield append


def serve(application: Any, port: str) -> None:
    """Until told to stop; on plain asyncio and h11, whatever else is installed."""
    import_module("uvicorn").run(
        application,
        host="127.0.0.1",
        port=int(port),
        loop="asyncio",
        http="h11",
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=2,
    )


def main(engine: str, directory: str, port: str) -> None:
    """Serve appends."""
    opener = _open_nothing if engine == NOTHING else engines()[0][engine]
    serve(_application(opener, Path(directory)), port)


if __name__ == "__main__":
    main(*sys.argv[1:])
