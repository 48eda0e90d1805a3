"""The room `store`, beside its records: what it refuses by itself, what it has the worker do, and
what it leaves behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from aquipu import (
    Always,
    EveryN,
    OsManaged,
    Reader,
    RecordNotWrittenError,
    Stage,
    Store,
    StoreClosedError,
    StoreFailedError,
    StoreUnavailableError,
)
from aquipu.commit.closing import _open
from aquipu.commit.committer import LARGE
from aquipu.engine import Commit
from aquipu.local import engine as room
from aquipu.local.format.names import relations_name
from aquipu.local.write.journal import Journal
from tests.callers import tick
from tests.disk import WRITES, FailingDisk
from tests.support import engine_of, segments_in

pytestmark = pytest.mark.asyncio

PATIENCE = 60.0
"""Seconds until a test that waits in vain gives up. Nothing is measured with it."""


# rolls


async def test_a_roll(tmp_path: Path) -> None:
    """What was accepted before stands in a sealed segment, synced, and may be purged; it is found
    by its labels, and a reader in another process goes on behind it.
    """
    async with Store.open(tmp_path, sync_policy=OsManaged()) as store:
        async with Reader.open(tmp_path) as reader, reader.follow(0) as records:
            accepted = store.append_nowait(b"one", relations=("user:7",))
            await store.roll()
            assert accepted.done()
            assert store.synced_sequence == 1
            assert store.statistics().oldest_unsynced_seconds == 0
            await until_indexed(tmp_path)
            await store.append(b"two", relations=("user:7",))
            assert [(await anext(records)).data for _ in range(2)] == [b"one", b"two"]
        assert [record.data async for record in store.scan(relation="user:7")] == [b"one", b"two"]
        assert (await store.purge(before=1)).first_sequence == 1


async def until_indexed(path: Path) -> None:
    """Wait until the first segment has its index."""
    async with asyncio.timeout(PATIENCE):
        while not (path / relations_name(0)).exists():
            await tick()


async def test_a_roll_of_nothing(tmp_path: Path) -> None:
    """A segment without records stays the one that is written."""
    async with Store.open(tmp_path) as store:
        await store.roll()
        await store.append(b"one")
        await store.roll()
        await store.roll()
        assert store.statistics().segments == 2


async def test_rolls_while_others_append(tmp_path: Path) -> None:
    """Commits go on between rolls, none is divided, and all are there afterwards."""
    async with Store.open(tmp_path, sync_policy=EveryN(7)) as store:

        async def append_some(name: int) -> None:
            for number in range(20):
                await store.append_many([b"%d %d" % (name, number)] * 3)

        async def roll_some() -> None:
            for _ in range(20):
                await store.roll()

        await asyncio.gather(*map(append_some, range(8)), roll_some())
        assert store.next_sequence == 480
    async with Store.open(tmp_path) as store:
        assert len([record async for record in store.scan()]) == 480
        assert store.recovery.clean


async def test_a_roll_that_finds_no_space(tmp_path: Path) -> None:
    """It says so, and appends go on; the next one goes when there is space."""
    disk = FailingDisk()
    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        await store.append(b"one")
        disk.fail("create", ENOSPC, forever=True)
        with pytest.raises(StoreUnavailableError, match=r"cannot roll .*No space left"):
            await store.roll()
        await store.append(b"two")
        disk.mend()
        await store.append(b"three")
        await store.roll()
        assert store.health().reasons == ()


async def test_a_roll_of_a_closed_store(tmp_path: Path) -> None:
    """It is refused as any other call."""
    async with Store.open(tmp_path) as store:
        await store.append(b"one")
    with pytest.raises(StoreClosedError):
        await store.roll()


# holds and purges


async def test_a_hold(tmp_path: Path) -> None:
    """It is set for what is there and for what comes next, may be set anew, and is kept until it is
    released.
    """
    async with Store.open(tmp_path) as store:
        await store.append_many([b"one", b"two"])
        await store.hold("backup", 0)
        await store.hold("audit", 2)
        await store.hold("backup", 1)
    async with Store.open(tmp_path) as store:
        assert await store.holds() == {"backup": 1, "audit": 2}
        assert await store.release("backup")
        assert not await store.release("backup")
        assert await store.holds() == {"audit": 2}


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda store: store.hold("../backup", 0), ValueError, "name"),
        (lambda store: store.hold(7, 0), TypeError, "name"),
        (lambda store: store.hold("backup", -1), ValueError, r"^sequence is"),
        (lambda store: store.hold("backup", "0"), TypeError, r"^sequence is"),
        (lambda store: store.hold("backup", 2), RecordNotWrittenError, "2"),
        (lambda store: store.release("../backup"), ValueError, "name"),
        (lambda store: store.purge(), TypeError, "one of the two"),
        (lambda store: store.purge(before=0, before_time=0), TypeError, "one of the two"),
        (lambda store: store.purge(before=-1), ValueError, r"^before is"),
    ],
)
async def test_what_cannot_be(
    tmp_path: Path,
    call: Callable[[Any], Any],
    kind: type[Exception],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is refused before the worker is asked: nothing is changed, and the store goes on."""
    async with Store.open(tmp_path) as store:
        await store.append(b"one")
        with monkeypatch.context() as patch:
            patch.setattr(
                engine_of(store)._worker,
                "ask",
                Mock(side_effect=AssertionError("the worker was asked")),
            )
            with pytest.raises(kind, match=says):
                await call(store)
        assert await store.holds() == {}
        assert (await store.append(b"two")).sequence == 1


async def test_upkeep_of_a_closed_store(tmp_path: Path) -> None:
    """It is refused as everything else is."""
    async with Store.open(tmp_path) as store:
        await store.append(b"one")
    calls: list[Callable[[], Any]] = [
        store.holds,
        lambda: store.hold("backup", 0),
        lambda: store.release("backup"),
        lambda: store.purge(before=1),
    ]
    for call in calls:
        with pytest.raises(StoreClosedError):
            await call()


async def test_a_purge_by_either_bound(tmp_path: Path) -> None:
    """It takes a sequence or a time, and tells what goes."""
    async with Store.open(tmp_path) as store:
        await store.append(b"one")
        assert (await store.purge(before=1)).records == 0
        assert (await store.purge(before_time=1)).records == 0


@pytest.mark.parametrize("dry_run", [True, False])
async def test_files_of_what_is_purged(
    tmp_path: Path, dry_run: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are gone when the purge returns; a dry run lets the worker tell what would go, and do
    nothing.
    """
    async with Store.open(tmp_path, max_segment_bytes=64 << 10) as store:
        for _ in range(3):
            await store.append(bytes(64 << 10))
        await store.append(b"kept")
        files = segments_in(tmp_path)
        monkeypatch.setattr(
            engine_of(store)._journal, "delete_dropped", lambda: False
        )  # what the thread would do in time by itself
        assert (await store.purge(before=2, dry_run=dry_run)).records == 2
        assert store.first_sequence == (0 if dry_run else 2)
        assert segments_in(tmp_path) == (files if dry_run else files[2:])


# health


async def test_when_a_store_is_not_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without other bounds, when there is no room for four segments, or a sync has taken more than
    a second.
    """
    judge = Mock()
    async with Store.open(tmp_path, max_segment_bytes=1 << 20) as store:
        monkeypatch.setattr("aquipu.local.engine.judge", judge)
        store.health()
        store.health(min_free_bytes=7, max_sync_seconds=0.5)
    bounds = [
        (call.kwargs["min_free_bytes"], call.kwargs["max_sync_seconds"])
        for call in judge.call_args_list
    ]
    assert bounds == [(4 << 20, 1.0), (7, 0.5)]


@pytest.mark.parametrize("is_measured", [True, False])
async def test_figures_of_the_disk_that_are_old(
    tmp_path: Path, is_measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for statistics has the worker measure the disk again, when it has not done so
    lately.
    """
    async with Store.open(tmp_path) as store:
        wake = Mock()
        with monkeypatch.context() as patch:
            patch.setattr(Journal, "is_measured", is_measured)
            patch.setattr(engine_of(store)._worker, "wake", wake)
            store.statistics()
        assert wake.call_count == (0 if is_measured else 1)


# what is sent


@pytest.mark.parametrize(
    ("batch", "singles", "is_early"),
    [(LARGE, 0, True), (LARGE - 1, 0, False), (0, LARGE, False), (1, LARGE, True)],
)
async def test_a_large_batch(tmp_path: Path, batch: int, singles: int, is_early: bool) -> None:
    """The thread is at work before the receipts of a large batch are made, which happens while
    the disk has it.
    """
    async with Store.open(tmp_path, sync_policy=OsManaged()) as store:
        sent: asyncio.Future[tuple[bool, int, Commit[Any]]] = (
            asyncio.get_running_loop().create_future()
        )
        send = engine_of(store)._worker.send

        def noted(commit: Commit[Any], done: Any, *, at_once: bool = False) -> None:
            sent.set_result((at_once, len(commit.written), commit))
            send(commit, done, at_once=at_once)

        engine_of(store)._worker.send = noted  # type: ignore[method-assign]
        waiting: list[Any] = (
            [asyncio.ensure_future(store.append_many([b""] * batch))] if batch else []
        )
        waiting += [asyncio.ensure_future(store.append(b"")) for _ in range(singles)]
        at_once, before, commit = await sent
        assert (at_once, before, len(commit.written)) == (
            is_early,
            0,
            len(commit) if is_early else 0,
        )
        await asyncio.gather(*waiting)


@pytest.mark.parametrize("callers", [LARGE, LARGE - 1])
async def test_the_callers_of_a_large_commit_go_on_in_two_halves(
    tmp_path: Path, callers: int
) -> None:
    """What the first half appends is with the disk before the other half goes on; of a smaller
    commit all go on at once, so that the next one is as large.
    """
    disk = FailingDisk()
    seen: list[bool] = []

    async def call(store: Store, number: int) -> None:
        await store.append(b"first")
        if number == callers - 1:
            # not for long where it is not sent: nothing else will come then
            seen.append(next_commit.reached.wait(10 if callers == LARGE else 0))
        elif number == 0:
            await store.append(b"next")

    async with Store.open(tmp_path, sync_policy=Always(), disk=disk) as store:
        await store.append(b"")
        next_commit = disk.hold(WRITES, nth=2, of=".segment")
        tasks = [asyncio.ensure_future(call(store, number)) for number in range(callers)]
        await asyncio.gather(*tasks[1:])
        next_commit.released.set()
        await asyncio.gather(*tasks)
    assert seen == [callers == LARGE]


async def test_records_that_are_old_enough_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At half of the time that the policy gives them the loop asks for a sync by itself."""
    async with Store.open(tmp_path, sync_policy=EveryN(1000, within=3600)) as store:
        later = Mock(side_effect=store._loop.call_later)
        monkeypatch.setattr(store._loop, "call_later", later)
        await store.append(b"one")
        await asyncio.sleep(0)  # it resumes before the store looks at what is due
        assert [
            call.args[0]
            for call in later.call_args_list
            if call.args[1] == engine_of(store)._age.due
        ] == [1800]
        assert store.synced_sequence == 0
        engine_of(store)._age.due()
        await store.flush()  # behind what was asked for
        assert store.synced_sequence == 1


async def test_a_follower_of_a_store_that_fails(tmp_path: Path) -> None:
    """It is done: what it waits for does not come any more."""
    disk = FailingDisk()
    store = await Store.open(tmp_path, disk=disk, sync_policy=Always())
    async with store.follow(0) as records:
        waiting = asyncio.ensure_future(anext(records))
        await asyncio.sleep(0)
        disk.fail("write", EIO, forever=True)
        disk.fail("write_synced", EIO, forever=True)
        with pytest.raises(StoreFailedError):
            await store.append(b"one")
        with pytest.raises(StoreFailedError):
            await asyncio.wait_for(waiting, PATIENCE)
    with pytest.raises(StoreFailedError):
        await store.aclose()


# what is left behind


async def test_a_closed_store_is_left_alone_at_the_exit(tmp_path: Path) -> None:
    """The exit of the interpreter, and a forked child, see to the stores that are open, and to no
    others.
    """
    async with Store.open(tmp_path) as store:
        assert store in _open
    assert store not in _open


async def test_a_store_that_the_program_has_let_go_of(tmp_path: Path) -> None:
    """What it has accepted is written in the background, once, and another may open it then."""
    store = await Store.open(tmp_path, sync_policy=EveryN(1000))
    waiting = store.append_nowait(b"one")
    assert store._leave()
    assert not store._leave()
    assert engine_of(store)._worker.join(PATIENCE)
    waiting.cancel()
    async with Store.open(tmp_path, lock_timeout=0) as again:
        assert (await again.get(0)).data == b"one"


async def test_a_loop_that_was_closed_while_a_table_was_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the building ends and cannot tell the loop, the store is left as one that the program
    has let go of.
    """
    store = await Store.open(tmp_path, sync_policy=OsManaged())
    await store.append(b"one")
    with monkeypatch.context() as patch:
        patch.setattr(
            store._loop,
            "call_soon_threadsafe",
            Mock(side_effect=RuntimeError("Event loop is closed")),
        )
        engine_of(store)._index_ended(Mock())
        assert engine_of(store)._worker.join(PATIENCE)
    async with Store.open(tmp_path, lock_timeout=0) as again:
        assert (again.synced_sequence, (await again.get(0)).data) == (1, b"one")


async def test_no_thread_for_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The opening fails and leaves nothing open: no file, and no lock."""
    disk = FailingDisk()
    with monkeypatch.context() as patch:
        patch.setattr(room, "Worker", Mock(side_effect=RuntimeError("can't start new thread")))
        with pytest.raises(RuntimeError, match="new thread"):
            await Store.open(tmp_path, disk=disk)
    assert disk.open_files == {}
    async with Store.open(tmp_path, lock_timeout=0) as store:
        assert (await store.append(b"one", durability=Stage.SYNCED)).sequence == 0
