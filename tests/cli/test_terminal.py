"""What people see on a terminal, and what goes into a pipe in its place."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from aquipu import Record
from aquipu.cli.forms.shown import CHARACTERS_MAX, coloured, escaped, line, local_time, page, plain
from tests.cli.support import COMMAND, ENVIRONMENT, run, terminal, well
from tests.support import data_in

HOSTILE = [
    b"\x1b[2J\x1b]0;title\x07",
    "\u202eright to left\u2066, isolated\u2069".encode(),
    b"\xff\xfe no UTF-8 \xc3",
    b"two\nlines\rand a return",
    "\x9b31m a control of one character".encode(),
    "\u2028\u200b\ufeff\U000e0041".encode(),
]
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
SGR = re.compile(r"\x1b\[\d*m")


def on_a_terminal(*arguments: str | Path, **environment: str) -> str:
    """Run the command on a terminal of 80 columns, and return what it has written there."""
    with terminal() as (screen, near):
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=near,
            stderr=near,
            env=ENVIRONMENT | {"COLUMNS": "80", **environment},
        )
        os.close(near)
        text = screen.wait_for_end()
        assert process.wait() == 0, text
    return text


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A store of three lines, the first two with labels."""
    path = tmp_path / "log"
    well("append", path, "--relation", "user:7", "--relation", "a b", input=b"one\ntwo\n")
    well("append", path, input=b"three")
    return path


# a line a record


@pytest.mark.parametrize("command", [["cat"], ["tail"], ["follow", "--start", "0", "--limit", "3"]])
def test_a_line_a_record(log: Path, command: list[str]) -> None:
    """Time, sequence, labels and data, in colour."""
    name, *options = command
    text = on_a_terminal(name, log, *options)
    assert "\x1b[36muser:7\x1b[0m" in text
    rows = SGR.sub("", text).split("\r\n")
    assert re.fullmatch(rf"{TIME}  0  user:7 a b  one", rows[0])
    assert re.fullmatch(rf"{TIME}  2  three", rows[2])
    assert rows[3:] == [""]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_colours(log: Path, environment: dict[str, str]) -> None:
    """Who wants none, and a terminal that has none, gets none."""
    text = on_a_terminal("find", log, "user:7", **environment)
    assert "\x1b" not in text
    assert text.count("user:7 a b  ") == 2


def test_one_record(log: Path) -> None:
    """All of it is shown, and JSON folded out."""
    well("append", log, input=b'{"order": {"id": 7}}')
    text = on_a_terminal("get", log, "3", NO_COLOR="1")
    assert '"order": {\r\n    "id": 7\r\n' in text
    assert re.search(r"sequence  3\r\ntime      .{29} [+-]\d{4}\r\n", text)
    assert well("get", log, "3") == b'{"order": {"id": 7}}\n'
    assert json.loads(well("get", log, "0", "--json"))["relations"] == ["user:7", "a b"]
    assert run("get", log, "4").returncode == 2
    assert run("get", log, "--", "-1").returncode == 2


# hostile data


@pytest.mark.parametrize("paint", [plain, coloured])
@pytest.mark.parametrize("data", HOSTILE, ids=repr)
def test_no_record_disturbs_the_terminal(data: bytes, paint: object) -> None:
    """Nothing of the data or the labels reaches it but printable characters, in one line."""
    record = Record(7, 1, data, ("label\u202e",))
    for shown in (line(record, 1, coloured if paint is coloured else plain), page(record, plain)):
        visible = SGR.sub("", shown)
        assert all(one.isprintable() for one in visible.replace("\n", ""))
    assert "\n" not in line(record, 1, plain)
    assert "\\u202e" in line(record, 1, plain)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Grüße 漢字 😀", "plain Grüße 漢字 😀"),
        ("\t\n\r\0\x1b\x7f\x85", "\\t\\n\\r\\x00\\x1b\\x7f\\u0085"),
        ("\u202e\U000e0041\udcff", "\\u202e\\U000e0041\\xff"),
    ],
)
def test_what_is_escaped(text: str, shown: str) -> None:
    """Letters of any script stay; what no eye sees is written out."""
    assert escaped(text) == shown


def test_long_data_is_cut() -> None:
    """A line says how many bytes there are; a last line end does not count as data."""
    cut = line(Record(0, 0, b"x" * 5_000_000, ()), 1, plain)
    assert len(cut) < CHARACTERS_MAX + 60
    assert cut.endswith("x… (5,000,000 bytes)")
    assert line(Record(0, 0, b"x" * CHARACTERS_MAX + b"\n", ()), 1, plain).endswith("x")


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}", b"{"])
def test_json_that_cannot_be_folded_out(data: bytes) -> None:
    """It is shown as it is."""
    assert page(Record(0, 0, data, ()), plain).endswith(data.decode())


def test_the_time_is_that_of_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the clock on the wall says, to the millisecond; all of it with the zone."""
    shown = local_time(1_234_567_890_123_456_789)
    assert re.fullmatch(TIME, shown)
    assert re.fullmatch(
        r"2009-02-1[34] \d\d:\d1:30\.123456789 [+-]\d{4}",
        local_time(1_234_567_890_123_456_789, "nanoseconds"),
    )


# pipes


def test_into_a_pipe(log: Path) -> None:
    """Each record, and a line end; a NUL with -0; nothing with --raw."""
    assert well("cat", log) == b"one\ntwo\nthree\n"
    assert well("cat", log, "-0") == b"one\0two\0three\0"
    assert well("cat", log, "--raw") == b"onetwothree"
    assert well("tail", log, "-n", "1") == b"three\n"
    assert well("follow", log, "--start", "1", "--limit", "1") == b"two\n"


def test_append_takes_the_line_end_off(tmp_path: Path) -> None:
    """Only the line feed; with --raw it stays, and with -0 it is data."""
    path = tmp_path / "store"
    well("append", path, input=b"one\r\n\ntwo")
    well("append", path, "--raw", input=b"one\ntwo")
    well("append", path, "-0", input=b"one\ntwo\0three")
    assert data_in(path) == [b"one\r", b"", b"two", b"one\n", b"two", b"one\ntwo", b"three"]


def test_what_comes_out_goes_in_again(tmp_path: Path) -> None:
    """Records with line ends in them are the same in the next store, with -0 on both sides."""
    records = b"one\nline\0two\n\0\0"
    well("append", tmp_path / "one", "-0", input=records)
    well("append", tmp_path / "two", "-0", input=well("cat", tmp_path / "one", "-0"))
    assert data_in(tmp_path / "two") == data_in(tmp_path / "one") == [b"one\nline", b"two\n", b""]


# which records


def test_no_more_than_a_limit(labelled: Path) -> None:
    """Of the records that are asked for, the first so many; of all commands that read."""
    numbers = {
        ("cat", "--limit", "2"): [0, 1],
        ("cat", "--limit", "0"): [],
        ("cat", "--reverse", "--limit", "1"): [39],
        ("find", "tens", "--limit", "3", "--start", "1"): [10, 20, 30],
        ("tail", "-n", "2", "--relation", "tens"): [20, 30],
        ("tail", "-n", "9", "--relation", "tens"): [0, 10, 20, 30],
        ("tail", "-n", "0", "--relation", "tens"): [],
        ("follow", "--start", "5", "--relation", "tens", "--limit", "2"): [10, 20],
        ("follow", "--start", "5", "--relation", "tens", "--relation", "third:0", "--any",
         "--limit", "3"): [6, 9, 10],
        ("follow", "--since", "1h", "--limit", "1"): [0],
        ("find", "tens", "--since", "0s"): [],
        ("find", "tens", "--until", "1h"): [],
        ("export", "--format", "ndjson", "--limit", "1"): [0],
    }  # fmt: skip
    for (name, *options), expected in numbers.items():
        form = [] if name == "export" else ["--json"]
        found = well(name, labelled, *options, *form).splitlines()
        assert [json.loads(one)["sequence"] for one in found] == expected, (name, options)


def test_a_beginning_that_does_not_count(log: Path) -> None:
    """Where a cursor was saved goes before --start, and that is said."""
    well("follow", log, "--cursor", "billing", "--limit", "2")
    done = run("follow", log, "--cursor", "billing", "--start", "0", "--limit", "1")
    assert done.stdout == b"three\n"
    assert done.stderr == b"aquipu: the cursor billing goes on at 2; --start is for a new one\n"


# lists


def test_lists_have_headings(log: Path) -> None:
    """On a terminal columns stand below each other, with a heading; a pipe gets neither."""
    well("follow", log, "--cursor", "mail", "--limit", "1")
    well("hold", log, "audit", "2")
    for command, heading, row in (
        ("relations", "RECORDS  LABEL", "      2  user:7"),
        ("cursors", "BEHIND  SECONDS  SEQUENCE  CURSOR", r"     2 +\d+\.\d{3}         1  mail"),
        ("hold", "KEPT FROM  HOLD", "        2  audit"),
    ):
        rows = on_a_terminal(command, log, NO_COLOR="1").split("\r\n")
        assert re.sub(" +", " ", rows[0]) == re.sub(" +", " ", heading)
        assert any(re.fullmatch(row, one) for one in rows), rows
        assert "\t" in well(command, log).decode()
