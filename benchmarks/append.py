"""Appends: each policy at 1, 64 and 1,024 callers, against what asyncio and the disk allow.

Runs by itself too: ``python benchmarks/append.py``.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from benchmarks.__main__ import main

    sys.exit(main(["append", *sys.argv[1:]]))

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aquipu import Always, Store
from benchmarks import raw
from benchmarks.burner import beside
from benchmarks.ceiling import open_ceiling
from benchmarks.contender import (
    PERCENTILES,
    POLICIES,
    at,
    callers_named,
    latency_of,
    run_of,
    scratch,
    store_opener,
    throughput_of,
)
from benchmarks.measure import Contender, Progress, Rounds, Sample, interleaved
from benchmarks.report import Curve, Report, Table, Target, count, milliseconds, times
from benchmarks.settings import CALLERS, MIB, RECORD, Settings
from benchmarks.workload import Append

CEILING = "asyncio ceiling"
GROWING = "raw pwrite + fdatasync, growing file"
ZEROED = "raw pwrite + fdatasync, zero-filled file"
_APPENDS = "appends/s"
_BATCH = 1_000
_LARGE_CALLERS = 8
_BURN = 200e-6

_LOST = {
    "Always": "0",
    "EveryN(64)": "at most 63, none older than 1 s",
    "OsManaged": "what the kernel has not yet written back",
}


def run(settings: Settings, progress: Progress) -> Report:
    """Everything that this benchmark shows."""
    rounds = interleaved(_throughputs(settings), settings.rounds, progress)
    rounds |= interleaved(_latencies(settings), settings.rounds, progress)
    rounds |= interleaved(_others(settings), settings.rounds, progress)
    return Report(
        "append",
        tables=[
            _throughput_table(rounds),
            _ratio_table(rounds),
            _latency_table(rounds),
            _other_table(rounds),
            _loss_table(rounds),
        ],
        targets=_targets(rounds),
        curves=_curves(rounds),
        rounds=rounds,
    )


# what runs


def _throughputs(settings: Settings) -> dict[str, Contender]:
    contenders = {
        at(name, callers): throughput_of(settings, store_opener(policy), callers)
        for callers in CALLERS
        for name, policy in POLICIES.items()
    }
    contenders |= {
        at(CEILING, callers): throughput_of(settings, open_ceiling, callers) for callers in CALLERS
    }
    contenders[GROWING] = _raw(
        settings,
        _APPENDS,
        lambda directory: raw.writes(directory, settings.seconds, zero_filled=False),
    )
    contenders[ZEROED] = _raw(
        settings,
        _APPENDS,
        lambda directory: raw.writes(directory, settings.seconds, zero_filled=True),
    )
    return contenders


def _latencies(settings: Settings) -> dict[str, Contender]:
    return {
        f"latency, {at(name, callers)}": latency_of(settings, store_opener(policy), callers)
        for callers in CALLERS
        for name, policy in POLICIES.items()
    }


def _others(settings: Settings) -> dict[str, Contender]:
    async def burnt(append: Append) -> Sample:
        return await beside(append, _BURN, settings.seconds)

    large = bytes(MIB)
    return {
        "append_many": throughput_of(settings, _open_batches, 1),
        "1 MiB records": throughput_of(settings, store_opener(Always()), _LARGE_CALLERS, large),
        "sequential, 8 MiB a sync": _sequential(settings, 8 * MIB),
        "sequential, 64 MiB a sync": _sequential(settings, 64 * MIB),
        "beside 200 µs": run_of(settings, store_opener(Always()), burnt),
    }


@asynccontextmanager
async def _open_batches(directory: Path) -> AsyncIterator[Append]:
    batch = [RECORD] * _BATCH
    async with Store.open(directory / "store", sync_policy=Always()) as store:

        async def append(data: bytes) -> None:
            await store.append_many(batch)

        yield append


def _sequential(settings: Settings, synced_bytes: int) -> Contender:
    return _raw(
        settings,
        "bytes/s",
        lambda directory: raw.sequential(directory, settings.seconds, synced_bytes=synced_bytes),
    )


def _raw(settings: Settings, quantity: str, rate: Callable[[Path], float]) -> Contender:
    def contender() -> Sample:
        with scratch(settings) as directory:
            return {quantity: rate(directory)}

    return contender


# what is shown


def _throughput_table(rounds: Rounds) -> Table:
    rows = [
        [name, *(count(rounds.median(at(name, callers), _APPENDS)) for callers in CALLERS)]
        for name in (*POLICIES, CEILING)
    ]
    rows += [[name, count(rounds.median(name, _APPENDS)), "", ""] for name in (ZEROED, GROWING)]
    return Table("Appends per second, 256-byte records", ["", *map(callers_named, CALLERS)], rows)


def _ratio_table(rounds: Rounds) -> Table:
    def ratios(name: str, other: Callable[[int], str]) -> list[str]:
        return [
            times(rounds.ratio(at(name, callers), other(callers), _APPENDS)) for callers in CALLERS
        ]

    rows = [
        [f"{name}, of the ceiling", *ratios(name, lambda callers: at(CEILING, callers))]
        for name in POLICIES
    ]
    rows += [[f"{name}, of raw writes", *ratios(name, lambda callers: ZEROED)] for name in POLICIES]
    title = "The same as ratios: of the asyncio ceiling, and of raw writes into a zero-filled file"
    return Table(title, ["", *map(callers_named, CALLERS)], rows)


def _latency_table(rounds: Rounds) -> Table:
    rows = []
    for name in POLICIES:
        for callers in CALLERS:
            place = at(name, callers)
            figures = [
                rounds.median(f"latency, {place}", f"p{percent:g}") for percent in PERCENTILES
            ]
            rows.append([place, *map(milliseconds, figures)])
    return Table(
        "How long an append takes, by percentile",
        ["", *(f"{percent:g} %" for percent in PERCENTILES)],
        rows,
    )


def _other_table(rounds: Rounds) -> Table:
    batched = rounds.median("append_many", _APPENDS)
    large = rounds.median("1 MiB records", _APPENDS) * MIB
    rows = [
        [f"append_many of {_BATCH:,}, one caller", f"{count(batched * _BATCH)} records/s", ""],
        [f"1 MiB records, {_LARGE_CALLERS} callers", _megabytes(large), ""],
    ]
    for name in ("sequential, 8 MiB a sync", "sequential, 64 MiB a sync"):
        rate = rounds.median(name, "bytes/s")
        rows.append([f"raw write + fdatasync, {name}", _megabytes(rate), times(large / rate)])
    middle = milliseconds(rounds.median("beside 200 µs", "p50"))
    rows.append(
        ["median append, 16 callers beside a task that burns 200 µs an iteration", middle, ""]
    )
    return Table("Under Always", ["", "", "1 MiB records against it"], rows)


def _loss_table(rounds: Rounds) -> Table:
    rows = [
        [name, *(count(rounds.median(at(name, callers), _APPENDS)) for callers in CALLERS), lost]
        for name, lost in _LOST.items()
    ]
    columns = [
        "policy",
        *map(callers_named, CALLERS),
        "acknowledged records that a power cut can take",
    ]
    return Table("What a policy costs and what it saves", columns, rows)


def _targets(rounds: Rounds) -> list[Target]:
    most, one = at("Always", 1024), at("Always", 1)
    large = rounds.median("1 MiB records", _APPENDS) * MIB
    return [
        Target(
            "Always, 1,024 callers, against the asyncio ceiling",
            rounds.ratio(most, at(CEILING, 1024), _APPENDS),
            0.85,
            "×",
        ),
        Target(
            "Always, 64 callers, against the asyncio ceiling",
            rounds.ratio(at("Always", 64), at(CEILING, 64), _APPENDS),
            0.45,
            "×",
        ),
        Target(
            "Always, 1,024 callers, against OsManaged",
            rounds.ratio(most, at("OsManaged", 1024), _APPENDS),
            0.9,
            "×",
        ),
        Target(
            "Always, 1 caller, against raw pwrite + fdatasync on a zero-filled file",
            rounds.ratio(one, ZEROED, _APPENDS),
            0.85,
            "×",
        ),
        Target(
            "append_many of 1,000, Always, one caller: records",
            rounds.median("append_many", _APPENDS) * _BATCH,
            1_500_000,
            "/s",
        ),
        Target(
            "1 MiB records, Always, 8 callers, against sequential write + fdatasync, 64 MiB a sync",
            large / rounds.median("sequential, 64 MiB a sync", "bytes/s"),
            0.7,
            "×",
        ),
        Target(
            "median append, 16 callers, beside a task that burns 200 µs an iteration",
            rounds.median("beside 200 µs", "p50") * 1e3,
            10,
            " ms",
            at_least=False,
        ),
    ]


def _curves(rounds: Rounds) -> list[Curve]:
    curves = [
        Curve(
            "appends by callers",
            name,
            [(callers, rounds.median(at(name, callers), _APPENDS)) for callers in CALLERS],
        )
        for name in (*POLICIES, CEILING)
    ]
    curves += [
        Curve(
            "appends by callers",
            name,
            [(callers, rounds.median(name, _APPENDS)) for callers in CALLERS],
        )
        for name in (ZEROED, GROWING)
    ]
    curves += [
        Curve(
            "append latency",
            at(name, callers),
            [
                (percent, rounds.median(f"latency, {at(name, callers)}", f"p{percent:g}") * 1e3)
                for percent in PERCENTILES
            ],
        )
        for name in POLICIES
        for callers in CALLERS
    ]
    return curves


def _megabytes(rate: float) -> str:
    return f"{count(rate / 1e6)} MB/s"
