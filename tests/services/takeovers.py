"""Four workers share a store under load, and the one that writes it is killed again and again.

Each POST is audited under `Always` before its response. Whoever was answered must have one entry,
and nobody may wait long: the longest time in which nobody at all was answered is measured.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM

from aquipu import Store
from benchmarks.servers import free_port, wait_until_reachable
from tests.faults.tally import Tally
from tests.services.kills import judge
from tests.services.load import Load
from tests.services.server import started, until

WORKERS = 4
COMMANDS = {
    "uvicorn": (
        *("uvicorn", "tests.services.fastapi_app:shared", "--port", "{port}", "--no-access-log"),
        *("--workers", f"{WORKERS}", "--timeout-worker-healthcheck", "45"),
    ),
    "gunicorn": (
        *("gunicorn", "--bind", "127.0.0.1:{port}", "--no-control-socket", "--worker-class"),
        *("uvicorn_worker.UvicornWorker", "--workers", f"{WORKERS}"),
        "tests.services.fastapi_app:shared",
    ),
    "flask": (
        *("gunicorn", "--bind", "127.0.0.1:{port}", "--no-control-socket", "--threads", "8"),
        *("--workers", f"{WORKERS}", "tests.services.flask_app:shared"),
    ),
}
_WORKER = re.compile(r"(?:Started server process \[|Booting worker with pid: )([0-9]+)")
_READY = "Application startup complete"
_BOOTED = "Booting worker with pid"  # one that opens its store with its first request


def run(
    server: str, kills: int, reloads: int, directory: Path, tick: Callable[[int], None]
) -> tuple[Tally, float]:
    """Kill the writing worker so many times, and have all workers replaced; then end the service.

    Return what was found, and the longest time without an answer, in seconds.
    """
    return asyncio.run(_run(COMMANDS[server], kills, reloads, directory, tick))


async def _run(
    command: tuple[str, ...],
    kills: int,
    reloads: int,
    directory: Path,
    tick: Callable[[int], None],
) -> tuple[Tally, float]:
    tally, port = Tally(), free_port()
    ready = _BOOTED if "--threads" in command else _READY
    with started(directory, *(word.format(port=port) for word in command)) as server:
        wait_until_reachable(server.process, port, command[0])
        begun = WORKERS
        await server.until_said(ready, begun)
        async with Load(port) as load:
            for number in range(max(kills, reloads)):
                if number < kills:
                    os.kill(await until(partial(_writer, directory), server), SIGKILL)
                    begun += 1
                    await server.until_said(ready, begun)
                if number < reloads:
                    old = _WORKER.findall(server.said)
                    server.hears(SIGHUP)
                    begun += WORKERS
                    await server.until_said(ready, begun)
                    # one that is told to end and is killed then has no successor
                    await until(partial(_are_gone, old), server)
                await load.answers()
                tick(1)
            server.hears(SIGTERM)
            status = await server.ended()
    tally.counts["writers killed"], tally.counts["reloads"] = kills, reloads
    tally.counts["requests answered"] = len(load.answered)
    async with Store.open(directory / "audit", lock_timeout=0) as store:
        found = [record async for record in store.scan()]
        if not store.recovery.clean:
            tally.violated("the store was not closed")
    tally.counts["records found"] = len(found)
    for line in judge(load.answered, found):
        tally.violated(line)
    if status:
        tally.violated(f"the service ended with {status}")
    if (directory / "audit" / "socket").exists():
        tally.violated("a socket was left behind")
    return tally, load.longest_pause


def _are_gone(processes: list[str]) -> bool | None:
    """Return True when none of them is there any more; otherwise None."""
    return None if any(os.path.exists(f"/proc/{process}") for process in processes) else True


def _writer(directory: Path) -> int | None:
    """Return the process that writes the store, if it can be told now."""
    text = (directory / "audit" / "lock").read_text().strip()
    return int(text) if text else None
