"""A server with all its processes, for the time of a block: it is told by signals, and heard on
what it says.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from asyncio import sleep
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TypeVar

from tests.services.load import PATIENCE

T = TypeVar("T")

_PAUSE = 0.02  # between two looks at what cannot be awaited


class Server:
    """The processes that one command starts, a Python module and its arguments, in a directory."""

    def __init__(self, directory: Path, *words: str) -> None:
        self._said = directory / f"{words[0]}.said"
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, [os.getcwd(), *sys.path]))
        }
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-W", "default::ResourceWarning", "-m", *words],
                cwd=directory,
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What all its processes have said so far."""
        return self._said.read_text()

    def hears(self, *signals: signal.Signals) -> None:
        """Send its first process these signals, one right after another."""
        for number in signals:
            self.process.send_signal(number)

    async def until_said(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until it has said so this many times, each in its time; return what was found."""

        def look(least: int) -> list[str] | None:
            found = re.findall(pattern, self.said)
            return found if len(found) >= least else None

        for number in range(1, times):
            await until(partial(look, number), self)
        return await until(partial(look, times), self)

    async def ended(self) -> int:
        """Wait for the end of all its processes: how the first one ended."""
        status = await until(self.process.poll, self)
        await until(lambda: None if self._is_left() else True, self)
        return status

    def kill(self) -> None:
        """End what is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _is_left(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


async def until(look: Callable[[], T | None], server: Server, pause: float = _PAUSE) -> T:
    """Look again and again until there is something: what it is."""
    deadline = monotonic() + PATIENCE
    while (seen := look()) is None:
        if monotonic() > deadline:
            raise TimeoutError(f"in vain; the server has said:\n{server.said}")
        await sleep(pause)
    return seen


@contextmanager
def started(directory: Path, *words: str) -> Iterator[Server]:
    """A server in the directory."""
    server = Server(directory, *words)
    try:
        yield server
    finally:
        server.kill()
