"""An archive is read without being restored, by the calls of a `Reader`."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu import (
    Archive,
    ArchiveDamagedError,
    ArchiveRefusedError,
    CorruptionError,
    NoArchiveError,
    Reader,
    RecordNotWrittenError,
    RecordPurgedError,
    Store,
    StoreClosedError,
)
from aquipu.archive.bucket import Bucket
from aquipu.archive.format.keys import Kind, ObjectKey
from aquipu.archive.read import log as log_file
from aquipu.archive.read.cache import WHOLE_BYTES, Cache
from aquipu.local.compress.segment import compress
from aquipu.local.disk.disk import Disk
from aquipu.local.read.catalog import Catalog
from aquipu.record import Position
from tests.archive.faulty import MemoryBucket
from tests.archive.made import URL, archived

RECORDS = 400


class Kept(Archive):
    """An archive whose objects the test has in memory."""

    def __init__(self, store: Any) -> None:
        super().__init__(URL)
        self._store = store

    def bucket(self) -> Bucket:
        return Bucket(URL, self._store)


async def written(path: Path, numbers: range, segment_bytes: int = 8192) -> None:
    """Append a record for each number, with labels, in commits of several."""
    async with Store.open(path, max_segment_bytes=segment_bytes) as store:
        for number in numbers:
            labels = (f"user:{number % 7}",) + (("rare",) if number % 97 == 5 else ())
            await store.append(b"%d" % number * 20, relations=labels)


@pytest.fixture
def objects(tmp_path: Path) -> MemoryBucket:
    """The archive of a log of several segments, and a young end."""
    made = MemoryBucket()
    asyncio.run(written(tmp_path / "store", range(RECORDS)))
    archived(made, tmp_path / "store")
    return made


@pytest.mark.asyncio
async def test_it_reads_as_the_store_does(objects: MemoryBucket, tmp_path: Path) -> None:
    """Every way to read gives what the store gives."""
    async with Reader.open(tmp_path / "store") as store, Reader.open(Kept(objects)) as archive:
        assert (archive.first_sequence, archive.next_sequence) == (0, RECORDS)
        every = [record async for record in store.scan()]
        assert [record async for record in archive.scan()] == every
        assert [record async for record in archive.scan(reverse=True)] == every[::-1]
        assert [record async for record in archive.scan(31, 350)] == every[31:350]
        since = every[100].timestamp
        assert [one async for one in archive.scan(since=since)] == [
            one async for one in store.scan(since=since)
        ]
        for number in range(0, RECORDS, 37):
            assert await archive.get(number) == every[number]
        for asked in ({"relation": "user:3"}, {"relation": "rare"}, {"any_of": ("rare", "user:1")}):
            for reverse in (False, True):
                found = [one async for one in archive.scan(**asked, reverse=reverse)]
                assert found == [one async for one in store.scan(**asked, reverse=reverse)]
        assert await archive.relations() == await store.relations()
        assert isinstance(archive, Reader)
        assert (await archive.holds(), await archive.cursors()) == ({}, {})
        assert (await archive.page(limit=10)).records == every[:-11:-1]
        with pytest.raises(RecordNotWrittenError):
            await archive.get(RECORDS)


@pytest.mark.asyncio
async def test_all_that_is_archived_was_sealed_and_purged(tmp_path: Path) -> None:
    """Also what is still in young parts is read there by a store, before and after it goes on."""
    objects, path = MemoryBucket(), tmp_path / "store"
    await written(path, range(5))
    await asyncio.to_thread(archived, objects, path)
    async with Store.open(path) as store:
        await store.roll()
        await store.purge(before=5)
        assert store.first_sequence == 5
    for number in (5, 6):
        async with Reader.open(path, archive=Kept(objects)) as reader:
            found = [record.sequence async for record in reader.scan(start=0)]
            assert found == list(range(number))
            assert (await reader.get(2)).data == b"2" * 20
        await written(path, range(number, number + 1))


@pytest.mark.asyncio
@pytest.mark.parametrize("reached", [6, 9])
@pytest.mark.parametrize("is_apart", [False, True])
async def test_an_archive_of_something_else(tmp_path: Path, is_apart: bool, reached: int) -> None:
    """Two histories are not read as one: neither of two stores, nor of two that have gone apart."""
    objects, first, path = MemoryBucket(), tmp_path / "first", tmp_path / "store"
    await in_threes(first, b"of both", 3)
    if is_apart:
        shutil.copytree(first, path)
    await in_threes(first, b"of the archive", reached)
    await asyncio.to_thread(archived, objects, first)
    await in_threes(path, b"of the store", 12)
    async with Store.open(path, archive=None) as store:
        await store.purge(before=6)
        assert store.first_sequence == 6
    async with Reader.open(path, archive=Kept(objects)) as reader:
        assert [record.sequence async for record in reader.scan()] == list(range(6, 12))
        with pytest.raises(ArchiveRefusedError, match="apart" if is_apart else "another store"):
            await anext(aiter(reader.scan(start=0)))
        with pytest.raises(ArchiveRefusedError):
            await reader.get(1)


async def in_threes(path: Path, data: bytes, stop: int) -> None:
    """Append up to a sequence; three records are a segment."""
    async with Store.open(path) as store:
        for number in range(store.next_sequence, stop):
            await store.append(data)
            if number % 3 == 2:
                await store.roll()


@pytest.mark.asyncio
async def test_a_young_part_that_is_put_anew_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan that saw the segment as it was written goes on in it; it has no footer there yet."""
    monkeypatch.setattr(log_file, "LOOK_SECONDS", 0.0)
    objects, path = MemoryBucket(), tmp_path / "store"
    async with Store.open(path) as store:
        for number in range(60):
            await store.append(b"%d" % number * 20, relations=("even",) * (number % 2 == 0))
            if number == 2:
                await store.roll()
        every = [record async for record in store.scan()]
    await asyncio.to_thread(archived, objects, path)
    async with Reader.open(Kept(objects)) as archive:
        scans = [archive.scan(), archive.scan(0, 50), archive.scan(relation="even")]
        for scan in scans:
            assert await anext(scan) == every[0]
        async with Store.open(path) as store:
            await store.append(b"one more")
            await store.roll()
        with closing(Catalog(Disk(), str(path))) as catalog:
            segment = catalog.look().segments[1]
        assert compress(Disk(), segment, lambda: None) is not None
        await asyncio.to_thread(archived, objects, path)
        assert (await archive.get(60)).data == b"one more"
        for scan, expected in zip(scans, (every, every[:50], every[::2]), strict=True):
            assert [record async for record in scan] == expected[1:]


@pytest.mark.asyncio
async def test_few_requests(objects: MemoryBucket) -> None:
    """Opening looks into no segment, and what was fetched is not fetched again."""
    async with Reader.open(Kept(objects)) as archive:
        opened = len(objects.asked)
        assert opened <= 5
        for _ in range(2):
            assert len([one async for one in archive.scan(relation="rare")]) == 5
            segments = sum(ObjectKey.parse(key) is not None for key in objects.objects)
            assert len(objects.asked) - opened <= segments


@pytest.mark.asyncio
async def test_it_follows(
    objects: MemoryBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is archived later comes, also over the end of a segment; it ends with the reader."""
    monkeypatch.setattr(log_file, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr("aquipu.archive.read.source.LOOK_SECONDS", 0.001)
    async with Reader.open(Kept(objects)) as archive:
        async with archive.follow(start=RECORDS - 5) as records:
            for number in range(RECORDS - 5, RECORDS):
                assert (await anext(records)).sequence == number
            await written(tmp_path / "store", range(RECORDS, RECORDS + 60))
            await asyncio.to_thread(archived, objects, tmp_path / "store")
            async with asyncio.timeout(20):
                for number in range(RECORDS, RECORDS + 60):
                    record = await anext(records)
                    assert (record.sequence, record.data) == (number, b"%d" % number * 20)
            position = records.position_after(record)
        async with archive.follow(position) as records:
            waiting = asyncio.ensure_future(anext(records))
            await asyncio.sleep(0)
            await archive.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting
        with pytest.raises(StoreClosedError):
            await archive.get(0)
        assert Position.parse(str(position)) == position


@pytest.mark.asyncio
@pytest.mark.parametrize("writing", [False, True])
async def test_what_was_purged_is_read_from_the_archive(
    objects: MemoryBucket, tmp_path: Path, writing: bool
) -> None:
    """A Reader, and a Store, go on seamlessly; what they keep needs no archive."""
    async with Reader.open(Kept(objects)) as archive:
        every = [record async for record in archive.scan()]
    async with Store.open(tmp_path / "store") as store:
        await store.purge(before=200)
        first = store.first_sequence
        assert first > 100
    opening: Any = Store.open if writing else Reader.open
    async with opening(tmp_path / "store", archive=Kept(objects)) as log:
        asked = len(objects.asked)
        assert await log.get(first) == every[first]
        assert [one async for one in log.scan()] == every[first:]
        segments = sorted(key for key in objects.objects if key.endswith(".segment"))
        looked_for = {key for key in objects.asked[asked:] if key in segments}
        assert looked_for <= ({segments[-1]} if writing else set())  # whoever carries looks there
        assert await log.get(3) == every[3]
        assert [one async for one in log.scan(0)] == every
        assert [one async for one in log.scan(50, 300, reverse=True)] == every[50:300][::-1]
        found = [one async for one in log.scan(0, relation="rare")]
        assert [one.sequence for one in found] == [5, 102, 199, 296, 393]
        async with log.follow(10) as records:
            assert [await anext(records) for _ in range(RECORDS - 10)] == every[10:]
        assert log.first_sequence == first


@pytest.mark.asyncio
async def test_an_archive_that_does_not_reach_the_log(
    objects: MemoryBucket, tmp_path: Path
) -> None:
    """Where the two do not meet, nothing is left out unsaid: what was purged is purged."""
    await written(tmp_path / "store", range(RECORDS, 2 * RECORDS))
    async with Store.open(tmp_path / "store") as store:
        await store.purge(before=2 * RECORDS - 20)
    async with Reader.open(tmp_path / "store", archive=Kept(objects)) as log:
        with pytest.raises(RecordPurgedError):
            await log.get(3)


@pytest.mark.asyncio
async def test_what_is_damaged_is_said(objects: MemoryBucket) -> None:
    """A byte that is another, or an object that is gone, is an error, and never a wrong record."""
    keys = [
        key for key in objects.objects if (one := ObjectKey.parse(key)) and one.kind is Kind.SEGMENT
    ]
    data = bytearray(objects.objects[keys[0]])
    data[300] ^= 1
    objects.objects[keys[0]] = bytes(data)
    del objects.objects[keys[1]]
    async with Reader.open(Kept(objects)) as archive:
        with pytest.raises(CorruptionError, match=URL):
            [one async for one in archive.scan(stop=10)]
        first = ObjectKey.parse(keys[1])
        assert first is not None
        with pytest.raises(ArchiveDamagedError, match="is missing"):
            await archive.get(first.first_sequence)


@pytest.mark.asyncio
async def test_what_an_archive_does_not_do(objects: MemoryBucket, tmp_path: Path) -> None:
    """It keeps no cursor, is restored in place of being backed up, and there must be one."""
    async with Reader.open(Kept(objects)) as archive:
        with pytest.raises(ValueError, match="keeps no cursor"):
            archive.cursor("billing")
        assert await archive.cursors() == {}
        with pytest.raises(ValueError, match=f"`aquipu restore {URL} DIR` makes a store of it"):
            await archive.backup(tmp_path / "backup")
        assert not (tmp_path / "backup").exists()
        assert repr(archive) == f"<Reader '{URL}' open next_sequence={RECORDS}>"
    with pytest.raises(NoArchiveError):
        await Reader.open(Kept(MemoryBucket()))
    with pytest.raises(NoArchiveError):
        await Reader.open(f"file://{tmp_path}/nothing")


SIZES = st.integers(1, 3 * WHOLE_BYTES)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.floats(0, 1), st.integers(1, 300_000)), max_size=60
    ),
    SIZES,
)
def test_the_cache_gives_what_is_there(asked: list[tuple[str, float, int]], size: int) -> None:
    """Whatever was fetched before, the bytes are those of the object, and memory is bounded."""
    room = 20 * 1024 * 1024
    cache = Cache(room)
    for key, share, length in asked:
        begin = int(share * (size - 1))
        end = min(begin + length, size)
        if cache.find(key, begin, end) is None:
            first, last = cache.wanted(key, begin, end, size)
            assert first <= begin < end <= last <= size
            cache.put(key, first, bytes(last - first))
        found = cache.find(key, begin, end)
        assert found is not None
        assert len(found) == end - begin
        assert cache.size <= room


def test_an_extent_is_the_bytes_between() -> None:
    """Extents that overlap give the same bytes."""
    data = bytes(range(256)) * 1000
    cache = Cache(1 << 20)
    cache.put("a", 0, data[:5000])
    cache.put("a", 4000, data[4000:9000])
    assert cache.find("a", 4500, 4600) == data[4500:4600]
    assert cache.find("a", 4900, 5100) == data[4900:5100]
    assert cache.find("a", 8990, 9001) is None
    assert cache.find("b", 0, 1) is None


def test_a_file_that_is_read_on_is_fetched_in_larger_pieces() -> None:
    """Twice as much each time, up to a bound; elsewhere, little."""
    cache, at, sizes = Cache(1 << 30), 0, []
    for _ in range(6):
        first, last = cache.wanted("a", at, at + 10, 1 << 30)
        sizes.append((last - first) >> 20)
        at = last
    assert sizes == [1, 2, 4, 8, 8, 8]
    first, last = cache.wanted("a", 5, 10, 1 << 30)
    assert (first, last) == (0, 1 << 20)


def test_the_end_of_a_file_comes_with_what_is_before_it() -> None:
    """Of a footer the last bytes are asked for first, and then how ever much it is."""
    cache, size = Cache(1 << 30), 1 << 26
    first, last = cache.wanted("a", size - 100, size, size)
    assert (first, last) == (size - (256 << 10), size)
