"""Steady: a minute of appends while segments roll, a disk that is slow, and a store that has
nothing to do.
"""

from __future__ import annotations

import asyncio
import os
import resource
from array import array
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from aquipu import Always, Store
from aquipu.local.format.names import first_sequence_of
from benchmarks.contender import scratch
from benchmarks.disks import SlowDisk, TimedDisk
from benchmarks.latency import Latencies
from benchmarks.measure import (
    Contender,
    Progress,
    Rounds,
    Sample,
    in_loop,
    interleaved,
    quotient,
    resident_bytes,
)
from benchmarks.report import Report, Table, Target, count, milliseconds, times
from benchmarks.settings import MIB, RECORD, Settings
from benchmarks.workload import closed_loop, latencies

CALLERS = 64
_SPANS = 3  # of the long run: its rounds, one behind another
_ROLLING = 0.1  # of the time of the long run: how long rolls are watched in each round
_SLOW_SYNC = 0.1
_SLOW_CALLERS = 1024
_SLOW_BUFFER = 512
_SLOW_RUNS = 5.0  # as long as so many other runs
_TICK = 0.001

_LONG, _ROLLS, _SLOW, _RESTING, _IDLE, _EMPTY = (
    "long run",
    "rolls",
    "slow disk",
    "resting loop",
    "idle store",
    "no store",
)


def run(settings: Settings, progress: Progress) -> Report:
    """The long run, then the rest in rounds."""
    rounds = Rounds({_LONG: _long(settings, progress)})
    contenders: dict[str, Contender] = {
        _ROLLS: _contender(settings, lambda directory: _rolls(settings, directory)),
        _SLOW: _contender(settings, lambda directory: _slow(settings, directory)),
        _RESTING: _contender(settings, lambda directory: _resting(settings)),
        _IDLE: _contender(settings, lambda directory: _idle(settings, directory)),
        _EMPTY: _contender(settings, lambda directory: _nothing(settings)),
    }
    rounds |= interleaved(contenders, settings.rounds, progress)
    return Report(
        "steady",
        tables=[
            _long_table(settings, rounds),
            _roll_table(rounds),
            _slow_table(rounds),
            _idle_table(rounds),
        ],
        targets=_targets(rounds),
        rounds=rounds,
    )


def _contender(
    settings: Settings, measured: Callable[[Path], Coroutine[Any, Any, Sample]]
) -> Contender:
    def contender() -> Sample:
        with scratch(settings) as directory:
            return in_loop(settings, lambda: measured(directory))

    return contender


# the long run


def _long(settings: Settings, progress: Progress) -> list[Sample]:
    """One store, without a pause; each span gives its percentiles, and how much memory the process
    has at its end.
    """

    async def spans(directory: Path) -> list[Sample]:
        samples: list[Sample] = []
        span = settings.steady_seconds / _SPANS
        path = directory / "store"
        async with Store.open(
            path, sync_policy=Always(), max_segment_bytes=settings.steady_segment_bytes
        ) as store:
            await latencies(
                store.append, CALLERS, span / 10
            )  # what is allocated once is allocated here
            resident = resident_bytes()
            for number in range(_SPANS):
                progress.step(f"span {number + 1} of {_SPANS}")
                before = store.statistics()
                taken = await latencies(store.append, CALLERS, span)
                after = store.statistics()
                sample = {
                    f"p{percent:g}": taken.percentile(percent) for percent in (50, 99, 99.9, 100)
                }
                sample["appends/s"] = len(taken) / span
                sample["rolls"] = float(after.segments - before.segments)
                sample["grown"] = float(resident_bytes() - resident)
                samples.append(sample)
        return samples

    progress.expect(_SPANS)
    with scratch(settings) as directory:
        return in_loop(settings, lambda: spans(directory))


# rolls


async def _rolls(settings: Settings, directory: Path) -> Sample:
    """The longest append near each roll, beside what the disk takes for a sync."""
    disk = TimedDisk()
    sequences, taken, all_taken = array("Q"), array("d"), Latencies()
    path = directory / "store"
    async with Store.open(
        path, sync_policy=Always(), max_segment_bytes=settings.steady_segment_bytes, disk=disk
    ) as store:

        async def append(data: bytes) -> None:
            began = perf_counter()
            receipt = await store.append(data)
            seconds = perf_counter() - began
            sequences.append(receipt.sequence)
            taken.append(seconds)
            all_taken.note(seconds)

        await closed_loop(append, CALLERS, settings.steady_seconds * _ROLLING)
    by_sequence = array("d", bytes(8 * len(taken)))
    for sequence, seconds in zip(sequences, taken, strict=True):
        by_sequence[sequence] = seconds
    firsts = sorted(
        first for name in os.listdir(path) if (first := first_sequence_of(name)) is not None
    )
    stalls = [
        max(by_sequence[max(first - CALLERS, 0) : first + 2 * CALLERS])
        for first in firsts
        if 0 < first < len(taken)
    ]
    return {
        "rolls": float(len(stalls)),
        "p50": all_taken.percentile(50),
        "sync": disk.taken.percentile(50),
        "sync 99.9 %": disk.taken.percentile(99.9),
        "stall": median(stalls) if stalls else float("inf"),
        "longest": max(stalls, default=float("inf")),
    }


# a slow disk


async def _slow(settings: Settings, directory: Path) -> Sample:
    """More callers than the buffer holds, and a sync that takes a tenth of a second."""
    disk = SlowDisk(_SLOW_SYNC)
    lags, seconds = Latencies(), settings.seconds * _SLOW_RUNS
    most = 0
    async with Store.open(
        directory / "store", sync_policy=Always(), buffer_records=_SLOW_BUFFER, disk=disk
    ) as store:

        def look() -> None:
            nonlocal most
            most = max(most, store.statistics().buffered_records)

        disk.slow = True
        ticking = asyncio.create_task(_tick(lags, look))
        began = perf_counter()
        done = await closed_loop(store.append, _SLOW_CALLERS, seconds)
        elapsed = perf_counter() - began
        ticking.cancel()
        disk.slow = False
    allowed = min(_SLOW_BUFFER, _SLOW_CALLERS) / _SLOW_SYNC
    return {
        "lag 99 %": lags.percentile(99),
        "lag": lags.percentile(100),
        "buffered": float(most),
        "appends/s": done / elapsed,
        "of allowed": done / elapsed / allowed,
    }


async def _resting(settings: Settings) -> Sample:
    """The lag of a loop that does nothing else, for comparison."""
    lags = Latencies()
    ticking = asyncio.create_task(_tick(lags, lambda: None))
    await asyncio.sleep(settings.seconds * _SLOW_RUNS)
    ticking.cancel()
    return {"lag 99 %": lags.percentile(99), "lag": lags.percentile(100)}


async def _tick(lags: Latencies, look: Callable[[], None]) -> None:
    """How much later than asked the loop wakes this task."""
    while True:
        began = perf_counter()
        await asyncio.sleep(_TICK)
        lags.note(max(perf_counter() - began - _TICK, 0))
        look()


# nothing to do


async def _idle(settings: Settings, directory: Path) -> Sample:
    """What a store costs when nobody appends."""
    async with Store.open(directory / "store") as store:
        for _ in range(100):
            await store.append(RECORD)
        await store.sync()
        return await _nothing(settings)


async def _nothing(settings: Settings) -> Sample:
    """CPU and voluntary context switches of the process while it sleeps."""
    seconds = 2 * settings.seconds
    await asyncio.sleep(0.01)
    computed, switches = process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    await asyncio.sleep(seconds)
    return {
        "cpu": (process_time() - computed) / seconds,
        "wake-ups": float(resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - switches),
    }


# what is shown


def _long_table(settings: Settings, rounds: Rounds) -> Table:
    rows = []
    for number, span in enumerate(rounds.samples[_LONG], 1):
        latency = [milliseconds(span[f"p{percent}"]) for percent in ("50", "99", "99.9", "100")]
        against = times(quotient(span["p99.9"], span["p50"]))
        grown = f"{span['grown'] / MIB:+.1f} MiB"
        rows.append(
            [str(number), count(span["appends/s"]), *latency, against, count(span["rolls"]), grown]
        )
    columns = [
        "span",
        "appends/s",
        "median",
        "99 %",
        "99.9 %",
        "longest",
        "99.9 % ÷ median",
        "rolls",
        "resident memory",
    ]
    title = (
        f"{settings.steady_seconds:g} seconds at {CALLERS} callers under Always, segments of "
        f"{settings.steady_segment_bytes / MIB:g} MiB, in {_SPANS} spans"
    )
    return Table(title, columns, rows)


def _roll_table(rounds: Rounds) -> Table:
    quantities = ("p50", "sync", "sync 99.9 %", "stall", "longest")
    row = [count(rounds.median(_ROLLS, "rolls"))]
    row += [milliseconds(rounds.median(_ROLLS, quantity)) for quantity in quantities]
    columns = [
        "rolls",
        "median append",
        "median sync",
        "sync, 99.9 %",
        "longest append at a roll, median",
        "longest of all",
    ]
    return Table("What a roll does to the appends around it", columns, [row])


def _slow_table(rounds: Rounds) -> Table:
    rows = [
        [
            "the loop's lag, longest",
            milliseconds(rounds.median(_SLOW, "lag")),
            milliseconds(rounds.median(_RESTING, "lag")),
        ],
        [
            "the loop's lag, 99 %",
            milliseconds(rounds.median(_SLOW, "lag 99 %")),
            milliseconds(rounds.median(_RESTING, "lag 99 %")),
        ],
        [
            f"most records in a buffer of {_SLOW_BUFFER:,}",
            count(rounds.median(_SLOW, "buffered")),
            "",
        ],
        ["appends/s", count(rounds.median(_SLOW, "appends/s")), ""],
        [
            "of what full commits one after another allow",
            times(rounds.median(_SLOW, "of allowed")),
            "",
        ],
    ]
    title = f"A disk whose sync takes {_SLOW_SYNC * 1e3:.0f} ms, {_SLOW_CALLERS:,} callers"
    return Table(title, ["", "aquipu", "a loop that does nothing"], rows)


def _idle_table(rounds: Rounds) -> Table:
    rows = [
        [name, f"{rounds.median(name, 'cpu'):.3%}", count(rounds.median(name, "wake-ups"))]
        for name in (_IDLE, _EMPTY)
    ]
    return Table("A store that has nothing to do", ["", "CPU", "wake-ups of the process"], rows)


def _targets(rounds: Rounds) -> list[Target]:
    spans = rounds.samples[_LONG]
    grown = spans[-1]["grown"] / MIB
    bound = rounds.median(_ROLLS, "p50") + 2 * rounds.median(_ROLLS, "sync")
    return [
        Target(
            "99.9 % of an append against its median, while segments roll (median of the spans)",
            rounds.ratio_within(_LONG, "p99.9", "p50"),
            20,
            "×",
            at_least=False,
        ),
        Target(
            "longest append at a roll (median of the rolls): a median append and two syncs",
            rounds.median(_ROLLS, "stall") * 1e3,
            bound * 1e3,
            " ms",
            at_least=False,
        ),
        Target("resident memory after the long run: grown by", grown, 8, " MiB", at_least=False),
        Target(
            "slow disk: longest lag of the loop",
            rounds.median(_SLOW, "lag") * 1e3,
            5,
            " ms",
            at_least=False,
        ),
        Target(
            "slow disk: most records buffered",
            rounds.median(_SLOW, "buffered"),
            _SLOW_BUFFER,
            at_least=False,
        ),
        Target(
            "slow disk: throughput, of what group commit allows",
            rounds.median(_SLOW, "of allowed"),
            0.9,
            "×",
        ),
        Target("idle store: CPU", rounds.median(_IDLE, "cpu") * 100, 0.05, " %", at_least=False),
    ]
