"""A service is killed under load, at a random moment, and every request that it had answered must
have its record.

The service is the example with FastAPI under uvicorn, by turns on asyncio and on uvloop where that
is installed. Each POST is audited under `Always` before its response. It lives many lives with the
same store, which is opened and read after each of them: what was once answered must be there to the
end.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import IO

from aquipu import Record, Store
from benchmarks.servers import free_port, wait_until_reachable
from tests.faults.tally import Tally

_LIFE_SECONDS_MAX = 0.6  # under load
_LOOPS = ("asyncio", "uvloop") if find_spec("uvloop") else ("asyncio",)
_DOCUMENTS = 1_000_000  # a life signs fewer


def run(kills: int, seed: int, directory: Path, tick: Callable[[int], None]) -> Tally:
    """Kill a service so many times. Its store is in the directory."""
    random, tally = Random(seed), Tally()
    answered: set[int] = set()
    for life in range(kills):
        loop = _LOOPS[life % len(_LOOPS)]
        answered |= _die(
            directory, loop, life * _DOCUMENTS, random.uniform(0, _LIFE_SECONDS_MAX), tally
        )
        found = asyncio.run(_found(directory / "audit"))
        for line in judge(answered, found):
            tally.violated(f"life {life} on {loop}, seed {seed}: {line}")
        tally.counts["services killed"] += 1
        tally.counts[f"on {loop}"] += 1
        tally.counts["requests answered"] = len(answered)
        tally.counts["records found"] = len(found)
        tick(1)
    return tally


def judge(answered: set[int], found: Iterable[Record]) -> Iterator[str]:
    """What is wrong with a store in which these signatures must be."""
    signed = Counter(_document(record) for record in found)
    for number in sorted(answered - set(signed)):
        yield f"the signature of document {number} was answered and has no record"
    for number, times in signed.items():
        if times > 1:
            yield f"the signature of document {number} was stored {times} times"


def _document(record: Record) -> int:
    """The number of the signed document, which stands in the label and in the path alike."""
    entry = json.loads(record.data)
    (label,) = record.relations
    number = int(label.removeprefix("document:"))
    assert (entry["path"], entry["status"]) == (f"/documents/{number}/signatures", 201)
    return number


async def _found(path: Path) -> list[Record]:
    async with Store.open(path) as store:
        return [record async for record in store.scan()]


def _die(directory: Path, loop: str, first: int, seconds: float, tally: Tally) -> set[int]:
    """One life. The documents whose signatures were answered."""
    port = free_port()
    command = [
        "uvicorn",
        "aquipu.examples.fastapi_service:app",
        "--port",
        str(port),
        "--loop",
        loop,
    ]
    with _started([*command, "--log-level", "error", "--no-access-log"], directory) as service:
        wait_until_reachable(service, port, "uvicorn")
        with _started(["tests.services.client", str(port), str(first)], directory) as clients:
            assert clients.stdout is not None
            _await_first_answer(clients.stdout)
            time.sleep(seconds)
            service.kill()
            answered: list[int] = json.loads(clients.stdout.readline())
            if clients.wait() or service.wait() != -9:
                tally.violated(
                    f"the service ended with {service.returncode}, its clients with "
                    f"{clients.returncode}"
                )
    return set(answered)


def _await_first_answer(lines: IO[bytes]) -> None:
    if lines.readline() != b"begun\n":
        raise RuntimeError("the service has answered nobody")


@contextmanager
def _started(command: list[str], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A module in a process of its own, for the time of the block."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))
    }
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", *command],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
