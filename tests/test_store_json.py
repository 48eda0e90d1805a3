"""Values that are kept as JSON, and times that are read as datetimes, by whatever way the log is
reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aquipu.sync
from aquipu import Reader, Stage, Store
from aquipu.record import Receipt, Record, checked_json
from tests.remote.daemon.served import served

in_loop = pytest.mark.asyncio

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("az é", max_size=3), inner),
    max_leaves=8,
)


def itself() -> object:
    """A list that contains itself."""
    endless: list[object] = []
    endless.append(endless)
    return endless


def deep() -> object:
    """More lists in each other than the interpreter walks through."""
    value: object = 0
    for _ in range(1_000_000):
        value = [value]
    return value


REFUSED: dict[str, tuple[Callable[[], object], type[Exception]]] = {
    "nan": (lambda: {"at": [nan]}, ValueError),
    "infinity": (lambda: -inf, ValueError),
    "a lone surrogate": (lambda: {"name": "\ud800"}, ValueError),
    "what contains itself": (itself, ValueError),
    "a datetime": (lambda: {"at": datetime.now(UTC)}, TypeError),
    "a set": (lambda: {1, 2}, TypeError),
    "bytes": (lambda: b"{}", TypeError),
    "a decimal": (lambda: Decimal("0.1"), TypeError),
    "a key that is a tuple": (lambda: {(1, 2): 3}, TypeError),
}


@given(VALUES)
def test_a_value_comes_back(value: object) -> None:
    """What JSON can hold is the same value when it is read."""
    assert Record(0, 0, checked_json(value)).json() == value


def test_how_a_value_is_stored() -> None:
    """It is compact and UTF-8, and the keys of an object keep their order."""
    assert checked_json({"b": 1, "a": ["é", None, True]}) == '{"b":1,"a":["é",null,true]}'.encode()
    assert checked_json({1: (2.5,), None: 0}) == b'{"1":[2.5],"null":0}'


def test_a_value_that_is_nested_too_deeply() -> None:
    """It is a ValueError as any other that cannot be stored, not the RecursionError of the way
    there; and so it is for a record of another program.
    """
    value = deep()
    try:
        with pytest.raises(ValueError, match="deeply"):
            checked_json(value)
    finally:
        while isinstance(value, list):  # one by one: to drop it whole would nest as deeply
            value = value.pop()
    with pytest.raises(ValueError, match="record 7 is no JSON"):
        Record(7, 0, b"[" * 1_000_000).json()


@pytest.mark.parametrize(
    "data", [b"", b"secret", b'{"secret": ', b"\xff\xfesecret", b"NaN", b'{"a": -Infinity}']
)
def test_a_record_that_is_no_json(data: bytes) -> None:
    """The error names the record, and holds nothing of its data."""
    with pytest.raises(ValueError, match="record 7 is no JSON") as caught:
        Record(7, 0, data).json()
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@in_loop
async def test_json_in_a_store(tmp_path: Path) -> None:
    """A value has its receipt, its labels and its stage like any record, and is read back by the
    store, a Reader and a client.
    """
    async with served(tmp_path) as it:
        first = await it.store.append_json({"order": 7}, relations=["user:7"])
        async with it.connect() as store:
            second = await store.append_json([1, "é"], durability=Stage.FLUSHED)
            assert (first.sequence, second.sequence) == (0, 1)
            assert (await store.get(0)).json() == {"order": 7}
        async with Reader.open(it.path / "store") as reader:
            found = [record async for record in reader.scan()]
        assert [(record.json(), record.relations) for record in found] == [
            ({"order": 7}, ("user:7",)),
            ([1, "é"], ()),
        ]
        assert found[0].time == first.time


@in_loop
@pytest.mark.parametrize("what", REFUSED)
async def test_a_value_that_json_does_not_have(tmp_path: Path, what: str) -> None:
    """It is refused before anything is written, and the next record has its sequence."""
    make, kind = REFUSED[what]
    async with Store.open(tmp_path) as store:
        with pytest.raises(kind):
            await store.append_json(make())
        assert store.statistics().records == 0
        assert (await store.append_json("next")).sequence == 0


@in_loop
async def test_a_value_that_is_changed_while_it_waits(tmp_path: Path) -> None:
    """What is stored is the value as it was when the call began."""
    async with Store.open(tmp_path) as store:
        value: dict[str, Any] = {"state": "new"}
        appending = asyncio.ensure_future(store.append_json(value))
        await asyncio.sleep(0)
        value["state"] = nan
        await appending
        assert (await store.get(0)).json() == {"state": "new"}


def test_json_without_a_loop(tmp_path: Path) -> None:
    """The synchronous store has the call, too, and refuses on the thread of its caller."""
    with aquipu.sync.open(tmp_path) as store:
        receipt = store.append_json({"order": 7}, relations=iter(["user:7"]))
        with pytest.raises(ValueError, match="JSON"):
            store.append_json(nan)
        record = store.get(receipt.sequence)
        assert (record.json(), record.relations) == ({"order": 7}, ("user:7",))
        assert record.time == receipt.time
        assert store.next_sequence == 1


@given(st.integers(0, 2**64 - 1))
def test_the_time_of_a_record(timestamp: int) -> None:
    """It is aware, in UTC, and the timestamp without what is less than a microsecond: exact for
    every timestamp that a log can hold.
    """
    for of in (Record(0, timestamp, b""), Receipt(0, timestamp, Stage.SYNCED)):
        assert of.time.utcoffset() == timedelta(0)
        passed = (of.time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        assert passed == timestamp // 1000


@in_loop
async def test_a_scan_from_the_time_of_a_record(tmp_path: Path) -> None:
    """A record is in a scan since its time, although the time is cut off: it is never later."""
    async with Store.open(tmp_path) as store:
        receipts = [await store.append_json(number) for number in range(5)]
        for receipt in receipts:
            since = [record.sequence async for record in store.scan(since=receipt.time)]
            assert receipt.sequence in since
