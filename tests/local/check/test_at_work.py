"""A store at work: looked into and checked beside the one that writes it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aquipu import CorruptionError, OsManaged, Stage, Store
from aquipu.local.check import at_work
from aquipu.local.check.at_work import check, inspect_at_work, look_into, verify_at_work
from aquipu.local.check.inspect import Info, Writer, hold_at_rest, inspect
from aquipu.local.check.verify import Damage, Verdict, segment_bytes, verify_all
from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import MANIFEST, relations_name
from aquipu.local.read.examine import verify
from tests.remote.daemon.served import until
from tests.support import flip, frames_in, segments_in, snapshot

pytestmark = pytest.mark.asyncio

WRITER = Writer(4711, shared=False)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store at work that has sealed segments with their indexes, nothing of it synced."""
    path = tmp_path / "store"
    async with Store.open(path, sync_policy=OsManaged()) as store:
        for number in range(12):
            if number and number % 4 == 0:
                await store.roll()
            await store.append(bytes(1000), relations=(f"number:{number}",))
        indexes = [path / relations_name(first) for first in (0, 4)]
        await until(lambda: all(index.exists() for index in indexes))
        yield store


async def looked(store: Store) -> Info:
    return await asyncio.to_thread(look_into, Disk(), store.path)


async def checked(store: Store) -> Verdict:
    return await asyncio.to_thread(check, Disk(), store.path, lambda size: None)


async def test_what_it_holds(store: Store) -> None:
    """All that was acknowledged, with the times of the first and the last record, and who writes
    it; no byte is changed.
    """
    await store.hold("audit", 3)
    before = snapshot(Path(store.path))
    info = await looked(store)
    assert snapshot(Path(store.path)) == before
    assert (info.first_sequence, info.next_sequence, info.records) == (0, 12, 12)
    assert info.segments == len(segments_in(Path(store.path))) == 3
    assert info.writer == Writer(os.getpid(), shared=False)
    assert (info.clean, info.torn_tail, info.holds) == (None, None, {"audit": 3})
    for sequence, said in ((0, info.first_time), (11, info.last_time)):
        record = await store.get(sequence)
        assert said is not None
        assert said.startswith(record.time.strftime("%Y-%m-%dT%H:%M:%S.%f"))


async def test_it_says_the_same_as_at_rest(store: Store) -> None:
    """When the writer has closed, everything but what only it can say is as it was."""
    info, verdict = await looked(store), await checked(store)
    await store.aclose()
    disk, path = Disk(), store.path
    with hold_at_rest(disk, path):
        rest, rested = inspect(disk, path), verify_all(disk, path)
    for name in (
        "first_sequence",
        "next_sequence",
        "records",
        "segments",
        "first_time",
        "last_time",
    ):
        assert getattr(info, name) == getattr(rest, name)
    assert verdict.damages == rested.damages == []
    assert (verdict.records, verdict.next_sequence) == (rested.records, rested.next_sequence)
    assert rested.frames is not None
    assert verdict.frames == rested.frames - 1  # the mark of the close


async def test_an_empty_one(tmp_path: Path) -> None:
    """There is no first record, and nothing that could be damaged."""
    async with Store.open(tmp_path / "store") as store:
        info, verdict = await looked(store), await checked(store)
    assert (info.records, info.first_time, info.last_time) == (0, None, None)
    assert (verdict.records, verdict.frames, verdict.damages) == (0, 0, [])


async def test_what_is_appended_after_it_began(store: Store) -> None:
    """It ends where the log ended when it began."""
    disk, path = Disk(), store.path
    began, loop = asyncio.Event(), asyncio.get_running_loop()

    def more(size: int) -> None:
        if not began.is_set():
            loop.call_soon_threadsafe(began.set)
            asyncio.run_coroutine_threadsafe(store.append(bytes(3000)), loop).result()

    verdict = await asyncio.to_thread(check, disk, path, more)
    assert began.is_set()
    assert store.next_sequence > 12
    assert (verdict.next_sequence, verdict.damages) == (12, [])


async def test_the_progress_ends_at_the_total(store: Store) -> None:
    """What is reported as read is, in the end, what there was to be read."""
    disk, told = Disk(), list[int]()
    total = segment_bytes(disk, store.path)
    await asyncio.to_thread(check, disk, store.path, told.append)
    assert sum(told) == total


async def test_a_purge_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it takes is left out, and is no damage."""
    loop, path = asyncio.get_running_loop(), Path(store.path)
    first, second = segments_in(path)[:2]

    async def purge() -> None:
        await store.purge(before=int(second.stem))
        while first.exists():
            await store.append(b"", durability=Stage.SYNCED)  # it goes between two commits

    def purged_before(*arguments: Any) -> Iterator[CorruptionError]:
        if first.exists():
            asyncio.run_coroutine_threadsafe(purge(), loop).result()
        return verify(*arguments)

    monkeypatch.setattr(at_work, "verify", purged_before)
    verdict = await asyncio.to_thread(verify_at_work, Disk(), store.path, WRITER)
    assert not first.exists()
    assert (verdict.damages, verdict.records) == ([], 12 - int(second.stem))


async def test_damage_in_a_sealed_segment(store: Store) -> None:
    """It is found where it is, and the records are counted all the same."""
    path = Path(store.path)
    second = segments_in(path)[1]
    offset, header, _ = frames_in(path, int(second.stem))[0]
    flip(second, offset + header.size - 10)
    verdict = await checked(store)
    (damage,) = verdict.damages
    assert (damage.path, damage.offset) == (str(second), offset)
    assert verdict.records == 12
    assert (await looked(store)).records == 12


async def test_damage_in_the_segment_that_is_written(store: Store) -> None:
    """Its frames are read as well, up to the last one that was acknowledged."""
    path = Path(store.path)
    active = segments_in(path)[-1]
    offset, header, _ = frames_in(path, int(active.stem))[0]
    flip(active, offset + header.size - 10)
    verdict = await checked(store)
    (damage,) = verdict.damages
    assert (damage.path, damage.offset) == (str(active), offset)
    assert "does not check" in damage.reason


async def test_a_segment_that_is_missing(store: Store) -> None:
    """It is damage, and no purge."""
    path = Path(store.path)
    second, away = segments_in(path)[1], path.with_name("away")
    second.rename(away)
    verdict = await checked(store)
    assert verdict.damages
    assert verdict.records is None
    with pytest.raises(CorruptionError):
        await asyncio.to_thread(inspect_at_work, Disk(), store.path, WRITER)
    away.rename(second)


async def test_damage_that_hides_the_others(store: Store) -> None:
    """Without the manifest nothing can be counted; that is said, once."""
    path = Path(store.path)
    flip(path / MANIFEST, 20)
    verdict = await checked(store)
    flip(path / MANIFEST, 20)
    assert verdict.damages == [Damage(str(path / MANIFEST), 0, "the manifest does not check")]
    assert (verdict.records, verdict.frames, verdict.next_sequence) == (None, None, None)
