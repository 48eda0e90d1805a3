"""The command that shows a store at work: top."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, cast

import anyio
import typer

from aquipu.cli.app import EPILOG, Purpose, app, exit_codes
from aquipu.cli.arguments import (
    LogArgument,
    OptionsOption,
    absolute,
    check_no_options,
    database_of,
    opened_for_reading,
)
from aquipu.cli.forms.objects import as_json
from aquipu.cli.streams.console import standard_output, write_line
from aquipu.cli.top.view import plain
from aquipu.local.disk.paths import address_in, is_archive

if TYPE_CHECKING:
    from aquipu.cli.top.sources import Source
    from aquipu.reader import Reader
    from aquipu.runtime.closing import Opening

_INTERVAL_MIN = 0.1


@app.command("top", epilog=EPILOG, rich_help_panel=Purpose.SERVE)
def top_command(
    store: LogArgument,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long from one look to the next.")
    ] = 1.0,
    option: OptionsOption = None,
    json_object: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object, of two looks, and end."),
    ] = False,
) -> None:
    """Show a store at work, on the terminal, until q is pressed.

    Appends a second and their latency now and over the last five minutes, how far the log is
    acknowledged and synced, what a power cut would take at this instant, the buffer, the disk, and
    how far each consumer is behind.

    Of a daemon, or a store that processes share, all of it. Beside a process that writes a
    directory alone, and of a log in a database or an archive, what can be seen from outside: the
    writer is not asked, and does not notice. That the writer of a directory is stopped, or gone,
    is shown.

    \b
    With --json, one object; what is not known is null, times are in seconds:
      health              "ok", "degraded", "failed", "closed", "stopped",
                          "at rest" or "away"
      reasons             why: a list of texts
      writer              null, or an object: pid, state
      appends             records a second: an object, as those below: now,
                          and history, a list, the oldest first
      records_per_commit  append_p50, append_p99, sync_p50, sync_p99
      first               sequence of the first record kept
      acknowledged        one past the last one; synced: everything below is
                          on the disk
      at_risk             records that a power cut would take now;
                          at_risk_seconds: age of the oldest
      archived            everything below is in the archive; unarchived:
                          records that are not; archive_seconds: how far it
                          is behind
      buffered            records; buffered_bytes; waiting: callers
      under_way_seconds   how long the disk has been at what it is doing
      segments            disk_bytes, free_bytes
      consumers           an object: by name, an object: records, seconds
      measured            whether the writer was asked
      seconds             how far this looks back
    """
    if not interval >= _INTERVAL_MIN:
        raise typer.BadParameter(f"{interval} is not {_INTERVAL_MIN} or more seconds")
    with exit_codes():
        output = standard_output()
        if not json_object and not output.isatty():
            raise typer.BadParameter("a live view needs a terminal; --json is for programs")
        anyio.run(_top, _source(store, option), interval, json_object)


def _source(store: str, option: list[str] | None) -> AbstractAsyncContextManager[Source]:
    """Return what gives samples of the store; a usage error for what is no place of one."""
    from aquipu.cli.top.sources import read_source, source_of

    if is_archive(store) or database_of(store) is not None:
        return read_source(cast("Opening[Reader]", opened_for_reading(store, option)))
    check_no_options(option)
    return source_of(store if address_in(store) is not None else absolute(store))


async def _top(
    opening: AbstractAsyncContextManager[Source], interval: float, json_object: bool
) -> None:
    from aquipu.cli.top.screen import once, watch  # what draws is loaded for this command alone

    async with opening as source:
        if json_object:
            view = await once(source, min(interval, 1.0))
            write_line(standard_output(), as_json(plain(view)))
        else:
            await watch(source, interval)
