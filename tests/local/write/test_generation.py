"""position, history, generation: whoever has read what is not there any more is told, and nobody
else.
"""

from __future__ import annotations

import shutil
from asyncio import create_task, sleep
from collections.abc import Awaitable, Callable
from contextlib import suppress
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu import (
    OsManaged,
    Position,
    PositionLostError,
    Reader,
    Store,
    StoreFailedError,
    StoreUnavailableError,
    UnsupportedFormatError,
)
from aquipu.local.check.repair import repairing
from aquipu.local.disk.disk import Disk
from aquipu.local.format.bookmark import Bookmark
from aquipu.local.format.history import (
    ALL,
    GENERATIONS_MAX,
    HISTORY_BYTES,
    NO_GENERATION,
    Ending,
    Generation,
    History,
    Mark,
    decoded,
    encoded,
    encoded_mark,
    encoded_table,
)
from aquipu.local.format.names import HISTORY, BookmarkKind, bookmark_name
from aquipu.local.format.structure import Damage, Unsupported
from aquipu.local.read.follow import LocalFollow
from aquipu.local.retain.manifest import read_manifest
from tests.disk import FailingDisk
from tests.remote.daemon.served import served
from tests.support import flip, put_back, segment_in

STORE_ID = bytes(range(16))


def machine(number: int) -> Disk:
    """A disk of a machine that was started anew, so many times."""
    disk = FailingDisk()
    disk.answer("life", (number + 1).to_bytes(16, "big"))
    return disk


class Log:
    """A store that loses its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts = 0

    async def open(self, **options: Any) -> Store:
        return await Store.open(
            self.path, disk=machine(self.starts), sync_policy=OsManaged(), **options
        )

    async def begin(self, count: int) -> tuple[str, Path]:
        """A closed store of so many records: its generation, and a copy of its segment."""
        async with await self.open() as store:
            await store.append_many([b"kept"] * count)
            generation = store.generation
        return generation, Path(shutil.copy(segment_in(self.path), self.path.parent / "kept"))

    async def lose_power(self, store: Store, kept: Path) -> None:
        """The machine is started anew, and of the segment nothing is there but this."""
        left = self.path.with_name("left")
        shutil.copytree(self.path, left)
        await store.aclose()
        put_back(left, self.path)
        shutil.copy(kept, segment_in(self.path))
        self.starts += 1


# the bytes


lines = st.builds(Generation, st.binary(min_size=8, max_size=8), st.integers(0, ALL))
histories = st.builds(
    History, st.integers(0, ALL), st.lists(lines, min_size=2, max_size=GENERATIONS_MAX).map(tuple)
)
marks = st.builds(
    Mark, st.sampled_from(Ending), st.binary(min_size=16, max_size=16), st.integers(0, ALL)
)


@given(marks, histories)
def test_as_bytes_and_back(mark: Mark, history: History) -> None:
    """What is written is read, in a file of always the same size."""
    data = encoded(mark, history, STORE_ID)
    assert len(data) == HISTORY_BYTES
    assert decoded(data, STORE_ID) == (mark, history)


def test_the_next_table_stands_elsewhere() -> None:
    """A table is never written over the one that holds; which one that is, the mark says, or else
    the later turn.
    """
    mark, first = Mark(Ending.OPEN, bytes(16), 0), History.fresh(b"a" * 8, ALL)
    page = bytearray(encoded(mark, first, STORE_ID))
    second = first.followed_by(b"b" * 8, 5)
    offset, table = encoded_table(second, STORE_ID)
    page[offset : offset + len(table)] = table
    assert decoded(bytes(page), STORE_ID) == (mark, first), "the mark does not yet name it"
    named = encoded_mark(mark, second.turn, STORE_ID)
    page[: len(named)] = named
    assert decoded(bytes(page), STORE_ID) == (mark, second)
    page[20] ^= 1
    assert decoded(bytes(page), STORE_ID) == (None, second), "the mark is damaged"
    page[20] ^= 1
    page[offset + 3] ^= 1
    with pytest.raises(Damage):
        decoded(bytes(page), STORE_ID)


def test_every_bit() -> None:
    """A changed bit is damage, or changes nothing, or leaves it unknown how the writer left."""
    mark, history = (
        Mark(Ending.CLOSED, bytes(16), 7),
        History.fresh(b"a" * 8, 3).followed_by(b"b" * 8, 5),
    )
    data = encoded(mark, history, STORE_ID)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit >> 3] ^= 1 << (bit & 7)
        with suppress(Damage, Unsupported):
            assert decoded(bytes(changed), STORE_ID) in ((mark, history), (None, history))
    for size in range(len(data)):
        with suppress(Damage):
            assert decoded(data[:size], STORE_ID)[1] == history
    with pytest.raises(Damage):
        decoded(data, bytes(16))
    with pytest.raises(Unsupported):
        decoded(data[:8] + b"\2" + data[9:], STORE_ID)


def test_what_survived() -> None:
    """Of each generation what lies below the ends of all later ones; of the last, all."""
    history = History.fresh(b"a" * 8, ALL)
    for name, end in ((b"b" * 8, 10), (b"c" * 8, 7), (b"d" * 8, 20)):
        history = history.followed_by(name, end)
    assert history.current == b"d" * 8
    survived = {name[:1]: history.survived(name * 8) for name in (b"a", b"b", b"c", b"d", b"e")}
    assert survived == {b"a": 7, b"b": 7, b"c": 20, b"d": ALL, b"e": None}
    assert history.survived(NO_GENERATION) == 7


def test_very_many_generations() -> None:
    """The oldest are forgotten; what names none is not."""
    history = History.fresh(bytes(8), 1000)
    for number in range(1, 3 * GENERATIONS_MAX):
        history = history.followed_by(number.to_bytes(8, "big"), 500 + number)
        offset, table = encoded_table(history, STORE_ID)
        assert offset + len(table) <= HISTORY_BYTES
    assert len(history.generations) == GENERATIONS_MAX
    assert history.survived(NO_GENERATION) == 501
    assert history.survived((1).to_bytes(8, "big")) is None
    assert (
        history.survived((3 * GENERATIONS_MAX - 2).to_bytes(8, "big"))
        == 500 + 3 * GENERATIONS_MAX - 1
    )


@given(st.binary(min_size=8, max_size=8), st.integers(0, ALL))
def test_a_position_as_text(generation: bytes, sequence: int) -> None:
    """It is kept where a text can be kept."""
    position = Position(generation.hex(), sequence)
    assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text", ["", "5", "abc-5", "0123456789abcdef-", "0123456789abcdef--1", "0123456789ABCDEF-1\n"]
)
def test_a_text_that_is_no_position(text: str) -> None:
    """It is refused."""
    with pytest.raises(ValueError, match="a position is written"):
        Position.parse(text)


# when a generation begins


@pytest.mark.asyncio
async def test_nothing_was_lost(tmp_path: Path) -> None:
    """A store that was closed goes on in its generation, and so does one whose process died."""
    log = Log(tmp_path / "store")
    generation, _ = await log.begin(3)
    for _ in range(2):
        store = await log.open()
        assert store.generation == generation
        await store.append_many([b"x"] * 5)
        left = shutil.copytree(log.path, tmp_path / "left")
        await store.aclose()
        put_back(left, log.path)
    async with await log.open() as store, Reader.open(log.path, disk=machine(0)) as reader:
        assert store.generation == reader.generation == generation
        assert store.next_sequence == 13
    log.starts += 1
    async with await log.open() as store:
        assert store.generation == generation, "and the machine was started anew between"


async def whole(path: Path) -> None:
    """All is there: nobody knows that."""


async def without_its_page(path: Path) -> None:
    (path / "acknowledged").unlink()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("spoil", [whole, without_its_page])
@pytest.mark.asyncio
async def test_something_may_have_been_lost(
    tmp_path: Path, restarted: bool, spoil: Callable[[Path], Awaitable[None]]
) -> None:
    """The power was cut, or the page that vouches for a dead process is gone: a new generation.

    What is there counts.
    """
    log = Log(tmp_path / "store")
    generation, _ = await log.begin(3)
    store = await log.open()
    await store.append_many([b"x"] * 5)
    left = shutil.copytree(log.path, tmp_path / "left")
    await store.aclose()
    await spoil(left)
    put_back(left, log.path)
    log.starts += restarted
    async with await log.open() as store:
        assert (store.generation == generation) == (not restarted and spoil is whole)
        records = store.follow(Position(generation, 8))
        await store.append(b"new")
        assert (await anext(records)).sequence == 8
        assert records.position_after(await store.get(8)) == Position(store.generation, 9)


@pytest.mark.asyncio
async def test_a_failed_sync_that_takes_its_pages_along(tmp_path: Path) -> None:
    """The machine still runs, and what was acknowledged is not there any more: the page says how
    far that had been.
    """
    disk = FailingDisk(writes_synced=False)
    path = tmp_path / "log"
    async with Store.open(path, sync_policy=OsManaged()) as store:
        await store.append_many([b"kept"] * 3)
        generation = store.generation
    kept = Path(shutil.copy(segment_in(path), tmp_path / "kept"))
    store = await Store.open(path, sync_policy=OsManaged(), disk=disk)
    await store.append_many([b"lost"] * 5)
    assert store.generation == generation
    disk.fail("sync", EIO, of=".segment")
    with pytest.raises(StoreFailedError):
        await store.sync()
    with pytest.raises(StoreFailedError):
        await store.aclose()
    shutil.copy(kept, segment_in(path))
    async with Store.open(path) as store:
        assert store.next_sequence == 3
        assert store.generation != generation
        await store.append_many([b"others"] * 9)
        with pytest.raises(PositionLostError) as caught:
            await anext(store.follow(Position(generation, 8)))
        assert caught.value.resume == 3


@pytest.mark.asyncio
async def test_a_repair(tmp_path: Path) -> None:
    """Nobody knows what came behind: the next opening begins a new generation."""
    log = Log(tmp_path / "store")
    generation, _ = await log.begin(5)
    flip(segment_in(log.path), 100)
    with repairing(Disk(), str(log.path)) as repair:
        assert repair.carry_out()
    async with await log.open() as store:
        assert store.generation != generation
        assert await store.cursor("new").load() is None


@pytest.mark.asyncio
async def test_a_store_of_the_time_before(tmp_path: Path) -> None:
    """It opens as ever, and is given a history.

    A cursor of that time holds as far as the log reaches then.
    """
    log = Log(tmp_path / "store")
    await log.begin(5)
    (log.path / HISTORY).unlink()
    (log.path / "acknowledged").unlink()
    async with Reader.open(log.path) as reader:
        assert reader.generation == "0" * 16
    store_id = read_manifest(Disk(), str(log.path)).store_id
    for name, sequence in (("early", 5), ("late", 6)):
        file_name = bookmark_name(BookmarkKind.CURSOR, name)
        data = Bookmark(store_id, file_name, sequence).encode()
        assert len(data) == 44
        (log.path / file_name).write_bytes(data)
    async with await log.open() as store:
        await store.append_many([b"x"] * 5)
        assert await store.cursor("early").load() == 5
        with pytest.raises(PositionLostError) as caught:
            await store.cursor("late").load()
        assert (caught.value.sequence, caught.value.resume) == (6, 5)
        await store.cursor("late").save(5)
        assert await store.cursor("late").load() == 5


@pytest.mark.asyncio
async def test_a_damaged_history(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The store opens, and keeps the damaged bytes; whoever kept a position is told that nobody
    knows.
    """
    log = Log(tmp_path / "store")
    generation, _ = await log.begin(5)
    async with await log.open() as store:
        await store.cursor("billing").save(3)
    damaged = b"\0" * HISTORY_BYTES
    (log.path / HISTORY).write_bytes(damaged)
    async with await log.open() as store:
        assert (log.path / "history.cut-0").read_bytes() == damaged
        with pytest.raises(PositionLostError, match="does not know the generation") as caught:
            await store.cursor("billing").load()
        assert caught.value.resume is None
        with pytest.raises(PositionLostError):
            await anext(store.follow(Position(generation, 0)))
        assert store.generation != generation
    assert "is damaged" in caplog.text


@pytest.mark.asyncio
async def test_a_history_of_a_later_version(tmp_path: Path) -> None:
    """Nothing is changed."""
    log = Log(tmp_path / "store")
    generation, _ = await log.begin(1)
    data = bytearray((log.path / HISTORY).read_bytes())
    data[8] = 9
    (log.path / HISTORY).write_bytes(data)
    with pytest.raises(UnsupportedFormatError):
        await Store.open(log.path)
    async with Reader.open(log.path) as reader:
        with pytest.raises(UnsupportedFormatError):
            await anext(reader.follow(Position("0123456789abcdef", 1)))
        assert reader.generation == generation
    assert (log.path / HISTORY).read_bytes() == data


@pytest.mark.asyncio
async def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A store opens without a block for its history, which stays as large as it is; without one,
    its positions name no generation, and hold as far as the log reaches when it has one.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"x")
        generation = store.generation
    disk.fail("create", ENOSPC, forever=True)
    async with Store.open(tmp_path, disk=disk) as store:
        assert store.generation == generation
    (tmp_path / HISTORY).unlink()
    async with Store.open(tmp_path, disk=disk) as store:
        assert store.generation == "0" * 16
        await store.append(b"y")
        early, late = Position(store.generation, 2), Position(store.generation, 3)
        assert (await anext(store.follow(Position(store.generation, 1)))).data == b"y"
    assert "positions name none" in caplog.text
    disk.mend()
    async with Store.open(tmp_path, disk=disk) as store:
        assert store.generation != "0" * 16
        await store.append_many([b"z"] * 5)
        assert (await anext(store.follow(early))).sequence == 2
        with pytest.raises(PositionLostError):
            await anext(store.follow(late))


@pytest.mark.parametrize("call", ["write", "sync"])
@pytest.mark.asyncio
async def test_a_history_that_cannot_be_written(tmp_path: Path, call: str) -> None:
    """A store is not opened on a history that would say too little.

    Without space it is removed: then nothing is known.
    """
    disk = FailingDisk()
    async with Store.open(tmp_path, disk=disk) as store:
        await store.append(b"x")
        generation = store.generation
    disk.fail(call, EIO, of=HISTORY)
    with pytest.raises(StoreUnavailableError):
        await Store.open(tmp_path, disk=disk)
    disk.fail("write", ENOSPC, of=HISTORY)
    async with Store.open(tmp_path, disk=disk) as store:
        assert store.generation == "0" * 16
        with pytest.raises(PositionLostError):
            await anext(store.follow(Position(generation, 1)))


@pytest.mark.asyncio
async def test_a_store_without_a_page(tmp_path: Path) -> None:
    """Where the page cannot be had, nobody can vouch for a process that dies: the next opening is
    told so.
    """
    path = tmp_path / "log"
    disk = FailingDisk()
    disk.fail("share", ENOSPC)
    store = await Store.open(path, disk=disk)
    generation = store.generation
    await store.append(b"x")
    left = shutil.copytree(path, tmp_path / "left")
    await store.aclose()
    async with Store.open(left) as store:
        assert store.generation != generation
        await store.append(b"y")
        assert (await anext(store.follow(Position(generation, 1)))).data == b"y"


# who is told


async def by_follow(store: Any, generation: str, sequence: int) -> None:
    await anext(store.follow(Position(generation, sequence)))


async def by_text(store: Any, generation: str, sequence: int) -> None:
    await anext(store.follow(f"{generation}-{sequence}"))


async def by_cursor(store: Any, generation: str, sequence: int) -> None:
    await store.cursor("billing").load()


@pytest.mark.parametrize("resume", [by_follow, by_text, by_cursor])
@pytest.mark.parametrize("grown", [0, 3, 20])
@pytest.mark.asyncio
async def test_a_consumer_beyond_the_end(
    tmp_path: Path, grown: int, resume: Callable[[Any, str, int], Awaitable[None]]
) -> None:
    """It is told, and where to go on, in the writer's process, in another and through the daemon;
    also when the log has grown past that by then.
    """
    log = Log(tmp_path / "store")
    generation, kept = await log.begin(5)
    store = await log.open()
    await store.append_many([b"lost"] * 10)
    await store.cursor("billing").save(12)
    await log.lose_power(store, kept)
    async with served(tmp_path, disk=machine(log.starts)) as it, it.connect() as remote:
        async with Reader.open(log.path) as reader:
            await it.store.append_many([b"new"] * grown)
            for face in (it.store, remote, reader):
                with pytest.raises(PositionLostError) as caught:
                    await resume(face, generation, 12)
                assert (caught.value.sequence, caught.value.resume) == (12, 5)
                assert face.generation == it.store.generation != generation
            for face in (it.store, remote, reader):
                await face.cursor("billing").save(5)
                assert await face.cursor("billing").load() == 5
                if grown:
                    assert (await anext(face.follow(Position(generation, 5)))).data == b"new"


@pytest.mark.asyncio
async def test_a_reader_that_waits_for_a_writer(tmp_path: Path) -> None:
    """After a power cut a consumer may be started before its writer. As long as nobody says how far
    the log reaches it waits; then it is told, and does not wait on for what will be something else.
    """
    log = Log(tmp_path / "store")
    generation, kept = await log.begin(5)
    store = await log.open()
    await store.append_many([b"lost"] * 10)
    await log.lose_power(store, kept)
    (log.path / "acknowledged").unlink()
    async with Reader.open(log.path, disk=machine(log.starts)) as reader:
        follow = reader.follow(Position(generation, 12))
        step = create_task(anext(follow))
        beside = create_task(anext(reader.follow(5)))
        await sleep(0.1)
        assert not step.done()
        async with await log.open() as store:
            await store.append_many([b"new"] * 20)
            with pytest.raises(PositionLostError) as caught:
                await step
            assert caught.value.resume == 5
            assert (await beside).data == b"new", "who has read no further goes on"


async def failed_and_lost(path: Path, count: int) -> Store:
    """A store on whose disk a failed sync takes its pages along: ready to be closed, and what it
    leaves is as before.
    """
    disk = FailingDisk(writes_synced=False)
    store = await Store.open(path, sync_policy=OsManaged(), disk=disk)
    await store.append_many([b"lost"] * count)
    disk.fail("sync", EIO, of=".segment")
    return store


@pytest.mark.asyncio
async def test_a_reader_that_lives_through_it(tmp_path: Path) -> None:
    """A follower that has read what is lost is told, also when the log has grown past it before it
    looks again.
    """
    path = tmp_path / "log"
    async with Store.open(path, sync_policy=OsManaged()) as store:
        await store.append_many([b"kept"] * 3)
    kept = Path(shutil.copy(segment_in(path), tmp_path / "kept"))
    store = await failed_and_lost(path, 5)
    async with Reader.open(path) as reader:
        ahead, behind = reader.follow(0), reader.follow(0)
        assert [(await anext(ahead)).sequence for _ in range(8)] == list(range(8))
        assert (await anext(behind)).sequence == 0
        assert isinstance(behind, LocalFollow)
        behind._ready, behind._next, behind._tail = iter(()), 1, None
        position = ahead.position_after(await reader.get(7))
        with pytest.raises(StoreFailedError):
            await store.sync()
        with pytest.raises(StoreFailedError):
            await store.aclose()
        shutil.copy(kept, segment_in(path))
        async with Store.open(path, sync_policy=OsManaged()) as store:
            await store.append_many([b"other"] * 20)
            with pytest.raises(PositionLostError) as caught:
                await anext(ahead)
            assert (caught.value.sequence, caught.value.resume) == (8, 3)
            assert [(await anext(behind)).data for _ in range(4)] == [
                b"kept",
                b"kept",
                b"other",
                b"other",
            ]
            assert behind.position_after(await reader.get(4)) == Position(store.generation, 5)
            assert position.generation != store.generation == reader.generation


@pytest.mark.asyncio
async def test_a_client_that_lives_through_it(tmp_path: Path) -> None:
    """So is a follower of a daemon that comes back with less than it had told."""
    log = Log(tmp_path / "store")
    generation, kept = await log.begin(3)
    async with (
        served(tmp_path, sync_policy=OsManaged(), disk=machine(0)) as it,
        it.connect() as remote,
    ):
        ahead, behind = remote.follow(0), remote.follow(0)
        assert [(await anext(behind)).sequence for _ in range(3)] == [0, 1, 2]
        await remote.append_many([b"lost"] * 5)
        found = [await anext(ahead) for _ in range(8)]
        assert ahead.position_after(found[-1]) == Position(generation, 8)
        left = shutil.copytree(log.path, tmp_path / "left")
        await it.end()
        put_back(left, log.path)
        shutil.copy(kept, segment_in(log.path))
        it.options["disk"] = machine(1)
        await it.begin()
        await it.store.append_many([b"other"] * 20)
        with pytest.raises(PositionLostError) as caught:
            await anext(ahead)
        assert (caught.value.sequence, caught.value.resume) == (8, 3)
        record = await anext(behind)
        assert (record.sequence, record.data) == (3, b"other")
        assert behind.position_after(record) == Position(it.store.generation, 4)
        assert remote.generation == it.store.generation != generation


@pytest.mark.asyncio
async def test_a_position_beyond_the_end_of_its_own_generation(tmp_path: Path) -> None:
    """Of a store that was restored from an older copy, for example."""
    async with Store.open(tmp_path) as store, Reader.open(tmp_path) as reader:
        await store.append(b"x")
        for face in (store, reader):
            with pytest.raises(PositionLostError) as caught:
                await anext(face.follow(Position(store.generation, 3)))
            assert caught.value.resume == 1


@pytest.mark.asyncio
async def test_a_consumer_that_scans_in_batches(tmp_path: Path) -> None:
    """It asks about the place that it has kept before it scans from there, of a store, beside it
    and through a daemon: when its end is lost it is told, also when the log has grown past it.
    """
    log = Log(tmp_path / "store")
    _, kept = await log.begin(3)
    store = await log.open()
    await store.append_many([b"lost"] * 5)
    sound, lost = (Position(store.generation, sequence) for sequence in (3, 8))
    await store.check_position(lost)
    await log.lose_power(store, kept)
    async with (
        served(tmp_path, sync_policy=OsManaged(), disk=machine(log.starts)) as it,
        it.connect() as remote,
        Reader.open(log.path) as reader,
    ):
        await it.store.append_many([b"other"] * 20)
        for face in (it.store, remote, reader):
            await face.check_position(sound)
            with pytest.raises(PositionLostError) as caught:
                await face.check_position(lost)
            assert (caught.value.sequence, caught.value.resume) == (8, 3)
