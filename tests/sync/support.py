"""What the tests of the synchronous face share: threads, and programs of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""

PRELUDE = """
import os, signal, sys, threading, time
import aquipu.sync
from aquipu import *
from tests.disk import WRITES, FailingDisk

path = sys.argv[1]
"""


def begun(call: Callable[[], T]) -> Future[T]:
    """What comes of a call on a thread of its own."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return outcome


def program(
    script: str, path: Path, *options: str, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, which must come by itself and with this exit code."""
    command = [sys.executable, "-W", "always", *options, "-c", PRELUDE + script, str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert ended.returncode == code, ended.stderr
    return ended


def data_of(records: Any) -> list[bytes]:
    return [record.data for record in records]
