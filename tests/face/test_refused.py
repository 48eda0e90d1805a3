"""The face: what is refused, and in which words."""

from __future__ import annotations

import asyncio
from errno import ENOSPC
from pathlib import Path

import pytest

from aquipu import (
    BatchTooLargeError,
    ConflictError,
    RecordNotWrittenError,
    RecordTooLargeError,
    Stage,
    Store,
    StoreClosedError,
    StoreFullError,
    WrongLoopError,
)
from tests.disk import FailingDisk
from tests.face.faces import Call, not_for, of_a_loop, of_files, outcome
from tests.remote.daemon.served import Served, served, soon

pytestmark = pytest.mark.asyncio


WRONG: dict[str, tuple[Call, object]] = {
    "no bytes": (lambda store: store.append("text"), TypeError),
    "no label": (lambda store: store.append(b"x", relations=("",)), ValueError),
    "one label as text": (lambda store: store.append(b"x", relations="user:7"), TypeError),
    "no stage": (lambda store: store.append(b"x", durability=2), TypeError),
    "too early a stage": (
        lambda store: store.append(b"x", durability=Stage.BUFFERED),
        ValueError,
    ),
    "a batch that is none": (lambda store: store.append_many(b"x"), TypeError),
    "purge of nothing": (lambda store: store.purge(), TypeError),
    "purge of both": (lambda store: store.purge(before=1, before_time=2), TypeError),
    "purge before no sequence": (lambda store: store.purge(before=-1), ValueError),
    "purge before no time": (lambda store: store.purge(before_time="now"), TypeError),
    "hold without a name": (lambda store: store.hold("", 0), ValueError),
    "hold at no sequence": (lambda store: store.hold("a", -1), ValueError),
    "hold too late": (lambda store: store.hold("a", 1_000), RecordNotWrittenError),
    "release of nothing": (lambda store: store.release("nobody"), False),
    "release without a name": (lambda store: store.release("../x"), ValueError),
    "cursor at no sequence": (lambda store: store.cursor("a").save(-1), ValueError),
    "cursor at half a sequence": (lambda store: store.cursor("a").save(0.5), TypeError),
    "follow from no sequence": (lambda store: anext(store.follow(-1)), ValueError),
    "an empty producer": (lambda store: store.append(b"x", key=("", 1)), ValueError),
    "too long a producer": (lambda store: store.append(b"x", key=("p" * 65, 1)), ValueError),
    "a negative number": (lambda store: store.append(b"x", key=("p", -1)), ValueError),
    "a truth as a number": (lambda store: store.append(b"x", key=("p", True)), TypeError),
    "a key without a number": (lambda store: store.append(b"x", key="p"), TypeError),
    "a batch with a bad key": (lambda store: store.append_many([b"x"], key=("", 1)), ValueError),
    "a later sequence expected": (lambda store: store.append(b"x", expect=1), ConflictError),
    "one that nothing ever gets": (
        lambda store: store.append(b"x", expect=1 << 70),
        ConflictError,
    ),
    "a negative one expected": (lambda store: store.append(b"x", expect=-1), ValueError),
    "a truth expected": (lambda store: store.append(b"x", expect=False), TypeError),
}


async def test_what_is_refused_is_refused_in_the_same_words(store: Store, it: Served) -> None:
    """The same class and the same arguments wherever it is asked, and nothing is stored."""
    for what, (call, expected) in WRONG.items():
        said = await outcome(call, store)
        assert (said[0] if isinstance(said, tuple) else said) == expected, what
        assert said == await outcome(call, it.store), what
        assert it.store.next_sequence == 0, what


async def test_a_cursor_without_a_name(store: Store) -> None:
    with pytest.raises(ValueError, match="name"):
        store.cursor("")


async def test_a_record_that_is_too_large(tmp_path: Path) -> None:
    """Is refused where it is appended, by the limit of the store that has the files."""
    async with served(tmp_path, max_record_bytes=100) as it, it.connect() as store:
        with pytest.raises(RecordTooLargeError) as refused:
            await store.append(bytes(101))
        assert refused.value.limit == 100
        assert (await store.append(bytes(100))).sequence == 0


async def test_a_batch_that_no_buffer_holds(tmp_path: Path) -> None:
    """The narrower of the two buffers counts, its own or that of the store that has the files."""
    async with served(tmp_path, buffer_records=10) as it:
        async with it.connect() as store:
            with pytest.raises(BatchTooLargeError):
                await store.append_many([b"x"] * 11)
            assert len(await store.append_many([b"x"] * 10)) == 10
        async with it.connect(buffer_records=5) as store:
            with pytest.raises(BatchTooLargeError):
                await store.append_many([b"x"] * 6)


async def test_a_record_whose_labels_are_larger_than_the_buffer(tmp_path: Path) -> None:
    """It goes alone."""
    labels = [f"{number}" + "x" * 1000 for number in range(200)]
    async with (
        served(tmp_path, max_record_bytes=100, buffer_bytes=1000) as it,
        it.connect() as store,
    ):
        receipts = await soon(
            asyncio.gather(*(store.append(b"x", relations=labels) for _ in range(3)))
        )
        assert [receipt.sequence for receipt in receipts] == [0, 1, 2]


@of_files("the disk that is full is that of this process")
async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """StoreFullError with its cause, for the caller whose commit found no space; the next append
    works.
    """
    disk = FailingDisk()
    async with served(tmp_path, disk=disk) as it, it.connect() as store:
        await store.append(b"before")
        disk.fail("write_synced", ENOSPC)
        with pytest.raises(StoreFullError) as full:
            await store.append(b"x")
        assert full.value.sequence == 1
        assert isinstance(full.value.__cause__, OSError)
        assert full.value.__cause__.errno == ENOSPC
        assert (await store.append(b"after")).sequence == 1
        assert await it.data() == [b"before", b"after"]


@of_a_loop
async def test_another_loop(store: Store) -> None:
    """Every call from elsewhere is one clear error."""

    def elsewhere(call: Call) -> None:
        async def run() -> None:
            with pytest.raises(WrongLoopError):
                await call(store)

        asyncio.run(run())

    for call in (
        lambda store: store.append(b"x"),
        lambda store: store.append_many([b"x"]),
        lambda store: store.get(0),
        lambda store: store.relations(),
        lambda store: store.sync(),
        lambda store: store.aclose(),
    ):
        await asyncio.to_thread(elsewhere, call)
    assert (await store.append(b"x")).sequence == 0


CLOSED: dict[str, Call] = {
    "append": lambda store: store.append(b"x"),
    "append_many": lambda store: store.append_many([b"x"]),
    "flush": lambda store: store.flush(),
    "sync": lambda store: store.sync(),
    "get": lambda store: store.get(0),
    "relations": lambda store: store.relations(),
    "purge": lambda store: store.purge(before=0),
    "hold": lambda store: store.hold("a", 0),
    "holds": lambda store: store.holds(),
    "cursors": lambda store: store.cursors(),
    "append with a key": lambda store: store.append(b"x", key=("a", 1)),
    "append where it is expected": lambda store: store.append(b"x", expect=0),
    "roll": lambda store: store.roll(),
    "reached": lambda store: store.reached(Stage.SYNCED, 0),
    "page": lambda store: store.page(),
}


async def test_what_is_asked_of_a_closed_store(it: Served) -> None:
    """StoreClosedError, and closing it again does nothing."""
    async with it.connect() as store:
        pass
    await store.aclose()
    for what, call in CLOSED.items():
        said = await outcome(call, store)
        assert isinstance(said, tuple), what
        assert said[0] is StoreClosedError, what
    with pytest.raises(StoreClosedError):
        store.scan()
    with pytest.raises(StoreClosedError):
        store.follow()


@not_for("alone", why="its cursors outlive it, for a follower that has ended: see test_reader")
async def test_a_cursor_of_a_closed_store(it: Served) -> None:
    """It is neither saved nor read."""
    async with it.connect() as store:
        cursor = store.cursor("a")
    with pytest.raises(StoreClosedError):
        await cursor.save(0)
    with pytest.raises(StoreClosedError):
        await cursor.load()
