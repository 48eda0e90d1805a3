"""The commands beside a service that writes the store for itself."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import pytest_asyncio

from aquipu import Store
from tests.cli.support import spawn
from tests.support import flip, frames_in, segments_in

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store that this process writes."""
    async with Store.open(tmp_path / "store") as store:
        await store.append(b"one\n", relations=("label",))
        yield store


async def command(*arguments: str) -> CompletedProcess[bytes]:
    return await asyncio.to_thread(spawn, *arguments)


async def test_info_says_who_writes_it(store: Store) -> None:
    """For people and for programs; what only a store at rest can say is left out."""
    words = (await command("info", store.path)).stdout.decode()
    assert f"\nwritten by      process {os.getpid()}\n" in words
    assert "closed cleanly" not in words
    info = json.loads((await command("info", store.path, "--json")).stdout)
    assert info["writer"] == {"pid": os.getpid(), "shared": False}
    assert (info["records"], info["clean"]) == (1, None)


async def test_verify_says_how_far_it_has_checked(store: Store) -> None:
    """The exit code tells whether it is sound, as at rest."""
    done = await command("verify", store.path)
    assert done.returncode == 0
    first, writer, reach, last = done.stdout.decode().splitlines()
    assert first.startswith("1 record in 1 frame, 1 segment, ")
    assert writer == f"written by process {os.getpid()}"
    assert reach == "checked is all that was acknowledged when this began: up to sequence 0"
    assert last == "no damage"
    path = Path(store.path)
    offset, _, _ = frames_in(path)[0]
    flip(segments_in(path)[0], offset + 60)
    done = await command("verify", store.path)
    assert (done.returncode, b"damaged: " in done.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "way"),
    [
        (["append", "--lock-timeout", "0"], "have it open the store with shared=True"),
        (
            ["purge", "--before", "0", "--lock-timeout", "0"],
            "have it open the store with shared=True",
        ),
        (["repair"], "end that process first"),
        (["index"], "builds what is missing by itself"),
    ],
    ids=lambda it: it[0] if isinstance(it, list) else "",
)
async def test_what_cannot_be_done_meanwhile(store: Store, arguments: list[str], way: str) -> None:
    """It says who has the store, and what to do; nothing is changed."""
    name, *options = arguments
    done = await command(name, store.path, *options)
    assert (done.returncode, done.stdout) == (3, b"")
    said = done.stderr.decode()
    assert f"is in use by process {os.getpid()}; nothing was changed; " in said
    assert way in said
    assert store.next_sequence == 1
