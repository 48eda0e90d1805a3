"""The commands beside processes that share a store."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from aquipu import Always, Store
from tests.cli.support import spawn
from tests.remote.shared.members import member
from tests.support import segments_in

pytestmark = pytest.mark.asyncio


async def command(*arguments: str | Path, input: bytes = b"") -> bytes:
    """Run a command in a process of its own, which must go well; return what it wrote."""
    done = await asyncio.to_thread(spawn, *arguments, input=input)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_lines_are_appended_beside_them(tmp_path: Path) -> None:
    """The command joins them, and its records stand among theirs."""
    path = tmp_path / "store"
    async with member(path) as one:
        await one.append(b"before")
        await command("append", "--raw", path, input=b"from the shell\n")
        assert await one.append(b"after") == (2, "SYNCED")
        assert await command("cat", "--raw", path) == b"beforefrom the shell\nafter"


async def test_a_purge_beside_them(tmp_path: Path) -> None:
    """The process that writes does it."""
    path = tmp_path / "store"
    async with Store.open(path, max_segment_bytes=4096, sync_policy=Always()) as store:
        for _ in range(3):
            await store.append(bytes(4096))
    async with member(path) as one:
        said = json.loads(await command("purge", path, "--before", "1", "--json"))
        assert (said["first_sequence"], said["records"]) == (1, 1)
        assert await one.append(b"after") == (3, "SYNCED")
        assert len(segments_in(path)) == 3


async def test_who_writes_it_after_a_takeover(tmp_path: Path) -> None:
    """info names the process that writes at this moment, of all that share the store."""
    path = tmp_path / "store"

    async def writer() -> object:
        return json.loads(await command("info", path, "--json"))["writer"]

    async with member(path) as one, member(path) as two:
        await one.append(b"before")
        assert await writer() == {"pid": one.process.pid, "shared": True}
        await one.kill()
        await two.append(b"after")
        assert await writer() == {"pid": two.process.pid, "shared": True}
        assert b"2 records in " in await command("verify", path)


async def test_a_socket_that_a_killed_process_has_left(tmp_path: Path) -> None:
    """The command takes the store over, and leaves no socket behind."""
    path = tmp_path / "store"
    async with member(path) as one:
        await one.append(b"before")
        await one.kill()
    await command("append", "--raw", path, input=b"after\n")
    assert await command("cat", "--raw", path) == b"beforeafter\n"
    assert "socket" not in names_in(path)


def names_in(path: Path) -> list[str]:
    return [file.name for file in path.iterdir()]
