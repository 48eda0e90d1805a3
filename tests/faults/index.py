"""The index of a log under test: its tables, built by hand, and what is found by them.

In a running store a thread builds the tables, at moments of its own. A fault that is to come at one
certain call needs all calls in one order. So here the tables are built when the suite says so, by
the engine's own code, on the thread of the journal: between two commits, and never beside anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from threading import Thread
from typing import NoReturn
from unittest.mock import patch

import aquipu.local.compress.blocks
import aquipu.local.compress.segment
import aquipu.local.format.postings
import aquipu.local.index.finder
import aquipu.local.index.indexer
import aquipu.local.index.table
from aquipu import Record, Store
from aquipu.local.disk.disk import Disk
from aquipu.local.format.structure import Damage
from aquipu.local.index.indexer import Indexer
from aquipu.local.index.table import Table, compare
from aquipu.local.read.segment_reader import SegmentRef
from tests.support import engine_of

LABELS = ("user:7", "document:42")
"""That the records of most parts of the suite carry: none, the first, or both."""
CURSOR = "consumer"
"""The name of the cursor that is saved."""

_SMALL = (
    (aquipu.local.format.postings, "BLOCK_BYTES", 64),
    (aquipu.local.format.postings, "RUN_POSITIONS", 8),
    (aquipu.local.index.table, "_PIECE_BYTES", 100),
    (aquipu.local.compress.blocks, "BLOCK_BYTES", 500),
    (aquipu.local.compress.segment, "_PIECE_BYTES", 1000),
)
"""Small segments have small tables, and are compressed: in several blocks, and written in several
pieces all the same.
"""
_RESTS = ((aquipu.local.index.indexer, "_REST", 0.0), (aquipu.local.index.finder, "_REST", 0.0))
_look = Indexer.look


class _NoThread(Thread):
    """What the system gives when it has no more threads: what is due is built with the next that it
    gives.
    """

    def start(self) -> NoReturn:
        raise RuntimeError("meant: tables are built by hand")


@contextmanager
def by_hand() -> Iterator[None]:
    """While this lasts a store builds no table but in `build_tables`."""
    with ExitStack() as stack:
        for room, name, value in (*_SMALL, *_RESTS):
            stack.enter_context(patch.object(room, name, value))
        stack.enter_context(patch.object(aquipu.local.index.indexer, "Thread", _NoThread))
        stack.enter_context(patch.object(aquipu.local.index.indexer._log, "disabled", True))
        stack.enter_context(patch.object(Indexer, "look"))
        yield


async def settled(store: Store) -> None:
    """The worker has done all that it does between two commits, such as a roll.

    Raises what a failed store raises.
    """
    for _ in range(2):  # what it is asked it tells before it tidies up
        await engine_of(store).ask(lambda journal: journal._files.refuse_if_failed())


async def build_tables(store: Store) -> None:
    """Build every table that is missing or was found damaged. Raises what a failed store raises."""
    await settled(store)
    _look(engine_of(store)._indexer, engine_of(store)._journal.segments)
    await engine_of(store).ask(lambda journal: engine_of(store)._indexer._run())


async def misfound(
    store: Store, records: Sequence[Record], labels: Iterable[str] = LABELS
) -> str | None:
    """What is wrong with what is found by relation in a log that holds just these records;

    None when nothing is.
    """
    expected = carried(records)
    for label in labels:
        found = [record.sequence async for record in store.scan(relation=label)]
        if found != expected.get(label, []):
            return f"{label!r} is found at {found} instead of {expected.get(label)}"
    counts = await store.relations()
    if counts != {label: len(sequences) for label, sequences in expected.items()}:
        return f"the relations are counted as {counts}, and not as in {expected}"
    return None


def carried(records: Iterable[Record]) -> dict[str, list[int]]:
    """The labels of these records, in order, and the sequences of those that carry each."""
    by_label: dict[str, list[int]] = {}
    for record in records:
        for label in set(record.relations):
            by_label.setdefault(label, []).append(record.sequence)
    return dict(sorted(by_label.items()))


async def misindexed(
    store: Store, records: Sequence[Record], labels: Iterable[str] = LABELS
) -> str | None:
    """As `misfound`, before and after all tables are built; and whether each is then as its segment
    says.
    """
    await settled(
        store
    )  # also the last segment may be sealed now, and there may be a table of an earlier life of it
    wrong = await misfound(store, records, labels)
    if wrong is not None:
        return f"before the tables are built {wrong}"
    await build_tables(store)
    segments = engine_of(store)._journal.segments
    for segment, behind in pairwise(segments):
        fault = fault_of_table(engine_of(store).disk, segment, behind)
        if fault is not None:
            return f"a table was not built anew: {fault}"
    wrong = await misfound(store, records, labels)
    return None if wrong is None else f"after the tables are built {wrong}"


def fault_of_table(disk: Disk, segment: SegmentRef, behind: SegmentRef) -> str | None:
    """What is wrong with the table of a sealed segment, held against the segment itself;

    None when nothing is.
    """
    try:
        compare(disk, segment, Table.open(disk, segment, behind.first_sequence, behind.header.link))
    except (Damage, FileNotFoundError) as error:
        return f"{segment.path}: {error}"
    return None
