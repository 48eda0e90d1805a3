"""tail.py: what a follower takes from the files, and what it holds while it is not asked."""

from __future__ import annotations

import errno
import gc
import subprocess
import sys
from asyncio import create_task, gather, sleep, to_thread, wait
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from aquipu import Follow, Reader, Record, Store, StoreUnavailableError
from aquipu.local.disk.disk import Disk
from aquipu.local.read import tail as room
from aquipu.local.read.segment_reader import SegmentRef
from aquipu.local.read.snapshot import Snapshot
from aquipu.local.read.tail import Tail, Window, Windows
from tests.disk import FailingDisk
from tests.support import engine_of

KIB = 1024


async def left_by_break(follow: Follow) -> None:
    async for record in follow:
        if record.sequence == 5:
            break


async def left_by_an_error(follow: Follow) -> None:
    with suppress(ZeroDivisionError):
        async for _ in follow:
            raise ZeroDivisionError


async def left_by_a_client(follow: Follow) -> None:
    """A streamed response, whose client has gone: its generator is closed, the follower is not."""

    async def body() -> AsyncGenerator[bytes, None]:
        async for record in follow:
            yield record.data

    stream = body()
    await anext(stream)
    await stream.aclose()


async def left_in_the_middle(follow: Follow) -> None:
    """And somebody keeps it."""
    await anext(follow)


@pytest.mark.parametrize(
    "leave", [left_by_break, left_by_an_error, left_by_a_client, left_in_the_middle]
)
@pytest.mark.parametrize("of_reader", [False, True])
@pytest.mark.asyncio
async def test_a_follower_that_is_left(
    tmp_path: Path, leave: Callable[[Follow], object], of_reader: bool
) -> None:
    """However a follower is left, also without being closed, it has no file open: it opens one for
    each read.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store, Reader.open(tmp_path, disk=disk) as reader:
        await store.append_many([b"x" * 10_000] * 20)
        await sleep(
            0.01
        )  # a follower that joins while callers are told is given the commit from memory
        own = sorted(disk.open_files.values())
        for _ in range(10):
            follow = reader.follow(0) if of_reader else store.follow(0)
            await leave(follow)  # type: ignore[misc]
            assert sorted(disk.open_files.values()) == own
        await follow.aclose()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", ["open", "read"])
@pytest.mark.parametrize("of_reader", [False, True])
@pytest.mark.asyncio
async def test_what_the_system_refuses(
    tmp_path: Path, error: int, call: str, of_reader: bool
) -> None:
    """It comes out as an error of the tree with a path.

    When the trouble has passed, the follower goes on.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store, Reader.open(tmp_path, disk=disk) as reader:
        await store.append_many([b"x"] * 3)
        await sleep(
            0.01
        )  # a follower that joins while callers are told is given the commit from memory
        follow = reader.follow(0) if of_reader else store.follow(0)
        disk.fail(call, error, of=".segment")
        with pytest.raises(StoreUnavailableError, match="cannot read") as caught:
            await anext(follow)
        assert caught.value.path.startswith(
            str(tmp_path)
        )  # a Reader may have met it while it looked what is there
        assert isinstance(caught.value.__cause__, OSError)
        assert [(await anext(follow)).sequence for _ in range(3)] == [0, 1, 2]
        await follow.aclose()


# how much


async def written(path: Path, batches: list[list[bytes]]) -> Snapshot:
    """A store with these commits, and what may be seen of it."""
    async with Store.open(path, max_segment_bytes=300 * KIB) as store:
        for batch in batches:
            await store.append_many(batch, relations=("a", "b") if len(batch) % 2 else ())
        return await engine_of(store).snapshot()


def read_all(view: Snapshot, path: Path) -> list[list[Record]]:
    """What each read gives, up to the end."""
    tail, found = Tail(Disk(), str(path), 0, Windows()), list[list[Record]]()
    while window := tail.read(lambda indexed: view):
        found.append(list(window.records(window.first_sequence, window.next_sequence)))
    return found


def weight(records: list[Record]) -> int:
    return sum(len(record.data) + room._RECORD_BYTES for record in records)


@pytest.mark.parametrize("size", [0, 1, 100, 3000])
@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
@pytest.mark.asyncio
async def test_a_read_gives_no_more_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, batch: int
) -> None:
    """What one read gives is bounded, and large frames are given in parts: each record once, in
    order, with its labels.
    """
    view = await written(tmp_path, [[b"%d" % n * size for n in range(batch)]] * (1 + 2000 // batch))
    monkeypatch.setattr(room, "_ALL_BYTES", 0)
    monkeypatch.setattr(room, "_LEAST_BYTES", 20_000)
    found = read_all(view, tmp_path)
    written_records = [record async for record in _scanned(tmp_path)]
    assert [record for some in found for record in some] == written_records
    largest = max(len(record.data) for record in written_records) + room._RECORD_BYTES
    assert max(map(weight, found)) <= 20_000 + largest
    assert len(found) <= 2 + sum(map(weight, found)) // 5000, "and no less than need be"


async def _scanned(path: Path) -> AsyncIterator[Record]:
    async with Reader.open(path) as reader:
        async for record in reader.scan():
            yield record


@pytest.mark.asyncio
async def test_records_of_many_sizes_in_one_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame whose first records are large is given in parts as well, and none of it is passed
    over.
    """
    view = await written(tmp_path, [[b"x" * 50_000, *[b""] * 100, b"y" * 30_000], [b"last"]])
    monkeypatch.setattr(room, "_ALL_BYTES", 0)
    monkeypatch.setattr(room, "_LEAST_BYTES", 1)
    found = read_all(view, tmp_path)
    assert [record.sequence for some in found for record in some] == list(range(103))
    assert len(found) > 100


@pytest.mark.asyncio
async def test_a_single_follower_reads_far_ahead(tmp_path: Path) -> None:
    """All that follow share a budget: alone, one reads more at a time the longer there is more."""
    view = await written(tmp_path, [[b"x" * 1000] * 10] * 25)
    alone = read_all(view, tmp_path)
    others = [
        Tail(Disk(), str(tmp_path), 0, Windows())
        for _ in range(room._ALL_BYTES // room._LEAST_BYTES)
    ]
    beside_others = read_all(view, tmp_path)
    assert max(map(weight, alone)) > 2 * max(map(weight, beside_others))
    del others
    gc.collect()
    assert list(map(len, read_all(view, tmp_path))) == list(map(len, alone)), (
        "those that are gone count no more"
    )


@pytest.mark.asyncio
async def test_a_segment_that_cannot_be_opened(tmp_path: Path) -> None:
    """A segment of which the file is gone without a purge is an error of the tree, after a few
    looks.
    """
    view = await written(tmp_path, [[b"x"]])
    segments = tuple(
        SegmentRef(e.first_sequence, e.path + ".gone", e.header, e.growing) for e in view.segments
    )
    looks = list[bool]()

    def look(indexed: bool) -> Snapshot:
        looks.append(indexed)
        return view._replace(segments=segments)

    with pytest.raises(StoreUnavailableError, match=r"\.gone"):
        Tail(Disk(), str(tmp_path), 0, Windows()).read(look)
    assert 1 < len(looks) <= 10


PROGRAM = """
import asyncio, gc, os, sys, tracemalloc
from aquipu import Reader, Store
from aquipu.local.read import tail

tail._ALL_BYTES = 0  # as little for each as when there are thousands

def traced_bytes():
    gc.collect()
    return tracemalloc.get_traced_memory()[0]

async def main(path, batch, count):
    async with Store.open(path) as store, Reader.open(path) as reader:
        for _ in range(4000 // batch):
            await store.append_many([os.urandom(256) for _ in range(batch)])
        followers = [(store, reader)[number % 2].follow(0) for number in range(count)]
        tracemalloc.start()
        before = traced_bytes()
        for number, follow in enumerate(followers):
            for _ in range(1 + number * 37 % 1000):  # each is at a place of its own
                await anext(follow)
        print((traced_bytes() - before) // count)

asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
"""


@pytest.mark.parametrize("batch", [8, pytest.param(1000, marks=pytest.mark.proof), 4000])
def test_memory_of_many_followers(tmp_path: Path, batch: int) -> None:
    """Of thousands of followers that catch up each holds less than 128 KiB, also of commits of
    1,000 records and more.
    """
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "store"), str(batch), "400"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(output) < 128 * KIB


# together


async def followed(follow: Follow, count: int) -> list[Record]:
    """What a follower gives, up to so many records."""
    found: list[Record] = []
    async with follow:
        async for record in follow:
            found.append(record)
            await sleep(0)
            if len(found) == count:
                break
    return found


@pytest.mark.parametrize("batch", [5, 2000])
@pytest.mark.parametrize("of_reader", [False, True])
@pytest.mark.asyncio
async def test_followers_close_behind_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, of_reader: bool
) -> None:
    """They read once for all of them: as often as one alone, and each is given every record."""
    monkeypatch.setattr(room, "_ALL_BYTES", 0)
    await written(tmp_path, [[b"%d" % n for n in range(batch)]] * (2000 // batch))
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store, Reader.open(tmp_path, disk=disk) as reader:
        records = [record async for record in store.scan()]
        reads = list[int]()
        for many in (1, 30):
            disk.calls.clear()
            follows = [(reader if of_reader else store).follow(0) for _ in range(many)]
            given = await gather(*(followed(follow, 2000) for follow in follows))
            assert given == [records] * many
            reads.append(sum(c.method == "read" and ".segment" in c.path for c in disk.calls))
        # alone it does not read what it has read of a frame before; and whoever reads first for
        # the others has to find its place
        assert reads[1] <= 2 * reads[0] + 3


@pytest.mark.asyncio
async def test_one_who_reads_for_others_is_cancelled(tmp_path: Path) -> None:
    """Then one of those who wait reads; nobody waits for ever."""
    await written(tmp_path, [[b"x"] * 100])
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        hold = disk.hold("read", of=".segment")
        tasks = [create_task(followed(store.follow(0), 100)) for _ in range(5)]
        assert await to_thread(hold.reached.wait, 60)
        tasks[0].cancel()
        await wait([tasks[0]])
        hold.released.set()
        assert list(map(len, await gather(*tasks[1:]))) == [100] * 4


@pytest.mark.asyncio
async def test_what_is_kept_for_others_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so much of what was read is kept, the last of it, and only as long as others follow."""
    monkeypatch.setattr(room, "_ALL_BYTES", 0)
    monkeypatch.setattr(room, "_LEAST_BYTES", 10 * KIB)
    monkeypatch.setattr(room, "_KEPT_BYTES", 50 * KIB)
    view = await written(tmp_path, [[b"x" * 100] * 1000] * 3)
    windows, followers = Windows(), [Follower(), Follower()]
    for follower in followers:
        windows.joined(follower)
    tail, made = Tail(Disk(), str(tmp_path), 0, windows), list[Window]()
    while window := tail.read(lambda indexed: view):
        windows.keep(b"one", window)
        made.append(window)
    kept = [it for it in made if windows.find(b"one", it.first_sequence) is it]
    assert kept == made[-len(kept) :]
    assert 40 * KIB < sum(window.size for window in kept) <= 50 * KIB
    last = made[-1]
    assert windows.find(b"one", last.next_sequence - 1) is last
    assert windows.find(b"one", last.next_sequence) is None
    assert windows.find(b"two", last.first_sequence) is None, "the log may have become another"
    windows.left(followers[0])
    assert windows.find(b"one", last.first_sequence) is None
    windows.keep(b"one", last)
    assert windows.find(b"one", last.first_sequence) is None, "there is nobody whom it may serve"


class Follower:
    """Somebody who follows."""
