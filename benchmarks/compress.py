"""Compressed segments: how small log lines become, and what it costs to read them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from random import Random
from shutil import copytree
from typing import Any

from aquipu import OsManaged, Store
from aquipu.local.check.at_work import look_into
from aquipu.local.disk.disk import Disk
from benchmarks.contender import scratch
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.reading import read_all, read_some
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.settings import MIB, Settings

LOGS = ("openssh", "openstack")
_TEMPLATES = Path(__file__).resolve().parents[1] / "tests" / "data"
_COMMIT = 64  # records, as of so many callers
_SEED = 20_261_129
_OTHERS = 50
_NUMBER = rb"[0-9a-f-]*\d[0-9a-f-]*"
_PLAIN, _COMPRESSED = "as they were written", "compressed"


def run(settings: Settings, progress: Progress) -> Report:
    """The same store twice, of which one was compressed."""
    try:
        import_module("zstandard")
    except ImportError:
        return Report(
            "compress",
            notes=["compressed segments left out: pip install -e '.[compress]'"],
        )
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        sizes: dict[str, Sample] = {}
        progress.expect(len(LOGS))
        for log in LOGS:
            progress.step(f"writing and compressing {settings.records:,} lines of {log}")
            place = stack.enter_context(scratch(settings))
            in_loop(settings, partial(_write, place / _PLAIN, log, settings.records))
            copytree(place / _PLAIN, place / _COMPRESSED)
            in_loop(settings, partial(_compress, place / _COMPRESSED))
            info = look_into(Disk(), str(place / _COMPRESSED)).compressed
            assert info is not None, "the store was compressed just now"
            sizes[log] = {"bytes": info.bytes, "of plain": info.bytes / info.plain_bytes}
            for kind in (_PLAIN, _COMPRESSED):
                contenders[_at("scan", log, kind)] = _reading(settings, place / kind, read_all)
                contenders[_at("get", log, kind)] = _reading(
                    settings, place / kind, lambda store: read_some(store, settings.gets)
                )
        rounds = interleaved(contenders, settings.rounds, progress)
    rounds |= Rounds({_at("size", log, _COMPRESSED): [sample] for log, sample in sizes.items()})
    return Report(
        "compress", tables=[_table(settings, rounds)], targets=_targets(rounds), rounds=rounds
    )


def _lines(log: str, number: int) -> Iterator[bytes]:
    """Yield the lines of a real log, in its order, with other numbers in them.

    Each number or UUID is replaced by one of 50: addresses, users and requests come again.
    """
    random = Random(_SEED)
    lines = (_TEMPLATES / f"{log}_40.log").read_bytes().splitlines()

    @cache
    def others(number: bytes) -> list[bytes]:
        def digit(_: object) -> bytes:
            return b"%d" % random.randrange(10)

        return [re.sub(rb"\d", digit, number) for _ in range(_OTHERS)]

    for place in range(number):
        line = lines[place % len(lines)]
        yield re.sub(_NUMBER, lambda found: random.choice(others(found[0])), line)


async def _write(path: Path, log: str, records: int) -> None:
    lines = _lines(log, records)
    async with Store.open(path, sync_policy=OsManaged(), max_segment_bytes=16 * MIB) as store:
        while batch := [line for line, _ in zip(lines, range(_COMMIT), strict=False)]:
            await store.append_many(batch)
        await store.roll()


async def _compress(path: Path) -> None:
    async with Store.open(path, compress=True) as store:
        segments = store.statistics().segments - 1
        while _compressed_in(store) < segments:  # noqa: ASYNC110  # nothing says when it is done
            await asyncio.sleep(0.05)


def _compressed_in(store: Store) -> int:
    found = look_into(Disk(), store.path).compressed
    return 0 if found is None else found.segments


def _reading(
    settings: Settings, path: Path, measured: Callable[[Store], Coroutine[Any, Any, Sample]]
) -> Contender:
    async def opened() -> Sample:
        async with Store.open(path) as store:
            return await measured(store)

    return lambda: in_loop(settings, opened)


def _at(what: str, log: str, kind: str) -> str:
    return f"{what}, {log}, {kind}"


# what is shown


def _table(settings: Settings, rounds: Rounds) -> Table:
    rows = []
    for log in LOGS:
        for kind in (_PLAIN, _COMPRESSED):
            scan, get = _at("scan", log, kind), _at("get", log, kind)
            size = rounds.median(_at("size", log, kind), "of plain") if kind != _PLAIN else 1.0
            rows.append(
                [
                    f"{log}, {kind}",
                    f"{size:.3f}",
                    count(rounds.median(scan, "records/s")),
                    times(rounds.ratio(scan, _at("scan", log, _PLAIN), "records/s")),
                    milliseconds(rounds.median(get, "p50")),
                ]
            )
    columns = ["", "size", "scan, records/s", "of plain", "get, median"]
    title = f"{settings.records:,} log lines in commits of {_COMMIT}, warm"
    return Table(title, columns, rows)


def _targets(rounds: Rounds) -> list[Target]:
    targets = []
    for log in LOGS:
        size = rounds.median(_at("size", log, _COMPRESSED), "of plain")
        rate = rounds.ratio(_at("scan", log, _COMPRESSED), _at("scan", log, _PLAIN), "records/s")
        targets += [
            Target(f"{log}: size, of what was written", size, 0.25, "×", at_least=False),
            Target(f"{log}: scan, of the rate of what was written", rate, 0.5, "×"),
        ]
    return targets
