"""Records as other programs read them: ndjson, csv, parquet.

=============  =========================================  ==========================
               ndjson (an object a line), csv (a header)  parquet
=============  =========================================  ==========================
``sequence``   a number                                   uint64
``time``       ISO 8601 in UTC, nanoseconds               timestamp[ns, UTC]
``encoding``   ``utf-8`` or ``base64``                    not there
``data``       text, or base64 for what is no UTF-8       binary, as it was stored
``relations``  ndjson: a list; csv: the same as JSON      list of strings
=============  =========================================  ==========================

In csv a field that holds a line feed, a carriage return, a comma or a quote is quoted, and lines
end with a line feed. Unless it is told not to, the command puts an apostrophe before text that a
spreadsheet would run as a formula. Parquet needs pyarrow (the extra ``parquet``).
"""

from __future__ import annotations

import csv
import io
import json
from base64 import b64encode
from collections.abc import AsyncIterable, AsyncIterator, Callable
from enum import StrEnum
from re import compile as pattern
from typing import Any, Protocol

from aquipu.cli.streams.missing import MissingPackageError
from aquipu.local.check.inspect import iso_time
from aquipu.record import Record

PIECE_BYTES = 256 * 1024
"""About how much data is exported at a time."""
_RECORD_BYTES = 64  # what a record counts beside its data
_GROUP_BYTES = 16 * 1024 * 1024  # of data in a row group of parquet
_CSV_LINE_ENDS = "\r\n"
_FORMULA = pattern(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
"""What makes a spreadsheet take a text for more than a text, in half and in full width."""
_COLUMNS = ("sequence", "time", "encoding", "data", "relations")


class DataForm(StrEnum):
    """What the data of a record becomes."""

    TEXT = "text"
    JSON = "json"


class Format(StrEnum):
    """What records can be exported as."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


Write = Callable[[bytes], object]


class Exporter(Protocol):
    """Turns records into the bytes of one format."""

    def take(self, records: list[Record]) -> None:
        """Take the next records."""

    def end(self) -> None:
        """Finish: there are no more records."""


def exporter(
    format: Format, write: Write, *, json_data: bool = False, safe: bool = False
) -> Exporter:
    """Return an exporter that gives its bytes to ``write``.

    With ``json_data``, ndjson has data that is JSON as a value; with ``safe``, csv has no text that
    a spreadsheet runs. Raises MissingPackageError before anything is written.
    """
    if format is Format.NDJSON:
        return _Ndjson(write, ndjson_with_values if json_data else ndjson)
    return _Csv(write, safe=safe) if format is Format.CSV else _Parquet(write)


async def drain(
    records: AsyncIterable[Record],
    take: Callable[[list[Record]], None],
    limit: int | None = None,
) -> None:
    """Give the records to ``take`` in pieces; when reading fails, first those that came before.

    With a limit, no more than so many.
    """
    piece: list[Record] = []
    size = 0
    if limit == 0:
        return
    try:
        async for number, record in _counted(records):
            piece.append(record)
            size += len(record.data) + _RECORD_BYTES
            if size >= PIECE_BYTES:
                full, piece, size = piece, [], 0  # should taking fail, they must not be taken twice
                take(full)
            if number == limit:
                break
    finally:
        if piece:
            take(piece)


async def _counted(records: AsyncIterable[Record]) -> AsyncIterator[tuple[int, Record]]:
    number = 0
    async for record in records:
        number += 1
        yield number, record


def ndjson(record: Record) -> bytes:
    """Return the line of one record."""
    encoding, text = _text(record.data)
    fields = (record.sequence, iso_time(record.timestamp), encoding, text, record.relations)
    line = json.dumps(dict(zip(_COLUMNS, fields, strict=True)), ensure_ascii=False)
    return f"{line}\n".encode()


def _text(data: bytes) -> tuple[str, str]:
    """Return the encoding and the text."""
    try:
        return "utf-8", data.decode()
    except UnicodeDecodeError:
        return "base64", b64encode(data).decode()


def ndjson_with_values(record: Record) -> bytes:
    """Return the line of one record, with data that is JSON as the value that it is."""
    value = json_in(record.data)
    if value is None:
        return ndjson(record)
    head = {"sequence": record.sequence, "time": iso_time(record.timestamp), "encoding": "json"}
    rest = json.dumps({"relations": record.relations}, ensure_ascii=False)
    return f'{json.dumps(head)[:-1]}, "data": {value}, {rest[1:]}\n'.encode()


def json_in(data: bytes) -> str | None:
    """Return JSON in one line, its numbers and its escapes as they are; None for what is none."""
    try:
        text = data.decode().strip(" \t\r\n")
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if "\n" in text or "\r" in text:  # between its parts: within a text they are escapes
        return json.dumps(value, ensure_ascii=True)
    return text


def _refuse(constant: str) -> None:
    raise ValueError(constant)


class _Ndjson:
    def __init__(self, write: Write, line: Callable[[Record], bytes]) -> None:
        self._write = write
        self._line = line

    def take(self, records: list[Record]) -> None:
        self._write(b"".join(map(self._line, records)))

    def end(self) -> None:
        pass


class _Csv:
    """Rows of CSV.

    What ends a line is up to Python's version of the module: all of them quote what stands in the
    line terminator, so that holds both characters, and the one that is meant is put at the end of
    each row.
    """

    def __init__(self, write: Write, *, safe: bool) -> None:
        self._write = write
        self._safe = safe
        self._lines: list[str] = []
        self._writer = csv.writer(self, lineterminator=_CSV_LINE_ENDS)
        self._put([_COLUMNS])

    def take(self, records: list[Record]) -> None:
        self._put([_fields(record, safe=self._safe) for record in records])

    def end(self) -> None:
        pass

    def write(self, row: str) -> None:
        """Keep the text of one row, from the csv module."""
        self._lines.append(row.removesuffix(_CSV_LINE_ENDS) + "\n")

    def _put(self, rows: list[tuple[object, ...]]) -> None:
        self._writer.writerows(rows)
        text, self._lines[:] = "".join(self._lines), []
        self._write(text.encode())


def _fields(record: Record, *, safe: bool) -> tuple[object, ...]:
    encoding, text = _text(record.data)
    if safe and _FORMULA.match(text):
        text = f"'{text}"
    relations = json.dumps(record.relations, ensure_ascii=False)
    return (record.sequence, iso_time(record.timestamp), encoding, text, relations)


class _Parquet:
    def __init__(self, write: Write) -> None:
        try:
            pyarrow: Any = __import__("pyarrow.parquet")  # it has no types, and need not be there
        except ModuleNotFoundError as error:
            raise MissingPackageError("parquet needs", error.name, "parquet") from None
        self._schema: Any = pyarrow.schema(
            [
                ("sequence", pyarrow.uint64()),
                ("time", pyarrow.timestamp("ns", "UTC")),
                ("data", pyarrow.binary()),
                ("relations", pyarrow.list_(pyarrow.string())),
            ]
        )
        self._table: Any = pyarrow.table
        sink = pyarrow.PythonFile(_Sink(write), mode="w")
        self._writer: Any = pyarrow.parquet.ParquetWriter(sink, self._schema, compression="zstd")
        self._records: list[Record] = []
        self._bytes = 0

    def take(self, records: list[Record]) -> None:
        self._records += records
        self._bytes += sum(len(record.data) + _RECORD_BYTES for record in records)
        if self._bytes >= _GROUP_BYTES:
            self._write_group()

    def end(self) -> None:
        if self._records:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        columns = zip(*self._records, strict=True)
        named = dict(zip(self._schema.names, map(list, columns), strict=True))
        self._writer.write_table(self._table(named, schema=self._schema))
        self._records, self._bytes = [], 0


class _Sink(io.RawIOBase):
    """What pyarrow takes for a file; it need not be one that can be sought in."""

    def __init__(self, write: Write) -> None:
        super().__init__()
        self._write = write
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        whole = bytes(data)
        self._write(whole)
        self._written += len(whole)
        return len(whole)
