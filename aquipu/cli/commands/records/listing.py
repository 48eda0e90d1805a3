"""The commands that list labels and consumers: relations and cursors."""

from __future__ import annotations

from contextlib import closing
from time import time_ns
from typing import Annotated, cast

import anyio
import typer

from aquipu.cli.app import EPILOG, Purpose, app, exit_codes
from aquipu.cli.arguments import (
    JsonOption,
    LogArgument,
    OptionsOption,
    StoreArgument,
    database_of,
    directory,
    opened_for_reading,
)
from aquipu.cli.forms.objects import as_json
from aquipu.cli.forms.screen import table
from aquipu.cli.streams.console import (
    let_interrupt_kill,
    standard_output,
    write_line,
)
from aquipu.local.cursor import lags
from aquipu.local.disk.disk import Disk
from aquipu.local.disk.paths import address_in
from aquipu.local.read.catalog import Catalog
from aquipu.record import Lag
from aquipu.remote.store import RemoteStore
from aquipu.runtime.closing import Opening


@app.command("relations", epilog=EPILOG, rich_help_panel=Purpose.READ)
def relations_command(
    store: LogArgument,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Only labels that begin so.")] = "",
    option: OptionsOption = None,
    json_object: JsonOption = False,
) -> None:
    """List the labels, and how many records carry each.

    On a terminal that is a table; elsewhere a line each: number, tab, label.

    With --json, one object: the number by label.
    """
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()

        async def count() -> dict[str, int]:
            async with opened_for_reading(store, option) as reader:
                return await reader.relations(prefix)

        counts = anyio.run(count)
        if json_object:
            write_line(output, as_json(counts))
        elif counts:
            rows = [(str(number), label) for label, number in counts.items()]
            write_line(output, table(output, ("RECORDS", "LABEL"), rows))


# consumers


@app.command("cursors", epilog=EPILOG, rich_help_panel=Purpose.KEEP)
def cursors_command(store: StoreArgument, json_object: JsonOption = False) -> None:
    """List the cursors, and how far each consumer is behind.

    This works also while a service writes the store. On a terminal it is a table; elsewhere a line
    each: records behind, age of the oldest of these in seconds, sequence, name, with tabs between.

    A cursor whose file does not check is left out: follow says what is wrong with it.

    \b
    With --json, one object: by name, an object:
      sequence  that it reads next
      records   that were acknowledged, and that it has not passed yet
      seconds   age of the oldest of these that is kept; 0 without any
    """
    is_address = address_in(store) is not None or database_of(store) is not None
    path = store if is_address else directory(store)
    let_interrupt_kill()
    with exit_codes():
        output = standard_output()
        found = anyio.run(_cursors_of, path) if is_address else _cursors_in(path)
        if json_object:
            write_line(output, as_json({name: lag._asdict() for name, lag in found.items()}))
        elif found:
            rows = [
                (str(lag.records), f"{lag.seconds:.3f}", str(lag.sequence), name)
                for name, lag in found.items()
            ]
            write_line(output, table(output, ("BEHIND", "SECONDS", "SEQUENCE", "CURSOR"), rows))


def _cursors_in(path: str) -> dict[str, Lag]:
    with closing(Catalog(Disk(), path)) as catalog:
        return lags(path, catalog.store_id, catalog.look(), time_ns())


async def _cursors_of(address: str) -> dict[str, Lag]:
    # a reader of a database has the call, too
    async with cast("Opening[RemoteStore]", opened_for_reading(address)) as store:
        return await store.cursors()
