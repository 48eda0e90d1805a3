"""The command `serve` in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LISTENS = re.compile(r"aquipu: .*/store is served at unix:.*/socket\n")


@contextmanager
def serving(path: Path, *options: str, listens: bool = True) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own; it listens when the block begins."""
    command = [
        sys.executable,
        "-W",
        "error::ResourceWarning",
        "-m",
        "aquipu",
        "serve",
        str(path / "store"),
    ]
    command += ["--socket", str(path / "socket"), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            if listens:
                assert process.stderr is not None
                line = process.stderr.readline()
                assert LISTENS.fullmatch(line), line + process.stderr.read()
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str], code: int) -> str:
    """Wait for the end, which must come with this code. What stood on standard error since."""
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors, errors
    return errors
