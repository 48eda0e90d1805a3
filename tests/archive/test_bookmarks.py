"""Holds and cursors come along into the archive, and into the store that is made of it."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any

import pytest

from aquipu import PositionLostError, Store
from aquipu.archive.bucket import Bucket
from aquipu.archive.fetch import read_state
from aquipu.archive.format.entry import decode_bookmarks, encode_bookmarks
from aquipu.archive.restore import Restoring, Until
from aquipu.local.disk.disk import Disk
from aquipu.local.format.structure import Unsupported
from tests.archive.faulty import MemoryBucket
from tests.archive.made import URL, JournalLog, Kept, append, opened, restored, uploader


async def saved(path: Path, name: str) -> int | None:
    """Return where a consumer of the store goes on."""
    async with Store.open(path) as store:
        return await store.cursor(name).load()


@pytest.mark.asyncio
async def test_a_consumer_goes_on(tmp_path: Path) -> None:
    """Where it was when the store was closed, and what it holds is held."""
    objects = MemoryBucket()
    async with Store.open(tmp_path / "store", archive=Kept(objects, hold=True)) as store:
        await store.append_many([b"one", b"two", b"three"])
        await store.cursor("billing", hold=True).save(2)
        await store.hold("audit", 1)
    restored(objects, tmp_path / "copy")
    assert await saved(tmp_path / "copy", "billing") == 2
    async with Store.open(tmp_path / "copy") as copy:
        assert await copy.holds() == {"audit": 1, "cursor.billing": 2}
    Restoring(
        Bucket(URL, objects), Disk(), str(tmp_path / "bare"), Until(), Event(), bookmarks=False
    ).carry_out()
    assert await saved(tmp_path / "bare", "billing") is None


@pytest.mark.asyncio
async def test_a_consumer_that_has_read_further(tmp_path: Path) -> None:
    """It is told, as one that keeps its position elsewhere."""
    objects = MemoryBucket()
    async with Store.open(tmp_path / "store", archive=Kept(objects)) as store:
        for data in (b"one", b"two", b"three"):
            await store.append(data)
        await store.cursor("billing").save(3)
    restored(objects, tmp_path / "copy", Until(sequence=2))
    with pytest.raises(PositionLostError) as raised:
        await saved(tmp_path / "copy", "billing")
    assert raised.value.resume == 2


class MarkedLog(JournalLog):
    """A log with holds and cursors that the test says."""

    marks: dict[str, bytes]

    def bookmarks(self) -> dict[str, bytes]:
        return dict(self.marks)


def test_they_are_put_when_others_are_there(tmp_path: Path) -> None:
    """Not with each record, and not again for nothing; those that are gone are gone there."""
    journal, store = opened(tmp_path / "store"), MemoryBucket()
    log = MarkedLog(journal)
    log.marks = {}
    carrying = uploader(store, log)
    append(journal, range(1))
    carrying.catch_up()
    assert read_state(Bucket(URL, store)).head.marked is None
    log.marks = {"a.cursor": b"1"}
    carrying.catch_up()
    first = read_state(Bucket(URL, store)).head
    assert first.marked == first.number
    append(journal, range(1, 20))
    carrying.catch_up()
    assert read_state(Bucket(URL, store)).head.marked == first.marked
    log.marks = {}
    carrying.catch_up()
    head = read_state(Bucket(URL, store)).head
    assert head.marked == head.number
    journal.close()
    restored(store, tmp_path / "copy")
    assert not list((tmp_path / "copy").glob("*.cursor"))


def test_names_that_are_none() -> None:
    """What a bucket says is a file name is not believed."""
    good = {"a.cursor": b"1", "b.hold": b"2"}
    assert decode_bookmarks(encode_bookmarks(good)) == good
    bad: list[dict[str, Any]] = [{"../a.cursor": b""}, {"manifest": b""}, {"a.hold": bytes(53)}]
    for bookmarks in bad:
        with pytest.raises(Unsupported):
            decode_bookmarks(encode_bookmarks(bookmarks))
    for body in (b"[]", b"{", b'{"a.hold": 1}'):
        with pytest.raises(Unsupported):
            decode_bookmarks(body)
