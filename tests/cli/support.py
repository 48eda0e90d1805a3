"""What the tests of the command line share: a real log, and two ways to run a command.

A command that reads and writes files and no more runs in this process (`run`). It has a process of
its own (`spawn`) wherever the rule is about what only a process has: signals, pipes, terminals,
streams that are not there, its own pid.
"""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from signal import SIGINT, Signals, getsignal, signal
from subprocess import CompletedProcess
from tempfile import TemporaryFile

import pytest
import typer

from aquipu.__main__ import main

LOG = Path(__file__).parents[1] / "data" / "openstack_40.log"
SAMPLE = LOG.read_bytes()
COMMAND = (sys.executable, "-W", "error::ResourceWarning", "-m", "aquipu")
ENVIRONMENT = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
FAILURE = b"Traceback"
program = cache(typer.main.get_command)
"""All commands, which take longer to put together than most of them to run."""


def run(*arguments: str | Path, input: bytes = b"") -> CompletedProcess[bytes]:
    """Run the command to its end in this process, with files as its standard streams.

    No error leaves it but an exit.
    """
    interrupt = getsignal(SIGINT)
    with (
        io.TextIOWrapper(TemporaryFile()) as stdin,
        io.TextIOWrapper(TemporaryFile(), write_through=True) as stdout,
        io.TextIOWrapper(TemporaryFile(), write_through=True) as stderr,
        pytest.MonkeyPatch.context() as patch,
    ):
        stdin.buffer.write(input)
        stdin.buffer.seek(0)
        for name, stream in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            patch.setattr(sys, name, stream)
        patch.setattr(typer.main, "get_command", program)
        patch.setattr(sys, "argv", ["aquipu", *map(str, arguments)])
        patch.setenv("COLUMNS", ENVIRONMENT["COLUMNS"])
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            signal(SIGINT, interrupt)
        stdout.buffer.seek(0)
        stderr.buffer.seek(0)
        assert isinstance(ended.value.code, int)
        return CompletedProcess(
            sys.argv, ended.value.code, stdout.buffer.read(), stderr.buffer.read()
        )


def well(*arguments: str | Path, input: bytes = b"") -> bytes:
    """Run the command, which must go well; what it wrote to standard output."""
    done = run(*arguments, input=input)
    assert done.returncode == 0, done.stderr
    return done.stdout


def spawn(*arguments: str | Path, input: bytes = b"") -> CompletedProcess[bytes]:
    """Run the command to its end in a process of its own, with pipes.

    No way of using it gives a traceback.
    """
    return _process([*COMMAND, *map(str, arguments)], input)


def in_shell(script: str, *arguments: str | Path, input: bytes = b"") -> CompletedProcess[bytes]:
    """Run ``script`` with the command and its arguments as ``"$@"``."""
    return _process(["sh", "-c", script, "sh", *COMMAND, *map(str, arguments)], input)


def _process(command: list[str], input: bytes) -> CompletedProcess[bytes]:
    done = subprocess.run(command, input=input, capture_output=True, env=ENVIRONMENT, check=False)
    assert FAILURE not in done.stderr, done.stderr
    return done


LINES = io.BytesIO(SAMPLE).readlines()


READING = ("cat", "info", "verify", "doctor")


JSON_READING = ("info", "verify", "doctor")


COMMANDS = (
    *(
        "append",
        "archive",
        "backup",
        "bench",
        "cat",
        "copy",
        "cursors",
        "doctor",
        "export",
        "find",
        "follow",
        "get",
        "hold",
        "import",
        "index",
        "info",
        "migrate",
        "purge",
        "relations",
        "repair",
        "restore",
        "serve",
        "tail",
        "top",
        "verify",
        "web",
    ),
)


class Terminal:
    """The far end of a terminal that a command writes to."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    def wait_for(self, text: bytes) -> None:
        """Read until the text is there."""
        while text not in self.seen:
            self.seen += os.read(self._descriptor, 65536)

    def wait_for_end(self) -> str:
        """All that was written, once nobody is left who could write."""
        try:
            while piece := os.read(self._descriptor, 65536):
                self.seen += piece
        except OSError:  # how Linux says it
            pass
        text = self.seen.decode()
        assert FAILURE.decode() not in text, text
        return text


@contextmanager
def terminal() -> Iterator[tuple[Terminal, int]]:
    """A terminal, and the end of it that is for the command; that one is closed here as soon as the
    command has it.
    """
    far, near = pty.openpty()
    try:
        yield Terminal(far), near
    finally:
        os.close(far)


@contextmanager
def appending(
    path: Path, *options: str, ignore: Signals | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """``append`` that reads a pipe and has a terminal for standard error."""
    command = [*COMMAND, "append", str(path), *options]
    if ignore is not None:
        command = [
            "sh",
            "-c",
            f"trap '' {ignore.name.removeprefix('SIG')}; exec \"$@\"",
            "sh",
            *command,
        ]
    with terminal() as (screen, near):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=near, env=ENVIRONMENT, bufsize=0
        )
        os.close(near)
        try:
            yield process, screen
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def send(process: subprocess.Popen[bytes], data: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
