"""A daemon that is killed and started anew while processes append through it: nothing acknowledged
is lost or doubled.

``python -m tests.remote.daemon.restarts --kills 20`` does that as often as it is told, and kills
clients too. With ``--shared`` there is no daemon: the processes share the store, and the one that
writes it is killed. What is appended says who appended it and when in its turn; each
acknowledgement is noted in a file by the process that got it, so that it counts also when that
process is killed right behind it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import write
from pathlib import Path
from signal import SIGKILL, SIGTERM
from struct import Struct
from time import monotonic, sleep
from typing import NamedTuple

from aquipu import Always, Record, Store
from aquipu.runtime.closing import Opening

CLIENTS = 4
TASKS = 64
PATIENCE = 60.0
_NOTE = Struct("<IQQ")  # task, number, sequence
_NOTES_BEFORE_A_KILL = 300


class Tally(NamedTuple):
    """What became of a run."""

    kills: int
    """Of the one that writes."""
    clients_killed: int
    records: int
    acknowledged: int
    lost: int
    """Acknowledged, and not where they were said to be."""
    doubled: int
    disordered: int
    """Stored, and not behind the one that the same task appended before, or that one is missing."""


# a client, in a process of its own


def opened(address: str) -> Opening[Store]:
    """Open the store of a daemon, or a directory that others have open as well."""
    if address.startswith("unix:"):
        return Store.open(address)
    return Store.open(address, shared=True, sync_policy=Always(), lock_timeout=PATIENCE)


async def append(address: str, name: str, tasks: int) -> None:
    """Append from many tasks until standard input ends, and note each acknowledgement on standard
    output.
    """
    running = True

    async def task(store: Store, number: int) -> None:
        turn = 0
        while running:
            receipt = await store.append(b"%s:%d:%d" % (name.encode(), number, turn))
            write(1, _NOTE.pack(number, turn, receipt.sequence))
            turn += 1

    async with (
        opened(address) as store,
        asyncio.TaskGroup() as group,
    ):
        for number in range(tasks):
            group.create_task(task(store, number))
        await asyncio.to_thread(sys.stdin.read)
        running = False


@dataclass
class Client:
    """A process that appends, and the file with its notes."""

    process: subprocess.Popen[bytes]
    notes: Path

    def acknowledged(self) -> Iterator[tuple[int, int, int]]:
        content = self.notes.read_bytes()
        return _NOTE.iter_unpack(content[: len(content) // _NOTE.size * _NOTE.size])


# the run


@dataclass
class Run:
    """A daemon and its clients, in this directory, or processes that share the store."""

    path: Path
    stack: ExitStack
    seed: int = 0
    shared: bool = False
    count: int = CLIENTS
    tasks: int = TASKS
    clients: dict[str, Client] = field(default_factory=dict)
    kills: int = 0
    clients_killed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._daemon = None if self.shared else self._serve()
        for _ in range(self.count):
            self._connect()

    def kill_writer(self) -> None:
        """Kill the daemon, or the one that writes for the others, at a random moment.

        There was something to lose since the last time.
        """
        self._let_append()
        if self._daemon is None:
            self.kills += 1
            self._replace(self._writer())
            return
        self._daemon.kill()
        self._daemon.wait()
        self.kills += 1
        self._daemon = self._serve()

    def kill_client(self) -> None:
        """Kill any of the clients, and begin another one."""
        self._let_append()
        self.clients_killed += 1
        self._replace(
            self._random.choice(
                [name for name, client in self.clients.items() if client.process.returncode is None]
            )
        )

    def _replace(self, name: str) -> None:
        self.clients[name].process.kill()
        self.clients[name].process.wait()
        self._connect()

    def _writer(self) -> str:
        """Return the client that writes the store for the others."""
        deadline = monotonic() + PATIENCE
        while True:
            process = (self.path / "store" / "lock").read_text().strip()
            for name, client in self.clients.items():
                if str(client.process.pid) == process and client.process.poll() is None:
                    return name
            assert monotonic() < deadline, "nobody writes"
            sleep(0.01)

    def end(self) -> None:
        """Everything ends by itself, the clients before the daemon."""
        for client in self.clients.values():
            if client.process.returncode is None:
                assert client.process.stdin is not None
                client.process.stdin.close()
        for name, client in self.clients.items():
            code = client.process.wait(PATIENCE)
            assert code in (0, -SIGKILL), f"the client {name} ended with {code}"
        if self._daemon is not None:
            self._daemon.send_signal(SIGTERM)
            assert self._daemon.wait(PATIENCE) == 0
        assert not (self.path / "store" / "socket").exists()

    def tally(self) -> Tally:
        """Hold what is stored against what was acknowledged."""
        records = asyncio.run(_read(self.path / "store"))
        notes = [
            (b"%s:%d:%d" % (name.encode(), number, turn), sequence)
            for name, client in self.clients.items()
            for number, turn, sequence in client.acknowledged()
        ]
        data = dict(enumerate(record.data for record in records))
        lost = sum(data.get(sequence) != said for said, sequence in notes)
        doubled = len(data) - len(set(data.values()))
        turns: dict[bytes, int] = defaultdict(int)
        disordered = 0
        for one in data.values():
            who, _, turn = one.rpartition(b":")
            disordered += int(turn) != turns[who]
            turns[who] = int(turn) + 1
        return Tally(
            self.kills, self.clients_killed, len(records), len(notes), lost, doubled, disordered
        )

    def _serve(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "aquipu",
            "serve",
            str(self.path / "store"),
            "--sync-policy",
            "always",
        ]
        return self._start([*command, "--socket", str(self.path / "socket")])

    def _connect(self) -> None:
        name = f"client{len(self.clients)}"
        notes = self.path / name
        with notes.open("wb") as file:
            command = [
                sys.executable,
                "-m",
                "tests.remote.daemon.restarts",
                "client",
                str(self.path / "store") if self.shared else f"unix:{self.path}/socket",
                name,
                str(self.tasks),
            ]
            process = self._start(command, stdin=subprocess.PIPE, stdout=file)
        self.clients[name] = Client(process, notes)

    def _start(self, command: list[str], **streams: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parents[3], stderr=subprocess.PIPE, **streams
        )  # type: ignore[call-overload]
        self.stack.enter_context(process)
        self.stack.callback(process.kill)
        return process  # type: ignore[no-any-return]

    def _let_append(self) -> None:
        """Until every client that lives has been told of some more records, and a random while."""
        living = [client for client in self.clients.values() if client.process.poll() is None]
        wanted = {
            client.notes: client.notes.stat().st_size + _NOTES_BEFORE_A_KILL * _NOTE.size
            for client in living
        }
        deadline = monotonic() + PATIENCE
        while any(notes.stat().st_size < size for notes, size in wanted.items()):
            assert monotonic() < deadline, "the clients do not get on"
            sleep(0.01)
        sleep(self._random.random() * 0.2)


async def _read(path: Path) -> list[Record]:
    async with Store.open(path, sync_policy=Always()) as store:
        return [record async for record in store.scan()]


def repeat(
    path: Path,
    kills: int,
    client_kills: int,
    seed: int = 0,
    *,
    shared: bool = False,
    clients: int = CLIENTS,
    tasks: int = TASKS,
) -> Tally:
    """Kill the one that writes and any of its clients so often, by turns."""
    with ExitStack() as stack:
        run = Run(path, stack, seed, shared, clients, tasks)
        for number in range(max(kills, client_kills)):
            if number < kills:
                run.kill_writer()
            if number < client_kills:
                run.kill_client()
        run.end()
        return run.tally()


def main() -> int:
    program = "python -m tests.remote.daemon.restarts"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=20, help="of the one that writes (default: 20)"
    )
    parser.add_argument("--client-kills", type=int, default=0, help="of one of the clients")
    parser.add_argument("--shared", action="store_true", help="without a daemon: clients write")
    parser.add_argument("--clients", type=int, default=CLIENTS, help="processes that append")
    parser.add_argument("--tasks", type=int, default=TASKS, help="of each of them")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="restarts-", dir=".") as directory:
        tally = repeat(
            Path(directory).resolve(),
            asked.kills,
            asked.client_kills,
            asked.seed,
            shared=asked.shared,
            clients=asked.clients,
            tasks=asked.tasks,
        )
    sys.stdout.write("".join(f"{key} {value:,}\n" for key, value in tally._asdict().items()))
    return int(tally.lost + tally.doubled + tally.disordered > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        asyncio.run(append(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        sys.exit(main())
