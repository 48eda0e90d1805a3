"""The face: followers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aquipu import RecordNotWrittenError, RecordPurgedError, Store, StoreUnavailableError
from tests.face.faces import PAGED, PAST_A_PAGE, all_of, is_followed, not_for
from tests.remote.daemon.served import Served, served, soon, until

pytestmark = pytest.mark.asyncio


async def test_following_what_is_there_and_what_comes(store: Store, it: Served) -> None:
    """Each record once, in its order, whoever appends it.

    A start beyond the end is an error.
    """
    await it.store.append_many(PAGED)
    async with (
        store.follow(start=10) as records,
        store.follow("earliest") as every,
        store.follow() as fresh,
    ):
        assert [(await anext(records)).sequence for _ in range(PAST_A_PAGE - 10)] == list(
            range(10, PAST_A_PAGE)
        )
        assert [(await anext(every)).sequence for _ in range(PAST_A_PAGE)] == list(
            range(PAST_A_PAGE)
        )
        waiting = [asyncio.ensure_future(anext(one)) for one in (records, every, fresh)]
        await store.append_many([b"a", b"b", b"c"])
        assert [record.data for record in await soon(asyncio.gather(*waiting))] == [
            b"a",
            b"a",
            b"a",
        ]
    with pytest.raises(RecordNotWrittenError):
        await anext(store.follow(PAST_A_PAGE + 4))


async def test_following_where_a_purge_was_quicker(tmp_path: Path) -> None:
    """The earliest is the first record kept; one that is overtaken raises, or passes over and tells
    how many.
    """
    async with served(tmp_path, max_segment_bytes=4096) as it, it.connect() as store:
        for number in range(20):
            await store.append(b"%d" % number * 500)
        early = store.follow("earliest")
        first = (await store.purge(before=15)).first_sequence
        assert (await anext(early)).sequence == first
        assert early.skipped == 0
        with pytest.raises(RecordPurgedError):
            await anext(store.follow(1))
        passing = store.follow(1, on_purged="skip")
        assert (await anext(passing)).sequence == first
        assert passing.skipped == first - 1


async def test_a_follower_that_is_closed_while_it_waits(store: Store) -> None:
    """The step that waits has come to the end."""
    records = store.follow(0)
    step = asyncio.ensure_future(all_of(records))
    await store.flush()
    await asyncio.sleep(0)
    await records.aclose()
    assert await soon(step) == []
    assert await all_of(records) == []


async def test_a_follower_ends_with_its_store(it: Served) -> None:
    """Closing the store ends the iteration, after what had come."""
    store = await it.connect()
    await store.append(b"x")
    records = store.follow(0)
    assert (await soon(anext(records))).data == b"x"
    step = asyncio.ensure_future(all_of(records))
    await until(lambda: is_followed(it))
    await store.aclose()
    assert await soon(step) == []


@not_for("alone", "postgresql", why="its followers need nobody's patience: there is no daemon")
async def test_more_followers_than_a_daemon_has_patience_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one too many is told; the others, and whoever appends, notice nothing."""
    monkeypatch.setattr("aquipu.remote.daemon.session.WAITS_MAX", 3)
    followers = [store.follow(0) for _ in range(4)]
    steps = [asyncio.ensure_future(anext(one)) for one in followers]
    done, waiting = await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED, timeout=10)
    (refused,) = done
    assert isinstance(refused.exception(), StoreUnavailableError)
    assert "at most 3 followers" in str(refused.exception())
    await store.append(b"x")
    assert [record.data for record in await soon(asyncio.gather(*waiting))] == [b"x"] * 3
