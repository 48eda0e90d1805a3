"""Reading: scan, verify and get in a store of 1,000,000 records."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any

import google_crc32c

from aquipu import OsManaged, Store
from aquipu.local.disk.disk import Disk
from aquipu.local.read.examine import examine, verify
from benchmarks.contender import scratch
from benchmarks.latency import Latencies
from benchmarks.measure import Contender, Progress, Rounds, Sample, in_loop, interleaved
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.settings import MIB, RECORD, Settings

_COMMITS = (64, 1_000)  # records in each commit, as 64 or 1,000 callers at once would make them
_SEED = 20_250_101


def run(settings: Settings, progress: Progress) -> Report:
    """The same measurements on a store of small commits and on one of large ones."""
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        progress.expect(len(_COMMITS))
        for size in _COMMITS:
            progress.step(f"writing {settings.records:,} records in commits of {size:,}")
            path = stack.enter_context(scratch(settings)) / "store"
            in_loop(settings, partial(_write, path, settings.records, size))
            contenders |= {
                _at("scan", size): _in_store(settings, path, read_all),
                _at("get", size): _in_store(
                    settings, path, lambda store: read_some(store, settings.gets)
                ),
                _at("verify", size): partial(_verify, path),
                _at("crc", size): partial(_read_and_sum, path),
            }
        rounds = interleaved(contenders, settings.rounds, progress)
    return Report(
        "reading", tables=[_table(settings, rounds)], targets=_targets(rounds), rounds=rounds
    )


async def _write(path: Path, records: int, size: int) -> None:
    async with Store.open(path, sync_policy=OsManaged()) as store:
        for first in range(0, records, size):
            await store.append_many([RECORD] * min(size, records - first))


def _in_store(
    settings: Settings, path: Path, measured: Callable[[Store], Coroutine[Any, Any, Sample]]
) -> Contender:
    async def opened() -> Sample:
        async with Store.open(path) as store:
            return await measured(store)

    return lambda: in_loop(settings, opened)


async def read_all(store: Store) -> Sample:
    """A scan of all."""
    found = 0
    began = perf_counter()
    async for _ in store.scan():
        found += 1
    elapsed = perf_counter() - began
    if found != store.next_sequence:
        raise RuntimeError(f"a scan of {store.next_sequence} records gave {found}")
    return {"records/s": found / elapsed}


async def read_some(store: Store, gets: int) -> Sample:
    """One after another, at random, from files that the system has in memory."""
    random = Random(_SEED)
    taken = Latencies()
    for number in range(gets + gets // 10):
        sequence = random.randrange(store.next_sequence)
        began = perf_counter()
        await store.get(sequence)
        if number >= gets // 10:
            taken.note(perf_counter() - began)
    return {"p50": taken.percentile(50), "p99": taken.percentile(99)}


def _verify(path: Path) -> Sample:
    """What the command ``verify`` does, without the start of an interpreter."""
    began = perf_counter()
    disk = Disk()
    findings = examine(disk, str(path))
    if findings is None or list(verify(disk, str(path), findings.segments, lambda size: None)):
        raise RuntimeError("a store that was just written does not verify")
    return {"bytes/s": _size(path) / (perf_counter() - began)}


def _read_and_sum(path: Path) -> Sample:
    """Reading the same files in pieces of 1 MiB and summing them up, on one core: nothing that
    checks can be faster.
    """
    began = perf_counter()
    for descriptor in _descriptors(path):
        check = 0
        while piece := os.read(descriptor, MIB):
            check = google_crc32c.extend(check, piece)
    return {"bytes/s": _size(path) / (perf_counter() - began)}


def _descriptors(path: Path) -> Iterator[int]:
    for file in sorted(path.iterdir()):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())


def _at(what: str, size: int) -> str:
    return f"{what}, commits of {size:,}"


# what is shown


def _table(settings: Settings, rounds: Rounds) -> Table:
    rows = []
    for size in _COMMITS:
        scanned = count(rounds.median(_at("scan", size), "records/s"))
        verified, summed = (rounds.median(_at(what, size), "bytes/s") for what in ("verify", "crc"))
        got = [
            milliseconds(rounds.median(_at("get", size), quantity)) for quantity in ("p50", "p99")
        ]
        rates = [f"{count(rate / 1e6)} MB/s" for rate in (verified, summed)]
        rows.append([f"commits of {size:,}", scanned, *rates, times(verified / summed), *got])
    columns = [
        "",
        "scan, records/s",
        "verify",
        "CRC32C + read, one core",
        "verify of that",
        "get, median",
        "get, 99 %",
    ]
    return Table(
        f"Reading {settings.records:,} records of {len(RECORD)} bytes, warm", columns, rows
    )


def _targets(rounds: Rounds) -> list[Target]:
    targets = []
    for size in _COMMITS:
        scanned = rounds.median(_at("scan", size), "records/s")
        verified = rounds.ratio(_at("verify", size), _at("crc", size), "bytes/s")
        got = rounds.median(_at("get", size), "p50") * 1e6
        targets += [
            Target(_at("scan", size), scanned, 1_000_000, "/s"),
            Target(f"{_at('verify', size)}, of CRC32C + read on one core", verified, 0.5, "×"),
            Target(f"{_at('get at random, median', size)}", got, 150, " µs", at_least=False),
        ]
    return targets
