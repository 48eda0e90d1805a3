"""The commands that read.

cat, tail, follow, find, relations and export go through a `Reader`: they see what is acknowledged, also while a service
writes the store. info and verify look at a store at rest: they hold its lock shared, and examine it as opening would. None
of them changes a byte.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Annotated, NamedTuple

import anyio
import typer

from aquipu.cli.app import (
    DAMAGED,
    EPILOG,
    WELL,
    JsonLinesOption,
    JsonOption,
    StoreArgument,
    absolute,
    app,
    as_json,
    exit_codes,
    time_of,
    usage,
)
from aquipu.cli.console import bar, counted, let_interrupt_kill, say, standard_output, write, write_line
from aquipu.cli.export import Format, drain, exporter, ndjson
from aquipu.disk import Disk
from aquipu.errors import CorruptionError
from aquipu.indexes import damaged_indexes
from aquipu.inspection import Damage, Info, TornTail, Verdict, at_rest, examined, inspect, segment_bytes, verify_all
from aquipu.reader import Reader
from aquipu.record import Record
from aquipu.scan import Scan

_StartOption = Annotated[int | None, typer.Option(metavar="SEQUENCE", help="From this record on.")]
_StopOption = Annotated[int | None, typer.Option(metavar="SEQUENCE", help="Up to, not including, this record.")]
_SinceOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Accepted at this time or later: ISO 8601 with a zone."),
]
_UntilOption = Annotated[str | None, typer.Option(metavar="TIME", help="Accepted before this time.")]
_RelationOption = Annotated[
    list[str] | None, typer.Option("--relation", metavar="LABEL", help="Only records with this label; repeated: with all.")
]
_AnyOption = Annotated[bool, typer.Option("--any", help="Only one of several labels need be there.")]
_ReverseOption = Annotated[bool, typer.Option("--reverse", help="The newest first.")]
_OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file, which is there when it is whole.")
]


class _Filters(NamedTuple):
    """Which records, as the options say."""

    start: int | None = None
    stop: int | None = None
    since: str | None = None
    until: str | None = None
    labels: tuple[str, ...] = ()
    any_of: bool = False
    reverse: bool = False

    def scan(self, reader: Reader) -> Scan:
        since = None if self.since is None else time_of(self.since, "--since")
        until = None if self.until is None else time_of(self.until, "--until")
        labels = self.labels or None
        with usage():
            return reader.scan(
                self.start,
                self.stop,
                since=since,
                until=until,
                relation=None if self.any_of else labels,
                any_of=labels if self.any_of else None,
                reverse=self.reverse,
            )


# records


@app.command("cat", epilog=EPILOG)
def cat_command(
    store: StoreArgument,
    start: _StartOption = None,
    stop: _StopOption = None,
    since: _SinceOption = None,
    until: _UntilOption = None,
    relation: _RelationOption = None,
    any_of: _AnyOption = False,
    reverse: _ReverseOption = False,
    json_lines: JsonLinesOption = False,
) -> None:
    """Write records to standard output as they were, one behind another with nothing in between.

    The store may be written meanwhile: what was acknowledged before is written. A torn tail (see info) is not part of it.
    """
    filters = _Filters(start, stop, since, until, tuple(relation or ()), any_of, reverse)
    _write_records(store, filters.scan, json_lines=json_lines)


@app.command("find", epilog=EPILOG)
def find_command(
    store: StoreArgument,
    labels: Annotated[list[str], typer.Argument(metavar="LABEL...", help="Labels that were given with the record.")],
    any_of: _AnyOption = False,
    reverse: _ReverseOption = False,
    json_lines: JsonLinesOption = False,
) -> None:
    """Write the records that carry all of the labels, as `aquipu cat --relation` does."""
    _write_records(store, _Filters(labels=tuple(labels), any_of=any_of, reverse=reverse).scan, json_lines=json_lines)


@app.command("follow", epilog=EPILOG)
def follow_command(
    store: StoreArgument,
    start: Annotated[
        int | None, typer.Option(metavar="SEQUENCE", help="From this record on; without: only what is still to come.")
    ] = None,
    json_lines: JsonLinesOption = False,
) -> None:
    """Write each record as soon as it is acknowledged, until Ctrl-C; while a service writes the store, and when it comes
    back.
    """
    _follow(store, lambda reader: start, json_lines=json_lines)


@app.command("tail", epilog=EPILOG)
def tail_command(
    store: StoreArgument,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, metavar="NUMBER", help="How many records.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="And then go on as `aquipu follow`.")] = False,
    json_lines: JsonLinesOption = False,
) -> None:
    """Write the last records."""

    def start(reader: Reader) -> int:
        return max(reader.next_sequence - lines, reader.first_sequence)

    if follow:
        _follow(store, start, json_lines=json_lines)
    else:
        _write_records(store, lambda reader: reader.scan(start(reader)), json_lines=json_lines)


def _write_records(path: str, scan: Callable[[Reader], Scan], *, json_lines: bool) -> None:
    let_interrupt_kill()  # there is nothing to lose
    with exit_codes():
        take = _taker(standard_output(), json_lines=json_lines)

        async def read() -> None:
            async with Reader.open(absolute(path)) as reader, scan(reader) as records:
                await drain(records, take)

        anyio.run(read)


def _follow(path: str, start: Callable[[Reader], int | None], *, json_lines: bool) -> None:
    let_interrupt_kill()
    with exit_codes():
        take = _taker(standard_output(), json_lines=json_lines)

        async def read() -> None:
            async with Reader.open(absolute(path)) as reader:
                first = start(reader)
                with usage("--start"):
                    followed = reader.follow(first)
                async with followed as records:
                    async for record in records:  # each at once: the next one may be long in coming
                        take([record])

        anyio.run(read)


def _taker(output: FileIO, *, json_lines: bool) -> Callable[[list[Record]], None]:
    def take(records: list[Record]) -> None:
        write(output, b"".join([ndjson(record) if json_lines else record.data for record in records]))

    return take


# other forms


@app.command("export", epilog=EPILOG)
def export_command(
    store: StoreArgument,
    format: Annotated[Format, typer.Option("--format", help="What to write.")],
    output: _OutputOption = None,
    start: _StartOption = None,
    stop: _StopOption = None,
    since: _SinceOption = None,
    until: _UntilOption = None,
    relation: _RelationOption = None,
    any_of: _AnyOption = False,
    reverse: _ReverseOption = False,
) -> None:
    """Write records as ndjson, csv or parquet, for other programs.

    \b
    Each record has:
      sequence   a number
      time       when it was accepted: ISO 8601 in UTC, nanoseconds
      encoding   utf-8 or base64; not in parquet
      data       as text, or base64 when it is no UTF-8; in parquet binary
      relations  a list of labels; in csv the same as JSON
    """
    filters = _Filters(start, stop, since, until, tuple(relation or ()), any_of, reverse)
    with exit_codes():
        if output is None:
            target = standard_output()
            _export(store, filters, format, lambda data: write(target, data), shown=not target.isatty())
            return
        unfinished = Path(f"{output}.part")
        try:
            with unfinished.open("wb", buffering=0) as file:
                _export(store, filters, format, lambda data: _write_all(file, data), shown=True)
            unfinished.replace(output)
        finally:
            unfinished.unlink(missing_ok=True)


def _export(path: str, filters: _Filters, format: Format, put: Callable[[bytes], None], *, shown: bool) -> None:
    into = exporter(format, put)

    async def read() -> int:
        async with Reader.open(absolute(path)) as reader, filters.scan(reader) as records:
            return await _drain(records, into.take, shown=shown)

    try:
        number = anyio.run(read)
    finally:  # what stands before a damage is sound
        into.end()
    say(f"{counted(number, 'record')} exported")


async def _drain(records: AsyncIterable[Record], take: Callable[[list[Record]], None], *, shown: bool) -> int:
    """Give them all to ``take``, under a bar. How many they were."""
    number = 0
    with bar(None, counts_records=True, shown=shown) as advance:

        def counted_take(piece: list[Record]) -> None:
            nonlocal number
            take(piece)
            number += len(piece)
            advance(sum(len(record.data) for record in piece), len(piece))

        await drain(records, counted_take)
    return number


def _write_all(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


@app.command("relations", epilog=EPILOG)
def relations_command(
    store: StoreArgument,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Only labels that begin so.")] = "",
    json_object: JsonOption = False,
) -> None:
    """List the labels, in order, and how many records carry each: number, tab, label.

    With --json, one object: the number by label.
    """
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()

        async def count() -> dict[str, int]:
            async with Reader.open(absolute(store)) as reader:
                return await reader.relations(prefix)

        counts = anyio.run(count)
        if json_object:
            write_line(output, as_json(counts))
        elif counts:
            write_line(output, "\n".join(f"{number}\t{label}" for label, number in counts.items()))


# the store itself


@app.command("info", epilog=EPILOG)
def info_command(store: StoreArgument, json_object: JsonOption = False) -> None:
    """Say what a store holds. The store cannot be written meanwhile.

    \b
    With --json, one object:
      path            the directory, absolute
      store_id        32 hexadecimal digits
      format_version  a number
      first_sequence  of the first record kept
      next_sequence   one past the last record
      records         their number
      segments        the number of segment files
      bytes           of all files of the store
      first_time      of the first record, ISO 8601 in UTC; null without any
      last_time       of the last record
      clean           whether it was closed, and nothing is to be mended
      torn_tail       null, or an object: path, offset, bytes, reason,
                      records (that it may hold), possibly_acknowledged
      holds           an object: from which sequence on each keeps everything
    """
    with exit_codes():
        output, disk, path = standard_output(), Disk(), absolute(store)
        with at_rest(disk, path):
            info = inspect(disk, path)
        write_line(output, as_json(info) if json_object else _info_text(info))


@app.command("verify", epilog=EPILOG)
def verify_command(store: StoreArgument, json_object: JsonOption = False) -> None:
    """Read every byte of a store and check it. Exit code 1 when anything is damaged; a torn tail is no damage.

    The store cannot be written meanwhile. A damaged index is damage, though no record depends on it.

    \b
    With --json, one object:
      path       the directory, absolute
      records    their number; null when damage keeps them from being counted
      frames     commits and marks, as records
      segments   the number of segment files
      bytes      of the segment files
      damages    a list of objects: path, offset, reason
      torn_tail  null, or an object: path, offset, bytes, reason,
                 records (that it may hold), possibly_acknowledged
    """
    with exit_codes():
        output, disk, path = standard_output(), Disk(), absolute(store)
        with at_rest(disk, path), bar(segment_bytes(disk, path)) as advance:
            verdict = verify_all(disk, path, advance)
            indexes = list(_damaged_indexes(disk, path))
        verdict = replace(verdict, damages=[*verdict.damages, *indexes])
        with suppress(BrokenPipeError):  # the exit code says it all the same
            write_line(output, as_json(verdict) if json_object else _verdict_text(verdict))
        raise typer.Exit(DAMAGED if verdict.damages else WELL)


def _damaged_indexes(disk: Disk, path: str) -> Iterator[Damage]:
    with suppress(CorruptionError):  # of the log: that was said
        for error in damaged_indexes(disk, examined(disk, path).sealed):
            yield Damage(error.path, error.offset, error.reason)


# texts


def _info_text(info: Info) -> str:
    lines = {
        "path": info.path,
        "store id": info.store_id,
        "format version": info.format_version,
        "records": f"{info.records:,}",
        "sequences": f"{info.first_sequence} to {info.next_sequence - 1}" if info.records else "none",
        "next sequence": info.next_sequence,
        "segments": f"{info.segments:,}",
        "bytes": f"{info.bytes:,}",
        "first record": info.first_time or "none",
        "last record": info.last_time or "none",
        "closed cleanly": "yes" if info.clean else "no",
        "torn tail": _torn_text(info.torn_tail) if info.torn_tail else "none",
        "holds": ", ".join(f"{name} from {sequence}" for name, sequence in info.holds.items()) or "none",
    }
    return "\n".join(f"{name:<16}{value}" for name, value in lines.items())


def _verdict_text(verdict: Verdict) -> str:
    where = f"{counted(verdict.segments, 'segment')}, {counted(verdict.bytes, 'byte')}"
    if verdict.records is None or verdict.frames is None:
        lines = [f"the records cannot be counted; {where}"]
    else:
        lines = [f"{counted(verdict.records, 'record')} in {counted(verdict.frames, 'frame')}, {where}"]
    if verdict.torn_tail is not None:
        lines.append(f"torn tail: {_torn_text(verdict.torn_tail)}")
    lines += [f"damaged: {damage.path} at offset {damage.offset}: {damage.reason}" for damage in verdict.damages]
    return "\n".join(lines if verdict.damages else [*lines, "no damage"])


def _torn_text(torn: TornTail) -> str:
    return (
        f"{counted(torn.bytes, 'byte')} of {torn.path} from offset {torn.offset}: {torn.reason}; "
        "the next append cuts them off and keeps them aside"
    )
