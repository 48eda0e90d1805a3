"""bench: single syncs and stores under load become a table, a picture and a sentence of advice."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu import Disk
from aquipu.cli.bench.advice import advice_for
from aquipu.cli.bench.measure import PREFIX, measured, workplace
from aquipu.cli.bench.plan import CALLERS, POLICIES, Plan, planned
from aquipu.cli.bench.plot import picture_of, short
from aquipu.cli.bench.results import (
    Results,
    Run,
    SyncCost,
    percentile,
    run_of,
    sync_cost,
    warnings_about,
)
from aquipu.cli.bench.table import bar_of, text_of
from aquipu.cli.commands.service import bench
from aquipu.cli.forms.shown import plain
from tests.cli.support import COMMAND, ENVIRONMENT, run, terminal, well

SMALL = planned(quick=True)._replace(sync_seconds=0.0, run_seconds=0.02, run_bytes=1 << 20)
"""Long enough to go through all of it once."""


def ran(policy: str, callers: int, rate: float, p50: float = 0.0003, **more: Any) -> Run:
    fields: dict[str, Any] = {"records": 100, "seconds": 1.0, "p90": p50, "p99": 3 * p50}
    fields |= {"slowest": 1.0, "risk": 0, "risk_seen": 0}
    return Run(policy, callers, appends_per_second=rate, p50=p50, **(fields | more))


RUNS = (
    ran("Always()", 1, 3_000),
    ran("Always()", 64, 100_000, 0.0006),
    ran("EveryN(64)", 1, 9_000, 0.0001),
    ran("EveryN(64)", 64, 180_000, 0.0004),
    ran("OsManaged()", 64, 400_000, 0.0002),
)


def results(**more: Any) -> Results:
    fields: dict[str, Any] = {"directory": "/srv", "file_system": "ext4", "record_bytes": 256}
    fields |= {"sync": SyncCost(10, 0.0003, 0.001), "runs": RUNS, "warnings": (), "advice": None}
    return Results(**(fields | more))


def names_in(path: str | Path) -> list[str]:
    return os.listdir(path)


# pure parts


@pytest.mark.parametrize("quick", [True, False])
def test_how_long_it_takes(quick: bool) -> None:
    """20 seconds, or less than three minutes, with room for what lies between the runs."""
    plan = planned(quick=quick)
    seconds = plan.sync_seconds + len(plan.runs) * plan.run_seconds
    assert seconds <= (17 if quick else 150)
    assert len(plan.runs) == len(POLICIES) * len(CALLERS) == 12


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values(values: list[float], share: float) -> None:
    """At least so many of the others lie at or below it."""
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_percentiles_of_nothing() -> None:
    """A run in which nothing was done is 0 throughout."""
    assert sync_cost([]) == SyncCost(0, 0.0, 0.0)
    assert run_of("Always()", 1, 0, 0.0, [], 0, 0).appends_per_second == 0


@pytest.mark.parametrize(
    ("rate", "chosen", "words"),
    [
        (50, "Always", "At 50/s `Always` adds 0.30 ms to each (99 of 100: at most 0.90 ms)"),
        (20_000, "Always", "adds 0.60 ms"),
        (80_000, "EveryN(64)", "at most 63 records, none older than 1 s"),
        (150_000, "OsManaged", "what the kernel has not yet written"),
        (300_000, None, "more than half of what this machine can do, 400,000/s"),
    ],
)
def test_the_safest_policy_that_keeps_up_is_advised(
    rate: float, chosen: str | None, words: str
) -> None:
    """With what it costs each request, and what a power cut can take."""
    advice = advice_for(rate, RUNS)
    assert words in advice
    assert (f"`{chosen}`" in advice and advice.endswith("choose it")) == (chosen is not None)


def test_what_is_not_plausible_is_said() -> None:
    """A sync that no disk can do, and a file system that does not keep."""
    assert warnings_about("ext4", SyncCost(100, 0.0003, 0.001)) == ()
    (fast,) = warnings_about("ext4", SyncCost(100, 0.000002, 0.001))
    assert "2 us, which no disk can do" in fast
    assert "memory" in warnings_about("tmpfs", SyncCost(100, 0.0003, 0.001))[0]
    assert "container" in warnings_about("overlay", SyncCost(100, 0.0003, 0.001))[0]


def test_the_table_fits_a_terminal() -> None:
    """80 columns, with a bar a row of which the longest is the fastest run; data stays data."""
    found = results(directory="/srv/\x1b[31m", warnings=("word " * 40,), advice="word " * 40)
    text = text_of(found, plain)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    (longest,) = [line for line in text.splitlines() if line.endswith(bar_of(1.0))]
    assert longest.startswith("OsManaged()")


def test_bars_and_short_numbers() -> None:
    """Whatever was measured has a bar, and a label that fits above it."""
    assert bar_of(0.0) == "▏"
    assert len(bar_of(1.0)) == len(bar_of(2.0)) == 18
    assert [short(value) for value in (0.214, 6.44, 0, 920, 9_940, 42_100)] == [
        *("0.21", "6.4", "0", "920", "9.9k", "42k")
    ]


def test_a_picture() -> None:
    """A PNG that can be read, of whatever was measured."""
    image: Any = __import__("matplotlib.image").image
    for found in (results(), results(runs=())):
        data = picture_of(found)
        height, width, _ = image.imread(BytesIO(data)).shape
        assert width > height > 400


# the measuring


@pytest.mark.asyncio
async def test_every_policy_is_measured_with_every_number_of_callers(tmp_path: Path) -> None:
    """What each may lose is as its policy says; nothing is left behind."""
    said: list[str] = []
    with workplace(str(tmp_path), SMALL, Disk()) as place:
        cost, runs = await measured(place, SMALL, Disk(), said.append)
        assert names_in(place) == []
    assert cost.count >= 20
    assert 0 < cost.median <= cost.p99
    assert [(one.policy, one.callers) for one in runs] == [
        (name, callers) for name, _ in POLICIES for callers in CALLERS
    ]
    assert all(one.records > 0 and 0 < one.p50 <= one.p99 <= one.slowest for one in runs)
    assert {one.policy: one.risk for one in runs} == {
        "Always()": 0,
        "EveryN(64)": 63,
        "OsManaged()": None,
    }
    assert all(one.risk_seen <= (one.risk or 0) for one in runs if one.risk is not None)
    assert len(said) == 1 + len(runs)
    assert names_in(tmp_path) == []


@pytest.mark.asyncio
async def test_a_run_writes_no_more_than_it_may(tmp_path: Path) -> None:
    """However fast the disk is: it ends early."""
    plan = SMALL._replace(run_seconds=60.0, run_bytes=3200, runs=SMALL.runs[-1:])
    with workplace(str(tmp_path), plan, Disk()) as place:
        _, (only,) = await measured(place, plan, Disk(), lambda text: None)
    assert 10 <= only.records <= 10 + 8 * 256


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is written."""
    monkeypatch.setattr(Disk, "free", lambda disk, path: 1000)
    done = run("bench", tmp_path, "--quick")
    assert done.returncode == 4
    assert b"1,000 bytes are free, and measuring needs " in done.stderr
    assert list(tmp_path.iterdir()) == []


# the command


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(bench, "planned", lambda quick: SMALL)
    return SMALL


@pytest.mark.usefixtures("small")
def test_in_words_as_json_and_as_a_picture(tmp_path: Path) -> None:
    """All three of one measurement; the documented fields; nothing is left in the directory."""
    (tmp_path / "disk").mkdir()
    picture = tmp_path / "plot.png"
    answer = json.loads(
        well("bench", tmp_path / "disk", "--json", "--rate", "1", "--plot", picture)
    )
    assert list(answer) == list(asdict(results()))
    assert len(answer["runs"]) == 12
    assert answer["advice"].startswith("At 1/s `Always` adds ")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list((tmp_path / "disk").iterdir()) == []
    words = well("bench", tmp_path / "disk").decode()
    assert "one fdatasync" in words
    assert "--rate N says which policy fits" in words
    text = well("bench", "--help").decode()
    assert all(f"\n    {name} " in text for name in answer)


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--rate", "nan"], ["nowhere"]])
def test_what_cannot_be_measured(tmp_path: Path, arguments: list[str]) -> None:
    """It is a usage error, and nothing is written."""
    if arguments == ["nowhere"]:
        arguments = [str(tmp_path / "nowhere")]
    assert run("bench", *arguments).returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_no_package_that_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is measured, with the extra that has it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("bench", tmp_path, "--plot", tmp_path / "plot.png")
    assert done.returncode == 2
    assert b"'.[bench]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
def test_it_cleans_up_when_it_is_stopped(tmp_path: Path, number: int) -> None:
    """Whatever it is doing at that moment."""
    with terminal() as (screen, near):
        process = subprocess.Popen(
            [*COMMAND, "bench", str(tmp_path)],
            stdout=subprocess.DEVNULL,
            stderr=near,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        os.close(near)
        try:
            screen.wait_for(b"single syncs")
            assert [path.name.startswith(PREFIX) for path in tmp_path.iterdir()] == [True]
            process.send_signal(number)
            assert process.wait(60) == 128 + number
        finally:
            process.kill()
            process.wait()
    assert list(tmp_path.iterdir()) == []


def test_it_cleans_up_after_a_run_that_is_cancelled(tmp_path: Path) -> None:
    """Also in the midst of appends: the store is closed and removed."""
    plan = SMALL._replace(run_seconds=600.0, run_bytes=1 << 40)

    async def measure() -> None:
        with workplace(str(tmp_path), plan._replace(run_bytes=0), Disk()) as place:
            begun = asyncio.Event()
            task = asyncio.create_task(
                measured(place, plan, Disk(), lambda text: begun.set() if "1 of" in text else None)
            )
            await begun.wait()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(measure())
    assert list(tmp_path.iterdir()) == []
