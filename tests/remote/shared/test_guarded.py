"""Appends with a key and such that expect a sequence, in a store that several have open: also while
another one takes over.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aquipu import Always, ConflictError, Receipt, Store
from aquipu.runtime.closing import Opening
from tests.remote.daemon.served import soon, until

pytestmark = pytest.mark.asyncio


def opened(path: Path) -> Opening[Store]:
    return Store.open(path / "store", shared=True, sync_policy=Always())


async def test_a_key_of_both(tmp_path: Path) -> None:
    """Whoever gives it first has it stored, and both have its receipt."""
    async with opened(tmp_path) as first, opened(tmp_path) as second:
        calls = [
            store.append(b"%d" % number, key=("p", number))
            for number in range(50)
            for store in (first, second)
        ]
        receipts = await soon(asyncio.gather(*calls))
        assert [receipt.sequence for receipt in receipts] == [n for n in range(50) for _ in "12"]


async def test_another_one_takes_over(tmp_path: Path) -> None:
    """What was sent to the one that ended is sent to the one that writes now, in its order: each
    key is stored once, and each expected sequence has one winner.
    """
    first = await opened(tmp_path)
    second, third = await opened(tmp_path), await opened(tmp_path)
    receipts: dict[tuple[str, int], Receipt] = {}
    won: list[int] = []

    async def produce(store: Store, name: str) -> None:
        for number in range(0, 120, 4):
            keys = [(name, number + n) for n in range(4)]  # in one moment, in their order
            calls = [store.append(b"%s:%d" % (name.encode(), n), key=(name, n)) for _, n in keys]
            receipts.update(zip(keys, await asyncio.gather(*calls), strict=True))

    async def race(store: Store) -> None:
        expected = 0
        while len(receipts) < 4 * 120:
            try:
                receipt = await store.append(b"won:%d" % expected, expect=expected)
            except ConflictError as error:
                expected = error.next_sequence
            else:
                assert receipt.sequence == expected
                won.append(expected)

    tasks = [
        *(produce(store, f"{n}") for n, store in enumerate((second, third, second, third))),
        *(race(store) for store in (second, third)),
    ]
    running = asyncio.gather(*tasks)
    await until(lambda: len(receipts) > 100)
    await soon(first.aclose())
    await soon(running)
    for (name, number), receipt in receipts.items():
        again = await third.append(b"again", key=(name, number))
        assert again.sequence == receipt.sequence
    found = [record.data async for record in second.scan()]
    assert len(found) == len(set(found)) == 4 * 120 + len(won)
    assert all(found[sequence] == b"won:%d" % sequence for sequence in won)
    for (name, number), receipt in receipts.items():
        assert found[receipt.sequence] == b"%s:%d" % (name.encode(), number)
    await soon(second.aclose())
    await soon(third.aclose())
