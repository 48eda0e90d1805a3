"""Processes of a benchmark, ``python -m MODULE ROLE ...``.

Each says when it is ready, waits for a line on standard input, and gives its figures as JSON.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.measure import Sample

_ROOT = Path(__file__).resolve().parents[1]

Role = Callable[..., Coroutine[Any, Any, Sample]]


@contextmanager
def started(module: str, role: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A process in its role, when it is ready."""
    command = [sys.executable, "-m", module, role, *map(str, words)]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(f"the process that was to {role} has failed to begin")
            yield process
        finally:
            process.kill()


def begin(process: subprocess.Popen[str]) -> None:
    """Let it go on."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def figures(process: subprocess.Popen[str]) -> dict[str, float]:
    """What it has measured, when it has ended."""
    assert process.stdout is not None
    measured: dict[str, float] = json.loads(process.stdout.readline())
    if process.wait():
        raise RuntimeError("a process of the benchmark has failed")
    return measured


def together(processes: Sequence[subprocess.Popen[str]]) -> Sample:
    """Let all of them append at the same time: the sum of their appends, the slowest latencies."""
    for process in processes:
        begin(process)
    measured = [figures(process) for process in processes]
    slowest = {name: max(one[name] for one in measured) for name in ("p50", "p99")}
    return {"appends/s": sum(one["appends/s"] for one in measured), **slowest}


# in the process itself


async def when_told() -> None:
    """Say that all is ready, and wait for the line."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)


def play(roles: Mapping[str, Role]) -> None:
    """Do what the command line asks for, and print the figures."""
    sys.stdout.write(json.dumps(asyncio.run(roles[sys.argv[1]](*sys.argv[2:]))) + "\n")
