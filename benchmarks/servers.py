"""Redis and PostgreSQL, started on the loopback for the time of a benchmark, where they are
installed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_DEBIAN_POSTGRESQL = Path("/usr/lib/postgresql")


class LeftOut(Exception):
    """This one is not measured; the message says why, and what to install."""


class Server(NamedTuple):
    port: int
    version: str


@contextmanager
def redis(directory: Path, options: Sequence[str]) -> Iterator[Server]:
    """A Redis with these options, its files in the directory. Raises LeftOut."""
    program = shutil.which("redis-server")
    if program is None:
        raise LeftOut("redis-server is not installed (Debian: apt-get install redis-server)")
    version = said([program, "--version"]).split("v=")[1].split()[0]
    port = free_port()
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(directory),
        *options,
    ]
    with _running(command, port, signal.SIGTERM):
        yield Server(port, version)


@contextmanager
def postgresql(directory: Path, above: Sequence[Path]) -> Iterator[Server]:
    """A PostgreSQL as it is installed, its files in the directory. Raises LeftOut.

    ``above`` are the directories over it that belong to this run: they are opened to the user that
    the server runs as.
    """
    programs = postgresql_programs()
    user = user_for_postgresql(directory, above)
    files = directory / "files"
    said(
        [
            str(programs / "initdb"),
            "-D",
            str(files),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-locale",
        ],
        user,
    )
    version = said([str(programs / "postgres"), "--version"]).split()[2]
    port = free_port()
    command = [
        str(programs / "postgres"),
        "-D",
        str(files),
        "-p",
        str(port),
        "-h",
        "127.0.0.1",
        "-k",
        "",
    ]
    with _running(command, port, signal.SIGINT, user):
        yield Server(port, version)


@contextmanager
def standby(directory: Path, above: Sequence[Path], port: int) -> Iterator[Server]:
    """A standby of the PostgreSQL at a port, its files in the directory. Raises LeftOut."""
    programs = postgresql_programs()
    user = user_for_postgresql(directory, above)
    files = directory / "files"
    source = f"host=127.0.0.1 port={port} user=postgres"
    copy = [str(programs / "pg_basebackup"), "-D", str(files), "-R", "-c", "fast", "-d", source]
    said(copy, user)
    own = free_port()
    command = [str(programs / "postgres"), "-D", str(files), "-p", str(own)]
    with _running([*command, "-h", "127.0.0.1", "-k", ""], own, signal.SIGINT, user):
        yield Server(own, "")


def postgresql_programs() -> Path:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent  # it may be a link, and the others none
    versions = sorted(_DEBIAN_POSTGRESQL.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        raise LeftOut("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return versions[-1].parent


def user_for_postgresql(directory: Path, above: Sequence[Path]) -> str | None:
    """PostgreSQL refuses to run as root: then as the user that its package made, who must reach the
    directory.
    """
    if os.geteuid() != 0:
        return None
    user = "postgres"
    try:
        shutil.chown(directory, user)
    except LookupError:
        raise LeftOut("PostgreSQL does not run as root, and there is no user postgres") from None
    for place in above:
        place.chmod(0o711)
    return user


def said(command: Sequence[str], user: str | None = None) -> str:
    """What a program that ends by itself prints."""
    groups = None if user is None else ()
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        user=user,
        group=user,
        extra_groups=groups,
    )
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).strip().splitlines() or ["no reason given"]
        raise LeftOut(f"{Path(command[0]).name} failed: {lines[-1]}")
    return ended.stdout


@contextmanager
def _running(
    command: Sequence[str], port: int, stop: signal.Signals, user: str | None = None
) -> Iterator[None]:
    """A program that serves on the port, until the end of the block."""
    groups = None if user is None else ()
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        user=user,
        group=user,
        extra_groups=groups,
    )
    try:
        wait_until_reachable(process, port, Path(command[0]).name)
        yield
    finally:
        end(process, stop)


def wait_until_reachable(process: subprocess.Popen[bytes], port: int, name: str) -> None:
    """Until the process serves on the port. Raises LeftOut when it does not come to that."""
    deadline = monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or monotonic() > deadline:
                raise LeftOut(f"{name} did not start") from None
        sleep(0.05)


def end(process: subprocess.Popen[bytes], stop: signal.Signals) -> None:
    """Ask the process to end, and insist after a while."""
    process.send_signal(stop)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
