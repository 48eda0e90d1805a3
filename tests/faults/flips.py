"""The bytes of a store change behind its back: every bit flipped, files cut, doubled, swapped,
zeroed, replaced.

Each case takes a small store that is known record by record, changes one thing in its directory,
opens it and reads all of it. What may come of that:

=================  =================================================================================
noticed            an error of the tree, at opening or when the place is read; what was read before
                   it is sound, and an opening that refuses has changed nothing. A manifest, name,
                   header or footer: always at opening; a hold or a cursor: whenever it is asked for
without effect     every record comes back as it was written. So it is with every change to a table
                   of relations: finding gives the records that the log holds, and the table is
                   built anew, as it was
named              of a store that was killed: the records behind the last one that is proven are
                   missing, and the recovery report names the bytes that were cut off, and keeps
                   them
gone with the end  of a store that was killed: the end of its log was taken away or zeroed at a
                   frame's border, and nothing is left there that could tell of what it held
=================  =================================================================================

Anything else is a violation: another record than the one written, a record missing without a word,
an exception that is not of the tree, an opening that never ends. Of a store that was closed,
nothing at all may be missing without an error.

What is *proven* is judged here without the engine. These stores were written under `Always`, so a
frame whose header is still somewhere in its file tells that all records before it had been synced;
and frames that are as they were, from the first one on, hold their records.

The places come from the seed; the stores' ids and times are new in each run. Cases are opened by
the blocking rooms alone, which is fast; that the public `Store` gives the same answer is checked on
some of them.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from random import Random
from types import FrameType

from aquipu import PositionLostError, UnsupportedFormatError
from aquipu.local.format.names import HISTORY, LOCK
from tests.faults.damage import Case, damaged, few_cases, many_cases
from tests.faults.fixture import Fixture, fixtures
from tests.faults.image import Bench, Image, fast_directory
from tests.faults.index import by_hand
from tests.faults.outcome import Outcome, judge, observe, through_store
from tests.faults.tally import Tally

Tick = Callable[[int], None]
FLIPS_SHARE = 0.8
"""Of a bounded number of cases."""

_CHUNK = 500  # cases from one tick to the next
_ALONE = 40_000  # up to so many cases, a second process does not pay
_PROCESSES = 2
_HANG_SECONDS = 20.0
_THROUGH_STORE = 300
# cases that change something else than a table; after each that changes one, all is found by
# relation
_FOUND_EVERY = 20


class HangError(Exception):
    """An opening or a reading did not end."""


def run(size: int, seed: int, tick: Tick, enough: int | None = None) -> Tally:
    """Open and judge ``size`` changed stores (0: all there are).

    In two processes when they are many; with ``enough``, no more than show so many violations.
    """
    stores = fixtures()
    rng = Random(seed)
    cases = _chosen(stores, size, rng)
    rng.shuffle(cases)
    tally = Tally()
    judged = _judged_here if len(cases) <= _ALONE else _judged_in_processes
    for some, done in judged(
        stores, [cases[at : at + _CHUNK] for at in range(0, len(cases), _CHUNK)]
    ):
        tally.add(some)
        tick(done)
        if enough is not None and len(tally.violations) >= enough:
            return tally
    with fast_directory() as directory, by_hand():
        tally.add(
            asyncio.run(_compare(stores, cases[:_THROUGH_STORE], Bench(Path(directory, "store"))))
        )
    return tally


def _chosen(stores: Sequence[Fixture], size: int, rng: Random) -> list[Case]:
    """All there are, or so many: first of all the flips, then the few cases, and of the others as
    many of each kind.
    """
    few, many = few_cases(stores), many_cases(stores, rng)
    if size:
        flips = int(size * FLIPS_SHARE)
        few = rng.sample(few, min(size - flips, len(few)))
        others = (size - flips - len(few)) // (len(many) - 1)
        for kind, cases in many.items():
            many[kind] = rng.sample(cases, min(flips if kind == "flips" else others, len(cases)))
    return [*few, *chain.from_iterable(many.values())]


def _judged_here(
    stores: Sequence[Fixture], chunks: list[list[Case]]
) -> Iterator[tuple[Tally, int]]:
    for chunk in chunks:
        yield _judged(stores, chunk), len(chunk)


def _judged_in_processes(
    stores: Sequence[Fixture], chunks: list[list[Case]]
) -> Iterator[tuple[Tally, int]]:
    with ProcessPoolExecutor(_PROCESSES, get_context("spawn")) as pool:
        futures = {pool.submit(_judged, stores, chunk): len(chunk) for chunk in chunks}
        for future in as_completed(futures):
            yield future.result(), futures[future]


def _judged(stores: Sequence[Fixture], cases: Sequence[Case]) -> Tally:
    tally = Tally()
    with fast_directory() as directory, by_hand(), _no_hang() as begin:
        bench = Bench(Path(directory, "store"))
        for number, case in enumerate(cases):
            begin()
            fixture, image = stores[case.fixture], damaged(stores, case)
            bench.lay(image)
            outcome = observe(
                str(bench.path),
                finding=case.name.endswith(".relations") or number % _FOUND_EVERY == 0,
            )
            verdict, allowed = judge(fixture, image, outcome, bench.read())
            tally.counts["cases after which all was found by relation"] += outcome.found is not None
            tally.counts["bit flips" if case.kind == "flips" else case.kind] += 1
            if allowed:
                tally.counts[f"{case.kind} {verdict}"] += 1
            else:
                tally.violated(f"{case.told(stores)}: {verdict}")
    return tally


async def _compare(stores: Sequence[Fixture], cases: Sequence[Case], bench: Bench) -> Tally:
    """Open these both ways."""
    tally = Tally()
    for case in cases:
        image = damaged(stores, case)
        bench.lay(image)
        blocking = observe(str(bench.path))
        bench.read()
        bench.lay(image)
        public = await through_store(str(bench.path))
        left = bench.read()
        if not blocking.agrees(public) and not (
            _is_history(case, left) and _is_told_of_history(blocking, public)
        ):
            tally.violated(
                f"{case.told(stores)}: {public.error!r} through Store, {blocking.error!r} without"
            )
        # The pid in the lock is that of whoever tried last.
        if public.report is None and {**left, LOCK: b""} != {**image, LOCK: b""}:
            tally.violated(
                f"{case.told(stores)}: refused through Store, but the directory is changed"
            )
        tally.counts["opened through Store as well"] += 1
    return tally


def _is_history(case: Case, left: Image) -> bool:
    """Whether the history was damaged, under its name or under that of another file."""
    return case.name == HISTORY or any(name.startswith(f"{HISTORY}.cut-") for name in left)


def _is_told_of_history(blocking: Outcome, public: Outcome) -> bool:
    """Whether all that differs is what the store says of a history that is gone or damaged.

    It reads the history, which the parts below it do not: one of an unknown version is refused, and
    without one a consumer is told that its cursor may lie beyond what is left.
    """
    if blocking.error is not None:
        return False
    if isinstance(public.error, PositionLostError):
        return public.records == blocking.records
    return isinstance(public.error, UnsupportedFormatError) and public.report is None


@contextmanager
def _no_hang() -> Iterator[Callable[[], None]]:
    """Call what this gives at the beginning of each case: one that takes for ever ends in a
    HangError.

    Only the main thread of a process can be interrupted; elsewhere the time limit of the test
    stands in.
    """
    if threading.current_thread() is not threading.main_thread():
        yield _nothing
        return
    timer, handler = signal.getitimer(signal.ITIMER_REAL), signal.signal(signal.SIGALRM, _interrupt)
    try:
        yield _set_limit
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _nothing() -> None:
    pass


def _set_limit() -> None:
    signal.setitimer(signal.ITIMER_REAL, _HANG_SECONDS)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise HangError(f"no end within {_HANG_SECONDS} s")
