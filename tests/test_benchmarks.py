"""The benchmarks: that figures are taken as they say, and that each of them runs.

What the figures are is not tested.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.batcher import Batcher
from benchmarks.burner import beside
from benchmarks.ceiling import Ceiling
from benchmarks.contender import scratch
from benchmarks.disks import SlowDisk, TimedDisk
from benchmarks.latency import Latencies
from benchmarks.measure import Progress, Rounds, Sample, interleaved, quotient
from benchmarks.report import Report, Target, count, milliseconds, times
from benchmarks.settings import RECORD, Settings, full
from benchmarks.workload import closed_loop, latencies, throughput

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = (
    "aiosqlite",
    "asyncpg",
    "fastapi",
    "lmdb",
    "matplotlib",
    "redis.asyncio",
    "rocksdict",
    "uvicorn",
    "uvloop",
    "zstandard",
)
TITLES = {
    "append": (
        "Appends per second, 256-byte records",
        "of the asyncio ceiling, and of raw writes",
        "How long an append takes",
        "append_many of 1,000",
        "acknowledged records that a power cut can take",
    ),
    "peers": (
        "configured so that a power cut takes nothing acknowledged",
        "Versions and configurations",
    ),
    "saturated": ("burns 50 µs", "burns 200 µs", "burns 1000 µs"),
    "steady": ("in 3 spans", "What a roll does", "A disk whose sync takes 100 ms", "nothing to do"),
    "labels": ("256 callers, OsManaged", "memory while records with 3 labels"),
    "following": (
        "64 tasks at a paced 20,000 appends/s under Always, 0.2 seconds",
        "What these followers cost an append",
        "One Reader in another process",
        "20 followers that catch up at once",
    ),
    "backup": ("while the store is backed up", "A store at rest"),
    "daemon": ("through the daemon and in its process",),
    "shared": ("by several processes and by one",),
    "synchronous": ("under Always, without asyncio",),
    "finding": (
        "Searching 2,000 records of 90 bytes",
        "Finding in 10,000 records of 40 bytes",
        "How large the tables are",
        "What building tables costs",
    ),
    "reading": ("Reading 2,000 records of 256 bytes",),
    "compress": (),
    "postgres": (),
    "opening": ("closed, 3 sealed segments", "killed, commits of one record"),
    "imports": ("A whole process that only imports",),
    "profile": ("The steps of a commit under Always", "Threads"),
    "services": (),
    "uvloop": (),
    "web": (),
}
LEFT_OUT = {
    "peers": ("aiosqlite", "lmdb", "rocksdb", "Redis", "PostgreSQL"),
    "saturated": ("aiosqlite", "FastAPI under uvicorn"),
    "services": ("FastAPI under uvicorn",),
    "shared": ("FastAPI under uvicorn",),
    "uvloop": ("uvloop",),
    "web": ("aquipu web",),
    "compress": ("compressed segments",),
    "postgres": ("PostgreSQL",),
}


UNMEASURED = {"uvloop", "profile", "services", "web", "compress", "postgres"}
"""Without any extra they have no targets: they are left out as a whole, or never have any."""


@pytest.fixture
def no_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed but what the package itself needs, and rich."""
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)


# figures


class Steps(Progress):
    def __init__(self) -> None:
        self.expected = 0
        self.done: list[str] = []

    def expect(self, steps: int) -> None:
        self.expected += steps

    def step(self, doing: str) -> None:
        self.done.append(doing)


def measuring(values: dict[str, list[float]]) -> dict[str, Callable[[], Sample]]:
    """Contenders that measure these values, one a round."""

    def contender(given: list[float]) -> Callable[[], Sample]:
        each = iter(given)
        return lambda: {"speed": next(each)}

    return {name: contender(given) for name, given in values.items()}


def test_rounds_are_interleaved_and_every_second_one_runs_backwards() -> None:
    """Every round measures each contender once, so that a drift of the machine meets all of them
    alike.
    """
    steps = Steps()
    interleaved(measuring({"a": [1, 2, 3], "b": [1, 2, 3], "c": [1, 2, 3]}), 3, steps)
    assert steps.done == ["a", "b", "c", "c", "b", "a", "a", "b", "c"]
    assert steps.expected == len(steps.done)


def test_a_figure_is_the_median_of_its_rounds() -> None:
    """One round that was disturbed does not move a figure."""
    rounds = interleaved(measuring({"a": [10, 1000, 12]}), 3, Progress())
    assert rounds.median("a", "speed") == 12
    assert [sample["speed"] for sample in rounds.samples["a"]] == [10, 1000, 12]


def test_a_ratio_is_that_of_the_medians() -> None:
    """A reader who divides two figures of the table finds the ratio that stands beside them."""
    rounds = interleaved(measuring({"a": [10, 20, 90], "b": [5, 100, 40]}), 3, Progress())
    assert rounds.ratio("a", "b", "speed") == 20 / 40


def test_a_ratio_to_what_never_finished_says_so() -> None:
    """Nothing is divided by zero."""
    assert quotient(5, 0) == inf
    assert times(quotient(5, 0)) == "-"


def test_the_ratio_of_two_quantities_of_one_contender_is_that_of_their_medians() -> None:
    """The 99.9th percentile against the median is told from the figures that are shown."""
    rounds = Rounds({"a": [{"p50": 1, "p99": 9}, {"p50": 2, "p99": 8}, {"p50": 3, "p99": 40}]})
    assert rounds.ratio_within("a", "p99", "p50") == 9 / 2


def test_rounds_of_two_parts_are_joined() -> None:
    """A report holds the figures of all its parts."""
    joined = Rounds({"a": [{"speed": 1}]}) | Rounds({"b": [{"speed": 2}]})
    assert joined.median("a", "speed") == 1
    assert joined.median("b", "speed") == 2


@pytest.mark.parametrize(
    ("percent", "expected"), [(0.1, 1), (50, 500), (99, 990), (99.9, 999), (100, 1000)]
)
def test_a_percentile_is_a_duration_that_was_measured(percent: float, expected: int) -> None:
    """The nearest rank: no duration is made up between two others."""
    taken = Latencies()
    for microseconds in range(1000, 0, -1):
        taken.note((microseconds + 0.5) / 1e6)
    assert taken.percentile(percent) == pytest.approx(expected / 1e6)


def test_a_long_duration_is_kept_as_it_was() -> None:
    """What takes longer than the table of microseconds reaches still counts in the percentiles, in
    its order.
    """
    taken = Latencies()
    for seconds in (7.25, 0.001, 2.5):
        taken.note(seconds)
    assert len(taken) == 3
    assert [taken.percentile(percent) for percent in (1, 50, 100)] == [
        pytest.approx(0.001),
        2.5,
        7.25,
    ]


def test_nothing_finished_has_no_percentile() -> None:
    """An engine that got nothing done is not the fastest one."""
    assert Latencies().percentile(50) == inf
    assert milliseconds(inf) == "none finished"


@pytest.mark.parametrize(
    ("measured", "at_least", "met"),
    [(2.0, True, True), (1.9, True, False), (2.0, False, True), (2.1, False, False)],
)
def test_a_target_is_met_at_its_bound_and_not_beyond(
    measured: float, at_least: bool, met: bool
) -> None:
    """At least and at most both count the bound itself."""
    assert Target("it", measured, 2.0, at_least=at_least).met is met


def test_numbers_are_written_with_three_digits_that_mean_something() -> None:
    """A table does not pretend to know more than the machine can tell."""
    assert [count(value) for value in (0.123456, 12.34, 171_499, 1_523_000)] == [
        "0.123",
        "12.3",
        "171,000",
        "1,520,000",
    ]
    assert [times(value) for value in (0.8512, 12.34, 1234)] == ["0.85×", "12.3×", "1,234×"]
    assert [milliseconds(value) for value in (0.0001234, 0.0123, 2.0)] == [
        "0.123 ms",
        "12.3 ms",
        "2,000 ms",
    ]


def test_a_report_as_json_holds_every_round_and_no_infinity() -> None:
    """The file can be read by any program: what never finished is null."""
    rounds = Rounds({"a": [{"p50": inf}, {"p50": 2.0}, {"p50": inf}]})
    report = Report("it", targets=[Target("soon", inf, 1.0, at_least=False)], rounds=rounds)
    plain = json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert plain["figures"]["a"]["p50"] == {"median": None, "rounds": [None, 2.0, None]}
    assert plain["targets"][0]["measured"] is None
    assert plain["targets"][0]["met"] is False


# what loads and what is loaded


@pytest.mark.asyncio
async def test_callers_wait_for_their_own_append_before_the_next() -> None:
    """The loop is closed: never more appends under way than callers, and each is counted."""
    under_way, most, appended = 0, 0, 0

    async def append(data: bytes) -> None:
        nonlocal under_way, most, appended
        assert data == RECORD
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        appended += 1

    assert await closed_loop(append, 7, 0.01) == appended
    assert most == 7
    assert under_way == 0


@pytest.mark.asyncio
async def test_an_append_that_fails_ends_the_measurement() -> None:
    """A figure is never that of errors, which are fast."""

    async def append(data: bytes) -> None:
        raise OSError("no disk")

    with pytest.raises(BaseExceptionGroup) as caught:
        await throughput(append, 2, 0.01)
    assert caught.group_contains(OSError, match="no disk")


@pytest.mark.asyncio
async def test_the_ceiling_answers_every_caller() -> None:
    """It is a contender like any other: each append returns, from the thread."""
    ceiling = Ceiling()
    try:
        async with asyncio.timeout(30):
            await asyncio.gather(*(ceiling.append(RECORD) for _ in range(100)))
            assert len(await latencies(ceiling.append, 3, 0.01)) > 0
    finally:
        ceiling.close()


@pytest.mark.asyncio
async def test_the_ceiling_answers_those_who_come_while_it_is_busy() -> None:
    """What gathers while a group is with the thread leaves as the next one."""
    ceiling = Ceiling()
    try:
        async with asyncio.timeout(30):
            first = asyncio.create_task(ceiling.append(RECORD))
            await asyncio.sleep(0)  # the first has its place in a group
            await asyncio.sleep(0)  # the group has left
            await asyncio.gather(first, ceiling.append(RECORD))
    finally:
        ceiling.close()


def test_what_a_run_has_written_goes_with_it(tmp_path: Path) -> None:
    """The next run finds the disk as this one did, also when this one failed."""

    def fails() -> None:
        with scratch(full(tmp_path, servers=False)) as directory:
            (directory / "store").mkdir()
            raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        fails()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asyncio
async def test_the_batcher_writes_what_gathers_together_in_order() -> None:
    """The peer is as good as the one that a careful user writes: one write for all that gathered
    meanwhile.
    """
    batches: list[list[bytes]] = []

    async def write(batch: list[bytes]) -> None:
        batches.append(batch)
        await asyncio.sleep(0)

    batcher = Batcher(write)
    await asyncio.gather(*(batcher.append(b"%d" % number) for number in range(5)))
    await batcher.append(b"later")
    assert batches == [[b"0", b"1", b"2", b"3", b"4"], [b"later"]]


@pytest.mark.asyncio
async def test_the_batcher_tells_those_whose_write_failed_and_goes_on() -> None:
    """A peer that swallowed errors would be no peer."""
    failing = True

    async def write(batch: list[bytes]) -> None:
        if failing:
            raise OSError("no space")

    batcher = Batcher(write)
    with pytest.raises(OSError, match="no space"):
        await batcher.append(b"lost")
    failing = False
    await batcher.append(b"kept")


@pytest.mark.asyncio
async def test_what_finishes_after_the_burning_does_not_count() -> None:
    """An engine that gets nothing done beside a saturated loop shows as such."""
    released = asyncio.Event()

    async def append(data: bytes) -> None:
        await released.wait()

    asyncio.get_running_loop().call_later(0.05, released.set)
    sample = await beside(append, 0.0001, 0.001)
    assert sample["finished"] == 0
    assert sample["p50"] == inf
    assert sample["iterations/s"] > 0


def test_a_watched_disk_sees_each_call_that_makes_something_durable(tmp_path: Path) -> None:
    """Both ways to sync are timed, and the call is still done."""
    disk = TimedDisk()
    descriptor = disk.create(str(tmp_path / "file"))
    disk.write(descriptor, [b"one"], 0)
    disk.sync(descriptor)
    disk.write_synced(descriptor, [b"two"], 3)
    assert len(disk.taken) == 2
    disk.close(descriptor)


def test_a_slow_disk_is_slow_only_when_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a store on it takes no longer than elsewhere."""
    slept: list[float] = []
    monkeypatch.setattr("benchmarks.disks.sleep", slept.append)
    disk = SlowDisk(0.1)
    descriptor = disk.create(str(tmp_path / "file"))
    disk.sync(descriptor)
    assert slept == []
    disk.slow = True
    disk.sync(descriptor)
    assert slept == [0.1]
    disk.close(descriptor)


# each benchmark, from the command line to its tables


@pytest.mark.proof
@pytest.mark.usefixtures("no_extras")
@pytest.mark.parametrize("name", TITLES)
def test_each_benchmark_runs_and_shows_its_tables(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without any extra, what needs one is left out with a line.

    A target that is not met fails nothing.
    """
    assert main([name, "--smallest", "--no-servers", "--directory", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for title in TITLES[name]:
        assert title in shown
    for left_out in LEFT_OUT.get(name, ()):
        assert f"{left_out} left out: " in shown
    assert (f"{name}: targets" in shown) is (name not in UNMEASURED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.proof
def test_compressed_segments_are_read_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Log lines are written, compressed, and read both ways."""
    assert main(["compress", "--smallest", "--directory", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "log lines in commits of 64" in shown
    assert "compress: targets" in shown


@pytest.mark.proof
def test_services_are_loaded_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each way to audit is served and loaded over real HTTP."""
    assert main(["services", "--smallest", "--directory", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for title in ("POSTs from 256 connections", "POSTs from 1 connection", "services: targets"):
        assert title in shown
    assert list(tmp_path.iterdir()) == []


def test_every_benchmark_has_a_test() -> None:
    """A new one is noticed here."""
    assert set(BENCHMARKS) == set(TITLES)


@pytest.mark.usefixtures("no_extras")
def test_figures_are_saved_where_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A JSON file with the machine, every figure and its rounds; without matplotlib a line says
    that there are no plots.
    """
    place, out = tmp_path / "scratch", tmp_path / "out"
    place.mkdir()
    assert main(["imports", "--smallest", "--directory", str(place), "--out", str(out)]) == 0
    content = json.loads((out / "results.json").read_text())
    assert content["about"]["size"] == "smallest"
    (benchmark,) = content["benchmarks"]
    assert benchmark["figures"]["import aquipu"]["seconds"]["median"] > 0
    assert "no plots" in capsys.readouterr().out


def test_an_unknown_name_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    """The names that there are stand in the message."""
    with pytest.raises(SystemExit) as caught:
        main(["apend"])
    assert caught.value.code == 2
    assert (
        "there is no benchmark 'apend'; there are append, profile, peers" in capsys.readouterr().err
    )


def test_a_run_that_is_interrupted_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C is no traceback, and the scratch files go with it."""

    def interrupted(settings: Settings, progress: Progress) -> Report:
        (settings.directory / "half a store").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setitem(BENCHMARKS, "imports", interrupted)
    assert main(["imports", "--directory", str(tmp_path)]) == 130
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err.startswith("stopped")


def test_appends_can_be_measured_by_the_file_alone(tmp_path: Path) -> None:
    """``python benchmarks/append.py`` works from any directory."""
    ended = python(tmp_path, str(ROOT / "benchmarks" / "append.py"), "--smallest")
    assert ended.returncode == 0, ended.stderr
    assert "asyncio ceiling" in ended.stdout
    assert "append: targets" in ended.stdout


def test_appends_can_be_measured_as_a_module() -> None:
    """``python -m benchmarks.append`` works from the checkout."""
    ended = python(ROOT, "-m", "benchmarks.append", "--help")
    assert ended.returncode == 0, ended.stderr
    assert "--quick" in ended.stdout


def python(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=directory, capture_output=True, text=True, check=False
    )
