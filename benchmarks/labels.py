"""Labels: what they cost the appends that carry them, and the memory of a process that goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from pathlib import Path

from aquipu import OsManaged, Receipt, Store
from benchmarks.contender import Opener, scratch, throughput_of
from benchmarks.measure import Progress, Rounds, Sample, in_loop, interleaved, resident_bytes
from benchmarks.report import Report, Table, Target, count, times
from benchmarks.settings import MIB, RECORD, Settings
from benchmarks.workload import Append, closed_appends

CALLERS = 256
DENSE = ("route:/orders", "status:201")
"""Labels of every record, beside one of many."""

_APPENDS = "appends/s"
_WANTED = {1: 0.8, 3: 0.65}
_NAMES = {0: "without labels", 1: "1 label", 3: "3 labels"}
_SPANS = 5  # of the long run


def run(settings: Settings, progress: Progress) -> Report:
    """The throughputs in rounds, then the long run."""
    contenders = {
        name: throughput_of(settings, _opener(settings, labels), CALLERS)
        for labels, name in _NAMES.items()
    }
    rounds = interleaved(contenders, settings.rounds, progress)
    rounds |= Rounds({"long run": _long(settings, progress)})
    return Report(
        "labels",
        tables=[_throughput_table(rounds), _memory_table(settings, rounds)],
        targets=_targets(rounds),
        rounds=rounds,
    )


def _opener(settings: Settings, labels: int) -> Opener:
    """A store under `OsManaged`; each append has so many labels, and no coroutine of its own.

    Without labels, too, something is taken that each append could be given, and dropped.
    """
    of_each = [(f"user:{number}", *DENSE)[:labels] for number in range(settings.labels)]

    @asynccontextmanager
    async def open_store(directory: Path) -> AsyncIterator[Append]:
        async with Store.open(directory / "store", sync_policy=OsManaged()) as store:
            yield _labelled(store, of_each) if labels else _unlabelled(store, of_each)

    return open_store


def _unlabelled(
    store: Store, of_each: Sequence[tuple[str, ...]]
) -> Callable[[bytes], Awaitable[Receipt]]:
    following = partial(next, cycle(of_each))

    def append(data: bytes) -> Awaitable[Receipt]:
        following()
        return store.append(data)

    return append


def _labelled(
    store: Store, of_each: Sequence[tuple[str, ...]]
) -> Callable[[bytes], Awaitable[Receipt]]:
    following = partial(next, cycle(of_each))

    def append(data: bytes) -> Awaitable[Receipt]:
        return store.append(data, relations=following())

    return append


# the long run


def _long(settings: Settings, progress: Progress) -> list[Sample]:
    """One store; what memory the process has after each fifth of the records, beside the first."""
    of_each = [(f"user:{number}", *DENSE) for number in range(settings.labels)]
    each = max(settings.labelled // _SPANS, CALLERS)

    async def spans(directory: Path) -> list[Sample]:
        samples: list[dict[str, float]] = []
        async with Store.open(
            directory / "store",
            sync_policy=OsManaged(),
            max_segment_bytes=settings.finding_segment_bytes,
        ) as store:
            first = 0
            for number in range(_SPANS):
                progress.step(f"span {number + 1} of {_SPANS}")
                await closed_appends(_labelled(store, of_each), CALLERS, each)
                first = first or resident_bytes()
                samples.append({"records": (number + 1.0) * each, "resident": resident_bytes()})
        return [{**sample, "grown": sample["resident"] - first} for sample in samples]

    progress.expect(_SPANS)
    with scratch(settings) as directory:
        return in_loop(settings, lambda: spans(directory))


# what is shown


def _throughput_table(rounds: Rounds) -> Table:
    rows = [
        [
            name,
            count(rounds.median(name, _APPENDS)),
            times(rounds.ratio(name, _NAMES[0], _APPENDS)),
        ]
        for name in _NAMES.values()
    ]
    title = f"{CALLERS} callers, OsManaged, {len(RECORD)}-byte records"
    return Table(title, ["", _APPENDS, "of those without"], rows)


def _memory_table(settings: Settings, rounds: Rounds) -> Table:
    rows = [
        [
            f"{sample['records']:,.0f}",
            f"{sample['resident'] / MIB:.0f} MiB",
            f"{sample['grown'] / MIB:+.1f} MiB",
        ]
        for sample in rounds.samples["long run"]
    ]
    return Table(
        "memory while records with 3 labels are appended",
        ["records", "resident", "since the first"],
        rows,
    )


def _targets(rounds: Rounds) -> list[Target]:
    targets = [
        Target(
            f"{_NAMES[labels]}, of appends without",
            rounds.ratio(_NAMES[labels], _NAMES[0], _APPENDS),
            wanted,
            "×",
        )
        for labels, wanted in _WANTED.items()
    ]
    grown = rounds.samples["long run"][-1]["grown"] / MIB
    return [*targets, Target("memory over the long run", grown, 8, " MiB", at_least=False)]
