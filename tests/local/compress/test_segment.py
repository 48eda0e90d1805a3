"""segment: sealed segments are replaced by compressed ones, beside the log and all who read it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from errno import EIO, ENOSPC
from pathlib import Path

import pytest

from aquipu import (
    Follow,
    OsManaged,
    Reader,
    Record,
    Retention,
    Store,
    UnsupportedFormatError,
)
from aquipu.local.check.at_work import check, look_into
from aquipu.local.check.inspect import Compressed
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.durable import replace_file
from aquipu.local.format.names import UNNAMED
from aquipu.local.index.indexer import Indexer
from aquipu.local.read import tail
from tests.disk import FailingDisk
from tests.support import engine_of, flip, segment_in, segments_in

pytestmark = pytest.mark.asyncio

LINES = (Path(__file__).parents[2] / "data" / "openssh_40.log").read_bytes().splitlines()


@pytest.fixture(autouse=True)
def unthrottled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody shares the processor here."""
    monkeypatch.setattr("aquipu.local.index.indexer._REST", 0.0)


@asynccontextmanager
async def log(path: Path, **options: object) -> AsyncIterator[Store]:
    """A store that compresses when the test says so (`compressed`)."""
    async with Store.open(path, sync_policy=OsManaged(), compress=True, **options) as store:  # type: ignore[arg-type]
        yield store


async def write(store: Store, commits: int = 40) -> None:
    """Commits of one log line each, every third one with a label, and then a roll."""
    for number in range(commits):
        labels = (f"user:{number % 7}",) if number % 3 == 0 else ()
        await store.append(LINES[number % len(LINES)], relations=labels)
    await store.roll()


async def compressed(store: Store) -> None:
    """Wait until nothing is left to be compressed, and until the worker knows of it."""
    engine = engine_of(store)
    engine._indexer.look(engine._journal.segments)
    while (thread := engine._indexer._thread) is not None:
        await asyncio.to_thread(thread.join)
    await engine.ask(lambda journal: None)


async def all_of(store: Store | Reader, **wanted: object) -> list[Record]:
    return [record async for record in store.scan(**wanted)]  # type: ignore[arg-type]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Nothing is compressed before this is called."""
    look = Indexer.look
    monkeypatch.setattr(Indexer, "look", lambda self, segments: None)
    return lambda: monkeypatch.setattr(Indexer, "look", look)


async def test_a_log_whose_segments_are_compressed(
    tmp_path: Path, waits: Callable[[], None]
) -> None:
    """Every way to read gives what was written; the files are smaller, and what is counted of them
    and kept within bounds goes by that; opened without the option it is the same.
    """
    path = tmp_path / "store"
    async with log(path, retention=Retention(max_bytes=10**9)) as store:
        await write(store)
        await write(store)
        plain = await all_of(store)
        before = [segment.stat().st_size for segment in segments_in(path)[:-1]]
        waits()
        await compressed(store)
        after = [segment.stat().st_size for segment in segments_in(path)]
        assert all(small < large / 3 for small, large in zip(after, before, strict=False))
        active = engine_of(store)._journal._files.active.size
        assert store.statistics().disk_bytes == sum(after[:-1]) + active
    said = look_into(Disk(), str(path)).compressed
    assert said == Compressed(2, sum(after[:-1]), sum(before))
    assert check(Disk(), str(path), lambda size: None).damages == []
    async with Store.open(path) as store:
        assert await all_of(store) == plain
        assert await all_of(store, reverse=True) == plain[::-1]
        assert await all_of(store, relation="user:3") == [
            record for record in plain if "user:3" in record.relations
        ]
        assert await store.relations() == {f"user:{n}": 4 for n in range(7)}
        assert [await store.get(n) for n in (0, 39, 40, 79)] == [plain[n] for n in (0, 39, 40, 79)]
        assert store.statistics().disk_bytes < sum(before)


async def test_segments_from_before_are_compressed_too(tmp_path: Path) -> None:
    """Each once: to open the store again writes nothing anew."""
    path = tmp_path / "store"
    async with Store.open(path) as store:
        await write(store)
    size, disk = segment_in(path, 0).stat().st_size, FailingDisk()
    for renames in (1, 0):
        disk = FailingDisk()
        async with log(path, disk=disk) as store:
            await compressed(store)
        assert disk.count("rename") >= renames
        named = [call for call in disk.calls if call.method == "rename"]
        assert len([call for call in named if ".segment" in call.name]) == renames
    assert segment_in(path, 0).stat().st_size < size / 3


async def test_those_who_are_reading_meanwhile(
    tmp_path: Path, waits: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan and a follower, here and in another process, that are in a segment while it is
    replaced, or that saw it while it was being written, go on with the next record.
    """
    monkeypatch.setattr(tail, "_FIRST_BYTES", 300)
    monkeypatch.setattr(tail, "_LEAST_BYTES", 300)
    monkeypatch.setattr(tail, "_MOST_BYTES", 300)
    path = tmp_path / "store"
    async with log(path) as store, Reader.open(path) as reader:
        for number, line in enumerate(LINES):
            await store.append(line, relations=(f"user:{number % 7}",))
        expected = await all_of(store)
        scans = [it.scan() for it in (store, reader)]
        scans += [it.scan(relation=[f"user:{n}" for n in range(7)][:1]) for it in (store, reader)]
        follows: list[Follow] = [it.follow("earliest") for it in (store, reader)]
        began = [await anext(it) for it in (*scans, *follows)]
        assert began == [expected[0]] * 6
        second = [await anext(it) for it in follows]
        assert second == [expected[1]] * 2
        unbegun = [it.scan() for it in (store, reader)]
        await store.roll()
        waits()
        await compressed(store)
        assert segment_in(path, 0).stat().st_size < 2000
        for scan in scans[:2]:
            assert [record async for record in scan] == expected[1:]
        for scan in scans[2:]:
            assert [record.sequence async for record in scan] == [7, 14, 21, 28, 35]
        for scan in unbegun:
            assert [record async for record in scan] == expected
        for follow in follows:
            assert [await anext(follow) for _ in expected[2:]] == expected[2:]
            await follow.aclose()


@pytest.mark.parametrize("call", ["create", "write", "sync", "rename"])
@pytest.mark.parametrize("error", [EIO, ENOSPC])
async def test_a_disk_that_refuses(
    tmp_path: Path,
    call: str,
    error: int,
    caplog: pytest.LogCaptureFixture,
    waits: Callable[[], None],
) -> None:
    """The segment stays as it was, which is said once, and the log and its index go on."""
    path, disk = tmp_path / "store", FailingDisk()
    async with log(path, disk=disk) as store:
        await write(store)
        plain = segment_in(path, 0).read_bytes()
        waits()
        disk.fail(call, error, of=".segment" + UNNAMED * (call != "rename"))
        with caplog.at_level(logging.WARNING):
            await compressed(store)
        assert segment_in(path, 0).read_bytes() == plain
        assert not list(path.glob(f"*.segment{UNNAMED}"))
        assert len(await all_of(store, relation="user:0")) == 2
        await store.append(b"goes on")
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "could not be compressed, and stays as it is" in text] == said
    assert len(said) == 1


async def test_a_segment_that_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, waits: Callable[[], None]
) -> None:
    """It is not replaced: what is left of it is for `repair`."""
    path = tmp_path / "store"
    async with log(path) as store:
        await write(store)
        flip(segment_in(path, 0), 1000)
        damaged = segment_in(path, 0).read_bytes()
        waits()
        await compressed(store)
        assert segment_in(path, 0).read_bytes() == damaged
    assert "does not check" in caplog.text


async def test_a_segment_that_is_purged_meanwhile(
    tmp_path: Path, waits: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file does not come back."""
    path = tmp_path / "store"
    async with log(path) as store:
        await write(store)
        await write(store)
        loop = asyncio.get_running_loop()

        def overtaken(disk: Disk, to: str, pieces: Iterator[list[bytes]]) -> None:
            if to.endswith(f"{0:020}.segment"):
                asyncio.run_coroutine_threadsafe(store.purge(before=40), loop).result()
            replace_file(disk, to, pieces)

        monkeypatch.setattr("aquipu.local.compress.segment.replace_file", overtaken)
        waits()
        await compressed(store)
        assert not segment_in(path, 0).exists()
        assert (await all_of(store))[0].sequence == 40


async def test_a_store_that_is_closed_meanwhile(tmp_path: Path, waits: Callable[[], None]) -> None:
    """Closing waits for no more than a block, and leaves the segment as it was."""
    path, disk = tmp_path / "store", FailingDisk()
    async with log(path, disk=disk) as store:
        await write(store)
        plain = segment_in(path, 0).read_bytes()
        waits()
        hold = disk.hold("create", of=f".segment{UNNAMED}")
        engine = engine_of(store)
        engine._indexer.look(engine._journal.segments)
        await asyncio.to_thread(hold.reached.wait)
        engine._indexer.stop()
        hold.released.set()
    assert segment_in(path, 0).read_bytes() == plain
    assert not list(path.glob(f"*{UNNAMED}"))


async def test_a_roll_that_a_crash_undoes(tmp_path: Path) -> None:
    """The compressed segment is written on, and sealed and read as any other."""
    path = tmp_path / "store"
    async with log(path) as store:
        await write(store)
        await compressed(store)
    os.remove(segments_in(path)[-1])
    os.remove(path / "acknowledged")
    data = segment_in(path, 0).read_bytes()
    end = int.from_bytes(data[-16:-8], "little")
    segment_in(path, 0).write_bytes(data[:end])
    async with log(path) as store:
        assert store.recovery.next_sequence == 40
        await store.append(b"more", relations=("user:3",))
        found = await all_of(store)
        assert [record.data for record in found[38:]] == [LINES[38], LINES[39], b"more"]
        async with Reader.open(path) as reader:
            assert await all_of(reader) == found
        await store.roll()
        await compressed(store)
        assert await all_of(store) == found
        assert [it.sequence for it in await all_of(store, relation="user:3")] == [3, 24, 40]


async def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a store that is to be compressed says so at once, and makes nothing."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[compress\]'"):
        Store.open(tmp_path / "store", compress=True)
    assert not (tmp_path / "store").exists()


async def test_read_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said, and not that a newer aquipu would help."""
    async with log(tmp_path / "store") as store:
        await write(store)
        await compressed(store)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    async with Reader.open(tmp_path / "store") as reader:
        with pytest.raises(UnsupportedFormatError) as error:
            await reader.get(0)
    assert str(error.value).endswith(
        ": its records are compressed, and that needs zstandard, which is not installed: "
        "in the checkout of aquipu, pip install -e '.[compress]'; nothing was changed"
    )


async def test_an_option_that_is_none(tmp_path: Path) -> None:
    """Compress is True or False."""
    with pytest.raises(TypeError, match="compress is True or False, not 3"):
        Store.open(tmp_path / "store", compress=3)  # type: ignore[arg-type]
