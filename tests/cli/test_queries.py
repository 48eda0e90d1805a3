"""queries and changes: cat, find, tail, relations, purge, hold and index, on real log lines."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from functools import partial
from pathlib import Path
from signal import SIGINT
from subprocess import CompletedProcess
from unittest.mock import AsyncMock

import pytest

from aquipu import RecordPurgedError, Store
from aquipu.cli.commands.upkeep import keep
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.lock import Lock
from tests.cli.support import COMMAND, LINES, SAMPLE, run, spawn, well
from tests.support import flip, segments_in

# what is read, and how


def lines(*numbers: int) -> bytes:
    return b"".join(LINES[number] for number in numbers)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        (["--start", "37"], [37, 38, 39]),
        (["--stop", "2"], [0, 1]),
        (["--start", "5", "--stop", "7"], [5, 6]),
        (["--start", "5", "--stop", "5"], []),
        (["--start", "38", "--reverse"], [39, 38]),
        (["--relation", "tens"], [0, 10, 20, 30]),
        (["--relation", "tens", "--relation", "third:0"], [0, 30]),
        (
            ["--relation", "tens", "--relation", "third:0", "--any", "--stop", "11"],
            [0, 3, 6, 9, 10],
        ),
        (["--relation", "tens", "--start", "1", "--reverse"], [30, 20, 10]),
        (["--relation", "nobody"], []),
        (["--since", "2001-01-01T00:00:00Z", "--stop", "1"], [0]),
        (["--until", "2001-01-01T00:00:00+02:00"], []),
    ],
)
def test_cat_gives_what_its_options_ask_for(
    labelled: Path, options: list[str], numbers: list[int]
) -> None:
    """All options together must hold; the records come in their order, or the newest first."""
    assert well("cat", "--raw", labelled, *options) == lines(*numbers)


def test_cat_between_two_times(labelled: Path) -> None:
    """Times are those of the records, since is part of it and until is not."""
    times = [json.loads(line)["time"] for line in well("cat", labelled, "--json").splitlines()]
    assert times == sorted(times)
    found = well(
        "cat", labelled, "--since", f"{times[10][:26]}Z", "--until", f"{times[20][:26]}Z", "--json"
    )
    sequences = [json.loads(line)["sequence"] for line in found.splitlines()]
    first = next(number for number, time in enumerate(times) if time[:26] >= times[10][:26])
    stop = next(number for number, time in enumerate(times) if time[:26] >= times[20][:26])
    assert sequences == list(range(first, stop))


def test_cat_as_json(labelled: Path) -> None:
    """Each record is a line with the documented fields."""
    (line,) = well("cat", labelled, "--json", "--start", "30", "--stop", "31").splitlines()
    record = json.loads(line)
    assert list(record) == ["sequence", "time", "encoding", "data", "relations"]
    assert (record["sequence"], record["encoding"]) == (30, "utf-8")
    assert record["data"].encode() == LINES[30]
    assert record["relations"] == ["third:0", "tens"]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--start", "5", "--stop", "3"], "not after its stop"),
        (["--start", "-1"], "from 0 on"),
        (["--since", "99999999w"], "longer ago"),
        (["--until", "noon"], "is no time"),
        (
            ["--since", "2026-01-31T12:00:00Z", "--until", "2026-01-31T11:00:00Z"],
            "not after its until",
        ),
        (["--relation", ""], "not empty"),
    ],
)
def test_cat_refuses_what_cannot_be(labelled: Path, options: list[str], hint: str) -> None:
    """It is a usage error that says what is wrong, and nothing is written."""
    done = run("cat", "--raw", labelled, *options)
    assert (done.returncode, done.stdout) == (2, b"")
    assert hint in " ".join(done.stderr.decode().split())


def test_find(labelled: Path) -> None:
    """Records are found by all of the labels, or by any."""
    assert well("find", "--raw", labelled, "tens", "third:1") == lines(10)
    assert well("find", "--raw", labelled, "tens", "nobody", "--any", "--reverse") == lines(
        30, 20, 10, 0
    )
    assert well("find", "--raw", labelled, "nobody") == b""
    assert json.loads(well("find", labelled, "tens", "third:1", "--json"))["sequence"] == 10


def test_relations(labelled: Path) -> None:
    """Labels are listed in order with their numbers; with --json as one object."""
    assert well("relations", labelled) == b"4\ttens\n14\tthird:0\n13\tthird:1\n13\tthird:2\n"
    assert json.loads(well("relations", labelled, "--prefix", "third:", "--json")) == {
        "third:0": 14,
        "third:1": 13,
        "third:2": 13,
    }
    assert well("relations", labelled, "--prefix", "x") == b""


def test_tail(labelled: Path) -> None:
    """The last ten records, or as many as asked for."""
    assert well("tail", "--raw", labelled) == lines(*range(30, 40))
    assert well("tail", "--raw", labelled, "-n", "2") == lines(38, 39)
    assert well("tail", "--raw", labelled, "-n", "0") == b""
    assert well("tail", "--raw", labelled, "-n", "1000") == SAMPLE


def test_lines_get_the_labels_that_append_is_given(tmp_path: Path) -> None:
    """--relation may be repeated, and holds for every line, also the last one without an end."""
    well(
        "append",
        "--raw",
        tmp_path / "store",
        "--relation",
        "host:a",
        "--relation",
        "app b",
        input=b"one\ntwo",
    )
    assert well("find", "--raw", tmp_path / "store", "app b", "host:a") == b"one\ntwo"
    assert json.loads(well("relations", tmp_path / "store", "--json")) == {"app b": 2, "host:a": 2}


@pytest.mark.parametrize(
    "arguments",
    [
        ["cat"],
        ["tail"],
        ["find", "label"],
        ["relations"],
        ["export", "--format", "csv"],
        ["hold", "name"],
        ["hold"],
    ],
    ids=" ".join,
)
def test_commands_that_work_while_a_service_writes(tmp_path: Path, arguments: list[str]) -> None:
    """They need no lock, and see what was acknowledged."""
    command, *options = arguments

    async def work() -> CompletedProcess[bytes]:
        async with Store.open(tmp_path / "store") as store:
            await store.append(b"one\n", relations=("label",))
            return await asyncio.to_thread(spawn, command, tmp_path / "store", *options)

    done = asyncio.run(work())
    assert done.returncode == 0, done.stderr
    assert (done.stdout != b"") == (command != "hold")


@pytest.mark.parametrize(
    "arguments",
    [["purge", "--before", "0", "--lock-timeout", "0"], ["index"], ["repair"]],
    ids=" ".join,
)
def test_commands_that_need_the_store_to_themselves(store: Path, arguments: list[str]) -> None:
    """While another process uses it, exit code 3 says who does."""
    command, *options = arguments
    lock = Lock.take(Disk(), str(store))
    assert lock is not None
    done = spawn(command, store, *options)
    lock.release()
    assert (done.returncode, done.stdout) == (3, b"")
    assert f"is in use by process {os.getpid()};" in done.stderr.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["follow", "--start", "0", "--raw"],
        ["tail", "-f", "-n", "1", "--raw"],
        ["follow", "--start", "0", "--json"],
    ],
    ids=" ".join,
)
def test_following(tmp_path: Path, arguments: list[str]) -> None:
    """What is there comes first, and then each record when it is acknowledged, until Ctrl-C."""
    command, *options = arguments

    def told(line: bytes) -> bytes:
        return json.loads(line)["data"].encode() if "--json" in options else line

    async def work() -> None:
        async with Store.open(tmp_path / "store") as store:
            await store.append(b"one\n")
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                command,
                tmp_path / "store",
                *options,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdout is not None
            assert process.stderr is not None
            assert told(await process.stdout.readline()) == b"one\n"
            for line in LINES[:3]:
                await store.append(line)
                assert told(await process.stdout.readline()) == line
            process.send_signal(SIGINT)
            assert await process.wait() in (-SIGINT, 130)
            assert await process.stderr.read() == b""

    asyncio.run(work())


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["tail"],
            ["follow"],
            ["find", "label"],
            ["relations"],
            ["export", "--format", "ndjson"],
            ["hold"],
        ),
        *(["hold", "name"], ["index"], ["purge", "--before", "1"], ["repair"]),
    ],
    ids=" ".join,
)
def test_no_store_is_made_where_there_is_none(tmp_path: Path, arguments: list[str]) -> None:
    """Nothing but append makes one, and nothing is written into an empty directory."""
    command, *options = arguments
    for path in (tmp_path / "nowhere", tmp_path):
        done = run(command, path, *options)
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"is no store" in done.stderr
    assert list(tmp_path.iterdir()) == []


# purge, hold, index


def test_a_purge(segments: Path) -> None:
    """Whole segments before the bound go; a dry run says the same and does nothing."""
    second = int(segments_in(segments)[1].stem)
    before = {file.name: file.read_bytes() for file in segments_in(segments)}
    dry = json.loads(well("purge", segments, "--before", str(second + 1), "--dry-run", "--json"))
    assert {file.name: file.read_bytes() for file in segments_in(segments)}.keys() == before.keys()
    purged = json.loads(well("purge", segments, "--before", str(second + 1), "--json"))
    assert purged == {**dry, "dry_run": False}
    assert purged == {
        "first_sequence_before": 0,
        "first_sequence": second,
        "segments": 1,
        "records": second,
        "bytes": len(before[f"{0:020d}.segment"]),
        "held_by": None,
        "held_from": None,
        "dry_run": False,
    }
    assert well("cat", "--raw", segments) == b"".join(LINES[second:])
    done = run("cat", "--raw", segments, "--start", "0")
    assert done.returncode == 2
    assert b"no longer keeps sequence 0" in done.stderr


def test_a_purge_by_time_in_words(segments: Path) -> None:
    """A time is told from a sequence; the segment that is being written stays."""
    words = well("purge", segments, "--before", "2999-01-01T00:00:00Z", "--dry-run").decode()
    last = int(segments_in(segments)[-1].stem)
    assert f"would go; the log would begin with sequence {last}\n" in words
    assert run("purge", segments, "--before", "2001-01-01T00:00Z").stdout.startswith(
        b"0 segments, 0 records, 0 bytes purged"
    )


def test_a_hold(segments: Path) -> None:
    """What is held is not purged, until the hold is released."""
    second, third = (int(file.stem) for file in segments_in(segments)[1:3])
    assert (
        run("hold", segments, "backup", str(second)).stderr
        == f"backup keeps everything from sequence {second} on\n".encode()
    )
    assert well("hold", segments) == f"{second}\tbackup\n".encode()
    assert json.loads(well("hold", segments, "--json")) == {"backup": second}
    said = well("purge", segments, "--before", str(third)).decode()
    assert said.endswith(
        f"the log begins with sequence {second}; the hold backup keeps everything from sequence "
        f"{second} on\n"
    )
    again = json.loads(well("purge", segments, "--before", str(third), "--json"))
    assert (again["held_by"], again["held_from"]) == ("backup", second)
    assert json.loads(well("info", segments, "--json"))["first_sequence"] == second
    assert json.loads(well("hold", segments, "backup", "--release", "--json")) == {}
    well("purge", segments, "--before", str(third))
    assert json.loads(well("info", segments, "--json"))["first_sequence"] == third


def test_a_hold_of_all_there_is(segments: Path) -> None:
    """Without a sequence, everything is kept that is kept now."""
    well("hold", segments, "backup")
    assert json.loads(well("hold", segments, "--json")) == {"backup": 0}


def test_a_purge_that_is_quicker_than_a_hold(
    segments: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All there is means what is left by then; a record that was named is said to be gone."""
    second, third = (int(file.stem) for file in segments_in(segments)[1:3])
    well("purge", segments, "--before", str(second))
    outdated = AsyncMock(return_value=(0, len(LINES)))
    monkeypatch.setattr(keep, "bounds", outdated)
    assert keep._hold_in_files(str(segments), "files", None, False) == {"files": second}
    with pytest.raises(RecordPurgedError):
        keep._hold_in_files(str(segments), "late", 0, False)

    async def beside_a_purge() -> None:
        async with Store.open(segments) as store:
            await store.release("files")
            await store.purge(before=third)
            assert await keep._hold(partial(store.hold, "asked"), None, second) == third
            with pytest.raises(RecordPurgedError):
                await keep._hold(partial(store.hold, "late"), second, second)
            assert await store.holds() == {"asked": third}

    asyncio.run(beside_a_purge())


def test_holds_that_cannot_be(segments: Path) -> None:
    """A sequence that is not yet, or no longer, there, and a hold that nobody has set, are usage
    errors.
    """
    assert run("hold", segments, "late", "41").returncode == 2
    second = segments_in(segments)[1].stem
    well("purge", segments, "--before", str(int(second)))
    assert run("hold", segments, "early", "0").returncode == 2
    done = run("hold", segments, "nobody", "--release")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"has no hold of the name nobody" in done.stderr
    assert well("hold", segments) == b""


def test_index(labelled: Path) -> None:
    """Missing and damaged indexes are built; sound ones only with --rebuild; finding gives the same
    in any case.
    """
    sealed = len(segments_in(labelled)) - 1
    for file in labelled.glob("*.relations"):
        file.unlink()
    assert f"indexes built: {sealed}\n".encode() in run("index", labelled).stderr
    assert run("index", labelled).stderr.endswith(b"indexes built: 0\n")
    flip(sorted(labelled.glob("*.relations"))[1], 20)
    assert well("find", "--raw", labelled, "tens") == lines(0, 10, 20, 30)
    done = run("verify", labelled, "--json")
    assert done.returncode == 1
    (damage,) = json.loads(done.stdout)["damages"]
    assert damage["path"] == str(sorted(labelled.glob("*.relations"))[1])
    assert run("index", labelled).stderr.endswith(b"indexes built: 1\n")
    assert run("verify", labelled).returncode == 0
    assert f"indexes built: {sealed}\n".encode() in run("index", labelled, "--rebuild").stderr
