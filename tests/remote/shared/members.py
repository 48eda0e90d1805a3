"""Processes that share a store, as tests start and end them."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

PATIENCE = 30.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""


class Member:
    """One of them."""

    def __init__(self, process: Process) -> None:
        self.process = process

    async def append(self, data: bytes) -> tuple[int, str]:
        """Have it append, and return the sequence and the stage that it was given."""
        self.ask(data)
        return await self.heard()

    def ask(self, data: bytes) -> None:
        """Have it append, and do not wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(data + b"\n")

    async def heard(self) -> tuple[int, str]:
        """Return its next answer."""
        sequence, stage = (await self.line()).split()
        return int(sequence), stage

    async def line(self) -> str:
        """Return the next line that it says; an empty one when it has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stdout.readline()).decode().strip()

    async def kill(self) -> None:
        """Kill it (SIGKILL)."""
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def end(self) -> str:
        """Let it end by itself; return what it wrote to its standard error."""
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.process.stdin.close()
        async with asyncio.timeout(PATIENCE):
            said = (await self.process.stderr.read()).decode()
            await self.process.wait()
        return said


@asynccontextmanager
async def member(path: Path, policy: str = "always", *more: str) -> AsyncIterator[Member]:
    """Start a process that has the store open when this is entered; it is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-W",
            "always",
            "-m",
            "tests.remote.shared.member",
            str(path),
            policy,
            *more,
        ),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    started = Member(process)
    try:
        assert await started.line() == "ready"
        yield started
    finally:
        await started.kill()
