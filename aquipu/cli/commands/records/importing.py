"""The command that stores JSON lines with labels and times from their fields: import."""

from __future__ import annotations

from asyncio import Future, gather
from contextlib import nullcontext
from functools import partial
from io import FileIO
from time import time_ns
from typing import Annotated, NamedTuple

import anyio
import typer

from aquipu.cli.app import EPILOG, SIGNALLED, WRITTEN_ALONE, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    LockTimeoutOption,
    StoreToWriteArgument,
    SyncPolicyOption,
    checked_timeout,
)
from aquipu.cli.forms.jsonl import BadLineError, Entry, LabelPlace, entry_of
from aquipu.cli.forms.jsontime import TimePlace
from aquipu.cli.storing import opening_alone, opening_for_append, store_lines
from aquipu.cli.streams.console import PIECE_BYTES, Input, naming
from aquipu.cli.streams.lines import Lines
from aquipu.options import TimeRefusedError
from aquipu.record import Receipt
from aquipu.remote.store import RemoteStore
from aquipu.store import Store

_NOTHING = "nothing was stored"
_DATED_ALONE = (
    "times of the original are kept only while no other process writes the store: end that one "
    "first, or leave out --time"
)
_COMMIT_RECORDS = 1024


@app.command("import", epilog=EPILOG, rich_help_panel=Purpose.WRITE)
def import_command(
    store: StoreToWriteArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines; - is standard input.")],
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            metavar="NAME=.FIELD",
            help="Give each record a label from a field: with actor=.user.name it is actor:ada. A"
            " list gives several, a field that is not there none. May be repeated.",
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar=".FIELD",
            help="Keep the time that a line says: 2026-01-31T12:00:00Z, or a number of seconds,"
            " ms, µs or ns since 1970. None may be before that of the line before it or of the last"
            " record there, nor in the future. Only into a directory that nobody else writes"
            " meanwhile.",
        ),
    ] = None,
    sync_policy: SyncPolicyOption = None,
    lock_timeout: LockTimeoutOption = 20.0,
) -> None:
    """Store JSON lines, with labels and times from their fields.

    Each line is a record, byte for byte, without its line end; empty ones are left out. A file is
    checked as a whole before any of it is stored. Of a pipe, what stands before a bad line is
    stored. Without --time the time of a record is that of the import.

    Ctrl-C, SIGTERM and SIGHUP end it as the end of the file does: what was read is stored and
    synced.
    """
    seconds = checked_timeout(lock_timeout)
    with usage("--label"):
        places = [LabelPlace.parsed(text) for text in label or ()]
    with usage("--time"):
        time_place = None if time is None else TimePlace.parsed(time)
    if time_place is None:
        opening = opening_for_append(store, sync_policy, seconds, None, None)
    else:
        opening = opening_alone(store, sync_policy, seconds)
    name = "standard input" if file == "-" else file
    lines = Lines(keep_end=False, source=name)
    reader = _Reader(name, places, time_place, "everything before it was stored")
    storing = partial(_store if time_place is None else _store_dated, reader)
    locked = WRITTEN_ALONE if time_place is None else _DATED_ALONE
    with exit_codes(locked), nullcontext() if file == "-" else _opened(file) as given:
        if given is not None and given.seekable():
            _check(given, _Reader(name, places, time_place, _NOTHING), name)
        stopped_by = anyio.run(store_lines, opening, (store, seconds), Input(given), lines, storing)
        if stopped_by is not None:
            raise typer.Exit(SIGNALLED + stopped_by)


def _opened(path: str) -> FileIO:
    with naming(path):
        return FileIO(path, "rb")


def _check(file: FileIO, reader: _Reader, name: str) -> None:
    """Refuse a file of which one line cannot be stored, before any of it is."""
    lines = Lines(source=name)
    with naming(name):
        while piece := file.read(PIECE_BYTES):
            for line in lines.feed(piece):
                reader.entry_of(line)
        reader.entry_of(lines.rest())
        file.seek(0)


class _Reader:
    """Reads labels and times of the lines of one source, and counts these."""

    def __init__(
        self, source: str, places: list[LabelPlace], time: TimePlace | None, outcome: str
    ) -> None:
        self.number = 0
        """Number of the line that was read last."""
        self._source = source
        self._places = places
        self._time = time
        self._outcome = outcome
        self._last_time = 0

    def entry_of(self, line: bytes) -> Entry | None:
        """Return what the next line is stored with; None for an empty one. Raises BadLineError."""
        self.number += 1
        if not line.strip():
            return None
        try:
            entry = entry_of(line, self._places, self._time)
            if entry.time is not None:
                self._check_time(entry.time)
        except ValueError as error:
            raise self.bad_line(self.number, str(error), self._outcome) from None
        return entry

    def bad_line(self, number: int, reason: str, outcome: str) -> BadLineError:
        """Return the error about a line of this source."""
        return BadLineError(self._source, number, reason, outcome)

    def _check_time(self, time: int) -> None:
        if time < self._last_time:
            raise ValueError("its time is before that of the line before it")
        if time > time_ns():
            raise ValueError("its time is in the future")
        self._last_time = time


async def _store(reader: _Reader, store: Store | RemoteStore, lines: list[bytes]) -> None:
    under_way: list[Future[Receipt]] = []
    try:
        for line in lines:
            entry = reader.entry_of(line)
            if entry is not None:
                waiting = store.append_nowait(line, relations=entry.labels, in_line=True)
                under_way.append(waiting)
    finally:  # what stands before a bad line is stored
        await gather(*under_way)


class _Dated(NamedTuple):
    """A line, what it is stored with, and its number."""

    line: bytes
    labels: tuple[str, ...]
    time: int
    number: int


async def _store_dated(reader: _Reader, store: Store | RemoteStore, lines: list[bytes]) -> None:
    """Store lines with the times that they say, some in each commit."""
    batch: list[_Dated] = []
    try:
        for line in lines:
            entry = reader.entry_of(line)
            if entry is not None and entry.time is not None:
                batch.append(_Dated(line, entry.labels, entry.time, reader.number))
            if len(batch) >= _COMMIT_RECORDS:
                full, batch = batch, []
                await _append_dated(reader, store, full)
    finally:  # what stands before a bad line is stored
        await _append_dated(reader, store, batch)


async def _append_dated(reader: _Reader, store: Store | RemoteStore, batch: list[_Dated]) -> None:
    payloads = [one.line for one in batch]
    labels, times = [one.labels for one in batch], [one.time for one in batch]
    try:
        await store.append_dated(payloads, labels, times)
    except TimeRefusedError as error:
        number, reason = batch[error.index].number, f"its time is {error.reason}"
        outcome = "everything before it was stored" if store.statistics().records else _NOTHING
        raise reader.bad_line(number, reason, outcome) from None
