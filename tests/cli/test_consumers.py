"""Consumers on the command line: following with a cursor, and how far each is behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from signal import SIGKILL
from time import sleep

import pytest

from aquipu import Reader, Store
from aquipu.local.cursor import LocalCursor
from tests.cli.support import COMMAND, LINES, run, spawn, well
from tests.remote.daemon.served import served


async def read_lines(path: Path, number: int, *options: str) -> list[bytes]:
    """What follow writes first; then it is killed."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "follow", "--raw", path, *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(number)]
    process.send_signal(SIGKILL)
    assert await process.wait() == -SIGKILL
    return lines


async def place_of(path: Path, name: str) -> int | None:
    async with Reader.open(path) as reader:
        return await reader.cursor(name).load()


def test_following_with_a_cursor(tmp_path: Path) -> None:
    """A new one begins with the first record. Killed, it goes on where it was: each record is
    written at least once, and none before its place is skipped.
    """
    path = tmp_path / "store"
    well("append", "--raw", path, input=b"".join(LINES[:3]))

    async def work() -> None:
        assert await read_lines(path, 3, "--cursor", "billing") == LINES[:3]
        place = await place_of(path, "billing")
        assert place in (2, 3)  # the last line was out, perhaps not yet its place
        async with Store.open(path) as store:
            await store.append(LINES[3])
        assert await read_lines(path, 1, "--cursor", "billing") == [LINES[place]]

    asyncio.run(work())


def test_where_a_cursor_is_goes_before_a_start(store: Path) -> None:
    """A start is for one that was never saved."""

    async def work() -> None:
        assert await read_lines(store, 1, "--cursor", "new", "--start", "30") == [LINES[30]]
        async with Store.open(store) as opened:
            await opened.cursor("old").save(31)
        assert await read_lines(store, 1, "--cursor", "old", "--start", "0") == [LINES[31]]

    asyncio.run(work())


def test_a_cursor_passes_over_records_without_the_label(
    labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is saved behind each record that is out, and not for each that is passed over: every save
    is a sync. At the end of the log it is saved behind all of them.
    """
    saved: list[int] = []
    save = LocalCursor.save

    async def noting(cursor: LocalCursor, sequence: int) -> None:
        saved.append(sequence)
        await save(cursor, sequence)

    monkeypatch.setattr(LocalCursor, "save", noting)
    options = ("--cursor", "new", "--relation", "tens", "--limit", "4", "--raw")
    assert well("follow", labelled, *options) == b"".join(LINES[::10])
    assert saved[-1] == 31
    assert {1, 11, 21, 31} <= set(saved)
    assert len(saved) < 12

    command = [*COMMAND, "follow", str(labelled), "--cursor", "new", "--relation", "tens"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while asyncio.run(place_of(labelled, "new")) != 40:
            sleep(0.02)
        process.kill()


def test_a_name_that_no_cursor_has(store: Path) -> None:
    """It is a usage error."""
    done = run("follow", store, "--cursor", "../x")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--cursor" in done.stderr


def test_the_cursors_of_a_store(store: Path) -> None:
    """Each is listed with what it has not passed yet, while the store is written and after."""
    assert well("cursors", store) == b""

    async def work() -> None:
        async with Store.open(store) as opened:
            await opened.cursor("mail").save(40)
            await opened.cursor("billing").save(30)
            found = json.loads((await asyncio.to_thread(spawn, "cursors", store, "--json")).stdout)
            assert found.pop("mail") == {"sequence": 40, "records": 0, "seconds": 0.0}
            assert found["billing"].pop("seconds") > 0
            assert found == {"billing": {"sequence": 30, "records": 10}}

    asyncio.run(work())
    rows = [line.split("\t") for line in well("cursors", store).decode().splitlines()]
    assert [(row[0], row[2], row[3]) for row in rows] == [
        *(("10", "30", "billing"), ("0", "40", "mail"))
    ]
    assert rows[1][1] == "0.000"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_cursors_of_no_store(tmp_path: Path, options: list[str]) -> None:
    """It is a usage error, as for every command."""
    assert run("cursors", tmp_path / "nothing", *options).returncode == 2


def test_the_cursors_of_a_store_that_a_daemon_writes(tmp_path: Path) -> None:
    """They are listed as those of a directory."""

    async def work() -> None:
        async with served(tmp_path) as it:
            await it.store.append_many([b"x"] * 3)
            await it.store.cursor("mail").save(1)
            done = await asyncio.to_thread(spawn, "cursors", it.address, "--json")
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
            assert found["mail"].pop("seconds") > 0
            assert found == {"mail": {"sequence": 1, "records": 2}}

    asyncio.run(work())


def test_following_with_a_cursor_that_holds(store: Path) -> None:
    """Nothing that it has not passed is purged; without a cursor, --hold is a usage error."""

    async def work() -> None:
        options = ("--cursor", "billing", "--hold")
        assert await read_lines(store, 1, *options) == LINES[:1]
        async with Store.open(store) as opened:
            holds = await opened.holds()
            assert list(holds) == ["cursor.billing"]
            assert holds["cursor.billing"] <= (await opened.cursor("billing").load() or 0)

    asyncio.run(work())
    done = run("follow", store, "--hold")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--cursor" in done.stderr
