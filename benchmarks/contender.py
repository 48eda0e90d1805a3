"""What is compared: something with an `append`, opened in an empty directory and loaded by callers
in a closed loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

from aquipu import Always, EveryN, OsManaged, Store, SyncPolicy
from benchmarks.measure import Contender, Sample, in_loop
from benchmarks.settings import RECORD, Settings
from benchmarks.workload import Append, latencies, throughput

Opener = Callable[[Path], AbstractAsyncContextManager[Append]]
"""Opens a contender in an empty directory; its `append` is what is measured."""

POLICIES: dict[str, SyncPolicy] = {
    "Always": Always(),
    "EveryN(64)": EveryN(64),
    "OsManaged": OsManaged(),
}
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def store_opener(policy: SyncPolicy) -> Opener:
    """aquipu, with its defaults for everything else."""

    @asynccontextmanager
    async def open_store(directory: Path) -> AsyncIterator[Append]:
        async with Store.open(directory / "store", sync_policy=policy) as store:
            yield store.append

    return open_store


def throughput_of(
    settings: Settings, opener: Opener, callers: int, data: bytes = RECORD
) -> Contender:
    """A contender that gives "appends/s"."""

    async def measured(append: Append) -> Sample:
        return {"appends/s": await throughput(append, callers, settings.seconds, data)}

    return run_of(settings, opener, measured)


def latency_of(settings: Settings, opener: Opener, callers: int) -> Contender:
    """A contender that gives its percentiles in seconds: "p50", "p99.9"."""

    async def measured(append: Append) -> Sample:
        taken = await latencies(append, callers, settings.seconds)
        return {f"p{percent:g}": taken.percentile(percent) for percent in PERCENTILES}

    return run_of(settings, opener, measured)


def run_of(
    settings: Settings, opener: Opener, measured: Callable[[Append], Awaitable[Sample]]
) -> Contender:
    """A contender that is opened anew for each run, in a loop and a directory of its own."""

    async def run(directory: Path) -> Sample:
        async with opener(directory) as append:
            return await measured(append)

    def contender() -> Sample:
        with scratch(settings) as directory:
            return in_loop(settings, lambda: run(directory))

    return contender


@contextmanager
def scratch(settings: Settings) -> Iterator[Path]:
    """An empty directory for one run.

    What is left in it is removed behind it, so that no run pays for the one before.
    """
    directory = Path(mkdtemp(dir=settings.directory))
    try:
        yield directory
    finally:
        rmtree(directory, ignore_errors=True)


def at(name: str, callers: int) -> str:
    """The name of a contender with so many callers."""
    return f"{name}, {callers_named(callers)}"


def callers_named(callers: int) -> str:
    return f"{callers:,} caller{'s' if callers > 1 else ''}"
