"""The command that stores JSON lines with labels from their fields: import."""

from __future__ import annotations

from asyncio import Future, gather
from contextlib import nullcontext
from functools import partial
from io import FileIO
from typing import Annotated

import anyio
import typer

from aquipu.cli.app import EPILOG, SIGNALLED, WRITTEN_ALONE, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    LockTimeoutOption,
    StoreToWriteArgument,
    SyncPolicyOption,
    checked_timeout,
)
from aquipu.cli.forms.jsonl import BadLineError, LabelPlace, labels_of
from aquipu.cli.storing import opening_for_append, store_lines
from aquipu.cli.streams.console import PIECE_BYTES, Input, naming
from aquipu.cli.streams.lines import Lines
from aquipu.record import Receipt
from aquipu.remote.store import RemoteStore
from aquipu.store import Store


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
    sync_policy: SyncPolicyOption = None,
    lock_timeout: LockTimeoutOption = 20.0,
) -> None:
    """Store JSON lines, with labels from their fields.

    Each line is a record, byte for byte, without its line end; empty ones are left out. A file is
    checked as a whole before any of it is stored. Of a pipe, what stands before a bad line is
    stored. The time of a record is that of the import: one in its data stays there.

    Ctrl-C, SIGTERM and SIGHUP end it as the end of the file does: what was read is stored and
    synced.
    """
    seconds = checked_timeout(lock_timeout)
    with usage("--label"):
        places = [LabelPlace.parsed(text) for text in label or ()]
    opening = opening_for_append(store, sync_policy, seconds, None, None)
    name = "standard input" if file == "-" else file
    lines = Lines(keep_end=False, source=name)
    storing = partial(_store, _Labels(name, places, "everything before it was stored"))
    with exit_codes(WRITTEN_ALONE), nullcontext() if file == "-" else _opened(file) as given:
        if given is not None and given.seekable():
            _check(given, name, places)
        stopped_by = anyio.run(store_lines, opening, (store, seconds), Input(given), lines, storing)
        if stopped_by is not None:
            raise typer.Exit(SIGNALLED + stopped_by)


def _opened(path: str) -> FileIO:
    with naming(path):
        return FileIO(path, "rb")


def _check(file: FileIO, name: str, places: list[LabelPlace]) -> None:
    """Refuse a file of which one line cannot be stored, before any of it is."""
    reader, lines = _Labels(name, places, "nothing was stored"), Lines(source=name)
    with naming(name):
        while piece := file.read(PIECE_BYTES):
            for line in lines.feed(piece):
                reader.labels_of(line)
        reader.labels_of(lines.rest())
        file.seek(0)


class _Labels:
    """Reads the labels of the lines of one source, and counts these."""

    def __init__(self, source: str, places: list[LabelPlace], outcome: str) -> None:
        self._source = source
        self._places = places
        self._outcome = outcome
        self._number = 0

    def labels_of(self, line: bytes) -> tuple[str, ...] | None:
        """Return the labels of the next line; None for an empty one. Raises BadLineError."""
        self._number += 1
        if not line.strip():
            return None
        try:
            return labels_of(line, self._places)
        except ValueError as error:
            raise BadLineError(self._source, self._number, str(error), self._outcome) from None


async def _store(reader: _Labels, store: Store | RemoteStore, lines: list[bytes]) -> None:
    under_way: list[Future[Receipt]] = []
    try:
        for line in lines:
            labels = reader.labels_of(line)
            if labels is not None:
                under_way.append(store.append_nowait(line, relations=labels, in_line=True))
    finally:  # what stands before a bad line is stored
        await gather(*under_way)
