"""import: JSON lines with labels from their fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aquipu.cli.forms.jsonl import LabelPlace, labels_of
from tests.cli.support import in_shell, run, well
from tests.support import data_in

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
    done = in_shell(
        'exec "$@"', "import", tmp_path / "two", "-", "--label", "actor=.user.name", input=text
    )
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
    found = [labels_of(line, [place]) for line in lines]
    assert found == [("actor:a%0Ab",), ("actor:a%250Ab",), ("actor:",), ("actor:123",)]
    [half] = labels_of(b'{"u": "\\ud800"}', [place])
    assert half.isprintable()
