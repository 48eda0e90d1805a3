"""A load generator: connections that each send the next request when the answer to the last one is
there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterable
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.latency import Latencies
from benchmarks.measure import Sample

BUSY_CONNECTIONS = 32
APPEND_CONNECTIONS = 16


async def generate(port: int, pid: int, seconds: float) -> Sample:
    """Keep the server busy, and append beside that.

    How long the appending requests took, as seen from outside.
    """
    appends, answers = Latencies(), Latencies()
    connections = [_connection(port, _get("/busy"), answers) for _ in range(BUSY_CONNECTIONS)]
    connections += [_connection(port, _get("/append"), appends) for _ in range(APPEND_CONNECTIONS)]
    before = cpu_seconds(pid)
    elapsed = await _run(connections, seconds)
    return {
        "p50": appends.percentile(50),
        "p99": appends.percentile(99),
        "appends/s": len(appends) / elapsed,
        "busy/s": len(answers) / elapsed,
        "cpu": (cpu_seconds(pid) - before) / elapsed,
    }


async def repeat(port: int, request: bytes, connections: int, seconds: float) -> Sample:
    """Send this request on so many connections: how many answers there were a second, and how long
    they took.
    """
    answers = Latencies()
    elapsed = await _run([_connection(port, request, answers) for _ in range(connections)], seconds)
    return {
        "p50": answers.percentile(50),
        "p99": answers.percentile(99),
        "requests/s": len(answers) / elapsed,
    }


async def _run(connections: Iterable[Coroutine[Any, Any, None]], seconds: float) -> float:
    """Have them at work for so long; how long that was."""
    tasks = [asyncio.create_task(connection) for connection in connections]
    began = perf_counter()
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    elapsed = perf_counter() - began
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        task.result()  # a connection ends before its time only by an error
    return elapsed


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: benchmark\r\n\r\n".encode()


async def _connection(port: int, request: bytes, taken: Latencies) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while True:
            began = perf_counter()
            writer.write(request)
            await answer(reader)
            taken.note(perf_counter() - began)
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> None:
    """Read one whole answer. RuntimeError unless it is that all is well."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 2"):
        raise RuntimeError(f"the server answers {head.splitlines()[0].decode()}")
    await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r", 1)[0]))


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far; 0 where the system does not tell in this way."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
