"""reader, catalogue, cursor: another process sees exactly what has been acknowledged, and changes
nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import sys
from asyncio import create_task, sleep
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from errno import EIO
from pathlib import Path

import pytest

from aquipu import (
    Always,
    CorruptionError,
    Disk,
    EveryN,
    Follow,
    NotAStoreError,
    OsManaged,
    Reader,
    Record,
    RecordNotWrittenError,
    RecordPurgedError,
    Retention,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreUnavailableError,
    UnsupportedFormatError,
    WrongLoopError,
)
from aquipu.local.format.names import ACKNOWLEDGED, MANIFEST, BookmarkKind, bookmark_name
from aquipu.local.format.segment import SEGMENT_HEADER_BYTES
from aquipu.local.read import progress_reader
from tests import follow_child
from tests.disk import FailingDisk
from tests.follow_child import TASKS
from tests.support import flip, segment_in, segments_in, snapshot

LABELS = ("user:7", "document:42")


async def take(follow: Follow, count: int) -> list[Record]:
    """The next records, so many."""
    return [await anext(follow) for _ in range(count)]


async def take_all(follow: Follow) -> list[Record]:
    async with follow:
        return [record async for record in follow]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own time limit ends it."""
    while not condition():  # noqa: ASYNC110 - what it waits for happens in other processes
        await sleep(0.001)


def sequences(records: list[Record]) -> list[int]:
    return [record.sequence for record in records]


async def everything(reader: Reader) -> list[Record]:
    return [record async for record in reader.scan()]


async def child(role: str, path: Path, count: int) -> Process:
    """A process of `follow_child` that has opened the store."""
    arguments = (sys.executable, "-m", follow_child.__name__, role, str(path), str(count))
    process = await asyncio.create_subprocess_exec(*arguments, stdout=PIPE, limit=1 << 24)
    assert process.stdout is not None
    if role != "leave":
        assert await process.stdout.readline() == b"open\n"
    return process


async def reported(process: Process) -> dict[int, int]:
    """Sequence to moment, in the order of the report."""
    out, _ = await process.communicate()
    moments: dict[int, int] = {}
    for line in out.decode().splitlines():
        sequence, moment = map(int, line.split())
        assert sequence not in moments
        moments[sequence] = moment
    return moments


async def filled(path: Path, count: int = 20, size: int = 1000) -> list[Record]:
    """A closed store of several segments; what it holds."""
    async with Store.open(path, max_segment_bytes=4096) as store:
        for number in range(count):
            await store.append(b"%d" % number * size, relations=(LABELS[number % 2],))
        return [record async for record in store.scan()]


# opening


async def opened(path: Path) -> None:
    async with Reader.open(path):
        pass


@pytest.mark.asyncio
async def test_no_store(tmp_path: Path) -> None:
    """Nothing, a file, an empty directory, a directory of something else: no store, and nothing is
    made there.
    """
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thing").touch()
    for name in ("missing", "file", "empty", "other"):
        with pytest.raises(NotAStoreError):
            await opened(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "other"]
    assert os.listdir(tmp_path / "empty") == []


@pytest.mark.asyncio
async def test_a_later_version(tmp_path: Path) -> None:
    """A store of a format that is not known is refused by name, whichever file says so."""
    await filled(tmp_path)
    for name in (MANIFEST, ACKNOWLEDGED):
        flip(tmp_path / name, 8, 1)
        with pytest.raises(UnsupportedFormatError, match="version 3"):
            await opened(tmp_path)
        flip(tmp_path / name, 8, 1)
    await opened(tmp_path)


@pytest.mark.asyncio
async def test_damage_found_by_opening(tmp_path: Path) -> None:
    """A damaged manifest, header or footer and a missing segment are named, with the file."""
    await filled(tmp_path)
    first, second, *_, last = segments_in(tmp_path)
    for file, offset in (
        (tmp_path / MANIFEST, 20),
        (first, 30),
        (second, 30),
        (last, 30),
        (second, second.stat().st_size - 9),
    ):
        flip(file, offset)
        with pytest.raises(CorruptionError) as caught:
            await opened(tmp_path)
        assert caught.value.path == str(file)
        flip(file, offset)
    for file in (first, second, last):
        file.rename(tmp_path.parent / "aside")
        with pytest.raises(CorruptionError):
            await opened(tmp_path)
        (tmp_path.parent / "aside").rename(file)
    await opened(tmp_path)


@pytest.mark.asyncio
async def test_damage_found_by_reading(tmp_path: Path) -> None:
    """A record in a damaged frame is not given; the others are."""
    records = await filled(tmp_path)
    flip(segment_in(tmp_path), SEGMENT_HEADER_BYTES + 80)
    async with Reader.open(tmp_path) as reader:
        with pytest.raises(CorruptionError):
            await reader.get(0)
        with pytest.raises(CorruptionError):
            await take_all(reader.follow(0))
        assert await reader.get(19) == records[19]


@pytest.mark.asyncio
async def test_damage_of_the_segment_that_is_written(tmp_path: Path) -> None:
    """A frame that was acknowledged and does not check is damage, not an end."""
    async with Store.open(tmp_path, sync_policy=Always()) as store, Reader.open(tmp_path) as reader:
        await store.append_many([b"x"] * 3)
        await store.append_many([b"y"] * 3)
        await until(lambda: reader.next_sequence == 6)
        flip(segment_in(tmp_path), SEGMENT_HEADER_BYTES + 20)
        with pytest.raises(CorruptionError) as caught:
            await reader.get(5)
        assert (caught.value.path, caught.value.offset) == (
            str(segment_in(tmp_path)),
            SEGMENT_HEADER_BYTES,
        )


# what is seen


@pytest.mark.asyncio
async def test_what_a_reader_offers(tmp_path: Path) -> None:
    """A Reader reads as the store does, and changes no byte, name or time of the directory."""
    records = await filled(tmp_path)
    before = snapshot(tmp_path)
    async with Reader.open(tmp_path) as reader:
        assert (reader.first_sequence, reader.next_sequence, reader.path) == (0, 20, str(tmp_path))
        assert await everything(reader) == records
        assert [record async for record in reader.scan(3, 7)] == records[3:7]
        assert [record async for record in reader.scan(relation="user:7")] == records[::2]
        assert await reader.relations() == {"document:42": 10, "user:7": 10}
        assert [await reader.get(number) for number in range(20)] == records
        with pytest.raises(RecordNotWrittenError):
            await reader.get(20)
        assert await take(reader.follow(0), 20) == records
        assert "next_sequence=20" in repr(reader)
    assert snapshot(tmp_path) == before


@pytest.mark.asyncio
async def test_holds_beside_the_writer(tmp_path: Path) -> None:
    """A Reader says what is held, also by other processes; one that does not check is an error."""
    async with Store.open(tmp_path) as store, Reader.open(tmp_path) as reader:
        await store.append_many([b"x"] * 5)
        assert await reader.holds() == {}
        await store.hold("audit", 3)
        assert await reader.holds() == {"audit": 3}
        flip(tmp_path / bookmark_name(BookmarkKind.HOLD, "audit"), 20)
        with pytest.raises(CorruptionError, match="audit"):
            await reader.holds()
    with pytest.raises(StoreClosedError):
        await reader.holds()


@pytest.mark.asyncio
async def test_a_commit_under_way_is_not_seen(tmp_path: Path) -> None:
    """A commit that stands whole in the file is not seen before its callers go on; then it is."""
    disk = FailingDisk(writes_synced=False)
    async with (
        Store.open(tmp_path, sync_policy=Always(), disk=disk) as store,
        Reader.open(tmp_path) as reader,
    ):
        await store.append(b"told")
        await until(lambda: reader.next_sequence == 1)
        follow = reader.follow(0)
        assert sequences(await take(follow, 1)) == [0]
        hold = disk.hold("sync")
        under_way = store.append_nowait(b"under way")
        await until(hold.reached.is_set)
        async with Reader.open(tmp_path) as fresh:
            assert sequences(await everything(fresh)) == sequences(await everything(reader)) == [0]
            assert (fresh.next_sequence, reader.next_sequence) == (1, 1)
            with pytest.raises(RecordNotWrittenError):
                await fresh.get(1)
        hold.released.set()
        assert sequences(await take(follow, 1)) == [1]
        assert under_way.done()
        await follow.aclose()


@pytest.mark.asyncio
async def test_a_writer_that_failed(tmp_path: Path) -> None:
    """When the writer has failed, readers see what is on the disk, as it does itself."""
    disk = FailingDisk(writes_synced=False)
    store = await Store.open(tmp_path, sync_policy=EveryN(100, within=None), disk=disk)
    await store.append_many([b"synced"] * 3)
    await store.sync()
    await store.append(b"flushed")
    async with Reader.open(tmp_path) as reader:
        await until(lambda: reader.next_sequence == 4)
        assert sequences(await everything(reader)) == [0, 1, 2, 3]
        disk.fail("sync", errno.EIO)
        with pytest.raises(StoreFailedError):
            await store.sync()
        assert sequences(await everything(reader)) == [0, 1, 2]
        with pytest.raises(StoreFailedError):
            await store.aclose()


@pytest.mark.asyncio
async def test_frames_written_anew(tmp_path: Path) -> None:
    """Where a dead writer's last frames were lost and its successor wrote others, a reader that
    knew them finds those.
    """
    async with Store.open(tmp_path / "original", sync_policy=OsManaged()) as store:
        for _ in range(7):
            await store.append(b"x" * 100)
        await sleep(0)
        path = Path(shutil.copytree(tmp_path / "original", tmp_path / "killed"))
    async with Reader.open(path) as reader:
        assert sequences(await everything(reader)) == list(range(7))
        os.truncate(segment_in(path), segment_in(path).stat().st_size - 300)
        async with Store.open(path) as store:
            assert store.next_sequence < 7
            await store.append_many([b"another"] * 10)
            following = store.next_sequence
        records = await everything(reader)
        assert sequences(records) == list(range(following))
        assert await reader.get(following - 1) == records[-1]


@pytest.mark.asyncio
async def test_purges(tmp_path: Path) -> None:
    """After a purge a reader begins where the store does; what is gone is an error of its own."""
    async with (
        Store.open(tmp_path, max_segment_bytes=4096) as store,
        Reader.open(tmp_path) as reader,
    ):
        late, at_the_end = reader.follow(0), reader.follow(0)
        for _ in range(10):
            await store.append(b"x" * 4096)
        await until(lambda: reader.next_sequence == 10)
        assert sequences(await take(late, 1)) == [0]
        assert sequences(await take(at_the_end, 10)) == list(range(10))
        assert (await store.purge(before=6)).segments == 6
        assert reader.first_sequence == 6
        with pytest.raises(RecordPurgedError) as caught:
            await anext(late)
        assert (caught.value.sequence, caught.value.bound) == (1, 6)
        with pytest.raises(RecordPurgedError):
            await reader.get(5)
        assert sequences(await everything(reader)) == [6, 7, 8, 9]
        await store.append(b"x")
        assert sequences(await take(at_the_end, 1)) == [10]


@pytest.mark.asyncio
async def test_a_purge_that_nobody_has_told_of(tmp_path: Path) -> None:
    """Segments that the retention removes after the last commit are missed: the reader looks where
    the log begins now.
    """
    disk, keep = FailingDisk(), Retention(max_bytes=1)
    async with (
        Store.open(tmp_path, max_segment_bytes=4096, retention=keep, disk=disk) as store,
        Reader.open(tmp_path) as reader,
    ):
        await store.append(b"x" * 100)
        await until(lambda: reader.next_sequence == 1)
        assert sequences(await everything(reader)) == [0]
        hold = disk.hold("rename", of=MANIFEST)
        await store.append(b"x" * 4096)
        await until(lambda: hold.reached.is_set() and reader.next_sequence == 2)
        assert sequences(await everything(reader)) == [
            0,
            1,
        ]  # the reader knows the segments as they are now
        hold.released.set()
        await until(lambda: segments_in(tmp_path) == [segment_in(tmp_path, 2)])
        with pytest.raises(RecordPurgedError) as caught:
            await reader.get(0)
        assert caught.value.bound == reader.first_sequence == 2


# following


@pytest.mark.asyncio
async def test_writers_and_followers_in_processes(tmp_path: Path) -> None:
    """64 tasks append in one process; three followers there and two in others get each record once,
    in order, and none before its own writer was told.
    """
    await filled(tmp_path / "store", 0)
    count = 40
    readers = [await child("follow", tmp_path / "store", TASKS * count) for _ in range(2)]
    writer = await child("write", tmp_path / "store", count)
    told, *given = await asyncio.gather(*map(reported, (writer, *readers)))
    assert [process.returncode for process in (writer, *readers)] == [0, 0, 0]
    assert sorted(told) == list(range(TASKS * count))
    for moments in given:
        assert list(moments) == list(range(TASKS * count))
        assert [sequence for sequence, moment in moments.items() if moment < told[sequence]] == []


@pytest.mark.asyncio
async def test_the_writer_is_killed_and_started_anew(tmp_path: Path) -> None:
    """A follower goes on through the deaths of its writers: all that they reported, in order, and
    nothing twice.
    """
    await filled(tmp_path, 0)
    async with Reader.open(tmp_path) as reader:
        follow, following, told = reader.follow(0), 0, 0
        for _ in range(3):
            writer = await child("write", tmp_path, 0)
            for record in await take(follow, 500):
                assert record.sequence == following
                following += 1
            writer.send_signal(signal.SIGKILL)
            told = max([told, *await reported(writer)])
            while not max(told + 1, following) <= reader.next_sequence:  # noqa: ASYNC110 - killed while it told, perhaps
                await sleep(0.001)
        async with Store.open(tmp_path) as store:
            expected = [record async for record in store.scan()]
        assert told < len(expected)
        assert sequences(await take(follow, len(expected) - following)) == list(
            range(following, len(expected))
        )
        assert await everything(reader) == expected


@pytest.mark.skipif(
    sys.platform != "linux", reason="only there a dead writer can be told from a slow one"
)
@pytest.mark.parametrize("count", [1, 2, 300])
@pytest.mark.asyncio
async def test_the_writer_dies_in_the_hands_of_a_caller(tmp_path: Path, count: int) -> None:
    """What was acknowledged is seen, by old readers and new, also when the first caller who is told
    ends the process.
    """
    await filled(tmp_path, 0)
    async with Reader.open(tmp_path) as reader, reader.follow(0) as follow:
        process = await child("die", tmp_path, count)
        assert await process.wait() == 0
        (record,) = await take(follow, 1)
        assert record.data == b"acknowledged"
        async with Reader.open(tmp_path) as fresh:
            await until(lambda: fresh.next_sequence >= 1)
            assert (await fresh.get(0)).data == b"acknowledged"


@pytest.mark.asyncio
async def test_a_writer_that_never_closed(tmp_path: Path) -> None:
    """What a program left to be written at its end was told to nobody, but is on the disk, and is
    seen.
    """
    await filled(tmp_path, 0)
    async with Reader.open(tmp_path) as reader:
        process = await child("leave", tmp_path, 500)
        assert await process.wait() == 0
        async with Reader.open(tmp_path) as fresh:
            assert sequences(await everything(fresh)) == list(range(501))
            assert sequences(await take(fresh.follow(0), 501)) == list(range(501))
        async with Store.open(tmp_path):
            pass
        assert sequences(await everything(reader)) == list(range(501))


@pytest.mark.asyncio
async def test_cancelled_at_every_step(tmp_path: Path) -> None:
    """A step that is cancelled at whatever tick has lost nothing and repeats nothing."""
    await filled(tmp_path, 200, 50)
    disk = FailingDisk()
    async with Reader.open(tmp_path, disk=disk) as reader:
        got: list[int] = []
        delay = 0
        async with reader.follow(0) as follow:
            while len(got) < 200:
                step = create_task(anext(follow))
                for _ in range(delay % 30):
                    await sleep(0)
                await sleep(0.0003 * (delay % 3))
                delay += 1
                step.cancel()
                try:
                    got.append((await step).sequence)
                except asyncio.CancelledError:
                    continue
        assert got == list(range(200))
        await until(lambda: set(disk.open_files.values()) == {str(tmp_path / ACKNOWLEDGED)})
    assert not disk.open_files


@pytest.mark.asyncio
async def test_at_rest_it_touches_no_file(tmp_path: Path) -> None:
    """A follower at the end that nothing comes for looks at the page that the writer shares, and at
    no other file; what then comes, it gives.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path) as store, Reader.open(tmp_path, disk=disk) as reader:
        waiting = create_task(take(reader.follow(), 1))
        await sleep(0.1)
        calls = len(disk.calls)
        await sleep(0.1)
        assert len(disk.calls) == calls
        await store.append(b"x")
        assert sequences(await waiting) == [0]


@pytest.mark.asyncio
async def test_the_page_is_cut_off_while_it_is_used(tmp_path: Path) -> None:
    """Whoever empties the page that the writer shares (logrotate's copytruncate) ends neither the
    writer nor its readers: a follower gives all that is appended, and a new Reader sees it.
    """
    async with (
        Store.open(tmp_path) as store,
        Reader.open(tmp_path) as reader,
        reader.follow(0) as follow,
    ):
        for number in range(20):
            if number % 3 == 1:
                os.truncate(tmp_path / ACKNOWLEDGED, 0)
                assert reader.next_sequence == number
            await store.append(b"x")
            assert (await anext(follow)).sequence == number
        async with Reader.open(tmp_path) as late:
            assert late.next_sequence == 20


@pytest.mark.asyncio
async def test_the_end_of_a_follower(tmp_path: Path) -> None:
    """A follower that waits ends when it is closed, and when its Reader is; the writer's end is
    none for it.
    """
    async with Store.open(tmp_path) as store:
        reader = await Reader.open(tmp_path)
        first, second = reader.follow(), reader.follow()
        waiting = [create_task(take_all(first)), create_task(take_all(second))]
        await sleep(0)
        await first.aclose()
        assert await waiting[0] == []
        await store.append(b"x")
    await sleep(0)
    await until(lambda: reader.next_sequence == 1)
    await sleep(0.1)
    assert not waiting[1].done()
    await reader.aclose()
    await reader.aclose()
    assert sequences(await waiting[1]) == [0]
    with pytest.raises(StoreClosedError):
        await reader.get(0)
    with pytest.raises(StoreClosedError):
        reader.follow()


def test_another_loop(tmp_path: Path) -> None:
    """A Reader belongs to the loop that opened it."""

    async def prepared() -> Reader:
        await filled(tmp_path, 1)
        return await Reader.open(tmp_path)

    with asyncio.Runner() as runner:
        reader = runner.run(prepared())
        with asyncio.Runner() as other, pytest.raises(WrongLoopError):
            other.run(reader.get(0))
        with pytest.raises(WrongLoopError):
            reader.follow()
        runner.run(reader.aclose())


# without the writer's word


@pytest.mark.asyncio
async def test_no_word_of_the_writer(tmp_path: Path) -> None:
    """Without its file, seen is what the frames prove: of a store that was closed, all of it."""
    records = await filled(tmp_path)
    (tmp_path / ACKNOWLEDGED).unlink()
    async with Reader.open(tmp_path) as reader:
        assert await everything(reader) == records
        assert (reader.first_sequence, reader.next_sequence) == (0, 20)
        follow = reader.follow(0)
        assert await take(follow, 20) == records
        async with Store.open(tmp_path) as store:  # makes the file
            await store.append(b"x")
        assert sequences(await take(follow, 1)) == [20]


@pytest.mark.asyncio
async def test_another_file_with_the_writers_word(tmp_path: Path) -> None:
    """When the file was removed, the next writer makes another, and who follows finds it."""
    await filled(tmp_path)
    async with Reader.open(tmp_path) as reader:
        follow = reader.follow(19)
        assert sequences(await take(follow, 1)) == [19]
        (tmp_path / ACKNOWLEDGED).unlink()
        async with Store.open(tmp_path) as store:
            await store.append(b"x")
            assert sequences(await take(follow, 1)) == [20]


@pytest.mark.asyncio
async def test_a_word_from_before_the_machine_was_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was said before a power cut counts as far as the frames are there: what is lost is no
    damage.
    """
    original = tmp_path / "original"
    async with Store.open(original, sync_policy=OsManaged()) as store:
        for number in range(10):
            await store.append(b"%d" % number)
        await store.append_nowait(b"the last")
        await sleep(0.01)
        cut = Path(shutil.copytree(original, tmp_path / "cut"))
    whole = segment_in(cut).stat().st_size
    monkeypatch.setattr(progress_reader, "machine_life", lambda: bytes(range(16)))
    for lost in (0, 1, 60, 200):
        os.truncate(segment_in(cut), whole - lost)
        async with Reader.open(cut) as reader:
            records = await everything(reader)
            assert sequences(records) == list(range(len(records)))
            assert (len(records) == 11) == (lost == 0)
            assert reader.next_sequence == len(records)


# cursors


@pytest.mark.asyncio
async def test_a_cursor(tmp_path: Path) -> None:
    """What is saved under a name stays there: for the store, for readers, after reopening."""
    await filled(tmp_path)
    async with Store.open(tmp_path) as store, Reader.open(tmp_path) as reader:
        assert await store.cursor("billing").load() is None
        await reader.cursor("billing").save(17)
        assert await store.cursor("billing").load() == 17
        await store.cursor("billing").save(20)
        await store.cursor("mail").save(0)
        assert store.cursor("mail").name == "mail"
    async with Store.open(tmp_path) as store, Reader.open(tmp_path) as reader:
        assert await reader.cursor("billing").load() == 20
        assert await store.cursor("mail").load() == 0


@pytest.mark.parametrize("of_reader", [False, True])
@pytest.mark.asyncio
async def test_a_cursor_waits_for_the_log(tmp_path: Path, of_reader: bool) -> None:
    """What lies before a cursor is on the disk before the cursor is, whoever saves it; and it is
    synced once.
    """
    disk = FailingDisk()
    async with (
        Store.open(tmp_path, sync_policy=OsManaged(), disk=disk) as store,
        Reader.open(tmp_path, disk=disk) as reader,
    ):
        await store.append_many([b"x"] * 3)
        cursor = (reader if of_reader else store).cursor("billing")
        await until(lambda: reader.next_sequence == 3)
        disk.calls.clear()
        await cursor.save(3)
        synced = disk.steps("sync", "rename")
        assert synced[0] == ("sync", segment_in(tmp_path).name)
        assert synced[-1][0] == "rename"
        disk.calls.clear()
        await cursor.save(2)
        assert not [name for method, name in disk.steps("sync") if name.endswith(".segment")]
        assert store.synced_sequence == (0 if of_reader else 3)


@pytest.mark.parametrize("of_reader", [False, True])
@pytest.mark.asyncio
async def test_a_log_that_cannot_be_synced(tmp_path: Path, of_reader: bool) -> None:
    """Then the cursor stays where it was: an error of the tree."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=OsManaged()) as store:
        await store.append(b"x")
    store = await Store.open(tmp_path, sync_policy=OsManaged(), disk=disk)
    async with Reader.open(tmp_path, disk=disk) as reader:
        cursor = (reader if of_reader else store).cursor("billing")
        await cursor.save(1)
        await store.append(b"y")
        await until(lambda: reader.next_sequence == 2)
        disk.fail("sync", EIO, of=".segment")
        with pytest.raises(StoreUnavailableError if of_reader else StoreFailedError):
            await cursor.save(2)
        assert await cursor.load() == 1
    with suppress(StoreFailedError):
        await store.aclose()


@pytest.mark.asyncio
async def test_a_cursor_of_a_store_that_is_closed(tmp_path: Path) -> None:
    """A follower ends when its store is closed, and then its consumer saves where it was: closing
    has synced that.
    """
    store = await Store.open(tmp_path, sync_policy=OsManaged())
    follow = store.follow(0)
    await store.append_many([b"x"] * 3)
    closing = create_task(store.aclose())
    async for record in follow:
        await store.cursor("billing").save(record.sequence + 1)
    await closing
    assert await store.cursor("billing").load() == 3


@pytest.mark.parametrize("of_reader", [False, True])
@pytest.mark.asyncio
async def test_a_cursor_beyond_the_end(tmp_path: Path, of_reader: bool) -> None:
    """It would pass over what comes: refused, and nothing is written."""
    async with Store.open(tmp_path) as store, Reader.open(tmp_path) as reader:
        await store.append(b"x")
        await until(lambda: reader.next_sequence == 1)
        cursor = (reader if of_reader else store).cursor("billing")
        for sequence in (2, 2**64 - 1):
            with pytest.raises(RecordNotWrittenError):
                await cursor.save(sequence)
        assert await cursor.load() is None


@pytest.mark.asyncio
async def test_a_start_beyond_the_end(tmp_path: Path) -> None:
    """An error, as in a Store: at once where a writer says how far the log reaches, and otherwise
    as soon as one does.
    """
    await filled(tmp_path)
    async with Store.open(tmp_path), Reader.open(tmp_path) as reader:
        with pytest.raises(RecordNotWrittenError):
            await anext(reader.follow(21))
    (tmp_path / "acknowledged").unlink()
    async with Reader.open(tmp_path) as reader:
        step = create_task(anext(reader.follow(21)))
        await sleep(0.1)
        assert not step.done()
        async with Store.open(tmp_path):
            with pytest.raises(RecordNotWrittenError):
                await step


@pytest.mark.asyncio
async def test_the_earliest_and_where_a_purge_was_quicker(tmp_path: Path) -> None:
    """A consumer starts on any store; one that was overtaken raises, or passes over and tells how
    many.
    """
    await filled(tmp_path)
    async with Store.open(tmp_path) as store, Reader.open(tmp_path) as reader:
        first = (await store.purge(before=15)).first_sequence
        assert sequences(await take(reader.follow("earliest"), 2)) == [first, first + 1]
        with pytest.raises(RecordPurgedError):
            await anext(reader.follow(2))
        follow = reader.follow(2, on_purged="skip")
        assert sequences(await take(follow, 20 - first)) == list(range(first, 20))
        assert follow.skipped == first - 2


@pytest.mark.asyncio
async def test_a_consumer_goes_on(tmp_path: Path) -> None:
    """A consumer that ends after any record goes on exactly behind it."""
    await filled(tmp_path)
    seen: list[int] = []
    for part in (1, 4, 7, 8):
        async with Reader.open(tmp_path) as reader:
            cursor = reader.cursor("consumer")
            async with reader.follow(await cursor.load() or 0) as records:
                for record in await take(records, part):
                    seen.append(record.sequence)
                    await cursor.save(record.sequence + 1)
    assert seen == list(range(20))


@pytest.mark.asyncio
async def test_a_damaged_cursor(tmp_path: Path) -> None:
    """A cursor that does not check is damage: a consumer must not begin anew because of it.

    Saving mends it.
    """
    await filled(tmp_path)
    async with Store.open(tmp_path) as store:
        cursor = store.cursor("billing")
        await cursor.save(17)
        flip(tmp_path / "billing.cursor", 33)
        with pytest.raises(CorruptionError) as caught:
            await cursor.load()
        assert caught.value.path == str(tmp_path / "billing.cursor")
        await cursor.save(18)
        assert await cursor.load() == 18


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "-x", "ü", "x" * 101, "a\nb"])
async def test_a_name_that_is_none(tmp_path: Path, name: str) -> None:
    """What could leave the directory, or be no name, is refused at once."""
    async with Store.open(tmp_path) as store:
        with pytest.raises(ValueError, match="name of a hold or cursor"):
            store.cursor(name)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("sequence", "error"),
    [(-1, ValueError), (2**64, ValueError), ("1", TypeError), (True, TypeError)],
)
async def test_a_sequence_that_is_none(
    tmp_path: Path, sequence: int, error: type[Exception]
) -> None:
    """A cursor keeps nothing but a sequence."""
    async with Store.open(tmp_path) as store:
        with pytest.raises(error, match="a cursor keeps a sequence"):
            await store.cursor("billing").save(sequence)
        assert await store.cursor("billing").load() is None


@pytest.mark.asyncio
async def test_the_writer_rolls_while_a_reader_lists_its_segments(tmp_path: Path) -> None:
    """What the page says a moment later is of segments that are not in the list: what was said when
    the list was made is what is seen.
    """
    async with Store.open(tmp_path / "store") as store:
        await store.append(b"before")
        loop = asyncio.get_running_loop()

        async def go_on() -> None:
            await store.append_many([b"later"] * 5)
            await store.roll()
            await store.append(b"in the next segment")

        class Busy(Disk):
            calls = 0

            def list(self, path: str) -> list[str]:
                names = super().list(path)
                self.calls += 1
                if self.calls == 2:  # the first one only asks whether there is a store
                    asyncio.run_coroutine_threadsafe(go_on(), loop).result()
                return names

        disk = Busy()
        async with Reader.open(tmp_path / "store", disk=disk) as reader:
            assert disk.calls == 2
            data = [record.data async for record in reader.scan()]
            assert data == [b"before", *[b"later"] * 5, b"in the next segment"]
