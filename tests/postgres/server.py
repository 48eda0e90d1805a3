"""A PostgreSQL of the tests' own, on the loopback: one for all workers of a run, and others."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from time import monotonic, sleep

from aquipu.postgres.address import address_of
from aquipu.postgres.schema.migrating import migrate
from benchmarks.servers import free_port, postgresql_programs, said, user_for_postgresql
from tests.postgres.unsynced import end_process, for_this_process, library, roll_back

_START_SECONDS = 60.0
ASKED = "ada"
"""The role whom servers ask for its password; they trust all others."""
_SETTINGS = {
    "fsync": "on",
    "shared_buffers": "16MB",
    "max_connections": "100",
    "listen_addresses": "127.0.0.1",
    "logging_collector": "off",
    "log_min_messages": "fatal",
    "wal_level": "replica",
    "wal_sender_timeout": "5s",
}


class Server:
    """The files of a server, which may be started, ended and killed."""

    def __init__(self, place: Path, port: int) -> None:
        self.place = place
        self.port = port
        self.programs = postgresql_programs()
        self.user = "postgres" if os.geteuid() == 0 else None
        self.process: subprocess.Popen[bytes] | None = None
        self.notes: Path | None = None
        """Where it notes what it has not synced, for `cut`; see `unsynced`."""

    @classmethod
    def made(cls) -> Server:
        """A new one, with no data, not started."""
        place = Path(mkdtemp(prefix="aquipu-postgresql-", dir="/tmp"))
        user_for_postgresql(place, [place])
        server = cls(place, free_port())
        said(["cp", "-a", str(_new_files()), str(server.files)])
        server.configure(**_SETTINGS)
        rules = server.files / "pg_hba.conf"
        rules.write_text(f"host all {ASKED} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        return server

    def standby(self, name: str = "one") -> Server:
        """A new server that copies this one, which runs, and is not started yet."""
        place = Path(mkdtemp(prefix="aquipu-postgresql-", dir="/tmp"))
        user_for_postgresql(place, [place])
        copy = Server(place, free_port())
        to = f"host=127.0.0.1 port={self.port} user=postgres application_name={name}"
        command = [str(self.programs / "pg_basebackup"), "-D", str(copy.files), "-R", "-c", "fast"]
        said([*command, "--no-sync", "-d", to], self.user)
        return copy

    def promote(self) -> None:
        """Let it take writes."""
        said([str(self.programs / "pg_ctl"), "promote", "-D", str(self.files), "-w"], self.user)

    @property
    def files(self) -> Path:
        return self.place / "files"

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def log(self, name: str) -> str:
        """The address of a log."""
        return f"{self.url}?log={name}"

    def configure(self, **settings: str) -> None:
        """Add settings, which count from the next start or reload on."""
        with (self.files / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def reload(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def start(self) -> None:
        command = [str(self.programs / "postgres"), "-D", str(self.files), "-p", str(self.port)]
        with (self.place / "errors").open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, "-k", str(self.place)],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd="/",
                env=self._environment(),
                user=self.user,
                group=self.user,
                extra_groups=None if self.user is None else (),
                start_new_session=True,
            )
        deadline = monotonic() + _START_SECONDS
        while not self._is_ready():
            assert self.process.poll() is None, (self.place / "errors").read_text()[-2000:]
            assert monotonic() < deadline, "it did not start"
            sleep(0.05)

    def _environment(self) -> dict[str, str]:
        if self.notes is None:
            return dict(os.environ)
        return {**os.environ, "LD_PRELOAD": str(library()), "AQUIPU_UNSYNCED": str(self.notes)}

    def _is_ready(self) -> bool:
        """Whether it says so in its file: its process, and in the eighth line how it is."""
        try:
            lines = (self.files / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        assert self.process is not None
        is_its_own = lines[:1] == [str(self.process.pid)]
        return is_its_own and len(lines) > 7 and lines[7].strip() in ("ready", "standby")

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """End it: at once with SIGQUIT, cleanly with SIGINT; do nothing when it has ended."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None

    def kill(self) -> None:
        """Kill all of its processes at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(30)
        self.process = None
        self._wait_for_children()

    def halt(self) -> None:
        """Have all of its processes stand still."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        for pid in _children_of(self.files):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def cut(self, random: Random) -> int:
        """Cut its power; return of how many files that has taken what was not synced."""
        assert self.process is not None
        assert self.notes is not None, "it was started without notes"
        self.halt()
        for pid in _children_of(self.files):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kill()
        return roll_back(self.files, self.notes, random)

    def _wait_for_children(self) -> None:
        deadline = monotonic() + 30
        while _children_of(self.files) and monotonic() < deadline:
            sleep(0.02)
        (self.files / "postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        self.stop()
        self._wait_for_children()  # they may write for a moment yet
        shutil.rmtree(self.place, ignore_errors=True)


@cache
def _new_files() -> Path:
    """The files of a server without data, which others copy: making them takes a second or two."""
    place = for_this_process("aquipu-postgresql-")
    server = Server(place, 0)
    user_for_postgresql(place, [place])
    options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
    said([str(server.programs / "initdb"), "-D", str(server.files), *options], server.user)
    return server.files


def _children_of(files: Path) -> list[int]:
    """The processes whose working directory these files are: a server and its backends."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if (entry / "cwd").readlink() == files:
                    found.append(int(entry.name))
    return found


# one for all workers of a run

_shared: list[tuple[Server, int]] = []
_root: list[Path] = []
_gone: list[Server] = []


def begin_session(root: Path) -> None:
    """Note the directory that all workers of this run have in common."""
    _root[:] = [root]


def shared() -> Server:
    """The server of this run: the first worker that wants it starts it."""
    if not _shared:
        root = _root[0]
        users = os.open(root / "postgresql.users", os.O_RDWR | os.O_CREAT, 0o600)
        with _alone(root):
            fcntl.flock(users, fcntl.LOCK_SH)
            _shared.append((_found(root) or _started(root), users))
    return _shared[0][0]


def end_session() -> None:
    """Let go of the server of this run; the last worker that does so ends it."""
    end_process()
    if not _shared:
        return
    server, users = _shared.pop()
    _gone.append(server)  # its process may serve other workers, and is not waited for here
    root = _root[0]
    with _alone(root):
        try:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(users)
        found = json.loads((root / "postgresql.json").read_text())
        with suppress(ProcessLookupError):
            os.kill(found["pid"], signal.SIGQUIT)
        deadline = monotonic() + 30
        while _children_of(server.files) and monotonic() < deadline:
            if server.process is not None:
                server.process.poll()
            sleep(0.02)
        server.remove()
        (root / "postgresql.json").unlink()


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    with (root / "postgresql.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _found(root: Path) -> Server | None:
    try:
        found = json.loads((root / "postgresql.json").read_text())
        os.kill(found["pid"], 0)
    except (OSError, ValueError):
        return None
    return Server(Path(found["place"]), found["port"])


def _started(root: Path) -> Server:
    server = Server.made()
    try:
        return _made_ready(server, root)
    except BaseException:
        server.remove()
        raise


def _made_ready(server: Server, root: Path) -> Server:
    server.start()
    assert server.process is not None
    found = {"place": str(server.place), "port": server.port, "pid": server.process.pid}
    making = migrate(address_of(server.url, needs_log=False))
    with ThreadPoolExecutor(1) as beside:  # this one may run a loop
        beside.submit(asyncio.run, making).result()
    (root / "postgresql.json").write_text(json.dumps(found))
    return server


def log_name(path: Path) -> str:
    """A name for the log of a test, by its directory."""
    return "t" + blake2b(str(path).encode(), digest_size=10).hexdigest()
