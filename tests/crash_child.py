"""The process that `test_crash` kills: it appends from several tasks and reports each
acknowledgement on a pipe.

A line ``number sequence`` is written for each record as soon as its caller has been told. What the
record with this number holds follows from the number alone, so that the parent can tell what must
be found. Numbers are never used twice.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable
from hashlib import sha256
from itertools import count

from aquipu import Always, EveryN, OsManaged, Receipt, Stage, Store, SyncPolicy

POLICIES: dict[str, SyncPolicy] = {"always": Always(), "every": EveryN(8), "os": OsManaged()}
TASKS = 8
STAGES = (None, None, Stage.FLUSHED, None, Stage.SYNCED)
"""What the records ask for, by turns."""
BATCH = 3
"""Records of one append_many.

Their numbers follow one another, and the first one is divisible by this number.
"""


def data_of(number: int) -> bytes:
    """Return what this record holds: its number, then bytes that nothing else would write."""
    filler = sha256(b"%d" % number).digest() * (number % 23)
    return b"%d:" % number + filler


def labels_of(number: int) -> tuple[str, ...]:
    """The relations of the record with this number; of a batch only its first record is asked."""
    return (f"number:{number}", "kind:crash") if number % 5 == 0 else ()


def is_batch(number: int) -> bool:
    """Whether the record with this number, and the next ones, are appended as a batch."""
    return number % (4 * BATCH) == 0


class Child:
    """One life of the store.

    With ``acknowledgements`` it ends itself after so many; without, it waits to be killed.
    """

    def __init__(self, store: Store, numbers: Iterable[int], acknowledgements: int | None) -> None:
        self._store = store
        self._numbers = iter(numbers)
        self._left = acknowledgements

    async def live(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(self._append())

    async def _append(self) -> None:
        for number in self._numbers:
            if is_batch(number):
                rest = [next(self._numbers) for _ in range(BATCH - 1)]
                batch = [data_of(one) for one in (number, *rest)]
                for one, receipt in zip(
                    (number, *rest),
                    await self._store.append_many(batch, relations=labels_of(number)),
                    strict=True,
                ):
                    self._report(one, receipt)
            else:
                receipt = await self._store.append(
                    data_of(number),
                    relations=labels_of(number),
                    durability=STAGES[number % len(STAGES)],
                )
                self._report(number, receipt)

    def _report(self, number: int, receipt: Receipt) -> None:
        os.write(sys.stdout.fileno(), b"%d %d\n" % (number, receipt.sequence))
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                os._exit(7)


async def main(
    path: str, policy: str, first: str, max_segment_bytes: str, acknowledgements: str
) -> None:
    """Open, and append until the end."""
    os.write(sys.stdout.fileno(), b"begin\n")
    store = await Store.open(
        path, sync_policy=POLICIES[policy], max_segment_bytes=int(max_segment_bytes)
    )
    os.write(sys.stdout.fileno(), b"open\n")
    await Child(store, count(int(first)), int(acknowledgements) or None).live()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
