"""The command that brings a log from a directory into a database: copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, NamedTuple

import anyio
import typer

from aquipu.cli.app import EPILOG, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import DirectoryArgument, JsonOption, database_of, directory
from aquipu.cli.forms.objects import as_json
from aquipu.cli.streams.console import (
    Advance,
    bar,
    counted,
    let_interrupt_kill,
    standard_output,
    write_line,
)
from aquipu.errors import BackupRefusedError, RecordPurgedError
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.os_errors import translate_os_errors
from aquipu.local.read.catalog import Catalog
from aquipu.local.read.snapshot import Snapshot, find
from aquipu.record import PRODUCERS, Key, Record

if TYPE_CHECKING:
    from aquipu.postgres.care.receiving import Receiver

_RECORDS = 1024
_BYTES = 1 << 20


class Copied(NamedTuple):
    """What a copy has come to."""

    path: str
    """The address of the database, without a password."""
    first_sequence: int
    next_sequence: int
    copied: int
    """Records that were brought this time."""


@app.command("copy", epilog=EPILOG, rich_help_panel=Purpose.CARE)
def copy_command(
    store: DirectoryArgument,
    to: Annotated[
        str,
        typer.Argument(metavar="TO", help="The log: postgresql://HOST/DATABASE?log=NAME."),
    ],
    json_object: JsonOption = False,
) -> None:
    """Bring a log from a directory into a database.

    Sequences, times, labels and keys are kept. It works also while a service writes the directory:
    then it brings what is acknowledged now, and the next time what has come since. Cut short, it
    goes on where it was. Nobody else may write the log there meanwhile.

    \b
    With --json, one object:
      path            the address, without a password
      first_sequence  of the first record there
      next_sequence   one past the last record there
      copied          how many were brought this time
    """
    path = directory(store)
    if database_of(to) is None:
        raise typer.BadParameter("a copy goes to a log in a database", param_hint="TO")
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()
        with bar(None, counts_records=True) as advance, usage("TO"):
            done = anyio.run(_copy, path, to, advance)
        write_line(output, as_json(done._asdict()) if json_object else _text(done))


async def _copy(path: str, to: str, advance: Advance) -> Copied:
    from aquipu.postgres.address import address_of
    from aquipu.postgres.care.receiving import Receiver

    with closing(Catalog(Disk(), path)) as catalog:
        view = catalog.look()
        receiver = await Receiver.open(address_of(to))
        try:
            head = await receiver.head()
            if head.next_sequence == 0 and view.start > 0:
                await receiver.begin_at(view.start)
                head = await receiver.head()
            start = head.next_sequence
            if start < view.start:
                raise RecordPurgedError(path, start, view.start)
            with translate_os_errors(path, "read"):
                await _check_same(receiver, view, start)
            with translate_os_errors(path, "read"):
                for records, keys in _pieces(view, start):
                    await receiver.bring(records, keys)
                    advance(sum(len(record.data) for record in records), len(records))
            head = await receiver.head()
            return Copied(
                receiver.path,
                head.first_sequence,
                head.next_sequence,
                head.next_sequence - start,
            )
        finally:
            await receiver.aclose()


async def _check_same(receiver: Receiver, view: Snapshot, start: int) -> None:
    """Raise BackupRefusedError unless the log there ends with a record of this one."""
    reason = None
    if start > view.stop:
        reason = f"it has {start - view.stop} records more"
    elif start > view.start and not await receiver.has(
        find(view._replace(start=start - 1, stop=start))
    ):
        reason = f"its record {start - 1} is another one"
    if reason is not None:
        raise BackupRefusedError(receiver.path, reason)


def _pieces(view: Snapshot, start: int) -> Iterator[tuple[list[Record], list[Key]]]:
    """Yield the records from a sequence on, some whole frames at a time, with their keys."""
    records: list[Record] = []
    keys: list[Key] = []
    for more, its in _frames(view, start):
        keys += [key._replace(first=key.first + len(records)) for key in its]
        records += more
        if len(records) >= _RECORDS or sum(len(record.data) for record in records) >= _BYTES:
            yield records, keys
            records, keys = [], []
    if records:
        yield records, keys


def _frames(view: Snapshot, start: int) -> Iterator[tuple[list[Record], list[Key]]]:
    for segment in view.segments:
        end = view.end_of(segment)
        first = max(start, segment.first_sequence)
        if first >= end:
            continue
        with segment.open(view.disk) as reader:
            for frame in reader.frames_before(end, reader.place_before(first)):
                records = [record for record in frame.records() if first <= record.sequence < end]
                if not records:
                    continue
                skipped = records[0].sequence - frame.header.first_sequence
                yield (
                    records,
                    [
                        key._replace(first=key.first - skipped)
                        for key in frame.commit_keys()
                        if key.number & PRODUCERS and key.first >= skipped
                    ],
                )


def _text(done: Copied) -> str:
    records = done.next_sequence - done.first_sequence
    which = f", {done.first_sequence} to {done.next_sequence - 1}" if records else ""
    there = f"{done.path} has {counted(records, 'record')}{which}"
    return f"{counted(done.copied, 'record')} copied; {there}"
