"""import: JSON lines with labels and times from their fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aquipu import sync
from aquipu.cli.forms.jsonl import LabelPlace, entry_of
from aquipu.cli.forms.jsontime import ExactFloat, nanoseconds_of
from tests.cli.support import run, well
from tests.support import data_in, records_in

EVENTS = [
    b'{"user": {"name": "ada"}, "tags": ["a", "b", "a"], "ok": true}',
    b'{"user": {"name": null}, "n": 1.50}\r',
    b"  ",
    b'{"user": "none", "tags": [1, false]}',
    b'["no object"]',
]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """A file of JSON lines, with an empty one among them."""
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"\n".join(EVENTS))
    return file


def test_lines_and_their_labels(events: Path, tmp_path: Path) -> None:
    """Each line is a record as it is, with a label for each value that is there."""
    store = tmp_path / "store"
    done = run(
        "import", store, events, "--label", "actor=.user.name", "--label", "tag=.tags",
        "--label", "ok=.ok",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"4 records appended, last sequence 3, SYNCED\n")
    assert data_in(store) == [line for line in EVENTS if line.strip()]
    records = map(json.loads, well("cat", store, "--json").splitlines())
    assert [record["relations"] for record in records] == [
        ["actor:ada", "tag:a", "tag:b", "ok:true"],
        [],
        ["tag:1", "tag:false"],
        [],
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "it is no JSON: Expecting property name"),
        (b"NaN", "NaN is no JSON"),
        (b'{"a": "\xff"}', "it is no UTF-8 from its byte 8 on"),
        (b"[" * 100_000, "too deep"),
        (b'{"user": {"name": {"secret": 1}}}', ".user.name is an object"),
        (b'{"user": {"name": %a}}' % [*range(300)], "carries at most 255 labels"),
    ],
)
def test_a_line_that_cannot_be_stored(
    events: Path, tmp_path: Path, line: bytes, reason: str
) -> None:
    """A file is refused as a whole, with the number of the line; of a pipe, what stands before it
    is stored. Nothing of the line is shown.
    """
    text = events.read_bytes() + b"\n" + line + b"\n{}\n"
    events.write_bytes(text)
    done = run("import", tmp_path / "one", events, "--label", "actor=.user.name")
    assert done.returncode == 2
    said = done.stderr.decode()
    assert said.startswith(f"aquipu: line 6 of {events}: ")
    assert reason in said
    assert said.endswith("; nothing was stored\n")
    assert "secret" not in said
    assert not (tmp_path / "one").exists()
    done = run("import", tmp_path / "two", "-", "--label", "actor=.user.name", input=text)
    assert done.returncode == 2
    assert b"line 6 of standard input: " in done.stderr
    assert done.stderr.endswith(b"; everything before it was stored\n")
    assert len(data_in(tmp_path / "two")) == 4


@pytest.mark.parametrize("text", ["actor", "actor=", "actor=user", "=.user", "actor=.", "a=..b"])
def test_what_is_no_place(tmp_path: Path, text: str) -> None:
    """It is a usage error, and no store is made."""
    done = run("import", tmp_path / "store", "-", "--label", text)
    assert (done.returncode, b"--label" in done.stderr) == (2, True)
    assert not (tmp_path / "store").exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is an input/output error that names it, and no store is made."""
    done = run("import", tmp_path / "store", tmp_path / "nothing.jsonl")
    assert (done.returncode, b"nothing.jsonl" in done.stderr) == (4, True)
    assert not (tmp_path / "store").exists()


def test_any_text_becomes_a_label() -> None:
    """What no label may hold is escaped, as `aquipu.label` does; two texts stay two."""
    place = LabelPlace.parsed("actor=.u")
    lines = (b'{"u": "a\\nb"}', b'{"u": "a%0Ab"}', b'{"u": ""}', b'{"u": 123}')
    found = [entry_of(line, [place]).labels for line in lines]
    assert found == [("actor:a%0Ab",), ("actor:a%250Ab",), ("actor:",), ("actor:123",)]
    [half] = entry_of(b'{"u": "\\ud800"}', [place]).labels
    assert half.isprintable()


# times of the original

DATED = [
    b'{"ts": "2019-05-01T10:00:00+02:00", "user": "ada"}',
    b'{"ts": 1556697600.123456789}',
    b"",
    b'{"ts": 1556697600124}',
    b'{"ts": "2019-05-01 08:00:00,124000001Z"}',
]
TIMES = [1556697600_000000000, 1556697600_123456789, 1556697600_124000000, 1556697600_124000001]


def dated(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines))
    return path


def test_times_of_the_original_are_kept(tmp_path: Path) -> None:
    """To the nanosecond, and the log is as good as one that was written then: it is searched by
    them, and goes on, now and by a second import.
    """
    store, file = tmp_path / "store", dated(tmp_path / "one.jsonl", *DATED)
    well("import", store, file, "--time", ".ts", "--label", "user=.user")
    assert [record.timestamp for record in records_in(store)] == TIMES
    assert records_in(store)[0].relations == ("user:ada",)
    last = b'{"ts": "2019-05-01T08:00:00.124000001Z"}'
    file = dated(tmp_path / "two.jsonl", last, b'{"ts": 9e9}')
    done = run("import", store, file, "--time", ".ts")
    assert (done.returncode, len(data_in(store))) == (2, 4)
    assert b"line 2 of " in done.stderr
    assert b"its time is in the future; nothing was stored" in done.stderr
    well("import", store, dated(file, last), "--time", ".ts")
    well("append", store, input=b"now")
    *_, fifth, now = records_in(store)
    assert fifth.timestamp == TIMES[-1]
    assert now.timestamp > TIMES[-1] + 10**17
    well("verify", store)
    since = ("--since", "2019-05-01T08:00:00.124Z", "--until", "2020-01-01")
    found = map(json.loads, well("cat", store, "--json", *since).splitlines())
    assert [one["sequence"] for one in found] == [2, 3, 4]


def test_a_time_before_the_last_record(tmp_path: Path) -> None:
    """It is refused with the number of its line, and nothing of the file is stored."""
    store = tmp_path / "store"
    well("append", store, input=b"now")
    done = run("import", store, dated(tmp_path / "one", b"", *DATED), "--time", ".ts")
    assert done.returncode == 2
    assert b"line 2 of " in done.stderr
    assert b"its time is before that of the last record of the store; nothing was" in done.stderr
    assert data_in(store) == [b"now"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"ts": 1556697599}', "its time is before that of the line before it"),
        (b'{"ts": "2019-05-01T08:00:00"}', ".ts has no zone"),
        (b'{"ts": "2019-02-30T08:00:00Z"}', ".ts is no time"),
        (b'{"ts": "yesterday"}', ".ts is no time"),
        (b'{"ts": "1969-12-31T23:59:59Z"}', ".ts is before 1970"),
        (b'{"ts": 1e30}', "too large"),
        (b'{"ts": -1}', "before 1970"),
        (b'{"ts": true}', ".ts is neither a number nor a text"),
        (b'{"t": 1}', ".ts is not there"),
        (b"[]", ".ts is not there"),
    ],
)
def test_a_line_whose_time_is_none(tmp_path: Path, line: bytes, reason: str) -> None:
    """A file is refused as a whole; of a pipe, what stands before the line is stored."""
    file = dated(tmp_path / "one.jsonl", *DATED, line, b"{}")
    done = run("import", tmp_path / "store", file, "--time", ".ts")
    assert done.returncode == 2
    assert f"line 6 of {file}: " in done.stderr.decode()
    assert reason in done.stderr.decode()
    assert not (tmp_path / "store").exists()


def test_a_pipe_with_a_line_whose_time_is_none(tmp_path: Path) -> None:
    """What stands before it is stored with its times."""
    text, store = b"\n".join([*DATED, b"{}", b"{}"]), tmp_path / "store"
    done = run("import", store, "-", "--time", ".ts", input=text)
    assert done.returncode == 2
    assert b"line 6 of standard input: .ts is not there; everything before it" in done.stderr
    assert [record.timestamp for record in records_in(store)] == TIMES


@pytest.mark.parametrize(
    ("place", "instead"),
    [("unix:/run/a.sock", b"end it"), ("postgresql://host/database?log=a", b"aquipu copy")],
)
def test_who_does_not_keep_times(place: str, instead: bytes) -> None:
    """A daemon and a database give records their times themselves, and what to do is said."""
    done = run("import", place, "-", "--time", ".ts")
    assert done.returncode == 2
    assert b"--time" in done.stderr
    assert instead in done.stderr


def test_times_beside_a_writer(tmp_path: Path) -> None:
    """They are kept only where nobody else writes meanwhile."""
    with sync.open(tmp_path / "store"):
        file = dated(tmp_path / "one.jsonl", *DATED)
        done = run("import", tmp_path / "store", file, "--time", ".ts", "--lock-timeout", "0")
    assert done.returncode == 3
    assert b"leave out --time" in done.stderr


def test_numbers_and_texts_are_times() -> None:
    """The size of a number says what it counts; a fraction has all its digits."""
    same = (1556697600, 1556697600_000, 1556697600_000000, 1556697600_000000000)
    assert {nanoseconds_of(one) for one in same} == {TIMES[0]}
    assert nanoseconds_of(ExactFloat("1556697600123.456789")) == TIMES[1]
    assert nanoseconds_of("2019-05-01T08:00:00.1234567891Z") == TIMES[1]
    assert (
        nanoseconds_of("2019-05-01 08:00Z") == nanoseconds_of("2019-05-01T03:30-0430") == TIMES[0]
    )
