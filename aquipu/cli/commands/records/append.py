"""The command that stores records: append.

It writes through a `Store`, and so holds its lock, or goes through who has it and shares it.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio
import typer

from aquipu.cli.app import EPILOG, SIGNALLED, WRITTEN_ALONE, Purpose, app, exit_codes, usage
from aquipu.cli.arguments import (
    LockTimeoutOption,
    ModeOption,
    StoreToWriteArgument,
    SyncPolicyOption,
    checked_rights,
    checked_timeout,
)
from aquipu.cli.storing import opening_for_append, store_lines
from aquipu.cli.streams.console import (
    Input,
)
from aquipu.cli.streams.lines import Lines
from aquipu.record import checked_relations
from aquipu.remote.store import RemoteStore
from aquipu.store import Store

_BATCH_RECORDS = 16_384  # fewer than any buffer holds that was opened without saying otherwise


# append


@app.command("append", epilog=EPILOG, rich_help_panel=Purpose.WRITE)
def append_command(
    store: StoreToWriteArgument,
    sync_policy: SyncPolicyOption = None,
    relation: Annotated[
        list[str] | None,
        typer.Option(
            "--relation", metavar="LABEL", help="Store each line with this label; may be repeated."
        ),
    ] = None,
    mode: ModeOption = None,
    group: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The group that the files belong to, and may read them."),
    ] = None,
    nul: Annotated[
        bool, typer.Option("-0", help="A NUL byte ends each record, and not a line end.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Keep what ends each record as a part of it.")
    ] = False,
    lock_timeout: LockTimeoutOption = 20.0,
) -> None:
    """Store standard input, a record for each line.

    Each line is stored as soon as it comes, without its line end, which `aquipu cat` puts behind it
    again. With --raw, both leave every byte as it is. At the end, one line on standard error says
    how many records were stored, the last sequence, and how safe they are.

    Ctrl-C, SIGTERM and SIGHUP end it as the end of the input does: what was read is stored and
    synced.
    """
    seconds = checked_timeout(lock_timeout)
    with usage("--relation"):
        labels = checked_relations(relation or ())
    opening = opening_for_append(store, sync_policy, seconds, checked_rights(mode), group)
    lines = Lines(end=b"\0" if nul else b"\n", keep_end=raw)
    with exit_codes(WRITTEN_ALONE):
        stopped_by = anyio.run(
            store_lines, opening, (store, seconds), Input(), lines, partial(_store, labels)
        )
        if stopped_by is not None:
            raise typer.Exit(SIGNALLED + stopped_by)


async def _store(labels: tuple[str, ...], store: Store | RemoteStore, lines: list[bytes]) -> None:
    for first in range(0, len(lines), _BATCH_RECORDS):
        await store.append_many(lines[first : first + _BATCH_RECORDS], relations=labels)
