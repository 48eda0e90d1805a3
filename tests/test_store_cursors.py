"""The face: cursors that hold what their consumers have not passed, and how far each is behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from errno import EIO
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from aquipu import Always, Reader, RecordPurgedError, Store, StoreUnavailableError
from aquipu.local import cursor as cursor_room
from aquipu.local.disk.disk import Disk
from aquipu.local.format.names import BookmarkKind
from aquipu.local.retain import bookmarks
from tests.remote.daemon.served import until
from tests.support import flip

pytestmark = pytest.mark.asyncio

HOLD = "cursor.billing"
SEGMENT = 4096


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """Ten records, each in a segment of its own."""
    async with opened(tmp_path) as store:
        for _ in range(10):
            await store.append(b"x" * SEGMENT)
        yield store


def opened(path: Path) -> Any:
    return Store.open(path, sync_policy=Always(), max_segment_bytes=SEGMENT)


async def test_a_consumer_that_has_read_nothing_yet(store: Store) -> None:
    """From its first look on all that is there is kept for it."""
    assert await store.cursor("billing", hold=True).load() is None
    assert await store.holds() == {HOLD: 0}
    assert (await store.purge(before=9)).first_sequence == 0


async def test_what_a_consumer_has_passed_may_go(store: Store) -> None:
    """The hold goes along with the cursor, and lets go of what lies before it."""
    cursor = store.cursor("billing", hold=True)
    await cursor.load()
    for place in (3, 5):
        await cursor.save(place)
        assert await store.holds() == {HOLD: place}
        assert (await store.purge(before=9)).first_sequence == place


async def test_nobody_consumes_for_a_while(tmp_path: Path, store: Store) -> None:
    """What it has not passed is kept across a restart, until the hold is released."""
    await store.cursor("billing", hold=True).save(4)
    await store.aclose()
    async with opened(tmp_path) as again:
        assert (await again.purge(before=9)).first_sequence == 4
        assert await again.release(HOLD)
        assert (await again.purge(before=9)).first_sequence == 9


async def test_a_crash_between_the_two_files(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of them was written last, forwards and back, the hold is not beyond the cursor."""
    cursor = store.cursor("billing", hold=True)
    await cursor.save(5)
    seen = list[tuple[int | None, int | None]]()
    write = bookmarks.write_bookmark

    def noted(disk: Disk, path: str, store_id: bytes, *rest: Any) -> None:
        write(disk, path, store_id, *rest)
        hold, place = (
            bookmarks.read_bookmark(disk, path, store_id, kind, name)
            for kind, name in ((BookmarkKind.HOLD, HOLD), (BookmarkKind.CURSOR, "billing"))
        )
        seen.append((hold, place))

    monkeypatch.setattr(bookmarks, "write_bookmark", noted)
    monkeypatch.setattr(cursor_room, "write_bookmark", noted)
    await cursor.save(7)
    await cursor.save(2)
    assert seen == [(5, 7), (7, 7), (2, 7), (2, 2)]


async def test_going_back_to_what_was_purged(store: Store) -> None:
    """What is left is held; that some is gone, following says, as without a hold."""
    cursor = store.cursor("billing", hold=True)
    await cursor.save(5)
    await store.purge(before=5)
    await cursor.save(4)
    assert (await cursor.load(), await store.holds()) == (4, {HOLD: 5})
    with pytest.raises(RecordPurgedError):
        await anext(store.follow(4))


@pytest.mark.parametrize("held", [None, 6])
async def test_a_first_save_that_is_cut_short(
    store: Store, monkeypatch: pytest.MonkeyPatch, held: int | None
) -> None:
    """Nothing is let go of that lies behind the cursor that was saved before, without a hold or
    with one beyond it.
    """
    await store.cursor("billing").save(1)
    if held is not None:
        await store.hold(HOLD, held)

    def failing(*arguments: Any) -> None:
        raise OSError(EIO, "as told")

    cursor = store.cursor("billing", hold=True)
    with monkeypatch.context() as patch:
        patch.setattr(cursor_room, "write_bookmark", failing)
        with pytest.raises(StoreUnavailableError):
            await cursor.save(3)
    assert await store.holds() == {HOLD: 1}
    await cursor.save(3)
    assert await store.holds() == {HOLD: 3}


async def test_a_cursor_that_did_not_hold_before(store: Store) -> None:
    """A purge may have passed it: what is left is held, and following says what is gone."""
    await store.cursor("billing").save(2)
    await store.purge(before=6)
    cursor = store.cursor("billing", hold=True)
    assert await cursor.load() == 2
    assert await store.holds() == {HOLD: 6}
    with pytest.raises(RecordPurgedError):
        await anext(store.follow(await cursor.load()))


async def test_a_hold_that_was_released_meanwhile(store: Store) -> None:
    """The next save sets it again."""
    cursor = store.cursor("billing", hold=True)
    await cursor.save(3)
    await store.release(HOLD)
    await cursor.save(4)
    assert await store.holds() == {HOLD: 4}


async def test_a_hold_of_the_users_own(store: Store) -> None:
    """One that only has the name of the cursor is another."""
    await store.hold("billing", 1)
    await store.cursor("billing", hold=True).save(5)
    assert await store.holds() == {"billing": 1, HOLD: 5}


async def test_the_hold_of_another_is_damaged(tmp_path: Path, store: Store) -> None:
    """A consumer goes on all the same; it is the next purge that says so."""
    await store.hold("other", 1)
    flip(tmp_path / "other.hold", 20)
    cursor = store.cursor("billing", hold=True)
    await cursor.save(5)
    assert await cursor.load() == 5


async def test_a_consumer_beside_the_writer(tmp_path: Path, store: Store) -> None:
    """A Reader's cursor holds as one of the store does."""
    async with Reader.open(tmp_path) as reader:
        cursor = reader.cursor("billing", hold=True)
        assert await cursor.load() is None
        assert (await store.purge(before=9)).first_sequence == 0
        await cursor.save(6)
        assert (await store.purge(before=9)).first_sequence == 6
        await cursor.save(5)
        assert await store.holds() == {HOLD: 6}


async def test_another_process_sets_a_hold_at_this_moment(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Reader waits for it."""
    tries = list[bool]()

    def tried(*arguments: Any) -> bool:
        tries.append(bookmarks.set_hold(*arguments))
        return tries[-1]

    monkeypatch.setattr("aquipu.local.cursor.set_hold", tried)
    async with Reader.open(tmp_path) as reader:
        with bookmarks.exclusive(Disk(), str(tmp_path)):
            saving = asyncio.create_task(reader.cursor("billing", hold=True).save(3))
            await until(lambda: len(tries) >= 3)
        await saving
    assert tries == [False] * (len(tries) - 1) + [True]
    assert await store.holds() == {HOLD: 3}


async def test_a_name_that_is_too_long_for_a_hold(tmp_path: Path, store: Store) -> None:
    """It is refused at once; a cursor alone may have it."""
    name = "n" * 94
    async with Reader.open(tmp_path) as reader:
        for log in (store, reader):
            log.cursor(name)
            log.cursor(name[1:], hold=True)
            with pytest.raises(ValueError, match="at most 93 characters, not 94"):
                log.cursor(name, hold=True)


@pytest.mark.parametrize("hold", [None, "no", 0, 1])
async def test_what_is_neither_true_nor_false(store: Store, hold: Any) -> None:
    """It is refused at once, and nothing is written."""
    with pytest.raises(TypeError, match="hold is True or False"):
        store.cursor("billing", hold=hold)


async def test_how_far_each_consumer_is_behind(store: Store) -> None:
    """Each cursor, with the records that it has not passed."""
    assert await store.cursors() == {}
    await store.cursor("billing").save(4)
    await store.cursor("mail", hold=True).save(10)
    lags = await store.cursors()
    assert {name: (lag.sequence, lag.records) for name, lag in lags.items()} == {
        "billing": (4, 6),
        "mail": (10, 0),
    }
    assert lags["billing"].seconds > lags["mail"].seconds == 0
