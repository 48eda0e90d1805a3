"""Appends that are sent again, and such that race for a sequence, in processes of their own.

``python -m tests.remote.daemon.keys kills``: a writer whose producers send each key again with
probability 1/2, in the same life and in the next, is killed again and again: each is stored exactly
once, and every receipt of it is the same.

``python -m tests.remote.daemon.keys race``: tasks of several processes race for each sequence
through a daemon: exactly one wins it, and the others are told a later one.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from os import write
from pathlib import Path
from signal import SIGTERM
from struct import Struct
from time import monotonic, sleep
from typing import NamedTuple

from aquipu import Always, ConflictError, Store

PRODUCERS = 64
CLIENTS, TASKS = 4, 16
PATIENCE = 120.0
_NOTE = Struct("<IQQ")  # producer or task, number, sequence
_SEGMENT_BYTES = 256 * 1024  # so that there are many, and tables of them
_SENT_AGAIN_MAX = 8  # of each producer in the next life


class Tally(NamedTuple):
    """What became of a run."""

    appends: int
    sent: int
    """Appends, with those that were sent again and acknowledged."""
    kills: int
    records: int
    missing: int
    doubled: int
    different: int
    """Receipts of a key that name another record than that of the key."""


class Race(NamedTuple):
    """What became of a race."""

    records: int
    winners: int
    losers: int
    wrong: int
    """Records at another sequence than they expected or of another winner, and losers who were told
    none that is later.
    """


# the writer, in a process of its own


async def produce(path: str, notes: str, appends: int, seed: int) -> None:
    """Append from many producers, and note each acknowledgement in a file as it comes."""
    known = _latest(_notes(Path(notes)))
    rand = random.Random(seed)
    with open(notes, "ab", buffering=0) as file:  # noqa: ASYNC230
        async with Store.open(path, max_segment_bytes=_SEGMENT_BYTES) as store:

            async def send(producer: int, number: int) -> None:
                data = b"%d:%d" % (producer, number)
                receipt = await store.append(data, key=(f"producer-{producer}", number))
                write(file.fileno(), _NOTE.pack(producer, number, receipt.sequence))

            async def task(producer: int) -> None:
                last = known.get(producer, -1)
                for number in range(max(last - _SENT_AGAIN_MAX, 0), last + 1):
                    if rand.random() < 0.5:
                        await send(producer, number)
                for number in range(last + 1, appends // PRODUCERS):
                    if rand.random() < 0.5:  # at the same moment, or later
                        await asyncio.gather(send(producer, number), send(producer, number))
                    else:
                        await send(producer, number)

            await asyncio.gather(*map(task, range(PRODUCERS)))


def _notes(path: Path) -> Iterator[tuple[int, int, int]]:
    content = path.read_bytes()
    return _NOTE.iter_unpack(content[: len(content) // _NOTE.size * _NOTE.size])


def _latest(notes: Iterator[tuple[int, int, int]]) -> dict[int, int]:
    latest: dict[int, int] = {}
    for producer, number, _ in notes:
        latest[producer] = max(latest.get(producer, -1), number)
    return latest


def kill(directory: Path, appends: int, kills: int, seed: int = 0) -> Tally:
    """Kill the writer so often while it appends, then have it come to its end."""
    path, notes = directory / "store", directory / "notes"
    notes.touch()
    rand = random.Random(seed)
    appends = appends // PRODUCERS * PRODUCERS
    for number in range(kills + 1):
        arguments = ["writer", str(path), str(notes), str(appends), str(seed + number)]
        with _start(*arguments) as process:
            try:
                if number < kills:
                    wanted = notes.stat().st_size + appends // (2 * kills) * _NOTE.size
                    _await(lambda: notes.stat().st_size >= wanted, process)  # noqa: B023
                    sleep(rand.random() * 0.02)
                    process.kill()
                code = process.wait(PATIENCE)
                assert code == (-9 if number < kills else 0), f"the writer ended with {code}"
            finally:
                process.kill()
    return _tally(path, list(_notes(notes)), appends, kills)


def _tally(path: Path, notes: list[tuple[int, int, int]], appends: int, kills: int) -> Tally:
    data = asyncio.run(_data(path))
    count = Counter(data)
    keys = [
        b"%d:%d" % (producer, number)
        for producer in range(PRODUCERS)
        for number in range(appends // PRODUCERS)
    ]
    different = sum(
        data[sequence : sequence + 1] != [b"%d:%d" % (producer, number)]
        for producer, number, sequence in notes
    )
    missing = sum(not count[key] for key in keys)
    doubled = sum(times - 1 for times in count.values())
    return Tally(appends, len(notes), kills, len(data), missing, doubled, different)


# the race


async def race(address: str, name: str, rounds: int) -> None:
    """Expect one sequence after another from several tasks; say who wins on standard output."""
    lost = misled = 0

    async def task(store: Store, number: int) -> None:
        nonlocal lost, misled
        expected = 0
        while expected < rounds:
            data = b"%s:%d:%d" % (name.encode(), number, expected)
            try:
                receipt = await store.append(data, expect=expected)
            except ConflictError as error:
                lost += 1
                misled += error.next_sequence <= expected
                expected = max(error.next_sequence, expected + 1)
            else:
                write(1, _NOTE.pack(number, receipt.sequence, 0))
                expected += 1

    async with Store.open(address) as store:
        await asyncio.gather(*(task(store, number) for number in range(TASKS)))
    write(1, _NOTE.pack(TASKS, lost, misled))


def run_race(directory: Path, rounds: int) -> Race:
    """Race for so many sequences, from 4 processes with 16 tasks each."""
    store, socket = directory / "store", directory / "socket"
    serve = [sys.executable, "-m", "aquipu", "serve", str(store), "--sync-policy", "always"]
    with subprocess.Popen([*serve, "--socket", str(socket)], stderr=subprocess.DEVNULL) as daemon:
        try:
            _await(socket.exists, daemon)
            names = [f"client{number}" for number in range(CLIENTS)]
            outputs = _raced(names, f"unix:{socket}", rounds, directory)
            daemon.send_signal(SIGTERM)
            assert daemon.wait(PATIENCE) == 0
        finally:
            daemon.kill()
    data = asyncio.run(_data(store))
    winners = {
        sequence: b"%s:%d:%d" % (name.encode(), task, sequence)
        for name, output in outputs.items()
        for task, sequence, _ in output
        if task < TASKS
    }
    wins = sum(task < TASKS for output in outputs.values() for task, _, _ in output)
    lost = [
        (n, misled) for output in outputs.values() for task, n, misled in output if task == TASKS
    ]
    wrong = sum(winners.get(sequence) != one for sequence, one in enumerate(data))
    return Race(len(data), wins, sum(n for n, _ in lost), wrong + sum(n for _, n in lost))


def _raced(
    names: list[str], address: str, rounds: int, directory: Path
) -> dict[str, list[tuple[int, int, int]]]:
    """Have these clients race to their end; return what each has said."""
    processes = {}
    try:
        for name in names:
            with (directory / name).open("wb") as file:
                processes[name] = _start("client", address, name, str(rounds), stdout=file)
        for process in processes.values():
            assert process.wait(20 * PATIENCE) == 0
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return {name: list(_notes(directory / name)) for name in names}


# both


def _start(*arguments: str, stdout: object = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.remote.daemon.keys", *arguments]
    root = Path(__file__).parents[3]
    return subprocess.Popen(command, cwd=root, stdout=stdout)  # type: ignore[call-overload,no-any-return]


def _await(condition: object, process: subprocess.Popen[bytes]) -> None:
    deadline = monotonic() + PATIENCE
    while not condition():  # type: ignore[operator]
        if process.poll() is not None:  # it has come to its end before
            return
        assert monotonic() < deadline, "it does not get on"
        sleep(0.005)


async def _data(path: Path) -> list[bytes]:
    async with Store.open(path, sync_policy=Always()) as store:
        return [record.data async for record in store.scan()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.remote.daemon.keys", description=__doc__)
    parser.add_argument("what", choices=["kills", "race"])
    parser.add_argument("--appends", type=int, default=100_000, help="(default: 100,000)")
    parser.add_argument("--kills", type=int, default=100, help="(default: 100)")
    parser.add_argument("--rounds", type=int, default=20_000, help="(default: 20,000)")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keys-", dir=".") as directory:
        path = Path(directory).resolve()
        if asked.what == "kills":
            tally = kill(path, asked.appends, asked.kills, asked.seed)
            failed = tally.missing + tally.doubled + tally.different
            lines = tally._asdict()
        else:
            raced = run_race(path, asked.rounds)
            failed = raced.wrong + (raced.winners != raced.records)
            lines = raced._asdict()
    sys.stdout.write("".join(f"{key} {value:,}\n" for key, value in lines.items()))
    return int(failed > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["writer"]:
        asyncio.run(produce(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
    elif sys.argv[1:2] == ["client"]:
        asyncio.run(race(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        sys.exit(main())
