"""top: samples of a store become a view, a view becomes lines, and the terminal is given back."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aquipu import Reader, Stage, Store
from aquipu.cli.top.drawing import Frame, Part, rows, sparkline
from aquipu.cli.top.samples import Behind, Sample, WriterSeen
from aquipu.cli.top.screen import drawn
from aquipu.cli.top.sources import DirectorySource, ReaderSource, Source, source_of
from aquipu.cli.top.view import COLUMNS, WINDOW, History, View, quantile
from aquipu.local.disk.disk import Disk
from aquipu.remote.daemon import answers
from aquipu.remote.daemon.server import Daemon
from aquipu.remote.upkeep import statistics_in
from aquipu.runtime.counting import durations
from aquipu.statistics import Statistics
from tests.cli.served import serving
from tests.cli.support import COMMAND, ENVIRONMENT, Terminal, run, terminal, well
from tests.support import snapshot

SECOND = 1_000_000_000


def counted(records: int = 0, commits: int = 0, append: Any = None, **more: Any) -> Statistics:
    """Statistics of which a test needs these."""
    empty = durations().snapshot()
    nothing: dict[str, Any] = dict.fromkeys(Statistics._fields, 0)
    return Statistics(
        **nothing
        | {"errors": {}, "cursor_records": {}, "cursor_seconds": {}, "commit_records": empty}
        | {"state": "open", "sync_seconds": empty, "append_seconds": append or empty}
        | {"archived_sequence": None, "unarchived_records": None, "archive_lag_seconds": None}
        | {"records": records, "commits": commits, **more}
    )


def view_of(*samples: Sample) -> View:
    history = History()
    for sample in samples:
        history.add(sample)
    return history.view()


def text_of(lines: list[tuple[Part, ...]]) -> str:
    return "\n".join("".join(part.text for part in row) for row in lines)


async def seen(source: Source, acknowledged: int) -> Sample:
    """The first sample that shows so much: readers hear of a commit just after its callers."""
    while (sample := await source.sample()).acknowledged < acknowledged:
        pass
    return sample


def stop(process: subprocess.Popen[Any]) -> None:
    """Stop a process, and wait until it is."""
    process.send_signal(SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


# samples become a view


def test_rates_are_differences_over_time() -> None:
    """Of what was acknowledged, and of records over commits; both of the last seconds."""
    early = Sample(100.0, acknowledged=1000, statistics=counted(1000, 10))
    late = Sample(104.0, acknowledged=3000, statistics=counted(3000, 60))
    view = view_of(early, late)
    assert view.appends.now == 500
    assert view.records_per_commit.now == 40
    assert view.appends.history[-1] == 500
    assert len(view.appends.history) == COLUMNS


def test_a_writer_that_was_started_anew() -> None:
    """Its counts begin again: that stretch says nothing, rather than something wrong."""
    early = Sample(100.0, acknowledged=1000, statistics=counted(1000, 10))
    late = Sample(101.0, acknowledged=900, statistics=counted(5, 1))
    view = view_of(early, late)
    assert (view.appends.now, view.records_per_commit.now) == (None, None)


def test_one_sample_has_no_rate() -> None:
    """Where it stands is known all the same."""
    view = view_of(Sample(5.0, first=3, acknowledged=8, synced=6))
    assert (view.appends.now, view.first, view.acknowledged, view.at_risk) == (None, 3, 8, 2)
    assert set(view.appends.history) == {None}


def test_what_leaves_the_window_is_forgotten() -> None:
    """However long it runs, the samples of the last minutes are all that it has."""
    history = History()
    for second in range(2000):
        history.add(Sample(float(second), acknowledged=second * 10))
    assert len(history._samples) <= WINDOW + 3
    view = history.view()
    assert view.appends.now == 10
    assert all(point == 10 for point in view.appends.history)


def test_the_age_of_what_a_consumer_has_not_passed() -> None:
    """From outside it is when the record was seen to be acknowledged; longer ago is not known."""
    samples = [Sample(float(at), acknowledged=at * 10) for at in range(10)]
    last = samples[-1]._replace(
        consumers={"near": Behind(15, None), "far": Behind(500, None), "up": Behind(0, None)}
    )
    found = view_of(*samples[:-1], last).consumers
    assert found == {"near": Behind(15, 1.0), "far": Behind(500, None), "up": Behind(0, 0.0)}


@given(st.lists(st.integers(0, 20 * SECOND), min_size=1, max_size=200), st.floats(0.01, 0.99))
def test_a_percentile_lies_in_the_bucket_of_its_value(values: list[int], share: float) -> None:
    """So it is right within a factor of two, from a tenth of a millisecond on."""
    tally = durations()
    for value in values:
        tally.add(value)
    found = tally.snapshot()
    estimate = quantile(found.bounds, found.counts, share)
    exact = sorted(values)[max(ceil(share * len(values)) - 1, 0)] / SECOND
    assert estimate is not None
    assert estimate <= max(2 * exact, found.bounds[0]) or exact > found.bounds[-1]
    assert estimate >= min(exact / 2, found.bounds[-1]) or exact <= found.bounds[0]


def test_a_percentile_of_nothing() -> None:
    """It is not known; nor is one of counts that went down."""
    assert quantile((1.0, 2.0), (0, 0, 0), 0.5) is None
    assert quantile((1.0, 2.0), (3, -1, 0), 0.5) is None


# a view becomes lines

FULL = Sample(
    10.0,
    first=0,
    acknowledged=1_234_567,
    synced=1_234_500,
    statistics=counted(100, 10, oldest_unsynced_seconds=0.4, buffered_records=12, waiting=1),
    writer=WriterSeen(4711, "running"),
    segments=12,
    disk_bytes=700_000_000,
    free_bytes=84_000_000_000,
    consumers={f"consumer-{number}": Behind(number, 1.5) for number in range(40)},
)


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 60), (20, 5), (1, 1)])
def test_lines_fit_the_terminal(width: int, height: int, measured: bool) -> None:
    """No line is longer and there are no more than the terminal takes."""
    last = FULL if measured else FULL._replace(statistics=None, synced=None)
    lines = rows("/srv/" + "long" * 40, view_of(last), Frame(width, height, clock="22:00:00"))
    assert len(lines) <= max(height, 1)
    assert all(sum(len(part.text) for part in row) <= width for row in lines)


def test_what_stands_on_the_screen() -> None:
    """Everything that the command promises, in 80 columns and 24 lines, without colour."""
    text = text_of(rows("/srv/audit", view_of(FULL), Frame(clock="22:00:00")))
    for words in (
        "/srv/audit",
        "written by process 4711",
        "appends/s",
        "append p99",
        "sync p99",
        "1,234,567",
        "1,234,500",
        "would take 67 records now, the oldest 400 ms old",
        "12 records, 0 B; 1 caller waits for room",
        "12 segments, 667.6 MiB; 78.2 GiB free",
        "39      1.5 s  consumer-39",
        "more",
        "q quits",
    ):
        assert words in text, text


def test_the_archive_is_a_stage_of_its_own() -> None:
    """Of a store that has one, how far it has come, and how far it is behind."""
    said = counted(100, 10, archived_sequence=90, unarchived_records=10, archive_lag_seconds=2.5)
    text = text_of(rows("/srv/audit", view_of(FULL._replace(statistics=said)), Frame()))
    assert "archived      90; 10 records not yet; 2.5 s behind" in text


def test_what_only_the_writer_knows_is_said() -> None:
    """From outside, nothing is made up."""
    view = view_of(FULL._replace(statistics=None, synced=None))
    text = text_of(rows("/srv/audit", view, Frame()))
    assert "the writer alone knows" in text
    assert "only the writer knows" in text
    assert "p99" not in text


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_in_a_store_reaches_the_terminal_as_more_than_text(name: str, reason: str) -> None:
    """Names of stores and cursors, and reasons: what is not printable is an escape."""
    sample = FULL._replace(
        consumers={f"\x1b[2J{name}": Behind(1, 1.0)}, health="degraded", reasons=(f"{reason}\x9b",)
    )
    lines = rows(f"{name}\u202e", view_of(sample), Frame())
    assert all(part.text.isprintable() for row in lines for part in row)
    assert drawn(lines).plain == text_of(lines)


def test_sparklines() -> None:
    """The largest is the highest block, what is not known a space; also without Unicode."""
    assert sparkline((None, 0, 1, 4, 7), 5) == " ▁▁▄▇"
    assert sparkline((None, 0, 1, 4, 7), 3) == "▁▄▇"
    assert sparkline((None, 0, 4, 7), 4, unicode=False).isascii()
    assert sparkline((), 10) == ""


def test_looks_that_are_far_apart_leave_no_gaps() -> None:
    """With a look every minute, each point says what lay between two of them."""
    samples = [Sample(60.0 * minute, acknowledged=6000 * minute) for minute in range(6)]
    assert set(view_of(*samples).appends.history) == {100.0}


# where samples come from


@pytest.mark.asyncio
async def test_a_directory_is_seen_from_outside(tmp_path: Path) -> None:
    """What its writer has published, its files and cursors; nothing is changed or locked."""
    path = tmp_path / "store"
    async with Store.open(path) as store:
        await store.append_many([b"one", b"two"])
        await store.cursor("mail").save(1)
        source = DirectorySource(str(path), Disk())
        await seen(source, 2)
        before = snapshot(path)
        sample = await source.sample()
        assert snapshot(path) == before
        assert (sample.first, sample.acknowledged, sample.synced) == (0, 2, None)
        assert sample.writer == WriterSeen(os.getpid(), "running")
        assert sample.segments == 1
        assert sample.consumers == {"mail": Behind(1, None)}
        assert sample.health == "ok"
        await store.append(b"three")
        assert (await seen(source, 3)).health == "ok"
    ended = await source.sample()
    assert (ended.health, ended.reasons, ended.acknowledged) == (
        "at rest",
        ("its writer has just ended",),
        3,
    )
    async with Store.open(path) as store:
        await store.append(b"four")
        assert (await seen(source, 4)).health == "ok"


@pytest.mark.asyncio
async def test_a_daemon_is_asked(tmp_path: Path) -> None:
    """It gives the statistics of its store: what all its clients have appended."""
    async with Store.open(tmp_path / "store") as store:
        await store.append(b"its own")
        async with (
            Daemon.open(store, tmp_path / "socket"),
            Store.connect(f"unix:{tmp_path}/socket") as client,
        ):
            await client.append_many([b"one", b"two"])
            async with source_of(f"unix:{tmp_path}/socket") as source:
                sample = await source.sample()
            assert sample.statistics is not None
            assert sample.statistics.records == 3
            assert (sample.acknowledged, sample.segments, sample.health) == (3, 1, "ok")
            ours = await client.daemon_statistics()
            assert ours.append_seconds == store.statistics().append_seconds
            assert ours.errors == store.statistics().errors


@pytest.mark.asyncio
async def test_of_a_shared_store_the_one_that_writes_is_asked(tmp_path: Path) -> None:
    """By the directory alone: it has the socket in it."""
    async with Store.open(tmp_path / "store", shared=True) as store:
        await store.append(b"one")
        async with source_of(str(tmp_path / "store")) as source:
            sample = await source.sample()
        assert sample.statistics is not None
        assert sample.writer == WriterSeen(os.getpid(), "running")


@pytest.mark.asyncio
async def test_a_daemon_of_an_earlier_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not know the question: then what it knows is shown, and it is not asked again."""
    monkeypatch.delitem(answers._CALLS, "statistics")
    async with Store.open(tmp_path / "store") as store:
        await store.append(b"one")
        async with Daemon.open(store, tmp_path / "socket"):
            async with source_of(f"unix:{tmp_path}/socket") as source:
                for _ in range(2):
                    sample = await source.sample()
                    assert (sample.statistics, sample.acknowledged) == (None, 1)
                    assert sample.health == "ok"


def test_statistics_of_other_versions() -> None:
    """A field that is not there is empty, one that is not known is left out, the others are what
    they were; anything else is refused.
    """
    said = counted(7, 3, archive_lag_seconds=2.5, free_bytes=10, cursor_seconds={"mail": 1.5})
    plain = json.loads(json.dumps(said._asdict()))
    assert statistics_in(plain) == said
    del plain["syncs"], plain["sync_seconds"], plain["free_bytes"]
    older = statistics_in({**plain, "later": [1]})
    assert (older.syncs, older.sync_seconds.total, older.free_bytes) == (0, 0, None)
    wrong: list[Any] = [[], {"records": "many"}, {"errors": 7}, {"append_seconds": [1]}]
    for bad in wrong:
        with pytest.raises((AttributeError, TypeError, ValueError)):
            statistics_in(bad)


@pytest.mark.asyncio
async def test_a_daemon_that_has_gone(tmp_path: Path) -> None:
    """It is said, and what it said last stays on the screen."""
    async with Store.open(tmp_path / "store") as store:
        await store.append(b"one")
        daemon = await Daemon.open(store, tmp_path / "socket")
        async with source_of(f"unix:{tmp_path}/socket") as source:
            await source.sample()
            await daemon.aclose()
            sample = await source.sample()
    assert (sample.health, sample.acknowledged, len(sample.reasons)) == ("away", 1, 1)


@pytest.mark.asyncio
async def test_a_log_that_is_only_read(tmp_path: Path) -> None:
    """How far it reaches and how far consumers are behind, by the calls that every reader has."""
    async with Store.open(tmp_path / "store") as store:
        await store.append_many([b"one", b"two"])
        await store.cursor("mail").save(1)
        async with Reader.open(tmp_path / "store") as reader:
            source = ReaderSource(reader)
            await store.append(b"three")
            sample = await seen(source, 3)
            assert (sample.first, sample.acknowledged, sample.health) == (0, 3, "ok")
            assert sample.consumers["mail"].records == 2
        assert (await source.sample()).health == "away"  # it is closed: nothing can be read


WRITER = """
import asyncio, sys
from aquipu import Reader, Store

async def main():
    async with Store.open(sys.argv[1]) as store:
        await store.append(b"one")
        print("ready", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_a_writer_that_comes_and_goes_between_two_looks(tmp_path: Path) -> None:
    """What it has written is shown all the same: nobody writes, and the log is longer."""
    source = DirectorySource(str(tmp_path / "store"), Disk())
    for number in range(1, 4):
        async with Store.open(tmp_path / "store") as store:
            await store.append(b"one")
        sample = await source.sample()
        assert (sample.health, sample.acknowledged) == ("at rest", number)


@pytest.mark.asyncio
async def test_a_daemon_that_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not answer: that is shown, with how to let it go on; the look does not wait long."""
    monkeypatch.setattr("aquipu.cli.top.sources._ANSWER_SECONDS", 0.5)
    with serving(tmp_path) as process:
        async with source_of(f"unix:{tmp_path}/socket") as source:
            assert (await source.sample()).writer == WriterSeen(process.pid, "running")
            stop(process)
            stopped = await source.sample()
            assert stopped.health == "stopped"
            assert f"kill -CONT {process.pid}" in stopped.reasons[0]
            process.send_signal(SIGCONT)
            while (await source.sample()).health != "ok":
                pass


def test_a_writer_that_is_stopped_and_one_that_is_killed(tmp_path: Path) -> None:
    """Each is shown as what it is; a look at it never waits."""
    source = DirectorySource(str(tmp_path / "store"), Disk())

    def look() -> Sample:
        return asyncio.run(source.sample())

    command = [COMMAND[0], "-c", WRITER, str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert look().health == "ok"
            stop(process)
            stopped = look()
            assert stopped.health == "stopped"
            assert f"kill -CONT {process.pid}" in stopped.reasons[0]
            assert stopped.acknowledged == 1
            process.send_signal(SIGCONT)
        finally:
            process.send_signal(SIGKILL)
            process.wait()
    gone = look()
    assert (gone.health, gone.writer, gone.acknowledged) == ("at rest", None, 1)


# the command


def test_json_once(store: Path) -> None:
    """One object, with what is documented."""
    answer = json.loads(well("top", store, "--json", "--interval", "0.1"))
    assert (answer["health"], answer["acknowledged"], answer["measured"]) == ("at rest", 40, False)
    text = well("top", "--help").decode()
    assert all(name in text for name in answer)


def test_no_terminal(store: Path, tmp_path: Path) -> None:
    """A live view in a file helps nobody; no store is a usage error, as everywhere."""
    done = run("top", store)
    assert done.returncode == 2
    assert b"--json is for programs" in done.stderr
    assert run("top", tmp_path / "nowhere", "--json").returncode == 2
    assert run("top", f"unix:{tmp_path}/nowhere", "--json").returncode == 4
    assert run("top", store, "--interval", "0").returncode == 2


@contextmanager
def watching(
    store: Path | str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """The command on a terminal of its own, which also has its keys."""
    with terminal() as (screen, near):
        termios.tcsetwinsize(near, (24, 80))
        process = subprocess.Popen(
            [*COMMAND, "top", str(store), "--interval", "0.1"],
            stdin=near,
            stdout=near,
            env={**ENVIRONMENT, "COLUMNS": "80", "LINES": "24", **environment},
            start_new_session=True,
        )
        try:
            yield process, screen
        finally:
            process.kill()
            process.wait()
            os.close(near)


@pytest.mark.asyncio
@pytest.mark.parametrize("place", ["directory", "daemon"])
async def test_a_writer_does_not_notice_a_view_that_is_stopped(tmp_path: Path, place: str) -> None:
    """Stopped while it asks, or killed: appends, rolls, purges and the end go on."""
    path = tmp_path / "store"
    async with Store.open(path) as store, Daemon.open(store, tmp_path / "socket"):
        await store.append(b"one")
        asked = path if place == "directory" else f"unix:{tmp_path}/socket"
        with watching(asked) as (process, screen):
            await asyncio.to_thread(screen.wait_for, b"q quits")
            for number in (SIGSTOP, SIGKILL):
                process.send_signal(number)
                async with asyncio.timeout(60):
                    for _ in range(20):
                        await store.append_many([bytes(1000)] * 50, durability=Stage.SYNCED)
                    await store.roll()
                    await store.purge(before=store.next_sequence)
    assert store.first_sequence == store.next_sequence == 2001


@pytest.mark.parametrize("end", ["key", "interrupt"])
def test_the_terminal_is_given_back(store: Path, end: str) -> None:
    """After q and after Ctrl-C: its other screen is left, the cursor is shown, keys echo again."""
    with watching(store, NO_COLOR="1") as (process, screen):
        before = termios.tcgetattr(screen._descriptor)
        screen.wait_for(b"q quits")
        assert not termios.tcgetattr(screen._descriptor)[3] & termios.ECHO
        if end == "key":
            screen.type(b"q")
        else:
            process.send_signal(SIGINT)
        code = process.wait(60)
        assert code == (0 if end == "key" else 130)
        assert termios.tcgetattr(screen._descriptor) == before
        screen.wait_for(b"\x1b[?1049l")
        screen.wait_for(b"\x1b[?25h")
        assert b"\x1b[32m" not in screen.seen
