"""The face: reading by sequences, times and labels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from aquipu import CorruptionError, Record, RecordNotWrittenError, RecordPurgedError, Store
from tests.face.faces import PAGED, Call, all_of, filled, not_for, of_files, outcome, scanning
from tests.remote.daemon.served import Served, served, soon
from tests.support import flip, frames_in, segment_in

pytestmark = pytest.mark.asyncio


Scanned = tuple[dict[str, Any], "Callable[[Record], bool] | type[Exception]"]


def scans(times: list[int]) -> dict[str, Scanned]:
    """Ways to scan a log of these times; for each, which records it gives, or what it raises."""
    at = datetime.fromtimestamp(times[200] // 1000 / 1e6, UTC)
    since = round(at.timestamp() * 1e6) * 1000

    def within(first: int, end: int) -> Callable[[Record], bool]:
        return lambda record: first <= record.sequence < end

    def between(first: int, end: int) -> Callable[[Record], bool]:
        return lambda record: times[first] <= record.timestamp < times[end]

    def has(*labels: str) -> Callable[[Record], bool]:
        return lambda record: set(labels) <= set(record.relations)

    def any_of(record: Record) -> bool:
        return record.sequence >= 100 and not {"tens", "third:1"}.isdisjoint(record.relations)

    def all_of_it(record: Record) -> bool:
        is_asked_for = {"third:2", "tens"} <= set(record.relations)
        return is_asked_for and record.timestamp >= times[50] and record.sequence < 390

    return {
        "all": ({}, within(0, 400)),
        "reverse": ({"reverse": True}, within(0, 400)),
        "range": ({"start": 5, "stop": 300}, within(5, 300)),
        "range, reverse": ({"start": 5, "stop": 300, "reverse": True}, within(5, 300)),
        "nothing": ({"start": 7, "stop": 7}, within(7, 7)),
        "beyond": ({"start": 10_000}, within(0, 0)),
        "beyond, reverse": ({"start": 10_000, "reverse": True}, within(0, 0)),
        "times": ({"since": times[100], "until": times[301]}, between(100, 301)),
        "a datetime": ({"since": at}, lambda record: record.timestamp >= since),
        "a label": ({"relation": "tens"}, has("tens")),
        "labels": ({"relation": ("tens", "third:0"), "reverse": True}, has("tens", "third:0")),
        "any of": ({"any_of": ("tens", "third:1"), "start": 100}, any_of),
        "all of it": (
            {"relation": ["third:2"], "any_of": {"tens"}, "since": times[50], "stop": 390},
            all_of_it,
        ),
        "no such label": ({"relation": "nobody"}, has("nobody")),
        "no labels": ({"relation": ()}, ValueError),
        "backwards": ({"start": 2, "stop": 1}, ValueError),
        "times backwards": ({"since": 2, "until": 1}, ValueError),
        "no sequence": ({"start": -1}, ValueError),
        "no number": ({"start": "1"}, TypeError),
        "no zone": ({"since": datetime(2026, 1, 1)}, ValueError),
        "a label of bytes": ({"relation": b"x"}, TypeError),
    }


OTHERS: dict[str, tuple[Call, object]] = {
    "get what is not there": (lambda store: store.get(400), RecordNotWrittenError),
    "get no sequence": (lambda store: store.get(-1), ValueError),
    "get a truth": (lambda store: store.get(True), TypeError),
    "get a huge one": (lambda store: store.get(1 << 70), RecordNotWrittenError),
    "relations": (
        lambda store: store.relations(),
        {"tens": 40, "third:0": 134, "third:1": 133, "third:2": 133},
    ),
    "relations with a prefix": (
        lambda store: store.relations("third"),
        {"third:0": 134, "third:1": 133, "third:2": 133},
    ),
    "relations of bytes": (lambda store: store.relations(b"third"), TypeError),
    "holds": (lambda store: store.holds(), {}),
}


async def test_every_way_to_read(tmp_path: Path) -> None:
    """The records that are asked for, or an error: the same, and in the same words, as those of the
    store that has the files.
    """
    async with served(tmp_path, max_segment_bytes=8192) as it, it.connect() as store:
        records = await filled(it.store)
        calls: dict[str, tuple[Call, object]] = {}
        for name, (options, given) in scans([record.timestamp for record in records]).items():
            expected: Any = given
            if not isinstance(given, type):
                step = -1 if "reverse" in options else 1
                expected = list(filter(given, records))[::step]
            calls[name] = scanning(**options), expected
        calls["get"] = (lambda store: store.get(399)), records[399]
        for name, (call, expected) in (calls | OTHERS).items():
            found = await outcome(call, store)
            if isinstance(expected, type):
                assert isinstance(found, tuple), name
                assert found[0] is expected, name
            else:
                assert found == expected, name
            assert found == await outcome(call, it.store), name


async def test_a_scan_of_several_pages_is_what_was_there_at_the_first(
    store: Store, it: Served
) -> None:
    """In both directions; what is appended while it is under way is not part of it."""
    await it.store.append_many(PAGED)
    for reverse in (False, True):
        there = it.store.next_sequence
        scan = store.scan(reverse=reverse)
        seen = [await anext(scan)]
        await it.store.append(b"later")
        seen += await all_of(scan)
        assert [record.sequence for record in seen] == list(range(there))[:: -1 if reverse else 1]


async def test_a_scan_of_large_records(store: Store) -> None:
    """A page takes as many as are sensible, and at least one."""
    data = [bytes([number]) * 200_000 for number in range(5)]
    await store.append_many(data)
    assert [record.data for record in await all_of(store.scan())] == data
    assert [record.data for record in await all_of(store.scan(reverse=True))] == data[::-1]


async def test_a_scan_that_is_closed_has_ended(store: Store, it: Served) -> None:
    await it.store.append_many(PAGED)
    async with store.scan() as scan:
        await anext(scan)
    assert await all_of(scan) == []


async def test_many_labels_come_whole(store: Store, it: Served) -> None:
    """The answer may be larger than the head of any message."""
    for number in range(0, 20_000, 100):
        it.store.append_nowait(
            b"", relations=[f"{'label' * 10}:{one}" for one in range(number, number + 100)]
        )
    await it.store.flush()
    counts = await soon(store.relations())
    assert len(counts) == 20_000
    assert counts == await it.store.relations()


async def test_many_questions_at_once(store: Store, it: Served) -> None:
    """More than a daemon takes: they wait for their turn, and all are answered."""
    await it.store.append_many([b"%d" % number for number in range(300)])
    records = await soon(asyncio.gather(*(store.get(number) for number in range(300))))
    assert [record.data for record in records] == [b"%d" % number for number in range(300)]


@of_files("it flips a bit in one; see tests.postgres")
async def test_damage_is_reported_with_its_place(tmp_path: Path) -> None:
    """CorruptionError names the file, also that of another process."""
    async with served(tmp_path) as it, it.connect() as store:
        await store.append(b"x")
        offset, header, _ = frames_in(tmp_path / "store")[0]
        flip(segment_in(tmp_path / "store"), offset + header.size - 1)
        with pytest.raises(CorruptionError) as damaged:
            await store.get(0)
        assert damaged.value.path == str(segment_in(tmp_path / "store"))


@not_for("alone", why="a scan holds the files that it reads, where it has them")
async def test_a_page_that_was_purged_before_it_was_asked_for(tmp_path: Path) -> None:
    """The scan says so, as it does where the writer is in another process."""
    async with served(tmp_path, max_segment_bytes=8192) as it, it.connect() as store:
        await it.store.append_many(PAGED)
        for _ in range(3):
            await it.store.append_many([b"x"] * 100)
        scan = store.scan()
        await anext(scan)
        await it.store.purge(before=it.store.next_sequence)
        with pytest.raises(RecordPurgedError):
            await all_of(scan)
