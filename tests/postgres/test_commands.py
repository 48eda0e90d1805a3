"""The commands with the address of a log in a database in the place of a directory."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.cli.support import run, well
from tests.postgres.server import Server


def test_records_go_there_and_come_back(address: str) -> None:
    """append, import, and all that read, find and count."""
    done = run("append", address, "--relation", "user:7", input=b"one\ntwo\n")
    assert (done.returncode, done.stderr) == (0, b"2 records appended, last sequence 1, SYNCED\n")
    well("import", address, "-", "--label", "actor=.by", input=b'{"by": "ada"}\n')
    assert well("cat", address) == b'one\ntwo\n{"by": "ada"}\n'
    assert well("cat", "--reverse", "--limit", "1", address) == b'{"by": "ada"}\n'
    assert well("find", address, "user:7") == b"one\ntwo\n"
    assert well("get", address, "1") == b"two\n"
    assert well("tail", "-n", "1", address) == b'{"by": "ada"}\n'
    assert well("follow", "--start", "1", "--limit", "1", address) == b"two\n"
    assert json.loads(well("relations", "--json", address)) == {"actor:ada": 1, "user:7": 2}
    assert well("export", "--format", "csv", address).count(b"\n") == 4


def test_what_is_kept_and_what_goes(address: str) -> None:
    """Cursors, holds and purges."""
    for line in (b"one\n", b"two\n", b"three\n"):
        well("append", address, input=line)
    well("follow", "--cursor", "billing", "--hold", "--limit", "1", address)
    assert json.loads(well("cursors", "--json", address))["billing"]["records"] == 2
    assert json.loads(well("hold", "--json", address)) == {"cursor.billing": 1}
    well("hold", address, "audit", "2")
    said = json.loads(well("purge", "--json", "--before", "3", address))
    assert (said["first_sequence"], said["held_by"], said["held_from"]) == (1, "cursor.billing", 1)
    well("hold", address, "cursor.billing", "--release")
    assert well("purge", "--before", "3", address).endswith(
        b"the log begins with sequence 2; the hold audit keeps everything from sequence 2 on\n"
    )
    assert well("cat", address) == b"three\n"


def test_top_shows_what_its_readers_see(address: str) -> None:
    """How far it reaches; the writer is not asked. No password is shown."""
    well("append", address, input=b"one\ntwo\n")
    view = json.loads(well("top", "--json", "--interval", "0.1", address))
    assert (view["acknowledged"], view["health"], view["measured"]) == (2, "ok", False)


def test_a_look_at_a_log(server: Server, address: str) -> None:
    """info says what it holds, verify whether it is sound, and where it is not."""
    well("append", address, input=b"one\ntwo\n")
    info = json.loads(well("info", "--json", address))
    assert (info["path"], info["records"], info["synced_sequence"]) == (address, 2, 2)
    assert b"sequences       0 to 1\n" in well("info", address)
    assert well("verify", address).endswith(b"no damage\n")
    alter(server, address, "UPDATE aquipu.batches SET data = 'onetwX' WHERE log = {}")
    damaged = run("verify", "--json", address)
    assert damaged.returncode == 1
    assert json.loads(damaged.stdout)["damages"][0]["sequence"] == 0
    alter(server, address, "DELETE FROM aquipu.batches WHERE log = {}")
    assert b"are missing" in run("verify", address).stdout


def alter(server: Server, address: str, statement: str) -> None:
    """Do something to the tables of a log; {} is its number."""

    async def altered() -> None:
        connection = await asyncpg.connect(server.url)
        name = address.rpartition("=")[2]
        number = await connection.fetchval("SELECT id FROM aquipu.logs WHERE name = $1", name)
        await connection.execute(statement.format(number))
        await connection.close()

    asyncio.run(altered())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("cat",), 2, b"has no log"),
        (("purge", "--before", "1"), 2, b"has no log"),
        (("repair",), 2, b"has no files here"),
        (("backup", "x"), 2, b"has no files here"),
        (("append", "--mode", "640"), 2, b"has no files"),
    ],
)
def test_what_cannot_be(address: str, arguments: tuple[str, ...], code: int, said: bytes) -> None:
    """One clear error, and nothing is made."""
    name, *options = arguments
    done = run(name, address, *options)
    assert done.returncode == code
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


def test_making_the_tables(server: Server) -> None:
    """migrate makes them once; before, nothing opens."""
    alter(server, "", "CREATE DATABASE made_by_command")
    url = server.url.rpartition("/")[0] + "/made_by_command"
    refused = run("cat", f"{url}?log=a")
    assert refused.returncode == 4
    assert b"aquipu migrate" in refused.stderr
    assert b"would be brought from version 0" in well("migrate", "--dry-run", url)
    assert json.loads(well("migrate", "--json", url))["version_before"] == 0
    assert b"nothing to do" in well("migrate", url)
    well("append", f"{url}?log=a", input=b"one\n")


def test_without_the_driver(tmp_path: Path) -> None:
    """The error names the extra."""
    (tmp_path / "asyncpg.py").write_text("raise ImportError('no')")
    done = subprocess.run(
        [sys.executable, "-m", "aquipu", "cat", "postgresql://host/db?log=a"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    assert done.returncode == 2
    assert b"in the checkout of aquipu, pip install -e '.[postgres]'" in done.stderr
    assert b"Traceback" not in done.stderr
