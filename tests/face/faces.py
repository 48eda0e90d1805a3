"""The faces of a store, with the same calls each, and what the statements about them share.

A statement takes `it`, the place of a store, and opens its own with ``it.connect()``: the client of
a daemon, one of several that share it, or the store itself. ``it.store`` is the one that has the
files. Where they are two, what one of them does is seen by the other; where they are one, the same
words hold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import pytest

from aquipu import Reader, Record, Store
from aquipu.postgres.engine import PostgresEngine
from aquipu.runtime.closing import Opening
from tests.postgres.pair import shared_pair
from tests.postgres.server import log_name, shared
from tests.remote.daemon.served import TIMEOUT, Served, Shared
from tests.support import engine_of
from tests.sync.awaited import Synchronous

F = TypeVar("F", bound=Callable[..., object])
Call = Callable[[Any], Awaitable[object]]

PAGE_RECORDS = 128
"""Records that these tests have a daemon, or a database, send at a time."""
PAST_A_PAGE = PAGE_RECORDS * 2 + 7
PAGED = [b"%512d" % number for number in range(PAST_A_PAGE)]
"""More than any of them reads at a time: a directory reads 64 KiB."""


class Writer(Shared):
    """A store that several have open with ``shared=True``: the first that a test opens writes it,
    and is the one that the test calls.
    """

    async def begin(self) -> None:
        """Nobody has it open yet."""

    async def end(self) -> None:
        """Whoever has opened it closes it."""

    def connect(self, **options: Any) -> Any:
        return Opening(partial(self._noted, super().connect(**options)))

    async def _noted(self, opening: Awaitable[Store]) -> Store:
        store = await opening
        self._note(store)
        return store

    def _note(self, store: Store) -> None:
        leader = store._engine._leader  # type: ignore[attr-defined]
        if leader.store is not None:
            self.store, self.daemon = leader.store, leader._daemon

    async def data(self) -> list[bytes]:
        async with Reader.open(self.path / "store") as reader:
            return [record.data async for record in reader.scan()]


class Alone(Writer):
    """A store that one program has for itself."""

    @property
    def address(self) -> str:
        return str(self.path / "store")

    def connect(self, **options: Any) -> Any:
        options.pop("timeout", None)
        opening = Store.open(self.path / "store", **{**self.options, **options})
        return Opening(partial(self._noted, opening))

    def _note(self, store: Store) -> None:
        self.store = store


class Database(Alone):
    """A log in a PostgreSQL database."""

    @property
    def address(self) -> str:
        return shared().log(log_name(self.path))

    def connect(self, **options: Any) -> Any:
        options = {**self.options, "lock_timeout": TIMEOUT, **options}
        options["lock_timeout"] = options.pop("timeout", options["lock_timeout"])
        options.pop("max_segment_bytes", None)  # its partitions are cut by sequence
        return Opening(partial(self._noted, Store.open(self.address, **options)))

    async def data(self) -> list[bytes]:
        async with Reader.open(self.address) as reader:
            return [record.data async for record in reader.scan()]


class Replicated(Database):
    """A log in a PostgreSQL database with a synchronous standby."""

    @property
    def address(self) -> str:
        return shared_pair().log(log_name(self.path))


FACES: dict[str, type[Served]] = {
    "alone": Alone,
    "writer": Writer,
    "shared": Shared,
    "daemon": Served,
    "sync": Synchronous,
    "postgresql": Database,
    "standby": Replicated,
}
_SAME = {"postgresql": ("standby",)}
"""What one does not have, others do not have either."""
_OF_PROOF = {"standby"}


def params_of(faces: dict[str, type[Served]]) -> list[Any]:
    """The faces as parameters of a test; some belong to the proof alone."""
    return [
        pytest.param(face, id=name, marks=[pytest.mark.proof] if name in _OF_PROOF else [])
        for name, face in faces.items()
    ]


def not_for(*names: str, why: str) -> Callable[[F], F]:
    """Keep a statement from these faces; ``why`` says what of it they do not have."""
    assert why
    assert FACES.keys() >= set(names), names
    without = {*names, *(same for name in names for same in _SAME.get(name, ()))}
    left = {name: face for name, face in FACES.items() if name not in without}
    return pytest.mark.parametrize("face", params_of(left), indirect=True)


def of_a_loop(statement: F) -> F:
    """Keep a statement from the synchronous face, which has threads in place of tasks."""
    return not_for("sync", why="its callers are threads, which nobody cancels: see tests.sync")(
        statement
    )


def of_several(statement: F) -> F:
    """Keep a statement from a store that is opened alone, and from a log in a database."""
    return not_for("alone", "postgresql", why="no process writes it for the others")(statement)


def of_files(why: str) -> Callable[[F], F]:
    """Keep a statement from a log in a database, which has no files; ``why`` says what of them."""
    return not_for("postgresql", why=why)


def is_followed(it: Served) -> bool:
    """Whether anybody waits for the next commit of the store that has the files."""
    engine = it.store._engine
    if isinstance(engine, PostgresEngine):
        return engine.log.is_followed
    return bool(engine_of(it.store)._publisher._waiting)


async def all_of(records: Any) -> list[Record]:
    return [record async for record in records]


async def outcome(call: Call, store: Any) -> object:
    """What it gives; the class, arguments and cause of what it raises."""
    try:
        return await call(store)
    except Exception as error:
        cause = error.__cause__
        return type(error), *error.args, None if cause is None else (type(cause), *cause.args)


def scanning(**options: Any) -> Call:
    async def scan(store: Any) -> object:
        return await all_of(store.scan(**options))

    return scan


async def filled(store: Store) -> list[Record]:
    """The records of a log of a few segments, with labels and times to look for."""
    records = []
    for number in range(400):
        labels = (f"third:{number % 3}", *(["tens"] if number % 10 == 0 else []))
        records.append((b"%d" % number + bytes(20), labels))
    futures = []
    for number, (data, labels) in enumerate(records):
        futures.append(store.append_nowait(data, relations=labels))
        if number % 7 == 0:
            await store.flush()
    await store.sync()
    receipts = [await future for future in futures]
    return [
        Record(receipt.sequence, receipt.timestamp, data, labels)
        for receipt, (data, labels) in zip(receipts, records, strict=True)
    ]
