"""A log that is brought from a directory into a database, and back."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise, product
from pathlib import Path

import pytest

from aquipu import EveryN, Reader, Record, StaleKeyError, Store
from aquipu.cli.commands.upkeep import ends
from aquipu.local.copying import pieces as pieces_module
from aquipu.local.copying.receiver import Receiver
from aquipu.record import PRODUCERS, Key
from tests.cli.support import run, well
from tests.postgres.runs import copies
from tests.postgres.server import Server


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


def test_there_and_back(tmp_path: Path, address: str) -> None:
    """From the database it comes into a directory as it was: also keys, cursors and holds, and the
    second time what has come since.
    """
    path, back = tmp_path / "store", tmp_path / "back"
    records = asyncio.run(written(path))
    well("follow", "--cursor", "billing", "--hold", "--limit", "5", path)
    well("hold", path, "audit", "300")
    held = json.loads(well("hold", "--json", path))
    done = json.loads(well("copy", "--json", "--cursors", path, address))
    assert (done["cursors"], done["holds"]) == (1, 2)
    assert b"1 cursor and 2 holds set there" in well("copy", "--cursors", address, back)
    assert asyncio.run(records_of(back)) == records
    assert b"no damage" in well("verify", back)
    for place in (address, back):
        assert json.loads(well("hold", "--json", place)) == held
        cursors = json.loads(well("cursors", "--json", place))
        assert cursors["billing"]["sequence"] == records[0].sequence + 5
    well("append", address, input=b"later\n")
    assert b"1 record copied" in well("copy", address, back)
    assert b"0 records copied" in well("copy", address, back)

    async def known() -> None:
        async with Store.open(back) as store:
            first = await store.append_many([b"a", b"b"], key=("orders", 59))
            assert [receipt.sequence for receipt in first] == [355, 356]
            with pytest.raises(StaleKeyError):
                await store.append(b"x", key=("orders", 1))

    asyncio.run(known())


def test_batches_larger_than_a_page(tmp_path: Path, address: str) -> None:
    """What has one key comes in one commit, whatever is read at a time."""

    async def append() -> None:
        async with Store.open(address) as store:
            await store.append_many([b"x"] * 2000)
            for number in range(3):
                await store.append_many([b"%d" % number] * 3000, key=("large", number))

    asyncio.run(append())
    well("copy", address, tmp_path / "back")
    assert asyncio.run(records_of(tmp_path / "back")) == asyncio.run(records_of(address))

    async def known() -> None:
        async with Store.open(tmp_path / "back") as store:
            receipts = await store.append_many([b"2"] * 3000, key=("large", 2))
            assert (receipts[0].sequence, receipts[-1].sequence) == (8000, 10_999)

    asyncio.run(known())


def test_from_an_archive(tmp_path: Path, address: str) -> None:
    """What it holds comes into the database without being restored."""
    path = tmp_path / "store"
    records = asyncio.run(written(path))
    place = f"file://{tmp_path}/archive"
    well("archive", path, place)
    well("copy", place, address)
    assert asyncio.run(records_of(address)) == records


def test_a_clock_that_was_set_back(tmp_path: Path, address: str) -> None:
    """Times are kept as they were, also where one is earlier than the one before: more often than a
    store would follow its clock, and where a batch begins and ends with the same time.
    """
    times = [500, 501, 90, 95, 600, 601, 602, 3, 3, 700, *range(460, 410, -2), 700]
    records = [
        Record(40 + place, 10**18 + time * 10**10, b"%d" % place)
        for place, time in enumerate(times)
    ]

    async def brought() -> None:
        receiver = await Receiver.open(str(tmp_path / "store"), 40)
        for part in pieces_module.ascending(records, [Key(bytes(16), PRODUCERS | 5, 7, 2)]):
            await receiver.bring(*part)
        await receiver.aclose()

    asyncio.run(brought())
    assert asyncio.run(records_of(tmp_path / "store")) == records
    well("copy", tmp_path / "store", address)
    assert asyncio.run(records_of(address)) == records
    well("copy", address, tmp_path / "back")
    assert asyncio.run(records_of(tmp_path / "back")) == records


@pytest.mark.parametrize("count", range(1, 6))
def test_parts_ascend(count: int) -> None:
    """Together they are the piece, and each is as long as it can be."""
    for times in product(range(3), repeat=count):
        records = [Record(place, time, b"") for place, time in enumerate(times)]
        parts = [part for part, _ in pieces_module.ascending(records, [])]
        assert [record for part in parts for record in part] == records
        for part in parts:
            assert part == sorted(part, key=lambda record: record.timestamp)
        for one, other in pairwise(parts):
            assert other[0].timestamp < one[-1].timestamp


@pytest.mark.parametrize(
    ("source", "to", "said"),
    [
        ("{dir}", "{dir}2", b"aquipu backup"),
        ("file:///there", "{dir}", b"aquipu restore"),
        ("{dir}", "file:///there", b"aquipu archive"),
        ("{db}", "file:///there", b"aquipu archive"),
        ("{dir}", "unix:/there", b"a daemon"),
        ("unix:/there", "{db}", b"is a daemon"),
        ("{db}", "{db}", b"it is the log that is copied"),
        ("{db}", "sqlite://there", b"no place of a store"),
        ("{db}", "{dir}", b"has no log"),
    ],
)
def test_what_is_not_copied(
    tmp_path: Path, address: str, source: str, to: str, said: bytes
) -> None:
    """One clear error, which names what does it, and nothing is made."""
    places = {"dir": tmp_path / "store", "db": address}
    done = run("copy", source.format(**places), to.format(**places))
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_archive_has_no_cursors(tmp_path: Path, address: str) -> None:
    """They cannot be asked for."""
    done = run("copy", "--cursors", "file:///there", address)
    assert done.returncode == 2
    assert b"keeps no cursors" in done.stderr


@pytest.mark.proof
def test_copies_that_are_killed(tmp_path: Path, server: Server) -> None:
    """There and back they come out the same; a million records: ``python -m tests.postgres``."""
    counts = copies(tmp_path, server, 10_000, 2, 1.5)
    assert counts["records"] == 10_000


def test_a_copy_that_is_cut_short(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on where it was, and nothing is there twice."""
    path = tmp_path / "store"
    records = asyncio.run(written(path))
    whole = pieces_module.pieces_of

    def pieces(view, start):  # type: ignore[no-untyped-def]
        for number, piece in enumerate(whole(view, start)):
            if number == 2:
                raise KeyboardInterrupt
            yield piece

    monkeypatch.setattr(pieces_module, "_RECORDS", 40)
    monkeypatch.setattr(ends, "pieces_of", pieces)
    for _ in range(2):
        assert run("copy", path, address).returncode != 0
    monkeypatch.setattr(ends, "pieces_of", whole)
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
