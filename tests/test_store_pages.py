"""Pages: the newest records, some at a time, by whatever way the log is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import aquipu.sync
from aquipu import Page, Reader, RemoteStore, Store, StoreClosedError
from aquipu.reading import Readable
from aquipu.remote.connection import Connection
from aquipu.remote.daemon.answers import PAGE_BYTES
from tests.callers import tick
from tests.remote.daemon.served import Served, Shared

pytestmark = pytest.mark.asyncio

WAYS = ["alone", "reader", "daemon", "shared"]


@asynccontextmanager
async def reading(way: str, path: Path, **options: Any) -> AsyncIterator[tuple[Store, Readable]]:
    """A store, and what reads it."""
    it = (Shared if way == "shared" else Served)(path, **options)
    await it.begin()
    try:
        if way == "alone":
            yield it.store, it.store
        elif way == "reader":
            async with Reader.open(path / "store") as reader:
                yield it.store, reader
        else:
            async with it.connect() as client:
                yield it.store, client
    finally:
        await it.end()


# a Reader sees a record when its caller has gone on: hence the ticks


async def pages_of(log: Readable, **asked: Any) -> list[Page]:
    """Every page, from the newest to the last."""
    pages = [await log.page(**asked)]
    while pages[-1].next is not None:
        pages.append(await log.page(before=pages[-1].next, **asked))
    return pages


def sequences(page: Page) -> list[int]:
    return [record.sequence for record in page.records]


ways = pytest.mark.parametrize("way", WAYS)


@ways
@pytest.mark.parametrize("limit", [1, 3, 4, 5, 1000])
async def test_page_by_page(tmp_path: Path, way: str, limit: int) -> None:
    """Together the pages have every record once, the newest first, each but the last is full, and
    only the last has no next one: also where the records just fill it.
    """
    async with reading(way, tmp_path) as (store, log):
        for number in range(12):
            await store.append(b"%d" % number)
        await tick()
        pages = await pages_of(log, limit=limit)
        assert [number for page in pages for number in sequences(page)] == list(range(12))[::-1]
        assert all(len(page.records) == limit for page in pages[:-1])
        assert pages[-1].records


@ways
async def test_a_page_of_an_empty_log(tmp_path: Path, way: str) -> None:
    """It is empty, and the last one; and so is what lies before the first record."""
    async with reading(way, tmp_path) as (store, log):
        assert await log.page() == Page([], None)
        await store.append(b"x")
        await tick()
        assert await log.page(before=0) == Page([], None)
        assert sequences(await log.page(before=2**64)) == [0]


@ways
async def test_pages_of_what_is_sought(tmp_path: Path, way: str) -> None:
    """The filters are those of a scan, and the limit counts what they let pass."""
    async with reading(way, tmp_path, max_segment_bytes=4096) as (store, log):
        receipts = [
            await store.append(
                b"x" * 200, relations=[f"user:{number % 3}", *(["odd"] if number % 2 else [])]
            )
            for number in range(60)
        ]
        await tick()
        all_of = {
            (("relation", "user:1"),): [n for n in range(60) if n % 3 == 1],
            (("relation", ("user:1", "odd")),): [n for n in range(60) if n % 6 == 1],
            (("any_of", ("user:1", "odd")),): [n for n in range(60) if n % 3 == 1 or n % 2],
            (("relation", "nobody"),): [],
        }
        for asked, found in all_of.items():
            pages = await pages_of(log, limit=4, **dict(asked))
            assert [n for page in pages for n in sequences(page)] == found[::-1]
        since, until = receipts[20].timestamp, receipts[40].timestamp
        timed = [r.sequence for r in receipts if since <= r.timestamp < until]
        pages = await pages_of(log, limit=7, since=since, until=until)
        assert [n for page in pages for n in sequences(page)] == timed[::-1]


@ways
async def test_records_are_appended_between_two_pages(tmp_path: Path, way: str) -> None:
    """The next page goes on where the last one ended, whatever has come in front."""
    async with reading(way, tmp_path) as (store, log):
        for number in range(6):
            await store.append(b"%d" % number)
        await tick()
        first = await log.page(limit=3)
        for _ in range(5):
            await store.append(b"new")
        second = await log.page(limit=3, before=first.next)
        assert (sequences(first), sequences(second)) == ([5, 4, 3], [2, 1, 0])
        assert second.next is None


@ways
@pytest.mark.parametrize("asked", [{}, {"relation": "a"}, {"since": 1}], ids=str)
async def test_records_are_purged_between_two_pages(
    tmp_path: Path, way: str, asked: dict[str, Any]
) -> None:
    """They are not there any more: the pages end with the first record kept, and the one that
    would have had them is empty.
    """
    async with reading(way, tmp_path, max_segment_bytes=4096) as (store, log):
        for _ in range(60):
            await store.append(b"x" * 300, relations=["a"])
        await tick()
        first = await log.page(limit=10, **asked)
        kept = store.next_sequence - 15
        await store.purge(before=kept)
        second = await log.page(limit=1000, before=first.next, **asked)
        assert sequences(second) == list(range(store.first_sequence, 50))[::-1]
        assert second.next is None
        assert await log.page(before=store.first_sequence, **asked) == Page([], None)
        assert await log.page(before=store.first_sequence - 1, **asked) == Page([], None)


async def test_a_page_larger_than_an_answer(tmp_path: Path) -> None:
    """A daemon answers with less than was asked for when the records are large; the page is whole
    all the same.
    """
    async with reading("daemon", tmp_path) as (store, log):
        for number in range(5):
            await store.append(b"%d" % number * PAGE_BYTES)
        page = await log.page(limit=3)
        assert (sequences(page), page.next) == ([4, 3, 2], 2)


async def test_a_daemon_answers_with_no_more_than_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long log no more is sent than what is given and the one that shows that there is more,
    in one answer.
    """
    async with reading("daemon", tmp_path) as (store, log):
        await store.append_many([b"x"] * 500)
        sizes: list[int] = []
        ask = Connection.ask

        async def noted(self: Connection, *arguments: Any) -> Any:
            message = await ask(self, *arguments)
            sizes.append(len(message.tail))
            return message

        monkeypatch.setattr(Connection, "ask", noted)
        await log.page(limit=5)
        (size,) = sizes
        assert size < 500


@ways
@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        ({"limit": 0}, ValueError),
        ({"limit": 1001}, ValueError),
        ({"limit": True}, TypeError),
        ({"limit": "5"}, TypeError),
        ({"limit": None}, TypeError),
        ({"before": -1}, ValueError),
        ({"before": "7"}, TypeError),
        ({"before": True}, TypeError),
        ({"relation": ()}, ValueError),
        ({"any_of": [""]}, ValueError),
        ({"since": 2, "until": 1}, ValueError),
    ],
    ids=str,
)
async def test_no_page(tmp_path: Path, way: str, asked: Any, kind: type[Exception]) -> None:
    """What is no limit, sequence, label or time is refused at once."""
    async with reading(way, tmp_path) as (_, log):
        with pytest.raises(kind):
            await log.page(**asked)


async def test_a_page_of_a_closed_store(tmp_path: Path) -> None:
    """It is refused as any reading is."""
    store = await Store.open(tmp_path)
    await store.aclose()
    with pytest.raises(StoreClosedError):
        await store.page()


async def test_who_reads_by_pages() -> None:
    """Everything that can be read has the same call."""
    assert {kind.page for kind in (Store, Reader, RemoteStore)} == {Readable.page}


async def test_pages_without_a_loop(tmp_path: Path) -> None:
    """The synchronous stores and readers have them, too."""

    def read() -> list[list[int]]:
        with aquipu.sync.open(tmp_path) as store:
            store.append_many([b"a", b"b", b"c"], relations=["x"])
            first = store.page(relation="x", limit=2)
        with aquipu.sync.read(tmp_path) as reader:
            return [sequences(first), sequences(reader.page(before=first.next))]

    assert await asyncio.to_thread(read) == [[2, 1], [0]]
