"""Finding: records by a label that they carry, the tables this takes, and what building them costs
those who append.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, cycle, pairwise, repeat
from pathlib import Path
from random import Random
from time import perf_counter

from aquipu import Always, OsManaged, Store
from aquipu.local.check.indexes import build_indexes
from aquipu.local.disk.disk import Disk
from aquipu.local.read.examine import examine
from benchmarks import searching
from benchmarks.contender import scratch
from benchmarks.following import RATE, TASKS, paced
from benchmarks.latency import Latencies
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.settings import MIB, Settings

_KINDS = ("user", "document", "host")
_EACH = 3  # labels of a record
_BATCH = 1_000
_HITS = 50
_SOUGHT = 20  # labels
_NEWEST = 10  # records
_ENDLESS = 1024 * MIB  # of a segment: none is sealed while the cost of building is measured
_SEED = 20_250_101

_FIND, _REVERSE, _SIZE = "find", "reverse", "size"
_BUILDING, _RESTING = "while tables are built", "while none is built"

Labels = Callable[[int], Iterator[tuple[str, ...]]]
"""Those of so many records."""


def run(settings: Settings, progress: Progress) -> Report:
    """One store, first read as it is, then written on."""
    labels = _zipf(settings.labels)
    with scratch(settings) as directory:
        path = directory / "store"
        progress.expect(2)
        progress.step(f"writing {_records(settings):,} records with {_EACH} labels each")
        in_loop(settings, partial(_write, settings, path, labels))
        progress.step("building their tables")
        _build(path)
        sought = in_loop(settings, partial(_sought, path))
        rounds = Rounds({_SIZE: [_sizes(path)]})
        reading: dict[str, Contender] = {
            _FIND: lambda: in_loop(settings, partial(_find, settings, path, sought)),
            _REVERSE: lambda: in_loop(settings, partial(_reverse, settings, path)),
        }
        rounds |= interleaved(reading, settings.rounds, progress)
        writing: dict[str, Contender] = {
            _BUILDING: partial(_building, settings, path, labels),
            _RESTING: lambda: in_loop(settings, partial(_append, settings, path, labels)),
        }
        rounds |= interleaved(writing, settings.rounds, progress)
        rounds |= searching.measure(settings, progress, directory, _build)
    tables = [
        searching.table(settings, rounds),
        _find_table(settings, rounds),
        _size_table(rounds),
        _building_table(settings, rounds),
    ]
    targets = searching.targets(rounds) + _targets(rounds)
    return Report("finding", tables=tables, targets=targets, rounds=rounds)


# the store


def _records(settings: Settings) -> int:
    return 5 * settings.records


def _zipf(distinct: int) -> Labels:
    """Labels of which the second is half as frequent as the first, the third a third, and so on."""
    random = Random(_SEED)
    names = [f"{_KINDS[rank % len(_KINDS)]}:{rank * 7919 % 1_000_003}" for rank in range(distinct)]
    weights = list(accumulate(1 / (rank + 1) for rank in range(distinct)))

    def labels(records: int) -> Iterator[tuple[str, ...]]:
        drawn = iter(random.choices(names, cum_weights=weights, k=_EACH * records))
        return zip(*repeat(drawn, _EACH), strict=True)

    return labels


def _line(number: int) -> bytes:
    """40 bytes, as a log of requests has them."""
    return b"%08d GET /item/%06d 200 in 0.%03d s" % (
        number,
        number * 7919 % 1_000_000,
        number * 31 % 1_000,
    )


async def _write(settings: Settings, path: Path, labels: Labels) -> None:
    async with Store.open(
        path, sync_policy=OsManaged(), max_segment_bytes=settings.finding_segment_bytes
    ) as store:
        for first in range(0, _records(settings), _BATCH):
            for number, carried in enumerate(labels(_BATCH), first):
                last = store.append_nowait(_line(number), relations=carried)
            await last  # all of them are one commit


def _build(path: Path) -> None:
    """Those tables that were not built while the store was written."""
    disk = Disk()
    findings = examine(disk, str(path))
    if findings is None:
        raise RuntimeError("a store that was just written is not there")
    build_indexes(disk, findings.sealed, anew=False, progress=lambda size: None)


def _sizes(path: Path) -> Sample:
    """The tables, and the segments that they are of."""
    tables = list(path.glob("*.relations"))
    return {
        "tables": float(sum(table.stat().st_size for table in tables)),
        "segments": float(sum(table.with_suffix(".segment").stat().st_size for table in tables)),
    }


# reading


async def _sought(path: Path) -> dict[str, int]:
    """Labels that about `_HITS` records carry, and how many it are."""
    async with Store.open(path) as store:
        counts = await store.relations()
    nearest = sorted(counts, key=lambda label: abs(counts[label] - _HITS))
    return {label: counts[label] for label in nearest[:_SOUGHT]}


async def _find(settings: Settings, path: Path, sought: dict[str, int]) -> Sample:
    async with Store.open(path) as store:
        labels = cycle(sought)

        async def find() -> None:
            label = next(labels)
            found = len([record async for record in store.scan(relation=label)])
            if found != sought[label]:
                raise RuntimeError(
                    f"{found} records were found by a label that {sought[label]} carry"
                )

        for _ in sought:
            await find()
        return await _repeated(find, settings.finds)


async def _reverse(settings: Settings, path: Path) -> Sample:
    async with Store.open(path) as store:

        async def newest() -> None:
            scan = store.scan(reverse=True)
            sequences = [(await anext(scan)).sequence for _ in range(_NEWEST)]
            await scan.aclose()
            if sequences != list(
                range(store.next_sequence - 1, store.next_sequence - 1 - _NEWEST, -1)
            ):
                raise RuntimeError(
                    f"a scan in reverse gave {sequences} of {store.next_sequence} records"
                )

        await newest()
        return await _repeated(newest, settings.finds)


async def _repeated(call: Callable[[], Awaitable[None]], number: int) -> Sample:
    taken = Latencies()
    for _ in range(number):
        began = perf_counter()
        await call()
        taken.note(perf_counter() - began)
    return {"p50": taken.percentile(50), "p99": taken.percentile(99)}


# building


def _building(settings: Settings, path: Path, labels: Labels) -> Sample:
    """The store finds its tables missing when it is opened, and builds them one after another."""
    with _without_tables(path):
        sample = in_loop(settings, partial(_append, settings, path, labels))
        built = [int(table.stem) for table in path.glob("*.relations")]
        firsts = sorted(int(segment.stem) for segment in path.glob("*.segment"))
    indexed = sum(behind - first for first, behind in pairwise(firsts) if first in built)
    return {
        **sample,
        "tables": float(len(built)),
        "indexed/s": indexed / settings.following_seconds,
    }


@contextmanager
def _without_tables(path: Path) -> Iterator[None]:
    """They are put back at the end, also over those that were built meanwhile."""
    aside = path.with_name("aside")
    aside.mkdir()
    for table in list(path.glob("*.relations")):
        table.rename(aside / table.name)
    yield
    for table in list(aside.iterdir()):
        table.replace(path / table.name)
    aside.rmdir()


async def _append(settings: Settings, path: Path, labels: Labels) -> Sample:
    carried = cycle(list(labels(_BATCH)))
    async with Store.open(path, sync_policy=Always(), max_segment_bytes=_ENDLESS) as store:

        async def append(data: bytes) -> None:
            await store.append(data, relations=next(carried))

        rate, taken = await paced(append, settings.following_seconds, _line(0))
    return {"appends/s": rate, "p50": taken.percentile(50), "p99": taken.percentile(99)}


# what is shown


def _find_table(settings: Settings, rounds: Rounds) -> Table:
    rows = []
    for name, what in (
        (_FIND, f"all of a label with about {_HITS}"),
        (_REVERSE, f"the last {_NEWEST}, in reverse"),
    ):
        rows.append(
            [what, *(milliseconds(rounds.median(name, quantity)) for quantity in ("p50", "p99"))]
        )
    title = (
        f"Finding in {_records(settings):,} records of 40 bytes with {_EACH} of "
        f"{settings.labels:,} labels each, warm"
    )
    return Table(title, ["", "median", "99 %"], rows)


def _size_table(rounds: Rounds) -> Table:
    sizes = [f"{count(rounds.median(_SIZE, what) / MIB)} MiB" for what in ("segments", "tables")]
    row = [*sizes, times(rounds.ratio_within(_SIZE, "tables", "segments"))]
    return Table("How large the tables are", ["sealed segments", "their tables", "of that"], [row])


def _building_table(settings: Settings, rounds: Rounds) -> Table:
    rows = []
    for name in (_BUILDING, _RESTING):
        latency = [milliseconds(rounds.median(name, quantity)) for quantity in ("p50", "p99")]
        rows.append([name, count(rounds.median(name, "appends/s")), *latency, "", ""])
    rows[0][-2:] = [
        count(rounds.median(_BUILDING, quantity)) for quantity in ("tables", "indexed/s")
    ]
    title = (
        f"What building tables costs: {TASKS} tasks at a paced {RATE:,} appends/s with {_EACH} "
        "labels under Always, "
        f"{settings.following_seconds:g} seconds"
    )
    return Table(
        title, ["", "appends/s", "median", "99 %", "tables finished", "records in them, /s"], rows
    )


def _targets(rounds: Rounds) -> list[Target]:
    found, newest = (rounds.median(name, "p50") * 1e3 for name in (_FIND, _REVERSE))
    size = rounds.ratio_within(_SIZE, "tables", "segments") * 100
    kept, slower = (
        rounds.ratio(_BUILDING, _RESTING, quantity) for quantity in ("appends/s", "p50")
    )
    indexed = rounds.median(_BUILDING, "indexed/s")
    return [
        Target(
            f"all records of a label with about {_HITS}, median", found, 20, " ms", at_least=False
        ),
        Target("tables, of the segments that they are of", size, 35, " %", at_least=False),
        Target(f"the last {_NEWEST} records in reverse, median", newest, 10, " ms", at_least=False),
        Target("appends/s while tables are built, of those while none is", kept, 0.85, "×"),
        Target(
            "median append while tables are built, of that while none is",
            slower,
            1.15,
            "×",
            at_least=False,
        ),
        Target(f"records put into tables beside {RATE:,} appends/s", indexed, RATE, "/s"),
    ]
