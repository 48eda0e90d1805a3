"""What must be recorded in a store, and what must not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from reprlib import Repr
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest

import aquipu.sync
from aquipu import NotAStoreError, Reader, Record, Store

if TYPE_CHECKING:
    from aquipu import RemoteStore
    from aquipu.sync import SyncReader

Expected: TypeAlias = "bytes | Mapping[str, object] | Callable[[Record], bool] | None"

_POLL_SECONDS = 0.01
_SHOWN_RECORDS = 10


async def assert_recorded_in(
    store: Store | RemoteStore | Reader,
    expected: Expected = None,
    *,
    relation: str | None = None,
    within: float = 1.0,
) -> list[Record]:
    """Return all records of a store that are as expected, at least one.

    Otherwise the test fails, and shows what there is.

    ``[record] = await assert_recorded_in(...)`` says that there is exactly one.

    Args:
        expected: the data of the record; or, of a record in JSON, some of its members with their
            values; or a function that is given each record and says whether it is one; without it,
            any record will do.
        relation: only records that carry this label.
        within: seconds until there must be one. It returns as soon as there is.
    """
    __tracebackhide__ = True
    matches = _matcher(expected)
    deadline = monotonic() + within
    while True:
        seen = [record async for record in store.scan(relation=relation)]
        found = [record for record in seen if matches(record)]
        if found:
            return found
        if monotonic() >= deadline:
            pytest.fail(_not_found(expected, relation, seen))
        await anyio.sleep(_POLL_SECONDS)


async def assert_not_recorded_in(
    store: Store | RemoteStore | Reader,
    expected: Expected = None,
    *,
    relation: str | None = None,
    within: float = 0.0,
) -> None:
    """Look for records of a store that are as expected; the test fails if there is one.

    What is expected is said as for `assert_recorded_in`; ``within``: seconds to go on looking.
    """
    __tracebackhide__ = True
    matches = _matcher(expected)
    deadline = monotonic() + within
    while True:
        found = [record async for record in store.scan(relation=relation) if matches(record)]
        if found:
            pytest.fail(_found(expected, relation, found))
        if monotonic() >= deadline:
            return
        await anyio.sleep(_POLL_SECONDS)


class Look:
    """What is recorded in a store by now, for tests that are not async; from any thread.

    It reads the files of the store, open or closed. One that is not there yet has no records.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def records(self, *, relation: str | None = None) -> list[Record]:
        """Return all records, or those that carry this label."""
        with self._reader() as reader:
            return [] if reader is None else list(reader.scan(relation=relation))

    def assert_recorded(
        self, expected: Expected = None, *, relation: str | None = None, within: float = 1.0
    ) -> list[Record]:
        """Return all records that are as expected, at least one; see `assert_recorded_in`."""
        __tracebackhide__ = True
        matches = _matcher(expected)
        deadline = monotonic() + within
        while True:
            seen = self.records(relation=relation)
            found = [record for record in seen if matches(record)]
            if found:
                return found
            if monotonic() >= deadline:
                pytest.fail(_not_found(expected, relation, seen))
            sleep(_POLL_SECONDS)

    def assert_not_recorded(
        self, expected: Expected = None, *, relation: str | None = None, within: float = 0.0
    ) -> None:
        """Fail the test if there is one that is as expected; see `assert_not_recorded_in`."""
        __tracebackhide__ = True
        matches = _matcher(expected)
        deadline = monotonic() + within
        while True:
            found = list(filter(matches, self.records(relation=relation)))
            if found:
                pytest.fail(_found(expected, relation, found))
            if monotonic() >= deadline:
                return
            sleep(_POLL_SECONDS)

    @contextmanager
    def _reader(self) -> Iterator[SyncReader | None]:
        try:
            opened = aquipu.sync.read(self._path)
        except NotAStoreError:
            yield None
            return
        with opened as reader:
            yield reader


def _matcher(expected: Expected) -> Callable[[Record], bool]:
    if expected is None:
        return lambda record: True
    if isinstance(expected, bytes):
        return lambda record: record.data == expected
    if isinstance(expected, Mapping):
        return partial(_holds, expected.items())
    if callable(expected):
        return expected
    raise TypeError(
        f"what is expected is bytes, a mapping or a function, not {type(expected).__name__}"
    )


def _holds(members: Any, record: Record) -> bool:
    with suppress(ValueError):
        line = json.loads(record.data)
        return isinstance(line, dict) and all(
            name in line and line[name] == value for name, value in members
        )
    return False


def _not_found(expected: Expected, relation: str | None, seen: list[Record]) -> str:
    what = "no record" if expected is None else f"no record is as expected: {expected!r}"
    where = "" if relation is None else f" with the relation {relation!r}"
    if not seen:
        return f"{what}; there is none at all{where}"
    return "\n".join([f"{what}; of {len(seen)}{where}, the last are", *_shown(seen)])


def _found(expected: Expected, relation: str | None, found: list[Record]) -> str:
    what = "there must be no record" + ("" if expected is None else f" as {expected!r}")
    where = "" if relation is None else f" with the relation {relation!r}"
    return "\n".join([f"{what}{where}, and there are {len(found)}:", *_shown(found)])


def _shown(records: list[Record]) -> list[str]:
    short = Repr()
    short.maxother = short.maxstring = 300
    return [
        f"  {record.sequence}: {short.repr(record.data)} {record.relations}"
        for record in records[-_SHOWN_RECORDS:]
    ]
