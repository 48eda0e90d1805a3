"""A log that is brought from a directory into a database."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from aquipu import EveryN, Reader, Record, StaleKeyError, Store
from aquipu.cli.commands.upkeep import copying
from tests.cli.support import run, well


async def written(path: Path, *, purge: bool = True) -> list[Record]:
    """The records of a log with labels, keys and batches, of which the beginning was purged."""
    async with Store.open(path, sync_policy=EveryN(64), max_segment_bytes=4096) as store:
        for number in range(60):
            await store.append(b"%d" % number * 50, relations=(f"n:{number % 7}",))
            await store.append_many([b"a", b"b"], relations=("x", "ä"), key=("orders", number))
            await store.append_many([b"plain"] * 3)
        if purge:
            await store.purge(before=200)
            assert store.first_sequence > 0
        return [record async for record in store.scan()]


async def records_of(place: str | Path) -> list[Record]:
    async with Reader.open(place) as reader:
        return [record async for record in reader.scan()]


def test_a_copy_is_the_same_log(tmp_path: Path, address: str) -> None:
    """Sequences, times, labels and keys; made again, it brings what has come since."""
    path = tmp_path / "store"
    records = asyncio.run(written(path))
    done = json.loads(well("copy", "--json", path, address))
    assert (done["copied"], done["first_sequence"]) == (len(records), records[0].sequence)
    assert asyncio.run(records_of(address)) == records
    assert b"no damage" in well("verify", address)
    well("append", path, input=b"later\n")
    assert b"1 record copied" in well("copy", path, address)
    assert b"0 records copied" in well("copy", path, address)
    assert asyncio.run(records_of(address)) == asyncio.run(records_of(path))

    async def known() -> None:
        async with Store.open(address) as store:
            first = await store.append_many([b"a", b"b"], key=("orders", 59))
            assert [receipt.sequence for receipt in first] == [355, 356]
            with pytest.raises(StaleKeyError):
                await store.append(b"x", key=("orders", 1))

    asyncio.run(known())


def test_a_copy_that_is_cut_short(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on where it was, and nothing is there twice."""
    path = tmp_path / "store"
    records = asyncio.run(written(path))
    whole = copying._pieces

    def pieces(view, start):  # type: ignore[no-untyped-def]
        for number, piece in enumerate(whole(view, start)):
            if number == 2:
                raise KeyboardInterrupt
            yield piece

    monkeypatch.setattr(copying, "_RECORDS", 40)
    monkeypatch.setattr(copying, "_pieces", pieces)
    for _ in range(2):
        assert run("copy", path, address).returncode != 0
    monkeypatch.setattr(copying, "_pieces", whole)
    well("copy", path, address)
    assert asyncio.run(records_of(address)) == records


def test_a_log_that_others_have_written(tmp_path: Path, address: str) -> None:
    """It is not mixed with theirs."""
    path = tmp_path / "store"
    asyncio.run(written(path))
    well("append", address, input=b"other\n")
    done = run("copy", path, address)
    assert done.returncode == 2
    assert b"no longer keeps sequence 1" in done.stderr  # it was purged here
    asyncio.run(written(tmp_path / "whole", purge=False))
    refused = run("copy", tmp_path / "whole", address)
    assert refused.returncode == 2
    assert b"its record 0 is another one" in refused.stderr
    well("append", tmp_path / "short", input=b"")
    assert b"it has 1 records more" in run("copy", tmp_path / "short", address).stderr
    assert run("copy", path, tmp_path / "x").returncode == 2
    assert well("cat", address) == b"other\n"
