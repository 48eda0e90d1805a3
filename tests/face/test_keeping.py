"""The face: what is kept and what goes: purges, holds, rolls and cursors."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aquipu import Purged, RecordNotWrittenError, RecordPurgedError, Store
from tests.face.faces import filled, of_files, outcome, scanning
from tests.remote.daemon.served import Served, served, until

pytestmark = pytest.mark.asyncio


async def test_purge_and_holds(tmp_path: Path) -> None:
    """What goes and what is held is the same for all; a scan of what has gone says so."""
    async with served(tmp_path, max_segment_bytes=8192) as it, it.connect() as store:
        await filled(it.store)
        await store.hold("audit", 300)
        assert await store.holds() == await it.store.holds() == {"audit": 300}
        would = await store.purge(before=380, dry_run=True)
        assert isinstance(would, Purged)
        assert store.first_sequence == 0
        assert await store.purge(before=380) == would
        assert 0 < store.first_sequence == it.store.first_sequence <= 300
        for call in (
            scanning(start=0),
            lambda store: store.get(0),
            lambda store: anext(store.follow(0)),
        ):
            found = await outcome(call, store)
            assert found == await outcome(call, it.store)
            assert isinstance(found, tuple)
            assert found[0] is RecordPurgedError
        assert await store.release("audit") is True
        assert await store.release("audit") is False
        later = await store.purge(before_time=datetime.now(UTC))
        assert later.first_sequence > would.first_sequence


@of_files("its partitions are cut by sequence, and none is sealed")
async def test_a_roll(tmp_path: Path) -> None:
    """The segment is sealed, with everything that this store had accepted."""
    async with served(tmp_path) as it, it.connect() as store:
        appended = asyncio.ensure_future(store.append(b"one"))
        await asyncio.sleep(0)
        await store.roll()
        assert appended.done()
        assert it.store.statistics().segments == 2


async def test_a_cursor_is_kept(store: Store, it: Served) -> None:
    """Under its name, for whoever asks."""
    cursor = store.cursor("billing")
    assert cursor.name == "billing"
    assert await cursor.load() is None
    await store.append_many([b"x"] * 50)
    await cursor.save(42)
    assert await store.cursor("billing").load() == await it.store.cursor("billing").load() == 42
    with pytest.raises(RecordNotWrittenError):
        await cursor.save(51)


async def test_a_cursor_that_holds(tmp_path: Path) -> None:
    """Nothing that its consumer has not passed is purged, and a name that is too long for it is
    refused at once.
    """
    async with served(tmp_path, max_segment_bytes=4096) as it, it.connect() as store:
        for _ in range(10):
            await store.append(b"x" * 4096)
        cursor = store.cursor("billing", hold=True)
        assert await cursor.load() is None
        assert await store.holds() == {"cursor.billing": 0}
        await cursor.save(4)
        assert (await store.purge(before=9)).first_sequence == 4
        assert await store.cursor("billing", hold=True).load() == 4
        with pytest.raises(ValueError, match="at most 93 characters"):
            store.cursor("n" * 94, hold=True)


async def test_how_far_consumers_are_behind(
    store: Store, it: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By name, and in the statistics: in those of a client soon after it has asked."""
    monkeypatch.setattr("aquipu.remote.lags._PAUSE", 0)
    await store.append_many([b"x"] * 5)
    await store.cursor("billing").save(2)
    lags = await store.cursors()
    assert {name: lag[:2] for name, lag in lags.items()} == {"billing": (2, 3)}
    assert lags["billing"].seconds > 0
    await until(lambda: store.statistics().cursor_records == {"billing": 3})
    assert store.statistics().cursor_seconds["billing"] > 0
