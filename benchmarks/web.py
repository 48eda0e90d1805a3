"""The page, its streams and `aquipu top`: what they cost the writer, how soon a record reaches 500
browsers, and how long the page takes in a large log.

``python -m benchmarks.web view PORT`` is a page that is looked at; ``python -m benchmarks.web
follow PORT COUNT`` are so many clients of the stream of records. It gives, at its end, the moment
at which each record came to each of them, on the clock that all processes share. ``python -m
benchmarks.web paced COUNT SECONDS`` measures so many clients alone, ``python -m benchmarks.web
cost ROUNDS`` what the writer has left when it is looked at.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from time import monotonic_ns, perf_counter, sleep
from typing import Any

from aquipu import EveryN, Store
from benchmarks.contender import scratch
from benchmarks.latency import Latencies
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.servers import LeftOut
from benchmarks.settings import RECORD, Settings, full
from benchmarks.workload import throughput

_CALLERS = 1024
_CLIENTS = 500
_RATE = 100  # appends/s that they follow
_HITS = 50  # of the label that is sought
_COMMIT = 500  # records, in the store that is looked at
_VIEWED, _TOP, _UNSEEN = "looked at with aquipu web", "looked at with aquipu top", "not looked at"
_FOLLOWED, _ALONE = f"followed by {_CLIENTS}", "followed by nobody"
_PAGE = "the page"
_ROOT = Path(__file__).resolve().parents[1]
_SHOWN = re.compile(rb"aquipu: .* is shown at http://127\.0\.0\.1:([0-9]+)/\n")
_ID = re.compile(rb"id: ([0-9]+)\n")
_TICKS = os.sysconf("SC_CLK_TCK")


def run(settings: Settings, progress: Progress) -> Report:
    """The writer with a page and without, as fast as it goes; clients at a pace; a large log."""
    report = Report("web")
    try:
        _check_installed(settings)
    except LeftOut as reason:
        report.notes.append(f"aquipu web left out: {reason}")
        return report
    contenders: dict[str, Contender] = {
        **{name: partial(_unpaced, settings, name) for name in (_VIEWED, _TOP, _UNSEEN)},
        _FOLLOWED: lambda: _paced(settings, _CLIENTS),
        _ALONE: lambda: _paced(settings, 0),
    }
    rounds = interleaved(contenders, settings.rounds, progress)
    progress.expect(1)
    progress.step(_PAGE)
    rounds |= Rounds({_PAGE: [_large(settings)]})
    report.rounds = rounds
    report.tables = [_cost_table(rounds), _delay_table(rounds), _page_table(settings, rounds)]
    report.targets = _targets(settings, rounds)
    return report


def _check_installed(settings: Settings) -> None:
    if not settings.servers:
        raise LeftOut("--no-servers")
    for name in ("starlette", "uvicorn", "typer"):
        try:
            import_module(name)
        except ImportError:
            raise LeftOut(f"{name} is not installed (pip install -e '.[cli,web]')") from None


# what runs


def _unpaced(settings: Settings, looked_at: str) -> Sample:
    """Appends as fast as they go, and the CPU of what looks at them."""

    async def measured(path: Path) -> float:
        async with Store.open(path, sync_policy=EveryN(64)) as store:
            return await throughput(store.append, _CALLERS, settings.seconds * 3)

    with scratch(settings) as directory, ExitStack() as stack:
        path = directory / "store"
        in_loop(settings, lambda: _make(path))
        pid = None
        if looked_at == _VIEWED:
            port, pid = stack.enter_context(_shown(path))
            stack.enter_context(_client("view", str(port)))
        elif looked_at == _TOP:
            pid = stack.enter_context(_top(path))
        began, used = perf_counter(), _cpu_seconds(pid)
        rate = in_loop(settings, lambda: measured(path))
        share = (_cpu_seconds(pid) - used) / (perf_counter() - began)
    return {"appends/s": rate, "CPU of it": share}


def _paced(settings: Settings, clients: int) -> Sample:
    """Appends at a pace, how long each took, and when each came to each client."""
    total = max(int(_RATE * settings.following_seconds / 2), 20)

    async def measured(path: Path) -> tuple[Latencies, array[int]]:
        taken, acknowledged = Latencies(), array("q")
        async with Store.open(path, sync_policy=EveryN(64)) as store:
            begin = perf_counter()
            for number in range(total):
                await asyncio.sleep(max(begin + number / _RATE - perf_counter(), 0))
                asked = perf_counter()
                await store.append(RECORD)
                acknowledged.append(monotonic_ns())
                taken.note(perf_counter() - asked)
        return taken, acknowledged

    with scratch(settings) as directory, ExitStack() as stack:
        path = directory / "store"
        in_loop(settings, lambda: _make(path))
        following = pid = None
        if clients:
            port, pid = stack.enter_context(_shown(path))
            following = stack.enter_context(_client("follow", str(port), str(clients), str(total)))
        began, used = perf_counter(), _cpu_seconds(pid)
        taken, acknowledged = in_loop(settings, lambda: measured(path))
        spent = _cpu_seconds(pid) - used
        share = spent / (perf_counter() - began)
        delays = Latencies()
        if following is not None:
            came = array("q")
            came.frombytes(following.communicate()[0])
            if len(came) != clients * total:
                raise RuntimeError(f"{len(came)} of {clients * total} records have come")
            for index, moment in enumerate(came):
                delays.note(max(moment - acknowledged[index % total], 0) / 1e9)
    return {
        "append p50": taken.percentile(50),
        "append p99": taken.percentile(99),
        "CPU": share,
        **({f"delay p{one}": delays.percentile(one) for one in (50, 99)} if clients else {}),
        **({"CPU each": spent / clients / total} if clients else {}),
    }


def _large(settings: Settings) -> Sample:
    """How long the questions of the page take, in a log of many records with three labels each."""
    total = settings.labelled
    rare = max(total // _HITS, 1)

    async def fill(path: Path) -> None:
        async with Store.open(path, sync_policy=EveryN(4096)) as store:
            for begin in range(0, total, _COMMIT):
                waiting = [
                    store.append_nowait(
                        RECORD[:90],
                        relations=(
                            f"user:{number % 10_007}",
                            f"kind:{number % 19}",
                            "rare" if number % rare == 0 else "common",
                        ),
                    )
                    for number in range(begin, min(begin + _COMMIT, total))
                ]
                await asyncio.gather(*waiting)

    with scratch(settings) as directory:
        path = directory / "store"
        in_loop(settings, lambda: fill(path))
        # what a store at work has built, and this one was closed too soon for
        index = [sys.executable, "-m", "aquipu", "index", str(path)]
        subprocess.run(index, cwd=_ROOT, check=True, capture_output=True)
        with _shown(path) as (port, _):
            first = sum(
                _asked(port, target)
                for target in ("/", "/static/page.js", "/api/status", "/api/records?bytes=400")
            )
            at_once = _asked(port, "/api/records?relation=rare")
            with _client("view", str(port)):
                sleep(settings.following_seconds / 3)  # the page is open
            return {
                "first view": first,
                "rare label, at once": at_once,
                "rare label": _asked(port, "/api/records?relation=rare"),
                "labels": _asked(port, "/api/labels?prefix=user:1"),
                "bars": _asked(port, "/api/rate?step=60&count=60"),
                "older page": _asked(port, f"/api/records?before={total // 2}"),
            }


def _asked(port: int, target: str) -> float:
    """Return how long an answer takes, in seconds."""
    from urllib.request import urlopen

    began = perf_counter()
    with urlopen(f"http://127.0.0.1:{port}{target}", timeout=60) as answer:
        answer.read()
    return perf_counter() - began


async def _make(path: Path) -> None:
    async with Store.open(path):
        pass


def _cpu_seconds(pid: int | None) -> float:
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def _shown(path: Path) -> Iterator[tuple[int, int]]:
    """`aquipu web` in a process of its own: its port and its pid."""
    command = [sys.executable, "-m", "aquipu", "web", str(path), "--port", "0"]
    with subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = _SHOWN.fullmatch(line)
            if found is None:
                raise RuntimeError((line + process.stderr.read()).decode())
            yield int(found[1]), process.pid
        finally:
            process.kill()


@contextmanager
def _top(path: Path) -> Iterator[int]:
    """`aquipu top` on a terminal, which takes what it draws: its pid."""
    far, near = os.openpty()
    command = [sys.executable, "-m", "aquipu", "top", str(path)]
    with subprocess.Popen(command, cwd=_ROOT, stdin=near, stdout=near) as process:
        try:
            os.close(near)
            seen = b""
            while b"q quits" not in seen:
                seen += os.read(far, 65536)
            Thread(target=_drain, args=(far,), daemon=True).start()
            yield process.pid
        finally:
            process.kill()


def _drain(descriptor: int) -> None:
    with suppress(OSError):  # how Linux says that nobody is left
        while os.read(descriptor, 65536):
            pass
    os.close(descriptor)


@contextmanager
def _client(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Clients in a process of their own, which are connected when the block begins."""
    command = [sys.executable, "-m", "benchmarks.web", *words]
    with subprocess.Popen(
        command, cwd=_ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            if process.stdout.readline() != b"connected\n":
                raise RuntimeError("the clients have failed to begin")
            yield process
        finally:
            process.kill()


# in the process of the clients


class _Follower(asyncio.Protocol):
    """One client of the stream: when each record came."""

    def __init__(self, total: int) -> None:
        self.moments = array("q", bytes(8 * total))
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()
        self._left = total
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        now = monotonic_ns()
        self.begun.set()
        data = self._rest + data
        at = data.rfind(b"\n")
        self._rest = data[at + 1 :]
        for found in _ID.finditer(data, 0, at + 1):
            self.moments[int(found[1])] = now
            self._left -= 1
        if self._left <= 0:
            self.ended.set()


async def _connected(protocol: asyncio.Protocol, port: int, target: str) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(lambda: protocol, "127.0.0.1", port)
    transport.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return transport


async def follow(port: int, clients: int, total: int) -> None:
    """Follow with so many clients; write when each record came to each of them."""
    followers = [_Follower(total) for _ in range(clients)]
    for follower in followers:
        await _connected(follower, port, "/api/events?start=earliest")
        await follower.begun.wait()
    sys.stdout.buffer.write(b"connected\n")
    sys.stdout.buffer.flush()
    for follower in followers:
        await follower.ended.wait()
    for follower in followers:
        sys.stdout.buffer.write(follower.moments.tobytes())


class _Viewer(asyncio.Protocol):
    """A page that is looked at."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.begun.set()


async def view(port: int) -> None:
    """Look at a page until this process is killed."""
    viewer = _Viewer()
    await _connected(viewer, port, "/api/live")
    await viewer.begun.wait()
    sys.stdout.buffer.write(b"connected\n")
    sys.stdout.buffer.flush()
    await asyncio.Event().wait()


# what is shown


def _cost_table(rounds: Rounds) -> Table:
    rows = []
    for name in (_VIEWED, _TOP, _UNSEEN):
        cells = [name, count(rounds.median(name, "appends/s"))]
        if name != _UNSEEN:
            cells.append(times(rounds.ratio(name, _UNSEEN, "appends/s")))
            cells.append(f"{rounds.median(name, 'CPU of it'):.1%}")
        rows.append([*cells, *[""] * (4 - len(cells))])
    title = f"A store at work, looked at: {_CALLERS:,} callers under EveryN(64)"
    return Table(title, ["", "appends/s", "of those not looked at", "CPU of it, of one core"], rows)


def _delay_table(rounds: Rounds) -> Table:
    rows = []
    for name in (_FOLLOWED, _ALONE):
        quantities = [
            "append p50",
            "append p99",
            *(["delay p50", "delay p99"] * (name == _FOLLOWED)),
        ]
        shown = [milliseconds(rounds.median(name, quantity)) for quantity in quantities]
        each = ""
        if name == _FOLLOWED:
            each = f"{rounds.median(name, 'CPU each') * 1e6:.1f} µs"
        share = f"{rounds.median(name, 'CPU'):.0%}"
        rows.append([name, *shown, *[""] * (4 - len(shown)), share, each])
    title = (
        f"Server-sent events of `aquipu web` at {_RATE} appends/s, from acknowledgement to client"
    )
    columns = [
        *("", "append, median", "append, 99 %", "delay, median", "delay, 99 %", "CPU"),
        "of it, an event and client",
    ]
    return Table(title, columns, rows)


def _page_table(settings: Settings, rounds: Rounds) -> Table:
    [sample] = rounds.samples[_PAGE]
    rows = [[name, milliseconds(value)] for name, value in sample.items()]
    return Table(f"The page in {settings.labelled:,} records", ["question", "answered in"], rows)


def _targets(settings: Settings, rounds: Rounds) -> list[Target]:
    [page] = rounds.samples[_PAGE]
    return [
        *(
            Target(f"throughput, {name}", rounds.ratio(name, _UNSEEN, "appends/s"), 0.97)
            for name in (_VIEWED, _TOP)
        ),
        Target(
            "delay to clients, 99 %, ms",
            rounds.median(_FOLLOWED, "delay p99") * 1e3,
            50.0,
            at_least=False,
        ),
        Target(
            "99 % of an append, followed and not",
            rounds.ratio(_FOLLOWED, _ALONE, "append p99"),
            1.5,
            at_least=False,
        ),
        Target("first view, ms", page["first view"] * 1e3, 500.0, at_least=False),
        Target(f"a label with {_HITS} hits, ms", page["rare label"] * 1e3, 100.0, at_least=False),
    ]


def _cost(rounds: int) -> None:
    with TemporaryDirectory(prefix="benchmarks-", dir=".") as directory:
        settings = full(Path(directory), servers=True)
        for _ in range(rounds):
            for name in (_UNSEEN, _VIEWED, _TOP):
                sample = _unpaced(settings, name)
                sys.stdout.write(f"{name}: {sample['appends/s']:,.0f} appends/s\n")


def _main(arguments: Sequence[str]) -> Any:
    what, *numbers = arguments
    if what == "view":
        return asyncio.run(view(int(numbers[0])))
    if what == "cost":
        return _cost(int(numbers[0]))
    if what == "paced":
        clients, seconds = map(int, numbers)
        with TemporaryDirectory(prefix="benchmarks-", dir=".") as directory:
            settings = replace(full(Path(directory), servers=True), following_seconds=2 * seconds)
            sys.stdout.write(f"{_paced(settings, clients)}\n")
            return None
    return asyncio.run(follow(*map(int, numbers)))


if __name__ == "__main__":
    _main(sys.argv[1:])
