"""serve: the command that serves a store, from its start to its end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from socket import socket
from typing import Any
from urllib.request import urlopen

import pytest

from aquipu import (
    Archive,
    Reader,
    Receipt,
    Record,
    Stage,
    Store,
    StoreFailedError,
    StoreUnavailableError,
)
from aquipu.cli.metrics import Place
from aquipu.local.check.at_work import look_into
from aquipu.local.disk.disk import Disk
from tests.cli.served import LISTENS, ended, serving
from tests.cli.support import run
from tests.remote.daemon.restarts import repeat
from tests.support import data_in, segments_in

METRICS = re.compile(r"aquipu: metrics at (http://127\.0\.0\.1:[0-9]+/metrics)\n")


async def append(path: Path, *data: bytes) -> list[Receipt]:
    async with Store.connect(f"unix:{path}/socket") as store:
        return await store.append_many(data)


async def records_of(path: Path) -> list[Record]:
    async with Reader.open(path / "store") as reader:
        return [record async for record in reader.scan()]


ENDS = [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
"""SIGTERM is how whatever starts a daemon tells it to stop: that is no failure.

The others are a shell's.
"""


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """What was appended is stored, the socket is gone, the store is closed, and the exit code says
    what ended it.
    """
    with serving(tmp_path) as process:
        (receipt,) = asyncio.run(append(tmp_path, b"x"))
        assert receipt.stage is Stage.FLUSHED
        assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o600
        process.send_signal(number)
        assert ended(process, code) == "aquipu: 1 record stored, all of them on the disk\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]
    assert data_in(tmp_path / "store") == [b"x"]


def test_a_signal_while_clients_append(tmp_path: Path) -> None:
    """What is under way is answered; the client goes on with the next daemon, and nothing is there
    twice.
    """

    async def appending() -> int:
        count = 0
        with serving(tmp_path) as process:
            store = await Store.connect(f"unix:{tmp_path}/socket", timeout=60)
            for _ in range(2):
                await asyncio.gather(
                    *(store.append(b"%d" % (count + number)) for number in range(500))
                )
                count += 500
            going = [
                asyncio.ensure_future(store.append(b"%d" % (count + number)))
                for number in range(500)
            ]
            await asyncio.sleep(0)
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(ended, process, 0)
        with serving(tmp_path):
            await asyncio.gather(*going)
            await store.aclose()
        return count + 500

    assert asyncio.run(first_daemon_later(tmp_path)) == [b"early"]
    assert asyncio.run(appending()) == 1500
    assert sorted(map(int, data_in(tmp_path / "store")[1:])) == list(range(1500))


async def first_daemon_later(path: Path) -> list[bytes]:
    """A client that was there before its daemon."""
    appending = asyncio.ensure_future(append(path, b"early"))
    await asyncio.sleep(0)
    with serving(path) as process:
        await appending
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(ended, process, 0)
    return [record.data for record in await records_of(path)]


def test_it_waits_for_the_one_before_it(tmp_path: Path) -> None:
    """A reload starts the new one before the old one has gone: it takes the socket over when it has
    the store.
    """
    with serving(tmp_path) as old:
        asyncio.run(append(tmp_path, b"old"))
        with serving(tmp_path, listens=False) as new:
            old.send_signal(signal.SIGTERM)
            ended(old, 0)
            assert new.stderr is not None
            assert LISTENS.fullmatch(new.stderr.readline())
            asyncio.run(append(tmp_path, b"new"))
            new.send_signal(signal.SIGTERM)
            ended(new, 0)
    assert data_in(tmp_path / "store") == [b"old", b"new"]


def test_its_metrics(tmp_path: Path) -> None:
    """--metrics answers over HTTP with the statistics of the store, and no longer than the daemon
    lives.
    """
    with serving(tmp_path, "--metrics", "0", listens=False) as process:
        assert process.stderr is not None
        said = METRICS.fullmatch(process.stderr.readline())
        assert said is not None
        assert LISTENS.fullmatch(process.stderr.readline())
        asyncio.run(append(tmp_path, b"x", b"y"))
        with urlopen(said[1], timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        assert f'aquipu_next_sequence{{store="{tmp_path}/store"}} 2.0' in lines
        assert f'aquipu_state{{state="open",store="{tmp_path}/store"}} 1.0' in lines
        assert any(line.startswith("process_open_fds ") for line in lines)
        process.send_signal(signal.SIGTERM)
        ended(process, 0)


def test_segments_that_are_full_are_compressed(tmp_path: Path) -> None:
    """--compress replaces them, those that are there when it begins included."""
    asyncio.run(filled(tmp_path / "store"))
    with serving(tmp_path, "--compress") as process:
        while not (found := look_into(Disk(), str(tmp_path / "store")).compressed):
            time.sleep(0.01)
        assert (found.segments, found.bytes < found.plain_bytes / 2) == (1, True)
        process.send_signal(signal.SIGTERM)
        ended(process, 0)


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ((), {}),
        (("--archive-hold",), {"hold": True}),
        (("--archive-interval", "7"), {"interval": 7}),
        (("--archive-compress", "--compress"), {"compress": True}),
        (("--option", "region=x"), {"region": "x"}),
    ],
)
def test_its_archive(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    meant: dict[str, Any],
) -> None:
    """All that an archive can be told is an option: whether it holds, how often it looks, whether
    it compresses, and how it is reached.
    """
    opened: list[object] = []

    def refused(*_: object, archive: object, **__: object) -> None:
        opened.append(archive)
        raise StoreUnavailableError("store", "open", "no matter")

    monkeypatch.setattr(Store, "open", refused)
    arguments = ("serve", tmp_path / "store", "--socket", tmp_path / "socket")
    assert run(*arguments, "--archive", "s3://bucket/log", *options).returncode == 4
    assert opened == [Archive("s3://bucket/log", **meant)]
    assert run(*arguments).returncode == 4
    assert opened[1:] == [None]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--archive-hold",), b"--archive-hold"),
        (("--archive-interval", "7"), b"--archive-interval"),
        (("--archive-compress",), b"--archive-compress"),
        (("--option", "region=x"), b"--option"),
        (("--archive", "elsewhere"), b"--archive"),
        (("--archive", "s3://bucket/log", "--archive-interval", "0"), b"interval is a positive"),
    ],
)
def test_an_archive_that_cannot_be(tmp_path: Path, options: tuple[str, ...], named: bytes) -> None:
    """What is said of an archive where there is none is a usage error, which names the option."""
    done = run("serve", tmp_path / "store", "--socket", tmp_path / "socket", *options)
    assert (done.returncode, named in done.stderr) == (2, True)
    assert not (tmp_path / "store").exists()


async def filled(path: Path) -> None:
    async with Store.open(path) as store:
        await store.append_many([b"a record like the others"] * 1000)
        await store.roll()


def test_metrics_that_cannot_be(tmp_path: Path) -> None:
    """A place that is taken, and a package that is missing: a sentence that says what to do, and
    the store is closed.
    """
    arguments = (
        "serve",
        str(tmp_path / "store"),
        "--socket",
        str(tmp_path / "socket"),
        "--metrics",
    )
    with socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run(*arguments, f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.returncode, b"in use" in done.stderr) == (4, True)
    without = (
        "import sys; sys.modules['prometheus_client'] = None; from aquipu.__main__ import main; "
        "main()"
    )
    missing = subprocess.run(
        [sys.executable, "-c", without, *arguments, "0"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (missing.returncode, b"pip install -e '.[prometheus]'" in missing.stderr) == (2, True)
    assert data_in(tmp_path / "store") == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("metrics.example:65535", ("metrics.example", 65535)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_where_metrics_are_answered(text: str, place: tuple[str, int]) -> None:
    """A port, or a host and a port; without a host only this machine is answered."""
    assert Place.parsed(text) == place


def test_a_store_that_is_in_use(tmp_path: Path) -> None:
    """Exit code 3 after the time that it was told to wait, and a signal ends the waiting."""
    with serving(tmp_path):
        locked = run(
            "serve", tmp_path / "store", "--socket", tmp_path / "other", "--lock-timeout", "0"
        )
        assert locked.returncode == 3
        assert b"is in use by process" in locked.stderr
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("number", "code"), ENDS)
def test_a_signal_while_it_waits_for_the_lock(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """It ends at once, with the same exit code: nothing was begun."""

    command = [
        sys.executable,
        "-c",
        WAITS,
        "serve",
        str(tmp_path / "store"),
        "--socket",
        str(tmp_path / "other"),
    ]
    with serving(tmp_path), subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waits\n"
        process.send_signal(number)
        assert ended(process, code) == ""


WAITS = """
import sys
import time
from aquipu.__main__ import main
from aquipu.local.disk.disk import Disk
def told(self, path, *, shared=False, try_lock_directory=Disk.try_lock_directory):
    found = try_lock_directory(self, path, shared=shared)
    if found is None:
        print("waits", file=sys.stderr, flush=True)
        Disk.try_lock_directory = try_lock_directory
    return found
Disk.try_lock_directory = told
main()
"""


def test_a_socket_that_cannot_be(tmp_path: Path) -> None:
    """Exit code 4 and a sentence; the store is closed again."""
    for name, reason in (
        ("x" * 200, b"too long"),
        ("missing/socket", b"No such file"),
        ("store", b"no socket"),
    ):
        done = run("serve", tmp_path / "store", "--socket", tmp_path / name)
        assert done.returncode == 4
        assert reason in done.stderr
    done = run(
        "serve", tmp_path / "store", "--socket", tmp_path / "socket", "--group", "nobody-at-all"
    )
    assert (done.returncode, b"no group nobody-at-all" in done.stderr) == (4, True)


@pytest.mark.parametrize(
    "options",
    [
        *(
            ["--sync-policy", "never"],
            ["--retain-days", "0"],
            ["--retain-days", "nan"],
            ["--retain-days", "-1"],
        ),
        *(
            ["--metrics", "here"],
            ["--metrics", "65536"],
            ["--metrics", "host:"],
            ["--metrics", "-1"],
        ),
        *(
            ["--retain-bytes", "0"],
            ["--retain-bytes", "many"],
            ["--lock-timeout", "-1"],
            ["--group"],
            ["--max-segment-age", "0"],
            ["--max-segment-age", "inf"],
        ),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: list[str]) -> None:
    """A usage error that names the option, before anything is made."""
    done = run("serve", tmp_path / "store", "--socket", tmp_path / "socket", *options)
    assert done.returncode == 2
    assert options[0].encode() in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_socket(tmp_path: Path) -> None:
    done = run("serve", tmp_path / "store")
    assert done.returncode == 2
    assert b"--socket" in done.stderr


def test_it_lets_go_of_what_is_old(tmp_path: Path) -> None:
    """--retain-bytes and --retain-days are the retention of the store: the oldest sealed segments
    go.
    """

    async def fill() -> None:
        async with Store.open(tmp_path / "store", max_segment_bytes=4096) as store:
            for _ in range(10):
                await store.append(bytes(3000))

    asyncio.run(fill())
    before = len(segments_in(tmp_path / "store"))
    with serving(tmp_path, "--retain-bytes", "10000", "--retain-days", "365") as process:
        (receipt,) = asyncio.run(append(tmp_path, b"x"))
        assert receipt.sequence == 10
        process.send_signal(signal.SIGTERM)
        ended(process, 0)
    assert 0 < len(segments_in(tmp_path / "store")) < before


def test_it_lets_go_of_what_is_old_also_when_nobody_appends(tmp_path: Path) -> None:
    """--max-segment-age with --retain-days: what is older than both together goes by itself."""
    second = str(1 / 86_400)

    async def gone() -> None:
        async with Reader.open(tmp_path / "store") as reader:
            while (await reader.page()).records:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.05)

    with serving(tmp_path, "--max-segment-age", "0.1", "--retain-days", second) as process:
        asyncio.run(append(tmp_path, b"x"))
        asyncio.run(asyncio.wait_for(gone(), 60))
        process.send_signal(signal.SIGTERM)
        ended(process, 0)


FAILS = """
import sys
import time
from errno import EIO
from aquipu.__main__ import main
from aquipu.local.disk.disk import Disk
def fail(self, *call):
    raise OSError(EIO, "Input/output error")
write = Disk.write
def writes(self, descriptor, buffers, offset):
    if b"the end" in b"".join(buffers):
        fail(self)
    write(self, descriptor, buffers, offset)
Disk.write = writes
Disk.write_synced = lambda self, *call: False
main()
"""


def test_a_disk_that_fails_ends_it(tmp_path: Path) -> None:
    """Exit code 4: only the next daemon can see what is there.

    The client is told, and goes on with that one.
    """

    async def appending() -> None:
        store = await Store.connect(f"unix:{tmp_path}/socket", timeout=60)
        await store.append(b"before")
        with pytest.raises(StoreFailedError):
            await store.append(b"the end")
        assert "has failed" in await asyncio.to_thread(ended, failing, 4)
        with serving(tmp_path) as process:
            await store.append(b"after")
            await store.aclose()
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(ended, process, 0)

    command = [
        sys.executable,
        "-c",
        FAILS,
        "serve",
        str(tmp_path / "store"),
        "--socket",
        str(tmp_path / "socket"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as failing:
        assert failing.stderr is not None
        failing.stderr.readline()
        asyncio.run(appending())
    assert data_in(tmp_path / "store") == [b"before", b"after"]


@pytest.mark.proof
def test_killed_and_started_anew_while_many_append(tmp_path: Path) -> None:
    """SIGKILL of the daemon, and of a client, under load: nothing acknowledged is lost, nothing is
    there twice, and each task's records are in its order. `python -m tests.remote.daemon.restarts`
    does it as often as it is told.
    """
    tally = repeat(tmp_path, kills=2, client_kills=1, seed=os.getpid())
    assert (tally.lost, tally.doubled, tally.disordered) == (0, 0, 0)
    assert (tally.kills, tally.clients_killed) == (2, 1)
    assert tally.acknowledged > 1000
