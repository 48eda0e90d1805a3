"""Searching: records by labels that many carry, a full scan and the counts of all labels, beside
SQLite with the same records in the same rounds: one table of records, and one of labels and
sequences without rowid.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter, process_time

from aquipu import OsManaged, Store
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.report import Table, Target, milliseconds, times
from benchmarks.settings import Settings

_BATCH = 256  # records in a commit, as 256 callers at once would make them
_RECORD_BYTES = 90
_TWENTIETH, _QUARTER = "action:3", "region:1"
_SEED = 20_250_101
_JOINED = "SELECT r.* FROM labels l JOIN records r USING (sequence) WHERE l.label = ? ORDER BY 1"
_BOTH = (
    "SELECT r.* FROM labels l JOIN labels m ON m.sequence = l.sequence AND m.label = ? "
    "JOIN records r ON r.sequence = l.sequence WHERE l.label = ? ORDER BY 1"
)
_COUNTED = (
    "SELECT label, count(*) FROM labels WHERE label >= 'user:' AND label < 'user;' GROUP BY label"
)

Asked = Callable[[Store], Awaitable[int]]
"""What is asked of a store, and how many answers came."""


async def _found(store: Store, *labels: str) -> int:
    found = 0
    async for _ in store.scan(relation=labels or None):
        found += 1
    return found


async def _counted(store: Store) -> int:
    return len(await store.relations("user:"))


_ASKED: dict[str, tuple[Asked, str, tuple[str, ...], float | None]] = {
    "a label on 5 %": (lambda store: _found(store, _TWENTIETH), _JOINED, (_TWENTIETH,), 0.4),
    "a label on 25 %": (lambda store: _found(store, _QUARTER), _JOINED, (_QUARTER,), 0.4),
    "both": (
        lambda store: _found(store, _QUARTER, _TWENTIETH),
        _BOTH,
        (_QUARTER, _TWENTIETH),
        None,
    ),
    "all records": (_found, "SELECT * FROM records ORDER BY sequence", (), 0.6),
    "relations(), of the most labels": (_counted, _COUNTED, (), 0.5),
}
"""By what is sought: how, how SQLite is asked for it, and the least ratio that was set."""
_OPENED = ("a label on 5 %", "a label on 25 %")
"""What is also sought in a store that was just opened, and has no tables yet."""


def measure(
    settings: Settings,
    progress: Progress,
    directory: Path,
    build: Callable[[Path], None],
) -> Rounds:
    """Everything in its rounds; ``build`` builds the tables of a store."""
    path, database = directory / "searched", directory / "searched.db"
    progress.expect(2)
    progress.step(f"writing {settings.records:,} records of {_RECORD_BYTES} bytes with 3 labels")
    in_loop(settings, partial(_write, path, settings))
    progress.step("the same in SQLite")
    _write_database(database, settings)
    opened: dict[str, Contender] = {}
    for name in _OPENED:
        opened[_opened(name)] = partial(_just_opened, settings, path, name)
        opened[_of_sqlite(_opened(name))] = partial(_of_database, database, name)
    rounds = interleaved(opened, settings.rounds, progress)
    build(path)
    contenders: dict[str, Contender] = {}
    for name in _ASKED:
        contenders[name] = partial(_warm, settings, path, name)
        contenders[_of_sqlite(name)] = partial(_of_database, database, name)
    return rounds | interleaved(contenders, settings.rounds, progress)


def _of_sqlite(name: str) -> str:
    return f"{name}, SQLite"


def _opened(name: str) -> str:
    return f"{name}, just opened, without tables"


# what is searched


def _rows(settings: Settings) -> Iterator[tuple[int, bytes, tuple[str, str, str]]]:
    random = Random(_SEED)
    for number in range(settings.records):
        line = b"%08d GET /item/%06d 200 in 0.%03d s" % (
            number,
            number * 7919 % 1_000_000,
            number * 31 % 1_000,
        )
        labels = (
            f"user:{random.randrange(settings.labels)}",
            f"action:{random.randrange(20)}",
            f"region:{random.randrange(4)}",
        )
        yield number, line.ljust(_RECORD_BYTES, b"."), labels


async def _write(path: Path, settings: Settings) -> None:
    async with Store.open(
        path, sync_policy=OsManaged(), max_segment_bytes=settings.finding_segment_bytes
    ) as store:
        for number, data, labels in _rows(settings):
            last = store.append_nowait(data, relations=labels)
            if number % _BATCH == _BATCH - 1:
                await last
        await store.flush()
    _remove_tables(path)


def _remove_tables(path: Path) -> None:
    for table in path.glob("*.relations"):
        table.unlink()


def _write_database(path: Path, settings: Settings) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.executescript(
            "CREATE TABLE records (sequence INTEGER PRIMARY KEY, timestamp INTEGER, data BLOB);"
            "CREATE TABLE labels (label TEXT, sequence INTEGER, PRIMARY KEY (label, sequence))"
            " WITHOUT ROWID;"
        )
        records = ((number, 10**18 + number, data) for number, data, _ in _rows(settings))
        database.executemany("INSERT INTO records VALUES (?, ?, ?)", records)
        pairs = sorted((label, number) for number, _, of in _rows(settings) for label in of)
        database.executemany("INSERT INTO labels VALUES (?, ?)", pairs)
        database.commit()


# searching


async def _timed(asked: Callable[[], Awaitable[int]]) -> Sample:
    began, computed = perf_counter(), process_time()
    found = await asked()
    return {
        "seconds": perf_counter() - began,
        "cpu": process_time() - computed,
        "found": float(found),
    }


def _warm(settings: Settings, path: Path, name: str) -> Sample:
    asked = _ASKED[name][0]

    async def measured() -> Sample:
        async with Store.open(path) as store:
            await asked(store)
            return await _timed(lambda: asked(store))

    return in_loop(settings, measured)


def _just_opened(settings: Settings, path: Path, name: str) -> Sample:
    """The first search of a store that finds its tables missing, and builds them meanwhile."""
    _remove_tables(path)

    async def measured() -> Sample:
        async with Store.open(path) as store:
            return await _timed(lambda: _ASKED[name][0](store))

    return in_loop(settings, measured)


def _of_database(path: Path, name: str) -> Sample:
    _, query, parameters, _ = _ASKED[name]
    began, computed = perf_counter(), process_time()
    with closing(sqlite3.connect(path)) as database:
        found = sum(1 for _ in database.execute(query, parameters))
    return {
        "seconds": perf_counter() - began,
        "cpu": process_time() - computed,
        "found": float(found),
    }


# what is shown


def table(settings: Settings, rounds: Rounds) -> Table:
    """Each search beside SQLite's."""
    rows = []
    for name in (*_ASKED, *map(_opened, _OPENED)):
        beside = _of_sqlite(name)
        found, there = (rounds.median(it, "found") for it in (name, beside))
        if found != there:
            raise RuntimeError(f"{name}: {found:g} were found, and SQLite finds {there:g}")
        rows.append(
            [
                name,
                f"{found:,.0f}",
                *(milliseconds(rounds.median(it, "seconds")) for it in (name, beside)),
                *(times(rounds.ratio(beside, name, quantity)) for quantity in ("seconds", "cpu")),
            ]
        )
    title = (
        f"Searching {settings.records:,} records of {_RECORD_BYTES} bytes with 3 labels, one of "
        f"{settings.labels:,}, one of 20 and one of 4, in commits of {_BATCH}, warm"
    )
    columns = ["", "found", "here", "SQLite", "of its rate", "of its rate, by CPU"]
    return Table(title, columns, rows)


def targets(rounds: Rounds) -> list[Target]:
    """The least ratios that were set."""
    made = [
        Target(f"{name}, of SQLite's rate", _ratio(rounds, name), least, "×")
        for name, (_, _, _, least) in _ASKED.items()
        if least is not None
    ]
    made += [
        Target(f"{_opened(name)}, of SQLite's rate", _ratio(rounds, _opened(name)), 0.4, "×")
        for name in _OPENED
    ]
    slowest = max(rounds.median(name, "seconds") for name in (*_ASKED, *map(_opened, _OPENED)))
    full = slowest / rounds.median("all records", "seconds")
    rarer = rounds.ratio("both", "a label on 5 %", "seconds")
    return [
        *made,
        Target("the slowest search, of a full scan", full, 1.1, "×", at_least=False),
        Target("two labels at once, of the rarer one", rarer, 1.1, "×", at_least=False),
    ]


def _ratio(rounds: Rounds, name: str) -> float:
    return rounds.ratio(_of_sqlite(name), name, "seconds")
