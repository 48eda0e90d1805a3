"""export: records as other programs read them, each format read back by a reader of its own."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aquipu import Always, Record, Store
from aquipu.cli.forms import exporter as export
from aquipu.cli.forms.exporter import Format, drain, exporter, ndjson, ndjson_with_values
from aquipu.cli.streams.missing import MissingPackageError
from tests.cli.support import run, spawn, well
from tests.support import MIB

ROOT = Path(__file__).parents[2]
RECORDS = [
    Record(0, 1_700_000_000_123_456_789, b"a plain line\n"),
    Record(1, 1_700_000_000_123_456_790, b"", ("user:7", 'a "quoted", label')),
    Record(2, 1_700_000_001_000_000_000, b"\xff\x00 no text", ("naïve",)),
    Record(3, 1_700_000_001_000_000_000, 'a, "b"\r\nnaïve \u2028\x00'.encode()),
    Record(2**64 - 1, 1_700_000_002_000_000_000, b"the last"),
]
TIMES = [
    "2023-11-14T22:13:20.123456789Z",
    "2023-11-14T22:13:20.123456790Z",
    "2023-11-14T22:13:21.000000000Z",
    "2023-11-14T22:13:21.000000000Z",
    "2023-11-14T22:13:22.000000000Z",
]


def exported(format: Format, *pieces: list[Record]) -> bytes:
    written: list[bytes] = []
    into = exporter(format, written.append)
    for piece in pieces:
        into.take(piece)
    into.end()
    return b"".join(written)


def decoded(encoding: str, data: str) -> bytes:
    return b64decode(data) if encoding == "base64" else data.encode(encoding)


def test_ndjson_is_an_object_a_line() -> None:
    """Every record is one line, whatever its data, with the documented fields; what is no UTF-8 is
    base64.
    """
    lines = exported(Format.NDJSON, RECORDS[:2], RECORDS[2:]).split(b"\n")
    assert lines.pop() == b""
    objects = [json.loads(line) for line in lines]
    assert [list(found) for found in objects] == [
        ["sequence", "time", "encoding", "data", "relations"]
    ] * 5
    assert [found["sequence"] for found in objects] == [record.sequence for record in RECORDS]
    assert [found["time"] for found in objects] == TIMES
    assert [found["encoding"] for found in objects] == [
        "utf-8",
        "utf-8",
        "base64",
        "utf-8",
        "utf-8",
    ]
    assert [decoded(found["encoding"], found["data"]) for found in objects] == [
        record.data for record in RECORDS
    ]
    assert [tuple(found["relations"]) for found in objects] == [
        record.relations for record in RECORDS
    ]


def test_csv_has_a_header_and_quotes_what_must_be() -> None:
    """A reader of csv gets the same fields back, line ends within them included."""
    text = exported(Format.CSV, RECORDS[:2], RECORDS[2:]).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["sequence", "time", "encoding", "data", "relations"]
    assert [int(row[0]) for row in rows[1:]] == [record.sequence for record in RECORDS]
    assert [row[1] for row in rows[1:]] == TIMES
    assert [decoded(row[2], row[3]) for row in rows[1:]] == [record.data for record in RECORDS]
    assert [tuple(json.loads(row[4])) for row in rows[1:]] == [
        record.relations for record in RECORDS
    ]
    assert text.startswith("sequence,time,encoding,data,relations\n")


LINE_ENDS = [
    "50%\r100%",
    "from windows\r",
    "\r",
    "a\r\nb",
    "\n",
    "a\n\rb",
    '\r"',
    "\x0b\x0c\x85\u2028",
    "",
]
EXPORTED = """
import sys
from aquipu import Record
from aquipu.cli.forms.exporter import Format, exporter
into = exporter(Format.CSV, sys.stdout.buffer.write)
into.take([Record(number, 0, data.encode()) for number, data in enumerate(sys.argv[1:])])
into.end()
"""


def exported_by(python: Path) -> bytes:
    """The csv of the `LINE_ENDS`, written by another interpreter."""
    command = [str(python), "-W", "ignore", "-c", EXPORTED, *LINE_ENDS]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    }
    return subprocess.run(command, env=environment, capture_output=True, check=True).stdout


def installed(version: str) -> Path | None:
    """An interpreter of this version, if there is one here."""
    places = [
        *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")),
        shutil.which(f"python{version}"),
    ]
    for place in filter(None, places):
        if subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode == 0:
            return Path(place)
    return None


def test_a_line_end_stays_in_its_field() -> None:
    """Whatever ends a line somewhere, a lone carriage return too, is quoted, and a reader has the
    same data.
    """
    records = [Record(number, 0, data.encode()) for number, data in enumerate(LINE_ENDS)]
    rows = list(csv.reader(io.StringIO(exported(Format.CSV, records).decode(), newline="")))
    assert [row[3] for row in rows[1:]] == LINE_ENDS


def test_csv_is_the_same_of_each_python() -> None:
    """What the csv module quotes by itself changes with its version; the bytes of an export do not.

    Of the versions that are installed.
    """
    others = {version: installed(version) for version in ("3.11", "3.12", "3.13", "3.14")}
    written = {version: exported_by(python) for version, python in others.items() if python}
    assert written == dict.fromkeys(written, exported_by(Path(sys.executable)))


def test_a_csv_of_nothing_is_its_header() -> None:
    """A program that reads it finds the columns also when there is no record."""
    assert exported(Format.CSV) == b"sequence,time,encoding,data,relations\n"
    assert exported(Format.NDJSON) == b""


def missing(name: str) -> None:
    """An import that finds nothing."""
    raise ModuleNotFoundError(f"No module named {name!r}", name="pyarrow")


def parquet_of(data: bytes) -> Any:
    return pytest.importorskip("pyarrow.parquet").ParquetFile(io.BytesIO(data))


def test_parquet_keeps_types() -> None:
    """Data are bytes, sequences and times are numbers of full precision, relations are lists."""
    pytest.importorskip("pyarrow")
    table = parquet_of(exported(Format.PARQUET, RECORDS[:2], RECORDS[2:])).read()
    assert table.schema.names == ["sequence", "time", "data", "relations"]
    assert [str(kind) for kind in table.schema.types] == [
        *("uint64", "timestamp[ns, tz=UTC]", "binary"),
        "list<element: string>",
    ]
    assert table["sequence"].to_pylist() == [record.sequence for record in RECORDS]
    assert [time.value for time in table["time"]] == [record.timestamp for record in RECORDS]
    assert table["data"].to_pylist() == [record.data for record in RECORDS]
    assert [tuple(labels) for labels in table["relations"].to_pylist()] == [
        record.relations for record in RECORDS
    ]


def test_a_large_parquet_has_several_groups() -> None:
    """Rows are written in groups of bounded size, so that memory is bounded as well."""
    pytest.importorskip("pyarrow")
    pieces = [[Record(number, 0, bytes(MIB))] for number in range(40)]
    file = parquet_of(exported(Format.PARQUET, *pieces))
    assert (file.num_row_groups, file.metadata.num_rows) == (3, 40)


def test_a_parquet_of_nothing() -> None:
    """It is a file with the columns and without rows."""
    pytest.importorskip("pyarrow")
    assert parquet_of(exported(Format.PARQUET)).metadata.num_rows == 0


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install, before anything is written."""
    monkeypatch.setattr(export, "__import__", missing, raising=False)
    with pytest.raises(MissingPackageError, match=r"pip install -e '\.\[parquet\]'"):
        exporter(Format.PARQUET, print)


@pytest.mark.asyncio
async def test_records_are_taken_in_pieces() -> None:
    """Pieces are bounded, nothing is taken twice, and what came before an error is taken first."""
    taken: list[list[Record]] = []

    async def failing() -> AsyncIterator[Record]:
        for number in range(10):
            yield Record(number, 0, bytes(100 * 1024))
        raise OSError("that is all")

    with pytest.raises(OSError, match="that is all"):
        await drain(failing(), taken.append)
    assert [record.sequence for piece in taken for record in piece] == list(range(10))
    assert [len(piece) for piece in taken] == [3, 3, 3, 1]


@pytest.mark.asyncio
async def test_a_piece_that_cannot_be_taken_is_not_taken_again() -> None:
    """When writing fails, that is the end."""
    taken: list[int] = []

    def take(piece: list[Record]) -> None:
        taken.append(len(piece))
        raise BrokenPipeError

    async def large() -> AsyncIterator[Record]:
        for number in range(10):
            yield Record(number, 0, bytes(MIB))

    with pytest.raises(BrokenPipeError):
        await drain(large(), take)
    assert taken == [1]


# the command


@pytest.fixture
def store(tmp_path: Path) -> Path:
    async def fill() -> None:
        async with Store.open(tmp_path / "store", sync_policy=Always()) as store:
            for record in RECORDS:
                await store.append(record.data, relations=record.relations)

    asyncio.run(fill())
    return tmp_path / "store"


def test_export_to_standard_output(store: Path) -> None:
    """Data go to standard output, the count to standard error, and the filters of cat hold."""
    done = spawn("export", store, "--format", "ndjson", "--start", "1", "--stop", "3")
    assert (done.returncode, done.stderr) == (0, b"2 records exported\n")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["sequence"], decoded(one["encoding"], one["data"])) for one in found] == [
        (1, RECORDS[1].data),
        (2, RECORDS[2].data),
    ]
    assert done.stdout == well("cat", store, "--json", "--start", "1", "--stop", "3")
    assert well("export", store, "--format", "csv", "--relation", "user:7").count(b"\n") == 2


def test_export_of_parquet_into_a_pipe(store: Path) -> None:
    """A pipe cannot be sought in, and need not be."""
    pytest.importorskip("pyarrow")
    done = spawn("export", store, "--format", "parquet")
    assert parquet_of(done.stdout).read()["data"].to_pylist() == [record.data for record in RECORDS]


def test_parquet_is_refused_where_it_cannot_be_made(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without pyarrow: exit code 2, what to install, and no file."""
    monkeypatch.setattr(export, "__import__", missing, raising=False)
    done = run("export", store, "--format", "parquet", "-o", tmp_path / "file.parquet")
    assert (done.returncode, done.stderr) == (
        2,
        f"aquipu: {MissingPackageError('parquet needs', 'pyarrow', 'parquet')}\n".encode(),
    )
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


def test_the_line_of_a_record() -> None:
    """Text stays readable: nothing but what JSON must escape is escaped."""
    fields = (
        '"sequence": 7, "time": "1970-01-01T00:00:00.000000000Z", '
        '"encoding": "utf-8", "data": "naïve", "relations": []'
    )
    assert ndjson(Record(7, 0, "naïve".encode())) == f"{{{fields}}}\n".encode()


# data


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b'{"a": [1, 2.50], "b": "\\u001b\\ud800"}', '{"a": [1, 2.50], "b": "\\u001b\\ud800"}'),
        (b"1e400", "1e400"),
        (b'\n{"a":\r\n1}\n', '{"a": 1}'),
        (b"null", "null"),
    ],
)
def test_json_as_the_value_that_it_is(data: bytes, value: str) -> None:
    """Not a number of it is written otherwise, and it stays in its line."""
    line = ndjson_with_values(Record(7, 0, data, ("a",))).decode()
    assert line == (
        '{"sequence": 7, "time": "1970-01-01T00:00:00.000000000Z", "encoding": "json", '
        f'"data": {value}, "relations": ["a"]}}\n'
    )


@pytest.mark.parametrize(
    "data", [b"", b"NaN", b"{", b"\xff", b"text", b"[" * 100_000, b"9" * 5000, b'{"a": Infinity}']
)
def test_what_is_no_json(data: bytes) -> None:
    """It is written as text, as without the option."""
    assert ndjson_with_values(Record(7, 0, data, ())) == ndjson(Record(7, 0, data, ()))


FORMULAS = [b"=1+1", b"+1", b"-1", b"@SUM(A1)", b"\t=1", b"\r=1", b"  =1", "＝1".encode(), b"\n"]


@pytest.mark.parametrize("data", FORMULAS)
def test_no_spreadsheet_runs_what_is_exported(tmp_path: Path, data: bytes) -> None:
    """An apostrophe stands before it; --as-is leaves it out. Other text is as it was."""
    path = tmp_path / "store"
    well("append", path, "-0", input=data + b"\0a=1\0")
    for options, mark in (([], "'"), (["--as-is"], "")):
        text = well("export", path, "--format", "csv", *options).decode()
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert [row[3] for row in rows] == ["data", mark + data.decode(), "a=1"]


def test_values_are_for_ndjson(tmp_path: Path) -> None:
    """With another format it is a usage error, and nothing is made."""
    out = tmp_path / "out"
    done = run("export", tmp_path, "--format", "csv", "--data", "json", "-o", out)
    assert (done.returncode, out.exists()) == (2, False)
